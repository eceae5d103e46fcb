"""Means over few replicas with honest intervals."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.special import stdtrit

__all__ = ["logarithm", "mean_with_interval"]


def logarithm(values: xr.DataArray) -> xr.DataArray:
    """Return the natural logarithm where it exists.

    Parameters
    ----------
    values : xarray.DataArray
        Any numbers.

    Returns
    -------
    xarray.DataArray
        NaN for those that are not positive.

    Examples
    --------
    >>> logarithm(xr.DataArray([1.0, 0.0])).values
    array([ 0., nan])
    """
    logarithms: xr.DataArray = xr.apply_ufunc(np.log, values.where(values > 0))
    return logarithms


def mean_with_interval(values: xr.DataArray, dimension: str = "replica", level: float = 0.95) -> xr.Dataset:
    """Return the mean over a dimension with its standard error and Student's t interval.

    With few replicas the normal quantile, and a percentile bootstrap too, is too narrow: over 4 they cover about 80 %
    where they say 95. Missing values are left out.

    Parameters
    ----------
    values : xarray.DataArray, shape (..., replica)
        Independent along `dimension`.
    dimension : str, optional
        What to average over.
    level : float, optional
        Coverage of the interval.

    Returns
    -------
    xarray.Dataset
        ``mean_value``, ``standard_error``, ``lower``, ``upper``, ``count``; errors are NaN for fewer than two values.

    Examples
    --------
    >>> result = mean_with_interval(xr.DataArray([1.0, 2.0, 3.0], dims="replica"))
    >>> float(result.mean_value), round(float(result.standard_error), 4), round(float(result.upper), 3)
    (2.0, 0.5774, 4.484)
    """
    numbers = np.asarray(values.transpose(..., dimension).values, dtype=np.float64)
    present = np.isfinite(numbers)
    count = present.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.where(present, numbers, 0).sum(-1) / count
        squares = np.where(present, (numbers - centre[..., None]) ** 2, 0).sum(-1)
        error = np.sqrt(squares / (count - 1) / count)
        half = stdtrit(np.where(count > 1, count - 1.0, np.nan), 0.5 + level / 2) * error
    error = np.where(count > 1, error, np.nan)
    results = {"mean_value": centre, "standard_error": error, "lower": centre - half, "upper": centre + half}
    dimensions = [name for name in values.dims if name != dimension]
    kept = {name: each for name, each in values.coords.items() if dimension not in each.dims}
    return xr.Dataset({name: (dimensions, each) for name, each in (results | {"count": count}).items()}, coords=kept)
