"""Sample gradients that are computed anew at every use, where they do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients.blocks import SampleGradients
from langevin_nn.gradients.signals import SampleGradientSource
from langevin_nn.memory import as_text

__all__ = ["Footprint", "StreamedSampleGradients", "within_memory"]


class StreamedSampleGradients(SampleGradients):
    """Gradients of which only those of a few samples are in memory at a time.

    Every product is a pass over the data. Results agree with those of `SampleGradients` to rounding.

    Parameters
    ----------
    source : SampleGradientSource
        Computes the gradients of some samples.
    at_a_time : int
        How many.
    memory_limit : int
        Bytes that minibatch gradients may take beside them.
    factors : Tensor, shape (parameter,), optional
        By which each component is multiplied; none unless said.
    """

    def __init__(
        self, source: SampleGradientSource, at_a_time: int, memory_limit: int, factors: Tensor | None = None
    ) -> None:
        few = source(slice(0, 1))
        super().__init__(few.blocks, source.names)
        self._factors = factors
        self._source, self.at_a_time, self._memory_limit = source, at_a_time, memory_limit

    @property
    def n_samples(self) -> int:  # noqa: D102
        return self._source.n_samples

    @property
    def n_pieces(self) -> int:  # noqa: D102
        return -(-self.n_samples // self.at_a_time)

    @property
    def losses(self) -> Tensor | None:  # noqa: D102
        pieces = [self._source.losses(samples) for samples in self._slices_of_samples()]
        return torch.cat(pieces)

    @property
    def paths(self) -> dict[str, str]:  # noqa: D102
        return {name: f"{path}, in pieces of {self.at_a_time} samples" for name, path in super().paths.items()}

    def _slices_of_samples(self, start: int = 0) -> Iterator[slice]:
        for first in range(start, self.n_samples, self.at_a_time):
            yield slice(first, min(first + self.at_a_time, self.n_samples))

    def _streamed(self, start: int = 0) -> Iterator[tuple[slice, SampleGradients]]:
        return ((samples, self._piece(samples)) for samples in self._slices_of_samples(start))

    def _piece(self, samples: slice | Tensor) -> SampleGradients:
        piece = self._source(samples)
        return piece if self._factors is None else piece.scaled(self._factors)

    def scaled(self, factors: Tensor) -> SampleGradients:  # noqa: D102
        factors = factors if self._factors is None else self._factors * factors
        return StreamedSampleGradients(self._source, self.at_a_time, self._memory_limit, factors)

    def squared_norms_by_layer(self) -> Tensor:  # noqa: D102
        return torch.cat([piece.squared_norms_by_layer() for _, piece in self._streamed()], dim=1)

    def project_by_layer(self, directions: Tensor) -> Tensor:  # noqa: D102
        return torch.cat([piece.project_by_layer(directions) for _, piece in self._streamed()], dim=1)

    def combine(self, coefficients: Tensor) -> Tensor:  # noqa: D102
        total = coefficients.new_zeros(len(coefficients), self.n_parameters)
        for samples, piece in self._streamed():
            total += piece.combine(coefficients[:, samples])
        return total

    def minibatch_squared_norms(self, indices: Tensor) -> Tensor:  # noqa: D102
        # Minibatches cross the pieces, so their gradients are summed up, as many at a time as memory allows.
        at_a_time = max(1, self._memory_limit // (8 * self.n_parameters))
        norms = []
        for few in torch.split(indices, at_a_time):
            coefficients = torch.zeros(len(few), self.n_samples, dtype=torch.float64, device=indices.device)
            coefficients.scatter_add_(1, few, torch.full_like(few, 1 / few.shape[1], dtype=torch.float64))
            norms.append(self.combine(coefficients).square().sum(1))
        return torch.cat(norms)

    def gram(self) -> Tensor:  # noqa: D102
        out = torch.empty(self.n_samples, self.n_samples, dtype=torch.float64, device=self.device)
        for mine, piece in self._streamed():
            piece.cross_gram(piece, out[mine, mine])
            for theirs, other in self._streamed(mine.stop):
                piece.cross_gram(other, out[mine, theirs])
                out[theirs, mine] = out[mine, theirs].T
        return out

    def second_moments(self) -> Tensor:  # noqa: D102
        total = torch.zeros(self.n_parameters, self.n_parameters, dtype=torch.float64, device=self.device)
        for _, piece in self._streamed():
            total += piece.second_moments()
        return total

    def squared_sums(self) -> Tensor:  # noqa: D102
        pieces = (piece.squared_sums() for _, piece in self._streamed())
        return sum(pieces, torch.zeros(self.n_parameters, dtype=torch.float64, device=self.device))

    def rows(self, samples: slice | Tensor) -> Tensor:  # noqa: D102
        return self._piece(samples).rows(slice(None))


@dataclass(frozen=True)
class Footprint:
    """What the sample gradients of a network take, in bytes.

    Parameters
    ----------
    held : float
        What is kept of each sample: activations and signals, or its gradient.
    graph : float
        What autograd keeps of each sample for the backward pass.
    slow : float
        What is kept of each sample for tensors without a fast path.
    n_parameters : int
        Measured parameters.
    stored : bool
        Whether gradients are held rather than what they are made of.
    """

    held: float
    graph: float
    slow: float
    n_parameters: int
    stored: bool

    @classmethod
    def of(cls, source: SampleGradientSource, memory_limit: int) -> Footprint:
        """Measure it on two samples.

        Parameters
        ----------
        source : SampleGradientSource
            The network at any point.
        memory_limit : int
            Bytes; gradients are held where all of them take at most half of it.

        Returns
        -------
        Footprint
            The same at all points, so that it can be kept.
        """
        few = slice(0, min(2, source.n_samples))
        probe = replace(source, vectorised=few.stop, stored=True)(few)
        stored = probe.n_bytes / few.stop * source.n_samples <= memory_limit / 2
        if not stored:
            probe = replace(source, vectorised=few.stop)(few)
        slow = [block.n_bytes for block in probe.blocks.values() if block.path in ("torch.func", "one by one")]
        held, graph = probe.n_bytes / few.stop, source.graph_bytes(few) / few.stop
        return cls(held, graph, sum(slow) / few.stop, probe.n_parameters, stored)


def within_memory(source: SampleGradientSource, memory_limit: int, footprint: Footprint) -> SampleGradients:
    """Return the sample gradients of a network, held where they fit into a budget and computed anew where not.

    Held gradients may take half the budget, passes a quarter.

    Parameters
    ----------
    source : SampleGradientSource
        The network at one point.
    memory_limit : int
        Bytes.
    footprint : Footprint
        Of this network, with this limit.

    Returns
    -------
    SampleGradients
        Held, or a `StreamedSampleGradients`.

    Raises
    ------
    ConfigurationError
        If the budget is too small for the gradient of one sample.
    """
    held, graph = footprint.held, footprint.graph
    one_row = 8 * footprint.n_parameters
    if max(held + graph, one_row) > memory_limit:
        raise ConfigurationError(
            f"memory_limit of {as_text(memory_limit)}: expected at least {as_text(max(held + graph, one_row))} "
            f"for the gradient of one sample ({footprint.n_parameters} measured parameters); raise it, or measure fewer "
            "tensors with a parameters= pattern"
        )
    quarter = memory_limit / 4
    # Of tensors without a fast path the gradients are stored, and vectorisation keeps about two more copies.
    vectorised = max(1, int(quarter / (3 * (footprint.slow + graph)))) if footprint.slow else source.vectorised
    source = replace(source, vectorised=min(vectorised, 256), stored=footprint.stored)
    # Beside what is kept a backward pass needs the gradients of activations, and copies in other memory layouts.
    at_a_time = max(1, int(quarter / max(1.0, 4 * graph + held)))
    if held * source.n_samples <= memory_limit / 2:
        return source.of_all(at_a_time)
    return StreamedSampleGradients(source, at_a_time, int(quarter))
