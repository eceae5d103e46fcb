"""When a run generalises best, and when it has fitted its training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import described, group_with, in_memory, on_clocks, over_replicas
from langevin_nn.checks import numbers
from langevin_nn.errors import ConfigurationError, EstimationRefused

__all__ = ["Timescales", "smoothed_minimum"]

Floats = NDArray[np.float64]


def smoothed_minimum(values: Any, window: int = 3) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Smooth series over records and find where they are lowest.

    Parameters
    ----------
    values : array, shape (..., record)
        Series.
    window : int, optional
        Records that are averaged, odd; a record without all of them has no smoothed value.

    Returns
    -------
    smoothed : ndarray, shape (..., record)
        Centred averages; NaN at both ends.
    position : ndarray, shape (...)
        Record of the lowest, the first of equally low ones; −1 for a series with missing values.
    lowest : ndarray, shape (...)
        Its smoothed value.

    Raises
    ------
    ConfigurationError
        If the window is no odd number, or longer than the series.

    Examples
    --------
    >>> smoothed, position, lowest = smoothed_minimum([0.9, 0.3, 0.1, 0.2, 0.3, 0.6])
    >>> position.item(), lowest.round(3).item()
    (2, 0.2)
    """
    series = numbers("values", values, "series of numbers, shape (..., record)", finite=False)
    if series.ndim == 0:
        raise ConfigurationError(
            "values is a single number: expected series, shape (..., record), which have a minimum"
        )
    records = series.shape[-1]
    if window < 1 or window % 2 == 0 or window > records:
        raise ConfigurationError(
            f"window={window}: expected an odd number up to the {records} records there are, so that an average has a "
            "middle"
        )
    smoothed = np.full(series.shape, np.nan)
    edge = window // 2
    windows = np.lib.stride_tricks.sliding_window_view(series, window, axis=-1)
    smoothed[..., edge : records - edge] = windows.mean(-1)
    complete = np.asarray(np.isfinite(series).all(-1))
    # Averages of equal errors differ by rounding; the first of equally low ones is then no accident.
    comparable = np.where(np.isfinite(smoothed) & complete[..., None], smoothed.round(12), np.inf)
    position = np.where(complete, np.argmin(comparable, axis=-1), -1)
    lowest = np.take_along_axis(smoothed, np.maximum(position, 0)[..., None], axis=-1)[..., 0]
    return smoothed, position, np.where(complete, lowest, np.nan)


@dataclass(frozen=True)
class Timescales:
    """The two times of a U-shaped test error, after Feng & Tu (2021), doi 10.1088/2632-2153/abf5b9, section 4.

    t_m is the minimum of the test error, smoothed over three records, the start left out; ε_m its smoothed value there.
    t_f is the first record from which on the training error stays at most 0.1 %, and ε_f the test error there; a
    replica that never gets there is censored. The paper's own wording for t_f, the minimum of the training loss, is
    given beside it.

    A flat minimum is known less well than by a record. Its range is that of the records, first to last, whose smoothed
    test error is within one standard error of the minimum. With `test_samples` the standard error is binomial,
    √(ε_m (1 − ε_m)/n): how far another test set would move the curve as a whole, which is cautious about its minimum.
    Otherwise it is that of the noise from record to record, from second differences in the lower half of the
    curve (Gasser, Sroka & Jennen-Steinmetz 1986, doi 10.1093/biomet/73.3.625), over √window. On parabolas under noise
    that is new at each record the two ranges held the true minimum in 93 to 96 % and in 79 to 86 % of runs. ε_m is the
    lowest of many noisy numbers, and so lies below the curve, by about a binomial standard error.

    Parameters
    ----------
    window : int, optional
        Records over which the test error is smoothed, odd.
    fitted : float, optional
        Training error at which the training set counts as fitted.
    test_samples : int, optional
        Number of test samples.
    least_records : int, optional
        Fewest records after the start.
    level : float, optional
        Coverage of intervals over replicas.

    Examples
    --------
    >>> record = np.arange(41)
    >>> trajectory = xr.Dataset(
    ...     {
    ...         "test_error": ("step", 0.1 + 0.0004 * (record - 20) ** 2),
    ...         "train_error": ("step", np.maximum(0.9 - 0.03 * record, 0)),
    ...     },
    ...     coords={"step": 10 * record, "epoch": ("step", 0.5 * record)},
    ... )
    >>> result = Timescales(test_samples=1000)(trajectory)
    >>> result.time_of_minimum.sel(clock="epoch").item(), result.time_of_fit.sel(clock="epoch").item()
    (10.0, 15.0)
    """

    window: int = 3
    fitted: float = 0.001
    test_samples: int | None = None
    least_records: int = 10
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.test_samples is not None and self.test_samples < 1:
            raise ConfigurationError(
                f"test_samples={self.test_samples}: expected a positive number, whose root divides the binomial error"
            )

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Measure a trajectory.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With ``test_error`` and ``train_error``; ``train_loss`` where it was recorded.

        Returns
        -------
        xarray.Dataset
            By replica and ``clock`` (step, epoch, time): ``time_of_minimum`` with its range ``_lower`` and ``_upper``;
            ``time_of_fit`` with ``_lower``, the record before; ``time_of_minimum_loss``. By replica:
            ``minimum_test_error`` and ``final_test_error`` with ``_standard_error``, ``minimum_train_loss``,
            ``test_error_at_minimum_loss``; and flags: ``minimum_is_last`` and ``minimum_loss_is_last``, where the run
            was too short to say, and ``is_censored``. Over replicas: ``mean_<name>`` with t intervals, and the numbers
            of those flagged, ``<flag>_count``. While any replica is censored, the means of ``time_of_fit`` and
            ``final_test_error`` are NaN: those of the others would be too early. Replicas with missing values (after a
            divergence) are NaN and censored.

        Raises
        ------
        ConfigurationError
            If the errors were not recorded.
        EstimationRefused
            If there are too few records after the start, or no replica is complete.
        """
        dataset = group_with(trajectory, "test_error", "train_error")
        curves = {
            name: _series(dataset, name) for name in ("test_error", "train_error", "train_loss") if name in dataset
        }
        test, train = curves["test_error"], curves["train_error"]
        self._check(test)
        dims = [str(name) for name in test.dims[:-1]]
        results = self._minimum(test, dims) | self._fit(train, test, dims)
        if "train_loss" in curves:
            results |= self._lowest_loss(curves["train_loss"], test, dims)
        kept = {name: test[name] for name in test.coords if "step" not in test[name].dims}
        result = xr.Dataset(results).assign_coords(kept)
        return self._over_replicas(result) if "replica" in dims else result

    def _check(self, test: xr.DataArray) -> None:
        n, least = test.sizes["step"], max(self.least_records, self.window)
        if n < least:
            raise EstimationRefused(
                f"{n} records of the test error after the start: expected at least {least}, since a minimum among fewer "
                "says where the records are rather than where the curve is lowest; record more often, or pass a smaller "
                "least_records",
                records=n,
                records_needed=least,
            )
        if not bool(test.notnull().all("step").any()):
            raise EstimationRefused(
                f"no replica has a test error at each of {n} records: expected at least one; select the records before "
                "the divergence",
                records=n,
                replicas=int(test[..., 0].size),
            )

    def _minimum(self, test: xr.DataArray, dims: list[str]) -> dict[str, Any]:
        smoothed, position, lowest = smoothed_minimum(test.values, self.window)
        noise = self._standard_error(test.values, smoothed, lowest)
        near = smoothed <= (lowest + noise)[..., None] + 1e-12
        n = near.shape[-1]
        complete = position >= 0
        first = np.where(complete, np.argmax(near, -1), np.nan)
        last = np.where(complete, n - 1 - np.argmax(near[..., ::-1], -1), np.nan)
        place = np.where(complete, position, np.nan)
        word = "minimum of the test error"
        return {
            "time_of_minimum": on_clocks(place, test, "step", dims, f"t_m, {word}"),
            "time_of_minimum_lower": on_clocks(first, test, "step", dims, f"first record near the {word}"),
            "time_of_minimum_upper": on_clocks(last, test, "step", dims, f"last record near the {word}"),
            "minimum_test_error": described(dims, lowest, f"ε_m, {word}"),
            "minimum_test_error_standard_error": described(dims, noise, f"standard error of the {word}"),
            "minimum_is_last": described(
                dims, position == n - 1 - self.window // 2, f"whether the {word} is at the end of the run"
            ),
        }

    def _standard_error(self, test: Floats, smoothed: Floats, lowest: Floats) -> Floats:
        if self.test_samples is not None:
            return np.sqrt(np.clip(lowest * (1 - lowest), 0, None) / self.test_samples)
        # Where the curve is steep, early, second differences are not noise.
        middle = smoothed[..., 1:-1]
        second = test[..., 2:] - 2 * test[..., 1:-1] + test[..., :-2]
        with np.errstate(invalid="ignore"):
            level = np.nanquantile(np.where(np.isfinite(smoothed), smoothed, np.inf), 0.5, axis=-1, keepdims=True)
            quiet = middle <= level
            variance = np.where(quiet, second**2, 0).sum(-1) / np.maximum(quiet.sum(-1), 1) / 6
        return np.where(np.isfinite(lowest), np.sqrt(variance / self.window), np.nan)

    def _fit(self, train: xr.DataArray, test: xr.DataArray, dims: list[str]) -> dict[str, Any]:
        below = train.transpose(*dims, "step").values <= self.fitted
        stays = np.logical_and.accumulate(below[..., ::-1], axis=-1)[..., ::-1]
        reached = stays.any(-1)
        first = np.argmax(stays, -1)
        place = np.where(reached, first, np.nan)
        before = np.where(reached, np.maximum(first - 1, 0), np.nan)
        error = _at(test, train, place)
        deviation = np.full(error.shape, np.nan)
        if self.test_samples is not None:
            deviation = np.sqrt(error * (1 - error) / self.test_samples)
        return {
            "time_of_fit": on_clocks(
                place, train, "step", dims, "t_f, first record from which the training set is fitted"
            ),
            "time_of_fit_lower": on_clocks(
                before, train, "step", dims, "last record at which the training set is not fitted"
            ),
            "final_test_error": described(dims, error, "ε_f, test error where the training set is fitted"),
            "final_test_error_standard_error": described(dims, deviation, "standard error of the final test error"),
            "is_censored": described(dims, ~reached, "whether the training set is not fitted by the end of the run"),
        }

    def _lowest_loss(self, loss: xr.DataArray, test: xr.DataArray, dims: list[str]) -> dict[str, Any]:
        values = loss.transpose(*dims, "step").values
        complete = np.isfinite(values).all(-1)
        position = np.argmin(np.where(np.isfinite(values), values, np.inf), -1)
        place = np.where(complete, position, np.nan)
        lowest = np.where(complete, np.take_along_axis(values, position[..., None], -1)[..., 0], np.nan)
        error = _at(test, loss, place)
        is_last = complete & (position == values.shape[-1] - 1)
        units = str(loss.attrs.get("units", "nat"))
        return {
            "time_of_minimum_loss": on_clocks(place, loss, "step", dims, "minimum of the training loss"),
            "minimum_train_loss": described(dims, lowest, "lowest training loss", units),
            "test_error_at_minimum_loss": described(dims, error, "test error at the minimum of the training loss"),
            "minimum_loss_is_last": described(dims, is_last, "whether the training loss is lowest at the end"),
        }

    def _over_replicas(self, result: xr.Dataset) -> xr.Dataset:
        names = ["time_of_minimum", "minimum_test_error", "time_of_fit", "final_test_error"]
        names += ["time_of_minimum_loss", "test_error_at_minimum_loss"] if "time_of_minimum_loss" in result else []
        result = over_replicas(result, names, self.level)
        whole = ~result["is_censored"].astype(bool).any("replica")
        for name in ("time_of_fit", "final_test_error"):
            for suffix in ("", "_standard_error", "_lower", "_upper"):
                mean = result[f"mean_{name}{suffix}"]
                result[f"mean_{name}{suffix}"] = mean.where(whole).assign_attrs(mean.attrs)
        for flag in ("minimum_is_last", "is_censored", "minimum_loss_is_last"):
            if flag in result:
                text = str(result[flag].attrs["long_name"]).removeprefix("whether ")
                count = result[flag].astype(np.int64).sum("replica")
                result[f"{flag}_count"] = count.assign_attrs(long_name=f"number of replicas where {text}", units="1")
        return result


def _series(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Return a quantity over all samples at the records that have it, the start left out; its clock last."""
    values = dataset[name]
    if "cohort" in values.dims:
        values = values.sel(cohort="all", drop=True)
    if "step" not in values.dims:
        raise ConfigurationError(
            f"{name} has the dimensions {', '.join(map(str, values.dims)) or 'none'}: expected one called 'step', "
            "along which it was recorded"
        )
    loaded = in_memory(values.transpose(..., *[name for name in ("replica", "step") if name in values.dims]))
    later = loaded["step"].values > 0 if "step" in loaded.coords else np.arange(loaded.sizes["step"]) > 0
    loaded = loaded.isel(step=np.flatnonzero(later))
    # Observables on schedules of their own leave gaps in each other's records.
    measured = loaded.notnull().any([each for each in loaded.dims if each != "step"])
    return loaded.isel(step=np.flatnonzero(measured.values))


def _at(test: xr.DataArray, other: xr.DataArray, place: Floats) -> Floats:
    """Return the test error at records of another series; NaN where it was not measured there."""
    known = np.isfinite(place)
    index = np.where(known, place, 0).astype(np.int64)
    if "step" in other.coords:
        wanted, own = other["step"].values[index], test["step"].values
        index = np.minimum(np.searchsorted(own, wanted), len(own) - 1)
        known &= own[index] == wanted
    values = np.take_along_axis(test.values, index[..., None], axis=-1)[..., 0]
    return np.where(known, values, np.nan)
