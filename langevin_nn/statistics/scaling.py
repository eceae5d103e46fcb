"""How quantities depend on size, and whether curves fall onto one another: power laws and collapse, with errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri

from langevin_nn.checks import number, numbers
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.statistics.intervals import jackknife_error

__all__ = ["collapse_distance", "fit_power_law"]


def fit_power_law(sizes: Any, values: Any, relative_errors: Any, *, level: float = 0.95) -> xr.Dataset:
    """Fit y = a Nᵇ to values of known relative errors, and say whether that is warranted.

    Weighted least squares of ln y on ln N, with weights 1/σ². A line may be drawn through anything: χ² over n − 2 degrees of
    freedom says whether the points lie on it within their errors, and the interval of b whether there is any dependence.

    Parameters
    ----------
    sizes : array, shape (size,)
        N, positive.
    values : array, shape (size,)
        y, positive.
    relative_errors : array, shape (size,)
        σ, standard errors of ln y.
    level : float, optional
        Coverage of the interval of b.

    Returns
    -------
    xarray.Dataset
        ``exponent`` b with ``_standard_error``, ``_lower`` and ``_upper`` (normal, since errors are known), ``prefactor`` a,
        ``chi_squared``, ``p_value`` of as bad a fit by chance, and ``verdict``: "power law", "no dependence seen" where the
        interval of b holds 0, or "no power law" where p is below 1 − `level`.

    Raises
    ------
    EstimationRefused
        For fewer than three sizes, through which a line always goes.
    ConfigurationError
        If they are no positive numbers of one shape; none is left out.

    Examples
    --------
    >>> fit = fit_power_law([10, 20, 40, 80], [3.1, 6.0, 12.2, 23.5], [0.05] * 4)
    >>> round(fit.exponent.item(), 2), fit.verdict.item()
    (0.98, 'power law')
    """
    given = {"sizes": sizes, "values": values, "relative_errors": relative_errors}
    arrays = {name: numbers(name, each, "positive numbers (size,)") for name, each in given.items()}
    size, value, error = arrays.values()
    if size.ndim != 1 or value.shape != size.shape or error.shape != size.shape:
        raise ConfigurationError(
            f"sizes, values and relative_errors have shapes {size.shape}, {value.shape} and {error.shape}: expected three of "
            "(size,)"
        )
    number("level", level, "a number between 0 and 1, the coverage of the interval", above=0, below=1)
    refused = [
        f"{name}[{place}] = {each[place]:g}" for name, each in arrays.items() for place in np.flatnonzero(each <= 0)
    ]
    if refused:
        raise ConfigurationError(
            f"{', '.join(refused)}: expected positive numbers, which have logarithms, with errors above 0; a value "
            "that its error reaches below 0 says little of a power law, but leaving it out favours what is left: leave out "
            "its whole size, and say so, or fit a law that has negative values"
        )
    if len(np.unique(size)) < 3:
        raise EstimationRefused(
            f"{len(np.unique(size))} sizes: expected at least 3 sizes, since a line goes through any two points; measure "
            "more of them",
            sizes=len(np.unique(size)),
            needed=3,
        )
    x, y, w = np.log(size), np.log(value), 1 / error**2
    centre = np.average(x, weights=w)
    spread = float((w * (x - centre) ** 2).sum())
    exponent = float((w * (x - centre) * y).sum() / spread)
    offset = float(np.average(y, weights=w) - exponent * centre)
    deviation = spread**-0.5
    chi_squared = float((w * (y - offset - exponent * x) ** 2).sum())
    p_value = float(chdtrc(len(x) - 2, chi_squared))
    half = float(ndtri(0.5 + level / 2)) * deviation
    verdict = "power law"
    if p_value < 1 - level:
        verdict = "no power law"
    elif abs(exponent) <= half:
        verdict = "no dependence seen"
    found = {
        "exponent": exponent,
        "exponent_standard_error": deviation,
        "exponent_lower": exponent - half,
        "exponent_upper": exponent + half,
        "prefactor": float(np.exp(offset)),
        "chi_squared": chi_squared,
        "p_value": p_value,
        "verdict": verdict,
    }
    return xr.Dataset({name: ((), each) for name, each in found.items()})


def collapse_distance(one: Any, other: Any) -> xr.Dataset:
    """Return how far apart two ensembles of curves are, in units of the spread between replicas.

    At record k, with means m, n and variances s², v² over R and Q replicas, z_k² = (m − n)²/(s²/R + v²/Q) is 1 on average for
    ensembles of one law, and

        d² = Σ_k [(m − n)² − s²/R − v²/Q] / Σ_k ½ (s² + v²)

    is an unbiased squared distance, relative to the variance between replicas: 0 for one law, 1 where the curves are as far
    apart as replicas are, infinite where replicas do not differ and the ensembles do. The error is that of a jackknife over
    replicas; for ensembles of one law, whose squares are all that is left, it is about 1.5 times too large.

    Parameters
    ----------
    one, other : array, shape (replica, record)
        The curves, at common records; independent of each other, from seeds of their own.

    Returns
    -------
    xarray.Dataset
        ``squared_distance`` with ``_standard_error``; ``deviation`` (record): (m − n) in units of its standard error.

    Raises
    ------
    EstimationRefused
        For fewer than three replicas, of which a jackknife leaves out one.
    ConfigurationError
        If they are no numbers.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> a, b = generator.standard_normal((2, 50, 100))
    >>> bool(abs(collapse_distance(a, b).squared_distance) < 0.02), bool(collapse_distance(a, b + 1).squared_distance > 0.9)
    (True, True)
    """
    first, second = (
        numbers(name, each, "an array (replica, record)") for name, each in (("one", one), ("other", other))
    )
    if first.ndim < 2 or second.ndim < 2:
        raise ConfigurationError(
            f"curves of shapes {first.shape} and {second.shape}: expected (replica, record), since ensembles are held "
            "against the spread between their replicas; pass a row for each replica"
        )
    if min(len(first), len(second)) < 3 or first.shape[1:] != second.shape[1:]:
        raise EstimationRefused(
            f"curves of shapes {first.shape} and {second.shape}: expected (replica, record) with at least 3 replicas each "
            "and the same records, since replicas are left out one by one; simulate more",
            replicas=min(len(first), len(second)),
            needed=3,
        )
    squared = _squared_distance(first, second)
    left_out = [
        [_squared_distance(np.delete(first, k, 0), second) for k in range(len(first))],
        [_squared_distance(first, np.delete(second, k, 0)) for k in range(len(second))],
    ]
    with np.errstate(invalid="ignore"):  # of infinite distances
        error_of_square = np.hypot(*(jackknife_error(np.array(each)) for each in left_out))
    error = np.sqrt(first.var(0, ddof=1) / len(first) + second.var(0, ddof=1) / len(second))
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = (first.mean(0) - second.mean(0)) / error
    return xr.Dataset(
        {
            "squared_distance": ((), squared),
            "squared_distance_standard_error": ((), float(error_of_square)),
            "deviation": ("record", deviation),
        }
    )


def _squared_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    noise = one.var(0, ddof=1), other.var(0, ddof=1)
    excess = (one.mean(0) - other.mean(0)) ** 2 - noise[0] / len(one) - noise[1] / len(other)
    total = float((noise[0] + noise[1]).sum()) / 2
    if total > 0:
        return float(excess.sum()) / total
    return float("inf") if excess.any() else 0.0  # replicas that do not differ at all
