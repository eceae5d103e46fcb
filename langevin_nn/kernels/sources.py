"""Drift and noise in the words of the kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from langevin_nn.kernels.compilation import Pointer, compiled, pointer
from langevin_nn.kernels.fields import (
    MATRIX,
    NOTHING,
    POINT,
    POTENTIAL,
    TILE,
    diagonal_linear,
    linear,
    no_matrix,
    no_point,
    no_potential,
    no_tile,
)
from langevin_nn.kernels.schemes import CONSTANT_DENSE, CONSTANT_DIAGONAL, DIAGONAL, FULL, SILENT

__all__ = ["BROWNIAN", "COLOURED", "STABLE", "CompiledField", "CompiledNoise", "linear_field"]

# Laws of what the amplitude multiplies.
BROWNIAN, COLOURED, STABLE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class CompiledField:
    """A field for kernels.

    Parameters
    ----------
    kind : int
        How it is given, of `langevin_nn.kernels.fields`.
    function : callable, optional
        A compiled tile function, or a plain function of a point.
    constants : ndarray, optional
        Of the tile function.
    """

    kind: int
    function: Callable[..., Any] | None = None
    constants: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(0))

    def slots(
        self, dtype: np.dtype[Any], near: NDArray[np.float64] | None = None, rank: int = 0
    ) -> tuple[Pointer, ...]:
        """Return the functions that a kernel takes, one of them this field's, the others stand-ins.

        Parameters
        ----------
        dtype : numpy.dtype
            Precision.
        near : ndarray of float64, shape (parameter,), optional
            Near where the compiled form of a user's function is held against the plain one; nowhere unless said.
        rank : int, optional
            Columns that a matrix has.

        Returns
        -------
        tuple of Pointer
            Tile, point, potential, matrix.
        """
        stand_ins = {TILE: no_tile, POINT: no_point, POTENTIAL: no_potential, MATRIX: no_matrix}
        slots = {kind: pointer(function, kind, dtype) for kind, function in stand_ins.items()}
        if self.kind == TILE:
            slots[TILE] = pointer(self.function, TILE, dtype)
        elif self.kind != NOTHING:
            assert self.function is not None
            slots[self.kind] = compiled(self.function, self.kind, dtype, near, rank).pointer
        return tuple(slots.values())


def linear_field(matrix: NDArray[np.float64], centre: NDArray[np.float64]) -> CompiledField:
    """Return A (x − c).

    Parameters
    ----------
    matrix : ndarray, shape (parameter, parameter)
        A; products are saved where it is diagonal.
    centre : ndarray, shape (parameter,)
        c.

    Returns
    -------
    CompiledField
        A tile function with its constants.
    """
    diagonal = np.diag(matrix)
    if (matrix == np.diag(diagonal)).all():
        return CompiledField(TILE, diagonal_linear, np.concatenate([diagonal, centre]))
    return CompiledField(TILE, linear, np.concatenate([matrix.ravel(), centre]))


_NOTHING = CompiledField(NOTHING)


@dataclass(frozen=True, eq=False)
class CompiledNoise:
    """Noise for kernels: F(x) times a law.

    Parameters
    ----------
    structure : int
        How F depends on the weights, of `langevin_nn.kernels.schemes`.
    rank : int
        Columns of F; as many as parameters where it is diagonal.
    factor : ndarray, shape (parameter, rank) or (parameter, 1), optional
        F where it is constant; its diagonal where it is that.
    field : CompiledField, optional
        F where it depends on the weights.
    law : int, optional
        `BROWNIAN`, `COLOURED` or `STABLE`.
    parameters : tuple of float, optional
        Of the law, at the time step where they depend on it.
    time_step_exponent : float, optional
        Power of the time step.
    scale : float, optional
        Multiplies F.
    """

    structure: int
    rank: int
    factor: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    field: CompiledField = _NOTHING
    law: int = BROWNIAN
    parameters: tuple[float, ...] = ()
    time_step_exponent: float = 0.5
    scale: float = 1.0

    @property
    def dependence(self) -> Literal["constant", "diagonal", "full"]:
        """How F depends on the weights."""
        if self.structure in (DIAGONAL, FULL):
            return "diagonal" if self.structure == DIAGONAL else "full"
        return "constant"

    @property
    def is_diagonal(self) -> bool:
        """Whether each component is driven by a number of its own."""
        return self.structure in (CONSTANT_DIAGONAL, DIAGONAL)

    @classmethod
    def silent(cls) -> CompiledNoise:
        """Return no noise."""
        return cls(SILENT, 0)

    @classmethod
    def constant(cls, factor: NDArray[np.float64], **law: Any) -> CompiledNoise:
        """Return constant noise.

        Parameters
        ----------
        factor : ndarray, shape (parameter,) or (parameter, rank)
            The diagonal of F, or F.
        **law : object
            `law`, `parameters` and `time_step_exponent`.

        Returns
        -------
        CompiledNoise
            For kernels.
        """
        if factor.ndim == 1:
            return cls(CONSTANT_DIAGONAL, len(factor), factor[:, None], **law)
        return cls(CONSTANT_DENSE, factor.shape[1], factor, **law)

    @classmethod
    def dependent(cls, amplitude: CompiledField, n_parameters: int, rank: int | None) -> CompiledNoise:
        """Return noise that depends on the weights.

        Parameters
        ----------
        amplitude : CompiledField
            Writes F(x), or its diagonal.
        n_parameters : int
            P.
        rank : int or None
            Columns of F; None where it is diagonal.

        Returns
        -------
        CompiledNoise
            For kernels.
        """
        return cls(DIAGONAL if rank is None else FULL, n_parameters if rank is None else rank, field=amplitude)
