"""The gradient of a landscape as drift, and sums of drifts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from langevin_nn.checks import instance
from langevin_nn.errors import ConfigurationError
from langevin_nn.former import RenamedMethods
from langevin_nn.formulas import MAXIMUM_TERMS, FieldFormula
from langevin_nn.landscape import Landscape
from langevin_nn.readable import Readable

__all__ = ["Drift", "GradientDrift", "SumDrift"]


class Drift(RenamedMethods, Readable, ABC):
    """A deterministic field on weight space, pointing uphill as a gradient does; drifts add with ``+``."""

    @abstractmethod
    def __call__(self, weights: Tensor) -> Tensor:
        """Return the field.

        Parameters
        ----------
        weights : Tensor, shape (replica, parameter)
            Where.

        Returns
        -------
        Tensor, shape (replica, parameter)
            What an update subtracts, times the time step.
        """

    @property
    def n_parameters(self) -> int | None:
        """P; None where any will do."""
        return None

    def formula(self) -> tuple[FieldFormula, ...]:
        """Return what the field is made of, for the integrators.

        Returns
        -------
        tuple of FieldFormula
            Its terms.

        Raises
        ------
        ConfigurationError
            If it says none.
        """  # noqa: DOC202
        raise ConfigurationError(
            f"{type(self).__name__} has no formula: expected a drift of built-in terms or of a landscape with a "
            "formula of its gradient; use update=Plain(), the Euler–Maruyama scheme for any drift and noise"
        )

    def __add__(self, other: Drift) -> SumDrift:
        return SumDrift((*_terms(self), *_terms(other)))


def _terms(drift: Drift) -> tuple[Drift, ...]:
    return drift.terms if isinstance(drift, SumDrift) else (drift,)


@dataclass(frozen=True)
class GradientDrift(Drift):
    """∇L of a landscape, which need not be the one that the noise comes from.

    Parameters
    ----------
    landscape : Landscape
        Whose gradient.

    Raises
    ------
    ConfigurationError
        If it is no landscape.
    """

    landscape: Landscape

    def __post_init__(self) -> None:
        instance("landscape", self.landscape, Landscape, "a Landscape, whose gradient is the drift")

    def __call__(self, weights: Tensor) -> Tensor:  # noqa: D102
        return self.landscape.gradient(weights)

    @property
    def n_parameters(self) -> int:
        """That of the landscape."""
        return self.landscape.n_parameters

    def formula(self) -> tuple[FieldFormula, ...]:  # noqa: D102
        return (self.landscape.gradient_formula(),)


@dataclass(frozen=True)
class SumDrift(Drift):
    """The sum of several fields; the integrators take at most three.

    Parameters
    ----------
    terms : tuple of Drift
        What is added.

    Raises
    ------
    ConfigurationError
        If there is none, one is no drift, or their dimensions differ.
    """

    terms: tuple[Drift, ...]

    def __post_init__(self) -> None:
        instance("terms", self.terms, (tuple, list), "a tuple of Drift, what is added")
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms:
            raise ConfigurationError("a sum of no drifts came: expected at least one term")
        for each in self.terms:
            instance("a term of the sum", each, Drift, "a Drift")
        sizes = {each.n_parameters for each in self.terms} - {None}
        if len(sizes) > 1:
            known = " and ".join(str(size) for size in sizes)
            raise ConfigurationError(
                f"drifts of {known} parameters are added: expected the same number, since they move the same weights"
            )

    def __call__(self, weights: Tensor) -> Tensor:  # noqa: D102
        total = self.terms[0](weights)
        for each in self.terms[1:]:
            total = total + each(weights)
        return total

    @property
    def n_parameters(self) -> int | None:
        """That of its terms."""
        known = [each.n_parameters for each in self.terms if each.n_parameters is not None]
        return known[0] if known else None

    def formula(self) -> tuple[FieldFormula, ...]:  # noqa: D102
        fields = tuple(field for each in self.terms for field in each.formula())
        if len(fields) > MAXIMUM_TERMS:
            raise ConfigurationError(
                f"a sum of {len(fields)} drifts came: expected at most {MAXIMUM_TERMS} for the integrators; put "
                "some of them into one function, or use update=Plain()"
            )
        return fields
