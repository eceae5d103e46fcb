"""The loop of rules that are applied step by step, to replicas of several processes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import TypeAlias

import torch
from torch import Tensor

from langevin_nn.draws import draws_at
from langevin_nn.gradients.problem import Problem, joined
from langevin_nn.noise import Minibatches, SampleWeightNoise, SampleWeights
from langevin_nn.process import Process
from langevin_nn.seeds import Key
from langevin_nn.update import State, SteppedUpdate

__all__ = ["Block", "Run", "in_blocks", "one_update", "takes_minibatches"]


class Run:
    """One process under way.

    Parameters
    ----------
    process : Process
        Which; of a `SteppedUpdate`.
    before : State
        From where it started.
    """

    def __init__(self, process: Process, before: State) -> None:
        assert isinstance(process.update, SteppedUpdate)
        self.process, self.update, self._before = process, process.update, before
        self.step, self.weights, self.diverged = before.step, before.weights, before.diverged
        self.memory, self.noise_memory = before.update_memory, before.noise_memory
        self.stopped = False

    def mark(self) -> None:
        """Stop where a replica has left the finite numbers that was not outside before."""
        now = ~torch.isfinite(self.weights.sum(1))
        if bool((now & ~self.diverged).any()):
            self.stopped, self.diverged = True, now | self.diverged

    def key(self) -> Key:
        """Return the address of the next update."""
        return self._before.key(self.step)

    def state(self) -> State:
        """Return where it is now."""
        return self._before.replaced(self.step, self.weights, self.memory, self.noise_memory, self.diverged)


Block: TypeAlias = Callable[[Sequence[Run], Problem | None, int], None]


def in_blocks(members: Sequence[tuple[Process, State]], steps: int, block: Block) -> list[State]:
    """Make updates of several processes in one batched computation.

    Parameters
    ----------
    members : sequence of (Process, State)
        Processes of one `SteppedUpdate` which share what computes their gradients, or one of any kind.
    steps : int
        How many.
    block : callable
        Makes some updates of each, at least one, given runs, the problem of all their replicas and the last step.

    Returns
    -------
    list of State
        After. A process stops early at the first update that leaves a replica non-finite that was not before; the others
        go on. The bits of each are those that it has alone, where updates are captured those to rounding.
    """
    runs = [Run(process, state) for process, state in members]
    running, end = list(runs), members[0][1].step + steps
    while running and running[0].step < end:
        problem, size = _joint(running), len(running)
        while len(running) == size and running[0].step < end:
            block(running, problem, end)
            running = [each for each in running if not each.stopped]
            if not running:
                break
    return [each.state() for each in runs]


def one_update(runs: Sequence[Run], problem: Problem | None, end: int) -> None:
    """Make one update of each: a `Block` for any rule, noise and landscape.

    Parameters
    ----------
    runs : sequence of Run
        At the same step.
    problem : Problem or None
        Of all their replicas; None where each process is asked for its own gradients.
    end : int
        Where they are to go.
    """
    for run, gradient in zip(runs, _gradients(runs, problem), strict=True):
        rates = run.process.learning_rate, run.process.time_step
        run.weights, run.memory = run.update.apply(run.weights, run.memory, gradient, *rates)
        run.step += 1
        # One sum finds any non-finite weight at the price of one pass; only then is it asked whose it is.
        if not isfinite(float(run.weights.sum())):
            run.mark()


def takes_minibatches(process: Process) -> bool:
    """Return whether an update is the mean gradient over a minibatch.

    Parameters
    ----------
    process : Process
        With its drift and noise.

    Returns
    -------
    bool
        Not where sample weights are drawn otherwise, or scaled.
    """
    noise = process.noise
    own = isinstance(noise, Minibatches) and type(noise).sample_weights is Minibatches.sample_weights
    return own and process.is_one_sum and process.noise_ratio == 1


def _joint(runs: Sequence[Run]) -> Problem | None:
    """Return what gives the gradients of all replicas; None where each process is asked for its own."""
    problems = [run.process.landscape.problem for run in runs]
    known = [each for each in problems if each is not None]
    return joined(known, [len(run.weights) for run in runs]) if len(known) == len(runs) else None


def _gradients(runs: Sequence[Run], problem: Problem | None) -> list[Tensor]:
    """Return drift and noise of every process: in one pass where they share one."""
    if problem is None or len(runs) == 1:
        found = []
        for run in runs:
            gradient, run.noise_memory = run.process.stochastic_gradient(run.weights, run.noise_memory, run.key())
            found.append(gradient)
        return found
    drawn = [_sample_weights(run, len(problem.inputs)) for run in runs]
    indices = [each.indices for each in drawn if each.indices is not None]
    gradient = problem.weighted_gradient(
        torch.cat([run.weights for run in runs]),
        torch.cat([each.coefficients for each in drawn]),
        torch.cat(indices) if indices else None,
    )
    return list(torch.split(gradient, [len(run.weights) for run in runs]))


def _sample_weights(run: Run, n_samples: int) -> SampleWeights:
    """Draw the coefficients of drift and noise together for the next update of a process in which they are one sum."""
    noise, ratio = run.process.noise, run.process.noise_ratio
    assert isinstance(noise, SampleWeightNoise)
    draws = draws_at(run.key(), run.weights)
    several, run.noise_memory = noise.sample_weights(n_samples, run.noise_memory, draws, 1)
    return several.at(0) if ratio == 1 else several.at(0).scaled(ratio, n_samples)
