"""Whether a recorded variable still drifts, and from where on it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from langevin_nn.analyzers.labels import (
    along_clock,
    described,
    evenly_spaced,
    group_with,
    on_clocks,
    selected,
    series_in_words,
)
from langevin_nn.errors import EstimationRefused
from langevin_nn.statistics.stationarity import LEAST_EFFECTIVE, stationary_part

__all__ = ["Stationarity"]


@dataclass(frozen=True)
class Stationarity:
    """Whether a recorded variable drifts, and where its stationary part begins.

    Where the whole series drifts, its first tenth is left out, then two tenths, up to half: it is stationary from the
    first of these on which the test passes (Heidelberger & Welch 1983, doi 10.1287/opre.31.6.1109). See
    `stationarity_test`.

    Parameters
    ----------
    variable : str
        As in files; dimensions besides the clock are taken one by one.
    selection : mapping, optional
        Coordinates to select first, such as ``{"cohort": "all"}``.
    clock : str, optional
        Dimension of the records; found by name unless said.
    level : float, optional
        Probability of calling a series that does not drift one that does.
    least_effective_size : float, optional
        Autocorrelation times that a series must last.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal((2, 1000))
    >>> transient = np.array([[0.0], [50.0]]) * np.exp(-np.arange(1000) / 30)
    >>> trajectory = xr.Dataset({"train_loss": (("replica", "step"), noise + transient)}, coords={"step": np.arange(1000)})
    >>> result = Stationarity("train_loss")(trajectory)
    >>> result.is_stationary.values, result.stationary_from.sel(clock="step").values
    (array([1, 0], dtype=int8), array([  0., 200.]))
    """

    variable: str
    selection: Mapping[str, Any] = field(default_factory=dict)
    clock: str | None = None
    level: float = 0.05
    least_effective_size: float = LEAST_EFFECTIVE

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Test a trajectory.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With the variable, evenly recorded.

        Returns
        -------
        xarray.Dataset
            ``is_stationary`` (1 or 0), ``p_value`` of the whole series, ``statistic``, ``effective_sample_size``, and
            ``stationary_from_step``, ``_epoch``, ``_time``: the first record of the stationary part, NaN where there is
            none. Of the mean over replicas, which drifts visibly where single ones hide it in their noise, the same as
            ``ensemble_<name>``. Replicas with missing values (after a divergence) are not stationary and their numbers
            NaN.

        Raises
        ------
        ConfigurationError
            If the variable was not recorded.
        EstimationRefused
            If the records are not evenly spaced, or too few for their correlations, or none is complete.
        """
        dataset = group_with(trajectory, self.variable)
        values, clock = along_clock(selected(dataset[self.variable], self.selection), self.clock)
        values = evenly_spaced(values, clock)
        complete = values.notnull().all(clock)
        if not bool(complete.any()):
            raise EstimationRefused(
                f"{self.variable!r} has missing values in every series of {values.sizes[clock]} records: expected "
                "complete ones; select the records before the divergence",
                records=values.sizes[clock],
            )
        result = self._tested(values, clock)
        if "replica" not in values.dims:
            return result
        together = values.where(complete).mean("replica")
        ensemble = self._tested(together, clock)
        named = {
            f"ensemble_{name}": each.assign_attrs(long_name=f"{each.attrs['long_name']}, mean over replicas")
            for name, each in ensemble.data_vars.items()
        }
        return result.assign(named)

    def _tested(self, values: xr.DataArray, clock: str) -> xr.Dataset:
        array, dims = values.values, values.dims[:-1]
        shape = array.shape[:-1]
        numbers = np.full((4, *shape), np.nan)
        for index in np.ndindex(shape):
            if np.isfinite(array[index]).all():
                what = series_in_words(self.variable, values, dims, index)
                test, start = stationary_part(
                    array[index], level=self.level, least_effective_size=self.least_effective_size, what=what
                )
                numbers[(slice(None), *index)] = test.p_value, test.statistic, test.effective_sample_size, start
        p_value, statistic, size, starts = numbers
        variables = {
            "is_stationary": described(dims, p_value > self.level, "whether the series does not drift"),
            "p_value": described(dims, p_value, "p value of the test of stationarity"),
            "statistic": described(dims, statistic, "statistic D of the test of stationarity"),
            "effective_sample_size": described(dims, size, "effective sample size", "record"),
            "stationary_from": on_clocks(starts, values, clock, dims, "first record of the part that does not drift"),
        }
        kept = {name: values[name] for name in values.coords if clock not in values[name].dims}
        return xr.Dataset(variables).assign_coords(kept)
