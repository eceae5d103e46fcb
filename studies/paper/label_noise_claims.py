"""What the paper says of learning with label noise, as criteria: statistics of each replica with bounds fixed beforehand."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from langevin_nn.analyzers import detect_phases, logarithm, phase_means
from langevin_nn.analyzers.phases import FOUR_PHASES, TWO_PHASES
from studies.paper.claims import Claim, Criterion, Finding
from studies.paper.label_noise_measures import Runs

__all__ = ["PAPER_BOUNDARIES", "PAPER_DIMENSIONS", "claims_of", "spectrum_distance"]

PAPER_BOUNDARIES = {"II": 10.0, "III": 70.0, "IV": 200.0}
PAPER_DIMENSIONS = {"I": 43.0, "II": 58.0, "III": 140.0, "IV": 95.0}

_MUCH, _ABOUT = log(3), log(2)
_VAGUE = "the paper's ≫ is no number; a factor of 3 was fixed for it"
_NEAR = "the paper's ≈ is no number; within a factor of 2 was fixed for it"
_SIGN = "the paper says which is larger, not by how much"
_FALL, _EXPLORE = TWO_PHASES

Floats = NDArray[np.float64]


def _log_ratio(means: xr.DataArray, upper: str, lower: str) -> Floats:
    """Return the logarithm of the ratio of two phase means of each replica."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values: Floats = np.log(means.sel(phase=upper).values / means.sel(phase=lower).values)
    return values


def _at(values: xr.DataArray, epochs: Floats) -> Floats:
    """Return a quantity of each replica, by interpolation between records, at an epoch of its own."""
    clock = values.epoch.values
    rows = zip(np.atleast_1d(epochs), values.transpose("replica", "step").values, strict=True)
    return np.array([np.interp(at, clock, row) if np.isfinite(at) else np.nan for at, row in rows])


def _starts(phases: xr.Dataset) -> dict[str, Floats]:
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
        0 if a phase is missing, or if half of the correct samples' error is still there when III begins: they have no
        phase of their own then.
    """
    start = _starts(phases)
    lengths = np.nan_to_num(np.log([start["III"] / start["II"], start["IV"] / start["III"]]), nan=0.0).min(0)
    correct = run.train_error.sel(cohort="correct")
    own = _at(correct, start["III"]) < correct.isel(step=0).values / 2
    found: Floats = np.where(own, lengths, 0.0)
    return found


def _phases_findings(runs: Runs) -> list[Finding]:
    statistic = (
        "log of the factor by which epochs grow in the shorter of phases II and III, 0 if one is missing or the correct "
        "samples are not learned first"
    )
    reason = (
        "the paper's III is 70 to 200, a factor of 2.9, the shorter of the two; half of that in logarithms is asked for"
    )
    least = log(PAPER_BOUNDARIES["IV"] / PAPER_BOUNDARIES["III"]) / 2
    control = detect_phases(runs.clean)  # with the cohorts that nothing tells apart
    return [
        Criterion(statistic, reason, least=least).held_to(shortest_phase(runs.noisy, runs.phases)),
        Criterion(f"trained on the true labels: {statistic}", reason, least=least, is_control=True).held_to(
            shortest_phase(runs.clean, control)
        ),
    ]


def _boundary_findings(runs: Runs) -> list[Finding]:
    reason = (
        "the paper placed its boundaries by eye, to one digit, in transitions about a factor of 2 wide, and does not give "
        "initial weights and pixel scale"
    )
    return [
        Criterion(
            f"log of the epoch at which {name} begins over the paper's {paper:g}", reason, -log(2), log(2)
        ).held_to(np.log(_starts(runs.phases)[name] / paper))
        for name, paper in PAPER_BOUNDARIES.items()
    ]


def _test_findings(runs: Runs) -> list[Finding]:
    error = runs.noisy.test_error
    means, start = phase_means(error, runs.phases), _starts(runs.phases)
    first, low = error.isel(step=0).values, means.sel(phase="II").values
    whole = first - error.min("step").values
    clean = phase_means(runs.clean.test_error, runs.clean_phases)
    doubled = "low against high; an error of a tenth to at most 0.9 leaves room for a doubling"
    return [
        Criterion(
            "share of the test error's whole fall by phase II",
            "it falls in I, so more than half of it there",
            least=0.5,
        ).held_to((first - low) / whole),
        Criterion("log ratio of the test error at the end of III to that at its start", _SIGN, least=0).held_to(
            np.log(_at(error, start["IV"]) / _at(error, start["III"]))
        ),
        Criterion("log ratio of the mean test error in IV to that in II", doubled, least=log(2)).held_to(
            _log_ratio(means, "IV", "II")
        ),
        Criterion(
            "trained on the true labels: log ratio of the mean test error in exploration to that in fast learning",
            doubled,
            least=log(2),
            is_control=True,
        ).held_to(_log_ratio(clean, _EXPLORE, _FALL)),
    ]


# --- claim 5: the two cohorts' errors


def _cohort_findings(runs: Runs) -> list[Finding]:
    errors, start = runs.noisy.train_error, _starts(runs.phases)
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
        fall = own.isel(step=0).values - own.isel(step=-1).values
        findings.append(
            Criterion(
                f"change of {symbol} between the first and the last third of II, in its whole fall", flat, -0.1, 0.1
            ).held_to(_change(own, start["II"], start["III"]) / fall)
        )
    own = errors.sel(cohort="mislabeled")
    fall = own.isel(step=0).values - own.isel(step=-1).values
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


def _rise_findings(runs: Runs) -> list[Finding]:
    reason = "it rises, slightly: by less than a factor of 2"
    statistic = "log ratio of L_w at the end of phase I to that at the start"
    end = _starts(runs.phases)["II"]

    def rise(root: xr.Dataset) -> Floats:
        loss = root.train_loss.sel(cohort="mislabeled")
        found: Floats = np.log(_at(loss, end) / loss.isel(step=0).values)
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


# --- claim 7: activities

_ACTIVITIES = [("activity", "A"), ("directed_activity", "A₀")]
_COHORTS = [("all", ""), ("correct", "_c"), ("mislabeled", "_w")]


def _activity_findings(runs: Runs, choice: str) -> list[Finding]:
    findings = []
    for name, symbol in _ACTIVITIES:
        means = phase_means(runs.order[choice][name], runs.phases)
        for cohort, index in _COHORTS:
            own = means.sel(cohort=cohort)
            growth = np.minimum(_log_ratio(own, "II", "I"), _log_ratio(own, "III", "II"))
            said = f"{symbol}{index}"
            findings += [
                Criterion(f"smaller log ratio of the means of {said}, II to I and III to II", _SIGN, least=0).held_to(
                    growth
                ),
                Criterion(f"log ratio of the means of {said}, IV to III", _SIGN, most=0).held_to(
                    _log_ratio(own, "IV", "III")
                ),
            ]
    return [*findings, _clean_growth(runs, choice)]


def _clean_growth(runs: Runs, choice: str) -> Finding:
    """Hold the growth of A to fast learning without label noise, in which the paper has it flat or slightly falling."""
    activity = runs.clean_order[choice].activity.sel(cohort="all")
    end = runs.clean_phases.crossing_epoch.isel(boundary=0).values
    clock = activity.epoch.values
    values = []
    for k, last in enumerate(end):
        row = activity.isel(replica=k).values
        early, late = clock <= last / 2, (clock > last / 2) & (clock <= last)
        values.append(np.log(row[late].mean() / row[early].mean()) if late.any() and np.isfinite(last) else np.nan)
    statistic = "trained on the true labels: log ratio of the means of A over both halves of fast learning"
    return Criterion(
        statistic, 'there it is "relatively flat or slightly decreasing"', least=0, is_control=True
    ).held_to(np.array(values))


# --- claims 8 and 9: the two mean gradients


def _strength_findings(runs: Runs, choice: str) -> list[Finding]:
    directed = runs.order[choice].directed_activity
    shuffled = runs.order[choice].directed_activity_shuffled

    def log_ratio(values: xr.DataArray, upper: str, lower: str) -> xr.DataArray:
        logs = logarithm(values.sel(cohort=upper, drop=True) / values.sel(cohort=lower, drop=True))
        return phase_means(logs, runs.phases)

    ratio, total = log_ratio(directed, "correct", "mislabeled"), log_ratio(directed, "correct", "all")
    of_shuffled = log_ratio(shuffled, "correct", "mislabeled")
    statistic = "mean log A₀,c / A₀,w over"
    return [
        Criterion(f"{statistic} I", _VAGUE, least=_MUCH).held_to(ratio.sel(phase="I").values),
        Criterion(f"shuffled cohorts: {statistic} I", _VAGUE, least=_MUCH, is_control=True).held_to(
            of_shuffled.sel(phase="I").values
        ),
        *(
            Criterion(f"{statistic} {name}", _NEAR, -_ABOUT, _ABOUT).held_to(ratio.sel(phase=name).values)
            for name in FOUR_PHASES[1:]
        ),
        Criterion(f"{statistic} I", _NEAR, -_ABOUT, _ABOUT, is_control=True).held_to(ratio.sel(phase="I").values),
        Criterion("mean log A₀,c / A₀ over II", _VAGUE, least=_MUCH).held_to(total.sel(phase="II").values),
        Criterion("shuffled cohorts: mean log A₀,c / A₀ over II", _VAGUE, least=_MUCH, is_control=True).held_to(
            log_ratio(shuffled, "correct", "all").sel(phase="II").values
        ),
    ]


def _alignment_findings(runs: Runs, choice: str) -> list[Finding]:
    cosines = phase_means(runs.order[choice].gradient_alignment, runs.phases)
    shuffled = phase_means(runs.order[choice].gradient_alignment_shuffled, runs.phases)
    between, of_wrong = cosines.sel(cohort_pair="correct_mislabeled"), cosines.sel(cohort_pair="all_mislabeled")
    opposite = "≈ −1: within 0.2 of it, an angle above 143°"
    findings = [
        Criterion("mean R_cw over I", _SIGN, most=0).held_to(between.sel(phase="I").values),
        Criterion("mean R_cw over II", opposite, most=-0.8).held_to(between.sel(phase="II").values),
        Criterion("mean R_cw over III", _SIGN, least=0).held_to(between.sel(phase="III").values),
        Criterion("mean R_cw over IV", _SIGN, most=0).held_to(between.sel(phase="IV").values),
        Criterion("mean R_aw over I", _SIGN, most=0).held_to(of_wrong.sel(phase="I").values),
    ]
    chance = "what the sizes of the cohorts alone give must not look like this"
    for name, most in (("I", 0.0), ("II", -0.8), ("IV", 0.0)):
        values = shuffled.sel(cohort_pair="correct_mislabeled", phase=name).values
        findings.append(
            Criterion(f"shuffled cohorts: mean R_cw over {name}", chance, most=most, is_control=True).held_to(values)
        )
    return findings


# --- claim 10: spectra


def spectrum_distance(first: Floats, second: Floats) -> float:
    """Return the largest difference of two normalised cumulative variances.

    Parameters
    ----------
    first, second : array, shape (mode,)
        Eigenvalues as shares of their traces, descending.

    Returns
    -------
    float
        max_l |Σ_{i≤l} (e_i/D − e'_i/D')|, as Kolmogorov and Smirnov have it, from 0 to 1.

    Examples
    --------
    >>> round(spectrum_distance(np.array([0.9, 0.1]), np.array([0.5, 0.5])), 3)
    0.4
    """
    n = max(len(first), len(second))
    curves = [np.cumsum(np.pad(each, (0, n - len(each)))) for each in (first, second)]
    return float(np.abs(curves[0] - curves[1]).max())


def _shares(spectra: xr.Dataset, phases: xr.Dataset) -> xr.DataArray:
    """Return eigenvalues as shares of D, by replica and phase."""
    return phase_means(spectra.noise_eigenvalue / spectra.noise_strength.sel(cohort="all"), phases)


_SIMILAR = (
    "similar: as near as the paper's own D_s imply; cumulative shares that grow with the logarithm of the mode to 0.9 at "
    "mode 43 in one phase and at 140 in another are 0.24 apart"
)
_FARTHEST = 0.25


def _spectrum_findings(runs: Runs, choice: str) -> list[Finding]:
    spectra = runs.spectra[choice]
    chosen = runs.phases.isel(replica=slice(spectra.sizes["replica"]))
    dimension = phase_means(spectra.effective_dimension, chosen)
    loose = 'D_s within a factor of 1.5: "≈", and the paper itself rounds 43 to 140 to 50 to 150'
    findings = [
        Criterion(f"log of D_s in {name} over the paper's {paper:g}", loose, -log(1.5), log(1.5)).held_to(
            np.log(dimension.sel(phase=name).values / paper)
        )
        for name, paper in PAPER_DIMENSIONS.items()
    ]
    shares = _shares(spectra, chosen)
    replicas = range(shares.sizes["replica"])
    of = [[shares.isel(replica=k).sel(phase=name).values for name in FOUR_PHASES] for k in replicas]
    apart = [max(spectrum_distance(a, b) for a in own for b in own) for own in of]
    findings.append(
        Criterion("largest distance of the normalised spectra of two phases", _SIMILAR, most=_FARTHEST).held_to(apart)
    )
    modes = shares.sizes["mode"]
    flat = np.full(modes, 1 / modes)
    findings.append(
        Criterion(
            f"distance of the spectrum in II from {modes} equal eigenvalues", _SIMILAR, most=_FARTHEST, is_control=True
        ).held_to([spectrum_distance(own[1], flat) for own in of])
    )
    if choice in runs.clean_spectra:
        findings.append(_clean_spectrum(runs, choice, of))
    return findings


def _clean_spectrum(runs: Runs, choice: str, of: list[list[Floats]]) -> Finding:
    spectra = runs.clean_spectra[choice]
    clean = _shares(spectra, runs.clean_phases.isel(replica=slice(spectra.sizes["replica"])))
    apart = []
    for k, own in enumerate(of):
        others = [clean.isel(replica=k).sel(phase=name).values for name in TWO_PHASES]
        apart.append(max(spectrum_distance(a, b) for a in own for b in others))
    statistic = "largest distance of the normalised spectra of a phase with and one without label noise"
    return Criterion(statistic, _SIMILAR, most=_FARTHEST).held_to(apart)


# --- claim 14: another network, another data set


def _elsewhere_findings(runs: Runs, choice: str) -> list[Finding]:
    error = runs.noisy.test_error
    means, start = phase_means(error, runs.phases), _starts(runs.phases)
    first, whole = error.isel(step=0).values, error.isel(step=0).values - error.min("step").values
    cosine = phase_means(runs.order[choice].gradient_alignment.sel(cohort_pair="correct_mislabeled"), runs.phases)
    activity = phase_means(runs.clean_order[choice].activity.sel(cohort="all"), runs.clean_phases)
    fitted = np.isfinite(runs.clean_phases.crossing_epoch.isel(boundary=0).values)
    return [
        *_phases_findings(runs),
        Criterion(
            "share of the test error's whole fall by phase II", "it falls in I, so more than half of it there", 0.5
        ).held_to((first - means.sel(phase="II").values) / whole),
        Criterion("log ratio of the test error at the end of III to that at its start", _SIGN, least=0).held_to(
            np.log(_at(error, start["IV"]) / _at(error, start["III"]))
        ),
        Criterion("mean R_cw over I", _SIGN, most=0).held_to(cosine.sel(phase="I").values),
        Criterion("mean R_cw over II", _SIGN, most=0).held_to(cosine.sel(phase="II").values),
        Criterion("mean R_cw over III", _SIGN, least=0).held_to(cosine.sel(phase="III").values),
        Criterion(
            "trained on the true labels: log ratio of the means of A, exploration to fast learning, 0 if it is not reached",
            _VAGUE,
            most=-_MUCH,
        ).held_to(np.where(fitted, np.nan_to_num(_log_ratio(activity, _EXPLORE, _FALL)), 0.0)),
    ]


_FINDINGS: dict[int, tuple[Callable[[Runs, str], list[Finding]], str]] = {
    4: (lambda runs, _: [*_phases_findings(runs), *_boundary_findings(runs), *_test_findings(runs)], "errors.png"),
    5: (lambda runs, _: _cohort_findings(runs), "errors.png"),
    7: (_activity_findings, "order_parameters_hidden.png"),
    8: (_strength_findings, "order_parameters_hidden.png"),
    9: (_alignment_findings, "order_parameters_hidden.png"),
    10: (_spectrum_findings, "noise_spectra.png"),
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
    return [Claim(14, tuple(_elsewhere_findings(runs, "hidden")), "errors.png", setting, note)]


def _claim(number: int, runs: Runs, setting: str) -> Claim:
    make, figure = _FINDINGS[number]
    claim = Claim(number, tuple(make(runs, "hidden")), figure, setting)
    if number not in _OF_TENSORS:
        return Claim(number, claim.findings, figure, setting, _NOTES.get(number, ""))
    other = Claim(number, tuple(make(runs, "all")), figure, setting)
    differing = [
        f"{there.criterion.statistic}: {there.outcome} ({there.estimate:.3g})"
        for here, there in zip(claim.findings, other.findings, strict=False)
        if here.outcome != there.outcome
    ]
    said = "; ".join(differing) or "nothing"
    note = f"With the gradients of all weights: {other.verdict}. What comes out otherwise there: {said}."
    return Claim(number, claim.findings, figure, setting, f"{_NOTES.get(number, '')} {note}".strip())


_NOTES = {
    4: "This is the part of the claim at one label noise; the range of ρ is another study's.",
    5: "ε_c and ε_w are taken over each cohort's own samples; the figure counts both over all samples, as the paper does.",
}
