"""What the study runs: a pilot that knows the phases, all processes from the same weights, and larger and larger steps."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import xarray as xr
from torch import Tensor

from langevin_nn import Process, Seeds, Simulation, sgd, simulate
from langevin_nn.observables import Losses, OrderParameters, Weights
from langevin_nn.schedules import AtEpochs
from studies.is_the_sde_valid.plan import Plan, Settled, landscape_for, plan_for, processes
from studies.lab.command import of_the_numbers
from studies.lab.sweeps import whole_sweep

__all__ = ["all_runs", "pilot_run", "scaled_runs"]


# What differs from process to process besides what was measured.
_OF_POINTS = ("epoch", "time", "update_count", "learning_rate", "effective_learning_rate")


def pilot_run(config: Settled, runs: Path) -> xr.DataTree:
    """Run SGD once more: its phases are those of the comparisons, in which it takes no part, so that these stay exact.

    Parameters
    ----------
    config : Settled
        What was chosen.
    runs : Path
        Where files go.

    Returns
    -------
    xarray.DataTree
        Losses, order parameters, and weights at some records.
    """
    plan = _plan(config)
    return simulate(
        processes(config)["sgd"](),
        epochs=plan.epochs,
        replicas=config.replicas,
        seed=_noise(config, "pilot"),
        weights=_start(config),
        schedule=AtEpochs(plan.losses),
        observables=[*_observables(config, plan), Weights(plan.weights)],
        resume=runs / "pilot.nc",
    )


def all_runs(config: Settled, runs: Path) -> xr.Dataset:
    """Run all processes.

    Parameters
    ----------
    config : Settled
        With the tail index of the heavy-tailed noise.
    runs : Path
        Where files go.

    Returns
    -------
    xarray.Dataset
        Losses and order parameters by ``process``.
    """
    named = of_the_numbers(config)
    grid = {"process": list(processes(config))}
    return _by_process(whole_sweep(partial(_simulation, config=named), grid, runs / "processes", config.workers))


def scaled_runs(config: Settled, runs: Path) -> xr.Dataset:
    """Run SGD with learning rate and minibatch multiplied together.

    Parameters
    ----------
    config : Settled
        With the factors.
    runs : Path
        Where files go.

    Returns
    -------
    xarray.Dataset
        Losses and order parameters by ``process``, named after the factor.
    """
    named = of_the_numbers(config)
    grid = {"process": [str(each) for each in config.scalings]}
    return _by_process(whole_sweep(partial(_scaled, config=named), grid, runs / "scaled", config.workers))


def _simulation(process: str, *, config: Settled) -> Simulation:
    return _planned(config, processes(config)[process](), process)


def _scaled(process: str, *, config: Settled) -> Simulation:
    factor = int(process)
    scaled = sgd(landscape_for(config), factor * config.learning_rate, factor * config.batch_size)
    return _planned(config, scaled, f"SGD scaled by {factor}")


def _planned(config: Settled, process: Process, name: str) -> Simulation:
    plan = _plan(config)
    return Simulation(
        process,
        epochs=plan.epochs,
        replicas=config.replicas,
        seed=_noise(config, name),
        weights=_start(config),
        schedule=AtEpochs(plan.losses),
        observables=_observables(config, plan),
        on_divergence="mask",
    )


def _observables(config: Settled, plan: Plan) -> list[Losses | OrderParameters]:
    return [Losses(), OrderParameters(config.alignment_minibatches, schedule=plan.order_parameters)]


@cache
def _plan(config: Settled) -> Plan:
    # Not by the tail index, which is known only when the pilot has run.
    return plan_for(replace(config, tail_index=None))


def _noise(config: Settled, name: str) -> Seeds:
    """Return randomness that no other process has: a pair shares its start and nothing else."""
    return Seeds(Seeds(config.seed).integer(f"noise of {name}", 0))


@cache
def _start(config: Settled) -> Tensor:
    return landscape_for(config).initial_weights(tuple(range(config.replicas)), Seeds(config.seed))


def _by_process(points: xr.Dataset) -> xr.Dataset:
    """Return runs by process on one clock: records of all are at the same epochs, to within an update."""
    epochs = points["epoch"].values
    epoch = epochs if epochs.ndim == 1 else epochs[0]
    kept = points.drop_vars([name for name in _OF_POINTS if name in points])
    return kept.swap_dims(point="process").assign_coords(epoch=("step", epoch))
