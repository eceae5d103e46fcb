"""The Hessian's spectrum, and how far curvature and noise share their directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from langevin_nn.ensemble.variables import MEASURES
from langevin_nn.errors import ConfigurationError
from langevin_nn.operators import (
    SymmetricOperator,
    eigenvector_overlap,
    leading_eigenpairs,
    spectral_density,
    subspace_overlap,
)

if TYPE_CHECKING:
    from langevin_nn.ensemble import GradientEnsemble

__all__ = ["hessian_spectrum", "noise_curvature_overlap"]


def _variable(name: str, values: object, *dimensions: Any) -> tuple[tuple[str, ...], object, dict[str, str]]:
    return dimensions, values, MEASURES[name].attributes


def hessian_spectrum(
    hessian: SymmetricOperator, n_modes: int = 10, *, n_probes: int = 8, n_steps: int = 80, n_points: int = 400
) -> xr.Dataset:
    """Return leading eigenvalues, trace and spectral density of a Hessian.

    Parameters
    ----------
    hessian : SymmetricOperator
        Usually ``Hessian(landscape, weights)``.
    n_modes : int, optional
        Leading eigenvalues, from the largest down.
    n_probes : int, optional
        Random vectors for trace and density, see `langevin_nn.operators.spectral_density`.
    n_steps : int, optional
        Lanczos steps of each.
    n_points : int, optional
        Points at which the density is given, smoothed by a Gaussian as wide as 1 % of the range of eigenvalues.

    Returns
    -------
    xarray.Dataset
        ``hessian_eigenvalue`` with residuals (hessian_mode), ``hessian_trace`` and ``spectral_density`` (eigenvalue) with
        standard errors.

    Examples
    --------
    >>> import torch
    >>> from langevin_nn.curvature import Hessian
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> valley = QuadraticLandscape(np.diag([1.0, 4.0]), np.eye(2))
    >>> found = hessian_spectrum(Hessian(valley, torch.zeros(2)), n_modes=2)
    >>> found.hessian_eigenvalue.values, float(found.hessian_trace.round(9))
    (array([4., 1.]), 5.0)
    """
    pairs = leading_eigenpairs(hessian, min(n_modes, hessian.size))
    measure = spectral_density(hessian, n_probes, n_steps)
    trace, trace_error = measure.trace()
    low, high = float(measure.nodes.min()), float(measure.nodes.max())
    width = max(high - low, 1e-12 * abs(high), 1e-300) / 100
    at = np.linspace(low - 4 * width, high + 4 * width, n_points)
    density, error = measure.density(at, width)
    data = {
        "hessian_eigenvalue": (pairs.values, "hessian_mode"),
        "hessian_eigenvalue_residual": (pairs.residuals, "hessian_mode"),
        "hessian_trace": (trace,),
        "hessian_trace_standard_error": (trace_error,),
        "spectral_density": (density, "eigenvalue"),
        "spectral_density_standard_error": (error, "eigenvalue"),
    }
    return xr.Dataset(
        {name: _variable(name, *each) for name, each in data.items()},
        coords={"eigenvalue": _variable("hessian_eigenvalue", at, "eigenvalue")},
        attrs={"width": width, "n_probes": n_probes, "n_steps": n_steps, "n_parameters": hessian.size},
    )


def noise_curvature_overlap(
    ensemble: GradientEnsemble, hessian: SymmetricOperator, n_modes: int = 10, *, tolerance: float = 1e-3
) -> xr.Dataset:
    """Return how far the leading eigenvectors of the noise covariance and of the Hessian share their directions.

    Parameters
    ----------
    ensemble : GradientEnsemble
        Whose noise.
    hessian : SymmetricOperator
        At the same point, over the same parameters.
    n_modes : int, optional
        Leading eigenvectors of each, from the largest eigenvalue down.
    tolerance : float, optional
        Largest relative residual of the eigenvectors.

    Returns
    -------
    xarray.Dataset
        ``eigenvector_overlap`` (mode, hessian_mode), squared cosines; ``subspace_overlap``, the share of one subspace that
        lies in the other, beside the ``random_overlap`` of unrelated ones; eigenvalues of both; the variance of the noise
        along each eigenvector of the Hessian, ``noise_along_hessian``.

    Raises
    ------
    ConfigurationError
        If the two operators are not over the same parameters.
    """
    noise = ensemble.covariance
    if noise.size != hessian.size:
        raise ConfigurationError(
            f"the noise covariance is over {noise.size} parameters and the Hessian over {hessian.size}: expected the same "
            "parameters; take both from one landscape"
        )
    n_modes = min(n_modes, noise.size)
    first = ensemble.noise_modes(n_modes, tolerance=tolerance)
    second = leading_eigenpairs(hessian, n_modes, tolerance=tolerance)
    along = np.diagonal(ensemble.projected_covariance(second.vectors))
    data = {
        "noise_eigenvalue": (first.values, "mode"),
        "hessian_eigenvalue": (second.values, "hessian_mode"),
        "noise_along_hessian": (along, "hessian_mode"),
        "eigenvector_overlap": (eigenvector_overlap(first.vectors, second.vectors), "mode", "hessian_mode"),
        "subspace_overlap": (subspace_overlap(first.vectors, second.vectors),),
        "random_overlap": (n_modes / noise.size,),
    }
    return xr.Dataset({name: _variable(name, *each) for name, each in data.items()})
