"""Tests of whether two ensembles follow one law, exact for any law: members of pairs are exchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langevin_nn.checks import numbers, whole_number
from langevin_nn.errors import ConfigurationError, EstimationRefused

__all__ = ["LEAST_PAIRS", "SwapTest", "holm", "swap_test"]

Floats = NDArray[np.float64]

# With six pairs there are 2⁵ different exchanges: fewer cannot reject at 5 %.
LEAST_PAIRS = 6

_ROUNDING = 1e-9
_BLOCK = 4_000_000  # numbers held at once


@dataclass(frozen=True, eq=False)
class SwapTest:
    """The outcome of `swap_test`.

    Parameters
    ----------
    p_value : float
        Of the hypothesis that both ensembles follow one law in everything that was compared.
    mean_p_value : ndarray, shape (feature,)
        Of each feature's difference in mean, adjusted for all features, means and spreads.
    spread_p_value : ndarray, shape (feature,)
        Of each feature's difference in spread, adjusted likewise.
    statistic : float
        The largest standardised difference.
    n_permutations : int
        Exchanges that were drawn; p-values are multiples of one over one more.
    """

    p_value: float
    mean_p_value: Floats
    spread_p_value: Floats
    statistic: float
    n_permutations: int


def swap_test(first: ArrayLike, second: ArrayLike, *, permutations: int = 9_999, seed: int = 0) -> SwapTest:
    """Test whether two ensembles of pairs follow one law, in mean and spread of many features at once.

    Pair r is (x_r, y_r): two processes from one start, with noise of their own. Where both follow one law, given what they
    share, x_r and y_r may be exchanged in each pair independently, and the p-value (1 + number of exchanges with a statistic
    as large)/(1 + number drawn) is exact at any number of pairs and for any law, however the features depend on each other
    (Phipson & Smyth 2010, doi 10.2202/1544-6115.1585). The statistic is the largest over features of two standardised sums,

        |Σ_r d_r| / (Σ_r d_r²)^½,      |Σ_r d_r (s_r − s̄)| / (Σ_r d_r² (s_r − s̄)²)^½,      d = x − y,  s = x + y,

    which look at means and, since cov(x − y, x + y) = var x − var y (Pitman 1939, doi 10.1093/biomet/31.1-2.9), at
    variances. An exchange changes the sign of d_r and nothing else. Comparing each feature with the largest over all gives
    p-values that hold for all of them at once (Westfall & Young 1993, Resampling-based multiple testing).

    Parameters
    ----------
    first, second : array, shape (replica, feature)
        The two ensembles. A value that is missing in either member leaves that pair out of that feature, and that one
        ensemble has more missing values than the other is a feature of its own.
    permutations : int, optional
        Exchanges to draw.
    seed : int, optional
        Of the exchanges.

    Returns
    -------
    SwapTest
        One p-value for everything, and those of the features.

    Raises
    ------
    ConfigurationError
        If the arrays are not of one shape, or the exchanges are not counted by a whole number from 1.
    EstimationRefused
        If there are fewer than six pairs, of which no exchange is rare enough.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> x, y = generator.standard_normal((2, 20, 5))
    >>> [swap_test(x, each).p_value < 0.01 for each in (y, y + 2, 6 * y)]
    [False, True, True]
    """
    expected = "a whole number (int) of exchanges from 1, which bound the smallest p-value from below"
    n = whole_number("permutations", permutations, expected, least=1, most=10_000_000)
    x, y = (np.asarray(numbers(name, each, "numbers (replica, feature)", finite=False), dtype=np.float64)
            for name, each in (("first", first), ("second", second)))  # fmt: skip
    if x.ndim != 2 or x.shape != y.shape:
        raise ConfigurationError(
            f"ensembles have shapes {x.shape} and {y.shape}: expected one shape (replica, feature), since replicas are "
            "compared in pairs from the same start"
        )
    if len(x) < LEAST_PAIRS:
        raise EstimationRefused(
            f"{len(x)} pairs of replicas: expected at least {LEAST_PAIRS}, since their exchanges give no p-value below "
            f"1/{2 ** max(len(x) - 1, 0)}; simulate more replicas (16 or more are useful)",
            replicas=len(x),
            needed=LEAST_PAIRS,
        )
    signed = _standardised(x, y)
    generator = np.random.default_rng(seed)
    observed = np.abs(signed.sum(0))
    largest = np.empty(n)
    block = max(1, _BLOCK // max(signed.shape[1], 1))
    for begin in range(0, n, block):
        signs = generator.choice((-1.0, 1.0), size=(min(block, n - begin), len(signed)))
        largest[begin : begin + len(signs)] = np.abs(signs @ signed).max(1, initial=0.0)
    # Exchanges that repeat the observed one, or its mirror image, count as equal whatever their rounding.
    ranked = np.sort(largest) * (1 + _ROUNDING) + _ROUNDING
    p_values = (1 + n - np.searchsorted(ranked, observed, side="left")) / (1 + n)
    n_features = x.shape[1]
    return SwapTest(
        p_value=float(p_values.min(initial=1.0)),
        mean_p_value=p_values[:n_features],
        spread_p_value=p_values[n_features : 2 * n_features],
        statistic=float(observed.max(initial=0.0)),
        n_permutations=n,
    )


def _standardised(x: Floats, y: Floats) -> Floats:
    """Return what an exchange changes the sign of, each column of length 1: means, spreads, what is missing."""
    present = np.isfinite(x) & np.isfinite(y)
    difference = np.where(present, x, 0) - np.where(present, y, 0)
    total = np.where(present, x, 0) + np.where(present, y, 0)
    centre = total.sum(0) / np.maximum(present.sum(0), 1)
    missing = np.isfinite(x).sum(1, keepdims=True) - np.isfinite(y).sum(1, keepdims=True)
    columns = np.concatenate([difference, difference * (total - centre), missing], axis=1)
    length = np.sqrt((columns**2).sum(0))
    # What is the same but for rounding is the same.
    scale = np.concatenate([np.abs(x).max(0, initial=0, where=present)] * 2 + [np.zeros(1)])
    scale[x.shape[1] : -1] **= 2
    columns = np.where(length > 1e-12 * scale, columns, 0)
    standardised: Floats = columns / np.where(length > 0, length, 1)
    return standardised


def holm(p_values: Any) -> Floats:
    """Adjust p-values for their number, so that one of them is falsely below a level no more often than the level says.

    With p₍₁₎ ≤ … ≤ p₍ₘ₎, the adjusted ones are max_{j ≤ i} min(1, (m − j + 1) p₍ⱼ₎) (Holm 1979, Scandinavian Journal of
    Statistics 6, 65–70), whatever their dependence.

    Parameters
    ----------
    p_values : array
        Of all tests, in any shape; NaN where there was none, which is not counted.

    Returns
    -------
    ndarray of the same shape
        Adjusted.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    values = numbers("p_values", p_values, "p values of any shape, NaN where there was no test", finite=False)
    adjusted = np.full(values.size, np.nan)
    order = np.argsort(values.ravel())
    order = order[np.isfinite(values.ravel()[order])]
    steps = values.ravel()[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.reshape(values.shape)
