"""Gradient ensembles at the weights of several replicas, one after the other within one budget of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import xarray as xr

from langevin_nn.ensemble.base import GradientEnsemble
from langevin_nn.errors import ConfigurationError

__all__ = ["ReplicaEnsembles"]


class ReplicaEnsembles(Sequence[GradientEnsemble]):
    """The ensembles at weights of shape (replica, parameter), a sequence.

    An ensemble is computed when it is asked for and not kept, so that all of them together take the memory of one.
    Datasets are those of `GradientEnsemble`, with the dimension ``replica`` first.

    Parameters
    ----------
    make : callable
        Position → the ensemble of that replica.
    n_replicas : int
        How many.
    """

    def __init__(self, make: Callable[[int], GradientEnsemble], n_replicas: int) -> None:
        self._make, self._n = make, n_replicas

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> GradientEnsemble: ...

    @overload
    def __getitem__(self, index: slice) -> ReplicaEnsembles: ...

    def __getitem__(self, index: int | slice) -> GradientEnsemble | ReplicaEnsembles:
        positions = range(self._n)[index]
        if isinstance(positions, range):
            return ReplicaEnsembles(lambda position: self._make(positions[position]), len(positions))
        return self._make(positions)

    def map(self, measure: Callable[[GradientEnsemble], xr.Dataset]) -> xr.Dataset:
        """Return what a function of an ensemble gives for each replica.

        Parameters
        ----------
        measure : callable
            Ensemble → dataset.

        Returns
        -------
        xarray.Dataset
            Concatenated along ``replica``.
        """
        return xr.concat(
            [measure(ensemble) for ensemble in self], dim="replica", join="override", combine_attrs="override"
        )

    def order_parameters(
        self, generators: Sequence[np.random.Generator] | None = None, n_minibatches: int = 64
    ) -> xr.Dataset:
        """Return all order parameters of all replicas.

        Parameters
        ----------
        generators : sequence of numpy.random.Generator, optional
            One a replica, to draw the minibatches for R; without them R is left out.
        n_minibatches : int, optional
            How many independent minibatches.

        Returns
        -------
        xarray.Dataset
            Dimensions ``replica``, ``cohort`` and ``cohort_pair``.

        Raises
        ------
        ConfigurationError
            If there is not one generator a replica.
        """
        if generators is None:
            return self.map(lambda ensemble: ensemble.order_parameters())
        drawing = list(generators)
        if len(drawing) != self._n:
            raise ConfigurationError(
                f"{len(drawing)} generators came for {self._n} replicas: expected one each, so that a replica's R does not "
                "depend on the others; make them with Seeds(seed).generator('alignment', replica)"
            )
        each = iter(drawing)
        return self.map(lambda ensemble: ensemble.order_parameters(next(each), n_minibatches))

    def by_layer(self) -> xr.Dataset:
        """Return the order parameters within each layer.

        Returns
        -------
        xarray.Dataset
            Dimensions ``replica``, ``layer`` and ``cohort``.
        """
        return self.map(lambda ensemble: ensemble.by_layer())

    def spectrum(self, n_modes: int | None = None, **options: Any) -> xr.Dataset:
        """Return the noise spectra.

        Parameters
        ----------
        n_modes : int, optional
            How many leading eigenvalues; all unless said.
        **options : object
            As those of `GradientEnsemble.spectrum`.

        Returns
        -------
        xarray.Dataset
            Dimensions ``replica`` and ``mode``.
        """
        return self.map(lambda ensemble: ensemble.spectrum(n_modes, **options))
