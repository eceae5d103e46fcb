"""Noise of drawing B of N samples: shuffled epochs, and independent draws with and without replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.noise.base import SampleWeightNoise, SampleWeights
from langevin_nn.seeds import Key

__all__ = ["EpochOrder", "IndependentMinibatches", "ShuffledMinibatches"]


def _uniform(indices: Tensor, landscape: EmpiricalLandscape) -> SampleWeights:
    share = torch.full(indices.shape, 1 / indices.shape[1], dtype=landscape.dtype, device=landscape.device)
    return SampleWeights(share, indices.to(landscape.device))


@dataclass(frozen=True)
class EpochOrder:
    """The order in which samples come in one epoch.

    Parameters
    ----------
    epoch : int
        Its number; −1 before the first.
    order : Tensor of int64, shape (replica, sample)
        A permutation of the samples for each replica.
    """

    epoch: int
    order: Tensor


@dataclass(frozen=True)
class ShuffledMinibatches(SampleWeightNoise):
    """SGD as practised: each epoch a fresh permutation is cut into minibatches; a remainder of N mod B is dropped.

    Its noise has memory: at fixed weights it sums to zero over an epoch where B divides N, and two minibatches of one
    epoch covary as −C·B/(N − B).

    Parameters
    ----------
    batch_size : int
        B.
    """

    batch_size: int
    needs_batch_size = True

    def start(self, landscape: Landscape, weights: Tensor) -> EpochOrder:  # noqa: D102
        return EpochOrder(-1, torch.empty(0, dtype=torch.int64))

    def sample_weights(  # noqa: D102
        self, landscape: EmpiricalLandscape, memory: EpochOrder, key: Key
    ) -> tuple[SampleWeights, Any]:
        epoch, position = divmod(key.step, landscape.n_samples // self.batch_size)
        if epoch != memory.epoch:
            of_epoch = Key(key.seeds, key.replicas, epoch)
            orders = [generator.permutation(landscape.n_samples) for generator in of_epoch.generators("epoch order")]
            memory = EpochOrder(epoch, torch.as_tensor(np.stack(orders)))
        rows = memory.order[:, position * self.batch_size : (position + 1) * self.batch_size]
        return _uniform(rows.contiguous(), landscape), memory


@dataclass(frozen=True)
class IndependentMinibatches(SampleWeightNoise):
    """Minibatches drawn independently at each update: white noise of covariance (f/B) Σ.

    Parameters
    ----------
    batch_size : int
        B.
    replacement : bool, optional
        Whether a sample may come twice in a minibatch.
    """

    batch_size: int
    replacement: bool = False
    needs_batch_size = True

    def sample_weights(self, landscape: EmpiricalLandscape, memory: None, key: Key) -> tuple[SampleWeights, None]:  # noqa: D102
        n, size = landscape.n_samples, self.batch_size
        rows = [g.choice(n, size, replace=self.replacement, shuffle=False) for g in key.generators("minibatch")]
        return _uniform(torch.as_tensor(np.stack(rows)), landscape), memory
