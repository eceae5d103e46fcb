"""RMSprop: steps divided by the running root mean square of the gradient, without correction of its bias."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin_nn.checks import number, truth
from langevin_nn.update.base import Orders, SteppedUpdate
from langevin_nn.update.plain import checked_weight_decay

__all__ = ["RMSprop", "RMSpropMoments"]

# As Adam: at fixed decay each update divides by noise that grows as the time step shrinks.
_NO_LIMIT = Orders(0.0, 0.0)


@dataclass(frozen=True)
class RMSpropMoments:
    """What RMSprop remembers.

    Parameters
    ----------
    square : Tensor, shape (replica, parameter)
        v, the running mean of the gradient's square.
    mean : Tensor or None, shape (replica, parameter)
        m, that of the gradient itself, of centred rules.
    velocity : Tensor or None, shape (replica, parameter)
        u, of rules with momentum.
    """

    square: Tensor
    mean: Tensor | None
    velocity: Tensor | None


@dataclass(frozen=True)
class RMSprop(SteppedUpdate):
    """v ← av + (1 − a)g², w ← w − Δt g/(√v + ε), from v = 0 (``torch.optim.RMSprop``).

    Tieleman & Hinton (2012, lecture 6.5 of *Neural Networks for Machine Learning*), with the options of torch: centred,
    √(v − m²) stands for √v, m ← am + (1 − a)g (Graves 2013, arXiv:1308.0850); with momentum, u ← μu + g/(√v + ε) and
    w ← w − Δt u; g includes λw. The `preconditioner` is D = √v + ε. As of `Adam`, no equation is the limit of fixed decay.

    Parameters
    ----------
    decay : float, optional
        a, in [0, 1); torch's ``alpha``.
    offset : float, optional
        ε > 0, in units of the gradient, outside the root; torch's ``eps``.
    momentum : float, optional
        μ, in [0, 1).
    centred : bool, optional
        Whether the gradient's running variance stands for its running mean square; where rounding makes it negative, it
        counts as 0.
    weight_decay : float, optional
        λ, in units of 1/time, as part of the gradient.

    Raises
    ------
    ConfigurationError
        If decay or momentum are outside [0, 1), ε is not positive, or λ negative or not finite.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import Silent
    >>> valley = QuadraticLandscape([[100.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], start=[1.0, 1.0])
    >>> process = Process(valley, Silent(), learning_rate=0.01, update=RMSprop(decay=0.99))
    >>> advance(process, process.start(replicas=1, seed=0), steps=1).weights  # 1 − 0.01/√(1 − 0.99)
    tensor([[0.9000, 0.9000]], dtype=torch.float64)
    """

    decay: float = 0.99
    offset: float = 1e-8
    momentum: float = 0.0
    centred: bool = False
    weight_decay: float = 0.0
    orders = {"constant": _NO_LIMIT, "diagonal": _NO_LIMIT, "full": _NO_LIMIT}  # noqa: RUF012

    def __post_init__(self) -> None:
        expected = "0 ≤ a < 1, the share of a running mean that an update keeps"
        object.__setattr__(self, "decay", number("decay", self.decay, expected, least=0, below=1))
        expected = "a positive, finite number ε, since a gradient that has always been 0 is divided by it"
        object.__setattr__(self, "offset", number("offset", self.offset, expected, above=0))
        expected = "0 ≤ μ < 1, beyond which velocities never decay"
        object.__setattr__(self, "momentum", number("momentum", self.momentum, expected, least=0, below=1))
        meaning = "whether gradients are divided by the root of their variance, not of their mean square"
        object.__setattr__(self, "centred", truth("centred", self.centred, meaning))
        object.__setattr__(self, "weight_decay", checked_weight_decay(self.weight_decay))

    def start(self, weights: Tensor) -> RMSpropMoments:  # noqa: D102
        nothing = torch.zeros_like(weights)
        return RMSpropMoments(nothing, nothing if self.centred else None, nothing if self.momentum else None)

    def preconditioner(self, memory: RMSpropMoments) -> Tensor:
        """Return D, by which the gradient is divided.

        Parameters
        ----------
        memory : RMSpropMoments
            Of a state.

        Returns
        -------
        Tensor, shape (replica, parameter)
            √v + ε, centred √(v − m²) + ε; ε everywhere before the first update.
        """
        square = memory.square
        if memory.mean is not None:
            square = (square - memory.mean.square()).clamp(min=0)
        return square.sqrt() + self.offset

    def apply(  # noqa: D102
        self, weights: Tensor, memory: RMSpropMoments, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, RMSpropMoments]:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * weights
        square = self.decay * memory.square + (1 - self.decay) * gradient.square()
        mean = None if memory.mean is None else torch.lerp(memory.mean, gradient, 1 - self.decay)
        divisor = self.preconditioner(RMSpropMoments(square, mean, None))
        if memory.velocity is None:
            return torch.addcdiv(weights, gradient, divisor, value=-time_step), RMSpropMoments(square, mean, None)
        velocity = torch.addcdiv(self.momentum * memory.velocity, gradient, divisor)
        return torch.add(weights, velocity, alpha=-time_step), RMSpropMoments(square, mean, velocity)
