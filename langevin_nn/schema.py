"""What a variable of a file is, and after what clocks are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langevin_nn.checks import instance
from langevin_nn.errors import ConfigurationError
from langevin_nn.former import found_elsewhere

__all__ = [
    "COHORTS",
    "COHORT_PAIRS",
    "SCHEMA_VERSION",
    "Coordinate",
    "Variable",
    "clock_of_group",
    "is_clock",
]

SCHEMA_VERSION = "1.2"

COHORTS = ("all", "correct", "mislabeled")
COHORT_PAIRS = ("correct_mislabeled", "all_correct", "all_mislabeled")

# Groups with a clock that is not called after them.
_CLOCKS = {"": "step", "spectrum": "spectrum_step", "samples": "sample_step", "weights": "weight_step"}
_SUFFIX = "_step"


def clock_of_group(group: str) -> str:
    """Return the dimension along which a group is recorded; "" is the root.

    Returns
    -------
    str
        Which says of itself that it is a clock.

    Examples
    --------
    >>> clock_of_group(""), clock_of_group("samples"), clock_of_group("layers")
    ('step', 'sample_step', 'layers_step')
    """
    return _CLOCKS.get(group, f"{group}{_SUFFIX}")


def is_clock(dimension: object) -> bool:
    """Return whether records lie along a dimension, which its name says."""
    return str(dimension) == _CLOCKS[""] or str(dimension).endswith(_SUFFIX)


def _name(what: str, value: Any) -> None:
    """Raise unless a name can be one in a file and an attribute in Python."""
    if not isinstance(value, str) or not value.isidentifier():
        raise ConfigurationError(
            f"{what} is {value!r}: expected letters, digits and underscores, since it becomes a name in a file and in Python"
        )


@dataclass(frozen=True)
class Variable:
    """What one recorded variable is.

    Parameters
    ----------
    name : str
        As in files.
    long_name : str
        As on an axis.
    dimensions : tuple of str, optional
        Besides ``replica`` and the group's clock.
    units : str, optional
        "1" where it has none.
    group : str, optional
        Group of the file; "" is the root.
    timeless : bool, optional
        Whether it is the same at all times.

    Raises
    ------
    ConfigurationError
        If a name cannot be one.

    Examples
    --------
    >>> Variable("norm", "norm of a layer's weights", ("layer",), "weight", "layers").recorded_dimensions
    ('replica', 'layers_step', 'layer')
    """

    name: str
    long_name: str
    dimensions: tuple[str, ...] = ()
    units: str = "1"
    group: str = ""
    timeless: bool = False

    def __post_init__(self) -> None:
        _name("the name of a variable", self.name)
        for text, value in (("long_name", self.long_name), ("units", self.units)):
            instance(f"{text} of {self.name!r}", value, str, "text, which a file carries with its numbers")
        given: Any = self.dimensions
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise ConfigurationError(
                f"dimensions of {self.name!r} are {self.dimensions!r}: expected a tuple of names, one an axis; write "
                "('layer',) for one"
            )
        object.__setattr__(self, "dimensions", tuple(self.dimensions))
        for each in self.dimensions:
            _name(f"a dimension of {self.name!r}", each)
        if self.group:
            _name(f"the group of {self.name!r}", self.group)

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the netCDF variable."""
        return {"long_name": self.long_name, "units": self.units}

    @property
    def clock(self) -> str:
        """The dimension along which it is recorded, which its group has and is called after."""
        return clock_of_group(self.group)

    @property
    def recorded_dimensions(self) -> tuple[str, ...]:
        """All of its dimensions in the file of one process."""
        return ("replica", *(() if self.timeless else (self.clock,)), *self.dimensions)


@dataclass(frozen=True, eq=False)
class Coordinate:
    """Labels of a dimension.

    Parameters
    ----------
    values : array-like, shape (size,)
        Numbers or text, one a position.
    long_name : str
        As on an axis.
    units : str, optional
        "1" where it has none.
    """

    values: Any
    long_name: str
    units: str = "1"

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the netCDF variable."""
        return {"long_name": self.long_name, "units": self.units}


__getattr__ = found_elsewhere(__name__, {"describe": "langevin_nn.observables"})
