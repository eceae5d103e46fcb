"""Exact stochastic laws of surrogate dynamics, each within standard errors of a planned sample and beside a twin that fails.

Replicas are independent, so that n of them know a variance to √(2/n) of itself, a covariance to √((1 + ρ²)/n), a
correlation to (1 − ρ²)/√n and a probability to √(p (1 − p)/n). Bounds are `SIGMAS` such errors.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import cumulative_trapezoid
from scipy.linalg import expm, solve_continuous_lyapunov, solve_discrete_lyapunov
from scipy.special import gamma
from twins import Straight, over_a_step

from langevin_nn import Process, advance, sgd
from langevin_nn.drift import LinearDrift
from langevin_nn.errors import ConfigurationError
from langevin_nn.evaluation import evaluate
from langevin_nn.landscape import LinearRegressionLandscape, PotentialLandscape, QuadraticLandscape
from langevin_nn.noise import AnisotropicNoise, ColouredNoise, DiagonalNoise, LandscapeNoise, StableNoise, ThermalNoise
from langevin_nn.update import BAOAB, EulerMaruyama, Heun, LeimkuhlerMatthews, Momentum, Plain, UnderdampedLangevin

SIGMAS = 4.5


def bowl(hessian, **options) -> QuadraticLandscape:
    return QuadraticLandscape(hessian, np.zeros_like(np.asarray(hessian, float)), **options)


def settled(process: Process, replicas: int, steps: int, seed: int = 0, weights=None) -> np.ndarray:
    return advance(process, process.start(replicas, seed, weights), steps).weights.double().numpy()


def assert_near(measured, expected, error, what: str) -> None:
    """Each number within `SIGMAS` of its standard error."""
    off = np.abs(np.asarray(measured) - expected) / error
    assert np.all(off <= SIGMAS), f"{what}: {np.max(off):.1f} standard errors off"


def assert_mean(samples: np.ndarray, expected, what: str) -> None:
    """The mean over replicas, whose standard error comes from their spread."""
    assert_near(samples.mean(0), expected, samples.std(0, ddof=1) / math.sqrt(len(samples)), what)


def assert_covariance(x: np.ndarray, expected: np.ndarray, mean=0.0) -> None:
    """Gaussian samples, whitened by the expected law, have mean 0 ± 1/√n and covariance 1 ± √((1 + δ_ij)/n)."""
    n, dimensions = x.shape
    white = np.linalg.solve(np.linalg.cholesky(expected), (x - mean).T)
    assert_near(white.mean(1), 0, 1 / math.sqrt(n), "mean")
    identity = np.eye(dimensions)
    assert_near(white @ white.T / n, identity, np.sqrt((1 + identity) / n), "covariance")


# --- Linear drift: discrete Lyapunov ----------------------------------------------------------------------------------

SYMMETRIC = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 3.0]])
TURNING = np.array([[1.0, 2.0, 0.0], [-1.5, 0.8, 0.3], [0.4, 0.0, 2.0]])
DENSE = np.array([[1.0, 0.3, 0.0, 0.2], [0.0, 0.5, 0.7, 0.0], [0.4, -0.6, 0.2, 1.0]])
CENTRE = np.array([1.0, -2.0, 0.5])


def lyapunov(matrix, factor, alpha: float, time_step: float) -> np.ndarray:
    """S = (1 − Δt A) S (1 − Δt A)ᵀ + α Δt F Fᵀ"""
    contraction = np.eye(len(matrix)) - time_step * np.asarray(matrix)
    return solve_discrete_lyapunov(contraction, alpha * time_step * factor @ factor.T)


def linear_process(matrix, factor, alpha, time_step, dtype=torch.float64) -> Process:
    arena = PotentialLandscape(flat, 3, start=CENTRE, dtype=dtype)
    drift = LinearDrift(matrix, CENTRE)
    return Process(arena, AnisotropicNoise(factor), alpha, drift=drift, update=EulerMaruyama(), time_step=time_step)


def flat(x):
    return 0.0 * x[0]


@pytest.mark.parametrize(
    ("matrix", "dtype"),
    [(SYMMETRIC, torch.float64), (TURNING, torch.float64), (TURNING, torch.float32)],
    ids=["symmetric", "turning", "single precision"],
)
def test_linear_drift_settles_to_the_discrete_lyapunov_covariance(matrix, dtype):
    """10⁵ replicas, Δt = α/3, burnt in to e⁻²⁰: variances to 0.45 %, nine standard errors for a noise 2 % louder."""
    alpha, time_step = 0.3, 0.1
    expected = lyapunov(matrix, DENSE, alpha, time_step)
    x = settled(linear_process(matrix, DENSE, alpha, time_step, dtype), 100_000, 300)
    assert_covariance(x, expected, CENTRE)
    with pytest.raises(AssertionError, match="covariance"):
        assert_covariance(x, lyapunov(matrix, 1.02 * DENSE, alpha, time_step), CENTRE)
    with pytest.raises(AssertionError, match="covariance"):
        assert_covariance(x, lyapunov(matrix, DENSE, alpha, alpha), CENTRE)
    with pytest.raises(AssertionError, match="covariance"):  # the law of continuous time
        assert_covariance(x, solve_continuous_lyapunov(matrix, alpha * DENSE @ DENSE.T), CENTRE)
    with pytest.raises(AssertionError, match="mean"):
        assert_covariance(x, expected, CENTRE + 0.02)


# --- Boltzmann's law --------------------------------------------------------------------------------------------------

TEMPERATURE = 0.25


def tilted(x):
    return x[0] ** 4 / 4 - x[0] ** 2 / 2 + x[0] / 10


def tilted_slope(x, out):
    out[0] = x[0] ** 3 - x[0] + 0.1


def double_well() -> PotentialLandscape:
    return PotentialLandscape(tilted, 1, gradient=tilted_slope)


def boltzmann(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and density exp(−U/T)/Z, by the trapezoidal rule on 4,001 points."""
    grid = np.linspace(-3.5, 3.5, 4001)
    density = np.exp(-(grid**4 / 4 - grid**2 / 2 + grid / 10) / temperature)
    return grid, density / np.trapezoid(density, grid)


def euler_law(temperature: float, time_step: float) -> tuple[np.ndarray, np.ndarray]:
    """The law that x ← x − U′ Δt + √(2TΔt) ξ keeps: the first eigenvector of its transition density on a grid."""
    grid = np.linspace(-3.0, 3.0, 801)
    there = grid - time_step * (grid**3 - grid + 0.1)
    moves = stats.norm.pdf(grid[:, None], there[None], math.sqrt(2 * temperature * time_step)) * (grid[1] - grid[0])
    density = np.linalg.matrix_power(moves, 4096) @ np.ones_like(grid)
    return grid, density / np.trapezoid(density, grid)


def assert_distributed(x: np.ndarray, grid: np.ndarray, density: np.ndarray) -> None:
    """χ² of 40 bins of equal probability; beyond the bound in one of 10⁵ samples."""
    below = cumulative_trapezoid(density, grid, initial=0)
    edges = np.interp(np.arange(1, 40) / 40, below / below[-1], grid)
    counts = np.bincount(np.searchsorted(edges, x), minlength=40)
    squares = float(((counts - len(x) / 40) ** 2).sum() / (len(x) / 40))
    assert squares <= stats.chi2.isf(1e-5, 39), f"chi squared is {squares:.0f} with 39 degrees of freedom"


@pytest.mark.parametrize(
    ("update", "time_step"),
    [(LeimkuhlerMatthews(), 0.05), (BAOAB(1.0), 0.1), (Heun(), 0.05)],
    ids=["leimkuhler-matthews", "baoab", "heun"],
)
def test_schemes_of_second_stationary_order_keep_boltzmanns_law_in_a_double_well(update, time_step):
    """10⁵ replicas from the barrier over 60 units of time: wells exchange at rate 0.2; a temperature 6 % up is refused."""
    process = Process(double_well(), ThermalNoise(TEMPERATURE), 1.0, update=update, time_step=time_step)
    x = settled(process, 100_000, int(60 / time_step))[:, 0]
    assert_distributed(x, *boltzmann(TEMPERATURE))
    with pytest.raises(AssertionError, match="chi squared"):
        assert_distributed(x, *boltzmann(1.06 * TEMPERATURE))


def test_euler_maruyama_keeps_the_law_of_its_own_chain_and_not_boltzmanns():
    """At Δt = 0.1 variances within the wells are 6 % too large, as the transition density says to all digits."""
    time_step = 0.1
    process = Process(double_well(), ThermalNoise(TEMPERATURE), 1.0, update=EulerMaruyama(), time_step=time_step)
    x = settled(process, 100_000, int(60 / time_step))[:, 0]
    assert_distributed(x, *euler_law(TEMPERATURE, time_step))
    with pytest.raises(AssertionError, match="chi squared"):
        assert_distributed(x, *boltzmann(TEMPERATURE))


# --- Kramers' rate of escape ------------------------------------------------------------------------------------------

BARRIER = 0.25


def symmetric_well(x):
    return (x[0] * x[0] - 1) ** 2 / 4


def symmetric_slope(x, out):
    out[0] = x[0] * (x[0] * x[0] - 1)


def height(x):
    return (x * x - 1) ** 2 / 4


def passage_time(temperature: float) -> float:
    """∫₋₁¹ dy e^{U(y)/T} ∫₋∞^y dz e^{−U(z)/T}/T: the mean time from one well to the bottom of the other."""
    grid = np.linspace(-3, 1, 40_001)
    inner = cumulative_trapezoid(np.exp(-height(grid) / temperature), grid, initial=0)
    outer = np.where(grid >= -1, np.exp(height(grid) / temperature) * inner / temperature, 0)
    return float(np.trapezoid(outer, grid))


def kramers(temperature: float) -> float:
    """√(U″_min |U″_top|)/(2π) exp(−ΔU/T)"""
    return math.sqrt(2 * 1) / (2 * math.pi) * math.exp(-BARRIER / temperature)


def escape_rate(temperature: float, every: float = 1.0) -> float:
    """Slowest decay of those never seen beyond 1 when looked at every so often, of the continuous equation.

    Finite volumes whose rates keep Boltzmann's law to all digits, exponentiated over the time between two looks.
    """
    cells = 520
    grid = (np.arange(cells) + 0.5) / cells * 5.2 - 2.6
    width = 5.2 / cells
    weight = np.exp(-(height(grid) - height(grid).min()) / temperature)
    flow = temperature / width**2 * np.sqrt(weight[:-1] * weight[1:])
    generator = np.diag(flow / weight[:-1], -1) + np.diag(flow / weight[1:], 1)
    generator -= np.diag(generator.sum(0))
    inside = grid < 1
    kept = expm(every * generator)[np.ix_(inside, inside)]
    return -math.log(float(np.abs(np.linalg.eigvals(kept)).max())) / every


def survivals(process: Process, replicas: int, blocks: int, seed: int = 0) -> np.ndarray:
    """Share of replicas never seen beyond 1 at the end of the first 1, 2, … units of time."""
    steps = round(1 / process.time_step)
    state, alive, shares = process.start(replicas, seed), np.ones(replicas, bool), []
    for _ in range(blocks):
        state = advance(process, state, steps)
        alive &= state.weights[:, 0].numpy() <= 1
        shares.append(alive.mean())
    return np.array(shares)


def escaping(temperature: float, update, time_step: float) -> Process:
    landscape = PotentialLandscape(symmetric_well, 1, gradient=symmetric_slope, start=[-1.0])
    return Process(landscape, ThermalNoise(temperature), 1.0, update=update, time_step=time_step)


def assert_rate(shares: np.ndarray, replicas: int, expected: float) -> None:
    """The rate between times 10 and 40, of survivors S: √((1 − S₄₀/S₁₀)/(n S₄₀))/30."""
    ratio = shares[39] / shares[9]
    rate = -math.log(ratio) / 30
    assert_near(rate, expected, math.sqrt((1 - ratio) / (replicas * shares[39])) / 30, "rate of escape")


@pytest.mark.proof
@pytest.mark.parametrize("barrier", [3, 4, 5, 6, 7])
def test_replicas_escape_at_the_exact_rate_and_nearly_at_that_of_kramers(barrier):
    """50,000 replicas: the rate to 1 % at ΔU = 3T, 6 % at 7T, and Heun's scheme errs by some 0.3 % at Δt = 0.05.

    The mean first passage time, from its integral, is 1/rate but for the time to relax within a well; Kramers' formula
    lacks 1 + (3/2) T + O(T²), from the third and fourth derivatives of U at both ends.
    """
    temperature, replicas = BARRIER / barrier, 50_000
    exact = escape_rate(temperature)
    shares = survivals(escaping(temperature, Heun(), 0.05), replicas, 40)
    assert_rate(shares, replicas, exact)
    time = passage_time(temperature)
    assert exact * time == pytest.approx(1, abs=2.5 * exact + 1e-3)
    assert 6 < (time * kramers(temperature) - 1 - 1.5 * temperature) / temperature**2 < 15
    with pytest.raises(AssertionError, match="rate of escape"):
        assert_rate(shares, replicas, escape_rate(1.06 * temperature))


def test_euler_maruyama_survives_as_its_own_chain_does():
    """Every share of survivors up to time 40, by powers of the transition density without those beyond 1; binomial errors.

    Its rate at Δt = 0.1 is 2.5 % above that of the equation itself.
    """
    temperature, time_step, replicas = BARRIER / 3, 0.1, 100_000
    shares = survivals(escaping(temperature, EulerMaruyama(), time_step), replicas, 40)

    def chain(temperature: float) -> np.ndarray:
        grid = (np.arange(700) + 0.5) / 700 * 4.8 - 2.4  # an edge of a cell is 1
        there = grid - time_step * grid * (grid * grid - 1)
        scale = math.sqrt(2 * temperature * time_step)
        density = stats.norm.pdf(grid, -1.0, scale)
        moves = stats.norm.pdf(grid[:, None], there[None], scale) * (grid[1] - grid[0])
        density = np.linalg.matrix_power(moves, 9) @ density
        block, expected = np.linalg.matrix_power(moves, 10), []
        for _ in range(40):
            density = np.where(grid < 1, density, 0)
            # The cell that 1 cuts: only its part below counts.
            expected.append(density.sum() * (grid[1] - grid[0]))
            density = block @ density
        return np.array(expected)

    def check(expected: np.ndarray) -> None:
        for late in (4, 9, 19, 39):
            p = expected[late]
            assert_near(shares[late], p, math.sqrt(p * (1 - p) / replicas), "survivors")

    check(chain(temperature))
    with pytest.raises(AssertionError, match="survivors"):
        check(chain(1.02 * temperature))


# --- Autocorrelation --------------------------------------------------------------------------------------------------


def series(process: Process, replicas: int, burn_in: int, steps: int, seed: int = 0) -> np.ndarray:
    """Stationary weights of one dimension, shape (step, replica)."""
    state = advance(process, process.start(replicas, seed), burn_in)
    rows = [state.weights[:, 0].numpy()]
    for _ in range(steps - 1):
        state = advance(process, state, 1)
        rows.append(state.weights[:, 0].numpy())
    return np.array(rows)


def test_autocorrelation_of_a_chain_in_a_bowl_is_a_geometric_series():
    """ρ(k) = (1 − Δt h)^k; e^{−hΔtk} is refused. The mean over T steps has variance (S/T²) Σ_ij ρ(|i − j|)."""
    replicas, steps, decay = 40_000, 60, 0.7
    process = Process(bowl([[2.0]]), DiagonalNoise(1.0), 0.3, update=EulerMaruyama(), time_step=0.15)
    x = series(process, replicas, 80, steps)
    variance = 0.3 * 0.15 / (1 - decay**2)

    def check(decay: float) -> None:
        for lag in (1, 2, 3, 5, 8):
            expected = decay**lag
            error = (1 - expected**2) / math.sqrt(replicas)
            assert_near(np.corrcoef(x[0], x[lag])[0, 1], expected, error, "autocorrelation")
            assert_near(np.corrcoef(x[30], x[30 + lag])[0, 1], expected, error, "autocorrelation")

    def check_mean(decay: float) -> None:
        apart = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
        expected = variance * (decay**apart).mean()
        assert_near((x.mean(0) ** 2).mean() / expected, 1, math.sqrt(2 / replicas), "autocorrelation time")

    check(decay)
    check_mean(decay)
    with pytest.raises(AssertionError, match="autocorrelation"):
        check(math.exp(-0.3))
    with pytest.raises(AssertionError, match="autocorrelation time"):
        check_mean(math.exp(-0.3))


# --- Stable noise -----------------------------------------------------------------------------------------------------

INDICES = [0.8, 1.0, 1.5, 2.0]


@cache
def stable_sums(index: float, alpha: float, time_step: float, steps: int) -> np.ndarray:
    """10⁶ displacements without a drift: ten independent coordinates of 10⁵ replicas."""
    drift = LinearDrift(np.zeros((10, 10)))
    process = Process(
        bowl(np.eye(10)), StableNoise(1.0, index), alpha, drift=drift, update=EulerMaruyama(), time_step=time_step
    )
    return settled(process, 100_000, steps).ravel()


def assert_characteristic(x: np.ndarray, index: float, spread: float) -> None:
    """⟨cos kx⟩ = φ(k) = exp(−spread |k|^index), of standard error √(((1 + φ(2k))/2 − φ(k)²)/n); ⟨sin kx⟩ = 0."""
    for k in (0.25, 0.5, 1.0, 2.0):
        first, second = math.exp(-spread * k**index), math.exp(-spread * (2 * k) ** index)
        error = math.sqrt(((1 + second) / 2 - first**2) / len(x))
        assert_near(np.cos(k * x).mean(), first, error, "characteristic function")
        assert_near(np.sin(k * x).mean(), 0, math.sqrt((1 - second) / 2 / len(x)), "odd part")


@pytest.mark.parametrize("index", INDICES)
def test_stable_noise_has_its_characteristic_function(index):
    """exp(−|k|^index) to three digits; an index or a scale 5 % off is refused."""
    x = stable_sums(index, 1.0, 1.0, 1)
    assert_characteristic(x, index, 1.0)
    for wrong, spread in ((0.95 * index, 1.0), (index, 1.05), (index, 0.95)):
        with pytest.raises(AssertionError, match="characteristic function"):
            assert_characteristic(x, wrong, spread)
    if index == 2:
        assert_near(x.var(), 2, math.sqrt(8 / len(x)), "variance")


@pytest.mark.parametrize("index", INDICES)
def test_sums_of_stable_noise_grow_with_time_to_the_power_one_over_the_index(index):
    """α^(1 − 1/index) (nΔt)^(1/index), which is √α √(nΔt) at index 2 alone."""
    alpha, time_step, steps = 0.5, 0.3, 5
    x = stable_sums(index, alpha, time_step, steps)
    assert_characteristic(x, index, alpha ** (index - 1) * steps * time_step)
    if index != 2:
        with pytest.raises(AssertionError, match="characteristic function"):
            assert_characteristic(x, index, (alpha * steps * time_step) ** (index / 2))


@pytest.mark.parametrize("index", [0.8, 1.5])
def test_euler_maruyama_with_stable_noise_converges_with_order_one_in_its_characteristic_function(index):
    """In a bowl −ln φ = α^(index − 1) Δt Σ_s |1 − hΔt|^(s·index) |k|^index at any step, an integral for Δt → 0."""
    alpha, h = 0.5, 0.9

    def spread(steps: int) -> float:
        return alpha ** (index - 1) / steps * (abs(1 - h / steps) ** (index * np.arange(steps))).sum()

    drift = LinearDrift(h * np.eye(10))
    process = Process(
        bowl(np.eye(10)), StableNoise(1.0, index), alpha, drift=drift, update=EulerMaruyama(), time_step=1 / 4
    )
    x = settled(process, 50_000, 4).ravel()
    assert_characteristic(x, index, spread(4))
    truth = alpha ** (index - 1) * -math.expm1(-h * index) / (h * index)
    with pytest.raises(AssertionError, match="characteristic function"):
        assert_characteristic(x, index, truth)
    steps = [64, 128, 256, 512]
    order = -np.polyfit(np.log(steps), np.log([abs(spread(each) - truth) for each in steps]), 1)[0]
    assert abs(order - EulerMaruyama.orders["constant"].weak) < 0.05


@pytest.mark.parametrize("index", [0.8, 1.0, 1.5])
def test_tails_of_stable_noise_fall_as_a_power(index):
    """P(|x| > t) = (2/π) Σ_m (−1)^(m+1) Γ(m·index)/m! sin(mπ·index/2) t^(−m·index) (Bergström 1952); binomial errors."""
    x = np.abs(stable_sums(index, 1.0, 1.0, 1))

    def check(index: float) -> None:
        for threshold in (20.0, 100.0, 500.0):
            terms = [
                (-1) ** (m + 1) * gamma(m * index) / math.factorial(m) * math.sin(m * math.pi * index / 2)
                / threshold ** (m * index)
                for m in range(1, 5)
            ]  # fmt: skip
            p = 2 / math.pi * sum(terms)
            assert_near((x > threshold).mean(), p, math.sqrt(p * (1 - p) / len(x)), "tail")

    check(index)
    with pytest.raises(AssertionError, match="tail"):
        check(1.03 * index)


# --- Coloured noise ---------------------------------------------------------------------------------------------------


def test_coloured_noise_is_stationary_from_the_first_step_and_forgets_exponentially():
    """⟨ζ(t) ζ(s)⟩ = exp(−|t − s|/τ)/(2τ), to √((1 + ρ²)/n); correlations that last 5 % longer are refused."""
    correlation_time, time_step, replicas = 0.5, 0.1, 200_000
    noise = ColouredNoise(1.0, correlation_time)
    process = Process(bowl([[1.0]]), noise, 0.3, update=EulerMaruyama(), time_step=time_step)
    state, seen = process.start(replicas, 0), {}
    for step in range(1, 22):
        state = advance(process, state, 1)
        if step in (1, 2, 4, 9, 21):
            seen[step] = state.noise_memory[:, 0].numpy()

    def check(tau: float) -> None:
        for one, other in product(seen, seen):
            correlation = math.exp(-abs(one - other) * time_step / tau)
            error = math.sqrt((1 + correlation**2) / replicas)
            measured = (seen[one] * seen[other]).mean() * 2 * correlation_time
            assert_near(measured, correlation, error, "autocovariance")

    check(correlation_time)
    with pytest.raises(AssertionError, match="autocovariance"):
        check(1.05 * correlation_time)
    grown = 1 - math.exp(-2 * time_step / correlation_time)  # had ζ started from nothing
    with pytest.raises(AssertionError, match="first step"):
        assert_near(seen[1].var() * 2 * correlation_time / grown, 1, math.sqrt(2 / replicas), "first step")


def coloured_displacement(alpha: float, tau: float, time: float) -> float:
    """α (t − τ (1 − e^(−t/τ))), for a particle without a drift."""
    return alpha * (time + tau * math.expm1(-time / tau))


@pytest.mark.parametrize("tau", [0.005, 0.5])
def test_coloured_noise_diffuses_ballistically_at_first_and_as_white_noise_in_the_long_run(tau):
    """⟨x²⟩ is α t²/(2τ) for t ≪ τ and α t for t ≫ τ, whatever the time step."""
    alpha, time_step, replicas = 0.3, 0.1, 100_000
    drift = LinearDrift([[0.0]])
    process = Process(
        bowl([[1.0]]), ColouredNoise(1.0, tau), alpha, drift=drift, update=EulerMaruyama(), time_step=time_step
    )
    state = process.start(replicas, 0)
    for steps in (1, 3, 20, 1000):
        state = advance(process, state, steps - state.step)
        expected = coloured_displacement(alpha, tau, steps * time_step)
        measured = float((state.weights**2).mean())
        assert_near(measured / expected, 1, math.sqrt(2 / replicas), "displacement")
        white = alpha * steps * time_step
        if steps == 1000:
            assert expected == pytest.approx(white, rel=0.01)
        elif tau > time_step:
            with pytest.raises(AssertionError, match="displacement"):
                assert_near(measured / white, 1, math.sqrt(2 / replicas), "displacement")


def coloured_law(scheme: np.ndarray, kick: np.ndarray, rank: int, tau: float, time_step: float) -> np.ndarray:
    """The covariance of (state of a scheme, ζ): state ← scheme · state − kick ∫ζ dt."""
    n = len(scheme)
    # Of (ζ, ∫ζ dt), dζ = −ζ/τ dt + dW/τ.
    one, added = over_a_step(np.array([[-1 / tau, 0], [1, 0]]), np.diag([1 / tau**2, 0]), tau, time_step)
    push, decay = one[1, 0], one[0, 0]
    step = np.block([[scheme, -push * kick], [np.zeros((rank, n)), decay * np.eye(rank)]])
    through = [np.vstack([np.zeros((n, rank)), np.eye(rank)]), np.vstack([-kick, np.zeros((rank, rank))])]
    noise = sum(added[i, j] * through[i] @ through[j].T for i in range(2) for j in range(2))
    return solve_discrete_lyapunov(step, noise)


def test_coloured_noise_and_linear_drift_settle_to_their_joint_covariance():
    """Weights and noise together, 10⁵ replicas; white noise of the same strength, or another τ, is refused."""
    alpha, tau, time_step = 0.3, 0.4, 0.1
    matrix, factor = TURNING[:2, :2], DENSE[:2, :2]
    noise, drift = ColouredNoise(factor, tau), LinearDrift(matrix)
    process = Process(bowl(np.eye(2)), noise, alpha, drift=drift, update=EulerMaruyama(), time_step=time_step)
    state = advance(process, process.start(100_000, 0), 300)
    joint = torch.cat([state.weights, state.noise_memory], 1).numpy()

    def law(tau):
        return coloured_law(np.eye(2) - time_step * matrix, math.sqrt(alpha) * factor, 2, tau, time_step)

    assert_covariance(joint, law(tau))
    with pytest.raises(AssertionError, match="covariance"):
        assert_covariance(joint[:, :2], lyapunov(matrix, factor, alpha, time_step))
    with pytest.raises(AssertionError, match="covariance"):
        assert_covariance(joint, law(1.05 * tau))


def test_the_joint_covariance_becomes_that_of_white_noise():
    """In one dimension α/(2h (1 + hτ)) for small Δt, so that the deficit halves with τ."""
    for tau in (0.2, 0.1, 0.05):
        step = np.array([[1 - 1e-5 * 2]])
        variance = coloured_law(step, np.full((1, 1), math.sqrt(0.3)), 1, tau, 1e-5)[0, 0]
        assert variance == pytest.approx(0.3 / (2 * 2 * (1 + 2 * tau)), rel=1e-4)


# Δt/τ, from noise that hardly changes over a step to noise that is white for it.
RATIOS = [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3]
CURVATURE, COLOURED_STEP, COLOURED_ALPHA = 1.5, 0.2, 0.7


class Held(ColouredNoise):
    """Mutated twin in Python: ζ at the end of a step is held over all of it."""

    def over(self, time_step):
        step = super().over(time_step)

        def driving(*arguments):
            _, after = type(step)._driving(step, *arguments)
            return after.numpy(), after

        object.__setattr__(step, "_driving", driving)
        return step


def coloured_scheme(update) -> tuple[np.ndarray, np.ndarray]:
    """What a step does to (x, v) or x alone, and what ∫ζ dt adds, typed from the formulas of each rule."""
    h, dt, root = CURVATURE, COLOURED_STEP, math.sqrt(COLOURED_ALPHA)
    if isinstance(update, Momentum):
        mu = update.momentum
        return np.array([[1 - dt * h, -dt * mu], [h, mu]]), np.array([[root], [-root / dt]])
    if isinstance(update, UnderdampedLangevin):
        r = dt / update.mass
        kept = 1 - r * update.friction
        return np.array([[1 - dt * r * h, dt * kept], [-r * h, kept]]), np.array([[r * root], [r * root / dt]])
    return np.array([[1 - dt * h]]), np.array([[root]])


def assert_settles_with_coloured_noise(update, kind: type, ratio: float) -> None:
    """Weights, memory and ζ together after 60 steps, more than twenty times as long as a bowl remembers."""
    process = Process(
        bowl([[CURVATURE]]),
        kind(1.0, COLOURED_STEP / ratio),
        COLOURED_ALPHA,
        update=update,
        time_step=COLOURED_STEP,
    )
    state = advance(process, process.start(40_000, 1), 60)
    parts = [each for each in (state.weights, state.update_memory, state.noise_memory) if each is not None]
    expected = coloured_law(*coloured_scheme(update), 1, COLOURED_STEP / ratio, COLOURED_STEP)
    assert_covariance(torch.cat(parts, 1).numpy(), expected)


COLOURED_UPDATES = [EulerMaruyama(), Plain(), Momentum(0.4), UnderdampedLangevin(0.3, 0.9)]


@pytest.mark.parametrize("update", COLOURED_UPDATES, ids=lambda each: type(each).__name__)
def test_coloured_noise_has_its_law_at_any_ratio_of_the_time_step_to_its_correlation_time(update):
    for ratio in RATIOS if isinstance(update, EulerMaruyama) else (1e-3, 1.0, 1e3):
        assert_settles_with_coloured_noise(update, ColouredNoise, ratio)


@pytest.mark.parametrize(
    ("update", "twin"),
    [(EulerMaruyama(), Straight), (Plain(), Held)],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_coloured_noise_that_the_step_does_not_resolve_is_noticed(update, twin):
    """From Δt/τ = 1 on; below, the twins are close to what they stand for."""
    for ratio in (1.0, 10.0, 100.0, 1e3):
        with pytest.raises(AssertionError, match="standard errors off"):
            assert_settles_with_coloured_noise(update, twin, ratio)


# --- Fluctuation and dissipation --------------------------------------------------------------------------------------

HESSIAN = np.array([[2.0, 0.5], [0.5, 1.0]])
FORCE = np.array([0.3, -0.2])
UNFIT = np.array([[1.0, 0.0], [0.8, 0.4]])  # F Fᵀ does not commute with the Hessian


def response_and_correlation(noise, lag: int, replicas: int) -> tuple[np.ndarray, np.ndarray]:
    """χ(t) f of the same replicas with and without a force, and x₀ ⊗ x₀ − x_t ⊗ x₀ of each without."""
    options = {"update": EulerMaruyama(), "time_step": 0.1}
    free = Process(bowl(HESSIAN), noise, 0.4, **options)
    pushed = Process(bowl(HESSIAN, minimum=np.linalg.solve(HESSIAN, FORCE)), noise, 0.4, **options)
    before = advance(free, free.start(replicas, 0), 150)
    after, other = advance(free, before, lag), advance(pushed, before, lag)
    response = (other.weights - after.weights).mean(0).numpy()
    x, y = before.weights.numpy(), after.weights.numpy()
    return response, x[:, :, None] * x[:, None] - y[:, :, None] * x[:, None]


@pytest.mark.parametrize("lag", [3, 10, 30])
def test_response_of_thermal_motion_is_the_loss_of_correlation_over_the_temperature(lag):
    """T χ(t) = C(0) − C(t), with the 1/(1 − Δt H/2) of the chain; χ = (1 − (1 − ΔtH)^k) H⁻¹ without an error.

    What is lost is known to 1 % or so with 10⁵ replicas: a temperature 10 % off is refused.
    """
    temperature = 0.3
    response, lost = response_and_correlation(ThermalNoise(temperature), lag, 100_000)
    decay = np.linalg.matrix_power(np.eye(2) - 0.1 * HESSIAN, lag)
    np.testing.assert_allclose(response, (np.eye(2) - decay) @ np.linalg.solve(HESSIAN, FORCE), rtol=1e-9)
    # C(0) − C(t) acts on (1 − Δt H/2) f.
    measured = lost @ (np.eye(2) - 0.05 * HESSIAN) @ FORCE
    assert_mean(measured, temperature * response, "fluctuation and dissipation")
    with pytest.raises(AssertionError, match="fluctuation and dissipation"):
        assert_mean(measured, 1.1 * temperature * response, "fluctuation and dissipation")


def test_noise_that_does_not_commute_with_the_curvature_has_no_temperature():
    """No T fits both components of the response, while C(0) − C(t) is what the Lyapunov covariance says."""
    response, lost = response_and_correlation(AnisotropicNoise(UNFIT), 5, 100_000)
    measured = lost @ (np.eye(2) - 0.05 * HESSIAN) @ FORCE
    assert_mean(
        measured,
        (np.eye(2) - np.linalg.matrix_power(np.eye(2) - 0.1 * HESSIAN, 5))
        @ lyapunov(HESSIAN, UNFIT, 0.4, 0.1)
        @ (np.eye(2) - 0.05 * HESSIAN)
        @ FORCE,
        "correlation",
    )
    for temperature in np.linspace(0.0, 1.0, 201):
        with pytest.raises(AssertionError, match="fluctuation and dissipation"):
            assert_mean(measured, temperature * response, "fluctuation and dissipation")


# --- Currents ---------------------------------------------------------------------------------------------------------


FACTORS = {"unfit": UNFIT, "curvature": np.linalg.cholesky(HESSIAN), "isotropic": np.eye(2)}


def test_a_current_turns_where_noise_and_curvature_do_not_commute():
    """⟨x_i x′_j − x_j x′_i⟩ = Δt (A S − S Aᵀ)_ij = 2 Δt Q_ij: the area that weights enclose, known to 1.3 % of itself.

    Noise of covariance ∝ H commutes, and turns nothing.
    """
    for name, factor in FACTORS.items():
        process = Process(bowl(HESSIAN), AnisotropicNoise(factor), 0.4, update=EulerMaruyama(), time_step=0.1)
        before = advance(process, process.start(200_000, 0), 150)
        x, y = before.weights.numpy(), advance(process, before, 1).weights.numpy()
        area = x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0]
        covariance = lyapunov(HESSIAN, factor, 0.4, 0.1)
        current = HESSIAN @ covariance - covariance @ HESSIAN
        assert_mean(area, 0.1 * current[0, 1], "area")
        if name == "unfit":
            for wrong in (0.0, -1.0, 1.5):
                with pytest.raises(AssertionError, match="area"):
                    assert_mean(area, wrong * 0.1 * current[0, 1], "area")
        else:
            assert abs(current[0, 1]) < 1e-12


# --- Linear regression ------------------------------------------------------------------------------------------------


def regression(samples: int, parameters: int, seed: int, noise: float = 1.0) -> LinearRegressionLandscape:
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((samples, parameters))
    truth = generator.standard_normal(parameters)
    return LinearRegressionLandscape(inputs, inputs @ truth + noise * generator.standard_normal(samples))


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_noise_covariance_is_that_of_all_minibatches(batch_size, replacement):
    """Every minibatch of five samples, one by one."""
    landscape, weights = regression(5, 3, 0), np.array([0.3, -1.0, 2.0])
    gradients = [(x @ weights - y) * x for x, y in zip(landscape.inputs, landscape.targets, strict=True)]
    draws = product(range(5), repeat=batch_size) if replacement else combinations(range(5), batch_size)
    means = np.array([np.mean([gradients[i] for i in each], axis=0) for each in draws])
    centred = means - means.mean(0)
    covariance = landscape.noise_covariance(weights, batch_size, replacement=replacement)
    np.testing.assert_allclose(covariance, centred.T @ centred / len(means), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(means.mean(0), landscape.hessian @ (weights - landscape.minimum), rtol=1e-9, atol=1e-12)


def assert_root_of_the_covariance(landscape, weights, batch_size, replacement, of_factor=None) -> None:
    """F Fᵀ = C, to rounding of the products of which C is a difference."""
    n = landscape.n_parameters
    compiled = landscape.noise_formula(batch_size, replacement if of_factor is None else of_factor)
    factor = evaluate(compiled.field, weights[None], n * n).reshape(n, n)
    covariance = landscape.noise_covariance(weights, batch_size, replacement=replacement)
    residuals = np.abs(landscape.inputs @ weights).max() + np.abs(landscape.targets).max()
    scale = (np.abs(landscape.inputs).max() * residuals) ** 2
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=0, atol=1e-10 * scale)


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    parameters=st.integers(1, 5),
    more=st.integers(2, 8),
    at_minimum=st.booleans(),
    replacement=st.booleans(),
)
def test_compiled_factor_is_a_root_of_the_noise_covariance(seed, parameters, more, at_minimum, replacement):
    landscape = regression(parameters + more, parameters, seed)
    generator = np.random.default_rng(seed + 1)
    weights = landscape.minimum if at_minimum else 3 * generator.standard_normal(parameters)
    batch_size = int(generator.integers(1, parameters + more))
    assert_root_of_the_covariance(landscape, weights, batch_size, replacement)
    if replacement and batch_size > 1:  # without it the covariance is smaller by (N − B)/(N − 1)
        with pytest.raises(AssertionError, match="Not equal"):
            assert_root_of_the_covariance(landscape, weights, batch_size, replacement, of_factor=False)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("samples", "parameters"), [(1, 2), (2, 1), (2, 4), (3, 3), (4, 5)])
def test_compiled_factor_is_a_root_of_a_singular_covariance(samples, parameters, seed):
    """Fewer samples than parameters, so that C has rank N − 1; and noiseless targets, of which C vanishes at the minimum."""
    weights = np.random.default_rng(seed + 1).standard_normal(parameters)
    assert_root_of_the_covariance(regression(samples, parameters, seed), weights, 1, True)
    noiseless = regression(samples + parameters, parameters, seed, noise=0.0)
    assert_root_of_the_covariance(noiseless, noiseless.minimum, 1, True)
    np.testing.assert_allclose(noiseless.noise_covariance(noiseless.minimum, 1), 0, atol=1e-25)


@pytest.mark.proof
@settings(max_examples=80)
@given(seed=st.integers(0, 10**6), parameters=st.integers(2, 4), samples=st.integers(1, 4), noisy=st.booleans())
def test_what_is_rounding_of_a_singular_covariance_is_not_taken_for_noise(seed, parameters, samples, noisy):
    """A pivot that cancels to 1e-17 and is divided by would make kicks of order one."""
    landscape = regression(samples, parameters, seed, noise=float(noisy))
    points = 3 * np.random.default_rng(seed + 1).standard_normal((200, parameters))
    factors = evaluate(landscape.noise_formula(1, True).field, points, parameters**2)
    for weights, factor in zip(points, factors.reshape(-1, parameters, parameters), strict=True):
        covariance = landscape.noise_covariance(weights, 1, replacement=True)
        gradients = landscape.sample_gradients(torch.as_tensor(weights)).dense()
        scale = float(gradients.square().sum(1).max())
        np.testing.assert_allclose(factor @ factor.T, covariance, rtol=0, atol=1e-5 * scale)


def additive_covariance(landscape, alpha: float, batch_size: int) -> np.ndarray:
    """What noise that stayed as it is at the minimum would give."""
    contraction = np.eye(landscape.n_parameters) - alpha * landscape.hessian
    return solve_discrete_lyapunov(contraction, alpha**2 * landscape.noise_covariance(landscape.minimum, batch_size))


def outer(x: np.ndarray) -> np.ndarray:
    return x[..., :, None] * x[..., None, :]


def test_minibatch_descent_on_regression_settles_to_the_stationary_moments():
    """400 replicas over 250 updates, each with its average in time: errors are those of independent averages, about 1 %.

    Noise that did not grow away from the minimum would give half to two thirds of the covariance.
    """
    landscape, alpha, batch_size = regression(12, 2, 3), 0.3, 3
    mean, covariance = landscape.stationary_moments(alpha, batch_size)
    process = sgd(landscape, alpha, batch_size, independent=True)
    start = np.tile(mean, (400, 1))
    state, rows = advance(process, process.start(400, 0, start), 40), []
    for _ in range(250):
        state = advance(process, state, 1)
        rows.append(state.weights.numpy() - mean)
    x = np.array(rows)
    assert_mean(x.mean(0), 0, "mean")
    squares = outer(x).mean(0)
    assert_mean(squares, covariance, "covariance")
    with pytest.raises(AssertionError, match="covariance"):
        assert_mean(squares, additive_covariance(landscape, alpha, batch_size), "covariance")


@pytest.mark.parametrize("replacement", [False, True])
def test_langevin_dynamics_of_regression_settles_to_the_stationary_moments(replacement):
    """10⁵ replicas of the compiled noise of minibatches: variances to 1 % or less, from the spread of x xᵀ."""
    landscape, alpha, batch_size = regression(12, 2, 3), 0.3, 3
    mean, covariance = landscape.stationary_moments(alpha, batch_size, replacement=replacement)
    noise = LandscapeNoise(batch_size, replacement)
    process = Process(landscape, noise, alpha, update=EulerMaruyama())
    x = settled(process, 100_000, 150) - mean
    assert_mean(x, 0, "mean")
    assert_mean(outer(x), covariance, "covariance")
    wrong = additive_covariance(landscape, alpha, batch_size)
    other = landscape.stationary_moments(alpha, batch_size, replacement=not replacement)[1]
    for twin in (wrong, other):
        with pytest.raises(AssertionError, match="covariance"):
            assert_mean(outer(x), twin, "covariance")


def test_rates_at_which_second_moments_grow_are_refused():
    """In one dimension (1 − αh)² + α² s (⟨x⁴⟩ − h²) < 1: α < 2h/(h² + s (⟨x⁴⟩ − h²)), below 2/h."""
    landscape, batch_size = regression(12, 1, 3), 1
    x = landscape.inputs[:, 0]
    h = np.mean(x**2)
    limit = 2 * h / (h**2 + (np.mean(x**4) - h**2))
    assert limit < 2 / h
    variance = landscape.stationary_moments(0.99 * limit, batch_size)[1]
    assert variance[0, 0] > 0
    for alpha in (1.01 * limit, 2.1 / h):
        with pytest.raises(ConfigurationError, match="second moments grow"):
            landscape.stationary_moments(alpha, batch_size)


# --- Inertia ----------------------------------------------------------------------------------------------------------


def splitting(curvature: float, friction: float, temperature: float, time_step: float) -> tuple[np.ndarray, np.ndarray]:
    """One BAOAB step of (x, v) in a bowl, typed as a product of matrices, and the covariance that it keeps."""
    kick = np.array([[1.0, 0.0], [-curvature * time_step / 2, 1.0]])
    drift = np.array([[1.0, time_step / 2], [0.0, 1.0]])
    decay = math.exp(-friction * time_step)
    step = kick @ drift @ np.diag([1.0, decay]) @ drift @ kick
    added = kick @ drift @ np.array([[0.0], [math.sqrt(temperature * (1 - decay**2))]])
    return step, solve_discrete_lyapunov(step, added @ added.T)


@pytest.mark.parametrize("time_step", [0.5, 0.05])
@pytest.mark.parametrize("thermal", [True, False])
def test_baoab_settles_to_equipartition(time_step, thermal):
    """⟨x²⟩ = T/h without an error, ⟨v²⟩ = T (1 − hΔt²/4), ⟨xv⟩ = 0; noise of the gradient has T = α s²/2."""
    curvature, friction, temperature, alpha = 2.0, 1.3, 0.5, 0.2
    noise = ThermalNoise(temperature) if thermal else DiagonalNoise(math.sqrt(2 * temperature / alpha))
    process = Process(bowl([[curvature]]), noise, alpha, update=BAOAB(friction), time_step=time_step)
    state = advance(process, process.start(100_000, 0), int(25 / time_step))
    joint = torch.cat([state.weights, state.update_memory], 1).numpy()
    _, expected = splitting(curvature, friction, temperature, time_step)
    exact = np.diag([temperature / curvature, temperature * (1 - curvature * time_step**2 / 4)])
    np.testing.assert_allclose(expected, exact, atol=1e-12)
    assert_covariance(joint, expected)
    with pytest.raises(AssertionError, match="covariance"):
        assert_covariance(joint, 1.04 * expected)
    if time_step == 0.5:  # a twelfth of the velocity's variance is missing
        with pytest.raises(AssertionError, match="covariance"):
            assert_covariance(joint, np.diag([temperature / curvature, temperature]))


def test_inertia_is_forgotten_as_friction_grows():
    """Correlations at lag γt follow the splitting's matrix, and approach e^{−ht} of overdamped motion as 1/γ².

    Positions start from Boltzmann's law; 50,000 replicas know a correlation to 0.004. Δt = 0.2/γ, within which the
    splitting errs by 0.3 % of the rate; the inertia of γ = 2 slows it by more than a third.
    """
    curvature, temperature, time, replicas = 2.0, 0.5, 0.5, 50_000

    def correlation(friction: float, scaled_step: float = 0.2) -> float:
        step, covariance = splitting(curvature, friction, temperature, scaled_step / friction)
        lag = np.linalg.matrix_power(step, round(friction**2 * time / scaled_step))
        return float((lag @ covariance)[0, 0] / covariance[0, 0])

    overdamped = math.exp(-curvature * time)
    for friction in (2.0, 10.0):
        time_step = 0.2 / friction
        process = Process(
            bowl([[curvature]]), ThermalNoise(temperature), 1.0, update=BAOAB(friction), time_step=time_step
        )
        x = math.sqrt(temperature / curvature) * np.random.default_rng(0).standard_normal((replicas, 1))
        before = advance(process, process.start(replicas, 0, x), round(friction**2 * 2 / 0.2))
        after = advance(process, before, round(friction * time / time_step))
        measured = np.corrcoef(before.weights[:, 0].numpy(), after.weights[:, 0].numpy())[0, 1]
        error = (1 - correlation(friction) ** 2) / math.sqrt(replicas)
        assert_near(measured, correlation(friction), error, "correlation")
        if friction == 2:
            with pytest.raises(AssertionError, match="correlation"):
                assert_near(measured, overdamped, error, "correlation")
        else:
            assert_near(measured, overdamped, error, "correlation")
    assert abs(correlation(20.0, 0.02) - overdamped) < abs(correlation(5.0, 0.02) - overdamped) / 8


def pushed_up(x, out):
    out[0] = x[0] ** 3 - x[0] + 0.1 - 0.02


def pushed_down(x, out):
    out[0] = x[0] ** 3 - x[0] + 0.1 + 0.02


def raised(x):
    return x[0] ** 4 / 4 - x[0] ** 2 / 2 + x[0] / 10 - 0.02 * x[0]


def lowered(x):
    return x[0] ** 4 / 4 - x[0] ** 2 / 2 + x[0] / 10 + 0.02 * x[0]


REPLICAS = 200_000


@cache
def pairs_in_time(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Stationary weights and those one step later, with α = 0.4 and Δt = 0.1."""
    process = Process(bowl(HESSIAN), AnisotropicNoise(FACTORS[name]), 0.4, update=EulerMaruyama(), time_step=0.1)
    before = advance(process, process.start(REPLICAS, 0), 150)
    return before.weights.numpy(), advance(process, before, 1).weights.numpy()


def irreversibility(covariance: np.ndarray, lagged: np.ndarray) -> float:
    """Relative entropy of a Gaussian step x → x′ to that step run backwards; `lagged` is ⟨x′ xᵀ⟩."""
    forward = np.block([[covariance, lagged.T], [lagged, covariance]])
    backward = np.block([[covariance, lagged], [lagged.T, covariance]])
    return 0.5 * (np.trace(np.linalg.solve(backward, forward)) - len(forward))


def test_response_in_a_double_well_is_the_loss_of_correlation_over_the_temperature():
    """T (⟨x⟩₊ − ⟨x⟩₋)/(2f) = C(0) − C(t), after 1, 2 and 4 units of time, from Boltzmann's law on the same noise.

    Common noise leaves an error of 1–3 % to 10⁵ replicas; a force of 0.02 errs in the third order, by 0.1 %.
    """
    replicas = 100_000
    grid, density = boltzmann(TEMPERATURE)
    below = cumulative_trapezoid(density, grid, initial=0)
    x = np.interp(np.random.default_rng(0).random(replicas), below / below[-1], grid)[:, None]
    landscapes = [
        double_well(),
        PotentialLandscape(raised, 1, gradient=pushed_up),
        PotentialLandscape(lowered, 1, gradient=pushed_down),
    ]
    processes = [Process(each, ThermalNoise(TEMPERATURE), 1.0, update=Heun(), time_step=0.05) for each in landscapes]
    states = [each.start(replicas, 0, x) for each in processes]
    for time in (1, 2, 4):
        states = [advance(each, state, time * 20 - state.step) for each, state in zip(processes, states, strict=True)]
        free, up, down = (state.weights.numpy()[:, 0] for state in states)
        mean = x.mean()
        difference = TEMPERATURE * (up - down) / 0.04 - ((x[:, 0] - mean) ** 2 - (x[:, 0] - mean) * (free - mean))
        assert_mean(difference, 0, "fluctuation and dissipation")
        wrong = difference + 0.15 * TEMPERATURE * (up - down) / 0.04
        with pytest.raises(AssertionError, match="fluctuation and dissipation"):
            assert_mean(wrong, 0, "fluctuation and dissipation")


def test_measured_entropy_production_is_that_of_the_chain():
    """Relative entropy of steps to steps run backwards, from covariances of 20 groups of 10,000 replicas.

    Its standard error is that of the groups; a plug-in of n replicas is biased upwards by about 1/n, far below it.
    """
    groups, each = 20, REPLICAS // 20
    for name in ("unfit", "isotropic"):
        x, y = pairs_in_time(name)
        measured = []
        for x_group, y_group in zip(np.split(x, groups), np.split(y, groups), strict=True):
            covariance = (x_group.T @ x_group + y_group.T @ y_group) / (2 * each)
            measured.append(irreversibility(covariance, y_group.T @ x_group / each))
        covariance = lyapunov(HESSIAN, FACTORS[name], 0.4, 0.1)
        expected = irreversibility(covariance, (np.eye(2) - 0.1 * HESSIAN) @ covariance)
        rows = np.array(measured)[:, None]
        if name == "unfit":
            assert expected / 0.1 > 0.5
            assert_mean(rows, expected, "entropy production")
            for wrong in (0.0, 0.7 * expected, 1.3 * expected):
                with pytest.raises(AssertionError, match="entropy production"):
                    assert_mean(rows, wrong, "entropy production")
        else:
            assert expected == pytest.approx(0, abs=1e-12)
            assert np.mean(measured) < 5 / each  # χ² of one degree of freedom over n


def test_velocities_and_virial_in_a_double_well_have_the_temperature():
    """⟨v²⟩ = T and ⟨x U′⟩ = T: equipartition holds beyond the bowl, to O(Δt²) = 10⁻³."""
    process = Process(double_well(), ThermalNoise(TEMPERATURE), 1.0, update=BAOAB(1.0), time_step=0.05)
    state = advance(process, process.start(50_000, 0), 2000)
    x, v = state.weights.numpy(), state.update_memory.numpy()
    assert_mean(v**2, TEMPERATURE, "kinetic temperature")
    assert_mean(x * (x**3 - x + 0.1), TEMPERATURE, "virial")
    with pytest.raises(AssertionError, match="kinetic temperature"):
        assert_mean(v**2, 1.05 * TEMPERATURE, "kinetic temperature")
