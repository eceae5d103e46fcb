"""Flatness along lines: held to quadratic valleys in closed form, and to brute force on a network."""

from __future__ import annotations

from math import e

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from langevin_nn import NetworkLandscape
from langevin_nn.curvature import flatness, loss_profile
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.landscape import QuadraticLandscape

HESSIAN = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.3]])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=3).filter(lambda p: np.linalg.norm(p) > 0.1),
    st.floats(1.1, 10),
    st.floats(-4, 4),
)
def test_a_quadratic_valley_has_the_width_of_its_closed_form(direction, factor, scale):
    """L + g δ + h δ²/2 = f L is a quadratic equation; at a minimum along p its roots are 2 √(2L(f − 1)/h) apart."""
    valley = QuadraticLandscape(HESSIAN, np.eye(3))
    p = np.array(direction) / np.linalg.norm(direction)
    w = np.exp(scale / 4) * np.array([0.3, -1.0, 2.0])
    loss, slope, h = 0.5 * w @ HESSIAN @ w, p @ HESSIAN @ w, p @ HESSIAN @ p
    found = flatness(valley, torch.tensor(w), [direction], factor=factor)
    root = np.sqrt(slope**2 + 2 * h * (factor - 1) * loss)
    assert found.width_left.item() == pytest.approx((root + slope) / h, rel=1e-4)
    assert found.width_right.item() == pytest.approx((root - slope) / h, rel=1e-4)
    assert found.flatness.item() == pytest.approx(2 * root / h, rel=1e-4)
    assert found.curvature.item() == pytest.approx(h)
    assert found.curvature_flatness.item() == pytest.approx(2 * np.sqrt(2 * loss * (factor - 1) / h))
    assert found.loss.item() == pytest.approx(loss)


def test_at_a_minimum_both_widths_agree_and_a_wrong_factor_does_not():
    valley = QuadraticLandscape(np.diag([1.0, 9.0, 4.0]), np.eye(3))
    at = torch.tensor([0.0, 0.0, 0.5])
    found = flatness(valley, at, np.eye(3)[:2])
    np.testing.assert_allclose(found.flatness, found.curvature_flatness, rtol=1e-4)
    np.testing.assert_allclose(found.flatness, 2 * np.sqrt(2 * 0.5 * (e - 1) / np.array([1.0, 9.0])), rtol=1e-4)
    other = flatness(valley, at, np.eye(3)[:2], factor=2.0)
    assert (abs(other.flatness / found.flatness - 1) > 0.2).all()


def test_a_line_on_which_the_loss_stays_low_is_infinitely_wide():
    ramp = QuadraticLandscape(np.diag([1.0, 0.0]), np.eye(2))
    found = flatness(ramp, torch.tensor([1.0, 0.0]), np.eye(2)[::-1].copy(), farthest=50.0)
    assert np.isinf(found.flatness.values[0])
    assert np.isnan(found.curvature_flatness.values[0])
    assert np.isfinite(found.flatness.values[1])


@pytest.fixture(scope="module")
def network():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 4, generator=generator)
    labels = torch.randint(0, 3, (2, 40), generator=generator)
    make = lambda: torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))  # noqa: E731
    return lambda pattern: NetworkLandscape(make, inputs, labels.numpy(), parameters=pattern)


@pytest.mark.parametrize("replica", [0, 1])
@pytest.mark.parametrize("pattern", ["*", "0.weight"])
def test_a_networks_widths_are_those_of_a_fine_scan(network, replica, pattern):
    landscape = network(pattern)
    weights = landscape.own_weights * 2
    size = len(landscape.measured_columns)
    directions = np.random.default_rng(replica).standard_normal((3, size))
    found = flatness(landscape, weights, directions, factor=1.2, replica=replica)
    # By brute force: the network typed in NumPy, at each point of a fine grid.
    full = np.zeros((3, landscape.n_parameters))
    full[:, landscape.measured_columns.numpy()] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    grid = np.linspace(-20, 20, 4001)
    for k, line in enumerate(full):
        losses = typed_losses(weights.numpy() + grid[:, None] * line, landscape.inputs, landscape.labels[replica])
        above = losses >= 1.2 * losses[2000]
        assert found.width_right[k] == pytest.approx(np.append(grid[(grid > 0) & above], np.inf).min(), abs=0.01)
        assert found.width_left[k] == pytest.approx(-np.append(grid[(grid < 0) & above], -np.inf).max(), abs=0.01)
        profile = loss_profile(landscape, weights, directions, grid[::400], replica=replica)
        np.testing.assert_allclose(profile.loss[k], losses[::400], rtol=1e-4)


def typed_losses(points, inputs, labels):
    """Cross-entropies of a network of 4, 5 and 3 units at points of weight space."""
    first, bias, second, last = np.split(points, [20, 25, 40], axis=1)
    hidden = np.tanh(np.einsum("nuf,sf->nsu", first.reshape(-1, 5, 4), inputs.numpy()) + bias[:, None])
    outputs = np.einsum("ncu,nsu->nsc", second.reshape(-1, 3, 5), hidden) + last[:, None]
    chosen = np.take_along_axis(outputs, np.broadcast_to(labels.numpy()[None, :, None], (len(points), 40, 1)), 2)
    return (logsumexp(outputs, axis=2) - chosen[..., 0]).mean(1)


def test_what_cannot_be_measured_is_refused(network):
    valley = QuadraticLandscape(HESSIAN, np.eye(3))
    with pytest.raises(EstimationRefused, match="the loss is 0 at these weights: expected a positive one"):
        flatness(valley, torch.zeros(3), np.eye(3))
    at = torch.ones(3)
    for arguments, message in (
        ((at, np.eye(2)), r"directions have shape \(2, 2\): expected \(direction, 3\)"),
        ((at, np.zeros((1, 3))), "a row of directions is zero"),
        ((torch.ones(2), np.eye(3)), "one point of weight space"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            flatness(valley, *arguments)
    with pytest.raises(ConfigurationError, match="factor"):
        flatness(valley, at, np.eye(3), factor=1.0)
    with pytest.raises(ConfigurationError, match="displacements have shape"):
        loss_profile(valley, at, np.eye(3), [[0.0]])
    with pytest.raises(ConfigurationError, match=r"expected \(direction, 20\)"):
        flatness(network("0.weight"), network("*").own_weights, np.eye(43))
