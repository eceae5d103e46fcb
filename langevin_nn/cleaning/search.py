"""The search for mislabeled samples in the losses of one run."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from langevin_nn.cleaning.components import Components, fit_components, fit_each, information_within
from langevin_nn.statistics.mixture import LEAST_SAMPLES

__all__ = ["Finding", "Search"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Whole = NDArray[np.int64]

_TRIED, _FITTED = 48, 8  # records, roughly and class by class
# Samples that each class is taken to have had before, with shares and locations of all classes.
_SHARE_WEIGHT, _LOCATION_WEIGHT = 1000.0, 100.0
# In units of the loss of a guess: what the mean loss has fallen below, and that of learned samples, where learning has begun;
# what mislabeled ones stay above.
_FALLEN, _LEARNED, _LEAST_LOSS = 0.95, 0.75, 0.95
_LATER = 2  # records after the mean loss has fallen, so that averages are not of an untrained network
_LEAST_SEEN = 2  # records between the beginning of learning and t_c that a sample is judged by, where there are as many
_RANKED = 0.1  # of the largest mean loss, until which losses are averaged for ranking


@dataclass(frozen=True)
class Finding:
    """What was found in one run; NaN, or −1 for a record, where there is nothing."""

    seen: Flags  # samples with any loss
    judged: Flags  # samples that there is a verdict on
    removed: Flags
    score: Floats  # averages of the losses; NaN without a verdict, as probabilities
    probability: Floats  # that a label is wrong
    records_taken: int  # with any loss
    records_missing: int
    reason: str  # why nothing goes; empty where something may
    record: int = -1  # of the components
    ranking_record: int = -1  # until which losses were averaged for the score
    precision: float = nan  # that is predicted
    fraction: float = nan  # of the components, as what follows
    separation: float = nan
    lower_mean: float = nan
    upper_mean: float = nan


@dataclass(frozen=True)
class Fit:
    """Components at one record: log-likelihood beyond that of one, when learning had begun or −1, probabilities."""

    record: int
    gain: float
    since: int
    components: Components
    probability: Floats


@dataclass(frozen=True)
class Search:
    """How mislabeled samples are searched, with the parameters of `find_mislabeled`."""

    n_classes: int | None
    threshold: float
    least_separation: float
    least_precision: float
    most_of_class: float

    def __call__(self, losses: Floats, times: Floats, label: Whole | None) -> Finding:
        """Search one run, losses (record, sample) at moments (record,) of samples with given classes (sample,)."""
        there, n_records = np.isfinite(losses), len(losses)
        taken, seen = np.flatnonzero(there.any(1)), np.asarray(there.any(0))
        if seen.sum() < LEAST_SAMPLES:
            what = f"the losses of all but {seen.sum()} samples are not finite"
            return _nothing(seen, len(taken), n_records - len(taken), what)
        there, filled = there[np.ix_(taken, seen)], _filled(losses[np.ix_(taken, seen)], times[taken])
        given = np.zeros(seen.sum(), int) if label is None else label[seen]
        n_given = len(np.unique(given))
        known = self.n_classes or (n_given if n_given > 1 else None)
        guess = float(filled[0].mean() if known is None else np.log(known))
        averages = _averages(filled, times[taken])
        enough = np.ones(len(given), np.bool_)
        while True:  # samples without a verdict have no part in the components that judge the others
            losses, scores = filled[:, enough].copy("C"), averages[:, enough].copy("C")
            members = np.unique(given[enough], return_inverse=True)[1]
            fit = _most_telling(scores, losses, members, guess)
            again = _seen_enough(fit, losses, there[:, enough])
            if again.all():
                break
            enough[enough] = again
            if enough.sum() < LEAST_SAMPLES:
                what = f"{enough.sum()} samples were seen {_LEAST_SEEN} times between the beginning of learning and t_c"
                return _nothing(seen, len(taken), n_records - len(taken), what)
        judged = np.flatnonzero(seen)[enough]
        record, found, probability = fit.record, fit.components, fit.probability
        removed = self._spared(probability > self.threshold, scores[record], members)
        precision = _predicted_precision(scores[record], probability, removed, members)
        reason = self._reason(fit, guess, len(judged), precision)
        if reason and removed.any():
            reason += f"; {removed.sum()} samples would go, of which {precision:.0%} are predicted to be mislabeled"
        ranking = _ranking_record(losses) if reason else record

        def whole(values: Floats) -> Floats:
            result = np.full(len(seen), np.nan)
            result[judged] = values
            return result

        goes = np.zeros(len(seen), np.bool_)
        goes[judged] = removed & (not reason)
        return Finding(
            seen,
            np.isin(np.arange(len(seen)), judged),
            goes,
            whole(scores[ranking]),
            whole(probability),
            len(taken),
            n_records - len(taken),
            reason,
            int(taken[record]),
            int(taken[ranking]),
            precision,
            *(float(each) for each in (found.fraction, found.separation, found.lower_mean, found.mean)),
        )

    def _reason(self, fit: Fit, guess: float, n: int, precision: float) -> str:
        """Say why nothing can be told, or nothing."""
        found = fit.components
        lower, upper = float(found.lower_mean), float(found.mean)
        if fit.since < 0:
            return (
                "learning has not begun, or tells no two kinds of samples apart: expected a mean loss below "
                f"{_FALLEN * guess:.2f} and one of learned samples below {_LEARNED * guess:.2f}, of a guess {guess:.2f}"
            )
        if 2 * fit.gain <= 3 * np.log(n):
            return f"one component explains the scores as well as two (log-likelihood {fit.gain:+.1f} for 3 parameters more)"
        if upper < _LEAST_LOSS * guess:
            return (
                f"the upper component has the mean loss {upper:.2f}, expected at least {_LEAST_LOSS * guess:.2f}, near that "
                f"of a guess, {guess:.2f}: these may be correct samples that are hard"
            )
        if found.separation <= self.least_separation:
            return (
                f"the components overlap: their means {lower:.2f} and {upper:.2f} are {float(found.separation):.2f} "
                f"standard deviations apart, expected more than {self.least_separation:g}"
            )
        if precision < self.least_precision:
            return (
                f"the predicted precision is {precision:.2f}, expected at least {self.least_precision:g}: so many may be "
                "correct samples that are hard"
            )
        return ""

    def _spared(self, removed: Flags, score: Floats, members: Whole) -> Flags:
        """Return what is removed when no class loses more than a share of its samples."""
        kept = removed.copy()
        for index in range(int(members.max()) + 1):
            own = np.flatnonzero(members == index)
            excess = int(removed[own].sum()) - int(self.most_of_class * len(own))
            if excess > 0:
                lost = own[removed[own]]
                kept[lost[np.argsort(score[lost], kind="stable")[:excess]]] = False
        return kept


def _nothing(seen: Flags, taken: int, missing: int, what: str) -> Finding:
    """Return that there is no verdict on any sample, since so few have losses."""
    none, nothing = np.zeros(len(seen), np.bool_), np.full(len(seen), np.nan)
    return Finding(seen, none, none, nothing, nothing, taken, missing, f"{what}, expected at least {LEAST_SAMPLES}")


def _seen_enough(fit: Fit, losses: Floats, there: Flags) -> Flags:
    """Return which samples were seen since learning had begun; before, losses tell nothing of a label."""
    until = fit.record if fit.since >= 0 else _ranking_record(losses)
    window = there[max(fit.since, 0) : until + 1]
    return np.asarray(window.sum(0) >= min(_LEAST_SEEN, len(window)))


def _filled(losses: Floats, times: Floats) -> Floats:
    """Return losses of which none is missing: where a sample was not seen, the loss of its rank in that record."""
    # Losses fall while a network learns, so that averages of what happened to be seen could not be compared. A rank is
    # interpolated in time between the records in which a sample was seen, and that of the nearest one beyond them.
    seen = np.isfinite(losses)
    if seen.all():
        return losses
    from scipy.stats import rankdata  # slow to import

    rank = (rankdata(losses, axis=1, nan_policy="omit") - 0.5) / seen.sum(1, keepdims=True)
    filled = losses.copy()
    for sample in np.flatnonzero(~seen.all(0)):
        own = seen[:, sample]
        rank[~own, sample] = np.interp(times[~own], times[own], rank[own, sample])
    for each, own, place in zip(filled, seen, rank, strict=True):
        each[~own] = np.interp(place[~own], (np.arange(own.sum()) + 0.5) / own.sum(), np.sort(each[own]))
    return filled


def _ranking_record(losses: Floats) -> int:
    """Return until when losses are averaged to rank samples: until the mean loss has fallen to a tenth of its largest."""
    # By then hard samples have been learned, and wrong labels mostly have not; later ones add noise.
    mean = losses.mean(-1)
    fallen = mean < _RANKED * mean.max()
    return int(fallen.argmax()) if fallen.any() else len(mean) - 1


def _predicted_precision(score: Floats, probability: Floats, removed: Flags, members: Whole) -> float:
    """Return the share of mislabeled samples that is expected among those removed; NaN where there are none."""
    # Hard samples that are correct reach farther up than a log-normal. So the correct ones above the threshold of a class
    # are taken to be as many as those of any unimodal law of their mean m and deviation s can be, by the one-sided
    # inequality of Vysochanskij and Petunin, P(x − m ≥ k s) ≤ max(4/(1 + k²) − 1, 4/(3 (1 + k²)))/3 for k ≥ 0, or as many
    # as the components say, where those are more.
    if not removed.any():
        return np.nan
    correct = 1 - probability
    above = 0.0
    for index in np.unique(members[removed]):
        own = members == index
        number = correct[own].sum()
        if not number > 0:  # nobody correct, who could be removed
            continue
        mean = (correct[own] * score[own]).sum() / number
        deviation = np.sqrt((correct[own] * (score[own] - mean) ** 2).sum() / number)
        excess = score[own & removed].min() - mean
        if deviation > 0:
            distance = max(excess / deviation, 0.0)
        else:
            distance = np.inf if excess > 0 else 0.0
        above += number * max(4 / (1 + distance**2) - 1, 4 / (3 * (1 + distance**2))) / 3
    expected = min(max(above, correct[removed].sum()), removed.sum())
    return float(1 - expected / removed.sum())


def _averages(losses: Floats, times: Floats) -> Floats:
    """Return the mean over time until each record, by the trapezoidal rule; the loss itself at the first."""
    areas = np.diff(times)[:, None] * (losses[1:] + losses[:-1]) / 2
    means = np.cumsum(areas, axis=0) / (times[1:] - times[0])[:, None]
    return np.asarray(np.maximum(np.concatenate([losses[:1], means]), 1e-12))


def _most_telling(scores: Floats, losses: Floats, members: Whole, guess: float) -> Fit:
    """Return the fit at the record whose scores tell most of their component, after learning has begun."""
    n_records = len(scores)
    tried = np.unique(np.rint(np.geomspace(1, n_records, min(n_records, _TRIED))).astype(np.int64)) - 1
    rough, gains = fit_each(scores[tried])
    probabilities = expit(rough.log_odds(scores[tried]))

    low = losses.mean(-1) < _FALLEN * guess
    earliest = int(low.argmax()) + _LATER * (not low[0])

    def begun(found: Components, probability: Floats, at: Whole) -> Flags:
        # Before learned samples have small losses, these part by what the outputs of an untrained network happen to be.
        present = (losses[at] * (1 - probability)).sum(-1) / np.maximum((1 - probability).sum(-1), 1e-300)
        learned = low[at] & (at >= earliest) & (present < _LEARNED * guess)
        return np.asarray(np.isfinite(found.log_likelihood) & learned)

    told = np.where(begun(rough, probabilities, tried), information_within(probabilities, members), 0.0)

    def fitted(position: int) -> tuple[float, int, Fit]:
        at = tried[position]
        found, probability = fit_components(
            scores[at], members, share_weight=_SHARE_WEIGHT, location_weight=_LOCATION_WEIGHT
        )
        usable = bool(begun(found, probability, at))
        since = int(begun(found, probability, np.arange(n_records)).argmax()) if usable else -1
        fit = Fit(int(at), float(gains[position]), since, found, probability)
        return usable * float(information_within(probability, members)), position, fit

    promising = np.argsort(told, kind="stable")[-_FITTED:]
    return max((fitted(int(each)) for each in promising), key=lambda each: each[:2])[2]
