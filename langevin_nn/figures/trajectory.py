"""One trajectory, whatever it holds: losses, errors, order parameters and variables of a user's own."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from numpy.typing import NDArray

from langevin_nn.analyzers import COMPARED, Comparison, detect_phases
from langevin_nn.checks import as_path, kind_of, listed, one_of
from langevin_nn.errors import ConfigurationError, LangevinError
from langevin_nn.figures.base import RAISED, STYLE, plain_powers, shade_phases
from langevin_nn.figures.comparison import _STYLES
from langevin_nn.observables.variables import OWN
from langevin_nn.report import label
from langevin_nn.schema import is_clock
from langevin_nn.store import check_writable, open_trajectory

__all__ = ["plot"]

_CLOCKS = {"epoch": "epoch", "time": "gradient-flow time", "step": "update"}
_TOGETHER = (
    ("train_loss", "test_loss"),
    ("train_error", "test_error"),
    ("average_train_loss", "average_test_loss"),
    ("average_train_error", "average_test_error"),
)  # in one panel, where nothing else needs colours
_CHOSEN = (*sum(_TOGETHER, ()), "activity", "directed_activity", "noise_strength", "projection_variance", "alignment")
_MOST_LINES, _MOST_COLOURS, _MOST_PANELS, _FEW = 40, 8, 12, 6
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_BOUNDED = {each.variable for each in COMPARED if not each.logarithmic} | set(_TOGETHER[1] + _TOGETHER[3])


class _Curve(NamedTuple):
    """Lines of one colour, and their mean."""

    text: str
    style: dict[str, Any]
    x: NDArray[np.float64]  # shape (line, record)
    y: NDArray[np.float64]
    differs: str = ""  # what else was swept within the colour, over which no mean is taken


class _Panel(NamedTuple):
    text: str
    curves: list[_Curve]
    bounded: bool  # never over logarithms
    some: str = ""  # how many of the colours there would be are drawn


def plot(
    trajectory: xr.DataTree | xr.Dataset | Comparison | str | os.PathLike[str],
    variables: str | Iterable[str] | None = None,
    *,
    clock: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw a trajectory, whatever it holds: replicas thin, their mean thick, phases of learning shaded.

    Processes and points of a sweep differ in colour, and where there is only one of them cohorts, layers and the like do.
    Of many replicas 40 are drawn, of many colours 8, as the caption says. No mean is taken over what is swept beside the
    colour, but over seeds. Phases of learning are those of the first process, where there are any.

    Parameters
    ----------
    trajectory : xarray.DataTree, xarray.Dataset, Comparison or path
        What `simulate`, `open_trajectory`, `open_sweep` or `compare` returns, or a file.
    variables : str or iterable of str, optional
        One a panel, of any group; losses, errors, order parameters and what the user's own observables recorded unless said.
    clock : {"epoch", "time", "step"}, optional
        Of the horizontal axis; the first that the variables have unless said.
    path : path, optional
        Where to save the figure, by its ending as PNG, PDF or SVG.

    Returns
    -------
    matplotlib.figure.Figure
        Nothing is shown: a notebook displays what a cell returns.

    Raises
    ------
    ConfigurationError
        If this is no trajectory, or there is nothing along a clock to draw.
    UnknownNameError
        If there is no such variable or clock.

    Examples
    --------
    >>> from langevin_nn import gradient_descent, plot, simulate
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> valley = QuadraticLandscape([[1.0]], [[0.0]], start=[1.0])
    >>> figure = plot(simulate(gradient_descent(valley, 0.1), steps=20, replicas=1), ["train_loss", "activity"])
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['training loss (nat)', 'activity A (loss² weight⁻²)']
    """
    if isinstance(trajectory, str | os.PathLike):
        with closing(open_trajectory(trajectory)) as opened:
            return plot(opened, variables, clock=clock, path=path)
    file = None if path is None else as_path("path", path)
    if file is not None:
        known = FigureCanvasBase.get_supported_filetypes()
        one_of("kind of figure", file.suffix.removeprefix(".").lower(), known)
        check_writable(file.parent)
    groups = _groups(trajectory)
    found = {
        str(name): data
        for data in reversed(groups)  # of equal names that of the root
        for name, each in data.data_vars.items()
        if any(map(is_clock, each.dims)) and each.dtype.kind in "fiub"
    }
    if not found:
        raise ConfigurationError(
            "there is nothing to draw: expected a trajectory with a variable of numbers along a clock, such as train_loss "
            "(replica, step); record some with simulate(..., observables=[...])"
        )
    names = _chosen(found) if variables is None else _wanted(variables, found)
    clock = _clock([found[name][name] for name in names], clock)
    panels = [panel for each in _joined(names, found) for panel in _panels([found[n][n] for n in each], clock)]
    if variables is None:
        shown = [panel for panel in panels if any(np.isfinite(curve.y).any() for curve in panel.curves)]
        panels = shown or panels
    left = max(0, len(panels) - _MOST_PANELS) if variables is None else 0
    panels = panels[: len(panels) - left]
    several = (
        "replicas" if all("point" not in found[name][name].dims for name in names) else "points and their replicas"
    )
    with mpl.rc_context(STYLE):
        figure = _drawn(panels, clock, _phases(groups[0]), several, left)
        if file is not None:
            figure.savefig(file)
    return figure


def _groups(trajectory: Any) -> list[xr.Dataset]:
    """Return the datasets of a trajectory, the root first."""
    trajectory = trajectory.trajectories if isinstance(trajectory, Comparison) else trajectory
    if isinstance(trajectory, xr.Dataset):
        return [trajectory]
    if not isinstance(trajectory, xr.DataTree):
        raise ConfigurationError(
            f"trajectory is {kind_of(trajectory)}: expected a trajectory (DataTree or Dataset), a Comparison, or the path of "
            "a file, as simulate, compare and open_trajectory give them"
        )
    return [node.to_dataset() for node in trajectory.subtree]


def _chosen(found: dict[str, xr.Dataset]) -> list[str]:
    """Return what is drawn unless somebody says: what is known to be of interest, and all that is small of a user's own."""
    known = [name for name in _CHOSEN if name in found]
    own = [name for name in found if name not in OWN and name != "update_count"]
    weights = ["weights"] if "weights" in found and found["weights"].sizes.get("parameter", 99) <= _FEW else []
    return [*known, *sorted(own), *weights] or [*found]


def _wanted(variables: str | Iterable[str], found: dict[str, xr.Dataset]) -> list[str]:
    expected = "names of variables that were recorded along a clock"
    names = [variables] if isinstance(variables, str) else listed("variables", variables, expected)
    if not names:
        raise ConfigurationError(f"variables={variables!r} are none: expected {expected}, {', '.join(sorted(found))}")
    return [one_of("variable along a clock", name, sorted(found)) for name in dict.fromkeys(names)]


def _along(values: xr.DataArray) -> str:
    """Return the dimension of the records."""
    return next(str(name) for name in values.dims if is_clock(name))


def _clock(drawn: Sequence[xr.DataArray], asked: str | None) -> str:
    """Return the clock that all panels share."""

    def has(values: xr.DataArray, name: str) -> bool:  # of its own: groups see those of the root
        return name in values.coords and _along(values) in values[name].dims

    there = [name for name in ("epoch", "time") if all(has(each, name) for each in drawn)] + ["step"]
    return there[0] if asked is None else one_of("clock of these variables", asked, there)


def _joined(names: Sequence[str], found: dict[str, xr.Dataset]) -> list[tuple[str, ...]]:
    """Return the variables of each panel: training and test together, where no process or point needs the colours."""
    joined: dict[tuple[str, ...], None] = {}
    for name in names:
        pair = next((each for each in _TOGETHER if name in each), ())
        alone = not pair or not set(pair) <= set(names) or {"process", "point"} & {*found[name][name].dims}
        joined[(name,) if alone else pair] = None
    return [*joined]


def _panels(together: Sequence[xr.DataArray], clock: str) -> Iterator[_Panel]:
    """Yield the panels that some variables take: several where dimensions are left that colours do not tell."""
    first = together[0]
    hue: str | None = next((name for name in ("process", "point") if name in first.dims), None)
    left = [str(name) for name in first.dims if name not in ("replica", hue) and not is_clock(name)]
    if hue is None and left:
        hue = left.pop(left.index("cohort") if "cohort" in left else -1)
    if left:  # of what has no colour, cohorts count together and all else is drawn apart
        name, size = left[0], 1 if left[0] == "cohort" else first.sizes[left[0]]
        for k in _spread(size, _FEW):
            for panel in _panels([each.isel({name: k}) for each in together], clock):
                yield panel._replace(text=f"{panel.text}, {_place(first, name, k)}") if size > 1 else panel
        return
    curves, *of_test = [list(_curves(each, hue, clock)) for each in together]
    if of_test:
        of = "training" if len(curves) == 1 else "training, "
        curves = [each._replace(text=of + each.text * (len(curves) > 1)) for each in curves]
        curves += [each._replace(text="test", style={"color": _COLOURS[3], "linestyle": "--"}) for each in of_test[0]]
    some = _some(first, hue) if hue is not None else ""
    yield _Panel(_axis_label(first, bool(of_test)), curves, first.name in _BOUNDED, some)


def _swept(values: xr.DataArray) -> list[str]:
    """Return the coordinates in which points differ, seeds last: of them one wants the mean."""
    swept = [str(n) for n, each in values.coords.items() if each.dims == ("point",) and len(np.unique(each)) > 1]
    return sorted(swept, key=lambda name: "seed" in name)


def _some(values: xr.DataArray, hue: str) -> str:
    """Return how many colours are drawn, where there are too many for all."""
    name = next(iter(_swept(values)), hue) if hue == "point" else hue
    size = len(np.unique(values[name])) if name != hue else values.sizes[hue]
    return f"{_MOST_COLOURS} of {size:,} along {name}" if size > _MOST_COLOURS else ""


def _curves(values: xr.DataArray, hue: str | None, clock: str) -> Iterator[_Curve]:
    """Yield the lines of each colour."""
    if hue is None or hue not in values.dims:
        yield _Curve("", {"color": _COLOURS[0]}, *_lines(values, clock))
    elif hue == "point":
        swept = _swept(values)
        column = values[swept[0]].values if swept else np.arange(values.sizes["point"])
        kinds = np.unique(column)
        for k in _spread(len(kinds), _MOST_COLOURS):
            text = f"{kinds[k]:.3g}" if column.dtype.kind == "f" else str(kinds[k])
            style: dict[str, Any] = {"color": mpl.colormaps["viridis"](0.9 * k / max(1, len(kinds) - 1))}
            places = np.flatnonzero(column == kinds[k])
            others = [n for n in swept[1:] if "seed" not in n and len(np.unique(values[n].values[places])) > 1]
            lines = _lines(values.isel(point=places[:_MOST_LINES]), clock)  # little is read of large sweeps
            yield _Curve(f"{swept[0] if swept else 'point'} {text}", style, *lines, ", ".join(others))
    else:
        alike = hue == "cohort" and not values.isel(cohort=-1).notnull().any()  # all samples are correct
        for place, k in enumerate([0] if alike else _spread(values.sizes[hue], _MOST_COLOURS)):
            text, style = _place(values, hue, k), {"color": _COLOURS[place]}
            if hue == "process":
                text, style = label(text), _STYLES.get(text, style)
            yield _Curve(text, style, *_lines(values.isel({hue: k}), clock))


def _spread(size: int, most: int) -> list[int]:
    """Return places all along a dimension, no more than some."""
    return [int(k) for k in np.unique(np.linspace(0, size - 1, min(size, most)).round())]


def _place(values: xr.DataArray, dimension: str, k: int) -> str:
    return str(values[dimension].values[k]) if dimension in values.coords else f"{dimension} {k}"


def _lines(values: xr.DataArray, clock: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return clock and values, shape (line, record)."""
    along = _along(values)
    x = values[along if clock == "step" else clock]  # of a dimension without labels its places
    y, x = xr.broadcast(values, x.reset_coords(drop=True))
    rows = [np.asarray(each.transpose(..., along).values, dtype=np.float64) for each in (x, y)]
    flat = [each.reshape(int(np.prod(each.shape[:-1])), each.shape[-1]) for each in rows]
    return flat[0], flat[1]


def _axis_label(values: xr.DataArray, together: bool) -> str:
    text = str(values.attrs.get("long_name", values.name))
    text = textwrap.fill(text.removeprefix("training ") if together else text, 30)
    text = text.replace("σ_λ²", r"$\sigma_\lambda^2$")  # as little else as can be written plainly
    units = str(values.attrs.get("units", "1"))
    if units == "1" or text.startswith(units):
        return text
    units = re.sub(r"(?<=[a-zA-Z])-?\d+", lambda power: power[0].translate(RAISED), units)
    return f"{text}{chr(10) if len(text) + len(units) > 28 else ' '}({units})"


def _phases(root: xr.Dataset) -> xr.Dataset | None:
    """Return the phases of learning of the first process; None where there are none to tell."""
    if "train_error" not in root or "point" in root.dims:
        return None
    try:
        phases = detect_phases(root.isel(process=0) if "process" in root.dims else root)
    except LangevinError:
        return None
    reached = [phases[f"boundary_{clock}"].notnull() for clock in _known(phases)]
    alike = [each.all([name for name in each.dims if name != "boundary"]) for each in reached]
    return phases if any(bool(each.any()) for each in alike) else None


def _known(phases: xr.Dataset) -> list[str]:
    return [clock for clock in ("epoch", "time") if f"boundary_{clock}" in phases]


def _drawn(panels: Sequence[_Panel], clock: str, phases: xr.Dataset | None, several: str, left: int) -> Figure:
    columns = 1 if len(panels) == 1 else 2 if len(panels) <= 8 else 3
    rows, width = -(-len(panels) // columns), 7.0 if columns > 1 else 4.5
    figure = Figure(figsize=(width, 0.9 + 1.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    phases = phases if phases is not None and clock in _known(phases) else None
    shared = len(panels) > 1 and len({tuple(each.text for each in panel.curves) for panel in panels}) == 1
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel)
        if len(panel.curves) > 1 and not shared:
            axes.legend(fontsize=6, framealpha=0.7, edgecolor="none")
        if phases is not None:
            shade_phases(axes, phases, max(each.x.max(initial=0.0) for each in panel.curves), clock=clock)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel(_CLOCKS[clock])
        axes.tick_params(labelbottom=True)
    if shared and len(panels[0].curves) > 1:
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    most = max(len(each.y) for panel in panels for each in panel.curves)
    some = f", {_MOST_LINES} of {most:,} of them" if most > _MOST_LINES else ""
    differs = ", ".join(dict.fromkeys(each.differs for panel in panels for each in panel.curves if each.differs))
    none = f", none where {differs} differs within a colour" if differs else ""
    caption = f"Thin lines: {several}{some}; thick: their mean{none}." if most > 1 else "One replica."
    colours = "; ".join(dict.fromkeys(panel.some for panel in panels if panel.some))
    caption += f" Drawn: {colours}." if colours else ""
    caption += f" {left} more of the file are not drawn: name them as variables." if left else ""
    caption += "" if phases is None else " Shaded: phases of learning, from training errors alone."
    figure.supxlabel(textwrap.fill(caption, int(20 * width)), fontsize=7, x=0.01, ha="left")
    return figure


def _draw(axes: Axes, panel: _Panel) -> None:
    """Draw lines thin and their mean thick, over logarithms where it spans decades."""
    heights = np.zeros(0)
    for text, style, x, y, differs in panel.curves:
        count = np.isfinite(y).sum(0)
        mean = np.divide(np.nansum(y, 0), count, out=np.full(len(count), np.nan), where=count > 0)
        thin = style | {"linewidth": 0.5, "alpha": max(0.12, min(0.5, 1.5 / np.sqrt(len(y)))), "linestyle": "-"}
        for k in _spread(len(y), _MOST_LINES) if len(y) > 1 else []:
            axes.plot(x[k], y[k], **thin, zorder=2)
        if np.allclose(x, x[0], equal_nan=True):  # records of one place in points of a sweep may be of other times
            axes.plot(*([], []) if differs else (x[0], mean), label=text, **style, zorder=3)
            heights = np.append(heights, mean[np.isfinite(mean)])
        else:
            axes.plot([], [], label=text, **style)
    if not panel.bounded and len(heights) and heights.min() > 0 and heights.max() > 30 * heights.min():
        axes.set_yscale("log")
        plain_powers(axes, "y")
    axes.set_ylabel(panel.text)
    axes.margins(x=0)
    axes.tick_params(labelsize=STYLE["font.size"])  # ticks to come would have the size of whoever saves the figure
