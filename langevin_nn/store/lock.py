"""One writer a run: a lock that dies with its process."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from langevin_nn.errors import RunInUse

try:
    import fcntl
except ImportError:  # a system without POSIX locks: owners are told apart by what the file says
    fcntl = None  # type: ignore[assignment]

__all__ = ["RunLock", "is_written", "owner_of", "runs_here", "this_process"]

_LOCKS: bool = fcntl is not None

_NAME = "lock"
_SILENCE = 600.0  # seconds after which a writer on another machine counts as dead


def _process_start(process: int) -> str:
    """Return when a process began, as the kernel counts it: numbers of processes are used again."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def this_process() -> dict[str, object]:
    """Return by what this process is known to others that look at a folder: ``host``, ``process`` and ``process_start``."""
    return {"host": socket.gethostname(), "process": os.getpid(), "process_start": _process_start(os.getpid())}


def runs_here(owner: Mapping[str, object]) -> bool:
    """Return whether the process that `this_process` told of lives on this machine, and none that has its number by now."""
    process = int(str(owner.get("process", 0)))
    if process <= 0:  # which would ask for a group of processes
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        pass
    return _process_start(process) == owner.get("process_start", _process_start(process))


class RunLock:
    """Holds the folder of a run for this process until it is released or the process ends, however it ends.

    The operating system's advisory lock goes with the process; the file says who holds it, for the message, and for
    machines that share the folder but not their locks: there a writer that has not renewed it for ten minutes is taken
    for dead. Raises RunInUse if another process writes the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        while True:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._hold()
                # A writer that has just finished may have removed the file that was opened.
                if self._is_current():
                    break
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)
        owner = {**this_process(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        self._content = json.dumps(owner).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, self._content, 0)

    def _hold(self) -> None:
        owner = owner_of(self._path.parent)
        if _LOCKS:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise RunInUse(self._message(owner or {})) from None
                # A file system without locks: what the file says has to do.
        if owner is None:
            return
        if owner.get("host") == socket.gethostname():
            # On this machine the lock itself has answered, where there are locks.
            alive = not _LOCKS and runs_here(owner)
        else:
            alive = time.time() - self._path.stat().st_mtime < _SILENCE
        if alive:
            raise RunInUse(self._message(owner))

    def _message(self, owner: dict[str, object]) -> str:
        who = f"process {owner.get('process', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}"
        return (
            f"{str(self._path.parent)!r} is being written by {who}: expected one writer a run, since two would mix their "
            "records; wait for it or stop it, or write to another path"
        )

    def _is_current(self) -> bool:
        try:
            here = os.stat(self._path)
        except FileNotFoundError:
            return False
        return here.st_ino == os.fstat(self._descriptor).st_ino

    def renew(self) -> None:
        """Say that the writer is alive; raise RunInUse where another process has taken the run over."""
        # Somebody may have written into the lock, or have removed it with the folder and begun anew.
        lost = os.pread(self._descriptor, len(self._content) + 1, 0) != self._content
        if lost or (self._path.exists() and not self._is_current()):
            raise RunInUse(self._message(owner_of(self._path.parent) or {}))
        os.utime(self._descriptor)

    def release(self) -> None:
        """Give the run free; the file goes, so that nobody waits for it."""
        if self._descriptor < 0:
            return
        with suppress(OSError):  # a disk that has become read-only; the system's lock goes in any case
            if self._is_current():
                self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1


def is_written(folder: Path) -> bool:
    """Return whether somebody writes a run, as its lock tells, on other machines by when that was last renewed."""
    owner = owner_of(folder)
    if owner is not None and owner.get("host") == socket.gethostname():
        return runs_here(owner)
    with suppress(OSError):
        return owner is not None and time.time() - (folder / _NAME).stat().st_mtime < _SILENCE
    return False


def owner_of(folder: Path) -> dict[str, object] | None:
    """Return ``host``, ``process`` and ``since`` of who writes a run, or did so last; None where nobody does."""
    try:
        owner = json.loads((folder / _NAME).read_text())
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None
