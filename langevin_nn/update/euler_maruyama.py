"""The Euler–Maruyama scheme for surrogates, in a Numba kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langevin_nn.drift import GradientDrift
from langevin_nn.errors import ConfigurationError
from langevin_nn.noise import AnisotropicNoise
from langevin_nn.noise.anisotropic import STEPS_PER_BLOCK, normal_block
from langevin_nn.update.base import Dynamics, Update
from langevin_nn.update.state import State

__all__ = ["EulerMaruyama"]


@dataclass(frozen=True)
class EulerMaruyama(Update):
    """w ← w − Δt ∇L(w) − √(α Δt) F ξ, compiled: blocks of steps without returning to Python.

    Discretises dw = −∇L dt + √(α) F dW (Maruyama 1955, doi 10.1007/BF02846028; Kloeden & Platen 1992, section 10.2,
    doi 10.1007/978-3-662-12616-5). Constant noise makes its strong order 1.
    """

    strong_order = 1.0
    weak_order = 1.0

    def check(self, process: Dynamics) -> None:
        """Raise unless drift and noise are ones that the kernel knows.

        Parameters
        ----------
        process : Dynamics
            With its drift and noise.

        Raises
        ------
        ConfigurationError
            If the gradient is not compiled or the noise not constant.
        """
        compiled = isinstance(process.drift, GradientDrift) and hasattr(process.drift.landscape, "compiled_gradient")
        if not compiled or not isinstance(process.noise, AnisotropicNoise):
            raise ConfigurationError(
                f"EulerMaruyama runs a compiled gradient with AnisotropicNoise, got {type(process.drift).__name__} and "
                f"{type(process.noise).__name__}: use Plain, the same scheme for any drift and noise, or a landscape with "
                "compiled_gradient()"
            )

    def apply(  # noqa: D102
        self, weights: Tensor, memory: None, gradient: Tensor, learning_rate: float, time_step: float
    ) -> tuple[Tensor, Any]:
        return torch.add(weights, gradient, alpha=-time_step), memory

    def advance(self, process: Dynamics, state: State, steps: int) -> State:  # noqa: D102
        from langevin_nn.kernels.langevin import euler_maruyama  # loads the compiler, which few runs need

        assert isinstance(process.drift, GradientDrift)
        assert isinstance(process.noise, AnisotropicNoise)
        gradient, data = process.drift.landscape.compiled_gradient()  # type: ignore[attr-defined]
        factor = np.ascontiguousarray(process.noise.factor.double().numpy())
        positions = np.array(state.weights.numpy(), dtype=np.float64, order="C")
        noise_scale = (process.learning_rate * process.time_step) ** 0.5
        step, end = state.step, state.step + steps
        while step < end:
            block, offset = divmod(step, STEPS_PER_BLOCK)
            count = min(STEPS_PER_BLOCK - offset, end - step)
            normals = normal_block(state.seeds, state.replicas, block, factor.shape[1])
            chosen = np.array(normals[:, offset : offset + count], order="C")
            before = positions.copy()
            failed = euler_maruyama(gradient, data, positions, chosen, factor, process.time_step, noise_scale)
            fresh = (failed >= 0) & ~state.diverged.numpy()
            if fresh.any():
                # The others have run on to the end of the block: bring all to the moment of the first failure.
                count = int(failed[fresh].min()) + 1
                shorter, positions = np.array(chosen[:, :count], order="C"), before
                euler_maruyama(gradient, data, positions, shorter, factor, process.time_step, noise_scale)
                at_failure = torch.as_tensor(positions)
                return state.replaced(step + count, at_failure, None, None, ~torch.isfinite(at_failure.sum(1)))
            step += count
        return state.replaced(end, torch.as_tensor(positions), None, None, state.diverged)
