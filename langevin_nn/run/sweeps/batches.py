"""What a worker does: call the function at points, run what it gives, and say how each point fares."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr

from langevin_nn.checks import kind_of
from langevin_nn.errors import ConfigurationError, RunInUse
from langevin_nn.identity import identity
from langevin_nn.provenance import plain
from langevin_nn.run.simulation import Simulation, simulate_together
from langevin_nn.run.sweeps.grid import Point
from langevin_nn.run.sweeps.structure import structure_of
from langevin_nn.store import write_trajectory
from langevin_nn.store.durable import json_text
from langevin_nn.store.parts import SWEEP, Parts, is_alive, key_of

__all__ = ["function_digest", "known_here", "run_simulations", "visit"]

Run = Callable[..., Any]
_known_here: set[str] = set()


def function_digest(function: Callable[..., Any]) -> dict[str, Any]:
    """Return by what a function is known again: its name, what it computes and what it has closed over."""
    if isinstance(function, functools.partial):
        bound = {"arguments": plain(function.args), "keywords": plain(function.keywords)}
        return {**function_digest(function.func), "bound": bound}
    target = inspect.unwrap(function)
    code = getattr(target, "__code__", None)
    if code is None:
        return {"name": f"{type(function).__module__}:{type(function).__qualname__}", "value": plain(function)}
    closed = dict(zip(code.co_freevars, (cell.cell_contents for cell in target.__closure__ or ()), strict=True))
    closed |= {f"default {k}": each for k, each in enumerate(target.__defaults__ or ())}
    closed |= target.__kwdefaults__ or {}
    said = json.dumps(plain(closed), sort_keys=True)
    computes = identity(target, libraries=("langevin_nn",)).digest
    digest = hashlib.sha256(f"{computes}{said}".encode()).hexdigest()
    return {"name": f"{target.__module__}:{target.__qualname__}", "sha256": digest}


def visit(
    run: Run, folder: str, key: str, point: Point, said: dict[str, Any], versions: dict[str, str], anew: bool = False
) -> tuple[str, str] | None:
    """Call the function at a point; run what it gives, or return the batch and file of a simulation that is to be packed."""
    # By what is said and by versions the parent knows the function and what it gives; anew replaces what was there before.
    files = Parts(folder, SWEEP)
    if _runs_elsewhere(files, key):
        return None
    started = time.perf_counter()
    files.say(key, "running", point=point)
    try:
        _check_the_same(run, said)
        made = run(**point)
        if isinstance(made, Simulation):
            file = key_of(made.described, versions)
            if anew:
                files.path(file).unlink(missing_ok=True)
            if not _take_over(files, key, point, file, started):
                files.say(key, "waiting", point=point)
                return made.batch_key, file
            return None
        _keep(files, key, point, made, started)
    except Exception as error:
        files.say(key, "failed", error=error, point=point, seconds=time.perf_counter() - started)
    except BaseException:
        files.say(key, "stopped", point=point)
        raise
    return None


def known_here(said: dict[str, Any]) -> None:
    """Say that this process has the function of a sweep, as `function_digest` tells it."""
    _known_here.add(json_text(said))


def _check_the_same(run: Run, said: dict[str, Any]) -> None:
    """Raise where a worker would run another function than the parent's: one that reads what the parent changed in memory."""
    # Once a process, before the first point: a function may keep in memory what it has made.
    if json_text(said) in _known_here:
        return
    if function_digest(run) != said:
        raise ConfigurationError(
            f"the function {said['name']} computes something else in a worker than where the sweep was begun: expected the "
            "same, but a worker imports modules anew and knows nothing of what was changed in them since; make such values "
            "points of the grid or arguments, write them into the module, or pass workers=1"
        )
    known_here(said)


def run_simulations(run: Run, folder: str, tasks: Sequence[tuple[str, Point, str]]) -> None:
    """Run simulations of several points, each with its key, values and file, in one batch."""
    files = Parts(folder, SWEEP)
    started = time.perf_counter()
    ready: list[tuple[str, Point, str]] = []
    simulations: list[Simulation] = []
    for key, point, file in tasks:
        if _runs_elsewhere(files, key):
            continue
        files.say(key, "running", point=point, file=file)
        try:
            simulations.append(run(**point))
            ready.append((key, point, file))
        except Exception as error:
            files.say(key, "failed", error=error, point=point)
    try:
        found = simulate_together(simulations, paths=[files.path(file) for _, _, file in ready], progress=False)
    except BaseException:
        for key, point, file in ready:
            files.say(key, "stopped", point=point, file=file)
        raise
    seconds = (time.perf_counter() - started) / max(1, len(ready))
    for (key, point, file), each in zip(ready, found, strict=True):
        if isinstance(each, RunInUse):
            continue  # whoever runs it says how it fares
        if isinstance(each, Exception):
            files.say(key, "failed", error=each, point=point, file=file, seconds=seconds)
        else:
            files.say(key, "done", point=point, file=file, seconds=seconds, **structure_of(each))
            each.close()


def _runs_elsewhere(files: Parts, key: str) -> bool:
    status = files.status(key)
    if status is None or status["state"] != "running" or status.get("process") == os.getpid():
        return False
    return is_alive(status)


def _take_over(files: Parts, key: str, point: Point, file: str, started: float) -> bool:
    """Return whether the same simulation has ended under another name: the function has changed, not what it asks for."""
    path = files.path(file)
    if not path.is_file():
        return False
    with xr.open_datatree(path) as tree:
        if not int(tree.attrs.get("complete", 1)):
            return False
        files.say(key, "done", point=point, file=file, seconds=time.perf_counter() - started, **structure_of(tree))
    return True


def _keep(files: Parts, key: str, point: Point, made: Any, started: float) -> None:
    if isinstance(made, xr.Dataset):
        made = xr.DataTree.from_dict({"/": made})
    if not isinstance(made, xr.DataTree):
        raise ConfigurationError(
            f"the function returned {kind_of(made)}: expected an xarray Dataset or DataTree, or a Simulation, which is then "
            "run in a batch; return one of them"
        )
    files.path(key).parent.mkdir(exist_ok=True)
    write_trajectory(made, files.path(key), overwrite=True)
    seconds = time.perf_counter() - started
    with xr.open_datatree(files.path(key)) as written:
        files.say(key, "done", point=point, file=key, seconds=seconds, **structure_of(written))
