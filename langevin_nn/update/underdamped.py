"""Underdamped dynamics of any landscape: what steps with momentum discretise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langevin_nn.checks import number
from langevin_nn.errors import ConfigurationError
from langevin_nn.update.base import Orders, SteppedUpdate

__all__ = ["UnderdampedLangevin"]


@dataclass(frozen=True)
class UnderdampedLangevin(SteppedUpdate):
    """v ← v − (Δt/m)(ζv + g), w ← w + Δt v: the equation m dv = −ζv dt − ∇L dt − √(α C) dW, dw = v dt.

    Symplectic Euler steps (Hairer, Lubich & Wanner 2006, doi 10.1007/3-540-30666-8, section I.1), for networks and for any
    noise. `Momentum` of μ at the learning rate α is one such step of Δt = α with mass m = α and friction ζ = 1 − μ, v =
    −v_torch: heavy balls have a mass of α and a velocity that decays at the rate γ = ζ/m = (1 − μ)/α in `time`. At Δt < α
    the same equation is followed more closely, with the noise of the learning rate α. As m → 0 it becomes overdamped, dw =
    −(∇L dt + √(α C) dW)/ζ, the limit that `Momentum` itself has. Velocities start at 0. `BAOAB` is of weak order 2, for
    constant noise on surrogates; there time is counted in units in which m = 1, and the noise grows with the friction.

    Parameters
    ----------
    mass : float
        m, in units of time; α for that of `Momentum`.
    friction : float, optional
        ζ; 1 − μ for that of `Momentum`.

    Raises
    ------
    ConfigurationError
        If mass or friction are not positive and finite, or a time step is longer than 2 m/ζ, beyond which velocities grow.

    Examples
    --------
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import Silent
    >>> from langevin_nn.update import Momentum
    >>> valley = QuadraticLandscape([[1.0]], [[0.0]], start=[1.0])
    >>> processes = [
    ...     Process(valley, Silent(), learning_rate=0.1, update=update)
    ...     for update in (Momentum(0.9), UnderdampedLangevin.of_momentum(0.9, learning_rate=0.1))
    ... ]
    >>> [round(float(advance(each, each.start(1, seed=0), steps=20).weights), 6) for each in processes]
    [0.344667, 0.344667]
    """

    mass: float
    friction: float = 1.0
    orders = {"constant": Orders(1.0, 1.0), "diagonal": Orders(1.0, 1.0), "full": Orders(1.0, 1.0)}  # noqa: RUF012

    def __post_init__(self) -> None:
        expected = "a positive, finite number m; dynamics without inertia are Plain()"
        object.__setattr__(self, "mass", number("mass", self.mass, expected, above=0))
        expected = "a positive, finite number ζ, without which velocities never decay"
        object.__setattr__(self, "friction", number("friction", self.friction, expected, above=0))

    @classmethod
    def of_momentum(cls, momentum: float, learning_rate: float) -> UnderdampedLangevin:
        """Return the equation that steps with momentum discretise.

        Parameters
        ----------
        momentum : float
            μ, in [0, 1).
        learning_rate : float
            α, in units of time.

        Returns
        -------
        UnderdampedLangevin
            Of mass α and friction 1 − μ.
        """
        expected = "0 ≤ μ < 1, beyond which velocities never decay"
        return cls(learning_rate, 1 - number("momentum", momentum, expected, least=0, below=1))

    def check_rates(self, learning_rate: float, time_step: float) -> None:  # noqa: D102
        if time_step * self.friction > 2 * self.mass:
            raise ConfigurationError(
                f"time_step={time_step:g} with mass={self.mass:g} and friction={self.friction:g}: expected at most "
                f"2 mass/friction = {2 * self.mass / self.friction:g}, since velocities would grow; choose a "
                "smaller one, or Plain(), the limit of small masses"
            )

    def start(self, weights: Tensor) -> Tensor:  # noqa: D102
        return torch.zeros_like(weights)

    def apply(  # noqa: D102
        self, weights: Tensor, memory: Tensor, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, Any]:
        relative = time_step / self.mass
        velocity = torch.add((1 - relative * self.friction) * memory, gradient, alpha=-relative)
        return torch.add(weights, velocity, alpha=time_step), velocity
