"""Noise of drawing B of N samples: shuffled epochs, and independent draws with and without replacement."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from math import isclose
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.draws import Draws
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import Landscape
from langevin_nn.noise.base import Noise, SampleWeightNoise, SampleWeights

__all__ = ["EpochOrder", "IndependentMinibatches", "Minibatches", "ShuffledMinibatches"]


class Minibatches(SampleWeightNoise):
    """B of the N samples at each update, c_k = 1/B on those that are drawn."""

    batch_size: int
    needs_batch_size = True

    @abstractmethod
    def minibatches(
        self, n_samples: int, memory: Any, draws: Draws, steps: int
    ) -> tuple[NDArray[np.int64] | Tensor, Any]:
        """Draw the minibatches of some updates.

        Parameters
        ----------
        n_samples : int
            N.
        memory : object
            The source's memory.
        draws : Draws
            The random numbers of these updates.
        steps : int
            How many.

        Returns
        -------
        indices : ndarray or Tensor of int64, shape (step, replica, row)
            The samples of each.
        memory : object
            For the update after them.
        """

    def drawn(self, n_samples: int, memory: Any, draws: Draws, steps: int) -> tuple[Tensor, Any]:
        """Return what `minibatches` draws, where it is used.

        Parameters
        ----------
        n_samples, memory, draws, steps : object
            Of `minibatches`.

        Returns
        -------
        indices : Tensor of int64, shape (step, replica, row)
            The samples of each.
        memory : object
            For the update after them.

        Raises
        ------
        ConfigurationError
            If they have another shape, or are no whole numbers.
        """
        found, memory = self.minibatches(n_samples, memory, draws, steps)
        indices = draws.tensor(found)
        wanted = (steps, draws.n_replicas)
        if indices.ndim != 3 or tuple(indices.shape[:2]) != wanted or indices.is_floating_point():
            raise ConfigurationError(
                f"{type(self).__name__}.minibatches returned shape {tuple(indices.shape)}, {indices.dtype}: expected whole "
                f"numbers of shape (step, replica, row) = ({wanted[0]}, {wanted[1]}, any), since what they "
                "point at is read unseen; put the steps first"
            )
        return indices.to(torch.int64), memory

    def sample_weights(self, n_samples: int, memory: Any, draws: Draws, steps: int) -> tuple[SampleWeights, Any]:  # noqa: D102
        indices, memory = self.drawn(n_samples, memory, draws, steps)
        return SampleWeights(draws.full((1, *indices.shape[1:]), 1 / indices.shape[-1]), indices), memory


@dataclass(frozen=True)
class EpochOrder:
    """The order in which samples come in one epoch, −1 before the first: a permutation for each replica."""

    epoch: int
    order: Tensor
    used: int = 0


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
    portable = True
    weak_order = 0.0

    def check_rates(self, learning_rate: float, time_step: float) -> None:  # noqa: D102
        if not isclose(time_step, learning_rate, rel_tol=1e-6):
            raise ConfigurationError(
                f"time_step={time_step:g} at learning_rate={learning_rate:g} with ShuffledMinibatches: expected "
                f"{learning_rate:g}, the learning rate, since noise that sums to zero over each epoch converges to none as "
                "steps become shorter; take IndependentMinibatches, SVAG or MatchedGaussian, or leave time_step out"
            )

    def at(self, step: int) -> Noise:  # noqa: D102
        # How far an epoch has come cannot be told from the update where others before it were of another size.
        return self if not self.rates else _UnevenMinibatches(super().at(step).batch_size or 1)

    def start(self, landscape: Landscape, weights: Tensor) -> EpochOrder:  # noqa: D102
        return EpochOrder(-1, torch.empty(0, dtype=torch.int64))

    def minibatches(  # noqa: D102
        self, n_samples: int, memory: EpochOrder, draws: Draws, steps: int
    ) -> tuple[Tensor, EpochOrder]:
        size, of_an_epoch = self.batch_size, n_samples // self.batch_size
        pieces, step, end = [], draws.step, draws.step + steps
        while step < end:
            epoch, first = divmod(step, of_an_epoch)
            if epoch != memory.epoch:
                memory = EpochOrder(epoch, draws.permutations("epoch order", n_samples, epoch))
            last = min(of_an_epoch, first + end - step)
            pieces.append(memory.order[:, first * size : last * size])
            step += last - first
        rows = torch.cat(pieces, 1).to(torch.int64)
        return rows.reshape(len(rows), steps, size).transpose(0, 1), memory


@dataclass(frozen=True)
class _UnevenMinibatches(ShuffledMinibatches):
    """Shuffled epochs of which each update takes as many samples as it is told; an epoch ends where too few are left."""

    _called = "ShuffledMinibatches"

    def minibatches(self, n_samples: int, memory: EpochOrder, draws: Draws, steps: int) -> tuple[Tensor, EpochOrder]:
        pieces = []
        for _ in range(steps):
            if memory.epoch < 0 or memory.used + self.batch_size > n_samples:
                number = memory.epoch + 1
                memory = EpochOrder(number, draws.permutations("epoch order", n_samples, number))
            pieces.append(memory.order[:, memory.used : memory.used + self.batch_size])
            memory = replace(memory, used=memory.used + self.batch_size)
        return torch.stack(pieces).to(torch.int64), memory


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
    portable = True
    weak_order = 0.5

    def minibatches(  # noqa: D102
        self, n_samples: int, memory: None, draws: Draws, steps: int
    ) -> tuple[Tensor, None]:
        return draws.choices("minibatch", n_samples, self.batch_size, steps, replacement=self.replacement), memory
