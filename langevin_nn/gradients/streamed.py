"""Sample gradients that are computed anew at every use, where they do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor

from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients.sample_gradients import SampleGradients, shares_of
from langevin_nn.gradients.signals import SampleGradientSource
from langevin_nn.memory import as_text
from langevin_nn.progress import sample_bar

_LARGEST_PASS = {
    False: 2**28,
    True: 2**31,
}  # bytes that a pass over samples takes at once, on a CPU and on a CUDA device

__all__ = ["Footprint", "StreamedSampleGradients", "within_memory"]


class StreamedSampleGradients(SampleGradients):
    """Gradients of which only those of `at_a_time` samples are in memory, each multiplied by `factors` where given."""

    # Every product is a pass over the data. Results agree with those of `SampleGradients` to rounding.

    def __init__(
        self,
        source: SampleGradientSource,
        at_a_time: int,
        held_for_gram: int,  # of how many samples rows may be held beside
        room: int,  # bytes for sums
        factors: Tensor | None = None,
        least: float = 0.0,  # bytes of one sample where all are held
    ) -> None:
        few = source(slice(0, 1))
        super().__init__(few.blocks, source.names, room=room)
        self._factors = factors
        self._source, self.at_a_time, self._held_for_gram, self._least = source, at_a_time, held_for_gram, least

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
        with sample_bar("sample gradients, computed anew", self.n_samples - start) as bar:
            for samples in self._slices_of_samples(start):
                yield samples, self._piece(samples)
                bar.update(samples.stop - samples.start)

    def _piece(self, samples: slice | Tensor) -> SampleGradients:
        return self._scaled(self._source(samples))

    def _scaled(self, piece: SampleGradients) -> SampleGradients:
        return piece if self._factors is None else piece.scaled(self._factors)

    def scaled(self, factors: Tensor) -> SampleGradients:  # noqa: D102
        factors = factors if self._factors is None else self._factors * factors
        return StreamedSampleGradients(
            self._source, self.at_a_time, self._held_for_gram, self._room, factors, self._least
        )

    @property
    def holding_limit(self) -> int:  # noqa: D102
        return ceil(2 * self._least * self.n_samples)

    def first(self, n_samples: int) -> SampleGradients:  # noqa: D102
        return self._piece(slice(0, min(n_samples, self.at_a_time)))

    def passes(self, n_minibatches: int, batch_size: int) -> float:  # noqa: D102
        if self.knows_gram:
            return 1.0
        if self._has_few:  # many rows are held while those that follow go by
            return self._gram_passes
        at_a_time = max(1, self._room // (8 * self.n_parameters))
        return 2.0 if not n_minibatches else 3.0 if n_minibatches <= at_a_time else 4.0 + n_minibatches / at_a_time

    def squared_norms_by_layer(self) -> Tensor:  # noqa: D102
        return torch.cat([piece.squared_norms_by_layer() for _, piece in self._streamed()], dim=1)

    def project_by_layer(self, directions: Tensor) -> Tensor:  # noqa: D102
        return torch.cat([piece.project_by_layer(directions) for _, piece in self._streamed()], dim=1)

    def combine(self, coefficients: Tensor) -> Tensor:  # noqa: D102
        total = coefficients.new_zeros(len(coefficients), self.n_parameters)
        for samples, piece in self._streamed():
            total += piece.combine(coefficients[:, samples])
        return total

    @property
    def _gram_passes(self) -> float:
        return (1 + ceil(self.n_samples / self._held_for_gram)) / 2

    def norms_and_sums(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        if self._has_few:
            return super().norms_and_sums(coefficients)
        norms, total = [], coefficients.new_zeros(len(coefficients), self.n_parameters)
        for samples, piece in self._streamed():
            of_piece, sums = piece.norms_and_sums(coefficients[:, samples])
            norms.append(of_piece)
            total += sums
        return torch.cat(norms, dim=1), total

    def minibatch_squared_norms(self, indices: Tensor) -> Tensor:  # noqa: D102
        if self.knows_gram:
            return super().minibatch_squared_norms(indices)
        # Minibatches cross the pieces, so their gradients are summed up, as many at a time as there is room for.
        at_a_time = max(1, self._room // (8 * self.n_parameters))
        sums = (self.combine(shares_of(few, self.n_samples)) for few in torch.split(indices, at_a_time))
        return torch.cat([each.square().sum(1) for each in sums])

    def _minibatch_gradients(self, indices: Tensor) -> Tensor:
        return self.combine(shares_of(indices, self.n_samples))

    def _keep_grams(self, coefficients: Tensor) -> Tensor:
        total, n = coefficients.new_zeros(len(coefficients), self.n_parameters), self.n_samples
        grams = torch.empty(len(self.layers), n, n, dtype=torch.float64, device=self.device)
        for mine, held in self._held_in_turn():
            total += held._keep_grams(coefficients[:, mine])
            grams[:, mine, mine] = held._grams
            for theirs, other in self._streamed(mine.stop):
                held.cross_gram(other, grams[:, mine, theirs])
                grams[:, theirs, mine] = grams[:, mine, theirs].mT
        self._grams = grams
        return total

    def _held_in_turn(self) -> Iterator[tuple[slice, SampleGradients]]:
        """Yield as many gradients at a time as can be held beside a pass."""
        for start in range(0, self.n_samples, self._held_for_gram):
            mine = slice(start, min(start + self._held_for_gram, self.n_samples))
            yield mine, self._scaled(self._source.held(mine, self.at_a_time))

    def _gram(self) -> Tensor:
        # Many rows are held while all that follow go by: a few passes in the place of one a piece.
        out = torch.empty(self.n_samples, self.n_samples, dtype=torch.float64, device=self.device)
        for mine, held in self._held_in_turn():
            out[mine, mine] = held._gram()
            for theirs, other in self._streamed(mine.stop):
                held.cross_gram(other, out[mine, theirs])
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
    row : float
        What a gradient takes that is stored.
    stored : bool
        Whether gradients are held rather than what they are made of.
    """

    held: float
    graph: float
    slow: float
    n_parameters: int
    row: float
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
        row = probe.n_bytes / few.stop
        stored = row * source.n_samples <= memory_limit / 2
        if not stored:
            probe = replace(source, vectorised=few.stop)(few)
        slow = [block.n_bytes for block in probe.blocks.values() if block.path in ("torch.func", "one by one")]
        held, graph = probe.n_bytes / few.stop, source.graph_bytes(few) / few.stop
        return cls(held, graph, sum(slow) / few.stop, probe.n_parameters, row, stored)


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
    # More than fits into caches makes passes no faster.
    quarter = min(memory_limit / 4, _LARGEST_PASS[source.labels.device.type == "cuda"])
    # Of tensors without a fast path the gradients are stored, and vectorisation keeps about two more copies.
    vectorised = max(1, int(quarter / (3 * (footprint.slow + graph)))) if footprint.slow else source.vectorised
    room = int(memory_limit / 16)  # numbers: two such pieces of rows in float32
    source = replace(source, vectorised=min(vectorised, 256), stored=footprint.stored, room=room)
    row = footprint.row
    if held * source.n_samples <= memory_limit / 2:
        return source.held(slice(0, source.n_samples), _at_a_time(quarter, held, graph), memory_limit // 4)
    # Rows that go by are multiplied out once where they are no larger than what the pass takes anyway.
    stored = footprint.stored or row <= 4 * graph
    at_a_time = _at_a_time(quarter, row if stored else held, graph)
    for_gram = max(1, int(memory_limit / 2 / row))
    return StreamedSampleGradients(
        replace(source, stored=stored), at_a_time, for_gram, memory_limit // 4, least=min(held, row)
    )


def _at_a_time(room: float, held: float, graph: float) -> int:
    """Return of how many samples a pass may keep what it needs."""
    # Beside what is kept a backward pass needs the gradients of activations, and copies in other memory layouts.
    return max(1, int(room / max(1.0, 4 * graph + held)))
