"""What measuring a gradient ensemble will take, said before it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from langevin_nn.memory import as_text
from langevin_nn.progress import in_words

if TYPE_CHECKING:
    from langevin_nn.gradients import SampleGradients

__all__ = ["Forecast", "forecast"]

_TRIED = 32  # samples on which a pass is timed
_PRODUCT = 512  # rows and columns of the product by which the machine's rate is measured


@dataclass(frozen=True)
class Forecast:
    """Time and memory of measuring a gradient ensemble.

    Attributes
    ----------
    seconds : float
        About how long it takes, from passes over a few samples.
    passes : float
        How often all samples are gone through.
    n_samples : int
        How many they are.
    n_pieces : int
        In how many pieces sample gradients are computed anew in each pass; 1 where they are held.
    held : int
        Bytes that sample gradients take while they are held.
    holding_limit : int
        The `memory_limit` from which on all sample gradients are held, in bytes.
    """

    seconds: float
    passes: float
    n_samples: int
    n_pieces: int
    held: int
    holding_limit: int

    def __str__(self) -> str:
        said = f"about {in_words(self.seconds)}: {self.passes:.3g} passes over {self.n_samples:,} samples"
        if self.n_pieces == 1:
            return f"{said}, whose gradients are held in {as_text(self.held)}"
        return (
            f"{said}, whose gradients are computed anew in {self.n_pieces:,} pieces; memory_limit="
            f'"{ceil(self.holding_limit / 2**20)} MiB" would hold them and take less time'
        )


def forecast(gradients: SampleGradients, n_minibatches: int, batch_size: int, operations: float) -> Forecast:
    """Return what order parameters, and matrices beside them, will take.

    Parameters
    ----------
    gradients : SampleGradients
        Of all samples.
    n_minibatches : int
        From how many R is estimated; 0 where it is not.
    batch_size : int
        Samples in each.
    operations : float
        Floating-point operations of a spectrum, in double precision.

    Returns
    -------
    Forecast
        With seconds from a pass over a few samples and a product of two small matrices.
    """
    n = gradients.n_samples
    few = gradients.first(min(n, _TRIED)).n_samples
    passes = gradients.passes(n_minibatches, batch_size)
    square = torch.ones(_PRODUCT, _PRODUCT, dtype=torch.float64, device=gradients.device)
    seconds = passes * n / few * _seconds(lambda: gradients.first(few).squared_norms_by_layer())
    if operations:
        seconds += operations / (2 * _PRODUCT**3) * _seconds(lambda: square @ square)
    return Forecast(seconds, passes, n, gradients.n_pieces, gradients.n_bytes, gradients.holding_limit)


def _seconds(work: Callable[[], object]) -> float:
    """Return how long something takes the second time."""
    work()
    started = perf_counter()
    work()
    return perf_counter() - started
