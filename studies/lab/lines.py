"""Lines through the values of each replica, by least squares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["explained", "slopes"]

Floats = NDArray[np.float64]


def slopes(positions: Floats, values: Floats, chosen: NDArray[np.bool_] | slice = slice(None)) -> Floats:
    """Return the slope of the straight line through each row, by least squares.

    Parameters
    ----------
    positions : array, shape (position,) or (replica, position)
        Where.
    values : array, shape (replica, position)
        What; NaN is left out.
    chosen : array of bool, shape (position,), optional
        Which of them.

    Returns
    -------
    ndarray, shape (replica,)
        NaN with fewer than 3 values.

    Examples
    --------
    >>> slopes(np.array([0.0, 1.0, 2.0, 3.0]), np.array([[1.0, 3.0, np.nan, 7.0]])).round(6)
    array([2.])
    """
    everywhere = np.broadcast_to(positions, values.shape)[:, chosen]
    return _by_row(lambda x, y: float(np.polyfit(x, y, 1)[0]), everywhere, values[:, chosen])


def explained(positions: Floats, values: Floats, degree: int = 1) -> Floats:
    """Return the share of the variance of each row that a polynomial explains.

    Parameters
    ----------
    positions : array, shape (position,) or (replica, position)
        Where.
    values : array, shape (replica, position)
        What; NaN is left out.
    degree : int, optional
        Of the polynomial; a straight line unless given.

    Returns
    -------
    ndarray, shape (replica,)
        From 0 to 1; NaN with fewer than 3 values.

    Examples
    --------
    >>> x = np.linspace(0, 1, 1001)
    >>> explained(x, np.stack([1 - 2 * x, x**2, np.sqrt(x)])).round(2)
    array([1.  , 0.94, 0.96])
    """

    def share(x: Floats, y: Floats) -> float:
        rest = y - np.polyval(np.polyfit(x, y, degree), x)
        return float(1 - (rest @ rest) / ((y - y.mean()) @ (y - y.mean()))) if np.ptp(y) > 0 else np.nan

    return _by_row(share, np.broadcast_to(positions, values.shape), values)


def _by_row(measure: Callable[[Floats, Floats], float], positions: Floats, values: Floats) -> Floats:
    rows = []
    for x, y in zip(positions, values, strict=True):
        known = np.isfinite(y)
        rows.append(measure(x[known], y[known]) if known.sum() >= 3 else np.nan)
    return np.array(rows)
