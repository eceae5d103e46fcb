"""Order parameters of the whole ensemble from some of its samples: without bias, and with standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan, prod

import numpy as np
from numpy.typing import NDArray

from langevin_nn.ensemble.groups import covariance_factor

__all__ = [
    "Estimate",
    "Sums",
    "estimated_cosines",
    "estimated_order_parameters",
    "estimates_of_cohorts",
    "noise_factor",
    "with_errors",
]

# A ratio whose denominator is not this many standard errors from zero has no error that a jackknife could tell.
_LEAST_RATIO = 3.0

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An estimate with what becomes of it when one sample is left out.

    Parameters
    ----------
    value : float
        From all samples there are.
    left_out : ndarray, shape (sample,)
        Without each of them.
    share : float
        n/N, how many of the samples there are.
    """

    value: float
    left_out: Numbers
    share: float

    @classmethod
    def unknown(cls, n: int = 1) -> Estimate:
        """Return what n samples cannot tell."""
        return cls(float("nan"), np.full(n, np.nan), 0.0)

    @property
    def standard_error(self) -> float:
        """Delete-one jackknife (Efron & Stein 1981, doi 10.1214/aos/1176345462), times √(1 − n/N) of a finite population."""
        if self.share >= 1:
            return 0.0
        n = len(self.left_out)
        if n < 2 or not np.isfinite(self.left_out).all():
            return float("nan")
        spread = (n - 1) * float(self.left_out.var())
        return float((spread * (1 - self.share)) ** 0.5)

    def over(self, other: Estimate, power: int = 1) -> Estimate:
        """Return a ratio of two estimates of the same samples, less its bias; NaN where the divisor may be zero."""
        if not other.value > _LEAST_RATIO * other.standard_error or other.value == 0:
            return Estimate.unknown(len(self.left_out))
        n, ratio, left_out = len(self.left_out), self.value / other.value**power, self.left_out / other.left_out**power
        # n θ − (n − 1) θ̄, without the bias of first order (Quenouille 1956, doi 10.1093/biomet/43.3-4.353).
        bias = (n - 1) * (float(left_out.mean()) - ratio) * max(0.0, 1 - self.share) if n > 1 else 0.0
        return Estimate(ratio - bias if np.isfinite(bias) else ratio, left_out, self.share)

    def plus(self, other: Estimate, sign: float = 1.0) -> Estimate:
        """Return the sum of two estimates of the same samples."""
        return Estimate(self.value + sign * other.value, self.left_out + sign * other.left_out, self.share)

    def times(self, factor: float) -> Estimate:
        """Return a multiple."""
        return Estimate(self.value * factor, self.left_out * factor, self.share)


class Sums:
    """Sums over pairs, triples and quadruples of distinct samples of a Gram matrix, which estimate those of all samples.

    Of a population of N, n drawn at random without replacement estimate a sum over m-tuples of distinct samples without
    bias, as the sum over those among the n times N(N − 1)…/(n(n − 1)…) (Hoeffding 1948, doi 10.1214/aoms/1177730196).

    Parameters
    ----------
    gram : ndarray, shape (sample, sample)
        K_ij = ∇ℓ_i · ∇ℓ_j of those that were drawn.
    n_samples : float
        N; infinity for samples that are drawn anew each time.
    """

    def __init__(self, gram: Numbers, n_samples: float) -> None:
        n = len(gram)
        self.n, self.n_samples = n, float(n_samples)
        self.share = n / self.n_samples
        diagonal = np.diagonal(gram).copy()
        others = gram - np.diag(diagonal)
        rows = others.sum(1)
        squares = (others**2).sum(1)
        # With every sample, in the first place, and without each of them.
        self._diagonal = _less(diagonal.sum(), diagonal)
        self._diagonal_squares = _less((diagonal**2).sum(), diagonal**2)
        self._pairs = _less(rows.sum(), 2 * rows)
        self._pair_squares = _less(squares.sum(), 2 * squares)
        self._diagonal_pairs = _less((diagonal * rows).sum(), diagonal * rows + others @ diagonal)
        row_squares = _less((rows**2).sum(), rows**2 + 2 * (others @ rows) - squares)
        self._triples = row_squares - self._pair_squares

    def _weights(self, order: int) -> Numbers:
        """Return N(N − 1)…/(Nᵐ n(n − 1)…) with all samples and, in the same places as in the sums, without one."""
        weights = np.full(self.n + 1, self._weight(order, self.n - 1))
        weights[0] = self._weight(order, self.n)
        return weights

    def _weight(self, order: int, n: int) -> float:
        if n < order:
            return 0.0 if self.n_samples < order else nan
        return prod((1 - k / self.n_samples) / (n - k) for k in range(order))

    def _estimate(self, values: Numbers) -> Estimate:
        return Estimate(float(values[0]), values[1:], self.share)

    @property
    def mean_square(self) -> Estimate:
        """⟨‖∇ℓ_k‖²⟩."""
        return self._estimate(self._weights(1) * self._diagonal)

    @property
    def squared_mean(self) -> Estimate:
        """‖ḡ‖²."""
        one, two = self._weights(1), self._weights(2)
        return self._estimate(one * self._diagonal / self.n_samples + two * self._pairs)

    @property
    def trace(self) -> Estimate:
        """Tr Σ."""
        return self.mean_square.plus(self.squared_mean, -1)

    @property
    def fourth(self) -> Estimate:
        """‖ḡ‖⁴."""
        finite = 1 / self.n_samples
        one, two, three, four = (self._weights(order) for order in (1, 2, 3, 4))
        singles, paired = self._diagonal_squares, self._diagonal**2 - self._diagonal_squares
        threes = self._diagonal * self._pairs - 2 * self._diagonal_pairs
        fours = self._pairs**2 - 4 * self._triples - 2 * self._pair_squares
        return self._estimate(
            finite**3 * one * singles
            + finite**2 * two * (paired + 4 * self._diagonal_pairs + 2 * self._pair_squares)
            + finite * three * (2 * threes + 4 * self._triples)
            + four * fours
        )

    @property
    def variance_along_mean(self) -> Estimate:
        """ḡᵀ Σ ḡ."""
        finite = 1 / self.n_samples
        one, two, three = (self._weights(order) for order in (1, 2, 3))
        squares = self._estimate(
            finite**2 * one * self._diagonal_squares
            + finite * two * (2 * self._diagonal_pairs + self._pair_squares)
            + three * self._triples
        )
        return squares.plus(self.fourth, -1)


def _less(total: float, parts: Numbers) -> Numbers:
    """Return a total, and behind it the total without each part."""
    return np.concatenate([[total], total - parts])


def estimated_order_parameters(
    gram: Numbers, n_samples: float, batch_size: float, cohort_share: float = 1.0, *, replacement: bool = False
) -> dict[str, Estimate]:
    """Estimate the order parameters of the minibatch ensemble of N samples from n of them.

    A, A₀, D and Tr Σ are without bias; ratios are without that of first order, and are NaN where their divisor is not three
    standard errors from zero. Where n = N, all are those of `EmpiricalEnsemble`, without error.

    Parameters
    ----------
    gram : ndarray, shape (sample, sample)
        K_ij = ∇ℓ_i · ∇ℓ_j of a simple random sample, of one cohort.
    n_samples : float
        N of the cohort; infinity where samples are drawn anew each time, as augmented ones are.
    batch_size : float
        B; may be fractional, for a cohort's share of a minibatch.
    cohort_share : float, optional
        N of the cohort over N of all.
    replacement : bool, optional
        Whether minibatches are drawn with replacement.

    Returns
    -------
    dict of str to Estimate
        By name, as of `GradientEnsemble.order_parameters`.
    """
    sums = Sums(gram, n_samples)
    factor = noise_factor(n_samples, batch_size, replacement)
    squared, trace, along = sums.squared_mean, sums.trace, sums.variance_along_mean
    noise = trace.times(factor)
    parallel = along.times(factor).over(squared)
    return {
        "activity": squared.plus(noise),
        "directed_activity": squared.times(cohort_share**2),
        "parallel_activity": squared.plus(parallel),
        "perpendicular_activity": noise.plus(parallel, -1),
        "noise_strength": noise,
        "parallel_noise": parallel,
        "projection_variance": along.times(factor).over(squared, power=2),
        "gradient_noise_scale": trace.over(squared),
        "alignment_approximation": squared.over(squared.plus(noise)),
    }


def noise_factor(n_samples: float, batch_size: float, replacement: bool = False) -> float:
    """Return f/B of `covariance_factor`, also of infinitely many samples."""
    return 1 / batch_size if n_samples == inf else covariance_factor(n_samples, batch_size, replacement)


def estimated_cosines(gram: Numbers, members: Mapping[str, NDArray[np.bool_]], n_samples: float) -> dict[str, Estimate]:
    """Estimate the cosines of the mean gradients of two cohorts and of all samples.

    Parameters
    ----------
    gram : ndarray, shape (sample, sample)
        K_ij of a simple random sample.
    members : mapping of str to ndarray of bool, shape (sample,)
        Two cohorts that share no sample and make up all; in order.
    n_samples : float
        N of all.

    Returns
    -------
    dict of str to Estimate
        The cosine of the first cohort with the second, of all with the first, of all with the second.
    """
    (one_name, one), (other_name, other) = members.items()
    n = len(gram)
    parts: dict[str, Estimate] = {}
    for name, mask in members.items():
        share = float(mask.mean())
        few = Sums(gram[np.ix_(mask, mask)], share * n_samples) if mask.any() else None
        parts[name] = _spread(few.squared_mean, mask) if few else Estimate.unknown(n)
    cross = gram[np.ix_(one, other)]
    value = float(cross.mean()) if cross.size else float("nan")
    left_out = np.full(n, value)
    if min(cross.shape) > 1:
        left_out[one] = (cross.sum() - cross.sum(1)) / ((len(cross) - 1) * cross.shape[1])
        left_out[other] = (cross.sum() - cross.sum(0)) / (len(cross) * (cross.shape[1] - 1))
    between = Estimate(value, left_out, n / n_samples)
    weight = float(one.mean())
    with_one = parts[one_name].times(weight).plus(between, 1 - weight)
    with_other = between.times(weight).plus(parts[other_name], 1 - weight)
    squared = with_one.times(weight).plus(with_other, 1 - weight)
    return {
        "between": _cosine(between, parts[one_name], parts[other_name]),
        "with_first": _cosine(with_one, squared, parts[one_name]),
        "with_second": _cosine(with_other, squared, parts[other_name]),
    }


def estimates_of_cohorts(
    gram: Numbers, members: NDArray[np.bool_], n_samples: float, batch_size: float, *, replacement: bool = False
) -> dict[str, Numbers]:
    """Return the order parameters of each cohort with their standard errors, as arrays.

    Parameters
    ----------
    gram : ndarray, shape (sample, sample)
        K_ij of a simple random sample.
    members : ndarray of bool, shape (cohort, sample)
        Who is in each; the first holds all.
    n_samples, batch_size : float
        N and B of all, of which each cohort has the share that it has of the sample.
    replacement : bool, optional
        Whether minibatches are drawn with replacement.

    Returns
    -------
    dict of str to ndarray, shape (cohort,)
        By name, errors as ``…_standard_error``; NaN for a cohort without samples.
    """
    found: list[dict[str, Estimate]] = []
    for mask in members:
        if not mask.any():
            found.append(dict.fromkeys(found[0], Estimate.unknown()))
            continue
        share, few = float(mask.mean()), gram[np.ix_(mask, mask)]
        sizes = share * n_samples, share * batch_size, share
        found.append(estimated_order_parameters(few, *sizes, replacement=replacement))
    return with_errors({name: [each[name] for each in found] for name in found[0]})


def with_errors(estimates: Mapping[str, Sequence[Estimate]]) -> dict[str, Numbers]:
    """Return values of estimates as arrays, and beside each its standard errors."""
    arrays = {}
    for name, each in estimates.items():
        arrays[name] = np.array([one.value for one in each])
        arrays[f"{name}_standard_error"] = np.array([one.standard_error for one in each])
    return arrays


def _spread(few: Estimate, mask: NDArray[np.bool_]) -> Estimate:
    """Return an estimate from a cohort as one from all samples, of which those of others change nothing."""
    left_out = np.full(len(mask), few.value)
    left_out[mask] = few.left_out
    return Estimate(few.value, left_out, few.share)


def _cosine(product: Estimate, one: Estimate, other: Estimate) -> Estimate:
    squares = one.value * other.value
    if not (one.value > _LEAST_RATIO * one.standard_error and other.value > _LEAST_RATIO * other.standard_error):
        return Estimate.unknown(len(product.left_out))
    with np.errstate(invalid="ignore"):
        left_out = product.left_out / np.sqrt(one.left_out * other.left_out)
    return Estimate(float(np.clip(product.value / squares**0.5, -1, 1)), left_out, product.share)
