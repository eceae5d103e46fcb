"""Two kinds of samples in one distribution: a log-normal of learned ones, a normal of those that contradict the rest."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy

__all__ = ["Components", "fit_components", "fit_each", "information_within"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
_Parameters = tuple[Floats, Floats, Floats, Floats, Floats]

_HALF_LOG_TWO_PI = 0.5 * np.log(2 * np.pi)
_GROUPS = 128  # neighbouring samples that count as one where many records are tried
_UPPER_SHARES = (0.15, 0.4, 0.75)  # of the samples, where fits start
_SCAN_ITERATIONS, _ITERATIONS = 150, 300
_TOLERANCE = 1e-7  # nats a sample
_NARROWEST = 0.02  # standard deviation over mean
_CERTAIN = 1e-4  # how near a share comes to 0 and 1


class Components(NamedTuple):
    """Fitted components of scores, in any number of distributions or of one with its classes; all of shape (...)."""

    fraction: Floats  # of the samples in the upper component
    location: Floats  # of the logarithm of the lower component
    scale: Floats
    mean: Floats  # of the upper component
    deviation: Floats
    log_likelihood: Floats  # −inf where the components are not in their order, or one is empty

    @property
    def lower_mean(self) -> Floats:
        """Mean of the lower component."""
        return np.asarray(np.exp(self.location + self.scale**2 / 2))

    @property
    def lower_deviation(self) -> Floats:
        """Standard deviation of the lower component."""
        return np.asarray(self.lower_mean * np.sqrt(np.expm1(self.scale**2)))

    @property
    def separation(self) -> Floats:
        """Ashman's D: the difference of the means in units of the root mean square of the deviations."""
        return np.asarray((self.mean - self.lower_mean) / np.sqrt((self.lower_deviation**2 + self.deviation**2) / 2))

    def log_odds(self, score: Floats) -> Floats:
        """Return ln(r N(s; upper)) − ln((1 − r) LogN(s; lower)) for scores of shape (..., sample)."""
        lower, upper = _densities(score, *(np.asarray(each)[..., None] for each in self[:-1]))
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
    """Fit several distributions (record, sample) roughly; the gain is in log-likelihood over a normal or log-normal alone."""
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
    """Return what scores tell of the component they come from, beyond what the class tells, in nats a sample."""
    # The mutual information Σ_c (N_c/N) h(⟨p⟩_c) − ⟨h(p)⟩ with h(p) = −p ln p − (1 − p) ln(1 − p).
    number = np.bincount(label)
    means = np.stack([probability[..., label == each].mean(-1) for each in range(len(number))], axis=-1)
    return np.asarray((_entropy(means) * number).sum(-1) / number.sum() - _entropy(probability).mean(-1))


def _start(scores: Floats, share: float) -> Floats:
    """Return probabilities of the upper component, a soft step at a quantile."""
    cut = np.quantile(scores, 1 - share, axis=-1, keepdims=True)
    return np.asarray(expit((scores - cut) / np.maximum(0.1 * scores.std(-1, keepdims=True), 1e-12)))


def _better(one: Components, other: Components) -> Components:
    chosen = other.log_likelihood > one.log_likelihood
    return Components(*(np.where(chosen, b, a) for a, b in zip(one, other, strict=True)))


def _maximised(scores: Floats, weight: Floats, probability: Floats, iterations: int) -> Components:
    """Run expectation maximisation; the log-likelihood is that of a sample."""
    logarithm = np.log(scores)
    for _ in range(iterations):
        parameters = _moments(scores, logarithm, weight, probability)
        lower, upper = _densities(scores, *(each[..., None] for each in parameters))
        probability = expit(upper - lower)
    likelihood = (weight * np.logaddexp(lower, upper)).sum(-1)
    found = Components(*parameters, likelihood)
    ordered = (found.mean > found.lower_mean) & (found.fraction > 0.005) & (found.fraction < 0.97)
    return found._replace(log_likelihood=np.where(ordered, likelihood, -np.inf))


def _moments(scores: Floats, logarithm: Floats, weight: Floats, probability: Floats) -> _Parameters:
    upper, lower = weight * probability, weight * (1 - probability)
    fraction = np.clip(upper.sum(-1), _CERTAIN, 1 - _CERTAIN)
    upper, lower = (each / np.maximum(each.sum(-1, keepdims=True), 1e-300) for each in (upper, lower))
    location, mean = (lower * logarithm).sum(-1), (upper * scores).sum(-1)
    scale = np.sqrt((lower * (logarithm - location[..., None]) ** 2).sum(-1))
    deviation = np.sqrt((upper * (scores - mean[..., None]) ** 2).sum(-1))
    least = np.maximum(_NARROWEST * mean, 1e-12)
    return fraction, location, np.maximum(scale, _NARROWEST), mean, np.maximum(deviation, least)


def _entropy(probability: Floats) -> Floats:
    return np.asarray(-xlogy(probability, probability) - xlogy(1 - probability, 1 - probability))


def _normal_log_likelihood(values: Floats, weight: Floats) -> Floats:
    mean = (weight * values).sum(-1, keepdims=True)
    variance = np.maximum((weight * (values - mean) ** 2).sum(-1), 1e-300)
    return np.asarray(-_HALF_LOG_TWO_PI - 0.5 - 0.5 * np.log(variance))


def fit_components(
    score: Floats, label: Whole, *, share_weight: float, location_weight: float
) -> tuple[Components, Floats]:
    """Fit both components to scores, each class about its own means; give each sample's probability of the upper one."""
    # The logarithm of the lower component and the upper one have a location in each class, and each class has a share of
    # wrong labels; priors draw them to those of all samples, as if so many samples of each class had been seen before.
    # Widths are common. Maximum a posteriori by expectation maximisation (Dempster, Laird & Rubin 1977, doi
    # 10.1111/j.2517-6161.1977.tb01600.x), from three starts that the sorted scores determine.
    found = [_by_class(score, label, _start(score, share), share_weight, location_weight) for share in _UPPER_SHARES]
    whole, classes = max(found, key=lambda each: float(each[0].log_likelihood))
    probability = np.empty_like(score)
    for index in range(len(classes.fraction)):
        own = label == index
        probability[own] = expit(_monotone(score[own], Components(*(each[index] for each in classes))))
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
    likelihood = likelihood if mean > np.exp(location + scale**2 / 2) else -np.inf
    whole = Components(*map(np.asarray, (fraction, location, scale, mean, deviation, likelihood)))
    same = np.ones_like(means)
    return whole, Components(fractions, locations, scale * same, means, deviation * same, likelihood * same)


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
