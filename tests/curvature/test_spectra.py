"""Hessians and noise spectra, by every way to them, against dense linear algebra and automatic differentiation."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from twins import losses_of, slow_gradients

from langevin_nn import NetworkLandscape, Seeds
from langevin_nn.curvature import Hessian
from langevin_nn.ensemble import GradientEnsemble, gradient_ensemble
from langevin_nn.ensemble.spectrum import Spectrum, routes
from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.gradients.blocks import OuterProductBlock
from langevin_nn.gradients.layers import fast_layers
from langevin_nn.gradients.streamed import StreamedSampleGradients
from langevin_nn.landscape import QuadraticLandscape, SampleGradients, cross_entropy
from langevin_nn.operators import (
    eigenvector_overlap,
    estimate_trace,
    leading_eigenpairs,
    spectral_density,
    subspace_overlap,
)

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDING = 1e-12
SIGMAS = 4


# --- networks


class Attention(nn.Module):
    """Three classes from the mean over a sequence that attends to itself."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, sequence):
        return self.out(self.attention(sequence, sequence, sequence, need_weights=False)[0].mean(1))


class Recurrent(nn.Module):
    """Three classes from the last state of a sequence; its cell has no forward derivative."""

    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(3, 2, batch_first=True)
        self.out = nn.Linear(2, 3)

    def forward(self, sequence):
        return self.out(self.cells(sequence)[0][:, -1])


def perceptron():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def convolution():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softplus(), nn.Flatten(), nn.Linear(2 * 3 * 2, 3))


def regression():
    return nn.Linear(4, 3)


NETWORKS = {
    "perceptron": (perceptron, (5,)),
    "convolution": (convolution, (1, 5, 4)),
    "softmax regression": (regression, (4,)),
    "attention": (Attention, (5, 4)),
    "LSTM": (Recurrent, (4, 3)),
}


def network_landscape(name, n_samples=12, **options):
    make, shape = NETWORKS[name]
    generator = np.random.default_rng(4)
    inputs = generator.standard_normal((n_samples, *shape))
    labels = options.pop("labels", generator.integers(0, 3, n_samples))
    landscape = NetworkLandscape(lambda: make().double(), inputs, labels, **options)
    return landscape, landscape.initial_weights((0,), Seeds(2))[0]


def twice_differentiated(name, landscape, weights, labels):
    """∂²L/∂w∂w of the mean cross-entropy of a fresh network, by reverse differentiation done twice."""
    losses = losses_of(NETWORKS[name][0]().double(), landscape.inputs, labels)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention can be differentiated once only
        return torch.autograd.functional.hessian(lambda flat: losses(flat).mean(), weights).numpy()


def softmax_regression_hessian(inputs, weights):
    """Mean of (diag p − p pᵀ) ⊗ a aᵀ with a = (x, 1), in the order of weight and bias."""
    n_in = inputs.shape[1]
    matrix, bias = weights[: 3 * n_in].reshape(3, n_in), weights[3 * n_in :]
    total = 0.0
    for x in inputs:
        p = np.exp(matrix @ x + bias)
        p /= p.sum()
        total = total + np.kron(np.diag(p) - np.outer(p, p), np.outer(np.r_[x, 1], np.r_[x, 1]))
    order = [c * (n_in + 1) + i for c in range(3) for i in range(n_in)] + [c * (n_in + 1) + n_in for c in range(3)]
    return total[np.ix_(order, order)] / len(inputs)


# --- Hessian


@pytest.mark.parametrize("name", NETWORKS)
def test_the_hessian_of_a_network_is_its_second_derivative(name):
    landscape, weights = network_landscape(name)
    got = Hessian(landscape, weights).dense()
    expected = twice_differentiated(name, landscape, weights, landscape.labels[0])
    scale = abs(expected).max()
    assert scale > 0.05
    np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING * scale)
    np.testing.assert_allclose(got, got.T, rtol=0, atol=ROUNDING * scale)


def test_the_hessian_of_softmax_regression_has_a_closed_form():
    landscape, weights = network_landscape("softmax regression")
    expected = softmax_regression_hessian(landscape.inputs.numpy(), weights.numpy())
    np.testing.assert_allclose(Hessian(landscape, weights).dense(), expected, rtol=0, atol=ROUNDING)
    elsewhere = softmax_regression_hessian(landscape.inputs.numpy(), 1.05 * weights.numpy())  # mutated twin
    assert abs(elsewhere - expected).max() > 1e-4


def test_the_hessian_of_a_quadratic_landscape_is_its_own():
    factor = np.random.default_rng(0).standard_normal((6, 6))
    matrix = (factor + factor.T) / 2
    hessian = Hessian(QuadraticLandscape(matrix, np.eye(6)), torch.ones(6))
    np.testing.assert_allclose(hessian.dense(), matrix, rtol=0, atol=1e-15)
    got = leading_eigenpairs(hessian, 6, which="smallest").values
    np.testing.assert_allclose(got, np.linalg.eigvalsh(matrix), atol=1e-13)


def test_single_precision_gives_the_hessian_to_single_precision():
    landscape, weights = network_landscape("perceptron")
    single = NetworkLandscape(perceptron, landscape.inputs.float(), landscape.labels[0])
    got = Hessian(single, weights).dense()
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, Hessian(landscape, weights).dense(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "patterns"),
    [("perceptron", "2.weight"), ("perceptron", ["2.bias", "0.weight"]), ("convolution", "0.*"), ("LSTM", "out.*")],
)
def test_measured_tensors_give_the_principal_block(name, patterns):
    landscape, weights = network_landscape(name, parameters=patterns)
    whole = twice_differentiated(name, landscape, weights, landscape.labels[0])
    chosen, start = [], 0
    for key, tensor in NETWORKS[name][0]().named_parameters():
        if key in landscape.measured_parameters:
            chosen += range(start, start + tensor.numel())
        start += tensor.numel()
    hessian = Hessian(landscape, weights)
    assert hessian.size == len(chosen) < len(whole)
    np.testing.assert_allclose(hessian.dense(), whole[np.ix_(chosen, chosen)], rtol=0, atol=ROUNDING)
    # The same coordinates as the noise covariance has.
    assert gradient_ensemble(landscape, weights, 3).covariance.size == hessian.size


@pytest.mark.parametrize("name", ["perceptron", "LSTM"])
def test_samples_are_gone_through_in_pieces_where_memory_is_short(name):
    sizes = []

    def watched(outputs, labels):
        sizes.append(len(outputs))
        return cross_entropy(outputs, labels)

    landscape, weights = network_landscape(name, n_samples=3001, loss=watched)
    vectors = np.random.default_rng(0).standard_normal((len(weights), 2))
    expected = twice_differentiated(name, landscape, weights, landscape.labels[0]) @ vectors
    for memory_limit, in_pieces in (("1 MiB", True), ("1 GiB", False)):
        sizes.clear()
        got = Hessian(landscape, weights, memory_limit=memory_limit).matmat(vectors)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)
        assert (max(sizes) < 3001) == in_pieces


def test_replicas_have_the_hessians_of_their_own_labels():
    labels = np.random.default_rng(1).integers(0, 3, (2, 12))
    landscape, weights = network_landscape("perceptron", labels=labels)
    found = [Hessian(landscape, weights, replica).dense() for replica in (0, 1)]
    for got, given_labels in zip(found, labels, strict=True):
        expected = twice_differentiated("perceptron", landscape, weights, torch.as_tensor(given_labels))
        np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING)
    assert abs(found[0] - found[1]).max() > 0.01


def test_what_is_not_one_point_of_weight_space_has_no_hessian():
    landscape, weights = network_landscape("perceptron")
    for wrong in (weights[None], weights[:-1], weights.expand(2, -1), weights[:0]):
        shape = re.escape(str(tuple(wrong.shape)))
        with pytest.raises(ConfigurationError, match=rf"weights have shape {shape}: expected \(39,\), one point"):
            Hessian(landscape, wrong)
    with pytest.raises(
        ConfigurationError, match=r"vectors of shape \(38, 1\) were given to an operator on 39 parameters"
    ):
        Hessian(landscape, weights).matvec(np.ones(38))
    with pytest.raises(ConfigurationError, match="memory_limit='1 kB' is 1000 bytes: expected at least 1 MiB"):
        Hessian(landscape, weights, memory_limit="1 kB").matvec(np.ones(39))


@pytest.mark.parametrize("name", ["perceptron", "attention"])
def test_scipy_trace_and_density_of_a_hessian_are_those_of_the_matrix(name):
    landscape, weights = network_landscape(name)
    hessian = Hessian(landscape, weights)
    matrix = twice_differentiated(name, landscape, weights, landscape.labels[0])
    exact, vectors = np.linalg.eigh(matrix)

    values = eigsh(hessian.to_scipy(), k=3, which="LA", v0=np.ones(hessian.size), return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(values), exact[-3:], rtol=0, atol=1e-10)
    for which, expected in (("largest", exact[::-1]), ("smallest", exact)):
        pairs = leading_eigenpairs(hessian, 3, which=which)
        assert (abs(pairs.values - expected[:3]) <= pairs.errors + ROUNDING).all()
    assert subspace_overlap(leading_eigenpairs(hessian, 3).vectors, torch.as_tensor(vectors[:, -3:].T.copy())) > 0.999

    trace, error = estimate_trace(hessian, 32)
    assert abs(trace - np.trace(matrix)) <= SIGMAS * error
    assert 0 < error < 0.5 * np.trace(matrix)
    measure = spectral_density(hessian, 32, n_steps=20)
    at = (exact[-3:] + exact[-4:-1]) / 2  # between the largest, which 20 steps resolve
    share, errors = measure.cumulative(at)
    assert (abs(share - (exact[:, None] <= at).mean(0)) <= SIGMAS * errors).all()
    assert 0 < errors.max() < 0.05


# --- noise spectra


def ensemble_of(matrix, batch_size=1, **options):
    gradients = SampleGradients.from_matrix(torch.as_tensor(np.asarray(matrix, dtype=np.float64)))
    return GradientEnsemble.from_sample_gradients(gradients, batch_size, **options)


def covariance_of(matrix, batch_size=1):
    """C of minibatches without replacement."""
    n = len(matrix)
    deviations = matrix - matrix.mean(0)
    return (n - batch_size) / (n - 1) / batch_size * deviations.T @ deviations / n


def eigenvalues_of(matrix, batch_size=1):
    """All of C, descending, with as many zeros as there are parameters."""
    return np.linalg.eigvalsh(covariance_of(matrix, batch_size))[::-1]


def gradients_with(eigenvalues, n_samples, n_parameters, seed=0):
    """Sample gradients whose covariance has given nonzero eigenvalues in random directions, about a mean that is not 0."""
    generator = np.random.default_rng(seed)
    left = np.linalg.qr(np.c_[np.ones(n_samples), generator.standard_normal((n_samples, len(eigenvalues)))])[0][:, 1:]
    right = np.linalg.qr(generator.standard_normal((n_parameters, len(eigenvalues))))[0]
    spread = np.sqrt(n_samples * np.asarray(eigenvalues))
    return (left * spread) @ right.T + generator.standard_normal(n_parameters)


SHAPES = {"N < P": (110, 240), "N > P": (240, 110)}


@pytest.fixture(scope="module", params=SHAPES)
def problem(request):
    """Gradients with a power law in their spectrum, and the eigenvalues of C at B = 10."""
    n_samples, n_parameters = SHAPES[request.param]
    matrix = gradients_with(1 / np.arange(1, 101) ** 1.5, n_samples, n_parameters)
    return matrix, eigenvalues_of(matrix, 10)


def ways(*n_modes):
    """Methods with numbers of modes that they can give."""
    methods = ("auto", "parameters", "samples", "matrix-free")
    return [(method, n) for method in methods for n in n_modes if (method, n) != ("matrix-free", None)]


@pytest.mark.parametrize(("method", "n_modes"), ways(None, 1, 4, 30))
def test_every_way_to_the_spectrum_gives_that_of_the_covariance(problem, method, n_modes):
    matrix, exact = problem
    spectrum = ensemble_of(matrix, 10).spectrum(n_modes, method=method)
    name, _, solver = spectrum.attrs["method"].partition(", ")
    assert method in ("auto", name)
    assert solver in ("dense", "Lanczos")
    values, residuals = spectrum.noise_eigenvalue.values, spectrum.noise_eigenvalue_residual.values
    assert len(values) == len(residuals) == (n_modes or min(matrix.shape))
    assert float(spectrum.noise_strength) == pytest.approx(exact.sum(), rel=1e-12)
    if solver == "dense":
        assert (residuals == 0).all()
        np.testing.assert_allclose(values, exact[: len(values)], rtol=0, atol=ROUNDING * exact[0])
        return
    assert (residuals > 0).all()
    assert (residuals <= 1e-3 * values + ROUNDING * exact[0]).all()
    assert (abs(exact - values[:, None]).min(1) <= residuals + ROUNDING * exact[0]).all()
    np.testing.assert_allclose(values, exact[: len(values)], rtol=1e-5)
    assert (values <= exact[: len(values)] * (1 + ROUNDING)).all()  # Ritz values


@pytest.mark.parametrize("method", ["parameters", "samples", "matrix-free"])
def test_both_solvers_are_used_and_a_finer_tolerance_is_kept(problem, method):
    matrix, exact = problem
    errors = []
    for tolerance in (3e-2, 1e-9):
        spectrum = ensemble_of(matrix, 10).leading_spectrum(4, method=method, tolerance=tolerance)
        found = abs(spectrum.eigenvalues - exact[:4])
        assert (found <= spectrum.errors + ROUNDING * exact[0]).all()
        errors.append((found / exact[:4]).max())
        assert (spectrum.residuals <= tolerance * spectrum.eigenvalues + ROUNDING * exact[0]).all()
    assert errors[1] < 1e-12
    iterated = [route.solver for route in ensemble_of(matrix, 10).routes(4) if route.method == method]
    assert "Lanczos" in iterated


def test_the_test_of_the_spectrum_sees_five_percent(problem):
    """Mutated twin: the gradients of another batch size, 5 % away in its factor."""
    matrix, exact = problem
    values = ensemble_of(1.025 * matrix, 10).spectrum(4).noise_eigenvalue.values
    assert (abs(values / exact[:4] - 1) > 0.04).all()


@pytest.mark.parametrize("shape", [(6, 40), (40, 6)])
def test_more_modes_than_there_are_give_all_that_there_are(shape):
    matrix = np.random.default_rng(0).standard_normal(shape)
    exact = eigenvalues_of(matrix)[:6]
    for method in ("auto", "parameters", "samples", "matrix-free"):
        spectrum = ensemble_of(matrix).spectrum(1000, method=method)
        np.testing.assert_allclose(spectrum.noise_eigenvalue, exact, rtol=0, atol=ROUNDING * exact[0])
        assert int(spectrum.effective_dimension_is_lower_bound) == 0


def test_modes_beyond_the_rank_are_zero():
    matrix = gradients_with([4.0, 2.0, 1.0], 120, 90)
    for method in ("parameters", "samples", "matrix-free"):
        spectrum = ensemble_of(matrix).spectrum(5, method=method, fraction=1)
        np.testing.assert_allclose(spectrum.noise_eigenvalue, [4, 2, 1, 0, 0], rtol=0, atol=1e-11)
        assert (spectrum.noise_eigenvalue.values >= 0).all()


# --- effective dimension


def fewest(eigenvalues, fraction):
    """D_s by counting."""
    held, wanted = 0.0, fraction * sum(eigenvalues) * (1 - 1e-10)
    for count, value in enumerate(eigenvalues, 1):
        held += value
        if held >= wanted:
            return count
    return len(eigenvalues)


spectra = st.lists(st.floats(1e-6, 1).map(lambda value: round(value, 6)), min_size=1, max_size=40).map(
    lambda values: np.sort(values)[::-1]
)
fractions = st.sampled_from([0.01, 0.3, 0.5, 0.8, 0.9, 0.99, 1.0])


@given(spectrum=spectra, n_modes=st.integers(1, 40), fraction=fractions, scale=st.sampled_from([1e-12, 1.0, 1e12]))
def test_truncated_spectra_give_the_dimension_or_a_lower_bound(spectrum, n_modes, fraction, scale):
    exact = fewest(spectrum, fraction)
    kept, none = scale * spectrum[:n_modes], np.zeros(min(n_modes, len(spectrum)))
    found = Spectrum(kept, none, none, scale * spectrum.sum(), "by hand", complete=False)
    dimension, reached = found.effective_dimension(fraction)
    assert reached == (exact <= len(kept))
    assert dimension == exact if reached else len(kept) < dimension <= exact
    dataset = found.dataset(fraction)
    assert float(dataset.effective_dimension) == dimension
    assert int(dataset.effective_dimension_is_lower_bound) == (not reached)
    whole = Spectrum(scale * spectrum, 0 * spectrum, 0 * spectrum, scale * spectrum.sum(), "by hand", complete=True)
    assert whole.effective_dimension(fraction) == (exact, True)


@settings(max_examples=100)
@given(
    spectrum=spectra,
    n_modes=st.integers(1, 40),
    fraction=fractions,
    relative=st.sampled_from([1e-9, 0.03, 0.3]),
    seed=st.integers(0, 1000),
)
def test_eigenvalues_with_errors_give_no_dimension_that_is_not_so(spectrum, n_modes, fraction, relative, seed):
    """Whatever the eigenvalues are within their errors."""
    exact = fewest(spectrum, fraction)
    kept = spectrum[:n_modes]
    errors = relative * kept
    off = np.random.default_rng(seed).uniform(-1, 1, len(kept)) * errors
    found = Spectrum(np.maximum(kept + off, 0), errors, errors, spectrum.sum(), "by hand", complete=False)
    dimension, reached = found.effective_dimension(fraction)
    assert dimension == exact if reached else dimension <= exact


@pytest.mark.parametrize(("error", "expected"), [(0.01, (3, True)), (0.5, (2, False)), (0.0, (3, True))])
def test_a_dimension_is_exact_only_where_all_that_the_errors_allow_agrees(error, expected):
    """4.8 of 8: at 2 a mode the third reaches it, at 2.5 the second, at 1.5 the fourth."""
    errors = np.full(4, error)
    found = Spectrum(np.full(4, 2.0), errors, errors, 8.0, "by hand", complete=False)
    assert found.effective_dimension(0.6) == expected


def test_the_lower_bound_uses_that_no_further_mode_is_stronger_than_the_last():
    """4 of 10 in two modes of 2: at least three more reach 9."""
    none = np.zeros(2)
    found = Spectrum(np.array([2.0, 2.0]), none, none, 10.0, "by hand", complete=False)
    assert found.effective_dimension(0.9) == (5, False)
    assert found.effective_dimension(0.4) == (2, True)
    nothing_left = Spectrum(np.array([2.0, 0.0]), none, none, 10.0, "by hand", complete=False)
    assert nothing_left.effective_dimension(0.9) == (3, False)
    for total in (0.0, np.nan):
        dimension, exact = Spectrum(none, none, none, total, "by hand", complete=False).effective_dimension()
        assert np.isnan(dimension)
        assert exact


@pytest.mark.parametrize("method", ["parameters", "samples", "matrix-free"])
@pytest.mark.parametrize("n_modes", [3, 5, 7])
def test_modes_of_equal_strength_are_all_found(method, n_modes):
    """What a Krylov space of one vector misses is stronger than what it finds, so that no bound would hold."""
    eigenvalues = np.r_[4 * [5.0], 2.0 ** -np.arange(1, 9)]
    matrix = gradients_with(eigenvalues, 160, 240)
    spectrum = ensemble_of(matrix).spectrum(n_modes, method=method, fraction=0.7)
    assert float(spectrum.effective_dimension) == fewest(eigenvalues, 0.7) == 3
    np.testing.assert_allclose(spectrum.noise_eigenvalue, eigenvalues[:n_modes], rtol=1e-5)


# --- refusals, NaN and zero


def test_what_makes_no_sense_is_refused():
    ensemble = ensemble_of(np.random.default_rng(0).standard_normal((8, 5)))
    for n_modes in (0, -2):
        with pytest.raises(
            ConfigurationError, match=rf"n_modes={n_modes}: expected a whole number .* of at least 1; leave it out"
        ):
            ensemble.spectrum(n_modes)
    for each in (ensemble, GradientEnsemble.from_moments(torch.ones(3), torch.eye(3))):
        with pytest.raises(
            UnknownNameError, match=r"unknown method 'parameter': expected one of auto, parameters, .* did you"
        ):
            each.spectrum(method="parameter")
    with pytest.raises(
        ConfigurationError, match="method='matrix-free' gives leading eigenvalues only: expected n_modes"
    ):
        ensemble.spectrum(method="matrix-free")
    for n_modes in (0, 6):
        with pytest.raises(ConfigurationError, match=rf"n_modes={n_modes}: expected 1 to 5"):
            ensemble.noise_modes(n_modes)


def beside(matrix, n_bytes):
    """A budget that leaves some bytes beside the gradients themselves."""
    return {"memory_limit": matrix.nbytes + n_bytes}


def test_a_budget_that_holds_no_way_is_refused_and_the_message_says_what_one_takes():
    matrix = np.random.default_rng(0).standard_normal((400, 420))
    ensemble = ensemble_of(matrix, **beside(matrix, 2**20))
    for options, way in (
        ({}, "samples"),
        ({"method": "parameters"}, "parameters"),
        ({"n_modes": 100}, "matrix-free"),
        ({"n_modes": 1, "method": "samples"}, "samples"),
    ):
        message = (
            rf"of 400 samples and 420 measured parameters takes .* MiB by its smallest way \({way}\): expected at most"
        )
        with pytest.raises(ConfigurationError, match=message):
            ensemble.spectrum(**options)
    spectrum = ensemble.spectrum(1)
    assert spectrum.attrs["method"] == "matrix-free, Lanczos"
    # What does not fit is not held: the Krylov space may end before the tolerance is met, and the residual says so.
    exact = eigenvalues_of(matrix)
    assert abs(exact - spectrum.noise_eigenvalue.values).min() <= spectrum.noise_eigenvalue_residual.values
    roomy = ensemble_of(matrix, memory_limit="64 MiB").spectrum(1, method="samples")
    np.testing.assert_allclose(roomy.noise_eigenvalue, exact[:1], rtol=1e-4)


def test_a_budget_smaller_than_the_gradients_is_not_called_negative():
    ensemble = ensemble_of(np.random.default_rng(0).standard_normal((400, 420)), memory_limit="1 MiB")
    with pytest.raises(ConfigurationError) as refusal:
        ensemble.spectrum()
    assert "memory_limit of -" not in str(refusal.value)


@pytest.mark.parametrize(("method", "n_modes"), ways(None, 2, 20))
def test_gradients_that_are_not_numbers_have_no_spectrum_and_no_noise_has_zeros(n_modes, method):
    if method == "matrix-free" and n_modes is None:
        return
    broken = np.random.default_rng(0).standard_normal((9, 6))
    broken[3, 2] = np.nan
    spectrum = ensemble_of(broken, 3).spectrum(n_modes, method=method)
    assert spectrum.noise_eigenvalue.shape == (min(n_modes or 6, 6),)
    assert all(np.isnan(spectrum[name]).all() for name in ("noise_eigenvalue", "noise_strength", "effective_dimension"))

    for still in (ensemble_of(np.ones((9, 6)), 3), ensemble_of(broken[4:], 5)):
        spectrum = still.spectrum(n_modes, method=method)
        assert (spectrum.noise_eigenvalue == 0).all()
        assert (spectrum.noise_eigenvalue_residual == 0).all()
        assert float(spectrum.noise_strength) == 0
        assert np.isnan(spectrum.effective_dimension)
        assert int(spectrum.effective_dimension_is_lower_bound) == 0


# --- routes


@given(
    n=st.integers(1, 5000),
    p=st.integers(1, 5000),
    n_modes=st.one_of(st.none(), st.integers(1, 300)),
    pair_cost=st.integers(1, 5000),
    pass_cost=st.sampled_from([0.0, 1e6, 1e12]),
    n_pieces=st.integers(1, 50),
)
def test_costs_are_those_of_the_stated_model(n, p, n_modes, pair_cost, pass_cost, n_pieces):
    found = {(each.method, each.solver): each for each in routes(n, p, n_modes, pair_cost, pass_cost, n_pieces)}
    held = {(each.method, each.solver): each for each in routes(n, p, n_modes, pair_cost, 0.0, 1)}
    forming = {"parameters": (2 * n * p * p, p), "samples": (pair_cost * n * n, n)}
    for method, (operations, size) in forming.items():
        dense = held[method, "dense"]
        assert dense.operations == pytest.approx(operations + 2.5 * size**3)
        assert dense.n_bytes >= 8 * size**2
        krylov = min(3 * min(n_modes or size, n, p) + 64, size)
        iterated = held.get((method, "Lanczos"))
        assert (iterated is None) == (n_modes is None or krylov == size)
        if iterated is not None:
            assert iterated.operations == pytest.approx(
                operations + 2.5 * (2 * krylov * size**2 + 4 * size * krylov**2)
            )
            assert iterated.n_bytes >= 8 * (size**2 + krylov * size)
    assert (("matrix-free", "Lanczos") in held) == (n_modes is not None)
    if n_modes is not None:
        least = min(n, p)
        krylov = min(3 * min(n_modes, least) + 64, least)
        free = held["matrix-free", "Lanczos"]
        assert free.operations == pytest.approx(2.5 * (4 * n * p * krylov + 4 * least * krylov**2))
        assert free.n_bytes >= 8 * krylov * least
    assert found.keys() == held.keys()
    for key, route in found.items():  # every use of gradients that are not held is a pass at least
        extra = route.operations - held[key].operations
        assert extra >= pass_cost * (1 - 1e-9) - 1e-9 * route.operations
        if key[0] == "parameters":
            assert extra == pytest.approx(pass_cost, rel=1e-6, abs=1e-9 * route.operations)


@pytest.mark.parametrize(
    ("shape", "n_modes", "n_bytes", "chosen"),
    [
        ((600, 12), None, None, "parameters, dense"),
        ((600, 12), 3, None, "parameters, dense"),
        ((12, 600), None, None, "samples, dense"),
        ((12, 600), 3, None, "samples, dense"),
        ((420, 400), 1, 2**20, "matrix-free, Lanczos"),
    ],
)
def test_the_cheapest_way_that_fits_is_taken(shape, n_modes, n_bytes, chosen):
    matrix = np.random.default_rng(0).standard_normal(shape)
    ensemble = ensemble_of(matrix, **(beside(matrix, n_bytes) if n_bytes else {}))
    found = ensemble.routes(n_modes)
    operations = [route.operations for route in found]
    assert operations == sorted(operations)
    assert ensemble.spectrum(n_modes).attrs["method"] == chosen
    fitting = [route for route in found if route.n_bytes <= (n_bytes or 2**29)]
    assert f"{fitting[0].method}, {fitting[0].solver}" == chosen


# --- eigenvectors


def exact_modes(matrix, n_modes):
    return torch.as_tensor(np.linalg.eigh(matrix)[1][:, ::-1][:, :n_modes].T.copy())


@pytest.mark.parametrize("n_modes", [1, 5, 20])
def test_noise_modes_are_the_eigenvectors_of_the_covariance(problem, n_modes):
    matrix, exact = problem
    expected = exact_modes(covariance_of(matrix, 10), n_modes)
    pairs = ensemble_of(matrix, 10).noise_modes(n_modes, tolerance=1e-6)
    np.testing.assert_allclose(pairs.values, exact[:n_modes], rtol=1e-9)
    assert (pairs.residuals <= 1e-6 * pairs.values + ROUNDING * exact[0]).all()
    assert subspace_overlap(pairs.vectors, expected) == pytest.approx(1, abs=1e-7)
    overlap = eigenvector_overlap(pairs.vectors, expected)
    np.testing.assert_allclose(overlap, np.eye(n_modes), rtol=0, atol=1e-6)
    others = exact_modes(covariance_of(matrix, 10), 2 * n_modes)[n_modes:]
    assert subspace_overlap(pairs.vectors, others) < 1e-6


@pytest.mark.parametrize("rank", [3, 9])
def test_noise_modes_of_moments_are_the_eigenvectors_of_the_covariance(rank):
    factor = np.random.default_rng(0).standard_normal((9, rank))
    ensemble = GradientEnsemble.from_moments(torch.ones(9), torch.as_tensor(factor))
    exact = np.linalg.eigvalsh(factor @ factor.T)[::-1]
    pairs = ensemble.noise_modes(3)
    np.testing.assert_allclose(pairs.values, exact[:3], rtol=1e-12)
    overlap = eigenvector_overlap(pairs.vectors, exact_modes(factor @ factor.T, 3))
    np.testing.assert_allclose(overlap, np.eye(3), rtol=0, atol=1e-10)
    np.testing.assert_allclose(ensemble.covariance.dense(), factor @ factor.T, rtol=0, atol=1e-13)
    for n_modes in (None, 2, 3, 50):
        spectrum = ensemble.spectrum(n_modes, fraction=0.7)
        np.testing.assert_allclose(spectrum.noise_eigenvalue, exact[: min(n_modes or rank, rank)], rtol=1e-11)
        reached = fewest(exact[:rank], 0.7) <= (n_modes or rank)
        assert int(spectrum.effective_dimension_is_lower_bound) == (not reached)
    for n_modes in (0, rank + 1):
        with pytest.raises(
            ConfigurationError, match=rf"n_modes={n_modes}: expected 1 to {rank}, the rank of the factor"
        ):
            ensemble.noise_modes(n_modes)


def test_noise_and_curvature_share_directions_where_a_model_is_well_specified():
    """Softmax regression on labels that it drew itself: near the minimum C·B is the Hessian (Fisher's information)."""
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((4000, 4)) * [2, 1, 0.5, 0.25]
    logits = inputs @ generator.standard_normal((4, 3))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(1)
    landscape = NetworkLandscape(lambda: regression().double(), inputs, labels)
    weights = landscape.initial_weights((0,), Seeds(0))
    for _ in range(200):
        weights = weights - 0.5 * landscape.gradient(weights)
    ensemble, hessian = gradient_ensemble(landscape, weights[0], 1), Hessian(landscape, weights[0])
    overlap = eigenvector_overlap(ensemble.noise_modes(4).vectors, leading_eigenpairs(hessian, 4).vectors)
    assert overlap.shape == (4, 4)
    assert (overlap >= 0).all()
    assert (overlap.sum(0) <= 1 + 1e-12).all()
    assert (overlap.sum(1) <= 1 + 1e-12).all()
    expected = eigenvector_overlap(exact_modes(ensemble.covariance.dense(), 4), exact_modes(hessian.dense(), 4))
    np.testing.assert_allclose(overlap, expected, rtol=0, atol=1e-3)
    assert overlap[0, 0] > 0.95
    assert ensemble.noise_modes(1).values == pytest.approx(leading_eigenpairs(hessian, 1).values, rel=0.2)


# --- streamed gradients


@pytest.mark.parametrize(("name", "at_a_time"), [("perceptron", 1), ("convolution", 7), ("LSTM", 7), ("LSTM", 100)])
def test_gradients_that_are_computed_anew_have_the_same_spectrum_by_every_way(name, at_a_time):
    landscape, weights = network_landscape(name, n_samples=30)
    source = landscape._source(weights, 0, landscape.measured_parameters, fast_layers(landscape._module))
    streamed = StreamedSampleGradients(source, at_a_time, 8, 2**20)
    assert streamed.n_pieces == -(-30 // at_a_time)
    matrix = slow_gradients(landscape._module, weights, landscape.inputs, landscape.labels[0]).numpy()
    exact = eigenvalues_of(matrix, 4)[: min(matrix.shape)]
    ensemble = GradientEnsemble.from_sample_gradients(streamed, 4)
    for method, n_modes in (("parameters", None), ("samples", None), ("matrix-free", 3), ("auto", 3)):
        spectrum = ensemble.spectrum(n_modes, method=method, tolerance=1e-7)
        expected = exact[:n_modes]
        np.testing.assert_allclose(spectrum.noise_eigenvalue, expected, rtol=0, atol=1e-9 * exact[0])
        assert float(spectrum.noise_strength) == pytest.approx(exact.sum(), rel=1e-9)
    held = GradientEnsemble.from_sample_gradients(source(slice(None)), 4)
    for dearer, route in zip(by_name(ensemble.routes(3)), by_name(held.routes(3)), strict=True):
        assert (dearer.operations > route.operations) == (at_a_time < 30)
    vectors = ensemble.noise_modes(2, tolerance=1e-6).vectors
    assert subspace_overlap(vectors, exact_modes(covariance_of(matrix, 4), 2)) == pytest.approx(1, abs=1e-8)


def by_name(found):
    return sorted(found, key=lambda route: (route.method, route.solver))


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("n_out", "n_in"), [(1, 1), (1, 4), (3, 1), (4, 5)])
def test_second_moments_of_a_linear_layer_are_the_sum_over_samples(n_out, n_in, has_bias):
    """A quarter of the products gives them all; here they are summed one sample at a time."""
    generator = torch.Generator().manual_seed(0)
    signals, activations = (torch.randn(9, k, generator=generator, dtype=torch.float64) for k in (n_out, n_in))
    tensors = {"weight": n_out * n_in} | ({"bias": n_out} if has_bias else {})
    expected = np.zeros((sum(tensors.values()),) * 2)
    for delta, a in zip(signals.numpy(), activations.numpy(), strict=True):
        row = np.concatenate([np.outer(delta, a).ravel(), delta if has_bias else []])
        expected += np.outer(row, row)
    gradients = SampleGradients({"layer": OuterProductBlock(signals, activations, tensors)})
    np.testing.assert_allclose(gradients.second_moments().numpy(), expected, atol=1e-13 * 9 * np.abs(expected).max())
