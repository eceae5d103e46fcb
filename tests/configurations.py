"""Malformed configurations by the thousand: each is either valid or refused with a named error.

``python -m tests.configurations --examples 10000`` hits every argument of every door of the library and of the studies, and
prints by argument how many values were accepted and how many refused. What is accepted is run for a few steps.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field, fields
from decimal import Decimal
from fractions import Fraction
from functools import partial
from io import StringIO
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch
from zlib import crc32

import numpy as np
import torch
import xarray as xr
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from langevin_nn import (
    Monitor,
    NetworkLandscape,
    Process,
    Seeds,
    Simulation,
    compare,
    find_mislabeled,
    fit_surrogate,
    frozen_langevin,
    gradient_descent,
    gradient_ensemble,
    isotropic_langevin,
    langevin,
    sgd,
    simulate,
    svag,
    sweep,
)
from langevin_nn.analyzers import Fluctuations, PrincipalComponents, ProbabilityCurrents, TimeAveragedOrderParameters
from langevin_nn.cleaning import literal_rule
from langevin_nn.drift import Confinement, GradientDrift, LinearDrift, SumDrift
from langevin_nn.errors import LangevinError
from langevin_nn.landscape import LinearRegressionLandscape, QuadraticLandscape
from langevin_nn.noise import (
    AnisotropicNoise,
    ColouredNoise,
    DiagonalNoise,
    IndependentMinibatches,
    IsotropicNoise,
    LabelSmoothingNoise,
    LandscapeNoise,
    LowRankNoise,
    MatchedDiagonal,
    MatchedGaussian,
    MatchedStable,
    PreconditionedThermalNoise,
    ScaledNoise,
    ShuffledMinibatches,
    Silent,
    StableNoise,
    StateDependentNoise,
    ThermalNoise,
)
from langevin_nn.observables import (
    DrivingNoise,
    Losses,
    NoiseSpectrum,
    OrderParameters,
    SampleLosses,
    Weights,
)
from langevin_nn.run import log_spaced
from langevin_nn.schedules import AtEpochs, AtSteps, EveryEpochs, EverySteps, Logarithmic
from langevin_nn.update import (
    BAOAB,
    Adam,
    AdamW,
    Averaged,
    Clipped,
    EulerMaruyama,
    Lion,
    Momentum,
    Nesterov,
    Plain,
    Preconditioned,
    RMSprop,
    UnderdampedLangevin,
)
from studies.compare_sgd_vs_langevin import study as compare_sgd_vs_langevin
from studies.flat_minima import study as flat_minima

__all__ = ["DOORS", "Door", "Enough", "Outcomes", "attempt", "hurried", "run_examples"]

SECONDS = 30  # beyond which an example counts as hanging
_LONGEST = 800  # characters of a message
_STEPS = 3


class Enough(BaseException):
    """The run has begun: its configuration is valid."""


class TooSlow(BaseException):
    """An example that did not end."""


# What may be run on.


def quadratic() -> QuadraticLandscape:
    return QuadraticLandscape(np.eye(2), np.eye(2), start=[1.0, 0.0])


def network() -> NetworkLandscape:
    inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    return NetworkLandscape(torch.nn.Linear(3, 2), inputs, [0, 1, 0, 1, 0, 1])


def regression() -> LinearRegressionLandscape:
    return LinearRegressionLandscape([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [0.0, 1.0, 3.0])


def proportional(x: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        out[i] = 0.5 * x[i]


def one_number(a: Any) -> xr.Dataset:
    """A point of a sweep."""
    return xr.Dataset({"b": ("step", [1.0])}, coords={"step": [0]})


QUADRATIC, NETWORK, REGRESSION = quadratic(), network(), regression()


# What comes in the place of an argument.

MALFORMED: tuple[Any, ...] = (
    *(object(), None, True, False, "", " ", "1", "nan", "raise", "\0", "\udc80", "a" * 300, "é", "x\ny", b"", b"1"),
    *(0, -1, 1, 2, 3, 2**31, 2**53 + 1, 2**63, 2**64, 2**70, -(2**70), 10**400, 10**5000),
    *(0.0, -0.0, 0.5, 1.0, -1.0, 1.5, 1e-308, 5e-324, 1e16, 1e308, -1e308, np.nan, np.inf, -np.inf),
    *(1j, Decimal("0.5"), Fraction(1, 2), ..., NotImplemented, int, Process, len, range(3), slice(2), lambda x: x),
    *(np.int64(1), np.uint8(2), np.float32(0.5), np.float64(np.nan), np.bool_(True), np.str_("1")),
    *((), (1,), (0, 1), (1.0, "1"), ((1, 2), (3,)), frozenset(), frozenset({1})),
    *(EverySteps(1), Losses(), Plain(), Silent(), Seeds(1), QUADRATIC, NETWORK, REGRESSION),
    *(Path(tempfile.gettempdir()), Path("file/that/is/none.nc"), iter((1, 2)), set(), {}, {"a": 1}),
    *({1: [object(), "\udc80"]}, [], ["1", None], [0, 0], [1, 2], [2**70], [-1], [np.nan, np.inf], [[]], [[1, 2], [3]]),
    *([[[1.0]]], [["1", "2"], ["3", "4"]], [[1.0, None], [0.0, 1.0]], [[10**400, 0], [0, 1]]),
    *(np.array(1.0), np.zeros(0), np.zeros(2), np.zeros(3), np.zeros((0, 2)), np.eye(2), np.eye(3), -np.eye(2)),
    *(np.full((2, 2), np.nan), np.full((2, 2), 1e308), np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[1j, 0], [0, 1]])),
    *(np.array(["a", "b"]), np.array([True, False]), np.array([object(), 1]), torch.tensor(2), torch.zeros(2, 2)),
    *(torch.full((2, 2), torch.inf), torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, dtype=torch.complex64)),
)
WORDS = (
    *("\0", "", " ", "\udc80", "é", "a" * 300, "[1]", "--", "--help-me", "-x"),
    *"-1 0 1 2 3 0.5 1.5 1e308 -1e308 1e400 5e-324 nan inf -inf 99999999999999999999 2147483648 1_0 0x10".split(),  # noqa: SIM905
    *"None True False relu tanh exclusive langevin sgd digits mnist10k cuda meta cpu:7 * 0.*".split(),  # noqa: SIM905
)

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.floats(),
    st.text(st.characters(exclude_characters="/"), max_size=8),
)
_nested = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


def _anew(value: Any) -> Any:
    """Return what nobody has changed or used up."""
    return deepcopy(value) if isinstance(value, list | dict | set | np.ndarray | torch.Tensor | Iterator) else value


_values = st.one_of(_nested, st.sampled_from(MALFORMED).map(_anew))
_words = st.one_of(
    st.integers(-3, 9).map(lambda value: (str(value),)),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(tuple),
    st.floats().map(lambda value: (str(value),)),
    st.text(st.characters(exclude_characters="/"), max_size=8).map(lambda value: (value,)),
)


@dataclass(frozen=True)
class Door:
    """Something that takes arguments."""

    name: str
    use: Callable[..., Any]
    """Builds it from keywords, and runs it where that is cheap."""
    valid: dict[str, tuple[Any, ...]]
    """By argument what it may be; the first ones together are valid."""
    said: dict[str, str] = field(default_factory=dict)
    """What messages call an argument, where not by its name."""
    from_words: bool = False
    """Whether arguments are words of a command line."""

    @property
    def share(self) -> float:
        """Of the examples: command lines take longer to read than to try."""
        return 0.25 if self.from_words else 1.0

    @property
    def malformed(self) -> st.SearchStrategy[Any]:
        return _words if self.from_words else _values

    def defaults(self) -> dict[str, Any]:
        return {name: values[0] for name, values in self.valid.items()}


# How a thing is tried out once it is built.


def _try_out(process: Process, **options: Any) -> None:
    simulate(process, **({"steps": 2, "replicas": 2, "progress": False} | options))


def _noise_on(landscape: Any, update: Any = None) -> Callable[[Any], None]:
    return lambda noise: _try_out(Process(landscape, noise, 0.1, update=update or Plain()))


def _in_the_pass(noise: Any) -> None:
    _try_out(Process(NETWORK, IndependentMinibatches(2) + noise, 0.1))


def _drift(drift: Any) -> None:
    _try_out(Process(QUADRATIC, Silent(), 0.1, drift=drift, update=EulerMaruyama()))


def _update(update: Any) -> None:
    _try_out(Process(QUADRATIC, ThermalNoise(0.1), 0.1, update=update))


def _schedule(schedule: Any) -> None:
    _try_out(sgd(NETWORK, 0.1, 2), schedule=schedule, observables=Losses())


def _observable(observable: Any) -> None:
    _try_out(sgd(NETWORK, 0.1, 2), observables=[observable])


def _landscape_under(noise: Any) -> Callable[[Any], None]:
    return lambda landscape: _try_out(Process(landscape, noise, 0.1))


def _door(
    make: Callable[..., Any], tried: Callable[[Any], Any], said: dict[str, str] | None = None, /, **valid: Any
) -> Door:
    """Return the door of what is built and then tried out."""
    return Door(make.__name__, lambda **arguments: tried(make(**arguments)), valid, said or {})


def _fit(landscape: Any, weights: Any, trajectory: Any, **arguments: Any) -> None:
    """Fit where there is a landscape, and run what comes."""
    n = getattr(landscape, "n_parameters", 2)
    weights = np.zeros(n) if weights is None else weights
    rows = np.random.default_rng(0).standard_normal((9, n)) if trajectory is None else trajectory
    _try_out(fit_surrogate(landscape, weights, trajectory=rows, **arguments).process(0.1))


def _watched(monitor: Monitor) -> None:
    """Make two steps under a monitor, and close it."""
    try:
        for _ in range(2):
            _stepped(monitor=monitor)
        monitor.verdict()
        monitor.state_dict()
    finally:
        monitor.close()


def _stepped(monitor: Any = None, losses: Any = None, index: Any = None, labels: Any = None) -> None:
    """Make one step; where nothing is said of a monitor, under one of its own."""
    watching = Monitor(torch.nn.Linear(2, 2), 9) if monitor is None else monitor
    losses = watching._network(torch.ones(9, 2)).square().mean(1) if losses is None else losses
    try:
        with watching.step(losses, torch.arange(9) if index is None else index, labels=labels):
            losses.mean().backward(retain_graph=True)
    finally:
        if monitor is None:
            watching.close()


def _study(module: Any) -> Callable[..., None]:
    return lambda **arguments: getattr(module, "STUDY", module).run(module.Config(**arguments))


def _command(module: Any) -> Callable[..., None]:
    """Return the command; its exit codes for bad input and divergence are refusals."""

    def use(**arguments: Any) -> None:
        words = [word for name, values in arguments.items() for word in (f"--{name.replace('_', '-')}", *values)]
        said = StringIO()
        try:
            with redirect_stdout(StringIO()), redirect_stderr(said):
                code = getattr(module, "STUDY", module).main(words)
        except SystemExit as error:
            if error.code == 2:  # of the parser
                raise LangevinError("expected, says the parser, other words") from None
            raise
        if code == 1:
            raise RuntimeError(said.getvalue().strip())
        if code in (2, 3):
            raise LangevinError(said.getvalue().strip())

    return use


_NUMBER = (0.1, 1e-3, np.float64(0.2), np.float32(0.25), 1)
_BATCH = (2, np.int64(3), 1)
_SCHEDULES = (None, EverySteps(1), EveryEpochs(0.5), Logarithmic(2), AtSteps((0, 2)))
_FACTORS = (0.5, [0.5, 0.5], np.ones(2))
_METRICS = ([0.5, 2], np.ones(2), torch.ones(2))
_RATES = {"learning_rate": _NUMBER, "batch_size": _BATCH}
_MOMENTA = {"momentum": (0.0, 0.5, np.float64(0.9)), "weight_decay": (0.0, 0.1, np.float32(0.01))}
_TIME_STEP = {"time_step": (0.0, 0.05)}
_MOMENTS = {
    "first_decay": (0.9, 0, np.float32(0.5)),
    "second_decay": (0.999, 0, np.float64(0.9)),
    "weight_decay": (0.0, 0.1, np.float32(0.01)),
}
_OPTIONS = {**_MOMENTA, "update": (None, Plain(0.1), Momentum(0.5)), "drift": (None,), "name": (None, "mine")}
_TRUTH = (False, True, np.bool_(True))
_REFRESHED = {"refresh_every": (None, 1, np.int64(2))}
_LOW_RANK = {"rank": (2, np.int64(3), np.int64(9)), "remainder": ("isotropic", "none")}
_CENTRE = (None, [1, 0], np.zeros(2))
_DETREND = ("linear", "mean")

_SIMULATE = {
    "process": (sgd(NETWORK, 0.1, 2), Process(QUADRATIC, AnisotropicNoise(np.eye(2)), 0.1)),
    "epochs": (None,),
    "steps": (2, 3, np.int32(2)),
    "replicas": (2, [0, 3], (1,), np.arange(2), {4, 5}),
    "seed": (0, -1, 2**64, np.int64(7), Seeds(3)),
    "weights": (None,),
    "schedule": _SCHEDULES,
    "observables": (None, Losses(), [Losses(), Weights()], (DrivingNoise(EverySteps(2)),)),
    "path": (None, "run.nc"),
    "resume": (None, "again.nc"),
    "overwrite": (False, True),
    "memory_limit": (None, "64 MiB", 2**26, 1e9, np.float64(1e16)),
    "segment_seconds": (30.0, 0, np.float32(1.0)),
    "on_divergence": ("raise", "mask"),
    "progress": (False, None, True),
    "config": (None, {}, {"author": "someone"}),
}
_LOSSES = np.random.default_rng(0).exponential(size=(3, 100)) + 0.1
_SAMPLE_LOSSES = {
    "sample_loss": (_LOSSES, np.stack([_LOSSES, _LOSSES]), torch.as_tensor(_LOSSES)),
    "epoch": (None, [0, 1, 5]),
}
_FIND_MISLABELED = {
    **_SAMPLE_LOSSES,
    "given_label": (None, np.arange(100) % 2, [0] * 100),
    "n_classes": (None, 2, np.int64(10)),
    "threshold": (0.5, 0, 1, np.float32(0.2)),
    "least_separation": (1.5, 0, np.float32(2.0)),
    "most_of_class": (0.95, 0, 1),
}
_WALK = xr.Dataset(
    {"weights": (("replica", "weight_step", "parameter"), np.random.default_rng(0).standard_normal((2, 11, 3)))},
    coords={"weight_step": np.arange(11), "learning_rate": ("replica", [0.1, 0.1])},
)
_TIME_AVERAGED = {
    "length": (None, 5, np.int64(10)),
    "n_samples": (8, np.int64(20)),
    "batch_size": (2, np.int64(1)),
    "parameters": (None, [0, 2], (1,), np.arange(3)),
}
_COMPARE = {
    "landscape": (NETWORK,),
    **_RATES,
    "epochs": (20, 9.5, np.float32(30.0)),
    "replicas": (2, np.int64(3)),
    "seed": (0, np.int64(1)),
    "processes": (("langevin",), "isotropic_langevin", ["gradient_descent"], ()),
    **_MOMENTA,
    "refresh_every": (None, 2),
    "alignment_minibatches": (4, np.int64(3)),
    "tolerance": (0.5, 1),
    "trace_epoch": (50.0, 0),
    "schedule": (None, EverySteps(1)),
    "out": (None, "out", Path("elsewhere")),
    "resume": (False,),
    "overwrite": (False, True),
    "progress": (False, None),
    "config": (None, {"a": 1}),
}
_FIT_SURROGATE = {
    "landscape": (REGRESSION, NETWORK),
    "weights": (None,),
    **{"batch_size": _BATCH, "n_directions": (1, np.int64(2))},
    "directions": ("noise", "hessian", "trajectory"),
    "noise": ("constant", "state_dependent"),
    "trajectory": (None,),
    "held_out": (0.3, 0, np.float32(0.5)),
    "spacing": (None, 0.1, np.float64(1e-3)),
    "replica": (0, np.int64(0)),
    "replacement": _TRUTH,
    "memory_limit": (None, "64 MiB"),
}
_SMALL = {
    compare_sgd_vs_langevin: {
        "dataset": "digits",
        "samples_per_class": 2,
        "hidden": (4,),
        "batch_size": 5,
        "epochs": 20.0,
        "records": 2,
        "replicas": 2,
        "alignment_minibatches": 4,
    },
    flat_minima: {"batch_sizes": (6,), "replicas": 4, "records": 10, "longest": 1.0},
}
_SAID_OF_STUDIES = {
    "dataset": "data set",
    "label_noise_kind": "label noise",
    "processes": "process",
    "hidden": "widths",
    "parameters": "parameter",
    "narrow": "widths",
    "wide": "widths",
    "epochs": "interval",
    "alignment_minibatches": "n_minibatches",
}


def _of_study(module: Any) -> Door:
    """Return the door of a study's configuration, every option of it."""
    made = module.Config(**_SMALL[module])
    valid = {each.name: (getattr(made, each.name),) for each in fields(made)} | {"out": (Path("study"),)}
    return Door(f"{module.__name__.removeprefix('studies.')}.Config", _study(module), valid, _SAID_OF_STUDIES)


def _of_command(module: Any) -> Door:
    options = _of_study(module).valid
    words = {
        name: (tuple(map(str, value)) if isinstance(value, tuple) else (str(value),),)
        for name, (value,) in options.items()
        if value is not None and not isinstance(value, bool)
    }
    absent = {name: (None,) for name in options if name not in words}
    return Door(
        f"{module.__name__.removeprefix('studies.')}.main", _present(_command(module)), words | absent, {}, True
    )


def _present(use: Callable[..., None]) -> Callable[..., None]:
    return lambda **arguments: use(**{name: value for name, value in arguments.items() if value is not None})


DOORS: tuple[Door, ...] = (
    Door("simulate", simulate, _SIMULATE, {"observables": "observable", "resume": "path", "replicas": "replica"}),
    Door(
        "simulate(epochs)",
        partial(simulate, process=sgd(NETWORK, 0.1, 2), replicas=1, progress=False),
        {"epochs": (1, 0.5, np.float32(2.0)), "steps": (None,)},
    ),
    Door(
        "simulate(weights)",
        partial(simulate, process=Process(QUADRATIC, Silent(), 0.1), steps=2, replicas=2, progress=False),
        {"weights": (np.ones((2, 2)), [[0, 1], [2, 3]], torch.ones(2, 2))},
    ),
    Door(
        "Simulation",
        lambda **arguments: Simulation(**arguments).run(progress=False),
        {
            name: values
            for name, values in _SIMULATE.items()
            if name not in ("path", "resume", "overwrite", "memory_limit", "segment_seconds", "progress")
        },
        {"observables": "observable", "replicas": "replica"},
    ),
    Door(
        "sweep",
        sweep,
        {
            "run": (one_number,),
            "grid": ({"a": [1]}, [{"a": 2}]),
            "folder": ("sweep", Path("sweep")),
            "workers": (1, None, np.int64(2)),
            "scheduler": (None,),
            "points_per_batch": (None, 1),
            "retry": _TRUTH,
            "overwrite": _TRUTH,
            "progress": (False, None),
        },
    ),
    Door("log_spaced", log_spaced, {"start": _NUMBER, "stop": _NUMBER, "count": (2, np.int64(5))}),
    _door(
        Process,
        _try_out,
        landscape=(QUADRATIC,),
        noise=(ThermalNoise(0.1), AnisotropicNoise(np.eye(2)), Silent()),
        learning_rate=_NUMBER,
        drift=(None, GradientDrift(QUADRATIC), LinearDrift(np.eye(2))),
        update=(Plain(), EulerMaruyama(), Momentum(0.5)),
        name=("", "mine"),
        **_TIME_STEP,
    ),
    *(
        _door(make, _try_out, landscape=(NETWORK, REGRESSION), **_RATES, **own, **_OPTIONS)
        for make, own in (
            (sgd, {"independent": _TRUTH, "replacement": _TRUTH, "time_step": (0.0,)}),
            (langevin, _TIME_STEP),
            (isotropic_langevin, _REFRESHED | _TIME_STEP),
            (frozen_langevin, _LOW_RANK | _REFRESHED | _TIME_STEP),
            (svag, {"amplification": (2, np.int64(3), 1), "time_step": (0.0,)}),
            (gradient_descent, _TIME_STEP),
        )
    ),
    *(
        _door(make, _noise_on(NETWORK), batch_size=_BATCH, **own)
        for make, own in (
            (ShuffledMinibatches, {}),
            (IndependentMinibatches, {"replacement": _TRUTH}),
            (MatchedGaussian, {"replacement": _TRUTH}),
            (IsotropicNoise, _REFRESHED),
            (LowRankNoise, _LOW_RANK | _REFRESHED),
            (MatchedDiagonal, _REFRESHED),
            (MatchedStable, {"index": (1.5, 2, 1)} | _REFRESHED),
            (Silent, {}),
        )
    ),
    _door(ScaledNoise, _noise_on(NETWORK), noise=(MatchedGaussian(2),), temperature=(*_NUMBER, 0)),
    _door(LabelSmoothingNoise, _in_the_pass, probability=(0.1, 0, 1, np.float32(0.5))),
    _door(AnisotropicNoise, _noise_on(QUADRATIC), factor=(np.eye(2), [[1, 0, 1], [0, 1, 1]])),
    _door(DiagonalNoise, _noise_on(QUADRATIC), factor=_FACTORS),
    _door(ThermalNoise, _noise_on(QUADRATIC), temperature=(*_NUMBER, 0)),
    _door(PreconditionedThermalNoise, _noise_on(QUADRATIC), temperature=(*_NUMBER, 0), metric=_METRICS),
    _door(
        ColouredNoise,
        _noise_on(QUADRATIC, EulerMaruyama()),
        factor=(*_FACTORS, np.eye(2)),
        correlation_time=_NUMBER,
    ),
    _door(StableNoise, _noise_on(QUADRATIC), factor=(*_FACTORS, np.eye(2)), index=(1.5, 2, 1)),
    _door(
        StateDependentNoise,
        _noise_on(QUADRATIC, EulerMaruyama()),
        amplitude=(proportional,),
        rank=(None,),
        calculus=("ito",),
    ),
    _door(LandscapeNoise, _noise_on(REGRESSION), batch_size=_BATCH, replacement=_TRUTH, calculus=("ito",)),
    _door(GradientDrift, _drift, landscape=(QUADRATIC, REGRESSION)),
    _door(LinearDrift, _drift, matrix=(np.eye(2), [[0, 1], [-1, 0]]), centre=_CENTRE),
    _door(Confinement, _drift, {"centre": "drift"}, stiffness=(*_NUMBER, 0), radius=(*_NUMBER, 0), centre=_CENTRE),
    _door(
        SumDrift,
        _drift,
        {"terms": "sum"},
        terms=((GradientDrift(QUADRATIC),), [LinearDrift(np.eye(2)), Confinement(1, 1)]),
    ),
    _door(Plain, _update, weight_decay=(*_NUMBER, 0)),
    _door(Momentum, _update, **_MOMENTA),
    _door(Nesterov, _update, **_MOMENTA),
    *(_door(make, _update, **_MOMENTS, offset=(1e-8, *_NUMBER)) for make in (Adam, AdamW)),
    _door(Lion, _update, **_MOMENTS),
    _door(RMSprop, _update, decay=(0.99, 0, 0.5), offset=(1e-8, *_NUMBER), centred=_TRUTH, **_MOMENTA),
    Door(
        "Clipped, norm",
        lambda **arguments: _update(Clipped(**arguments)),
        {"update": (Plain(), Adam()), "norm": (1, *_NUMBER)},
    ),
    Door(
        "Clipped, value",
        lambda **arguments: _update(Clipped(**arguments)),
        {"update": (Plain(), Adam()), "value": (1, *_NUMBER)},
    ),
    _door(Averaged, _update, update=(Plain(), Adam()), decay=(0.999, 0, np.float32(0.5))),
    _door(Preconditioned, _update, update=(Plain(), Adam()), metric=_METRICS, weight_decay=(*_NUMBER, 0)),
    _door(UnderdampedLangevin, _update, mass=(1.0, 1, np.float32(0.5)), friction=(1.0, *_NUMBER)),
    _door(BAOAB, _update, friction=_NUMBER),
    _door(EverySteps, _schedule, interval=(1, 2, np.int64(3))),
    _door(EveryEpochs, _schedule, interval=(1, 0.5, np.float32(0.1))),
    _door(Logarithmic, _schedule, per_decade=(2, np.int64(3))),
    _door(AtSteps, _schedule, at=((0, 2), [1], np.arange(2), ())),
    _door(AtEpochs, _schedule, at=((0, 0.5), [1], np.arange(2), ())),
    *(_door(make, _observable, schedule=_SCHEDULES) for make in (DrivingNoise, SampleLosses, Weights)),
    _door(Losses, _observable, schedule=_SCHEDULES, batch_statistics=("given", "recomputed")),
    _door(
        OrderParameters,
        _observable,
        n_minibatches=(4, np.int64(8)),
        schedule=_SCHEDULES,
        metric=("euclidean",),
        memory_limit=(None, "1 GiB", 2**24),
    ),
    _door(
        NoiseSpectrum,
        _observable,
        n_modes=(3, np.int64(2), 200),
        fraction=(0.9, 1, np.float32(0.5)),
        n_hessian_modes=(0, 2, np.int64(1)),
        schedule=_SCHEDULES,
        memory_limit=(None, "1 GiB", 2**24),
    ),
    _door(
        QuadraticLandscape,
        _landscape_under(ThermalNoise(0.1)),
        hessian=(np.eye(2), [[2, 1], [1, 2]]),
        noise_covariance=(np.eye(2), np.zeros((2, 2)), [[1, 1], [1, 1]]),
        minimum=_CENTRE,
        start=_CENTRE,
    ),
    _door(
        LinearRegressionLandscape,
        _landscape_under(ShuffledMinibatches(1)),
        inputs=([[1, 0], [0, 1]], np.ones((2, 2))),
        targets=([0, 1], np.ones(2)),
        start=(None, [1, 0]),
    ),
    _door(Seeds, lambda made: simulate(sgd(NETWORK, 0.1, 2), steps=1, seed=made), seed=(0, -3)),
    Door(
        "Fluctuations",
        Fluctuations,
        {"directions": (np.eye(2), np.ones((1, 1, 1))), "detrend": _DETREND, "discard": (0, np.int64(3))},
    ),
    Door(
        "PrincipalComponents",
        PrincipalComponents,
        {"n_components": (3, np.int64(2)), "detrend": _DETREND, "shared": _TRUTH, "discard": (0, 2)},
    ),
    Door(
        "ProbabilityCurrents",
        ProbabilityCurrents,
        {"variable": ("projection", "weights"), "plane": ((0, 1), [2, 1]), "level": (0.95, np.float32(0.5))},
    ),
    Door("find_mislabeled", find_mislabeled, _FIND_MISLABELED),
    Door("literal_rule", literal_rule, _SAMPLE_LOSSES),
    Door(
        "Monitor",
        lambda **arguments: _watched(Monitor(torch.nn.Linear(2, 2), **arguments)),
        {
            "n_samples": (9, np.int64(9)),
            "optimizer": (None,),
            "every": (1, 0),
            "measured_samples": (8, 64),
            "augmented": _TRUTH,
            "accumulation": (1, 2),
            "mislabeled": (None, np.arange(9) > 4, torch.arange(9) > 4),
            "seed": (0, -3),
            "resume": (False,),
            "overwrite": _TRUTH,
            "segment_seconds": (30.0, 0),
        },
    ),
    Door(
        "Monitor.step",
        _stepped,
        {
            "losses": (None,),
            "index": (None, torch.arange(9)),
            "labels": (None, torch.zeros(9, dtype=torch.int64)),
        },
    ),
    Door(
        "gradient_ensemble(subsample)",
        lambda **arguments: gradient_ensemble(NETWORK, NETWORK.own_weights, 2, **arguments).order_parameters(),
        {"subsample": (6, None), "seed": (0, -3), "memory_limit": (None, "64 MiB")},
    ),
    Door("fit_surrogate", _fit, _FIT_SURROGATE),
    _door(TimeAveragedOrderParameters, lambda made: made(_WALK), **_TIME_AVERAGED),
    Door("compare", compare, _COMPARE, {"alignment_minibatches": "minibatches", "processes": "process"}),
    *(_of_study(module) for module in _SMALL),
    *(_of_command(module) for module in _SMALL),
)


# One example.


class Outcomes:
    """What came of the examples, by door and argument."""

    def __init__(self) -> None:
        self.hits: Counter[tuple[str, str]] = Counter()
        self.accepted: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.examples: Counter[str] = Counter()
        self.defects: dict[str, str] = {}

    def add(self, door: Door, main: str, hits: dict[str, Any], refusal: str | None) -> None:
        """Count an example; of several malformed arguments nobody knows which one was refused."""
        self.examples["valid" if refusal is None else "refused"] += 1
        self.hits.update((door.name, name) for name in hits)
        if len(hits) == 1:
            (self.accepted if refusal is None else self.refused)[door.name, main] += 1

    def add_defect(self, door: Door, hits: dict[str, Any], kind: str, where: str) -> None:
        self.examples["defect"] += 1
        self.defects.setdefault(f"{door.name}: {kind} {where}", f"hit {_words_of(hits)}")

    def table(self) -> str:
        width = max(len(f"{door}.{name}") for door, name in self.hits)
        rows = [f"{'argument':<{width}}  {'hit':>6}  {'valid alone':>11}  {'refused alone':>13}"]
        for key, hits in self.hits.items():
            rows.append(f"{'.'.join(key):<{width}}  {hits:>6}  {self.accepted[key]:>11}  {self.refused[key]:>13}")
        total = sum(self.examples.values())
        counted = ", ".join(f"{number} {kind}" for kind, number in self.examples.items())
        rows.append(f"{total} configurations, {len(self.hits)} arguments hit: {counted}")
        return "\n".join(rows)


def _words_of(hits: dict[str, Any]) -> str:
    words = []
    for name, value in hits.items():
        try:
            words.append(f"{name}={value!r}"[:200])
        except ValueError:
            words.append(f"{name}=<{type(value).__name__}>")
    return ascii(", ".join(words))


@contextmanager
def hurried() -> Iterator[None]:
    """Let no process go on beyond a few steps."""
    loop = sys.modules["langevin_nn.run.loop"]
    advance = loop.advance

    def few(process: Process, state: Any, steps: int, on_divergence: Any = "raise") -> Any:
        if state.step >= _STEPS:
            raise Enough
        return advance(process, state, min(steps, _STEPS), on_divergence)

    with patch.object(loop, "advance", few):
        yield


def _alarm(*_: Any) -> None:
    raise TooSlow


@contextmanager
def _time_limit() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(door: Door, main: str, arguments: dict[str, Any], hits: dict[str, Any], outcomes: Outcomes) -> None:
    """Use a door once, and say what came of it."""
    refusal: str | None = None
    with tempfile.TemporaryDirectory() as folder, _within(Path(folder)):
        try:
            with _time_limit(), warnings.catch_warnings(), redirect_stderr(StringIO()):
                warnings.simplefilter("error")
                warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\..*")
                door.use(**arguments)
        except Enough:
            pass
        except LangevinError as error:
            refusal = str(error)
        except (Exception, TooSlow, SystemExit) as error:
            at = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in at if "langevin_nn" in frame.filename or "studies" in frame.filename]
            place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "nowhere"
            outcomes.add_defect(door, hits, f"{type(error).__name__} at {place}", ascii(str(error))[:120])
            return
    if refusal is not None and (complaint := _complaint(door, main, arguments, hits, refusal)):
        outcomes.add_defect(door, hits, complaint, ascii(refusal)[:400])
        return
    outcomes.add(door, main, hits, refusal)


def _complaint(door: Door, main: str, arguments: dict[str, Any], hits: dict[str, Any], refusal: str) -> str:
    """Return what a message lacks."""
    if not refusal or "\n" in refusal or len(refusal) > _LONGEST:
        return "no single line of moderate length"
    if "expected" not in refusal and "is free" not in refusal:  # a forecast says what is needed and what there is
        return "nothing is expected"
    # Among other arguments another one may be to blame, a value that can be run may still diverge, and of words the parser
    # speaks.
    alone = len(hits) == 1 and all(arguments[name] is values[0] for name, values in door.valid.items() if name != main)
    named = any(said in refusal for said in (main, door.said.get(main, main), "became non-finite"))
    return "" if named or not alone or door.from_words else f"{main} is not named"


@contextmanager
def _within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    (folder / "deep" / "within").mkdir(parents=True)
    os.chdir(folder / "deep" / "within")
    try:
        yield
    finally:
        os.chdir(before)


def run_examples(examples: int, progress: bool = False) -> Outcomes:
    """Try at least so many configurations, as many for each argument; name each door where progress is asked for."""
    outcomes, started = Outcomes(), perf_counter()
    each = examples / sum(door.share * len(door.valid) for door in DOORS)
    with hurried():
        for door in DOORS:
            if progress:
                print(f"{perf_counter() - started:6.0f} s  {door.name}", file=sys.stderr, flush=True)
            for main in door.valid:
                never = ("\0",) if door.from_words else object()
                attempt(door, main, door.defaults() | {main: never}, {main: never}, outcomes)
                _vary(door, main, max(1, ceil(each * door.share) - 1), outcomes)
    return outcomes


def _vary(door: Door, main: str, examples: int, outcomes: Outcomes) -> None:
    """Hit an argument, now and then others too, among valid ones."""
    others = [name for name in door.valid if name != main]

    @seed(crc32(f"{door.name}.{main}".encode()))  # else all arguments would meet the same values
    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def vary(data: st.DataObject) -> None:
        hits = {main: data.draw(door.malformed)}
        if others and data.draw(st.integers(0, 3)) == 3:
            also = data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=2, unique=True))
            hits |= {name: data.draw(door.malformed) for name in also}
        arguments = door.defaults()
        if data.draw(st.booleans()):
            arguments = {name: data.draw(st.sampled_from(values)) for name, values in door.valid.items()}
        attempt(door, main, arguments | hits, hits, outcomes)

    vary()


def main() -> int:
    """Print counts by argument, and defects."""
    parser = argparse.ArgumentParser(prog="python -m tests.configurations", description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="how many configurations")
    parser.add_argument(
        "--memory", type=int, default=16, help="GiB of address space beyond which a request is a defect"
    )
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (chosen.memory * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    outcomes = run_examples(chosen.examples, progress=True)
    print(outcomes.table())
    for defect, example in outcomes.defects.items():
        print(f"DEFECT {defect}\n       {example}")
    never = [".".join(key) for key in outcomes.hits if not outcomes.refused[key]]
    if never:
        print(f"never refused: {', '.join(never)}")
    return 1 if outcomes.defects or never else 0


if __name__ == "__main__":
    raise SystemExit(main())
