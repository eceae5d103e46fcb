"""Addressed random numbers as tensors: NumPy's on the CPU, and where they are used Philox4x32-10 in whole numbers.

Number n of a replica is a function of seed, purpose, replica and n alone, as in `langevin_nn.kernels.normals`, whose words
these are. Whole numbers are the same on all devices; normal numbers agree to rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langevin_nn.seeds import Key

__all__ = [
    "Draws",
    "NumPyDraws",
    "PhiloxDraws",
    "addresses",
    "distinct_integers",
    "draws_at",
    "integers",
    "normals",
    "permutations",
    "words",
]

_LOW = 2**32 - 1
_AT_ONCE = 2**22  # blocks: 32 MiB for each of the ten numbers or so that are alive at a time


def addresses(keys: Sequence[Key], purpose: str, device: torch.device) -> Tensor:
    """Return where the numbers of replicas are found, shape (replica, 4); steps of keys do not count."""
    # 32 bits each: the key, low and high, and the replica, low and high.
    found = []
    for each in keys:
        replicas, key = np.array(each.replicas, dtype=np.int64), each.seeds.key(purpose)
        rows = np.empty((len(replicas), 4), np.int64)
        rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = key & _LOW, key >> 32, replicas & _LOW, replicas >> 32
        found.append(rows)
    return torch.as_tensor(np.concatenate(found)).to(device)


def words(rows: Tensor, blocks: Tensor) -> Tensor:
    """Return blocks of Philox4x32-10 (Salmon et al. 2011, doi 10.1145/2063384.2063405).

    Parameters
    ----------
    rows : Tensor of int64, shape (replica, 4)
        Of `addresses`.
    blocks : Tensor of int64, shape (block,)
        Numbers of the blocks, from 0.

    Returns
    -------
    Tensor of int64, shape (4, replica, block)
        Four words of 32 random bits each.

    Examples
    --------
    >>> [hex(word) for word in words(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)).flatten()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    k0, k1, c2, c3 = (column[:, None] for column in rows.T)
    c0, c1 = blocks & _LOW, blocks >> 32 & _LOW
    for _ in range(10):
        # Of 64 bits that wrap, all are right; shifted as signed numbers, the upper ones would be ones.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) & _LOW ^ c1 ^ k0, p1 & _LOW, (p0 >> 32) & _LOW ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return torch.stack([c0, c1, c2, c3])


def _in_pieces(draw: Callable[[Tensor, Tensor], Tensor], rows: Tensor, first: int, count: int) -> Tensor:
    """Draw for so many replicas at a time as memory allows."""
    blocks = torch.arange(first, first + count, device=rows.device)
    pieces = [draw(each, blocks) for each in torch.split(rows, max(1, _AT_ONCE // count))]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _paired(rows: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return two numbers of 64 bits a block, in halves, high and low, shape (replica, 2 block)."""
    low, high, second_low, second_high = words(rows, blocks)
    return torch.stack([high, second_high], 2).flatten(1), torch.stack([low, second_low], 2).flatten(1)


def permutations(rows: Tensor, size: int, number: int) -> Tensor:
    """Return a permutation of 0 … size − 1 for each replica, int32; each as probable as any other, to 2⁻⁶³ size³."""
    # Random numbers of 63 bits are sorted; the lowest of them make place for the index, so that no two are equal.
    bits = max(1, (size - 1).bit_length())
    index = torch.arange(size, device=rows.device)
    count = (size + 1) // 2

    def draw(some: Tensor, blocks: Tensor) -> Tensor:
        high, low = (half[:, :size] for half in _paired(some, blocks))
        numbers = (high >> 1) << 32 | low
        return ((numbers >> bits << bits | index).sort(1).values & ((1 << bits) - 1)).to(torch.int32)

    return _in_pieces(draw, rows, number * count, count)


def integers(rows: Tensor, below: Tensor, first: int, steps: int) -> Tensor:
    """Return ⌊below · u⌋ with 64 bits of u, shape (replica, step, number), each `below` at most 2³⁰."""
    size = len(below)
    per_step = (size + 1) // 2

    def draw(some: Tensor, blocks: Tensor) -> Tensor:
        high, low = (half.reshape(len(some), steps, 2 * per_step)[..., :size] for half in _paired(some, blocks))
        return (high * below + (low * below >> 32)) >> 32

    return _in_pieces(draw, rows, first * per_step, steps * per_step)


def distinct_integers(rows: Tensor, below: int, size: int, first: int, steps: int) -> Tensor:
    """Return `size` whole numbers a step of which none comes twice, in no random order, shape (replica, step, size)."""
    # Few are drawn by Floyd's algorithm (Bentley & Floyd 1987, doi 10.1145/30401.315746), many as the first of a permutation.
    if size * size > 32 * below:
        found = [permutations(rows, below, step)[:, :size] for step in range(first, first + steps)]
        return torch.stack(found, 1).to(torch.int64)
    last = torch.arange(below - size, below, device=rows.device)
    chosen = integers(rows, last + 1, first, steps)
    for place in range(1, size):
        taken = (chosen[..., :place] == chosen[..., place, None]).any(-1)
        chosen[..., place] = torch.where(taken, last[place], chosen[..., place])
    return chosen


def normals(rows: Tensor, size: int, first: int, steps: int) -> Tensor:
    """Return independent N(0, 1), up to 6.6 standard deviations, float32, shape (replica, step, size)."""
    # By the transform of Box & Muller (1958, doi 10.1214/aoms/1177706645). Where `size` is a multiple of 4 they are those of
    # `langevin_nn.kernels.normals.draw_normals`; otherwise every step leaves out the last of a block.
    per_step = (size + 3) // 4

    def draw(some: Tensor, blocks: Tensor) -> Tensor:
        drawn = words(some, blocks)
        radial, angular = drawn[::2], drawn[1::2]
        uniform = ((radial >> 1).to(torch.float32) + 0.5) * 2**-31
        radius = (-2 * uniform.log()).sqrt()
        # Two bits choose the quarter, the next 23 an angle within ±π/4 of it.
        quarter, within = angular >> 30, (angular & (2**30 - 1)) >> 7
        angle = (quarter.to(torch.float32) + (within.to(torch.float32) * 2**-23 - 0.5)) * (math.pi / 2)
        pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)  # (pair, replica, block, 2)
        in_order = pairs.permute(1, 2, 0, 3).reshape(len(some), steps, 4 * per_step)
        return in_order[..., :size]

    return _in_pieces(draw, rows, first * per_step, steps * per_step)


class Draws(ABC):
    """Random numbers of some updates, at whose addresses they are, whoever makes them.

    Parameters
    ----------
    keys : sequence of Key
        Addresses of the first update, all of one step; the replicas of all of them, in order.
    like : Tensor
        Weights: as precise as what is made of the numbers is to be, and where it is used.
    """

    def __init__(self, keys: Sequence[Key], like: Tensor) -> None:
        self._keys, self._like = tuple(keys), like

    @property
    def step(self) -> int:
        """Updates made before the first."""
        return self._keys[0].step

    @abstractmethod
    def normals(
        self, purpose: str, size: int, steps: int, *, centred: bool = False, scale: float = 1, shift: float = 0
    ) -> Tensor:
        """Return independent N(0, 1).

        Parameters
        ----------
        purpose : str
            What the numbers are for.
        size : int
            How many each replica needs for an update.
        steps : int
            How many updates.
        centred : bool, optional
            Whether their mean over each row is taken from them.
        scale, shift : float, optional
            What then multiplies them, and what is added: cheaper here than to a tensor, where numbers are few.

        Returns
        -------
        Tensor of float32, shape (step, replica, size)
            Fresh, to be changed in place.
        """

    @abstractmethod
    def choices(self, purpose: str, n: int, size: int, steps: int, *, replacement: bool = False) -> Tensor:
        """Return whole numbers below another, each set of them as probable as any other.

        Parameters
        ----------
        purpose : str
            What the numbers are for.
        n : int
            From 0 to this less 1.
        size : int
            How many each replica needs for an update.
        steps : int
            How many updates.
        replacement : bool, optional
            Whether one may come twice in an update.

        Returns
        -------
        Tensor of int64, shape (step, replica, size)
            Their order is not random.
        """

    @abstractmethod
    def permutations(self, purpose: str, size: int, number: int) -> Tensor:
        """Return a permutation for each replica.

        Parameters
        ----------
        purpose : str
            What it is for.
        size : int
            Of what, 0 … size − 1.
        number : int
            Which of the replica's, whatever the update.

        Returns
        -------
        Tensor of int32 or int64, shape (replica, size)
            Each as probable as any other.
        """

    def generators(self, purpose: str, steps: int) -> Iterator[np.random.Generator]:
        """Yield NumPy's generators, for laws that are not among these.

        Parameters
        ----------
        purpose : str
            What the numbers are for.
        steps : int
            How many updates.

        Yields
        ------
        numpy.random.Generator
            One for each replica of the first update, then of the next.
        """
        for key in self._updates(self.step, steps):
            yield from key.generators(purpose)

    def _updates(self, first: int, steps: int) -> list[Key]:
        """Return the addresses of so many updates, one after the other: of the present one the very keys that came."""
        return [
            key if number == key.step else Key(key.seeds, key.replicas, number)
            for number in range(first, first + steps)
            for key in self._keys
        ]

    @property
    def n_replicas(self) -> int:
        """Replicas for which numbers are drawn, of all processes together."""
        return sum(len(each.replicas) for each in self._keys)

    def tensor(self, values: Any) -> Tensor:
        """Return what was made of numbers as weights are: as precise, and where they are.

        Parameters
        ----------
        values : array or Tensor
            Of any shape; whole numbers stay whole.

        Returns
        -------
        Tensor
            The same numbers.
        """
        found = torch.as_tensor(values)
        return found.to(self._like) if found.is_floating_point() else found.to(self._like.device)

    def full(self, shape: Sequence[int], value: float) -> Tensor:
        """Return one number everywhere, as `tensor` does.

        Parameters
        ----------
        shape : sequence of int
            Of what is returned.
        value : float
            The number.

        Returns
        -------
        Tensor
            Of this shape.
        """
        return torch.full(tuple(shape), value, dtype=self._like.dtype, device=self._like.device)


class NumPyDraws(Draws):
    """Numbers of NumPy's generators, made on the CPU."""

    def normals(  # noqa: D102
        self, purpose: str, size: int, steps: int, *, centred: bool = False, scale: float = 1, shift: float = 0
    ) -> Tensor:
        pieces = [key.normals(purpose, size) for key in self._updates(self.step, steps)]
        drawn = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        if centred:
            # drawn.mean, whose Python takes as long as a sum.
            drawn -= np.add.reduce(drawn, axis=1, keepdims=True) / size
        if (scale, shift) != (1, 0):
            drawn *= scale
            drawn += shift
        return torch.from_numpy(drawn.reshape(steps, -1, size))

    def choices(self, purpose: str, n: int, size: int, steps: int, *, replacement: bool = False) -> Tensor:  # noqa: D102
        rows = [g.choice(n, size, replace=replacement, shuffle=False) for g in self.generators(purpose, steps)]
        return torch.as_tensor(np.stack(rows).reshape(steps, -1, size))

    def permutations(self, purpose: str, size: int, number: int) -> Tensor:  # noqa: D102
        there = self._updates(number, 1)
        return torch.as_tensor(np.stack([g.permutation(size) for key in there for g in key.generators(purpose)]))


class PhiloxDraws(Draws):
    """Numbers of Philox, made where they are used, of many updates and replicas at once."""

    def normals(  # noqa: D102
        self, purpose: str, size: int, steps: int, *, centred: bool = False, scale: float = 1, shift: float = 0
    ) -> Tensor:
        drawn = normals(self._rows(purpose), size, self.step, steps)
        if centred:
            drawn -= drawn.mean(2, keepdim=True)
        if (scale, shift) != (1, 0):
            drawn.mul_(scale).add_(shift)
        return drawn.transpose(0, 1)

    def choices(self, purpose: str, n: int, size: int, steps: int, *, replacement: bool = False) -> Tensor:  # noqa: D102
        rows = self._rows(purpose)
        if replacement:
            drawn = integers(rows, torch.full((size,), n, device=rows.device), self.step, steps)
        else:
            drawn = distinct_integers(rows, n, size, self.step, steps)
        return drawn.transpose(0, 1)

    def permutations(self, purpose: str, size: int, number: int) -> Tensor:  # noqa: D102
        return permutations(self._rows(purpose), size, number)

    def _rows(self, purpose: str) -> Tensor:
        return addresses(self._keys, purpose, self._like.device)


def draws_at(key: Key, like: Tensor) -> Draws:
    """Return the random numbers at an address: Philox's on a GPU, NumPy's elsewhere.

    Parameters
    ----------
    key : Key
        Of the first update.
    like : Tensor
        Weights, as precise and where numbers are used.

    Returns
    -------
    Draws
        Of the replicas of the key.

    Examples
    --------
    >>> from langevin_nn.seeds import Seeds
    >>> draws = draws_at(Key(Seeds(7), (0, 3), step=10), like=torch.zeros(2, 5))
    >>> first = draws.normals("noise", 4, steps=1)
    >>> torch.equal(first, draws.normals("noise", 4, steps=1)), tuple(first.shape)
    (True, (1, 2, 4))
    """
    return (PhiloxDraws if like.device.type == "cuda" else NumPyDraws)([key], like)
