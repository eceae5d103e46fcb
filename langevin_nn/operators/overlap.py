"""How far the eigenvectors of two operators lie in the same directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.errors import ConfigurationError

__all__ = ["eigenvector_overlap", "subspace_overlap"]


def eigenvector_overlap(first: Tensor, second: Tensor) -> NDArray[np.float64]:
    """Return the squared cosines between two sets of eigenvectors.

    Parameters
    ----------
    first : Tensor, shape (mode, parameter)
        Orthonormal rows.
    second : Tensor, shape (other mode, parameter)
        Orthonormal rows.

    Returns
    -------
    ndarray, shape (mode, other mode)
        (u_i · v_j)²; rows and columns sum to at most 1.

    Raises
    ------
    ConfigurationError
        If the vectors have different lengths.

    Examples
    --------
    >>> import torch
    >>> eigenvector_overlap(torch.eye(2), torch.tensor([[0.6, 0.8]])).round(2)
    array([[0.36],
           [0.64]])
    """
    if first.shape[1] != second.shape[1]:
        raise ConfigurationError(
            f"eigenvectors of lengths {first.shape[1]} and {second.shape[1]} came: expected vectors over the same parameters"
        )
    cosines = first.double() @ second.double().T.to(first.device)
    return np.asarray(cosines.square().cpu())


def subspace_overlap(first: Tensor, second: Tensor) -> float:
    """Return the share of one subspace that lies in another, Σ_ij (u_i·v_j)²/min(k, l).

    Parameters
    ----------
    first : Tensor, shape (mode, parameter)
        Orthonormal rows, k of them.
    second : Tensor, shape (other mode, parameter)
        Orthonormal rows, l of them.

    Returns
    -------
    float
        1 where the smaller lies in the larger, 0 where they are orthogonal, about max(k, l)/parameter for random ones
        (Gur-Ari, Roberts & Dyer 2018, arXiv:1812.04754, for the Hessian's own over time).

    Raises
    ------
    ConfigurationError
        If the vectors have different lengths.
    """
    return float(eigenvector_overlap(first, second).sum()) / min(len(first), len(second))
