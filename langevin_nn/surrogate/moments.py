"""Drift and noise along a few directions at one point, each with the error of an average over samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.ensemble import covariance_factor
from langevin_nn.landscape import EmpiricalLandscape, MomentLandscape
from langevin_nn.operators import SymmetricOperator

__all__ = ["Moments", "known_moments", "measured_moments"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """What a surrogate is made of.

    Standard errors are those of averages over N samples: how far another training set of as many samples would lead. The
    dynamics on this one know no such error. They are 0 where a landscape knows its moments.

    Parameters
    ----------
    loss : float
        L at the point.
    gradient, gradient_standard_error : ndarray, shape (direction,)
        g = V ∇L.
    hessian, hessian_standard_error : ndarray, shape (direction, direction)
        V ∇²L Vᵀ, from products with the Hessian.
    noise_covariance, noise_covariance_standard_error : ndarray, shape (direction, direction)
        V C Vᵀ of minibatch gradients, exact for these samples.
    explained_share, explained_share_standard_error : float
        Tr V C Vᵀ / Tr C.
    noise_polynomial : ndarray, shape (direction, direction, direction + 1, direction + 1), or None
        C(x) in the form of `SurrogateLandscape`, where there are samples.
    secant_hessian : ndarray, shape (direction, direction), or None
        V ∇²L Vᵀ again, from gradients at a distance, where there are samples: it differs where curvature changes over that
        distance.
    """

    loss: float
    gradient: Floats
    gradient_standard_error: Floats
    hessian: Floats
    hessian_standard_error: Floats
    noise_covariance: Floats
    noise_covariance_standard_error: Floats
    explained_share: float
    explained_share_standard_error: float
    noise_polynomial: Floats | None = None
    secant_hessian: Floats | None = None


def _projected(hessian: SymmetricOperator, directions: Tensor) -> Floats:
    """Return V H Vᵀ."""
    products = (hessian.apply(directions) @ directions.T).cpu().numpy()
    return np.asarray((products + products.T) / 2)


def _standard_error(values: Floats) -> Floats:
    """Return the standard error of a mean over the first axis."""
    return (
        np.asarray(values.std(0, ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.full(values.shape[1:], np.nan)
    )


def measured_moments(
    landscape: EmpiricalLandscape,
    weights: Tensor,
    directions: Tensor,
    hessian: SymmetricOperator,
    batch_size: int,
    *,
    replica: int,
    replacement: bool,
    spacing: Floats,
    memory_limit: int | float | str | None,
) -> Moments:
    """Return the moments of a landscape that is made of samples, with errors."""
    # Gradients of all samples at a distance h on either side of the point, along each direction, give the slopes of every
    # sample's gradient: the error of H, and C(x) to second order as the covariance of gradients that are each linear in x.

    def along(at: Tensor) -> Floats:
        found = landscape.sample_gradients(at.to(weights.dtype), replica, memory_limit=memory_limit).project(directions)
        return np.asarray(found.double().cpu())

    gradients = landscape.sample_gradients(weights, replica, memory_limit=memory_limit)
    values = np.asarray(gradients.project(directions).double().cpu())
    n = len(values)
    slopes = np.stack(
        [
            (along(weights.double() + h * v) - along(weights.double() - h * v)) / (2 * h)
            for h, v in zip(spacing, directions, strict=True)
        ],
        axis=2,
    )
    slopes = (slopes + slopes.transpose(0, 2, 1)) / 2  # each sample's Hessian is symmetric
    scale = covariance_factor(n, batch_size, replacement)
    extended = np.concatenate([slopes, values[:, :, None]], axis=2)
    centred = (extended - extended.mean(0)).reshape(n, -1)
    k = len(directions)
    polynomial = (centred.T @ centred * (scale / n)).reshape(k, k + 1, k, k + 1).transpose(0, 2, 1, 3)
    deviations = values - values.mean(0)
    squares = scale * deviations[:, :, None] * deviations[:, None, :]
    mean = gradients.combine(torch.full((1, n), 1 / n, dtype=torch.float64, device=gradients.device))
    norms = gradients.squared_norms() - 2 * gradients.project(mean)[:, 0] + mean.square().sum()
    total = scale * np.asarray(norms.double().cpu())
    kept = squares.trace(axis1=1, axis2=2)
    share = float(kept.sum() / total.sum()) if total.sum() > 0 else np.nan
    losses = gradients.losses
    loss = landscape.loss(weights[None]) if losses is None else losses
    return Moments(
        float(loss.mean()),
        values.mean(0),
        _standard_error(values),
        _projected(hessian, directions),
        _standard_error(slopes),
        squares.mean(0),
        _standard_error(squares),
        share,
        float(_standard_error(kept - share * total) / total.mean()) if total.sum() > 0 else np.nan,
        np.ascontiguousarray(polynomial),
        slopes.mean(0),
    )


def known_moments(
    landscape: MomentLandscape, weights: Tensor, directions: Tensor, hessian: SymmetricOperator
) -> Moments:
    """Return the moments of a landscape that knows them, which have no errors."""
    factor = directions @ landscape.noise_factor(weights).double()
    total = float(landscape.noise_factor(weights).double().square().sum())
    gradient = np.asarray(directions @ landscape.gradient(weights[None])[0].double())
    covariance = np.asarray(factor @ factor.T)
    share = float(covariance.trace()) / total if total > 0 else np.nan
    return Moments(
        float(landscape.loss(weights[None])[0]),
        gradient,
        np.zeros_like(gradient),
        _projected(hessian, directions),
        np.zeros_like(covariance),
        covariance,
        np.zeros_like(covariance),
        share,
        0.0,
    )
