"""The Hessian of a landscape at one point as an operator, over the parameters that are measured."""

from __future__ import annotations

import torch
from torch import Tensor

from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients.derivative import GradientDerivative
from langevin_nn.landscape import Landscape, NetworkLandscape
from langevin_nn.operators import SymmetricOperator

__all__ = ["Hessian"]


class Hessian(SymmetricOperator):
    """∇²L(w), known through its products with vectors.

    Products are derivatives of the gradient along a vector (Pearlmutter 1994, doi 10.1162/neco.1994.6.1.147), in the
    precision of the landscape; a network's are found by going back through the graph of its gradient, which is kept where it
    fits into the budget. Where a landscape restricts measurements to some tensors, so does this: it is then the block
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
        self._derivative: GradientDerivative | None = None
        self._columns: Tensor | None = None
        if isinstance(landscape, NetworkLandscape) and not landscape.measures_everything:
            self._columns = landscape.measured_columns
        self.size = landscape.n_parameters if self._columns is None else len(self._columns)

    def apply(self, vectors: Tensor) -> Tensor:  # noqa: D102
        full = vectors.to(self._landscape.dtype)
        if self._columns is not None:
            full = full.new_zeros(len(vectors), self._landscape.n_parameters).index_copy_(1, self._columns, full)
        products = self._products(full)
        return products if self._columns is None else products[:, self._columns]

    def _products(self, vectors: Tensor) -> Tensor:
        if isinstance(self._landscape, NetworkLandscape):
            if self._derivative is None:
                limit = self._memory_limit
                self._derivative = self._landscape.gradient_derivative(self._weights, self._replica, memory_limit=limit)
            return self._derivative(vectors)
        rows = [self._landscape.hessian_product(self._weights[None], vector[None]) for vector in vectors]
        return torch.cat([row.double() for row in rows])
