"""Eigenpairs, traces, densities and overlaps of symmetric operators against dense linear algebra in float64."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator, eigsh

from langevin_nn.errors import ConfigurationError
from langevin_nn.operators import (
    DenseOperator,
    SymmetricOperator,
    eigenvector_overlap,
    estimate_trace,
    leading_eigenpairs,
    spectral_density,
    subspace_overlap,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# Rounding of some hundred float64 operations, relative to the largest eigenvalue.
ROUNDING = 1e-12


def with_spectrum(values, seed=0):
    """A symmetric matrix with given eigenvalues and random eigenvectors."""
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values),) * 2))
    matrix = (rotation * np.asarray(values)) @ rotation.T
    return (matrix + matrix.T) / 2


def random_symmetric(size, seed=0):
    matrix = np.random.default_rng(seed).standard_normal((size, size))
    return (matrix + matrix.T) / 2


class Watched(SymmetricOperator):
    """Keeps the blocks that it is applied to."""

    def __init__(self, matrix):
        self._inner = DenseOperator(matrix)
        self.size, self.device, self.blocks = self._inner.size, self._inner.device, []

    def apply(self, vectors):
        self.blocks.append(vectors.numpy().copy())
        return self._inner.apply(vectors)

    @property
    def n_products(self):
        return sum(len(block) for block in self.blocks)


def sorted_as(values, which):
    keys = {"largest": -values, "smallest": values, "magnitude": -abs(values)}[which]
    return values[np.argsort(keys, kind="stable")]


def assert_honest(pairs, matrix, which="largest"):
    """Orthonormal vectors, residuals that they have, an eigenvalue within each, and the order that was asked for."""
    vectors, exact = pairs.vectors.numpy(), np.linalg.eigvalsh(matrix)
    rounding = ROUNDING * abs(exact).max()
    assert pairs.values.shape == pairs.residuals.shape == pairs.errors.shape == (len(vectors),)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), rtol=0, atol=1e-11)
    residuals = np.linalg.norm(vectors @ matrix - pairs.values[:, None] * vectors, axis=1)
    assert (residuals <= pairs.residuals + rounding).all()
    assert (pairs.residuals <= residuals + rounding).all()
    nearest = abs(exact - pairs.values[:, None]).min(1)
    assert (nearest <= pairs.residuals + rounding).all()
    assert (pairs.errors <= pairs.residuals).all()
    np.testing.assert_array_equal(pairs.values, sorted_as(pairs.values, which))


@st.composite
def matrices(draw):
    """Symmetric ones of any rank, with eigenvalues apart, repeated or decaying over many orders, on any scale."""
    size = draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["apart", "repeated", "decaying", "steps"]))
    if kind == "apart":
        values = generator.uniform(-1, 1, size)
    elif kind == "repeated":
        values = generator.choice(generator.uniform(-1, 1, draw(st.integers(1, 4))), size)
    elif kind == "decaying":
        values = 10.0 ** (-draw(st.floats(0.05, 2)) * np.arange(size)) * generator.choice([-1, 1], size)
    else:
        values = 10.0 ** -(draw(st.sampled_from([3, 6])) * generator.integers(0, 3, size))
    if draw(st.booleans()):
        values = abs(values)
    values[draw(st.integers(0, size)) :] = 0
    return with_spectrum(values * 10.0 ** draw(st.integers(-12, 12)), seed=draw(st.integers(0, 2**32 - 1)))


# --- eigenpairs


@settings(max_examples=150)
@given(data=st.data(), matrix=matrices(), which=st.sampled_from(["largest", "smallest", "magnitude"]))
def test_leading_eigenpairs_are_those_of_the_dense_matrix(data, matrix, which):
    n_modes = data.draw(st.integers(1, len(matrix)))
    block_size = data.draw(st.one_of(st.none(), st.integers(1, 2 * len(matrix))))
    seed = data.draw(st.integers(0, 1000))
    operator = DenseOperator(matrix)
    pairs = leading_eigenpairs(operator, n_modes, which=which, tolerance=1e-9, block_size=block_size, seed=seed)
    assert pairs.converged
    assert_honest(pairs, matrix, which)
    exact = np.linalg.eigvalsh(matrix)
    got, expected = pairs.values, sorted_as(exact, which)[:n_modes]
    if which == "magnitude":  # of λ and −λ either may come first
        got, expected = abs(got), abs(expected)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-9 * abs(exact).max())


@pytest.mark.parametrize(
    "values",
    [
        10.0 ** -np.arange(40),
        np.r_[np.full(4, 1.0), np.full(4, 1e-6), np.full(8, 1e-12), np.zeros(60)],
        np.r_[10.0 ** -np.arange(0, 12, 2.0), np.zeros(50)],
    ],
    ids=["a decade each", "three steps", "low rank"],
)
@pytest.mark.parametrize("block_size", [1, 4, 8, 16])
def test_vectors_stay_orthonormal_where_a_block_of_products_is_nearly_dependent(values, block_size):
    """The products of a block are then all along the same few vectors, to all digits but the last ones."""
    matrix = with_spectrum(values)
    pairs = leading_eigenpairs(DenseOperator(matrix), 10, block_size=block_size)
    assert pairs.converged
    assert_honest(pairs, matrix)
    np.testing.assert_allclose(pairs.values, values[:10], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    "values",
    [np.r_[5.0, 5.0, 2.0 ** -np.arange(58)], np.r_[3 * [10.0], 1.0, 1.0, 5 * [0.1], np.zeros(390)]],
    ids=["two of sixty", "three of four hundred"],
)
@pytest.mark.parametrize("block_size", [None, 1, 2])
def test_a_repeated_eigenvalue_is_found_as_often_as_it_occurs(values, block_size):
    """Although the Krylov space of one vector holds only one of its eigenvectors."""
    pairs = leading_eigenpairs(DenseOperator(np.diag(values)), 4, block_size=block_size)
    np.testing.assert_allclose(pairs.values, values[:4], rtol=0, atol=1e-5 * values[0])


DECAYING = {
    "1/k": 1 / np.arange(1, 401),
    "1/k²": 1 / np.arange(1, 401) ** 2.0,
    "exponential": np.exp(-np.arange(400) / 8),
    "indefinite": 1 / np.arange(1, 401) * np.where(np.arange(400) % 3, 1, -1),
    "spikes over a bulk": np.r_[9.0, 7, 5, 4, 3, np.random.default_rng(1).uniform(0, 1, 395)],
}


@pytest.mark.parametrize("scale", [1e-12, 1, 1e12])
@pytest.mark.parametrize("spectrum", DECAYING)
def test_stopped_early_the_error_estimates_cover_the_errors(spectrum, scale):
    matrix = with_spectrum(scale * DECAYING[spectrum])
    operator = Watched(matrix)
    pairs = leading_eigenpairs(operator, 5)
    assert operator.n_products < 300, "it did not stop early"
    assert pairs.converged
    assert_honest(pairs, matrix)
    exact = np.linalg.eigvalsh(matrix)[::-1]
    errors = abs(pairs.values - exact[:5])
    assert (errors <= pairs.errors + ROUNDING * exact[0]).all()
    assert (pairs.residuals <= 1e-3 * abs(pairs.values) + ROUNDING * exact[0]).all()


def test_the_tests_of_residuals_and_errors_see_understated_ones():
    """Mutated twins: residuals of 95 %, and errors a thousandth of what they are, where the tolerance is loose."""
    matrix = with_spectrum(DECAYING["1/k"])
    pairs = leading_eigenpairs(DenseOperator(matrix), 5, tolerance=0.1, max_dimension=12)
    assert_honest(pairs, matrix)
    with pytest.raises(AssertionError):
        assert_honest(dataclasses.replace(pairs, residuals=0.95 * pairs.residuals), matrix)
    errors = abs(pairs.values - np.linalg.eigvalsh(matrix)[::-1][:5])
    assert (errors > 1e-3 * pairs.errors + ROUNDING).any()


def test_the_error_estimate_is_that_of_kato_and_temple():
    """r²/gap by hand: gaps of 4 − 0.1 and 2 − 0.2 to the neighbours, none of them known below the last."""
    pairs = leading_eigenpairs(DenseOperator(np.diag([7.0, 3.0, 1.0])), 3)
    pairs = dataclasses.replace(pairs, residuals=np.array([0.05, 0.1, 0.2]))
    expected = [0.05**2 / 3.9, 0.1**2 / 1.8, 0.2**2 / 1.8]
    np.testing.assert_allclose(pairs.errors, expected, rtol=1e-9)
    close = dataclasses.replace(pairs, values=np.array([3.0, 2.9, 1.0]))
    np.testing.assert_allclose(close.errors[:2], close.residuals[:2])  # the gap is not known to be one
    alone = dataclasses.replace(pairs, values=np.array([3.0]), residuals=np.array([0.5]))
    np.testing.assert_array_equal(alone.errors, [0.5])


def test_the_gap_is_that_to_the_nearest_value_in_any_order():
    """By absolute value, 5 comes beside −4.9 and is 0.2 from 4.8."""
    pairs = leading_eigenpairs(DenseOperator(np.diag([5.0, -4.9, 4.8])), 3, which="magnitude")
    pairs = dataclasses.replace(pairs, residuals=np.full(3, 0.01))
    np.testing.assert_allclose(pairs.errors[[0, 2]], 0.01**2 / 0.19, rtol=1e-6)


def test_the_error_estimates_cover_the_errors_of_modes_by_absolute_value():
    """Pairs of modes 2 % apart, with one of the other sign between them in the order."""
    values = np.r_[1, -0.99, 0.98, -0.97, 0.5 / np.arange(1, 397)]
    matrix = with_spectrum(values)
    seen = 0
    for max_dimension in range(8, 30):
        pairs = leading_eigenpairs(DenseOperator(matrix), 4, which="magnitude", max_dimension=max_dimension)
        if pairs.residuals.max() < 0.01:  # half of what separates the closest, so that each is one of them
            errors = abs(values - pairs.values[:, None]).min(1)
            assert (errors <= pairs.errors + ROUNDING).all()
            seen += 1
    assert seen > 5


def test_too_small_a_krylov_space_is_said_and_its_residuals_are_large():
    matrix = with_spectrum(np.linspace(1, 2, 400))
    pairs = leading_eigenpairs(DenseOperator(matrix), 10, max_dimension=12)
    assert not pairs.converged
    assert_honest(pairs, matrix)
    assert pairs.residuals.max() > 0.05
    assert leading_eigenpairs(DenseOperator(matrix), 10, max_dimension=400).converged


def test_the_same_seed_gives_the_same_bits():
    operator = DenseOperator(with_spectrum(DECAYING["1/k"]))
    first, again, other = (leading_eigenpairs(operator, 6, seed=seed) for seed in (3, 3, 4))
    for name in ("values", "vectors", "residuals"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.residuals != other.residuals).any()


@pytest.mark.parametrize("n_modes", [0, -1, 8])
def test_as_many_pairs_as_there_are_not_are_refused(n_modes):
    with pytest.raises(ConfigurationError, match=rf"n_modes={n_modes}: expected 1 to 7, the size of the operator"):
        leading_eigenpairs(DenseOperator(np.eye(7)), n_modes)


def test_an_unknown_order_is_refused():
    with pytest.raises(ConfigurationError, match="which='top': expected largest, smallest or magnitude"):
        leading_eigenpairs(DenseOperator(np.eye(3)), 1, which="top")


# --- scipy and numpy


@pytest.mark.parametrize(("which", "scipys"), [("largest", "LA"), ("smallest", "SA"), ("magnitude", "LM")])
def test_scipy_finds_the_same_pairs_of_the_same_operator(which, scipys):
    operator = DenseOperator(random_symmetric(80))
    start = np.random.default_rng(0).standard_normal(80)
    values, vectors = eigsh(operator.to_scipy(), k=6, which=scipys, v0=start)
    pairs = leading_eigenpairs(operator, 6, which=which, tolerance=1e-8)
    np.testing.assert_allclose(pairs.values, sorted_as(values, which), rtol=0, atol=1e-10)
    assert subspace_overlap(pairs.vectors, torch.as_tensor(vectors.T.copy())) == pytest.approx(1, abs=1e-9)


@given(size=st.integers(1, 20), n_vectors=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_products_are_those_of_the_matrix(size, n_vectors, seed):
    matrix = random_symmetric(size, seed)
    block = np.random.default_rng(seed).standard_normal((size, n_vectors))
    operator, ours = DenseOperator(torch.as_tensor(matrix)), DenseOperator(matrix).to_scipy()
    theirs = aslinearoperator(matrix)
    assert ours.shape == (size, size)
    assert ours.dtype == np.float64
    tolerance = {"rtol": 0, "atol": 1e-13 * size}
    np.testing.assert_allclose(operator.dense(), matrix, **tolerance)
    np.testing.assert_allclose(operator.matmat(block), matrix @ block, **tolerance)
    np.testing.assert_allclose(operator.matvec(list(block[:, 0])), matrix @ block[:, 0], **tolerance)
    for name in ("matvec", "rmatvec"):
        for vector in (block[:, 0], block[:, :1]):
            np.testing.assert_allclose(getattr(ours, name)(vector), getattr(theirs, name)(vector), **tolerance)
    for name in ("matmat", "rmatmat"):
        np.testing.assert_allclose(getattr(ours, name)(block), getattr(theirs, name)(block), **tolerance)
    for turned in (ours.adjoint(), ours.H, ours.T):
        np.testing.assert_allclose(turned @ block, matrix.T @ block, **tolerance)


def test_whole_numbers_are_multiplied_as_real_ones():
    operator = DenseOperator(np.array([[1, 2], [2, 3]]))
    np.testing.assert_array_equal(operator.matvec([1, 0]), [1.0, 2.0])


@pytest.mark.parametrize("shape", [(5, 1), (0, 1), (7,), (5, 7), (7, 2, 1), ()])
def test_vectors_of_another_shape_are_refused(shape):
    operator = DenseOperator(np.eye(7))
    apply, given = (operator.matvec, shape[:1]) if shape[1:] == (1,) else (operator.matmat, shape)
    message = (
        rf"vectors of shape {re.escape(str(shape))} were given to an operator on 7 parameters: expected shape \(7, v"
    )
    with pytest.raises(ConfigurationError, match=message):
        apply(np.ones(given))


@pytest.mark.parametrize("shape", [(2, 3), (4,), (2, 2, 2)])
def test_what_is_no_square_matrix_is_no_operator(shape):
    with pytest.raises(ConfigurationError, match=rf"a matrix of shape {re.escape(str(shape))} came: expected a square"):
        DenseOperator(np.ones(shape))


def test_a_matrix_that_is_not_symmetric_is_no_operator():
    with pytest.raises(ConfigurationError, match="differs from its transpose by 1: expected a symmetric one"):
        DenseOperator(np.array([[1.0, 2.0], [1.0, 1.0]]))
    large = random_symmetric(600)
    large[599, 3] += 1
    with pytest.raises(ConfigurationError, match="differs from its transpose by 1"):
        DenseOperator(large)


# --- trace

N_REPETITIONS, N_PROBES = 1000, 8
SIGMAS = 4


def assert_mean_is(values, expected):
    """Within SIGMAS standard errors of the mean."""
    error = values.std(ddof=1) / len(values) ** 0.5
    assert abs(values.mean() - expected) <= SIGMAS * error, f"{values.mean()} ± {error}, expected {expected}"


def test_the_trace_estimate_is_unbiased_and_its_error_has_the_variance_in_closed_form():
    """2 Σ_{i≠j} M_ij² for one probe; its unbiased estimate divided by the number of probes is the squared error."""
    matrix = random_symmetric(12) + 3 * np.eye(12)
    estimates = np.array([estimate_trace(DenseOperator(matrix), N_PROBES, seed) for seed in range(N_REPETITIONS)])
    values, errors = estimates.T
    assert_mean_is(values, np.trace(matrix))  # to 0.5 %
    with pytest.raises(AssertionError, match="expected"):  # mutated twin
        assert_mean_is(1.05 * values, np.trace(matrix))
    off_diagonal = matrix - np.diag(np.diag(matrix))
    variance = 2 * np.square(off_diagonal).sum() / N_PROBES
    assert_mean_is(errors**2, variance)
    assert_mean_is((values - np.trace(matrix)) ** 2, variance)
    with pytest.raises(AssertionError, match="expected"):  # mutated twin: divided by one probe fewer
        assert_mean_is(errors**2 * N_PROBES / (N_PROBES - 1), variance)


@given(
    diagonal=st.lists(st.integers(-1000, 1000), min_size=1, max_size=30),
    n_probes=st.integers(2, 20),
    seed=st.integers(0, 1000),
)
def test_the_trace_of_a_diagonal_matrix_is_exact(diagonal, n_probes, seed):
    operator = DenseOperator(np.diag(np.array(diagonal, dtype=np.float64)))
    assert estimate_trace(operator, n_probes, seed) == (sum(diagonal), 0)


@pytest.mark.parametrize("n_probes", [1, 0, -3])
def test_fewer_than_two_probes_are_refused(n_probes):
    for estimate in (estimate_trace, spectral_density):
        with pytest.raises(ConfigurationError, match=rf"n_probes={n_probes}: expected at least 2, since their spread"):
            estimate(DenseOperator(np.eye(3)), n_probes)


# --- spectral density


@settings(max_examples=100)
@given(
    size=st.integers(1, 40),
    n_steps=st.integers(1, 8),
    n_probes=st.integers(2, 4),
    seed=st.integers(0, 1000),
    power=st.integers(-9, 9),
)
def test_quadrature_is_exact_for_as_many_moments_as_it_has_nodes_twice(size, n_steps, n_probes, seed, power):
    """Σ_i w_i θ_i^k = z'M^k z/‖z‖² for k < 2 n_steps, by dense powers and the very probes."""
    scale = 10.0**power
    values = np.random.default_rng(seed).uniform(-1, 1, size)
    matrix = with_spectrum(values, seed)
    operator = Watched(scale * matrix)
    measure = spectral_density(operator, n_probes, n_steps, seed)
    probes = operator.blocks[0]
    assert probes.shape == (n_probes, size)
    np.testing.assert_allclose(abs(probes), size**-0.5, rtol=1e-14)
    assert measure.nodes.shape == measure.weights.shape == (n_probes, min(n_steps, size))
    assert measure.size == size
    assert (measure.weights >= 0).all()
    np.testing.assert_allclose(measure.weights.sum(1), 1, rtol=1e-12)
    for k in range(2 * n_steps):
        expected = np.einsum("pi,pi->p", probes, probes @ np.linalg.matrix_power(matrix, k))
        moments = (measure.weights * (measure.nodes / scale) ** k).sum(1)
        np.testing.assert_allclose(moments, expected, rtol=0, atol=1e-11)


def test_the_first_moment_that_is_not_exact_is_seen():
    """Mutated twin: degree 2 n_steps."""
    matrix = random_symmetric(40) / 10
    operator = Watched(matrix)
    measure = spectral_density(operator, 2, 3)
    expected = np.einsum("pi,pi->p", operator.blocks[0], operator.blocks[0] @ np.linalg.matrix_power(matrix, 6))
    assert (abs((measure.weights * measure.nodes**6).sum(1) - expected) > 1e-3 * expected).all()


def test_the_density_and_the_trace_estimate_agree_for_the_same_probes():
    operator = DenseOperator(random_symmetric(30) + np.eye(30))
    value, error = spectral_density(operator, 6, 5, seed=9).trace()
    np.testing.assert_allclose((value, error), estimate_trace(operator, 6, seed=9), rtol=1e-11)


SPECTRUM = np.sort(np.random.default_rng(5).gamma(1, size=60))


def assert_is_the_spectrum(measure, exact, sigmas):
    """Share of eigenvalues up to some values, and the trace, within standard errors."""
    at = np.quantile(SPECTRUM, np.linspace(0.05, 0.95, 10)) + 1e-6
    values, errors = measure.cumulative(at)
    assert (errors > 0).all()
    assert (abs(values - (exact[:, None] <= at).mean(0)) <= sigmas * errors).all()
    value, error = measure.trace()
    assert error < 0.02 * exact.sum()
    assert abs(value - exact.sum()) <= sigmas * error


def test_the_cumulative_share_is_that_of_the_spectrum():
    """With as many steps as rows the quadrature is exact, so that 400 random probes are all that is uncertain."""
    measure = spectral_density(DenseOperator(with_spectrum(SPECTRUM)), n_probes=400, n_steps=60)
    assert_is_the_spectrum(measure, SPECTRUM, SIGMAS)
    assert measure.cumulative([-1.0])[0] == 0
    assert measure.cumulative([100.0])[0] == pytest.approx(1, abs=1e-12)
    louder = spectral_density(DenseOperator(with_spectrum(1.05 * SPECTRUM)), n_probes=400, n_steps=60)  # mutated twin
    with pytest.raises(AssertionError):
        assert_is_the_spectrum(louder, SPECTRUM, SIGMAS)


@pytest.mark.parametrize("n_steps", [5, 25])
def test_few_steps_bound_the_share_on_average(n_steps):
    """The share below a gap that the quadrature resolves: a third of the eigenvalues near 0, the others near 10."""
    values = np.r_[np.linspace(0, 1, 40), np.linspace(9, 11, 80)]
    measure = spectral_density(DenseOperator(with_spectrum(values)), n_probes=60, n_steps=n_steps)
    value, error = measure.cumulative([5.0])
    assert abs(value - 1 / 3) <= SIGMAS * error
    assert 0 < error < 0.02


@pytest.mark.parametrize("width", [0.05, 1.0])
def test_the_density_is_nonnegative_and_integrates_to_one_and_to_the_mean_eigenvalue(width):
    measure = spectral_density(DenseOperator(with_spectrum(SPECTRUM)), n_probes=4, n_steps=20)
    at = np.linspace(measure.nodes.min() - 9 * width, measure.nodes.max() + 9 * width, 5000)
    values, errors = measure.density(at, width)
    assert values.shape == errors.shape == at.shape
    assert (values >= 0).all()
    assert (errors >= 0).all()
    assert np.trapezoid(values, at) == pytest.approx(1, rel=1e-9)
    assert np.trapezoid(at * values, at) == pytest.approx(measure.trace()[0] / 60, rel=1e-9)


def test_the_density_of_one_node_is_a_gaussian():
    values, errors = spectral_density(DenseOperator(2 * np.eye(5))).density([2.0, 2.5, 4.0], width=0.5)
    expected = np.exp(-0.5 * np.array([0, 1, 4.0]) ** 2) / (0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(errors, 0, atol=1e-14)


@pytest.mark.parametrize("width", [0, -1, np.nan])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ConfigurationError, match=rf"width={width}: expected a positive width, in units of the eigen"):
        spectral_density(DenseOperator(np.eye(2))).density([0.0], width)


@pytest.mark.parametrize("n_steps", [0, -1])
def test_less_than_a_step_is_refused(n_steps):
    with pytest.raises(ConfigurationError, match=rf"n_steps={n_steps}: expected at least 1"):
        spectral_density(DenseOperator(np.eye(2)), n_steps=n_steps)


@pytest.mark.parametrize("n_steps", [1, 2, 6, 7, 500])
@pytest.mark.parametrize("scale", [1e-12, 1, 1e12])
def test_exhausted_krylov_spaces_keep_their_measure(n_steps, scale):
    """The identity, a projector, the zero matrix and a matrix of rank 1 end after one or two steps."""
    direction = np.full(6, 6**-0.5)
    cases = {
        "zero": np.zeros((6, 6)),
        "identity": np.eye(6),
        "projector": np.diag([1.0, 1, 1, 0, 0, 0]),
        "rank 1": 4 * np.outer(direction, direction),
    }
    for name, matrix in cases.items():
        operator = Watched(scale * matrix)
        measure = spectral_density(operator, n_probes=5, n_steps=n_steps)
        assert np.isfinite(measure.nodes).all(), name
        np.testing.assert_allclose(measure.weights.sum(1), 1, rtol=1e-12, err_msg=name)
        probes = operator.blocks[0]
        for k in (1, 2) if n_steps > 1 else (1,):
            expected = np.einsum("pi,pi->p", probes, probes @ np.linalg.matrix_power(matrix, k))
            got = (measure.weights * (measure.nodes / scale) ** k).sum(1)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12, err_msg=name)
    if n_steps > 1:
        share = spectral_density(DenseOperator(scale * cases["projector"]), n_steps=n_steps).cumulative([0.5 * scale])
        np.testing.assert_allclose(share, ([0.5], [0]), atol=1e-12)


def test_the_same_seed_gives_the_same_measure():
    operator = DenseOperator(random_symmetric(20))
    first, again, other = (spectral_density(operator, 3, 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.nodes, again.nodes)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert (first.nodes != other.nodes).any()


# --- overlap


def orthonormal(n_vectors, size, seed=0):
    columns = np.random.default_rng(seed).standard_normal((size, n_vectors))
    return torch.as_tensor(np.linalg.qr(columns)[0].T.copy())


def test_identical_and_orthogonal_sets_overlap_wholly_and_not():
    vectors = orthonormal(7, 20)
    np.testing.assert_allclose(eigenvector_overlap(vectors, vectors), np.eye(7), atol=1e-14)
    assert subspace_overlap(vectors, vectors) == pytest.approx(1, abs=1e-14)
    assert subspace_overlap(vectors[:3], vectors) == pytest.approx(1, abs=1e-14)
    assert subspace_overlap(vectors, vectors[:3]) == pytest.approx(1, abs=1e-14)
    assert subspace_overlap(vectors[:3], vectors[3:]) == pytest.approx(0, abs=1e-14)
    assert subspace_overlap(vectors[:4], vectors[2:]) == pytest.approx(0.5, abs=1e-14)
    assert subspace_overlap(vectors[:4].float(), vectors[2:]) == pytest.approx(0.5, abs=1e-6)


@given(k=st.integers(1, 6), n_others=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_overlaps_are_squared_cosines_and_do_not_depend_on_the_basis(k, n_others, seed):
    first, second = orthonormal(k, 8, seed), orthonormal(n_others, 8, seed + 1)
    cosines = np.array([[sum(a * b for a, b in zip(u, v, strict=True)) for v in second.numpy()] for u in first.numpy()])
    overlap = eigenvector_overlap(first, second)
    np.testing.assert_allclose(overlap, cosines**2, rtol=0, atol=1e-14)
    assert overlap.sum(0).max() <= 1 + 1e-12
    assert overlap.sum(1).max() <= 1 + 1e-12
    angles = np.linalg.svd(first.numpy() @ second.numpy().T, compute_uv=False)
    share = subspace_overlap(first, second)
    assert share == pytest.approx(np.mean(angles**2), abs=1e-13)
    turned = orthonormal(k, k, seed + 2) @ first, orthonormal(n_others, n_others, seed + 3) @ second
    assert subspace_overlap(*turned) == pytest.approx(share, abs=1e-13)


def test_random_subspaces_overlap_by_the_larger_dimension_over_all():
    shares = np.array([subspace_overlap(orthonormal(3, 25, 2 * k), orthonormal(8, 25, 2 * k + 1)) for k in range(400)])
    assert_mean_is(shares, 8 / 25)
    with pytest.raises(AssertionError, match="expected"):  # mutated twin: normalised by the other dimension
        assert_mean_is(shares * 3 / 8, 8 / 25)


def test_vectors_over_different_parameters_are_refused():
    for overlap in (eigenvector_overlap, subspace_overlap):
        with pytest.raises(
            ConfigurationError, match="eigenvectors of lengths 5 and 6 came: expected vectors over the same"
        ):
            overlap(torch.eye(5), torch.eye(6))


# --- large matrices, which are searched in single precision first


def large_matrix(values, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    return (q * values) @ q.T


def test_a_search_in_single_precision_gives_values_in_double_precision():
    values = 1 / np.arange(1.0, 601) ** 1.5
    operator = DenseOperator(large_matrix(values))
    assert operator.rough().precision == torch.float32
    pairs = leading_eigenpairs(operator, 20, tolerance=1e-4)
    assert pairs.converged
    # Rounding to single precision alone would leave 6e-8 of the largest value, 6e-6 of the twentieth.
    np.testing.assert_allclose(pairs.values, values[:20], rtol=1e-7)
    assert (np.abs(pairs.values - values[:20]) <= pairs.residuals).all()
    residuals = np.linalg.norm(
        operator.matmat(pairs.vectors.T.numpy()) - pairs.vectors.T.numpy() * pairs.values, axis=0
    )
    assert (residuals <= pairs.residuals).all()
    assert (pairs.residuals <= 1e-4 * pairs.values * 1.01).all()


def test_what_single_precision_cannot_see_is_searched_in_double_precision():
    values = np.concatenate([[1.0], 1e-9 / np.arange(1, 600) ** 1.5])
    pairs = leading_eigenpairs(DenseOperator(large_matrix(values)), 4)
    assert pairs.converged
    np.testing.assert_allclose(pairs.values, values[:4], rtol=1e-5)
