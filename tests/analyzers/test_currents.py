"""Probability currents and entropy production: held to closed forms of linear dynamics, and to zero where reversible."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, solve_continuous_lyapunov
from scipy.stats import binom

from langevin_nn.analyzers import PrincipalComponents, ProbabilityCurrents
from langevin_nn.analyzers.currents import _Moments
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.theory import circulation, entropy_production_rate, stationary_covariance

RATE = 0.7
DRIFT = np.array([[1.0, -RATE], [RATE, 0.5]])
NOISE = np.array([[2.0, 0.3], [0.3, 1.0]])
REVERSIBLE = np.array([[1.0, 0.2], [0.2, 0.5]])


def simulated(drift, noise, interval, records, replicas, seed=0):
    """Return exact records of dx = −A x dt + noise in the stationary state, shape (replica, component, record)."""
    generator = np.random.default_rng(seed)
    covariance = solve_continuous_lyapunov(drift, noise)
    step = expm(-interval * drift)
    factor = np.linalg.cholesky(covariance - step @ covariance @ step.T)
    state = generator.standard_normal((replicas, 2)) @ np.linalg.cholesky(covariance).T
    rows = [state]
    for kick in generator.standard_normal((records - 1, replicas, 2)):
        rows.append(rows[-1] @ step.T + kick @ factor.T)
    return np.stack(rows, axis=2)


def dataset(series, interval=1.0):
    times = np.arange(series.shape[2]) * interval
    return xr.Dataset(
        {"projection": (("replica", "component", "weight_step"), series)},
        coords={"time": ("weight_step", times), "weight_step": np.arange(series.shape[2])},
    )


def divergence(drift, noise, interval):
    """Return the divergence between two records and the same backwards, of two Gaussians in four dimensions, per time."""
    covariance = solve_continuous_lyapunov(drift, noise)
    across = expm(-interval * drift) @ covariance
    joint = np.block([[covariance, across.T], [across, covariance]])
    order = [2, 3, 0, 1]
    backwards = joint[np.ix_(order, order)]
    return 0.5 * (np.trace(np.linalg.solve(backwards, joint)) - 4) / interval


@pytest.mark.parametrize("interval", [0.1, 0.5, 1.5])
def test_a_rotating_process_has_its_circulation_and_its_entropy_production(interval):
    replicas = 400
    series = simulated(DRIFT, NOISE, interval, 400, replicas)
    found = ProbabilityCurrents()(dataset(series, interval))
    exact = divergence(DRIFT, NOISE, interval)
    error = found.entropy_production_rate_standard_error.item()
    assert error < 0.1 * exact
    assert abs(found.entropy_production_rate - exact) < 4 * error
    # Of coarse records less is seen; of dense ones all.
    rate = entropy_production_rate(DRIFT, NOISE)
    assert exact < rate
    if interval == 0.1:
        assert exact > 0.85 * rate
        mean, own = found.mean_circulation.item(), found.mean_circulation_standard_error.item()
        # ⟨x(0) y(t) − y(0) x(t)⟩/t, from the exact propagator, and its limit in the library's theory.
        across = stationary_covariance(DRIFT, NOISE) @ expm(-interval * DRIFT).T
        expected = (across[0, 1] - across[1, 0]) / interval
        assert abs(mean - expected) < 4 * own
        assert expected == pytest.approx(circulation(DRIFT, NOISE)[0, 1], rel=0.15)
        assert abs(mean + expected) > 10 * own, "the sign counts"
        bound = found.entropy_production_bound.item()
        assert 0 < bound < rate * 1.2
        turned = divergence(DRIFT + np.array([[0.0, -0.2], [0.2, 0.0]]), NOISE, interval)  # mutated twin
        assert abs(found.entropy_production_rate - turned) > 4 * error


def test_a_reversible_process_produces_none_on_average_and_squares_would_say_some():
    replicas, runs, interval = 16, 150, 0.3
    assert entropy_production_rate(REVERSIBLE, np.eye(2)) == pytest.approx(0, abs=1e-12)
    series = simulated(REVERSIBLE, np.eye(2), interval, 100, replicas * runs)
    found = [ProbabilityCurrents()(dataset(each, interval)) for each in np.split(series, runs)]
    rates = np.array([each.entropy_production_rate.item() for each in found])
    bias = np.array([each.entropy_production_bias.item() for each in found])
    error = rates.std(ddof=1) / runs**0.5
    assert abs(rates.mean()) < 4 * error
    assert (rates + bias).mean() > 8 * error
    # The test of no circulation has its nominal level, and intervals their coverage.
    rejected = sum(each.p_value.item() < 0.05 for each in found)
    assert binom.cdf(rejected, runs, 0.05) > 0.001
    assert binom.sf(rejected - 1, runs, 0.05) > 0.001
    covered = sum(each.mean_circulation_lower.item() < 0 < each.mean_circulation_upper.item() for each in found)
    assert covered >= runs - rejected  # intervals reach further to the side to which circulations are skewed
    false = sum(each.entropy_production_rate_lower.item() > 0 for each in found)
    assert binom.sf(false - 1, runs, 0.05) > 0.001


def test_errors_are_the_spread_of_estimates():
    runs, interval = 60, 0.3
    series = simulated(DRIFT, NOISE, interval, 100, 16 * runs)
    found = [ProbabilityCurrents()(dataset(each, interval)) for each in np.split(series, runs)]
    rates = np.array([each.entropy_production_rate.item() for each in found])
    said = np.array([each.entropy_production_rate_standard_error.item() for each in found])
    assert said.mean() == pytest.approx(rates.std(ddof=1), rel=0.35)  # known to 1/√118, 9 %
    exact = divergence(DRIFT, NOISE, interval)
    assert abs(rates.mean() - exact) < 4 * rates.std(ddof=1) / runs**0.5


def test_the_plane_of_a_random_walk_seems_to_go_around_but_pairs_of_walks_do_not():
    """Each Lissajous figure encloses an area of either sign, the larger the more directions there are to choose from."""
    generator, solutions = np.random.default_rng(3), 60
    rates, magnitudes = [], []
    for _ in range(solutions):
        walks = np.cumsum(generator.standard_normal((2, 100, 300)), axis=1)
        weights = xr.Dataset({"weights": (("replica", "weight_step", "parameter"), walks)})
        alone = PrincipalComponents(2, "mean")(weights.isel(replica=[0]))
        moments = _Moments.of(alone.projection.transpose("component", "replica", "weight_step").values)
        magnitudes.append(float((moments.odd / np.sqrt(np.linalg.det(moments.covariance[0]))).item()))
        shared = PrincipalComponents(2, "mean", shared=True)(weights)
        rates.append(ProbabilityCurrents()(shared).entropy_production_rate.item())
    magnitudes, rates = np.abs(magnitudes), np.array(rates)
    assert magnitudes.mean() > 10 * magnitudes.std() / solutions**0.5, "each encloses an area"
    assert abs(rates.mean()) < 4 * rates.std(ddof=1) / solutions**0.5


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=4, max_size=4))
def test_entropy_production_depends_on_no_coordinates(entries):
    change = np.array(entries).reshape(2, 2)
    if abs(np.linalg.det(change)) < 0.05 or np.linalg.cond(change) > 50:
        return
    series = SERIES
    plain = ProbabilityCurrents()(dataset(series, 0.3))
    turned = ProbabilityCurrents()(dataset(np.einsum("ij,rjt->rit", change, series), 0.3))
    for name in (
        "entropy_production_rate",
        "entropy_production_rate_standard_error",
        "entropy_production_bound",
        "p_value",
    ):
        assert turned[name].item() == pytest.approx(plain[name].item(), rel=1e-6)
    ratio = turned.mean_circulation / plain.mean_circulation
    assert ratio.item() == pytest.approx(np.linalg.det(change), rel=1e-6)


SERIES = simulated(DRIFT, NOISE, 0.3, 60, 6)


def test_backwards_the_circulation_changes_its_sign_and_entropy_production_stays():
    forwards, backwards = (ProbabilityCurrents()(dataset(each, 0.3)) for each in (SERIES, SERIES[:, :, ::-1]))
    np.testing.assert_allclose(forwards.circulation, -backwards.circulation)
    assert forwards.entropy_production_rate.item() == pytest.approx(backwards.entropy_production_rate.item())
    other = ProbabilityCurrents(plane=(1, 0))(dataset(SERIES, 0.3))
    np.testing.assert_allclose(forwards.circulation, -other.circulation)


def test_what_cannot_be_measured_is_refused():
    for options, message in (
        ({"plane": (0, 0)}, "plane"),
        ({"plane": (0, 1, 2)}, "plane"),
        ({"plane": (0.5, 1)}, "plane"),
        ({"level": 1.0}, "level"),
        ({"variable": 3}, "variable"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            ProbabilityCurrents(**options)
    missing = (
        r"lacks projection: .*result of PrincipalComponents\(shared=True\) or Fluctuations.*observables=\[Weights\(\)\]"
    )
    with pytest.raises(ConfigurationError, match=missing):
        ProbabilityCurrents()(dataset(SERIES).rename(projection="weights"))
    recorded = xr.DataTree.from_dict({"/": xr.Dataset(), "/weights": dataset(SERIES).rename(projection="weights")})
    recorded["weights"] = recorded["weights"].to_dataset().rename(component="parameter")
    with pytest.raises(ConfigurationError, match=r"its groups have weights; .*PrincipalComponents\(shared=True\)"):
        ProbabilityCurrents()(recorded)
    with pytest.raises(ConfigurationError, match=r"component with .*; pass the result of PrincipalComponents"):
        ProbabilityCurrents("weights")(recorded)
    with pytest.raises(ConfigurationError, match="find more components"):
        ProbabilityCurrents(plane=(0, 2))(dataset(SERIES))
    with pytest.raises(EstimationRefused, match="1 replicas of 60 records"):
        ProbabilityCurrents()(dataset(SERIES[:1]))
    with pytest.raises(EstimationRefused, match="expected both positive"):
        ProbabilityCurrents()(dataset(SERIES * [[[1.0], [0.0]]]))
    smooth = np.stack([np.cos(np.arange(60) / 10), np.sin(np.arange(60) / 10)])
    with pytest.raises(EstimationRefused, match="nothing is left for noise"):
        ProbabilityCurrents()(dataset(np.stack([smooth, smooth])))


def test_a_mutated_process_is_told_from_the_true_one():
    found = ProbabilityCurrents()(dataset(simulated(DRIFT * 1.0, NOISE, 0.1, 400, 400), 0.1))
    other = DRIFT + np.array([[0.0, -0.2], [0.2, 0.0]])
    error = found.entropy_production_rate_standard_error.item()
    assert abs(found.entropy_production_rate - divergence(other, NOISE, 0.1)) > 4 * error
