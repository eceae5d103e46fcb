"""Formulas of drift and noise, told so that whoever computes them may choose how; plain Python, which Numba understands.

A formula over a *tile* of `LANES` replicas side by side, shape (parameter, lane), is ``f(x, constants, out)`` and writes into
another tile, `out`; one of a point, a user's own, ``f(x, out)``; a potential returns a number, of which central differences
are taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FieldFormula",
    "NoiseFormula",
    "affine",
    "confinement",
    "diagonal_linear",
    "linear",
    "linear_field",
    "regression_factor",
]

# How a field is given.
NOTHING, TILE, POINT, POTENTIAL, MATRIX = range(5)

# How F depends on the weights: F ξ is nothing, a constant vector times ξ, a constant matrix, or one of them at x.
SILENT, CONSTANT_DIAGONAL, CONSTANT_DENSE, DIAGONAL, FULL = range(5)

# Laws of what F multiplies.
BROWNIAN, COLOURED, STABLE = range(3)

# Activations of a perceptron.
RELU, TANH, GELU = range(3)

# Replicas that advance together; a multiple of every vector width, so that no lane is treated apart.
LANES = 64

# Drift terms that the integrators sum.
MAXIMUM_TERMS = 3


def linear(x: Any, constants: Any, out: Any) -> None:
    """Write A (x − c); the constants are A row by row, then c."""
    n = x.shape[0]
    centred = np.empty_like(x)
    for i in range(n):
        for lane in range(LANES):
            centred[i, lane] = x[i, lane] - constants[n * n + i]
    np.dot(constants[: n * n].reshape(n, n), centred, out)


def diagonal_linear(x: Any, constants: Any, out: Any) -> None:
    """Write a (x − c), one a for each coordinate; the constants are every a, then c."""
    n = x.shape[0]
    for i in range(n):
        a, c = constants[i], constants[n + i]
        for lane in range(LANES):
            out[i, lane] = a * (x[i, lane] - c)


def affine(x: Any, constants: Any, out: Any) -> None:
    """Write g + H x, also where no x makes it zero; the constants are H row by row, then g."""
    n = x.shape[0]
    np.dot(constants[: n * n].reshape(n, n), x, out)
    for i in range(n):
        for lane in range(LANES):
            out[i, lane] += constants[n * n + i]


def confinement(x: Any, constants: Any, out: Any) -> None:
    """Write k (r − R) (x − c)/r beyond the radius R around c, 0 within; the constants are k, R, and c unless it is 0."""
    stiffness, radius = constants[0], constants[1]
    centre = np.zeros(x.shape[0], x.dtype)
    centre[: constants.shape[0] - 2] = constants[2:]
    for lane in range(LANES):
        squared = x.dtype.type(0)
        for i in range(x.shape[0]):
            squared += (x[i, lane] - centre[i]) ** 2
        distance = np.sqrt(squared)
        pull = stiffness * (distance - radius) / distance if distance > radius else x.dtype.type(0)
        for i in range(x.shape[0]):
            out[i, lane] = pull * (x[i, lane] - centre[i])


def regression_factor(x: Any, constants: Any, out: Any) -> None:
    """Write a factor of the minibatch covariance of linear regression, lower triangular, row by row: (parameter², lane).

    C(θ) = s (⟨g gᵀ⟩ − ḡ ḡᵀ) is a polynomial of second degree in the distance from the minimum; its factor is Cholesky's,
    with a column of zeros where what is left of a pivot may be rounding of the terms that cancelled in it. The constants are
    s; the minimum, shape (parameter,); the coefficients of ḡ, shape (parameter, parameter + 1); those of ⟨g gᵀ⟩, shape
    (parameter, parameter, parameter + 1, parameter + 1). The last place stands for the constant 1.
    """
    n = x.shape[0]
    scale = constants[0]
    minimum = constants[1 : 1 + n]
    mean = constants[1 + n : 1 + n + n * (n + 1)].reshape(n, n + 1)
    second = constants[1 + n + n * (n + 1) :].reshape(n, n, n + 1, n + 1)
    zero = x.dtype.type(0)
    rounding = x.dtype.type(64 * (n + 1)) * x.dtype.type(2.0**-52 if x.itemsize == 8 else 2.0**-23)
    sizes = np.empty(n, x.dtype)
    point, gradient, covariance = np.empty(n + 1, x.dtype), np.empty(n, x.dtype), np.empty((n, n), x.dtype)
    for lane in range(LANES):
        for i in range(n):
            point[i] = x[i, lane] - minimum[i]
        point[n] = 1
        for i in range(n):
            gradient[i] = zero
            for k in range(n + 1):
                gradient[i] += mean[i, k] * point[k]
        for i in range(n):
            for j in range(i + 1):
                total, size = zero, zero
                for k in range(n + 1):
                    for m in range(n + 1):
                        term = second[i, j, k, m] * point[m] * point[k]
                        total += term
                        size += abs(term)
                if i == j:
                    sizes[i] = scale * (size + gradient[i] * gradient[i])
                covariance[i, j] = scale * (total - gradient[i] * gradient[j])
        for j in range(n):
            pivot = covariance[j, j]
            for k in range(j):
                pivot -= out[j * n + k, lane] ** 2
            root = np.sqrt(pivot) if pivot > rounding * sizes[j] else zero
            for i in range(n):
                if i < j or root == zero:
                    out[i * n + j, lane] = zero
                    continue
                value = covariance[i, j]
                for k in range(j):
                    value -= out[i * n + k, lane] * out[j * n + k, lane]
                out[i * n + j, lane] = value / root


@dataclass(frozen=True, eq=False)
class FieldFormula:
    """What a field is made of.

    Parameters
    ----------
    kind : int
        How it is given: `TILE`, `POINT`, `POTENTIAL` or `MATRIX`.
    function : callable, optional
        Of a tile, or of a point.
    constants : ndarray, optional
        Of a function of a tile.
    """

    kind: int
    function: Callable[..., Any] | None = None
    constants: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(0))


def linear_field(matrix: NDArray[np.float64], centre: NDArray[np.float64]) -> FieldFormula:
    """Return A (x − c).

    Parameters
    ----------
    matrix : ndarray, shape (parameter, parameter)
        A; products are saved where it is diagonal.
    centre : ndarray, shape (parameter,)
        c.

    Returns
    -------
    FieldFormula
        A function of a tile with its constants.
    """
    diagonal = np.diag(matrix)
    if (matrix == np.diag(diagonal)).all():
        return FieldFormula(TILE, diagonal_linear, np.concatenate([diagonal, centre]))
    return FieldFormula(TILE, linear, np.concatenate([matrix.ravel(), centre]))


_NOTHING = FieldFormula(NOTHING)


@dataclass(frozen=True, eq=False)
class NoiseFormula:
    """What noise is made of: F(x) times a law.

    Parameters
    ----------
    structure : int
        How F depends on the weights: `SILENT`, `CONSTANT_DIAGONAL`, `CONSTANT_DENSE`, `DIAGONAL` or `FULL`.
    rank : int
        Columns of F; as many as parameters where it is diagonal.
    factor : ndarray, shape (parameter, rank) or (parameter, 1), optional
        F where it is constant; its diagonal where it is that.
    field : FieldFormula, optional
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
    field: FieldFormula = _NOTHING
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
    def silent(cls) -> NoiseFormula:
        """Return no noise."""
        return cls(SILENT, 0)

    @classmethod
    def constant(cls, factor: NDArray[np.float64], **law: Any) -> NoiseFormula:
        """Return constant noise.

        Parameters
        ----------
        factor : ndarray, shape (parameter,) or (parameter, rank)
            The diagonal of F, or F.
        **law : object
            `law`, `parameters` and `time_step_exponent`.

        Returns
        -------
        NoiseFormula
            With F.
        """
        if factor.ndim == 1:
            return cls(CONSTANT_DIAGONAL, len(factor), factor[:, None], **law)
        return cls(CONSTANT_DENSE, factor.shape[1], factor, **law)

    @classmethod
    def dependent(cls, amplitude: FieldFormula, n_parameters: int, rank: int | None) -> NoiseFormula:
        """Return noise that depends on the weights.

        Parameters
        ----------
        amplitude : FieldFormula
            Writes F(x), or its diagonal.
        n_parameters : int
            P.
        rank : int or None
            Columns of F; None where it is diagonal.

        Returns
        -------
        NoiseFormula
            With F.
        """
        return cls(DIAGONAL if rank is None else FULL, n_parameters if rank is None else rank, field=amplitude)
