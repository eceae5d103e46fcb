"""From records to labelled datasets, and from datasets to files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.errors import ConfigurationError
from langevin_nn.provenance import attributes
from langevin_nn.schema import CLOCKS, COHORT_PAIRS, COHORTS, describe

__all__ = ["Recorder", "check_writable", "join_processes", "open_trajectory", "write_trajectory"]

Arrays = Mapping[str, NDArray[Any]]

_COORDINATES = {
    "epoch": {"long_name": "epoch", "units": "1"},
    "time": {"long_name": "gradient-flow time, sum of time steps", "units": "1"},
}


class Recorder:
    """Collects the records of one run, group by group.

    Parameters
    ----------
    replicas : tuple of int
        Indices of the replicas.
    config : mapping
        What is run, for the attributes.
    coordinates : mapping of str to array, shape (replica,)
        What differs between replicas.
    """

    def __init__(self, replicas: tuple[int, ...], config: Mapping[str, Any], coordinates: Arrays) -> None:
        self._replicas, self._config, self._coordinates = replicas, config, coordinates
        self._records: dict[str, dict[int, dict[str, NDArray[Any]]]] = defaultdict(dict)
        self._clock: dict[int, tuple[float, float]] = {}
        self._timeless: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)

    @property
    def started(self) -> bool:
        """Whether anything has been recorded."""
        return bool(self._clock)

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
        """
        self._records[group].setdefault(step, {}).update(values)
        self._clock[step] = (epoch, time)

    def has_timeless(self, group: str) -> bool:
        """Return whether what never changes has been kept.

        Parameters
        ----------
        group : str
            Group of the file.

        Returns
        -------
        bool
            Also where there was nothing to keep.
        """
        return group in self._timeless

    def keep_timeless(self, group: str, values: Arrays) -> None:
        """Add variables that never change.

        Parameters
        ----------
        group : str
            Group of the file.
        values : mapping of str to ndarray, shapes (replica, ...)
            By name.
        """
        self._timeless[group].update(values)

    def _dataset(self, group: str) -> xr.Dataset:
        clock = CLOCKS[group]
        steps = sorted(self._records[group])
        variables: dict[str, Any] = {}
        records = [self._records[group][step] for step in steps]
        for name in dict.fromkeys(name for record in records for name in record):
            described = describe(name)
            variables[name] = (("replica", clock, *described.dimensions), _stack(records, name), described.attributes)
        for name, values in self._timeless[group].items():
            described = describe(name)
            variables[name] = (("replica", *described.dimensions), values, described.attributes)
        coordinates: dict[str, Any] = {
            "replica": _labelled("replica", list(self._replicas), "replica"),
            clock: _labelled(clock, steps, "number of updates"),
            "time": (clock, [self._clock[step][1] for step in steps], _COORDINATES["time"]),
        }
        epochs = [self._clock[step][0] for step in steps]
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
        return dataset

    def _of_replicas(self) -> dict[str, Any]:
        """Return what differs between replicas, labelled."""
        return {
            name: ("replica", values, {"long_name": name.replace("_", " "), "units": "1"})
            for name, values in self._coordinates.items()
        }

    def tree(self, *, complete: bool = True) -> xr.DataTree:
        """Return everything recorded so far.

        Parameters
        ----------
        complete : bool, optional
            Whether the run reached its end.

        Returns
        -------
        xarray.DataTree
            In the schema of trajectory files.
        """
        groups = {f"/{group}": self._dataset(group) for group, records in self._records.items() if records}
        groups.setdefault("/", xr.Dataset(coords=self._of_replicas()))
        tree = xr.DataTree.from_dict(groups)
        tree.attrs.update(attributes(self._config, complete=complete))
        return tree


def _labelled(dimension: str, values: Any, long_name: str) -> tuple[str, Any, dict[str, str]]:
    return dimension, values, {"long_name": long_name, "units": "1"}


def _stack(records: list[dict[str, NDArray[Any]]], name: str) -> NDArray[Any]:
    """Stack a variable along its clock; NaN where a record does not have it."""
    example = next(record[name] for record in records if name in record)
    missing = np.full(example.shape, np.nan)
    return np.stack([record.get(name, missing) for record in records], axis=1)


def join_processes(trajectories: Mapping[str, xr.DataTree], config: Mapping[str, Any]) -> xr.DataTree:
    """Put trajectories of several processes, recorded at common epochs, into one tree.

    Parameters
    ----------
    trajectories : mapping of str to xarray.DataTree
        By name of the process.
    config : mapping
        What was run, for the attributes.

    Returns
    -------
    xarray.DataTree
        With the dimension ``process`` first; what never changes is kept once. ``step`` is that of the first process;
        ``update_count`` says how many updates each took, which differs where time steps do.

    Raises
    ------
    ConfigurationError
        If the processes were not recorded at the same epochs, or their replicas or what never changes differ.
    """
    names = list(trajectories)
    trees = list(trajectories.values())
    for name, tree in trajectories.items():
        if set(tree.groups) != set(trees[0].groups):
            raise ConfigurationError(
                f"process {name!r} has the groups {', '.join(sorted(tree.groups))}, {names[0]!r} has "
                f"{', '.join(sorted(trees[0].groups))}: expected the same observables of all; keep processes that were "
                "recorded differently in different files"
            )
    groups: dict[str, xr.Dataset] = {}
    for path in trees[0].groups:
        parts = [_group(tree, path) for tree in trees]
        clock = CLOCKS[path.strip("/")]
        for name, part in zip(names, parts, strict=True):
            _check_same_constants(part, parts[0], name, names[0])
        if any(not _same_clock(part, parts[0], clock) for part in parts):
            raise ConfigurationError(
                f"processes were recorded at different epochs or times along {clock!r}: expected common ones; keep processes "
                "on different clocks in different files"
            )
        if path == "/":
            counts = np.stack(
                [np.broadcast_to(part[clock], (part.sizes["replica"], part.sizes[clock])) for part in parts]
            )
        moving = [str(name) for name in parts[0].data_vars if not describe(str(name)).timeless]
        joined = xr.concat(
            [part[moving] for part in parts],
            dim=xr.Variable("process", names),
            coords="minimal",
            compat="override",
            join="override",
            combine_attrs="override",
        )
        still = parts[0].drop_vars(moving)
        groups[path] = joined.assign({name: still[name] for name in still.data_vars})
    root = groups["/"]
    described = {"long_name": "number of updates", "units": "1"}
    groups["/"] = root.assign(update_count=(("process", "replica", "step"), counts, described))
    tree = xr.DataTree.from_dict(groups)
    complete = all(int(each.attrs["complete"]) for each in trees)
    tree.attrs.update(attributes(config, complete=complete))
    return tree


def _check_same_constants(part: xr.Dataset, first: xr.Dataset, name: str, first_name: str) -> None:
    """Raise unless what is kept once for all processes is the same in two of them."""

    def constants(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
        of_replicas = {str(key): value for key, value in dataset.coords.items() if value.dims == ("replica",)}
        timeless = {str(key): value for key, value in dataset.data_vars.items() if describe(str(key)).timeless}
        return {**of_replicas, **timeless}

    own, expected = constants(part), constants(first)
    for key in dict.fromkeys([*expected, *own]):
        if (
            key in own
            and key in expected
            and xr.Dataset({key: own[key].variable}).equals(xr.Dataset({key: expected[key].variable}))
        ):
            continue
        raise ConfigurationError(
            f"{key!r} of process {name!r} differs from that of {first_name!r}: expected the same in all processes, since "
            "it is kept once for all of them; keep runs with other replicas, rates or labels in different files"
        )


def _same_clock(part: xr.Dataset, first: xr.Dataset, clock: str) -> bool:
    """Return whether two runs were recorded at the same moments, however many updates they took to get there."""
    if part.sizes[clock] != first.sizes[clock]:
        return False
    return all(np.allclose(part[name], first[name], rtol=1e-9) for name in ("time", "epoch") if name in first.coords)


def _group(tree: xr.DataTree, path: str) -> xr.Dataset:
    """Return one group without the coordinates of those above it."""
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)


def check_writable(folder: Path) -> None:
    """Make a folder and raise unless files can be written into it.

    Parameters
    ----------
    folder : Path
        Where results will go; checked before anything is computed.

    Raises
    ------
    ConfigurationError
        Saying why not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"output folder {str(folder)!r} cannot be written ({error.strerror}): expected a folder in which files can be "
            "made; choose another"
        ) from error


def write_trajectory(tree: xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write a trajectory to netCDF-4: aside first, then renamed, so that no half-written file is ever seen.

    Parameters
    ----------
    tree : xarray.DataTree
        In the schema of trajectory files.
    path : path
        The file, overwritten where it exists.

    Returns
    -------
    Path
        The file.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        tree.to_netcdf(aside, engine="netcdf4")
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def open_trajectory(path: str | os.PathLike[str]) -> xr.DataTree:
    """Open a trajectory file with all its groups.

    Parameters
    ----------
    path : path
        A file that `write_trajectory` or `langevin_nn.simulate` made.

    Returns
    -------
    xarray.DataTree
        Loaded into memory; the file is closed again.

    Raises
    ------
    ConfigurationError
        If there is no such file, or it is no netCDF.
    """
    if not Path(path).is_file():
        raise ConfigurationError(f"no trajectory at {str(path)!r}: expected a netCDF file written by langevin_nn")
    try:
        with xr.open_datatree(path, engine="netcdf4") as tree:
            return tree.load()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{str(path)!r} cannot be read as netCDF ({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
            "expected a file written by langevin_nn; it is another kind of file or was cut short, name another or run again"
        ) from error
