"""Processes from one start on one clock; SGD against Langevin dynamics, or a noise of one's own, on a user's landscape."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from torch import Tensor

from langevin_nn.analyzers import analyze
from langevin_nn.checks import as_path, instance, listed, number, one_of, text, truth, whole_number
from langevin_nn.ensemble import covariance_factor
from langevin_nn.errors import ConfigurationError, UnstableTrajectory
from langevin_nn.landscape import EmpiricalLandscape, NetworkLandscape
from langevin_nn.landscape.weights import as_weights
from langevin_nn.noise import IsotropicNoise
from langevin_nn.observables import DrivingNoise, Losses, NoiseSpectrum, Observable, OrderParameters, SampleLosses
from langevin_nn.process import PROCESSES, Process
from langevin_nn.provenance import plain
from langevin_nn.rates import Constant, Rate, Slowed
from langevin_nn.report import Comparison
from langevin_nn.run.simulation import Simulation, record_steps, simulate_together
from langevin_nn.schedules import AtEpochs, AtSteps, EveryEpochs, Schedule
from langevin_nn.seeds import Seeds, as_replicas, as_seeds
from langevin_nn.store import check_writable, join_processes, open_trajectory, refuse_unless_it_fits, write_trajectory
from langevin_nn.store.parts import EXPERIMENT, Parts
from langevin_nn.update import Update

__all__ = ["Experiment", "compare"]

# Where spectra and sample losses are taken, as shares of the run: one in each phase of the paper's learning curve.
_GLANCES = (0.01, 0.08, 0.4, 1.0)
_RECORDS = 60


class Experiment:
    """Several processes from one start on one clock: checked and complete, as `Simulation` is for one run.

    Replica r of every process starts from the same weights; the noise of each is its own. Records are at the same times in
    all: those of the process with the longest time step, of which the others' must be whole fractions.

    Parameters
    ----------
    processes : mapping of str to Process, or iterable of Process
        By the names that files carry, or by their own; the first is the one beside which the others must be.
    epochs, steps, weights, schedule, observables, on_divergence : optional
        As in `simulate`, for the process with the longest time step.
    replicas : int or iterable of int, optional
        Of each process.
    seed : int or Seeds, optional
        Owner of all randomness: start, and from it and its name the noise of each process.
    null : bool, optional
        Whether the first runs once more with other noise, as NAME_null.
    seeds : mapping of str to int or Seeds, optional
        Owners of the noise of some processes, by name.
    config : mapping, optional
        Added to the configuration that files carry.

    Attributes
    ----------
    simulations : dict of str to Simulation
        By name.
    described : dict
        The configuration, by which the experiment is known again.

    Raises
    ------
    ConfigurationError
        If processes have no name or the same, or differ in landscape, learning rate or clock; or as of `simulate`.

    Examples
    --------
    >>> import numpy as np
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import ThermalNoise
    >>> from langevin_nn.update import EulerMaruyama
    >>> valley = QuadraticLandscape(np.eye(1), np.zeros((1, 1)), start=[1.0])
    >>> processes = {f"T = {T}": Process(valley, ThermalNoise(T), 0.1, update=EulerMaruyama()) for T in (0.1, 0.2)}
    >>> found = Experiment(processes, steps=20, null=True, seed=0).run()
    >>> found.process.values.tolist()
    ['T = 0.1', 'T = 0.1_null', 'T = 0.2']
    """

    def __init__(
        self,
        processes: Mapping[str, Process] | Iterable[Process],
        *,
        epochs: float | None = None,
        steps: int | None = None,
        replicas: int | Iterable[int] = 4,
        seed: int | Seeds = 0,
        weights: Any = None,
        schedule: Schedule | None = None,
        observables: Observable | Iterable[Observable] | None = None,
        on_divergence: Literal["raise", "mask"] = "raise",
        null: bool = False,
        seeds: Mapping[str, int | Seeds] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        named = _named(processes)
        for key in {*(config or {})} & {"parts", "versions"}:
            raise ConfigurationError(
                f"config has {key!r}: expected other names, since files say under it what of the experiment is done, and by "
                "which versions; rename it"
            )
        reference = next(iter(named.values()))
        if truth("null", null, "whether the first process runs once more with other noise"):
            named = _named([reference, replace(reference, name=f"{reference.name}_null"), *list(named.values())[1:]])
        _refuse_unlike(reference, named)
        owner = as_seeds(seed)
        own = {name: Seeds(owner.integer(f"noise of {name}", 0)) for name in named} | {reference.name: owner}
        own |= {one_of("process of seeds", name, named): as_seeds(each) for name, each in (seeds or {}).items()}
        chosen, landscape = as_replicas(replicas), reference.landscape
        refuse_unless_it_fits(0, 0, landscape.n_parameters * landscape.dtype.itemsize * len(chosen), None, None)
        start = landscape.initial_weights(chosen, owner) if weights is None else weights
        if not isinstance(start, Tensor | np.ndarray):
            start = as_weights(start, landscape, len(chosen))
        options: dict[str, Any] = {
            "replicas": chosen,
            "weights": start,
            "on_divergence": on_divergence,
            "config": config,
        }
        asked: dict[str, Any] = {"epochs": epochs, "steps": steps, "schedule": schedule, "observables": observables}
        slowest = max(named.values(), key=lambda each: each.at(0).time_step)
        plan = Simulation(slowest, seed=own[slowest.name], **asked, **options)
        self.simulations = {
            name: plan if each is slowest else _beside(plan, each, own[name], options) for name, each in named.items()
        }
        self.described = {
            "processes": {name: plain(each) for name, each in named.items()},
            "seed": owner.seed,
            "seeds": {name: own[name].seed for name in named},
            "steps": plan.last,
            "replicas": list(chosen),
            "observables": [plain(each) for each in plan.observables],
            "schedule": plain(plan.schedule),
            "on_divergence": on_divergence,
            "weights": None if weights is None else plain(start),
            **dict(config or {}),
        }

    def run(
        self,
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        progress: bool | None = None,
    ) -> xr.DataTree:
        """Run all, and put them side by side; those that share a computation advance in one batch, to the bits of each alone.

        Parameters
        ----------
        out : path, optional
            Folder for ``trajectories.nc``; meanwhile each process is kept there in a file of its own, or in segments.
        resume, overwrite, progress : optional
            As in `compare`.

        Returns
        -------
        xarray.DataTree
            With the dimension ``process`` first; lazily opened where there is a folder.

        Raises
        ------
        ConfigurationError
            If something would be lost, or the experiment to resume is another one.
        Exception
            What ended a run, the first of them.
        """
        resume = truth("resume", resume, "whether to go on with the run in out")
        overwrite = truth("overwrite", overwrite, "whether to replace a finished run in out")
        if out is None and resume:
            raise ConfigurationError(
                "resume=True without out: expected the folder in which the run was killed or interrupted"
            )
        whole = None if out is None else as_path("out", out) / "trajectories.nc"
        if whole is not None:
            check_writable(whole.parent)
        if whole is None or not (resume and whole.exists()):
            for each in self.simulations.values():
                each.refuse_unless_it_fits(whole)
        if whole is None:
            return self._joined(None, progress)
        options: dict[str, Any] = {"results": [whole], "keys": self.simulations, "index": EXPERIMENT}
        parts = Parts.begin(whole.parent, self.described, resume=resume, overwrite=overwrite, **options)
        if not parts.is_done:
            with self._joined(parts, progress) as found:
                write_trajectory(found, whole)
        parts.remove()
        return open_trajectory(whole)

    def _joined(self, parts: Parts | None, progress: bool | None) -> xr.DataTree:
        """Run each process, or find what it gave before, and put them side by side."""
        batches: dict[str, list[str]] = {}
        for name, each in self.simulations.items():
            batches.setdefault(each.batch_key, []).append(name)
        recorded: dict[str, xr.DataTree] = {}
        for names in batches.values():
            paths = None if parts is None else [parts.path(name) for name in names]
            found = simulate_together([self.simulations[name] for name in names], paths=paths, progress=progress)
            for name, tree in zip(names, found, strict=True):
                if isinstance(tree, Exception):
                    if parts is not None and isinstance(tree, UnstableTrajectory):
                        parts.give_up(tree)
                    raise tree
                recorded[name] = tree
        joined = join_processes({name: recorded[name] for name in self.simulations}, self.described)
        with ExitStack() as parts_of_it:
            for tree in recorded.values():
                parts_of_it.callback(tree.close)
            joined.set_close(parts_of_it.pop_all().close)
        first = next(iter(self.simulations.values())).process
        landscape, noise = first.landscape, first.noise
        if noise.batch_size is not None and isinstance(landscape, EmpiricalLandscape):
            replacement = getattr(noise, "replacement", False)
            joined.attrs["covariance_factor"] = covariance_factor(landscape.n_samples, noise.batch_size, replacement)
        return joined


def _named(processes: Mapping[str, Process] | Iterable[Process]) -> dict[str, Process]:
    """Return processes by the names that they carry."""
    expected = "processes (Process), or a mapping of names to them"
    if isinstance(processes, Mapping):
        pairs = list(processes.items())
    else:
        pairs = [(getattr(each, "name", ""), each) for each in listed("processes", processes, expected)]
    named: dict[str, Process] = {}
    for name, each in pairs:
        instance("a process", each, Process, expected)
        text("the name of a process", name, "by which figures and files call it")
        if not name:
            raise ConfigurationError(
                "a process has no name: expected one, by which figures and files call it; give it, Process(..., "
                "name='mine'), or a mapping of names to processes"
            )
        if name in (*named, "trajectories"):
            raise ConfigurationError(
                f"two processes are named {name!r}, or the file of all of them is: expected names of their own, by which "
                "figures and files tell them apart; rename one, or pass a mapping of names to processes"
            )
        Parts("", EXPERIMENT).path(name)  # a file is named after it
        named[name] = each if each.name == name else replace(each, name=name)
    if not named:
        raise ConfigurationError(f"processes is empty: expected {expected}, at least one")
    return named


def _refuse_unlike(reference: Process, named: Mapping[str, Process]) -> None:
    """Raise where a process cannot stand beside the others: another landscape, another rate, another clock."""
    for name, each in named.items():
        if each.landscape is not reference.landscape and plain(each.landscape) != plain(reference.landscape):
            raise ConfigurationError(
                f"process {name!r} moves on another landscape than {reference.name!r}: expected one network, data and labels "
                "for all, since they start from the same weights and are compared; make it with the same landscape"
            )
        for what in ("learning_rate", "effective_learning_rate"):
            own, other = getattr(each.at(0), what), getattr(reference.at(0), what)
            if not np.isclose(own, other, rtol=1e-9):
                raise ConfigurationError(
                    f"process {name!r} has {what}={own:g}, {reference.name!r} {other:g}: expected the same, since the noise "
                    "goes with it and files keep one for all; a finer discretisation is made with time_step"
                )
        if _schedule_in_time(each) != _schedule_in_time(reference):
            raise ConfigurationError(
                f"processes {name!r} and {reference.name!r} have learning rates that change in different ways: expected the "
                "same at the same times, since the noise goes with it; give both one schedule"
            )
        own, other = (every.epochs_per_step / every.at(0).time_step for every in (each, reference))
        if np.isnan(own) and not np.isnan(other):
            raise ConfigurationError(
                f"process {name!r} has no epochs, since its noise does not say what a minibatch is: expected batch_size="
                f"{reference.batch_size} of it, a field or an attribute of its class, also where it draws no minibatches, "
                "since records are compared at the same epochs"
            )
        if not np.isclose(own, other, rtol=1e-9, equal_nan=True):
            raise ConfigurationError(
                f"process {name!r} makes {own:g} epochs in a unit of time, {reference.name!r} {other:g}: expected as many, "
                "since records are compared at the same times and epochs; give its noise the same batch_size "
                f"({reference.batch_size}), also where it draws no minibatches"
            )


def _schedule_in_time(process: Process) -> Rate | None:
    """Return how the learning rate changes in time, whatever the time step; None where it stays."""
    rate, first = process.learning_rate, process.at(0)
    if not isinstance(rate, Rate) or isinstance(rate, Constant):
        return None
    if isinstance(rate, Slowed) and rate.times == round(first.learning_rate / first.time_step):
        return rate.rate
    return rate


def _beside(plan: Simulation, process: Process, seeds: Seeds, options: Mapping[str, Any]) -> Simulation:
    """Return what runs a process for the same time as another one, and records it at the same times."""
    ratio = plan.process.at(0).time_step / process.at(0).time_step
    times = round(ratio)
    if not np.isclose(ratio, times, rtol=1e-9):
        raise ConfigurationError(
            f"process {process.name!r} has time_step={process.at(0).time_step:g}, {plan.process.name!r} "
            f"{plan.process.at(0).time_step:g}: expected a whole fraction of it, since records are at the same times; "
            f"choose {plan.process.at(0).time_step / times:g}"
        )

    def made(schedule: Schedule, observables: Iterable[Observable]) -> Simulation:
        steps = times * plan.last
        return Simulation(process, steps=steps, seed=seeds, schedule=schedule, observables=observables, **options)

    alike = made(plan.schedule, plan.observables)
    asked, found = plan.due, alike.due
    if np.array_equal(times * asked.steps, found.steps) and np.array_equal(asked.wanted, found.wanted):
        return alike

    def at_the_same_times(schedule: Schedule) -> Schedule:
        each = record_steps(plan.process, schedule, plan.last)
        return AtSteps(tuple((times * each).tolist()))

    observables = [copy(each) for each in plan.observables]
    for each in observables:
        if each.schedule is not None:
            object.__setattr__(each, "schedule", at_the_same_times(each.schedule))
    return made(at_the_same_times(plan.schedule), observables)


def compare(
    landscape: NetworkLandscape,
    *,
    learning_rate: float | Rate,
    batch_size: int,
    epochs: float,
    replicas: int = 4,
    seed: int = 0,
    processes: Mapping[str, str | Process] | Iterable[str | Process] = (
        "langevin",
        "isotropic_langevin",
        "gradient_descent",
    ),
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    update: Update | None = None,
    weights: Any = None,
    refresh_every: int | None = None,
    alignment_minibatches: int = 64,
    tolerance: float = 0.5,
    trace_epoch: float = 50.0,
    schedule: Schedule | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    config: Mapping[str, Any] | None = None,
) -> Comparison:
    """Run SGD and other processes from the same initial weights, and say which of them follow SGD.

    Replica r of every process starts from the same weights and sees the same labels; the noise is its own. A second
    ensemble of SGD with other noise shows how far SGD is from itself. SGD shuffles epochs, as practised: the covariance of
    one minibatch is that of the matched Gaussian noise, but its minibatches are not independent; "independent_sgd" tells
    what that makes. Question and order parameters after Feng & Tu
    (2021), doi 10.1088/2632-2153/abf5b9.

    Parameters
    ----------
    landscape : NetworkLandscape
        A network with its data.
    learning_rate : float or Rate
        α, in units of gradient-flow time.
    batch_size : int
        B.
    epochs : float
        Length of each run.
    replicas : int, optional
        How many of each process; at least 2, and 4 or more for useful intervals.
    seed : int, optional
        Owner of all randomness.
    processes : iterable of str or Process, or mapping of str to these, optional
        Names among "langevin", "isotropic_langevin", "gradient_descent" and "independent_sgd" (minibatches drawn
        independently instead of shuffled epochs), or processes of your own on the same landscape, with noise, drift or update
        of your own; "sgd" and its null are always run.
    momentum : float, optional
        μ, for all processes that are named.
    weight_decay : float, optional
        λ, in units of 1/time, for all processes that are named.
    update : Update, optional
        The update rule of all processes that are named, in the place of `momentum` and `weight_decay`.
    weights : array, shape (replica, parameter), or state dictionary or checkpoint file, optional
        Where all start; drawn by the landscape unless said. See `Process.start`.
    refresh_every : int, optional
        Updates between measurements of the trace that isotropic noise takes; N // B unless said.
    alignment_minibatches : int, optional
        Independent minibatches from which R is estimated at each record.
    tolerance : float, optional
        Excess distance, in spreads, below which a process counts as close and above which as apart; whether the run was long
        enough and the replicas were enough to say so, `Comparison.summary` says under ``relation`` and ``needed``.
    trace_epoch : float, optional
        Where to report Tr Σ.
    schedule : Schedule, optional
        When to record; 60 times at equal distances unless said.
    out : path, optional
        Folder for ``trajectories.nc``; meanwhile each process is kept there in a file of its own, or in segments while it
        runs, which stay where the run fails.
    resume : bool, optional
        Whether to go on with the run that was killed or interrupted in `out`, to the same bits as an uninterrupted one; what
        has ended is taken as it is.
    overwrite : bool, optional
        Whether to begin anew in the place of a finished run in `out`.
    progress : bool, optional
        Whether to show progress bars; on a terminal unless said.
    config : mapping, optional
        Added to the configuration that the file carries.

    Returns
    -------
    Comparison
        Trajectories, distances, phases, summary and verdict.

    Raises
    ------
    ConfigurationError
        If an argument cannot be run, before anything is computed; also where a finished run, which is not to be overwritten,
        or the remains of one are in the way, or the one to resume has another configuration.
    UnstableTrajectory
        If a replica leaves the finite numbers.
    EstimationRefused
        If the training loss of SGD never falls below that of the start, as where it diverges more slowly.

    Examples
    --------
    >>> import torch
    >>> inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    >>> landscape = NetworkLandscape(torch.nn.Linear(3, 2), inputs, (inputs.sum(1) > 0).long())
    >>> result = compare(landscape, learning_rate=0.1, batch_size=5, epochs=5, replicas=2, processes=["langevin"])
    >>> sorted(result.summary["follows"]["equal_time"])
    ['langevin']
    """
    instance("landscape", landscape, NetworkLandscape, "a NetworkLandscape, a network with its data")
    instance("schedule", schedule, (Schedule, type(None)), "a Schedule, which says when to record")
    instance("config", config, (Mapping, type(None)), "a mapping, to be added to the configuration of the file")
    rule: dict[str, Any] = {"update": update, "momentum": momentum, "weight_decay": weight_decay}
    chosen, as_named = _processes(landscape, processes, learning_rate, batch_size, refresh_every, rule)
    if not landscape.has_error:
        raise ConfigurationError(
            "compare tells the phases of learning from training errors, and there are none: expected labels of one class a "
            "sample (whole numbers) and one output a class, or one logit with a loss that is symmetric in both classes; run "
            "the processes side by side with Experiment instead, or one by one with simulate"
        )
    if bool(landscape.cohort.all(1).any()):
        raise ConfigurationError(
            "no sample of a replica has its true label: expected some, since phases of learning are told from the errors of "
            "correct and mislabeled samples; redraw fewer labels"
        )
    if bool((landscape.labels == landscape.labels.flatten()[0]).all()):
        raise ConfigurationError(
            "all labels are of one class: expected two classes at least, since there is nothing to learn, and no phase, "
            "where the answer is always the same; check the labels"
        )
    if batch_size >= landscape.n_samples:
        raise ConfigurationError(
            f"batch_size={batch_size} with {landscape.n_samples} training samples: expected 1 to {landscape.n_samples - 1}, "
            "since a minibatch of all of them has no noise and every process would be gradient descent"
        )
    expected = "at least 2 (int), since distances are measured in units of the replica-to-replica spread"
    replicas = whole_number("replicas", replicas, expected, least=2)
    epochs = number("epochs", epochs, "a positive, finite number, the length of each run", above=0)
    truth("resume", resume, "whether to go on with the run in out")
    truth("overwrite", overwrite, "whether to replace a finished run in out")
    seeds = Seeds(seed)
    seed = seeds.seed
    tolerance = number("tolerance", tolerance, "a finite number from 0, in spreads", least=0)
    trace_epoch = number("trace_epoch", trace_epoch, "a finite number from 0, where to report Tr Σ", least=0)
    glances = AtEpochs(tuple(share * epochs for share in _GLANCES))
    observables: list[Observable] = [
        Losses(),
        OrderParameters(alignment_minibatches),
        DrivingNoise(),
        NoiseSpectrum(schedule=glances),
        SampleLosses(schedule=glances),
    ]
    settings = {
        "learning_rate": plain(learning_rate),
        "batch_size": batch_size,
        "epochs": epochs,
        "replicas": replicas,
        "seed": seed,
        "momentum": momentum,
        "weight_decay": weight_decay,
        **({} if update is None else {"update": plain(update)}),
        "landscape": plain(landscape),
        **(config or {}),
    }
    experiment = Experiment(
        chosen,
        epochs=epochs,
        replicas=replicas,
        seed=seeds,
        weights=weights,
        schedule=EveryEpochs(epochs / _RECORDS) if schedule is None else schedule,
        observables=observables,
        null=True,
        seeds={**dict.fromkeys(as_named, seeds), "sgd_null": Seeds(seeds.integer("null ensemble", 0))},
        config=settings,
    )
    trajectories = experiment.run(out=out, resume=resume, overwrite=overwrite, progress=progress)
    return Comparison(**vars(analyze(trajectories, epoch=trace_epoch, tolerance=tolerance)))


def _processes(
    landscape: NetworkLandscape,
    processes: Any,
    learning_rate: float | Rate,
    batch_size: int,
    refresh_every: int | None,
    rule: Mapping[str, Any],
) -> tuple[list[Process], list[str]]:
    """Return the processes to run, SGD first; and which of them are asked for by name, whose noises differ at one seed."""
    IsotropicNoise(batch_size, refresh_every)  # refuses what is read only where isotropic noise is asked for

    def made(kind: str, name: str) -> Process:
        options = dict(rule)
        if kind == "isotropic_langevin":
            options["refresh_every"] = refresh_every
        process = PROCESSES[one_of("process", kind, PROCESSES)](landscape, learning_rate, batch_size, **options)
        return replace(process, name=name)

    expected = "names of processes (str), or processes (Process)"
    if isinstance(processes, Mapping):
        asked = list(processes.items())
    else:
        items = (processes,) if isinstance(processes, str | Process) else listed("processes", processes, expected)
        asked = [(each.name if isinstance(each, Process) else each, each) for each in items]
    found, as_named = [made("sgd", "sgd")], ["sgd"]
    for name, each in asked:
        if isinstance(each, Process):
            found.append(each if each.name == name else replace(each, name=name))
        elif each != name or name not in as_named:
            found.append(made(each, name))
            as_named += [name] if each == name else []
    return found, as_named
