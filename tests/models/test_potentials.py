"""Potentials, their exact laws, transition rates, and the study of flat minima."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from cases import assert_on_paper
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.linalg import expm, solve_continuous_lyapunov
from scipy.stats import poisson

from langevin_nn import Process, advance, simulate
from langevin_nn.analyzers import TransitionRates
from langevin_nn.drift import Confinement, LinearDrift
from langevin_nn.engine import follow
from langevin_nn.errors import ConfigurationError, EstimationRefused, UnstableTrajectory
from langevin_nn.landscape import PotentialLandscape
from langevin_nn.noise import AnisotropicNoise, LandscapeNoise, StableNoise, StateDependentNoise, ThermalNoise
from langevin_nn.observables import Weights
from langevin_nn.schedules import EverySteps
from langevin_nn.theory import (
    circulation,
    covariance_after,
    entropy_production_rate,
    mean_after,
    mean_first_passage_time,
    stationary_covariance,
    stationary_density,
)
from langevin_nn.update import EulerMaruyama, Plain
from models.potentials import TwoValleys, degenerate_valley, double_well, mueller_brown, rugged, two_valleys
from studies.flat_minima import study
from studies.flat_minima.figures import flat_minima_figure

POTENTIALS = {
    "double well": double_well(1.7),
    "Müller–Brown": mueller_brown(0.1),
    "rugged": rugged(3),
    "degenerate valley": degenerate_valley(3),
    "two valleys": two_valleys(3, narrow=0.5, wide=1.5),
}


# --- Potentials


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_compiled_gradient_is_that_of_the_potential(name):
    """Fourth-order differences of the plain function, at 70 points: more than a tile."""
    landscape = POTENTIALS[name]
    points = landscape.start + 0.3 * np.random.default_rng(1).standard_normal((70, landscape.n_parameters))
    h, expected = 1e-3, np.empty_like(points)
    for i, move in enumerate(h * np.eye(landscape.n_parameters)):
        values = [np.array([float(landscape.potential(point + k * move)) for point in points]) for k in (-2, -1, 1, 2)]
        expected[:, i] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    gradient = landscape.gradient(torch.as_tensor(points)).numpy()
    # Truncation is h⁴ f⁗′/30: wave number 20 makes it 2e-6 of the rugged one, Müller–Brown's exponents as much.
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", POTENTIALS)
def test_minima_and_saddles_are_where_they_are_said_to_be(name):
    landscape = POTENTIALS[name]
    scale = np.abs(landscape.gradient(torch.as_tensor(landscape.start[None] + 0.3)).numpy()).max()
    for kind, negative in (("minima", 0), ("saddles", 1)):
        for point in getattr(landscape, kind):
            slope = landscape.gradient(torch.as_tensor(point[None])).numpy()
            assert np.abs(slope).max() < 1e-6 * scale
            assert (np.linalg.eigvalsh(landscape.hessian_at(point)) < 0).sum() == negative


def test_single_precision_potentials_have_the_same_gradient():
    points = torch.as_tensor(np.random.default_rng(0).standard_normal((5, 1)))
    double, single = (double_well(dtype=dtype).gradient(points) for dtype in (torch.float64, torch.float32))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, double, rtol=1e-6)


@given(narrow=st.floats(0.2, 1.0), ratio=st.floats(1.0, 5.0), y=st.floats(-3, 3))
def test_two_valleys_have_the_widths_that_they_are_given(narrow, ratio, y):
    landscape = TwoValleys(narrow=narrow, wide=ratio * narrow)
    assert landscape.valley_coordinate(landscape.position(np.array(y))) == pytest.approx(y, abs=1e-9)
    bottoms = landscape.minima[:, 0]
    np.testing.assert_allclose(landscape.curvature(bottoms), 8 / np.array([narrow, ratio * narrow]) ** 2, rtol=1e-9)
    amplitudes = [landscape.noise_factor(torch.as_tensor(point)).numpy() for point in landscape.minima]
    for amplitude, bottom in zip(amplitudes, bottoms, strict=True):
        np.testing.assert_allclose(amplitude @ amplitude.T, landscape.curvature(bottom) * np.eye(2), rtol=1e-9)


def test_thermal_noise_in_a_degenerate_valley_is_found_where_it_is_flat():
    """Along the valley exp(−L/T) integrates to κ^(−1/2) in two dimensions, whatever the temperature: χ² over 8 parts."""
    landscape, n = degenerate_valley(variation=0.6, wave_number=1.0), 4000
    process = Process(landscape, ThermalNoise(0.5), 0.02, update=EulerMaruyama())
    state = advance(process, process.start(n, 3), 5000)  # diffusion over 2π takes (2π)²/2T = 40; this is 100
    place = np.mod(state.weights[:, 0].numpy(), 2 * np.pi)
    edges = np.linspace(0, 2 * np.pi, 9)
    weight = [quad(lambda x: (1 + 0.6 * np.cos(x)) ** -0.5, a, b)[0] for a, b in pairwise(edges)]
    expected = n * np.array(weight) / np.sum(weight)
    counts = np.histogram(place, edges)[0]
    assert ((counts - expected) ** 2 / expected).sum() < 26  # 7 degrees of freedom: passed once in 2,000
    assert ((counts - n / 8) ** 2 / (n / 8)).sum() > 60  # mutated twin: loss alone, which prefers no place


COUNT = count()


def overwriting(x):
    x[0] = 2 * x[0]
    return x[0] ** 2


def beyond(x, out):
    out[3] = 0.0


def half(x, out):
    out[0] = x[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: double_well(-1.0), "barrier=-1.0: expected a positive"),
        (lambda: two_valleys(narrow=0.1, wide=1.0), "expected a ratio below 5.8"),
        (lambda: degenerate_valley(1), "at least 2 dimensions"),
        (lambda: PotentialLandscape("x", 1), "potential is of type str: expected a function"),
        (lambda: PotentialLandscape(lambda x: x[3], 1), "fails at the start .*IndexError"),
        (lambda: PotentialLandscape(lambda x: np.log(x[0]), 1), "potential.x. is -inf at the start"),
        (
            lambda: PotentialLandscape(lambda x: 0.0, 1, gradient=lambda x, out: out.nothing()),
            "gradient.*AttributeError",
        ),
        (lambda: PotentialLandscape(lambda x: 0.0, 1, gradient=beyond), "gradient.* fails at .*IndexError"),
        (lambda: PotentialLandscape(lambda x: 0.0, 2, gradient=half), "left numbers of out, shape .2,., unwritten"),
        (lambda: PotentialLandscape(lambda x: 0.0, 2, amplitude=beyond), "amplitude.* fails at .*IndexError"),
        (
            lambda: PotentialLandscape(lambda x: 1e6 + x[0] ** 2, 1, gradient=half, start=[1.0]),
            "expected them to agree",
        ),
        (
            lambda: PotentialLandscape(lambda x: 0.0, 1, amplitude=half, rank=0),
            "rank=0: expected a whole number from 1",
        ),
        (lambda: Process(double_well(), LandscapeNoise(), 0.1), "has no noise of its own"),
        (lambda: Process(double_well(), StateDependentNoise(beyond), 0.1), "amplitude.* fails at .*IndexError"),
        (lambda: LinearDrift(np.eye(2)) + Confinement(1.0, 1.0, [0.0, 0.0, 0.0]), "drifts of 2 and 3 parameters"),
        (lambda: LinearDrift(np.eye(2)) + 3, "a term of the sum is of type int"),
        (lambda: AnisotropicNoise(np.zeros((2, 0))), "has no numbers"),
        (lambda: PotentialLandscape(lambda x: x[0], 0), "n_parameters=0: expected a whole number from 1"),
        (lambda: PotentialLandscape(lambda x: x[0], 1, dtype=torch.int64), "expected torch.float64 or torch.float32"),
        (lambda: double_well().kramers_rate([0.0], [1.0], 0.1), "expected all positive at the first and one negative"),
        (lambda: double_well().boltzmann_density(0.1), "0 axes came: expected 1"),
        (
            lambda: PotentialLandscape(partial(lambda a, x: a * x[0] ** 2, 2.0), 1).gradient(torch.ones(1, 1)),
            "partial cannot be compiled .*write one with def",
        ),
        (lambda: PotentialLandscape(overwriting, 1), "potential.* changes the point x"),
        (lambda: PotentialLandscape(lambda x: x[0] + np.random.rand(), 1), "at the same point: expected a function"),  # noqa: NPY002
        (
            lambda: PotentialLandscape(lambda x: 0.0, 1, amplitude=lambda x, out: out.fill(next(COUNT))),
            "amplitude.* at the same point: expected a function",
        ),
    ],
)
def test_what_is_no_potential_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


STIFFNESS = 1.0


def stiff(x):
    return 0.5 * STIFFNESS * x[0] ** 2


def test_a_value_that_changed_outside_a_function_is_seen(monkeypatch):
    """Compiling freezes it: the function is compiled anew, and never cached on disk."""
    for value in (1.0, 3.0):
        monkeypatch.setitem(globals(), "STIFFNESS", value)
        process = Process(PotentialLandscape(stiff, 1, start=[1.0]), ThermalNoise(0.0), 0.01, update=EulerMaruyama())
        end = advance(process, process.start(1, 0), 100).weights.item()
        assert end == pytest.approx((1 - 0.01 * value) ** 100, rel=1e-6)


def leaves_out_beyond_one(x, out):
    if x[0] < 1.0:
        out[0] = -1.0


def test_what_a_function_leaves_out_later_stops_the_run():
    landscape = PotentialLandscape(lambda x: -x[0], 1)
    process = Process(landscape, StateDependentNoise(leaves_out_beyond_one), 0.1, update=EulerMaruyama())
    with pytest.raises(UnstableTrajectory, match="became non-finite at step"):
        advance(process, process.start(1, 0), 500)


@pytest.mark.parametrize("noise", [ThermalNoise(0.1), StableNoise(0.1, 1.5)])
def test_plain_steps_draw_the_same_numbers_in_single_precision(noise):
    landscape = double_well(dtype=torch.float32)
    ends = []
    for update in (Plain(), EulerMaruyama()):
        process = Process(landscape, noise, 0.01, update=update)
        ends.append(advance(process, process.start(5, 0), 10).weights.numpy())
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-5)


def test_stable_noise_in_single_precision_stays_finite():
    """A normal number that rounds to 0, one in 10⁷, makes the quotient of a pair infinite."""
    flat = PotentialLandscape(lambda x: 0 * x[0], 1, dtype=torch.float32)
    process = Process(flat, StableNoise(1.0, 1.5), 0.01, drift=LinearDrift([[1.0]]), update=EulerMaruyama())
    state = process.start(3, 0)
    pairs = np.array([[[0.0, 1.0]], [[0.0, -1.0]], [[0.0, 0.0]]])
    assert np.isfinite(follow(process, state, pairs).weights.numpy()).all()


# --- Theory


def random_stable(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((n, n)) + 3 * np.eye(n)
    root = generator.standard_normal((n, n))
    return matrix, root @ root.T + 0.1 * np.eye(n)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 5))
def test_stationary_covariance_is_the_integral_of_the_propagator(seed, n):
    """S = ∫ e^(−At) Q e^(−Aᵀt) dt, by Gauss–Legendre over 30 relaxation times of the slowest mode."""
    matrix, noise = random_stable(seed, n)
    slowest = np.linalg.eigvals(matrix).real.min()
    assume(slowest > 0.2)  # the quadrature is for these
    nodes, weights = np.polynomial.legendre.leggauss(200)
    times, weights = 15 / slowest * (nodes + 1), 15 / slowest * weights
    total = sum(w * expm(-matrix * t) @ noise @ expm(-matrix * t).T for t, w in zip(times, weights, strict=True))
    found = stationary_covariance(matrix, noise)
    np.testing.assert_allclose(found, total, rtol=0, atol=1e-6 * np.abs(found).max())


@given(seed=st.integers(0, 10**6), n=st.integers(2, 4))
def test_entropy_is_produced_by_circulation_alone(seed, n):
    """−Tr(D⁻¹ K S⁻¹ K) with K = (A S − S Aᵀ)/2; zero for noise that commutes with a symmetric matrix."""
    matrix, noise = random_stable(seed, n)
    assume(np.linalg.eigvals(matrix).real.min() > 0.1)
    half = circulation(matrix, noise) / 2
    covariance = stationary_covariance(matrix, noise)
    expected = -np.trace(np.linalg.solve(noise / 2, half) @ np.linalg.solve(covariance, half))
    assert entropy_production_rate(matrix, noise) == pytest.approx(expected, rel=1e-6, abs=1e-8)
    symmetric = matrix @ matrix.T + np.eye(n)
    assert abs(entropy_production_rate(symmetric, symmetric @ symmetric)) < 1e-6 * np.trace(symmetric)


def test_passage_times_and_densities_of_the_harmonic_well():
    x = np.linspace(-8, 8, 16001)
    drift, amplitude = -2 * x, np.full_like(x, 1.5)
    density = stationary_density(x, drift, amplitude)
    variance = 1.5**2 / 4
    np.testing.assert_allclose(density, np.exp(-(x**2) / 2 / variance) / np.sqrt(2 * np.pi * variance), atol=1e-6)

    def inner(y):
        return quad(lambda z: np.exp(-(z**2) / 2 / variance), -8, y)[0] * np.exp(y**2 / 2 / variance)

    expected = 2 / 1.5**2 * quad(inner, 0, 1)[0]
    assert mean_first_passage_time(x, drift, amplitude, 0, 1) == pytest.approx(expected, rel=1e-5)
    assert mean_first_passage_time(x, drift, amplitude, 0, -1) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stationary_covariance(np.ones((2, 3)), np.eye(2)), "expected a square matrix"),
        (lambda: stationary_covariance(np.eye(2), np.eye(3)), r"noise has shape \(3, 3\): expected \(2, 2\)"),
        (lambda: stationary_covariance(np.eye(2), [[1, np.nan], [np.nan, 1]]), "not finite"),
        (lambda: stationary_covariance(np.eye(2), [[1, 0.5], [0, 1]]), "noise differs from its transpose by 0.5"),
        (lambda: stationary_covariance(np.eye(2), np.eye(2), time_step=2), "multiplies a displacement by 1"),
        (lambda: circulation(np.eye(2), np.eye(2), time_step=0.1, record_interval=0.25), "a whole number of steps"),
        (
            lambda: entropy_production_rate(np.eye(2), [[1, 2], [2, 1]]),
            "noise has the eigenvalue -1: expected none below",
        ),
        (lambda: covariance_after([[1.0]], [[1.0]], 0.1, 2.5), r"steps=2.5: expected a whole number"),
        (lambda: covariance_after([[1.0]], [[1.0]], 0.1, 2, lag=0.5), r"lag=0.5: expected a whole number"),
        (lambda: covariance_after([[1.0]], [[1.0]], -0.1, 2), "learning_rate=-0.1: expected a positive number"),
        (lambda: covariance_after([[1, 5], [0, 1]], np.eye(2), 0.1, 2), "hessian differs from its transpose by 5"),
        (lambda: covariance_after(np.eye(2), [[1, 2], [2, 1]], 0.1, 2), "noise has the eigenvalue -1"),
        (lambda: mean_after([1.0], np.eye(2), 0.1, 2), "gradient has shape"),
        (lambda: mean_after([1.0], [[-1.0]], 0.1, np.inf), "no stationary law"),
        (lambda: stationary_density([0, 1, 2], [0, np.inf, 0], [1, 1, 1]), "drift has numbers that are not finite"),
        (lambda: stationary_covariance(-np.eye(2), np.eye(2)), "real part -1: expected all positive"),
        (lambda: stationary_density([0, 1], [0, 0], [1, 1]), "at least 3 points"),
        (lambda: stationary_density([0, 1, 2], [0, 0, 0], [1, 0, 1]), "an amplitude is not positive"),
        (lambda: mean_first_passage_time([0, 1, 2], [0, 0, 0], [1, 1, 1], 0, 3), "expected both within it"),
    ],
)
def test_what_has_no_law_is_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()


def entropy_of_singular_noise(law):
    """Along a current without noise infinite, 0 where nothing goes around, and that of the range where nothing leaves it."""
    rotating, alone = np.array([[1.0, -3.0], [3.0, 1.0]]), np.diag([2.0, 0.0])
    assert law(rotating, alone) == np.inf
    assert law(np.diag([1.0, 3.0]), alone) == 0
    assert law(rotating, 0 * alone) == 0
    bigger = np.block([[rotating, np.zeros((2, 1))], [np.zeros((1, 2)), 5 * np.eye(1)]])
    assert law(bigger, np.diag([2.0, 2.0, 0.0])) == pytest.approx(18)


def test_entropy_production_knows_of_singular_noise():
    entropy_of_singular_noise(entropy_production_rate)

    def twin(matrix, noise):
        a, q = np.array(matrix), np.array(noise)
        covariance = solve_continuous_lyapunov(a, q)
        return float(np.trace(a.T @ np.linalg.solve(q / 2, a) @ covariance) - np.trace(a))

    with pytest.raises(np.linalg.LinAlgError):
        entropy_of_singular_noise(twin)


def of_copies_of_any_size(law):
    """Independent bowls that rotate: sizes change nothing, speeds are factors, and what rounding hides is refused."""
    rotating, zero = np.array([[1.0, -3.0], [3.0, 1.0]]), np.zeros((2, 2))
    for n, decades in ((2, 12), (3, 14), (4, 16)):
        sizes = np.logspace(0, -decades, n)
        matrix, noise = np.kron(np.eye(n), rotating), np.kron(np.diag(sizes), 2 * np.eye(2))
        assert law(matrix, noise) == pytest.approx(18 * n)
        one = law(rotating, 2 * np.eye(2), time_step=1e-2, record_interval=2e-2)
        assert law(matrix, noise, time_step=1e-2, record_interval=2e-2) == pytest.approx(n * one)
    slow = np.block([[rotating, zero], [zero, 1e-14 * rotating]])
    noise = np.diag([1e-14, 1e-14, 1, 1])  # the fast ones small
    assert law(slow, noise) == pytest.approx(18)
    assert law(1e14 * slow[2:, 2:], noise[2:, 2:]) == pytest.approx(18)
    # Across coordinates: 18 of the rotation, and a third direction that noise hardly reaches.
    mixing = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    both = np.block([[rotating, zero], [zero, rotating]])
    noise = np.diag([2, 2, 2e-6, 2e-6])
    assert law(mixing @ both @ mixing.T, mixing @ noise @ mixing.T) == pytest.approx(36, rel=1e-6)
    noise = np.diag([2, 2, 2e-12, 2e-12])
    with pytest.raises(ConfigurationError, match="has the variance"):
        law(mixing @ both @ mixing.T, mixing @ noise @ mixing.T)


def test_entropy_production_does_not_depend_on_the_sizes_of_coordinates():
    of_copies_of_any_size(entropy_production_rate)

    def twin(matrix, noise, **steps):
        """Of what is above 1e-12 of the largest variance."""
        values, vectors = np.linalg.eigh(stationary_covariance(matrix, noise))
        kept = vectors[:, values > 1e-12 * values.max()]
        return entropy_production_rate(kept.T @ matrix @ kept, kept.T @ noise @ kept, **steps)

    with pytest.raises(AssertionError):
        of_copies_of_any_size(twin)


GYRATOR = np.array([[1.5, -0.8], [-0.8, 1.5]]), np.diag([0.6, 1.8])


def of_a_finite_step(law):
    """From sums over a long past, Σ_s M^s Δt Q M^sᵀ, of what steps make, and what records a few steps apart show."""
    (matrix, noise), step = GYRATOR, 0.1
    assert law(matrix, noise)[0, 1] == pytest.approx(-0.320, abs=1e-9)
    assert law(matrix, noise, record_interval=step)[0, 1] == pytest.approx(-0.276, abs=5e-4)
    once, past, covariance = np.eye(2) - step * matrix, np.eye(2), np.zeros((2, 2))
    for _ in range(1000):
        covariance += step * past @ noise @ past.T
        past = once @ past
    np.testing.assert_allclose(stationary_covariance(matrix, noise, time_step=step), covariance, rtol=1e-9)
    for steps in (1, 3):
        later = np.linalg.matrix_power(once, steps) @ covariance
        exact = (later.T - later) / (steps * step)
        np.testing.assert_allclose(law(matrix, noise, time_step=step, record_interval=steps * step), exact, atol=1e-12)
    each = law(matrix, noise, time_step=step, record_interval=step)
    np.testing.assert_allclose(law(matrix, noise, time_step=step), each, atol=1e-12)
    fine = law(matrix, noise, time_step=1e-6)
    np.testing.assert_allclose(fine, law(matrix, noise), rtol=1e-4, atol=1e-12)


def test_circulation_is_that_of_the_step_and_of_the_records():
    of_a_finite_step(circulation)
    with pytest.raises(AssertionError):
        of_a_finite_step(
            lambda matrix, noise, **ignored: circulation(matrix, noise)
        )  # the equation's, whatever the step


@pytest.mark.parametrize("interval", [0.1, 1.0])
def test_entropy_that_records_show_is_that_of_their_autoregression(interval):
    """In coordinates of unit covariance, M = [[m, a], [−a, n]] after a rotation: the closed form in two dimensions."""
    covariance = stationary_covariance(*GYRATOR)
    root = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(root, expm(-interval * GYRATOR[0]) @ root)
    even = np.linalg.eigvalsh((whitened + whitened.T) / 2)
    odd = (whitened[0, 1] - whitened[1, 0]) / 2
    p, q = 1 - even**2 - odd**2
    rest = p * q - (odd * (even[0] - even[1])) ** 2
    exact = 2 * odd**2 * ((even[0] - even[1]) ** 2 + p + q) / rest / interval
    found = entropy_production_rate(*GYRATOR, record_interval=interval)
    assert found == pytest.approx(exact, rel=1e-9)
    assert found < entropy_production_rate(*GYRATOR)


# --- Transition rates


def test_rates_of_a_two_state_process_are_found():
    """400 synthetic replicas that jump at rates 0.05 and 0.02, with jitter about the bottoms: within four standard errors."""
    generator, interval, n_records = np.random.default_rng(5), 0.25, 2000
    state = np.zeros((400, n_records), dtype=int)
    for record in range(1, n_records):
        rate = np.where(state[:, record - 1] == 0, 0.05, 0.02)
        jump = generator.random(400) < -np.expm1(-rate * interval)
        state[:, record] = np.where(jump, 1 - state[:, record - 1], state[:, record - 1])
    position = 2.0 * state - 1 + 0.4 * generator.standard_normal(state.shape)  # often beyond a core, never in the other
    position = np.where(state == 0, np.minimum(position, 0.4), np.maximum(position, -0.4))
    trajectory = xr.Dataset(
        {"weights": (("replica", "weight_step", "parameter"), position[..., None])},
        coords={"time": ("weight_step", interval * np.arange(n_records)), "weight_step": np.arange(n_records)},
    )
    rates = TransitionRates(-0.5, 0.5)(trajectory)
    for found, error, truth in zip(
        rates.transition_rate.values, rates.transition_rate_standard_error.values, (0.05, 0.02), strict=True
    ):
        assert abs(found - truth) < 4 * error + 0.02 * truth  # belonging is seen late by up to a few records
        assert abs(found - 1.25 * truth) > 4 * error  # mutated twin
    assert float(rates.occupancy[-1]) == pytest.approx(5 / 7, abs=0.1)
    # Garwood's interval: probabilities of as few and of as many transitions are a fortieth at its ends.
    for end, tail in (("upper", poisson.cdf), ("lower", lambda count, at: poisson.sf(count - 1, at))):
        expected = rates[f"transition_rate_{end}"] * rates.time_spent
        at_ends = tail(rates.transitions.values, expected.values)
        assert np.all((at_ends <= 0.02501) & (at_ends > 0.015))  # or wider, where counts scatter more between replicas


@cache
def escapes() -> xr.Dataset:
    process = Process(double_well(), ThermalNoise(0.3), 0.001, update=EulerMaruyama())
    trajectory = simulate(
        process, steps=200_000, replicas=250, observables=Weights(schedule=EverySteps(100)), progress=False
    )
    return trajectory["weights"].to_dataset().isel(weight_step=slice(100, None))


def visits_between_records(analyzer):
    """A double well at T = 0.3, edges halfway up, whose rate is 1 over the time from one edge to the other."""
    weights, x = escapes(), np.linspace(-3, 3, 6001)
    exact = 1 / mean_first_passage_time(x, -4 * x * (x**2 - 1), np.full_like(x, 0.6**0.5), -0.5, 0.5)
    assert exact == pytest.approx(0.0310, abs=5e-5)
    found = analyzer(-0.5, 0.5)(weights)
    rate = float(found.transition_rate.mean())
    assert abs(rate / exact - 1) < 0.03 + 3 * float((found.transition_rate_standard_error**2).sum() ** 0.5) / 2 / exact
    with pytest.raises(EstimationRefused, match="record more often"):
        analyzer(-0.5, 0.5)(weights.isel(weight_step=slice(None, None, 5)))
    seen = analyzer(-0.5, 0.5, least_correlation=0)(weights.isel(weight_step=slice(None, None, 5)))
    assert float(seen.transition_rate.mean()) < 0.93 * exact


@dataclass(frozen=True)
class Seen(TransitionRates):
    """A mutated twin: what records see, however coarse."""

    least_correlation: float = 0.0


def test_visits_between_records_are_counted_in_or_refused():
    visits_between_records(TransitionRates)
    with pytest.raises(pytest.fail.Exception):
        visits_between_records(Seen)


def bursts_are_no_poisson_number(analyzer):
    """Each event is a burst of 1, 3 or 9 transitions: variance of counts 91/13 of that of a Poisson number of that mean."""
    generator, n_records, found = np.random.default_rng(1), 2000, []
    for _ in range(60):
        jumps = np.zeros((10, n_records), dtype=int)
        events = generator.random(jumps.shape) < 0.005
        for row, start in np.argwhere(events[:, :-20]):
            jumps[row, start : start + generator.choice([1, 3, 9])] += 1
        position = 1 - 2.0 * (np.cumsum(jumps, axis=1) % 2)
        trajectory = xr.Dataset(
            {"weights": (("replica", "weight_step", "parameter"), position[..., None])},
            coords={"time": ("weight_step", np.arange(float(n_records))), "weight_step": np.arange(n_records)},
        )
        found.append(analyzer(-0.5, 0.5)(trajectory)[["transition_rate", "transition_rate_standard_error"]])
    scatter = np.std([each.transition_rate for each in found])
    said = np.mean([each.transition_rate_standard_error**2 for each in found]) ** 0.5
    assert abs(said / scatter - 1) < 0.35  # 3 standard errors of 120 numbers, in pairs


def of_a_single_replica(analyzer):
    """A mutated twin: errors of Poisson numbers."""

    def call(below, above):
        def measure(trajectory):
            found = analyzer(below, above)(trajectory)
            return found.assign(transition_rate_standard_error=found.transitions**0.5 / found.time_spent)

        return measure

    return call


def test_transitions_in_bursts_have_larger_errors():
    bursts_are_no_poisson_number(TransitionRates)
    with pytest.raises(AssertionError):
        bursts_are_no_poisson_number(of_a_single_replica(TransitionRates))


def near_the_barrier(analyzer):
    """Cores at ±0.3 and records that correlate by 0.64: every second one misses 5 %, and the rate comes out 8 % too small."""
    with pytest.raises(EstimationRefused, match="choose cores further from the barrier"):
        analyzer(-0.3, 0.3)(escapes())


def test_records_too_coarse_for_cores_near_the_barrier_are_refused():
    near_the_barrier(TransitionRates)
    with pytest.raises(pytest.fail.Exception):
        near_the_barrier(Seen)


def test_replicas_that_diverged_wait_for_nothing():
    nan = np.nan
    position = np.array([[-1.0, nan, nan, nan, nan], [-1.0, 1.0, 1.0, 1.0, 1.0]])
    trajectory = xr.Dataset(
        {"weights": (("replica", "weight_step", "parameter"), position[..., None])},
        coords={"time": ("weight_step", np.arange(5.0))},
    )
    rates = TransitionRates(-0.5, 0.5)(trajectory)
    np.testing.assert_array_equal(rates.time_spent, [2.0, 3.0])  # one interval each from below, three above
    np.testing.assert_array_equal(rates.occupancy, [0.0, 1.0, 1.0, 1.0, 1.0])


def test_passage_over_a_barrier_of_hundreds_of_temperatures_takes_long_and_not_nothing():
    x = np.linspace(-2, 2, 4001)
    drift = -4 * x * (x**2 - 1)
    times = [mean_first_passage_time(x, drift, np.full_like(x, amplitude), -1, 1) for amplitude in (0.2, 0.1, 0.04)]
    assert times[0] < times[1] < times[2] == np.inf
    kramers = 2 * np.pi / 32**0.5 * np.exp(2 / 0.1**2)
    assert times[1] == pytest.approx(kramers, rel=0.02)


def test_rates_are_refused_where_no_core_is_visited():
    weights = xr.DataArray(np.zeros((2, 3, 1)), dims=("replica", "weight_step", "parameter"))
    trajectory = xr.Dataset({"weights": weights}, coords={"time": ("weight_step", [0.0, 1.0, 2.0])})
    with pytest.raises(EstimationRefused, match="no replica is ever below -1 or above 1"):
        TransitionRates(-1, 1)(trajectory)
    with pytest.raises(ConfigurationError, match="expected the first core below the second"):
        TransitionRates(1, -1)


# --- The study


def test_flat_valleys_are_preferred_and_by_curvature_noise_most(quick_run):
    out, _ = quick_run("flat_minima")
    with xr.open_dataset(out / "rates.nc") as rates:
        share, error = rates.wide_share, rates.wide_share_standard_error
        isotropic, curvature = (share.sel(noise=name) for name in ("isotropic", "curvature"))
        assert (isotropic - 0.5 > 5 * error.sel(noise="isotropic")).all()
        assert (curvature - isotropic > 5 * error.sel(noise="isotropic")).all()
        # Boltzmann: the ratio of the widths to the power of the dimensions, 4, up to what a barrier of 2 to 3 T is worth.
        np.testing.assert_allclose(rates.wide_share_predicted.sel(noise="isotropic"), 0.8, atol=0.05)
        assert (abs(share - rates.wide_share_predicted) < 5 * error + 0.02).all()
        assert rates.attrs["config_json"]
        figure = flat_minima_figure(rates)
    assert_on_paper(figure)
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["found"]["wide_share"]) == set(study.NOISES)
    assert (out / "flat_minima.png").stat().st_size > 10_000


def test_isotropic_prediction_is_boltzmanns():
    """The averaged equation against two-dimensional quadrature of exp(−L/T)."""
    config = study.Config()
    landscape = TwoValleys(narrow=config.narrow, wide=config.wide)
    curvature = landscape.curvature(landscape.minima[:, 0]).mean()
    temperature = config.learning_rate * config.sample_noise / 8 * curvature / 2
    along = landscape.position(np.linspace(-2.5, 2.5, 301))
    across = np.linspace(-3, 3, 201)
    energies = np.array([[landscape.potential(np.array([x, z])) for z in across] for x in along])
    weight = np.trapezoid(np.exp(-energies / temperature), across, axis=1)
    share = np.trapezoid(np.where(along > 0, weight, 0), along) / np.trapezoid(weight, along)
    assert study.predicted(config, 8, "isotropic")["share"] == pytest.approx(share, abs=2e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-rate", "0"], "learning_rate=0.0: expected a positive"),
        (["--batch-sizes", "0"], "expected whole numbers from 1"),
        (["--batch-sizes", "6", "6"], "each of them once"),
        (["--along", "2"], "expected above 0 and below 2"),
        (["--replicas", "1"], "expected at least 2 of both"),
        (["--records", "1"], "expected at least 10"),
        (["--narrow", "-1"], "narrow=-1.0: expected a positive"),
    ],
)
def test_bad_choices_end_in_one_line(arguments, message, refused):
    assert message in refused(study.STUDY.main, ["--quick", *arguments])
