"""What all figures do alike: sizes of type, captions, legends, labels of axes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from langevin_nn.analyzers import logarithm, mean_with_interval

__all__ = [
    "RAISED",
    "STYLE",
    "SYMBOLS",
    "UNITS",
    "draw_band",
    "plain_powers",
    "say_undefined",
    "shade_phases",
    "shared_legend",
    "write_caption",
    "write_figures",
]

_PHASE_SHADES = ("#f2f2f2", "#e0e0e0", "#f2f2f2", "#e0e0e0")
STYLE: Any = {  # keys of matplotlib's rcParams
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "lines.linewidth": 1.1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}
SYMBOLS = {
    "activity": r"$A$",
    "directed_activity": r"$A_0$",
    "directed_activity_correct": r"$A_{0,c}$",
    "directed_activity_mislabeled": r"$A_{0,w}$",
    "noise_strength": r"$D = \mathrm{Tr}\,C$",
    "projection_variance": r"$\sigma_\lambda^2$",
    "alignment": r"$R$",
    "gradient_alignment_correct_mislabeled": r"$R_{cw}$",
}
UNITS = {"loss2 weight-2": "nat² / weight²"}
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def draw_band(axes: Axes, clock: ArrayLike, values: xr.DataArray, *, logarithmic: bool = False, **style: Any) -> None:
    """Draw the mean over replicas with its 95 % t interval, both on the scale of the axis."""
    moments = mean_with_interval(logarithm(values) if logarithmic else values)
    lines = {name: np.exp(moments[name]) if logarithmic else moments[name] for name in moments}
    (line,) = axes.plot(clock, lines["mean_value"], **style)
    axes.fill_between(clock, lines["lower"], lines["upper"], color=line.get_color(), alpha=0.15, linewidth=0)


def shade_phases(axes: Axes, phases: xr.Dataset, end: float, *, clock: str = "epoch") -> None:
    """Shade phases of learning up to the mean boundaries of replicas, whose intervals are strips."""
    edges, strips = [float(axes.get_xlim()[0]) if axes.get_xscale() == "log" else 0.0], []
    for k in range(phases.sizes["boundary"]):
        boundary = phases.isel(boundary=k)
        found = boundary[f"boundary_{clock}"]
        mean = float(found.mean(skipna=False))  # one of those alone that were fast enough would be too early
        if f"mean_boundary_{clock}" in boundary and np.isfinite(boundary[f"mean_boundary_{clock}"]):
            mean = float(boundary[f"mean_boundary_{clock}"])
            strips.append([float(boundary[f"mean_boundary_{clock}_{side}"]) for side in ("lower", "upper")])
        edges.append(mean)
    names = [*phases["phase"].attrs["flag_meanings"].split()]
    reached = [(name, edge) for name, edge in zip(names, edges, strict=True) if np.isfinite(edge)]
    ends = [edge for _, edge in reached[1:]] + [end]
    for shade, (name, left), right in zip(_PHASE_SHADES, reached, ends, strict=False):
        axes.axvspan(left, right, color=shade, zorder=-3, linewidth=0)
        middle = np.sqrt(max(left, 1e-300) * right) if axes.get_xscale() == "log" else (left + right) / 2
        if right - left > 0.02 * end or axes.get_xscale() == "log":
            short = name if len(name) < 4 else name.replace("_", " ")
            axes.text(middle, 1.01, short, transform=axes.get_xaxis_transform(), ha="center", fontsize=7)
    for lower, upper in strips:
        axes.axvspan(lower, upper, color="0.6", alpha=0.35, zorder=-2, linewidth=0)


def plain_powers(axes: Axes, *names: str) -> None:
    """Label powers of ten as 10⁻² in plain text, and nothing between them."""

    def label_of(value: float, _: int) -> str:
        return "10" + str(round(np.log10(value))).translate(RAISED) if value > 0 else ""

    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        if axis.get_scale() == "log":
            axis.set_major_formatter(mpl.ticker.FuncFormatter(label_of))
            axis.set_minor_formatter(mpl.ticker.NullFormatter())


def say_undefined(axes: Axes) -> None:
    """Say in a panel that it has nothing to show without mislabeled samples."""
    axes.set_yscale("linear")
    axes.set_yticks([])
    axes.text(0.5, 0.5, "undefined: no mislabeled samples", transform=axes.transAxes, ha="center", va="center")


def write_caption(figure: Figure, text: str) -> None:
    """Write what one sees below a figure."""
    figure.text(0.01, 0.005, text, fontsize=7, ha="left", va="bottom", wrap=True)


def shared_legend(figure: Figure, axes: Axes, columns: int) -> None:
    """Put the legend of one panel above all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=columns, frameon=False)


def write_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write figures into a folder, each as PNG under its name, at the resolution of print.

    Parameters
    ----------
    figures : mapping of str to matplotlib.figure.Figure
        By the name of the file, without its ending.
    folder : pathlib.Path
        Where to.

    Returns
    -------
    list of Path
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    with mpl.rc_context(STYLE):
        for path, figure in zip(paths, figures.values(), strict=True):
            figure.savefig(path)
    return paths
