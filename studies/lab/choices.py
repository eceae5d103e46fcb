"""What the studies of the paper train: data, labels and network, as the paper has them or as the data set says."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
import tyro
from torch import nn

from langevin_nn import NetworkLandscape, Seeds
from langevin_nn.checks import number, shown, whole_number
from langevin_nn.errors import ConfigurationError
from models.datasets import DATA_VARIABLE, DATASETS, DataSet, ImageData, load_dataset
from models.label_noise import corrupt_labels
from models.networks import multilayer_perceptron
from studies.lab.command import Output
from studies.lab.named import dataset_help, dataset_named

__all__ = [
    "DEVIATIONS",
    "UNLESS_GIVEN",
    "Choices",
    "DatasetName",
    "NameOfFlat",
    "Settled",
    "dataset_of",
    "landscape_of",
    "load",
    "refuse_missing_gpu",
    "refuse_own_network",
    "settle",
    "widths_of",
]

_MOST_PARAMETERS = 2_000_000

# What the paper does not give, and what was taken instead; every report lists it.
DEVIATIONS = (
    "Weights start from PyTorch's default, uniform within ± n^(-1/2) for n inputs; the paper does not say from where.",
    "Pixels lie in [0, 1]; the paper does not give their scale.",
    "mnist10k takes training and test images from MNIST's test file of 10,000: the first 400 of each digit to train on, the "
    "rest to test on. The paper trains on 400 of each digit of the training file.",
    "Figures 1 and 2 are given without learning rate and minibatch in the paper.",
    "Order parameters are exact averages over all minibatches drawn without replacement, except R, which is estimated from "
    "independent minibatches.",
    "The fall of a phase's training error, not the eye, sets phase boundaries (see docs/analyzers.md).",
)


_FLAT = tuple(each for each in DATASETS.values() if each.network is None)
UNLESS_GIVEN = "; mnist10k where a data folder is named, else digits, unless given"
DatasetName = Annotated[str | None, tyro.conf.arg(help=dataset_help())]
NameOfFlat = Annotated[str | None, tyro.conf.arg(help=dataset_help(known=_FLAT))]


@dataclass(frozen=True)
class Choices(Output):
    """What can be chosen in every study of the paper."""

    dataset: Annotated[str | None, tyro.conf.arg(help=dataset_help(UNLESS_GIVEN))] = None
    data_dir: Path | None = None
    """Folder with the files of a data set that needs them; the variable LANGEVIN_NN_DATA unless given."""
    samples_per_class: int | None = None
    """Training images of each class; as the paper, or as the data set needs, unless given."""
    learning_rate: float | None = None
    """Learning rate α, in units of gradient-flow time; as the paper, or as the data set needs, unless given."""
    batch_size: int | None = None
    """Samples in a minibatch; as the paper, or as the data set needs, unless given."""
    epochs: float | None = None
    """Length of each run, in epochs; as the paper, or as the data set needs, unless given."""
    replicas: int = 8
    """Replicas, each with its own labels, initial weights and minibatches."""
    seed: int = 0
    """Owner of all randomness: labels, initial weights, minibatches."""
    device: str = "cpu"
    """Where to compute: cpu, or cuda for a GPU."""


@dataclass(frozen=True, kw_only=True)
class Settled(Choices):
    """The same, with everything chosen: what was left open is as the data set needs it."""

    dataset: str
    learning_rate: float
    batch_size: int
    epochs: float


S = TypeVar("S", bound=Settled)
Trained = Literal["trained", "clean", "swept", "coarse"]


def settle(kind: type[S], choices: Choices, setting: Trained = "trained") -> S:
    """Return choices in which everything is chosen.

    Parameters
    ----------
    kind : type
        Of what is returned: a study's choices, settled.
    choices : Choices
        What was chosen.
    setting : {"trained", "clean", "swept", "coarse"}, optional
        Which of the settings of its `DataSet` the study trains with.

    Returns
    -------
    Settled
        Without None where the data set says what to take.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run, or is left open by a data set of one's own.
    UnknownNameError
        If there is no such data set.
    """
    choices = replace(choices, dataset=choices.dataset or _at_hand(choices.data_dir))
    data = dataset_of(choices)
    known = asdict(getattr(data, setting) or data.trained)
    chosen = {name: value for name, value in known.items() if getattr(choices, name) is None}
    settled = kind(**{**vars(choices), **chosen})
    missing = [name for name in known if getattr(settled, name) is None]
    if missing:
        raise ConfigurationError(
            f"dataset={choices.dataset!r} without {', '.join(missing)}: expected them, since nobody but you knows how a "
            f"network is trained on your data; choose them, or name a DataSet that says {setting}=Setting(...)"
        )
    _check(settled)
    return settled


def _at_hand(data_dir: Path | None) -> str:
    return "mnist10k" if data_dir is not None or os.environ.get(DATA_VARIABLE) else "digits"


def dataset_of(config: Choices) -> DataSet:
    """Return all that is known of the data set.

    Parameters
    ----------
    config : Choices
        With a data set, or none where one at hand is taken.

    Returns
    -------
    DataSet
        A known one, or a user's own.
    """
    return dataset_named(config.dataset or _at_hand(config.data_dir))


def refuse_own_network(config: Choices, reason: str) -> None:
    """Raise for a data set on which no fully connected network is trained.

    Parameters
    ----------
    config : Choices
        With a data set.
    reason : str
        Why the study needs one.

    Raises
    ------
    ConfigurationError
        Naming data sets that will do.
    """
    if dataset_of(config).network is not None:
        *some, last = (each.name for each in _FLAT)
        raise ConfigurationError(
            f"dataset={config.dataset!r}: expected one on which a fully connected network is trained, {reason}; choose "
            f"{', '.join(some)} or {last}, or a data set of your own without a network"
        )


def refuse_missing_gpu(device: str) -> None:
    """Raise where a GPU is asked for and there is none.

    Parameters
    ----------
    device : str
        cpu or cuda.

    Raises
    ------
    ConfigurationError
        Saying what to do.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device {device!r}: expected a GPU that this installation of torch can use, found none; run with --device cpu, "
            "or install torch's CUDA build (see the README)"
        )


def widths_of(n_inputs: int, hidden: tuple[int, ...], n_classes: int, most: int) -> tuple[int, ...]:
    """Return the widths of all layers of a fully connected network.

    Parameters
    ----------
    n_inputs, n_classes : int
        At its ends.
    hidden : tuple of int
        Units of each layer between them.
    most : int
        Parameters that it may have.

    Returns
    -------
    tuple of int
        From the inputs on.

    Raises
    ------
    ConfigurationError
        If it has more.
    """
    widths = (n_inputs, *hidden, n_classes)
    n_parameters = sum((before + 1) * after for before, after in pairwise(widths))
    if n_parameters > most:
        raise ConfigurationError(
            f"hidden={shown(hidden)} makes a network of {n_parameters:,} parameters: expected at most {most:,}, since the "
            "noise of every sample's gradient is measured; choose narrower layers"
        )
    return widths


def _check(config: Settled) -> None:
    refuse_missing_gpu(config.device)
    expected = "at least 2 (int), since claims are held to intervals over replicas"
    whole_number("replicas", config.replicas, expected, least=2, most=10_000)
    number("learning_rate", config.learning_rate, "a finite rate above 0", above=0, most=1e6)
    number("epochs", config.epochs, "a finite number of epochs above 0", above=0, most=1e7)
    whole_number("batch_size", config.batch_size, "at least 1 sample (int)", least=1)


@cache
def load(config: Choices) -> ImageData:
    """Return the data, as the network takes them; once for all.

    Parameters
    ----------
    config : Choices
        With a data set.

    Returns
    -------
    ImageData
        Images flattened, but for a network of the data set's own.

    Raises
    ------
    UnknownNameError
        If there is no such data set.
    ConfigurationError
        If its files are missing, or there are too few images.
    """
    entry = dataset_of(config)
    data = load_dataset(entry, samples_per_class=config.samples_per_class, data_dir=config.data_dir)
    if entry.network is not None:
        return data
    flat = {name: getattr(data, name).reshape(len(getattr(data, name)), -1) for name in ("train_inputs", "test_inputs")}
    return replace(data, **flat)


def _network(own: Callable[[], nn.Module] | None, data: ImageData, hidden: tuple[int, ...]) -> Callable[[], nn.Module]:
    if own is not None:
        return own
    widths = widths_of(data.train_inputs.shape[1], hidden, data.n_classes, _MOST_PARAMETERS)
    return lambda: multilayer_perceptron(widths)


def landscape_of(
    data: ImageData,
    config: Choices,
    *,
    label_noise: float = 0.0,
    kind: str = "uniform",
    hidden: tuple[int, ...] = (50, 50),
    parameters: str = "*",
    replicas: tuple[int, ...] | None = None,
    trained_on: Literal["given", "true"] = "given",
) -> NetworkLandscape:
    """Return the network with its data, each replica with noisy labels of its own.

    Parameters
    ----------
    data : ImageData
        Of `load`.
    config : Choices
        Seed, replicas, device.
    label_noise : float, optional
        Share of training samples whose label is redrawn.
    kind : str, optional
        Law of the new labels.
    hidden : tuple of int, optional
        Units of each hidden layer of a fully connected network.
    parameters : str, optional
        Pattern of the tensors that are measured.
    replicas : tuple of int, optional
        Indices of the replicas, whose labels are drawn; as many as there are unless given.
    trained_on : {"given", "true"}, optional
        Whether the network learns the redrawn labels, or, as a control, the true ones: the cohorts are then of the same
        samples, but nothing tells one from the other.

    Returns
    -------
    NetworkLandscape
        Replica r has the labels of index r whatever the others are.
    """
    chosen = range(config.replicas) if replicas is None else replicas
    given, relabeled = data.train_labels, np.zeros(len(data.train_labels), dtype=bool)
    if label_noise != 0:  # what is no share, NaN included, is refused there
        drawn = [
            corrupt_labels(
                data.train_labels,
                label_noise,
                kind=kind,
                n_classes=data.n_classes,
                seeds=Seeds(config.seed),
                replica=each,
            )
            for each in chosen
        ]
        given, relabeled = (np.stack([getattr(each, name) for each in drawn]) for name in ("given_labels", "relabeled"))
    true = np.broadcast_to(data.train_labels, given.shape).copy()
    learned, other = (given, true) if trained_on == "given" else (true, given)
    return NetworkLandscape(
        _network(dataset_of(config).network, data, hidden),
        data.train_inputs,
        learned,
        true_labels=other,
        relabeled=relabeled,
        test_inputs=data.test_inputs,
        test_labels=data.test_labels,
        parameters=parameters,
        device=config.device,
    )
