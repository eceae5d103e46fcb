"""How good a surrogate is: what it explains, how it predicts drift elsewhere, and how far its order parameters are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.ensemble import GradientEnsemble
from langevin_nn.surrogate.surrogate import Surrogate, variable

__all__ = ["ORDER_PARAMETERS", "measured_quality"]

Floats = NDArray[np.float64]
Measure = Callable[[Tensor], GradientEnsemble]

ORDER_PARAMETERS = (
    "activity",
    "directed_activity",
    "noise_strength",
    "parallel_noise",
    "projection_variance",
    "effective_dimension",
)


def _order_parameters(ensemble: GradientEnsemble, *, spectrum: bool) -> Floats:
    found = {name: float(values[0]) for name, values in ensemble.closed_forms().items()}
    found["effective_dimension"] = ensemble.leading_spectrum().effective_dimension()[0] if spectrum else np.nan
    return np.array([found[name] for name in ORDER_PARAMETERS])


def _distances(surrogate: Surrogate, points: Floats, measured: list[GradientEnsemble]) -> Floats:
    """Return ln(surrogate/network) at the origin and elsewhere; the effective dimension at the origin alone."""
    rows = []
    for position, (point, ensemble) in enumerate(zip(points, measured, strict=True)):
        here, there = (
            _order_parameters(each, spectrum=position == 0) for each in (surrogate.ensemble(point), ensemble)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            rows.append(np.log(here / there))
    return np.array(rows)


def _drift(surrogate: Surrogate, ensemble: GradientEnsemble) -> Floats:
    return np.asarray((surrogate.directions @ ensemble.mean_gradient.double()).cpu())


def measured_quality(surrogate: Surrogate, measure: Measure, held_out: Floats) -> xr.Dataset:
    """Return how good a surrogate is at rows of weights that its fit has not seen; see `langevin_nn.fit_surrogate`."""
    moments, landscape = surrogate.moments, surrogate.landscape()
    points = surrogate.project(held_out)
    elsewhere = [measure(torch.as_tensor(row)) for row in held_out]
    true = np.array([_drift(surrogate, each) for each in elsewhere]).reshape(points.shape)
    inside = np.array([_drift(surrogate, measure(row)) for row in surrogate.lift(points)]).reshape(points.shape)
    predicted = landscape.gradient(torch.as_tensor(points)).numpy()
    origin = np.zeros((1, surrogate.n_directions))
    distances = _distances(surrogate, np.concatenate([origin, points]), [measure(surrogate.origin), *elsewhere])
    size = np.linalg.norm(true, axis=1)
    data = {
        "explained_share": variable(moments.explained_share, "share of the noise strength D", "1"),
        "explained_share_standard_error": variable(
            moments.explained_share_standard_error, "standard error of the share of D", "1"
        ),
        "order_parameter_distance": variable(
            distances, "ln of the surrogate's order parameter over the network's", "1", "point", "order_parameter"
        ),
        "drift": variable(size, "drift of the network along the directions", "loss weight-1", "row"),
    }
    errors = {
        "drift_error": (true - predicted, "error of the predicted drift"),
        "drift_error_within": (inside - predicted, "error of the predicted drift, moved along the directions alone"),
        "drift_error_constant": (true - moments.gradient, "error of a drift that is the same everywhere"),
    }
    for name, (difference, long_name) in errors.items():
        data[name] = variable(np.linalg.norm(difference, axis=1), long_name, "loss weight-1", "row")
        data[f"relative_{name}"] = variable(_relative(difference, true), f"{long_name}, relative", "1")
    if moments.secant_hessian is not None:
        change = _relative(moments.secant_hessian - moments.hessian, moments.hessian)
        data["curvature_change"] = variable(change, "change of H over the spacing, relative", "1")
    return xr.Dataset(data, coords={"order_parameter": list(ORDER_PARAMETERS)})


def _relative(difference: Floats, true: Floats) -> float:
    """Return the root mean square of a difference over that of the truth."""
    total = float(np.square(true).sum())
    return float(np.square(difference).sum() / total) ** 0.5 if total > 0 else np.nan
