"""Isotropic noise whose trace is held to that of the minibatch covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langevin_nn.checks import whole_number
from langevin_nn.ensemble import covariance_factor
from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.noise.base import AdditiveNoise
from langevin_nn.seeds import Key

__all__ = ["HeldTrace", "IsotropicNoise"]


@dataclass(frozen=True)
class HeldTrace:
    """An estimate of Tr C and its age.

    Parameters
    ----------
    trace : Tensor, shape (replica,)
        Tr C where it was last measured.
    step : int
        When that was.
    """

    trace: Tensor
    step: int


@dataclass(frozen=True)
class IsotropicNoise(AdditiveNoise):
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
    needs_batch_size = True

    def __post_init__(self) -> None:
        if self.refresh_every is not None:
            expected = "at least 1 update between refreshes, a whole number (int)"
            whole_number("refresh_every", self.refresh_every, expected, least=1)

    def start(self, landscape: Landscape, weights: Tensor) -> HeldTrace:  # noqa: D102
        assert isinstance(landscape, EmpiricalLandscape)
        return self._measured(landscape, weights, 0)

    def _refreshed(self, landscape: EmpiricalLandscape, weights: Tensor, memory: HeldTrace, step: int) -> HeldTrace:
        interval = self.refresh_every or max(landscape.n_samples // self.batch_size, 1)
        return memory if step - memory.step < interval else self._measured(landscape, weights, step)

    def _measured(self, landscape: EmpiricalLandscape, weights: Tensor, step: int) -> HeldTrace:
        factor = covariance_factor(landscape.n_samples, self.batch_size)
        gradients = [landscape.sample_gradients(row, replica, everywhere=True) for replica, row in enumerate(weights)]
        return HeldTrace(factor * torch.stack([each.trace() for each in gradients]), step)

    def increment(self, landscape: Landscape, weights: Tensor, memory: HeldTrace, key: Key) -> tuple[Tensor, Any]:  # noqa: D102
        assert isinstance(landscape, EmpiricalLandscape)
        memory = self._refreshed(landscape, weights, memory, key.step)
        normals = torch.as_tensor(key.normals("isotropic noise", weights.shape[1])).to(weights.device, weights.dtype)
        amplitude = (memory.trace / weights.shape[1]).sqrt().to(weights.dtype)
        return normals * amplitude[:, None], memory

    def strength(self, memory: HeldTrace, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        return memory.trace
