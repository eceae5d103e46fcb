"""Whether a series still drifts, and from where on it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin_nn.errors import EstimationRefused
from langevin_nn.statistics.autocorrelation import memory_of, one_series

__all__ = ["StationarityTest", "stationarity_test", "stationary_part"]

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
    return _test(one_series(values, expected), least_effective_size, "the series")


def stationary_part(
    series: Floats, *, level: float, least_effective_size: float, what: str
) -> tuple[StationarityTest, float]:
    """Test a series, and find the part of it that does not drift.

    Returns
    -------
    test : StationarityTest
        Of the whole series.
    start : float
        How many records to leave out until the rest passes, in tenths and at most half of them; NaN where none does, or where
        too little is left to be called anything.
    """
    whole = _test(series, least_effective_size, what)
    for tenths in range(6):
        first = len(series) * tenths // 10
        try:
            rest = _test(series[first:], least_effective_size, what) if tenths else whole
        except EstimationRefused:
            break
        if rest.p_value > level:
            return whole, float(first)
    return whole, np.nan


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
    time = float(memory_of(residual).longest) if np.abs(residual).max() > rounding else 1.0
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
