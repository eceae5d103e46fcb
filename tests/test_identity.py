"""What runs is what the user wrote: functions of one identity compute the same, compiled code is that of its identity."""

from __future__ import annotations

import functools
import importlib
import math
import os
import subprocess
import sys
import time
import types
from collections import namedtuple
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import float32, float64, njit
from numpy import loadtxt

from langevin_nn import Process, simulate
from langevin_nn.errors import ConfigurationError, UntoldFunctionWarning
from langevin_nn.formulas import POINT, POTENTIAL
from langevin_nn.identity import identity
from langevin_nn.kernels import compilation
from langevin_nn.kernels.cache import CompiledCache, compile_function
from langevin_nn.landscape import PotentialLandscape
from langevin_nn.noise import StateDependentNoise
from langevin_nn.provenance import plain
from langevin_nn.update import EulerMaruyama

ROOT = Path(__file__).parent.parent
TWO = torch.tensor([[2.0]], dtype=torch.float64)
ONE = TWO / 2
F64 = np.dtype(np.float64)


def gradient(function, at=ONE) -> float:
    return PotentialLandscape(function, 1).gradient(at).item()


# --- Pairs that differ in one thing

SOURCE = """
import numpy as np
from numba import njit
import {settings} as settings

CONSTANT = {constant}
TABLE = np.array({table})

@njit
def helper(x, scale={default}):
    return scale * {helped} * np.sin(x)

def make(closed):
    def potential(x):
        {comment}
        return ({literal} * x[0] ** 2 + closed * x[0] + CONSTANT * np.cos(x[0])
            + settings.STIFFNESS * x[0] ** 3 + TABLE[{index}] * x[0] + helper(x[0]))
    return potential

potential = make({closed})
"""
NUMBERS = ("literal", "constant", "closed", "stiffness", "default", "helped")


def built(values: dict, comment: str = "# as it is", moved: str = "") -> types.FunctionType:
    """Write a function into a module of its own, with other line numbers."""
    settings = types.ModuleType("settings_of_a_pair")
    settings.STIFFNESS = values["stiffness"]
    sys.modules[settings.__name__] = settings
    try:
        module = types.ModuleType("module_of_a_pair")
        text = SOURCE.format(**values, settings=settings.__name__, comment=comment)
        exec(compile(moved + text, f"pair_{len(moved)}.py", "exec"), vars(module))
    finally:
        del sys.modules[settings.__name__]
    return module.potential


def pair(seed: int) -> tuple[dict, dict, str]:
    """Draw a function and another that differs in one number, by a little or by a lot."""
    generator = np.random.default_rng(seed)
    values = {name: round(float(generator.uniform(0.5, 2)), 3) for name in NUMBERS}
    size = int(generator.choice([1, 5, 2001]))
    values["index"] = int(generator.integers(size))
    values["table"] = [1.0] * size
    what = [*NUMBERS, "table"][seed % 7]
    other = {**values, "table": list(values["table"])}
    change = float(generator.choice([1e-3, 0.5, 1.0, 30.0]))
    if what == "table":
        other["table"][values["index"]] += change
    else:
        other[what] += change
    return values, other, what


def slope(values: dict, x: float) -> float:
    v = values
    own = 2 * v["literal"] * x + v["closed"] - v["constant"] * math.sin(x) + 3 * v["stiffness"] * x**2
    return own + v["table"][v["index"]] + v["default"] * v["helped"] * math.cos(x)


def test_a_hundred_pairs_that_differ_in_one_thing_have_two_identities_each():
    found = []
    for seed in range(100):
        one, other, what = pair(seed)
        first, second = identity(built(one)), identity(built(other))
        again = identity(built(one, comment="'Anything else.'" if seed % 2 else "# moved", moved="\n" * 7))
        assert first.known, first.unknown
        assert first != second, what
        assert again == first
        found += [first.digest, second.digest]
    assert len(set(found)) == 200


def assert_compiled_apart(seed: int) -> None:
    for values in pair(seed)[:2]:
        assert gradient(built(values), TWO) == pytest.approx(slope(values, 2.0), rel=1e-6)


@pytest.mark.parametrize("seed", [3, 6])
def test_pairs_that_differ_in_one_thing_are_compiled_apart(seed):
    assert_compiled_apart(seed)


@pytest.mark.proof
def test_a_hundred_pairs_are_compiled_apart():
    for seed in range(100):
        assert_compiled_apart(seed)


def test_the_key_of_old_shares_compiled_forms_and_is_caught(monkeypatch):
    """Mutated twin: names, bytecode, and what outside values look like in print."""

    class Looked:
        known, unknown = True, ()

        def __init__(self, function):
            cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
            variables = function.__globals__ | cells
            named = {name: repr(variables[name]) for name in function.__code__.co_names if name in variables}
            shown = {name: each for name, each in named.items() if not each.startswith(("<module", "CPUDispatcher"))}
            self.digest = f"{function.__code__.co_code.hex()}{shown}"

    monkeypatch.setattr(compilation, "identity", Looked)
    caught = set()
    for seed in (0, 3):
        compilation._kept.cache_clear()
        try:
            with monkeypatch.context() as context:
                context.setattr(compilation, "_hold_against_the_plain_function", lambda request, made: None)
                assert_compiled_apart(seed)
        except AssertionError:
            caught.add(pair(seed)[2])
    compilation._kept.cache_clear()
    assert caught == {"literal", "stiffness"}


def test_two_functions_on_one_line():
    a, b = [
        PotentialLandscape(f, 1) for f in (lambda x: 0.2 * (x[0] ** 2 - 1) ** 2, lambda x: 2.0 * (x[0] ** 2 - 1) ** 2)
    ]
    assert a.gradient(TWO).item() == pytest.approx(4.8)
    assert b.gradient(TWO).item() == pytest.approx(48)
    assert plain(a)["potential"]["sha256"] != plain(b)["potential"]["sha256"]


TABLE = np.ones(2001)


def test_a_run_of_another_function_is_not_resumed(tmp_path):
    def run(stiffness, loudness):
        def amplitude(x, out):
            out[0] = loudness

        landscape = PotentialLandscape(lambda x: 0.5 * stiffness * x[0] ** 2, 1, start=[1.0])
        process = Process(landscape, StateDependentNoise(amplitude), 0.05, update=EulerMaruyama())
        simulate(process, steps=2, resume=tmp_path / "run.nc", progress=False)

    run(4.0, 0.5)
    run(4.0, 0.5)
    for other, what in (((1.0, 0.5), "potential"), ((4.0, 0.6), "amplitude")):
        with pytest.raises(ConfigurationError, match=rf"another configuration: .*{what}\.sha256"):
            run(*other)


def test_an_element_of_a_long_array_that_changes_in_place(monkeypatch):
    monkeypatch.setitem(globals(), "TABLE", np.ones(2001))
    landscape = PotentialLandscape(lambda x: 0.5 * TABLE[1000] * x[0] ** 2, 1)
    assert landscape.gradient(ONE).item() == pytest.approx(1)
    said = plain(landscape)
    TABLE[1000] = 5.0
    assert landscape.gradient(ONE).item() == pytest.approx(5)
    assert plain(landscape) != said
    TABLE[1000] = 1.0
    assert plain(landscape) == said


SETTINGS = types.ModuleType("settings")
SETTINGS.STIFFNESS = 1.0
SETTINGS.inner = types.ModuleType("settings.inner")
SETTINGS.inner.STIFFNESS = 1.0


@njit
def pull(x):
    return SETTINGS.inner.STIFFNESS * x


def test_attributes_of_modules_and_what_helpers_read():
    def potential(x):
        return 0.5 * SETTINGS.STIFFNESS * pull(x[0] ** 2)

    landscape = PotentialLandscape(potential, 1)
    assert landscape.gradient(ONE).item() == pytest.approx(1)
    SETTINGS.STIFFNESS = 4.0
    assert landscape.gradient(ONE).item() == pytest.approx(4)
    SETTINGS.inner.STIFFNESS = 2.0
    # The user's own compiled helper keeps the old value, so that the plain function and what it says are not one.
    with pytest.raises(ConfigurationError, match=r"compiled potential gives .*recompile\(\)"):
        landscape.gradient(ONE)
    pull.recompile()
    assert landscape.gradient(ONE).item() == pytest.approx(8)
    SETTINGS.STIFFNESS = SETTINGS.inner.STIFFNESS = 1.0
    pull.recompile()


def test_equal_functions_written_twice_share_their_compiled_form():
    def one(x):
        return 0.5 * x[0] ** 2  # a half

    def other(x):
        """As above, in other words."""
        # Nothing else.
        return (
            0.5
            * x[0] ** 2
        )  # fmt: skip

    assert identity(one) == identity(lambda x: 0.5 * x[0] ** 2)
    near = np.ones(1)
    assert compilation.compiled(one, POTENTIAL, F64, near) is compilation.compiled(
        lambda x: 0.5 * x[0] ** 2, POTENTIAL, F64, near
    )
    assert identity(one).known
    assert identity(other).known


# --- What is read

Pair = namedtuple("Pair", "stiffness shift")


class Kind(Enum):
    SOFT = 1.0
    HARD = 2.0


@dataclass(frozen=True)
class Options:
    stiffness: float = 1.0
    table: np.ndarray = field(default_factory=lambda: np.ones(3))

    def scaled(self, x):
        return self.stiffness * x * self.table[0]


class Spring:
    """An object with a state, methods and a property."""

    scale = 1.0

    def __init__(self, stiffness=1.0):
        self.stiffness, self.unused, self.itself = stiffness, object(), self

    @property
    def twice(self):
        return 2 * self.stiffness

    def force(self, x):
        return self.twice * x + self.itself.scale

    def potential(self, x):
        return self.force(x[0])

    def __call__(self, x):
        return self.stiffness * x[0]


def reader(value):
    """Functions that read a value from their closure, one way or another."""
    if isinstance(value, Spring):
        return lambda x: value.force(x[0])
    if isinstance(value, Options):
        return lambda x: value.scaled(x[0])
    return lambda x: value


CHANGED = {
    "int and float": (1, 1.0),
    "signs of zero": (0.0, -0.0),
    "last bit": (1.0, 1.0 + 2**-52),
    "true and one": (True, 1),
    "text and bytes": ("a", b"a"),
    "precision": (np.float32(1), np.float64(1)),
    "shape": (np.ones((2, 3)), np.ones((3, 2))),
    "layout": (np.ones((2, 2)), np.asfortranarray(np.diag([1.0, 1.0]) * 0 + 1).T.copy(order="F")),
    "dtype": (np.zeros(3, np.int32), np.zeros(3, np.float32)),
    "deep element": (np.zeros(100_001), np.eye(1, 100_001, 50_000)[0]),
    "tensor": (torch.zeros(3), torch.tensor([0.0, 1e-40, 0.0])),
    "half precision": (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
    "tuple": ((1.0, (2.0, 3.0)), (1.0, (2.0, 4.0))),
    "list": ([1.0, 2.0], [2.0, 1.0]),
    "dict": ({"k": 1.0}, {"k": 2.0}),
    "order of a dict": ({"k": 1.0, "m": 1.0}, {"m": 1.0, "k": 1.0}),
    "set": ({"one", "two"}, {"one", "three"}),
    "named tuple": (Pair(1.0, 2.0), Pair(1.0, 3.0)),
    "named tuple and tuple": (Pair(1.0, 2.0), (1.0, 2.0)),
    "enumeration": (Kind.SOFT, Kind.HARD),
    "frozen dataclass": (Options(1.0), Options(2.0)),
    "array in a dataclass": (Options(), Options(table=np.array([1.0, 1.0, 2.0]))),
    "object": (Spring(1.0), Spring(2.0)),
    "partial": (functools.partial(max, 1.0), functools.partial(max, 2.0)),
    "inner function": (lambda x: 1.0, lambda x: 2.0),
    "library function": (np.sin, np.cos),
    "method": (Spring(1.0).force, Spring(2.0).force),
}  # fmt: skip


@pytest.mark.parametrize(("one", "other"), CHANGED.values(), ids=CHANGED)
def test_values_that_are_read_count(one, other):
    first, second = identity(reader(one)), identity(reader(other))
    assert first.known, first.unknown
    assert first == identity(reader(one))
    assert first.digest != second.digest


def _of(attribute, holder, value):
    setattr(holder, attribute, value)
    return holder


READ = {
    "an attribute of a function": lambda k: _of("k", lambda x: x, k),
    "an attribute of a function that remembers": lambda k: _of("k", functools.cache(lambda x: x), k),
    "an attribute of a tensor": lambda k: _of("k", torch.ones(1), k),
    "an attribute of a partial": lambda k: _of("k", functools.partial(max), k),
    "a class": lambda k: type("Made", (), {"k": k}),
    "an object": lambda k: _of("k", Plain(), k),
}


class Plain:
    """No dataclass."""


@pytest.mark.parametrize("made", READ.values(), ids=READ)
@pytest.mark.parametrize("read", [lambda value: lambda x: value.k * x, lambda value: lambda x: asked(value) * x])
def test_attributes_count_wherever_they_lie(made, read):
    found = [identity(read(made(k))) for k in (1.0, 1.0, 2.0)]
    assert all(each.known for each in found), found
    assert found[0] == found[1] != found[2]


def asked(value):
    return value.k


@pytest.mark.parametrize("made", [lambda function: function, njit])
def test_a_function_reads_its_own_attributes(made):
    @made
    def own(x):
        return own.k * x

    found = [identity(_of("k", own, k)) for k in (1.0, 2.0)]
    assert found[0].known
    assert found[0] != found[1]


@pytest.mark.parametrize("name", ["_k_", "__k__", "__call__"])
def test_members_of_classes_count_whatever_their_name(name):
    def holding(value):
        made = dataclass(type("Made", (), {name: functools.cache(value) if name == "__call__" else value(0)}))()
        return identity(lambda x: made(x))

    found = [holding(each) for each in (lambda x: 1.0, lambda x: 1.0, lambda x: 2.0)]
    assert found[0].known
    assert found[0] == found[1] != found[2]


def test_a_set_may_hold_a_function_that_reads_it_and_a_depth_without_end_is_unknown():
    held = set()

    def reads(x):
        return x if reads in held else 2 * x

    held.add(reads)
    assert identity(reads).known
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert identity(lambda x: deep).unknown == (
        "test_a_set_may_hold_a_function_that_reads_it_and_a_depth_without_end_is_unknown.<locals>.<lambda> (too deep)",
    )


class Network(torch.nn.Linear):
    scale = 1.0

    def forward(self, x):
        return self.scale * super().forward(x)


def test_networks_count_by_their_code_and_weights():
    network = Network(1, 1)

    def reads(x):
        return network(x)

    before = identity(reads)
    assert before.known, before.unknown
    with torch.no_grad():
        network.weight += 1
    assert identity(reads) != before


@pytest.mark.parametrize("change", ["stiffness", "scale"])
def test_objects_count_by_what_is_read_of_them(change):
    spring = Spring()
    called = (spring.potential, spring, functools.partial(spring.force, 2.0), lambda x: spring.force(x[0]))
    before = [identity(each) for each in called]
    assert all(each.known for each in before)
    spring.unused = object()
    assert [identity(each) for each in called] == before
    setattr(spring, change, 7.0)
    same = [identity(each) == old for each, old in zip(called, before, strict=True)]
    assert same == [False, change == "scale", False, False]


def rebinds(x):
    s = SETTINGS
    return s.STIFFNESS * x[0]


def asks(x):
    return getattr(SETTINGS, "STIFFNESS") * x[0]  # noqa: B009


def counts(x):
    global TABLE
    TABLE = x
    return 0.0


def imports(x):
    import settings

    return settings.STIFFNESS * x[0]


def loads_inside(x):
    import numpy

    return numpy.load("k.npy") * x[0]


def imports_beside(x):
    from .numbers import K

    return K * x[0]


ANYTHING = object()
UNKNOWN = {
    "a module by another name": (rebinds, "SETTINGS (module)"),
    "getattr": (asks, "getattr"),
    "what it changes": (counts, "TABLE"),
    "imports": (imports, "settings"),
    "an object": (lambda x: ANYTHING, "ANYTHING (object)"),
    "a random generator": (lambda x: STATE.random(), "numpy.random._mt19937.MT19937"),
    "random numbers": (lambda x: np.random.rand() * x[0], "numpy.random.rand"),  # noqa: NPY002
    "random numbers of torch": (lambda x: torch.randn(1) * x[0], "torch.randn"),
    "a file of NumPy": (lambda x: np.load("k.npy") * x[0], "numpy.load"),
    "a file of torch": (lambda x: torch.load("k.pt") * x[0], "torch.load"),
    "a function that reads a file": (lambda x: loadtxt("k.txt") * x[0], "numpy.lib._npyio_impl.loadtxt"),
    "a file": (lambda x: float(Path("k.txt").read_text()) * x[0], "pathlib.Path"),
    "the environment": (lambda x: float(os.getenv("K", "1")) * x[0], "os.getenv"),
    "all of the environment": (lambda x: os.environ, "os.environ (_Environ)"),
    "where Python looks for modules": (lambda x: len(sys.path) * x[0], "sys.path (list)"),
    "a clock": (lambda x: time.time() * x[0], "time.time"),
    "a module as a value": (lambda x, numpy=np: numpy.load("k.npy"), "<lambda> (module)"),
    "a file, of a library imported inside": (loads_inside, "load"),
    "a module of its package": (imports_beside, "numbers"),
    "a class that looks attributes up": (lambda x: Looked.K * x[0], "Looked (Elsewhere)"),
}


class Elsewhere(type):
    def __getattr__(cls, name):
        if name == "K":
            return 1.0
        raise AttributeError(name)


class Looked(metaclass=Elsewhere):
    pass


STATE = np.random.RandomState(0)


@pytest.mark.parametrize(("function", "said"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_cannot_be_told_is_said(function, said):
    found = identity(function)
    assert said in found.unknown
    assert not found.known


def test_what_cannot_be_told_is_compiled_anew_each_time_and_not_kept(monkeypatch):
    landscape = PotentialLandscape(rebinds, 1)
    with pytest.warns(UntoldFunctionWarning, match=r"rebinds reads what cannot be told .*SETTINGS"):
        assert landscape.gradient(ONE).item() == pytest.approx(1)
    monkeypatch.setattr(SETTINGS, "STIFFNESS", 3.0)
    with pytest.warns(UntoldFunctionWarning):
        assert landscape.gradient(ONE).item() == pytest.approx(3)
    assert not list((ROOT / "tests" / "__pycache__").glob("test_identity.rebinds*"))


def test_running_a_function_does_not_change_its_identity():
    """The interpreter rewrites bytecode as it runs."""
    before = identity(slope)
    values = pair(0)[0]
    for _ in range(3000):
        slope(values, 1.0)
    assert identity(slope) == before


@given(value=st.recursive(st.floats() | st.integers() | st.text() | st.none(), lambda x: st.lists(x) | st.tuples(x, x)))
def test_equal_values_are_one_identity(value):
    import copy

    assert identity(reader(value)) == identity(reader(copy.deepcopy(value)))


# --- A compiled function is held against the plain one


def half(x, out):
    out[0] = 0.5 * x[0]


def test_another_compiled_form_than_the_plain_function_is_an_error(monkeypatch):
    """As if the cache held another function's code."""

    def doubled(function, *arguments, **options):
        def other(x, out):
            out[0] = 0.5001 * x[0]

        return compile_function(other, *arguments[:1], **options)

    compilation._kept.cache_clear()
    monkeypatch.setattr(compilation, "compile_function", doubled)
    with pytest.raises(
        ConfigurationError, match=r"half gives \[1.0002\] at \[2.\], where the plain function gives \[1.\]"
    ):
        compilation.compiled(half, POINT, F64, np.array([2.0]))
    monkeypatch.undo()
    assert compilation.compiled(half, POINT, F64, np.array([2.0])).function


STEEP = {
    "a step at the start": lambda x: 1.0 if x[0] > 1.0 else 0.0,
    "cancelling terms": lambda x: (1e8 + x[0]) - 1e8,
    "a domain with an end": lambda x: math.log(x[0] - 0.99),
    "beyond the largest number": lambda x: np.exp(1e3 * x[0]),
    "a well": lambda x: (x[0] ** 2 - 1) ** 2,
}


@pytest.mark.parametrize("function", STEEP.values(), ids=STEEP)
def test_rounding_is_no_difference(function):
    inner = njit(function)

    def written(x, out):
        out[0] = inner(x)

    compilation.compiled(function, POTENTIAL, F64, np.ones(1))
    compilation.compiled(written, POINT, np.dtype(np.float32), np.ones(1))


# --- In a process of its own


EDITED = """
import torch
import settings
from langevin_nn.landscape import PotentialLandscape
from langevin_nn.provenance import described_function

def potential(x):
    return 0.5 * settings.STIFFNESS * x[0] ** 2

def amplitude(x, out):
    out[0] = settings.AMPLITUDE

def seen():
    slope = PotentialLandscape(potential, 1).gradient(torch.ones(1, 1, dtype=torch.float64)).item()
    return [str(slope), *(described_function(each)["sha256"] for each in (potential, amplitude))]

if __name__ == "__main__":
    print(*seen())
"""


def write_settings(folder: Path, stiffness: float, amplitude: float) -> None:
    """Write a module of another time each: Python tells edits by whole seconds and sizes."""
    (folder / "settings.py").write_text(f"STIFFNESS = {stiffness}\nAMPLITUDE = {amplitude}\n")
    os.utime(folder / "settings.py", (1e9 + 100 * stiffness + amplitude,) * 2)


def ran(folder: Path, script: str = "script.py", *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def test_an_edited_module_is_seen_by_the_next_process(tmp_path, monkeypatch):
    (tmp_path / "edited.py").write_text(EDITED)
    write_settings(tmp_path, 1.0, 0.5)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        before = importlib.import_module("edited").seen()
    finally:
        sys.modules.pop("edited", None), sys.modules.pop("settings", None)
    write_settings(tmp_path, 4.0, 0.5)
    after = ran(tmp_path, "edited.py").split()
    assert [float(each[0]) for each in (before, after)] == pytest.approx([1.0, 4.0])
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]


def test_two_that_write_at_once_find_their_own_code_and_the_index_of_old_is_caught(tmp_path):
    """Two processes that look before either writes, as they do when they start together; and a mutated twin."""
    from numba.core.caching import IndexDataCacheFile

    class Ours:
        """The cache, with one signature for each key: what it keeps and finds are compiled forms."""

        kinds = {"first": float64(float64), "second": float32(float32)}  # noqa: RUF012

        def __init__(self):
            self.cache = CompiledCache(tripled, "of a test")
            self.cache._folder = tmp_path
            self.cache._packing.locator.ensure_cache_path = lambda: None

        def looks(self):
            return [self.load(key) for key in self.kinds]

        def save(self, key, _):
            self.cache.save_overload(self.kinds[key], njit(self.kinds[key])(tripled).overloads[self.kinds[key].args])

        def load(self, key):
            found = self.cache.load_overload(self.kinds[key], _target())
            return found and f"code of the {next(k for k, each in self.kinds.items() if each == found.signature)}"

    class Numbas(IndexDataCacheFile):
        def __init__(self):
            super().__init__(str(tmp_path), "function", "stamp")

        def looks(self):
            index = self._load_index()
            self._load_index = lambda: index

    def assert_apart(make) -> None:
        first, second = make(), make()
        first.looks()
        second.looks()
        second.save("second", "code of the second")
        first.save("first", "code of the first")
        found = {key: make().load(key) for key in ("first", "second")}
        assert found == {"first": "code of the first", "second": "code of the second"}

    assert_apart(Ours)
    with pytest.raises(AssertionError):
        assert_apart(Numbas)


def tripled(x):
    return x * 3


def test_a_damaged_file_of_the_cache_is_compiled_anew(tmp_path):
    namespace: dict = {}
    (tmp_path / "written.py").write_text("def function(x):\n    return 2 * x\n")
    exec(compile((tmp_path / "written.py").read_text(), tmp_path / "written.py", "exec"), namespace)
    function = namespace["function"]
    for damage in (b"", b"nothing", None):
        cache = CompiledCache(function, "of a test")
        assert compile_function(function, float64(float64), cache)(2.0) == 4.0
        assert cache.loaded == []
        (file,) = (tmp_path / "__pycache__").glob("*.nbc")
        file.write_bytes(file.read_bytes()[:-3] + b"abc" if damage is None else damage)
    compile_function(function, float64(float64), CompiledCache(function, "of a test"))
    cache = CompiledCache(function, "of a test")
    assert compile_function(function, float64(float64), cache)(2.0) == 4.0
    assert len(cache.loaded) == 1
    assert CompiledCache(function, "of another")._path(float64(float64), _target().codegen()) not in cache.loaded


def _target():
    from numba.core.registry import cpu_target

    return cpu_target.target_context


NAMES = """
import sys
import torch
from langevin_nn.landscape import PotentialLandscape
a, b = (lambda x: 0.5 * x[0] ** 2), (lambda x: 1.5 * x[0] ** 2)
at = torch.ones(1, 1, dtype=torch.float64)
print(*(PotentialLandscape(each, 1).gradient(at).item() for each in ([a, b] if "both" in sys.argv else [a])))
from langevin_nn.kernels.compilation import compiled
from langevin_nn.formulas import POTENTIAL
import numpy as np
addresses = {compiled(each, POTENTIAL, np.dtype(float)).pointer.__wrapper_address__() for each in (a, b)}
assert len(addresses) == 2 or "both" not in sys.argv
"""


@pytest.mark.proof
def test_code_from_the_cache_and_code_compiled_here_do_not_share_a_name(tmp_path):
    """Numba numbers functions as it compiles them: what comes from the cache has the number of another process."""
    (tmp_path / "names.py").write_text(NAMES)
    ran(tmp_path, "names.py")
    assert [float(each) for each in ran(tmp_path, "names.py", "both").split()] == pytest.approx([1.0, 3.0])
