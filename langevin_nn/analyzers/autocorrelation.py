"""How long a recorded variable remembers: autocorrelation, effective sample sizes and time averages by replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from langevin_nn.analyzers.labels import (
    along_clock,
    described,
    evenly_spaced,
    group_with,
    over_replicas,
    record_interval,
    selected,
    series_in_words,
)
from langevin_nn.statistics.autocorrelation import (
    LEAST_RATIO,
    WINDOW_FACTOR,
    Memory,
    memory_of,
    refuse_few_records,
    refuse_short_series,
    together,
)

__all__ = ["Autocorrelation"]


@dataclass(frozen=True)
class Autocorrelation:
    """Autocorrelation, effective sample sizes and time averages of a recorded variable.

    The window is chosen once for all replicas, from their mean autocorrelation: what each replica then says is unbiased
    by the choice and comparable, and replicas, which are independent, give t intervals. See
    `integrated_autocorrelation_time` for the estimate.

    **Replicas that disagree.** Each replica's own numbers know of what it has seen only. A replica stuck in a valley of its
    own counts for about one independent record, however long it is: the total effective sample size is the smaller of N/τ,
    summed over replicas, and of the variance of all records about their common mean over the squared standard error of that
    mean between replicas, as in Gelman & Rubin (1992, doi 10.1214/ss/1177011136) and Vehtari et al. (2021, doi
    10.1214/20-BA1221). Replicas that agree lose by it what scatter between a few of them makes, less than a half in most
    cases. To ask first whether they agree would be worse: 4 whose means differ by a tenth of the spread pass an F test at 1 %
    in most cases, and intervals of their common mean cover 81 % then. With the smaller of both, and Student's quantile
    of as many degrees of freedom as replicas less one where it is the latter, they cover 94 to 97 %. The scatter of 2 or 3
    replicas says too little of that (2 that hardly disagree: 87 %), and the total is missing. ``agreement_p_value`` is that
    of an F test of the variance between replicas over Γ(0) τ/N.

    **Errors of times.** They are relative: ln τ ± 1.96 s/τ holds the truth in 95 to 96 % of cases, τ ± 1.96 s in 92 to 94 %.

    Parameters
    ----------
    variable : str
        As in files; dimensions besides ``replica`` and the clock are taken one by one.
    selection : mapping, optional
        Coordinates to select first, such as ``{"cohort": "all"}``.
    discard : int, optional
        Records to leave out at the start; see `Stationarity` for how many.
    clock : str, optional
        Dimension of the records; found by name unless said.
    window_factor, least_ratio : float, optional
        Of `integrated_autocorrelation_time`.
    level : float, optional
        Coverage of intervals.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal((4, 5000))
    >>> trajectory = xr.Dataset({"test_loss": (("replica", "step"), noise)}, coords={"step": np.arange(5000)})
    >>> result = Autocorrelation("test_loss")(trajectory)
    >>> round(result.mean_integrated_autocorrelation_time.item(), 1)
    1.0
    """

    variable: str
    selection: Mapping[str, Any] = field(default_factory=dict)
    discard: int = 0
    clock: str | None = None
    window_factor: float = WINDOW_FACTOR
    least_ratio: float = LEAST_RATIO
    level: float = 0.95

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Measure a trajectory.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With the variable, evenly recorded.

        Returns
        -------
        xarray.Dataset
            By replica, ``integrated_autocorrelation_time`` in records with its ``_standard_error``,
            ``effective_sample_size``, ``time_average`` with ``_standard_error``, ``_lower``, ``_upper``, and
            ``autocorrelation`` (…, lag); their means over replicas, ``mean_<name>``, with t intervals;
            ``total_effective_sample_size`` (missing for 2 or 3 replicas) and ``agreement_p_value``, of means of replicas
            that differ as much by chance; ``window``; ``record_interval`` (clock), by which a time in records becomes
            updates, epochs or gradient-flow time. Replicas with missing values (after a divergence) are NaN and count
            nowhere; of one that does not vary only the time average is known.

        Raises
        ------
        ConfigurationError
            If the variable was not recorded.
        EstimationRefused
            If the records are not evenly spaced, or last for less than `least_ratio` autocorrelation times.
        """
        dataset = group_with(trajectory, self.variable)
        values, clock = along_clock(selected(dataset[self.variable], self.selection), self.clock)
        values = evenly_spaced(values.isel({clock: slice(self.discard, None)}), clock)
        alone = "replica" not in values.dims
        if alone:
            values = values.expand_dims("replica")
        values = values.transpose(..., "replica", clock)
        series = np.ascontiguousarray(values.values)
        refuse_few_records(values.sizes[clock], self.least_ratio, f"{self.variable!r}", values.sizes["replica"])
        pooled = memory_of(series, self.window_factor, pool=True)
        self._refuse(pooled, values, clock)
        result = self._labelled(pooled, values, clock)
        if alone:
            return result.isel(replica=0, drop=True)
        names = ("integrated_autocorrelation_time", "time_average", "autocorrelation")
        return over_replicas(result, names, self.level)

    def _refuse(self, pooled: Memory, values: xr.DataArray, clock: str) -> None:
        longest = np.where(np.isfinite(pooled.longest), pooled.longest, -np.inf)
        worst = np.unravel_index(int(np.argmax(longest)), longest.shape)
        what = series_in_words(self.variable, values, values.dims[:-2], worst)
        time = pooled.mean_time[worst]
        refuse_short_series(np.max(longest, initial=-np.inf), float(time), values.sizes[clock], self.least_ratio, what)

    def _labelled(self, pooled: Memory, values: xr.DataArray, clock: str) -> xr.Dataset:
        n, each = values.sizes[clock], values.dims[:-1]
        whole = each[:-1]
        means = np.ascontiguousarray(values.values).mean(-1)
        freedom = n / (2.0 * pooled.window[..., None])
        half = stdtrit(freedom, 0.5 + self.level / 2) * pooled.standard_error
        lags = int(pooled.window.max()) + 1
        sizes = n / np.where(pooled.time > 0, pooled.time, np.nan)
        total, agreement = together(pooled, values.values)
        long_name = values.attrs.get("long_name", self.variable.replace("_", " "))
        units = str(values.attrs.get("units", "1"))
        interval = f"{self.level:.0%} interval of the time average"
        variables: dict[str, Any] = {
            "integrated_autocorrelation_time": (each, pooled.time, "integrated autocorrelation time", "record"),
            "integrated_autocorrelation_time_standard_error": (
                each,
                np.abs(pooled.time) * np.sqrt(2 / freedom),
                "standard error of the integrated autocorrelation time",
                "record",
            ),
            "effective_sample_size": (each, sizes, "effective sample size", "record"),
            "total_effective_sample_size": (whole, total, "effective sample size of all replicas together", "record"),
            "agreement_p_value": (whole, agreement, "p value of replicas with one mean"),
            "time_average": (each, means, f"time average of {long_name}", units),
            "time_average_standard_error": (each, pooled.standard_error, "standard error of the time average", units),
            "time_average_lower": (each, means - half, f"lower end of the {interval}", units),
            "time_average_upper": (each, means + half, f"upper end of the {interval}", units),
            "autocorrelation": ([*each, "lag"], pooled.autocorrelation[..., :lags], "autocorrelation"),
            "window": (whole, pooled.window, "lags that are summed", "record"),
        }
        kept = {name: values[name] for name in values.coords if clock not in values[name].dims}
        result = xr.Dataset({name: described(*own) for name, own in variables.items()}, kept)
        lag = described(["lag"], np.arange(lags), "lag", "record")
        return result.assign_coords(lag=lag).assign(record_interval(values, clock))
