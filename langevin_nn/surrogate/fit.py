"""From a landscape and a point to a surrogate of few dimensions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from langevin_nn.checks import instance, number, numbers, one_of, point, truth, whole_number
from langevin_nn.curvature import Hessian
from langevin_nn.ensemble import GradientEnsemble, gradient_ensemble
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import EmpiricalLandscape, Landscape, MomentLandscape, NetworkLandscape
from langevin_nn.surrogate.directions import Directions, chosen_directions
from langevin_nn.surrogate.moments import known_moments, measured_moments
from langevin_nn.surrogate.quality import measured_quality
from langevin_nn.surrogate.surrogate import NoiseModel, Surrogate

__all__ = ["fit_surrogate"]

Floats = NDArray[np.float64]

_SPACING = 1e-3  # of the norm of the weights, where no trajectory says how far they go


def fit_surrogate(
    landscape: Landscape,
    weights: Any,
    batch_size: int | None = None,
    *,
    n_directions: int = 10,
    directions: Directions | ArrayLike = "noise",
    noise: NoiseModel = "constant",
    trajectory: Any = None,
    held_out: float = 1 / 3,
    spacing: float | None = None,
    replica: int = 0,
    replacement: bool = False,
    memory_limit: int | float | str | None = None,
) -> Surrogate:
    """Reduce a network near a point to a few directions: x = V (w − w₀) with drift g + Hx and noise of covariance C or C(x).

    g and C are exact averages over the training samples, H comes from products with the Hessian. Named directions are turned
    within their span so that H is diagonal. Each estimate has the standard error of an average over samples.

    Parameters
    ----------
    landscape : Landscape
        A network with its data, another one made of samples, or one that knows its moments.
    weights : array, shape (parameter,)
        w₀.
    batch_size : int, optional
        B; needed where the landscape is made of samples.
    n_directions : int, optional
        How many, where they are named.
    directions : {"noise", "hessian", "trajectory"} or array, shape (direction, parameter), optional
        Span of the leading eigenvectors of C, of H, or of the principal components of the trajectory; or orthonormal
        directions, which are kept.
    noise : {"constant", "state_dependent"}, optional
        C of the origin everywhere; or C(x), the covariance of sample gradients that are each linear in x, measured at
        `spacing` on either side of w₀ along each direction: of second degree, positive semi-definite everywhere, exact for
        linear regression.
    trajectory : array, shape (row, parameter), optional
        Weights that a run has passed.
    held_out : float, optional
        Share of its rows, at the end, by which the surrogate is judged; the fit sees the others only.
    spacing : float, optional
        h; by the spread of the trajectory along each direction unless given, without one 0.001 ‖w₀‖.
    replica : int, optional
        Whose labels, where labels differ between replicas.
    replacement : bool, optional
        Whether minibatches are drawn with replacement.
    memory_limit : int or str, optional
        Budget for sample gradients in bytes or as ``"512 MiB"``; 1 GiB unless said.

    Returns
    -------
    Surrogate
        Its ``quality`` has ``explained_share`` Tr VCVᵀ/Tr C with its error; ``order_parameter_distance`` (point,
        order_parameter), ln of the surrogate's over the network's at the origin and at every row that was held out; there,
        along ``row``, the norms of ``drift`` and ``drift_error``. ``relative_drift_error`` is the root mean square of the
        error over that of the drift; ``relative_drift_error_within`` the same at points moved along the directions alone,
        where others do not push; ``relative_drift_error_constant`` that of g alone. ``curvature_change`` is how much H
        changes over the spacing.

    Raises
    ------
    ConfigurationError
        If an argument makes no sense for this landscape.
    UnknownNameError
        If there are no such directions, or no such noise.

    Examples
    --------
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> valley = QuadraticLandscape(np.diag([1.0, 4.0, 0.0]), np.diag([2.0, 8.0, 0.1]))
    >>> surrogate = fit_surrogate(valley, [0.0, 0.0, 0.0], n_directions=2)
    >>> surrogate.moments.hessian.round(9), round(surrogate.moments.explained_share, 3)
    (array([[4., 0.],
           [0., 1.]]), 0.99)
    >>> surrogate.law(learning_rate=0.1).variance.values.round(6)  # α C/(h (2 − αh))
    array([0.125   , 0.105263])
    """
    instance("landscape", landscape, Landscape, "a Landscape; wrap a network and its data in NetworkLandscape(...)")
    one_of("kind of noise", noise, ("constant", "state_dependent"))
    _check(landscape, noise, batch_size, replica)
    truth("replacement", replacement, "whether a sample may come twice in a minibatch")
    origin = torch.as_tensor(point("weights", weights, landscape.n_parameters)).to(landscape.device, landscape.dtype)
    rows = _rows(trajectory, landscape.n_parameters)
    share = number("held_out", held_out, "a share of the rows, from 0 to below 1", least=0, below=1)
    n_seen = len(rows) - round(share * len(rows))
    seen, unseen = rows[:n_seen], rows[n_seen:]
    of_samples: dict[str, Any] = {"replica": replica, "replacement": replacement, "memory_limit": memory_limit}

    def measure(at: Tensor) -> GradientEnsemble:
        return gradient_ensemble(landscape, at.to(landscape.device, landscape.dtype), batch_size, **of_samples)

    hessian = Hessian(landscape, origin, replica, memory_limit=memory_limit)
    basis = chosen_directions(directions, n_directions, measure(origin), hessian, seen).to(landscape.device)
    if isinstance(landscape, MomentLandscape):
        moments = known_moments(landscape, origin, basis, hessian)
    else:
        assert isinstance(landscape, EmpiricalLandscape)
        assert batch_size is not None
        distances = _spacings(spacing, seen, origin, basis)
        moments = measured_moments(landscape, origin, basis, hessian, batch_size, spacing=distances, **of_samples)
    bare = Surrogate(basis, origin, moments, noise, batch_size, xr.Dataset())
    return replace(bare, quality=measured_quality(bare, measure, unseen))


def _check(landscape: Landscape, noise: str, batch_size: Any, replica: Any) -> None:
    """Raise where this landscape cannot be reduced, or not in this way."""
    labels = len(landscape.labels) if isinstance(landscape, NetworkLandscape) else 1
    expected = f"a whole number (int) from 0 to {labels - 1}, whose labels are meant"
    whole_number("replica", replica, expected, least=0, most=labels - 1)
    if isinstance(landscape, EmpiricalLandscape):
        expected = (
            f"a whole number (int) from 1 to the {landscape.n_samples} training samples, since C is that of minibatches"
        )
        whole_number("batch_size", batch_size, expected, least=1, most=landscape.n_samples)
    elif batch_size is not None:
        whole_number("batch_size", batch_size, "a whole number (int) from 1, or None", least=1)
    if not getattr(landscape, "measures_everything", True):
        raise ConfigurationError(
            "this landscape measures some of its tensors only: expected all of them (parameters='*'), since training moves "
            "all and a surrogate of some would be pushed by the others"
        )
    if noise == "state_dependent" and isinstance(landscape, MomentLandscape):
        raise ConfigurationError(
            f"noise='state_dependent' on {type(landscape).__name__}: expected a landscape made of samples, since C(x) comes "
            "from their gradients; take noise='constant'"
        )


def _rows(trajectory: Any, n_parameters: int) -> Floats:
    if trajectory is None:
        return np.zeros((0, n_parameters))
    expected = f"finite numbers, shape (row, {n_parameters}), weights that a run has passed"
    rows = numbers("trajectory", trajectory, expected)
    if rows.ndim != 2 or rows.shape[1] != n_parameters:
        raise ConfigurationError(f"trajectory of shape {rows.shape} came: expected {expected}")
    return rows


def _spacings(spacing: float | None, rows: Floats, origin: Tensor, basis: Tensor) -> Floats:
    """Return the distance at which sample gradients are compared, along each direction."""
    if spacing is not None:
        expected = "a positive, finite distance in weight space"
        return np.full(len(basis), number("spacing", spacing, expected, above=0))
    least = _SPACING * max(float(origin.double().norm()), 1.0)
    if not len(rows):
        return np.full(len(basis), least)
    along = (torch.as_tensor(rows).to(origin.device) - origin.double()) @ basis.T
    spread: Floats = along.square().mean(0).sqrt().cpu().numpy()
    return spread.clip(least / 30)  # not so small that it drowns in the rounding of weights in single precision
