"""Adam: steps divided by the running root mean square of the gradient, component by component."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from langevin_nn.checks import number
from langevin_nn.update.base import Orders, SteppedUpdate
from langevin_nn.update.plain import checked_weight_decay

__all__ = ["Adam", "AdamMoments"]

# At fixed decay rates each update sees a gradient whose noise grows as the time step shrinks, and divides by it.
_NO_LIMIT = Orders(0.0, 0.0)


@dataclass(frozen=True)
class AdamMoments:
    """m and v, the running means of gradient and square before their bias is corrected, and the updates made."""

    first: Tensor
    second: Tensor
    count: int


@dataclass(frozen=True)
class Adam(SteppedUpdate):
    """m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², w ← w − Δt m̂/(√v̂ + ε) (``torch.optim.Adam``).

    m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ) after t updates (Kingma & Ba 2015, arXiv:1412.6980); g includes λw. It is a
    process in a metric of its own, dw = −D⁻¹ (∇L dt + noise) with the `preconditioner` D = √v̂ + ε, up to the memory of m. D
    follows the noise of single updates, so that at fixed β no equation is its limit as Δt → 0 and the orders are 0; the
    scaling under which one is, with β tied to the learning rate, is that of Malladi et al. (2022, arXiv:2205.10287).

    Parameters
    ----------
    first_decay : float, optional
        β₁, in [0, 1).
    second_decay : float, optional
        β₂, in [0, 1).
    offset : float, optional
        ε > 0, in units of the gradient.
    weight_decay : float, optional
        λ, in units of 1/time, as part of the gradient.

    Raises
    ------
    ConfigurationError
        If a decay rate is outside [0, 1), ε not positive, or λ negative or not finite.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import Silent
    >>> valley = QuadraticLandscape([[100.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], start=[1.0, 1.0])
    >>> process = Process(valley, Silent(), learning_rate=0.1, update=Adam())
    >>> advance(process, process.start(replicas=1, seed=0), steps=1).weights  # the first step is as long in any direction
    tensor([[0.9000, 0.9000]], dtype=torch.float64)
    """

    first_decay: float = 0.9
    second_decay: float = 0.999
    offset: float = 1e-8
    weight_decay: float = 0.0
    orders = {"constant": _NO_LIMIT, "diagonal": _NO_LIMIT, "full": _NO_LIMIT}  # noqa: RUF012

    def __post_init__(self) -> None:
        for name in ("first_decay", "second_decay"):
            expected = "0 ≤ β < 1, the share of a running mean that an update keeps"
            object.__setattr__(self, name, number(name, getattr(self, name), expected, least=0, below=1))
        expected = "a positive, finite number ε, since a gradient that has always been 0 is divided by it"
        object.__setattr__(self, "offset", number("offset", self.offset, expected, above=0))
        object.__setattr__(self, "weight_decay", checked_weight_decay(self.weight_decay))

    def start(self, weights: Tensor) -> AdamMoments:  # noqa: D102
        return AdamMoments(torch.zeros_like(weights), torch.zeros_like(weights), 0)

    def preconditioner(self, memory: AdamMoments) -> Tensor:
        """Return D = √v̂ + ε, by which the mean gradient is divided; 1 before the first update, when nothing is known."""
        if memory.count == 0:
            return torch.ones_like(memory.second)
        return memory.second.sqrt() / sqrt(1 - self.second_decay**memory.count) + self.offset

    def apply(  # noqa: D102
        self, weights: Tensor, memory: AdamMoments, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, AdamMoments]:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * weights
        return self._stepped(weights, memory, gradient, time_step)

    def _stepped(
        self, weights: Tensor, memory: AdamMoments, gradient: Tensor, time_step: float
    ) -> tuple[Tensor, AdamMoments]:
        """Make one update along a gradient that holds all that is to be in its moments."""
        first = torch.lerp(memory.first, gradient, 1 - self.first_decay)
        second = self.second_decay * memory.second + (1 - self.second_decay) * gradient.square()
        moments = AdamMoments(first, second, memory.count + 1)
        step = time_step / (1 - self.first_decay**moments.count)
        return torch.addcdiv(weights, first, self.preconditioner(moments), value=-step), moments
