"""Means over few replicas with honest intervals."""

from __future__ import annotations

import numpy as np
import xarray as xr

from langevin_nn.checks import instance, numbers
from langevin_nn.errors import ConfigurationError
from langevin_nn.replicas import check_each_once
from langevin_nn.statistics.intervals import interval_of_mean

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
    where they say 95. From 16 values on, the interval also reaches further to the side to which they are skewed, by what
    Johnson (1978, doi 10.1080/01621459.1978.10480051) moves it, g s/(6 n)(1 + 2 t²) with the sample skewness g: of
    exponential values it holds the mean in 94 % of cases then, where Student's alone holds it in 91. The skewness of fewer
    values cannot be told from chance; the interval is for laws with little of it there (exponential ones: 88 % over 4), and
    what spreads over factors is better averaged by its `logarithm`. Missing values are left out.

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

    Raises
    ------
    ConfigurationError
        If a replica comes twice, or values are no labelled array of real numbers.

    Examples
    --------
    >>> result = mean_with_interval(xr.DataArray([1.0, 2.0, 3.0], dims="replica"))
    >>> float(result.mean_value), round(float(result.standard_error), 4), round(float(result.upper), 3)
    (2.0, 0.5774, 4.484)
    """
    expected = f"an xarray.DataArray of real numbers with the dimension {dimension!r}, independent along it"
    instance("values", values, xr.DataArray, expected)
    if dimension not in values.dims:
        raise ConfigurationError(f"values have the dimensions {values.dims}: expected {expected}")
    if dimension == "replica":
        check_each_once(values.coords.to_dataset())
    array = numbers("values", values.transpose(..., dimension).values, expected, finite=False, flags=True)
    found = interval_of_mean(array, level)
    dimensions = [name for name in values.dims if name != dimension]
    kept = {name: each for name, each in values.coords.items() if dimension not in each.dims}
    names = ("mean_value", "standard_error", "lower", "upper", "count")
    return xr.Dataset({name: (dimensions, each) for name, each in zip(names, found, strict=True)}, coords=kept)
