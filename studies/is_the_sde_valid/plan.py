"""What the study of the equation's validity can be asked, which processes it runs, and when it records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from langevin_nn import (
    NetworkLandscape,
    Process,
    frozen_langevin,
    gradient_descent,
    isotropic_langevin,
    langevin,
    sgd,
    svag,
)
from langevin_nn.analyzers import LawComparison
from langevin_nn.analyzers.phases import FOUR_PHASES
from langevin_nn.checks import number, one_of, shown, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.noise import MatchedDiagonal, MatchedStable
from langevin_nn.schedules import AtEpochs
from langevin_nn.statistics.tails import LEAST_SAMPLES
from studies.lab import choices
from studies.lab.choices import DatasetName, landscape_of, load
from studies.lab.named import landscape_named
from studies.lab.sweeps import common_times

__all__ = [
    "LEAST_REPLICAS",
    "MOST_TAIL_INDEX",
    "NEEDED",
    "PROCESSES",
    "QUICK",
    "Config",
    "Plan",
    "Settled",
    "landscape_for",
    "plan_for",
    "processes",
    "settle",
]

LEAST_REPLICAS = 6
PROCESSES = (
    "sgd", "sgd_twin", "independent_sgd", "svag", "langevin", "langevin_half", "langevin_quarter", "frozen", "diagonal",
    "isotropic", "heavy_tailed", "gradient_descent",
)  # fmt: skip
# SGD of both kinds, which the others are held against; a twin, which none should differ from; and the equation.
NEEDED = ("sgd", "sgd_twin", "independent_sgd", "langevin_quarter")
MOST_TAIL_INDEX = 2.0
_LEAST_RECORDS = 4

QUICK: dict[str, Any] = {
    "samples_per_class": 8,
    "hidden": (8,),
    "learning_rate": 0.2,
    "batch_size": 10,
    "epochs": 5.0,
    "records": 4,
    "replicas": LEAST_REPLICAS,
    "ladder": (1, 4),
    "scalings": (2,),
    "processes": ("sgd", "sgd_twin", "independent_sgd", "svag", "langevin", "langevin_quarter", "isotropic"),
    "permutations": 1_199,
    "alignment_minibatches": 4,
    "minibatches": 2_000,
    "workers": 1,
}


@dataclass(frozen=True)
class Config(choices.Choices):
    """Everything that can be chosen."""

    dataset: DatasetName = "digits"
    landscape: str | None = None
    """Your own network instead: module:function, a function without arguments that returns a NetworkLandscape; choose
    learning rate, batch size and epochs, too."""
    label_noise: float = 0.5
    """Share of training samples whose label is redrawn; with one half, learning has four phases."""
    hidden: tuple[int, ...] = (50, 50)
    """Units of each hidden layer of a fully connected network."""
    replicas: int = 16
    """Replicas, at least 6; replica r of all processes starts from the same weights and learns the same labels."""
    records: int = 32
    """Records of each run, denser at first; order parameters at every other one."""
    processes: tuple[str, ...] = PROCESSES
    """What to run; sgd, sgd_twin, independent_sgd and langevin_quarter among it, since these are compared with."""
    ladder: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Amplifications l of SVAG: 1 is SGD with independent minibatches, and as l grows it tends to the equation."""
    scalings: tuple[int, ...] = (2, 4, 8, 16)
    """Factors κ by which learning rate and minibatch are multiplied together."""
    rank: int = 20
    """Leading directions of frozen noise."""
    refresh_epochs: float = 10.0
    """Epochs between measurements of the covariance that frozen noise takes."""
    tail_index: float | None = None
    """Index of the heavy-tailed noise, 0.5 to 2; the smallest that SGD's noise shows along any direction unless given."""
    tolerance: float = 1.0
    """Largest distance of mean losses and errors, in spreads of SGD, at which a process counts as valid in the mean. At 1 a
    run of the process is as far from SGD's mean as one of SGD itself."""
    permutations: int = 4_999
    """Exchanges of pairs from which each p-value is found."""
    alignment_minibatches: int = 32
    """Independent minibatches from which the alignment R is estimated at each record."""
    minibatches: int = 4_000
    """Minibatches drawn at one point to see the shape of the noise."""
    workers: int | None = None
    """Processes that work side by side; one a core unless given. Results are the same."""
    out: Path = field(default=Path("output/is_the_sde_valid"))
    """Folder for trajectories, tables, summary.json and figures."""


@dataclass(frozen=True, kw_only=True)
class Settled(choices.Settled, Config):
    """The same, with everything chosen."""


def settle(config: Config) -> Settled:
    """Return a configuration in which everything is chosen.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    Settled
        Without scalings whose minibatches would be more than half of the samples.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run.
    """
    missing = [name for name in ("learning_rate", "batch_size", "epochs") if getattr(config, name) is None]
    if config.landscape is not None and missing:
        raise ConfigurationError(
            f"landscape={config.landscape!r} without {', '.join(missing)}: expected them, since nobody but you knows how "
            "your network is trained"
        )
    found = choices.settle(Settled, config, "coarse")
    expected = f"at least {LEAST_REPLICAS} (int), since fewer pairs have no exchange rare enough to reject"
    whole_number("replicas", found.replicas, expected, least=LEAST_REPLICAS, most=10_000)
    expected = f"at least {_LEAST_RECORDS} (int), besides that of the start"
    whole_number("records", found.records, expected, least=_LEAST_RECORDS, most=10_000)
    number("tolerance", found.tolerance, "a finite number above 0, in spreads of SGD", above=0)
    number("refresh_epochs", found.refresh_epochs, "a finite number of epochs above 0", above=0)
    for each in found.processes:
        one_of("process", each, PROCESSES)
    missing = [each for each in NEEDED if each not in found.processes]
    if missing or len(set(found.processes)) < len(found.processes):
        raise ConfigurationError(
            f"processes={shown(found.processes)}: expected {', '.join(NEEDED)} among them, which the others are compared "
            "with, and each name once"
        )
    for name in ("ladder", "scalings"):
        values = getattr(found, name)
        if len(set(values)) < len(values) or not values or min(values) < 1:
            raise ConfigurationError(f"{name}={shown(values)}: expected whole numbers from 1, each of them once")
    landscape = landscape_for(found)
    n_samples, batch = landscape.n_samples, found.batch_size
    if batch * max(found.scalings) > n_samples // 2:
        fitting = tuple(each for each in found.scalings if batch * each <= n_samples // 2)
        if not fitting:
            raise ConfigurationError(
                f"batch_size={batch} and scalings={shown(found.scalings)} with {n_samples} training samples: expected "
                f"minibatches of at most {n_samples // 2}, half of them; choose smaller ones"
            )
        found = replace(found, scalings=fitting)
    expected = f"at least {LEAST_SAMPLES} (int), since tails are rare"
    whole_number("minibatches", found.minibatches, expected, least=LEAST_SAMPLES)
    tests = max(len(processes(found)) - 1, len(found.scalings) + 1) * (
        len(FOUR_PHASES) if landscape.is_classifier else 1
    )
    needed = ceil(tests / LawComparison().level) - 1
    expected = f"at least {needed} (int), since {tests} tests, of all processes in all phases, are corrected together"
    whole_number("permutations", found.permutations, expected, least=needed)
    made = len(plan_for(found).losses)
    if made <= _LEAST_RECORDS:
        raise ConfigurationError(
            f"epochs={found.epochs:g} and records={found.records}: expected at least {_LEAST_RECORDS} records besides the "
            f"start at updates of their own in every run, got {made - 1}, since updates at the largest of "
            f"scalings={shown(found.scalings)} are few; choose more epochs, or smaller scalings or minibatches"
        )
    return found


@cache
def landscape_for(config: Settled) -> NetworkLandscape:
    """Return the network with its data: the user's, or that of the data set with noisy labels of each replica.

    Parameters
    ----------
    config : Settled
        What was chosen.

    Returns
    -------
    NetworkLandscape
        The same for all processes.
    """
    if config.landscape is not None:
        return landscape_named(config.landscape)
    data = load(config)
    return landscape_of(data, config, label_noise=config.label_noise, hidden=config.hidden)


def processes(config: Settled) -> dict[str, Callable[[], Process]]:
    """Return what makes each process, by its name in files and figures.

    Parameters
    ----------
    config : Settled
        With learning rate, minibatch and tail index.

    Returns
    -------
    dict of str to callable
        Those that were chosen: SGD and its twins first; then those that approximate the equation; then other noises.
    """
    landscape = landscape_for(config)
    rate, batch = config.learning_rate, config.batch_size
    per_epoch = landscape.n_samples // batch
    refresh = max(1, round(config.refresh_epochs * per_epoch))
    index = MOST_TAIL_INDEX if config.tail_index is None else config.tail_index
    named: dict[str, Callable[[], Process]] = {
        "sgd": lambda: sgd(landscape, rate, batch),
        "sgd_twin": lambda: sgd(landscape, rate, batch),
        "independent_sgd": lambda: sgd(landscape, rate, batch, independent=True),
        **{f"svag_{each}": partial(svag, landscape, rate, batch, each) for each in config.ladder},
        "langevin": lambda: langevin(landscape, rate, batch),
        "langevin_half": lambda: langevin(landscape, rate, batch, time_step=rate / 2),
        "langevin_quarter": lambda: langevin(landscape, rate, batch, time_step=rate / 4),
        "frozen": lambda: frozen_langevin(landscape, rate, batch, config.rank, refresh_every=refresh),
        "diagonal": lambda: Process(landscape, MatchedDiagonal(batch), rate),
        "isotropic": lambda: isotropic_langevin(landscape, rate, batch),
        "heavy_tailed": lambda: Process(landscape, MatchedStable(batch, index), rate),
        "gradient_descent": lambda: gradient_descent(landscape, rate, batch),
    }
    kind = {name: "svag" if name.startswith("svag_") else name for name in named}
    return {name: make for name, make in named.items() if kind[name] in config.processes}


def plan_for(config: Settled) -> Plan:
    """Return when all runs are recorded.

    Parameters
    ----------
    config : Settled
        Everything chosen.

    Returns
    -------
    Plan
        With the clocks of all processes, and of SGD at larger steps.
    """
    n_samples = landscape_for(config).n_samples
    clocks = {1 / make().epochs_per_step for make in processes(config).values()}
    clocks |= {1 / (factor * config.batch_size / n_samples) for factor in config.scalings}
    return Plan(config.epochs, config.records, tuple(sorted(each for each in clocks if each == each)))


@dataclass(frozen=True)
class Plan:
    """When runs are recorded.

    Parameters
    ----------
    epochs : float
        Their length.
    records : int
        How often, besides the start; less often where two records would fall on one update.
    clocks : tuple of float, optional
        Updates an epoch of each run.
    """

    epochs: float
    records: int
    clocks: tuple[float, ...] = ()

    @property
    def losses(self) -> tuple[float, ...]:
        """Epochs at which losses are recorded: denser at first, whole ones in long runs, where all processes pause."""
        spaced = self.epochs * (np.arange(self.records + 1) / self.records) ** 2
        if self.epochs >= 2 * self.records:
            whole = np.rint(spaced)
            spaced = np.unique([*whole[whole < self.epochs], self.epochs])
        return common_times(spaced.tolist(), self.clocks)

    @property
    def order_parameters(self) -> AtEpochs:
        """Every other one of them, the last among them."""
        return AtEpochs(self.losses[::-1][::2][::-1])

    @property
    def weights(self) -> AtEpochs:
        """Every third, for the shape of the noise."""
        return AtEpochs(self.losses[::3][1:] or self.losses[-1:])
