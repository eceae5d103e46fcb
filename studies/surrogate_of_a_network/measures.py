"""What the study of surrogates measures: fluctuations of SGD beside all that predicts them, and quality by dimension."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.surrogate import Surrogate
from studies.surrogate_of_a_network.fluctuations import RELATIONS, compared, exact, expected, fluctuations, lags_of
from studies.surrogate_of_a_network.plan import Settled
from studies.surrogate_of_a_network.runs import displacements

__all__ = ["DRAWS", "NOISES", "PREDICTORS", "measured", "quality"]

DRAWS = ("shuffled", "independent")
NOISES = ("constant", "state_dependent")
PREDICTORS = (*NOISES, "lyapunov", "stationary")


def quality(settled: Settled, fit: Callable[[int, str], Surrogate]) -> xr.Dataset:
    """Return how good all surrogates are, by dimension and noise.

    Parameters
    ----------
    settled : Settled
        What was chosen.
    fit : callable
        Gives the surrogate of a dimension and a noise.

    Returns
    -------
    xarray.Dataset
        Distances of order parameters are root mean squares over the points that were held out.
    """
    rows = []
    for size in settled.dimensions:
        each = []
        for noise in NOISES:
            found = fit(size, noise).quality
            distance = found.order_parameter_distance
            kept = found.drop_vars("order_parameter_distance").drop_dims("row")
            kept["distance_at_origin"] = distance.isel(point=0)
            kept["distance_elsewhere"] = (distance.isel(point=slice(1, None)) ** 2).mean("point", skipna=False) ** 0.5
            each.append(kept)
        rows.append(xr.concat(each, "noise"))
    data: xr.Dataset = xr.concat(rows, "dimension")
    return data.assign_coords(noise=list(NOISES), dimension=list(settled.dimensions))


def measured(
    settled: Settled,
    fits: dict[str, Surrogate],
    walked: dict[str, NDArray[np.float32]],
    updates: NDArray[np.int64],
    updates_per_epoch: float,
) -> xr.Dataset:
    """Return fluctuations of SGD along the directions of one dimension, and of everything that predicts them.

    Parameters
    ----------
    settled : Settled
        What was chosen.
    fits : dict of str to Surrogate
        By noise.
    walked : dict of str to ndarray, shape (replica, record, direction)
        Where SGD went, by kind of draws.
    updates : ndarray of int, shape (record,)
        When.
    updates_per_epoch : float
        N/B.

    Returns
    -------
    xarray.Dataset
        Dimensions ``draws``, ``predictor``, ``direction`` and ``record``.
    """
    moments, rate = fits["constant"].moments, settled.learning_rate
    law = fits["constant"].law(rate)
    stride = int(updates[0])
    times = law.relaxation_time.values
    lags = lags_of(times, stride, len(updates))
    seen = {draws: fluctuations(each, lags) for draws, each in walked.items()}
    replicas = range(settled.surrogate_replicas)
    predicted: dict[str, xr.Dataset] = {
        noise: fluctuations(displacements(fit.process(rate), replicas, settled.seed, updates), lags)
        for noise, fit in fits.items()
    }
    forgotten = np.exp(-lags * stride / np.where(np.isfinite(times), times, np.nan))
    settled_variance = np.broadcast_to(law.variance.values, (len(updates), len(times)))
    groups = []
    for draws in DRAWS:
        epoch = updates_per_epoch if draws == "shuffled" else None
        here = {
            **predicted,
            "lyapunov": expected(moments.hessian, moments.noise_covariance, rate, updates, lags, epoch),
            "stationary": exact(settled_variance, forgotten),
        }
        relations = [
            compared(seen[draws], here[name], settled.tolerance, settled.memory_tolerance) for name in PREDICTORS
        ]
        beside = xr.concat([here[name] for name in PREDICTORS], "predictor", join="outer", combine_attrs="drop")
        joined = xr.concat(relations, "predictor").merge(
            beside.rename({name: f"predicted_{name}" for name in beside.data_vars})
        )
        groups.append(xr.merge([seen[draws], joined], combine_attrs="drop"))
    data: xr.Dataset = xr.concat(groups, "draws")
    data = data.assign_coords(
        draws=list(DRAWS), predictor=list(PREDICTORS), record=updates, direction=np.arange(1, len(times) + 1)
    )
    data["curvature"], data["relaxation_time"] = ("direction", law.curvature.values), ("direction", times)
    data["lag"] = ("direction", lags * stride)
    for prefix in ("", "predicted_"):
        for name, values in _autocorrelation_times(data, prefix).items():
            data[name] = values
    data["relation"].attrs |= {"flag_values": [0, 1, 2], "flag_meanings": " ".join(RELATIONS)}
    return _described(data)


def _autocorrelation_times(data: xr.Dataset, prefix: str) -> dict[str, xr.DataArray]:
    """Return −lag/ln(memory) in updates with an interval, whose upper end is infinite where no decay is seen."""
    error = data[f"{prefix}memory_standard_error"].fillna(0) if prefix else data["memory_standard_error"]
    ends = {"": 0.0, "_lower": -1.96, "_upper": 1.96}
    times = {}
    for end, shift in ends.items():
        memory = data[f"{prefix}memory"] + shift * error
        decay = -np.log(memory.clip(1e-12, 1 - 1e-12))
        time_ = (data["lag"] / decay).where(memory < 1, np.inf).where(memory > 0, 0.0)
        times[f"{prefix}autocorrelation_time{end}"] = time_.where(memory.notnull())
    return times


def _described(data: xr.Dataset) -> xr.Dataset:
    units = {"variance_ratio": "1", "variance": "weight2", "memory": "1", "mean": "weight", "autocorrelation": "update"}
    words = {"curvature": "loss weight-2", "relaxation_time": "update", "lag": "update", "relation": "1"}
    for name, values in data.data_vars.items():
        bare = str(name).removeprefix("predicted_")
        found = words.get(bare) or next(unit for start, unit in units.items() if bare.startswith(start))
        values.attrs |= {"units": found, "long_name": str(name).replace("_", " ")}
    data["record"].attrs |= {"long_name": "updates from the start", "units": "update"}
    return data
