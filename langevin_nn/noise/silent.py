"""No noise at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from langevin_nn.formulas import NoiseFormula
from langevin_nn.landscape import Landscape
from langevin_nn.noise.base import AdditiveNoise
from langevin_nn.seeds import Key

__all__ = ["Silent"]


@dataclass(frozen=True)
class Silent(AdditiveNoise):
    """η = 0, or as a law of sample weights c_k = 1/N: gradient descent over the whole training set.

    Written as an added zero, it silences any landscape, also one without samples.

    Parameters
    ----------
    batch_size : int, optional
        B of the process that it stands beside, for which order parameters and epochs are counted.
    """

    batch_size: int | None = None

    def dependence(self, landscape: Landscape) -> Literal["constant", "diagonal", "full"]:  # noqa: D102
        return "constant"

    def formula(self, landscape: Landscape) -> NoiseFormula:  # noqa: D102
        return NoiseFormula.silent()

    def increment(self, landscape: Landscape, weights: Tensor, memory: None, key: Key) -> tuple[Tensor, None]:  # noqa: D102
        return weights.new_zeros(()).expand_as(weights), memory

    def strength(self, memory: None, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        return torch.zeros(1, dtype=torch.float64)
