"""Spectra, sample losses and weights: groups with clocks of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from langevin_nn.checks import number, whole_number
from langevin_nn.curvature import Hessian
from langevin_nn.landscape import Landscape, NetworkLandscape
from langevin_nn.memory import as_bytes
from langevin_nn.observables.base import Arrays, Observable, Snapshot, as_array
from langevin_nn.observables.variables import described
from langevin_nn.operators import leading_eigenpairs
from langevin_nn.process import Process
from langevin_nn.schedules import Logarithmic, Schedule
from langevin_nn.threads import side_by_side, single_threaded_products

__all__ = ["MeasuredWeights", "NoiseSpectrum", "SampleLosses", "Weights", "n_measured"]


_thinly = partial(Logarithmic, per_decade=2)


@dataclass(frozen=True)
class NoiseSpectrum(Observable):
    """Eigenvalues of C, descending, and the effective dimension.

    Parameters
    ----------
    n_modes : int, optional
        Leading eigenvalues to keep; the effective dimension counts all of them.
    fraction : float, optional
        Share of the noise strength that the effective dimension holds.
    n_hessian_modes : int, optional
        Largest eigenvalues of the Hessian to record beside them; none unless said.
    schedule : Schedule, optional
        When to record.
    memory_limit : int or str, optional
        Budget of each replica's gradient ensemble, sample gradients and matrices; 1 GiB unless said.

    Raises
    ------
    ConfigurationError
        If eigenvalues are not counted by whole numbers, the share is not in (0, 1], or the budget is none.
    """

    n_modes: int = 200
    fraction: float = 0.9
    n_hessian_modes: int = 0
    schedule: Schedule = field(default_factory=_thinly)
    memory_limit: int | float | str | None = None
    variables = described(
        "noise_eigenvalue",
        "effective_dimension",
        "effective_dimension_is_lower_bound",
        "hessian_eigenvalue",
        "hessian_eigenvalue_residual",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("n_modes", self.n_modes, "a whole number (int) of eigenvalues from 1", least=1)
        number("fraction", self.fraction, "a share above 0 and at most 1 of the noise strength", above=0, most=1)
        as_bytes(self.memory_limit)
        expected = "a whole number (int) of eigenvalues from 0, which stands for none"
        whole_number("n_hessian_modes", self.n_hessian_modes, expected, least=0)

    def bytes_per_replica(self, process: Process) -> int:  # noqa: D102
        most = process.landscape.n_parameters
        return 8 * (min(self.n_modes, most) + 2 * min(self.n_hessian_modes, most))

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        ensembles = snapshot.ensembles_within(self.memory_limit)
        # Decompositions gain little from threads of their own: one replica a core.
        with single_threaded_products():
            spectra = side_by_side(lambda ensemble: ensemble.leading_spectrum(self.n_modes), ensembles)
        dimensions = np.array([spectrum.effective_dimension(self.fraction) for spectrum in spectra])
        curvatures = self._hessian_eigenvalues(snapshot) if self.n_hessian_modes else {}
        return curvatures | {
            "noise_eigenvalue": np.stack([spectrum.eigenvalues for spectrum in spectra]),
            "effective_dimension": dimensions[:, 0],
            "effective_dimension_is_lower_bound": 1 - dimensions[:, 1].astype(np.int8),
        }

    def _hessian_eigenvalues(self, snapshot: Snapshot) -> Arrays:
        weights = snapshot.state.weights
        shape = (len(weights), min(self.n_hessian_modes, weights.shape[1]))
        values, residuals = np.full(shape, np.nan), np.full(shape, np.nan)
        for position, row in enumerate(weights):
            # Where the loss is no number there is no curvature; the other replicas go on.
            if bool(snapshot.landscape.loss(row[None]).isfinite().all()):
                pairs = leading_eigenpairs(Hessian(snapshot.landscape, row, position), shape[1])
                values[position], residuals[position] = pairs.values, pairs.residuals
        return {"hessian_eigenvalue": values, "hessian_eigenvalue_residual": residuals}


@dataclass(frozen=True)
class SampleLosses(Observable):
    """The loss of every training sample, with its labels.

    Parameters
    ----------
    schedule : Schedule, optional
        When to record.
    """

    schedule: Schedule = field(default_factory=_thinly)
    variables = described("sample_loss", "given_label", "true_label", "mislabeled", "relabeled")

    def bytes_per_replica(self, process: Process) -> int:  # noqa: D102
        return 8 * process.landscape.n_samples if isinstance(process.landscape, NetworkLandscape) else 0

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        return {"sample_loss": snapshot.training[0].double().cpu().numpy()}

    def timeless(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        landscape = snapshot.landscape
        if not isinstance(landscape, NetworkLandscape) or landscape.labels.ndim > 2:
            return {}
        n_replicas = len(snapshot.state.weights)
        labels = {
            "given_label": landscape.labels,
            "true_label": landscape.true_labels,
            "mislabeled": landscape.mislabeled.byte(),
            "relabeled": landscape.relabeled.byte(),
        }
        return {name: as_array(tensor.expand(n_replicas, -1)) for name, tensor in labels.items()}


@dataclass(frozen=True)
class Weights(Observable):
    """The weights themselves.

    Parameters
    ----------
    schedule : Schedule, optional
        When to record.
    """

    schedule: Schedule = field(default_factory=_thinly)
    variables = described("weights")

    def bytes_per_replica(self, process: Process) -> int:  # noqa: D102
        return process.landscape.n_parameters * process.landscape.dtype.itemsize

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        return {"weights": as_array(snapshot.state.weights).copy()}


@dataclass(frozen=True)
class MeasuredWeights(Weights):
    """The weights of the measured tensors alone: ``NetworkLandscape(parameters=...)``; all weights where there are none.

    Parameters
    ----------
    schedule : Schedule, optional
        When to record.
    """

    def bytes_per_replica(self, process: Process) -> int:  # noqa: D102
        return n_measured(process.landscape) * process.landscape.dtype.itemsize

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        if not isinstance(snapshot.landscape, NetworkLandscape):
            return super().measure(snapshot)
        return {"weights": as_array(snapshot.state.weights[:, snapshot.landscape.measured_columns])}


def n_measured(landscape: Landscape) -> int:
    """Return the number of parameters of which `MeasuredWeights` takes the weights.

    Parameters
    ----------
    landscape : Landscape
        Of a process.

    Returns
    -------
    int
        All, unless measurements are restricted.
    """
    return len(landscape.measured_columns) if isinstance(landscape, NetworkLandscape) else landscape.n_parameters
