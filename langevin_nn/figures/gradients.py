"""Minibatch gradients and their means, drawn in a plane."""

from __future__ import annotations

from math import ceil
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langevin_nn.figures.base import STYLE, shared_legend, write_caption

__all__ = ["gradient_sketch"]

_GROUPS: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": ":", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
)
_AXES = "Across: the mean gradient of {first!r}. Up: {second}."
_CAPTION = (
    "Thin lines: gradients of {n} independent minibatches; thick lines: their mean over all minibatches. Unit: the root\n"
    "mean square norm, a circle. The plane holds only a share of each squared norm (above each panel), so that lines are\n"
    "shorter in it than in full. "
)


@mpl.rc_context(STYLE)
def gradient_sketch(sketches: xr.Dataset, *, caption: str | None = None) -> Figure:
    """Draw minibatch gradients and their means in the plane of each panel.

    Parameters
    ----------
    sketches : Dataset
        Of `langevin_nn.ensemble.project_gradients`, concatenated along ``panel``, whose coordinate gives the titles.
    caption : str, optional
        What one sees; what was drawn, in which units and along which axes, unless given.

    Returns
    -------
    matplotlib.figure.Figure
        A row of panels with common scales, two rows for more than four.
    """
    names = [str(name) for name in sketches["group"].values]
    n_panels = sketches.sizes["panel"]
    columns = n_panels if n_panels <= 4 else ceil(n_panels / 2)
    rows = ceil(n_panels / columns)
    side = min(2.9, 6.2 / columns - 0.2)
    height = rows * side + 0.65 * (rows - 1) + 1.6
    reach = 1.08 * max(1.0, float(np.abs(sketches["projected_gradient"]).max()))
    figure = Figure(figsize=(7.0, height))
    grid = figure.subplots(rows, columns, squeeze=False)
    for k, axes in enumerate(grid.flat):
        if k >= n_panels:
            axes.set_visible(False)
            continue
        _draw(axes, sketches.isel(panel=k), names)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        if k + columns >= n_panels:
            axes.set_xlabel("along the mean gradient (rms norms)" if columns < 3 else "along the mean (rms)")
        if k % columns == 0:
            axes.set_ylabel("orthogonal to it (rms norms)")
    shared_legend(figure, grid[0, 0], 2 * len(names))
    figure.subplots_adjust(left=0.09, right=0.985, top=1 - 0.6 / height, bottom=1.0 / height, hspace=0.65 / side)
    second = "the rest of that of " + repr(names[1]) if len(names) > 1 else "the largest direction orthogonal to it"
    write_caption(
        figure,
        caption or _CAPTION.format(n=sketches.sizes["minibatch"]) + _AXES.format(first=names[0], second=second),
    )
    return figure


def _draw(axes: Axes, one: xr.Dataset, names: list[str]) -> None:
    """Draw the gradients of one point in weight space, each group in its own way."""
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(turn), np.sin(turn), color="#999999", linewidth=0.6, zorder=-1)
    for name, style in zip(names, _GROUPS, strict=False):
        drawn = one["projected_gradient"].sel(group=name).values
        for tip in drawn:
            axes.plot([0, tip[0]], [0, tip[1]], color=style["color"], linestyle=style["linestyle"], linewidth=0.6)
        label = name if len(names) > 1 else "minibatch gradients"
        axes.plot(*drawn.T, color=style["color"], marker=style["marker"], markersize=2.2, linestyle="none", label=label)
    for name, style in zip(names, _GROUPS, strict=False):
        tip = one["projected_mean"].sel(group=name).values
        colour = style["color"] if len(names) > 1 else "#000000"
        label = f"mean of {name}" if len(names) > 1 else "mean gradient"
        outlined = [patheffects.withStroke(linewidth=3.6, foreground="white")]
        axes.plot([0, tip[0]], [0, tip[1]], color=colour, linewidth=2.0, zorder=3, path_effects=outlined)
        tip_style = {"marker": style["marker"], "markersize": 5, "markeredgecolor": "#000000"}
        axes.plot(*tip, color=colour, linewidth=2.0, zorder=4, label=label, **tip_style)
    shares = ", ".join(f"{share:.0%}" for share in one["plane_share"].values)
    title = str(one["panel"].item()) if "panel" in one.coords else ""
    axes.set_title(f"{title}\nin the plane: {shares}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(mpl.ticker.MultipleLocator(1.0))
