"""What a network's predictions settle on, epoch by epoch, and since when it gives that up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin_nn.monitor.turning import interval_of

__all__ = ["LEAST_SETTLED", "MISSING", "Settled", "Settling"]

MISSING = -1  # the prediction for a sample that was not seen

# Fixed on digits, seed 0, but for the last three conditions, without which runs on clean labels were taken to memorise: on
# MNIST at a low learning rate, which go on to leave what they first settled on (changes); on digits, seed 1, whose training
# error rose for an epoch or two (learned); and twenty of 48 at other learning rates, schedules and tasks (losses).
LEAST_SETTLED = 0.75  # of predictions: where a task is too hard for the network fewer do, and hard samples look wrong
_SPREAD = 0.25  # total variation between predicted and given classes: before, few of the classes are told apart
_AROUND, _LATEST = 1, 2  # records on either side of the best one, and at the end, whose mean is taken
_CHANGES = 3  # at the end; of those into and out of the records around the best one there are four
_LEAST_RECORDS, _WAITED = 6, 3  # in all, of which a majority is told, and since the best one
_CERTAIN = 3.0  # standard errors, asked each epoch
_ROUNDING = 1e-12  # of shares
_LEAST_FALL = 0.01  # of the samples: some correct ones are learned by heart, too

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Classes = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Settled:
    """What predictions tell.

    Attributes
    ----------
    agreement : float
        Share of the predictions that were what most are, in the three records in which most were; NaN before there are some.
    since : float
        The time after which fewer are; NaN where that is not certain.
    interval : tuple of float
        Times between which that began, by a bootstrap at 95 %; where it begins slowly the first samples are earlier.
    fall, error : float
        By how much the share has fallen since, and the standard error over samples.
    """

    agreement: float = nan
    since: float = nan
    interval: tuple[float, float] = (nan, nan)
    fall: float = nan
    error: float = nan

    @property
    def is_given_up(self) -> bool:
        """Whether the network gives up what it had settled on."""
        return bool(np.isfinite(self.since))


class Settling:
    """Predictions record after record, until the network gives up what they had settled on.

    Before a network learns wrong labels by heart it predicts for their samples what it has learned from the others, epoch
    after epoch; then it begins to predict what they were labelled. Let c_i be the class that was predicted for sample i in
    most epochs, and

        Q(t) = share of the samples for which epoch t predicts c_i

    Q rises while predictions settle, and falls when they are given up. "Label Wave" (Yuan, Feng & Liu 2024,
    arXiv:2502.07551) looks at the agreement of one epoch with the next; this one compares all with all, and needs no pass of
    its own.

    Memorising began where the mean of Q over three records was greatest, if that is at least three records ago, Q was 0.75 at
    least there, and has fallen by 1 % of the samples and by three standard errors of the same samples' differences; and if
    more predictions change from one record to the next than then, and more are the given labels; and if, with the losses ℓ_i,

        D(t) = 1/N Σ_i ± ℓ_i(t), plus where the label is c_i, minus where it is not

    has risen. A network that is still learning gives up predictions, too, but fewer each epoch, and its losses fall by more
    where labels are what it settled on; one whose training error rises does not memorise. It is asked after each record, and
    the first answer stays. Labels have no part in Q, but in the rest; without them nothing is told.

    Attributes
    ----------
    settled : Settled or None
        What is known now; None before classes are told apart, and in the first five records from then on.
    is_empty : bool
        Whether there was no prediction yet.

    Examples
    --------
    >>> generator, wrong = np.random.default_rng(0), np.arange(1000) < 300
    >>> true = generator.integers(10, size=1000)
    >>> given, settling = np.where(wrong, (true + 1) % 10, true), Settling()
    >>> for t in range(40):
    ...     by_heart = wrong & (generator.random(1000) < 0.05 * (t - 20))
    ...     losses = np.where(wrong & ~by_heart, 3.0, 0.1)
    ...     settling.take(np.where(by_heart, given, true), losses, t, given)
    >>> settling.settled.is_given_up, settling.settled.interval[0] <= 20 <= settling.settled.interval[1]
    (True, True)
    """

    def __init__(self) -> None:
        self.settled: Settled | None = None
        self.is_empty = True
        self._table = np.empty((0, 0), np.int32)  # (record, sample), with room for more
        self._times: list[float] = []
        self._losses: list[NDArray[Any]] = []
        self._learned: list[float] = []  # shares of given labels that were predicted
        self._most_seen = 0
        self._classes = self._votes = np.empty(0, np.int32)

    @classmethod
    def of(
        cls,
        predictions: Iterable[Classes],
        losses: Iterable[NDArray[Any]],
        times: Sequence[float],
        labels: Classes | None,
    ) -> Settling:
        """Return what is known after some records.

        Parameters
        ----------
        predictions : iterable of ndarray of int, shape (sample,)
            Of each record; -1 where a sample was not seen.
        losses : iterable of ndarray, shape (sample,)
            Of each record; NaN where a sample was not seen.
        times : sequence of float
            When they were made.
        labels : ndarray of int, shape (sample,), or None
            Given labels; negative where one is not known.

        Returns
        -------
        Settling
            To be gone on with.
        """
        settling = cls()
        for each, own, time in zip(predictions, losses, times, strict=True):
            settling.take(each, own, time, labels)
        return settling

    @property
    def course(self) -> tuple[Floats, Floats, Floats]:
        """Times of records, Q in each, and the share of predictions that differ from those before, NaN in the first."""
        table = self._table[: len(self._times)]
        seen = table != MISSING
        shares = ((table == self._classes) & seen).sum(1) / np.maximum(seen.sum(1), 1)
        changes = np.concatenate([[nan], _changes(table, seen)]) if len(table) else np.empty(0)
        return np.array(self._times), shares, changes

    def take(self, predictions: Classes, losses: NDArray[Any], time: float, labels: Classes | None) -> None:
        """Take one more record.

        Parameters
        ----------
        predictions : ndarray of int, shape (sample,)
            As they were when samples were seen; -1 where one was not.
        losses : ndarray, shape (sample,)
            As they were then, in nats; NaN where one was not. They are not copied.
        time : float
            When it ended.
        labels : ndarray of int, shape (sample,), or None
            Given labels; negative where one is not known. Without any the record is left out.
        """
        if labels is None or not (labels >= 0).any():
            return
        number = int((predictions != MISSING).sum())
        self._most_seen = max(self._most_seen, number)
        if not number or 2 * number < self._most_seen or (self.settled is not None and self.settled.is_given_up):
            return  # a partial record would be compared with whole ones
        if self.is_empty:  # the first has no part, in which learning begins
            self.is_empty = False
            return
        if not self._times and not _are_told_apart(predictions, labels):
            return
        self._keep(predictions, time)
        self._losses.append(losses)
        self._learned.append(float((predictions == labels)[(predictions != MISSING) & (labels >= 0)].mean()))
        if len(self._times) >= _LEAST_RECORDS:
            self.settled = self._judged(labels)

    def _keep(self, predictions: Classes, time: float) -> None:
        """Add a record, and count it for the majority of each sample; of equal ones the class that was it stays."""
        count = len(self._times)
        if count == len(self._table):
            room = np.full((max(2 * count, 16), len(predictions)), MISSING, np.int32)
            if count:
                room[:count] = self._table[:count]
            self._table = room
        if not count:
            self._classes, self._votes = np.full(len(predictions), MISSING), np.zeros(len(predictions), np.int64)
        self._table[count] = predictions
        self._times.append(float(time))
        votes = (self._table[: count + 1] == predictions).sum(0)
        is_more = (votes > self._votes) & (predictions != MISSING)
        self._classes = np.where(is_more, predictions, self._classes)
        self._votes = np.where(is_more, votes, self._votes)

    def _judged(self, labels: Classes) -> Settled:
        table = self._table[: len(self._times)]
        seen = table != MISSING
        number = np.maximum(seen.sum(1), 1)
        agrees = (table == self._classes) & seen
        course = agrees.sum(1) / number
        smooth = _means_of_three(course)
        last = len(course) - 1
        best = int(np.flatnonzero(smooth >= smooth.max() - _ROUNDING)[-1])  # the last of equal ones
        level = float(smooth[best])
        if best > last - _WAITED or level < LEAST_SETTLED:
            return Settled(level)
        around = slice(max(best - _AROUND, 0), best + _AROUND + 1)
        differences = _mean(agrees[around], seen[around]) - _mean(agrees[-_LATEST:], seen[-_LATEST:])
        differences = differences[np.isfinite(differences)]
        fall = float(differences.mean()) if len(differences) else 0.0
        error = float(np.sqrt((differences**2).sum())) / max(len(differences), 1)
        changes = _changes(table, seen)
        then, now = changes[max(best - _AROUND - 1, 0) : best + _AROUND + 1].mean(), changes[-_CHANGES:].mean()
        learned = np.array(self._learned)
        is_learned = now > then and learned[-_LATEST:].mean() >= learned[around].mean()
        is_learned = is_learned and self._is_by_heart(labels, around)
        if fall < _LEAST_FALL or fall <= _CERTAIN * error or not is_learned:
            return Settled(level, fall=fall, error=error)
        own = np.where(seen, agrees - course[:, None], 0.0) / number[:, None]
        lower, upper = interval_of(course, own @ own.T, lambda each: _means_of_three(each).argmax(-1))
        # Record b is predicted by weights from those at the end of record b − 1 on, which are the ones to be named; the mean
        # over three records has its maximum up to one before the course turns.
        lower, upper = min(lower, best) - 1, max(upper, best) + _AROUND
        since, start, end = (self._times[min(max(each, 0), last)] for each in (best - 1, lower, upper))
        return Settled(level, since, (start, end), fall, error)

    def _is_by_heart(self, labels: Classes, around: slice) -> bool:
        """Return whether D has risen since some records: losses fell by more where labels look wrong than elsewhere."""
        known = (self._classes != MISSING) & (labels >= 0)
        signs = np.where(self._classes == labels, 1.0, -1.0)[known]
        then, now = (
            _finite_mean(np.array([each[known] for each in self._losses[which]], np.float64))
            for which in (around, slice(-_LATEST, None))
        )
        risen = signs * (now - then)
        risen = risen[np.isfinite(risen)]
        return len(risen) > 0 and bool(risen.mean() > 0)


def _are_told_apart(predictions: Classes, labels: Classes) -> bool:
    """Return whether classes are predicted about as often as they are given."""
    n_classes = int(max(predictions.max(initial=0), labels.max())) + 1
    own, given = (np.bincount(each[each >= 0], minlength=n_classes) for each in (predictions, labels))
    return bool(np.abs(own / own.sum() - given / given.sum()).sum() / 2 <= _SPREAD)


def _finite_mean(losses: Floats) -> Floats:
    """Return means over records, shape (sample,), of what is finite; NaN where nothing is."""
    finite = np.isfinite(losses)
    number = finite.sum(0)
    return np.where(number > 0, np.where(finite, losses, 0.0).sum(0) / np.maximum(number, 1), nan)


def _changes(table: Classes, seen: Flags) -> Floats:
    """Return shares of predictions that differ from those of the record before, shape (record − 1,)."""
    both = seen[1:] & seen[:-1]
    return np.asarray(((table[1:] != table[:-1]) & both).sum(1) / np.maximum(both.sum(1), 1), np.float64)


def _mean(values: Flags, seen: Flags) -> Floats:
    """Return means over records in which a sample was seen, shape (sample,); NaN where it was in none."""
    number = seen.sum(0)
    return np.where(number > 0, values.sum(0) / np.maximum(number, 1), nan)


def _means_of_three(course: Floats) -> Floats:
    """Return running means of three records, shape (..., record)."""
    padded = np.concatenate([course[..., :1], course, course[..., -1:]], -1)
    return np.asarray((padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]) / 3)
