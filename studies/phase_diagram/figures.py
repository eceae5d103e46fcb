"""Sweeps of label noise, rates and sizes: phases, collapse, sharpness."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from langevin_nn.figures.base import STYLE, plain_powers, write_caption

__all__ = ["collapse_figure", "finite_size_figure", "phase_diagram_figure"]

_BOUNDARY_MARKS = {"II": ("o", "#0072B2"), "III": ("s", "#D55E00"), "IV": ("D", "#000000")}


def phase_diagram_figure(points: xr.Dataset, longest: float) -> Figure:
    """Draw when the phases of learning begin, and the test error's minimum and end, against label noise.

    Parameters
    ----------
    points : Dataset
        Of ``studies.phase_diagram``, by ``label_noise``.
    longest : float
        Gradient-flow time at which the runs end.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels: boundaries in gradient-flow time; test errors.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.7))
        left, right = figure.subplots(1, 2)
        noise = points.label_noise.values
        noisy = noise > 0
        edges = {phase: points.boundary.sel(phase=phase).values for phase in _BOUNDARY_MARKS}
        end = np.full(len(noise), longest)
        first = float(np.nanmin(points.boundary_lower.where(points.boundary_lower > 0))) / 2
        below = np.full(len(noise), first)
        for shade, name, low, high in zip(
            ("#f7f7f7", "#e3e3e3", "#cfcfcf", "#b8b8b8"),
            ("I", "II", "III", "IV"),
            (below, edges["II"], edges["III"], edges["IV"]),
            (edges["II"], edges["III"], edges["IV"], end),
            strict=True,
        ):
            top = np.where(np.isfinite(high), high, end)
            drawn = noisy & np.isfinite(low)
            left.fill_between(noise[drawn], low[drawn], top[drawn], color=shade, linewidth=0, zorder=-3)
            if drawn.sum() > 1:
                middle = int(np.flatnonzero(drawn)[drawn.sum() // 2])
                left.text(noise[middle], np.sqrt(low[middle] * top[middle]), name, ha="center", va="center", fontsize=9)
        for phase, (marker, colour) in _BOUNDARY_MARKS.items():
            point = points.sel(phase=phase)
            style = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 3.5}
            error = np.clip(
                np.stack([point.boundary - point.boundary_lower, point.boundary_upper - point.boundary]), 0, None
            )
            left.errorbar(noise, point.boundary, error, **style, capsize=2, label=f"{phase} begins")
        for name, text, dashes in (("time_of_minimum", "$t_m$", "--"), ("time_of_fit", "$t_f$", ":")):
            left.plot(noise, points[name], color="#666666", linestyle=dashes, label=text)
        censored = noise[(points.censored > 0).values]
        if len(censored):
            left.plot(
                censored,
                end[: len(censored)],
                "v",
                color="#666666",
                markersize=4,
                clip_on=False,
                label="not fitted in all",
            )
        left.set(yscale="log", xlabel="label noise", ylabel="gradient-flow time", ylim=(first, longest))
        plain_powers(left, "y")
        for name, text, marker, colour in (
            ("minimum_test_error", r"minimum $\varepsilon_m$", "o", "#0072B2"),
            ("final_test_error", r"where all is fitted $\varepsilon_f$", "D", "#000000"),
        ):
            values = points[name]
            error = np.stack([values - points[f"{name}_lower"], points[f"{name}_upper"] - values])
            right.errorbar(noise, values, error, color=colour, marker=marker, markersize=3.5, capsize=2, label=text)
        right.axhline(0.9, color="#999999", linestyle=":", label="guessing")
        right.set(xlabel="label noise", ylabel="test error", ylim=(0, 1))
        right.legend(frameon=False, loc="upper left")
        figure.legend(*left.get_legend_handles_labels(), loc="upper center", ncol=6, frameon=False)
        figure.subplots_adjust(left=0.085, right=0.985, top=0.89, bottom=0.29, wspace=0.25)
        replicas = int(points.attrs.get("replicas", 0)) or "all"
        write_caption(
            figure,
            "Left: when phases II (correct samples learned), III (wrong labels memorised) and IV (everything fitted) begin,\n"
            f"with 95 % intervals over {replicas} replicas; without label noise there is one boundary. Bands name phases.\n"
            "Right: lowest test error, and that where the training set is fitted, with 95 % intervals; a point is missing\n"
            "where not all replicas get there.",
        )
    return figure


_CURVE_NAMES = {
    "test_error": "test error",
    "train_error_correct": "error of correct samples",
    "train_error_mislabeled": "error of mislabeled samples",
}


def collapse_figure(runs: xr.Dataset, distances: xr.Dataset) -> Figure:
    """Draw runs of several learning rates and batch sizes against gradient-flow time, and how far apart they are.

    Parameters
    ----------
    runs : Dataset
        Curves (point, replica, step) with ``learning_rate`` and ``batch_size``.
    distances : Dataset
        Of ``studies.phase_diagram``: ``squared_distance`` (pair, curve).

    Returns
    -------
    matplotlib.figure.Figure
        Three panels: test error, deviations between runs of equal α/B, squared distances against the ratio of α/B.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.5))
        left, middle, right = figure.subplots(1, 3)
        level = (runs.learning_rate / runs.batch_size).values
        levels = sorted(set(np.round(level, 12)))
        shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(levels)))
        for value, colour in zip(levels, shades, strict=True):
            for number, k in enumerate(np.flatnonzero(np.isclose(level, value))):
                time = runs.time.values[k][1:] if runs.time.ndim > 1 else runs.time.values[1:]
                curve = runs.test_error[k].mean("replica").values[1:]
                style = ("-", "--", ":", "-.")[number % 4]
                left.plot(time, curve, color=colour, linestyle=style, label=f"{value:.3g}" if not number else None)
        left.set(xscale="log", xlabel="gradient-flow time", ylabel="test error")
        plain_powers(left, "x")
        left.set(ylim=(-0.12, None), yticks=[0, 0.2, 0.4, 0.6, 0.8])
        of_levels = {"title": "α/B (time)", "title_fontsize": 7, "fontsize": 6, "ncols": 3, "columnspacing": 0.8}
        left.legend(frameon=False, loc="lower center", handlelength=0.9, **of_levels)
        equal = distances.isel(pair=np.flatnonzero(distances.noise_ratio.values <= 1.0001))
        marks = dict(zip(_CURVE_NAMES, (("o", "#000000"), ("s", "#0072B2"), ("^", "#D55E00")), strict=True))
        for name, (_, colour) in marks.items():
            if equal.sizes["pair"]:
                square = (equal.deviation.sel(curve=name) ** 2).where(np.isfinite(equal.deviation.sel(curve=name)))
                middle.plot(distances.time, np.sqrt(square.mean("pair")), color=colour)
        middle.axhline(1, color="#999999", linestyle=":")
        middle.set(
            xscale="log", xlabel="gradient-flow time", ylabel="deviation at equal α/B (standard errors)", ylim=(0, None)
        )
        plain_powers(middle, "x")
        ratios = np.unique(distances.noise_ratio.values)
        for offset, (name, (marker, colour)) in zip((0.94, 1.0, 1.06), marks.items(), strict=True):
            means, errors = [], []
            for ratio in ratios:
                chosen = distances.isel(pair=np.flatnonzero(distances.noise_ratio.values == ratio)).sel(curve=name)
                values = chosen.squared_distance.values
                means.append(values.mean())
                # Pairs share runs and are not independent: the error of their mean is at most the mean of their errors.
                errors.append(2 * chosen.squared_distance_standard_error.values.mean())
            right.errorbar(
                ratios * offset, means, errors, color=colour, marker=marker, markersize=3.5, capsize=2, linestyle="none",
                label=_CURVE_NAMES[name],
            )  # fmt: skip
        right.axhline(0, color="#999999", linestyle=":")
        right.set(xscale="log", xlabel="ratio of α/B of two runs", ylabel="squared distance (variance of replicas)")
        right.set_yscale("symlog", linthresh=1)
        right.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        right.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        right.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        figure.legend(*right.get_legend_handles_labels(), loc="upper center", ncol=3, frameon=False)
        figure.subplots_adjust(left=0.075, right=0.985, top=0.89, bottom=0.32, wspace=0.47)
        write_caption(
            figure,
            "Left: mean test error of each learning rate and batch size; one colour is one α/B, line styles are runs.\n"
            "Middle: differences between runs of equal α/B, root mean square over pairs, in standard errors; 1 is chance.\n"
            "Right: squared distances without sampling error; 0 is collapse, 1 as far apart as replicas. Bars: 2 standard\n"
            "errors of the mean over pairs, which share runs.",
        )
    return figure


def finite_size_figure(sharpness: xr.Dataset, exponents: xr.Dataset, of_sizes: dict[str, xr.Dataset]) -> Figure:
    """Draw how sharp memorisation is, and how much it fluctuates, against width and number of samples.

    Parameters
    ----------
    sharpness : Dataset
        Of ``studies.phase_diagram``, all sizes.
    exponents : Dataset
        Power laws by ``measure`` and ``size``.
    of_sizes : dict of str to Dataset
        The points that differ in ``width`` alone, and in ``samples`` alone.

    Returns
    -------
    matplotlib.figure.Figure
        Two rows, against width and samples; a column for each measure.
    """
    names = {
        "relative_spread": "relative spread of half-time",
        "susceptibility": r"$N_w\,\mathrm{Var}\,m$ at $m = 1/2$",
        "slope": r"slope $dm/d\ln t$ at $m = 1/2$",
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.6))
        panels = figure.subplots(2, 3)
        for row, (size, text) in zip(panels, {"width": "width", "samples": "training samples"}.items(), strict=True):
            part = of_sizes[size]
            scale = part.width.values if size == "width" else 10 * part.samples_per_class.values
            for axes, (measure, name) in zip(row, names.items(), strict=True):
                values = part[measure].values
                error = 1.96 * values * part[f"{measure}_relative_error"].values
                axes.errorbar(
                    scale, values, error, color="#000000", marker="o", markersize=3.5, capsize=2, linestyle="none"
                )
                fit = exponents.sel(measure=measure, size=size)
                line = fit.prefactor.item() * scale ** fit.exponent.item()
                said = str(fit.verdict.item())
                if not len(scale):
                    axes.text(0.5, 0.5, "not seen", transform=axes.transAxes, ha="center")
                    continue
                axes.plot(scale, line, color="#0072B2", linestyle="-" if said == "power law" else ":")
                half = 1.96 * fit.exponent_standard_error.item()
                law = f"{fit.exponent.item():.2f} ± {half:.2f}"
                title = f"exponent {law}" if said == "power law" else f"{said} ({law})" if "seen" in said else said
                axes.set_title(f"{title}, p = {fit.p_value.item():.2g}", fontsize=7)
                axes.set(xscale="log", yscale="log", xlabel=text, ylabel=name)
                axes.set_xticks(scale, [f"{each:g}" for each in scale])
                axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
                top, bottom = float((values + error).max()), float(max((values - error).min(), values.min() / 3))
                axes.set_ylim(bottom / 1.3, top * 1.3)
                ticks = np.geomspace(bottom, top, 4)
                axes.set_yticks(ticks, [f"{each:.2g}" for each in ticks])
                axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        figure.subplots_adjust(left=0.085, right=0.985, top=0.95, bottom=0.2, wspace=0.42, hspace=0.55)
        write_caption(
            figure,
            "m is the share of mislabeled samples whose wrong label has been learned. Bars: 95 % intervals over replicas,\n"
            "whose weights and minibatches differ, not their labels. Lines: power laws, dotted where none is warranted;\n"
            "p is the probability of as bad a fit by chance.",
        )
    return figure
