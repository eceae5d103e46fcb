"""Noise of the forward pass: against loops of torch, exact means and covariances, and twins that are off.

Of a linear network all moments are known: masks of three inputs are enumerated, noise on inputs has Gaussian moments, labels
are as many as classes, minibatches of four samples are six.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pytest
import torch
from cases import digits_landscape
from torch import nn

from langevin_nn import NetworkLandscape, Process, Seeds, advance, simulate
from langevin_nn.drift import LinearDrift
from langevin_nn.errors import ConfigurationError, EstimationRefused, SampleMixingError
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import (
    AugmentationNoise,
    BatchStatistics,
    DropoutNoise,
    ForwardChange,
    IndependentMinibatches,
    LabelSmoothingNoise,
    MatchedGaussian,
    ModuleNoise,
    ScaledNoise,
    ShuffledMinibatches,
    Silent,
    ThermalNoise,
    noise_shares,
)
from langevin_nn.observables import DrivingNoise, Losses
from langevin_nn.seeds import Key
from langevin_nn.testing import check_noise, check_process
from langevin_nn.update import EulerMaruyama, Momentum

SIGMAS = 4.5
N, B = 4, 2
FINITE = (N - B) / (N - 1) / B  # what multiplies Σ in minibatches without replacement
INPUTS = torch.as_tensor(np.random.default_rng(1).standard_normal((N, 3)))
TARGETS = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
WEIGHTS = torch.tensor([0.7, -1.2, 0.4], dtype=torch.float64)


def squared(outputs, labels):
    return 0.5 * (outputs[:, 0] - labels).square()


def regression(probability: float = 0.4) -> NetworkLandscape:
    """ℓ_k = ½ (w·x_k − t_k)² with dropout on the inputs."""
    network = nn.Sequential(nn.Dropout(probability), nn.Linear(3, 1, bias=False)).double().eval()
    return NetworkLandscape(network, INPUTS, TARGETS, loss=squared, start="drawn")


def moments_of_dropout(probability: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean (sample, parameter) and covariance (sample, parameter, parameter) of the gradients of samples, over all masks."""
    masks = np.array(list(product((0.0, 1.0), repeat=3)))
    chances = np.prod(np.where(masks > 0, 1 - probability, probability), axis=1)
    kept = masks[:, None] * INPUTS.numpy() / (1 - probability)  # mask, sample, input
    gradients = (kept @ WEIGHTS.numpy() - TARGETS.numpy())[..., None] * kept
    mean = np.einsum("m,mki->ki", chances, gradients)
    return mean, np.einsum("m,mki,mkj->kij", chances, gradients - mean, gradients - mean)


def with_minibatches(mean: np.ndarray, covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean gradient, and the covariance of minibatches and that of the pass, which add."""
    return mean.mean(0), FINITE * np.cov(mean.T, bias=True), covariances.mean(0) / B


# --- Training as torch does -----------------------------------------------------------------------------------------


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = (nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        return nn.Sequential(*layers).eval()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), torch.arange(40) % 3


def landscape_of(module: nn.Module | None = None) -> NetworkLandscape:
    return NetworkLandscape(module or network(), *data(), start="own")


def noisy(inputs, generator):
    return inputs + 0.2 * torch.empty_like(inputs).normal_(generator=generator)


def trained_by_torch(part: int | None, steps: int, prepare=lambda module: None, augment=None) -> torch.Tensor:
    """Weights of a loop of torch: minibatches of 5 in shuffled epochs, seeds as documented, SGD with momentum."""
    module, (inputs, labels) = network(), data()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    seeds = Seeds(7)
    own = seeds if not part else Seeds(seeds.integer(f"part {part} of a sum", 0))
    prepare(module)
    with torch.random.fork_rng(devices=[]):
        for step in range(steps):
            order = seeds.generator("epoch order", 2, step // 8).permutation(40)
            rows = torch.as_tensor(order[step % 8 * 5 :][:5])
            seed = int(own.generator("forward pass", 2, step).integers(2**63))
            drawn = inputs[rows]
            if augment is not None:
                drawn = augment(drawn, torch.Generator().manual_seed(seed))
            torch.manual_seed(seed)
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(drawn), labels[rows]).backward()
            optimizer.step()
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def trained(noise, steps: int = 20, replicas=(2,)) -> torch.Tensor:
    process = Process(landscape_of(), noise, 0.1, update=Momentum(0.9))
    return advance(process, process.start(replicas, seed=7), steps).weights


def test_dropout_with_minibatches_trains_as_a_loop_of_torch_with_the_same_masks():
    noise = ShuffledMinibatches(5) + DropoutNoise()
    before = torch.get_rng_state()
    weights = trained(noise)[0]
    assert torch.equal(before, torch.get_rng_state())
    theirs = trained_by_torch(1, 20, lambda module: module[3].train())
    torch.testing.assert_close(weights, theirs, rtol=1e-5, atol=1e-6)
    others = trained_by_torch(0, 20, lambda module: module[3].train())
    assert float((weights - others).abs().max()) > 1e-2  # other masks


def test_augmentation_with_minibatches_trains_as_a_loop_of_torch_with_the_same_numbers():
    theirs = trained_by_torch(1, 20, augment=noisy)
    torch.testing.assert_close(
        trained(ShuffledMinibatches(5) + AugmentationNoise(noisy))[0], theirs, rtol=1e-5, atol=1e-6
    )


def test_transforms_that_draw_from_torch_itself_are_seeded_too():
    landscape = landscape_of()
    process = Process(landscape, AugmentationNoise(lambda inputs, _: inputs + 0.1 * torch.randn(inputs.shape)), 0.1)
    runs = [advance(process, process.start((0, 3), seed=each), 3).weights for each in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][0], runs[0][1])


def test_a_transform_that_draws_from_its_generator_is_known_when_a_run_goes_on(tmp_path):
    def run(transform):
        process = Process(landscape_of(), ShuffledMinibatches(5) + AugmentationNoise(transform), 0.1)
        return simulate(process, steps=4, observables=[Losses()], resume=tmp_path / "run.nc", progress=False)

    run(lambda inputs, generator: inputs + 0.1 * torch.randn(inputs.shape, generator=generator))
    run(lambda inputs, generator: inputs + 0.1 * torch.randn(inputs.shape, generator=generator))  # warnings are errors
    with pytest.raises(ConfigurationError, match="transform"):
        run(lambda inputs, generator: inputs + 0.2 * torch.randn(inputs.shape, generator=generator))


@dataclass(frozen=True)
class Erased(ModuleNoise):
    """Inputs of which one of three is erased for the whole minibatch: a source of a user's own."""

    def change(self, landscape):
        def erased(inputs, labels, generator):
            place = int(torch.randint(3, (), generator=generator))
            return inputs.index_fill(1, torch.tensor([place]), 0.0), labels

        return ForwardChange(samples=erased)


def test_a_source_of_ones_own_is_held_to_its_mean_and_covariance():
    kept = 1 - np.eye(3)
    rows = kept[:, None] * INPUTS.numpy()
    each = ((rows @ WEIGHTS.numpy() - TARGETS.numpy())[..., None] * rows).mean(1)  # over all samples, by place
    known = {"weights": WEIGHTS, "mean": each.mean(0), "covariance": np.cov(each.T, bias=True), "draws": 2048}
    check_noise(Erased(), regression(), **known)
    found = noise_shares(regression(), Erased(), WEIGHTS, draws=500)
    assert abs(found.total - np.trace(known["covariance"])) < SIGMAS * found.total_error


def test_noise_of_the_pass_is_the_same_alone_in_company_and_after_a_kill():
    everything = (
        ShuffledMinibatches(5)
        + DropoutNoise()
        + AugmentationNoise(noisy)
        + LabelSmoothingNoise(0.2)
        + ThermalNoise(1e-4)
    )
    check_process(Process(landscape_of(), everything, 0.1, update=Momentum(0.5)))
    check_process(Process(landscape_of(), DropoutNoise(), 0.1))


class Unseeded(DropoutNoise):
    def seeds(self, key):
        return tuple(int(each) for each in np.random.default_rng().integers(2**63, size=len(key.replicas)))


def test_masks_that_are_not_addressed_would_be_noticed():
    with pytest.raises(AssertionError, match="a replica has other bits on its second run"):
        check_process(Process(landscape_of(), ShuffledMinibatches(5) + Unseeded(), 0.1))


# --- Exact moments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [IndependentMinibatches, ShuffledMinibatches])
def test_dropout_has_its_mean_and_covariance_and_one_that_drops_more_has_not(law):
    mean, of_minibatches, of_pass = with_minibatches(*moments_of_dropout(0.4))
    inputs, weights = INPUTS.numpy(), WEIGHTS.numpy()
    residual = inputs @ weights - TARGETS.numpy()  # the mean over masks in closed form, by another way than masks
    closed = (residual[:, None] * inputs + 0.4 / 0.6 * weights * inputs**2).mean(0)
    np.testing.assert_allclose(mean, closed, rtol=1e-12)
    noise, known = law(B) + DropoutNoise(), {"weights": WEIGHTS, "mean": mean, "draws": 4096}
    check_noise(noise, regression(), covariance=of_minibatches + of_pass, **known)
    twin = regression(0.48)
    with pytest.raises(AssertionError, match=r"a mean along a direction[\s\S]*a variance along a direction"):
        check_noise(noise, twin, covariance=of_minibatches + of_pass, **known)
    in_evaluation = regression().gradient(WEIGHTS[None])[0].numpy()
    assert np.abs(in_evaluation - mean).max() > 0.1 * np.abs(in_evaluation).max()  # another drift


def test_dropout_alone_is_the_pass_over_all_samples():
    mean, covariances = moments_of_dropout(0.4)
    noise = DropoutNoise()
    known = {"weights": WEIGHTS, "mean": mean.mean(0), "draws": 4096}
    check_noise(noise, regression(), covariance=covariances.mean(0) / N, **known)


def test_noise_on_inputs_has_its_mean_and_covariance():
    scale, size, weights = 0.5, float(WEIGHTS @ WEIGHTS), WEIGHTS.numpy()
    residual = (INPUTS @ WEIGHTS - TARGETS).numpy()
    mean = residual[:, None] * INPUTS.numpy() + scale**2 * weights
    covariances = np.stack(
        [
            (r * scale) ** 2 * np.eye(3)
            + scale**2 * size * np.outer(x, x)
            + r * scale**2 * (np.outer(x, weights) + np.outer(weights, x))
            + scale**4 * (size * np.eye(3) + np.outer(weights, weights))
            for r, x in zip(residual, INPUTS.numpy(), strict=True)
        ]
    )
    average, of_minibatches, of_pass = with_minibatches(mean, covariances)
    known = {"weights": WEIGHTS, "mean": average, "covariance": of_minibatches + of_pass, "draws": 4096}

    def kicked(amplitude):
        return lambda inputs, generator: inputs + amplitude * torch.empty_like(inputs).normal_(generator=generator)

    check_noise(IndependentMinibatches(B) + AugmentationNoise(kicked(scale)), regression(), **known)
    with pytest.raises(AssertionError, match="along a direction"):
        check_noise(IndependentMinibatches(B) + AugmentationNoise(kicked(1.2 * scale)), regression(), **known)


def classifier(smoothing: float = 0.0) -> NetworkLandscape:
    def loss(outputs, labels):
        return nn.functional.cross_entropy(outputs, labels, reduction="none", label_smoothing=smoothing)

    labels = torch.tensor([0, 1, 2, 1])
    return NetworkLandscape(nn.Linear(3, 3, bias=False).double(), INPUTS, labels, loss=loss, start="drawn")


def test_labels_by_chance_have_the_mean_of_smoothed_labels_and_their_covariance():
    p, landscape = 0.3, classifier()
    point = torch.as_tensor(np.random.default_rng(5).standard_normal(9))
    expected = classifier(p * 3 / 2).gradient(point[None])[0]  # torch's own smoothing, of p M/(M − 1)
    shares = torch.softmax(INPUTS @ point.reshape(3, 3).T, 1)
    of_labels = [
        (shares - torch.eye(3)[[k] * 4].double())[:, :, None] * INPUTS[:, None] for k in range(3)
    ]  # by class, sample
    chances = torch.full((4, 3), p / 2, dtype=torch.float64).scatter(1, landscape.labels[0][:, None], 1 - p)
    each = torch.stack(of_labels, 1).reshape(4, 3, 9)  # sample, class, parameter
    mean = (chances[..., None] * each).sum(1)
    off = each - mean[:, None]
    covariances = torch.einsum("kc,kci,kcj->kij", chances, off, off)
    average, of_minibatches, of_pass = with_minibatches(mean.numpy(), covariances.numpy())
    np.testing.assert_allclose(average, expected, atol=1e-12)
    known = {"weights": point, "mean": expected, "covariance": of_minibatches + of_pass, "draws": 4096}
    check_noise(IndependentMinibatches(B) + LabelSmoothingNoise(p), landscape, **known)
    with pytest.raises(AssertionError, match="along a direction"):
        check_noise(IndependentMinibatches(B) + LabelSmoothingNoise(1.2 * p), landscape, **known)


def test_sources_that_are_added_act_beside_the_pass():
    landscape = landscape_of()

    def after(noise):
        process = Process(landscape, noise, 0.1)
        return advance(process, process.start(2, seed=0), 3).weights

    alone = after(DropoutNoise())
    assert torch.equal(after(DropoutNoise() + ThermalNoise(0.0)), alone)
    hot, silent = after(DropoutNoise() + ThermalNoise(0.1)), after(Silent())
    assert float((hot - alone).std()) == pytest.approx((3 * 2 * 0.1 * 0.1) ** 0.5, rel=0.3)
    first = after(ThermalNoise(0.0) + DropoutNoise())  # masks of the second source
    assert float((first - alone).abs().max()) > 1e-4 < float((first - silent).abs().max())


# --- Shares ------------------------------------------------------------------------------------------------------------


def test_shares_of_minibatches_and_of_the_pass_are_those_of_the_law_of_total_variance():
    mean, of_minibatches, of_pass = with_minibatches(*moments_of_dropout(0.4))
    noise = IndependentMinibatches(B) + DropoutNoise()
    found = noise_shares(regression(), noise, WEIGHTS, draws=2000)

    def off(found):
        """By how many standard errors."""
        return np.abs(
            [
                (found.minibatches - np.trace(of_minibatches)) / found.minibatches_error,
                (found.forward_pass - np.trace(of_pass)) / found.forward_pass_error,
                (found.total - np.trace(of_minibatches + of_pass)) / found.total_error,
                *((found.drift.numpy() - mean) / found.drift_error.numpy()),
            ]
        )

    assert (off(found) < SIGMAS).all()
    assert found.total == pytest.approx(found.minibatches + found.forward_pass, rel=1e-12)
    assert found.draws == 2000
    twin = off(noise_shares(regression(0.48), noise, WEIGHTS, draws=1500))
    assert (twin[[1, 2]] > SIGMAS).all()
    of_network = {"1.weight": WEIGHTS[None]}
    again = [noise_shares(regression(), noise, each, draws=10) for each in (WEIGHTS, of_network, WEIGHTS.tolist())]
    assert len({each.total for each in again}) == 1
    alone = noise_shares(regression(), DropoutNoise(), WEIGHTS, draws=1000)
    assert (alone.minibatches, alone.minibatches_error) == (0.0, 0.0)
    assert abs(alone.total - np.trace(of_pass) * B / N) < SIGMAS * alone.total_error


def test_standard_errors_of_shares_are_the_spread_over_seeds():
    noise = IndependentMinibatches(B) + DropoutNoise()
    runs = [noise_shares(regression(), noise, WEIGHTS, draws=60, seed=each) for each in range(60)]
    for name in ("minibatches", "forward_pass", "total"):
        values = np.array([getattr(each, name) for each in runs])
        errors = np.array([getattr(each, f"{name}_error") for each in runs])
        assert values.std(ddof=1) == pytest.approx(np.sqrt((errors**2).mean()), rel=0.35)  # 60 of heavy tails


def test_too_few_draws_are_refused():
    for draws in (0, 1, 2):
        with pytest.raises(EstimationRefused, match=f"{draws} draws came: expected at least 3") as refusal:
            noise_shares(regression(), DropoutNoise(), WEIGHTS, draws=draws)
        assert refusal.value.numbers == {"draws": draws}
    with pytest.raises(
        ConfigurationError, match=r"no noise of the forward pass: expected a source such as DropoutNoise"
    ):
        noise_shares(regression(), IndependentMinibatches(2), WEIGHTS)
    with pytest.raises(ConfigurationError, match=r"weights have shape \(2,\): expected \(3,\)"):
        noise_shares(regression(), DropoutNoise(), WEIGHTS[:2])


# --- Which layers draw --------------------------------------------------------------------------------------------------


class Own(nn.Module):
    """Draws where it trains, as modules of one's own do."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return nn.functional.dropout(self.inner(x), 0.5, self.training)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.attention(x[:, None].expand(-1, 4, -1), *[x[:, None].expand(-1, 4, -1)] * 2)[0][:, 0]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory = nn.LSTM(3, 3, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.memory(x[:, None])[0][:, 0]


@pytest.mark.parametrize(
    ("module", "noise"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.AlphaDropout(0.5)), DropoutNoise()),
        (Attention(), DropoutNoise()),
        (Recurrent(), DropoutNoise()),
        (Own(), DropoutNoise("")),
        (nn.Sequential(Own(), nn.Dropout(0.0)), DropoutNoise(("0",))),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, nn.Module) else "",
)
def test_every_layer_that_draws_is_found_or_named(module, noise):
    landscape = NetworkLandscape(module.double().eval(), INPUTS, torch.tensor([0, 1, 2, 1]), start="own")
    check_process(Process(landscape, noise + IndependentMinibatches(2), 0.1))
    found = noise_shares(landscape, noise, landscape.own_weights, draws=10)
    assert found.total > 0
    assert not any(each.training for name, each in landscape.layers.items() if name)


def doubled(inputs, generator):
    return torch.cat([inputs, inputs])


def broken(inputs, generator):
    raise IndexError("of no use")


def elsewhere(inputs, generator):
    return inputs + torch.as_tensor(np.random.default_rng().standard_normal(inputs.shape))


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (lambda: AugmentationNoise(3), "transform is a number|transform is .*int"),
        (lambda: AugmentationNoise(doubled), r"returned \(4, 3\), torch.float64 for inputs of \(2, 3\)"),
        (lambda: AugmentationNoise(broken), r"fails on inputs of shape \(2, 3\) \(IndexError: of no use\)"),
        (
            lambda: AugmentationNoise(elsewhere),
            "other inputs from the same seed: expected random numbers of the generator",
        ),
        (lambda: LabelSmoothingNoise(1.2), "probability=1.2: expected a probability from 0 to 1"),
        (lambda: LabelSmoothingNoise(0.1), "labels are not one class a sample: expected classes"),
        (lambda: DropoutNoise("*.other"), r"no layer is called '\*.other': expected one of '0', '1'"),
        (lambda: DropoutNoise(3), "layers.*: expected names of layers"),
        (lambda: DropoutNoise((3,)), "a name in layers is .*: expected names of layers"),
        (
            lambda: ScaledNoise(DropoutNoise(), 2.0),
            "at another temperature came: expected noise that can be multiplied",
        ),
        (lambda: ScaledNoise(DropoutNoise() + ThermalNoise(0.1), 2.0), "at another temperature came"),
        (lambda: IndependentMinibatches(2) + MatchedGaussian(2) + DropoutNoise(), "2 laws of sample weights beside"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_to_do(noise, said):
    with pytest.raises(ConfigurationError, match=said):
        Process(regression(), noise(), 0.1)


def test_processes_in_which_the_pass_does_not_make_drift_and_noise_are_refused():
    noise = DropoutNoise()
    drift = LinearDrift(np.eye(3))
    with pytest.raises(ConfigurationError, match="expected the gradient of the landscape, since the drift is the mean"):
        Process(regression(), noise, 0.1, drift=drift)
    with pytest.raises(ConfigurationError, match=r"with DropoutNoise: expected 0.1, the learning rate"):
        Process(regression(), noise, 0.1, time_step=0.05)
    with pytest.raises(ConfigurationError, match="use update=Plain"):
        Process(regression(), noise, 0.1, update=EulerMaruyama())
    with pytest.raises(ConfigurationError, match="which has no forward pass: expected a NetworkLandscape"):
        Process(QuadraticLandscape(np.eye(2), np.eye(2)), noise, 0.1)
    with pytest.raises(ConfigurationError, match="no dropout layer of probability above 0"):
        Process(digits_landscape(), noise, 0.1)
    with pytest.raises(SampleMixingError, match=r"add DropoutNoise\(\) to the noise"):
        NetworkLandscape(nn.Sequential(nn.Dropout(0.4), nn.Linear(3, 1)), INPUTS, TARGETS, loss=squared)


def test_a_pass_has_no_sample_gradients_and_changes_no_data():
    landscape = regression()
    key = Key(Seeds(0), (0, 1), 0)
    seen = DropoutNoise().seen(landscape, key)
    rows = WEIGHTS.expand(2, -1)
    losses = seen.sample_losses(rows)
    assert losses.shape == (2, N)
    assert torch.equal(losses, seen.sample_losses(rows))  # the same masks again
    assert not torch.equal(losses[0], losses[1])
    weight = (seen.gradient(rows) * rows).sum(1)  # ∂L/∂w · w = mean of (w·x − t) w·x, from the losses themselves
    residual = torch.stack([(INPUTS * mask) @ WEIGHTS - TARGETS for mask in _masks(landscape, key)])
    torch.testing.assert_close(losses, residual.square() / 2)
    torch.testing.assert_close(weight, (residual * (residual + TARGETS)).mean(1))
    for question in (lambda: seen.sample_gradients(WEIGHTS), lambda: seen.hessian_product(rows, rows)):
        with pytest.raises(ConfigurationError, match=r"expected th(ose|at) of the landscape itself"):
            question()

    def in_place(inputs, generator):
        return inputs.add_(1.0)

    before = landscape.inputs.clone()
    AugmentationNoise(in_place).seen(landscape, key).gradient(rows)
    assert torch.equal(landscape.inputs, before)


def _masks(landscape, key):
    layer = nn.Dropout(0.4).train()
    for seed in DropoutNoise().seeds(key):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield layer(torch.ones_like(INPUTS))


# --- Statistics of the minibatch ----------------------------------------------------------------------------------------


def normalised() -> NetworkLandscape:
    """ℓ = ½ (w·BN(x) − t)², whose minibatches are few enough to be listed."""
    network = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.Linear(3, 1, bias=False)).double().eval()
    return NetworkLandscape(
        network, INPUTS, TARGETS, loss=squared, start="drawn", test_inputs=INPUTS, test_labels=TARGETS
    )


def standardised(rows: np.ndarray) -> np.ndarray:
    return (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)


def gradients_of_minibatches(size: int) -> np.ndarray:
    """Of the mean loss of each possible minibatch with its own statistics, by hand, shape (minibatch, parameter)."""
    found = []
    for rows in map(list, combinations(range(N), size)):
        own = standardised(INPUTS.numpy()[rows])
        found.append(((own @ WEIGHTS.numpy() - TARGETS.numpy()[rows])[:, None] * own).mean(0))
    return np.array(found)


def test_batch_normalisation_trains_as_a_loop_of_torch():
    noise = ShuffledMinibatches(5) + BatchStatistics() + DropoutNoise()

    def prepare(module):
        module[1].train()
        module[3].train()

    theirs = trained_by_torch(2, 20, prepare)
    torch.testing.assert_close(trained(noise)[0], theirs, rtol=1e-5, atol=1e-6)
    landscape = landscape_of()
    before = deepcopy(dict(landscape.layers[""].named_buffers()))
    check_process(Process(landscape, noise, 0.1))
    kept = dict(landscape.forward_gradient._module.named_buffers())
    assert all(torch.equal(before[name], each) for name, each in kept.items())


@pytest.mark.parametrize("size", [2, 3])
def test_the_drift_of_batch_normalisation_is_the_mean_over_minibatches(size):
    each = gradients_of_minibatches(size)
    noise, known = IndependentMinibatches(size) + BatchStatistics(), {"weights": WEIGHTS, "draws": 2048}
    check_noise(noise, normalised(), mean=each.mean(0), covariance=np.cov(each.T, bias=True), **known)
    with pytest.raises(AssertionError, match="a mean along a direction"):  # which depends on B
        check_noise(noise, normalised(), mean=gradients_of_minibatches(5 - size).mean(0), **known)
    found = noise_shares(normalised(), noise, WEIGHTS, draws=1000)
    assert (np.abs(found.drift.numpy() - each.mean(0)) < SIGMAS * found.drift_error.numpy()).all()
    assert found.forward_pass == pytest.approx(0, abs=1e-12)
    assert abs(found.total - np.trace(np.cov(each.T, bias=True))) < SIGMAS * found.total_error


def test_without_minibatches_statistics_are_those_of_all_samples():
    seen = BatchStatistics().seen(normalised(), Key(Seeds(0), (0,), 0))
    np.testing.assert_allclose(seen.gradient(WEIGHTS[None])[0], gradients_of_minibatches(N)[0], rtol=1e-12)
    with pytest.raises(SampleMixingError, match="layer '0' normalises over the minibatch: sample gradients"):
        seen.sample_gradients(WEIGHTS)


def test_losses_take_the_statistics_that_came_or_those_of_the_training_data():
    landscape = normalised()
    process = Process(landscape, IndependentMinibatches(2) + BatchStatistics(), 0.1)
    options = {"steps": 1, "weights": WEIGHTS[None], "replicas": 1, "progress": False}
    given, recomputed = (
        simulate(process, observables=[Losses(batch_statistics=each), DrivingNoise()], **options)
        for each in ("given", "recomputed")
    )
    inputs = INPUTS.numpy() - INPUTS.numpy().mean(0)
    own = inputs / np.sqrt((inputs**2).sum(0) / (N - 1) + 1e-5)  # in evaluation torch takes the unbiased variance
    for run, rows in ((given, INPUTS.numpy() / np.sqrt(1 + 1e-5)), (recomputed, own)):
        loss = 0.5 * ((rows @ WEIGHTS.numpy() - TARGETS.numpy()) ** 2).mean()
        assert float(run.train_loss[0, 0, 0]) == pytest.approx(loss, rel=1e-6)
        assert float(run.test_loss[0, 0]) == pytest.approx(loss, rel=1e-6)
    assert np.isnan(given.driving_noise_strength.values).all()
    assert torch.equal(landscape.layers["0"].running_var, torch.ones(3, dtype=torch.float64))


def test_what_has_no_meaning_with_batch_normalisation_is_refused():
    process = Process(normalised(), IndependentMinibatches(2) + BatchStatistics(), 0.1)
    with pytest.raises(SampleMixingError, match=r"layer '0' normalises over the minibatch in updates[\s\S]*recomputed"):
        simulate(process, steps=1, replicas=1, progress=False)
    for law, said in (
        (MatchedGaussian(2), "expected minibatches, since samples that are weighed otherwise have no statistics"),
        (IndependentMinibatches(1), "fails on a minibatch of 1 .*: expected at least 2 values"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            Process(normalised(), law + BatchStatistics(), 0.1)
    with pytest.raises(ConfigurationError, match="the network has no batch normalisation"):
        Process(regression(), BatchStatistics(), 0.1)
    with pytest.raises(ConfigurationError, match=r"layer '0' normalises over the batch: .* add BatchStatistics\(\)"):
        Process(normalised(), DropoutNoise("0"), 0.1)
    with pytest.raises(SampleMixingError, match=r"add BatchStatistics\(\) to the noise"):
        NetworkLandscape(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)), INPUTS.float(), TARGETS, loss=squared)


def test_files_say_what_is_not_known_of_the_strength():
    process = Process(landscape_of(), ShuffledMinibatches(5) + DropoutNoise(), 0.1)
    run = simulate(process, steps=4, replicas=2, observables=[Losses(), DrivingNoise()], progress=False)
    assert np.isnan(run.driving_noise_strength.values).all()
    assert np.isfinite(run.train_loss.values[..., 0]).all()


def test_another_probability_is_another_run_and_does_not_resume(tmp_path):
    def run(probability):
        noise = IndependentMinibatches(5) + LabelSmoothingNoise(probability)
        process = Process(landscape_of(), noise, 0.1)
        return simulate(process, steps=4, observables=[Losses()], resume=tmp_path / "run.nc", progress=False)

    run(0.1)
    with pytest.raises(ConfigurationError, match=r"probability"):
        run(0.2)
