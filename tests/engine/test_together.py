"""Replicas and processes that train together: kernels against slow float64 twins, batches against each run alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr
from cases import ROOT
from torch import nn

from langevin_nn import (
    NetworkLandscape,
    Process,
    Seeds,
    Simulation,
    advance,
    gradient_descent,
    isotropic_langevin,
    langevin,
    open_trajectory,
    sgd,
    simulate,
    simulate_together,
)
from langevin_nn.draws import NumPyDraws
from langevin_nn.engine import advance_together, shares
from langevin_nn.errors import ConfigurationError, UnstableTrajectory
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import IndependentMinibatches, SampleWeights, ShuffledMinibatches, ThermalNoise
from langevin_nn.observables import Losses, Observable, Weights
from langevin_nn.schedules import EverySteps
from langevin_nn.update import Momentum, Plain
from models.datasets import load_dataset
from models.networks import multilayer_perceptron

N, B = 120, 20
DATA = load_dataset("digits", samples_per_class=N // 10)


def network(kind: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "traced":
            return nn.Sequential(nn.Linear(64, 9), nn.SiLU(), nn.Linear(9, 10))
        return multilayer_perceptron((64, 9, 7, 10), kind)


def landscape(kind: str = "relu", noise_seed: int | None = None) -> NetworkLandscape:
    """Digits, a third of them with other labels where there is a seed for them."""
    labels = np.array(DATA.train_labels)
    if noise_seed is not None:
        generator = np.random.default_rng(noise_seed)
        chosen = generator.permutation(N)[: N // 3]
        labels[chosen] = generator.integers(10, size=len(chosen))
    return NetworkLandscape(network(kind), DATA.train_inputs, labels, true_labels=DATA.train_labels)


# --- blocks of updates


def twin(module, start, inputs, labels, batches, learning_rate, momentum, weight_decay):
    """SGD in float64 by autograd: v ← μv + g + λw, w ← w − αv."""
    own = nn.Sequential(*module).double()
    tensors = list(own.parameters())
    nn.utils.vector_to_parameters(start.double(), tensors)
    optimiser = torch.optim.SGD(own.parameters(), learning_rate, momentum=momentum, weight_decay=weight_decay)
    for rows in batches:
        optimiser.zero_grad()
        nn.functional.cross_entropy(own(inputs[rows].double()), labels[rows]).backward()
        optimiser.step()
    return nn.utils.parameters_to_vector(own.parameters()).detach()


@pytest.mark.parametrize("kind", ["relu", "tanh", "gelu", "traced"])
@pytest.mark.parametrize(
    ("noise", "update"),
    [
        (ShuffledMinibatches(B), Plain()),
        (ShuffledMinibatches(7), Plain(0.01)),  # a remainder of 120 mod 7, and no multiple of any tile
        (ShuffledMinibatches(60), Plain()),  # more rows than one pass takes
        (IndependentMinibatches(B), Momentum(0.9)),
        (IndependentMinibatches(60, replacement=True), Momentum(0.5, 0.01)),
    ],
)
def test_a_block_of_updates_is_that_of_torch(kind, noise, update):
    """60 updates from the same minibatches, in float64."""
    chosen = landscape(kind, noise_seed=1)
    process = Process(chosen, noise, 0.1, update=update)
    state, memory = process.start((0, 3), 5), process.start((0, 3), 5).noise_memory
    drawn, _ = noise.minibatches(N, memory, NumPyDraws([state.key(0)], state.weights), 60)
    after = advance(process, state, 60).weights
    rates = {"momentum": getattr(update, "momentum", 0.0), "weight_decay": update.weight_decay}
    for row in range(2):
        batches = list(drawn[:, row])
        slow = twin(network(kind), state.weights[row], chosen.inputs, chosen.labels[0], batches, 0.1, *rates.values())
        moved = float((slow - state.weights[row].double()).norm())
        assert float((after[row].double() - slow).norm()) < 1e-5 * moved
        other = twin(
            network(kind), state.weights[row], chosen.inputs, chosen.labels[0], batches, 0.1001, *rates.values()
        )
        assert float((after[row].double() - other).norm()) > 1e-4 * moved, "a twin whose rate is 0.1 % off must be seen"


def test_a_rule_of_ones_own_is_not_replaced_by_the_kernel():
    class Half(Plain):
        def apply(self, weights, memory, gradient, learning_rate, time_step):
            return weights - 0.5 * time_step * gradient, memory

    chosen = landscape()
    own = Process(chosen, ShuffledMinibatches(B), 0.2, update=Half())
    known = Process(chosen, ShuffledMinibatches(B), 0.1)
    got, expected = (advance(each, each.start(1, 0), 12).weights for each in (own, known))
    assert torch.allclose(got, expected, atol=1e-5)
    twice = Process(chosen, ShuffledMinibatches(B), 0.2)
    assert not torch.allclose(got, advance(twice, twice.start(1, 0), 12).weights, atol=1e-3)


def test_a_process_or_a_noise_of_ones_own_is_not_replaced_either():
    class Twice(Process):
        def stochastic_gradient(self, weights, memory, key):
            gradient, memory = super().stochastic_gradient(weights, memory, key)
            return 2 * gradient, memory

    class First(ShuffledMinibatches):
        def sample_weights(self, n_samples, memory, draws, steps):
            drawn, memory = super().sample_weights(n_samples, memory, draws, steps)
            return SampleWeights(drawn.coefficients, 0 * drawn.indices), memory

    chosen = landscape()
    twice, faster = Twice(chosen, ShuffledMinibatches(B), 0.1), Process(chosen, ShuffledMinibatches(B), 0.2)
    assert shares(twice) is None
    got, expected = (advance(each, each.start(1, 0), 6).weights for each in (twice, faster))
    assert torch.allclose(got, expected, atol=1e-5)
    first = Process(chosen, First(B), 0.1)
    start = first.start(1, 0)
    uniform = torch.full((1, B), 1 / B)
    slow = start.weights - 0.1 * chosen.weighted_gradient(start.weights, uniform, torch.zeros(1, B, dtype=torch.int64))
    assert torch.allclose(advance(first, start, 1).weights, slow, atol=1e-6)


def test_minibatches_of_samples_that_do_not_exist_are_refused():
    """The kernel would read wherever they point."""

    class Beyond(ShuffledMinibatches):
        def minibatches(self, n_samples, memory, draws, steps):
            drawn, memory = super().minibatches(n_samples, memory, draws, steps)
            return drawn + 1, memory

    process = Process(landscape(), Beyond(B), 0.1)
    with pytest.raises(ConfigurationError, match=f"indices run from 1 to {N}"):
        advance(process, process.start(1, 0), N // B)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_divergence_in_the_middle_of_a_block_is_dated(momentum):
    """To the update, as one by one."""
    process = sgd(landscape(), 3e8, B, momentum=momentum)
    with pytest.raises(UnstableTrajectory) as block:
        advance(process, process.start(3, 0), 60)

    def one_by_one():
        state = process.start(3, 0)
        for _ in range(60):
            state = advance(process, state, 1)

    with pytest.raises(UnstableTrajectory) as single:
        one_by_one()
    assert (block.value.replica, block.value.step) == (single.value.replica, single.value.step)
    assert block.value.step > 1


def test_rates_beyond_single_precision_diverge_by_name():
    process = sgd(landscape(), 0.1, B, weight_decay=1e308)
    with pytest.raises(UnstableTrajectory):
        advance(process, process.start(1, 0), 2)


# --- several processes in one batch

FAMILIES = {
    "sgd": sgd,
    "sgd with momentum": lambda *given: sgd(*given, momentum=0.9),
    "langevin": langevin,
    "langevin at half the time step": lambda *given: langevin(*given, time_step=given[1] / 2),
    "gradient descent": gradient_descent,
    "isotropic": isotropic_langevin,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["relu", "traced"])
def test_processes_in_a_batch_have_the_bits_that_they_have_alone(family, kind):
    """Other labels, rates, seeds, replicas and starts."""
    processes = [FAMILIES[family](landscape(kind, seed), rate, B) for seed, rate in ((None, 0.1), (1, 0.02), (2, 0.3))]
    replicas, seeds = ((0, 1), (5,), (2, 0, 1)), (0, 3, 0)
    states = [p.start(which, seed) for p, which, seed in zip(processes, replicas, seeds, strict=True)]
    if family not in ("isotropic", "gradient descent"):
        assert len({shares(process) for process in processes}) == 1
        after = advance_together(list(zip(processes, states, strict=True)), 13)
    else:
        assert {shares(process) for process in processes} == {None}
        after = [advance(process, state, 13) for process, state in zip(processes, states, strict=True)]
    for process, state, got in zip(processes, states, after, strict=True):
        assert torch.equal(got.weights, advance(process, state, 13).weights)
    assert not torch.equal(after[0].weights[:1], after[2].weights[1:2]), "same address, other labels and rate"


def test_what_differs_in_more_than_labels_shares_nothing():
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.layer, self.factor = nn.Linear(64, 10), factor

        def forward(self, inputs):
            return self.factor * self.layer(inputs)

    globals()["Scaled"] = Scaled
    Scaled.__qualname__ = "Scaled"

    def over(module, inputs=DATA.train_inputs, **options):
        return shares(sgd(NetworkLandscape(module, inputs, DATA.train_labels, **options), 0.1, B))

    assert over(Scaled(1.0)) == over(Scaled(1.0)) is not None
    others = [over(Scaled(2.0)), over(network("relu")), over(network("tanh")), over(Scaled(1.0), DATA.train_inputs * 2)]
    assert len({over(Scaled(1.0)), *others}) == 5
    with torch.random.fork_rng(devices=[]):
        hidden = shares(sgd(NetworkLandscape(network("relu"), DATA.train_inputs, DATA.train_labels), 0.1, B + 1))
    assert hidden != over(network("relu")), "another batch size"


def test_a_noise_that_differs_in_the_middle_of_a_long_array_shares_nothing():
    @dataclass(frozen=True, eq=False)
    class Preferring(ShuffledMinibatches):
        preferences: np.ndarray = None

        def __repr__(self):
            return "Preferring()"

    long = np.zeros(5000)
    one, other = (Process(landscape(), Preferring(B, each), 0.1) for each in (long, np.eye(1, 5000, 2500)[0]))
    assert shares(one) != shares(other)
    assert shares(one) == shares(Process(landscape(), one.noise, 0.2)) is not None


def test_losses_that_say_the_same_of_themselves_and_weigh_classes_differently_share_nothing():
    """The repr of torch's cross-entropy leaves its weights out."""
    planned = []
    for heavy in (1.0, 9.0):
        weight = torch.ones(10).index_fill(0, torch.tensor([3]), heavy)
        loss = nn.CrossEntropyLoss(weight=weight, reduction="none")
        own = NetworkLandscape(network("relu"), DATA.train_inputs, DATA.train_labels, loss=loss, start="drawn")
        planned.append(Simulation(sgd(own, 0.1, B), steps=12, replicas=1, observables=Losses()))
    alone = [each.run().train_loss.values for each in planned]
    for one, other in zip(simulate_together(planned), alone, strict=True):
        np.testing.assert_array_equal(one.train_loss.values, other)
    assert not np.array_equal(*alone)


def test_batches_have_the_same_name_in_another_process():
    """Or points of a sweep would be packed only with those that the same worker has seen."""
    script = (
        "import sys; sys.path[:0] = ['tests', 'tests/engine']; import test_together as t; from langevin_nn import *\n"
        "print(Simulation(sgd(t.landscape(), 0.1, t.B), steps=3, config={'at': t.np.int64(3)}).batch_key)"
    )
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert said == Simulation(sgd(landscape(), 0.1, B), steps=3).batch_key


def test_a_landscape_of_ones_own_gives_its_own_gradients_and_is_joined_with_no_other():
    class Doubled(NetworkLandscape):
        def weighted_gradient(self, weights, coefficients, indices=None):
            return 2 * super().weighted_gradient(weights, coefficients, indices)

    class Named(NetworkLandscape):
        pass

    doubled, named = (each(network("relu"), DATA.train_inputs, DATA.train_labels) for each in (Doubled, Named))
    assert shares(sgd(doubled, 0.1, B)) is shares(sgd(named, 0.1, B)) is None
    got, expected = (advance(each, each.start(1, 0), 6).weights for each in (sgd(doubled, 0.1, B), sgd(named, 0.2, B)))
    torch.testing.assert_close(got, expected)


OPTIONS = {"steps": 24, "schedule": EverySteps(6), "observables": [Losses(), Weights(EverySteps(12))]}


def runs(**more) -> list[Simulation]:
    """A sweep of label noise and learning rate, and a surrogate that shares nothing with it."""
    rates = ((None, 0.1, 0), (1, 0.05, 0), (2, 0.2, 7))
    made = [Simulation(sgd(landscape(noise_seed=s), a, B), replicas=2, seed=k, **OPTIONS, **more) for s, a, k in rates]
    valley = Process(QuadraticLandscape(np.eye(2), np.eye(2)), ThermalNoise(0.1), 0.1)
    return [*made, Simulation(valley, replicas=3, **OPTIONS, **more)]


def same(one: xr.DataTree, other: xr.DataTree) -> bool:
    return one.attrs["config_json"] == other.attrs["config_json"] and all(
        one[path].to_dataset().equals(other[path].to_dataset()) for path in one.groups
    )


@pytest.mark.parametrize("with_files", [False, True])
def test_simulations_together_are_those_alone(tmp_path, with_files):
    paths = [tmp_path / f"{k}.nc" for k in range(4)] if with_files else None
    simulations = runs()
    assert [simulations[0].batch_key == each.batch_key for each in simulations] == [True, True, True, False]
    together = simulate_together(simulations, paths=paths)
    for simulation, got in zip(simulations, together, strict=True):
        assert same(got, simulation.run())
    assert sorted(each.name for each in tmp_path.iterdir()) == ([f"{k}.nc" for k in range(4)] if with_files else [])


def test_one_that_diverges_leaves_its_records_and_does_not_take_the_others_along(tmp_path):
    simulations = runs()
    wild = Simulation(sgd(landscape(noise_seed=1), 3e8, B), replicas=2, **OPTIONS)
    masked = Simulation(sgd(landscape(noise_seed=2), 3e8, B), replicas=2, on_divergence="mask", **OPTIONS)
    assert wild.batch_key == masked.batch_key == simulations[0].batch_key
    paths = [tmp_path / f"{k}.nc" for k in range(4)]
    together = simulate_together([simulations[0], wild, masked, simulations[1]], paths=paths)
    assert isinstance(together[1], UnstableTrajectory)
    assert together[1].trajectory.attrs["complete"] == open_trajectory(paths[1]).attrs["complete"] == 0
    assert together[2].attrs["complete"] == 1
    assert np.isnan(together[2].to_dataset().train_loss.values[:, -1]).any()
    assert same(together[0], simulations[0].run())
    assert same(together[3], simulations[1].run())


class Stop(Observable):
    """Ends a run from within, once for each object."""

    def __init__(self, error, at=12):
        self.error, self.at, self.armed = error, at, True

    @property
    def description(self):
        return {}

    def measure(self, snapshot):
        if self.armed and snapshot.state.step == self.at:
            self.armed = False
            raise self.error("stopped")
        return {}


def observed(process, extra, **more):
    return Simulation(process, **(OPTIONS | {"observables": [*OPTIONS["observables"], extra]} | more))


def test_an_error_while_one_is_recorded_is_its_own(tmp_path):
    stop = Stop(RuntimeError)
    simulations = [
        observed(sgd(landscape(noise_seed=k), 0.1, B), stop if k == 1 else Stop(RuntimeError, -1)) for k in (0, 1)
    ]
    paths = [tmp_path / "0.nc", tmp_path / "1.nc"]
    together = simulate_together(simulations, paths=paths)
    assert isinstance(together[1], RuntimeError)
    assert together[0].attrs["complete"] == 1
    again = simulate_together(simulations, paths=paths)
    assert same(again[1], simulations[1].run())
    assert same(again[0], together[0])


def test_an_interrupt_keeps_what_all_of_them_have(tmp_path):
    stop = Stop(KeyboardInterrupt)
    simulations = [
        observed(sgd(landscape(noise_seed=k), 0.1, B), stop if k == 1 else Stop(RuntimeError, -1)) for k in range(3)
    ]
    paths = [tmp_path / f"{k}.nc" for k in range(3)]
    with pytest.raises(KeyboardInterrupt):
        simulate_together(simulations, paths=paths)
    for path in paths:
        remains = open_trajectory(path)
        assert remains.attrs["complete"] == 0
        assert remains["step"].values[-1] >= 6
    together = simulate_together(simulations, paths=paths)
    for simulation, got in zip(simulations, together, strict=True):
        assert same(got, simulation.run())


def test_wrong_lists_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="1 paths came for 4 simulations"):
        simulate_together(runs(), paths=[tmp_path / "a.nc"])
    with pytest.raises(ConfigurationError, match="a file of its own for each"):
        simulate_together(runs()[:2], paths=[tmp_path / "a.nc"] * 2)
    with pytest.raises(ConfigurationError, match="expected a Simulation"):
        simulate_together([sgd(landscape(), 0.1, B)])
    with pytest.raises(ConfigurationError, match="Simulation objects"):
        simulate_together(3)


def test_a_simulation_is_what_simulate_runs():
    simulation = runs()[0]
    assert same(simulation.run(), simulate(simulation.process, replicas=2, seed=0, **OPTIONS))
    assert Seeds(0) == simulation.seeds
