"""The folder of a sweep: what is swept, and a file and a status for each point."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langevin_nn.errors import ConfigurationError
from langevin_nn.identity import identity
from langevin_nn.provenance import plain
from langevin_nn.store.durable import json_text, storage_errors
from langevin_nn.sweep.grid import Point

__all__ = ["Status", "SweepFolder", "file_name", "function_digest", "is_alive", "key_of", "now"]

Status = dict[str, Any]

_INDEX = "sweep.json"
_LENGTH = 24  # hexadecimal digits of a key: 96 bits


def now() -> str:
    """Return the time, as files say it.

    Returns
    -------
    str
        In ISO 8601, UTC.
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def function_digest(function: Callable[..., Any]) -> dict[str, Any]:
    """Return by what a function is known again: its name, what it computes and what it has closed over.

    Parameters
    ----------
    function : callable
        Of a sweep. What it reads of installed packages counts by name and version.

    Returns
    -------
    dict
        In the words of JSON.
    """
    if isinstance(function, functools.partial):
        bound = {"arguments": plain(function.args), "keywords": plain(function.keywords)}
        return {**function_digest(function.func), "bound": bound}
    target = inspect.unwrap(function)
    code = getattr(target, "__code__", None)
    if code is None:
        return {"name": f"{type(function).__module__}:{type(function).__qualname__}", "value": plain(function)}
    closed = dict(zip(code.co_freevars, (cell.cell_contents for cell in target.__closure__ or ()), strict=True))
    closed |= {f"default {k}": each for k, each in enumerate(target.__defaults__ or ())}
    closed |= target.__kwdefaults__ or {}
    said = json.dumps(plain(closed), sort_keys=True)
    computes = identity(target, libraries=("langevin_nn",)).digest
    digest = hashlib.sha256(f"{computes}{said}".encode()).hexdigest()
    return {"name": f"{target.__module__}:{target.__qualname__}", "sha256": digest}


def file_name(file: str) -> str:
    """Return where the trajectory of a point lies in the folder of its sweep.

    Parameters
    ----------
    file : str
        Its key.

    Returns
    -------
    str
        In one of 256 folders: looking into one of thousands of files takes long.
    """
    return f"points/{file[:2]}/{file}.nc"


def key_of(*parts: Any) -> str:
    """Return a short name of what is in the words of JSON.

    Parameters
    ----------
    *parts : object
        Mappings, lists, text, numbers.

    Returns
    -------
    str
        Hexadecimal.
    """
    said = json.dumps([plain(each) for each in parts], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:_LENGTH]


class SweepFolder:
    """Reads and writes the folder of a sweep.

    Parameters
    ----------
    folder : path
        Where it lies: ``sweep.json`` says what is swept, ``points/KEY.json`` how a point fares, ``points/KE/KEY.nc`` is
        its trajectory.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.points = self.folder / "points"

    def begin(self, index: Mapping[str, Any]) -> None:
        """Say what is swept.

        Parameters
        ----------
        index : mapping
            Names, points and their keys.
        """
        self.points.mkdir(parents=True, exist_ok=True)
        self._write(self.folder / _INDEX, index)

    def refuse_another(self, function: str, names: list[str]) -> None:
        """Raise where points of another sweep are done, which would no longer be found.

        Parameters
        ----------
        function : str
            Name of the function of this one.
        names : list of str
            Of its values.

        Raises
        ------
        ConfigurationError
            If function or names differ.
        """
        known = self._read(self.folder / _INDEX)
        if known is None:
            return
        before, now = (
            f"{name}({', '.join(each)})"
            for name, each in ((known["function"]["name"], known["names"]), (function, names))
        )
        if before != now and any(self.is_done(each) for each in self.statuses(known["keys"]).values()):
            raise ConfigurationError(
                f"{str(self.folder)!r} holds a sweep of {before}, and this is one of {now}: expected the same function and "
                "names, since what is done there would no longer be found; replace it with overwrite=True, or sweep in "
                "another folder"
            )

    def index(self) -> dict[str, Any]:
        """Return what is swept.

        Returns
        -------
        dict
            As it was given to `begin`.

        Raises
        ------
        ConfigurationError
            If there is no sweep.
        """
        found = self._read(self.folder / _INDEX)
        if found is None:
            raise ConfigurationError(
                f"no sweep at {str(self.folder)!r}: expected the folder that langevin_nn.sweep(..., folder) writes, with "
                f"{_INDEX} in it; name that"
            )
        return found

    def path(self, file: str) -> Path:
        """Return where the trajectory of a point lies.

        Parameters
        ----------
        file : str
            Its key.

        Returns
        -------
        Path
            Whether or not it is there.
        """
        return self.folder / file_name(file)

    def status(self, key: str) -> Status | None:
        """Return how a point fares.

        Parameters
        ----------
        key : str
            Of the point.

        Returns
        -------
        dict or None
            None before it has begun.
        """
        return self._read(self.points / f"{key}.json")

    def statuses(self, keys: list[str]) -> dict[str, Status]:
        """Return how points fare, of those that have begun.

        Parameters
        ----------
        keys : list of str
            Of the points.

        Returns
        -------
        dict of str to dict
            By key.
        """
        try:
            here = {each.name for each in os.scandir(self.points)}
        except OSError:
            return {}
        found = {key: self.status(key) for key in keys if f"{key}.json" in here}
        return {key: each for key, each in found.items() if each is not None}

    def is_done(self, status: Status | None) -> bool:
        """Return whether a point has a whole trajectory.

        Parameters
        ----------
        status : dict or None
            How it fares.

        Returns
        -------
        bool
            False also where its file has gone.
        """
        return status is not None and status["state"] == "done" and self.path(status["file"]).is_file()

    def say(self, key: str, point: Point, state: str, **more: Any) -> None:
        """Write how a point fares.

        Parameters
        ----------
        key : str
            Of the point.
        point : dict
            Its values.
        state : {"running", "done", "failed"}
            How.
        **more : object
            In the words of JSON.
        """
        owner = {"host": socket.gethostname(), "process": os.getpid()}
        status = {"point": point, "state": state, "at": now(), **owner, **more}
        self._write(self.points / f"{key}.json", status)

    def fail(self, key: str, point: Point, error: BaseException, **more: Any) -> None:
        """Write that a point failed, and why.

        Parameters
        ----------
        key : str
            Of the point.
        point : dict
            Its values.
        error : Exception
            What happened.
        **more : object
            In the words of JSON.
        """
        lines = traceback.format_exception(error)
        said = f"{type(error).__name__}: {error}"
        self.say(key, point, "failed", error=said, traceback="".join(lines), **more)

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        # Renamed, so that readers see it whole; not flushed, since a status that is lost is found again by the file.
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        with storage_errors(path, "points that are done stay; make room and run the sweep again"):
            try:
                aside.write_text(json_text(content), encoding="utf-8")
                os.replace(aside, path)
            finally:
                aside.unlink(missing_ok=True)

    def _read(self, path: Path) -> dict[str, Any] | None:
        with suppress(OSError, ValueError):
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, dict):
                return found
        return None


def is_alive(status: Status) -> bool:
    """Return whether the process that runs a point lives, as far as this machine can tell.

    Parameters
    ----------
    status : dict
        Of a point.

    Returns
    -------
    bool
        False for processes of other machines.
    """
    if status.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(status["process"]), 0)
    except (OSError, KeyError, ValueError):
        return False
    return True
