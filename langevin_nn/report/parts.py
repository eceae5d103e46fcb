"""A work in parts seen from a second terminal: a sweep, an experiment, a study."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime

from langevin_nn.errors import ConfigurationError, LangevinError
from langevin_nn.progress import in_words
from langevin_nn.store import open_trajectory
from langevin_nn.store.parts import Parts, Status, is_alive

__all__ = ["watched"]

_SHOWN = 5


def watched(folder: str | os.PathLike[str]) -> tuple[str, bool]:
    """Return how the works in a folder fare, in words.

    Parameters
    ----------
    folder : path
        Of a sweep, or the output of a comparison or study.

    Returns
    -------
    text : str
        Parts done, running, failed and waiting, the time that remains, what runs and what failed last.
    ended : bool
        Whether nothing is left to run.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    works = Parts.at(folder)
    if not works:
        raise ConfigurationError(
            f"nothing is recorded at {str(folder)!r}: expected the file of a run, also of one that has not ended, or the "
            "folder that langevin_nn.sweep(..., folder), a comparison or a study writes; name that"
        )
    said = [_of_one(each) for each in works]
    return "\n".join(text for text, _ in said), all(ended for _, ended in said)


def _of_one(files: Parts) -> tuple[str, bool]:
    index = files.index()
    keys = files.keys()
    statuses = files.statuses(keys)
    of = {
        state: [each for each in statuses.values() if each["state"] == state]
        for state in ("done", "running", "failed", "stopped")
    }
    # Whose process has gone will say nothing more.
    gone = [each for each in of["running"] if each.get("host") == socket.gethostname() and not is_alive(each)]
    of["running"] = [each for each in of["running"] if each not in gone]
    of["stopped"] += gone
    waiting = len(keys) - sum(len(of[state]) for state in ("done", "running", "failed"))
    what = "points" if files.is_sweep else "parts"
    counts = f"{len(of['done'])} of {len(keys)} {what} done, {len(of['running'])} running, {len(of['failed'])} failed"
    name = index["function"]["name"] if files.is_sweep else index.get("study") or ", ".join(keys)
    # A study may have parts of which nobody knows yet: its results say that it has ended.
    ended = not (waiting or of["running"]) if files.is_sweep else files.is_done or "failed" in index.get("parts", {})
    stopped = bool(of["stopped"]) and not of["running"]
    ended = ended or stopped
    lines = [f"{name}: {counts}, {waiting} waiting{': it was stopped, go on with it' if stopped else ''}"]
    if of["running"] or (waiting and not stopped):
        lines.append(f"  {_remaining(of['done'], of['running'], len(of['running']) + waiting, what)}")
    for status in sorted(of["running"], key=lambda each: str(each["at"]))[:_SHOWN]:
        lines.append(f"  running since {status['at'][11:19]}: {_point(status)}{_progress(files, status)}")
    if len(of["running"]) > _SHOWN:
        lines.append(f"  … and {len(of['running']) - _SHOWN} more")
    for status in gone[:_SHOWN]:
        again = f"its process has gone: run {'the sweep' if files.is_sweep else 'it'} again"
        lines.append(f"  stopped: {_point(status)}{_progress(files, status)}, {again}")
    for status in sorted(of["failed"], key=lambda each: str(each["at"]))[-_SHOWN:]:
        lines.append(f"  failed: {_point(status)}: {status.get('error', 'it diverged').splitlines()[0]}")
    return "\n".join(lines), ended


def _point(status: Status) -> str:
    return ", ".join(f"{name} {value}" for name, value in status["point"].items())


def _remaining(done: list[Status], running: list[Status], left: int, what: str) -> str:
    seconds = [each["seconds"] for each in done if "seconds" in each]
    if not seconds:
        return f"time that remains: unknown before the first {what[:-1]} is done"
    at_a_time = max(1, len({(each.get("host"), each.get("process")) for each in running}))
    whole = sum(seconds) / len(seconds) * left / at_a_time
    pace = f"{sum(seconds) / len(seconds):.3g} s a {what[:-1]} on {at_a_time} worker{'s' * (at_a_time > 1)}"
    return f"about {in_words(whole)} remain, at {pace}"


def _progress(files: Parts, status: Status) -> str:
    """Say how far a running simulation has come, by what it has recorded."""
    started = datetime.fromisoformat(status["at"])
    since = (datetime.now(UTC) - started).total_seconds()
    said = f", {since:.0f} s"
    if "file" not in status:
        return said
    try:
        with open_trajectory(files.path(status["file"])) as tree:
            steps = tree.to_dataset()["step"].values
        return f"{said}, recorded until step {steps[-1]}" if len(steps) else said
    except (LangevinError, KeyError, OSError):
        return said
