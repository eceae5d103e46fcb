"""Independent Gaussian noise in each parameter, as strong as minibatches make it there."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from langevin_nn.landscape import Landscape, SampleGradients
from langevin_nn.noise.refreshed import RefreshedNoise
from langevin_nn.seeds import Key

__all__ = ["HeldVariances", "MatchedDiagonal"]


@dataclass(frozen=True)
class HeldVariances:
    """The diagonal of C in float64, shape (replica, parameter), and when it was measured."""

    variances: Tensor
    step: int


@dataclass(frozen=True)
class MatchedDiagonal(RefreshedNoise):
    """η_i = √C_ii ξ_i, ξ ~ N(0, 1): the diagonal of C at the last refresh, and nothing beside it.

    It has the trace of C and its distribution over parameters, layers included, but none of its correlations.

    Parameters
    ----------
    batch_size : int
        B of the minibatches whose variances it takes.
    refresh_every : int, optional
        Updates between measurements; N // B unless said, which is one epoch at Δt = α only.

    Raises
    ------
    ConfigurationError
        If `refresh_every` is no whole number from 1.
    """

    batch_size: int = field()
    refresh_every: int | None = None

    def measured(self, gradients: list[SampleGradients], factor: float, weights: Tensor, step: int) -> HeldVariances:  # noqa: D102
        return HeldVariances(factor * torch.stack([each.variances() for each in gradients]), step)

    def drawn(self, memory: HeldVariances, weights: Tensor, key: Key) -> Tensor:  # noqa: D102
        normals = torch.as_tensor(key.normals("diagonal noise", weights.shape[1])).to(weights)
        return normals * memory.variances.sqrt().to(weights.dtype)

    def strength(  # noqa: D102
        self, memory: HeldVariances, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None
    ) -> Tensor:
        return memory.variances.sum(1)
