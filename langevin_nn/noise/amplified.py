"""SVAG: minibatch noise of any time step, which becomes that of the stochastic differential equation."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isclose, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langevin_nn.checks import whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import EmpiricalLandscape, Landscape
from langevin_nn.noise.base import SampleWeightNoise, SampleWeights
from langevin_nn.seeds import Key

__all__ = ["SVAG"]

_MOST = 2**20  # beyond it the rounding of the two weights in single precision moves the mean gradient by 10⁻⁴


@dataclass(frozen=True)
class SVAG(SampleWeightNoise):
    """Two independent minibatches, weighted (1 ± √(2l − 1))/2, at the time step Δt = α/l.

    Stochastic variance amplified gradient (Li, Malladi & Arora 2021, arXiv:2102.12470): mean ḡ, covariance l C, so that
    an update moves the weights by Δt η as SGD's does, with as much noise a unit of time. l = 1 is SGD with independent
    minibatches; as l grows it converges to dw = −∇L dt + √(α C) dW, with weak order 1 in 1/l, without ever drawing a
    Gaussian number. If SGD and SVAG differ, so do SGD and the equation.

    Parameters
    ----------
    batch_size : int
        B of either minibatch.
    amplification : int
        l, updates in the time of one of SGD's.
    replacement : bool, optional
        Whether a sample may come twice in a minibatch.

    Raises
    ------
    ConfigurationError
        If l is no whole number from 1.

    Examples
    --------
    >>> from langevin_nn import LinearRegressionLandscape, Process
    >>> landscape = LinearRegressionLandscape([[1.0], [1.0]], [-1.0, 1.0])
    >>> process = Process(landscape, SVAG(1, amplification=4), learning_rate=0.1, time_step=0.025)
    >>> state = process.advance(process.start(replicas=3_000, seed=0), steps=4)
    >>> round(float(state.weights.var()), 3)  # α² C less what the drift takes, as after one step of SGD
    0.009
    """

    batch_size: int = field()
    amplification: int
    replacement: bool = False
    needs_batch_size = True
    weak_order = 1.0

    def __post_init__(self) -> None:
        expected = f"a whole number l (int) from 1 to {_MOST:,}, updates in the time of one of SGD's"
        found = whole_number("amplification", self.amplification, expected, least=1, most=_MOST)
        object.__setattr__(self, "amplification", found)

    @property
    def time_step_exponent(self) -> float:
        """1: the weights hold the root of l = α/Δt themselves."""
        return 1.0

    def strength_ratio(self, learning_rate: float) -> float:
        """Return 1/l: the covariance of one update is l C.

        Parameters
        ----------
        learning_rate : float
            α.

        Returns
        -------
        float
            Whatever the learning rate.
        """
        return 1 / self.amplification

    def check_rates(self, learning_rate: float, time_step: float) -> None:  # noqa: D102
        if not isclose(time_step * self.amplification, learning_rate, rel_tol=1e-6):
            raise ConfigurationError(
                f"time_step={time_step:g} at learning_rate={learning_rate:g} with SVAG of amplification "
                f"{self.amplification}: expected {learning_rate / self.amplification:g} = learning_rate/amplification, for "
                "which the two minibatches are weighted; use svag(...), which sets it"
            )

    def sample_weights(  # noqa: D102
        self, landscape: EmpiricalLandscape, memory: None, key: Key
    ) -> tuple[SampleWeights, None]:
        n, size, root = landscape.n_samples, self.batch_size, sqrt(2 * self.amplification - 1)
        # The first is that of `IndependentMinibatches`, so that l = 1 is the same run.
        drawn = [
            [g.choice(n, size, replace=self.replacement, shuffle=False) for g in key.generators(purpose)]
            for purpose in ("minibatch", "second minibatch")
        ]
        shares = np.repeat([(1 + root) / (2 * size), (1 - root) / (2 * size)], size)
        indices = torch.as_tensor(np.concatenate(drawn, axis=1)).to(landscape.device)
        coefficients = torch.as_tensor(shares).to(landscape.device, landscape.dtype)
        return SampleWeights(coefficients.expand(indices.shape), indices), memory

    def strength(self, memory: Any, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        return self.amplification * super().strength(memory, landscape, weights, sample_trace)
