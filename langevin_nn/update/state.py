"""What the next step needs, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from langevin_nn.seeds import Key, Seeds

__all__ = ["State"]


@dataclass(frozen=True, eq=False)
class State:
    """A batch of replicas between two updates.

    Parameters
    ----------
    step : int
        Number of updates made.
    weights : Tensor, shape (replica, parameter)
        Where the replicas are.
    update_memory, noise_memory : object
        What the update rule and the noise source remember.
    seeds : Seeds
        The tree of randomness.
    replicas : tuple of int
        Indices of the replicas: their addresses in the tree.
    diverged : Tensor of bool, shape (replica,)
        Which replicas have left the finite numbers.
    """

    step: int
    weights: Tensor
    update_memory: Any
    noise_memory: Any
    seeds: Seeds
    replicas: tuple[int, ...]
    diverged: Tensor

    def key(self, step: int) -> Key:
        """Return the address of an update.

        Parameters
        ----------
        step : int
            Number of updates made before it.

        Returns
        -------
        Key
            Of these replicas.
        """
        return Key(self.seeds, self.replicas, step)

    def replaced(self, step: int, weights: Tensor, update_memory: Any, noise_memory: Any, diverged: Tensor) -> State:
        """Return the state after some updates.

        Parameters
        ----------
        step : int
            Number of updates made.
        weights : Tensor, shape (replica, parameter)
            Where the replicas are.
        update_memory, noise_memory : object
            What is remembered.
        diverged : Tensor of bool, shape (replica,)
            Which replicas have diverged.

        Returns
        -------
        State
            With the same seeds and replicas.
        """
        return replace(
            self,
            step=step,
            weights=weights,
            update_memory=update_memory,
            noise_memory=noise_memory,
            diverged=diverged,
        )
