"""Noise of drawing B of N samples: shuffled epochs, and independent draws with and without replacement."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.draws import addresses, distinct_integers, integers, permutations
from langevin_nn.errors import ConfigurationError
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
    ) -> tuple[NDArray[np.int64] | Tensor, Any]:
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
        indices : ndarray or Tensor of int64, shape (replica, step, row)
            The samples of each.
        memory : object
            For the update after them.
        """

    def sample_weights(  # noqa: D102
        self, landscape: EmpiricalLandscape, memory: Any, key: Key
    ) -> tuple[SampleWeights, Any]:
        drawn, memory = self.minibatches(landscape, memory, key, 1)
        indices = torch.as_tensor(drawn[:, 0]).to(landscape.device)
        return SampleWeights(_shares(landscape, indices.shape), indices), memory

    def minibatches_on_device(
        self, landscape: EmpiricalLandscape, memories: Sequence[Any], keys: Sequence[Key], steps: int
    ) -> tuple[Tensor, list[Any]]:
        """Draw the minibatches of some updates of several processes on the landscape's device.

        Parameters
        ----------
        landscape : EmpiricalLandscape
            Whose samples.
        memories : sequence of object
            The source's memory in each process.
        keys : sequence of Key
            Addresses of the first of these updates in each process, all of one step.
        steps : int
            How many.

        Returns
        -------
        indices : Tensor of int64, shape (replica, step, row)
            The samples of each, the same on all devices.
        memories : list of object
            For the updates after them.

        Raises
        ------
        ConfigurationError
            If this source cannot.
        """  # noqa: DOC202
        raise ConfigurationError(
            f"{type(self).__name__} does not draw on devices: expected ShuffledMinibatches or IndependentMinibatches; write "
            "minibatches_on_device, or draw with minibatches"
        )

    def draw_on_device(  # noqa: D102
        self, landscape: EmpiricalLandscape, memories: Sequence[Any], keys: Sequence[Key], steps: int
    ) -> tuple[SampleWeights, list[Any]]:
        drawn, after = self.minibatches_on_device(landscape, memories, keys, steps)
        indices = drawn.transpose(0, 1)
        return SampleWeights(_shares(landscape, (1, *indices.shape[1:])), indices), after


def _shares(landscape: EmpiricalLandscape, shape: tuple[int, ...]) -> Tensor:
    """Return c_k = 1/B."""
    return torch.full(shape, 1 / shape[-1], dtype=landscape.dtype, device=landscape.device)


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
    epoch covary as −C·B/(N − B). It belongs to Δt = α: an epoch of shorter steps takes less time, and the noise that is
    left of it vanishes with Δt.

    Parameters
    ----------
    batch_size : int
        B.
    """

    batch_size: int
    weak_order = 0.0

    def check_rates(self, learning_rate: float, time_step: float) -> None:  # noqa: D102
        if not isclose(time_step, learning_rate, rel_tol=1e-6):
            raise ConfigurationError(
                f"time_step={time_step:g} at learning_rate={learning_rate:g} with ShuffledMinibatches: expected "
                f"{learning_rate:g}, the learning rate, since noise that sums to zero over each epoch converges to none as "
                "steps become shorter; take IndependentMinibatches, SVAG or MatchedGaussian, or leave time_step out"
            )

    def start(self, landscape: Landscape, weights: Tensor) -> EpochOrder:  # noqa: D102
        return EpochOrder(-1, torch.empty(0, dtype=torch.int64))

    def minibatches(  # noqa: D102
        self, landscape: EmpiricalLandscape, memory: EpochOrder, key: Key, steps: int
    ) -> tuple[NDArray[np.int64] | Tensor, Any]:
        if landscape.device.type == "cuda":
            drawn, (after,) = self.minibatches_on_device(landscape, [memory], [key], steps)
            return drawn, after
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

    @property
    def draws_on_device(self) -> bool:  # noqa: D102
        return type(self) is ShuffledMinibatches

    def minibatches_on_device(  # noqa: D102
        self, landscape: EmpiricalLandscape, memories: Sequence[EpochOrder], keys: Sequence[Key], steps: int
    ) -> tuple[Tensor, list[EpochOrder]]:
        n, size = landscape.n_samples, self.batch_size
        pieces, step, end = [], keys[0].step, keys[0].step + steps
        known, order = memories[0].epoch, torch.empty(0)
        if known == step // (n // size) and all(each.epoch == known for each in memories):
            order = torch.cat([each.order for each in memories])
        else:
            known = -1
        while step < end:
            epoch, first = divmod(step, n // size)
            if epoch != known:
                known, order = epoch, permutations(addresses(keys, "epoch order", landscape.device), n, epoch)
            last = min(n // size, first + end - step)
            pieces.append(order[:, first * size : last * size].to(torch.int64).reshape(len(order), last - first, size))
            step += last - first
        of_each = torch.split(order, [len(each.replicas) for each in keys])
        return torch.cat(pieces, 1), [EpochOrder(known, each) for each in of_each]


@dataclass(frozen=True)
class IndependentMinibatches(Minibatches):
    """Minibatches drawn independently at each update: white noise of covariance (f/B) Σ.

    At Δt < α kicks are larger by √(α/Δt), and their third moment vanishes as √Δt only: weak order ½. `SVAG` has 1.

    Parameters
    ----------
    batch_size : int
        B.
    replacement : bool, optional
        Whether a sample may come twice in a minibatch.
    """

    batch_size: int
    replacement: bool = False
    weak_order = 0.5

    def minibatches(  # noqa: D102
        self, landscape: EmpiricalLandscape, memory: None, key: Key, steps: int
    ) -> tuple[NDArray[np.int64] | Tensor, None]:
        if landscape.device.type == "cuda":
            return self.minibatches_on_device(landscape, [memory], [key], steps)[0], memory
        n, size = landscape.n_samples, self.batch_size
        keys = [Key(key.seeds, key.replicas, step) for step in range(key.step, key.step + steps)]
        draws = [
            [g.choice(n, size, replace=self.replacement, shuffle=False) for g in each.generators("minibatch")]
            for each in keys
        ]
        return np.stack(draws, axis=1), memory

    @property
    def draws_on_device(self) -> bool:  # noqa: D102
        return type(self) is IndependentMinibatches

    def minibatches_on_device(  # noqa: D102
        self, landscape: EmpiricalLandscape, memories: Sequence[None], keys: Sequence[Key], steps: int
    ) -> tuple[Tensor, list[None]]:
        n, size, first = landscape.n_samples, self.batch_size, keys[0].step
        rows = addresses(keys, "minibatch", landscape.device)
        if self.replacement:
            below = torch.full((size,), n, device=landscape.device)
            return integers(rows, below, first, steps), list(memories)
        return distinct_integers(rows, n, size, first, steps), list(memories)
