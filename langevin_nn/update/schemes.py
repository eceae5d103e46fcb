"""Integrators of stochastic differential equations, for drift and noise that have a formula.

All of them integrate dx = −f(x) dt − α^a F(x) dW, f the drift (uphill, as a gradient), F the factor of the noise, a its
power of the learning rate; F stands for −α^a F in the formulas below.
Each declares the orders at which it converges, by how F depends on x.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, sqrt
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from langevin_nn.checks import number
from langevin_nn.drift import Drift
from langevin_nn.errors import ConfigurationError
from langevin_nn.evaluation import evaluate
from langevin_nn.landscape import Landscape
from langevin_nn.noise import Noise
from langevin_nn.noise.factored import FactoredNoise
from langevin_nn.noise.scaled import unscaled
from langevin_nn.seeds import Seeds
from langevin_nn.update.base import Orders, Update

__all__ = [
    "BAOAB",
    "EulerMaruyama",
    "Heun",
    "Integrator",
    "LeimkuhlerMatthews",
    "Milstein",
    "StrongAdditive",
    "WeakSecondOrder",
]


class Integrator(Update):
    """A scheme in one loop over steps, for drift and noise that have a formula.

    Attributes
    ----------
    code : int
        By which the loop knows it.
    """

    code: ClassVar[int]

    def check(self, landscape: Landscape, drift: Drift, noise: Noise) -> None:  # noqa: D102
        super().check(landscape, drift, noise)
        drift.formula()
        noise.formula(landscape)
        if "full" not in self.orders:
            _check_own_coordinates(self, landscape, noise)

    def parameters(self, time_step: float) -> tuple[float, ...]:
        """Return the constants of a step.

        Parameters
        ----------
        time_step : float
            Δt.

        Returns
        -------
        tuple of float
            None unless the scheme says so.
        """
        return ()


@dataclass(frozen=True)
class EulerMaruyama(Integrator):
    """x ← x − f Δt + F ΔW.

    Maruyama (1955, doi 10.1007/BF02846028); Kloeden & Platen (1992, doi 10.1007/978-3-662-12616-5), section 10.2. Runs
    any noise: constant noise makes its strong order 1, that of coloured noise at any Δt/τ. Stable noise has no moments to
    converge; its characteristic function does with order 1.
    """

    code = 0
    orders = {"constant": Orders(1.0, 1.0), "diagonal": Orders(0.5, 1.0), "full": Orders(0.5, 1.0)}  # noqa: RUF012
    laws = frozenset({"brownian", "coloured", "stable"})


@dataclass(frozen=True)
class Heun(Integrator):
    """x̃ = x − f Δt + F ΔW, then x ← x − ½ (f + f̃) Δt + ½ (F + F̃) ΔW: the equation in the sense of Stratonovich.

    Rümelin (1982, doi 10.1137/0719041). Its strong order is 1 where F is diagonal and out[i] depends on x[i] alone, else ½;
    of weak order 2 where F is constant, and both calculi agree.
    """

    code = 1
    calculus = "stratonovich"
    orders = {"constant": Orders(1.0, 2.0), "diagonal": Orders(1.0, 1.0), "full": Orders(0.5, 1.0)}  # noqa: RUF012


@dataclass(frozen=True)
class Milstein(Integrator):
    """x̃ = x − f Δt + F √Δt, then x ← x − f Δt + F ΔW + (F̃ − F) (ΔW² − Δt)/(2√Δt), for diagonal noise.

    Kloeden & Platen (1992, doi 10.1007/978-3-662-12616-5), equation (11.1.7): Milstein's scheme with a difference in the
    place of the derivative. out[i] of the amplitude must depend on x[i] alone.
    """

    code = 2
    orders = {"constant": Orders(1.0, 1.0), "diagonal": Orders(1.0, 1.0)}  # noqa: RUF012


@dataclass(frozen=True)
class WeakSecondOrder(Integrator):
    """Platen's explicit scheme of weak order 2, for diagonal noise.

    Kloeden & Platen (1992, doi 10.1007/978-3-662-12616-5), equation (15.1.1), component by component, with Gaussian
    increments. out[i] of the amplitude must depend on x[i] alone.
    """

    code = 3
    orders = {"constant": Orders(1.0, 2.0), "diagonal": Orders(1.0, 2.0)}  # noqa: RUF012


@dataclass(frozen=True)
class StrongAdditive(Integrator):
    """x̃ = x − ¾ f Δt + (3/2) F ΔZ/Δt, then x ← x − (f + 2 f̃) Δt/3 + F ΔW: strong order 3/2 for constant noise.

    SRA1 of Rößler (2010, doi 10.1137/09076636X), with ΔZ = ∫ W dt = ½ Δt (ΔW + ΔW′/√3) from a second, independent ΔW′.
    """

    code = 4
    orders = {"constant": Orders(1.5, 2.0)}  # noqa: RUF012


@dataclass(frozen=True)
class LeimkuhlerMatthews(Integrator):
    """x ← x − f Δt + F (ΔW_n + ΔW_{n+1})/2: wrong at each moment by half a kick, exact to Δt² in the long run.

    Leimkuhler & Matthews (2013, doi 10.1093/amrx/abs010). For constant noise; the stationary law has order 2, at the price
    of one gradient a step.
    """

    code = 5
    orders = {"constant": Orders(0.5, 1.0)}  # noqa: RUF012
    stationary_order: ClassVar[float] = 2.0

    def start(self, weights: Tensor) -> Tensor:  # noqa: D102
        return torch.zeros_like(weights)


@dataclass(frozen=True)
class BAOAB(Integrator):
    """Underdamped dynamics dx = v dt, dv = −f dt − γ v dt + √γ α^a F dW, of unit mass, by splitting.

    Half a kick of the force, half a drift, the exact Ornstein–Uhlenbeck step of the velocity, half a drift, half a kick
    (Leimkuhler & Matthews 2013, doi 10.1093/amrx/abs010). With F of `ThermalNoise` its stationary law is Boltzmann's; as γ
    grows, positions follow the overdamped equation in the time t/γ. Velocities start at 0.

    Parameters
    ----------
    friction : float
        γ, in units of 1/time.

    Raises
    ------
    ConfigurationError
        If γ is not positive and finite.
    """

    friction: float
    code = 6
    mass = 1.0
    orders = {"constant": Orders(1.0, 2.0)}  # noqa: RUF012
    stationary_order: ClassVar[float] = 2.0

    def __post_init__(self) -> None:
        expected = "a positive, finite number γ, at which velocities decay"
        object.__setattr__(self, "friction", number("friction", self.friction, expected, above=0))

    def start(self, weights: Tensor) -> Tensor:  # noqa: D102
        return torch.zeros_like(weights)

    def parameters(self, time_step: float) -> tuple[float, ...]:  # noqa: D102
        # √γ √((1 − e^{−2γΔt})/(2γ)): the variance of the exact step, with the √γ of the equation.
        return exp(-self.friction * time_step), sqrt(-expm1(-2 * self.friction * time_step) / 2)


def _check_own_coordinates(update: Integrator, landscape: Landscape, noise: Noise) -> None:
    """Raise where a diagonal amplitude depends on other coordinates than its own, as far as a few points show."""
    noise = unscaled(noise)
    if noise.dependence(landscape) != "diagonal" or landscape.n_parameters == 1 or not isinstance(noise, FactoredNoise):
        return
    field = noise.formula(landscape).field
    generator = np.random.default_rng(0)
    start = landscape.initial_weights((0,), Seeds(0))[0].double().numpy()
    for scale in (0.1, 0.1, 0.1, 1.0, 1.0, 10.0, 10.0):
        point = start + scale * generator.standard_normal(landscape.n_parameters)
        shifted = point + scale * np.eye(landscape.n_parameters)
        with np.errstate(invalid="ignore"):
            change = evaluate(field, shifted) - evaluate(field, point[None])
        finite = np.isfinite(change)
        others, change = ~np.eye(landscape.n_parameters, dtype=bool) & finite, np.where(finite, change, 0)
        if not (np.abs(change[others]) <= 1e-9 * np.abs(change).max(initial=1e-300)).all():
            raise ConfigurationError(
                f"{type(update).__name__} needs an amplitude whose component i depends on coordinate i alone, but moving one "
                "coordinate changed the noise of another: expected out[i] to be a function of x[i], since the scheme "
                "leaves out the mixed derivatives and would lose its order; use EulerMaruyama, or Heun in the sense of "
                "Stratonovich"
            )
