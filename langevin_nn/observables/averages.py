"""Losses and errors at the average of the weights that an update rule keeps: the root group."""

from __future__ import annotations

from dataclasses import dataclass, replace

from langevin_nn.errors import ConfigurationError
from langevin_nn.observables.base import Arrays, Observable, Snapshot
from langevin_nn.observables.scalars import Losses
from langevin_nn.observables.variables import described
from langevin_nn.schedules import Schedule

__all__ = ["LossesOfAverage"]


@dataclass(frozen=True)
class LossesOfAverage(Observable):
    """What `Losses` records, at the averaged weights: of update rules that keep an average, such as `Averaged`."""

    schedule: Schedule | None = None
    variables = described("average_train_loss", "average_train_error", "average_test_loss", "average_test_error")

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        process, state = snapshot.process, snapshot.state
        average = process.update.average(state.update_memory)
        if average is None:
            raise ConfigurationError(
                f"LossesOfAverage with {process.update!r}, which keeps no average of the weights: expected an update rule "
                f"that does, since there is nothing else to measure at; use update=Averaged({process.update!r}), or Losses()"
            )
        there = Snapshot(process, replace(state, weights=average))
        return {f"average_{name}": values for name, values in Losses().measure(there).items()}
