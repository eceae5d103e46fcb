"""Figures say what they show: axes with units, a caption, nothing cut off, processes told apart in grey."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from cases import digits_landscape
from matplotlib.colors import to_rgb
from test_plot import assert_whole

from langevin_nn import Seeds, compare, gradient_ensemble
from langevin_nn.curvature import Hessian, hessian_spectrum, noise_curvature_overlap
from langevin_nn.figures import (
    distance_figure,
    noise_and_curvature_figure,
    order_parameter_figure,
    save_figures,
    spectrum_figure,
    training_figure,
    verdict_figure,
)
from langevin_nn.figures.comparison import _STYLES
from langevin_nn.schedules import EveryEpochs

FIGURES = [training_figure, order_parameter_figure, distance_figure, verdict_figure, spectrum_figure]


@pytest.fixture(scope="module", params=[0.4, 0.0], ids=["label noise", "no label noise"])
def comparison(request):
    landscape = digits_landscape(60, label_noise=request.param)
    options = {"learning_rate": 0.1, "batch_size": 10, "epochs": 4, "replicas": 3, "schedule": EveryEpochs(1)}
    return compare(landscape, processes=["langevin", "gradient_descent"], **options)


@pytest.mark.parametrize("draw", FIGURES)
def test_nothing_is_cut_off(draw, comparison):
    assert_whole(draw(comparison))


@pytest.mark.parametrize("draw", FIGURES)
def test_every_axis_has_a_label_and_every_figure_a_caption(draw, comparison):
    figure = draw(comparison)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    grid = panels[0].get_subplotspec().get_gridspec()
    for axes in panels:
        place = axes.get_subplotspec()
        alone = grid.ncols == 1 or len({axes.get_ylabel() for axes in panels} - {""}) > 1
        if place.is_last_row():
            assert axes.get_xlabel()
        if alone or place.is_first_col():
            assert axes.get_ylabel() or draw is verdict_figure
    (caption,) = [text.get_text() for text in figure.texts]
    assert len(caption) > 60
    assert figure.legends


def test_units_are_on_the_axes(comparison):
    labels = [axes.get_ylabel() for axes in order_parameter_figure(comparison).axes]
    assert sum("nat² / weight²" in label for label in labels) == 5
    assert "(nat)" in training_figure(comparison).axes[0].get_ylabel()
    assert all("spreads" in axes.get_ylabel() for axes in distance_figure(comparison).axes)


def test_lines_show_the_mean_over_replicas(comparison):
    axes = training_figure(comparison).axes[1]
    root = comparison.trajectories.to_dataset()
    (line,) = [line for line in axes.lines if line.get_label() == "SGD"]
    np.testing.assert_allclose(line.get_ydata(), root.test_error.sel(process="sgd").mean("replica"))
    np.testing.assert_allclose(line.get_xdata(), root.epoch)


def test_processes_differ_in_grey_by_their_lines():
    lines = [style["linestyle"] for name, style in _STYLES.items() if name != "sgd_null"]
    assert len(set(lines)) == len(lines)
    grey = {name: np.dot(to_rgb(style["color"]), [0.299, 0.587, 0.114]) for name, style in _STYLES.items()}
    assert abs(grey["sgd"] - grey["langevin"]) > 0.2


def test_figures_are_saved_and_leave_the_settings_of_matplotlib_alone(comparison, tmp_path):
    before = mpl.rcParams["font.size"]
    written = save_figures(comparison, tmp_path)
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir())
    assert all(path.stat().st_size > 5000 for path in written)
    assert mpl.rcParams["font.size"] == before


def test_noise_and_curvature_are_drawn_whole_with_labels_and_a_caption():
    landscape = digits_landscape(60, label_noise=0.4)
    weights = landscape.initial_weights((0,), Seeds(0))
    ensemble = gradient_ensemble(landscape, weights[0], batch_size=10)
    hessian = Hessian(landscape, weights[0])
    bent = hessian_spectrum(hessian, 5, n_probes=4)
    spectrum = ensemble.spectrum(20)
    figure = noise_and_curvature_figure(spectrum, bent, noise_curvature_overlap(ensemble, hessian, 5))
    assert_whole(figure)
    left, middle, right = figure.axes[:3]
    np.testing.assert_allclose(left.lines[0].get_ydata(), spectrum.noise_eigenvalue)
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in (left, middle, right))
    (caption,) = [text.get_text() for text in figure.texts]
    assert "D_s" in caption
