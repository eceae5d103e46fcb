"""Random numbers are addressed, not consumed: seed × purpose × replica × step names each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin_nn.checks import is_number, listed, shown, whole_number
from langevin_nn.errors import ConfigurationError

__all__ = ["Key", "Seeds", "as_replicas", "as_seeds"]

_MOST_REPLICAS = 10_000_000  # their indices are listed in memory


@lru_cache(maxsize=65536)
def _philox_key(seed: int, purpose: str, replica: int) -> int:
    digest = blake2b(f"{seed}/{purpose}/{replica}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True)
class Seeds:
    """The one tree that owns all randomness of a run.

    The counter-based generator Philox (Salmon et al. 2011, doi 10.1145/2063384.2063405) makes the numbers of any
    (purpose, replica, step) available without those before them: replica 3 is the same whether 4 or 400 run,
    measuring changes nothing, and a resumed run needs no generator state.

    Parameters
    ----------
    seed : int
        Any integer of at most 128 bits, as many as the generator's key has.

    Raises
    ------
    ConfigurationError
        If it is none.

    Examples
    --------
    >>> seeds = Seeds(7)
    >>> first = seeds.generator("noise", replica=3, step=10).standard_normal(2)
    >>> _ = seeds.generator("noise", replica=0, step=0).standard_normal(1000)
    >>> again = seeds.generator("noise", replica=3, step=10).standard_normal(2)
    >>> bool((first == again).all())
    True
    """

    seed: int

    def __post_init__(self) -> None:
        expected = (
            "a whole number (int) of at most 128 bits, or Seeds, the owner of all randomness; a run without a seed of its "
            "own cannot be repeated, so choose any number"
        )
        object.__setattr__(self, "seed", whole_number("seed", self.seed, expected, least=-(2**127), most=2**128 - 1))

    def generator(self, purpose: str, replica: int, step: int = 0) -> np.random.Generator:
        """Return the generator at an address.

        Parameters
        ----------
        purpose : str
            What the numbers are for; distinct purposes are independent streams.
        replica : int
            Index of the replica.
        step : int, optional
            Number of updates made before, or any other non-negative index below 2⁶⁴.

        Returns
        -------
        numpy.random.Generator
            Fresh, at the first of 2¹⁹² numbers that belong to this address.

        Raises
        ------
        ConfigurationError
            If there is no such step.
        """
        if not 0 <= step < 2**64:
            raise ConfigurationError(f"step={step}: expected 0 to 2⁶⁴ − 1, the addresses that there are")
        key = _philox_key(self.seed, purpose, replica)
        counter = np.array([0, 0, 0, step], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def key(self, purpose: str) -> int:
        """Return the 64-bit key under which kernels draw the numbers of all replicas and steps.

        Parameters
        ----------
        purpose : str
            What the numbers are for.

        Returns
        -------
        int
            Non-negative, below 2⁶⁴; replica and step are the counter.
        """
        return _philox_key(self.seed, purpose, -1) >> 64

    def integer(self, purpose: str, replica: int) -> int:
        """Return a 63-bit integer for libraries that take nothing but a seed.

        Parameters
        ----------
        purpose : str
            What the numbers are for.
        replica : int
            Index of the replica.

        Returns
        -------
        int
            Non-negative, below 2⁶³.
        """
        return _philox_key(self.seed, purpose, replica) >> 65


@dataclass(frozen=True)
class Key:
    """The address of one update of several replicas, from which every noise source draws.

    Parameters
    ----------
    seeds : Seeds
        The tree of randomness.
    replicas : tuple of int
        Indices of the replicas that advance together.
    step : int
        Number of updates made before this one.
    """

    seeds: Seeds
    replicas: tuple[int, ...]
    step: int

    def of_part(self, number: int) -> Key:
        """Return the address from which one of several sources draws for the same update.

        Parameters
        ----------
        number : int
            Which, from 0, whose numbers are those that it draws alone.

        Returns
        -------
        Key
            With numbers that are independent of those of the others.
        """
        return self if not number else replace(self, seeds=Seeds(self.seeds.integer(f"part {number} of a sum", 0)))

    def generators(self, purpose: str) -> Iterator[np.random.Generator]:
        """Yield one fresh generator for each replica.

        Parameters
        ----------
        purpose : str
            What the numbers are for.

        Yields
        ------
        numpy.random.Generator
            At the address (purpose, replica, step).
        """
        for replica in self.replicas:
            yield self.seeds.generator(purpose, replica, self.step)

    def normals(self, purpose: str, size: int, dtype: type = np.float32) -> NDArray[np.floating]:
        """Draw independent standard normal numbers.

        Parameters
        ----------
        purpose : str
            What the numbers are for.
        size : int
            How many numbers each replica needs.
        dtype : type, optional
            ``numpy.float32`` or ``numpy.float64``; they are drawn in that precision.

        Returns
        -------
        ndarray, shape (replica, size)
            Independent N(0, 1).
        """
        draws: NDArray[np.floating] = np.empty((len(self.replicas), size), dtype=dtype)
        for row, generator in zip(draws, self.generators(purpose), strict=True):
            generator.standard_normal(out=row, dtype=dtype)
        return draws

    def counted_normals(self, purpose: str, size: int, dtype: type = np.float64) -> NDArray[np.floating]:
        """Draw the standard normal numbers that integrators draw for this update, from one counter for all steps.

        Parameters
        ----------
        purpose : str
            What the numbers are for.
        size : int
            How many numbers each replica needs for any update.
        dtype : type, optional
            ``numpy.float32`` or ``numpy.float64``: different numbers, not the same ones rounded.

        Returns
        -------
        ndarray, shape (replica, size)
            Independent N(0, 1), other ones than `normals`.
        """
        from langevin_nn.kernels.normals import draw_normals

        return draw_normals(self.replicas, self.seeds.key(purpose), self.step, 1, size, dtype)[:, 0]


def as_seeds(seed: int | Seeds) -> Seeds:
    """Return the tree of randomness of a seed.

    Parameters
    ----------
    seed : int or Seeds
        A number, or the tree itself.

    Returns
    -------
    Seeds
        The tree.

    Raises
    ------
    ConfigurationError
        If the seed is no whole number.
    """
    return seed if isinstance(seed, Seeds) else Seeds(seed)


def as_replicas(replicas: Any) -> tuple[int, ...]:
    """Return the indices of replicas, each of them once.

    Parameters
    ----------
    replicas : int or iterable of int
        How many, or the indices of which.

    Returns
    -------
    tuple of int
        At least one.

    Raises
    ------
    ConfigurationError
        If there is none, one comes twice, or one is no whole number from 0.
    """
    expected = (
        f"how many (int), at most {_MOST_REPLICAS:,}, or the indices of which, whole numbers from 0, since they address the "
        "randomness of each replica; pass 4 or [0, 3], for example"
    )
    if is_number(replicas, Integral) and replicas <= _MOST_REPLICAS:
        chosen = tuple(range(int(replicas)))
    else:
        chosen = listed("replicas", replicas, expected)
        if not all(is_number(each, Integral) and 0 <= each < 2**63 for each in chosen):
            raise ConfigurationError(f"replicas={shown(replicas)}: expected {expected}")
    if not chosen:
        raise ConfigurationError(f"replicas={shown(replicas)}: expected at least one")
    if len(set(chosen)) < len(chosen):
        raise ConfigurationError(
            f"replicas={shown(replicas)}: expected each index once, since two replicas of one index draw the same noise and "
            "are copies of each other; leave the repeated ones out"
        )
    return tuple(int(each) for each in chosen)
