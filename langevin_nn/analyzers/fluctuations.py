"""How weights fluctuate along given directions: variance and correlation time of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import described, evenly_spaced, group_with, in_memory, record_interval
from langevin_nn.checks import numbers, one_of, whole_number
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.statistics.autocorrelation import autocorrelation_function

__all__ = ["Fluctuations", "decay_time", "recorded_weights", "without_trend"]

Floats = NDArray[np.float64]
Detrend = Literal["mean", "linear"]

LEAST_RECORDS = 8

# Correlation times over which squared correlations are summed.
_WINDOW = 5.0


def decay_time(correlation: Any) -> Floats:
    """Return the lag at which an autocorrelation has fallen to 1/e.

    Between two lags it is taken to fall exponentially, so that e^(−t/τ) has the time τ however few records that is.

    Parameters
    ----------
    correlation : array, shape (..., lag)
        From lag 0 on.

    Returns
    -------
    ndarray, shape (...)
        In records; NaN where it never falls so far.

    Examples
    --------
    >>> decay_time([np.exp(-np.arange(20) / 3.5)]).round(9)
    array([3.5])
    """
    values = numbers("correlation", correlation, "autocorrelations, shape (..., lag)", finite=False)
    low = values < np.exp(-1.0)
    after = np.argmax(low, axis=-1)
    pair = np.stack([after - 1, after], axis=-1).clip(0)
    before, behind = np.moveaxis(np.take_along_axis(values, pair, axis=-1), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponential = (np.log(before) + 1) / (np.log(before) - np.log(behind))
        linear = (before - np.exp(-1.0)) / (before - behind)
    part = np.where(behind > 0, exponential, linear)
    return np.asarray(np.where(low.any(-1), after - 1 + part, np.nan))


def without_trend(series: Floats, detrend: Detrend) -> tuple[Floats, Floats]:
    """Return series (..., record) without mean or straight line, and the share of the variance that the line had."""
    centred = series - series.mean(-1, keepdims=True)
    place = np.arange(series.shape[-1]) - (series.shape[-1] - 1) / 2
    slope = centred @ place / (place @ place)
    whole = (centred**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.asarray(slope**2 * (place @ place) / whole)
    return (centred - slope[..., None] * place if detrend == "linear" else centred), share


def recorded_weights(trajectory: xr.DataTree | xr.Dataset, discard: int) -> xr.DataArray:
    """Return complete weights (replica, parameter, weight_step) in memory, evenly spaced, or refuse."""
    dataset = group_with(trajectory, "weights")
    values = dataset["weights"]
    if "replica" not in values.dims:
        values = values.expand_dims("replica")
    values = evenly_spaced(values.transpose("replica", "parameter", "weight_step"), "weight_step")
    values = in_memory(values.isel(weight_step=slice(discard, None)))
    if values.sizes["weight_step"] < LEAST_RECORDS:
        raise EstimationRefused(
            f"{values.sizes['weight_step']} records of weights: expected at least {LEAST_RECORDS}, since variances over time "
            "are asked for; record them more often, with Weights(EverySteps(n))",
            records=values.sizes["weight_step"],
            needed=LEAST_RECORDS,
        )
    broken = int((~np.isfinite(values.values).all((1, 2))).sum())
    if broken:
        raise EstimationRefused(
            f"weights of {broken} of {values.sizes['replica']} replicas are not finite: expected complete records; select "
            "the replicas that did not diverge, or the records before",
            replicas=broken,
        )
    return values


@dataclass(frozen=True)
class Fluctuations:
    """Variance and correlation time of recorded weights along given directions.

    Over a window that lasts for few correlation times both are smaller than in the stationary state, and over one without a
    stationary state (a diffusing weight) they are proportional to the window: the standard errors hold where the window is
    many correlation times long.

    Parameters
    ----------
    directions : xarray.DataArray or array, shape (component, parameter) or (replica, component, parameter)
        Unit vectors.
    detrend : {"mean", "linear"}, optional
        What is taken off each projection: its mean, or its straight line over the window, where weights drift.
    discard : int, optional
        Records to leave out at the start.

    Raises
    ------
    ConfigurationError
        If directions are no unit vectors, or a choice is not among those named.

    Examples
    --------
    >>> walk = np.random.default_rng(0).standard_normal((1, 10_000, 2)) * [1.0, 3.0]
    >>> trajectory = xr.Dataset({"weights": (("replica", "weight_step", "parameter"), walk)})
    >>> found = Fluctuations(np.eye(2))(trajectory)
    >>> found.component_variance.values.round(1)
    array([[1. , 8.9]])
    """

    directions: Any
    detrend: Detrend = "linear"
    discard: int = 0

    def __post_init__(self) -> None:
        one_of("detrend", self.detrend, ("mean", "linear"))
        whole_number("discard", self.discard, "a number of records (int) from 0 to leave out", least=0)
        expected = "numbers (component, parameter) or (replica, component, parameter)"
        values = numbers("directions", self.directions, expected)
        if values.ndim not in (2, 3) or not values.size:
            raise ConfigurationError(
                f"directions have shape {values.shape}: expected {expected}, one direction at least"
            )
        norms = np.linalg.norm(values, axis=-1)
        if not np.allclose(norms, 1, atol=1e-6):
            raise ConfigurationError(
                f"directions have lengths from {norms.min():g} to {norms.max():g}: expected unit vectors, along which a "
                "variance is one of weights; divide them by their lengths"
            )

    def __call__(self, trajectory: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """Measure a trajectory.

        Parameters
        ----------
        trajectory : xarray.DataTree or xarray.Dataset
            With ``weights`` (replica, weight_step, parameter), evenly recorded.

        Returns
        -------
        xarray.Dataset
            By replica and component, ``component_variance`` about what is taken off, with its ``_standard_error``
            σ² √(2 Σ_t ρ(t)²/n); ``correlation_time``, in records, at which the autocorrelation has fallen to 1/e;
            ``trend_share``, the share of the variance about the mean that a straight line has; ``projection``, detrended;
            ``record_interval`` (clock), by which records become updates, epochs or gradient-flow time.

        Raises
        ------
        ConfigurationError
            If weights were not recorded, or directions are over another number of parameters.
        EstimationRefused
            If there are too few records, they are not evenly spaced or a replica has diverged.
        """
        weights = recorded_weights(trajectory, self.discard)
        directions = numbers("directions", self.directions, "rows of finite numbers, one a direction of weight space")
        directions = np.broadcast_to(directions, (weights.sizes["replica"], *directions.shape[-2:]))
        if directions.shape[-1] != weights.sizes["parameter"]:
            raise ConfigurationError(
                f"directions are over {directions.shape[-1]} parameters, weights over {weights.sizes['parameter']}: expected "
                "as many; record the tensors over which directions were found"
            )
        series = np.stack([own @ row for own, row in zip(directions, weights.values, strict=True)])
        rest, share = without_trend(series, self.detrend)
        correlation = autocorrelation_function(rest)
        time, variance = decay_time(correlation), (rest**2).mean(-1)
        error = variance * np.sqrt(2 * _squares(correlation, time) / rest.shape[-1])
        each = ("replica", "component")
        found = {
            "component_variance": described(each, variance, "variance of weights along a direction", "weight2"),
            "component_variance_standard_error": described(each, error, "its standard error", "weight2"),
            "correlation_time": described(each, time, "correlation time", "record"),
            "trend_share": described(each, share, "share of a straight line in the variance"),
            "projection": described((*each, "weight_step"), rest, "weights along a direction", "weight"),
        }
        kept = {name: values for name, values in weights.coords.items() if "parameter" not in values.dims}
        rank = described(["component"], np.arange(1, rest.shape[1] + 1), "rank of the direction")
        return xr.Dataset(found, kept | {"component": rank}).assign(record_interval(weights, "weight_step"))


def _squares(correlation: Floats, time: Floats) -> Floats:
    """Return 1 + 2 Σ ρ(t)² over the lags of some correlation times."""
    lags = np.arange(correlation.shape[-1])
    last = np.where(np.isfinite(time), np.maximum(_WINDOW * time, 1), correlation.shape[-1])
    counted = (lags > 0) & (lags <= last[..., None])
    return np.asarray(1 + 2 * (np.where(counted, correlation, 0.0) ** 2).sum(-1))
