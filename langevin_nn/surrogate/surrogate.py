"""A network near a point, reduced to a few directions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import number, whole_number
from langevin_nn.ensemble import GradientEnsemble
from langevin_nn.landscape.weights import as_weights
from langevin_nn.noise import LandscapeNoise
from langevin_nn.process import Process
from langevin_nn.readable import Readable
from langevin_nn.surrogate.landscape import SurrogateLandscape
from langevin_nn.surrogate.moments import Moments
from langevin_nn.theory import covariance_after, mean_after
from langevin_nn.update import EulerMaruyama, Update

__all__ = ["NoiseModel", "Surrogate", "variable"]

Floats = NDArray[np.float64]
NoiseModel = Literal["constant", "state_dependent"]

_OUTSIDE = 1e-9  # share of a direction that may lie in modes without a law, which is rounding


def variable(values: Any, long_name: str, units: str, *dimensions: str) -> tuple[Any, Any, dict[str, str]]:
    """Return a variable of a dataset with its attributes."""
    return dimensions, values, {"long_name": long_name, "units": units}


@dataclass(frozen=True, eq=False)
class Surrogate(Readable):
    """dx = −(g + Hx) dt + √α F dW along a few directions x = V (w − w₀) of weight space.

    Made by `langevin_nn.fit_surrogate`. It holds near w₀, and where H has directions of curvature 0 and below, for a finite
    time only: `law` says which.

    Parameters
    ----------
    directions : Tensor, shape (direction, parameter)
        V, orthonormal rows.
    origin : Tensor, shape (parameter,)
        w₀.
    moments : Moments
        g, H and C with their errors.
    noise : {"constant", "state_dependent"}
        Whether C is that of the origin, or of second degree in x.
    batch_size : int or None
        B of the minibatches whose covariance C is.
    quality : xarray.Dataset
        How good it is: see `langevin_nn.fit_surrogate`.
    """

    directions: Tensor
    origin: Tensor
    moments: Moments
    noise: NoiseModel
    batch_size: int | None
    quality: xr.Dataset

    def _said(self) -> Iterator[str]:
        yield "{:,} directions of {:,} parameters".format(*self.directions.shape)
        yield f"noise={self.noise!r}"
        if self.batch_size is not None:
            yield f"batch_size={self.batch_size}"

    @property
    def n_directions(self) -> int:
        """Dimensions that it keeps."""
        return len(self.directions)

    def project(self, weights: Any) -> Floats:
        """Return x = V (w − w₀).

        Parameters
        ----------
        weights : array, shape (..., parameter)
            Points of weight space.

        Returns
        -------
        ndarray, shape (..., direction)
            Their places in the surrogate.
        """
        away = as_weights(weights).to(self.origin.device).double() - self.origin.double()
        return np.asarray((away @ self.directions.T).cpu())

    def lift(self, points: Any) -> Tensor:
        """Return w₀ + xV, in the precision of the network.

        Parameters
        ----------
        points : array, shape (..., direction)
            Places in the surrogate.

        Returns
        -------
        Tensor, shape (..., parameter)
            Points of weight space.
        """
        away = as_weights(points).to(self.origin.device).double() @ self.directions
        return (self.origin.double() + away).to(self.origin.dtype)

    def landscape(self) -> SurrogateLandscape:
        """Return the landscape on which it runs, from the origin.

        Returns
        -------
        SurrogateLandscape
            Of as many parameters as there are directions.
        """
        polynomial = self.moments.noise_polynomial if self.noise == "state_dependent" else None
        found = self.moments
        return SurrogateLandscape(found.gradient, found.hessian, found.noise_covariance, polynomial, loss=found.loss)

    def process(
        self, learning_rate: float, *, update: Update | None = None, time_step: float = 0.0, name: str = "surrogate"
    ) -> Process:
        """Return its dynamics, for thousands of replicas in a compiled loop.

        Parameters
        ----------
        learning_rate : float
            α.
        update : Update, optional
            `EulerMaruyama` unless said, which at Δt = α is SGD with Gaussian noise.
        time_step : float, optional
            Δt; 0, the default, stands for α.
        name : str, optional
            For figures and files.

        Returns
        -------
        Process
            In Itô's sense, as minibatches are.
        """
        return Process(
            self.landscape(),
            LandscapeNoise(),
            learning_rate,
            update=EulerMaruyama() if update is None else update,
            time_step=time_step,
            name=name,
        )

    def ensemble(self, point: Any = None) -> GradientEnsemble:
        """Return the ensemble of Gaussian gradients of the surrogate at one of its points.

        Parameters
        ----------
        point : array, shape (direction,), optional
            x; the origin unless said.

        Returns
        -------
        GradientEnsemble
            Its alignment is that of Gaussian minibatch gradients.
        """
        landscape = self.landscape()
        at = torch.zeros(self.n_directions, dtype=torch.float64) if point is None else as_weights(point).double()
        return GradientEnsemble.from_moments(
            landscape.gradient(at[None])[0], landscape.noise_factor(at), self.batch_size or 1
        )

    def law(self, learning_rate: float, steps: float = inf, *, updates_per_epoch: float | None = None) -> xr.Dataset:
        """Return what the linear equation with constant noise says of SGD from the origin, to all orders in α.

        Parameters
        ----------
        learning_rate : float
            α.
        steps : float, optional
            Updates from the origin; unless given, the stationary law, where there is one.
        updates_per_epoch : float, optional
            N/B where epochs are shuffled; independent draws unless said. See `langevin_nn.theory.covariance_after`.

        Returns
        -------
        xarray.Dataset
            Along ``direction``: ``mean_displacement`` and ``variance`` of x. Along ``mode``, the eigenvectors of H by falling
            curvature: ``curvature``, ``relaxation_time`` in updates, −1/ln|1 − αh|, and ``has_stationary_law``, whether
            0 < αh < 2. Stationary values are NaN along directions that have a part in modes without a law, and relaxation
            times are NaN for those: there nothing settles, and only a finite number of steps has a law.

        Raises
        ------
        ConfigurationError
            If the learning rate or the number of steps makes no sense.
        """
        rate = number("learning_rate", learning_rate, "a positive, finite number, the time of one update", above=0)
        if steps != inf:
            expected = "a whole number (int) of updates from 0, or infinity for the stationary law"
            steps = whole_number("steps", steps, expected, least=0, most=10**15)
        curvatures, turn = np.linalg.eigh(self.moments.hessian)
        curvatures, turn = curvatures[::-1], turn[:, ::-1]
        ratio = np.abs(1 - rate * curvatures)
        settles = ratio < 1
        kept = settles if steps == inf else np.ones_like(settles)
        modes = turn[:, kept]
        covariance, away = np.zeros((self.n_directions, self.n_directions)), np.zeros(len(modes.T))
        if kept.any():
            inner, slope = np.diag(curvatures[kept]), modes.T @ self.moments.gradient
            strengths, axes = np.linalg.eigh(self.moments.noise_covariance)
            factor = modes.T @ (axes * np.sqrt(np.clip(strengths, 0, None)))  # rounding leaves some below 0
            inside = covariance_after(inner, factor @ factor.T, rate, steps, updates_per_epoch=updates_per_epoch)
            covariance, away = modes @ inside @ modes.T, mean_after(slope, inner, rate, steps)
        outside = 1 - np.square(modes).sum(1) > _OUTSIDE
        with np.errstate(divide="ignore"):
            times = np.where(settles, -1 / np.log(ratio), np.nan)
        displacement, variance = (np.where(outside, np.nan, each) for each in (modes @ away, covariance.diagonal()))
        data = {
            "mean_displacement": variable(displacement, "mean displacement from the origin", "weight", "direction"),
            "variance": variable(variance, "variance over replicas", "weight2", "direction"),
            "curvature": variable(curvatures, "curvature", "loss weight-2", "mode"),
            "relaxation_time": variable(times, "relaxation time", "update", "mode"),
            "has_stationary_law": variable(settles, "whether it settles", "1", "mode"),
        }
        return xr.Dataset(data, attrs={"learning_rate": rate, "steps": float(steps)})

    def estimates(self) -> xr.Dataset:
        """Return g, H and C with their standard errors, labelled.

        Returns
        -------
        xarray.Dataset
            Dimensions ``direction`` and ``other_direction``.
        """
        both = ("direction", "other_direction")
        shapes = {
            "gradient": (("direction",), "mean gradient g", "loss weight-1"),
            "hessian": (both, "Hessian H", "loss weight-2"),
            "noise_covariance": (both, "noise covariance C", "loss2 weight-2"),
        }
        data = xr.Dataset()
        for name, (dimensions, long_name, units) in shapes.items():
            data[name] = variable(getattr(self.moments, name), long_name, units, *dimensions)
            error = getattr(self.moments, f"{name}_standard_error")
            data[f"{name}_standard_error"] = variable(error, f"standard error of the {long_name}", units, *dimensions)
        return data
