"""One thread for each matrix product, so that results do not depend on how many threads there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["single_threaded_products"]


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


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
