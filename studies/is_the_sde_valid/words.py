"""What counts as valid, fixed before anything was measured, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers import needed_replicas

__all__ = ["LABELS", "REASONS", "VERDICTS", "Verdict", "judge", "label", "table"]

Floats = NDArray[np.float64]

VERDICTS = ("valid", "valid in the mean only", "not valid", "undecided", "too short to say")

# Those of which the mean is meant in "valid in the mean".
MEANS = ("train_loss", "test_loss", "train_error", "test_error")

LABELS = {
    "sgd": "SGD, shuffled epochs",
    "sgd_twin": "SGD, shuffled, other noise",
    "independent_sgd": "SGD, independent minibatches",
    "langevin": "matched Gaussian",
    "langevin_half": "matched Gaussian, half step",
    "langevin_quarter": "matched Gaussian, quarter step",
    "frozen": "frozen low-rank",
    "diagonal": "diagonal",
    "isotropic": "isotropic",
    "heavy_tailed": "heavy-tailed",
    "gradient_descent": "none: gradient descent",
}

# That spreads agree within a factor of two was asked for as well, until SGD against itself, SVAG at l = 1, failed it for the
# width of the intervals alone; the test of the law looks at spreads, too.
REASONS = (
    "Means: the 95 % intervals of the distances of training loss, test loss and both errors, all samples, lie within ± "
    "{tolerance:g} spreads of SGD over replicas. At 1, a run of the process is as far from SGD's mean as one of SGD itself.",
    "Law: the omnibus test of means and spreads of everything recorded, corrected by Holm for all processes and phases of "
    "one reference, does not reject at 5 %.",
    "valid: law and means. valid in the mean only: means, but the law is rejected. not valid: the law is rejected "
    "and an interval of the means lies beyond the tolerance, or replicas diverge. undecided: anything else; how many "
    "replicas would decide is said. too short to say: not surely invalid in a first phase that SGD has not left.",
)


@dataclass(frozen=True)
class Verdict:
    """What was found of one process in one phase.

    Parameters
    ----------
    process, phase : str
        Which.
    verdict : str
        One of `VERDICTS`.
    p_value : float
        Of the omnibus test, corrected.
    farthest : str
        Of the four means, that which is farthest.
    distance, lower, upper : float
        Its distance, in spreads, with its interval.
    needed : int, optional
        Where it is undecided, the replicas that would decide the means in 95 % of cases if they and their scatter stay.
    """

    process: str
    phase: str
    verdict: str
    p_value: float
    farthest: str
    distance: float
    lower: float
    upper: float
    needed: int | None = None


def label(process: str) -> str:
    """Return what a process is called in text and figures."""
    return LABELS.get(process, process.replace("svag_", "SVAG, l = "))


def judge(compared: xr.Dataset, tolerance: float, pairs: int = 0, *, is_short: bool = False) -> list[Verdict]:
    """Hold each process in each phase to the thresholds.

    Parameters
    ----------
    compared : xarray.Dataset
        Of `langevin_nn.analyzers.LawComparison`.
    tolerance : float
        In spreads.
    pairs : int, optional
        Replicas of each process, from which those needed are told.
    is_short : bool, optional
        Whether the first phase of learning was not left.

    Returns
    -------
    list of Verdict
        By process, then phase.
    """
    return [
        _judged(compared.sel(process=process, phase=phase), str(process), str(phase), tolerance, pairs, is_short)
        for process in compared["process"].values
        for phase in compared["phase"].values
    ]


def _judged(own: xr.Dataset, process: str, phase: str, tolerance: float, pairs: int, is_short: bool) -> Verdict:
    known = [name for name in MEANS if name in own["quantity"].values]
    means = own.sel(quantity=known)
    defined = np.isfinite(means["distance"].values)  # not where the reference hardly varies
    distance, lower, upper = (means[f"distance{side}"].values[defined] for side in ("", "_lower", "_upper"))
    within = bool(defined.any() and (lower > -tolerance).all() and (upper < tolerance).all())
    beyond = bool(((lower > tolerance) | (upper < -tolerance)).any())
    rejected, diverged = bool(own["is_rejected"]), int(own["diverged_count"]) > 0
    if diverged or (rejected and beyond):
        verdict = "not valid"
    elif rejected:
        verdict = "valid in the mean only" if within else "undecided"
    else:
        verdict = "valid" if within else "undecided"
    if is_short and verdict != "not valid":
        verdict = "too short to say"
    farthest = int(np.argmax(np.abs(distance))) if defined.any() else -1
    name = np.array(known)[defined][farthest] if defined.any() else ""
    values: list[Any] = [each[farthest] if defined.any() else np.nan for each in (distance, lower, upper)]
    centre, low, high = (float(each) for each in values)
    needed = _needed(distance, upper, tolerance, pairs) if verdict == "undecided" else None
    return Verdict(process, phase, verdict, float(own["adjusted_p_value"]), str(name), centre, low, high, needed)


def _needed(distance: Floats, upper: Floats, tolerance: float, pairs: int) -> int | None:
    """Return the replicas that would decide all means whose intervals lie across the tolerance."""
    found = [
        needed_replicas(float(centre), float(end - centre), pairs, -tolerance, tolerance)
        for centre, end in zip(distance, upper, strict=True)
        if abs(abs(centre) - tolerance) <= end - centre
    ]
    known = [each for each in found if each is not None]
    return max(known) if known and len(known) == len(found) else None


def table(verdicts: list[Verdict]) -> str:
    """Return verdicts as lines.

    Parameters
    ----------
    verdicts : list of Verdict
        Of `judge`.

    Returns
    -------
    str
        One line a process and phase.
    """
    lines = []
    for each in verdicts:
        half = max(each.upper - each.distance, 0.0)
        farthest = (
            f"{each.farthest.replace('_', ' ')} {each.distance:+.2f} ± {half:.2f}" if each.farthest else "no mean"
        )
        lines.append(
            f"  {label(each.process):<32} {each.phase:<14} {each.verdict:<23} p = {each.p_value:<8.2g} {farthest}"
            + (f", about {each.needed:,} replicas would decide" if each.needed else "")
        )
    return "\n".join(lines)
