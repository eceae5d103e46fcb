"""Noise whose factor depends on the weights: a user's function, or the covariance that a landscape knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from langevin_nn.checks import kind_of, one_of, whole_number
from langevin_nn.errors import ConfigurationError
from langevin_nn.evaluation import evaluate
from langevin_nn.formulas import MATRIX, POINT, FieldFormula, NoiseFormula
from langevin_nn.landscape import Landscape
from langevin_nn.landscape.potential import MOST_COLUMNS, try_out
from langevin_nn.noise.factored import FactoredNoise
from langevin_nn.seeds import Seeds

__all__ = ["LandscapeNoise", "StateDependentNoise"]

Calculus = Literal["ito", "stratonovich"]


def _check_calculus(calculus: str) -> None:
    one_of("calculus", calculus, ("ito", "stratonovich"))


@dataclass(frozen=True, eq=False)
class StateDependentNoise(FactoredNoise):
    """η = F(x) ξ, ξ ~ N(0, 1), with F a function of the weights.

    Parameters
    ----------
    amplitude : callable
        ``amplitude(x, out)``, plain Python that Numba understands: reads one point, shape (parameter,), and writes the
        diagonal of F, shape (parameter,), or F, shape (parameter, rank). A diagonal is to depend on its own coordinate
        alone: out[i] on x[i].
    rank : int, optional
        Columns of F; a diagonal unless said.
    calculus : {"ito", "stratonovich"}, optional
        How the equation is to be read.

    Raises
    ------
    ConfigurationError
        If the amplitude is no function or the rank no positive whole number.

    Examples
    --------
    Geometric Brownian motion, whose mean grows with the drift alone in Itô's reading:

    >>> import numpy as np
    >>> from langevin_nn import Process, advance
    >>> from langevin_nn.drift import LinearDrift
    >>> from langevin_nn.landscape import PotentialLandscape
    >>> from langevin_nn.update import EulerMaruyama
    >>> def proportional(x, out):
    ...     out[0] = 0.5 * x[0]
    >>> flat = PotentialLandscape(lambda x: 0 * x[0], 1, start=[1.0])
    >>> process = Process(flat, StateDependentNoise(proportional), 0.01, update=EulerMaruyama())
    >>> state = advance(process, process.start(replicas=50_000, seed=1), steps=100)
    >>> round(float(state.weights.mean()), 2)
    1.0
    """

    amplitude: Callable[..., Any]
    rank: int | None = None
    calculus: Calculus = "ito"

    def __post_init__(self) -> None:
        _check_calculus(self.calculus)
        if not callable(self.amplitude):
            raise ConfigurationError(
                f"amplitude is {kind_of(self.amplitude)}: expected a function amplitude(x, out) that writes F at x into out; "
                "constant noise is DiagonalNoise or AnisotropicNoise"
            )
        if self.rank is not None:
            expected = "a whole number from 1, the columns of F; leave it out for a diagonal"
            object.__setattr__(self, "rank", whole_number("rank", self.rank, expected, least=1, most=MOST_COLUMNS))

    def formula(self, landscape: Landscape) -> NoiseFormula:  # noqa: D102
        kind = POINT if self.rank is None else MATRIX
        return NoiseFormula.dependent(FieldFormula(kind, self.amplitude), landscape.n_parameters, self.rank)

    def check(self, landscape: Landscape) -> None:  # noqa: D102
        start = landscape.initial_weights((0,), Seeds(0))[0].double().cpu().numpy()
        shape = (landscape.n_parameters,) if self.rank is None else (landscape.n_parameters, self.rank)
        try_out("amplitude", self.amplitude, start, shape)
        evaluate(self.formula(landscape).field, start[None], prod(shape))
        super().check(landscape)


@dataclass(frozen=True)
class LandscapeNoise(FactoredNoise):
    """η ~ N(0, C(x)) with the covariance that the landscape itself knows: that of its minibatches, where it has samples.

    Parameters
    ----------
    batch_size : int, optional
        B, where the landscape is made of samples.
    replacement : bool, optional
        Whether those minibatches are drawn with replacement.
    calculus : {"ito", "stratonovich"}, optional
        How the equation is to be read; that of minibatches is Itô's.
    """

    batch_size: int | None = None
    replacement: bool = False
    calculus: Calculus = "ito"

    def __post_init__(self) -> None:
        _check_calculus(self.calculus)

    def check(self, landscape: Landscape) -> None:  # noqa: D102
        super().check(landscape)
        if self.formula(landscape).rank == 0:
            raise ConfigurationError(
                f"this {type(landscape).__name__} has no noise of its own: expected one that was given an amplitude; use "
                "Silent() for none, or another source"
            )

    def formula(self, landscape: Landscape) -> NoiseFormula:  # noqa: D102
        return landscape.noise_formula(self.batch_size, self.replacement)
