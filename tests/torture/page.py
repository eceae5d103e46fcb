"""A page of memory that a worker shares with its watcher, and that outlives the worker: what it was doing when it died."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

KINDS = (
    "starting",
    "block of steps",
    "measurement",
    "segment",
    "state",
    "manifest",
    "merging segments",
    "final file",
    "cleaning",
    "removing",
    "between",
)
FILES = ("segment", "state", "manifest", "merging segments", "final file")
ACTIONS = ("", "made in memory", "written", "flushed", "renamed", "in its place")
_SLOTS = ("kind", "action", "announced", "committed", "announced_until", "committed_until", "recorded", "merges")
_SIZE = 4096


class Page:
    """Numbers in a file that is mapped into memory: the kernel keeps what was written last, whoever is killed."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE)
        self._numbers = np.frombuffer(self._memory, dtype=np.int64)

    def __getitem__(self, slot: str) -> int:
        return int(self._numbers[_SLOTS.index(slot)])

    def __setitem__(self, slot: str, number: int) -> None:
        self._numbers[_SLOTS.index(slot)] = number

    def entries(self, kind: str) -> int:
        """Return how often the worker began something."""
        return int(self._numbers[len(_SLOTS) + KINDS.index(kind)])

    @property
    def doing(self) -> tuple[str, str]:
        """What the worker does, or did when it died."""
        return KINDS[self["kind"]], ACTIONS[self["action"]]

    def begin(self) -> None:
        """Forget everything: a worker starts."""
        self._numbers[:] = 0
        for slot in ("announced", "committed", "announced_until", "committed_until", "recorded"):
            self[slot] = -1

    @contextmanager
    def inside(self, kind: str, action: str = "") -> Iterator[None]:
        """Say what is being done, until it is done; an error leaves it as a death would."""
        before = self["kind"], self["action"]
        self._numbers[len(_SLOTS) + KINDS.index(kind)] += 1
        self["action"], self["kind"] = ACTIONS.index(action), KINDS.index(kind)
        yield
        self["kind"], self["action"] = before

    def now(self, action: str) -> None:
        """Say how far one has come with what is being done."""
        self["action"] = ACTIONS.index(action)
