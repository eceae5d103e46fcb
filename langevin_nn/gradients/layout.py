"""How named tensors of parameters lie in one flat vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

import torch
from torch import Tensor

from langevin_nn.errors import ConfigurationError, UnknownNameError

__all__ = ["ParameterLayout"]


@dataclass(frozen=True)
class ParameterLayout:
    """Names, shapes and order of the tensors of a network.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        Shape of each tensor, in the order in which they are concatenated.

    Examples
    --------
    >>> layout = ParameterLayout.of(torch.nn.Linear(3, 2))
    >>> layout.n_parameters
    8
    >>> {name: tuple(tensor.shape) for name, tensor in layout.split(torch.zeros(4, 8)).items()}
    {'weight': (4, 2, 3), 'bias': (4, 2)}
    """

    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, module: torch.nn.Module) -> ParameterLayout:
        """Return the layout of a network's parameters.

        Parameters
        ----------
        module : torch.nn.Module
            The network.

        Returns
        -------
        ParameterLayout
            In the order of ``module.named_parameters()``; shared tensors once.
        """
        return cls({name: tuple(tensor.shape) for name, tensor in module.named_parameters()})

    @property
    def n_parameters(self) -> int:
        """Length of the flat vector."""
        return sum(prod(shape) for shape in self.shapes.values())

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views of a flat vector, by name.

        Parameters
        ----------
        flat : Tensor, shape (..., parameter)
            Weights, or anything with one number a parameter.

        Returns
        -------
        dict of str to Tensor, shapes (..., *shape of the tensor)
            In the order of the layout.
        """
        sizes = [prod(shape) for shape in self.shapes.values()]
        pieces = torch.split(flat, sizes, dim=-1)
        return {
            name: piece.reshape((*flat.shape[:-1], *shape))
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Concatenate one network's tensors.

        Parameters
        ----------
        tensors : dict of str to Tensor
            One tensor of each name.

        Returns
        -------
        Tensor, shape (parameter,)
            Their values in the order of the layout.
        """
        return torch.cat([tensors[name].reshape(-1) for name in self.shapes])

    def matching(self, patterns: str | Iterable[str]) -> tuple[str, ...]:
        """Return the names that match any of the patterns.

        Parameters
        ----------
        patterns : str or iterable of str
            Names with the wildcards ``*`` and ``?``: ``"2.weight"``, ``"*.weight"``, ``"*"`` for all.

        Returns
        -------
        tuple of str
            In the order of the layout.

        Raises
        ------
        UnknownNameError
            If a pattern matches nothing.
        ConfigurationError
            If there is no pattern.
        """
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        if not patterns:
            raise ConfigurationError(
                "parameters=() names no tensor: expected at least one pattern, since measurements need gradients of "
                'something; leave it out, or pass "*", for all'
            )
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in self.shapes):
                raise UnknownNameError("parameter pattern", pattern, self.shapes)
        return tuple(name for name in self.shapes if any(fnmatchcase(name, p) for p in patterns))
