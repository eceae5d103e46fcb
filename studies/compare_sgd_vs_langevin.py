"""Ask which noise makes Langevin dynamics follow SGD, and which does not.

Trains one network on real digits with noisy labels by four processes that share drift, labels and initial weights and
differ in nothing but their noise: SGD; Langevin dynamics whose Gaussian noise has exactly SGD's covariance; Langevin
dynamics with isotropic noise of the same trace; gradient descent. Writes trajectories.nc, summary.json and figures, and
prints the verdict.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from langevin_nn import Comparison, NetworkLandscape, Seeds, compare
from langevin_nn.errors import ConfigurationError
from langevin_nn.figures import save_figures
from langevin_nn.schedules import EveryEpochs
from models.datasets import load_dataset
from models.label_noise import corrupt_labels
from models.networks import multilayer_perceptron
from studies.command import guarded

__all__ = ["Config", "build_landscape", "main", "run"]


@dataclass(frozen=True)
class Config:
    """Everything that can be chosen."""

    dataset: str = "digits"
    """Data set: digits (embedded, 8×8 pixels), mnist, mnist10k or cifar10."""
    data_dir: Path | None = None
    """Folder with the files of mnist10k or cifar10; the variable LANGEVIN_NN_DATA unless given."""
    samples_per_class: int | None = None
    """Training images of each class; 120 of digits, 400 of mnist10k, all of the others unless given."""
    label_noise: float = 0.5
    """Fraction of training samples whose label is redrawn, 0 to 1."""
    label_noise_kind: str = "uniform"
    """How labels are redrawn: uniform (any class) or exclusive (never the true one)."""
    hidden: tuple[int, ...] = (50, 50)
    """Units of each hidden layer."""
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
    parameters: tuple[str, ...] = ("*",)
    """Patterns of the tensors that are measured, such as 2.weight; training always moves all."""
    seed: int = 0
    """Owner of all randomness: labels, initial weights, noise."""
    device: str = "cpu"
    """Where to compute: cpu, or cuda for a GPU."""
    out: Path = field(default=Path("output/compare_sgd_vs_langevin"))
    """Folder for trajectories.nc, summary.json and figures."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A small run of a few seconds that shows what comes out: 20 images a digit, 3 replicas, 8 epochs."""

    def sized(self) -> Config:
        """Return the configuration that is run: with --quick, a smaller one."""
        if not self.quick:
            return self
        return replace(self, samples_per_class=20, replicas=3, epochs=8.0, records=8, batch_size=10)


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
    """
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device {config.device!r}: expected a GPU that this installation of torch can use, found none; run with "
            "--device cpu, or install torch's CUDA build (see the README)"
        )
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
    return NetworkLandscape(
        lambda: multilayer_perceptron(widths),
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
    """
    config = config.sized()
    started = time.perf_counter()
    result = compare(
        build_landscape(config),
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        epochs=config.epochs,
        replicas=config.replicas,
        seed=config.seed,
        processes=config.processes,
        schedule=_schedule(config),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        out=config.out,
        config={"study": "compare_sgd_vs_langevin", "choices": _words(config)},
    )
    summary = {**result.summary, "seconds": round(time.perf_counter() - started, 1)}
    (config.out / "summary.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    save_figures(result, config.out)
    return result


def _schedule(config: Config) -> EveryEpochs | None:
    """Return when to record; None where the length of the run will be refused anyway."""
    if config.records < 1:
        raise ConfigurationError(f"records={config.records}: expected at least one, besides that of the start")
    return EveryEpochs(config.epochs / config.records) if config.epochs > 0 else None


def _words(config: Config) -> dict[str, object]:
    """Return the choices that made the numbers; where they were written is none of them."""
    chosen = {name: value for name, value in asdict(config).items() if name not in ("out", "data_dir")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : list of str, optional
        Those of the command line unless given.

    Returns
    -------
    int
        Exit code: 0; 2 for bad input; 3 where the dynamics diverged.
    """
    config = tyro.cli(Config, prog="python -m studies.compare_sgd_vs_langevin", description=__doc__, args=arguments)

    def study() -> None:
        result = run(config)
        print(result.verdict)
        print(f"\nResults are in {config.out}: trajectories.nc, summary.json and five figures (*.png).")

    return guarded(study, config.out)


if __name__ == "__main__":
    raise SystemExit(main())
