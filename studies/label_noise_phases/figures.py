"""Learning with label noise: errors of the cohorts, order parameters of the cohorts, noise spectra by phase."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langevin_nn.analyzers import mean_with_interval, phase_means
from langevin_nn.figures.base import STYLE, UNITS, draw_band, plain_powers, shade_phases, write_caption

__all__ = ["cohort_order_parameter_figure", "memorisation_figure", "phase_spectrum_figure"]

# Line styles tell curves apart where colours do not.
_ALL: dict[str, Any] = {"color": "#000000", "linestyle": "-"}
_CORRECT: dict[str, Any] = {"color": "#0072B2", "linestyle": "--"}
_WRONG: dict[str, Any] = {"color": "#D55E00", "linestyle": "-."}
_COHORTS = {"all": _ALL, "correct": _CORRECT, "mislabeled": _WRONG}
_PHASE_LINES: dict[str, dict[str, Any]] = {
    "I": {"color": "#000000", "linestyle": "-"},
    "II": {"color": "#0072B2", "linestyle": "--"},
    "III": {"color": "#D55E00", "linestyle": "-."},
    "IV": {"color": "#009E73", "linestyle": ":"},
}
_EPOCHS = "epoch"
# Curves fill some panels: what they hide stays visible behind a veil.
_LEGEND: dict[str, Any] = {"loc": "best", "framealpha": 0.75, "edgecolor": "none"}


def memorisation_figure(trajectory: xr.Dataset, phases: xr.Dataset, setting: str = "") -> Figure:
    """Draw errors and losses of both cohorts, with the phases that the training errors tell.

    Parameters
    ----------
    trajectory : xarray.Dataset
        ``train_error``, ``train_loss`` by cohort and ``test_error``, with the coordinate ``mislabeled_fraction`` (replica).
    phases : xarray.Dataset
        Of `langevin_nn.analyzers.detect_phases`.
    setting : str, optional
        What was trained, for the caption.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels, against the epoch on a logarithmic axis, from the first record after the start.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.6))
        left, right = figure.subplots(1, 2)
        later = trajectory.isel(step=slice(1, None))
        share = later.mislabeled_fraction
        errors = later.train_error
        draw_band(left, later.epoch, errors.sel(cohort="all"), label=r"training $\varepsilon_{tr}$", **_ALL)
        # Counted over all samples, as in the paper, so that the two add up.
        draw_band(
            left, later.epoch, (1 - share) * errors.sel(cohort="correct"), label=r"correct $\varepsilon_c$", **_CORRECT
        )
        draw_band(
            left, later.epoch, share * errors.sel(cohort="mislabeled"), label=r"mislabeled $\varepsilon_w$", **_WRONG
        )
        draw_band(
            left,
            later.epoch,
            later.test_error,
            label=r"test $\varepsilon_{te}$",
            color="#009E73",
            linestyle=":",
            linewidth=1.8,
        )
        left.set(ylabel="error (share of samples)", ylim=(0, 1))
        for cohort, symbol in (("all", "$L$"), ("correct", "$L_c$"), ("mislabeled", "$L_w$")):
            draw_band(right, later.epoch, later.train_loss.sel(cohort=cohort), label=symbol, **_COHORTS[cohort])
        right.set(ylabel="training loss (nat)", ylim=(0, None))
        for axes in (left, right):
            _against_epochs(axes, phases, later.epoch)
            axes.legend(**_LEGEND)
        figure.subplots_adjust(left=0.075, right=0.985, top=0.93, bottom=0.33, wspace=0.22)
        write_caption(
            figure,
            "Left: test error, training error and its parts by cohort, counted over all samples, so that they add up to it.\n"
            "Right: training losses of the cohorts, each over its own samples. Shaded: phases told by training errors, with\n"
            "the 95 % intervals of their boundaries as strips. Bands: 95 % intervals over "
            f"{trajectory.sizes['replica']} replicas.\n{_wrapped(setting)}",
        )
    return figure


def _against_epochs(axes: Axes, phases: xr.Dataset, epochs: xr.DataArray) -> None:
    first, last = float(epochs.min()), float(epochs.max())
    axes.set(xscale="log", xlabel=_EPOCHS, xlim=(first, last))
    plain_powers(axes, "x")
    shade_phases(axes, phases, last)


def cohort_order_parameter_figure(order: xr.Dataset, phases: xr.Dataset, setting: str = "") -> Figure:
    """Draw activities, directed activities, their ratio, and how gradients align, between cohorts and within them.

    Parameters
    ----------
    order : xarray.Dataset
        Order parameters by cohort; `gradient_alignment_shuffled`, of random cohorts of the same sizes, where there is one.
    phases : xarray.Dataset
        Of `langevin_nn.analyzers.detect_phases`.
    setting : str, optional
        What was measured on what, for the caption.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels against the epoch.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 5.9))
        panels = figure.subplots(2, 2)
        later = order.isel(step=slice(1, None))
        unit = UNITS["loss2 weight-2"]
        for axes, name, symbol in ((panels[0, 0], "activity", "A"), (panels[0, 1], "directed_activity", "A")):
            for cohort, subscript in zip(_COHORTS, _subscripts(name), strict=True):
                label = f"${symbol}{subscript}$"
                draw_band(
                    axes, later.epoch, later[name].sel(cohort=cohort), logarithmic=True, label=label, **_COHORTS[cohort]
                )
            axes.set(yscale="log", ylabel=f"{name.replace('_', ' ')} ({unit})")
            plain_powers(axes, "y")
        _draw_ratio(panels[0, 1], later)
        _draw_cosines(panels[1, 0], later)
        for cohort, symbol in zip(_COHORTS, ("$R$", "$R_c$", "$R_w$"), strict=True):
            draw_band(panels[1, 1], later.epoch, later.alignment.sel(cohort=cohort), label=symbol, **_COHORTS[cohort])
        panels[1, 1].axhline(0, color="#555555", linestyle=":", linewidth=1)
        panels[1, 1].set(ylabel="alignment (mean cosine)")
        for letter, axes in zip("ABCD", panels.flat, strict=True):
            _against_epochs(axes, phases, later.epoch)
            axes.legend(handlelength=2.6, **_LEGEND)
            axes.text(-0.16, 1.04, letter, transform=axes.transAxes, fontweight="bold")
        figure.subplots_adjust(left=0.09, right=0.985, top=0.965, bottom=0.2, wspace=0.26, hspace=0.3)
        write_caption(
            figure,
            "A: activities of all samples and of each cohort. B: directed activities; inset: $A_{0,c}/A_{0,w}$. C: cosines\n"
            "of the mean gradients of the cohorts and of the whole; grey: of random cohorts of the same sizes. D: alignment\n"
            "of minibatch gradients of all samples and within each cohort. Shaded: phases I–IV with the intervals of their\n"
            f"boundaries; bands: 95 % intervals over {order.sizes['replica']} replicas.\n{_wrapped(setting)}",
        )
    return figure


def _wrapped(setting: str) -> str:
    return "\n".join(textwrap.wrap(f"{setting}." if setting else "", 125))


def _subscripts(name: str) -> tuple[str, str, str]:
    return ("", "_c", "_w") if name == "activity" else ("_0", "_{0,c}", "_{0,w}")


def _draw_ratio(axes: Axes, order: xr.Dataset) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(low / 30, high)  # room below
    inset = axes.inset_axes((0.44, 0.09, 0.52, 0.26))
    directed = order.directed_activity
    ratio = directed.sel(cohort="correct", drop=True) / directed.sel(cohort="mislabeled", drop=True)
    draw_band(inset, order.epoch, ratio, logarithmic=True, color="#000000")
    inset.axhline(1, color="#555555", linestyle=":", linewidth=1)
    inset.set(xscale="log", yscale="log", xlim=(float(order.epoch[0]), float(order.epoch[-1])))
    inset.set_title(r"$A_{0,c}/A_{0,w}$", fontsize=7, pad=2)
    inset.tick_params(labelsize=6)
    plain_powers(inset, "x", "y")


def _draw_cosines(axes: Axes, order: xr.Dataset) -> None:
    pairs = {
        "correct_mislabeled": ("$R_{cw}$", _ALL),
        "all_correct": ("$R_{ac}$", _CORRECT),
        "all_mislabeled": ("$R_{aw}$", _WRONG),
    }
    for pair, (symbol, style) in pairs.items():
        draw_band(axes, order.epoch, order.gradient_alignment.sel(cohort_pair=pair), label=symbol, **style)
    if "gradient_alignment_shuffled" in order:
        random = order.gradient_alignment_shuffled.sel(cohort_pair="correct_mislabeled")
        draw_band(axes, order.epoch, random, label="$R_{cw}$, shuffled", color="#888888", linestyle=(0, (1, 1)))
    axes.axhline(0, color="#555555", linestyle=":", linewidth=1)
    axes.set(ylim=(-1.05, 1.05), ylabel="cosine of mean gradients")


def phase_spectrum_figure(
    spectra: Mapping[str, xr.Dataset],
    phases: xr.Dataset,
    control: xr.Dataset,
    paper: Mapping[str, float],
    setting: str = "",
) -> Figure:
    """Draw noise spectra by phase of learning, and how many directions hold nine tenths of the noise.

    Parameters
    ----------
    spectra : dict of str to xarray.Dataset
        ``noise_eigenvalue``, ``noise_strength`` and ``effective_dimension`` by what was measured; the first is drawn.
    phases : xarray.Dataset
        Of `langevin_nn.analyzers.detect_phases`.
    control : xarray.Dataset
        The same of the first without label noise.
    paper : dict of str to float
        Effective dimensions to compare with, by phase.
    setting : str, optional
        What was trained, for the caption.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels: the spectra, their normalised cumulative sums, the effective dimension by phase.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.9))
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
        measured, first = next(iter(spectra.items()))
        _draw_spectra(left, middle, first, phases, control)
        for (name, each), (marker, colour, shift) in zip(
            spectra.items(), (("o", "#0072B2", -0.12), ("s", "#D55E00", 0.12)), strict=False
        ):
            _draw_dimensions(right, each, phases, name, marker, colour, shift)
        if paper:
            right.plot(range(len(paper)), list(paper.values()), "x", color="#000000", label="Feng and Tu", markersize=5)
        right.set(yscale="log", xlabel="phase", ylabel="effective dimension $D_s$", xlim=(-0.5, 3.5))
        right.set_xticks(range(4), _PHASE_LINES)
        right.yaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
        right.yaxis.set_minor_formatter(mpl.ticker.LogFormatter(minor_thresholds=(1.0, 0.5)))
        right.tick_params(axis="y", which="minor", labelsize=6)
        right.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.04, 1.0))
        left.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.05, 1.0), ncols=3)
        figure.subplots_adjust(left=0.085, right=0.985, top=0.83, bottom=0.3, wspace=0.36)
        write_caption(
            figure,
            f"Left: eigenvalues of the minibatch noise of the {measured}, at a record in\n"
            f"the middle of each phase, mean over {first.sizes['replica']} replicas; grey: trained on true labels. Middle: "
            "their\ncumulative sums, as shares of $D$. Right: modes that hold 90 % of it; 95 % intervals over replicas.\n"
            f"{_wrapped(setting)}",
        )
    return figure


def _draw_spectra(axes: Axes, cumulative: Axes, spectra: xr.Dataset, phases: xr.Dataset, control: xr.Dataset) -> None:
    modes = np.arange(1, spectra.sizes["mode"] + 1)
    own = phases.isel(replica=slice(spectra.sizes["replica"]))
    trace = spectra.noise_strength.sel(cohort="all")
    values = phase_means(spectra.noise_eigenvalue, own).mean("replica")
    shares = phase_means((spectra.noise_eigenvalue / trace).cumsum("mode"), own).mean("replica")
    for name, style in _PHASE_LINES.items():
        if not bool(values.sel(phase=name).notnull().any()):
            continue  # not reached
        axes.plot(modes, values.sel(phase=name), label=f"phase {name}", **style)
        cumulative.plot(modes, shares.sel(phase=name), **style)
    plain = control.noise_eigenvalue.mean("replica")
    of_trace = (control.noise_eigenvalue / control.noise_strength.sel(cohort="all")).cumsum("mode").mean("replica")
    for k in range(control.sizes["step"]):
        thin: dict[str, Any] = {"color": "#888888", "linewidth": 0.8}
        axes.plot(modes, plain.isel(step=k), label="without label noise" if k == 0 else None, **thin)
        cumulative.plot(modes, of_trace.isel(step=k), **thin)
    cumulative.axhline(0.9, color="#555555", linestyle=":", linewidth=0.8)
    cumulative.set(
        xscale="log", ylim=(0, 1.02), xlim=(1, len(modes)), xlabel="mode $l$", ylabel="share of $D$ in $l$ modes"
    )
    plain_powers(cumulative, "x")
    high = float(values.max())
    axes.set(xscale="log", yscale="log", xlim=(1, len(modes)), ylim=(high * 1e-7, high * 2))
    axes.set(xlabel="mode $l$", ylabel=f"eigenvalue $e_l$ of $C$ ({UNITS['loss2 weight-2']})")
    plain_powers(axes, "x", "y")


def _draw_dimensions(
    axes: Axes, spectra: xr.Dataset, phases: xr.Dataset, name: str, marker: str, colour: str, shift: float
) -> None:
    own = phases.isel(replica=slice(spectra.sizes["replica"]))
    moments = mean_with_interval(phase_means(spectra.effective_dimension, own))
    centre = moments.mean_value.values
    error = np.stack([centre - moments.lower.values, moments.upper.values - centre])
    style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 4}
    axes.errorbar(np.arange(len(centre)) + shift, centre, np.nan_to_num(error), label=name, capsize=2, **style)
