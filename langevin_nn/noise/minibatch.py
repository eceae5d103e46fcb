"""Noise of drawing B of N samples: shuffled epochs, and independent draws with and without replacement."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.noise.base import SampleWeightNoise, SampleWeights
from langevin_nn.seeds import Key

__all__ = ["EpochOrder", "IndependentMinibatches", "Minibatches", "ShuffledMinibatches"]


class Minibatches(SampleWeightNoise):
    """B of the N samples at each update, c_k = 1/B on those that are drawn."""

    batch_size: int
    needs_batch_size = True

    @abstractmethod
    def minibatches(
        self, landscape: EmpiricalLandscape, memory: Any, key: Key, steps: int
    ) -> tuple[NDArray[np.int64], Any]:
        """Draw the minibatches of some updates.

        Parameters
        ----------
        landscape : EmpiricalLandscape
            Whose samples.
        memory : object
            The source's memory.
        key : Key
            Address of the first of these updates.
        steps : int
            How many.

        Returns
        -------
        indices : ndarray of int64, shape (replica, step, row)
            The samples of each.
        memory : object
            For the update after them.
        """

    def sample_weights(  # noqa: D102
        self, landscape: EmpiricalLandscape, memory: Any, key: Key
    ) -> tuple[SampleWeights, Any]:
        drawn, memory = self.minibatches(landscape, memory, key, 1)
        indices = torch.as_tensor(drawn[:, 0]).to(landscape.device)
        share = torch.full(indices.shape, 1 / indices.shape[1], dtype=landscape.dtype, device=landscape.device)
        return SampleWeights(share, indices), memory


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
class ShuffledMinibatches(Minibatches):
    """SGD as practised: each epoch a fresh permutation is cut into minibatches; a remainder of N mod B is dropped.

    Its noise has memory: at fixed weights it sums to zero over an epoch where B divides N, and two minibatches of one
    epoch covary as −C·B/(N − B).

    Parameters
    ----------
    batch_size : int
        B.
    """

    batch_size: int

    def start(self, landscape: Landscape, weights: Tensor) -> EpochOrder:  # noqa: D102
        return EpochOrder(-1, torch.empty(0, dtype=torch.int64))

    def minibatches(  # noqa: D102
        self, landscape: EmpiricalLandscape, memory: EpochOrder, key: Key, steps: int
    ) -> tuple[NDArray[np.int64], Any]:
        of_an_epoch = landscape.n_samples // self.batch_size
        pieces, step, end = [], key.step, key.step + steps
        while step < end:
            epoch, first = divmod(step, of_an_epoch)
            if epoch != memory.epoch:
                of_epoch = Key(key.seeds, key.replicas, epoch)
                orders = [
                    generator.permutation(landscape.n_samples) for generator in of_epoch.generators("epoch order")
                ]
                memory = EpochOrder(epoch, torch.as_tensor(np.stack(orders)))
            last = min(of_an_epoch, first + end - step)
            rows = memory.order[:, first * self.batch_size : last * self.batch_size].numpy()
            pieces.append(rows.reshape(len(rows), last - first, self.batch_size))
            step += last - first
        return np.concatenate(pieces, axis=1), memory


@dataclass(frozen=True)
class IndependentMinibatches(Minibatches):
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

    def minibatches(  # noqa: D102
        self, landscape: EmpiricalLandscape, memory: None, key: Key, steps: int
    ) -> tuple[NDArray[np.int64], None]:
        n, size = landscape.n_samples, self.batch_size
        keys = [Key(key.seeds, key.replicas, step) for step in range(key.step, key.step + steps)]
        draws = [
            [g.choice(n, size, replace=self.replacement, shuffle=False) for g in each.generators("minibatch")]
            for each in keys
        ]
        return np.stack(draws, axis=1), memory
