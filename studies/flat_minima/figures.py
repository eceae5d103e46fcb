"""Two valleys of unequal width: where a particle is found, and how fast it escapes."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure

from langevin_nn.figures.base import STYLE, write_caption

__all__ = ["flat_minima_figure"]

_NOISE_STYLES: dict[str, dict[str, Any]] = {
    "isotropic": {"color": "#0072B2", "linestyle": "-", "marker": "o", "label": "isotropic"},
    "anisotropic": {"color": "#D55E00", "linestyle": "--", "marker": "s", "label": "anisotropic"},
    "curvature": {"color": "#000000", "linestyle": "-.", "marker": "^", "label": "as curvature"},
}


def flat_minima_figure(rates: xr.Dataset) -> Figure:
    """Draw where a particle between a narrow and a wide valley is found, and how fast it escapes.

    Parameters
    ----------
    rates : Dataset
        Of ``studies.flat_minima``.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels: loss and noise; share of time in the wide valley; rates of escape. Lines are predictions.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.3))
        left, middle, right = figure.subplots(1, 3)
        left.plot(rates.position, rates.loss, color="#999999", label="loss")
        left.plot(rates.position, rates.relative_noise, **_line("curvature"), label="noise as curvature")
        left.axhline(1, **_line("isotropic"), label="isotropic noise")
        left.set(xlabel="along the path (weight)", ylabel="loss (nat); relative noise", ylim=(0, 3.2))
        left.legend(frameon=False, loc="upper right", handlelength=2.2)
        level = rates.noise_level
        for noise, style in _NOISE_STYLES.items():
            point = rates.sel(noise=noise)
            marks = {"color": style["color"], "marker": style["marker"], "linestyle": "none", "markersize": 3.5}
            middle.plot(level, point.wide_share_predicted, **_line(noise))
            error = 2 * point.wide_share_standard_error
            middle.errorbar(level, point.wide_share, error, **marks, capsize=2, label=style["label"])
            for valley, filled in (("narrow", style["color"]), ("wide", "white")):
                each = point.sel(valley=valley)
                seen = each.where(each.escape_rate > 0)
                right.plot(level, each.escape_rate_predicted, **_line(noise))
                error = 2 * each.escape_rate_standard_error
                right.errorbar(level, seen.escape_rate, error, **marks, capsize=2, markerfacecolor=filled)
        middle.set(xlabel="α/B (time)", ylabel="share of time in the wide valley")
        right.set(xlabel="α/B (time)", ylabel="rate of escape (1/time)", yscale="log")
        for axes in (middle, right):
            axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
        figure.legend(*middle.get_legend_handles_labels(), loc="upper center", ncol=3, frameon=False)
        figure.subplots_adjust(left=0.075, right=0.985, top=0.87, bottom=0.33, wspace=0.42)
        write_caption(
            figure,
            "Left: two valleys of equal depth, and noise relative to isotropic noise. Middle: where it is found.\n"
            "Right: escapes from the narrow (full symbols) and from the wide valley (open). Symbols: simulation, ± 2\n"
            "standard errors; lines: quadrature of the equation averaged over the directions across the path.",
        )
    return figure


def _line(noise: str) -> dict[str, Any]:
    style = _NOISE_STYLES[noise]
    return {"color": style["color"], "linestyle": style["linestyle"]}
