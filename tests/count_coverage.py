"""How often the library's intervals hold the truth, and how often its tests raise false alarms: every estimator, many laws.

The suite counts a few cells; ``python tests/count_coverage.py --out docs/coverage.md`` counts all and writes the table.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
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
# An interval (lower, upper) with the truth, of one draw; or a p-value.
Interval = Callable[[Generator], tuple[float, float, float]]
PValue = Callable[[Generator], float]

LEVEL = 0.95


# --- laws of known mean


def _normal(generator: Generator, shape: tuple[int, ...]) -> Floats:
    return generator.standard_normal(shape)


def _exponential(generator: Generator, shape: tuple[int, ...]) -> Floats:
    return generator.exponential(size=shape) - 1


def _heavy(generator: Generator, shape: tuple[int, ...]) -> Floats:
    return generator.standard_t(3, size=shape)


def _ties(generator: Generator, shape: tuple[int, ...]) -> Floats:
    return generator.poisson(2, size=shape) - 2.0


LAWS = {"normal": _normal, "exponential": _exponential, "Student t, 3": _heavy, "Poisson(2)": _ties}


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


# --- estimators: a draw in, an interval and the truth out


def about(value: float, error: float, truth: float, freedom: float = np.inf) -> tuple[float, float, float]:
    half = float(ndtri(0.5 + LEVEL / 2) if np.isinf(freedom) else stdtrit(freedom, 0.5 + LEVEL / 2)) * error
    return value - half, value + half, truth


def mean(law: str, n: int) -> Interval:
    def draw(generator: Generator) -> tuple[float, float, float]:
        found = mean_with_interval(xr.DataArray(LAWS[law](generator, (n,)), dims="replica"))
        return float(found.lower), float(found.upper), 0.0

    return draw


def ratio(law: str, n: int) -> Interval:
    def draw(generator: Generator) -> tuple[float, float, float]:
        pairs = LAWS[law](generator, (n, 2)) + np.array([4.0, 8.0])
        _, lower, upper = jackknife(lambda each: each[:, 0].mean() / each[:, 1].mean(), pairs)
        return float(lower), float(upper), 0.5

    return draw


def average(correlation: float, law: str, n: int) -> Interval:
    return lambda generator: (*time_average(autoregressive(generator, (n,), correlation, law)).interval(), 0.0)


def _series(values: Floats) -> xr.Dataset:
    return xr.Dataset({"value": (("replica", "step"), values)}, coords={"step": np.arange(values.shape[1])})


def correlation_time(correlation: float, n: int) -> Interval:
    def draw(generator: Generator) -> tuple[float, float, float]:
        found = Autocorrelation("value")(_series(autoregressive(generator, (4, n), correlation)))
        each = found.isel(replica=0)
        truth = (1 + correlation) / (1 - correlation)
        value, error = each.integrated_autocorrelation_time, each.integrated_autocorrelation_time_standard_error
        return about(float(np.log(value)), float(error / value), float(np.log(truth)))

    return draw


def average_of_replicas(correlation: float, n: int, spread: float) -> Interval:
    """Replicas whose own means differ by `spread`."""

    def draw(generator: Generator) -> tuple[float, float, float]:
        values = autoregressive(generator, (4, n), correlation) + spread * generator.standard_normal((4, 1))
        found = Autocorrelation("value")(_series(values))
        return float(found.mean_time_average_lower), float(found.mean_time_average_upper), 0.0

    return draw


def effective_size(n: int, spread: float, correlation: float) -> Interval:
    """The mean, with the error that the total effective sample size implies: of replicas that agree, or do not."""

    def draw(generator: Generator) -> tuple[float, float, float]:
        values = autoregressive(generator, (4, n), correlation) + spread * generator.standard_normal((4, 1))
        found = Autocorrelation("value")(_series(values))
        total = float(found.total_effective_sample_size)
        alike = 4 * n / float(found.mean_integrated_autocorrelation_time)
        freedom = 3.0 if total < 0.999 * alike else np.inf
        error = values.std() / total**0.5
        return about(float(values.mean()), error, 0.0, freedom)

    return draw


def agreement(correlation: float, n: int) -> PValue:
    def draw(generator: Generator) -> float:
        return float(
            Autocorrelation("value")(_series(autoregressive(generator, (4, n), correlation))).agreement_p_value
        )

    return draw


def stationarity(correlation: float, law: str, n: int) -> PValue:
    return lambda generator: stationarity_test(autoregressive(generator, (n,), correlation, law)).p_value


def decline(correlation: float, n: int) -> PValue:
    return lambda generator: decline_p_value(0.5 + 0.1 * autoregressive(generator, (n,), correlation))


def tails(method: str, index: float, skew: float, n: int) -> Interval:
    return lambda generator: (*tail_index(stable(generator, n, index, skew), method).interval(), index)  # type: ignore[arg-type]


def tails_of_counts(method: str, n: int) -> Interval:
    """Of numbers that are counted: there is no such index."""
    return lambda generator: (*tail_index(generator.poisson(4, n), method).interval(), 2.0)  # type: ignore[arg-type]


def power_law(law: str, n: int) -> Interval:
    def draw(generator: Generator) -> tuple[float, float, float]:
        sizes = 10.0 * 2 ** np.arange(n)
        noise = 0.1 * LAWS[law](generator, (n,)) / (3**0.5 if law == "Student t, 3" else 1)
        found = fit_power_law(sizes, np.exp(0.5 * np.log(sizes) + noise), np.full(n, 0.1))
        return float(found.exponent_lower), float(found.exponent_upper), 0.5

    return draw


def no_power_law(n: int) -> PValue:
    def draw(generator: Generator) -> float:
        sizes = 10.0 * 2 ** np.arange(n)
        return float(fit_power_law(sizes, np.exp(0.1 * _normal(generator, (n,))), np.full(n, 0.1)).p_value)

    return draw


def collapse(shift: float, n: int) -> Interval:
    def draw(generator: Generator) -> tuple[float, float, float]:
        one, other = _normal(generator, (2, n, 50))
        found = collapse_distance(one, other + shift)
        return about(float(found.squared_distance), float(found.squared_distance_standard_error), shift**2, n - 1.0)

    return draw


def rates(expected: float) -> Interval:
    """Jumps at rates of 0.02 an update, each update recorded; as many replicas as give so many jumps on average."""

    def draw(generator: Generator) -> tuple[float, float, float]:
        n_records, n_replicas = 200, max(1, round(expected / 2))
        jumps = generator.random((n_replicas, n_records)) < 0.02
        state = 2.0 * (np.cumsum(jumps, axis=1) % 2) - 1
        weights = xr.Dataset(
            {"weights": (("replica", "weight_step", "parameter"), state[..., None])},
            coords={"time": ("weight_step", np.arange(float(n_records))), "weight_step": np.arange(n_records)},
        )
        found = TransitionRates(-0.5, 0.5)(weights).sel(valley="below")
        return float(found.transition_rate_lower), float(found.transition_rate_upper), 0.02

    return draw


def rates_in_a_well(edge: float, every: int) -> Interval:
    """A double well at T = 0.25: 10 replicas that diffuse to and fro over its barrier, seen at every few updates.

    The truth is one over the time between cores that lie further off by what updates miss (Broadie, Glasserman & Kou 1997).
    """
    temperature, step, together = 0.25, 0.005, 100
    further = edge + 0.5826 * (2 * temperature * step) ** 0.5
    x = np.linspace(-3, 3, 6001)
    noise = np.full_like(x, (2 * temperature) ** 0.5)
    truth = 1 / mean_first_passage_time(x, -4 * x * (x**2 - 1), noise, -further, further)
    stock: list[Floats] = []

    def draw(generator: Generator) -> tuple[float, float, float]:
        if not stock:
            position, rows = np.sign(generator.standard_normal(10 * together)), []
            for update in range(40_000):
                position = position - step * 4 * position * (position**2 - 1)
                position += (2 * temperature * step) ** 0.5 * generator.standard_normal(len(position))
                if update % every == 0 and update >= 1000:
                    rows.append(position)
            stock.extend(np.split(np.stack(rows, axis=1), together))
        values = stock.pop()
        steps = every * np.arange(values.shape[1])
        weights = xr.Dataset(
            {"weights": (("replica", "weight_step", "parameter"), values[..., None])},
            coords={"time": ("weight_step", step * steps), "weight_step": steps},
        )
        found = TransitionRates(-edge, edge)(weights).sel(valley="below")
        return float(found.transition_rate_lower), float(found.transition_rate_upper), truth

    return draw


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


def currents(quantity: str, replicas: int, records: int, interval: float = 0.1) -> Interval:
    def draw(generator: Generator) -> tuple[float, float, float]:
        found = ProbabilityCurrents()(linear(generator, _MATRIX, replicas, records, interval))
        theory = {
            "mean_circulation": circulation(_MATRIX, _NOISE, record_interval=interval)[0, 1],
            "entropy_production_rate": entropy_production_rate(_MATRIX, _NOISE, record_interval=interval),
        }
        return float(found[f"{quantity}_lower"]), float(found[f"{quantity}_upper"]), float(theory[quantity])

    return draw


def no_current(replicas: int) -> PValue:
    reversible = np.diag([1.0, 2.0])
    return lambda generator: float(ProbabilityCurrents()(linear(generator, reversible, replicas, 100, 0.3)).p_value)


def fluctuations(correlation: float, n: int) -> Interval:
    def draw(generator: Generator) -> tuple[float, float, float]:
        series = autoregressive(generator, (1, 1, n), correlation).transpose(0, 2, 1)
        weights = xr.Dataset({"weights": (("replica", "weight_step", "parameter"), series)})
        found = Fluctuations(np.eye(1), detrend="mean")(weights).isel(replica=0, component=0)
        return about(float(found.component_variance), float(found.component_variance_standard_error), 1.0)

    return draw


def swaps(law: str, pairs: int) -> PValue:
    def draw(generator: Generator) -> float:
        one, other = LAWS[law](generator, (2, pairs, 4)) + LAWS[law](generator, (pairs, 4))
        return swap_test(one, other, permutations=499, seed=int(generator.integers(2**31))).p_value

    return draw


def distances(name: str, law: str, pairs: int) -> Interval:
    """Pairs of one law, shifted by one spread and stretched by a half."""

    def draw(generator: Generator) -> tuple[float, float, float]:
        one, other = LAWS[law](generator, (2, pairs, 1))
        spread = {"normal": 1.0, "exponential": 1.0}[law]
        found = _distances(one, 1.5 * other + spread)
        return float(found[f"{name}_lower"][0]), float(found[f"{name}_upper"][0]), 1.0 if name == "distance" else 1.5

    return draw


def trace(probes: int, size: int, density: bool = False) -> Interval:
    def draw(generator: Generator) -> tuple[float, float, float]:
        root = generator.standard_normal((size, size))
        operator, seed = DenseOperator(root @ root.T), int(generator.integers(2**31))
        value, error = (
            spectral_density(operator, probes, 20, seed).trace() if density else estimate_trace(operator, probes, seed)
        )
        return about(value, error, float(np.trace(root @ root.T)), probes - 1.0)

    return draw


def alignment(spread: float, minibatches: int) -> Interval:
    """Gradients whose angle is normal: R = exp(−σ²)."""

    def draw(generator: Generator) -> tuple[float, float, float]:
        angle = spread * generator.standard_normal(minibatches)
        found = alignment_of(torch.as_tensor(np.stack([np.cos(angle), np.sin(angle)], axis=1)))
        return (*found.interval(), np.exp(-(spread**2)))

    return draw


def weak_alignment(dimensions: int, minibatches: int, size: float) -> Interval:
    """Normal gradients of unit variance about a mean of a size: R is that of an ensemble of 400,000 of them, or 0."""
    truth: list[float] = []

    def draw(generator: Generator) -> tuple[float, float, float]:
        if not truth:
            many = generator.standard_normal((400_000, dimensions)) + size * np.eye(dimensions)[0]
            mean = (many / np.linalg.norm(many, axis=1, keepdims=True)).mean(0)
            truth.append(float(mean @ mean) if size else 0.0)
        gradients = generator.standard_normal((minibatches, dimensions)) + size * np.eye(dimensions)[0]
        return (*alignment_of(torch.as_tensor(gradients)).interval(), truth[0])

    return draw


def mixture(n: int, separation: float) -> PValue:
    def draw(generator: Generator) -> float:
        values = generator.standard_normal(n) + separation * (generator.random(n) < 0.4)
        return float(gaussian_mixture(values).fit_p_value)

    return draw


def lowest_error(n_test: int) -> Interval:
    """The minimum of a parabola, of errors counted anew on each record."""

    def draw(generator: Generator) -> tuple[float, float, float]:
        curve = 0.1 + 0.0002 * (np.arange(41) - 20.0) ** 2
        curves = {
            "test_error": ("step", generator.binomial(n_test, curve) / n_test),
            "train_error": ("step", 0 * curve),
        }
        found = Timescales(test_samples=n_test)(xr.Dataset(curves, coords={"step": np.arange(41)}))
        at = [float(found[f"time_of_minimum{end}"].sel(clock="step")) for end in ("_lower", "_upper")]
        return at[0], at[1], 20.0

    return draw


def averaged_activity(n: int) -> Interval:
    """The mean over 8 replicas of A from weights at consecutive updates, of gradients of known activity."""

    def draw(generator: Generator) -> tuple[float, float, float]:
        gradients = generator.standard_normal((8, n, 3)) + np.array([1.0, 0.0, 0.0])
        weights = np.concatenate([np.zeros((8, 1, 3)), np.cumsum(-0.1 * gradients, axis=1)], axis=1)
        trajectory = xr.Dataset(
            {"weights": (("replica", "weight_step", "parameter"), weights)},
            coords={"weight_step": np.arange(n + 1), "learning_rate": ("replica", np.full(8, 0.1))},
        )
        found = mean_with_interval(TimeAveragedOrderParameters()(trajectory).directed_activity.isel(window=0))
        return float(found.lower), float(found.upper), 1.0

    return draw


# --- the table


@dataclass(frozen=True)
class Cell:
    """An estimator, a law and a size: what is drawn, and what is promised of it."""

    estimator: str
    law: str
    size: str
    interval: Interval | None = None
    p_value: PValue | None = None
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


def _rows(
    estimator: str,
    law: str,
    size: str,
    make: Callable[..., Any],
    *arguments: tuple[Any, ...],
    alarms: bool = False,
    level: float = 0.05,
    share: float = 1.0,
    note: str = "",
) -> tuple[Cell, ...]:
    """Return a cell for each choice of arguments, which also fill in the words for law and size."""
    kind = "p_value" if alarms else "interval"
    common = {"level": level, "share": share, "note": note}
    return tuple(
        Cell(estimator, law.format(*each), size.format(*each), **{kind: make(*each)}, **common) for each in arguments
    )


_AR = "autoregressive {0:g}"
_SKEWED = "outside: skewness does not show in so few values"
_CIRCULATION, _ENTROPY = "mean_circulation", "entropy_production_rate"
_INDICES = ((1.2, 0), (1.5, 0), (1.5, 0.8), (1.8, 0), (1.95, 0), (2, 0))
_RECORDS = ((8, 200, 0.1), (32, 200, 0.1), (32, 200, 0.5))

CELLS = (
    *_rows("`mean_with_interval`", "{0}", "{1} replicas", mean, ("normal", 2), ("normal", 4), ("normal", 16), share=4),
    *_rows("`mean_with_interval`", "{0}", "{1} replicas", mean, ("Student t, 3", 4), ("Student t, 3", 16), share=4),
    *_rows(
        "`mean_with_interval`",
        "{0}",
        "{1} replicas",
        mean,
        *((law, n) for law in ("exponential", "Poisson(2)") for n in (16, 64)),
        share=4,
    ),
    *_rows(
        "`mean_with_interval`",
        "{0}",
        "{1} replicas",
        mean,
        *((law, n) for law in ("exponential", "Poisson(2)") for n in (4, 8)),
        share=4,
        note=_SKEWED,
    ),
    *_rows(
        "`jackknife` of a ratio",
        "{0}",
        "{1} values",
        ratio,
        ("normal", 8),
        *((law, n) for law in ("normal", "exponential") for n in (16, 32)),
        share=4,
    ),
    *_rows("`jackknife` of a ratio", "{0}", "{1} values", ratio, ("exponential", 8), share=4, note=_SKEWED),
    *_rows(
        "`time_average`",
        f"{_AR}, {{1}} shocks",
        "{2} records",
        average,
        (-0.5, "normal", 500),
        (0.0, "normal", 150),
        (0.0, "normal", 200),
        (0.5, "normal", 150),
        (0.5, "normal", 500),
        (0.5, "exponential", 500),
        (0.9, "normal", 500),
        (0.9, "normal", 2000),
    ),
    *_rows(
        "`Autocorrelation`, time",
        f"{_AR}, 4 replicas",
        "{1} records",
        correlation_time,
        (0.0, 500),
        (0.5, 1000),
        (0.9, 4000),
        share=4,
    ),
    *_rows(
        "`Autocorrelation`, replicas agree",
        f"{_AR}, 4 replicas",
        "{1} records",
        agreement,
        (0.0, 500),
        (0.5, 1000),
        (0.9, 4000),
        alarms=True,
        level=0.01,
    ),
    *_rows(
        "`Autocorrelation`, mean",
        f"{_AR}, 4 replicas {{2}} apart",
        "{1} records",
        average_of_replicas,
        (0.5, 1000, 0),
        (0.5, 1000, 2),
        share=0.5,
    ),
    *_rows(
        "`Autocorrelation`, total effective size",
        "autoregressive {2}, 4 replicas {1} apart",
        "{0} records",
        effective_size,
        (1000, 0, 0.5),
        (1000, 2, 0.5),
        (2000, 0.1, 0.8),
        (2000, 0.2, 0.8),
    ),
    *_rows(
        "`stationarity_test`",
        f"{_AR}, {{1}} shocks",
        "{2} records",
        stationarity,
        (0.0, "normal", 200),
        (0.5, "normal", 1000),
        (0.5, "exponential", 1000),
        (0.9, "normal", 500),
        (0.9, "normal", 4000),
        alarms=True,
    ),
    *_rows("`decline_p_value`", _AR, "{1} records", decline, (0, 20), (0.9, 20), (0.95, 60), (0.95, 200), alarms=True),
    *(
        cell
        for method in ("characteristic function", "block sums")
        for cell in _rows(
            f"`tail_index`, {method}",
            "stable {1}, skew {2}",
            "{3} samples",
            tails,
            *((method, *law, n) for law in _INDICES for n in (1000, 2000, 8000)),
        )
    ),
    *(
        cell
        for method in ("block sums", "characteristic function")
        for cell in _rows(f"`tail_index`, {method}", "Poisson(4)", "{1} samples", tails_of_counts, (method, 2000))
    ),
    *_rows("`fit_power_law`", "{0} errors", "{1} sizes", power_law, ("normal", 3), ("normal", 6)),
    *_rows("`fit_power_law`", "{0} errors", "{1} sizes", power_law, ("Student t, 3", 3), ("Student t, 3", 6)),
    *_rows("`fit_power_law`, p value", "normal errors", "{0} sizes", no_power_law, (3,), (6,), alarms=True),
    *_rows(
        "`collapse_distance`",
        "normal, {0:g} spreads apart",
        "{1} replicas",
        collapse,
        *((shift, n) for shift in (0.0, 0.5, 1.0) for n in (6, 16)),
        share=0.5,
    ),
    *_rows("`TransitionRates`", "jumps of constant rate", "{0} transitions", rates, (10,), (40,), (200,), share=0.5),
    *_rows(
        "`TransitionRates`",
        "double well, cores ±{0}, 10 replicas",
        "every {1} updates",
        rates_in_a_well,
        (0.3, 4),
        (0.55, 20),
    ),
    *(
        cell
        for quantity in (_CIRCULATION, _ENTROPY)
        for cell in _rows(
            f"`ProbabilityCurrents`, {quantity.replace('_', ' ')}",
            "gyrator, records {3} apart",
            "{1} replicas",
            currents,
            *((quantity, *each) for each in _RECORDS),
            share=0.25,
        )
    ),
    *_rows(
        "`ProbabilityCurrents`, p value", "reversible", "{0} replicas", no_current, (2,), (8,), alarms=True, share=0.25
    ),
    *_rows("`Fluctuations`, variance", _AR, "{1} records", fluctuations, (0, 100), (0.5, 1000), (0.9, 5000)),
    *_rows(
        "`swap_test`",
        "{0}, 4 features",
        "{1} pairs",
        swaps,
        ("normal", 6),
        *((law, 16) for law in LAWS),
        alarms=True,
        share=0.5,
    ),
    *_rows(
        "`LawComparison`",
        "{0} of {1} values",
        "{2} pairs",
        distances,
        *(
            (name, *each)
            for name in ("distance", "spread_ratio")
            for each in (("normal", 8), *((law, n) for law in ("normal", "exponential") for n in (16, 32)))
        ),
        share=4,
    ),
    *_rows(
        "`LawComparison`",
        "{0} of {1} values",
        "{2} pairs",
        distances,
        *((name, "exponential", 8) for name in ("distance", "spread_ratio")),
        share=4,
        note=_SKEWED,
    ),
    *_rows("`estimate_trace`", "Wishart of {1}", "{0} probes", trace, (2, 50), (4, 50), (16, 50)),
    *_rows("`SpectralDensity.trace`", "Wishart of {1}", "{0} probes", trace, (8, 50, True), share=0.25),
    *_rows(
        "`Alignment`",
        "angles of spread {0}",
        "{1} minibatches",
        alignment,
        *((spread, n) for spread in (0.3, 1.0) for n in (16, 64)),
        share=4,
    ),
    *_rows(
        "`Alignment`",
        "normal in {0} parameters, mean {2}",
        "{1} minibatches",
        weak_alignment,
        *((dimensions, n, 0) for dimensions in (1, 2, 100) for n in (16, 64)),
        *((2, 64, size) for size in (0.2, 0.5)),
        share=4,
    ),
    *_rows(
        "`gaussian_mixture`, p value",
        "two normals, {1} apart",
        "{0} samples",
        mixture,
        (400, 6),
        (1000, 3),
        alarms=True,
        share=0.25,
    ),
    *_rows("`Timescales`, range of the minimum", "parabola", "{0} test samples", lowest_error, (1000,), (5000,)),
    *_rows(
        "`TimeAveragedOrderParameters`, directed activity",
        "normal gradients, 8 replicas",
        "{0} updates",
        averaged_activity,
        (10,),
        (50,),
        share=0.25,
    ),
)


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
