"""How long a series remembers: autocorrelation times, effective sample sizes, errors of time averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import fdtrc, stdtrit

from langevin_nn.checks import numbers
from langevin_nn.errors import ConfigurationError, EstimationRefused

__all__ = [
    "Memory",
    "TimeAverage",
    "autocorrelation_function",
    "effective_sample_size",
    "integrated_autocorrelation_time",
    "memory_of",
    "one_series",
    "refuse_few_records",
    "refuse_short_series",
    "time_average",
    "together",
]

Floats = NDArray[np.float64]

WINDOW_FACTOR = 5.0
LEAST_RATIO = 50.0
# Records, in units of the least ratio, below which a time is low by chance too often: of white noise and of an
# autoregression of 0.5, intervals that say 95 % hold the mean in 93 and 75 % at one, in 95 and 94 % at three.
_LEAST_RECORDS = 3
_EXPECTED = "one series of finite numbers, shape (record,), since its records are averaged over time"
# The scatter of fewer, but of one alone, says too little of whether they agree.
LEAST_REPLICAS = 4


def autocorrelation_function(values: Any) -> Floats:
    """Return the autocorrelation of series about their own means.

    ρ(t) = Γ(t)/Γ(0) with Γ(t) = (1/N) Σ_s (x_s − x̄)(x_{s+t} − x̄), through the fast Fourier transform.

    Parameters
    ----------
    values : array, shape (..., record)
        Evenly spaced records.

    Returns
    -------
    ndarray, shape (..., lag)
        For lags 0 to N − 1; NaN for a series that does not vary or has missing values.

    Examples
    --------
    >>> autocorrelation_function([1.0, -1.0, 1.0, -1.0])
    array([ 1.  , -0.75,  0.5 , -0.25])
    """
    series = numbers("values", values, "numbers, shape (..., record)", finite=False, flags=True)
    covariance = _autocovariance(np.where(np.isfinite(series), series, np.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(covariance / covariance[..., :1])


def integrated_autocorrelation_time(
    values: Any, *, window_factor: float = WINDOW_FACTOR, least_ratio: float = LEAST_RATIO
) -> float:
    """Return the number of records that count for one independent record.

    τ = 1 + 2 Σ_{t≥1} ρ(t), summed up to the first lag M ≥ `window_factor` · τ(M) (Sokal 1997,
    doi 10.1007/978-1-4899-0319-8_6; Goodman & Weare 2010, doi 10.2140/camcos.2010.5.65). Two things are added. An
    estimated mean takes away about τ/N from every ρ(t), which is given back (Wolff 2004, doi
    10.1016/S0010-4655(03)00467-3). And correlations that oscillate neither end the sum early nor leak into it: the
    window is at least as many times 1 + 2 Σ |ρ(t)| over the lags at which ρ stands out from its noise, and its last lag
    counts half.

    Parameters
    ----------
    values : array, shape (record,)
        Evenly spaced records of a stationary series.
    window_factor : float, optional
        How many autocorrelation times are summed: fewer bias, more add noise.
    least_ratio : float, optional
        How many autocorrelation times the series must last; of records there must be three times as many, since τ itself
        is estimated from them.

    Returns
    -------
    float
        τ in records: 1 for white noise, more where neighbours are alike, less where they alternate.

    Raises
    ------
    ConfigurationError
        If the values are no series of finite numbers.
    EstimationRefused
        If the series is too short, or does not vary; carries the estimate and the number of records that it calls for.

    Examples
    --------
    >>> white = np.random.default_rng(0).standard_normal(100_000)
    >>> moving_average = white[1:] + white[:-1]  # ρ(1) = 1/2, and no more: τ = 2
    >>> round(integrated_autocorrelation_time(moving_average), 1)
    2.0
    """
    series = one_series(values, _EXPECTED)
    return float(_reliable(series, window_factor, least_ratio).time[()])


def effective_sample_size(
    values: Any, *, window_factor: float = WINDOW_FACTOR, least_ratio: float = LEAST_RATIO
) -> float:
    """Return how many independent records would know the mean as well: N/τ.

    Parameters
    ----------
    values, window_factor, least_ratio : array, float and float
        As for `integrated_autocorrelation_time`.

    Returns
    -------
    float
        Number of records over their integrated autocorrelation time.

    Raises
    ------
    ConfigurationError, EstimationRefused
        As `integrated_autocorrelation_time`.

    Examples
    --------
    >>> white = np.random.default_rng(0).standard_normal(100_000)
    >>> round(effective_sample_size(white) / 100_000, 1)
    1.0
    """
    series = one_series(values, _EXPECTED)
    return len(series) / integrated_autocorrelation_time(series, window_factor=window_factor, least_ratio=least_ratio)


@dataclass(frozen=True)
class TimeAverage:
    """A mean over time with an error that knows of the correlations.

    Parameters
    ----------
    mean : float
        The average.
    standard_error : float
        √(Γ(0) τ/N).
    degrees_of_freedom : float
        Of that error: N/2M, since a sum over M lags knows a variance to a relative √(4M/N) (Madras & Sokal 1988,
        doi 10.1007/BF01022990) and one of ν degrees of freedom is known to √(2/ν).
    integrated_autocorrelation_time : float
        τ in records.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float
    integrated_autocorrelation_time: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return Student's t interval.

        Parameters
        ----------
        level : float, optional
            Its coverage.

        Returns
        -------
        lower, upper : float
            Wider than the normal one, since the error is itself estimated.
        """
        half = float(stdtrit(self.degrees_of_freedom, 0.5 + level / 2)) * self.standard_error
        return self.mean - half, self.mean + half


def time_average(values: Any, *, window_factor: float = WINDOW_FACTOR, least_ratio: float = LEAST_RATIO) -> TimeAverage:
    """Average a stationary series over time.

    Parameters
    ----------
    values, window_factor, least_ratio : array, float and float
        As for `integrated_autocorrelation_time`.

    Returns
    -------
    TimeAverage
        The mean with its standard error and t interval.

    Raises
    ------
    ConfigurationError, EstimationRefused
        As `integrated_autocorrelation_time`.

    Examples
    --------
    >>> white = np.random.default_rng(0).standard_normal(100_000)
    >>> round(time_average(white).standard_error * 100_000**0.5, 1)
    1.0
    """
    series = one_series(values, _EXPECTED)
    estimate = _reliable(series, window_factor, least_ratio)
    return TimeAverage(
        mean=float(series.mean()),
        standard_error=float(estimate.standard_error[()]),
        degrees_of_freedom=float(len(series) / (2 * estimate.window[()])),
        integrated_autocorrelation_time=float(estimate.time[()]),
    )


@dataclass(frozen=True)
class Memory:
    """How long series remember: the autocorrelation of each (..., lag), and numbers of records (...)."""

    autocorrelation: Floats
    time: Floats
    standard_error: Floats
    """Of the mean over time."""
    window: NDArray[np.int64]
    """The last lag that is summed, for all replicas together where they are pooled."""
    longest: Floats
    """The longer of the time and that of its envelope 1 + 2 Σ |ρ(t)|, likewise."""

    @property
    def mean_time(self) -> Floats:
        """Mean over replicas, the last dimension, of the times that are known; NaN unless it is positive."""
        return _mean(self.time)


def one_series(values: Any, expected: str) -> Floats:
    """Return a series of finite numbers, or raise."""
    series = numbers("values", values, expected, finite=False, flags=True)
    if series.ndim != 1 or len(series) == 0 or not np.isfinite(series).all():
        raise ConfigurationError(
            f"values of shape {series.shape}, {np.count_nonzero(~np.isfinite(series))} of them not finite, came: "
            "expected one series of finite numbers, shape (record,); leave out what follows a divergence"
        )
    return series


def _autocovariance(values: Floats) -> Floats:
    """Return Γ at lags 0 to N − 1; NaN for series that do not vary, to rounding, or have missing values."""
    n = values.shape[-1]
    centre = values.mean(-1, keepdims=True)
    deviations = values - centre
    # Twice the length, so that the end does not meet the beginning.
    length = next_fast_len(2 * n, real=True)
    spectrum = rfft(deviations, length, axis=-1)
    covariance = irfft(spectrum.real**2 + spectrum.imag**2, length, axis=-1)[..., :n] / n
    rounding = 4 * np.finfo(np.float64).eps * np.abs(centre)
    varies = (deviations**2).mean(-1, keepdims=True) > rounding**2
    return np.where(varies, covariance, np.nan)


def memory_of(values: Floats, factor: float = WINDOW_FACTOR, *, pool: bool = False) -> Memory:
    """Return how long series remember, however short they are; of pooled replicas (..., replica, record) with one window.

    Returns
    -------
    Memory
        NaN of a series that has missing values or does not vary; times of few records are underestimates.
    """
    covariance = _autocovariance(values)
    n = values.shape[-1]
    own = covariance / covariance[..., :1]
    known = np.isfinite(own[..., :1])
    mean = own
    if pool:
        mean = np.where(known, own, 0).sum(-2) / np.where(known.any(-2), known.sum(-2), np.nan)
    window, longest = _windows(mean, factor, n * (np.maximum(known.sum(-2), 1) if pool else 1.0))
    reach = (window[..., None] if pool else window)[..., None]
    reach = np.broadcast_to(reach, (*own.shape[:-1], 1))
    # With half the last lag, what alternates from record to record drops out.
    sums = np.take_along_axis(2 * np.cumsum(own, -1) - 1 - own, reach, -1)[..., 0]
    # The mean is estimated too, which takes about τ/N from each term, and from the variance.
    sums = sums * (1 + 2 * reach[..., 0] / n)
    time = sums / (1 + sums / n)
    error = np.sqrt(covariance[..., 0] * np.where(sums > 0, sums, np.nan) / n)
    return Memory(own, time, error, window, longest)


def _windows(correlation: Floats, factor: float, records: Any) -> tuple[NDArray[np.int64], Floats]:
    """Return the lag up to which each correlation is summed, and the longer of its time and that of its envelope."""
    sums = 2 * np.cumsum(correlation, -1) - 1
    # Bartlett's error of an autocorrelation; what does not stand out from it is noise and would keep every window open.
    noise = np.sqrt((2 * np.cumsum(correlation**2, -1) - 1) / records)
    size = np.abs(correlation)
    noise[..., 0] = 0  # ρ(0) = 1 however few records there are
    envelope = 2 * np.cumsum(np.where(size > 2 * noise, size, 0.0), -1) - 1
    longer = np.maximum(sums, envelope)
    closed = np.arange(correlation.shape[-1]) >= factor * longer
    window = np.where(closed.any(-1), np.argmax(closed, -1), correlation.shape[-1] - 1)
    window = np.where(np.isfinite(correlation[..., 0]), window, min(1, correlation.shape[-1] - 1))
    return window, np.take_along_axis(longer, window[..., None], -1)[..., 0]


def refuse_few_records(records: int, least_ratio: float, what: str, replicas: int = 1) -> None:
    """Raise where an autocorrelation time would be low by chance, whatever it is."""
    needed = int(np.ceil(_LEAST_RECORDS * least_ratio))
    if records * replicas < needed:
        of_each, in_all = (f" of each of {replicas} replicas", " in all") if replicas > 1 else ("", "")
        raise EstimationRefused(
            f"{what}: {records} records{of_each}: expected at least {needed}{in_all}, since fewer say too little of how "
            "long they remember, and errors that follow from it come out too small; record more often or for longer",
            records=records,
            records_needed=int(np.ceil(needed / replicas)),
        )


def refuse_short_series(longest: float, time: float, records: int, least_ratio: float, what: str) -> None:
    """Raise where nothing varies, so that `Memory` is not finite, or too little is there for the least ratio."""
    if not np.isfinite(longest):
        raise EstimationRefused(
            f"{what}: no series varies over all of its {records} records (missing after a divergence, or constant): "
            "expected finite numbers that vary, since a correlation is relative to a variance; select the records "
            "before the divergence",
            records=records,
        )
    if records < least_ratio * longest:
        needed = int(np.ceil(least_ratio * longest))
        alternates = not time > longest / 2  # also where it is not known, since a sum is not positive
        lasting = f"with an integrated autocorrelation time of about {longest:.3g} records"
        if alternates:
            lasting = (
                f"that alternate: the envelope of their correlations, 1 + 2 Σ |ρ(t)|, is what lasts long, about "
                f"{longest:.3g} records, while they cancel to a time of about {max(time, 0.0):.2g}"
            )
        raise EstimationRefused(
            f"{what}: {records} records {lasting}: "
            f"expected at least {least_ratio:g} times as many ({needed}), since a shorter series underestimates the "
            "time and the errors that follow from it; record for longer, leave out a transient at the start, or pass a "
            "smaller least_ratio",
            records=records,
            integrated_autocorrelation_time=float(time if alternates else longest),
            envelope=float(longest),
            records_needed=needed,
        )


def _reliable(series: Floats, factor: float, least_ratio: float) -> Memory:
    refuse_few_records(len(series), least_ratio, "the series")
    estimate = memory_of(series, factor)
    refuse_short_series(float(estimate.longest), float(estimate.time), len(series), least_ratio, "the series")
    if estimate.time <= 0:
        raise EstimationRefused(
            f"the series: {len(series)} records alternate so much that their integrated autocorrelation time, "
            f"estimated as {float(estimate.time):.2g}, cannot be told from 0: expected a positive one, since the error "
            "of the mean follows from it; record for longer",
            records=len(series),
            integrated_autocorrelation_time=float(estimate.time),
            window=int(estimate.window),
        )
    return estimate


def together(pooled: Memory, values: Floats) -> tuple[Floats, Floats]:
    """Return how many independent records replicas (..., replica, record) are worth, and a p value of their equal means."""
    n = values.shape[-1]
    moving = np.isfinite(pooled.time)
    alike = moving.sum(-1) * n / pooled.mean_time
    means = values.mean(-1)
    known = np.isfinite(means)  # also of replicas that do not move, for the others may be elsewhere
    count = known.sum(-1)
    within = _mean(pooled.standard_error**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        grand = np.where(known, means, 0).sum(-1) / count
        between = np.where(known, (means - grand[..., None]) ** 2, 0).sum(-1) / (count - 1)
        square = np.where(known[..., None], (values - grand[..., None, None]) ** 2, 0).sum((-2, -1)) / (count * n)
        p_value = fdtrc(count - 1.0, moving.sum(-1) * n / (2.0 * pooled.window), between / within)
        apart = square * count / between
    total = np.where(apart < alike, apart, alike)
    return np.where((count == 1) | (count >= LEAST_REPLICAS), total, np.nan), p_value


def _mean(times: Floats) -> Floats:
    """Return the mean over replicas of those that are known; NaN unless it is positive."""
    known = np.isfinite(times)
    mean = np.where(known, times, 0).sum(-1) / np.maximum(known.sum(-1), 1)
    return np.where(mean > 0, mean, np.nan)
