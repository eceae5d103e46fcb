"""What every study's command does alike: exit codes, and one clear line for what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from langevin_nn.checks import as_path, listed, number, text, truth, whole_number
from langevin_nn.errors import LangevinError, UnstableTrajectory

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["BAD_INPUT", "DIVERGED", "INTERRUPTED", "checked", "guarded"]

BAD_INPUT, DIVERGED, INTERRUPTED = 2, 3, 130

C = TypeVar("C", bound="DataclassInstance")


def checked(config: C) -> C:
    """Return a configuration whose choices are of the types that its fields declare.

    The command line sees to that; from Python anything may come. Whether a number can be run is not asked here.

    Parameters
    ----------
    config : dataclass
        What was chosen.

    Returns
    -------
    dataclass
        The same, in Python's own types.

    Raises
    ------
    ConfigurationError
        Naming the choice that is of another type.
    """
    kinds = get_type_hints(type(config))
    choices = {each.name: getattr(config, each.name) for each in fields(config)}
    return replace(config, **{name: _checked(name, value, kinds[name]) for name, value in choices.items()})


def _checked(name: str, value: Any, kind: Any) -> Any:
    inner = get_args(kind)
    if isinstance(kind, UnionType):
        return None if value is None else _checked(name, value, inner[0])
    if get_origin(kind) is tuple:
        return tuple(_checked(name, each, inner[0]) for each in listed(name, value, "a tuple"))
    if kind is float and isinstance(value, float) and not isfinite(value):
        return float(value)  # refused where it is known what is meant
    return _CHECKS[kind](name, value)


_CHECKS: dict[type, Callable[[str, Any], Any]] = {
    bool: lambda name, value: truth(name, value, "since it is a switch"),
    int: lambda name, value: whole_number(name, value, "a whole number (int)"),
    float: lambda name, value: number(name, value, "a number (float)"),
    str: lambda name, value: text(name, value, "since it is a name"),
    Path: as_path,
}


def guarded(run: Callable[[], None], out: Path) -> int:
    """Run a study and turn its errors into a line and an exit code.

    Parameters
    ----------
    run : callable
        The study.
    out : Path
        Its output folder, where what was recorded is kept.

    Returns
    -------
    int
        0; 2 for bad input; 3 for dynamics that diverged; 130 for an interrupt.
    """
    try:
        run()
    except UnstableTrajectory as error:
        print(f"error: {error}; everything recorded until then is in {out}", file=sys.stderr)
        return DIVERGED
    except LangevinError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"interrupted; what was recorded until then is in {out}", file=sys.stderr)
        return INTERRUPTED
    return 0
