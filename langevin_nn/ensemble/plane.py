"""Minibatch gradients in a plane: what a figure can show of vectors of many dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, as_tensor

from langevin_nn.checks import numbers, whole_number
from langevin_nn.ensemble.alignment import draw_minibatches
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.gradients import SampleGradients

__all__ = ["draw_minibatch_gradients", "project_gradients"]

Floats = NDArray[np.float64]


def draw_minibatch_gradients(
    gradients: SampleGradients,
    batch_size: int,
    generator: np.random.Generator,
    n_minibatches: int = 40,
    members: ArrayLike | Tensor | None = None,
) -> tuple[Floats, Floats]:
    """Draw gradients of independent minibatches, and return the mean over all minibatches beside them.

    Parameters
    ----------
    gradients : SampleGradients
        ∇ℓ_k of all samples, of ``landscape.sample_gradients(weights)``.
    batch_size : int
        Samples in a minibatch, drawn without replacement from the members.
    generator : numpy.random.Generator
        Draws them.
    n_minibatches : int, optional
        How many.
    members : array of bool, shape (sample,), optional
        The samples of a cohort; all unless given.

    Returns
    -------
    drawn : ndarray, shape (minibatch, parameter)
        g^μ.
    mean : ndarray, shape (parameter,)
        Their exact mean, the gradient over all members.

    Raises
    ------
    ConfigurationError
        If there are fewer members than samples in a minibatch.

    Examples
    --------
    >>> from torch import eye
    >>> gradients = SampleGradients.from_matrix(eye(4))
    >>> drawn, mean = draw_minibatch_gradients(gradients, 2, np.random.default_rng(0), 3)
    >>> np.sort(drawn, axis=1)
    array([[0. , 0. , 0.5, 0.5],
           [0. , 0. , 0.5, 0.5],
           [0. , 0. , 0.5, 0.5]])
    >>> mean
    array([0.25, 0.25, 0.25, 0.25])
    """
    n = gradients.n_samples
    flags = np.ones(n, dtype=bool) if members is None else np.asarray(as_tensor(members).cpu(), dtype=bool)
    chosen = np.flatnonzero(flags)
    whole_number("n_minibatches", n_minibatches, "a whole number (int) of minibatches from 1", least=1)
    whole_number("batch_size", batch_size, "a whole number (int), since samples are counted; round it")
    if flags.shape != (n,) or not 1 <= batch_size <= len(chosen):
        raise ConfigurationError(
            f"minibatches of {batch_size} of {len(chosen)} members, flags of shape {flags.shape}: expected 1 to as many as "
            f"there are, and one flag for each of the {n} samples; choose a smaller minibatch"
        )
    rows = chosen[draw_minibatches(generator, len(chosen), batch_size, n_minibatches, replacement=False)]
    shares = np.zeros((n_minibatches + 1, n))
    np.put_along_axis(shares[:-1], rows, 1 / batch_size, axis=1)
    shares[-1, chosen] = 1 / len(chosen)
    combined = np.asarray(gradients.combine(as_tensor(shares, device=gradients.device)).cpu())
    return combined[:-1], combined[-1]


def project_gradients(groups: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> xr.Dataset:
    """Project gradients onto a plane, in units of their root mean square norm.

    The first axis is the mean gradient of the first group. The second is orthogonal to it: where there are two groups, the
    rest of the second one's mean gradient, so that both means, and every mixture of them, lie in the plane; with one group,
    or parallel means, the direction orthogonal to the first axis in which the gradients are largest. Lengths in the plane
    are shorter than in full: ``plane_share`` says how much of the squared norm lies in it.

    Parameters
    ----------
    groups : dict of str to (array, array), shapes (minibatch, parameter) and (parameter,)
        By name, minibatch gradients with their mean, of `draw_minibatch_gradients` for example. As many minibatches in each.

    Returns
    -------
    xarray.Dataset
        ``projected_gradient`` (group, minibatch, axis), ``projected_mean`` (group, axis), ``plane_share`` (group), and
        ``gradient_unit``, the root mean square norm over all gradients of all groups.

    Raises
    ------
    ConfigurationError
        If there is no group, or shapes do not fit together.
    EstimationRefused
        If the mean gradient of the first group is zero, which has no direction.

    Examples
    --------
    >>> found = project_gradients({"all": ([[3.0, 4.0, 0.0], [3.0, -4.0, 0.0]], [3.0, 0.0, 0.0])})
    >>> found.gradient_unit.item(), found.projected_mean.values, abs(found.projected_gradient.values[0])
    (5.0, array([[0.6, 0. ]]), array([[0.6, 0.8],
           [0.6, 0.8]]))
    >>> found.plane_share.item()
    1.0
    """
    drawn, means = _checked(groups)
    unit = float(np.sqrt((drawn**2).sum(-1).mean()))
    if not np.linalg.norm(means[0]) > 0:
        raise EstimationRefused(
            f"the mean gradient of {next(iter(groups))!r} is zero: expected one with a direction, which is the first axis; "
            "name a group first whose mean is not zero",
            root_mean_square=unit,
        )
    plane = _plane(drawn, means)
    flat = drawn @ plane.T
    names = {"long_name": "projection of a gradient, in units of the root mean square norm", "units": "1"}
    return xr.Dataset(
        {
            "projected_gradient": (("group", "minibatch", "axis"), flat / unit, names),
            "projected_mean": (("group", "axis"), means @ plane.T / unit, names),
            "plane_share": (
                "group",
                (flat**2).sum((1, 2)) / (drawn**2).sum((1, 2)),
                {"long_name": "share of the squared norm in the plane", "units": "1"},
            ),
            "gradient_unit": ((), unit, {"long_name": "root mean square norm", "units": "loss weight-1"}),
        },
        coords={"group": list(groups)},
    )


def _checked(groups: Mapping[str, tuple[Any, Any]]) -> tuple[Floats, Floats]:
    drawn = [numbers(name, each[0], "minibatch gradients (minibatch, parameter)") for name, each in groups.items()]
    means = [numbers(name, each[1], "their mean (parameter,)") for name, each in groups.items()]
    shapes = {each.shape for each in drawn} | {(len(drawn[0]), *each.shape) for each in means} if drawn else set()
    if len(shapes) != 1 or drawn[0].ndim != 2 or not drawn[0].any():
        raise ConfigurationError(
            f"groups {list(groups)} have gradients of shapes {[each.shape for each in drawn]} and means of shapes "
            f"{[each.shape for each in means]}: expected at least one group, all (minibatch, parameter) with means "
            "(parameter,), and gradients that are not all zero, since they are drawn in one plane"
        )
    return np.stack(drawn), np.stack(means)


def _plane(drawn: Floats, means: Floats) -> Floats:
    """Return two orthonormal rows."""
    first = means[0] / np.linalg.norm(means[0])
    second = np.zeros_like(first)
    if len(means) > 1:
        second = means[1] - (means[1] @ first) * first
    if np.linalg.norm(second) <= 1e-6 * np.linalg.norm(means[min(1, len(means) - 1)]):
        rest = drawn.reshape(-1, drawn.shape[-1])
        rest = rest - (rest @ first)[:, None] * first
        second = np.linalg.svd(rest, full_matrices=False)[2][0]
        second = second - (second @ first) * first
    length = np.linalg.norm(second)
    return np.stack([first, second / length if length > 0 else second])
