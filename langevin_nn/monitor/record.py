"""Where a monitored run lies: in memory, or in segments beside its file."""

from __future__ import annotations

import concurrent.futures.process  # noqa: F401  # dask's, to write a file: when a program ends it can be loaded no more
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.errors import ConfigurationError, StorageError
from langevin_nn.monitor.settled import MISSING
from langevin_nn.observables import Observable
from langevin_nn.observables.declarations import Declarations
from langevin_nn.observables.variables import described
from langevin_nn.provenance import attributes
from langevin_nn.schema import Coordinate, clock_of_group
from langevin_nn.seeds import Seeds
from langevin_nn.store import Finished, Recorder, SegmentFolder, open_run, open_trajectory, write_trajectory
from langevin_nn.store.state import state_bytes
from langevin_nn.update.state import State

__all__ = ["Record", "predictions_of"]

# How many records a run is taken to have, to see that they will fit; more are kept as well.
_EXPECTED = {"": 4096, "measured_layers": 4096, "samples": 64}


class _GivenLabels(Observable):
    """What never changes of the samples."""

    variables = described("given_label")

    def measure(self, snapshot: Any) -> dict[str, NDArray[Any]]:
        return {}


class Record:
    """What a monitor has recorded, and where.

    Parameters
    ----------
    configuration : mapping
        By which the run is known again.
    layers : tuple of str
        Of which order parameters are recorded.
    target : Path or None
        The file to be.
    resume, overwrite : bool
        Of the monitor.
    seconds : float
        After which a segment is finished.

    Raises
    ------
    ConfigurationError
        If something is at the path, or the run to go on with has ended.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        layers: tuple[str, ...],
        target: Path | None,
        *,
        resume: bool,
        overwrite: bool,
        seconds: float,
    ) -> None:
        way = "resume=True and load_state_dict"
        opened = open_run(target, configuration, target if resume else None, overwrite=overwrite, way=way)
        if isinstance(opened, Finished):
            raise ConfigurationError(
                f"the run at {str(target)!r} has ended: expected one that was interrupted; leave resume=True out and choose "
                "another path"
            )
        self.target, self.layers, self.goes_on = opened.target, layers, opened.goes_on
        self._folder: SegmentFolder | None
        self._folder, _, _ = opened.take_up(torch.device("cpu"))
        self._attributes = attributes(configuration, complete=False)
        names = {"layer": Coordinate(np.array(layers), "layer")} if layers else {}
        self._declared = Declarations(coordinates=names)
        self._seconds, self._labels = seconds, _GivenLabels()
        self._recorder = self._empty()
        if self._folder is not None and not self.goes_on:
            self._recorder.commit(_state(0, {}), recorded=False)  # of the start, as every run has one: it holds no work

    def _empty(self) -> Recorder:
        carried = self._attributes if self._folder is None else self._folder.manifest.attributes
        return Recorder((0,), carried, {}, _EXPECTED, self._folder, None, self._seconds, self._declared)

    def keep(self, group: str, now: tuple[int, float, float], values: Mapping[str, NDArray[Any]]) -> None:
        """Add some variables of the record at a step, an epoch and a time."""
        if values:
            self._recorder.keep(group, *now, values)

    def keep_labels(self, labels: NDArray[np.int64]) -> None:
        """Add the given labels, shape (replica, sample), once."""
        if not self._recorder.has_timeless(self._labels):
            self._recorder.keep_timeless(self._labels, {"given_label": labels})

    def tree(self) -> xr.DataTree:
        """Return everything that has been recorded, in memory."""
        if self._folder is None:
            return self._recorder.tree(complete=False)
        with self._recorder.whole(complete=False) as tree:
            return tree.load()

    def commit_if_due(self, step: int, memory: Callable[[], Mapping[str, Any]]) -> None:
        """Finish a segment where it is large or old enough; nothing more is to come at this step."""
        if self._folder is not None and self._recorder.is_due:
            self._recorder.commit(_state(step, memory()), recorded=True)

    def saved(self, step: int, memory: Mapping[str, Any]) -> dict[str, Any]:
        """Put records on the disk where there is one, and return the others: of this step, at which more may come."""
        if self._folder is not None:
            self._recorder.commit(_state(step, memory), recorded=False)
        return {path: _as_tensors(each) for path, each in _groups(self._recorder.tree(complete=False)).items()}

    def load(
        self, records: Mapping[str, Any], step: int, memory: Mapping[str, Any]
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int32]], list[float]]:
        """Take up the records until a step, and return losses and predictions of the epochs among them with their clock."""
        if self._folder is not None and self._folder.manifest.segments:
            self._folder.cut(step - 1, state_bytes(_state(step, memory), True))
        self._recorder = self._empty()
        for path, saved in records.items():
            group = path.strip("/")
            clock = clock_of_group(group)
            for row in range(len(saved[clock]["values"]) if clock in saved else 0):
                epoch, time = (float(saved[each]["values"][row]) for each in ("epoch", "time"))
                now = int(saved[clock]["values"][row]), epoch, time
                self.keep(group, now, {name: each[:, row] for name, each in _recorded(saved, clock).items()})
        samples = _groups(self.tree()).get("/samples")
        if samples is None:
            return [], [], []
        losses = samples.sample_loss.values[0]
        return list(losses), list(predictions_of(samples, losses.shape)), samples.epoch.values.tolist()

    def finish(self, step: int, memory: Mapping[str, Any]) -> xr.DataTree:
        """Make the file of everything, or return it where there is none."""
        if self._folder is None or self.target is None:
            tree = self.tree()
            tree.attrs["complete"] = 1
            return tree
        with self._recorder.whole(complete=True) as tree:
            try:
                write_trajectory(tree, self.target, overwrite=True)
            except StorageError as error:
                error.trajectory = self._recorder.tree(complete=False)
                self.leave(step, memory)
                raise
        self._folder.remove()
        return open_trajectory(self.target)

    def leave(self, step: int, memory: Mapping[str, Any]) -> None:
        """Put everything on the disk, for whoever opens it."""
        if self._folder is not None:
            self._recorder.commit(_state(step, memory), recorded=True)
            self._folder.close()


def predictions_of(samples: xr.Dataset, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return recorded predictions of one replica, shape (record, sample), -1 where there are none."""
    if "predicted_label" not in samples:
        return np.full(shape, MISSING, np.int32)
    values = samples.predicted_label.values.reshape(shape)
    return np.where(np.isfinite(values), values, MISSING).astype(np.int32)


def _state(step: int, memory: Mapping[str, Any]) -> State:
    """Return what a monitor remembers as the state of a run."""
    nothing = torch.empty(1, 0)
    return State(step, nothing, dict(memory), None, Seeds(0), (0,), torch.zeros(1, dtype=torch.bool))


def _groups(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    return {node.path: node.to_dataset(inherit=False) for node in tree.subtree}


def _as_tensors(dataset: xr.Dataset) -> dict[str, Any]:
    """Return a dataset as what ``torch.load(weights_only=True)`` reads."""
    return {
        str(name): {
            "dims": list(map(str, each.dims)),
            "values": torch.tensor(each.values) if each.dtype.kind in "fiub" else each.values.tolist(),
        }
        for name, each in dataset.variables.items()
    }


def _recorded(saved: Mapping[str, Any], clock: str) -> dict[str, NDArray[Any]]:
    """Return the variables of a group that are recorded along its clock."""
    along = {name: each for name, each in saved.items() if each["dims"][:2] == ["replica", clock]}
    return {name: np.asarray(each["values"]) for name, each in along.items()}
