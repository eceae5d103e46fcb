"""Lion: steps of one length in every component, along the sign of a running mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langevin_nn.checks import number
from langevin_nn.update.base import Orders, SteppedUpdate
from langevin_nn.update.plain import checked_weight_decay

__all__ = ["Lion"]

# Noise of single updates grows as the time step shrinks, until it alone decides the signs.
_NO_LIMIT = Orders(0.0, 0.0)


@dataclass(frozen=True)
class Lion(SteppedUpdate):
    """w ← w − Δt (sign(β₁m + (1 − β₁)g) + λw), then m ← β₂m + (1 − β₂)g, with m = 0 at the start.

    Chen et al. (2023, arXiv:2302.06675), algorithm 2. Steps are as long in any direction, whatever the gradient's scale, so
    that learning rates are some ten times shorter than `AdamW`'s and weight decays as many times stronger. At fixed β no
    equation is its limit as Δt → 0, and the orders are 0.

    Parameters
    ----------
    first_decay : float, optional
        β₁, in [0, 1), the share of the running mean in a step.
    second_decay : float, optional
        β₂, in [0, 1), the share that the running mean keeps.
    weight_decay : float, optional
        λ, in units of 1/time, outside the sign.

    Raises
    ------
    ConfigurationError
        If a decay rate is outside [0, 1), or λ negative or not finite.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import Silent
    >>> valley = QuadraticLandscape([[100.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], start=[1.0, -1.0])
    >>> process = Process(valley, Silent(), learning_rate=0.1, update=Lion(weight_decay=0.5))
    >>> advance(process, process.start(replicas=1, seed=0), steps=1).weights  # ±(1 − 0.1 (1 + 0.5))
    tensor([[ 0.8500, -0.8500]], dtype=torch.float64)
    """

    first_decay: float = 0.9
    second_decay: float = 0.99
    weight_decay: float = 0.0
    orders = {"constant": _NO_LIMIT, "diagonal": _NO_LIMIT, "full": _NO_LIMIT}  # noqa: RUF012

    def __post_init__(self) -> None:
        for name in ("first_decay", "second_decay"):
            expected = "0 ≤ β < 1, the share of a running mean that counts beside the newest gradient"
            object.__setattr__(self, name, number(name, getattr(self, name), expected, least=0, below=1))
        object.__setattr__(self, "weight_decay", checked_weight_decay(self.weight_decay))

    def start(self, weights: Tensor) -> Tensor:  # noqa: D102
        return torch.zeros_like(weights)

    def apply(  # noqa: D102
        self, weights: Tensor, memory: Tensor, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, Any]:
        direction = torch.lerp(memory, gradient, 1 - self.first_decay)
        # The sign of what is no number is 0, and a replica that has diverged would stand still instead.
        step = torch.where(direction.isnan(), direction, direction.sign())
        kept = (1 - time_step * self.weight_decay) * weights
        return torch.add(kept, step, alpha=-time_step), torch.lerp(memory, gradient, 1 - self.second_decay)
