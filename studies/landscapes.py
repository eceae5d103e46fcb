"""A user's own network in a study: a function that makes its landscape, named on the command line."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from pathlib import Path

from langevin_nn import NetworkLandscape
from langevin_nn.checks import kind_of
from langevin_nn.errors import ConfigurationError

__all__ = ["landscape_named"]


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
    module_name, _, name = words.partition(":")
    if not module_name or not name:
        raise ConfigurationError(
            f"landscape={words!r}: expected module:function, such as my_network:landscape, a function without arguments that "
            "returns a NetworkLandscape"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        make = getattr(import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"landscape={words!r}: {error}; expected a module that can be imported from {here} and a function in it"
        ) from error
    made = make() if callable(make) else make
    if not isinstance(made, NetworkLandscape):
        raise ConfigurationError(
            f"{words} gave {kind_of(made)}: expected a NetworkLandscape, whose minibatch noise is compared; wrap the network "
            "with its data, NetworkLandscape(module, inputs, labels)"
        )
    return made
