"""SGD against Langevin dynamics on a user's own landscape."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from langevin_nn.analyzers import analyze
from langevin_nn.checks import as_path, instance, listed, number, one_of, truth, whole_number
from langevin_nn.ensemble import covariance_factor
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import NetworkLandscape
from langevin_nn.noise import IsotropicNoise
from langevin_nn.observables import DrivingNoise, Losses, NoiseSpectrum, Observable, OrderParameters, SampleLosses
from langevin_nn.process import PROCESSES, Process
from langevin_nn.provenance import plain
from langevin_nn.report import Comparison
from langevin_nn.schedules import AtEpochs, EveryEpochs, Schedule
from langevin_nn.seeds import Seeds
from langevin_nn.simulate import Simulation
from langevin_nn.store import (
    check_writable,
    folder_of,
    has_work,
    join_processes,
    open_trajectory,
    refuse_finished,
    refuse_unless_it_fits,
    write_trajectory,
)
from langevin_nn.store.resumption import refuse_another

__all__ = ["compare"]

# Where spectra and sample losses are taken, as shares of the run: one in each phase of the paper's learning curve.
_GLANCES = (0.01, 0.08, 0.4, 1.0)
_RECORDS = 60


def compare(
    landscape: NetworkLandscape,
    *,
    learning_rate: float,
    batch_size: int,
    epochs: float,
    replicas: int = 4,
    seed: int = 0,
    processes: Iterable[str] = ("langevin", "isotropic_langevin", "gradient_descent"),
    momentum: float = 0.0,
    weight_decay: float = 0.0,
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
    learning_rate : float
        α, in units of gradient-flow time.
    batch_size : int
        B.
    epochs : float
        Length of each run.
    replicas : int, optional
        How many of each process; at least 2, and 4 or more for useful intervals.
    seed : int, optional
        Owner of all randomness.
    processes : iterable of str, optional
        Among "langevin", "isotropic_langevin", "gradient_descent" and "independent_sgd" (minibatches drawn independently
        instead of shuffled epochs); "sgd" and its null are always run.
    momentum : float, optional
        μ, for all processes.
    weight_decay : float, optional
        λ, in units of 1/time, for all processes.
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
    expected = "names of processes (str)"
    names = (processes,) if isinstance(processes, str) else listed("processes", processes, expected)
    chosen = _processes(landscape, names, learning_rate, batch_size, momentum, weight_decay, refresh_every)
    if not landscape.is_classifier:
        raise ConfigurationError(
            "compare tells the phases of learning from training errors, and there are none: expected labels of one class a "
            "sample (whole numbers) and one output a class, or one logit with a loss that is symmetric in both classes; run "
            "the processes one by one with simulate instead"
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
    resume = truth("resume", resume, "whether to go on with the run in out")
    overwrite = truth("overwrite", overwrite, "whether to replace a finished run in out")
    seeds = Seeds(seed)
    seed = seeds.seed
    tolerance = number("tolerance", tolerance, "a finite number from 0, in spreads", least=0)
    trace_epoch = number("trace_epoch", trace_epoch, "a finite number from 0, where to report Tr Σ", least=0)
    size = landscape.n_parameters * landscape.dtype.itemsize * replicas
    refuse_unless_it_fits(0, 0, size, None, None)
    folder = None if out is None else as_path("out", out)
    if folder is None and resume:
        raise ConfigurationError(
            "resume=True without out: expected the folder in which the run was killed or interrupted"
        )
    if folder is not None:
        check_writable(folder)
        whole = folder / "trajectories.nc"
        refuse_finished(whole, overwrite=overwrite, resume="resume=True (--resume)", resuming=resume)
        if not resume:
            _refuse_remains(folder, chosen)
    glances = AtEpochs(tuple(share * epochs for share in _GLANCES))
    observables: list[Observable] = [
        Losses(),
        OrderParameters(alignment_minibatches),
        DrivingNoise(),
        NoiseSpectrum(schedule=glances),
        SampleLosses(schedule=glances),
    ]
    settings = {
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "epochs": epochs,
        "replicas": replicas,
        "seed": seed,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "landscape": plain(landscape),
        **(config or {}),
    }
    described = {"processes": {name: plain(process) for name, process in chosen.items()}, **settings}
    if folder is not None and resume and whole.exists():
        finished = open_trajectory(whole)
        refuse_another(finished.attrs["config_json"], described, str(whole))
        _remove_parts(folder, chosen)
        return Comparison(**vars(analyze(finished, epoch=trace_epoch, tolerance=tolerance)))
    weights = landscape.initial_weights(tuple(range(replicas)), seeds)
    planned = {
        name: Simulation(
            process,
            epochs=epochs,
            replicas=replicas,
            seed=_null_seeds(seeds) if name == "sgd_null" else seeds,
            weights=weights,
            schedule=EveryEpochs(epochs / _RECORDS) if schedule is None else schedule,
            observables=observables,
            config=settings,
        )
        for name, process in chosen.items()
    }
    for name, each in planned.items():
        each.refuse_unless_it_fits(None if folder is None else folder / f"{name}.nc")
    if folder is not None:
        # Nothing stands against this run any more, beside whose parts an earlier one's result must not lie.
        whole.unlink(missing_ok=True)
    recorded: dict[str, xr.DataTree] = {}
    for name, each in planned.items():
        file = None if folder is None else folder / f"{name}.nc"
        going_on = file if resume else None
        # What lies in the place of a part is of a run that diverged.
        recorded[name] = each.run(path=file, resume=going_on, overwrite=not resume, progress=progress)
    trajectories = join_processes(recorded, described)
    trajectories.attrs["covariance_factor"] = covariance_factor(landscape.n_samples, batch_size)
    if folder is not None:
        trajectories = open_trajectory(write_trajectory(trajectories, whole))
        for part in recorded.values():
            part.close()
        _remove_parts(folder, chosen)
    return Comparison(**vars(analyze(trajectories, epoch=trace_epoch, tolerance=tolerance)))


def _refuse_remains(folder: Path, names: Iterable[str]) -> None:
    """Raise where an interrupted run would be lost; the parts of one that diverged have had their day."""
    files = [folder / f"{name}.nc" for name in names]
    parts = [open_trajectory(file) for file in files if file.exists()]
    killed = [file for file in files if has_work(folder_of(file))]
    between = bool(parts) and all(int(part.attrs["complete"]) for part in parts)
    if killed or between:
        raise ConfigurationError(
            f"{str(folder)!r} holds a run that did not end: expected none, since its records would be lost; go on with it "
            "(resume=True, --resume), remove the folder, or write to another one"
        )


def _remove_parts(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / f"{name}.nc").unlink(missing_ok=True)


def _null_seeds(seeds: Seeds) -> Seeds:
    return Seeds(seeds.integer("null ensemble", 0))


def _processes(
    landscape: NetworkLandscape,
    names: Iterable[str],
    learning_rate: float,
    batch_size: int,
    momentum: float,
    weight_decay: float,
    refresh_every: int | None,
) -> dict[str, Process]:
    """Return the processes to run, SGD and its null first."""
    made: dict[str, Process] = {}
    IsotropicNoise(batch_size, refresh_every)  # refuses what is read only where isotropic noise is asked for
    for name in dict.fromkeys(["sgd", *(one_of("process", each, PROCESSES) for each in names)]):
        options: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay}
        if name == "isotropic_langevin":
            options["refresh_every"] = refresh_every
        process = PROCESSES[name](landscape, learning_rate, batch_size, **options)
        made[name] = replace(process, name=name)
        if name == "sgd":
            made["sgd_null"] = replace(process, name="sgd_null")
    return made
