"""Blocks of updates on a device: static buffers, and on CUDA one recorded graph that is launched once an update."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from langevin_nn.draws import PhiloxDraws
from langevin_nn.engine.steps import Run, takes_minibatches
from langevin_nn.gradients import Problem
from langevin_nn.gradients.samples import number_of
from langevin_nn.noise import SampleWeightNoise, SampleWeights

__all__ = ["CapturedSteps", "Shape", "captured_block"]

_NUMBERS = 2**24  # sample weights or indices drawn ahead: 64 or 128 MiB
_MOST = 1024  # updates drawn ahead
_WARM_UP = 2  # updates before the capture, in which libraries make what they need
_KEPT = 2  # captures of one landscape


@dataclass(frozen=True)
class Shape:
    """Everything that a captured graph depends on, but for the numbers in its buffers."""

    replicas: int
    parameters: int
    labels: tuple[int, ...]
    rows: int  # samples that an update takes
    chosen: bool  # named by indices, rather than all in order
    equal: bool  # coefficients, in all updates
    momentum: float
    weight_decay: float

    @property
    def capacity(self) -> int:
        """Updates whose samples are drawn ahead."""
        return max(1, min(_MOST, _NUMBERS // (self.replicas * self.rows)))


class CapturedSteps:
    """Updates v ← μv + Σ c_k ∇ℓ_k + λw, w ← w − Δt v of many replicas in buffers that stay where they are.

    On CUDA an update is recorded once as a graph; launching it costs the same whatever it holds. Elsewhere, and where it
    cannot be recorded, the same operations run one by one.
    """

    def __init__(self, problem: Problem, shape: Shape, dtype: torch.dtype) -> None:
        device, rows = problem.labels.device, (shape.replicas, shape.rows)
        self.shape = shape
        self._problem = replace(problem, labels=torch.zeros_like(problem.labels))

        def buffer(*size: int, kind: torch.dtype = dtype) -> Tensor:
            return torch.zeros(size, dtype=kind, device=device)

        self._weights = buffer(shape.replicas, shape.parameters)
        self._velocities = buffer(shape.replicas if shape.momentum else 0, shape.parameters)
        self._time_steps = buffer(shape.replicas, 1)
        self._coefficients = buffer(1 if shape.equal else shape.capacity, *rows)
        self._indices = buffer(shape.capacity, *rows, kind=torch.int64) if shape.chosen else None
        self._position = buffer(1, kind=torch.int64)
        self._graph = self._captured() if device.type == "cuda" else None

    @classmethod
    def of(cls, problem: Problem, shape: Shape, dtype: torch.dtype) -> CapturedSteps:
        """Return the steps of a shape, those that were captured before where there are any."""
        kept = problem.path.kept
        found = kept.pop(shape, None) or cls(problem, shape, dtype)
        while len(kept) >= _KEPT:
            kept.pop(next(iter(kept)))
        kept[shape] = found  # the latest comes last
        return found

    @property
    def captured(self) -> bool:
        """Whether there is a graph."""
        return self._graph is not None

    def load(self, weights: Tensor, velocities: Tensor | None, labels: Tensor, time_steps: Tensor) -> None:
        """Write what a block starts from into the buffers; there are no velocities where μ = 0."""
        self._weights.copy_(weights)
        if velocities is not None:
            self._velocities.copy_(velocities)
        self._problem.labels.copy_(labels)
        self._time_steps.copy_(time_steps[:, None])
        self._position.zero_()

    def draw(self, drawn: SampleWeights) -> None:
        """Write the sample weights of the next updates, at most as many as there is room for, into the buffers."""
        self._coefficients[: len(drawn.coefficients)].copy_(drawn.coefficients)
        if self._indices is not None and drawn.indices is not None:
            self._indices[: len(drawn.indices)].copy_(drawn.indices)
        self._position.zero_()

    def run(self, count: int) -> None:
        """Make so many updates."""
        for _ in range(count):
            if self._graph is None:
                self._step()
            else:
                self._graph.replay()

    @property
    def weights(self) -> Tensor:
        """A copy of the weights, shape (replica, parameter)."""
        return self._weights.clone()

    @property
    def velocities(self) -> Tensor:
        """A copy of the velocities, shape (replica, parameter)."""
        return self._velocities.clone()

    def left(self) -> Tensor:
        """Return which replicas have left the finite numbers, shape (replica,), on the CPU: this waits for the device."""
        return ~torch.isfinite(self._weights.sum(1)).cpu()

    def _step(self) -> None:
        coefficients = self._at(self._coefficients)
        indices = None if self._indices is None else self._at(self._indices)
        gradient, samples = self._problem.path.capturable, (self._problem.inputs, self._problem.labels)
        assert gradient is not None
        velocity = gradient(self._weights, *samples, coefficients, indices)
        if self.shape.weight_decay:
            velocity = velocity + self.shape.weight_decay * self._weights
        if self.shape.momentum:
            velocity = self._velocities.mul_(self.shape.momentum).add_(velocity)
        self._weights.addcmul_(velocity, self._time_steps, value=-1)
        self._position.add_(1)

    def _at(self, ahead: Tensor) -> Tensor:
        """Return what belongs to the present update; the position is known to the device alone."""
        return ahead[0] if len(ahead) == 1 else ahead.index_select(0, self._position)[0]

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        """Record an update; None, with a warning, where that fails."""
        try:
            with torch.cuda.device(self._weights.device), torch.no_grad():
                aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                aside.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(aside):
                    for _ in range(_WARM_UP):
                        self._position.zero_()
                        self._step()
                torch.cuda.current_stream().wait_stream(aside)
                self._position.zero_()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                    self._step()
        except RuntimeError as error:
            warnings.warn(
                f"updates of this network cannot be captured as a CUDA graph ({str(error).splitlines()[0][:200]}): its "
                "operations are launched one by one, to the same numbers, but slower where replicas are few",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        return graph


def captured_block(runs: Sequence[Run], problem: Problem | None, end: int) -> None:
    """Make a block of updates of each by captured steps, for v ← μv + g + λw; `problem` is of all their replicas."""
    process, weights = runs[0].process, runs[0].weights
    rates, chosen = runs[0].update.descent_rates, takes_minibatches(process)
    assert problem is not None
    assert rates is not None
    n, labels, sizes = number_of(problem.inputs), problem.labels, [len(run.weights) for run in runs]
    rows = (process.noise.batch_size if chosen else None) or n
    shape = Shape(sum(sizes), weights.shape[1], tuple(labels.shape), rows, chosen, chosen, *rates)
    steps = CapturedSteps.of(problem, shape, weights.dtype)
    count = min(end - runs[0].step, shape.capacity)
    memories = [run.noise_memory for run in runs]
    drawn = _drawn_ahead(runs, sizes, n, count)
    steps.draw(drawn if chosen else SampleWeights(drawn.spread(n).expand(count, -1, -1)))
    velocities = torch.cat([run.memory for run in runs]) if rates[0] else None
    time_steps = torch.cat([weights.new_full((len(run.weights),), run.process.time_step) for run in runs])
    start = torch.cat([run.weights for run in runs]), velocities, labels, time_steps
    steps.load(*start)
    steps.run(count)
    before = torch.cat([run.diverged for run in runs]).cpu()
    left = steps.left()
    if count > 1 and bool((left & ~before).any()):
        # Again, one by one, up to the first that breaks; the others wait there.
        steps.load(*start)
        made, left = 0, before
        while made < count and not bool((left & ~before).any()):
            steps.run(1)
            made, left = made + 1, steps.left()
        if made < count:  # what the source remembers is of the updates that were made
            count = made
            for run, memory in zip(runs, memories, strict=True):
                run.noise_memory = memory
            _drawn_ahead(runs, sizes, n, count)
    weights_of, fresh = torch.split(steps.weights, sizes), torch.split(left & ~before, sizes)
    memories_of = torch.split(steps.velocities, sizes) if rates[0] else [run.memory for run in runs]
    for run, moved, velocity, broken in zip(runs, weights_of, memories_of, fresh, strict=True):
        run.weights, run.memory = moved, velocity
        run.step += count
        if bool(broken.any()):
            run.mark()


def _drawn_ahead(runs: Sequence[Run], sizes: list[int], n_samples: int, count: int) -> SampleWeights:
    """Draw the coefficients of drift and noise together for so many updates, of all processes at once."""
    process = runs[0].process
    assert isinstance(process.noise, SampleWeightNoise)
    noise = process.noise
    try:
        memory = _joined([run.noise_memory for run in runs])
    except ValueError:  # one process at a time
        each = [
            noise.sample_weights(n_samples, run.noise_memory, PhiloxDraws([run.key()], run.weights), count)
            for run in runs
        ]
        drawn, memories = _side_by_side([weights for weights, _ in each], count), [memory for _, memory in each]
    else:
        draws = PhiloxDraws([run.key() for run in runs], runs[0].weights)
        drawn, after = noise.sample_weights(n_samples, memory, draws, count)
        memories = _split(after, sizes)
    for run, own in zip(runs, memories, strict=True):
        run.noise_memory = own
    if process.noise_ratio == 1:
        return drawn
    ratios = [drawn.coefficients.new_full((len(run.weights), 1), run.process.noise_ratio) for run in runs]
    return drawn.scaled(torch.cat(ratios), n_samples)


def _side_by_side(drawn: Sequence[SampleWeights], count: int) -> SampleWeights:
    """Return what several processes drew as one, their replicas in order."""
    alike = all(len(each.coefficients) == 1 for each in drawn)  # in all steps
    coefficients = torch.cat([each.coefficients.expand(1 if alike else count, -1, -1) for each in drawn], 1)
    indices = [each.indices for each in drawn if each.indices is not None]
    return SampleWeights(coefficients, torch.cat(indices, 1) if indices else None)


def _joined(memories: Sequence[Any]) -> Any:
    """Return memories of several processes as one, the replicas of their tensors in order; raise where more differs."""
    first = memories[0]
    if len(memories) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(memories))
    if type(first) is tuple:
        return tuple(_joined(parts) for parts in zip(*memories, strict=True))
    if is_dataclass(first) and not isinstance(first, type):
        return replace(first, **{part: _joined([getattr(each, part) for each in memories]) for part in _parts(first)})
    if not isinstance(first, int | float | str | None) or any(each != first for each in memories):
        raise ValueError
    return first


def _split(memory: Any, sizes: list[int]) -> list[Any]:
    """Return the memory of each process."""
    if isinstance(memory, Tensor):
        return list(torch.split(memory, sizes))
    if len(sizes) == 1:
        return [memory]
    if type(memory) is tuple:
        return list(zip(*(_split(part, sizes) for part in memory), strict=True)) if memory else [()] * len(sizes)
    if is_dataclass(memory) and not isinstance(memory, type):
        parts = {part: _split(getattr(memory, part), sizes) for part in _parts(memory)}
        return [replace(memory, **{part: of_each[k] for part, of_each in parts.items()}) for k in range(len(sizes))]
    return [memory] * len(sizes)


def _parts(memory: Any) -> list[str]:
    return [each.name for each in fields(memory)]
