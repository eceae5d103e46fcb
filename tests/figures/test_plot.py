"""``langevin_nn.plot``: what is drawn of any trajectory is what was recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import xarray as xr
from cases import digits_landscape

from langevin_nn import compare, open_trajectory, plot, sgd, simulate
from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.observables import Coordinate, Losses, Observable, OrderParameters, Variable, Weights
from langevin_nn.schedules import EveryEpochs, EverySteps
from langevin_nn.testing import four_phase_trajectory


@dataclass(frozen=True)
class Halves(Observable):
    """Norms of both halves of the weights, on a clock of their own."""

    schedule: EverySteps = field(default_factory=lambda: EverySteps(10))
    variables = (Variable("half_norm", "norm of one half", ("half",), "weight2 time-1", "halves"),)

    def coordinates(self, process):
        return {"half": Coordinate(["first", "second"], "half")}

    def measure(self, snapshot):
        halves = np.array_split(snapshot.state.weights.double().numpy(), 2, axis=1)
        return {"half_norm": np.stack([np.linalg.norm(each, axis=1) for each in halves], axis=1)}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run.nc"
    observables = [Losses(), OrderParameters(8), Weights(EverySteps(20)), Halves()]
    digits = digits_landscape(60, label_noise=0.4)
    simulate(sgd(digits, 0.1, 10), steps=60, replicas=3, schedule=EverySteps(6), observables=observables, path=path)
    return path


@pytest.fixture(scope="module")
def comparison():
    options = {"learning_rate": 0.1, "batch_size": 10, "epochs": 4, "replicas": 2, "schedule": EveryEpochs(1)}
    return compare(digits_landscape(60, label_noise=0.4), processes=["langevin"], **options)


def panel(figure, text):
    (found,) = [axes for axes in figure.axes if axes.get_ylabel().startswith(text)]
    return found


def thick(axes, name):
    (found,) = [line for line in axes.lines if line.get_label() == name]
    return found


def curves(*sizes, names=("replica", "step"), scale=1.0, **coordinates):
    """A dataset of somebody else, with a variable that the package does not know."""
    values = scale * np.random.default_rng(0).random(sizes)
    return xr.Dataset({"heat": (names, values)}, coords=coordinates)


def assert_whole(figure):
    figure.draw_without_rendering()
    drawn, paper = figure.get_tightbbox(), figure.bbox_inches
    assert min(drawn.x0, drawn.y0) >= -0.01
    assert drawn.x1 <= paper.x1 + 0.01
    assert drawn.y1 <= paper.y1 + 0.01


def test_a_file_is_drawn_whole_with_its_order_parameters_and_variables_of_ones_own(file):
    figure = plot(file)
    assert_whole(figure)
    texts = [axes.get_ylabel() for axes in figure.axes]
    assert texts[:3] == ["loss (nat)", "error", "activity A (loss² weight⁻²)"]
    assert texts[-1] == "norm of one half\n(weight² time⁻¹)"
    assert not any("weights" in text for text in texts), "610 parameters are no panel unless they are asked for"
    with open_trajectory(file) as tree:
        loss, half = panel(figure, "loss"), panel(figure, "norm of one half")
        recorded = tree.train_loss.sel(cohort="correct")
        mean, test = thick(loss, "training, correct"), thick(loss, "test")
        np.testing.assert_allclose(mean.get_ydata(), recorded.mean("replica"))
        np.testing.assert_allclose(mean.get_xdata(), tree.epoch)
        np.testing.assert_allclose(test.get_ydata(), tree.test_loss.mean("replica"))
        drawn = [line.get_ydata() for line in loss.lines if line.get_linewidth() == 0.5]
        assert len(drawn) == 3 * 4
        assert all(any(np.array_equal(row, each) for each in drawn) for row in recorded.values)
        second = thick(half, "second")
        np.testing.assert_allclose(second.get_ydata(), tree["halves"].half_norm.sel(half="second").mean("replica"))
        np.testing.assert_allclose(second.get_xdata(), tree["halves"].epoch)
    assert half.get_xlabel() == "epoch"
    assert figure.get_supxlabel() == "Thin lines: replicas; thick: their mean."


def test_what_is_drawn_and_along_what_can_be_chosen(file, tmp_path):
    figure = plot(file, ["weights", "half_norm"], clock="step", path=tmp_path / "chosen.svg")
    weights, half = figure.axes
    assert [line.get_label() for line in weights.lines if line.get_linewidth() > 1] == [
        f"parameter {k}" for k in (0, 87, 174, 261, 348, 435, 522, 609)
    ]
    assert list(thick(half, "first").get_xdata()) == [0, 10, 20, 30, 40, 50, 60]
    assert half.get_xlabel() == "update"
    assert (tmp_path / "chosen.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("made", "labels", "caption"),
    [
        (lambda: curves(3, 5), [""], "Thin lines: replicas; thick: their mean."),
        (lambda: curves(1, 5), [""], "One replica."),
        (lambda: curves(5, names=("step",)), [""], "One replica."),
        (lambda: curves(200, 5), [""], "Thin lines: replicas, 40 of 200 of them; thick: their mean."),
        (
            lambda: curves(4, 2, 5, names=("point", "replica", "step"), rate=("point", [0.1, 0.1, 0.5, 0.5])),
            ["rate 0.1", "rate 0.5"],
            "Thin lines: points and their replicas; thick: their mean.",
        ),
        (
            lambda: curves(2, 3, 5, names=("process", "replica", "step"), process=["sgd", "mine"]),
            ["SGD", "mine"],
            "Thin lines: replicas; thick: their mean.",
        ),
    ],
    ids=["replicas", "one replica", "no replica", "many", "sweep", "processes"],
)
def test_datasets_of_any_shape_are_drawn(made, labels, caption):
    dataset = made()
    figure = plot(dataset)
    assert_whole(figure)
    (axes,) = figure.axes
    named = [line for line in axes.lines if line.get_linewidth() > 1]
    assert [("" if line.get_label()[:1] == "_" else line.get_label()) for line in named] == labels
    assert figure.get_supxlabel() == caption
    first = dataset.heat
    if "point" in first.dims:
        first = first.isel(point=[0, 1]).mean("point")
    first = first.isel(process=0) if "process" in first.dims else first
    expected = first.mean("replica") if "replica" in first.dims else first
    np.testing.assert_allclose(named[0].get_ydata(), expected)
    assert len(axes.lines) - len(named) <= 40


def test_points_whose_records_are_of_other_times_have_no_mean():
    time = (("point", "step"), np.arange(5) * np.array([[1.0], [2.0], [3.0]]))
    dataset = curves(3, 2, 5, names=("point", "replica", "step"), time=time, rate=("point", [0.1, 0.1, 0.2]))
    (axes,) = plot(dataset).axes
    assert [line.get_xdata()[-1] for line in axes.lines if line.get_linewidth() == 0.5] == [4, 4, 8, 8, 12, 12]
    assert len(thick(axes, "rate 0.1").get_xdata()) == 0
    assert list(thick(axes, "rate 0.2").get_xdata()) == [0, 3, 6, 9, 12]


def test_what_of_many_processes_is_drawn_is_said():
    dataset = curves(12, 2, 5, names=("process", "replica", "step"), process=[f"mine {k}" for k in range(12)])
    figure = plot(dataset)
    assert_whole(figure)
    assert len(figure.axes[0].get_legend().get_texts()) == 8
    assert figure.get_supxlabel() == "Thin lines: replicas; thick: their mean. Drawn: 8 of 12 along process."


def swept(**columns):
    coordinates = {name: ("point", column) for name, column in columns.items()}
    return curves(4, 2, 5, names=("point", "replica", "step"), **coordinates)


def test_points_are_coloured_by_what_is_no_seed_and_their_mean_is_over_seeds():
    dataset = swept(seed=[1, 2, 1, 2], rate=[0.1, 0.1, 0.5, 0.5])
    figure = plot(dataset)
    expected = dataset.heat.isel(point=[0, 1]).mean(["point", "replica"])
    np.testing.assert_allclose(thick(figure.axes[0], "rate 0.1").get_ydata(), expected)
    assert "thick: their mean." in figure.get_supxlabel()


def test_no_mean_is_drawn_over_what_else_is_swept():
    figure = plot(swept(rate=[0.1, 0.1, 0.5, 0.5], momentum=[0.0, 0.9, 0.0, 0.9]))
    assert len(thick(figure.axes[0], "rate 0.1").get_xdata()) == 0
    assert "their mean, none where momentum differs within a colour." in figure.get_supxlabel().replace("\n", " ")


def test_missing_values_leave_their_replica_out_of_the_mean_and_decades_take_logarithms():
    dataset = curves(2, 6, scale=1.0)
    dataset.heat[:] = [[1, 10, 100, 1e3, 1e4, 1e5], [3, np.nan, np.nan, np.nan, np.nan, np.nan]]
    (axes,) = plot(dataset).axes
    assert axes.get_yscale() == "log"
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), [2, 10, 100, 1e3, 1e4, 1e5])


def shades(axes):
    return sorted(patch.get_extents().transformed(axes.transData.inverted()).x0 for patch in axes.patches)


def test_phases_are_shaded_where_they_are_found_and_silently_not_where_not(file):
    trajectory = four_phase_trajectory(np.random.default_rng(3), replicas=5)
    figure = plot(trajectory, "train_error")
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {"I", "II", "III", "IV"}
    for truth in trajectory.true_mean_boundary_epoch.values:
        assert min(abs(each - truth) for each in shades(axes)) < 0.1 * truth
    assert "Shaded: phases of learning" in figure.get_supxlabel()
    assert not plot(trajectory, "train_error", clock="step").axes[0].patches
    assert not plot(trajectory.isel(step=slice(5))).axes[0].patches
    assert not panel(plot(file), "error").patches


def test_a_comparison_is_drawn_with_one_legend(comparison):
    figure = plot(comparison)
    assert_whole(figure)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["SGD", "SGD with other noise (null)", "Langevin, matched Gaussian noise"]
    recorded = comparison.trajectories.train_loss.sel(cohort="all", process="langevin").mean("replica")
    np.testing.assert_allclose(thick(panel(figure, "training loss"), names[2]).get_ydata(), recorded)


@pytest.mark.parametrize(
    ("draw", "error", "said"),
    [
        (lambda file: plot(3), ConfigurationError, r"trajectory is of type int: expected a trajectory"),
        (lambda file: plot("nowhere.nc"), ConfigurationError, r"no trajectory at 'nowhere.nc'"),
        (lambda file: plot(xr.Dataset({"a": 1.0})), ConfigurationError, r"nothing to draw: expected .* along a clock"),
        (lambda file: plot(file, "train_los"), UnknownNameError, r"'train_los'.*train_loss"),
        (lambda file: plot(file, []), ConfigurationError, r"variables=\[\] are none: expected names"),
        (lambda file: plot(file, 3), ConfigurationError, r"variables=3: expected names"),
        (lambda file: plot(file, "mislabeled"), UnknownNameError, r"variable along a clock 'mislabeled'"),
        (lambda file: plot(file, clock="day"), UnknownNameError, r"'day'.*epoch"),
        (lambda file: plot(curves(2, 3), clock="epoch"), UnknownNameError, r"'epoch'.*step"),
        (lambda file: plot(file, path="figure.doc"), UnknownNameError, r"kind of figure 'doc'.*png"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(file, draw, error, said):
    with pytest.raises(error, match=said):
        draw(file)
