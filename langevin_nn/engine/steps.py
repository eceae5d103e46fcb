"""The loop of rules that are applied step by step, to replicas of several processes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import TypeAlias

import torch
from torch import Tensor

from langevin_nn.draws import draws_at
from langevin_nn.gradients.problem import Problem, joined
from langevin_nn.gradients.samples import number_of
from langevin_nn.noise import Minibatches, SampleWeightNoise, SampleWeights
from langevin_nn.process import Process
from langevin_nn.seeds import Key
from langevin_nn.update import State, SteppedUpdate

__all__ = ["Block", "Run", "in_blocks", "one_update", "takes_minibatches"]


class Run:
    """One process of a `SteppedUpdate` under way."""

    def __init__(self, process: Process, before: State) -> None:
        assert isinstance(process.update, SteppedUpdate)
        self.process, self.update, self._before = process, process.update, before
        self.step, self.weights, self.diverged = before.step, before.weights, before.diverged
        self.memory, self.noise_memory = before.update_memory, before.noise_memory
        self.stopped = False

    def mark(self) -> None:
        """Stop where a replica has left the finite numbers that was not outside before."""
        now = ~torch.isfinite(self.weights.sum(1, dtype=_wide(self.weights)))
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
    """Make updates of several processes which share what computes their gradients, or of one of any kind."""
    # One that leaves the finite numbers stops at the update that did it, and the others go on. Bits are those that each has
    # alone; where updates are captured, those to rounding.
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
    """Make one update of each: a `Block` for any rule, noise and landscape."""
    for run, gradient in zip(runs, _gradients(runs, problem), strict=True):
        rates = run.process.learning_rate, run.process.time_step
        run.weights, run.memory = run.update.apply(run.weights, run.memory, gradient, *rates)
        run.step += 1
        # One sum finds any non-finite weight at the price of one pass; only then is it asked whose it is.
        if not isfinite(float(run.weights.sum(dtype=_wide(run.weights)))):
            run.mark()


def _wide(weights: Tensor) -> torch.dtype:
    """Return a precision in which finite weights have a finite sum."""
    return torch.float32 if weights.dtype == torch.float16 else weights.dtype


def takes_minibatches(process: Process) -> bool:
    """Return whether an update is the mean gradient over a minibatch: sample weights are drawn so, and not scaled."""
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
    drawn = [_sample_weights(run, number_of(problem.inputs)) for run in runs]
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
