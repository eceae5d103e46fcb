"""Other routes to the law of coloured noise over a step, and what the kernels must not do."""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import expm

from langevin_nn import ColouredNoise


def over_a_step(
    drift: np.ndarray, diffusion: np.ndarray, tau: float, time_step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and covariance of y over a step, dy = drift y dt + √diffusion dW, τ the shortest time in it.

    Van Loan's exponential (1978, doi 10.1109/TAC.1978.1101743) of a piece of the step that is short against τ, which is
    then doubled: at once it would overflow.
    """
    doublings, n = max(0, math.ceil(math.log2(2 * time_step / tau))), len(drift)
    block = expm(time_step / 2**doublings * np.block([[-drift, diffusion], [np.zeros((n, n)), drift.T]]))
    matrix = block[n:, n:].T
    covariance = matrix @ block[:n, n:]
    for _ in range(doublings):
        matrix, covariance = matrix @ matrix, matrix @ covariance @ matrix.T + covariance
    return matrix, covariance


class Straight(ColouredNoise):
    """Mutated twin for the kernel: ζ is a straight line over a step."""

    def law_parameters(self, time_step):
        lost, gain, _, _, first, *_ = super().law_parameters(time_step)
        return lost, gain, 0.5, 0.0, first, 0.5 * (2 + lost), 0.5 * gain
