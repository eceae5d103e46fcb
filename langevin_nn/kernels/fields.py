"""Fields on weight space for the integrators, however `langevin_nn.formulas` gives them; potentials always in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, float64, njit, void

from langevin_nn.formulas import MATRIX, POINT, POTENTIAL, TILE
from langevin_nn.kernels.cache import cached

__all__ = [
    "TILES",
    "no_matrix",
    "no_point",
    "no_potential",
    "no_tile",
    "signatures",
    "write_differences",
    "write_field",
]

# Size of a difference, relative to a coordinate beyond 1: rounding and truncation are both near 1e-10 of the scale.
DIFFERENCE = 6e-6

_BOTH = (float64, float32)


def signatures(real: Any) -> dict[int, Any]:
    """Return the signatures of the four kinds of function in a precision."""
    return {
        TILE: void(real[:, ::1], real[::1], real[:, ::1]),
        POINT: void(real[::1], real[::1]),
        POTENTIAL: float64(float64[::1]),
        MATRIX: void(real[::1], real[:, ::1]),
    }


TILES = [signatures(real)[TILE] for real in _BOTH]


@cached(TILES, error_model="numpy")
def no_tile(x, constants, out):
    """Stand where there is no tile function."""
    out[:] = 0


@cached([signatures(real)[POINT] for real in _BOTH])
def no_point(x, out):
    """Stand where there is no function of a point."""
    out[:] = 0


@cached([signatures(real)[MATRIX] for real in _BOTH])
def no_matrix(x, out):
    """Stand where there is no matrix-valued function."""
    out[:] = 0


@cached(signatures(float64)[POTENTIAL])
def no_potential(x):
    """Stand where there is no potential."""
    return 0.0


@njit(error_model="numpy")
def write_differences(potential, here, out):
    """Write central differences.

    Parameters
    ----------
    potential : compiled function
        Of a point.
    here : ndarray of float64, shape (parameter,)
        Where; overwritten in between.
    out : ndarray of float64, shape (parameter,)
        The gradient.
    """
    for i in range(here.shape[0]):
        centre = here[i]
        size = DIFFERENCE * max(1.0, abs(centre))
        here[i] = centre + size
        above, high = potential(here), here[i]
        here[i] = centre - size
        below, low = potential(here), here[i]
        out[i] = (above - below) / (high - low)
        here[i] = centre


@njit(error_model="numpy")
def write_field(kind, tile, point, potential, constants, x, count, out):
    """Write a field over a tile, however it is given; the first `count` lanes hold replicas."""
    if kind == TILE:
        tile(x, constants, out)
    elif kind == POINT:
        here, there = np.empty(x.shape[0], x.dtype), np.empty(x.shape[0], x.dtype)
        for lane in range(count):
            for i in range(x.shape[0]):
                here[i] = x[i, lane]
            there[:] = np.nan  # what a function leaves out, or does not come to, shows
            point(here, there)
            for i in range(x.shape[0]):
                out[i, lane] = there[i]
    else:
        near, slope = np.empty(x.shape[0]), np.empty(x.shape[0])
        for lane in range(count):
            for i in range(x.shape[0]):
                near[i] = x[i, lane]
            write_differences(potential, near, slope)
            for i in range(x.shape[0]):
                out[i, lane] = slope[i]
