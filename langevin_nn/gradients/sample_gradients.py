"""The N×P matrix of sample gradients as an operator: products with it, from one block a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, reduce
from itertools import pairwise

import torch
from torch import Tensor

from langevin_nn.gradients.blocks import (
    ELEMENTS_AT_A_TIME,
    Block,
    DenseBlock,
    OuterProductBlock,
    ScaledBlock,
    pieces,
)

__all__ = ["SampleGradients", "shares_of"]

# Of so few samples, whose gradients are no outer products, everything comes from the Gram matrices of the layers: they take
# about as long as two passes over the rows; of twice as many where each pass multiplies them out, unless tiles are so small
# that it takes more such passes than this.
_FEW_SAMPLES = 256
_MOST_GRAM_PASSES = 3.0


def shares_of(indices: Tensor, n_samples: int) -> Tensor:
    """Return what each sample counts in the mean over each row of `indices`, shape (minibatch, sample)."""
    shares = torch.zeros(len(indices), n_samples, dtype=torch.float64, device=indices.device)
    return shares.scatter_add_(1, indices, torch.full_like(indices, 1 / indices.shape[1], dtype=torch.float64))


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
    room : int, optional
        Bytes that sums of rows may take beside.

    Examples
    --------
    >>> gradients = SampleGradients({"w": DenseBlock(torch.eye(3, dtype=torch.float64))})
    >>> gradients.combine(torch.full((1, 3), 1 / 3, dtype=torch.float64))
    tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """

    def __init__(
        self,
        blocks: Mapping[str, Block],
        order: Sequence[str] | None = None,
        losses: Tensor | None = None,
        room: int = 2**28,
    ) -> None:
        self.blocks = dict(blocks)
        self._order = tuple(order) if order is not None else None
        self._losses, self._room = losses, room
        self._grams: Tensor

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
        """Memory that the matrix's representation holds, and Gram matrices that are kept."""
        kept: int = sum(self.__dict__[name].nbytes for name in ("_grams", "_kept_gram") if name in self.__dict__)
        return kept + sum(block.n_bytes for block in self.blocks.values())

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
        if not self.knows_gram:
            return torch.stack([block.minibatch_squared_norms(indices) for block in self.blocks.values()]).sum(0)
        sums = torch.empty(len(indices), dtype=torch.float64, device=self.device)
        for piece in pieces(len(indices), 16 * ELEMENTS_AT_A_TIME // indices.shape[1] ** 2):
            few = indices[piece]
            sums[piece] = self._kept_gram[few[:, :, None], few[:, None, :]].sum((1, 2))
        return sums.clamp_min(0) / indices.shape[1] ** 2

    @property
    def _has_outer_products_alone(self) -> bool:
        inner = (block.block if isinstance(block, ScaledBlock) else block for block in self.blocks.values())
        return all(isinstance(block, OuterProductBlock) for block in inner)

    @property
    def _has_few(self) -> bool:
        """Whether there are so few samples that everything comes from their Gram matrices with least work."""
        if self._has_outer_products_alone or 8 * len(self.blocks) * self.n_samples**2 > self._room:
            return False
        passes = self._gram_passes
        return self.n_samples <= _FEW_SAMPLES * (1 if passes == 1 else 2) and passes <= _MOST_GRAM_PASSES

    @property
    def _gram_passes(self) -> float:
        """How often the rows of all samples are multiplied out for Gram matrices, over all layers."""
        parts = ((block.gram_passes, block.n_parameters) for block in self.blocks.values())
        return sum(passes * n for passes, n in parts) / self.n_parameters

    def _keep_grams(self, coefficients: Tensor) -> Tensor:
        """Keep the Gram matrix of each layer, and return weighted sums of rows, all from one pass."""
        n, sums = self.n_samples, coefficients.new_empty(len(coefficients), self.n_parameters)
        grams = torch.empty(len(self.blocks), n, n, dtype=torch.float64, device=self.device)
        for layer, (name, block) in enumerate(self.blocks.items()):
            grams[layer], sums[:, self._columns[name]] = block.gram_and_sums(coefficients)
        self._grams = grams
        return sums

    @property
    def holding_limit(self) -> int:
        """The `memory_limit` from which on the gradients of all samples are held, in bytes."""
        return 2 * self.n_bytes

    def first(self, n_samples: int) -> SampleGradients:
        """Return the gradients of the first samples.

        Parameters
        ----------
        n_samples : int
            How many.

        Returns
        -------
        SampleGradients
            Held.
        """
        blocks = {
            name: block.holding(*(each[:n_samples] for each in block.held)) for name, block in self.blocks.items()
        }
        return SampleGradients(blocks, self._order)

    def passes(self, n_minibatches: int, batch_size: int) -> float:
        """Return about how often the rows of all samples are gone through for order parameters with R.

        Parameters
        ----------
        n_minibatches : int
            From how many R is estimated; 0 where it is not.
        batch_size : int
            Samples in each.

        Returns
        -------
        float
            A pass that also computes Gram matrices counts twice.
        """
        if self.knows_gram:
            return 1.0
        if self._has_few:
            return 1.0 + self._gram_passes
        drawn = n_minibatches * batch_size / self.n_samples
        by_sums = 8 * n_minibatches * self.n_parameters <= self._room or self._has_outer_products_alone
        return 2.0 + drawn + (0.0 if by_sums or not n_minibatches else 2.0)

    @property
    def knows_gram(self) -> bool:
        """Whether the Gram matrix has been computed."""
        return not {"_kept_gram", "_grams"}.isdisjoint(self.__dict__)

    def minibatch_gradients(self, indices: Tensor) -> Tensor | None:
        """Return minibatch gradients, where there is room for them and they are less work than their inner products.

        Parameters
        ----------
        indices : Tensor of int, shape (minibatch, row)
            The samples of each minibatch.

        Returns
        -------
        Tensor or None, shape (minibatch, parameter)
            Their mean gradients; None where Gram matrices of minibatches, or of all samples, are the better way.
        """
        if self.knows_gram or self._has_outer_products_alone or 8 * len(indices) * self.n_parameters > self._room:
            return None
        return self._minibatch_gradients(indices)

    def _minibatch_gradients(self, indices: Tensor) -> Tensor:
        sums = torch.empty(len(indices), self.n_parameters, dtype=torch.float64, device=self.device)
        for name, block in self.blocks.items():
            columns = self._columns[name]
            if isinstance(columns, slice):
                block.minibatch_sums(indices, sums[:, columns])
            else:
                of_layer = sums.new_empty(len(indices), block.n_parameters)
                block.minibatch_sums(indices, of_layer)
                sums[:, columns] = of_layer
        return sums.div_(indices.shape[1])

    @cached_property
    def _kept_gram(self) -> Tensor:
        return self._grams.sum(0) if "_grams" in self.__dict__ else self._gram()

    def sums_with_each_by_layer(self, coefficients: Tensor, sums: Tensor) -> Tensor:
        """Return the inner products of sample gradients with weighted sums of them within each layer.

        Parameters
        ----------
        coefficients : Tensor, shape (row, sample)
            The c_k of each sum.
        sums : Tensor, shape (row, parameter)
            The sums themselves, as of `combine`.

        Returns
        -------
        Tensor, shape (layer, sample, row)
            Their sum over layers is that of the whole gradient.
        """
        if "_grams" in self.__dict__:
            return self._grams @ coefficients.T
        return self.project_by_layer(sums)

    def sums_with_each(self, coefficients: Tensor) -> Tensor:
        """Return the inner products of sample gradients with weighted sums of them.

        Parameters
        ----------
        coefficients : Tensor, shape (row, sample)
            The c_k of each sum.

        Returns
        -------
        Tensor, shape (sample, row)
            ∇ℓ_j · Σ_k c_k ∇ℓ_k.
        """
        return self._kept_gram @ coefficients.T if self.knows_gram else self.project(self.combine(coefficients))

    def norms_and_sums(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return squared norms within each layer and weighted sums, in one pass where gradients are computed anew.

        Parameters
        ----------
        coefficients : Tensor, shape (row, sample)
            The c_k of each sum.

        Returns
        -------
        norms : Tensor, shape (layer, sample)
            As of `squared_norms_by_layer`.
        sums : Tensor, shape (row, parameter)
            As of `combine`.
        """
        if self._has_few:
            sums = self.combine(coefficients) if "_grams" in self.__dict__ else self._keep_grams(coefficients)
            return self._grams.diagonal(dim1=1, dim2=2), sums
        total, norms = coefficients.new_empty(len(coefficients), self.n_parameters), []
        for name, block in self.blocks.items():
            of_layer, total[:, self._columns[name]] = block.norms_and_sums(coefficients)
            norms.append(of_layer)
        return torch.stack(norms), total

    def cross_gram(self, other: SampleGradients, out: Tensor) -> None:
        """Write the inner products with the gradients of others into `out`, for each layer where it has a row for each."""
        # Of a symmetric matrix the upper half is computed and mirrored.
        tile = min(block.tile for block in self.blocks.values())
        for mine in pieces(out.shape[-2], tile):
            parts = {name: block.part(mine) for name, block in self.blocks.items()}
            for theirs in pieces(out.shape[-1], tile):
                if other is self and theirs.start < mine.start:
                    continue
                products = (part.products(other.blocks[name].part(theirs)) for name, part in parts.items())
                if out.ndim == 3:
                    for layer, each in enumerate(products):
                        out[layer, mine, theirs] = each
                    continue
                out[mine, theirs] = reduce(Tensor.add_, products)
                if other is self and theirs.start > mine.start:
                    out[theirs, mine] = out[mine, theirs].T

    def grams_by_layer(self) -> Tensor:
        """Return the inner products of all pairs of sample gradients within each layer.

        Returns
        -------
        Tensor, shape (layer, sample, sample)
            Their sum over layers is `gram`.
        """
        if "_grams" not in self.__dict__:
            self._keep_grams(torch.empty(0, self.n_samples, dtype=torch.float64, device=self.device))
        return self._grams

    def gram(self) -> Tensor:
        """Return the inner products of all pairs of sample gradients.

        Returns
        -------
        Tensor, shape (sample, sample)
            K_ij = ∇ℓ_i · ∇ℓ_j.
        """
        return self._kept_gram.clone() if self.knows_gram else self._gram()

    def _gram(self) -> Tensor:
        if not self._has_outer_products_alone:  # layer by layer, as many rows at a time as each has room for
            return reduce(Tensor.add_, (block.gram() for block in self.blocks.values()))
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
        for piece in pieces(self.n_samples, 8 * ELEMENTS_AT_A_TIME // p):
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
        return SampleGradients(blocks, self._order, self._losses, self._room)

    def dense(self) -> Tensor:
        """Return the matrix itself.

        Returns
        -------
        Tensor, shape (sample, parameter)
            One gradient a row, float64; takes 8·N·P bytes.
        """
        return self.rows(slice(None))
