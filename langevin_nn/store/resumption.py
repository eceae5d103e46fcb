"""Going on: which run lies at a path, whether it is the one that is meant, and from where it goes on."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from langevin_nn.errors import ConfigurationError, ResumedElsewhereWarning, RunInUse, UntoldFunctionWarning
from langevin_nn.provenance import differences, differing_parts, plain, untold, versions
from langevin_nn.store.lock import RunLock, owner_of
from langevin_nn.store.segments import SegmentFolder, folder_of, has_work
from langevin_nn.store.state import state_from
from langevin_nn.store.trajectory import check_writable, open_trajectory
from langevin_nn.update.state import State

__all__ = ["finished_run", "has_remains", "refuse_another", "state_to_go_on_from", "target_of"]

_SHOWN = 6  # differences of two configurations


def target_of(path: str | os.PathLike[str] | None, resume: str | os.PathLike[str] | None) -> Path | None:
    """Return the file that a run will write.

    Parameters
    ----------
    path, resume : path or None
        Of `langevin_nn.simulate`.

    Returns
    -------
    Path or None
        None where the run stays in memory.

    Raises
    ------
    ConfigurationError
        If the two differ, or there is a folder in its place, or its folder cannot be written.
    """
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
    """Raise where what is to go on is another run than the one that is there.

    Parameters
    ----------
    known : str
        Its ``config_json``.
    described : mapping
        The configuration of the run that is meant.
    where : str
        Its name, for the message.

    Raises
    ------
    ConfigurationError
        With the differences; other versions of libraries, and functions of which not all can be told, only warn.
    """
    versions_before = json.loads(str(known)).get("versions", {})
    if found := _each_once(_other_than(known, described)):
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
    other = differences(versions_before, versions())
    if other:
        shown = [f"{name} {old} there, {new} now" for name, (old, new) in other.items()]
        warnings.warn(
            f"the run at {where!r} goes on with other versions ({'; '.join(shown)}): its bits may differ from those of an "
            "uninterrupted run",
            ResumedElsewhereWarning,
            stacklevel=4,
        )


def _other_than(known: Any, described: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    before = json.loads(str(known))
    before.pop("versions", None)
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


def finished_run(target: Path, described: Mapping[str, Any]) -> xr.DataTree | None:
    """Return the run that is to be resumed where it has ended.

    Parameters
    ----------
    target : Path
        The file.
    described : mapping
        The configuration of the run that is meant.

    Returns
    -------
    xarray.DataTree or None
        Opened; None where there is no file, or one of an older run beside the remains of this one.

    Raises
    ------
    ConfigurationError
        If another run ended there, or this one did so by a divergence.
    """
    if not target.is_file():
        return None
    tree = open_trajectory(target)
    same = not has_work(folder_of(target))
    if same or not differences(
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


def has_remains(target: Path | None, resuming: bool) -> bool:
    """Return whether there is something to go on from.

    Parameters
    ----------
    target : Path or None
        The file to be.
    resuming : bool
        Whether the run is to go on from it.

    Returns
    -------
    bool
        False where nothing was committed.

    Raises
    ------
    ConfigurationError
        If there is something and the run is to begin anew.
    """
    if target is None or not has_work(folder_of(target)):
        return False
    if not resuming:
        owner = owner_of(folder_of(target))
        RunLock.refuse_if_held(folder_of(target))
        raise ConfigurationError(
            f"{str(folder_of(target))!r} holds a run that did not end{_begun(owner)}: expected nothing there, since its "
            f"records would be lost; go on with resume={str(target)!r}, remove the folder, or write to another path"
        )
    return True


def _begun(owner: dict[str, object] | None) -> str:
    return f" (begun {owner['since']} by process {owner['process']} on {owner['host']})" if owner else ""


def state_to_go_on_from(
    folder: SegmentFolder, described: Mapping[str, Any], device: torch.device
) -> tuple[State, bool] | None:
    """Take up a run.

    Parameters
    ----------
    folder : SegmentFolder
        Of the run.
    described : mapping
        The configuration of the run that is meant.
    device : torch.device
        Where it goes on.

    Returns
    -------
    tuple of (State, bool) or None
        The state, and whether what is due there has been recorded; None where nothing was committed.

    Raises
    ------
    ConfigurationError
        If the run has another configuration.
    DamagedTrajectory
        If no commitment is whole.
    """
    content = folder.go_on()
    if content is None:
        return None
    refuse_another(folder.manifest.attributes["config_json"], described, str(folder.folder))
    return state_from(content, device)
