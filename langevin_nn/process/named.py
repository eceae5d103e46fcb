"""Processes worth a name: each takes a landscape, a learning rate and a batch size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Literal

from langevin_nn.checks import is_number, number, truth
from langevin_nn.landscape import Landscape
from langevin_nn.noise import (
    SVAG,
    IndependentMinibatches,
    IsotropicNoise,
    LowRankNoise,
    MatchedGaussian,
    ShuffledMinibatches,
    Silent,
)
from langevin_nn.process.base import Process
from langevin_nn.update import Momentum, Plain, Update

__all__ = ["PROCESSES", "frozen_langevin", "gradient_descent", "isotropic_langevin", "langevin", "sgd", "svag"]


def _update(momentum: float, weight_decay: float) -> Update:
    none = is_number(momentum, Real) and momentum == 0
    return Plain(weight_decay) if none else Momentum(momentum, weight_decay)


def sgd(
    landscape: Landscape,
    learning_rate: float,
    batch_size: int,
    *,
    independent: bool = False,
    replacement: bool = False,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Process:
    """Return minibatch stochastic gradient descent, with shuffled epochs as practised.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float
        α, in units of time.
    batch_size : int
        B.
    independent : bool, optional
        Whether to draw each minibatch independently rather than to shuffle epochs.
    replacement : bool, optional
        Whether independent minibatches are drawn with replacement.
    momentum : float, optional
        μ; `time` stays Σ α.
    weight_decay : float, optional
        λ, in units of 1/time.

    Returns
    -------
    Process
        Named "sgd", or "independent_sgd".
    """
    replacement = truth("replacement", replacement, "whether a sample may come twice in a minibatch")
    draws = truth("independent", independent, "whether each minibatch is drawn independently") or replacement
    noise = IndependentMinibatches(batch_size, replacement) if draws else ShuffledMinibatches(batch_size)
    name = "independent_sgd" if draws else "sgd"
    return Process(landscape, noise, learning_rate, update=_update(momentum, weight_decay), name=name)


def langevin(
    landscape: Landscape,
    learning_rate: float,
    batch_size: int,
    *,
    time_step: float = 0.0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Process:
    """Return Langevin dynamics with Gaussian noise of exactly SGD's covariance, anisotropic and state-dependent.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float
        α, in units of time; sets the noise.
    batch_size : int
        B of the minibatches whose covariance the noise takes.
    time_step : float, optional
        Δt of the discretisation; 0, the default, stands for α.
    momentum : float, optional
        μ.
    weight_decay : float, optional
        λ, in units of 1/time.

    Returns
    -------
    Process
        Named "langevin".
    """
    update = _update(momentum, weight_decay)
    noise = MatchedGaussian(batch_size)
    return Process(landscape, noise, learning_rate, update=update, time_step=time_step, name="langevin")


def isotropic_langevin(
    landscape: Landscape,
    learning_rate: float,
    batch_size: int,
    *,
    refresh_every: int | None = None,
    time_step: float = 0.0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Process:
    """Return Langevin dynamics with isotropic noise whose trace is held to Tr C.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float
        α, in units of time; sets the noise.
    batch_size : int
        B of the minibatches whose trace the noise takes.
    refresh_every : int, optional
        Updates between measurements of Tr C; N // B unless said, which is one epoch at Δt = α only. The recorded
        strength is that of the trace in use, at most one interval old.
    time_step : float, optional
        Δt of the discretisation; 0, the default, stands for α.
    momentum : float, optional
        μ.
    weight_decay : float, optional
        λ, in units of 1/time.

    Returns
    -------
    Process
        Named "isotropic_langevin".
    """
    update = _update(momentum, weight_decay)
    noise = IsotropicNoise(batch_size, refresh_every)
    return Process(landscape, noise, learning_rate, update=update, time_step=time_step, name="isotropic_langevin")


def frozen_langevin(
    landscape: Landscape,
    learning_rate: float,
    batch_size: int,
    rank: int = 20,
    *,
    refresh_every: int | None = None,
    remainder: Literal["isotropic", "none"] = "isotropic",
    time_step: float = 0.0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Process:
    """Return Langevin dynamics whose noise is the leading part of C at an earlier point, frozen between refreshes.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float
        α, in units of time; sets the noise.
    batch_size : int
        B of the minibatches whose covariance the noise takes.
    rank : int, optional
        Leading directions that are kept.
    refresh_every : int, optional
        Updates between measurements of C; N // B unless said, which is one epoch at Δt = α only. A number larger than the
        run freezes the noise at the start.
    remainder : {"isotropic", "none"}, optional
        Whether the lost trace is spread evenly over the other directions, or left out.
    time_step : float, optional
        Δt of the discretisation; 0, the default, stands for α.
    momentum : float, optional
        μ.
    weight_decay : float, optional
        λ, in units of 1/time.

    Returns
    -------
    Process
        Named "frozen_langevin".
    """
    update = _update(momentum, weight_decay)
    noise = LowRankNoise(batch_size, rank, refresh_every, remainder)
    return Process(landscape, noise, learning_rate, update=update, time_step=time_step, name="frozen_langevin")


def svag(
    landscape: Landscape,
    learning_rate: float,
    batch_size: int,
    amplification: int = 4,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Process:
    """Return SVAG, whose noise is made of minibatches and tends to that of the stochastic differential equation.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float
        α, in units of time; sets the noise.
    batch_size : int
        B of the minibatches, of which each update takes two.
    amplification : int, optional
        l, updates in the time of one of SGD's: Δt = α/l, and an epoch takes l times as many updates.
    momentum : float, optional
        μ.
    weight_decay : float, optional
        λ, in units of 1/time.

    Returns
    -------
    Process
        Named "svag".
    """
    noise = SVAG(batch_size, amplification)
    rate = number("learning_rate", learning_rate, "a positive, finite number, the time of one update", above=0)
    update = _update(momentum, weight_decay)
    return Process(landscape, noise, rate, update=update, time_step=rate / noise.amplification, name="svag")


def gradient_descent(
    landscape: Landscape,
    learning_rate: float,
    batch_size: int | None = None,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Process:
    """Return gradient descent over the whole training set.

    Parameters
    ----------
    landscape : Landscape
        Any.
    learning_rate : float
        α, in units of time.
    batch_size : int, optional
        B of the process that it stands beside, for which order parameters and epochs are counted.
    momentum : float, optional
        μ.
    weight_decay : float, optional
        λ, in units of 1/time.

    Returns
    -------
    Process
        Named "gradient_descent".
    """
    return Process(
        landscape,
        Silent(batch_size),
        learning_rate,
        update=_update(momentum, weight_decay),
        name="gradient_descent",
    )


PROCESSES: dict[str, Callable[..., Process]] = {
    "sgd": sgd,
    "langevin": langevin,
    "isotropic_langevin": isotropic_langevin,
    "frozen_langevin": frozen_langevin,
    "svag": svag,
    "gradient_descent": gradient_descent,
    "independent_sgd": partial(sgd, independent=True),
}
