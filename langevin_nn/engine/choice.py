"""Which way a process advances, and the door to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from langevin_nn.checks import kind_of
from langevin_nn.engine import compiled
from langevin_nn.engine.blocks import kernel_block
from langevin_nn.engine.graph import captured_block
from langevin_nn.engine.steps import Block, in_blocks, one_update, takes_minibatches
from langevin_nn.errors import ConfigurationError, UnstableTrajectory
from langevin_nn.process import Process
from langevin_nn.provenance import told
from langevin_nn.threads import single_threaded_products
from langevin_nn.update import Integrator, State, SteppedUpdate

__all__ = ["Way", "advance", "advance_together", "shares", "way"]

Way: TypeAlias = Literal["compiled", "captured", "kernel", "stepwise"]
OnDivergence: TypeAlias = Literal["raise", "mask"]


def advance(
    process: Process,
    state: State,
    steps: int,
    on_divergence: OnDivergence = "raise",
    *,
    captured: bool | None = None,
) -> State:
    """Make a block of updates.

    Parameters
    ----------
    process : Process
        With its drift, noise and update rule.
    state : State
        Before.
    steps : int
        How many.
    on_divergence : {"raise", "mask"}, optional
        Whether a replica that leaves the finite numbers stops the run, or becomes NaN while the others go on.
    captured : bool, optional
        Whether noise is drawn, and blocks of updates run, by operations of the landscape's device that are captured as a
        graph where it is a GPU, wherever the process allows it; on CUDA unless said.

    Returns
    -------
    State
        After.

    Raises
    ------
    UnstableTrajectory
        With `on_divergence` "raise", naming the replica and the step.

    Examples
    --------
    >>> import numpy as np
    >>> from langevin_nn import Process
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import AnisotropicNoise
    >>> landscape = QuadraticLandscape(np.eye(1), np.zeros((1, 1)), start=[1.0])
    >>> process = Process(landscape, AnisotropicNoise(torch.zeros(1, 1)), learning_rate=0.5)
    >>> advance(process, process.start(replicas=1, seed=0), steps=2).weights
    tensor([[0.2500]], dtype=torch.float64)
    """
    (after,) = advance_together([(process, state)], steps, [on_divergence], captured=captured)
    if isinstance(after, UnstableTrajectory):
        raise after
    return after


def advance_together(
    members: Sequence[tuple[Process, State]],
    steps: int,
    on_divergence: Sequence[OnDivergence] | None = None,
    *,
    captured: bool | None = None,
) -> list[State | UnstableTrajectory]:
    """Make a block of updates of several processes, in one batched computation where they share one.

    Parameters
    ----------
    members : sequence of (Process, State)
        With equal `shares`, unless there is only one; all at the same step.
    steps : int
        How many.
    on_divergence : sequence of {"raise", "mask"}, optional
        Whether a replica that leaves the finite numbers stops its process, or becomes NaN while the others go on; all stop
        unless said.
    captured : bool, optional
        As in `advance`.

    Returns
    -------
    list of State or UnstableTrajectory
        Of each process, the bits that it has alone; where updates are captured those to rounding.
    """
    processes = [process for process, _ in members]
    found: list[State | UnstableTrajectory] = [state for _, state in members]
    wanted = on_divergence or ["raise"] * len(members)
    end = members[0][1].step + steps
    with single_threaded_products(), torch.no_grad():
        while waiting := [k for k, each in enumerate(found) if isinstance(each, State) and each.step < end]:
            before = {k: each for k in waiting if isinstance(each := found[k], State)}
            step = min(each.step for each in before.values())
            group = [k for k in waiting if before[k].step == step]
            now = {k: processes[k].at(step) for k in group}
            alike = min(processes[k].same_until(step) for k in group)
            after = _advanced([(now[k], before[k]) for k in group], min(end, alike) - step, captured)
            for k, state in zip(group, after, strict=True):
                found[k] = _checked(now[k], before[k], state, wanted[k])
    return found


def way(process: Process, captured: bool | None = None) -> Way:
    """Return which way a process advances.

    Parameters
    ----------
    process : Process
        With its drift, noise and update rule.
    captured : bool, optional
        As in `advance`.

    Returns
    -------
    {"compiled", "captured", "kernel", "stepwise"}
        In the kernel of a scheme; in blocks captured as a graph; in blocks in the kernel of a network; update by update.

    Raises
    ------
    ConfigurationError
        If its rule is none that can be run.
    """
    own = next((each for each in type(process).__mro__ if "advance" in vars(each)), Process)
    if own is not Process:
        raise ConfigurationError(
            f"{own.__name__} has a method 'advance', which no run calls: expected the parts of a process to say what a step "
            "is; give `apply` of an update rule, or `stochastic_gradient` of the process"
        )
    process = process.at(0)
    update = process.update
    if isinstance(update, Integrator):
        return "compiled"
    if not isinstance(update, SteppedUpdate):
        raise ConfigurationError(
            f"update is {kind_of(update)}: expected a SteppedUpdate, which says with `apply` how weights follow from a "
            "gradient, since nothing else says what a step of it is; extend that class"
        )
    here = process.landscape.device.type == "cuda" if captured is None else captured
    if here and _can_be_captured(process):
        return "captured"
    problem = process.landscape.problem
    if problem is not None and problem.path.descend is not None and _is_descent(process) and takes_minibatches(process):
        return "kernel"
    return "stepwise"


def shares(process: Process) -> str | None:
    """Name what computes drift and noise: processes of equal names advance in one batch, other ones by themselves.

    They may differ in labels, learning rate, seeds and initial weights.

    Parameters
    ----------
    process : Process
        With its drift, noise and update rule.

    Returns
    -------
    str or None
        None where it shares nothing.
    """
    if not (process.is_one_sum and isinstance(process.update, SteppedUpdate)):
        return None
    problem = process.landscape.problem
    if problem is None or problem.identity is None:
        return None
    # What changes along the run changes the block of updates, and where it ends.
    rates = f"{process.learning_rate!r} {process.time_step!r}" if process.has_schedule else process.noise_ratio == 1
    return f"{problem.identity} {_told(process.noise)} {_told(process.update)} {rates}"


def _told(part: Any) -> str:
    """Return a part in words that no other has: by its fields; what is no value, by where it lies."""
    if is_dataclass(part):
        return f"{told(type(part))} {[_told(getattr(part, each.name)) for each in fields(part)]}"
    return repr(part) if isinstance(part, bool | int | float | str | NoneType | np.generic) else object.__repr__(part)


def _advanced(members: Sequence[tuple[Process, State]], count: int, captured: bool | None) -> list[State]:
    """Make updates of processes that share a computation, each up to the first that leaves the finite numbers."""
    chosen = way(members[0][0], captured)
    if chosen == "compiled":
        return [compiled.advance(process, state, count) for process, state in members]
    blocks: dict[Way, Block] = {"captured": captured_block, "kernel": kernel_block, "stepwise": one_update}
    return in_blocks(members, count, blocks[chosen])


def _said_by_itself(part: Any, name: str) -> Any:
    """Return what the class of a part says; None where one above it does, of which it may have changed the meaning."""
    return getattr(part, name) if name in vars(type(part)) else None


def _is_descent(process: Process) -> bool:
    """Whether the rule is v ← μv + g + λw, w ← w − Δt v."""
    return _said_by_itself(process.update, "descent_rates") is not None


def _can_be_captured(process: Process) -> bool:
    """Whether blocks of updates can run on a device, whichever it is, without a look at its numbers."""
    portable = bool(_said_by_itself(process.noise, "portable"))
    if not (portable and _is_descent(process) and process.is_one_sum):
        return False
    problem = process.landscape.problem
    return problem is not None and problem.path.capturable is not None


def _checked(process: Process, before: State, state: State, on_divergence: str) -> State | UnstableTrajectory:
    fresh = state.diverged & ~before.diverged
    if not bool(fresh.any()):
        return state
    if on_divergence == "raise":
        replica = state.replicas[int(torch.nonzero(fresh)[0, 0])]
        return UnstableTrajectory(replica, state.step, process.time_step)
    masked = state.weights.masked_fill(state.diverged[:, None], torch.nan)
    return state.replaced(state.step, masked, state.update_memory, state.noise_memory, state.diverged)
