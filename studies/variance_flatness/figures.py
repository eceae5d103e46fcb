"""Fluctuations against flatness: variances, correlation times, exponents, currents, and losses along lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from langevin_nn.analyzers import logarithm, mean_with_interval
from langevin_nn.figures.base import STYLE, plain_powers, write_caption

__all__ = ["loss_profile_figure", "variance_flatness_figure"]

_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": (0, (5, 1)), "marker": "v"},
    {"color": "#E69F00", "linestyle": (0, (1, 1)), "marker": "D"},
    {"color": "#000000", "linestyle": ":", "marker": "x"},
)
_CAPTION = (
    "a, b: variance and correlation time along principal components (some ranks) against the width in which the loss stays\n"
    "below e times its value. c: the same variances in other copies from the same start, along the same directions.\n"
    "d: variance along eigenvectors of the Hessian, chosen by no fluctuation; thin line: 1/curvature, as in equilibrium.\n"
    "Points are geometric means over networks at one rank, bars 95 % t intervals. e: exponents of variance against\n"
    "flatness; dotted: that of equilibrium. f: entropy production in planes of components, per longer correlation time;\n"
    "isotropic noise and the random walk are reversible. Bars in e and f: 95 % t intervals over networks."
)


def variance_flatness_figure(
    measured: xr.Dataset, exponents: xr.Dataset, currents: xr.Dataset, names: Mapping[str, str]
) -> Figure:
    """Draw how weights fluctuate along directions, against how flat the loss is along them.

    Parameters
    ----------
    measured : Dataset
        ``variance``, ``held_out_variance``, ``correlation_time``, ``flatness`` and ``curvature`` (process, basis, replica,
        rank), bases by name: principal components first, eigenvectors of the Hessian last.
    exponents : Dataset
        ``exponent`` (width, quantity, range, process, basis, replica).
    currents : Dataset
        ``entropy_per_correlation_time`` (process, replica, plane).
    names : mapping of str to str
        What processes are called.

    Returns
    -------
    matplotlib.figure.Figure
        Six panels.
    """
    first, last = (measured.basis.values[k] for k in (0, -1))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 7.8))
        upper = figure.add_gridspec(2, 2, left=0.1, right=0.985, top=0.915, bottom=0.47, hspace=0.42, wspace=0.3)
        lower = figure.add_gridspec(1, 2, left=0.225, right=0.985, top=0.37, bottom=0.175, wspace=0.08)
        grid = [figure.add_subplot(each) for each in (*(upper[k] for k in range(4)), lower[0], lower[1])]
        leading, eigenvectors = measured.sel(basis=first), measured.sel(basis=last)
        flat = "flatness $F$ (weight)"
        panels: tuple[tuple[Axes, xr.Dataset, str, str, str, str], ...] = (
            (grid[0], leading, "flatness", "variance", flat, "variance $\\sigma^2$ (weight²)"),
            (grid[1], leading, "flatness", "correlation_time", flat, "correlation time (time)"),
            (grid[2], leading, "flatness", "held_out_variance", flat, "variance in other copies (weight²)"),
            (grid[3], eigenvectors, "curvature", "variance", "curvature $h$ (nat/weight²)", "variance (weight²)"),
        )
        for axes, table, across, up, xlabel, ylabel in panels:
            for style, process in zip(_STYLES, table.process.values, strict=False):
                own = table.sel(process=process)
                _draw_means(axes, own[across], own[up], label=names.get(str(process), str(process)), **style)
            axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
            plain_powers(axes, "x", "y")
            if across == "flatness":
                _plain_ticks(axes)
        _draw_equilibrium(grid[3], eigenvectors)
        _draw_exponents(grid[4], exponents, first, last, names)
        _draw_currents(grid[5], currents)
        for letter, axes in zip("abcdef", grid, strict=True):
            axes.set_title(letter, loc="left", fontweight="bold")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=3, frameon=False)
        write_caption(figure, _CAPTION)
    return figure


def _draw_means(axes: Axes, across: xr.DataArray, up: xr.DataArray, **style: Any) -> None:
    """Draw geometric means over replicas at each rank, with intervals upwards and downwards."""
    place = np.exp(mean_with_interval(logarithm(across.where(np.isfinite(across)))).mean_value.values)
    moments = mean_with_interval(logarithm(up))
    middle, low, high = (np.exp(moments[name].values) for name in ("mean_value", "lower", "upper"))
    known = np.isfinite(place) & np.isfinite(middle)
    axes.plot(place[known], middle[known], markersize=2.6, linewidth=0.8, **style)
    bars = known & np.isfinite(low) & np.isfinite(high)
    axes.vlines(place[bars], low[bars], high[bars], color=style["color"], linewidth=0.6, alpha=0.6)


def _plain_ticks(axes: Axes) -> None:
    """Label an axis of few decades by plain numbers."""
    low, high = axes.get_xlim()
    ticks = [each for each in np.outer(10.0 ** np.arange(-4, 5), [1, 2, 5]).ravel() if low <= each <= high]
    if len(ticks) < 8:
        axes.set_xticks(ticks, [f"{each:g}" for each in ticks])


def _draw_equilibrium(axes: Axes, table: xr.Dataset) -> None:
    """Draw 1/h, just below the process that fluctuates least in the steepest direction."""
    at = np.exp(logarithm(table.curvature).mean(("replica", "process")).values)
    least = np.exp(logarithm(table.variance).mean("replica").isel(rank=0).min().item())
    known = np.isfinite(at)
    axes.plot(at[known], 0.6 * least * at[known][0] / at[known], color="0.5", linewidth=0.7, zorder=-1)


def _draw_exponents(axes: Axes, exponents: xr.Dataset, first: str, last: str, names: Mapping[str, str]) -> None:
    """Draw exponents of each process in three ways."""
    ways = (
        ("principal components", {"basis": first, "quantity": "variance", "range": "all"}, "o", "#000000"),
        ("other copies", {"basis": first, "quantity": "held_out_variance", "range": "all"}, "s", "#0072B2"),
        ("Hessian, relaxed", {"basis": last, "quantity": "variance", "range": "relaxed"}, "^", "#D55E00"),
        ("Hessian, slow", {"basis": last, "quantity": "variance", "range": "slow"}, "v", "#009E73"),
    )
    places = -np.arange(exponents.sizes["process"], dtype=float)
    for k, (label, chosen, marker, colour) in enumerate(ways):
        moments = mean_with_interval(exponents.exponent.sel(width="flatness", **chosen))
        _draw_bars(axes, places + 0.24 - 0.16 * k, moments, label=label, marker=marker, color=colour)
    axes.axvline(0, color="0.6", linewidth=0.7, zorder=-2)
    axes.axvline(2, color="0.6", linewidth=0.7, linestyle=":", zorder=-2)
    axes.set_yticks(places, [names.get(str(each), str(each)) for each in exponents.process.values])
    axes.set_xlabel("exponent of variance against $F$")
    _legend_above(axes)


def _draw_currents(axes: Axes, currents: xr.Dataset) -> None:
    """Draw entropy production in each plane."""
    values = currents.entropy_per_correlation_time
    places = -np.arange(values.sizes["process"], dtype=float)
    for k, plane in enumerate(values.plane.values):
        moments = mean_with_interval(values.sel(plane=plane))
        label = f"components {2 * k + 1}, {2 * k + 2}"
        colour, marker = ("#000000", "#0072B2", "#D55E00", "#009E73")[k % 4], "os^v"[k % 4]
        _draw_bars(axes, places + 0.24 - 0.16 * k, moments, label=label, marker=marker, color=colour)
    axes.axvline(0, color="0.6", linewidth=0.7, zorder=-2)
    axes.set_yticks(places, [""] * len(places))
    axes.set_xlabel("entropy production per correlation time")
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
    _legend_above(axes)


def _draw_bars(axes: Axes, places: NDArray[np.float64], moments: xr.Dataset, **style: Any) -> None:
    middle, low, high = (moments[name].values for name in ("mean_value", "lower", "upper"))
    sides = np.nan_to_num(np.stack([middle - low, high - middle]))
    axes.errorbar(middle, places, xerr=sides, linestyle="none", markersize=3, elinewidth=0.8, **style)


def _legend_above(axes: Axes) -> None:
    axes.legend(
        frameon=False,
        fontsize=6,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.99),
        ncols=2,
        handletextpad=0.2,
        columnspacing=1,
    )


def loss_profile_figure(profiles: xr.Dataset) -> Figure:
    """Draw the loss along some principal components, its width and a quadratic valley of the same curvature.

    Parameters
    ----------
    profiles : Dataset
        ``loss`` and ``at`` (direction, displacement); ``loss_at_start``; ``width_left``, ``width_right`` and ``curvature``
        (direction); coordinate ``component``.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each direction.
    """
    n = profiles.sizes["direction"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 2.7))
        grid = figure.subplots(1, n, squeeze=False)[0]
        level = float(profiles.loss_at_start)
        for k, axes in enumerate(grid):
            own = profiles.isel(direction=k)
            at, curvature = own["at"].values, float(own.curvature)
            axes.plot(at, own.loss.values / level, color="#0072B2", label="loss")
            parabola = 1 + curvature * at**2 / 2 / level
            axes.plot(at, parabola, color="#D55E00", linestyle="--", linewidth=0.9, label="its curvature alone")
            axes.axhline(math.e, color="0.6", linewidth=0.7, linestyle=":", label="e times the loss at 0")
            edges = np.array([-float(own.width_left), float(own.width_right)])
            edges = edges[np.isfinite(edges)]
            axes.plot(edges, np.full(len(edges), math.e), "k|", markersize=8)
            axes.set(ylim=(0, 2 * math.e), xlabel="displacement (weight)", title=f"component {int(own.component)}")
            axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        grid[0].set_ylabel("loss over its value at 0")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=3, frameon=False)
        figure.subplots_adjust(left=0.075, right=0.985, top=0.79, bottom=0.33, wspace=0.28)
        write_caption(
            figure,
            "Training loss along four principal components of the weights under SGD, through the mean of the last epochs of\n"
            "training (one network). Ticks: where it reaches e times its value there; their distance is the flatness F.",
        )
    return figure
