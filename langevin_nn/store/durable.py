"""Files that appear whole or not at all, and survive a loss of power once they are there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from langevin_nn.errors import StorageError

__all__ = ["aside_of", "publish", "storage_errors", "write_durably"]

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file would be larger than the limit on file sizes allows",
    errno.ENOENT: "the folder has vanished",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "the folder may not be written",
    errno.EPERM: "the folder may not be written",
}


@contextmanager
def storage_errors(path: Path, kept: str) -> Iterator[None]:
    """Turn errors of the file system into one that says what remains.

    Parameters
    ----------
    path : Path
        What is being written.
    kept : str
        Where earlier records are, and how to go on.

    Yields
    ------
    None
        While it is written.

    Raises
    ------
    StorageError
        In the place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"{str(path)!r} cannot be written: {reason}; {kept}") from error


def aside_of(path: Path) -> Path:
    """Return the name under which a file is made before it is published.

    Parameters
    ----------
    path : Path
        The file to be.

    Returns
    -------
    Path
        Beside it, with the number of this process.
    """
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_durably(path: Path, content: Any, *, last: bool = True) -> None:
    """Write a file aside, flush it to the disk and rename it.

    Parameters
    ----------
    path : Path
        The file, overwritten where it exists.
    content : bytes-like
        All of it.
    last : bool, optional
        Whether the folder is flushed, too, which makes the names of all files in it safe.
    """
    aside = aside_of(path)
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    if last:
        _flush_folder(path.parent)


def publish(aside: Path, path: Path) -> None:
    """Flush a file that is written, and rename it.

    Parameters
    ----------
    aside : Path
        The whole file.
    path : Path
        Its name from now on.
    """
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make a new name safe, too; some file systems cannot, and need not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
