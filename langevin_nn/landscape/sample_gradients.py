"""The N×P matrix of sample gradients as an operator: one block a tensor, stored only where it must be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Block", "DenseBlock", "OuterProductBlock", "SampleGradients"]


# Gathered minibatches are worked through in pieces of at most this many numbers (32 MiB in float64).
_ELEMENTS_AT_A_TIME = 2**22


class Block(ABC):
    """The columns of one parameter tensor, in float64; G below is its N × p matrix."""

    path: str

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Number of columns."""

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """Return the squared norm of each row, shape (sample,)."""

    @abstractmethod
    def project(self, directions: Tensor) -> Tensor:
        """Return G Vᵀ for directions V of shape (direction, parameter): shape (sample, direction)."""

    @abstractmethod
    def combine(self, coefficients: Tensor) -> Tensor:
        """Return S G for coefficients S of shape (row, sample): shape (row, parameter)."""

    @abstractmethod
    def minibatch_squared_norms(self, indices: Tensor) -> Tensor:
        """Return the squared norm of the mean over the samples in each row of `indices`, shape (minibatch,)."""

    @abstractmethod
    def gram(self) -> Tensor:
        """Return G Gᵀ, shape (sample, sample)."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return G itself, shape (sample, parameter)."""


@dataclass(frozen=True)
class DenseBlock(Block):
    """Sample gradients that are stored.

    Parameters
    ----------
    matrix : Tensor, shape (sample, parameter)
        Float64.
    """

    matrix: Tensor
    path = "sample gradients"

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return self.matrix.shape[1]

    def squared_norms(self) -> Tensor:  # noqa: D102
        return self.matrix.square().sum(1)

    def project(self, directions: Tensor) -> Tensor:  # noqa: D102
        return self.matrix @ directions.T

    def combine(self, coefficients: Tensor) -> Tensor:  # noqa: D102
        return coefficients @ self.matrix

    def minibatch_squared_norms(self, indices: Tensor) -> Tensor:  # noqa: D102
        at_a_time = max(1, _ELEMENTS_AT_A_TIME // (indices.shape[1] * self.n_parameters))
        chunks = torch.split(indices, at_a_time)
        return torch.cat([self.matrix[rows].mean(1).square().sum(1) for rows in chunks])

    def gram(self) -> Tensor:  # noqa: D102
        return self.matrix @ self.matrix.T

    def dense(self) -> Tensor:  # noqa: D102
        return self.matrix


@dataclass(frozen=True)
class OuterProductBlock(Block):
    """Sample gradients δ_k a_kᵀ of a linear layer's weight matrix, never multiplied out.

    Parameters
    ----------
    signals : Tensor, shape (sample, output)
        Backpropagated signals δ, float64.
    activations : Tensor, shape (sample, input)
        Inputs a of the layer, float64.
    """

    signals: Tensor
    activations: Tensor
    path = "outer products"

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return self.signals.shape[1] * self.activations.shape[1]

    def squared_norms(self) -> Tensor:  # noqa: D102
        return self.signals.square().sum(1) * self.activations.square().sum(1)

    def project(self, directions: Tensor) -> Tensor:  # noqa: D102
        n_out, n_in = self.signals.shape[1], self.activations.shape[1]
        columns = [((self.signals @ v.view(n_out, n_in)) * self.activations).sum(1) for v in directions]
        return torch.stack(columns, dim=1)

    def combine(self, coefficients: Tensor) -> Tensor:  # noqa: D102
        rows = [((self.signals * c[:, None]).T @ self.activations).reshape(-1) for c in coefficients]
        return torch.stack(rows)

    def minibatch_squared_norms(self, indices: Tensor) -> Tensor:  # noqa: D102
        # ‖Σ δ_k a_kᵀ‖² is the sum of a minibatch's own little Gram matrix.
        size = indices.shape[1]
        gathered = size * (self.signals.shape[1] + self.activations.shape[1] + 2 * size)
        sums = []
        for rows in torch.split(indices, max(1, _ELEMENTS_AT_A_TIME // gathered)):
            signals, activations = self.signals[rows], self.activations[rows]
            sums.append(((signals @ signals.mT) * (activations @ activations.mT)).sum((1, 2)))
        return torch.cat(sums).clamp_min(0) / size**2

    def gram(self) -> Tensor:  # noqa: D102
        return (self.signals @ self.signals.T) * (self.activations @ self.activations.T)

    def dense(self) -> Tensor:  # noqa: D102
        return (self.signals[:, :, None] * self.activations[:, None, :]).flatten(1)


@dataclass(frozen=True)
class SampleGradients:
    """The gradients ∇ℓ_k of all samples at one point, as an N × P operator.

    Everything the gradient ensemble needs is a product with this matrix: weighted sums of rows, projections on
    directions, norms of rows, inner products of rows. Linear layers give them from activations and backpropagated
    signals without storing the matrix.

    Parameters
    ----------
    blocks : dict of str to Block
        The columns of each measured tensor, in the order of the parameters.

    Examples
    --------
    >>> gradients = SampleGradients({"w": DenseBlock(torch.eye(3, dtype=torch.float64))})
    >>> gradients.combine(torch.full((1, 3), 1 / 3, dtype=torch.float64))
    tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """

    blocks: Mapping[str, Block]

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> SampleGradients:
        """Wrap stored sample gradients.

        Parameters
        ----------
        matrix : Tensor, shape (sample, parameter)
            One gradient a row.

        Returns
        -------
        SampleGradients
            In float64.
        """
        return cls({"": DenseBlock(torch.as_tensor(matrix).double())})

    @property
    def paths(self) -> dict[str, str]:
        """How each tensor's sample gradients are held."""
        return {name: block.path for name, block in self.blocks.items()}

    @property
    def n_parameters(self) -> int:
        """Number of measured parameters."""
        return sum(block.n_parameters for block in self.blocks.values())

    def squared_norms(self) -> Tensor:
        """Return ‖∇ℓ_k‖².

        Returns
        -------
        Tensor, shape (sample,)
            Float64.
        """
        return torch.stack([block.squared_norms() for block in self.blocks.values()]).sum(0)

    def project(self, directions: Tensor) -> Tensor:
        """Return the inner products of sample gradients and directions.

        Parameters
        ----------
        directions : Tensor, shape (direction, parameter)
            Any vectors.

        Returns
        -------
        Tensor, shape (sample, direction)
            ∇ℓ_k · v.
        """
        sizes = [block.n_parameters for block in self.blocks.values()]
        pieces = torch.split(directions, sizes, dim=1)
        parts = [block.project(piece) for block, piece in zip(self.blocks.values(), pieces, strict=True)]
        return torch.stack(parts).sum(0)

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return weighted sums of sample gradients.

        Parameters
        ----------
        coefficients : Tensor, shape (row, sample)
            The c_k of each sum.

        Returns
        -------
        Tensor, shape (row, parameter)
            Σ_k c_k ∇ℓ_k.
        """
        return torch.cat([block.combine(coefficients) for block in self.blocks.values()], dim=1)

    def minibatch_squared_norms(self, indices: Tensor) -> Tensor:
        """Return ‖g^μ‖² without forming the minibatch gradients.

        Parameters
        ----------
        indices : Tensor of int, shape (minibatch, row)
            The samples of each minibatch.

        Returns
        -------
        Tensor, shape (minibatch,)
            Squared norms of their mean gradients.
        """
        return torch.stack([block.minibatch_squared_norms(indices) for block in self.blocks.values()]).sum(0)

    def gram(self) -> Tensor:
        """Return the inner products of all pairs of sample gradients.

        Returns
        -------
        Tensor, shape (sample, sample)
            K_ij = ∇ℓ_i · ∇ℓ_j.
        """
        total = torch.zeros(())
        for block in self.blocks.values():
            total = total + block.gram()
        return total

    def trace(self) -> Tensor:
        """Return Tr Σ, the summed variance of the sample gradients.

        Returns
        -------
        Tensor, shape ()
            Mean of ‖∇ℓ_k‖² less ‖ḡ‖².
        """
        norms = self.squared_norms()
        uniform = torch.full((1, len(norms)), 1 / len(norms), dtype=norms.dtype, device=norms.device)
        return (norms.mean() - self.combine(uniform).square().sum()).clamp_min(0)

    def dense(self) -> Tensor:
        """Return the matrix itself.

        Returns
        -------
        Tensor, shape (sample, parameter)
            One gradient a row, float64; takes 8·N·P bytes.
        """
        return torch.cat([block.dense() for block in self.blocks.values()], dim=1)
