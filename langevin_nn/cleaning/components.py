"""Two kinds of samples in one distribution: a log-normal of learned ones, a normal of those that contradict the rest."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy

__all__ = ["Components", "fit_components", "fit_each", "information_within"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_HALF_LOG_TWO_PI = 0.5 * np.log(2 * np.pi)
_GROUPS = 128  # neighbouring samples that count as one where many records are tried
_UPPER_SHARES = (0.15, 0.4, 0.75)  # of the samples, where fits start
_SCAN_ITERATIONS, _ITERATIONS = 150, 300
_TOLERANCE = 1e-7  # nats a sample
_NARROWEST = 0.02  # standard deviation over mean
_CERTAIN = 1e-4  # how near a share comes to 0 and 1


@dataclass(frozen=True)
class Components:
    """Fitted components of scores, in any number of distributions or of one with its classes.

    Parameters
    ----------
    fraction : ndarray, shape (...)
        Share r of the samples in the upper component.
    location, scale : ndarray, shape (...)
        Of the logarithm of the lower component.
    mean, deviation : ndarray, shape (...)
        Of the upper component.
    log_likelihood : ndarray, shape (...)
        −inf where the components are not in their order, or one is empty.
    """

    fraction: Floats
    location: Floats
    scale: Floats
    mean: Floats
    deviation: Floats
    log_likelihood: Floats

    @property
    def lower_mean(self) -> Floats:
        """Mean of the lower component, shape (...)."""
        return np.asarray(np.exp(self.location + self.scale**2 / 2))

    @property
    def lower_deviation(self) -> Floats:
        """Standard deviation of the lower component, shape (...)."""
        return np.asarray(self.lower_mean * np.sqrt(np.expm1(self.scale**2)))

    @property
    def separation(self) -> Floats:
        """Ashman's D: the difference of the means in units of the root mean square of the deviations, shape (...)."""
        return np.asarray((self.mean - self.lower_mean) / np.sqrt((self.lower_deviation**2 + self.deviation**2) / 2))

    def at(self, index: int) -> Components:
        """Return one of several."""
        return Components(*(getattr(self, each.name)[index] for each in fields(self)))

    def log_odds(self, score: Floats) -> Floats:
        """Return ln(r N(s; upper)) − ln((1 − r) LogN(s; lower)) for scores of shape (..., sample)."""
        fraction, location, scale, mean, deviation = (
            np.asarray(each)[..., None]
            for each in (self.fraction, self.location, self.scale, self.mean, self.deviation)
        )
        lower, upper = _densities(score, fraction, location, scale, mean, deviation)
        return np.asarray(upper - lower)


def _densities(
    score: Floats, fraction: Floats, location: Floats, scale: Floats, mean: Floats, deviation: Floats
) -> tuple[Floats, Floats]:
    """Return the logarithms of both weighted densities."""
    logarithm = np.log(score)
    lower = np.log1p(-fraction) - 0.5 * ((logarithm - location) / scale) ** 2 - np.log(scale) - logarithm
    upper = np.log(fraction) - 0.5 * ((score - mean) / deviation) ** 2 - np.log(deviation)
    return lower - _HALF_LOG_TWO_PI, upper - _HALF_LOG_TWO_PI


def fit_each(scores: Floats) -> tuple[Components, Floats]:
    """Fit both components to each of several distributions, roughly.

    Parameters
    ----------
    scores : ndarray, shape (record, sample)
        Positive.

    Returns
    -------
    components : Components
        Of shape (record,).
    gain : ndarray, shape (record,)
        Log-likelihood beyond that of one component, the better of a normal and a log-normal.
    """
    ordered = np.sort(scores, axis=-1)
    n = ordered.shape[-1]
    edges = np.linspace(0, n, min(n, _GROUPS) + 1).astype(np.int64)
    weight = np.diff(edges) / n
    groups = np.add.reduceat(ordered, edges[:-1], axis=-1) / np.diff(edges)
    best = reduce(
        _better, (_maximised(groups, weight, _start(groups, share), _SCAN_ITERATIONS) for share in _UPPER_SHARES)
    )
    logarithm = np.log(groups)
    alone = np.maximum(
        _normal_log_likelihood(groups, weight), _normal_log_likelihood(logarithm, weight) - (weight * logarithm).sum(-1)
    )
    return best, np.asarray(n * (best.log_likelihood - alone))


def information_within(probability: Floats, label: Whole) -> Floats:
    """Return what scores tell of the component they come from, beyond what the class tells.

    The mutual information Σ_c (N_c/N) h(⟨p⟩_c) − ⟨h(p)⟩ with h(p) = −p ln p − (1 − p) ln(1 − p).

    Parameters
    ----------
    probability : ndarray, shape (..., sample)
        Of the upper component.
    label : ndarray of int, shape (sample,)
        Class, from 0 without gaps.

    Returns
    -------
    ndarray, shape (...)
        In nats a sample.

    Examples
    --------
    >>> apart, classes = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0, 0, 1, 1])
    >>> information_within(apart, classes).round(3).item(), information_within(apart, np.array([0, 1, 0, 1])).item()
    (0.693, 0.0)
    """
    number = np.bincount(label)
    means = np.stack([probability[..., label == each].mean(-1) for each in range(len(number))], axis=-1)
    return np.asarray((_entropy(means) * number).sum(-1) / number.sum() - _entropy(probability).mean(-1))


def _start(scores: Floats, share: float) -> Floats:
    """Return probabilities of the upper component, a soft step at a quantile."""
    cut = np.quantile(scores, 1 - share, axis=-1, keepdims=True)
    return np.asarray(expit((scores - cut) / np.maximum(0.1 * scores.std(-1, keepdims=True), 1e-12)))


def _better(one: Components, other: Components) -> Components:
    chosen = other.log_likelihood > one.log_likelihood
    names = ("fraction", "location", "scale", "mean", "deviation", "log_likelihood")
    return Components(*(np.where(chosen, getattr(other, name), getattr(one, name)) for name in names))


def _maximised(scores: Floats, weight: Floats, probability: Floats, iterations: int) -> Components:
    """Run expectation maximisation; the log-likelihood is that of a sample."""
    logarithm = np.log(scores)
    for _ in range(iterations):
        parameters = _moments(scores, logarithm, weight, probability)
        lower, upper = _densities(scores, *(each[..., None] for each in parameters))
        probability = expit(upper - lower)
    likelihood = (weight * np.logaddexp(lower, upper)).sum(-1)
    fraction, location, scale, mean, deviation = parameters
    ordered = (mean > np.exp(location + scale**2 / 2)) & (fraction > 0.005) & (fraction < 0.97)
    return Components(fraction, location, scale, mean, deviation, np.where(ordered, likelihood, -np.inf))


def _moments(scores: Floats, logarithm: Floats, weight: Floats, probability: Floats) -> tuple[Floats, ...]:
    upper, lower = weight * probability, weight * (1 - probability)
    fraction = np.clip(upper.sum(-1), _CERTAIN, 1 - _CERTAIN)
    upper, lower = (each / np.maximum(each.sum(-1, keepdims=True), 1e-300) for each in (upper, lower))
    location, mean = (lower * logarithm).sum(-1), (upper * scores).sum(-1)
    scale = np.sqrt((lower * (logarithm - location[..., None]) ** 2).sum(-1))
    deviation = np.sqrt((upper * (scores - mean[..., None]) ** 2).sum(-1))
    return (
        fraction,
        location,
        np.maximum(scale, _NARROWEST),
        mean,
        np.maximum(deviation, np.maximum(_NARROWEST * mean, 1e-12)),
    )


def _entropy(probability: Floats) -> Floats:
    return np.asarray(-xlogy(probability, probability) - xlogy(1 - probability, 1 - probability))


def _normal_log_likelihood(values: Floats, weight: Floats) -> Floats:
    mean = (weight * values).sum(-1, keepdims=True)
    variance = np.maximum((weight * (values - mean) ** 2).sum(-1), 1e-300)
    return np.asarray(-_HALF_LOG_TWO_PI - 0.5 - 0.5 * np.log(variance))


def fit_components(
    score: Floats, label: Whole, *, share_weight: float, location_weight: float
) -> tuple[Components, Floats]:
    """Fit both components to one distribution, each class about its own means, and give every sample's probability.

    The logarithm of the lower component and the upper one have a location in each class, and each class has a share of
    wrong labels; priors draw them to those of all samples, as if so many samples of each class had been seen before.
    Widths are common. Maximum a posteriori by expectation maximisation (Dempster, Laird & Rubin 1977, doi
    10.1111/j.2517-6161.1977.tb01600.x), from three starts that the sorted scores determine.

    Parameters
    ----------
    score : ndarray, shape (sample,)
        Positive.
    label : ndarray of int, shape (sample,)
        Class, from 0 without gaps.
    share_weight, location_weight : float
        Samples that the priors of shares and of locations are worth in each class.

    Returns
    -------
    components : Components
        Of all samples, with the log-likelihood of the whole.
    probability : ndarray, shape (sample,)
        That a sample is of the upper component; it never falls with the score within a class.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> score = np.concatenate([np.exp(-1 + 0.3 * generator.standard_normal(700)), 3 + 0.4 * generator.standard_normal(300)])
    >>> found, probability = fit_components(score, np.zeros(1000, int), share_weight=100, location_weight=100)
    >>> found.fraction.round(2).item(), int((probability > 0.5).sum())
    (0.3, 300)
    """
    found = [_by_class(score, label, _start(score, share), share_weight, location_weight) for share in _UPPER_SHARES]
    whole, classes = max(found, key=lambda each: float(each[0].log_likelihood))
    probability = np.empty_like(score)
    for index in range(len(classes.fraction)):
        own = label == index
        at = classes.at(index)
        probability[own] = expit(_monotone(score[own], at))
    return whole, probability


def _by_class(
    score: Floats, label: Whole, probability: Floats, share_weight: float, location_weight: float
) -> tuple[Components, Components]:
    logarithm, number = np.log(score), np.bincount(label)

    def drawn(weight: Floats, values: Floats, common: np.float64) -> Floats:
        sums = np.bincount(label, weight * values, len(number))
        return np.asarray(
            (sums + location_weight * common) / (np.bincount(label, weight, len(number)) + location_weight)
        )

    before = -np.inf
    for _ in range(_ITERATIONS):
        upper, lower = probability, 1 - probability
        fraction = np.clip(upper.mean(), _CERTAIN, 1 - _CERTAIN)
        location, mean = np.average(logarithm, weights=lower), np.average(score, weights=upper)
        locations, means = drawn(lower, logarithm, location), drawn(upper, score, mean)
        fractions = (np.bincount(label, upper, len(number)) + share_weight * fraction) / (number + share_weight)
        fractions = np.clip(fractions, _CERTAIN, 1 - _CERTAIN)
        scale = np.sqrt(np.average((logarithm - locations[label]) ** 2, weights=lower))
        deviation = np.sqrt(np.average((score - means[label]) ** 2, weights=upper))
        scale, deviation = np.maximum(scale, _NARROWEST), np.maximum(deviation, _NARROWEST * mean)
        below, above = _densities(score, fractions[label], locations[label], scale, means[label], deviation)
        probability = np.clip(expit(above - below), 1e-300, 1 - 1e-16)
        likelihood = np.logaddexp(below, above).sum()
        if abs(likelihood - before) < _TOLERANCE * len(score):
            break
        before = likelihood
    ordered = mean > np.exp(location + scale**2 / 2)
    likelihood = likelihood if ordered else -np.inf
    numbers = [np.asarray(each) for each in (fraction, location, scale, mean, deviation, likelihood)]
    whole = Components(*numbers)
    same = np.ones_like(means)
    each = Components(fractions, locations, scale * same, means, deviation * same, likelihood * same)
    return whole, each


def _monotone(score: Floats, components: Components) -> Floats:
    """Return log odds that never fall with the score: a mixture knows no order, and its wider component claims both ends."""
    order = np.argsort(score, kind="stable")
    ordered = components.log_odds(score[order])
    middle = int(np.searchsorted(score[order], np.exp(components.location)))
    ordered[middle:] = np.maximum.accumulate(ordered[middle:])
    ordered[:middle] = np.minimum.accumulate(ordered[:middle][::-1])[::-1]
    # Where the upper component is unlikely even at the middle, both halves meet there.
    if 0 < middle < len(ordered):
        ordered[:middle] = np.minimum(ordered[:middle], ordered[middle])
    result = np.empty_like(ordered)
    result[order] = ordered
    return result
