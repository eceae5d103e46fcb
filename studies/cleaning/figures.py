"""Cleaning: the losses of both cohorts over training, the mixture fitted to them, and what removing samples recovers."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import scipy
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from langevin_nn.analyzers import mean_with_interval
from langevin_nn.figures.base import STYLE, draw_band, plain_powers, shade_phases, write_caption

__all__ = ["cleaning_figure", "removal_figure"]

_CORRECT: Any = {"color": "#D55E00", "linestyle": "-"}
_WRONG: Any = {"color": "#0072B2", "linestyle": "--"}
_RULES: dict[str, tuple[str, Any]] = {
    "find_mislabeled": ("find_mislabeled", {"color": "#000000", "marker": "o", "linestyle": "-"}),
    "equal_density": ("largest ΔL, equal density", {"color": "#D55E00", "marker": "s", "linestyle": "--"}),
    "midpoint": ("largest ΔL, midpoint", {"color": "#E69F00", "marker": "^", "linestyle": "-."}),
    "stopped_literal": ("stopped at largest ΔL", {"color": "#CC79A7", "marker": "x", "linestyle": ":"}),
    "cleanlab": ("cleanlab", {"color": "#0072B2", "marker": "D", "linestyle": (0, (5, 1, 1, 1, 1, 1))}),
    "random": ("as many at random", {"color": "#888888", "marker": "v", "linestyle": ":"}),
}
_MEASURES = {
    "precision": "precision",
    "recall": "recall",
    "area_under_curve": "area under the curve",
    "removed_share": "share of samples removed",
}


def cleaning_figure(
    losses: xr.Dataset, phases: xr.Dataset, mixture: xr.Dataset, accuracy: xr.DataArray, results: xr.Dataset
) -> Figure:
    """Draw figure 6 of Feng & Tu (2021, doi 10.1088/2632-2153/abf5b9) from runs.

    Parameters
    ----------
    losses : Dataset
        ``sample_loss`` (replica, step, sample) and ``mislabeled`` (replica, sample) at one label noise, with the
        coordinates ``label_noise`` and ``epoch``, and ``test_error`` (replica, step) of that run.
    phases : Dataset
        Of `langevin_nn.analyzers.detect_phases`.
    mixture : Dataset
        Of `langevin_nn.analyzers.LossMixture`, with the true means.
    accuracy : DataArray, shape (replica, rule, step)
        Test accuracies of training on what each rule leaves, at that label noise.
    results : Dataset
        ``accuracy_uncleaned``, ``accuracy_pure``, ``accuracy_cleaned`` and ``cleaning_quality`` by ``label_noise``,
        ``replica`` and ``rule``; ``cleaning_epoch`` and ``is_refused`` by ``cleaning_rule``.

    Returns
    -------
    matplotlib.figure.Figure
        Panels A to E.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 7.6))
        rows = figure.add_gridspec(
            3, 1, left=0.075, right=0.985, top=0.955, bottom=0.2, hspace=0.62, height_ratios=(0.75, 1, 1)
        )
        first = rows[0].subgridspec(1, 5, wspace=0.35)
        middle = rows[1].subgridspec(1, 3, wspace=0.32)
        last = rows[2].subgridspec(1, 2, wspace=0.2)
        records = _records(phases)
        _distributions([figure.add_subplot(first[k]) for k in range(5)], losses, records)
        _fit(figure.add_subplot(middle[0]), losses, mixture, records.get("II"))
        clock = np.asarray(losses.epoch.values, dtype=np.float64)
        _means(figure.add_subplot(middle[1]), mixture, results.sel(label_noise=losses.label_noise), phases, clock)
        _curves(figure.add_subplot(middle[2]), accuracy, 1 - losses.test_error, phases, clock)
        _accuracies(figure.add_subplot(last[0]), results)
        _against_noise(figure.add_subplot(last[1]), results.cleaning_quality, "rule")
        quality = figure.axes[-1]
        quality.axhline(0.5, color="#999999", linestyle=":", zorder=-1)
        quality.set(ylabel="cleaning quality Q", ylim=(-0.6, 1.15), title="E  quality against label noise")
        handles, labels = quality.get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 0.095), ncols=3, frameon=False)
        replicas = losses.sizes["replica"]
        write_caption(
            figure,
            "A: densities of the losses of correct (solid) and mislabeled (dashed) samples, all replicas together. B: one "
            "replica's losses\nin phase II with two Gaussians; thresholds dashed (equal density) and dotted (midpoint). C: "
            "mean losses of the cohorts (lines),\nfitted means (symbols), ΔL (dash-dotted); marks below: t_c of each "
            "replica. D: test accuracy. E: test accuracy and\nQ = (a_c − a_n)/(a_p − a_n), symbols slightly shifted; dotted: "
            "Q = ½. "
            f"Bands and bars: 95 % t intervals over {replicas} replicas;\nbars that leave the panel are cut.",
        )
    return figure


def _records(phases: xr.Dataset) -> dict[str, int]:
    """Return a record in the middle of each phase, where most replicas are in it."""
    names = phases["phase"].attrs["flag_meanings"].split()
    found = {}
    for number, name in enumerate(names, start=1):
        share = (phases["phase"] == number).mean("replica").values
        if share.max() > 0:
            most = np.flatnonzero(share == share.max())
            found[name] = int(most[len(most) // 2])
    return found


def _distributions(panels: list[Axes], losses: xr.Dataset, records: dict[str, int]) -> None:
    wrong = losses.mislabeled.transpose("replica", "sample").values.astype(bool)
    top = float(np.quantile(losses.sample_loss.isel(step=records.get("II", 0)).values, 0.999))
    edges = np.linspace(0, top, 41)
    for axes, name in zip(panels, ("start", "I", "II", "III", "IV"), strict=True):
        axes.set(xlabel="loss (nat)", xlim=(0, top))
        record = 0 if name == "start" else records.get(name)
        if record is None:
            axes.set(title=name, yticks=[])
            axes.text(0.5, 0.5, "not reached", transform=axes.transAxes, ha="center", va="center")
            continue
        values = losses.sample_loss.isel(step=record).transpose("replica", "sample").values
        for flags, style in ((~wrong, _CORRECT), (wrong, _WRONG)):
            density = np.histogram(values[flags], edges)[0] / (max(flags.sum(), 1) * np.diff(edges))
            axes.stairs(density, edges, linewidth=1.1, fill=False, **style)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_yticks([0, 0.5, 1, 10], ["0", "0.5", "1", "10"])
        axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.set_ylim(0, 30)
        epoch = float(losses.epoch[record])
        axes.set_title("start" if name == "start" else f"{name}, epoch {epoch:.0f}")
    panels[0].set_ylabel("density (1/nat)")
    panels[0].set_title("A  start", loc="left")
    panels[0].set_title("")


def _fit(axes: Axes, losses: xr.Dataset, mixture: xr.Dataset, record: int | None) -> None:
    axes.set(title="B  phase II", xlabel="loss (nat)", ylabel="density (1/nat)")
    if record is None:
        axes.text(0.5, 0.5, "phase II not reached", transform=axes.transAxes, ha="center", va="center")
        return
    values = losses.sample_loss.isel(replica=0, step=record).values
    fit = mixture.isel(replica=0, step=record)
    edges = np.linspace(0, float(np.quantile(values, 0.999)), 51)
    axes.hist(values, edges.tolist(), density=True, color="#cccccc")
    at = np.linspace(edges[0], edges[-1], 400)
    parts = fit.component_weight.values[:, None] * scipy.stats.norm.pdf(
        at, fit.component_mean.values[:, None], fit.component_standard_deviation.values[:, None]
    )
    axes.plot(at, parts.sum(0), color="#000000")
    for part in parts:
        axes.plot(at, part, color="#000000", linestyle=":", linewidth=0.8)
    for rule, dashes in (("equal_density", "--"), ("midpoint", ":")):
        threshold = float(fit.loss_threshold.sel(threshold_rule=rule))
        if np.isfinite(threshold):
            axes.axvline(threshold, color=_RULES[rule][1]["color"], linestyle=dashes)
    counts, _ = np.histogram(values, edges, density=True)
    axes.set_ylim(0, 1.1 * max(parts.sum(0).max(), float(np.sort(counts)[-2])))


def _means(
    axes: Axes, mixture: xr.Dataset, decided: xr.Dataset, phases: xr.Dataset, clock: NDArray[np.float64]
) -> None:
    axes.set(xscale="log", xlim=(max(clock[1], 1e-9), clock[-1]))
    marked = np.unique(np.searchsorted(clock, np.geomspace(clock[1], clock[-1], 14)).clip(1, len(clock) - 1))
    for k, (cohort, style) in enumerate((("correct", _CORRECT), ("mislabeled", _WRONG))):
        name = "$L_c$" if cohort == "correct" else "$L_w$"
        own = mixture.cohort_mean.sel(cohort=cohort, drop=True).transpose("step", "replica")
        draw_band(axes, clock, own, label=name, **style)
        fitted = mean_with_interval(mixture.component_mean.isel(component=k, drop=True)).mean_value.values
        marker = "o" if k == 0 else "s"
        axes.plot(clock[marked], fitted[marked], marker, color=style["color"], markersize=3.5, markerfacecolor="none")
    draw_band(axes, clock, mixture.separation.transpose("step", "replica"), color="#666666", linestyle="-.", label="ΔL")
    # Intervals of very few replicas may leave the panel.
    top = 1.3 * float(mixture.cohort_mean.mean("replica").max())
    axes.set_ylim(-0.16 * top, top)
    for height, rule in ((-0.05, "find_mislabeled"), (-0.11, "equal_density")):
        of_rule = decided.sel(cleaning_rule=rule)
        times = of_rule.cleaning_epoch.values[of_rule.is_refused.values == 0].clip(clock[1])
        name, style = _RULES[rule]
        axes.plot(
            times, np.full(len(times), height * top), style["marker"], color=style["color"], markersize=3,
            label=f"$t_c$ {'ours' if rule == 'find_mislabeled' else 'paper'}",
        )  # fmt: skip
    axes.set(xlabel="epoch", ylabel="loss (nat)")
    axes.set_title("C", loc="left", pad=12)
    plain_powers(axes, "x")
    shade_phases(axes, phases, clock[-1])
    axes.legend(frameon=False, loc="upper left", fontsize=6, handlelength=1.6, ncols=2, columnspacing=0.7)


def _curves(
    axes: Axes, accuracy: xr.DataArray, uncleaned: xr.DataArray, phases: xr.Dataset, clock: NDArray[np.float64]
) -> None:
    axes.set(xscale="log", xlim=(max(clock[1], 1e-9), clock[-1]))
    for name, values, colour, dashes in (
        ("$a_p$ correct labels", accuracy.sel(rule="pure", drop=True), "#009E73", "-"),
        ("$a_n$ uncleaned", uncleaned, "#888888", ":"),
        ("$a_c$ paper", accuracy.sel(rule="equal_density", drop=True), "#D55E00", "--"),
        ("$a_c$ ours", accuracy.sel(rule="find_mislabeled", drop=True), "#000000", "-."),
    ):
        draw_band(axes, clock, values.transpose("step", "replica"), label=name, color=colour, linestyle=dashes)
    axes.set(xlabel="epoch", ylabel="test accuracy", ylim=(0, 1))
    axes.set_title("D", loc="left", pad=12)
    plain_powers(axes, "x")
    shade_phases(axes, phases, clock[-1])
    axes.legend(frameon=False, loc="lower right", fontsize=6)


def _accuracies(axes: Axes, results: xr.Dataset) -> None:
    noise = results.label_noise.values
    for name, text, colour, dashes in (
        ("accuracy_pure", "$a_p$ correct labels alone", "#009E73", "-"),
        ("accuracy_uncleaned", "$a_n$ uncleaned", "#888888", ":"),
    ):
        values = results[name].transpose("label_noise", "replica")
        draw_band(axes, noise, values, label=text, color=colour, linestyle=dashes)
    axes.legend(frameon=False, loc="lower left", fontsize=6.5)
    shown = results.accuracy_cleaned.sel(rule=[name for name in results.rule.values if name != "random"])
    _against_noise(axes, shown, "rule")
    axes.set(ylabel="test accuracy", ylim=(0, 1), title="E  accuracy against label noise")


def _against_noise(axes: Axes, values: xr.DataArray, dimension: str) -> None:
    """Draw means over replicas with intervals, a line for each rule."""
    noise = values.label_noise.values
    rules = [name for name in _RULES if name in values[dimension].values]
    step = min(float(np.diff(noise).min()), 0.15) if len(noise) > 1 else 0.1
    for k, rule in enumerate(rules):
        name, style = _RULES[rule]
        moments = mean_with_interval(values.sel({dimension: rule}, drop=True).transpose("label_noise", "replica"))
        known = np.isfinite(moments.mean_value.values)
        mean = moments.mean_value.values[known]
        half = np.nan_to_num((moments.upper - moments.mean_value).values[known])
        shift = (k - (len(rules) - 1) / 2) * 0.07 * step
        axes.errorbar(
            noise[known] + shift, mean, half, markersize=3.2, capsize=1.5, elinewidth=0.8, label=name, **style
        )
    axes.set(xlabel="label noise ρ", xticks=noise, xlim=(noise.min() - 0.05, noise.max() + 0.05))
    axes.set_xticklabels([f"{each:g}" for each in noise])


def removal_figure(results: xr.Dataset) -> Figure:
    """Draw how well what each rule removes matches what is mislabeled.

    Parameters
    ----------
    results : Dataset
        ``precision``, ``recall``, ``area_under_curve`` and ``removed_share`` by ``label_noise``, ``replica`` and
        ``cleaning_rule``.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 5.2))
        panels = figure.subplots(2, 2).ravel()
        for axes, (measure, name) in zip(panels, _MEASURES.items(), strict=True):
            values = results[measure]
            drawn = values.sel(cleaning_rule=[rule for rule in values.cleaning_rule.values if _is_drawn(rule, measure)])
            _against_noise(axes, drawn, "cleaning_rule")
            axes.set(ylabel=name, ylim=(-0.03, 1.03) if measure != "area_under_curve" else (0.45, 1.02))
        panels[3].plot(
            results.label_noise, 0.9 * results.label_noise, color="#009E73", linewidth=3, alpha=0.4, zorder=-1,
            label="mislabeled (expected)",
        )  # fmt: skip
        handles, labels = panels[3].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=4, frameon=False)
        figure.subplots_adjust(left=0.08, right=0.985, top=0.905, bottom=0.21, wspace=0.22, hspace=0.35)
        write_caption(
            figure,
            "Removed samples held to the truth, which no rule sees. Precision: share of mislabeled samples among those "
            "removed,\nmissing where none is. Recall: share of mislabeled samples that are removed, 0 where a rule refuses. "
            "Area under the curve:\nprobability that a mislabeled sample has the higher score of a rule; both thresholds "
            "share one score.\nSymbols are slightly shifted; "
            f"bars: 95 % t intervals over {results.sizes['replica']} replicas.",
        )
    return figure


def _is_drawn(rule: str, measure: str) -> bool:
    """Return whether a rule has such a measure of its own."""
    return not (measure == "area_under_curve" and rule in ("random", "midpoint"))
