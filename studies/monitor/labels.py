"""Wrong labels of four kinds: in all directions, to the next class, between classes that are alike, and where it is hard."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn.functional import one_hot

from langevin_nn import Seeds
from langevin_nn.checks import one_of
from models.label_noise import corrupt_labels

__all__ = ["CLEAN", "KINDS", "class_dependent_matrix", "given_labels", "pair_matrix"]

CLEAN = "clean"
KINDS = ("symmetric", "pair", "class_dependent", "instance_dependent")

_CONCENTRATION = 0.35  # of Dirichlet's law: a class is confused mostly with two or three others, as in CIFAR-10N
_MATRIX_SEED = 5  # one matrix for all
_PROBE_SHARE = 0.2  # of the samples, on which the probe is trained
_PROBE_STEPS, _PROBE_RATE = 200, 0.5

Labels = NDArray[np.int64]


def pair_matrix(n_classes: int) -> NDArray[np.float64]:
    """Return the matrix by which each class is taken for the next one.

    Parameters
    ----------
    n_classes : int
        M.

    Returns
    -------
    ndarray, shape (class, class)
        Probability of a given label (column) for each true one.

    Examples
    --------
    >>> pair_matrix(3)[2]
    array([1., 0., 0.])
    """
    return np.roll(np.eye(n_classes), 1, axis=1)


def class_dependent_matrix(n_classes: int) -> NDArray[np.float64]:
    """Return a matrix by which each class is taken mostly for few others.

    So are those of people's errors, "worst" of CIFAR-10N for example (Wei et al. 2022, arXiv:2110.12088). This one is not
    theirs: it was drawn, from Dirichlet's law of concentration 0.35, once for all, and all classes are wrong equally often.

    Parameters
    ----------
    n_classes : int
        M.

    Returns
    -------
    ndarray, shape (class, class)
        Probability of a given label (column) for each true one, 0 on the diagonal.
    """
    matrix = np.zeros((n_classes, n_classes))
    rows = np.random.default_rng(_MATRIX_SEED).dirichlet(np.full(n_classes - 1, _CONCENTRATION), n_classes)
    matrix[~np.eye(n_classes, dtype=bool)] = rows.ravel()
    return matrix


def given_labels(
    inputs: NDArray[np.float32], true_labels: Labels, n_classes: int, kind: str, rate: float, seeds: Seeds, replica: int
) -> Labels:
    """Return the labels that a network is trained on.

    Parameters
    ----------
    inputs : ndarray of float32, shape (sample, ...)
        Of which ``instance_dependent`` takes the hardest.
    true_labels : ndarray of int, shape (sample,)
        From 0.
    n_classes : int
        M.
    kind : str
        ``clean``, or one of `KINDS`.
    rate : float
        Share of the samples whose label is wrong.
    seeds : Seeds
        Of the labels.
    replica : int
        Whose labels.

    Returns
    -------
    ndarray of int, shape (sample,)
        A share of exactly `rate` of them is wrong, but for rounding.

    Raises
    ------
    UnknownNameError
        If there is no such kind.
    """
    if one_of("kind of label noise", kind, (CLEAN, *KINDS)) == CLEAN:
        return true_labels.copy()
    if kind == "instance_dependent":
        return _hardest(inputs, true_labels, n_classes, rate, seeds, replica)
    matrices: dict[str, ArrayLike] = {
        "pair": pair_matrix(n_classes),
        "class_dependent": class_dependent_matrix(n_classes),
    }
    law = "exclusive" if kind == "symmetric" else "transition"
    return corrupt_labels(
        true_labels,
        rate,
        kind=law,
        n_classes=n_classes,
        transition_matrix=matrices.get(kind),
        seeds=seeds,
        replica=replica,
    ).given_labels


def _hardest(
    inputs: NDArray[np.float32], true_labels: Labels, n_classes: int, rate: float, seeds: Seeds, replica: int
) -> Labels:
    """Give the samples of which a linear probe is least certain the label that it takes for the likeliest wrong one."""
    flat, true = torch.as_tensor(inputs).reshape(len(inputs), -1), torch.as_tensor(true_labels)
    generator = seeds.generator("probe of the labels", replica)
    shown = torch.as_tensor(generator.permutation(len(true))[: max(round(_PROBE_SHARE * len(true)), 1)])
    biased = torch.cat([flat, torch.ones(len(flat), 1)], 1)
    x, y = biased[shown], one_hot(true[shown], n_classes)
    weights = torch.zeros(x.shape[1], n_classes)
    for _ in range(_PROBE_STEPS):  # down the gradient of the cross-entropy of a softmax
        weights -= _PROBE_RATE * x.T @ ((x @ weights).softmax(1) - y) / len(x)
    scores = biased @ weights
    own = scores.gather(1, true[:, None])[:, 0].clone()
    best, second = scores.scatter(1, true[:, None], -torch.inf).max(1)
    hardest = (own - best).argsort(stable=True)[: round(rate * len(true))]
    given = true.clone()
    given[hardest] = second[hardest]
    return given.numpy()
