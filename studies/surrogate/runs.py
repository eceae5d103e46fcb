"""Training into the exploration phase, and many replicas of SGD from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from langevin_nn import NetworkLandscape, Process, Surrogate, advance, gradient_ensemble, sgd
from langevin_nn.store import write_trajectory

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


def trained(landscape: NetworkLandscape, config: Any, updates: int, horizon: int, path: Path) -> Start:
    """Train one network by SGD without label noise; or find it done.

    Parameters
    ----------
    landscape : NetworkLandscape
        With its data.
    config : Config
        Rates and seed.
    updates : int
        Of training.
    horizon : int
        Updates of the runs that start there.
    path : Path
        Where it is kept.

    Returns
    -------
    Start
        With a trajectory of a few replicas, which tells how far weights go.
    """
    if not path.exists():
        rates = config.learning_rate, config.batch_size
        walk = sgd(landscape, *rates)
        weights = advance(walk, walk.start(1, config.seed), updates).weights[0]
        pilots = range(2 * config.replicas + 1, 2 * config.replicas + 1 + _PILOTS)
        walk, rows = sgd(landscape, *rates, independent=True), []
        state = walk.start(pilots, config.seed, weights=weights.expand(_PILOTS, -1))
        for _ in range(_PILOT_RECORDS):
            state = advance(walk, state, horizon // _PILOT_RECORDS)
            rows.append(state.weights.double().cpu().numpy())
        order = gradient_ensemble(landscape, weights, config.batch_size).closed_forms()
        losses, errors = landscape.losses_and_errors(weights[None])
        facts = {
            "train_loss": float(losses.mean()),
            "train_error": float(errors.mean()),
            "projection_variance": float(order["projection_variance"][0]),
            "noise_strength": float(order["noise_strength"][0]),
            "end_loss": float(landscape.loss(state.weights).mean()),
        }
        found = xr.Dataset(
            {
                "weights": ("parameter", weights.cpu().numpy()),
                "rows": (("row", "parameter"), np.stack(rows, 1).reshape(-1, len(weights))),
            },
            attrs=facts,
        )
        write_trajectory(xr.DataTree(found), path)
    with xr.open_dataset(path) as file:
        kept = file.load()
    facts = {name: float(value) for name, value in kept.attrs.items()}
    return Start(torch.as_tensor(kept.weights.values), kept.rows.values, facts)


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
    config: Any,
    start: Start,
    fits: Sequence[Surrogate],
    updates: NDArray[np.int64],
    path: Path,
    *,
    independent: bool,
) -> list[NDArray[np.float32]]:
    """Return where many replicas of SGD go along the directions of some surrogates; or find them done.

    Parameters
    ----------
    landscape : NetworkLandscape
        With its data.
    config : Config
        Rates, replicas and seed.
    start : Start
        Where all start.
    fits : sequence of Surrogate
        Whose directions.
    updates : ndarray of int, shape (record,)
        When.
    path : Path
        Where they are kept.
    independent : bool
        Whether minibatches are drawn independently rather than from shuffled epochs.

    Returns
    -------
    list of ndarray of float32, shape (replica, record, direction)
        For each surrogate.
    """
    if not path.exists():
        process = sgd(landscape, config.learning_rate, config.batch_size, independent=independent)
        directions = torch.cat([fit.directions for fit in fits])
        first = 1 + config.replicas * independent
        together = max(1, _AT_A_TIME // landscape.n_parameters)
        found = np.empty((config.replicas, len(updates), len(directions)), np.float32)
        for done in range(0, config.replicas, together):
            replicas = range(first + done, first + min(config.replicas, done + together))
            state = process.start(replicas, config.seed, weights=start.weights.expand(len(replicas), -1))
            words = f"{path.stem}, replicas {done + 1} to {done + len(replicas)}"
            for record, update in enumerate(tqdm(updates, desc=words, unit="record", disable=None)):
                state = advance(process, state, int(update) - state.step)
                away = (state.weights - start.weights.to(state.weights)).double()
                found[done : done + len(replicas), record] = (away @ directions.T).cpu().numpy()
        named = xr.Dataset({"displacement": (("replica", "record", "direction"), found)})
        write_trajectory(xr.DataTree(named), path)
    with xr.open_dataset(path) as file:
        kept = file.displacement.values
    return np.split(kept, np.cumsum([fit.n_directions for fit in fits])[:-1], axis=2)
