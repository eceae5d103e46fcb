"""Redraw half of the labels, and ask what the paper reports of learning then: four phases, and what tells them apart.

The twins of Figures 3A, 4 and 5 and of the sketch 4D of Feng & Tu (2021), doi 10.1088/2632-2153/abf5b9: training and test
errors; activities, directed activities and the alignment of the two cohorts' mean gradients; noise spectra. Order parameters
are those of the weights between the hidden layers, as in the paper, and of all weights, on the same runs. Controls: the same
networks trained on the true labels, and cohorts of the same sizes drawn at random. Writes trajectories, order parameters,
spectra, claims.json, summary.json and four figures, and prints which claims hold. With --dataset cifar10 it asks a
convolutional network whether the same phases appear there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from langevin_nn.analyzers import phase_means
from langevin_nn.checks import number, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.figures import gradient_sketch
from langevin_nn.process import sgd
from langevin_nn.schedules import AtEpochs
from studies.lab.choices import DEVIATIONS, dataset_of, landscape_of, load, settle
from studies.lab.claims import Claim
from studies.lab.command import sized
from studies.lab.study import Answer, Study, Work
from studies.label_noise_phases.claims import claims_of
from studies.label_noise_phases.figures import cohort_order_parameter_figure, memorisation_figure, phase_spectrum_figure
from studies.label_noise_phases.gradients import PAPER_DIMENSIONS
from studies.label_noise_phases.measures import Runs, record_epochs, runs_of
from studies.label_noise_phases.plan import Config, Settled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Config", "Settled"]

LEAST_RECORDS = 10
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


class LabelNoisePhases(Study[Config, Settled, Runs]):
    """Claims 4, 5 and 7 to 10, or 14."""

    name = "label_noise_phases"
    choices = Config
    quick = _QUICK
    table = "order_parameters.nc"
    drawn = ("errors", "order_parameters_hidden", "order_parameters_all", "noise_spectra", "gradients")
    has_claims = True

    def settle(self, choices: Config) -> Settled:
        is_other = _is_other(choices) and not choices.quick
        settled = settle(Settled, sized(choices, _CONVOLUTIONAL) if is_other else choices)
        expected = "a share above 0, since phases are told by two cohorts"
        number("label_noise", settled.label_noise, expected, above=0, most=1)
        expected = f"at least {LEAST_RECORDS} (int), since phases are told by their records"
        whole_number("records", settled.records, expected, least=LEAST_RECORDS, most=5000)
        whole_number("records_of_all", settled.records_of_all, "at least 5 (int)", least=5, most=settled.records)
        for name in ("spectrum_replicas", "spectrum_replicas_of_all"):
            expected = "at least 2 (int), since effective dimensions come with intervals"
            whole_number(name, getattr(settled, name), expected, least=2)
        _refuse_what_cannot_run(settled)
        return settled

    def plan(self, settled: Settled) -> dict[str, float]:
        # In epochs of one replica, as they were on the digits.
        of_noisy = {
            "noisy": settled.epochs * settled.replicas,
            "order_parameters_noisy_hidden": settled.records * settled.replicas,
            "order_parameters_noisy_all": 2 * settled.records_of_all * settled.replicas,
            "spectra_noisy_hidden": 20 * min(settled.replicas, settled.spectrum_replicas),
        }
        of_clean = {name.replace("noisy", "clean"): cost / 2 for name, cost in of_noisy.items()}
        of_few = 20 * min(settled.replicas, settled.spectrum_replicas_of_all)
        return {**of_noisy, "spectra_noisy_all": of_few, "sketches": 40, **of_clean}

    def measure(self, settled: Settled, work: Work) -> Runs:
        return runs_of(settled, load(settled), work)

    def tables(self, settled: Settled, found: Runs) -> dict[str, xr.Dataset]:
        groups = {"without_label_noise": found.clean}
        groups |= {f"order_parameters_{choice}": each for choice, each in found.order.items()}
        groups |= {f"spectra_{choice}": each for choice, each in found.spectra.items()}
        # Each group on its own clock: xarray would align a group with its parent otherwise.
        own = {name: each.rename(step=f"{name}_step", replica=f"{name}_replica") for name, each in groups.items()}
        return {"": found.noisy, **own}

    def claims(self, settled: Settled, found: Runs) -> list[Claim]:
        return claims_of(found, _is_other(settled), _setting(settled))

    def verdict(self, answer: Answer[Settled, Runs]) -> str:
        return "\n".join(each.in_words() for each in answer.claims)

    def summary(self, answer: Answer[Settled, Runs]) -> dict[str, Any]:
        return {
            "verdicts": {str(each.number): each.verdict for each in answer.claims},
            "boundaries": _boundaries(answer.found.phases),
            "phase_means": _phase_means(answer.found),
            "deviations": list(DEVIATIONS),
        }

    def figures(self, answer: Answer[Settled, Runs]) -> dict[str, Figure]:
        runs, said = answer.found, _setting(answer.settled)
        of_tensors = {
            f"order_parameters_{choice}": cohort_order_parameter_figure(each, runs.phases, f"{_OF[choice]}; {said}")
            for choice, each in runs.order.items()
        }
        paper = PAPER_DIMENSIONS if dataset_of(answer.settled).is_papers else {}
        spectra = {_OF[choice]: each for choice, each in runs.spectra.items()}
        return {
            "errors": memorisation_figure(runs.noisy, runs.phases, said),
            **of_tensors,
            "noise_spectra": phase_spectrum_figure(spectra, runs.phases, runs.clean_spectra["hidden"], paper, said),
            "gradients": gradient_sketch(runs.sketches),
        }


def _is_other(config: Config) -> bool:
    """Return whether the data set brings a network of its own, which is not the paper's."""
    return dataset_of(config).network is not None


def _refuse_what_cannot_run(config: Settled) -> None:
    """Make networks and plans before anything is run."""
    data = load(config)
    for parameters in ("*", dataset_of(config).hidden_weights):
        landscape = landscape_of(
            data, config, parameters=parameters, label_noise=config.label_noise, hidden=config.hidden
        )
        process = sgd(landscape, config.learning_rate, config.batch_size)
    last = round(config.epochs / process.epochs_per_step)
    made = len(AtEpochs(record_epochs(config.epochs, config.records)).steps(last, 1 / process.epochs_per_step))
    if made < LEAST_RECORDS:
        raise ConfigurationError(
            f"epochs={config.epochs:g} are {last} updates: expected at least {LEAST_RECORDS} records at updates of their "
            f"own, got {made}, since phases are told by them; train longer"
        )


def _setting(config: Settled) -> str:
    network = (
        "convolutional network" if _is_other(config) else f"network of {'-'.join(map(str, config.hidden))} hidden units"
    )
    return (
        f"{config.dataset}, {config.samples_per_class} images a class, {network}, label noise {config.label_noise:g}, "
        f"α = {config.learning_rate:g}, B = {config.batch_size}, {config.epochs:g} epochs, {config.replicas} replicas"
    )


_OF = {"hidden": "weights between the hidden layers", "all": "all weights"}


def _boundaries(phases: xr.Dataset) -> dict[str, dict[str, float]]:
    ends = {"epoch": "", "lower": "_lower", "upper": "_upper"}
    return {
        str(name): {key: _rounded(at[f"mean_boundary_epoch{end}"]) for key, end in ends.items()}
        | {"replicas": int(at.reached_count)}
        for name in phases.boundary.values
        for at in [phases.sel(boundary=name)]
    }


def _phase_means(runs: Runs) -> dict[str, list[float]]:
    def rounded(values: xr.DataArray) -> list[float]:
        return [_rounded(each) for each in values.values]

    found: dict[str, list[float]] = {}
    for choice, each in runs.order.items():
        for name in ("activity", "directed_activity", "alignment", "projection_variance", "gradient_alignment"):
            values = phase_means(each[name], runs.phases).mean("replica")
            group = next(str(d) for d in values.dims if d != "phase")
            found |= {f"{choice} {name} {row}": rounded(values.sel({group: row})) for row in values[group].values}
    for choice, each in runs.spectra.items():
        dimension = phase_means(each.effective_dimension, runs.phases).mean("replica")
        found[f"{choice} effective_dimension"] = rounded(dimension)
    found["test_error"] = rounded(phase_means(runs.noisy.test_error, runs.phases).mean("replica"))
    return found


def _rounded(value: Any) -> float:
    return float(f"{float(value):.4g}")


STUDY = LabelNoisePhases()
