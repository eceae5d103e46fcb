"""What trajectories say of themselves: ``trajectory.langevin`` on every DataTree and Dataset of xarray.

It is there where xarray is loaded before langevin_nn, or once a name of it has been used: to import the package does not
load xarray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from langevin_nn.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Accessor"]


@xr.register_datatree_accessor("langevin")  # type: ignore[no-untyped-call]
@xr.register_dataset_accessor("langevin")  # type: ignore[no-untyped-call]
class Accessor:
    """The questions that one asks of a trajectory first; each method is a function of the package, given the trajectory.

    Parameters
    ----------
    trajectory : xarray.DataTree or xarray.Dataset
        What `simulate`, `open_trajectory` or `open_sweep` returns, or a part of it.

    Examples
    --------
    >>> from langevin_nn import gradient_descent, simulate
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> run = simulate(gradient_descent(QuadraticLandscape([[1.0]], [[0.0]]), 0.1), steps=3, replicas=1, seed=7)
    >>> run.langevin.configuration()["seed"], run.langevin.problems()
    (7, ())
    """

    def __init__(self, trajectory: xr.DataTree | xr.Dataset) -> None:
        self._trajectory = trajectory

    @property
    def _tree(self) -> xr.DataTree:
        given = self._trajectory
        return given if isinstance(given, xr.DataTree) else xr.DataTree(given)

    def phases(self, **options: Any) -> xr.Dataset:
        """Return the phases of learning.

        Parameters
        ----------
        **options : object
            Of `langevin_nn.analyzers.PhaseDetector`.

        Returns
        -------
        xarray.Dataset
            As the detector finds them.
        """
        from langevin_nn.analyzers import PhaseDetector

        return PhaseDetector(**options)(self._trajectory)

    def plot(self, *arguments: Any, **options: Any) -> Figure:
        """Draw it.

        Parameters
        ----------
        *arguments, **options : object
            Of `langevin_nn.plot`, after the trajectory.

        Returns
        -------
        matplotlib.figure.Figure
            Of `langevin_nn.plot`.
        """
        from langevin_nn.figures import plot

        return plot(self._trajectory, *arguments, **options)

    def report(self, name: str = "trajectory") -> str:
        """Return in words what it holds, as ``python -m langevin_nn info`` prints it.

        Parameters
        ----------
        name : str, optional
            What it is called there.

        Returns
        -------
        str
            Of several lines.

        Raises
        ------
        ConfigurationError
            If it is no trajectory of this package.
        """
        from langevin_nn.report import report

        if "schema_version" not in self._tree.attrs:
            raise ConfigurationError(
                "a report was asked of data that say no schema_version: expected a trajectory of langevin_nn, as "
                "open_trajectory(path) gives it; print these data as xarray does"
            )
        return report(self._tree, name)

    def configuration(self) -> dict[str, Any]:
        """Return what was run.

        Returns
        -------
        dict
            With the seed and the versions.

        Raises
        ------
        ConfigurationError
            If it has none.
        """
        from langevin_nn.provenance import configuration

        return configuration(self._trajectory.attrs)

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with it.

        Returns
        -------
        tuple of str
            As `langevin_nn.validate` finds it: none, if it is valid.
        """
        from langevin_nn.store import validate

        return tuple(validate(self._tree))
