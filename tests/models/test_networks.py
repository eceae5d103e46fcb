import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate
from scipy.special import erf

from langevin_nn.errors import ConfigurationError, UnknownNameError
from models import multilayer_perceptron, small_convolutional_network

ACTIVATIONS = {
    "relu": lambda x: np.where(x > 0, x, 0),
    "tanh": lambda x: 1 - 2 / (np.exp(2 * x) + 1),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
}


def seeded(build, *arguments, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(*arguments)


def images(n_samples, *shape, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).random((n_samples, *shape)))


def arrays(network):
    return [weights.detach().numpy() for weights in network.parameters()]


# Multilayer perceptron


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(5, 3), (7, 4, 3), (6, 5, 4, 2)])
def test_perceptron_computes_its_formula(widths, activation):
    network = seeded(multilayer_perceptron, widths, activation).double()
    inputs = images(8, widths[0]) * 4 - 2
    weights = arrays(network)
    layer = inputs.numpy()
    for number, (matrix, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True), start=1):
        layer = np.einsum("oi,si->so", matrix, layer) + bias
        if number < len(widths) - 1:
            layer = ACTIVATIONS[activation](layer)
    np.testing.assert_allclose(network(inputs).detach().numpy(), layer, rtol=1e-12, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5))
def test_perceptron_has_the_widths_asked_for(widths):
    network = multilayer_perceptron(widths)
    assert sum(array.size for array in arrays(network)) == sum(
        (n_inputs + 1) * n_outputs for n_inputs, n_outputs in pairwise(widths)
    )
    assert network(torch.zeros(3, widths[0])).shape == (3, widths[-1])
    assert isinstance(network[0], torch.nn.Linear)
    assert isinstance(network[-1], torch.nn.Linear)


def spread(matrix, n_inputs):
    """Standard scores of mean square and of its twin with 5 % more noise, against U(-n^-1/2, n^-1/2)."""
    variance = 1 / (3 * n_inputs)
    error = variance * math.sqrt(0.8 / matrix.size)  # of U(-a, a): ⟨x⁴⟩/⟨x²⟩² = 9/5
    return [abs(((factor * matrix) ** 2).mean() - variance) / error for factor in (1, 1.05)]


def test_perceptron_starts_from_the_default_of_pytorch():
    network = seeded(multilayer_perceptron, (100, 400, 10))
    matrix = arrays(network)[0].astype(float)
    assert np.abs(matrix).max() <= 0.1 + 1e-7
    assert abs(matrix.mean()) < 4 * 0.1 / math.sqrt(3 * matrix.size)
    score, twin = spread(matrix, 100)
    assert score < 4 < twin  # 40,000 weights: 5 % more is 10 % of variance, 23 standard errors
    again, other = (arrays(seeded(multilayer_perceptron, (100, 400, 10), seed=seed))[0] for seed in (0, 1))
    np.testing.assert_array_equal(again, arrays(network)[0])
    assert not np.array_equal(again, other)


@pytest.mark.parametrize("widths", [(), (10,)])
def test_fewer_than_two_widths(widths):
    with pytest.raises(ConfigurationError, match=r"widths: expected at least the numbers .*, got \(") as caught:
        multilayer_perceptron(widths)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("widths", [(10, 0, 2), (10, -1), (0, 2)])
def test_widths_that_are_not_positive(widths):
    with pytest.raises(ConfigurationError, match="widths: expected positive numbers of features, got"):
        multilayer_perceptron(widths)


def test_unknown_activation():
    with pytest.raises(
        UnknownNameError, match=r"unknown activation 'rellu': expected one of relu, tanh, gelu; .*'relu'"
    ):
        multilayer_perceptron((4, 2), "rellu")


# Convolutional network


def slow_twin(weights, image):
    """Compute the outputs for one image, in NumPy and SciPy."""
    for number in range(4):
        kernels, biases = weights[2 * number], weights[2 * number + 1]
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
        planes = [
            correlate(padded, kernel, "valid", method="direct")[0] + bias
            for kernel, bias in zip(kernels, biases, strict=True)
        ]
        image = np.maximum(planes, 0)
        if number < 3:
            corners = [image[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
            image = np.maximum.reduce(corners)
    return weights[8] @ image.mean(axis=(1, 2)) + weights[9]


def test_convolutional_network_agrees_with_its_slow_twin():
    network = seeded(small_convolutional_network, 5, (2, 3, 4, 3)).double()
    inputs = images(2, 3, 32, 32)
    expected = [slow_twin(arrays(network), image) for image in inputs.numpy()]
    np.testing.assert_allclose(network(inputs).detach().numpy(), expected, rtol=1e-11)


@pytest.mark.parametrize(("n_classes", "channels"), [(10, (16, 32, 32, 64)), (2, [1, 1, 1, 1]), (3, (2, 5, 4, 3))])
def test_convolutional_network_has_the_channels_asked_for(n_classes, channels):
    network = small_convolutional_network(n_classes, channels)
    shapes = [array.shape for array in arrays(network)]
    assert shapes[0:8:2] == [(n, m, 3, 3) for n, m in zip(channels, (3, *channels[:3]), strict=True)]
    assert shapes[8] == (n_classes, channels[-1])
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, n_classes)


@pytest.mark.parametrize("channels", [(), (16, 32, 64), (1, 2, 3, 4, 5)])
def test_convolutional_network_needs_four_numbers_of_channels(channels):
    with pytest.raises(ConfigurationError, match=r"channels: expected four numbers, .* got \("):
        small_convolutional_network(10, channels)


@pytest.mark.parametrize(("n_classes", "channels"), [(0, (1, 1, 1, 1)), (10, (1, 0, 1, 1)), (10, (1, 1, 1, -2))])
def test_convolutional_network_needs_positive_numbers(n_classes, channels):
    with pytest.raises(
        ConfigurationError, match=f"n_classes and channels: expected positive numbers, got {n_classes} and"
    ):
        small_convolutional_network(n_classes, channels)
