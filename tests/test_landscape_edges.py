"""Networks that look like what they are not, points that hide what happens elsewhere, arguments that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import digits_landscape
from test_network_landscape import N_CLASSES, assert_close, classes, normal, slow_gradients
from torch import nn
from torch.nn import functional

from langevin_nn import NetworkLandscape, Seeds, gradient_ensemble, sgd
from langevin_nn.errors import ConfigurationError, SampleMixingError, UnknownNameError

N = 12


def plain(**options):
    return nn.Sequential(
        nn.Linear(5, 5), nn.ReLU(**options), nn.Linear(5, 5), nn.ReLU(**options), nn.Linear(5, N_CLASSES)
    )


class Doubling(nn.Sequential):
    """A Sequential that computes something else than its layers one after the other."""

    def forward(self, inputs):
        return 2 * super().forward(inputs)


def hooked():
    network = plain()
    network[0].register_forward_hook(lambda module, given, output: 2 * output)
    return network


def tied():
    network = plain()
    network[2].weight = network[0].weight
    return network


IMPOSTORS = {"a subclass with its own forward": lambda: Doubling(*plain()), "a hook": hooked, "tied weights": tied}


@pytest.mark.parametrize("make", IMPOSTORS.values(), ids=IMPOSTORS.keys())
def test_what_the_kernel_does_not_compute_takes_the_general_path(make):
    network, inputs, labels = make(), normal(N, 5), classes(N)
    landscape = NetworkLandscape(network, inputs, labels)
    assert landscape.gradient_path == "torch.func"
    weights = normal(1, landscape.n_parameters, seed=2)
    expected = slow_gradients(network, weights[0], inputs, labels)
    assert_close(landscape.gradient(weights)[0], expected.mean(0))
    assert_close(landscape.sample_gradients(weights[0]).dense(), expected)


class Gated(nn.Module):
    """A branch that is closed at the start and uses another layer's matrix."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.Linear(5, 5), nn.Linear(5, N_CLASSES)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, inputs):
        hidden = torch.tanh(self.a(inputs))
        return self.out(hidden + self.gate * torch.tanh(functional.linear(hidden, self.a.weight)))


def test_layers_are_not_trusted_because_of_a_special_point():
    """Measured first with the gate at zero, then with it open; the gate is a tensor without dimensions, too."""
    network, inputs, labels = Gated(), normal(N, 5), classes(N)
    landscape = NetworkLandscape(network, inputs, labels)
    names = [name for name, _ in network.named_parameters()]
    start = nn.utils.parameters_to_vector(network.parameters()).detach()
    moved = start + normal(len(start), seed=3)
    for weights in (start, moved):
        gradients = landscape.sample_gradients(weights)
        assert list(gradients.paths) == names
        assert gradients.layers == ("", "a", "out")
        assert gradients.paths["gate"] == gradients.paths["a.weight"] == "torch.func"
        assert gradients.paths["out.weight"] == "outer products"
        assert_close(gradients.dense(), slow_gradients(network, weights, inputs, labels))


def test_activations_that_overwrite_their_inputs_are_seen_before_they_do():
    network, inputs, labels = plain(inplace=True), normal(N, 5), classes(N)
    landscape = NetworkLandscape(network, inputs, labels)
    weights = normal(landscape.n_parameters, seed=4)
    gradients = landscape.sample_gradients(weights)
    assert gradients.paths["0.weight"] == "outer products"
    assert_close(gradients.dense(), slow_gradients(plain(), weights, inputs, labels))


class Centred(nn.Module):
    """Mixes the samples of a batch, but not while its last layer is zero."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.Linear(5, 5), nn.Linear(5, N_CLASSES)
        nn.init.zeros_(self.out.weight)

    def forward(self, inputs):
        hidden = self.a(inputs)
        return self.out(hidden - hidden.mean(0))


@pytest.mark.parametrize("inputs", [normal(N, 5), torch.ones(N, 5)], ids=["all different", "all equal"])
def test_mixing_is_found_at_weights_and_samples_that_hide_it(inputs):
    with pytest.raises(SampleMixingError, match="changes with the other samples of the batch"):
        NetworkLandscape(Centred(), inputs, classes(N))


GENERAL = {
    "SiLU": lambda: nn.Sequential(nn.Linear(5, 6), nn.SiLU(), nn.Linear(6, N_CLASSES)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(12, N_CLASSES)
    ),
}


@pytest.mark.parametrize("make", GENERAL.values(), ids=GENERAL.keys())
def test_a_replica_of_any_network_has_the_same_bits_alone_and_among_others(make):
    landscape = NetworkLandscape(make(), normal(N, 5), classes(N))
    process = sgd(landscape, 0.1, 4)
    together = process.advance(process.start(5, 0), 20)
    alone = process.advance(process.start((3,), 0), 20)
    assert torch.equal(together.weights[3], alone.weights[0])
    losses = landscape.sample_losses(together.weights)[3]
    assert torch.equal(losses, landscape.sample_losses(alone.weights)[0])


WRONG = {
    "coefficients of one replica": ({"coefficients": torch.ones(1, 60)}, r"coefficients have shape \(1, 60\)"),
    "too few coefficients": ({"coefficients": torch.ones(3, 59)}, r"coefficients have shape \(3, 59\)"),
    "weights of another network": ({"weights": torch.ones(3, 7)}, r"weights have shape \(3, 7\)"),
    "an index beyond the samples": (
        {"indices": torch.full((3, 2), 60), "coefficients": torch.ones(3, 2)},
        r"indices run from 60 to 60: expected 0 to 59",
    ),
    "a negative index": (
        {"indices": torch.full((3, 2), -1), "coefficients": torch.ones(3, 2)},
        r"indices run from -1 to -1",
    ),
    "indices of one replica": (
        {"indices": torch.zeros(1, 2, dtype=torch.int64), "coefficients": torch.ones(3, 2)},
        r"indices have shape \(1, 2\)",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_arguments_that_do_not_fit_never_reach_the_kernel(landscape, change, message):
    arguments = {"weights": torch.zeros(3, landscape.n_parameters), "coefficients": torch.ones(3, 60), **change}
    with pytest.raises(ConfigurationError, match=message):
        landscape.weighted_gradient(**arguments)


def test_weights_of_double_precision_are_taken(landscape):
    weights = torch.zeros(1, landscape.n_parameters, dtype=torch.float64)
    assert torch.equal(landscape.gradient(weights), landscape.gradient(weights.float()))


DATA = {
    "no samples": ({"inputs": torch.empty(0, 5), "labels": classes(0)}, "no training inputs: expected at least one"),
    "images of whole numbers": (
        {"inputs": torch.ones(N, 5, dtype=torch.uint8)},
        r"cannot take inputs .*uint8.*convert",
    ),
    "inputs of another width": ({"inputs": torch.ones(N, 4)}, r"cannot take inputs of shape \(sample, 4\)"),
    "flags of another length": ({"relabeled": np.ones(3, bool)}, r"relabeled has shape \(3,\)"),
    "test labels of replicas": (
        {"test_inputs": torch.ones(2, 5), "test_labels": torch.zeros(3, 2, dtype=torch.int64)},
        "test_labels differ between replicas",
    ),
    "test labels outside the classes": (
        {"test_inputs": torch.ones(2, 5), "test_labels": torch.full((2,), 9)},
        "test_labels run from 9 to 9: expected classes 0 to 2",
    ),
}


@pytest.mark.parametrize(("change", "message"), DATA.values(), ids=DATA.keys())
def test_data_that_do_not_fit_are_refused(change, message):
    arguments = {"module": plain(), "inputs": normal(N, 5), "labels": classes(N), **change}
    with pytest.raises(ConfigurationError, match=message):
        NetworkLandscape(**arguments)


def test_an_unknown_cohort_mask_lists_the_known_ones(landscape):
    weights = landscape.initial_weights((0,), Seeds(0))[0]
    for name in ("wrong", "labels"):
        with pytest.raises(
            UnknownNameError, match=f"unknown cohort mask '{name}': expected one of mislabeled, relabeled"
        ):
            gradient_ensemble(landscape, weights, 10, cohort_mask=name)


def test_masks_of_whole_numbers_are_masks(landscape):
    from langevin_nn import GradientEnsemble

    gradients = landscape.sample_gradients(landscape.initial_weights((0,), Seeds(0))[0])
    mask = landscape.mislabeled[0]
    one, other = (
        GradientEnsemble.from_sample_gradients(gradients, 10, mislabeled=each).closed_forms()
        for each in (mask, mask.int())
    )
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


@pytest.mark.parametrize("step", [-1, 2**64])
def test_steps_without_an_address_are_refused(step):
    with pytest.raises(ConfigurationError, match="expected 0 to 2⁶⁴ − 1"):
        Seeds(0).generator("noise", 0, step)


def test_the_last_steps_have_addresses_of_their_own():
    draws = {Seeds(0).generator("noise", 0, 2**64 - k).random() for k in range(1, 6)}
    assert len(draws) == 5


def test_a_landscape_on_digits_has_its_cohorts():
    landscape = digits_landscape()
    assert int(landscape.relabeled.sum()) == 24
    assert 0 < int(landscape.mislabeled.sum()) <= 24
