"""Order parameters averaged over time, held to exact ensembles at fixed weights and to an exactly known law."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from cases import digits_landscape
from hypothesis import given
from hypothesis import strategies as st

from langevin_nn import NetworkLandscape, Process, gradient_ensemble, sgd, simulate
from langevin_nn.analyzers import TimeAveragedOrderParameters
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import AnisotropicNoise
from langevin_nn.observables import Losses, Weights
from langevin_nn.schedules import AtSteps, EverySteps

NAMES = ("activity", "directed_activity", "noise_strength", "alignment", "projection_variance")
N, B, REPLICAS = 60, 6, 120  # ten minibatches an epoch
EPOCH = N // B


def trajectory_of(gradients, rate=0.1):
    """Weights that these gradients (replica, update, parameter) would lead to."""
    steps = np.concatenate([np.zeros_like(gradients[:, :1]), -rate * gradients], axis=1)
    return xr.Dataset(
        {"weights": (("replica", "weight_step", "parameter"), np.cumsum(steps, axis=1))},
        coords={
            "weight_step": np.arange(gradients.shape[1] + 1),
            "learning_rate": ("replica", np.full(len(gradients), rate)),
        },
    )


@pytest.fixture(scope="module")
def still():
    """A network in double precision that hardly moves, its ensemble, and weights at every update of an epoch and a half."""
    small = digits_landscape(N)
    landscape = NetworkLandscape(small._module.double().requires_grad_(), small.inputs.double(), small.labels[0])
    start = landscape.own_weights[None]
    # A few steps down, where the mean gradient is no longer most of each gradient.
    for _ in range(60):
        start = start - 0.3 * landscape.gradient(start)
    ensemble = gradient_ensemble(landscape, start[0], B)
    exact = ensemble.order_parameters(np.random.default_rng(0), n_minibatches=4000).sel(cohort="all")
    runs = {}
    for independent in (False, True):
        process = sgd(landscape, 1e-9, B, independent=independent)
        every = Weights(AtSteps(tuple(range(EPOCH + EPOCH // 2 + 1))))
        options = {"observables": [Losses(), every], "schedule": EverySteps(100), "replicas": REPLICAS, "seed": 3}
        runs[independent] = simulate(
            process, steps=EPOCH + EPOCH // 2, weights=start.expand(REPLICAS, -1).contiguous(), **options
        )
    return exact, runs


def deviations(found, exact, names=NAMES):
    """How many standard errors over replicas the mean is from the exact value, with R's own error added."""
    scores = {}
    for name in names:
        values = found[name].values.ravel()
        error = values.std(ddof=1) / len(values) ** 0.5
        if name == "alignment":
            error = np.hypot(error, exact["alignment_standard_error"].item())
        scores[name] = abs(values.mean() - exact[name].item()) / max(error, 1e-9 * abs(exact[name].item()))
    return scores


SHUFFLED = {"n_samples": N, "batch_size": B}


def test_over_a_whole_epoch_at_fixed_weights_the_mean_is_the_gradient_itself(still):
    exact, runs = still
    found = TimeAveragedOrderParameters(length=EPOCH, **SHUFFLED)(runs[False])
    plain_mean = found.activity - found.noise_strength * (EPOCH - 1) / EPOCH * EPOCH / (EPOCH - 1)
    np.testing.assert_allclose(plain_mean, exact.directed_activity.item(), rtol=1e-5)
    np.testing.assert_allclose(found.directed_activity, exact.directed_activity.item(), rtol=1e-5)
    scores = deviations(found, exact, ("activity", "noise_strength", "projection_variance"))
    assert max(scores.values()) < 4, scores
    # R is right to leading order in the covariance of minibatches of one epoch.
    assert (
        abs(found.alignment.mean() - exact.alignment).item() < 0.1 * (1 - exact.alignment.item()) / (EPOCH - 1) + 0.01
    )


@pytest.mark.parametrize(("first", "last"), [(0, 5), (5, 10), (0, 15), (8, 15)])
def test_windows_within_and_across_shuffled_epochs_have_no_bias_at_fixed_weights(still, first, last):
    exact, runs = still
    weights = runs[False]["weights"].to_dataset().isel(weight_step=slice(first, last + 1))
    weights = weights.assign_coords(learning_rate=runs[False].learning_rate)
    found = TimeAveragedOrderParameters(**SHUFFLED)(weights)
    scores = deviations(found, exact, ("activity", "directed_activity", "noise_strength"))
    assert max(scores.values()) < 4, scores
    # A twin that takes the minibatches of an epoch for independent must not pass.
    twin = TimeAveragedOrderParameters()(weights)
    assert deviations(twin, exact)["directed_activity"] > 5


def test_independent_minibatches_need_no_correction_and_would_be_spoiled_by_it(still):
    exact, runs = still
    found = TimeAveragedOrderParameters()(runs[True])
    scores = deviations(found, exact, ("activity", "directed_activity", "noise_strength", "alignment"))
    assert max(scores.values()) < 4, scores
    assert deviations(TimeAveragedOrderParameters(**SHUFFLED)(runs[True]), exact)["directed_activity"] > 5
    # Nor would the square of the mean do, to which the noise of few updates adds.
    mean = (np.diff(runs[True]["weights"].weights.values, axis=1) / 1e-9).mean(1)
    squares = (mean**2).sum(1)
    assert squares.mean() - exact.directed_activity.item() > 5 * squares.std(ddof=1) / REPLICAS**0.5


def test_variance_along_the_mean_of_gaussian_gradients_is_unbiased():
    generator = np.random.default_rng(5)
    mean, factor = np.array([2.0, 1.0, 0.0]), np.array([[1.0, 0, 0], [0.7, 0.5, 0], [0.2, 0.1, 0.8]])
    gradients = mean + generator.standard_normal((20_000, 12, 3)) @ factor.T
    found = TimeAveragedOrderParameters()(trajectory_of(gradients))
    assert (found.directed_activity > 0).all()
    # σ² A₀² = ḡᵀ C ḡ; A₀ is estimated too, so that only this numerator has no bias.
    numerator = (found.projection_variance * found.directed_activity**2).values
    expected = mean @ factor @ factor.T @ mean
    error = numerator.std(ddof=1) / len(numerator) ** 0.5
    assert abs(numerator.mean() - expected) < 4 * error
    spoiled = numerator.mean() + np.square(factor @ factor.T).sum() / 12  # v Tr C² left in
    assert abs(spoiled - expected) > 5 * error


def test_along_a_stationary_trajectory_averages_are_those_of_the_known_law():
    hessian, covariance = np.diag([3.0, 1.0, 0.3]), np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.5]])
    landscape = QuadraticLandscape(hessian, covariance)
    rate, n, burn = 0.1, 20, 400
    process = Process(landscape, AnisotropicNoise(landscape.noise_factor()), learning_rate=rate)
    observables = [Losses(), Weights(AtSteps(tuple(range(burn, burn + n + 1))))]
    run = simulate(process, steps=burn + n, replicas=4000, observables=observables, schedule=EverySteps(1000))
    found = TimeAveragedOrderParameters()(run)
    # E g_t·g_s = Tr H Mᵏ S H − α Tr H Mᵏ⁻¹ C for s = t + k, M = 1 − αH: what the gradient does, and what it undoes.
    stationary = landscape.stationary_covariance(learning_rate=rate)
    step = np.eye(3) - rate * hessian
    pairs = [
        np.trace(hessian @ np.linalg.matrix_power(step, k) @ stationary @ hessian)
        - rate * np.trace(hessian @ np.linalg.matrix_power(step, k - 1) @ covariance)
        for k in range(1, n)
    ]
    directed = 2 * sum((n - k) * pair for k, pair in enumerate(pairs, start=1)) / (n * (n - 1))
    activity = np.trace(hessian @ stationary @ hessian) + np.trace(covariance)
    for name, expected in (("activity", activity), ("directed_activity", directed)):
        values = found[name].values[:, 0]
        error = values.std(ddof=1) / len(values) ** 0.5
        assert abs(values.mean() - expected) < 4 * error, name
    at_fixed_weights = np.trace(hessian @ stationary @ hessian)
    values = found.directed_activity.values[:, 0]
    assert values.mean() < 0 < at_fixed_weights, "gradients undo their own noise"
    assert np.isnan(found.projection_variance.values[values <= 0]).all()


@given(st.integers(0, 2**32 - 1), st.integers(4, 9), st.integers(1, 6))
def test_averages_turn_scale_and_permute_as_they_must(seed, n, parameters):
    generator = np.random.default_rng(seed)
    gradients = 1 + generator.standard_normal((3, n, parameters))
    rotation = np.linalg.qr(generator.standard_normal((parameters, parameters)))[0]
    measure = TimeAveragedOrderParameters()
    found = measure(trajectory_of(gradients))
    turned = measure(trajectory_of(3 * (gradients @ rotation)[::-1], rate=0.02))
    for name, power in zip(NAMES, (9, 9, 9, 1, 1), strict=True):
        np.testing.assert_allclose(turned[name].values[::-1], power * found[name].values, rtol=1e-5, atol=1e-8 * power)
    np.testing.assert_allclose(found.activity, found.directed_activity + found.noise_strength)
    np.testing.assert_allclose(found.activity.values[:, 0], (gradients**2).sum(2).mean(1), rtol=1e-9)


def test_some_parameters_are_measured_as_if_there_were_no_others():
    gradients = np.random.default_rng(0).standard_normal((2, 8, 5))
    some = TimeAveragedOrderParameters(parameters=(1, 3))(trajectory_of(gradients))
    alone = TimeAveragedOrderParameters()(trajectory_of(gradients[..., [1, 3]]))
    xr.testing.assert_allclose(some, alone)


def test_windows_are_stretches_of_consecutive_records_cut_to_length():
    whole = trajectory_of(np.random.default_rng(0).standard_normal((2, 40, 3)))
    whole = whole.assign_coords(epoch=("weight_step", np.arange(41) / 10))
    gaps = whole.isel(weight_step=[*range(11), *range(20, 23), *range(30, 41)])
    found = TimeAveragedOrderParameters()(gaps)
    assert found.first_step.values.tolist() == [0, 30]
    assert found.updates.values.tolist() == [10, 10]
    np.testing.assert_allclose(found.epoch, [0.5, 3.5])
    cut = TimeAveragedOrderParameters(length=5)(gaps)
    assert cut.first_step.values.tolist() == [0, 5, 30, 35]
    each = TimeAveragedOrderParameters()(whole.isel(weight_step=slice(35, 41)))
    np.testing.assert_allclose(cut.activity[:, -1], each.activity[:, 0])


def test_rounding_of_single_precision_is_told():
    generator = np.random.default_rng(0)
    exact = trajectory_of(1e-4 * generator.standard_normal((1, 50, 400)), rate=1e-3)
    exact["weights"] = exact["weights"] + generator.uniform(0.1, 1, 400)
    rounded = exact.assign(weights=exact["weights"].astype(np.float32))
    added = TimeAveragedOrderParameters()(rounded).activity - TimeAveragedOrderParameters()(exact).activity
    told = TimeAveragedOrderParameters()(rounded).rounding_activity
    assert added.item() == pytest.approx(told.item(), rel=0.2)
    assert TimeAveragedOrderParameters()(exact).rounding_activity.item() == 0


def test_a_file_carries_all_that_is_needed(tmp_path):
    landscape = digits_landscape(N)
    path = tmp_path / "run.nc"
    observables = [Losses(), Weights(AtSteps(tuple(range(11))))]
    run = simulate(sgd(landscape, 0.1, B), steps=10, replicas=2, observables=observables, path=path)
    measure = TimeAveragedOrderParameters(**SHUFFLED)
    xr.testing.assert_equal(measure(xr.open_datatree(path)), measure(run))


BAD = {
    "N alone": ({"n_samples": 60}, "expected both"),
    "B alone": ({"batch_size": 6}, "expected both"),
    "B as large as N": ({"n_samples": 6, "batch_size": 6}, "more samples"),
    "no samples in a minibatch": ({"n_samples": 6, "batch_size": 0}, "at least 1 sample"),
    "three updates": ({"length": 3}, "at least 4 updates"),
    "half an update": ({"length": 4.5}, "at least 4 updates"),
}


@pytest.mark.parametrize(("parameters", "said"), BAD.values(), ids=BAD.keys())
def test_bad_parameters_are_refused(parameters, said):
    with pytest.raises(ConfigurationError, match=said):
        TimeAveragedOrderParameters(**parameters)


def test_what_cannot_be_averaged_is_refused(still):
    whole = trajectory_of(np.ones((1, 10, 2)))
    with pytest.raises(EstimationRefused, match=r"2 consecutive updates at most.*at least 4") as refused:
        TimeAveragedOrderParameters()(whole.isel(weight_step=[0, 1, 2, 5, 6]))
    assert refused.value.numbers == {"longest": 2, "needed": 4}
    with pytest.raises(ConfigurationError, match="lacks learning_rate"):
        TimeAveragedOrderParameters()(whole.drop_vars("learning_rate"))
    with pytest.raises(ConfigurationError, match="no group of weights"):
        TimeAveragedOrderParameters()(xr.DataTree(xr.Dataset({"train_loss": 1.0})))
    momentum = whole.assign_coords(effective_learning_rate=("replica", [1.0]))
    with pytest.raises(ConfigurationError, match="plain SGD"):
        TimeAveragedOrderParameters()(momentum)
