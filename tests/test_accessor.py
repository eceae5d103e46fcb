"""``trajectory.langevin``: the same answers as of the functions behind it, on trees and on datasets."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from langevin_nn import gradient_descent, plot, simulate, validate
from langevin_nn.analyzers import PhaseDetector
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.report import report
from langevin_nn.testing import four_phase_trajectory


@pytest.fixture(scope="module")
def run() -> xr.DataTree:
    return simulate(gradient_descent(QuadraticLandscape([[1.0]], [[0.0]], start=[1.0]), 0.1), steps=5, seed=7)


def test_a_tree_and_its_root_say_what_functions_say(run):
    for each in (run, run.to_dataset()):
        assert each.langevin.configuration()["seed"] == 7
        assert each.langevin.problems() == validate(run)
        assert each.langevin.report("run").splitlines()[0] == report(run, "run").splitlines()[0] == "run: complete"
        drawn, expected = each.langevin.plot("train_loss", clock="step"), plot(run, "train_loss", clock="step")
        rows = [[line.get_ydata() for line in figure.axes[0].lines] for figure in (drawn, expected)]
        np.testing.assert_array_equal(*rows)


def test_what_is_wrong_is_told():
    assert "unknown: did you mean 'test_error'" in xr.Dataset({"test_eror": ("step", [0.5])}).langevin.problems()[0]
    with pytest.raises(ConfigurationError, match="no configuration"):
        xr.Dataset().langevin.configuration()
    with pytest.raises(ConfigurationError, match="lacks train_error"):
        xr.DataTree().langevin.phases()


def test_phases_are_those_of_the_detector_with_its_options():
    trajectory = four_phase_trajectory(np.random.default_rng(3), replicas=3)
    xr.testing.assert_identical(trajectory.langevin.phases(learned=0.8), PhaseDetector(learned=0.8)(trajectory))


@pytest.mark.parametrize(
    "lines", ["import xarray, langevin_nn", "import langevin_nn; langevin_nn.noise; import xarray"]
)
def test_it_is_there_where_xarray_came_first_or_a_name_has_been_used(lines):
    subprocess.run([sys.executable, "-c", f"{lines}; xarray.Dataset.langevin"], check=True)
