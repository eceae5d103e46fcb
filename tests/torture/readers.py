"""Files that are read while they are written."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

from langevin_nn import open_trajectory
from langevin_nn.errors import ConfigurationError

from . import worker
from .kills import Caught, check_prefix, check_same_file, finish, started
from .page import Page

_PATIENCE = 120


def read(path: str, reference: str, hold: float, report: str) -> None:
    """Open, wait, load and compare until the run is complete; say how often."""
    worker.be_modest()
    warnings.simplefilter("error")
    whole = open_trajectory(reference).load()
    opened, lengths, deadline = 0, set(), time.monotonic() + _PATIENCE
    with worker.told(Path(report)):
        while True:
            if time.monotonic() > deadline:
                raise Caught("the run did not end")
            try:
                tree = open_trajectory(path)
            except ConfigurationError:
                if opened:
                    raise
                time.sleep(1e-3)  # it has not begun
                continue
            opened += 1
            time.sleep(hold)
            tree.load()
            until = int(tree["step"].values[-1]) if "step" in tree.coords else -1  # none yet: the run has just begun
            check_prefix(tree, whole, until)
            lengths.add(until)
            complete = int(tree.attrs["complete"])
            tree.close()
            if complete:
                break
    Path(report).write_text(json.dumps({"opened": opened, "lengths": len(lengths)}))


def read_while_written(folder: Path, reference: Path, holds: tuple[float, ...], variant: str) -> dict[str, Any]:
    """Write a run in tiny segments while readers open it, each of which holds what it opened for a while before it loads it.

    Return how often each reader opened it, how many lengths it saw, and how often segments were merged.
    """
    folder.mkdir()
    path, page = folder / "run.nc", folder / "page"
    shared = Page(page)
    reports = [folder / f"reader-{number}" for number in range(len(holds))]
    readers = [
        started(read, str(path), str(reference), hold, str(report)) for hold, report in zip(holds, reports, strict=True)
    ]
    if finish(started(worker.work, variant, str(path), str(page)), page):
        raise Caught("the writer failed")
    for reader, report in zip(readers, reports, strict=True):
        if finish(reader, report):
            raise Caught("a reader failed")
    check_same_file(path, reference)
    found = [json.loads(report.read_text()) for report in reports]
    return {
        "opened": [each["opened"] for each in found],
        "lengths": [each["lengths"] for each in found],
        "merges": shared["merges"],
    }
