"""What every study's command does alike: exit codes, and one clear line for what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, get_args, get_origin, get_type_hints

import tyro

from langevin_nn.checks import as_path, listed, number, text, truth, whole_number
from langevin_nn.errors import LangevinError, UnstableTrajectory

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["BAD_INPUT", "DIVERGED", "INTERRUPTED", "Command", "checked", "guarded"]

BAD_INPUT, DIVERGED, INTERRUPTED = 2, 3, 130

C = TypeVar("C", bound="DataclassInstance")


class _WithFolder(Protocol):
    @property
    def out(self) -> Path: ...


F = TypeVar("F", bound=_WithFolder)


@dataclass(frozen=True)
class Command(Generic[F]):
    """What ``python -m studies.NAME`` does: read the choices, run the study, and end with an exit code.

    Parameters
    ----------
    name : str
        Of the study.
    choices : type
        The dataclass of its choices; their docstrings are what ``--help`` says of each.
    description : str or None
        The docstring of the study's module, with which ``--help`` begins.
    study : callable
        Runs the study and says what was found; it may give an exit code of its own.
    """

    name: str
    choices: type[F]
    description: str | None
    study: Callable[[F], int | None]

    def __call__(self, arguments: list[str] | None = None) -> int:
        """Run the command.

        Parameters
        ----------
        arguments : list of str, optional
            Those of the command line unless given.

        Returns
        -------
        int
            0; 2 for bad input; 3 for dynamics that diverged; 130 for an interrupt.
        """
        config = tyro.cli(
            self.choices, prog=f"python -m studies.{self.name}", description=self.description, args=arguments
        )
        return guarded(lambda: self.study(config), config.out)


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


def guarded(run: Callable[[], int | None], out: Path) -> int:
    """Run a study and turn its errors into a line and an exit code.

    Parameters
    ----------
    run : callable
        The study, with an exit code of its own if it has one.
    out : Path
        Its output folder, where what was recorded is kept.

    Returns
    -------
    int
        0 or the study's own; 2 for bad input; 3 for dynamics that diverged; 130 for an interrupt.
    """
    try:
        return run() or 0
    except UnstableTrajectory as error:
        print(f"error: {error}; everything recorded until then is in {out}", file=sys.stderr)
        return DIVERGED
    except LangevinError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"interrupted; what was recorded until then is in {out}", file=sys.stderr)
        return INTERRUPTED
