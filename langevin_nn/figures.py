"""Figures: datasets → matplotlib. The only module that imports it."""

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

from langevin_nn.analyzers import COMPARED, Comparison, label, logarithm, mean_with_interval
from langevin_nn.schema import describe

__all__ = [
    "FIGURES",
    "collapse_figure",
    "distance_figure",
    "finite_size_figure",
    "flat_minima_figure",
    "noise_and_curvature_figure",
    "order_parameter_figure",
    "phase_diagram_figure",
    "save_figures",
    "spectrum_figure",
    "training_figure",
    "verdict_figure",
]

# Okabe & Ito's colours, told apart by colour-blind readers; line styles tell them apart in grey.
_STYLES: dict[str, dict[str, Any]] = {
    "sgd": {"color": "#000000", "linestyle": "-"},
    "sgd_null": {"color": "#999999", "linestyle": "-"},
    "langevin": {"color": "#0072B2", "linestyle": "--"},
    "isotropic_langevin": {"color": "#D55E00", "linestyle": "-."},
    "gradient_descent": {"color": "#009E73", "linestyle": ":"},
    "independent_sgd": {"color": "#CC79A7", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
}
_MARKERS = {"sgd_null": "s", "langevin": "o", "isotropic_langevin": "^", "gradient_descent": "D"}
_PHASE_SHADES = ("#f2f2f2", "#e0e0e0", "#f2f2f2", "#e0e0e0")
_STYLE: Any = {  # keys of matplotlib's rcParams
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
_SYMBOLS = {
    "activity": r"$A$",
    "directed_activity": r"$A_0$",
    "directed_activity_correct": r"$A_{0,c}$",
    "directed_activity_mislabeled": r"$A_{0,w}$",
    "noise_strength": r"$D = \mathrm{Tr}\,C$",
    "projection_variance": r"$\sigma_\lambda^2$",
    "alignment": r"$R$",
    "gradient_alignment_correct_mislabeled": r"$R_{cw}$",
}
_UNITS = {"loss2 weight-2": "nat² / weight²"}


def _style(process: str) -> dict[str, Any]:
    return _STYLES.get(process, {"color": "#E69F00", "linestyle": "-"})


def _band(axes: Axes, clock: xr.DataArray, values: xr.DataArray, process: str, *, logarithmic: bool = False) -> None:
    """Draw the mean over replicas with its 95 % t interval, both on the scale of the axis."""
    moments = mean_with_interval(logarithm(values) if logarithmic else values)
    lines = {name: np.exp(moments[name]) if logarithmic else moments[name] for name in moments}
    style = _style(process)
    axes.plot(clock, lines["mean_value"], label=label(process), **style)
    axes.fill_between(clock, lines["lower"], lines["upper"], color=style["color"], alpha=0.15, linewidth=0)


def _shade_phases(axes: Axes, phases: xr.Dataset, reference: str, end: float) -> None:
    """Shade the reference's phases, with the mean boundary over the replicas that reached it."""
    means = phases["boundary_epoch"].sel(process=reference).mean("replica").values
    edges = [0.0, *[float(mean) for mean in means if np.isfinite(mean)], end]
    names = phases["phase"].attrs["flag_meanings"].split()
    for shade, name, left, right in zip(_PHASE_SHADES, names, edges, edges[1:], strict=False):
        axes.axvspan(left, right, color=shade, zorder=-2, linewidth=0)
        if right - left > 0.02 * end:
            short = name if len(name) < 4 else name.replace("_", " ")
            axes.text((left + right) / 2, 1.01, short, transform=axes.get_xaxis_transform(), ha="center", fontsize=7)


def _plain_powers(axes: Axes, *names: str) -> None:
    """Label powers of ten as 10⁻² in plain text, and nothing between them."""
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

    def label_of(value: float, _: int) -> str:
        return "10" + str(round(np.log10(value))).translate(digits) if value > 0 else ""

    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        if axis.get_scale() == "log":
            axis.set_major_formatter(mpl.ticker.FuncFormatter(label_of))
            axis.set_minor_formatter(mpl.ticker.NullFormatter())


def _say_undefined(axes: Axes) -> None:
    axes.set_yscale("linear")
    axes.set_yticks([])
    axes.text(0.5, 0.5, "undefined: no mislabeled samples", transform=axes.transAxes, ha="center", va="center")


def _caption(figure: Figure, text: str) -> None:
    figure.text(0.01, 0.005, text, fontsize=7, ha="left", va="bottom", wrap=True)


def _processes(root: xr.Dataset, *, but: Iterable[str] = ()) -> list[str]:
    return [str(name) for name in root["process"].values if name not in set(but)]


def _replica_note(root: xr.Dataset) -> str:
    return f"Lines: means over {root.sizes['replica']} replicas; bands: 95 % t intervals, on the axis's own scale."


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=columns, frameon=False)


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
    panels = [
        ("train_loss", "all", "training loss (nat)"),
        ("test_error", None, "test error"),
        ("train_error", "correct", "training error, correct samples"),
        ("train_error", "mislabeled", "training error, mislabeled samples"),
    ]
    panels = [panel for panel in panels if panel[0] in root]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.0, 5.2))
        grid = figure.subplots(2, 2, sharex=True).ravel()
        for axes, (name, cohort, text) in zip(grid, panels, strict=False):
            values = root[name] if cohort is None else root[name].sel(cohort=cohort)
            for process in _processes(root, but=[comparison.summary["null"]]):
                _band(axes, root["epoch"], values.sel(process=process), process, logarithmic=name.endswith("loss"))
            _shade_phases(axes, comparison.phases, reference, float(root["epoch"].max()))
            axes.set(ylabel=text, xlim=(0, float(root["epoch"].max())))
            if name.endswith("error"):
                axes.set_ylim(-0.03, 1.03)
            if not bool(values.notnull().any()):
                _say_undefined(axes)
        grid[0].set_yscale("log")
        means = root["train_loss"].sel(cohort="all").mean("replica")
        grid[0].set_ylim(0.7 * float(means.min()), 1.4 * float(means.max()))
        grid[0].yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        grid[0].yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        for axes in grid[2:]:
            axes.set_xlabel("epoch")
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        _legend(figure, grid[0], 2)
        figure.subplots_adjust(left=0.09, right=0.98, top=0.86, bottom=0.13, hspace=0.25, wspace=0.25)
        _caption(figure, f"Shaded: phases of {label(reference)}, from training errors alone. {_replica_note(root)}")
    return figure


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
    root, reference = comparison.trajectories.to_dataset(), comparison.summary["reference"]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.0, 8.4))
        grid = figure.subplots(4, 2, sharex=True)
        for axes, quantity in zip(grid.ravel(), COMPARED, strict=True):
            values = root[quantity.variable].sel(dict(quantity.selection))
            for process in _processes(root, but=[comparison.summary["null"]]):
                logarithmic = quantity.logarithmic
                _band(axes, root["epoch"], values.sel(process=process), process, logarithmic=logarithmic)
            _shade_phases(axes, comparison.phases, reference, float(root["epoch"].max()))
            unit = _UNITS.get(describe(quantity.variable).units)
            axes.set(ylabel=_SYMBOLS[quantity.name] + (f" ({unit})" if unit else ""))
            axes.set(xlim=(0, float(root["epoch"].max())), yscale="log" if quantity.logarithmic else "linear")
            if not bool(values.notnull().any()):
                _say_undefined(axes)
            _plain_powers(axes, "y")
            if not quantity.logarithmic:
                axes.axhline(0, color="0.4", linewidth=0.6, zorder=-1)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
        _legend(figure, grid[0, 0], 2)
        figure.subplots_adjust(left=0.11, right=0.98, top=0.915, bottom=0.085, hspace=0.28, wspace=0.3)
        _caption(
            figure,
            "Order parameters of the minibatch gradient ensemble at each process's weights. Shaded: SGD's phases.\n"
            + _replica_note(root),
        )
    return figure


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
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.0, 8.4))
        grid = figure.subplots(4, 2, sharex=True)
        for axes, quantity in zip(grid.ravel(), COMPARED, strict=True):
            chosen = result.sel(quantity=quantity.name)
            own = chosen.sel(process=null)
            axes.fill_between(
                epoch,
                own["difference_lower"],
                own["difference_upper"],
                color="0.75",
                linewidth=0,
                label=f"{label(null)}, 95 % interval",
            )
            for process in _processes(root, but=[reference, null]):
                each = chosen.sel(process=process)
                style = _style(process)
                axes.plot(epoch, each["difference"], label=label(process), **style)
                bounds = (each["difference_lower"], each["difference_upper"])
                axes.fill_between(epoch, *bounds, color=style["color"], alpha=0.15, linewidth=0)
            axes.axhline(0, color="black", linewidth=0.6)
            axes.set_yscale("symlog", linthresh=3, linscale=1.2)
            axes.set(ylabel=f"difference in {_SYMBOLS[quantity.name]}\n(spreads)", xlim=(0, float(epoch.max())))
            axes.set_yticks([-30, -10, -3, 0, 3, 10, 30], ["−30", "−10", "−3", "0", "3", "10", "30"])
            axes.minorticks_off()
            axes.set_ylim(-40, 40)
            if not bool(chosen["difference"].notnull().any()):
                _say_undefined(axes)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
        _legend(figure, grid[0, 0], 2)
        figure.subplots_adjust(left=0.11, right=0.98, top=0.93, bottom=0.085, hspace=0.18, wspace=0.32)
        _caption(
            figure,
            f"Difference from {label(reference)}, replica by replica from the same initial weights, in units of its\n"
            "replica-to-replica standard deviation (of the logarithm, for A, A₀, D and σ_λ²), pooled over five records; "
            "linear within ±3, cut at ±40.",
        )
    return figure


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
    with mpl.rc_context(_STYLE):
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
        panels[0].set_yticks(range(len(names) + 1), [*[_SYMBOLS[name] for name in names], "mean"])
        panels[0].invert_yaxis()
        _legend(figure, panels[0], 2)
        figure.subplots_adjust(left=0.12, right=0.98, top=0.8, bottom=0.21, wspace=0.08)
        _caption(
            figure,
            "Average over the run of |difference from SGD| in units of its replica-to-replica spread; bars: 95 % t "
            f"intervals\nover {summary['replicas']} replicas. Grey squares: SGD with other noise, the distance of what "
            "is not different.",
        )
    return figure


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
    tree = comparison.trajectories
    spectrum = tree["spectrum"].to_dataset()
    root = tree.to_dataset()
    n_columns = spectrum.sizes["spectrum_step"]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.0, 3.1))
        panels = np.atleast_1d(figure.subplots(1, n_columns, sharey=True, sharex=True))
        for column, axes in enumerate(panels):
            record = spectrum.isel(spectrum_step=column)
            for process in _processes(root, but=[comparison.summary["null"]]):
                _band(axes, record["mode"], record["noise_eigenvalue"].sel(process=process), process, logarithmic=True)
            dimensions = record["effective_dimension"].sel(process=comparison.summary["reference"])
            axes.set(xscale="log", yscale="log", xlabel="mode $l$")
            _plain_powers(axes, "x", "y")
            axes.set_title(f"epoch {float(record['epoch']):.3g}\nSGD: $D_s$ = {float(dimensions.mean()):.0f}")
        panels[0].set_ylabel("eigenvalue $e_l$ of $C$\n(nat² / weight²)")
        panels[0].set_ylim(float(spectrum["noise_eigenvalue"].max()) * 1e-5, None)
        _legend(figure, panels[0], 2)
        figure.subplots_adjust(left=0.115, right=0.98, top=0.7, bottom=0.26, wspace=0.08)
        _caption(
            figure,
            "Spectra of the minibatch noise covariance at each process's weights; geometric means over replicas, 95 % t "
            "intervals.\nD_s: modes that hold 90 % of the noise strength.",
        )
    return figure


def noise_and_curvature_figure(spectrum: xr.Dataset, curvature: xr.Dataset, overlap: xr.Dataset) -> Figure:
    """Draw what noise and curvature are like at one point: two spectra, and the directions that they share.

    Parameters
    ----------
    spectrum : Dataset
        Of `langevin_nn.GradientEnsemble.spectrum`.
    curvature : Dataset
        Of `langevin_nn.curvature`.
    overlap : Dataset
        Of `langevin_nn.noise_curvature_overlap`.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.0, 3.0))
        left, middle, right = figure.subplots(1, 3)
        _draw_noise_spectrum(left, spectrum)
        _draw_density(middle, curvature)
        squared = overlap["eigenvector_overlap"].values
        n, k = squared.shape
        image = right.imshow(squared, cmap="Greys", vmin=0, vmax=1, extent=(0.5, k + 0.5, n + 0.5, 0.5))
        right.set(xlabel="mode of the Hessian", ylabel="mode of the noise")
        for axis in (right.xaxis, right.yaxis):
            axis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
        share, chance = float(overlap["subspace_overlap"]), float(overlap["random_overlap"])
        right.set_title(f"squared cosines; shared: {share:.2f}\n(unrelated directions: {chance:.2g})")
        figure.colorbar(image, ax=right, fraction=0.046, pad=0.03)
        figure.subplots_adjust(left=0.085, right=0.95, top=0.86, bottom=0.33, wspace=0.48)
        bound = "at least " if int(spectrum["effective_dimension_is_lower_bound"]) else ""
        _caption(
            figure,
            f"Left: eigenvalues of the minibatch noise covariance; D_s, {bound}the number of modes that hold "
            f"{100 * spectrum.attrs['fraction']:.0f} % of the noise.\nMiddle: density of the Hessian's eigenvalues "
            f"(± 2 standard errors of {curvature.attrs['n_probes']} random probes), its largest eigenvalues as ticks.\n"
            "Right: overlap of the leading eigenvectors of both.",
        )
    return figure


def _draw_noise_spectrum(axes: Axes, spectrum: xr.Dataset) -> None:
    values, dimension = spectrum["noise_eigenvalue"].values, float(spectrum["effective_dimension"])
    axes.plot(np.arange(1, len(values) + 1), values, color="#0072B2")
    if np.isfinite(dimension):
        axes.axvline(dimension, color="#555555", linestyle=":", linewidth=1)
    sign = "≥" if int(spectrum["effective_dimension_is_lower_bound"]) else "="
    axes.set_title(f"noise: $D_s$ {sign} {dimension:.0f}")
    axes.set(xscale="log", yscale="log", xlabel="mode $l$", ylabel="eigenvalue $e_l$ of $C$ (nat² / weight²)")
    if values.max(initial=0) > 0:
        axes.set_ylim(max(values.max() * 1e-5, values[values > 0].min() / 2), values.max() * 2)
    _plain_powers(axes, "x", "y")


def _draw_density(axes: Axes, curvature: xr.Dataset) -> None:
    at, density = curvature["eigenvalue"].values, curvature["spectral_density"].values
    error = curvature["spectral_density_standard_error"].values
    axes.plot(at, density, color="#D55E00")
    axes.fill_between(
        at, np.maximum(density - 2 * error, 1e-300), density + 2 * error, color="#D55E00", alpha=0.25, lw=0
    )
    axes.plot(
        curvature["hessian_eigenvalue"],
        np.zeros(curvature.sizes["hessian_mode"]) + 0.02,
        "k|",
        markersize=5,
        transform=axes.get_xaxis_transform(),
    )
    trace, spread = float(curvature["hessian_trace"]), float(curvature["hessian_trace_standard_error"])
    axes.set_title(f"curvature: trace {trace:.3g} ± {spread:.1g}")
    lowest = 0.1 / (curvature.attrs["n_parameters"] * curvature.attrs["width"])
    axes.set(yscale="log", xlabel="eigenvalue (nat / weight²)", ylabel="density (weight² / nat)")
    axes.set_ylim(lowest, 3 * density.max())
    _plain_powers(axes, "y")


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
    written = []
    for name, draw in FIGURES.items():
        path = Path(folder) / f"{name}.png"
        draw(comparison).savefig(path)
        written.append(path)
    return written


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
    with mpl.rc_context(_STYLE):
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
        _caption(
            figure,
            "Left: two valleys of equal depth, and noise relative to isotropic noise. Middle: where it is found.\n"
            "Right: escapes from the narrow (full symbols) and from the wide valley (open). Symbols: simulation, ± 2\n"
            "standard errors; lines: quadrature of the equation averaged over the directions across the path.",
        )
    return figure


def _line(noise: str) -> dict[str, Any]:
    style = _NOISE_STYLES[noise]
    return {"color": style["color"], "linestyle": style["linestyle"]}


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
    with mpl.rc_context(_STYLE):
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
        _plain_powers(left, "y")
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
        _caption(
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
    with mpl.rc_context(_STYLE):
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
        _plain_powers(left, "x")
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
        _plain_powers(middle, "x")
        ratios = np.unique(distances.noise_ratio.values)
        for offset, (name, (marker, colour)) in zip((0.94, 1.0, 1.06), marks.items(), strict=True):
            means, errors = [], []
            for ratio in ratios:
                chosen = distances.isel(pair=np.flatnonzero(distances.noise_ratio.values == ratio)).sel(curve=name)
                values = chosen.squared_distance.values
                means.append(values.mean())
                errors.append(2 * np.sqrt((chosen.squared_distance_standard_error.values**2).mean() / len(values)))
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
        _caption(
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
    with mpl.rc_context(_STYLE):
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
        _caption(
            figure,
            "m is the share of mislabeled samples whose wrong label has been learned. Bars: 95 % intervals over replicas,\n"
            "whose weights and minibatches differ, not their labels. Lines: power laws, dotted where none is warranted;\n"
            "p is the probability of as bad a fit by chance.",
        )
    return figure
