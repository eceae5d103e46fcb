"""Linear systems dx = −A x dt + F dW with Q = F Fᵀ: stationary law, probability current, entropy production."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_continuous_lyapunov

from langevin_nn.errors import ConfigurationError

__all__ = ["circulation", "entropy_production_rate", "stationary_covariance"]


def _checked(matrix: ArrayLike, noise: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, q = np.array(matrix, dtype=np.float64), np.array(noise, dtype=np.float64)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or q.shape != a.shape:
        raise ConfigurationError(
            f"matrix of shape {a.shape} and noise of shape {q.shape} came: expected two of (parameter, parameter)"
        )
    slowest = float(np.linalg.eigvals(a).real.min())
    if slowest <= 0:
        raise ConfigurationError(
            f"an eigenvalue of the matrix has the real part {slowest:g}: expected all positive, since there is no stationary "
            "law where something does not decay"
        )
    return a, q


def stationary_covariance(matrix: ArrayLike, noise: ArrayLike) -> NDArray[np.float64]:
    """Return the stationary covariance S, A S + S Aᵀ = Q.

    Parameters
    ----------
    matrix : array, shape (parameter, parameter)
        A, in units of 1/time.
    noise : array, shape (parameter, parameter)
        Q = F Fᵀ; for gradient noise α C.

    Returns
    -------
    ndarray, shape (parameter, parameter)
        S; see Gardiner (2009, ISBN 978-3-540-70712-7), section 4.5.

    Raises
    ------
    ConfigurationError
        If shapes disagree or something does not decay.

    Examples
    --------
    >>> stationary_covariance([[2.0]], [[3.0]])
    array([[0.75]])
    """
    a, q = _checked(matrix, noise)
    return np.asarray(solve_continuous_lyapunov(a, q))


def circulation(matrix: ArrayLike, noise: ArrayLike) -> NDArray[np.float64]:
    """Return the rate ⟨x_i dx_j − x_j dx_i⟩/dt at which the stationary process goes around: A S − S Aᵀ.

    It is twice the area that is enclosed in the (i, j) plane per time, and vanishes in every plane where, and only where,
    detailed balance holds: A S symmetric. In a potential, with A = H, that is noise that commutes with the Hessian.

    Parameters
    ----------
    matrix : array, shape (parameter, parameter)
        A.
    noise : array, shape (parameter, parameter)
        Q.

    Returns
    -------
    ndarray, shape (parameter, parameter)
        Antisymmetric.

    Examples
    --------
    >>> circulation([[1.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [0.0, 1.0]]).round(12)
    array([[0., 0.],
           [0., 0.]])
    """
    a, _ = _checked(matrix, noise)
    rate = a @ stationary_covariance(matrix, noise)
    return np.asarray(rate - rate.T)


def entropy_production_rate(matrix: ArrayLike, noise: ArrayLike) -> float:
    """Return the rate at which the stationary process makes entropy: Tr(Aᵀ D⁻¹ A S) − Tr A, with D = Q/2.

    ⟨vᵀ D⁻¹ v⟩ of the velocity v = (D S⁻¹ − A) x of the probability current; see Seifert (2012, doi
    10.1088/0034-4885/75/12/126001), and Chaudhari & Soatto (2018, arXiv:1710.11029) for what it means for SGD.

    Parameters
    ----------
    matrix : array, shape (parameter, parameter)
        A.
    noise : array, shape (parameter, parameter)
        Q, of full rank.

    Returns
    -------
    float
        In units of 1/time; 0 where detailed balance holds.

    Examples
    --------
    Rotation by ω in an isotropic bowl of curvature k makes 2ω²/k:

    >>> round(entropy_production_rate([[1.0, -3.0], [3.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]), 9)
    18.0
    """
    a, q = _checked(matrix, noise)
    covariance = stationary_covariance(matrix, noise)
    return float(np.trace(a.T @ np.linalg.solve(q / 2, a) @ covariance) - np.trace(a))
