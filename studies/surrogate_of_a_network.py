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

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn import NetworkLandscape, Simulation, Surrogate, fit_surrogate, sgd
from langevin_nn.checks import number, one_of, shown, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.figures import surrogate_figure, write_figures
from langevin_nn.report import say
from langevin_nn.store import write_trajectory
from studies.command import Command
from studies.paper.folder import begin, finish
from studies.paper.training import Choices, landscape_of, load, settled
from studies.surrogate.fluctuations import RELATIONS
from studies.surrogate.measures import DRAWS, NOISES, PREDICTORS, measured, quality
from studies.surrogate.runs import Start, sgd_displacements, trained

__all__ = ["Config", "main", "run", "verdict"]


@dataclass(frozen=True)
class Config(Choices):
    """Everything that can be chosen."""

    dataset: str | None = "digits"
    """Data set: digits (embedded), mnist10k, mnist or cifar10."""
    epochs: float | None = None
    """Length of training before anything is measured, in epochs; as the data set needs unless given."""
    hidden: tuple[int, ...] = (30, 30)
    """Units of each hidden layer."""
    horizon: float = 10.0
    """Length of the runs that start there, in epochs; fluctuations are averages over its second half."""
    replicas: int = 256
    """Replicas of SGD with each kind of draws, all from the same weights; intervals are over them."""
    surrogate_replicas: int = 1024
    """Replicas of each surrogate."""
    dimensions: tuple[int, ...] = (2, 5, 10, 20)
    """Directions that surrogates keep."""
    directions: str = "noise"
    """Which: leading eigenvectors of the noise covariance (noise) or of the Hessian (hessian), or principal components
    (trajectory)."""
    tolerance: float = 1.25
    """Ratio of variances within which a surrogate counts as fluctuating like SGD: 1.25 is 12 % of an amplitude."""
    memory_tolerance: float = 0.15
    """Difference of autocorrelations, at a lag of one relaxation time, that counts as alike: 0.15 is 40 % of the time."""
    out: Path = field(default=Path("output/surrogate_of_a_network"))
    """Folder for fluctuations.nc, summary.json and the figure."""


NAME = "surrogate_of_a_network"
RESULTS = ("fluctuations.nc", "summary.json", f"{NAME}.png")
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
# So that the training error has been 0 for most of the time.
_WITHOUT_LABEL_NOISE: dict[str, dict[str, Any]] = {
    "mnist": {"learning_rate": 0.1, "batch_size": 50, "epochs": 200.0},
    "mnist10k": {"learning_rate": 0.1, "batch_size": 50, "epochs": 200.0},
    "digits": {"learning_rate": 0.1, "batch_size": 25, "epochs": 200.0},
}
_MOST_RECORDS = 480
_MOST_NUMBERS = 10**9


def _settled(config: Config) -> Config:
    config = settled(config, _QUICK, **_WITHOUT_LABEL_NOISE)
    one_of("choice of directions", config.directions, ("noise", "hessian", "trajectory"))
    number("horizon", config.horizon, "a finite number of epochs above 0", above=0, most=1e6)
    number("tolerance", config.tolerance, "a ratio above 1, at most 100", above=1, most=100)
    expected_memory = "a difference of autocorrelations, above 0 and at most 1"
    number("memory_tolerance", config.memory_tolerance, expected_memory, above=0, most=1)
    several = "at least 4 (int), since variances are taken over them"
    for name in ("replicas", "surrogate_replicas"):
        whole_number(name, getattr(config, name), several, least=4, most=10**6)
    sizes = config.dimensions
    if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        raise ConfigurationError(
            f"dimensions={shown(sizes)}: expected growing whole numbers from 1, since the last surrogate is shown in full"
        )
    largest = max(config.replicas * sum(sizes), config.surrogate_replicas * sizes[-1]) * _MOST_RECORDS
    if largest > _MOST_NUMBERS:
        raise ConfigurationError(
            f"replicas={config.replicas}, surrogate_replicas={config.surrogate_replicas} and dimensions={shown(sizes)} are "
            f"{largest:,} numbers in memory: expected at most {_MOST_NUMBERS:,}; choose fewer"
        )
    return config


def run(config: Config) -> xr.DataTree:
    """Run the study and write its results.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    xarray.DataTree
        Quality by dimension at the root; fluctuations of SGD beside what is predicted in a group for each dimension.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run.
    UnstableTrajectory
        If SGD diverges.
    """
    config = _settled(config)
    data = load(config)
    landscape = landscape_of(data, config, hidden=config.hidden)
    assert config.batch_size is not None
    assert config.epochs is not None
    per_epoch = landscape.n_samples // config.batch_size
    if per_epoch < 2:
        raise ConfigurationError(
            f"batch_size={config.batch_size} with {landscape.n_samples} training samples: expected at most half of them in a "
            "minibatch, since shuffled epochs and independent draws are to differ; choose a smaller one"
        )
    assert config.learning_rate is not None
    # What cannot run is refused before anything does.
    Simulation(sgd(landscape, config.learning_rate, config.batch_size), epochs=config.epochs)
    most = landscape.n_parameters
    if config.dimensions[-1] > most:
        raise ConfigurationError(
            f"dimensions={shown(config.dimensions)} with {most} parameters: expected at most as many directions as there are "
            "parameters; choose fewer"
        )
    length = round(config.horizon * per_epoch)
    stride = -(-length // _MOST_RECORDS)
    updates = np.arange(stride, length + 1, stride)
    if len(updates) < 16:
        raise ConfigurationError(
            f"horizon={config.horizon:g} is {length} updates: expected at least 16, half of which are averaged; choose a "
            "longer one"
        )
    started = time.perf_counter()
    runs = begin(config, NAME, RESULTS)
    start = trained(landscape, config, round(config.epochs * per_epoch), length, runs / "start.nc")
    fits = {
        (size, noise): _fitted(landscape, config, start, size, noise) for size in config.dimensions for noise in NOISES
    }
    constant = [fits[size, "constant"] for size in config.dimensions]
    walks = {
        draws: sgd_displacements(
            landscape, config, start, constant, updates, runs / f"{draws}.nc", independent=draws == "independent"
        )
        for draws in DRAWS
    }
    tree = {"/": quality(config, fits, start)}
    for position, size in enumerate(config.dimensions):
        own = {noise: fits[size, noise] for noise in NOISES}
        walked = {draws: walks[draws][position] for draws in DRAWS}
        tree[f"/{size}"] = measured(config, own, walked, updates, landscape.n_samples / config.batch_size)
    result = xr.DataTree.from_dict(tree)
    _write(config, result, time.perf_counter() - started)
    return result


def _fitted(landscape: NetworkLandscape, config: Config, start: Start, size: int, noise: Any) -> Surrogate:
    which: Any = config.directions
    return fit_surrogate(
        landscape,
        start.weights,
        config.batch_size,
        n_directions=size,
        directions=which,
        noise=noise,
        trajectory=start.rows,
    )


def _write(config: Config, result: xr.DataTree, seconds: float) -> None:
    write_trajectory(result, config.out / "fluctuations.nc", overwrite=True)
    summary = {
        "verdict": verdict(result).splitlines(),
        "start": {name: result.attrs[name] for name in _FACTS},
        "relation": {name: _relations(group.to_dataset()) for name, group in result.children.items()},
        "explained_share": result["explained_share"].sel(noise="constant").values,
        "relative_drift_error": result["relative_drift_error"].sel(noise="constant").values,
    }
    finish(summary, config, NAME, config.out, seconds)
    write_figures({NAME: surrogate_figure(result)}, config.out)


_FACTS = ("train_loss", "train_error", "projection_variance", "noise_strength", "end_loss")


def _relations(group: xr.Dataset) -> dict[str, dict[str, dict[str, list[int]]]]:
    """Return the directions in which each prediction holds, fails or is undecided, by kind of draws."""

    def of(draws: str, predictor: str) -> dict[str, list[int]]:
        codes = group.relation.sel(draws=draws, predictor=predictor)
        return {word: [int(k) for k in group.direction[codes == code]] for code, word in enumerate(RELATIONS)}

    return {draws: {predictor: of(draws, predictor) for predictor in PREDICTORS} for draws in DRAWS}


def verdict(result: xr.DataTree) -> str:
    """Return what was found, in words.

    Parameters
    ----------
    result : xarray.DataTree
        Of `run`.

    Returns
    -------
    str
        Where training stood, how good each surrogate is, and where the largest holds.
    """
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


def _study(config: Config) -> None:
    say(verdict(run(config)))
    say(f"\nResults are in {config.out}: runs/, {', '.join(RESULTS)}.")


main = Command(NAME, Config, __doc__, _study)


if __name__ == "__main__":
    raise SystemExit(main())
