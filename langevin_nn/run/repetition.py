"""Whether a file's own configuration, run again, gives the same bits."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import xarray as xr

from langevin_nn import drift, landscape, noise, observables, rates, schedules, update
from langevin_nn.errors import ConfigurationError, UnstableTrajectory
from langevin_nn.landscape import Landscape
from langevin_nn.process import Process, State
from langevin_nn.provenance import configuration, differences, module_name, plain, versions
from langevin_nn.readable import Readable
from langevin_nn.run.experiment import Experiment
from langevin_nn.run.simulation import simulate
from langevin_nn.store import open_trajectory

__all__ = ["Rerun", "rebuilt_process", "rerun"]

_MODULES = (noise, drift, update, rates, schedules, observables, landscape)
# What a file may name of a user's, besides dataclasses: nothing else is called because a file says so.
_PARTS = (noise.Noise, drift.Drift, update.Update, schedules.Schedule, observables.Observable, landscape.Landscape)
_NUMBERS = ("inf", "-inf", "nan")


@dataclass(frozen=True, eq=False)
class Rerun(Readable):
    """What `rerun` found.

    Parameters
    ----------
    differences : tuple of str
        Variables whose bits differ, or cannot be read, each with its group; none where the run was repeated to the last bit.
    versions : mapping of str to tuple of str
        Libraries whose versions differ, then and now: bits are promised for equal ones only.
    trajectory : xarray.DataTree
        The new run.
    """

    differences: tuple[str, ...]
    versions: Mapping[str, tuple[str, str]]
    trajectory: xr.DataTree

    @property
    def same(self) -> bool:
        """Whether every recorded bit came again."""
        return not self.differences


def rerun(
    path: str | os.PathLike[str],
    *,
    landscape: Landscape | None = None,
    weights: Any = None,
    run: Callable[[dict[str, Any]], xr.DataTree] | None = None,
) -> Rerun:
    """Run a file's own configuration again and compare bits.

    Parameters
    ----------
    path : path
        A finished file, a running one, or the remains of one: what is there is compared.
    landscape : Landscape, optional
        A network with its data, or a potential given by functions: these do not lie in the file, which knows their digest.
    weights : array, shape (replica, parameter), optional
        Where the run started, if that was given and is too large to lie in the file.
    run : callable, optional
        From a configuration to a trajectory, for files that more than one `langevin_nn.simulate` made; studies have it as
        ``run_configuration``.

    Returns
    -------
    Rerun
        What differs.

    Raises
    ------
    ConfigurationError
        If the file does not hold what the run needs, or names a class that cannot be imported, or `landscape` or `weights`
        are others than those of the file.

    Notes
    -----
    Parts of a user's own are imported from the modules that the file names, which runs those modules: run files again that
    you trust.

    Examples
    --------
    >>> import tempfile
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.noise import AnisotropicNoise
    >>> valley = QuadraticLandscape(np.eye(2), np.eye(2))
    >>> process = Process(valley, AnisotropicNoise(valley.noise_factor()), learning_rate=0.1)
    >>> path = f"{tempfile.mkdtemp()}/run.nc"
    >>> _ = simulate(process, steps=10, path=path)
    >>> rerun(path).same
    True
    """
    tree = open_trajectory(path)
    config = configuration(tree.attrs, str(path))
    before = config.pop("versions", {})
    names = [str(name) for name in tree.coords["process"].values.tolist()] if "process" in tree.coords else []
    if set(names) == set(config.get("processes", ())):
        config["processes"] = {name: config["processes"][name] for name in names}  # in the order of the file
    if run is None:
        again = _simulated(config, landscape, weights, str(path))
    else:
        again = run(config)
    return Rerun(tuple(_different(tree, again)), differences(before, versions()), again)


def _simulated(config: dict[str, Any], landscape: Landscape | None, weights: Any, name: str) -> xr.DataTree:
    # A study's file may name a landscape that only the study makes.
    several = {"processes", "seeds"} <= set(config) and (landscape is not None or "study" not in config)
    if "process" not in config and not several:
        study = config.get("study")
        what = (
            f"studies.{study}.study.run_configuration" if study else "a function from its configuration to a trajectory"
        )
        raise ConfigurationError(
            f"{name!r} was not made by one simulate(...) or experiment, but holds {', '.join(sorted(config))}: expected the "
            f"function that makes it; pass run={what}"
        )
    start = config["weights"]
    if start is not None and weights is None:
        if start["type"] == "State":
            raise ConfigurationError(
                f"{name!r} went on from a State, whose momenta are not in the file: expected that state; pass it as weights="
            )
        weights = _built(start)
    given = weights if isinstance(weights, State) or weights is None else torch.as_tensor(weights)
    if start is not None and (found := differences(start, plain(given))):
        raise ConfigurationError(
            f"the weights given are not those from which {name!r} started ({', '.join(found)} differ): expected the same "
            "array"
        )
    options = {
        "steps": config["steps"],
        "replicas": config["replicas"],
        "seed": config["seed"],
        "weights": weights,
        "schedule": _built(config["schedule"]),
        "observables": [_built(each) for each in config["observables"]],
        "on_divergence": config["on_divergence"],
    }
    try:
        if several:
            processes = {each: rebuilt_process(described, landscape) for each, described in config["processes"].items()}
            return Experiment(processes, seeds=config["seeds"], **options).run()
        return simulate(rebuilt_process(config["process"], landscape), **options)
    except UnstableTrajectory as error:  # as it may have done the first time
        return cast("xr.DataTree", error.trajectory)


def rebuilt_process(described: Mapping[str, Any], landscape: Landscape | None = None) -> Process:
    """Return the process that a configuration describes; a network, or a potential of functions, does not lie in it."""
    of_file = described["landscape"]
    if landscape is None:
        landscape = _built(of_file)
    elif found := differences(of_file, json.loads(json.dumps(plain(landscape)))):
        raise ConfigurationError(
            f"the landscape given is not the one of the file: {', '.join(found)} differ; expected the same network, data "
            "and labels"
        )
    assert isinstance(landscape, Landscape)
    given = (of_file, landscape)
    parts = {
        name: _built(value, given) for name, value in described.items() if name not in ("type", "landscape", "name")
    }
    return Process(landscape, name=described["name"], **parts)


def _known(name: str) -> Any:
    if ":" in name:
        return _imported(name)
    for module in _MODULES:
        if name in module.__all__:
            return getattr(module, name)
    raise ConfigurationError(
        f"the file was made with {name}, which is none of langevin_nn's own: expected parts that it can make again; pass a "
        "landscape as landscape=, anything else in a function from the configuration to the trajectory as run="
    )


def _imported(name: str) -> Any:
    """Return a user's class from the module that the file names."""
    module, _, path = name.partition(":")
    try:
        # The script that runs is there already; importing it would run it once more.
        is_script = module == module_name("__main__") and module not in sys.modules
        found: Any = importlib.import_module("__main__" if is_script else module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"the file was made with {name}, which cannot be imported here ({error}): expected a class at the top of a "
            "module on Python's path; start where that module lies, or pass the run, a function of its configuration, as run="
        ) from error
    if isinstance(found, type) and (dataclasses.is_dataclass(found) or issubclass(found, _PARTS)):
        return found
    raise ConfigurationError(
        f"the file names {name} as a part of the run, which is none: expected a dataclass or a subclass of "
        f"{', '.join(each.__name__ for each in _PARTS)}, since nothing else is called because a file says so; pass the run "
        "as a function of its configuration as run="
    )


def _built(described: Any, given: tuple[Any, Landscape] | None = None) -> Any:
    """Make what `langevin_nn.provenance.plain` described, with the landscape that is given wherever it is described."""
    if given is not None and described == given[0]:
        return given[1]
    if isinstance(described, list):
        return tuple(_built(item, given) for item in described)
    if isinstance(described, str) and described in _NUMBERS:
        return float(described)
    if not isinstance(described, Mapping):
        return described
    kind = described["type"]
    if kind in ("ndarray", "Tensor"):
        if "values" not in described:
            raise ConfigurationError(
                f"the file has the digest of an array of shape {described['shape']} and not the array: expected it as an "
                "argument; pass landscape= or weights=, or, where it belongs to the noise or the drift, a function from the "
                "configuration to the trajectory as run="
            )
        values = np.array(described["values"], dtype=described["dtype"]).reshape(described["shape"])
        return torch.as_tensor(values) if kind == "Tensor" else values
    if kind == "function":
        raise ConfigurationError(
            f"the file has the name and the digest of the function {described['name']} and not the function: pass the "
            "landscape that holds it as landscape=, or the run as a function of its configuration as run="
        )
    made = _known(kind)
    items = {name: _built(value, given) for name, value in described.items() if name != "type"}
    taken = inspect.signature(made).parameters
    missing = [name for name, each in taken.items() if each.default is each.empty and name not in items]
    if missing:
        wanted = (
            "expected the landscape itself; pass it as landscape="
            if issubclass(made, Landscape)
            else "expected all that it takes; make it a frozen dataclass, whose fields a file holds, or pass run="
        )
        raise ConfigurationError(f"the file describes a {kind} and does not hold its {', '.join(missing)}: {wanted}")
    return made(**{name: value for name, value in items.items() if name in taken})


def _different(tree: xr.DataTree, again: xr.DataTree) -> list[str]:
    """Return what differs, as far as the first tree goes."""
    found = []
    for node in tree.subtree:
        if node.path not in again.groups:
            found.append(f"group {node.path}")
            continue
        one, other = (cast("xr.DataTree", tree[node.path]).to_dataset(inherit=False) for tree in (tree, again))
        for name, variable in one.variables.items():
            if name not in other.variables:
                found.append(f"{node.path.rstrip('/')}/{name}")
                continue
            sizes = {each: slice(size) for each, size in variable.sizes.items()}
            try:
                same = _same_bits(variable, other.variables[name].isel(sizes))
            except (OSError, RuntimeError):  # a checksum differs
                same = False
            if not same:
                found.append(f"{node.path.rstrip('/')}/{name}")
    return found


def _same_bits(one: xr.Variable, other: xr.Variable) -> bool:
    left, right = np.asarray(one.values), np.asarray(other.values)
    if left.dtype.kind not in "fiub":
        return bool(left.tolist() == right.tolist())
    return bool(left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes())
