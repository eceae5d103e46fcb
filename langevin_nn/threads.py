"""One thread for each matrix product, so that results do not depend on how many threads there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["single_threaded_products"]


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Hold BLAS and torch to one thread each; kernels still spread replicas over all threads.

    A matrix product that is split over threads rounds differently for each number of threads. One thread a product
    makes a replica's bits depend on its own numbers alone.

    Yields
    ------
    None
        While the limit holds.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
