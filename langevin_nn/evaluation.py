"""What the formula of a field gives at points: in float64, by the code that integrators run, so that both see the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin_nn.formulas import LANES, POINT, POTENTIAL, TILE, FieldFormula

__all__ = ["evaluate"]


def evaluate(field: FieldFormula, positions: NDArray[np.float64], n_rows: int | None = None) -> NDArray[np.float64]:
    """Return a field at the weights of several replicas.

    Parameters
    ----------
    field : FieldFormula
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
    from langevin_nn.kernels.compilation import compiled, tile
    from langevin_nn.kernels.fields import write_differences

    n_replicas, n_parameters = positions.shape
    n_rows = n_parameters if n_rows is None else n_rows
    result = np.full((n_replicas, n_rows), np.nan)  # what a function leaves out shows
    assert field.function is not None
    if field.kind == TILE:
        function, x, out = tile(field.function), np.empty((n_parameters, LANES)), np.empty((n_rows, LANES))
        for start in range(0, n_replicas, LANES):
            count = min(LANES, n_replicas - start)
            x[:] = positions[start + np.minimum(np.arange(LANES), count - 1)].T
            function(x, np.ascontiguousarray(field.constants, np.float64), out)
            result[start : start + count] = out[:, :count].T
        return result
    near = positions[0] if n_replicas else None
    function = compiled(field.function, field.kind, np.dtype(np.float64), near, n_rows // n_parameters).function
    if field.kind == POTENTIAL:
        differences: Any = write_differences.py_func
        for point, row in zip(positions, result, strict=True):
            differences(function, np.array(point, np.float64), row)
        return result
    shape = (n_rows,) if field.kind == POINT else (n_parameters, n_rows // n_parameters)
    for point, row in zip(positions, result, strict=True):
        function(np.ascontiguousarray(point, np.float64), row.reshape(shape))
    return result
