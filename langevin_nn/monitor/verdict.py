"""What the losses of samples over the epochs tell of a training run, without knowing a wrong label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Verdict", "verdict_of"]

Phase = Literal["learning", "plateau", "memorising", "exploring", "cannot be told"]


@dataclass(frozen=True)
class Verdict:
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
        The epoch at which memorising began; NaN where it has not.
    interval : tuple of float
        Epochs between which it began.
    mislabeled : ndarray of bool, shape (sample,), or None
        Which samples look mislabeled; None where that cannot be told.
    """

    phase: Phase
    reason: str
    should_stop: bool = False
    since: float = float("nan")
    interval: tuple[float, float] = (float("nan"), float("nan"))
    mislabeled: NDArray[np.bool_] | None = None


def verdict_of(losses: Sequence[NDArray[Any]], epochs: Sequence[float], labels: NDArray[np.int64] | None) -> Verdict:
    """Return the verdict."""
    return Verdict("cannot be told", "no rule yet")
