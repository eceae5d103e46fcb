"""The columns of one layer in the N×P matrix of sample gradients, multiplied out only where they must be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["ELEMENTS_AT_A_TIME", "Block", "DenseBlock", "OuterProductBlock", "PositionBlock", "ScaledBlock", "pieces"]


# What is worked through in pieces takes at most this many numbers at a time (8 MiB in float64).
ELEMENTS_AT_A_TIME = 2**20
# Rows and columns of the pieces of a Gram matrix, small enough that a piece stays in the cache.
_TILE = 512
_SMALL_TILE = 64


def pieces(n: int, size: int, first: int = 0) -> Iterator[slice]:
    """Return slices of so many of n things, from one of them on."""
    size = max(1, size)
    return (slice(start, min(start + size, n)) for start in range(first, n, size))


class Block(ABC):
    """The columns of one layer's tensors; G below is its N × p matrix. All results are float64."""

    # Whatever is not done better is done by multiplying out a few rows at a time.

    path: str  # how they were computed
    tensors: Mapping[str, int]  # names of the measured tensors, with their numbers of parameters, as columns have them

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
        for piece in pieces(self.n_samples, 8 * ELEMENTS_AT_A_TIME // self.row_elements):
            rows = self.rows(piece)
            total.addmm_(rows.T, rows)
        return total

    def pieces(self) -> Iterator[slice]:
        """Yield slices of samples whose rows fit into a small piece of memory."""
        return pieces(self.n_samples, ELEMENTS_AT_A_TIME // self.row_elements)

    def squared_norms(self) -> Tensor:
        """Return the squared norm of each row, shape (sample,)."""
        # Results are written in place: what is kept between large pieces would keep their memory from being used again.
        norms = torch.empty(self.n_samples, dtype=torch.float64, device=self.device)
        for piece in self.pieces():
            norms[piece] = torch.linalg.vector_norm(self.rows(piece), dim=1).square_()
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
            total.addmm_(coefficients[:, piece], self.rows(piece))
        return total

    @property
    def gram_passes(self) -> float:
        """How often all rows are multiplied out for the inner products of all of them."""
        return 1.0

    def gram(self) -> Tensor:
        """Return the inner products of all rows, shape (sample, sample)."""
        gram = torch.empty(self.n_samples, self.n_samples, dtype=torch.float64, device=self.device)
        for mine in pieces(self.n_samples, self.tile):
            part = self.part(mine)
            gram[mine, mine] = part.own_products()
            for theirs in pieces(self.n_samples, self.tile, mine.stop):
                gram[mine, theirs] = part.products(self.part(theirs))
                gram[theirs, mine] = gram[mine, theirs].T
        return gram

    def own_products(self) -> Tensor:
        """Return the inner products of all rows, of as many as are worked through at once."""
        return self.products(self)

    def gram_and_sums(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inner products of all rows, and S G."""
        return self.gram(), self.combine(coefficients)

    def norms_and_sums(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared norm of each row, and S G, from rows that are multiplied out once."""
        norms = torch.empty(self.n_samples, dtype=torch.float64, device=self.device)
        total = coefficients.new_zeros(len(coefficients), self.n_parameters)
        for piece in self.pieces():
            rows = self.rows(piece)
            total.addmm_(coefficients[:, piece], rows)
            norms[piece] = torch.linalg.vector_norm(rows, dim=1).square_()
        return norms, total

    def minibatch_sums(self, indices: Tensor, out: Tensor) -> None:
        """Write the sum of the rows that each row of `indices` names into `out`, shape (minibatch, parameter)."""
        at_a_time = max(1, ELEMENTS_AT_A_TIME // self.row_elements)
        for total, drawn in zip(out, indices, strict=True):
            total.zero_()
            for few in drawn.split(at_a_time):
                total += self.rows(few).sum(0)

    def minibatch_squared_norms(self, indices: Tensor) -> Tensor:
        """Return the squared norm of the mean over the samples in each row of `indices`, shape (minibatch,)."""
        norms = torch.empty(len(indices), dtype=torch.float64, device=self.device)
        for piece in pieces(len(indices), ELEMENTS_AT_A_TIME // (indices.shape[1] * self.row_elements)):
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
    """Sample gradients that are stored, in the precision in which they came."""

    matrix: Tensor  # (sample, parameter)
    tensors: Mapping[str, int] = field(default_factory=dict)
    path: str = "sample gradients"

    def __post_init__(self) -> None:
        if not self.tensors:
            object.__setattr__(self, "tensors", {"": self.matrix.shape[1]})

    def rows(self, samples: slice | Tensor) -> Tensor:  # noqa: D102
        return self.matrix[samples].double()

    def own_products(self) -> Tensor:  # noqa: D102
        nothing = torch.empty(0, self.n_samples, dtype=torch.float64, device=self.device)
        return self.gram_and_sums(nothing)[0] if self.n_samples <= _TILE else self.products(self)

    def gram_and_sums(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        if (n := self.n_samples) > _TILE:
            return super().gram_and_sums(coefficients)
        gram = torch.zeros(n, n, dtype=torch.float64, device=self.device)
        sums = coefficients.new_empty(len(coefficients), self.n_parameters)
        for columns in pieces(self.n_parameters, ELEMENTS_AT_A_TIME // n):
            rows = self.matrix[:, columns].double()
            sums[:, columns] = coefficients @ rows
            for mine in pieces(n, _SMALL_TILE):  # each pair once, but for those within a tile
                gram[mine, : mine.stop].addmm_(rows[mine], rows[: mine.stop].T)
        return gram.tril_() + gram.tril(-1).T, sums

    def products(self, other: Block) -> Tensor:  # noqa: D102
        assert isinstance(other, DenseBlock)
        total = torch.zeros(self.n_samples, other.n_samples, dtype=torch.float64, device=self.device)
        for columns in pieces(self.n_parameters, ELEMENTS_AT_A_TIME // _TILE):
            total.addmm_(self.matrix[:, columns].double(), other.matrix[:, columns].double().T)
        return total

    @property
    def held(self) -> tuple[Tensor, ...]:  # noqa: D102
        return (self.matrix,)

    def holding(self, *held: Tensor) -> Block:  # noqa: D102
        return DenseBlock(held[0], self.tensors, self.path)


@dataclass(frozen=True)
class OuterProductBlock(Block):
    """Sample gradients δ_k a_kᵀ of a linear layer, never multiplied out; with a bias, those of [δ_k a_kᵀ, δ_k]."""

    signals: Tensor  # δ, (sample, output), float64
    activations: Tensor  # a, (sample, input), float64
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
        for piece in pieces(self.n_samples, ELEMENTS_AT_A_TIME // sum(total.shape)):
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

    def norms_and_sums(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.squared_norms(), self.combine(coefficients)

    def squared_sums(self) -> Tensor:  # noqa: D102
        signals = self.signals.square()
        products = (signals.T @ self.activations.square()).flatten()
        return torch.cat([products, signals.sum(0)]) if self._has_bias else products

    def project(self, directions: Tensor) -> Tensor:  # noqa: D102
        n_out, n_in = self.signals.shape[1], self.activations.shape[1]
        out = directions.new_empty(self.n_samples, len(directions))
        for piece in pieces(len(directions), ELEMENTS_AT_A_TIME // (self.n_samples * n_out)):
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
        for piece in pieces(len(coefficients), ELEMENTS_AT_A_TIME // (self.n_samples * n_out)):
            weighted = (coefficients[piece, :, None] * self.signals).permute(0, 2, 1).reshape(-1, self.n_samples)
            products = weighted @ self.activations
            out[piece, : n_out * self.activations.shape[1]] = products.view(-1, n_out * self.activations.shape[1])
        if self._has_bias:
            out[:, -n_out:] = coefficients @ self.signals
        return out

    def minibatch_sums(self, indices: Tensor, out: Tensor) -> None:  # noqa: D102
        n = self.signals.shape[1] * self.activations.shape[1]
        for total, drawn in zip(out, indices, strict=True):
            signals = self.signals[drawn]
            total[:n] = (signals.T @ self.activations[drawn]).flatten()
            if self._has_bias:
                total[n:] = signals.sum(0)

    def minibatch_squared_norms(self, indices: Tensor) -> Tensor:  # noqa: D102
        # ‖Σ δ_k a_kᵀ‖² is the sum of a minibatch's own little Gram matrix; of many samples the sum itself is smaller.
        size, n_out, n_in = indices.shape[1], self.signals.shape[1], self.activations.shape[1]
        by_samples = size * (n_out + n_in) <= n_out * n_in
        gathered = size * (n_out + n_in) + (2 * size**2 if by_samples else n_out * n_in)
        sums = self.signals.new_empty(len(indices))
        for piece in pieces(len(indices), ELEMENTS_AT_A_TIME // gathered):
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
    """Sample gradients Σ_t δ_kt a_ktᵀ of a layer that acts at several positions, as convolutions do."""

    # Rows are multiplied out when they are needed, since one row of a large layer takes more than its inputs and signals.

    signals: Tensor  # (sample, ...)
    activations: Tensor  # (sample, ...)
    multiply_out: Callable[[Tensor, Tensor], Tensor]  # (activations, signals) → rows
    elements: int  # numbers that this takes for one sample
    tensors: Mapping[str, int]
    room: int = 16 * ELEMENTS_AT_A_TIME  # how many numbers of rows may be held while inner products are computed
    path = "signals at positions"

    @property
    def row_elements(self) -> int:  # noqa: D102
        return self.elements + self.n_parameters

    @property
    def tile(self) -> int:  # noqa: D102
        # Rows are multiplied out for each pair of pieces.
        return min(_TILE, max(1, self.room // self.n_parameters))

    @property
    def gram_passes(self) -> float:  # noqa: D102
        return (1 + ceil(self.n_samples / self.tile)) / 2

    def rows(self, samples: slice | Tensor) -> Tensor:  # noqa: D102
        return self.multiply_out(self.activations[samples], self.signals[samples]).double()

    def part(self, samples: slice) -> Block:  # noqa: D102
        chosen = self.holding(*(tensor[samples] for tensor in self.held))
        rows = self.signals.new_empty(chosen.n_samples, self.n_parameters)
        for piece in chosen.pieces():
            rows[piece] = self.multiply_out(self.activations[samples][piece], self.signals[samples][piece])
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
    """The columns of another block, each times a number."""

    block: Block
    factors: Tensor  # (parameter,), float64

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

    @property
    def tile(self) -> int:  # noqa: D102
        return min(_TILE, max(1, 16 * ELEMENTS_AT_A_TIME // max(1, self.n_parameters)))

    @property
    def gram_passes(self) -> float:  # noqa: D102
        return (1 + ceil(self.n_samples / self.tile)) / 2

    def part(self, samples: slice) -> Block:  # noqa: D102
        return DenseBlock(self.block.rows(samples) * self.factors, self.tensors, self.path)

    def products(self, other: Block) -> Tensor:  # noqa: D102
        return self.part(slice(None)).products(other.part(slice(None)))
