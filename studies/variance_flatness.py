"""Ask how weights fluctuate in flat and in steep directions, and which noise makes them fluctuate less where it is flat.

In equilibrium a coordinate fluctuates the more the flatter its valley is, σ² ~ F² (fluctuation and dissipation). Feng &
Tu (PNAS 118, e2015617118, 2021, doi 10.1073/pnas.2015617118) found the inverse for SGD: along principal components of
the weights in the exploration phase σ² ~ F^(−ψ) with ψ about 4, where F is the width in which the loss stays below e
times its value.

Networks are trained without label noise into exploration. From there run SGD with shuffled epochs and with independent
minibatches, Langevin dynamics with Gaussian noise of the same covariance, with that covariance frozen, and with
isotropic noise of the same trace: each with several copies from the same weights. Over a window, variance and
correlation time are measured along principal components and along eigenvectors of the Hessian; flatness (both theirs
and the curvature's), curvature and noise where the windows start from. Principal components of anything that diffuses
have falling variances of their own: a random walk with the noise of SGD and no landscape at all is the control, and so
are the variances of other copies along the same directions. Probability currents and the entropy production rate in
planes of principal components are held against zero.

Writes trajectories, variance_flatness.nc, summary.json and figures, and prints the verdict.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from langevin_nn import NetworkLandscape, Simulation, sgd
from langevin_nn.analyzers import logarithm
from langevin_nn.checks import listed, number, one_of, shown, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.figures import loss_profile_figure, variance_flatness_figure, write_figures
from langevin_nn.provenance import attributes
from langevin_nn.report import say
from langevin_nn.store import write_trajectory
from langevin_nn.threads import single_threaded_products
from models.datasets import ImageData
from studies.command import Command
from studies.flatness.exponents import dissipation, exponents, pooled, with_intervals
from studies.flatness.measures import BASES, Point, currents, directions_of, measure, profiles
from studies.flatness.runs import (
    PROCESSES,
    RANDOM_WALK,
    Config,
    Start,
    copies_of,
    hidden_columns,
    network,
    random_walk,
    trained,
    window_of,
)
from studies.paper.folder import begin, finish, words_of
from studies.paper.training import SETTINGS, load, settled

__all__ = ["Config", "Found", "main", "run", "verdict"]

NAME = "variance_flatness"
RESULTS = (f"{NAME}.nc", "summary.json", f"{NAME}.png", "loss_profiles.png")

_QUICK: dict[str, Any] = {
    "samples_per_class": 20,
    "batch_size": 10,
    "learning_rate": 0.3,
    "epochs": 50.0,
    "hidden": (16, 16),
    "processes": ("sgd", "independent_sgd", "isotropic_langevin"),
    "replicas": 2,
    "burn_in": 2.0,
    "window": 10.0,
    "records": 40,
    "components": 8,
    "rank": 10,
}
_WITHOUT_LABEL_NOISE: dict[str, dict[str, Any]] = {
    "mnist": {"learning_rate": 0.1, "batch_size": 50, "epochs": 200.0, "parameters": "2.weight"},
    "mnist10k": {"learning_rate": 0.1, "batch_size": 50, "epochs": 200.0, "parameters": "2.weight"},
    "digits": {"learning_rate": 0.1, "batch_size": 25, "epochs": 200.0, "parameters": "*"},
}
_NAMES = {
    "sgd": "SGD, shuffled epochs",
    "independent_sgd": "SGD, independent draws",
    "langevin": "matched Gaussian",
    "frozen_langevin": "frozen Gaussian",
    "isotropic_langevin": "isotropic",
    RANDOM_WALK: "random walk",
}


@dataclass(frozen=True)
class Found:
    """What the study found.

    Parameters
    ----------
    measured : xarray.Dataset
        Fluctuations, landscape and noise by process, basis, replica and rank.
    exponents : xarray.Dataset
        Against both widths, by replica.
    pooled : xarray.Dataset
        One power law for all replicas.
    dissipation : xarray.DataArray
        Variances over those of the fluctuation–dissipation relation.
    currents : xarray.Dataset
        By process, replica and plane.
    profiles : xarray.Dataset
        Losses along some principal components of SGD.
    losses : xarray.Dataset
        Training loss at the beginning and at the end of each window.
    """

    measured: xr.Dataset
    exponents: xr.Dataset
    pooled: xr.Dataset
    dissipation: xr.DataArray
    currents: xr.Dataset
    profiles: xr.Dataset
    losses: xr.Dataset


def _settled(config: Config) -> Config:
    config = settled(config, _QUICK, **_WITHOUT_LABEL_NOISE)
    assert config.dataset is not None
    if SETTINGS[config.dataset].is_convolutional:
        raise ConfigurationError(
            f"dataset={config.dataset!r}: expected one on which a fully connected network is trained; choose digits, "
            "mnist10k or mnist"
        )
    if len(config.hidden) != 2 or min(config.hidden) < 1:
        raise ConfigurationError(
            f"hidden={shown(config.hidden)}: expected two whole numbers from 1, since the weights between two hidden layers "
            "are measured"
        )
    processes = listed("processes", config.processes, "names of processes")
    for each in processes:
        one_of("process", each, PROCESSES)
    if "sgd" not in processes or len(set(processes)) < len(processes):
        raise ConfigurationError(
            f"processes={shown(processes)}: expected sgd, and each name once, since the others are compared with it"
        )
    expected = "at least 4 (int), since currents are measured on independent contrasts in planes of others"
    whole_number("copies", config.copies, expected, least=4, most=1000)
    number("burn_in", config.burn_in, "a number of epochs from 0", least=0, most=1e6)
    number("window", config.window, "a number of epochs above 0", above=0, most=1e6)
    whole_number("records", config.records, "at least 20 records (int) of weights", least=20, most=100_000)
    whole_number("components", config.components, "at least 8 components (int), to fit an exponent to", least=8)
    whole_number("rank", config.rank, "at least 1 direction (int) of frozen noise", least=1)
    return config


def _check_lengths(config: Config, landscape: NetworkLandscape) -> None:
    records = len(config.steps_of(landscape.n_samples))
    most = min(records - 2, len(landscape.measured_columns))
    if config.components > most:
        raise ConfigurationError(
            f"components={config.components} with {records} records of {len(landscape.measured_columns)} weights: expected "
            f"at most {most}, since there are no more principal components; choose fewer, or a longer --window"
        )


def run(config: Config) -> Found:
    """Run the study and write its results.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    Found
        Tables from which the verdict is read.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run.
    EstimationRefused
        If a network has not reached exploration.
    """
    config = _settled(config)
    data = load(config)
    landscape = network(config, data)
    assert config.learning_rate is not None
    assert config.batch_size is not None
    # What cannot run is refused before anything does.
    Simulation(sgd(landscape, config.learning_rate, config.batch_size), epochs=config.epochs)
    _check_lengths(config, landscape)
    started = time.perf_counter()
    runs = begin(config, NAME, RESULTS)
    start = trained(config, landscape, runs)
    trees = {name: window_of(name, config, landscape, start, runs) for name in config.processes}
    with single_threaded_products():  # small networks lose more time to threads than they gain
        found = _found(config, data, landscape, start, trees)
    _write(config, found)
    summary = {
        "verdict": verdict(found).splitlines(),
        "exploration_begins": start.exploration_begins.tolist(),
        "start_epoch": start.epoch,
        "start_loss": start.loss.tolist(),
        "trend_share": _by_process(found.measured.trend_share.sel(basis=BASES[0]).isel(rank=0)),
    }
    finish(summary, config, NAME, config.out, time.perf_counter() - started)
    _draw(config, found)
    return found


def _found(
    config: Config, data: ImageData, landscape: NetworkLandscape, start: Start, trees: dict[str, xr.DataTree]
) -> Found:
    """Measure every window, and the random walk beside them."""
    assert config.learning_rate is not None
    hidden = hidden_columns(config, data, landscape)
    names = [*config.processes, RANDOM_WALK]
    tables: dict[str, list[xr.Dataset]] = {name: [] for name in names}
    planes: dict[str, list[xr.Dataset]] = {name: [] for name in names}
    lines = xr.Dataset()
    for replica in range(config.replicas):
        point = Point(config, landscape, start, replica)
        for name in names:
            if name == RANDOM_WALK:
                copies = random_walk(config, landscape, start, replica)
            else:
                copies = copies_of(config, trees[name], replica)
            tables[name].append(measure(config, point, name, copies, hidden))
            planes[name].append(currents(copies))
            if replica == 0 and name == "sgd":
                chosen = directions_of(config, point, BASES[0], copies.isel(replica=[0]), hidden)
                ranks = np.unique(np.rint(np.geomspace(1, len(chosen), 4)).astype(int))
                lines = profiles(landscape, point, chosen[ranks - 1]).assign_coords(component=("direction", ranks))
    measured, flows = (
        xr.concat([xr.concat(rows, "replica") for rows in each.values()], xr.Variable("process", names))
        for each in (tables, planes)
    )
    window = float(np.ptp(config.steps_of(landscape.n_samples))) * config.learning_rate
    return Found(
        measured=measured,
        exponents=exponents(measured, window),
        pooled=pooled(measured),
        dissipation=dissipation(measured, config.learning_rate, window),
        currents=flows,
        profiles=lines,
        losses=_losses(config, trees),
    )


def _losses(config: Config, trees: dict[str, xr.DataTree]) -> xr.Dataset:
    """Return the training loss where windows begin and end, means over copies."""
    rows = []
    for tree in trees.values():
        losses = tree["train_loss"].sel(cohort="all").dropna("step").values
        first = int(np.argmin(np.abs(tree["epoch"].dropna("step").values - config.burn_in)))
        by_network = losses.reshape(config.replicas, config.copies, -1).mean(1)
        rows.append(by_network[:, [first, -1]])
    return xr.Dataset(
        {"train_loss": (("process", "replica", "end"), np.stack(rows), {"long_name": "training loss", "units": "nat"})},
        coords={"process": list(trees), "end": ["first", "last"]},
    )


def _write(config: Config, found: Found) -> None:
    """Write tables."""
    tables = {
        "measured": found.measured,
        "exponents": found.exponents,
        "pooled": found.pooled,
        "dissipation": found.dissipation.to_dataset(name="dissipation_ratio"),
        "currents": found.currents,
        "profiles": found.profiles,
        "losses": found.losses,
    }
    tree = xr.DataTree.from_dict({f"/{name}": each for name, each in tables.items()})
    tree.attrs.update(attributes({"study": NAME, "choices": words_of(config)}))
    write_trajectory(tree, config.out / f"{NAME}.nc", overwrite=True)


def _draw(config: Config, found: Found) -> None:
    figures = {
        NAME: variance_flatness_figure(found.measured, found.exponents, found.currents, _NAMES),
        "loss_profiles": loss_profile_figure(found.profiles),
    }
    write_figures(figures, config.out)


def _by_process(values: xr.DataArray) -> dict[str, float]:
    return {str(name): float(values.sel(process=name).mean("replica")) for name in values.process.values}


def kind_of(exponents_of_networks: xr.DataArray) -> str:
    """Return what an exponent of variance against flatness means.

    Parameters
    ----------
    exponents_of_networks : xarray.DataArray, shape (replica,)
        b of each network.

    Returns
    -------
    str
        "inverse", "as in equilibrium", "neither" where the interval over networks holds 0, or "unknown" where there is none.
    """
    moments = with_intervals(exponents_of_networks)
    if not np.isfinite(moments.upper):
        return "unknown"
    if float(moments.upper) < 0:
        return "inverse"
    return "as in equilibrium" if float(moments.lower) > 0 else "neither"


def verdict(found: Found) -> str:
    """Return what was found, in words.

    Parameters
    ----------
    found : Found
        Of `run`.

    Returns
    -------
    str
        Which process shows the inverse relation, what of it a random walk shows, and which ones go around.
    """
    by_width = found.exponents.exponent.sel(width="flatness")
    measured = by_width.sel(basis=BASES[0], range="all")
    lines = [
        "Exponent b of weight variance against flatness, variance ~ F^b; equilibrium has b = 2, Feng & Tu b near -4:"
    ]
    walk = measured.sel(process=RANDOM_WALK, quantity="variance", drop=True)
    for process in found.exponents.process.values:
        own = measured.sel(process=process)
        said = [
            f"{_interval(own.sel(quantity='variance'))} ({kind_of(own.sel(quantity='variance'))})",
            f"in other copies {_interval(own.sel(quantity='held_out_variance'))}",
            f"of its noise {_interval(own.sel(quantity='noise'))}",
        ]
        if process != RANDOM_WALK:
            excess = own.sel(quantity="variance", drop=True) - walk
            said.append(f"less that of the random walk {_interval(excess)}")
        lines.append(f"  {_NAMES[str(process)]}: " + "; ".join(said))
    lines += [
        "Along eigenvectors of the Hessian, which no fluctuation chose, and the variance over that of the noise's balance:"
    ]
    for process in found.exponents.process.values:
        parts = []
        for which, words in (("relaxed", "relaxed directions"), ("slow", "slow ones")):
            own = by_width.sel(basis=BASES[-1], range=which, process=process, quantity="variance")
            ratio = found.dissipation.sel(basis=BASES[-1], range=which, process=process)
            parts.append(f"{words} {_interval(own)}, ratio {_interval(ratio, logarithmic=True)}")
        lines.append(f"  {_NAMES[str(process)]}: " + "; ".join(parts))
    lines += ["Entropy production in the leading plane, per longer correlation time (0 where nothing goes around):"]
    leading = found.currents.entropy_per_correlation_time
    for process in found.exponents.process.values:
        first, rest = leading.sel(process=process, plane=1), leading.sel(process=process).mean("plane", skipna=False)
        lines.append(
            f"  {_NAMES[str(process)]}: {_interval(first)}; over {leading.sizes['plane']} planes {_interval(rest)}"
        )
    return "\n".join([*lines, *_conclusion(measured)])


def _conclusion(measured: xr.DataArray) -> list[str]:
    """Return which processes show the inverse relation, and of which a random walk shows as much."""
    own = measured.sel(quantity="variance", drop=True)
    walk = own.sel(process=RANDOM_WALK, drop=True)
    others = [name for name in own.process.values if name != RANDOM_WALK]
    kinds = {_NAMES[str(name)]: kind_of(own.sel(process=name)) for name in others}
    told = [
        _NAMES[str(name)]
        for name in others
        if kind_of(own.sel(process=name, drop=True) - walk) not in ("neither", "unknown")
    ]
    inverse = [name for name, kind in kinds.items() if kind == "inverse"]
    rest = [f"{name} ({kind})" for name, kind in kinds.items() if kind != "inverse"]
    return [
        f"The inverse relation shows in: {', '.join(inverse) or 'none'}; not in: {', '.join(rest) or 'none'}.",
        f"A random walk with SGD's noise and no landscape shows it too ({_interval(walk)}); other exponents than its have: "
        f"{', '.join(told) or 'none'}."
        if kind_of(walk) == "inverse"
        else f"A random walk with SGD's noise and no landscape does not show it ({_interval(walk)}).",
    ]


def _interval(values: xr.DataArray, *, logarithmic: bool = False) -> str:
    """Return a mean over networks, geometric where it is of ratios, with its 95 % interval."""
    moments = with_intervals(logarithm(values) if logarithmic else values)
    mean, low, high = (float(moments[name]) for name in ("mean_value", "lower", "upper"))
    if logarithmic:
        mean, low, high = (float(np.exp(each)) for each in (mean, low, high))
    if not np.isfinite(mean):
        return "unknown"
    return f"{mean:.2g} ({low:.2g} to {high:.2g})"


def _study(config: Config) -> None:
    say(verdict(run(config)))
    say(f"\nResults are in {config.out}: runs/, {', '.join(RESULTS)}.")


main = Command("variance_flatness", Config, __doc__, _study)


if __name__ == "__main__":
    raise SystemExit(main())
