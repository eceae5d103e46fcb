"""Directions of weight space that a surrogate keeps."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import numbers, one_of, whole_number
from langevin_nn.ensemble import GradientEnsemble
from langevin_nn.errors import ConfigurationError
from langevin_nn.operators import SymmetricOperator, leading_eigenpairs, principal_directions

__all__ = ["Directions", "chosen_directions"]

Directions = Literal["noise", "hessian", "trajectory"]

_ORTHONORMAL = 1e-6


def chosen_directions(
    directions: Any,
    n_directions: Any,
    ensemble: GradientEnsemble,
    hessian: SymmetricOperator,
    rows: NDArray[np.float64],
) -> Tensor:
    """Return orthonormal directions (direction, parameter); named ones are turned so that H falls along their diagonal."""
    if not isinstance(directions, str):
        return _given(directions, hessian.size)
    name = one_of("choice of directions", directions, ("noise", "hessian", "trajectory"))
    expected = f"a whole number (int) from 1 to the {hessian.size} parameters"
    count = whole_number("n_directions", n_directions, expected, least=1, most=hessian.size)
    if name == "noise":
        span = ensemble.noise_modes(count).vectors
    elif name == "hessian":
        span = leading_eigenpairs(hessian, count).vectors
    elif not len(rows):
        raise ConfigurationError(
            "directions='trajectory' with no rows of one: expected some, shape (row, parameter); give trajectory=..."
        )
    else:
        components, sizes = principal_directions(rows - rows.mean(0), count)
        rank = int((sizes > 1e-10 * max(float(sizes.max(initial=0)), 1e-300)).sum())
        if count > rank:
            raise ConfigurationError(
                f"n_directions={count} of a trajectory whose {len(rows)} rows span {rank}: expected as many at most; give "
                "more rows, or take fewer directions"
            )
        span = torch.as_tensor(components, device=hessian.device)
    curvatures = hessian.apply(span) @ span.T
    _, turn = torch.linalg.eigh((curvatures + curvatures.T) / 2)
    turned: Tensor = turn.flip(1).T @ span
    return turned


def _given(directions: Any, n_parameters: int) -> Tensor:
    expected = f"orthonormal rows, shape (direction, {n_parameters}), or one of noise, hessian, trajectory"
    array = numbers("directions", directions, expected)
    if array.ndim != 2 or array.shape[1] != n_parameters or not 1 <= len(array) <= n_parameters:
        raise ConfigurationError(f"directions of shape {array.shape} came: expected {expected}")
    off = float(np.abs(array @ array.T - np.eye(len(array))).max())
    if off > _ORTHONORMAL:
        raise ConfigurationError(
            f"directions differ from orthonormal ones by {off:g}: expected {expected}, since distances in the surrogate are "
            "those in weight space; orthonormalise them, with numpy.linalg.qr for example"
        )
    return torch.as_tensor(array)
