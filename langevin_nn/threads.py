"""One thread for each matrix product, so that results do not depend on how many threads there are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from math import inf
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["WORTH_A_THREAD", "row_by_row", "side_by_side", "single_threaded_products"]

# Multiplications, about a millisecond.
WORTH_A_THREAD = 10_000_000

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _threads_of_kernels() -> int:
    """Return how many threads spread replicas; here and not above, since loading Numba takes a moment."""
    import numba

    return int(numba.get_num_threads())


class _Limit:
    """The limit is the process's own: set by the first who asks for it, lifted by the last who leaves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._held = ExitStack()

    def take(self) -> None:
        with self._lock:
            if self._holders == 0:
                before = torch.get_num_threads()
                _threads_of_kernels()  # starts its threads, which sets OpenMP's number of them: not while the limit holds
                torch.set_num_threads(1)
                self._held.callback(torch.set_num_threads, before)
                self._held.enter_context(_controller().limit(limits=1, user_api="blas"))
            self._holders += 1

    def leave(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._held.close()


_limit = _Limit()


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Hold BLAS and torch to one thread each; kernels still spread replicas over all threads.

    A matrix product that is split over threads rounds differently for each number of threads. One thread a product
    makes a replica's bits depend on its own numbers alone, and keeps BLAS from starting threads inside those of a
    kernel, where it may hang. May be nested, and entered from several threads.

    Yields
    ------
    None
        While the limit holds.
    """
    _limit.take()
    try:
        yield
    finally:
        _limit.leave()


def row_by_row(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return rows @ matrix, each row by itself: a product of all of them rounds a row otherwise in other company.

    Parameters
    ----------
    rows : Tensor, shape (replica, m)
        One a replica.
    matrix : Tensor, shape (m, n)
        The same for all.

    Returns
    -------
    Tensor, shape (replica, n)
        Of each row the bits that it has alone.
    """
    return torch.bmm(rows[:, None], matrix.expand(len(rows), -1, -1))[:, 0]


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, f"langevin_nn-{process}", lambda: torch.set_num_threads(1))


def side_by_side(
    function: Callable[[Item], Result], items: Iterable[Item], multiplications: float = inf
) -> list[Result]:
    """Return function(item) for each item, spread over as many threads as kernels have.

    Only where `single_threaded_products` holds, as in a run: elsewhere one item comes after the other, and products
    have the threads to themselves, as torch gives them.

    Parameters
    ----------
    function : callable
        What is evaluated. To gain from threads it must spend its time outside of Python, in operations of torch, say.
    items : iterable
        Of what.
    multiplications : float, optional
        Of one item, roughly. Fewer than `WORTH_A_THREAD` take less time than Python around them, whose threads wait for one
        another: such items come one after the other.

    Returns
    -------
    list
        The results, in order, with the same bits for any number of threads.
    """
    items = list(items)
    few = multiplications < WORTH_A_THREAD
    if few or torch.get_num_threads() > 1 or min(_threads_of_kernels(), len(items)) < 2:
        return [function(item) for item in items]
    return list(_pool(_threads_of_kernels(), os.getpid()).map(function, items))
