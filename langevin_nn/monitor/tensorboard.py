"""Scalars of a monitored run, for TensorBoard and whatever has its ``add_scalar``."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from langevin_nn.checks import kind_of
from langevin_nn.errors import ConfigurationError
from langevin_nn.monitor.monitor import Monitor

__all__ = ["ScalarWriter"]


class ScalarWriter:
    """What writes the recorded scalars of a run, each of them once.

    Tags are the variables' names under ``langevin_nn/``, then the cohort or the layer where there are several:
    ``langevin_nn/noise_strength``, ``langevin_nn/noise_strength/mislabeled``. Values of replicas are averaged.

    Parameters
    ----------
    writer : object
        With ``add_scalar(name, value, step)``, such as ``torch.utils.tensorboard.SummaryWriter``.

    Raises
    ------
    ConfigurationError
        If it has none.

    Examples
    --------
    >>> class Printer:
    ...     def add_scalar(self, name, value, step):
    ...         print(name, value, step)
    >>> import torch
    >>> monitor = Monitor(torch.nn.Linear(2, 2), n_samples=10)
    >>> scalars = ScalarWriter(Printer())
    >>> monitor.log(test_error=0.5)
    >>> scalars.write(monitor)
    langevin_nn/test_error 0.5 0
    >>> scalars.write(monitor)
    """

    def __init__(self, writer: Any) -> None:
        if not callable(getattr(writer, "add_scalar", None)):
            raise ConfigurationError(
                f"writer is {kind_of(writer)}: expected an object with add_scalar(name, value, step), since scalars go "
                "there; give it a torch.utils.tensorboard.SummaryWriter"
            )
        self._writer = writer
        # For each tag by itself: a variable may be recorded later at the same step than another.
        self._last: dict[str, int] = {}

    def write(self, run: Monitor | xr.DataTree) -> None:
        """Write what has been recorded since the last call; once an epoch is enough.

        Parameters
        ----------
        run : Monitor or xarray.DataTree
            The monitor, or the trajectory of one.

        Raises
        ------
        ConfigurationError
            If it is neither.
        """
        if not isinstance(run, Monitor | xr.DataTree):
            raise ConfigurationError(
                f"run is {kind_of(run)}: expected a Monitor or the trajectory of one, since its records are written"
            )
        trajectory = run.trajectory if isinstance(run, Monitor) else run
        self._write(trajectory.to_dataset(), "step")
        if "measured_layers" in trajectory.children:
            self._write(trajectory.children["measured_layers"].to_dataset(inherit=False), "measured_layers_step")

    def _write(self, dataset: xr.Dataset, clock: str) -> None:
        for name, variable in dataset.data_vars.items():
            others = [str(each) for each in variable.dims if each not in ("replica", clock)]
            if clock not in variable.dims or len(others) > 1 or variable.dtype.kind not in "fiub":
                continue
            values = variable.mean("replica") if "replica" in variable.dims else variable
            rows = values.transpose(*others, clock).values.reshape(-1, dataset.sizes[clock])
            entries = [str(each) for each in dataset[others[0]].values] if others else ["all"]
            for entry, row in zip(entries, rows, strict=True):
                self._write_row(f"langevin_nn/{name}" + ("" if entry == "all" else f"/{entry}"), row, dataset[clock])

    def _write_row(self, tag: str, row: Any, steps: xr.DataArray) -> None:
        for value, step in zip(row, steps.values, strict=True):
            if np.isfinite(value) and step > self._last.get(tag, -1):
                self._writer.add_scalar(tag, float(value), int(step))
                self._last[tag] = int(step)
