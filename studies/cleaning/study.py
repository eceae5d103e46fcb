"""Clean a training set of mislabeled samples by their losses, as the paper does, as we do, and as cleanlab does.

Figure 6 of Feng & Tu: how far the losses of correct and mislabeled samples are apart in each phase of learning, whether two
Gaussians fit them, and what test accuracy is recovered by removing samples where the fitted means are farthest apart, or by
stopping there, from no label noise to four fifths. Beside it `find_mislabeled`, removal at random and, where it is installed,
cleanlab, on the same labels and with as many updates: their precision and recall, and when to use which. Writes the runs,
cleaning.nc, claims.json, summary.json and two figures, and prints what was found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from langevin_nn import detect_phases, sweep
from langevin_nn.analyzers import LossMixture, mean_with_interval
from langevin_nn.checks import number, shown, whole_number
from langevin_nn.errors import ConfigurationError
from studies.cleaning.claims import claim_11, claim_12, claim_13, in_short, which_to_use
from studies.cleaning.figures import cleaning_figure, removal_figure
from studies.cleaning.measures import results_of
from studies.cleaning.runs import Config, Settled, cleaned, has_cleanlab, uncleaned
from studies.lab.choices import DEVIATIONS, settle
from studies.lab.claims import Claim
from studies.lab.command import Place, of_the_numbers
from studies.lab.study import Answer, Study, Work
from studies.lab.sweeps import complete, whole_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Config", "Found"]

INSTALL = "pip install 'langevin_nn[compare]'"

_QUICK: dict[str, Any] = {
    "dataset": "digits",
    "label_noises": (0.0, 0.5),
    "samples_per_class": 15,
    "hidden": (16, 16),
    "epochs": 60.0,
    "batch_size": 20,
    "learning_rate": 0.2,
    "replicas": 2,
    "workers": 1,
    "with_cleanlab": False,
}


@dataclass(frozen=True)
class Found:
    """What was measured.

    Parameters
    ----------
    results : xarray.Dataset
        Of `results_of`: accuracies, qualities and removals of all rules.
    shown : xarray.Dataset
        Losses and errors along the run on all samples at one label noise.
    accuracy : xarray.DataArray
        Along runs on what each rule leaves there.
    phases : xarray.Dataset
        Of the run on all samples there.
    mixture : xarray.Dataset
        Two Gaussians fitted to its losses.
    """

    results: xr.Dataset
    shown: xr.Dataset
    accuracy: xr.DataArray
    phases: xr.Dataset
    mixture: xr.Dataset


class Cleaning(Study[Config, Settled, Found]):
    """Claims 11 to 13."""

    name = "cleaning"
    choices = Config
    quick = _QUICK
    table = "cleaning.nc"
    drawn = ("cleaning", "removal")
    has_claims = True

    def settle(self, choices: Config) -> Settled:
        _check(choices)
        wanted = has_cleanlab() if choices.with_cleanlab is None else choices.with_cleanlab
        noises = tuple(each for each in choices.cleanlab_noises if each in choices.label_noises) if wanted else ()
        settled = settle(Settled, replace(choices, cleanlab_noises=noises))
        uncleaned(settled.shown_noise, choices=settled)  # what cannot run is refused
        return settled

    def plan(self, settled: Settled) -> dict[str, float]:
        # Replicas of a run on all samples go side by side; cleanlab trains once more in all.
        alone = [4.0 if point["rule"] == "cleanlab" else 2.0 for point in settled.points]
        return {"all samples": len(settled.label_noises) * settled.replicas, "cleaned": sum(alone)}

    def measure(self, settled: Settled, work: Work) -> Found:
        choices, workers, place = of_the_numbers(settled), settled.workers, work.path("uncleaned")
        with work.part("all samples"):
            grid = {"label_noise": settled.label_noises}
            whole = complete(sweep(partial(uncleaned, choices=choices), grid, place, workers=workers), place)
        with work.part("cleaned"):
            run_at = partial(cleaned, choices=choices, place=Place(place))
            rest = whole_sweep(run_at, settled.points, work.path("cleaned"), workers)
        rest = rest.set_index(point=["label_noise", "replica_index", "rule"]).unstack("point")
        rest = rest.rename(replica_index="replica")
        shown = _at(whole, settled.shown_noise)
        return Found(
            results_of(whole, rest),
            shown,
            rest.accuracy.sel(label_noise=settled.shown_noise),
            detect_phases(shown[["train_error"]]),
            LossMixture()(shown[["sample_loss", "mislabeled"]]),
        )

    def tables(self, settled: Settled, found: Found) -> dict[str, xr.Dataset]:
        return {"": found.results, "mixture": found.mixture, "phases": found.phases}

    def claims(self, settled: Settled, found: Found) -> list[Claim]:
        setting = (
            f"{settled.dataset}, {found.shown.sizes['sample']} samples, {'-'.join(map(str, settled.hidden))}, "
            f"B = {settled.batch_size}, α = {settled.learning_rate:g}, {settled.replicas} replicas"
        )
        at = f"{setting}, ρ = {settled.shown_noise:g}"
        return [
            claim_11(found.shown, found.phases, at),
            claim_12(found.shown, found.phases, found.mixture, at),
            claim_13(found.results, setting),
        ]

    def verdict(self, answer: Answer[Settled, Found]) -> str:
        results = answer.found.results
        lines = [
            *(each.in_words() for each in answer.claims),
            "",
            "Test accuracies, cleaning quality Q, precision and recall (mean over replicas ± half a 95 % interval):",
            *in_short(results),
            "",
            *which_to_use(results),
        ]
        if "cleanlab" not in results.cleaning_rule:
            lines += ["", f"cleanlab is left out; to compare with it: {INSTALL}"]
        return "\n".join(lines)

    def summary(self, answer: Answer[Settled, Found]) -> dict[str, Any]:
        return {
            "rules": _table(answer.found.results),
            "with_cleanlab": bool(answer.settled.cleanlab_noises),
            "deviations": list(DEVIATIONS),
        }

    def figures(self, answer: Answer[Settled, Found]) -> dict[str, Figure]:
        found = answer.found
        drawn = cleaning_figure(found.shown, found.phases, found.mixture, found.accuracy, found.results)
        return {"cleaning": drawn, "removal": removal_figure(found.results)}


def _check(config: Config) -> None:
    for name in ("label_noises", "cleanlab_noises"):
        values = getattr(config, name)
        if len(set(values)) < len(values):
            raise ConfigurationError(f"{name}={shown(values)}: expected each value once")
        for each in values:
            number(name, each, "shares of the samples, from 0 to 1", least=0, most=1)
    if config.shown_noise not in config.label_noises or config.shown_noise == 0:
        raise ConfigurationError(
            f"shown_noise={config.shown_noise:g}: expected one of label_noises, {shown(config.label_noises)}, and not 0, "
            "since cohorts are compared there; add it to label_noises"
        )
    for each in config.hidden:
        whole_number("hidden", each, "at least 1 unit (int) a layer", least=1)
    if config.with_cleanlab and not has_cleanlab():
        raise ConfigurationError(
            f"with_cleanlab: expected cleanlab, which is not installed; {INSTALL}, or leave the comparison out"
        )


def _at(whole: xr.DataTree, noise: float) -> xr.Dataset:
    """Return all that was recorded at a label noise, on one clock."""
    point = int(np.flatnonzero(whole.label_noise.values == noise)[0])
    root, samples = (node.to_dataset().isel(point=point).load() for node in (whole, whole["samples"]))
    names = ["sample_loss", "mislabeled"]
    on_root = samples[names].rename(sample_step="step").drop_vars([*samples.coords], errors="ignore")
    return root[["train_error", "test_error"]].assign({name: on_root[name] for name in names})


def _table(results: xr.Dataset) -> list[dict[str, Any]]:
    """Return means over replicas with their intervals, by label noise and rule."""
    rows = []
    for noise in results.label_noise.values:
        for rule in results.rule.values:
            row: dict[str, Any] = {"label_noise": float(noise), "rule": str(rule)}
            at = results.sel(label_noise=noise, rule=rule)
            measured = {name: at[name] for name in ("accuracy_cleaned", "cleaning_quality")}
            if rule in results.cleaning_rule:
                of = at.sel(cleaning_rule=rule)
                names = ("precision", "recall", "removed_share", "area_under_curve", "is_refused", "cleaning_epoch")
                measured |= {name: of[name] for name in names}
            for name, values in measured.items():
                moments = mean_with_interval(values)
                ends = {"mean": moments.mean_value, "lower": moments.lower, "upper": moments.upper}
                row[name] = {key: float(each) for key, each in ends.items()}
            rows.append(row)
    return rows


STUDY = Cleaning()
