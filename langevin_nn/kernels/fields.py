"""Fields on weight space for the integrators: built-in ones over a tile of replicas, and calls of a user's functions.

A tile holds `LANES` replicas side by side, shape (parameter, lane). A built-in field is a *tile function* ``(x, constants,
out)``. A user's field is a function of one point, ``(x, out)``; a user's potential one that returns a number, of which
central differences are taken, always in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import float32, float64, njit, types, void
from numpy.typing import NDArray

from langevin_nn.kernels.cache import cached
from langevin_nn.kernels.normals import LANES

if TYPE_CHECKING:
    from langevin_nn.kernels.sources import CompiledField

__all__ = [
    "MATRIX",
    "NOTHING",
    "POINT",
    "POTENTIAL",
    "TILE",
    "confinement",
    "diagonal_linear",
    "evaluate",
    "function_types",
    "linear",
    "no_matrix",
    "no_point",
    "no_potential",
    "no_tile",
    "regression_factor",
    "signatures",
    "write_field",
]

# How a field is given.
NOTHING, TILE, POINT, POTENTIAL, MATRIX = 0, 1, 2, 3, 4

# Size of a difference, relative to a coordinate beyond 1: rounding and truncation are both near 1e-10 of the scale.
DIFFERENCE = 6e-6

_BOTH = (float64, float32)


def signatures(real: Any) -> dict[int, Any]:
    """Return the signatures of the four kinds of function.

    Parameters
    ----------
    real : numba type
        float64 or float32.

    Returns
    -------
    dict of int to signature
        By kind.
    """
    return {
        TILE: void(real[:, ::1], real[::1], real[:, ::1]),
        POINT: void(real[::1], real[::1]),
        POTENTIAL: float64(float64[::1]),
        MATRIX: void(real[::1], real[:, ::1]),
    }


def function_types(real: Any) -> dict[int, Any]:
    """Return the types under which such functions are passed to kernels.

    Parameters
    ----------
    real : numba type
        float64 or float32.

    Returns
    -------
    dict of int to numba type
        By kind.
    """
    return {kind: types.FunctionType(signature) for kind, signature in signatures(real).items()}


_TILES = [signatures(real)[TILE] for real in _BOTH]


@cached(_TILES, error_model="numpy")
def no_tile(x, constants, out):
    """Stand where there is no tile function.

    Parameters
    ----------
    x : ndarray, shape (parameter, lane)
        Where.
    constants : ndarray
        None are needed.
    out : ndarray, shape (parameter, lane)
        Becomes 0.
    """
    out[:] = 0


@cached([signatures(real)[POINT] for real in _BOTH])
def no_point(x, out):
    """Stand where there is no function of a point.

    Parameters
    ----------
    x : ndarray, shape (parameter,)
        Where.
    out : ndarray, shape (parameter,)
        Becomes 0.
    """
    out[:] = 0


@cached([signatures(real)[MATRIX] for real in _BOTH])
def no_matrix(x, out):
    """Stand where there is no matrix-valued function.

    Parameters
    ----------
    x : ndarray, shape (parameter,)
        Where.
    out : ndarray, shape (parameter, rank)
        Becomes 0.
    """
    out[:] = 0


@cached(signatures(float64)[POTENTIAL])
def no_potential(x):
    """Stand where there is no potential.

    Parameters
    ----------
    x : ndarray of float64, shape (parameter,)
        Where.

    Returns
    -------
    float
        0.
    """
    return 0.0


@cached(_TILES, error_model="numpy")
def linear(x, constants, out):
    """Write A (x − c).

    Parameters
    ----------
    x : ndarray, shape (parameter, lane)
        Where.
    constants : ndarray
        A row by row, then c.
    out : ndarray, shape (parameter, lane)
        The field.
    """
    n = x.shape[0]
    centred = np.empty_like(x)
    for i in range(n):
        for lane in range(LANES):
            centred[i, lane] = x[i, lane] - constants[n * n + i]
    np.dot(constants[: n * n].reshape(n, n), centred, out)


@cached(_TILES, error_model="numpy")
def diagonal_linear(x, constants, out):
    """Write a (x − c), one a for each coordinate.

    Parameters
    ----------
    x : ndarray, shape (parameter, lane)
        Where.
    constants : ndarray
        The a, then c.
    out : ndarray, shape (parameter, lane)
        The field.
    """
    n = x.shape[0]
    for i in range(n):
        a, c = constants[i], constants[n + i]
        for lane in range(LANES):
            out[i, lane] = a * (x[i, lane] - c)


@cached(_TILES, error_model="numpy")
def confinement(x, constants, out):
    """Write k (r − R) (x − c)/r beyond the radius R around c, and 0 within.

    Parameters
    ----------
    x : ndarray, shape (parameter, lane)
        Where.
    constants : ndarray
        k, R, then c; nothing more where c is the origin.
    out : ndarray, shape (parameter, lane)
        The field.
    """
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


@cached(_TILES, error_model="numpy")
def regression_factor(x, constants, out):
    """Write a factor of the minibatch covariance of linear regression, lower triangular, row by row.

    C(θ) = s (⟨g gᵀ⟩ − ḡ ḡᵀ) is a polynomial of second degree in the distance from the minimum; its factor is Cholesky's,
    with a column of zeros where what is left of a pivot may be rounding of the terms that cancelled in it.

    Parameters
    ----------
    x : ndarray, shape (parameter, lane)
        θ.
    constants : ndarray
        s; the minimum, shape (parameter,); the coefficients of ḡ, shape (parameter, parameter + 1); those of ⟨g gᵀ⟩, shape
        (parameter, parameter, parameter + 1, parameter + 1). The last place stands for the constant 1.
    out : ndarray, shape (parameter · parameter, lane)
        The factor.
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


@njit(error_model="numpy")
def _write_differences(potential, here, out):
    for i in range(here.shape[0]):
        centre = here[i]
        size = DIFFERENCE * max(1.0, abs(centre))
        here[i] = centre + size
        above, high = potential(here), here[i]
        here[i] = centre - size
        below, low = potential(here), here[i]
        out[i] = (above - below) / (high - low)
        here[i] = centre


@njit(error_model="numpy")
def write_field(kind, tile, point, potential, constants, x, count, out):
    """Write a field over a tile, however it is given.

    Parameters
    ----------
    kind : int
        `TILE`, `POINT` or `POTENTIAL`.
    tile, point, potential : compiled functions
        The one that is meant, and two that stand in.
    constants : ndarray
        Of the tile function.
    x : ndarray, shape (parameter, lane)
        Where.
    count : int
        Lanes that hold replicas; a user's function is not called for others.
    out : ndarray, shape (parameter, lane)
        The field.
    """
    if kind == TILE:
        tile(x, constants, out)
    elif kind == POINT:
        here, there = np.empty(x.shape[0], x.dtype), np.empty(x.shape[0], x.dtype)
        for lane in range(count):
            for i in range(x.shape[0]):
                here[i] = x[i, lane]
            there[:] = np.nan  # what a function leaves out, or does not come to, shows
            point(here, there)
            for i in range(x.shape[0]):
                out[i, lane] = there[i]
    else:
        near, slope = np.empty(x.shape[0]), np.empty(x.shape[0])
        for lane in range(count):
            for i in range(x.shape[0]):
                near[i] = x[i, lane]
            _write_differences(potential, near, slope)
            for i in range(x.shape[0]):
                out[i, lane] = slope[i]


def evaluate(field: CompiledField, positions: NDArray[np.float64], n_rows: int | None = None) -> NDArray[np.float64]:
    """Return a field at the weights of several replicas.

    Parameters
    ----------
    field : CompiledField
        However it is given.
    positions : ndarray of float64, shape (replica, parameter)
        Where.
    n_rows : int, optional
        Numbers that it writes at each point; as many as parameters unless said.

    Returns
    -------
    ndarray of float64, shape (replica, row)
        Its values; a matrix row by row.
    """
    from langevin_nn.kernels.compilation import compiled

    n_replicas, n_parameters = positions.shape
    n_rows = n_parameters if n_rows is None else n_rows
    result = np.empty((n_replicas, n_rows))
    if field.kind == TILE:
        tile: Any = field.function
        x, out = np.empty((n_parameters, LANES)), np.empty((n_rows, LANES))
        for start in range(0, n_replicas, LANES):
            count = min(LANES, n_replicas - start)
            x[:] = positions[start + np.minimum(np.arange(LANES), count - 1)].T
            tile(x, np.ascontiguousarray(field.constants, np.float64), out)
            result[start : start + count] = out[:, :count].T
        return result
    plain: Any = field.function
    near = positions[0] if n_replicas else None
    function = compiled(plain, field.kind, np.dtype(np.float64), near, n_rows // n_parameters).function
    if field.kind == POTENTIAL:
        for replica in range(n_replicas):
            _write_differences.py_func(function, np.array(positions[replica], np.float64), result[replica])
        return result
    for replica in range(n_replicas):
        shape = (n_rows,) if field.kind == POINT else (n_parameters, n_rows // n_parameters)
        out = np.full(shape, np.nan)
        function(np.ascontiguousarray(positions[replica], np.float64), out)
        result[replica] = out.reshape(-1)
    return result
