"""A run in words, as it goes on: verdict, losses, their histogram, order parameters."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.errors import ConfigurationError
from langevin_nn.monitor.averages import pooled
from langevin_nn.monitor.record import predictions_of
from langevin_nn.monitor.settled import Settling
from langevin_nn.monitor.verdict import Verdict, verdict_of
from langevin_nn.report import plot
from langevin_nn.store import folder_of, open_trajectory
from langevin_nn.store.lock import owner_of
from langevin_nn.store.parts import is_alive

__all__ = [
    "averages_of",
    "counted",
    "histogram",
    "live",
    "of_trajectory",
    "settling_of",
    "spread",
    "state_of_file",
    "whereabouts",
]

_BINS, _WIDTH = 16, 48
_AVERAGED = 16  # passes that tell an order parameter together
_AVERAGES = 20  # of a run, where its course is drawn
_NAMES = {
    "directed_activity": "A₀",
    "noise_strength": "D",
    "gradient_noise_scale": "noise scale",
    "alignment_approximation": "R about",
}


def of_trajectory(trajectory: xr.DataTree, replica: int = 0) -> Verdict | None:
    """Return the verdict on a recorded run.

    Parameters
    ----------
    trajectory : xarray.DataTree
        Monitored, or simulated with `SampleLosses`.
    replica : int, optional
        Position of the replica.

    Returns
    -------
    Verdict or None
        None where losses of samples were not recorded.
    """
    if "samples" not in trajectory.children or "sample_loss" not in trajectory["samples"].data_vars:
        return None
    samples = trajectory["samples"].to_dataset().isel(replica=replica, missing_dims="ignore")
    clock, given = _clock_and_labels(samples)
    return verdict_of(list(samples.sample_loss.values), clock, given, settling_of(samples))


def settling_of(samples: xr.Dataset) -> Settling:
    """Return what recorded predictions have settled on.

    Parameters
    ----------
    samples : xarray.Dataset
        The group of one replica.

    Returns
    -------
    Settling
        Empty where no predictions were recorded.
    """
    clock, given = _clock_and_labels(samples)
    losses = samples.sample_loss.values
    return Settling.of(predictions_of(samples, losses.shape), losses, clock, given)


def _clock_and_labels(samples: xr.Dataset) -> tuple[list[float], NDArray[np.int64] | None]:
    """Return when samples were recorded, and their given labels where all are known."""
    labels = samples.get("given_label")
    clock = samples.epoch.values if "epoch" in samples.coords else np.arange(samples.sizes["sample_step"])
    known = labels is not None and np.isfinite(labels.values).all()
    given = labels.values.astype(np.int64) if labels is not None and known else None
    return [float(each) for each in clock], given


def histogram(losses: NDArray[Any], mislabeled: NDArray[np.bool_] | None) -> list[str]:
    """Return a histogram of losses in characters, those that look mislabeled apart.

    Parameters
    ----------
    losses : ndarray, shape (sample,)
        NaN where a sample was not seen.
    mislabeled : ndarray of bool, shape (sample,), or None
        Which look mislabeled.

    Returns
    -------
    list of str
        A line a bin.

    Examples
    --------
    >>> histogram(np.array([0.0, 0.0, 1.0]), np.array([False, False, True]))[0].split()
    ['0.00', '|################################################', '2']
    """
    if not np.isfinite(losses).any():
        return []
    edges, counts = counted(losses, mislabeled)
    most = max(1, int(counts.sum(0).max()))
    lines = []
    for left, one, other in zip(edges, *counts, strict=False):
        marks = [round(each / most * _WIDTH) for each in (one, other)]
        bar = "#" * marks[0] + "?" * marks[1]
        lines.append(f"{left:>7.2f} |{bar} {one + other}" if one + other else f"{left:>7.2f} |")
    return lines


def counted(losses: NDArray[Any], mislabeled: NDArray[np.bool_] | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return how many losses lie in each of some bins, those that look mislabeled apart.

    Parameters
    ----------
    losses : ndarray, shape (sample,)
        NaN where a sample was not seen.
    mislabeled : ndarray of bool, shape (sample,), or None
        Which look mislabeled.

    Returns
    -------
    edges : ndarray, shape (bin + 1,)
        Of the bins.
    counts : ndarray of int, shape (2, bin)
        Of those that do not look mislabeled, and of those that do.
    """
    seen = np.isfinite(losses)
    edges = np.histogram_bin_edges(losses[seen], bins=_BINS)
    wrong = np.zeros(len(losses), dtype=bool) if mislabeled is None else mislabeled
    return edges, np.stack([np.histogram(losses[seen & each], edges)[0] for each in (~wrong, wrong)])


def spread(samples: xr.Dataset, mislabeled: NDArray[np.bool_] | None) -> dict[str, NDArray[np.float64]]:
    """Return between which losses most samples lie, by epoch.

    Parameters
    ----------
    samples : xarray.Dataset
        Group ``samples`` of a trajectory, of one replica.
    mislabeled : ndarray of bool, shape (sample,), or None
        Which look mislabeled.

    Returns
    -------
    dict of str to ndarray, shape (4, epoch)
        Epochs, and the losses below which 10 %, 50 % and 90 % lie: of those that look correct and of those that look
        mislabeled, or of all; without those of which there are none.
    """
    losses = np.asarray(samples.sample_loss.values, dtype=np.float64)
    epochs = np.asarray(samples.epoch.values if "epoch" in samples.coords else np.arange(len(losses)), dtype=np.float64)
    groups: dict[str, Any] = {"all samples": slice(None)}
    if mislabeled is not None:
        groups = {"look correct": ~mislabeled, "look mislabeled": mislabeled}
    found = {}
    for name, members in groups.items():
        few = losses[:, members]
        there = np.isfinite(few).any(1)
        if there.any():
            found[name] = np.stack([epochs[there], *np.nanquantile(few[there], [0.1, 0.5, 0.9], axis=1)])
    return found


def averages_of(trajectory: xr.DataTree) -> xr.Dataset | None:
    """Return order parameters averaged over passes, so that some twenty averages tell their course.

    Parameters
    ----------
    trajectory : xarray.DataTree
        Of a run.

    Returns
    -------
    xarray.Dataset or None
        As `pooled` has them, of the first replica and all samples; None where nothing was measured.
    """
    try:
        measured = int(trajectory.to_dataset().activity.sel(cohort="all").notnull().sum())
        averages = pooled(trajectory, max(1, measured // _AVERAGES)).isel(replica=0).sel(cohort="all")
    except (ConfigurationError, AttributeError):
        return None
    return averages if averages.sizes.get("step") else None


def whereabouts(root: xr.Dataset) -> str:
    """Return at which step and epoch a run is.

    Parameters
    ----------
    root : xarray.Dataset
        Root of its trajectory.

    Returns
    -------
    str
        Empty where nothing is recorded yet.
    """
    names = [name for name in ("step", "epoch") if root.sizes.get("step") and name in root]
    return ", ".join(f"{name} {root[name].values[-1]:,.4g}" for name in names)


def state_of_file(file: str | os.PathLike[str], trajectory: xr.DataTree) -> tuple[str, bool]:
    """Return whether a run goes on, in words, and whether it has ended.

    Parameters
    ----------
    file : path
        That the run writes.
    trajectory : xarray.DataTree
        What is in it.

    Returns
    -------
    text : str
        "complete", "running" or "stopped", and since when.
    ended : bool
        Whether nothing more will come.
    """
    if int(trajectory.attrs.get("complete", 0)):
        return "complete", True
    owner = owner_of(folder_of(Path(file)))
    if owner is None:
        return "stopped", True
    whose = f"process {owner.get('process')} on {owner.get('host')}, since {owner.get('since')}"
    gone = owner.get("host") == socket.gethostname() and not is_alive(owner)
    return f"stopped: {whose}, has gone" if gone else f"running: {whose}", gone


def live(file: str | os.PathLike[str]) -> tuple[str, bool]:
    """Return how a run fares, in words.

    Parameters
    ----------
    file : path
        That it writes, or has written.

    Returns
    -------
    text : str
        Where it is, the verdict, a plot of losses, their histogram, the latest order parameters.
    ended : bool
        Whether nothing more will come.
    """
    with open_trajectory(file) as trajectory:
        root = trajectory.to_dataset()
        text, ended = state_of_file(file, trajectory)
        lines = [f"{file}: {text}", whereabouts(root) or "nothing recorded yet"]
        verdict = of_trajectory(trajectory)
        if verdict is not None:
            lines += ["", *str(verdict).splitlines()]
        lines += _losses(root)
        if verdict is not None:
            samples = trajectory["samples"].to_dataset()
            lines += ["", f"losses of samples, epoch {samples.epoch.values[-1]:.4g} ('?': look mislabeled)"]
            lines += histogram(samples.sample_loss.values[0, -1], verdict.mislabeled)
        lines += _order_parameters(trajectory)
    return "\n".join(lines), ended


def _losses(root: xr.Dataset) -> list[str]:
    curves = {}
    for name in ("train_loss", "test_loss"):
        if name in root:
            values = root[name].sel(cohort="all") if "cohort" in root[name].dims else root[name]
            curves[name.removesuffix("_loss")] = np.asarray(values.mean("replica").values, dtype=np.float64)
    if not curves or "epoch" not in root.coords:
        return []
    drawn = plot(np.asarray(root.epoch.values), curves, "loss", "epoch")
    return ["", *drawn] if drawn else []


def _order_parameters(trajectory: xr.DataTree) -> list[str]:
    try:
        averages = pooled(trajectory, _AVERAGED).sel(cohort="all").mean("replica")
    except ConfigurationError:
        return []
    if not averages.sizes.get("step"):
        return []
    last = averages.isel(step=-1)
    said = []
    for name, symbol in _NAMES.items():
        value, error = float(last[name]), float(last[f"{name}_standard_error"])
        said.append(f"{symbol} {value:.3g} ± {error:.2g}" if np.isfinite(value) else f"{symbol} not told")
    return ["", f"order parameters about epoch {float(last.epoch):.4g}: {', '.join(said)}"]
