"""What the study of two phases runs: one long run measured in two ways, networks of several widths, a grid of rates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from langevin_nn import Seeds, Simulation, sgd, simulate, simulate_together
from langevin_nn.ensemble import draw_minibatch_gradients, project_gradients
from langevin_nn.observables import Losses, MeasuredWeights, NoiseSpectrum, OrderParameters, Weights
from langevin_nn.observables.base import Observable
from langevin_nn.observables.groups import n_measured
from langevin_nn.schedules import AtSteps
from models.datasets import ImageData
from studies.lab.choices import dataset_of, landscape_of, load
from studies.lab.command import of_the_numbers
from studies.lab.sweeps import whole_sweep
from studies.two_phases.plan import CHOICES, FAST, GRID_RECORDS, LATE, SPECTRA, Plan, Settled

__all__ = ["control_run", "grid_runs", "grid_simulation", "long_run", "sketches", "width_runs"]


def long_run(config: Settled, data: ImageData, plan: Plan, runs: Path) -> dict[str, xr.DataTree]:
    """Run the base case, and measure it over the hidden weights and over all parameters.

    Both measurements are of the same trajectory, since measuring disturbs nothing; that over all parameters is taken of
    fewer replicas.

    Parameters
    ----------
    config : Settled
        What was chosen.
    data : ImageData
        Without label noise.
    plan : Plan
        When to record.
    runs : Path
        Where files go.

    Returns
    -------
    dict of str to xarray.DataTree
        By name in `CHOICES`.
    """
    windows = tuple(step for first, last in plan.windows for step in range(first, last + 1))
    both = plan.at((FAST, LATE))
    of_hidden = [
        Losses(),
        OrderParameters(schedule=AtSteps(plan.order_parameters)),
        NoiseSpectrum(n_modes=config.hidden[0] * config.hidden[1], schedule=plan.at(SPECTRA)),
        MeasuredWeights(AtSteps(windows)),
    ]
    of_all = [
        Losses(),
        OrderParameters(schedule=AtSteps(plan.losses[::2])),
        NoiseSpectrum(n_modes=400, schedule=both),
        Weights(both),
    ]
    few = min(config.few_replicas, config.replicas)
    simulations = [
        _simulation(config, data, config.hidden, _hidden(config), plan.last, config.replicas, plan.losses, of_hidden),
        _simulation(config, data, config.hidden, "*", plan.last, few, plan.losses, of_all),
    ]
    return _together(simulations, [runs / "hidden_weights.nc", runs / "all_parameters.nc"])


def _simulation(
    config: Settled,
    data: ImageData,
    hidden: tuple[int, ...],
    parameters: str,
    last: int,
    replicas: int,
    losses: tuple[int, ...],
    observables: Sequence[Observable],
    seed: int | None = None,
) -> Simulation:
    landscape = landscape_of(data, config, hidden=hidden, parameters=parameters)
    process = sgd(landscape, config.learning_rate, config.batch_size)
    own = config.seed if seed is None else seed
    return Simulation(
        process, steps=last, replicas=replicas, seed=own, schedule=AtSteps(losses), observables=observables
    )


def _together(simulations: list[Simulation], paths: list[Path]) -> dict[str, xr.DataTree]:
    found = {}
    for name, each in zip(CHOICES, simulate_together(simulations, paths=paths), strict=False):
        if isinstance(each, Exception):
            raise each
        found[name] = each
    return found


def _hidden(config: Settled) -> str:
    return dataset_of(config).hidden_weights


def control_run(config: Settled, data: ImageData, plan: Plan, runs: Path) -> xr.Dataset:
    """Run the same with half of the labels redrawn, which must not pass through the same two phases.

    Parameters
    ----------
    config, data, plan, runs
        As in `long_run`.

    Returns
    -------
    xarray.Dataset
        Losses and errors.
    """
    few = tuple(range(config.few_replicas))
    landscape = landscape_of(data, config, label_noise=0.5, hidden=config.hidden, replicas=few)
    return simulate(
        sgd(landscape, config.learning_rate, config.batch_size),
        steps=plan.last,
        replicas=few,
        seed=config.seed,
        schedule=AtSteps(plan.losses),
        observables=[Losses()],
        resume=runs / "label_noise.nc",
    ).to_dataset()


def width_runs(config: Settled, data: ImageData, plan: Plan, runs: Path) -> xr.Dataset:
    """Measure the effective dimension of networks of several widths, in both phases.

    Parameters
    ----------
    config, data, plan, runs
        As in `long_run`.

    Returns
    -------
    xarray.Dataset
        ``effective_dimension``, ``is_lower_bound`` and ``train_error`` (choice, width, replica, phase), ``n_parameters``
        (choice, width); over all parameters at every other width, NaN elsewhere.
    """
    half = Plan(plan.epochs * LATE, plan.per_epoch)
    moments = half.at((FAST / LATE, 1.0))
    losses = tuple(sorted({*half.losses[::2], *moments.at}))
    rows: dict[str, list[xr.Dataset]] = {name: [] for name in CHOICES}
    for k, width in enumerate(config.widths):
        measured = ((_hidden(config), 160), ("*", 400))[: 1 + (k % 2 == 0)]
        simulations = [
            _simulation(
                config, data, (width, width), parameters, half.last, config.few_replicas, losses,
                [Losses(), NoiseSpectrum(n_modes=most, schedule=moments)],
                # Of its own: shares are counted over widths and replicas together.
                seed=Seeds(config.seed).integer(f"width {width}", 0),
            )
            for parameters, most in measured
        ]  # fmt: skip
        paths = [runs / f"width_{width}_{name}.nc" for name in ("hidden_weights", "all_parameters")[: len(measured)]]
        found = _together(simulations, paths)
        for (name, tree), simulation in zip(found.items(), simulations, strict=True):
            rows[name].append(_of_width(tree, n_measured(simulation.process.landscape)).assign_coords(width=width))
    of_choices = [xr.concat(own, "width") for own in rows.values()]
    return xr.concat(of_choices, xr.Variable("choice", list(CHOICES)), join="outer")


def _of_width(tree: xr.DataTree, n_parameters: int) -> xr.Dataset:
    spectrum = tree["spectrum"].to_dataset().load()
    errors = tree.to_dataset().train_error.sel(cohort="all", step=spectrum.spectrum_step.values)
    values = {
        "effective_dimension": spectrum.effective_dimension.transpose("replica", "spectrum_step").values,
        "is_lower_bound": spectrum.effective_dimension_is_lower_bound.transpose("replica", "spectrum_step").values,
        "train_error": errors.transpose("replica", "step").values,
    }
    made = xr.Dataset({name: (("replica", "phase"), each.astype(float)) for name, each in values.items()})
    return made.assign(n_parameters=float(n_parameters)).assign_coords(
        phase=["fast_learning", "exploration"], replica=spectrum.replica.values
    )


def grid_simulation(learning_rate: float, batch_size: int, *, config: Settled) -> Simulation:
    """Return the run at one point of the grid, as long in gradient-flow time as half of the long run.

    Parameters
    ----------
    learning_rate : float
        α.
    batch_size : int
        B.
    config : Settled
        What was chosen.

    Returns
    -------
    Simulation
        Recorded at the same gradient-flow times everywhere, to within an update.
    """
    data = load(config)
    plan = Plan.of(config, len(data.train_inputs))
    last = max(GRID_RECORDS, round(plan.last * LATE * config.learning_rate / learning_rate))
    losses = np.unique(np.rint([0, *np.geomspace(last / 200, last, GRID_RECORDS)]).astype(int))
    measured = np.unique(np.rint(np.geomspace(last / 160, last, 8)).astype(int))
    landscape = landscape_of(data, config, hidden=config.hidden, parameters=_hidden(config))
    return Simulation(
        sgd(landscape, learning_rate, batch_size),
        steps=last,
        replicas=config.few_replicas,
        seed=Seeds(config.seed).integer(f"grid at α = {learning_rate!r}, B = {batch_size}", 0),
        schedule=AtSteps(tuple(int(each) for each in losses)),
        observables=[Losses(), OrderParameters(schedule=AtSteps(tuple(int(each) for each in measured)))],
    )


def grid_runs(config: Settled, runs: Path) -> xr.Dataset:
    """Run the grid of learning rates and minibatches.

    Parameters
    ----------
    config : Settled
        What was chosen.
    runs : Path
        Where files go.

    Returns
    -------
    xarray.Dataset
        Losses and order parameters by ``point``.

    Raises
    ------
    ConfigurationError
        If a point failed.
    """
    named = of_the_numbers(config)
    grid = {"learning_rate": config.learning_rates, "batch_size": config.batch_sizes}
    return whole_sweep(partial(grid_simulation, config=named), grid, runs / "grid", 1)


def sketches(config: Settled, data: ImageData, trajectory: xr.DataTree) -> xr.Dataset:
    """Project minibatch gradients of the first replica onto a plane, in both phases.

    Parameters
    ----------
    config : Settled
        What was chosen.
    data : ImageData
        The training set.
    trajectory : xarray.DataTree
        Of all parameters, with weights in both phases.

    Returns
    -------
    xarray.Dataset
        Of `langevin_nn.ensemble.project_gradients`, along ``panel``.
    """
    landscape = landscape_of(data, config, hidden=config.hidden, parameters=_hidden(config))
    weights = trajectory["weights"].to_dataset()["weights"].isel(replica=0).transpose("weight_step", "parameter")
    panels = []
    for k, own in enumerate(weights.values):
        generator = Seeds(config.seed).generator("sketch of gradients", 0, k)
        gradients = landscape.sample_gradients(torch.as_tensor(own))
        drawn = draw_minibatch_gradients(gradients, config.batch_size, generator)
        panels.append(project_gradients({"all": drawn}))
    return xr.concat(panels, "panel").assign_coords(panel=["fast learning", "exploration"])
