"""Noise sources: mean and covariance of one stochastic gradient against a slow loop over samples, and their memory.

The right-hand sides come from one float64 backward pass a sample; the draws from thousands of replicas held at the same
weights. Tolerances are `SIGMAS` standard errors of the planned number of draws; each check has mutants that must fail it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import digits_landscape
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from langevin_nn import (
    SVAG,
    AnisotropicNoise,
    IndependentMinibatches,
    IsotropicNoise,
    LowRankNoise,
    MatchedDiagonal,
    MatchedGaussian,
    MatchedStable,
    Noise,
    Process,
    QuadraticLandscape,
    ScaledNoise,
    Seeds,
    ShuffledMinibatches,
    Silent,
    advance,
)
from langevin_nn.draws import draws_at
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import EmpiricalLandscape
from langevin_nn.noise import AdditiveNoise, RefreshedNoise, SampleWeightNoise, SampleWeights
from langevin_nn.seeds import Key
from langevin_nn.threads import single_threaded_products
from models.networks import multilayer_perceptron

N, B, WIDTHS = 60, 10, (64, 5, 10)
P = 65 * 5 + 6 * 10
REPLICAS = 3000
# About 150 comparisons in this file: a deviation beyond 4.5 standard errors in any of them has probability 0.001.
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
    """∇ℓ_k of every sample in float64, one backward pass each, shape (sample, parameter)."""
    with torch.random.fork_rng(devices=[]):
        module = multilayer_perceptron(WIDTHS).double()
    nn.utils.vector_to_parameters(weights.double(), module.parameters())
    rows = []
    for x, label in zip(landscape.inputs.double(), landscape.labels[0], strict=True):
        loss = nn.functional.cross_entropy(module(x[None]), label[None])
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        rows.append(torch.cat([each.flatten() for each in gradients]))
    return torch.stack(rows).numpy()


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


def assert_moments(point: Point, drawn: np.ndarray, covariance: np.ndarray) -> None:
    """Independent draws, shape (draw, parameter), have mean ḡ and the given covariance."""
    n = len(drawn)
    deviations = drawn - point.mean
    trace, squared_trace = np.trace(covariance), np.square(covariance).sum()
    rounding = 1e-6 * np.linalg.norm(point.mean)
    along = deviations @ point.directions.T
    variance = np.einsum("di,ij,dj->d", point.directions, covariance, point.directions)
    assert np.all(np.abs(along.mean(0)) <= SIGMAS * np.sqrt(variance / n) + rounding), "mean along a direction"
    bias = np.square(deviations.mean(0)).sum()
    assert bias <= trace / n + SIGMAS * np.sqrt(2 * squared_trace) / n + rounding**2, "mean"
    for squares, expected, name in (
        (np.square(deviations).sum(1), trace, "trace"),
        *((np.square(column), value, "variance") for column, value in zip(along.T, variance, strict=True)),
    ):
        error = squares.std() / np.sqrt(n)
        assert abs(squares.mean() - expected) <= SIGMAS * error + rounding**2, f"{name} of the noise"


class Source(NamedTuple):
    """One row of the table: a source, its covariance given Σ, and how it is drawn cheaply."""

    noise: Noise
    covariance: Callable[[np.ndarray], np.ndarray]
    replicas: int = REPLICAS
    steps: int = 1
    memory: bool = False
    time_step: float = 0.0  # α unless said

    def draws(self, point: Point, noise: Noise | None = None) -> np.ndarray:
        """Its stochastic gradients, or those of a mutant, shape (draw, parameter)."""
        drawn = draw(point, noise or self.noise, self.replicas, self.steps, time_step=self.time_step)
        return drawn.reshape(-1, drawn.shape[-1])


def _leading(sigma: np.ndarray, rank: int, spread: bool) -> np.ndarray:
    """C cut to its leading modes, and what is lost spread over the other directions."""
    values, vectors = np.linalg.eigh(WITHOUT_REPLACEMENT / B * sigma)
    kept = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T
    others = vectors[:, :-rank] @ vectors[:, :-rank].T
    return kept + spread * values[:-rank].sum() / (len(sigma) - rank) * others


def _isotropic(sigma: np.ndarray) -> np.ndarray:
    return WITHOUT_REPLACEMENT / B * np.trace(sigma) / len(sigma) * np.eye(len(sigma))


SOURCES = {
    "shuffled": Source(ShuffledMinibatches(B), lambda s: WITHOUT_REPLACEMENT / B * s, memory=True),
    "independent": Source(IndependentMinibatches(B), lambda s: WITHOUT_REPLACEMENT / B * s),
    "replacement": Source(IndependentMinibatches(B, replacement=True), lambda s: s / B),
    "matched": Source(MatchedGaussian(B), lambda s: WITHOUT_REPLACEMENT / B * s),
    "matched_replacement": Source(MatchedGaussian(B, replacement=True), lambda s: s / B),
    # The trace is measured sample by sample, so few replicas make many steps.
    "isotropic": Source(IsotropicNoise(B, refresh_every=1000), _isotropic, replicas=20, steps=150),
    "low_rank": Source(
        LowRankNoise(B, 5, refresh_every=1000, remainder="none"),
        lambda s: _leading(s, 5, False),
        replicas=6,
        steps=500,
    ),
    "low_rank_and_isotropic": Source(
        LowRankNoise(B, 5, refresh_every=1000), lambda s: _leading(s, 5, True), replicas=6, steps=500
    ),
    "diagonal": Source(
        MatchedDiagonal(B, refresh_every=1000),
        lambda s: WITHOUT_REPLACEMENT / B * np.diag(np.diag(s)),
        replicas=6,
        steps=500,
    ),
    # At index 2 only is there a covariance; the width at other indices is measured below.
    "stable": Source(
        MatchedStable(B, 2, refresh_every=1000),
        lambda s: WITHOUT_REPLACEMENT / B * np.diag(np.diag(s)),
        replicas=6,
        steps=500,
    ),
    "scaled": Source(ScaledNoise(IndependentMinibatches(B), 2.5), lambda s: 2.5 * WITHOUT_REPLACEMENT / B * s),
    "scaled_isotropic": Source(
        ScaledNoise(IsotropicNoise(B, 1000), 0.4), lambda s: 0.4 * _isotropic(s), replicas=6, steps=500
    ),
    "svag": Source(SVAG(B, 3), lambda s: 3 * WITHOUT_REPLACEMENT / B * s, time_step=0.1 / 3),
    "svag_replacement": Source(SVAG(B, 3, replacement=True), lambda s: 3 * s / B, time_step=0.1 / 3),
    "scaled_svag": Source(ScaledNoise(SVAG(B, 2), 0.5), lambda s: WITHOUT_REPLACEMENT / B * s, time_step=0.1 / 2),
    "silent": Source(Silent(), np.zeros_like, replicas=3),
    "anisotropic": Source(AnisotropicNoise(FACTOR), lambda s: (FACTOR @ FACTOR.T).numpy()),
}
WHITE = [name for name, source in SOURCES.items() if not source.memory and name != "silent"]


@dataclass(frozen=True, eq=False)
class MutatedWeights(SampleWeightNoise):
    """Sample weights of another source, altered by `change(c, N)`."""

    inner: Any
    change: Callable[[torch.Tensor, int], torch.Tensor]

    @property
    def time_step_exponent(self):
        return self.inner.time_step_exponent

    def start(self, landscape, weights):
        return self.inner.start(landscape, weights)

    def sample_weights(self, n_samples, memory, draws, steps):
        drawn, memory = self.inner.sample_weights(n_samples, memory, draws, steps)
        return SampleWeights(self.change(drawn.spread(n_samples), n_samples)), memory


@dataclass(frozen=True, eq=False)
class MutatedIncrement(AdditiveNoise):
    """The increments of another source, altered by `change(η)`."""

    inner: Any
    change: Callable[[torch.Tensor], torch.Tensor]

    @property
    def time_step_exponent(self):
        return self.inner.time_step_exponent

    def start(self, landscape, weights):
        return self.inner.start(landscape, weights)

    def increment(self, landscape, weights, memory, key):
        noise, memory = self.inner.increment(landscape, weights, memory, key)
        return self.change(noise), memory

    def strength(self, memory, landscape, weights, sample_trace):
        raise NotImplementedError


@dataclass(frozen=True)
class UncenteredGaussian(SampleWeightNoise):
    """The matched Gaussian with the subtraction of ξ̄ forgotten."""

    def sample_weights(self, n_samples, memory, draws, steps):
        scale = (WITHOUT_REPLACEMENT / B / N) ** 0.5
        return SampleWeights(1 / N + scale * draws.normals("sample weights", N, steps)), memory


def louder(noise: Noise, factor: float = 1.05) -> Noise:
    if noise.family == "additive":
        return MutatedIncrement(noise, lambda eta: factor * eta)
    return MutatedWeights(noise, lambda c, n: 1 / n + factor * (c - 1 / n))


def flipped(noise: Noise) -> Noise:
    """The sign of the weights, or of the noise and with it an offset, is wrong."""
    if noise.family == "additive":
        return MutatedIncrement(noise, lambda eta: eta + 0.1 * eta.abs())
    return MutatedWeights(noise, lambda c, n: -c)


@pytest.mark.parametrize("name", SOURCES)
def test_stochastic_gradient_has_the_mean_and_covariance_that_the_source_declares(point, name):
    source = SOURCES[name]
    assert_moments(point, source.draws(point), source.covariance(point.covariance))


@pytest.mark.parametrize("position", [1, N // B - 1])
def test_every_minibatch_of_a_shuffled_epoch_has_the_same_law_as_the_first(point, position):
    drawn = draw(point, ShuffledMinibatches(B), REPLICAS, position + 1)[:, position]
    assert_moments(point, drawn, WITHOUT_REPLACEMENT / B * point.covariance)


@pytest.mark.parametrize("mutate", [louder, flipped])
@pytest.mark.parametrize("name", [name for name in SOURCES if name != "silent"])
def test_noise_five_percent_too_loud_or_of_the_wrong_sign_is_noticed(point, name, mutate):
    source = SOURCES[name]
    drawn = source.draws(point, mutate(source.noise))
    with pytest.raises(AssertionError, match=r"mean|of the noise"):
        assert_moments(point, drawn, source.covariance(point.covariance))


@pytest.mark.parametrize(
    ("expected", "twin"),
    [
        ("independent", IndependentMinibatches(B, replacement=True)),
        ("replacement", IndependentMinibatches(B)),
        ("shuffled", IndependentMinibatches(B, replacement=True)),
        ("matched", MatchedGaussian(B, replacement=True)),
        ("matched_replacement", MatchedGaussian(B)),
        ("matched", UncenteredGaussian()),
        ("matched", MatchedGaussian(B + 1)),
        ("isotropic", AnisotropicNoise(FACTOR)),
        ("low_rank", LowRankNoise(B, 6, 1000, "none")),
        ("low_rank", LowRankNoise(B, 5, 1000)),
        ("low_rank_and_isotropic", LowRankNoise(B, 20, 1000)),
        ("diagonal", IsotropicNoise(B, 1000)),
        ("stable", MatchedStable(B, 1.8, 1000)),
        ("scaled", ScaledNoise(IndependentMinibatches(B), 2.5**2)),
        ("silent", IndependentMinibatches(N - 1)),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_source_with_another_factor_f_or_without_centring_is_noticed(point, expected, twin):
    # What is measured at the start of each replica is drawn from as the source of the table is.
    source = SOURCES[expected] if isinstance(twin, RefreshedNoise) else Source(twin, np.zeros_like)
    with pytest.raises(AssertionError, match=r"mean|of the noise"):
        assert_moments(point, source.draws(point, twin), SOURCES[expected].covariance(point.covariance))


def test_isotropic_and_matched_noise_of_equal_trace_are_told_apart(point):
    """The projections, not the trace, see where the noise points."""
    drawn = draw(point, MatchedGaussian(B), REPLICAS, 1)[:, 0]
    with pytest.raises(AssertionError, match=r"along a direction|variance of the noise"):
        assert_moments(point, drawn, _isotropic(point.covariance))


@pytest.mark.parametrize("name", SOURCES)
def test_declared_strength_is_the_trace_of_the_covariance(point, name):
    source = SOURCES[name]
    process = Process(point.landscape, source.noise, learning_rate=0.1, time_step=source.time_step)
    state = advance(process, process.start(2, 0, point.weights.expand(2, -1)), 1)
    trace = torch.full((2,), np.trace(point.covariance))
    strength = source.noise.strength(state.noise_memory, point.landscape, state.weights, trace)
    expected = np.trace(source.covariance(point.covariance))
    np.testing.assert_allclose(np.broadcast_to(strength.numpy(), 2), expected, rtol=1e-5)
    # And what is recorded is that of noise which moves the weights by √(αΔt) η.
    recorded = expected * source.noise.strength_ratio(0.1)
    np.testing.assert_allclose(0.1 * recorded, expected * process.time_step, rtol=1e-5)


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


@pytest.fixture(scope="module")
def shuffled(point) -> np.ndarray:
    """Many replicas over one epoch and the first minibatch of the next."""
    return draw(point, ShuffledMinibatches(B), REPLICAS, N // B + 1)


@pytest.mark.parametrize("position", [0, 2, 4])
def test_two_minibatches_of_a_shuffled_epoch_covary_as_minus_c_times_b_over_n_minus_b(point, shuffled, position):
    expected = -WITHOUT_REPLACEMENT / B * B / (N - B)
    assert_lagged(point, shuffled[:, position], shuffled[:, position + 1], expected)


def test_first_and_last_minibatch_of_a_shuffled_epoch_covary_as_neighbours_do(point, shuffled):
    assert_lagged(point, shuffled[:, 0], shuffled[:, N // B - 1], -WITHOUT_REPLACEMENT / B * B / (N - B))


def test_shuffled_noise_has_no_memory_across_epochs(point, shuffled):
    assert_lagged(point, shuffled[:, N // B - 1], shuffled[:, N // B], 0.0)


@pytest.mark.parametrize("name", WHITE)
def test_noise_without_memory_is_uncorrelated_from_step_to_step(point, name):
    source = SOURCES[name]
    if source.replicas >= 1000:
        drawn = draw(point, source.noise, source.replicas, 2, time_step=source.time_step)
        first, second = drawn[:, 0], drawn[:, 1]
    else:  # pairs (0, 1), (2, 3), … do not share a step
        drawn = draw(point, source.noise, source.replicas, 2 * source.steps, time_step=source.time_step)
        first, second = (drawn[:, k::2].reshape(-1, drawn.shape[-1]) for k in (0, 1))
    assert_lagged(point, first, second, 0.0)


def test_independent_draws_do_not_pass_for_shuffled_ones(point):
    drawn = draw(point, IndependentMinibatches(B), REPLICAS, 2)
    with pytest.raises(AssertionError, match="successive noise"):
        assert_lagged(point, drawn[:, 0], drawn[:, 1], -WITHOUT_REPLACEMENT / B * B / (N - B))


@pytest.mark.parametrize("name", WHITE)
def test_replicas_draw_independent_noise(point, name):
    source = SOURCES[name]
    drawn = draw(point, source.noise, source.replicas, source.steps, time_step=source.time_step)
    first, second = (drawn[k::2].reshape(-1, drawn.shape[-1]) for k in (0, 1))
    assert_lagged(point, first, second, 0.0)


@pytest.mark.parametrize("batch_size", [10, 20, 30, 60])
def test_shuffled_noise_sums_to_zero_over_an_epoch(point, batch_size):
    """At fixed weights, to float32 rounding, where B divides N."""
    drawn = draw(point, ShuffledMinibatches(batch_size), 5, N // batch_size)
    residue = (drawn - point.mean).sum(1)
    np.testing.assert_allclose(residue, 0, atol=2e-6 * np.abs(drawn).max() * N / batch_size)


def test_independent_noise_does_not_sum_to_zero_over_an_epoch(point):
    drawn = draw(point, IndependentMinibatches(B), 5, N // B)
    residue = (drawn - point.mean).sum(1)
    assert np.abs(residue).max() > 0.01 * np.abs(drawn).max()


class Points(EmpiricalLandscape):
    """ℓ_k = ½ (w − k)²: the cheapest average of sample losses."""

    n_parameters, dtype, device = 1, torch.float64, torch.device("cpu")

    def __init__(self, n_samples: int) -> None:
        self.n_samples = n_samples

    def initial_weights(self, replicas, seeds):
        return torch.zeros(len(replicas), 1, dtype=self.dtype)

    def sample_losses(self, weights):
        return 0.5 * (weights - torch.arange(self.n_samples)).square()

    def weighted_gradient(self, weights, coefficients, indices=None):
        rows = torch.arange(self.n_samples) if indices is None else indices
        return (coefficients * (weights - rows)).sum(1, keepdim=True)

    def sample_gradients(self, weights, replica=0, *, everywhere=False):
        raise NotImplementedError

    def hessian_product(self, weights, vectors):
        return vectors


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


def test_shuffled_epoch_order_needs_no_memory_of_earlier_epochs():
    """A run resumed without its memory draws the same minibatches: they are addressed, not consumed."""
    noise, weights = ShuffledMinibatches(6), torch.zeros(2, 1)
    memory = fresh = noise.start(Points(20), weights)
    for step in range(8):
        draws = draws_at(Key(Seeds(0), (0, 1), step), weights)
        kept, memory = noise.sample_weights(20, memory, draws, 1)
        resumed, _ = noise.sample_weights(20, fresh, draws, 1)
        assert torch.equal(kept.indices, resumed.indices)


# --- Matched Gaussian ---------------------------------------------------------------------------------------------------


@given(sizes=SIZES, replacement=st.booleans())
def test_matched_gaussian_coefficients_sum_to_one(sizes, replacement):
    n, size = sizes
    weights = coefficients(MatchedGaussian(size, replacement), n, 3)
    np.testing.assert_allclose(weights.sum(2), 1, atol=3e-6 * n**0.5)


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
    first = Key(Seeds(0), (0,), 0)
    _, memory = noise.increment(
        point.landscape, point.weights[None], noise.start(point.landscape, point.weights[None]), first
    )
    here, there = (
        noise.increment(point.landscape, scale * point.weights[None], memory, Key(Seeds(0), (0,), 1))[0]
        for scale in (1.0, 3.0)
    )
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


def assert_isotropic(point: Point, drawn: np.ndarray) -> None:
    """Equal variance along the leading direction of Σ and along a random one."""
    squares = [np.square((drawn - point.mean) @ v) for v in point.directions[1:3]]
    error = np.hypot(*(each.std() / len(each) ** 0.5 for each in squares))
    assert abs(squares[0].mean() - squares[1].mean()) <= SIGMAS * error, "anisotropic"


def test_isotropic_noise_is_as_strong_along_the_leading_direction_of_c_as_along_any_other(point):
    drawn = draw(point, IsotropicNoise(B, 1000), 20, 150)
    assert_isotropic(point, drawn.reshape(-1, drawn.shape[-1]))


def test_minibatch_noise_is_not_isotropic(point):
    with pytest.raises(AssertionError, match="anisotropic"):
        assert_isotropic(point, draw(point, IndependentMinibatches(B), REPLICAS, 1)[:, 0])


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


def test_drawing_leaves_the_landscape_and_the_weights_alone(point):
    weights = point.weights.clone()
    inputs, labels = deepcopy(point.landscape.inputs), deepcopy(point.landscape.labels)
    for source in SOURCES.values():
        draw(point, source.noise, 2, 2, time_step=source.time_step)
    assert torch.equal(point.weights, weights)
    assert torch.equal(point.landscape.inputs, inputs)
    assert torch.equal(point.landscape.labels, labels)
