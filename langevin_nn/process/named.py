"""Processes worth a name: each takes a landscape, a learning rate and a batch size."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from numbers import Real
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import numpy as np
import torch

from langevin_nn.checks import is_number, number, shown, truth
from langevin_nn.drift import Drift
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import Landscape
from langevin_nn.noise import (
    SVAG,
    IndependentMinibatches,
    IsotropicNoise,
    LowRankNoise,
    MatchedGaussian,
    Noise,
    PreconditionedThermalNoise,
    ShuffledMinibatches,
    Silent,
    ThermalNoise,
)
from langevin_nn.process.base import Process
from langevin_nn.rates import Rate, Slowed, Times
from langevin_nn.update import Momentum, Plain, Preconditioned, UnderdampedLangevin, Update
from langevin_nn.update.wrapped import Wrapped

__all__ = [
    "PROCESSES",
    "frozen_langevin",
    "gradient_descent",
    "isotropic_langevin",
    "langevin",
    "sgd",
    "sghmc",
    "sgld",
    "svag",
]


class Options(TypedDict, total=False):
    """What all factories take besides."""

    update: Update | None
    momentum: float
    weight_decay: float
    drift: Drift | None
    time_step: float | Rate
    name: str | None


_DEFAULTS = {"update": None, "momentum": 0.0, "weight_decay": 0.0, "drift": None, "time_step": 0.0, "name": None}
_SHARED = """    update : Update, optional
        The update rule; plain steps unless said.
    momentum : float, optional
        μ, in short for ``update=Momentum(μ, λ)``; `time` stays Σ α.
    weight_decay : float, optional
        λ, in units of 1/time, in short for ``update=Plain(λ)``.
    drift : Drift, optional
        The gradient of `landscape` unless said.
    time_step : float or Rate, optional
        Δt of the discretisation; 0, the default, stands for α{of_svag}.
    name : str, optional
        For figures and files; that of the process unless said.
"""
_RAISES = """
    Raises
    ------
    ConfigurationError
        If an update comes together with momentum or weight decay, or parts do not fit together.
"""
_Factory = TypeVar("_Factory", bound=Callable[..., Process])


def _complete(factory: _Factory) -> _Factory:
    """Write into docstring and signature, after what it takes itself, what all factories take."""
    shared = _SHARED.format(of_svag="/l" if factory.__name__ == "svag" else "")
    said = (factory.__doc__ or "").replace("\n    Returns\n", f"{shared}\n    Returns\n")
    factory.__doc__ = f"{said.rstrip()}\n{_RAISES}"
    signature, hints = inspect.signature(factory), Options.__annotations__
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    others = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name].__forward_arg__)
        for name, default in _DEFAULTS.items()
    ]
    factory.__signature__ = signature.replace(parameters=[*own, *others])  # type: ignore[attr-defined]
    return factory


def _process(
    landscape: Landscape, noise: Noise, learning_rate: float | Rate, own_name: str, options: Options
) -> Process:
    """Return a process with the update rule that options say, in short or in full."""
    unknown = [each for each in options if each not in _DEFAULTS]
    if unknown:  # in Python's own words, since signatures say what there is
        raise TypeError(f"{own_name}() got an unexpected keyword argument {unknown[0]!r}")
    momentum, weight_decay = options.get("momentum", 0.0), options.get("weight_decay", 0.0)
    said = {"momentum": momentum, "weight_decay": weight_decay}
    in_short = [name for name, value in said.items() if not (is_number(value, Real) and value == 0)]
    update, name = options.get("update"), options.get("name")
    if update is None:
        update = Momentum(momentum, weight_decay) if "momentum" in in_short else Plain(weight_decay)
    elif in_short:
        raise ConfigurationError(
            f"update={shown(update)} and {' and '.join(f'{name}={shown(said[name])}' for name in in_short)} came: expected "
            "one or the other, since momentum and weight decay are parts of an update rule; give them to the rule, as "
            "update=Momentum(0.9, weight_decay=1e-4)"
        )
    return Process(
        landscape,
        noise,
        learning_rate,
        drift=options.get("drift"),  # type: ignore[arg-type]  # None stands for the gradient
        update=update,
        time_step=options.get("time_step", 0.0),
        name=own_name if name is None else name,
    )


@_complete
def sgd(
    landscape: Landscape,
    learning_rate: float | Rate,
    batch_size: int,
    *,
    independent: bool = False,
    replacement: bool = False,
    **options: Unpack[Options],
) -> Process:
    """Return minibatch stochastic gradient descent, with shuffled epochs as practised.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float or Rate
        α, in units of time.
    batch_size : int
        B.
    independent : bool, optional
        Whether to draw each minibatch independently rather than to shuffle epochs.
    replacement : bool, optional
        Whether independent minibatches are drawn with replacement.

    Returns
    -------
    Process
        Named "sgd", or "independent_sgd".
    """
    replacement = truth("replacement", replacement, "whether a sample may come twice in a minibatch")
    draws = truth("independent", independent, "whether each minibatch is drawn independently") or replacement
    noise = IndependentMinibatches(batch_size, replacement) if draws else ShuffledMinibatches(batch_size)
    return _process(landscape, noise, learning_rate, "independent_sgd" if draws else "sgd", options)


@_complete
def langevin(landscape: Landscape, learning_rate: float | Rate, batch_size: int, **options: Unpack[Options]) -> Process:
    """Return Langevin dynamics with Gaussian noise of exactly SGD's covariance, anisotropic and state-dependent.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float or Rate
        α, in units of time; sets the noise.
    batch_size : int
        B of the minibatches whose covariance the noise takes.

    Returns
    -------
    Process
        Named "langevin".
    """
    return _process(landscape, MatchedGaussian(batch_size), learning_rate, "langevin", options)


@_complete
def isotropic_langevin(
    landscape: Landscape,
    learning_rate: float | Rate,
    batch_size: int,
    *,
    refresh_every: int | None = None,
    **options: Unpack[Options],
) -> Process:
    """Return Langevin dynamics with isotropic noise whose trace is held to Tr C.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float or Rate
        α, in units of time; sets the noise.
    batch_size : int
        B of the minibatches whose trace the noise takes.
    refresh_every : int, optional
        Updates between measurements of Tr C; N // B unless said, which is one epoch at Δt = α only. The recorded
        strength is that of the trace in use, at most one interval old.

    Returns
    -------
    Process
        Named "isotropic_langevin".
    """
    noise = IsotropicNoise(batch_size, refresh_every)
    return _process(landscape, noise, learning_rate, "isotropic_langevin", options)


@_complete
def frozen_langevin(
    landscape: Landscape,
    learning_rate: float | Rate,
    batch_size: int,
    rank: int = 20,
    *,
    refresh_every: int | None = None,
    remainder: Literal["isotropic", "none"] = "isotropic",
    **options: Unpack[Options],
) -> Process:
    """Return Langevin dynamics whose noise is the leading part of C at an earlier point, frozen between refreshes.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float or Rate
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

    Returns
    -------
    Process
        Named "frozen_langevin".
    """
    noise = LowRankNoise(batch_size, rank, refresh_every, remainder)
    return _process(landscape, noise, learning_rate, "frozen_langevin", options)


@_complete
def svag(
    landscape: Landscape,
    learning_rate: float | Rate,
    batch_size: int,
    amplification: int = 4,
    **options: Unpack[Options],
) -> Process:
    """Return SVAG, whose noise is made of minibatches and tends to that of the stochastic differential equation.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float or Rate
        α, in units of time; sets the noise.
    batch_size : int
        B of the minibatches, of which each update takes two.
    amplification : int, optional
        l, updates in the time of one of SGD's: Δt = α/l, and an epoch takes l times as many updates.

    Returns
    -------
    Process
        Named "svag".
    """
    noise = SVAG(batch_size, amplification)
    unsaid = is_number(given := options.get("time_step", 0), Real) and given == 0
    rate: float | Rate
    if isinstance(learning_rate, Rate):
        rate = Slowed(learning_rate, noise.amplification)
        in_time: Options = {"time_step": Times(rate, 1 / noise.amplification)} if unsaid else {}
    else:
        rate = number("learning_rate", learning_rate, "a positive, finite number, the time of one update", above=0)
        in_time = {"time_step": rate / noise.amplification} if unsaid else {}
    return _process(landscape, noise, rate, "svag", {**options, **in_time})


@_complete
def gradient_descent(
    landscape: Landscape, learning_rate: float | Rate, batch_size: int | None = None, **options: Unpack[Options]
) -> Process:
    """Return gradient descent over the whole training set.

    Parameters
    ----------
    landscape : Landscape
        Any.
    learning_rate : float or Rate
        α, in units of time.
    batch_size : int, optional
        B of the process that it stands beside, for which order parameters and epochs are counted.

    Returns
    -------
    Process
        Named "gradient_descent".
    """
    return _process(landscape, Silent(batch_size), learning_rate, "gradient_descent", options)


@_complete
def sgld(
    landscape: Landscape,
    learning_rate: float | Rate,
    batch_size: int,
    temperature: float | Rate | None = None,
    *,
    independent: bool = False,
    metric: Any = None,
    **options: Unpack[Options],
) -> Process:
    """Return stochastic gradient Langevin dynamics: minibatches, and thermal noise √(2T) dW.

    Welling & Teh (2011, ICML, "Bayesian learning via stochastic gradient Langevin dynamics"). As α → 0 the noise of the
    minibatches, of covariance αC against 2T, vanishes, and the stationary law is exp(−L/T): with L the mean of N negative
    log-likelihoods and T = 1/N the posterior under a flat prior; a Gaussian prior of variance s² is a `weight_decay` of
    1/(N s²). With a rule that has friction, 1 − μ or ζ, T is multiplied by it, so that the temperature of the law is T. A
    rule with a metric of its own, such as Adam, divides thermal noise as it divides the gradient, and has another law.

    A constant diagonal `metric` D makes it dw = −D⁻¹ ∇L dt + √(2T D⁻¹) dW, whose law is exp(−L/T) all the same and which
    takes longer steps where D is small; weight decay is divided, too. Li et al. (2016, arXiv:1512.07666) let D follow the
    gradient, and drop the divergence Γ of D⁻¹, so that theirs has another law (Ma, Chen & Fox 2015, arXiv:1506.04696): here D
    is fixed, one row of ``RMSprop().preconditioner(memory)`` after a warm-up for example. ``update=Preconditioned(rule, D)``
    says the same.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float or Rate
        α, in units of time.
    batch_size : int
        B.
    temperature : float or Rate, optional
        T, in units of the loss; 1/N unless said.
    independent : bool, optional
        Whether to draw each minibatch independently rather than to shuffle epochs.
    metric : array, shape (parameter,), optional
        D, positive, by which drift and thermal noise are preconditioned; none unless said.
    **options : optional
        As all take: update, momentum, weight_decay, drift, time_step, name.

    Returns
    -------
    Process
        Named "sgld".
    """
    draws = truth("independent", independent, "whether each minibatch is drawn independently")
    minibatches = IndependentMinibatches(batch_size) if draws else ShuffledMinibatches(batch_size)
    given: float | Rate = 1 / getattr(landscape, "n_samples", 1) if temperature is None else temperature
    thermal = ThermalNoise(given)
    process = _process(landscape, minibatches + thermal, learning_rate, "sgld", options)
    update = process.update if metric is None else _preconditioned(process, metric, options)
    *around, rule = _chain(update)
    metrics = [each.metric for each in around if isinstance(each, Preconditioned)]
    friction = rule.friction if isinstance(rule, UnderdampedLangevin) else 1 - rule.momentum
    if friction == 1 and not metrics:
        return process
    balanced = thermal.temperature
    if friction != 1:
        balanced = Times(given, friction) if isinstance(given, Rate) else friction * thermal.temperature
    kicks = PreconditionedThermalNoise(balanced, reduce(np.multiply, metrics)) if metrics else ThermalNoise(balanced)
    return replace(process, noise=minibatches + kicks, update=update)


def _chain(update: Update) -> list[Update]:
    """Return a rule and all that are inside it, the innermost last."""
    return [update, *(_chain(update.update) if isinstance(update, Wrapped) else ())]


def _preconditioned(process: Process, metric: Any, options: Options) -> Preconditioned:
    """Return the update rule of a process in a metric, or raise where it has one already."""
    update = process.update
    if options.get("update") is None:
        assert isinstance(update, Plain | Momentum)
        # The prior is part of the loss, and its gradient is divided like the rest of it.
        return Preconditioned(replace(update, weight_decay=0.0), metric, update.weight_decay)
    if update.preconditioner(update.start(torch.zeros(1, process.landscape.n_parameters))) is not None:
        raise ConfigurationError(
            f"metric= and update={shown(update)} came, which has a metric of its own: expected one of them, since thermal "
            "noise has the temperature in one metric only; leave metric= out, or take a rule without, such as Momentum(0.9)"
        )
    return Preconditioned(update, metric)  # type: ignore[arg-type]  # it refuses others


@_complete
def sghmc(
    landscape: Landscape,
    learning_rate: float | Rate,
    batch_size: int,
    temperature: float | Rate | None = None,
    *,
    independent: bool = False,
    metric: Any = None,
    **options: Unpack[Options],
) -> Process:
    """Return stochastic gradient Hamiltonian Monte Carlo: minibatches, momentum, and thermal noise that friction balances.

    Chen, Fox & Guestrin (2014, arXiv:1402.4102), equation (15) with β̂ = 0: friction and thermal noise balance at the
    temperature T, at which positions have the law exp(−L/T) as α → 0, also in a `metric`, as in `sgld`.

    Parameters
    ----------
    landscape : Landscape
        An average of sample losses.
    learning_rate : float or Rate
        α, in units of time.
    batch_size : int
        B.
    temperature : float or Rate, optional
        T, in units of the loss; 1/N unless said.
    independent : bool, optional
        Whether to draw each minibatch independently rather than to shuffle epochs.
    metric : array, shape (parameter,), optional
        D, positive, by which drift and thermal noise are preconditioned; none unless said.
    **options : optional
        As all take: update, momentum, weight_decay, drift, time_step, name. Momentum is 0.9 unless said.

    Returns
    -------
    Process
        Named "sghmc".
    """  # noqa: DOC501  # written in for all
    given: Options = {**options}
    if given.get("update") is None and not given.get("momentum"):
        given["momentum"] = 0.9
    process = sgld(landscape, learning_rate, batch_size, temperature, independent=independent, metric=metric, **given)
    rule = _chain(process.update)[-1]
    if not (rule.momentum or isinstance(rule, UnderdampedLangevin)):
        raise ConfigurationError(
            f"update={shown(process.update)} has no momentum: expected a rule with one, such as Momentum(0.9), since "
            "velocities carry the dynamics; without them take sgld"
        )
    return process if options.get("name") is not None else replace(process, name="sghmc")


PROCESSES: dict[str, Callable[..., Process]] = {
    "sgd": sgd,
    "langevin": langevin,
    "isotropic_langevin": isotropic_langevin,
    "frozen_langevin": frozen_langevin,
    "svag": svag,
    "gradient_descent": gradient_descent,
    "independent_sgd": partial(sgd, independent=True),
    "sgld": sgld,
}
