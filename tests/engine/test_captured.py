"""Blocks of updates as they are captured on a GPU, run one by one on the CPU: against autograd in float64 and one another."""

from __future__ import annotations

import pickle
from copy import copy, deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from test_together import B, N, landscape, network, twin

from benchmarks.replicas import least_seconds, scaling
from langevin_nn import NetworkLandscape, Process, Seeds, advance, isotropic_langevin, langevin, sgd
from langevin_nn.draws import PhiloxDraws
from langevin_nn.engine import choice, graph, way
from langevin_nn.gradients import perceptron_on_device
from langevin_nn.gradients.perceptron_on_device import BatchedPerceptronGradient
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import (
    IndependentMinibatches,
    MatchedGaussian,
    SampleWeightNoise,
    SampleWeights,
    ShuffledMinibatches,
    ThermalNoise,
)
from langevin_nn.threads import single_threaded_products
from langevin_nn.update import Momentum, Plain


def blocks(process: Process, state, steps: int):
    """A block as on a GPU."""
    return together([(process, state)], steps)[0]


def together(members, steps: int):
    """Blocks of several processes, each up to its first divergence."""
    with single_threaded_products():
        return choice._advanced(members, steps, captured=True)


# --- gradients


@pytest.mark.parametrize("kind", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("rows", [13, None])
def test_batched_products_are_the_traced_gradient(kind, rows, monkeypatch):
    """In float64, with labels of each replica's own, all replicas at once or two at a time."""
    generator = np.random.default_rng(0)
    labels = torch.as_tensor(generator.integers(10, size=(5, N)))
    chosen = NetworkLandscape(network(kind).double(), landscape().inputs, labels)
    assert chosen.problem.path.name == "torch.func"
    weights = 2 * chosen.initial_weights(tuple(range(5)), Seeds(0))
    coefficients = torch.as_tensor(generator.standard_normal((5, rows or N)))
    indices = None if rows is None else torch.as_tensor(generator.integers(N, size=(5, rows)))
    expected = chosen.weighted_gradient(weights, coefficients, indices)
    scale = float(expected.abs().max())
    for at_once in (perceptron_on_device._AT_ONCE, 2 * (rows or N) * 90):
        monkeypatch.setattr(perceptron_on_device, "_AT_ONCE", at_once)
        found = chosen.problem.path.capturable(weights, chosen.inputs, labels, coefficients, indices)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13 * scale)
    path = BatchedPerceptronGradient.of(network(kind), chosen.inputs.float())
    other = path(weights, chosen.inputs, labels.roll(1, 0), coefficients, indices)
    assert float((other - expected).abs().max()) > 1e-3 * scale, "another replica's labels must be seen"


def test_only_perceptrons_of_one_precision_have_batched_products():
    inputs = landscape().inputs
    assert BatchedPerceptronGradient.of(network("relu"), inputs) is not None
    assert BatchedPerceptronGradient.of(network("traced"), inputs) is None
    assert BatchedPerceptronGradient.of(network("relu"), inputs.double()) is None


# --- blocks of updates


@pytest.mark.parametrize("kind", ["relu", "tanh", "gelu", "traced"])
@pytest.mark.parametrize(
    ("noise", "update"),
    [
        (ShuffledMinibatches(7), Plain(0.01)),
        (IndependentMinibatches(B), Momentum(0.9)),
        (IndependentMinibatches(60, replacement=True), Momentum(0.5, 0.01)),
        (ShuffledMinibatches(B), Momentum(0.0)),
    ],
)
def test_a_captured_block_is_that_of_torch(kind, noise, update):
    chosen = landscape(kind, noise_seed=1)
    process = Process(chosen, noise, 0.1, update=update)
    state = process.start((0, 3), 5)
    drawn, _ = noise.minibatches(N, state.noise_memory, PhiloxDraws([state.key(0)], state.weights), 20)
    after = blocks(process, state, 20)
    assert after.step == 20
    rates = getattr(update, "momentum", 0.0), update.weight_decay
    for row in range(2):
        given = network(kind), state.weights[row], chosen.inputs, chosen.labels[0], list(drawn[:, row])
        with single_threaded_products():
            slow, other = (twin(network(kind), *given[1:], rate, *rates) for rate in (0.1, 0.1001))
        moved = float((slow - state.weights[row].double()).norm())
        assert float((after.weights[row].double() - slow).norm()) < 1e-5 * moved
        assert float((after.weights[row].double() - other).norm()) > 1e-4 * moved, "a rate 0.1 % off must be seen"


@pytest.mark.parametrize("update", [Plain(), Momentum(0.5, 0.01)])
@pytest.mark.parametrize(
    ("noise", "share"), [(MatchedGaussian(B), 1.0), (MatchedGaussian(B), 0.5), (ShuffledMinibatches(B), 1.0)]
)
def test_captured_noise_of_any_time_step_is_that_of_the_formula(noise, share, update):
    """g = Σ_k (1/N + √(α/Δt) (c_k − 1/N)) ∇ℓ_k."""
    chosen = landscape("tanh")
    process = Process(chosen, noise, 0.1, update=update, time_step=0.1 * share)
    state = process.start(2, 5)
    drawn, _ = noise.sample_weights(N, state.noise_memory, PhiloxDraws([state.key(0)], state.weights), 9)
    after = blocks(process, state, 9).weights

    def slowly(share):
        weights, memory = state.weights, state.update_memory
        for step in range(9):
            c = drawn.at(step).spread(N)
            gradient = chosen.weighted_gradient(weights, 1 / N + share**-0.5 * (c - 1 / N))
            weights, memory = update.apply(weights, memory, gradient, 0.1, process.time_step)
        return weights

    moved = float((after - state.weights).norm())
    assert float((after - slowly(share)).norm()) < 1e-5 * moved
    assert float((after - slowly(1.01 * share)).norm()) > 1e-4 * moved


@pytest.mark.parametrize("family", [sgd, langevin, lambda *given: langevin(*given, time_step=given[1] / 2)])
def test_processes_in_one_block_are_those_alone(family):
    """Other labels, rates, seeds, replicas and starts; to rounding, since products of other batches may round otherwise."""
    processes = [family(landscape("relu", seed), rate, B) for seed, rate in ((None, 0.1), (1, 0.02), (2, 0.3))]
    replicas, seeds = ((0, 1), (5,), (2, 0, 1)), (0, 3, 0)
    states = [p.start(which, seed) for p, which, seed in zip(processes, replicas, seeds, strict=True)]
    after = together(list(zip(processes, states, strict=True)), 13)
    for process, state, got in zip(processes, states, after, strict=True):
        expected = blocks(process, state, 13).weights
        assert float((got.weights - expected).norm()) < 1e-5 * float((expected - state.weights).norm())
    assert not torch.allclose(after[0].weights[0], after[2].weights[1], atol=1e-3), (
        "same address, other labels and rate"
    )
    half = together(list(zip(processes, states, strict=True)), 5)
    forgetful = half[1].replaced(5, half[1].weights, None, states[1].noise_memory, half[1].diverged)
    for reached in (half, [half[0], forgetful, half[2]]):
        later = together(list(zip(processes, reached, strict=True)), 8)
        assert all(torch.equal(one.weights, other.weights) for one, other in zip(later, after, strict=True))


@pytest.mark.parametrize("noise", [ShuffledMinibatches(7), IndependentMinibatches(B), MatchedGaussian(B)])
def test_the_bits_of_a_captured_run_do_not_depend_on_its_blocks(noise, monkeypatch):
    """Nor on how much is drawn ahead: a run that goes on from a saved state is the run without a break."""
    process = Process(landscape(), noise, 0.1, update=Momentum(0.5))
    whole = blocks(process, process.start(3, 1), 40)
    monkeypatch.setattr(graph, "_MOST", 5)
    state = Process(landscape(), noise, 0.1, update=Momentum(0.5)).start(3, 1)
    for count in (1, 7, 32):
        state = blocks(Process(landscape(), noise, 0.1, update=Momentum(0.5)), state, count)
    assert state.step == whole.step == 40
    assert torch.equal(state.weights, whole.weights)
    assert torch.equal(state.update_memory, whole.update_memory)


def test_a_divergence_within_a_captured_block_is_dated_and_the_others_go_on():
    calm, wild = sgd(landscape(), 0.1, B), sgd(landscape(), 3e8, B)
    states = [calm.start(2, 0), wild.start(3, 0)]
    rest, broken = together([(calm, states[0]), (wild, states[1])], 60)
    assert rest.step == 60
    assert not rest.diverged.any()
    assert torch.isfinite(rest.weights).all()
    expected = blocks(calm, states[0], 60).weights
    assert float((rest.weights - expected).norm()) < 1e-4 * float((expected - states[0].weights).norm())
    state = states[1]
    while not state.diverged.any():
        state = blocks(wild, state, 1)
    assert 1 < broken.step == state.step < 60
    assert torch.equal(broken.diverged, state.diverged)
    onwards = blocks(wild, broken.replaced(broken.step, broken.weights, None, broken.noise_memory, ~broken.diverged), 1)
    assert onwards.step == broken.step + 1


def test_a_replica_that_had_diverged_stops_nobody():
    process = sgd(landscape(), 0.1, B)
    start = process.start(3, 0)
    weights = start.weights.clone()
    weights[1] = torch.nan
    gone = torch.tensor([False, True, False])
    after = blocks(process, start.replaced(0, weights, None, start.noise_memory, gone), 24)
    assert after.step == 24
    assert after.diverged.tolist() == gone.tolist()
    assert torch.isfinite(after.weights[~gone]).all()
    assert torch.equal(after.weights[~gone], blocks(process, start, 24).weights[~gone])


# --- what is captured, and what is kept


class Own(Plain):
    """A rule of one's own."""


class Reversed(ShuffledMinibatches):
    """A noise of one's own."""

    def minibatches(self, n_samples, memory, draws, steps):
        drawn, memory = super().minibatches(n_samples, memory, draws, steps)
        return drawn.flip(-1), memory


@pytest.mark.parametrize(
    "process",
    [
        Process(landscape(), ShuffledMinibatches(B), 0.1, update=Own()),
        Process(landscape(), Reversed(B), 0.1),
        isotropic_langevin(landscape(), 0.1, B),
        Process(QuadraticLandscape(np.eye(2), np.eye(2)), ThermalNoise(0.1), 0.1),
    ],
    ids=["rule", "noise", "additive", "no samples"],
)
def test_what_cannot_be_captured_runs_step_by_step(process):
    assert way(process, captured=True) == way(process) != "captured"
    state = process.start(2, 0)
    assert torch.equal(blocks(process, state, 6).weights, advance(process, state, 6).weights)


def test_nothing_is_captured_on_the_cpu():
    process = sgd(landscape(), 0.1, B)
    assert way(process, captured=True) == "captured"
    assert way(process) == "kernel"
    assert not torch.equal(
        advance(process, process.start(1, 0), 3).weights, blocks(process, process.start(1, 0), 3).weights
    )


def test_what_is_captured_lives_with_the_landscape_and_is_used_again():
    chosen = landscape()
    process = sgd(chosen, 0.1, B)
    blocks(process, process.start(2, 0), 3)
    kept = chosen.problem.path.kept
    ((shape, first),) = kept.items()
    assert not first.captured
    blocks(process, process.start((4, 9), 1), 5)
    blocks(sgd(chosen, 0.2, B), process.start((4, 9), 1), 5)
    assert list(kept.values()) == [first], "other weights, rates and lengths of the same shape"
    assert copy(chosen).problem.path.kept is kept
    assert not deepcopy(chosen).problem.path.kept
    assert not pickle.loads(pickle.dumps(kept))
    for replicas in (3, 4):
        blocks(process, process.start(replicas, 0), 3)
    assert len(kept) == 2
    assert shape not in kept, "the oldest goes first"


def test_the_benchmark_of_replicas_runs_on_any_device(capsys):
    scaling("cpu", 4, widths=(64, 5, 10), side=32, numbers=1000)
    printed = capsys.readouterr().out.splitlines()
    assert "the CPU, 64-5-10, perceptron kernel: replicas" in printed[0]
    assert [int(line.split()[0]) for line in printed[2:4]] == [1, 4]
    assert all(float(line.split()[-2]) > 0 for line in printed[2:4])


def test_the_floor_of_an_update_is_its_products_or_its_traffic():
    """A layer of 3 × 2: 12 operations forward and 12 for its gradient, 8 parameters read and written, 3 inputs."""
    assert least_seconds((2.0, 1e9), 1, (3, 2)) == 24 / 2
    assert least_seconds((1e9, 2.0), 1, (3, 2)) == 4 * (2 * 8 + 3) / 2


# --- sources of one's own that remember


@dataclass(frozen=True)
class Remembering(SampleWeightNoise):
    """c_k that keep nine tenths of what they were; its memory is a tensor, in a tuple, or beside a number."""

    batch_size: int = B
    kind: str = "tensor"
    portable = True

    def start(self, landscape, weights):
        zeros = torch.zeros(len(weights), landscape.n_samples, dtype=weights.dtype)
        return {"tensor": zeros, "tuple": (zeros,), "beside": State(float(weights.abs().mean()), zeros)}[self.kind]

    def sample_weights(self, n_samples, memory, draws, steps):
        own = {"tensor": lambda: memory, "tuple": lambda: memory[0], "beside": lambda: memory.values}[self.kind]()
        found = []
        for normals in draws.normals("remembering", n_samples, steps, centred=True):
            own = 0.9 * own + 0.01 * draws.tensor(normals)
            found.append(own)
        after = {"tensor": lambda: own, "tuple": lambda: (own,), "beside": lambda: replace(memory, values=own)}
        return SampleWeights(1 / n_samples + torch.stack(found)), after[self.kind]()


@dataclass(frozen=True)
class State:
    scale: float
    values: torch.Tensor


def test_what_a_source_remembers_is_of_the_updates_that_were_made():
    """A replica breaks in the middle of a block: the other one's noise goes on from there."""
    chosen = landscape()
    process = Process(chosen, Remembering(), 1.0, update=Plain(weight_decay=5.0))
    start = torch.stack([torch.full((chosen.n_parameters,), size) for size in (1e34, 1e-6)])
    state = process.start(2, 0, weights=start)
    together, alone = advance(process, state, 16, "mask", captured=True), state
    for _ in range(16):
        alone = advance(process, alone, 1, "mask", captured=True)
    assert together.diverged.tolist() == [True, False]
    torch.testing.assert_close(together.noise_memory[1], alone.noise_memory[1])


@pytest.mark.parametrize("kind", ["tensor", "tuple", "beside"])
def test_memories_of_several_processes_stay_their_own(kind):
    processes = [Process(landscape(), Remembering(kind=kind), rate) for rate in (0.1, 0.05)]
    members = [(each, each.start(n, seed)) for each, n, seed in zip(processes, (2, 3), (0, 1), strict=True)]
    found = members
    for _ in range(2):
        found = [(process, state) for (process, _), state in zip(found, together(found, 5), strict=True)]
    for (process, start), (_, state) in zip(members, found, strict=True):
        alone = blocks(process, blocks(process, start, 5), 5)
        torch.testing.assert_close(state.weights, alone.weights, rtol=1e-6, atol=1e-7)
