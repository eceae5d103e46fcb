"""Blocks of minibatch updates in the kernel of a landscape."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from math import isfinite

import torch
from torch import Tensor

from langevin_nn.draws import draws_at
from langevin_nn.engine.steps import Run
from langevin_nn.gradients import Problem
from langevin_nn.gradients.samples import number_of
from langevin_nn.noise import Minibatches

__all__ = ["kernel_block"]

_INDICES = 2**22  # of minibatches drawn ahead: 32 MiB


def kernel_block(runs: Sequence[Run], problem: Problem | None, end: int) -> None:
    """Make a block of updates of each, for minibatches and v ← μv + g + λw; `problem` is of all their replicas."""
    assert problem is not None
    n_rows = sum(len(run.weights) for run in runs) * (runs[0].process.noise.batch_size or 1)
    count = min(end - runs[0].step, max(1, _INDICES // n_rows))
    before = [copy(run) for run in runs]
    _make(runs, problem, count)
    for run, earlier in zip(runs, before, strict=True):
        if not isfinite(float(run.weights.sum())):
            run.mark()
        if run.stopped and count > 1:
            vars(run).update(vars(_until_it_breaks(earlier)))


def _until_it_breaks(run: Run) -> Run:
    """Make the updates of a block again, one by one, up to the first that broke."""
    alone = run.process.landscape.problem
    assert alone is not None
    while not run.stopped:
        _make([run], alone, 1)
        run.mark()
    return run


def _make(runs: Sequence[Run], problem: Problem, count: int) -> None:
    """Make so many updates."""
    rates = runs[0].update.descent_rates
    assert rates is not None
    indices = [_minibatches(run, number_of(problem.inputs), count) for run in runs]
    velocities = [run.memory for run in runs] if rates[0] else [run.weights[:0] for run in runs]
    time_steps = [torch.full((len(run.weights),), run.process.time_step) for run in runs]
    weights, velocity = torch.cat([run.weights for run in runs]), torch.cat(velocities)
    moved, remembered = problem.descend(weights, velocity, torch.cat(indices), torch.cat(time_steps), *rates)
    sizes = [len(run.weights) for run in runs]
    for position, run in enumerate(runs):
        run.weights = torch.split(moved, sizes)[position]
        if rates[0]:
            run.memory = torch.split(remembered, sizes)[position]
        run.step += count


def _minibatches(run: Run, n_samples: int, count: int) -> Tensor:
    """Return the samples of so many updates, shape (replica, step, row)."""
    noise = run.process.noise
    assert isinstance(noise, Minibatches)
    draws = draws_at(run.key(), run.weights)
    indices, run.noise_memory = noise.drawn(n_samples, run.noise_memory, draws, count)
    return indices.transpose(0, 1)
