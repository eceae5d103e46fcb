"""Networks that look like what they are not, points that hide what happens elsewhere, arguments that do not fit."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from test_network_landscape import N_CLASSES, assert_close, classes, normal
from torch import nn
from torch.nn import functional
from twins import entropy, slow_gradients

from langevin_nn import (
    NetworkLandscape,
    Process,
    Seeds,
    advance,
    compare,
    detect_phases,
    gradient_ensemble,
    sgd,
    simulate,
)
from langevin_nn.errors import ConfigurationError, SampleMixingError, UnknownNameError
from langevin_nn.gradients import refusal, verification
from langevin_nn.landscape import classes as rules
from langevin_nn.landscape import network
from langevin_nn.noise import ThermalNoise
from langevin_nn.observables import Weights
from langevin_nn.schedules import EverySteps

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
    assert landscape.problem.path.name == "torch.func"
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


class Scales(nn.Module):
    """A network without a product of matrices, whose replicas may be taken at once."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(5))

    def reset_parameters(self):
        nn.init.uniform_(self.scale)

    def forward(self, inputs):
        return inputs * self.scale


GENERAL = {
    "SiLU": lambda: nn.Sequential(nn.Linear(5, 6), nn.SiLU(), nn.Linear(6, N_CLASSES)),
    "scales": lambda: nn.Sequential(Scales(), nn.Unflatten(1, (1, 5)), nn.AdaptiveAvgPool1d(N_CLASSES), nn.Flatten()),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(12, N_CLASSES)
    ),
}


@pytest.mark.parametrize("make", GENERAL.values(), ids=GENERAL.keys())
def test_a_replica_of_any_network_has_the_same_bits_alone_and_among_others(make):
    landscape = NetworkLandscape(make(), normal(N, 5), classes(N))
    process = sgd(landscape, 0.1, 4)
    alone = advance(process, process.start((3,), 0), 20)
    for n_replicas in (5, 40):  # of many it is tried whether all at once have the bits of each
        together = advance(process, process.start(n_replicas, 0), 20)
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


class Looked(nn.Module):
    """Looks rows of a table up through a function, which no layer tells of."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Parameter(torch.zeros(5, 4)), nn.Linear(4, N_CLASSES)

    def forward(self, positions):
        return self.out(functional.embedding(positions, self.table, sparse=True))


def one_label_of(value):
    return torch.cat([classes(N - 1), torch.tensor([value])])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": one_label_of(-1)}, r"labels hold -1 in 1 samples, the first is sample 11"),
        ({"labels": one_label_of(40)}, r"labels hold 40 in 1 samples"),
        ({"test_inputs": normal(N, 5), "test_labels": one_label_of(-1)}, r"test_labels hold -1 in 1 samples"),
        ({"labels": torch.full((N,), -1)}, r"the loss fails on .*Target -1 is out of bounds"),
        ({"loss": lambda labels, outputs: entropy(outputs, labels)}, r"the other way round: .*swap"),
        ({"loss": lambda outputs, labels: outputs @ labels}, r"the loss fails on outputs of shape \(2, 3\)"),
        ({"module": Looked(), "inputs": classes(N)}, r"gradients of table are sparse tensors: .*sparse=False"),
    ],
)
def test_labels_and_losses_that_do_not_fit_are_told_before_a_run(change, message):
    given = {"module": plain(), "inputs": normal(N, 5), "labels": classes(N), "loss": entropy} | change
    with pytest.raises(ConfigurationError, match=message):
        NetworkLandscape(**given)


def test_an_unknown_cohort_mask_lists_the_known_ones(landscape):
    weights = landscape.initial_weights((0,), Seeds(0))[0]
    for name in ("wrong", "labels"):
        with pytest.raises(
            UnknownNameError, match=f"unknown cohort mask '{name}': expected one of mislabeled, relabeled"
        ):
            gradient_ensemble(landscape, weights, 10, cohort_mask=name)


def test_masks_of_whole_numbers_are_masks(landscape):
    from langevin_nn.ensemble import GradientEnsemble

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


# --- samples that are reordered or mixed


class Sorting(nn.Module):
    """Reorders its samples inside, and turns their order back where it is told to."""

    def __init__(self, back=True):
        super().__init__()
        self.a, self.out, self.back = nn.Linear(5, 8), nn.Linear(8, N_CLASSES), back

    def forward(self, x):
        order = x[:, 0].argsort()
        outputs = self.out(self.a(x[order]).relu())
        return outputs[order.argsort()] if self.back else outputs


def sorted_at_first(n=60):
    """Inputs of which the first come in order."""
    inputs = normal(n, 5)
    inputs[:3, 0] = torch.tensor([-1.0, 0.0, 1.0])
    return inputs


def only_the_first(monkeypatch):
    """Try the first three samples alone, in their order."""
    for module in (refusal, verification):
        monkeypatch.setattr(module, "trial_positions", lambda n: torch.arange(min(3, n)))
        monkeypatch.setattr(module, "arrangements", lambda n: [torch.arange(n)])
        monkeypatch.setattr(module, "with_moved", lambda inputs: inputs)
    monkeypatch.setattr(refusal, "_repeated", lambda n, _: torch.arange(n))


def assert_reordered_samples_are_measured_right():
    network, inputs, labels = Sorting(), sorted_at_first(), classes(60)
    landscape = NetworkLandscape(network, inputs, labels)
    expected = slow_gradients(network, landscape.own_weights, inputs, labels)
    assert_close(landscape.sample_gradients(landscape.own_weights).dense(), expected)
    assert_close(landscape.gradient(landscape.own_weights[None])[0], expected.mean(0))


def assert_mixed_samples_are_refused():
    try:
        NetworkLandscape(Sorting(back=False), sorted_at_first(), classes(60))
    except SampleMixingError:
        return
    raise AssertionError("outputs of other samples were taken")


ABOUT_ORDER = [assert_reordered_samples_are_measured_right, assert_mixed_samples_are_refused]


@pytest.mark.parametrize("check", ABOUT_ORDER)
def test_samples_that_are_reordered_inside(check, monkeypatch):
    check()
    only_the_first(monkeypatch)
    with pytest.raises(AssertionError):
        check()


class Crowded(nn.Linear):
    """Mixes only in minibatches of more than ten: by their mean, or by experts that take eight samples each."""

    def __init__(self, by_experts):
        super().__init__(5, N_CLASSES)
        self.by_experts = by_experts

    def forward(self, x):
        outputs = super().forward(x)
        if not self.by_experts:
            return outputs - (len(x) > 10) * outputs.mean(0)
        expert = (outputs[:, 0] > outputs[:, 1]).long()
        place = functional.one_hot(expert, 2).cumsum(0)[torch.arange(len(x)), expert]
        return outputs * (place <= 8)[:, None]


def crowded(outputs, targets):
    return (outputs[:, 0] - targets).square() + (len(targets) > 10) * outputs.mean()


@pytest.mark.parametrize(
    ("module", "options"),
    [(Crowded(False), {}), (Crowded(True), {}), (nn.Linear(5, 1), {"loss": crowded})],
    ids=["mean", "experts", "loss"],
)
def test_mixing_of_larger_minibatches_is_refused(module, options, monkeypatch):
    def check():
        with pytest.raises(SampleMixingError):
            NetworkLandscape(module, normal(60, 5), classes(60), **options)

    check()
    monkeypatch.setattr(refusal, "_repeated", lambda n, _: torch.arange(n))
    with pytest.raises(pytest.fail.Exception):
        check()


def broadcast(outputs, targets):
    return ((outputs - targets) ** 2).mean(-1)


def centred(outputs, targets):
    return (outputs - targets[:, None]).square().sum(1) + 0.01 * outputs.std()


def assert_refused_loss(loss, labels, message):
    said = ""
    try:
        NetworkLandscape(nn.Linear(5, 1), normal(60, 5), labels, loss=loss)
    except SampleMixingError as error:
        said = str(error)
    assert re.search(message, said)


RARE = (torch.arange(60) == 37).long()
MIXING_LOSSES = {
    "broadcasts": (
        broadcast,
        normal(60, seed=5),
        r"\((\d), 1\), labels \(\1,\).* broadcast to \(\1, \1\).*squeeze\(-1\)",
    ),
    "broadcasts, and one label differs": (broadcast, RARE, r"they broadcast to \((\d), \1\)"),
    "a mean over samples": (centred, normal(60, seed=5), "no mean, sum or extremum over the first dimension"),
}


@pytest.mark.parametrize("case", MIXING_LOSSES.values(), ids=MIXING_LOSSES.keys())
def test_losses_that_mix_samples_are_refused(case, monkeypatch):
    assert_refused_loss(*case)
    monkeypatch.setattr(network, "refuse_loss_mixing", lambda *_: None)
    with pytest.raises(AssertionError):
        assert_refused_loss(*case)


def test_a_loss_that_needs_two_samples_trains_and_is_not_measured():
    def loss(outputs, targets):
        return functional.binary_cross_entropy_with_logits(outputs.squeeze(), targets, reduction="none")

    landscape = NetworkLandscape(nn.Linear(5, 1), normal(N, 5), torch.ones(N), loss=loss)
    assert landscape.gradient(landscape.own_weights[None]).isfinite().all()
    with pytest.raises(ConfigurationError, match=r"cannot take one sample alone.*squeeze\(-1\)"):
        landscape.sample_gradients(landscape.own_weights)


class Scaled(nn.Linear):
    """Divided by the root of a small variance, which must stay positive."""

    def __init__(self, *widths):
        super().__init__(*widths)
        self.v = nn.Parameter(torch.full((widths[1],), 0.01))

    def forward(self, x):
        return super().forward(x) / self.v.sqrt()


def test_a_trial_beyond_the_domain_of_a_network_is_no_randomness():
    module, inputs, labels = nn.Sequential(nn.Linear(5, 4), Scaled(4, N_CLASSES)), normal(N, 5), classes(N)
    landscape = NetworkLandscape(module, inputs, labels)
    gradients = landscape.sample_gradients(landscape.own_weights)
    assert gradients.paths["0.weight"] == "outer products"
    assert_close(gradients.dense(), slow_gradients(module, landscape.own_weights, inputs, labels))


# --- errors


def of_logit(outputs, labels, **options):
    return functional.binary_cross_entropy_with_logits(outputs.squeeze(-1), labels.float(), reduction="none", **options)


def of_flags(outputs, labels):
    return functional.binary_cross_entropy_with_logits(outputs, labels.float(), reduction="none").sum(1)


def of_probability(outputs, labels):
    return functional.binary_cross_entropy(outputs.squeeze(-1), labels.float(), reduction="none")


POSITIVE = (normal(N, 5)[:, 0] > 0).long()
WITHOUT_ERRORS = {
    "flags": (nn.Linear(5, 4), normal(N, 5), (normal(N, 4, seed=3) > 0).long(), of_flags),
    "0 and 1 by regression": (nn.Linear(5, 1), normal(N, 5), POSITIVE, lambda o, t: (o[:, 0] - t).square()),
    "a probability": (nn.Sequential(nn.Linear(5, 1), nn.Sigmoid()), normal(N, 5), POSITIVE, of_probability),
    "counts": (nn.Linear(5, 1), normal(N, 5), classes(N), lambda o, t: o[:, 0].exp() - t * o[:, 0]),
}


@pytest.mark.parametrize("case", WITHOUT_ERRORS.values(), ids=WITHOUT_ERRORS.keys())
def test_labels_that_are_not_one_class_a_sample_have_no_error(case):
    module, inputs, labels, loss = case
    landscape = NetworkLandscape(module, inputs, labels, loss=loss, test_inputs=inputs, test_labels=labels)
    tree = simulate(sgd(landscape, 0.1, 5), steps=2, replicas=2, progress=False)
    assert np.isfinite(tree.train_loss.sel(cohort="all")).all()
    assert np.isfinite(tree.activity.sel(cohort="all")).all()
    assert tree.train_error.isnull().all()
    assert tree.test_error.isnull().all()
    with pytest.raises(ConfigurationError, match="phases of learning from training errors, and there are none"):
        compare(landscape, learning_rate=0.1, batch_size=5, epochs=1)
    with pytest.raises(ConfigurationError, match="every training error is NaN"):
        detect_phases(tree)


def one_hot(labels):
    return functional.one_hot(labels, N_CLASSES).float()


THE_LARGEST_TELLS = {
    "cross-entropy": entropy,
    "labels smoothed": lambda o, t: functional.cross_entropy(o, t, reduction="none", label_smoothing=0.3),
    "classes weighted": lambda o, t: functional.cross_entropy(
        o, t, reduction="none", weight=torch.tensor([1.0, 10, 100])
    ),
    "margins": lambda o, t: functional.multi_margin_loss(o, t, reduction="none"),
    "focal": lambda o, t: (1 - o.softmax(1)[torch.arange(len(t)), t]).square() * entropy(o, t),
    "squares of probabilities": lambda o, t: (o.softmax(1) - one_hot(t)).square().sum(1),
    "of probabilities": lambda o, t: functional.binary_cross_entropy(o, one_hot(t), reduction="none").sum(1),
    "logarithms of probabilities": lambda o, t: functional.nll_loss(o.log(), t, reduction="none"),
}
THE_LARGEST_DOES_NOT = {
    "energies": lambda o, t: entropy(-o, t),
    "ordinal": lambda o, t: of_flags(o, torch.arange(N_CLASSES) < t[:, None]),
    "mean and variance": lambda o, t: (o[:, 0] - t).square() * torch.exp(-o[:, 1]) + o[:, 1],
    "variance and mean": lambda o, t: (o[:, 1] - t).square() * torch.exp(-o[:, 0]) + o[:, 0],
}


def test_the_largest_output_is_the_class_where_the_loss_says_so(monkeypatch):
    def check():
        for name, loss in (THE_LARGEST_TELLS | THE_LARGEST_DOES_NOT).items():
            outputs = normal(6, N_CLASSES).softmax(1) if "of probabilities" in name else normal(6, N_CLASSES)
            rule = rules.class_rule(loss, outputs, classes(N))
            assert rule == ("largest output" if name in THE_LARGEST_TELLS else None), name

    # Solved, though another output is the largest.
    inputs, weights = normal(N, 3), torch.cat([-100 * torch.eye(3).reshape(-1), torch.zeros(3)])
    landscape = NetworkLandscape(nn.Linear(3, 3), inputs, inputs.argmax(1), loss=THE_LARGEST_DOES_NOT["energies"])
    losses, errors = landscape.losses_and_errors(weights[None])
    assert losses.mean() < 0.5
    assert errors.isnan().all()
    check()
    monkeypatch.setattr(rules, "_falls_to_the_largest", lambda *_: True)
    with pytest.raises(AssertionError):
        check()


def assert_sign_tells(landscape):
    """One logit, the first input, whose sign is the label: no error; the other way round, all are wrong."""
    weights = torch.tensor([[9.0, 0, 0, 0, 0, 0], [-9.0, 0, 0, 0, 0, 0]])
    assert landscape.losses_and_errors(weights)[1].mean(1).tolist() == [0, 1]


@pytest.mark.parametrize(
    "loss",
    [
        of_logit,
        lambda o, t: of_logit(o, t, pos_weight=torch.tensor(3.0)),
        lambda o, t: (1 - (2 * t - 1) * o[:, 0]).relu(),
    ],
    ids=["cross-entropy", "weighted", "hinge"],
)
def test_the_sign_of_one_logit_is_its_class(loss):
    landscape = NetworkLandscape(nn.Linear(5, 1), normal(N, 5), POSITIVE, loss=loss)
    assert landscape.is_classifier
    assert_sign_tells(landscape)
    landscape._error = "class"  # of one
    with pytest.raises(AssertionError):
        assert_sign_tells(landscape)


# --- what is frozen


class PartlyFrozen(nn.Module):
    """A recurrent layer of which one matrix is frozen, a frozen layer, and one that is shared."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.RNN(1, 4, batch_first=True)
        self.recurrent.weight_hh_l0.requires_grad_(False)
        self.features, self.again, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, N_CLASSES)
        self.again.weight = self.features.weight
        self.features.weight.requires_grad_(False)

    def forward(self, x):
        hidden = self.recurrent(x[:, :2, None])[0][:, -1]
        return self.out(self.again(torch.tanh(self.features(hidden))))


def trained_names(module):
    return [name for name, tensor in module.named_parameters() if tensor.requires_grad]


@pytest.mark.parametrize("given", [PartlyFrozen(), PartlyFrozen], ids=["a module", "a function that makes one"])
def test_frozen_parameters_stay_and_the_others_are_weight_space(given):
    landscape, inputs, labels = NetworkLandscape(given, normal(N, 5), classes(N)), normal(N, 5), classes(N)
    module = given if isinstance(given, nn.Module) else PartlyFrozen()
    module.load_state_dict(landscape._module.state_dict())
    trained = [tensor for tensor in module.parameters() if tensor.requires_grad]
    assert landscape.n_parameters == sum(tensor.numel() for tensor in trained)
    assert list(landscape.measured_parameters) == trained_names(module)
    assert landscape.description["frozen_parameters"]["names"] == ["recurrent.weight_hh_l0", "features.weight"]
    weights = landscape.initial_weights((0, 1), Seeds(0))
    for row, gradient in zip(weights, landscape.gradient(weights), strict=True):
        nn.utils.vector_to_parameters(row, trained)
        loss = functional.cross_entropy(module(inputs), labels)
        expected = torch.cat([each.reshape(-1) for each in torch.autograd.grad(loss, trained)])
        assert_close(gradient, expected.double())
        assert_close(landscape.sample_gradients(row).dense().mean(0), expected.double())


def test_other_frozen_values_are_another_run():
    def described(seed):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, N_CLASSES))
        module[0].requires_grad_(False)
        return NetworkLandscape(module, normal(N, 5), classes(N)).description

    with torch.random.fork_rng(devices=[]):
        assert described(0) == described(0) != described(1)


# --- what raised


class Branch(nn.Linear):
    """Does what its inputs' values say."""

    def forward(self, x):
        return super().forward(x) if x.max() < 99 else super().forward(x.clamp(-9, 9))


class Unused(nn.Linear):
    """Owns a parameter that is not used."""

    def __init__(self, *widths):
        super().__init__(*widths)
        self.scale = nn.Parameter(torch.ones(widths[1]))


def unused():
    module = nn.Linear(5, N_CLASSES)
    module.scale = nn.Parameter(torch.ones(3))
    return module


@pytest.mark.parametrize("make", [lambda: Branch(5, N_CLASSES), lambda: Unused(5, N_CLASSES), unused])
def test_branches_and_parameters_that_are_not_used(make):
    module, inputs, labels = make(), normal(N, 5), classes(N)
    landscape = NetworkLandscape(module, inputs, labels)
    weights = landscape.initial_weights((0, 1), Seeds(0))
    gradients = landscape.gradient(weights)
    for row, gradient in zip(weights, gradients, strict=True):
        rows = landscape.sample_gradients(row).dense()
        expected = slow_gradients(nn.Linear(5, N_CLASSES), row[:18], inputs, labels)
        assert_close(rows[:, :18], expected)
        assert (rows[:, 18:] == 0).all()
        assert_close(gradient[:18], expected.mean(0))


def test_bfloat16_is_taken():
    landscape = NetworkLandscape(nn.Linear(5, N_CLASSES).bfloat16(), normal(N, 5), classes(N))
    tree = simulate(sgd(landscape, 0.1, 5), steps=2, replicas=2, progress=False)
    assert np.isfinite(tree.train_loss.sel(cohort="all")).all()


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


def test_several_outputs_that_the_loss_does_not_take_are_refused_with_the_remedy():
    with pytest.raises(ConfigurationError, match=r"the loss fails on outputs .*output= picks one"):
        NetworkLandscape(Pair(5, 3), normal(N, 5), classes(N))


class Slope(nn.Module):
    """A regression with one weight."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.rand(1, dtype=torch.float64))

    def forward(self, inputs):
        return inputs * self.slope


def test_many_replicas_of_a_regression_reach_its_posterior_at_once():
    """Var w = T/H/(1 − αH/2) at step size α: 2,000 independent weights, so that 15 % more would be seen."""
    inputs = normal(200, 1).double()
    loss = lambda outputs, labels: 0.5 * (outputs - labels).square().sum(1)  # noqa: E731
    landscape = NetworkLandscape(Slope(), inputs, 1.5 * inputs, loss=loss, start="own")
    process = Process(landscape, ThermalNoise(0.02), 0.05)
    run = simulate(process, steps=600, replicas=400, observables=[Weights(EverySteps(100))], progress=False)
    found = run["weights"].weights.sel(weight_step=slice(200, None)).values.var()
    curvature = float(inputs.square().mean())
    expected = 0.02 / curvature / (1 - 0.05 * curvature / 2)
    assert abs(found / expected - 1) < 4 * (2 / 2000) ** 0.5 < abs(1.15 - 1)
    assert max(landscape.problem.path.function._alike.values()) == 2
