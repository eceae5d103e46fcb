"""Two runs that differ in their labels alone, measured where they have been: over some tensors, or over all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from langevin_nn import Process, Seeds, detect_phases, sgd, simulate
from langevin_nn.ensemble import draw_minibatch_gradients, project_gradients
from langevin_nn.ensemble.empirical import EmpiricalEnsemble
from langevin_nn.landscape import NetworkLandscape
from langevin_nn.observables import Losses, NoiseSpectrum, Observable, OrderParameters, Snapshot, Weights, describe
from langevin_nn.observables.base import Arrays, stacked
from langevin_nn.progress import Progress
from langevin_nn.schedules import AtEpochs
from langevin_nn.schema import COHORT_PAIRS, COHORTS
from langevin_nn.threads import side_by_side, single_threaded_products
from models.datasets import ImageData
from studies.lab.choices import dataset_of, landscape_of
from studies.lab.study import Work
from studies.label_noise_phases.plan import Settled

__all__ = [
    "Runs",
    "ShuffledCohorts",
    "measured",
    "middle_records",
    "record_epochs",
    "runs_of",
    "spread_records",
]


@dataclass(frozen=True)
class ShuffledCohorts(Observable):
    """Directed activities and cosines of cohorts of the same sizes, drawn at random once for each replica: a control."""

    variables = tuple(
        replace(describe(name), name=f"{name}_shuffled") for name in ("directed_activity", "gradient_alignment")
    )

    def measure(self, snapshot: Snapshot) -> Arrays:  # noqa: D102
        landscape = snapshot.landscape
        assert isinstance(landscape, NetworkLandscape)
        cohorts = landscape.cohort.cpu().numpy()
        # Of step 0 whatever the step: the same samples all along.
        generators = list(snapshot.state.key(0).generators("shuffled cohorts"))

        def of_replica(position: int) -> Arrays:
            ensemble = snapshot.ensembles[position]
            assert isinstance(ensemble, EmpiricalEnsemble)
            drawn = torch.as_tensor(generators[position].permutation(cohorts[position if len(cohorts) > 1 else 0]))
            found = EmpiricalEnsemble(ensemble.gradients, ensemble.batch_size, drawn).closed_forms()
            return {each.name: found[each.name.removesuffix("_shuffled")] for each in self.variables}

        return stacked(side_by_side(of_replica, range(len(snapshot.ensembles))))


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


def runs_of(config: Settled, data: ImageData, work: Work) -> Runs:
    """Train with label noise and on the true labels, and measure where both runs have been.

    Parameters
    ----------
    config : Settled
        What was chosen.
    data : ImageData
        Without label noise.
    work : Work
        Where parts lie.

    Returns
    -------
    Runs
        In memory.
    """
    noisy, clean = (_of(learned, config, data, work) for learned in ("noisy", "clean"))
    both = [*chain.from_iterable(zip(noisy, clean, strict=True))]
    return Runs(*both[:-1])  # there are no sketches of the clean one


def _of(learned: str, config: Settled, data: ImageData, work: Work) -> tuple[Any, ...]:
    """Return losses, phases, order parameters and spectra of one of the runs; of the noisy one sketches, too."""

    def part(name: str, make: Callable[[], xr.Dataset]) -> xr.Dataset:
        with work.part(name):
            return work.kept(name, make)

    is_noisy = learned == "noisy"
    options: dict[str, Any] = {"label_noise": config.label_noise, "hidden": config.hidden}
    options["trained_on"] = "given" if is_noisy else "true"
    tensors = {"hidden": dataset_of(config).hidden_weights, "all": "*"}
    landscapes = {name: landscape_of(data, config, parameters=each, **options) for name, each in tensors.items()}
    # Without label noise half of the records do, and a perceptron has fitted everything long before half of the time.
    share = 1 if is_noisy else 2
    epochs = config.epochs / (share if dataset_of(config).network is None else 1)
    with work.part(learned):
        trajectory = _trained(landscapes["all"], config, epochs, config.records // share, work.path(f"{learned}.nc"))
    root, weights = trajectory.to_dataset().load(), trajectory["weights"].to_dataset()
    # Without label noise there are two phases, as if there were no cohorts.
    phases = detect_phases(
        root if is_noisy else root.assign(train_error=root.train_error.where(root.cohort != "mislabeled"))
    )
    fraction = landscapes["all"].mislabeled.double().mean(1).cpu().numpy()
    middles = middle_records(phases, weights.epoch.values)
    at = list(middles.values())
    count = weights.sizes["weight_step"]
    records = {"hidden": config.records // share, "all": config.records_of_all // share}
    replicas = {"hidden": config.spectrum_replicas, "all": config.spectrum_replicas_of_all}
    orders, spectra = {}, {}
    for choice, landscape in landscapes.items():
        process = sgd(landscape, config.learning_rate, config.batch_size)
        here = partial(measured, process, weights, seed=config.seed)
        positions = sorted({*spread_records(count, records[choice]), *at})
        watching = [OrderParameters(config.alignment_minibatches), ShuffledCohorts()]
        orders[choice] = part(
            f"order_parameters_{learned}_{choice}", partial(here, positions, watching, replicas=config.replicas)
        )
        if is_noisy or choice == "hidden":
            fewer = min(config.replicas, replicas[choice])
            of_modes = [NoiseSpectrum(config.n_modes), _Trace()]
            spectra[choice] = part(f"spectra_{learned}_{choice}", partial(here, at, of_modes, replicas=fewer))
    names = [f"phase {name}, epoch {weights.epoch.values[k]:.0f}" for name, k in middles.items()]
    sketches = partial(_sketches, landscapes["hidden"], config, weights, at, names)
    kept = part("sketches", sketches) if is_noisy else None
    return root.assign_coords(mislabeled_fraction=("replica", fraction)), phases, orders, spectra, kept


def _trained(landscape: NetworkLandscape, config: Settled, epochs: float, records: int, path: Path) -> xr.DataTree:
    """Train by SGD and keep losses, errors and weights; go on with what is there."""
    return simulate(
        sgd(landscape, config.learning_rate, config.batch_size),
        epochs=epochs,
        replicas=config.replicas,
        seed=config.seed,
        schedule=AtEpochs(record_epochs(epochs, 2 * records)),
        observables=[Losses(), Weights(AtEpochs(record_epochs(epochs, records)))],
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
    known = {each.name: each for observable in watching for each in observable.variables}
    rows: list[Arrays] = []
    with Progress(total=len(chosen), desc="measuring", leave=False, disable=None) as bar:
        for k in chosen:
            here = weights.weights.isel(weight_step=k, replica=slice(replicas)).values
            state = process.start(replicas, seed, torch.as_tensor(here))
            snapshot = Snapshot(process, replace(state, step=int(weights.weight_step[k])))
            with single_threaded_products():  # as in a run: replicas side by side, and the same bits
                rows.append({name: value for each in watching for name, value in each.measure(snapshot).items()})
            bar.update()
    found = {
        name: xr.Variable(
            ("replica", "step", *known[name].dimensions),
            np.stack([row[name] for row in rows], 1),
            known[name].attributes,
        )
        for name in rows[0]
    }
    at = weights.isel(weight_step=chosen)
    clocks = {name: ("step", at[name].values) for name in ("epoch", "time")}
    labels = {"cohort": list(COHORTS), "cohort_pair": list(COHORT_PAIRS)}
    kept_labels = {name: each for name, each in labels.items() if any(name in value.dims for value in found.values())}
    return xr.Dataset(
        found, coords={"step": at.weight_step.values, "replica": np.arange(replicas), **clocks, **kept_labels}
    )


@dataclass(frozen=True)
class _Trace(Observable):
    """D, by cohort, from what the spectrum has computed already."""

    variables = (describe("noise_strength"),)

    def measure(self, snapshot: Snapshot) -> Arrays:
        return stacked([{"noise_strength": each.closed_forms()["noise_strength"]} for each in snapshot.ensembles])


def _sketches(
    landscape: NetworkLandscape, config: Settled, weights: xr.Dataset, positions: list[int], names: list[str]
) -> xr.Dataset:
    """Return minibatch gradients of both cohorts of the first replica in the plane of their means, a panel a record."""
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
