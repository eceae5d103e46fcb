"""What monitors of other people's trainers do alike."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import xarray as xr

from langevin_nn.checks import one_of, truth
from langevin_nn.errors import ConfigurationError
from langevin_nn.monitor.monitor import _LOGGED, Monitor
from langevin_nn.monitor.steps import Step

__all__ = ["Plugged"]

_OWN = ("network", "optimizer", "accumulation", "resume")  # what the trainer says


class Plugged:
    """A monitor that a trainer makes, with what its user said of it.

    Parameters
    ----------
    n_samples : int
        N, the number of training samples.
    path : path or None
        File to write the trajectory to.
    log : mapping of str to str or None
        Names of the trainer's metrics, with what they are to the monitor.
    stop : bool
        Whether training ends where the network memorises.
    options : mapping
        Further arguments of `Monitor`.

    Raises
    ------
    ConfigurationError
        If an argument is malformed, or the trainer knows it.
    """

    def __init__(
        self,
        n_samples: int,
        path: str | os.PathLike[str] | None,
        log: Mapping[str, str] | None,
        stop: bool,
        options: Mapping[str, Any],
    ) -> None:
        for name in _OWN:
            if name in options:
                raise ConfigurationError(f"{name}= came: expected none, since the trainer knows it; leave it out")
        self._log = dict(log or {})
        for name in self._log.values():
            one_of("logged number", name, _LOGGED)
        self._stop = truth("stop", stop, "whether training ends when the network memorises")
        self._n_samples, self._path, self._options = n_samples, path, options
        self.monitor: Monitor | None = None
        self._is_open = False
        self._within: Step | None = None

    @property
    def trajectory(self) -> xr.DataTree:
        """Everything that has been recorded until now."""
        if self.monitor is None:
            raise ConfigurationError("nothing has been trained: expected the trainer to begin first; let it train")
        return self.monitor.trajectory

    def _watch(self, network: Any, optimizer: Any, accumulation: int, saved: Mapping[str, Any] | None) -> None:
        """Make the monitor, and go on from what was saved, where there is something."""
        # A run at a path goes on from its segments; one in memory from what was saved alone.
        self.monitor = Monitor(
            network,
            self._n_samples,
            self._path,
            optimizer=optimizer,
            accumulation=accumulation,
            resume=saved is not None and self._path is not None,
            **self._options,
        )
        self._is_open = True
        if saved is not None:
            self.monitor.load_state_dict(saved)

    def _take_down(self, metrics: Mapping[str, Any], beginning: str = "") -> None:
        """Record metrics of the trainer that are to be, and whose names to the monitor begin so."""
        found = {
            own: float(metrics[name])
            for name, own in self._log.items()
            if own.startswith(beginning) and name in metrics
        }
        if self.monitor is not None and self._is_open and found:
            self.monitor.log(**found)
