"""The plain step and the step with momentum, as in torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langevin_nn.checks import number
from langevin_nn.update.base import Orders, SteppedUpdate

__all__ = ["Momentum", "Plain", "checked_weight_decay"]

_MULTIPLICATIVE = {"diagonal": Orders(0.5, 1.0), "full": Orders(0.5, 1.0)}


def checked_weight_decay(value: Any) -> float:
    """Return λ, or raise."""
    expected = "a finite number λ ≥ 0, since a negative one drives weights to infinity; leave it at 0 for none"
    return number("weight_decay", value, expected, least=0)


@dataclass(frozen=True)
class Plain(SteppedUpdate):
    """w ← w − Δt (g + λw).

    The Euler–Maruyama scheme of dw = −(∇L + λw) dt + √(α C) dW.

    Parameters
    ----------
    weight_decay : float, optional
        λ, in units of 1/time.

    Raises
    ------
    ConfigurationError
        If λ is negative or not finite.
    """

    weight_decay: float = 0.0
    orders = {"constant": Orders(1.0, 1.0), **_MULTIPLICATIVE}  # noqa: RUF012

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight_decay", checked_weight_decay(self.weight_decay))

    @property
    def descent_rates(self) -> tuple[float, float]:  # noqa: D102
        return 0.0, self.weight_decay

    def apply(  # noqa: D102
        self, weights: Tensor, memory: None, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, Any]:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * weights
        return torch.add(weights, gradient, alpha=-time_step), memory


@dataclass(frozen=True)
class Momentum(SteppedUpdate):
    """v ← μv + g + λw, w ← w − Δt v, with v = 0 at the start (``torch.optim.SGD``).

    At fixed μ it converges, as Δt → 0, not to the process's own equation but to dynamics sped up by 1/(1 − μ), with the
    noise of the learning rate α/(1 − μ); the orders refer to that limit. Along a path it is behind by the kicks of the last
    1/(1 − μ) updates, hence the strong order ½ also of constant noise.

    Parameters
    ----------
    momentum : float
        μ, in [0, 1).
    weight_decay : float, optional
        λ, in units of 1/time.

    Raises
    ------
    ConfigurationError
        If μ is outside [0, 1), or λ negative or not finite.
    """

    momentum: float
    weight_decay: float = 0.0
    orders = {"constant": Orders(0.5, 1.0), **_MULTIPLICATIVE}  # noqa: RUF012

    def __post_init__(self) -> None:
        expected = "0 ≤ μ < 1, beyond which velocities never decay"
        object.__setattr__(self, "momentum", number("momentum", self.momentum, expected, least=0, below=1))
        object.__setattr__(self, "weight_decay", checked_weight_decay(self.weight_decay))

    @property
    def descent_rates(self) -> tuple[float, float] | None:  # noqa: D102
        return self.momentum, self.weight_decay

    def start(self, weights: Tensor) -> Tensor:  # noqa: D102
        return torch.zeros_like(weights)

    def apply(  # noqa: D102
        self, weights: Tensor, memory: Tensor, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, Any]:
        velocity = self.momentum * memory + gradient + self.weight_decay * weights
        return torch.add(weights, velocity, alpha=-time_step), velocity
