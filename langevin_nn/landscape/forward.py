"""The loss of a network as one update sees it: through one random forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from torch import Tensor

from langevin_nn.errors import ConfigurationError, SampleMixingError
from langevin_nn.gradients.forward import ForwardChange
from langevin_nn.landscape.base import EmpiricalLandscape
from langevin_nn.seeds import Seeds

if TYPE_CHECKING:
    from langevin_nn.landscape.network import NetworkLandscape

__all__ = ["ForwardPass"]


class ForwardPass(EmpiricalLandscape):
    """A network's loss through one random forward pass of each replica, whose numbers are fixed by their seeds.

    What is drawn belongs to the samples that come together: a weighted gradient over a minibatch draws for its rows alone, in
    their order. Made by `NetworkLandscape.through`.

    Parameters
    ----------
    landscape : NetworkLandscape
        Whose deterministic loss it is without the changes.
    changes : tuple of (ForwardChange, tuple of int)
        What is changed, and with which number the generator of each replica is seeded.
    """

    def __init__(
        self, landscape: NetworkLandscape, changes: tuple[tuple[ForwardChange, tuple[int, ...]], ...] = ()
    ) -> None:
        self.landscape, self._changes = landscape, changes
        self.n_parameters, self.n_samples = landscape.n_parameters, landscape.n_samples
        self.dtype, self.device = landscape.dtype, landscape.device

    def through(self, change: ForwardChange, seeds: Sequence[int]) -> ForwardPass:
        """Return the loss with one more change.

        Parameters
        ----------
        change : ForwardChange
            What the pass does otherwise.
        seeds : sequence of int
            With which number the generator of each replica is seeded.

        Returns
        -------
        ForwardPass
            Samples are changed in this order.
        """
        return ForwardPass(self.landscape, (*self._changes, (change, tuple(seeds))))

    def initial_weights(self, replicas: tuple[int, ...], seeds: Seeds) -> Tensor:  # noqa: D102
        return self.landscape.initial_weights(replicas, seeds)

    def sample_losses(self, weights: Tensor) -> Tensor:  # noqa: D102
        landscape = self.landscape
        return landscape.forward_gradient.losses(self._changes, weights, landscape.inputs, landscape.labels)

    def weighted_gradient(self, weights: Tensor, coefficients: Tensor, indices: Tensor | None = None) -> Tensor:  # noqa: D102
        landscape = self.landscape
        if len(landscape.labels) not in (1, len(weights)):
            raise ConfigurationError(
                f"labels are given for {len(landscape.labels)} replicas, weights for {len(weights)}: expected as many, or "
                "labels that all replicas share"
            )
        return landscape.forward_gradient.through(
            self._changes,
            weights.to(self.dtype),
            landscape.inputs,
            landscape.labels,
            coefficients.to(self.dtype),
            indices,
        )

    def sample_gradients(  # noqa: D102
        self,
        weights: Tensor,
        replica: int = 0,
        *,
        everywhere: bool = False,
        memory_limit: int | float | str | None = None,
        samples: Tensor | None = None,
    ) -> NoReturn:
        mixing = [name for change, _ in self._changes for name in change.batch_statistics]
        if mixing:
            raise SampleMixingError(
                f"layer {mixing[0]!r} normalises over the minibatch: sample gradients, and with them every order parameter, "
                "are undefined there; measure those of the landscape itself, whose layers are in evaluation mode, or take "
                "GroupNorm or LayerNorm in their place"
            )
        raise ConfigurationError(
            "sample gradients of one random forward pass were asked for: expected those of the landscape itself, since what "
            "is drawn belongs to the samples that come together; noise_shares(...) measures what the pass adds"
        )

    def hessian_product(self, weights: Tensor, vectors: Tensor) -> NoReturn:  # noqa: D102
        raise ConfigurationError(
            "the Hessian of one random forward pass was asked for: expected that of the landscape itself; use its "
            "hessian_product"
        )
