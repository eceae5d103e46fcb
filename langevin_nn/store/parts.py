"""A folder of the parts of one work: a sweep's points, an experiment's processes, a study's runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import xarray as xr

from langevin_nn.checks import truth
from langevin_nn.errors import ConfigurationError
from langevin_nn.provenance import attributes, plain, versions
from langevin_nn.store.door import refuse_another
from langevin_nn.store.durable import aside_of, json_text, refuse_finished, storage_errors, write_json
from langevin_nn.store.lock import is_written, owner_of, runs_here, this_process
from langevin_nn.store.segments import folder_of, has_work
from langevin_nn.store.trajectory import check_writable, open_trajectory, write_trajectory

__all__ = ["Parts", "Status", "is_alive", "key_of", "now"]

Status = dict[str, Any]

STUDY, EXPERIMENT, SWEEP = "configuration.json", "experiment.json", "sweep.json"
_LENGTH = 24  # hexadecimal digits of a key: 96 bits
_MARK = "summary.json"  # written last: where it is among the results, a work counts as done by it


def now() -> str:
    """Return the time to the millisecond in ISO 8601, UTC, as files say it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def key_of(*parts: Any) -> str:
    """Return a short hexadecimal name of what is in the words of JSON."""
    said = json.dumps([plain(each) for each in parts], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:_LENGTH]


class Parts:
    """The parts of one work, each waiting, running, done, failed or stopped, and a file that says what the work is.

    Parameters
    ----------
    folder : path
        Where it lies. ``KEY.nc`` is a part (``points/KE/KEY.nc`` in a sweep, whose folder may hold thousands), ``KEY.json``
        how it fares (``points/KEY.json``); a part that `langevin_nn.simulate` writes needs none, since its files say it.
    index : str, optional
        The file that says what the work is: configuration.json in a folder of the work's own, experiment.json in one that
        others may use, sweep.json.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp())
    >>> work = {"results": [out / "summary.json"], "resume": True}
    >>> parts = Parts.begin(out / "runs", {"study": "a number"}, **work)
    >>> parts.kept("one", lambda: xr.Dataset({"x": 1.0})).x.item()
    1.0
    >>> again = Parts.begin(out / "runs", {"study": "a number"}, **work)
    >>> again.kept("one", lambda: 1 / 0).x.item(), again.status("one")["state"], again.is_done
    (1.0, 'done', False)
    """

    def __init__(self, folder: str | os.PathLike[str], index: str = STUDY) -> None:
        self.folder = Path(folder)
        self.is_sweep, self._is_own = index == SWEEP, index == STUDY
        self._index = self.folder / index
        self._results: tuple[Path, ...] = ()

    @classmethod
    def begin(
        cls,
        folder: str | os.PathLike[str],
        described: Mapping[str, Any],
        *,
        results: Iterable[Path] = (),
        keys: Iterable[str] = (),
        resume: bool = False,
        overwrite: bool = False,
        index: str = STUDY,
    ) -> Parts:
        """Return the folder of a work, empty or with the remains of the same work.

        Parameters
        ----------
        folder : path
            Of the parts.
        described : mapping
            All that decides the numbers, by which the work is known again.
        results : iterable of Path, optional
            The files that it makes of its parts; it is done when all are there, or summary.json is, where it is among them.
        keys : iterable of str, optional
            The parts, as far as they are known.
        resume : bool, optional
            Whether to go on with what is there.
        overwrite : bool, optional
            Whether to begin anew in the place of a work that is done.
        index : str, optional
            As of the class.

        Returns
        -------
        Parts
            Results that are there are this work's own; `is_done` says whether all are.

        Raises
        ------
        ConfigurationError
            If what is there is of another work, or would be lost.
        """
        parts, keys = cls(folder, index), list(keys)
        parts._results = tuple(results)
        place = parts._results[0].parent if parts._results else parts.folder
        resume = truth("resume", resume, "whether to go on with what is there")
        refuse_finished(overwrite=overwrite, resuming=resume)
        check_writable(place)
        known = parts._known() if resume else None
        if known is not None:
            refuse_another(json.dumps(known), described, str(place))
        else:
            parts._refuse_remains(place, keys, going_on=resume)
            ways = "" if resume else "resume=True (--resume)"
            refuse_finished(*parts._results, overwrite=overwrite, resume=ways)
            for result in parts._results:  # of an earlier work must not pass for this one's
                result.unlink(missing_ok=True)
            if not resume:
                parts.remove(keys)
        if not parts._index.is_file() and (parts._is_own or not (known and parts.is_done)):
            names = [os.path.relpath(each, parts.folder) for each in parts._results]
            parts.write_index({**plain(described), "versions": versions(), "parts": {"keys": keys, "results": names}})
        return parts

    def _known(self) -> dict[str, Any] | None:
        """Return what the work is that lies here, by its index or by what it left of itself in a result."""
        if self._index.is_file():
            return {name: each for name, each in self.index().items() if name != "parts"}
        for each in self._results:
            if each.suffix == ".nc" and each.is_file():
                with open_trajectory(each) as tree:
                    known: dict[str, Any] = json.loads(str(tree.attrs["config_json"]))
                return known
        return None

    def _refuse_remains(self, place: Path, keys: Iterable[str], going_on: bool) -> None:
        """Raise where parts would be lost of a work that did not end, or of which nobody knows what they are."""
        unfinished = self._index.is_file() and not self.is_done and not self._about().get("failed")
        known = () if self._is_own else {*keys, *self.keys()}
        # Where no index says that they are this work's, whole files in the place of parts may be anybody's.
        whole = (
            [] if self._index.is_file() else [key for key in known if (self._seen(key) or {}).get("state") == "done"]
        )
        if not going_on and (unfinished or whole or any(has_work(folder_of(self.path(key))) for key in known)):
            raise ConfigurationError(
                f"{str(place)!r} holds a run that did not end: expected none, since its records would be lost; go on with it "
                "(resume=True, --resume), remove the folder, or write to another one (--out)"
            )
        if self._is_own and not self._index.is_file() and self._others():
            raise ConfigurationError(
                f"{str(self.folder)!r} holds files that do not say of which run they are: expected an empty folder; remove "
                "it, or write to another one (--out)"
            )

    def _others(self) -> list[Path]:
        here = self.folder.iterdir() if self.folder.is_dir() else ()
        return [each for each in here if not each.name.startswith(".") and each != self._index]

    def remove(self, keys: Iterable[str] = ()) -> None:
        """Remove all parts, also those of more `keys` than are known, and last what says of which work they are."""
        for key in {*keys, *self.keys()}:
            self.path(key).unlink(missing_ok=True)
            if self._is_own or self.is_sweep:  # an experiment writes none: one of that name is somebody else's
                self._status_file(key).unlink(missing_ok=True)
        for each in self._others() if self._is_own else ():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        self._index.unlink(missing_ok=True)
        if self._is_own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def give_up(self, error: BaseException) -> None:
        """Say that the work cannot be done, and why: what is there may be replaced without a word."""
        about = {**self._about(), "failed": f"{type(error).__name__}: {error}"}
        self.write_index({**self.index(), "parts": about})

    def write_index(self, index: Mapping[str, Any]) -> None:
        """Say what the work is, in the words of JSON."""
        with storage_errors(self._index, "parts that are done stay; make room and go on"):
            (self.folder / "points" if self.is_sweep else self.folder).mkdir(parents=True, exist_ok=True)
            write_json(self._index, index, indent=None)

    def index(self) -> dict[str, Any]:
        """Return what the work is.

        Returns
        -------
        dict
            What described it, ``versions``, and keys and results.

        Raises
        ------
        ConfigurationError
            If there is none.
        """
        found = _read(self._index)
        if found is None and self._index.exists():
            raise ConfigurationError(
                f"{str(self._index)!r} cannot be read: expected an object of JSON, which says what the parts beside it are; "
                "restore it from a copy, or open the parts, which are trajectories of their own, one by one"
            )
        if found is None:
            raise ConfigurationError(
                f"no sweep at {str(self.folder)!r}: expected the folder that langevin_nn.sweep(..., folder) writes, with "
                f"{SWEEP} in it; name that"
                if self.is_sweep
                else f"{str(self._index)!r} does not say what the parts beside it are: expected a work that has begun"
            )
        return found

    def _about(self) -> dict[str, Any]:
        found: dict[str, Any] = (_read(self._index) or {}).get("parts", {})
        return found

    def path(self, key: str) -> Path:
        """Return the file of a part, for ``simulate(resume=...)`` among others.

        Returns
        -------
        Path
            Whether or not it is there.

        Raises
        ------
        ConfigurationError
            If the key is no name of a file.
        """
        if not key or key.startswith(".") or "/" in key or os.sep in key or f"{key}.json" == self._index.name:
            raise ConfigurationError(
                f"{key!r} names a part: expected a name that can be a file's, without '/'; rename it"
            )
        # Looking into one folder of thousands of files takes long.
        return self.folder / (f"points/{key[:2]}/{key}.nc" if self.is_sweep else f"{key}.nc")

    def _status_file(self, key: str) -> Path:
        return self.folder / (f"points/{key}.json" if self.is_sweep else f"{key}.json")

    def keys(self) -> list[str]:
        """Return the parts that are known.

        Returns
        -------
        list of str
            As the work was begun with them, then by name what else lies in a folder of its own.
        """
        if self.is_sweep:
            return list(self.index()["keys"])
        files = sorted(self._others()) if self._is_own else ()
        found = [
            each.name.removesuffix(".segments").rpartition(".")[0]
            for each in files
            if each.name.endswith((".nc", ".nc.segments")) or "state" in (_read(each) or ())
        ]
        return list(dict.fromkeys([*self._about().get("keys", ()), *found]))

    def status(self, key: str) -> Status | None:
        """Return how a part fares.

        Returns
        -------
        dict or None
            ``state``: running, done, failed or stopped; ``at``, ``point``, and more of it. None before it has begun.
        """
        said = _read(self._status_file(key))
        if said is not None and "state" in said:
            return said
        return None if self.is_sweep else self._seen(key)

    def _seen(self, key: str) -> Status | None:
        """Return how a part fares of which only its files speak."""
        path = self.path(key)
        status: Status = {"point": {"part": key}, "file": key}
        segments = folder_of(path)
        with suppress(OSError):
            if path.is_file():
                with xr.open_datatree(path, engine="netcdf4") as tree:
                    state = "done" if int(tree.attrs.get("complete", 1)) else "failed"
                at = path.stat().st_mtime
            elif has_work(segments):
                owner = owner_of(segments) or {}
                state, at = "running" if is_written(segments) else "stopped", segments.stat().st_mtime
                if "since" in owner:
                    at = datetime.strptime(str(owner["since"]), "%Y-%m-%d %H:%M:%S %z").timestamp()
                status |= owner
            else:
                return None
            return status | {"state": state, "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")}
        return None

    def statuses(self, keys: Iterable[str] | None = None) -> dict[str, Status]:
        """Return by key how parts fare, all that are known unless said, of those that have begun."""
        wanted = self.keys() if keys is None else keys
        if self.is_sweep:  # thousands, most of them waiting
            here = (
                {each.name for each in os.scandir(self.folder / "points")} if (self.folder / "points").is_dir() else ()
            )
            wanted = [key for key in wanted if f"{key}.json" in here]
        found = {key: self.status(key) for key in wanted}
        return {key: each for key, each in found.items() if each is not None}

    def is_whole(self, status: Status | None) -> bool:
        """Return whether a part of this status is done, and its file has not gone."""
        return status is not None and status["state"] == "done" and self.path(status["file"]).is_file()

    @property
    def is_done(self) -> bool:
        """Whether the whole work is: its results are there, or all parts where it has none."""
        results = self._results or tuple(self.folder / each for each in self._about().get("results", ()))
        if results:
            return all(each.is_file() for each in [each for each in results if each.name == _MARK] or results)
        keys = self.keys()
        statuses = self.statuses(keys)
        return bool(keys) and all(self.is_whole(statuses.get(key)) for key in keys)

    def say(
        self,
        key: str,
        state: str,
        *,
        point: Mapping[str, Any] | None = None,
        error: BaseException | None = None,
        **more: Any,
    ) -> None:
        """Write how a part fares.

        Parameters
        ----------
        key : str
            Of the part.
        state : {"waiting", "running", "done", "failed", "stopped"}
            How.
        point : mapping, optional
            What is special about it; its key unless said.
        error : Exception, optional
            Why it failed.
        **more : object
            In the words of JSON.
        """
        if error is not None:
            told = "".join(traceback.format_exception(error))
            more = {"error": f"{type(error).__name__}: {error}", "traceback": told, **more}
        status = {"point": point or {"part": key}, "state": state, "at": now(), **this_process(), **more}
        # Renamed, so that readers see it whole; not flushed, since a status that is lost is found again by the file.
        path = self._status_file(key)
        aside = aside_of(path)
        with storage_errors(path, "parts that are done stay; make room and run it again"):
            try:
                aside.write_text(json_text(status), encoding="utf-8")
                os.replace(aside, path)
            finally:
                aside.unlink(missing_ok=True)

    def kept(self, key: str, make: Callable[[], xr.Dataset | xr.DataTree]) -> xr.DataTree:
        """Return what was made before, or make and keep it, with the words of the work in its attributes; in memory."""
        path, begun = self.path(key), perf_counter()
        if not path.is_file():
            self.say(key, "running")
            try:
                made = make()
                tree = xr.DataTree(made) if isinstance(made, xr.Dataset) else made.copy()
                tree.attrs = {**attributes(self._known() or {}), **tree.attrs}
                if not path.is_file():  # somebody may have been as far at the same time
                    write_trajectory(tree, path)
            except Exception as error:
                self.say(key, "failed", error=error, seconds=perf_counter() - begun)
                raise
            except BaseException:
                self.say(key, "stopped")
                raise
            self.say(key, "done", file=key, seconds=perf_counter() - begun)
        elif not self.is_whole(self.status(key)):  # who made it was killed before it could say so
            self.say(key, "done", file=key)
        with xr.open_datatree(path, engine="netcdf4") as found:
            return found.load()

    @classmethod
    def at(cls, folder: str | os.PathLike[str]) -> list[Parts]:
        """Return the works in parts that lie in a folder, or in those right below it, and those of which a study is made.

        Returns
        -------
        list of Parts
            Sweeps of a study after it.
        """

        def here(place: Path) -> list[Parts]:
            names = [name for name in (EXPERIMENT, STUDY, SWEEP) if "versions" in (_read(place / name) or ())]
            return [cls(place, name) for name in names]

        def below(place: Path) -> list[Parts]:
            with suppress(OSError):
                return [each for child in sorted(place.iterdir()) if child.is_dir() for each in here(child)]
            return []

        found = here(Path(folder)) or below(Path(folder))
        return found + [each for study in found if study._is_own for each in below(study.folder)]


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return None


def is_alive(status: Mapping[str, Any]) -> bool:
    """Return whether the process that runs a part lives, as far as this machine can tell: False for others' processes."""
    return status.get("host") == socket.gethostname() and runs_here(status)
