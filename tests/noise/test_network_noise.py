"""Noise on networks beyond its one-step moments: scaling, SVAG's clock, what refreshed sources hold, widths and tails."""

from __future__ import annotations

import pickle
from copy import deepcopy
from math import pi

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn

from langevin_nn import NetworkLandscape, Process, advance, frozen_langevin, sgd, simulate, svag
from langevin_nn.draws import draws_at
from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients.streamed import StreamedSampleGradients
from langevin_nn.landscape import LinearRegressionLandscape, QuadraticLandscape
from langevin_nn.noise import (
    SVAG,
    ColouredNoise,
    DiagonalNoise,
    IsotropicNoise,
    LowRankNoise,
    MatchedDiagonal,
    MatchedGaussian,
    MatchedStable,
    ScaledNoise,
    ShuffledMinibatches,
    Silent,
    StableNoise,
    StateDependentNoise,
    ThermalNoise,
)
from langevin_nn.noise.stable import stable_numbers, upper_quartile
from langevin_nn.observables import DrivingNoise, Losses
from langevin_nn.schedules import EverySteps
from langevin_nn.seeds import Key, Seeds
from langevin_nn.update import EulerMaruyama, Plain

pytestmark = pytest.mark.usefixtures("one_thread")

N, B, ALPHA = 60, 10, 0.1
FACTOR = (N - B) / (N - 1) / B


def advanced(process: Process, steps: int = 7, replicas: int = 2) -> torch.Tensor:
    return advance(process, process.start(replicas, 3), steps).weights


def covariance_at(landscape, weights: torch.Tensor) -> np.ndarray:
    """C from the gradient of each sample's own loss."""
    everyone = torch.eye(N, dtype=landscape.dtype)
    gradients = landscape.weighted_gradient(weights.expand(N, -1), everyone).double().numpy()
    centred = gradients - gradients.mean(0)
    return FACTOR * centred.T @ centred / N


# --- Scaled -------------------------------------------------------------------------------------------------------------

SCALED = {
    "shuffled": ShuffledMinibatches(B),
    "matched": MatchedGaussian(B),
    "isotropic": IsotropicNoise(B, 3),
    "low rank": LowRankNoise(B, 3, 3),
    "stable": StableNoise(0.01, 1.5),
}


@pytest.mark.parametrize("name", SCALED)
def test_temperature_one_is_the_source_and_zero_is_gradient_descent(digits, name):
    source = SCALED[name]
    one, plain = (advanced(Process(digits, noise, ALPHA)) for noise in (ScaledNoise(source, 1), source))
    # Plain minibatches run in a kernel of their own.
    tolerance = 1e-5 if name == "shuffled" else 0.0
    torch.testing.assert_close(one, plain, rtol=tolerance, atol=tolerance)
    none, silent = (advanced(Process(digits, noise, ALPHA)) for noise in (ScaledNoise(source, 0), Silent()))
    torch.testing.assert_close(none, silent, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SCALED)
def test_a_scaled_kick_is_the_root_of_the_temperature_times_the_same_kick(digits, name):
    """Stable noise, too, whose scale it is."""
    source = SCALED[name]
    weights = digits.initial_weights((0, 1), Seeds(0))
    mean = digits.gradient(weights)
    kicks = []
    for noise in (source, ScaledNoise(source, 6.25), ScaledNoise(ScaledNoise(source, 2.5), 2.5)):
        process = Process(digits, noise, ALPHA)
        state = process.start(2, 0, weights)
        kicks.append(process.stochastic_gradient(state.weights, state.noise_memory, state.key(0))[0] - mean)
    for scaled in kicks[1:]:
        torch.testing.assert_close(scaled, 2.5 * kicks[0], rtol=1e-3, atol=1e-5)


def own(x, out):
    for i in range(x.shape[0]):
        out[i] = 0.5 + 0.3 * np.sin(x[i])


COMPILED = {
    "constant": DiagonalNoise([0.3, 0.4]),
    "thermal": ThermalNoise(0.2),
    "state-dependent": StateDependentNoise(own),
    "stable": StableNoise(0.1, 1.5),
    "coloured": ColouredNoise(0.4, 0.05),
}


@pytest.mark.parametrize("name", COMPILED)
def test_scaled_noise_gives_the_same_path_in_python_and_in_the_compiled_integrator(name):
    valley = QuadraticLandscape(np.diag([1.0, 3.0]), np.zeros((2, 2)), start=[1.0, -1.0])
    noise = ScaledNoise(COMPILED[name], 2.5)
    compiled, plain, cold = (
        advanced(Process(valley, each, ALPHA, update=update, time_step=0.04))
        for each, update in ((noise, EulerMaruyama()), (noise, Plain()), (COMPILED[name], EulerMaruyama()))
    )
    torch.testing.assert_close(compiled, plain, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(compiled, cold, rtol=1e-3)


def test_the_weights_of_svag_at_its_largest_amplification_keep_the_mean_gradient():
    """In single precision their rounding scales the drift by less than 10⁻⁴."""
    draws = draws_at(Key(Seeds(1), (0,), 0), torch.zeros(1, 1, dtype=torch.float64))
    drawn, _ = SVAG(3, 2**20).sample_weights(4, None, draws, 1)
    assert abs(float(drawn.coefficients.float().double().sum()) - 1) < 1e-4


def test_scaled_noise_can_be_copied_pickled_and_compared():
    for source in SCALED.values():
        scaled = ScaledNoise(source, 2.0)
        assert type(deepcopy(scaled)) is type(pickle.loads(pickle.dumps(scaled))) is type(scaled)
        assert isinstance(scaled, ScaledNoise)
        assert scaled.family == source.family
        assert (scaled.law, scaled.batch_size) == (source.law, source.batch_size)
    assert ScaledNoise(MatchedGaussian(B), 2) == ScaledNoise(MatchedGaussian(B), 2.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScaledNoise("hot", 1.0), "noise is of type str: expected an instance of a noise source"),
        (lambda: ScaledNoise(Silent(), -1.0), "temperature=-1.0: expected a finite number κ ≥ 0"),
        (lambda: SVAG(B, 0), "amplification=0: expected a whole number l"),
        (lambda: SVAG(B, 1.5), "amplification=1.5: expected a whole number l"),
        (lambda: SVAG(B, 2**20 + 1), "amplification=1048577: expected a whole number l .* from 1 to 1,048,576"),
        (lambda: LowRankNoise(B, 0), "rank=0: expected a whole number"),
        (lambda: LowRankNoise(B, 2, remainder="some"), "remainder"),
        (lambda: LowRankNoise(B, 2, 0), "refresh_every=0: expected at least 1"),
        (lambda: MatchedDiagonal(B, 0), "refresh_every=0: expected at least 1"),
        (lambda: MatchedStable(B, 2.1), "index=2.1: expected a number from 0.5 to 2"),
        (lambda: MatchedStable(B, 0.4), "index=0.4: expected a number from 0.5 to 2"),
        (lambda: MatchedStable(B, 1.5, 0), "refresh_every=0: expected at least 1"),
    ],
)
def test_what_is_no_such_source_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


# --- SVAG ---------------------------------------------------------------------------------------------------------------


def test_svag_of_amplification_one_is_sgd_with_independent_minibatches(digits):
    one, other = advanced(svag(digits, ALPHA, B, 1)), advanced(sgd(digits, ALPHA, B, independent=True))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_svag_counts_time_and_epochs_as_sgd_does(digits):
    for amplification in (1, 4):
        process = svag(digits, ALPHA, B, amplification)
        run = simulate(process, epochs=2, replicas=2, observables=[Losses(), DrivingNoise()], progress=False)
        assert process.name == "svag"
        assert run.step[-1] == 2 * amplification * N // B
        assert float(run.epoch[-1]) == pytest.approx(2)
        assert float(run.time[-1]) == pytest.approx(2 * N / B * ALPHA)
        # The noise that drives it is that of the equation, C, whatever the amplification.
        start = digits.initial_weights((0,), Seeds(0))[0]
        assert float(run.driving_noise_strength[0, 0]) == pytest.approx(
            np.trace(covariance_at(digits, start)), rel=1e-4
        )


@pytest.mark.parametrize("noise", [SVAG(B, 4), ScaledNoise(SVAG(B, 4), 2)])
@pytest.mark.parametrize("time_step", [0.0, ALPHA / 3, ALPHA / 5])
def test_svag_at_another_time_step_is_refused(digits, noise, time_step):
    with pytest.raises(
        ConfigurationError, match=r"with SVAG of amplification 4: expected 0.025 = learning_rate/amplif"
    ):
        Process(digits, noise, ALPHA, time_step=time_step)


def test_the_two_minibatches_of_svag_are_independent_and_weighted_as_in_the_paper():
    replicas = 4000
    draws = draws_at(Key(Seeds(1), tuple(range(replicas)), 0), torch.zeros(1, 1, dtype=torch.float64))
    drawn = SVAG(1, 5).sample_weights(4, None, draws, 1)[0].at(0)
    assert drawn.coefficients[0].tolist() == [(1 + 3) / 2, (1 - 3) / 2]
    counts = np.zeros((4, 4))
    np.add.at(counts, tuple(drawn.indices.numpy().T), 1)
    assert ((counts - replicas / 16) ** 2 / (replicas / 16)).sum() < 37.7  # χ² of 15 degrees: passed once in 1,000


# --- Refreshed sources --------------------------------------------------------------------------------------------------


def test_low_rank_noise_holds_the_leading_modes_and_says_what_it_lost(digits):
    weights = digits.initial_weights((0, 1), Seeds(0))
    memory = LowRankNoise(B, 4).start(digits, weights)
    assert memory.factor.shape == (2, digits.n_parameters, 4)
    for factor, lost, row in zip(memory.factor, memory.lost_trace, weights, strict=True):
        values, vectors = np.linalg.eigh(covariance_at(digits, row))
        kept = (vectors[:, -4:] * values[-4:]) @ vectors[:, -4:].T
        np.testing.assert_allclose(factor @ factor.T, kept, atol=2e-3 * values[-1])
        assert float(lost) == pytest.approx(values[:-4].sum(), rel=1e-4)


REFRESHED = {
    "isotropic": IsotropicNoise(B, 3),
    "low rank": LowRankNoise(B, 3, 3),
    "low rank alone": LowRankNoise(B, 3, 3, "none"),
    "diagonal": MatchedDiagonal(B, 3),
    "stable": MatchedStable(B, 1.5, 3),
}


@pytest.mark.parametrize("name", REFRESHED)
def test_noise_is_frozen_between_refreshes_and_renewed_at_them(digits, name):
    """With the numbers of one step drawn again, increments change where the memory does, every third update."""
    noise, changed = REFRESHED[name], []
    weights = digits.initial_weights((0,), Seeds(0))
    memory = noise.start(digits, weights)
    fixed = Key(Seeds(0), (0,), 1)
    before = noise.drawn(memory, weights, fixed)
    for step in range(8):
        moved = weights * (1 + 0.05 * step)
        _, memory = noise.increment(digits, moved, memory, Key(Seeds(0), (0,), step))
        assert memory.step == step - step % 3
        after = noise.drawn(memory, moved, fixed)
        changed.append(not torch.equal(after, before))
        before = after
    assert changed == [False, False, False, True, False, False, True, False]


@pytest.mark.parametrize("name", ["low rank", "low rank alone", "diagonal"])
def test_refreshed_noise_vanishes_where_the_minibatch_is_the_whole_set(digits, name):
    noise = {"low rank": LowRankNoise(N, 3), "low rank alone": LowRankNoise(N, 3, None, "none")}.get(
        name, MatchedDiagonal(N)
    )
    one, other = (advanced(Process(digits, each, ALPHA)) for each in (noise, Silent()))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_more_directions_than_there_are_give_all_of_the_covariance():
    """Two weights, rank 7: nothing is lost, and nothing is left to spread."""
    generator = np.random.default_rng(0)
    landscape = LinearRegressionLandscape(generator.standard_normal((20, 2)), generator.standard_normal(20))
    noise = LowRankNoise(4, 7)
    point = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    memory = noise.start(landscape, point)
    factor = memory.factor[0].numpy()
    np.testing.assert_allclose(factor @ factor.T, landscape.noise_covariance(point[0].numpy(), 4), rtol=1e-6)
    assert float(memory.lost_trace) == pytest.approx(0, abs=1e-9)
    assert bool(torch.isfinite(noise.drawn(memory, point, Key(Seeds(0), (0,), 0))).all())


def test_frozen_langevin_is_low_rank_noise_that_may_be_frozen_for_good(digits):
    process = frozen_langevin(digits, ALPHA, B, 3, refresh_every=10**6, time_step=ALPHA / 2)
    assert (process.name, process.noise) == ("frozen_langevin", LowRankNoise(B, 3, 10**6))
    state = advance(process, process.start(2, 0), 30)
    assert state.noise_memory.step == 0
    assert process.epochs_per_step == pytest.approx(B / N / 2)


CONVOLUTIONAL = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))


@pytest.mark.parametrize("kind", ["linear layers", "convolutions", "streamed", "stored"])
def test_variances_of_components_are_those_of_the_sample_gradients(digits, kind):
    landscape = digits
    if kind == "convolutions":
        landscape = NetworkLandscape(CONVOLUTIONAL, digits.inputs, digits.labels[0])
    weights = landscape.initial_weights((0,), Seeds(0))[0]
    gradients = landscape.sample_gradients(weights, everywhere=True)
    if kind == "streamed":
        source = landscape._source(weights, 0, tuple(gradients.paths), landscape._layers[0])
        gradients = StreamedSampleGradients(source, 25, 40, 2**20)
    if kind == "stored":
        gradients = type(gradients).from_matrix(gradients.dense())
    dense = landscape.sample_gradients(weights, everywhere=True).dense()
    expected = dense.var(0, correction=0)
    torch.testing.assert_close(gradients.variances(), expected, rtol=1e-9, atol=1e-12 * float(expected.max()))
    assert float(gradients.variances().sum()) == pytest.approx(float(gradients.trace()))


# --- Heavy tails --------------------------------------------------------------------------------------------------------


def distribution(x: float, index: float) -> float:
    """F(x) by Fourier inversion of exp(−|k|^index)."""
    integral = quad(lambda k: np.exp(-(k**index)) / k, 1e-9, 60 ** (1 / index), weight="sin", wvar=x, limit=2000)[0]
    return 0.5 + (integral + 1e-9 * x) / pi


@pytest.mark.parametrize("index", [0.8, 1.0, 1.3, 1.7, 2.0])
def test_the_quartile_of_a_stable_law_is_that_of_its_characteristic_function(index):
    assert distribution(upper_quartile(index), index) == pytest.approx(0.75, abs=1e-5)


@pytest.mark.parametrize("index", [1.2, 1.6, 2.0])
def test_the_middle_half_of_stable_noise_is_as_wide_as_that_of_the_gaussian(digits, index):
    """Each component over its √C_ii, pooled: a quarter lies beyond the Gaussian quartile on either side."""
    weights = digits.initial_weights(tuple(range(2)), Seeds(0))
    noise = MatchedStable(B, index)
    memory = noise.start(digits, weights)
    variances = np.array([np.diag(covariance_at(digits, row)) for row in weights])
    numbers = []
    for step in range(40):
        kicks = noise.drawn(memory, weights, Key(Seeds(2), (0, 1), step)).numpy()
        numbers.append((kicks / np.sqrt(np.where(variances > 1e-12, variances, np.inf)))[variances > 1e-12])
    pooled = np.concatenate(numbers)
    quartile, error = 0.6744897501960817, 4.5 * (0.25 * 0.75 / pooled.size) ** 0.5
    assert abs((pooled > quartile).mean() - 0.25) < error
    assert abs((pooled < -quartile).mean() - 0.25) < error
    assert abs((pooled > 1.1 * quartile).mean() - 0.25) > error  # mutated twin: a tenth too narrow
    # Beyond, they are heavier: P(|ζ| > x) ~ C x^(−index), against 6e-5 of a Gaussian at four deviations.
    far = (np.abs(pooled) > 4).mean()
    assert (far > 0.01) == (index < 2)


def test_increments_of_stable_noise_scale_as_a_stable_process_does(digits):
    index = 1.5
    weights = digits.initial_weights((0,), Seeds(0))
    kicks = []
    for time_step in (ALPHA, ALPHA / 8):
        process = Process(digits, MatchedStable(B, index), ALPHA, time_step=time_step)
        state = process.start(1, 0, weights)
        gradient, _ = process.stochastic_gradient(state.weights, state.noise_memory, state.key(0))
        kicks.append(time_step * (gradient - digits.gradient(weights)))
    # The noise falls by 8^(1/index) = 4, not by the √8 of Brownian motion.
    torch.testing.assert_close(kicks[1] * 4, kicks[0], rtol=1e-2, atol=1e-6)


def test_the_strength_of_stable_noise_is_infinite_and_recorded_as_such(digits):
    process = Process(digits, MatchedStable(B, 1.8), ALPHA)
    run = simulate(process, steps=2, replicas=2, observables=DrivingNoise(EverySteps(1)), progress=False)
    assert bool(np.isinf(run.driving_noise_strength).all())


@pytest.mark.parametrize("index", [0.8, 1.0, 1.5, 2.0])
def test_stable_numbers_have_the_characteristic_function_of_their_index(index):
    """At four wave numbers: 4.5 standard errors of a hundred thousand draws."""
    n = 100_000
    numbers = stable_numbers(np.random.default_rng(3).standard_normal((n, 2)), index)[:, 0]
    for k in (0.2, 0.7, 1.3, 2.5):
        waves = np.cos(k * numbers)
        assert abs(waves.mean() - np.exp(-(k**index))) < 4.5 * waves.std() / n**0.5
    waves = np.cos(0.2 * numbers)  # mutated twin: another index
    assert abs(waves.mean() - np.exp(-(0.2 ** (index - 0.1)))) > 4.5 * waves.std() / n**0.5
