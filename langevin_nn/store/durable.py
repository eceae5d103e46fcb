"""Files that appear whole or not at all, survive a loss of power once they are there, and are not replaced unasked."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from langevin_nn.checks import truth
from langevin_nn.errors import ConfigurationError, StorageError

__all__ = ["aside_of", "json_text", "publish", "refuse_finished", "storage_errors", "write_durably", "write_json"]

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file would be larger than the limit on file sizes allows",
    errno.ENOENT: "the folder has vanished",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "the folder may not be written",
    errno.EPERM: "the folder may not be written",
}


def refuse_finished(*results: Path, overwrite: bool, resume: str = "", resuming: bool = False) -> None:
    """Raise where a result that is there would be lost.

    Parameters
    ----------
    *results : Path
        What is to be written.
    overwrite : bool
        Whether it may take the place of what is there.
    resume : str, optional
        How to take what is there in its stead, for the message, where that is possible.
    resuming : bool, optional
        Whether that has been chosen; nothing is in the way then.

    Raises
    ------
    ConfigurationError
        Naming the first that is there, and both ways out; also where both were chosen.
    """
    overwrite = truth("overwrite", overwrite, "whether to replace what is there")
    if overwrite and resuming:
        raise ConfigurationError(
            "overwrite and resume were both chosen: expected one of them at most, since one replaces what is there and the "
            "other goes on with it"
        )
    there = [each for each in results if each.exists()]
    if there and not overwrite and not resuming:
        take = f"take it, or go on with it, by {resume}; " if resume else ""
        raise ConfigurationError(
            f"{str(there[0])!r} is there already: expected nothing there, since a finished result would be lost; {take}"
            "replace it with overwrite=True (--overwrite), or write to another path"
        )


@contextmanager
def storage_errors(path: Path, kept: str) -> Iterator[None]:
    """Turn an `OSError` while `path` is written into a StorageError that says where earlier records are and how to go on."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"{str(path)!r} cannot be written: {reason}; {kept}") from error


def aside_of(path: Path) -> Path:
    """Return the name, of this process alone, under which a file is made before it is published."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_durably(path: Path, content: Any, *, last: bool = True) -> None:
    """Write a file whole or not at all; where it is the `last` of a folder, all names in that are safe then."""
    aside = aside_of(path)
    try:
        aside.write_bytes(content)
        publish(aside, path, last=last)
    finally:
        aside.unlink(missing_ok=True)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON, in which what is missing is null: neither NaN nor infinity is JSON.

    Returns
    -------
    str
        Readable by any parser.

    Examples
    --------
    >>> json_text({"distance": np.float32(0.5), "replicas": np.array([1, 2]), "relation": (float("nan"), "close")})
    '{"distance": 0.5, "replicas": [1, 2], "relation": [null, "close"]}'
    """
    return json.dumps(_of_json(value), indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a value as JSON, durably; what is missing becomes null, as in `json_text`."""
    write_durably(path, f"{json_text(value, indent=indent)}\n".encode())


def _of_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _of_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_of_json(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return _of_json(value.tolist())
    return None if isinstance(value, float) and not isfinite(value) else value


def publish(aside: Path, path: Path, *, last: bool = True) -> None:
    """Flush a file that is written whole, and rename it; where it is the `last` of a folder, flush the names in that, too."""
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
    if last:
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
