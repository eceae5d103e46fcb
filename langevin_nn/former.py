"""Names that have moved: found for one release where they were, with a warning that says where they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["found_elsewhere"]


def found_elsewhere(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a module.

    Parameters
    ----------
    module : str
        Where names were.
    homes : mapping of str to str
        The module in which each of them is now.

    Returns
    -------
    callable
        From a name to what it names; raises ``AttributeError`` for others.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     pi = found_elsewhere("numbers", {"pi": "math"})("pi")
    >>> pi, str(caught[0].message)
    (3.141592653589793, 'numbers.pi is math.pi now, and is found there alone from the next release on')
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        now = f"{homes[name]}.{name}"
        words = f"{module}.{name} is {now} now, and is found there alone from the next release on"
        warnings.warn(words, DeprecationWarning, stacklevel=2)
        return getattr(import_module(homes[name]), name)

    return __getattr__
