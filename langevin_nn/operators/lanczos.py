"""Leading eigenpairs by block Lanczos, with a bound on the error of every eigenvalue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.errors import ConfigurationError
from langevin_nn.operators.base import SymmetricOperator

__all__ = ["Eigenpairs", "leading_eigenpairs"]


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
        to the neighbouring values found, less their own residuals.
        """
        n = len(self.values)
        if n < 2:
            return self.residuals.copy()
        distance = np.abs(np.diff(self.values)) - np.maximum(self.residuals[1:], self.residuals[:-1])
        gap = np.minimum(np.append(distance, np.inf), np.append(np.inf, distance))
        gap[-1] = np.minimum(gap[-1], distance[-1])  # the next one below is not known to be any farther
        with np.errstate(divide="ignore", invalid="ignore"):
            quadratic = np.where(gap > 0, self.residuals**2 / np.where(gap > 0, gap, 1), np.inf)
        rounding = np.finfo(np.float64).eps * self.vectors.shape[1] ** 0.5 * np.abs(self.values).max()
        errors: NDArray[np.float64] = np.minimum(self.residuals, quadratic + rounding)
        return errors


def _orthonormal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q with orthonormal rows and R with rows = R Q; where rows depend on one another, R is singular."""
    q, r = torch.linalg.qr(rows.T)
    return q.T.contiguous(), r.T


def _start(operator: SymmetricOperator, block_size: int, seed: int) -> Tensor:
    draws = np.random.Generator(np.random.Philox(seed)).standard_normal((block_size, operator.size))
    return _orthonormal(torch.as_tensor(draws, device=operator.device))[0]


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
    the relative residual.

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
        Vectors that are multiplied at a time; a larger block costs more products, in larger and faster ones.
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
    size = operator.size
    block_size = min(size, block_size or max(1, min(32, n_modes // 4)))
    limit = min(size, max(max_dimension or 8 * n_modes + 200, n_modes))
    basis = torch.empty(min(size, limit + block_size), size, dtype=torch.float64, device=operator.device)
    projected = torch.as_tensor(
        np.zeros((len(basis), len(basis))), device=operator.device
    )  # only what is used takes memory
    block, held = _start(operator, block_size, seed), 0
    next_look = min(limit, n_modes + 2 * block_size)
    while True:
        new = slice(held, held + len(block))
        basis[new] = block
        held = new.stop
        product = operator.apply(block)
        products_with_basis = product.new_zeros(len(block), held)
        for _ in range(2):
            part = product @ basis[:held].T
            product = product - part @ basis[:held]
            products_with_basis += part
        projected[new, :held] = products_with_basis
        projected[:held, new] = products_with_basis.T
        block, coupling = _orthonormal(product)
        exhausted = held >= size
        if held >= next_look or exhausted:
            values, rotations = torch.linalg.eigh(projected[:held, :held])
            chosen = _first(values, which, n_modes)
            last = rotations[new, :][:, chosen]
            residuals = torch.linalg.vector_norm(coupling.T @ last, dim=0) * (not exhausted)
            # Where products round, no residual is known to better than this.
            floor = torch.finfo(torch.float64).eps * size**0.5 * float(values.abs().max())
            met = bool((residuals <= tolerance * values[chosen].abs() + floor).all()) and held >= n_modes
            if met or exhausted or held >= limit:
                vectors = rotations[:, chosen].T @ basis[:held]
                bounds = (residuals + floor).cpu().numpy()
                return Eigenpairs(values[chosen].cpu().numpy(), vectors, bounds, met or exhausted)
            next_look = min(limit, held + max(block_size, held // 10))
        lost = torch.diagonal(coupling).abs() <= 1e-13 * float(projected[:held, :held].abs().max())
        if bool(lost.any()):
            block = _renewed(block, lost, basis[:held], seed + held)
        block = block[: size - held]


def _renewed(block: Tensor, lost: Tensor, basis: Tensor, seed: int) -> Tensor:
    """Return a block orthogonal to the basis, in which directions that the products did not reach are drawn anew."""
    block = block.clone()
    draws = np.random.Generator(np.random.Philox(seed + 1)).standard_normal((int(lost.sum()), block.shape[1]))
    block[lost] = torch.as_tensor(draws, device=block.device)
    for _ in range(2):
        block = _orthonormal(block - (block @ basis.T) @ basis)[0]
    return block
