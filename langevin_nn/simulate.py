"""The loop: process + schedule + observables + store."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from langevin_nn.checks import as_path, instance, kind_of, listed, number, one_of, shown, truth, whole_number
from langevin_nn.engine import advance, advance_together, shares, way
from langevin_nn.errors import ConfigurationError, StorageError, UnstableTrajectory
from langevin_nn.observables import Observable, Snapshot, default_observables
from langevin_nn.observables.base import without_diverged
from langevin_nn.observables.declarations import Declarations
from langevin_nn.process import Process, State
from langevin_nn.provenance import attributes, plain
from langevin_nn.schedules import EverySteps, Schedule
from langevin_nn.seeds import Seeds, as_replicas, as_seeds, as_weights
from langevin_nn.store import (
    Recorder,
    SegmentFolder,
    folder_of,
    open_trajectory,
    refuse_finished,
    refuse_unless_it_fits,
    write_trajectory,
)
from langevin_nn.store.resumption import finished_run, has_remains, state_to_go_on_from, target_of
from langevin_nn.threads import single_threaded_products

__all__ = ["Simulation", "simulate", "simulate_together"]

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
    overwrite: bool = False,
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
    overwrite : bool, optional
        Whether the run may take the place of a file that is at `path`, which stays until the run has ended.
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
        fit into memory or on the disk, before anything is computed; also where a file, which is not to be overwritten, or
        another run's remains are at `path`, or the run to resume has another configuration.
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
    simulation = Simulation(
        process,
        epochs=epochs,
        steps=steps,
        replicas=replicas,
        seed=seed,
        weights=weights,
        schedule=schedule,
        observables=observables,
        on_divergence=on_divergence,
        config=config,
    )
    return simulation.run(
        path=path,
        resume=resume,
        overwrite=overwrite,
        memory_limit=memory_limit,
        segment_seconds=segment_seconds,
        progress=progress,
    )


class Simulation:
    """What `simulate` would run: checked and complete, to be run alone or in one batch with others.

    Parameters
    ----------
    process : Process
        What to run.
    epochs, steps, replicas, seed, weights, schedule, observables, on_divergence, config : optional
        As in `simulate`.

    Attributes
    ----------
    described : dict
        The configuration, by which a run is known again.
    batch_key : str
        Simulations of equal keys advance in one batched computation (`simulate_together`).

    Raises
    ------
    ConfigurationError
        If the length of the run is not given exactly once, or an argument cannot be run.
    UnknownNameError
        If `on_divergence` is none of its names.

    Examples
    --------
    >>> import numpy as np
    >>> from langevin_nn import AnisotropicNoise, Process, QuadraticLandscape
    >>> landscape = QuadraticLandscape(np.eye(2), np.zeros((2, 2)), start=[2.0, 0.0])
    >>> process = Process(landscape, AnisotropicNoise(landscape.noise_factor()), learning_rate=0.5)
    >>> Simulation(process, steps=2, replicas=1, schedule=EverySteps(1)).run().train_loss.sel(cohort="all").values
    array([[2.   , 0.5  , 0.125]])
    """

    def __init__(
        self,
        process: Process,
        *,
        epochs: float | None = None,
        steps: int | None = None,
        replicas: int | Iterable[int] = 4,
        seed: int | Seeds = 0,
        weights: Any = None,
        schedule: Schedule | None = None,
        observables: Observable | Iterable[Observable] | None = None,
        on_divergence: Literal["raise", "mask"] = "raise",
        config: Mapping[str, Any] | None = None,
    ) -> None:
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
        self.process, self.on_divergence, self.config = process, on_divergence, dict(config or {})
        self.weights = None if weights is None else as_weights(weights)
        self.observables = _chosen(observables)
        self.last = _last_step(process, epochs, steps)
        self.schedule = schedule or EverySteps(max(1, self.last // 200))
        self.seeds, self.replicas = as_seeds(seed), as_replicas(replicas)
        self.due = _Due.of(process, self.observables, self.schedule, self.last)
        self.declared = Declarations.of(self.observables, process)

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
            **({"updates": "captured"} if way(self.process) == "captured" else {}),
            **self.config,
        }

    @cached_property
    def batch_key(self) -> str:
        """Simulations of equal keys advance in one batched computation."""
        shared = shares(self.process)
        said = json.dumps(self.described, sort_keys=True) if shared is None else f"{shared} {self.last} {self.schedule}"
        return hashlib.sha256(said.encode()).hexdigest()

    def run(
        self,
        *,
        path: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        memory_limit: int | float | str | None = None,
        segment_seconds: float = 30.0,
        progress: bool | None = None,
    ) -> xr.DataTree:
        """Run it, and record it.

        Parameters
        ----------
        path, resume : path, optional
            The file to write, or to go on with, as in `simulate`.
        overwrite, memory_limit, segment_seconds, progress : optional
            As in `simulate`.

        Returns
        -------
        xarray.DataTree
            As of `simulate`.
        """
        path, resume = (
            None if each is None else as_path(name, each) for name, each in (("path", path), ("resume", resume))
        )
        hidden = _disabled(progress)
        run = self._prepared(target_of(path, resume), resume is not None, overwrite, memory_limit, segment_seconds)
        if not isinstance(run, _Run):
            return run
        (found,) = _advance_to_the_end([run], hidden)
        if isinstance(found, BaseException):
            raise found
        return found

    def _prepared(
        self, target: Path | None, resuming: bool, overwrite: bool, memory_limit: Any, segment_seconds: float
    ) -> _Run | xr.DataTree:
        """Return the run, ready to start or to go on; or what it left, where it has ended."""
        number(
            "segment_seconds", segment_seconds, "a number of seconds from 0, after which a segment is finished", least=0
        )
        refuse_finished(
            *([] if target is None else [target]),
            overwrite=overwrite,
            resume=f"resume={str(target)!r}",
            resuming=resuming,
        )
        if target is not None and resuming and (ended := finished_run(target, self.described)) is not None:
            return ended
        self.refuse_unless_it_fits(target, memory_limit)
        # What cannot start is found before a folder is made.
        state = None if has_remains(target, resuming) else self._start()
        if state is not None:
            self._try_foreign(state)
        folder = (
            None if target is None else SegmentFolder(folder_of(target), attributes(self.described, complete=False))
        )
        try:
            recorded = False
            if folder is not None and resuming:
                found = state_to_go_on_from(folder, self.described, self.process.landscape.device)
                state, recorded = found or (state, False)
            recorder = self._recorder(folder, memory_limit, segment_seconds)
            return _Run(self, recorder, state or self._start(), recorded, target, folder)
        except BaseException:
            if folder is not None:
                folder.close()
            raise

    def _start(self) -> State:
        """Return the state from which the run begins."""
        return self.process.start(self.replicas, self.seeds, self.weights)

    def _try_foreign(self, state: State) -> None:
        """Measure once what a user's own observables measure: what they declare wrongly is found before the work."""
        snapshot = Snapshot(self.process, state)
        sizes = self.declared.sizes
        foreign = [each for each in self.observables if {v.name for v in each.variables} & {*self.declared.foreign}]
        with single_threaded_products():
            for each in foreign:
                self.declared.check(each.group, each.measure(snapshot), len(self.replicas), sizes)
                self.declared.check(each.group, each.timeless(snapshot), len(self.replicas), sizes, timeless=True)

    def refuse_unless_it_fits(self, target: Path | None, limit: int | float | str | None = None) -> None:
        """Raise where its records fit neither into memory nor on the disk, as far as observables say it of themselves.

        Parameters
        ----------
        target : Path or None
            The file to write.
        limit : int, float or str, optional
            `memory_limit` of `simulate`.
        """
        n_replicas, landscape = len(self.replicas), self.process.landscape
        sizes = np.array([each.bytes_per_replica(self.process) for each in self.observables], dtype=np.float64)
        of_records = sizes @ self.due.wanted * n_replicas
        weights = landscape.n_parameters * landscape.dtype.itemsize * n_replicas
        folder = None if target is None else folder_of(target)
        refuse_unless_it_fits(int(of_records.sum()), int(of_records.max()), weights, folder, limit)

    def _recorder(self, folder: SegmentFolder | None, memory_limit: Any, segment_seconds: float) -> Recorder:
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
        return Recorder(
            self.replicas, carried, coordinates, expected, folder, memory_limit, segment_seconds, self.declared
        )


class _Run:
    """The loop's state: where the replicas are, and whether what is due there has been recorded.

    Parameters
    ----------
    plan : Simulation
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
        plan: Simulation,
        recorder: Recorder,
        state: State,
        recorded: bool,
        target: Path | None,
        folder: SegmentFolder | None,
    ) -> None:
        self.plan, self._recorder, self._target, self._folder = plan, recorder, target, folder
        self._state, self._recorded = state, recorded
        self._pace = _FIRST_BLOCK

    @property
    def state(self) -> State:
        """Where the replicas are."""
        return self._state

    @property
    def step(self) -> int:
        """Updates made."""
        return self._state.step

    def close(self) -> None:
        """Give the run up before it has begun."""
        if self._folder is not None:
            self._folder.close()

    def program(self) -> Generator[int, tuple[State, float], xr.DataTree]:
        """Ask for updates, so many at a time, and record in between; keep what there is, whatever ends the run.

        Whoever runs this answers with the state afterwards, which may be at an earlier step, and the seconds it took, or
        throws what came instead.

        Yields
        ------
        int
            How many updates are wanted.

        Returns
        -------
        xarray.DataTree
            The trajectory.

        Raises
        ------
        UnstableTrajectory
            If it was thrown.
        StorageError
            If the disk fails.
        """
        plan = self.plan
        try:
            if self._folder is not None and self._folder.manifest.state is None:
                # At once: what cannot be written or saved is found before the work.
                self._recorder.commit(self._state, recorded=False)
            done = self._state.step if self._recorded else self._state.step - 1
            try:
                for number in np.flatnonzero(plan.due.steps > done):
                    yield from self._advance(int(plan.due.steps[number]))
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
        finally:
            if self._folder is not None:
                self._folder.close()

    def _advance(self, step: int) -> Generator[int, tuple[State, float], None]:
        """Go to a step, in blocks of about a second, after which a state can be saved."""
        while self._state.step < step:
            before = self._state.step
            self._state, seconds = yield min(self._pace, step - before)
            self._recorded = self._state.step < step
            if self._state.step - before == self._pace:
                self._pace = max(1, min(2 * self._pace, round(self._pace * _BLOCK_SECONDS / max(seconds, 1e-9))))
            if self._recorded:
                self._recorder.commit_if_due(self._state)

    def record(self, observables: list[Observable]) -> None:
        """Record what is due here."""
        self._recorded = False
        _record(self.plan.process, self._state, observables, self._recorder, self.plan.on_divergence)
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
            write_trajectory(tree, self._target, overwrite=True)
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


def simulate_together(
    simulations: Iterable[Simulation],
    *,
    paths: Iterable[str | os.PathLike[str]] | None = None,
    overwrite: bool = False,
    memory_limit: int | float | str | None = None,
    segment_seconds: float = 30.0,
    progress: bool | None = None,
) -> list[xr.DataTree | Exception]:
    """Run several simulations; those that share their network and data advance in one batched computation.

    Each has the bits that it has alone, and a file of its own. They may differ in labels, learning rate, seeds and initial
    weights, so that a sweep of label noise is one batch.

    Parameters
    ----------
    simulations : iterable of Simulation
        What to run.
    paths : iterable of path, optional
        A file for each. Those that were killed go on; what has ended is returned as it is.
    overwrite : bool, optional
        Whether all begin anew, in the place of files that are there, which stay until the runs have ended.
    memory_limit, segment_seconds, progress : optional
        As in `simulate`.

    Returns
    -------
    list of xarray.DataTree or Exception
        A trajectory each, or what ended it: one that fails does not stop the others.

    Raises
    ------
    ConfigurationError
        If there are not as many paths as simulations, or one comes twice.

    Examples
    --------
    >>> import numpy as np
    >>> from langevin_nn import AnisotropicNoise, Process, QuadraticLandscape
    >>> landscape = QuadraticLandscape(np.eye(2), np.zeros((2, 2)), start=[2.0, 0.0])
    >>> noise = AnisotropicNoise(landscape.noise_factor())
    >>> runs = [Simulation(Process(landscape, noise, rate), steps=2, replicas=1) for rate in (0.5, 0.25)]
    >>> [run.train_loss.sel(cohort="all").values[0, -1].item() for run in simulate_together(runs)]
    [0.125, 0.6328125]
    """
    chosen = listed("simulations", simulations, "Simulation objects, what to run")
    for each in chosen:
        instance("a simulation", each, Simulation, "a Simulation; make one with the arguments of simulate(...)")
    targets = [None] * len(chosen) if paths is None else [as_path("paths", each) for each in paths]
    if len(targets) != len(chosen) or len({str(each) for each in targets if each}) < sum(
        each is not None for each in targets
    ):
        raise ConfigurationError(
            f"{len(targets)} paths came for {len(chosen)} simulations: expected a file of its own for each, or no paths"
        )
    hidden, overwrite = _disabled(progress), truth("overwrite", overwrite, "whether files that are there are replaced")
    found: list[Any] = [None] * len(chosen)
    batches: dict[str, list[int]] = {}
    runs: dict[int, _Run] = {}
    try:
        for k, (simulation, target) in enumerate(zip(chosen, targets, strict=True)):
            try:
                goes_on = target is not None and not overwrite
                made = simulation._prepared(target_of(None, target), goes_on, overwrite, memory_limit, segment_seconds)
            except Exception as error:
                found[k] = error
                continue
            if isinstance(made, _Run):
                runs[k] = made
                batches.setdefault(simulation.batch_key, []).append(k)
            else:
                found[k] = made
        for batch in batches.values():
            ended = _advance_to_the_end([runs.pop(k) for k in batch], hidden)
            for k, each in zip(batch, ended, strict=True):
                found[k] = each
    finally:
        for run in runs.values():
            run.close()
    return found


def _advance_to_the_end(runs: Sequence[_Run], hidden: bool | None) -> list[xr.DataTree | Exception]:
    """Drive the programs of runs that share a computation; return what each gives or raises."""
    programs = [run.program() for run in runs]
    found: list[Any] = [None] * len(runs)
    wanted: dict[int, int] = {}

    def go_on(k: int, resume: Callable[[], int]) -> None:
        """Let a program run to its next question or its end."""
        wanted.pop(k, None)
        try:
            wanted[k] = resume()
        except StopIteration as end:
            found[k] = end.value
        except Exception as error:
            found[k] = error

    name = runs[0].plan.process.name or "process"
    described = name if len(runs) == 1 else f"{len(runs)} runs of {name}"
    first = min(run.step for run in runs)
    try:
        with tqdm(
            total=max(run.plan.last for run in runs), initial=first, desc=described, unit="step", disable=hidden
        ) as bar:
            for k, program in enumerate(programs):
                go_on(k, partial(next, program))
            while wanted:
                step = min(runs[k].step for k in wanted)
                group = [k for k in wanted if runs[k].step == step]
                started = monotonic()
                after = _advanced([runs[k] for k in group], min(wanted[k] for k in group))
                seconds = monotonic() - started
                for k, each in zip(group, after, strict=True):
                    if isinstance(each, Exception):
                        go_on(k, partial(programs[k].throw, each))
                    else:
                        go_on(k, partial(programs[k].send, (each, seconds)))
                bar.update(max(0, min((runs[k].step for k in wanted), default=bar.total) - bar.n))
    except BaseException as error:
        # An interrupt: every run keeps what it has.
        for k in wanted:
            with suppress(type(error), StopIteration):
                programs[k].throw(error)
        raise
    finally:
        for program in programs:
            program.close()
    return found


def _advanced(runs: Sequence[_Run], count: int) -> list[State | Exception]:
    """Make updates of several runs at once; where that fails, one by one, so that each has its own error."""
    try:
        if len(runs) == 1:
            return [advance(runs[0].plan.process, runs[0].state, count, runs[0].plan.on_divergence)]
        members = [(run.plan.process, run.state) for run in runs]
        return list(advance_together(members, count, [run.plan.on_divergence for run in runs]))
    except Exception as error:
        return [error] if len(runs) == 1 else [each for run in runs for each in _advanced([run], count)]


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
            values = without_diverged(values, state.diverged)
            recorder.keep(observable.group, state.step, epoch, time, values)
            if not recorder.has_timeless(observable):
                recorder.keep_timeless(observable, observable.timeless(snapshot))
