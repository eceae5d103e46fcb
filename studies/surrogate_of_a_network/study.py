"""Reduce a network in the exploration phase to a few directions, and ask where the surrogate fluctuates as SGD does.

Trains without label noise until the training error is 0 and goes on into the exploration phase. There it fits surrogates of
growing dimension, of linear drift and noise that is constant or depends on the weights, and starts hundreds of replicas of
SGD from the same weights, with shuffled epochs and with independent draws, whose noise adds up differently: two minibatches
of one epoch covary as -C B/(N - B). Along each direction the variance over replicas and the autocorrelation time of SGD stand
beside those of the surrogate and of the linear law (Lyapunov's equation, at a finite time and in the long run). All start
from one point, so that transients and drift are the same for all and nothing is detrended. Writes fluctuations.nc,
summary.json and surrogate_of_a_network.png, and prints where the surrogate holds and where it fails.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from langevin_nn import NetworkLandscape, Simulation, fit_surrogate, sgd
from langevin_nn.checks import number, one_of, shown, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.surrogate import Surrogate
from studies.lab.choices import landscape_of, load, settle
from studies.lab.study import Answer, Study, Work
from studies.surrogate_of_a_network.figures import surrogate_figure
from studies.surrogate_of_a_network.fluctuations import RELATIONS
from studies.surrogate_of_a_network.measures import DRAWS, NOISES, PREDICTORS, measured, quality
from studies.surrogate_of_a_network.plan import Config, Settled
from studies.surrogate_of_a_network.runs import sgd_displacements, trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Config", "Settled"]


NAME = "surrogate_of_a_network"
_QUICK: dict[str, Any] = {
    "samples_per_class": 20,
    "learning_rate": 0.3,
    "batch_size": 10,
    "epochs": 40.0,
    "hidden": (12, 12),
    "horizon": 4.0,
    "replicas": 16,
    "surrogate_replicas": 128,
    "dimensions": (2, 4),
}
_MOST_RECORDS = 480
_MOST_NUMBERS = 10**9


class SurrogateOfANetwork(Study[Config, Settled, xr.DataTree]):
    """Quality of surrogates by dimension, and in a group for each dimension SGD beside what is predicted."""

    name = NAME
    choices = Config
    quick = _QUICK
    table = "fluctuations.nc"
    drawn = (NAME,)

    def settle(self, choices: Config) -> Settled:
        settled = settle(Settled, choices, "clean")
        _check(settled)
        return settled

    def plan(self, settled: Settled) -> dict[str, float]:
        horizon, sizes = settled.horizon, settled.dimensions
        # In hundredths of a second that a default run took.
        return {
            "training": settled.epochs,
            "surrogates": 100 * sum(sizes),
            **dict.fromkeys(DRAWS, horizon * settled.replicas),
            **{f"{size} directions": 0.0013 * horizon * settled.surrogate_replicas * size**2 for size in sizes},
        }

    def measure(self, settled: Settled, work: Work) -> xr.DataTree:
        landscape = _landscape(settled)
        per_epoch = landscape.n_samples // settled.batch_size
        updates = _updates(settled, per_epoch)
        with work.part("training", runs=2):
            length = round(settled.horizon * per_epoch)
            start = trained(landscape, settled, round(settled.epochs * per_epoch), length, work)
        sizes = settled.dimensions

        @cache
        def fit(size: int, noise: Any) -> Surrogate:  # where all that follows is done, none is fitted again
            given: Any = {"directions": settled.directions, "trajectory": start.rows}
            return fit_surrogate(landscape, start.weights, settled.batch_size, n_directions=size, noise=noise, **given)

        def walked(draws: str) -> xr.Dataset:
            directions = torch.cat([fit(size, "constant").directions for size in sizes])
            independent = draws == "independent"
            return sgd_displacements(landscape, settled, start, directions, updates, independent=independent)

        def compared(position: int) -> xr.Dataset:
            own = {noise: fit(sizes[position], noise) for noise in NOISES}
            along = {draws: np.split(each, np.cumsum(sizes)[:-1], axis=2)[position] for draws, each in walks.items()}
            return measured(settled, own, along, updates, landscape.n_samples / settled.batch_size)

        with work.part("surrogates"):
            root = work.kept("quality", lambda: quality(settled, fit))
        walks = {}
        for draws in DRAWS:
            with work.part(draws):
                walks[draws] = work.kept(draws, partial(walked, draws)).displacement.values
        groups = {"/": root.assign_attrs(start.facts)}
        for position, size in enumerate(sizes):
            with work.part(f"{size} directions"):
                groups[f"/{size}"] = work.kept(f"{size}_directions", partial(compared, position))
        return xr.DataTree.from_dict(groups)

    def tables(self, settled: Settled, found: xr.DataTree) -> dict[str, xr.Dataset]:
        return {name: each.to_dataset(inherit=False) for name, each in {"": found, **found.children}.items()}

    def verdict(self, answer: Answer[Settled, xr.DataTree]) -> str:
        result = answer.found
        facts = {name: float(result.attrs[name]) for name in _FACTS}
        phase = (
            "in the exploration phase"
            if facts["train_error"] == 0 and facts["projection_variance"] > 1
            else "NOT in the exploration phase, which begins where the error is 0 and the projection variance above 1"
        )
        lines = [
            "Where does a surrogate of a few directions fluctuate as SGD does?",
            "",
            f"Start: training loss {facts['train_loss']:.2g} and error {facts['train_error']:.2g}, projection variance "
            f"{facts['projection_variance']:.3g}: {phase}. By the end of the runs the loss is {facts['end_loss']:.2g}.",
            "",
        ]
        for size in result.dimension.values:
            lines.append(_size_in_words(result, int(size)))
        largest = int(result.dimension.values[-1])
        group = result[str(largest)].to_dataset()
        lines += [
            "",
            f"Along each of {largest} directions, by falling curvature; ratio of variances to SGD's at the median:",
        ]
        for draws in DRAWS:
            lines += [f"- {_DRAWS_IN_WORDS[draws]}:"]
            for predictor in PREDICTORS:
                codes = group.relation.sel(draws=draws, predictor=predictor).values
                counted = ", ".join(f"{RELATIONS[code]} in {_listed(codes, code)}" for code in (2, 0, 1))
                ratio = float(group.variance_ratio.sel(draws=draws, predictor=predictor).median())
                lines.append(f"    {_PREDICTORS_IN_WORDS[predictor]}: {counted} (× {ratio:.3g}).")
        return "\n".join(lines)

    def summary(self, answer: Answer[Settled, xr.DataTree]) -> dict[str, Any]:
        result = answer.found
        constant = result.to_dataset().sel(noise="constant")
        return {
            "start": {name: result.attrs[name] for name in _FACTS},
            "relation": {name: _relations(group.to_dataset()) for name, group in result.children.items()},
            **{name: constant[name].values for name in ("explained_share", "relative_drift_error")},
        }

    def figures(self, answer: Answer[Settled, xr.DataTree]) -> dict[str, Figure]:
        return {NAME: surrogate_figure(answer.found, answer.settled.tolerance)}


STUDY = SurrogateOfANetwork()


def _check(settled: Settled) -> None:
    """Refuse what cannot be run, or tells nothing, before anything runs."""
    one_of("choice of directions", settled.directions, ("noise", "hessian", "trajectory"))
    number("horizon", settled.horizon, "a finite number of epochs above 0", above=0, most=1e6)
    number("tolerance", settled.tolerance, "a ratio above 1, at most 100", above=1, most=100)
    expected_memory = "a difference of autocorrelations, above 0 and at most 1"
    number("memory_tolerance", settled.memory_tolerance, expected_memory, above=0, most=1)
    several = "at least 4 (int), since variances are taken over them"
    for name in ("replicas", "surrogate_replicas"):
        whole_number(name, getattr(settled, name), several, least=4, most=10**6)
    sizes = settled.dimensions
    if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        raise ConfigurationError(
            f"dimensions={shown(sizes)}: expected growing whole numbers from 1, since the last surrogate is shown in full"
        )
    largest = max(settled.replicas * sum(sizes), settled.surrogate_replicas * sizes[-1]) * _MOST_RECORDS
    if largest > _MOST_NUMBERS:
        raise ConfigurationError(
            f"replicas={settled.replicas}, surrogate_replicas={settled.surrogate_replicas} and dimensions={shown(sizes)} are "
            f"{largest:,} numbers in memory: expected at most {_MOST_NUMBERS:,}; choose fewer"
        )
    landscape = _landscape(settled)
    per_epoch = landscape.n_samples // settled.batch_size
    if per_epoch < 2:
        raise ConfigurationError(
            f"batch_size={settled.batch_size} with {landscape.n_samples} training samples: expected at most half of them "
            "in a minibatch, since shuffled epochs and independent draws are to differ; choose a smaller one"
        )
    Simulation(sgd(landscape, settled.learning_rate, settled.batch_size), epochs=settled.epochs)
    most = landscape.n_parameters
    if sizes[-1] > most:
        raise ConfigurationError(
            f"dimensions={shown(sizes)} with {most} parameters: expected at most as many directions as there are "
            "parameters; choose fewer"
        )
    updates = _updates(settled, per_epoch)
    if len(updates) < 16:
        raise ConfigurationError(
            f"horizon={settled.horizon:g} is {round(settled.horizon * per_epoch)} updates: expected at least 16, half of "
            "which are averaged; choose a longer one"
        )


def _landscape(settled: Settled) -> NetworkLandscape:
    return landscape_of(load(settled), settled, hidden=settled.hidden)


def _updates(settled: Settled, per_epoch: int) -> NDArray[np.int64]:
    """Return when runs are recorded."""
    length = round(settled.horizon * per_epoch)
    stride = -(-length // _MOST_RECORDS)
    return np.arange(stride, length + 1, stride)


_FACTS = ("train_loss", "train_error", "projection_variance", "noise_strength", "end_loss")


def _relations(group: xr.Dataset) -> dict[str, dict[str, dict[str, list[int]]]]:
    """Return the directions in which each prediction holds, fails or is undecided, by kind of draws."""

    def of(draws: str, predictor: str) -> dict[str, list[int]]:
        codes = group.relation.sel(draws=draws, predictor=predictor)
        return {word: [int(k) for k in group.direction[codes == code]] for code, word in enumerate(RELATIONS)}

    return {draws: {predictor: of(draws, predictor) for predictor in PREDICTORS} for draws in DRAWS}


_DRAWS_IN_WORDS = {"shuffled": "SGD with shuffled epochs", "independent": "SGD with independent draws"}
_PREDICTORS_IN_WORDS = {
    "constant": "surrogate, constant noise",
    "state_dependent": "surrogate, noise that depends on the weights",
    "lyapunov": "linear law for such draws, at a finite time",
    "stationary": "Lyapunov's stationary law",
}


def _size_in_words(result: xr.DataTree, size: int) -> str:
    best = result.to_dataset().sel(dimension=size, noise="state_dependent")
    holding = result[str(size)].relation.sel(predictor="state_dependent") == 2
    shares = ", ".join(f"{draws} {int(holding.sel(draws=draws).sum())}" for draws in DRAWS)
    words = {name: f"{float(best[name]):.2g}" for name in best.data_vars if str(name).startswith("relative")}
    share, error = float(best.explained_share), float(best.explained_share_standard_error)
    return (
        f"{size} directions explain {share:.0%} ± {error:.0%} of D; drift elsewhere errs by "
        f"{words['relative_drift_error']} of itself ({words['relative_drift_error_within']} within them; "
        f"{words['relative_drift_error_constant']} were it constant). It holds in so many of them: {shares}."
    )


def _listed(codes: NDArray[np.int8], code: int) -> str:
    """Return directions in words, runs of them shortened."""
    chosen = [int(k) + 1 for k in np.flatnonzero(codes == code)]
    if not chosen:
        return "none"
    groups: list[list[int]] = []
    for each in chosen:
        if groups and each == groups[-1][-1] + 1:
            groups[-1].append(each)
        else:
            groups.append([each])
    return " ".join(str(g[0]) if len(g) == 1 else f"{g[0]}–{g[-1]}" for g in groups)
