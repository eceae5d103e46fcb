"""Minibatch gradients in a plane: held to brute force in full dimensions, and the figure to what it must show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from cases import assert_on_paper, digits_landscape
from hypothesis import given
from hypothesis import strategies as st

from langevin_nn import Seeds
from langevin_nn.ensemble import draw_minibatch_gradients, project_gradients
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.figures import gradient_sketch


@pytest.fixture(scope="module")
def measured():
    landscape = digits_landscape(60)
    weights = landscape.initial_weights((0,), Seeds(0))[0]
    return landscape, weights, landscape.sample_gradients(weights)


def test_drawn_gradients_are_means_over_samples_of_the_cohort(measured):
    landscape, _weights, gradients = measured
    wrong = landscape.mislabeled[0]
    drawn, mean = draw_minibatch_gradients(gradients, 3, np.random.default_rng(1), 50, wrong)
    dense = gradients.dense().numpy()[wrong.numpy()]
    np.testing.assert_allclose(mean, dense.mean(0), atol=1e-12)
    # By brute force: which three rows give each, from the least squares solution for its coefficients.
    shares = drawn @ np.linalg.pinv(dense)
    np.testing.assert_allclose(np.sort(shares, axis=1)[:, -3:], 1 / 3, atol=1e-6)
    np.testing.assert_allclose(np.sort(shares, axis=1)[:, :-3], 0, atol=1e-6)
    assert len(np.unique(np.round(shares, 3), axis=0)) > 40, "minibatches differ"


def test_with_two_groups_both_means_and_their_mixtures_lie_in_the_plane_at_full_length():
    generator = np.random.default_rng(0)
    groups = {name: (generator.standard_normal((20, 30)), generator.standard_normal(30)) for name in ("c", "w")}
    mixture = 0.3 * groups["c"][1] + 0.7 * groups["w"][1]
    found = project_gradients({**groups, "all": (groups["c"][0], mixture)})
    unit = found.gradient_unit.item()
    assert unit == pytest.approx(
        np.sqrt(np.mean([(each**2).sum(1) for each in (groups["c"][0], *[g[0] for g in (groups["w"], groups["c"])])]))
    )
    for name, full in (("c", groups["c"][1]), ("w", groups["w"][1]), ("all", mixture)):
        length = np.linalg.norm(found.projected_mean.sel(group=name))
        assert length == pytest.approx(np.linalg.norm(full) / unit)
    c, w = (found.projected_mean.sel(group=name).values for name in ("c", "w"))
    assert c @ w * unit**2 == pytest.approx(groups["c"][1] @ groups["w"][1])
    assert c[1] == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 9))
def test_the_plane_turns_with_the_gradients_and_no_projection_is_longer_than_its_vector(seed, n, parameters):
    generator = np.random.default_rng(seed)
    gradients, mean = generator.standard_normal((n, parameters)), generator.standard_normal(parameters)
    rotation = np.linalg.qr(generator.standard_normal((parameters, parameters)))[0]
    found = project_gradients({"all": (gradients, mean)})
    turned = project_gradients({"all": (7 * gradients @ rotation, 7 * mean @ rotation)})
    # The sign of the second axis is free.
    np.testing.assert_allclose(np.abs(turned.projected_gradient), np.abs(found.projected_gradient), atol=1e-7)
    lengths = np.linalg.norm(found.projected_gradient.values[0], axis=1) * found.gradient_unit.item()
    assert (lengths <= np.linalg.norm(gradients, axis=1) * (1 + 1e-9)).all()
    along = gradients @ mean / np.linalg.norm(mean)
    np.testing.assert_allclose(found.projected_gradient[0, :, 0] * found.gradient_unit.item(), along, atol=1e-9)


def test_the_second_axis_holds_at_least_as_much_as_any_other_orthogonal_direction():
    generator = np.random.default_rng(3)
    gradients, mean = generator.standard_normal((40, 6)) * [1, 1, 1, 3, 1, 1], np.eye(6)[0]
    found = project_gradients({"all": (gradients, mean)})
    best = (found.projected_gradient[0, :, 1] ** 2).sum().item() * found.gradient_unit.item() ** 2
    others = generator.standard_normal((2000, 6))
    others[:, 0] = 0
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    squares = ((gradients @ others.T) ** 2).sum(0)
    assert squares.max() <= best
    assert squares.max() > 0.9 * best


BAD = {
    "no group": ({}, ConfigurationError, "at least one group"),
    "another number of minibatches": (
        {"c": (np.ones((3, 2)), np.ones(2)), "w": (np.ones((4, 2)), np.ones(2))},
        ConfigurationError,
        "expected at least one group",
    ),
    "a mean of other parameters": ({"c": (np.ones((3, 2)), np.ones(3))}, ConfigurationError, "means of shapes"),
    "zero gradients": ({"c": (np.zeros((3, 2)), np.ones(2))}, ConfigurationError, "not all zero"),
    "a mean without direction": ({"c": (np.ones((3, 2)), np.zeros(2))}, EstimationRefused, "no direction|is zero"),
    "words": ({"c": ("many", np.zeros(2))}, ConfigurationError, "minibatch gradients"),
}


@pytest.mark.parametrize(("groups", "error", "said"), BAD.values(), ids=BAD.keys())
def test_what_has_no_plane_is_refused(groups, error, said):
    with pytest.raises(error, match=said):
        project_gradients(groups)


@pytest.mark.parametrize("size", [0, 61])
def test_minibatches_larger_than_the_cohort_are_refused(measured, size):
    with pytest.raises(ConfigurationError, match="expected 1 to as many"):
        draw_minibatch_gradients(measured[2], size, np.random.default_rng(0))
    with pytest.raises(ConfigurationError, match="one flag for each"):
        draw_minibatch_gradients(measured[2], 1, np.random.default_rng(0), members=torch.ones(3))


def sketches(n_panels, names):
    generator = np.random.default_rng(0)
    each = [
        project_gradients({name: (generator.standard_normal((15, 9)), generator.standard_normal(9)) for name in names})
        for _ in range(n_panels)
    ]
    return xr.concat(each, "panel").assign_coords(panel=[f"phase {k}" for k in range(n_panels)])


@pytest.mark.parametrize(
    ("n_panels", "names"), [(1, ["all"]), (2, ["all"]), (4, ["correct", "mislabeled"]), (6, ["c", "w"])]
)
def test_the_figure_cuts_nothing_off_and_says_what_it_shows(n_panels, names):
    figure = gradient_sketch(sketches(n_panels, names))
    assert_on_paper(figure)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title().splitlines()[0] for axes in panels] == [f"phase {k}" for k in range(n_panels)]
    assert len({axes.get_xlim() for axes in panels}) == 1, "panels have one scale"
    (caption,) = [text.get_text() for text in figure.texts]
    assert "shorter" in caption
    assert "root" in caption
    styles = {
        line.get_linestyle() for line in panels[0].lines if line.get_linewidth() < 1 and len(line.get_xdata()) == 2
    }
    assert len(styles) == len(names), "groups are told apart without colour"


def test_arrows_end_where_the_gradients_do():
    found = sketches(1, ["all"])
    (axes,) = gradient_sketch(found).axes
    tips = {tuple(np.round(line.get_xydata()[-1], 9)) for line in axes.lines if len(line.get_xdata()) == 2}
    gradients = np.round(found.projected_gradient.values[0, 0], 9)
    assert {tuple(tip) for tip in gradients} | {tuple(np.round(found.projected_mean.values[0, 0], 9))} == tips
