"""Ask whether noise prefers flat minima, and which noise does.

A particle between two valleys of equal depth and unequal width, moved by gradient descent with noise of three kinds and of
equal strength: isotropic, constant but anisotropic, and proportional to curvature as that of minibatches is. Where is it
found, how often does it escape, how does that depend on α/B, and what do stationary density and passage times predict?
A thousand replicas for each noise and batch size. Writes rates.nc, summary.json and flat_minima.png, and prints the
verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn import Process, Seeds, simulate
from langevin_nn.analyzers import TransitionRates
from langevin_nn.checks import number, shown, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.noise import DiagonalNoise, LandscapeNoise, Noise
from langevin_nn.observables import Weights
from langevin_nn.schedules import EverySteps
from langevin_nn.theory import mean_first_passage_time, stationary_density
from langevin_nn.update import EulerMaruyama
from models.potentials import TwoValleys
from studies.flat_minima.figures import flat_minima_figure
from studies.lab.command import Output
from studies.lab.study import Answer, Study, Work

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NOISES", "STUDY", "Config", "predicted", "verdict"]

NAME = "flat_minima"
NOISES = ("isotropic", "anisotropic", "curvature")
_MOST_PARAMETERS, _MOST_WEIGHTS = 1000, 10**8
_CORE = 0.5  # valleys begin half-way from the barrier to the bottom, in the coordinate that joins them


@dataclass(frozen=True)
class Config(Output):
    """Everything that can be chosen."""

    narrow: float = 0.6
    """Width of the narrow valley; curvatures at its bottom are 8 barrier/width²."""
    wide: float = 1.2
    """Width of the wide valley."""
    barrier: float = 1.0
    """Height of the barrier between them, in units of the loss."""
    n_parameters: int = 2
    """Dimensions: one along the path between the valleys, the others across."""
    learning_rate: float = 0.002
    """Learning rate α, in units of gradient-flow time; the time step is the same."""
    batch_sizes: tuple[int, ...] = (6, 8, 10, 13, 16)
    """Minibatches B: noise is as 1/B."""
    sample_noise: float = 250.0
    """Variance of a sample gradient per curvature: C = sample_noise/B times the curvature."""
    along: float = 0.5
    """Share of the anisotropic noise along the path, of what isotropic noise has there."""
    replicas: int = 1024
    """Replicas, half of them from each valley."""
    longest: float = 2000.0
    """Longest run, in units of gradient-flow time; shorter where replicas leave both valleys sooner."""
    records: int = 2000
    """Records of each run, close against the times between escapes."""
    seed: int = 0
    """Owner of all randomness."""
    out: Path = field(default=Path("output/flat_minima"))
    """Folder for rates.nc, summary.json and the figure."""


_QUICK: dict[str, Any] = {
    "batch_sizes": (6, 8),
    "replicas": 256,
    "records": 500,
    "longest": 200.0,
    "learning_rate": 0.004,
    "sample_noise": 125.0,
}


def _check(config: Config) -> None:
    for name in ("narrow", "wide", "barrier", "learning_rate", "sample_noise", "longest"):
        expected = "a positive, finite number, from 1e-9 to 1e9"
        number(name, getattr(config, name), expected, least=1e-9, most=1e9)
    if not config.batch_sizes or min(config.batch_sizes) < 1 or len(set(config.batch_sizes)) < len(config.batch_sizes):
        raise ConfigurationError(
            f"batch_sizes={shown(config.batch_sizes)}: expected whole numbers from 1, at least one, each of them once"
        )
    both = "at least 2 of both (int), a direction across the path and a replica in each valley"
    most = f"{both}, and at most {_MOST_PARAMETERS}"
    whole_number("n_parameters", config.n_parameters, most, least=2, most=_MOST_PARAMETERS)
    replicas = _MOST_WEIGHTS // config.n_parameters
    whole_number("replicas", config.replicas, f"{both}, and at most {replicas}", least=2, most=replicas)
    expected = (
        f"above 0 and below {config.n_parameters}, the number of dimensions, so that some of the noise is left for those "
        "across"
    )
    number("along", config.along, expected, least=1e-9, most=config.n_parameters - 1e-9)
    whole_number("records", config.records, "at least 10 (int), to see escapes between them", least=10)


def _landscape(config: Config, batch_size: int) -> TwoValleys:
    return TwoValleys(
        config.n_parameters,
        narrow=config.narrow,
        wide=config.wide,
        barrier=config.barrier,
        noise=config.sample_noise / batch_size,
    )


def _shares(config: Config, name: str) -> NDArray[np.float64]:
    """Return what constant noise has along each dimension, of what isotropic noise has."""
    shares = np.ones(config.n_parameters)
    if name == "anisotropic":
        shares[0] = config.along
        shares[1:] = (config.n_parameters - config.along) / (config.n_parameters - 1)
    return shares


def _mean_curvature(landscape: TwoValleys) -> float:
    return float(landscape.curvature(landscape.minima[:, 0]).mean())


def _noise(config: Config, landscape: TwoValleys, name: str) -> Noise:
    """Return noise of one kind; all have the same trace on average over the two bottoms."""
    if name == "curvature":
        return LandscapeNoise()
    return DiagonalNoise(np.sqrt(landscape.noise * _mean_curvature(landscape) * _shares(config, name)))


def predicted(config: Config, batch_size: int, name: str) -> dict[str, float]:
    """Return what theory says, with the directions across the path averaged out.

    They relax fast, so that their mean force is that of their variance at each place: a one-dimensional equation, whose
    stationary density and passage times are quadratures. For isotropic noise the density is Boltzmann's, exactly.

    Parameters
    ----------
    config : Config
        What was chosen.
    batch_size : int
        B.
    name : str
        Of the noise.

    Returns
    -------
    dict of str to float
        ``share``, the probability of the wide valley; ``below`` and ``above``, rates of escape from the narrow and from
        the wide valley.
    """
    landscape = _landscape(config, batch_size)
    y = np.linspace(-2.5, 2.5, 20001)
    x = landscape.position(y)
    curvature = landscape.curvature(x)
    isotropic = config.learning_rate * landscape.noise * _mean_curvature(landscape)
    shares = _shares(config, name)
    if name == "curvature":
        along = across = config.learning_rate * landscape.noise * curvature
    else:
        along, across = isotropic * shares[0] + 0 * x, isotropic * shares[1] + 0 * x
    bottom = config.barrier * (1 - y**2) ** 2
    squared = (config.n_parameters - 1) * across / (2 * curvature)
    drift = -np.gradient(bottom, x) - 0.5 * np.gradient(curvature, x) * squared
    amplitude = np.sqrt(along)
    density = stationary_density(x, drift, amplitude)
    narrow, wide = landscape.minima[:, 0]
    cores = landscape.position(np.array([-_CORE, _CORE]))
    return {
        "share": float(np.trapezoid(np.where(x > 0, density, 0), x)),
        "below": 1 / mean_first_passage_time(x, drift, amplitude, narrow, cores[1]),
        "above": 1 / mean_first_passage_time(x, drift, amplitude, wide, cores[0]),
    }


def _length(config: Config, batch_size: int, name: str) -> int:
    """Return the updates of twice the time that a replica stays in a valley, or of as long as is allowed."""
    theory = predicted(config, batch_size, name)
    slowest = min(theory["below"], theory["above"])
    length = min(2 / slowest, config.longest) if slowest > 0 else config.longest
    return max(100, round(length / config.learning_rate))


def _measured(config: Config, batch_size: int, name: str) -> xr.Dataset:
    """Run one noise at one batch size."""
    landscape, steps = _landscape(config, batch_size), _length(config, batch_size, name)
    process = Process(
        landscape, _noise(config, landscape, name), config.learning_rate, update=EulerMaruyama(), name=name
    )
    starts = landscape.minima[np.arange(config.replicas) % 2]
    trajectory = simulate(
        process,
        steps=steps,
        replicas=config.replicas,
        # Of its own: changes with the batch size are held to the errors of two independent runs.
        seed=Seeds(config.seed).integer(f"{name} noise at B = {batch_size}", 0),
        weights=starts,
        observables=Weights(schedule=EverySteps(max(1, steps // config.records))),
    )
    cores = landscape.position(np.array([-_CORE, _CORE]))
    return TransitionRates(float(cores[0]), float(cores[1]), least_correlation=0)(trajectory)


def _dataset(config: Config, arrays: dict[str, NDArray[np.float64]], shares: NDArray[np.float64]) -> xr.Dataset:
    """Return rates with what follows from them: the share of time in the wide valley, by two-state balance."""
    into, out_of = arrays["rate"][..., 0], arrays["rate"][..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = into / (into + out_of)
        of_into, of_out = (arrays["rate_standard_error"][..., k] for k in (0, 1))
        errors = np.hypot(out_of * of_into, into * of_out) / (into + out_of) ** 2
    dimensions = ("noise", "batch_size")
    of_valleys = (*dimensions, "valley")
    landscape = _landscape(config, 1)
    variables = {
        "escape_rate": (of_valleys, arrays["rate"], "rate of escape from a valley", "time-1"),
        "escape_rate_standard_error": (
            of_valleys,
            arrays["rate_standard_error"],
            "standard error of the rate",
            "time-1",
        ),
        "escape_rate_predicted": (of_valleys, arrays["rate_predicted"], "rate of escape, by quadrature", "time-1"),
        "transitions": (of_valleys, arrays["transitions"], "number of escapes", "1"),
        "wide_share": (dimensions, share, "share of time in the wide valley", "1"),
        "wide_share_standard_error": (dimensions, errors, "standard error of the share", "1"),
        "wide_share_predicted": (dimensions, shares, "share of time in the wide valley, by quadrature", "1"),
    }
    result = xr.Dataset(
        {
            name: (dims, values, {"long_name": long_name, "units": units})
            for name, (dims, values, long_name, units) in variables.items()
        },
        coords={
            "noise": list(NOISES),
            "batch_size": ("batch_size", list(config.batch_sizes), {"long_name": "minibatch B", "units": "1"}),
            "valley": ["narrow", "wide"],
            "noise_level": (
                "batch_size",
                config.learning_rate / np.array(config.batch_sizes),
                {"long_name": "α/B", "units": "time"},
            ),
        },
    )
    coordinate = np.linspace(-1.7, 1.7, 400)
    position = landscape.position(coordinate)
    result = result.assign_coords(position=("position", position, {"long_name": "along the path", "units": "weight"}))
    loss, curvature = config.barrier * (1 - coordinate**2) ** 2, landscape.curvature(position)
    result["loss"] = ("position", loss, {"long_name": "loss", "units": "nat"})
    result["relative_noise"] = (
        "position",
        curvature / _mean_curvature(landscape),
        {"long_name": "noise that goes with curvature, relative to isotropic noise", "units": "1"},
    )
    return result.assign_attrs(width_ratio=config.wide / config.narrow, n_parameters=config.n_parameters)


def verdict(result: xr.Dataset) -> str:
    """Return what was found, in words.

    Parameters
    ----------
    result : xarray.Dataset
        Of `measure`.

    Returns
    -------
    str
        A sentence for each noise, and one on theory.
    """
    first, last = int(result.batch_size.values.min()), int(result.batch_size.values.max())
    lines = ["Does noise prefer flat minima? Share of time in the wide valley (± standard error; predicted):", ""]
    for noise in NOISES:
        parts = []
        for size in (first, last):
            point = result.sel(noise=noise, batch_size=size)
            value, error, theory = (
                float(point[f"wide_share{suffix}"]) for suffix in ("", "_standard_error", "_predicted")
            )
            parts.append(f"{value:.3f} ± {error:.3f} ({theory:.3f}) at B = {size}")
        lines.append(f"- {_NAMES[noise]}: {parts[0]}, {parts[1]}.")
    trend = {noise: result.wide_share.sel(noise=noise) for noise in NOISES}
    change = {noise: float(trend[noise].sel(batch_size=last) - trend[noise].sel(batch_size=first)) for noise in NOISES}
    errors = {
        noise: float(np.hypot(*result.wide_share_standard_error.sel(noise=noise, batch_size=[first, last])))
        for noise in NOISES
    }
    lines.append("")
    for noise in NOISES:
        lines.append(f"{_NAMES[noise]}: {_trend(change[noise], errors[noise])} as B grows from {first} to {last}.")
    with np.errstate(divide="ignore"):  # where nobody escaped
        deviation = abs(np.log(result.escape_rate / result.escape_rate_predicted))
    within = abs(result.escape_rate - result.escape_rate_predicted) <= 3 * result.escape_rate_standard_error
    known = deviation.values[np.isfinite(deviation.values)]
    off = f"{100 * float(np.expm1(np.median(known))):.0f} %" if len(known) else "an unknown share"
    lines.append(
        f"Theory: {int(within.sum())} of {within.size} escape rates lie within three standard errors of the passage times of "
        f"the averaged equation; the median of the {len(known)} that are known is off by {off}."
    )
    return "\n".join(lines)


_NAMES = {
    "isotropic": "Isotropic noise",
    "anisotropic": "Constant anisotropic noise",
    "curvature": "Noise proportional to curvature",
}


def _trend(change: float, error: float) -> str:
    if not np.isfinite(change + error):
        return "no trend can be told, since nobody escaped"
    if abs(change) <= 3 * error:
        return f"no trend is seen ({change:+.3f} ± {error:.3f})"
    return f"the share of the wide valley {'grows' if change > 0 else 'falls'} ({change:+.3f} ± {error:.3f})"


class FlatMinima(Study[Config, Config, xr.Dataset]):
    """Rates of escape and shares, measured and predicted."""

    name = NAME
    choices = Config
    quick = _QUICK
    table = "rates.nc"
    drawn = (NAME,)

    def settle(self, choices: Config) -> Config:
        _check(choices)
        return choices

    def plan(self, settled: Config) -> dict[str, float]:
        return {f"{name}-{size}": _length(settled, size, name) for name in NOISES for size in settled.batch_sizes}

    def measure(self, settled: Config, work: Work) -> xr.Dataset:
        shape = (len(NOISES), len(settled.batch_sizes), 2)
        arrays = {key: np.empty(shape) for key in ("rate", "rate_standard_error", "transitions", "rate_predicted")}
        shares = np.empty(shape[:2])
        for place in np.ndindex(shape[:2]):
            name, size = NOISES[place[0]], settled.batch_sizes[place[1]]
            with work.part(f"{name}-{size}"):
                found = work.kept(f"{name}-{size}", partial(_measured, settled, size, name))
            theory = predicted(settled, size, name)
            arrays["rate"][place] = found.transition_rate
            arrays["rate_standard_error"][place] = found.transition_rate_standard_error
            arrays["transitions"][place] = found.transitions
            arrays["rate_predicted"][place] = theory["below"], theory["above"]
            shares[place] = theory["share"]
        return _dataset(settled, arrays, shares)

    def verdict(self, answer: Answer[Config, xr.Dataset]) -> str:
        return verdict(answer.found)

    def summary(self, answer: Answer[Config, xr.Dataset]) -> dict[str, Any]:
        shares = ("wide_share", "wide_share_standard_error", "wide_share_predicted")
        return {name: {noise: answer.found[name].sel(noise=noise).values for noise in NOISES} for name in shares}

    def figures(self, answer: Answer[Config, xr.Dataset]) -> dict[str, Figure]:
        return {NAME: flat_minima_figure(answer.found)}


STUDY = FlatMinima()
