"""Learning without label noise: two phases, their noise spectra, and averages over time beside those over minibatches."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from langevin_nn.analyzers import logarithm, mean_with_interval
from langevin_nn.figures.base import STYLE, draw_band, plain_powers, shade_phases, shared_legend, write_caption

__all__ = [
    "effective_dimension_figure",
    "rates_figure",
    "time_average_figure",
    "two_phases_figure",
    "two_spectra_figure",
]

_CHOICES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
)
_PHASES: dict[str, dict[str, Any]] = {
    "fast_learning": {"color": "#000000", "linestyle": "-", "marker": "o"},
    "exploration": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
}


def two_phases_figure(runs: dict[str, xr.Dataset], phases: xr.Dataset) -> Figure:
    """Draw losses and order parameters against time, over several choices of parameters.

    Parameters
    ----------
    runs : dict of str to Dataset
        Scalars of trajectories by the parameters that they measure; losses are drawn of the first.
    phases : Dataset
        Of `detect_phases`, of the first.

    Returns
    -------
    matplotlib.figure.Figure
        Training loss and error, A, R with A₀/A, σ_λ².
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 7.6))
        panels = figure.subplots(5, 1, sharex=True)
        first = next(iter(runs.values()))
        names = ", ".join(f"{run.sizes['replica']} of {name}" for name, run in runs.items())
        positive = first.epoch.values[first.epoch.values > 0]
        for axes in panels:
            axes.set(xscale="log", xlim=(positive[0], positive[-1]))
        loss, error, activity, alignment, variance = panels
        whole = _recorded(first, "train_loss")
        draw_band(loss, whole.epoch, whole.train_loss, logarithmic=True, color="#000000")
        draw_band(error, whole.epoch, whole.train_error, color="#000000")
        for (name, run), style in zip(runs.items(), _CHOICES, strict=False):
            own = _recorded(run, "activity")
            line = {
                "color": style["color"],
                "linestyle": style["linestyle"],
                "marker": style["marker"],
                "markersize": 2.2,
            }
            draw_band(activity, own.epoch, own.activity, logarithmic=True, label=name, **line)
            draw_band(variance, own.epoch, own.projection_variance, logarithmic=True, **line)
            draw_band(alignment, own.epoch, own.alignment, **line)
            ratio = own.alignment_approximation.mean("replica")
            alignment.plot(own.epoch, ratio, color=style["color"], linestyle=":", label=r"$A_0/A$, " + name)
        alignment.axhline(0, color="#999999", linestyle=":", linewidth=0.8)
        variance.axhline(1, color="#999999", linestyle=":", linewidth=0.8)
        for axes, text in zip(
            panels,
            (r"$L$ (nat)", r"$\varepsilon_{tr}$", r"$A$ (nat² / weight²)", r"$R$", r"$\sigma_\lambda^2$"),
            strict=True,
        ):
            axes.set_ylabel(text)
        for axes in (loss, activity, variance):
            axes.set_yscale("log")
            plain_powers(axes, "y")
        for axes in panels:
            _frame_the_lines(axes)
            shade_phases(axes, phases, float(positive[-1]))
            for text in axes.texts if axes is not loss else ():
                text.set_visible(False)
        plain_powers(panels[-1], "x")
        panels[-1].set_xlabel("epoch")
        handles, labels = zip(
            *(pair for axes in (activity, alignment) for pair in zip(*axes.get_legend_handles_labels(), strict=True)),
            strict=True,
        )
        figure.legend(handles, labels, loc="upper center", ncols=4, frameon=False)
        figure.subplots_adjust(left=0.1, right=0.985, top=0.95, bottom=0.13, hspace=0.12)
        write_caption(
            figure,
            f"Two phases of learning without label noise: means over replicas ({names}), 95 % t intervals.\n"
            "Shades: fast learning and exploration; the strip is the interval of the mean epoch at which the training "
            "error falls\nto 1 %. A, σ_λ² and L are averaged on a logarithmic scale. Dotted: R = 0, σ_λ² = 1, and A₀/A.",
        )
    return figure


def _frame_the_lines(axes: Axes) -> None:
    """Set limits by the means, since intervals over two or three replicas are as wide as one likes."""
    values = np.concatenate(
        [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines if np.size(line.get_xdata()) > 2]
    )
    low, high = np.nanmin(values), np.nanmax(values)
    if axes.get_yscale() == "log":
        axes.set_ylim(low / 3, high * 3)
    else:
        axes.set_ylim(low - 0.15 * (high - low), high + 0.25 * (high - low))


def _recorded(run: xr.Dataset, name: str) -> xr.Dataset:
    """Return the records of all samples at which a quantity was measured, without the start, which has no logarithm."""
    own = run.sel(cohort="all")
    known = own[name].notnull().any("replica").values & (own.epoch.values > 0)
    return own.isel(step=np.flatnonzero(known))


def two_spectra_figure(spectra: xr.Dataset) -> Figure:
    """Draw the noise spectra of two phases, and in the inset how much of the noise the leading modes hold.

    Parameters
    ----------
    spectra : Dataset
        ``noise_eigenvalue`` (replica, phase, mode), all modes, and ``effective_dimension`` (replica, phase).

    Returns
    -------
    matplotlib.figure.Figure
        One panel with an inset.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.3))
        axes = figure.subplots()
        inset = axes.inset_axes((0.13, 0.14, 0.34, 0.3))
        mode = np.arange(1, spectra.sizes["mode"] + 1)
        for phase in [each for each in _PHASES if each in spectra.phase.values]:
            own, style = spectra.sel(phase=phase), _PHASES[phase]
            values = own.noise_eigenvalue.transpose("replica", "mode")
            # What is below is rounding.
            known = (values > 1e-14 * values.max()).all("replica")
            line = {"color": style["color"], "linestyle": style["linestyle"]}
            moments = mean_with_interval(own.effective_dimension)
            middle, half = float(moments.mean_value), float(moments.upper - moments.mean_value)
            label = f"{phase.replace('_', ' ')}: $D_s$ = {middle:.0f} ± {half:.0f}"
            draw_band(axes, mode, values.where(known), logarithmic=True, label=label, **line)
            draw_band(inset, mode, values.cumsum("mode") / values.sum("mode"), **line)
            inset.axvline(middle, color=style["color"], linestyle=":", linewidth=0.8)
        inset.axhline(0.9, color="#999999", linestyle=":", linewidth=0.8)
        inset.set(xscale="log", ylim=(0, 1.02), xlabel="mode $l$")
        inset.set_ylabel(r"$\sum_{i \leq l} e_i / D$", labelpad=1)
        plain_powers(inset, "x")
        top = float(spectra.noise_eigenvalue.values.max(initial=0)) or 1.0  # no phase may have been reached
        axes.set(xscale="log", yscale="log", xlabel="mode $l$", ylabel="eigenvalue $e_l$ of $C$ (nat² / weight²)")
        axes.set(xlim=(0.9, mode[-1]), ylim=(top * 1e-12, top * 3))
        plain_powers(axes, "x", "y")
        shared_legend(figure, axes, 2)
        figure.subplots_adjust(left=0.1, right=0.985, top=0.92, bottom=0.22)
        write_caption(
            figure,
            f"Rank-ordered eigenvalues of the minibatch noise covariance: means over {spectra.sizes['replica']} replicas, "
            "95 % t intervals,\non a logarithmic scale. Inset: share of the noise in the leading modes. D_s is the number of "
            "modes that hold 90 %\nof it (dotted).",
        )
    return figure


def effective_dimension_figure(widths: xr.Dataset, exponents: xr.Dataset) -> Figure:
    """Draw the effective dimension against the number of parameters.

    Parameters
    ----------
    widths : Dataset
        ``effective_dimension`` (choice, width, replica, phase) and ``n_parameters`` (choice, width).
    exponents : Dataset
        Of `fit_power_law`, by ``choice`` and ``phase``.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a choice of parameters.
    """
    choices = [str(each) for each in widths["choice"].values]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.6))
        for axes, choice in zip(figure.subplots(1, len(choices), squeeze=False)[0], choices, strict=True):
            own = widths.sel(choice=choice).dropna("width", subset=["n_parameters"])
            sizes = own.n_parameters.values
            for phase, style in _PHASES.items():
                moments = mean_with_interval(own.effective_dimension.sel(phase=phase))
                bars = np.stack([moments.mean_value - moments.lower, moments.upper - moments.mean_value])
                fit = exponents.sel(choice=choice, phase=phase)
                half = float(fit.exponent_upper - fit.exponent)
                slope = f": slope {float(fit.exponent):.2f} ± {half:.2f}" if np.isfinite(half) else ""
                label = phase.replace("_", " ") + slope
                marks = {"color": style["color"], "marker": style["marker"], "markersize": 3.5}
                axes.errorbar(sizes, moments.mean_value, bars, linestyle="none", capsize=2, label=label, **marks)
                line = float(fit.prefactor) * sizes ** float(fit.exponent)
                axes.plot(sizes, line, color=style["color"], linestyle=style["linestyle"], linewidth=0.8)
            axes.axhline(110, color="#999999", linestyle=":", linewidth=0.8)
            axes.plot(sizes, 0.9 * sizes, color="#999999", linestyle="-.", linewidth=0.8, label="isotropic noise")
            axes.set(xscale="log", yscale="log", xlabel="parameters $P$", title=choice)
            axes.set_ylim(min(5.0, 0.7 * float(own.effective_dimension.min())), 1500)
            plain_powers(axes, "x", "y")
            axes.legend(frameon=False, loc="upper left")
        figure.axes[0].set_ylabel("effective dimension $D_s$")
        figure.subplots_adjust(left=0.085, right=0.985, top=0.92, bottom=0.27, wspace=0.2)
        write_caption(
            figure,
            f"Modes that hold 90 % of the noise of networks of {widths.sizes['width']} widths, over "
            f"{widths.sizes['replica']} replicas with 95 % t intervals. Lines: power laws with the\n"
            "interval of their slope. Dotted: the paper's 110 (of 900). Isotropic noise would have D_s = 0.9 P.",
        )
    return figure


def rates_figure(grid: xr.Dataset) -> Figure:
    """Draw what the two phases are like at each learning rate and minibatch.

    Parameters
    ----------
    grid : Dataset
        By ``point``, with ``learning_rate`` and ``batch_size``: ``boundary_time`` (replica), and ``alignment``,
        ``projection_variance`` and ``activity`` (replica, phase).

    Returns
    -------
    matplotlib.figure.Figure
        When exploration begins; R, σ_λ² and A in both phases.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.4))
        panels = figure.subplots(1, 4)
        names = [
            f"{rate:g}, {size}" for rate, size in zip(grid.learning_rate.values, grid.batch_size.values, strict=True)
        ]
        at = np.arange(len(names))
        _bars(panels[0], at, grid.boundary_time, {"color": "#000000", "marker": "o"})
        panels[0].set_xlabel("begin of exploration\n(gradient-flow time)")
        for axes, (name, text) in zip(
            panels[1:],
            {
                "alignment": "$R$",
                "projection_variance": r"$\sigma_\lambda^2$",
                "activity": "$A$ (nat²/weight²)",
            }.items(),
            strict=True,
        ):
            for (phase, style), offset in zip(_PHASES.items(), (-0.12, 0.12), strict=True):
                marks = {"color": style["color"], "marker": style["marker"], "label": phase.replace("_", " ")}
                _bars(axes, at + offset, grid[name].sel(phase=phase), marks)
            axes.set_xlabel(text)
            axes.set_yticklabels([])
        panels[1].axvline(0, color="#999999", linestyle=":")
        panels[2].axvline(1, color="#999999", linestyle=":")
        for axes in panels[2:]:
            axes.set_xscale("log")
            plain_powers(axes, "x")
        panels[0].set_xlim(0, None)
        for axes in panels:
            axes.set_yticks(at, names if axes is panels[0] else [""] * len(names))
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.grid(axis="y", color="#e0e0e0", linewidth=0.5)
        panels[0].set_ylabel("learning rate α, minibatch B")
        shared_legend(figure, panels[1], 2)
        figure.subplots_adjust(left=0.12, right=0.985, top=0.91, bottom=0.31, wspace=0.12)
        write_caption(
            figure,
            f"Each row is a learning rate and a minibatch, {grid.sizes['replica']} replicas: means with 95 % t "
            "intervals, those of σ_λ²\nand A geometric. Left: when the training error falls to 1 %. Others: order parameters "
            "of the hidden weights in both phases.",
        )
    return figure


def _bars(axes: Axes, at: NDArray[Any], values: xr.DataArray, style: dict[str, Any]) -> None:
    moments = mean_with_interval(values)
    bars = np.clip(np.stack([moments.mean_value - moments.lower, moments.upper - moments.mean_value]), 0, None)
    axes.errorbar(moments.mean_value, at, xerr=bars, linestyle="none", capsize=2, markersize=3.5, **style)


def time_average_figure(run: xr.Dataset, averages: xr.Dataset, phases: xr.Dataset) -> Figure:
    """Draw averages over time beside those over minibatches at fixed weights.

    Parameters
    ----------
    run : Dataset
        Scalars of the trajectory.
    averages : Dataset
        Of `TimeAveragedOrderParameters`.
    phases : Dataset
        Of `detect_phases`.

    Returns
    -------
    matplotlib.figure.Figure
        A, R and σ_λ².
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 5.4))
        panels = figure.subplots(3, 1, sharex=True)
        own = _recorded(run, "activity")
        for axes, name, text in zip(
            panels,
            ("activity", "alignment", "projection_variance"),
            (r"$A$ (nat² / weight²)", r"$R$", r"$\sigma_\lambda^2$"),
            strict=True,
        ):
            logarithmic = name != "alignment"
            label = "over minibatches at fixed weights"
            draw_band(axes, own.epoch, own[name], logarithmic=logarithmic, color="#0072B2", label=label)
            values = averages[name].transpose("window", "replica")
            moments = mean_with_interval(logarithm(values) if logarithmic else values)
            middle, low, high = (
                np.exp(moments[each]) if logarithmic else moments[each] for each in ("mean_value", "lower", "upper")
            )
            marks = {"color": "#000000", "marker": "D", "markersize": 3.5, "linestyle": "none", "capsize": 2}
            axes.errorbar(
                averages.epoch, middle, np.stack([middle - low, high - middle]), label="over a window of time", **marks
            )
            axes.set(xscale="log", yscale="log" if logarithmic else "linear", ylabel=text)
            axes.set_xlim(own.epoch.values[0], float(own.epoch[-1]))
            _frame_the_lines(axes)
            if logarithmic:
                plain_powers(axes, "y")
            shade_phases(axes, phases, float(own.epoch[-1]))
            for text_of in axes.texts if axes is not panels[0] else ():
                text_of.set_visible(False)
        panels[1].axhline(0, color="#999999", linestyle=":", linewidth=0.8)
        panels[2].axhline(1, color="#999999", linestyle=":", linewidth=0.8)
        for at, count in zip(
            averages.epoch.values, averages.projection_variance.notnull().sum("replica").values, strict=True
        ):
            if count < averages.sizes["replica"]:
                panels[2].text(
                    at,
                    0.03,
                    f"{count}/{averages.sizes['replica']}",
                    transform=panels[2].get_xaxis_transform(),
                    ha="center",
                    fontsize=6,
                )
        plain_powers(panels[-1], "x")
        panels[-1].set_xlabel("epoch")
        shared_legend(figure, panels[0], 2)
        figure.subplots_adjust(left=0.1, right=0.985, top=0.94, bottom=0.17, hspace=0.12)
        write_caption(
            figure,
            f"Order parameters of the hidden weights, {averages.sizes['replica']} replicas, 95 % t intervals (A and "
            f"σ_λ² on a logarithmic\nscale). Diamonds: from the {int(averages.updates[0])} updates of one epoch, along which "
            "the weights move. Fractions: replicas whose directed activity\nover time is above zero, without which σ_λ² is "
            "undefined.",
        )
    return figure
