"""Test accuracy that is lost by stopping as each rule says, for each kind of label noise."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langevin_nn.figures.base import STYLE, write_caption
from studies.monitor.labels import CLEAN, KINDS

__all__ = ["NAMES", "TITLES", "monitor_figure"]

NAMES = {
    "monitor": "monitor",
    "monitor_named": "monitor, epoch it names",
    "validation": "validation set",
    "label_wave": "Label Wave",
    "label_wave_patient": "Label Wave, patient",
    "alignment": "gradient–weight alignment",
    "weight_norm": "weight norm",
    "never": "never stop",
    "true_labels": "true labels, had one them",
}
TITLES = {
    CLEAN: "clean labels",
    "symmetric": "symmetric",
    "pair": "pair flips",
    "class_dependent": "class-dependent",
    "instance_dependent": "instance-dependent",
}
_NETWORKS: dict[str, dict[str, Any]] = {
    "perceptron": {"marker": "o", "color": "#0072B2", "label": "perceptron"},
    "convolutional": {"marker": "^", "color": "#D55E00", "label": "convolutional network"},
}


def monitor_figure(results: xr.Dataset) -> Figure:
    """Draw what each rule loses, run by run.

    Parameters
    ----------
    results : Dataset
        Of `judged`.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each kind of label noise.
    """
    kinds = [each for each in (CLEAN, *KINDS) if each in results.kind.values]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.6))
        panels = figure.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            _panel(axes, results.isel(run=np.flatnonzero(results.kind.values == kind)), TITLES[kind])
        panels[0].set_yticks(range(len(NAMES)), list(NAMES.values()))
        panels[0].invert_yaxis()
        handles: dict[str, Any] = {}
        for axes in panels:
            handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(list(handles.values()), list(handles), loc="upper center", ncols=len(handles), frameon=False)
        figure.supxlabel("test accuracy lost against the best running mean (points)", fontsize=8, x=0.6, y=0.145)
        figure.subplots_adjust(left=0.225, right=0.98, top=0.87, bottom=0.225, wspace=0.1)
        write_caption(
            figure,
            "Test accuracy where each rule would have stopped, below the highest along the run, both as running means over "
            "five epochs.\nSymbols: runs, from the lowest share of wrong labels (above) to the highest; bars: means. Dotted: "
            "one point. Axes are linear\nbetween −1 and 1 and logarithmic beyond. Below 0: a run without held-out samples "
            "was better than the one with all.",
        )
    return figure


def _panel(axes: Axes, results: xr.Dataset, title: str) -> None:
    noises = np.unique(results.label_noise)
    for place, rule in enumerate(NAMES):
        lost = results.lost.sel(rule=rule)
        for network, style in _NETWORKS.items():
            at = np.flatnonzero(results.network.values == network)
            if len(at):
                rank = np.searchsorted(noises, results.label_noise.values[at]) - (len(noises) - 1) / 2
                height = place + 0.14 * rank + (0.03 if network == "perceptron" else -0.03)
                own = {**style, "label": style["label"] if place == 0 else None}
                axes.plot(lost.values[at], height, linestyle="none", markersize=3, markerfacecolor="none", **own)
        label = "mean" if place == 0 else None
        axes.plot([float(lost.mean())] * 2, [place - 0.36, place + 0.36], color="#000000", linewidth=1.8, label=label)
    axes.axvline(1, color="#999999", linestyle=":", zorder=-1)
    axes.axvline(0, color="#cccccc", linewidth=0.6, zorder=-2)
    axes.set_xscale("symlog", linthresh=1, linscale=0.6)
    axes.set_xticks([0, 1, 10, 50], ["0", "1", "10", "50"])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_title(title)
    axes.tick_params(axis="y", length=0)
