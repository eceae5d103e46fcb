"""A constant metric: it changes how fast weights move in each direction, and not where they end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from langevin_nn import Process, advance, open_trajectory, simulate
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import LinearRegressionLandscape, QuadraticLandscape
from langevin_nn.noise import PreconditionedThermalNoise, ThermalNoise
from langevin_nn.observables import Losses
from langevin_nn.process import sghmc, sgld
from langevin_nn.rates import Piecewise
from langevin_nn.testing import check_process
from langevin_nn.update import (
    Adam,
    Averaged,
    Clipped,
    EulerMaruyama,
    Momentum,
    Plain,
    Preconditioned,
    RMSprop,
    UnderdampedLangevin,
)

STEEP, METRIC, STEP, T = np.array([100.0, 1.0]), np.array([50.0, 2.0]), 0.2, 0.3
VALLEY = QuadraticLandscape(np.diag(STEEP), np.zeros((2, 2)), start=[0.0, 0.0])
N = 20_000  # replicas: a variance has a standard error of 1 %
SIGMAS = 4.5


def regression() -> LinearRegressionLandscape:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(30, 2))
    return LinearRegressionLandscape(inputs, inputs @ [1.0, -2.0] + generator.normal(size=30))


def stationary(momentum: float, decay: float, dt: float) -> np.ndarray:
    """Variances of v' = μv + D⁻¹((h + λ)w + √(2T(1 − μ)D/Δt) ξ), w' = w − Δt v'; with μ = 0 of one AR(1) a direction."""
    found = []
    for pull, stretch in zip((STEEP + decay) / METRIC, METRIC, strict=True):
        recursion = np.array([[1 - dt * pull, -dt * momentum], [pull, momentum]])
        kick = np.sqrt(2 * T * (1 - momentum) / stretch / dt) * np.array([-dt, 1.0])
        found.append(solve_discrete_lyapunov(recursion, np.outer(kick, kick))[0, 0])
    return np.array(found)


def has_the_law(noise, momentum: float = 0.0, decay: float = 0.0) -> bool:
    rule = Preconditioned(Momentum(momentum) if momentum else Plain(), METRIC, decay)
    process = Process(VALLEY, noise, STEP, update=rule)
    variances = advance(process, process.start(N, seed=0), 150).weights.numpy().var(0)
    return bool((np.abs(variances / stationary(momentum, decay, STEP) - 1) < SIGMAS * np.sqrt(2 / N)).all())


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.0, 5.0), (0.5, 5.0)])
def test_the_stationary_law_is_that_of_the_recursion_and_in_the_limit_boltzmanns(momentum, decay):
    if not momentum:
        one_direction = 2 * T * STEP / METRIC / (1 - (1 - STEP * (STEEP + decay) / METRIC) ** 2)
        np.testing.assert_allclose(stationary(0.0, decay, STEP), one_direction)
    np.testing.assert_allclose(stationary(momentum, decay, 1e-4), T / (STEEP + decay), rtol=1e-3)
    lessened = T * (1 - momentum)
    assert has_the_law(PreconditionedThermalNoise(lessened, METRIC), momentum, decay)
    # Twins: thermal noise divided by D, not by √D, and not divided at all.
    assert not has_the_law(ThermalNoise(lessened), momentum, decay)
    assert not has_the_law(PreconditionedThermalNoise(lessened, METRIC**2), momentum, decay)


def test_one_step_of_sgld_divides_drift_prior_and_minibatches_by_the_metric():
    landscape, metric, rate, decay = regression(), np.array([4.0, 0.5]), 0.1, 0.7
    process = sgld(landscape, rate, 10, independent=True, weight_decay=decay, metric=metric)
    start = np.array([0.4, -0.8])
    after = advance(process, process.start(N, seed=0, weights=np.tile(start, (N, 1))), 1).weights.numpy()
    drift = landscape.hessian @ (start - landscape.minimum) + decay * start
    minibatches = landscape.noise_covariance(start, 10, replacement=False)
    covariance = rate**2 * np.asarray(minibatches) / np.outer(metric, metric) + 2 * rate / 30 * np.diag(1 / metric)
    variances = np.diag(covariance)
    assert (np.abs(after.mean(0) - start + rate * drift / metric) < SIGMAS * np.sqrt(variances / N)).all()
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / N)
    assert (np.abs(np.cov(after.T) - covariance) < SIGMAS * error).all()


def test_what_is_made_of_a_metric():
    landscape, half = regression(), Piecewise((0.1, 0.2), (5,))
    short = sghmc(landscape, 0.02, 10, 0.1, weight_decay=0.3, metric=METRIC)
    assert (short.name, short.update.update, short.update.weight_decay) == ("sghmc", Momentum(0.9), 0.3)
    full = sghmc(landscape, 0.02, 10, half, update=Averaged(Preconditioned(UnderdampedLangevin(0.1, 0.5), METRIC)))
    assert [each.noise.terms[1].at(6).temperature for each in (short, full)] == pytest.approx([0.01, 0.1])
    for each in (short, full):
        np.testing.assert_array_equal(each.noise.terms[1].metric, METRIC)
        state = each.start(3, seed=0)
        there = each.update.preconditioner(state.update_memory)
        assert torch.equal(there, torch.tensor(METRIC).expand(3, 2))
    twice = Preconditioned(RMSprop(), METRIC)
    memory = twice.start(torch.ones(3, 2))
    torch.testing.assert_close(twice.preconditioner(memory), torch.tensor(METRIC * 1e-8).float().expand(3, 2))
    assert Preconditioned(Plain(), METRIC).orders is Plain.orders
    assert Preconditioned(Plain(), METRIC) != Preconditioned(Plain(), METRIC**2)


def test_it_goes_on_with_the_same_bits_and_its_file_knows_the_metric(tmp_path):
    process = sgld(regression(), 0.1, 5, momentum=0.5, metric=METRIC)
    check_process(process)
    start = process.start(2, seed=0)
    assert torch.equal(advance(process, advance(process, start, 7), 5).weights, advance(process, start, 12).weights)
    options = {"steps": 6, "replicas": 2, "observables": [Losses()], "progress": False}
    simulate(process, resume=tmp_path / "run.nc", **options)
    told = json.loads(open_trajectory(tmp_path / "run.nc").attrs["config_json"])["process"]
    assert told["update"]["metric"]["values"] == told["noise"]["terms"][1]["metric"]["values"] == METRIC.tolist()
    other = sgld(regression(), 0.1, 5, momentum=0.5, metric=2 * METRIC)
    with pytest.raises(ConfigurationError, match=r"process\.update\.metric\.values: \[50\.0, 2\.0\] there, \[100\.0"):
        simulate(other, resume=tmp_path / "run.nc", **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Preconditioned(Plain(), [1.0, 0.0]), "metric has 1 entries that are not above 0: expected positive"),
        (lambda: Preconditioned(Plain(), [[1.0, 2.0]]), r"metric has shape \(1, 2\): expected \(parameter,\)"),
        (lambda: PreconditionedThermalNoise(0.1, [1.0, np.inf]), "metric.*expected an array of positive, finite"),
        (lambda: PreconditionedThermalNoise(-0.1, METRIC), "temperature=-0.1: expected a finite number T ≥ 0"),
        (lambda: Preconditioned(Clipped(Momentum(0.5, 0.1), norm=1.0), METRIC), "weight_decay=0.1: expected 0, since"),
        (lambda: Preconditioned(EulerMaruyama(), METRIC), "update .*EulerMaruyama.*applied step by step"),
        (lambda: sgld(VALLEY_OF_SAMPLES, 0.1, 5, metric=[1.0]), "metric has 1 entries: expected 2, one a parameter"),
        (lambda: sgld(VALLEY_OF_SAMPLES, 0.1, 5, update=Adam(), metric=METRIC), "a metric of its own: expected one"),
        (
            lambda: sgld(VALLEY_OF_SAMPLES, 0.1, 5, update=Preconditioned(Plain(), METRIC), metric=METRIC),
            "a metric of its own: expected one",
        ),
        (lambda: sghmc(VALLEY_OF_SAMPLES, 0.1, 5, update=Plain(), metric=METRIC), "has no momentum: expected a rule"),
    ],
)
def test_what_is_no_metric_or_a_second_one_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


VALLEY_OF_SAMPLES = regression()
