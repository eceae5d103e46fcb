"""What an analyzer is: frozen parameters; a dataset in, a dataset out."""

from __future__ import annotations

import xarray as xr

from langevin_nn.errors import ConfigurationError

__all__ = ["require", "root_of"]


def root_of(trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
    """Return the scalars of a trajectory.

    Parameters
    ----------
    trajectory : xarray.DataTree or xarray.Dataset
        A trajectory, or its root group.

    Returns
    -------
    xarray.Dataset
        The root group.
    """
    return trajectory.to_dataset() if isinstance(trajectory, xr.DataTree) else trajectory


def require(dataset: xr.Dataset, *names: str) -> None:
    """Raise unless a dataset has some variables or coordinates.

    Parameters
    ----------
    dataset : xarray.Dataset
        What came.
    *names : str
        What is needed.

    Raises
    ------
    ConfigurationError
        Naming those that are missing.
    """
    missing = [name for name in names if name not in dataset.variables]
    if missing:
        raise ConfigurationError(
            f"the dataset lacks {', '.join(missing)}: expected a trajectory recorded with the observables that give them; it "
            f"has {', '.join(map(str, dataset.data_vars))}"
        )
