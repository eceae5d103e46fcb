"""What an operator is: a size, and the product with a block of vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from langevin_nn.errors import ConfigurationError

__all__ = ["DenseOperator", "SplitOperator", "SymmetricOperator"]

# Matrices from this size on are searched in single precision first.
_LARGE = 500
# Rows of a matrix that are converted at a time.
_ROWS = 256


class SymmetricOperator(ABC):
    """A symmetric matrix, known through its products with vectors; works in float64.

    Attributes
    ----------
    size : int
        Number of its rows.
    device : torch.device
        Where its products are computed.
    precision : torch.dtype
        In which they are computed.
    at_a_time : int
        Vectors that are best multiplied together at most.
    """

    size: int
    device: torch.device
    precision: torch.dtype = torch.float64
    at_a_time: int = 64

    @abstractmethod
    def apply(self, vectors: Tensor) -> Tensor:
        """Return its products with vectors.

        Parameters
        ----------
        vectors : Tensor, shape (vector, parameter)
            Float64, one vector a row.

        Returns
        -------
        Tensor, shape (vector, parameter)
            One product a row.
        """

    def rough(self) -> SymmetricOperator:
        """Return an operator with cheaper products in single precision, for searches; itself where there is none."""
        return self

    def matvec(self, vector: ArrayLike) -> NDArray[np.float64]:
        """Return the product with one vector.

        Parameters
        ----------
        vector : array, shape (parameter,)
            Any numbers.

        Returns
        -------
        ndarray, shape (parameter,)
            The product.

        Raises
        ------
        ConfigurationError
            If the vector has another length than the operator.
        """
        column = np.asarray(vector, dtype=np.float64)
        return self.matmat(column if column.ndim == 2 else column[:, None])[:, 0]

    def matmat(self, matrix: ArrayLike) -> NDArray[np.float64]:
        """Return the product with a matrix, vectors in columns as SciPy has them.

        Parameters
        ----------
        matrix : array, shape (parameter, vector)
            Any numbers.

        Returns
        -------
        ndarray, shape (parameter, vector)
            The products.

        Raises
        ------
        ConfigurationError
            If the matrix has another number of rows than the operator.
        """
        columns = np.asarray(matrix, dtype=np.float64)
        if columns.ndim != 2 or len(columns) != self.size:
            raise ConfigurationError(
                f"vectors of shape {columns.shape} were given to an operator on {self.size} parameters: expected shape "
                f"({self.size}, vector)"
            )
        rows = torch.as_tensor(np.ascontiguousarray(columns.T), device=self.device)
        return np.ascontiguousarray(self.apply(rows).cpu().numpy().T)

    def to_scipy(self) -> LinearOperator:
        """Return the operator for ``scipy.sparse.linalg``.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator
            Float64, symmetric: ``rmatvec`` is ``matvec``.
        """
        shape: Any = (self.size, self.size)
        return LinearOperator(
            shape, matvec=self.matvec, matmat=self.matmat, rmatvec=self.matvec, rmatmat=self.matmat, dtype=np.float64
        )

    def dense(self) -> NDArray[np.float64]:
        """Return the matrix, which takes 8·size² bytes.

        Returns
        -------
        ndarray, shape (parameter, parameter)
            Its entries.
        """
        return self.matmat(np.eye(self.size))


class DenseOperator(SymmetricOperator):
    """A matrix that is written out.

    Parameters
    ----------
    matrix : array, shape (parameter, parameter)
        Symmetric.

    Raises
    ------
    ConfigurationError
        If it is no such matrix.

    Examples
    --------
    >>> DenseOperator(np.diag([1.0, 2.0])).matvec([1.0, 1.0])
    array([1., 2.])
    """

    def __init__(self, matrix: Tensor | ArrayLike) -> None:
        self._matrix = torch.as_tensor(matrix).double()
        if self._matrix.ndim != 2 or self._matrix.shape[0] != self._matrix.shape[1]:
            raise ConfigurationError(f"a matrix of shape {tuple(self._matrix.shape)} came: expected a square one")
        self.size, self.device = len(self._matrix), self._matrix.device
        pieces = [slice(start, start + _ROWS) for start in range(0, self.size, _ROWS)]
        differences = [float((self._matrix[some] - self._matrix[:, some].T).abs().max()) for some in pieces]
        asymmetry = max(differences, default=0.0)
        # Products in single precision are symmetric to 10⁻⁵.
        if asymmetry and asymmetry > 1e-5 * max(float(self._matrix[some].abs().max()) for some in pieces):
            raise ConfigurationError(
                f"the matrix differs from its transpose by {asymmetry:g}: expected a symmetric one, since its eigenvalues "
                "are looked for among real numbers; take its symmetric part, or the product with its transpose"
            )

    def apply(self, vectors: Tensor) -> Tensor:  # noqa: D102
        return vectors @ self._matrix

    def rough(self) -> SymmetricOperator:  # noqa: D102
        return _SinglePrecision(self._matrix) if self.size >= _LARGE else self


class _SinglePrecision(SymmetricOperator):
    """A matrix rounded to float32."""

    precision = torch.float32

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix.float()  # no copy of what is in float32
        self.size, self.device = len(matrix), matrix.device

    def apply(self, vectors: Tensor) -> Tensor:
        return (vectors.float() @ self._matrix).double()


class SplitOperator(SymmetricOperator):
    """A matrix whose memory is reused: each row becomes its values in float32 and, behind them, what these leave out.

    The first halves serve searches in single precision without a copy; the sum of both has 48 of 53 binary digits.

    Parameters
    ----------
    matrix : Tensor, shape (parameter, parameter)
        Symmetric, float64, contiguous; overwritten.

    Examples
    --------
    >>> SplitOperator(torch.tensor([[1 / 3, 0.0], [0.0, 2.0]], dtype=torch.float64)).matvec([3.0, 1.0]).round(12)
    array([1., 2.])
    """

    at_a_time = 1024

    def __init__(self, matrix: Tensor) -> None:
        self.size, self.device = len(matrix), matrix.device
        halves = matrix.view(torch.float32)
        self._high, self._low = halves[:, : self.size], halves[:, self.size :]
        for start in range(0, self.size, _ROWS):
            rows = slice(start, start + _ROWS)
            values = matrix[rows].clone()
            self._high[rows] = values
            self._low[rows] = values - self._high[rows]

    def apply(self, vectors: Tensor) -> Tensor:  # noqa: D102
        total = torch.zeros_like(vectors)
        for start in range(0, self.size, _ROWS):
            rows = slice(start, start + _ROWS)
            total.addmm_(vectors[:, rows], self._high[rows].double().add_(self._low[rows]))
        return total

    def rough(self) -> SymmetricOperator:  # noqa: D102
        return _SinglePrecision(self._high)
