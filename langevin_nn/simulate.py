"""The loop: process + schedule + observables + store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from langevin_nn.errors import (
    ConfigurationError,
    StorageError,
    UnknownNameError,
    UnstableTrajectory,
)
from langevin_nn.noise.base import is_number, kind_of
from langevin_nn.observables import Observable, Snapshot, default_observables
from langevin_nn.process import Process, State
from langevin_nn.process.base import as_replicas, as_seeds
from langevin_nn.provenance import attributes, plain
from langevin_nn.schedules import EverySteps, Schedule
from langevin_nn.seeds import Seeds
from langevin_nn.store import (
    Recorder,
    SegmentFolder,
    folder_of,
    open_trajectory,
    refuse_unless_it_fits,
    write_trajectory,
)
from langevin_nn.store.resumption import finished_run, has_remains, state_to_go_on_from, target_of
from langevin_nn.store.segments import read_segments
from langevin_nn.threads import single_threaded_products

__all__ = ["simulate"]

_ON_DIVERGENCE = ("raise", "mask")
_FIRST_BLOCK = 64  # updates
_BLOCK_SECONDS = 1.0


def simulate(
    process: Process,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    replicas: int | Iterable[int] = 4,
    seed: int | Seeds = 0,
    weights: Any = None,
    schedule: Schedule | None = None,
    observables: Observable | Iterable[Observable] | None = None,
    path: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    memory_limit: int | float | str | None = None,
    segment_seconds: float = 30.0,
    on_divergence: Literal["raise", "mask"] = "raise",
    progress: bool | None = None,
    config: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Run replicas of a process and record them.

    Parameters
    ----------
    process : Process
        What to run.
    epochs : float, optional
        How long, in epochs; this or `steps`.
    steps : int, optional
        How long, in updates.
    replicas : int or iterable of int, optional
        How many, or the indices of which.
    seed : int or Seeds, optional
        Owner of all randomness.
    weights : array, shape (replica, parameter), optional
        Where to start; drawn by the landscape unless said.
    schedule : Schedule, optional
        When to record the root group; about 200 times unless said.
    observables : Observable or iterable of Observable, optional
        What to record; losses, order parameters and the driving noise unless said.
    path : path, optional
        File to write the trajectory to. While the run goes on, and after it was killed, its records lie in finished
        segments in a folder beside it, ``<path>.segments``; `open_trajectory` opens either.
    resume : path, optional
        In the place of `path`: go on with the run that was killed or interrupted there, to the same bits as an
        uninterrupted one. What has ended is returned as it is, what has not begun begins.
    memory_limit : int, float or str, optional
        The most that recording holds in memory where there is a path, such as ``"64 MiB"``; 256 MiB, or four records, unless
        said. Without a path all records are held.
    segment_seconds : float, optional
        After how many seconds a segment is finished at the latest: what a killed run loses.
    on_divergence : {"raise", "mask"}, optional
        Whether a replica that leaves the finite numbers stops the run, or becomes NaN while the others go on.
    progress : bool, optional
        Whether to show a progress bar; on a terminal unless said.
    config : mapping, optional
        Added to the configuration that the file carries.

    Returns
    -------
    xarray.DataTree
        Scalars in the root; groups ``spectrum``, ``samples``, ``weights`` where asked for. Lazily opened from the file where
        there is a path.

    Raises
    ------
    ConfigurationError
        If the length of the run is not given exactly once, or an argument cannot be run, or what it would record does not
        fit into memory or on the disk, before anything is computed; also where another run's remains are at `path`, or the
        run to resume has another configuration.
    RunInUse
        If another process is writing the run.
    StorageError
        If the disk fails meanwhile; what was committed stays, and `resume` goes on from there.
    DamagedTrajectory
        If the run to resume is damaged.
    UnknownNameError
        If `on_divergence` is none of its names.
    UnstableTrajectory
        If a replica diverges; carries everything that was recorded until then.

    Examples
    --------
    >>> import numpy as np
    >>> from langevin_nn import AnisotropicNoise, Process, QuadraticLandscape
    >>> landscape = QuadraticLandscape(np.eye(2), np.zeros((2, 2)), start=[2.0, 0.0])
    >>> process = Process(landscape, AnisotropicNoise(landscape.noise_factor()), learning_rate=0.5)
    >>> trajectory = simulate(process, steps=2, replicas=1, schedule=EverySteps(1))
    >>> trajectory.train_loss.sel(cohort="all").values  # ½ (2 · 0.5ⁿ)²
    array([[2.   , 0.5  , 0.125]])
    """
    if not isinstance(process, Process):
        raise ConfigurationError(
            f"process is {kind_of(process)}: expected a Process, the thing to run; make one with langevin_nn.sgd(...), "
            "langevin(...) or Process(...)"
        )
    if on_divergence not in _ON_DIVERGENCE:
        raise UnknownNameError("on_divergence", on_divergence, _ON_DIVERGENCE)
    if schedule is not None and not isinstance(schedule, Schedule):
        raise ConfigurationError(
            f"schedule is {kind_of(schedule)}: expected a Schedule, which says when to record; use EverySteps(n) or "
            "EveryEpochs(n)"
        )
    last = _last_step(process, epochs, steps)
    chosen = _chosen(observables)
    schedule = schedule or EverySteps(max(1, last // 200))
    due = _due_steps(process, chosen, schedule, last)
    seeds = as_seeds(seed)
    target = target_of(path, resume)
    indices = as_replicas(replicas)
    described = _described(process, seeds, last, indices, chosen, schedule, on_divergence, weights) | dict(config or {})
    if target is not None and resume is not None and (ended := finished_run(target, described)) is not None:
        return ended
    expected: dict[str, int] = {}
    for group in {each.group for each in chosen}:
        of_group = {step for step, observables in due.items() for each in observables if each.group == group}
        expected[group] = len(of_group)
    _refuse_unless_it_fits(process, due, len(indices), target, memory_limit)
    state = None if has_remains(target, resume is not None) else process.start(indices, seeds, weights)
    folder = None if target is None else SegmentFolder(folder_of(target), attributes(described, complete=False))
    try:
        recorded = False
        if folder is not None and resume is not None:
            found = state_to_go_on_from(folder, described, process.landscape.device)
            state, recorded = found or (state, False)
        if state is None:  # the run had been killed before anything was committed
            state = process.start(indices, seeds, weights)
        recorder = Recorder(
            indices,
            attributes(described) if folder is None else folder.manifest.attributes,
            _coordinates(process, indices),
            expected,
            folder,
            memory_limit,
            segment_seconds,
        )
        done = state.step if recorded else state.step - 1
        remaining = {step: due[step] for step in sorted(due) if step > done}
        run = _Run(process, recorder, on_divergence, state, recorded, folder is not None)
        try:
            with tqdm(
                total=last,
                initial=state.step,
                desc=process.name or "process",
                unit="step",
                disable=_disabled(progress),
            ) as bar:
                for step, observables in remaining.items():
                    run.advance(step, bar)
                    run.record(observables)
        except UnstableTrajectory as error:
            # Whoever goes on from here diverges again: the run has ended, and becomes a file.
            error.trajectory = run.finish(target, folder, complete=False)
            raise
        except StorageError:
            raise
        except BaseException as error:
            run.rescue(error)
            raise
        return run.finish(target, folder, complete=True)
    finally:
        if folder is not None:
            folder.close()


class _Run:
    """The loop's state: where the replicas are, and whether what is due there has been recorded.

    Parameters
    ----------
    process : Process
        What runs.
    recorder : Recorder
        Where records go.
    on_divergence : {"raise", "mask"}
        What to do about replicas that leave the finite numbers.
    state : State
        Where to begin.
    recorded : bool
        Whether what is due there has been recorded.
    commits : bool
        Whether records go to segments.
    """

    def __init__(
        self,
        process: Process,
        recorder: Recorder,
        on_divergence: Literal["raise", "mask"],
        state: State,
        recorded: bool,
        commits: bool,
    ) -> None:
        self._process, self._recorder, self._on_divergence = process, recorder, on_divergence
        self._state, self._recorded, self._commits = state, recorded, commits
        self._pace = _FIRST_BLOCK

    def advance(self, step: int, bar: Any) -> None:
        """Go to a step, in blocks of about a second, after which a state can be saved."""
        while self._state.step < step:
            count = min(self._pace, step - self._state.step)
            started = monotonic()
            self._state = self._process.advance(self._state, count, self._on_divergence)
            self._recorded = self._state.step < step
            if count == self._pace:
                seconds = max(monotonic() - started, 1e-9)
                self._pace = max(1, min(2 * self._pace, round(self._pace * _BLOCK_SECONDS / seconds)))
            bar.update(self._state.step - bar.n)
            if self._recorded:
                self._recorder.commit_if_due(self._state)

    def record(self, observables: list[Observable]) -> None:
        """Record what is due here."""
        first = not self._recorder.started
        self._recorded = False
        _record(self._process, self._state, observables, self._recorder, self._on_divergence)
        self._recorded = True
        if self._commits and first and self._state.step == 0:
            # At once: what cannot be written or saved is found before the work, and the run can be looked at.
            self._recorder.commit(self._state, recorded=True)
        else:
            self._recorder.commit_if_due(self._state)

    def rescue(self, error: BaseException) -> None:
        """Keep what there is, whatever ended the run, an interrupt too."""
        if not self._recorded:
            self._recorder.drop_from(self._state.step)
        if not self._commits or not (self._recorder.started or self._state.step):
            return
        try:
            self._recorder.commit(self._state, self._recorded)
        except StorageError as second:
            error.add_note(f"and then {second}")

    def finish(self, target: Path | None, folder: SegmentFolder | None, complete: bool) -> xr.DataTree:
        """Make the trajectory of what was recorded, and the file where there is a path."""
        if target is None or folder is None:
            return self._recorder.tree(complete=complete)
        self._recorder.commit(self._state, recorded=True)
        tree = read_segments(folder.folder)
        tree.attrs["complete"] = int(complete)
        write_trajectory(tree, target)
        for node in tree.subtree:
            node.close()
        folder.remove()
        return open_trajectory(target)


def _described(
    process: Process,
    seeds: Seeds,
    last: int,
    indices: tuple[int, ...],
    chosen: tuple[Observable, ...],
    schedule: Schedule,
    on_divergence: str,
    weights: Any,
) -> dict[str, Any]:
    """Return the configuration, by which a run is known again."""
    return {
        "process": plain(process),
        "seed": seeds.seed,
        "steps": last,
        "replicas": list(indices),
        "observables": [plain(each) for each in chosen],
        "schedule": plain(schedule),
        "on_divergence": on_divergence,
        "weights": None if weights is None else plain(torch.as_tensor(weights)),
    }


def _coordinates(process: Process, indices: tuple[int, ...]) -> dict[str, NDArray[np.float64]]:
    return {
        "learning_rate": np.full(len(indices), process.learning_rate),
        # α/(1 − μ), the rate at which a constant gradient moves the weights in the end.
        "effective_learning_rate": np.full(len(indices), process.effective_learning_rate),
    }


def _refuse_unless_it_fits(
    process: Process, due: dict[int, list[Observable]], replicas: int, target: Path | None, limit: Any
) -> None:
    """Forecast from what observables say of themselves, before the first weights are drawn."""
    sizes = [[each.bytes_per_replica(process) for each in observables] for observables in due.values()]
    record = max(sum(each) for each in sizes) * replicas
    weights = process.landscape.n_parameters * process.landscape.dtype.itemsize * replicas
    folder = None if target is None else folder_of(target)
    refuse_unless_it_fits(sum(map(sum, sizes)) * replicas, record, weights, folder, limit)


def _chosen(observables: Any) -> tuple[Observable, ...]:
    if observables is None:
        return default_observables()
    if isinstance(observables, Observable):
        return (observables,)
    chosen = tuple(observables) if isinstance(observables, Iterable) else (observables,)
    for each in chosen:
        if not isinstance(each, Observable):
            raise ConfigurationError(
                f"an observable is {kind_of(each)}: expected instances of Observable, which say what to record; pass "
                "[Losses(), OrderParameters()], for example"
            )
    return chosen


def _disabled(progress: bool | None) -> bool | None:
    return None if progress is None else not progress


def _last_step(process: Process, epochs: float | None, steps: int | None) -> int:
    if (epochs is None) == (steps is None):
        raise ConfigurationError(
            f"epochs={epochs} and steps={steps}: expected exactly one of them, the length of the run"
        )
    if epochs is not None:
        if not np.isfinite(process.epochs_per_step):
            raise ConfigurationError(
                "this process has no samples and hence no epochs: give the length of the run in steps"
            )
        if not is_number(epochs, Real):
            raise ConfigurationError(
                f"epochs={epochs!r}: expected a number, the length of the run; convert it with float(...)"
            )
        if not np.isfinite(epochs):
            raise ConfigurationError(f"epochs={epochs}: expected a finite number, the length of the run")
        steps = round(epochs / process.epochs_per_step)
    if not is_number(steps, Integral):
        raise ConfigurationError(
            f"steps={steps!r}: expected a whole number (int), since updates are counted; round it, or give epochs instead"
        )
    assert steps is not None
    steps = int(steps)
    if steps < 1:
        raise ConfigurationError(
            f"the run would have {steps} updates: expected at least one; give more epochs or steps"
        )
    return steps


def _due_steps(
    process: Process, observables: tuple[Observable, ...], schedule: Schedule, last: int
) -> dict[int, list[Observable]]:
    """Return which observables are due at which step; the end is always among the steps."""
    per_epoch = 1 / process.epochs_per_step
    due: dict[int, list[Observable]] = {last: []}
    for observable in observables:
        for step in (observable.schedule or schedule).steps(last, per_epoch).tolist():
            due.setdefault(step, []).append(observable)
    return due


def _record(
    process: Process,
    state: State,
    observables: list[Observable],
    recorder: Recorder,
    on_divergence: Literal["raise", "mask"],
) -> None:
    snapshot = Snapshot(process, state)
    time, epoch = state.step * process.time_step, state.step * process.epochs_per_step
    with single_threaded_products():
        for observable in observables:
            values = observable.measure(snapshot)
            losses = values.get("train_loss")
            if on_divergence == "raise" and losses is not None and not np.isfinite(losses[:, 0]).all():
                replica = state.replicas[int(np.flatnonzero(~np.isfinite(losses[:, 0]))[0])]
                raise UnstableTrajectory(replica, state.step, process.time_step)
            recorder.keep(observable.group, state.step, epoch, time, values)
            if not recorder.has_timeless(observable.group):
                recorder.keep_timeless(observable.group, observable.timeless(snapshot))
