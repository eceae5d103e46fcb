"""Analyzers on synthetic trajectories of known truth, and on controls where they must find nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from langevin_nn import NetworkLandscape, compare
from langevin_nn.analyzers import (
    COMPARED,
    Autocorrelation,
    ComparisonAnalyzer,
    Quantity,
    Stationarity,
    analyze,
    at_equal_loss,
    autocorrelation_function,
    collapse_distance,
    comparison,
    decay_time,
    decline_p_value,
    detect_phases,
    gaussian_mixture,
    holm,
    integrated_autocorrelation_time,
    jackknife,
    mean_with_interval,
    needed_replicas,
    smoothed_minimum,
    stationarity_test,
    time_average,
)
from langevin_nn.ensemble.spectrum import effective_dimension
from langevin_nn.errors import ConfigurationError, EstimationRefused, UnknownNameError
from langevin_nn.report import verdict
from langevin_nn.testing import four_phase_trajectory

COHORTS = ["all", "correct", "mislabeled"]


def learning_curve(boundaries, noise=0.0, rho=0.45, n_steps=200, seed=0):
    """Training errors of a run with four phases that begin at the given records."""
    first, second, third = boundaries
    step = np.arange(n_steps)
    correct = np.interp(step, [0, first, second, third], [0.9, 0.03, 0.03, 0.0])
    wrong = np.interp(step, [0, first, second, third], [0.9, 0.98, 0.98, 0.0])
    generator = np.random.default_rng(seed)
    jitter = noise * generator.standard_normal((2, n_steps)) * np.sqrt([correct * (1 - correct), wrong * (1 - wrong)])
    correct, wrong = np.clip(np.stack([correct, wrong]) + jitter, 0, 1)
    everything = (1 - rho) * correct + rho * wrong
    return xr.Dataset(
        {"train_error": (("step", "cohort"), np.stack([everything, correct, wrong], axis=1))},
        coords={"cohort": COHORTS, "time": ("step", step * 0.5), "epoch": ("step", step * 1.0)},
    )


@given(st.tuples(st.integers(5, 40), st.integers(5, 60), st.integers(20, 60)), st.integers(0, 2**20))
def test_four_phases_are_found_where_they_are(gaps, seed):
    """A boundary may lie where a ramp crosses its threshold: a tenth before its end, a tenth after its start."""
    first, second, third = np.cumsum(gaps)
    found = detect_phases(learning_curve((first, second, third), noise=0.05, seed=seed)).boundary_epoch.values
    assert abs(found[0] - 0.9 * first) <= 0.1 * first + 2
    assert second - 2 <= found[1] <= second + 0.2 * (third - second) + 4
    assert third - 0.1 * (third - second) - 2 <= found[2] <= third + 1


@pytest.mark.parametrize(
    "estimate",
    [
        *(
            autocorrelation_function,
            decay_time,
            decline_p_value,
            gaussian_mixture,
            holm,
            integrated_autocorrelation_time,
        ),
        *(smoothed_minimum, stationarity_test, time_average, effective_dimension),
    ],
)
def test_what_is_no_number_is_refused_by_name(estimate):
    for bad in (["a"] * 1000, [[1.0, 2.0], [3.0]], None):
        with pytest.raises(ConfigurationError, match=r"(values|errors|correlation|p_values|eigenvalues) is of type"):
            estimate(bad)


@pytest.mark.filterwarnings("error")
def test_complex_numbers_do_not_lose_their_imaginary_part():
    values = xr.DataArray(np.exp(1j * np.arange(400.0)).reshape(2, 200), dims=("replica", "step"), name="train_loss")
    for analyzer in (Autocorrelation("train_loss"), Stationarity("train_loss")):
        with pytest.raises(ConfigurationError, match="'train_loss' holds complex128: expected real numbers"):
            analyzer(values.to_dataset())
    for estimate in (mean_with_interval, lambda each: jackknife(np.mean, each.values)):
        with pytest.raises(ConfigurationError, match="values is of type ndarray: expected an"):
            estimate(values)
    for name in ("abc", [1.0, 2.0]):
        with pytest.raises(ConfigurationError, match=r"values is of type (str|list): expected an xarray.DataArray"):
            mean_with_interval(name)


def test_flags_have_an_average():
    flags = np.random.default_rng(0).random(1000) < 0.3
    assert time_average(flags).mean == flags.sum() / 1000


def test_curves_without_replicas_are_refused():
    for bad in (np.arange(10.0), 1.0):
        with pytest.raises(ConfigurationError, match=r"expected \(replica, record\), .*pass a row for each replica"):
            collapse_distance(bad, np.ones((4, 10)))


def test_single_records_on_the_wrong_side_are_outvoted():
    run = learning_curve((20, 60, 120))
    clean = detect_phases(run)
    spoiled = run.copy(deep=True)
    spoiled.train_error[150] = 0.4  # a spike long after all was fitted
    xr.testing.assert_equal(detect_phases(spoiled).boundary_epoch, clean.boundary_epoch)


def test_phases_follow_one_another_and_one_that_is_not_reached_is_nan():
    run = learning_curve((20, 60, 500))
    result = detect_phases(run)
    assert (np.diff(result.phase) >= 0).all()
    assert set(np.unique(result.phase)) == {1, 2, 3}
    assert np.isnan(result.boundary_epoch.sel(boundary="III|IV"))
    assert result.boundary_time.sel(boundary="I|II") == 0.5 * result.boundary_epoch.sel(boundary="I|II")


def test_without_mislabeled_samples_there_are_two_phases():
    errors = np.stack([np.linspace(0.9, 0, 50).clip(0), np.linspace(0.9, 0, 50), np.full(50, np.nan)], axis=1)
    run = xr.Dataset(
        {"train_error": (("step", "cohort"), errors)}, coords={"cohort": COHORTS, "time": ("step", np.arange(50.0))}
    )
    result = detect_phases(run)
    assert list(result.boundary.values) == ["fast_learning|exploration"]
    assert float(result.boundary_time[0]) == np.argmax(errors[:, 0] <= 0.01)


def test_phases_need_training_errors():
    with pytest.raises(ConfigurationError, match="lacks train_error"):
        detect_phases(xr.Dataset({"train_loss": ("step", [1.0])}))


def test_interval_agrees_with_scipy_and_is_undefined_for_one():
    values = np.array([1.0, 4.0, 2.5, np.nan])
    result = mean_with_interval(xr.DataArray(values, dims="replica"))
    expected = stats.ttest_1samp(values[:3], 0).confidence_interval(0.95)
    np.testing.assert_allclose([result.lower, result.upper], expected)
    assert int(result["count"]) == 3
    assert np.isnan(mean_with_interval(xr.DataArray([1.0], dims="replica")).standard_error)


PLAIN = (Quantity("q", "q", selection=(), logarithmic=False),)


def ensembles(shifts, n_replicas=6, n_steps=400, common=0.0, seed=0):
    """Processes of white noise of unit spread about their shifts, some of it shared through the initial weights."""
    generator = np.random.default_rng(seed)
    shared = common * generator.standard_normal((n_replicas, 1))
    own = np.sqrt(1 - common**2) * generator.standard_normal((len(shifts), n_replicas, n_steps))
    values = shared + own + np.array(list(shifts.values()))[:, None, None]
    return xr.Dataset(
        {"q": (("process", "replica", "step"), values)},
        coords={"process": list(shifts), "step": np.arange(n_steps)},
    )


def test_distance_of_equal_laws_is_that_of_two_normal_numbers():
    """|δ|/s of two independent N(0, 1) averages 2/√π; the pooled s of 2·5·5 degrees of freedom adds under 2 %."""
    result = ComparisonAnalyzer(quantities=PLAIN, window=5)(ensembles({"sgd": 0, "sgd_null": 0, "langevin": 0}))
    expected = 2 / np.sqrt(np.pi)
    for process in ("sgd_null", "langevin"):
        assert float(result.distance.sel(process=process).mean()) == pytest.approx(expected, rel=0.06)
    assert abs(result.excess.sel(process="langevin").mean()) < 0.1
    assert (result.distance.sel(process="sgd") == 0).all()


def test_a_planted_shift_is_measured_in_spreads():
    result = ComparisonAnalyzer(quantities=PLAIN)(ensembles({"sgd": 0, "sgd_null": 0, "shifted": 3.0}))
    assert float(result.difference.sel(process="shifted").mean()) == pytest.approx(3.0, rel=0.05)
    assert (result.excess.sel(process="shifted") > 1.5).all()


def test_intervals_of_the_difference_cover_the_truth():
    result = ComparisonAnalyzer(quantities=PLAIN)(ensembles({"sgd": 0, "sgd_null": 0}, n_steps=3000))
    own = result.sel(process="sgd_null")
    covered = float(((own.difference_lower < 0) & (own.difference_upper > 0)).mean())
    assert abs(covered - 0.95) < 5 * np.sqrt(0.95 * 0.05 / 3000)


def test_logarithmic_quantities_do_not_depend_on_units():
    runs = np.exp(ensembles({"sgd": 0, "sgd_null": 0, "shifted": 1.0}))
    quantity = (Quantity("q", "q", selection=()),)
    first = ComparisonAnalyzer(quantities=quantity)(runs)
    second = ComparisonAnalyzer(quantities=quantity)(1000 * runs)
    xr.testing.assert_allclose(first, second)


def test_one_replica_has_no_spread_and_is_refused_with_what_was_there():
    with pytest.raises(EstimationRefused, match="at least 2 replicas, got 1") as refused:
        ComparisonAnalyzer(quantities=PLAIN)(ensembles({"sgd": 0, "sgd_null": 0}, n_replicas=1))
    assert refused.value.numbers == {"replicas": 1}


def test_an_unknown_reference_lists_the_processes():
    with pytest.raises(UnknownNameError, match="unknown process 'sgd': expected one of langevin, sgd_null"):
        ComparisonAnalyzer(quantities=PLAIN)(ensembles({"langevin": 0, "sgd_null": 0}))


def loss_runs(speeds, n_steps=101):
    """Exponential losses, and a quantity that is a function of the loss alone."""
    step = np.arange(n_steps)
    loss = np.stack([[np.exp(-0.02 * speed * step)] * 2 for speed in speeds.values()])
    cohorts = np.stack([loss, loss, np.full_like(loss, np.nan)], axis=-1)
    return xr.Dataset(
        {
            "train_loss": (("process", "replica", "step", "cohort"), cohorts),
            "q": (("process", "replica", "step"), loss**2 + np.array([0.0, 0.001])[:, None]),
        },
        coords={"process": list(speeds), "cohort": COHORTS, "step": step},
    )


def test_at_equal_loss_a_faster_process_is_not_different():
    runs = loss_runs({"sgd": 1.0, "sgd_null": 1.0, "twice": 2.0})
    at_levels = at_equal_loss(runs)
    difference = at_levels.q.sel(process="twice") - at_levels.q.sel(process="sgd")
    assert float(abs(difference).max()) < 2e-3  # linear interpolation of a square between records
    assert float(abs(runs.q.sel(process="twice") - runs.q.sel(process="sgd")).max()) > 0.2


def test_levels_that_were_not_reached_are_missing():
    at_levels = at_equal_loss(loss_runs({"sgd": 1.0, "half": 0.5}))
    reached = at_levels.q.sel(process="half").notnull().isel(replica=0)
    np.testing.assert_array_equal(reached, at_levels.loss_level >= np.exp(-1.0))


@given(st.lists(st.floats(0.01, 5.0), min_size=3, max_size=30, unique=True))
def test_a_replica_is_at_its_reference_levels_where_it_records_them(losses):
    """Of one process alone, the quantity 'loss' at each level is that level."""
    values = np.array(losses)
    run = xr.Dataset(
        {
            "train_loss": (("process", "replica", "step", "cohort"), np.repeat(values[None, None, :, None], 3, axis=3)),
            "q": (("process", "replica", "step"), values[None, None]),
        },
        coords={"process": ["sgd"], "cohort": COHORTS},
    )
    at_levels = at_equal_loss(run)
    np.testing.assert_allclose(at_levels.q.squeeze(), at_levels.loss_level, rtol=1e-9)


CLOCKS = ("equal_time", "equal_loss")


def recorded(shift, n_replicas=4, n_steps=60, seed=1):
    """All that a verdict needs: SGD, its null, a process of the same law and one that is shifted."""
    generator = np.random.default_rng(seed)
    processes = ["sgd", "sgd_null", "langevin", "isotropic_langevin"]
    offset = np.array([0, 0, 0, shift])[:, None, None]
    shape = (4, n_replicas, n_steps)
    variables = {}
    for name in ("activity", "directed_activity", "noise_strength", "projection_variance", "alignment"):
        values = 0.1 * (generator.standard_normal((*shape, 3)) + offset[..., None])
        variables[name] = (("process", "replica", "step", "cohort"), values if name == "alignment" else np.exp(values))
    pairs = 0.1 * (generator.standard_normal((*shape, 3)) + offset[..., None])
    variables["gradient_alignment"] = (("process", "replica", "step", "cohort_pair"), pairs)
    decay = np.exp(-0.1 * np.arange(n_steps))[:, None] * (1 + 0.01 * generator.standard_normal((*shape, 3)))
    decay[:, :, 0] = 1.0  # from the same weights
    variables["train_loss"] = (("process", "replica", "step", "cohort"), decay)
    variables["train_error"] = (("process", "replica", "step", "cohort"), np.where(decay > 0.02, decay, 0.0))
    root = xr.Dataset(
        variables,
        coords={
            "process": processes,
            "cohort": COHORTS,
            "cohort_pair": ["correct_mislabeled", "all_correct", "all_mislabeled"],
            "epoch": ("step", np.arange(n_steps) * 1.0),
            "time": ("step", np.arange(n_steps) * 1.0),
        },
    )
    return xr.DataTree.from_dict({"/": root})


def test_the_verdict_tells_a_process_of_the_same_law_from_another():
    result = analyze(recorded(shift=4.0))
    for clock in ("equal_time", "equal_loss"):
        assert result.summary["follows"][clock] == {"langevin": True, "isotropic_langevin": False}
    assert "matched Gaussian noise: follows SGD." in verdict(result.summary)
    assert "isotropic noise of the same trace: does not follow SGD." in verdict(result.summary)
    told = result.summary["told_apart"]["equal_time"]
    assert told["langevin"] == []
    assert "noise_strength" in told["isotropic_langevin"]
    assert "sample_trace" not in result.summary  # needs the batch size, which these runs do not carry


def test_a_small_but_certain_difference_counts_as_close_and_is_named():
    """Half a spread of shift adds about 0.07 to the mean distance: certain over 64 replicas, yet small."""
    result = analyze(recorded(shift=0.5, n_replicas=64, n_steps=300))
    assert result.summary["relation"]["equal_time"]["isotropic_langevin"] == "close"
    assert "noise_strength" in result.summary["told_apart"]["equal_time"]["isotropic_langevin"]
    assert result.summary["told_apart"]["equal_time"]["langevin"] == []


def test_too_few_replicas_leave_it_undecided():
    """Two replicas have a t quantile of 12.7: no interval is narrow enough for a yes, nor far enough for a no."""
    result = analyze(recorded(shift=1.0, n_replicas=2, n_steps=12))
    for clock in ("equal_time", "equal_loss"):
        assert result.summary["relation"][clock]["isotropic_langevin"] == "undecided"
        assert result.summary["follows"][clock]["isotropic_langevin"] is None
    needed = max(result.summary["needed"][clock]["isotropic_langevin"]["replicas"] for clock in CLOCKS)
    assert f"too few replicas to say (about {needed} replicas would decide, 2 were run)" in verdict(result.summary)


# Spreads by which a process differs, replicas, where phases II, III and IV begin, records → how it stands to SGD.
EARLY, LATE = (10, 30, 50), (500, 3000, 9000)
STANDINGS = {
    "same law": ((0.0, 8, EARLY, 60), "close"),
    "another law": ((4.0, 8, EARLY, 60), "apart"),
    "same law in the first phase": ((0.0, 8, LATE, 60), "too_short"),
    "another law in the first phase": ((4.0, 8, LATE, 60), "apart"),
    "a law half a spread further in the first phase": ((1.2, 3, LATE, 60), "too_short"),
    "same law, too few records to tell phases": ((0.0, 8, (1, 3, 5), 6), "too_short"),
    "a law half a spread further": ((1.2, 3, EARLY, 60), "undecided"),
}


def standing(shift, n_replicas, boundaries, n_steps):
    curves = four_phase_trajectory(
        np.random.default_rng(0), boundaries=boundaries, replicas=n_replicas, records=n_steps, spread=0.01
    )
    runs = recorded(shift, n_replicas, n_steps).to_dataset()
    errors = curves.train_error.transpose("replica", "step", "cohort")
    runs["train_error"] = (("process", *errors.dims), np.stack([errors.values] * 4))
    return runs.assign_coords(replica_number=("replica", np.arange(n_replicas)))


def relation_of(runs, compared=analyze):
    return compared(xr.DataTree.from_dict({"/": runs})).summary["relation"]["equal_time"]["isotropic_langevin"]


def check_standings(compared=analyze):
    for name, (case, expected) in STANDINGS.items():
        assert relation_of(standing(*case), compared) == expected, name


def test_how_a_process_stands_to_the_reference():
    check_standings()


def test_a_verdict_that_ignores_phases_or_what_the_replicas_tell_would_be_noticed(monkeypatch):
    def as_before(excess, tolerance, *_):
        return "close" if excess["upper"] < tolerance else "apart" if excess["lower"] > tolerance else "undecided"

    with monkeypatch.context() as patched:
        patched.setattr(comparison, "_relation", as_before)
        with pytest.raises(AssertionError, match="same law in the first phase"):
            check_standings()
    wide = {"value": -1.0, "lower": -2.4, "upper": 0.4, "count": 3}  # ends below half a spread, and tells nothing
    assert as_before(wide, 0.5) == "close"
    assert comparison._relation(wide, 0.5, 3, is_short=False) == "undecided"
    assert comparison._relation({**wide, "lower": -1.3, "upper": -0.7}, 0.5, 4, is_short=False) == "undefined"


def test_what_is_nearer_than_chance_does_not_pay_for_what_is_further(monkeypatch):
    """Without noise of its own a process may lie on the reference in most quantities, and far away in one."""
    runs, other = standing(4.0, 8, EARLY, 60), {"process": "isotropic_langevin"}
    for name in ("activity", "directed_activity", "projection_variance", "alignment", "gradient_alignment"):
        runs[name].loc[other] = runs[name].sel(process="sgd")
    found = analyze(xr.DataTree.from_dict({"/": runs})).summary
    assert found["excess"]["equal_time"]["isotropic_langevin"]["mean"]["upper"] < 0.5
    assert found["told_apart"]["equal_time"]["isotropic_langevin"] == ["noise_strength"]
    assert found["relation"]["equal_time"]["isotropic_langevin"] == "apart"
    monkeypatch.setattr(comparison, "_decisive", lambda excess, mean, tolerance: mean)
    assert relation_of(runs) == "close", "the mean alone would let it follow"


def test_a_cohort_that_is_all_samples_is_no_quantity_of_its_own():
    runs = standing(4.0, 8, EARLY, 60)
    for name in ("activity", "directed_activity"):
        runs[name].loc[{"cohort": "correct"}] = runs[name].sel(cohort="all")
        runs[name].loc[{"cohort": "mislabeled"}] = np.nan
    found = analyze(xr.DataTree.from_dict({"/": runs})).summary
    figures = found["excess"]["equal_time"]["isotropic_langevin"]
    assert figures["directed_activity_correct"]["value"] is None
    assert "directed_activity_correct" not in found["told_apart"]["equal_time"]["isotropic_langevin"]
    others = [each["value"] for name, each in figures.items() if name != "mean" and each["value"] is not None]
    assert len(others) == 6
    assert figures["mean"]["value"] == pytest.approx(np.mean(others))


def test_what_is_needed_is_said():
    result = analyze(xr.DataTree.from_dict({"/": standing(0.0, 2, LATE, 6)}))
    assert result.summary["needed"]["equal_time"]["langevin"] == {
        "replicas": pytest.approx(result.summary["needed"]["equal_time"]["langevin"]["replicas"]),
        "epochs": 10.0,
        "records": 7,
    }
    assert "too short to say" in verdict(result.summary)
    assert "run more than 5 epochs, 10 to begin with, with 7 records at least" in verdict(result.summary)
    assert "follows SGD" not in verdict(result.summary).replace("that a process follows SGD", "")
    decided = analyze(xr.DataTree.from_dict({"/": standing(4.0, 8, EARLY, 60)}))
    assert decided.summary["needed"]["equal_time"]["isotropic_langevin"] is None


@pytest.mark.parametrize("kept", [2, 6, 8, 10, 14, 60])
def test_without_the_records_of_later_phases_nothing_is_said_to_follow(kept):
    """Phase I ends at epoch 10: a run that ends before, or soon after, has no II, whatever share of its fall it has seen."""
    runs = standing(0.0, 3, EARLY, 60).isel(step=slice(kept))
    assert relation_of(runs) == ("close" if kept == 60 else "too_short")


def test_the_end_of_a_fall_that_goes_on_is_no_phase():
    """Of any fall a tenth comes last: of an exponential one, 90 % of what was seen at time T are reached before T."""
    epochs = np.arange(60.0)
    for time, expected in ((40.0, {1}), (20.0, {1}), (5.0, {1, 2})):
        errors = 0.9 * np.exp(-epochs / time)
        cohorts = np.stack([(errors + 0.9) / 2, errors, np.full(60, 0.9)], axis=1)
        run = learning_curve((20, 60, 120), n_steps=60).assign(train_error=(("step", "cohort"), cohorts))
        assert set(np.unique(detect_phases(run).phase)) == expected, time


@pytest.mark.parametrize("name", ["a law half a spread further", "same law", "another law"])
def test_a_training_error_that_is_missing_once_changes_no_verdict(name):
    case, expected = STANDINGS[name]
    runs = standing(*case)
    missing = (np.arange(60) == 40) | (np.arange(60) == 4)
    runs["train_error"] = runs.train_error.where(~xr.DataArray(missing, dims="step") | (runs.replica_number != 1))
    assert relation_of(runs.drop_vars("replica_number")) == expected


def test_records_without_a_training_error_are_left_out_rather_than_all_that_follow():
    """As without them: to the bits where they are dropped, and between the records around them."""
    run = learning_curve((20, 60, 120), noise=0.05)
    holed = run.copy(deep=True)
    holed.train_error[[3, 70, 71]] = np.nan
    found, without = detect_phases(holed), detect_phases(run.isel(step=np.delete(np.arange(200), [3, 70, 71])))
    assert (found.phase[[3, 70, 71]] == 0).all()
    np.testing.assert_array_equal(found.phase[found.phase > 0], without.phase)
    for name in ("boundary_epoch", "crossing_epoch", "crossing_epoch_lower", "crossing_epoch_upper"):
        np.testing.assert_allclose(found[name], without[name])
    np.testing.assert_allclose(found.boundary_epoch, detect_phases(run).boundary_epoch, atol=3)


def test_replicas_that_would_decide_decide_in_so_many_cases():
    """By the noncentral t law: of intervals of n replicas about 95 in 100 end on the side of the bound where the mean is."""
    for mean, half, count in ((0.2, 1.45, 3), (0.0, 0.8, 4), (1.5, 2.0, 8), (-0.3, 1.0, 16)):
        n = needed_replicas(mean, half, count, 0.5)
        scatter = half * math.sqrt(count) / stats.t.ppf(0.975, count - 1)
        power = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, abs(mean - 0.5) * math.sqrt(n) / scatter)
        fewer = stats.nct.sf(stats.t.ppf(0.975, n // 2 - 1), n // 2 - 1, abs(mean - 0.5) * math.sqrt(n // 2) / scatter)
        assert 0.94 < power < 0.995
        assert fewer < 0.9
    assert needed_replicas(0.0, 1.0, 4, 0.5, widest=0.1) > needed_replicas(0.0, 1.0, 4, 0.5)
    for nothing in ((math.nan, 1.0, 4, 0.5), (0.0, math.nan, 4, 0.5), (0.0, 1.0, 1, 0.5), (0.0, 1.0, 4, math.inf)):
        assert needed_replicas(*nothing) is None


def test_a_quantity_that_a_replica_lacks_does_not_make_its_mean_one_of_others():
    runs = standing(1.5, 3, EARLY, 60)
    lacking = (runs.process == "isotropic_langevin") & (runs.replica_number == 0)
    runs["projection_variance"] = runs.projection_variance.where(~lacking)
    summary_of = analyze(xr.DataTree.from_dict({"/": runs})).summary
    assert summary_of["excess"]["equal_time"]["isotropic_langevin"]["mean"]["count"] == 2
    assert summary_of["relation"]["equal_time"]["isotropic_langevin"] in ("undefined", "apart")


def test_what_was_recorded_between_losses_has_no_place_on_their_clock():
    runs = loss_runs({"sgd": 1.0, "late": 1.0})
    between = runs.assign_coords(step=runs.step + 0.5)
    between["train_loss"] = between.train_loss * np.nan
    mixed = xr.concat([runs, between], "step").sortby("step")
    xr.testing.assert_allclose(at_equal_loss(mixed).q, at_equal_loss(runs).q)
    holed = runs.copy(deep=True)
    holed.train_loss.loc[{"process": "late", "step": runs.step[20]}] = np.nan
    whole, found = (at_equal_loss(each).q.sel(process="late") for each in (runs, holed))
    known = found.notnull()
    assert 0 < int((~known & whole.notnull()).sum()) < whole.size / 4
    np.testing.assert_allclose(found.where(known), whole.where(known))


@pytest.mark.parametrize(
    ("rate", "said"), [(1e4, "it diverges; .*a smaller learning rate"), (1e-12, "nothing is learned")]
)
def test_where_the_loss_of_sgd_never_falls_the_reason_is_said(rate, said):
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    landscape = NetworkLandscape(torch.nn.Linear(3, 2), inputs, (inputs.sum(1) > 0).long())
    options = {"batch_size": 5, "epochs": 5, "replicas": 2, "processes": ["langevin"]}
    with pytest.raises(
        EstimationRefused, match=f"of 'sgd' with learning_rate={rate:g} never falls .*{said}"
    ) as refusal:
        compare(landscape, learning_rate=rate, **options)
    assert refusal.value.numbers["last_loss"] >= refusal.value.numbers["first_loss"]


def test_a_process_that_reaches_no_loss_level_is_not_said_to_follow():
    runs = recorded(shift=0.0).to_dataset()
    started = (runs.process != "isotropic_langevin") | (runs.epoch == 0)
    runs["train_loss"] = runs.train_loss.where(started, 5.0)
    result = analyze(xr.DataTree.from_dict({"/": runs}))
    assert result.summary["relation"]["equal_loss"]["isotropic_langevin"] == "undefined"
    assert result.summary["follows"]["equal_loss"]["isotropic_langevin"] is None
    levels = result.equal_loss.sizes["loss_level"] + 1  # that of the start, which is left out, is common to all
    assert result.summary["reached_share"]["isotropic_langevin"] == pytest.approx(1 / levels)


def test_a_replica_that_begins_below_a_level_is_not_at_it():
    runs = loss_runs({"sgd": 1.0, "late": 1.0})
    runs["train_loss"] = runs.train_loss.where(runs.process == "sgd", 0.5 * runs.train_loss)
    late = at_equal_loss(runs).q.sel(process="late").isel(replica=0)
    assert not late.where(late.loss_level > 0.5, drop=True).notnull().any()


def test_excess_is_taken_over_common_moments():
    runs = ensembles({"sgd": 0, "sgd_null": 0, "cut": 0})
    runs["q"] = runs.q.where((runs.process != "cut") | (runs.step < 100))
    result = ComparisonAnalyzer(quantities=PLAIN)(runs)
    short = ComparisonAnalyzer(quantities=PLAIN)(runs.isel(step=slice(0, 98)))  # beyond the reach of the pooling window
    np.testing.assert_allclose(result.excess.sel(process="cut"), short.excess.sel(process="cut"), atol=0.03)


def test_a_run_without_records_after_the_start_is_refused():
    with pytest.raises(EstimationRefused, match="nothing to compare along 'step'"):
        ComparisonAnalyzer(quantities=PLAIN)(ensembles({"sgd": 0, "sgd_null": 0}, n_steps=1))


def test_boundaries_that_some_replicas_did_not_reach_have_no_mean():
    runs = recorded(shift=0.0, n_steps=30).to_dataset()
    runs["train_error"] = runs.train_error.copy()
    runs.train_error.loc[{"replica": 0}] = 0.9
    boundaries = analyze(xr.DataTree.from_dict({"/": runs})).summary["phase_boundary_epoch"]["sgd"]
    assert boundaries["III|IV"] == {"value": None, "standard_error": None, "lower": None, "upper": None, "count": 0}
    assert boundaries["I|II"]["count"] < 4


def test_phases_end_where_a_replica_diverges():
    run = learning_curve((20, 60, 120))
    run.train_error[80:] = np.nan
    result = detect_phases(run)
    assert (result.phase[80:] == 0).all()
    np.testing.assert_array_equal(np.unique(result.phase[:80]), [1, 2, 3])


def test_replicas_with_and_without_mislabeled_samples_are_not_mixed():
    noisy, clean = learning_curve((20, 60, 120)), learning_curve((20, 60, 120))
    clean.train_error.loc[{"cohort": "mislabeled"}] = np.nan
    with pytest.raises(ConfigurationError, match="some replicas have mislabeled samples and some have none"):
        detect_phases(xr.concat([noisy, clean], dim="replica"))


def test_every_compared_quantity_is_a_variable_of_the_schema():
    from langevin_nn.observables import describe

    assert [describe(quantity.variable).name for quantity in COMPARED] == [each.variable for each in COMPARED]
