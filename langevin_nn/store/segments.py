"""A running trajectory: a folder of finished segments, told by a manifest whose renaming is the moment of commitment."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np
import xarray as xr

from langevin_nn.errors import DamagedTrajectory, StrayFileWarning
from langevin_nn.schema import clock_of_group
from langevin_nn.store.durable import aside_of, publish, storage_errors, write_durably
from langevin_nn.store.lazy import joined
from langevin_nn.store.lock import RunLock
from langevin_nn.store.netcdf import netcdf_bytes, write_netcdf

__all__ = ["Manifest", "Segment", "SegmentFolder", "folder_of", "has_segments", "has_work", "read_segments"]

_SUFFIX = ".segments"
_OWN = re.compile(r"segment-\d+\.nc|state-\d+\.npz|manifest-\d+\.json|\.(segment|state|manifest)-\d+\.\w+\.\d+\.part")
_TOGETHER = 48  # segments of one size that become one, so that a month leaves tens of files and not a hundred thousand
_LARGEST = 2**30  # bytes
_RENEWAL = 60.0  # seconds after which a writer says that it is alive


def folder_of(path: Path) -> Path:
    """Return the folder where the trajectory of a file lies while it runs; `path` may be that folder, too."""
    return path if path.name.endswith(_SUFFIX) else path.with_name(path.name + _SUFFIX)


@dataclass(frozen=True)
class Segment:
    """One finished file of a running trajectory, made `level` times of others."""

    name: str
    sha256: str
    size: int
    level: int = 0


@dataclass(frozen=True)
class Manifest:
    """What belongs to a running trajectory; `number` ones came before it."""

    number: int
    attributes: Mapping[str, Any]
    segments: tuple[Segment, ...] = ()
    state: Segment | None = None
    recorded_until: int = -1  # the last step whose records lie in segments
    timeless: tuple[str, ...] = ()  # variables that never change and are kept

    @property
    def name(self) -> str:
        """Of its file."""
        return f"manifest-{self.number:06d}.json"

    @property
    def files(self) -> set[str]:
        """Names of all files that it needs, itself among them."""
        return {self.name, *(each.name for each in self.segments), *([self.state.name] if self.state else [])}

    def content(self) -> bytes:
        """Return its file, with a checksum of its own."""
        body = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        return f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n".encode()


def _read_manifest(path: Path) -> Manifest:
    try:
        content = path.read_bytes()
        body, _, rest = content.rpartition(b"\n}\n")
        read = json.loads(body + b"\n}")
        segments = tuple(Segment(**each) for each in read.pop("segments"))
        state = read.pop("state")
        timeless = tuple(read.pop("timeless"))
        manifest = Manifest(segments=segments, state=Segment(**state) if state else None, timeless=timeless, **read)
    except FileNotFoundError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, f"it cannot be understood ({error})") from error
    if manifest.content() != content or len(rest) != 65:
        raise _damaged(path, "its checksum differs")
    if manifest.name != path.name:
        raise _damaged(path, f"it is a copy of {manifest.name}")
    return manifest


def _damaged(path: Path, what: str) -> DamagedTrajectory:
    return DamagedTrajectory(
        f"{str(path)!r} is damaged: {what}; expected the file as it was written. Restore it from a copy; resume= goes back "
        'to the segment before where that one is whole, and open_trajectory(..., on_damage="leave_out") reads what is left'
    )


def _manifests(folder: Path) -> list[Path]:
    """Return the manifests of a folder, the newest first."""
    return sorted(folder.glob("manifest-*.json"), reverse=True)


def has_segments(folder: Path) -> bool:
    """Return whether a folder, which need not exist, holds a running trajectory or the remains of one."""
    return bool(_manifests(folder))


def has_work(folder: Path) -> bool:
    """Return whether a folder, which need not exist, holds the work of a run, which would be lost with it.

    Returns
    -------
    bool
        False for a run that ended before its first segment: the first commitment is that of its start.
    """
    return any(path.name != Manifest(0, {}).name for path in _manifests(folder))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(folder: Path, segment: Segment) -> dict[str, xr.Dataset]:
    return xr.open_groups(_verified(folder, segment), engine="netcdf4", cache=False)


def _verified(folder: Path, segment: Segment) -> Path:
    path = folder / segment.name
    try:
        found = _sha256(path)
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    if found != segment.sha256:
        size = path.stat().st_size
        what = (
            "its checksum differs" if size == segment.size else f"it has {size} bytes where {segment.size} were written"
        )
        raise _damaged(path, what)
    return path


def _warn_of_strays(folder: Path) -> None:
    strays = sorted(each.name for each in folder.iterdir() if not _OWN.fullmatch(each.name) and each.name != "lock")
    if strays:
        warnings.warn(
            f"{str(folder)!r} holds {', '.join(map(repr, strays))}, which langevin_nn did not write: expected nothing beside "
            "the segments of a run; it is not read and not removed, move it elsewhere",
            StrayFileWarning,
            stacklevel=3,
        )


def read_segments(folder: Path, on_damage: Literal["raise", "leave_out"] = "raise") -> xr.DataTree:
    """Open a running trajectory, or the remains of one, lazily.

    Parameters
    ----------
    folder : Path
        Of the segments.
    on_damage : {"raise", "leave_out"}, optional
        What to do about a segment that is missing or damaged.

    Returns
    -------
    xarray.DataTree
        All records that are committed; `complete` is 0.

    Raises
    ------
    DamagedTrajectory
        If a file is missing or its checksum differs.
    FileNotFoundError
        If the folder vanishes meanwhile, as it does when the run ends.
    OSError
        If a file cannot be read.
    """
    while True:
        newest = _manifests(folder)
        if not newest:
            raise FileNotFoundError(str(folder))
        try:
            manifest = _first_whole(newest) if on_damage == "leave_out" else _read_manifest(newest[0])
            tree = _tree(folder, manifest, on_damage)
        except (OSError, DamagedTrajectory):
            # A writer that went on, or ended, has put other files in the place of these; HDF5 calls it an error of its own
            # where one goes while it is opened.
            if _manifests(folder) != newest:
                continue
            raise
        _warn_of_strays(folder)
        return tree


def _first_whole(paths: list[Path]) -> Manifest:
    for path in paths[:-1]:
        try:
            return _read_manifest(path)
        except DamagedTrajectory as error:
            warnings.warn(f"left out: {error}", UserWarning, stacklevel=4)
    return _read_manifest(paths[-1])


def _tree(folder: Path, manifest: Manifest, on_damage: str) -> xr.DataTree:
    parts = []
    for segment in manifest.segments:
        try:
            parts.append(_opened(folder, segment))
        except DamagedTrajectory as error:
            if on_damage == "raise":
                raise
            warnings.warn(f"left out: {error}", UserWarning, stacklevel=4)
    return assembled(parts, {**manifest.attributes, "complete": 0})


def assembled(parts: list[dict[str, xr.Dataset]], attributes: Mapping[str, Any]) -> xr.DataTree:
    """Put the groups of segments, by path, one after the other: clocks in memory, variables to be read when asked for."""
    paths = dict.fromkeys(path for part in parts for path in part)
    groups = {path: _one_group([part[path] for part in parts if path in part], path) for path in paths}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(attributes)

    def close() -> None:
        for part in parts:
            for dataset in part.values():
                dataset.close()

    tree.set_close(close)
    return tree


def _one_group(parts: list[xr.Dataset], path: str) -> xr.Dataset:
    clock = clock_of_group(path.strip("/"))
    recorded = [part for part in parts if clock in part.sizes]
    names = dict.fromkeys(name for part in parts for name in part.variables)
    coordinates: dict[Any, Any] = {}
    variables: dict[Any, Any] = {}
    for name in names:
        found = next(part.variables[name] for part in parts if name in part.variables)
        is_coordinate = any(name in part.coords for part in parts)
        if clock not in found.dims:
            (coordinates if is_coordinate else variables)[name] = found
        elif is_coordinate:
            numbers = np.concatenate([part.variables[name].values for part in recorded])
            coordinates[name] = (found.dims, numbers, found.attrs)
        else:
            variables[name] = joined([_piece(part, name, found, clock) for part in recorded], clock)
    return xr.Dataset(variables, coords=coordinates)


def dtype_with_gaps(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type, with NaN and in netCDF, of a variable that records lack, however they fall into segments."""
    return np.result_type(dtype, np.float32)


def _piece(part: xr.Dataset, name: Any, example: xr.Variable, clock: str) -> xr.Variable:
    if name in part.variables:
        return part.variables[name]
    sizes = {**example.sizes, clock: part.sizes[clock]}
    # A variable on a coarser schedule than its group may be absent from a whole segment.
    nothing = np.array(np.nan, dtype_with_gaps(example.dtype))
    missing = np.broadcast_to(nothing, tuple(sizes[each] for each in example.dims))
    return xr.Variable(example.dims, missing, example.attrs)


class SegmentFolder:
    """The writer of a running trajectory, which holds its lock.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    attributes : mapping
        Of the file to be.
    """

    def __init__(self, folder: Path, attributes: Mapping[str, Any]) -> None:
        self.folder = folder
        self._kept = f"the run's finished segments are in {str(folder)!r}: make room and go on with resume="
        with storage_errors(folder, "nothing was computed yet"):
            folder.mkdir(exist_ok=True)
            self._lock = RunLock(folder)
            self._remove_parts_of_the_file()
        self._manifest = Manifest(-1, dict(attributes))
        self._previous: Manifest | None = None
        self._renewed = monotonic()

    @property
    def manifest(self) -> Manifest:
        """What is committed."""
        return self._manifest

    def go_on(self) -> bytes | None:
        """Take up the newest commitment of which all files are whole.

        Returns
        -------
        bytes or None
            The state from which to go on; None where nothing was committed.

        Raises
        ------
        DamagedTrajectory
            If there are commitments and none of them is whole.
        """
        first: DamagedTrajectory | None = None
        _warn_of_strays(self.folder)
        for path in _manifests(self.folder):
            try:
                manifest = _read_manifest(path)
                for segment in manifest.segments:
                    _verified(self.folder, segment)
                assert manifest.state is not None
                state = _verified(self.folder, manifest.state).read_bytes()
            except DamagedTrajectory as error:
                first = first or error
                continue
            if first is not None:
                warnings.warn(f"going back to the segment before: {first}", UserWarning, stacklevel=3)
            self._manifest = manifest
            return state
        if first is not None:
            raise first
        return None

    def commit(self, tree: xr.DataTree | None, state: bytes, recorded_until: int, timeless: tuple[str, ...]) -> None:
        """Add a segment and the state at its end, both or neither.

        Parameters
        ----------
        tree : xarray.DataTree or None
            The records since the last one; None where there are none.
        state : bytes
            Of `langevin_nn.store.state.state_bytes`.
        recorded_until : int
            The last step whose records are in segments now.
        timeless : tuple of str
            Variables that never change and are kept now.

        Raises
        ------
        RunInUse
            If another process has taken the run over.
        StorageError
            If something cannot be written; what was committed before stays.
        """
        with storage_errors(self.folder, self._kept):
            self._lock.renew()
            before, number = self._manifest, self._manifest.number + 1
            segments = before.segments
            if tree is not None:
                segments = (*segments, self._write(f"segment-{number:06d}.nc", netcdf_bytes(tree)))
            self._manifest = replace(
                before,
                number=number,
                segments=segments,
                state=self._write(f"state-{number:06d}.npz", state),
                recorded_until=recorded_until,
                timeless=timeless,
            )
            try:
                write_durably(self.folder / self._manifest.name, self._manifest.content())
            except BaseException:
                self._manifest = before
                raise
            self._previous = before
            self._clean()
            while self._crowded():  # what was made of many may be the last of many
                self._merge()

    def cut(self, until: int, state: bytes) -> None:
        """Forget the records after a step, from where somebody else's run goes on.

        Parameters
        ----------
        until : int
            The last step whose records stay.
        state : bytes
            As of `commit`.

        Raises
        ------
        RunInUse
            If another process has taken the run over.
        StorageError
            If something cannot be written; everything stays as it was.
        """
        before, groups = self._manifest, {}
        with assembled(self.parts(), before.attributes) as tree:
            for node in tree.subtree:
                dataset = node.to_dataset(inherit=False)
                clock = clock_of_group(node.path.strip("/"))
                if clock in dataset.sizes:
                    dataset = dataset.isel({clock: dataset[clock].values <= until})
                groups[node.path] = dataset.load()
        self._manifest = replace(before, segments=())
        try:
            self.commit(xr.DataTree.from_dict(groups), state, until, before.timeless)
        except BaseException:
            self._manifest = before
            raise

    def parts(self) -> list[dict[str, xr.Dataset]]:
        """Return the groups of each segment, opened lazily, in the order of their records."""
        return [_opened(self.folder, each) for each in self._manifest.segments]

    def renew(self) -> None:
        """Say once a minute that the writer is alive.

        Raises
        ------
        RunInUse
            If another process has taken the run over.
        StorageError
            If the folder has gone.
        """
        if monotonic() - self._renewed >= _RENEWAL:
            with storage_errors(self.folder, self._kept):
                self._lock.renew()
            self._renewed = monotonic()

    def _write(self, name: str, content: Any) -> Segment:
        # Names are flushed with the manifest's; one that lacks a file after a loss of power is passed over.
        write_durably(self.folder / name, content, last=False)
        return Segment(name, hashlib.sha256(content).hexdigest(), len(content))

    def _crowded(self) -> bool:
        last = self._manifest.segments[-_TOGETHER:]
        alike = len(last) == _TOGETHER and len({each.level for each in last}) == 1
        return alike and sum(each.size for each in last) <= _LARGEST

    def _merge(self) -> None:
        """Make one segment of many small ones."""
        before, number = self._manifest, self._manifest.number + 1
        last = before.segments[-_TOGETHER:]
        path = self.folder / f"segment-{number:06d}.nc"
        aside = aside_of(path)
        try:
            with assembled([_opened(self.folder, each) for each in last], {}) as tree:
                write_netcdf(tree, aside, finished=False)
            publish(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        made = Segment(path.name, _sha256(path), path.stat().st_size, last[0].level + 1)
        after = replace(before, number=number, segments=(*before.segments[:-_TOGETHER], made))
        write_durably(self.folder / after.name, after.content())
        self._manifest, self._previous = after, before
        self._clean()

    def _remove_parts_of_the_file(self) -> None:
        """Remove what a writer left that was killed while the segments became one file; nobody else writes the run now."""
        name = re.escape(self.folder.name.removesuffix(_SUFFIX))
        for path in self.folder.parent.iterdir():
            if re.fullmatch(rf"\.{name}\.\d+\.part", path.name):
                path.unlink(missing_ok=True)

    def _own_files(self) -> Iterator[Path]:
        return (each for each in self.folder.iterdir() if _OWN.fullmatch(each.name))

    def _clean(self) -> None:
        """Remove what neither this commitment nor the one before it needs."""
        needed = self._manifest.files | (self._previous.files if self._previous else set())
        for path in self._own_files():
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the run's files, and the folder unless somebody else's lie in it."""
        # Manifests first: without them the rest says nothing, and no reader takes it for a run.
        for path in sorted(self._own_files(), key=lambda path: not path.name.startswith("manifest")):
            path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give the lock free; a folder in which nothing lies goes."""
        self._lock.release()
        with suppress(OSError):
            self.folder.rmdir()
