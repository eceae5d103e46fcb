"""What a network's predictions settle on, epoch by epoch, and since when it gives that up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin_nn.monitor.turning import interval_of

__all__ = ["LEAST_SETTLED", "MISSING", "Settled", "settled_classes", "settled_of"]

MISSING = -1  # the prediction for a sample that was not seen

# Fixed on digits, seed 0, but for the condition on changes: without it two of three runs on clean labels of MNIST at a low
# learning rate, which go on to leave what they first settled on for what is right, were taken to memorise.
LEAST_SETTLED = 0.75  # of predictions: where a task is too hard for the network fewer do, and hard samples look wrong
_SPREAD = 0.25  # total variation between predicted and given classes: before, few of the classes are told apart
_AROUND, _LATEST = 1, 2  # records on either side of the best one, and at the end, whose mean is taken
_CHANGES = 3  # at the end; of those into and out of the records around the best one there are four
_LEAST_RECORDS, _WAITED = 6, 3  # in all, of which a majority is told, and since the best one
_CERTAIN, _LEAST_FALL = 2.0, 0.01  # standard errors, and of the samples: some correct samples are learned by heart, too

Floats = NDArray[np.float64]
Classes = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Settled:
    """What predictions tell.

    Attributes
    ----------
    classes : ndarray of int, shape (sample,)
        Predicted in most records, from that on in which classes were told apart; -1 where a sample was not seen.
    agreement : float
        Share of the predictions that were these, in the three records in which most were; NaN before there are some.
    onset : int or None
        The record after which fewer are, where that is certain.
    interval : tuple of int
        Records between which that is, with a probability of 95 % at least.
    fall, error : float
        By how much the share has fallen since, and the standard error over samples.
    """

    classes: Classes
    agreement: float = float("nan")
    onset: int | None = None
    interval: tuple[int, int] = (0, 0)
    fall: float = float("nan")
    error: float = float("nan")


def settled_classes(predictions: Classes) -> Classes:
    """Return the class that was predicted in most records; the least of several, -1 where none was.

    Parameters
    ----------
    predictions : ndarray of int, shape (record, sample)
        From 0; -1 where a sample was not seen.

    Returns
    -------
    ndarray of int, shape (sample,)
        A class for each.

    Examples
    --------
    >>> settled_classes(np.array([[0, 1, -1], [2, 1, -1], [2, -1, -1]]))
    array([ 2,  1, -1])
    """
    # Sorted along records, equal ones are neighbours; no table of all classes is made.
    rows = np.arange(len(predictions))[:, None]
    ordered = np.sort(predictions, axis=0)
    is_new = np.concatenate([np.ones_like(ordered[:1], dtype=bool), ordered[1:] != ordered[:-1]])
    length = rows - np.maximum.accumulate(np.where(is_new, rows, 0), axis=0)
    longest = np.where(ordered == MISSING, -1, length).argmax(0)
    return np.asarray(np.take_along_axis(ordered, longest[None], 0)[0])


def settled_of(predictions: Classes, labels: Classes | None) -> Settled | None:
    """Tell since when a network gives up what its predictions had settled on.

    Before a network learns wrong labels by heart it predicts for their samples what it has learned from the others, epoch
    after epoch; then it begins to predict what they were labelled. Let c_i be the class that was predicted for sample i in
    most epochs, and

        Q(t) = share of the samples for which epoch t predicts c_i

    Q rises while predictions settle, and falls when they are given up. "Label Wave" (Yuan, Feng & Liu 2024,
    arXiv:2502.07551) looks at the agreement of one epoch with the next; this one compares all with all, and needs no pass of
    its own. No label has a part in it, but to say when classes are first told apart.

    Memorising began where the mean of Q over three records was greatest, if that is at least three records ago, Q was 0.75 at
    least there, and has fallen by 1 % of the samples and by two standard errors of the same samples' differences; and if more
    predictions change from one record to the next than then. A network that is still learning gives up predictions, too, but
    fewer each epoch.

    Parameters
    ----------
    predictions : ndarray of int, shape (record, sample)
        As they were when samples were seen; -1 where one was not.
    labels : ndarray of int, shape (sample,), or None
        Given labels, with whose distribution that of predictions is compared.

    Returns
    -------
    Settled or None
        None before classes are told apart, and in the first five records from then on.

    Examples
    --------
    >>> generator, wrong = np.random.default_rng(0), np.arange(1000) < 300
    >>> true = generator.integers(10, size=1000)
    >>> given = np.where(wrong, (true + 1) % 10, true)
    >>> records = [np.where(wrong & (generator.random(1000) < 0.05 * (t - 20)), given, true) for t in range(40)]
    >>> found = settled_of(np.array(records), given)
    >>> found.interval[0] <= 20 <= found.interval[1], (found.classes == true).mean() > 0.95
    (True, True)
    """
    first = _first(predictions, labels)
    if first is None or len(predictions) - first < _LEAST_RECORDS:
        return None
    table = predictions[first:]
    classes = settled_classes(table)
    seen = (table != MISSING) & (classes != MISSING)
    number = seen.sum(1)
    agrees = (table == classes) & seen
    course = agrees.sum(1) / np.maximum(number, 1)
    smooth = _means_of_three(course)
    last = len(course) - 1
    best = last - int(smooth[::-1].argmax())  # the later of equal ones
    level = float(smooth[best])
    if best > last - _WAITED or level < LEAST_SETTLED:
        return Settled(classes, level)
    around = slice(max(best - _AROUND, 0), best + _AROUND + 1)
    differences = _mean(agrees[around], seen[around]) - _mean(agrees[-_LATEST:], seen[-_LATEST:])
    differences = differences[np.isfinite(differences)]
    fall = float(differences.mean()) if len(differences) else 0.0
    error = float(np.sqrt((differences**2).sum())) / max(len(differences), 1)
    changes = _changes(table)
    then, now = changes[max(best - _AROUND - 1, 0) : best + _AROUND + 1].mean(), changes[-_CHANGES:].mean()
    if fall < _LEAST_FALL or fall <= _CERTAIN * error or now <= then:
        return Settled(classes, level, fall=fall, error=error)
    own = np.where(seen, agrees - course[:, None], 0.0) / np.maximum(number, 1)[:, None]
    lower, upper = interval_of(course, own @ own.T, lambda each: _means_of_three(each).argmax(-1))
    # Record b is predicted by weights from those at the end of record b − 1 on, which are the ones to be named; the mean over
    # three records has its maximum up to one before the course turns.
    onset, lower, upper = (first + each for each in (best - 1, min(lower, best) - 1, max(upper, best) + _AROUND))
    return Settled(classes, level, onset, (lower, min(upper, len(predictions) - 1)), fall, error)


def _first(predictions: Classes, labels: Classes | None) -> int | None:
    """Return the record from which on classes are told apart; the first one has no part, in which learning begins."""
    if labels is None:
        return 1
    n_classes = int(max(predictions.max(initial=0), labels.max())) + 1
    wanted = np.bincount(labels, minlength=n_classes) / len(labels)
    for record in range(1, len(predictions)):
        own = predictions[record][predictions[record] != MISSING]
        if len(own) and np.abs(np.bincount(own, minlength=n_classes) / len(own) - wanted).sum() / 2 <= _SPREAD:
            return record
    return None


def _changes(table: Classes) -> Floats:
    """Return shares of predictions that differ from those of the record before, shape (record − 1,)."""
    both = (table[1:] != MISSING) & (table[:-1] != MISSING)
    return np.asarray(((table[1:] != table[:-1]) & both).sum(1) / np.maximum(both.sum(1), 1), np.float64)


def _mean(values: NDArray[np.bool_], seen: NDArray[np.bool_]) -> Floats:
    """Return means over records in which a sample was seen, shape (sample,); NaN where it was in none."""
    number = seen.sum(0)
    return np.where(number > 0, values.sum(0) / np.maximum(number, 1), np.nan)


def _means_of_three(course: Floats) -> Floats:
    """Return running means of three records, shape (..., record)."""
    padded = np.concatenate([course[..., :1], course, course[..., -1:]], -1)
    return np.asarray((padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]) / 3)
