"""The test error's minimum and end against label noise."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from langevin_nn.analyzers import logarithm, mean_with_interval
from langevin_nn.figures.base import STYLE, draw_band, plain_powers, write_caption

__all__ = ["label_noise_figure"]

_SHOWN = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
_LOW: dict[str, Any] = {"color": "#0072B2", "marker": "o"}
_HIGH: dict[str, Any] = {"color": "#000000", "marker": "D"}


def label_noise_figure(runs: xr.Dataset, measures: xr.Dataset, of_sizes: xr.Dataset) -> Figure:
    """Draw the test error in time and its two times and heights against label noise, after Feng & Tu's Figures 3B to 3D.

    Parameters
    ----------
    runs : Dataset
        ``test_error`` (label_noise, replica, step) with ``epoch``.
    measures : Dataset
        `Timescales` by ``label_noise``, with ``mislabeled_fraction``.
    of_sizes : Dataset
        `Timescales` by ``point``, with ``samples``.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels: curves; times; errors; the time of the minimum against the number of samples.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 6.0))
        (curves, times), (errors, sizes) = figure.subplots(2, 2)
        _curves(curves, runs)
        _times(times, measures)
        _errors(errors, measures)
        _sizes(sizes, of_sizes)
        for axes in (times, errors):
            _with_mislabeled_fraction(axes, measures)
        for letter, axes in zip("BCDE", (curves, times, errors, sizes), strict=True):
            axes.text(-0.13, 1.03, letter, transform=axes.transAxes, fontsize=10, fontweight="bold")
        figure.subplots_adjust(left=0.085, right=0.985, top=0.925, bottom=0.185, wspace=0.25, hspace=0.5)
        replicas = runs.sizes["replica"]
        missing = int(measures.is_censored.sum())
        write_caption(
            figure,
            f"B: test error in time at several label noises (mean and 95 % interval over {replicas} replicas, each with its "
            "own labels).\nC: time $t_m$ of the lowest test error, and $t_f$ from which the training error stays at most "
            "0.1 %, geometric means of the\n"
            f"replicas that get there ({missing} of {measures.is_censored.size} do not; triangles say where). D: "
            "test errors there, and a straight line\nthrough $\\varepsilon_f$. E: $t_m$ against the number of training "
            "samples at one label noise, relative to its value at the largest. Label\nnoise is the share of redrawn labels; "
            "upper axes say which share of the labels is wrong, since some are redrawn rightly.",
        )
    return figure


def _curves(axes: Axes, runs: xr.Dataset) -> None:
    noises = runs.label_noise.values
    shown = sorted({int(np.abs(noises - each).argmin()) for each in _SHOWN})
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(shown)))
    chosen = runs.isel(step=slice(1, None))
    for k, colour, dashes in zip(shown, colours, _DASHES, strict=False):
        name = f"{noises[k]:g}"
        draw_band(axes, chosen.epoch, chosen.test_error[k], color=colour, linestyle=dashes, label=name)
    axes.axhline(0.9, color="#999999", linewidth=0.7)
    axes.text(float(chosen.epoch[0]), 0.91, "guessing", fontsize=7, color="#666666")
    axes.set(xscale="log", xlabel="epoch", ylabel="test error", xlim=(float(chosen.epoch[0]), None))
    axes.set(ylim=(-0.3, 1), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    plain_powers(axes, "x")
    axes.legend(title="label noise", title_fontsize=7, frameon=False, ncols=3, fontsize=6.5, loc="lower left")


def _points(axes: Axes, positions: xr.DataArray, values: xr.DataArray, name: str, **style: Any) -> None:
    """Draw means over replicas with 95 % t intervals, both on the scale of the axis."""
    scaled = axes.get_yscale() == "log"
    found = mean_with_interval(logarithm(values) if scaled else values)
    middle, lower, upper = (np.exp(found[each]) if scaled else found[each] for each in ("mean_value", "lower", "upper"))
    error = np.stack([middle - lower, upper - middle])
    error = np.where(np.isfinite(error), error, 0)
    axes.errorbar(positions, middle, error, label=name, capsize=2, markersize=3.5, linewidth=0.8, **style)


def _times(axes: Axes, measures: xr.Dataset) -> None:
    epochs = measures.sel(clock="epoch")
    axes.set(yscale="log", xlabel="label noise", ylabel="epoch")
    _points(axes, measures.label_noise, epochs.time_of_fit, "everything fitted, $t_f$", **_HIGH)
    _points(axes, measures.label_noise, epochs.time_of_minimum, "lowest test error, $t_m$", **_LOW)
    seen = [each.mean("replica") for each in (epochs.time_of_fit, epochs.time_of_minimum)]
    low, high = min(float(each.min()) for each in seen) / 3, max(float(each.max()) for each in seen) * 3
    axes.set_ylim(low, high)
    censored = measures.label_noise.values[measures.is_censored.any("replica").values]
    axes.plot(censored, np.full(len(censored), high), "v", color="#666666", markersize=4, clip_on=False)
    _label_plainly(axes.yaxis, _ticks(low, high))
    axes.legend(frameon=False)


def _errors(axes: Axes, measures: xr.Dataset) -> None:
    noise, final = measures.label_noise, measures.final_test_error
    known = final.mean("replica")
    drawn = np.isfinite(known.values)
    if drawn.sum() > 2:
        line = np.polynomial.Polynomial.fit(noise.values[drawn], known.values[drawn], 1)
        axes.plot(noise, line(noise.values), color="#999999", linewidth=0.8)
    _points(axes, noise, final, r"where all is fitted, $\varepsilon_f$", **_HIGH, linestyle="none")
    _points(axes, noise, measures.minimum_test_error, r"lowest, $\varepsilon_m$", **_LOW)
    axes.axhline(0.9, color="#999999", linestyle=":")
    axes.text(0.0, 0.91, "guessing", fontsize=7, color="#666666")
    axes.set(xlabel="label noise", ylabel="test error", ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.92))


def _sizes(axes: Axes, of_sizes: xr.Dataset) -> None:
    ordered = of_sizes.sortby("samples")
    for clock, name, style in (("step", "in updates", _HIGH), ("epoch", "in epochs", _LOW)):
        logarithms = np.log(ordered.time_of_minimum.sel(clock=clock).transpose("point", "replica"))
        found = mean_with_interval(logarithms)
        scale = float(found.mean_value[-1])
        middle, lower, upper = (np.exp(found[each] - scale) for each in ("mean_value", "lower", "upper"))
        error = np.stack([middle - lower, upper - middle])
        axes.errorbar(ordered.samples, middle, error, label=name, capsize=2, markersize=3.5, linewidth=0.8, **style)
    axes.axhline(1, color="#999999", linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="training samples", ylabel="$t_m$ relative to that of all samples")
    _label_plainly(axes.xaxis, list(ordered.samples.values))
    _label_plainly(axes.yaxis, _ticks(*axes.get_ylim()))
    axes.legend(frameon=False)


def _label_plainly(axis: Axis, ticks: list[float]) -> None:
    """Label a logarithmic axis with plain numbers."""
    axis.set_major_locator(mpl.ticker.FixedLocator(ticks))
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(mpl.ticker.NullLocator())


def _ticks(low: float, high: float) -> list[float]:
    known = [digit * 10.0**power for power in range(-4, 5) for digit in (1, 2, 5)]
    return [each for each in known if low <= each <= high]


def _with_mislabeled_fraction(axes: Axes, measures: xr.Dataset) -> None:
    """Put the share of wrong labels above an axis of label noise."""
    noise, wrong = measures.label_noise.values, measures.mislabeled_fraction.values
    ratio = float(wrong @ noise / (noise @ noise))
    above = axes.secondary_xaxis("top", functions=(lambda x: np.multiply(x, ratio), lambda x: np.divide(x, ratio)))
    above.set_xlabel("share of wrong labels", fontsize=7)
    above.tick_params(labelsize=7)
