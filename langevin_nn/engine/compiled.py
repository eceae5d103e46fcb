"""Schemes in Numba kernels: blocks of steps of many replicas without returning to Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.errors import ConfigurationError
from langevin_nn.noise.factored import PURPOSE
from langevin_nn.noise.scaled import unscaled
from langevin_nn.process import Process
from langevin_nn.update import Integrator, State, StrongAdditive

__all__ = ["advance", "follow"]

_WORK = 200_000_000  # numbers that a call changes


def advance(process: Process, state: State, steps: int) -> State:
    """Make a block of updates, up to the first that leaves a replica non-finite that was not before."""
    run = _Run(process, state)
    end = state.step + steps
    failed = run.advance(state.step, steps)
    fresh = (failed >= 0) & ~state.diverged.numpy()
    if not fresh.any():
        return run.state(end, state.diverged)
    # Tiles have stopped at moments of their own: go back, find the first failure, and bring all replicas there.
    longest = int(failed[fresh].min()) + 1
    run = _Run(process, state)
    failed = run.advance(state.step, longest, watch=1)
    count = int(failed[(failed >= 0) & ~state.diverged.numpy()].min()) + 1
    run = _Run(process, state)
    run.advance(state.step, count, watch=count + 1)
    now = ~torch.isfinite(torch.as_tensor(run.positions).sum(1))
    return run.state(state.step + count, state.diverged | now)


def follow(process: Process, state: State, normals: NDArray[Any]) -> State:
    """Advance along given normal numbers: the same Brownian path with another time step, for example.

    Parameters
    ----------
    process : Process
        Of an `Integrator`.
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
    update, noise = process.update, process.noise.formula(process.landscape)
    per_step = noise.rank * (2 if isinstance(update, StrongAdditive) or process.noise.law != "brownian" else 1)
    wanted = (len(state.weights), per_step)
    if normals.ndim != 3 or (normals.shape[0], normals.shape[2]) != wanted or not normals.shape[1]:
        raise ConfigurationError(
            f"normals have shape {normals.shape}: expected (replica, step, number) = ({wanted[0]}, any, {per_step}), the "
            f"numbers that {type(update).__name__} needs for this noise; draw as many"
        )
    run = _Run(process, state)
    run.call(state.step, normals.shape[1], given=normals)
    return run.state(state.step + normals.shape[1], state.diverged)


class _Run:
    """Arrays of one block of steps."""

    def __init__(self, process: Process, state: State) -> None:
        self._process, self._before = process, state
        _check_memories(process, state)
        self.positions = np.array(state.weights.detach().cpu().numpy(), order="C")
        nothing = np.zeros((len(self.positions), 0), self.positions.dtype)
        self._memory, self._noise_memory = (
            nothing if each is None else np.array(each.numpy(), self.positions.dtype, order="C")
            for each in (state.update_memory, state.noise_memory)
        )

    def advance(self, first: int, steps: int, watch: int = 64) -> NDArray[np.int64]:
        """Advance in calls of about half a second, between which an interrupt is heard."""
        together, done = max(watch, _WORK // max(1, self.positions.size)), 0
        while True:
            count = min(together, steps - done)
            failed = self.call(first + done, count, watch)
            found = (failed >= 0) & ~self._before.diverged.numpy()
            if found.any() or done + count == steps:
                return np.where(failed >= 0, failed + done, failed)
            done += count

    def call(self, first: int, steps: int, watch: int = 64, given: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Advance in one call; return after which step each replica was found not to be finite, −1 for never."""
        from langevin_nn.kernels.langevin import advance as advance_arrays

        process, state, update = self._process, self._before, self._process.update
        assert isinstance(update, Integrator)
        noise = process.noise.over(process.time_step).formula(process.landscape)
        failed: NDArray[np.int64] = advance_arrays(
            update.code,
            process.drift.formula(),
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
            parameters=update.parameters(process.time_step),
            diverged=state.diverged.numpy(),
            given=given,
            watch=watch,
        )
        return failed

    def state(self, step: int, diverged: Tensor) -> State:
        """Return where replicas are now."""
        before = self._before
        memory = None if before.update_memory is None else torch.as_tensor(self._memory)
        noise_memory = None if before.noise_memory is None else torch.as_tensor(self._noise_memory)
        return before.replaced(step, torch.as_tensor(self.positions), memory, noise_memory, diverged)


def _check_memories(process: Process, state: State) -> None:
    """Raise where a state is none of this process: kernels do not look at shapes."""
    weights, landscape, update = state.weights, process.landscape, process.update
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
