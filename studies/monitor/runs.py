"""What is trained: a plain loop of torch, watched by a monitor, and once more without the samples that are held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from math import isqrt
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from langevin_nn import Monitor, Seeds
from langevin_nn.analyzers.labels import described
from langevin_nn.errors import ConfigurationError, UnstableTrajectory
from langevin_nn.threads import single_threaded_products
from models.datasets import ImageData
from models.networks import multilayer_perceptron
from studies.lab.choices import Choices, load, widths_of
from studies.lab.choices import Settled as Chosen
from studies.monitor.alignment import GradientWeightAlignment
from studies.monitor.labels import CLEAN, KINDS, given_labels

__all__ = ["NETWORKS", "Cell", "Config", "Settled", "measured", "network_of", "trained"]

NETWORKS = ("perceptron", "convolutional")

_CHANNELS = (12, 24)
_MOST_PARAMETERS = 2_000_000
_AT_ONCE = 1000  # samples whose predictions are made together
_CURVES = {
    "accuracy": "test accuracy",
    "changed_predictions": "training samples whose predicted class has changed since the epoch before",
    "weight_norm": "norm of all weights",
    "gradient_weight_alignment": "gradient-weight alignment of the last layer",
    "accuracy_held_out": "test accuracy of training without the samples that are held out",
    "validation_accuracy": "accuracy on the samples that are held out, with the labels that they have",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Config(Choices):
    """Everything that can be chosen."""

    networks: tuple[str, ...] = NETWORKS
    """Networks: perceptron, or convolutional, of two layers with batch normalisation."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of label noise: symmetric, pair, class_dependent, instance_dependent."""
    label_noises: tuple[float, ...] = (0.1, 0.2, 0.4, 0.6)
    """Shares of the training labels that are wrong; clean labels are tried in any case."""
    hidden: tuple[int, ...] = (50, 50)
    """Units of each hidden layer of the perceptron."""
    learning_rate: float | None = 0.05
    """Learning rate of both networks."""
    momentum: float = 0.9
    """Momentum of both networks."""
    batch_size: int | None = 50
    """Samples in a minibatch."""
    epochs: float | None = 80.0
    """Length of each run, in whole epochs."""
    replicas: int = 2
    """Replicas of each cell, each with its own labels, initial weights and minibatches."""
    clean_replicas: int = 8
    """Replicas with clean labels, on which false alarms are counted."""
    held_out: float = 0.1
    """Share of the training samples that a user without a monitor holds out, with the labels that they have."""
    patience: int = 10
    """Epochs without an improvement after which such a user stops, and takes the best."""
    test_samples: int = 2000
    """Test images, at most; spread evenly over the file."""
    out: Path = field(default=Path("output/monitor"))
    """Folder for runs, monitor.nc, summary.json, claims.json and the figure."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Parameters
    ----------
    network : str
        One of `NETWORKS`.
    kind : str
        Of its label noise.
    rate : float
        Share of wrong labels.
    replica : int
        Whose labels, initial weights and minibatches.
    """

    network: str
    kind: str
    rate: float
    replica: int

    @property
    def name(self) -> str:
        """Of the part in which it is run."""
        return f"{self.network}-{self.kind}-{self.rate:g}-{self.replica}"


@dataclass(frozen=True, kw_only=True)
class Settled(Chosen, Config):
    """The same, with everything chosen."""

    @property
    def n_epochs(self) -> int:
        """Epochs of every run."""
        return round(self.epochs)

    @property
    def cells(self) -> list[Cell]:
        """What is run."""
        noises = [(CLEAN, 0.0, self.clean_replicas)]
        noises += [(kind, rate, self.replicas) for kind, rate in product(self.kinds, self.label_noises)]
        return [
            Cell(network, kind, rate, replica)
            for network in self.networks
            for kind, rate, replicas in noises
            for replica in range(replicas)
        ]


def network_of(name: str, data: ImageData, hidden: tuple[int, ...]) -> nn.Module:
    """Return an untrained network, with weights from torch's global generator.

    Parameters
    ----------
    name : str
        One of `NETWORKS`.
    data : ImageData
        What it is to learn.
    hidden : tuple of int
        Units of each hidden layer of a perceptron.

    Returns
    -------
    torch.nn.Module
        Takes inputs in the shape that the data have.

    Raises
    ------
    ConfigurationError
        If it would be too large, or the inputs are no images.
    """
    shape = data.train_inputs.shape[1:]
    n_inputs = int(np.prod(shape))
    if name == "perceptron":
        widths = widths_of(n_inputs, hidden, data.n_classes, _MOST_PARAMETERS)
        return nn.Sequential(nn.Flatten(), multilayer_perceptron(widths))
    side = isqrt(n_inputs)
    image = tuple(shape) if len(shape) == 3 else (1, side, side)
    if int(np.prod(image)) != n_inputs or min(image[1:]) < 4:
        raise ConfigurationError(
            f"inputs of shape {tuple(shape)}: expected images of 4×4 pixels or more for a convolutional network; choose "
            "--networks perceptron"
        )
    layers: list[nn.Module] = [nn.Unflatten(1, image)] if len(shape) == 1 else []
    before = image[0]
    for channels in _CHANNELS:
        layers += [
            nn.Conv2d(before, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        before = channels
    n_features = before * (image[1] // 4) * (image[2] // 4)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(n_features, data.n_classes))


def trained(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    choices: Settled,
    replica: int,
    alignment: GradientWeightAlignment | None = None,
) -> Iterator[tuple[int, Monitor]]:
    """Train a network, and pause after each epoch: the loop that a user has, with a monitor in it.

    Parameters
    ----------
    network : torch.nn.Module
        Which is changed.
    inputs, labels : Tensor, shape (sample, ...)
        What it learns.
    choices : Settled
        How, and how long.
    replica : int
        Whose minibatches.
    alignment : GradientWeightAlignment, optional
        Is shown what the network said of each sample.

    Yields
    ------
    tuple of int and Monitor
        Epochs that have ended, and the monitor, which knows losses and predictions as they were when samples were seen, and
        no more; the network is in evaluation mode.

    Raises
    ------
    UnstableTrajectory
        If the loss is no longer finite.
    """
    order = torch.Generator().manual_seed(Seeds(choices.seed).integer("minibatches", replica))
    optimizer = torch.optim.SGD(network.parameters(), choices.learning_rate, momentum=choices.momentum)
    with Monitor(network, n_samples=len(labels), optimizer=optimizer, every=0) as monitor:
        for epoch in range(1, choices.n_epochs + 1):
            network.train()
            mixed = torch.randperm(len(labels), generator=order).to(labels.device)
            for index in torch.split(mixed, choices.batch_size):
                logits = network(inputs[index])
                losses = cross_entropy(logits, labels[index], reduction="none")
                loss = losses.mean()
                if not torch.isfinite(loss):
                    raise UnstableTrajectory(replica, monitor.step_count, choices.learning_rate)
                optimizer.zero_grad()
                if alignment is not None:
                    alignment.take(logits, labels[index])
                with monitor.step(losses, index, labels=labels[index], logits=logits):
                    torch.autograd.backward(loss)
                optimizer.step()
            network.eval()
            yield epoch, monitor


def measured(choices: Settled, cell: Cell) -> xr.Dataset:
    """Run a cell: with all samples, to the end, and without those that are held out, until patience ends.

    Parameters
    ----------
    choices : Settled
        What is trained.
    cell : Cell
        With which labels.

    Returns
    -------
    xarray.Dataset
        By epoch, ``accuracy`` on the test images, ``changed_predictions`` of training samples since the epoch before,
        ``weight_norm``, ``gradient_weight_alignment``, what the monitor recorded, ``sample_loss`` and ``predicted_label`` by
        sample, and, of the run without the held out, ``accuracy_held_out`` on the test images and ``validation_accuracy`` on
        the held out, NaN after its end. ``given_label`` and ``true_label`` by sample.
    """
    data, seeds = load(choices), Seeds(choices.seed)
    given = given_labels(
        data.train_inputs, data.train_labels, data.n_classes, cell.kind, cell.rate, seeds, cell.replica
    )
    inputs, labels = (torch.as_tensor(each, device=choices.device) for each in (data.train_inputs, given))
    some = np.linspace(0, len(data.test_labels) - 1, min(choices.test_samples, len(data.test_labels)), dtype=np.int64)
    test, answers = (
        torch.as_tensor(each[some], device=choices.device) for each in (data.test_inputs, data.test_labels)
    )
    mixed = torch.as_tensor(seeds.generator("held out", cell.replica).permutation(len(given)), device=choices.device)
    n_held = _number_held_out(len(given), choices)
    held, kept = mixed[:n_held], mixed[n_held:]

    def network() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.integer("initial weights", cell.replica) % 2**63)
            return network_of(cell.network, data, choices.hidden).to(choices.device)

    curves = {name: np.full(choices.n_epochs, np.nan) for name in _CURVES}
    with single_threaded_products():
        own, before = network(), None
        with GradientWeightAlignment(own) as alignment:
            for epoch, monitor in trained(own, inputs, labels, choices, cell.replica, alignment):
                curves["accuracy"][epoch - 1] = _right(own, test, answers)
                curves["weight_norm"][epoch - 1] = _norm(own)
                curves["gradient_weight_alignment"][epoch - 1] = alignment.end_epoch()
                now = _predictions(own, inputs)
                if before is not None:
                    curves["changed_predictions"][epoch - 1] = float((now != before).sum())
                before, watching = now, monitor
        recorded = watching.trajectory["samples"].to_dataset().isel(replica=0)
        own = network()
        values, best = curves["validation_accuracy"], 0
        for epoch, _ in trained(own, inputs[kept], labels[kept], choices, cell.replica):
            curves["accuracy_held_out"][epoch - 1] = _right(own, test, answers)
            values[epoch - 1] = _right(own, inputs[held], labels[held])
            best = epoch - 1 if values[epoch - 1] > values[best] else best
            if epoch - 1 - best >= choices.patience:
                break
    variables = {name: described(["epoch"], curves[name], words) for name, words in _CURVES.items()}
    for name in ("sample_loss", "predicted_label"):
        values = recorded[name].values.astype(np.float32)
        variables[name] = described(["epoch", "sample"], values, recorded[name].attrs["long_name"])
    epochs = described(["epoch"], np.arange(1, choices.n_epochs + 1), "epochs that have ended")
    return xr.Dataset(
        {
            **variables,
            "given_label": described(["sample"], given, "label in training"),
            "true_label": described(["sample"], data.train_labels, "label before label noise"),
            "wrong_share": described([], (given != data.train_labels).mean(), "share of labels that are wrong"),
        },
        coords={"epoch": epochs},
    )


def _number_held_out(n_samples: int, choices: Settled) -> int:
    return round(choices.held_out * n_samples)


def _predictions(network: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(part).argmax(1) for part in torch.split(inputs, _AT_ONCE)])


def _norm(network: nn.Module) -> float:
    return float(torch.stack([each.detach().double().square().sum() for each in network.parameters()]).sum().sqrt())


def _right(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return float((_predictions(network, inputs) == labels).double().mean())
