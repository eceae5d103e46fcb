"""The quadratic landscape: loss, derivatives and stationary law against closed forms made another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langevin_nn import Seeds
from langevin_nn.errors import ConfigurationError
from langevin_nn.evaluation import evaluate
from langevin_nn.landscape import QuadraticLandscape

# Float64 and at most 6 × 6 matrices of condition below 1e4.
ROUNDING = 1e-10


def random_matrix(seed, eigenvalues):
    """A symmetric matrix with given eigenvalues in random directions."""
    n = len(eigenvalues)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    matrix = (rotation * eigenvalues) @ rotation.T
    return (matrix + matrix.T) / 2


@st.composite
def problems(draw):
    """Hessian and noise of the same size, definite, with conditions below 1e4."""
    n = draw(st.integers(1, 6))
    positive = st.floats(0.01, 10).map(lambda value: round(value, 4))
    curvatures, strengths = (draw(st.lists(positive, min_size=n, max_size=n)) for _ in range(2))
    seeds = draw(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)))
    return random_matrix(seeds[0], np.array(curvatures)), random_matrix(seeds[1], np.array(strengths))


def points(n_replicas, n_parameters, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).standard_normal((n_replicas, n_parameters)))


# --- loss and derivatives


@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_loss_gradient_and_hessian_product_are_those_of_the_formula(problem, seed):
    hessian, noise = problem
    n = len(hessian)
    minimum = np.random.default_rng(seed).standard_normal(n)
    landscape = QuadraticLandscape(hessian, noise, minimum=minimum)
    weights, vectors = points(3, n, seed), points(3, n, seed + 1)
    losses, gradients = landscape.loss(weights), landscape.gradient(weights)
    products = landscape.hessian_product(weights, vectors)
    for replica in range(3):
        away = weights[replica].numpy() - minimum
        loss = 0.5 * sum(hessian[i, j] * away[i] * away[j] for i in range(n) for j in range(n))
        slope = [sum(hessian[i, j] * away[j] for j in range(n)) for i in range(n)]
        bend = [sum(hessian[i, j] * vectors[replica, j].item() for j in range(n)) for i in range(n)]
        assert float(losses[replica]) == pytest.approx(loss, rel=ROUNDING, abs=ROUNDING)
        np.testing.assert_allclose(gradients[replica], slope, rtol=ROUNDING, atol=ROUNDING)
        np.testing.assert_allclose(products[replica], bend, rtol=ROUNDING, atol=ROUNDING)


@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_the_compiled_gradient_is_the_gradient(problem, seed):
    hessian, noise = problem
    minimum = np.random.default_rng(seed).standard_normal(len(hessian))
    landscape = QuadraticLandscape(hessian, noise, minimum=minimum)
    weights = points(2, len(hessian), seed)
    values = evaluate(landscape.gradient_formula(), weights.numpy())
    np.testing.assert_allclose(values, landscape.gradient(weights), rtol=ROUNDING, atol=ROUNDING)


def test_the_comparison_sees_a_minimum_that_is_left_out():
    """Mutated twin: the gradient moves by H w*."""
    hessian = random_matrix(1, [3.0, 1.0, 0.2])
    landscape = QuadraticLandscape(hessian, np.eye(3), minimum=[1.0, -2.0, 0.5])
    field = landscape.gradient_formula()
    mutant = replace(field, constants=np.concatenate([field.constants[:9], np.zeros(3)]))
    assert (
        abs(
            evaluate(mutant, np.zeros((1, 3))) - landscape.gradient(torch.zeros(1, 3, dtype=torch.float64)).numpy()
        ).max()
        > 0.1
    )


def test_replicas_start_together_where_they_are_told():
    hessian = np.diag([1.0, 2.0])
    at_minimum = QuadraticLandscape(hessian, np.eye(2), minimum=[3.0, 4.0])
    assert at_minimum.initial_weights((0, 5), Seeds(1)).tolist() == [[3.0, 4.0], [3.0, 4.0]]
    assert at_minimum.loss(at_minimum.initial_weights((0,), Seeds(1))).tolist() == [0.0]
    elsewhere = QuadraticLandscape(hessian, np.eye(2), minimum=[3.0, 4.0], start=[1.0, 1.0])
    assert elsewhere.initial_weights((0,), Seeds(1)).tolist() == [[1.0, 1.0]]
    assert float(elsewhere.loss(elsewhere.initial_weights((0,), Seeds(1)))) == 0.5 * (1 * 4 + 2 * 9)


# --- noise


@given(problem=problems())
def test_the_noise_factor_is_a_root_of_the_covariance(problem):
    hessian, noise = problem
    factor = QuadraticLandscape(hessian, noise).noise_factor(torch.zeros(len(hessian))).numpy()
    np.testing.assert_allclose(factor @ factor.T, noise, rtol=0, atol=ROUNDING * noise.max())


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_semidefinite_noise_is_accepted(rank):
    noise = random_matrix(2, [2.0, 1.0, 0.5][:rank] + [0.0] * (4 - rank))
    landscape = QuadraticLandscape(random_matrix(1, [3.0, 2.0, 1.0, 0.5]), noise)
    factor = landscape.noise_factor(torch.zeros(4)).numpy()
    assert np.isfinite(factor).all()
    # A negative eigenvalue of 1e-16 is rounding, clipped to none: its root would be 1e-8.
    np.testing.assert_allclose(factor @ factor.T, noise, rtol=0, atol=1e-14)
    stationary = landscape.stationary_covariance(0.1)
    assert np.linalg.matrix_rank(stationary, tol=1e-12) >= rank
    assert np.linalg.eigvalsh(stationary).min() > -1e-14


# --- the stationary law


def stationary_series(hessian, noise, learning_rate):
    """S = α² Σ_n (I − αH)ⁿ C (I − αH)ⁿ, term by term in the eigenbasis of H: a geometric series for each element."""
    curvatures, basis = np.linalg.eigh(hessian)
    contraction = 1 - learning_rate * curvatures
    inside = basis.T @ noise @ basis
    return basis @ (learning_rate**2 * inside / (1 - np.outer(contraction, contraction))) @ basis.T


@given(problem=problems(), share=st.floats(0.01, 0.95))
def test_the_stationary_covariance_solves_the_lyapunov_equation(problem, share):
    hessian, noise = problem
    learning_rate = share * 2 / np.linalg.eigvalsh(hessian).max()
    stationary = QuadraticLandscape(hessian, noise).stationary_covariance(learning_rate)
    step = np.eye(len(hessian)) - learning_rate * hessian
    after_one_update = step @ stationary @ step.T + learning_rate**2 * noise
    scale = abs(stationary).max()
    np.testing.assert_allclose(after_one_update, stationary, rtol=0, atol=ROUNDING * scale)
    np.testing.assert_allclose(stationary, stationary.T, rtol=0, atol=ROUNDING * scale)
    assert np.linalg.eigvalsh(stationary).min() > 0
    # It is the only solution: the series that the updates sum up gives the same, with a condition of 1/(αh).
    condition = 1 / (learning_rate * np.linalg.eigvalsh(hessian).min())
    expected = stationary_series(hessian, noise, learning_rate)
    np.testing.assert_allclose(stationary, expected, rtol=0, atol=ROUNDING * scale * max(1, condition))


def test_the_equation_sees_a_learning_rate_that_enters_once():
    """Mutated twin: αC in the place of α²C, noise of another power of the learning rate."""
    hessian, noise = random_matrix(1, [3.0, 1.0]), random_matrix(2, [2.0, 0.5])
    wrong = QuadraticLandscape(hessian, noise / 0.1).stationary_covariance(0.1)
    step = np.eye(2) - 0.1 * hessian
    assert abs(step @ wrong @ step.T + 0.01 * noise - wrong).max() > 0.1 * abs(wrong).max()


def test_in_one_dimension_it_is_the_law_of_an_autoregressive_process():
    for learning_rate in (0.01, 0.5, 1.9):
        stationary = QuadraticLandscape([[1.0]], [[3.0]]).stationary_covariance(learning_rate)
        assert stationary.item() == pytest.approx(3 * learning_rate / (2 - learning_rate), rel=1e-12)


# --- what is refused

EYE = np.eye(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ([[1.0, 0.1], [0.0, 1.0]], EYE),
            r"hessian differs from its transpose by 0.1: expected a symmetric matrix",
        ),
        (([1.0, 2.0], EYE), r"hessian has shape \(2,\): expected a symmetric matrix"),
        ((np.ones((2, 3)), EYE), r"hessian has shape \(2, 3\): expected a symmetric matrix"),
        (
            (EYE, [[1.0, 0.1], [0.0, 1.0]]),
            r"noise_covariance differs from its transpose by 0.1: expected a symmetric matrix",
        ),
        ((EYE, ["o", [1.0, None]]), r"noise_covariance is of type list: expected a symmetric matrix"),
        ((EYE, np.eye(3)), r"noise_covariance has shape \(3, 3\): expected that of the hessian, \(2, 2\)"),
        ((EYE, np.diag([1.0, -0.5])), r"noise_covariance has the eigenvalue -0.5: expected none below 0, since"),
        ((EYE, -EYE), r"noise_covariance has the eigenvalue -1: expected none below 0"),
        ((EYE, np.diag([1e-12, -5e-13])), r"noise_covariance has the eigenvalue -5e-13"),
        (([[1e-9, 2e-9], [0.0, 1e-9]], EYE), r"hessian differs from its transpose by 2e-09"),
    ],
)
def test_matrices_that_are_no_hessian_and_covariance_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        QuadraticLandscape(*arguments)


@pytest.mark.parametrize("name", ["minimum", "start"])
def test_a_point_of_another_space_is_refused(name):
    with pytest.raises(ConfigurationError, match=rf"{name} has shape \(3,\): expected \(2,\), a point of weight space"):
        QuadraticLandscape(EYE, EYE, **{name: np.zeros(3)})


@pytest.mark.parametrize(
    ("curvatures", "learning_rate", "message"),
    [
        (
            [1.0, 4.0],
            0.5,
            r"no stationary law at learning_rate=0.5 and curvatures from 1 to 4: .* below 2/h_max = 0.5$",
        ),
        ([1.0, 4.0], 3.0, r"no stationary law at learning_rate=3 .* a learning rate above 0 and below 2/h_max = 0.5$"),
        ([0.0, 4.0], 0.1, r"curvatures from 0 to 4: expected positive curvatures"),
        ([-1.0, 4.0], 0.1, r"curvatures from -1 to 4: expected positive curvatures"),
        ([0.0, 0.0], 0.1, r"curvatures from 0 to 0: expected positive curvatures"),
        ([1.0, 4.0], -0.1, r"learning_rate=-0.1 .* above 0 and below"),
        ([1.0, 4.0], 0.0, r"learning_rate=0 .* above 0 and below"),
    ],
)
def test_where_there_is_no_stationary_law_the_limits_are_named(curvatures, learning_rate, message):
    with pytest.raises(ConfigurationError, match=message):
        QuadraticLandscape(np.diag(curvatures), EYE).stationary_covariance(learning_rate)


@given(problem=problems(), excess=st.floats(1e-6, 10), shortfall=st.floats(1e-6, 0.5))
def test_exactly_the_unstable_learning_rates_are_refused(problem, excess, shortfall):
    hessian, noise = problem
    limit = 2 / np.linalg.eigvalsh(hessian).max()
    landscape = QuadraticLandscape(hessian, noise)
    with pytest.raises(ConfigurationError, match="no stationary law"):
        landscape.stationary_covariance(limit * (1 + excess))
    assert np.isfinite(landscape.stationary_covariance(limit * (1 - shortfall))).all()
