"""The N×P matrix of sample gradients as an operator: one block a layer, multiplied out only where it must be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Block", "DenseBlock", "OuterProductBlock", "PositionBlock", "SampleGradients", "ScaledBlock"]


# What is worked through in pieces takes at most this many numbers at a time (8 MiB in float64).
_ELEMENTS_AT_A_TIME = 2**20
# Rows and columns of the pieces of a Gram matrix, small enough that a piece stays in the cache.
_TILE = 512


def _pieces(n: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


class Block(ABC):
    """The columns of one layer's tensors; G below is its N × p matrix. All results are float64.

    Whatever is not done better is done by multiplying out a few rows at a time.

    Parameters
    ----------
    tensors : dict of str to int
        Names of the layer's measured tensors with their numbers of parameters, in the order of the columns.
    """

    path: str
    tensors: Mapping[str, int]

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return len(self.held[0])

    @property
    def n_bytes(self) -> int:
        """Memory that it holds."""
        return sum(tensor.nbytes for tensor in self.held)

    @property
    def device(self) -> torch.device:
        """Where it is held."""
        return self.held[0].device

    @property
    def n_parameters(self) -> int:
        """Number of columns."""
        return sum(self.tensors.values())

    @abstractmethod
    def rows(self, samples: slice | Tensor) -> Tensor:
        """Return some rows of G, shape (row, parameter)."""

    @property
    @abstractmethod
    def held(self) -> tuple[Tensor, ...]:
        """What it holds, each of shape (sample, ...)."""

    @abstractmethod
    def holding(self, *held: Tensor) -> Block:
        """Return a block of this kind that holds something else, of any number of samples."""

    @property
    def row_elements(self) -> int:
        """Numbers that it takes to multiply out one row."""
        return self.n_parameters

    @property
    def pair_cost(self) -> int:
        """Multiplications for the inner product of two rows."""
        return self.n_parameters

    @property
    def tile(self) -> int:
        """Rows and columns of the pieces in which inner products of its rows are best computed."""
        return _TILE

    moment_cost: ClassVar[float] = 2.0  # operations a sample and entry of the second moments

    def second_moments(self) -> Tensor:
        """Return Gᵀ G, shape (parameter, parameter)."""
        total = torch.zeros(self.n_parameters, self.n_parameters, dtype=torch.float64, device=self.device)
        for piece in _pieces(self.n_samples, 8 * _ELEMENTS_AT_A_TIME // self.row_elements):
            rows = self.rows(piece)
            total.addmm_(rows.T, rows)
        return total

    def pieces(self) -> Iterator[slice]:
        """Yield slices of samples whose rows fit into a small piece of memory."""
        return _pieces(self.n_samples, _ELEMENTS_AT_A_TIME // self.row_elements)

    def squared_norms(self) -> Tensor:
        """Return the squared norm of each row, shape (sample,)."""
        # Results are written in place: what is kept between large pieces would keep their memory from being used again.
        norms = torch.empty(self.n_samples, dtype=torch.float64, device=self.device)
        for piece in self.pieces():
            norms[piece] = self.rows(piece).square().sum(1)
        return norms

    def squared_sums(self) -> Tensor:
        """Return the squared norm of each column, shape (parameter,)."""
        total = torch.zeros(self.n_parameters, dtype=torch.float64, device=self.device)
        for piece in self.pieces():
            total += self.rows(piece).square().sum(0)
        return total

    def project(self, directions: Tensor) -> Tensor:
        """Return G Vᵀ for directions V of shape (direction, parameter): shape (sample, direction)."""
        products = directions.new_empty(self.n_samples, len(directions))
        for piece in self.pieces():
            products[piece] = self.rows(piece) @ directions.T
        return products

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return S G for coefficients S of shape (row, sample): shape (row, parameter)."""
        total = coefficients.new_zeros(len(coefficients), self.n_parameters)
        for piece in self.pieces():
            total += coefficients[:, piece] @ self.rows(piece)
        return total

    def minibatch_squared_norms(self, indices: Tensor) -> Tensor:
        """Return the squared norm of the mean over the samples in each row of `indices`, shape (minibatch,)."""
        norms = torch.empty(len(indices), dtype=torch.float64, device=self.device)
        for piece in _pieces(len(indices), _ELEMENTS_AT_A_TIME // (indices.shape[1] * self.row_elements)):
            rows = self.rows(indices[piece].reshape(-1))
            norms[piece] = rows.view(-1, indices.shape[1], rows.shape[1]).mean(1).square().sum(1)
        return norms

    def part(self, samples: slice) -> Block:
        """Return the block of some samples, in the form in which inner products are computed."""
        return self.holding(*(tensor[samples] for tensor in self.held))

    @abstractmethod
    def products(self, other: Block) -> Tensor:
        """Return the inner products of all rows with those of another part of the same layer."""


@dataclass(frozen=True)
class DenseBlock(Block):
    """Sample gradients that are stored, in the precision in which they came.

    Parameters
    ----------
    matrix : Tensor, shape (sample, parameter)
        One gradient a row.
    tensors : dict of str to int, optional
        Names and sizes of the tensors.
    path : str, optional
        How they were computed.
    """

    matrix: Tensor
    tensors: Mapping[str, int] = field(default_factory=dict)
    path: str = "sample gradients"

    def __post_init__(self) -> None:
        if not self.tensors:
            object.__setattr__(self, "tensors", {"": self.matrix.shape[1]})

    def rows(self, samples: slice | Tensor) -> Tensor:  # noqa: D102
        return self.matrix[samples].double()

    def products(self, other: Block) -> Tensor:  # noqa: D102
        assert isinstance(other, DenseBlock)
        total = torch.zeros(self.n_samples, other.n_samples, dtype=torch.float64, device=self.device)
        for columns in _pieces(self.n_parameters, _ELEMENTS_AT_A_TIME // _TILE):
            total.addmm_(self.matrix[:, columns].double(), other.matrix[:, columns].double().T)
        return total

    @property
    def held(self) -> tuple[Tensor, ...]:  # noqa: D102
        return (self.matrix,)

    def holding(self, *held: Tensor) -> Block:  # noqa: D102
        return DenseBlock(held[0], self.tensors, self.path)


@dataclass(frozen=True)
class OuterProductBlock(Block):
    """Sample gradients δ_k a_kᵀ of a linear layer, never multiplied out; with a bias, those of [δ_k a_kᵀ, δ_k].

    Parameters
    ----------
    signals : Tensor, shape (sample, output)
        Backpropagated signals δ, float64.
    activations : Tensor, shape (sample, input)
        Inputs a of the layer, float64.
    tensors : dict of str to int, optional
        Names and sizes of the tensors: the weight, and the bias where it is measured, too.
    """

    signals: Tensor
    activations: Tensor
    tensors: Mapping[str, int] = field(default_factory=dict)
    path = "outer products"

    def __post_init__(self) -> None:
        if not self.tensors:
            object.__setattr__(self, "tensors", {"weight": self.signals.shape[1] * self.activations.shape[1]})

    @property
    def pair_cost(self) -> int:  # noqa: D102
        return self.signals.shape[1] + self.activations.shape[1]

    moment_cost: ClassVar[float] = 0.5

    def second_moments(self) -> Tensor:  # noqa: D102
        # Σ_k (δ_o δ_p)(a_i a_j) is symmetric in (o, p) and in (i, j): a quarter of the products suffices.
        ones = self.signals.new_ones(self.n_samples, int(self._has_bias))
        factors = [each.T.contiguous() for each in (self.signals, torch.cat([self.activations, ones], dim=1))]
        n_out, n_in = (len(each) for each in factors)
        pairs = [torch.triu_indices(n, n, device=self.device) for n in (n_out, n_in)]
        total = torch.zeros(pairs[0].shape[1], pairs[1].shape[1], dtype=torch.float64, device=self.device)
        for piece in _pieces(self.n_samples, _ELEMENTS_AT_A_TIME // sum(total.shape)):
            left, right = (each[i, piece] * each[j, piece] for each, (i, j) in zip(factors, pairs, strict=True))
            total.addmm_(left, right.T)
        of_out, of_in = (_places(n, each) for n, each in zip((n_out, n_in), pairs, strict=True))
        moments = total[of_out[:, None, :, None], of_in[None, :, None, :]].reshape(n_out * n_in, n_out * n_in)
        if not self._has_bias:
            return moments
        columns = torch.arange(n_out * n_in, device=self.device).view(n_out, n_in)
        order = torch.cat([columns[:, :-1].reshape(-1), columns[:, -1]])
        return moments[order[:, None], order]

    @property
    def _has_bias(self) -> bool:
        return len(self.tensors) == 2

    def rows(self, samples: slice | Tensor) -> Tensor:  # noqa: D102
        signals = self.signals[samples]
        products = (signals[:, :, None] * self.activations[samples][:, None, :]).flatten(1)
        return torch.cat([products, signals], dim=1) if self._has_bias else products

    @property
    def held(self) -> tuple[Tensor, ...]:  # noqa: D102
        return self.signals, self.activations

    def holding(self, *held: Tensor) -> Block:  # noqa: D102
        return OuterProductBlock(held[0], held[1], self.tensors)

    def squared_norms(self) -> Tensor:  # noqa: D102
        return self.signals.square().sum(1) * (self.activations.square().sum(1) + self._has_bias)

    def squared_sums(self) -> Tensor:  # noqa: D102
        signals = self.signals.square()
        products = (signals.T @ self.activations.square()).flatten()
        return torch.cat([products, signals.sum(0)]) if self._has_bias else products

    def project(self, directions: Tensor) -> Tensor:  # noqa: D102
        n_out, n_in = self.signals.shape[1], self.activations.shape[1]
        out = directions.new_empty(self.n_samples, len(directions))
        for piece in _pieces(len(directions), _ELEMENTS_AT_A_TIME // (self.n_samples * n_out)):
            few = directions[piece]
            # δᵀ(V a + b): the shorter of the two sides is multiplied by the directions.
            through = self.activations @ few[:, : n_out * n_in].reshape(-1, n_in).T
            through = through.view(self.n_samples, len(few), n_out)
            if self._has_bias:
                through += few[:, n_out * n_in :]
            out[:, piece] = (through @ self.signals[:, :, None])[:, :, 0]
        return out

    def combine(self, coefficients: Tensor) -> Tensor:  # noqa: D102
        n_out = self.signals.shape[1]
        out = coefficients.new_empty(len(coefficients), self.n_parameters)
        for piece in _pieces(len(coefficients), _ELEMENTS_AT_A_TIME // (self.n_samples * n_out)):
            weighted = (coefficients[piece, :, None] * self.signals).permute(0, 2, 1).reshape(-1, self.n_samples)
            products = weighted @ self.activations
            out[piece, : n_out * self.activations.shape[1]] = products.view(-1, n_out * self.activations.shape[1])
        if self._has_bias:
            out[:, -n_out:] = coefficients @ self.signals
        return out

    def minibatch_squared_norms(self, indices: Tensor) -> Tensor:  # noqa: D102
        # ‖Σ δ_k a_kᵀ‖² is the sum of a minibatch's own little Gram matrix; of many samples the sum itself is smaller.
        size, n_out, n_in = indices.shape[1], self.signals.shape[1], self.activations.shape[1]
        by_samples = size * (n_out + n_in) <= n_out * n_in
        gathered = size * (n_out + n_in) + (2 * size**2 if by_samples else n_out * n_in)
        sums = self.signals.new_empty(len(indices))
        for piece in _pieces(len(indices), _ELEMENTS_AT_A_TIME // gathered):
            signals, activations = self.signals[indices[piece]], self.activations[indices[piece]]
            if by_samples:
                products = activations @ activations.mT
                sums[piece] = ((signals @ signals.mT) * (products + self._has_bias)).sum((1, 2))
            else:
                sums[piece] = (signals.mT @ activations).square().sum((1, 2))
                if self._has_bias:
                    sums[piece] += signals.sum(1).square().sum(1)
        return sums.clamp_min(0) / size**2

    def products(self, other: Block) -> Tensor:  # noqa: D102
        assert isinstance(other, OuterProductBlock)
        products = self.activations @ other.activations.T
        if self._has_bias:
            products += 1
        return products.mul_(self.signals @ other.signals.T)


def _places(n: int, pairs: Tensor) -> Tensor:
    """Return where each pair of n things stands in a list of pairs, in either order, shape (n, n)."""
    places = torch.empty(n, n, dtype=torch.int64, device=pairs.device)
    places[pairs[0], pairs[1]] = places[pairs[1], pairs[0]] = torch.arange(pairs.shape[1], device=pairs.device)
    return places


@dataclass(frozen=True)
class PositionBlock(Block):
    """Sample gradients Σ_t δ_kt a_ktᵀ of a layer that acts at several positions, as convolutions do.

    Rows are multiplied out when they are needed, since one row of a large layer takes more than its inputs and signals.

    Parameters
    ----------
    signals : Tensor, shape (sample, ...)
        Backpropagated signals, as the layer's output.
    activations : Tensor, shape (sample, ...)
        Inputs of the layer.
    multiply_out : callable
        (activations, signals) → rows, shape (sample, parameter).
    elements : int
        Numbers that this takes for one sample.
    tensors : dict of str to int
        Names and sizes of the tensors.
    """

    signals: Tensor
    activations: Tensor
    multiply_out: Callable[[Tensor, Tensor], Tensor]
    elements: int
    tensors: Mapping[str, int]
    path = "signals at positions"

    @property
    def row_elements(self) -> int:  # noqa: D102
        return self.elements + self.n_parameters

    @property
    def tile(self) -> int:  # noqa: D102
        return min(
            _TILE, max(8, 4 * _ELEMENTS_AT_A_TIME // self.row_elements)
        )  # rows are multiplied out for each piece

    def rows(self, samples: slice | Tensor) -> Tensor:  # noqa: D102
        return self.multiply_out(self.activations[samples], self.signals[samples]).double()

    def part(self, samples: slice) -> Block:  # noqa: D102
        rows = self.multiply_out(self.activations[samples], self.signals[samples])
        return DenseBlock(rows, self.tensors, self.path)

    def products(self, other: Block) -> Tensor:  # noqa: D102
        everything = slice(0, None)
        return self.part(everything).products(other.part(everything))

    @property
    def held(self) -> tuple[Tensor, ...]:  # noqa: D102
        return self.signals, self.activations

    def holding(self, *held: Tensor) -> Block:  # noqa: D102
        return replace(self, signals=held[0], activations=held[1])


@dataclass(frozen=True)
class ScaledBlock(Block):
    """The columns of another block, each times a number.

    Parameters
    ----------
    block : Block
        What is scaled.
    factors : Tensor, shape (parameter,)
        One a column, float64.
    """

    block: Block
    factors: Tensor

    @property
    def path(self) -> str:  # type: ignore[override]
        """That of the block."""
        return self.block.path

    @property
    def tensors(self) -> Mapping[str, int]:  # type: ignore[override]
        """Those of the block."""
        return self.block.tensors

    @property
    def row_elements(self) -> int:  # noqa: D102
        return self.block.row_elements

    @property
    def held(self) -> tuple[Tensor, ...]:  # noqa: D102
        return self.block.held

    def holding(self, *held: Tensor) -> Block:  # noqa: D102
        return ScaledBlock(self.block.holding(*held), self.factors)

    def rows(self, samples: slice | Tensor) -> Tensor:  # noqa: D102
        return self.block.rows(samples) * self.factors

    def squared_sums(self) -> Tensor:  # noqa: D102
        return self.block.squared_sums() * self.factors.square()

    def project(self, directions: Tensor) -> Tensor:  # noqa: D102
        return self.block.project(directions * self.factors)

    def combine(self, coefficients: Tensor) -> Tensor:  # noqa: D102
        return self.block.combine(coefficients) * self.factors

    def products(self, other: Block) -> Tensor:  # noqa: D102
        return self.rows(slice(None)) @ other.rows(slice(None)).T


class SampleGradients:
    """The gradients ∇ℓ_k of all samples at one point, as an N × P operator.

    Everything the gradient ensemble needs is a product with this matrix: weighted sums of rows, projections on
    directions, norms of rows, inner products of rows. Linear layers give them from activations and backpropagated
    signals without storing the matrix. All results are float64.

    Parameters
    ----------
    blocks : dict of str to Block
        The columns of each layer, by name of the layer.
    order : sequence of str, optional
        Names of all tensors in the order of the parameters; that of the blocks unless said.
    losses : Tensor, shape (sample,), optional
        ℓ_k, where they came along.

    Examples
    --------
    >>> gradients = SampleGradients({"w": DenseBlock(torch.eye(3, dtype=torch.float64))})
    >>> gradients.combine(torch.full((1, 3), 1 / 3, dtype=torch.float64))
    tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """

    def __init__(
        self, blocks: Mapping[str, Block], order: Sequence[str] | None = None, losses: Tensor | None = None
    ) -> None:
        self.blocks = dict(blocks)
        self._order = tuple(order) if order is not None else None
        self._losses = losses

    @property
    def losses(self) -> Tensor | None:
        """ℓ_k of each sample where they are known, shape (sample,)."""
        return self._losses

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
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self.blocks)

    @property
    def paths(self) -> dict[str, str]:
        """How the sample gradients of each tensor are computed, by name of the tensor, in the order of the parameters."""
        paths = {name: block.path for block in self.blocks.values() for name in block.tensors}
        return paths if self._order is None else {name: paths[name] for name in self._order}

    @property
    def n_samples(self) -> int:
        """N."""
        return next(iter(self.blocks.values())).n_samples

    @property
    def n_parameters(self) -> int:
        """Number of measured parameters."""
        return sum(block.n_parameters for block in self.blocks.values())

    @property
    def n_bytes(self) -> int:
        """Memory that the matrix's representation holds."""
        return sum(block.n_bytes for block in self.blocks.values())

    @property
    def n_pieces(self) -> int:
        """In how many pieces they are computed anew at each use; 1 where they are held."""
        return 1

    @property
    def pair_cost(self) -> float:
        """Operations for the inner product of two sample gradients, half of them saved by symmetry."""
        return float(sum(block.pair_cost for block in self.blocks.values()))

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return next(iter(self.blocks.values())).device

    @cached_property
    def _columns(self) -> dict[str, slice | Tensor]:
        """Positions of each layer's parameters among all: a slice where they are contiguous."""
        sizes = {(layer, name): n for layer, block in self.blocks.items() for name, n in block.tensors.items()}
        order = list(sizes)
        if self._order is not None:
            order.sort(key=lambda pair: self._order.index(pair[1]))  # type: ignore[union-attr]
        starts, start = {}, 0
        for pair in order:
            starts[pair], start = start, start + sizes[pair]
        columns: dict[str, slice | Tensor] = {}
        for layer, block in self.blocks.items():
            pieces = [range(starts[layer, name], starts[layer, name] + n) for name, n in block.tensors.items()]
            if all(one.stop == other.start for one, other in pairwise(pieces)):
                columns[layer] = slice(pieces[0].start, pieces[-1].stop)
            else:
                columns[layer] = torch.cat([torch.arange(p.start, p.stop, device=self.device) for p in pieces])
        return columns

    def split(self, vectors: Tensor) -> dict[str, Tensor]:
        """Return the part of vectors that belongs to each layer.

        Parameters
        ----------
        vectors : Tensor, shape (row, parameter)
            Gradients, directions.

        Returns
        -------
        dict of str to Tensor, shapes (row, parameter of the layer)
            By name of the layer.
        """
        return {layer: vectors[:, columns] for layer, columns in self._columns.items()}

    def squared_norms(self) -> Tensor:
        """Return ‖∇ℓ_k‖².

        Returns
        -------
        Tensor, shape (sample,)
            Float64.
        """
        return self.squared_norms_by_layer().sum(0)

    def squared_norms_by_layer(self) -> Tensor:
        """Return ‖∇ℓ_k‖² within each layer.

        Returns
        -------
        Tensor, shape (layer, sample)
            Their sum over layers is that of the whole gradient.
        """
        return torch.stack([block.squared_norms() for block in self.blocks.values()])

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
        return self.project_by_layer(directions).sum(0)

    def project_by_layer(self, directions: Tensor) -> Tensor:
        """Return the inner products within each layer.

        Parameters
        ----------
        directions : Tensor, shape (direction, parameter)
            Any vectors.

        Returns
        -------
        Tensor, shape (layer, sample, direction)
            Their sum over layers is ∇ℓ_k · v.
        """
        parts = self.split(directions)
        return torch.stack([block.project(parts[name].contiguous()) for name, block in self.blocks.items()])

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
        total = coefficients.new_empty(len(coefficients), self.n_parameters)
        for name, block in self.blocks.items():
            total[:, self._columns[name]] = block.combine(coefficients)
        return total

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

    def cross_gram(self, other: SampleGradients, out: Tensor) -> None:
        """Write the inner products with the sample gradients of others, in pieces that stay in the cache.

        Parameters
        ----------
        other : SampleGradients
            Of the same layers.
        out : Tensor, shape (sample, other sample)
            Where to write; of a symmetric matrix the upper half is computed and mirrored.
        """
        tile = min(block.tile for block in self.blocks.values())
        for mine in _pieces(out.shape[0], tile):
            parts = {name: block.part(mine) for name, block in self.blocks.items()}
            for theirs in _pieces(out.shape[1], tile):
                if other is self and theirs.start < mine.start:
                    continue
                products = (part.products(other.blocks[name].part(theirs)) for name, part in parts.items())
                out[mine, theirs] = reduce(Tensor.add_, products)
                if other is self and theirs.start > mine.start:
                    out[theirs, mine] = out[mine, theirs].T

    def gram(self) -> Tensor:
        """Return the inner products of all pairs of sample gradients.

        Returns
        -------
        Tensor, shape (sample, sample)
            K_ij = ∇ℓ_i · ∇ℓ_j.
        """
        out = torch.empty(self.n_samples, self.n_samples, dtype=torch.float64, device=self.device)
        self.cross_gram(self, out)
        return out

    @property
    def moment_cost(self) -> float:
        """Operations a sample and entry of `second_moments`."""
        return next(iter(self.blocks.values())).moment_cost if len(self.blocks) == 1 else Block.moment_cost

    def second_moments(self) -> Tensor:
        """Return Σ_k ∇ℓ_k ∇ℓ_kᵀ.

        Returns
        -------
        Tensor, shape (parameter, parameter)
            Takes 8·P² bytes.
        """
        if len(self.blocks) == 1:
            return next(iter(self.blocks.values())).second_moments()
        p = self.n_parameters
        total = torch.zeros(p, p, dtype=torch.float64, device=self.device)
        for piece in _pieces(self.n_samples, 8 * _ELEMENTS_AT_A_TIME // p):
            rows = self.rows(piece)
            total.addmm_(rows.T, rows)
        return total

    def rows(self, samples: slice | Tensor) -> Tensor:
        """Return some sample gradients.

        Parameters
        ----------
        samples : slice or Tensor of int
            Which.

        Returns
        -------
        Tensor, shape (row, parameter)
            One gradient a row, float64.
        """
        parts = {name: block.rows(samples) for name, block in self.blocks.items()}
        first = next(iter(parts.values()))
        out = first.new_empty(len(first), self.n_parameters)
        for name, part in parts.items():
            out[:, self._columns[name]] = part
        return out

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

    def squared_sums(self) -> Tensor:
        """Return Σ_k (∇ℓ_k)_i².

        Returns
        -------
        Tensor, shape (parameter,)
            The diagonal of `second_moments`, which is not formed.
        """
        total = torch.empty(self.n_parameters, dtype=torch.float64, device=self.device)
        for name, block in self.blocks.items():
            total[self._columns[name]] = block.squared_sums()
        return total

    def variances(self) -> Tensor:
        """Return the diagonal of Σ, the variance of each component of the sample gradients.

        Returns
        -------
        Tensor, shape (parameter,)
            Its sum is `trace`.
        """
        uniform = torch.full((1, self.n_samples), 1 / self.n_samples, dtype=torch.float64, device=self.device)
        return (self.squared_sums() / self.n_samples - self.combine(uniform)[0].square()).clamp_min(0)

    def scaled(self, factors: Tensor) -> SampleGradients:
        """Return the same gradients in other units, each component times a number.

        Parameters
        ----------
        factors : Tensor, shape (parameter,)
            One a component.

        Returns
        -------
        SampleGradients
            Held as these are.
        """
        parts = self.split(factors.to(self.device).double()[None])
        blocks = {name: ScaledBlock(block, parts[name][0]) for name, block in self.blocks.items()}
        return SampleGradients(blocks, self._order, self._losses)

    def dense(self) -> Tensor:
        """Return the matrix itself.

        Returns
        -------
        Tensor, shape (sample, parameter)
            One gradient a row, float64; takes 8·N·P bytes.
        """
        return self.rows(slice(None))
