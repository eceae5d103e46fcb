"""The Hessian of a landscape at one point as an operator, over the parameters that are measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from langevin_nn.errors import ConfigurationError
from langevin_nn.landscape.base import Landscape
from langevin_nn.landscape.network import NetworkLandscape
from langevin_nn.operators import SymmetricOperator

__all__ = ["Hessian"]


class Hessian(SymmetricOperator):
    """∇²L(w), known through its products with vectors.

    Products are forward-over-reverse derivatives of the loss (Pearlmutter 1994, doi 10.1162/neco.1994.6.1.147), in the
    precision of the landscape. Where a landscape restricts measurements to some tensors, so does this: it is then the block
    of the Hessian that belongs to them, over the same coordinates as the noise covariance.

    Parameters
    ----------
    landscape : Landscape
        Whose loss.
    weights : Tensor, shape (parameter,)
        Where.
    replica : int, optional
        Whose labels, where labels differ between replicas.
    memory_limit : int or str, optional
        Budget in bytes or as ``"512 MiB"``, 1 GiB unless said: the samples of a network are gone through in pieces.

    Raises
    ------
    ConfigurationError
        If the weights are not one point of weight space.

    Examples
    --------
    >>> import numpy as np
    >>> from langevin_nn.landscape import QuadraticLandscape
    >>> from langevin_nn.operators import leading_eigenpairs
    >>> valley = QuadraticLandscape(np.diag([1.0, 4.0]), np.eye(2))
    >>> leading_eigenpairs(Hessian(valley, torch.zeros(2)), n_modes=1).values
    array([4.])
    """

    def __init__(
        self,
        landscape: Landscape,
        weights: Tensor,
        replica: int = 0,
        *,
        memory_limit: int | float | str | None = None,
    ) -> None:
        if tuple(weights.shape) != (landscape.n_parameters,):
            raise ConfigurationError(
                f"weights have shape {tuple(weights.shape)}: expected ({landscape.n_parameters},), one point of weight space"
            )
        self._landscape, self._weights = landscape, weights.to(landscape.device, landscape.dtype)
        self._replica, self._memory_limit = replica, memory_limit
        self.device = landscape.device
        self._columns: Tensor | None = None
        if isinstance(landscape, NetworkLandscape) and not landscape.measures_everything:
            self._columns = landscape.measured_columns
        self.size = landscape.n_parameters if self._columns is None else len(self._columns)

    def apply(self, vectors: Tensor) -> Tensor:  # noqa: D102
        full = vectors.to(self._landscape.dtype)
        if self._columns is not None:
            full = full.new_zeros(len(vectors), self._landscape.n_parameters).index_copy_(1, self._columns, full)
        products = torch.empty(full.shape, dtype=torch.float64, device=self.device)
        for row, vector in zip(products, full, strict=True):
            row[:] = self._product(vector)
        return products if self._columns is None else products[:, self._columns]

    def _product(self, vector: Tensor) -> Tensor:
        options: dict[str, Any] = {}
        if isinstance(self._landscape, NetworkLandscape):
            options = {"replica": self._replica, "memory_limit": self._memory_limit}
        return self._landscape.hessian_product(self._weights[None], vector[None], **options)[0].double()
