"""Weak orders of noise that is carried by samples, from two sides and without a random number.

In linear regression with one weight every sample gradient is affine in it. One update is then an affine map for each
outcome of the noise: all pairs of minibatches of a SVAG update, the nodes of a quadrature that is exact for the Gaussian
moments asked for. The library makes the updates, from a key that hands out the outcomes one by one, each to a replica.
Moments up to the fourth follow from the maps by a linear recursion, and those of the stochastic differential equation
from a closed linear system: both are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from langevin_nn import Process, advance, langevin, svag
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import LinearRegressionLandscape
from langevin_nn.noise import (
    SVAG,
    IndependentMinibatches,
    LowRankNoise,
    MatchedGaussian,
    SampleWeights,
    ScaledNoise,
    ShuffledMinibatches,
)
from langevin_nn.seeds import Key, Seeds
from langevin_nn.update import Momentum

# At B = N/2 a minibatch and its complement would cancel in the third moment.
N, B, ALPHA = 4, 1, 0.5
X, Y = np.array([1.0, -0.6, 1.4, 0.5]), np.array([0.8, 0.3, -0.5, 1.0])
START, END = 1.5, 2 * ALPHA  # in units of time
FACTOR = (N - B) / (N - 1) / B
TOLERANCE = 0.05  # of an order
LANDSCAPE = LinearRegressionLandscape(X[:, None], Y, start=[START])

# Pairs of minibatches with equal probability; nodes of a rule that is exact up to the fifth degree in each normal number.
PAIRS = list(product(combinations(range(N), B), repeat=2))
_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(3)
NORMALS = np.array(list(product(_NODES, repeat=N)))
SHARES = np.prod(list(product(_SHARES / _SHARES.sum(), repeat=N)), axis=1)


@dataclass(frozen=True)
class Outcomes(Key):
    """A key whose replica k meets outcome k."""

    def normals(self, purpose: str, size: int, dtype: type = np.float64) -> Any:
        return NORMALS.copy()

    def generators(self, purpose: str) -> Any:
        which = {"minibatch": 0, "second minibatch": 1}[purpose]
        return (Drawn(pair[which]) for pair in PAIRS)


@dataclass(frozen=True)
class Drawn:
    """Instead of a generator: what it would have chosen."""

    rows: tuple[int, ...]

    def choice(self, n: int, size: int, replace: bool, shuffle: bool) -> list[int]:
        assert (n, size, replace) == (N, B, False)
        return list(self.rows)


def maps_of(process: Process) -> tuple[np.ndarray, np.ndarray]:
    """The affine maps z → A z + b of one update of (1, weight, memory) and the probabilities of each."""
    gaussian = isinstance(process.noise, MatchedGaussian)
    shares = SHARES if gaussian else np.full(len(PAIRS), 1 / len(PAIRS))
    key = Outcomes(Seeds(0), tuple(range(len(shares))), 0)
    remembers = isinstance(process.update.start(torch.zeros(1, 1)), torch.Tensor)
    size = 1 + remembers
    columns = []
    for point in (np.zeros(size), *np.eye(size)):
        weights = torch.full((len(shares), 1), point[0], dtype=torch.float64)
        memory = torch.full((len(shares), 1), point[1], dtype=torch.float64) if remembers else None
        gradient, _ = process.stochastic_gradient(weights, None, key)
        after, memory = process.update.apply(weights, memory, gradient, process.learning_rate, process.time_step)
        columns.append(torch.cat([after, memory], 1).numpy() if remembers else after.numpy())
    maps = np.zeros((len(shares), size + 1, size + 1))
    maps[:, 0, 0] = 1
    maps[:, 1:, 0] = columns[0]
    for k, column in enumerate(columns[1:]):
        maps[:, 1:, k + 1] = column - columns[0]
    return maps, shares


def powers(matrix: np.ndarray, degree: int) -> np.ndarray:
    return reduce(np.kron, [matrix] * degree)


def moments_of_run(process: Process, degree: int) -> np.ndarray:
    """Moments of (1, weight, memory) up to a degree at the end, from the recursion E z'^⊗n = E[M^⊗n] E z^⊗n."""
    maps, shares = maps_of(process)
    step = sum(share * powers(each, degree) for share, each in zip(shares, maps, strict=True))
    start = np.zeros(maps.shape[1])
    start[:2] = 1, START
    count = round(END / process.time_step)
    assert count * process.time_step == pytest.approx(END)
    return np.linalg.matrix_power(step, count) @ powers(start, degree)


def on_place(matrix: np.ndarray, place: int, degree: int) -> np.ndarray:
    return reduce(np.kron, [matrix if k == place else np.eye(len(matrix)) for k in range(degree)])


def moments_of_equation(drift: np.ndarray, noises: list[np.ndarray], degree: int) -> np.ndarray:
    """Moments of dz = A z dt + Σ_k B_k z dW_k, which close degree by degree."""
    places = range(degree)
    generator = sum(on_place(drift, place, degree) for place in places)
    for one, other in combinations(places, 2):
        generator = generator + sum(on_place(b, one, degree) @ on_place(b, other, degree) for b in noises)
    start = np.zeros(len(drift))
    start[:2] = 1, START
    return expm(END * generator) @ powers(start, degree)


def overdamped(degree: int, alpha: float = ALPHA, speed: float = 1.0) -> np.ndarray:
    """dw = −∇L dt + √(α f/(BN)) Σ_k (g_k − ḡ) dW_k, typed from the sample gradients x_k (x_k w − y_k)."""
    gradients = speed * np.stack([-X * Y, X**2], axis=1)  # of (1, w)
    drift = np.zeros((2, 2))
    drift[1] = -gradients.mean(0)
    noises = []
    for centred in gradients - gradients.mean(0):
        b = np.zeros((2, 2))
        b[1] = np.sqrt(alpha * FACTOR / N) * centred
        noises.append(b)
    return moments_of_equation(drift, noises, degree)


def order_of(error: Callable[[int], float], divisions: list[int]) -> float:
    """Slope of the error against the time step, by least squares in the logarithms."""
    errors = [error(each) for each in divisions]
    return float(-np.polyfit(np.log(divisions), np.log(errors), 1)[0])


def assert_order(measured: float, expected: float) -> None:
    assert abs(measured - expected) <= TOLERANCE, f"order {measured:.3f}"


def error_of(make: Callable[[int], Process], division: int, degree: int, truth: np.ndarray) -> float:
    """Error of the highest moment, which only it holds."""
    return abs(moments_of_run(make(division), degree)[-1] - truth[-1])


DIVISIONS = [32, 64, 128, 256]
RUNS = {
    "svag": lambda n: svag(LANDSCAPE, ALPHA, B, n),
    "matched Gaussian": lambda n: langevin(LANDSCAPE, ALPHA, B, time_step=ALPHA / n),
}


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("name", RUNS)
def test_moments_converge_to_those_of_the_equation_with_weak_order_one(name, degree):
    truth = overdamped(degree)
    assert_order(order_of(lambda n: error_of(RUNS[name], n, degree, truth), DIVISIONS), 1.0)


class EachMinibatch(IndependentMinibatches):
    """Replica k draws minibatch k."""

    def minibatches(self, n_samples, memory, draws, steps):
        return np.array([[pair[0] for pair in PAIRS]]), memory


FINER = [2**k for k in (14, 16, 18, 20)]  # where √Δt is small against 1


def test_minibatches_converge_with_weak_order_one_half_in_their_third_moment_alone():
    """Mean and covariance of an update are those of the equation; kicks of √(α/Δt) keep a skewness ~ √Δt."""

    def make(n):
        return Process(LANDSCAPE, EachMinibatch(B), ALPHA, time_step=ALPHA / n)

    assert make(2).weak_order == IndependentMinibatches.weak_order == 0.5
    for degree, order in ((1, 1.0), (2, 1.0), (3, 0.5)):
        truth = overdamped(degree)
        measured = order_of(lambda n, degree=degree, truth=truth: error_of(make, n, degree, truth), FINER)
        assert_order(measured, order)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", RUNS)
def test_steps_with_momentum_converge_to_dynamics_sped_up_with_weak_order_one(name, degree):
    """dw = −(∇L dt + √(α C) dW)/(1 − μ)."""
    mu, where = 0.6, (3**degree - 1) // 2
    truth = overdamped(degree, speed=1 / (1 - mu))[-1]

    def error(n):
        process = replace(RUNS[name](n), update=Momentum(mu))
        return abs(moments_of_run(process, degree)[where] - truth)

    assert_order(order_of(error, [256, 512, 1024, 2048]), Momentum.orders["full"].weak)
    truth = overdamped(degree, speed=1.05 / (1 - mu))[-1]  # mutated twin: other dynamics
    with pytest.raises(AssertionError, match="order"):
        assert_order(order_of(error, [256, 512, 1024, 2048]), 1.0)


PROBES = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [1, 1]], float)


def held_moments(division: int, every: int) -> float:
    """⟨w²⟩ at the end, where C is measured every so many updates: moments of weights and of where C was measured close."""
    process = Process(LANDSCAPE, LowRankNoise(B, 1, every), ALPHA, time_step=ALPHA / division)
    noise, nodes = process.noise, len(_NODES)

    def moments(w, held):
        return np.stack([np.ones_like(w), w, held, w * w, w * held, held * held], -1)

    class Nodes(Key):
        def normals(self, purpose, size, dtype=np.float64):
            return _NODES[:, None].copy()

    after = []
    for w, held in PROBES:
        memory = noise.start(LANDSCAPE, torch.full((nodes, 1), held, dtype=torch.float64))
        weights = torch.full((nodes, 1), w, dtype=torch.float64)
        gradient, _ = process.stochastic_gradient(weights, memory, Nodes(Seeds(0), tuple(range(nodes)), 0))
        moved, _ = process.update.apply(weights, None, gradient, ALPHA, process.time_step)
        after.append(_SHARES / _SHARES.sum() @ moments(moved[:, 0].numpy(), np.full(nodes, held)))
    before = np.linalg.inv(moments(*PROBES.T))
    step, refresh = (before @ np.array(after)).T, (before @ moments(PROBES[:, 0], PROBES[:, 0])).T
    rounds, rest = divmod(round(END / process.time_step), every)
    period = np.linalg.matrix_power(step, every) @ refresh
    start = moments(np.array(START), np.array(START))
    return float((np.linalg.matrix_power(step, rest) @ refresh @ np.linalg.matrix_power(period, rounds) @ start)[3])


def test_noise_that_is_measured_every_few_updates_converges_with_weak_order_one():
    """C is old by a few Δt at most; measured at the start alone it converges to another equation."""
    truth = overdamped(2)[-1]
    assert LowRankNoise(B, 1).weak_order == 1.0
    for every in (1, 4):
        measured = order_of(lambda n, every=every: abs(held_moments(n, every) - truth), DIVISIONS)
        assert_order(measured, LowRankNoise(B, 1).weak_order)
    with pytest.raises(AssertionError, match="order"):
        assert_order(order_of(lambda n: abs(held_moments(n, 10**6) - truth), DIVISIONS), 1.0)


class ShuffledAtAnyStep(ShuffledMinibatches):
    """Mutated twin: shuffled epochs of shorter steps."""

    def check_rates(self, learning_rate, time_step):
        pass


def test_shuffled_epochs_of_shorter_steps_are_refused_for_their_noise_is_lost():
    with pytest.raises(
        ConfigurationError, match=r"time_step=0.1 at learning_rate=0.5 .* expected 0.5, the learning rate"
    ):
        Process(LANDSCAPE, ScaledNoise(ShuffledMinibatches(B), 2), ALPHA, time_step=0.1)
    first, second = overdamped(2)[[1, 3]]
    spread = second - first**2
    found = {}
    for noise in (ShuffledAtAnyStep(B), IndependentMinibatches(B)):
        process = Process(LANDSCAPE, noise, ALPHA, time_step=ALPHA / 32)
        found[type(noise)] = float(advance(process, process.start(200, 0), 64).weights.var()) / spread
    assert abs(found[IndependentMinibatches] - 1) < 0.5
    assert found[ShuffledAtAnyStep] < 0.25


def test_svag_and_the_gaussian_differ_in_the_third_moment_only_and_less_as_l_grows():
    """Mean and covariance of an update are the same, so that only higher moments tell them apart."""
    pairs = {n: [moments_of_run(RUNS[name](n), 3) for name in RUNS] for n in (4, 64)}
    for one, other in pairs.values():
        np.testing.assert_allclose(one[:4].sum(), other[:4].sum(), rtol=1e-12)  # (1, w) ⊗ (1, w)
    apart = {n: abs(one[-1] - other[-1]) for n, (one, other) in pairs.items()}
    assert apart[64] < apart[4] / 8
    assert apart[4] > 1e-4


@dataclass(frozen=True)
class Mutant(SVAG):
    """SVAG with other weights of its two minibatches."""

    change: str = ""

    def sample_weights(self, n_samples, memory, draws, steps):
        drawn, memory = super().sample_weights(n_samples, memory, draws, steps)
        root = np.sqrt(2 * self.amplification - 1)
        if self.change == "l":
            root = np.sqrt(self.amplification)
        if self.change == "none":  # an average of two minibatches
            root = 0.0
        shares = np.repeat([(1 + root) / (2 * B), (1 - root) / (2 * B)], B)
        return SampleWeights(torch.as_tensor(shares).expand(drawn.coefficients.shape), drawn.indices), memory


@pytest.mark.parametrize("change", ["l", "none"])
def test_other_weights_of_the_two_minibatches_converge_to_another_equation(change):
    def make(n):
        return Process(LANDSCAPE, Mutant(B, n, change=change), ALPHA, time_step=ALPHA / n)

    truth = overdamped(2)
    measured = order_of(lambda n: error_of(make, n, 2, truth), DIVISIONS)
    with pytest.raises(AssertionError, match="order"):
        assert_order(measured, 1.0)
    # At full weight the mutant is the source.
    same = Process(LANDSCAPE, Mutant(B, 4), ALPHA, time_step=ALPHA / 4)
    np.testing.assert_array_equal(moments_of_run(same, 4), moments_of_run(RUNS["svag"](4), 4))


@pytest.mark.parametrize("wrong", [0.9, 1.1])
def test_convergence_to_the_equation_of_another_learning_rate_is_noticed(wrong):
    truth = overdamped(2, wrong * ALPHA)
    measured = order_of(lambda n: error_of(RUNS["svag"], n, 2, truth), DIVISIONS)
    with pytest.raises(AssertionError, match="order"):
        assert_order(measured, 1.0)


def test_scaled_svag_converges_to_the_equation_of_another_temperature():
    """κ C at α is the noise of C at κα."""

    def make(n):
        return Process(LANDSCAPE, ScaledNoise(SVAG(B, n), 0.5), ALPHA, time_step=ALPHA / n)

    truth = overdamped(4, 0.5 * ALPHA)
    assert_order(order_of(lambda n: error_of(make, n, 4, truth), DIVISIONS), 1.0)
