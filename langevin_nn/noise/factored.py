"""Noise F(x) ζ: a factor times numbers that a law draws, the same ones whichever way a process advances."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin_nn.checks import numbers
from langevin_nn.errors import ConfigurationError
from langevin_nn.evaluation import evaluate
from langevin_nn.formulas import NoiseFormula
from langevin_nn.landscape import Landscape
from langevin_nn.noise.base import AdditiveNoise
from langevin_nn.seeds import Key

__all__ = ["PURPOSE", "FactoredNoise", "checked_factor"]

# The stream of random numbers that all noise of this family draws from.
PURPOSE = "factored noise"


def checked_factor(name: str, value: Any, dimensions: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a factor as a read-only array of finite numbers, of one of these dimensionalities, or raise."""
    wanted = " or ".join({0: "a number", 1: "(parameter,)", 2: "(parameter, rank)"}[each] for each in dimensions)
    expected = f"an array of finite numbers, {wanted}, since it multiplies the noise; pass a NumPy array or a tensor"
    array = np.asarray(numbers(name, value, expected), order="C")  # as a file gives it back: products round by layout
    if array.ndim not in dimensions:
        raise ConfigurationError(
            f"{name} has shape {array.shape}: expected {wanted}, since it multiplies the noise; reshape it"
        )
    if array.size == 0:
        raise ConfigurationError(
            f"{name} of shape {array.shape} has no numbers: expected some; noise that is none is Silent()"
        )
    array.flags.writeable = False
    return array


def drawn_in(weights: Tensor) -> type:
    """Return the precision in which numbers are drawn: that of the weights where it is single, else double."""
    return np.float32 if weights.dtype == torch.float32 else np.float64


class FactoredNoise(AdditiveNoise):
    """η = F(x) ζ, with ζ ~ N(0, 1) unless a law says otherwise."""

    @abstractmethod
    def formula(self, landscape: Landscape) -> NoiseFormula:  # noqa: D102
        ...

    def dependence(self, landscape: Landscape) -> Literal["constant", "diagonal", "full"]:  # noqa: D102
        return self.formula(landscape).dependence

    def check(self, landscape: Landscape) -> None:  # noqa: D102
        super().check(landscape)
        noise = self.formula(landscape)
        if noise.factor.size and len(noise.factor) != landscape.n_parameters:
            raise ConfigurationError(
                f"the noise factor has {len(noise.factor)} rows: expected {landscape.n_parameters}, one a parameter of the "
                "landscape; choose another factor or landscape"
            )

    def _amplitudes(self, landscape: Landscape, weights: Tensor) -> NDArray[np.float64]:
        """Return F, shape (parameter,) or (parameter, rank), with the replica first where it depends on the weights."""
        noise = self.formula(landscape)
        if noise.factor.size:
            return noise.factor[:, 0] if noise.is_diagonal else noise.factor
        shape = (noise.rank,) if noise.is_diagonal else (weights.shape[1], noise.rank)
        values = evaluate(noise.field, weights.double().cpu().numpy(), int(np.prod(shape)))
        return values.reshape(len(weights), *shape)

    def _driving(self, landscape: Landscape, weights: Tensor, memory: Any, key: Key) -> tuple[NDArray[Any], Any]:
        """Return ζ of one update, shape (replica, rank)."""
        rank = self.formula(landscape).rank
        return key.counted_normals(PURPOSE, rank, drawn_in(weights)), memory

    def increment(self, landscape: Landscape, weights: Tensor, memory: Any, key: Key) -> tuple[Tensor, Any]:  # noqa: D102
        driving, memory = self._driving(landscape, weights, memory, key)
        amplitudes = self._amplitudes(landscape, weights)
        if self.formula(landscape).is_diagonal:
            noise = amplitudes * driving
        else:
            noise = np.einsum("...pr,...r->...p", amplitudes, driving)
        return torch.as_tensor(noise).to(weights), memory

    def strength(self, memory: Any, landscape: Landscape, weights: Tensor, sample_trace: Tensor | None) -> Tensor:  # noqa: D102
        squared = torch.as_tensor(np.array(self._amplitudes(landscape, weights))).square()
        constant = self.formula(landscape).factor.size > 0
        return squared.sum()[None] if constant else squared.flatten(1).sum(1)
