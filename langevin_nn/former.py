"""Names that have moved: found for one release where they were, with a warning that says where they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["RenamedMethods", "found_elsewhere"]

_METHODS = {"compiled": "formula", "compiled_gradient": "gradient_formula", "compiled_noise": "noise_formula"}


def found_elsewhere(module: str, homes: Mapping[str, str], stacklevel: int = 2) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a module.

    Parameters
    ----------
    module : str
        Where names were.
    homes : mapping of str to str
        The module in which each of them is now; ``"module:name"`` where it has another name there.
    stacklevel : int, optional
        Frames from the warning to who asks for the name.

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
        home, _, renamed = homes[name].partition(":")
        words = f"{module}.{name} is {home}.{renamed or name} now, and is found there alone from the next release on"
        warnings.warn(words, DeprecationWarning, stacklevel=stacklevel)
        return getattr(import_module(home), renamed or name)

    return __getattr__


class RenamedMethods:
    """A class whose subclasses may still give methods under former names: taken for one release, with a warning."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for former, now in _METHODS.items():
            if former in vars(cls):
                words = (
                    f"{cls.__name__}.{former} is to be called {now}, as it is alone from the next release on: rename it"
                )
                warnings.warn(words, DeprecationWarning, stacklevel=3)
                setattr(cls, now, vars(cls)[former])
