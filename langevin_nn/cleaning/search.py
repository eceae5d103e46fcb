"""The search for mislabeled samples in the losses of one run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from langevin_nn.cleaning.components import Components, fit_components, fit_each, information_within

__all__ = ["Finding", "Search"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Whole = NDArray[np.int64]

_TRIED, _FITTED = 48, 8  # records, roughly and class by class
# Samples that each class is taken to have had before, with shares and locations of all classes.
_SHARE_WEIGHT, _LOCATION_WEIGHT = 1000.0, 100.0
# In units of the loss of a guess: what learned samples stay below, and mislabeled ones above.
_LEARNED, _LEAST_LOSS = 0.95, 0.9


@dataclass(frozen=True)
class Finding:
    """What was found in one run.

    Parameters
    ----------
    record : int
        Until which losses were averaged; −1 where there is none.
    score, probability : ndarray, shape (sample,)
        The averages, and the probability that a label is wrong.
    removed : ndarray of bool, shape (sample,)
        What goes.
    fraction, separation, lower_mean, upper_mean : float
        Of the components.
    reason : str
        Why nothing goes; empty where something may.
    """

    record: int
    score: Floats
    probability: Floats
    removed: Flags
    fraction: float
    separation: float
    lower_mean: float
    upper_mean: float
    reason: str


@dataclass(frozen=True)
class Search:
    """How mislabeled samples are searched; see `find_mislabeled`.

    Parameters
    ----------
    n_classes : int or None
        M; those that were given where it is None.
    threshold, least_separation, most_of_class : float
        As there.
    """

    n_classes: int | None
    threshold: float
    least_separation: float
    most_of_class: float

    def __call__(self, losses: Floats, times: Floats, label: Whole | None) -> Finding:
        """Search one run.

        Parameters
        ----------
        losses : ndarray, shape (record, sample)
            At least 0; what follows a record that is not finite is left out.
        times : ndarray, shape (record,)
            When they were recorded.
        label : ndarray of int, shape (sample,), or None
            Given classes.

        Returns
        -------
        Finding
            What goes, and why nothing does.
        """
        n = losses.shape[-1]
        complete = int(np.logical_and.accumulate(np.isfinite(losses).all(-1)).sum())
        if complete == 0:
            nothing, none = np.full(n, np.nan), np.nan
            return Finding(-1, nothing, nothing, np.zeros(n, bool), none, none, none, none, "the losses are not finite")
        classes, members = np.unique(np.zeros(n) if label is None else label, return_inverse=True)
        known = self.n_classes or (None if label is None else len(classes))
        guess = float(losses[0].mean() if known is None else np.log(known))
        scores = _averages(losses[:complete], times[:complete])
        record, gain, found, probability = _most_telling(scores, members, guess)
        score = scores[record]
        reason = self._reason(found, gain, guess, n)
        removed = np.zeros(n, bool) if reason else self._spared(probability > self.threshold, score, members)
        numbers = [float(each) for each in (found.fraction, found.separation, found.lower_mean, found.mean)]
        fraction, separation, lower, upper = numbers
        return Finding(record, score, probability, removed, fraction, separation, lower, upper, reason)

    def _reason(self, found: Components, gain: float, guess: float, n: int) -> str:
        """Say why nothing can be told, or nothing."""
        lower, upper = float(found.lower_mean), float(found.mean)
        if not np.isfinite(found.log_likelihood) or 2 * gain <= 3 * np.log(n):
            return (
                f"one component explains the scores as well as two (log-likelihood {gain:+.1f} for 3 parameters more)"
            )
        if lower > _LEARNED * guess:
            return f"nothing has been learned: the lower component has the mean loss {lower:.2f}, a guess {guess:.2f}"
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


def _averages(losses: Floats, times: Floats) -> Floats:
    """Return the mean over time until each record, by the trapezoidal rule; the loss itself at the first."""
    areas = np.diff(times)[:, None] * (losses[1:] + losses[:-1]) / 2
    means = np.cumsum(areas, axis=0) / (times[1:] - times[0])[:, None]
    return np.asarray(np.maximum(np.concatenate([losses[:1], means]), 1e-12))


def _most_telling(scores: Floats, members: Whole, guess: float) -> tuple[int, float, Components, Floats]:
    """Return the record whose scores tell most of their component, its log-likelihood gain, its fit and probabilities."""
    n_records = len(scores)
    tried = np.unique(np.rint(np.geomspace(1, n_records, min(n_records, _TRIED))).astype(np.int64)) - 1
    rough, gains = fit_each(scores[tried])
    # Before anything is learned, losses part by what the outputs of an untrained network happen to be.
    learned = np.isfinite(rough.log_likelihood) & (rough.lower_mean < _LEARNED * guess)
    told = np.where(learned, information_within(expit(rough.log_odds(scores[tried])), members), 0.0)

    def fitted(position: int) -> tuple[float, int, Components, Floats]:
        found, probability = fit_components(
            scores[tried[position]], members, share_weight=_SHARE_WEIGHT, location_weight=_LOCATION_WEIGHT
        )
        usable = np.isfinite(found.log_likelihood) & (found.lower_mean < _LEARNED * guess)
        return float(usable * information_within(probability, members)), position, found, probability

    promising = np.sort(np.argsort(told, kind="stable")[-_FITTED:])
    _, best, found, probability = max((fitted(int(each)) for each in promising), key=lambda each: each[0])
    return int(tried[best]), float(gains[best]), found, probability
