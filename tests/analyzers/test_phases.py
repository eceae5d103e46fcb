"""The phase detector against trajectories of known truth: what it must find, must not find, and how well it knows it."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import xarray as xr
from calibrate_phases import Count, coverage, false_alarms
from calibrate_phases import main as calibrate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.signal import lfilter

from langevin_nn.analyzers import PhaseDetector, decline_p_value, detect_phases, mean_boundaries
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.kernels.falls import autoregressive, fall_statistics
from langevin_nn.statistics.decline import autoregressive_noise, decline_statistics
from langevin_nn.testing import four_phase_trajectory, score_boundaries, stationary_trajectory, two_phase_trajectory

FEW = {"correlations": (0.5, 0.95), "records": (8, 20, 200, 600)}


def pooled(counts, *words):
    """All counts whose case has all the words, as one."""
    chosen = [count for count in counts if all(word in count.case for word in words)]
    return Count(" ".join(words), sum(count.hits for count in chosen), sum(count.trials for count in chosen))


def too_many(count, expected=0.05):
    return count.share > expected + 4 * count.standard_error(expected)


def too_few(count, expected=0.95):
    return count.share < expected - 4 * count.standard_error(expected)


# No transition


def test_stationary_trajectories_have_no_boundary():
    """At most 5 % of each kind: 60 trajectories a cell, 120 of each length; 4 standard errors, 0.113 and 0.08.

    `make calibrate` counts to a tenth of that.
    """
    counts = list(false_alarms(10, PhaseDetector(), **FEW))
    assert len(counts) == 32
    assert [count for count in counts if too_many(count)] == []
    for kind, length in product(("two phases", "four phases"), FEW["records"]):
        assert not too_many(pooled(counts, f"{kind}, correlation 0.95", f" {length} records"))


@pytest.mark.parametrize(
    "naive",
    [
        pytest.param(PhaseDetector(significance=0.999), id="without the test"),
        pytest.param(PhaseDetector(correlation=0.01), id="against independent noise"),
    ],
)
def test_a_naive_detector_raises_false_alarms(naive):
    """The same count fails it, with a half of the trajectories."""
    counts = list(false_alarms(12, naive, correlations=(0.95,), records=(20, 200)))
    assert all(too_many(pooled(counts, f" {length} records")) for length in (20, 200))
    assert too_many(pooled(counts, "two phases"))
    assert too_many(pooled(counts, "four phases"))


@pytest.mark.parametrize("n_records", [20, 100])
def test_p_values_of_the_noise_they_are_about_are_uniform(n_records):
    """1,500 series against a law from 9,999: a Kolmogorov–Smirnov distance below 1.95/√n, n = 1304, in 999 of 1,000 cases.

    Series that fall nowhere share the p-value 1, so that only p-values up to 0.6 are uniform.
    """
    noise = 0.5 + 0.1 * autoregressive_noise(np.random.default_rng(3), (1500, n_records), 0.97)

    def distance(correlation):
        p_values = np.array([decline_p_value(series, correlation=correlation) for series in noise])
        grid = np.linspace(0, 0.6, 601)
        return np.abs((p_values[:, None] <= grid).mean(0) - grid).max()

    assert distance(0.97) < 1.95 / np.sqrt(1304)
    assert distance(0.5) > 1.95 / np.sqrt(1304), "p-values for other noise pass, too"


@pytest.mark.parametrize(("error", "phase"), [(0.5, 1), (0.005, 4)])
def test_without_a_transition_all_records_are_of_one_phase(error, phase):
    run = stationary_trajectory(np.random.default_rng(0), error=error, amplitude=0.001, correlation=0.9)
    result = detect_phases(run)
    assert (result.phase == phase).all()
    for name in ("boundary_epoch", "crossing_epoch", "mean_boundary_epoch", "mean_boundary_time_upper"):
        assert result[name].isnull().all()
    assert (result.reached_count == 0).all()


@pytest.mark.parametrize("n_records", [8, 10, 20, 60, 1000])
@pytest.mark.parametrize("where", [0.15, 0.5, 0.8])
def test_learning_is_found_in_few_records_and_in_many(n_records, where):
    """50 replicas, all of which must be told from noise; within 3 records, or 5 % of the run."""
    run = two_phase_trajectory(
        np.random.default_rng(5), boundary=where * (n_records - 1), records=n_records, replicas=50, spread=0.02
    )
    score = score_boundaries(detect_phases(run), run)
    assert score.missed_share.item() == 0
    assert abs(score.bias.item()) < 0.5 + 0.01 * n_records
    assert score.root_mean_square_error.item() < 3 + 0.02 * n_records


def test_a_fall_that_took_one_of_many_records_is_found():
    """All of learning between the first records, then noise that does not end: as SGD with a large learning rate."""
    generator = np.random.default_rng(7)
    run = stationary_trajectory(generator, error=0.005, amplitude=0.002, records=400, mislabeled_fraction=0.0)
    run.train_error.loc[{"step": 0, "cohort": ["all", "correct"]}] = 0.9
    result = detect_phases(run)
    assert (result.boundary_epoch == 1).all()


def test_an_outlier_is_no_transition():
    run = stationary_trajectory(np.random.default_rng(8), error=0.002, amplitude=0.001, mislabeled_fraction=0.0)
    run.train_error.loc[{"step": 50, "cohort": ["all", "correct"]}] = 0.5
    assert detect_phases(run).boundary_epoch.isnull().all()


def test_a_share_of_one_sample_that_is_lost_once_is_rounding():
    """One step of one quantum is what slow noise of less than a quantum looks like."""
    rounded = np.where(np.arange(20) < 9, 0.5, 0.499)
    assert decline_p_value(rounded) > 0.2
    assert decline_p_value(np.where(np.arange(20) < 9, 0.5, 0.4)) > 0.2, (
        "nor is it known to be of more than ten samples"
    )
    assert decline_p_value(np.where(np.arange(20) < 9, 0.9, 0.001)) < 0.01


def antitonic(values):
    """The non-increasing least-squares fit by its max-min formula, for every record by itself."""
    n = len(values)
    mean = {(s, u): values[s : u + 1].mean() for s in range(n) for u in range(s, n)}
    return np.array([min(max(mean[s, u] for u in range(t, n)) for s in range(t + 1)) for t in range(n)])


@given(arrays(float, st.integers(7, 12), elements=st.integers(0, 100).map(lambda k: k / 100)))
def test_statistics_follow_their_formulas(errors):
    """Pooling, running extremes and squares in one go, against the formulas term by term."""
    quantum = min(b - a for a, b in pairwise(sorted({0.0, 1.0, *errors.tolist()})))
    fit, n = antitonic(errors), len(errors)
    left = sum((x - f) ** 2 for x, f in zip(errors, fit, strict=True)) + n * quantum**2 / 12
    roughness = sum((b - a) ** 2 for a, b in pairwise(errors)) + (n - 1) * quantum**2 / 6
    gap = max(0, max(min(errors[:k]) - max(errors[k:]) for k in range(1, n)) - quantum)
    expected = [sum((f - errors.mean()) ** 2 for f in fit) / left, gap**2 / roughness]
    expected.append(max(0, fit[0] - fit[-1] - quantum) ** 2 / roughness)
    np.testing.assert_allclose(decline_statistics(errors), expected, rtol=1e-6, atol=1e-9)


@given(
    arrays(float, 15, elements=st.floats(0.1, 0.9)),
    st.floats(0.2, 5.0),
    st.floats(-1.0, 1.0),
    st.sampled_from([20, 60]),
)
def test_level_and_amplitude_do_not_matter(errors, scale, shift, n_records):
    errors = np.resize(errors, n_records) + 1e-3 * np.sin(np.arange(n_records))
    before = decline_statistics(errors, quantum=0.0)
    np.testing.assert_allclose(decline_statistics(scale * errors + shift, quantum=0.0), before, rtol=1e-6, atol=1e-9)


def test_too_few_records_are_refused_and_show_no_transition():
    with pytest.raises(
        EstimationRefused, match="cannot be told from noise with 6 records: expected at least 7"
    ) as refused:
        decline_p_value([0.9, 0.5, 0.2, 0.1, 0.05, 0.0])
    assert refused.value.numbers == {"records": 6, "needed": 7}
    short = detect_phases(two_phase_trajectory(np.random.default_rng(0), boundary=3.0, records=6))
    assert short.boundary_epoch.isnull().all()
    assert short.transition_p_value.isnull().all()


@pytest.mark.parametrize(
    ("errors", "correlation", "words"),
    [
        (np.ones(10), 1.0, "correlation=1.0: expected a number from 0 to below 1"),
        (np.ones((10, 2)), 0.9, r"errors of shape \(10, 2\), 0 of them not finite"),
        (np.full(10, np.nan), 0.9, "10 of them not finite"),
    ],
)
def test_what_is_no_series_of_errors_is_refused(errors, correlation, words):
    with pytest.raises(ConfigurationError, match=words):
        decline_p_value(errors, correlation=correlation)


@pytest.mark.parametrize("name", ["learned", "forgotten", "fitted", "significance", "correlation", "level"])
def test_parameters_are_shares(name):
    with pytest.raises(ConfigurationError, match=f"{name}=1.5: expected a number between 0 and 1"):
        PhaseDetector(**{name: 1.5})


# Intervals

GRID = {"noises": (0.01, 0.06), "intervals": (0.25, 5.0), "correlations": (0.5,)}


@pytest.mark.proof
def test_intervals_hold_the_true_boundaries():
    """At least 95 % over 4 replicas: 100 ensembles a cell, 400 a noise and interval; 4 standard errors, 0.087 and 0.044."""
    counts = list(coverage(100, PhaseDetector(), **GRID))
    assert len(counts) == 16
    assert [count for count in counts if too_few(count)] == []
    for noise, interval in product(GRID["noises"], GRID["intervals"]):
        assert not too_few(pooled(counts, f"noise {noise}", f"interval {interval},"))


def bootstrapped(run):
    """The same detector with a percentile bootstrap over replicas: all 256 resamples of 4."""
    result = PhaseDetector()(run)
    resamples = np.array(list(product(range(4), repeat=4)))
    values = result.crossing_epoch.transpose(..., "replica").values[..., resamples].mean(-1)
    for end, quantile in (("lower", 0.025), ("upper", 0.975)):
        name = f"mean_boundary_epoch_{end}"
        dims = [each for each in result.crossing_epoch.dims if each != "replica"]
        result[name] = (dims, np.quantile(values, quantile, axis=-1))
    return result


def test_a_percentile_bootstrap_covers_too_little():
    counts = list(coverage(50, bootstrapped, noises=(0.01,), intervals=(0.25,), correlations=(0.5,)))
    assert too_few(pooled(counts))
    assert pooled(counts).share < 0.88


def of_spread_alone(run):
    """The same detector as if its records knew the crossings exactly."""
    result = PhaseDetector()(run)
    exact = result.assign(crossing_epoch_lower=result.crossing_epoch, crossing_epoch_upper=result.crossing_epoch)
    return result.assign(mean_boundaries(exact))


def test_coarse_records_are_part_of_the_interval():
    """A relaxation within one record interval: the line between records errs the same way in all replicas."""
    generator = np.random.default_rng(4)
    settings_ = {"boundaries": (4.0, 70.0, 200.0), "record_interval": 10.0, "records": 28, "spread": 0.01}
    truth = xr.concat([four_phase_trajectory(generator, **settings_) for _ in range(60)], dim="trial", data_vars="all")
    honest = score_boundaries(PhaseDetector()(truth), truth).covered_share.sel(boundary="I|II")
    blind = score_boundaries(of_spread_alone(truth), truth).covered_share.sel(boundary="I|II")
    assert float(honest) >= 0.95
    assert float(blind) < 0.3


def test_replicas_in_the_same_record_interval_leave_an_interval_of_that_width():
    run = two_phase_trajectory(
        np.random.default_rng(0), boundary=12.0, record_interval=5.0, records=20, spread=0, noise=0
    )
    result = detect_phases(run).squeeze("boundary")
    assert (result.boundary_epoch == 15).all()
    assert float(result.mean_boundary_epoch_lower) == pytest.approx(10.0)
    assert float(result.mean_boundary_epoch_upper) == pytest.approx(15.0)
    assert result.mean_boundary_epoch_lower < run.true_mean_boundary_epoch < result.mean_boundary_epoch_upper


def test_the_interval_is_that_of_scipy_plus_the_records():
    run = two_phase_trajectory(np.random.default_rng(1), record_interval=4.0, records=50)
    result = detect_phases(run, level=0.9).squeeze("boundary")
    crossings = result.crossing_epoch.values
    interval = stats.ttest_1samp(crossings, 0).confidence_interval(0.9)
    after = 4 * np.ceil(crossings / 4)
    assert float(result.mean_boundary_epoch_lower) == pytest.approx(interval.low - (crossings - after + 4).mean())
    assert float(result.mean_boundary_epoch_upper) == pytest.approx(interval.high + (after - crossings).mean())
    assert int(result.reached_count) == 4


def test_a_replica_that_does_not_reach_a_boundary_makes_its_mean_undefined():
    run = four_phase_trajectory(np.random.default_rng(2), records=260)
    late = four_phase_trajectory(np.random.default_rng(3), boundaries=(10, 250, 900), records=260, replicas=1)
    result = detect_phases(xr.concat([run[["train_error"]], late[["train_error"]]], dim="replica"))
    np.testing.assert_array_equal(result.reached_count[[0, 2]], [5, 4])
    np.testing.assert_array_equal(result.mean_boundary_epoch[[0, 2]].isnull(), [False, True])
    np.testing.assert_array_equal(result.mean_boundary_epoch_upper[[0, 2]].isnull(), [False, True])


def test_one_replica_has_no_interval():
    result = detect_phases(four_phase_trajectory(np.random.default_rng(2), replicas=1))
    assert "mean_boundary_epoch" not in result
    with pytest.raises(EstimationRefused, match="at least 2 replicas, got 1") as refused:
        mean_boundaries(result)
    assert refused.value.numbers == {"replicas": 1, "needed": 2}
    with pytest.raises(ConfigurationError, match="lacks crossing_epoch"):
        mean_boundaries(xr.Dataset(coords={"replica": [0, 1]}))


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.integers(0, 3))
@settings(max_examples=20)
def test_boundaries_move_with_the_clock(scale, shift, seed):
    run = four_phase_trajectory(np.random.default_rng(seed), noise=0.06, records=150, record_interval=2.0)
    result = detect_phases(run.assign_coords(time=scale * run.epoch + shift))
    for name in ("boundary", "crossing", "mean_boundary"):
        moved = scale * result[f"{name}_epoch"].values + shift
        np.testing.assert_allclose(result[f"{name}_time"], moved, rtol=1e-9, atol=1e-9 * (abs(shift) + scale))
    for end in ("lower", "upper"):
        moved = scale * result[f"mean_boundary_epoch_{end}"].values + shift
        np.testing.assert_allclose(
            result[f"mean_boundary_time_{end}"], moved, rtol=1e-9, atol=1e-7 * (abs(shift) + scale)
        )


def test_a_crossing_lies_between_its_records_and_the_phase_begins_after_it():
    """Without noise the levels of both are the same: the first record of the phase is the next one."""
    run = four_phase_trajectory(np.random.default_rng(6), noise=0.0, n_samples=10**9, record_interval=3.0, records=100)
    result = detect_phases(run)
    assert (result.crossing_epoch_lower < result.crossing_epoch).all()
    assert (result.crossing_epoch <= result.crossing_epoch_upper).all()
    xr.testing.assert_allclose(result.crossing_epoch_upper, result.boundary_epoch)


def test_intervals_need_no_epoch():
    run = two_phase_trajectory(np.random.default_rng(0)).drop_vars("epoch")
    result = detect_phases(run)
    assert "mean_boundary_epoch" not in result
    assert result.mean_boundary_time.notnull().all()


# Generators and the metric


@pytest.mark.parametrize("definition", [PhaseDetector(), PhaseDetector(learned=0.8, forgotten=0.2, fitted=0.02)])
def test_the_truth_is_the_definition_applied_to_the_noiseless_curve(definition):
    """Without noise, on records 0.01 epochs apart, the rules for single records give the truth to 0.01 epochs."""
    fine = {"noise": 0.0, "n_samples": 10**9, "record_interval": 0.01, "replicas": 2, "definition": definition}
    generator = np.random.default_rng(0)
    four = four_phase_trajectory(generator, boundaries=(2.0, 15.0, 25.0), records=4000, **fine)
    two = two_phase_trajectory(generator, boundary=5.0, records=1000, **fine)
    for run in (four, two):
        delay = definition(run).boundary_epoch - run.true_boundary_epoch
        assert (delay > -1e-6).all()
        assert (delay < 0.0101).all()


def test_boundaries_of_replicas_have_the_mean_and_the_spread_that_are_stated():
    """4,000 replicas: the mean is known to spread/√4000, the spread to 1/√8000 of itself; cut at 4, less than 0.001."""
    run = four_phase_trajectory(np.random.default_rng(0), replicas=4000, records=2, record_interval=400.0, spread=0.04)
    truth, mean = run.true_boundary_epoch, run.true_mean_boundary_epoch
    assert (abs(truth.mean("replica") / mean - 1) < 4 * 0.04 / np.sqrt(4000)).all()
    assert (abs(truth.std("replica") / (0.04 * mean) - 1) < 4 / np.sqrt(8000)).all()
    np.testing.assert_array_equal(mean, [10, 70, 200])


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
def test_noise_has_the_correlation_and_the_amplitude_that_are_stated(correlation):
    """4,000 replicas of 50 records, products of which are correlated over (1 + ρ²)/(1 − ρ²) records or fewer."""
    run = stationary_trajectory(
        np.random.default_rng(0), amplitude=0.1, correlation=correlation, replicas=4000, records=50, n_samples=10**6
    )
    noise = (run.train_error.sel(cohort="correct") - 0.5).values / 0.1
    error = np.sqrt(2 * (1 + correlation**2) / (1 - correlation**2) / (4000 * 50))
    assert abs((noise**2).mean() - 1) < 4 * error
    assert abs((noise[:, 1:] * noise[:, :-1]).mean() - correlation) < 4 * error
    assert abs(np.corrcoef(noise.ravel(), run.train_error.sel(cohort="mislabeled").values.ravel())[0, 1]) < 0.05


def test_errors_are_shares_of_samples_and_cohorts_add_up():
    run = four_phase_trajectory(np.random.default_rng(0), n_samples=200, mislabeled_fraction=0.3, noise=0.2)
    errors = run.train_error
    for cohort, size in (("all", 200), ("correct", 140), ("mislabeled", 60)):
        samples = size * errors.sel(cohort=cohort).values
        np.testing.assert_allclose(samples, samples.round(), atol=1e-9)
        assert samples.min() >= 0
        assert samples.max() <= size
    whole = 0.7 * errors.sel(cohort="correct") + 0.3 * errors.sel(cohort="mislabeled")
    np.testing.assert_allclose(errors.sel(cohort="all"), whole)
    np.testing.assert_array_equal(run.time, run.epoch)


def test_boundaries_after_the_last_record_have_no_truth():
    run = four_phase_trajectory(np.random.default_rng(0), records=100)
    np.testing.assert_array_equal(run.true_mean_boundary_epoch.isnull(), [False, False, True])
    assert run.true_boundary_epoch.sel(boundary="III|IV").isnull().all()
    assert detect_phases(run).boundary_epoch.sel(boundary="III|IV").isnull().all()


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (four_phase_trajectory, {"boundaries": (10.0, 15.0, 200.0)}, "expected three, so far apart"),
        (four_phase_trajectory, {"boundaries": (10.0, 70.0)}, "expected three"),
        (four_phase_trajectory, {"spread": 0.3}, "move them apart or make the spread smaller"),
        (four_phase_trajectory, {"mislabeled_fraction": 0.0}, "use two_phase_trajectory"),
        (four_phase_trajectory, {"definition": PhaseDetector(learned=0.4)}, "learned=0.4: expected more than 0.5"),
        (two_phase_trajectory, {"boundary": -1.0}, "boundary=-1.0 with spread=0.05: expected a positive one"),
        (two_phase_trajectory, {"spread": 0.5}, "smaller than 0.25"),
        (stationary_trajectory, {"correlation": 1.0}, "correlation=1.0: expected a number from -1 to 1"),
        (stationary_trajectory, {"records": 0}, "records=0: expected at least 1"),
        (two_phase_trajectory, {"record_interval": 0.0}, "record_interval=0.0: expected a positive number"),
    ],
)
def test_generators_refuse_what_has_no_truth(make, arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        make(np.random.default_rng(0), **arguments)


def test_the_metric_counts_what_it_says():
    """Two trials of two replicas, written down by hand: the second boundary exists in the first replica only."""
    truth = xr.Dataset(
        {
            "true_boundary_epoch": (("replica", "boundary"), [[10.0, 20.0], [12.0, np.nan]]),
            "true_mean_boundary_epoch": ("boundary", [11.0, np.nan]),
        }
    )
    crossings = [[[10.5, 19.0], [12.5, 30.0]], [[9.0, np.nan], [np.nan, np.nan]]]
    found = xr.Dataset(
        {
            "crossing_epoch": (("trial", "replica", "boundary"), crossings),
            "mean_boundary_epoch": (("trial", "boundary"), [[11.5, 24.5], [np.nan, np.nan]]),
            "mean_boundary_epoch_lower": (("trial", "boundary"), [[10.0, 20.0], [np.nan, np.nan]]),
            "mean_boundary_epoch_upper": (("trial", "boundary"), [[13.0, 29.0], [np.nan, np.nan]]),
        }
    )
    score = score_boundaries(found, truth)
    np.testing.assert_array_equal(score.covered_share, [0.5, np.nan])
    np.testing.assert_array_equal(score.ensemble_count, [2, 0])
    np.testing.assert_array_equal(score.mean_width, [3.0, 9.0])
    np.testing.assert_allclose(score.bias, [0.0, -1.0])
    np.testing.assert_allclose(score.root_mean_square_error, [np.sqrt(0.5), 1.0])
    np.testing.assert_array_equal(score.missed_share, [0.25, 0.5])
    np.testing.assert_array_equal(score.false_alarm_share, [np.nan, 0.5])
    assert np.isnan(score.alarmed_share)
    assert int(score.stationary_count) == 0
    nowhere = score_boundaries(found, truth * np.nan)
    assert float(nowhere.alarmed_share) == 0.75
    assert int(nowhere.stationary_count) == 4


def test_the_metric_needs_its_variables():
    run = two_phase_trajectory(np.random.default_rng(0))
    with pytest.raises(ConfigurationError, match="lacks true_boundary_epoch"):
        score_boundaries(detect_phases(run), xr.Dataset())


def test_the_calibration_runs_and_says_what_it_missed(monkeypatch, capsys):
    import calibrate_phases

    monkeypatch.setattr(calibrate_phases, "false_alarms", lambda repetitions, detector: [Count("none", 1, 10)])
    monkeypatch.setattr(calibrate_phases, "coverage", lambda repetitions, detector: [Count("all", 95, 100)])
    assert calibrate(["--repetitions", "1"]) == 0
    assert "0 missed" in capsys.readouterr().out
    monkeypatch.setattr(calibrate_phases, "coverage", lambda repetitions, detector: [Count("few", 80, 100)])
    assert calibrate(["--repetitions", "1"]) == 1
    assert "MISSED" in capsys.readouterr().out


@given(st.integers(7, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.9, 0.999]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_kernel_gives_the_statistics_of_the_slow_form(n_records, seed, correlation, falling):
    """Pooling in place against scipy's isotonic regression; a series that falls everywhere leaves nothing."""
    series = autoregressive_noise(np.random.default_rng(seed), (20, n_records), correlation)
    if falling:
        series = -np.sort(-series, axis=-1)
    slow = np.array([decline_statistics(each, quantum=0.0) for each in series])
    fast = fall_statistics(series)
    residual_free = slow[:, 0] > 1e9  # what is left is rounding, in both
    np.testing.assert_allclose(fast[~residual_free], slow[~residual_free], rtol=1e-9, atol=1e-12)
    assert (fast[residual_free, 0] > 1e9).all()
    np.testing.assert_allclose(fast[:, 1:], slow[:, 1:], rtol=1e-9, atol=1e-12)
    if not falling:
        assert not np.allclose(fall_statistics(-series), slow), "a rise is no fall"


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.97, -0.3])
def test_autoregressive_series_are_those_of_a_filter(correlation):
    shocks = np.random.default_rng(5).standard_normal((7, 50))
    expected = lfilter([1.0], [1.0, -correlation], shocks, axis=-1)
    np.testing.assert_allclose(autoregressive(shocks, correlation), expected, rtol=1e-12, atol=1e-14)
