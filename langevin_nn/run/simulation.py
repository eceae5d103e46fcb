"""What a run is, before it runs: process, schedule, observables and store, checked and described; `simulate` runs it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from langevin_nn.checks import as_path, instance, kind_of, listed, number, one_of, shown, truth, whole_number
from langevin_nn.engine import shares, way
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape.weights import as_weights
from langevin_nn.observables import Observable, Snapshot, default_observables
from langevin_nn.observables.declarations import Declarations
from langevin_nn.process import Process, State
from langevin_nn.provenance import attributes, plain
from langevin_nn.rates import Rate
from langevin_nn.readable import Readable
from langevin_nn.run.loop import Run, advance_to_the_end
from langevin_nn.schedules import EverySteps, Schedule
from langevin_nn.seeds import Seeds, as_replicas, as_seeds
from langevin_nn.store import Finished, Recorder, SegmentFolder, folder_of, open_run, refuse_unless_it_fits
from langevin_nn.threads import single_threaded_products

__all__ = ["Simulation", "simulate", "simulate_together"]

_ON_DIVERGENCE = ("raise", "mask")
_MOST_UNEVEN = 2**28  # of updates that are counted one by one
_MOST_STEPS = 2**53  # beyond it clocks in floating point lose count


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
    weights : array, shape (replica, parameter), or state dictionary, checkpoint file or State, optional
        Where to start; drawn by the landscape unless said. See `Process.start`.
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
    >>> from langevin_nn import Process
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import AnisotropicNoise
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


class Simulation(Readable):
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
    >>> from langevin_nn import Process
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import AnisotropicNoise
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
        self.replicas = as_replicas(replicas)
        self.weights: Any = weights if isinstance(weights, State) else None
        if weights is not None and self.weights is None:
            self.weights = as_weights(weights, None if _is_array(weights) else process.landscape, len(self.replicas))
        self.observables = _chosen(observables)
        self.last = _last_step(process, epochs, steps)
        process.check_until(self.last)
        self.schedule = schedule or EverySteps(max(1, self.last // 200))
        self.seeds = as_seeds(seed)
        self.due = _Due.of(process, self.observables, self.schedule, self.last)
        self.declared = Declarations.of(self.observables, process)

    def _said(self) -> Iterator[str]:
        yield repr(self.process)
        yield f"{self.last:,} steps"
        yield f"{len(self.replicas):,} replicas"
        yield f"seed={self.seeds.seed}"
        yield f"observables: {', '.join(type(each).__name__ for each in self.observables)}"

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
        alike = self.described if shared is None else [shared, self.last, self.schedule]
        return hashlib.sha256(json.dumps(plain(alike), sort_keys=True).encode()).hexdigest()

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
        run = self._prepared(path, resume, overwrite, memory_limit, segment_seconds)
        if not isinstance(run, Run):
            return run
        (found,) = advance_to_the_end([run], hidden)
        if isinstance(found, BaseException):
            raise found
        return found

    def _prepared(
        self, path: Path | None, resume: Path | None, overwrite: bool, memory_limit: Any, segment_seconds: float
    ) -> Run | xr.DataTree:
        """Return the run, ready to start or to go on; or what it left, where it has ended."""
        number(
            "segment_seconds", segment_seconds, "a number of seconds from 0, after which a segment is finished", least=0
        )
        opened = open_run(path, self.described, resume, overwrite=overwrite)
        if isinstance(opened, Finished):
            return opened.trajectory
        self.refuse_unless_it_fits(opened.target, memory_limit)
        # What cannot start is found before a folder is made.
        start = None if opened.goes_on else self._start()
        if start is not None:
            self._try_foreign(start)
        folder, state, recorded = opened.take_up(self.process.landscape.device)
        try:
            recorder = self._recorder(folder, memory_limit, segment_seconds)
            return Run(self, recorder, state or start or self._start(), recorded, opened.target, folder)
        except BaseException:
            if folder is not None:
                folder.close()
            raise

    def _start(self) -> State:
        """Return the state from which the run begins."""
        return self.process.start(self.replicas, self.seeds, self.weights)

    def _try_foreign(self, state: State) -> None:
        """Measure once what a user's own observables measure: what they declare wrongly is found before the work."""
        snapshot = Snapshot(self.process.at(0), state)
        sizes = self.declared.sizes
        foreign = [each for each in self.observables if {v.name for v in each.variables} & {*self.declared.foreign}]
        with single_threaded_products():
            for each in foreign:
                self.declared.check(each.group, each.measure(snapshot), len(self.replicas), sizes)
                self.declared.check(each.group, each.timeless(snapshot), len(self.replicas), sizes, timeless=True)

    def refuse_unless_it_fits(self, target: Path | None, limit: int | float | str | None = None) -> None:
        """Raise where its records fit neither into memory nor on the disk, as far as observables say it of themselves."""
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
        coordinates = {}
        if not isinstance(process.learning_rate, Rate):  # one that changes is told in the configuration
            coordinates = {
                "learning_rate": np.full(n_replicas, process.learning_rate),
                # α/(1 − μ), the rate at which a constant gradient moves the weights in the end.
                "effective_learning_rate": np.full(n_replicas, process.effective_learning_rate),
            }
        carried = attributes(self.described) if folder is None else folder.manifest.attributes
        return Recorder(
            self.replicas, carried, coordinates, expected, folder, memory_limit, segment_seconds, self.declared
        )


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
    >>> from langevin_nn import Process
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import AnisotropicNoise
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
    runs: dict[int, Run] = {}
    try:
        for k, (simulation, target) in enumerate(zip(chosen, targets, strict=True)):
            try:
                resume = None if overwrite else target
                made = simulation._prepared(target, resume, overwrite, memory_limit, segment_seconds)
            except Exception as error:
                found[k] = error
                continue
            if isinstance(made, Run):
                runs[k] = made
                batches.setdefault(simulation.batch_key, []).append(k)
            else:
                found[k] = made
        for batch in batches.values():
            ended = advance_to_the_end([runs.pop(k) for k in batch], hidden)
            for k, each in zip(batch, ended, strict=True):
                found[k] = each
    finally:
        for run in runs.values():
            run.close()
    return found


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


def _is_array(weights: Any) -> bool:
    """Whether weights are numbers that say themselves which precision they have."""
    held = weights[0] if isinstance(weights, list | tuple) and weights else weights
    return not isinstance(held, str | os.PathLike | Mapping | nn.Module)


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
        epochs = number("epochs", epochs, expected, most=most)
        steps = round(epochs / process.epochs_per_step) if process.has_even_epochs else _nearest(process, epochs)
    expected = "a whole number (int) of at most 2⁵³, since updates are counted; round it, or give epochs instead"
    steps = whole_number("steps", steps, expected, most=_MOST_STEPS)
    if steps < 1:
        raise ConfigurationError(
            f"the run would have {steps} updates: expected at least one; give more epochs or steps"
        )
    return steps


def _nearest(process: Process, epochs: float) -> int:
    """Return after how many updates so many epochs are over, where these are not equally long."""
    last = 1024
    while process.clock(last)[1][0] < epochs and last < _MOST_UNEVEN:
        last *= 2
    clock = process.clock(np.arange(last + 1))[1]
    return int(np.abs(clock - epochs).argmin())


def record_steps(process: Process, schedule: Schedule, last: int) -> NDArray[np.int64]:
    """Return the updates at which a schedule records."""
    if process.has_even_epochs or not schedule.in_epochs:
        return schedule.steps(last, 1 / process.epochs_per_step)
    clock = process.clock(np.arange(last + 1))[1]
    # As if epochs were as long as they are on average, and then where they are.
    even = schedule.steps(last, last / clock[-1]) * clock[-1] / last
    after = np.searchsorted(clock, even).clip(1, last)
    return np.unique(after - (even - clock[after - 1] < clock[after] - even))


@dataclass(frozen=True, eq=False)
class _Due:
    """What is to be recorded when, as arrays: a million moments are no million lists.

    All `steps` increase, and the last is the end of the run; `wanted`, shape (observable, record), says what is due there.
    """

    steps: NDArray[np.int64]
    wanted: NDArray[np.bool_]

    @classmethod
    def of(cls, process: Process, observables: tuple[Observable, ...], schedule: Schedule, last: int) -> _Due:
        """Ask the schedules."""
        each = [record_steps(process, observable.schedule or schedule, last) for observable in observables]
        steps = np.unique(np.concatenate([*each, [last]]))
        wanted = np.zeros((len(observables), len(steps)), dtype=bool)
        for row, own in zip(wanted, each, strict=True):
            row[np.searchsorted(steps, own)] = True
        return cls(steps, wanted)
