"""How the loss rises along lines through a point, and how flat it is along each of them."""

from __future__ import annotations

from copy import copy
from math import e
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import number, numbers
from langevin_nn.curvature.hessian import Hessian
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.landscape import Landscape, NetworkLandscape
from langevin_nn.threads import single_threaded_products

__all__ = ["flatness", "loss_profile"]

Floats = NDArray[np.float64]

# From one displacement to the next while the loss is still below its level.
_GROWTH = 1.5
_HALVINGS = 6
# Points that are evaluated together.
_AT_A_TIME = 512


def loss_profile(
    landscape: Landscape, weights: Tensor, directions: Any, displacements: Any, *, replica: int = 0
) -> xr.Dataset:
    """Return the loss along lines through a point, L(w + δ p).

    Parameters
    ----------
    landscape : Landscape
        Whose loss.
    weights : Tensor, shape (parameter,)
        w.
    directions : array, shape (direction, parameter)
        p, over the measured parameters, as `langevin_nn.curvature.Hessian` has them; each is taken at unit length.
    displacements : array, shape (displacement,)
        δ, in units of weight.
    replica : int, optional
        Whose labels, where labels differ between replicas.

    Returns
    -------
    xarray.Dataset
        ``loss`` (direction, displacement).

    Raises
    ------
    ConfigurationError
        If shapes do not fit together.

    Examples
    --------
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> valley = QuadraticLandscape(np.diag([1.0, 4.0]), np.eye(2))
    >>> loss_profile(valley, torch.zeros(2), np.eye(2), [-1.0, 0.0, 1.0]).loss.values
    array([[0.5, 0. , 0.5],
           [2. , 0. , 2. ]])
    """
    at = numbers("displacements", displacements, "a series of numbers, how far to go along each line")
    if at.ndim != 1:
        raise ConfigurationError(
            f"displacements have shape {at.shape}: expected (displacement,), the same on each line"
        )
    lines = _Lines(landscape, weights, directions, replica)
    rows = np.repeat(np.arange(len(lines.directions)), len(at))
    losses = lines.losses(rows, np.tile(at, len(lines.directions))).reshape(-1, len(at))
    return xr.Dataset(
        {"loss": (("direction", "displacement"), losses, {"long_name": "loss along a line", "units": "nat"})},
        coords={"displacement": ("displacement", at, {"long_name": "displacement", "units": "weight"})},
    )


def flatness(
    landscape: Landscape,
    weights: Tensor,
    directions: Any,
    *,
    factor: float = e,
    farthest: float | None = None,
    replica: int = 0,
) -> xr.Dataset:
    """Return how flat the loss is along lines through a point, by its width and by its curvature.

    F = δ₊ + δ₋, where δ± > 0 are the nearest displacements at which L(w ± δ p) reaches `factor` · L(w) (Feng & Tu 2021, doi
    10.1073/pnas.2015617118, who take e). In a quadratic valley of curvature h it is 2 √(2 L (e − 1)/h), which stands beside
    it. Lines are scanned at displacements that grow by a half; what rises and falls again in between is not seen.

    Parameters
    ----------
    landscape, weights, directions, replica : Landscape, Tensor, array and int
        As for `loss_profile`; w is a minimum along each line, or nearly one.
    factor : float, optional
        Of the loss at w, above 1.
    farthest : float, optional
        Displacement at which to give up; a hundred times the length of w, or 100 where that is below 1.

    Returns
    -------
    xarray.Dataset
        ``flatness``, ``width_left`` δ₋ and ``width_right`` δ₊ (direction), infinite where the loss stays below the level;
        ``curvature`` h = pᵀ∇²L p; ``curvature_flatness``, NaN where h is not positive; ``loss`` L(w).

    Raises
    ------
    ConfigurationError
        If shapes do not fit together, or a number is out of its range.
    EstimationRefused
        If the loss at w is not positive, so that no multiple of it is a level.

    Examples
    --------
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> valley = QuadraticLandscape(np.diag([1.0, 4.0]), np.eye(2))
    >>> found = flatness(valley, torch.tensor([0.0, 1.0]), [[1.0, 0.0]])  # L = 2, h = 1
    >>> round(found.flatness.item(), 3), round(2 * (2 * 2 * (e - 1)) ** 0.5, 3)
    (5.243, 5.243)
    """
    level_factor = number("factor", factor, "a number above 1, by which the loss must rise", above=1)
    lines = _Lines(landscape, weights, directions, replica)
    loss = float(lines.losses(np.zeros(1, dtype=int), np.zeros(1))[0])
    if not (np.isfinite(loss) and loss > 0):
        raise EstimationRefused(
            f"the loss is {loss:g} at these weights: expected a positive one, since flatness is how far one must go for a "
            "multiple of it; take weights of a finite training loss",
            loss=loss,
        )
    length = max(1.0, float(torch.linalg.vector_norm(weights.double())))
    most = number("farthest", farthest or 100 * length, "a positive displacement", above=0)
    curvatures = lines.curvatures()
    with np.errstate(divide="ignore", invalid="ignore"):
        quadratic = 2 * np.sqrt(2 * loss * (level_factor - 1) / np.where(curvatures > 0, curvatures, np.nan))
    start = np.fmin(quadratic / 16, min(length / 100, most))
    widths = _nearest_rise(lines, level_factor * loss, start, most)
    described = {
        "flatness": (widths.sum(0), f"width in which the loss is below {level_factor:.4g} times its value", "weight"),
        "width_left": (widths[0], "its part against the direction", "weight"),
        "width_right": (widths[1], "its part along the direction", "weight"),
        "curvature": (curvatures, "curvature of the loss", "nat weight-2"),
        "curvature_flatness": (quadratic, "width of a quadratic valley of that curvature", "weight"),
    }
    variables: dict[str, Any] = {
        name: ("direction", values, {"long_name": text, "units": units})
        for name, (values, text, units) in described.items()
    }
    return xr.Dataset({**variables, "loss": ((), loss, {"long_name": "training loss", "units": "nat"})})


class _Lines:
    """Lines through a point: losses and curvatures along them."""

    def __init__(self, landscape: Landscape, weights: Tensor, directions: Any, replica: int) -> None:
        self._hessian = Hessian(landscape, weights, replica)
        given = numbers("directions", directions, "an array of numbers (direction, parameter)")
        if given.ndim != 2 or given.shape[1] != self._hessian.size or not len(given):
            raise ConfigurationError(
                f"directions have shape {given.shape}: expected (direction, {self._hessian.size}), one vector over the "
                "measured parameters a row"
            )
        norms = np.linalg.norm(given, axis=1, keepdims=True)
        if not norms.min() > 0:
            raise ConfigurationError("a row of directions is zero: expected vectors that point somewhere")
        self.directions: Floats = given / norms
        if isinstance(landscape, NetworkLandscape) and len(landscape.labels) > 1:
            labels = landscape.labels_of(replica)[None]
            landscape = copy(landscape)
            landscape.labels = labels  # each row of weights is then another point of the same replica
        self._landscape, self._weights = landscape, weights.double().cpu()
        self._columns: Any = slice(None)
        if isinstance(landscape, NetworkLandscape) and not landscape.measures_everything:
            self._columns = landscape.measured_columns.cpu()

    def losses(self, rows: NDArray[np.int64], displacements: Floats) -> Floats:
        """Return the losses at displacements along the lines of some rows."""
        found = []
        for first in range(0, len(rows), _AT_A_TIME):
            some = slice(first, first + _AT_A_TIME)
            points = self._weights.repeat(len(rows[some]), 1)
            points[:, self._columns] += torch.as_tensor(displacements[some, None] * self.directions[rows[some]])
            with single_threaded_products():
                losses = self._landscape.loss(points.to(self._landscape.device, self._landscape.dtype))
            found.append(losses.double().cpu().numpy())
        return np.concatenate(found)

    def curvatures(self) -> Floats:
        """Return pᵀ∇²L p of each direction."""
        with single_threaded_products():
            products = self._hessian.matmat(self.directions.T)
        return np.asarray((self.directions.T * products).sum(0))


def _nearest_rise(lines: _Lines, level: float, start: Floats, most: float) -> Floats:
    """Return the nearest displacements, left and right, at which the loss reaches a level."""
    k = len(lines.directions)
    rows, signs = np.tile(np.arange(k), 2), np.repeat([-1.0, 1.0], k)

    def height(places: NDArray[np.int64], distances: Floats) -> Floats:
        found = lines.losses(rows[places], signs[places] * distances) - level
        return np.where(np.isfinite(found), found, np.inf)

    inner, outer = np.zeros(2 * k), np.tile(start, 2)
    under, over = np.full(2 * k, -np.inf), np.zeros(2 * k)
    searched = np.arange(2 * k)
    while len(searched):
        over[searched] = height(searched, outer[searched])
        searched = searched[over[searched] < 0]
        inner[searched], under[searched] = outer[searched], over[searched]
        searched = searched[outer[searched] < most]
        outer[searched] = np.minimum(_GROWTH * outer[searched], most)
    found = np.flatnonzero(inner < outer)
    for _ in range(_HALVINGS):
        middle = (inner[found] + outer[found]) / 2
        heights = height(found, middle)
        low = heights < 0
        inner[found[low]], under[found[low]] = middle[low], heights[low]
        outer[found[~low]], over[found[~low]] = middle[~low], heights[~low]
    # A straight line between the two ends, where both are known.
    share = np.where(np.isfinite(under + over), under / np.where(under < over, under - over, 1.0), 0.5)
    widths = np.full(2 * k, np.inf)
    widths[found] = (inner + share * (outer - inner))[found]
    return widths.reshape(2, k)
