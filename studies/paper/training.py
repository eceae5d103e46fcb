"""What the studies of the paper train: data, labels and network, as the paper has them or as other data need them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from langevin_nn import NetworkLandscape, Seeds
from langevin_nn.checks import number, one_of, shown, whole_number
from langevin_nn.errors import ConfigurationError
from models.datasets import DATA_VARIABLE, ImageData, load_dataset
from models.label_noise import corrupt_labels
from models.networks import multilayer_perceptron, small_convolutional_network
from studies.command import Output, checked, sized

__all__ = ["DEVIATIONS", "SETTINGS", "Choices", "Setting", "hidden_weights", "landscape_of", "load", "settled"]

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


@dataclass(frozen=True)
class Choices(Output):
    """What can be chosen in every study of the paper."""

    dataset: str | None = None
    """Data set: mnist10k, mnist, digits (embedded) or cifar10; mnist10k where a data folder is named, else digits."""
    data_dir: Path | None = None
    """Folder with the files of mnist10k or cifar10; the variable LANGEVIN_NN_DATA unless given."""
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


@dataclass(frozen=True)
class Setting:
    """What a data set is trained with.

    Parameters
    ----------
    samples_per_class : int
        Training images of each class.
    learning_rate : float
        α.
    batch_size : int
        B.
    epochs : float
        Length of a run that reaches all phases with half of the labels redrawn.
    is_convolutional : bool, optional
        Whether the network is convolutional rather than fully connected.
    """

    samples_per_class: int
    learning_rate: float
    batch_size: int
    epochs: float
    is_convolutional: bool = False


# MNIST as the paper has it. The others so that all phases come within the epochs.
SETTINGS = {
    "mnist": Setting(400, 0.01, 25, 500.0),
    "mnist10k": Setting(400, 0.01, 25, 500.0),
    "digits": Setting(120, 0.1, 25, 360.0),
    "cifar10": Setting(200, 0.2, 25, 120.0, is_convolutional=True),
}

C = TypeVar("C", bound=Choices)


def settled(config: C, quick: dict[str, Any], **other: dict[str, Any]) -> C:
    """Return a configuration in which everything is chosen.

    Parameters
    ----------
    config : Choices
        What was chosen.
    quick : dict
        With --quick, what takes the place of everything that was not chosen.
    **other : dict of str to object
        By data set, what this study takes in the place of `SETTINGS`.

    Returns
    -------
    Choices
        Without None where the data set says what to take.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run.
    UnknownNameError
        If there is no such data set.
    """
    config = checked(config)
    if config.quick:
        config = sized(config, quick)
    dataset = one_of("data set", config.dataset or _at_hand(config.data_dir), SETTINGS)
    config = replace(config, dataset=dataset)
    known = {each.name: getattr(SETTINGS[dataset], each.name) for each in fields(Setting)} | other.get(dataset, {})
    chosen = {name: value for name, value in known.items() if getattr(config, name, 0) is None}
    config = replace(config, **chosen)
    _check(config)
    return config


def _at_hand(data_dir: Path | None) -> str:
    return "mnist10k" if data_dir is not None or os.environ.get(DATA_VARIABLE) else "digits"


def _check(config: Choices) -> None:
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device {config.device!r}: expected a GPU that this installation of torch can use, found none; run with "
            "--device cpu, or install torch's CUDA build (see the README)"
        )
    expected = "at least 2 (int), since claims are held to intervals over replicas"
    whole_number("replicas", config.replicas, expected, least=2, most=10_000)
    number("learning_rate", config.learning_rate, "a finite rate above 0", above=0, most=1e6)
    number("epochs", config.epochs, "a finite number of epochs above 0", above=0, most=1e7)
    whole_number("batch_size", config.batch_size, "at least 1 sample (int)", least=1)


def load(config: Choices) -> ImageData:
    """Return the data, as the network takes them.

    Parameters
    ----------
    config : Choices
        With a data set.

    Returns
    -------
    ImageData
        Images flattened, but for a convolutional network.

    Raises
    ------
    UnknownNameError
        If there is no such data set.
    ConfigurationError
        If its files are missing, or there are too few images.
    """
    assert config.dataset is not None
    data = load_dataset(config.dataset, samples_per_class=config.samples_per_class, data_dir=config.data_dir)
    if _is_convolutional(data.name):
        return data
    flat = {name: getattr(data, name).reshape(len(getattr(data, name)), -1) for name in ("train_inputs", "test_inputs")}
    return replace(data, **flat)


def _is_convolutional(dataset: str) -> bool:
    return dataset in SETTINGS and SETTINGS[dataset].is_convolutional


def _network(data: ImageData, hidden: tuple[int, ...]) -> Callable[[], nn.Module]:
    if _is_convolutional(data.name):
        return small_convolutional_network
    widths = (data.train_inputs.shape[1], *hidden, data.n_classes)
    n_parameters = sum((before + 1) * after for before, after in pairwise(widths))
    if n_parameters > _MOST_PARAMETERS:
        raise ConfigurationError(
            f"hidden={shown(hidden)} makes a network of {n_parameters:,} parameters: expected at most {_MOST_PARAMETERS:,}, "
            "since the noise of every sample's gradient is measured; choose narrower layers"
        )
    return lambda: multilayer_perceptron(widths)


def hidden_weights(dataset: str) -> str:
    """Return the tensor that the paper measures: the weights between the two hidden layers.

    Parameters
    ----------
    dataset : str
        Whose network.

    Returns
    -------
    str
        Of the convolutional network, the weights of the third convolution, in its middle.
    """
    return "6.weight" if _is_convolutional(dataset) else "2.weight"


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
        given, relabeled = (_stacked([getattr(each, name) for each in drawn]) for name in ("given_labels", "relabeled"))
    true = np.broadcast_to(data.train_labels, given.shape).copy()
    learned, other = (given, true) if trained_on == "given" else (true, given)
    return NetworkLandscape(
        _network(data, hidden),
        data.train_inputs,
        learned,
        true_labels=other,
        relabeled=relabeled,
        test_inputs=data.test_inputs,
        test_labels=data.test_labels,
        parameters=parameters,
        device=config.device,
    )


def _stacked(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    return np.stack(arrays)
