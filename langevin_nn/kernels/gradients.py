"""Gradients of built-in potentials, for the integrators: (position, data, out)."""

from __future__ import annotations

from numba import njit

__all__ = ["quadratic_gradient"]


@njit("void(float64[::1], float64[::1], float64[::1])", cache=True)
def quadratic_gradient(position, data, out):
    """Write H (x − x*) into `out`.

    Parameters
    ----------
    position : ndarray of float64, shape (parameter,)
        x.
    data : ndarray of float64
        H row by row, then x*.
    out : ndarray of float64, shape (parameter,)
        The result.
    """
    n = position.shape[0]
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += data[i * n + j] * (position[j] - data[n * n + j])
        out[i] = total
