"""Claims 4 and 5: phases with label noise, the test error in them, and the errors of the two cohorts."""

from __future__ import annotations

from math import log

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers import detect_phases, phase_means
from langevin_nn.analyzers.phases import FOUR_PHASES, TWO_PHASES
from studies.lab.claims import Criterion, Finding
from studies.label_noise_phases.measures import Runs

__all__ = [
    "SIGN",
    "at_epochs",
    "boundary_findings",
    "cohort_findings",
    "log_ratio_of",
    "phases_findings",
    "shortest_phase",
    "starts_of",
    "test_error_findings",
]

PAPER_BOUNDARIES = {"II": 10.0, "III": 70.0, "IV": 200.0}

SIGN = "the paper says which is larger, not by how much"
FALL, EXPLORE = TWO_PHASES

Floats = NDArray[np.float64]


def log_ratio_of(means: xr.DataArray, upper: str, lower: str) -> Floats:
    """Return the logarithm of the ratio of two phase means of each replica."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values: Floats = np.log(means.sel(phase=upper).values / means.sel(phase=lower).values)
    return values


def at_epochs(values: xr.DataArray, epochs: Floats) -> Floats:
    """Return a quantity of each replica, by interpolation between records, at an epoch of its own."""
    clock = values.epoch.values
    rows = zip(np.atleast_1d(epochs), values.transpose("replica", "step").values, strict=True)
    return np.array([np.interp(at, clock, row) if np.isfinite(at) else np.nan for at, row in rows])


def starts_of(phases: xr.Dataset) -> dict[str, Floats]:
    """Return when phases II, III and IV of each replica begin."""
    return {name: phases.crossing_epoch.isel(boundary=k).values for k, name in enumerate(FOUR_PHASES[1:])}


# --- claim 4: phases, and the test error in them


def shortest_phase(run: xr.Dataset, phases: xr.Dataset) -> Floats:
    """Return the logarithm of the factor by which epochs grow in the shorter of phases II and III.

    Parameters
    ----------
    run : xarray.Dataset
        With ``train_error`` by cohort.
    phases : xarray.Dataset
        Of `langevin_nn.analyzers.detect_phases`, of four phases.

    Returns
    -------
    array, shape (replica,)
        0 if a phase is left out, or if half of the correct samples' error is still there when III begins: they have no
        phase of their own then. NaN where the run ends before IV: what is not there yet may still come.
    """
    start = starts_of(phases)
    lengths = np.log([start["III"] / start["II"], start["IV"] / start["III"]]).min(0)
    correct = run.train_error.sel(cohort="correct")
    own = at_epochs(correct, start["III"]) < correct.isel(step=0).values / 2
    found: Floats = np.where(own | np.isnan(lengths), lengths, 0.0)
    return found


def phases_findings(runs: Runs) -> list[Finding]:
    """Hold runs to the four phases: each must take its time."""
    statistic = (
        "log of the factor by which epochs grow in the shorter of phases II and III, 0 if one is left out or the correct "
        "samples are not learned first"
    )
    reason = (
        "the paper's III is 70 to 200, a factor of 2.9, the shorter of the two; half of that in logarithms is asked for; "
        "that the correct samples come first was added when made-up runs of two phases had passed without"
    )
    least = log(PAPER_BOUNDARIES["IV"] / PAPER_BOUNDARIES["III"]) / 2
    control = detect_phases(runs.clean)  # with the cohorts that nothing tells apart
    return [
        Criterion(statistic, reason, least=least).held_to(shortest_phase(runs.noisy, runs.phases)),
        Criterion(f"trained on the true labels: {statistic}", reason, least=least, is_control=True).held_to(
            shortest_phase(runs.clean, control)
        ),
    ]


def boundary_findings(runs: Runs) -> list[Finding]:
    """Hold the epochs at which phases begin to those of the paper."""
    reason = (
        "the paper placed its boundaries by eye, to one digit, in transitions about a factor of 2 wide, and does not give "
        "initial weights and pixel scale"
    )
    return [
        Criterion(
            f"log of the epoch at which {name} begins over the paper's {paper:g}", reason, -log(2), log(2)
        ).held_to(np.log(starts_of(runs.phases)[name] / paper))
        for name, paper in PAPER_BOUNDARIES.items()
    ]


def test_error_findings(runs: Runs) -> list[Finding]:
    """Hold the test error to a fall in I, a low II, a rise in III and a high IV."""
    error = runs.noisy.test_error
    means, start = phase_means(error, runs.phases), starts_of(runs.phases)
    first, low = error.isel(step=0).values, means.sel(phase="II").values
    whole = first - error.min("step", skipna=False).values
    clean = phase_means(runs.clean.test_error, runs.clean_phases)
    doubled = "low against high; an error of a tenth to at most 0.9 leaves room for a doubling"
    return [
        Criterion(
            "share of the test error's whole fall by phase II",
            "it falls in I, so more than half of it there",
            least=0.5,
        ).held_to((first - low) / whole),
        Criterion("log ratio of the test error at the end of III to that at its start", SIGN, least=0).held_to(
            np.log(at_epochs(error, start["IV"]) / at_epochs(error, start["III"]))
        ),
        Criterion("log ratio of the mean test error in IV to that in II", doubled, least=log(2)).held_to(
            log_ratio_of(means, "IV", "II")
        ),
        Criterion(
            "trained on the true labels: log ratio of the mean test error in exploration to that in fast learning",
            doubled,
            least=log(2),
            is_control=True,
        ).held_to(log_ratio_of(clean, EXPLORE, FALL)),
    ]


# --- claim 5: the two cohorts' errors


def cohort_findings(runs: Runs) -> list[Finding]:
    """Hold the cohorts' errors to claim 5."""
    errors, start = runs.noisy.train_error, starts_of(runs.phases)
    findings = [
        Criterion(
            "correlation of ε_c with the test error over the records of phase I",
            'it "follows the exact same trend"',
            least=0.9,
        ).held_to(_correlations(errors.sel(cohort="correct"), runs.noisy.test_error, start["II"])),
        *_rise_findings(runs),
    ]
    flat = "flat: less than a tenth of its whole fall (for ε_w, the detection of phase II sees to much of this)"
    for cohort, symbol in (("correct", "ε_c"), ("mislabeled", "ε_w")):
        own = errors.sel(cohort=cohort)
        fall = _whole_fall(own, start["IV"])
        findings.append(
            Criterion(
                f"change of {symbol} between the first and the last third of II, in its whole fall", flat, -0.1, 0.1
            ).held_to(_change(own, start["II"], start["III"]) / fall)
        )
    own = errors.sel(cohort="mislabeled")
    fall = _whole_fall(own, start["IV"])
    findings.append(
        Criterion(
            "change of ε_w between the first and the last third of III, in its whole fall",
            flat,
            -0.1,
            0.1,
            is_control=True,
        ).held_to(_change(own, start["III"], start["IV"]) / fall)
    )
    zero = "0 at the scale of the figure: 1 % of the cohort (that all samples reach 1 % is how phase IV is told)"
    means = phase_means(errors, runs.phases)
    for cohort, symbol in (("correct", "ε_c"), ("mislabeled", "ε_w")):
        findings.append(
            Criterion(f"mean {symbol} over IV, of its own samples", zero, most=0.01).held_to(
                means.sel(cohort=cohort, phase="IV").values
            )
        )
    return findings


def _whole_fall(values: xr.DataArray, end: Floats) -> Floats:
    """Return how far an error falls; NaN where the run ends before it has."""
    fall: Floats = values.isel(step=0).values - values.isel(step=-1).values
    return np.where(np.isfinite(end), fall, np.nan)


def _rise_findings(runs: Runs) -> list[Finding]:
    reason = "it rises, slightly: by less than a factor of 2"
    statistic = "log ratio of L_w at the end of phase I to that at the start"
    end = starts_of(runs.phases)["II"]

    def rise(root: xr.Dataset) -> Floats:
        loss = root.train_loss.sel(cohort="mislabeled")
        found: Floats = np.log(at_epochs(loss, end) / loss.isel(step=0).values)
        return found

    return [
        Criterion(statistic, reason, 0, log(2)).held_to(rise(runs.noisy)),
        Criterion(
            f"trained on the true labels, the same samples: {statistic}", reason, 0, log(2), is_control=True
        ).held_to(rise(runs.clean)),
    ]


def _correlations(first: xr.DataArray, second: xr.DataArray, end: Floats) -> Floats:
    found = []
    for k, last in enumerate(end):
        chosen = first.epoch.values <= last
        enough = chosen.sum() > 2
        found.append(np.corrcoef(first[k].values[chosen], second[k].values[chosen])[0, 1] if enough else np.nan)
    return np.array(found)


def _change(values: xr.DataArray, begin: Floats, end: Floats) -> Floats:
    """Return the mean over the first third of an interval less that over the last."""
    clock = values.epoch.values
    found = []
    for k, (left, right) in enumerate(zip(begin, end, strict=True)):
        third = (right - left) / 3
        parts = [(clock >= left) & (clock <= left + third), (clock >= right - third) & (clock <= right)]
        row = values.isel(replica=k).values
        found.append(row[parts[0]].mean() - row[parts[1]].mean() if all(each.any() for each in parts) else np.nan)
    return np.array(found)
