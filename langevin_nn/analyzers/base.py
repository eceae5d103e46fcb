"""What an analyzer is: frozen parameters; a dataset in, a dataset out."""

from __future__ import annotations

import numpy as np
import xarray as xr

from langevin_nn.errors import ConfigurationError
from langevin_nn.replicas import check_each_once

__all__ = ["common_start", "each_once", "require", "root_of"]

_ROUNDING = 1e-3  # relative: single precision in other batches, half precision too; other weights are further apart


def each_once(trajectory: xr.DataTree | xr.Dataset) -> None:
    """Raise where a replica comes twice; every analyzer passes here before it averages over replicas.

    Parameters
    ----------
    trajectory : xarray.DataTree or xarray.Dataset
        A trajectory, or a group of it.

    Raises
    ------
    ConfigurationError
        Saying which replicas: the same configuration, seed and index name one path.
    """
    # The configuration is in the root, whichever group is analysed.
    check_each_once(trajectory.root.to_dataset() if isinstance(trajectory, xr.DataTree) else trajectory)


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

    Raises
    ------
    ConfigurationError
        If a replica comes twice.
    """
    each_once(trajectory)
    return trajectory.to_dataset() if isinstance(trajectory, xr.DataTree) else trajectory


def require(dataset: xr.Dataset, *names: str) -> None:
    """Raise unless a dataset has some variables or coordinates, and each replica once.

    Parameters
    ----------
    dataset : xarray.Dataset
        What came.
    *names : str
        What is needed.

    Raises
    ------
    ConfigurationError
        Naming those that are missing, or the replicas that come twice.
    """
    each_once(dataset)
    missing = [name for name in names if name not in dataset.variables]
    if missing:
        raise ConfigurationError(
            f"the dataset lacks {', '.join(missing)}: expected a trajectory recorded with the observables that give them; it "
            f"has {', '.join(map(str, dataset.data_vars))}"
        )


def common_start(root: xr.Dataset, reference: str) -> bool:
    """Raise unless all processes start from the weights of a reference, replica by replica, as far as the file shows it.

    Losses of one set of weights are equal but for rounding, whatever the process; so the records of step 0 tell.

    Parameters
    ----------
    root : xarray.Dataset
        Scalars of all processes, dimension ``process``.
    reference : str
        With which the others are compared in pairs.

    Returns
    -------
    bool
        Whether the file shows it: False where no loss was recorded at step 0.

    Raises
    ------
    ConfigurationError
        With the losses, if they differ.
    """
    clock = next(
        (name for name in ("step", "epoch", "time") if name in root.coords and "step" in root[name].dims), None
    )
    losses = [name for name in ("train_loss", "test_loss") if name in root.data_vars and "step" in root[name].dims]
    if clock is None or not losses or not root.sizes["step"] or root[clock].isel(step=0).max() > 0:
        return False
    shown = False
    for name in losses:
        first = root[name].isel(step=0)
        own = first.sel(process=reference)
        apart = abs(first - own) > _ROUNDING * np.maximum(abs(first), abs(own))
        shown |= bool(np.isfinite(own).any())
        others = apart.any([each for each in apart.dims if each != "process"])
        if bool(others.any()):
            other = str(root["process"].values[int(others.values.argmax())])
            place = {key: int(at) for key, at in apart.sel(process=other).argmax(...).items()}
            values = [float(each.isel(place)) for each in (own, first.sel(process=other))]
            raise ConfigurationError(
                f"{other!r} and {reference!r} start from other weights: {name} of replica {place.get('replica', 0)} is "
                f"{values[1]:.6g} and {values[0]:.6g} at step 0; expected the same in each pair, since replicas are compared "
                "in pairs that differ in their noise alone; run both from the same weights (weights=) with seeds of their own"
            )
    return shown
