"""Rates of transitions between two valleys, from recorded weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import group_with
from langevin_nn.errors import ConfigurationError, EstimationRefused

__all__ = ["TransitionRates"]


@dataclass(frozen=True)
class TransitionRates:
    """How often replicas go from one core set to another: transitions over time spent.

    A replica belongs to the core that it visited last, so that to and fro at the barrier is not counted (Schütte et al.
    2011, doi 10.1063/1.3590108). Rates are those of exponential waiting: the number of transitions over the time spent,
    with the standard error of a Poisson number. Records are to be close against the times between transitions, and cores
    at their valleys' bottoms, far from the barrier against what a replica moves between two records.

    Parameters
    ----------
    below, above : float
        The cores: where the coordinate is at most `below`, or at least `above`.
    parameter : int, optional
        The coordinate.

    Raises
    ------
    ConfigurationError
        If the cores overlap.

    Examples
    --------
    >>> weights = xr.DataArray([[[-1.0], [0.2], [1.0], [1.0], [-1.0]]], dims=("replica", "weight_step", "parameter"))
    >>> trajectory = xr.Dataset({"weights": weights}, coords={"time": ("weight_step", [0.0, 1.0, 2.0, 3.0, 4.0])})
    >>> rates = TransitionRates(-0.5, 0.5)(trajectory)
    >>> rates.transition_rate.sel(valley="below").item(), rates.transition_rate.sel(valley="above").item()
    (0.5, 0.5)
    """

    below: float
    above: float
    parameter: int = 0

    def __post_init__(self) -> None:
        if not self.below < self.above:
            raise ConfigurationError(
                f"below={self.below} and above={self.above}: expected the first core below the second, with a barrier between"
            )

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Estimate the rates.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With weights, or their group.

        Returns
        -------
        xarray.Dataset
            ``transition_rate`` out of each valley with its standard error, ``transitions``, ``time_spent``, and
            ``occupancy``, the share of replicas in the upper valley over time.

        Raises
        ------
        EstimationRefused
            If no replica ever is in a core.
        """
        dataset = group_with(trajectory, "weights", "time")
        position = dataset["weights"].isel(parameter=self.parameter).transpose("replica", "weight_step").values
        core = _last_core(position, self.below, self.above)
        if not np.isfinite(core).any():
            raise EstimationRefused(
                f"no replica is ever below {self.below:g} or above {self.above:g}: expected weights that visit the cores; "
                "choose others",
                lowest=float(np.nanmin(position)),
                highest=float(np.nanmax(position)),
            )
        intervals = np.diff(dataset["time"].values)
        before, after = core[:, :-1], core[:, 1:]
        spent = np.array([(intervals * (before == state)).sum() for state in (0, 1)])
        left = np.array([((before == state) & (after == 1 - state)).sum() for state in (0, 1)])
        with np.errstate(divide="ignore", invalid="ignore"):
            rates, errors = left / spent, np.sqrt(np.maximum(left, 1)) / spent
        known = np.isfinite(core)
        with np.errstate(invalid="ignore"):
            share = np.where(known, core, 0).sum(0) / known.sum(0)
        described = {
            "transition_rate": ("rate of transitions out of a valley", "time-1", rates),
            "transition_rate_standard_error": ("standard error of the rate", "time-1", errors),
            "transitions": ("number of transitions out of a valley", "1", left),
            "time_spent": ("time spent in a valley, over all replicas", "time", spent),
        }
        result = xr.Dataset(
            {
                name: ("valley", values, {"long_name": long_name, "units": units})
                for name, (long_name, units, values) in described.items()
            },
            coords={"valley": ["below", "above"], "time": dataset["time"]},
        )
        attributes = {"long_name": "share of replicas in the upper valley", "units": "1"}
        return result.assign(occupancy=("weight_step", share, attributes))


def _last_core(position: NDArray[np.float64], below: float, above: float) -> NDArray[np.float64]:
    """Return 0 or 1 for the core visited last, NaN before the first visit and after divergence; shape (replica, record)."""
    core = np.where(position <= below, 0.0, np.where(position >= above, 1.0, np.nan))
    last = np.where(np.isfinite(core), np.arange(core.shape[1]), -1)
    np.maximum.accumulate(last, axis=1, out=last)
    filled = np.take_along_axis(core, np.maximum(last, 0), axis=1)
    dead = np.logical_or.accumulate(~np.isfinite(position), axis=1)
    return np.asarray(np.where((last >= 0) & ~dead, filled, np.nan))
