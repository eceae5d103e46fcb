"""Redraw half of the labels, and ask what the paper reports of learning then: four phases, and what tells them apart.

The twins of Figures 3A, 4 and 5 and of the sketch 4D of Feng & Tu (2021), doi 10.1088/2632-2153/abf5b9: training and test
errors; activities, directed activities and the alignment of the two cohorts' mean gradients; noise spectra. Order parameters
are those of the weights between the hidden layers, as in the paper, and of all weights, on the same runs. Controls: the same
networks trained on the true labels, and cohorts of the same sizes drawn at random. Writes trajectories, order parameters,
spectra, claims.json, summary.json and four figures, and prints which claims hold. With --dataset cifar10 it asks a
convolutional network whether the same phases appear there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from langevin_nn.analyzers import detect_phases, phase_means
from langevin_nn.checks import number, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.figures import (
    cohort_order_parameter_figure,
    gradient_sketch,
    memorisation_figure,
    phase_spectrum_figure,
    write_figures,
)
from langevin_nn.landscape import NetworkLandscape
from langevin_nn.process import sgd
from langevin_nn.provenance import attributes
from langevin_nn.report import say
from langevin_nn.schedules import AtEpochs
from langevin_nn.store import write_trajectory
from models.datasets import ImageData
from studies.command import Command
from studies.paper.claims import Claim, write_claims
from studies.paper.folder import begin, finish, words_of
from studies.paper.label_noise_claims import claims_of
from studies.paper.label_noise_gradients import PAPER_DIMENSIONS
from studies.paper.label_noise_measures import (
    Runs,
    kept,
    middle_records,
    order_parameters_of,
    record_epochs,
    sketches_of,
    spectra_of,
    spread_records,
    trained,
)
from studies.paper.training import DEVIATIONS, SETTINGS, Choices, hidden_weights, landscape_of, load, settled

__all__ = ["Config", "main", "run"]

NAME = "label_noise_phases"
LEAST_RECORDS = 10
_FIGURES = ("errors", "order_parameters_hidden", "order_parameters_all", "noise_spectra", "gradients")
RESULTS = ("order_parameters.nc", "claims.json", "summary.json", *(f"{name}.png" for name in _FIGURES))
_QUICK: dict[str, Any] = {
    "dataset": "digits",
    "samples_per_class": 12,
    "batch_size": 10,
    "epochs": 40.0,
    "hidden": (20, 20),
    "replicas": 2,
    "records": 12,
    "records_of_all": 6,
    "spectrum_replicas": 2,
    "spectrum_replicas_of_all": 2,
    "n_modes": 60,
    "alignment_minibatches": 16,
}
# A convolutional network trains and is measured a hundred times as slowly.
_CONVOLUTIONAL: dict[str, Any] = {
    "replicas": 4,
    "records": 20,
    "records_of_all": 10,
    "spectrum_replicas": 3,
    "spectrum_replicas_of_all": 2,
}


@dataclass(frozen=True)
class Config(Choices):
    """Everything that can be chosen."""

    label_noise: float = 0.5
    """Fraction of training samples whose label is redrawn from all classes, above 0 and at most 1."""
    hidden: tuple[int, ...] = (50, 50)
    """Units of each hidden layer of a fully connected network; at least two layers."""
    records: int = 60
    """Records of the order parameters of the hidden weights, at epochs of about equal ratio; twice as many of losses."""
    records_of_all: int = 20
    """At how many of them those of all weights are measured."""
    alignment_minibatches: int = 64
    """Independent minibatches from which the alignment R is estimated at each record."""
    spectrum_replicas: int = 8
    """Replicas whose noise spectra are measured, at a record in each phase."""
    spectrum_replicas_of_all: int = 3
    """The same for all weights."""
    n_modes: int = 500
    """Leading eigenvalues to keep."""
    out: Path = field(default=Path("output/label_noise_phases"))
    """Folder for trajectories, summary.json, claims.json and figures."""


def _chosen(config: Config) -> Config:
    """Return the configuration that is run, everything chosen."""
    if config.dataset == "cifar10" and not config.quick:
        defaults = Config()
        untouched = {
            name: value for name, value in _CONVOLUTIONAL.items() if getattr(config, name) == getattr(defaults, name)
        }
        config = replace(config, **untouched)
    config = settled(config, _QUICK)
    number("label_noise", config.label_noise, "a share above 0, since phases are told by two cohorts", above=0, most=1)
    expected = f"at least {LEAST_RECORDS} (int), since phases are told by their records"
    whole_number("records", config.records, expected, least=LEAST_RECORDS, most=5000)
    whole_number("records_of_all", config.records_of_all, "at least 5 (int)", least=5, most=config.records)
    for name in ("spectrum_replicas", "spectrum_replicas_of_all"):
        expected = "at least 2 (int), since effective dimensions come with intervals"
        whole_number(name, getattr(config, name), expected, least=2)
    return config


def _refuse_what_cannot_run(config: Config, data: ImageData) -> None:
    """Make networks and plans before anything is run."""
    assert config.learning_rate is not None
    assert config.batch_size is not None
    assert config.epochs is not None
    options: dict[str, Any] = {"label_noise": config.label_noise, "hidden": config.hidden}
    for parameters in ("*", hidden_weights(data.name)):
        process = sgd(
            landscape_of(data, config, parameters=parameters, **options), config.learning_rate, config.batch_size
        )
    last = round(config.epochs / process.epochs_per_step)
    made = len(AtEpochs(record_epochs(config.epochs, config.records)).steps(last, 1 / process.epochs_per_step))
    if made < LEAST_RECORDS:
        raise ConfigurationError(
            f"epochs={config.epochs:g} are {last} updates: expected at least {LEAST_RECORDS} records at updates of their "
            f"own, got {made}, since phases are told by them; train longer"
        )


def _runs(config: Config, data: ImageData, folder: Path) -> Runs:
    """Train and measure whatever is not in the folder yet."""
    assert config.dataset is not None
    assert config.epochs is not None
    tensors = {"hidden": hidden_weights(config.dataset), "all": "*"}

    def landscape(learned: str, choice: str) -> NetworkLandscape:
        return landscape_of(
            data,
            config,
            label_noise=config.label_noise,
            hidden=config.hidden,
            parameters=tensors[choice],
            trained_on="given" if learned == "noisy" else "true",
        )

    roots, orders, spectra, phases = {}, {}, {}, {}
    for learned, share in (("noisy", 1), ("clean", 2)):
        everything = landscape(learned, "all")
        # Without label noise half of the records do, and a perceptron has fitted everything long before half of the time.
        length = config.epochs if SETTINGS[config.dataset].is_convolutional else config.epochs / share
        trajectory = trained(everything, config, length, config.records // share, folder / f"{learned}.nc")
        root, weights = trajectory.to_dataset().load(), trajectory["weights"].to_dataset()
        roots[learned] = root.assign_coords(mislabeled_fraction=("replica", _share_of_mislabeled(everything)))
        two_cohorts = learned == "noisy"
        phases[learned] = detect_phases(root if two_cohorts else _without_cohorts(root))
        count = weights.sizes["weight_step"]
        middles = middle_records(phases[learned], weights.epoch.values)
        at = list(middles.values())
        for choice, records in (("hidden", config.records // share), ("all", config.records_of_all // share)):
            restricted = landscape(learned, choice)
            positions = sorted({*spread_records(count, records), *at})
            orders[learned, choice] = kept(
                folder / f"order_parameters_{learned}_{choice}.nc",
                lambda here=restricted, p=positions, w=weights: order_parameters_of(here, config, w, p),  # type: ignore[misc]
            )
            if learned == "noisy" or choice == "hidden":
                replicas = config.spectrum_replicas if choice == "hidden" else config.spectrum_replicas_of_all
                spectra[learned, choice] = kept(
                    folder / f"spectra_{learned}_{choice}.nc",
                    lambda here=restricted, w=weights, m=at, r=replicas: spectra_of(here, config, w, m, r),  # type: ignore[misc]
                )

        if two_cohorts:
            names = [f"phase {name}, epoch {weights.epoch.values[k]:.0f}" for name, k in middles.items()]
            sketches = kept(
                folder / "sketches.nc",
                lambda w=weights, m=at, n=names: sketches_of(landscape("noisy", "hidden"), config, w, m, n),  # type: ignore[misc]
            )

    def of(learned: str, found: Mapping[tuple[str, str], xr.Dataset]) -> dict[str, xr.Dataset]:
        return {choice: each for (name, choice), each in found.items() if name == learned}

    return Runs(
        roots["noisy"],
        roots["clean"],
        phases["noisy"],
        phases["clean"],
        of("noisy", orders),
        of("clean", orders),
        of("noisy", spectra),
        of("clean", spectra),
        sketches,
    )


def _share_of_mislabeled(landscape: NetworkLandscape) -> np.ndarray[Any, Any]:
    return np.asarray(landscape.mislabeled.double().mean(1).cpu())


def _without_cohorts(root: xr.Dataset) -> xr.Dataset:
    """Return the run as one without label noise, which has two phases."""
    return root.assign(train_error=root.train_error.where(root.cohort != "mislabeled"))


def run(config: Config) -> tuple[list[Claim], Runs]:
    """Run the study and write its results.

    Parameters
    ----------
    config : Config
        What was chosen.

    Returns
    -------
    claims : list of Claim
        What holds.
    runs : Runs
        What was measured.

    Raises
    ------
    ConfigurationError
        If a choice cannot be run, or another run's remains are in the way.
    UnstableTrajectory
        If the dynamics diverge.
    StorageError
        If the disk fails; --resume goes on from there.
    """
    started = time.perf_counter()
    config = _chosen(config)
    data = load(config)
    _refuse_what_cannot_run(config, data)
    folder = begin(config, NAME, RESULTS)
    runs = _runs(config, data, folder)
    claims = claims_of(runs, config.dataset == "cifar10", _setting(config))
    write_claims(config.out / "claims.json", claims)
    _write(runs, config)
    finish(_summary(runs, claims), config, NAME, config.out, time.perf_counter() - started)
    write_figures(_figures(runs, config), config.out)
    return claims, runs


def _write(runs: Runs, config: Config) -> None:
    groups = {"/": runs.noisy, "/without_label_noise": runs.clean}
    groups |= {f"/order_parameters_{choice}": each for choice, each in runs.order.items()}
    groups |= {f"/spectra_{choice}": each for choice, each in runs.spectra.items()}
    # Each group on its own clock: xarray would align a group with its parent otherwise.
    apart = {name: each if name == "/" else each.rename(step=f"{name[1:]}_step") for name, each in groups.items()}
    apart = {name: each if name == "/" else each.rename(replica=f"{name[1:]}_replica") for name, each in apart.items()}
    tree = xr.DataTree.from_dict(apart)
    tree.attrs.update(attributes({"study": NAME, "seed": config.seed, "choices": words_of(config)}))
    write_trajectory(tree, config.out / "order_parameters.nc", overwrite=True)


def _setting(config: Config) -> str:
    network = (
        "convolutional network"
        if config.dataset == "cifar10"
        else f"network of {'-'.join(map(str, config.hidden))} hidden units"
    )
    return (
        f"{config.dataset}, {config.samples_per_class} images a class, {network}, label noise {config.label_noise:g}, "
        f"α = {config.learning_rate:g}, B = {config.batch_size}, {config.epochs:g} epochs, {config.replicas} replicas"
    )


def _figures(runs: Runs, config: Config) -> dict[str, Figure]:
    said = _setting(config)
    figures = {"errors": memorisation_figure(runs.noisy, runs.phases, said)}
    for choice, each in runs.order.items():
        figures[f"order_parameters_{choice}"] = cohort_order_parameter_figure(
            each, runs.phases, f"{_OF[choice]}; {said}"
        )
    paper = PAPER_DIMENSIONS if config.dataset in ("mnist", "mnist10k") else {}
    figures["noise_spectra"] = phase_spectrum_figure(
        {_OF[choice]: each for choice, each in runs.spectra.items()},
        runs.phases,
        runs.clean_spectra["hidden"],
        paper,
        said,
    )
    figures["gradients"] = gradient_sketch(runs.sketches)
    return figures


_OF = {"hidden": "weights between the hidden layers", "all": "all weights"}


def _summary(runs: Runs, claims: list[Claim]) -> dict[str, Any]:
    found = runs.phases
    boundaries = {
        str(name): {
            "epoch": _rounded(found.mean_boundary_epoch.sel(boundary=name)),
            "lower": _rounded(found.mean_boundary_epoch_lower.sel(boundary=name)),
            "upper": _rounded(found.mean_boundary_epoch_upper.sel(boundary=name)),
            "replicas": int(found.reached_count.sel(boundary=name)),
        }
        for name in found.boundary.values
    }
    means = {}
    for choice, each in runs.order.items():
        for name in ("activity", "directed_activity", "alignment", "projection_variance", "gradient_alignment"):
            values = phase_means(each[name], found).mean("replica")
            group = next(str(d) for d in values.dims if d != "phase")
            for row in values[group].values:
                means[f"{choice} {name} {row}"] = [_rounded(v) for v in values.sel({group: row}).values]
    for choice, each in runs.spectra.items():
        dimension = phase_means(each.effective_dimension, found).mean("replica")
        means[f"{choice} effective_dimension"] = [_rounded(v) for v in dimension.values]
    test = phase_means(runs.noisy.test_error, found).mean("replica")
    means["test_error"] = [_rounded(v) for v in test.values]
    return {
        "verdicts": {str(each.number): each.verdict for each in claims},
        "boundaries": boundaries,
        "phase_means": means,
        "deviations": list(DEVIATIONS),
    }


def _rounded(value: Any) -> float:
    return float(f"{float(value):.4g}")


def _study(config: Config) -> None:
    claims, _ = run(config)
    for each in claims:
        say(each.in_words())
    say(f"\nResults are in {config.out}: runs/, {', '.join(RESULTS)}.")


main = Command("label_noise_phases", Config, __doc__, _study)


if __name__ == "__main__":
    raise SystemExit(main())
