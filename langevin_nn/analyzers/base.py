"""What an analyzer is: frozen parameters; a dataset in, a dataset out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.replicas import check_each_once
from langevin_nn.schema import Variable, describe

__all__ = ["common_start", "each_once", "require", "root_of", "way_to_record"]

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


_OF_GROUPS = {"spectrum": "NoiseSpectrum()", "samples": "SampleLosses()", "weights": "Weights()"}
_OF_PHASES = "pass the result of detect_phases"
_OF_ANALYZERS = {  # by how names begin
    "projection": "pass the result of PrincipalComponents(shared=True) or Fluctuations(...) on a trajectory that was "
    "recorded with simulate(..., observables=[Weights()])",
    **dict.fromkeys(("phase", "boundary_", "crossing_", "mean_boundary_"), _OF_PHASES),
    "true_": "pass a trajectory of known truth, as four_phase_trajectory makes it",
    **dict.fromkeys(("is_removed", "is_refused"), "pass the result of find_mislabeled"),
}


def _observable(variable: Variable) -> str:
    """Return the observable that records a variable."""
    if variable.group:
        return _OF_GROUPS[variable.group]
    if variable.name.startswith(("train_", "test_")):
        return "Losses()"
    return "DrivingNoise()" if variable.name == "driving_noise_strength" else "OrderParameters()"


def way_to_record(names: Iterable[str]) -> str:
    """Return how to come by variables that are missing, in words.

    Parameters
    ----------
    names : iterable of str
        The variables.

    Returns
    -------
    str
        For the end of a message.

    Examples
    --------
    >>> way_to_record(["test_loss", "weights"])
    'record with simulate(..., observables=[Losses(), Weights()]); test losses and errors need a landscape with test data'
    """
    names, observables, others = list(names), dict[str, None](), dict[str, None]()
    for name in names:
        try:
            observables[_observable(describe(name))] = None
        except UnknownNameError:
            others |= {way: None for start, way in _OF_ANALYZERS.items() if name.startswith(start)}
    ways = [f"record with simulate(..., observables=[{', '.join(observables)}])"] if observables else []
    if any(name.startswith("test_") for name in names):
        ways.append("test losses and errors need a landscape with test data")
    if any(name.endswith("_error") for name in names):
        ways.append("errors need labels of one class a sample")
    return "; ".join([*ways, *others]) or "see what gives them"


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
            f"the dataset lacks {', '.join(missing)}: expected a dataset with {', '.join(names)}, which are analysed; it has "
            f"{', '.join(map(str, dataset.data_vars)) or 'nothing'}; {way_to_record(missing)}"
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
