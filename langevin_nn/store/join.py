"""Several trajectories in one tree: processes side by side, replicas and sweeps one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import xarray as xr

from langevin_nn.checks import instance
from langevin_nn.errors import ConfigurationError
from langevin_nn.provenance import attributes, configuration, differences
from langevin_nn.replicas import KEPT_LABELS, Replica, check_each_once, replicas_of, runs_of, said_of
from langevin_nn.schema import clock_of_group, is_clock
from langevin_nn.store.lazy import joined, stacked_lazily

__all__ = ["join_processes", "merge"]

_COUNT = "update_count"
_OF_COUNTS = {"long_name": "number of updates", "units": "1"}


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
        if "process" in tree.sizes:
            held = ", ".join(map(str, tree.coords["process"].values))
            raise ConfigurationError(
                f"process {name!r} is a trajectory of several processes, {held}: "
                "expected one process each; choose them with tree.sel(process=...)"
            )
    groups: dict[str, xr.Dataset] = {}
    n_replicas = trees[0].sizes["replica"]
    for path in trees[0].groups:
        parts = [_group(tree, path) for tree in trees]
        clock = clock_of_group(path.strip("/"))
        for name, part in zip(names, parts, strict=True):
            _check_same_variables(part, parts[0], name, names[0])
            _check_same_constants(part, parts[0], name, names[0])
        if any(not _same_clock(part, parts[0], clock) for part in parts):
            raise ConfigurationError(
                f"processes were recorded at different epochs or times along {clock!r}: expected common ones; keep processes "
                "on different clocks in different files"
            )
        for name, part in zip(names, parts, strict=True):
            _check_same_sizes(part, parts[0], name, names[0])
        variables: dict[str, Any] = {
            str(key): first.variable
            if _is_timeless(first)
            else stacked_lazily([part.variables[key] for part in parts], "process")
            for key, first in parts[0].data_vars.items()
            if key != _COUNT
        }
        coordinates: dict[str, Any] = {str(key): each for key, each in parts[0].coords.items()}
        if path == "/":
            coordinates = {"process": names, **coordinates}
        groups[path] = xr.Dataset(variables, coords=coordinates)
        if clock == "step" and clock in parts[0].sizes:
            counts = np.stack([np.broadcast_to(_counts(part), (n_replicas, part.sizes[clock])) for part in parts])
            groups[path] = groups[path].assign({_COUNT: (("process", "replica", "step"), counts, _OF_COUNTS)})
    tree = xr.DataTree.from_dict(groups)
    complete = all(int(each.attrs.get("complete", 0)) for each in trees)
    tree.attrs.update(attributes(config, complete=complete))
    return tree


def _said_otherwise(part: xr.Dataset, first: xr.Dataset) -> list[str]:
    """Return the variables of which two files say other things."""

    def said(dataset: xr.Dataset, name: Any) -> tuple[Any, ...]:
        return tuple(dataset[name].attrs.get(each) for each in ("long_name", "units"))

    return sorted(str(name) for name in first.data_vars if name in part and said(part, name) != said(first, name))


def _is_timeless(values: xr.DataArray) -> bool:
    return not any(is_clock(dimension) for dimension in values.dims)


def _counts(part: xr.Dataset) -> Any:
    """Return how many updates were made at each record, along ``step`` or along ``replica`` and ``step``."""
    return part[_COUNT].values if _COUNT in part.data_vars else part["step"].values


def _check_same_variables(part: xr.Dataset, first: xr.Dataset, name: str, first_name: str) -> None:
    # What is along replicas only is said by the check of constants, which knows more of it.
    own, expected = (
        {str(key) for key, each in dataset.variables.items() if key != _COUNT and each.dims != ("replica",)}
        for dataset in (part, first)
    )
    if own != expected:
        raise ConfigurationError(
            f"process {name!r} and {first_name!r} differ in {', '.join(sorted(own ^ expected))}: expected the same "
            "observables of all; keep processes that were recorded differently in different files"
        )
    if other := _said_otherwise(part, first):
        raise ConfigurationError(
            f"process {name!r} and {first_name!r} say other things of {', '.join(other)}: expected one long name and one "
            "unit of each variable, since they become one; keep such runs in different files"
        )


def _check_same_sizes(part: xr.Dataset, first: xr.Dataset, name: str, first_name: str) -> None:
    for dimension, size in first.sizes.items():
        if part.sizes.get(dimension) != size:
            raise ConfigurationError(
                f"process {name!r} has {part.sizes.get(dimension, 'no')} {dimension}s, {first_name!r} has {size}: expected "
                "the same landscape and observables of all, since they share their axes; keep them in different files"
            )


def _check_same_constants(part: xr.Dataset, first: xr.Dataset, name: str, first_name: str) -> None:
    """Raise unless what is kept once for all processes is the same in two of them."""

    def constants(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
        of_replicas = {str(key): value for key, value in dataset.coords.items() if value.dims == ("replica",)}
        timeless = {str(key): value for key, value in dataset.data_vars.items() if _is_timeless(value)}
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
    if part.sizes.get(clock) != first.sizes.get(clock):
        return False
    return all(np.allclose(part[name], first[name], rtol=1e-9) for name in ("time", "epoch") if name in first.coords)


def _group(tree: xr.DataTree, path: str) -> xr.Dataset:
    """Return one group without the coordinates of those above it."""
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)


def merge(trajectories: Sequence[xr.DataTree]) -> xr.DataTree:
    """Put the replicas of several trajectories into one tree: more seeds, or the points of a sweep.

    What the configurations differ in (``seed``, ``batch_size``, ``label_noise``, …) becomes a coordinate along ``replica``,
    beside those that the files have.

    Parameters
    ----------
    trajectories : sequence of xarray.DataTree
        Recorded with the same observables at the same epochs, or at the same steps where there are no epochs.

    Returns
    -------
    xarray.DataTree
        Lazily. Replicas keep their labels where these differ; where not, they are numbered anew and ``replica_of_file``
        keeps the labels, the first ones where a file was merged before. Where gradient-flow time differs, ``time`` is along
        ``replica`` too; where numbers of updates do, ``update_count`` says them, and ``step`` is that of the first.

    Raises
    ------
    ConfigurationError
        If they were recorded with other observables, or at other moments, or a replica comes twice.
    """
    trees = list(trajectories)
    for tree in trees:
        instance("a trajectory to merge", tree, xr.DataTree, "an xarray.DataTree; open files with open_trajectory")
    if len(trees) < 2:
        raise ConfigurationError(f"merging needs at least two trajectories, got {len(trees)}: name more files")
    runs = [run for tree in trees for run in _runs_of(tree)]
    configs, counts = [config for config, _ in runs], [count for _, count in runs]
    # Coordinates that an earlier merge made: a file that was not merged need not have them.
    said = {name.rpartition(".")[2] for config in configs for name in differences(config, {})}
    made = [name for tree in trees if "merged" in configuration(tree.attrs) for name in said & {*map(str, tree.coords)}]
    swept = {name: np.repeat(np.asarray(values), counts) for name, values in _swept(configs).items()}
    for number, tree in enumerate(trees):
        if set(tree.groups) != set(trees[0].groups):
            raise ConfigurationError(
                f"trajectory {number} has the groups {', '.join(sorted(tree.groups))}, the first has "
                f"{', '.join(sorted(trees[0].groups))}: expected the same observables of all; merge those that were recorded "
                "alike"
            )
    groups = {
        path: _merged_group([_group(tree, path) for tree in trees], clock_of_group(path.strip("/")), [*swept, *made])
        for path in trees[0].groups
    }
    _check_each_once([tree.to_dataset() for tree in trees])
    labels = np.concatenate([tree["replica"].values for tree in trees])
    attrs = {"long_name": "replica", "units": "1"}
    root = groups["/"]
    if len(np.unique(labels)) < len(labels) or any(KEPT_LABELS in tree.coords for tree in trees):
        kept = {"long_name": "replica in the file that it came from", "units": "1"}
        # Of files that were merged before, too: these are the labels that address randomness.
        first = [tree.coords[KEPT_LABELS if KEPT_LABELS in tree.coords else "replica"].values for tree in trees]
        root = root.assign_coords({KEPT_LABELS: ("replica", np.concatenate(first), kept)})
        labels = np.arange(len(labels))
    root = root.assign_coords(replica=("replica", labels, attrs))
    for name, values in swept.items():
        if name not in root.coords:
            described = {"long_name": name.replace("_", " "), "units": "1"}
            root = root.assign_coords({name: ("replica", values, described)})
    groups["/"] = root
    merged = xr.DataTree.from_dict(groups)
    complete = all(int(tree.attrs.get("complete", 0)) for tree in trees)
    alike = {name: value for name, value in trees[0].attrs.items() if all(t.attrs.get(name) == value for t in trees)}
    merged.attrs.update(attributes({"merged": configs}, complete=complete))
    merged.attrs.update({name: value for name, value in alike.items() if name not in merged.attrs})
    return merged


def _runs_of(tree: xr.DataTree) -> list[tuple[dict[str, Any], int]]:
    """Return the configurations of a trajectory, each with how many replicas it made: several where it was merged."""
    root, config = _group(tree, "/"), configuration(tree.attrs)
    runs = runs_of(root) or [(0, config, label) for label in root["replica"].values.tolist()]
    found = []
    for _, same in groupby(runs, key=itemgetter(0)):
        rows = list(same)
        found.append((_of_replicas(rows[0][1], [label for _, _, label in rows]), len(rows)))
    return found


def _of_replicas(config: dict[str, Any], labels: list[int]) -> dict[str, Any]:
    """Return the configuration of some of the replicas that it had."""
    had = config.get("replicas")
    had = list(range(had)) if isinstance(had, int) else had
    if had == labels:
        return config
    found = {**config, "replicas": labels}
    weights = config.get("weights") or {}
    rows = weights.get("values")
    if had and rows and len(rows) == len(had) and set(labels) <= set(had):
        chosen = [rows[had.index(label)] for label in labels]
        found["weights"] = {**weights, "shape": [len(chosen), *weights["shape"][1:]], "values": chosen}
    return found


def _check_each_once(roots: Sequence[xr.Dataset]) -> None:
    """Raise where two files hold the same replica, or one holds it twice."""
    owners: dict[Replica, int] = {}
    shared: dict[tuple[int, int], list[Replica]] = {}
    for number, root in enumerate(roots):
        check_each_once(root)
        own = dict.fromkeys(replace(each, told=()) for each in replicas_of(root))
        for each in own:
            if each in owners:
                shared.setdefault((owners[each], number), []).append(each)
        owners = dict.fromkeys(own, number) | owners
    if shared:
        pairs = [f"trajectories {one} and {other} both hold {said_of(each)}" for (one, other), each in shared.items()]
        raise ConfigurationError(
            f"{'; '.join(pairs)}: expected each replica once, since configuration, seed and index name one path of the "
            "process, and errors over replicas would look smaller than they are; run other seeds, leave one of them out, or "
            "choose replicas with .sel(replica=[...])"
        )


_NOT_SWEPT = ("versions", "replicas", "seeds", "choices.seed", "weights.sha256")


def _swept(configs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the numbers and words in which configurations differ, by the last part of their names."""
    names: dict[str, None] = {}
    for config in configs[1:]:
        names |= dict.fromkeys(differences(configs[0], config))
    found: dict[str, list[Any]] = {}
    for name in names:
        if name.startswith(_NOT_SWEPT) or name.endswith(_NOT_SWEPT):
            continue
        values = [_leaf(config, name) for config in configs]
        if name.endswith("sha256"):  # other data, labels or functions, of which some may be nobody's own
            values = ["" if value is None else value for value in values]
        if len({type(value) for value in values} - {int, float}) > 1 or not all(
            isinstance(value, int | float | str) for value in values
        ):
            continue
        rest, _, short = name.rpartition(".")
        if short == "sha256":
            short = f"{rest.rpartition('.')[2]}_sha256"
        if short in found and found[short] != values:
            short = name.replace(".", "_")
        found[short] = values
    return found


def _leaf(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _merged_group(parts: list[xr.Dataset], clock: str, swept: list[str]) -> xr.Dataset:
    in_all = {name for name in parts[0].coords if all(name in part.coords for part in parts)}
    # What a file has because it was merged before, another need not have: it is said anew for all of them.
    said_anew = [_COUNT, *({KEPT_LABELS, *swept} - in_all)]
    moments = [part["time"].values if "time" in part.coords else None for part in parts]
    updates = [_counts(part) for part in parts] if clock == "step" and clock in parts[0].sizes else []
    counted = any(_COUNT in part.variables for part in parts)
    parts = [part.drop_vars(said_anew, errors="ignore") for part in parts]
    first = parts[0]
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    for number, part in enumerate(parts):
        _check_mergeable(part, first, clock, number)
    for name, example in first.variables.items():
        found = [part.variables[name] for part in parts]
        if name in first.data_vars:
            of_replicas = "replica" in example.dims
            variables[str(name)] = joined(found, "replica") if of_replicas else example
        elif name == "replica":
            continue
        elif name == "time" and not _alike(moments):
            coordinates["time"] = (("replica", clock), _by_replica(moments, parts), example.attrs)
        elif "replica" in example.dims:
            coordinates[str(name)] = (example.dims, np.concatenate([each.values for each in found]), example.attrs)
        else:
            coordinates[str(name)] = example
    merged = xr.Dataset(variables, coords=coordinates)
    if updates and (counted or not all(np.array_equal(each, updates[0]) for each in updates)):
        of_processes = ("process",) if "process" in first.sizes else ()
        merged = merged.assign({_COUNT: ((*of_processes, "replica", clock), _by_replica(updates, parts), _OF_COUNTS)})
    return merged


def _alike(moments: list[Any]) -> bool:
    return all(each.ndim == 1 and np.allclose(each, moments[0], rtol=1e-9) for each in moments)


def _by_replica(rows: list[Any], parts: list[xr.Dataset]) -> Any:
    """Return what is along a clock, or along replicas and a clock, along the replicas of all parts."""
    pairs = zip(rows, parts, strict=True)
    whole = [each if each.ndim > 1 else np.tile(each, (part.sizes["replica"], 1)) for each, part in pairs]
    return np.concatenate(whole, axis=-2)


def _check_mergeable(part: xr.Dataset, first: xr.Dataset, clock: str, number: int) -> None:
    missing = set(first.variables) ^ set(part.variables)
    if missing:
        raise ConfigurationError(
            f"trajectory {number} and the first differ in {', '.join(sorted(map(str, missing)))}: expected the same "
            "observables of all; merge those that were recorded alike"
        )
    if said := _said_otherwise(part, first):
        raise ConfigurationError(
            f"trajectory {number} and the first say other things of {', '.join(said)}: expected one long name and one unit "
            "of each variable, since they become one; keep such runs in files of their own"
        )
    moments = "epoch" if "epoch" in first.coords else clock
    other = {name for name, size in part.sizes.items() if name != "replica" and first.sizes.get(name) != size}
    other |= {
        name for name in part.sizes if name not in ("replica", clock, *other) and not _same_labels(part, first, name)
    }
    if other or (moments in first.coords and not np.allclose(part[moments], first[moments], rtol=1e-9)):
        what = ", ".join(sorted(map(str, other))) or moments
        raise ConfigurationError(
            f"trajectory {number} was recorded along another {what} than the first: expected the same moments and sizes, "
            "since they share their axes; keep such runs in files of their own"
        )


def _same_labels(part: xr.Dataset, first: xr.Dataset, dimension: Any) -> bool:
    return dimension not in part.coords or bool((part[dimension].values == first[dimension].values).all())
