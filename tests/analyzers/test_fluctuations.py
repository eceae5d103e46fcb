"""Fluctuations along directions and principal components: held to exact laws of processes of known truth."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.signal import lfilter

from langevin_nn.analyzers import Fluctuations, PrincipalComponents, autocorrelation_function, decay_time
from langevin_nn.errors import ConfigurationError, EstimationRefused

RECORDS = 4000


def trajectory(weights, **coordinates):
    clocks = {name: ("weight_step", values) for name, values in coordinates.items()}
    return xr.Dataset({"weights": (("replica", "weight_step", "parameter"), weights)}, coords=clocks)


def stationary(times, deviations, replicas, records=RECORDS, seed=0):
    """Return first-order autoregressions of given correlation times, in their stationary state from the start."""
    generator = np.random.default_rng(seed)
    decay = np.exp(-1 / np.asarray(times))
    columns = []
    for r, s in zip(decay, deviations, strict=True):
        noise = np.sqrt(1 - r**2) * generator.standard_normal((replicas, records))
        noise[:, 0] = generator.standard_normal(replicas)
        columns.append(s * lfilter([1.0], [1.0, -r], noise, axis=1))
    return np.stack(columns, axis=2)


def windowed_variance(time, records, detrend):
    """Return the expected variance of a stationary autoregression in a window, without its mean or its line, exactly."""
    covariance = np.exp(-abs(np.subtract.outer(np.arange(records), np.arange(records))) / time)
    order = 1 if detrend == "mean" else 2
    basis = np.linalg.qr(np.vander(np.arange(records) / records, order))[0]
    return (records - np.trace(basis.T @ covariance @ basis)) / records


@pytest.mark.parametrize("detrend", ["mean", "linear"])
def test_variance_and_time_of_a_known_process(detrend):
    times, deviations = (3.0, 8.0, 20.0), (3.0, 2.0, 1.0)
    replicas = 60
    found = Fluctuations(np.eye(3), detrend)(trajectory(stationary(times, deviations, replicas)))
    variance = found.component_variance
    for k, (time, deviation) in enumerate(zip(times, deviations, strict=True)):
        own = variance.isel(component=k)
        error = float(own.std(ddof=1)) / replicas**0.5
        assert abs(own.mean() - deviation**2 * windowed_variance(time, RECORDS, detrend)) < 4 * error
        # A twin with 5 % more noise would be seen.
        assert abs(own.mean() - 1.05**2 * deviation**2) > 4 * error
        # The error that one replica gives is the spread between replicas: known to 1/√(2 · 59), 9 %.
        said = float(found.component_variance_standard_error.isel(component=k).mean())
        assert said == pytest.approx(float(own.std(ddof=1)), rel=0.3)
        estimated = found.correlation_time.isel(component=k)
        assert abs(estimated.mean() - time) < 4 * float(estimated.std(ddof=1)) / replicas**0.5 + 0.03 * time


def test_a_straight_line_is_taken_off_and_its_share_told():
    weights = stationary((5.0,), (1.0,), 4)
    line = np.linspace(-1, 1, RECORDS)[:, None] * 30.0
    plain, tilted = (Fluctuations(np.eye(1))(trajectory(each)) for each in (weights, weights + line))
    np.testing.assert_allclose(plain.component_variance, tilted.component_variance, rtol=1e-9)
    share = 300 / 301  # a line from −30 to 30 has the variance 300
    np.testing.assert_allclose(tilted.trend_share, share, atol=1e-3)
    kept = Fluctuations(np.eye(1), "mean")(trajectory(weights + line))
    np.testing.assert_allclose(kept.component_variance, 301, rtol=0.05)


def test_intervals_between_records_are_told_on_every_clock():
    steps = np.arange(RECORDS) * 4
    given = trajectory(stationary((3.0,), (1.0,), 2), weight_step=steps, epoch=steps / 10, time=steps * 0.1)
    found = Fluctuations(np.eye(1))(given)
    assert found.record_interval.sel(clock="step") == 4
    assert found.record_interval.sel(clock="epoch") == pytest.approx(0.4)
    assert found.record_interval.sel(clock="time") == pytest.approx(0.4)


def test_a_decay_time_is_exact_for_an_exponential_however_short():
    for time in (0.2, 0.9, 1.0, 4.7):
        assert decay_time(np.exp(-np.arange(200) / time)) == pytest.approx(time)
    assert np.isnan(decay_time(np.ones(5)))
    assert decay_time([1.0, -0.5]) == pytest.approx((1 - np.exp(-1)) / 1.5)


def test_components_of_a_known_covariance_are_its_eigenvectors():
    generator = np.random.default_rng(1)
    basis = np.linalg.qr(generator.standard_normal((6, 6)))[0]
    values = np.array([16.0, 8.0, 4.0, 2.0, 1.0, 0.5])
    weights = generator.standard_normal((3, RECORDS, 6)) * np.sqrt(values) @ basis.T
    found = PrincipalComponents(6, "mean")(trajectory(weights))
    # First-order perturbation: a coefficient of eigenvector l in component k has the deviation √(λ_k λ_l/n)/|λ_k − λ_l|.
    coefficients = abs(found.direction.values @ basis)
    for k in range(6):
        assert (coefficients[:, k, k] > 0.998).all()
        for other in set(range(6)) - {k}:
            spread = np.sqrt(values[k] * values[other] / RECORDS) / abs(values[k] - values[other])
            assert (coefficients[:, k, other] < 4.5 * spread).all()
    np.testing.assert_allclose(found.component_variance, np.tile(values, (3, 1)), rtol=5 * np.sqrt(2 / RECORDS))
    np.testing.assert_allclose(found.explained_share.sum("component"), 1)
    # By another route: numpy's covariance and eigenvalues.
    own = np.linalg.eigvalsh(np.cov(weights[0].T, bias=True))[::-1]
    np.testing.assert_allclose(found.component_variance[0], own, rtol=1e-9)


def test_shared_components_are_those_of_the_pooled_covariance():
    weights = stationary((2.0, 2.0, 2.0), (3.0, 2.0, 1.0), 4)
    found = PrincipalComponents(3, "mean", shared=True)(trajectory(weights))
    assert found.direction.dims == ("component", "parameter")
    pooled = np.mean([np.cov(own.T, bias=True) for own in weights], axis=0)
    values, vectors = np.linalg.eigh(pooled)
    np.testing.assert_allclose(found.component_variance.mean("replica"), values[::-1], rtol=1e-9)
    np.testing.assert_allclose(abs(found.direction.values @ vectors[:, ::-1]), np.eye(3), atol=1e-6)


def test_directions_do_not_depend_on_the_order_of_records():
    weights = stationary((5.0, 3.0), (2.0, 1.0), 2)
    forwards, backwards = (PrincipalComponents(2)(trajectory(each)) for each in (weights, weights[:, ::-1]))
    np.testing.assert_allclose(forwards.direction, backwards.direction, atol=1e-9)
    assert (abs(forwards.direction).max("parameter") == forwards.direction.max("parameter")).all()


@pytest.fixture(scope="module")
def walk():
    steps = np.random.default_rng(2).standard_normal((4, 500, 3000))
    return np.cumsum(steps, axis=1)


def test_a_random_walk_has_principal_components_of_its_own(walk):
    """Variances fall as 1/k² and projections are cosines, from nothing (Antognini & Sohl-Dickstein 2018)."""
    found = PrincipalComponents(4, "mean")(trajectory(walk[:2]))
    ranks = np.arange(1, 5)
    shares = found.explained_share.values
    np.testing.assert_allclose(shares, np.tile(6 / np.pi**2 / ranks**2, (2, 1)), rtol=0.1)
    cosines = np.cos(np.pi * ranks[:, None] * (np.arange(500) + 0.5) / 500)
    for own in found.projection.values:
        overlap = (
            abs(np.einsum("kt,kt->k", own, cosines)) / np.linalg.norm(own, axis=1) / np.linalg.norm(cosines, axis=1)
        )
        assert (overlap > 0.97).all()
    expected = decay_time(autocorrelation_function(cosines))
    np.testing.assert_allclose(found.correlation_time, np.tile(expected, (2, 1)), rtol=0.03)


def test_along_the_same_directions_another_walk_shows_nothing(walk):
    found = PrincipalComponents(4, "mean")(trajectory(walk[:2]))
    other = Fluctuations(found.direction, "mean")(trajectory(walk[2:]))
    # A single walk of n steps of unit variance has the variance (n + 1)(n − 1)/6n without its mean, in every direction.
    expected = 501 * 499 / 6 / 500
    mean = float(other.component_variance.mean())
    # Of 8 independent ones; one has the relative deviation √(2 Σ 1/k⁴)/Σ 1/k² = 0.89.
    assert abs(mean / expected - 1) < 4 * 0.89 / 8**0.5
    assert found.component_variance[0, 0] > 100 * expected


def test_what_is_too_little_is_refused():
    weights = stationary((2.0, 2.0), (1.0, 1.0), 2, records=20)
    with pytest.raises(EstimationRefused, match="2 principal components: expected at least the 3"):
        PrincipalComponents(3)(trajectory(weights))
    with pytest.raises(EstimationRefused, match="5 records of weights: expected at least 8"):
        Fluctuations(np.eye(2))(trajectory(weights[:, :5]))
    with pytest.raises(EstimationRefused, match="even"):
        Fluctuations(np.eye(2))(trajectory(weights, weight_step=np.arange(20) ** 2))
    broken = weights.copy()
    broken[1, 3:] = np.nan
    with pytest.raises(EstimationRefused, match="1 of 2 replicas are not finite"):
        Fluctuations(np.eye(2))(trajectory(broken))
    with pytest.raises(ConfigurationError, match="over 3 parameters, weights over 2"):
        Fluctuations(np.eye(3))(trajectory(weights))
    for arguments, message in (
        ((2 * np.eye(2),), "expected unit vectors"),
        ((np.zeros(3),), "directions have shape"),
        ((np.eye(2), "cubic"), "detrend"),
        ((np.eye(2), "mean", -1), "discard"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Fluctuations(*arguments)
    for options, message in (
        ({"n_components": 0}, "n_components"),
        ({"detrend": 1}, "detrend"),
        ({"shared": "yes"}, "shared"),
        ({"discard": 0.5}, "discard"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            PrincipalComponents(**options)
