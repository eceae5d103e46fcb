"""Processes: one update against right-hand sides typed independently, bits, divergence, and exact stationary laws."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

import numba
import numpy as np
import pytest
import torch
from cases import digits_landscape
from torch import nn

from langevin_nn import (
    NetworkLandscape,
    Process,
    Seeds,
    advance,
    gradient_descent,
    isotropic_langevin,
    langevin,
    sgd,
)
from langevin_nn.draws import draws_at
from langevin_nn.drift import GradientDrift, LinearDrift
from langevin_nn.errors import ConfigurationError, UnstableTrajectory
from langevin_nn.landscape import LinearRegressionLandscape, QuadraticLandscape
from langevin_nn.noise import (
    AnisotropicNoise,
    IndependentMinibatches,
    IsotropicNoise,
    MatchedGaussian,
    ShuffledMinibatches,
    Silent,
)
from langevin_nn.process import PROCESSES
from langevin_nn.testing import check_process
from langevin_nn.update import Adam, EulerMaruyama, Momentum, Plain, Update
from models.datasets import load_dataset
from models.networks import multilayer_perceptron

N, B, ALPHA = 60, 10, 0.1
F = (N - B) / (N - 1)
SIGMAS = 4.5


def slow_sample_gradients(landscape, weights: torch.Tensor) -> torch.Tensor:
    """∇ℓ_k of every sample in float64, one backward pass each, shape (sample, parameter)."""
    with torch.random.fork_rng(devices=[]):
        module = multilayer_perceptron((64, 8, 10)).double()
    nn.utils.vector_to_parameters(weights.double(), module.parameters())
    rows = []
    for x, label in zip(landscape.inputs.double(), landscape.labels[0], strict=True):
        loss = nn.functional.cross_entropy(module(x[None]), label[None])
        rows.append(torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(module.parameters()))]))
    return torch.stack(rows)


@pytest.fixture(scope="module")
def clean():
    """The same digits with their true labels."""
    with torch.random.fork_rng(devices=[]):
        return digits_landscape(N, label_noise=0.0)


@pytest.fixture(scope="module")
def traced_digits():
    """A network for which there is no kernel: the traced path."""
    data = load_dataset("digits", samples_per_class=N // 10)
    with torch.random.fork_rng(devices=[]):
        network = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.SiLU(), torch.nn.Linear(8, 10))
        return NetworkLandscape(network, data.train_inputs, data.train_labels)


def bowl(noise: float = 1.0) -> QuadraticLandscape:
    """Three dimensions, curvatures 0.5, 2 and 5, correlated noise, none of them along the axes."""
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    root = np.random.default_rng(2).standard_normal((3, 3))
    hessian = rotation @ np.diag([0.5, 2.0, 5.0]) @ rotation.T
    return QuadraticLandscape(
        (hessian + hessian.T) / 2, noise * root @ root.T, minimum=[1.0, -2.0, 0.5], start=[3.0, 0.0, 1.0]
    )


def surrogate(update=None, *, learning_rate: float = 0.2, time_step: float = 0.0, loudness: float = 1.0) -> Process:
    landscape = bowl()
    noise = AnisotropicNoise(loudness * landscape.noise_factor())
    return Process(landscape, noise, learning_rate, update=update or Plain(), time_step=time_step)


# --- One update -------------------------------------------------------------------------------------------------------

SAMPLE_WEIGHTS = {
    "shuffled": ShuffledMinibatches(B),
    "independent": IndependentMinibatches(B),
    "replacement": IndependentMinibatches(B, replacement=True),
    "matched": MatchedGaussian(B),
}


def at_ratios(*ratios: float):
    """Every source at every Δt/α; shuffled epochs at 1 alone, which is where they are not refused."""
    pairs = [(name, ratio) for name in SAMPLE_WEIGHTS for ratio in ratios if ratio == 1 or name != "shuffled"]
    return pytest.mark.parametrize(("name", "ratio"), pairs)


def one_update(process: Process, replicas: int = 2):
    """Weights before and after, and the c_k that the source drew for that update."""
    before = process.start(replicas, seed=4)
    after = advance(process, before, 1)
    weights, _ = process.noise.sample_weights(N, before.noise_memory, draws_at(before.key(0), before.weights), 1)
    return before.weights.double(), after.weights.double(), weights.spread(N)[0].double()


def assert_close(one: torch.Tensor, other: torch.Tensor, scale: torch.Tensor) -> None:
    """Equal to float32 rounding of weights of order 1, small against the step made."""
    np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=max(3e-7, 1e-5 * float(scale.abs().max())))


@at_ratios(1.0, 1 / 3, 2.0)
def test_one_update_is_the_gradient_plus_the_noise_times_root_alpha_over_time_step(digits, name, ratio):
    """w − Δt [ḡ + √(α/Δt) (Σ c g − ḡ)]"""
    time_step = ratio * ALPHA
    before, after, c = one_update(Process(digits, SAMPLE_WEIGHTS[name], ALPHA, time_step=time_step))
    for w, moved, coefficients in zip(before, after, c, strict=True):
        g = slow_sample_gradients(digits, w)
        mean, stochastic = g.mean(0), coefficients @ g
        right = w - time_step * (mean + (ALPHA / time_step) ** 0.5 * (stochastic - mean))
        assert_close(moved, right, moved - w)
        if ratio != 1:
            for wrong in (1.0, ALPHA / time_step, (time_step / ALPHA) ** 0.5):
                mutant = w - time_step * (mean + wrong * (stochastic - mean))
                with pytest.raises(AssertionError, match="Not equal"):
                    assert_close(moved, mutant, moved - w)


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_one_update_with_added_noise_is_the_gradient_plus_root_alpha_over_time_step_times_the_increment(digits, ratio):
    """w − Δt [ḡ + √(α/Δt) η], η of the isotropic source from its own trace and normal numbers."""
    time_step = ratio * ALPHA
    process = Process(digits, IsotropicNoise(B), ALPHA, time_step=time_step)
    before = process.start(1, seed=4)
    after = advance(process, before, 1).weights[0].double()
    w = before.weights[0].double()
    g = slow_sample_gradients(digits, w)
    trace = F / B * (g - g.mean(0)).square().sum(1).mean()
    xi = torch.as_tensor(Seeds(4).generator("isotropic noise", 0, 0).standard_normal(len(w), dtype=np.float32))
    eta = (trace / len(w)).sqrt() * xi
    assert_close(after, w - time_step * (g.mean(0) + (ALPHA / time_step) ** 0.5 * eta), after - w)


def test_momentum_with_gaussian_noise_at_another_time_step_is_the_formula(digits):
    """v ← μ v + g + λ w, w ← w − Δt v over two updates."""
    time_step = ALPHA / 4
    process = langevin(digits, ALPHA, B, time_step=time_step, momentum=0.8, weight_decay=0.1)
    state = process.start(1, seed=4)
    w, v = state.weights[0].double(), 0.0
    for step in range(2):
        drawn, _ = process.noise.sample_weights(N, None, draws_at(state.key(step), state.weights), 1)
        g = slow_sample_gradients(digits, w)
        stochastic = g.mean(0) + 2 * (drawn.spread(N)[0, 0].double() @ g - g.mean(0))  # √4
        v = 0.8 * v + stochastic + 0.1 * w
        w = w - time_step * v
    assert_close(advance(process, state, 2).weights[0].double(), w, w - state.weights[0])


def test_the_old_name_of_advance_says_where_it_has_gone():
    process = surrogate()
    with pytest.warns(DeprecationWarning, match=r"call langevin_nn\.advance\(process, state, steps\)"):
        old = process.advance(process.start(2, 0), steps=3)
    assert torch.equal(old.weights, advance(process, process.start(2, 0), 3).weights)


def test_a_rule_without_a_step_is_refused_by_name():
    class Standing(Update):
        orders = Plain.orders

    process = surrogate(Standing())
    with pytest.raises(ConfigurationError, match=r"update is .*Standing.*: expected a SteppedUpdate"):
        advance(process, process.start(1, 0), 1)


# --- Exchanged drift --------------------------------------------------------------------------------------------------


@at_ratios(1.0, 0.25)
def test_drift_of_the_clean_labels_goes_with_the_noise_of_the_noisy_ones(digits, clean, name, ratio):
    drift, time_step = GradientDrift(clean), ratio * ALPHA
    process = Process(digits, SAMPLE_WEIGHTS[name], ALPHA, drift=drift, time_step=time_step)
    before, after, c = one_update(process)
    for w, moved, coefficients in zip(before, after, c, strict=True):
        noisy, mean = slow_sample_gradients(digits, w), slow_sample_gradients(clean, w).mean(0)
        noise = (ALPHA / time_step) ** 0.5 * (coefficients @ noisy - noisy.mean(0))
        assert_close(moved, w - time_step * (mean + noise), moved - w)
        with pytest.raises(AssertionError, match="Not equal"):
            assert_close(moved, w - time_step * (noisy.mean(0) + noise), moved - w)


def test_drift_can_be_exchanged_with_added_noise_too(digits, clean):
    process = Process(digits, IsotropicNoise(B), ALPHA, drift=GradientDrift(clean))
    state = process.start(1, 0)
    gradient, _ = process.stochastic_gradient(state.weights, state.noise_memory, state.key(0))
    noise, _ = process.noise.increment(digits, state.weights, state.noise_memory, state.key(0))
    mean = slow_sample_gradients(clean, state.weights[0]).mean(0)
    np.testing.assert_allclose(gradient[0].numpy(), (mean + noise[0]).numpy(), atol=1e-6)


# --- Bits -------------------------------------------------------------------------------------------------------------

RUNS = {
    "sgd": lambda d: sgd(d, ALPHA, B),
    "sgd with a remainder": lambda d: sgd(d, ALPHA, 7),
    "sgd independent": lambda d: sgd(d, ALPHA, B, independent=True),
    "sgd replacement": lambda d: sgd(d, ALPHA, B, replacement=True),
    "sgd momentum": lambda d: sgd(d, ALPHA, B, momentum=0.9, weight_decay=0.01),
    "langevin": lambda d: langevin(d, ALPHA, B, time_step=ALPHA / 2),
    "isotropic_langevin": lambda d: isotropic_langevin(d, ALPHA, B, refresh_every=5),
    "gradient_descent": lambda d: gradient_descent(d, ALPHA),
    "surrogate": lambda d: surrogate(),
    "compiled surrogate": lambda d: surrogate(EulerMaruyama()),
}


@pytest.fixture(params=RUNS)
def process(request, digits):
    return RUNS[request.param](digits)


def test_processes_keep_the_laws(process):
    """48 updates of a network, 150 of a surrogate: more than two blocks of its normal numbers."""
    check_process(process, steps=48 if process.batch_size or process.landscape.n_parameters > 3 else 150)


@pytest.mark.parametrize("name", ["sgd", "langevin", "isotropic_langevin"])
def test_processes_keep_the_laws_on_the_traced_path_too(traced_digits, name):
    assert traced_digits.problem.path.name == "torch.func"
    check_process(RUNS[name](traced_digits))


WIDE = np.random.default_rng(5).standard_normal((30, 20))


@pytest.mark.parametrize(
    "process",
    [
        Process(QuadraticLandscape(WIDE.T @ WIDE / 30, np.eye(20)), AnisotropicNoise(np.eye(20)), ALPHA),
        Process(
            QuadraticLandscape(np.eye(20), np.eye(20)),
            AnisotropicNoise(np.eye(20)),
            ALPHA,
            drift=LinearDrift(np.eye(20) + 0.1 * WIDE[:20]),
        ),
        Process(LinearRegressionLandscape(WIDE, WIDE[:, 0]), MatchedGaussian(6), 0.01),
    ],
    ids=["bowl", "drift", "regression"],
)
def test_processes_keep_the_laws_where_products_round_by_company(process):
    check_process(process)


def test_same_seed_gives_the_same_bits_and_another_seed_others(process):
    first, again, other = (advance(process, process.start(2, seed), 20).weights for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("threads", [1, 3])
def test_bits_do_not_depend_on_the_number_of_threads(process, threads):
    expected = advance(process, process.start(3, 0), 20).weights
    in_torch, in_numba = torch.get_num_threads(), numba.get_num_threads()
    try:
        torch.set_num_threads(threads)
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        weights = advance(process, process.start(3, 0), 20).weights
        assert torch.get_num_threads() == threads, "advance() left the number of threads changed"
    finally:
        torch.set_num_threads(in_torch)
        numba.set_num_threads(in_numba)
    assert torch.equal(weights, expected)


def test_given_start_weights_are_copied(digits):
    weights = digits.initial_weights((0,), Seeds(0))
    before = weights.clone()
    process = gradient_descent(digits, ALPHA)
    advance(process, process.start(1, 0, weights), 3)
    assert torch.equal(weights, before)


# --- Divergence -------------------------------------------------------------------------------------------------------

UNSTABLE = r"replica {} became non-finite at step {} with time step {}: expected finite weights"


@pytest.mark.parametrize("time_step", [ALPHA, ALPHA / 4])
def test_weight_decay_adds_lambda_w_to_the_gradient(digits, time_step):
    """w − Δt [g + λ w]; the noise factor does not touch the decay."""
    process = Process(digits, SAMPLE_WEIGHTS["matched"], ALPHA, update=Plain(weight_decay=0.5), time_step=time_step)
    before, after, c = one_update(process)
    for w, moved, coefficients in zip(before, after, c, strict=True):
        g = slow_sample_gradients(digits, w)
        noise = (ALPHA / time_step) ** 0.5 * (coefficients @ g - g.mean(0))
        assert_close(moved, w - time_step * (g.mean(0) + noise + 0.5 * w), moved - w)


@pytest.mark.parametrize("update", [Plain(), EulerMaruyama()])
@pytest.mark.parametrize("before", [0, 7, 60])
def test_divergence_of_a_surrogate_names_the_exact_update(update, before):
    """x ← −x · 10⁵⁰ without noise: 10²⁵⁰ overflows at the second update, in whichever block."""
    landscape = QuadraticLandscape(np.eye(1), np.zeros((1, 1)), start=[1e250])
    process = Process(landscape, AnisotropicNoise(torch.zeros(1, 1).double()), 1e50, update=update)
    start = process.start((4,), 0, np.zeros((1, 1)))
    calm = advance(process, start, before)
    moved = calm.replaced(before, torch.full((1, 1), 1e250, dtype=torch.float64), None, None, calm.diverged)
    with pytest.raises(UnstableTrajectory, match=UNSTABLE.format(4, before + 2, r"1e\+50")):
        advance(process, moved, 100)


def test_masked_replica_stays_nan_and_raises_no_second_alarm(digits):
    process = sgd(digits, ALPHA, B)
    wild = process.start(2, 0).weights
    wild[0] = 1e38
    masked = advance(process, process.start(2, 0, wild), 3, on_divergence="mask")
    later = advance(process, masked, 3)  # "raise" concerns new divergences only
    assert torch.isnan(later.weights[0]).all()
    assert torch.isfinite(later.weights[1]).all()


# --- What cannot run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["learning_rate", "time_step"])
@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_rates_have_to_be_positive_and_finite(digits, name, value):
    rates = {"learning_rate": ALPHA, "time_step": ALPHA, name: value}
    with pytest.raises(ConfigurationError, match=f"{name}={value}: expected a positive, finite number"):
        Process(digits, Silent(), **rates)


def test_zero_learning_rate_is_refused(digits):
    with pytest.raises(ConfigurationError, match=r"learning_rate=0.0: expected a positive, finite number"):
        Process(digits, Silent(), 0.0)


@pytest.mark.parametrize("replicas", [0, -2, ()])
def test_a_run_without_replicas_is_refused(digits, replicas):
    with pytest.raises(ConfigurationError, match=r"replicas=.*: expected at least one"):
        gradient_descent(digits, ALPHA).start(replicas, 0)


@pytest.mark.parametrize("shape", [(610,), (1, 610), (2, 609)])
def test_start_weights_of_another_shape_are_refused(digits, shape):
    with pytest.raises(
        ConfigurationError, match=r"weights have shape .*: expected \(replica, parameter\) = \(2, 610\)"
    ):
        gradient_descent(digits, ALPHA).start(2, 0, torch.zeros(shape))


@dataclass(frozen=True)
class StratonovichNoise(Silent):
    calculus = "stratonovich"

    def dependence(self, landscape):
        return "full"


def test_a_calculus_that_nobody_knows_is_refused_by_name(digits):
    noise = type("Own", (StratonovichNoise,), {"calculus": "klimontovich"})()
    with pytest.raises(ConfigurationError, match="unknown calculus of Own 'klimontovich': expected one of ito, strat"):
        Process(digits, noise, ALPHA)


@pytest.mark.parametrize("update", [Plain(), Momentum(0.5)])
def test_noise_of_another_calculus_than_the_update_rule_is_refused(digits, update):
    expected = (
        "StratonovichNoise .* to be read in the sense of Stratonovich, but .* converges to .* in the sense of Itô"
    )
    with pytest.raises(ConfigurationError, match=expected):
        Process(digits, StratonovichNoise(), ALPHA, update=update)


@pytest.mark.parametrize("momentum", [1.0, 1.5, -0.1])
def test_momentum_outside_zero_to_one_is_refused(momentum):
    with pytest.raises(ConfigurationError, match=f"momentum={momentum}: expected 0 ≤ μ < 1"):
        Momentum(momentum)


def test_integrators_refuse_networks_and_noise_that_it_does_not_know(digits):
    with pytest.raises(ConfigurationError, match=r"MatchedGaussian has no formula: .* use update=Plain"):
        Process(digits, MatchedGaussian(B), ALPHA, drift=LinearDrift(np.eye(610)), update=EulerMaruyama())
    with pytest.raises(
        ConfigurationError, match=r"NetworkLandscape has no formula of its gradient: .* use update=Plain"
    ):
        Process(digits, AnisotropicNoise(torch.zeros(610, 1)), ALPHA, update=EulerMaruyama())


def test_named_processes_carry_their_names_and_default_to_a_time_step_of_alpha(digits):
    for name in ("sgd", "langevin", "isotropic_langevin", "gradient_descent"):
        process = PROCESSES[name](digits, ALPHA, B)
        assert (process.name, process.time_step, process.batch_size) == (name, ALPHA, B)
        assert process.epochs_per_step == pytest.approx(B / N)
    assert langevin(digits, ALPHA, B, time_step=ALPHA / 4).epochs_per_step == pytest.approx(B / N / 4)
    assert np.isnan(surrogate().epochs_per_step)


@pytest.mark.parametrize("name", PROCESSES)
def test_named_processes_take_what_a_process_takes_and_say_so(digits, name):
    make = PROCESSES[name]
    drift, update = GradientDrift(digits), Adam(offset=1e-4)
    process = make(digits, ALPHA, B, update=update, drift=drift, name="mine")
    assert (process.update, process.drift, process.name) == (update, drift, "mine")
    # What is said in short is the same rule.
    assert make(digits, ALPHA, B, momentum=0.9, weight_decay=0.1).update == Momentum(0.9, 0.1)
    assert make(digits, ALPHA, B, weight_decay=0.1, update=None).update == Plain(0.1)
    with pytest.raises(
        ConfigurationError, match=r"update=Adam\(.*\) and momentum=0.9 and weight_decay=0.1 came: .* one"
    ):
        make(digits, ALPHA, B, update=update, momentum=0.9, weight_decay=0.1)
    with pytest.raises(ConfigurationError, match=r"^update is the class Adam: expected an instance"):
        make(digits, ALPHA, B, update=Adam)
    with pytest.raises(TypeError, match=r"_?\w+\(\) got an unexpected keyword argument 'momentums'"):
        make(digits, ALPHA, B, momentums=0.9)
    function = getattr(make, "func", make)
    parameters = list(inspect.signature(function).parameters)
    assert parameters[-6:] == ["update", "momentum", "weight_decay", "drift", "time_step", "name"]
    documented = re.findall(r"^    (\w+) : ", function.__doc__, re.MULTILINE)
    assert documented == parameters
    assert "Returns\n    ---" in function.__doc__
    assert "Raises\n    ---" in function.__doc__


# --- Surrogates: the compiled integrator and exact laws ---------------------------------------------------------------


@pytest.mark.parametrize("time_step", [0.2, 0.05])
@pytest.mark.parametrize("lengths", [(1,), (64,), (65,), (200,), (10, 54, 1, 100), (63, 2, 64, 64)])
def test_compiled_integrator_equals_plain_steps_with_the_same_normals(lengths, time_step):
    """Whole and partial blocks of normals, from wherever a block is entered."""
    compiled, plain = (surrogate(update, time_step=time_step) for update in (EulerMaruyama(), Plain()))
    one, other = compiled.start(3, 0), plain.start(3, 0)
    for steps in lengths:
        one, other = advance(compiled, one, steps), advance(plain, other, steps)
        assert one.step == other.step
        np.testing.assert_allclose(one.weights.numpy(), other.weights.numpy(), rtol=0, atol=1e-13)


def fixed_point(hessian: np.ndarray, covariance: np.ndarray, alpha: float, time_step: float) -> np.ndarray:
    """Iterate S ← (I − Δt H) S (I − Δt H)ᵀ + α Δt C until it no longer moves."""
    contraction = np.eye(len(hessian)) - time_step * hessian
    settled = np.zeros_like(covariance)
    for _ in range(2000):
        settled = contraction @ settled @ contraction.T + alpha * time_step * covariance
    return settled


def assert_stationary(process: Process, expected: np.ndarray) -> None:
    """10,000 independent replicas, burnt in to e⁻²⁵ and whitened by the expected law, have covariance 1 and mean 0.

    A noise 5 % too loud moves each of the three variances by 10 %, seven standard errors.
    """
    replicas, landscape = 10_000, process.landscape
    steps = int(25 / (process.time_step * 0.5))
    weights = advance(process, process.start(replicas, 0), steps).weights.numpy()
    whitened = np.linalg.solve(np.linalg.cholesky(expected), (weights - landscape.minimum).T)
    measured = whitened @ whitened.T / replicas
    assert np.all(np.abs(whitened.mean(1)) <= SIGMAS / replicas**0.5), "mean"
    errors = np.sqrt((1 + np.eye(3)) / replicas)
    assert np.all(np.abs(measured - np.eye(3)) <= SIGMAS * errors), "stationary covariance"


@pytest.mark.parametrize("alpha", [0.2, 0.35])
def test_declared_stationary_covariance_is_the_fixed_point_of_the_iteration(alpha):
    landscape = bowl()
    iterated = fixed_point(landscape.hessian, landscape.noise_covariance, alpha, alpha)
    np.testing.assert_allclose(landscape.stationary_covariance(alpha), iterated, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("update", [Plain(), EulerMaruyama()])
@pytest.mark.parametrize("time_step", [0.2, 0.1])
def test_replicas_settle_to_the_lyapunov_covariance(update, time_step):
    landscape = bowl()
    process = surrogate(update, time_step=time_step)
    assert_stationary(process, fixed_point(landscape.hessian, landscape.noise_covariance, 0.2, time_step))
    if time_step != 0.2:
        with pytest.raises(AssertionError, match="stationary covariance"):
            assert_stationary(process, landscape.stationary_covariance(0.2))


@pytest.mark.parametrize("update", [Plain(), EulerMaruyama()])
@pytest.mark.parametrize("loudness", [1.05, 0.95])
def test_noise_five_percent_off_fails_the_lyapunov_check(update, loudness):
    with pytest.raises(AssertionError, match="stationary covariance"):
        assert_stationary(surrogate(update, loudness=loudness), bowl().stationary_covariance(0.2))


# --- parts as they were written before


def former(base: type, **methods) -> type:
    return type("Former", (base,), methods)


def transposed(self, n_samples, memory, draws, steps):
    return np.zeros((2, steps, self.batch_size), np.int64), memory


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"noise": former(ShuffledMinibatches, sample_weights=lambda self, landscape, memory, key: None)(5)},
            r"sample_weights takes \(landscape, .*expected \(n_samples, memory, draws, steps\)",
        ),
        (
            {"noise": former(ShuffledMinibatches, minibatches=lambda self, landscape, memory, key, steps: None)(5)},
            r"minibatches takes \(landscape, .*expected \(n_samples,",
        ),
        (
            {"update": former(Plain, check=lambda self, process: None)()},
            r"check takes \(process\): expected \(landscape, drift, noise\)",
        ),
        (
            {"update": former(Plain, advance=lambda self, process, state, steps: None)()},
            "method 'advance', which nothing calls",
        ),
        (
            {"noise": former(ShuffledMinibatches, minibatches=transposed)(5)},
            r"shape \(2, 3, 5\), .*expected whole numbers of shape .* = \(3, 2, any\)",
        ),
        (
            {"kind": former(Process, advance=lambda self, state, steps: None)},
            "Former has a method 'advance', which no run calls",
        ),
    ],
    ids=["weights", "minibatches", "check", "advance of a rule", "shape", "advance of a process"],
)
def test_parts_as_they_were_written_before_are_refused_by_name(parts, said, digits):
    def run(kind=Process, **parts):
        process = kind(digits, learning_rate=0.1, **{"noise": ShuffledMinibatches(5), **parts})
        advance(process, process.start(2, 0), 3)

    with pytest.raises(ConfigurationError, match=said):
        run(**parts)
