"""What the next step needs, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from langevin_nn.readable import Readable, precision
from langevin_nn.seeds import Key, Seeds

__all__ = ["State", "shape_of"]


@dataclass(frozen=True, eq=False)
class State(Readable):
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

    def _said(self) -> Iterator[str]:
        yield f"step {self.step:,}"
        yield "{:,} replicas × {:,} parameters".format(*self.weights.shape)
        yield from precision(self.weights)
        yield f"seed={self.seeds.seed}"
        if lost := int(self.diverged.sum()):
            yield f"{lost:,} diverged"

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
        return State(step, weights, update_memory, noise_memory, self.seeds, self.replicas, diverged)


def shape_of(memory: Any) -> Any:
    """Return of what kinds and shapes a memory is made, in words that can be compared.

    Parameters
    ----------
    memory : object
        Of an update rule or a noise source.

    Returns
    -------
    object
        Text, or tuples of it.

    Examples
    --------
    >>> import torch
    >>> shape_of((torch.zeros(2, 3), None))
    ('[2, 3]', 'nothing')
    """
    if memory is None:
        return "nothing"
    if isinstance(memory, Tensor):
        return str([*memory.shape])
    if is_dataclass(memory) and not isinstance(memory, type):
        return (type(memory).__name__, *(shape_of(getattr(memory, each.name)) for each in fields(memory)))
    if isinstance(memory, list | tuple):
        return tuple(map(shape_of, memory))
    return type(memory).__name__
