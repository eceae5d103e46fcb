"""A surrogate beside its network: fluctuations along each direction, and where it holds."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from langevin_nn.figures.base import STYLE, plain_powers, write_caption

__all__ = ["surrogate_figure"]

_DRAWS: dict[str, dict[str, Any]] = {
    "shuffled": {"color": "#000000", "marker": "o", "label": "SGD, shuffled epochs"},
    "independent": {"color": "#0072B2", "marker": "s", "label": "SGD, independent draws"},
}
_SURROGATES: dict[str, dict[str, Any]] = {
    "constant": {"color": "#E69F00", "marker": "v", "label": "surrogate, constant noise"},
    "state_dependent": {"color": "#D55E00", "marker": "^", "label": "surrogate, state-dependent noise"},
}
_LAWS: dict[str, dict[str, Any]] = {
    "shuffled": {"color": "#000000", "linestyle": "--", "label": "linear law, shuffled epochs"},
    "independent": {"color": "#0072B2", "linestyle": "-", "label": "linear law, independent draws"},
    "stationary": {"color": "#666666", "linestyle": ":", "label": "Lyapunov, stationary"},
}
_SYMBOLS: dict[str, Any] = {"linestyle": "none", "markersize": 3.5, "capsize": 1.5, "elinewidth": 0.7}
_FILLED = {0: "none", 1: "left", 2: "full"}  # fails, undecided, holds


def surrogate_figure(result: xr.DataTree, tolerance: float) -> Figure:
    """Draw fluctuations of SGD along each direction beside those of its surrogate and of the linear law.

    Parameters
    ----------
    result : DataTree
        Of ``studies.surrogate_of_a_network``.
    tolerance : float
        Ratio of variances that counts as alike.

    Returns
    -------
    matplotlib.figure.Figure
        Six panels: variance and autocorrelation time by direction; ratio of predicted variances to SGD's for either kind of
        draws; variance in time along two directions; quality by dimension.
    """
    largest = int(result.dimension.values[-1])
    group = result[str(largest)].to_dataset()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 8.2))
        (variance, times), (shuffled, independent), (growth, quality) = figure.subplots(3, 2)
        _by_direction(variance, group, "variance", "variance (weight²)")
        _by_direction(times, group, "autocorrelation_time", "autocorrelation time (update)")
        _mark_unseen(times, group)
        for axes, draws in ((shuffled, "shuffled"), (independent, "independent")):
            _ratios(axes, group.sel(draws=draws), tolerance)
            axes.set_title(f"against {_DRAWS[draws]['label']}")
        _in_time(growth, group)
        _by_dimension(quality, result.to_dataset())
        for axes in (variance, growth):
            plain_powers(axes, "y")
        for axes in (times, shuffled, independent, quality):
            _label_few(axes)
        handles, labels = variance.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=3, frameon=False)
        figure.subplots_adjust(left=0.095, right=0.985, top=0.90, bottom=0.17, wspace=0.27, hspace=0.42)
        write_caption(
            figure,
            f"{largest} directions by falling curvature; averages over the second half of the window, ± 95 % over replicas;\n"
            "all start from one point. Arrows: no decay is seen (up), or memory is negative, since an epoch takes back\n"
            f"its own noise (down). Middle: full symbols where variance and memory agree (grey: × {tolerance:g}), half full\n"
            "where that is undecided, open where they do not; diamonds: the linear law for such draws. Bottom left:\n"
            "variance in time along the sharpest direction (thick) and the flattest (thin). Bottom right: distance of\n"
            "surrogates of growing dimension from the network.",
        )
    return figure


def _error_bars(data: xr.Dataset, name: str) -> NDArray[np.float64]:
    """Return lengths below and above; what is endless is cut off by the axis."""
    if f"{name}_lower" in data:
        ends = data[name] - data[f"{name}_lower"], data[f"{name}_upper"] - data[name]
        return np.array([np.nan_to_num(each.values, nan=0, posinf=1e12, neginf=0).clip(0) for each in ends])
    return np.repeat(1.96 * np.nan_to_num(data[f"{name}_standard_error"].values)[None], 2, axis=0)


def _by_direction(axes: Axes, group: xr.Dataset, name: str, label: str) -> None:
    """Draw symbols for what ran, lines for what is known."""
    k = group.direction.values
    predicted = group[[each for each in group if str(each).startswith("predicted_")]]
    predicted = predicted.rename({each: str(each).removeprefix("predicted_") for each in predicted})
    for shift, (draws, style) in zip((-0.2, -0.07), _DRAWS.items(), strict=True):
        own = group.sel(draws=draws)
        axes.errorbar(k + shift, _finite(own[name]), _error_bars(own, name), **style, **_SYMBOLS)
    for shift, (noise, style) in zip((0.07, 0.2), _SURROGATES.items(), strict=True):
        other = predicted.sel(draws="independent", predictor=noise)
        axes.errorbar(k + shift, _finite(other[name]), _error_bars(other, name), **style, **_SYMBOLS)
    if name == "variance":
        for draws in ("independent", "shuffled"):
            axes.plot(k, predicted[name].sel(draws=draws, predictor="lyapunov"), **_LAWS[draws], zorder=0)
        axes.plot(k, predicted[name].sel(draws="independent", predictor="stationary"), **_LAWS["stationary"], zorder=0)
    else:
        for draws in ("independent", "shuffled"):
            axes.plot(k, _finite(predicted[name].sel(draws=draws, predictor="lyapunov")), **_LAWS[draws], zorder=0)
    axes.set(xlabel="direction", ylabel=label, yscale="log")
    shown = np.concatenate([_finite(group[name]).ravel(), _finite(predicted[name]).ravel()])
    shown = shown[shown > 0]
    if shown.size:
        axes.set_ylim(shown.min() / 2.5, shown.max() * 2.5)


def _finite(values: xr.DataArray) -> NDArray[np.float64]:
    found = np.asarray(values.values, dtype=np.float64)
    return np.where(np.isfinite(found) & (found > 0), found, np.nan)


def _mark_unseen(axes: Axes, group: xr.Dataset) -> None:
    """Put an arrow where SGD's memory has not decayed, or is negative."""
    low, high = axes.get_ylim()
    ends = {r"$\uparrow$": (np.inf, high / 1.3), r"$\downarrow$": (0.0, low * 1.3)}
    for shift, (draws, style) in zip((-0.2, -0.07), _DRAWS.items(), strict=True):
        times = group.autocorrelation_time.sel(draws=draws).values
        for arrow, (value, height) in ends.items():
            places = group.direction.values[times == value]
            marks = {"color": style["color"], "marker": arrow, "linestyle": "none", "markersize": 5}
            axes.plot(places + shift, np.full(len(places), height), **marks)


def _label_few(axes: Axes) -> None:
    """Label a few numbers of each decade, plainly."""
    low, high = axes.get_ylim()
    few = (1.0, 2.0, 5.0) if high > 10 * low else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=few))
    axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def _ratios(axes: Axes, group: xr.Dataset, tolerance: float) -> None:
    axes.axhspan(1 / tolerance, tolerance, color="0.85", linewidth=0)
    axes.axhline(1, color="0.4", linewidth=0.7)
    law = {"color": "#666666", "marker": "D"}
    for shift, (name, style) in zip((-0.18, 0.0, 0.18), {**_SURROGATES, "lyapunov": law}.items(), strict=True):
        own = group.sel(predictor=name)
        marks = {key: style[key] for key in ("color", "marker")}
        for code, filled in _FILLED.items():
            here = own.where(own.relation == code)
            axes.errorbar(
                own.direction + shift,
                _finite(here.variance_ratio),
                _error_bars(here, "variance_ratio"),
                **marks,
                **_SYMBOLS,
                fillstyle=filled,
                markerfacecoloralt="white",
            )
    axes.set(xlabel="direction", ylabel="predicted / SGD variance", yscale="log")


def _in_time(axes: Axes, group: xr.Dataset) -> None:
    for direction, width in ((group.direction.values[0], 1.6), (group.direction.values[-1], 0.8)):
        own = group.sel(direction=direction)
        for draws, style in _DRAWS.items():
            axes.plot(own.record, own.variance_by_record.sel(draws=draws), color=style["color"], linewidth=width)
            law = own.predicted_variance_by_record.sel(draws=draws, predictor="lyapunov")
            axes.plot(own.record, law.where(law > 0), color="0.6", linestyle=_LAWS[draws]["linestyle"], linewidth=0.7)
        other = own.predicted_variance_by_record.sel(draws="independent", predictor="state_dependent")
        axes.plot(own.record, other, color=_SURROGATES["state_dependent"]["color"], linestyle="-.", linewidth=width)
    seen = _finite(group.variance_by_record.isel(direction=[0, -1]))
    axes.set(xlabel="update from the start", ylabel="variance (weight²)", yscale="log")
    if np.isfinite(seen).any():
        axes.set_ylim(np.nanmin(seen) / 3, np.nanmax(seen) * 3)


def _by_dimension(axes: Axes, data: xr.Dataset) -> None:
    best = data.sel(noise="state_dependent")
    lines = {
        "1 − share of D": (1 - best.explained_share, "o", "-"),
        "error of drift": (best.relative_drift_error, "s", "--"),
        "… within them": (best.relative_drift_error_within, "v", ":"),
        "|ln D| elsewhere": (best.distance_elsewhere.sel(order_parameter="noise_strength"), "^", "-."),
        "|ln σ_λ²| elsewhere": (best.distance_elsewhere.sel(order_parameter="projection_variance"), "D", "-"),
    }
    for shade, (label, (values, marker, style)) in zip(np.linspace(0, 0.6, len(lines)), lines.items(), strict=True):
        axes.plot(data.dimension, values, color=str(shade), marker=marker, linestyle=style, markersize=3.5, label=label)
    axes.set(xlabel="directions kept", ylabel="distance from the network", xscale="log", yscale="log")
    axes.set_xticks(data.dimension.values, [str(each) for each in data.dimension.values])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    low, high = axes.get_ylim()
    axes.set_ylim(low * (low / high) ** 0.6, high)  # room for the legend
    axes.legend(frameon=False, loc="lower center", ncols=2, handlelength=2.4)
