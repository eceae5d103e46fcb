"""Whether an error has fallen for good, or only wanders: a test that autocorrelated records do not deceive."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from langevin_nn.checks import numbers
from langevin_nn.errors import ConfigurationError, EstimationRefused

__all__ = ["LEAST_RECORDS", "autoregressive_noise", "decline_p_value", "decline_statistics"]

Floats = NDArray[np.float64]

# A random walk of n records falls at every one of them with probability 2^(1 − n): with three chances, below 5 % from 7 on.
LEAST_RECORDS = 7

# So many that a p-value of 1/60, a third of 5 %, is known to 0.0013; simulated in blocks that need no more than 16 MB.
_DRAWS = 9_999
_BLOCK = 2_000_000


def decline_p_value(errors: Any, *, correlation: float = 0.97) -> float:
    """Return the probability that stationary noise falls as clearly as a series does.

    Errors fall slowly or at once, a while ago or just now: of the three `decline_statistics` the most outstanding counts.
    None changes when errors are shifted or multiplied, so that the level and the amplitude of the noise do not
    matter. The p-value is the share of noise in which the smallest of the three single p-values is as small (Tippett's
    combination, with its law simulated instead of that for independent tests). The noise is x_t = ρ x_{t−1} + √(1 − ρ²) ξ_t,
    ξ ~ N(0, 1): 9,999 series, always the same ones for as many records. Less correlated noise raises fewer false alarms
    than the p-value says, for it does not fall for long. The test is meant for correlations up to 0.95; that ρ is 0.97
    leaves room for noise that is not Gaussian because it is cut off at 0.

    Parameters
    ----------
    errors : array-like, shape (step,)
        Errors in successive records, shares between 0 and 1.
    correlation : float, optional
        ρ, the largest correlation of successive records that noise may have.

    Returns
    -------
    float
        Small where the errors have fallen.

    Raises
    ------
    ConfigurationError
        If the correlation is not in [0, 1), or the errors are not finite or not one series.
    EstimationRefused
        For fewer than `LEAST_RECORDS` records, which a random walk orders by chance too often.

    Examples
    --------
    >>> decline_p_value([0.9, 0.8, 0.3, 0.1, 0.02, 0.01, 0.0, 0.0, 0.01, 0.0]) < 0.01
    True
    >>> decline_p_value([0.5, 0.4, 0.5, 0.6, 0.4, 0.5, 0.6, 0.5, 0.4, 0.5]) > 0.1
    True
    """
    if not 0 <= correlation < 1:
        raise ConfigurationError(
            f"correlation={correlation}: expected a number from 0 to below 1, the correlation of successive records of noise "
            "that must not count as a fall; noise of correlation 1 is not stationary. The default is 0.97"
        )
    expected = "one series of finite numbers, shape (record,), which may fall"
    series = numbers("errors", errors, expected, finite=False, flags=True)
    if series.ndim != 1 or not np.isfinite(series).all():
        raise ConfigurationError(
            f"errors of shape {series.shape}, {int((~np.isfinite(series)).sum())} of them not finite: expected one series of "
            "finite numbers, since a fall has a direction and no gaps; select one replica and cohort, and leave out the "
            "records after a divergence"
        )
    if len(series) < LEAST_RECORDS:
        raise EstimationRefused(
            f"a fall cannot be told from noise with {len(series)} records: expected at least {LEAST_RECORDS}, since fewer "
            "are in falling order by chance too often; record more often",
            records=len(series),
            needed=LEAST_RECORDS,
        )
    null, smallest = _null(len(series), float(correlation))
    observed = min(
        (_DRAWS - int(np.searchsorted(column, value, side="left"))) / _DRAWS
        for column, value in zip(null, decline_statistics(series), strict=True)
    )
    return (1 + int(np.searchsorted(smallest, observed, side="right"))) / (1 + _DRAWS)


def decline_statistics(errors: Floats, *, quantum: float | None = None) -> tuple[float, float, float]:
    """Return how much a series looks like a fall, in three ways.

    With f the non-increasing least-squares fit to the errors x, found by pooling adjacent violators,

    - trend, T = Σ (f_t − x̄)² / [Σ (x_t − f_t)² + n q²/12]: what a falling curve explains over what it leaves, the statistic
      of order-restricted inference after Barlow, Bartholomew, Bremner & Brunk (1972), Statistical Inference under Order
      Restrictions, chapter 3. It sees slow falls under noise of little correlation;
    - break, S = max_k (min_{t<k} x_t − max_{t≥k} x_t − q)₊² / V with V = Σ (x_{t+1} − x_t)² + (n − 1) q²/6: how far all
      errors before one moment lie above all later ones. It sees falls within a few of many records; a spike, which
      errors come back from, is none;
    - smooth fall, U = (f_1 − f_n − q)₊² / V: a random walk, whose steps cancel, does not get as far. It sees falls that have
      only begun; V is the sum of von Neumann's ratio (1941, doi 10.1214/aoms/1177731677).

    Errors are multiples of a quantum q, one over the number of samples. What is rounded to equal values is not without
    noise, which the terms q²/12 and q²/6 stand for (the variance of a rounding error, Sheppard's correction, and of the
    difference of two), and a difference may be q less than it looks. Noise of one quantum, which steps once and is
    constant otherwise, would be taken for a fall without noise. If q is not given, it is the smallest difference between
    levels that occur, 0 and 1 included.

    Returns
    -------
    tuple of float
        T, S and U, not negative; 0 for a series that does not fall anywhere.

    Examples
    --------
    >>> decline_statistics(np.array([0.0, 0.5, 0.5, 1.0]))
    (0.0, 0.0, 0.0)
    >>> decline_statistics(np.array([1.0, 1.0, 0.0, 0.0]))  # of one sample: 4/4 over 4/12, and nothing beyond rounding
    (3.0, 0.0, 0.0)
    >>> np.round(decline_statistics(np.array([0.75, 0.5, 0.25, 0.0]), quantum=1e-9), 6)[1:]  # 1/3 and 3
    array([0.333333, 3.      ])
    """
    if quantum is None:
        quantum = float(np.diff(np.unique(np.concatenate([[0.0, 1.0], errors.round(9)]))).min())
    fit = isotonic_regression(errors, increasing=False).x
    explained = float(((fit - errors.mean()) ** 2).sum())
    if explained <= 1e-12 * float((errors**2).sum()):  # rounding of the mean
        return 0.0, 0.0, 0.0
    left = float(((errors - fit) ** 2).sum()) + len(errors) * quantum**2 / 12
    roughness = float((np.diff(errors) ** 2).sum()) + (len(errors) - 1) * quantum**2 / 6
    gap = float((np.minimum.accumulate(errors)[:-1] - np.maximum.accumulate(errors[::-1])[-2::-1]).max())
    gap, fall = max(gap - quantum, 0.0), max(float(fit[0] - fit[-1]) - quantum, 0.0)
    return explained / left if left > 0 else np.inf, gap**2 / roughness, fall**2 / roughness


def autoregressive_noise(generator: np.random.Generator, shape: tuple[int, ...], correlation: float) -> Floats:
    """Return stationary x_t = ρ x_{t−1} + √(1 − ρ²) ξ_t along the last axis, with x_0 and ξ_t ~ N(0, 1)."""
    from langevin_nn.kernels.falls import autoregressive  # here, since loading it takes a moment

    shocks = generator.standard_normal(shape)
    shocks[..., 1:] *= np.sqrt(1 - correlation**2)
    noise: Floats = autoregressive(shocks.reshape(-1, shape[-1]), correlation).reshape(shape)
    return noise


@lru_cache(maxsize=128)
def _null(n_records: int, correlation: float) -> tuple[Floats, Floats]:
    """Return the statistics of noise (statistic, draw), and the smallest of each draw's p-values, in ascending order."""
    from langevin_nn.kernels.falls import fall_statistics

    generator = np.random.default_rng([n_records, 19720815])
    blocks: list[Floats] = []
    while (drawn := sum(map(len, blocks))) < _DRAWS:
        block = min(_DRAWS - drawn, 1 + _BLOCK // n_records)
        blocks.append(fall_statistics(autoregressive_noise(generator, (block, n_records), correlation)))
    columns = np.concatenate(blocks).T
    ascending = np.sort(columns, axis=1)
    # Equal values share the largest of their p-values: most noise has no break, which is no evidence.
    below = np.array([np.searchsorted(*pair) for pair in zip(ascending, columns, strict=True)])
    p_values = (_DRAWS - below) / _DRAWS
    return ascending, np.sort(p_values.min(axis=0))
