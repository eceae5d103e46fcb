"""SVAG: minibatch noise of any time step, which becomes that of the stochastic differential equation."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isclose, sqrt
from typing import Any

import numpy as np
from torch import Tensor

from langevin_nn.checks import whole_number
from langevin_nn.draws import Draws
from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape import Landscape
from langevin_nn.noise.base import SampleWeightNoise, SampleWeights

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
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.landscape import LinearRegressionLandscape
    >>> landscape = LinearRegressionLandscape([[1.0], [1.0]], [-1.0, 1.0])
    >>> process = Process(landscape, SVAG(1, amplification=4), learning_rate=0.1, time_step=0.025)
    >>> state = advance(process, process.start(replicas=3_000, seed=0), steps=4)
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
        """Return 1/l, whatever the learning rate: the covariance of one update is l C."""
        return 1 / self.amplification

    def check_rates(self, learning_rate: float, time_step: float) -> None:  # noqa: D102
        if not isclose(time_step * self.amplification, learning_rate, rel_tol=1e-6):
            raise ConfigurationError(
                f"time_step={time_step:g} at learning_rate={learning_rate:g} with SVAG of amplification "
                f"{self.amplification}: expected {learning_rate / self.amplification:g} = learning_rate/amplification, for "
                "which the two minibatches are weighted; use svag(...), which sets it"
            )

    def sample_weights(self, n_samples: int, memory: None, draws: Draws, steps: int) -> tuple[SampleWeights, None]:  # noqa: D102
        size, root = self.batch_size, sqrt(2 * self.amplification - 1)
        # The first is that of `IndependentMinibatches`, so that l = 1 is the same run. NumPy's wherever it runs: files of
        # such runs do not say that they were drawn otherwise.
        drawn = [
            [
                g.choice(n_samples, size, replace=self.replacement, shuffle=False)
                for g in draws.generators(purpose, steps)
            ]
            for purpose in ("minibatch", "second minibatch")
        ]
        shares = np.repeat([(1 + root) / (2 * size), (1 - root) / (2 * size)], size)
        indices = draws.tensor(np.concatenate(drawn, axis=1).reshape(steps, -1, 2 * size))
        return SampleWeights(draws.tensor(shares).expand(indices.shape), indices), memory

    def strength(self, memory: Any, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        return self.amplification * super().strength(memory, landscape, weights, sample_trace)
