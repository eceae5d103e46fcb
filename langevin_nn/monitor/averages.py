"""Estimates of single passes, averaged over many: what one minibatch cannot tell, some together do."""

from __future__ import annotations

import numpy as np
import xarray as xr

from langevin_nn.checks import whole_number
from langevin_nn.ensemble import covariance_factor
from langevin_nn.ensemble.variables import measure_named
from langevin_nn.errors import ConfigurationError
from langevin_nn.provenance import configuration

__all__ = ["pooled"]

_UNBIASED = ("activity", "directed_activity", "noise_strength")
_LEAST_RATIO = 3.0  # standard errors of a divisor from zero, as in estimates of one pass


def pooled(trajectory: xr.DataTree, records: int = 16) -> xr.Dataset:
    """Average the unbiased estimates of consecutive passes, and take ratios of the averages.

    A₀ of one minibatch is known to about its noise, D/B′ for B′ measured samples, so that A₀ and what is divided by it are
    told by few passes late in training. Their mean over passes is unbiased as well, of the mean over the time between them.
    Errors are those of independent passes; minibatches of one epoch share no sample, and their averages err less.

    Parameters
    ----------
    trajectory : xarray.DataTree
        Monitored.
    records : int, optional
        Passes in each average; the last one has those that are left, at least half as many.

    Returns
    -------
    xarray.Dataset
        ``activity``, ``directed_activity`` and ``noise_strength``, ``gradient_noise_scale`` and ``alignment_approximation``
        (replica, step, cohort) with their standard errors, at the mean step and epoch of each average; NaN for a ratio
        whose divisor is not three standard errors from zero.

    Raises
    ------
    ConfigurationError
        If order parameters were not recorded with errors, or `records` is no whole number from 1.
    """
    whole_number("records", records, "a whole number (int) of passes from 1", least=1)
    root = trajectory.to_dataset()
    if any(f"{name}_standard_error" not in root for name in _UNBIASED):
        raise ConfigurationError(
            "the trajectory has no estimates of order parameters: expected those of a Monitor with every= above 0, with "
            "their standard errors"
        )
    measured = root[[*_UNBIASED, *(f"{name}_standard_error" for name in _UNBIASED), "step_batch_size"]]
    measured = measured.isel(step=np.flatnonzero(measured.activity.sel(cohort="all").notnull().any("replica")))
    count = max(1, round(measured.sizes["step"] / records)) if measured.sizes["step"] else 0
    windows = np.array_split(np.arange(measured.sizes["step"]), count) if count else []
    averages = [_average(measured.isel(step=window)) for window in windows]
    if not averages:
        return measured
    data = xr.concat(averages, "step", coords="different", compat="equals")
    config = configuration(trajectory.attrs)
    a0, d = ((data[name], data[f"{name}_standard_error"]) for name in ("directed_activity", "noise_strength"))
    size = data.step_batch_size
    factors = [_factor(config, float(each)) for each in size.mean("replica")]
    told = a0[0] > _LEAST_RATIO * a0[1]
    trace = d[0] / xr.DataArray(factors, dims="step")
    ratio = (trace / a0[0]).where(told)
    error = ratio * np.sqrt((d[1] / d[0]) ** 2 + (a0[1] / a0[0]) ** 2)
    share = a0[0] / data.activity
    spread = np.sqrt((a0[1] * d[0]) ** 2 + (d[1] * a0[0]) ** 2) / data.activity**2
    found = data.assign(
        gradient_noise_scale=ratio,
        gradient_noise_scale_standard_error=error,
        alignment_approximation=share,
        alignment_approximation_standard_error=spread,
    )
    for name in found.data_vars:
        if name != "step_batch_size":
            found[name].attrs = measure_named(str(name)).attributes
    return found


def _average(window: xr.Dataset) -> xr.Dataset:
    """Return means over passes with their errors, at the mean of their times."""
    n = window.sizes["step"]
    means = window.mean("step")
    for name in _UNBIASED:
        error = f"{name}_standard_error"
        means[error] = np.sqrt((window[error] ** 2).sum("step", skipna=False)) / n
    clocks = {name: float(window[name].mean()) for name in ("step", "epoch", "time") if name in window.coords}
    return means.assign_coords(clocks)


def _factor(config: object, batch_size: float) -> float:
    assert isinstance(config, dict)
    n_samples, augmented = config.get("n_samples"), config.get("augmented", False)
    return 1 / batch_size if augmented or not n_samples else covariance_factor(n_samples, batch_size)
