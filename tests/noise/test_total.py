"""Noise from several sources, and the processes that are made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import digits_landscape
from scipy.linalg import solve_discrete_lyapunov

from langevin_nn import Process, advance, langevin, sgd, simulate
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import LinearRegressionLandscape, QuadraticLandscape
from langevin_nn.noise import (
    AnisotropicNoise,
    DiagonalNoise,
    IndependentMinibatches,
    MatchedGaussian,
    ScaledNoise,
    ShuffledMinibatches,
    StateDependentNoise,
    SumNoise,
    ThermalNoise,
)
from langevin_nn.observables import DrivingNoise, Losses, Weights
from langevin_nn.process import sghmc, sgld
from langevin_nn.schedules import EverySteps
from langevin_nn.testing import check_noise
from langevin_nn.update import BAOAB, Averaged, EulerMaruyama, Momentum, Plain, UnderdampedLangevin


def regression(n: int = 30) -> LinearRegressionLandscape:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(n, 2))
    return LinearRegressionLandscape(inputs, inputs @ [1.0, -2.0] + generator.normal(size=n))


VALLEY = QuadraticLandscape(np.diag([1.0, 0.5]), [[1.0, 0.3], [0.3, 0.5]], start=[1.0, -1.0])


@pytest.mark.parametrize(
    ("noise", "landscape"),
    [
        (IndependentMinibatches(5) + ThermalNoise(0.3), regression()),
        (ShuffledMinibatches(5) + ThermalNoise(0.3), regression()),
        (MatchedGaussian(5) + IndependentMinibatches(5) + ThermalNoise(0.3), regression()),
        (DiagonalNoise([1.0, 2.0]) + AnisotropicNoise(np.eye(2)), VALLEY),
        (ScaledNoise(IndependentMinibatches(5) + ThermalNoise(0.3), 2.0), regression()),
    ],
    ids=lambda each: "",
)
def test_sums_keep_the_laws_of_noise(noise, landscape):
    check_noise(noise, landscape)


def test_covariances_add_and_a_sum_that_draws_the_same_numbers_twice_would_be_noticed():
    one = AnisotropicNoise([[1.0, 0.0], [0.5, 1.0]])
    covariance = one.factor @ one.factor.T
    check_noise(one + one, VALLEY, covariance=2 * covariance)
    check_noise(one + ThermalNoise(0.3), VALLEY, covariance=covariance + 0.6 / 0.1 * np.eye(2))

    class Twice(AnisotropicNoise):
        def increment(self, *arguments):
            found, memory = super().increment(*arguments)
            return 2 * found, memory

        def strength(self, *arguments):
            return 2 * super().strength(*arguments)

    with pytest.raises(AssertionError, match="variance"):
        check_noise(Twice(one.factor), VALLEY)


def test_the_first_source_draws_the_numbers_that_it_draws_alone():
    landscape = digits_landscape()
    alone = sgd(landscape, 0.1, 5)
    together = Process(landscape, ShuffledMinibatches(5) + ThermalNoise(0.0), 0.1)
    states = [advance(each, each.start(2, seed=0), 20) for each in (alone, together)]
    torch.testing.assert_close(states[0].weights, states[1].weights, rtol=1e-4, atol=1e-6)


def test_the_strength_is_the_sum_in_the_file(tmp_path):
    landscape = digits_landscape()
    options = {"steps": 4, "replicas": 2, "schedule": EverySteps(2), "observables": [DrivingNoise(), Losses()]}
    noise, thermal = MatchedGaussian(5), ThermalNoise(0.01)
    start = langevin(landscape, 0.1, 5).start(2, seed=0).weights
    runs = [
        simulate(Process(landscape, each, 0.1), weights=start, progress=False, **options)
        for each in (noise, thermal, noise + thermal)
    ]
    first = [run.driving_noise_strength.values[:, 0] for run in runs]
    np.testing.assert_allclose(first[0] + first[1], first[2], rtol=1e-5)
    np.testing.assert_allclose(first[1], 2 * 0.01 * landscape.n_parameters / 0.1)


def test_a_sum_goes_on_after_a_kill_with_the_same_bits(tmp_path):
    process = sgld(digits_landscape(), 0.1, 5, 0.001)
    options = {"steps": 12, "replicas": 2, "schedule": EverySteps(4), "observables": [Losses(), Weights()]}
    whole = simulate(process, path=tmp_path / "whole.nc", progress=False, **options)
    half = advance(process, process.start(2, seed=0), 7)
    state = advance(process, half, 5)
    np.testing.assert_array_equal(whole["weights/weights"][:, -1], state.weights)


def settled(process: Process, start: np.ndarray, n: int = 100, times: int = 8) -> np.ndarray:
    """Weights of replicas at several times, each a few relaxation times after the last."""
    state, found = advance(process, process.start(n, seed=1, weights=np.tile(start, (n, 1))), 150), []
    for _ in range(times):
        state = advance(process, state, 60)
        found.append(state.weights.numpy())
    return np.concatenate(found)


@pytest.mark.parametrize(
    "update",
    [
        None,
        pytest.param(Momentum(0.5), marks=pytest.mark.proof),
        pytest.param(UnderdampedLangevin(0.1, 0.5), marks=pytest.mark.proof),
    ],
)
def test_stochastic_gradient_langevin_dynamics_has_the_posterior(update):
    """Bayesian linear regression of unit noise: N(ŵ, (N H)⁻¹), with the exact correction of order α for the plain rule."""
    landscape, rate = regression(), 0.05
    process = sgld(landscape, rate, 10, independent=True, update=update)
    weights = settled(process, landscape.minimum)
    covariance, error = np.diag(np.cov(weights.T)), 5 * np.sqrt(2 / len(weights))
    posterior = np.diag(np.linalg.inv(landscape.hessian)) / landscape.n_samples
    assert (np.abs(weights.mean(0) - landscape.minimum) < 5 * np.sqrt(covariance / len(weights))).all()
    if update is None:
        gradient_noise = landscape.noise_covariance(landscape.minimum, 10, replacement=False)
        step, kicks = np.eye(2) - rate * landscape.hessian, rate**2 * gradient_noise + 2 * rate / 30 * np.eye(2)
        assert (np.abs(covariance / np.diag(solve_discrete_lyapunov(step, kicks)) - 1) < error).all()
    # Minibatches add αC/2T to it, a fifth at most here.
    assert (np.abs(covariance / posterior - 1) < 0.2 + error).all()
    hot = settled(sgld(landscape, rate, 10, 2 / 30, independent=True, update=update), landscape.minimum)
    assert (np.diag(np.cov(hot.T)) / posterior > 1.2 + error).all()


def test_hamiltonian_monte_carlo_has_momentum_and_the_temperature():
    landscape = regression()
    process = sghmc(landscape, 0.02, 10, 0.1)
    assert (process.name, process.update) == ("sghmc", Momentum(0.9))
    assert process.noise.terms[1].temperature == pytest.approx(0.01)
    inertial = sgld(landscape, 0.02, 10, 0.1, update=Averaged(UnderdampedLangevin(0.1, 0.5)))
    assert inertial.noise.terms[1].temperature == pytest.approx(0.05)  # friction ζ, whatever is around the rule
    with pytest.raises(ConfigurationError, match=r"no momentum: expected a rule with one"):
        sghmc(landscape, 0.02, 10, update=Plain())


def test_what_cannot_be_added_is_refused():
    with pytest.raises(ConfigurationError, match=r"batch sizes 5 and 6 came: expected the same"):
        IndependentMinibatches(5) + MatchedGaussian(6)
    with pytest.raises(TypeError):
        IndependentMinibatches(5) + 1
    with pytest.raises(ConfigurationError, match="at least two"):
        SumNoise((ThermalNoise(0.1),))

    def amplitude(x, out):
        out[:] = 1 + x**2

    ito, stratonovich = (StateDependentNoise(amplitude, calculus=each) for each in ("ito", "stratonovich"))
    with pytest.raises(ConfigurationError, match="one reading of both"):
        Process(VALLEY, ito + stratonovich, 0.1)
    for scheme in (EulerMaruyama(), BAOAB(1.0)):
        with pytest.raises(ConfigurationError, match=r"has no formula: .* use update=Plain"):
            Process(VALLEY, ThermalNoise(0.1) + AnisotropicNoise(np.eye(2)), 0.1, update=scheme)
