"""t_m and t_f on curves whose minimum and fit are planted; ranges that cover, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from langevin_nn.analyzers import Timescales, smoothed_minimum
from langevin_nn.errors import ConfigurationError, EstimationRefused

SIGMAS = 4.0


def u_shaped(minima, fits, records=101, noise=0.0, depth=0.1, curvature=4e-5, seed=0):
    """Runs whose test error is lowest at one record and whose training set is fitted from another; one of each a replica.

    Records are 20 updates, one epoch and 0.2 of gradient-flow time apart.
    """
    record = np.arange(records)
    minima, fits = (np.asarray(each)[:, None] for each in (minima, fits))
    test = depth + curvature * (record - minima) ** 2
    test = np.where(record == 0, 0.9, test + noise * np.random.default_rng(seed).standard_normal(test.shape))
    train = np.where(record < fits, 0.9 * (1 - record / np.maximum(fits, 1)) + 0.002, 0.0005)
    loss = train + 1e-4 * (records - record)
    both = np.stack([train, train], axis=-1)
    return xr.Dataset(
        {
            "test_error": (("replica", "step"), test),
            "train_error": (("replica", "step", "cohort"), both),
            "train_loss": (("replica", "step", "cohort"), np.stack([loss, loss], axis=-1), {"units": "nat"}),
        },
        coords={
            "cohort": ["all", "correct"],
            "step": 20 * record,
            "epoch": ("step", record * 1.0),
            "time": ("step", record * 0.2),
            "replica": np.arange(len(minima)),
        },
    )


def test_planted_times_on_every_clock_with_intervals_over_replicas():
    result = Timescales()(u_shaped([30, 34, 32], [60, 70, 77]))
    np.testing.assert_array_equal(result.time_of_minimum.sel(clock="epoch"), [30, 34, 32])
    np.testing.assert_array_equal(result.time_of_fit.sel(clock="epoch"), [60, 70, 77])
    np.testing.assert_array_equal(result.time_of_fit_lower.sel(clock="epoch"), [59, 69, 76])
    for name in ("time_of_minimum", "time_of_fit", "time_of_minimum_loss"):
        np.testing.assert_allclose(result[name].sel(clock="step"), 20 * result[name].sel(clock="epoch"))
        np.testing.assert_allclose(result[name].sel(clock="time"), 0.2 * result[name].sel(clock="epoch"))
    # Smoothing over three records of a parabola adds 2/3 of its curvature.
    np.testing.assert_allclose(result.minimum_test_error, 0.1 + 4e-5 * 2 / 3)
    np.testing.assert_allclose(result.final_test_error, 0.1 + 4e-5 * np.array([30, 36, 45]) ** 2)
    for name, planted in (("time_of_minimum", [30, 34, 32]), ("time_of_fit", [60, 70, 77])):
        interval = stats.ttest_1samp(planted, 0).confidence_interval(0.95)
        assert result[f"mean_{name}"].sel(clock="epoch") == pytest.approx(np.mean(planted))
        assert result[f"mean_{name}_lower"].sel(clock="epoch") == pytest.approx(interval.low)
        assert result[f"mean_{name}_upper"].sel(clock="epoch") == pytest.approx(interval.high)
    assert result.is_censored_count == result.minimum_is_last_count == 0
    np.testing.assert_array_equal(result.time_of_minimum_loss.sel(clock="epoch"), [100, 100, 100])
    assert result.minimum_loss_is_last_count == 3
    for name, variable in result.data_vars.items():
        assert variable.attrs["long_name"], name
        assert variable.attrs["units"], name


def by_hand(test: list[float], train: list[float], fitted: float) -> tuple[int, int | None]:
    """The definitions, in loops over records after the first."""
    best, where = float("inf"), 0
    for middle in range(2, len(test) - 1):
        average = round(sum(test[middle - 1 : middle + 2]) / 3, 12)
        if average < best:
            best, where = average, middle
    fit = None
    for record in range(len(train) - 1, 0, -1):
        if train[record] > fitted:
            break
        fit = record
    return where, fit


@given(st.integers(0, 2**20))
@settings(max_examples=30)
def test_times_are_those_of_the_definitions_in_loops(seed):
    generator = np.random.default_rng(seed)
    test = generator.integers(0, 12, 25) / 50
    train = np.where(generator.random(25) < 0.7, 0.0, 0.01)
    run = xr.Dataset({"test_error": ("step", test), "train_error": ("step", train)}, coords={"step": np.arange(25)})
    result = Timescales()(run).sel(clock="step")
    where, fit = by_hand(test.tolist(), train.tolist(), 0.001)
    assert result.time_of_minimum == where
    assert result.is_censored == (fit is None)
    np.testing.assert_array_equal(result.time_of_fit, np.nan if fit is None else fit)
    np.testing.assert_array_equal(result.final_test_error, np.nan if fit is None else test[fit])
    assert result.time_of_minimum_lower <= result.time_of_minimum <= result.time_of_minimum_upper


def test_smoothing_outvotes_a_single_record_and_the_start_does_not_count():
    run = u_shaped([50], [60])
    run.test_error[0, 90] = 0.05  # lower than anything, but alone
    run.test_error[0, 0] = 0.0
    assert Timescales()(run).time_of_minimum.sel(clock="epoch").item() == 50
    assert Timescales(window=1)(run).time_of_minimum.sel(clock="epoch").item() == 90
    run.train_error[0, 80] = 0.01  # the training set is not fitted until it stays so
    assert Timescales()(run).time_of_fit.sel(clock="epoch").item() == 81


def test_of_equally_low_minima_the_first_counts_whatever_the_order_of_its_sum():
    rising, falling = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    assert np.mean(rising) > np.mean(falling), "rounding makes the second the lower one"
    series = [0.9, *rising, 0.9, 0.9, *falling, 0.9]
    assert smoothed_minimum(series)[1].item() == 2


@pytest.mark.parametrize(("test_samples", "expected"), [(600, 0.95), (None, 0.82)])
def test_ranges_of_flat_minima_cover(test_samples, expected):
    """1,000 runs under binomial noise: shares are known to 0.7 and 1.2 %; the latter of 0.80 to 0.83 over curvatures."""
    records = np.arange(161)
    curve = 0.1 + 2e-5 * (records - 90) ** 2
    test = np.random.default_rng(7).binomial(600, curve, size=(1000, 161)) / 600
    run = xr.Dataset(
        {"test_error": (("replica", "step"), test), "train_error": (("replica", "step"), 0 * test)},
        coords={"step": records},
    )
    result = Timescales(test_samples=test_samples)(run).sel(clock="step")
    covered = ((result.time_of_minimum_lower <= 90) & (result.time_of_minimum_upper >= 90)).mean()
    assert abs(covered - expected) < SIGMAS * np.sqrt(expected * (1 - expected) / 1000)
    assert abs((result.time_of_minimum == 90).mean() - expected) > 0.5, "a minimum without its range"
    if test_samples is None:
        noise = np.sqrt(0.1 * 0.9 / 600 / 3)
        assert result.minimum_test_error_standard_error.mean() == pytest.approx(noise, rel=0.1)
        assert result.minimum_test_error_standard_error.mean() != pytest.approx(noise * 3**0.5, rel=0.1)
    else:
        lowest = result.minimum_test_error
        np.testing.assert_allclose(
            result.minimum_test_error_standard_error, np.sqrt(lowest * (1 - lowest) / 600), rtol=1e-9
        )


def test_censored_replicas_are_counted_and_have_no_mean():
    result = Timescales()(u_shaped([30, 31, 32], [60, 70, 500]))
    np.testing.assert_array_equal(result.is_censored, [0, 0, 1])
    assert result.is_censored_count == 1
    assert np.isnan(result.time_of_fit[2]).all()
    assert np.isnan(result.final_test_error[2])
    for name in ("mean_time_of_fit", "mean_time_of_fit_upper", "mean_final_test_error"):
        assert np.isnan(result[name]).all(), "a mean of the replicas that fitted would be too early"
    assert result.mean_time_of_minimum.sel(clock="epoch") == 31


def test_a_run_that_was_too_short_is_flagged():
    result = Timescales()(u_shaped([30, 300], [60, 60]))
    np.testing.assert_array_equal(result.minimum_is_last, [0, 1])
    assert result.minimum_is_last_count == 1


def test_what_follows_a_divergence_counts_nowhere():
    run = u_shaped([30, 32, 34], [60, 60, 60])
    expected = Timescales()(run.isel(replica=[0, 2]))
    run = run.copy(deep=True)
    for name in run.data_vars:
        run[name][1, 40:] = np.nan
    result = Timescales()(run)
    assert np.isnan(result.time_of_minimum[1]).all()
    assert np.isnan(result.minimum_test_error_standard_error[1])
    assert result.mean_time_of_minimum_count.sel(clock="epoch") == 2
    np.testing.assert_array_equal(result.mean_time_of_minimum, expected.mean_time_of_minimum)
    assert result.is_censored[1] == 1
    assert result.minimum_loss_is_last[1] == 0
    run.test_error[0, 50:] = np.nan
    run.test_error[2, 99:] = np.nan
    run.test_error[1, :] = np.where(np.arange(101) < 20, np.nan, 0.1)
    with pytest.raises(EstimationRefused, match="no replica has a test error at each of 100 records") as refusal:
        Timescales()(run)
    assert refusal.value.numbers == {"records": 100, "replicas": 3}


def test_errors_measured_on_schedules_of_their_own_leave_gaps_that_do_not_count():
    run = u_shaped([40], [70])
    sparse = run.copy(deep=True)
    sparse.test_error[:, 1::2] = np.nan
    result = Timescales()(sparse)
    assert result.time_of_minimum.sel(clock="epoch").item() == 40
    assert result.time_of_fit.sel(clock="epoch").item() == 70
    assert result.final_test_error.item() == pytest.approx(run.test_error[0, 70].item())
    sparse.test_error[:, 70] = np.nan
    assert np.isnan(Timescales()(sparse).final_test_error.item())


def test_processes_and_dimensions_in_any_order():
    runs = [u_shaped([30, 34], [60, 70]), u_shaped([50, 52], [80, 90])]
    together = xr.concat(runs, dim=xr.Variable("process", ["sgd", "langevin"]))
    result = Timescales()(together)
    for name, run in zip(("sgd", "langevin"), runs, strict=True):
        xr.testing.assert_equal(result.sel(process=name, drop=True), Timescales()(run))
    xr.testing.assert_identical(Timescales()(xr.DataTree.from_dict({"/": together.transpose("step", ...)})), result)


def test_a_dataset_of_other_make_needs_two_errors_and_no_more():
    run = u_shaped([30], [60]).isel(replica=0, drop=True)
    bare = xr.Dataset(
        {"test_error": ("step", run.test_error.values), "train_error": ("step", run.train_error.values[:, 0])}
    )
    result = Timescales()(bare)
    # Without a coordinate the first record is the start, and moments are counted in records after it.
    assert result.time_of_minimum.sel(clock="step").item() == 29
    assert "mean_time_of_minimum" not in result
    assert "time_of_minimum_loss" not in result


@given(st.floats(0.1, 100), st.floats(-0.05, 0.3))
@settings(max_examples=10)
def test_times_follow_the_clock_and_do_not_know_the_height_of_the_curve(factor, height):
    run = u_shaped([33, 40], [60, 70], noise=0.003)
    moved = run.assign_coords(epoch=("step", factor * run.epoch.values)).assign(test_error=run.test_error + height)
    first, second = Timescales()(run).sel(clock="epoch"), Timescales()(moved).sel(clock="epoch")
    for name in ("time_of_minimum", "time_of_fit", "mean_time_of_minimum_lower"):
        np.testing.assert_allclose(second[name], factor * first[name])
    np.testing.assert_allclose(second.minimum_test_error, first.minimum_test_error + height)


def test_too_few_records_are_refused_and_arguments_checked():
    with pytest.raises(
        EstimationRefused, match="8 records of the test error after the start: expected at least 10"
    ) as refusal:
        Timescales()(u_shaped([4], [6], records=9))
    assert refusal.value.numbers == {"records": 8, "records_needed": 10}
    assert Timescales(least_records=5)(u_shaped([4], [6], records=9)).time_of_fit.sel(clock="epoch").item() == 6
    missing = r"test_error: expected .* with test_error, train_error, .*Losses\(\)\]\); .*a landscape with test data"
    for of_what, lacking in ("lacks", xr.Dataset.copy), ("no group of the trajectory has", xr.DataTree):
        with pytest.raises(ConfigurationError, match=f"{of_what} {missing}"):
            Timescales()(lacking(u_shaped([4], [6])[["train_error"]]))
    with pytest.raises(ConfigurationError, match="test_samples=0: expected a positive number"):
        Timescales(test_samples=0)
    with pytest.raises(ConfigurationError, match="window=2: expected an odd number"):
        smoothed_minimum(np.zeros(10), 2)
    with pytest.raises(ConfigurationError, match="expected one called 'step'"):
        Timescales()(xr.Dataset({"test_error": ("day", [0.1]), "train_error": ("day", [0.1])}))
