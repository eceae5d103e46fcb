"""What to record: named variables computed from a state without disturbing it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import instance
from langevin_nn.ensemble import GradientEnsemble, gradient_ensemble
from langevin_nn.errors import ConfigurationError, SampleMixingError
from langevin_nn.gradients.forward import batch_layers
from langevin_nn.landscape import EmpiricalLandscape, Landscape, NetworkLandscape
from langevin_nn.memory import as_bytes
from langevin_nn.noise import BatchStatistics
from langevin_nn.process import Process, State
from langevin_nn.schedules import Schedule
from langevin_nn.schema import Coordinate, Variable
from langevin_nn.threads import side_by_side

__all__ = ["Observable", "Snapshot", "as_array", "stacked", "without_diverged"]

Arrays = dict[str, NDArray[Any]]


def stacked(measured: list[Arrays]) -> Arrays:
    """Stack what was measured of each replica.

    Parameters
    ----------
    measured : list of dict of str to ndarray
        By replica, the same names in each.

    Returns
    -------
    dict of str to ndarray, shapes (replica, ...)
        By name.
    """
    return {name: np.stack([each[name] for each in measured]) for name in measured[0]}


def without_diverged(measured: Arrays, diverged: Tensor) -> Arrays:
    """Return what was measured, missing where a replica diverged: outputs that are no numbers still have a largest one.

    Parameters
    ----------
    measured : dict of str to ndarray, shapes (replica, ...)
        By name.
    diverged : Tensor of bool, shape (replica,)
        Which replicas have left the finite numbers.

    Returns
    -------
    dict of str to ndarray
        NaN there; whole numbers, which have none, stay.

    Examples
    --------
    >>> without_diverged({"train_error": np.array([0.5, 0.9])}, torch.tensor([False, True]))
    {'train_error': array([0.5, nan])}
    """
    gone = diverged.cpu().numpy()
    if not gone.any():
        return measured
    found = {name: values.copy() if values.dtype.kind == "f" else values for name, values in measured.items()}
    for values in found.values():
        if values.dtype.kind == "f":
            values[gone] = np.nan
    return found


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor in its own precision, or in single for one that NumPy lacks."""
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu())


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A state and what has been computed from it, shared by all observables of one record.

    Parameters
    ----------
    process : Process
        What runs.
    state : State
        Where it is.
    """

    process: Process
    state: State

    @property
    def landscape(self) -> Landscape:
        """What is measured."""
        return self.process.landscape

    @cached_property
    def training(self) -> tuple[Tensor, Tensor]:
        """Losses and errors of the training samples, each of shape (replica, sample)."""
        if not isinstance(self.landscape, NetworkLandscape):
            raise ConfigurationError(
                f"sample losses need a network with its data, got {type(self.landscape).__name__}: leave observables of "
                "samples out"
            )
        return self.landscape.losses_and_errors(self.state.weights)

    @property
    def ensembles(self) -> list[GradientEnsemble]:
        """The gradient ensemble of each replica, without replacement unless a minibatch has more samples than there are."""
        return self.ensembles_within()

    @cached_property
    def _kept_ensembles(self) -> dict[tuple[int, str], list[GradientEnsemble]]:
        return {}

    def ensembles_within(
        self,
        memory_limit: int | float | str | None = None,
        metric: Literal["euclidean", "preconditioned"] = "euclidean",
    ) -> list[GradientEnsemble]:
        """Return the gradient ensemble of each replica within a budget of memory.

        Parameters
        ----------
        memory_limit : int or str, optional
            Of each of them, in bytes or as ``"512 MiB"``; 1 GiB unless said, so that what is measured has the same bits
            whatever else the machine does.
        metric : {"euclidean", "preconditioned"}, optional
            The second is D/⟨D⟩ of the update rule: units stay, and so does what depends on no scale.

        Returns
        -------
        list of GradientEnsemble
            The same ones for all observables that ask for the same.

        Raises
        ------
        ConfigurationError
            If the update rule has no preconditioner, or the budget is too small.
        """
        key = as_bytes(memory_limit), metric
        if key not in self._kept_ensembles:
            metrics = [None] * len(self.state.weights) if metric == "euclidean" else self._preconditioners()
            self._kept_ensembles[key] = self._ensembles(metrics, key[0])
        return self._kept_ensembles[key]

    @property
    def multiplications(self) -> float:
        """Roughly those of one replica's sample gradients: a pass forward and two back."""
        landscape = self.landscape
        return 3.0 * landscape.n_samples * landscape.n_parameters if isinstance(landscape, EmpiricalLandscape) else inf

    def _preconditioners(self) -> list[Tensor]:
        update = self.process.update
        preconditioner = update.preconditioner(self.state.update_memory)
        if preconditioner is None:
            raise ConfigurationError(
                f"metric='preconditioned' with {type(update).__name__}, which has no preconditioner: expected an update rule "
                "with a metric of its own; use update=Adam(), or metric='euclidean'"
            )
        return list(preconditioner.double() / preconditioner.double().mean(1, keepdim=True))

    @property
    def _mixing(self) -> str | None:
        """The first layer through which samples of a minibatch change each other's gradients; None where there is none."""
        normalised = any(isinstance(each, BatchStatistics) for each in self.process.noise.parts)
        return batch_layers(self.landscape.layers[""])[0] if normalised else None  # type: ignore[attr-defined]

    def _ensembles(self, metrics: Sequence[Tensor | None], memory_limit: int) -> list[GradientEnsemble]:
        landscape, size = self.landscape, self.process.batch_size
        if self._mixing is not None:
            raise SampleMixingError(
                f"layer {self._mixing!r} normalises over the minibatch in updates with BatchStatistics(): order parameters, "
                "which are made of sample gradients, are undefined there; record observables that need none, such as "
                "Losses(batch_statistics='recomputed'), and measure the covariance with langevin_nn.noise.noise_shares(...)"
            )
        larger = isinstance(landscape, EmpiricalLandscape) and size is not None and size > landscape.n_samples

        def of_replica(position: int) -> GradientEnsemble:
            weights, metric = self.state.weights[position], metrics[position]
            return gradient_ensemble(
                landscape,
                weights,
                size,
                replica=position,
                replacement=larger,
                preconditioner=metric,
                memory_limit=memory_limit,
            )

        first = of_replica(0)  # what a network allows is found out once for all
        return [first, *side_by_side(of_replica, range(1, len(metrics)), self.multiplications)]

    @cached_property
    def sample_trace(self) -> Tensor | None:
        """Tr Σ over all tensors, shape (replica,); None where there are no samples."""
        landscape = self.landscape
        if not isinstance(landscape, EmpiricalLandscape) or self._mixing is not None:
            return None
        if landscape.measures_everything and self.process.batch_size is not None:
            return torch.stack([torch.as_tensor(ensemble.sample_trace[0]) for ensemble in self.ensembles])
        rows = enumerate(self.state.weights)
        return torch.stack([landscape.sample_gradients(w, k, everywhere=True).trace() for k, w in rows])

    def generators(self, purpose: str) -> list[np.random.Generator]:
        """Return one generator a replica, of this step and purpose only.

        Parameters
        ----------
        purpose : str
            What the numbers are for.

        Returns
        -------
        list of numpy.random.Generator
            Measuring with them disturbs nothing.
        """
        return list(self.state.key(self.state.step).generators(purpose))


class Observable(ABC):
    """Some variables of one group of the file, on one clock.

    Attributes
    ----------
    variables : tuple of Variable
        All that it may record, each said once; those of the package's own are taken by `describe`.
    schedule : Schedule or None
        When to record; None for the schedule of the run.
    """

    variables: ClassVar[tuple[Variable, ...]] = ()
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        expected = "a Schedule, when to record, or None for that of the run; use EverySteps(n) or EveryEpochs(n)"
        instance("schedule", self.schedule, (Schedule, type(None)), expected)

    @property
    def group(self) -> str:
        """Group of the file, that of the variables; "" is the root."""
        return self.variables[0].group if self.variables else ""

    @abstractmethod
    def measure(self, snapshot: Snapshot) -> Arrays:
        """Compute the variables.

        Parameters
        ----------
        snapshot : Snapshot
            The state, and what others have computed from it.

        Returns
        -------
        dict of str to ndarray, shapes (replica, ...)
            Some or all of those that are declared, by name; NaN where a replica has no value.
        """

    def coordinates(self, process: Process) -> dict[str, Coordinate]:
        """Return the labels of dimensions.

        Parameters
        ----------
        process : Process
            What will run.

        Returns
        -------
        dict of str to Coordinate
            By dimension; none for those that are only counted.
        """
        return {}

    def bytes_per_replica(self, process: Process) -> int:
        """Return the size of a record of one replica, to tell beforehand whether a run fits.

        Parameters
        ----------
        process : Process
            What will run.

        Returns
        -------
        int
            In bytes; about that of the order parameters unless said. The first record tells exactly.
        """
        return 512

    def timeless(self, snapshot: Snapshot) -> Arrays:
        """Return variables that never change.

        Parameters
        ----------
        snapshot : Snapshot
            The state at the start.

        Returns
        -------
        dict of str to ndarray, shapes (replica, ...)
            By name, of those that are declared as timeless.
        """
        return {}
