"""From a landscape and a point to the gradient ensemble there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from langevin_nn.ensemble.base import GradientEnsemble
from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.landscape import EmpiricalLandscape, Landscape, MomentLandscape, NetworkLandscape
from langevin_nn.landscape.network import COHORT_MASKS

if TYPE_CHECKING:
    from typing import Literal

__all__ = ["gradient_ensemble"]


def gradient_ensemble(
    landscape: Landscape,
    weights: Tensor,
    batch_size: int | None = None,
    *,
    replica: int = 0,
    replacement: bool = False,
    cohort_mask: Literal["mislabeled", "relabeled"] | None = None,
) -> GradientEnsemble:
    """Return the minibatch ensemble of a landscape at one point.

    Parameters
    ----------
    landscape : Landscape
        Made of samples, or one whose moments are known.
    weights : Tensor, shape (parameter,)
        Where.
    batch_size : int, optional
        B; needed where the landscape is made of samples.
    replica : int, optional
        Whose labels, where labels differ between replicas.
    replacement : bool, optional
        Whether minibatches are drawn with replacement.
    cohort_mask : {"mislabeled", "relabeled"}, optional
        Samples whose given label is wrong, or all whose label was redrawn, as the paper has it; the landscape's own choice
        unless said.

    Returns
    -------
    GradientEnsemble
        Gradients of the loss alone, over the measured tensors.

    Raises
    ------
    ConfigurationError
        If `batch_size` is missing or the landscape offers neither samples nor moments.
    UnknownNameError
        If there is no such cohort mask.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from langevin_nn import QuadraticLandscape
    >>> landscape = QuadraticLandscape(np.eye(2), np.diag([3.0, 1.0]))
    >>> gradient_ensemble(landscape, torch.tensor([1.0, 0.0])).spectrum().noise_eigenvalue.values
    array([3., 1.])
    """
    if isinstance(landscape, MomentLandscape):
        return GradientEnsemble.from_moments(landscape.gradient(weights[None])[0], landscape.noise_factor(weights))
    if not isinstance(landscape, EmpiricalLandscape) or batch_size is None:
        raise ConfigurationError(
            "a gradient ensemble needs sample gradients with a batch_size, or a landscape with known moments; got "
            f"{type(landscape).__name__} and batch_size={batch_size}"
        )
    if cohort_mask is not None and cohort_mask not in COHORT_MASKS:
        raise UnknownNameError("cohort mask", cohort_mask, COHORT_MASKS)
    mislabeled = None
    if isinstance(landscape, NetworkLandscape):
        mask = landscape.cohort if cohort_mask is None else getattr(landscape, cohort_mask)
        mislabeled = mask[replica if len(mask) > 1 else 0]
    return GradientEnsemble.from_sample_gradients(
        landscape.sample_gradients(weights, replica), batch_size, mislabeled=mislabeled, replacement=replacement
    )
