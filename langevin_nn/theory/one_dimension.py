"""One-dimensional diffusions dx = b(x) dt + s(x) dW in Itô's sense: stationary density and passage times by quadrature."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import cumulative_trapezoid

from langevin_nn.checks import number, numbers
from langevin_nn.errors import ConfigurationError

__all__ = ["mean_first_passage_time", "stationary_density"]

Array = NDArray[np.float64]


def _scale(grid: ArrayLike, drift: ArrayLike, amplitude: ArrayLike) -> tuple[Array, Array, Array]:
    """Return the grid, Φ = −∫ 2b/s² dx and s²."""
    named = {"grid": grid, "drift": drift, "amplitude": amplitude}
    x, b, s = (numbers(name, each, "finite numbers (point,)") for name, each in named.items())
    if x.ndim != 1 or len(x) < 3 or b.shape != x.shape or s.shape != x.shape or (np.diff(x) <= 0).any():
        raise ConfigurationError(
            f"grid, drift and amplitude of shapes {x.shape}, {b.shape} and {s.shape} came: expected three of (point,), at "
            "least 3 points, the grid increasing"
        )
    if not (s > 0).all():
        raise ConfigurationError(
            "an amplitude is not positive: expected noise everywhere, without which nothing passes"
        )
    squared = s**2
    return x, -cumulative_trapezoid(2 * b / squared, x, initial=0), squared


def stationary_density(grid: ArrayLike, drift: ArrayLike, amplitude: ArrayLike) -> Array:
    """Return p(x) ∝ exp(∫ 2b/s² dx)/s² on a grid, reflected at its ends.

    Parameters
    ----------
    grid : array, shape (point,)
        Increasing, fine against everything, wide enough to hold the law.
    drift, amplitude : array, shape (point,)
        b and s there.

    Returns
    -------
    ndarray, shape (point,)
        Normalised by the trapezoidal rule; see Gardiner (2009, ISBN 978-3-540-70712-7), section 5.2.

    Raises
    ------
    ConfigurationError
        If shapes disagree, the grid does not increase or noise vanishes.

    Examples
    --------
    >>> x = np.linspace(-8, 8, 4001)
    >>> p = stationary_density(x, -x, np.full_like(x, 2**0.5))
    >>> round(float(np.trapezoid(p * x**2, x)), 6)
    1.0
    """
    x, potential, squared = _scale(grid, drift, amplitude)
    density = np.exp(-(potential - potential.min())) / squared
    return np.asarray(density / np.trapezoid(density, x))


def mean_first_passage_time(grid: ArrayLike, drift: ArrayLike, amplitude: ArrayLike, start: float, end: float) -> float:
    """Return the mean time from one point to another, either way: ∫ e^Φ dy ∫ 2 e^−Φ/s² dz.

    Parameters
    ----------
    grid, drift, amplitude : array, shape (point,)
        As for `stationary_density`; the far end reflects.
    start, end : float
        From where to where, within the grid.

    Returns
    -------
    float
        Exact but for the quadrature; see Gardiner (2009, ISBN 978-3-540-70712-7), section 5.5.

    Raises
    ------
    ConfigurationError
        If the points lie outside the grid, or as for `stationary_density`.

    Examples
    --------
    Free diffusion from a reflecting wall over a distance a takes a²/s²:

    >>> x = np.linspace(0, 1, 2001)
    >>> round(mean_first_passage_time(x, 0 * x, 0 * x + 0.5, start=0.0, end=1.0), 6)
    4.0
    """
    x, potential, squared = _scale(grid, drift, amplitude)
    start, end = (number(name, each, "a point within the grid") for name, each in (("start", start), ("end", end)))
    if not (x[0] <= min(start, end) and max(start, end) <= x[-1]):
        raise ConfigurationError(
            f"start={start} and end={end} came with a grid from {x[0]:g} to {x[-1]:g}: expected both within it"
        )
    if end < start:  # the mirror image
        b, s = (np.array(each, dtype=np.float64)[::-1] for each in (drift, amplitude))
        return mean_first_passage_time(-x[::-1], -b, s, -start, -end)
    # In logarithms: barriers of hundreds of temperatures are beyond a float's range.
    inner = _log_integral(np.log(2 / squared) - potential, x)
    outer = _log_integral(potential + inner, x)
    to_end, to_start = (float(np.interp(point, x, outer)) for point in (end, start))
    with np.errstate(over="ignore"):
        return float(np.exp(to_end) - np.exp(to_start)) if to_end < 700 else float("inf")


def _log_integral(values: Array, x: Array) -> Array:
    """Return log ∫ exp(values) dx from the left end, by the trapezoidal rule; next to −∞ at that end."""
    pieces = np.logaddexp(values[:-1], values[1:]) + np.log(np.diff(x) / 2)
    return np.concatenate([[-1e300], np.logaddexp.accumulate(pieces)])
