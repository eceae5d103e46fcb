"""What all figures do alike: sizes of type, captions, legends, labels of axes."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "PHASE_SHADES",
    "STYLE",
    "SYMBOLS",
    "UNITS",
    "plain_powers",
    "say_undefined",
    "shared_legend",
    "write_caption",
]

PHASE_SHADES = ("#f2f2f2", "#e0e0e0", "#f2f2f2", "#e0e0e0")
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


def plain_powers(axes: Axes, *names: str) -> None:
    """Label powers of ten as 10⁻² in plain text, and nothing between them."""
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

    def label_of(value: float, _: int) -> str:
        return "10" + str(round(np.log10(value))).translate(digits) if value > 0 else ""

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
