"""The directions in which points lie widest apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["principal_directions"]

Floats = NDArray[np.float64]


def principal_directions(rows: Floats, n_directions: int) -> tuple[Floats, Floats]:
    """Return the directions of largest mean square, the leading right singular vectors.

    Of rows from which their mean is taken off, they are principal components.

    Parameters
    ----------
    rows : ndarray, shape (row, parameter)
        Points, or displacements.
    n_directions : int
        How many; fewer come where rows or parameters are fewer.

    Returns
    -------
    directions : ndarray, shape (direction, parameter)
        Orthonormal, of falling mean square; the largest entry of each is positive, whatever the order of the rows.
    sizes : ndarray, shape (direction,)
        Singular values of all directions, which tell how many the rows span.

    Examples
    --------
    >>> directions, sizes = principal_directions(np.array([[0.0, -2.0], [0.0, 0.0], [0.0, 2.0]]), 1)
    >>> directions
    array([[0., 1.]])
    """
    _, sizes, vectors = np.linalg.svd(rows, full_matrices=False)
    leading: Floats = vectors[:n_directions]
    largest = np.take_along_axis(leading, np.abs(leading).argmax(1)[:, None], axis=1)
    return leading * np.where(largest < 0, -1.0, 1.0), sizes
