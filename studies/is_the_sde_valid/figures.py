"""Whether the stochastic differential equation is valid: verdicts, distances, the ladder, and when theory allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langevin_nn.figures.base import STYLE, plain_powers, shade_phases, shared_legend, write_caption

__all__ = [
    "conditions_figure",
    "ladder_figure",
    "law_distance_figure",
    "noise_shape_figure",
    "validity_figure",
]

_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#000000", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#0072B2", "linestyle": "-.", "marker": "^"},
    {"color": "#009E73", "linestyle": ":", "marker": "D"},
)
_SHADES = {
    "valid": "#ffffff",
    "valid in the mean only": "#d9d9d9",
    "undecided": "#f2f2f2",
    "too short to say": "#f2f2f2",
    "not valid": "#7f7f7f",
}
_SIGNS = {word: word for word in _SHADES} | {"valid in the mean only": "in the mean", "too short to say": "too short"}
_SHOWN = {
    "train_loss": r"$L_{tr}$",
    "test_loss": r"$L_{test}$",
    "train_error": r"$\varepsilon_{tr}$",
    "test_error": r"$\varepsilon_{test}$",
}


def _phase_name(name: str) -> str:
    return f"phase {name}" if len(name) < 4 else name.replace("_", " ")


def validity_figure(verdicts: Mapping[str, xr.Dataset], labels: Mapping[str, str]) -> Figure:
    """Draw the verdict on each process in each phase, with the p-value of its test.

    Parameters
    ----------
    verdicts : mapping of str to Dataset
        By the reference in words: ``verdict`` and ``p_value`` (process, phase).
    labels : mapping of str to str
        Processes in words, in the order of rows.

    Returns
    -------
    matplotlib.figure.Figure
        One table a reference.
    """
    present = {str(each) for found in verdicts.values() for each in found["process"].values}
    names = [name for name in labels if name in present]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 1.6 + 0.24 * len(names)))
        panels = figure.subplots(1, len(verdicts), squeeze=False)[0]
        for k, (axes, (reference, found)) in enumerate(zip(panels, verdicts.items(), strict=True)):
            phases = [str(each) for each in found["phase"].values]
            for row, name in enumerate(names):
                for column, phase in enumerate(phases):
                    if name not in found["process"].values:
                        axes.text(column + 0.5, row + 0.5, "–", ha="center", va="center", fontsize=6)
                        continue
                    own = found.sel(process=name, phase=phase)
                    word = str(own["verdict"].values)
                    axes.add_patch(
                        mpl.patches.Rectangle(
                            (column, row), 1, 1, facecolor=_SHADES[word], edgecolor="0.6", linewidth=0.5
                        )
                    )
                    text = f"{_SIGNS[word]}\np = {float(own['p_value']):.2g}"
                    color = "white" if word == "not valid" else "black"
                    axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=5, color=color)
            axes.set(xlim=(0, len(phases)), ylim=(len(names), 0), title=f"against {reference}")
            axes.set_xticks(np.arange(len(phases)) + 0.5, [_phase_name(each) for each in phases])
            axes.set_yticks(np.arange(len(names)) + 0.5, [labels.get(each, each) for each in names] if k == 0 else [])
            axes.tick_params(length=0)
            for side in axes.spines.values():
                side.set_visible(False)
        figure.subplots_adjust(left=0.29, right=0.99, top=0.93, bottom=0.95 / (1.6 + 0.24 * len(names)), wspace=0.05)
        write_caption(
            figure,
            "Whether each process follows SGD in each phase of learning, by thresholds fixed beforehand: its law is "
            "not told from\nSGD's and its means are close; only its means are close; or not even these. p: test of means and "
            "spreads\nof everything recorded, corrected for all cells of a table.",
        )
    return figure


def law_distance_figure(compared: xr.Dataset, labels: Mapping[str, str], tolerance: float) -> Figure:
    """Draw how far mean losses and errors of each process are from the reference's, phase by phase.

    Parameters
    ----------
    compared : Dataset
        Of `LawComparison`.
    labels : mapping of str to str
        Processes in words.
    tolerance : float
        In spreads.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a phase.
    """
    names = [str(each) for each in compared["process"].values]
    phases = [str(each) for each in compared["phase"].values]
    shown = [each for each in _SHOWN if each in compared["quantity"].values]
    furthest = 4 * tolerance
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 1.5 + 0.25 * len(names)))
        panels = figure.subplots(1, len(phases), sharey=True, squeeze=False)[0]
        for axes, phase in zip(panels, phases, strict=True):
            axes.axvspan(-tolerance, tolerance, color="#e8e8e8", linewidth=0, zorder=-3)
            axes.axvline(0, color="#999999", linestyle=":", linewidth=0.8)
            for k, (name, style) in enumerate(zip(shown, _STYLES, strict=False)):
                own = compared.sel(phase=phase, quantity=name)
                rows = np.arange(len(names)) + 0.18 * (k - (len(shown) - 1) / 2)
                value = own["distance"].values
                inside = np.clip(value, -furthest, furthest)
                bars = np.stack([value - own["distance_lower"].values, own["distance_upper"].values - value])
                axes.errorbar(
                    inside, rows, xerr=np.where(np.abs(value) <= furthest, bars, np.nan), linestyle="none",
                    color=style["color"], marker=style["marker"], markersize=2.4, elinewidth=0.7, label=_SHOWN[name],
                )  # fmt: skip
                for row, each in zip(rows, value, strict=True):
                    if abs(each) > furthest:
                        side = "left" if each > 0 else "right"
                        at = furthest if each > 0 else -furthest
                        text = f"{each:+.0f}" if abs(each) < 1000 else f"{each:+.0e}"
                        axes.text(
                            at * 0.93, row, text, fontsize=4.5, ha="right" if side == "left" else "left", va="center"
                        )
            axes.set(xlim=(-1.08 * furthest, 1.08 * furthest), title=_phase_name(phase))
            axes.set_xlabel("distance (spreads)")
        panels[0].set_yticks(np.arange(len(names)), [labels.get(each, each) for each in names])
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        shared_legend(figure, panels[0], len(shown))
        height = 1.5 + 0.25 * len(names)
        figure.subplots_adjust(left=0.29, right=0.99, top=1 - 0.5 / height, bottom=0.95 / height, wspace=0.08)
        write_caption(
            figure,
            "Distance of the mean over a phase from SGD's (shuffled epochs), in standard deviations of SGD over "
            "replicas, with 95 % jackknife\nintervals over pairs of replicas. Losses on a logarithmic scale. The "
            "strip is the tolerance; numbers stand for points beyond the panel.",
        )
    return figure


def ladder_figure(ladder: Mapping[str, xr.Dataset], amplifications: Sequence[int], steps: Mapping[str, str]) -> Figure:
    """Draw how SVAG converges as its amplification grows, and the Gaussian process as its time step falls.

    Parameters
    ----------
    ladder : mapping of str to Dataset
        By the reference in words, `LawComparison` of all processes with it.
    amplifications : sequence of int
        l, of processes named ``svag_l``.
    steps : mapping of str to str
        Processes that are drawn beside the ladder, with what stands on the axis.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a reference, the phases within.
    """
    known = {name for found in ladder.values() for name in found["process"].values}
    every = {f"svag_{each}": str(each) for each in amplifications} | dict(steps)
    chosen = {name: words for name, words in every.items() if name in known}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.6))
        panels = figure.subplots(1, len(ladder), sharey=True, squeeze=False)[0]
        for axes, (reference, found) in zip(panels, ladder.items(), strict=True):
            present = [name for name in chosen if name in found["process"].values]
            places = {name: list(chosen).index(name) + (0.6 if name in steps else 0) for name in present}
            axes.axhline(0, color="#999999", linestyle=":", linewidth=0.8)
            for k, (phase, style) in enumerate(zip(found["phase"].values, _STYLES, strict=False)):
                for group in ([n for n in present if n not in steps], [n for n in present if n in steps]):
                    own = found.sel(process=group, phase=phase)
                    value = own["squared_distance"].values
                    bars = np.stack(
                        [value - own["squared_distance_lower"].values, own["squared_distance_upper"].values - value]
                    )
                    at = np.array([places[name] for name in group]) + 0.12 * (k - 1.5)
                    name = _phase_name(str(phase)) if group and group[0] not in steps else None
                    axes.errorbar(at, value, bars, label=name, markersize=3, elinewidth=0.7, linewidth=0.8, **style)
            axes.set_xticks(
                [list(chosen).index(n) + (0.6 if n in steps else 0) for n in chosen], [chosen[n] for n in chosen]
            )
            axes.set_xlim(-0.5, len(chosen) + 0.1)
            axes.set_yscale("symlog", linthresh=0.1)
            axes.set(title=f"from {reference}", xlabel="SVAG, $l$  |  Gaussian, $Δt$")
        panels[0].set_ylabel("squared distance (spreads²)")
        panels[0].set_ylim(bottom=-0.5)
        shared_legend(figure, panels[0], 4)
        figure.subplots_adjust(left=0.1, right=0.99, top=0.84, bottom=0.26, wspace=0.06)
        write_caption(
            figure,
            "Squared distance of means over a phase, averaged over everything recorded, less what chance gives, "
            "so that 0 is no difference;\n95 % jackknife intervals over replicas. As l grows, SVAG tends to the "
            "equation; as the step falls at the same learning rate,\nso does the Gaussian process, whose quarter "
            "step stands for the equation. The vertical axis is linear near 0.",
        )
    return figure


def conditions_figure(
    signal: xr.Dataset, phases: xr.Dataset, scaled: xr.Dataset, bounds: Mapping[str, float], tolerance: float
) -> Figure:
    """Draw the noise-to-signal ratio along the trajectory, and SGD at larger and larger steps and minibatches.

    Parameters
    ----------
    signal : Dataset
        ``noise_to_signal`` (step) with its interval and epochs; attribute ``least_noise_to_signal``.
    phases : Dataset
        Of `detect_phases`, which are shaded.
    scaled : Dataset
        Of `LawComparison`, ``process`` named after κ.
    bounds : mapping of str to float
        By phase, what the noise-to-signal ratio allows for κ.
    tolerance : float
        In spreads.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.7))
        ratio, scaling = figure.subplots(1, 2)
        epoch = signal["epoch"].values
        ratio.set(xscale="log", yscale="log", xlim=(epoch[0], epoch[-1]))
        (line,) = ratio.plot(epoch, signal["noise_to_signal"], color="black", marker="o", markersize=2.4)
        ratio.fill_between(
            epoch, signal["noise_to_signal_lower"], signal["noise_to_signal_upper"], color=line.get_color(), alpha=0.15,
            linewidth=0,
        )  # fmt: skip
        ratio.axhline(signal.attrs["least_noise_to_signal"], color="#D55E00", linestyle="--", linewidth=0.9)
        ratio.set(xlabel="epoch", ylabel=r"noise to signal, $D/A_0$")
        shade_phases(ratio, phases, float(epoch[-1]))
        ratio.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        ratio.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        plain_powers(ratio, "x")
        _draw_scaling(scaling, scaled, bounds, tolerance)
        figure.subplots_adjust(left=0.09, right=0.985, top=0.88, bottom=0.29, wspace=0.28)
        write_caption(
            figure,
            "Left: noise to signal along SGD's trajectory, geometric mean over replicas with 95 % t interval; "
            "dashed: what it has to be for the\nequation to be close within √2. Right: SGD at κ times learning "
            "rate and minibatch, and how far the farthest mean of losses and errors\nis from SGD's; filled where "
            "the law is rejected. Arrows: what the noise-to-signal ratio allows for κ in that phase, C² (1 + "
            "D/A₀).",
        )
    return figure


def _draw_scaling(axes: Axes, scaled: xr.Dataset, bounds: Mapping[str, float], tolerance: float) -> None:
    factors = sorted(int(each) for each in scaled["process"].values)
    shown = [each for each in _SHOWN if each in scaled["quantity"].values]
    axes.axhspan(0.01, tolerance, color="#e8e8e8", linewidth=0, zorder=-3)
    top = 0.0
    for phase, style in zip(scaled["phase"].values, _STYLES, strict=False):
        own = scaled.sel(phase=phase, process=[str(each) for each in factors])
        distances = np.nanmax(
            np.abs(own["distance"].sel(quantity=shown).transpose("process", "quantity").values), axis=1
        )
        rejected = own["is_rejected"].values.astype(bool)
        top = max(top, float(np.nanmax(distances)))
        axes.plot(
            factors, distances, color=style["color"], linestyle=style["linestyle"], linewidth=0.8,
            label=_phase_name(str(phase)), marker=style["marker"], markersize=4, markerfacecolor="white",
        )  # fmt: skip
        axes.plot(
            np.array(factors)[rejected], distances[rejected], color=style["color"], linestyle="none", marker=style["marker"],
            markersize=4,
        )  # fmt: skip
        if str(phase) in bounds:
            axes.annotate(
                "", (bounds[str(phase)], 0), (bounds[str(phase)], 0.12), xycoords=axes.get_xaxis_transform(),
                textcoords=axes.get_xaxis_transform(), annotation_clip=False,
                arrowprops={"color": style["color"], "arrowstyle": "->", "linestyle": style["linestyle"]},
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=r"$\kappa$", ylabel="largest distance of means (spreads)")
    axes.set(xlim=(0.85, 1.3 * max(factors)), ylim=(0.01, 3 * max(top, tolerance)))
    axes.set_xticks(factors, [str(each) for each in factors])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    plain_powers(axes, "y")
    axes.legend(frameon=False, fontsize=6.5)


def noise_shape_figure(shapes: xr.Dataset) -> Figure:
    """Draw tail indices and excess kurtosis of minibatch noise along single directions, in each phase.

    Parameters
    ----------
    shapes : Dataset
        ``tail_index``, ``excess_kurtosis`` and ``adjusted_p_value`` (phase, replica, direction), the leading eigenvectors of
        C before the random directions.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels.
    """
    directions = [str(each) for each in shapes["direction"].values]
    n_leading = sum(each.startswith("eigenvector") for each in directions)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.5))
        panels = figure.subplots(1, 2)
        for axes, name, text, normal in zip(
            panels, ("tail_index", "excess_kurtosis"), ("tail index", "excess kurtosis"), (2.0, 0.0), strict=True
        ):
            axes.axhline(normal, color="#999999", linestyle=":", linewidth=0.9)
            axes.axvline(n_leading - 0.5, color="#cccccc", linewidth=0.8)
            for k, (phase, style) in enumerate(zip(shapes["phase"].values, _STYLES, strict=False)):
                own = shapes.sel(phase=phase)
                at = np.arange(len(directions)) + 0.16 * (k - (shapes.sizes["phase"] - 1) / 2)
                centre, lowest, highest = (getattr(own[name], of)("replica").values for of in ("mean", "min", "max"))
                bars = np.stack([centre - lowest, highest - centre])
                share = float((own["adjusted_p_value"] <= 0.05).mean())
                marks = {"color": style["color"], "marker": style["marker"], "markersize": 3, "elinewidth": 0.7}
                axes.errorbar(
                    at, centre, bars, linestyle="none", label=f"{_phase_name(str(phase))}: {100 * share:.0f} % not normal",
                    **marks,
                )  # fmt: skip
            axes.set_xticks(np.arange(len(directions)), [each.split()[-1] for each in directions])
            axes.set(ylabel=text, xlabel="leading eigenvectors of $C$   |   random directions")
        panels[1].set_yscale("symlog", linthresh=0.1)
        shared_legend(figure, panels[0], 2)
        figure.subplots_adjust(left=0.09, right=0.985, top=0.85, bottom=0.27, wspace=0.22)
        write_caption(
            figure,
            "Minibatch noise at one point of SGD in each phase, along single directions: means over "
            f"{shapes.sizes['replica']} replicas, bars their range.\nDotted: what a Gaussian has. The legend says "
            "what share of directions fails a test of normality (Jarque–Bera, 5 %, Holm's\ncorrection for all of "
            "them). Noise that is not stable has no tail index.",
        )
    return figure
