"""The runs: one point, and which points there are."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from langevin_nn import NetworkLandscape, Seeds, Simulation, sgd
from langevin_nn.observables import Losses
from langevin_nn.schedules import AtSteps
from models.datasets import ImageData, load_dataset
from models.label_noise import corrupt_labels
from models.networks import multilayer_perceptron
from studies.lab.sweeps import common_times, record_times
from studies.phase_diagram.plan import Config

__all__ = ["digits", "grids", "simulation", "times_of"]


@cache
def digits(samples_per_class: int) -> ImageData:
    """Return the digits, with so many training samples of each class."""
    return load_dataset("digits", samples_per_class=samples_per_class)


def simulation(
    label_noise: float,
    learning_rate: float,
    batch_size: int,
    width: int,
    samples_per_class: int,
    *,
    replicas: int,
    times: tuple[float, ...],
    seed: int,
    of_sizes: bool = False,
) -> Simulation:
    """Return the run at one point.

    Parameters
    ----------
    label_noise : float
        Share of redrawn labels, the same in all replicas.
    learning_rate : float
        α.
    batch_size : int
        B.
    width : int
        Units of each hidden layer.
    samples_per_class : int
        Training samples a class.
    replicas : int
        How many.
    times : tuple of float
        Of records, in gradient-flow time.
    seed : int
        Of the labels, which all points of a size share, and with the rates of everything else.
    of_sizes : bool, optional
        Whether width and samples give the point randomness of its own, too.

    Returns
    -------
    Simulation
        Recorded at the same gradient-flow times at every learning rate, to within half an update.
    """
    data = digits(samples_per_class)
    noisy = corrupt_labels(data.train_labels, label_noise, seeds=Seeds(seed))
    landscape = NetworkLandscape(
        multilayer_perceptron((64, width, width, 10)),
        data.train_inputs,
        noisy.given_labels,
        true_labels=noisy.true_labels,
        test_inputs=data.test_inputs,
        test_labels=data.test_labels,
    )
    process = sgd(landscape, learning_rate, batch_size)
    last = round(times[-1] / learning_rate)
    # Weights and minibatches of their own wherever curves are compared or a law is fitted through points: rates, and sizes.
    ensemble = f"ensemble at α = {learning_rate!r}, B = {batch_size}"
    if of_sizes:
        ensemble += f", {width} units, {samples_per_class} samples a class"
    return Simulation(
        process,
        steps=last,
        replicas=replicas,
        seed=Seeds(seed).integer(ensemble, 0),
        schedule=AtSteps(tuple(int(each) for each in np.rint(np.array(times) / learning_rate))),
        observables=[Losses()],
    )


def times_of(config: Config) -> tuple[float, ...]:
    """Return when runs are recorded: at the same times at every learning rate."""
    times = record_times(config.longest, config.records)
    return common_times(times.tolist(), (1 / rate for rate in config.learning_rates))


def grids(config: Config) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the grid of the diagram and the points of the sizes."""
    diagram = {
        "label_noise": config.label_noises,
        "learning_rate": config.learning_rates,
        "batch_size": config.batch_sizes,
        "width": [config.width],
        "samples_per_class": [config.samples_per_class],
    }
    base = (config.label_noise, config.learning_rate, config.batch_size)
    pairs = [(width, config.samples_per_class) for width in config.widths]
    pairs += [(config.width, size) for size in config.class_sizes if (config.width, size) not in pairs]
    return diagram, [dict(zip(diagram, (*base, *pair), strict=True)) for pair in pairs]
