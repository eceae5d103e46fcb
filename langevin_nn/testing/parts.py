"""The laws that the parts of a process keep: a noise source, an update rule, and whole processes of any parts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import ceil, inf, log2
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn import rerun, simulate
from langevin_nn.checks import instance
from langevin_nn.draws import draws_at
from langevin_nn.engine import advance, advance_together, shares
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import EmpiricalLandscape, Landscape, QuadraticLandscape
from langevin_nn.noise import (
    AdditiveNoise,
    AnisotropicNoise,
    ForwardNoise,
    Noise,
    SampleWeightNoise,
    Silent,
    noise_shares,
)
from langevin_nn.observables import DrivingNoise, Observable, Weights
from langevin_nn.process import Process
from langevin_nn.provenance import plain
from langevin_nn.schedules import EverySteps
from langevin_nn.seeds import Key, Seeds
from langevin_nn.store import folder_of, validate
from langevin_nn.store.state import state_bytes, state_from
from langevin_nn.testing.observables import Kill, raise_broken
from langevin_nn.threads import single_threaded_products
from langevin_nn.update import Heun, Plain, State, Update

__all__ = ["check_noise", "check_process", "check_update"]

Floats: TypeAlias = NDArray[np.float64]
Flow: TypeAlias = Callable[[Floats, Floats, float], Floats]

_REPLICAS = (0, 1, 2)
_BLOCKS = 64  # replicas, of which each is one independent number
_SIGMAS = 4.5  # of about 30 numbers one is further off once in 5,000 checks
_ROUNDING = 1e-5  # of single precision, relative to the step that is made


def check_process(process: Process, *, steps: int = 9, seed: int = 0) -> None:
    """Hold a process, whatever its parts, to what runs, files and batches take for granted.

    A replica has the same bits alone, among others, in one batch with another run, in one block of updates or in several, and
    where the replica beside it diverged; a state is never changed; the file is valid; a run that was killed goes on to the
    same bits, and `rerun` makes them again from the file, unless it holds functions or arrays too large for it. Whatever
    drifts, landscapes, noise sources and update rules remember is thereby held to lie in the state.

    Parameters
    ----------
    process : Process
        What to run.
    steps, seed : int, optional
        Length of the runs, at least 5, and owner of their randomness.

    Raises
    ------
    AssertionError
        With one sentence for each law that it breaks.

    Examples
    --------
    >>> from langevin_nn.drift import LinearDrift
    >>> valley = QuadraticLandscape(np.eye(2), np.eye(2))
    >>> turning = LinearDrift([[1.0, 1.0], [-1.0, 1.0]])
    >>> check_process(Process(valley, AnisotropicNoise(valley.noise_factor()), 0.1, drift=turning))
    """
    instance("process", process, Process, "a Process, which is to be run")
    raise_broken(f"the process of {type(process.noise).__name__}", _runs(process, steps, seed))


def check_noise(
    noise: Noise,
    landscape: Landscape,
    *,
    learning_rate: float = 0.1,
    time_step: float = 0.0,
    weights: Any = None,
    mean: Any = None,
    covariance: Any = None,
    draws: int = 10_000,
    seed: int = 0,
) -> None:
    """Hold a noise source to what it says of itself, and to what processes take for granted.

    At fixed weights, its kicks have mean zero and the variance α Δt `strength` that is recorded, at this time step and at a
    quarter of the learning rate where it runs there; those of replicas, and of successive updates where increments have a
    law in the limit, are uncorrelated; they are Gaussian where `weak_order` is infinite, and depend on the weights as
    `dependence` says. Coloured noise is measured over a time step that is long against its memory, and of what has no
    variance the mean alone. Tolerances are 4.5 standard errors. Processes of it keep the laws of `check_process`. Noise of
    the forward pass has a mean of its own, which is given or estimated; no strength is held against it.

    Parameters
    ----------
    noise : Noise
        The source.
    landscape : Landscape
        Whose noise.
    learning_rate, time_step : float, optional
        α and Δt; 0 stands for α.
    weights : array, shape (parameter,), optional
        Where; at the start of replica 0 unless said.
    mean : array, shape (parameter,), optional
        What the mean of stochastic gradients should be there; the drift unless said.
    covariance : array, shape (parameter, parameter), optional
        What the covariance of η should be there; variances along directions are held to it.
    draws, seed : int, optional
        Kicks that are drawn, and owner of the randomness: 10,000 tell noise that is 5 % too strong in two dimensions or more.

    Raises
    ------
    AssertionError
        With one sentence for each law that it breaks.
    ConfigurationError
        If it cannot run on the landscape at these rates.

    Examples
    --------
    >>> valley = QuadraticLandscape(np.eye(2), np.eye(2))
    >>> check_noise(AnisotropicNoise(2 * np.eye(2)), valley, covariance=4 * np.eye(2))
    """
    instance("noise", noise, Noise, "an instance of a noise source")
    names = {"family": ("sample_weights", "additive", "forward", "sum"), "law": ("brownian", "coloured", "stable")}
    names["calculus"] = ("ito", "stratonovich")
    wrong = [
        f"{key} is {getattr(noise, key)!r}: expected {' or '.join(known)}"
        for key, known in names.items()
        if getattr(noise, key) not in known
    ]
    raise_broken(type(noise).__name__, wrong)
    depends = noise.dependence(landscape) != "constant"
    update = Heun() if depends and noise.calculus == "stratonovich" else Plain()
    process = Process(landscape, noise, learning_rate, update=update, time_step=time_step)
    start = landscape.initial_weights((0,), Seeds(seed))[0]
    point = start if weights is None else torch.as_tensor(weights).to(start)

    def found() -> Iterator[str]:
        with single_threaded_products(), torch.no_grad():
            long = noise.law == "coloured"
            first = replace(process, time_step=1e4 * learning_rate) if long else process
            yield from _moments(first, point, mean, covariance, draws, seed)
            try:
                finer = replace(process, time_step=learning_rate / 4)
            except ConfigurationError:  # made for one time step
                finer = first
            if not long and finer.time_step < first.time_step:
                yield from _moments(finer, point, mean, covariance, ceil(draws / 4), seed + 1)
            yield from _dependence(process, point, seed)
            yield from _ahead(process, point, seed)
        yield from _runs(process, 9, seed)

    raise_broken(type(noise).__name__, found())


def check_update(update: Update, *, flow: Flow | None = None, learning_rate: float = 0.1, seed: int = 0) -> None:
    """Hold an update rule to the orders that it declares, and to what processes take for granted.

    Without noise, in the valley ½ (x² + 3 y²) from (1, −1), weights go where the equation leads, with errors that fall as the
    declared weak order says when steps are halved; rules of order 0, which have no equation, are not held to one. Processes
    of it, with constant noise, keep the laws of `check_process`.

    Parameters
    ----------
    update : Update
        The rule.
    flow : callable, optional
        Where its equation leads without noise, ``flow(hessian, start, time)`` with the diagonal of H; gradient flow at the
        speed 1/(1 − μ) unless said.
    learning_rate, seed : float and int, optional
        α of its processes, and owner of their randomness.

    Raises
    ------
    AssertionError
        With one sentence for each law that it breaks.
    ConfigurationError
        If it cannot run in the valley at this learning rate.

    Examples
    --------
    >>> from langevin_nn.update import Heun, Momentum
    >>> check_update(Heun())
    >>> check_update(Momentum(0.5))
    """
    instance("update", update, Update, "an instance of an update rule")
    if not isinstance(getattr(update, "orders", None), Mapping):
        raise ConfigurationError(
            f"{type(update).__name__} declares no orders: expected a mapping from the kind of noise to Orders(strong, weak), "
            'such as {"constant": Orders(1.0, 1.0)}, which say how errors fall with the step; without an equation, 0'
        )
    hessian, start = np.array([1.0, 3.0]), np.array([1.0, -1.0])
    valley = QuadraticLandscape(np.diag(hessian), [[1.0, 0.3], [0.3, 0.5]], start=start)

    def found() -> Iterator[str]:
        if update.orders["constant"].weak > 0:
            own = np.exp(-hessian / (1 - update.momentum)) * start
            there = own if flow is None else flow(hessian, start, 1.0)
            errors = [_distance(update, valley, count, there) for count in (128, 256)]
            order, declared = log2(max(errors[0], 1e-300) / max(errors[1], 1e-300)), update.orders["constant"].weak
            if errors[1] > 1e-12 and order < declared - 0.1:
                yield (
                    f"without noise it ends {errors[0]:.3g} from where its equation leads at a time step of 1/128 and "
                    f"{errors[1]:.3g} at half of it, which is order {order:.2f}: expected the declared {declared:g}; a time "
                    "step makes Δt of time, and the flow of rules that do not follow the gradient alone is given as flow="
                )
        process = Process(valley, AnisotropicNoise(valley.noise_factor().numpy()), learning_rate, update=update)
        yield from _runs(process, 9, seed)

    raise_broken(type(update).__name__, found())


# --- Runs ---------------------------------------------------------------------------------------------------------------


def _runs(process: Process, steps: int, seed: int) -> Iterator[str]:
    start = process.start(_REPLICAS, seed)
    try:
        before = state_bytes(start, recorded=True)
    except ConfigurationError as error:
        yield str(error)
        return
    whole = advance(process, start, steps)
    if state_bytes(start, recorded=True) != before:
        yield "an update changes the state that it starts from: expected new tensors; do not write into what is given"
        return
    for company in ((1,), (5, 2, 1, 7), (0, 1, 2)):
        state = advance(process, process.start(company, seed), steps)
        if not torch.equal(state.weights[company.index(1)], whole.weights[1]):
            how = "on its second run" if company == _REPLICAS else f"among {len(company)}"
            yield (
                f"a replica has other bits {how}: expected a function of its own state and address alone; draw from the "
                "key, the draws or their generators, and mix no replicas"
            )
    if shares(process) is not None:
        both = [(process, process.start(_REPLICAS, each)) for each in (seed + 1, seed)]
        other = advance_together(both, steps)[1]
        if not (isinstance(other, State) and torch.equal(other.weights, whole.weights)):
            yield "a run has other bits in one batch with another one: expected the same"
    state = start
    for count in (1, 3, steps - 4):
        state, _ = state_from(state_bytes(advance(process, state, count), recorded=True), start.weights.device)
    if not torch.equal(state.weights, whole.weights):
        yield (
            "updates in several blocks, with the state saved in between, give other bits than in one: expected all that is "
            "remembered in the memory that is passed on; keep nothing in the object or its class"
        )
    with tempfile.TemporaryDirectory() as folder:
        yield from _files(process, steps, seed, Path(folder))
    yield from _beside_one_that_diverges(process, start, steps, whole)


def _files(process: Process, steps: int, seed: int, folder: Path) -> Iterator[str]:
    path, killed = folder / "run.nc", folder / "killed.nc"
    often = EverySteps(max(1, steps // 3))

    kill = Kill(often, steps // 2, folder_of(path), folder_of(killed))

    def run(*others: Observable, **options: Any) -> bytes:
        options |= {"seed": seed, "segment_seconds": 0, "progress": False, "replicas": _REPLICAS}
        with simulate(
            process, steps=steps, observables=[Weights(often), DrivingNoise(often), *others], **options
        ) as tree:
            return np.asarray(tree["weights"].to_dataset()["weights"].values).tobytes()

    try:
        whole = run(kill, path=path)
        yield from validate(path)
        if run(kill, resume=killed) != whole:
            yield "a run that was killed goes on to other bits: expected all that is remembered in its state"
        described = plain(process)
        parts = json.dumps(described).replace(json.dumps(described["landscape"]), "")
        # A file does not hold functions and large arrays, and says so.
        if "sha256" not in parts:
            run(path=folder / "again.nc")
            if found := rerun(folder / "again.nc", landscape=process.landscape).differences:
                yield f"rerun of the file gives other bits of {', '.join(found)}: expected parts made of their fields alone"
    except ConfigurationError as error:
        yield f"its run cannot be recorded, resumed and made again: {error}"


def _beside_one_that_diverges(process: Process, start: State, steps: int, whole: State) -> Iterator[str]:
    """Let the first replica start out of reach, or be one that diverged before."""
    far, gone, diverged = start.weights.clone(), start.weights.clone(), start.diverged.clone()
    far[0], gone[0], diverged[0] = torch.finfo(far.dtype).max / 2, torch.nan, True
    try:
        wild = process.start(_REPLICAS, start.seeds, far)
        lost = start.replaced(0, gone, start.update_memory, start.noise_memory, diverged)
        for state in (wild, lost):
            after = advance(process, state, steps, on_divergence="mask")
            if not torch.equal(after.weights[1:], whole.weights[1:]):
                yield "where one replica diverges the others have other bits: expected theirs alone to count"
                return
    except Exception as error:
        yield f"it raises where a replica diverges ({error!r}): expected numbers that are none, for that one alone"


# --- Moments of one update ----------------------------------------------------------------------------------------------


def _moments(process: Process, point: Tensor, mean: Any, covariance: Any, draws: int, seed: int) -> Iterator[str]:
    """Hold kicks −Δt (stochastic gradient − drift) at fixed weights to what is declared of them."""
    noise, rate, step = process.noise, process.learning_rate, process.time_step
    state = process.start(_BLOCKS, seed, point.expand(_BLOCKS, -1))
    estimated = mean is None and any(isinstance(each, ForwardNoise) for each in noise.parts)
    if estimated:
        assert isinstance(process.landscape, EmpiricalLandscape)
        mean = noise_shares(process.landscape, noise, point, draws=max(256, draws // 4), seed=seed + 2).drift
    drift = process.drift(state.weights) if mean is None else torch.as_tensor(mean).to(point).expand(_BLOCKS, -1)
    generator = np.random.default_rng(0)
    directions = [drift[0].double().cpu().numpy(), *generator.standard_normal((3, len(point)))]
    if covariance is not None:
        covariance = np.asarray(covariance, dtype=np.float64)
        directions.append(np.linalg.eigh(covariance)[1][:, -1])
    kicks, memory, before = [], state.noise_memory, None
    squares: list[Floats] = []
    paired: list[Floats] = []
    lagged: list[Floats] = []
    for number in range(max(2, ceil(draws / _BLOCKS))):
        gradient, memory = process.stochastic_gradient(state.weights, memory, state.key(number))
        kick = (step * (gradient - drift).double()).cpu().numpy()
        if number == 0:  # the loudest parameter, whose law is not hidden in a sum over many
            directions.append(np.eye(1, len(point), int(np.abs(kick[0]).argmax()))[0])
            plane = np.stack([each / (np.linalg.norm(each) or 1) for each in directions], axis=1)
        kicks.append(kick @ plane)
        squares.append((kick**2).sum(1))
        paired.append((kick[::2] * kick[1::2]).sum(1))
        lagged += [] if before is None else [(kick * before).sum(1)]
        before = kick
    trace = None
    if isinstance(process.landscape, EmpiricalLandscape):
        trace = process.landscape.sample_gradients(point, everywhere=True).trace()[None]
    strength = float(process.driving_noise_strength(memory, state.weights, trace).double().mean())
    unit = rate * step * noise.strength_ratio(rate)  # of the variance of a kick
    rounding = _ROUNDING * (step * float(drift[0].double().norm()) + float(np.sqrt(np.mean(squares[0]))))
    along = np.stack(kicks, axis=1)  # replica, update, direction
    where = f"at α = {rate:g}, Δt = {step:g}, kicks"

    def off(values: Floats, expected: float, slack: float, what: str) -> Iterator[str]:
        blocks = values.reshape(len(values), -1).mean(1)
        mean, error = float(blocks.mean()), float(blocks.std(ddof=1) / len(blocks) ** 0.5)
        if not abs(mean - expected) <= _SIGMAS * error + slack:
            yield f"{where} have {what} of {mean:.4g} ± {error:.2g}: expected {expected:.4g}"

    for column in () if estimated else along.transpose(2, 0, 1):
        yield from off(column, 0.0, rounding, "a mean along a direction")
    if np.isfinite(strength):
        yield from off(np.stack(squares, 1), rate * step * strength, rounding**2, "the variance (α Δt strength)")
    if covariance is not None:
        for column, direction in zip(along.transpose(2, 0, 1), plane.T, strict=True):
            expected = unit * float(direction @ covariance @ direction)
            yield from off(column**2, expected, rounding**2, "a variance along a direction")
    yield from off(np.stack(paired, 1), 0.0, rounding**2, "a covariance between replicas")
    if noise.weak_order > 0:
        yield from off(np.stack(lagged, 1), 0.0, rounding**2, "a covariance between successive updates")
    if noise.weak_order == inf and noise.law == "brownian":
        for column in along.transpose(2, 0, 1):
            if (scale := float(np.sqrt((column**2).mean()))) > rounding:
                # By the error that it has under normal numbers: heavy tails would hide behind their own.
                found, error = float(((column / scale) ** 4).mean()), (96 / column.size) ** 0.5
                if not abs(found - 3) <= _SIGMAS * error:
                    what = f"(with a weak order that is infinite) a kurtosis of {found:.3g}"
                    yield f"{where} have {what}: expected 3 ± {error:.2g}"


def _dependence(process: Process, point: Tensor, seed: int) -> Iterator[str]:
    noise = process.noise.over(process.time_step)
    kind = noise.dependence(process.landscape)
    if kind == "full" or not isinstance(noise, AdditiveNoise):
        return
    state = process.start(_REPLICAS, seed, point.expand(3, -1))
    places = (state.weights, 1.3 * state.weights + 0.1)
    here, there = (noise.increment(process.landscape, each, state.noise_memory, state.key(0))[0] for each in places)
    if kind == "diagonal":  # each component is a number of its own times a function of the weights: its ratio is one
        here, there = here * there[:1], there * here[:1]
    if not torch.allclose(here, there, rtol=_ROUNDING, atol=0):
        yield f"it depends on the weights otherwise than {kind!r}, as it says: expected the same numbers at other weights"


def _ahead(process: Process, point: Tensor, seed: int) -> Iterator[str]:
    noise, landscape = process.noise, process.landscape
    if not (isinstance(noise, SampleWeightNoise) and isinstance(landscape, EmpiricalLandscape)):
        return
    state, n = process.start(_REPLICAS, seed, point.expand(3, -1)), landscape.n_samples
    at_once, _ = noise.sample_weights(n, state.noise_memory, draws_at(state.key(0), state.weights), 5)
    memory = state.noise_memory
    for step in range(5):
        key = Key(state.seeds, state.replicas, step)
        one, memory = noise.sample_weights(n, memory, draws_at(key, state.weights), 1)
        if not torch.equal(one.at(0).spread(n), at_once.at(step).spread(n)):
            yield "sample weights of several updates at once are others than one by one: expected the same numbers"
            return


def _distance(update: Update, valley: QuadraticLandscape, count: int, there: Floats) -> float:
    """Return how far from where the equation leads it is after a unit of time in so many steps."""
    process = Process(valley, Silent(), 1 / count, update=update)
    return float(np.abs(advance(process, process.start(1, 0), count).weights[0].numpy() - there).max())
