"""One Gaussian and two, fitted to samples by maximum likelihood, with what tells a good fit from a bad one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from langevin_nn.checks import numbers
from langevin_nn.errors import ConfigurationError, EstimationRefused

__all__ = ["GaussianMixture", "gaussian_mixture"]

Floats = NDArray[np.float64]

LEAST_SAMPLES = 100

# Parameters of one Gaussian and of two.
_PARAMETERS = np.array([2, 5])
_ITERATIONS = 2000
_TOLERANCE = 1e-8
# Groups of neighbouring samples on which starts are tried.
_GROUPS = 256
# Numbers that are worked on at a time.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class GaussianMixture:
    """Maximum-likelihood Gaussians, one and two, of samples.

    Parameters
    ----------
    weight, mean, standard_deviation : ndarray, shape (..., component)
        Of the two components, the one with the lower mean first.
    log_likelihood : ndarray, shape (..., n_components)
        Of one Gaussian and of two.
    distance : ndarray, shape (..., n_components)
        Kolmogorov–Smirnov: the largest difference between the share of samples below a value and its probability.
    converged : ndarray of bool, shape (...)
        Whether the iteration came to rest.
    at_floor : ndarray of bool, shape (...)
        Whether a component is as narrow as it was allowed to be.
    n_samples : int
        How many samples were fitted.
    """

    weight: Floats
    mean: Floats
    standard_deviation: Floats
    log_likelihood: Floats
    distance: Floats
    converged: NDArray[np.bool_]
    at_floor: NDArray[np.bool_]
    n_samples: int

    @property
    def bayesian_information_criterion(self) -> Floats:
        """The criterion k ln N − 2 ln L with k = 2 and 5 parameters, shape (..., n_components); the lower is preferred."""
        return np.asarray(_PARAMETERS * np.log(self.n_samples) - 2 * self.log_likelihood)

    @property
    def components(self) -> NDArray[np.int64]:
        """1 or 2, whichever has the lower criterion, shape (...); 0 where there is none."""
        criterion = self.bayesian_information_criterion
        known = np.isfinite(criterion).all(-1)
        return np.where(known, 1 + (criterion[..., 1] < criterion[..., 0]), 0)

    @property
    def separation(self) -> Floats:
        """ΔL: the difference of the means, shape (...)."""
        return np.asarray(self.mean[..., 1] - self.mean[..., 0])

    @property
    def midpoint(self) -> Floats:
        """Half-way between the means, shape (...)."""
        return np.asarray(self.mean.mean(-1))

    @property
    def equal_density(self) -> Floats:
        """Where both weighted densities are equal between the means, shape (...); NaN where one exceeds the other at both."""
        low, high = self.mean[..., 0].copy(), self.mean[..., 1].copy()
        with np.errstate(invalid="ignore"):
            parts = (self.log_odds(low[..., None])[..., 0] < 0) & (self.log_odds(high[..., None])[..., 0] > 0)
        # The log odds are a parabola, of which one root lies between ends of different sign.
        for _ in range(60):
            middle = 0.5 * (low + high)
            above = self.log_odds(middle[..., None])[..., 0] > 0
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return np.where(parts, 0.5 * (low + high), np.nan)

    def log_odds(self, values: Any) -> Floats:
        """Return ln(w_high N(l; high)) − ln(w_low N(l; low)).

        Parameters
        ----------
        values : array, shape (..., sample)
            Losses, on the scale that was fitted.

        Returns
        -------
        ndarray, shape (..., sample)
            Positive where a sample is more likely of the high component.
        """
        numbers = np.asarray(values, dtype=np.float64)[..., None]
        densities = _log_densities(numbers, self.weight, self.mean, self.standard_deviation)
        return np.asarray(densities[..., 1] - densities[..., 0])

    def high_probability(self, values: Any) -> Floats:
        """Return the posterior probability that each sample is of the high component.

        Where the high component is the wider one, it also claims samples far below the low one: a mixture knows no
        order.

        Parameters
        ----------
        values : array, shape (..., sample)
            Losses, on the scale that was fitted.

        Returns
        -------
        ndarray, shape (..., sample)
            Between 0 and 1.
        """
        return np.asarray(expit(self.log_odds(values)))

    @property
    def fit_p_value(self) -> Floats:
        """Probability of a distance as large or larger, after a fit, if the samples are of such a mixture, shape (...).

        Where components are apart, each is a Gaussian fitted to its own w N samples, whose distances D/w follow
        Lilliefors' law (Dallal & Wilkinson 1986, doi 10.1080/00031305.1986.10475419) independently of each other.
        Values above 0.2 are not accurate.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            accepted = 1 - _lilliefors(self.distance[..., 1:] / self.weight, self.weight * self.n_samples)
        return np.asarray(1 - accepted.prod(-1))

    def is_poor(self, *, tolerance: float = 0.05, level: float = 0.05, least_weight: float = 0.01) -> NDArray[np.bool_]:
        """Return whether two Gaussians are no good description of the samples.

        Parameters
        ----------
        tolerance : float, optional
            Kolmogorov–Smirnov distance that is accepted even where so many samples tell it from none: no large sample
            is exactly Gaussian, and a mixture that is 5 % off at worst still divides well. 0 leaves the test alone.
        level : float, optional
            Probability of a larger distance, for samples of such a mixture, below which a fit counts as bad.
        least_weight : float, optional
            Share of the samples that each component must have.

        Returns
        -------
        ndarray of bool, shape (...)
            True where the distance exceeds the tolerance and chance, a component has next to no weight or is at its
            narrowest, the fit did not come to rest, or there is none.
        """
        with np.errstate(invalid="ignore"):
            close = (self.distance[..., 1] <= tolerance) | (self.fit_p_value >= level)
            fits = close & (self.weight.min(-1) >= least_weight) & self.converged & ~self.at_floor
        return np.asarray(~fits)


def gaussian_mixture(values: Any, *, least_samples: int = LEAST_SAMPLES, floor: float = 1e-3) -> GaussianMixture:
    """Fit one Gaussian and two to samples, by maximum likelihood.

    Expectation maximisation (Dempster, Laird & Rubin 1977, doi 10.1111/j.2517-6161.1977.tb01600.x) of unequal
    variances, for all records at once, from four starts that the sorted samples determine, so that nothing is random
    and the order of samples does not matter. It first runs on groups of neighbouring samples, then the best start on
    the samples themselves until a step gains less than 10⁻⁸ a sample. Standard deviations are kept above `floor` of
    that of all samples: without, a component that shrinks onto one sample has an infinite likelihood.

    Parameters
    ----------
    values : array, shape (..., sample)
        Losses, or their logarithms; records with missing values come out as NaN.
    least_samples : int, optional
        Fewest samples that are fitted.
    floor : float, optional
        Narrowest component, in standard deviations of all samples.

    Returns
    -------
    GaussianMixture
        One for each record.

    Raises
    ------
    ConfigurationError
        If there is no dimension of samples.
    EstimationRefused
        If there are too few samples.

    Examples
    --------
    >>> from scipy.special import ndtri
    >>> quantiles = ndtri((np.arange(1000) + 0.5) / 1000)
    >>> mixture = gaussian_mixture(np.concatenate([0.1 * quantiles, 0.1 * quantiles + 2.0]) + 1.0)
    >>> mixture.mean.round(3), mixture.weight.round(3), mixture.components.item()
    (array([1., 3.]), array([0.5, 0.5]), 2)
    >>> mixture.equal_density.round(3).item(), mixture.high_probability([1.0, 3.0]).round(3)
    (2.0, array([0., 1.]))
    """
    samples = numbers("values", values, "numbers, shape (..., sample)", finite=False)
    if samples.ndim == 0:
        raise ConfigurationError("a single number came: expected samples of shape (..., sample)")
    n = samples.shape[-1]
    if n < least_samples:
        raise EstimationRefused(
            f"{n} samples: expected at least {least_samples} for the 5 parameters of a mixture of two Gaussians, since "
            "fewer are fitted by chance; record more samples, or pass a smaller least_samples",
            samples=n,
            samples_needed=least_samples,
        )
    shape = samples.shape[:-1]
    samples = np.where(np.isfinite(samples).all(-1, keepdims=True), samples, np.nan)
    flat = np.sort(samples.reshape(-1, n), axis=-1)
    size = max(1, _BLOCK // n)
    parts = [_fit(flat[first : first + size], floor) for first in range(0, max(len(flat), 1), size)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    arrays = {name: each.reshape(shape + each.shape[1:]) for name, each in joined.items()}
    return GaussianMixture(**arrays, n_samples=n)


def _lilliefors(distance: Floats, n: Floats) -> Floats:
    """Return Dallal and Wilkinson's p value of a distance from a fitted Gaussian; 1 where it is small."""
    size = n + 2.78019
    # The exponent is a parabola that falls where the formula holds.
    far = np.maximum(distance * np.sqrt(size), 0.35)
    exponent = -7.01256 * far**2 + 2.99587 * far - 0.122119 + 0.974598 / np.sqrt(n) + 1.67997 / n
    return np.asarray(np.exp(np.minimum(exponent, 0)))


def _log_densities(values: Floats, weight: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Return ln(w N(x; m, s)), shape (..., sample, component), for values of shape (..., sample, 1)."""
    weight, mean, deviation = weight[..., None, :], mean[..., None, :], deviation[..., None, :]
    with np.errstate(divide="ignore"):
        return np.asarray(
            np.log(weight) - np.log(deviation) - 0.5 * np.log(2 * np.pi) - 0.5 * ((values - mean) / deviation) ** 2
        )


def _fit(samples: Floats, floor: float) -> dict[str, Any]:
    """Fit sorted samples of shape (record, sample)."""
    n_records, n = samples.shape
    centre, spread = samples.mean(-1), samples.std(-1)
    usable = np.isfinite(centre) & (spread > 8 * np.finfo(np.float64).eps * np.abs(samples).max(-1, initial=0))
    centre, spread = centre[usable, None], spread[usable, None]
    # On the scale of each record: the fit then knows neither units nor origin.
    scaled = (samples[usable] - centre) / spread
    weight, mean, deviation, converged = _maximise(scaled, *_best_start(scaled, floor), floor)
    order = np.argsort(mean, axis=-1)
    weight, mean, deviation = (np.take_along_axis(each, order, -1) for each in (weight, mean, deviation))
    one, two = np.ones((len(scaled), 1)), _log_densities(scaled[..., None], weight, mean, deviation)
    alone = np.full(len(scaled), -0.5 * n * (np.log(2 * np.pi) + 1))
    both = np.logaddexp(two[..., 0], two[..., 1]).sum(-1)
    distances = _distance(scaled, one, 0 * one, one), _distance(scaled, weight, mean, deviation)
    found: dict[str, Any] = {
        "weight": weight,
        "mean": centre + spread * mean,
        "standard_deviation": spread * deviation,
        "log_likelihood": np.stack([alone, both], axis=-1) - n * np.log(spread),
        "distance": np.stack(distances, axis=-1),
        "converged": converged,
        "at_floor": (deviation <= 1.001 * floor).any(-1),
    }
    result = {}
    for name, values in found.items():
        missing = np.nan if values.dtype == np.float64 else False
        result[name] = np.full((n_records, *values.shape[1:]), missing, values.dtype)
        result[name][usable] = values
    return result


def _distance(samples: Floats, weight: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Return the Kolmogorov–Smirnov distance of sorted samples from a mixture."""
    n = samples.shape[-1]
    below = sum(
        weight[:, [part]] * ndtr((samples - mean[:, [part]]) / deviation[:, [part]]) for part in range(weight.shape[1])
    )
    steps = np.arange(n + 1) / n
    return np.asarray(np.maximum(steps[1:] - below, below - steps[:-1]).max(-1))


def _best_start(samples: Floats, floor: float) -> tuple[Floats, Floats, Floats]:
    """Run from several starts on groups of neighbouring samples; return the best, shapes (record, component)."""
    n_records, n = samples.shape
    edges = np.linspace(0, n, min(n, _GROUPS) + 1).astype(np.int64)
    counts = np.diff(edges)
    means = np.add.reduceat(samples, edges[:-1], axis=-1) / counts
    within = np.maximum(np.add.reduceat(samples**2, edges[:-1], axis=-1) / counts - means**2, 0)
    share = counts / n
    powers = np.stack([np.ones_like(means), means, within + means**2], axis=-1) * share[:, None]
    best: list[Floats] = []
    for high in _starts(means, within, share, floor):
        state = _moments(powers, high, floor)
        for _ in range(100):
            state = _moments(powers, expit(_odds(means, *state)), floor)
        best.append(np.concatenate([_mean_log_likelihood(_odds(samples, *state), *state)[:, None], *state], axis=-1))
    found = np.stack(best, axis=1)
    # A component that fell onto a sample or two has a likelihood as high as the floor allows, and says nothing.
    spurious = ((found[..., 5:7] <= 1.001 * floor) & (found[..., 1:3] < 0.05)).any(-1)
    chosen = np.argmax(np.where(spurious, found[..., 0] - 1e6, found[..., 0]), axis=1)
    row = found[np.arange(n_records), chosen]
    return row[:, 1:3], row[:, 3:5], row[:, 5:7]


def _starts(means: Floats, within: Floats, share: Floats, floor: float) -> list[Floats]:
    """Return memberships of the high component, each of shape (record, group)."""
    # The split into lower and upper samples that is likeliest if each sample belongs to one side, and three fixed ones.
    shape = means.shape
    below = np.cumsum(share)[:-1]
    first, second = (np.cumsum(share * each, -1) for each in (means, within + means**2))

    def entropy(weight: Floats, one: Floats, two: Floats) -> Floats:
        variance = np.maximum(two / weight - (one / weight) ** 2, floor**2)
        return weight * (np.log(weight) - 0.5 * np.log(variance))

    left = entropy(below, first[:, :-1], second[:, :-1])
    right = entropy(1 - below, first[:, -1:] - first[:, :-1], second[:, -1:] - second[:, :-1])
    allowed = (below >= 0.01) & (below <= 0.99)
    split = np.argmax(np.where(allowed, left + right, -np.inf), axis=-1)
    position = np.arange(shape[1])
    middle = np.cumsum(share) - 0.5 * share
    fixed = [np.broadcast_to((middle > level).astype(np.float64), shape) for level in (0.2, 0.5, 0.8)]
    return [(position > split[:, None]).astype(np.float64), *fixed]


def _moments(powers: Floats, high: Floats, floor: float) -> tuple[Floats, Floats, Floats]:
    """Return weight, mean and standard deviation of what is high, and of the rest, each of shape (record, component)."""
    # Powers, of shape (record, value, 3), are 1, x and x² times the share of each value; their sums are 1, 0 and 1.
    upper = np.matmul(high[:, None, :], powers)[:, 0]
    sums = np.stack([np.array([1.0, 0.0, 1.0]) - upper, upper], axis=1)
    weight = np.clip(sums[..., 0], 1e-12, None)
    mean = sums[..., 1] / weight
    deviation = np.sqrt(np.maximum(sums[..., 2] / weight - mean**2, floor**2))
    return weight, mean, deviation


def _odds(values: Floats, weight: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Return the log odds of the second component, a parabola in the value, shape (record, value)."""
    precision = 0.5 / deviation**2
    constant = np.log(weight / deviation) - precision * mean**2
    linear = 2 * precision * mean
    constant, linear, square = (each[:, [1]] - each[:, [0]] for each in (constant, linear, -precision))
    return np.asarray((square * values + linear) * values + constant)


def _mean_log_likelihood(odds: Floats, weight: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Return the mean of ln p over standardised samples: that of the first component, whose sum is known, and the rest."""
    first = np.log(weight[:, 0] / deviation[:, 0]) - 0.5 * (
        np.log(2 * np.pi) + (1 + mean[:, 0] ** 2) / deviation[:, 0] ** 2
    )
    return np.asarray(first + (np.maximum(odds, 0) + np.log1p(np.exp(-np.abs(odds)))).mean(-1))


def _maximise(
    samples: Floats, weight: Floats, mean: Floats, deviation: Floats, floor: float
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Iterate each record until the mean log likelihood gains less than the tolerance."""
    weight, mean, deviation = weight.copy(), mean.copy(), deviation.copy()
    converged = np.zeros(len(samples), dtype=bool)
    active = np.arange(len(samples))
    powers = np.stack([np.ones_like(samples), samples, samples**2], axis=-1) / samples.shape[1]
    before = np.full(len(samples), -np.inf)
    for _ in range(_ITERATIONS):
        state = weight[active], mean[active], deviation[active]
        odds = _odds(samples, *state)
        now = _mean_log_likelihood(odds, *state)
        moving = now - before[active] >= _TOLERANCE
        before[active] = now
        converged[active[~moving]] = True
        if not moving.all():
            samples, powers, odds, active = samples[moving], powers[moving], odds[moving], active[moving]
        if len(active) == 0:
            break
        weight[active], mean[active], deviation[active] = _moments(powers, expit(odds), floor)
    return weight, mean, deviation, converged
