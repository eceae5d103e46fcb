"""What things say of themselves in one line: what they are, how large, and what is not as usual."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from itertools import islice
from reprlib import recursive_repr
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any, ClassVar

__all__ = ["Readable", "brief", "counted", "precision"]

_LONGEST, _MOST = 60, 4  # characters of text, items of a list
_PLAIN = (bool, int, float, complex, str, bytes, Enum, NoneType)


class Readable:
    """Has a repr of one line that prints no array and computes nothing heavy, also while it is half built.

    Classes that extend it have it too, dataclasses included, unless they write a ``__repr__`` of their own. It is for
    readers: what tells two things apart is `langevin_nn.provenance.plain`.
    """

    _called: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__repr__ is Readable.__repr__:
            # Into the class itself: a dataclass writes one of its own, with all its arrays, only where there is none.
            cls.__repr__ = Readable.__repr__  # type: ignore[method-assign]

    def _said(self) -> Iterator[str]:
        """Yield what stands between the brackets: fields that are not as usual, or public attributes."""
        named = _fields(self) if is_dataclass(self) else ((k, v) for k, v in vars(self).items() if k[:1] != "_")
        for name, value in named:
            yield f"{name}={brief(value)}"

    @recursive_repr("…")
    def __repr__(self) -> str:
        said: list[str] = []
        try:
            said += self._said()
        except Exception:  # half built, as a debugger sees it: a repr that raises hides what is wrong
            said.append("…")
        return f"{self._called or type(self).__name__}({', '.join(said)})"


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a dataclass that are there and not as they are unless said."""
    for each in fields(value):
        found = getattr(value, each.name, MISSING)
        usual = found is each.default or (isinstance(found, _PLAIN) and found == each.default)
        if each.repr and found is not MISSING and not usual:
            yield each.name, found


def brief(value: Any) -> str:
    """Return a value on one line, in a few words; of arrays type and shape are told, of functions the name.

    Returns
    -------
    str
        On one line.

    Examples
    --------
    >>> import numpy as np
    >>> print(brief(0.1), brief(np.zeros((2, 3))), brief(np.float64(0.5)), brief(len), brief({"a": 1}))
    0.1 float64[2, 3] 0.5 len dict of 1
    >>> print(brief((1, 2)), brief([0] * 1000))
    (1, 2) list of 1,000
    """
    try:
        return _brief(value)
    except Exception:  # numbers of thousands of digits, classes that hold their attributes back
        return type(value).__name__


def _brief(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, Readable):
        return repr(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{_dtype(value.dtype)}{[*value.shape]}" if len(value.shape) else brief(value.item())
    if isinstance(value, _PLAIN):
        text = " ".join(repr(value).split())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    if isinstance(value, type | FunctionType | BuiltinFunctionType | MethodType):
        return value.__name__
    if isinstance(value, Mapping):
        return f"{kind} of {len(value):,}"
    if isinstance(value, list | tuple | set | frozenset):
        said = ", ".join(brief(each) for each in islice(value, _MOST))
        return f"({said})" if len(value) <= _MOST and len(said) <= 4 * _LONGEST else f"{kind} of {len(value):,}"
    if is_dataclass(value):
        return f"{kind}({', '.join(f'{name}={brief(each)}' for name, each in _fields(value))})"
    return _dtype(value) if kind == "dtype" else kind


def _dtype(value: Any) -> str:
    return str(value).removeprefix("torch.")


def counted(holder: Any, **nouns: str) -> Iterator[str]:
    """Yield how many there are of each attribute of `holder`, by its noun, where that is known: ``"1,200 samples"``."""
    for name, noun in nouns.items():
        number = getattr(holder, name, None)
        if isinstance(number, int):
            yield f"{number:,} {noun}{'s' * (number != 1)}"


def precision(holder: Any) -> Iterator[str]:
    """Yield the ``dtype`` of a landscape or an array, and its ``device`` unless that is the processor."""
    dtype, device = getattr(holder, "dtype", None), getattr(holder, "device", None)
    if dtype is not None:
        yield _dtype(dtype)
    if device is not None and str(device) != "cpu":
        yield str(device)
