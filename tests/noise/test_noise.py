"""Noise sources held to their laws, with covariances from a slow loop over samples; twins that break each law; memory.

The right-hand sides come from one float64 backward pass a sample. Tolerances are `SIGMAS` standard errors of the planned
number of draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from cases import Points, digits_landscape
from hypothesis import given
from hypothesis import strategies as st
from twins import slow_gradients

from langevin_nn import Process, Seeds, noise
from langevin_nn.draws import draws_at
from langevin_nn.ensemble import covariance_factor
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import LinearRegressionLandscape, QuadraticLandscape
from langevin_nn.noise import (
    SVAG,
    AdditiveNoise,
    AnisotropicNoise,
    ColouredNoise,
    DiagonalNoise,
    IndependentMinibatches,
    IsotropicNoise,
    LandscapeNoise,
    LowRankNoise,
    MatchedDiagonal,
    MatchedGaussian,
    MatchedStable,
    Noise,
    PreconditionedThermalNoise,
    SampleWeightNoise,
    SampleWeights,
    ScaledNoise,
    ShuffledMinibatches,
    Silent,
    StableNoise,
    StateDependentNoise,
    ThermalNoise,
)
from langevin_nn.seeds import Key
from langevin_nn.testing import check_noise
from langevin_nn.threads import single_threaded_products
from models.networks import multilayer_perceptron

N, B, WIDTHS = 60, 10, (64, 5, 10)
P = 65 * 5 + 6 * 10
REPLICAS = 3000
SIGMAS = 4.5
WITHOUT_REPLACEMENT = (N - B) / (N - 1)
FACTOR = torch.as_tensor(0.01 * np.random.default_rng(7).standard_normal((P, 3)))  # any fixed matrix


class Point(NamedTuple):
    """A landscape, one point of it, ḡ and Σ there by the slow route, and directions to project on."""

    landscape: Any
    weights: torch.Tensor
    mean: np.ndarray
    covariance: np.ndarray
    directions: np.ndarray


def slow_sample_gradients(landscape, weights: torch.Tensor) -> np.ndarray:
    with torch.random.fork_rng(devices=[]):
        module = multilayer_perceptron(WIDTHS)
    return slow_gradients(module, weights, landscape.inputs, landscape.labels[0]).numpy()


@pytest.fixture(scope="module")
def point() -> Point:
    with torch.random.fork_rng(devices=[]):
        landscape = digits_landscape(N, WIDTHS)
        weights = landscape.initial_weights((0,), Seeds(0))[0]
    gradients = slow_sample_gradients(landscape, weights)
    mean = gradients.mean(0)
    covariance = (gradients - mean).T @ (gradients - mean) / N
    # Unit vectors: the mean gradient, the leading direction of Σ, and four at random.
    random = np.random.default_rng(11).standard_normal((4, P))
    directions = np.vstack([mean, np.linalg.eigh(covariance)[1][:, -1], random])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Point(landscape, weights, mean, covariance, directions)


def draw(point: Point, noise: Noise, replicas: int, steps: int, seed: int = 5, time_step: float = 0.0) -> np.ndarray:
    """Stochastic gradients at fixed weights, shape (replica, step, parameter)."""
    process = Process(point.landscape, noise, learning_rate=0.1, time_step=time_step)
    state = process.start(replicas, seed, point.weights.expand(replicas, -1))
    memory, drawn = state.noise_memory, []
    with single_threaded_products():  # as in a run, and many times faster on a busy machine
        for step in range(steps):
            gradient, memory = process.stochastic_gradient(state.weights, memory, state.key(step))
            drawn.append(gradient.double().numpy())
    return np.stack(drawn, axis=1)


class Source(NamedTuple):
    """One row of the table: a source, its covariance given Σ, and what its check is told."""

    noise: Noise
    covariance: Callable[[np.ndarray], np.ndarray]
    options: Any = MappingProxyType({})


def _leading(sigma: np.ndarray, rank: int, spread: bool) -> np.ndarray:
    """C cut to its leading modes, and what is lost spread over the other directions."""
    values, vectors = np.linalg.eigh(WITHOUT_REPLACEMENT / B * sigma)
    kept = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T
    others = vectors[:, :-rank] @ vectors[:, :-rank].T
    return kept + spread * values[:-rank].sum() / (len(sigma) - rank) * others


def _isotropic(sigma: np.ndarray) -> np.ndarray:
    return WITHOUT_REPLACEMENT / B * np.trace(sigma) / len(sigma) * np.eye(len(sigma))


FEW = {"draws": 1024}  # each replica measures its own gradients at every refresh
SOURCES = {
    "ShuffledMinibatches": Source(ShuffledMinibatches(B), lambda s: WITHOUT_REPLACEMENT / B * s),
    "IndependentMinibatches": Source(IndependentMinibatches(B), lambda s: WITHOUT_REPLACEMENT / B * s),
    "IndependentMinibatches, replacement": Source(IndependentMinibatches(B, replacement=True), lambda s: s / B),
    "MatchedGaussian": Source(MatchedGaussian(B), lambda s: WITHOUT_REPLACEMENT / B * s),
    "MatchedGaussian, replacement": Source(MatchedGaussian(B, replacement=True), lambda s: s / B),
    "IsotropicNoise": Source(IsotropicNoise(B), _isotropic, {"draws": 4096}),
    "LowRankNoise": Source(LowRankNoise(B, 5, remainder="none"), lambda s: _leading(s, 5, False), FEW),
    "LowRankNoise, isotropic": Source(LowRankNoise(B, 5), lambda s: _leading(s, 5, True), FEW),
    "MatchedDiagonal": Source(MatchedDiagonal(B), lambda s: WITHOUT_REPLACEMENT / B * np.diag(np.diag(s)), FEW),
    # At index 2 only is there a covariance; the width at other indices is measured in `test_network_noise`.
    "MatchedStable": Source(MatchedStable(B, 2), lambda s: WITHOUT_REPLACEMENT / B * np.diag(np.diag(s)), FEW),
    "ScaledNoise": Source(ScaledNoise(IndependentMinibatches(B), 2.5), lambda s: 2.5 * WITHOUT_REPLACEMENT / B * s),
    "ScaledNoise, isotropic": Source(ScaledNoise(IsotropicNoise(B), 0.4), lambda s: 0.4 * _isotropic(s), FEW),
    "SVAG": Source(SVAG(B, 3), lambda s: 3 * WITHOUT_REPLACEMENT / B * s, {"time_step": 0.1 / 3}),
    "SVAG, replacement": Source(SVAG(B, 3, replacement=True), lambda s: 3 * s / B, {"time_step": 0.1 / 3}),
    "ScaledNoise, SVAG": Source(
        ScaledNoise(SVAG(B, 2), 0.5), lambda s: WITHOUT_REPLACEMENT / B * s, {"time_step": 0.1 / 2}
    ),
    "SumNoise": Source(
        IndependentMinibatches(B) + ThermalNoise(2.0),
        lambda s: WITHOUT_REPLACEMENT / B * s + 2 * 2.0 / 0.1 * np.eye(len(s)),
    ),
    "Silent": Source(Silent(), np.zeros_like, FEW),
    "AnisotropicNoise": Source(AnisotropicNoise(FACTOR), lambda s: (FACTOR @ FACTOR.T).numpy()),
}


def own(x, out):
    out[0], out[1] = 0.5 + 0.3 * np.sin(x[0]), 0.4 + 0.1 * x[1]


def full(x, out):
    out[0, 0], out[0, 1], out[1, 0], out[1, 1] = 0.5, 0.2 * x[1], 0.1, 0.3 + 0.1 * x[0]


ROOT = np.array([[0.6, 0.0], [0.3, 0.5]])
VALLEY = QuadraticLandscape(np.diag([1.0, 3.0]), ROOT @ ROOT.T, start=[1.0, -1.0])
# Covariance at (1, −1).
OF_A_VALLEY = {
    "AnisotropicNoise": (AnisotropicNoise(ROOT), ROOT @ ROOT.T),
    "ColouredNoise": (ColouredNoise(ROOT, 0.3), ROOT @ ROOT.T),
    "DiagonalNoise": (DiagonalNoise([0.3, 0.5]), np.diag([0.09, 0.25])),
    "LandscapeNoise": (LandscapeNoise(), ROOT @ ROOT.T),
    "PreconditionedThermalNoise": (PreconditionedThermalNoise(0.3, [2.0, 0.5]), np.diag([1.2, 0.3])),
    "StableNoise": (StableNoise(0.1, 1.5), None),
    "StableNoise, Gaussian": (StableNoise(0.1, 2), 0.02 * np.eye(2)),
    "StateDependentNoise": (StateDependentNoise(own), np.diag([0.5 + 0.3 * np.sin(1), 0.3]) ** 2),
    "StateDependentNoise, full": (
        StateDependentNoise(full, rank=2, calculus="stratonovich"),
        np.array([[0.5, -0.2], [0.1, 0.4]]) @ np.array([[0.5, -0.2], [0.1, 0.4]]).T,
    ),
    "ThermalNoise": (ThermalNoise(0.3), 0.6 * np.eye(2)),
    "ScaledNoise": (ScaledNoise(ColouredNoise(ROOT, 0.3), 2), 2 * ROOT @ ROOT.T),
}


def test_every_noise_source_of_the_package_is_held_to_the_laws():
    kinds = {
        name for name in noise.__all__ if isinstance(each := getattr(noise, name), type) and issubclass(each, Noise)
    }
    # Those that others extend, and the two kinds of scaled noise, which nobody names.
    above = {"AdditiveNoise", "FactoredNoise", "Minibatches", "Noise", "RefreshedNoise", "SampleWeightNoise"}
    made = {"ScaledIncrement", "ScaledSampleWeights"}
    # Those of the forward pass, of which the mean, too, is their own, in `test_forward`.
    above |= {"ForwardNoise", "ModuleNoise"}
    made |= {"AugmentationNoise", "BatchStatistics", "DropoutNoise", "LabelSmoothingNoise"}
    assert kinds - above - made == {name.split(",")[0] for name in (*SOURCES, *OF_A_VALLEY)}


@pytest.mark.parametrize("name", SOURCES)
def test_noise_on_a_network_keeps_the_laws_and_has_its_covariance(point, name):
    source = SOURCES[name]
    covariance = source.covariance(point.covariance)
    check_noise(source.noise, point.landscape, weights=point.weights, covariance=covariance, **source.options)


@pytest.mark.parametrize("name", OF_A_VALLEY)
def test_noise_in_a_valley_keeps_the_laws_and_has_its_covariance(name):
    source, covariance = OF_A_VALLEY[name]
    check_noise(source, VALLEY, covariance=covariance)


# --- Twins that break a law ---------------------------------------------------------------------------------------------

LINE = LinearRegressionLandscape(
    np.random.default_rng(3).standard_normal((12, 3)), np.arange(12) % 5 / 2.0, start=[3.0, -2.0, 2.0]
)


@dataclass(frozen=True)
class Own(AdditiveNoise):
    """η = 0.3 ξ, which twins break in one way each."""

    def increment(self, landscape, weights, memory, key):
        return 0.3 * torch.as_tensor(self.numbers(key, weights.shape[1])).to(weights), memory

    def numbers(self, key, size):
        return key.normals("own", size, np.float64)

    def strength(self, memory, landscape, weights, sample_trace):
        return torch.full((1,), 0.09 * weights.shape[1])


def shared(self, key, size):
    return np.stack([key.seeds.generator("own", 0, key.step).standard_normal(size) for _ in key.replicas])


def heavy(self, key, size):
    return np.stack([each.standard_t(5, size) * 0.6**0.5 for each in key.generators("own")])


NUMBERS = Own.numbers
TWINS = {
    "Louder": {"numbers": lambda self, key, size: 1.05 * NUMBERS(self, key, size)},  # by 5 %
    "Biased": {"numbers": lambda self, key, size: (z := NUMBERS(self, key, size)) + 0.1 * np.abs(z)},
    "Shared": {"numbers": shared},
    "Lasting": {"numbers": lambda self, key, size: NUMBERS(self, replace(key, step=key.step // 2), size)},
    "Binary": {"numbers": lambda self, key, size: np.sign(NUMBERS(self, key, size))},
    "Heavy": {"numbers": heavy},  # of the same variance, with five degrees of freedom
    "Drifting": {
        "dependence": lambda self, landscape: "constant",
        "increment": lambda self, landscape, w, memory, key: (
            Own.increment(self, landscape, w, memory, key)[0] * (0.9 + 0.1 * w[:, :1]),
            memory,
        ),
    },
    "Vanishing": {"time_step_exponent": 1.0},  # none of its noise is left in the limit
    "Misread": {"calculus": "klimontovich"},
}


class Global(Own):
    def numbers(self, key, size):
        return np.random.default_rng().standard_normal((len(key.replicas), size))


@dataclass(frozen=True)
class Uncentred(SampleWeightNoise):
    """The matched Gaussian with the subtraction of ξ̄ forgotten."""

    batch_size: int = 3

    def sample_weights(self, n_samples, memory, draws, steps):
        scale = (covariance_factor(n_samples, self.batch_size) / n_samples) ** 0.5
        return SampleWeights(1 / n_samples + scale * draws.normals("sample weights", n_samples, steps)), memory


class OneByOne(IndependentMinibatches):
    """Draws several updates otherwise than each by itself."""

    def minibatches(self, n_samples, memory, draws, steps):
        rows, memory = super().minibatches(n_samples, memory, draws, steps)
        return rows.flip(0), memory


@pytest.mark.parametrize(
    ("each", "landscape", "said"),
    [
        ("Louder", VALLEY, r"the variance \(α Δt strength\) of .*: expected"),
        ("Biased", VALLEY, "a mean along a direction"),
        (Global(), VALLEY, "a replica has other bits"),
        (Global(), VALLEY, "rerun of the file gives other bits"),
        ("Shared", VALLEY, "a covariance between replicas"),
        ("Lasting", VALLEY, "a covariance between successive updates"),
        ("Binary", VALLEY, "a kurtosis of 1:"),
        ("Heavy", VALLEY, "a kurtosis of [6-9]"),
        ("Drifting", VALLEY, "depends on the weights otherwise than 'constant'"),
        ("Vanishing", VALLEY, r"Δt = 0.025, kicks have the variance"),
        ("Misread", VALLEY, "calculus is 'klimontovich': expected ito or stratonovich"),
        (Uncentred(), LINE, r"the variance \(α Δt strength\)"),
        (OneByOne(4), LINE, "of several updates at once are others"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Noise) else str(each)[:24],
)
def test_noise_that_breaks_a_law_is_told_which(each, landscape, said):
    source = type(each, (Own,), TWINS[each])() if isinstance(each, str) else each
    with pytest.raises(AssertionError, match=rf"{type(source).__name__} breaks \d+ laws: .*{said}"):
        check_noise(source, landscape)


def test_a_strangers_noise_keeps_the_laws():
    check_noise(Own(), VALLEY, covariance=0.09 * np.eye(2))


@pytest.mark.parametrize(
    ("twin", "expected"),
    [
        (IndependentMinibatches(4), IndependentMinibatches(4, replacement=True)),
        (MatchedGaussian(4), MatchedGaussian(5)),
        (IsotropicNoise(4), MatchedGaussian(4)),
        (MatchedDiagonal(4), MatchedGaussian(4)),
        (ScaledNoise(MatchedGaussian(4), 2.5**2), ScaledNoise(MatchedGaussian(4), 2.5)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_noise_of_another_covariance_than_is_expected_is_noticed(twin, expected):
    gradients = LINE.sample_gradients(torch.zeros(3, dtype=torch.float64)).dense().numpy()
    size, replacement = expected.batch_size, getattr(expected, "replacement", False)
    factor = covariance_factor(12, size, replacement) * getattr(expected, "temperature", 1)
    with pytest.raises(AssertionError, match="a variance along a direction"):
        check_noise(twin, LINE, weights=np.zeros(3), covariance=factor * np.cov(gradients.T, bias=True), draws=4096)


# --- Memory -----------------------------------------------------------------------------------------------------------


def assert_lagged(point: Point, first: np.ndarray, second: np.ndarray, sigma_factor: float) -> None:
    """⟨η(t) η(t+1)ᵀ⟩ = sigma_factor · Σ: trace and projections, from independent replicas."""
    first, second = first - point.mean, second - point.mean
    pairs = [((first * second).sum(1), np.trace(point.covariance))]
    for v in point.directions:
        pairs.append(((first @ v) * (second @ v), v @ point.covariance @ v))
    for products, unit in pairs:
        error = products.std() / np.sqrt(len(products))
        assert abs(products.mean() - sigma_factor * unit) <= SIGMAS * error, "covariance of successive noise"


def test_minibatches_of_a_shuffled_epoch_covary_as_minus_c_times_b_over_n_minus_b_and_not_across_epochs(point):
    """Neighbours as well as the first and the last; independent draws do not."""
    shuffled = draw(point, ShuffledMinibatches(B), REPLICAS, N // B + 1)
    expected = -WITHOUT_REPLACEMENT / B * B / (N - B)
    for one, other in ((0, 1), (2, 3), (4, 5), (0, N // B - 1)):
        assert_lagged(point, shuffled[:, one], shuffled[:, other], expected)
    assert_lagged(point, shuffled[:, N // B - 1], shuffled[:, N // B], 0.0)
    drawn = draw(point, IndependentMinibatches(B), REPLICAS, 2)
    with pytest.raises(AssertionError, match="successive noise"):
        assert_lagged(point, drawn[:, 0], drawn[:, 1], expected)


@pytest.mark.parametrize("batch_size", [10, 20, 30, 60])
def test_shuffled_noise_sums_to_zero_over_an_epoch(point, batch_size):
    """At fixed weights, to float32 rounding, where B divides N."""
    drawn = draw(point, ShuffledMinibatches(batch_size), 5, N // batch_size)
    residue = (drawn - point.mean).sum(1)
    np.testing.assert_allclose(residue, 0, atol=2e-6 * np.abs(drawn).max() * N / batch_size)
    if batch_size < N:
        drawn = draw(point, IndependentMinibatches(batch_size), 5, N // batch_size)
        assert np.abs((drawn - point.mean).sum(1)).max() > 0.01 * np.abs(drawn).max()


def coefficients(noise: SampleWeightNoise, n_samples: int, steps: int, replicas: int = 2, seed: int = 3) -> np.ndarray:
    """The c_k of several updates, shape (step, replica, sample)."""
    weights = torch.zeros(replicas, 1, dtype=torch.float64)
    memory, drawn = noise.start(Points(n_samples), weights), []
    for step in range(steps):
        draws = draws_at(Key(Seeds(seed), tuple(range(replicas)), step), weights)
        chosen, memory = noise.sample_weights(n_samples, memory, draws, 1)
        drawn.append(chosen.spread(n_samples)[0].numpy())
    return np.stack(drawn)


SIZES = st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(sizes=SIZES, seed=st.integers(-5, 5))
def test_shuffled_epoch_cuts_a_permutation_into_disjoint_minibatches_and_drops_the_remainder(sizes, seed):
    n, size = sizes
    per_epoch = n // size
    weights = coefficients(ShuffledMinibatches(size), n, 2 * per_epoch, seed=seed)
    assert set(np.unique(weights)) <= {0.0, 1 / size}
    np.testing.assert_array_equal((weights > 0).sum(2), size)
    for epoch in (weights[:per_epoch], weights[per_epoch:]):
        used = (epoch > 0).sum(0)
        assert used.max() == 1, "a sample came twice in an epoch"
        np.testing.assert_array_equal(used.sum(1), per_epoch * size)


@given(sizes=SIZES, seed=st.integers(-5, 5))
def test_independent_minibatches_hold_b_samples_distinct_unless_with_replacement(sizes, seed):
    n, size = sizes
    distinct = coefficients(IndependentMinibatches(size), n, 2, seed=seed)
    np.testing.assert_array_equal((distinct > 0).sum(2), size)
    for weights in (distinct, coefficients(IndependentMinibatches(size, replacement=True), n, 2, seed=seed)):
        counts = weights * size
        np.testing.assert_allclose(counts, np.rint(counts), atol=1e-12)
        np.testing.assert_allclose(weights.sum(2), 1, rtol=1e-12)


def test_minibatch_with_replacement_may_be_larger_than_the_data_and_repeats_samples():
    weights = coefficients(IndependentMinibatches(50, replacement=True), 20, 3)
    np.testing.assert_allclose(weights.sum(2), 1, rtol=1e-12)
    assert weights.max() > 1.5 / 50


def test_epochs_are_shuffled_anew_and_differently_in_each_replica():
    weights = coefficients(ShuffledMinibatches(5), 20, 8)
    assert not np.array_equal(weights[0], weights[4]), "the second epoch repeats the first"
    assert not np.array_equal(weights[0, 0], weights[0, 1]), "two replicas share an order"


# --- Matched Gaussian ---------------------------------------------------------------------------------------------------


@given(sizes=SIZES, replacement=st.booleans())
def test_matched_gaussian_coefficients_sum_to_one(sizes, replacement):
    n, size = sizes
    weights = coefficients(MatchedGaussian(size, replacement), n, 3)
    np.testing.assert_allclose(weights.sum(2), 1, atol=3e-6 * n**0.5)


def test_matched_noise_vanishes_where_the_minibatch_is_the_whole_set(point):
    drawn = draw(point, MatchedGaussian(N), 3, 2)
    np.testing.assert_allclose(drawn, np.broadcast_to(point.mean, drawn.shape), atol=1e-6 * np.abs(point.mean).max())


# --- Isotropic ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [1, 3, None])
def test_isotropic_noise_holds_the_trace_between_refreshes_and_remembers_its_age(point, interval):
    """Weights move at every step; the trace follows only every `refresh_every` updates, an epoch unless said."""
    noise = IsotropicNoise(B, interval)
    every = interval or N // B
    memory = noise.start(point.landscape, point.weights[None])
    held = None
    for step in range(2 * every + 1):
        weights = point.weights * (1 + 0.1 * step)
        before = memory
        _, memory = noise.increment(point.landscape, weights[None], memory, Key(Seeds(0), (0,), step))
        assert memory.step == step - step % every
        if step % every == 0:
            gradients = slow_sample_gradients(point.landscape, weights)
            held = WITHOUT_REPLACEMENT / B * np.square(gradients - gradients.mean(0)).sum(1).mean()
        else:
            assert torch.equal(memory.trace, before.trace)
        np.testing.assert_allclose(memory.trace.numpy(), held, rtol=1e-5)
        np.testing.assert_allclose(
            noise.strength(memory, point.landscape, weights[None], None).numpy(), held, rtol=1e-5
        )


def test_isotropic_noise_has_the_amplitude_of_the_trace_it_holds_not_of_the_current_one(point):
    """Moving the weights without a refresh leaves the increments of a step the same to the bit."""
    noise = IsotropicNoise(B, refresh_every=5)
    weights = point.weights[None]
    before = noise.start(point.landscape, weights)
    _, memory = noise.increment(point.landscape, weights, before, Key(Seeds(0), (0,), 0))
    key = Key(Seeds(0), (0,), 1)
    here, there = (noise.increment(point.landscape, scale * weights, memory, key)[0] for scale in (1.0, 3.0))
    assert torch.equal(here, there)


def test_isotropic_noise_measures_the_trace_of_each_replica(point):
    weights = torch.stack([point.weights, 2 * point.weights])
    noise = IsotropicNoise(B)
    key = Key(Seeds(0), (0, 1), 0)
    _, memory = noise.increment(point.landscape, weights, noise.start(point.landscape, weights), key)
    for row, trace in zip(weights, memory.trace, strict=True):
        gradients = slow_sample_gradients(point.landscape, row)
        expected = WITHOUT_REPLACEMENT / B * np.square(gradients - gradients.mean(0)).sum(1).mean()
        assert float(trace) == pytest.approx(expected, rel=1e-5)


def test_isotropic_noise_takes_the_trace_over_all_tensors_though_measurements_are_restricted(point):
    with torch.random.fork_rng(devices=[]):
        restricted = digits_landscape(N, WIDTHS, parameters="2.weight")
    noise = IsotropicNoise(B)
    memory = noise.start(restricted, point.weights[None])
    _, memory = noise.increment(restricted, point.weights[None], memory, Key(Seeds(0), (0,), 0))
    assert float(memory.trace) == pytest.approx(WITHOUT_REPLACEMENT / B * np.trace(point.covariance), rel=1e-5)


@pytest.mark.parametrize("interval", [0, -1])
def test_isotropic_noise_refuses_to_refresh_less_than_every_update(interval):
    with pytest.raises(ConfigurationError, match=f"refresh_every={interval}: expected at least 1"):
        IsotropicNoise(B, interval)


# --- What cannot run ------------------------------------------------------------------------------------------------------

MINIBATCH_SOURCES = {
    "ShuffledMinibatches": ShuffledMinibatches,
    "IndependentMinibatches": IndependentMinibatches,
    "MatchedGaussian": MatchedGaussian,
    "IsotropicNoise": IsotropicNoise,
    "Silent": Silent,
    "SVAG": lambda size: SVAG(size, 1),
    "LowRankNoise": lambda size: LowRankNoise(size, 2),
    "MatchedDiagonal": MatchedDiagonal,
    "MatchedStable": lambda size: MatchedStable(size, 1.5),
    "MatchedGaussian, scaled": lambda size: ScaledNoise(MatchedGaussian(size), 2),
}


@pytest.mark.parametrize("source", MINIBATCH_SOURCES.values(), ids=MINIBATCH_SOURCES)
@pytest.mark.parametrize("batch_size", [N + 1, 0, -3])
def test_batch_larger_than_the_data_or_empty_is_refused(point, source, batch_size):
    expected = rf"batch_size={batch_size} with {N} training samples: expected 1 to {N}"
    with pytest.raises(ConfigurationError, match=expected):
        Process(point.landscape, source(batch_size), learning_rate=0.1)


@pytest.mark.parametrize("name", MINIBATCH_SOURCES)
def test_source_that_needs_samples_is_refused_where_there_are_none(name):
    source = MINIBATCH_SOURCES[name]
    landscape = QuadraticLandscape(np.eye(2), np.eye(2))
    with pytest.raises(
        ConfigurationError, match=f"{name.split(',')[0]} draws minibatches, but QuadraticLandscape has no sam"
    ):
        Process(landscape, source(1), learning_rate=0.1)


@pytest.mark.parametrize("shape", [(2, 2), (3,), (3, 1, 1)])
def test_noise_factor_of_the_wrong_shape_is_refused(shape):
    landscape = QuadraticLandscape(np.eye(3), np.eye(3))
    with pytest.raises(ConfigurationError, match=r"factor has (2 rows|shape \(.*\)): expected"):
        Process(landscape, AnisotropicNoise(torch.ones(shape, dtype=torch.float64)), learning_rate=0.1)


def assert_gaussian(point: Point, drawn: np.ndarray) -> None:
    """Skewness and excess kurtosis of every projection are those of a Gaussian, 0."""
    n = len(drawn)
    for v in point.directions:
        along = (drawn - drawn.mean(0)) @ v
        along = along / along.std()
        assert abs((along**3).mean()) <= SIGMAS * (6 / n) ** 0.5, "skewness"
        assert abs((along**4).mean() - 3) <= SIGMAS * (24 / n) ** 0.5, "kurtosis"


def test_matched_noise_is_gaussian_along_any_direction(point):
    drawn = draw(point, MatchedGaussian(B), REPLICAS, 3)
    assert_gaussian(point, drawn.reshape(-1, drawn.shape[-1]))


@pytest.mark.parametrize("batch_size", [1, B])
def test_minibatch_noise_of_the_same_covariance_is_not_gaussian(point, batch_size):
    drawn = draw(point, IndependentMinibatches(batch_size), REPLICAS, 3)
    with pytest.raises(AssertionError, match=r"skewness|kurtosis"):
        assert_gaussian(point, drawn.reshape(-1, drawn.shape[-1]))
