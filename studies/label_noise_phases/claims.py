"""The paper's claims on learning with label noise, each from its findings with the hidden weights and with all weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from langevin_nn.analyzers import phase_means
from langevin_nn.analyzers.phases import FOUR_PHASES, TWO_PHASES
from studies.lab.claims import Claim, Criterion, Finding, too_short
from studies.label_noise_phases.errors import (
    SIGN,
    at_epochs,
    boundary_findings,
    cohort_findings,
    log_ratio_of,
    phases_findings,
    starts_of,
    test_error_findings,
)
from studies.label_noise_phases.gradients import (
    MUCH,
    VAGUE,
    activity_findings,
    alignment_findings,
    spectrum_findings,
    strength_findings,
)
from studies.label_noise_phases.measures import Runs

__all__ = ["claims_of"]

FALL, EXPLORE = TWO_PHASES


def _elsewhere_findings(runs: Runs, choice: str) -> list[Finding]:
    error = runs.noisy.test_error
    means, start = phase_means(error, runs.phases), starts_of(runs.phases)
    first, whole = error.isel(step=0).values, error.isel(step=0).values - error.min("step", skipna=False).values
    cosine = phase_means(runs.order[choice].gradient_alignment.sel(cohort_pair="correct_mislabeled"), runs.phases)
    activity = phase_means(runs.clean_order[choice].activity.sel(cohort="all"), runs.clean_phases)
    return [
        *phases_findings(runs),
        Criterion(
            "share of the test error's whole fall by phase II", "it falls in I, so more than half of it there", 0.5
        ).held_to((first - means.sel(phase="II").values) / whole),
        Criterion("log ratio of the test error at the end of III to that at its start", SIGN, least=0).held_to(
            np.log(at_epochs(error, start["IV"]) / at_epochs(error, start["III"]))
        ),
        Criterion("mean R_cw over I", SIGN, most=0).held_to(cosine.sel(phase="I").values),
        Criterion("mean R_cw over II", SIGN, most=0).held_to(cosine.sel(phase="II").values),
        Criterion("mean R_cw over III", SIGN, least=0).held_to(cosine.sel(phase="III").values),
        Criterion(
            "trained on the true labels: log ratio of the means of A, exploration to fast learning", VAGUE, most=-MUCH
        ).held_to(log_ratio_of(activity, EXPLORE, FALL)),
    ]


_FINDINGS: dict[int, tuple[Callable[[Runs, str], list[Finding]], str]] = {
    4: (lambda runs, _: [*phases_findings(runs), *boundary_findings(runs), *test_error_findings(runs)], "errors.png"),
    5: (lambda runs, _: cohort_findings(runs), "errors.png"),
    7: (activity_findings, "order_parameters_hidden.png"),
    8: (strength_findings, "order_parameters_hidden.png"),
    9: (alignment_findings, "order_parameters_hidden.png"),
    10: (spectrum_findings, "noise_spectra.png"),
}
_OF_TENSORS = (7, 8, 9, 10)


def claims_of(runs: Runs, is_convolutional: bool, setting: str) -> list[Claim]:
    """Return what holds of the paper's claims on learning with label noise.

    Parameters
    ----------
    runs : Runs
        With and without label noise.
    is_convolutional : bool
        Whether this is the other network on other data, of which claim 14 speaks, rather than the paper's own.
    setting : str
        On what it was measured.

    Returns
    -------
    list of Claim
        Claims 4, 5, 7, 8, 9 and 10, judged by the order parameters of the hidden weights, or claim 14; the outcome with all
        weights is in the notes.
    """
    found = {number: _claim(number, runs, setting) for number in _FINDINGS}
    if not is_convolutional:
        return list(found.values())
    verdicts = ", ".join(f"{number}: {each.verdict}" for number, each in found.items())
    note = f"Held to the criteria made for MNIST, the other claims come out as follows. {verdicts}."
    short = too_short(runs.phases, FOUR_PHASES[-1])
    return [Claim(14, tuple(_elsewhere_findings(runs, "hidden")), "errors.png", setting, note, short)]


def _claim(number: int, runs: Runs, setting: str) -> Claim:
    make, figure = _FINDINGS[number]
    short = too_short(runs.phases, FOUR_PHASES[-1])
    claim = Claim(number, tuple(make(runs, "hidden")), figure, setting, _NOTES.get(number, ""), short)
    if number not in _OF_TENSORS:
        return claim
    other = replace(claim, findings=tuple(make(runs, "all")))
    differing = [
        f"{there.criterion.statistic}: {there.outcome}"
        + (f" ({there.estimate:.3g})" if np.isfinite(there.estimate) else "")
        for here, there in zip(claim.findings, other.findings, strict=False)
        if here.outcome != there.outcome
    ]
    said = "; ".join(differing) or "nothing"
    note = f"With the gradients of all weights: {other.verdict}. What comes out otherwise there: {said}."
    return replace(claim, note=f"{claim.note} {note}".strip())


_NOTES = {
    4: "This is the part of the claim at one label noise; the range of ρ is another study's.",
    5: "ε_c and ε_w are taken over each cohort's own samples; the figure counts both over all samples, as the paper does.",
}
