"""What replicas of a network can share: what computes their weighted gradients, samples, labels."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients.functional import Loss
from langevin_nn.gradients.samples import Samples, leaves, number_of, taken
from langevin_nn.provenance import digest, told

__all__ = ["Descent", "GradientPath", "Kept", "Problem", "WeightedGradient", "identity_of", "joined"]

# Weights (replica, parameter), all inputs (sample, ...), labels (replica or 1, sample, ...), coefficients (replica, row) and
# the samples that they weigh (replica, row), None for all in order → Σ_k c_k ∇ℓ_k (replica, parameter).
WeightedGradient = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]
# Updates v ← μv + g + λw, w ← w − Δt v, g the mean gradient over each minibatch: weights and velocities (replica, parameter),
# all inputs and labels, indices (replica, step, row), Δt (replica,), μ and λ → weights and velocities.
Descent = Callable[..., tuple[Tensor, Tensor]]


class Kept(dict[Any, Any]):
    """What is kept for use again by an object and its shallow copies; pickles and deep copies begin without."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()


@dataclass(frozen=True, eq=False)
class GradientPath:
    """How weighted gradients Σ_k c_k ∇ℓ_k of a network are computed; all ways agree to rounding."""

    name: str  # as files have it
    function: WeightedGradient
    capturable: (
        WeightedGradient | None
    )  # in operations that neither check their arguments nor wait for a device, if any
    descend: Descent | None = None  # a kernel for whole blocks of updates, where there is one
    kept: Kept = field(default_factory=Kept)  # for what was captured with it


@dataclass(frozen=True, eq=False)
class Problem:
    """What computes weighted gradients, with the samples and their labels.

    Parameters
    ----------
    path : GradientPath
        What computes.
    inputs : Tensor, shape (sample, ...)
        All samples.
    labels : Tensor, shape (replica or 1, sample, ...)
        Their labels.
    identity : str, optional
        Problems of equal identity differ in their labels only, and can be joined; without one it joins no other.
    rows_at_once : int, optional
        Of how many samples of a replica a pass may keep what it needs; of more, gradients are summed over pieces.
    """

    path: GradientPath
    inputs: Samples
    labels: Tensor
    identity: str | None = None
    rows_at_once: int = 2**62

    def weighted_gradient(self, weights: Tensor, coefficients: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return Σ_k c_k ∇ℓ_k(w).

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.
        coefficients : Tensor, shape (replica, row)
            The c_k of the samples in `indices`, or of all.
        indices : Tensor of int64 or None, shape (replica, row)
            Which samples; None for all, in order.

        Returns
        -------
        Tensor, shape (replica, parameter)
            The weighted sums.

        Raises
        ------
        ConfigurationError
            If shapes do not fit together, or there are no such samples.
        """
        if len(self.labels) not in (1, len(weights)):
            raise ConfigurationError(
                f"labels are given for {len(self.labels)} replicas, weights for {len(weights)}: expected as many, or labels "
                "that all replicas share"
            )
        expected = (len(weights), number_of(self.inputs) if indices is None else indices.shape[-1])
        for name, tensor in {"coefficients": coefficients, "indices": indices}.items():
            if tensor is not None and tuple(tensor.shape) != expected:
                raise ConfigurationError(f"{name} have shape {tuple(tensor.shape)}: expected (replica, …) = {expected}")
        self._check(indices)
        coefficients = coefficients.to(weights.dtype)
        if expected[1] <= self.rows_at_once:
            return self.path.function(weights, self.inputs, self.labels, coefficients, indices)
        total = torch.zeros_like(weights)
        for start in range(0, expected[1], self.rows_at_once):
            some = slice(start, start + self.rows_at_once)
            if indices is None:
                samples = taken(self.inputs, some), self.labels[:, some]
                total += self.path.function(weights, *samples, coefficients[:, some].contiguous(), None)
            else:
                total += self.path.function(
                    weights, self.inputs, self.labels, coefficients[:, some], indices[:, some].contiguous()
                )
        return total

    def descend(self, weights: Tensor, velocities: Tensor, indices: Tensor, *rates: Any) -> tuple[Tensor, Tensor]:
        """Make a block of minibatch updates by the path's kernel.

        Parameters
        ----------
        weights, velocities : Tensor, shape (replica, parameter)
            Before.
        indices : Tensor of int64, shape (replica, step, row)
            The samples of each minibatch.
        *rates : object
            Δt of each replica, μ and λ.

        Returns
        -------
        weights, velocities : Tensor, shape (replica, parameter)
            After.
        """
        assert self.path.descend is not None
        self._check(indices)
        return self.path.descend(weights, velocities, self.inputs, self.labels, indices, *rates)

    def _check(self, indices: Tensor | None) -> None:
        """Raise unless indices name samples: kernels read where they point."""
        if indices is None or not indices.numel():
            return
        first, last = int(indices.min()), int(indices.max())
        if first < 0 or last >= number_of(self.inputs):
            raise ConfigurationError(
                f"indices run from {first} to {last}: expected 0 to {number_of(self.inputs) - 1}, the training samples"
            )


def joined(problems: Sequence[Problem], replicas: Sequence[int]) -> Problem:
    """Return one problem for the replicas of several of equal identity.

    Parameters
    ----------
    problems : sequence of Problem
        Whose labels come one after the other; at least one.
    replicas : sequence of int
        How many replicas each of them has.

    Returns
    -------
    Problem
        With a row of labels for each replica; one problem alone stays as it is.
    """
    if len(problems) == 1:
        return problems[0]
    each = zip((problem.labels for problem in problems), replicas, strict=True)
    return replace(problems[0], labels=torch.cat([labels.expand(n, *labels.shape[1:]) for labels, n in each]))


def identity_of(path: GradientPath, module: nn.Module, loss: Loss, inputs: Samples, labels: Tensor) -> str | None:
    """Return what names a problem but for its labels: path, network, loss, inputs, precision and device.

    Parameters
    ----------
    path : GradientPath
        What computes.
    module : torch.nn.Module
        The network.
    loss : callable
        (outputs, labels) → one loss a sample.
    inputs, labels : Tensor
        As in `Problem`; of labels the shape counts.

    Returns
    -------
    str or None
        None where it cannot be said what the network is.
    """
    constants = _constants(module)
    if constants is None:
        return None
    first = next(module.parameters())
    same = (path.name, str(module), told(loss), first.dtype, first.device, labels.shape[2:])
    return f"{same} {constants} {digest(*leaves(inputs), *module.buffers())}"


def _constants(module: nn.Module) -> str | None:
    """Return a digest of what a network is but for its weights: numbers, names and types; None where it cannot be said."""
    found = hashlib.sha256()
    for name, each in module.named_modules():
        own = {key: value for key, value in vars(each).items() if key not in ("_parameters", "_buffers", "_modules")}
        try:
            found.update(pickle.dumps((name, type(each), sorted(own.items()))))
        except Exception:  # a user's own code says in its own way that it cannot be pickled
            return None
    return found.hexdigest()
