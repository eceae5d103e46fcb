"""Where replicas start: at the weights that a network came with, or where each is drawn; and how the two are told apart."""

from __future__ import annotations

import json
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from test_network_landscape import N_CLASSES, classes, made, normal
from torch import nn

from langevin_nn import NetworkLandscape, Seeds, compare, rerun, sgd, simulate
from langevin_nn.errors import ConfigurationError, OwnWeightsWarning
from langevin_nn.landscape import cross_entropy

N = 60
INPUTS, LABELS = normal(N, 5), classes(N)


def wrapped(module, **options):
    return NetworkLandscape(module, INPUTS, LABELS, **options)


def perceptron(width=64):
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, N_CLASSES))


def trained(module, steps, rate=0.01):
    """Descend by the signs of the gradient, nearly as Adam does."""
    parameters = list(module.parameters())
    for _ in range(steps):
        gradients = torch.autograd.grad(cross_entropy(module(INPUTS), LABELS).mean(), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= rate * gradient.sign()
    return module


def initialised(function, module=None):
    module = nn.Linear(5, N_CLASSES) if module is None else module
    function(module)
    return module


# --- weights that were not just drawn


class Hand(nn.Module):
    """Initialised in its constructor, as much published code is: the last layer is constant."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.Linear(5, 8), nn.Linear(8, N_CLASSES)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x):
        return self.out(self.a(x).relu())


NOT_DRAWN = {
    "trained to the end": lambda: trained(perceptron(), 60, 0.1),
    "trained a little": lambda: trained(perceptron(), 5),
    "few weights, trained": lambda: trained(nn.Linear(5, N_CLASSES), 40, 0.1),
    "small": lambda: initialised(lambda m: nn.init.normal_(m.weight, std=0.001)),
    "zero": lambda: initialised(lambda m: nn.init.zeros_(m.weight)),
    "zero biases": lambda: initialised(lambda m: nn.init.zeros_(m.bias)),
    "another law": lambda: initialised(lambda m: nn.init.kaiming_normal_(m.weight), nn.Linear(5, 64)),
    "a last layer of zeros": Hand,
    "scales of a norm": lambda: initialised(
        lambda m: nn.init.constant_(m[1].weight, 0.9), nn.Sequential(nn.Linear(5, 3), nn.LayerNorm(3))
    ),
}


def with_three_outputs(module):
    return module if not isinstance(module, nn.Linear) or module.out_features == N_CLASSES else nn.Sequential(
        module, nn.Linear(module.out_features, N_CLASSES)
    )  # fmt: skip


def assert_not_replaced(module):
    """All replicas start at the module's own weights, and that is said."""
    own = nn.utils.parameters_to_vector(module.parameters()).detach()
    landscape = wrapped(module)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        weights = landscape.initial_weights((0, 3), Seeds(0))
    assert torch.equal(weights, own.expand(2, -1))
    assert [each.category for each in said] == [OwnWeightsWarning]
    assert "start='own'" in str(said[0].message)
    assert landscape.description["start"] == "own"


@pytest.mark.parametrize("make", NOT_DRAWN.values(), ids=NOT_DRAWN.keys())
def test_given_weights_are_not_replaced(make, monkeypatch):
    module = with_three_outputs(made(make))
    assert_not_replaced(module)
    monkeypatch.setattr(NetworkLandscape, "_not_drawn", None)  # all are drawn anew, as if nobody had looked
    with pytest.raises(AssertionError):
        assert_not_replaced(module)


def test_a_low_loss_tells_where_weights_do_not():
    """Numbers as they are drawn, which happen to fit the labels of many far samples."""
    module, inputs = made(lambda: nn.Linear(50, 2)), 100 * normal(200, 50)
    assert NetworkLandscape(module, inputs, classes(200) % 2).start == "drawn"
    with torch.no_grad():
        fitting = NetworkLandscape(module, inputs, module(inputs).argmax(1))
    assert fitting.start == "own"
    assert "their loss is" in fitting._not_drawn


# --- weights that were


class Orthogonal(nn.Module):
    """Has a law of its own."""

    def __init__(self, before, after):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.empty(after, before)), nn.Parameter(torch.empty(after))
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.orthogonal_(self.w)
        nn.init.constant_(self.b, 0.1)

    def forward(self, x):
        return x @ self.w.T + self.b


class Nested(nn.Module):
    """Has the last word on the layers that it holds."""

    def __init__(self, width):
        super().__init__()
        self.a, self.out = nn.Linear(5, width), nn.Linear(width, N_CLASSES)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.xavier_normal_(self.a.weight)
        for tensor in (self.a.bias, self.out.weight):
            nn.init.zeros_(tensor)

    def forward(self, x):
        return self.out(self.a(x).relu())


class Signs(nn.Module):
    """Two values, times a scale that is drawn, too."""

    def __init__(self, before, after, scaled=False):
        super().__init__()
        self.w, self.scaled = nn.Parameter(torch.empty(after, before)), scaled
        self.reset_parameters()

    def reset_parameters(self):
        with torch.no_grad():
            self.w.copy_(
                (2.0 * torch.randint(0, 2, self.w.shape) - 1) * (torch.randn(()).exp() if self.scaled else 0.3)
            )

    def forward(self, x):
        return x @ self.w.T


class Raw(nn.Linear):
    """Owns a tensor that no reset reaches."""

    def __init__(self, before, after):
        super().__init__(before, after)
        self.scale = nn.Parameter(torch.randn(after))

    def forward(self, x):
        return super().forward(x) * self.scale


class Last(nn.Module):
    """The last output of a recurrent layer over the features, one after the other."""

    def __init__(self, kind, width):
        super().__init__()
        self.layer = kind(1, width, batch_first=True)

    def forward(self, x):
        return self.layer(x[..., None])[0][:, -1]


class Words(nn.Module):
    """An embedding of what features are near."""

    def __init__(self, n_words, width):
        super().__init__()
        self.embedding = nn.Embedding(n_words, width, padding_idx=0)

    def forward(self, x):
        return self.embedding((2 * x.abs()).long().clamp(max=3)).mean(1)


FRESH = {
    "linear": lambda h: nn.Sequential(nn.Linear(5, N_CLASSES)),
    "perceptron": perceptron,
    "double": lambda h: perceptron(h).double(),
    "bfloat16": lambda h: perceptron(h).bfloat16(),
    "convolution": lambda h: nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, h, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * h, N_CLASSES)
    ),
    "norms": lambda h: nn.Sequential(
        nn.Linear(5, 4 * h), nn.GroupNorm(2, 4 * h), nn.PReLU(), nn.LayerNorm(4 * h), nn.Linear(4 * h, N_CLASSES)
    ),
    "LSTM": lambda h: nn.Sequential(Last(nn.LSTM, h), nn.Linear(h, N_CLASSES)),
    "GRU": lambda h: nn.Sequential(Last(nn.GRU, h), nn.Linear(h, N_CLASSES)),
    "embedding": lambda h: nn.Sequential(Words(4 * h, h), nn.Linear(h, N_CLASSES)),
    "orthogonal": lambda h: nn.Sequential(Orthogonal(5, h), nn.Tanh(), Orthogonal(h, N_CLASSES)),
    "nested": Nested,
    "signs": lambda h: nn.Sequential(Signs(5, h), nn.Tanh(), Signs(h, N_CLASSES)),
    "signs of any scale": lambda h: nn.Sequential(Signs(5, h, True), nn.Tanh(), Signs(h, N_CLASSES, True)),
    "not reached": lambda h: nn.Sequential(Raw(5, h), nn.Tanh(), Raw(h, N_CLASSES)),
}


def assert_no_false_alarm(make, times, seed):
    generator = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(times):
            landscape = wrapped(make(int(generator.choice([1, 2, 3, 5, 8, 16, 40]))))
            assert landscape.start == "drawn", landscape._not_drawn
            assert "start" not in landscape.description


@pytest.mark.parametrize("make", FRESH.values(), ids=FRESH.keys())
def test_fresh_networks_give_no_false_alarm(make):
    assert_no_false_alarm(make, 3, seed=0)


@pytest.mark.proof
@pytest.mark.parametrize("make", FRESH.values(), ids=FRESH.keys())
def test_a_thousand_fresh_networks_give_no_false_alarm(make):
    assert_no_false_alarm(make, 80, seed=1)


def test_a_layer_has_the_last_word_on_the_layers_that_it_holds():
    weights = wrapped(made(partial(Nested, 4))).initial_weights((0, 1), Seeds(0))
    # a.weight, a.bias, out.weight, out.bias
    assert (weights[:, 20:36] == 0).all()
    assert (weights[:, :20] != 0).all()
    assert (weights[0, :20] != weights[1, :20]).all()


# --- what is said


def test_the_start_that_is_asked_for_is_taken_without_a_word():
    module = made(lambda: trained(perceptron(8), 50))
    own = nn.utils.parameters_to_vector(module.parameters()).detach()
    assert torch.equal(wrapped(module, start="own").initial_weights((0, 1), Seeds(0)), own.expand(2, -1))
    drawn = wrapped(module, start="drawn")
    fresh = wrapped(made(partial(perceptron, 8)))
    assert torch.equal(drawn.initial_weights((0, 1), Seeds(0)), fresh.initial_weights((0, 1), Seeds(0)))
    assert "start" not in drawn.description
    # A function draws; its first network's weights are kept where they are asked for.
    assert wrapped(Hand).start == "drawn"
    first = wrapped(Hand, start="own")
    assert torch.equal(first.initial_weights((5,), Seeds(1))[0], first.own_weights)


def test_a_network_that_cannot_draw_starts_from_its_own_weights():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(5, N_CLASSES))

        def forward(self, x):
            return x @ self.w

    module = made(Bare)
    with pytest.raises(ConfigurationError, match="start='own'"):
        wrapped(module, start="drawn").initial_weights((0,), Seeds(0))
    with pytest.warns(OwnWeightsWarning, match=r"owns parameters but has no reset_parameters\(\)"):
        found = wrapped(module).initial_weights((0,), Seeds(0))
    assert torch.equal(found[0], module.w.detach().reshape(-1))
    assert torch.equal(wrapped(module, start="own").initial_weights((0,), Seeds(0)), found)


def test_files_know_where_replicas_started(tmp_path):
    module, path = made(lambda: trained(perceptron(8), 50)), tmp_path / "run.nc"
    tree = simulate(sgd(wrapped(module, start="own"), 0.1, 5), steps=4, replicas=2, path=path, progress=False)
    assert json.loads(tree.attrs["config_json"])["process"]["landscape"]["start"] == "own"
    assert rerun(path, landscape=wrapped(module, start="own")).same
    with pytest.raises(ConfigurationError, match="start"):
        rerun(path, landscape=wrapped(module, start="drawn"))
    loss = float(cross_entropy(module(INPUTS), LABELS).mean().detach())
    np.testing.assert_allclose(tree.train_loss.sel(cohort="all").isel(step=0), loss, rtol=1e-5)


def test_processes_are_compared_from_the_networks_own_weights():
    module = made(lambda: trained(perceptron(8), 50))
    with pytest.warns(OwnWeightsWarning, match="reaches"):
        result = compare(
            wrapped(module),
            learning_rate=0.1,
            batch_size=5,
            epochs=1,
            replicas=2,
            processes=["langevin"],
            progress=False,
        )
    first = result.trajectories.train_loss.sel(cohort="all").isel(step=0)
    assert float(first.max() - first.min()) == 0
