"""Numba kernels: plain loops over arrays, compiled once and cached.

They know nothing of landscapes or processes. ``python -m langevin_nn.kernels`` compiles all of them, so that no later run
waits for it.
"""

from __future__ import annotations

import numpy as np

__all__ = ["compile_all"]


def compile_all() -> None:
    """Compile every kernel into the cache on disk; takes seconds the first time and no time after."""
    from langevin_nn import formulas
    from langevin_nn.kernels import compilation, falls, langevin, perceptron

    for precision in (np.float64, np.float32):
        langevin.kernel(np.dtype(precision))
    for name in ("affine", "confinement", "diagonal_linear", "linear", "regression_factor"):
        compilation.tile(getattr(formulas, name))
    single, one = np.zeros((1, 4), np.float32), np.ones((1, 1), np.float32)
    rows, widths = np.zeros((1, 1), np.int64), np.array([1, 2])
    perceptron.weighted_gradient(single, one, rows, rows, one, widths, formulas.RELU, np.empty_like(single))
    falls.fall_statistics(falls.autoregressive(np.zeros((1, 7)), 0.5))
    zero = np.float32(0)
    perceptron.descend(single, single[:0], one, rows, rows[None], one[0], zero, zero, widths, formulas.RELU)
