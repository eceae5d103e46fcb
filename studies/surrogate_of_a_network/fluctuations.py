"""How replicas that start from one point spread along directions, and whether another process spreads alike.

All replicas start at the same weights, so that the variance over replicas at a time is exact in the transient too: nothing is
detrended, and SGD, surrogate and law are treated alike. Values are averages over the second half of the window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtrit

from langevin_nn.theory import covariance_after

__all__ = ["RELATIONS", "compared", "exact", "expected", "fluctuations", "lags_of", "window"]

Floats = NDArray[np.float64]

RELATIONS = ("fails", "undecided", "holds")
_LEVEL = 0.975  # of two-sided intervals of 95 %


def window(n_records: int) -> slice:
    """Return the second half of the records, over which everything is averaged.

    Parameters
    ----------
    n_records : int
        Of the run.

    Returns
    -------
    slice
        Of records.
    """
    return slice(n_records // 2, n_records)


def lags_of(relaxation_time: Floats, stride: int, n_records: int) -> NDArray[np.int64]:
    """Return the lag at which memory is measured: the time in which a direction relaxes, at most half the window.

    Parameters
    ----------
    relaxation_time : ndarray, shape (direction,)
        In updates; NaN where a direction does not relax.
    stride : int
        Updates between records.
    n_records : int
        Of the run.

    Returns
    -------
    ndarray of int, shape (direction,)
        In records.
    """
    most = max(1, (n_records - window(n_records).start) // 2)
    wanted = np.where(np.isfinite(relaxation_time), relaxation_time / stride, most)
    return np.clip(np.round(wanted), 1, most).astype(np.int64)


def fluctuations(displacement: NDArray[np.floating], lags: NDArray[np.int64]) -> xr.Dataset:
    """Return variances over replicas and memory along each direction, with errors over replicas.

    Parameters
    ----------
    displacement : ndarray, shape (replica, record, direction)
        From the common start.
    lags : ndarray of int, shape (direction,)
        At which memory is measured, in records.

    Returns
    -------
    xarray.Dataset
        ``variance`` (direction) with its standard error; ``memory``, Σ_t Cov(x(t + s), x(t))/Σ_t Var(x(t)), which is
        e^(−s/τ) of a direction that relaxes with time τ whether or not it has settled, 1 of one that diffuses; ``mean`` at
        the end and ``variance_by_record``.
    """
    n = len(displacement)
    deviation = (displacement - displacement.mean(0)).astype(np.float64)
    squares = np.square(deviation) * (n / (n - 1))
    half = window(displacement.shape[1])
    own = squares[:, half].mean(1)
    memory, memory_error = np.empty((2, displacement.shape[2]))
    for direction, lag in enumerate(lags):
        series = deviation[:, half, direction]
        along, whole = (series[:, lag:] * series[:, :-lag]).sum(1), np.square(series[:, :-lag]).sum(1)
        memory[direction] = along.sum() / whole.sum() if whole.sum() > 0 else np.nan
        scatter = (along - memory[direction] * whole).std(ddof=1) / n**0.5
        memory_error[direction] = scatter / whole.mean() if whole.sum() > 0 else np.nan
    return xr.Dataset(
        {
            "variance": ("direction", own.mean(0)),
            "variance_standard_error": ("direction", own.std(0, ddof=1) / n**0.5),
            "memory": ("direction", memory),
            "memory_standard_error": ("direction", memory_error),
            "mean": ("direction", displacement[:, -1].mean(0)),
            "variance_by_record": (("record", "direction"), squares.mean(0)),
        },
        attrs={"replicas": n},
    )


def expected(
    hessian: Floats,
    noise: Floats,
    learning_rate: float,
    updates: NDArray[np.int64],
    lags: NDArray[np.int64],
    updates_per_epoch: float | None = None,
) -> xr.Dataset:
    """Return what the linear equation with constant noise says, as `fluctuations` has it.

    Parameters
    ----------
    hessian, noise : ndarray, shape (direction, direction)
        H and C.
    learning_rate : float
        α.
    updates : ndarray of int, shape (record,)
        When.
    lags : ndarray of int, shape (direction,)
        At which memory is measured, in records.
    updates_per_epoch : float, optional
        N/B where epochs are shuffled.

    Returns
    -------
    xarray.Dataset
        Exact: without errors.
    """

    def diagonals(at: NDArray[np.int64], lag: int) -> Floats:
        given: Any = {"lag": lag, "updates_per_epoch": updates_per_epoch}
        return np.array([covariance_after(hessian, noise, learning_rate, int(n), **given).diagonal() for n in at])

    half, stride = window(len(updates)), int(updates[0])
    variances = diagonals(updates, 0)
    memory = np.empty(len(lags))
    for lag in np.unique(lags):
        whole = variances[half][:-lag].sum(0)
        along = diagonals(updates[half][:-lag], int(lag) * stride).sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            memory[lags == lag] = (along / whole)[lags == lag]
    return exact(variances, memory)


def exact(variances: Floats, memory: Floats) -> xr.Dataset:
    """Return what is known without error, as `fluctuations` has it.

    Parameters
    ----------
    variances : ndarray, shape (record, direction)
        At each record.
    memory : ndarray, shape (direction,)
        At the lag of each direction.

    Returns
    -------
    xarray.Dataset
        Without standard errors.
    """
    return xr.Dataset(
        {
            "variance": ("direction", variances[window(len(variances))].mean(0)),
            "memory": ("direction", memory),
            "variance_by_record": (("record", "direction"), variances),
        }
    )


def compared(sgd: xr.Dataset, other: xr.Dataset, tolerance: float, memory_tolerance: float) -> xr.Dataset:
    """Return where another process fluctuates as SGD does.

    Parameters
    ----------
    sgd, other : xarray.Dataset
        Of `fluctuations`; without standard errors where something is exact.
    tolerance : float
        Ratio of variances, above 1, that still counts as alike.
    memory_tolerance : float
        Difference of memories that still counts as alike.

    Returns
    -------
    xarray.Dataset
        ``variance_ratio``, other over SGD, and ``memory_difference`` with 95 % intervals; ``relation``, a position in
        `RELATIONS`: it holds where both intervals lie within the tolerances, fails where one lies outside.
    """
    quantile = stdtrit(sgd.attrs["replicas"] - 1, _LEVEL)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(other.variance.values / sgd.variance.values)
        half = quantile * np.hypot(*(_error(each, "variance") / each.variance.values for each in (sgd, other)))
    limit = np.log(tolerance)
    difference = other.memory.values - sgd.memory.values
    reach = quantile * np.hypot(_error(sgd, "memory"), _error(other, "memory"))
    held = [_relation(ratio, half, limit), _relation(difference, reach, memory_tolerance)]
    return xr.Dataset(
        {
            "variance_ratio": ("direction", np.exp(ratio)),
            "variance_ratio_lower": ("direction", np.exp(ratio - half)),
            "variance_ratio_upper": ("direction", np.exp(ratio + half)),
            "memory_difference": ("direction", difference),
            "memory_difference_lower": ("direction", difference - reach),
            "memory_difference_upper": ("direction", difference + reach),
            "relation": ("direction", np.minimum(*held)),
        }
    )


def _error(data: xr.Dataset, name: str) -> Floats:
    name = f"{name}_standard_error"
    return np.asarray(data[name].values) if name in data else np.zeros(data.sizes["direction"])


def _relation(values: Floats, half: Floats, limit: float) -> NDArray[np.int8]:
    """Return a position in `RELATIONS`; a law that says nothing, such as a stationary one of what diffuses, fails."""
    inside, outside = np.abs(values) + half < limit, ~(np.abs(values) - half < limit)
    return np.where(outside, 0, np.where(inside, 2, 1)).astype(np.int8)
