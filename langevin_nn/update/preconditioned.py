"""Rules in a constant diagonal metric, which stretches steep directions and leaves the stationary law as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import shown
from langevin_nn.drift import Drift
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import Landscape
from langevin_nn.noise import Noise
from langevin_nn.noise.constant import check_metric, checked_metric
from langevin_nn.update.base import SteppedUpdate
from langevin_nn.update.plain import checked_weight_decay
from langevin_nn.update.wrapped import Wrapped

__all__ = ["Preconditioned", "PreconditionedMemory"]


@dataclass(frozen=True)
class PreconditionedMemory:
    """What a preconditioned rule remembers.

    Parameters
    ----------
    ones : Tensor, shape (replica, 1)
        1 for each replica, over which D is spread.
    inner : object
        The memory of the inner rule.
    """

    ones: Tensor
    inner: Any


@dataclass(frozen=True, eq=False)
class Preconditioned(Wrapped):
    """g ← D⁻¹ (g + λw) with a constant diagonal D, before another rule sees g.

    With plain steps and `PreconditionedThermalNoise` the Euler–Maruyama scheme of dw = −D⁻¹ ∇L dt + √(2T D⁻¹) dW, of which
    the stationary law is exp(−L/T) whatever D (Ma, Chen & Fox 2015, arXiv:1506.04696, with a constant matrix D⁻¹, for which
    Γ = 0); `sgld` and `sghmc` make both of ``metric=``. It is the inner rule in the coordinates √D w: with `Momentum` the
    temperature is T/(1 − μ), with `UnderdampedLangevin`, whose mass and friction become mD and ζD, it is T/ζ, as without.
    Li et al. (2016, arXiv:1512.07666) let D follow the gradient and leave out the drift Γ of a D that depends on the weights,
    so that the law is another; take D from a warm-up, as ``RMSprop().preconditioner(memory)`` returns it, and keep it. Orders
    are those of the inner rule.

    Parameters
    ----------
    update : SteppedUpdate
        The rule that makes the step, without weight decay.
    metric : array, shape (parameter,)
        D, positive; kept as a read-only array of float64. The scale of D divides that of the time step.
    weight_decay : float, optional
        λ, in units of 1/time, as part of the gradient, so that D divides it as it divides ∇L.

    Raises
    ------
    ConfigurationError
        If the inner rule is not applied step by step, or has weight decay, which D would not divide; if D is no vector of
        positive, finite numbers, or λ negative or not finite.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import Silent
    >>> from langevin_nn.update import Plain
    >>> valley = QuadraticLandscape([[100.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], start=[1.0, 1.0])
    >>> process = Process(valley, Silent(), learning_rate=0.1, update=Preconditioned(Plain(), [100.0, 1.0]))
    >>> advance(process, process.start(replicas=1, seed=0), steps=1).weights  # as fast in any direction
    tensor([[0.9000, 0.9000]], dtype=torch.float64)
    """

    metric: NDArray[np.float64]
    weight_decay: float = 0.0

    # As of other rules with arrays: Wrapped would compare the inner rules alone.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "orders", self.update.orders)
        object.__setattr__(self, "metric", checked_metric(self.metric))
        object.__setattr__(self, "weight_decay", checked_weight_decay(self.weight_decay))
        rule: SteppedUpdate | None = self.update
        while rule is not None:
            decay = getattr(rule, "weight_decay", 0.0)
            if decay:
                raise ConfigurationError(
                    f"update={shown(rule)} has weight_decay={decay!r}: expected 0, since the metric would not divide what "
                    "the rule inside adds, and the stationary law would be another; give it to the rule around, as "
                    "Preconditioned(Momentum(0.9), metric, weight_decay=1e-4)"
                )
            rule = rule.update if isinstance(rule, Wrapped) else None

    def check(self, landscape: Landscape, drift: Drift, noise: Noise) -> None:  # noqa: D102
        check_metric(self.metric, landscape)
        super().check(landscape, drift, noise)

    def start(self, weights: Tensor) -> PreconditionedMemory:  # noqa: D102
        return PreconditionedMemory(torch.ones_like(weights[:, :1]), self.update.start(weights))

    def preconditioner(self, memory: PreconditionedMemory) -> Tensor:
        """Return D, times the metric of the inner rule where it has one.

        Parameters
        ----------
        memory : PreconditionedMemory
            Of a state.

        Returns
        -------
        Tensor, shape (replica, parameter)
            The same D for all replicas.
        """
        metric, inner = memory.ones * self._metric(memory.ones), self.update.preconditioner(memory.inner)
        return metric if inner is None else metric * inner

    def average(self, memory: PreconditionedMemory) -> Tensor | None:  # noqa: D102
        return self.update.average(memory.inner)

    def apply(  # noqa: D102
        self, weights: Tensor, memory: PreconditionedMemory, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, PreconditionedMemory]:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * weights
        gradient = gradient / self._metric(gradient)
        weights, inner = self.update.apply(weights, memory.inner, gradient, learning_rate, time_step)
        return weights, PreconditionedMemory(memory.ones, inner)

    def _metric(self, like: Tensor) -> Tensor:
        return torch.tensor(self.metric).to(like)
