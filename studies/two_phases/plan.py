"""What the study of two phases can be asked, and when it records what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from langevin_nn.errors import ConfigurationError
from langevin_nn.schedules import AtSteps
from studies.lab import choices

__all__ = ["CHOICES", "FAST", "GRID_RECORDS", "LATE", "SPECTRA", "Config", "Plan", "Settled"]

CHOICES = ("hidden weights", "all parameters")

# Shares of the whole run: when spectra are taken, and where windows of one epoch begin whose every update is recorded.
SPECTRA = (1 / 80, 1 / 40, 1 / 20, 1 / 4, 1 / 2, 1.0)
FAST, LATE = 1 / 40, 1 / 2
WINDOWS = (0.005, 0.015, 0.04, 0.08, 0.14, 0.3, 0.6, 0.99)
RECORDS, GRID_RECORDS = 64, 32


@dataclass(frozen=True)
class Config(choices.Choices):
    """Everything that can be chosen."""

    hidden: tuple[int, ...] = (30, 30)
    """Units of the two hidden layers."""
    widths: tuple[int, ...] = (20, 30, 50, 80, 120, 200)
    """Units of each hidden layer, at which the effective dimension is measured; over all parameters at every other one."""
    learning_rates: tuple[float, ...] | None = None
    """Learning rates of the grid; half, once and twice the learning rate unless given."""
    batch_sizes: tuple[int, ...] | None = None
    """Minibatches of the grid; half, once and twice the minibatch unless given."""
    few_replicas: int = 4
    """Replicas of what is costly: all parameters, widths, grid, and the control with label noise."""
    out: Path = field(default=Path("output/two_phases"))
    """Folder for trajectories, summary.json, claims.json and figures."""


@dataclass(frozen=True, kw_only=True)
class Settled(choices.Settled, Config):
    """The same, with everything chosen."""

    learning_rates: tuple[float, ...]
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """When a run is recorded.

    Parameters
    ----------
    epochs : float
        Its length.
    per_epoch : int
        Updates of an epoch.
    """

    epochs: float
    per_epoch: int

    @classmethod
    def of(cls, config: Settled, n_samples: int) -> Plan:
        """Return the plan of a configuration.

        Parameters
        ----------
        config : Settled
            With epochs and minibatch.
        n_samples : int
            N.

        Returns
        -------
        Plan
            Of its long run.

        Raises
        ------
        ConfigurationError
            If a minibatch holds half of the samples or more, or the run is too short for its records.
        """
        if config.batch_size > n_samples // 4:
            raise ConfigurationError(
                f"batch_size={config.batch_size} with {n_samples} training samples: expected at most {n_samples // 4}, since "
                "averages over time are taken over the minibatches of an epoch; choose a smaller one"
            )
        made = cls(config.epochs, n_samples // config.batch_size)
        if made.last < 4 * RECORDS:
            raise ConfigurationError(
                f"epochs={config.epochs:g} are {made.last} updates: expected at least {4 * RECORDS}, since two phases are "
                "to be told apart; train longer"
            )
        return made

    @property
    def last(self) -> int:
        """Updates of the run."""
        return round(self.epochs * self.per_epoch)

    @property
    def losses(self) -> tuple[int, ...]:
        """Steps at which losses are recorded: of equal ratio."""
        spaced = np.rint(np.geomspace(max(1, self.last // 2000), self.last, RECORDS)).astype(int)
        return tuple(int(each) for each in np.unique(np.concatenate([[0], spaced])))

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """First and last record of each window."""
        firsts = [min(round(share * self.last), self.last - self.per_epoch) for share in WINDOWS]
        return tuple((first, first + self.per_epoch) for first in firsts)

    @property
    def order_parameters(self) -> tuple[int, ...]:
        """Steps at which the ensemble is measured: at every other record of the losses, and where windows begin and end."""
        return tuple(sorted({*self.losses[::2], *(each for window in self.windows for each in window)}))

    def at(self, shares: Iterable[float]) -> AtSteps:
        """Return a schedule at shares of the run.

        Parameters
        ----------
        shares : iterable of float
            From 0 to 1.

        Returns
        -------
        AtSteps
            To the nearest update.
        """
        return AtSteps(tuple(round(share * self.last) for share in shares))
