"""Between which records a course turns, from the scatter of samples and of records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["interval_of", "jitter_of"]

_JITTER_RECORDS = 20  # of late, from which the noise from one record to the next is estimated
_DRAWS, _LEVEL, _SEED = 400, 0.95, 20211  # of the interval; its ends are known to some 1 % of the draws

Floats = NDArray[np.float64]


def jitter_of(course: Floats, first: int = 0) -> float:
    """Return the standard deviation of the noise from one record to the next.

    Parameters
    ----------
    course : ndarray, shape (record,)
        A mean over samples.
    first : int, optional
        Record from which on it is looked at.

    Returns
    -------
    float
        From second differences of the last records.
    """
    # Second differences do not see the slope.
    bent = np.diff(course, 2)[max(first - 1, len(course) - _JITTER_RECORDS - 2, 0) :]
    return float(np.sqrt((bent**2).mean() / 6)) if len(bent) else 0.0


def interval_of(
    course: Floats, covariance: Floats, turn: Callable[[Floats], NDArray[Any]], first: int = 0
) -> tuple[int, int]:
    """Return records between which a course turns, with a probability of 95 %.

    A bootstrap over samples and records: sums over many samples are normal, with the samples' own covariance over time.

    Parameters
    ----------
    course : ndarray, shape (record,)
        A mean over samples.
    covariance : ndarray, shape (record, record)
        Of that mean.
    turn : callable
        Returns where courses (draw, record) turn, shape (draw,).
    first : int, optional
        Record from which on the noise of records is looked at.

    Returns
    -------
    tuple of int
        The first and the last of them.
    """
    whole = covariance + jitter_of(course, first) ** 2 * np.eye(len(course))
    values, vectors = np.linalg.eigh(whole)
    normal = np.random.default_rng(_SEED).standard_normal((_DRAWS, len(course)))
    drawn = turn(course + normal * np.sqrt(np.maximum(values, 0)) @ vectors.T)
    lower, upper = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return int(lower), int(np.ceil(upper))
