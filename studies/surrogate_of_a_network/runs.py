"""Training into the exploration phase, and many replicas of SGD from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn import NetworkLandscape, Process, advance, gradient_ensemble, sgd, simulate
from langevin_nn.observables import Losses, Weights
from langevin_nn.progress import Progress
from langevin_nn.schedules import AtSteps
from studies.lab.study import Work
from studies.surrogate_of_a_network.plan import Settled

__all__ = ["Start", "displacements", "sgd_displacements", "trained"]

Floats = NDArray[np.float64]

_PILOTS, _PILOT_RECORDS = 6, 3
_AT_A_TIME = 32_000_000  # weights


@dataclass(frozen=True, eq=False)
class Start:
    """Where all replicas start.

    Parameters
    ----------
    weights : Tensor, shape (parameter,)
        At the end of training.
    rows : ndarray, shape (row, parameter)
        Weights that independent draws reach from there, replica by replica.
    facts : dict of str to float
        Loss, error and order parameters there.
    """

    weights: Tensor
    rows: Floats
    facts: dict[str, float]


def trained(landscape: NetworkLandscape, settled: Settled, updates: int, horizon: int, work: Work) -> Start:
    """Train one network by SGD without label noise, and a few replicas from there, which tell how far weights go.

    Parameters
    ----------
    landscape : NetworkLandscape
        With its data.
    settled : Settled
        Rates and seed.
    updates : int
        Of training.
    horizon : int
        Updates of the runs that start there.
    work : Work
        Where runs are kept.

    Returns
    -------
    Start
        Where training ended.
    """

    def weights_of(name: str, at: Sequence[int], *, independent: bool = False, **start: Any) -> NDArray[np.float32]:
        seen = AtSteps(tuple(at))
        process = sgd(landscape, settled.learning_rate, settled.batch_size, independent=independent)
        run = simulate(
            process, steps=at[-1], seed=settled.seed, schedule=seen, observables=[Losses(), Weights(seen)],
            resume=work.path(f"{name}.nc"), **start,
        )  # fmt: skip
        found: NDArray[np.float32] = run["weights"].to_dataset()["weights"].values
        return found

    weights = torch.as_tensor(weights_of("training", [updates], replicas=1)[0, 0])
    first, gap = 2 * settled.replicas + 1, horizon // _PILOT_RECORDS
    rows = weights_of(
        "pilots", [gap * (k + 1) for k in range(_PILOT_RECORDS)], independent=True, replicas=range(first, first + _PILOTS),
        weights=weights.expand(_PILOTS, -1),
    )  # fmt: skip

    def facts() -> xr.Dataset:
        here, there = (torch.as_tensor(each).to(landscape.device) for each in (weights, rows[:, -1]))
        order = gradient_ensemble(landscape, here, settled.batch_size).closed_forms()
        losses, errors = landscape.losses_and_errors(here[None])
        found = {
            "train_loss": losses.mean(),
            "train_error": errors.mean(),
            "projection_variance": order["projection_variance"][0],
            "noise_strength": order["noise_strength"][0],
            "end_loss": landscape.loss(there).mean(),
        }
        return xr.Dataset({name: float(value) for name, value in found.items()})

    kept = {str(name): float(value) for name, value in work.kept("start", facts).items()}
    return Start(weights, rows.reshape(-1, len(weights)).astype(np.float64), kept)


def displacements(
    process: Process, replicas: Sequence[int], seed: int, updates: NDArray[np.int64], **start: Any
) -> NDArray[np.float32]:
    """Return the weights of a surrogate at some updates.

    Parameters
    ----------
    process : Process
        Of few dimensions.
    replicas : sequence of int
        Indices.
    seed : int
        Owner of all randomness.
    updates : ndarray of int, shape (record,)
        When.
    **start : object
        Of `Process.start`.

    Returns
    -------
    ndarray of float32, shape (replica, record, direction)
        NaN for replicas that have diverged.
    """
    state = process.start(replicas, seed, **start)
    found = np.empty((len(replicas), len(updates), process.landscape.n_parameters), np.float32)
    for record, update in enumerate(updates):
        state = advance(process, state, int(update) - state.step, on_divergence="mask")
        found[:, record] = state.weights.numpy()
    return found


def sgd_displacements(
    landscape: NetworkLandscape,
    settled: Settled,
    start: Start,
    directions: Tensor,
    updates: NDArray[np.int64],
    *,
    independent: bool,
) -> xr.Dataset:
    """Return where many replicas of SGD go along some directions.

    Parameters
    ----------
    landscape : NetworkLandscape
        With its data.
    settled : Settled
        Rates, replicas and seed.
    start : Start
        Where all start.
    directions : Tensor, shape (direction, parameter)
        Unit vectors.
    updates : ndarray of int, shape (record,)
        When.
    independent : bool
        Whether minibatches are drawn independently rather than from shuffled epochs.

    Returns
    -------
    xarray.Dataset
        ``displacement`` (replica, record, direction).
    """
    process = sgd(landscape, settled.learning_rate, settled.batch_size, independent=independent)
    first = 1 + settled.replicas * independent
    together = max(1, _AT_A_TIME // landscape.n_parameters)
    found = np.empty((settled.replicas, len(updates), len(directions)), np.float32)
    batches = range(0, settled.replicas, together)
    with Progress(total=len(batches) * len(updates), desc="records", disable=None) as bar:
        for done in batches:
            replicas = range(first + done, first + min(settled.replicas, done + together))
            state = process.start(replicas, settled.seed, weights=start.weights.expand(len(replicas), -1))
            for record, update in enumerate(updates):
                state = advance(process, state, int(update) - state.step)
                away = (state.weights - start.weights.to(state.weights)).double()
                found[done : done + len(replicas), record] = (away @ directions.T).cpu().numpy()
                bar.update()
    return xr.Dataset({"displacement": (("replica", "record", "direction"), found)})
