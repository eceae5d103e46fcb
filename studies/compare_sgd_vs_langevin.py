"""Ask which noise makes Langevin dynamics follow SGD, and which does not.

Trains one network on real digits with noisy labels by four processes that share drift, labels and initial weights and
differ in nothing but their noise: SGD; Langevin dynamics whose Gaussian noise has exactly the covariance of a minibatch;
Langevin dynamics with isotropic noise of the same trace; gradient descent. Writes trajectories.nc, distances.nc,
summary.json and figures, and prints the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from langevin_nn import Comparison, NetworkLandscape, Seeds, compare, write_trajectory
from langevin_nn.checks import one_of, shown
from langevin_nn.errors import ConfigurationError
from langevin_nn.figures import FIGURES, save_figures
from langevin_nn.report import say
from langevin_nn.schedules import EveryEpochs
from langevin_nn.store import refuse_finished
from langevin_nn.store.durable import write_json
from models.datasets import load_dataset
from models.label_noise import corrupt_labels
from models.networks import multilayer_perceptron
from studies.command import Command, Output, checked, sized
from studies.paper.folder import words_of

__all__ = ["Config", "build_landscape", "main", "run", "run_configuration"]


@dataclass(frozen=True)
class Config(Output):
    """Everything that can be chosen."""

    dataset: str = "digits"
    """Data set: digits (embedded, 8×8 pixels), mnist, mnist10k or cifar10."""
    data_dir: Path | None = None
    """Folder with the files of mnist10k or cifar10; the variable LANGEVIN_NN_DATA unless given."""
    samples_per_class: int | None = None
    """Training images of each class; 120 of digits and 400 of the others unless given."""
    label_noise: float = 0.5
    """Fraction of training samples whose label is redrawn, 0 to 1."""
    label_noise_kind: str = "uniform"
    """How labels are redrawn: uniform (any class) or exclusive (never the true one)."""
    hidden: tuple[int, ...] = (50, 50)
    """Units of each hidden layer."""
    activation: str = "relu"
    """Activation between the layers: relu, tanh or gelu."""
    batch_size: int = 25
    """Samples in a minibatch."""
    learning_rate: float = 0.1
    """Learning rate α, in units of gradient-flow time."""
    momentum: float = 0.0
    """Momentum μ of all processes, 0 to below 1."""
    weight_decay: float = 0.0
    """Weight decay λ of all processes, in units of 1/time."""
    epochs: float = 360.0
    """Length of each run, in epochs."""
    records: int = 60
    """Records of each run, at equal distances."""
    replicas: int = 4
    """Replicas of each process, at least 2; replica r of all processes starts from the same weights."""
    processes: tuple[str, ...] = ("langevin", "isotropic_langevin", "gradient_descent")
    """What to compare with SGD; independent_sgd (independent minibatches instead of shuffled epochs) is another one."""
    refresh_every: int | None = None
    """Updates between measurements of the trace that isotropic noise takes; one epoch unless given."""
    alignment_minibatches: int = 64
    """Independent minibatches from which the alignment R is estimated at each record."""
    tolerance: float = 0.5
    """Distance beyond the null's, in spreads of SGD, below which a process follows SGD and above which it does not."""
    trace_epoch: float = 50.0
    """Epoch at which the variance of sample gradients, Tr Σ, is reported."""
    parameters: tuple[str, ...] = ("*",)
    """Patterns of the tensors that are measured, such as 2.weight; training always moves all."""
    seed: int = 0
    """Owner of all randomness: labels, initial weights, noise."""
    device: str = "cpu"
    """Where to compute: cpu, or cuda for a GPU."""
    out: Path = field(default=Path("output/compare_sgd_vs_langevin"))
    """Folder for trajectories.nc, summary.json and figures."""

    def sized(self) -> Config:
        """Return the configuration that is run: with --quick, a smaller one."""
        config = self
        if config.dataset != "digits" and config.samples_per_class is None and not config.quick:
            config = replace(config, samples_per_class=400)
        return sized(config, _QUICK) if config.quick else config


NAME = "compare_sgd_vs_langevin"
RESULTS = ("trajectories.nc", "distances.nc", "summary.json", *(f"{name}.png" for name in FIGURES))
_MOST_PARAMETERS = 10_000_000

_QUICK: dict[str, Any] = {
    "samples_per_class": 20,
    "hidden": (20, 20),
    "batch_size": 10,
    "epochs": 5.0,
    "records": 5,
    "replicas": 3,
    "alignment_minibatches": 16,
}


def build_landscape(config: Config) -> NetworkLandscape:
    """Return the network with its noisy labels.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    NetworkLandscape
        On the device of the configuration.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run.
    UnknownNameError
        If the kind of label noise is none of those that the command knows.
    """
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device {config.device!r}: expected a GPU that this installation of torch can use, found none; run with "
            "--device cpu, or install torch's CUDA build (see the README)"
        )
    one_of("kind of label noise", config.label_noise_kind, ("uniform", "exclusive"))
    data = load_dataset(config.dataset, samples_per_class=config.samples_per_class, data_dir=config.data_dir)
    labels = corrupt_labels(
        data.train_labels,
        config.label_noise,
        kind=config.label_noise_kind,
        n_classes=data.n_classes,
        seeds=Seeds(config.seed),
    )
    inputs = data.train_inputs.reshape(len(data.train_inputs), -1)
    widths = (inputs.shape[1], *config.hidden, data.n_classes)
    n_parameters = sum((before + 1) * after for before, after in pairwise(widths))
    if n_parameters > _MOST_PARAMETERS:
        raise ConfigurationError(
            f"hidden={shown(config.hidden)} makes a network of {n_parameters:,} parameters: expected at most "
            f"{_MOST_PARAMETERS:,}, since the noise of every sample's gradient is measured; choose narrower layers"
        )
    return NetworkLandscape(
        lambda: multilayer_perceptron(widths, config.activation),
        inputs,
        labels.given_labels,
        true_labels=labels.true_labels,
        relabeled=labels.relabeled,
        test_inputs=data.test_inputs.reshape(len(data.test_inputs), -1),
        test_labels=data.test_labels,
        parameters=config.parameters,
        device=config.device,
    )


def run(config: Config) -> Comparison:
    """Run the study and write its results.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    Comparison
        Trajectories, distances, phases, summary.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run, or an earlier run that did not end is in the way.
    UnstableTrajectory
        If the dynamics diverge; what was recorded stays in the output folder.
    StorageError
        If the disk fails; what was recorded stays, and --resume goes on from there.
    """
    config = checked(config).sized()
    started = time.perf_counter()
    whole, *others = (config.out / name for name in RESULTS)
    take = "resume=True (--resume)"
    refuse_finished(whole, *others, overwrite=config.overwrite, resume=take, resuming=config.resume)
    replaces = whole.exists()
    try:
        result = _compared(config, config.out)
    except BaseException:
        if replaces and not whole.exists():
            for each in others:  # the run began: an earlier one's results must not pass for this one's
                each.unlink(missing_ok=True)
        raise
    summary = {**result.summary, "seconds": round(time.perf_counter() - started, 1)}
    write_json(config.out / "summary.json", summary)
    distances = {"/equal_time": result.equal_time, "/equal_loss": result.equal_loss}
    write_trajectory(xr.DataTree.from_dict(distances), config.out / "distances.nc", overwrite=True)
    save_figures(result, config.out)
    return result


def _compared(config: Config, out: Path | None) -> Comparison:
    return compare(
        build_landscape(config),
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        epochs=config.epochs,
        replicas=config.replicas,
        seed=config.seed,
        processes=config.processes,
        refresh_every=config.refresh_every,
        alignment_minibatches=config.alignment_minibatches,
        tolerance=config.tolerance,
        trace_epoch=config.trace_epoch,
        schedule=_schedule(config),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        out=out,
        resume=config.resume and out is not None,
        overwrite=config.overwrite,
        config={"study": NAME, "choices": words_of(config)},
    )


def run_configuration(config: Mapping[str, Any]) -> xr.DataTree:
    """Run the configuration of a file again, for `langevin_nn.rerun`.

    Parameters
    ----------
    config : mapping
        ``config_json`` of a ``trajectories.nc`` that this study wrote.

    Returns
    -------
    xarray.DataTree
        In memory; nothing is written.
    """
    choices: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in config["choices"].items()
    }
    return _compared(Config(**choices), None).trajectories


def _schedule(config: Config) -> EveryEpochs | None:
    """Return when to record; None where the length of the run will be refused anyway."""
    if config.records < 1:
        raise ConfigurationError(f"records={config.records}: expected at least one, besides that of the start")
    return EveryEpochs(config.epochs / config.records) if 0 < config.epochs < inf else None


def _study(config: Config) -> None:
    result = run(config)
    say(result.verdict)
    say(f"\nResults are in {config.out}: {', '.join(RESULTS)}.")


main = Command(NAME, Config, __doc__, _study)


if __name__ == "__main__":
    raise SystemExit(main())
