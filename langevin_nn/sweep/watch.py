"""A sweep seen from a second terminal."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from math import ceil

from langevin_nn.errors import LangevinError
from langevin_nn.store import open_trajectory
from langevin_nn.sweep.folder import Status, SweepFolder, is_alive

__all__ = ["watched"]

_SHOWN = 5


def watched(folder: str | os.PathLike[str]) -> tuple[str, bool]:
    """Return how a sweep fares, in words.

    Parameters
    ----------
    folder : path
        Of the sweep.

    Returns
    -------
    text : str
        Points done, running, failed and waiting, the time that remains, what runs and what failed last.
    ended : bool
        Whether nothing is left to run.

    Raises
    ------
    ConfigurationError
        If there is no sweep.
    """
    files = SweepFolder(folder)
    index = files.index()
    keys = list(index["keys"])
    statuses = files.statuses(keys)
    of = {
        state: [each for each in statuses.values() if each["state"] == state]
        for state in ("done", "running", "failed", "stopped")
    }
    waiting = len(keys) - sum(len(of[state]) for state in ("done", "running", "failed"))
    counts = f"{len(of['done'])} of {len(keys)} points done, {len(of['running'])} running, {len(of['failed'])} failed"
    ended = not waiting and not of["running"]
    lines = [f"{index['function']['name']}: {counts}, {waiting} waiting"]
    if not ended:
        lines.append(f"  {_remaining(of['done'], of['running'], len(of['running']) + waiting)}")
    for status in sorted(of["running"], key=lambda each: str(each["at"]))[:_SHOWN]:
        lines.append(f"  running since {status['at'][11:19]}: {_point(status)}{_progress(files, status)}")
    if len(of["running"]) > _SHOWN:
        lines.append(f"  … and {len(of['running']) - _SHOWN} more")
    for status in sorted(of["failed"], key=lambda each: str(each["at"]))[-_SHOWN:]:
        lines.append(f"  failed: {_point(status)}: {status.get('error', '').splitlines()[0]}")
    return "\n".join(lines), ended


def _point(status: Status) -> str:
    return ", ".join(f"{name} {value}" for name, value in status["point"].items())


def _remaining(done: list[Status], running: list[Status], left: int) -> str:
    seconds = [each["seconds"] for each in done if "seconds" in each]
    if not seconds:
        return "time that remains: unknown before the first point is done"
    at_a_time = max(1, len({(each.get("host"), each.get("process")) for each in running}))
    whole = sum(seconds) / len(seconds) * left / at_a_time
    hours, minutes = divmod(ceil(whole / 60), 60)
    said = f"{whole:.0f} s" if whole < 120 else f"{hours} h {minutes} min" if hours else f"{minutes} min"
    return f"about {said} remain, at {sum(seconds) / len(seconds):.3g} s a point on {at_a_time} worker{'s' * (at_a_time > 1)}"


def _progress(files: SweepFolder, status: Status) -> str:
    """Say how far a running simulation has come, by what it has recorded."""
    started = datetime.fromisoformat(status["at"])
    since = (datetime.now(UTC) - started).total_seconds()
    said = f", {since:.0f} s"
    if status.get("host") == os.uname().nodename and not is_alive(status):
        said += ", but its process has gone: run the sweep again"
    if "file" not in status:
        return said
    try:
        with open_trajectory(files.path(status["file"])) as tree:
            steps = tree.to_dataset()["step"].values
        return f"{said}, recorded until step {steps[-1]}" if len(steps) else said
    except (LangevinError, KeyError, OSError):
        return said
