"""A trajectory in the terminal: what was run, what was found, and a small plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers import detect_phases
from langevin_nn.errors import ConfigurationError, LangevinError
from langevin_nn.memory import as_text
from langevin_nn.observables.declarations import declaration_of
from langevin_nn.provenance import configuration, study_of

__all__ = ["plot", "report"]

_WIDTH, _HEIGHT = 64, 12
_MARKS = {"train": "•", "test": "o"}
_QUIET = ("versions", "observables", "values", "sha256")


def report(trajectory: xr.DataTree, name: str = "trajectory") -> str:
    """Return what a file holds, in words.

    Parameters
    ----------
    trajectory : xarray.DataTree
        Opened lazily: little of it is read.
    name : str, optional
        Of the file.

    Returns
    -------
    str
        Provenance, groups, configuration, versions, phases of learning and a plot of the errors, or of the loss.
    """
    attributes = trajectory.attrs
    try:
        config = configuration(attributes)
    except ConfigurationError:
        config = {"config_json": "missing, or no object of JSON"}
    ended = "complete" if int(attributes.get("complete", 0)) else "not complete: it is running, was killed, or diverged"
    lines = [
        f"{name}: {ended}",
        f"schema {attributes.get('schema_version')}, {attributes.get('source')}, {attributes.get('created_at')}",
        "",
        "Groups",
    ]
    for node in trajectory.subtree:
        dataset = node.to_dataset(inherit=False)
        sizes = " × ".join(f"{size} {each}" for each, size in dataset.sizes.items())
        size = as_text(sum(each.nbytes for each in dataset.variables.values()))
        lines.append(f"  {node.path:<12}{len(dataset.data_vars):>3} variables, {size}: {sizes}")
    lines += [*_own_variables(trajectory), "", "Configuration", *_lines_of(config)]
    if "versions" in config:
        lines += ["", "Versions", "  " + ", ".join(f"{name} {value}" for name, value in config["versions"].items())]
    root = trajectory.to_dataset()
    if (study := study_of(attributes)) is not None:
        return "\n".join([*lines, "", f"These are results of the study {study!r}, and no trajectory."])
    lines += ["", "Phases of learning", *_phases(root)]
    drawn = _drawn(root)
    return "\n".join([*lines, "", *drawn] if drawn else lines)


def _own_variables(trajectory: xr.DataTree) -> list[str]:
    """Say what a user's own observables recorded."""
    lines = []
    for node in trajectory.subtree:
        for name, each in node.to_dataset(inherit=False).data_vars.items():
            if (said := declaration_of(each.attrs)) is not None:
                along = ", ".join(map(str, each.dims))
                units = f" [{each.attrs.get('units')}]" if each.attrs.get("units") != "1" else ""
                lines.append(f"  {name} ({along}): {each.attrs.get('long_name')}{units}, by {said.get('observable')}")
    return ["", "Variables of the user's own", *lines] if lines else []


def _lines_of(config: Mapping[str, Any], depth: int = 1) -> list[str]:
    lines = []
    for name, value in config.items():
        if name in _QUIET:
            continue
        margin = "  " * depth
        if name == "drift" and isinstance(value, Mapping) and value.get("landscape") == config.get("landscape"):
            value = {"type": value["type"]}
        if isinstance(value, Mapping) and value:
            kind = f" {value['type']}" if "type" in value else ""
            lines.append(f"{margin}{name}:{kind}")
            lines += _lines_of({key: item for key, item in value.items() if key != "type"}, depth + 1)
            continue
        text = json.dumps(value, ensure_ascii=False)
        lines.append(f"{margin}{name}: {text if len(text) <= 90 else text[:87] + '...'}")
    return lines


def _phases(root: xr.Dataset) -> list[str]:
    if "train_error" not in root.data_vars:
        return ["  none told: training errors were not recorded"]
    try:
        phases = detect_phases(root)
    except LangevinError as error:
        return [f"  none told: {error}"]
    clock = "epoch" if "boundary_epoch" in phases else "time"
    lines = []
    for boundary in phases["boundary"].values:
        after = str(boundary).partition("|")[2].replace("_", " ")
        for process in root["process"].values if "process" in root.sizes else (None,):
            one = phases.sel(boundary=boundary) if process is None else phases.sel(boundary=boundary, process=process)
            starts = one[f"boundary_{clock}"].values
            reached = int(np.isfinite(starts).sum())
            whose = "" if process is None else f" in {process}"
            where = _beginning(one, clock) if reached else "not reached"
            lines.append(f"  {after}{whose}: {where}, {reached} of {starts.size} replicas")
    return lines


def _beginning(one: xr.Dataset, clock: str) -> str:
    """Say when a phase begins: the mean over replicas with its interval, or else the records where it was seen."""
    mean = f"mean_boundary_{clock}"
    if mean in one and np.isfinite(one[mean].item()):
        ends = (one[f"{mean}_{end}"].item() for end in ("lower", "upper"))
        return f"at {clock} {one[mean].item():.4g} (95 % interval {' to '.join(f'{end:.4g}' for end in ends)})"
    starts = one[f"boundary_{clock}"].values
    starts = starts[np.isfinite(starts)]
    spread = f" (first seen from {starts.min():.4g} to {starts.max():.4g})" if len(starts) > 1 else ""
    return f"at {clock} {np.median(starts):.4g}{spread}"


def _drawn(root: xr.Dataset) -> list[str]:
    """Return a plot of the first process: errors where there are classes, else the loss."""
    if "process" in root.sizes:
        root = root.isel(process=0)
    kind = "error" if "train_error" in root.data_vars and bool(root["train_error"].notnull().any()) else "loss"
    curves: dict[str, NDArray[np.float64]] = {}
    for which in ("train", "test"):
        name = f"{which}_{kind}"
        if name in root.data_vars:
            values = root[name].sel(cohort="all") if "cohort" in root[name].dims else root[name]
            curves[which] = np.asarray(values.mean("replica").values, dtype=np.float64)
    clock = "epoch" if "epoch" in root.coords else "time"
    if not curves or clock not in root.coords or root[clock].ndim != 1:
        return []
    whose = f" of {root['process'].item()}" if "process" in root.coords else ""
    return plot(np.asarray(root[clock].values), curves, f"{kind}{whose}, mean over replicas", clock)


def plot(x: NDArray[np.float64], curves: Mapping[str, NDArray[np.float64]], title: str, label: str) -> list[str]:
    """Draw curves with characters, over a logarithmic axis.

    Parameters
    ----------
    x : ndarray, shape (record,)
        Where; what is not positive is left out.
    curves : mapping of str to ndarray, shape (record,)
        By name.
    title : str
        What is drawn.
    label : str
        Of the horizontal axis.

    Returns
    -------
    list of str
        Lines; none where there is nothing to draw.

    Examples
    --------
    >>> lines = plot(np.array([1.0, 10.0, 100.0]), {"train": np.array([1.0, 0.5, 0.0])}, "error", "epoch")
    >>> lines[0], lines[1][:9], lines[-1].split()
    ('error (• train)', '     1 |•', ['1', 'epoch', '100'])
    """
    inside = x > 0
    inside &= np.any([np.isfinite(values) for values in curves.values()], axis=0)
    if inside.sum() < 2:
        return []
    x = np.log(x[inside])
    heights = np.concatenate([values[inside] for values in curves.values()])
    heights = heights[np.isfinite(heights)]
    low, high = float(heights.min()), float(heights.max())
    spread = high - low or 1.0
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for number, (name, values) in enumerate(curves.items()):
        columns = np.rint((x - x[0]) / (x[-1] - x[0]) * (_WIDTH - 1)).astype(int)
        for column, value in zip(columns, values[inside], strict=True):
            if np.isfinite(value):
                row = round((high - float(value)) / spread * (_HEIGHT - 1))
                grid[row][column] = _MARKS.get(name, "•ox+"[number % 4])
    key = ", ".join(f"{_MARKS.get(name, '•ox+'[number % 4])} {name}" for number, name in enumerate(curves))
    lines = [f"{title} ({key})"]
    for row, cells in enumerate(grid):
        value = {0: f"{high:.3g}", _HEIGHT - 1: f"{low:.3g}"}.get(row, "")
        lines.append(f"{value:>6} |{''.join(cells)}".rstrip())
    left, right = f"{np.exp(x[0]):.3g}", f"{np.exp(x[-1]):.3g}"
    return [*lines, f"{'':>6} +{'-' * _WIDTH}", f"{'':>8}{left}{label:^{_WIDTH - len(left) - len(right)}}{right}"]
