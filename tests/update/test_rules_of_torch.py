"""Update rules against torch's own optimizers, clipping and averages, minibatch by minibatch, on networks and real digits."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from cases import digits_landscape
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from langevin_nn import NetworkLandscape, Process, advance, rerun, sgd, simulate, validate
from langevin_nn.draws import draws_at
from langevin_nn.errors import ConfigurationError
from langevin_nn.noise import IndependentMinibatches, MatchedGaussian, ShuffledMinibatches
from langevin_nn.observables import Losses, LossesOfAverage, OrderParameters, Weights
from langevin_nn.schedules import EverySteps
from langevin_nn.threads import single_threaded_products
from langevin_nn.update import (
    Adam,
    AdamW,
    Averaged,
    Clipped,
    EulerMaruyama,
    Lion,
    Momentum,
    Nesterov,
    Plain,
    RMSprop,
    SteppedUpdate,
)
from models.networks import multilayer_perceptron

SIZE, RATE, STEPS = 10, 0.01, 50
NETWORKS = {
    "perceptron": (lambda: multilayer_perceptron((64, 8, 10)), lambda inputs: inputs.reshape(len(inputs), -1)),
    "convolutional": (
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 3, 3, stride=2), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))
        ),
        lambda inputs: inputs.reshape(len(inputs), 1, 8, 8),
    ),
}


@pytest.fixture(autouse=True)
def _one_thread():
    """As in a run."""
    with single_threaded_products():
        yield


class SlowLion(torch.optim.Optimizer):
    """Algorithm 2 of arXiv:2302.06675, a number at a time in double precision."""

    def __init__(self, parameters, rate, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(parameters, {"lr": rate, "betas": betas, "weight_decay": weight_decay})

    def step(self):
        (group,) = self.param_groups
        rate, (one, two), decay = group["lr"], group["betas"], group["weight_decay"]
        for each in group["params"]:
            values, gradient = (row.detach().double().flatten().tolist() for row in (each, each.grad))
            means = self.state[each].setdefault("mean", [0.0] * len(values))
            for k, g in enumerate(gradient):
                c = one * means[k] + (1 - one) * g
                values[k] -= rate * ((c > 0) - (c < 0) + decay * values[k])
                means[k] = two * means[k] + (1 - two) * g
            each.data.copy_(torch.tensor(values, dtype=torch.float64).reshape(each.shape))


class Rule(NamedTuple):
    """Ours, torch's optimizer, and what torch's loop does to gradients before its step."""

    ours: SteppedUpdate
    theirs: Any
    clip: Any = lambda parameters: None


SGD = torch.optim.SGD
RULES = {
    "AdamW": Rule(AdamW(), torch.optim.AdamW),
    "AdamW, strong decay": Rule(
        AdamW(0.5, 0.9, 1e-3, 2.0), partial(torch.optim.AdamW, betas=(0.5, 0.9), eps=1e-3, weight_decay=2.0)
    ),
    "RMSprop": Rule(RMSprop(), torch.optim.RMSprop),
    "RMSprop, decaying": Rule(
        RMSprop(0.9, 1e-3, weight_decay=0.1), partial(torch.optim.RMSprop, alpha=0.9, eps=1e-3, weight_decay=0.1)
    ),
    "RMSprop, momentum": Rule(RMSprop(0.9, 1e-2, 0.8), partial(torch.optim.RMSprop, alpha=0.9, eps=1e-2, momentum=0.8)),
    "RMSprop, centred": Rule(
        RMSprop(0.9, 1e-2, centred=True), partial(torch.optim.RMSprop, alpha=0.9, eps=1e-2, centered=True)
    ),
    "RMSprop, all options": Rule(
        RMSprop(0.9, 1e-2, 0.5, True, 0.1),
        partial(torch.optim.RMSprop, alpha=0.9, eps=1e-2, momentum=0.5, centered=True, weight_decay=0.1),
    ),
    "Nesterov": Rule(Nesterov(0.9), partial(SGD, momentum=0.9, nesterov=True)),
    "Nesterov, decaying": Rule(Nesterov(0.5, 0.1), partial(SGD, momentum=0.5, nesterov=True, weight_decay=0.1)),
    "Lion": Rule(Lion(), SlowLion),
    "Lion, decaying": Rule(Lion(0.5, 0.8, 1.0), partial(SlowLion, betas=(0.5, 0.8), weight_decay=1.0)),
    "Clipped, norm": Rule(
        Clipped(Momentum(0.9, 0.1), norm=0.5),
        partial(SGD, momentum=0.9, weight_decay=0.1),
        lambda parameters: clip_grad_norm_(parameters, 0.5),
    ),
    "Clipped, longer norm": Rule(
        Clipped(AdamW(), norm=5.0), torch.optim.AdamW, lambda parameters: clip_grad_norm_(parameters, 5.0)
    ),
    "Clipped, value": Rule(
        Clipped(Nesterov(0.9), value=0.02),
        partial(SGD, momentum=0.9, nesterov=True),
        lambda parameters: clip_grad_value_(parameters, 0.02),
    ),
}  # fmt: skip


def both(digits, network: str, rule: Rule, decay: float = 0.9, dtype=torch.float64):
    """Yield after each minibatch our weights and average, and torch's."""
    make, shaped = NETWORKS[network]
    inputs, labels = shaped(digits.inputs.to(dtype)), digits.labels[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = make().to(dtype)
    landscape = NetworkLandscape(copy.deepcopy(module), inputs, labels)
    process = Process(landscape, ShuffledMinibatches(SIZE), RATE, update=Averaged(rule.ours, decay))
    state = process.start(1, 0)
    nn.utils.vector_to_parameters(state.weights[0].clone(), module.parameters())
    optimizer = rule.theirs(module.parameters(), RATE)
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
    memory = state.noise_memory
    for step in range(STEPS):
        drawn, memory = process.noise.sample_weights(
            landscape.n_samples, memory, draws_at(state.key(step), state.weights), 1
        )
        rows = drawn.indices[0, 0]
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs[rows]), labels[rows]).backward()
        rule.clip(list(module.parameters()))
        optimizer.step()
        average.update_parameters(module)
        state = advance(process, state, 1)
        flat = [nn.utils.parameters_to_vector(each.parameters()).detach() for each in (module, average.module)]
        yield (state.weights[0], process.update.average(state.update_memory)[0]), flat


def distances(*arguments, **options) -> np.ndarray:
    """Largest relative distances of weights and averages, step by step."""
    pairs = both(*arguments, **options)
    return np.array(
        [
            [float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True)]
            for ours, theirs in pairs
        ]
    )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", RULES)
def test_a_rule_and_its_average_follow_torch_step_by_step(digits, name, network):
    found = distances(digits, network, RULES[name])
    assert found.shape == (STEPS, 2)
    assert found.max() < 1e-10


# --- Twins --------------------------------------------------------------------------------------------------------------


class InsideRoot(RMSprop):
    """Mutated twin: ε under the root."""

    def preconditioner(self, memory):
        return (memory.square + self.offset).sqrt()


class Coupled(AdamW):
    """Mutated twin: the decay goes into the moments."""

    apply = Adam.apply


class LateMean(Lion):
    """Mutated twin: the running mean is brought up to date before the step."""

    def apply(self, weights, memory, gradient, learning_rate, time_step):
        _, mean = super().apply(weights, memory, gradient, learning_rate, time_step)
        return super().apply(weights, mean, gradient, learning_rate, time_step)


class OneStepEarlier(Nesterov):
    """Mutated twin: does not look ahead."""

    apply = Momentum.apply


class TooShort(Clipped):
    """Mutated twin: clips, and shortens by 10⁻³."""

    def apply(self, weights, memory, gradient, learning_rate, time_step):
        return super().apply(weights, memory, 0.999 * gradient.clamp(-self.value, self.value), learning_rate, time_step)


TWINS = {
    "RMSprop": (InsideRoot(), RULES["RMSprop"]),
    "AdamW": (Coupled(), RULES["AdamW"]),
    "Lion": (LateMean(), RULES["Lion"]),
    "Nesterov": (OneStepEarlier(0.9), RULES["Nesterov"]),
    "Clipped": (TooShort(Nesterov(0.9), value=0.02), RULES["Clipped, value"]),
    "clipped after momentum": (Clipped(Momentum(0.9), norm=0.6), RULES["Clipped, norm"]),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_mutated_rule_is_noticed(digits, name):
    twin, rule = TWINS[name]
    assert distances(digits, "perceptron", Rule(twin, rule.theirs, rule.clip))[:, 0].max() > 1e-6


def test_an_average_that_begins_at_the_start_is_noticed(digits):
    class Early(Averaged):
        def start(self, weights):
            return type(super().start(weights))(weights.clone(), True, self.update.start(weights))

    process = Process(digits, ShuffledMinibatches(SIZE), RATE, update=Early(Plain(), 0.9))
    true = Process(digits, ShuffledMinibatches(SIZE), RATE, update=Averaged(Plain(), 0.9))
    states = [advance(each, each.start(1, 0), 1) for each in (process, true)]
    assert torch.equal(states[0].weights, states[1].weights)
    assert torch.equal(true.update.average(states[1].update_memory), states[1].weights)
    assert not torch.equal(process.update.average(states[0].update_memory), states[0].weights)


# --- What wrappers pass on ----------------------------------------------------------------------------------------------


def test_an_average_disturbs_nothing_and_replicas_are_clipped_each_by_itself(digits):
    inner = Clipped(Momentum(0.9), norm=0.5)
    processes = [Process(digits, IndependentMinibatches(SIZE), RATE, update=each) for each in (inner, Averaged(inner))]
    plain, averaged = (advance(each, each.start(5, 0), 20) for each in processes)
    assert torch.equal(plain.weights, averaged.weights)
    for company in ((3,), (4, 3), (3, 0, 1)):
        state = advance(processes[0], processes[0].start(company, 0), 20)
        assert torch.equal(state.weights[company.index(3)], plain.weights[3])


def test_wrappers_have_what_the_inner_rule_has():
    rule = Averaged(Clipped(RMSprop(momentum=0.6), norm=1.0))
    weights = torch.zeros(2, 3)
    memory = rule.start(weights)
    assert torch.equal(rule.preconditioner(memory), torch.full((2, 3), 1e-8))
    assert rule.momentum == 0.6
    assert rule.descent_rates is None
    assert Clipped(Plain(), norm=1.0).descent_rates is None
    assert torch.equal(Clipped(rule, value=1.0).average(memory), weights)
    assert Averaged(Nesterov(0.5)).orders == Nesterov.orders
    assert Clipped(Plain(), norm=1.0).orders["constant"].weak == 0
    assert all(each.average(None) is None for each in (Plain(), Adam(), Clipped(Plain(), norm=1.0)))


def test_order_parameters_are_measured_in_the_metric_within(digits):
    runs = [
        simulate(
            Process(digits, IndependentMinibatches(SIZE), RATE, update=update),
            steps=3,
            observables=OrderParameters(8, metric="preconditioned"),
            progress=False,
        )
        for update in (RMSprop(), Averaged(RMSprop()))
    ]
    np.testing.assert_array_equal(runs[0].activity, runs[1].activity)


def test_a_centred_variance_that_rounding_makes_negative_counts_as_none():
    rule = RMSprop(0.5, centred=True)
    weights, memory, gradient = torch.zeros(1, 999), rule.start(torch.zeros(1, 999)), torch.linspace(0.1, 3, 999)[None]
    for _ in range(200):
        weights, memory = rule.apply(weights, memory, gradient, RATE, RATE)
    assert bool((memory.square - memory.mean.square() < 0).any())
    assert bool(weights.isfinite().all())


def test_a_replica_that_diverged_does_not_stand_still_under_lion():
    rule, weights = Lion(), torch.ones(2, 3)
    moved, _ = rule.apply(weights, rule.start(weights), torch.tensor([[1.0] * 3, [torch.nan] * 3]), RATE, RATE)
    assert moved.isnan().all(1).tolist() == [False, True]


# --- Losses at the average ----------------------------------------------------------------------------------------------


def test_losses_of_the_average_are_those_of_a_network_with_these_weights(tmp_path):
    with torch.random.fork_rng(devices=[]):
        landscape = digits_landscape()
    process = sgd(landscape, RATE, SIZE, update=Averaged(Momentum(0.9), 0.8))
    path, observables = tmp_path / "run.nc", [Losses(), LossesOfAverage(), Weights(EverySteps(1))]
    run = simulate(
        process, steps=12, replicas=2, schedule=EverySteps(1), observables=observables, path=path, progress=False
    )
    weights = torch.as_tensor(run["weights"].weights.values)
    average = weights[:, 1]
    for k in range(2, 13):
        average = 0.8 * average + 0.2 * weights[:, k]
    module = multilayer_perceptron((64, 8, 10))
    for replica, row in enumerate(average):
        nn.utils.vector_to_parameters(row.float(), module.parameters())
        with torch.no_grad():
            outputs = module(landscape.test_inputs)
        loss = nn.functional.cross_entropy(outputs, landscape.test_labels)
        error = (outputs.argmax(1) != landscape.test_labels).float().mean()
        assert float(run.average_test_loss[replica, -1]) == pytest.approx(float(loss), rel=1e-5)
        assert float(run.average_test_error[replica, -1]) == pytest.approx(float(error))
        assert float(run.test_loss[replica, -1]) != pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_array_equal(run.average_train_loss[:, :2], run.train_loss[:, :2])
    assert run.average_train_loss.attrs["units"] == "nat"
    assert (validate(path), rerun(path, landscape=landscape).same) == ((), True)
    assert run.average_train_error.dims == run.train_error.dims


def test_a_rule_without_an_average_is_told_so(digits):
    with pytest.raises(
        ConfigurationError, match=r"LossesOfAverage with Momentum\(.*keeps no average.*update=Averaged\("
    ):
        simulate(sgd(digits, RATE, SIZE, momentum=0.9), steps=1, observables=LossesOfAverage(), progress=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamW(second_decay=1.0), "second_decay=1.0: expected 0 ≤ β < 1"),
        (lambda: RMSprop(decay=1.0), "decay=1.0: expected 0 ≤ a < 1"),
        (lambda: RMSprop(offset=0.0), "offset=0.0: expected a positive"),
        (lambda: RMSprop(momentum=1.0), "momentum=1.0: expected 0 ≤ μ < 1"),
        (lambda: RMSprop(centred="yes"), "centred='yes'"),
        (lambda: Nesterov(-0.1), "momentum=-0.1: expected 0 ≤ μ < 1"),
        (lambda: Lion(first_decay=1.0), "first_decay=1.0: expected 0 ≤ β < 1"),
        (lambda: Lion(weight_decay=-1.0), "weight_decay=-1.0: expected a finite number λ ≥ 0"),
        (lambda: Clipped(Plain()), "norm=None and value=None: expected one of them"),
        (lambda: Clipped(Plain(), 1.0, 1.0), "norm=1.0 and value=1.0: expected one of them"),
        (lambda: Clipped(Plain(), norm=0.0), "norm=0.0: expected a positive"),
        (lambda: Clipped(EulerMaruyama(), norm=1.0), "update .*EulerMaruyama.*applied step by step"),
        (lambda: Averaged(Plain(), 1.0), "decay=1.0: expected 0 ≤ d < 1"),
        (lambda: Averaged(Adam), "update is the class Adam"),
    ],
)
def test_what_is_no_such_rule_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_rules_run_with_noise_that_is_no_minibatch(digits):
    for rule in (AdamW(), RMSprop(), Nesterov(0.9), Lion(), Clipped(Plain(), norm=1.0)):
        process = Process(digits, MatchedGaussian(SIZE), RATE, update=rule)
        assert advance(process, process.start(2, 0), 3).weights.isfinite().all()
