"""What parts of a run say of themselves: one line, no arrays, nothing that has to be computed first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from cases import digits_landscape
from torch import nn

from langevin_nn import NetworkLandscape, Process, Simulation, fit_surrogate, isotropic_langevin, sgd, svag
from langevin_nn.drift import Confinement, GradientDrift, LinearDrift
from langevin_nn.engine import advance
from langevin_nn.landscape import Landscape, LinearRegressionLandscape, PotentialLandscape, QuadraticLandscape
from langevin_nn.noise import (
    AdditiveNoise,
    AnisotropicNoise,
    ColouredNoise,
    DiagonalNoise,
    MatchedGaussian,
    ScaledNoise,
    ShuffledMinibatches,
    Silent,
    StateDependentNoise,
)
from langevin_nn.observables import Losses, Weights
from langevin_nn.readable import brief
from langevin_nn.update import Adam, EulerMaruyama, Momentum, Plain, SteppedUpdate

VALLEY = QuadraticLandscape(np.eye(2), np.eye(2))
SAID = "QuadraticLandscape(2 parameters, float64)"


def well(x):
    return x[0] ** 2


def amplitude(x, out):
    out[0] = x[0]


@dataclass(frozen=True, eq=False)
class Own(AdditiveNoise):
    """As a user writes one."""

    factors: Any
    width: float = 1.0
    secret: int = field(default=3, repr=False)

    def increment(self, landscape, weights, memory, key):
        return torch.zeros_like(weights), memory

    def strength(self, memory, landscape, weights, sample_trace):
        return torch.zeros(1)


class Undeclared(SteppedUpdate):
    def __init__(self, rate):
        self.rate, self._cache = rate, np.zeros(10**6)

    def apply(self, weights, memory, gradient, learning_rate, time_step):
        return weights, memory


class Spoken(Undeclared):
    def __repr__(self):
        return "mine"


class Flat(Landscape):
    """Knows not how large it is."""

    initial_weights = loss = gradient = hessian_product = None


class Untouchable(np.ndarray):
    def __repr__(self):
        raise AssertionError("an array was printed")

    __str__ = __format__ = __repr__


ARRAY = np.zeros((500, 300)).view(Untouchable)


def network(**options):
    labels = np.arange(8) % 2
    return NetworkLandscape(nn.Sequential(nn.Linear(3, 2)), np.zeros((8, 3), np.float32), labels, **options)


def one_logit():
    def loss(outputs, labels):
        return nn.functional.softplus((1 - 2 * labels) * outputs[:, 0])

    return NetworkLandscape(nn.Linear(3, 1).double(), np.zeros((8, 3)), np.arange(8) % 2, loss=loss, start="drawn")


TABLE = {
    "a quadratic": (lambda: VALLEY, SAID),
    "a potential": (
        lambda: PotentialLandscape(well, 1, dtype=torch.float32),
        "PotentialLandscape(well, 1 parameter, float32)",
    ),
    "a regression": (
        lambda: LinearRegressionLandscape(np.eye(3), np.ones(3)),
        "LinearRegressionLandscape(3 parameters, 3 samples, float64)",
    ),
    "a network": (network, "NetworkLandscape(Sequential, 8 parameters, 8 samples of 3 → 2 classes, float32)"),
    "a network with more": (
        lambda: network(
            true_labels=np.zeros(8, int),
            test_inputs=np.zeros((2, 3)),
            test_labels=[0, 1],
            start="own",
            parameters="*.bias",
        ),
        "NetworkLandscape(Sequential, 8 parameters, 8 samples of 3 → 2 classes, 50 % mislabeled, 2 test samples, "
        "measured in 1 of 2 tensors, start='own', float32)",
    ),
    "relabeled": (
        lambda: network(relabeled=np.arange(8) < 2, cohort_mask="relabeled"),
        "NetworkLandscape(Sequential, 8 parameters, 8 samples of 3 → 2 classes, 25 % relabeled, float32)",
    ),
    "one logit": (
        one_logit,
        "NetworkLandscape(Linear, 4 parameters, 8 samples of 3 → 2 classes, start='drawn', float64)",
    ),
    "numbers as labels": (
        lambda: NetworkLandscape(
            nn.Linear(3, 4),
            np.zeros((8, 3)),
            np.zeros((8, 4), np.float32),
            loss=lambda out, y: (out - y).square().sum(1),
        ),
        "NetworkLandscape(Linear, 16 parameters, 8 samples of 3 → 4, float32)",
    ),
    "of the user's own": (Flat, "Flat()"),
    "minibatches": (lambda: ShuffledMinibatches(25), "ShuffledMinibatches(batch_size=25)"),
    "defaults": (lambda: MatchedGaussian(25), "MatchedGaussian(batch_size=25)"),
    "no default": (lambda: MatchedGaussian(np.int64(25), True), "MatchedGaussian(batch_size=25, replacement=True)"),
    "silence": (Silent, "Silent()"),
    "scaled": (
        lambda: ScaledNoise(MatchedGaussian(25), 2),
        "ScaledNoise(noise=MatchedGaussian(batch_size=25), temperature=2.0)",
    ),
    "a factor": (lambda: AnisotropicNoise(np.eye(2)), "AnisotropicNoise(factor=float64[2, 2])"),
    "one number": (lambda: DiagonalNoise(0.5), "DiagonalNoise(factor=0.5)"),
    "coloured": (lambda: ColouredNoise([1.0, 2.0], 0.1), "ColouredNoise(factor=float64[2], correlation_time=0.1)"),
    "a function": (lambda: StateDependentNoise(amplitude), "StateDependentNoise(amplitude=amplitude)"),
    "own noise": (lambda: Own(ARRAY), "Own(factors=float64[500, 300])"),
    "own noise in full": (lambda: Own(torch.zeros(2), 2.0, 5), "Own(factors=float32[2], width=2.0)"),
    "own rule": (lambda: Undeclared(0.5), "Undeclared(rate=0.5)"),
    "own words": (lambda: Spoken(0.5), "mine"),
    "plain": (Plain, "Plain()"),
    "momentum": (lambda: Momentum(0.9, 0.1), "Momentum(momentum=0.9, weight_decay=0.1)"),
    "a sum": (
        lambda: LinearDrift(np.eye(2)) + Confinement(1, 2),
        "SumDrift(terms=(LinearDrift(matrix=float64[2, 2], centre=float64[2]), Confinement(stiffness=1.0, radius=2.0)))",
    ),
    "a gradient": (lambda: GradientDrift(VALLEY), f"GradientDrift(landscape={SAID})"),
    "a process": (
        lambda: isotropic_langevin(network(), 0.1, 4, refresh_every=3),
        "Process(isotropic_langevin: IsotropicNoise(batch_size=4, refresh_every=3), learning_rate=0.1, "
        "landscape=NetworkLandscape(Sequential, 8 parameters, 8 samples of 3 → 2 classes, float32))",
    ),
    "of all parts": (
        lambda: Process(VALLEY, Silent(), 1, drift=LinearDrift(np.eye(2)), time_step=0.5, update=EulerMaruyama()),
        f"Process(Silent(), EulerMaruyama(), drift=LinearDrift(matrix=float64[2, 2], centre=float64[2]), learning_rate=1.0, "
        f"time_step=0.5, landscape={SAID})",
    ),
    "a state": (
        lambda: advance(Process(VALLEY, Silent(), 0.1), Process(VALLEY, Silent(), 0.1).start(3, 7), 1200),
        "State(step 1,200, 3 replicas × 2 parameters, float64, seed=7)",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_parts_say_what_they_are_in_one_line(name):
    make, expected = TABLE[name]
    assert repr(make()) == expected


def test_diverged_replicas_are_counted():
    state = Process(VALLEY, Silent(), 0.1).start(3, 0)
    lost = state.replaced(4, state.weights, None, None, torch.tensor([True, False, True]))
    assert repr(lost) == "State(step 4, 3 replicas × 2 parameters, float64, seed=0, 2 diverged)"


def test_a_simulation_says_how_long_it_runs_and_what_it_records():
    found = Simulation(
        Process(VALLEY, Silent(), 0.1), steps=1200, replicas=3, seed=7, observables=[Losses(), Weights()]
    )
    process = f"Process(Silent(), learning_rate=0.1, landscape={SAID})"
    assert repr(found) == f"Simulation({process}, 1,200 steps, 3 replicas, seed=7, observables: Losses, Weights)"


def test_a_surrogate_says_its_size():
    digits = digits_landscape(60)
    weights = digits.initial_weights((0,), sgd(digits, 0.1, 10).start(1, 0).seeds)[0]
    found = fit_surrogate(digits, weights, batch_size=10, n_directions=2)
    assert repr(found) == "Surrogate(2 directions of 610 parameters, noise='constant', batch_size=10)"


@pytest.mark.parametrize(
    "kind", [NetworkLandscape, QuadraticLandscape, PotentialLandscape, Process, Momentum, Adam, Own]
)
def test_what_is_half_built_has_a_repr(kind):
    said = repr(object.__new__(kind))
    assert said.startswith(f"{kind.__name__}(")
    assert len(said) < 120


def test_what_cannot_be_read_is_left_out():
    class Odd:
        def __getattr__(self, name):
            raise RuntimeError(name)

    assert repr(Own(Odd())) == "Own(factors=Odd)"
    assert brief(10**9999) == "int"
    assert brief(torch.empty((), device="meta")) == "Tensor"
    assert brief("a" * 1000) == f"'{'a' * 59}…"
    assert brief([ARRAY] * 9) == "list of 9"
    looped = Undeclared(0.5)
    looped.rate = looped
    assert repr(looped) == "Undeclared(rate=…)"


def test_a_process_of_svag_says_its_time_step():
    assert "amplification=4), learning_rate=0.1, time_step=0.025, " in repr(svag(network(), 0.1, 4))
