"""Networks as landscapes, against a float64 loop over samples in plain autograd; and what is refused, and why."""

from __future__ import annotations

import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numba
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from twins import losses_of, slow_gradients

from langevin_nn import NetworkLandscape, Seeds, gradient_ensemble, sgd
from langevin_nn.errors import AllMislabeledWarning, ConfigurationError, SampleMixingError, UnknownNameError
from langevin_nn.gradients.layout import ParameterLayout
from langevin_nn.gradients.traced import TracedGradient
from langevin_nn.landscape import cross_entropy
from langevin_nn.landscape.user_code import digests_of_user_code
from langevin_nn.provenance import untold
from langevin_nn.threads import side_by_side, single_threaded_products

N, N_CLASSES = 11, 3

# Rounding, relative to the largest entry: some hundred float32 operations of 6e-8 each; the same in float64.
SINGLE, DOUBLE = 1e-5, 1e-12


def made(make):
    """Return a network; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make()


def perceptron(widths, activation=nn.ReLU, **options):
    def make():
        layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair, **options), activation())]
        return nn.Sequential(*layers[:-1])

    return made(make)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def classes(*shape, seed=1):
    return torch.as_tensor(np.random.default_rng(seed).integers(N_CLASSES, size=shape))


def assert_close(got, expected, tolerance=SINGLE):
    expected = torch.as_tensor(expected).double()
    assert got.shape == expected.shape
    assert float((got.double() - expected).abs().max()) <= tolerance * float(expected.abs().max())


def rows_of(replicas, n_rows, seed=4):
    """Indices with repeats, coefficients of both signs."""
    generator = np.random.default_rng(seed)
    indices = torch.as_tensor(generator.integers(N, size=(replicas, n_rows)))
    return indices, normal(replicas, n_rows, seed=seed)


# --- weighted gradients: the perceptron kernel

PERCEPTRONS = {
    "no hidden layer": ((5, N_CLASSES), nn.ReLU),
    "one ReLU layer": ((5, 7, N_CLASSES), nn.ReLU),
    "one tanh layer": ((5, 7, N_CLASSES), nn.Tanh),
    "widths up and down, ReLU": ((5, 3, 9, 4, N_CLASSES), nn.ReLU),
    "widths up and down, tanh": ((5, 3, 9, 4, N_CLASSES), nn.Tanh),
    "one GELU layer": ((5, 7, N_CLASSES), nn.GELU),
    "widths up and down, GELU": ((5, 3, 9, 4, N_CLASSES), nn.GELU),
    "wider than a vector, GELU": ((37, 21, N_CLASSES), nn.GELU),
    "one feature, one unit": ((1, 1, N_CLASSES), nn.Tanh),
}


@pytest.fixture(params=PERCEPTRONS, scope="module")
def fast(request):
    widths, activation = PERCEPTRONS[request.param]
    module = perceptron(widths, activation)
    return module, normal(N, widths[0])


@pytest.mark.parametrize("own_labels", [False, True], ids=["shared labels", "labels of each replica"])
@pytest.mark.parametrize("chosen", [False, True], ids=["all samples", "chosen samples"])
def test_kernel_agrees_with_the_traced_graph_and_with_the_loop_over_samples(fast, chosen, own_labels):
    module, inputs = fast
    labels = classes(3, N) if own_labels else classes(N)
    landscape = NetworkLandscape(module, inputs, labels)
    assert landscape.problem.path.name == "perceptron kernel"
    weights = 2 * landscape.initial_weights((0, 1, 2), Seeds(5))
    indices, coefficients = rows_of(3, 6 if chosen else N)
    indices = indices if chosen else None

    got = landscape.weighted_gradient(weights, coefficients, indices)
    slower = TracedGradient(module, ParameterLayout.of(module), cross_entropy)
    traced = slower(weights, landscape.inputs, landscape.labels, coefficients, indices)
    for replica in range(3):
        rows = indices[replica] if chosen else slice(None)
        of_replica = labels[replica] if own_labels else labels
        slow = slow_gradients(module, weights[replica], inputs[rows], of_replica[rows])
        expected = coefficients[replica].double() @ slow
        assert_close(got[replica], expected)
        assert_close(traced[replica], expected)


def test_the_comparison_sees_the_labels_of_another_replica():
    """Mutated twin: replica 0's labels used for replica 1 miss the tolerance by far."""
    module, inputs, labels = perceptron((5, 7, N_CLASSES)), normal(N, 5), classes(2, N)
    weights = NetworkLandscape(module, inputs, labels).initial_weights((0, 1), Seeds(5))
    shared = NetworkLandscape(module, inputs, labels[0])
    expected = slow_gradients(module, weights[1], inputs, labels[1]).mean(0)
    with pytest.raises(AssertionError):
        assert_close(shared.gradient(weights)[1], expected, tolerance=100 * SINGLE)


def test_large_logits_neither_overflow_nor_lose_the_gradient():
    """Logits of 300: exp overflows in float32 unless the largest is taken off first."""
    module, inputs, labels = perceptron((5, N_CLASSES)), normal(N, 5), classes(N)
    landscape = NetworkLandscape(module, inputs, labels)
    weights = 300 * landscape.initial_weights((0,), Seeds(5))
    assert_close(landscape.gradient(weights)[0], slow_gradients(module, weights[0], inputs, labels).mean(0))


def test_noncontiguous_weights_and_coefficients():
    module, inputs = perceptron((5, 7, N_CLASSES)), normal(N, 5)
    landscape = NetworkLandscape(module, inputs, classes(N))
    weights, coefficients = landscape.initial_weights((0, 1), Seeds(5)), normal(2, N)
    stretched = torch.stack([weights, weights], dim=2)[:, :, 0], coefficients.T.contiguous().T
    assert torch.equal(landscape.weighted_gradient(*stretched), landscape.weighted_gradient(weights, coefficients))


@pytest.mark.parametrize("chosen", [False, True], ids=["all samples", "chosen samples"])
def test_kernel_gives_the_same_bits_whichever_replicas_run_beside(fast, chosen):
    module, inputs = fast
    landscape = NetworkLandscape(module, inputs, classes(5, N))
    weights = landscape.initial_weights(tuple(range(5)), Seeds(5))
    indices, coefficients = rows_of(5, 6 if chosen else N)

    def gradient(replicas):
        rows = indices[replicas] if chosen else None
        alone = NetworkLandscape(module, inputs, landscape.labels[replicas])
        return alone.weighted_gradient(weights[replicas], coefficients[replicas], rows)

    with single_threaded_products():
        together = gradient([0, 1, 2, 3, 4])
        for replicas in ([0], [3], [4], [3, 1], [2, 3, 4]):
            assert torch.equal(gradient(replicas), together[replicas])


def test_kernel_gives_the_same_bits_for_any_number_of_threads():
    module, inputs = perceptron((64, 30, 10)), normal(200, 64)
    landscape = NetworkLandscape(module, inputs, classes(200))
    weights = landscape.initial_weights(tuple(range(4)), Seeds(5))
    before = numba.get_num_threads()
    with single_threaded_products():
        gradients = [landscape.gradient(weights)]
        try:
            numba.set_num_threads(1)
            gradients.append(landscape.gradient(weights))
        finally:
            numba.set_num_threads(before)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("chosen", [True, False])
def test_replicas_of_a_large_network_have_the_same_bits_side_by_side(chosen):
    module = made(lambda: nn.Sequential(nn.Conv2d(1, 32, 5), nn.Tanh(), nn.Flatten(), nn.Linear(18432, 3)))
    landscape = NetworkLandscape(module, normal(40, 1, 28, 28), classes(3, 40))
    weights = landscape.initial_weights((0, 1, 2), Seeds(5))
    indices, coefficients = rows_of(3, 20 if chosen else 40)
    with single_threaded_products():
        first, second, third = (
            landscape.weighted_gradient(weights, coefficients, indices if chosen else None) for _ in range(3)
        )
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    # Only the first was made one by one, on any machine of several cores: a pass takes a hundred million operations.
    assert numba.get_num_threads() == 1 or any(each.name.startswith("langevin_nn-") for each in threading.enumerate())


def test_outputs_of_a_large_network_have_the_same_bits_side_by_side():
    module = made(lambda: nn.Sequential(nn.Conv2d(1, 32, 5), nn.Tanh(), nn.Flatten(), nn.Linear(18432, 3)))
    landscape = NetworkLandscape(module, normal(200, 1, 28, 28), classes(200))
    weights = landscape.initial_weights((0, 1, 2), Seeds(5))
    with single_threaded_products():
        together = landscape.outputs(weights, landscape.inputs)
        assert torch.equal(together, torch.cat([landscape.outputs(row[None], landscape.inputs) for row in weights]))
        module.load_state_dict(
            dict(zip(module.state_dict(), landscape._layout.split(weights[2]).values(), strict=True))
        )
        torch.testing.assert_close(together[2], module(landscape.inputs))


def test_side_by_side_keeps_the_order_of_its_items_and_passes_errors_on():
    assert side_by_side(lambda k: k * k, range(20)) == [k * k for k in range(20)]
    with single_threaded_products():
        assert side_by_side(lambda k: k * k, range(20)) == [k * k for k in range(20)]
        assert side_by_side(lambda k: torch.get_num_threads(), range(8)) == [1] * 8
        assert side_by_side(str, []) == []
        with pytest.raises(ZeroDivisionError):
            side_by_side(lambda k: 1 // k, range(3))


# --- weighted gradients: any network


class Residual(nn.Module):
    """x + f(x), with a bare parameter that scales the output."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, N_CLASSES)
        self.scale = nn.Parameter(torch.tensor([1.3]))

    def forward(self, x):
        hidden = self.first(x)
        return self.scale * self.last(hidden + torch.tanh(self.inner(hidden)))


NETWORKS = {
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, N_CLASSES)),
        normal(N, 1, 4, 4),
    ),
    "layer normalisation": (
        lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, N_CLASSES)),
        normal(N, 5),
    ),
    "residual": (Residual, normal(N, 5)),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Tanh(), nn.Linear(12, N_CLASSES)),
        torch.as_tensor(np.random.default_rng(2).integers(7, size=(N, 4))),
    ),
    "SiLU": (lambda: perceptron((5, 6, N_CLASSES), nn.SiLU), normal(N, 5)),
    "GELU by tanh": (
        lambda: nn.Sequential(nn.Linear(5, 6), nn.GELU(approximate="tanh"), nn.Linear(6, N_CLASSES)),
        normal(N, 5),
    ),
    "two activations": (
        lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, N_CLASSES)),
        normal(N, 5),
    ),
    "no biases": (lambda: perceptron((5, 6, N_CLASSES), bias=False), normal(N, 5)),
    "one layer used twice": (
        lambda: (lambda layer: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), layer, nn.ReLU(), layer))(nn.Linear(4, 4)),
        normal(N, 5),
    ),
    "linear over a sequence": (
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, N_CLASSES)),
        normal(N, 4, 2),
    ),
    "overwriting activation": (
        lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.LayerNorm(6), nn.Linear(6, N_CLASSES)),
        normal(N, 5),
    ),
}


@pytest.fixture(params=NETWORKS, scope="module")
def general(request):
    make, inputs = NETWORKS[request.param]
    module = made(make)

    def factory():
        return deepcopy(module)

    landscape = NetworkLandscape(factory, inputs, classes(2, N))
    offset = landscape.initial_weights((0,), Seeds(0))
    return module, landscape, offset + 0.3 * normal(2, landscape.n_parameters, seed=8)


def test_networks_without_a_kernel_agree_with_the_loop_over_samples(general):
    module, landscape, weights = general
    assert landscape.problem.path.name == "torch.func"
    indices, coefficients = rows_of(2, 6)
    for rows, shares in ((None, normal(2, N, seed=4)), (indices, coefficients)):
        got = landscape.weighted_gradient(weights, shares, rows)
        # A second call takes the graph that the first one traced.
        assert torch.equal(got, landscape.weighted_gradient(weights, shares, rows))
        for replica in range(2):
            chosen = slice(None) if rows is None else rows[replica]
            slow = slow_gradients(module, weights[replica], landscape.inputs[chosen], landscape.labels[replica, chosen])
            assert_close(got[replica], shares[replica].double() @ slow)


def test_a_traced_graph_holds_no_values():
    """Other labels, coefficients and weights of the same shapes go through the same graph."""
    module, inputs = perceptron((5, 6, N_CLASSES), nn.SiLU), normal(N, 5)
    landscape = NetworkLandscape(module, inputs, classes(2, N))
    first = landscape.initial_weights((0, 1), Seeds(1))
    landscape.gradient(first)
    swapped = replace(landscape.problem, labels=landscape.labels.flip(0))
    second = landscape.initial_weights((2, 3), Seeds(1))
    coefficients = normal(2, N, seed=9)
    got = swapped.weighted_gradient(second, coefficients)
    assert len(swapped.path.function._graphs) == 1
    for replica in range(2):
        slow = slow_gradients(module, second[replica], inputs, classes(2, N)[1 - replica])
        assert_close(got[replica], coefficients[replica].double() @ slow)


# --- sample gradients


def test_sample_gradients_agree_with_the_loop_over_samples(general):
    module, landscape, weights = general
    for replica in range(2):
        slow = slow_gradients(module, weights[replica], landscape.inputs, landscape.labels[replica])
        got = landscape.sample_gradients(weights[replica], replica)
        assert got.n_parameters == landscape.n_parameters
        assert_close(got.dense(), slow)
        assert_close(got.gram(), slow @ slow.T)


@pytest.mark.parametrize("widths", [(5, N_CLASSES), (5, 7, 4, N_CLASSES)])
def test_every_product_of_the_outer_product_form_is_that_of_the_stored_matrix(widths):
    """In float64, so that only the algebra is compared: signals and activations against a matrix made elsewhere."""
    module, inputs = perceptron(widths).double(), normal(N, 5, dtype=torch.float64)
    landscape = NetworkLandscape(module, inputs, classes(N))
    weights = landscape.initial_weights((0,), Seeds(5))[0]
    gradients = landscape.sample_gradients(weights)
    assert {path for name, path in gradients.paths.items() if name.endswith("weight")} == {"outer products"}
    slow = slow_gradients(module, weights, inputs, classes(N))

    directions = normal(3, landscape.n_parameters, dtype=torch.float64)
    coefficients = normal(4, N, dtype=torch.float64)
    indices = rows_of(6, 4)[0]
    assert_close(gradients.dense(), slow, DOUBLE)
    assert_close(gradients.squared_norms(), (slow**2).sum(1), DOUBLE)
    assert_close(gradients.project(directions), slow @ directions.T, DOUBLE)
    assert_close(gradients.combine(coefficients), coefficients @ slow, DOUBLE)
    assert_close(gradients.gram(), slow @ slow.T, DOUBLE)
    assert_close(gradients.trace(), ((slow - slow.mean(0)) ** 2).sum() / N, DOUBLE)
    minibatches = torch.stack([slow[rows].mean(0) for rows in indices])
    assert_close(gradients.minibatch_squared_norms(indices), (minibatches**2).sum(1), DOUBLE)


def test_sample_gradients_are_accumulated_in_float64():
    landscape = NetworkLandscape(perceptron((5, 7, N_CLASSES)), normal(N, 5), classes(N))
    gradients = landscape.sample_gradients(landscape.initial_weights((0,), Seeds(5))[0])
    uniform = torch.full((1, N), 1 / N, dtype=torch.float64)
    for values in (gradients.dense(), gradients.gram(), gradients.squared_norms(), gradients.combine(uniform)):
        assert values.dtype == torch.float64


class TiedThroughFunction(nn.Module):
    """A weight that its own layer uses, and a function that no layer sees uses too."""

    def __init__(self):
        super().__init__()
        self.first, self.other, self.last = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, N_CLASSES)

    def forward(self, x):
        hidden = torch.tanh(self.other(self.first(x)))
        return self.last(functional.linear(hidden, self.other.weight))


class NeverUsed(nn.Module):
    """A layer beside the path from inputs to outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.idle = nn.Linear(5, N_CLASSES), nn.Linear(2, 2)

    def forward(self, x):
        return self.first(x)


def test_a_weight_that_a_function_shares_takes_a_path_that_sees_all_its_uses_and_is_right():
    module, inputs = made(TiedThroughFunction), normal(N, 5)
    landscape = NetworkLandscape(module, inputs, classes(N))
    weights = landscape.initial_weights((0,), Seeds(5))
    gradients = landscape.sample_gradients(weights[0])
    assert gradients.paths["other.weight"] == "torch.func"
    assert gradients.paths["first.weight"] == gradients.paths["last.weight"] == "outer products"
    slow = slow_gradients(module, weights[0], inputs, classes(N))
    assert_close(gradients.dense(), slow)
    assert_close(landscape.gradient(weights)[0], slow.mean(0))


def test_a_layer_that_is_never_used_has_zero_gradient():
    module, inputs = made(NeverUsed), normal(N, 5)
    landscape = NetworkLandscape(module, inputs, classes(N))
    weights = landscape.initial_weights((0,), Seeds(5))[0]
    names = list(dict(module.named_parameters()))
    assert names[2:] == ["idle.weight", "idle.bias"]
    gradients = landscape.sample_gradients(weights).dense()
    assert (gradients[:, 18:] == 0).all()
    used = slow_gradients(module.first, weights[:18], inputs, classes(N))
    assert_close(gradients[:, :18], used)


def test_an_unknown_pattern_lists_the_known_names():
    with pytest.raises(
        UnknownNameError, match=r"parameter pattern '1.weight': expected one of 0.weight, 0.bias, 2.weight"
    ):
        NetworkLandscape(perceptron((5, 4, N_CLASSES)), normal(N, 5), classes(N), parameters="1.weight")


# --- what is refused


class Mixing(nn.Module):
    """Outputs that know the rest of the batch without any layer that says so."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, N_CLASSES)

    def forward(self, x):
        return self.layer(x - x.mean(0))


class Random(nn.Module):
    """Outputs with noise of their own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, N_CLASSES)

    def forward(self, x):
        return self.layer(x + torch.randn_like(x))


class Pooled(Mixing):
    """One output for the whole batch."""

    def forward(self, x):
        return self.layer(x).mean(0, keepdim=True)


def with_layer(layer):
    return lambda: nn.Sequential(nn.Linear(5, 4), layer(), nn.ReLU(), nn.Linear(4, N_CLASSES))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            with_layer(lambda: nn.BatchNorm1d(4)),
            r"layer '1' \(BatchNorm1d\) normalises over the batch.*\.eval\(\).*LayerNorm",
        ),
        (with_layer(lambda: nn.SyncBatchNorm(4)), r"layer '1' \(SyncBatchNorm\) normalises over the batch"),
        (with_layer(lambda: nn.Dropout(0.5)), r"layer '1' \(Dropout, p=0.5\) draws random numbers.*with \.eval\(\)"),
        (with_layer(lambda: nn.AlphaDropout(0.1)), r"layer '1' \(AlphaDropout, p=0.1\) draws random numbers"),
        (
            Mixing,
            r"changes with the other samples of the batch: expected an independent output.*use layers that normalise",
        ),
        (Pooled, r"changes with the other samples of the batch"),
        (
            Random,
            r"two different outputs for the same inputs: expected a function.*remove the random layer or.*\.eval\(\)",
        ),
        (lambda: nn.Sequential(nn.Linear(5, N_CLASSES), nn.RReLU()), r"layer '1' \(RReLU\) gave two different outputs"),
        (
            lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(5, N_CLASSES)),
            r"layer 'parametrizations.weight.0' \(_SpectralNorm\) gave two different outputs",
        ),
    ],
)
def test_networks_without_sample_gradients_are_refused(make, message):
    before = torch.random.get_rng_state()
    with pytest.raises(SampleMixingError, match=message):
        NetworkLandscape(made(make), normal(N, 5), classes(N))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batch_statistics_without_running_ones_are_refused_even_in_evaluation_mode():
    module = made(with_layer(lambda: nn.BatchNorm1d(4, track_running_stats=False))).eval()
    with pytest.raises(SampleMixingError, match="normalises over the batch"):
        NetworkLandscape(module, normal(N, 5), classes(N))


@pytest.mark.parametrize("layer", [lambda: nn.BatchNorm1d(4), lambda: nn.Dropout(0.5)], ids=["BatchNorm", "Dropout"])
def test_they_are_accepted_in_evaluation_mode_and_measured_right(layer):
    module, inputs = made(with_layer(layer)), normal(N, 5)
    made(lambda: module(inputs))  # gives batch normalisation statistics that are not 0 and 1
    module.eval()
    landscape = NetworkLandscape(module, inputs, classes(N))
    weights = landscape.initial_weights((0,), Seeds(5))
    slow = slow_gradients(module, weights[0], inputs, classes(N))
    assert_close(landscape.gradient(weights)[0], slow.mean(0))
    assert_close(landscape.sample_gradients(weights[0]).dense(), slow)


def test_dropout_of_nothing_is_accepted_in_training_mode():
    landscape = NetworkLandscape(made(with_layer(lambda: nn.Dropout(0.0))), normal(N, 5), classes(N))
    assert landscape.n_parameters == 39


def accepted(**changes):
    arguments = {"module": perceptron((5, 4, N_CLASSES)), "inputs": normal(N, 5), "labels": classes(N)}
    return NetworkLandscape(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": nn.CrossEntropyLoss()},
            r"returned shape \(\) for 2 samples: expected one value a sample, .*reduction='none'",
        ),
        (
            {"loss": nn.MSELoss(reduction="none"), "labels": normal(N, N_CLASSES)},
            r"returned shape \(2, 3\) for 2 samples: expected one value a sample, shape \(2,\).*sum over the outputs",
        ),
        (
            {"labels": classes(N) + 1},
            r"labels run from 1 to 3: expected classes 0 to 2, since the network has 3 outputs",
        ),
        ({"labels": classes(N) - 1}, r"labels run from -1 to 1: expected classes 0 to 2"),
        ({"labels": classes(2, N) * 3}, r"labels run from 0 to 6: expected classes 0 to 2"),
        ({"true_labels": classes(N) + 1}, r"true_labels run from 1 to 3: expected classes 0 to 2"),
        (
            {"true_labels": classes(N) + 1, "loss": lambda y, t: nn.functional.cross_entropy(y, t, reduction="none")},
            r"true_labels hold 3 in .* on which the loss fails",
        ),
        ({"labels": ["cat", "dog"] * 6}, r"labels are names .*np.unique\(labels, return_inverse=True\)"),
        (
            {"labels": classes(N).float()},
            r"labels are of type torch.float32: the cross-entropy expects classes as integers",
        ),
        (
            {"labels": classes(N - 1)},
            r"labels have shape \(10,\): expected one for each of the 11 inputs, .*or \(replica, 11\)",
        ),
        ({"labels": classes(2, N + 1)}, r"labels have shape \(2, 12\): expected one for each of the 11 inputs"),
        (
            {"labels": normal(4, 2), "loss": nn.MSELoss()},
            r"labels have shape \(4, 2\): .*the 11 inputs, shape \(11,\)$",
        ),
        ({"true_labels": classes(N + 1)}, r"true_labels have shape \(12,\): expected one for each of the 11 inputs"),
        ({"true_labels": classes(2, N)}, r"true_labels have shape \(2, 11\): expected that of the labels, \(1, 11\)"),
        ({"test_inputs": normal(4, 5)}, r"test_inputs and test_labels come together: expected both or neither"),
        ({"test_labels": classes(4)}, r"test_inputs and test_labels come together"),
        ({"test_inputs": normal(4, 5), "test_labels": classes(3)}, r"test_labels have shape \(3,\): .*the 4 inputs"),
        ({"module": nn.Sequential(nn.Flatten())}, r"network has no parameters: expected at least one weight"),
    ],
)
def test_data_and_losses_that_do_not_fit_are_refused_with_what_was_expected(changes, message):
    assert accepted().n_samples == N
    with pytest.raises(ConfigurationError, match=message):
        accepted(**changes)


def test_asking_for_test_losses_without_test_data_is_refused():
    landscape = accepted()
    with pytest.raises(ConfigurationError, match="no test data: pass test_inputs and test_labels"):
        landscape.losses_and_errors(landscape.initial_weights((0,), Seeds(0)), test=True)


def test_true_labels_that_no_sample_has_are_told_once_for_all_of_a_replica():
    given = classes(2, N)
    true = torch.stack([(given[0] + 1) % N_CLASSES, given[1]])
    with pytest.warns(AllMislabeledWarning, match=f"all {N} samples of replica 0 have labels that differ"):
        accepted(labels=given, true_labels=true)
    targets = normal(N, N_CLASSES)  # noise makes every number another
    accepted(labels=targets, true_labels=targets + 0.1, loss=lambda outputs, t: (outputs - t).square().sum(1))


def test_labels_of_as_many_replicas_as_weights_are_needed():
    landscape = accepted(labels=classes(2, N))
    with pytest.raises(ConfigurationError, match="labels are given for 2 replicas, weights for 3"):
        landscape.gradient(landscape.initial_weights((0, 1, 2), Seeds(0)))


# --- losses and errors


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
def test_losses_and_errors_of_training_and_test_samples(activation):
    module, inputs, labels = perceptron((5, 4, N_CLASSES), activation), normal(N, 5), classes(2, N)
    test_inputs, test_labels = normal(6, 5, seed=9), classes(6, seed=9)
    landscape = NetworkLandscape(module, inputs, labels, test_inputs=test_inputs, test_labels=test_labels)
    weights = landscape.initial_weights((0, 1), Seeds(5))
    for test, samples, answers in ((False, inputs, labels), (True, test_inputs, test_labels.expand(2, -1))):
        losses, errors = landscape.losses_and_errors(weights, test=test)
        for replica in range(2):
            network = deepcopy(module).double()
            nn.utils.vector_to_parameters(weights[replica].double(), network.parameters())
            with torch.no_grad():
                logits = network(samples.double()).numpy()
            shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            given = answers[replica].numpy()
            assert_close(losses[replica], -np.log(shares[np.arange(len(given)), given]))
            assert errors[replica].tolist() == (shares.argmax(1) != given).tolist()
    assert_close(landscape.loss(weights), landscape.sample_losses(weights).double().mean(1))


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_a_loss_of_ones_own_takes_float_targets_and_has_no_error_rate(n_outputs):
    def half_square(outputs, targets):
        return 0.5 * (outputs - targets.reshape(outputs.shape)).square().sum(1)

    module, inputs = perceptron((5, 4, n_outputs), nn.Tanh), normal(N, 5)
    targets = normal(N, seed=7) if n_outputs == 1 else normal(N, 2, seed=7)
    landscape = NetworkLandscape(module, inputs, targets, loss=half_square)
    assert landscape.problem.path.name == "torch.func"
    assert not landscape.is_classifier
    assert landscape.mislabeled.shape == (1, N)
    assert not landscape.mislabeled.any()
    weights = landscape.initial_weights((0, 1), Seeds(5))
    _, errors = landscape.losses_and_errors(weights)
    assert errors.shape == (2, N)
    assert errors.isnan().all()
    indices, coefficients = rows_of(2, 6)
    for replica in range(2):
        slow = slow_gradients(module, weights[replica], inputs, targets, half_square)
        assert_close(landscape.gradient(weights)[replica], slow.mean(0))
        assert_close(landscape.sample_gradients(weights[replica]).dense(), slow)
        chosen = landscape.weighted_gradient(weights, coefficients, indices)[replica]
        assert_close(chosen, coefficients[replica].double() @ slow[indices[replica]])


def test_cohorts_follow_the_labels_of_each_replica():
    true = classes(N)
    given = torch.stack([true, (true + 1) % N_CLASSES])
    given[1, :4] = true[:4]
    landscape = accepted(labels=given, true_labels=true.expand(2, -1), relabeled=np.arange(N) > 1)
    assert landscape.mislabeled.tolist() == [[False] * N, [False] * 4 + [True] * (N - 4)]
    assert landscape.relabeled.tolist() == [[False] * 2 + [True] * (N - 2)]
    assert not accepted().mislabeled.any()


# --- initial weights


@pytest.fixture(params=["network", "factory"])
def source(request):
    """A network whose layers reset themselves, and a function that makes networks that cannot."""
    if request.param == "network":
        return perceptron((5, 4, N_CLASSES))
    return Residual


def test_replica_three_starts_the_same_among_four_as_alone(source):
    landscape = accepted(module=source)
    four = landscape.initial_weights((0, 1, 2, 3), Seeds(5))
    assert torch.equal(landscape.initial_weights((3,), Seeds(5))[0], four[3])
    assert torch.equal(landscape.initial_weights((2, 0), Seeds(5)), four[[2, 0]])


def test_replicas_and_seeds_start_apart(source):
    landscape = accepted(module=source)
    rows = torch.cat([landscape.initial_weights((0, 1, 2), Seeds(seed)) for seed in (5, 6)])
    drawn = rows.std(0) > 0  # a constant of the architecture is not drawn
    assert int((~drawn).sum()) == (0 if isinstance(source, nn.Module) else 1)
    for i in range(6):
        for j in range(i):
            assert (rows[i, drawn] != rows[j, drawn]).all()


def test_initial_weights_are_what_the_network_itself_draws_under_the_seed():
    landscape = accepted(module=Residual)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Seeds(5).integer("initial weights", 3))
        expected = nn.utils.parameters_to_vector(Residual().parameters()).detach()
    assert torch.equal(landscape.initial_weights((3,), Seeds(5))[0], expected)


def test_initial_weights_have_the_law_of_pytorch():
    """Uniform between -n^{-1/2} and n^{-1/2}: 400 replicas × 23 numbers fix the variance to one percent."""
    landscape = accepted(module=perceptron((4, N_CLASSES)), inputs=normal(N, 4))
    weights = landscape.initial_weights(tuple(range(400)), Seeds(5)).double()
    scaled = weights.flatten() * np.sqrt(4)
    n = len(scaled)
    assert float(scaled.abs().max()) <= 1
    assert abs(float(scaled.mean())) < 4 * np.sqrt(1 / 3 / n)
    assert abs(float(scaled.square().mean()) - 1 / 3) < 4 * np.sqrt(4 / 45 / n)
    # Replicas are independent: neighbours' weights are uncorrelated.
    assert abs(np.corrcoef(weights[1:].flatten(), weights[:-1].flatten())[0, 1]) < 4 / np.sqrt(n)


def test_initial_weights_leave_the_global_generator_alone(source):
    landscape = accepted(module=source)
    before = torch.random.get_rng_state()
    landscape.initial_weights((0, 1), Seeds(5))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_layers_that_cannot_draw_weights_are_refused_with_a_way_out():
    landscape = accepted(module=made(Residual), start="drawn")
    with pytest.raises(
        ConfigurationError,
        match=r"\(Residual\) owns parameters but has no reset_parameters.*lambda: MyNetwork.*start='own'",
    ):
        landscape.initial_weights((0,), Seeds(5))


def test_a_factory_that_changes_the_architecture_is_refused():
    widths = iter((4, 6, 8))
    landscape = accepted(module=lambda: nn.Linear(5, next(widths)))
    with pytest.raises(ConfigurationError, match=r"expected the same architecture.*'weight': \(4, 5\).*got.*\(6, 5\)"):
        landscape.initial_weights((0,), Seeds(5))


# --- second derivatives


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_hessian_product_is_the_second_derivative_of_the_loss(activation):
    """Against forward-over-reverse derivatives in float64, through the loss of plain PyTorch."""
    module, inputs, labels = perceptron((5, 4, N_CLASSES), activation), normal(N, 5), classes(2, N)
    landscape = NetworkLandscape(module, inputs, labels)
    weights, vectors = landscape.initial_weights((0, 1), Seeds(5)), normal(2, landscape.n_parameters, seed=6)
    got = landscape.hessian_product(weights, vectors)
    for replica in range(2):
        losses = losses_of(deepcopy(module).double(), inputs.double(), labels[replica])
        matrix = torch.func.hessian(lambda flat: losses(flat).mean())(weights[replica].double())  # noqa: B023
        assert_close(got[replica], matrix @ vectors[replica].double())


def test_a_gradient_that_is_the_same_everywhere_has_no_derivative():
    module = nn.Linear(5, N_CLASSES)
    landscape = NetworkLandscape(module, normal(N, 5), classes(N), loss=lambda outputs, labels: outputs.sum(1))
    weights = landscape.initial_weights((0,), Seeds(5))
    assert not landscape.hessian_product(weights, torch.ones_like(weights)).any()


def test_products_do_not_depend_on_how_many_samples_are_gone_through_at_a_time():
    landscape = NetworkLandscape(perceptron((5, 4, N_CLASSES), nn.Tanh).double(), normal(N, 5), classes(N))
    weights, vectors = (
        landscape.initial_weights((0,), Seeds(5))[0],
        normal(3, landscape.n_parameters, dtype=torch.float64),
    )
    whole = landscape.gradient_derivative(weights)
    pieces = copy(whole)
    pieces._at_a_time = N // 2 - 1
    assert_close(pieces(vectors), whole(vectors), tolerance=1e-12)
    assert torch.equal(whole(vectors[:1])[0], whole(vectors)[0])


# --- the user's network


def test_the_users_network_is_never_changed():
    module = made(with_layer(lambda: nn.BatchNorm1d(4))).eval()
    module[0].requires_grad_(False)
    before = deepcopy(module.state_dict())
    flags = [tensor.requires_grad for tensor in module.parameters()]
    landscape = NetworkLandscape(module, normal(N, 5), classes(N))
    weights = landscape.initial_weights((0, 1), Seeds(5))
    landscape.gradient(weights)
    landscape.hessian_product(weights, weights)
    landscape.sample_gradients(weights[0])
    after = module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [tensor.requires_grad for tensor in module.parameters()] == flags
    assert all(tensor.grad is None for tensor in module.parameters())
    assert not any(layer._forward_hooks for layer in [*module.modules(), *landscape._module.modules()])


def test_a_later_change_of_the_users_network_does_not_reach_the_landscape():
    module = made(with_layer(lambda: nn.BatchNorm1d(4))).eval()
    landscape = NetworkLandscape(module, normal(N, 5), classes(N))
    weights = landscape.initial_weights((0,), Seeds(5))
    before = landscape.gradient(weights)
    module.train()
    module[1].running_mean += 3
    assert torch.equal(landscape.gradient(weights), before)


def _made(*, shift=1.0, held=2.0, buffer=3.0, helper=4.0):
    """A network whose class has one name, whatever it computes."""

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.held = nn.Linear(3, 2), held
            self.register_buffer("kept", torch.tensor(buffer))

        def scaled(self, x):
            return helper * x

        def forward(self, x):
            return self.layer(self.scaled(x)) + shift * self.held * self.kept

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Mine()


def _described(module=None, loss=None, names=("loss_sha256", "layers_sha256", "buffers_sha256")):
    inputs, labels = torch.arange(18.0).reshape(6, 3) / 18, torch.tensor([0, 1, 0, 1, 1, 0])
    landscape = NetworkLandscape(module or _made(), inputs, labels, loss=loss, start="drawn")
    described = landscape.description
    return tuple(described.get(name) for name in ("module", "loss", *names))


@pytest.mark.parametrize("what", ["shift", "held", "buffer", "helper"])
def test_a_network_of_other_code_or_constants_is_another_run(what):
    def told_apart(**names):
        assert _described(_made(), **names) == _described(_made(), **names)
        assert _described(_made(), **names) != _described(_made(**{what: 9.0}), **names)

    told_apart()
    with pytest.raises(AssertionError):
        told_apart(names=())  # by names alone, as before


def test_a_loss_of_other_code_or_options_is_another_run():
    def losses(weight, smoothing):
        def mine(outputs, labels):
            return weight * nn.functional.cross_entropy(outputs, labels, reduction="none")

        return mine, nn.CrossEntropyLoss(reduction="none", label_smoothing=smoothing)

    def told_apart(**names):
        for one, same, other in zip(losses(1.0, 0.0), losses(1.0, 0.0), losses(2.0, 0.1), strict=True):
            assert _described(loss=one, **names) == _described(loss=same, **names)
            assert _described(loss=one, **names) != _described(loss=other, **names)

    told_apart()
    with pytest.raises(AssertionError):
        told_apart(names=())
    plain = NetworkLandscape(nn.Linear(3, 2), torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])).description
    assert not any(str(name).endswith("_sha256") and name != "data_sha256" for name in plain)


def test_data_that_change_afterwards_do_not_change_the_landscape():
    inputs, labels = torch.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 1, 0])

    def made():
        return NetworkLandscape(nn.Linear(2, 2), inputs, labels, true_labels=np.array([0, 1, 0, 1, 1, 0]))

    one = made()
    before, described = one.losses_and_errors(one.own_weights[None])[0], one.description["data_sha256"]
    labels[:3] = 1 - labels[:3]
    other = made()
    assert (int(one.mislabeled.sum()), int(other.mislabeled.sum())) == (0, 3)
    assert one.inputs.data_ptr() == other.inputs.data_ptr()  # equal numbers are held once
    inputs.add_(5)
    assert torch.equal(one.losses_and_errors(one.own_weights[None])[0], before)
    assert one.description["data_sha256"] == described
    assert made().description["data_sha256"] != described


@pytest.mark.parametrize(
    ("changes", "replicas", "words"),
    [
        (
            {"test_inputs": torch.zeros(4, 3), "test_labels": torch.zeros(4).long()},
            2,
            r"test_inputs of shape \(3,\).*\(2,\)",
        ),
        ({"labels": torch.tensor([[0, 1, 0, 1, 1, 0]] * 2)}, 3, "labels are given for 2 replicas and 3 are to run"),
    ],
    ids=["test inputs of another kind", "rows of labels"],
)
def test_what_does_not_fit_together_is_refused(changes, replicas, words):
    given = {"labels": torch.tensor([0, 1, 0, 1, 1, 0]), **changes}
    with pytest.raises(ConfigurationError, match=words):
        sgd(NetworkLandscape(nn.Linear(2, 2), torch.ones(6, 2), **given), 0.1, 2).start(replicas, 0)


def test_a_network_may_return_one_number_a_sample_without_a_dimension_of_its_own():
    network = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    inputs, labels = torch.arange(12.0).reshape(6, 2) / 12, torch.tensor([0, 1, 0, 1, 1, 0])

    def loss(outputs, targets):
        return nn.functional.binary_cross_entropy_with_logits(outputs, targets.float(), reduction="none")

    landscape = NetworkLandscape(network, inputs, labels, loss=loss)
    weights = landscape.own_weights
    ensemble = gradient_ensemble(landscape, weights.numpy(), batch_size=2)
    assert torch.allclose(ensemble.mean_gradient.float(), landscape.gradient(weights[None])[0], atol=1e-6)
    expected = (network(inputs) > 0) != labels.bool()
    assert torch.equal(landscape.losses_and_errors(weights[None])[1][0].bool(), expected)


class _Holds(nn.Module):
    """A network of one name that computes with what it holds."""

    def __init__(self, held):
        super().__init__()
        self.layer, self.held = nn.Linear(3, 2), held

    def forward(self, x):
        held = self.held[0] if isinstance(self.held, tuple | torch.Tensor) else self.held
        return held(self.layer(x)) if callable(held) else held * self.layer(x)


class _Config:
    """No dataclass."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return self.scale * x


def _scaled(scale):
    def forward(self, x):
        return self.scale * nn.Linear.forward(self, x)

    return type("Scaled", (nn.Linear,), {"scale": scale, "forward": forward, "__module__": __name__})(3, 2)


def _with(add):
    def made(k):
        layer = nn.Linear(3, 2)
        add(layer, k)
        return layer

    return made


def _encoder(activation):
    return nn.TransformerEncoderLayer(3, 1, 4, dropout=0.0, activation=activation)


CHANGED_LAYERS = {
    "function of torch": (_Holds, torch.relu, torch.tanh),
    "function": (_Holds, lambda x: 1.0 * x, lambda x: 2.0 * x),
    "partial": (_Holds, partial(torch.mul, 1.0), partial(torch.mul, 2.0)),
    "object": (_Holds, _Config(1.0), _Config(2.0)),
    "tuple": (_Holds, (1.0,), (2.0,)),
    "tensor": (_Holds, torch.ones(1), 2 * torch.ones(1)),
    "class attribute": (_scaled, 1.0, 2.0),
    "hook": (_with(lambda layer, k: layer.register_forward_hook(lambda module, given, out: k * out)), 1.0, 2.0),
    "hook before": (_with(lambda layer, k: layer.register_forward_pre_hook(lambda module, x: (k * x[0],))), 1.0, 2.0),
    "forward of an instance": (_with(lambda layer, k: setattr(layer, "forward", lambda x: k * x[:, :2])), 1.0, 2.0),
    "what a layer of torch does not print": (_encoder, "relu", "gelu"),
}


@pytest.mark.parametrize(("make", "one", "other"), CHANGED_LAYERS.values(), ids=CHANGED_LAYERS)
def test_what_layers_hold_is_told_apart_and_weights_are_not(make, one, other):
    def told_apart(digests):
        found = [digests(make(each), None, ()) for each in (one, one, other)]
        assert found[0] == found[1] != found[2]
        assert not untold({"landscape": found[0]})

    told_apart(digests_of_user_code)
    with pytest.raises(AssertionError):
        told_apart(
            lambda module, loss, constants: [(name, type(each).__name__) for name, each in module.named_modules()]
        )


class _Block(nn.Module):
    """Written as people write blocks: defaults of classes, partials, initial weights of its own, its own methods."""

    expansion: int = 1

    def __init__(self, width, norm: Callable[..., nn.Module] | None = None, parent=None):
        super().__init__()
        norm = norm or partial(nn.LayerNorm, eps=1e-6)
        self.layers = nn.Sequential(OrderedDict(first=nn.Linear(width, width), norm=norm(width)))
        self.act, self.shortcut, self.parent = functional.gelu, self._shortcut, [parent]
        self.kinds, self.options = {"act": nn.ReLU}, _Config(0.5)
        self.scale = nn.Parameter(torch.randn(width))
        self.scales = [self.scale]
        self.reset_parameters()

    def reset_parameters(self):
        for each in self.modules():
            if isinstance(each, nn.Linear):
                nn.init.kaiming_normal_(each.weight, nonlinearity="relu")
        self.scale.data = torch.rand(len(self.scale))

    @classmethod
    def from_file(cls, path):
        made = cls(3)
        made.load_state_dict(torch.load(path))
        return made

    def _shortcut(self, x):
        return x if self.expansion == 1 else torch.cat([x] * self.expansion, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != len(self.scale):
            warnings.warn("other widths", stacklevel=2)
        return self.act(self.layers(x) * self.scale / math.sqrt(2)) + self.options(self.shortcut(x))


class _Deep(_Block):
    def __init__(self, width):
        super().__init__(width, nn.LayerNorm)
        self.next = nn.ModuleList(
            [_Block(width, parent=self), nn.utils.parametrizations.weight_norm(nn.Linear(width, 2))]
        )

    def forward(self, x):
        x = super().forward(x)
        for each in self.next:
            x = functional.relu(each(x))
        return x


def test_ordinary_networks_and_losses_are_told_whole():
    found = [digests_of_user_code(_Deep(3), nn.CrossEntropyLoss(reduction="none"), ()) for _ in range(2)]
    assert found[0] == found[1]  # of other initial weights
    assert not untold({"landscape": found[0]})
    assert _described(_Deep(3)) == _described(_Deep(3))


def test_a_loss_or_layer_that_cannot_be_told_is_said():
    held = object()
    told = digests_of_user_code(_Holds(held), lambda outputs, labels: getattr(outputs, "mean")(), ())  # noqa: B009
    assert [*untold({"landscape": told}).items()] == [
        ("landscape.loss_code", ["getattr"]),
        ("landscape.layers_code", [told["layers_code"]["unknown"][0]]),
    ]
