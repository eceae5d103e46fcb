"""The drift of a surrogate for the compiled integrators."""

from __future__ import annotations

import numpy as np
from numba import float32, float64

from langevin_nn.kernels.cache import cached
from langevin_nn.kernels.fields import TILE, signatures
from langevin_nn.kernels.normals import LANES

__all__ = ["affine"]


@cached([signatures(real)[TILE] for real in (float64, float32)], error_model="numpy")
def affine(x, constants, out):  # type: ignore[no-untyped-def]
    """Write g + H x, also where no x makes it zero.

    Parameters
    ----------
    x : ndarray, shape (parameter, lane)
        Where.
    constants : ndarray
        H row by row, then g.
    out : ndarray, shape (parameter, lane)
        The field.
    """
    n = x.shape[0]
    np.dot(constants[: n * n].reshape(n, n), x, out)
    for i in range(n):
        for lane in range(LANES):
            out[i, lane] += constants[n * n + i]
