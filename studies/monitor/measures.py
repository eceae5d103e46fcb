"""When each rule stops, and what that costs against the best epoch, which nobody knows while training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers.labels import described
from langevin_nn.monitor import verdict_of
from langevin_nn.monitor.settled import Settling
from studies.monitor.labels import CLEAN
from studies.monitor.runs import Cell

__all__ = [
    "RULES",
    "best_with_patience",
    "first_minimum",
    "first_stop",
    "heard",
    "judged",
    "noisy",
    "running_mean",
    "together",
]

# Rule → what it takes. All but the first and the last go back to weights that had to be kept.
RULES = {
    "monitor": "the epoch at which the monitor first says to stop",
    "monitor_named": "the epoch that it then names, after which memorising began",
    "validation": "the best on held-out samples with noisy labels, with patience",
    "label_wave": "the first local minimum of changed predictions",
    "label_wave_patient": "their minimum, with patience",
    "alignment": "the maximum of the gradient-weight alignment, with patience",
    "weight_norm": "the maximum of the weight norm, with patience",
    "never": "the last epoch",
    "true_labels": "that in which most predictions for training samples are right, which nobody knows",
}

WINDOW = 5  # epochs of the running mean
AVERAGED = 2  # epochs, of changed predictions, as Yuan, Feng & Liu have it

Floats = NDArray[np.float64]


def running_mean(curve: Floats) -> Floats:
    """Return the mean over five epochs around each; beyond the ends its values at them go on.

    Parameters
    ----------
    curve : ndarray, shape (epoch,)
        Finite.

    Returns
    -------
    ndarray, shape (epoch,)
        Smoothed.

    Examples
    --------
    >>> running_mean(np.array([0.0, 0.0, 5.0, 0.0, 0.0, 0.0]))
    array([1., 1., 1., 1., 1., 0.])
    """
    padded = np.pad(curve, WINDOW // 2, mode="edge")
    return np.convolve(padded, np.ones(WINDOW) / WINDOW, "valid")


def best_with_patience(values: Floats, patience: int) -> tuple[int, int | None]:
    """Return what is taken where one waits for an improvement, and stops when none has come for long.

    Parameters
    ----------
    values : ndarray, shape (epoch,)
        The larger the better; NaN where there is none.
    patience : int
        Epochs without an improvement.

    Returns
    -------
    tuple of int and int or None
        Index of the best until then, and where one stops; None where one does not.

    Examples
    --------
    >>> best_with_patience(np.array([1.0, 3.0, 2.0, 2.0, 9.0]), 2)
    (1, 3)
    """
    best: int | None = None
    for now in np.flatnonzero(np.isfinite(values)):
        if best is None or values[now] > values[best]:
            best = int(now)
        elif now - best >= patience:
            return best, int(now)
    return (len(values) - 1 if best is None else best), None


def first_minimum(changes: Floats) -> int | None:
    """Return where changed predictions, averaged over two epochs, first have a local minimum.

    "Label Wave" (Yuan, Feng & Liu 2024, arXiv:2502.07551). It is known one epoch later.

    Parameters
    ----------
    changes : ndarray, shape (epoch,)
        Training samples whose prediction has changed since the epoch before; NaN at the first.

    Returns
    -------
    int or None
        Index of the epoch; None where there is none.

    Examples
    --------
    >>> first_minimum(np.array([np.nan, 9.0, 5.0, 3.0, 3.0, 4.0]))
    4
    """
    averaged = _averaged(changes)
    falls = averaged[1:-1] <= averaged[:-2]
    rises = averaged[2:] > averaged[1:-1]
    found = np.flatnonzero(falls & rises)
    return int(found[0]) + 1 if len(found) else None


def _averaged(changes: Floats) -> Floats:
    """Return means over the last two epochs, NaN where one is missing."""
    return np.concatenate([[np.nan], (changes[1:] + changes[:-1]) / AVERAGED])


def together(cells: Sequence[Cell], runs: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return all runs, one after the other.

    Parameters
    ----------
    cells : sequence of Cell
        What they are.
    runs : sequence of Dataset
        Of `measured`.

    Returns
    -------
    xarray.Dataset
        Along ``run``, with the coordinates ``network``, ``kind``, ``label_noise`` and ``replica_index``.
    """
    named = {"network": "network", "kind": "kind", "label_noise": "rate", "replica_index": "replica"}
    whole = xr.concat(list(runs), "run", data_vars="all", combine_attrs="override")
    return whole.assign_coords({name: ("run", [getattr(each, of) for each in cells]) for name, of in named.items()})


def judged(runs: xr.Dataset, patience: int) -> xr.Dataset:
    """Return when each rule stops in each run, and what it costs.

    Parameters
    ----------
    runs : xarray.Dataset
        Of `heard`.
    patience : int
        Epochs without an improvement.

    Returns
    -------
    xarray.Dataset
        With what there was, by ``rule``: ``taken_epoch``, whose weights are taken; ``said_epoch``, at which training ends,
        NaN where it goes on to the last; ``lost``, points of test accuracy below the best running mean over five epochs of
        the run with all samples, of the same running mean at that epoch, and ``lost_raw``, of both without a mean;
        and ``delay``, epochs from the one that the monitor names to its stop.
    """
    size = (runs.sizes["run"], len(RULES))
    taken, said, lost, raw = (np.full(size, np.nan) for _ in range(4))
    for row in range(runs.sizes["run"]):
        run = runs.isel(run=row)
        own, other = run.accuracy.values, run.accuracy_held_out.values
        other = other[np.isfinite(other)]
        chosen = _chosen(run, patience)
        for column, rule in enumerate(RULES):
            curve = other if rule == "validation" else own
            index, end = chosen[rule]
            taken[row, column] = run.epoch[index]
            said[row, column] = np.nan if end is None else run.epoch[end]
            lost[row, column] = 100 * (running_mean(own).max() - running_mean(curve)[index])
            raw[row, column] = 100 * (own.max() - curve[index])
    by_rule = ("run", "rule")
    return runs.assign_coords(rule=list(RULES)).assign(
        taken_epoch=described(by_rule, taken, "epoch whose weights are taken", "epoch"),
        said_epoch=described(by_rule, said, "epoch at which training ends", "epoch"),
        lost=described(by_rule, lost, "test accuracy lost against the best running mean", "percent"),
        lost_raw=described(by_rule, raw, "test accuracy lost against the best epoch", "percent"),
        delay=described(
            ["run"],
            (runs.stop_epoch - runs.named_epoch).values,
            "epochs from the one that is named to the monitor's stop",
            "epoch",
        ),
    )


def heard(runs: xr.Dataset) -> xr.Dataset:
    """Return what the monitor says in each run, in the place of what it recorded of samples.

    Parameters
    ----------
    runs : xarray.Dataset
        Of `together`.

    Returns
    -------
    xarray.Dataset
        With ``stop_epoch`` and ``named_epoch`` of `first_stop`, and by epoch ``truly_right``, the share of the training
        samples for which the true label was predicted when they were seen.
    """
    told = np.array([first_stop(runs.isel(run=row)) for row in range(runs.sizes["run"])])
    right = (runs.predicted_label == runs.true_label).mean("sample").values
    words = "training samples whose prediction, when seen, was right"
    return runs.drop_vars(["sample_loss", "predicted_label", "given_label", "true_label"]).assign(
        truly_right=described(["run", "epoch"], right, words),
        stop_epoch=described(["run"], told[:, 0], "epoch at which the monitor first says to stop", "epoch"),
        named_epoch=described(["run"], told[:, 1], "epoch whose weights it then says to take", "epoch"),
    )


def first_stop(run: xr.Dataset) -> tuple[float, float]:
    """Return at which epoch the monitor first says to stop, and whose weights it says to take.

    The verdict knows nothing but what was recorded by then, as that of `Monitor.verdict` at the end of each epoch does.

    Parameters
    ----------
    run : xarray.Dataset
        Of `measured`.

    Returns
    -------
    tuple of float
        NaN where it never does.
    """
    losses, predicted = run.sample_loss.values, run.predicted_label.values
    classes = np.where(np.isfinite(predicted), predicted, -1).astype(np.int64)
    labels, clock, settling = run.given_label.values, run.epoch.values.astype(np.float64), Settling()
    for epoch in range(1, len(losses) + 1):
        settling.take(classes[epoch - 1], losses[epoch - 1], clock[epoch - 1], labels)
        verdict = verdict_of(list(losses[:epoch]), clock[:epoch].tolist(), labels, settling)
        if verdict.should_stop:
            return float(epoch), verdict.since
    return np.nan, np.nan


def noisy(results: xr.Dataset) -> xr.Dataset:
    """Return the runs in which labels are wrong.

    Parameters
    ----------
    results : xarray.Dataset
        Of `judged`.

    Returns
    -------
    xarray.Dataset
        Fewer runs.
    """
    return results.isel(run=np.flatnonzero(results.kind.values != CLEAN))


def _chosen(run: xr.Dataset, patience: int) -> dict[str, tuple[int, int | None]]:
    """Return by rule whose epoch's weights are taken, and at which one stops, as indices."""
    last = run.sizes["epoch"] - 1
    stop, named = float(run.stop_epoch), float(run.named_epoch)
    never: tuple[int, int | None] = (last, None)
    told = np.isfinite(stop)
    at = round(stop) - 1 if told else last
    taken = min(max(round(named) - 1, 0), at) if told else last
    changes = run.changed_predictions.values
    minimum = first_minimum(changes)
    return {
        "monitor": (at, at) if told else never,
        "monitor_named": (taken, at) if told else never,
        "validation": best_with_patience(run.validation_accuracy.values, patience),
        "label_wave": never if minimum is None else (minimum, minimum + 1),
        "label_wave_patient": best_with_patience(-_averaged(changes), patience),
        "alignment": best_with_patience(run.gradient_weight_alignment.values, patience),
        "weight_norm": best_with_patience(run.weight_norm.values, patience),
        "never": never,
        "true_labels": (int(running_mean(run.truly_right.values).argmax()), None),
    }
