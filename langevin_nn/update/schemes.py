"""Integrators of stochastic differential equations, compiled: blocks of steps of many replicas without returning to Python.

All of them integrate dx = −f(x) dt − α^a F(x) dW, f the drift (uphill, as a gradient), F the factor of the noise, a its
power of the learning rate; F stands for −α^a F in the formulas below.
Each declares the orders at which it converges, by how F depends on x.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, sqrt
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import number
from langevin_nn.errors import ConfigurationError
from langevin_nn.noise.factored import PURPOSE, FactoredNoise
from langevin_nn.noise.scaled import unscaled
from langevin_nn.seeds import Seeds
from langevin_nn.update.base import Dynamics, Orders, Update
from langevin_nn.update.state import State

__all__ = [
    "BAOAB",
    "CompiledUpdate",
    "EulerMaruyama",
    "Heun",
    "LeimkuhlerMatthews",
    "Milstein",
    "StrongAdditive",
    "WeakSecondOrder",
]


_WORK = 200_000_000  # numbers that a call changes


class CompiledUpdate(Update):
    """A scheme that runs in a Numba kernel, on drift and noise that have a compiled form."""

    code: ClassVar[int]

    def check(self, process: Dynamics) -> None:
        """Raise unless drift and noise have a compiled form and are ones for which the scheme is made.

        Parameters
        ----------
        process : Dynamics
            With its drift and noise.
        """
        super().check(process)
        process.drift.compiled()
        process.noise.compiled(process.landscape)

    def parameters(self, time_step: float) -> tuple[float, ...]:
        """Return the constants that the kernel needs.

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

    def advance(self, process: Dynamics, state: State, steps: int) -> State:  # noqa: D102
        run = _Run(self, process, state)
        end = state.step + steps
        failed = run.advance(state.step, steps)
        fresh = (failed >= 0) & ~state.diverged.numpy()
        if not fresh.any():
            return run.state(end, state.diverged)
        # Tiles have stopped at moments of their own: go back, find the first failure, and bring all replicas there.
        longest = int(failed[fresh].min()) + 1
        run = _Run(self, process, state)
        failed = run.advance(state.step, longest, watch=1)
        count = int(failed[(failed >= 0) & ~state.diverged.numpy()].min()) + 1
        run = _Run(self, process, state)
        run.advance(state.step, count, watch=count + 1)
        now = ~torch.isfinite(torch.as_tensor(run.positions).sum(1))
        return run.state(state.step + count, state.diverged | now)

    def follow(self, process: Dynamics, state: State, normals: NDArray[Any]) -> State:
        """Advance along given normal numbers: the same Brownian path with another time step, for example.

        Parameters
        ----------
        process : Dynamics
            With its drift and noise.
        state : State
            Before.
        normals : ndarray, shape (replica, step, number)
            Standard normal numbers; F ΔW, with ΔW = √Δt times them, is subtracted, as noise of the gradient is. Twice as
            many a step for `StrongAdditive`, and for stable and coloured noise, which make their own increments of them.

        Returns
        -------
        State
            After as many steps. `LeimkuhlerMatthews` starts without the kick before the first one.

        Raises
        ------
        ConfigurationError
            If there are not as many numbers as the run needs.
        """
        noise = process.noise.compiled(process.landscape)
        per_step = noise.rank * (2 if isinstance(self, StrongAdditive) or process.noise.law != "brownian" else 1)
        wanted = (len(state.weights), per_step)
        if normals.ndim != 3 or (normals.shape[0], normals.shape[2]) != wanted or not normals.shape[1]:
            raise ConfigurationError(
                f"normals have shape {normals.shape}: expected (replica, step, number) = ({wanted[0]}, any, {per_step}), the "
                f"numbers that {type(self).__name__} needs for this noise; draw as many"
            )
        run = _Run(self, process, state)
        run.advance(state.step, normals.shape[1], given=normals)
        return run.state(state.step + normals.shape[1], state.diverged)


class _Run:
    """Arrays of one block of steps."""

    def __init__(self, update: CompiledUpdate, process: Dynamics, state: State) -> None:
        self._update, self._process, self._before = update, process, state
        _check_memories(update, process, state)
        self.positions = np.array(state.weights.detach().cpu().numpy(), order="C")
        nothing = np.zeros((len(self.positions), 0), self.positions.dtype)
        self._memory, self._noise_memory = (
            nothing if each is None else np.array(each.numpy(), self.positions.dtype, order="C")
            for each in (state.update_memory, state.noise_memory)
        )

    def advance(self, first: int, steps: int, watch: int = 64, given: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Advance in calls of about half a second, between which an interrupt is heard."""
        if given is not None:
            return self._call(first, steps, watch, given)
        together, done = max(watch, _WORK // max(1, self.positions.size)), 0
        while True:
            count = min(together, steps - done)
            failed = self._call(first + done, count, watch, None)
            found = (failed >= 0) & ~self._before.diverged.numpy()
            if found.any() or done + count == steps:
                return np.where(failed >= 0, failed + done, failed)
            done += count

    def _call(self, first: int, steps: int, watch: int, given: NDArray[Any] | None) -> NDArray[np.int64]:
        from langevin_nn.kernels.langevin import advance

        process, state = self._process, self._before
        noise = process.noise.over(process.time_step).compiled(process.landscape)
        failed: NDArray[np.int64] = advance(
            self._update.code,
            process.drift.compiled(),
            noise,
            self.positions,
            self._memory,
            self._noise_memory,
            replicas=state.replicas,
            key=state.seeds.key(PURPOSE),
            first_step=first,
            n_steps=steps,
            time_step=process.time_step,
            # Noise of the gradient is subtracted with it, as in every other update rule.
            strength=-noise.scale * process.learning_rate**process.noise.learning_rate_exponent,
            parameters=self._update.parameters(process.time_step),
            diverged=state.diverged.numpy(),
            given=given,
            watch=watch,
        )
        return failed

    def state(self, step: int, diverged: Tensor) -> State:
        before = self._before
        memory = None if before.update_memory is None else torch.as_tensor(self._memory)
        noise_memory = None if before.noise_memory is None else torch.as_tensor(self._noise_memory)
        return before.replaced(step, torch.as_tensor(self.positions), memory, noise_memory, diverged)


@dataclass(frozen=True)
class EulerMaruyama(CompiledUpdate):
    """x ← x − f Δt + F ΔW.

    Maruyama (1955, doi 10.1007/BF02846028); Kloeden & Platen (1992, doi 10.1007/978-3-662-12616-5), section 10.2. Runs
    any noise: constant noise makes its strong order 1, that of coloured noise at any Δt/τ. Stable noise has no moments to
    converge; its characteristic function does with order 1.
    """

    code = 0
    orders = {"constant": Orders(1.0, 1.0), "diagonal": Orders(0.5, 1.0), "full": Orders(0.5, 1.0)}  # noqa: RUF012
    laws = frozenset({"brownian", "coloured", "stable"})


@dataclass(frozen=True)
class Heun(CompiledUpdate):
    """x̃ = x − f Δt + F ΔW, then x ← x − ½ (f + f̃) Δt + ½ (F + F̃) ΔW: the equation in the sense of Stratonovich.

    Rümelin (1982, doi 10.1137/0719041). Its strong order is 1 where F is diagonal and out[i] depends on x[i] alone, else ½;
    of weak order 2 where F is constant, and both calculi agree.
    """

    code = 1
    calculus = "stratonovich"
    orders = {"constant": Orders(1.0, 2.0), "diagonal": Orders(1.0, 1.0), "full": Orders(0.5, 1.0)}  # noqa: RUF012


@dataclass(frozen=True)
class Milstein(CompiledUpdate):
    """x̃ = x − f Δt + F √Δt, then x ← x − f Δt + F ΔW + (F̃ − F) (ΔW² − Δt)/(2√Δt), for diagonal noise.

    Kloeden & Platen (1992, doi 10.1007/978-3-662-12616-5), equation (11.1.7): Milstein's scheme with a difference in the
    place of the derivative. out[i] of the amplitude must depend on x[i] alone.
    """

    code = 2
    orders = {"constant": Orders(1.0, 1.0), "diagonal": Orders(1.0, 1.0)}  # noqa: RUF012

    def check(self, process: Dynamics) -> None:  # noqa: D102
        super().check(process)
        _check_own_coordinates(self, process)


@dataclass(frozen=True)
class WeakSecondOrder(CompiledUpdate):
    """Platen's explicit scheme of weak order 2, for diagonal noise.

    Kloeden & Platen (1992, doi 10.1007/978-3-662-12616-5), equation (15.1.1), component by component, with Gaussian
    increments. out[i] of the amplitude must depend on x[i] alone.
    """

    code = 3
    orders = {"constant": Orders(1.0, 2.0), "diagonal": Orders(1.0, 2.0)}  # noqa: RUF012

    def check(self, process: Dynamics) -> None:  # noqa: D102
        super().check(process)
        _check_own_coordinates(self, process)


@dataclass(frozen=True)
class StrongAdditive(CompiledUpdate):
    """x̃ = x − ¾ f Δt + (3/2) F ΔZ/Δt, then x ← x − (f + 2 f̃) Δt/3 + F ΔW: strong order 3/2 for constant noise.

    SRA1 of Rößler (2010, doi 10.1137/09076636X), with ΔZ = ∫ W dt = ½ Δt (ΔW + ΔW′/√3) from a second, independent ΔW′.
    """

    code = 4
    orders = {"constant": Orders(1.5, 2.0)}  # noqa: RUF012


@dataclass(frozen=True)
class LeimkuhlerMatthews(CompiledUpdate):
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
class BAOAB(CompiledUpdate):
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


def _check_memories(update: CompiledUpdate, process: Dynamics, state: State) -> None:
    """Raise where a state is none of this process: kernels do not look at shapes."""
    weights, landscape = state.weights, process.landscape
    wanted = {
        "weights": (len(weights), landscape.n_parameters),
        "update_memory": _shape(update.start(weights)),
        "noise_memory": _shape(process.noise.start(landscape, weights)),
    }
    for name, shape in wanted.items():
        found = _shape(getattr(state, name))
        if found != shape:
            raise ConfigurationError(
                f"{name} of the state has shape {found}: expected {shape}, as {type(update).__name__} with "
                f"{type(unscaled(process.noise)).__name__} keeps it; advance a state that this process started, with "
                "process.start(..., weights=state.weights)"
            )


def _shape(memory: Tensor | None) -> tuple[int, ...] | None:
    return None if memory is None else tuple(memory.shape)


def _check_own_coordinates(update: CompiledUpdate, process: Dynamics) -> None:
    """Raise where a diagonal amplitude depends on other coordinates than its own, as far as a few points show."""
    noise, landscape = unscaled(process.noise), process.landscape
    if noise.dependence(landscape) != "diagonal" or landscape.n_parameters == 1 or not isinstance(noise, FactoredNoise):
        return
    from langevin_nn.kernels.fields import evaluate

    field = noise.compiled(landscape).field
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
