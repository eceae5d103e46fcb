"""What a function computes, as a digest: its code and the value of everything that it reads.

Two functions of one identity compute the same. What a function reads from outside is found in its bytecode: names of its
module and cells of its closure, and the attributes that it reads of modules and objects one after the other. Values are read
anew each time, since arrays, lists and modules change in place.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import inspect
import os
import platform
import re
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import scipy.special
import torch
from torch import nn

__all__ = ["Identity", "held_by", "identity"]

_MEASURED = ("numpy", "numba", "llvmlite", "scipy", "torch")  # their modules count by name and version
_CONSTANT = (  # so do these, of Python; its others hold what changes, or read from outside
    *("abc", "bisect", "builtins", "cmath", "collections", "contextlib", "copy", "copyreg", "dataclasses", "enum"),
    *(
        "fractions",
        "functools",
        "heapq",
        "itertools",
        "json",
        "math",
        "numbers",
        "operator",
        "re",
        "statistics",
        "string",
    ),
    *("types", "typing", "warnings"),
)
_DYNAMIC = (
    *("getattr", "setattr", "delattr", "globals", "locals", "vars", "dir", "eval", "exec", "__import__"),
    *("open", "input", "id", "hash", "breakpoint"),
)
_OUTSIDE = {  # names of libraries that read files or draw at random
    *(
        "load",
        "loadtxt",
        "genfromtxt",
        "fromfile",
        "from_file",
        "memmap",
        "open_memmap",
        "DataSource",
        "load_library",
        "io",
    ),
    *("hub", "datasets", "random", "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm"),
    *("bernoulli", "normal", "multinomial", "poisson", "rvs", "distributions", "initial_seed", "get_rng_state"),
    "default_generator",
}
_FLAGS = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
_BOOKKEEPING = (
    *(
        "__doc__",
        "__module__",
        "__qualname__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__firstlineno__",
    ),
    *(
        "__annotations_cache__",
        "__static_attributes__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__match_args__",
    ),
    *("__orig_bases__", "__parameters__", "__type_params__", "__classcell__", "__abstractmethods__"),
)
_STARTS = re.compile("init|reset")
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented))
_DESCRIPTORS = (GetSetDescriptorType, MemberDescriptorType, WrapperDescriptorType, MethodDescriptorType)
_GLOBAL, _CELL, _FIRST, _UNKNOWN, _WRITTEN = "global", "cell", "first argument", "unknown", "written"
_MISSING = object()


@dataclass(frozen=True)
class Identity:
    """What a function computes.

    Parameters
    ----------
    digest : str
        SHA-256, hexadecimal, of all that can be told.
    unknown : tuple of str
        What cannot be told: two functions of one digest may differ there.
    """

    digest: str
    unknown: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether functions of this digest compute the same."""
        return not self.unknown


def identity(function: Any, *, libraries: Iterable[str] = (), elsewhere: Iterable[Any] = ()) -> Identity:
    """Return what a function computes: its code, and the value of everything that it reads.

    Its own name, line numbers, comments and docstrings do not matter. Constants, defaults, the closure, names of the module,
    attributes of modules, functions and objects, the bytes of arrays and what helper functions read do. Settings of a library
    or of the machine, such as the type that torch takes unless said, are no part of it.

    Parameters
    ----------
    function : callable
        A function, plain or compiled by Numba, a bound method, a partial, an object that can be called.
    libraries : iterable of str, optional
        Further packages that count by name and version, as those do that were installed, unless the function is of one, and
        Python's own.
    elsewhere : iterable of object, optional
        What is told elsewhere: layers and tensors that count by their place in this list alone.

    Returns
    -------
    Identity
        With what cannot be told: arbitrary objects, names that are looked up as the function runs, and what libraries and
        Python read from outside: files, the environment, clocks, random numbers.

    Examples
    --------
    >>> stiffness = 2.0
    >>> def make(stiffness):
    ...     return lambda x: stiffness * x[0] ** 2
    >>> identity(make(1.0)) == identity(make(1.0)), identity(make(1.0)) == identity(make(2.0))
    (True, False)
    >>> identity(lambda x: getattr(x, "name")).unknown
    ('getattr',)
    """
    own = str(getattr(function, "__module__", "")).split(".", 1)[0]  # read, wherever it was installed
    walk = _Walk(frozenset(_MEASURED).union(libraries, _installed(len(sys.modules)) - {own}))
    for each in elsewhere:
        walk.met(each)
    where = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        walk.chain(function, ("__call__",) if walk.looks_into(function) else (), where)
    except RecursionError:
        return Identity(sha256(b"too deep").hexdigest(), (f"{where} (too deep)",))
    return Identity(walk.found.hexdigest(), tuple(dict.fromkeys(walk.unknown)))


def held_by(layer: nn.Module) -> dict[str, Any]:
    """Return the attributes of a layer by name; hooks in their order, without the numbers by which torch counts them."""
    hooks = {name: each for name, each in vars(layer).items() if "_hooks" in name and isinstance(each, dict)}
    held = {name: each for name, each in vars(layer).items() if name not in hooks}
    return held | {name: list(each.values()) for name, each in hooks.items() if each}


@dataclass(frozen=True)
class _Outline:
    """Code, without where it stands, and what it reads from outside: how, from what name, which attributes of it."""

    digest: bytes
    reads: tuple[tuple[str, str, tuple[str, ...]], ...]


@functools.lru_cache(maxsize=4096)
def _outline(code: CodeType) -> _Outline:
    reads: dict[tuple[str, str, tuple[str, ...]], None] = {}
    used = {each.arg for each in dis.get_instructions(code) if each.opcode in dis.hasconst}
    first = code.co_varnames[0] if code.co_argcount else None
    instructions = [each for each in dis.get_instructions(code) if each.opname not in ("EXTENDED_ARG", "CACHE", "NOP")]
    for number, each in enumerate(instructions):
        name = each.argval
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            kind = _GLOBAL
        elif each.opname in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"):
            kind = _CELL
        elif each.opname.startswith("LOAD_FAST"):
            names = name if isinstance(name, tuple) else (name,)
            if first in names[:-1]:
                reads[_FIRST, str(first), ()] = None
            if first != names[-1]:
                continue
            kind, name = _FIRST, first
        elif each.opname.startswith(("STORE_FAST", "DELETE_FAST")):
            if first in (name if isinstance(name, tuple) else (name,)):
                reads[_FIRST, str(first), ()] = None
            continue
        elif each.opname in ("STORE_DEREF", "DELETE_DEREF"):
            reads[_WRITTEN, name, ()] = None
            continue
        elif each.opname in ("STORE_GLOBAL", "DELETE_GLOBAL", "IMPORT_NAME"):
            known = each.opname == "IMPORT_NAME" and name.split(".")[0] in (*_MEASURED, *_CONSTANT)
            relative = known and instructions[number - 2].argval != 0
            outside = sorted(_OUTSIDE.intersection((*code.co_names, *name.split("."))))
            for part in outside if known and not relative else (name,):
                reads[_UNKNOWN, part, ()] = None
            continue
        else:
            continue
        attributes = []
        for after in instructions[number + 1 :]:
            if after.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                break
            attributes.append(after.argval)
        reads[kind, name, tuple(attributes)] = None
    found = sha256(code.co_code)
    words = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS)
    found.update(repr((words, counts, code.co_exceptiontable)).encode())
    for number, constant in enumerate(code.co_consts):
        found.update(_constant(constant) if number in used else b"unused")
        if isinstance(constant, CodeType):
            reads |= dict.fromkeys(each for each in _outline(constant).reads if each[0] != _FIRST)
    return _Outline(found.digest(), tuple(reads))


def _constant(value: Any) -> bytes:
    """Return a constant of code: repr says all of a number, and not the order of a set."""
    if isinstance(value, CodeType):
        return b"code" + _outline(value).digest
    if isinstance(value, tuple | frozenset):
        parts = [_constant(each) for each in value]
        return sha256(repr((type(value).__name__, parts if type(value) is tuple else sorted(parts))).encode()).digest()
    return sha256(f"{type(value).__name__} {value!r}".encode("utf-8", "surrogatepass")).digest()


@functools.cache
def _version(package: str) -> str:
    try:
        return platform.python_version() if package in sys.stdlib_module_names else version(package)
    except PackageNotFoundError:
        return ""


@functools.lru_cache(maxsize=1)
def _installed(_modules: int) -> frozenset[str]:
    """Return the packages that were installed, whose modules hold much that changes as they run."""
    files = {
        name: str(getattr(module, "__file__", "")) for name, module in list(sys.modules.items()) if "." not in name
    }
    return frozenset(name for name, file in files.items() if "site-packages" in file or "dist-packages" in file)


@functools.cache
def _is_of_python(package: str) -> bool:
    """Return whether a module is Python's own, and none of a user's that has its name."""
    file = getattr(sys.modules.get(package), "__file__", None)
    own = file is None or (
        Path(file).is_relative_to(Path(os.__file__).parent) and "site-packages" not in Path(file).parts
    )
    return own and package in sys.stdlib_module_names


def _is_of_numba(value: Any, module: str, name: str) -> bool:
    """Return whether a value is of a class of ``numba.core``; none is where Numba was not loaded."""
    return isinstance(value, getattr(sys.modules.get(f"numba.core.{module}"), name, ()))


def _is_plain_object(value: Any) -> bool:
    """Return whether attributes of an object are found where Python looks for them, and nowhere else."""
    kind: Any = type(value)
    own = kind.__getattribute__ is object.__getattribute__ and not hasattr(kind, "__getattr__")
    return own or kind is SimpleNamespace


class _Walk:
    """Reads values into a digest."""

    def __init__(self, libraries: frozenset[str]) -> None:
        self.found, self.unknown = sha256(), list[str]()
        self._libraries = libraries
        self._seen: dict[Any, tuple[int, Any]] = {}

    def said(self, kind: str, text: bytes | str = b"") -> None:
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        self.found.update(f"{kind}:{len(data)}:".encode())
        self.found.update(data)

    def untold(self, where: str, value: Any = _MISSING) -> None:
        self.unknown.append(where if value is _MISSING else f"{where} ({type(value).__name__})")
        self.said("unknown", where)

    def met(self, value: Any, *parts: Any) -> None:
        key = tuple(id(each) for each in parts or (value,))
        self._seen[key] = (len(self._seen), (value, parts))  # kept alive, or another would get its id

    def _again(self, value: Any, *parts: Any) -> bool:
        """Say that something was met before: it may hold itself."""
        key = tuple(id(each) for each in parts or (value,))
        if key in self._seen:
            self.said("again", str(self._seen[key][0]))
            return True
        self.met(value, *parts)
        return False

    def _of_library(self, module: Any) -> str | None:
        """Return the package of a module, by its name, whose functions and classes count by name and version."""
        package = str(module).split(".", 1)[0]
        return package if package in self._libraries or _is_of_python(package) else None

    def _is_constant(self, module: ModuleType) -> bool:
        """Return whether a whole module counts by name and version: Python's own hold what changes, save some."""
        package = module.__name__.split(".", 1)[0]
        return package in self._libraries or (package in _CONSTANT and _is_of_python(package))

    def _said_library(self, package: str, module: str, name: str) -> None:
        pure = package in self._libraries or package.lstrip("_") in _CONSTANT
        if not pure or _OUTSIDE.intersection((*module.split("."), *name.split("."))):
            self.untold(f"{module}.{name}")
        self.said("library", f"{module} {name} {_version(package)}")

    # --- Where values are

    def chain(self, value: Any, names: tuple[str, ...], where: str) -> None:
        """Follow attributes as far as they lead through modules and objects, and read what is there."""
        for number, name in enumerate(names):
            if isinstance(value, ModuleType):
                if self._is_constant(value):
                    package = value.__name__.split(".", 1)[0]
                    self._said_library(package, value.__name__, ".".join(names[number:]))
                    return
                of_process = _is_of_python(value.__name__.split(".", 1)[0])
                value = vars(value).get(name, _MISSING)
                # Such as sys.path, which no two processes share.
                if of_process and isinstance(value, list | dict | set):
                    self.untold(f"{where}.{name}", value)
                    return
            elif self.looks_into(value):
                self.said("attribute", name)
                found = self._attribute(value, name, where)
                if found is _MISSING:
                    return
                value = found
            else:
                self.said("attributes", ".".join(names[number:]))
                held = {} if isinstance(value, type) else getattr(value, "__dict__", {})
                if name in held:
                    self.value(held[name], f"{where}.{name}")
                break
            where = f"{where}.{name}"
            if value is _MISSING:
                self.untold(where)
                return
        self.value(value, where)

    def looks_into(self, value: Any) -> bool:
        """Return whether attributes are to be followed: of objects of user's classes, not of values."""
        kind = type(value)
        if kind is SimpleNamespace:
            return True
        known = issubclass(kind, (Enum, tuple, list, dict, set, frozenset, np.ndarray, torch.Tensor, *_PLAIN))
        return not known and self._of_library(kind.__module__) is None and _is_plain_object(value)

    def _attribute(self, holder: Any, name: str, where: str) -> Any:
        """Return an attribute without running anything: of a property, its function is read, and there is no value."""
        try:
            found = inspect.getattr_static(holder, name)
        except AttributeError:
            self.untold(f"{where}.{name}")
            return _MISSING
        if isinstance(found, staticmethod):
            return found.__func__
        if isinstance(found, classmethod):
            return MethodType(found.__func__, type(holder))
        if name in getattr(holder, "__dict__", {}):
            return found
        if isinstance(found, FunctionType):
            return MethodType(found, holder)
        if isinstance(found, property | functools.cached_property):
            getter = found.fget if isinstance(found, property) else found.func
            self.value(MethodType(getter, holder) if isinstance(getter, FunctionType) else getter, f"{where}.{name}")
            return _MISSING
        if isinstance(found, MemberDescriptorType):
            return getattr(holder, name, None)
        if hasattr(type(found), "__get__"):
            self.untold(f"{where}.{name}", found)
            return _MISSING
        return found

    # --- What values are

    def value(self, value: Any, where: str) -> None:
        """Read a value."""
        kind = type(value)
        if kind in _PLAIN:
            exact = struct.pack("<d", value) if kind is float else hex(value) if kind is int else repr(value)
            self.said(kind.__name__, exact)
        elif kind in (np.ndarray, np.memmap):
            self._array(value, where)
        elif isinstance(value, np.generic):
            self._array(np.asarray(value), where)
        elif isinstance(value, np.dtype):
            self.said("dtype", repr(value.descr if value.names else value.str))
        elif isinstance(value, torch.Tensor):
            self._tensor(value, where)
        elif isinstance(value, torch.dtype | torch.device | slice) or _is_of_numba(value, "types", "Type"):
            self.said(kind.__name__, repr(value))
        elif isinstance(value, ModuleType):
            self._module(value, where)
        elif kind is FunctionType:
            self._function(value, where)
        elif isinstance(value, MethodType):
            self._method(value, where)
        elif self._again(value):
            pass
        elif kind in (tuple, list, dict, MappingProxyType, set, frozenset):
            self._container(value, where)
        elif isinstance(value, functools.partial):
            self.said("partial")
            for each in (value.func, value.args, value.keywords, vars(value)):
                self.value(each, where)
        elif _is_of_numba(value, "dispatcher", "Dispatcher"):
            self.said("compiled")
            for each in (value.py_func, dict(value.targetoptions), dict(value.locals)):
                self.value(each, where)
        elif isinstance(value, type):
            self._class(value, where)
        elif isinstance(value, (np.ufunc, BuiltinFunctionType, *_DESCRIPTORS)):
            self._builtin(value, where)
        else:
            self._object(value, where)

    def _array(self, value: Any, where: str) -> None:
        self.said("array", f"{value.dtype.descr if value.dtype.names else value.dtype.str}{value.shape}")
        self.said("layout", f"{value.flags.c_contiguous}{value.flags.f_contiguous}")
        if value.dtype.hasobject:
            self.value(value.tolist(), where)
        else:
            self.found.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)

    def _tensor(self, value: torch.Tensor, where: str) -> None:
        if (id(value),) in self._seen:  # told elsewhere
            self.said("again", str(self._seen[id(value),][0]))
            return
        if self._of_library(type(value).__module__) is None or value.layout is not torch.strided:
            self.untold(where, value)
            return
        try:
            here = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
            numbers = here.reshape(-1).view(torch.uint8).numpy()
        except RuntimeError:  # the inside of a trace has no numbers
            self.untold(where, value)
            return
        if vars(value):
            self.value(vars(value), where)
        self.said("tensor", f"{here.dtype}{tuple(here.shape)}{value.device}")
        self.found.update(numbers.data)

    def _container(self, value: Any, where: str) -> None:
        self.said(type(value).__name__, str(len(value)))
        if isinstance(value, set | frozenset):
            found = []
            for each in value:  # in no order
                inner = _Walk(self._libraries)
                inner._seen = dict(self._seen)
                inner.value(each, where)
                self.unknown += inner.unknown
                found.append(inner.found.digest())
            self.said("elements", b"".join(sorted(found)))
        elif isinstance(value, tuple | list):
            for each in value:
                self.value(each, where)
        else:
            for key, each in value.items():
                self.value(key, where)
                self.value(each, f"{where}[{key!r}]")

    def _module(self, value: ModuleType, where: str) -> None:
        if value.__name__ in _CONSTANT and self._is_constant(value):
            self._said_library(value.__name__, value.__name__, "")
        else:  # what is read of it is not seen
            self.untold(where, value)

    def _function(self, function: FunctionType, where: str, bound: Any = _MISSING) -> None:
        if bound is _MISSING and self._again(function):
            return
        code = function.__code__
        outline = _outline(code)
        self.said("function", outline.digest)
        self.value(function.__defaults__, where)
        self.value(function.__kwdefaults__, where)
        if vars(function):
            self.value(vars(function), where)
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        module = str(function.__globals__.get("__name__"))
        if package := self._of_library(module):
            self._said_library(package, module, function.__qualname__)
            for name in cells:
                self._read(function, cells, (_CELL, name, ()), bound, where)
            if bound is not _MISSING:
                self.value(bound, where)
            return
        for read in outline.reads:
            self._read(function, cells, read, bound, where)

    def _read(
        self,
        function: FunctionType,
        cells: dict[str, Any],
        read: tuple[str, str, tuple[str, ...]],
        bound: Any,
        where: str,
    ) -> None:
        kind, name, attributes = read
        first = function.__code__.co_varnames[:1]
        if kind == _UNKNOWN or (kind == _WRITTEN and name in cells):
            self.untold(name)
        elif kind == _GLOBAL:
            self.said("name", name)
            if name in function.__globals__:
                self.chain(function.__globals__[name], attributes, name)
            else:
                self._python(function, name)
        elif kind == _CELL and name in cells:
            self.said("cell", name)
            try:
                content = cells[name].cell_contents
            except ValueError:  # not yet filled
                self.untold(name)
                return
            self.chain(content, attributes, name)
        elif kind in (_FIRST, _CELL, _WRITTEN) and bound is not _MISSING and (name,) == first:
            self.chain(bound, () if kind == _WRITTEN else attributes, where if kind != _FIRST else name)

    def _python(self, function: FunctionType, name: str) -> None:
        """Read a name of Python's own."""
        builtins: Any = function.__globals__.get("__builtins__", {})
        known = vars(builtins) if isinstance(builtins, ModuleType) else builtins
        if name in _DYNAMIC or name not in known:
            self.untold(name)
        else:
            self.said("builtin", name)

    def _method(self, value: MethodType, where: str) -> None:
        function, holder = value.__func__, value.__self__
        if isinstance(holder, type) and (package := self._of_library(holder.__module__)):
            self._said_library(package, holder.__module__, f"{holder.__qualname__}.{value.__name__}")
            return
        if not isinstance(function, FunctionType) or not function.__code__.co_argcount:
            self.untold(where, value)
            return
        if self._again(value, function, holder):
            return
        self.said("method", function.__name__)
        self._function(function, where, holder)

    def _builtin(self, value: Any, where: str) -> None:
        if isinstance(value, np.ufunc):
            of = next((each for each in (np, scipy.special) if getattr(each, value.__name__, None) is value), None)
            if of is None:
                self.untold(where, value)
            else:
                self._said_library(of.__name__.split(".")[0], of.__name__, value.__name__)
            return
        holder = getattr(value, "__self__", None) if isinstance(value, BuiltinFunctionType) else value.__objclass__
        module = str(getattr(value, "__module__", None) or getattr(holder, "__module__", "builtins"))
        package = self._of_library(module)
        if package is None:
            self.untold(where, value)
            return
        self._said_library(package, module, value.__qualname__)
        if holder is not None and not isinstance(holder, ModuleType | type):
            self.value(holder, where)

    def _class(self, value: type, where: str) -> None:
        """Read a class: its bases, its functions and its constants."""
        if package := self._of_library(value.__module__):
            self._said_library(package, value.__module__, value.__qualname__)
            return
        self.said("class", value.__qualname__)
        if self._of_library(type(value).__module__) is None:  # a metaclass may look attributes up elsewhere
            self.untold(where, value)
            return
        for base in value.__bases__:
            self.value(base, where)
        if issubclass(value, Enum):
            for name, each in value.__members__.items():
                self.said("member", name)
                self.value(each.value, f"{where}.{name}")
        for name, member in vars(value).items():
            held = member.__func__ if isinstance(member, staticmethod | classmethod) else member
            before = len(self.unknown)
            for part in (held.fget, held.fset) if isinstance(held, property) else (held,):
                if not _is_machinery(name, part, value):
                    self.said("member", name)
                    self.value(part, f"{where}.{name}")
            if issubclass(value, nn.Module) and (_STARTS.search(name) or isinstance(member, classmethod)):
                del self.unknown[before:]  # it draws weights, or makes layers, before any of them computes

    def _object(self, value: Any, where: str) -> None:
        kind = type(value)
        if isinstance(value, Enum):
            self.value(kind, where)
            self.said("member", value.name)
        elif isinstance(value, tuple) and hasattr(kind, "_fields") and not hasattr(value, "__dict__"):
            self.value(kind, where)
            self.value(tuple(value), where)
        elif dataclasses.is_dataclass(value) and _is_plain_object(value):
            self.value(kind, where)
            state = getattr(value, "__dict__", None)
            names = [each.name for each in dataclasses.fields(value)] if state is None else list(state)
            for name in names:
                self.said("field", name)
                self.value(getattr(value, name, None), f"{where}.{name}")
        elif kind is SimpleNamespace or isinstance(value, functools._lru_cache_wrapper):
            self.value(vars(value), where)
        elif isinstance(value, nn.Module):
            self.value(kind, where)
            self.value(held_by(value), where)
        elif self._is_told_by_its_state(value):
            self.value(kind, where)
            self.value(vars(value), where)
        elif kind.__module__.startswith("langevin_nn.") and hasattr(kind, "description"):
            # As a file knows it. What it holds besides is kept for later, and comes and goes with its use.
            self.value(kind, where)
            self.value(value.description, where)
        elif kind.__module__.split(".", 1)[0] in (*self._libraries, "collections", "fractions"):
            self._reduced(value, where)
        else:
            self.untold(where, value)

    def _is_told_by_its_state(self, value: Any) -> bool:
        """Return whether an object is of Python classes of the user's alone, and all that it holds in its ``__dict__``."""
        bases = [
            each for each in type(value).__mro__ if each.__module__ not in ("abc", "typing") and each is not object
        ]
        slots = any(isinstance(each, MemberDescriptorType) for base in bases for each in vars(base).values())
        own = all(self._of_library(base.__module__) is None for base in bases)
        return bool(bases) and own and not slots and self.looks_into(value) and hasattr(value, "__dict__")

    def _reduced(self, value: Any, where: str) -> None:
        """Read an object of a library by what it is made again from, as a copy is."""
        try:
            made = value.__reduce_ex__(4)
        except Exception:
            made = ""
        if not isinstance(made, str):
            for each in made:
                self.value(list(each) if hasattr(each, "__next__") else each, where)
            return
        module = str(getattr(value, "__module__", None))
        package = self._of_library(module)
        if package and getattr(sys.modules.get(module), made, None) is value:
            self._said_library(package, module, made)
        else:  # a mere name
            self.untold(where, value)


def _is_machinery(name: str, member: Any, kind: type) -> bool:
    """Return whether a member of a class is Python's own bookkeeping rather than something that somebody reads."""
    if isinstance(member, FunctionType):  # a frozen dataclass is given some
        return name in ("__setattr__", "__delattr__") and member.__code__.co_filename == "<string>"
    of_enumeration = issubclass(kind, Enum) and name.startswith("_") and name.endswith("_")
    inner = isinstance(member, (*_DESCRIPTORS, Enum)) or type(member).__name__ in ("_tuplegetter", "_abc_data")
    return name in _BOOKKEEPING or of_enumeration or inner
