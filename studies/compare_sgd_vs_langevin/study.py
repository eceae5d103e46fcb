"""Ask which noise makes Langevin dynamics follow SGD, and which does not.

Trains one network on real digits with noisy labels by four processes that share drift, labels and initial weights and
differ in nothing but their noise: SGD; Langevin dynamics whose Gaussian noise has exactly the covariance of a minibatch;
Langevin dynamics with isotropic noise of the same trace; gradient descent. Writes trajectories.nc, distances.nc,
summary.json and figures, and prints the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
import xarray as xr

from langevin_nn import NetworkLandscape, Seeds, compare
from langevin_nn.checks import one_of
from langevin_nn.errors import ConfigurationError
from langevin_nn.figures import FIGURES
from langevin_nn.report import Comparison
from langevin_nn.schedules import EveryEpochs
from langevin_nn.store import Parts, refuse_finished
from langevin_nn.store.parts import EXPERIMENT
from models.datasets import load_dataset
from models.label_noise import corrupt_labels
from models.networks import multilayer_perceptron
from studies.lab.choices import refuse_missing_gpu, widths_of
from studies.lab.command import Output, words_of
from studies.lab.named import dataset_help, dataset_named
from studies.lab.study import Answer, Study, Work

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Config", "build_landscape", "run_configuration"]


@dataclass(frozen=True)
class Config(Output):
    """Everything that can be chosen."""

    dataset: Annotated[str, tyro.conf.arg(help=dataset_help("; all with a fully connected network"))] = "digits"
    data_dir: Path | None = None
    """Folder with the files of a data set that needs them; the variable LANGEVIN_NN_DATA unless given."""
    samples_per_class: int | None = None
    """Training images of each class; as the data set says unless given."""
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


NAME = "compare_sgd_vs_langevin"
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
    refuse_missing_gpu(config.device)
    one_of("kind of label noise", config.label_noise_kind, ("uniform", "exclusive"))
    data = load_dataset(
        dataset_named(config.dataset), samples_per_class=config.samples_per_class, data_dir=config.data_dir
    )
    labels = corrupt_labels(
        data.train_labels,
        config.label_noise,
        kind=config.label_noise_kind,
        n_classes=data.n_classes,
        seeds=Seeds(config.seed),
    )
    inputs = data.train_inputs.reshape(len(data.train_inputs), -1)
    widths = widths_of(inputs.shape[1], config.hidden, data.n_classes, _MOST_PARAMETERS)
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


class CompareSGDWithLangevin(Study[Config, Config, Comparison]):
    """The front door."""

    name = NAME
    choices = Config
    quick = _QUICK
    table = "distances.nc"
    drawn = tuple(FIGURES)

    @property
    def results(self) -> tuple[str, ...]:
        return ("trajectories.nc", *super().results)

    def settle(self, choices: Config) -> Config:
        if choices.samples_per_class is None:
            return replace(choices, samples_per_class=dataset_named(choices.dataset).samples_per_class)
        return choices

    def plan(self, settled: Config) -> dict[str, float]:
        return {"processes": 1.0}

    def begin(self, settled: Config) -> Parts:
        there = (settled.out / name for name in self.results)
        take = "resume=True (--resume)"
        refuse_finished(*there, overwrite=settled.overwrite, resume=take, resuming=settled.resume)
        return Parts(settled.out, EXPERIMENT)  # those that `compare` keeps

    def measure(self, settled: Config, work: Work) -> Comparison:
        whole, *others = (work.folder / name for name in self.results)
        replaces = whole.exists()
        landscape = build_landscape(settled)
        try:
            with work.part("processes", runs=1 + len(set(settled.processes) - {"sgd"})):
                return _compared(settled, landscape, work.folder)
        except BaseException:
            if replaces and not whole.exists():
                for each in others:  # the run began: an earlier one's results must not pass for this one's
                    each.unlink(missing_ok=True)
            raise

    def tables(self, settled: Config, found: Comparison) -> dict[str, xr.Dataset]:
        return {"equal_time": found.equal_time, "equal_loss": found.equal_loss}

    def verdict(self, answer: Answer[Config, Comparison]) -> str:
        return answer.found.verdict

    def summary(self, answer: Answer[Config, Comparison]) -> dict[str, Any]:
        return answer.found.summary

    def figures(self, answer: Answer[Config, Comparison]) -> dict[str, Figure]:
        return {name: draw(answer.found) for name, draw in FIGURES.items()}


STUDY = CompareSGDWithLangevin()


def _compared(config: Config, landscape: NetworkLandscape, out: Path | None) -> Comparison:
    return compare(
        landscape,
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
    chosen = Config(**choices)
    return _compared(chosen, build_landscape(chosen), None).trajectories


def _schedule(config: Config) -> EveryEpochs | None:
    """Return when to record; None where the length of the run will be refused anyway."""
    if config.records < 1:
        raise ConfigurationError(f"records={config.records}: expected at least one, besides that of the start")
    return EveryEpochs(config.epochs / config.records) if 0 < config.epochs < inf else None
