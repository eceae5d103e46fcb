"""Constant Gaussian noise of a dense, anisotropic covariance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import Landscape
from langevin_nn.noise.base import AdditiveNoise, kind_of
from langevin_nn.seeds import Key, Seeds

__all__ = ["STEPS_PER_BLOCK", "AnisotropicNoise", "normal_block"]

# Small draws are addressed by blocks of steps: making a generator costs as much as a thousand normal numbers.
STEPS_PER_BLOCK = 64


@lru_cache(maxsize=4)
def normal_block(seeds: Seeds, replicas: tuple[int, ...], block: int, rank: int) -> NDArray[np.float64]:
    """Return the normal numbers of one block of steps.

    Parameters
    ----------
    seeds : Seeds
        The tree of randomness.
    replicas : tuple of int
        Indices of the replicas.
    block : int
        Steps ``block * STEPS_PER_BLOCK`` and those after it.
    rank : int
        Numbers a step and replica.

    Returns
    -------
    ndarray, shape (replica, STEPS_PER_BLOCK, rank)
        Read-only.
    """
    draws = Key(seeds, replicas, block).normals("anisotropic noise", STEPS_PER_BLOCK * rank, np.float64)
    shaped = draws.reshape(len(replicas), STEPS_PER_BLOCK, rank).astype(np.float64, copy=False)
    shaped.flags.writeable = False
    return shaped


@dataclass(frozen=True, eq=False)
class AnisotropicNoise(AdditiveNoise):
    """η = F ξ, ξ ~ N(0, 1): covariance C = F Fᵀ everywhere.

    Parameters
    ----------
    factor : array, shape (parameter, rank)
        F; kept as a tensor.

    Raises
    ------
    ConfigurationError
        If F is no array of numbers.
    """

    factor: Tensor

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "factor", torch.as_tensor(self.factor))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"the noise factor is {kind_of(self.factor)}: expected an array (parameter, rank), F with C = F Fᵀ; pass a "
                "tensor or a NumPy array of numbers"
            ) from error

    def check(self, landscape: Landscape) -> None:  # noqa: D102
        if self.factor.ndim != 2 or len(self.factor) != landscape.n_parameters:
            raise ConfigurationError(
                f"the noise factor has shape {tuple(self.factor.shape)}: expected ({landscape.n_parameters}, rank), one "
                "row a parameter of the landscape"
            )

    def increment(self, landscape: Landscape, weights: Tensor, memory: None, key: Key) -> tuple[Tensor, Any]:  # noqa: D102
        block, position = divmod(key.step, STEPS_PER_BLOCK)
        normals = normal_block(key.seeds, key.replicas, block, self.factor.shape[1])[:, position]
        noise = torch.as_tensor(np.array(normals)) @ self.factor.double().T
        return noise.to(weights.device, weights.dtype), memory

    def strength(self, memory: None, landscape: Landscape, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        return self.factor.double().square().sum()[None]
