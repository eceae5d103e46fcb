"""What losses and predictions of samples over the epochs tell of a training run, without knowing a wrong label."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite, log, nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from langevin_nn.cleaning.search import Finding, Search
from langevin_nn.monitor.settled import LEAST_SETTLED, Settled, Settling
from langevin_nn.monitor.turning import interval_of, jitter_of
from langevin_nn.readable import Readable
from langevin_nn.statistics.mixture import LEAST_SAMPLES

__all__ = ["Verdict", "verdict_of"]

Phase = Literal["learning", "plateau", "memorising", "exploring", "cannot be told"]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_LEAST_EPOCHS = 4  # a minimum with a record on either side, after the first epoch, in which learning begins
# The defaults of `find_mislabeled`: probability, Ashman's D, precision, and what a class loses at most.
_SEARCH = Search(None, 0.5, 1.5, 0.5, 0.95)
# In units of a guess's loss. The upper component of wrong labels lies above a guess until they are learned by heart, which
# brings averages down when it begins early, as under flips of class pairs. Those of hard samples were at most 0.6 of it from
# the tenth record on, but up to 0.9 before, on digits, on which the numbers here were fixed; so it is enough only together
# with an onset, and without one samples look mislabeled only where the search itself says so.
_LEAST_UPPER = 0.75
# Predicted, to stop: more than to suspect. Losses that wander for long fooled it at up to 0.61, where nothing was wrong.
_LEAST_PRECISION = 0.65
_MOST_DOUBTED = 0.5  # of the samples, where the upper component may have begun to be learned: fewer than are correct
_FALLEN, _LEARNED = 0.95, 0.75  # as in the search: the mean loss, and that of correct samples, where learning has begun
# Between epochs at which cohorts are searched anew, which takes longer than all else; seldom where they decide nothing.
_GRID_RATIO, _SELDOM = 1.25, 2.0
_CERTAIN_RISE = 1.5  # standard errors: later is surer, but costs accuracy at each epoch
_WINDOW = 1 / 3  # of the records, whose halves tell a trend; a longer one still remembers the beginning
_TREND = 0.02  # of the mean loss, between the halves: a slower fall is none to wait for
_SETTLED = 0.02  # of a guess's loss, below which nothing is left to be learned
_HIGH, _LONG = 0.5, 12  # of a guess's loss, and records: what has been so high for so long is no pause of learning
_KEPT = 8  # findings of the latest searches
_found: OrderedDict[bytes, Finding] = OrderedDict()


@dataclass(frozen=True, repr=False)
class Verdict(Readable):
    """What is going on.

    Attributes
    ----------
    phase : str
        ``"learning"``, ``"plateau"``, ``"memorising"``, ``"exploring"`` or ``"cannot be told"``.
    reason : str
        Why.
    should_stop : bool
        Whether to stop.
    since : float
        The epoch after which memorising began, whose weights are to be taken; NaN where it has not.
    interval : tuple of float
        Epochs between which it began, by a bootstrap at 95 %; NaN where it has not.
    mislabeled : ndarray of bool, shape (sample,), or None
        Which samples look mislabeled; None where that cannot be told.
    precision : float
        Predicted share of mislabeled samples among those; NaN where that cannot be told.
    advice : str
        What to do.
    """

    phase: Phase
    reason: str
    should_stop: bool = False
    since: float = nan
    interval: tuple[float, float] = (nan, nan)
    mislabeled: NDArray[np.bool_] | None = None
    precision: float = nan
    advice: str = "go on"

    def __str__(self) -> str:
        began = f" since epoch {self.since:.3g} ({self.interval[0]:.3g} to {self.interval[1]:.3g})" * isfinite(
            self.since
        )
        lines = [f"{self.phase}{began}: {self.reason}"]
        if self.mislabeled is not None:
            number, n = int(self.mislabeled.sum()), len(self.mislabeled)
            lines.append(f"{number:,} of {n:,} samples look mislabeled (predicted precision {self.precision:.0%})")
        return "\n".join([*lines, self.advice])


def verdict_of(
    losses: Sequence[NDArray[Any]],
    epochs: Sequence[float],
    labels: NDArray[np.int64] | None,
    predictions: Sequence[NDArray[np.integer[Any]]] | Settling | None = None,
) -> Verdict:
    """Tell from losses and predictions of samples what is going on, and whether to stop.

    Where predictions are known, they say whether the network memorises, and since when: `Settling` has the rule. Otherwise
    losses do, less well.

    A network learns first what its samples agree on; the losses of wrong labels stay at or above that of a guess, ln K among
    K classes, until they are learned by heart (Feng & Tu 2021, doi 10.1088/2632-2153/abf5b9). With p_i the probability that
    label i is wrong, as `find_mislabeled` has it, r its mean, and m the mean loss of either cohort, weighted by 1 − p or p,

        D(t) = (1 − r) m_correct(t) − r m_wrong(t)

    falls while more is learned than is learned by heart, and rises from then on. Memorising began at its minimum, after
    a running median of three records. It is said where D has risen by 1.5 standard errors, which hold the
    scatter of samples and that of D from one record to the next, and where by the minimum the correct labels had been learned
    (m_correct below 0.75 ln K). The interval repeats both kinds of scatter.

    Hard samples that are correct fall late, too, and whatever is chosen for being high falls afterwards. So nothing is said
    unless two components explain the losses better than one, the upper one is a cohort near a guess's loss (its time
    average at least 0.75 ln K), the components are apart and the predicted precision is at least 0.65. Cohorts are those
    of a search at one of few epochs, at most 1.25 times apart, or twice where predictions are known, by losses averaged until
    then; the first epoch has no part, in which a sample's loss tells when it was seen.

    Parameters
    ----------
    losses : sequence of array, each of shape (sample,)
        Of each epoch, in nats, as they were when a sample was seen; NaN where it was not. Records with few losses are left
        out.
    epochs : sequence of float
        When they were recorded.
    labels : ndarray of int, shape (sample,), or None
        Given labels. Without them samples are of one class, and the mean loss of the first record stands for ln K.
    predictions : sequence of array of int, each of shape (sample,), or Settling, optional
        The class that was predicted when a sample was seen; -1 where it was not. Or what was made of them, record by record.

    Returns
    -------
    Verdict
        ``"cannot be told"``, with the numbers that there were, for anything that cannot be judged.

    Examples
    --------
    >>> t, wrong = np.arange(60.0)[:, None], np.arange(1000) < 300
    >>> level = np.where(wrong, 2.8 - 0.5 * np.exp(-t / 5) - 0.05 * np.maximum(t - 30, 0), 2.2 * np.exp(-t / 8) + 0.05)
    >>> losses = level * np.exp(0.1 * np.random.default_rng(0).standard_normal((60, 1000)))
    >>> verdict = verdict_of(list(losses), np.arange(60.0), np.arange(1000) % 10)
    >>> verdict.phase, verdict.interval[0] <= 30 <= verdict.interval[1], int(verdict.mislabeled.sum())
    ('memorising', True, 300)
    """
    if not len(losses):
        return _untold("no epoch has ended yet")
    if len(losses) != len(epochs) or len({np.shape(each) for each in losses}) > 1:
        return _untold(f"losses of {len(losses)} epochs, at {len(epochs)} moments, expected some of equal length")
    table = np.stack([np.asarray(each, np.float64) for each in losses])
    if table.ndim != 2 or (labels is not None and np.shape(labels) != table.shape[1:]):
        return _untold(f"losses of shape {table.shape[1:]} an epoch, expected one a sample, as labels")
    seen = np.abs(table) <= np.finfo(np.float32).max  # what lies beyond has diverged
    table[~seen] = nan
    if predictions is not None and not isinstance(predictions, Settling):
        if np.shape(predictions) != table.shape:
            return _untold(
                f"predictions of shape {np.shape(predictions)}, and losses of shape {table.shape}, expected one each"
            )
        predictions = Settling.of(map(np.asarray, predictions), table, epochs, labels)
    number = seen.sum(1)
    # A partial epoch, or one in which the network diverged, would be compared with whole ones.
    kept = (number > 0) & (2 * number >= np.median(number[number > 0]) if number.any() else False)
    n = int(seen.any(0).sum())
    if n < LEAST_SAMPLES or kept.sum() < _LEAST_EPOCHS:
        least = f"expected at least {LEAST_SAMPLES} in {_LEAST_EPOCHS}"
        return _untold(f"{n} samples with finite losses in {int(kept.sum())} epochs, {least}")
    table, seen, times = table[kept], seen[kept], np.asarray(epochs, np.float64)[kept]
    smallest, largest = (float(getattr(table[seen], name)()) for name in ("min", "max"))
    if smallest < 0 or smallest == largest or not (np.diff(times) > 0).all():
        return _untold(
            f"losses from {smallest:.3g} to {largest:.3g} at epochs {times[0]:g} to {times[-1]:g}, expected cross-entropies, "
            "from 0 and not all equal, at epochs in order"
        )
    filled = np.where(seen, table, 0.0)
    mean = filled.sum(1) / seen.sum(1)
    classes = 0 if labels is None else len(np.unique(labels))
    classes = classes if classes > 1 else max(int(np.rint(np.exp(min(mean[0], log(n))))), 2)
    guess = log(classes)
    has_predictions = predictions is not None and not predictions.is_empty
    if not (has_predictions or (mean < _FALLEN * guess).any()):
        return _of_trend(mean, guess, None, nan)
    finding = _cohorts(table, times, labels, classes, _SELDOM if has_predictions else _GRID_RATIO)
    if predictions is not None and has_predictions:
        settled = predictions.settled
        if settled is not None and settled.is_given_up:
            return _of_predictions(settled, finding)
        return _of_trend(mean, guess, *_mislabeled(finding), unsettled=settled)
    if finding is None or not _is_told(finding, guess):
        return _of_trend(mean, guess, None, nan)
    wrong = np.nan_to_num(finding.probability) > _SEARCH.threshold
    change = _change(filled, seen, finding.probability, guess)
    if change is None or finding.precision < _LEAST_PRECISION:
        return _of_trend(mean, guess, *_mislabeled(finding))
    onset, interval, rise, error = change
    first, last = (float(times[index]) for index in interval)
    return Verdict(
        "memorising",
        f"more is learned by heart than is learned, {rise:.2g} ± {error:.1g} nats a sample until epoch {times[-1]:.3g}",
        True,
        float(times[onset]),
        (first, last),
        wrong,
        finding.precision,
        _what_to_do(float(times[onset]), wrong),
    )


def _of_predictions(settled: Settled, finding: Finding | None) -> Verdict:
    """Return that a network has begun to give up what its predictions had settled on."""
    wrong, precision = _mislabeled(finding)
    return Verdict(
        "memorising",
        f"for {settled.fall:.1%} ± {settled.error:.1%} more of the samples it has given up what its predictions had settled "
        "on than it has come to it",
        True,
        settled.since,
        settled.interval,
        wrong,
        precision,
        _what_to_do(settled.since, wrong),
    )


def _what_to_do(since: float, wrong: Flags | None) -> str:
    stop = f"stop now, and take the weights of epoch {since:.3g}, if you have them; then "
    if wrong is None:
        return f"{stop}look at the samples whose labels it had not come to predict by then"
    return f"{stop}train anew without the {int(wrong.sum()):,} samples that look mislabeled, or mend their labels"


def _mislabeled(finding: Finding | None) -> tuple[Flags | None, float]:
    """Return which samples the search itself takes for mislabeled, and with what precision."""
    if finding is None or finding.reason:
        return None, nan
    return np.nan_to_num(finding.probability) > _SEARCH.threshold, finding.precision


def _untold(what: str) -> Verdict:
    return Verdict("cannot be told", what)


def _cohorts(
    table: Floats, times: Floats, labels: NDArray[np.int64] | None, classes: int, ratio: float
) -> Finding | None:
    """Search the records until an epoch of a grid; searches of the same losses are remembered."""
    end = _LEAST_EPOCHS
    while (following := max(end + 1, int(ratio * end))) <= len(table):
        end = following
    part, moments = np.ascontiguousarray(table[1:end]), times[1:end]
    if np.isfinite(part).any(0).sum() < LEAST_SAMPLES:
        return None
    key = blake2b(part.data)
    key.update(moments.tobytes() + str((classes, part.shape)).encode())
    key.update(b"" if labels is None else np.ascontiguousarray(labels).data)
    name = key.digest()
    if name not in _found:
        own = Search(
            classes, _SEARCH.threshold, _SEARCH.least_separation, _SEARCH.least_precision, _SEARCH.most_of_class
        )
        _found[name] = own(part, moments, labels)
        while len(_found) > _KEPT:
            _found.popitem(last=False)
    return _found[name]


def _is_told(finding: Finding, guess: float) -> bool:
    """Return whether there are two cohorts: as the search has it, but that the upper one may have begun to be learned."""
    enough = finding.separation > _SEARCH.least_separation and finding.precision >= _SEARCH.least_precision
    # Early on, all that are not learned yet would be a cohort.
    enough = enough and finding.fraction <= _MOST_DOUBTED
    low = finding.reason.startswith("the upper component") and finding.upper_mean >= _LEAST_UPPER * guess
    return bool(not finding.reason or (low and enough))


def _change(
    filled: Floats, seen: Flags, probability: Floats, guess: float
) -> tuple[int, tuple[int, int], float, float] | None:
    """Return where D is least, between which records, how far it has risen since, and the standard error; None if not."""
    judged = np.isfinite(probability)
    filled, seen, wrong = filled[:, judged], seen[:, judged], probability[judged]
    there, share = seen.astype(np.float64), float(wrong.mean())
    weights = np.stack([1 - wrong, wrong], -1)
    means = (filled @ weights) / np.maximum(there @ weights, 1e-12)  # (record, cohort)
    course = (1 - share) * means[:, 0] - share * means[:, 1]
    smooth = _medians(course)
    onset, last = int(smooth.argmin()), len(course) - 1
    if onset == last or means[onset, 0] > _LEARNED * guess:
        return None
    jitter = jitter_of(course, onset)  # that of the beginning would see its curvature, and has no part
    # What each sample adds to D beyond its cohort's mean, 0 where it was not seen.
    own = (1 - 2 * wrong) * np.where(seen, filled - means @ weights.T, 0.0)
    around = slice(max(onset - 1, 0), onset + 2)
    scatter = (own[last] - own[around].mean(0)).std() / np.sqrt(len(wrong))
    rise, error = float(course[last] - smooth[onset]), float(np.sqrt(scatter**2 + jitter**2 * (1 + 1 / 3)))
    if rise <= _CERTAIN_RISE * error:
        return None
    lower, upper = interval_of(course, own @ own.T / len(wrong) ** 2, lambda each: _medians(each).argmin(-1), onset)
    return onset, (min(lower, onset), max(upper, onset)), rise, error


def _medians(course: Floats) -> Floats:
    """Return running medians of three records, which no single one moves, shape (..., record)."""
    padded = np.concatenate([course[..., :1], course, course[..., -1:]], -1)
    return np.asarray(np.median(np.stack([padded[..., :-2], padded[..., 1:-1], padded[..., 2:]]), 0))


def _of_trend(
    mean: Floats, guess: float, wrong: Flags | None, precision: float, unsettled: Settled | None = None
) -> Verdict:
    """Return what the mean loss does of late where nothing is learned by heart, or that is not known."""
    half = max(int(len(mean) * _WINDOW) // 2, 2)
    before, after = mean[-2 * half : -half], mean[-half:]
    fall, level = float(before.mean() - after.mean()), float(after.mean())
    error = float(np.sqrt((np.diff(mean[-2 * half :]) ** 2).mean() / half))
    words = f"the mean loss went from {before.mean():.3g} to {level:.3g} in the last {2 * half} records"
    if unsettled is not None and unsettled.agreement < LEAST_SETTLED:
        words += (
            f"; whether it memorises cannot be told: {unsettled.agreement:.0%} of the predictions have settled, expected "
            f"{LEAST_SETTLED:.0%}"
        )
    found: dict[str, Any] = {"mislabeled": wrong, "precision": precision}
    if fall > max(_TREND * level, error) and level > _SETTLED * guess:
        return Verdict("learning", words, **found)
    if level <= _SETTLED * guess:
        advice = "stop where you like: little is left to be learned"
        return Verdict("plateau", f"{words}, nearly none", advice=advice, **found)
    if -fall > max(_TREND * level, 2 * error):
        return Verdict(
            "cannot be told", f"{words}: it rises", advice="look for a divergence; lower the learning rate", **found
        )
    if wrong is None and level > _HIGH * guess and len(mean) >= _LONG and (mean < _FALLEN * guess).any():
        advice = "where the learning rate is still high, lower it: with this one the network finds no place to stay at"
        return Verdict(
            "exploring", f"{words}, a guess has {guess:.3g}: neither fall nor rise, but high", advice=advice, **found
        )
    return Verdict("plateau", words, advice="go on with a lower learning rate, or stop", **found)
