"""Isotropic noise whose trace is held to that of the minibatch covariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from langevin_nn.landscape import Landscape, SampleGradients
from langevin_nn.noise.refreshed import RefreshedNoise
from langevin_nn.seeds import Key

__all__ = ["HeldTrace", "IsotropicNoise"]


@dataclass(frozen=True)
class HeldTrace:
    """Tr C where it was last measured, shape (replica,), and when that was."""

    trace: Tensor
    step: int


@dataclass(frozen=True)
class IsotropicNoise(RefreshedNoise):
    """η = (Tr C / P)^½ ξ, ξ ~ N(0, 1) in every direction, Tr C measured anew every so many updates.

    The recorded strength is that of the trace in use, which was measured at most one interval before.

    Parameters
    ----------
    batch_size : int
        B of the minibatches whose trace it takes.
    refresh_every : int, optional
        Updates between measurements of Tr C; N // B unless said, which is one epoch at Δt = α only.

    Raises
    ------
    ConfigurationError
        If `refresh_every` is no whole number from 1.
    """

    batch_size: int
    refresh_every: int | None = None

    def measured(self, gradients: list[SampleGradients], factor: float, weights: Tensor, step: int) -> HeldTrace:  # noqa: D102
        return HeldTrace(factor * torch.stack([each.trace() for each in gradients]), step)

    def drawn(self, memory: HeldTrace, weights: Tensor, key: Key) -> Tensor:  # noqa: D102
        normals = torch.as_tensor(key.normals("isotropic noise", weights.shape[1])).to(weights)
        amplitude = (memory.trace / weights.shape[1]).sqrt().to(weights.dtype)
        return normals * amplitude[:, None]

    def strength(self, memory: HeldTrace, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        return memory.trace
