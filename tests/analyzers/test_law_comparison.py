"""Comparisons of laws: exact p-values by brute force, level, coverage, and what must and must not be told apart."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kurtosis, sem, skew
from scipy.stats import t as t_law

from langevin_nn.analyzers import LawComparison, Quantity, holm, jackknife, phase_windows, swap_test
from langevin_nn.errors import ConfigurationError, EstimationRefused, UnknownNameError

LOSS = (Quantity("train_loss", "train_loss", (), logarithmic=False), Quantity("test_loss", "test_loss", ()))


def statistic_of(x, y):
    """From means and variances of the two ensembles, without signs."""
    d, s = x - y, x + y
    means = np.abs(len(x) * (x.mean(0) - y.mean(0))) / np.sqrt((d**2).sum(0))
    variances = (len(x) - 1) * np.abs(x.var(0, ddof=1) - y.var(0, ddof=1))
    variances /= np.sqrt((d**2 * (s - s.mean(0)) ** 2).sum(0))
    return np.concatenate([means, variances])


def test_p_values_are_those_of_all_exchanges():
    generator = np.random.default_rng(0)
    x, y = generator.exponential(size=(2, 8, 3)) + np.array([0.0, 0.5])[:, None, None]
    observed, largest = statistic_of(x, y), []
    for pattern in product((False, True), repeat=8):
        swap = np.array(pattern)[:, None]
        largest.append(statistic_of(np.where(swap, y, x), np.where(swap, x, y)).max())
    exact = (np.array(largest)[:, None] >= observed * (1 - 1e-9)).mean(0)
    n = 20_000
    found = swap_test(x, y, permutations=n)
    tolerance = 4.5 * np.sqrt(exact * (1 - exact) / n) + 1.5 / n
    assert (np.abs(np.concatenate([found.mean_p_value, found.spread_p_value]) - exact) < tolerance).all()
    assert found.p_value == min(found.mean_p_value.min(), found.spread_p_value.min())
    np.testing.assert_allclose(found.statistic, observed.max())


@pytest.mark.parametrize("law", ["standard_cauchy", "standard_exponential"])
def test_the_level_is_nominal_for_any_law_and_a_difference_is_found(law):
    generator = np.random.default_rng(1)
    repetitions, hits, found = 600, 0, 0
    for k in range(repetitions):
        shared = getattr(generator, law)((12, 1))
        x, y = shared + getattr(generator, law)((2, 12, 6))
        hits += swap_test(x, y, permutations=199, seed=k).p_value <= 0.05
        found += swap_test(x, y + 1.5, permutations=199, seed=k).p_value <= 0.05
    low, high = binom.ppf((0.0005, 0.9995), repetitions, 0.05)
    assert 0.6 * low <= hits <= high  # ties of a few hundred exchanges make it a little smaller
    assert found > 3 * high  # mutated twin: another law


def test_what_is_missing_more_often_is_a_difference_and_nothing_else_is_lost():
    x, y = np.random.default_rng(2).standard_normal((2, 16, 4))
    y[:9] = np.nan
    assert swap_test(x, y).p_value < 0.01
    x[:9] = np.nan
    assert swap_test(x, y).p_value > 0.05
    same = np.ones((16, 2))
    assert swap_test(same, same).p_value == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.3))
def test_holm_rejects_what_stepping_down_rejects(values, level):
    rejected, remaining = np.zeros(len(values), dtype=bool), np.argsort(values, kind="stable")
    for k, at in enumerate(remaining):
        if values[at] * (len(values) - k) > level:
            break
        rejected[at] = True
    np.testing.assert_array_equal(holm(values) <= level, rejected)
    np.testing.assert_array_equal(holm([*values, np.nan])[:-1], holm(values))


def test_the_jackknife_of_a_mean_is_students_interval_and_that_of_a_ratio_covers_it():
    generator = np.random.default_rng(3)
    hits = []
    for _ in range(500):
        x = generator.standard_normal((20, 2)) + np.array([2.0, 4.0])
        _, lower, upper = jackknife(lambda v: v[:, 1].mean() / v[:, 0].mean(), x)
        hits.append(lower <= 2 <= upper)
    assert binom.ppf(0.0005, 500, 0.93) <= np.sum(hits) <= binom.ppf(0.9995, 500, 0.97)


def test_the_jackknife_knows_the_tails_and_the_skewness_of_what_values_add():
    """Of a mean they add themselves: what scipy says of these values gives the interval; fewer than 16 have no shape."""
    values = np.r_[np.linspace(-1, 1, 19), 8.0]
    t = t_law.ppf(0.975, min(19, 40 / (kurtosis(values, fisher=False) - 1)))
    further = skew(values, bias=False) / (6 * 20**0.5) * (1 + 2 * t**2)
    mean, lower, upper = jackknife(np.mean, values)
    np.testing.assert_allclose((mean - lower, upper - mean), np.array([t, t + further]) * sem(values))
    np.testing.assert_allclose(jackknife(np.mean, -values)[1:], (-upper, -lower))
    mean, lower, upper = jackknife(np.mean, values[5:])
    np.testing.assert_allclose((mean - lower, upper - mean), t_law.ppf(0.975, 14) * sem(values[5:]))
    assert jackknife(np.mean, np.ones(20)) == (1, 1, 1)


def trajectories(generator, *, shift=0.0, ratio=1.0, replicas=24, correlation=0.5, processes=("sgd", "other")):
    """Replica r of both processes shares part of its value; both quantities keep theirs over all records."""
    shared = np.sqrt(correlation) * generator.standard_normal((1, replicas, 1))
    own = shared + np.sqrt(1 - correlation) * generator.standard_normal((len(processes), replicas, 1))
    own[1:] = shift + ratio * own[1:]
    own = np.repeat(own, 9, axis=2)
    own[:, :, 0] = 0.0  # the start, which all share
    clock = {"process": list(processes), "epoch": ("step", np.arange(9.0))}
    dimensions = ("process", "replica", "step")
    return xr.Dataset({"train_loss": (dimensions, own), "test_loss": (dimensions, np.exp(own))}, coords=clock)


WINDOWS = {"I": (0.0, 4.0), "II": (4.0, 8.0)}


def test_distances_and_their_intervals_hold_the_truth():
    generator, n = np.random.default_rng(4), 120
    comparison = LawComparison(quantities=LOSS, permutations=99, moments=0)
    rows = [comparison(trajectories(generator, shift=0.7, ratio=1.5), {"I": (0.0, 4.0)}) for _ in range(n)]
    found = xr.concat(rows, "repetition").isel(process=0, phase=0, quantity=0)
    for name, truth, wrong in (("distance", 0.7, 0.1), ("spread_ratio", 1.5, 1.0), ("squared_distance", 0.49, 2.0)):
        hits = int(((found[f"{name}_lower"] <= truth) & (truth <= found[f"{name}_upper"])).sum())
        assert binom.ppf(0.0005, n, 0.92) <= hits <= binom.ppf(0.9995, n, 0.98), name
        others = int(((found[f"{name}_lower"] <= wrong) & (wrong <= found[f"{name}_upper"])).sum())
        assert others < binom.ppf(0.0005, n, 0.92), name  # mutated twin
    null = [comparison(trajectories(generator), {"I": (0.0, 4.0)}).squared_distance.item() for _ in range(n)]
    assert abs(np.mean(null)) < 4.5 * np.std(null) / n**0.5  # chance is taken off


def test_mean_and_spread_are_told_apart_and_the_start_says_nothing():
    generator = np.random.default_rng(5)
    comparison = LawComparison(quantities=LOSS)
    shifted = comparison(trajectories(generator, shift=2.0), WINDOWS)
    assert bool(shifted.is_rejected.all())
    assert (shifted.mean_p_value < 0.01).all()
    assert (shifted.spread_p_value > 0.05).all()
    assert shifted.record_count.values.tolist() == [4, 4]
    wider = comparison(trajectories(generator, ratio=4.0, correlation=0.0), WINDOWS)
    assert (wider.spread_p_value < 0.01).all()
    assert bool(wider.is_rejected.all())
    same = comparison(trajectories(generator), WINDOWS)
    assert not bool(same.is_rejected.any())
    np.testing.assert_allclose(same.adjusted_p_value, holm(same.p_value.values))


def test_replicas_that_diverge_are_counted_and_what_is_rarely_recorded_is_compared_where_it_was():
    run = trajectories(np.random.default_rng(6))
    run["test_loss"][:, :, 1::2] = np.nan  # recorded at every other record
    found = LawComparison(quantities=LOSS)(run, WINDOWS)
    assert (found.diverged_count == 0).all()
    assert found.distance.notnull().all()
    lost = run.copy(deep=True)
    lost["train_loss"][1, :12, 5:] = np.nan
    lost["test_loss"][1, :12, 5:] = np.nan
    found = LawComparison(quantities=LOSS)(lost, WINDOWS)
    assert found.diverged_count.values.tolist() == [[0, 12]]
    assert found.is_rejected.values.tolist() == [[0, 1]]
    assert all(each.attrs["long_name"] for each in found.data_vars.values())


def test_where_half_of_the_replicas_are_equal_there_is_no_unit():
    run = trajectories(np.random.default_rng(8), replicas=16)
    run["train_loss"][0, :8] = 0.0
    found = LawComparison(quantities=LOSS)(run, WINDOWS).isel(process=0)
    assert found.distance.sel(quantity="train_loss").isnull().all()
    assert found.distance.sel(quantity="test_loss").notnull().all()
    assert found.mean_p_value.notnull().all(), "the test needs no unit"


def test_what_cannot_be_compared_is_refused():
    run = trajectories(np.random.default_rng(7))
    with pytest.raises(EstimationRefused, match="5 replicas: expected at least 6"):
        LawComparison(quantities=LOSS)(run.isel(replica=slice(5)), WINDOWS)
    with pytest.raises(UnknownNameError, match="sdg"):
        LawComparison("sdg", quantities=LOSS)(run, WINDOWS)
    with pytest.raises(ConfigurationError, match="permutations=20 for 1 processes in 2 windows: expected at least 40"):
        LawComparison(quantities=LOSS, permutations=20)(run, WINDOWS)
    with pytest.raises(EstimationRefused, match="no record in any of 1 windows"):
        LawComparison(quantities=LOSS)(run, {"IV": (20.0, 30.0)})
    with pytest.raises(ConfigurationError, match="one process, 'sgd'"):
        LawComparison(quantities=LOSS)(run.isel(process=[0]), WINDOWS)
    with pytest.raises(ConfigurationError, match="lacks"):
        LawComparison()(run.rename(train_loss="loss", test_loss="other"), WINDOWS)
    with pytest.raises(EstimationRefused, match="expected at least 6"):
        swap_test(np.ones((5, 1)), np.ones((5, 1)))
    with pytest.raises(ConfigurationError, match="one shape"):
        swap_test(np.ones((8, 1)), np.ones((8, 2)))


def test_windows_end_where_the_median_replica_goes_on_and_phases_not_reached_are_left_out():
    phase = xr.DataArray(np.ones((3, 2)), dims=("replica", "step"), attrs={"flag_meanings": "I II III"})
    begins = np.array([[2.0, np.nan], [3.0, np.nan], [9.0, 8.0]])
    phases = xr.Dataset({"boundary_epoch": (("replica", "boundary"), begins), "phase": phase})
    assert phase_windows(phases, 10.0) == {"I": (0.0, 3.0), "II": (3.0, 10.0)}
