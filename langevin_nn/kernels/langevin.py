"""Euler–Maruyama steps of many replicas in a landscape with a compiled gradient and constant noise."""

from __future__ import annotations

import numpy as np
from numba import float64, int64, njit, types, void

__all__ = ["GRADIENT", "euler_maruyama"]

# (position, data, out); a declared function type is compiled once, whichever landscape is passed.
GRADIENT = types.FunctionType(void(float64[::1], float64[::1], float64[::1]))


@njit(
    int64[::1](GRADIENT, float64[::1], float64[:, ::1], float64[:, :, ::1], float64[:, ::1], float64, float64),
    cache=True,
)
def euler_maruyama(gradient, data, positions, normals, factor, time_step, noise_scale):
    """Advance positions in place: x ← x − Δt ∇L(x) − noise_scale · F ξ.

    Parameters
    ----------
    gradient : compiled function
        (position, data, out): writes ∇L at `position` into `out`.
    data : ndarray of float64
        What the gradient needs.
    positions : ndarray of float64, shape (replica, parameter)
        Changed in place.
    normals : ndarray of float64, shape (replica, step, rank)
        The ξ of each step.
    factor : ndarray of float64, shape (parameter, rank)
        F.
    time_step : float
        Δt.
    noise_scale : float
        √(α Δt).

    Returns
    -------
    ndarray of int64, shape (replica,)
        Step of the block after which the replica was not finite, −1 for never.
    """
    n_replicas, n_parameters = positions.shape
    slope = np.empty(n_parameters)
    failed = np.full(n_replicas, -1)
    for replica in range(n_replicas):
        position = positions[replica]
        for step in range(normals.shape[1]):
            gradient(position, data, slope)
            total = 0.0
            for i in range(n_parameters):
                kick = 0.0
                for j in range(factor.shape[1]):
                    kick += factor[i, j] * normals[replica, step, j]
                position[i] -= time_step * slope[i] + noise_scale * kick
                total += position[i]
            if not np.isfinite(total):
                failed[replica] = step
                break
    return failed
