"""From records to labelled datasets: buffers of bounded size, emptied into segments."""

from __future__ import annotations

from array import array
from collections.abc import Container, Mapping
from time import monotonic
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.errors import ConfigurationError, StorageError
from langevin_nn.observables.base import Observable
from langevin_nn.observables.declarations import Declarations
from langevin_nn.schema import COHORT_PAIRS, COHORTS, clock_of_group
from langevin_nn.store.forecast import recording_limit, refuse_unless_it_fits
from langevin_nn.store.segments import SegmentFolder, assembled, dtype_with_gaps
from langevin_nn.store.state import state_bytes
from langevin_nn.update.state import State

__all__ = ["Recorder"]

Arrays = Mapping[str, NDArray[Any]]

_COORDINATES = {
    "epoch": {"long_name": "epoch", "units": "1"},
    "time": {"long_name": "gradient-flow time, sum of time steps", "units": "1"},
}
_FIRST_ROWS = 16
_SHARE = 8  # of the budget: a buffer that grows is there twice, and its image as a file is a third


class _Buffer:
    """Records of one group, in arrays that grow by doubling, for no more than are expected."""

    def __init__(self, expected: int) -> None:
        self._expected = max(1, expected)
        self._room = 0
        self._arrays: dict[str, NDArray[Any]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}  # of one record
        self._filled: dict[str, array[int]] = {}
        self.steps, self.epochs, self.times = array("q"), array("d"), array("d")
        self.row_bytes = 0

    def keep(self, step: int, epoch: float, time: float, values: Arrays) -> bool:
        """Add variables of one record; return whether there were new ones."""
        if not self.steps or self.steps[-1] != step:
            self.steps.append(step)
            self.epochs.append(epoch)
            self.times.append(time)
            if len(self.steps) > self._room:
                self._grow()
        row, begun = len(self.steps) - 1, False
        for name, value in values.items():
            if name not in self._arrays:
                self._begin(name, np.asarray(value))
                begun = True
            if value.shape != self._shapes[name]:
                raise ConfigurationError(
                    f"{name!r} has shape {value.shape} at step {step}: expected {self._shapes[name]} as in the records "
                    "before, since a trajectory is one array; record a fixed number of values"
                )
            if value.dtype != self._arrays[name].dtype:
                raise ConfigurationError(
                    f"{name!r} is of {value.dtype} at step {step}: expected {self._arrays[name].dtype} as in the records "
                    "before, since a trajectory is one array; convert what is measured to one type"
                )
            self._arrays[name][:, row] = value
            if self._filled[name][-1:] != array("q", [row]):  # two observables may measure the same
                self._filled[name].append(row)
        return begun

    def _begin(self, name: str, value: NDArray[Any]) -> None:
        self._arrays[name] = np.empty((value.shape[0], self._room, *value.shape[1:]), value.dtype)
        self._shapes[name] = value.shape
        self._filled[name] = array("q")
        self.row_bytes += value.nbytes

    def _grow(self) -> None:
        before = self._room
        self._room = max(len(self.steps), min(max(2 * before, _FIRST_ROWS), self._expected))
        for name, old in self._arrays.items():
            new = np.empty((old.shape[0], self._room, *old.shape[2:]), old.dtype)
            new[:, :before] = old
            self._arrays[name] = new

    def drop_until(self, step: int) -> None:
        """Forget records up to a step: they lie in a segment."""
        self._keep_rows(np.asarray(self.steps, dtype=np.int64) > step)

    def drop_from(self, step: int) -> None:
        """Forget records from a step on: they are not whole."""
        self._keep_rows(np.asarray(self.steps, dtype=np.int64) < step)

    def _keep_rows(self, chosen: NDArray[np.bool_]) -> None:
        if chosen.all():
            return
        number = np.cumsum(chosen) - 1
        for name, old in self._arrays.items():
            filled = np.asarray(self._filled[name], dtype=np.int64)
            self._filled[name] = array("q", number[filled[chosen[filled]]].tolist())
            if chosen.any():
                old[:, : chosen.sum()] = old[:, : len(chosen)][:, chosen]
        for name in ("steps", "epochs", "times"):
            values = getattr(self, name)
            setattr(self, name, array(values.typecode, np.asarray(values)[chosen].tolist()))

    @property
    def names(self) -> Container[str]:
        """Of the variables that have begun."""
        return self._arrays.keys()

    @property
    def size(self) -> int:
        """Bytes of the records."""
        return self.row_bytes * len(self.steps)

    def variables(self) -> dict[str, NDArray[Any]]:
        """Return arrays of shape (replica, record, ...); NaN where a record does not have one."""
        rows, found = len(self.steps), {}
        for name, kept in self._arrays.items():
            filled = self._filled[name]
            if not filled:
                continue
            values = kept[:, :rows]
            if len(filled) < rows:
                absent = np.ones(rows, bool)
                absent[np.asarray(filled)] = False
                values = values.astype(dtype_with_gaps(values.dtype))
                values[:, absent] = np.nan
            found[name] = values
        return found


class Recorder:
    """Collects the records of one run, group by group.

    Parameters
    ----------
    replicas : tuple of int
        Indices of the replicas.
    attributes : mapping
        Of the file.
    coordinates : mapping of str to array, shape (replica,)
        What differs between replicas.
    expected : mapping of str to int
        How many records each group will have.
    folder : SegmentFolder, optional
        Where segments go; without one, everything is held in memory.
    memory_limit : int, float or str, optional
        The most that recording holds in memory where there is a folder; 256 MiB, or four records, unless said.
    segment_seconds : float, optional
        After how long a segment is finished at the latest.
    declared : Declarations, optional
        What may be recorded; the package's own variables unless said.
    """

    def __init__(
        self,
        replicas: tuple[int, ...],
        attributes: Mapping[str, Any],
        coordinates: Arrays,
        expected: Mapping[str, int],
        folder: SegmentFolder | None = None,
        memory_limit: int | float | str | None = None,
        segment_seconds: float = 30.0,
        declared: Declarations | None = None,
    ) -> None:
        self._declared = declared or Declarations()
        self._sizes = self._declared.sizes
        self._replicas, self._attributes, self._coordinates = replicas, dict(attributes), coordinates
        self._expected, self._folder = dict(expected), folder
        self._limit, self._seconds = memory_limit, segment_seconds
        self._buffers = {group: _Buffer(count) for group, count in expected.items()}
        self._timeless: dict[str, dict[str, NDArray[Any]]] = {}
        self._kept_timeless = set(folder.manifest.timeless) if folder else set()
        self._asked: set[int] = set()  # observables, by their ids
        self._last_commit = monotonic()

    @property
    def started(self) -> bool:
        """Whether anything has been recorded."""
        return any(buffer.steps for buffer in self._buffers.values())

    def keep(self, group: str, step: int, epoch: float, time: float, values: Arrays) -> None:
        """Add some variables of one record.

        Parameters
        ----------
        group : str
            Group of the file.
        step : int
            Number of updates made.
        epoch, time : float
            The same on the two other clocks.
        values : mapping of str to ndarray, shapes (replica, ...)
            By name.

        Raises
        ------
        ConfigurationError
            If they are not what was declared, or not as in the records before, or do not fit.
        """
        buffer, values = self._buffers[group], self._as_kept(values)
        new = {name: value for name, value in values.items() if name not in buffer.names}
        self._declared.check(group, new, len(self._replicas), self._sizes)
        if buffer.keep(step, epoch, time, values):
            self._refuse_unless_it_fits()

    def _as_kept(self, values: Arrays) -> Arrays:
        """Return values of half precision in single precision where they go to a file: netCDF has no float16."""
        if self._folder is None:
            return values
        half = np.dtype(np.float16)
        return {
            name: value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == half else value
            for name, value in values.items()
        }

    def _refuse_unless_it_fits(self) -> None:
        """Forecast again: what was declared is now known exactly."""
        whole = sum(buffer.row_bytes * self._expected[group] for group, buffer in self._buffers.items())
        record = sum(buffer.row_bytes for buffer in self._buffers.values())
        refuse_unless_it_fits(whole, record, 0, self._folder.folder if self._folder else None, self._limit)

    def has_timeless(self, observable: Observable) -> bool:
        """Return whether an observable was asked for what never changes, if anything, and it has been kept."""
        return id(observable) in self._asked and self._kept_timeless.issuperset(_timeless_names(observable))

    def keep_timeless(self, observable: Observable, values: Arrays) -> None:
        """Add variables that never change; those that are kept already stay as they are.

        Parameters
        ----------
        observable : Observable
            Of the run.
        values : mapping of str to ndarray, shapes (replica, ...)
            By name.

        Raises
        ------
        ConfigurationError
            If they are not what was declared.
        """
        values = self._as_kept(values)
        self._declared.check(observable.group, values, len(self._replicas), self._sizes, timeless=True)
        self._asked.add(id(observable))
        if new := {name: value for name, value in values.items() if name not in self._kept_timeless}:
            self._timeless.setdefault(observable.group, {}).update(new)
        self._kept_timeless.update(_timeless_names(observable), values)

    def drop_from(self, step: int) -> None:
        """Forget the records from a step on that are not all there: a run that goes on makes them again."""
        for group, buffer in self._buffers.items():
            buffer.drop_from(step)
            if not buffer.steps:  # then there is no group in which it would lie
                self._kept_timeless.difference_update(self._timeless.pop(group, {}))

    def commit_if_due(self, state: State) -> None:
        """Finish a segment where it is large or old enough and everything that is due until this state has been recorded."""
        if self._folder is not None and self.is_due:
            self.commit(state, recorded=True)

    @property
    def is_due(self) -> bool:
        """Whether what is held is large or old enough for a segment."""
        assert self._folder is not None
        self._folder.renew()
        held, record = (
            sum(getattr(buffer, name) for buffer in self._buffers.values()) for name in ("size", "row_bytes")
        )
        full = held >= recording_limit(self._limit, record) // _SHARE
        return full or monotonic() - self._last_commit >= self._seconds

    def commit(self, state: State, recorded: bool) -> None:
        """Finish a segment.

        Parameters
        ----------
        state : State
            From which the run would go on.
        recorded : bool
            Whether everything that is due at its step has been recorded.

        Raises
        ------
        StorageError
            If it cannot be written; it carries the records that were in memory.
        """
        assert self._folder is not None
        self._drop_committed()
        until = state.step if recorded else state.step - 1
        tree = self._tree_until(until) if self.started else None
        written = {node.path.strip("/") for node in tree.subtree} if tree is not None else set()
        # What never changes waits for the first record of its group, without which there is none in a segment.
        waiting = {group: values for group, values in self._timeless.items() if group not in written}
        kept = self._kept_timeless.difference(*waiting.values())
        try:
            self._folder.commit(tree, state_bytes(state, recorded), max(until, -1), tuple(sorted(kept)))
        except StorageError as error:
            error.trajectory = tree
            raise
        for buffer in self._buffers.values():
            buffer.drop_until(until)
        self._timeless = waiting
        self._last_commit = monotonic()

    def tree(self, *, complete: bool = True) -> xr.DataTree:
        """Return everything that is held in memory, in the schema of trajectory files."""
        return assembled([self._groups()], {**self._attributes, "complete": int(complete)})

    def _tree_until(self, step: int) -> xr.DataTree | None:
        """Return what is held in memory up to a step; None where that is nothing."""
        tree = self.tree(complete=False)
        if all(each <= step for buffer in self._buffers.values() for each in buffer.steps[-1:]):
            return tree
        kept = {}
        for node in tree.subtree:
            clock, dataset = clock_of_group(node.path.strip("/")), node.to_dataset(inherit=False)
            chosen = dataset.isel({clock: dataset[clock].values <= step}) if clock in dataset.sizes else dataset
            if node.path == "/" or chosen.sizes.get(clock, 1):
                kept[node.path] = chosen
        found = xr.DataTree.from_dict(kept)
        found.attrs.update(tree.attrs)
        return found if any(clock_of_group(path.strip("/")) in each.sizes for path, each in kept.items()) else None

    def whole(self, *, complete: bool) -> xr.DataTree:
        """Return all records of the run, those in segments lazily, to be closed after use."""
        assert self._folder is not None
        self._drop_committed()
        parts = [*self._folder.parts(), self._groups()]
        return assembled(parts, {**self._attributes, "complete": int(complete)})

    def _drop_committed(self) -> None:
        """Forget what lies in a segment: an interrupt may have come after it was written and before this."""
        assert self._folder is not None
        for buffer in self._buffers.values():
            buffer.drop_until(self._folder.manifest.recorded_until)

    def _groups(self) -> dict[str, xr.Dataset]:
        groups = {f"/{group}": self._dataset(group) for group, buffer in self._buffers.items() if buffer.steps}
        if "/" not in groups:
            groups = {"/": xr.Dataset(coords=self._of_replicas()), **groups}
        return groups

    def _dataset(self, group: str) -> xr.Dataset:
        clock, buffer = clock_of_group(group), self._buffers[group]
        variables: dict[str, Any] = {
            name: (self._declared.variables[name].recorded_dimensions, values, self._declared.attributes(name))
            for name, values in (buffer.variables() | self._timeless.get(group, {})).items()
        }
        coordinates: dict[str, Any] = {
            clock: _labelled(clock, np.array(buffer.steps), "number of updates"),
            "time": (clock, np.array(buffer.times), _COORDINATES["time"]),
        }
        epochs = np.array(buffer.epochs)
        if np.isfinite(epochs).all():
            coordinates["epoch"] = (clock, epochs, _COORDINATES["epoch"])
        if group == "":
            coordinates["cohort"] = _labelled("cohort", list(COHORTS), "training samples taken over")
            coordinates["cohort_pair"] = _labelled("cohort_pair", list(COHORT_PAIRS), "pair of mean gradients")
            coordinates |= self._of_replicas()
        dataset = xr.Dataset(variables, coords=coordinates)
        if "mode" in dataset.sizes:
            numbers = np.arange(1, dataset.sizes["mode"] + 1)
            dataset = dataset.assign_coords(mode=_labelled("mode", numbers, "rank of the eigenvalue"))
        own = {name: each for name, each in self._declared.coordinates.items() if name in dataset.sizes}
        return dataset.assign_coords({name: (name, each.values, each.attributes) for name, each in own.items()})

    def _of_replicas(self) -> dict[str, Any]:
        """Return the replicas and what differs between them, labelled."""
        return {"replica": _labelled("replica", list(self._replicas), "replica")} | {
            name: ("replica", values, {"long_name": name.replace("_", " "), "units": "1"})
            for name, values in self._coordinates.items()
        }


def _timeless_names(observable: Observable) -> set[str]:
    return {each.name for each in observable.variables if each.timeless}


def _labelled(dimension: str, values: Any, long_name: str) -> tuple[str, Any, dict[str, str]]:
    return dimension, values, {"long_name": long_name, "units": "1"}
