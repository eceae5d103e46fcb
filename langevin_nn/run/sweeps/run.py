"""The sweep: which points are missing, which of them run together, where, and what came of them."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any

import xarray as xr

from langevin_nn.checks import as_path, kind_of, truth, whole_number
from langevin_nn.errors import ConfigurationError, LangevinError
from langevin_nn.progress import Progress
from langevin_nn.provenance import versions
from langevin_nn.run.sweeps.batches import function_digest, known_here, run_simulations, visit
from langevin_nn.run.sweeps.grid import Point, points_of
from langevin_nn.run.sweeps.opened import open_sweep
from langevin_nn.run.sweeps.workers import Executor, executor
from langevin_nn.store import check_writable
from langevin_nn.store.parts import SWEEP, Parts, key_of, now

__all__ = ["sweep"]

_LARGEST_BATCH = 64
_LOOK = 0.5  # seconds between two looks at how points fare
_BATCHES_A_WORKER = 4  # so that the last ones end at about the same time


def sweep(
    run: Callable[..., Any],
    grid: Any,
    folder: str | os.PathLike[str],
    *,
    workers: int | None = None,
    scheduler: Any = None,
    points_per_batch: int | None = None,
    retry: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
) -> xr.DataTree:
    """Run a function at all points of a grid, and open what it gave as one dataset.

    Points that are done are found and not run again: the same call goes on with a sweep that was killed, and a larger grid
    adds what it has more. A point is known by the function's name and all that it reads (code, closure, settings,
    helpers), its values and the library versions. What cannot be told, such as a file that it reads, is not looked at: pass
    `overwrite` after changing that.

    Parameters
    ----------
    run : callable
        From the values of a point, as keyword arguments, to a trajectory (any xarray Dataset or DataTree), or to a
        `Simulation`, which is not run yet: those that share network and data advance in one batched computation.
    grid : mapping or sequence of mappings
        Names with the values of each, whose product is swept, or the points themselves, of `random_points` for example.
    folder : path
        Where points are kept.
    workers : int, optional
        Local processes of one thread each; as many as there are cores unless said. 1 runs in this process, with all its
        threads. The bits are the same.
    scheduler : str, distributed.Client or cluster, optional
        Workers that exist already: the address of a Dask scheduler, or a cluster such as ``dask_jobqueue.SLURMCluster``. They
        must see `folder` under the same name.
    points_per_batch : int, optional
        The most simulations of a batch; unless said, enough for each worker to get several batches, and at most 64.
    retry : bool, optional
        Whether points that failed before are run again.
    overwrite : bool, optional
        Whether all points are run again, each in the place of what it gave before, and whether a sweep of something else that
        lies in `folder` is replaced by this one.
    progress : bool, optional
        Whether to show a progress bar; on a terminal unless said. ``python -m langevin_nn watch FOLDER`` shows it in another.

    Returns
    -------
    xarray.DataTree
        Lazily; see `open_sweep`. Points that failed are left out; `points_of_sweep` has their tracebacks.

    Raises
    ------
    ConfigurationError
        If an argument cannot be used, a finished sweep of something else lies in `folder`, or no point is done.
    StorageError
        If the disk fails; points that are done stay.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> def walk(drift, seed):
    ...     steps = drift + np.random.default_rng(seed).standard_normal(100)
    ...     return xr.Dataset({"position": ("step", np.cumsum(steps))}, coords={"step": np.arange(100)})
    >>> walks = sweep(walk, {"drift": [0.0, 1.0], "seed": range(3)}, tempfile.mkdtemp(), workers=1)
    >>> dict(walks.sizes)
    {'point': 6, 'step': 100}
    >>> walks.position[:, -1].groupby(walks.drift).mean().values > 50
    array([False,  True])
    """
    if not callable(run):
        raise ConfigurationError(
            f"run is {kind_of(run)}: expected a function from the values of a point to a trajectory or a Simulation; pass "
            "the function itself"
        )
    points = points_of(grid)
    place = Path(as_path("folder", folder))
    check_writable(place)
    if workers is not None:
        workers = whole_number("workers", workers, "at least 1 process (int), or None for one a core", least=1)
    if points_per_batch is not None:
        points_per_batch = whole_number("points_per_batch", points_per_batch, "at least 1 point (int)", least=1)
    again = truth("retry", retry, "whether points that failed are run again")
    everything = truth("overwrite", overwrite, "whether all points are run again")
    hidden = None if progress is None else not truth("progress", progress, "or None for a bar on terminals only")
    files = Parts(place, SWEEP)
    run = _importable(run)
    said = function_digest(run)
    known_here(said)
    known = versions()
    keys = [key_of(said, point, known) for point in points]
    names = list(points[0])
    if not everything:
        _refuse_another(files, said["name"], names)
    files.write_index(
        {"function": said, "names": names, "points": points, "keys": keys, "started": now(), "versions": known}
    )
    statuses = {} if everything else files.statuses(keys)
    missing = [
        (key, point)
        for key, point in zip(keys, points, strict=True)
        if not files.is_whole(statuses.get(key)) and (again or statuses.get(key, {}).get("state") != "failed")
    ]
    if everything:  # a sweep that is killed is not to take what was there for its own
        for key, point in missing:
            files.say(key, "waiting", point=point)
    if missing:
        under_way = _Sweep(run, said, files, dict(missing), known, hidden, len(points), everything)
        under_way.run(workers, scheduler, points_per_batch)
    return open_sweep(place)


def _refuse_another(files: Parts, function: str, names: list[str]) -> None:
    """Raise where points of another sweep are done, which would no longer be found."""
    if not (files.folder / SWEEP).is_file():
        return
    known = files.index()
    before, now = (
        f"{name}({', '.join(each)})" for name, each in ((known["function"]["name"], known["names"]), (function, names))
    )
    if before != now and any(files.is_whole(each) for each in files.statuses().values()):
        raise ConfigurationError(
            f"{str(files.folder)!r} holds a sweep of {before}, and this is one of {now}: expected the same function and "
            "names, since what is done there would no longer be found; replace it with overwrite=True, or sweep in another "
            "folder"
        )


@dataclass
class _Sweep:
    """What is missing of a grid, by key, under way."""

    function: Callable[..., Any]
    said: dict[str, Any]
    files: Parts
    missing: dict[str, Point]
    known: dict[str, str]
    hidden: bool | None
    total: int
    anew: bool
    next_look: float = 0.0

    def run(self, workers: int | None, scheduler: Any, points_per_batch: int | None) -> None:
        """Run what is missing."""
        found_before = self.total - len(self.missing)
        bar = Progress(total=self.total, initial=found_before, desc="sweep", unit="point", disable=self.hidden)
        with bar, executor(workers, scheduler, len(self.missing)) as where:
            keys = list(self.missing)
            while keys:
                batches, keys = self._visited(where, keys, bar)
                tasks = [
                    (self.function, str(self.files.folder), batch)
                    for members in batches.values()
                    for batch in _cut(members, where.workers, points_per_batch)
                ]
                for ended in where.run(run_simulations, tasks):
                    if ended is not None and isinstance(ended[1], BaseException):
                        for key, point, _ in tasks[ended[0]][2]:
                            self.files.say(key, "failed", error=_lost(ended[1]), point=point)
                    self._show(bar)
            self.next_look = 0.0
            self._show(bar)

    def _visited(
        self, where: Executor, keys: list[str], bar: Progress
    ) -> tuple[dict[str, list[tuple[str, Point, str]]], list[str]]:
        """Call the function at points; return those that are simulations, by batch, and those that ask for the same."""
        folder = str(self.files.folder)
        tasks = [(self.function, folder, key, self.missing[key], self.said, self.known, self.anew) for key in keys]
        self.anew = False  # those that ask for the same as others come again, and take what these gave
        simulations: dict[int, tuple[str, str]] = {}
        for ended in where.run(visit, tasks):
            if ended is not None and isinstance(ended[1], BaseException):
                self.files.say(keys[ended[0]], "failed", error=_lost(ended[1]), point=self.missing[keys[ended[0]]])
            elif ended is not None and ended[1] is not None:
                simulations[ended[0]] = ended[1]
            self._show(bar)
        packed: dict[str, list[tuple[str, Point, str]]] = {}
        taken: set[str] = set()
        twins = []
        for number, (batch, file) in sorted(simulations.items()):
            key = keys[number]
            if file in taken:
                twins.append(key)
            else:
                taken.add(file)
                packed.setdefault(batch, []).append((key, self.missing[key], file))
        return packed, twins

    def _show(self, bar: Progress) -> None:
        if not bar.is_seen or monotonic() < self.next_look:
            return
        self.next_look = monotonic() + _LOOK
        states = [each["state"] for each in self.files.statuses(list(self.missing)).values()]
        counts = {state: states.count(state) for state in ("done", "running", "failed")}
        bar.set_postfix(running=counts["running"], failed=counts["failed"], refresh=False)
        bar.update(self.total - len(self.missing) + counts["done"] + counts["failed"] - bar.n)


def _cut(tasks: list[Any], workers: int, most: int | None) -> list[list[Any]]:
    """Return batches of about equal size, one task after the other."""
    aim = ceil(len(tasks) / (workers * _BATCHES_A_WORKER)) if workers > 1 else _LARGEST_BATCH
    size = min(aim, _LARGEST_BATCH) if most is None else most
    count = ceil(len(tasks) / size)
    ends = [round(k * len(tasks) / count) for k in range(count + 1)]
    return [tasks[start:end] for start, end in pairwise(ends)]


def _lost(error: BaseException) -> LangevinError:
    """Return an error of a worker, rather than of what it ran, in our words."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, AttributeError | ImportError | pickle.PickleError | TypeError):
        return LangevinError(
            f"the function cannot be read by a worker ({said}): expected one that can be imported, or that calls nothing but "
            "plain functions of the same script; put it into a module of its own, or pass workers=1"
        )
    return LangevinError(
        f"the workers that ran this point ended before it did ({said}): expected them to live; it may need more memory than "
        "they have, give them more or make batches smaller with points_per_batch"
    )


def _importable(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of ``python -m module`` as its module has it, where workers find it, too."""
    if isinstance(run, partial):
        return partial(_importable(run.func), *run.args, **run.keywords)
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if getattr(run, "__module__", None) != "__main__" or spec is None or "<" in run.__qualname__:
        return run
    found: Any = getattr(importlib.import_module(spec.name.removesuffix(".__main__")), run.__qualname__, run)
    return found  # type: ignore[no-any-return]
