"""Autocorrelation and stationarity against closed forms, with planned samples and twins that fail.

An AR(1) process x ← φ x + ξ has ρ(t) = φ^t and τ = (1 + φ)/(1 − φ); Euler–Maruyama on a quadratic landscape is one.
Shares over trials are binomial, and bounds are `SIGMAS` of their standard errors.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from langevin_nn import Process, simulate
from langevin_nn.analyzers import (
    Autocorrelation,
    Stationarity,
    autocorrelation_function,
    effective_sample_size,
    integrated_autocorrelation_time,
    stationarity_test,
    time_average,
)
from langevin_nn.analyzers.labels import evenly_spaced
from langevin_nn.drift import LinearDrift
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.landscape import PotentialLandscape
from langevin_nn.noise import AnisotropicNoise
from langevin_nn.observables import Weights
from langevin_nn.schedules import EverySteps
from langevin_nn.statistics import stationarity as stationarity_module
from langevin_nn.update import EulerMaruyama

SIGMAS = 4.0


def autoregressive(phi: float, trials: int, records: int, seed: int = 0) -> np.ndarray:
    """Stationary from the first record, unit variance."""
    noise = np.random.default_rng(seed).standard_normal((trials, records)) * np.sqrt(1 - phi**2)
    noise[:, 0] /= np.sqrt(1 - phi**2)
    return lfilter([1.0], [1.0, -phi], noise)


def closed_form(phi: float) -> float:
    return (1 + phi) / (1 - phi)


def recorded(values, **coordinates) -> xr.Dataset:
    """Values of shape (replica, step) as a trajectory of the schema."""
    values = np.asarray(values)
    steps = np.arange(values.shape[-1]) * 10
    coords = {"step": steps, "epoch": ("step", steps / 5.0), "time": ("step", steps * 0.01), **coordinates}
    return xr.Dataset({"test_loss": (("replica", "step"), values, {"units": "nat"})}, coords=coords)


# --- Array functions --------------------------------------------------------------------------------------------------


def test_autocorrelation_function_is_the_sum_that_defines_it():
    values = np.random.default_rng(1).normal(3.0, 2.0, (2, 17))
    deviations = values - values.mean(1, keepdims=True)
    expected = [[sum(d[s] * d[s + t] for s in range(17 - t)) / sum(d * d) for t in range(17)] for d in deviations]
    np.testing.assert_allclose(autocorrelation_function(values), expected, atol=1e-12)


@pytest.mark.parametrize("phi", [-0.9, -0.5, 0.0, 0.5, 0.9])
def test_autocorrelation_time_of_an_autoregressive_process(phi):
    """40 series of 400 times their memory: τ to 0.22/√40 = 3.5 % of itself each."""
    memory = max(closed_form(phi), 1 / closed_form(phi))
    times = [integrated_autocorrelation_time(x) for x in autoregressive(phi, 40, int(400 * memory))]
    error = np.std(times, ddof=1) / np.sqrt(len(times))
    assert error < 0.06 * closed_form(phi)
    assert abs(np.mean(times) - closed_form(phi)) < SIGMAS * error
    assert abs(np.mean(times) - 1.3 * closed_form(phi)) > SIGMAS * error, "a sum of 30 % more would have passed"


def test_oscillating_correlations_neither_end_the_sum_early_nor_leak_into_it():
    """AR(2) with roots r e^{±iω}: τ = S(0)/variance in closed form, while sums of ρ swing far above and below it."""
    radius, frequency = 0.95, 0.5
    a, b = 2 * radius * np.cos(frequency), -(radius**2)
    variance = (1 - b) / ((1 + b) * ((1 - b) ** 2 - a**2))
    expected = 1 / (1 - a - b) ** 2 / variance
    noise = np.random.default_rng(5).standard_normal((30, 21_000))
    series = lfilter([1.0], [1.0, -a, -b], noise)[:, 1000:]
    times = np.array([integrated_autocorrelation_time(x) for x in series])
    error = times.std(ddof=1) / np.sqrt(len(times))
    assert abs(times.mean() - expected) < SIGMAS * error
    # Sokal's window alone closes at the first dip.
    sums = 2 * np.cumsum(autocorrelation_function(series).mean(0)) - 1
    early = sums[np.argmax(np.arange(len(sums)) >= 5 * sums)]
    assert abs(early - expected) > 2 * SIGMAS * error


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_intervals_of_time_averages_cover_and_naive_ones_do_not(phi):
    """1,000 series of 100 autocorrelation times, 150 records at least: a share of 0.95 is known to 0.007.

    2 to 4 % of them are refused.

    At that length the bias of the time leaves about 0.5 % of the coverage, which the bound contains.
    """
    records = int(max(150, 100 * closed_form(phi)))
    covered, naive = [], []
    for series in autoregressive(phi, 1000, records, seed=3):
        naive.append(abs(series.mean()) < 1.96 * series.std(ddof=1) / np.sqrt(records))
        try:
            lower, upper = time_average(series).interval()
        except EstimationRefused:
            continue
        covered.append(lower < 0 < upper)
    assert len(covered) > 900
    assert abs(np.mean(covered) - 0.95) < SIGMAS * 0.007
    assert (abs(np.mean(naive) - 0.95) < SIGMAS * 0.007) == (phi == 0)


def test_what_the_estimated_mean_takes_away_is_given_back():
    """Variances of the mean of 1,000 series of 50 autocorrelation times; their average is known to 2.5 %."""
    phi, records = 0.5, 150
    variances, uncorrected = [], []
    for series in autoregressive(phi, 1000, records, seed=4):
        try:
            average = time_average(series, least_ratio=1)
        except EstimationRefused:  # 2 % of so short series have a negative sum
            continue
        variances.append(average.standard_error**2)
        uncorrected.append(variances[-1] / (1 + 1 / average.degrees_of_freedom))
    truth = closed_form(phi) / records
    assert len(variances) > 950
    assert abs(np.mean(variances) / truth - 1) < SIGMAS * 0.025
    assert abs(np.mean(uncorrected) / truth - 1) > SIGMAS * 0.025


@given(
    st.floats(0.01, 1e3),
    st.floats(-1e3, 1e3),
    st.booleans(),
    st.integers(0, 2**20),
)
@settings(max_examples=25)
def test_autocorrelation_time_is_invariant_under_affine_maps_and_reversal(scale, shift, mirrored, seed):
    series = autoregressive(0.5, 1, 600, seed)[0]
    mapped = shift + (-scale if mirrored else scale) * series
    original = integrated_autocorrelation_time(series)
    assert integrated_autocorrelation_time(mapped) == pytest.approx(original, rel=1e-6)
    assert integrated_autocorrelation_time(series[::-1]) == pytest.approx(original, rel=1e-9)
    assert effective_sample_size(series) == pytest.approx(600 / original)


def test_short_series_are_refused_with_what_they_had_and_need():
    series = autoregressive(0.95, 1, 300)[0]
    with pytest.raises(
        EstimationRefused, match=r"300 records .* expected at least 50 times as many \(\d+\)"
    ) as refusal:
        integrated_autocorrelation_time(series)
    numbers = refusal.value.numbers
    assert numbers["records"] == 300
    assert numbers["records_needed"] == np.ceil(50 * numbers["integrated_autocorrelation_time"]) > 300
    assert integrated_autocorrelation_time(series, least_ratio=1) > 5
    with pytest.raises(EstimationRefused, match="no series varies"):
        time_average(np.full(1000, 0.1))
    with pytest.raises(ConfigurationError, match="expected one series of finite numbers"):
        effective_sample_size([1.0, np.nan])


@pytest.mark.parametrize("estimate", [integrated_autocorrelation_time, time_average, effective_sample_size])
def test_fewer_records_than_tell_a_time_are_refused_whatever_they_are(estimate):
    noise = np.random.default_rng(0).standard_normal(149)
    for series in ([1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 5.0], noise):
        with pytest.raises(EstimationRefused, match=f"{len(series)} records: expected at least 150") as refusal:
            estimate(series)
        assert refusal.value.numbers == {"records": len(series), "records_needed": 150}
    with pytest.raises(EstimationRefused, match="of each of 4 replicas: expected at least 150 in all"):
        Autocorrelation("test_loss")(recorded(np.random.default_rng(0).standard_normal((4, 37))))
    assert Autocorrelation("test_loss")(recorded(np.tile(noise, (2, 1)))).mean_time_average.notnull()


def test_a_series_that_alternates_is_told_that_its_envelope_lasts_long():
    series = autoregressive(-0.95, 1, 1000)
    memory, time = 1 / closed_form(-0.95), closed_form(-0.95)
    for refused in (lambda: time_average(series[0]), lambda: Autocorrelation("test_loss")(recorded(series))):
        with pytest.raises(EstimationRefused, match="1000 records that alternate: the envelope") as refusal:
            refused()
        assert refusal.value.numbers["integrated_autocorrelation_time"] == pytest.approx(time, rel=0.7)
        assert refusal.value.numbers["envelope"] == pytest.approx(memory, rel=0.7)


# --- On trajectories --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bowl() -> xr.DataTree:
    """Euler–Maruyama with rate 0.2 and noise √α F on x: an AR(1) of φ = 0.8, burnt in, two parameters."""

    def flat(x):
        return 0.0 * x[0]

    process = Process(
        PotentialLandscape(flat, 2, start=[0.0, 0.0]),
        AnisotropicNoise(np.diag([1.0, 2.0])),
        0.1,
        drift=LinearDrift(np.diag([2.0, 5.0])),
        update=EulerMaruyama(),
    )
    return simulate(process, steps=4000, replicas=24, observables=Weights(schedule=EverySteps(1)), progress=False)


def test_the_ornstein_uhlenbeck_law_of_the_library_s_own_surrogate(bowl):
    """φ = 1 − α a = 0.8 and 0.5; 24 replicas of 430 and 1,300 autocorrelation times know τ to 4.5 and 2.7 %."""
    result = Autocorrelation("weights", discard=100)(bowl)
    expected = np.array([closed_form(0.8), closed_form(0.5)])
    measured = result.mean_integrated_autocorrelation_time
    error = result.mean_integrated_autocorrelation_time_standard_error
    assert (abs(measured - expected) < SIGMAS * error).all()
    assert (error < 0.08 * expected).all()
    np.testing.assert_allclose(result.autocorrelation.mean("replica").sel(lag=3), [0.8**3, 0.5**3], atol=0.02)
    # Each replica's own error, and that from the spread over replicas, are of one mind.
    own = result.integrated_autocorrelation_time_standard_error.mean("replica") / np.sqrt(24)
    np.testing.assert_allclose(own, error, rtol=0.5)
    # The average is known as well as the exact law says: variance α/(2 a (1 − α a/2)) τ/N over 24 replicas.
    variances = 0.1 * np.array([1.0, 4.0]) / (np.array([2.0, 5.0]) * (2 - 0.1 * np.array([2.0, 5.0])))
    exact = np.sqrt(variances * expected / 3901)
    np.testing.assert_allclose(np.sqrt((result.time_average_standard_error**2).mean("replica")), exact, rtol=0.15)
    np.testing.assert_allclose(result.time_average.std("replica"), exact, rtol=4 / np.sqrt(2 * 23))
    assert (abs(result.time_average.transpose("replica", "parameter")) < 5 * exact).all()
    most = 24 * 3901 / measured.values
    by_scatter = most * np.minimum((exact / result.time_average.std("replica", ddof=1)).values ** 2, 1)
    np.testing.assert_allclose(result.total_effective_sample_size.values, by_scatter, rtol=0.15)


def test_one_replica_is_the_array_function(bowl):
    series = bowl["weights"].weights.isel(replica=0, parameter=1).values[100:]
    result = Autocorrelation("weights", discard=100)(bowl.isel(replica=slice(0, 1))).isel(replica=0, parameter=1)
    average = time_average(series)
    assert result.integrated_autocorrelation_time == pytest.approx(integrated_autocorrelation_time(series))
    assert result.effective_sample_size == pytest.approx(effective_sample_size(series))
    assert (result.time_average_lower, result.time_average_upper) == pytest.approx(average.interval())
    assert result.time_average_standard_error == pytest.approx(average.standard_error)
    assert np.isnan(result.mean_time_average_standard_error)


def test_processes_and_cohorts_are_taken_one_by_one_and_an_empty_one_is_nan():
    noise = np.stack([autoregressive(0.0, 3, 800), autoregressive(0.5, 3, 800)])
    values = np.stack([noise, np.full_like(noise, np.nan)], axis=-1)
    run = xr.Dataset(
        {"train_loss": (("process", "replica", "step", "cohort"), values)},
        coords={"process": ["sgd", "langevin"], "cohort": ["all", "mislabeled"], "step": np.arange(800)},
    )
    result = Autocorrelation("train_loss")(run)
    together = result.mean_integrated_autocorrelation_time.transpose("process", "cohort")
    assert np.isnan(together.sel(cohort="mislabeled")).all()
    one = Autocorrelation("train_loss", selection={"cohort": "all"})(run.sel(process="langevin"))
    assert one.mean_integrated_autocorrelation_time == together.sel(process="langevin", cohort="all")
    with pytest.raises(ConfigurationError, match="'train_loss' has nothing at"):
        Autocorrelation("train_loss", selection={"cohort": "none"})(run)
    run.train_loss[1, :, :, 0] = np.arange(800.0)
    with pytest.raises(EstimationRefused, match=r"process langevin, cohort all: 800 records"):
        Autocorrelation("train_loss")(run)


def test_what_follows_a_divergence_counts_nowhere():
    values = autoregressive(0.5, 3, 1000)
    whole = Autocorrelation("test_loss")(recorded(values[1:]))
    values[0, 600:] = [np.inf, -np.inf] + [np.nan] * 398
    result = Autocorrelation("test_loss")(recorded(values))
    assert np.isnan(result.integrated_autocorrelation_time[0])
    assert result.mean_time_average_count == 2
    assert result.mean_integrated_autocorrelation_time == whole.mean_integrated_autocorrelation_time
    stationary = Stationarity("test_loss")(recorded(values))
    assert stationary.is_stationary[0] == 0
    assert np.isnan(stationary.p_value[0])
    with pytest.raises(EstimationRefused, match="no series varies over all of its 1000 records"):
        Autocorrelation("test_loss")(recorded(values[:1]))
    with pytest.raises(EstimationRefused, match="missing values in every series of 1000 records"):
        Stationarity("test_loss")(recorded(values[:1]))


def total_of_four(together):
    """Replicas about 0, 0, 5 and 5: as many records as their common mean's error between replicas implies, about 3."""
    noise = np.random.default_rng(1).standard_normal((4, 1000))
    apart = noise + np.array([[0.0], [0.0], [5.0], [5.0]])
    result = together(xr.Dataset({"value": (("replica", "step"), apart)}))
    error = result.mean_time_average_standard_error.item()
    assert result.total_effective_sample_size.item() == pytest.approx(apart.var() / error**2, rel=1e-9)
    assert 2 < result.total_effective_sample_size.item() < 5
    assert result.agreement_p_value.item() < 1e-6
    alike = together(xr.Dataset({"value": (("replica", "step"), noise)}))
    times = alike.integrated_autocorrelation_time.values
    by_scatter = noise.var() / alike.mean_time_average_standard_error.item() ** 2
    expected = min(4 * 1000 / times.mean(), by_scatter)
    assert alike.total_effective_sample_size.item() == pytest.approx(expected, rel=1e-9)


def test_two_or_three_replicas_cannot_tell_how_many_records_they_are():
    values = np.random.default_rng(1).standard_normal((4, 1000))
    for n in (1, 2, 3, 4):
        result = Autocorrelation("value")(xr.Dataset({"value": (("replica", "step"), values[:n])}))
        assert np.isfinite(result.total_effective_sample_size) == (n in (1, 4))


def of_weak_disagreement(together):
    """Means a fifth of the spread apart: 1.04 (0.04/4 + 9/8000)⁻¹ = 93 records, and half of all estimates above 115."""
    generator, found = np.random.default_rng(0), []
    for _ in range(60):
        values = autoregressive(0.8, 4, 2000, seed=int(generator.integers(2**31)))
        values = values / values.std() + 0.2 * generator.standard_normal((4, 1))
        found.append(together(xr.Dataset({"value": (("replica", "step"), values)})).total_effective_sample_size.item())
    assert max(found) <= 1.5 * 4 * 2000 / 9
    # By how many the mean would be known: with Student's quantile for 3, the errors are those of 93 records.
    assert np.mean(1 / np.array(found)) == pytest.approx(1 / 93, rel=0.35)  # 3 standard errors of 60 χ² of 3
    assert np.mean(np.array(found) > 400) < 0.22  # 4 % of χ² of 3 are so small, and 3 standard errors of 60


def test_replicas_that_disagree_count_for_about_one_record_each():
    total_of_four(Autocorrelation("value"))
    stuck = np.random.default_rng(2).standard_normal((5, 1000))
    stuck[4] = 5.0  # does not move at all
    result = Autocorrelation("value")(xr.Dataset({"value": (("replica", "step"), stuck)}))
    assert result.total_effective_sample_size.item() < 10
    of_weak_disagreement(Autocorrelation("value"))

    def twin(trusting):
        """By what each knows of itself, unless means differ at a level."""

        def together(trajectory):
            found = Autocorrelation("value")(trajectory)
            own = trajectory.value.size / found.mean_integrated_autocorrelation_time
            total = found.total_effective_sample_size.where(found.agreement_p_value < trusting, own)
            return found.assign(total_effective_sample_size=total)

        return together

    with pytest.raises(AssertionError):
        total_of_four(twin(0.0))
    with pytest.raises(AssertionError):
        of_weak_disagreement(twin(0.01))


def test_records_must_be_evenly_spaced_but_for_the_last():
    run = recorded(autoregressive(0.0, 2, 300))
    off_the_beat = run.assign_coords(step=np.r_[run.step.values[:-1], run.step.values[-1] - 7])
    assert evenly_spaced(off_the_beat.test_loss, "step").sizes["step"] == 299
    with pytest.raises(EstimationRefused, match="recorded at intervals from 1 to 299") as refusal:
        Autocorrelation("test_loss")(run.assign_coords(step=np.cumsum(np.arange(300))))
    assert refusal.value.numbers["longest_interval"] == 299


def test_a_variable_or_a_clock_that_is_not_there_is_named():
    with pytest.raises(ConfigurationError, match="lacks activity"):
        Autocorrelation("activity")(recorded(np.zeros((1, 4))))
    with pytest.raises(ConfigurationError, match="no group of the trajectory has weights"):
        Autocorrelation("weights")(xr.DataTree.from_dict({"/": recorded(np.zeros((1, 4)))}))
    with pytest.raises(ConfigurationError, match="expected one clock among step"):
        Stationarity("x")(xr.Dataset({"x": ("day", [1.0])}))
    with pytest.raises(ConfigurationError, match="none called 'day'"):
        Stationarity("test_loss", clock="day")(recorded(np.zeros((1, 4))))


# --- Stationarity -----------------------------------------------------------------------------------------------------


def test_the_tabulated_law_is_that_of_another_simulation():
    """20,000 series of 400 numbers: a share p above its quantile is known to √(p (1 − p)/20,000)."""
    draws = np.random.default_rng(77).standard_normal((20_000, 400))
    deviations = draws - draws.mean(1, keepdims=True)
    place = (np.arange(200) + 0.5) / 200
    design = np.stack([np.ones(200), place, *(np.cos(np.pi * order * place) for order in range(2, 8))])
    slow = np.linalg.svd(design[2:] - design[2:] @ np.linalg.pinv(design[:2]) @ design[:2], full_matrices=False)[2]
    noise = np.minimum(*[((half @ slow.T) ** 2).mean(1) for half in (deviations[:, :200], deviations[:, 200:])])
    statistic = (np.cumsum(deviations, 1) ** 2).mean(1) / 400 / noise
    for probability, quantile in stationarity_module._TABLE.items():
        error = np.sqrt(probability * (1 - probability) / len(draws))
        # Series of 400 are not yet in the limit: 3 % of the probability is left for that.
        assert abs((statistic > quantile).mean() - probability) < SIGMAS * error + 0.03 * probability
    one = stationarity_test(draws[0], least_effective_size=24)
    assert one.statistic == pytest.approx(statistic[0], rel=1e-9)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8, 0.95])
def test_series_that_do_not_drift_are_rejected_in_one_of_twenty(phi):
    """800 series of 200 autocorrelation times: a share of 0.05 is known to 0.0077."""
    series = autoregressive(phi, 800, int(200 * closed_form(phi)), seed=11)
    rejected = np.mean([stationarity_test(x, least_effective_size=60).p_value < 0.05 for x in series])
    assert abs(rejected - 0.05) < SIGMAS * 0.0077
    # A t test of the halves against each other, which takes records for independent.
    halves = np.split(series[:, : series.shape[1] // 2 * 2], 2, axis=1)
    difference = halves[0].mean(1) - halves[1].mean(1)
    naive = np.abs(difference) > 1.96 * series.std(1) * np.sqrt(4 / series.shape[1])
    assert (abs(naive.mean() - 0.05) < SIGMAS * 0.0077) == (phi == 0)


def test_long_correlations_are_refused_rather_than_called_a_drift():
    """Stationary series of 10 and 40 autocorrelation times: whatever is not refused is rejected in 5 % of all at most."""
    for ratio in (10, 40):
        series = autoregressive(0.95, 200, int(ratio * closed_form(0.95)), seed=12)
        rejected = refused = 0
        for x in series:
            try:
                rejected += stationarity_test(x).p_value < 0.05
            except EstimationRefused as refusal:
                refused += refusal.numbers["effective_samples"] < refusal.numbers["effective_samples_needed"]
        assert refused > 0.85 * len(series)
        assert rejected <= 0.05 * len(series)


@pytest.mark.parametrize("shape", ["ramp", "step", "late step", "early", "transient"])
def test_drifts_are_found(shape):
    """Of two standard deviations in size; a transient that lasts a twentieth of the series needs ten."""
    records = 3000
    place = np.arange(records) / records
    drift = {
        "ramp": 2 * place,
        "step": 2.0 * (place > 0.5),
        "late step": 2.0 * (place > 0.8),
        "early": 2.0 * (place < 0.1),
        "transient": 10 * np.exp(-place / 0.05),
    }[shape]
    p_values = [stationarity_test(x + drift).p_value for x in autoregressive(0.8, 40, records, seed=13)]
    assert np.mean(np.array(p_values) < 0.05) > 0.9


def test_the_stationary_part_begins_after_the_transient_on_every_clock():
    place = np.arange(1000) / 1000
    values = autoregressive(0.3, 3, 1000, seed=14)
    values[1] += 30 * np.exp(-place / 0.03)
    values[2] += 10 * place
    result = Stationarity("test_loss")(recorded(values))
    np.testing.assert_array_equal(result.is_stationary, [1, 0, 0])
    start = result.stationary_from.sel(clock="step").values
    assert start[0] == 0
    assert start[1] in (1000, 2000)
    assert np.isnan(start[2])
    np.testing.assert_allclose(result.stationary_from.sel(clock="epoch"), start / 5)
    np.testing.assert_allclose(result.stationary_from.sel(clock="time"), start / 100)
    for name, variable in result.data_vars.items():
        assert variable.attrs["long_name"], name
        assert variable.attrs["units"], name


def test_a_drift_that_single_replicas_hide_shows_in_their_mean():
    values = autoregressive(0.0, 64, 400, seed=15) + 0.4 * np.arange(400) / 400
    result = Stationarity("test_loss")(recorded(values))
    assert result.is_stationary.mean() > 0.6
    assert result.ensemble_is_stationary == 0


def test_what_does_not_vary_is_stationary_and_a_fall_to_a_constant_is_not():
    fell = np.where(np.arange(1000) < 300, 0.5, 0.0)
    result = Stationarity("test_loss")(recorded([np.full(1000, 0.3), fell]))
    np.testing.assert_array_equal(result.is_stationary, [1, 0])
    np.testing.assert_array_equal(result.stationary_from.sel(clock="step"), [0, 3000])


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.integers(0, 2**20))
@settings(max_examples=25)
def test_the_test_is_invariant_under_affine_maps_and_reversal(scale, shift, seed):
    series = autoregressive(0.3, 1, 500, seed)[0]
    original = stationarity_test(series, least_effective_size=50).statistic
    assert stationarity_test(shift + scale * series, least_effective_size=50).statistic == pytest.approx(
        original, rel=1e-6
    )
    backwards = stationarity_test(series[::-1], least_effective_size=50).statistic
    assert backwards == pytest.approx(original, rel=1e-9)


def test_few_records_are_refused():
    with pytest.raises(EstimationRefused, match="99 records: expected at least 100") as refusal:
        stationarity_test(np.zeros(99))
    assert refusal.value.numbers == {"records": 99, "records_needed": 100}
    with pytest.raises(ConfigurationError, match="1 of them not finite"):
        stationarity_test([1.0, np.inf])
