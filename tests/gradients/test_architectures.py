"""Whole small networks, drawn at random, against a float64 loop over their samples and dense matrices."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import nn
from twins import one_by_one

from langevin_nn import NetworkLandscape, gradient_ensemble
from langevin_nn.ensemble import GradientEnsemble
from langevin_nn.ensemble.alignment import draw_minibatches
from langevin_nn.errors import ConfigurationError, SampleMixingError, UndefinedQuantityWarning
from langevin_nn.gradients.streamed import StreamedSampleGradients
from langevin_nn.landscape import cross_entropy
from langevin_nn.schema import COHORTS

pytestmark = pytest.mark.usefixtures("one_thread")

N_CLASSES = 3

# Rounding of sample gradients, relative to the largest of their norms: several hundred float64 operations of 1e-16 each
# in sums that cancel; normalisation over few features multiplies it by the inverse of their spread.
DOUBLE = 1e-11
# The same of float32: 1e-7 each, and weights and inputs are the same bits in both.
SINGLE = 1e-4

# Normalised over fewer numbers, those become ±1 whatever they were, and gradients before them rounding.
FEWEST_NORMALISED = 4
NORMS = ["norm", "group norm"]

SQUARES = ("activity", "directed_activity", "noise_strength")
ALONG_MEAN = ("parallel_activity", "perpendicular_activity", "parallel_noise")
RATIOS = ("projection_variance", "gradient_noise_scale")


# --- layers that hold others


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Tied(nn.Module):
    """Two layers with a bias each and one weight."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Attention(nn.Module):
    """Self-attention beside the identity."""

    def __init__(self, width, heads, bias=True):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, bias=bias, batch_first=True)

    def forward(self, x):
        return x + self.attention(x, x, x, need_weights=False)[0]


class Transposed(nn.Module):
    def forward(self, x):
        return x.mT


class OverPositions(nn.Module):
    def forward(self, x):
        return x.mean(1)


def square(outputs, targets):
    return 0.5 * (outputs - targets).square().sum(1)


def logarithm_of_cosh(outputs, targets):
    return torch.cosh(outputs - targets).log().sum(1)


LOSSES = {"cross-entropy": cross_entropy, "square": square, "log cosh": logarithm_of_cosh}


# --- random architectures


@dataclass
class Problem:
    """A network with data, a batch size and a way to draw."""

    module: nn.Module
    inputs: torch.Tensor
    labels: torch.Tensor
    true_labels: torch.Tensor
    loss: Any
    batch_size: int
    replacement: bool
    seed: int

    @property
    def mislabeled(self):
        return (self.labels != self.true_labels).reshape(len(self.labels), -1).any(1).numpy()

    @property
    def dtype(self):
        return next(self.module.parameters()).dtype

    def landscape(self, **options):
        loss = None if self.loss is cross_entropy else self.loss
        return NetworkLandscape(
            self.module, self.inputs, self.labels, loss=loss, true_labels=self.true_labels, **options
        )

    def weights(self):
        """Somewhere in general position."""
        own = nn.utils.parameters_to_vector(self.module.parameters()).detach()
        kick = np.random.default_rng(self.seed).standard_normal(len(own))
        return own + 0.3 * torch.as_tensor(kick).to(own)


def activation(draw):
    return draw(
        st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, lambda: nn.ReLU(inplace=True)]),
    )()


def vector_stage(draw, width):
    kinds = ["linear", "residual", "twice", "tied", *(NORMS if width >= FEWEST_NORMALISED else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "linear":
        out = draw(st.integers(2, 6))
        return [nn.Linear(width, out, bias=draw(st.booleans()))], (out,)
    if kind == "norm":
        return [nn.LayerNorm(width, elementwise_affine=draw(st.booleans()))], (width,)
    if kind == "group norm":
        return [nn.GroupNorm(1, width)], (width,)
    if kind == "residual":
        return [Residual(nn.Sequential(nn.Linear(width, 3), activation(draw), nn.Linear(3, width)))], (width,)
    if kind == "twice":
        return [Twice(nn.Linear(width, width, bias=draw(st.booleans())))], (width,)
    return [Tied(width)], (width,)


def sequence_stage(draw, shape):
    """Of shape (position, feature), or (channel, position) where a convolution or a pool comes."""
    n, width = shape
    kinds = ["convolution", "linear", "twice", "residual", "attention", "transposed"]
    kinds += NORMS if n * width >= FEWEST_NORMALISED else []
    kind = draw(st.sampled_from([*kinds, "pool"] if width >= 2 else kinds))
    if kind == "convolution":
        return convolution(draw, shape)
    if kind == "linear":
        out = draw(st.integers(2, 5))
        return [nn.Linear(width, out, bias=draw(st.booleans()))], (n, out)
    if kind == "norm":
        return [nn.LayerNorm([n, width])], shape
    if kind == "group norm":
        return [nn.GroupNorm(1, n)], shape
    if kind == "twice":
        shared = nn.Linear(width, width) if draw(st.booleans()) else nn.Conv1d(n, n, 3, padding=1)
        return [Twice(shared)], shape
    if kind == "residual":
        return [Residual(nn.Sequential(nn.Conv1d(n, n, 3, padding="same"), activation(draw)))], shape
    if kind == "attention":
        heads = draw(st.sampled_from([k for k in (1, 2, 3) if width % k == 0]))
        return [Attention(width, heads, bias=draw(st.booleans()))], shape
    if kind == "pool":
        pool = draw(st.sampled_from([nn.MaxPool1d, nn.AvgPool1d]))
        return [pool(2)], (n, width // 2)
    return [Transposed()], (width, n)


def image_stage(draw, shape):
    channels, *size = shape
    kinds = ["convolution", "convolution", "twice", "residual"]
    kinds += NORMS if prod(shape) >= FEWEST_NORMALISED else []
    kind = draw(st.sampled_from([*kinds, "pool"] if min(size) >= 2 else kinds))
    if kind == "convolution":
        return convolution(draw, shape)
    if kind == "norm":
        return [nn.LayerNorm(list(shape))], shape
    if kind == "group norm":
        groups = draw(st.sampled_from([g for g in (1, 2) if channels % g == 0 and prod(shape) // g >= 4] or [1]))
        return [nn.GroupNorm(groups, channels)], shape
    if kind == "twice":
        return [Twice(nn.Conv2d(channels, channels, 3, padding=1))], shape
    if kind == "residual":
        return [Residual(nn.Sequential(nn.Conv2d(channels, channels, 3, padding="same"), activation(draw)))], shape
    pool = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
    return [pool(2)], (channels, *(length // 2 for length in size))


def convolution(draw, shape):
    """One that still gives at least one position."""
    channels, *size = shape
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    out = groups * draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, min(3, length))) for length in size]
    dilation = [draw(st.integers(1, 2)) for _ in size]
    stride = [draw(st.integers(1, 2)) for _ in size]
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    # Enough padding for the dilated kernel, and no more than a reflection can give.
    least = [max(0, -(-(d * (k - 1) + 1 - n) // 2)) for k, d, n in zip(kernel, dilation, size, strict=True)]
    dilation = [1 if few >= n else d for few, d, n in zip(least, dilation, size, strict=True)]
    least = [0 if few >= n else few for few, n in zip(least, size, strict=True)]
    padding = [
        draw(st.integers(few, max(few, min(k - 1, n - 1)))) for few, k, n in zip(least, kernel, size, strict=True)
    ]
    if all(k % 2 for k in kernel) and draw(st.integers(0, 3)) == 0:  # PyTorch warns of even ones, once a process
        mode = "zeros"
        padding, stride = "same", [1] * len(size)
    kind = nn.Conv1d if len(size) == 1 else nn.Conv2d
    layer = kind(
        *(channels, out, tuple(kernel), tuple(stride), padding if padding == "same" else tuple(padding)),
        *(tuple(dilation), groups, draw(st.booleans()), mode),
    )
    with torch.no_grad():
        return [layer], tuple(layer(torch.zeros(1, *shape)).shape[1:])


STAGES = {1: lambda draw, shape: vector_stage(draw, shape[0]), 2: sequence_stage, 3: image_stage}
INPUTS = {"vector": (4,), "sequence": (3, 4), "image": (2, 4, 3), "tokens": (4,)}


@st.composite
def problems(draw, dtype=torch.float64, kinds=tuple(INPUTS)):
    """Networks of up to six layers with everything around them."""
    kind = draw(st.sampled_from(kinds))
    seed = draw(st.integers(0, 2**32 - 1))
    shape = INPUTS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = []
        if kind == "tokens":
            layers, shape = [nn.Embedding(5, 4)], (4, 4)
        for _ in range(draw(st.integers(1, 3))):
            stage, shape = STAGES[len(shape)](draw, shape)
            layers += stage
            # A transposed activation is still the same memory, which its backward pass needs unchanged.
            if draw(st.booleans()) and not isinstance(layers[-1], Transposed):
                layers.append(activation(draw))
        if len(shape) == 2 and draw(st.booleans()):
            layers, shape = [*layers, OverPositions()], shape[1:]
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(prod(shape), N_CLASSES)).to(dtype)
    if draw(st.booleans()):
        module.eval()
    n = draw(st.integers(5, 12))
    generator = np.random.default_rng(seed)
    inputs = torch.as_tensor(generator.standard_normal((n, *INPUTS[kind]))).to(dtype)
    if kind == "tokens":
        inputs = torch.as_tensor(generator.integers(5, size=(n, *INPUTS[kind])))
    loss = LOSSES[draw(st.sampled_from(sorted(LOSSES)))]
    wrong = torch.as_tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    if loss is cross_entropy:
        labels = torch.as_tensor(generator.integers(N_CLASSES, size=n))
        true_labels = torch.where(wrong, (labels + 1) % N_CLASSES, labels)
    else:
        labels = torch.as_tensor(generator.standard_normal((n, N_CLASSES))).to(dtype)
        true_labels = torch.where(wrong[:, None], labels + 1, labels)
    replacement = draw(st.booleans())
    return Problem(module, inputs, labels, true_labels, loss, draw(st.integers(1, n)), replacement, seed)


# --- the reference


def one_after_the_other(problem, weights):
    """Gradients and losses, one sample at a time."""
    found = one_by_one(problem.module, weights, problem.inputs, problem.labels, problem.loss)
    return tuple(each.numpy() for each in found)


def columns_of_layers(module):
    """Columns of each layer, by name, from the order of the parameters alone."""
    found: dict[str, list[int]] = {}
    start = 0
    for name, tensor in module.named_parameters():
        layer = ".".join(name.split(".")[:-1])
        found.setdefault(layer, []).extend(range(start, start + tensor.numel()))
        start += tensor.numel()
    return found


def covariance_of(matrix, batch_size, replacement, n_all):
    """Dense C of minibatches of a group's share of the batch; None where there is no variance to speak of."""
    n = len(matrix)
    if n == 0 or (n == 1 and n_all > 1):
        return None
    size = batch_size * n / n_all
    factor = 1 / size if replacement else (n - size) / (n - 1) / size if n > 1 else 0.0
    deviations = matrix - matrix.mean(0)
    return factor * deviations.T @ deviations / n


def order_parameters(matrix, batch_size, replacement, n_all):
    """Of the gradients of one group of samples, from its dense covariance."""
    if len(matrix) == 0:
        return dict.fromkeys([*SQUARES, *ALONG_MEAN, *RATIOS], np.nan)
    mean = matrix.mean(0)
    squared = mean @ mean
    covariance = covariance_of(matrix, batch_size, replacement, n_all)
    noise = np.nan if covariance is None else np.trace(covariance)
    with np.errstate(invalid="ignore", divide="ignore"):
        along = np.nan if covariance is None else mean @ covariance @ mean / squared
        return {
            "activity": squared + noise,
            "directed_activity": (len(matrix) / n_all) ** 2 * squared,
            "noise_strength": noise,
            "parallel_activity": squared + along,
            "perpendicular_activity": noise - along,
            "parallel_noise": along,
            "projection_variance": along / squared,
            "gradient_noise_scale": np.nan if covariance is None else np.square(matrix - mean).sum(1).mean() / squared,
        }


def assert_same_order(got, matrix, problem, tolerance, scale, n_all):
    """Compare one group's order parameters; those that refer to the mean carry the condition of its direction."""
    expected = order_parameters(matrix, problem.batch_size, problem.replacement, n_all)
    # A cohort's share of a minibatch may be smaller than one sample, which multiplies its noise.
    largest = scale * max(1.0, n_all / max(1, problem.batch_size * len(matrix)))
    for name in SQUARES:
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=tolerance * largest, err_msg=name)
    squared = np.square(matrix.mean(0)).sum() if len(matrix) else np.nan
    if squared <= 1e3 * tolerance * scale:
        return  # the mean gradient is rounding and has no direction
    condition = 1 if np.isnan(squared) else scale / squared
    for name in ALONG_MEAN:
        np.testing.assert_allclose(
            got[name], expected[name], rtol=0, atol=tolerance * condition * largest, err_msg=name
        )
    for name in RATIOS:
        np.testing.assert_allclose(
            got[name], expected[name], rtol=0, atol=tolerance * condition**2 * largest / scale, err_msg=name
        )


def assert_measures(ensemble, problem, matrix, losses, tolerance, *, layers=None):
    """Everything that an ensemble says, against the dense matrix."""
    n = len(matrix)
    norms = np.linalg.norm(matrix, axis=1)
    scale = float(np.square(norms).max())
    assert scale > 0
    wrong = problem.mislabeled

    # Samples and mean.
    samples = ensemble.samples()
    np.testing.assert_allclose(samples.sample_gradient_norm, norms, rtol=0, atol=tolerance * scale**0.5)
    np.testing.assert_allclose(samples.sample_loss, losses, rtol=0, atol=tolerance * (1 + np.abs(losses).max()))
    np.testing.assert_allclose(ensemble.mean_gradient, matrix.mean(0), rtol=0, atol=tolerance * scale**0.5)

    # Order parameters by cohort and by layer.
    members = {"all": wrong | ~wrong, "correct": ~wrong, "mislabeled": wrong}
    order = ensemble.order_parameters()
    by_layer = ensemble.by_layer()
    layers = columns_of_layers(problem.module) if layers is None else layers
    assert by_layer.layer.values.tolist() == list(layers)
    for cohort in COHORTS:
        part = matrix[members[cohort]]
        assert_same_order(
            {name: float(order[name].sel(cohort=cohort)) for name in (*SQUARES, *ALONG_MEAN, *RATIOS)},
            *(part, problem, tolerance, scale, n),
        )
        for layer, columns in layers.items():
            of_layer = by_layer.sel(layer=layer, cohort=cohort)
            assert_same_order(
                {name: float(of_layer[name]) for name in (*SQUARES, *ALONG_MEAN, *RATIOS)},
                *(part[:, columns], problem, tolerance, scale, n),
            )
        for name in SQUARES:
            total = float(by_layer[name].sel(cohort=cohort).sum(skipna=False))
            # The same numbers in another order: float64, whatever the network computes in.
            assert total == pytest.approx(float(order[name].sel(cohort=cohort)), abs=DOUBLE * n * scale, nan_ok=True)
    means = {cohort: matrix[mask].mean(0) if mask.any() else None for cohort, mask in members.items()}
    for pair in order.cohort_pair.values:
        one, other = (means[cohort] for cohort in str(pair).split("_"))
        got = float(order.gradient_alignment.sel(cohort_pair=pair))
        assert_cosine(got, one, other, tolerance, scale)

    # Classes.
    given = problem.labels if problem.loss is cross_entropy else torch.arange(n) % 2
    of_classes = ensemble.classes(given)
    numbers = given.numpy()
    assert of_classes["class"].values.tolist() == sorted(set(numbers.tolist()))
    for label in of_classes["class"].values:
        part = matrix[numbers == label]
        one = of_classes.sel({"class": label})
        assert int(one.class_size) == len(part)
        assert_same_order(
            {name: float(one[name]) for name in (*SQUARES, *ALONG_MEAN, *RATIOS)},
            *(part, problem, tolerance, scale, n),
        )
        for other in of_classes["class"].values:
            got = float(one.class_alignment.sel(other_class=other))
            assert_cosine(got, part.mean(0), matrix[numbers == other].mean(0), tolerance, scale)

    # Covariance and spectrum.
    covariance = covariance_of(matrix, problem.batch_size, problem.replacement, n)
    largest = tolerance * scale
    directions = np.random.default_rng(problem.seed).standard_normal((4, matrix.shape[1]))
    got = ensemble.projected_covariance(torch.as_tensor(directions))
    np.testing.assert_allclose(
        got, directions @ covariance @ directions.T, rtol=0, atol=largest * np.square(directions).sum(1).max()
    )
    operator = ensemble.covariance.to_scipy()
    assert operator.shape == covariance.shape
    np.testing.assert_allclose(
        operator @ directions.T, covariance @ directions.T, rtol=0, atol=largest * np.abs(directions).sum(1).max()
    )
    expected = np.linalg.eigvalsh(covariance)[::-1]
    least = min(matrix.shape)
    np.testing.assert_allclose(ensemble.noise_eigenvalues(), expected[:least], rtol=0, atol=largest)
    assert (np.abs(expected[least:]) <= largest).all()
    for method in ("parameters", "samples"):
        spectrum = ensemble.spectrum(method=method)
        assert spectrum.attrs["method"] == f"{method}, dense"
        np.testing.assert_allclose(spectrum.noise_eigenvalue, expected[:least], rtol=0, atol=largest)
        assert_effective_dimension(spectrum, expected, tolerance)
    few = min(3, least)
    for method in ("auto", "parameters", "samples", "matrix-free"):
        spectrum = ensemble.spectrum(few, method=method, tolerance=1e-6)
        np.testing.assert_allclose(spectrum.noise_eigenvalue, expected[:few], rtol=0, atol=largest)
        assert float(spectrum.noise_strength) == pytest.approx(expected.sum(), abs=largest)
        assert (spectrum.noise_eigenvalue_residual >= 0).all()
    modes = ensemble.noise_modes(1, tolerance=1e-6)
    vector = modes.vectors[0].numpy()
    left = covariance @ vector - modes.values[0] * vector
    assert np.linalg.norm(left) <= 1e-6 * modes.values[0] + 10 * largest


def assert_cosine(got, one, other, tolerance, scale):
    if one is None or other is None:
        assert np.isnan(got)
        return
    sizes = np.linalg.norm(one), np.linalg.norm(other)
    if min(sizes) ** 2 > 1e3 * tolerance * scale:
        allowed = tolerance * scale**0.5 * 10 / min(sizes)
        assert got == pytest.approx(one @ other / sizes[0] / sizes[1], abs=allowed)


def assert_effective_dimension(spectrum, expected, tolerance):
    shares = np.cumsum(expected) / expected.sum() if expected.sum() > 0 else expected
    if expected.sum() <= 0:
        assert np.isnan(spectrum.effective_dimension)
    elif (np.abs(shares - 0.9) > 100 * tolerance).all():
        assert float(spectrum.effective_dimension) == 1 + np.searchsorted(shares, 0.9)
        assert int(spectrum.effective_dimension_is_lower_bound) == 0


def assert_alignment(values, matrix, problem, n_minibatches, seed, tolerance):
    """R of all samples as the mean cosine over pairs of the minibatches that the generator draws first."""
    n, size = len(matrix), problem.batch_size
    if size == 1:
        units = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        assert values["alignment"][0] == pytest.approx(np.square(units.mean(0)).sum(), abs=tolerance)
        return
    if size == n and not problem.replacement:
        assert values["alignment"][0] == 1
        return
    drawn = draw_minibatches(np.random.default_rng(seed), n, size, n_minibatches, problem.replacement)
    minibatches = matrix[drawn].mean(1)
    lengths = np.linalg.norm(minibatches, axis=1)
    units = minibatches / lengths[:, None]
    cosines = [one @ other for one, other in combinations(units, 2)]
    allowed = tolerance * np.linalg.norm(matrix, axis=1).max() / lengths.min()
    assert values["alignment"][0] == pytest.approx(np.mean(cosines), abs=allowed)
    squared = np.square(matrix.mean(0)).sum()
    noise = np.trace(covariance_of(matrix, size, problem.replacement, n))
    approximation = squared / (squared + noise)
    assert values["alignment_approximation"][0] == pytest.approx(approximation, abs=allowed)


def check(problem, tolerance):
    note(str(problem.module))
    weights = problem.weights()
    matrix, losses = one_after_the_other(problem, weights)
    landscape = problem.landscape()
    size = np.linalg.norm(matrix, axis=1).max()
    ensemble = gradient_ensemble(landscape, weights, problem.batch_size, replacement=problem.replacement)
    gradients = ensemble.gradients
    note(str(gradients.paths))
    np.testing.assert_allclose(gradients.dense(), matrix, rtol=0, atol=tolerance * size)
    np.testing.assert_allclose(gradients.gram(), matrix @ matrix.T, rtol=0, atol=tolerance * size**2)
    assert_measures(ensemble, problem, matrix, losses, tolerance)
    values = ensemble.alignment(np.random.default_rng(problem.seed), 12)
    assert_alignment(values, matrix, problem, 12, problem.seed, tolerance)


@settings(max_examples=40)
@given(problem=problems())
def test_any_architecture_in_double_precision(problem):
    check(problem, DOUBLE)


@settings(max_examples=15)
@given(problem=problems(dtype=torch.float32))
def test_any_architecture_in_single_precision(problem):
    check(problem, SINGLE)


# Directions of minibatches whose norm is a thousandth of a sample's lose three digits, errors are roots of differences.
STREAMED = dict.fromkeys(
    ["alignment", "alignment_zero_share", "alignment_minibatches", "alignment_approximation"], 1e-9
)
STREAMED |= dict.fromkeys(["alignment_standard_error", "alignment_approximation_bound"], 1e-7)


@pytest.mark.proof
@settings(max_examples=15)
@given(
    problem=problems(),
    at_a_time=st.integers(1, 12),
    held_for_gram=st.integers(1, 12),
    minibatches_at_a_time=st.integers(1, 5),
)
def test_gradients_that_are_computed_anew_in_pieces_say_the_same(
    problem, at_a_time, held_for_gram, minibatches_at_a_time
):
    weights = problem.weights()
    matrix, losses = one_after_the_other(problem, weights)
    landscape = problem.landscape()
    held = landscape.sample_gradients(weights)
    source = landscape._source(weights, 0, landscape.measured_parameters, landscape._layers[0])
    limit = minibatches_at_a_time * 8 * held.n_parameters
    streamed = StreamedSampleGradients(source, at_a_time, held_for_gram, limit)
    assert streamed.n_pieces == -(-len(matrix) // at_a_time)
    assert streamed.paths == {name: f"{path}, in pieces of {at_a_time} samples" for name, path in held.paths.items()}
    options = {"mislabeled": torch.as_tensor(problem.mislabeled), "replacement": problem.replacement}
    one, other = (
        GradientEnsemble.from_sample_gradients(each, problem.batch_size, **options) for each in (held, streamed)
    )
    assert_measures(other, problem, matrix, losses, DOUBLE)
    values = [each.alignment(np.random.default_rng(problem.seed), 12) for each in (one, other)]
    for name, expected in values[0].items():
        np.testing.assert_allclose(values[1][name], expected, rtol=0, atol=STREAMED[name], err_msg=name)
    noise = [each.gaussian_noise(np.random.default_rng(0), 3) for each in (one, other)]
    np.testing.assert_allclose(noise[1], noise[0], rtol=0, atol=DOUBLE * np.linalg.norm(matrix, axis=1).max())


def test_the_reference_sees_half_a_percent_in_one_layer():
    """Mutated twin: the columns of one little layer times 1.005."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv1d(3, 2, 2), nn.LayerNorm([2, 3]), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3))
    inputs = torch.as_tensor(np.random.default_rng(0).standard_normal((8, 3, 4)))
    labels = torch.arange(8) % 3
    true_labels = torch.where(torch.arange(8) < 4, labels.roll(1), labels)
    problem = Problem(module.double(), inputs, labels, true_labels, cross_entropy, 3, False, 0)
    weights = problem.weights()
    matrix, losses = one_after_the_other(problem, weights)
    ensemble = gradient_ensemble(problem.landscape(), weights, 3)
    assert_measures(ensemble, problem, matrix, losses, DOUBLE)
    matrix[:, columns_of_layers(module)["1"]] *= 1.005
    with pytest.raises(AssertionError):
        assert_measures(ensemble, problem, matrix, losses, DOUBLE)


# --- which path a layer takes


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.out = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, N_CLASSES)

    def forward(self, x):
        return self.out(self.recurrent(x)[0][:, -1])


class OwnLinear(nn.Linear):
    """May compute anything."""


class TimeFirst(nn.Module):
    """A layer that is given positions first and samples second."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(2, 4), nn.Linear(4, N_CLASSES)

    def forward(self, x):
        return self.out(torch.tanh(self.inner(x.transpose(0, 1))).mean(0))


class InTurns(nn.Module):
    """One layer called on rows and on sequences."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(4, 4), nn.Linear(4, N_CLASSES)

    def forward(self, x):
        return self.out(self.inner(torch.tanh(self.inner(x)).mean(1)))


def normal(*shape, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape))


def head(*layers, width):
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, N_CLASSES))


N = 8
OUTER, POSITIONS, FUNC, LOOP = "outer products", "signals at positions", "torch.func", "one by one"
EVEN = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


class Words(nn.Module):
    """Scores of words, by the matrix that embeds them, and of classes."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(5, 3), nn.Embedding(4, 3)
        self.out, self.last = nn.Linear(3, 5), nn.Linear(20, N_CLASSES)
        self.out.weight = self.words.weight

    def forward(self, tokens):
        hidden = torch.tanh(self.words(tokens) + self.positions(torch.arange(4)))
        return self.last(torch.tanh(self.out(hidden)).flatten(1))


PATHS = {
    "linear": (lambda: head(nn.Linear(4, 3), nn.Tanh(), width=3), (4,), {"0": OUTER, "3": OUTER}),
    "linear without bias": (lambda: head(nn.Linear(4, 3, bias=False), width=3), (4,), {"0": OUTER}),
    "linear on a sequence": (lambda: head(nn.Linear(4, 3), width=9), (3, 4), {"0": POSITIONS, "2": OUTER}),
    "linear on a plane": (lambda: head(nn.Linear(4, 3), width=18), (3, 2, 4), {"0": POSITIONS}),
    "linear called twice": (lambda: head(Twice(nn.Linear(4, 4)), width=4), (4,), {"0.layer": POSITIONS}),
    "linear on rows and sequences": (InTurns, (3, 4), {"inner": POSITIONS, "out": OUTER}),
    "a weight of two layers": (
        lambda: head(Tied(4), width=4),
        (4,),
        {"0.first": POSITIONS, "0.second": OUTER, "2": OUTER},
    ),
    "subclass of linear": (lambda: head(OwnLinear(4, 3), width=3), (4,), {"0": FUNC, "2": OUTER}),
    "positions first": (TimeFirst, (5, 2), {"inner": FUNC, "out": OUTER}),
    "conv1d": (lambda: head(nn.Conv1d(3, 2, 2, stride=2), width=4), (3, 4), {"0": POSITIONS}),
    "conv2d": (lambda: head(nn.Conv2d(2, 4, 2, dilation=2, groups=2), width=16), (2, 4, 4), {"0": POSITIONS}),
    "conv2d, reflected": (
        *(lambda: head(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), width=18), (1, 3, 3)),
        {"0": POSITIONS},
    ),
    "conv2d, same, even kernel": (
        *(lambda: head(nn.Conv2d(1, 2, 2, padding="same"), width=18), (1, 3, 3), {"0": POSITIONS}),
    ),
    "conv called twice": (lambda: head(Twice(nn.Conv1d(2, 2, 3, padding=1)), width=8), (2, 4), {"0.layer": POSITIONS}),
    "transposed convolution": (lambda: head(nn.ConvTranspose1d(2, 1, 2), width=5), (2, 4), {"0": FUNC}),
    "conv3d": (lambda: head(nn.Conv3d(1, 2, 2), width=2), (1, 2, 2, 2), {"0": FUNC}),
    "norms": (
        lambda: head(nn.LayerNorm([2, 4]), nn.GroupNorm(1, 2), width=8),
        (2, 4),
        {"0": POSITIONS, "1": POSITIONS},
    ),
    "embedding": (lambda: head(nn.Embedding(5, 3), width=12), None, {"0": POSITIONS, "2": OUTER}),
    "batch normalisation that is fixed": (
        *(lambda: head(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4), width=16).eval(), (2, 4)),
        {"0": POSITIONS, "1": POSITIONS},
    ),
    "root mean square": (lambda: head(nn.RMSNorm([2, 4]), width=8), (2, 4), {"0": POSITIONS}),
    "embedding with padding": (lambda: head(nn.Embedding(5, 3, padding_idx=2), width=12), None, {"0": POSITIONS}),
    "words, positions and a last layer of the first's matrix": (
        *(Words, None),
        {"words": POSITIONS, "positions": POSITIONS, "out": POSITIONS},
    ),
    "attention": (
        *(lambda: head(Attention(4, 2), width=12), (3, 4)),
        {"0.attention": FUNC, "0.attention.out_proj": FUNC, "2": OUTER},
    ),
    "recurrent": (Recurrent, (3, 4), {"recurrent": LOOP, "out": OUTER}),
}


def problem_of(make, shape, *, n=N, batch_size=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        module = make().double()
    inputs = normal(n, *shape) if shape else torch.as_tensor(np.random.default_rng(0).integers(5, size=(n, 4)))
    labels = torch.arange(n) % N_CLASSES
    wrong = torch.arange(n) % 4 == 1
    true = torch.where(wrong, (labels + 1) % N_CLASSES, labels)
    return Problem(module, inputs, labels, true, cross_entropy, batch_size, False, 6)


@EVEN
@pytest.mark.parametrize(("make", "shape", "expected"), PATHS.values(), ids=PATHS.keys())
def test_each_kind_of_layer_takes_its_path_and_is_right(make, shape, expected):
    problem = problem_of(make, shape)
    landscape = problem.landscape()
    weights = problem.weights()
    ensemble = gradient_ensemble(landscape, weights, 3)
    by_layer = ensemble.by_layer()
    found = dict(zip(by_layer.layer.values.tolist(), by_layer.path.values.tolist(), strict=True))
    assert {layer: found[layer] for layer in expected} == expected
    assert list(ensemble.paths) == [name for name, _ in problem.module.named_parameters()]
    assert_measures(ensemble, problem, *one_after_the_other(problem, weights), DOUBLE)


@pytest.mark.parametrize("n_positions", [1, N, 2 * N])
def test_positions_are_not_taken_for_samples_where_there_are_as_many(n_positions):
    """What comes first in a layer that is given positions first may be as long as the batch by chance."""
    problem = problem_of(TimeFirst, (n_positions, 2))
    weights = problem.weights()
    matrix, _ = one_after_the_other(problem, weights)
    got = problem.landscape().sample_gradients(weights).dense()
    np.testing.assert_allclose(got, matrix, rtol=0, atol=DOUBLE * np.abs(matrix).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_grad_by_freq": True}, r"layer '0' \(Embedding\) divides gradients by how often a word comes"),
        ({"max_norm": 1.0}, r"layer '0' \(Embedding\) shortens rows of its weight .*max_norm=1\)"),
    ],
)
def test_embeddings_that_look_at_other_samples_or_move_are_refused(options, message):
    network = head(nn.Embedding(5, 3, **options), width=12)
    with pytest.raises(ConfigurationError, match=message):
        NetworkLandscape(network, torch.zeros(3, 4, dtype=torch.int64), torch.arange(3))


class Scalar(nn.Module):
    """A layer that is called with one number, and user code that insists on the shape of another."""

    def __init__(self):
        super().__init__()
        self.one, self.positions, self.out = nn.Embedding(2, 4), nn.Embedding(3, 4), nn.Linear(4, N_CLASSES)

    def forward(self, x):
        positions = self.positions(torch.arange(3))
        assert positions.shape == (3, 4)
        return self.out(torch.tanh(x + self.one(torch.tensor(0)) + positions.sum(0)))


def test_layers_that_are_called_with_other_things_than_samples_are_right():
    problem = problem_of(Scalar, (4,))
    weights = problem.weights()
    matrix, _ = one_after_the_other(problem, weights)
    gradients = problem.landscape().sample_gradients(weights)
    assert gradients.paths["one.weight"] == gradients.paths["positions.weight"] == FUNC
    np.testing.assert_allclose(gradients.dense(), matrix, rtol=0, atol=DOUBLE * np.abs(matrix).max())


@pytest.mark.parametrize("n", [4, 9])
def test_positions_that_all_samples_share_are_told_apart(n):
    """The layer of positions is called once, with as many numbers as there may be samples by chance."""
    problem = problem_of(Words, None, n=n)
    weights = problem.weights()
    matrix, _ = one_after_the_other(problem, weights)
    landscape = problem.landscape()
    source = landscape._source(weights, 0, landscape.measured_parameters, {})
    whole = landscape.sample_gradients(weights)
    for size in (1, 4, n):
        layers, shared = landscape._layers
        own = {name: source.module.get_submodule(name) for name in layers}
        pieces = StreamedSampleGradients(replace(source, layers=own, shared=shared), size, 3, 2**20)
        assert pieces.paths["positions.weight"].startswith(POSITIONS)
        got = pieces.combine(torch.eye(n, dtype=torch.float64))
        np.testing.assert_allclose(got, whole.dense(), rtol=0, atol=DOUBLE * np.abs(matrix).max())
        np.testing.assert_allclose(got, matrix, rtol=0, atol=DOUBLE * np.abs(matrix).max())


def saturated():
    """A weight of two layers before a normalisation over two numbers, which lets next to no gradient through."""
    return head(Tied(4), nn.Linear(4, 2, bias=False), nn.LayerNorm(2, eps=1e-9), width=2)


def test_a_weight_of_two_layers_is_found_where_its_gradient_is_tiny():
    """What the whole network's gradients would round away may be all that a layer has."""
    problem = problem_of(saturated, (4,))
    weights = problem.weights()
    matrix, _ = one_after_the_other(problem, weights)
    gradients = problem.landscape().sample_gradients(weights)
    columns = columns_of_layers(problem.module)["0.first"]
    allowed = 1e-6 * np.abs(matrix[:, columns]).max()
    np.testing.assert_allclose(gradients.dense()[:, columns], matrix[:, columns], rtol=0, atol=allowed)


def test_a_weight_of_two_layers_is_found_where_no_gradient_reaches_it():
    """Measured first where a ReLU is off for every sample, then where it is on."""
    problem = problem_of(lambda: head(Tied(4), nn.ReLU(), width=4), (4,))
    landscape, on = problem.landscape(), problem.weights()
    off = on.clone()
    off[16 + 4 : 16 + 8] = -50  # the second bias
    dead = landscape.sample_gradients(off).dense()
    assert (dead[:, : 16 + 8] == 0).all()
    matrix, _ = one_after_the_other(problem, on)
    got = landscape.sample_gradients(on).dense()
    np.testing.assert_allclose(got, matrix, rtol=0, atol=DOUBLE * np.abs(matrix).max())


class Frozen(nn.Module):
    """A layer that is evaluated without a gradient."""

    def __init__(self):
        super().__init__()
        self.fixed, self.out = nn.Linear(4, 3), nn.Linear(3, N_CLASSES)

    def forward(self, x):
        with torch.no_grad():
            features = self.fixed(x)
        return self.out(features)


def test_a_layer_that_is_evaluated_without_a_gradient_has_none():
    problem = problem_of(Frozen, (4,))
    weights = problem.weights()
    got = problem.landscape().sample_gradients(weights).dense().numpy()
    assert (got[:, :15] == 0).all()
    with torch.no_grad():
        fixed = nn.Linear(4, 3).double()
        nn.utils.vector_to_parameters(weights[:15], fixed.parameters())
        features = fixed(problem.inputs)
    rest = Problem(problem.module.out, features, problem.labels, problem.labels, cross_entropy, 3, False, 0)
    matrix, _ = one_after_the_other(rest, weights[15:])
    np.testing.assert_allclose(got[:, 15:], matrix, rtol=0, atol=DOUBLE * np.abs(matrix).max())


def test_data_are_not_overwritten_by_a_network_that_begins_in_place():
    inputs = normal(N, 4)
    before = inputs.clone()
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, N_CLASSES)).double()
    landscape = NetworkLandscape(module, inputs, torch.arange(N) % N_CLASSES)
    landscape.sample_gradients(landscape.own_weights)
    landscape.gradient(landscape.own_weights[None])
    landscape.sample_losses(landscape.own_weights[None])
    assert torch.equal(inputs, before)


def mixed():
    return nn.Sequential(
        *(nn.Conv1d(3, 2, 2), nn.LayerNorm([2, 3]), nn.Tanh(), nn.Linear(3, 3), nn.Flatten(), nn.Linear(6, N_CLASSES))
    )


PATTERNS = {
    "one little weight": ("5.weight", ["5.weight"]),
    "all weights": ("*.weight", ["0.weight", "1.weight", "3.weight", "5.weight"]),
    "all biases": ("*bias", ["0.bias", "1.bias", "3.bias", "5.bias"]),
    "weight here, bias there": (("0.bias", "5.weight", "1.*"), ["0.bias", "1.weight", "1.bias", "5.weight"]),
}


@pytest.mark.parametrize(("patterns", "expected"), PATTERNS.values(), ids=PATTERNS.keys())
def test_patterns_pick_the_columns_of_their_tensors(patterns, expected):
    problem = problem_of(mixed, (3, 4))
    weights = problem.weights()
    matrix, losses = one_after_the_other(problem, weights)
    landscape = problem.landscape(parameters=patterns)
    start, chosen, layers = 0, [], {}
    for name, tensor in problem.module.named_parameters():
        if name in expected:
            layers.setdefault(name.split(".")[0], []).extend(range(len(chosen), len(chosen) + tensor.numel()))
            chosen += range(start, start + tensor.numel())
        start += tensor.numel()
    ensemble = gradient_ensemble(landscape, weights, 3)
    assert list(ensemble.paths) == list(landscape.measured_parameters) == expected
    assert not landscape.measures_everything
    everywhere = landscape.sample_gradients(weights, everywhere=True).dense()
    np.testing.assert_allclose(everywhere, matrix, rtol=0, atol=DOUBLE * np.abs(matrix).max())
    np.testing.assert_allclose(landscape.gradient(weights[None])[0], matrix.mean(0), rtol=0, atol=DOUBLE)
    assert_measures(ensemble, problem, matrix[:, chosen], losses, DOUBLE, layers=layers)


# --- memory


def images():
    return problem_of(
        lambda: head(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.GroupNorm(2, 4), width=900),
        (1, 32, 32),
        n=96,
        batch_size=5,
    )


@pytest.mark.proof
def test_little_memory_changes_nothing_but_the_way():
    problem = images()
    landscape, weights = problem.landscape(), problem.weights()
    free = gradient_ensemble(landscape, weights, 5)
    tight = gradient_ensemble(landscape, weights, 5, memory_limit="1 MiB")
    assert not isinstance(free.gradients, StreamedSampleGradients)
    assert isinstance(tight.gradients, StreamedSampleGradients)
    pieces = tight.gradients.at_a_time
    assert 1 <= pieces < 96
    assert tight.paths["0.weight"] == f"{free.paths['0.weight']}, in pieces of {pieces} samples"
    generators = [np.random.default_rng(3) for _ in range(2)]
    one, other = (
        each.order_parameters(generator, 20) for each, generator in zip((free, tight), generators, strict=True)
    )
    for name in one.data_vars:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-9, atol=1e-12, err_msg=str(name))
    matrix, _ = one_after_the_other(problem, weights)
    np.testing.assert_allclose(tight.mean_gradient, matrix.mean(0), rtol=0, atol=DOUBLE * np.abs(matrix).max())


def test_held_gradients_computed_in_pieces_are_the_same():
    """A limit between: what is held fits, what autograd keeps of all samples does not."""
    problem = images()
    landscape, weights = problem.landscape(), problem.weights()
    free, middle = (landscape.sample_gradients(weights, memory_limit=limit) for limit in ("1 GiB", "8 MiB"))
    assert type(middle) is type(free)
    assert middle.paths == free.paths
    np.testing.assert_allclose(middle.dense(), free.dense(), rtol=0, atol=DOUBLE * float(free.dense().abs().max()))


def test_memory_for_less_than_one_sample_is_refused_with_the_figure():
    width = 60_000
    problem = problem_of(lambda: nn.Linear(width, N_CLASSES), (width,), n=3)
    n_parameters = N_CLASSES * (width + 1)
    message = (
        rf"memory_limit of 1 MiB: expected at least (\S+) MiB for .* \({n_parameters} measured .*parameters= pattern"
    )
    with pytest.raises(ConfigurationError, match=message) as caught:
        problem.landscape().sample_gradients(problem.weights(), memory_limit="1 MiB")
    figure = float(re.search(message, str(caught.value))[1])
    assert figure == pytest.approx(8 * n_parameters / 2**20, abs=0.5)
    assert figure > 1
    assert problem.landscape().sample_gradients(problem.weights(), memory_limit=f"{figure + 1} MiB").n_samples == 3


def test_recurrent_networks_go_one_by_one_and_agree_in_pieces_too():
    problem = problem_of(Recurrent, (3, 4))
    weights = problem.weights()
    matrix, _ = one_after_the_other(problem, weights)
    for limit in (None, "1 MiB"):
        gradients = problem.landscape().sample_gradients(weights, memory_limit=limit)
        assert {path for name, path in gradients.paths.items() if name.startswith("recurrent")} == {LOOP}
        np.testing.assert_allclose(gradients.dense(), matrix, rtol=0, atol=DOUBLE * np.abs(matrix).max())


# --- limits


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("kind", ["mixed", "recurrent", "attention"])
def test_identical_samples_have_exactly_no_noise(kind, batch_size):
    make = {"mixed": mixed, "recurrent": Recurrent, "attention": lambda: head(Attention(4, 2), width=12)}[kind]
    problem = problem_of(make, (3, 4), n=6, batch_size=batch_size)
    problem.inputs = problem.inputs[:1].expand(6, -1, -1).clone()
    problem.labels = problem.true_labels = torch.ones(6, dtype=torch.int64)
    ensemble = gradient_ensemble(problem.landscape(), problem.weights(), batch_size)
    order = ensemble.order_parameters(np.random.default_rng(0)).sel(cohort="all")
    assert float(order.activity) > 0
    assert float(order.noise_strength) == float(order.projection_variance) == float(order.parallel_noise) == 0
    assert float(order.alignment) == pytest.approx(1, abs=1e-12)
    assert (ensemble.noise_eigenvalues() == 0).all()


@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_a_network_at_a_minimum_of_every_sample_is_nan_with_a_warning_and_never_infinite(batch_size):
    module = mixed().double()
    inputs = normal(6, 3, 4)
    with torch.no_grad():
        targets = module(inputs)
    landscape = NetworkLandscape(module, inputs, targets, loss=square, true_labels=targets + torch.eye(6)[:, :3])
    ensemble = gradient_ensemble(landscape, landscape.own_weights, batch_size)
    with pytest.warns(UndefinedQuantityWarning, match="^the mean gradient is zero: .* undefined here, and NaN$"):
        order = ensemble.order_parameters(np.random.default_rng(0))
    for dataset in (order, ensemble.by_layer(), ensemble.spectrum(), ensemble.classes([0, 1] * 3), ensemble.samples()):
        for name, values in dataset.data_vars.items():
            assert not np.isinf(values).any(), name
    for name in ("activity", "directed_activity", "noise_strength"):
        assert float(order[name].sel(cohort="all")) == 0
    for name in ("alignment", "projection_variance", "gradient_noise_scale", "alignment_approximation"):
        assert np.isnan(order[name]).all(), name
    assert np.isnan(ensemble.spectrum().effective_dimension)


# --- networks without sample gradients


class Centring(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("inner", "named"),
    [
        (Centring, r"of layer '1\.inner\.1' \(Centring\)"),
        (lambda: nn.BatchNorm1d(5), r"layer '1\.inner\.1' \(BatchNorm1d\) normalises over the batch"),
    ],
    ids=["a module of one's own", "BatchNorm"],
)
def test_layers_that_mix_samples_are_named_however_deep(inner, named):
    module = nn.Sequential(nn.Linear(4, 5), Residual(nn.Sequential(nn.Linear(5, 5), inner())), nn.Linear(5, N_CLASSES))
    with pytest.raises(SampleMixingError, match=named):
        NetworkLandscape(module, normal(N, 4).float(), torch.arange(N) % N_CLASSES)
