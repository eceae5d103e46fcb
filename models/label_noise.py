"""Wrong training labels in known places: the noise that a network can fit only by heart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langevin_nn.errors import ConfigurationError, UnknownNameError
from langevin_nn.seeds import Seeds

__all__ = ["NoisyLabels", "corrupt_labels"]


@dataclass(frozen=True, eq=False)
class NoisyLabels:
    """Training labels, and what is wrong with them.

    Attributes
    ----------
    given_labels : ndarray of int64, shape (sample,)
        What the network is trained on.
    true_labels : ndarray of int64, shape (sample,)
        What it should have been.
    mislabeled : ndarray of bool, shape (sample,)
        The given label differs from the true one.
    relabeled : ndarray of bool, shape (sample,)
        The label was redrawn; a redrawn label may happen to be right.

    Examples
    --------
    >>> given, true = np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1])
    >>> redrawn = np.array([False, True, True, False])
    >>> NoisyLabels(given, true, mislabeled=given != true, relabeled=redrawn).mislabeled_fraction
    0.25
    """

    given_labels: NDArray[np.int64]
    true_labels: NDArray[np.int64]
    mislabeled: NDArray[np.bool_]
    relabeled: NDArray[np.bool_]

    @property
    def mislabeled_fraction(self) -> float:
        """Realised fraction ρ = N_w/N of samples whose given label is wrong."""
        return float(self.mislabeled.mean())


def corrupt_labels(
    true_labels: ArrayLike,
    label_noise: float,
    *,
    kind: str = "uniform",
    n_classes: int | None = None,
    transition_matrix: ArrayLike | None = None,
    seeds: Seeds,
    replica: int = 0,
) -> NoisyLabels:
    """Redraw the labels of exactly round(`label_noise`·N) training samples.

    Of M classes, a relabeled sample of true class a receives class b with probability

    - ``uniform``: 1/M, so that the mislabeled fraction is `label_noise`·(1 - 1/M) on average;
    - ``exclusive``: 1/(M - 1) for b ≠ a and 0 for b = a, so that it is `label_noise`;
    - ``transition``: ``transition_matrix[a, b]``.

    Under one seed and replica, the samples relabeled at a lower `label_noise` are among those relabeled at a higher
    one.

    Parameters
    ----------
    true_labels : array_like of int, shape (sample,)
        True classes of the training samples, from 0.
    label_noise : float
        Fraction of the samples that is relabeled, 0 to 1; they are drawn without replacement.
    kind : {"uniform", "exclusive", "transition"}, optional
        Law of the new label.
    n_classes : int, optional
        Number M of classes; by default the size of `transition_matrix`, or else the largest label plus one.
    transition_matrix : array_like of float, shape (class, class), optional
        Probability of the given class (column) for each true class (row); needed by ``transition`` and by no other.
    seeds : Seeds
        Source of the randomness, with the purpose ``"label noise"``.
    replica : int, optional
        Index of the replica that these labels belong to.

    Returns
    -------
    NoisyLabels
        Given and true labels, and the cohorts of mislabeled and of relabeled samples.

    Raises
    ------
    UnknownNameError
        There is no such kind of label noise.
    ConfigurationError
        `label_noise` is not a number from 0 to 1; `true_labels` are no classes; ``exclusive`` has fewer than two
        classes; `transition_matrix` is missing, superfluous or no matrix of transition probabilities.

    Examples
    --------
    >>> noisy = corrupt_labels(np.arange(100) % 10, 0.2, kind="exclusive", seeds=Seeds(1))
    >>> int(noisy.relabeled.sum()), noisy.mislabeled_fraction
    (20, 0.2)
    """
    if kind not in _NEW_LABELS:
        raise UnknownNameError("kind of label noise", kind, _NEW_LABELS)
    if not 0 <= label_noise <= 1:  # NaN fails this as well
        raise ConfigurationError(
            f"label_noise: expected a fraction from 0 to 1, got {label_noise!r}; that share of the training "
            "samples is relabeled, so give it as a fraction, not as percent"
        )
    matrix = _checked_matrix(kind, transition_matrix)
    labels = _checked_labels(true_labels)
    n_classes = _number_of_classes(kind, labels, n_classes, matrix)

    generator = seeds.generator("label noise", replica)
    chosen = generator.permutation(len(labels))[: round(label_noise * len(labels))]
    given, relabeled = labels.copy(), np.zeros(len(labels), dtype=bool)
    given[chosen] = _NEW_LABELS[kind](labels[chosen], n_classes, matrix, generator)
    relabeled[chosen] = True
    return NoisyLabels(given, labels, given != labels, relabeled)


Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]


def _uniform(true: Labels, n_classes: int, matrix: Matrix, generator: np.random.Generator) -> Labels:
    return generator.integers(n_classes, size=len(true))


def _exclusive(true: Labels, n_classes: int, matrix: Matrix, generator: np.random.Generator) -> Labels:
    return (true + generator.integers(1, n_classes, size=len(true))) % n_classes


def _transition(true: Labels, n_classes: int, matrix: Matrix, generator: np.random.Generator) -> Labels:
    cumulative = matrix.cumsum(axis=1)
    cumulative /= cumulative[:, -1:]  # ends at exactly 1, so that rounding never yields an impossible class
    below = cumulative[true] <= generator.random(len(true))[:, None]
    new: Labels = below.sum(axis=1, dtype=np.int64)
    return new


_NEW_LABELS: dict[str, Callable[[Labels, int, Matrix, np.random.Generator], Labels]] = {
    "uniform": _uniform,
    "exclusive": _exclusive,
    "transition": _transition,
}


def _checked_labels(true_labels: ArrayLike) -> Labels:
    labels = np.asarray(true_labels)
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ConfigurationError(
            "true_labels: expected one class number of 0 or above for each sample, got an array of shape "
            f"{labels.shape} and type {labels.dtype}{f' from {labels.min()}' if labels.size else ''}; classes are "
            "counted from 0, so encode them as a flat array of integers"
        )
    return labels.astype(np.int64)


def _checked_matrix(kind: str, transition_matrix: ArrayLike | None) -> Matrix:
    if (kind == "transition") != (transition_matrix is not None):
        expected, got = ("a matrix", "none") if kind == "transition" else ("none", "one")
        raise ConfigurationError(
            f"transition_matrix: expected {expected} for label noise of kind {kind!r}, got {got}; only the kind "
            "'transition' draws from it, so give both or neither"
        )
    if transition_matrix is None:
        return np.empty((0, 0))
    matrix = np.asarray(transition_matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ConfigurationError(
            f"transition_matrix: expected shape (class, class), got {matrix.shape}; row a holds the probabilities "
            "of each given class for true class a, so make it square"
        )
    for index, row in enumerate(matrix):
        if not (row >= 0).all() or not np.isclose(row.sum(), 1, rtol=0, atol=1e-6):
            raise ConfigurationError(
                f"transition_matrix: expected probabilities that sum to 1 in each row, got row {index} with "
                f"smallest entry {row.min():g} and sum {row.sum():g}; new labels are drawn from it, so "
                "correct that row"
            )
    return matrix


def _number_of_classes(kind: str, labels: Labels, n_classes: int | None, matrix: Matrix) -> int:
    n_matrix = len(matrix) or None
    number = n_classes if n_classes is not None else n_matrix or int(labels.max()) + 1
    if n_matrix not in {None, number}:
        raise ConfigurationError(
            f"transition_matrix: expected shape ({number}, {number}) for {number} classes, got {matrix.shape}; "
            "each class needs its row and column, so add or remove some"
        )
    if labels.max() >= number:
        raise ConfigurationError(
            f"true_labels: expected classes from 0 to {number - 1}, got {labels.max()}; there are {number} "
            "classes, so raise n_classes or the size of transition_matrix, or correct the labels"
        )
    if kind == "exclusive" and number < 2:
        raise ConfigurationError(
            f"n_classes: expected at least 2 for label noise of kind 'exclusive', got {number}; a new label that "
            "is never the true one needs another class, so name n_classes or choose the kind 'uniform'"
        )
    return number
