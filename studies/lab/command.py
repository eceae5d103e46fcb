"""What every study's command does alike: its output folder, exit codes, and one clear line for what went wrong."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar, get_args, get_origin, get_type_hints

import tyro

from langevin_nn.checks import as_path, listed, number, text, truth, whole_number
from langevin_nn.errors import EstimationRefused, LangevinError, UnstableTrajectory
from langevin_nn.provenance import plain
from langevin_nn.store import refuse_finished
from langevin_nn.store.durable import json_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "BAD_INPUT",
    "DIVERGED",
    "FAILED",
    "INTERRUPTED",
    "Command",
    "Output",
    "Place",
    "checked",
    "fault",
    "guarded",
    "of_the_numbers",
    "placed",
    "sized",
    "words_of",
]

FAILED, BAD_INPUT, DIVERGED, INTERRUPTED = 1, 2, 3, 130
_TRACEBACK = "traceback.txt"

C = TypeVar("C", bound="DataclassInstance")


@dataclass(frozen=True)
class Output:
    """Where a study writes, and what becomes of what is there: a part of the choices of each."""

    out: Path = Path("output")
    """Folder for the results."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run that was killed or interrupted in the output folder, to the same results; of one that has ended,
    make the analysis again."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Begin anew in the place of a finished run in the output folder, which is left alone unless this is given."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A small run of a few seconds that shows what comes out, with intervals too wide to conclude from; into a folder of its
    own, whose name ends in _quick, unless --out is given."""


F = TypeVar("F", bound=Output)


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
    file : str, optional
        Of a study that is not of this package: ``python FILE`` is then the command.
    """

    name: str
    choices: type[F]
    description: str | None
    study: Callable[[F], int | None]
    file: str | None = None

    def __call__(self, arguments: list[str] | None = None) -> int:
        """Run the command.

        Parameters
        ----------
        arguments : list of str, optional
            Those of the command line unless given.

        Returns
        -------
        int
            0; 1 for a fault of the study; 2 for bad input; 3 for dynamics that diverged; 130 for an interrupt.
        """
        prog = f"python {self.file or f'-m studies.{self.name}'}"
        config = placed(tyro.cli(self.choices, prog=prog, description=self.description, args=arguments))
        return guarded(lambda: self.study(config), config.out)


def placed(config: F) -> F:
    """Return a configuration with its output folder: a quick run has one of its own, unless one was given.

    Parameters
    ----------
    config : Output
        What was chosen.

    Returns
    -------
    Output
        With the folder that is written to.
    """
    default = type(config).out
    if truth("quick", config.quick, "since it is a switch") and config.out is default:
        return replace(config, out=default.with_name(f"{default.name}_quick"))
    return config


@dataclass(frozen=True)
class Place:
    """Where something lies that a function reads: no part of what it computes, since folders may be moved.

    Parameters
    ----------
    folder : Path
        The place.
    """

    folder: Path
    description: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __fspath__(self) -> str:
        return str(self.folder)


# By name, what has no say in the numbers, and what stands for it where runs are known again.
_NOT_OF_THE_RUN: dict[str, Any] = {
    "out": Path("output"),
    "data_dir": None,
    "resume": False,
    "overwrite": False,
    "workers": None,
}


def of_the_numbers(config: F) -> F:
    """Return a configuration without what has no say in the numbers, by which runs are known again.

    Parameters
    ----------
    config : Output
        What was chosen.

    Returns
    -------
    Output
        Wherever results go, whatever becomes of those that are there, and however many processes work on them.
    """
    known = {name: each for name, each in _NOT_OF_THE_RUN.items() if hasattr(config, name)}
    if (folder := getattr(config, "data_dir", None)) is not None:
        known["data_dir"] = Place(folder)
    return replace(config, **known)


def words_of(config: DataclassInstance) -> dict[str, Any]:
    """Return the choices that made the numbers; where they were written is none of them.

    Parameters
    ----------
    config : dataclass
        What was chosen.

    Returns
    -------
    dict of str to object
        As JSON has them.
    """
    chosen = {name: plain(value) for name, value in asdict(config).items() if name not in _NOT_OF_THE_RUN}
    words: dict[str, Any] = json.loads(json_text(chosen))
    return words


def sized(config: C, quick: Mapping[str, Any]) -> C:
    """Return a configuration with other choices in the place of those that were left at their defaults.

    Parameters
    ----------
    config : dataclass
        What was chosen.
    quick : mapping of str to object
        What takes the place of what was not, with --quick for example.

    Returns
    -------
    dataclass
        What was chosen explicitly stays.
    """
    defaults = type(config)()
    untouched = {name: value for name, value in quick.items() if getattr(config, name) == getattr(defaults, name)}
    return replace(config, **untouched)


def checked(config: F) -> F:
    """Return a configuration with its output folder, whose choices are of the types that its fields declare.

    The command line sees to that; from Python anything may come. Whether a number can be run is asked of workers alone.

    Parameters
    ----------
    config : Output
        What was chosen.

    Returns
    -------
    Output
        The same, in Python's own types.

    Raises
    ------
    ConfigurationError
        Naming the choice that is of another type; also where a run is to go on and to begin anew.
    """
    config = placed(config)
    kinds = get_type_hints(type(config))
    choices = {each.name: getattr(config, each.name) for each in fields(config)}
    config = replace(config, **{name: _checked(name, value, kinds[name]) for name, value in choices.items()})
    workers = getattr(config, "workers", None)
    if workers is not None:
        whole_number("workers", workers, "at least 1 process (int)", least=1)
    refuse_finished(overwrite=config.overwrite, resuming=config.resume)
    return config


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
        0 or the study's own; 1 for a fault of the study, whose traceback goes to a file in the folder; 2 for bad input; 3 for
        dynamics that diverged; 130 for an interrupt.
    """
    try:
        code = run() or 0
        (out / _TRACEBACK).unlink(missing_ok=True)  # of an analysis that is now made
        return code
    except UnstableTrajectory as error:
        return _said(f"error: {error}; everything recorded until then is in {out}", DIVERGED)
    except EstimationRefused as error:
        return _said(f"error: {error}; {_kept(out)}", BAD_INPUT)
    except LangevinError as error:
        return _said(f"error: {error}", BAD_INPUT)
    except KeyboardInterrupt:
        return _said(f"interrupted; what was recorded until then is in {out}", INTERRUPTED)
    except Exception as error:
        return _said(f"error: {fault(error, out)}", FAILED)


def fault(error: Exception, out: Path) -> str:
    """Return in words what went wrong within a study, and put the traceback into a file of its folder.

    Parameters
    ----------
    error : Exception
        One that nobody foresaw.
    out : Path
        The output folder.

    Returns
    -------
    str
        A line; the traceback follows where there is no folder yet, or it cannot be written.
    """
    told = f"{type(error).__name__}: {' '.join(str(error).split())}: a fault of the study and not of the choices"
    lines = "".join(traceback.format_exception(error))
    if out.is_dir() and any(out.iterdir()):
        with suppress(OSError):
            (out / _TRACEBACK).write_text(lines, encoding="utf-8")
            return f"{told}; {_kept(out)}; the traceback is in {out / _TRACEBACK}"
        told = f"{told}; {_kept(out)}"
    return f"{told}\n{lines}".rstrip()


def _kept(out: Path) -> str:
    return (
        f"what was computed is kept in {out}, and --resume with the same choices makes the analysis again on it alone"
    )


def _said(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
