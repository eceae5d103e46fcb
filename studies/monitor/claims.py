"""What the monitor is to do, said beforehand, and whether it does; numbers go on from those of the paper's claims."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from studies.lab.claims import Claim, Criterion, Finding
from studies.monitor.labels import CLEAN
from studies.monitor.measures import noisy

__all__ = ["claims_of", "in_words", "said"]

FIGURE = "monitor.png"
NEAR = 1.0  # points
ABOVE_ZERO = 1e-9  # where nothing is ever said, the monitor is as good as never stopping, not better

WITHIN_ONE_POINT = {
    rule: Criterion(
        f"share of runs with wrong labels in which {what} is within 1 point of the best running mean over five epochs",
        "what is less than a point is within the scatter from epoch to epoch; one run in twenty may be worse",
        least=0.95,
    )
    for rule, what in (("monitor", "the monitor's stop"), ("monitor_named", "the epoch that it names"))
}
FALSE_ALARMS = Criterion(
    "share of runs with clean labels in which the monitor says to stop",
    "one run in twenty",
    most=0.05,
)
_OTHERS = {
    "validation": "a validation set of noisy labels",
    "label_wave": "Label Wave's first minimum",
    "label_wave_patient": "Label Wave with patience",
    "alignment": "the gradient-weight alignment",
    "weight_norm": "the weight norm",
    "never": "never stopping",
}


def claims_of(results: xr.Dataset, setting: str) -> list[Claim]:
    """Hold the runs to what was wanted.

    Parameters
    ----------
    results : xarray.Dataset
        Of `judged`.
    setting : str
        On what it was measured.

    Returns
    -------
    list of Claim
        15: near the best; 16: no false alarms; 17: better than what a user has without it, by the weights of the epoch that
        it names, since the others go back, too.
    """
    wrong = noisy(results)
    clean = results.isel(run=np.flatnonzero(results.kind.values == CLEAN))
    own = wrong.lost.sel(rule="monitor_named")
    near = tuple(each.held_to_share(wrong.lost.sel(rule=rule) <= NEAR) for rule, each in WITHIN_ONE_POINT.items())
    alarms = FALSE_ALARMS.held_to_share(np.isfinite(clean.said_epoch.sel(rule="monitor")))
    better = [
        Criterion(
            f"points that {words} loses more than the epoch that the monitor names, mean over runs with wrong labels",
            "better on average is above 0",
            least=ABOVE_ZERO,
        ).held_to(wrong.lost.sel(rule=rule) - own)
        for rule, words in _OTHERS.items()
    ]
    note = "Intervals take runs for independent."
    return [
        Claim(15, near, FIGURE, setting, note),
        Claim(16, (alarms,), FIGURE, setting, f"{note} Those with clean labels share their data."),
        Claim(17, tuple(better), FIGURE, setting, note),
    ]


def said(finding: Finding) -> str:
    """Return whether a criterion is met.

    Parameters
    ----------
    finding : Finding
        What came of it.

    Returns
    -------
    str
        holds, does not hold, undecided, with the runs that would decide, or not measured.
    """
    words = finding.outcome_in_words.replace("replicas", "runs")
    return "does not hold" if finding.outcome == "fails" else words


def in_words(claims: Sequence[Claim]) -> list[str]:
    """Return what was wanted, with what came of it.

    Parameters
    ----------
    claims : sequence of Claim
        Of `claims_of`.

    Returns
    -------
    list of str
        A line for each criterion.
    """
    lines = [f"What was wanted of the monitor ({claims[0].setting}; estimates with 95 % intervals):"]
    for each in (finding for claim in claims for finding in claim.findings):
        asked = each.criterion
        above = "> 0" if asked.least == ABOVE_ZERO else f"≥ {asked.least:g}"
        bound = above if np.isfinite(asked.least) else f"≤ {asked.most:g}"
        found = f"{each.estimate:.3g} ({each.lower:.3g} to {each.upper:.3g})"
        lines.append(f"  {asked.statistic}: {found}, wanted {bound}: {said(each)}")
    return lines
