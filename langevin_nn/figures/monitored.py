"""A run as one page that a browser loads anew: verdict, losses, histogram, order parameters."""

from __future__ import annotations

import html
import io
import os
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langevin_nn.figures.base import STYLE
from langevin_nn.monitor.verdict import Verdict
from langevin_nn.monitor.words import averages_of, of_trajectory, settling_of, spread, state_of_file
from langevin_nn.store import open_trajectory

__all__ = ["monitor_figure", "monitor_page"]

_LEAST_DRAWN = 3  # records that make a line
_CORRECT, _WRONG, _TEST = "#0072B2", "#D55E00", "#000000"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
{refresh}<title>{name}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
body {{ color: #222; background: #fff; }}
h1 {{ font-size: 1.2rem; margin: 0; overflow-wrap: anywhere; }} .state {{ color: #666; margin: 0 0 1.2rem; }}
.verdict {{ border-left: .3rem solid {colour}; padding: .2rem 0 .2rem 1rem; margin: 0 0 1.5rem; }}
.verdict p {{ margin: 0; }} .verdict p:first-child {{ font-weight: 600; }} svg {{ width: 100%; height: auto; }}
</style></head><body>
<h1>{name}</h1><p class="state">{state}</p>
<div class="verdict">{verdict}</div>
{figure}
</body></html>
"""
_COLOURS = {"memorising": _WRONG, "cannot be told": "#999999"}


def monitor_figure(trajectory: xr.DataTree, verdict: Verdict | None = None) -> Figure:
    """Draw a monitored run: losses and predictions of samples, a histogram, weights, order parameters, the noise scale.

    Parameters
    ----------
    trajectory : xarray.DataTree
        Monitored.
    verdict : Verdict, optional
        On it; made of its losses and predictions unless said.

    Returns
    -------
    matplotlib.figure.Figure
        Of six panels; one that has nothing to show says so.
    """
    verdict = of_trajectory(trajectory) if verdict is None else verdict
    root = trajectory.to_dataset().isel(replica=0, missing_dims="ignore")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 6.6), layout="constrained")
        axes = figure.subplots(3, 2)
        samples = (
            trajectory["samples"].to_dataset().isel(replica=0, missing_dims="ignore")
            if "samples" in trajectory.children
            else None
        )
        wrong = None if verdict is None else verdict.mislabeled
        _courses(axes[0, 0], root, samples, wrong, verdict)
        _predictions(axes[0, 1], samples, verdict)
        axes[0, 1].set_xlim(axes[0, 0].get_xlim())  # once they are given up, predictions are no longer looked at
        _histogram(axes[1, 0], samples, wrong)
        _weights(axes[1, 1], root)
        averages = averages_of(trajectory)
        _with_errors(axes[2, 0], averages, {"directed_activity": "$A_0$", "noise_strength": "$D$"}, "nat² / weight²")
        _with_errors(axes[2, 1], averages, {"gradient_noise_scale": "gradient noise scale"}, "samples")
        if averages is not None and bool(averages.gradient_noise_scale.notnull().any()):
            size = float(averages.step_batch_size[-1])
            axes[2, 1].axhline(size, color="0.5", linewidth=0.8, linestyle="--", label=f"batch size {size:g}")
            axes[2, 1].legend(loc="upper right", ncols=2, frameon=False)
    return figure


def _courses(axes: Axes, root: xr.Dataset, samples: xr.Dataset | None, wrong: Any, verdict: Verdict | None) -> None:
    axes.set(title="losses as samples were seen", xlabel="epoch", ylabel="loss (nat)")
    if samples is None:
        _nothing(axes)
        return
    for name, (epochs, low, middle, high) in spread(samples, wrong).items():
        colour = _WRONG if name == "look mislabeled" else _CORRECT
        axes.plot(epochs, middle, color=colour, label=f"{name}, 80 %", marker="." if len(epochs) < 3 else "")
        axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    if "test_loss" in root:
        test = root.test_loss.dropna("step")
        axes.plot(test.epoch, test, color=_TEST, linestyle=":", label="test")
    if verdict is not None and np.isfinite(verdict.since):
        axes.axvspan(*verdict.interval, color="0.6", alpha=0.3, linewidth=0, label="memorising begins")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper right", ncols=2, frameon=False)


def _predictions(axes: Axes, samples: xr.Dataset | None, verdict: Verdict | None) -> None:
    axes.set(title="predictions as samples were seen", xlabel="epoch", ylabel="share of the samples")
    times, settled, changes = (np.empty(0),) * 3 if samples is None else settling_of(samples).course
    if len(times) < _LEAST_DRAWN:
        _nothing(axes)
        return
    axes.plot(times, settled, color=_CORRECT, label="what most epochs predict")
    axes.plot(times, changes, color=_TEST, linestyle=":", label="another than the epoch before")
    if verdict is not None and np.isfinite(verdict.since):
        axes.axvspan(*verdict.interval, color="0.6", alpha=0.3, linewidth=0)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="center right", frameon=False)


def _weights(axes: Axes, root: xr.Dataset) -> None:
    axes.set(title="weights", xlabel="epoch", ylabel="norm of all weights")
    norms = root.weight_norm.dropna("step") if "weight_norm" in root else None
    if norms is None or not norms.size:
        _nothing(axes)
        return
    axes.plot(norms.epoch, norms, color=_CORRECT, marker="." if norms.size < _LEAST_DRAWN else "")


def _histogram(axes: Axes, samples: xr.Dataset | None, wrong: Any) -> None:
    axes.set(title="losses in the last epoch", xlabel="loss (nat)", ylabel="samples")
    if samples is None:
        _nothing(axes)
        return
    losses = samples.sample_loss.values[-1]
    seen = np.isfinite(losses)
    members = [seen] if wrong is None else [seen & ~wrong, seen & wrong]
    axes.hist(
        [losses[each] for each in members], bins=40, stacked=True, color=[_CORRECT, _WRONG][: len(members)], linewidth=0
    )
    axes.set_yscale("symlog", linthresh=10)


def _with_errors(axes: Axes, averages: xr.Dataset | None, names: dict[str, str], units: str) -> None:
    axes.set(title=f"{', '.join(names.values())}, averages over passes", xlabel="epoch", ylabel=units)
    drawn = False
    for (name, symbol), colour in zip(names.items(), (_CORRECT, _WRONG), strict=False):
        values = None if averages is None else averages[name].dropna("step")
        if averages is None or values is None or not (values > 0).any():
            continue
        error = 2 * averages[f"{name}_standard_error"].sel(step=values.step)
        axes.errorbar(values.epoch, values, error, fmt=".", markersize=5, linewidth=0.9, color=colour, label=symbol)
        drawn = True
    if not drawn:
        _nothing(axes)
        return
    axes.set_yscale("log", nonpositive="clip")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.2)  # room for the legend
    if len(names) > 1:
        axes.legend(loc="upper right", ncols=2, frameon=False)


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not told yet", transform=axes.transAxes, ha="center", va="center", color="0.4")
    axes.set(xticks=[], yticks=[])


def monitor_page(file: str | os.PathLike[str], seconds: float = 5.0) -> tuple[str, bool]:
    """Return a run as one page of HTML, with everything in it.

    Parameters
    ----------
    file : path
        That the run writes, or has written.
    seconds : float, optional
        After which a browser loads it anew, while the run goes on.

    Returns
    -------
    page : str
        HTML.
    ended : bool
        Whether nothing more will come.
    """
    with open_trajectory(file) as trajectory:
        text, ended = state_of_file(os.fspath(file), trajectory)
        verdict = of_trajectory(trajectory)
        drawing = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": "langevin_nn"}):
            monitor_figure(trajectory, verdict).savefig(drawing, format="svg", metadata={"Date": None})
    said = "losses of samples were not recorded" if verdict is None else str(verdict)
    paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in said.splitlines())
    phase = "" if verdict is None else verdict.phase
    page = _PAGE.format(
        refresh="" if ended else f'<meta http-equiv="refresh" content="{max(1, round(seconds))}">\n',
        name=html.escape(os.fspath(file)),
        state=html.escape(text),
        colour=_COLOURS.get(phase, _CORRECT),
        verdict=paragraphs,
        figure=drawing.getvalue().partition("<svg")[1] + drawing.getvalue().partition("<svg")[2],
    )
    return page, ended
