"""How much memory recording takes: long histories of scalars, and many records of large networks."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from langevin_nn import Process, Seeds, simulate
from langevin_nn.landscape import QuadraticLandscape
from langevin_nn.noise import ThermalNoise
from langevin_nn.observables import Losses
from langevin_nn.provenance import attributes
from langevin_nn.schedules import EverySteps
from langevin_nn.store import Recorder, SegmentFolder, folder_of, open_trajectory, write_trajectory
from langevin_nn.store.segments import read_segments
from langevin_nn.update import EulerMaruyama
from langevin_nn.update.state import State

from .kills import Caught, finish, started
from .worker import be_modest, told

_PATIENCE = 900.0
MIB = 2**20
_GOLDEN = 0.6180339887498949  # its multiples do not compress


def peak() -> int:
    """Return the most memory that this process has held, in bytes."""
    try:
        # ru_maxrss of a process counts what its parent held when it was forked; this does not.
        status = Path("/proc/self/status").read_text()
        match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _state(step: int, weights: torch.Tensor) -> State:
    return State(step, weights, None, None, Seeds(0), (0,), torch.zeros(1, dtype=torch.bool))


def _recorded(path: Path, records: int, group: str, weights: torch.Tensor, values: Any) -> None:
    """What the loop does with records, without the loop: `values` makes those of a step."""
    folder = SegmentFolder(folder_of(path), attributes({"seed": 0}, complete=False))
    recorder = Recorder((0,), attributes({"seed": 0}), {"learning_rate": np.ones(1)}, {group: records}, folder)
    for step in range(records):
        recorder.keep(group, step, step / 10, step / 100, values(step))
        recorder.commit_if_due(_state(step, weights))
    recorder.commit(_state(records - 1, weights), recorded=True)
    tree = read_segments(folder.folder)
    tree.attrs["complete"] = 1
    write_trajectory(tree, path)
    for node in tree.subtree:
        node.close()
    folder.remove()


def scalars(path: Path, records: int) -> None:
    """Record a loss and a noise strength at every step."""

    def values(step: int) -> dict[str, Any]:
        return {"train_loss": np.full((1, 3), step / 7), "driving_noise_strength": np.full(1, step * _GOLDEN % 1.0)}

    _recorded(path, records, "", torch.zeros(1, 1), values)
    with open_trajectory(path) as tree:
        kept = tree.to_dataset()
        expected = np.arange(records) * _GOLDEN % 1.0
        if not (
            np.array_equal(kept.driving_noise_strength.values[0], expected)
            and np.array_equal(kept.train_loss.values[0, :, 2], np.arange(records) / 7)
            and np.array_equal(kept.step.values, np.arange(records))
        ):
            raise Caught("the file holds other numbers than were recorded")


def weights(path: Path, records: int, parameters: int = 10**6) -> None:
    """Record the weights of a network of a million parameters."""
    of_step = torch.zeros(1, parameters)
    noise = np.random.default_rng(0).standard_normal((1, parameters), np.float32)  # which does not compress

    def values(step: int) -> dict[str, Any]:
        return {"weights": noise * np.float32(1 + step)}

    _recorded(path, records, "weights", of_step, values)
    with open_trajectory(path) as tree:
        kept = tree["weights"]["weights"]
        for column in (0, parameters // 2, parameters - 1):
            if not np.array_equal(
                kept[0, :, column].values, noise[0, column] * np.arange(1, records + 1, dtype=np.float32)
            ):
                raise Caught("the file holds other numbers than were recorded")


@dataclass(frozen=True)
class _Stopping(Losses):
    """Losses of the first steps, which are as many as it takes to see what a run prepares for the rest."""

    def measure(self, snapshot: Any) -> dict[str, Any]:
        if snapshot.state.step == 1000:
            raise KeyboardInterrupt
        return super().measure(snapshot)


def beginning(path: Path, records: int) -> None:
    """Begin a run that records scalars at every step, through the loop itself."""
    process = Process(QuadraticLandscape([[1.0]], [[0.0]]), ThermalNoise(0.5), 0.01, update=EulerMaruyama())
    options = {"steps": records - 1, "replicas": 1, "schedule": EverySteps(1), "progress": False}
    with suppress(KeyboardInterrupt):
        simulate(process, **options, observables=_Stopping(), path=path)
    with open_trajectory(path) as tree:
        if tree.sizes["step"] != 1000:
            raise Caught("the run did not keep its first records")


KINDS = {"scalars": scalars, "weights": weights, "beginning of a run": beginning}


def _measured(kind: str, path: str, records: int, report: str) -> None:
    be_modest()
    with told(Path(report)):
        before, begun = peak(), time.monotonic()
        KINDS[kind](Path(path), records)
        found = {
            "memory": peak() - before,
            "seconds": time.monotonic() - begun,
            "file": Path(path).stat().st_size if Path(path).exists() else 0,
        }
        Path(report).write_text(json.dumps(found))


def measured(kind: str, folder: Path, records: int) -> dict[str, float]:
    """Record in a process of its own; return its peak memory above what the imports take, and what its file takes."""
    folder.mkdir()
    report, path = folder / "report", folder / "run.nc"
    process = started(_measured, kind, str(path), records, str(report))
    process.join(_PATIENCE)
    if finish(process, report):
        raise Caught(f"recording {records} {kind} failed")
    path.unlink(missing_ok=True)
    found: dict[str, float] = json.loads(report.read_text())
    return found
