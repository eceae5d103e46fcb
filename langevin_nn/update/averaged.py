"""An exponential moving average of the weights, beside a rule that it does not disturb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langevin_nn.checks import number
from langevin_nn.update.wrapped import Wrapped

__all__ = ["Averaged", "AveragedMemory"]


@dataclass(frozen=True)
class AveragedMemory:
    """What an averaged rule remembers.

    Parameters
    ----------
    average : Tensor, shape (replica, parameter)
        w̄; the weights of the start before the first update.
    begun : bool
        Whether an update has been averaged.
    inner : object
        The memory of the inner rule.
    """

    average: Tensor
    begun: bool
    inner: Any


@dataclass(frozen=True)
class Averaged(Wrapped):
    """w̄ ← dw̄ + (1 − d)w after each update of another rule, with w̄ = w after the first.

    ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn(decay)`` (Polyak & Juditsky 1992, doi 10.1137/0330046,
    with a window). Weights, orders and `preconditioner` are those of the inner rule, whose path is the same to the last bit;
    `LossesOfAverage` records losses and errors at w̄. The average reaches back some 1/(1 − d) updates: at a shorter time step
    as many are less time.

    Parameters
    ----------
    update : SteppedUpdate
        The rule that makes the step.
    decay : float, optional
        d, in [0, 1), the share of the average that an update keeps.

    Raises
    ------
    ConfigurationError
        If the inner rule is not applied step by step, or the decay is outside [0, 1).

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import Silent
    >>> from langevin_nn.update import Plain
    >>> valley = QuadraticLandscape([[1.0]], [[0.0]], start=[1.0])
    >>> process = Process(valley, Silent(), learning_rate=0.5, update=Averaged(Plain(), decay=0.8))
    >>> state = advance(process, process.start(replicas=1, seed=0), steps=2)
    >>> state.weights, process.update.average(state.update_memory)  # ¼, and 0.8 · ½ + 0.2 · ¼
    (tensor([[0.2500]], dtype=torch.float64), tensor([[0.4500]], dtype=torch.float64))
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "orders", self.update.orders)
        expected = "0 ≤ d < 1, the share of the average that an update keeps"
        object.__setattr__(self, "decay", number("decay", self.decay, expected, least=0, below=1))

    def start(self, weights: Tensor) -> AveragedMemory:  # noqa: D102
        return AveragedMemory(weights.clone(), False, self.update.start(weights))

    def preconditioner(self, memory: AveragedMemory) -> Tensor | None:  # noqa: D102
        return self.update.preconditioner(memory.inner)

    def average(self, memory: AveragedMemory) -> Tensor:  # noqa: D102
        return memory.average

    def apply(  # noqa: D102
        self, weights: Tensor, memory: AveragedMemory, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, AveragedMemory]:
        weights, inner = self.update.apply(weights, memory.inner, gradient, learning_rate, time_step)
        average = torch.lerp(memory.average, weights, 1 - self.decay) if memory.begun else weights.clone()
        return weights, AveragedMemory(average, True, inner)
