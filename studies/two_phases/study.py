"""Train without label noise, and ask whether learning has two phases, fast learning and exploration, as the paper reports.

One long run, measured over the weights between the hidden layers and over all parameters: losses, order parameters, noise
spectra, and averages over time beside those over minibatches. Networks of several widths tell how the effective dimension
depends on size; a grid of learning rates and minibatches, whether both phases are there whatever these are. Decides claims 1
to 3. Writes trajectories, two_phases.nc, claims.json, summary.json and figures, and prints what was found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from langevin_nn.analyzers import TimeAveragedOrderParameters, detect_phases, fit_power_law, logarithm, phase_means
from langevin_nn.checks import number, shown, whole_number
from langevin_nn.errors import ConfigurationError, EstimationRefused
from langevin_nn.figures import gradient_sketch
from studies.lab.choices import DEVIATIONS, landscape_of, load, refuse_own_network, settle
from studies.lab.claims import Claim
from studies.lab.study import Answer, Study, Work
from studies.two_phases.claims import Evidence, claims, in_their_phase, reached
from studies.two_phases.curves import Curves
from studies.two_phases.figures import (
    effective_dimension_figure,
    rates_figure,
    time_average_figure,
    two_phases_figure,
    two_spectra_figure,
)
from studies.two_phases.plan import CHOICES, FAST, LATE, Config, Plan, Settled
from studies.two_phases.runs import control_run, grid_runs, long_run, sketches, width_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Config", "Found"]


_QUICK: dict[str, Any] = {
    "dataset": "digits",
    "samples_per_class": 20,
    "batch_size": 10,
    "learning_rate": 0.3,
    "epochs": 40.0,
    "hidden": (16, 16),
    "widths": (6, 9, 12),
    "learning_rates": (0.2, 0.3),
    "batch_sizes": (10,),
    "replicas": 2,
    "few_replicas": 2,
}


@dataclass(frozen=True)
class Found:
    """What was measured.

    Parameters
    ----------
    evidence : Evidence
        To which claims are held.
    sketch : xarray.Dataset
        Minibatch gradients in a plane.
    exponents : xarray.Dataset
        Of D_s against P, by choice and phase.
    scalars : dict of str to xarray.Dataset
        Of the long run, by choice of parameters.
    """

    evidence: Evidence
    sketch: xr.Dataset
    exponents: xr.Dataset
    scalars: dict[str, xr.Dataset]


class TwoPhases(Study[Config, Settled, Found]):
    """Claims 1 to 3."""

    name = "two_phases"
    choices = Config
    quick = _QUICK
    table = "two_phases.nc"
    drawn = ("two_phases", "gradients", "spectra", "effective_dimension", "rates", "time_averages")
    has_claims = True

    def settle(self, choices: Config) -> Settled:
        settled = settle(Settled, choices, "clean")
        rate, size = settled.learning_rate, settled.batch_size
        settled = replace(
            settled,
            learning_rates=choices.learning_rates or tuple(factor * rate for factor in (0.5, 1.0, 2.0)),
            batch_sizes=choices.batch_sizes or tuple(dict.fromkeys(max(1, round(size * each)) for each in (0.5, 1, 2))),
        )
        _check(settled)
        return settled

    def plan(self, settled: Settled) -> dict[str, float]:
        of_widths = sum(max(1.0, width / 50) for width in settled.widths) / 2
        of_grid = sum(settled.learning_rate / rate for rate in settled.learning_rates) * len(settled.batch_sizes) / 2
        few = settled.few_replicas
        return {
            "long run": settled.replicas + few,
            "label noise": few,
            "widths": few * of_widths,
            "grid": few * of_grid,
        }

    def measure(self, settled: Settled, work: Work) -> Found:
        data = load(settled)
        plan = Plan.of(settled, len(data.train_inputs))
        with work.part("long run"):
            trees = long_run(settled, data, plan, work.folder)
        with work.part("label noise"):
            control = control_run(settled, data, plan, work.folder).load()
        with work.part("widths", runs=len(settled.widths)):
            widths = in_their_phase(width_runs(settled, data, plan, work.folder))
        with work.part("grid"):
            grid = _of_grid(grid_runs(settled, work.folder))
        scalars = {name: tree.to_dataset().load() for name, tree in trees.items()}
        root = scalars[CHOICES[0]]
        # Order parameters are recorded at the ends of windows, too, where there are no losses.
        root = root.isel(step=np.flatnonzero(root.train_error.sel(cohort="all").notnull().any("replica").values))
        phases = detect_phases(root)
        averages = TimeAveragedOrderParameters(
            length=plan.per_epoch, n_samples=len(data.train_inputs), batch_size=settled.batch_size
        )(trees[CHOICES[0]])
        inputs, (first, second), classes = data.train_inputs.shape[1], settled.hidden, data.n_classes
        sizes = (first * second, (inputs + 1) * first + (first + 1) * second + (second + 1) * classes)
        evidence = Evidence(
            curves={
                name: Curves.of(own, phases, size) for (name, own), size in zip(scalars.items(), sizes, strict=True)
            },
            root=root,
            phases=phases,
            control=control,
            spectra={name: tree["spectrum"].to_dataset().load() for name, tree in trees.items()},
            widths=widths,
            grid=grid,
            time_averages=averages,
        )
        return Found(evidence, sketches(settled, data, trees[CHOICES[1]]), _exponents(widths), scalars)

    def tables(self, settled: Settled, found: Found) -> dict[str, xr.Dataset]:
        evidence = found.evidence
        averages = evidence.time_averages
        return {
            "phases": evidence.phases,
            "time_averages": averages.reset_coords(drop=True).assign_coords(epoch=("window", averages.epoch.values)),
            "sketch": found.sketch,
            "widths": evidence.widths,
            "grid": evidence.grid,
            "exponents": found.exponents,
        }

    def claims(self, settled: Settled, found: Found) -> list[Claim]:
        return claims(found.evidence, settled)

    def verdict(self, answer: Answer[Settled, Found]) -> str:
        return "\n\n".join(each.in_words() for each in answer.claims)

    def summary(self, answer: Answer[Settled, Found]) -> dict[str, Any]:
        dimensions = answer.found.evidence.widths.effective_dimension.mean("replica").to_series().dropna()
        return {
            "deviations": list(DEVIATIONS),
            "exponents": answer.found.exponents.exponent.to_series().unstack().to_dict(),
            "effective_dimension": dimensions.reset_index().to_dict("records"),
        }

    def figures(self, answer: Answer[Settled, Found]) -> dict[str, Figure]:
        evidence, scalars = answer.found.evidence, answer.found.scalars
        spectra, hidden = evidence.spectra[CHOICES[0]], scalars[CHOICES[0]]
        last = float(evidence.root.epoch[-1])
        moments = [int(np.argmin(np.abs(spectra.epoch.values - share * last))) for share in (FAST, LATE)]
        both = spectra.isel(spectrum_step=moments).rename(spectrum_step="phase")
        both = both.assign_coords(phase=["fast_learning", "exploration"])
        both = both.isel(phase=np.flatnonzero(reached(evidence.curves[CHOICES[0]], spectra.epoch.values[moments])))
        widths = evidence.widths.sel(choice=list(CHOICES))
        return {
            "two_phases": two_phases_figure(scalars, evidence.phases),
            "gradients": gradient_sketch(answer.found.sketch),
            "spectra": two_spectra_figure(both),
            "effective_dimension": effective_dimension_figure(widths, answer.found.exponents),
            "rates": rates_figure(evidence.grid),
            "time_averages": time_average_figure(hidden, evidence.time_averages, evidence.phases),
        }


def _check(settled: Settled) -> None:
    """Refuse what cannot be run, or tells nothing, before anything runs."""
    refuse_own_network(settled, "since its widths are varied")
    if len(settled.hidden) != 2 or min(settled.hidden) < 1:
        raise ConfigurationError(
            f"hidden={shown(settled.hidden)}: expected two whole numbers from 1, since the weights between two hidden "
            "layers are measured"
        )
    widths = settled.widths
    if len(set(widths)) < 3 or len(set(widths)) < len(widths) or min(widths) < 1:
        raise ConfigurationError(
            f"widths={shown(widths)}: expected at least 3 whole numbers from 1, each of them once, since a line goes "
            "through any two points"
        )
    expected = f"from 2 to the {settled.replicas} replicas (int), since claims are held to intervals over replicas"
    whole_number("few_replicas", settled.few_replicas, expected, least=2, most=settled.replicas)
    for name, values in (("learning_rates", settled.learning_rates), ("batch_sizes", settled.batch_sizes)):
        for each in values:
            number(name, each, "numbers above 0, of rates and counts", above=0, most=1e6)
        if len(set(values)) < len(values):
            raise ConfigurationError(
                f"{name}={shown(values)}: expected each of them once, since each is a row of the grid"
            )
    data = load(settled)
    n_samples = len(data.train_inputs)
    Plan.of(settled, n_samples)
    if max(settled.batch_sizes) > n_samples // 4:
        raise ConfigurationError(
            f"batch_sizes={shown(settled.batch_sizes)} with {n_samples} training samples: expected at most a quarter of them "
            "in a minibatch; choose smaller ones"
        )
    for width in (*settled.hidden, *widths):
        landscape_of(data, settled, hidden=(width, width))  # what is too large is refused


def _of_grid(runs: xr.Dataset) -> xr.Dataset:
    """Return the phases at each point, and the means of order parameters in each."""
    pieces = []
    for k in range(runs.sizes["point"]):
        own = runs.isel(point=k)
        phases = detect_phases(
            own.isel(step=np.flatnonzero(own.train_error.notnull().any(("replica", "cohort")).values))
        )
        begins = phases.boundary_time.isel(boundary=0, drop=True)
        piece = xr.Dataset({"boundary_time": begins, "reached": begins.notnull()})
        own = own.sel(cohort="all", drop=True)
        piece["alignment"] = phase_means(own.alignment, phases)
        for name in ("projection_variance", "activity"):
            piece[name] = np.exp(phase_means(logarithm(own[name]), phases))
        pieces.append(piece.reset_coords(drop=True))
    return xr.concat(pieces, "point").assign_coords({name: runs[name] for name in ("learning_rate", "batch_size")})


def _exponents(widths: xr.Dataset) -> xr.Dataset:
    """Return power laws of D_s against P by choice and phase."""
    of_choices = []
    for choice in CHOICES:
        rows = []
        own = widths.sel(choice=choice).dropna("width", subset=["n_parameters"])
        for phase in own.phase.values:
            values = own.effective_dimension.sel(phase=phase).transpose("width", "replica").values
            centre, count = values.mean(1), values.shape[1]
            # D_s is a whole number: what rounds to the same in all replicas is not without error.
            error = np.sqrt((values.var(1, ddof=1) + 1 / 12) / count) / centre
            known = np.isfinite(centre)
            try:
                fit = fit_power_law(own.n_parameters.values[known], centre[known], error[known])
            except EstimationRefused:
                fit = xr.Dataset(
                    dict.fromkeys(("exponent", "exponent_lower", "exponent_upper", "prefactor"), ((), np.nan))
                )
            rows.append(fit.expand_dims(phase=[phase]))
        of_choices.append(xr.concat(rows, "phase"))
    return xr.concat(of_choices, xr.Variable("choice", list(CHOICES)))


STUDY = TwoPhases()
