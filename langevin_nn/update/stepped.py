"""Rules that are applied step by step, and the loop that applies them to replicas of several processes at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from langevin_nn.gradients.problem import Problem, joined
from langevin_nn.landscape import EmpiricalLandscape
from langevin_nn.noise import Minibatches, SampleWeightNoise, SampleWeights
from langevin_nn.seeds import Key
from langevin_nn.update.base import Dynamics, Update
from langevin_nn.update.captured import CapturedSteps, Shape
from langevin_nn.update.state import State

__all__ = ["SteppedUpdate"]

_INDICES = 2**22  # of minibatches drawn ahead: 32 MiB


class SteppedUpdate(Update):
    """A rule that is applied step by step to drift and noise together, of any landscape."""

    laws = frozenset({"brownian", "coloured", "stable"})

    @abstractmethod
    def apply(
        self, weights: Tensor, memory: Any, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, Any]:
        """Make one update.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Before.
        memory : object
            The rule's memory.
        gradient : Tensor, shape (replica, parameter)
            Drift and noise together.
        learning_rate : float
            α, which sets the noise.
        time_step : float
            Δt, which sets the discretisation.

        Returns
        -------
        weights : Tensor, shape (replica, parameter)
            After.
        memory : object
            For the next update.
        """

    @property
    def descent_rates(self) -> tuple[float, float] | None:
        """μ and λ where the rule is v ← μv + g + λw, w ← w − Δt v; None for others."""
        return None

    def advance(self, process: Dynamics, state: State, steps: int) -> State:  # noqa: D102
        return self.advance_together([(process, state)], steps)[0]

    def advance_together(
        self, members: Sequence[tuple[Dynamics, State]], steps: int, captured: bool | None = None
    ) -> list[State]:
        """Make a block of updates of several processes in one batched computation.

        Parameters
        ----------
        members : sequence of (Dynamics, State)
            Processes of this rule which share what computes their gradients (equal `Dynamics.shares`), or one of any kind.
        steps : int
            How many.
        captured : bool, optional
            Whether noise is drawn, and blocks of updates run, by operations of the landscape's device that are captured as
            a graph where it is a GPU, wherever process and landscape allow it; on CUDA unless said.

        Returns
        -------
        list of State
            After. A process stops early at the first update that leaves a replica non-finite that was not before; the
            others go on. The bits of each are those that it has alone, where updates are captured those to rounding.
        """
        runs = [_Run(process, state) for process, state in members]
        running, end = list(runs), members[0][1].step + steps
        while running and running[0].step < end:
            joint = _joint(running)
            size = len(running)
            here = joint is not None and joint.inputs.device.type == "cuda" if captured is None else captured
            while len(running) == size and running[0].step < end:
                if here and joint is not None and self.can_be_captured(running[0].process):
                    self._descend_captured(running, joint, end)
                elif joint is not None and joint.path.descend is not None and self._is_descent(running[0].process):
                    self._descend(running, joint, end)
                else:
                    self._step(running, joint)
                running = [each for each in running if not each.stopped]
                if not running:
                    break
        return [each.state() for each in runs]

    def can_be_captured(self, process: Dynamics) -> bool:
        """Return whether blocks of updates can run on a device without a look at its numbers.

        Parameters
        ----------
        process : Dynamics
            Of this rule.

        Returns
        -------
        bool
            On whatever device it is.
        """
        noise, landscape = process.noise, process.landscape
        return (
            self.descent_rates is not None
            and process.is_fused
            and isinstance(noise, SampleWeightNoise)
            and noise.draws_on_device
            and isinstance(landscape, EmpiricalLandscape)
            and landscape.problem is not None
        )

    def _is_descent(self, process: Dynamics) -> bool:
        return self.descent_rates is not None and process.takes_minibatches

    def _step(self, runs: Sequence[_Run], joint: Problem | None) -> None:
        """Make one update of each."""
        for run, gradient in zip(runs, _gradients(runs, joint), strict=True):
            rates = run.process.learning_rate, run.process.time_step
            run.weights, run.memory = self.apply(run.weights, run.memory, gradient, *rates)
            run.step += 1
            # One sum finds any non-finite weight at the price of one pass; only then is it asked whose it is.
            if not isfinite(float(run.weights.sum())):
                run.mark()

    def _descend(self, runs: Sequence[_Run], joint: Problem, end: int) -> None:
        """Make a block of updates of each in a kernel."""
        n_rows = sum(len(run.weights) for run in runs) * (runs[0].process.noise.batch_size or 1)
        count = min(end - runs[0].step, max(1, _INDICES // n_rows))
        before = [copy(run) for run in runs]
        self._block(runs, joint, count)
        for run, earlier in zip(runs, before, strict=True):
            if not isfinite(float(run.weights.sum())):
                run.mark()
            if run.stopped and count > 1:
                vars(run).update(vars(self._until_it_breaks(earlier)))

    def _descend_captured(self, runs: Sequence[_Run], joint: Problem, end: int) -> None:
        """Make a block of updates of each by captured steps."""
        rates = self.descent_rates
        assert rates is not None
        steps = CapturedSteps.of(joint, _shape(runs, joint.labels, rates), runs[0].weights.dtype)
        count = min(end - runs[0].step, steps.shape.capacity)
        steps.draw(_drawn_ahead(runs, count))
        start = _start_of(runs, joint.labels, rates[0])
        steps.load(*start)
        steps.run(count)
        before = torch.cat([run.diverged for run in runs]).cpu()
        left = steps.left()
        if count > 1 and bool((left & ~before).any()):
            # Again, one by one, up to the first that breaks; the others wait there.
            steps.load(*start)
            for made in range(1, count + 1):
                steps.run(1)
                left = steps.left()
                if bool((left & ~before).any()):
                    count = made
                    break
        sizes = [len(run.weights) for run in runs]
        weights_of, fresh = torch.split(steps.weights, sizes), torch.split(left & ~before, sizes)
        velocities = torch.split(steps.velocities, sizes) if rates[0] else [run.memory for run in runs]
        for run, weights, velocity, broken in zip(runs, weights_of, velocities, fresh, strict=True):
            run.weights, run.memory = weights, velocity
            run.step += count
            if bool(broken.any()):
                run.mark()

    def _until_it_breaks(self, run: _Run) -> _Run:
        """Make the updates of a block again, one by one, up to the first that broke."""
        alone = _joint([run])
        assert alone is not None
        while not run.stopped:
            self._block([run], alone, 1)
            run.mark()
        return run

    def _block(self, runs: Sequence[_Run], joint: Problem, count: int) -> None:
        rates = self.descent_rates
        assert rates is not None
        indices = [run.draw_minibatches(count) for run in runs]
        velocities = [run.memory for run in runs] if rates[0] else [run.weights[:0] for run in runs]
        time_steps = [torch.full((len(run.weights),), run.process.time_step) for run in runs]
        weights, velocity = torch.cat([run.weights for run in runs]), torch.cat(velocities)
        moved, remembered = joint.descend(weights, velocity, torch.cat(indices), torch.cat(time_steps), *rates)
        sizes = [len(run.weights) for run in runs]
        for position, run in enumerate(runs):
            run.weights = torch.split(moved, sizes)[position]
            if rates[0]:
                run.memory = torch.split(remembered, sizes)[position]
            run.step += count


class _Run:
    """One process under way.

    Parameters
    ----------
    process : Dynamics
        Which.
    before : State
        From where it started.
    """

    def __init__(self, process: Dynamics, before: State) -> None:
        self.process, self._before = process, before
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

    def draw_minibatches(self, count: int) -> Tensor:
        """Return the samples of so many updates, shape (replica, step, row)."""
        assert isinstance(self.process.noise, Minibatches)
        assert isinstance(self.process.landscape, EmpiricalLandscape)
        drawn, self.noise_memory = self.process.noise.minibatches(
            self.process.landscape, self.noise_memory, self.key(), count
        )
        return torch.as_tensor(drawn).to(torch.int64)

    def state(self) -> State:
        """Return where it is now."""
        return self._before.replaced(self.step, self.weights, self.memory, self.noise_memory, self.diverged)


def _shape(runs: Sequence[_Run], labels: Tensor, rates: tuple[float, float]) -> Shape:
    """Return what the captured steps of some processes depend on."""
    process, n_replicas = runs[0].process, sum(len(run.weights) for run in runs)
    landscape, chosen = process.landscape, process.takes_minibatches
    assert isinstance(landscape, EmpiricalLandscape)
    rows = (process.noise.batch_size if chosen else None) or landscape.n_samples
    return Shape(n_replicas, landscape.n_parameters, tuple(labels.shape), rows, chosen, chosen, *rates)


def _start_of(runs: Sequence[_Run], labels: Tensor, momentum: float) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Return what captured steps load."""
    weights = torch.cat([run.weights for run in runs])
    velocities = None if momentum == 0 else torch.cat([run.memory for run in runs])
    time_steps = torch.cat([weights.new_full((len(run.weights),), run.process.time_step) for run in runs])
    return weights, velocities, labels, time_steps


def _drawn_ahead(runs: Sequence[_Run], count: int) -> SampleWeights:
    """Draw the coefficients of drift and noise together for so many updates, on the device."""
    process = runs[0].process
    noise, landscape = process.noise, process.landscape
    assert isinstance(noise, SampleWeightNoise)
    assert isinstance(landscape, EmpiricalLandscape)
    memories, keys = [run.noise_memory for run in runs], [run.key() for run in runs]
    drawn, after = noise.draw_on_device(landscape, memories, keys, count)
    for run, memory in zip(runs, after, strict=True):
        run.noise_memory = memory
    if process.noise_ratio == 1:
        return drawn
    n = landscape.n_samples
    ratios = torch.cat([drawn.coefficients.new_full((len(run.weights), 1), run.process.noise_ratio) for run in runs])
    return SampleWeights(1 / n + ratios * (drawn.spread(n) - 1 / n))


def _joint(runs: Sequence[_Run]) -> Problem | None:
    """Return what gives the gradients of all replicas; None where each process is asked for its own."""
    landscapes = [run.process.landscape for run in runs]
    problems = [each.problem if isinstance(each, EmpiricalLandscape) else None for each in landscapes]
    known = [each for each in problems if each is not None]
    return joined(known, [len(run.weights) for run in runs]) if len(known) == len(runs) else None


def _gradients(runs: Sequence[_Run], joint: Problem | None) -> list[Tensor]:
    """Return drift and noise of every process: in one pass where they share one."""
    if joint is None or len(runs) == 1:
        found = []
        for run in runs:
            gradient, run.noise_memory = run.process.stochastic_gradient(run.weights, run.noise_memory, run.key())
            found.append(gradient)
        return found
    coefficients, indices = [], []
    for run in runs:
        of_run, rows, run.noise_memory = run.process.fused_weights(run.noise_memory, run.key())
        coefficients.append(of_run)
        if rows is not None:
            indices.append(rows)
    gradient = joint.weighted_gradient(
        torch.cat([run.weights for run in runs]), torch.cat(coefficients), torch.cat(indices) if indices else None
    )
    return list(torch.split(gradient, [len(run.weights) for run in runs]))
