"""Whether a recorded series still drifts, and from where on it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.autocorrelation import autocorrelation_envelope
from langevin_nn.analyzers.labels import along_clock, described, evenly_spaced, group_with, on_clocks, selected
from langevin_nn.checks import numbers
from langevin_nn.errors import ConfigurationError, EstimationRefused

__all__ = ["Stationarity", "StationarityTest", "stationarity_test"]

Floats = NDArray[np.float64]

LEAST_EFFECTIVE = 100.0

# Slow components of each half of a series that tell its noise: more are more power, and further from the slow limit.
_COMPONENTS = 6

# Upper quantiles of the statistic for a stationary series: 3·10⁶ series of 1,000 independent normal numbers.
_TABLE = {
    0.99: 0.03565,
    0.95: 0.05218,
    0.9: 0.06617,
    0.8: 0.09204,
    0.7: 0.1199,
    0.6: 0.1528,
    0.5: 0.1941,
    0.4: 0.2485,
    0.3: 0.3263,
    0.2: 0.4514,
    0.15: 0.5524,
    0.1: 0.7131,
    0.075: 0.8419,
    0.05: 1.045,
    0.025: 1.463,
    0.01: 2.182,
    0.005: 2.884,
    0.0025: 3.776,
    0.001: 5.312,
    0.0005: 6.881,
    0.00025: 8.827,
    0.0001: 12.16,
    0.00005: 15.55,
}
_PROBABILITIES, _QUANTILES = np.array(list(_TABLE)), np.array(list(_TABLE.values()))


@dataclass(frozen=True)
class StationarityTest:
    """The outcome of one test.

    Parameters
    ----------
    statistic : float
        D of `stationarity_test`.
    p_value : float
        Probability of one as large or larger for a series that does not drift.
    effective_sample_size : float
        Records over their autocorrelation time, in the quieter half, without its trend.
    """

    statistic: float
    p_value: float
    effective_sample_size: float


def stationarity_test(values: Any, *, least_effective_size: float = LEAST_EFFECTIVE) -> StationarityTest:
    """Test whether the mean of a series stays the same, at a level that holds for correlated records.

    D = (1/N²) Σ_t S_t² / min(ω₁², ω₂²) with S_t = Σ_{s≤t} (x_s − x̄) is the Cramér–von Mises statistic of Heidelberger
    & Welch (1983, doi 10.1287/opre.31.6.1109). Their long-run variance is replaced by a self-normaliser (Shao 2010,
    doi 10.1111/j.1467-9868.2009.00737.x): ω_i² is the mean square of the six slowest cosine components of one half of
    the series after its linear trend, and the quieter half counts. All of it is proportional to the long-run variance,
    so that D has one law for every correlation that is short against the series, which was tabulated; and a drift, an
    early transient or a step leave at least one half clean, where an ordinary estimate of the variance would hide them.
    Only drifts of the mean are seen; for those of the spread, test squared deviations.

    Parameters
    ----------
    values : array, shape (record,)
        Evenly spaced records.
    least_effective_size : float, optional
        Autocorrelation times that the series must last, so that the tabulated law holds.

    Returns
    -------
    StationarityTest
        Statistic, p value and effective sample size; a constant series is stationary with p = 1.

    Raises
    ------
    ConfigurationError
        If the values are no series of finite numbers.
    EstimationRefused
        If the series is too short for its correlations: long correlations and drift look alike there.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal(1000)
    >>> stationarity_test(noise).p_value > 0.05, stationarity_test(noise + np.linspace(0, 1, 1000)).p_value < 0.001
    (True, True)
    """
    expected = "one series of finite numbers, shape (record,), whose mean may drift"
    series = numbers("values", values, expected, finite=False, flags=True)
    if series.ndim != 1 or not np.isfinite(series).all():
        raise ConfigurationError(
            f"values of shape {series.shape}, {np.count_nonzero(~np.isfinite(series))} of them not finite, came: "
            "expected one series of finite numbers, shape (record,); leave out what follows a divergence"
        )
    return _test(series, least_effective_size, "the series")


@dataclass(frozen=True)
class Stationarity:
    """Whether a recorded variable drifts, and where its stationary part begins.

    Where the whole series drifts, its first tenth is left out, then two tenths, up to half: it is stationary from the
    first of these on which the test passes (Heidelberger & Welch 1983, doi 10.1287/opre.31.6.1109). See
    `stationarity_test`.

    Parameters
    ----------
    variable : str
        As in files; dimensions besides the clock are taken one by one.
    selection : mapping, optional
        Coordinates to select first, such as ``{"cohort": "all"}``.
    clock : str, optional
        Dimension of the records; found by name unless said.
    level : float, optional
        Probability of calling a series that does not drift one that does.
    least_effective_size : float, optional
        Autocorrelation times that a series must last.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal((2, 1000))
    >>> transient = np.array([[0.0], [50.0]]) * np.exp(-np.arange(1000) / 30)
    >>> trajectory = xr.Dataset({"train_loss": (("replica", "step"), noise + transient)}, coords={"step": np.arange(1000)})
    >>> result = Stationarity("train_loss")(trajectory)
    >>> result.is_stationary.values, result.stationary_from.sel(clock="step").values
    (array([1, 0], dtype=int8), array([  0., 200.]))
    """

    variable: str
    selection: Mapping[str, Any] = field(default_factory=dict)
    clock: str | None = None
    level: float = 0.05
    least_effective_size: float = LEAST_EFFECTIVE

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Test a trajectory.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With the variable, evenly recorded.

        Returns
        -------
        xarray.Dataset
            ``is_stationary`` (1 or 0), ``p_value`` of the whole series, ``statistic``, ``effective_sample_size``, and
            ``stationary_from_step``, ``_epoch``, ``_time``: the first record of the stationary part, NaN where there is
            none. Of the mean over replicas, which drifts visibly where single ones hide it in their noise, the same as
            ``ensemble_<name>``. Replicas with missing values (after a divergence) are not stationary and their numbers
            NaN.

        Raises
        ------
        ConfigurationError
            If the variable was not recorded.
        EstimationRefused
            If the records are not evenly spaced, or too few for their correlations, or none is complete.
        """
        dataset = group_with(trajectory, self.variable)
        values, clock = along_clock(selected(dataset[self.variable], self.selection), self.clock)
        values = evenly_spaced(values, clock)
        complete = values.notnull().all(clock)
        if not bool(complete.any()):
            raise EstimationRefused(
                f"{self.variable!r} has missing values in every series of {values.sizes[clock]} records: expected "
                "complete ones; select the records before the divergence",
                records=values.sizes[clock],
            )
        result = self._tested(values, clock)
        if "replica" not in values.dims:
            return result
        together = values.where(complete).mean("replica")
        ensemble = self._tested(together, clock)
        named = {
            f"ensemble_{name}": each.assign_attrs(long_name=f"{each.attrs['long_name']}, mean over replicas")
            for name, each in ensemble.data_vars.items()
        }
        return result.assign(named)

    def _tested(self, values: xr.DataArray, clock: str) -> xr.Dataset:
        array = values.values
        shape = array.shape[:-1]
        numbers = np.full((4, *shape), np.nan)
        for index in np.ndindex(shape):
            if np.isfinite(array[index]).all():
                place = ", ".join(
                    f"{name} {values[name].values[position] if name in values.coords else position}"
                    for name, position in zip(values.dims, index, strict=False)
                )
                what = f"{self.variable!r}" + (f", {place}" if place else "")
                numbers[(slice(None), *index)] = self._one(array[index], what)
        p_value, statistic, size, start = numbers
        dims = values.dims[:-1]
        variables = {
            "is_stationary": described(dims, p_value > self.level, "whether the series does not drift"),
            "p_value": described(dims, p_value, "p value of the test of stationarity"),
            "statistic": described(dims, statistic, "statistic D of the test of stationarity"),
            "effective_sample_size": described(dims, size, "effective sample size", "record"),
        }
        variables["stationary_from"] = on_clocks(
            start, values, clock, dims, "first record of the part that does not drift"
        )
        kept = {name: values[name] for name in values.coords if clock not in values[name].dims}
        return xr.Dataset(variables).assign_coords(kept)

    def _one(self, series: Floats, what: str) -> tuple[float, float, float, float]:
        whole = _test(series, self.least_effective_size, what)
        start = 0.0 if whole.p_value > self.level else np.nan
        for tenths in range(1, 6):
            if np.isfinite(start):
                break
            first = len(series) * tenths // 10
            try:
                rest = _test(series[first:], self.least_effective_size, what)
            except EstimationRefused:
                # What is left is too short to be called anything.
                break
            start = float(first) if rest.p_value > self.level else np.nan
        return whole.p_value, whole.statistic, whole.effective_sample_size, start


def _test(series: Floats, least_effective_size: float, what: str) -> StationarityTest:
    n = len(series)
    least = max(int(np.ceil(least_effective_size)), 4 * _COMPONENTS)
    if n < least:
        raise EstimationRefused(
            f"{what}: {n} records: expected at least {least}, one for each of the {least_effective_size:g} effective "
            "samples that the test needs to hold its level; record more often or for longer",
            records=n,
            records_needed=least,
        )
    deviations = series - series.mean()
    rounding = 8 * np.finfo(np.float64).eps * np.abs(series).max()
    if np.abs(deviations).max() <= rounding:
        return StationarityTest(0.0, 1.0, float(n))
    plain, slow = _components(n // 2)
    halves = np.stack([deviations[: n // 2], deviations[-(n // 2) :]])
    variances = ((halves @ slow) ** 2).mean(-1)
    quieter = halves[int(np.argmin(variances))]
    residual = quieter - (quieter @ plain) @ plain.T
    time = autocorrelation_envelope(residual) if np.abs(residual).max() > rounding else 1.0
    size = n / time
    if size < least_effective_size:
        raise EstimationRefused(
            f"{what}: {n} records with an autocorrelation time of about {time:.3g} records, {size:.3g} effective "
            f"samples: expected at least {least_effective_size:g}, since over fewer a long correlation cannot be told "
            "from a drift; record for longer, or leave out a transient at the start",
            records=n,
            effective_samples=float(size),
            effective_samples_needed=float(least_effective_size),
            records_needed=int(np.ceil(least_effective_size * time)),
        )
    noise = float(variances.min())
    excursions = float((np.cumsum(deviations) ** 2).mean() / n)
    statistic = excursions / noise if noise > rounding**2 else np.inf
    return StationarityTest(statistic, _p_value(statistic), float(size))


def _components(n: int) -> tuple[Floats, Floats]:
    """Return orthonormal columns over a half: those of a constant and a trend, and the slow ones orthogonal to both."""
    place = (np.arange(n) + 0.5) / n
    cosines = [np.cos(np.pi * order * place) for order in range(2, _COMPONENTS + 2)]
    columns: Floats = np.linalg.qr(np.stack([np.ones(n), place, *cosines], axis=1))[0]
    return columns[:, :2], columns[:, 2:]


def _p_value(statistic: float) -> float:
    """Interpolate the table, power laws between its rows; beyond it, χ² near 0 makes the tail one of power −3."""
    if statistic <= 0:
        return 1.0
    if statistic >= _QUANTILES[-1]:
        return float(_PROBABILITIES[-1] * (_QUANTILES[-1] / statistic) ** (_COMPONENTS / 2))
    return float(np.exp(np.interp(np.log(statistic), np.log(_QUANTILES), np.log(_PROBABILITIES))))
