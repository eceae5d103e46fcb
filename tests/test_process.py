"""Processes: one update against right-hand sides typed independently, bits, divergence, and exact stationary laws."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
import pytest
import torch
from conftest import digits_landscape
from torch import nn

from langevin_nn import (
    AnisotropicNoise,
    GradientDrift,
    IndependentMinibatches,
    IsotropicNoise,
    LinearDrift,
    MatchedGaussian,
    NetworkLandscape,
    Process,
    QuadraticLandscape,
    Seeds,
    ShuffledMinibatches,
    Silent,
    advance,
    gradient_descent,
    gradient_ensemble,
    isotropic_langevin,
    langevin,
    sgd,
)
from langevin_nn.draws import draws_at
from langevin_nn.errors import ConfigurationError, UnstableTrajectory
from langevin_nn.kernels.normals import draw_normals
from langevin_nn.noise.factored import PURPOSE
from langevin_nn.process import PROCESSES
from langevin_nn.update import EulerMaruyama, Momentum, Plain, Update
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
def digits():
    with torch.random.fork_rng(devices=[]):
        return digits_landscape(N)


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


def at_ratios(*ratios: float, names=tuple(SAMPLE_WEIGHTS)):
    """Every source at every Δt/α; shuffled epochs at 1 alone, which is where they are not refused."""
    pairs = [(name, ratio) for name in names for ratio in ratios if ratio == 1 or name != "shuffled"]
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


def test_silent_update_is_gradient_descent_at_any_time_step(digits):
    process = Process(digits, Silent(), ALPHA, time_step=ALPHA / 7)
    before = process.start(2, seed=4)
    after = advance(process, before, 1).weights.double()
    for w, moved in zip(before.weights.double(), after, strict=True):
        assert_close(moved, w - ALPHA / 7 * slow_sample_gradients(digits, w).mean(0), moved - w)


@pytest.mark.parametrize("time_step", [ALPHA, ALPHA / 4])
def test_weight_decay_adds_lambda_w_to_the_gradient(digits, time_step):
    """w − Δt [g + λ w]; the noise factor does not touch the decay."""
    process = Process(digits, SAMPLE_WEIGHTS["matched"], ALPHA, update=Plain(weight_decay=0.5), time_step=time_step)
    before, after, c = one_update(process)
    for w, moved, coefficients in zip(before, after, c, strict=True):
        g = slow_sample_gradients(digits, w)
        noise = (ALPHA / time_step) ** 0.5 * (coefficients @ g - g.mean(0))
        assert_close(moved, w - time_step * (g.mean(0) + noise + 0.5 * w), moved - w)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.0, 0.02), (0.9, 0.0), (0.9, 0.02)])
def test_sgd_with_momentum_and_weight_decay_follows_torch_optim_sgd(digits, momentum, weight_decay):
    """The same minibatches over eight updates, more than an epoch."""
    process = sgd(digits, ALPHA, B, momentum=momentum, weight_decay=weight_decay)
    state = process.start((3,), seed=0)
    with torch.random.fork_rng(devices=[]):
        module = multilayer_perceptron((64, 8, 10))
    nn.utils.vector_to_parameters(state.weights[0].clone(), module.parameters())
    optimizer = torch.optim.SGD(module.parameters(), lr=ALPHA, momentum=momentum, weight_decay=weight_decay)
    memory = state.noise_memory
    for step in range(8):
        drawn, memory = process.noise.sample_weights(N, memory, draws_at(state.key(step), state.weights), 1)
        rows = drawn.indices[0, 0]
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(digits.inputs[rows]), digits.labels[0][rows]).backward()
        optimizer.step()
        state = advance(process, state, 1)
        peer = nn.utils.parameters_to_vector(module.parameters()).detach()
        np.testing.assert_allclose(state.weights[0].numpy(), peer.numpy(), atol=2e-6)


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


@at_ratios(1.0, 0.25)
def test_fused_pass_equals_drift_and_noise_evaluated_apart(digits, name, ratio):
    """The same data in a second landscape object cannot be fused."""
    with torch.random.fork_rng(devices=[]):
        twin = digits_landscape(N)
    time_step = ratio * ALPHA
    fused = Process(digits, SAMPLE_WEIGHTS[name], ALPHA, time_step=time_step)
    apart = Process(digits, SAMPLE_WEIGHTS[name], ALPHA, drift=GradientDrift(twin), time_step=time_step)
    one, other = (advance(each, each.start(2, 0), 5).weights for each in (fused, apart))
    np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)


def test_drift_can_be_exchanged_with_added_noise_too(digits, clean):
    process = Process(digits, IsotropicNoise(B), ALPHA, drift=GradientDrift(clean))
    state = process.start(1, 0)
    gradient, _ = process.stochastic_gradient(state.weights, state.noise_memory, state.key(0))
    noise, _ = process.noise.increment(digits, state.weights, state.noise_memory, state.key(0))
    mean = slow_sample_gradients(clean, state.weights[0]).mean(0)
    np.testing.assert_allclose(gradient[0].numpy(), (mean + noise[0]).numpy(), atol=1e-6)


# --- Scaling with the time step ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoiseLinearInTheTimeStep(IndependentMinibatches):
    """A mutant: its increment scales as Δt, so that the noise dies out as Δt → 0."""

    time_step_exponent = 1.0


def assert_increment_law(process: Process, time_step: float, trace: float, mean: np.ndarray) -> None:
    """One update has mean −Δt ḡ and variance α Δt Tr C, over 2,000 replicas at the same weights."""
    replicas = 2000
    start = process.start(replicas, 9, process.start(1, 0).weights.expand(replicas, -1))
    moved = (advance(process, start, 1).weights - start.weights).double().numpy()
    deviations = moved + time_step * mean
    squares = np.square(deviations).sum(1)
    error = squares.std() / replicas**0.5
    assert abs(squares.mean() - ALPHA * time_step * trace) <= SIGMAS * error, "variance of the increment"
    unit = mean / np.linalg.norm(mean)
    along = deviations @ unit
    assert abs(along.mean()) <= SIGMAS * along.std() / replicas**0.5, "mean of the increment"


@at_ratios(1.0, 0.25, names=(*SAMPLE_WEIGHTS, "anisotropic"))
def test_variance_of_an_increment_is_alpha_times_time_step_times_the_covariance(digits, name, ratio):
    time_step = ratio * ALPHA
    g = slow_sample_gradients(digits, digits.initial_weights((0,), Seeds(0))[0]).numpy()
    trace = np.square(g - g.mean(0)).sum(1).mean() * (1 if name == "replacement" else F) / B
    noise = SAMPLE_WEIGHTS.get(name)
    if noise is None:
        factor = torch.as_tensor(0.02 * np.random.default_rng(3).standard_normal((g.shape[1], 4)))
        noise, trace = AnisotropicNoise(factor), float(factor.square().sum())
    process = Process(digits, noise, ALPHA, time_step=time_step)
    assert_increment_law(process, time_step, trace, g.mean(0))


@pytest.mark.parametrize("time_step", [ALPHA / 4, ALPHA / 1.2])
def test_noise_with_another_power_of_the_time_step_is_noticed(digits, time_step):
    g = slow_sample_gradients(digits, digits.initial_weights((0,), Seeds(0))[0]).numpy()
    trace = F / B * np.square(g - g.mean(0)).sum(1).mean()
    process = Process(digits, NoiseLinearInTheTimeStep(B), ALPHA, time_step=time_step)
    with pytest.raises(AssertionError, match="variance of the increment"):
        assert_increment_law(process, time_step, trace, g.mean(0))


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


def test_same_seed_gives_the_same_bits_and_another_seed_others(process):
    first, again, other = (advance(process, process.start(2, seed), 20).weights for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_replica_is_the_same_alone_among_others_and_in_another_order(process):
    together = advance(process, process.start(4, 0), 20).weights
    for replicas in ((3,), (3, 1, 0), (0, 1, 2, 3, 4, 5, 6), (9, 3)):
        others = advance(process, process.start(replicas, 0), 20).weights
        for position, replica in enumerate(replicas):
            if replica < 4:
                assert torch.equal(others[position], together[replica])
    assert not torch.equal(together[0], together[3])


@pytest.mark.parametrize("name", ["sgd", "langevin", "isotropic_langevin"])
def test_replica_is_the_same_among_others_on_the_traced_path_too(traced_digits, name):
    assert traced_digits.problem.path.name == "torch.func"
    process = RUNS[name](traced_digits)
    together = advance(process, process.start(4, 0), 12).weights
    for replicas in ((3,), (3, 1, 0)):
        assert torch.equal(advance(process, process.start(replicas, 0), 12).weights[0], together[3])


def test_a_block_of_updates_equals_as_many_single_ones(process):
    """48 updates of a network, 150 of a surrogate: more than two blocks of its normal numbers."""
    steps = 48 if process.batch_size or process.landscape.n_parameters > 3 else 150
    block = advance(process, process.start(3, 0), steps)
    single = process.start(3, 0)
    for _ in range(steps):
        single = advance(process, single, 1)
    pieces = process.start(3, 0)
    for length in (steps - 30, 0, 7, 23):
        pieces = advance(process, pieces, length)
    assert block.step == single.step == pieces.step == steps
    assert torch.equal(block.weights, single.weights)
    assert torch.equal(block.weights, pieces.weights)


@pytest.mark.parametrize("threads", [1, 2, 3])
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


def test_measuring_between_updates_changes_nothing(process):
    expected = advance(process, process.start(2, 0), 20).weights
    state = process.start(2, 0)
    for _ in range(2):
        state = advance(process, state, 10)
        process.landscape.loss(state.weights)
        process.landscape.gradient(state.weights)
        ensemble = gradient_ensemble(process.landscape, state.weights[0], process.batch_size or 5)
        ensemble.order_parameters(np.random.default_rng(0), n_minibatches=10)
        ensemble.spectrum()
    assert torch.equal(state.weights, expected)


def test_states_are_never_changed(process):
    state = process.start(2, 0)
    before = state.weights.clone()
    after = advance(process, state, 10)
    assert torch.equal(state.weights, before)
    assert (state.step, after.step) == (0, 10)


def test_given_start_weights_are_copied(digits):
    weights = digits.initial_weights((0,), Seeds(0))
    before = weights.clone()
    process = gradient_descent(digits, ALPHA)
    advance(process, process.start(1, 0, weights), 3)
    assert torch.equal(weights, before)


# --- Divergence -------------------------------------------------------------------------------------------------------

UNSTABLE = r"replica {} became non-finite at step {} with time step {}: expected finite weights"


def test_huge_learning_rate_raises_naming_replica_step_and_time_step(digits):
    process = sgd(digits, 1e30, B)
    with pytest.raises(UnstableTrajectory, match=UNSTABLE.format(5, r"\d+", r"1e\+30")) as caught:
        advance(process, process.start((5, 2), 0), 50)
    error = caught.value
    assert (error.replica, error.time_step) == (5, 1e30)
    calm = advance(process, process.start((5, 2), 0), error.step - 1)
    assert torch.isfinite(calm.weights).all(), "it diverged earlier than the error says"


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


@pytest.mark.parametrize(
    "make",
    [
        lambda d: sgd(d, ALPHA, B),
        lambda d: sgd(d, ALPHA, B, momentum=0.9),
        lambda d: langevin(d, ALPHA, B, time_step=ALPHA / 2),
        lambda d: isotropic_langevin(d, ALPHA, B, refresh_every=5),
        lambda d: surrogate(),
    ],
    ids=["sgd", "momentum", "langevin", "isotropic", "surrogate"],
)
def test_masked_replica_becomes_nan_while_the_others_keep_their_bits(digits, make):
    process = make(digits)
    calm = process.start(3, 0)
    wild = calm.weights.clone()
    wild[1] = torch.finfo(wild.dtype).max / 4
    expected = advance(process, calm, 20).weights
    masked = advance(process, process.start(3, 0, wild), 20, on_divergence="mask")
    assert masked.step == 20
    assert masked.diverged.tolist() == [False, True, False]
    assert torch.isnan(masked.weights[1]).all()
    for replica in (0, 2):
        assert torch.equal(masked.weights[replica], expected[replica])


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


def test_compiled_integrator_refuses_networks_and_noise_that_it_does_not_know(digits):
    with pytest.raises(ConfigurationError, match=r"MatchedGaussian has no compiled form: .* use update=Plain"):
        Process(digits, MatchedGaussian(B), ALPHA, drift=LinearDrift(np.eye(610)), update=EulerMaruyama())
    with pytest.raises(ConfigurationError, match=r"NetworkLandscape has no compiled gradient: .* use update=Plain"):
        Process(digits, AnisotropicNoise(torch.zeros(610, 1)), ALPHA, update=EulerMaruyama())


def test_named_processes_carry_their_names_and_default_to_a_time_step_of_alpha(digits):
    for name in ("sgd", "langevin", "isotropic_langevin", "gradient_descent"):
        process = PROCESSES[name](digits, ALPHA, B)
        assert (process.name, process.time_step, process.batch_size) == (name, ALPHA, B)
        assert process.epochs_per_step == pytest.approx(B / N)
    assert langevin(digits, ALPHA, B, time_step=ALPHA / 4).epochs_per_step == pytest.approx(B / N / 4)
    assert np.isnan(surrogate().epochs_per_step)


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


@pytest.mark.parametrize("update", [Plain(), EulerMaruyama()])
def test_surrogate_step_is_the_euler_maruyama_formula(update):
    """w − Δt H (w − w*) − √(α Δt) F ξ, typed in numpy, over more than one block."""
    alpha, time_step, steps = 0.2, 0.05, 69
    normals = draw_normals((0, 1), Seeds(0).key(PURPOSE), 0, steps, 3)
    landscape = bowl()
    process = surrogate(update, learning_rate=alpha, time_step=time_step)
    factor = np.linalg.cholesky(landscape.noise_covariance)
    w = np.tile([3.0, 0.0, 1.0], (2, 1))
    for step in range(steps):
        xi = normals[:, step]
        w = w - time_step * (w - [1.0, -2.0, 0.5]) @ landscape.hessian - np.sqrt(alpha * time_step) * xi @ factor.T
    np.testing.assert_allclose(advance(process, process.start(2, 0), steps).weights.numpy(), w, rtol=0, atol=1e-12)


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
def test_replicas_settle_to_the_lyapunov_covariance(update):
    landscape = bowl()
    iterated = fixed_point(landscape.hessian, landscape.noise_covariance, 0.2, 0.2)
    np.testing.assert_allclose(landscape.stationary_covariance(0.2), iterated, rtol=1e-10, atol=1e-12)
    assert_stationary(surrogate(update), iterated)


@pytest.mark.parametrize("update", [Plain(), EulerMaruyama()])
def test_replicas_settle_to_the_law_of_half_the_time_step(update):
    landscape = bowl()
    iterated = fixed_point(landscape.hessian, landscape.noise_covariance, 0.2, 0.1)
    process = surrogate(update, time_step=0.1)
    assert_stationary(process, iterated)
    with pytest.raises(AssertionError, match="stationary covariance"):
        assert_stationary(process, landscape.stationary_covariance(0.2))


@pytest.mark.parametrize("update", [Plain(), EulerMaruyama()])
@pytest.mark.parametrize("loudness", [1.05, 0.95])
def test_noise_five_percent_off_fails_the_lyapunov_check(update, loudness):
    with pytest.raises(AssertionError, match="stationary covariance"):
        assert_stationary(surrogate(update, loudness=loudness), bowl().stationary_covariance(0.2))


STARTS = torch.tensor([[1.0, 1.0], [torch.inf, 1.0], [0.0, 2.0]], dtype=torch.float64)


def unit_noise(hessian, update, learning_rate=ALPHA):
    landscape = QuadraticLandscape(hessian, np.eye(len(hessian)))
    return Process(landscape, AnisotropicNoise(landscape.noise_factor()), learning_rate, update=update)


def test_a_masked_replica_takes_nothing_along_in_the_compiled_integrator():
    """Replicas beside one that diverges are where they are without it."""
    for update in (EulerMaruyama(), Plain()):
        process = unit_noise(np.diag([1.0, 2.0]), update)
        # No run starts outside the finite numbers, so put the replica there by hand.
        start = replace(process.start(3, 0, torch.nan_to_num(STARTS, posinf=0)), weights=STARTS.clone())
        masked = advance(process, start, 100, on_divergence="mask")
        healthy = advance(process, process.start((0, 2), 0, STARTS[[0, 2]]), 100)
        assert masked.step == 100
        assert masked.diverged.tolist() == [False, True, False]
        assert torch.isnan(masked.weights[1]).all()
        assert torch.equal(masked.weights[[0, 2]], healthy.weights)


def test_the_compiled_integrator_names_the_first_replica_and_step_that_diverge():
    starts = torch.tensor([[1.0], [1e200]], dtype=torch.float64)
    said = []
    for update in (EulerMaruyama(), Plain()):
        process = unit_noise(np.array([[1e6]]), update, learning_rate=1.0)
        with pytest.raises(UnstableTrajectory) as unstable:
            advance(process, process.start(2, 0, starts), 200)
        said.append((unstable.value.replica, unstable.value.step))
    assert said[0] == said[1]
    assert said[0][0] == 1


# --- parts as they were written before


class FormerWeights(ShuffledMinibatches):
    def sample_weights(self, landscape, memory, key):
        raise AssertionError


class FormerMinibatches(ShuffledMinibatches):
    def minibatches(self, landscape, memory, key, steps):
        raise AssertionError


class Transposed(ShuffledMinibatches):
    def minibatches(self, n_samples, memory, draws, steps):
        return np.zeros((2, steps, self.batch_size), np.int64), memory


class FormerRule(Plain):
    def check(self, process):
        raise AssertionError


class Advancing(Plain):
    def advance(self, process, state, steps):
        raise AssertionError


class OwnWay(Process):
    def advance(self, state, steps):
        raise AssertionError


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"noise": FormerWeights(5)},
            r"sample_weights takes \(landscape, .*expected \(n_samples, memory, draws, steps\)",
        ),
        ({"noise": FormerMinibatches(5)}, r"minibatches takes \(landscape, .*expected \(n_samples,"),
        ({"update": FormerRule()}, r"check takes \(process\): expected \(landscape, drift, noise\)"),
        ({"update": Advancing()}, "method 'advance', which nothing calls"),
        ({"noise": Transposed(5)}, r"shape \(2, 3, 5\), .*expected whole numbers of shape .* = \(3, 2, any\)"),
        ({"kind": OwnWay}, "OwnWay has a method 'advance', which no run calls"),
    ],
    ids=["weights", "minibatches", "check", "advance of a rule", "shape", "advance of a process"],
)
def test_parts_as_they_were_written_before_are_refused_by_name(parts, said, digits):
    def run(kind=Process, **parts):
        process = kind(digits, learning_rate=0.1, **{"noise": ShuffledMinibatches(5), **parts})
        advance(process, process.start(2, 0), 3)

    with pytest.raises(ConfigurationError, match=said):
        run(**parts)
