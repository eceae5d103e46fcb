"""The loop: process + schedule + observables + store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from langevin_nn.checks import as_path, instance, kind_of, number, one_of, shown, truth, whole_number
from langevin_nn.errors import ConfigurationError, StorageError, UnstableTrajectory
from langevin_nn.observables import Observable, Snapshot, default_observables
from langevin_nn.process import Process, State
from langevin_nn.process.base import as_replicas, as_seeds, as_weights
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
from langevin_nn.threads import single_threaded_products

__all__ = ["simulate"]

_ON_DIVERGENCE = ("raise", "mask")
_MOST_STEPS = 2**53  # beyond it clocks in floating point lose count
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
    one_of("on_divergence", on_divergence, _ON_DIVERGENCE)
    if schedule is not None and not isinstance(schedule, Schedule):
        raise ConfigurationError(
            f"schedule is {kind_of(schedule)}: expected a Schedule, which says when to record; use EverySteps(n) or "
            "EveryEpochs(n)"
        )
    instance("config", config, (Mapping, type(None)), "a mapping, to be added to the configuration of the file")
    number("segment_seconds", segment_seconds, "a number of seconds from 0, after which a segment is finished", least=0)
    path, resume = (
        None if each is None else as_path(name, each) for name, each in (("path", path), ("resume", resume))
    )
    weights = None if weights is None else as_weights(weights)
    hidden = _disabled(progress)
    chosen = _chosen(observables)
    last = _last_step(process, epochs, steps)
    schedule = schedule or EverySteps(max(1, last // 200))
    plan = _Plan(
        process=process,
        seeds=as_seeds(seed),
        replicas=as_replicas(replicas),
        weights=weights,
        last=last,
        observables=chosen,
        schedule=schedule,
        due=_Due.of(process, chosen, schedule, last),
        on_divergence=on_divergence,
        config=dict(config or {}),
    )
    target = target_of(path, resume)
    resuming = resume is not None
    if target is not None and resuming and (ended := finished_run(target, plan.described)) is not None:
        return ended
    plan.refuse_unless_it_fits(target, memory_limit)
    # What cannot start is found before a folder is made.
    state = None if has_remains(target, resuming) else plan.start()
    folder = None if target is None else SegmentFolder(folder_of(target), attributes(plan.described, complete=False))
    try:
        recorded = False
        if folder is not None and resuming:
            found = state_to_go_on_from(folder, plan.described, process.landscape.device)
            state, recorded = found or (state, False)
        recorder = plan.recorder(folder, memory_limit, segment_seconds)
        run = _Run(plan, recorder, state or plan.start(), recorded, target, folder)
        return run.to_the_end(hidden)
    finally:
        if folder is not None:
            folder.close()


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is to be run and recorded, checked and complete.

    Parameters
    ----------
    process : Process
        What runs.
    seeds : Seeds
        Owner of all randomness.
    replicas : tuple of int
        Which.
    weights : Tensor or None
        Where to start; drawn by the landscape where it is None.
    last : int
        Number of updates.
    observables : tuple of Observable
        What to record.
    schedule : Schedule
        When, unless they say so themselves.
    due : _Due
        Which of them at which step.
    on_divergence : {"raise", "mask"}
        What to do about replicas that leave the finite numbers.
    config : mapping
        Added to the configuration.
    """

    process: Process
    seeds: Seeds
    replicas: tuple[int, ...]
    weights: Tensor | None
    last: int
    observables: tuple[Observable, ...]
    schedule: Schedule
    due: _Due
    on_divergence: Literal["raise", "mask"]
    config: Mapping[str, Any]

    @cached_property
    def described(self) -> dict[str, Any]:
        """The configuration, by which a run is known again."""
        return {
            "process": plain(self.process),
            "seed": self.seeds.seed,
            "steps": self.last,
            "replicas": list(self.replicas),
            "observables": [plain(each) for each in self.observables],
            "schedule": plain(self.schedule),
            "on_divergence": self.on_divergence,
            "weights": None if self.weights is None else plain(self.weights),
            **self.config,
        }

    def start(self) -> State:
        """Return the state from which the run begins."""
        return self.process.start(self.replicas, self.seeds, self.weights)

    def refuse_unless_it_fits(self, target: Path | None, limit: Any) -> None:
        """Forecast from what observables say of themselves, before the first weights are drawn."""
        n_replicas, landscape = len(self.replicas), self.process.landscape
        sizes = np.array([each.bytes_per_replica(self.process) for each in self.observables], dtype=np.float64)
        of_records = sizes @ self.due.wanted * n_replicas
        weights = landscape.n_parameters * landscape.dtype.itemsize * n_replicas
        folder = None if target is None else folder_of(target)
        refuse_unless_it_fits(int(of_records.sum()), int(of_records.max()), weights, folder, limit)

    def recorder(self, folder: SegmentFolder | None, memory_limit: Any, segment_seconds: float) -> Recorder:
        """Return where records go."""
        groups = np.array([each.group for each in self.observables])
        expected = {
            str(group): int(self.due.wanted[groups == group].any(axis=0).sum()) for group in dict.fromkeys(groups)
        }
        process, n_replicas = self.process, len(self.replicas)
        coordinates = {
            "learning_rate": np.full(n_replicas, process.learning_rate),
            # α/(1 − μ), the rate at which a constant gradient moves the weights in the end.
            "effective_learning_rate": np.full(n_replicas, process.effective_learning_rate),
        }
        carried = attributes(self.described) if folder is None else folder.manifest.attributes
        return Recorder(self.replicas, carried, coordinates, expected, folder, memory_limit, segment_seconds)


class _Run:
    """The loop's state: where the replicas are, and whether what is due there has been recorded.

    Parameters
    ----------
    plan : _Plan
        What is to be run.
    recorder : Recorder
        Where records go.
    state : State
        Where to begin.
    recorded : bool
        Whether what is due there has been recorded.
    target : Path or None
        The file to be.
    folder : SegmentFolder or None
        Where its segments go meanwhile.
    """

    def __init__(
        self,
        plan: _Plan,
        recorder: Recorder,
        state: State,
        recorded: bool,
        target: Path | None,
        folder: SegmentFolder | None,
    ) -> None:
        self._plan, self._recorder, self._target, self._folder = plan, recorder, target, folder
        self._state, self._recorded = state, recorded
        self._pace = _FIRST_BLOCK

    def to_the_end(self, hidden: bool | None) -> xr.DataTree:
        """Run, and return the trajectory; keep what there is, whatever ends the run."""
        plan = self._plan
        if self._folder is not None and self._folder.manifest.state is None:
            # At once: what cannot be written or saved is found before the work.
            self._recorder.commit(self._state, recorded=False)
        done = self._state.step if self._recorded else self._state.step - 1
        try:
            with tqdm(
                total=plan.last,
                initial=self._state.step,
                desc=plan.process.name or "process",
                unit="step",
                disable=hidden,
            ) as bar:
                for number in np.flatnonzero(plan.due.steps > done):
                    self.advance(int(plan.due.steps[number]), bar)
                    self.record([plan.observables[each] for each in np.flatnonzero(plan.due.wanted[:, number])])
        except UnstableTrajectory as error:
            # Whoever goes on from here diverges again: the run has ended, and becomes a file.
            error.trajectory = self.finish(complete=False)
            raise
        except StorageError:
            raise  # a disk that failed once is not tried again
        except BaseException as error:
            self.rescue(error)
            raise
        return self.finish(complete=True)

    def advance(self, step: int, bar: Any) -> None:
        """Go to a step, in blocks of about a second, after which a state can be saved."""
        while self._state.step < step:
            count = min(self._pace, step - self._state.step)
            started = monotonic()
            self._state = self._plan.process.advance(self._state, count, self._plan.on_divergence)
            self._recorded = self._state.step < step
            if count == self._pace:
                seconds = max(monotonic() - started, 1e-9)
                self._pace = max(1, min(2 * self._pace, round(self._pace * _BLOCK_SECONDS / seconds)))
            bar.update(self._state.step - bar.n)
            if self._recorded:
                self._recorder.commit_if_due(self._state)

    def record(self, observables: list[Observable]) -> None:
        """Record what is due here."""
        self._recorded = False
        _record(self._plan.process, self._state, observables, self._recorder, self._plan.on_divergence)
        self._recorded = True
        self._recorder.commit_if_due(self._state)

    def rescue(self, error: BaseException) -> None:
        """Keep what there is, whatever ended the run, an interrupt too."""
        if not self._recorded:
            self._recorder.drop_from(self._state.step)
        if self._folder is None:
            return
        if not (self._recorder.started or self._state.step):
            self._folder.remove()  # nothing but the start
            return
        try:
            self._recorder.commit(self._state, self._recorded)
        except StorageError as second:
            error.add_note(f"and then {second}")

    def finish(self, complete: bool) -> xr.DataTree:
        """Make the trajectory of what was recorded, and the file where there is a path."""
        if self._target is None or self._folder is None:
            return self._recorder.tree(complete=complete)
        tree = self._recorder.whole(complete=complete)
        try:
            write_trajectory(tree, self._target)
        except BaseException as error:
            error.add_note(
                f"finished segments are in {str(self._folder.folder)!r}: go on with resume={str(self._target)!r}"
            )
            if isinstance(error, StorageError):
                error.trajectory = self._recorder.tree(complete=False)
            self.rescue(error)
            raise
        finally:
            tree.close()
        self._folder.remove()
        return open_trajectory(self._target)


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
    return None if progress is None else not truth("progress", progress, "or None for a bar on terminals only")


def _last_step(process: Process, epochs: float | None, steps: int | None) -> int:
    if (epochs is None) == (steps is None):
        raise ConfigurationError(
            f"epochs={shown(epochs)} and steps={shown(steps)}: expected exactly one of them, the length of the run"
        )
    if epochs is not None:
        if not np.isfinite(process.epochs_per_step):
            raise ConfigurationError(
                "this process has no samples and hence no epochs: give the length of the run in steps"
            )
        most = _MOST_STEPS * process.epochs_per_step
        expected = f"a number of at most {most:.3g}, the length of the run; convert it with float(...)"
        steps = round(number("epochs", epochs, expected, most=most) / process.epochs_per_step)
    expected = "a whole number (int) of at most 2⁵³, since updates are counted; round it, or give epochs instead"
    steps = whole_number("steps", steps, expected, most=_MOST_STEPS)
    if steps < 1:
        raise ConfigurationError(
            f"the run would have {steps} updates: expected at least one; give more epochs or steps"
        )
    return steps


@dataclass(frozen=True, eq=False)
class _Due:
    """What is to be recorded when, as arrays: a million moments are no million lists.

    Parameters
    ----------
    steps : ndarray, shape (record,)
        All of them, increasing; the end of the run is the last.
    wanted : ndarray of bool, shape (observable, record)
        Which observables are due at which of them.
    """

    steps: NDArray[np.int64]
    wanted: NDArray[np.bool_]

    @classmethod
    def of(cls, process: Process, observables: tuple[Observable, ...], schedule: Schedule, last: int) -> _Due:
        """Ask the schedules."""
        per_epoch = 1 / process.epochs_per_step
        each = [(observable.schedule or schedule).steps(last, per_epoch) for observable in observables]
        steps = np.unique(np.concatenate([*each, [last]]))
        wanted = np.zeros((len(observables), len(steps)), dtype=bool)
        for row, own in zip(wanted, each, strict=True):
            row[np.searchsorted(steps, own)] = True
        return cls(steps, wanted)


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
