"""How often the library's intervals hold the truth, and how often its tests raise false alarms: every estimator, many laws.

The suite counts a few cells; ``python tests/count_coverage.py --out docs/coverage.md`` counts all and writes the table.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from calibrate_phases import STATIONARY, Count, coverage, false_alarms
from numpy.typing import NDArray
from scipy.linalg import expm, solve_continuous_lyapunov
from scipy.signal import lfilter
from scipy.special import ndtri, stdtrit

from langevin_nn.analyzers import (
    Autocorrelation,
    Fluctuations,
    PhaseDetector,
    ProbabilityCurrents,
    TimeAveragedOrderParameters,
    Timescales,
    TransitionRates,
    collapse_distance,
    decline_p_value,
    fit_power_law,
    gaussian_mixture,
    jackknife,
    mean_with_interval,
    stationarity_test,
    swap_test,
    tail_index,
    time_average,
)
from langevin_nn.analyzers.laws import _distances
from langevin_nn.ensemble.alignment import alignment_of
from langevin_nn.errors import EstimationRefused
from langevin_nn.operators import DenseOperator, estimate_trace, spectral_density
from langevin_nn.theory import circulation, entropy_production_rate, mean_first_passage_time

Floats = NDArray[np.float64]
Generator = np.random.Generator
# Of one draw, an interval (lower, upper) with the truth; or a p-value.
Interval = tuple[float, float, float]

LEVEL = 0.95
_AR = "autoregressive {0:g}"
_SKEWED = "outside: skewness does not show in so few values"

# --- laws of known mean

LAWS: dict[str, Callable[[Generator, tuple[int, ...]], Floats]] = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "exponential": lambda generator, shape: generator.exponential(size=shape) - 1,
    "Student t, 3": lambda generator, shape: generator.standard_t(3, size=shape),
    "Poisson(2)": lambda generator, shape: generator.poisson(2, size=shape) - 2.0,
}


def autoregressive(generator: Generator, shape: tuple[int, ...], correlation: float, law: str = "normal") -> Floats:
    """Return stationary x_t = ρ x_{t−1} + √(1 − ρ²) ξ_t, of unit variance where ξ has it."""
    shocks = LAWS[law](generator, (*shape[:-1], shape[-1] + 200)) * np.sqrt(1 - correlation**2)
    return lfilter([1.0], [1.0, -correlation], shocks, axis=-1)[..., 200:]


def stable(generator: Generator, n: int, index: float, skew: float) -> Floats:
    """Return stable numbers as Chambers, Mallows & Stuck (1976) draw them."""
    angle, exponential = generator.uniform(-np.pi / 2, np.pi / 2, n), generator.exponential(size=n)
    slope = skew * np.tan(np.pi * index / 2)
    turned = index * angle + np.arctan(slope)
    size = (1 + slope**2) ** (1 / (2 * index)) * np.sin(turned) / np.cos(angle) ** (1 / index)
    return size * (np.cos(angle - turned) / exponential) ** ((1 - index) / index)


# --- what is counted


@dataclass(frozen=True)
class Cell:
    """An estimator, a law and a size: what is drawn, and what is promised of it."""

    estimator: str
    law: str
    size: str
    interval: Callable[[Generator], Interval] | None = None
    p_value: Callable[[Generator], float] | None = None
    level: float = 0.05
    share: float = 1.0
    """Of the repetitions, for what takes long."""
    note: str = ""
    """Why it lies outside the range that the estimator is for, as its documentation says."""

    @property
    def nominal(self) -> float:
        return self.level if self.interval is None else LEVEL

    def count(self, repetitions: int) -> Counted:
        """Count; a refusal is no answer, and no miss."""
        seed = zlib.crc32(f"{self.estimator} {self.law} {self.size}".encode())
        generator = np.random.default_rng(seed)
        hits = refused = 0
        trials = max(1, round(self.share * repetitions))
        for _ in range(trials):
            try:
                if self.interval is not None:
                    lower, upper, truth = self.interval(generator)
                    hits += lower <= truth <= upper
                else:
                    assert self.p_value is not None
                    hits += self.p_value(generator) <= self.level
            except EstimationRefused:
                refused += 1
        return Counted(self, Count(f"{self.estimator}, {self.law}, {self.size}", hits, trials - refused), refused)


@dataclass(frozen=True)
class Counted:
    """What came of a cell."""

    cell: Cell
    count: Count
    refused: int

    @property
    def misses(self) -> bool:
        """Whether intervals cover too seldom, or alarms are too many, by more than three binomial standard errors."""
        if not self.count.trials:
            return False
        short = self.cell.nominal - self.count.share
        return (short if self.cell.interval is not None else -short) > 3 * self.count.standard_error(self.cell.nominal)

    @property
    def row(self) -> str:
        """A line of Markdown."""
        trials, cell = self.count.trials, self.cell
        counted = (
            f"{100 * self.count.share:.1f} ± {100 * self.count.standard_error(cell.nominal):.1f}" if trials else "–"
        )
        kind = "interval" if cell.interval is not None else "false alarms"
        refused = f"{100 * self.refused / (self.refused + trials):.0f}"
        verdict = cell.note or ("refuses" if not trials else "**misses**" if self.misses else "holds")
        words = (cell.estimator, cell.law, cell.size, kind, f"{100 * cell.nominal:g}", counted, refused, verdict)
        return f"| {' | '.join(words)} |"


CELLS: list[Cell] = []


def cells(*words: str, of: Any, alarms: bool = False, **promised: Any) -> Callable[[Any], Any]:
    """Count a function of arguments and a generator at each choice of arguments, which also fill in its words."""

    def counted(draw: Any) -> Any:
        kind = "p_value" if alarms else "interval"
        CELLS.extend(
            Cell(*(word.format(*each) for word in words), **{kind: partial(draw, *each)}, **promised) for each in of
        )
        return draw

    return counted


# --- estimators: a draw in, an interval and the truth out, or a p-value


def about(value: float, error: float, truth: float, freedom: float = np.inf) -> Interval:
    half = float(ndtri(0.5 + LEVEL / 2) if np.isinf(freedom) else stdtrit(freedom, 0.5 + LEVEL / 2)) * error
    return value - half, value + half, truth


def ends(found: xr.Dataset, name: str, truth: float) -> Interval:
    return float(found[f"{name}lower"]), float(found[f"{name}upper"]), truth


_MEAN = "`mean_with_interval`", "{0}", "{1} replicas"


@cells(*_MEAN, of=[*product(["normal"], [2, 4, 16]), *product(["Student t, 3"], [4, 16])], share=4)
@cells(*_MEAN, of=product(["exponential", "Poisson(2)"], [16, 64]), share=4)
@cells(*_MEAN, of=product(["exponential", "Poisson(2)"], [4, 8]), share=4, note=_SKEWED)
def mean(law: str, n: int, generator: Generator) -> Interval:
    return ends(mean_with_interval(xr.DataArray(LAWS[law](generator, (n,)), dims="replica")), "", 0.0)


_JACKKNIFE = "`jackknife` of a ratio", "{0}", "{1} values"


@cells(*_JACKKNIFE, of=[("normal", 8), *product(["normal", "exponential"], [16, 32])], share=4)
@cells(*_JACKKNIFE, of=[("exponential", 8)], share=4, note=_SKEWED)
def ratio(law: str, n: int, generator: Generator) -> Interval:
    pairs = LAWS[law](generator, (n, 2)) + np.array([4.0, 8.0])
    _, lower, upper = jackknife(lambda each: each[:, 0].mean() / each[:, 1].mean(), pairs)
    return float(lower), float(upper), 0.5


_AVERAGED = (-0.5, 500), (0.0, 150), (0.0, 200), (0.5, 150), (0.5, 500), (0.9, 500), (0.9, 2000)


@cells("`time_average`", f"{_AR}, {{2}} shocks", "{1} records", of=[(*each, "normal") for each in _AVERAGED])
@cells("`time_average`", f"{_AR}, {{2}} shocks", "{1} records", of=[(0.5, 500, "exponential")])
def average(correlation: float, n: int, law: str, generator: Generator) -> Interval:
    return (*time_average(autoregressive(generator, (n,), correlation, law)).interval(), 0.0)


def of_replicas(generator: Generator, correlation: float, n: int, spread: float | None = None) -> Any:
    """Return four series, whose own means differ by `spread`, with their autocorrelation."""
    values = autoregressive(generator, (4, n), correlation)
    if spread is not None:
        values = values + spread * generator.standard_normal((4, 1))
    series = xr.Dataset({"value": (("replica", "step"), values)}, coords={"step": np.arange(n)})
    return values, Autocorrelation("value")(series)


_TIMES = (0.0, 500), (0.5, 1000), (0.9, 4000)


@cells("`Autocorrelation`, time", f"{_AR}, 4 replicas", "{1} records", of=_TIMES, share=4)
def correlation_time(correlation: float, n: int, generator: Generator) -> Interval:
    each = of_replicas(generator, correlation, n)[1].isel(replica=0)
    truth = (1 + correlation) / (1 - correlation)
    value, error = each.integrated_autocorrelation_time, each.integrated_autocorrelation_time_standard_error
    return about(float(np.log(value)), float(error / value), float(np.log(truth)))


@cells("`Autocorrelation`, replicas agree", f"{_AR}, 4 replicas", "{1} records", of=_TIMES, alarms=True, level=0.01)
def agreement(correlation: float, n: int, generator: Generator) -> float:
    return float(of_replicas(generator, correlation, n)[1].agreement_p_value)


@cells(
    "`Autocorrelation`, mean",
    f"{_AR}, 4 replicas {{2}} apart",
    "{1} records",
    of=product([0.5], [1000], [0, 2]),
    share=0.5,
)
def average_of_replicas(correlation: float, n: int, spread: float, generator: Generator) -> Interval:
    return ends(of_replicas(generator, correlation, n, spread)[1], "mean_time_average_", 0.0)


@cells(
    "`Autocorrelation`, total effective size",
    "autoregressive {0}, 4 replicas {2} apart",
    "{1} records",
    of=[*product([0.5], [1000], [0, 2]), *product([0.8], [2000], [0.1, 0.2])],
)
def effective_size(correlation: float, n: int, spread: float, generator: Generator) -> Interval:
    """The mean, with the error that the total effective sample size implies: of replicas that agree, or do not."""
    values, found = of_replicas(generator, correlation, n, spread)
    total = float(found.total_effective_sample_size)
    alike = 4 * n / float(found.mean_integrated_autocorrelation_time)
    return about(float(values.mean()), values.std() / total**0.5, 0.0, 3.0 if total < 0.999 * alike else np.inf)


_DRIFTS = (
    (0.0, "normal", 200),
    (0.5, "normal", 1000),
    (0.5, "exponential", 1000),
    (0.9, "normal", 500),
    (0.9, "normal", 4000),
)


@cells("`stationarity_test`", f"{_AR}, {{1}} shocks", "{2} records", of=_DRIFTS, alarms=True)
def stationarity(correlation: float, law: str, n: int, generator: Generator) -> float:
    return stationarity_test(autoregressive(generator, (n,), correlation, law)).p_value


@cells("`decline_p_value`", _AR, "{1} records", of=[(0, 20), (0.9, 20), (0.95, 60), (0.95, 200)], alarms=True)
def decline(correlation: float, n: int, generator: Generator) -> float:
    return decline_p_value(0.5 + 0.1 * autoregressive(generator, (n,), correlation))


_METHODS = "characteristic function", "block sums"
_INDICES = (1.2, 0), (1.5, 0), (1.5, 0.8), (1.8, 0), (1.95, 0), (2, 0)


@cells(
    "`tail_index`, {0}", "stable {1[0]}, skew {1[1]}", "{2} samples", of=product(_METHODS, _INDICES, [1000, 2000, 8000])
)
def tails(method: Any, law: tuple[float, float], n: int, generator: Generator) -> Interval:
    return (*tail_index(stable(generator, n, *law), method).interval(), law[0])


@cells("`tail_index`, {0}", "Poisson(4)", "{1} samples", of=product(_METHODS, [2000]))
def tails_of_counts(method: Any, n: int, generator: Generator) -> Interval:
    """Of numbers that are counted: there is no such index."""
    return (*tail_index(generator.poisson(4, n), method).interval(), 2.0)


@cells("`fit_power_law`", "{0} errors", "{1} sizes", of=product(["normal", "Student t, 3"], [3, 6]))
def power_law(law: str, n: int, generator: Generator) -> Interval:
    sizes = 10.0 * 2 ** np.arange(n)
    noise = 0.1 * LAWS[law](generator, (n,)) / (3**0.5 if law == "Student t, 3" else 1)
    return ends(fit_power_law(sizes, np.exp(0.5 * np.log(sizes) + noise), np.full(n, 0.1)), "exponent_", 0.5)


@cells("`fit_power_law`, p value", "normal errors", "{0} sizes", of=[(3,), (6,)], alarms=True)
def no_power_law(n: int, generator: Generator) -> float:
    sizes = 10.0 * 2 ** np.arange(n)
    return float(fit_power_law(sizes, np.exp(0.1 * generator.standard_normal(n)), np.full(n, 0.1)).p_value)


@cells(
    "`collapse_distance`",
    "normal, {0:g} spreads apart",
    "{1} replicas",
    of=product([0.0, 0.5, 1.0], [6, 16]),
    share=0.5,
)
def collapse(shift: float, n: int, generator: Generator) -> Interval:
    one, other = generator.standard_normal((2, n, 50))
    found = collapse_distance(one, other + shift)
    return about(float(found.squared_distance), float(found.squared_distance_standard_error), shift**2, n - 1.0)


def rate_from_below(positions: Floats, steps: Any, time_step: float, edge: float, truth: float) -> Interval:
    """Return the rate at which positions (replica, record) leave the lower of two valleys."""
    weights = xr.Dataset(
        {"weights": (("replica", "weight_step", "parameter"), positions[..., None])},
        coords={"time": ("weight_step", time_step * steps), "weight_step": steps},
    )
    return ends(TransitionRates(-edge, edge)(weights).sel(valley="below"), "transition_rate_", truth)


@cells("`TransitionRates`", "jumps of constant rate", "{0} transitions", of=[(10,), (40,), (200,)], share=0.5)
def rates(expected: float, generator: Generator) -> Interval:
    """Jumps at rates of 0.02 an update, each update recorded; as many replicas as give so many jumps on average."""
    jumps = generator.random((max(1, round(expected / 2)), 200)) < 0.02
    return rate_from_below(2.0 * (np.cumsum(jumps, axis=1) % 2) - 1, np.arange(200), 1.0, 0.5, 0.02)


_TEMPERATURE, _STEP = 0.25, 0.005


@cache
def in_a_well(every: int, generator: Generator) -> Iterator[Floats]:
    """Yield positions (replica, record) of 10 replicas in a double well, of which 100 groups are simulated together."""
    while True:
        position, rows = np.sign(generator.standard_normal(1000)), []
        for update in range(40_000):
            position = position - _STEP * 4 * position * (position**2 - 1)
            position += (2 * _TEMPERATURE * _STEP) ** 0.5 * generator.standard_normal(len(position))
            if update % every == 0 and update >= 1000:
                rows.append(position)
        yield from reversed(np.split(np.stack(rows, axis=1), 100))


@cells("`TransitionRates`", "double well, cores ±{0}, 10 replicas", "every {1} updates", of=[(0.3, 4), (0.55, 20)])
def rates_in_a_well(edge: float, every: int, generator: Generator) -> Interval:
    """Replicas that diffuse to and fro over a barrier, seen at every few updates.

    The truth is one over the time between cores that lie further off by what updates miss (Broadie, Glasserman & Kou 1997).
    """
    further = edge + 0.5826 * (2 * _TEMPERATURE * _STEP) ** 0.5
    x = np.linspace(-3, 3, 6001)
    noise = np.full_like(x, (2 * _TEMPERATURE) ** 0.5)
    truth = 1 / mean_first_passage_time(x, -4 * x * (x**2 - 1), noise, -further, further)
    positions = next(in_a_well(every, generator))
    return rate_from_below(positions, every * np.arange(positions.shape[1]), _STEP, edge, truth)


_MATRIX, _NOISE = np.array([[1.5, -0.8], [-0.8, 1.5]]), np.diag([0.6, 1.8])


def linear(generator: Generator, matrix: Floats, replicas: int, records: int, interval: float) -> xr.Dataset:
    covariance = solve_continuous_lyapunov(matrix, _NOISE)
    step = expm(-interval * matrix)
    factor = np.linalg.cholesky(covariance - step @ covariance @ step.T)
    rows = [generator.standard_normal((replicas, 2)) @ np.linalg.cholesky(covariance).T]
    for kick in generator.standard_normal((records - 1, replicas, 2)) @ factor.T:
        rows.append(rows[-1] @ step.T + kick)
    values = np.stack(rows, axis=2)
    return xr.Dataset(
        {"projection": (("replica", "component", "weight_step"), values)},
        coords={"time": ("weight_step", np.arange(records) * interval)},
    )


@cells(
    "`ProbabilityCurrents`, {0}",
    "gyrator, records {1[1]} apart",
    "{1[0]} replicas",
    of=product(["mean circulation", "entropy production rate"], [(8, 0.1), (32, 0.1), (32, 0.5)]),
    share=0.25,
)
def currents(quantity: str, recorded: tuple[int, float], generator: Generator) -> Interval:
    replicas, interval = recorded
    found = ProbabilityCurrents()(linear(generator, _MATRIX, replicas, 200, interval))
    if quantity == "mean circulation":
        truth = circulation(_MATRIX, _NOISE, record_interval=interval)[0, 1]
    else:
        truth = entropy_production_rate(_MATRIX, _NOISE, record_interval=interval)
    return ends(found, f"{quantity.replace(' ', '_')}_", truth)


@cells("`ProbabilityCurrents`, p value", "reversible", "{0} replicas", of=[(2,), (8,)], alarms=True, share=0.25)
def no_current(replicas: int, generator: Generator) -> float:
    return float(ProbabilityCurrents()(linear(generator, np.diag([1.0, 2.0]), replicas, 100, 0.3)).p_value)


@cells("`Fluctuations`, variance", _AR, "{1} records", of=[(0, 100), (0.5, 1000), (0.9, 5000)])
def fluctuations(correlation: float, n: int, generator: Generator) -> Interval:
    series = autoregressive(generator, (1, 1, n), correlation).transpose(0, 2, 1)
    weights = xr.Dataset({"weights": (("replica", "weight_step", "parameter"), series)})
    found = Fluctuations(np.eye(1), detrend="mean")(weights).isel(replica=0, component=0)
    return about(float(found.component_variance), float(found.component_variance_standard_error), 1.0)


@cells("`swap_test`", "{0}, 4 features", "{1} pairs", of=[("normal", 6), *product(LAWS, [16])], alarms=True, share=0.5)
def swaps(law: str, pairs: int, generator: Generator) -> float:
    one, other = LAWS[law](generator, (2, pairs, 4)) + LAWS[law](generator, (pairs, 4))
    return swap_test(one, other, permutations=499, seed=int(generator.integers(2**31))).p_value


_DISTANCES, _NAMES = ("`LawComparison`", "{0} of {1} values", "{2} pairs"), ("distance", "spread_ratio")


@cells(
    *_DISTANCES, of=[*product(_NAMES, ["normal"], [8]), *product(_NAMES, ["normal", "exponential"], [16, 32])], share=4
)
@cells(*_DISTANCES, of=product(_NAMES, ["exponential"], [8]), share=4, note=_SKEWED)
def distances(name: str, law: str, pairs: int, generator: Generator) -> Interval:
    """Pairs of one law of unit spread, shifted by that and stretched by a half."""
    one, other = LAWS[law](generator, (2, pairs, 1))
    found = _distances(one, 1.5 * other + 1)
    return float(found[f"{name}_lower"][0]), float(found[f"{name}_upper"][0]), 1.0 if name == "distance" else 1.5


@cells("`estimate_trace`", "Wishart of {1}", "{0} probes", of=product([2, 4, 16], [50], [False]))
@cells("`SpectralDensity.trace`", "Wishart of {1}", "{0} probes", of=[(8, 50, True)], share=0.25)
def trace(probes: int, size: int, density: bool, generator: Generator) -> Interval:
    root = generator.standard_normal((size, size))
    operator, seed = DenseOperator(root @ root.T), int(generator.integers(2**31))
    value, error = (
        spectral_density(operator, probes, 20, seed).trace() if density else estimate_trace(operator, probes, seed)
    )
    return about(value, error, float(np.trace(root @ root.T)), probes - 1.0)


@cells("`Alignment`", "angles of spread {0}", "{1} minibatches", of=product([0.3, 1.0], [16, 64]), share=4)
def alignment(spread: float, minibatches: int, generator: Generator) -> Interval:
    """Gradients whose angle is normal: R = exp(−σ²)."""
    angle = spread * generator.standard_normal(minibatches)
    found = alignment_of(torch.as_tensor(np.stack([np.cos(angle), np.sin(angle)], axis=1)))
    return (*found.interval(), np.exp(-(spread**2)))


@cache
def alignment_of_many(dimensions: int, size: float, generator: Generator) -> float:
    many = generator.standard_normal((400_000, dimensions)) + size * np.eye(dimensions)[0]
    mean = (many / np.linalg.norm(many, axis=1, keepdims=True)).mean(0)
    return float(mean @ mean) if size else 0.0


@cells(
    "`Alignment`",
    "normal in {0} parameters, mean {2}",
    "{1} minibatches",
    of=[*product([1, 2, 100], [16, 64], [0]), *product([2], [64], [0.2, 0.5])],
    share=4,
)
def weak_alignment(dimensions: int, minibatches: int, size: float, generator: Generator) -> Interval:
    """Normal gradients of unit variance about a mean of a size: R is that of an ensemble of 400,000 of them, or 0."""
    truth = alignment_of_many(dimensions, size, generator)
    gradients = generator.standard_normal((minibatches, dimensions)) + size * np.eye(dimensions)[0]
    return (*alignment_of(torch.as_tensor(gradients)).interval(), truth)


@cells(
    "`gaussian_mixture`, p value",
    "two normals, {1} apart",
    "{0} samples",
    of=[(400, 6), (1000, 3)],
    alarms=True,
    share=0.25,
)
def mixture(n: int, separation: float, generator: Generator) -> float:
    values = generator.standard_normal(n) + separation * (generator.random(n) < 0.4)
    return float(gaussian_mixture(values).fit_p_value)


@cells("`Timescales`, range of the minimum", "parabola", "{0} test samples", of=[(1000,), (5000,)])
def lowest_error(n_test: int, generator: Generator) -> Interval:
    """The minimum of a parabola, of errors counted anew on each record."""
    curve = 0.1 + 0.0002 * (np.arange(41) - 20.0) ** 2
    curves = {"test_error": ("step", generator.binomial(n_test, curve) / n_test), "train_error": ("step", 0 * curve)}
    found = Timescales(test_samples=n_test)(xr.Dataset(curves, coords={"step": np.arange(41)}))
    return ends(found.sel(clock="step"), "time_of_minimum_", 20.0)


@cells(
    "`TimeAveragedOrderParameters`, directed activity",
    "normal gradients, 8 replicas",
    "{0} updates",
    of=[(10,), (50,)],
    share=0.25,
)
def averaged_activity(n: int, generator: Generator) -> Interval:
    """The mean over 8 replicas of A from weights at consecutive updates, of gradients of known activity."""
    gradients = generator.standard_normal((8, n, 3)) + np.array([1.0, 0.0, 0.0])
    weights = np.concatenate([np.zeros((8, 1, 3)), np.cumsum(-0.1 * gradients, axis=1)], axis=1)
    trajectory = xr.Dataset(
        {"weights": (("replica", "weight_step", "parameter"), weights)},
        coords={"weight_step": np.arange(n + 1), "learning_rate": ("replica", np.full(8, 0.1))},
    )
    return ends(mean_with_interval(TimeAveragedOrderParameters()(trajectory).directed_activity.isel(window=0)), "", 1.0)


# --- the table


def _of_phases(repetitions: int) -> list[str]:
    """Return rows of the phase detector, which `calibrate_phases` counts cell by cell."""
    detector, rows = PhaseDetector(), []
    few = max(1, repetitions // (100 * len(STATIONARY)))
    found = list(false_alarms(few, detector, records=(20, 200), correlations=(0.0, 0.95)))
    held = list(coverage(max(1, repetitions // 80), detector, noises=(0.03,), intervals=(1.0,)))
    for words, counts, alarms in (
        (("`PhaseDetector`, any boundary", "stationary noise", "1 and 4 replicas"), found, True),
        (("`PhaseDetector`, mean boundaries", "learning curves with noise", "4 replicas"), held, False),
    ):
        cell = Cell(
            *words, p_value=(lambda _: 1.0) if alarms else None, interval=None if alarms else (lambda _: (0, 0, 0))
        )
        whole = Count(cell.estimator, sum(each.hits for each in counts), sum(each.trials for each in counts))
        rows.append(Counted(cell, whole, 0).row)
    return rows


HEAD = """# Counted coverage

How often 95 % intervals hold the truth, and how often tests at their level raise false alarms, on laws whose truth is known.
`make coverage` counts again. A cell holds where its share is within three binomial standard errors (± is one) of what is
promised, or on the careful side; refusals count on neither side. A row marked "outside" shows what an estimator does beyond
the range that its documentation gives; any other that misses makes the command fail. Where a standard error
comes without an interval, the normal one is taken, or Student's with as many degrees of freedom as there are probes,
minibatches or replicas less one; for autocorrelation times τ that of ln τ.

| estimator | law | size | kind | nominal, % | counted, % | refused, % | verdict |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=500, help="of each cell (default: 500)")
    parser.add_argument("--only", default="", help="count estimators whose name holds this text")
    parser.add_argument("--out", type=Path, help="file for the table; rows of others that are there stay")
    chosen = parser.parse_args(arguments)
    started, rows, failed = time.perf_counter(), [], 0
    for cell in CELLS:
        if chosen.only in cell.estimator:
            counted = cell.count(chosen.repetitions)
            failed += counted.misses and not cell.note
            rows.append(counted.row)
            print(rows[-1], flush=True)
    if chosen.only in "`PhaseDetector`":
        rows += _of_phases(chosen.repetitions)
        print("\n".join(rows[-2:]))
    if chosen.out:
        counted_now = {row.split(" | ")[0] for row in rows}
        before = chosen.out.read_text().splitlines() if chosen.out.exists() else []
        kept = [row for row in before if row.startswith("| `") and row.split(" | ")[0] not in counted_now]
        chosen.out.write_text(HEAD + "\n".join(sorted([*kept, *rows])) + "\n")
    print(f"\n{failed} missed; {time.perf_counter() - started:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
