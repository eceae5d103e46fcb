"""Compiled schemes: formulas typed again in NumPy, both orders from both sides, bits, divergence, refusals, and mutants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement, product
from math import atan, cos, exp, pi, sin, sqrt, tan
from types import ModuleType

import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from scipy.linalg import expm, solve_discrete_lyapunov
from twins import Straight, over_a_step

from langevin_nn import Process, Seeds, advance, engine
from langevin_nn.drift import Confinement, Drift, GradientDrift, LinearDrift
from langevin_nn.errors import ConfigurationError, UnknownNameError, UnstableTrajectory
from langevin_nn.formulas import LANES, POINT, FieldFormula
from langevin_nn.kernels.normals import draw_normals
from langevin_nn.landscape import PotentialLandscape, QuadraticLandscape
from langevin_nn.noise import (
    AnisotropicNoise,
    ColouredNoise,
    DiagonalNoise,
    LandscapeNoise,
    Silent,
    StableNoise,
    StateDependentNoise,
    ThermalNoise,
)
from langevin_nn.noise.factored import PURPOSE
from langevin_nn.noise.stable import stable_numbers
from langevin_nn.seeds import Key
from langevin_nn.update import (
    BAOAB,
    EulerMaruyama,
    Heun,
    Integrator,
    LeimkuhlerMatthews,
    Milstein,
    Plain,
    StrongAdditive,
    Update,
    WeakSecondOrder,
)

FRICTION = 1.5
SCHEMES: dict[str, Update] = {
    "EulerMaruyama": EulerMaruyama(),
    "Heun": Heun(),
    "Milstein": Milstein(),
    "WeakSecondOrder": WeakSecondOrder(),
    "StrongAdditive": StrongAdditive(),
    "LeimkuhlerMatthews": LeimkuhlerMatthews(),
    "BAOAB": BAOAB(FRICTION),
}
DECLARED = [(name, kind) for name, scheme in SCHEMES.items() for kind in scheme.orders]

# α ≠ 1, so that a wrong power of the learning rate shows; noise of the gradient carries its root.
ALPHA = 0.49
ROOT_ALPHA = 0.7
TOLERANCE = 0.05  # of every order
ROUNDING = 1e-12


def flat(dimensions: int) -> QuadraticLandscape:
    """No loss: all drift comes from elsewhere."""
    return QuadraticLandscape(np.zeros((dimensions, dimensions)), np.zeros((dimensions, dimensions)))


def follow(process: Process, weights: np.ndarray, normals: np.ndarray, memory: np.ndarray | None = None):
    """Advance replicas from given weights, and given memory of the scheme, along given normals (replica, step, number)."""
    state = process.start(len(weights), 0, weights)
    if memory is not None:
        memory = torch.as_tensor(memory, dtype=state.weights.dtype)
        state = state.replaced(0, state.weights, memory, state.noise_memory, state.diverged)
    return engine.follow(process, state, normals)


# --- One step against right-hand sides typed independently ------------------------------------------------------------

P = 3
TURN = np.array([[0.3, 0.5, 0.0], [-0.4, 0.2, 0.1], [0.0, -0.3, 0.6]])
CENTRE = np.array([0.2, -0.1, 0.4])
STIFFNESS, RADIUS = 1.7, 0.8
DENSE = np.array([[0.8, 0.3], [-0.2, 0.6], [0.5, -0.7]])
STRETCHES = np.array([0.4, 1.1, 0.7])
TEMPERATURE = 0.35
STEP = 0.11


def ripples(x):
    return np.sin(x[0]) * np.cos(x[1]) + np.cos(2 * x[2]) / 2


def ripples_gradient(x, out):
    out[0] = np.cos(x[0]) * np.cos(x[1])
    out[1] = -np.sin(x[0]) * np.sin(x[1])
    out[2] = -np.sin(2 * x[2])


def own_amplitude(x, out):
    for i in range(x.shape[0]):
        out[i] = 0.5 + 0.3 * np.sin(x[i] + i)


def full_amplitude(x, out):
    out[0, 0] = 0.5 + 0.2 * np.sin(x[1])
    out[0, 1] = 0.3 * x[0]
    out[1, 0] = 0.4 * np.cos(x[0])
    out[1, 1] = 0.7
    out[2, 0] = x[1] * 0.2
    out[2, 1] = 0.6 - 0.1 * x[2]


def slope_at(x: np.ndarray) -> np.ndarray:
    """A (x − c) + wall + ∇ripples, row by row."""
    r = np.sqrt((x**2).sum(1, keepdims=True))
    wall = STIFFNESS * np.where(r > RADIUS, (r - RADIUS) / r, 0) * x
    gradient = np.stack(
        [np.cos(x[:, 0]) * np.cos(x[:, 1]), -np.sin(x[:, 0]) * np.sin(x[:, 1]), -np.sin(2 * x[:, 2])], 1
    )
    return (x - CENTRE) @ TURN.T + wall + gradient


def own_at(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.3 * np.sin(x + np.arange(P))


def full_at(x: np.ndarray) -> np.ndarray:
    a, b, c = x.T
    ones = np.ones_like(a)
    rows = [[0.5 + 0.2 * np.sin(b), 0.3 * a], [0.4 * np.cos(a), 0.7 * ones], [0.2 * b, 0.6 - 0.1 * c]]
    return np.array(rows).transpose(2, 0, 1)


@dataclass(frozen=True)
class Kind:
    """A noise source, its power of α typed by hand, and F(x) z in NumPy."""

    make: Callable[[str], object]
    power: float
    kick: Callable[[np.ndarray, np.ndarray], np.ndarray]
    rank: int
    dependence: str
    diagonal: Callable[[np.ndarray], np.ndarray] | None = None


NOISES = {
    "dense": Kind(lambda c: AnisotropicNoise(DENSE), 0.5, lambda x, z: z @ DENSE.T, 2, "constant"),
    "diagonal": Kind(
        lambda c: DiagonalNoise(STRETCHES), 0.5, lambda x, z: STRETCHES * z, P, "constant", lambda x: STRETCHES + 0 * x
    ),
    "thermal": Kind(
        lambda c: ThermalNoise(TEMPERATURE),
        0.0,
        lambda x, z: sqrt(2 * TEMPERATURE) * z,
        P,
        "constant",
        lambda x: sqrt(2 * TEMPERATURE) + 0 * x,
    ),
    "own coordinate": Kind(
        lambda c: StateDependentNoise(own_amplitude, calculus=c),
        0.5,
        lambda x, z: own_at(x) * z,
        P,
        "diagonal",
        own_at,
    ),
    "full": Kind(
        lambda c: StateDependentNoise(full_amplitude, rank=2, calculus=c),
        0.5,
        lambda x, z: np.einsum("npr,nr->np", full_at(x), z),
        2,
        "full",
    ),
    "of the landscape": Kind(
        lambda c: LandscapeNoise(calculus=c),
        0.5,
        lambda x, z: np.einsum("npr,nr->np", full_at(x), z),
        2,
        "full",
    ),
}
# The schemes for diagonal noise know no dense factor.
RUNS = [
    (name, noise)
    for name, scheme in SCHEMES.items()
    for noise, kind in NOISES.items()
    if kind.dependence in scheme.orders and (noise != "dense" or name not in ("Milstein", "WeakSecondOrder"))
]


def bumpy(name: str, noise: str, dtype: torch.dtype = torch.float64, time_step: float = STEP) -> Process:
    """Every kind of drift at once: linear with rotation, a wall, a user's gradient."""
    landscape = PotentialLandscape(ripples, P, gradient=ripples_gradient, amplitude=full_amplitude, rank=2, dtype=dtype)
    drift = LinearDrift(TURN, CENTRE) + Confinement(STIFFNESS, RADIUS) + GradientDrift(landscape)
    scheme = SCHEMES[name]
    source = NOISES[noise].make(scheme.calculus)
    return Process(landscape, source, ALPHA, drift=drift, update=scheme, time_step=time_step)


def expected_step(name: str, kind: Kind, x, z, h: float, memory=None, strength: float | None = None):
    """One step of each scheme as its paper has it, for dx = a dt + b dW with a = −f and b = −α^p F."""
    strength = -(ALPHA**kind.power) if strength is None else strength
    root = h**0.5

    def a(y):
        return -slope_at(y)

    def b(y, w):
        return strength * kind.kick(y, w)

    if name == "EulerMaruyama":
        return x + a(x) * h + b(x, root * z), memory
    if name == "Heun":
        guess = x + a(x) * h + b(x, root * z)
        return x + (a(x) + a(guess)) * h / 2 + (b(x, root * z) + b(guess, root * z)) / 2, memory
    if name in ("Milstein", "WeakSecondOrder"):
        dw = root * z

        def g(y):
            return strength * kind.diagonal(y)

        if name == "Milstein":
            support = x + a(x) * h + g(x) * root
            return x + a(x) * h + g(x) * dw + (g(support) - g(x)) * (dw**2 - h) / (2 * root), memory
        above, below = (x + a(x) * h + sign * g(x) * root for sign in (1, -1))
        middle = x + a(x) * h + g(x) * dw
        kick = (g(above) + g(below) + 2 * g(x)) * dw / 4 + (g(above) - g(below)) * (dw**2 - h) / (4 * root)
        return x + (a(middle) + a(x)) * h / 2 + kick, memory
    if name == "StrongAdditive":
        dw, other = root * z[:, : kind.rank], root * z[:, kind.rank :]
        dz = h / 2 * (dw + other / sqrt(3))
        support = x + 3 / 4 * a(x) * h + 3 / 2 * b(x, dz) / h
        return x + (a(x) + 2 * a(support)) * h / 3 + b(x, dw), memory
    if name == "LeimkuhlerMatthews":
        return x + a(x) * h + root / 2 * strength * (memory + kind.kick(x, z)), kind.kick(x, z)
    v = memory + h / 2 * a(x)
    middle = x + h / 2 * v
    v = exp(-FRICTION * h) * v + sqrt((1 - exp(-2 * FRICTION * h)) / (2 * FRICTION)) * sqrt(FRICTION) * b(x, z)
    after = middle + h / 2 * v
    return after, v + h / 2 * a(after)


def numbers_a_step(name: str, rank: int) -> int:
    return 2 * rank if name == "StrongAdditive" else rank


def one_step_error(name: str, noise: str, seed: int, h: float, dtype=torch.float64, strength=None) -> float:
    """Largest difference between the kernel and the formula after two steps, memories included."""
    generator = np.random.default_rng(seed)
    kind, replicas = NOISES[noise], 5
    x = generator.standard_normal((replicas, P))
    z = generator.standard_normal((replicas, 2, numbers_a_step(name, kind.rank)))
    has_memory = name in ("LeimkuhlerMatthews", "BAOAB")
    memory = generator.standard_normal((replicas, P)) if has_memory else None
    state = follow(bumpy(name, noise, dtype, h), x, z, memory)
    for step in range(2):
        x, memory = expected_step(name, kind, x, z[:, step], h, memory, strength)
    assert state.weights.dtype == dtype
    error = np.abs(state.weights.double().numpy() - x).max()
    return max(error, np.abs(state.update_memory.double().numpy() - memory).max() if has_memory else 0.0)


@pytest.mark.parametrize(("name", "noise"), RUNS)
def test_two_steps_are_the_formula(name, noise):
    @given(seed=st.integers(0, 2**32 - 1), h=st.floats(1e-4, 0.3))
    def law(seed, h):
        assert one_step_error(name, noise, seed, h) <= ROUNDING

    law()


@pytest.mark.parametrize(("name", "noise"), RUNS)
def test_single_precision_follows_the_formula_to_its_rounding(name, noise):
    assert one_step_error(name, noise, 7, STEP, torch.float32) <= 1e-5


@pytest.mark.parametrize(("name", "noise"), RUNS)
def test_noise_of_another_sign_or_power_of_the_learning_rate_is_noticed(name, noise):
    right = -(ALPHA ** NOISES[noise].power)
    for wrong in (-right, right * ROOT_ALPHA):
        assert one_step_error(name, noise, 7, STEP, strength=wrong) > 1e-3


def test_a_potential_without_gradient_moves_as_with_it():
    """Central differences of the potential: ten digits."""
    drifts = [GradientDrift(PotentialLandscape(ripples, P, gradient=each)) for each in (ripples_gradient, None)]
    z = np.random.default_rng(1).standard_normal((70, 4, P))
    one, other = (
        follow(Process(flat(P), DiagonalNoise(0.3), ALPHA, drift=each, update=Heun()), np.full((70, P), 0.4), z)
        for each in drifts
    )
    np.testing.assert_allclose(other.weights.numpy(), one.weights.numpy(), rtol=0, atol=1e-9)


def joint_law(correlation_time: float, time_step: float) -> dict[str, float]:
    """Of ζ after a step and its mean over the step, from the covariances of both in 60 digits.

    Var ∫ζ = (τ/2)(2x − 3 + 4e⁻ˣ − e⁻²ˣ) and Cov(∫ζ, ζ') = (1 − e⁻ˣ)²/2 from a given start (Gillespie 1996), Δt − τ(1 − e⁻ˣ)
    and (1 − e⁻ˣ)/2 from the stationary law.
    """
    with mp.workdps(60):
        tau, dt = mp.mpf(correlation_time), mp.mpf(time_step)
        x, left = dt / tau, 1 - mp.exp(-dt / tau)
        squared, covariance = (1 - mp.exp(-2 * x)) / (2 * tau), left**2 / 2
        variance = tau / 2 * (2 * x - 3 + 4 * mp.exp(-x) - mp.exp(-2 * x))
        first = {"squared": 1 / (2 * tau), "covariance": left / 2, "variance": dt - tau * left}
        found = {
            "lost": -left,
            "mean": left / x,
            "gain": mp.sqrt(squared),
            "shared": covariance / mp.sqrt(squared) / dt,
            "rest": mp.sqrt(variance - covariance**2 / squared) / dt,
            "first gain": mp.sqrt(first["squared"]),
            "first shared": first["covariance"] / mp.sqrt(first["squared"]) / dt,
            "first rest": mp.sqrt(first["variance"] - first["covariance"] ** 2 / first["squared"]) / dt,
        }
        return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("ratio", [1e-12, 1e-6, 1e-3, 0.1, 1.0, 1.99, 2.01, 30.0, 1e3, 1e6])
def test_the_joint_law_of_coloured_noise_is_right_to_its_last_digits_at_any_ratio(ratio):
    """ζ' = (1 + a) ζ + b ξ and ζ̄ = c (2 + a) ζ + c b ξ + d ξ′, as for two correlated Gaussians."""
    time_step = 0.03
    a, b, c, d, b0, c0, d0 = ColouredNoise(1.0, time_step / ratio).law_parameters(time_step)
    law = joint_law(time_step / ratio, time_step)
    found = (a, b, c * (2 + a), c * b, d, b0, c0 * b0, d0)
    named = ("lost", "gain", "mean", "shared", "rest", "first gain", "first shared", "first rest")
    np.testing.assert_allclose(found, [law[each] for each in named], rtol=2e-14)


@pytest.mark.parametrize("update", [EulerMaruyama(), Plain()], ids=["compiled", "Python"])
@pytest.mark.parametrize("correlation_time", [1e-4, 0.02, 0.4, 30.0])
@pytest.mark.parametrize("factor", [STRETCHES, DENSE], ids=["diagonal", "dense"])
def test_coloured_noise_follows_its_joint_law_from_a_stationary_start(factor, correlation_time, update):
    """x ← x − f Δt − √α F ∫ζ dt, with ζ of two normal numbers a step."""
    rank, steps, replicas = factor.shape[-1], 6, 3
    process = Process(
        flat(P), ColouredNoise(factor, correlation_time), ALPHA, drift=LinearDrift(TURN), update=update, time_step=STEP
    )
    start = process.start(replicas, 5, np.full((replicas, P), 0.3))
    one, other = np.split(draw_normals(range(replicas), Seeds(5).key(PURPOSE), 0, steps, 2 * rank), 2, axis=2)
    x, law, zeta = np.full((replicas, P), 0.3), joint_law(correlation_time, STEP), np.zeros((replicas, rank))
    for step in range(steps):
        first, there = ("first ", 0) if step == 0 else ("", 1)
        mean = law["mean"] * there * zeta + law[first + "shared"] * one[:, step] + law[first + "rest"] * other[:, step]
        zeta = (1 + law["lost"]) * there * zeta + law[first + "gain"] * one[:, step]
        kick = mean * factor if factor.ndim == 1 else mean @ factor.T
        x = x - STEP * x @ TURN.T - ROOT_ALPHA * STEP * kick
    state = advance(process, start, steps)
    np.testing.assert_allclose(state.weights.numpy(), x, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(state.noise_memory.numpy(), zeta, rtol=0, atol=1e-10)
    halves = advance(process, advance(process, start, 2), steps - 2)
    assert same(halves, state), "cut after 2"


def test_coloured_noise_without_a_time_step_has_no_increment():
    noise, weights = ColouredNoise(0.3, 0.4), torch.zeros(1, P, dtype=torch.float64)
    with pytest.raises(ConfigurationError, match=r"without a time step.*noise.over\(time_step\)"):
        noise.increment(flat(P), weights, noise.start(flat(P), weights), Key(Seeds(0), (0,), 0))


@pytest.mark.parametrize("index", [0.6, 1, 1.0, 1.5, 2])
def test_stable_noise_is_the_formula_of_chambers_mallows_and_stuck(index):
    steps, replicas = 5, 4
    process = Process(
        flat(P), StableNoise(DENSE, index), ALPHA, drift=LinearDrift(TURN), update=EulerMaruyama(), time_step=STEP
    )
    pairs = draw_normals(range(replicas), Seeds(5).key(PURPOSE), 0, steps, 4)
    x = np.full((replicas, P), 0.3)
    for step, replica in product(range(steps), range(replicas)):
        zeta = np.empty(2)
        for j in range(2):
            one, other = pairs[replica, step, j], pairs[replica, step, 2 + j]
            angle, waiting = atan(other / one), (one**2 + other**2) / 2
            if index == 1:
                zeta[j] = tan(angle)
                continue
            rest = (cos(angle - index * angle) / waiting) ** ((1 - index) / index)
            zeta[j] = sin(index * angle) / cos(angle) ** (1 / index) * rest
        x[replica] += -STEP * TURN @ x[replica] - ALPHA ** (1 - 1 / index) * STEP ** (1 / index) * DENSE @ zeta
    moved = advance(process, process.start(replicas, 5, np.full((replicas, P), 0.3)), steps).weights.numpy()
    np.testing.assert_allclose(moved, x, rtol=1e-11, atol=1e-11)


# --- Orders: the fit --------------------------------------------------------------------------------------------------


def fitted(steps: list[int], errors: np.ndarray) -> np.ndarray:
    """Slope of log error against log Δt, over the first axis."""
    abscissa = -np.log(np.array(steps, float))
    abscissa -= abscissa.mean()
    return abscissa @ np.log(errors).reshape(len(steps), -1) / (abscissa @ abscissa)


def assert_order(measured: float, declared: float) -> None:
    """Neither below nor above what is declared."""
    assert abs(measured - declared) <= TOLERANCE, f"order {measured:.3f}, declared {declared}"


# --- Strong order: the same increments, coarsened -----------------------------------------------------------------------

# So many paths that the slope has a standard error below 0.0125, found from batches: the tolerance is four of them.
PATHS, FINE = 4000, 2048
COARSE = [16, 32, 64, 128]
# Half a kick dominates what the drift does wrong only at smaller steps.
FINER = {"LeimkuhlerMatthews": [128, 256, 512, 1024]}
BATCHES = 8
SPEED, VOLATILITY = 0.1, 0.6  # of the geometric Brownian motion
MIXING, STRAIGHT = np.array([[1.6, 0.6], [-0.4, 1.4]]), np.array([1.6, 1.4])


@dataclass(frozen=True)
class Field(Drift):
    """A user's field that need not be a gradient."""

    function: Callable

    def __call__(self, weights):
        raise NotImplementedError("only the kernels run it")

    def formula(self):
        return (FieldFormula(POINT, self.function),)


def choppy(x, out):
    """Curved on the scale of the noise, so that no order comes out higher by chance."""
    out[0] = np.sin(2 * x[0]) + 0.5 * x[1]
    out[1] = np.cos(x[0] + 2 * x[1]) - 0.5 * x[0]


def underdamped(x, out):
    """The field of positions and velocities at FRICTION, with choppy water."""
    out[0], out[1] = -x[2], -x[3]
    out[2] = np.sin(2 * x[0]) + 0.5 * x[1] + 1.5 * x[2]
    out[3] = np.cos(x[0] + 2 * x[1]) - 0.5 * x[0] + 1.5 * x[3]


def proportional(x, out):
    for i in range(x.shape[0]):
        out[i] = 0.6 * x[i]  # VOLATILITY


def entangled(x, out):
    """Columns that do not commute."""
    out[0, 0] = 1.0
    out[0, 1] = np.sin(x[1])
    out[1, 0] = np.cos(x[0])
    out[1, 1] = 0.5


@dataclass(frozen=True)
class Path:
    """ΔW and ΔZ = ∫ (W − W_n) dt of many paths, shape (path, step, rank), over time 1."""

    dw: np.ndarray
    dz: np.ndarray

    def coarsened(self) -> Path:
        """Two steps to one."""
        h = 1 / self.dw.shape[1]
        return Path(self.dw[:, ::2] + self.dw[:, 1::2], self.dz[:, ::2] + self.dz[:, 1::2] + h * self.dw[:, ::2])

    def normals(self, both: bool) -> np.ndarray:
        root = sqrt(1 / self.dw.shape[1])
        if not both:
            return self.dw / root
        return np.concatenate([self.dw, sqrt(3) * (2 * self.dz / root**2 - self.dw)], axis=2) / root


@cache
def path_of(steps: int) -> Path:
    """The same Brownian paths at any time step down to 1/FINE."""
    if steps < FINE:
        return path_of(2 * steps).coarsened()
    generator = np.random.default_rng(11)
    dw, other = (sqrt(1 / steps) * generator.standard_normal((PATHS, steps, 2)) for _ in range(2))
    return Path(dw, (dw + other / sqrt(3)) / (2 * steps))


@pytest.fixture(scope="module", autouse=True)
def _forgetful():
    """Paths and ends take some hundred megabytes."""
    yield
    for each in (path_of, additive_end, true_end, strong_errors):
        each.cache_clear()


def nonlinear(scheme: Update, noise: object, time_step: float) -> Process:
    return Process(flat(2), noise, ALPHA, drift=Field(choppy), update=scheme, time_step=time_step)


def geometric(scheme: Update, time_step: float) -> Process:
    """dx = −SPEED x dt − √α VOLATILITY x dW in two independent copies."""
    noise = StateDependentNoise(proportional, calculus=scheme.calculus)
    drift = LinearDrift(SPEED * np.eye(2))
    return Process(flat(2), noise, ALPHA, drift=drift, update=scheme, time_step=time_step)


def strong_process(name: str, kind: str, time_step: float) -> Process:
    scheme = SCHEMES[name]
    if kind == "diagonal":
        return geometric(scheme, time_step)
    if kind == "full":
        noise = StateDependentNoise(entangled, rank=2, calculus=scheme.calculus)
        return Process(flat(2), noise, ALPHA, drift=LinearDrift(SPEED * np.eye(2)), update=scheme, time_step=time_step)
    return nonlinear(scheme, constant_noise(name), time_step)


def constant_noise(name: str):
    """Correlated, where the scheme takes it."""
    return DiagonalNoise(STRAIGHT) if name in ("Milstein", "WeakSecondOrder") else AnisotropicNoise(MIXING)


START = np.array([1.0, 0.5])


def end_of(process: Process, normals: np.ndarray) -> np.ndarray:
    """Weights, and velocities of the underdamped scheme, after given increments."""
    state = follow(process, np.tile(START, (len(normals), 1)), normals)
    after = state.weights.numpy()
    return np.hstack([after, state.update_memory.numpy()]) if isinstance(process.update, BAOAB) else after


def geometric_end(calculus: str) -> np.ndarray:
    volatility = ROOT_ALPHA * VOLATILITY
    decay = SPEED + (volatility**2 / 2 if calculus == "ito" else 0)
    return START * np.exp(-decay - volatility * path_of(COARSE[-1]).dw.sum(1))


@cache
def additive_end(dimensions: int, steps: int) -> np.ndarray:
    """By the scheme of order 3/2, for noise whose factor has so many dimensions."""
    noise = AnisotropicNoise(MIXING) if dimensions == 2 else DiagonalNoise(STRAIGHT)
    return end_of(nonlinear(StrongAdditive(), noise, 1 / steps), path_of(steps).normals(True))


def underdamped_end(steps: int) -> np.ndarray:
    """dx = v dt, dv = −(f + γ v) dt − √(γ α) F dW as one equation for both, by the scheme of order 3/2."""
    factor = np.vstack([np.zeros((2, 2)), sqrt(FRICTION) * MIXING])
    process = Process(
        flat(4),
        AnisotropicNoise(factor),
        ALPHA,
        drift=Field(underdamped),
        update=StrongAdditive(),
        time_step=1 / steps,
    )
    return follow(
        process, np.tile(np.hstack([START, np.zeros(2)]), (PATHS, 1)), path_of(steps).normals(True)
    ).weights.numpy()


@cache
def true_end(name: str, kind: str) -> np.ndarray:
    """What a scheme should reach: in closed form, by the scheme of order 3/2, or by its own much finer steps."""
    scheme = SCHEMES[name]
    if kind == "diagonal":
        return geometric_end(scheme.calculus)
    if kind == "full":
        return end_of(strong_process(name, kind, 1 / FINE), path_of(FINE).normals(False))
    if name == "BAOAB":
        return underdamped_end(FINE)
    return additive_end(constant_noise(name).factor.ndim, FINE)


@cache
def strong_errors(name: str, kind: str) -> np.ndarray:
    """Squared error of every path at every time step, shape (time step, path)."""
    return squared_errors(name, kind, true_end(name, kind))


def squared_errors(name: str, kind: str, truth: np.ndarray) -> np.ndarray:
    squares = []
    for steps in FINER.get(name, COARSE):
        process = strong_process(name, kind, 1 / steps)
        normals = path_of(steps).normals(isinstance(process.update, StrongAdditive))
        squares.append(np.square(end_of(process, normals) - truth).sum(1))
    return np.array(squares)


def strong_order(squares: np.ndarray) -> tuple[float, float]:
    """Order of the root mean square error, and its standard error from batches of paths."""
    parts = squares.reshape(len(squares), BATCHES, -1).mean(2) ** 0.5
    deviations = fitted(COARSE, parts)
    return float(fitted(COARSE, squares.mean(1) ** 0.5)[0]), float(deviations.std(ddof=1) / BATCHES**0.5)


@pytest.mark.parametrize(("name", "kind"), DECLARED)
def test_strong_order_is_the_declared_one(name, kind):
    order, error = strong_order(strong_errors(name, kind))
    assert error <= TOLERANCE / 4, "too few paths: the tolerance is to be four standard errors of the slope"
    assert_order(order, SCHEMES[name].orders[kind].strong)


@pytest.mark.parametrize("name", ["StrongAdditive", "BAOAB"])
def test_error_of_the_reference_is_small_against_what_is_measured(name):
    """Steps twice as long move the reference by less than a tenth of the smallest error: a hundredth of its square."""
    smallest = strong_errors(name, "constant").mean(1)[-1]
    coarser = underdamped_end(FINE // 2) if name == "BAOAB" else additive_end(2, FINE // 2)
    moved = coarser - true_end(name, "constant")
    assert np.square(moved).sum(1).mean() <= 0.01 * smallest


# --- Weak order without chance: expectations over the normals are sums over Gauss–Hermite nodes -------------------------


def quadrature(numbers: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Points, shape (point, number), and weights of the standard normal law."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    points = np.array(list(product(z, repeat=numbers)))
    weights = np.array(list(product(w / w.sum(), repeat=numbers))).prod(1)
    return points, weights


def expected(process: Process, starts: np.ndarray, numbers: int, nodes: int, observe: Callable, memory=None):
    """E[observables after one step | start], shape (start, observable), from the kernel itself."""
    points, weights = quadrature(numbers, nodes)
    repeated = np.repeat(starts, len(points), axis=0)
    remembered = None if memory is None else np.repeat(memory, len(points), axis=0)
    state = follow(process, repeated, np.tile(points, (len(starts), 1))[:, None], remembered)
    after = state.weights.numpy()
    values = observe(after) if memory is None else observe(after, state.update_memory.numpy())
    return np.einsum("sqo,q->so", values.reshape(len(starts), len(points), -1), weights)


STEPS = [128, 256, 512, 1024]  # to time 1

# (a) Linear drift and amplitude: moments of first and second degree close.

PULL = np.array([[0.9, 0.3], [-0.2, 0.6]])
PULL_CENTRE = np.array([0.3, -0.5])
MOMENTS = [(), *[each for k in (1, 2) for each in combinations_with_replacement(range(2), k)]]


def affine_own(x, out):
    out[0] = 0.5 * x[0] + 0.3
    out[1] = -0.4 * x[1] + 0.2


def affine_full(x, out):
    out[0, 0] = 0.5 * x[1]
    out[0, 1] = 0.2 * x[0] + 0.1
    out[1, 0] = 0.3 * x[0] - 0.4 * x[1]
    out[1, 1] = 0.4 * x[1] + 0.3


# The same by its derivatives: F[:, j] = B_j x + b_j.
AFFINE = {
    "diagonal": (np.array([[[0.5, 0], [0, 0]], [[0, 0], [0, -0.4]]]), np.array([[0.3, 0], [0, 0.2]])),
    "full": (np.array([[[0, 0.5], [0.3, -0.4]], [[0.2, 0], [0, 0.4]]]), np.array([[0, 0], [0.1, 0.3]])),
}


def linear_process(name: str, kind: str, time_step: float, learning_rate: float = ALPHA) -> Process:
    scheme = SCHEMES[name]
    amplitude, rank = (affine_own, None) if kind == "diagonal" else (affine_full, 2)
    noise = StateDependentNoise(amplitude, rank=rank, calculus=scheme.calculus)
    drift = LinearDrift(PULL, PULL_CENTRE)
    return Process(flat(2), noise, learning_rate, drift=drift, update=scheme, time_step=time_step)


def monomials(x: np.ndarray) -> np.ndarray:
    return np.stack([np.prod(x[:, list(each)], axis=1) for each in MOMENTS], 1)


PROBES = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [1, 1]], float)


def linear_generator(kind: str, calculus: str) -> np.ndarray:
    """How the moments of the equation itself change: rows by which d E[monomials]/dt = G E[monomials]."""
    slopes, constants = AFFINE[kind]
    changes = []
    for x in PROBES:
        columns = ROOT_ALPHA * (slopes @ x + constants)
        drift = -PULL @ (x - PULL_CENTRE)
        if calculus == "stratonovich":
            drift = drift + sum(ROOT_ALPHA * slopes[j] @ columns[j] for j in range(2)) / 2
        second = columns.T @ columns
        products = [x[i] * drift[j] + x[j] * drift[i] + second[i, j] for i, j in MOMENTS[3:]]
        changes.append([0, *drift, *products])
    return np.linalg.solve(monomials(PROBES), np.array(changes)).T


def linear_error(name: str, kind: str, steps: int, calculus: str | None = None, learning_rate: float = ALPHA) -> float:
    """Largest error among the moments at time 1, exact to rounding."""
    process = linear_process(name, kind, 1 / steps, learning_rate)
    after = expected(process, PROBES, 2, 5, monomials)
    step_map = np.linalg.solve(monomials(PROBES), after).T
    start = monomials(START[None])[0]
    exact = expm(linear_generator(kind, calculus or SCHEMES[name].calculus)) @ start
    return float(np.abs(np.linalg.matrix_power(step_map, steps) @ start - exact).max())


# (b) Linear drift and constant noise: the step is affine in weights, memory and normals.


def additive_process(name: str, time_step: float, learning_rate: float = ALPHA) -> Process:
    drift = LinearDrift(PULL, PULL_CENTRE)
    return Process(flat(2), constant_noise(name), learning_rate, drift=drift, update=SCHEMES[name], time_step=time_step)


def affine_map(process: Process, numbers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Constant, matrix and noise factor of one step of weights and memory, found by probing."""
    remembers = isinstance(process.update, LeimkuhlerMatthews | BAOAB)
    size = 4 if remembers else 2
    inputs = np.vstack([np.zeros(size + numbers), np.eye(size + numbers)])
    memory = inputs[:, 2:4] if remembers else None
    state = follow(process, inputs[:, :2], inputs[:, None, size:], memory)
    after = np.hstack([state.weights.numpy(), state.update_memory.numpy()]) if remembers else state.weights.numpy()
    columns = (after[1:] - after[0]).T
    return after[0], columns[:, :size], columns[:, size:]


def law_after(start: np.ndarray, constant, matrix, factor, steps: int) -> tuple[np.ndarray, np.ndarray]:
    mean, covariance = start, np.zeros((len(start), len(start)))
    for _ in range(steps):
        mean, covariance = matrix @ mean + constant, matrix @ covariance @ matrix.T + factor @ factor.T
    return mean, covariance


def gaussian_law(pull: np.ndarray, centre: np.ndarray, diffusion: np.ndarray, start: np.ndarray):
    """Mean and covariance at time 1 of dx = −pull (x − centre) dt + noise of that covariance (Van Loan 1978)."""
    n = len(start)
    block = expm(np.block([[pull, diffusion], [np.zeros((n, n)), -pull.T]]))
    decay = block[n:, n:].T
    return centre + decay @ (start - centre), decay @ block[:n, n:]


def additive_error(name: str, steps: int, learning_rate: float = ALPHA) -> float:
    factor = constant_noise(name).factor
    diffusion = ALPHA * (factor @ factor.T if factor.ndim == 2 else np.diag(factor**2))
    pull, centre, start, nothing = PULL, PULL_CENTRE, START, np.zeros((2, 2))
    if name == "BAOAB":
        pull = np.block([[nothing, -np.eye(2)], [PULL, FRICTION * np.eye(2)]])
        diffusion = np.block([[nothing, nothing], [nothing, FRICTION * diffusion]])
        centre, start = np.hstack([centre, [0, 0]]), np.hstack([start, [0, 0]])
    n = len(start)
    process = additive_process(name, 1 / steps, learning_rate)
    constant, matrix, kick = affine_map(process, numbers_a_step(name, 2))
    first = np.hstack([start, np.zeros(len(matrix) - n)])
    mean, covariance = law_after(first, constant, matrix, kick, steps)
    true_mean, true_covariance = gaussian_law(pull, centre, diffusion, start)
    return float(max(np.abs(mean[:n] - true_mean).max(), np.abs(covariance[:n, :n] - true_covariance).max()))


def weak_error(name: str, kind: str, steps: int, learning_rate: float = ALPHA) -> float:
    if kind == "constant":
        return additive_error(name, steps, learning_rate)
    return linear_error(name, kind, steps, learning_rate=learning_rate)


def order_of(error: Callable[[int], float], steps: list[int]) -> float:
    return float(fitted(steps, np.array([error(each) for each in steps]))[0])


@pytest.mark.parametrize(("name", "kind"), DECLARED)
def test_weak_order_of_linear_equations_is_the_declared_one(name, kind):
    """Moments of the kernel's own step, iterated: no chance, errors of rounding."""
    assert_order(order_of(lambda steps: weak_error(name, kind, steps), STEPS), SCHEMES[name].orders[kind].weak)


# (b′) Linear drift and coloured noise, against the equation along the same path: both are linear in weights, ζ and ∫ζ dt.

RATE = 0.8


def coloured_errors(noise: ColouredNoise, steps: int) -> tuple[float, float]:
    """Root mean square distance from the path at time 1, and the error of mean and variance there."""
    dt = 1 / steps
    process = Process(flat(1), noise, ALPHA, drift=LinearDrift([[RATE]]), update=EulerMaruyama(), time_step=dt)
    x, zeta, *z = np.eye(4)
    state = process.start(4, 0, x[:, None]).replaced(
        1, torch.as_tensor(x[:, None]), None, torch.as_tensor(zeta[:, None]), torch.zeros(4, dtype=torch.bool)
    )
    kept, of_zeta, first, second = engine.follow(process, state, np.stack(z, 1)[:, None]).weights[:, 0].numpy()
    # The two numbers of a step in terms of what it does to ζ and to its integral.
    lost, gain, share, rest, *_ = ColouredNoise(1.0, noise.correlation_time).law_parameters(dt)
    after, integral = first / gain - second * share / rest, second / rest / dt
    before = of_zeta - first / gain * (1 + lost) - second * share / rest
    # Of (x, ζ, ∫ζ dt), dx = −RATE x dt − √α ζ dt.
    tau = noise.correlation_time
    drift = np.array([[-RATE, -ROOT_ALPHA, 0], [0, -1 / tau, 0], [0, 1, 0]])
    matrix, covariance = over_a_step(drift, np.diag([0, 1 / tau**2, 0]), tau, dt)
    # Of (x of the scheme, x, ζ).
    given = np.vstack([[0, before, 0], matrix[0], matrix[1]]) + np.outer(
        [1, 0, 0], after * matrix[1] + integral * matrix[2]
    )
    step = np.hstack([[[kept], [0], [0]], given[:, :2]])
    added = np.array([[0, after, integral], [1, 0, 0], [0, 1, 0]])
    mean, spread = np.array([1.0, 1.0, 0.0]), np.diag([0, 0, 0.5 / noise.correlation_time])
    for _ in range(steps):
        mean, spread = step @ mean, step @ spread @ step.T + added @ covariance @ added.T
    apart = np.array([1.0, -1.0, 0.0])
    weak = max(abs(apart @ mean), abs(spread[0, 0] - spread[1, 1]))
    return float((apart @ spread @ apart + (apart @ mean) ** 2) ** 0.5), float(weak)


@pytest.mark.parametrize("correlation_time", [1e-6, 0.5])
def test_orders_with_coloured_noise_are_those_of_constant_noise_whether_the_step_resolves_it_or_not(correlation_time):
    declared = EulerMaruyama.orders["constant"]
    for which, order in enumerate((declared.strong, declared.weak)):
        measured = order_of(
            lambda steps, which=which: coloured_errors(ColouredNoise(1.0, correlation_time), steps)[which], STEPS
        )
        assert_order(measured, order)


def assert_errors_of_white_noise_at_most(kind: type) -> None:
    white = np.array(coloured_errors(ColouredNoise(1.0, 1e-9), 64))
    for ratio in 10.0 ** np.arange(-3, 4):
        found = np.array(coloured_errors(kind(1.0, 1 / 64 / ratio), 64))
        assert (found <= 1.01 * white).all(), f"errors of {found} where white noise leaves {white}"


def test_errors_with_coloured_noise_are_no_larger_than_with_white_noise_at_any_correlation_time():
    assert_errors_of_white_noise_at_most(ColouredNoise)
    with pytest.raises(AssertionError, match="where white noise leaves"):
        assert_errors_of_white_noise_at_most(Straight)


# (c) On a circle: trigonometric interpolation makes one step, and the equation itself, a matrix.

HARMONICS = 32
ANGLES = 2 * pi * np.arange(2 * HARMONICS + 1) / (2 * HARMONICS + 1)
HOT = 0.3  # temperature


def circle_field(x, out):
    out[0] = np.sin(x[0]) + np.cos(2 * x[0])


def circle_amplitude(x, out):
    out[0] = 0.9 + 0.4 * np.sin(x[0])


def circle_process(name: str, kind: str, time_step: float, learning_rate: float = ALPHA) -> Process:
    scheme = SCHEMES[name]
    noise = ThermalNoise(HOT) if kind == "constant" else StateDependentNoise(circle_amplitude, calculus=scheme.calculus)
    drift = Field(circle_field)
    return Process(flat(1), noise, learning_rate, drift=drift, update=scheme, time_step=time_step)


def waves_on_circle(x: np.ndarray, harmonics: int = 0) -> np.ndarray:
    """1, cos x, sin x, cos 2x, … at points of any shape, one row a point."""
    k = np.arange(1, (harmonics or HARMONICS) + 1) * x.reshape(-1, 1)
    return np.hstack([np.ones((x.size, 1)), np.stack([np.cos(k), np.sin(k)], 2).reshape(x.size, -1)])


BASIS = waves_on_circle(ANGLES)


def circle_generator(kind: str, calculus: str) -> np.ndarray:
    """−f ∂ + ½ F² ∂², and ½ F F′ ∂ in the sense of Stratonovich, on coefficients."""
    frequencies = np.arange(1, HARMONICS + 1)
    derivative = np.zeros((len(ANGLES), len(ANGLES)))
    derivative[2 * frequencies - 1, 2 * frequencies] = frequencies
    derivative[2 * frequencies, 2 * frequencies - 1] = -frequencies
    drift = -(np.sin(ANGLES) + np.cos(2 * ANGLES))
    squared = np.full_like(ANGLES, 2 * HOT)
    if kind == "diagonal":
        amplitude = ROOT_ALPHA * (0.9 + 0.4 * np.sin(ANGLES))
        squared = amplitude**2
        if calculus == "stratonovich":
            drift = drift + amplitude * ROOT_ALPHA * 0.4 * np.cos(ANGLES) / 2
    at_angles = drift[:, None] * (BASIS @ derivative) + squared[:, None] / 2 * (BASIS @ derivative @ derivative)
    return np.linalg.solve(BASIS, at_angles)


def circle_error(name: str, kind: str, steps: int, calculus: str | None = None, learning_rate: float = ALPHA) -> float:
    """Root mean square, over all starts, of the errors of E[cos x] and E[sin x] at time 1."""
    process = circle_process(name, kind, 1 / steps, learning_rate)
    nodes = 12 if name == "StrongAdditive" else 40
    after = expected(process, ANGLES[:, None], numbers_a_step(name, 1), nodes, waves_on_circle)
    step_map = np.linalg.solve(BASIS, after)
    exact = expm(circle_generator(kind, calculus or SCHEMES[name].calculus))
    difference = np.linalg.matrix_power(step_map, steps)[:, 1:3] - exact[:, 1:3]
    return float(np.sqrt(np.square(BASIS @ difference).mean()))


def test_interpolation_on_the_circle_errs_by_less_than_a_thousandth_of_what_is_measured(monkeypatch):
    """Half as many harmonics again change nothing that counts."""
    before = circle_error("WeakSecondOrder", "diagonal", STEPS[-1])
    angles = 2 * pi * np.arange(97) / 97
    for name, value in (("HARMONICS", 48), ("ANGLES", angles)):
        monkeypatch.setitem(globals(), name, value)
    monkeypatch.setitem(globals(), "BASIS", waves_on_circle(angles))
    assert abs(circle_error("WeakSecondOrder", "diagonal", STEPS[-1]) - before) <= 1e-3 * before


CIRCLE = [(name, kind) for name, kind in DECLARED if kind != "full" and name not in ("LeimkuhlerMatthews", "BAOAB")]


@pytest.mark.parametrize(("name", "kind"), CIRCLE)
def test_weak_order_of_a_nonlinear_equation_is_the_declared_one(name, kind):
    """Backward iteration of the kernel's own step against the exponential of the generator."""
    assert_order(order_of(lambda steps: circle_error(name, kind, steps), STEPS), SCHEMES[name].orders[kind].weak)


# --- Order of the stationary law --------------------------------------------------------------------------------------

BOWL = np.array([[1.3, 0.4], [0.4, 0.7]])


def settled_covariance(scheme: Update, time_step: float) -> np.ndarray:
    """Covariance of weights and memory in a bowl with thermal noise, from the kernel's affine step."""
    process = Process(flat(2), ThermalNoise(HOT), ALPHA, drift=LinearDrift(BOWL), update=scheme, time_step=time_step)
    _, matrix, factor = affine_map(process, 2)
    return solve_discrete_lyapunov(matrix, factor @ factor.T)[:2, :2]


@pytest.mark.parametrize("name", ["LeimkuhlerMatthews", "BAOAB"])
@pytest.mark.parametrize("time_step", [0.05, 0.4])
def test_variance_in_a_bowl_is_that_of_boltzmann_at_any_time_step(name, time_step):
    """Both schemes sample a Gaussian without error in positions."""
    np.testing.assert_allclose(
        settled_covariance(SCHEMES[name], time_step), HOT * np.linalg.inv(BOWL), rtol=0, atol=1e-13
    )


def test_variance_of_euler_maruyama_in_a_bowl_is_off():
    off = settled_covariance(EulerMaruyama(), 0.05) - HOT * np.linalg.inv(BOWL)
    assert np.abs(off).max() > 1e-3


LONG_STEPS = [8, 12, 16, 24]  # a unit of time
FEWER, SPEEDS = 16, 14  # harmonics, and nodes for velocities: the order is the same to three digits with twice as many


def boltzmann_waves() -> np.ndarray:
    """⟨cos x⟩ and ⟨sin x⟩ of exp(−V/T), V = −cos x + ½ sin 2x."""
    x = 2 * pi * np.arange(400) / 400
    weight = np.exp((np.cos(x) - np.sin(2 * x) / 2) / HOT)
    return np.array([np.cos(x), np.sin(x)]) @ weight / weight.sum()


def invariant(step_map: np.ndarray) -> np.ndarray:
    """Averages of the basis, of which the first is 1, that one step leaves as they are."""
    n = len(step_map)
    equations = (step_map - np.eye(n)).T
    # The first equation is empty, since a constant stays constant: in its place, the average of 1.
    equations[0] = np.eye(n)[0]
    return np.linalg.solve(equations, np.eye(n)[0])


def stationary_of_leimkuhler_matthews(time_step: float) -> np.ndarray:
    """y = x − ½ F ΔW_n is a chain of its own: one normal makes x of it and the next y."""
    process = circle_process("LeimkuhlerMatthews", "constant", time_step)
    points, weights = quadrature(1, 40)
    kick = sqrt(2 * HOT) * points
    x = (ANGLES - sqrt(time_step) / 2 * kick).T.reshape(-1, 1)
    memory = np.tile(kick, (len(ANGLES), 1))
    after = follow(process, x, np.zeros((len(x), 1, 1)), memory).weights.numpy()

    def average(values):
        return np.einsum("aqo,q->ao", waves_on_circle(values).reshape(len(ANGLES), len(points), -1), weights)

    return invariant(np.linalg.solve(BASIS, average(after))) @ np.linalg.solve(BASIS, average(x))[:, 1:3]


def stationary_of_baoab(time_step: float) -> np.ndarray:
    """Waves in positions times polynomials in velocities."""
    process = circle_process("BAOAB", "constant", time_step)
    v, _ = np.polynomial.hermite_e.hermegauss(SPEEDS)

    def basis(x, velocity):
        scaled = velocity.reshape(-1) / sqrt(HOT)
        norms = np.cumprod(np.sqrt(np.maximum(np.arange(SPEEDS), 1)))
        polynomials = np.polynomial.hermite_e.hermevander(scaled, SPEEDS - 1) / norms
        return (waves_on_circle(x, FEWER)[:, :, None] * polynomials[:, None]).reshape(len(scaled), -1)

    angles = 2 * pi * np.arange(2 * FEWER + 1) / (2 * FEWER + 1)
    grid = np.array(list(product(angles, sqrt(HOT) * v)))
    x, velocity = grid[:, :1], grid[:, 1:]
    after = expected(process, x, 1, SPEEDS, basis, velocity)
    return invariant(np.linalg.solve(basis(x, velocity), after)).reshape(-1, SPEEDS)[1:3, 0]


def stationary_of_euler_maruyama(time_step: float) -> np.ndarray:
    process = circle_process("EulerMaruyama", "constant", time_step)
    after = expected(process, ANGLES[:, None], 1, 40, waves_on_circle)
    return invariant(np.linalg.solve(BASIS, after))[1:3]


STATIONARY = {
    "LeimkuhlerMatthews": stationary_of_leimkuhler_matthews,
    "BAOAB": stationary_of_baoab,
    "EulerMaruyama": stationary_of_euler_maruyama,
}


def stationary_order(name: str) -> float:
    exact = boltzmann_waves()
    return order_of(lambda steps: float(np.abs(STATIONARY[name](1 / steps) - exact).max()), LONG_STEPS)


@pytest.mark.parametrize("name", ["LeimkuhlerMatthews", "BAOAB"])
def test_order_of_the_stationary_law_is_the_declared_one(name):
    assert_order(stationary_order(name), SCHEMES[name].stationary_order)


# --- Mutants: what is wrong has to fail the same checks ------------------------------------------------------------------

ORDER_SAID = r"order -?\d+\.\d+, declared"


@pytest.mark.parametrize(("name", "reading"), [("Heun", "ito"), ("EulerMaruyama", "stratonovich")])
def test_the_other_reading_of_the_equation_is_noticed(name, reading):
    """Neither strongly nor weakly does a scheme converge to what it is not made for."""
    orders = SCHEMES[name].orders["diagonal"]
    squares = squared_errors(name, "diagonal", geometric_end(reading))
    with pytest.raises(AssertionError, match=ORDER_SAID):
        assert_order(strong_order(squares)[0], orders.strong)
    for error in (linear_error, circle_error):
        with pytest.raises(AssertionError, match=ORDER_SAID):
            assert_order(
                order_of(lambda steps, error=error: error(name, "diagonal", steps, reading), STEPS), orders.weak
            )


LOUDER = ALPHA * 1.05**2  # a learning rate that makes noise 5 % louder


@pytest.mark.parametrize(("name", "kind"), DECLARED)
def test_noise_five_percent_too_loud_is_noticed(name, kind):
    declared = SCHEMES[name].orders[kind].weak
    with pytest.raises(AssertionError, match=ORDER_SAID):
        assert_order(order_of(lambda steps: weak_error(name, kind, steps, LOUDER), STEPS), declared)
    if (name, kind) in CIRCLE and kind == "diagonal":
        with pytest.raises(AssertionError, match=ORDER_SAID):
            assert_order(order_of(lambda steps: circle_error(name, kind, steps, None, LOUDER), STEPS), declared)


def test_milstein_without_its_correction_is_noticed():
    without = strong_errors("EulerMaruyama", "diagonal")
    with pytest.raises(AssertionError, match=ORDER_SAID):
        assert_order(strong_order(without)[0], Milstein.orders["diagonal"].strong)


def test_the_second_order_scheme_without_its_second_slope_is_noticed():
    for error, kind in ((linear_error, "diagonal"), (circle_error, "diagonal")):
        with pytest.raises(AssertionError, match=ORDER_SAID):
            assert_order(
                order_of(lambda steps, error=error, kind=kind: error("Milstein", kind, steps), STEPS),
                WeakSecondOrder.orders["diagonal"].weak,
            )


def test_strong_additive_with_half_of_its_numbers_is_noticed():
    """ΔZ = ½ Δt ΔW leaves order 1."""
    truth, squares = true_end("StrongAdditive", "constant"), []
    for steps in COARSE:
        normals = path_of(steps).normals(True)
        normals[:, :, 2:] = 0
        process = strong_process("StrongAdditive", "constant", 1 / steps)
        squares.append(np.square(end_of(process, normals) - truth).sum(1))
    with pytest.raises(AssertionError, match=ORDER_SAID):
        assert_order(strong_order(np.array(squares))[0], StrongAdditive.orders["constant"].strong)


def test_a_stationary_law_of_first_order_is_noticed():
    with pytest.raises(AssertionError, match=ORDER_SAID):
        assert_order(stationary_order("EulerMaruyama"), LeimkuhlerMatthews.stationary_order)


def test_the_table_holds_every_integrator_of_the_package():
    shipped = {each for each in Integrator.__subclasses__() if each.__module__.startswith("langevin_nn.")}
    assert {type(each) for each in SCHEMES.values()} == shipped


# --- Bits -------------------------------------------------------------------------------------------------------------

BLOCK = 17
ADDITIVE_RUNS = {
    "coloured": ColouredNoise(DENSE, 0.3),
    "stable": StableNoise(STRETCHES, 1.4),
}


def run_named(name: str, noise: str, dtype=torch.float64) -> Process:
    if noise in ADDITIVE_RUNS:
        return Process(
            flat(P), ADDITIVE_RUNS[noise], ALPHA, drift=LinearDrift(TURN), update=SCHEMES[name], time_step=STEP
        )
    return bumpy(name, noise, dtype)


def same(one, other, rows=slice(None)) -> bool:
    """Weights and memories, to the bit."""
    for field in ("weights", "update_memory", "noise_memory"):
        mine, its = getattr(one, field), getattr(other, field)
        if mine is not None and not torch.equal(mine, its[rows]):
            return False
    return one.step == other.step


BIT_RUNS = [*RUNS, *(("EulerMaruyama", each) for each in ADDITIVE_RUNS)]
MORE_THAN_TWO_TILES = 2 * LANES + 2


@pytest.fixture
def threads():
    """Change the number of threads, and have it back."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "noise"), BIT_RUNS)
def test_bits_do_not_depend_on_company_threads_or_blocks(name, noise, dtype, threads):
    process = run_named(name, noise, dtype)
    threads(1)
    together = advance(process, process.start(MORE_THAN_TWO_TILES, 3), BLOCK)
    assert len(torch.unique(together.weights, dim=0)) == MORE_THAN_TWO_TILES
    for company, place in (((3,), 0), (range(4), 3), ((77, 3, 129), 1), (range(3, 3 + LANES + 1), 0)):
        others = list(company)
        assert same(advance(process, process.start(others, 3), BLOCK), together, others), f"among {len(others)}"
        assert others[place] == 3
    threads(min(2, numba.config.NUMBA_NUM_THREADS))
    assert same(advance(process, process.start(MORE_THAN_TWO_TILES, 3), BLOCK), together), "threads"
    for cut in (1, 10):
        halves = advance(process, advance(process, process.start(MORE_THAN_TWO_TILES, 3), cut), BLOCK - cut)
        assert same(halves, together), f"cut after {cut}"


@pytest.mark.parametrize(("name", "noise"), RUNS)
def test_following_the_numbers_that_would_be_drawn_changes_nothing(name, noise):
    """The start of a run apart, where one scheme draws a kick from before it."""
    process = bumpy(name, noise)
    started = advance(process, process.start(5, 3), 1)
    z = draw_normals(range(5), Seeds(3).key(PURPOSE), 1, BLOCK, numbers_a_step(name, NOISES[noise].rank))
    assert same(engine.follow(process, started, z), advance(process, started, BLOCK))


@pytest.mark.parametrize("noise", ADDITIVE_RUNS)
def test_noise_with_a_law_of_its_own_follows_two_numbers_a_step(noise):
    process = run_named("EulerMaruyama", noise)
    rank = process.noise.formula(process.landscape).rank
    z = draw_normals(range(5), Seeds(3).key(PURPOSE), 0, BLOCK, 2 * rank)
    assert same(engine.follow(process, process.start(5, 3), z), advance(process, process.start(5, 3), BLOCK))
    with pytest.raises(ConfigurationError, match=rf"expected \(replica, step, number\) = \(5, any, {2 * rank}\)"):
        engine.follow(process, process.start(5, 3), z[:, :, :rank])


# --- Divergence -------------------------------------------------------------------------------------------------------


def steep(x, out):
    for i in range(x.shape[0]):
        out[i] = x[i] ** 3


# At most LANES replicas a tile: the wild ones sit in the second and the first tile, and fail at steps of their own.
WILD = {LANES + 6: 1e6, 5: 200.0}
INDICES = tuple(range(200, 200 + LANES + 10))


def wild_process(name: str, noise: str) -> Process:
    source = NOISES[noise].make(SCHEMES[name].calculus)
    return Process(flat(P), source, ALPHA, drift=Field(steep), update=SCHEMES[name], time_step=0.02)


def wild_start(process: Process):
    weights = np.full((len(INDICES), P), 0.1)
    for place, far in WILD.items():
        weights[place] = far
    return process.start(INDICES, 1, weights)


WILD_RUNS = [(name, noise) for name, noise in RUNS if noise in ("diagonal", "own coordinate")]


@pytest.mark.parametrize(("name", "noise"), WILD_RUNS)
def test_divergence_names_replica_and_step_as_single_steps_do(name, noise):
    process = wild_process(name, noise)
    state, first = wild_start(process), {}
    for step in range(1, 200):
        state = advance(process, state, 1, on_divergence="mask")
        for place in np.flatnonzero(state.diverged.numpy()):
            first.setdefault(int(place), step)
        if len(first) == len(WILD):
            break
    assert set(first) == set(WILD)
    place = min(first, key=lambda each: (first[each], each))
    with pytest.raises(UnstableTrajectory) as caught:
        advance(process, wild_start(process), 200)
    assert (caught.value.replica, caught.value.step) == (INDICES[place], first[place])
    calm = advance(process, wild_start(process), first[place] - 1)
    assert torch.isfinite(calm.weights).all()


@pytest.mark.parametrize(("name", "noise"), WILD_RUNS)
def test_masked_replicas_leave_the_bits_of_the_others_alone(name, noise):
    process = wild_process(name, noise)
    masked = advance(process, wild_start(process), 200, on_divergence="mask")
    healthy = [place for place in range(len(INDICES)) if place not in WILD]
    alone = process.start([INDICES[place] for place in healthy], 1, np.full((len(healthy), P), 0.1))
    alone = advance(process, alone, 200)
    assert masked.step == 200
    assert sorted(np.flatnonzero(masked.diverged.numpy())) == sorted(WILD)
    assert torch.isnan(masked.weights[sorted(WILD)]).all()
    assert torch.equal(masked.weights[healthy], alone.weights)


# --- What is refused --------------------------------------------------------------------------------------------------


def coupled(x, out):
    out[0] = 0.3 * x[1]
    out[1] = 0.2


def not_for_the_compiler(x, out):
    out[:] = x.tolist()


def with_noise(noise: object, update: Update, dimensions: int = 2) -> Process:
    return Process(flat(dimensions), noise, ALPHA, drift=LinearDrift(np.eye(dimensions)), update=update)


@pytest.mark.parametrize("name", ["EulerMaruyama", "Milstein", "WeakSecondOrder"])
def test_noise_in_the_sense_of_stratonovich_is_refused_by_schemes_of_ito(name):
    noise = StateDependentNoise(affine_own, calculus="stratonovich")
    with pytest.raises(ConfigurationError, match=r"in the sense of Stratonovich, but .* in the sense of Itô.*calculus"):
        with_noise(noise, SCHEMES[name])


def test_noise_in_the_sense_of_ito_is_refused_by_heun():
    with pytest.raises(ConfigurationError, match=r"in the sense of Itô, but Heun converges .* Stratonovich"):
        with_noise(StateDependentNoise(affine_own), Heun())
    with_noise(DiagonalNoise(0.3), Heun())  # constant noise is read in one way only


def test_a_calculus_without_a_name_is_refused():
    with pytest.raises(UnknownNameError, match="calculus"):
        StateDependentNoise(affine_own, calculus="klimontovich")


def coupled_far_away(x, out):
    out[0] = 0.3 + 0.1 * max(x[1] - 4.0, 0.0)
    out[1] = 0.2


@pytest.mark.parametrize("name", ["Milstein", "WeakSecondOrder"])
def test_an_amplitude_of_other_coordinates_is_refused_where_mixed_derivatives_are_left_out(name):
    for amplitude in (coupled, coupled_far_away):
        with pytest.raises(ConfigurationError, match=rf"{name} needs an amplitude .* depends on coordinate i alone"):
            with_noise(StateDependentNoise(amplitude), SCHEMES[name])
    with_noise(StateDependentNoise(coupled), EulerMaruyama())


@pytest.mark.parametrize(
    ("name", "noise", "said"),
    [
        ("StrongAdditive", StateDependentNoise(affine_own), "diagonal"),
        ("LeimkuhlerMatthews", StateDependentNoise(affine_own), "diagonal"),
        ("BAOAB", StateDependentNoise(affine_own), "diagonal"),
        ("StrongAdditive", StateDependentNoise(affine_full, rank=2), "full"),
        ("Milstein", StateDependentNoise(affine_full, rank=2), "full"),
        ("WeakSecondOrder", StateDependentNoise(affine_full, rank=2), "full"),
    ],
)
def test_noise_of_a_kind_without_a_declared_order_is_refused(name, noise, said):
    with pytest.raises(ConfigurationError, match=rf"{name} cannot run StateDependentNoise, whose factor is {said}"):
        with_noise(noise, SCHEMES[name])


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "EulerMaruyama"])
@pytest.mark.parametrize("law", ADDITIVE_RUNS)
def test_noise_that_is_not_brownian_is_refused_by_all_but_euler_maruyama(name, law):
    with pytest.raises(
        ConfigurationError, match=rf"{name} cannot run the {law} noise of .*: expected noise that is brownian"
    ):
        with_noise(ADDITIVE_RUNS[law], SCHEMES[name], P)


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), True, "1", None])
def test_numbers_that_have_to_be_positive_and_finite(value):
    with pytest.raises(ConfigurationError, match=r"friction=.*: expected a positive, finite number"):
        BAOAB(value)
    with pytest.raises(ConfigurationError, match=r"correlation_time=.*: expected a positive, finite number"):
        ColouredNoise(1.0, value)
    with pytest.raises(ConfigurationError, match=r"index=.*: expected a number above 0 and at most 2"):
        StableNoise(1.0, value)
    if value != 0 or isinstance(value, bool):
        with pytest.raises(ConfigurationError, match=r"temperature=.*: expected a finite number T ≥ 0"):
            ThermalNoise(value)


@pytest.mark.parametrize(
    ("noise", "update", "said"),
    [
        (ColouredNoise(0.3, 1.0), EulerMaruyama(), r"noise_memory of the state has shape None: expected \(3, 2\)"),
        (DiagonalNoise(0.3), BAOAB(1.0), r"update_memory of the state has shape None: expected \(3, 2\)"),
    ],
)
def test_a_state_of_another_process_is_refused(noise, update, said):
    """Kernels would read and write beyond the memory that it brings."""
    state = with_noise(DiagonalNoise(0.3), EulerMaruyama()).start(3, 0)
    process = with_noise(noise, update)
    with pytest.raises(ConfigurationError, match=said):
        advance(process, state, 5)
    advance(process, process.start(3, 0, weights=state.weights), 5)
    with pytest.raises(ConfigurationError, match=r"weights of the state has shape \(3, 2\): expected \(3, 3\)"):
        advance(run_named("EulerMaruyama", "dense"), state, 5)


@pytest.mark.parametrize(("dtype", "index"), [(torch.float64, 0.005), (torch.float32, 0.04)])
def test_noise_that_vanishes_in_floating_point_is_refused(dtype, index):
    """Δt^(1/index) would be 0 and the run silently without noise."""
    landscape = PotentialLandscape(ripples, P, dtype=dtype)
    with pytest.raises(ConfigurationError, match=r"time_step\^\d+ are within torch.float"):
        Process(landscape, StableNoise(1.0, index), ALPHA, update=EulerMaruyama(), time_step=0.01)
    Process(landscape, StableNoise(1.0, 0.5), ALPHA, update=EulerMaruyama(), time_step=0.01)


def test_a_pair_of_numbers_without_a_direction_makes_no_stable_number():
    """In Python as in the kernel; one that is 0 alone has one."""
    pairs = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    for index in (0.7, 1.0, 1.5):
        found = stable_numbers(pairs, index)[:, 0]
        process = with_noise(StableNoise(1.0, index), EulerMaruyama(), 1)
        moved = engine.follow(process, process.start(3, 0, np.zeros((3, 1))), pairs[:, None]).weights[:, 0]
        assert found[0] == 0
        np.testing.assert_allclose(moved, -(ALPHA ** (1 - 1 / index)) * ALPHA ** (1 / index) * found, rtol=1e-12)


def test_a_stable_index_beyond_two_is_refused():
    with pytest.raises(ConfigurationError, match=r"index=2.5: expected a number above 0 and at most 2"):
        StableNoise(1.0, 2.5)


@pytest.mark.parametrize("rank", [0, -1, 1.5, True])
def test_a_rank_that_counts_no_columns_is_refused(rank):
    with pytest.raises(ConfigurationError, match=rf"rank={rank}: expected a whole number from 1"):
        StateDependentNoise(affine_full, rank=rank)


def test_factors_of_other_shapes_are_refused():
    with pytest.raises(ConfigurationError, match=r"factor has shape \(2, 2\): expected a number or \(parameter,\)"):
        DiagonalNoise(MIXING)
    with pytest.raises(ConfigurationError, match=r"the noise factor has 3 rows: expected 2"):
        with_noise(AnisotropicNoise(DENSE), EulerMaruyama())
    with pytest.raises(ConfigurationError, match="numbers that are not finite"):
        DiagonalNoise(float("nan"))


def plain_half(number):
    return 0.5 * number


def test_a_helper_that_is_not_compiled_is_named_with_what_it_lacks():
    module, enclosed = ModuleType("helpers"), plain_half
    module.half_of = plain_half
    for name, potential in (
        ("plain_half", lambda x: plain_half(x[0] ** 2)),
        ("half_of", lambda x: module.half_of(x[0] ** 2)),
        ("enclosed", lambda x: enclosed(x[0] ** 2)),
    ):
        with pytest.raises(ConfigurationError, match=rf"put @numba\.njit before {name};"):
            PotentialLandscape(potential, 1).gradient(torch.ones(1, 1))


def test_functions_that_do_not_compile_are_refused():
    with pytest.raises(ConfigurationError, match=r"not_for_the_compiler cannot be compiled .*: expected .*\(x, out\)"):
        with_noise(StateDependentNoise(not_for_the_compiler), EulerMaruyama())
    with pytest.raises(
        ConfigurationError, match=r"amplitude is of type float: expected a function amplitude\(x, out\)"
    ):
        StateDependentNoise(0.3)


def test_a_gradient_that_is_not_that_of_the_potential_is_refused():
    with pytest.raises(ConfigurationError, match=r"the gradient is .* where differences of the potential are"):
        PotentialLandscape(ripples, P, gradient=steep)


def test_a_sum_of_more_drifts_than_a_kernel_adds_is_refused():
    four = LinearDrift(np.eye(2)) + LinearDrift(np.eye(2)) + LinearDrift(np.eye(2)) + Confinement(1.0, 1.0)
    with pytest.raises(ConfigurationError, match="a sum of 4 drifts came: expected at most 3"):
        Process(flat(2), DiagonalNoise(0.3), ALPHA, drift=four, update=EulerMaruyama())


# --- Constant noise of every shape, and given numbers of another -------------------------------------------------------


@pytest.mark.parametrize("update", [Milstein(), WeakSecondOrder()], ids=["Milstein", "WeakSecondOrder"])
@pytest.mark.parametrize(
    "noise", [AnisotropicNoise([[1.0], [0.5]]), AnisotropicNoise([[1.0, 0.3], [0.2, 1.0]]), Silent()]
)
def test_schemes_for_diagonal_noise_take_constant_noise_of_any_shape(update, noise):
    """In a flat landscape all schemes agree with constant noise: the sum of the kicks."""
    flat = QuadraticLandscape(np.zeros((2, 2)), np.zeros((2, 2)))
    ends = []
    for each in (update, EulerMaruyama()):
        process = Process(flat, noise, 0.3, drift=LinearDrift(np.zeros((2, 2))), update=each, time_step=0.1)
        ends.append(advance(process, process.start(3, 0), 5).weights.numpy())
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-14)
    assert (np.abs(ends[0]).max() > 0.01) == (not isinstance(noise, Silent))


@pytest.mark.parametrize("shape", [(3, 1, 2), (1, 1, 4), (3, 1, 0), (3, 0, 4), (3, 4)])
def test_given_numbers_of_another_shape_are_refused(shape):
    flat = QuadraticLandscape(np.zeros((2, 2)), np.zeros((2, 2)))
    process = Process(flat, DiagonalNoise(1.0), 0.3, update=StrongAdditive())
    with pytest.raises(
        ConfigurationError, match=r"normals have shape .*: expected \(replica, step, number\) = \(3, any, 4\)"
    ):
        engine.follow(process, process.start(3, 0), np.ones(shape))
