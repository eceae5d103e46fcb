"""The loss of each sample, and its prediction, as they were when the sample was seen, epoch by epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.monitor.settled import MISSING, Settling
from langevin_nn.monitor.together import Ranks

__all__ = ["SeenLosses"]

_DRAWN_TWICE = 0.45  # of an epoch: where samples are drawn independently 1/e of them come again
_LOOKED_AT, _NEVER = 3, 0.05  # epochs after which so large a share of the samples is to have been seen


class SeenLosses:
    """The losses of the epoch that goes on, as they came, and those of the epochs before it, in order.

    Parameters
    ----------
    n_samples : int
        N.
    ranks : Ranks
        The processes, each of which sees some of them.

    Attributes
    ----------
    total : int
        Samples that were seen until now, each as often as it was.
    epochs : list of ndarray of float32, shape (sample,)
        Losses of the epochs that have ended; NaN where a sample was not seen.
    settling : Settling
        What the predictions in them tell.
    clock : list of float
        When they ended, in epochs.
    """

    # A step only keeps copies, 24 bytes a sample with label and prediction, and waits for no device; once an epoch they are
    # put in their places.

    def __init__(self, n_samples: int, ranks: Ranks) -> None:
        self._n, self._ranks = n_samples, ranks
        self.total = self._seen = 0
        self._kept: list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]] = []
        self._labels: NDArray[np.int64] | None = None
        self._were_seen = np.zeros(n_samples, dtype=bool)
        self.epochs: list[NDArray[np.float32]] = []
        self.settling = Settling()
        self.clock: list[float] = []

    @property
    def is_full(self) -> bool:
        """Whether as many samples were seen in this epoch as there are."""
        return self._seen >= self._n

    @property
    def is_under_way(self) -> bool:
        """Whether samples were seen in this epoch."""
        return self._seen > 0

    def has_room(self, n_samples: int) -> bool:
        """Return whether so many more belong to the same epoch: a loader may drop its last minibatch."""
        return self._seen + n_samples * self._ranks.size <= self._n or self._seen == 0

    def take_down(self, losses: Tensor, index: Tensor, labels: Tensor | None, logits: Tensor | None) -> None:
        """Keep losses (sample,) of a minibatch, their places and, where they are known, labels and logits' largest."""
        self._kept.append(
            (
                losses.detach().to(torch.float32, copy=True),
                index.clone(),
                None if labels is None else labels.clone(),
                None if logits is None else logits.detach().argmax(1).to(torch.int32),
            )
        )
        self._seen += len(losses) * self._ranks.size
        self.total += len(losses) * self._ranks.size

    def end_epoch(self) -> tuple[NDArray[np.float32], NDArray[np.int32], Counter[str]]:
        """Begin another epoch; return losses and predictions of this one, and how many of what did not belong there."""
        pieces = [piece for own in self._ranks.gathered(self._on_the_cpu()) for piece in own]
        losses, index = (torch.cat([each[k] for each in pieces]).numpy() for k in (0, 1))
        inside, finite = (index >= 0) & (index < self._n), np.isfinite(losses)
        found = np.full(self._n, np.nan, dtype=np.float32)
        found[index[inside & finite]] = losses[inside & finite]
        predicted = np.full(self._n, MISSING, dtype=np.int32)
        for _, places, labels, classes in pieces:
            there = places.numpy()
            within = (there >= 0) & (there < self._n)
            if labels is not None and not labels.is_floating_point():
                self._labels = np.full(self._n, -1) if self._labels is None else self._labels
                self._labels[there[within]] = labels.numpy()[within]
            if classes is not None:
                predicted[there[within]] = classes.numpy()[within]
        predicted[~np.isfinite(found)] = MISSING  # what has no loss has no largest logit either
        self._kept, self._seen = [], 0
        self.epochs.append(found)
        self.clock.append(self.total / self._n)
        self.settling.take(predicted, found, self.clock[-1], self._labels)
        told = index[inside]
        wrong: dict[str, Any] = {
            "indices out of range": (~inside).sum(),
            "losses that are not finite": (~finite).sum(),
            "samples that came more than once in an epoch": len(told) - len(np.unique(told)),
        }
        if wrong["samples that came more than once in an epoch"] <= _DRAWN_TWICE * len(told):
            wrong["samples that came more than once in an epoch"] = 0
        self._were_seen |= np.isfinite(found)
        if len(self.epochs) == _LOOKED_AT and (~self._were_seen).mean() > _NEVER:
            wrong["samples that were never seen"] = (~self._were_seen).sum()
        return found, predicted, Counter({reason: int(number) for reason, number in wrong.items() if number})

    def _on_the_cpu(self) -> list[tuple[Any, ...]]:
        return [tuple(None if each is None else each.cpu() for each in piece) for piece in self._kept]

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The given label of each sample, once all are known."""
        return None if self._labels is None or (self._labels < 0).any() else self._labels

    @property
    def memory(self) -> dict[str, Any]:
        """What it takes to go on, besides the epochs that have ended."""
        labels = None if self._labels is None else torch.tensor(self._labels)
        kept = self._on_the_cpu()
        counts = {"n_samples": self._n, "total": self.total, "seen": self._seen, "epochs": len(self.epochs)}
        return {**counts, "kept": kept, "labels": labels}

    def go_on(
        self,
        memory: Mapping[str, Any],
        epochs: list[NDArray[np.float32]],
        predictions: list[NDArray[np.int32]],
        clock: list[float],
    ) -> None:
        """Take up what was remembered."""
        self.total, self._seen, self._kept = memory["total"], memory["seen"], list(memory["kept"])
        self._labels = None if memory["labels"] is None else memory["labels"].numpy().copy()
        self.epochs, self.clock = epochs, clock
        for each in epochs:
            self._were_seen |= np.isfinite(each)
        self.settling = Settling.of(predictions, epochs, clock, self._labels)
