"""Products in vector registers and the elementary functions beside them, against float64 and for every shape."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from langevin_nn.kernels import perceptron
from langevin_nn.kernels.products import LANES, add_combinations, dot_products, row_addresses

CANARY = 2.0**100
SIZES = st.integers(1, 3 * LANES + 1)


def guarded(matrix):
    """Return a copy of a matrix in the middle of a buffer of canaries, and the buffer."""
    buffer = np.full(matrix.size + 4 * LANES, CANARY, np.float32)
    inside = buffer[2 * LANES : 2 * LANES + matrix.size].reshape(matrix.shape)
    inside[:] = matrix
    return inside, buffer


def untouched(inside, buffer):
    return (buffer[: 2 * LANES] == CANARY).all() and (buffer[2 * LANES + inside.size :] == CANARY).all()


def chosen_rows(matrix, rows):
    """Return the addresses of some rows of a matrix."""
    every = np.empty(len(matrix), np.int64)
    row_addresses(matrix, every)
    return every[rows]


@given(SIZES, SIZES, SIZES, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_dot_products_of_chosen_rows(n_rows, n_others, length, seed):
    """Nothing outside the result is written, nothing outside the rows is read: that would be 2¹⁰⁰."""
    generator = np.random.default_rng(seed)
    matrix, _ = guarded(generator.standard_normal((n_rows + 2, length)).astype(np.float32))
    other, _ = guarded(generator.standard_normal((n_others, length)).astype(np.float32))
    out, buffer = guarded(np.full((n_rows, n_others), np.nan, np.float32))
    rows = generator.integers(n_rows + 2, size=n_rows)
    dot_products(chosen_rows(matrix, rows), n_rows, other, out)
    exact = matrix[rows].astype(float) @ other.T.astype(float)
    largest = np.abs(matrix[rows]).astype(float) @ np.abs(other.T).astype(float)
    assert (np.abs(out - exact) <= 2e-7 * (1 + length / LANES) * largest + 1e-30).all()
    assert untouched(out, buffer)


@given(SIZES, SIZES, SIZES, st.booleans(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_combinations_are_added(n_rows, n_terms, length, transposed, seed):
    generator = np.random.default_rng(seed)
    terms, _ = guarded(generator.standard_normal((n_terms + 2, length)).astype(np.float32))
    start = generator.standard_normal((n_rows, length)).astype(np.float32)
    out, buffer = guarded(start)
    factors = generator.standard_normal((n_terms, n_rows) if transposed else (n_rows, n_terms)).astype(np.float32)
    rows = generator.integers(n_terms + 2, size=n_terms)
    add_combinations(factors, chosen_rows(terms, rows), transposed, out)
    left = (factors.T if transposed else factors).astype(float)
    exact = start + left @ terms[rows].astype(float)
    largest = np.abs(start) + np.abs(left) @ np.abs(terms[rows]).astype(float)
    assert (np.abs(out - exact) <= 2e-7 * (1 + n_terms) * largest + 1e-30).all()
    assert untouched(out, buffer)


@pytest.mark.proof
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="named processors are x86-64")
@pytest.mark.parametrize("processor", ["haswell +avx,+avx2,+fma,+sse4.2", "nehalem +sse4.2"])
def test_processors_with_shorter_registers_agree(processor, tmp_path):
    """Compiled for them, and run here."""
    name, features = processor.split()
    code = f"""
import numpy as np
from langevin_nn.kernels.products import LANES, add_combinations, dot_products, row_addresses
assert LANES == {8 if "avx2" in features else 4}
generator = np.random.default_rng(0)
a, b = (generator.standard_normal(shape).astype(np.float32) for shape in ((7, 37), (11, 37)))
rows, out = np.empty(7, np.int64), np.empty((7, 11), np.float32)
row_addresses(a, rows)
dot_products(rows, 7, b, out)
assert np.allclose(out, a.astype(float) @ b.T, atol=1e-5)
more = b.copy()
add_combinations(out, rows, True, more)
assert np.allclose(more, b + out.T.astype(float) @ a, atol=1e-4)
"""
    settings_of = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=os.environ | settings_of, check=True, timeout=120)


DESCENT = """
import sys
from hashlib import sha256
import numba
import numpy as np
if sys.argv[1] == "twin":  # every function in a copy of its own
    njit = numba.njit
    numba.njit = lambda *arguments, forceinline=False, **options: njit(*arguments, **options)
from langevin_nn import formulas
from langevin_nn.kernels import perceptron
generator, found = np.random.default_rng(0), sha256()
widths = np.array([64, 12, 10])
weights = generator.standard_normal((2, 910)).astype(np.float32)
inputs, labels = generator.random((150, 64)).astype(np.float32), generator.integers(10, size=(1, 150))
rows, rates = generator.integers(150, size=(2, 5, 20)), np.full(2, 0.1, np.float32)
for activation in (formulas.RELU, formulas.TANH, formulas.GELU):
    for velocities, constants in ((weights[:0], (0, 0)), (0 * weights, (0.5, 1e-3))):
        own = weights.copy()
        perceptron.descend(own, velocities, inputs, labels, rows, rates, *map(np.float32, constants), widths, activation)
        found.update(own)
print(found.hexdigest())
"""


@pytest.mark.proof
def test_the_process_that_compiles_has_the_bits_of_those_that_load(tmp_path):
    def bits(which):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / which)}
        command = [sys.executable, "-c", DESCENT, which]
        return subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300).stdout

    assert len({bits("ours") for _ in range(2)}) == 1
    assert len({bits("twin") for _ in range(2)}) == 2


# --- elementary functions

POINTS = np.concatenate([np.linspace(-20, 20, 40_001), np.geomspace(1e-30, 1, 301), -np.geomspace(1e-30, 1, 301)])
POINTS = POINTS.astype(np.float32)


@njit
def values(which, points, out):
    for k in range(len(points)):
        if which == 0:
            out[k] = perceptron._exponential(points[k])
        elif which == 1:
            out[k] = perceptron._tangent(points[k])
        elif which == 2:
            out[k] = perceptron._normal_law(points[k])[0]
        else:
            out[k] = perceptron._normal_law(points[k])[1]


def evaluated(which, points):
    out = np.empty(len(points), np.float32)
    values(which, np.asarray(points, np.float32), out)
    return out


EXACT = [
    np.exp,
    np.tanh,
    lambda x: np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in x]),
    lambda x: np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi),
]


@pytest.mark.parametrize(("which", "absolute", "relative"), [(0, 0, 4e-7), (1, 0, 2e-6), (2, 3e-7, 0), (3, 0, 4e-6)])
def test_elementary_functions(which, absolute, relative):
    """The distribution function to 7.5e-8, the error of its approximation, and the rounding of its terms."""
    points = POINTS[np.abs(POINTS) < 13] if which == 3 else POINTS
    exact = EXACT[which](points.astype(float))
    error = np.abs(evaluated(which, points) - exact)
    assert (error <= absolute + relative * np.abs(exact)).all(), (error - relative * np.abs(exact)).max()


@pytest.mark.parametrize("which", range(4))
def test_what_is_no_number_stays_none(which):
    """A replica that diverges is found by it."""
    assert np.isnan(evaluated(which, [np.nan])).all()


def test_tails():
    assert evaluated(0, [-np.inf, -1000.0]).max() < 1e-37
    assert evaluated(1, [-np.inf, np.inf]).tolist() == [-1, 1]
    assert evaluated(2, [-40.0, 40.0]).tolist() == pytest.approx([0, 1], abs=1e-30)
