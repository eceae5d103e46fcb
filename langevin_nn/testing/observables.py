"""The laws that an observable keeps, checked on a short run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.checks import instance
from langevin_nn.observables import Observable, Snapshot
from langevin_nn.process import Process
from langevin_nn.run.simulation import simulate
from langevin_nn.schedules import EverySteps, Schedule
from langevin_nn.seeds import Seeds
from langevin_nn.store import folder_of, validate
from langevin_nn.threads import single_threaded_products

__all__ = ["Kill", "check_observable"]

_REPLICAS = (0, 1, 2)


class _Witness(Observable):
    """Measures beside an observable, at the same steps, what it measures there."""

    def __init__(self, observable: Observable) -> None:
        self.observable, self.schedule = observable, observable.schedule
        self.seen: dict[int, dict[str, NDArray[Any]]] = {}
        self.timeless_seen: dict[str, NDArray[Any]] = {}
        self.snapshots: dict[int, Snapshot] = {}

    @property
    def description(self) -> dict[str, Any]:
        """Nothing: what has been seen makes no other run."""
        return {}

    def measure(self, snapshot: Snapshot) -> dict[str, NDArray[Any]]:
        own = Snapshot(snapshot.process, replace(snapshot.state, weights=snapshot.state.weights.clone()))
        self.snapshots[snapshot.state.step] = own
        # Once more of the same state, which it must not have changed.
        self.seen[snapshot.state.step] = self.observable.measure(Snapshot(own.process, own.state))
        self.timeless_seen = self.timeless_seen or self.observable.timeless(own)
        return {}


class Kill(Observable):
    """Keeps what a run leaves in its folder that is killed at a step: its finished segments, without what came after."""

    def __init__(self, schedule: Schedule | None, step: int, folder: Path, kept: Path) -> None:
        self.schedule, self.step, self.folder, self.kept = schedule, step, folder, kept

    @property
    def description(self) -> dict[str, Any]:
        """Nothing: the run that goes on is the same."""
        return {}

    def measure(self, snapshot: Snapshot) -> dict[str, NDArray[Any]]:  # noqa: D102
        if snapshot.state.step >= self.step and not self.kept.exists():
            shutil.copytree(self.folder, self.kept, ignore=shutil.ignore_patterns("lock"))
        return {}


def check_observable(observable: Observable, process: Process, *, steps: int = 8, seed: int = 0) -> None:
    """Hold an observable to what the rest of the package takes for granted.

    What is recorded is what was declared and measured, to the last bit and in its type; measuring disturbs nothing; a replica
    has the same bits alone and among others, and after the run was killed and resumed; the file is valid; where a replica
    diverged its values are missing, and the others keep theirs.

    Parameters
    ----------
    observable : Observable
        Recorded on its own schedule, or at every second step.
    process : Process
        Of which it is recorded; three replicas.
    steps, seed : int, optional
        Length of the run, and owner of its randomness.

    Raises
    ------
    AssertionError
        With one sentence for each law that it breaks.
    ConfigurationError
        If what it declares cannot be recorded.

    Examples
    --------
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import AnisotropicNoise
    >>> from langevin_nn.observables import Losses
    >>> valley = QuadraticLandscape(np.eye(2), np.eye(2))
    >>> check_observable(Losses(), Process(valley, AnisotropicNoise(valley.noise_factor()), learning_rate=0.1))
    """
    instance("observable", observable, Observable, "an instance of a subclass of Observable, which says what to record")
    instance("process", process, Process, "a Process, of which something is to be recorded")
    arguments = {"steps": steps, "seed": seed, "schedule": EverySteps(2), "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        raise_broken(type(observable).__name__, _broken(observable, process, arguments, Path(folder)))


def raise_broken(name: str, found: Iterable[str]) -> None:
    """Raise an AssertionError that lists the laws which are broken, where there are any."""
    if said := [*found]:
        raise AssertionError(f"{name} breaks {len(said)} laws: {'; '.join(said)}")


def _broken(observable: Observable, process: Process, arguments: dict[str, Any], folder: Path) -> Iterator[str]:
    path, killed = folder / "run.nc", folder / "killed.nc"
    witness = _Witness(observable)

    def run(*observables: Observable, **others: Any) -> xr.DataTree:
        options = {"replicas": _REPLICAS, **arguments, "observables": observables, **others}
        return simulate(process, **options)

    kill = Kill(observable.schedule, arguments["steps"] // 2, folder_of(path), folder_of(killed))
    with run(witness, observable, kill, path=path, segment_seconds=0) as tree:
        yield from validate(path)
        whole = _values(tree, observable)
        yield from _as_measured(whole, witness)
    bare = _Witness(observable)
    run(bare)
    if any(
        not torch.equal(bare.snapshots[k].state.weights, each.state.weights) for k, each in witness.snapshots.items()
    ):
        yield "measuring changes the run: expected the weights that it has without being measured"
    alone = _values(run(observable, replicas=_REPLICAS[1:2]), observable)
    yield from _different(
        alone, {name: each.isel(replica=slice(1, 2)) for name, each in whole.items()}, "alone", "among other replicas"
    )
    with run(witness, observable, kill, resume=killed) as tree:
        yield from _different(_values(tree, observable), whole, "after being killed and resumed", "without")
    if found := [*_beside_one_that_diverged(observable, witness)]:
        yield from found
        return
    weights = process.landscape.initial_weights(_REPLICAS, Seeds(arguments["seed"]))
    weights[0] = torch.finfo(weights.dtype).max / 2
    wild = _Witness(observable)
    yield from _missing(_values(run(wild, observable, weights=weights, on_divergence="mask"), observable), wild)


def _values(tree: xr.DataTree, observable: Observable) -> dict[str, xr.DataArray]:
    """Return what is recorded of an observable, in memory."""
    names = [each.name for each in observable.variables]
    node = tree.children.get(observable.group, tree) if observable.group else tree
    dataset = node.to_dataset()
    return {name: dataset[name].load() for name in names if name in dataset}


def _as_measured(recorded: dict[str, xr.DataArray], witness: _Witness) -> Iterator[str]:
    if not recorded:
        yield "nothing was recorded: expected the variables that it declares, of which it measures none here"
    for variable in witness.observable.variables:
        measured = {k: each[variable.name] for k, each in witness.seen.items() if variable.name in each}
        if variable.timeless:
            measured = {0: witness.timeless_seen[variable.name]} if variable.name in witness.timeless_seen else {}
        if bool(measured) != (variable.name in recorded):
            yield f"{variable.name!r} was {'measured and not' if measured else 'not measured and'} recorded"
        for step, expected in measured.items() if variable.name in recorded else ():
            values = recorded[variable.name]
            if values.dims != variable.recorded_dimensions:
                yield f"{variable.name!r} lies along {values.dims}: expected {variable.recorded_dimensions}, as declared"
                break
            own = values.values if variable.timeless else values.sel({variable.clock: step}).values
            whole = variable.timeless or len(measured) == values.sizes[variable.clock]
            if not np.array_equal(own, expected, equal_nan=own.dtype.kind == "f") or (
                whole and own.dtype != expected.dtype
            ):
                yield (
                    f"{variable.name!r} at step {step} is recorded as {own.dtype} {own.shape} and measured again as "
                    f"{expected.dtype} {expected.shape}, with other values or another type: expected the same bits; draw "
                    "random numbers from snapshot.generators(...), and change no state"
                )
                break


def _different(one: dict[str, xr.DataArray], other: dict[str, xr.DataArray], how: str, than: str) -> Iterator[str]:
    for name in sorted({*one, *other}):
        if name not in one or name not in other:
            yield f"{name!r} is recorded only {how if name in one else than}"
        elif one[name].dtype != other[name].dtype or one[name].values.tobytes() != other[name].values.tobytes():
            yield (
                f"{name!r} has other bits {how} than {than}: expected a function of the replica's own state alone, computed "
                "in the same order whatever is beside it"
            )


def _beside_one_that_diverged(observable: Observable, witness: _Witness) -> Iterator[str]:
    """Let the first replica be one that diverged, as `on_divergence="mask"` leaves it."""
    step, snapshot = max(witness.snapshots.items())
    weights, diverged = snapshot.state.weights.clone(), snapshot.state.diverged.clone()
    weights[0], diverged[0] = torch.nan, True
    after = Snapshot(snapshot.process, replace(snapshot.state, weights=weights, diverged=diverged))
    try:
        with single_threaded_products():
            measured = observable.measure(after)
    except Exception as error:
        yield f"it raises where a replica diverged ({error!r}): expected NaN for that one, and values for the others"
        return
    for name, values in measured.items():
        before = witness.seen[step].get(name)
        if before is not None and before[1:].tobytes() != values[1:].tobytes():
            yield f"{name!r} of other replicas changes where one diverged: expected theirs alone to count"


def _missing(recorded: dict[str, xr.DataArray], witness: _Witness) -> Iterator[str]:
    """Hold a run of which the first replica diverged, where the process lets it, to what was not observed."""
    gone = [step for step, each in witness.snapshots.items() if bool(each.state.diverged[0])]
    for variable in witness.observable.variables:
        values = recorded.get(variable.name)
        if values is None or variable.timeless or values.dtype.kind != "f":
            continue
        if values.isel(replica=0).sel({variable.clock: gone}).notnull().any():
            yield f"{variable.name!r} of a replica that diverged has values: expected NaN, since nothing was observed"
