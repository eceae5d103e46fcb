"""Update rules and analyzers of the package held to their laws, and twins that break them; noise sources: `test_noise`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.linalg import expm

from langevin_nn import Process, analyzers, simulate, update
from langevin_nn.analyzers import (
    Autocorrelation,
    ComparisonAnalyzer,
    Fluctuations,
    LawComparison,
    LossMixture,
    PhaseDetector,
    PrincipalComponents,
    ProbabilityCurrents,
    Quantity,
    Stationarity,
    TimeAveragedOrderParameters,
    Timescales,
    TransitionRates,
)
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import AdditiveNoise
from langevin_nn.testing import check_analyzer, check_update, four_phase_trajectory
from langevin_nn.update import (
    BAOAB,
    Adam,
    AdamW,
    Averaged,
    Clipped,
    EulerMaruyama,
    Heun,
    LeimkuhlerMatthews,
    Lion,
    Milstein,
    Momentum,
    Nesterov,
    Plain,
    Preconditioned,
    RMSprop,
    StrongAdditive,
    UnderdampedLangevin,
    Update,
    WeakSecondOrder,
)

# --- Analyzers ----------------------------------------------------------------------------------------------------------

CLOCK = np.arange(240)


def wandering(*shape: int, memory: float = 0.6, seed: int = 0) -> np.ndarray:
    """Autoregressive numbers along the last dimension."""
    rows = np.random.default_rng(seed).standard_normal(shape)
    for k in range(1, shape[-1]):
        rows[..., k] = memory * rows[..., k - 1] + (1 - memory**2) ** 0.5 * rows[..., k]
    return rows


def scalars() -> xr.Dataset:
    clocks = {"step": CLOCK, "epoch": ("step", CLOCK / 10), "time": ("step", CLOCK / 5)}
    return xr.Dataset({"train_loss": (("replica", "step"), wandering(5, 240, memory=0.2))}, coords=clocks)


def weights(memory: float = 0.6, components: str = "parameter", name: str = "weights") -> xr.Dataset:
    clocks = {"weight_step": CLOCK, "time": ("weight_step", CLOCK / 5), "learning_rate": ("replica", [0.1] * 5)}
    rows = wandering(5, 3, 240, memory=memory).transpose(0, 2, 1)
    return xr.Dataset({name: (("replica", "weight_step", components), rows)}, coords=clocks)


def losses() -> xr.Dataset:
    values = np.exp(0.3 * wandering(3, 4, 300)) + 3 * (np.arange(300) < 120)
    return xr.Dataset({"sample_loss": (("replica", "sample_step", "sample"), values),
                       "mislabeled": ("sample", (np.arange(300) < 120).astype(np.int8))})  # fmt: skip


def errors() -> xr.Dataset:
    run = four_phase_trajectory(np.random.default_rng(0), replicas=4, records=260)
    test = 0.2 + 1e-5 * (run.epoch - 90) ** 2 + 0 * run.train_error.sel(cohort="all", drop=True)
    return run.assign(test_error=test).drop_vars([name for name in run if str(name).startswith("true_")])


def processes() -> xr.Dataset:
    rows = np.exp(0.2 * wandering(3, 8, 60, seed=3))
    rows[..., 0] = 1.0
    coords = {"process": ["sgd", "sgd_null", "langevin"], "step": np.arange(60), "epoch": ("step", np.arange(60.0))}
    return xr.Dataset({"train_loss": (("process", "replica", "step"), rows)}, coords=coords)


QUANTITIES = (Quantity("train_loss", "train_loss", ()),)


class Case(NamedTuple):
    """An analyzer, what it is given, and what its check is told."""

    analyzer: Any
    trajectory: xr.Dataset
    options: Any = MappingProxyType({})


ANALYZERS = {
    "Autocorrelation": Case(Autocorrelation("train_loss"), scalars(), {"together": True}),
    "ComparisonAnalyzer": Case(ComparisonAnalyzer(quantities=QUANTITIES), processes(), {"together": True}),
    "Fluctuations": Case(Fluctuations(np.eye(3)[:2]), weights()),
    "LawComparison": Case(
        partial(LawComparison(quantities=QUANTITIES), windows={"I": (0.0, 30.0), "II": (30.0, 60.0)}),
        processes(),
        {"together": True, "rounding": 0.2},
    ),
    "LossMixture": Case(LossMixture(probabilities=True), losses(), {"too_little": lambda t: t.isel(sample=slice(4))}),
    "PhaseDetector": Case(PhaseDetector(), errors()),
    "PrincipalComponents": Case(PrincipalComponents(2), weights()),
    "PrincipalComponents, shared": Case(PrincipalComponents(2, shared=True), weights(), {"together": True}),
    "ProbabilityCurrents": Case(ProbabilityCurrents(), weights(components="component", name="projection")),
    "Stationarity": Case(Stationarity("train_loss"), scalars()),
    "TimeAveragedOrderParameters": Case(TimeAveragedOrderParameters(60), weights()),
    "Timescales": Case(Timescales(), errors()),
    "TransitionRates": Case(TransitionRates(-0.5, 0.5), weights(0.95)),
}


def test_every_analyzer_of_the_package_is_held_to_the_laws():
    found = {
        name
        for name in analyzers.__all__
        if isinstance(each := getattr(analyzers, name), type) and "__call__" in vars(each)
    }
    assert found == {name.split(",")[0] for name in ANALYZERS}


@pytest.mark.parametrize("case", ANALYZERS.values(), ids=ANALYZERS.keys())
def test_analyzers_keep_the_laws(case):
    check_analyzer(case.analyzer, case.trajectory, **case.options)


def mean_loss(trajectory: xr.Dataset) -> xr.Dataset:
    """A stranger's analyzer, which twins break in one way each."""
    analyzers.labels.require(trajectory, "train_loss")
    values = trajectory.train_loss
    if values.sizes["step"] < 2:
        raise analyzers.labels.EstimationRefused("2 records at least are expected", records=values.sizes["step"])
    mean = values.mean("step", skipna=False).assign_attrs(long_name="mean loss", units="nat")
    return xr.Dataset({"mean_loss": mean.astype(np.float64)})


def few(trajectory):
    return xr.concat([trajectory] * 2, "step") if trajectory.sizes.get("step") == 1 else trajectory


def spoiled(trajectory):
    trajectory["train_loss"] = trajectory.train_loss + 1
    return trajectory


def changed(change):
    """Twin: the means are changed, with their name and units."""

    def twin(trajectory):
        found = mean_loss(trajectory)
        return found.assign(mean_loss=found.mean_loss.copy(data=change(found.mean_loss.values)))

    return twin


@pytest.mark.parametrize(
    ("twin", "said"),
    [
        (lambda t: mean_loss(spoiled(t)), "changes the trajectory that it is given"),
        (changed(lambda means: means + np.random.default_rng().standard_normal()), "gives other values a second time"),
        (changed(lambda means: means - means.mean()), "of 1 replicas it gives other values than among 5"),
        (changed(lambda means: means - np.nanmean(means)), "a replica is missing it gives other values of the others"),
        (changed(np.sort), "in another order of replicas it gives other values"),
        (lambda t: mean_loss(t.fillna(0.0)), "'mean_loss' of a replica that is missing has values"),
        (lambda t: mean_loss(t).drop_attrs(), "'mean_loss' has no long_name and no units"),
        (lambda t: mean_loss(t).assign(odd=("replica", [{}] * t.sizes["replica"])), "the result cannot be written"),
        (lambda t: mean_loss(few(t)), "too little data are answered"),
        (lambda t: mean_loss(t if "train_loss" in t else scalars()), "without anything in it is answered"),
        (lambda t: mean_loss(t * (1 + ("train_loss" in t and t.train_loss.variable._in_memory))), "opened lazily"),
        (lambda t: mean_loss(t).expand_dims(kind=2), "'kind' has no labels"),
    ],
)
def test_an_analyzer_that_breaks_a_law_is_told_which(twin, said):
    check_analyzer(mean_loss, scalars())
    with pytest.raises(AssertionError, match=rf"breaks \d laws: .*{said}"):
        check_analyzer(twin, scalars())


# --- Update rules -------------------------------------------------------------------------------------------------------


def linear_flow(matrix):
    """Where dz = M z dt leads the first half of z = (x, v) from rest, M made of the diagonal of H."""

    def flow(hessian, start, time):
        moved = expm(matrix(np.diag(hessian), np.eye(2), np.zeros((2, 2))) * time) @ np.concatenate([start, 0 * start])
        return moved[:2]

    return flow


UPDATES: dict[str, tuple[Update, Any]] = {
    "Adam": (Adam(), None),
    "AdamW": (AdamW(weight_decay=0.5), None),
    "Averaged": (Averaged(Momentum(0.5), 0.8), None),
    "Averaged, nested": (Averaged(Clipped(Adam(), norm=1.0), 0.8), None),
    "BAOAB": (BAOAB(1.5), linear_flow(lambda h, one, none: np.block([[none, one], [-h, -1.5 * one]]))),
    "Clipped": (Clipped(Momentum(0.5), norm=1.0), None),
    "Clipped, value": (Clipped(Averaged(RMSprop()), value=0.5), None),
    "EulerMaruyama": (EulerMaruyama(), None),
    "Heun": (Heun(), None),
    "LeimkuhlerMatthews": (LeimkuhlerMatthews(), None),
    "Lion": (Lion(weight_decay=0.5), None),
    "Milstein": (Milstein(), None),
    "Momentum": (Momentum(0.5), None),
    "Momentum, 0.9": (Momentum(0.9), None),
    "Nesterov": (Nesterov(0.5), None),
    "Nesterov, decaying": (Nesterov(0.5, 0.5), lambda h, start, time: np.exp(-2 * (h + 0.5) * time) * start),
    "Plain": (Plain(), None),
    "Plain, decaying": (Plain(0.5), lambda h, start, time: np.exp(-(h + 0.5) * time) * start),
    "Preconditioned": (
        Preconditioned(Plain(), [2.0, 0.5]),
        lambda h, start, time: np.exp(-h * [0.5, 2] * time) * start,
    ),
    "Preconditioned, decaying": (
        Preconditioned(Momentum(0.5), [2.0, 0.5], 0.3),
        lambda h, start, time: np.exp(-2 * (h + 0.3) * [0.5, 2] * time) * start,
    ),
    "RMSprop": (RMSprop(), None),
    "RMSprop, all options": (RMSprop(0.9, 1e-4, 0.5, True, 0.1), None),
    "StrongAdditive": (StrongAdditive(), None),
    "UnderdampedLangevin": (
        UnderdampedLangevin(0.3, 0.6),
        linear_flow(lambda h, one, none: np.block([[none, one], [-h / 0.3, -2 * one]])),
    ),
    "WeakSecondOrder": (WeakSecondOrder(), None),
}


def test_every_update_rule_of_the_package_is_held_to_the_laws():
    kinds = {
        name for name in update.__all__ if isinstance(each := getattr(update, name), type) and issubclass(each, Update)
    }
    assert kinds - {"Integrator", "SteppedUpdate", "Update"} == {name.split(",")[0] for name in UPDATES}


@pytest.mark.parametrize("name", UPDATES)
def test_update_rules_keep_the_laws(name):
    rule, flow = UPDATES[name]
    check_update(rule, flow=flow)


class Counting(Plain):
    """Remembers in its class how often it was called."""

    count = 0

    def apply(self, weights, memory, gradient, learning_rate, time_step):
        Counting.count += 1
        return super().apply(weights, memory, gradient * (1 + 1e-9 * Counting.count), learning_rate, time_step)


def wary(self, weights, memory, gradient, learning_rate, time_step):
    assert weights.isfinite().all(), "wants numbers"
    return weights - time_step * gradient, memory


def remembering(self, weights, memory, gradient, learning_rate, time_step):
    """Keeps its velocity in the object."""
    kept = vars(self).get("kept", memory)
    vars(self)["kept"] = 0.5 * (kept if kept.shape == gradient.shape else 0) + gradient
    return weights - time_step * vars(self)["kept"], memory


TWINS = {
    "Remembering": (
        {"start": Momentum.start, "apply": remembering},
        "with the state saved in between, give other bits",
    ),
    "InPlace": ({"apply": lambda self, w, m, g, rate, dt: (w.sub_(dt * g), m)}, "an update changes the state"),
    "Averaging": (
        {"apply": lambda self, w, m, g, rate, dt: (w - dt * (g + 1e-6 * w.mean(0)), m)},
        "a replica has other bits among 1.*where one replica diverges the others have other bits",
    ),
    "Late": ({"apply": lambda self, w, m, g, rate, dt: (w - 0.9 * dt * g, m)}, "order .*: expected the declared 1"),
    "Claiming": ({"orders": WeakSecondOrder.orders}, r"order 1\.0\d: expected the declared 2"),
    "Unsaved": (
        {"start": lambda self, w: {0: w}, "apply": lambda self, w, m, g, rate, dt: (w - dt * g, {0: w})},
        "which cannot be saved",
    ),
    "Wary": ({"apply": wary}, "raises where a replica diverges .*wants numbers"),
}


@pytest.mark.parametrize("name", TWINS)
def test_an_update_rule_that_breaks_a_law_is_told_which(name):
    changed, said = TWINS[name]
    with pytest.raises(AssertionError, match=rf"{name} breaks \d laws: .*{said}"):
        check_update(type(name, (Plain,), changed)())


def test_a_rule_that_counts_its_calls_is_told():
    with pytest.raises(AssertionError, match=r"other bits on its second run.*that was killed goes on to other bits"):
        check_update(Counting())


@dataclass(frozen=True)
class Untold(Plain):
    """Files do not hear of its factor: `rerun` takes 1."""

    factor: float = 1.0

    @property
    def description(self):
        return {"weight_decay": self.weight_decay}

    def apply(self, weights, memory, gradient, learning_rate, time_step):
        return super().apply(weights, memory, self.factor * gradient, learning_rate, time_step)


def test_a_rule_of_which_a_file_does_not_say_all_is_told():
    with pytest.raises(AssertionError, match="rerun of the file gives other bits of /weights/weights"):
        check_update(Untold(factor=2.0), flow=lambda h, start, time: np.exp(-2 * h * time) * start)


class WithoutOrders(Update):
    """A rule that says nothing of its errors."""

    def apply(self, weights, memory, gradient, learning_rate, time_step):
        return weights - time_step * gradient, memory


def test_a_rule_that_declares_no_orders_is_told():
    with pytest.raises(ConfigurationError, match="WithoutOrders declares no orders: expected a mapping"):
        check_update(WithoutOrders())


class Kicks(AdditiveNoise):
    """A source that returns what it was made with."""

    strong_order = weak_order = 1.0

    def __init__(self, kick):
        self.kick = kick

    def start(self, landscape, weights):
        return None

    def strength(self, memory, landscape, weights, sample_trace):
        return torch.ones(1)

    def increment(self, landscape, weights, memory, key):
        return self.kick, memory


@pytest.mark.parametrize(
    ("kick", "came"),
    [(torch.zeros(3, 2), r"shape \(3, 2\)"), (np.zeros((2, 2)), "type ndarray"), (None, "type NoneType")],
)
def test_a_source_that_returns_no_increment_is_told(kick, came):
    process = Process(QuadraticLandscape(np.eye(2), np.eye(2)), Kicks(kick), 0.1)
    with pytest.raises(
        ConfigurationError, match=rf"Kicks.increment returned something of {came}: expected a tensor of"
    ):
        simulate(process, steps=1, replicas=2, progress=False)


def test_data_of_another_kind_have_no_report():
    with pytest.raises(ConfigurationError, match="say no schema_version: expected a trajectory"):
        scalars().langevin.report()
