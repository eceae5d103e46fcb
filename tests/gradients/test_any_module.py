"""Networks that no graph holds train by plain autograd, and measure as they do elsewhere."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from langevin_nn import NetworkLandscape, advance, gradient_ensemble, langevin, sgd, simulate
from langevin_nn.draws import draws_at
from langevin_nn.noise import ShuffledMinibatches
from langevin_nn.observables import Losses, OrderParameters, Weights
from langevin_nn.schedules import EverySteps
from langevin_nn.update import Momentum

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(60, 5, generator=GENERATOR)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0.5).long()
SERIES = torch.randn(60, 7, 5, generator=GENERATOR)
TOKENS = torch.randint(1, 7, (60, 6), generator=GENERATOR)


class Branch(nn.Module):
    """What it does depends on values."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 3)

    def forward(self, x):
        return self.a(x) if x.max() < 99 else self.a(x.clamp(-9, 9))


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.recurrent, self.out = kind(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.recurrent(x)[0][:, -1])


class Packed(nn.Module):
    """Sequences of lengths of their own."""

    def __init__(self):
        super().__init__()
        self.embedding, self.recurrent, self.out = nn.Embedding(7, 5), nn.GRU(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, tokens):
        lengths = 1 + tokens[:, 0] % 6
        packed = pack_padded_sequence(self.embedding(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.out(self.recurrent(packed)[1][-1])


class Square(torch.autograd.Function):
    """Of the old style, which no transformation takes."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(context, signal):
        return 2 * context.saved_tensors[0] * signal


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.b(Square.apply(self.a(x)))


class Checkpointed(nn.Module):
    def __init__(self, reentrant=False):
        super().__init__()
        self.a, self.b, self.reentrant = nn.Linear(5, 4), nn.Linear(4, 3), reentrant

    def forward(self, x):
        return self.b(checkpoint(lambda h: self.a(h).tanh(), x, use_reentrant=self.reentrant))


class Counting(nn.Module):
    """Counts its calls in a buffer, as running statistics do."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        return self.a(x)


class Mixture(nn.Module):
    """Of experts, of which each sample goes to one."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(5, 2), nn.ModuleList(nn.Linear(5, 3) for _ in range(2))

    def forward(self, x):
        gates = self.gate(x).softmax(-1)
        out = x.new_zeros(len(x), 3)
        for k, expert in enumerate(self.experts):
            chosen = (gates.argmax(-1) == k).nonzero()[:, 0]
            out = out.index_add(0, chosen, gates[chosen, k, None] * expert(x[chosen]))
        return out


def pruned():
    layer = nn.Linear(5, 3)
    prune.l1_unstructured(layer, "weight", 0.3)
    return layer


def normalised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return weight_norm(nn.Linear(5, 3))


def unused():
    layer = nn.Linear(5, 3)
    layer.scale = nn.Parameter(torch.ones(3))
    return layer


CASES = {
    "branch": (Branch, X),
    "lstm": (Recurrent, SERIES),
    "gru": (lambda: Recurrent(nn.GRU), SERIES),
    "packed": (Packed, TOKENS),
    "custom": (Custom, X),
    "checkpointed": (Checkpointed, X),
    "checkpointed by re-entry": (lambda: nn.Sequential(nn.Linear(5, 5), Checkpointed(True)), X),
    "counting": (Counting, X),
    "mixture": (Mixture, X),
    "pruned": (pruned, X),
    "old weight norm": (normalised, X),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(5, 3)), X),
    "unused": (unused, X),
    "compiled": (lambda: torch.compile(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))), X),
    "convolution": (lambda: nn.Sequential(nn.Conv1d(7, 2, 3), nn.Flatten(), nn.Linear(6, 3)), SERIES),
}
BY_AUTOGRAD = {"branch", "lstm", "gru", "packed", "custom", "counting", "mixture"}
BY_AUTOGRAD |= {"checkpointed", "checkpointed by re-entry"}
# Of a checkpoint of the old kind, where nothing is to be differentiated.
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")


def made(name: str, **options) -> NetworkLandscape:
    make, inputs = CASES[name]
    torch.manual_seed(1)
    return NetworkLandscape(make(), inputs, Y, start="own", **options)


def loop(name: str, batches: torch.Tensor) -> torch.Tensor:
    """Train the module itself with torch's own optimizer."""
    make, inputs = CASES[name]
    torch.manual_seed(1)
    module = make()
    module = getattr(module, "_orig_mod", module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for rows in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs[rows]), Y[rows]).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(module.parameters()).detach()


@pytest.mark.parametrize("name", CASES)
def test_it_trains_as_in_a_loop_of_ones_own(name):
    landscape = made(name)
    process = sgd(landscape, 0.1, 5, update=Momentum(0.9))
    start = process.start(2, seed=0)
    memory = process.noise.start(landscape, start.weights)
    rows, _ = ShuffledMinibatches(5).drawn(60, memory, draws_at(start.key(0), start.weights), 20)
    found = advance(process, start, 20).weights
    for r in range(2):
        torch.testing.assert_close(found[r], loop(name, rows[:, r]), rtol=2e-3, atol=2e-5)
    told = landscape.description["gradient_path"]
    assert (told == "autograd") == (name in BY_AUTOGRAD), told


@pytest.mark.parametrize("name", CASES)
def test_its_ensemble_is_that_of_a_loop_over_samples(name):
    landscape = made(name)
    make, inputs = CASES[name]
    torch.manual_seed(1)
    module = make()
    module = getattr(module, "_orig_mod", module).double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    norms = []
    for k in range(60):
        module.zero_grad()
        nn.functional.cross_entropy(module(inputs[k : k + 1]), Y[k : k + 1]).backward()
        norms.append(float(torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm()))
    measured = gradient_ensemble(landscape, landscape.own_weights, 5).samples().sample_gradient_norm
    np.testing.assert_allclose(measured, norms, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["branch", "lstm", "packed", "checkpointed"])
def test_it_is_recorded_and_goes_on_to_the_same_bits(name, tmp_path):
    landscape = made(name)
    process = sgd(landscape, 0.1, 5)
    options = {"replicas": 2, "schedule": EverySteps(4), "observables": [Losses(), OrderParameters(4), Weights()]}
    run = simulate(process, steps=8, path=tmp_path / "run.nc", progress=False, **options)
    half = advance(process, process.start(2, seed=0), 3)
    np.testing.assert_array_equal(run["weights/weights"][:, -1], advance(process, half, 5).weights)
    gaussian = langevin(landscape, 0.1, 5)
    assert torch.isfinite(advance(gaussian, gaussian.start(2, seed=0), 2).weights).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_recorded_and_goes_on(dtype, tmp_path):
    torch.manual_seed(1)
    landscape = NetworkLandscape(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype), X, Y)
    process = sgd(landscape, 0.1, 5, update=Momentum(0.9))

    class Stop(Losses):
        def measure(self, snapshot):
            if stop and snapshot.state.step == 4:
                raise KeyboardInterrupt
            return super().measure(snapshot)

    options = {
        "steps": 8,
        "replicas": 2,
        "schedule": EverySteps(2),
        "observables": [Stop(), OrderParameters(4), Weights()],
    }
    stop = False
    whole = simulate(process, path=tmp_path / "whole.nc", progress=False, **options)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        simulate(process, path=tmp_path / "run.nc", segment_seconds=0, progress=False, **options)
    stop = False
    run = simulate(process, resume=tmp_path / "run.nc", progress=False, **options)
    np.testing.assert_array_equal(run["weights/weights"], whole["weights/weights"])
    assert float(run.train_loss.sel(cohort="all")[:, -1].mean()) < float(run.train_loss.sel(cohort="all")[:, 0].mean())


def test_a_large_sum_of_half_precision_is_no_divergence():
    landscape = NetworkLandscape(nn.Linear(5, 3).half(), X, Y)
    process = sgd(landscape, 1e-3, 5)
    start = process.start(1, 0, torch.full((1, 18), 6e3))
    assert not advance(process, start, 1, on_divergence="mask").diverged.any()
