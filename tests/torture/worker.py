"""Runs that are killed: networks and compiled surrogates, watched from the outside; the library has no hooks for it."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from langevin_nn import NetworkLandscape, Process, Seeds, isotropic_langevin, sgd, simulate
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import ColouredNoise, ThermalNoise
from langevin_nn.observables import DrivingNoise, Losses, Observable, OrderParameters, SampleLosses, Weights, describe
from langevin_nn.schedules import EverySteps
from langevin_nn.store import segments, trajectory
from langevin_nn.store.recorder import Recorder
from langevin_nn.store.state import state_bytes
from langevin_nn.update import BAOAB, EulerMaruyama
from models.datasets import load_dataset
from models.label_noise import corrupt_labels
from models.networks import multilayer_perceptron
from models.potentials import double_well

from .page import FILES, Page

# --- What runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Often(Observable):
    """A number of single precision."""

    schedule: EverySteps
    variables = (describe("hessian_trace"),)

    def measure(self, snapshot: Any) -> dict[str, Any]:
        return {"hessian_trace": snapshot.state.weights.sum(1).numpy()}


@dataclass(frozen=True)
class Seldom(Observable):
    """Numbers beside it that are recorded now and then: their gaps are NaN, and types must not depend on segments."""

    schedule: EverySteps
    variables = (describe("subspace_overlap"), describe("effective_dimension_is_lower_bound"))

    def measure(self, snapshot: Any) -> dict[str, Any]:
        values = snapshot.state.weights.amax(1).numpy()
        return {"subspace_overlap": values, "effective_dimension_is_lower_bound": (values > 1).astype(np.int8)}


def digits() -> NetworkLandscape:
    data = load_dataset("digits", samples_per_class=6)
    noisy = corrupt_labels(data.train_labels, 0.4, n_classes=10, seeds=Seeds(1))
    return NetworkLandscape(
        lambda: multilayer_perceptron((64, 8, 10)),
        data.train_inputs,
        noisy.given_labels,
        true_labels=noisy.true_labels,
        relabeled=noisy.relabeled,
        test_inputs=data.test_inputs[:20],
        test_labels=data.test_labels[:20],
    )


def _network(process: Process, **options: Any) -> dict[str, Any]:
    observables = (Losses(), DrivingNoise(), SampleLosses(EverySteps(40)), Weights(EverySteps(20)))
    return {
        "process": process,
        "steps": 520,
        "replicas": 2,
        "schedule": EverySteps(10),
        "observables": observables,
    } | options


def _surrogate(noise: Any, update: Any, **options: Any) -> dict[str, Any]:
    landscape = QuadraticLandscape(np.diag(np.linspace(0.5, 3.0, 20)), np.eye(20))
    return {
        "process": Process(landscape, noise, 0.01, update=update),
        "steps": 26_000,
        "replicas": 400,
        "schedule": EverySteps(500),
        "observables": (Losses(), Weights(EverySteps(1000))),
    } | options


def _small() -> dict[str, Any]:
    """For all faults but kills: quick, with a file of some 100 KiB."""
    observables = (Losses(), DrivingNoise(), Weights(EverySteps(50)))
    options = {"steps": 3000, "replicas": 8, "schedule": EverySteps(50), "observables": observables}
    return _surrogate(ThermalNoise(0.5), BAOAB(1.0), **options)


def _masked() -> dict[str, Any]:
    """A quartic well at a step that is too large for the replicas that start high on its walls."""
    weights = np.linspace(-1.0, 24.0, 200)[:, None]
    return {
        "process": Process(double_well(), ThermalNoise(0.3), 0.002, update=EulerMaruyama()),
        "steps": 54_000,
        "replicas": 200,
        "weights": weights,
        "schedule": EverySteps(1000),
        "observables": (Losses(), Weights(EverySteps(2000))),
        "on_divergence": "mask",
    }


def _sparse() -> dict[str, Any]:
    observables = (Losses(), OrderParameters(schedule=EverySteps(70)), Often(EverySteps(20)), Seldom(EverySteps(140)))
    return _network(sgd(digits(), 0.1, 10), observables=observables, steps=350)


NETWORKS: dict[str, Callable[[], dict[str, Any]]] = {
    "SGD with momentum": lambda: _network(sgd(digits(), 0.05, 10, momentum=0.9)),
    "isotropic noise of held trace": lambda: _network(isotropic_langevin(digits(), 0.05, 10, refresh_every=4)),
    "SGD, sparse observables": _sparse,
}
SURROGATES: dict[str, Callable[[], dict[str, Any]]] = {
    "Euler-Maruyama, thermal": lambda: _surrogate(ThermalNoise(0.5), EulerMaruyama()),
    "Euler-Maruyama, coloured": lambda: _surrogate(ColouredNoise(1.0, 0.5), EulerMaruyama()),
    "BAOAB": lambda: _surrogate(ThermalNoise(0.5), BAOAB(1.0)),
    "diverging replicas masked": _masked,
}
SMALL = "small surrogate"
VARIANTS = NETWORKS | SURROGATES | {SMALL: _small}


# --- What is watched --------------------------------------------------------------------------------------------------


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    inner = getattr(owner, name)  # a function that is called otherwise now must not go unwatched

    @wraps(inner)
    def wrapped(*args: Any, **keywords: Any) -> Any:
        return around(inner, *args, **keywords)

    setattr(owner, name, wrapped)


def _watch(page: Page, observables: Any) -> None:
    """Write into the page what the library does, by wrapping what it calls."""

    def during(kind: str, action: str = "") -> Callable[..., Any]:
        def around(inner: Any, *args: Any, **keywords: Any) -> Any:
            with page.inside(kind, action):
                return inner(*args, **keywords)

        return around

    def written(inner: Any, path: Path, content: Any, **options: Any) -> None:
        with page.inside(path.name.partition("-")[0], "written"):
            inner(path, content, **options)

    def flushed(inner: Any, descriptor: int) -> None:
        if page.doing[1] == "written":
            page.now("flushed")
        inner(descriptor)

    def renamed(inner: Any, source: Any, target: Any) -> None:
        if page.doing[0] not in FILES:  # a compiled kernel that goes to its cache
            inner(source, target)
            return
        name = Path(target).name
        if name.startswith("manifest"):
            page["announced"] = int(name.removeprefix("manifest-").removesuffix(".json"))
        page.now("renamed")
        inner(source, target)
        page.now("in its place")
        if name.startswith("manifest"):
            page["committed_until"], page["committed"] = page["announced_until"], page["announced"]

    def committing(inner: Any, folder: Any, tree: Any, state: Any, until: int, timeless: Any) -> None:
        page["announced_until"] = until
        inner(folder, tree, state, until, timeless)

    def merging(inner: Any, folder: Any) -> None:
        with page.inside("merging segments", "written"):
            inner(folder)
        page["merges"] += 1

    def recording(inner: Any, recorder: Any, state: Any) -> None:
        page["recorded"] = state.step
        inner(recorder, state)

    def going_on(inner: Any, folder: Any) -> Any:
        found = inner(folder)
        page["announced"] = page["committed"] = folder.manifest.number
        page["announced_until"] = page["committed_until"] = page["recorded"] = folder.manifest.recorded_until
        return found

    wrap(sys.modules["langevin_nn.run.loop"], "advance", during("block of steps"))
    for kind in {type(each) for each in observables}:
        wrap(kind, "measure", during("measurement"))
    wrap(Recorder, "commit_if_due", recording)
    wrap(segments, "netcdf_bytes", during("segment", "made in memory"))
    wrap(segments, "write_durably", written)
    wrap(segments.SegmentFolder, "commit", committing)
    wrap(segments.SegmentFolder, "go_on", going_on)
    wrap(segments.SegmentFolder, "_merge", merging)
    wrap(segments.SegmentFolder, "_clean", during("cleaning"))
    wrap(segments.SegmentFolder, "remove", during("removing"))
    wrap(trajectory, "write_netcdf", during("final file", "written"))
    wrap(trajectory, "publish", during("final file", "flushed"))
    wrap(os, "fsync", flushed)
    wrap(os, "replace", renamed)


# --- What must be caught ----------------------------------------------------------------------------------------------


def _manifest_first(page: Page) -> None:
    """A twin that commits before there is anything to commit."""
    inner = segments.SegmentFolder.commit

    def commit(folder: Any, *args: Any) -> None:
        waiting: list[Any] = []
        write = segments.write_durably

        def later(path: Path, content: Any, **options: Any) -> None:
            if path.name.startswith("manifest"):
                write(path, content)
                for each in waiting:
                    write(*each)
            else:
                waiting.append((path, content))

        segments.write_durably = later
        try:
            inner(folder, *args)
        finally:
            segments.write_durably = write

    segments.SegmentFolder.commit = commit  # type: ignore[method-assign]


def _forgetful(page: Page) -> None:
    """A twin whose states forget what the update rule remembers."""
    from langevin_nn.store import recorder

    def without_memory(state: Any, recorded: bool) -> bytes:
        forgotten = torch.zeros_like(state.update_memory)
        kept = state.replaced(state.step, state.weights, forgotten, state.noise_memory, state.diverged)
        return state_bytes(kept, recorded)

    recorder.state_bytes = without_memory


def _overwriting(page: Page) -> None:
    """A twin that writes every segment under the name of the first."""
    inner = segments.SegmentFolder._write

    def write(folder: Any, name: str, content: Any) -> Any:
        return inner(folder, "segment-000000.nc" if name.startswith("segment") else name, content)

    segments.SegmentFolder._write = write  # type: ignore[method-assign]


MUTATIONS = {"manifest first": _manifest_first, "forgetful": _forgetful, "overwriting": _overwriting}
# Each with a run that shows it, and what a kill has to hit.
TWINS = (
    ("manifest first", SMALL, "segment"),
    ("forgetful", "SGD with momentum", "block of steps"),
    ("overwriting", SMALL, "block of steps"),
)


@contextmanager
def told(beside: Path) -> Iterator[None]:
    """Write what went wrong beside a file, for who waits, and exit."""
    try:
        yield
    except BaseException:
        beside.with_suffix(".error").write_text(traceback.format_exc())
        sys.exit(1)


def work(variant: str, path: str, page: str, segment_seconds: float = 0.0, mutation: str = "") -> None:
    """Run a variant, or go on with it, to its end or until somebody kills this process."""
    shared = Page(Path(page))
    shared.begin()
    be_modest()
    with told(Path(page)):
        run = VARIANTS[variant]()
        _watch(shared, run["observables"])
        if mutation:
            MUTATIONS[mutation](shared)
        with shared.inside("between"):
            simulate(run.pop("process"), **run, resume=path, segment_seconds=segment_seconds, progress=False)


def be_modest() -> None:
    """Take one core, and leave nothing behind when killed."""
    # Semaphores of libraries then have no names, of which each killed worker would leave some behind.
    multiprocessing.set_start_method("fork", force=True)
    # Several of them share the machine; bits do not depend on it.
    torch.set_num_threads(1)
    numba.set_num_threads(1)
