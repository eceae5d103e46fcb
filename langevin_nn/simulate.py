"""The loop: process + schedule + observables + store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from tqdm import tqdm

from langevin_nn.errors import ConfigurationError, UnknownNameError, UnstableTrajectory
from langevin_nn.noise.base import is_number, kind_of
from langevin_nn.observables import Observable, Snapshot, default_observables
from langevin_nn.process import Process, State
from langevin_nn.process.base import as_seeds
from langevin_nn.provenance import plain
from langevin_nn.schedules import EverySteps, Schedule
from langevin_nn.seeds import Seeds
from langevin_nn.store import Recorder, check_writable, write_trajectory
from langevin_nn.threads import single_threaded_products

__all__ = ["simulate"]

_ON_DIVERGENCE = ("raise", "mask")


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
        File to write the trajectory to, also what there is of it where the run fails.
    on_divergence : {"raise", "mask"}, optional
        Whether a replica that leaves the finite numbers stops the run, or becomes NaN while the others go on.
    progress : bool, optional
        Whether to show a progress bar; on a terminal unless said.
    config : mapping, optional
        Added to the configuration that the file carries.

    Returns
    -------
    xarray.DataTree
        Scalars in the root; groups ``spectrum``, ``samples``, ``weights`` where asked for.

    Raises
    ------
    ConfigurationError
        If the length of the run is not given exactly once, or an argument cannot be run, before anything is computed.
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
    if path is not None:
        if Path(path).is_dir():
            raise ConfigurationError(
                f"path {str(path)!r} is a folder: expected the file to write the trajectory to; add a file name, such as "
                f"{str(Path(path) / 'run.nc')!r}"
            )
        check_writable(Path(path).parent)
    state = process.start(replicas, seeds, weights)
    described = {"process": plain(process), "seed": seeds.seed, "steps": last, "replicas": list(state.replicas)}
    described |= {
        "observables": [plain(each) for each in chosen],
        "schedule": plain(schedule),
        "on_divergence": on_divergence,
        "weights_given": weights is not None,
    }
    coordinates = {
        "learning_rate": np.full(len(state.replicas), process.learning_rate),
        # α/(1 − μ), the rate at which a constant gradient moves the weights in the end.
        "effective_learning_rate": np.full(len(state.replicas), process.effective_learning_rate),
    }
    recorder = Recorder(state.replicas, {**described, **(config or {})}, coordinates)

    complete = False
    try:
        with tqdm(total=last, desc=process.name or "process", unit="step", disable=_disabled(progress)) as bar:
            for step in sorted(due):
                state = process.advance(state, step - state.step, on_divergence)
                _record(process, state, due[step], recorder, on_divergence)
                bar.update(step - bar.n)
        complete = True
    except UnstableTrajectory as error:
        error.trajectory = recorder.tree(complete=False)
        raise
    finally:
        # Whatever ended the run, an interrupt too: what was recorded is kept.
        if path is not None and recorder.started:
            write_trajectory(recorder.tree(complete=complete), path)
    return recorder.tree()


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
