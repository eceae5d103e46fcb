"""Two runs that differ in their labels alone, measured where they have been: over some tensors, or over all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from langevin_nn import Process, Seeds, sgd, simulate
from langevin_nn.ensemble import draw_minibatch_gradients, project_gradients
from langevin_nn.ensemble.empirical import EmpiricalEnsemble
from langevin_nn.landscape import NetworkLandscape, SampleGradients
from langevin_nn.observables import Losses, NoiseSpectrum, Observable, OrderParameters, Snapshot, Weights, describe
from langevin_nn.observables.base import Arrays, stacked
from langevin_nn.schedules import AtEpochs
from langevin_nn.schema import COHORT_PAIRS, COHORTS
from langevin_nn.store import write_trajectory
from langevin_nn.threads import side_by_side, single_threaded_products
from studies.paper.training import Choices

__all__ = [
    "Runs",
    "ShuffledCohorts",
    "kept",
    "measured",
    "middle_records",
    "order_parameters_of",
    "record_epochs",
    "sketches_of",
    "spectra_of",
    "spread_records",
    "trained",
]


@dataclass(frozen=True)
class ShuffledCohorts(Observable):
    """Directed activities and cosines of cohorts of the same sizes, drawn at random once for each replica: a control."""

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        landscape = snapshot.landscape
        assert isinstance(landscape, NetworkLandscape)
        cohorts = landscape.cohort.cpu().numpy()
        # Of step 0 whatever the step: the same samples all along.
        generators = list(snapshot.state.key(0).generators("shuffled cohorts"))

        def of_replica(position: int) -> Arrays:
            ensemble = snapshot.ensembles[position]
            assert isinstance(ensemble, EmpiricalEnsemble)
            drawn = generators[position].permutation(cohorts[position if len(cohorts) > 1 else 0])
            return _between_means(ensemble.gradients, drawn)

        return stacked(side_by_side(of_replica, range(len(snapshot.ensembles))))


def _between_means(gradients: SampleGradients, wrong: NDArray[np.bool_]) -> Arrays:
    """Return directed activities and cosines of the mean gradients of all samples and of two cohorts."""
    masks = np.stack([np.ones_like(wrong), ~wrong, wrong]).astype(np.float64)
    shares = masks.mean(1)
    means = (
        gradients.combine(torch.as_tensor(masks / masks.sum(1, keepdims=True), device=gradients.device)).cpu().numpy()
    )
    products = means @ means.T
    norms = np.sqrt(np.diag(products))
    cosines = products / np.outer(norms, norms)
    pairs = np.array([cosines[1, 2], cosines[0, 1], cosines[0, 2]])
    return {"directed_activity_shuffled": (shares * norms) ** 2, "gradient_alignment_shuffled": pairs}


@dataclass(frozen=True)
class Runs:
    """What was trained and measured, with and without label noise.

    Parameters
    ----------
    noisy, clean : xarray.Dataset
        Losses and errors of each replica by record; `clean` learned the true labels of the same samples, and its cohorts are
        those of `noisy`.
    phases, clean_phases : xarray.Dataset
        Of `langevin_nn.analyzers.detect_phases`: four phases, and two.
    order, clean_order : dict of str to xarray.Dataset
        Order parameters by choice of tensors: ``hidden``, those of the paper, and ``all``.
    spectra, clean_spectra : dict of str to xarray.Dataset
        Noise spectra by choice of tensors, a record a phase; the control's of ``hidden`` only.
    sketches : xarray.Dataset
        Minibatch gradients of both cohorts in the plane of their means, one panel a phase, of the first replica.
    """

    noisy: xr.Dataset
    clean: xr.Dataset
    phases: xr.Dataset
    clean_phases: xr.Dataset
    order: Mapping[str, xr.Dataset]
    clean_order: Mapping[str, xr.Dataset]
    spectra: Mapping[str, xr.Dataset]
    clean_spectra: Mapping[str, xr.Dataset]
    sketches: xr.Dataset


def record_epochs(epochs: float, records: int) -> tuple[float, ...]:
    """Return when to record: 0, then at epochs of equal ratio, but at least a share of the run apart.

    Parameters
    ----------
    epochs : float
        Length of the run.
    records : int
        How many.

    Returns
    -------
    tuple of float
        Ascending, the last one `epochs`; a few fewer where the least distance pushes them together at the end.
    """
    least = epochs / (8 * records)
    times = [0.0]
    for each in np.geomspace(epochs / 500, epochs, records - 1):
        times.append(max(float(each), times[-1] + least))
    return (*(each for each in times if each < epochs * (1 - 1e-9)), float(epochs))


def trained(landscape: NetworkLandscape, config: Choices, epochs: float, records: int, path: Path) -> xr.DataTree:
    """Train by SGD and keep losses, errors and weights; go on with what is there.

    Parameters
    ----------
    landscape : NetworkLandscape
        Network, data and labels.
    config : Choices
        Rates, replicas, seed.
    epochs : float
        Length of the run.
    records : int
        Of the weights; twice as many of losses.
    path : Path
        The file.

    Returns
    -------
    xarray.DataTree
        Root and ``/weights``.
    """
    assert config.learning_rate is not None
    assert config.batch_size is not None
    process = sgd(landscape, config.learning_rate, config.batch_size)
    weights = Weights(AtEpochs(record_epochs(epochs, records)))
    return simulate(
        process,
        epochs=epochs,
        replicas=config.replicas,
        seed=config.seed,
        schedule=AtEpochs(record_epochs(epochs, 2 * records)),
        observables=[Losses(), weights],
        resume=path,
    )


def measured(
    process: Process,
    weights: xr.Dataset,
    positions: Iterable[int],
    observables: Iterable[Observable],
    *,
    seed: int,
    replicas: int,
) -> xr.Dataset:
    """Return what these observables would have recorded at weights where a run has been.

    Parameters
    ----------
    process : Process
        On the landscape to measure, which may restrict measurements to some tensors.
    weights : xarray.Dataset
        Group ``/weights`` of the run.
    positions : iterable of int
        Which of its records.
    observables : iterable of Observable
        What to measure.
    seed : int
        Of the run.
    replicas : int
        How many of the first replicas.

    Returns
    -------
    xarray.Dataset
        With the dimensions ``replica`` and ``step`` and the clocks of the run.
    """
    chosen, watching = list(positions), list(observables)
    rows: list[Arrays] = []
    for k in chosen:
        here = weights.weights.isel(weight_step=k, replica=slice(replicas)).values
        state = process.start(replicas, seed, torch.as_tensor(here))
        snapshot = Snapshot(process, replace(state, step=int(weights.weight_step[k])))
        with single_threaded_products():  # as in a run: replicas side by side, and the same bits
            rows.append({name: value for each in watching for name, value in each.measure(snapshot).items()})
    found = {name: _labelled(name, np.stack([row[name] for row in rows], axis=1)) for name in rows[0]}
    at = weights.isel(weight_step=chosen)
    clocks = {name: ("step", at[name].values) for name in ("epoch", "time")}
    labels = {"cohort": list(COHORTS), "cohort_pair": list(COHORT_PAIRS)}
    kept_labels = {name: each for name, each in labels.items() if any(name in value.dims for value in found.values())}
    return xr.Dataset(
        found, coords={"step": at.weight_step.values, "replica": np.arange(replicas), **clocks, **kept_labels}
    )


def _labelled(name: str, values: NDArray[Any]) -> xr.Variable:
    known = describe(name.removesuffix("_shuffled"))
    return xr.Variable(("replica", "step", *known.dimensions), values, known.attributes)


def order_parameters_of(
    landscape: NetworkLandscape, config: Any, weights: xr.Dataset, positions: list[int]
) -> xr.Dataset:
    """Return order parameters, and those of shuffled cohorts, along a run.

    Parameters
    ----------
    landscape : NetworkLandscape
        Restricted to the tensors that are measured.
    config : studies.label_noise_phases.Config
        Rates, replicas, minibatches.
    weights : xarray.Dataset
        Of the run.
    positions : list of int
        At which of its records.

    Returns
    -------
    xarray.Dataset
        Of `measured`.
    """
    process = sgd(landscape, config.learning_rate, config.batch_size)
    observables = [OrderParameters(config.alignment_minibatches), ShuffledCohorts()]
    return measured(process, weights, positions, observables, seed=config.seed, replicas=config.replicas)


def spectra_of(
    landscape: NetworkLandscape, config: Any, weights: xr.Dataset, positions: list[int], replicas: int
) -> xr.Dataset:
    """Return noise spectra at some records of a run.

    Parameters
    ----------
    landscape : NetworkLandscape
        Restricted to the tensors that are measured.
    config : studies.label_noise_phases.Config
        Rates, seed, n_modes.
    weights : xarray.Dataset
        Of the run.
    positions : list of int
        At which of its records.
    replicas : int
        How many of the first replicas, at most.

    Returns
    -------
    xarray.Dataset
        Of `measured`, with the exact trace as ``noise_strength``.
    """
    process = sgd(landscape, config.learning_rate, config.batch_size)
    observables = [NoiseSpectrum(config.n_modes), _Trace()]
    fewer = min(config.replicas, replicas)
    return measured(process, weights, positions, observables, seed=config.seed, replicas=fewer)


@dataclass(frozen=True)
class _Trace(Observable):
    """D, by cohort, from what the spectrum has computed already."""

    def measure(self, snapshot: Snapshot) -> Arrays:
        return stacked([{"noise_strength": each.closed_forms()["noise_strength"]} for each in snapshot.ensembles])


def sketches_of(
    landscape: NetworkLandscape, config: Any, weights: xr.Dataset, positions: list[int], names: list[str]
) -> xr.Dataset:
    """Return minibatch gradients of both cohorts of the first replica in the plane of their means.

    Parameters
    ----------
    landscape : NetworkLandscape
        Restricted to the tensors that are measured.
    config : studies.label_noise_phases.Config
        B and seed.
    weights : xarray.Dataset
        Of the run.
    positions : list of int
        At which of its records.
    names : list of str
        Of them, for titles.

    Returns
    -------
    xarray.Dataset
        Of `langevin_nn.ensemble.project_gradients`, along ``panel``.
    """
    wrong = landscape.cohort[0].cpu()
    cohorts = {"correct": ~wrong, "mislabeled": wrong}
    generator = Seeds(config.seed).generator("gradient sketches", 0)
    panels = []
    for k in positions:
        gradients = landscape.sample_gradients(torch.as_tensor(weights.weights.isel(replica=0, weight_step=k).values))
        groups = {}
        for name, members in cohorts.items():
            size = max(1, round(config.batch_size * float(members.double().mean())))
            groups[name] = draw_minibatch_gradients(gradients, size, generator, members=members)
        panels.append(project_gradients(groups))
    return xr.concat(panels, "panel").assign_coords(panel=names)


def spread_records(count: int, wanted: int) -> list[int]:
    """Return positions spread over all records, the first and the last among them.

    Parameters
    ----------
    count : int
        Records that there are.
    wanted : int
        How many of them.

    Returns
    -------
    list of int
        Ascending.
    """
    return [int(each) for each in np.unique(np.rint(np.linspace(0, count - 1, min(count, wanted))))]


def middle_records(phases: xr.Dataset, epochs: NDArray[np.float64]) -> dict[str, int]:
    """Return the record nearest to the middle of each phase that all replicas reached, on a logarithmic clock.

    Parameters
    ----------
    phases : xarray.Dataset
        Of `langevin_nn.analyzers.detect_phases`.
    epochs : array, shape (record,)
        When there are records, from 0.

    Returns
    -------
    dict of str to int
        By the name of the phase, ascending; a phase that was left out, or lies between two records, has none.
    """
    first, last = float(epochs[1]), float(epochs[-1])
    begin = phases["boundary_epoch"].transpose("replica", "boundary").values.mean(0)  # NaN unless all got there
    names = phases["phase"].attrs["flag_meanings"].split()
    reached = [(name, edge) for name, edge in zip(names, [first, *begin], strict=True) if np.isfinite(edge)]
    ends = [*(edge for _, edge in reached[1:]), last]
    found: dict[str, int] = {}
    for (name, edge), end in zip(reached, ends, strict=True):
        nearest = int(np.abs(np.log(epochs[1:]) - np.log(max(edge, first) * end) / 2).argmin()) + 1
        if edge < end and nearest not in found.values():
            found[name] = nearest
    return found


def kept(path: Path, make: Callable[[], xr.Dataset]) -> xr.Dataset:
    """Return what was measured before, or measure and keep it.

    Parameters
    ----------
    path : Path
        The file.
    make : callable
        What measures.

    Returns
    -------
    xarray.Dataset
        In memory.
    """
    if not path.exists():
        write_trajectory(xr.DataTree(make()), path)
    with xr.open_dataset(path) as found:
        return found.load()
