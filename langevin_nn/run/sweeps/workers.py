"""Where tasks run: in this process, on local workers, or on a cluster that somebody else manages."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numba
import torch

from langevin_nn.checks import kind_of, shown
from langevin_nn.errors import ConfigurationError

__all__ = ["Executor", "executor"]

_TICK = 0.05  # seconds


class Executor(ABC):
    """Runs tasks, so many workers at a time."""

    workers: int

    @abstractmethod
    def run(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any] | None]:
        """Yield each task that has ended with its result, or its worker's exception; None where nothing has for a while."""


class _Here(Executor):
    """One after the other, in this process, with all its threads."""

    workers = 1

    def run(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any] | None]:
        for number, arguments in enumerate(tasks):
            yield number, function(*arguments)


class _Dask(Executor):
    """On workers of Dask, held to one thread each or not."""

    def __init__(self, client: Any, one_thread: bool) -> None:
        self._client, self._one_thread = client, one_thread
        self.workers = max(1, sum(client.nthreads().values()))

    def run(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any] | None]:
        import cloudpickle

        # As bytes: what a worker cannot read fails there as a task, rather than as a connection.
        futures = {
            self._client.submit(
                _called, cloudpickle.dumps((function, arguments)), self._one_thread, pure=False, priority=-number
            ): number
            for number, arguments in enumerate(tasks)
        }
        try:
            while futures:
                ended = [future for future in futures if future.done()]
                for future in ended:
                    number = futures.pop(future)
                    yield number, future.exception() if future.status == "error" else future.result()
                if not ended:
                    yield None
                    time.sleep(_TICK)
        finally:
            if futures:
                self._client.cancel(list(futures), force=True)


def _called(packed: bytes, one_thread: bool) -> Any:
    """Run a task on a worker; local ones have a core each."""
    if one_thread:
        numba.set_num_threads(1)
        torch.set_num_threads(1)
    function, arguments = pickle.loads(packed)
    return function(*arguments)


@contextmanager
def executor(workers: int | None, scheduler: Any, tasks: int) -> Iterator[Executor]:
    """Return where tasks run, for as long as they do: here, on local workers, or on those of a scheduler."""
    if scheduler is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        wanted = min(cores if workers is None else workers, max(1, tasks))
        if wanted <= 1:
            yield _Here()
            return
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ConfigurationError(
            "sweeps over several workers need Dask, which is not installed: expected the package distributed; install "
            "'langevin_nn[sweep]', or pass workers=1 to run in this process"
        ) from error
    client: Any = distributed.Client
    local: Any = distributed.LocalCluster
    with ExitStack() as stack:
        if scheduler is not None:
            yield _Dask(stack.enter_context(_client(client, scheduler)), one_thread=False)
            return
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="langevin_nn-sweep-"))
        stack.enter_context(
            dask.config.set(
                {
                    "temporary-directory": place,
                    # A kernel may hold a worker for longer than the scheduler would wait for a sign of life.
                    "distributed.scheduler.worker-ttl": None,
                    "distributed.admin.tick.limit": "1h",
                }
            )
        )
        stack.enter_context(_alone())
        cluster = stack.enter_context(
            local(
                n_workers=wanted,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                # Any free port of this machine alone, without a word: several sweeps may run at once.
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.CRITICAL,
                memory_limit=0,
            )
        )
        yield _Dask(stack.enter_context(client(cluster, set_as_default=False)), one_thread=True)


@contextmanager
def _client(kind: Any, scheduler: Any) -> Iterator[Any]:
    if isinstance(scheduler, kind):
        yield scheduler
        return
    expected = (
        "expected the address of a Dask scheduler such as 'tcp://host:8786', a Client or a cluster; start one, or leave it "
        "out for local workers"
    )
    if not (isinstance(scheduler, str) and "://" in scheduler) and not hasattr(scheduler, "scheduler_address"):
        raise ConfigurationError(f"scheduler={shown(scheduler)} ({kind_of(scheduler)}): {expected}")
    try:
        client = kind(scheduler, set_as_default=False, timeout="30s")
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"scheduler={shown(scheduler)} does not answer ({type(error).__name__}: {error}): {expected}"
        ) from error
    with client:
        yield client


@contextmanager
def _alone() -> Iterator[None]:
    """Keep workers from importing the user's script again: it would start the sweep once more in each of them."""
    main = sys.modules["__main__"]
    kept = {name: vars(main).pop(name) for name in ("__file__",) if name in vars(main)}
    spec, main.__spec__ = getattr(main, "__spec__", None), None
    try:
        yield
    finally:
        vars(main).update(kept)
        main.__spec__ = spec
