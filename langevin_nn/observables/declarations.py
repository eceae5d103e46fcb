"""What the observables of a run declare, held against each other before it starts and against what they measure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from langevin_nn.checks import kind_of
from langevin_nn.errors import ConfigurationError
from langevin_nn.observables.variables import GROUPS, OWN
from langevin_nn.provenance import class_name
from langevin_nn.schema import COHORT_PAIRS, COHORTS, Coordinate, Variable, is_clock

if TYPE_CHECKING:
    from langevin_nn.observables.base import Observable
    from langevin_nn.process import Process

__all__ = ["Declarations", "declaration_of"]

# Attribute of a variable that is none of the package's own: what its observable said of it, as JSON.
_DECLARATION = "declaration"
# What a file has besides variables, and the dimensions that are added to those of one run.
_LABELLED = ("cohort", "cohort_pair", "mode")
_AXES = ("replica", "process", "point")
_COORDINATES = (*_AXES, "time", "epoch", "learning_rate", "effective_learning_rate", "update_count", "replica_of_file")
_TYPES = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])


@dataclass(frozen=True, eq=False)
class Declarations:
    """What may be recorded in a run.

    Parameters
    ----------
    variables : mapping of str to Variable
        By name.
    owners : mapping of str to str
        The class of the observable that declared each first.
    coordinates : mapping of str to Coordinate
        Labels by dimension.
    """

    variables: Mapping[str, Variable] = field(default_factory=lambda: OWN)
    owners: Mapping[str, str] = field(default_factory=dict)
    coordinates: Mapping[str, Coordinate] = field(default_factory=dict)

    @classmethod
    def of(cls, observables: Sequence[Observable], process: Process) -> Declarations:
        """Return what observables declare.

        Parameters
        ----------
        observables : sequence of Observable
            Of a run.
        process : Process
            What will run.

        Returns
        -------
        Declarations
            All of them.

        Raises
        ------
        ConfigurationError
            If one cannot be recorded, or two disagree.
        """
        variables: dict[str, Variable] = {}
        owners: dict[str, str] = {}
        coordinates: dict[str, Coordinate] = {}
        for observable in observables:
            owner = class_name(type(observable))
            for variable in _declared(observable, owner):
                _check_against_own(variable, owner)
                before = variables.setdefault(variable.name, variable)
                if before != variable:
                    raise ConfigurationError(
                        f"{owners[variable.name]} and {owner} both declare {variable.name!r} with other "
                        f"{_difference(before, variable)}: expected one meaning of a name in a file; rename one of them"
                    )
                owners.setdefault(variable.name, owner)
            for dimension, coordinate in _labels(observable, process, owner).items():
                other = coordinates.setdefault(dimension, coordinate)
                if other.attributes != coordinate.attributes or not np.array_equal(other.values, coordinate.values):
                    raise ConfigurationError(
                        f"{owner} labels the dimension {dimension!r} otherwise than another observable of the run: expected "
                        "one set of labels, since the groups of a file share their axes; rename one of the two dimensions"
                    )
        _check_names(variables, owners)
        return cls(variables, owners, coordinates)

    @property
    def foreign(self) -> tuple[str, ...]:
        """Names of variables that are none of the package's own."""
        return tuple(name for name in self.variables if name not in OWN)

    @property
    def sizes(self) -> dict[str, int]:
        """Those of dimensions that are known before anything is measured."""
        labelled = {name: len(each.values) for name, each in self.coordinates.items()}
        return {"cohort": len(COHORTS), "cohort_pair": len(COHORT_PAIRS), **labelled}

    def attributes(self, name: str) -> dict[str, str]:
        """Return the attributes that a variable has in a file.

        Parameters
        ----------
        name : str
            Of the variable.

        Returns
        -------
        dict of str to str
            Long name and units; of a variable that is not the package's own the whole declaration, too, by which the file
            can be held against it.
        """
        variable = self.variables[name]
        if name in OWN:
            return variable.attributes
        labelled = [each for each in variable.dimensions if each in self.coordinates]
        said = {**asdict(variable), "labelled": labelled, "observable": self.owners[name]}
        return {**variable.attributes, _DECLARATION: json.dumps(said, sort_keys=True, ensure_ascii=False)}

    def check(
        self, group: str, values: Mapping[str, Any], n_replicas: int, sizes: dict[str, int], timeless: bool = False
    ) -> None:
        """Raise unless what was measured is what was declared.

        Parameters
        ----------
        group : str
            Where it would be recorded.
        values : dict of str to ndarray, shapes (replica, ...)
            By name.
        n_replicas : int
            Of the run.
        sizes : dict of str to int
            Those of dimensions that are known; what is found out here is added.
        timeless : bool, optional
            Whether this was measured once for all times.

        Raises
        ------
        ConfigurationError
            Saying what was declared and what came.
        """
        for name, value in values.items():
            variable = self.variables.get(name)
            if variable is None:
                raise ConfigurationError(
                    f"an observable measured {name!r}, which none of the run declares: expected one of "
                    f"{', '.join(sorted(self.variables)) or 'none'}; add Variable({name!r}, long_name, dimensions, units) to "
                    "its `variables`"
                )
            if (variable.group, variable.timeless) != (group, timeless):
                raise ConfigurationError(
                    f"{name!r} was measured for group /{group}, {_when(timeless)}: expected group /{variable.group}, "
                    f"{_when(variable.timeless)}, as it is declared; declare what is measured"
                )
            if not isinstance(value, np.ndarray) or value.dtype.str[1:] not in _TYPES:
                came = f"of dtype {value.dtype}" if isinstance(value, np.ndarray) else kind_of(value)
                raise ConfigurationError(
                    f"{name!r} is {came}: expected a NumPy array of real numbers of at most 8 bytes, which netCDF holds; "
                    "convert it with np.asarray(..., dtype=np.float64)"
                )
            if value.ndim != 1 + len(variable.dimensions):
                raise ConfigurationError(
                    f"{name!r} has shape {value.shape}: expected ({', '.join(('replica', *variable.dimensions))}), as it is "
                    "declared; declare the dimensions that it has"
                )
            for dimension, size in zip(("replica", *variable.dimensions), value.shape, strict=True):
                expected = n_replicas if dimension == "replica" else sizes.setdefault(dimension, size)
                if size != expected:
                    raise ConfigurationError(
                        f"{name!r} has {size} along {dimension!r}: expected {expected}, as other variables or the labels of "
                        "that dimension have, since they share their axes; give it a dimension of its own"
                    )


def declaration_of(attributes: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Return what a file says that an observable declared of a variable.

    Parameters
    ----------
    attributes : mapping
        Of the variable.

    Returns
    -------
    dict or None
        None where it says nothing, as of the package's own; empty where it cannot be understood.
    """
    if _DECLARATION not in attributes:
        return None
    try:
        said = json.loads(str(attributes[_DECLARATION]))
        return {**said, "variable": Variable(**{each.name: said[each.name] for each in fields(Variable)})}
    except (ValueError, KeyError, TypeError):
        return {}


def _when(timeless: bool) -> str:
    return "the same at all times" if timeless else "at a time"


def _difference(one: Variable, other: Variable) -> str:
    names = [each.name for each in fields(Variable) if getattr(one, each.name) != getattr(other, each.name)]
    return ", ".join(f"{name} ({getattr(one, name)!r} and {getattr(other, name)!r})" for name in names)


def _declared(observable: Observable, owner: str) -> tuple[Variable, ...]:
    declared = observable.variables
    if not isinstance(declared, tuple) or not all(isinstance(each, Variable) for each in declared):
        raise ConfigurationError(
            f"variables of {owner} are {declared!r}: expected a tuple of Variable, what it records; write "
            "variables = (Variable(name, long_name, dimensions, units, group),)"
        )
    groups = {observable.group, *(each.group for each in declared)}
    if declared and len(groups) > 1:
        raise ConfigurationError(
            f"{owner} declares variables of the groups {', '.join(f'/{each}' for each in sorted(groups))}: expected one, "
            "since an observable has one clock; make an observable of each group"
        )
    return declared


def _check_against_own(variable: Variable, owner: str) -> None:
    own = OWN.get(variable.name)
    if own is not None and own != variable:
        raise ConfigurationError(
            f"{owner} declares {variable.name!r}, a name of the package's own, with other {_difference(own, variable)}: "
            f"expected what it means everywhere; choose another name, or declare describe({variable.name!r})"
        )
    if own is not None:
        return
    if variable.group in (*GROUPS, *_COORDINATES, *_LABELLED):
        raise ConfigurationError(
            f"{owner} declares {variable.name!r} in the group {variable.group!r}, which is reserved: expected the root or a "
            f"group of its own, since {', '.join(GROUPS)} hold what the package records; choose another name for the group"
        )
    taken = [each for each in variable.dimensions if is_clock(each) or each in _COORDINATES]
    if taken or len(set(variable.dimensions)) < len(variable.dimensions):
        raise ConfigurationError(
            f"{owner} declares {variable.name!r} along {', '.join(variable.dimensions)}: expected names that come once, are "
            f"none of {', '.join(_COORDINATES)} and do not end in '_step' as clocks do; replicas and the clock of the group "
            "are added by themselves"
        )
    if variable.name in (*_COORDINATES, *_LABELLED) or is_clock(variable.name):
        raise ConfigurationError(
            f"{owner} declares {variable.name!r}, which is reserved: expected a name that files do not use for something "
            "else; choose another name"
        )


def _check_names(variables: Mapping[str, Variable], owners: Mapping[str, str]) -> None:
    """Raise where a variable is called like a dimension, or a group like a variable or dimension of the root."""
    dimensions = {dimension for each in variables.values() for dimension in each.dimensions}
    known = {**OWN, **variables}
    in_root = {name: each for name, each in known.items() if not each.group}
    groups = {each.group for each in known.values()}
    root = {*in_root, *(dimension for each in in_root.values() for dimension in each.dimensions)}
    for name, variable in variables.items():
        if name in OWN:
            continue
        clashes = [
            *([name] if name in dimensions else []),
            *(each for each in variable.dimensions if each in in_root or (not variable.group and each in groups)),
            *([variable.group] if variable.group in root else []),
        ]
        if clashes:
            raise ConfigurationError(
                f"{owners[name]} declares {clashes[0]!r} twice, as two of a variable, a dimension and a group: expected one "
                "of them, since a file has one such name; rename one of them"
            )


def _labels(observable: Observable, process: Process, owner: str) -> dict[str, Coordinate]:
    dimensions = {dimension for each in observable.variables for dimension in each.dimensions}
    found: dict[str, Coordinate] = {}
    for dimension, coordinate in observable.coordinates(process).items():
        if dimension not in dimensions or dimension in _LABELLED:
            raise ConfigurationError(
                f"{owner} labels the dimension {dimension!r}: expected one that its variables have and that has no labels "
                f"yet, not {', '.join(_LABELLED)}; add it to the dimensions of a variable, or leave the labels out"
            )
        values = np.asarray(coordinate.values) if isinstance(coordinate, Coordinate) else np.empty((0, 0))
        if values.ndim != 1 or values.dtype.kind not in "fiubU":
            raise ConfigurationError(
                f"the labels of {dimension!r} of {owner} are {coordinate!r}: expected a Coordinate of numbers or text, one a "
                "position; return {'layer': Coordinate(['first', 'second'], 'layer')}, for example"
            )
        found[dimension] = Coordinate(values, coordinate.long_name, coordinate.units)
    return found
