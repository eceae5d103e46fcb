"""Surrogates of networks: what is recovered where it is known, errors that cover, laws, and what is refused."""

from __future__ import annotations

from functools import cache
from itertools import permutations, product
from math import inf

import numpy as np
import pytest
import torch
from cases import digits_landscape
from hypothesis import given
from hypothesis import strategies as st
from twins import losses_of

from langevin_nn import NetworkLandscape, Seeds, advance, fit_surrogate, sgd
from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.formulas import affine
from langevin_nn.landscape import LinearRegressionLandscape, PotentialLandscape, QuadraticLandscape
from langevin_nn.operators import principal_directions
from langevin_nn.theory import covariance_after, mean_after
from langevin_nn.update import Plain


def rotation(seed: int, n: int, k: int | None = None) -> np.ndarray:
    """Orthonormal rows."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0][: k or n]


def definite(seed: int, n: int) -> np.ndarray:
    root = np.random.default_rng(seed).standard_normal((n, n))
    return root @ root.T + 0.1 * np.eye(n)


def regression(seed: int = 0, n_samples: int = 60, noise: float = 0.3) -> LinearRegressionLandscape:
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((n_samples, 4)) * [2.0, 1.0, 0.7, 0.3]
    return LinearRegressionLandscape(
        inputs, inputs @ [1.0, -1.0, 0.5, 2.0] + noise * generator.standard_normal(n_samples)
    )


# --- What is known is recovered


@given(seed=st.integers(0, 10**6), k=st.integers(1, 5))
def test_a_quadratic_landscape_is_recovered(seed, k):
    hessian, covariance, basis = definite(seed, 5), definite(seed + 1, 5), rotation(seed, 5, k)
    valley = QuadraticLandscape(hessian, covariance, minimum=np.arange(5.0))
    weights = np.random.default_rng(seed).standard_normal(5)
    found = fit_surrogate(valley, weights, directions=basis).moments
    np.testing.assert_allclose(found.hessian, basis @ hessian @ basis.T, atol=1e-9)
    np.testing.assert_allclose(found.noise_covariance, basis @ covariance @ basis.T, atol=1e-9)
    np.testing.assert_allclose(found.gradient, basis @ hessian @ (weights - np.arange(5.0)), atol=1e-9)
    assert found.loss == pytest.approx(0.5 * (weights - np.arange(5)) @ hessian @ (weights - np.arange(5)))
    assert found.explained_share == pytest.approx(np.trace(basis @ covariance @ basis.T) / np.trace(covariance))
    assert not found.hessian_standard_error.any()


@pytest.mark.parametrize("name", ["noise", "hessian"])
def test_named_directions_span_leading_eigenvectors_and_make_the_hessian_diagonal(name):
    hessian, covariance = definite(1, 6), definite(2, 6)
    found = fit_surrogate(QuadraticLandscape(hessian, covariance), np.zeros(6), n_directions=3, directions=name)
    matrix = covariance if name == "noise" else hessian
    leading = np.linalg.eigh(matrix)[1][:, :-4:-1]
    assert np.square(found.directions.numpy() @ leading).sum() == pytest.approx(3, abs=1e-5)
    inner = found.moments.hessian
    np.testing.assert_allclose(inner, np.diag(np.sort(np.diag(inner))[::-1]), atol=1e-9)


def test_linear_regression_is_recovered_and_so_is_its_noise_at_other_points():
    landscape, basis = regression(), rotation(3, 4, 3)
    weights = np.array([0.5, 0.5, 0.0, 1.0])
    surrogate = fit_surrogate(landscape, weights, 7, directions=basis, noise="state_dependent", spacing=0.5)
    np.testing.assert_allclose(surrogate.moments.hessian, basis @ landscape.hessian @ basis.T, atol=1e-10)
    np.testing.assert_allclose(surrogate.moments.secant_hessian, surrogate.moments.hessian, atol=1e-10)
    for x in np.random.default_rng(0).standard_normal((5, 3)):
        exact = basis @ landscape.noise_covariance(weights + x @ basis, 7) @ basis.T
        factor = surrogate.landscape().noise_factor(torch.as_tensor(x)).numpy()
        np.testing.assert_allclose(factor @ factor.T, exact, atol=1e-9 * np.abs(exact).max())
        constant = fit_surrogate(landscape, weights, 7, directions=basis).landscape().noise_factor(torch.as_tensor(x))
        assert np.abs(constant.numpy() @ constant.numpy().T - exact).max() > 0.05 * np.abs(exact).max()  # mutated twin


def test_a_whole_landscape_has_its_own_drift_and_order_parameters():
    landscape, generator = regression(), np.random.default_rng(1)
    rows = generator.standard_normal((6, 4))
    options = {"directions": rotation(0, 4), "trajectory": rows, "held_out": 0.5}
    quality = fit_surrogate(landscape, np.zeros(4), 7, noise="state_dependent", **options).quality
    assert quality.sizes["row"] == 3
    assert quality.sizes["point"] == 4
    assert quality.relative_drift_error < 1e-9 < 0.1 < quality.relative_drift_error_constant
    np.testing.assert_allclose(quality.order_parameter_distance[:, :5], 0, atol=1e-8)
    assert quality.order_parameter_distance[0, 5] == 0  # the effective dimension
    assert quality.explained_share == pytest.approx(1)
    constant = fit_surrogate(landscape, np.zeros(4), 7, **options).quality.order_parameter_distance
    assert np.abs(constant.sel(order_parameter="noise_strength")[1:]).max() > 0.1


def network_in_double(seed: int = 0) -> tuple[NetworkLandscape, torch.nn.Module]:
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).long()
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    return NetworkLandscape(module, inputs, labels), module


def test_a_network_is_reduced_to_what_its_dense_hessian_and_single_gradients_say():
    landscape, module = network_in_double()
    weights = landscape.initial_weights((0,), Seeds(0))[0]
    losses = losses_of(module, landscape.inputs, landscape.labels[0])
    dense = torch.autograd.functional.hessian(lambda flat: losses(flat).mean(), weights).numpy()
    singles = torch.autograd.functional.jacobian(losses, weights).numpy()
    covariance = np.cov(singles.T) * (1 - 5 / 40) / 5  # finite population, without replacement
    basis = rotation(5, len(weights), 4)
    surrogate = fit_surrogate(landscape, weights, 5, directions=basis, noise="state_dependent", spacing=1e-4)
    found = surrogate.moments
    np.testing.assert_allclose(found.gradient, basis @ singles.mean(0), atol=1e-9)
    np.testing.assert_allclose(found.hessian, basis @ dense @ basis.T, atol=1e-9)
    np.testing.assert_allclose(found.secant_hessian, basis @ dense @ basis.T, atol=1e-6)
    np.testing.assert_allclose(found.noise_covariance, basis @ covariance @ basis.T, atol=1e-12)
    np.testing.assert_allclose(
        surrogate.landscape().covariance_at(np.zeros((1, 4)))[0], found.noise_covariance, atol=1e-12
    )
    # C(x) is that of another point up to second order: its error there falls as the square of the distance, or faster.
    errors = []
    for x in (0.02 * np.ones(4), 0.01 * np.ones(4)):
        there = torch.autograd.functional.jacobian(losses, surrogate.lift(x)).numpy()
        exact = basis @ (np.cov(there.T) * (1 - 5 / 40) / 5) @ basis.T
        errors.append(np.abs(surrogate.landscape().covariance_at(x[None])[0] - exact).max())
    assert errors[0] / errors[1] > 3.5


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_noise_is_a_covariance_everywhere(seed, scale):
    x = scale * np.random.default_rng(seed).standard_normal((1, 5))
    values = np.linalg.eigvalsh(small_surrogate().landscape().covariance_at(x)[0])
    assert values[0] >= -1e-9 * values[-1]


@cache
def small_surrogate():
    landscape = digits_landscape()
    weights = landscape.initial_weights((0,), Seeds(0))[0]
    return fit_surrogate(landscape, weights, 10, n_directions=5, noise="state_dependent")


def test_projecting_what_was_lifted_gives_it_back():
    x = np.random.default_rng(0).standard_normal((3, 5))
    np.testing.assert_allclose(small_surrogate().project(small_surrogate().lift(x)), x, atol=1e-5)
    assert not small_surrogate().project(small_surrogate().origin).any()


def test_principal_components_are_eigenvectors_of_the_covariance_of_rows():
    rows = np.random.default_rng(0).standard_normal((30, 4)) @ np.diag([3.0, 2.0, 1.0, 0.1])
    vectors = np.linalg.eigh(np.cov(rows.T))[1][:, ::-1].T
    np.testing.assert_allclose(
        np.abs(principal_directions(rows - rows.mean(0), 3)[0] @ vectors[:3].T), np.eye(3), atol=1e-9
    )
    found = fit_surrogate(
        QuadraticLandscape(np.eye(4), np.eye(4)),
        np.zeros(4),
        directions="trajectory",
        n_directions=2,
        trajectory=np.concatenate([rows, 100 * np.ones((10, 4))]),  # the last quarter is not seen
        held_out=0.25,
    )
    assert np.square(found.directions.numpy() @ vectors[:2].T).sum() == pytest.approx(2)


# --- Errors

POPULATION = np.diag([1.0, 0.5])


def coverage(mutation: float, repetitions: int = 400, n_samples: int = 500) -> np.ndarray:
    """Share of training sets whose 95 % intervals hold the values of the population, for g, H and C.

    Inputs N(0, Σ), targets of unit noise: at a distance d from the truth g = Σd, H = Σ and, by Isserlis' theorem, the
    covariance of a sample gradient is (dᵀΣd + 1) Σ + Σd dᵀΣ.
    """
    generator, away, size = np.random.default_rng(20_211), np.array([0.5, -0.5]), 10
    slope = POPULATION @ away
    noise = (away @ slope + 1) * POPULATION + np.outer(slope, slope)
    truth = (slope, POPULATION, noise / size * (n_samples - size) / (n_samples - 1))
    held = [[], [], []]
    for _ in range(repetitions):
        inputs = generator.standard_normal((n_samples, 2)) @ np.sqrt(POPULATION)
        landscape = LinearRegressionLandscape(inputs, generator.standard_normal(n_samples))
        found = fit_surrogate(landscape, away, size, directions=np.eye(2)).moments
        for place, name in enumerate(("gradient", "hessian", "noise_covariance")):
            error = mutation * getattr(found, f"{name}_standard_error")
            within = np.abs(getattr(found, name) - truth[place]) < 1.96 * error
            held[place].append(within[np.triu_indices(2)] if within.ndim == 2 else within)
    return np.array([np.mean(each) for each in held])


def test_errors_cover_the_population():
    """Two or three correlated values of 400 sets: at least 800 trials, three standard errors of them are 2.3 %."""
    found = coverage(1.0)
    assert (np.abs(found[:2] - 0.95) < 0.023).all(), found
    assert 0.95 - 0.04 < found[2] < 0.95 + 0.023, found  # squares of gradients are skew: intervals cover a little less
    assert (coverage(0.7, repetitions=150) < 0.88).all()  # mutated twin


def test_the_explained_share_covers_too():
    generator, shares, errors = np.random.default_rng(4), [], []
    for _ in range(200):
        inputs = generator.standard_normal((400, 2)) * [1.0, 0.5]
        landscape = LinearRegressionLandscape(inputs, generator.standard_normal(400))
        found = fit_surrogate(landscape, np.zeros(2), 10, directions=np.eye(2)[:1]).moments
        shares.append(found.explained_share)
        errors.append(found.explained_share_standard_error)
    # At the truth C = Σ: 1/1.25 of its trace lies along the first direction.
    covered = np.mean(np.abs(np.array(shares) - 0.8) < 1.96 * np.array(errors))
    assert 0.95 - 0.06 < covered < 0.95 + 0.046
    assert np.std(shares) == pytest.approx(np.mean(errors), rel=0.2)


# --- Laws


def walked(hessian, noise, rate, steps):
    total = np.zeros_like(noise)
    step = np.eye(len(hessian)) - rate * hessian
    for _ in range(steps):
        total = step @ total @ step + rate**2 * noise
    return total


@given(seed=st.integers(0, 10**6), steps=st.integers(0, 40), shift=st.floats(-3, 1))
def test_the_covariance_after_some_updates_is_the_recursions(seed, steps, shift):
    hessian, noise = definite(seed, 3) + shift * np.eye(3), definite(seed + 1, 3)
    rate = 0.3 / np.abs(np.linalg.eigvalsh(hessian)).max()
    found = covariance_after(hessian, noise, rate, steps)
    expected = walked(hessian, noise, rate, steps)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max(initial=1e-300))
    slope, place = np.arange(1.0, 4.0), np.zeros(3)
    for _ in range(steps):
        place = place - rate * (slope + hessian @ place)
    np.testing.assert_allclose(mean_after(slope, hessian, rate, steps), place, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("size", "steps"), [(1, 1), (1, 4), (1, 6), (2, 2), (2, 3)])
def test_shuffled_epochs_have_the_covariance_of_all_their_orders(size, steps):
    """Four samples of common curvature: every order of two epochs is walked through."""
    hessian, rate = np.array([[1.0, 0.3], [0.3, -0.2]]), 0.2
    pushes = np.random.default_rng(0).standard_normal((4, 2))
    pushes -= pushes.mean(0)
    noise = pushes.T @ pushes / 4 / size * (4 - size) / 3
    orders = [np.array(each).reshape(-1, size) for each in permutations(range(4))]
    ends = []
    for first, second in product(orders, orders):
        place, places = np.zeros(2), []
        for batch in np.concatenate([first, second]):
            place = place - rate * (hessian @ place + pushes[batch].mean(0))
            places.append(place)
        ends.append(places)
    ends = np.array(ends)
    exact = np.cov(ends[:, steps - 1].T, bias=True)
    np.testing.assert_allclose(
        covariance_after(hessian, noise, rate, steps, updates_per_epoch=4 / size), exact, atol=1e-12
    )
    for lag in range(8 // size - steps + 1):
        later, before = (ends[:, place] - ends[:, place].mean(0) for place in (steps - 1 + lag, steps - 1))
        found = covariance_after(hessian, noise, rate, steps, lag=lag, updates_per_epoch=4 / size)
        np.testing.assert_allclose(found, later.T @ before / len(ends), atol=1e-12)
    if steps > 1:
        independent = covariance_after(hessian, noise, rate, steps)
        assert np.abs(independent - exact).max() > 0.1 * np.abs(exact).max()


def test_the_stationary_law_is_that_of_the_quadratic_landscape():
    hessian, noise = definite(0, 3), definite(1, 3)
    rate = 0.5 / np.linalg.eigvalsh(hessian).max()
    valley = QuadraticLandscape(hessian, noise, minimum=[1.0, 2.0, 3.0])
    basis = rotation(7, 3)
    law = fit_surrogate(valley, np.zeros(3), directions=basis).law(rate)
    exact = basis @ valley.stationary_covariance(rate) @ basis.T
    np.testing.assert_allclose(law.variance, np.diag(exact), rtol=1e-9)
    np.testing.assert_allclose(law.mean_displacement, basis @ [1.0, 2.0, 3.0], rtol=1e-9)
    assert law.has_stationary_law.all()
    times = -1 / np.log(1 - rate * np.linalg.eigvalsh(hessian)[::-1])
    np.testing.assert_allclose(law.relaxation_time, times, rtol=1e-9)


def test_directions_that_do_not_settle_have_no_stationary_law_and_say_so():
    ridge = QuadraticLandscape(np.diag([2.0, 0.0, -1.0]), np.eye(3))
    surrogate = fit_surrogate(ridge, [0.0, 0.0, 0.1], directions=np.eye(3))
    law = surrogate.law(0.1)
    np.testing.assert_array_equal(law.has_stationary_law, [True, False, False])
    np.testing.assert_array_equal(np.isnan(law.variance), [False, True, True])
    np.testing.assert_array_equal(np.isnan(law.relaxation_time), [False, True, True])
    later = surrogate.law(0.1, steps=10)
    assert later.variance[1] == pytest.approx(0.01 * 10)
    assert later.mean_displacement[2] == pytest.approx(0.1 * (1.1**10 - 1))
    tilted = fit_surrogate(ridge, np.zeros(3), directions=np.array([[0.8, 0.6, 0.0], [-0.6, 0.8, 0.0]])).law(0.1)
    assert np.isnan(tilted.variance).all()
    dome = fit_surrogate(QuadraticLandscape(-np.eye(2), np.eye(2)), [0, 0], n_directions=2)
    assert np.isnan(dome.law(0.1).variance).all()
    with pytest.raises(ConfigurationError, match="curvatures from -1 to 2: expected all above 0"):
        covariance_after(np.diag([2.0, -1.0]), np.eye(2), 0.1, inf)


@given(seed=st.integers(0, 10**6))
def test_turning_the_directions_turns_the_law(seed):
    landscape, turn, basis = regression(), rotation(seed, 3), rotation(seed + 1, 4, 3)
    weights = np.array([0.5, 0.5, 0.0, 1.0])
    first, second = (
        fit_surrogate(landscape, weights, 7, directions=each, noise="state_dependent") for each in (basis, turn @ basis)
    )
    x = np.random.default_rng(seed).standard_normal((2, 3))
    here, there = (each.landscape().covariance_at(at) for each, at in ((first, x), (second, x @ turn.T)))
    np.testing.assert_allclose(there, turn @ here @ turn.T, atol=1e-8 * np.abs(here).max())
    laws = [covariance_after(each.moments.hessian, each.moments.noise_covariance, 0.05, 30) for each in (first, second)]
    np.testing.assert_allclose(laws[1], turn @ laws[0] @ turn.T, atol=1e-9 * np.abs(laws[0]).max())


def moments_of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Second moments of replicas with standard errors."""
    products = x[:, :, None] * x[:, None, :]
    return products.mean(0), products.std(0) / len(x) ** 0.5


@pytest.mark.proof
def test_turned_surrogates_run_alike_and_as_the_landscape_does():
    """SGD on linear regression against its surrogate in two bases, all second moments within 4.5 standard errors."""
    landscape, rate, size, steps, weights = regression(noise=0.05), 0.1, 7, 25, np.array([0.2, -0.3, 0.0, 1.0])
    start = np.tile(weights, (8000, 1))
    walk = sgd(landscape, rate, size, independent=True)
    ends = advance(walk, walk.start(8000, 1, weights=start), steps).weights.numpy() - weights
    exact, exact_error = moments_of(ends)
    for seed, noise in ((1, "state_dependent"), (2, "state_dependent"), (1, "constant")):
        basis = rotation(seed, 4)
        process = fit_surrogate(landscape, weights, size, directions=basis, noise=noise).process(rate)
        x = advance(process, process.start(8000, seed), steps).weights.numpy()
        found, error = moments_of(x @ basis)
        deviation = np.abs(found - exact) / np.hypot(error, exact_error)
        if noise == "constant":  # mutated twin: noise that stays where labels fit better and better
            assert deviation.max() > 10
        else:
            assert deviation.max() < 4.5
            twisted = moments_of(x @ rotation(seed + 10, 4))[0]
            assert np.abs((twisted - exact) / np.hypot(error, exact_error)).max() > 10


def test_compiled_and_plain_steps_go_the_same_way():
    for noise in ("constant", "state_dependent"):
        surrogate = fit_surrogate(regression(), np.zeros(4), 7, directions=rotation(0, 4, 2), noise=noise)
        ends = [
            advance(process, process.start(3, 0), 20).weights.numpy()
            for process in (surrogate.process(0.05), surrogate.process(0.05, update=Plain()))
        ]
        np.testing.assert_allclose(*ends, rtol=1e-9)
    constants, x = np.array([1.0, 2.0, 3.0, 4.0, 10.0, 20.0]), np.ones((2, 64))
    affine(x, constants, out := np.empty_like(x))
    np.testing.assert_array_equal(out[:, 0], [13.0, 27.0])
    landscape = surrogate.landscape()
    at = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    landscape.loss(at).sum().backward()
    np.testing.assert_allclose(at.grad, landscape.gradient(at.detach()), rtol=1e-12)
    assert landscape.description["noise_polynomial"]


def test_estimates_are_labelled():
    estimates = small_surrogate().estimates()
    assert estimates.hessian.dims == ("direction", "other_direction")
    assert {f"{name}_standard_error" for name in ("gradient", "hessian", "noise_covariance")} <= set(estimates)
    assert all(each.attrs["units"] for each in estimates.data_vars.values())


NETWORK = digits_landscape()
VALLEY = QuadraticLandscape(np.eye(2), np.eye(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_surrogate(VALLEY, [0.0]), r"weights has shape \(1,\): expected \(2,\)"),
        (lambda: fit_surrogate(VALLEY, [0, 0], n_directions=3), "n_directions=3: expected a whole"),
        (
            lambda: fit_surrogate(VALLEY, [0, 0], directions=[[1, 1]]),
            "differ from orthonormal ones by 1: expected orthonormal rows",
        ),
        (lambda: fit_surrogate(VALLEY, [0, 0], directions=[[1, 0, 0]]), r"directions of shape \(1, 3\)"),
        (
            lambda: fit_surrogate(VALLEY, [0, 0], n_directions=2, directions="trajectory"),
            "with no rows of one: expected some",
        ),
        (
            lambda: fit_surrogate(VALLEY, [0, 0], directions="trajectory", n_directions=2, trajectory=np.ones((9, 2))),
            "whose 6 rows span 0: expected as many at most",
        ),
        (
            lambda: fit_surrogate(VALLEY, [0, 0], n_directions=1, trajectory=np.ones((9, 3))),
            r"trajectory of shape \(9, 3\) came",
        ),
        (
            lambda: fit_surrogate(VALLEY, [0, 0], n_directions=1, noise="state_dependent"),
            "on QuadraticLandscape: expected a landscape made of samples",
        ),
        (lambda: fit_surrogate(regression(), np.zeros(4)), "batch_size=None: expected a whole number"),
        (lambda: fit_surrogate(regression(), np.zeros(4), 61), "batch_size=61: expected a whole number"),
        (
            lambda: fit_surrogate(regression(), np.zeros(4), 7, n_directions=2, spacing=0),
            "spacing=0: expected a positive",
        ),
        (
            lambda: fit_surrogate(digits_landscape(parameters="2.weight"), NETWORK.own_weights, 5),
            "measures some of its tensors only",
        ),
        (
            lambda: fit_surrogate(NETWORK, NETWORK.own_weights, 5, replica=1),
            "replica=1: expected a whole number .int. from 0 to 0",
        ),
        (lambda: fit_surrogate("network", [0, 0]), "landscape is of type str: expected a Landscape"),
        (
            lambda: fit_surrogate(PotentialLandscape(lambda x: x[0] ** 2, 1), [0.0], n_directions=1).law(0),
            "learning_rate=0: expected a positive",
        ),
        (lambda: small_surrogate().law(0.1, steps=-1), "steps=-1: expected a whole number"),
        (lambda: small_surrogate().law(0.1, updates_per_epoch=1), "updates_per_epoch=1: expected N/B"),
    ],
)
def test_what_cannot_be_reduced_is_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()


def test_an_unknown_choice_lists_the_known_ones():
    for choice, message in (
        ({"directions": "pca"}, "'pca': expected one of noise"),
        ({"noise": "none"}, "expected one of constant"),
    ):
        with pytest.raises(UnknownNameError, match=message):
            fit_surrogate(VALLEY, [0, 0], **choice)
