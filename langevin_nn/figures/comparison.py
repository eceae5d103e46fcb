"""Several processes from the same start: training, order parameters, distances, spectra and the verdict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langevin_nn.analyzers import COMPARED, Comparison, Quantity
from langevin_nn.figures.base import (
    STYLE,
    SYMBOLS,
    UNITS,
    draw_band,
    plain_powers,
    say_undefined,
    shade_phases,
    shared_legend,
    write_caption,
    write_figures,
)
from langevin_nn.observables import describe
from langevin_nn.report import label

__all__ = [
    "FIGURES",
    "distance_figure",
    "order_parameter_figure",
    "save_figures",
    "spectrum_figure",
    "training_figure",
    "verdict_figure",
]

_STYLES: dict[str, dict[str, Any]] = {
    "sgd": {"color": "#000000", "linestyle": "-"},
    "sgd_null": {"color": "#999999", "linestyle": "-"},
    "langevin": {"color": "#0072B2", "linestyle": "--"},
    "isotropic_langevin": {"color": "#D55E00", "linestyle": "-."},
    "frozen_langevin": {"color": "#56B4E9", "linestyle": (0, (5, 1))},
    "svag": {"color": "#882255", "linestyle": (0, (1, 1))},
    "gradient_descent": {"color": "#009E73", "linestyle": ":"},
    "independent_sgd": {"color": "#CC79A7", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
}
_MARKERS = {"sgd_null": "s", "langevin": "o", "isotropic_langevin": "^", "gradient_descent": "D"}


def _style(process: str) -> dict[str, Any]:
    return _STYLES.get(process, {"color": "#E69F00", "linestyle": "-"})


def _band(axes: Axes, clock: xr.DataArray, values: xr.DataArray, process: str, *, logarithmic: bool = False) -> None:
    draw_band(axes, clock, values, logarithmic=logarithmic, label=label(process), **_style(process))


def _processes(root: xr.Dataset, *, but: Iterable[str] = ()) -> list[str]:
    return [str(name) for name in root["process"].values if name not in set(but)]


def _replica_note(root: xr.Dataset) -> str:
    return f"Lines: means over {root.sizes['replica']} replicas; bands: 95 % t intervals, on the axis's own scale."


@mpl.rc_context(STYLE)
def training_figure(comparison: Comparison) -> Figure:
    """Draw losses and errors against epochs, with SGD's phases shaded.

    Parameters
    ----------
    comparison : Comparison
        Of `langevin_nn.compare`.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels: training loss, test error, and the training errors of the two cohorts.
    """
    root, reference = comparison.trajectories.to_dataset(), comparison.summary["reference"]
    end = float(root["epoch"].max())
    panels = [
        ("train_loss", "all", "training loss (nat)"),
        ("test_error", None, "test error"),
        ("train_error", "correct", "training error, correct samples"),
        ("train_error", "mislabeled", "training error, mislabeled samples"),
    ]
    panels = [panel for panel in panels if panel[0] in root]
    figure = Figure(figsize=(7.0, 5.2))
    grid = figure.subplots(2, 2, sharex=True).ravel()
    for axes, (name, cohort, text) in zip(grid, panels, strict=False):
        values = root[name] if cohort is None else root[name].sel(cohort=cohort)
        for process in _processes(root, but=[comparison.summary["null"]]):
            _band(axes, root["epoch"], values.sel(process=process), process, logarithmic=name.endswith("loss"))
        shade_phases(axes, comparison.phases.sel(process=reference), end)
        axes.set(ylabel=text, xlim=(0, end))
        if name.endswith("error"):
            axes.set_ylim(-0.03, 1.03)
        if not bool(values.notnull().any()):
            say_undefined(axes)
    grid[0].set_yscale("log")
    means = root["train_loss"].sel(cohort="all").mean("replica")
    grid[0].set_ylim(0.7 * float(means.min()), 1.4 * float(means.max()))
    grid[0].yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    grid[0].yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    for axes in grid[2:]:
        axes.set_xlabel("epoch")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    shared_legend(figure, grid[0], 2)
    figure.subplots_adjust(left=0.09, right=0.98, top=0.86, bottom=0.13, hspace=0.25, wspace=0.25)
    write_caption(figure, f"Shaded: phases of {label(reference)}, from training errors alone. {_replica_note(root)}")
    return figure


def _quantity_figure(
    draw: Callable[[Axes, Quantity], xr.DataArray], end: float, caption: str, **place: float
) -> Figure:
    """Draw one panel a quantity over the epochs of a run, and say where there is nothing to show."""
    figure = Figure(figsize=(7.0, 8.4))
    grid = figure.subplots(4, 2, sharex=True)
    for axes, quantity in zip(grid.ravel(), COMPARED, strict=True):
        drawn = draw(axes, quantity)
        axes.set_xlim(0, end)
        if not bool(drawn.notnull().any()):
            say_undefined(axes)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    shared_legend(figure, grid[0, 0], 2)
    figure.subplots_adjust(left=0.11, right=0.98, bottom=0.085, **place)
    write_caption(figure, caption)
    return figure


@mpl.rc_context(STYLE)
def order_parameter_figure(comparison: Comparison) -> Figure:
    """Draw the order parameters of all processes against epochs.

    Parameters
    ----------
    comparison : Comparison
        Of `langevin_nn.compare`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a quantity.
    """
    root = comparison.trajectories.to_dataset()
    end, phases = float(root["epoch"].max()), comparison.phases.sel(process=comparison.summary["reference"])

    def draw(axes: Axes, quantity: Quantity) -> xr.DataArray:
        values = root[quantity.variable].sel(dict(quantity.selection))
        for process in _processes(root, but=[comparison.summary["null"]]):
            _band(axes, root["epoch"], values.sel(process=process), process, logarithmic=quantity.logarithmic)
        shade_phases(axes, phases, end)
        unit = UNITS.get(describe(quantity.variable).units)
        axes.set(ylabel=SYMBOLS[quantity.name] + (f" ({unit})" if unit else ""))
        if quantity.logarithmic:
            axes.set_yscale("log")
            plain_powers(axes, "y")
        else:
            axes.axhline(0, color="0.4", linewidth=0.6, zorder=-1)
        return values

    caption = (
        "Order parameters of the minibatch gradient ensemble at each process's weights. Shaded: SGD's phases.\n"
        + _replica_note(root)
    )
    return _quantity_figure(draw, end, caption, top=0.915, hspace=0.28, wspace=0.3)


@mpl.rc_context(STYLE)
def distance_figure(comparison: Comparison) -> Figure:
    """Draw the signed difference from SGD over time, in units of SGD's spread, with the null as a grey band.

    Parameters
    ----------
    comparison : Comparison
        Of `langevin_nn.compare`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a quantity.
    """
    result, root = comparison.equal_time, comparison.trajectories.to_dataset()
    reference, null = comparison.summary["reference"], comparison.summary["null"]
    epoch = root["epoch"].sel(step=result["step"])

    def draw(axes: Axes, quantity: Quantity) -> xr.DataArray:
        chosen = result.sel(quantity=quantity.name)
        for process in [null, *_processes(root, but=[reference, null])]:
            each = chosen.sel(process=process)
            bounds = (each["difference_lower"], each["difference_upper"])
            if process == null:
                axes.fill_between(epoch, *bounds, color="0.75", linewidth=0, label=f"{label(null)}, 95 % interval")
                continue
            style = _style(process)
            axes.plot(epoch, each["difference"], label=label(process), **style)
            axes.fill_between(epoch, *bounds, color=style["color"], alpha=0.15, linewidth=0)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_yscale("symlog", linthresh=3, linscale=1.2)
        axes.set_ylabel(f"difference in {SYMBOLS[quantity.name]}\n(spreads)")
        axes.set_yticks([-30, -10, -3, 0, 3, 10, 30], ["−30", "−10", "−3", "0", "3", "10", "30"])
        axes.minorticks_off()
        axes.set_ylim(-40, 40)
        return chosen["difference"]

    caption = (
        f"Difference from {label(reference)}, replica by replica from the same initial weights, in units of its\n"
        "replica-to-replica standard deviation (of the logarithm, for A, A₀, D and σ_λ²), pooled over five records; "
        "linear within ±3, cut at ±40."
    )
    return _quantity_figure(draw, float(epoch.max()), caption, top=0.93, hspace=0.18, wspace=0.32)


@mpl.rc_context(STYLE)
def verdict_figure(comparison: Comparison) -> Figure:
    """Draw the time-averaged distance of each process for each quantity, on both clocks.

    Parameters
    ----------
    comparison : Comparison
        Of `langevin_nn.compare`.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels, equal time and equal training loss.
    """
    summary = comparison.summary
    names = [quantity.name for quantity in COMPARED]
    figure = Figure(figsize=(7.0, 4.0))
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"equal_time": "at equal gradient-flow time", "equal_loss": "at equal training loss"}
    for axes, (clock, title) in zip(panels, titles.items(), strict=True):
        distances = summary["distance"][clock]
        for offset, process in enumerate(distances):
            figures = [distances[process][name] for name in [*names, "mean"]]
            values = np.array([each["value"] for each in figures], dtype=float)
            halves = np.array([each["upper"] for each in figures], dtype=float) - values
            rows = np.arange(len(figures)) + 0.16 * (offset - (len(distances) - 1) / 2)
            marker = {"marker": _MARKERS.get(process, "v"), "markersize": 4, "linestyle": "none"}
            color = _style(process)["color"]
            axes.errorbar(values, rows, xerr=halves, color=color, label=label(process), capsize=2, **marker)
        axes.axhline(len(names) - 0.5, color="0.6", linewidth=0.6)
        axes.set(title=title, xlabel="distance from SGD (spreads)", xscale="log")
        axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        axes.minorticks_off()
    panels[0].set_yticks(range(len(names) + 1), [*[SYMBOLS[name] for name in names], "mean"])
    panels[0].invert_yaxis()
    shared_legend(figure, panels[0], 2)
    figure.subplots_adjust(left=0.12, right=0.98, top=0.8, bottom=0.21, wspace=0.08)
    write_caption(
        figure,
        "Average over the run of |difference from SGD| in units of its replica-to-replica spread; bars: 95 % t "
        f"intervals\nover {summary['replicas']} replicas. Grey squares: SGD with other noise, the distance of what "
        "is not different.",
    )
    return figure


@mpl.rc_context(STYLE)
def spectrum_figure(comparison: Comparison) -> Figure:
    """Draw the noise spectra at a few epochs, as they are and normalised.

    Parameters
    ----------
    comparison : Comparison
        Of `langevin_nn.compare`.

    Returns
    -------
    matplotlib.figure.Figure
        One column an epoch.
    """
    root, spectrum = comparison.trajectories.to_dataset(), comparison.trajectories["spectrum"].to_dataset()
    figure = Figure(figsize=(7.0, 3.1))
    panels = np.atleast_1d(figure.subplots(1, spectrum.sizes["spectrum_step"], sharey=True, sharex=True))
    for column, axes in enumerate(panels):
        record = spectrum.isel(spectrum_step=column)
        for process in _processes(root, but=[comparison.summary["null"]]):
            _band(axes, record["mode"], record["noise_eigenvalue"].sel(process=process), process, logarithmic=True)
        dimensions = record["effective_dimension"].sel(process=comparison.summary["reference"])
        axes.set(xscale="log", yscale="log", xlabel="mode $l$")
        plain_powers(axes, "x", "y")
        axes.set_title(f"epoch {float(record['epoch']):.3g}\nSGD: $D_s$ = {float(dimensions.mean()):.0f}")
    panels[0].set_ylabel("eigenvalue $e_l$ of $C$\n(nat² / weight²)")
    panels[0].set_ylim(float(spectrum["noise_eigenvalue"].max()) * 1e-5, None)
    shared_legend(figure, panels[0], 2)
    figure.subplots_adjust(left=0.115, right=0.98, top=0.7, bottom=0.26, wspace=0.08)
    write_caption(
        figure,
        "Spectra of the minibatch noise covariance at each process's weights; geometric means over replicas, 95 % t "
        "intervals.\nD_s: modes that hold 90 % of the noise strength.",
    )
    return figure


FIGURES: dict[str, Callable[[Comparison], Figure]] = {
    "verdict": verdict_figure,
    "training": training_figure,
    "order_parameters": order_parameter_figure,
    "distances": distance_figure,
    "spectra": spectrum_figure,
}


def save_figures(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """Draw all figures of a comparison.

    Parameters
    ----------
    comparison : Comparison
        Of `langevin_nn.compare`.
    folder : path
        Where the PNG files go.

    Returns
    -------
    list of Path
        The files.
    """
    return write_figures({name: draw(comparison) for name, draw in FIGURES.items()}, Path(folder))
