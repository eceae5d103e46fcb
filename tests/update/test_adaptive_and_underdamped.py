"""Adam against torch's, its metric against a slow route; underdamped dynamics against momentum and their own equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import digits_landscape
from scipy.linalg import solve_discrete_lyapunov
from test_weak_orders_of_sample_noise import (
    ALPHA,
    END,
    FACTOR,
    LANDSCAPE,
    START,
    B,
    N,
    X,
    Y,
    assert_order,
    moments_of_equation,
    moments_of_run,
    order_of,
)
from torch import nn

from langevin_nn import NetworkLandscape, Process, advance, gradient_ensemble, sgd, simulate
from langevin_nn.draws import draws_at
from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients.streamed import StreamedSampleGradients
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import (
    SVAG,
    IndependentMinibatches,
    MatchedGaussian,
    ScaledNoise,
    ShuffledMinibatches,
    Silent,
    ThermalNoise,
)
from langevin_nn.observables import Losses, OrderParameters
from langevin_nn.seeds import Key, Seeds
from langevin_nn.threads import single_threaded_products
from langevin_nn.update import Adam, Momentum, Plain, UnderdampedLangevin
from models.networks import multilayer_perceptron

SAMPLES, SIZE, RATE, WIDTHS = 60, 10, 0.01, (64, 8, 10)


@pytest.fixture(autouse=True)
def _one_thread():
    """As in a run."""
    with single_threaded_products():
        yield


# --- Adam ---------------------------------------------------------------------------------------------------------------

SETTINGS = {
    "defaults": {},
    "short memories": {"first_decay": 0.5, "second_decay": 0.9},
    "no momentum": {"first_decay": 0.0},
    "weight decay": {"weight_decay": 0.1},
    "large offset": {"offset": 0.1},
}


def torchs(weights: torch.Tensor, settings: dict) -> tuple[nn.Module, torch.optim.Adam]:
    module = multilayer_perceptron(WIDTHS).to(weights.dtype)
    nn.utils.vector_to_parameters(weights, module.parameters())
    return module, torch.optim.Adam(
        module.parameters(),
        RATE,
        (settings.get("first_decay", 0.9), settings.get("second_decay", 0.999)),
        settings.get("offset", 1e-8),
        settings.get("weight_decay", 0.0),
    )


def followed(digits, settings: dict, update: Adam, dtype: torch.dtype) -> list[float]:
    """Largest relative distance from torch.optim.Adam on the same minibatches, step by step."""
    module = multilayer_perceptron(WIDTHS).to(dtype)
    landscape = NetworkLandscape(module, digits.inputs.to(dtype), digits.labels[0])
    process = Process(landscape, ShuffledMinibatches(SIZE), RATE, update=update)
    state = process.start(1, 0)
    module, optimizer = torchs(state.weights[0].clone(), settings)
    memory, distances = state.noise_memory, []
    for step in range(20):
        draws = draws_at(state.key(step), state.weights)
        drawn, memory = process.noise.sample_weights(landscape.n_samples, memory, draws, 1)
        rows = drawn.indices[0, 0]
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(landscape.inputs[rows]), landscape.labels[0][rows]).backward()
        optimizer.step()
        state = advance(process, state, 1)
        theirs = nn.utils.parameters_to_vector(module.parameters()).detach()
        distances.append(float((state.weights[0] - theirs).abs().max() / theirs.abs().max()))
    return distances


@pytest.mark.parametrize("name", SETTINGS)
def test_adam_follows_torch_step_by_step(digits, name):
    settings = SETTINGS[name]
    assert max(followed(digits, settings, Adam(**settings), torch.float64)) < 1e-12
    # In single precision gradients near 0 are rounded differently, and Adam divides by them; the first step shows it most.
    assert np.median(followed(digits, settings, Adam(**settings), torch.float32)) < 1e-4


class WithoutCorrection(Adam):
    """Mutated twin: the bias of the running means stays."""

    def preconditioner(self, memory):
        return memory.second.sqrt() + self.offset


def test_adam_without_its_correction_of_bias_is_noticed(digits):
    assert max(followed(digits, {}, WithoutCorrection(), torch.float64)) > 1e-3


def test_the_preconditioner_is_the_root_of_the_corrected_second_moment(digits):
    update = Adam(second_decay=0.9)
    process = Process(digits, IndependentMinibatches(SIZE), RATE, update=update)
    state, memory = process.start(2, 0), None
    assert torch.equal(update.preconditioner(state.update_memory), torch.ones_like(state.weights))
    squares = []
    for step in range(5):
        gradient, memory = process.stochastic_gradient(state.weights, memory, state.key(step))
        squares.append(gradient.double().square())
        state = advance(process, state, 1)
    shares = 0.9 ** np.arange(5)[::-1]
    mean = sum(share * square for share, square in zip(shares / shares.sum(), squares, strict=True))
    torch.testing.assert_close(
        update.preconditioner(state.update_memory).double(), mean.sqrt() + 1e-8, rtol=1e-5, atol=1e-9
    )
    assert all(rule.preconditioner(None) is None for rule in (Plain(), Momentum(0.9)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(first_decay=1.0), "first_decay=1.0: expected 0 ≤ β < 1"),
        (lambda: Adam(second_decay=-0.1), "second_decay=-0.1: expected 0 ≤ β < 1"),
        (lambda: Adam(offset=0.0), "offset=0.0: expected a positive"),
        (lambda: Adam(weight_decay=-1.0), "weight_decay=-1.0: expected a finite number λ ≥ 0"),
        (lambda: UnderdampedLangevin(0.0), "mass=0.0: expected a positive"),
        (lambda: UnderdampedLangevin(1.0, -1.0), "friction=-1.0: expected a positive"),
        (lambda: UnderdampedLangevin.of_momentum(1.0, 0.1), "momentum=1.0: expected 0 ≤ μ < 1"),
        (
            lambda: Process(LANDSCAPE, Silent(), 0.5, update=UnderdampedLangevin(0.2)),
            "time_step=0.5 with mass=0.2 and friction=1: expected at most 2 mass/friction = 0.4",
        ),
        (lambda: OrderParameters(metric="natural"), "metric"),
    ],
)
def test_what_is_no_such_rule_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


# --- The preconditioned metric ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", ["*", "2.weight"])
@pytest.mark.parametrize("kind", ["held", "streamed", "stored"])
def test_order_parameters_in_a_metric_are_those_of_scaled_gradients(parameters, kind):
    """The slow route multiplies the matrix of sample gradients out, and scales its columns."""
    with torch.random.fork_rng(devices=[]):
        landscape = digits_landscape(SAMPLES, WIDTHS, parameters=parameters)
    weights = landscape.initial_weights((0,), Seeds(0))[0]
    metric = torch.as_tensor(np.random.default_rng(0).uniform(0.1, 3.0, landscape.n_parameters))
    gradients = landscape.sample_gradients(weights)
    columns = landscape.measured_columns
    dense = gradients.dense().numpy() / np.sqrt(metric[columns].numpy())
    if kind == "held":
        ensemble = gradient_ensemble(landscape, weights, SIZE, preconditioner=metric)
    else:
        if kind == "streamed":
            source = landscape._source(weights, 0, landscape.measured_parameters, landscape._layers[0])
            gradients = StreamedSampleGradients(source, 25, 40, 2**20)
        else:
            gradients = type(gradients).from_matrix(gradients.dense())
        # In two steps, as factors multiply.
        root = metric[columns].rsqrt().sqrt()
        ensemble = type(gradient_ensemble(landscape, weights, SIZE))(gradients.scaled(root).scaled(root), SIZE)
    mean = dense.mean(0)
    covariance = (SAMPLES - SIZE) / (SAMPLES - 1) / SIZE * np.cov(dense.T, bias=True)
    found = {name: values[0] for name, values in ensemble.closed_forms().items() if np.ndim(values)}
    assert found["directed_activity"] == pytest.approx(mean @ mean)
    assert found["noise_strength"] == pytest.approx(np.trace(covariance))
    assert found["parallel_noise"] == pytest.approx(mean @ covariance @ mean / (mean @ mean))
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1][:5]
    for method in ("parameters", "samples", "matrix-free") if kind == "held" else ("samples",):
        spectrum = ensemble.leading_spectrum(5, method=method)
        np.testing.assert_allclose(spectrum.eigenvalues, eigenvalues, rtol=1e-5)
    # R from the same minibatches.
    other = type(ensemble)(type(gradients).from_matrix(torch.as_tensor(dense)), SIZE) if kind == "stored" else None
    if other is not None:
        pair = [each.alignment(np.random.default_rng(1), 16)["alignment"][0] for each in (ensemble, other)]
        assert pair[0] == pytest.approx(pair[1])
    np.testing.assert_allclose(
        ensemble.gradients.variances().numpy(), dense.var(0), rtol=1e-6, atol=1e-12 * dense.var()
    )


def test_moments_are_measured_in_a_metric_too():
    valley = QuadraticLandscape(np.diag([1.0, 3.0]), [[2.0, 0.5], [0.5, 1.0]])
    point, metric = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor([4.0, 0.25], dtype=torch.float64)
    found = gradient_ensemble(valley, point, preconditioner=metric).closed_forms()
    assert found["directed_activity"][0] == pytest.approx(1 / 4 + 9 * 4)
    assert found["noise_strength"][0] == pytest.approx(2 / 4 + 1 * 4)


@pytest.mark.parametrize("metric", [torch.ones(3), torch.tensor([1.0, 0.0])])
def test_what_is_no_metric_is_refused(metric):
    with pytest.raises(ConfigurationError, match=r"preconditioner of shape .*: expected \(2,\), one positive number"):
        gradient_ensemble(QuadraticLandscape(np.eye(2), np.eye(2)), torch.zeros(2), preconditioner=metric)


def test_order_parameters_are_recorded_in_the_metric_of_adam_over_its_mean(digits):
    update = Adam()
    process = Process(digits, IndependentMinibatches(SIZE), RATE, update=update)
    runs = [
        simulate(
            process, steps=3, replicas=2, observables=[Losses(), OrderParameters(8, metric=metric)], progress=False
        )
        for metric in ("euclidean", "preconditioned")
    ]
    state = advance(process, process.start(2, 0), 3)
    metric = update.preconditioner(state.update_memory).double()
    metric = metric / metric.mean(1, keepdim=True)
    mean = digits.gradient(state.weights).double()
    expected = (mean.square() / metric).sum(1).numpy()
    np.testing.assert_allclose(runs[1].directed_activity.sel(cohort="all")[:, -1], expected, rtol=1e-5)
    # At the start nothing is known and both are the same; later they are not.
    one, other = (run.directed_activity.sel(cohort="all") for run in runs)
    np.testing.assert_allclose(other[:, 0], one[:, 0], rtol=1e-9)
    assert bool((abs(np.log(other[:, -1] / one[:, -1])) > 0.05).all())


def test_a_rule_without_a_preconditioner_has_no_such_metric(digits):
    with pytest.raises(ConfigurationError, match="metric='preconditioned' with Plain, which has no preconditioner"):
        simulate(
            sgd(digits, RATE, SIZE), steps=1, observables=[OrderParameters(metric="preconditioned")], progress=False
        )


# --- Underdamped --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_steps_with_momentum_are_underdamped_steps_of_mass_alpha(digits, momentum):
    update = UnderdampedLangevin.of_momentum(momentum, RATE)
    assert (update.mass, update.friction) == (RATE, 1 - momentum)
    runs = []
    for rule in (Momentum(momentum), update):
        process = Process(digits, MatchedGaussian(SIZE), RATE, update=rule)
        runs.append(advance(process, process.start(2, 0), 25))
    torch.testing.assert_close(runs[1].weights, runs[0].weights, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(runs[1].update_memory, -runs[0].update_memory, rtol=1e-3, atol=1e-4)
    other = Process(digits, MatchedGaussian(SIZE), RATE, update=UnderdampedLangevin(RATE, 1.05 * (1 - momentum)))
    moved = advance(other, other.start(2, 0), 25).weights
    assert not torch.allclose(moved, runs[0].weights, rtol=1e-4, atol=1e-5)  # mutated twin: 5 % more friction


MASS, FRICTION = 0.4, 0.7


def underdamped(degree: int, mass: float = MASS) -> np.ndarray:
    """Moments of (1, w, v) under m dv = −ζv dt − ∇L dt + √(α f/(BN)) Σ_k (g_k − ḡ) dW_k, dw = v dt."""
    gradients = np.stack([-X * Y, X**2, np.zeros(N)], axis=1)  # of (1, w, v)
    drift = np.zeros((3, 3))
    drift[1, 2] = 1
    drift[2] = -gradients.mean(0) / mass
    drift[2, 2] -= FRICTION / mass
    noises = []
    for centred in gradients - gradients.mean(0):
        noise = np.zeros((3, 3))
        noise[2] = np.sqrt(ALPHA * FACTOR / N) * centred / mass
        noises.append(noise)
    return moments_of_equation(drift, noises, degree)


SOURCES = {
    "matched Gaussian": lambda n: MatchedGaussian(B),
    "svag": lambda n: SVAG(B, n),
}
DIVISIONS = [64, 128, 256, 512]


def underdamped_error(name: str, division: int, degree: int, truth: np.ndarray) -> float:
    """Error of ⟨w^degree⟩, position 11…1 in base 3."""
    update, where = UnderdampedLangevin(MASS, FRICTION), (3**degree - 1) // 2
    process = Process(LANDSCAPE, SOURCES[name](division), ALPHA, update=update, time_step=ALPHA / division)
    return abs(moments_of_run(process, degree)[where] - truth[where])


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", SOURCES)
def test_underdamped_steps_converge_to_their_equation_with_weak_order_one(name, degree):
    truth = underdamped(degree)
    measured = order_of(lambda n: underdamped_error(name, n, degree, truth), DIVISIONS)
    assert_order(measured, UnderdampedLangevin.orders["full"].weak)


def test_convergence_to_the_equation_of_another_mass_is_noticed():
    truth = underdamped(2, 1.1 * MASS)
    measured = order_of(lambda n: underdamped_error("svag", n, 2, truth), DIVISIONS)
    with pytest.raises(AssertionError, match="order"):
        assert_order(measured, 1.0)


class AlongAPath(Key):
    """A key that hands out given numbers, shape (replica, sample), for the sample weights."""

    numbers: np.ndarray

    def normals(self, purpose, size, dtype=np.float64):
        return self.numbers.copy()


def ends_of_paths(division: int, normals: np.ndarray) -> np.ndarray:
    """Positions at the end of each path; normals of the finest steps are summed up to those of coarser ones."""
    update = UnderdampedLangevin(MASS, FRICTION)
    process = Process(LANDSCAPE, MatchedGaussian(B), ALPHA, update=update, time_step=ALPHA / division)
    count = round(END / process.time_step)
    together = len(normals) // count
    coarse = normals.reshape(count, together, *normals.shape[1:]).sum(1) / together**0.5
    weights = torch.full((normals.shape[1], 1), START, dtype=torch.float64)
    memory = torch.zeros_like(weights)
    for numbers in coarse:
        key = AlongAPath(Seeds(0), tuple(range(len(weights))), 0)
        object.__setattr__(key, "numbers", numbers)
        gradient, _ = process.stochastic_gradient(weights, None, key)
        weights, memory = update.apply(weights, memory, gradient, ALPHA, process.time_step)
    return weights[:, 0].numpy()


def strong_error_of_momentum(momentum: float, division: int) -> float:
    """Root mean square distance at time 1 from dy = −(h y dt + √α dW)/(1 − μ) along the same path: all is linear, no chance.

    The rule is an affine map of (w, v, ΔW/√Δt), found by probing; y and ΔW over a step are jointly Gaussian.
    """
    h, alpha, dt = 0.8, 0.5, 1 / division
    w, v, xi = torch.eye(3, dtype=torch.float64)[:, :, None]
    rows = torch.cat(Momentum(momentum).apply(w, v, h * w + (alpha / dt) ** 0.5 * xi, alpha, dt), 1).numpy()
    speed = 1 / (1 - momentum)
    rate, amplitude = speed * h, speed * alpha**0.5
    decay, shared = np.exp(-rate * dt), amplitude * np.expm1(-rate * dt) / (rate * dt**0.5)
    rest = np.sqrt(-(amplitude**2) * np.expm1(-2 * rate * dt) / (2 * rate) - shared**2)
    matrix, factor = np.zeros((3, 3)), np.zeros((3, 2))
    matrix[:2, :2], matrix[2, 2] = rows[:2].T, decay
    factor[:2, 0], factor[2] = rows[2], (shared, rest)
    mean, covariance = np.array([1.0, 0.0, 1.0]), np.zeros((3, 3))
    for _ in range(division):
        mean, covariance = matrix @ mean, matrix @ covariance @ matrix.T + factor @ factor.T
    apart = np.array([1.0, 0.0, -1.0])
    return float((apart @ covariance @ apart + (apart @ mean) ** 2) ** 0.5)


def test_momentum_is_behind_by_its_last_kicks_and_has_strong_order_one_half():
    divisions = [256, 512, 1024, 2048]
    measured = order_of(lambda n: strong_error_of_momentum(0.5, n), divisions)
    assert {each.strong for each in Momentum.orders.values()} == {0.5}
    assert_order(measured, Momentum.orders["constant"].strong)
    with pytest.raises(AssertionError, match="order"):
        assert_order(measured, Plain.orders["constant"].strong)
    assert_order(order_of(lambda n: strong_error_of_momentum(0.0, n), divisions), Plain.orders["constant"].strong)


@pytest.mark.parametrize(
    ("update", "hotter"), [(Plain(), 1), (Momentum(0.6), 2.5), (UnderdampedLangevin(0.3, 0.4), 2.5)]
)
def test_temperature_of_thermal_noise_under_rules_that_remember(update, hotter):
    """Variance in a bowl, from the affine map of one step: T/h times 1, 1/(1 − μ) and 1/ζ, to order Δt."""
    temperature, h, dt = 0.3, 1.7, 1e-4
    process = Process(QuadraticLandscape([[h]], [[0.0]]), ThermalNoise(temperature), 0.5, update=update, time_step=dt)
    w, v, kick = torch.eye(3, dtype=torch.float64)[:, :, None]
    kicks = process.noise_ratio * (2 * temperature) ** 0.5 * kick
    after, memory = update.apply(w, v, h * w + kicks, 0.5, dt)
    rows = torch.cat([after, memory], 1).numpy()
    size = 1 if isinstance(update, Plain) else 2
    factor = rows[2:, :size].T
    settled = solve_discrete_lyapunov(rows[:size, :size].T, factor @ factor.T)
    assert settled[0, 0] == pytest.approx(hotter * temperature / h, rel=2e-3)


def test_underdamped_steps_have_strong_order_one_though_the_noise_depends_on_the_weights():
    """Root mean square distance from a path sixteen times as fine; slope with an error below a fifth of the tolerance."""
    paths, divisions, finest = 1000, [8, 16, 32, 64], 1024
    normals = np.random.default_rng(5).standard_normal((2 * finest, paths, N))
    truth = ends_of_paths(finest, normals)
    squares = np.array([(ends_of_paths(each, normals) - truth) ** 2 for each in divisions])
    assert_order(
        float(-np.polyfit(np.log(divisions), np.log(squares.mean(1)) / 2, 1)[0]),
        UnderdampedLangevin.orders["full"].strong,
    )
    batches = squares.reshape(len(divisions), 10, -1).mean(2)
    slopes = [-np.polyfit(np.log(divisions), np.log(each) / 2, 1)[0] for each in batches.T]
    assert np.std(slopes, ddof=1) / 10**0.5 < 0.01


@pytest.mark.parametrize("noise", [MatchedGaussian(SIZE), ScaledNoise(MatchedGaussian(SIZE), 2.0)])
def test_a_light_particle_moves_as_the_overdamped_equation_says(digits, noise):
    """m = Δt/ζ forgets its velocity in one step: plain steps of Δt/ζ."""
    light = Process(digits, noise, RATE, update=UnderdampedLangevin(RATE))
    plain = Process(digits, noise, RATE, update=Plain())
    weights = [advance(each, each.start(2, 0), 10).weights for each in (light, plain)]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)
