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

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn import NetworkLandscape, Simulation, sgd
from langevin_nn.analyzers import logarithm, mean_with_interval
from langevin_nn.checks import listed, number, one_of, shown, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.threads import single_threaded_products
from studies.lab.choices import dataset_of, load, refuse_own_network, settle
from studies.lab.study import Answer, Study, Work
from studies.variance_flatness.exponents import dissipation, exponents, pooled
from studies.variance_flatness.figures import loss_profile_figure, variance_flatness_figure
from studies.variance_flatness.measures import BASES, Point, components, currents, measure, profiles
from studies.variance_flatness.runs import (
    PROCESSES,
    RANDOM_WALK,
    Config,
    Settled,
    Start,
    copies_of,
    hidden_columns,
    network,
    random_walk,
    trained,
    window_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Config", "Found"]

NAME = "variance_flatness"

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
    start : Start
        Where windows begin.
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

    start: Start
    measured: xr.Dataset
    exponents: xr.Dataset
    pooled: xr.Dataset
    dissipation: xr.DataArray
    currents: xr.Dataset
    profiles: xr.Dataset
    losses: xr.Dataset


class VarianceFlatness(Study[Config, Settled, Found]):
    """Fluctuations against flatness, of every process and of a random walk."""

    name = NAME
    choices = Config
    quick = _QUICK
    table = f"{NAME}.nc"
    drawn = (NAME, "loss_profiles")

    def settle(self, choices: Config) -> Settled:
        given = dataset_of(choices).fluctuating if choices.parameters is None else choices.parameters
        settled = settle(Settled, replace(choices, parameters=given), "clean")
        _check(settled)
        return settled

    def plan(self, settled: Settled) -> dict[str, float]:
        count, walk = settled.replicas, (settled.burn_in + settled.window) * settled.copies
        # As --quick took: noise of the whole set's gradients, and all that is measured along directions.
        walks = {name: count * walk * (1 if name.endswith("sgd") else 10) for name in settled.processes}
        networks = {f"network {replica + 1}": 4 * walk for replica in range(count)}
        return {"training": 2 * settled.epochs * count, **walks, **networks, "profiles": walk}

    def measure(self, settled: Settled, work: Work) -> Found:
        data = load(settled)
        landscape = network(settled, data)
        with work.part("training"):
            start = trained(settled, landscape, work.folder)
        trees = {}
        for name in settled.processes:
            with work.part(name):
                trees[name] = window_of(name, settled, landscape, start, work.folder)
        hidden, rows = hidden_columns(settled, data, landscape), []
        with single_threaded_products():  # small networks lose more time to threads than they gain
            for replica in range(settled.replicas):
                with work.part(f"network {replica + 1}"):
                    own = partial(_of_network, settled, landscape, start, trees, hidden, replica)
                    rows.append(work.kept(f"network_{replica + 1}", own))
            with work.part("profiles"):
                lines = work.kept("profiles", lambda: _profiles(settled, landscape, start, trees["sgd"], hidden))
        whole = xr.concat(rows, "replica").transpose("process", "replica", ...)
        measured = whole.drop_dims("plane")
        window = float(np.ptp(settled.steps_of(landscape.n_samples))) * settled.learning_rate
        return Found(
            start=start,
            measured=measured,
            exponents=exponents(measured, window),
            pooled=pooled(measured),
            dissipation=dissipation(measured, settled.learning_rate, window),
            currents=whole.drop_dims(("basis", "rank")),
            profiles=lines,
            losses=_losses(settled, trees),
        )

    def tables(self, settled: Settled, found: Found) -> dict[str, xr.Dataset]:
        return {
            "measured": found.measured,
            "exponents": found.exponents,
            "pooled": found.pooled,
            "dissipation": found.dissipation.to_dataset(name="dissipation_ratio"),
            "currents": found.currents,
            "profiles": found.profiles,
            "losses": found.losses,
        }

    def verdict(self, answer: Answer[Settled, Found]) -> str:
        found = answer.found
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
            "Along eigenvectors of the Hessian, which no fluctuation chose, and the variance over that of the noise's "
            "balance:"
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
            first, rest = (
                leading.sel(process=process, plane=1),
                leading.sel(process=process).mean("plane", skipna=False),
            )
            lines.append(
                f"  {_NAMES[str(process)]}: {_interval(first)}; over {leading.sizes['plane']} planes {_interval(rest)}"
            )
        return "\n".join([*lines, *_conclusion(measured)])

    def summary(self, answer: Answer[Settled, Found]) -> dict[str, Any]:
        found = answer.found
        trend = found.measured.trend_share.sel(basis=BASES[0]).isel(rank=0).mean("replica")
        return {
            "exploration_begins": found.start.exploration_begins.tolist(),
            "start_epoch": found.start.epoch,
            "start_loss": found.start.loss.tolist(),
            "trend_share": trend.to_series().to_dict(),
        }

    def figures(self, answer: Answer[Settled, Found]) -> dict[str, Figure]:
        found = answer.found
        return {
            NAME: variance_flatness_figure(found.measured, found.exponents, found.currents, _NAMES),
            "loss_profiles": loss_profile_figure(found.profiles),
        }


STUDY = VarianceFlatness()


def _check(settled: Settled) -> None:
    """Refuse what cannot be run, or tells nothing, before anything runs."""
    refuse_own_network(settled, "since the weights between its hidden layers are measured")
    if len(settled.hidden) != 2 or min(settled.hidden) < 1:
        raise ConfigurationError(
            f"hidden={shown(settled.hidden)}: expected two whole numbers from 1, since the weights between two hidden layers "
            "are measured"
        )
    processes = listed("processes", settled.processes, "names of processes")
    for each in processes:
        one_of("process", each, PROCESSES)
    if "sgd" not in processes or len(set(processes)) < len(processes):
        raise ConfigurationError(
            f"processes={shown(processes)}: expected sgd, and each name once, since the others are compared with it"
        )
    expected = "at least 4 (int), since currents are measured on independent contrasts in planes of others"
    whole_number("copies", settled.copies, expected, least=4, most=1000)
    number("burn_in", settled.burn_in, "a number of epochs from 0", least=0, most=1e6)
    number("window", settled.window, "a number of epochs above 0", above=0, most=1e6)
    whole_number("records", settled.records, "at least 20 records (int) of weights", least=20, most=100_000)
    whole_number("components", settled.components, "at least 8 components (int), to fit an exponent to", least=8)
    whole_number("rank", settled.rank, "at least 1 direction (int) of frozen noise", least=1)
    landscape = network(settled, load(settled))
    Simulation(sgd(landscape, settled.learning_rate, settled.batch_size), epochs=settled.epochs)
    records = len(settled.steps_of(landscape.n_samples))
    most = min(records - 2, len(landscape.measured_columns))
    if settled.components > most:
        raise ConfigurationError(
            f"components={settled.components} with {records} records of {len(landscape.measured_columns)} weights: expected "
            f"at most {most}, since there are no more principal components; choose fewer, or a longer --window"
        )


def _of_network(
    settled: Settled,
    landscape: NetworkLandscape,
    start: Start,
    trees: dict[str, xr.DataTree],
    hidden: NDArray[np.int64],
    replica: int,
) -> xr.Dataset:
    """Measure every window of one network, and the random walk beside them."""
    point, rows = Point(settled, landscape, start, replica), []
    for name in (*trees, RANDOM_WALK):
        if name == RANDOM_WALK:
            copies = random_walk(settled, landscape, start, replica)
        else:
            copies = copies_of(settled, trees[name], replica)
        rows.append(measure(settled, point, name, copies, hidden).assign(currents(copies).data_vars))
    return xr.concat(rows, xr.Variable("process", [*trees, RANDOM_WALK]))


def _profiles(
    settled: Settled, landscape: NetworkLandscape, start: Start, tree: xr.DataTree, hidden: NDArray[np.int64]
) -> xr.Dataset:
    """Return losses along some principal components of the first network."""
    chosen = components(settled, BASES[0], copies_of(settled, tree, 0).isel(replica=[0]), hidden)
    ranks = np.unique(np.rint(np.geomspace(1, len(chosen), 4)).astype(int))
    return profiles(landscape, start.weights[0], chosen[ranks - 1]).assign_coords(component=("direction", ranks))


def _losses(settled: Settled, trees: dict[str, xr.DataTree]) -> xr.Dataset:
    """Return the training loss where windows begin and end, means over copies."""
    rows = []
    for tree in trees.values():
        losses = tree["train_loss"].sel(cohort="all").dropna("step").values
        first = int(np.argmin(np.abs(tree["epoch"].dropna("step").values - settled.burn_in)))
        by_network = losses.reshape(settled.replicas, settled.copies, -1).mean(1)
        rows.append(by_network[:, [first, -1]])
    return xr.Dataset(
        {"train_loss": (("process", "replica", "end"), np.stack(rows), {"long_name": "training loss", "units": "nat"})},
        coords={"process": list(trees), "end": ["first", "last"]},
    )


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
    moments = mean_with_interval(exponents_of_networks)
    if not np.isfinite(moments.upper):
        return "unknown"
    if float(moments.upper) < 0:
        return "inverse"
    return "as in equilibrium" if float(moments.lower) > 0 else "neither"


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
    moments = mean_with_interval(logarithm(values) if logarithmic else values)
    mean, low, high = (float(moments[name]) for name in ("mean_value", "lower", "upper"))
    if logarithmic:
        mean, low, high = (float(np.exp(each)) for each in (mean, low, high))
    if not np.isfinite(mean):
        return "unknown"
    return f"{mean:.2g} ({low:.2g} to {high:.2g})"
