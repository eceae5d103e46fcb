"""Drifts with a formula: linear, and a soft wall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import number, numbers, point
from langevin_nn.drift.gradient import Drift
from langevin_nn.errors import ConfigurationError
from langevin_nn.formulas import TILE, FieldFormula, confinement, linear_field
from langevin_nn.threads import row_by_row

__all__ = ["Confinement", "LinearDrift"]


def _vector(name: str, values: object, n_parameters: int) -> NDArray[np.float64]:
    array = np.zeros(n_parameters) if values is None else point(name, values, n_parameters)
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class LinearDrift(Drift):
    """A (x − c): an Ornstein–Uhlenbeck process where the noise is constant; A need not be symmetric.

    Parameters
    ----------
    matrix : array, shape (parameter, parameter)
        A, in units of 1/time; weights decay along its eigenvectors of positive eigenvalue.
    centre : array, shape (parameter,), optional
        c; the origin unless said.

    Raises
    ------
    ConfigurationError
        If A is no square matrix of finite numbers, or c no point of the same space.

    Examples
    --------
    >>> LinearDrift([[0.0, 1.0], [-1.0, 0.0]])(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    tensor([[ 0., -1.]], dtype=torch.float64)
    """

    matrix: NDArray[np.float64]
    centre: NDArray[np.float64] = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        expected = "(parameter, parameter) finite numbers, a linear field"
        matrix = np.asarray(numbers("matrix", self.matrix, expected), order="C")  # as a file gives it back
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise ConfigurationError(f"matrix of shape {matrix.shape} came: expected {expected}")
        matrix.flags.writeable = False
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "centre", _vector("centre", self.centre, len(matrix)))

    @property
    def n_parameters(self) -> int:
        """Rows of A."""
        return len(self.matrix)

    def __call__(self, weights: Tensor) -> Tensor:  # noqa: D102
        matrix, centre = (torch.as_tensor(np.array(each)).to(weights) for each in (self.matrix, self.centre))
        return row_by_row(weights - centre, matrix.T)

    def formula(self) -> tuple[FieldFormula, ...]:  # noqa: D102
        return (linear_field(self.matrix, self.centre),)


@dataclass(frozen=True, eq=False)
class Confinement(Drift):
    """k (r − R) (x − c)/r beyond the radius R around c: a soft wall that leaves the inside alone.

    Parameters
    ----------
    stiffness : float
        k, in units of 1/time.
    radius : float
        R.
    centre : array, shape (parameter,), optional
        c; the origin unless said.

    Raises
    ------
    ConfigurationError
        If k or R is negative or not finite, or c no point.
    """

    stiffness: float
    radius: float
    centre: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        for name in ("stiffness", "radius"):
            expected = "a finite number from 0, since a wall pushes inward"
            object.__setattr__(self, name, number(name, getattr(self, name), expected, least=0))
        if self.centre is not None:
            centre = numbers("centre", self.centre, "finite numbers, a point of weight space")
            object.__setattr__(self, "centre", _vector("centre", centre, max(1, centre.size)))

    @property
    def n_parameters(self) -> int | None:
        """That of the centre, where it is given."""
        return None if self.centre is None else len(self.centre)

    def __call__(self, weights: Tensor) -> Tensor:  # noqa: D102
        away = weights if self.centre is None else weights - torch.as_tensor(np.array(self.centre)).to(weights)
        distance = away.norm(dim=1, keepdim=True)
        pull: Tensor = self.stiffness * (1 - self.radius / distance.clamp_min(1e-300)).clamp_min(0)
        return pull * away

    def formula(self) -> tuple[FieldFormula, ...]:  # noqa: D102
        centre = np.zeros(0) if self.centre is None else self.centre
        return (FieldFormula(TILE, confinement, np.concatenate([[self.stiffness, self.radius], centre])),)
