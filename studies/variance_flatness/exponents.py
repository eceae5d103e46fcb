"""Exponents of fluctuations against flatness: of each network, with intervals over networks, and of all together."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers import fit_power_law
from langevin_nn.errors import EstimationRefused

__all__ = ["QUANTITIES", "RANGES", "RELAXATIONS", "WIDTHS", "dissipation", "exponents", "pooled"]

Floats = NDArray[np.float64]

WIDTHS = ("flatness", "curvature_flatness")
QUANTITIES = ("variance", "held_out_variance", "correlation_time", "noise")
RANGES = ("all", "relaxed", "slow")

# A direction has relaxed where the window lasts for as many relaxation times 1/h.
RELAXATIONS = 10.0


def _of_range(measured: xr.Dataset, window: float, which: str) -> xr.DataArray:
    relaxed: xr.DataArray = measured.curvature * window >= RELAXATIONS
    slow: xr.DataArray = ~relaxed
    return {"all": relaxed | slow, "relaxed": relaxed, "slow": slow}[which]


def _exponent(widths: Floats, values: Floats) -> float:
    usable = np.isfinite(widths) & np.isfinite(values) & (values > 0)
    try:
        return float(fit_power_law(widths[usable], values[usable], np.ones(usable.sum())).exponent)
    except EstimationRefused:
        return float("nan")


def exponents(measured: xr.Dataset, window: float) -> xr.Dataset:
    """Return the exponents b of y ~ Fᵇ, directions of one network and basis weighing alike.

    Parameters
    ----------
    measured : xarray.Dataset
        By process, basis, replica and rank, of `studies.variance_flatness.measures.measure`.
    window : float
        Length of the window, in gradient-flow time.

    Returns
    -------
    xarray.Dataset
        ``exponent`` (width, quantity, range, process, basis, replica); NaN for fewer than three directions.
    """
    whole = measured.transpose("process", "basis", "replica", "rank")
    shape = tuple(whole.sizes[name] for name in ("process", "basis", "replica"))
    values = np.full((len(WIDTHS), len(QUANTITIES), len(RANGES), *shape), np.nan)
    for i, width in enumerate(WIDTHS):
        for k, which in enumerate(RANGES):
            widths = whole[width].where(_of_range(whole, window, which)).values
            for j, quantity in enumerate(QUANTITIES):
                for index in np.ndindex(shape):
                    values[(i, j, k, *index)] = _exponent(widths[index], whole[quantity].values[index])
    dimensions = ("width", "quantity", "range", "process", "basis", "replica")
    kept = {name: whole[name] for name in ("process", "basis", "replica") if name in whole.coords}
    names = {"width": list(WIDTHS), "quantity": list(QUANTITIES), "range": list(RANGES)}
    attributes = {"long_name": "exponent against the width", "units": "1"}
    return xr.Dataset({"exponent": (dimensions, values, attributes)}, coords={**names, **kept})


def pooled(measured: xr.Dataset) -> xr.Dataset:
    """Fit one power law of variance against flatness to all networks together, and say whether there is one.

    Parameters
    ----------
    measured : xarray.Dataset
        As in `exponents`.

    Returns
    -------
    xarray.Dataset
        What `langevin_nn.analyzers.fit_power_law` gives (process, basis), of geometric means over networks at each rank with
        their standard errors, as if ranks were independent, which share their networks: claims go by `exponents`, whose
        intervals are over networks.
    """
    rows = []
    for process in measured.process.values:
        columns = []
        for basis in measured.basis.values:
            own = measured.sel(process=process, basis=basis).transpose("replica", "rank")
            with np.errstate(divide="ignore", invalid="ignore"):
                logarithms = np.log(own.variance.values)
                widths = np.log(np.where(np.isfinite(own.flatness.values), own.flatness.values, np.nan))
            known = np.isfinite(logarithms).all(0) & np.isfinite(widths).all(0)
            errors = logarithms[:, known].std(0, ddof=1) / np.sqrt(len(logarithms))
            columns.append(_fit(np.exp(widths[:, known].mean(0)), np.exp(logarithms[:, known].mean(0)), errors))
        rows.append(xr.concat(columns, xr.Variable("basis", measured.basis.values)))
    return xr.concat(rows, xr.Variable("process", measured.process.values))


def _fit(widths: Floats, values: Floats, errors: Floats) -> xr.Dataset:
    try:
        return fit_power_law(widths, values, errors)
    except EstimationRefused:
        names = ("exponent", "exponent_standard_error", "exponent_lower", "exponent_upper", "prefactor", "chi_squared")
        found = dict.fromkeys((*names, "p_value"), ((), np.nan))
        return xr.Dataset({**found, "verdict": ((), "too few directions")})


def dissipation(measured: xr.Dataset, learning_rate: float, window: float) -> xr.DataArray:
    """Return the ratio of variances to those at which noise and restoring force balance, 2 σ² h (1 − αh/2)/(α pᵀ C p).

    Parameters
    ----------
    measured : xarray.Dataset
        As in `exponents`.
    learning_rate : float
        α.
    window : float
        Length of the window, in gradient-flow time.

    Returns
    -------
    xarray.DataArray, shape (range, process, basis, replica)
        Geometric means over directions; 1 where the relation holds, for independent noise and eigenvectors of the Hessian.
    """
    curvature = measured.curvature.where(measured.curvature > 0)
    ratio = measured.held_out_variance * curvature * (2 - learning_rate * curvature) / (learning_rate * measured.noise)
    logarithm = np.log(ratio.where(ratio > 0))
    parts = [logarithm.where(_of_range(measured, window, which)).mean("rank") for which in RANGES]
    found: xr.DataArray = np.exp(xr.concat(parts, xr.Variable("range", list(RANGES))))
    text = {"long_name": "variance over that of the fluctuation–dissipation relation", "units": "1"}
    return found.transpose("range", "process", "basis", "replica").assign_attrs(text)
