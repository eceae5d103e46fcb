"""Updates w ← w − α (g + H w + η) from a fixed start: mean and covariance after a number of them, to all orders in α."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langevin_nn.checks import covariance, number, point, symmetric, whole_number
from langevin_nn.errors import ConfigurationError

__all__ = ["covariance_after", "mean_after"]

Floats = NDArray[np.float64]


def _modes(hessian: ArrayLike, learning_rate: float, steps: float) -> tuple[Floats, Floats, float]:
    """Return 1 − αh of each eigenvector of H, the eigenvectors in columns, and α; raise where no law is asked for."""
    expected = "a positive number α, the factor of the gradient in an update"
    rate = number("learning_rate", learning_rate, expected, above=0)
    if steps != inf:
        expected = "a whole number (int) of updates from 0, or infinity for the stationary law"
        whole_number("steps", steps, expected, least=0)
    curvatures, vectors = np.linalg.eigh(symmetric("hessian", hessian))
    ratio = 1 - rate * curvatures
    if steps == inf and (np.abs(ratio) >= 1).any():
        raise ConfigurationError(
            f"no stationary law at learning_rate={rate:g} with curvatures from {curvatures[0]:g} to {curvatures[-1]:g}: "
            "expected all above 0 and below 2/α; ask for a finite number of steps, or leave the other directions out"
        )
    return ratio, vectors, rate


def _geometric(ratio: Floats, count: float) -> Floats:
    """Return Σ_{s<count} ratio^s; the endless sum for an infinite count."""
    gap = 1 - ratio
    level = np.abs(gap) < 1e-13
    with np.errstate(over="ignore"):
        rest = np.zeros_like(ratio) if count == inf else ratio**count
    return np.where(level, count, (1 - rest) / np.where(level, 1, gap))


def mean_after(gradient: ArrayLike, hessian: ArrayLike, learning_rate: float, steps: float) -> Floats:
    """Return the mean displacement −α Σ_{s<n} (I − αH)^s g from a start with gradient g.

    Parameters
    ----------
    gradient : array, shape (parameter,)
        g at the start.
    hessian : array, shape (parameter, parameter)
        H, symmetric, of any sign.
    learning_rate, steps : float and int
        α and n, in updates; ``inf`` for where it ends.

    Returns
    -------
    ndarray, shape (parameter,)
        The displacement.

    Raises
    ------
    ConfigurationError
        If an argument makes no sense, or it does not end where the end is asked for.

    Examples
    --------
    >>> mean_after([1.0, 1.0], np.diag([0.0, 5.0]), 0.1, steps=2)
    array([-0.2 , -0.15])
    """
    ratio, vectors, rate = _modes(hessian, learning_rate, steps)
    along = vectors.T @ point("gradient", gradient, len(ratio))
    return np.asarray(-rate * vectors @ (_geometric(ratio, steps) * along))


def covariance_after(
    hessian: ArrayLike,
    noise: ArrayLike,
    learning_rate: float,
    steps: float,
    *,
    lag: int = 0,
    updates_per_epoch: float | None = None,
) -> Floats:
    """Return the covariance of w after n updates from a fixed start, with noise of constant covariance C.

    Independent draws: S_n = α² Σ_{s<n} M^s C M^s, M = I − αH, which tends to the solution of the discrete Lyapunov
    equation S = M S M + α² C where that has one, and grows for ever along directions of curvature 0 and below. Shuffled
    epochs: two minibatches of one epoch covary as −C B/(N − B), so that along flat directions their noise cancels within each
    epoch; see Kühn & Rosenow (2023, arXiv:2306.05300). Exact where gradients are linear in w and C is the same everywhere.

    Parameters
    ----------
    hessian, noise : array, shape (parameter, parameter)
        H, symmetric, of any sign, and C of one minibatch.
    learning_rate, steps : float and int
        α and n, in updates; ``inf`` for the stationary law, of epochs between two of them.
    lag : int, optional
        s: covariance of w after n + s updates (rows) with w after n (columns), M^s S_n for independent draws.
    updates_per_epoch : float, optional
        N/B, above 1, where epochs are shuffled: the start is between two epochs, and a remainder of N mod B is dropped.

    Returns
    -------
    ndarray, shape (parameter, parameter)
        S_n, or with a lag ⟨w_{n+s} w_nᵀ⟩ about the means.

    Raises
    ------
    ConfigurationError
        If an argument makes no sense (the noise is no covariance, steps are no whole number), the stationary law is asked
        for where there is none, or there is no such epoch.

    Examples
    --------
    >>> covariance_after([[0.0]], [[1.0]], 0.1, steps=4).round(6)  # diffusion: α² n
    array([[0.04]])
    >>> covariance_after([[0.0]], [[1.0]], 0.1, steps=4, updates_per_epoch=4).round(6)  # an epoch adds to nothing
    array([[0.]])
    """
    if updates_per_epoch is not None and not 1 < updates_per_epoch < inf:
        raise ConfigurationError(
            f"updates_per_epoch={updates_per_epoch!r}: expected N/B, a finite number above 1, since the minibatches of an "
            "epoch share its samples; leave it out for independent draws"
        )
    ratio, vectors, rate = _modes(hessian, learning_rate, steps)
    lag = whole_number("lag", lag, "a whole number (int) of updates from 0, between the two moments", least=0)
    kicks = rate**2 * vectors.T @ covariance("noise", noise, len(ratio)) @ vectors
    pairs = np.outer(ratio, ratio)
    if updates_per_epoch is None:
        here = kicks * _geometric(pairs, steps)
        return np.asarray(vectors @ (ratio[:, None] ** lag * here) @ vectors.T)
    length = int(updates_per_epoch)
    shared = 1 / (updates_per_epoch - 1)

    def within(count: int) -> Floats:
        """Return what the first updates of an epoch add."""
        sums = _geometric(ratio, count)
        return kicks * ((1 + shared) * _geometric(pairs, count) - shared * np.outer(sums, sums))

    epochs, rest = (inf, 0) if steps == inf else divmod(int(steps), length)
    whole = within(length) * _geometric(pairs**length, epochs)
    here = pairs**rest * whole + within(rest)
    # What is left of the epoch takes back a part of what it has done.
    ahead = min(lag, length - rest) if rest else 0
    back = shared * kicks * np.outer(ratio ** (lag - ahead) * _geometric(ratio, ahead), _geometric(ratio, rest))
    return np.asarray(vectors @ (ratio[:, None] ** lag * here - back) @ vectors.T)
