"""Many autoregressive series, and how much each looks like a fall: `langevin_nn.statistics.decline` has the slow form."""

from __future__ import annotations

import numpy as np
from numba import float64

from langevin_nn.kernels.cache import cached

__all__ = ["autoregressive", "fall_statistics"]


@cached(float64[:, ::1](float64[:, ::1], float64), nogil=True)
def autoregressive(shocks, correlation):
    """Return x_t = ρ x_{t−1} + shock_t for each series, from x_0 = shock_0.

    Parameters
    ----------
    shocks : ndarray of float64, shape (series, step)
        What is added.
    correlation : float
        ρ.

    Returns
    -------
    ndarray, shape (series, step)
        The series.
    """
    series = np.empty_like(shocks)
    for number in range(len(shocks)):
        value = 0.0
        for at in range(shocks.shape[1]):
            value = correlation * value + shocks[number, at]
            series[number, at] = value
    return series


@cached(float64[:, ::1](float64[:, ::1]), nogil=True)
def fall_statistics(series):
    """Return how much each series looks like a fall, by pooling adjacent violators (Best & Chakravarti 1990).

    Parameters
    ----------
    series : ndarray of float64, shape (series, step)
        Numbers without a quantum.

    Returns
    -------
    ndarray, shape (series, 3)
        Trend, break and smooth fall.
    """  # doi 10.1007/BF01580873
    n = series.shape[1]
    found = np.zeros((len(series), 3))
    mean, size = np.empty(n), np.empty(n, np.int64)
    above = np.empty(n)
    for number in range(len(series)):
        row = series[number]
        pools = 0
        for value in row:
            mean[pools], size[pools] = value, 1
            while pools > 0 and mean[pools - 1] < mean[pools]:
                both = size[pools - 1] + size[pools]
                mean[pools - 1] = (size[pools - 1] * mean[pools - 1] + size[pools] * mean[pools]) / both
                size[pools - 1] = both
                pools -= 1
            pools += 1
        centre, squares = row.mean(), (row**2).sum()
        explained, left, at = 0.0, 0.0, 0
        for pool in range(pools):
            explained += size[pool] * (mean[pool] - centre) ** 2
            for _ in range(size[pool]):
                left += (row[at] - mean[pool]) ** 2
                at += 1
        if explained <= 1e-12 * squares:  # rounding of the mean
            continue
        roughness = 0.0
        above[n - 1] = row[n - 1]
        for at in range(n - 2, -1, -1):
            roughness += (row[at + 1] - row[at]) ** 2
            above[at] = max(above[at + 1], row[at])
        lowest, gap = row[0], 0.0
        for at in range(1, n):
            gap = max(gap, lowest - above[at])
            lowest = min(lowest, row[at])
        fall = max(mean[0] - mean[pools - 1], 0.0)
        found[number, 0] = explained / left if left > 0 else np.inf
        found[number, 1], found[number, 2] = gap**2 / roughness, fall**2 / roughness
    return found
