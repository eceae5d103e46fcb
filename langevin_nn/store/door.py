"""The one door: whether a run begins, goes on, has ended, or is refused since it is another."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from langevin_nn.errors import ConfigurationError, ResumedElsewhereWarning, RunInUse, UntoldFunctionWarning
from langevin_nn.provenance import attributes, differences, differing_parts, plain, untold, versions
from langevin_nn.store.durable import refuse_finished
from langevin_nn.store.lock import RunLock, owner_of
from langevin_nn.store.segments import SegmentFolder, folder_of, has_work
from langevin_nn.store.trajectory import check_writable, open_trajectory

if TYPE_CHECKING:
    import torch

    from langevin_nn.update.state import State

__all__ = ["Finished", "Running", "open_run", "refuse_another"]

_SHOWN = 6  # differences of two configurations
# What comparisons did not say at first.
_LATER = ("seeds", "steps", "observables", "schedule", "on_divergence", "weights")


@dataclass(frozen=True)
class Finished:
    """A run that has ended.

    Parameters
    ----------
    trajectory : xarray.DataTree
        What it left, opened.
    """

    trajectory: xr.DataTree


@dataclass(frozen=True)
class Running:
    """A run that begins, or goes on.

    Parameters
    ----------
    target : Path or None
        The file to be; None where the run stays in memory.
    goes_on : bool
        Whether there is a state to go on from.
    described : mapping
        The configuration.
    """

    target: Path | None
    goes_on: bool
    described: Mapping[str, Any]

    def take_up(self, device: torch.device) -> tuple[SegmentFolder | None, State | None, bool]:
        """Make the folder of segments, or take up the one that is there, and hold it; tensors go to `device`.

        Returns
        -------
        folder : SegmentFolder or None
            None where the run stays in memory.
        state : State or None
            From which to go on; None where nothing was committed.
        recorded : bool
            Whether what is due there has been recorded.

        Raises
        ------
        ConfigurationError
            If the remains are of another configuration.
        DamagedTrajectory
            If no commitment is whole.
        RunInUse
            If another process is writing the run.
        """
        if self.target is None:
            return None, None, False
        folder = SegmentFolder(folder_of(self.target), attributes(self.described, complete=False))
        try:
            content = folder.go_on() if self.goes_on else None
            if content is None:
                return folder, None, False
            from langevin_nn.store.state import state_from  # here, since it loads torch

            refuse_another(folder.manifest.attributes["config_json"], self.described, str(folder.folder))
            return folder, *state_from(content, device)
        except BaseException:
            folder.close()
            raise


def open_run(
    path: str | os.PathLike[str] | None,
    described: Mapping[str, Any],
    resume: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    way: str = "",
) -> Finished | Running:
    """Find out whether a run begins, goes on, or has ended.

    Parameters
    ----------
    path, resume, overwrite : optional
        Of `langevin_nn.simulate`.
    described : mapping
        The configuration of the run that is meant.
    way : str, optional
        How whoever asks lets a run go on, for messages; `simulate`'s unless said.

    Returns
    -------
    Finished or Running
        Nothing has been made or removed yet, but the folder that is to hold the file.

    Raises
    ------
    ConfigurationError
        If the two paths differ, the folder cannot be written, something would be lost, or another run is to go on.
    RunInUse
        If another process is writing what would be lost.
    """
    target, resuming = _target_of(path, resume), resume is not None
    there = [] if target is None else [target]
    way = way or f"resume={str(target)!r}"
    refuse_finished(*there, overwrite=overwrite, resume=way, resuming=resuming)
    if target is None:
        return Running(None, False, described)
    if resuming and (ended := _finished_run(target, described)) is not None:
        return Finished(ended)
    return Running(target, _has_remains(target, resuming, way), described)


def _target_of(path: str | os.PathLike[str] | None, resume: str | os.PathLike[str] | None) -> Path | None:
    """Return the file that a run will write."""
    if path is not None and resume is not None and Path(path) != Path(resume):
        raise ConfigurationError(
            f"path={str(path)!r} and resume={str(resume)!r}: expected one of them, or the same; resume names the file that "
            "the run goes on to write"
        )
    named = resume if path is None else path
    if named is None:
        return None
    target = Path(named)
    if target.name.endswith(".segments"):
        target = target.with_name(target.name.removesuffix(".segments"))
    if target.is_dir():
        raise ConfigurationError(
            f"path {str(target)!r} is a folder: expected the file to write the trajectory to; add a file name, such as "
            f"{str(target / 'run.nc')!r}"
        )
    check_writable(target.parent)
    return target


def refuse_another(known: Any, described: Mapping[str, Any], where: str) -> None:
    """Raise where what is to go on is another run than the one at `where`, whose ``config_json`` is `known`.

    Raises
    ------
    ConfigurationError
        With the differences; other versions of libraries, and functions of which not all can be told, only warn.
    """
    before = json.loads(str(known))
    versions_before = before.pop("versions", {})
    if found := _each_once(_other_than(before, described)):
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ConfigurationError(
            f"the run at {where!r} has another configuration: {'; '.join(found[:_SHOWN])}{more}: expected the same, since "
            "its first part and its rest would not be one run; give the same arguments, or write to another path"
        )
    if unknown := untold(plain(described)):
        said = "; ".join(f"{name} reads {', '.join(parts)}" for name, parts in unknown.items())
        warnings.warn(
            f"whether the run at {where!r} goes on with the same functions cannot be told ({said}): expected functions of "
            "numbers, arrays and attributes of modules; make sure that nothing changed there",
            UntoldFunctionWarning,
            stacklevel=4,
        )
    if other := differences(versions_before, versions()):
        shown = [f"{name} {old} there, {new} now" for name, (old, new) in other.items()]
        warnings.warn(
            f"the run at {where!r} goes on with other versions ({'; '.join(shown)}): its bits may differ from those of an "
            "uninterrupted run",
            ResumedElsewhereWarning,
            stacklevel=4,
        )


def _other_than(before: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    if "processes" in before:
        described = {name: each for name, each in described.items() if name in before or name not in _LATER}
    found = differing_parts(before, json.loads(json.dumps(plain(described))))
    return {name: pair for name, pair in found.items() if not _is_older_name(name, *pair)}


def _is_older_name(name: str, old: Any, new: Any) -> bool:
    """Return whether a user's class was named without its module, as of schema 1.1, or by one of a script."""
    key = name.rpartition(".")[2]
    if key not in ("type", "name") or not (isinstance(old, str) and isinstance(new, str)) or ":" not in new:
        return False
    (module, _, before), (_, _, now) = old.rpartition(":"), new.rpartition(":")
    if module == "__main__":
        return before == now
    return key == "type" and not module and now.rpartition(".")[2] == before


def _each_once(found: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Return differences in words; one that a run holds in several places, at the least deep of them."""
    places: dict[tuple[str, str], list[str]] = {}
    for name, pair in found.items():
        places.setdefault((name.rpartition(".")[2], json.dumps(pair, sort_keys=True)), []).append(name)
    lines = []
    for names in places.values():
        name = min(names, key=lambda each: each.count("."))
        old, new = found[name]
        more = f" (in {len(names)} places)" if len(names) > 1 else ""
        lines.append(f"{name}: {_short(old)} there, {_short(new)} now{more}")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _finished_run(target: Path, described: Mapping[str, Any]) -> xr.DataTree | None:
    """Return the run that is to be resumed where it has ended; None where the file is of an older run than the remains."""
    if not target.is_file():
        return None
    tree = open_trajectory(target)
    if not has_work(folder_of(target)) or not differences(
        json.loads(str(tree.attrs["config_json"])), {**plain(described), "versions": versions()}
    ):
        refuse_another(tree.attrs["config_json"], described, str(target))
        _clear_remains(folder_of(target))
        if not int(tree.attrs["complete"]):
            raise ConfigurationError(
                f"the run at {str(target)!r} ended before its time, by a divergence: expected one that was interrupted, "
                "since this one would diverge again; change the learning rate or time step and write to another path"
            )
        return tree
    return None  # an older file, which the run that is to go on will replace


def _clear_remains(folder: Path) -> None:
    """Remove what a run leaves that is killed when its file is there, before its segments are gone."""
    if folder.is_dir():
        with suppress(RunInUse):  # it is still at it
            SegmentFolder(folder, {}).remove()


def _has_remains(target: Path, resuming: bool, way: str) -> bool:
    """Return whether there is something to go on from; raise where that would be lost."""
    if not has_work(folder_of(target)):
        return False
    if not resuming:
        owner = owner_of(folder_of(target))
        RunLock(folder_of(target)).release()  # raises where another process writes it
        raise ConfigurationError(
            f"{str(folder_of(target))!r} holds a run that did not end{_begun(owner)}: expected nothing there, since its "
            f"records would be lost; go on with {way}, remove the folder, or write to another path"
        )
    return True


def _begun(owner: dict[str, object] | None) -> str:
    return f" (begun {owner['since']} by process {owner['process']} on {owner['host']})" if owner else ""
