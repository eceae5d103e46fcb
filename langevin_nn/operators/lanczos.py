"""Leading eigenpairs by block Lanczos, with a bound on the error of every eigenvalue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.operators.base import SymmetricOperator

__all__ = ["Eigenpairs", "leading_eigenpairs"]

# The size of the second look for eigenvalues that were missed.
_CHECKING_VECTORS, _CHECKING_STEPS = 4, 4
# Times that residuals join the span of what a search has found.
_CORRECTIONS = 2
# Vectors that are multiplied together at most.
_AT_A_TIME = 32


@dataclass(frozen=True)
class Eigenpairs:
    """Leading eigenvalues with their vectors.

    Parameters
    ----------
    values : ndarray, shape (mode,)
        In the order that was asked for.
    vectors : Tensor, shape (mode, parameter)
        Orthonormal, one eigenvector a row, float64.
    residuals : ndarray, shape (mode,)
        ‖M u − θ u‖: an eigenvalue of M lies within this distance of θ. Usually the error is far smaller, see `errors`.
    converged : bool
        Whether every residual met the tolerance.
    """

    values: NDArray[np.float64]
    vectors: Tensor
    residuals: NDArray[np.float64]
    converged: bool

    @property
    def errors(self) -> NDArray[np.float64]:
        """Kato–Temple estimate of each eigenvalue's error, r²/gap where that is below the residual r.

        See Parlett 1998, *The Symmetric Eigenvalue Problem*, section 10.1 (doi 10.1137/1.9781611971163). The gap is that
        to the nearest other value found, less the larger residual of the two.
        """
        if len(self.values) < 2:
            return self.residuals.copy()
        order = np.argsort(self.values)
        values, residuals = self.values[order], self.residuals[order]
        distances = np.diff(values) - np.maximum(residuals[1:], residuals[:-1])
        gaps = np.empty_like(values)
        gaps[order] = np.minimum(np.append(distances, np.inf), np.append(np.inf, distances))
        with np.errstate(divide="ignore", invalid="ignore"):
            quadratic = np.where(gaps > 0, self.residuals**2 / np.where(gaps > 0, gaps, 1), np.inf)
        rounding = np.finfo(np.float64).eps * self.vectors.shape[1] ** 0.5 * np.abs(values).max()
        errors: NDArray[np.float64] = np.minimum(self.residuals, quadratic + rounding)
        return errors


class _KrylovSpace:
    """An orthonormal basis that grows by blocks up to a limit, and the operator restricted to it."""

    def __init__(self, operator: SymmetricOperator, limit: int, seed: int) -> None:
        self._operator, self._limit = operator, limit
        self._random = np.random.Generator(np.random.Philox(seed))
        # Of both only what is used takes memory.
        self._basis = torch.empty(limit, operator.size, dtype=torch.float64, device=operator.device)
        self._projected = torch.as_tensor(np.zeros((limit, limit)), device=operator.device)
        self.dimension = 0
        self.largest = 0.0  # absolute value among the eigenvalues between basis vectors

    @property
    def basis(self) -> Tensor:
        """Orthonormal rows, shape (dimension, parameter)."""
        return self._basis[: self.dimension]

    @property
    def projected(self) -> Tensor:
        """The operator between basis vectors, shape (dimension, dimension)."""
        return self._projected[: self.dimension, : self.dimension]

    @property
    def room(self) -> int:
        """By how many directions it can still grow."""
        return self._limit - self.dimension

    def random_block(self, n_vectors: int) -> Tensor:
        """Return random orthonormal vectors outside the space."""
        n_vectors = min(n_vectors, self._operator.size - self.dimension)
        draws = torch.as_tensor(self._random.standard_normal((n_vectors, self._operator.size)))
        return self._cleaned(draws.to(self._operator.device))

    def _cleaned(self, vectors: Tensor) -> Tensor:
        """Return orthonormal vectors that span what independent ones have outside the space."""
        for _ in range(2):
            vectors = torch.linalg.qr((vectors - (vectors @ self.basis.T) @ self.basis).T)[0].T
        return vectors.contiguous()

    def grow(self, block: Tensor) -> Tensor:
        """Add a block of orthonormal vectors; return what their products have outside the space that is now spanned."""
        new = slice(self.dimension, self.dimension + len(block))
        self._basis[new] = block
        self.dimension = new.stop
        product = self._operator.apply(block)
        along = product @ self.basis.T
        remainder = product - along @ self.basis
        correction = remainder @ self.basis.T
        along += correction
        self._projected[new, : new.stop] = along
        self._projected[: new.stop, new] = along.T
        outside: Tensor = remainder - correction @ self.basis
        return outside

    def leading(self, n_modes: int, which: str) -> tuple[Tensor, Tensor]:
        """Return leading eigenvalues of the operator between basis vectors, and their vectors in columns."""
        if not bool(torch.isfinite(self.projected).all()):
            raise EstimationRefused(
                "products with the operator hold NaN or infinite numbers: expected finite ones, since there are no "
                "eigenvalues otherwise; look for the weights or data that make them so",
                dimension=self.dimension,
            )
        values, vectors = torch.linalg.eigh(self.projected)
        self.largest = float(values.abs().max())
        chosen = _first(values, which, n_modes)
        return values[chosen], vectors[:, chosen]

    @property
    def rounding(self) -> float:
        """Below this residuals say nothing."""
        return float(torch.finfo(self._operator.precision).eps * self._operator.size**0.5 * self.largest)

    def following(self, remainder: Tensor) -> Tensor:
        """Return the block to go on with; random where products lead nowhere new."""
        q, r = torch.linalg.qr(remainder.T)
        directions, sizes, _ = torch.linalg.svd(r)
        kept = sizes > 1e-13 * float(self.projected.abs().max())
        if not bool(kept.any()):
            return self.random_block(len(remainder))[: self.room]
        block = (q @ directions[:, kept]).T.contiguous()
        # What is small has lost its orthogonality to the basis in proportion.
        block = block if float(sizes[kept].min()) > 1e-2 * float(sizes[0]) else self._cleaned(block)
        return block[: self.room]


def _first(values: Tensor, which: str, n_modes: int) -> Tensor:
    keys = values.abs() if which == "magnitude" else values if which == "largest" else -values
    return torch.argsort(keys, descending=True)[:n_modes]


def leading_eigenpairs(
    operator: SymmetricOperator,
    n_modes: int,
    *,
    which: Literal["largest", "smallest", "magnitude"] = "largest",
    tolerance: float = 1e-3,
    block_size: int | None = None,
    max_dimension: int | None = None,
    seed: int = 0,
) -> Eigenpairs:
    """Return the leading eigenpairs of a symmetric operator.

    Block Lanczos with full reorthogonalisation, done twice (Golub & Underwood 1977, doi
    10.1016/B978-0-12-587260-7.50018-2): the Krylov space of a random block grows until the residual of every wanted pair
    is below `tolerance` times its eigenvalue, or `max_dimension` is reached. Eigenvalues then err by about the square of
    the relative residual. A second random block outside that space then looks for eigenvalues that the first has missed, as
    repeated ones may be, and residuals are computed from products with the vectors that are returned.

    Parameters
    ----------
    operator : SymmetricOperator
        M.
    n_modes : int
        How many pairs; as many as the operator has rows at most.
    which : {"largest", "smallest", "magnitude"}, optional
        From the algebraically largest down, from the smallest up, or by absolute value from the largest down.
    tolerance : float, optional
        Largest ‖M u − θ u‖/|θ|.
    block_size : int, optional
        Vectors that are multiplied at a time, 4 to 32 unless said; a larger block costs more products, in larger and
        faster ones.
    max_dimension : int, optional
        Largest dimension of the Krylov space; 8 `n_modes` + 200 unless said. It is held in memory.
    seed : int, optional
        Of the random block.

    Returns
    -------
    Eigenpairs
        With residual bounds; `Eigenpairs.converged` says whether they met the tolerance.

    Raises
    ------
    ConfigurationError
        If `n_modes` is not between 1 and the size, or there is no such order.
    EstimationRefused
        If products with the operator are not finite.

    Examples
    --------
    >>> from langevin_nn.operators import DenseOperator
    >>> leading_eigenpairs(DenseOperator(np.diag([1.0, 4.0, 9.0])), n_modes=2).values.round(6)
    array([9., 4.])
    """
    if not 1 <= n_modes <= operator.size:
        raise ConfigurationError(
            f"n_modes={n_modes}: expected 1 to {operator.size}, the size of the operator; choose as many at most"
        )
    if which not in ("largest", "smallest", "magnitude"):
        raise ConfigurationError(f"which={which!r}: expected largest, smallest or magnitude")
    block_size = min(operator.size, block_size or max(4, min(_AT_A_TIME, n_modes // 4)))
    limit = min(operator.size, max(max_dimension or 8 * n_modes + 200, n_modes))
    start = block_size, limit, seed
    # Single precision finds the directions in half the time; what is returned comes from products in double precision.
    if (rough := operator.rough()) is not operator:
        pairs = _refined(operator, *_ritz_vectors(rough, n_modes, which, tolerance, *start), which, tolerance)
        if pairs.converged:
            return pairs
    return _refined(operator, *_ritz_vectors(operator, n_modes, which, tolerance, *start), which, tolerance)


def _ritz_vectors(
    operator: SymmetricOperator, n_modes: int, which: str, tolerance: float, block_size: int, limit: int, seed: int
) -> tuple[Tensor, float]:
    """Return approximate eigenvectors, orthonormal rows, and the largest absolute value among all eigenvalues seen."""
    space = _KrylovSpace(operator, limit, seed)
    block = space.random_block(min(block_size, limit))
    values, rotations, converged = _grown_until_converged(space, block, n_modes, which, tolerance)
    while converged and space.room:
        # One random start finds a repeated eigenvalue no more often than its block has vectors: look outside once more.
        found = values
        block = space.random_block(min(_CHECKING_VECTORS, space.room))
        for _ in range(_CHECKING_STEPS):
            block = space.following(space.grow(block)) if len(block) else block
        if len(block):
            values, rotations, converged = _grown_until_converged(space, block, n_modes, which, tolerance)
        else:
            values, rotations = space.leading(n_modes, which)
        if bool(((values - found).abs() <= tolerance * values.abs().max()).all()):
            break
    return rotations.T @ space.basis, space.largest


def _refined(operator: SymmetricOperator, vectors: Tensor, largest: float, which: str, tolerance: float) -> Eigenpairs:
    """Return the best pairs near the span of vectors, with residuals computed from their products, not inferred."""
    # Where a search has rounded, what is missing from its vectors is about their residuals: these join the span.
    n_modes, rounding = len(vectors), torch.finfo(torch.float64).eps * operator.size**0.5 * largest
    products = _products(operator, vectors)
    for remaining in reversed(range(_CORRECTIONS + 1)):
        projected = products @ vectors.T
        values, rotations = torch.linalg.eigh((projected + projected.T) / 2)
        order = _first(values, which, n_modes)
        values, rotations = values[order], rotations[:, order]
        vectors, products = rotations.T @ vectors, rotations.T @ products
        differences = products - values[:, None] * vectors
        residuals = torch.linalg.vector_norm(differences, dim=1) + rounding
        late = residuals > tolerance * values.abs() + 10 * rounding
        if not remaining or not bool(late.any()) or n_modes + int(late.sum()) > operator.size:
            break
        missing = differences[late]
        for _ in range(2):
            missing = torch.linalg.qr((missing - (missing @ vectors.T) @ vectors).T)[0].T
        vectors = torch.cat([vectors, missing])
        products = torch.cat([products, _products(operator, missing.contiguous())])
    return Eigenpairs(values.cpu().numpy(), vectors, residuals.cpu().numpy(), not bool(late.any()))


def _products(operator: SymmetricOperator, vectors: Tensor) -> Tensor:
    return torch.cat([operator.apply(few) for few in torch.split(vectors, operator.at_a_time)])


def _grown_until_converged(
    space: _KrylovSpace, block: Tensor, n_modes: int, which: str, tolerance: float
) -> tuple[Tensor, Tensor, bool]:
    """Grow a space until residuals suffice: values, their vectors in the basis, and whether they do."""
    next_look = 2 * (n_modes + len(block))
    while True:
        remainder = space.grow(block)
        full = space.room == 0
        if space.dimension >= next_look or full:
            values, rotations = space.leading(n_modes, which)
            residuals = torch.linalg.vector_norm(remainder.T @ rotations[-len(block) :], dim=0)
            met = bool((residuals <= tolerance * values.abs() + space.rounding).all())
            if met or full:
                return values, rotations, met
            next_look = space.dimension + max(len(block), space.dimension // 10)
        block = space.following(remainder)
