"""What a user has made, named on the command line: a network in a study, or a data set."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from langevin_nn import NetworkLandscape
from langevin_nn.checks import kind_of, one_of
from langevin_nn.errors import ConfigurationError
from models.datasets import DATASETS, DataSet

__all__ = ["dataset_help", "dataset_named", "imported", "landscape_named"]


def imported(option: str, words: str, what: str) -> Any:
    """Return what a module has under a name.

    Parameters
    ----------
    option : str
        By which it was chosen.
    words : str
        ``module:name``; the module can be imported from here.
    what : str
        What is expected there, in words that begin with the form.

    Returns
    -------
    object
        The same.

    Raises
    ------
    ConfigurationError
        If there is no such module, or no such name in it.
    """
    module_name, _, name = words.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigurationError(f"{option}={words!r}: expected {what}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(import_module(module_name), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigurationError(
            f"{option}={words!r}: {error}; expected a module that can be imported from {here}, and {name} in it"
        ) from error


@cache
def landscape_named(words: str) -> NetworkLandscape:
    """Return the landscape that a function makes.

    Parameters
    ----------
    words : str
        ``module:function``, importable from here; the function takes no arguments.

    Returns
    -------
    NetworkLandscape
        What it returns.

    Raises
    ------
    ConfigurationError
        If there is no such function, or it returns something else.
    """
    what = "module:function, such as my_network:landscape, a function without arguments that returns a NetworkLandscape"
    make = imported("landscape", words, what)
    made = make() if callable(make) else make
    if not isinstance(made, NetworkLandscape):
        raise ConfigurationError(
            f"{words} gave {kind_of(made)}: expected a NetworkLandscape, whose minibatch noise is compared; wrap the network "
            "with its data, NetworkLandscape(module, inputs, labels)"
        )
    return made


@cache
def dataset_named(words: str) -> DataSet:
    """Return a data set: one of those that are known, or a user's own.

    Parameters
    ----------
    words : str
        A key of ``models.DATASETS``; or ``module:name``, importable from here, of a `DataSet` or of a function that takes
        the training samples of each class and the data folder, either of which may be None, and returns an ImageData.

    Returns
    -------
    DataSet
        Of a function, one that says nothing of how it is trained.

    Raises
    ------
    UnknownNameError
        If there is no data set of that name.
    ConfigurationError
        If there is none in the module, or it is something else.
    """
    if ":" not in words:
        return DATASETS[one_of("data set", words, (*DATASETS, _OWN))]
    what = f"{_OWN}, such as blobs:blobs, a DataSet or a function that returns an ImageData"
    found = imported("dataset", words, what)
    if isinstance(found, DataSet):
        return found
    if not callable(found) or not _takes_two(found):
        raise ConfigurationError(
            f"dataset={words!r} is {kind_of(found)}: expected a DataSet, or a function of samples_per_class and data_dir "
            "that returns an ImageData, since a study chooses how many samples it trains on"
        )
    return DataSet(words, "a data set of one's own", found)


_OWN = "module:name"


def _takes_two(function: Any) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True


def dataset_help(more: str = "", known: Sequence[DataSet] = tuple(DATASETS.values())) -> str:
    """Return what ``--help`` says of the choice of a data set.

    Parameters
    ----------
    more : str, optional
        What is taken unless one is chosen.
    known : sequence of DataSet, optional
        Those that the study takes.

    Returns
    -------
    str
        Each known one with its description.
    """
    names = "; ".join(f"{each.name} ({each.description})" for each in known)
    return f"Data set: {names}; or your own, {_OWN}, a DataSet or a function that returns an ImageData{more}."
