"""Disks that fill, become read-only or lose a folder while a run writes to them."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from langevin_nn import open_trajectory, simulate
from langevin_nn.errors import StorageError
from langevin_nn.store import segments, trajectory
from langevin_nn.store.segments import folder_of

from . import worker
from .kills import ROOT, Caught, check_prefix, check_same_file, finish, started, workers
from .page import Page

STOPPED = 3  # exit code of a run that a StorageError ended
_PATIENCE = 120


class Unavailable(Exception):
    """This machine does not let a process do what a test needs."""


@contextmanager
def small_disk(folder: Path, size: str = "4m") -> Iterator[Path]:
    """Mount a disk of a few megabytes, where the process may mount one."""
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        raise Unavailable("mounting a small disk needs the superuser")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise Unavailable(f"no small disk can be mounted: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


# --- What happens inside the process that writes ----------------------------------------------------------------------


def _fill(path: Path, left: int) -> None:
    """Fill the disk but for some bytes."""
    free = shutil.disk_usage(path.parent).free - left
    (path.parent / "ballast").write_bytes(bytes(max(0, free)))


def _make_read_only(path: Path, left: int) -> None:
    if os.geteuid() == 0:  # may write anywhere but where the mount says no
        subprocess.run(["mount", "--bind", str(path.parent), str(path.parent)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path.parent)], check=True)
    else:
        folder_of(path).chmod(0o555)


def _make_writable(path: Path) -> None:
    if os.geteuid() == 0:
        subprocess.run(["umount", "--lazy", str(path.parent)], check=True)
    else:
        folder_of(path).chmod(0o755)


SABOTAGES: dict[str, Callable[[Path, int], None]] = {
    "limit": lambda _, left: resource.setrlimit(
        resource.RLIMIT_FSIZE, (left, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    ),
    "fill": _fill,
    "read-only": _make_read_only,
    "remove": lambda path, _: shutil.rmtree(folder_of(path)),
    "die": lambda *_: os.kill(os.getpid(), signal.SIGKILL),
}


def suffer(sabotage: str, at: int, left: int, path: str, sender: Any = None) -> None:
    """Run the small surrogate and do something to its disk before a commitment, or before its file where `at` is 0."""
    worker.be_modest()
    done, calls = partial(SABOTAGES[sabotage], Path(path), left), 0

    def committing(inner: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            done()
        return inner(*arguments)

    def finishing(inner: Any, *arguments: Any, **keywords: Any) -> Any:
        if at == 0:
            done()
        return inner(*arguments, **keywords)

    worker.wrap(segments.SegmentFolder, "commit", committing)
    worker.wrap(trajectory, "write_netcdf", finishing)
    run = worker.VARIANTS[worker.SMALL]()
    try:
        simulate(run.pop("process"), **run, resume=path, segment_seconds=0, progress=False)
    except StorageError as error:
        # The message by way of a pipe, which no limit on files bounds.
        if sender is None:
            sys.stderr.write(f"{error}\n")
        else:
            sender.send(str(error))
        sys.exit(STOPPED)


# --- What is seen from outside ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stop:
    """How a run ended that lost its disk: the code of its exit, and its last line."""

    code: int
    said: str


def suffered(sabotage: str, at: int, left: int, path: Path, own_interpreter: bool) -> Stop:
    """Run `suffer`, in an interpreter of its own where its end counts, too."""
    if not own_interpreter:
        receiver, sender = workers().Pipe(duplex=False)
        process = started(suffer, sabotage, at, left, str(path), sender)
        sender.close()
        with receiver:
            said = receiver.recv() if receiver.poll(_PATIENCE) else ""
        process.join(_PATIENCE)
        return Stop(process.exitcode, said)
    command = [sys.executable, "-m", f"{__package__}.disks", sabotage, str(at), str(left), str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, env=environment, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired as error:
        raise Caught(f"a run whose disk failed did not end within {_PATIENCE} s: {error.stderr}") from None
    lines = ended.stderr.strip().splitlines()
    return Stop(ended.returncode, lines[-1] if lines else "")


def check_stop(stop: Stop, path: Path, reference: Path, at: int, reason: str) -> None:
    """Raise unless a run stopped with a clear error, kept what it had committed, and left no part of a file."""
    if stop.code != STOPPED or reason not in stop.said or "make room" not in stop.said:
        raise Caught(f"a run whose disk failed ended with {stop}: expected {reason!r} and what to do")
    parts = [each.name for each in path.parent.rglob(".*.part")]
    if parts or path.exists():
        raise Caught(f"beside the segments lie {parts or path}: expected no part of a file")
    with open_trajectory(reference) as whole:
        tree = open_trajectory(path)
        # The first commitment is that of the start, without records.
        last = whole.sizes["step"] - 1 if at == 0 else at - 3
        check_prefix(tree, whole, int(whole["step"].values[last]))
        tree.close()


def check_goes_on(path: Path, reference: Path, page: Path) -> None:
    """Raise unless a run goes on to the bits of one that lost no disk."""
    Page(page)
    code = finish(started(worker.work, worker.SMALL, str(path), str(page)), page)
    if code:
        raise Caught(f"the run that went on ended with {code}")
    check_same_file(path, reference)
    if folder_of(path).exists():
        raise Caught("the run that went on left its segments behind")


def limited(folder: Path, reference: Path, at: int, left: int, own_interpreter: bool = True) -> str:
    """Meet a limit on the size of files, and go on without; return what was said."""
    folder.mkdir()
    path = folder / "run.nc"
    stop = suffered("limit", at, left, path, own_interpreter)
    check_stop(stop, path, reference, at, "cannot be written")
    check_goes_on(path, reference, folder / "page")
    return stop.said


def filled(folder: Path, reference: Path, at: int, left: int, own_interpreter: bool = True) -> str:
    """Fill a small disk, make room, and go on; return what was said."""
    with small_disk(folder) as disk:
        path = disk / "run.nc"
        stop = suffered("fill", at, left, path, own_interpreter)
        check_stop(stop, path, reference, at, "cannot be written")
        (disk / "ballast").unlink()
        check_goes_on(path, reference, disk / "page")
    return stop.said


def read_only(folder: Path, reference: Path, at: int, own_interpreter: bool = True) -> str:
    """Make the folder read-only for a while; return what was said."""
    folder.mkdir()
    path = folder / "run.nc"
    stop = suffered("read-only", at, 0, path, own_interpreter)
    if stop.code == 1:
        raise Unavailable("nothing can be made read-only for the superuser, who may not mount here")
    try:
        check_stop(stop, path, reference, at, "read-only" if os.geteuid() == 0 else "may not be written")
    finally:
        _make_writable(path)
    check_goes_on(path, reference, folder / "page")
    return stop.said


def vanished(folder: Path, reference: Path, at: int, own_interpreter: bool = True) -> str:
    """Remove the run's folder under it; return what was said."""
    folder.mkdir()
    path = folder / "run.nc"
    stop = suffered("remove", at, 0, path, own_interpreter)
    if stop.code != STOPPED or "the folder has vanished" not in stop.said:
        raise Caught(f"a run whose folder vanished ended with {stop}")
    if beside := sorted(each.name for each in folder.iterdir()):
        raise Caught(f"a run whose folder vanished left {beside}")
    check_goes_on(path, reference, folder / "page")
    return stop.said


def remains(folder: Path, at: int) -> Path:
    """Return the path of a run that was killed before a commitment."""
    folder.mkdir()
    path = folder / "run.nc"
    process = started(suffer, "die", at, 0, str(path))
    process.join(_PATIENCE)
    if process.exitcode != -signal.SIGKILL:
        raise Caught(f"a run that was to be killed ended with {process.exitcode}")
    return path


if __name__ == "__main__":
    suffer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
