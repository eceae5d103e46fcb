"""What the study of variance and flatness runs: networks trained to exploration, and windows of every process from there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn import NetworkLandscape, Process, Seeds, frozen_langevin, isotropic_langevin, langevin, sgd, simulate
from langevin_nn.analyzers import detect_phases
from langevin_nn.ensemble import covariance_factor
from langevin_nn.errors import EstimationRefused
from langevin_nn.observables import Losses, MeasuredWeights, Weights
from langevin_nn.schedules import AtSteps, EveryEpochs
from models.datasets import ImageData
from studies.lab import choices
from studies.lab.choices import NameOfFlat, dataset_of, landscape_of

__all__ = [
    "PROCESSES",
    "RANDOM_WALK",
    "Config",
    "Settled",
    "Start",
    "copies_of",
    "hidden_columns",
    "network",
    "random_walk",
    "trained",
    "window_of",
]

Floats = NDArray[np.float64]

RANDOM_WALK = "random_walk"
PROCESSES = ("sgd", "independent_sgd", "langevin", "frozen_langevin", "isotropic_langevin")

_AVERAGED = 0.1  # share of training, at its end, whose mean weights are where every process starts
_NEVER = 2**40  # updates between refreshes


@dataclass(frozen=True)
class Config(choices.Choices):
    """Everything that can be chosen."""

    dataset: NameOfFlat = "digits"
    hidden: tuple[int, ...] = (20, 20)
    """Units of the two hidden layers."""
    parameters: str | None = None
    """Pattern of the tensors whose fluctuations are measured, such as 2.weight, the weights between the hidden layers, which
    are Feng & Tu's; * for all. As the data set says unless given: all on the digits, 2.weight on larger images."""
    processes: tuple[str, ...] = PROCESSES
    """What to compare; a random walk with SGD's noise and no landscape is always beside them."""
    replicas: int = 16
    """Networks, each trained from its own initial weights; intervals are over them."""
    copies: int = 4
    """Trajectories of each process from each trained network, 4 at least, which differ in their noise alone; with 64 of them
    in all, as by default, each process writes 0.3 GB."""
    burn_in: float = 10.0
    """Epochs that each process runs before its window begins."""
    window: float = 50.0
    """Length of the window whose fluctuations are measured, in epochs."""
    records: int = 600
    """Records of weights in the window."""
    components: int = 100
    """Principal components; as many eigenvectors of the Hessian, half of them at most."""
    rank: int = 100
    """Directions of frozen noise."""
    out: Path = field(default=Path("output/variance_flatness"))
    """Folder for trajectories, summary.json and figures."""


@dataclass(frozen=True, kw_only=True)
class Settled(choices.Settled, Config):
    """The same, with everything chosen."""

    parameters: str

    def steps_of(self, n_samples: int) -> NDArray[np.int64]:
        """Return the updates at which weights are recorded.

        Parameters
        ----------
        n_samples : int
            N.

        Returns
        -------
        ndarray of int, shape (record,)
            Evenly spaced, from the end of the burn-in on.
        """
        per_epoch = n_samples // self.batch_size
        first, length = round(self.burn_in * per_epoch), round(self.window * per_epoch)
        gap = max(1, length // self.records)
        return first + gap * np.arange(length // gap)


@dataclass(frozen=True)
class Start:
    """Where every process starts.

    Parameters
    ----------
    weights : Tensor, shape (replica, parameter)
        Of each trained network, the mean over its last epochs.
    loss : ndarray, shape (replica,)
        Training loss there.
    exploration_begins : ndarray, shape (replica,)
        In epochs.
    epoch : float
        When.
    """

    weights: Tensor
    loss: Floats
    exploration_begins: Floats
    epoch: float


def network(settled: Settled, data: ImageData) -> NetworkLandscape:
    """Return the landscape, whose measurements are restricted to the chosen parameters.

    Parameters
    ----------
    settled : Settled
        What was chosen.
    data : ImageData
        The training set.

    Returns
    -------
    NetworkLandscape
        Without label noise.
    """
    return landscape_of(data, settled, hidden=settled.hidden, parameters=settled.parameters)


def hidden_columns(settled: Settled, data: ImageData, landscape: NetworkLandscape) -> NDArray[np.int64]:
    """Return where the weights between the hidden layers are among the measured ones.

    Parameters
    ----------
    settled, data
        As in `network`.
    landscape : NetworkLandscape
        Of `network`.

    Returns
    -------
    ndarray of int
        Empty where nothing but them is measured, or not all of them.
    """
    restricted = landscape_of(data, settled, hidden=settled.hidden, parameters=dataset_of(settled).hidden_weights)
    alone = restricted.measured_columns
    places = np.flatnonzero(np.isin(landscape.measured_columns.cpu().numpy(), alone.cpu().numpy()))
    whole = len(places) == len(alone) < len(landscape.measured_columns)
    return places if whole else np.empty(0, dtype=np.int64)


def trained(settled: Settled, landscape: NetworkLandscape, runs: Path) -> Start:
    """Train every replica by SGD into the exploration phase.

    Parameters
    ----------
    settled : Settled
        What was chosen.
    landscape : NetworkLandscape
        Of `network`.
    runs : Path
        Where files go.

    Returns
    -------
    Start
        Where the windows begin.

    Raises
    ------
    EstimationRefused
        If a replica has not reached exploration.
    """
    per_epoch = landscape.n_samples // settled.batch_size
    last = round(settled.epochs * per_epoch)
    averaged = tuple(range(last - round(_AVERAGED * settled.epochs) * per_epoch, last + 1, per_epoch))
    tree = simulate(
        sgd(landscape, settled.learning_rate, settled.batch_size),
        steps=last,
        replicas=settled.replicas,
        seed=settled.seed,
        observables=[Losses(EveryEpochs(max(1.0, settled.epochs / 100))), Weights(AtSteps(averaged))],
        resume=runs / "training.nc",
    )
    begins = detect_phases(tree).boundary_epoch.isel(boundary=0).values
    first = averaged[0] / per_epoch
    late = ~(begins <= first)
    if late.any():
        raise EstimationRefused(
            f"{int(late.sum())} of {settled.replicas} replicas had not reached the exploration phase by epoch {first:g}: "
            "expected all of them, since fluctuations about a solution are measured; train for longer with --epochs",
            exploration_begins=begins.tolist(),
        )
    weights = torch.as_tensor(tree["weights"]["weights"].mean("weight_step").values).to(
        landscape.device, landscape.dtype
    )
    losses = np.asarray(landscape.loss(weights).double().cpu().numpy())
    return Start(weights, losses, begins, last / per_epoch)


def _process(name: str, settled: Settled, landscape: NetworkLandscape) -> Process:
    given = landscape, settled.learning_rate, settled.batch_size
    if name == "frozen_langevin":
        return frozen_langevin(*given, settled.rank, refresh_every=_NEVER, remainder="none")
    if name == "isotropic_langevin":
        return isotropic_langevin(*given, refresh_every=_NEVER)
    if name == "langevin":
        return langevin(*given)
    return sgd(*given, independent=name == "independent_sgd")


def window_of(name: str, settled: Settled, landscape: NetworkLandscape, start: Start, runs: Path) -> xr.DataTree:
    """Run the copies of a process from every trained network.

    Parameters
    ----------
    name : str
        Of the process.
    settled, landscape, runs
        As in `trained`.
    start : Start
        Of `trained`.

    Returns
    -------
    xarray.DataTree
        Copy j of replica r is at the position r · copies + j; losses, and the measured weights in the window.
    """
    steps = settled.steps_of(landscape.n_samples)
    return simulate(
        _process(name, settled, landscape),
        steps=int(steps[-1]),
        replicas=settled.replicas * settled.copies,
        seed=Seeds(settled.seed).integer("windows of fluctuations", 0),
        weights=start.weights.repeat_interleave(settled.copies, 0),
        observables=[
            Losses(EveryEpochs(max(1.0, settled.window / 20))),
            MeasuredWeights(AtSteps(tuple(map(int, steps)))),
        ],
        resume=runs / f"{name}.nc",
    )


def copies_of(settled: Settled, tree: xr.DataTree, replica: int) -> xr.Dataset:
    """Return the copies that started from one trained network.

    Parameters
    ----------
    settled : Settled
        What was chosen.
    tree : xarray.DataTree
        Of `window_of`.
    replica : int
        Which network.

    Returns
    -------
    xarray.Dataset
        In memory: ``weights`` (replica, weight_step, parameter), where a replica is a copy.
    """
    own = slice(replica * settled.copies, (replica + 1) * settled.copies)
    return tree["weights"].to_dataset().isel(replica=own).load()


def random_walk(settled: Settled, landscape: NetworkLandscape, start: Start, replica: int) -> xr.Dataset:
    """Return copies of a random walk with the covariance of minibatch noise where a network was trained to, and no landscape.

    Parameters
    ----------
    settled, landscape, start
        As in `window_of`.
    replica : int
        Which network.

    Returns
    -------
    xarray.Dataset
        ``weights`` (replica, weight_step, parameter), recorded as those of the processes are; a replica is a copy.
    """
    steps = settled.steps_of(landscape.n_samples)
    n, gap = landscape.n_samples, int(steps[1] - steps[0])
    # C = f/(B N) Σ (g_k − ḡ)(g_k − ḡ)ᵀ, and gap updates between two records.
    scale = settled.learning_rate * np.sqrt(gap * covariance_factor(n, settled.batch_size) / n)
    gradients = landscape.sample_gradients(start.weights[replica]).dense().double().numpy()
    generator = Seeds(settled.seed).generator("random walk", replica)
    normals = generator.standard_normal((settled.copies, len(steps), n))
    kicks = scale * (normals - normals.mean(-1, keepdims=True)) @ gradients
    clocks = {name: ("weight_step", values) for name, values in _clocks(settled, n).items()}
    return xr.Dataset({"weights": (("replica", "weight_step", "parameter"), np.cumsum(kicks, axis=1))}, coords=clocks)


def _clocks(settled: Settled, n_samples: int) -> dict[str, Any]:
    steps = settled.steps_of(n_samples)
    return {
        "weight_step": steps,
        "epoch": steps * settled.batch_size / n_samples,
        "time": steps * settled.learning_rate,
    }
