"""Many replicas of a stochastic differential equation: tiles of replicas over threads, blocks of steps in each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numba import boolean, float32, float64, get_num_threads, int64, njit, prange, set_num_threads, types, uint64
from numpy.typing import NDArray

from langevin_nn.formulas import (
    BROWNIAN,
    COLOURED,
    FULL,
    LANES,
    MATRIX,
    MAXIMUM_TERMS,
    NOTHING,
    POINT,
    POTENTIAL,
    STABLE,
    TILE,
    FieldFormula,
    NoiseFormula,
)
from langevin_nn.kernels.bits import borrowed
from langevin_nn.kernels.cache import cached
from langevin_nn.kernels.compilation import announced, quiet, slots
from langevin_nn.kernels.fields import signatures
from langevin_nn.kernels.normals import fill_normals, steps_per_fill
from langevin_nn.kernels.schemes import (
    BAOAB,
    LEIMKUHLER_MATTHEWS,
    STRONG_ADDITIVE,
    Dynamics,
    Work,
    step,
    write_gradient,
    write_kick,
)

__all__ = ["advance", "kernel"]

# Numbers before those of step 0, for schemes that remember the step before: no run gets there.
_BEFORE_THE_START = np.uint64(2**62)

# Numbers that a block of steps changes, below which one thread is faster than several: about half a millisecond's work.
_WORTH_THREADS = 500_000

_OPTIONS: dict[str, Any] = {"error_model": "numpy"}


@njit(**_OPTIONS)
def _write_stable(z, index, out):
    """Write symmetric stable numbers of characteristic function exp(−|k|^index) (Chambers, Mallows & Stuck 1976).

    The direction of a pair of normal numbers is a uniform angle, half its squared length an exponential number.
    """
    rank = out.shape[0]
    for j in range(rank):
        for lane in range(z.shape[1]):
            # In float64: in float32 the arc tangent of infinity is beyond π/2.
            x, y = np.float64(z[j, lane]), np.float64(z[rank + j, lane])
            angle, waiting = math.atan(y / x), (x * x + y * y) / 2
            if waiting == 0:
                out[j, lane] = 0
            elif index == 1:
                out[j, lane] = math.tan(angle)
            else:
                front = math.sin(index * angle) / math.cos(angle) ** (1 / index)
                out[j, lane] = front * (math.cos((1 - index) * angle) / waiting) ** ((1 - index) / index)


@njit(**_OPTIONS)
def _write_coloured(z, law, fresh, zeta, out):
    """Advance an Ornstein–Uhlenbeck process and write its mean over the step, by their joint law: `ColouredNoise`."""
    rank = out.shape[0]
    for j in range(rank):
        for lane in range(z.shape[1]):
            if fresh:
                zeta[j, lane] = law[4] * z[j, lane]
                out[j, lane] = law[5] * zeta[j, lane] + law[6] * z[rank + j, lane]
            else:
                # Where a step takes hardly anything away, one minus it would be rounded to one.
                before = zeta[j, lane]
                zeta[j, lane] = before + (law[0] * before + law[1] * z[j, lane])
                out[j, lane] = law[2] * (before + zeta[j, lane]) + law[3] * z[rank + j, lane]


@njit(**_OPTIONS)
def _all_finite(x, lane):
    total = x.dtype.type(0)
    for i in range(x.shape[0]):
        total += x[i, lane]
    return np.isfinite(total)


def _advance(
    scheme, kinds, tiles, points, potentials, constants, noise, amplitude_kind, amplitude_tile, amplitude_point,
    amplitude_matrix, amplitude_constants, factor, rank, law, law_parameters, positions, memory, noise_memory,
    replicas, key, first_step, n_steps, given, time_step, root, strength, parameters, diverged, watch,
):  # fmt: skip
    n_replicas, n_parameters = positions.shape
    per_step = rank * (2 if scheme == STRONG_ADDITIVE or law != BROWNIAN else 1)
    together = steps_per_fill(per_step)
    wide = n_parameters * rank if noise == FULL else n_parameters
    failed = np.full(n_replicas, -1)
    n_tiles = (n_replicas + LANES - 1) // LANES
    for index in prange(n_tiles):
        start = np.int64(index) * LANES
        count = min(LANES, n_replicas - start)
        chosen, words = np.empty(LANES, np.uint64), np.empty((4, LANES), np.uint32)
        x = np.empty((n_parameters, LANES), positions.dtype)
        remembered = np.zeros((memory.shape[1], LANES), positions.dtype)
        coloured = np.zeros((noise_memory.shape[1], LANES), positions.dtype)
        # Lanes without a replica repeat the last one.
        for lane in range(LANES):
            source = start + min(lane, count - 1)
            chosen[lane] = replicas[source]
            for i in range(n_parameters):
                x[i, lane] = positions[source, i]
            for i in range(memory.shape[1]):
                remembered[i, lane] = memory[source, i]
            for i in range(noise_memory.shape[1]):
                coloured[i, lane] = noise_memory[source, i]
        # The step sees arrays that count no references; their owners are these, to the end of the tile.
        small, large = np.zeros((4, n_parameters, LANES), x.dtype), np.empty((2, wide, LANES), x.dtype)
        normals, shaped = np.empty((together * per_step, LANES), x.dtype), np.empty((rank, LANES), x.dtype)
        work = Work(
            borrowed(small[0]), borrowed(small[1]), borrowed(small[2]), borrowed(small[3]),
            borrowed(large[0]), borrowed(large[1]),
        )  # fmt: skip
        terms = (borrowed(constants[0]), borrowed(constants[1]), borrowed(constants[2]))
        dynamics = Dynamics(
            kinds, tiles, points, potentials, terms, noise, amplitude_kind, amplitude_tile, amplitude_point,
            amplitude_matrix, borrowed(amplitude_constants), borrowed(factor), time_step, root, strength,
            borrowed(parameters), count,
        )  # fmt: skip
        point, moved, mixed = borrowed(x), borrowed(remembered), borrowed(coloured)
        numbers, driving = borrowed(normals), borrowed(shaped)
        lanes, bits = borrowed(chosen), borrowed(words)
        if scheme == BAOAB:
            write_gradient(dynamics, point, work.slope, work.other)
        if scheme == LEIMKUHLER_MATTHEWS and first_step == 0 and given.shape[0] == 0 and rank > 0:
            before = np.empty((4 * rank, LANES), x.dtype)
            fill_normals(before, lanes, key, _BEFORE_THE_START, bits)
            write_kick(dynamics, point, before[:rank], moved, work.amplitude)
        for now in range(n_steps):
            place = np.int64((first_step + np.uint64(now)) % np.uint64(together)) * per_step
            if given.shape[0] > 0:
                place = 0
                for number in range(per_step):
                    for lane in range(LANES):
                        numbers[number, lane] = given[start + min(lane, count - 1), now, number]
            elif per_step > 0 and (now == 0 or place == 0):
                first = (first_step + np.uint64(now)) * np.uint64(per_step) - np.uint64(place)
                fill_normals(numbers, lanes, key, first, bits)
            z = numbers[place : place + per_step]
            if law == STABLE:
                _write_stable(z, law_parameters[0], driving)
                z = driving
            elif law == COLOURED:
                _write_coloured(z, law_parameters, first_step + np.uint64(now) == np.uint64(0), mixed, driving)
                z = driving
            step(scheme, point, z, moved, dynamics, work)
            if (now + 1) % watch == 0 or now == n_steps - 1:
                stop = False
                for lane in range(count):
                    if not diverged[start + lane] and not _all_finite(point, lane):
                        failed[start + lane] = now
                        stop = True
                if stop:
                    break
        if small.size + large.size + normals.size + shaped.size + chosen.size + words.size < 0:
            failed[start] = 0  # never: a last use, which keeps the owners alive until here
        for lane in range(count):
            for i in range(n_parameters):
                positions[start + lane, i] = x[i, lane]
            for i in range(memory.shape[1]):
                memory[start + lane, i] = remembered[i, lane]
            for i in range(noise_memory.shape[1]):
                noise_memory[start + lane, i] = coloured[i, lane]
    return failed


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Hold Numba to some threads: to wake others costs more than a short block of steps, above all on a busy machine."""
    before = get_num_threads()
    set_num_threads(number)
    try:
        yield
    finally:
        set_num_threads(before)


@cache
def kernel(dtype: Any) -> Any:
    """Return the compiled integrator for one precision, with the arguments of `_advance`."""
    real: Any = {np.dtype(np.float64): float64, np.dtype(np.float32): float32}[dtype]
    function = {kind: types.FunctionType(each) for kind, each in signatures(real).items()}
    row, matrix = real[::1], real[:, ::1]
    terms = [types.UniTuple(function[kind], MAXIMUM_TERMS) for kind in (TILE, POINT, POTENTIAL)]
    signature = int64[::1](
        int64, types.UniTuple(int64, MAXIMUM_TERMS), *terms, types.UniTuple(row, MAXIMUM_TERMS), int64, int64,
        function[TILE], function[POINT], function[MATRIX], row, matrix, int64, int64, row, matrix, matrix, matrix,
        uint64[::1], uint64, uint64, int64, real[:, :, ::1], real, real, real, row, boolean[::1], int64,
    )  # fmt: skip
    with announced("the integrators"), quiet():
        return cached(signature, parallel=True, **_OPTIONS)(_advance)


def advance(
    scheme: int,
    drift: Sequence[FieldFormula],
    noise: NoiseFormula,
    positions: NDArray[Any],
    memory: NDArray[Any],
    noise_memory: NDArray[Any],
    *,
    replicas: Sequence[int],
    key: int,
    first_step: int,
    n_steps: int,
    time_step: float,
    strength: float,
    parameters: Sequence[float],
    diverged: NDArray[np.bool_],
    given: NDArray[Any] | None,
    watch: int,
) -> NDArray[np.int64]:
    """Advance replicas in place.

    Parameters
    ----------
    scheme : int
        Of `langevin_nn.kernels.schemes`.
    drift : sequence of FieldFormula
        Terms, at most `MAXIMUM_TERMS`.
    noise : NoiseFormula
        What is added.
    positions : ndarray of float64 or float32, shape (replica, parameter)
        Changed in place; its precision is that of everything.
    memory : ndarray, shape (replica, number)
        Of the scheme, changed in place.
    noise_memory : ndarray, shape (replica, number)
        Of the noise, changed in place.
    replicas : sequence of int
        Indices of the replicas.
    key : int
        Of seed and purpose.
    first_step, n_steps : int
        Which steps.
    time_step : float
        Δt.
    strength : float
        What multiplies the noise besides its power of the time step.
    parameters : sequence of float
        Of the scheme.
    diverged : ndarray of bool, shape (replica,)
        Replicas that have diverged and are not watched.
    given : ndarray or None, shape (replica, step, number)
        Standard normal numbers to use in the place of drawn ones.
    watch : int
        Look for divergence after so many steps.

    Returns
    -------
    ndarray of int64, shape (replica,)
        Step, counted from `first_step`, after which a replica was found not to be finite; −1 for never. Replicas of its
        tile stop there.
    """
    dtype = positions.dtype

    def row(values: Any) -> NDArray[Any]:
        return np.array(values, dtype).reshape(-1)

    terms = [*drift, *[FieldFormula(NOTHING)] * (MAXIMUM_TERMS - len(drift))]
    near = positions[0].astype(np.float64) if len(positions) else None
    tiles, points, potentials, _ = zip(*(slots(each, dtype, near) for each in terms), strict=True)
    amplitude = slots(noise.field, dtype, near, noise.rank)
    given = np.empty((0, 0, 0), dtype) if given is None else np.ascontiguousarray(given, dtype)
    n_tiles = -(-len(positions) // LANES)
    small = n_tiles * LANES * positions.shape[1] * n_steps < _WORTH_THREADS
    with quiet(), _threads(1 if small else min(n_tiles, get_num_threads())):
        failed: NDArray[np.int64] = kernel(dtype)(
            scheme,
            tuple(each.kind for each in terms),
            tiles,
            points,
            potentials,
            tuple(row(each.constants) for each in terms),
            noise.structure,
            noise.field.kind,
            amplitude[0],
            amplitude[1],
            amplitude[3],
            row(noise.field.constants),
            np.array(noise.factor, dtype, order="C"),
            noise.rank,
            noise.law,
            row(noise.parameters),
            positions,
            memory,
            noise_memory,
            np.asarray(replicas, np.uint64),
            np.uint64(key),
            np.uint64(first_step),
            n_steps,
            given,
            dtype.type(time_step),
            dtype.type(time_step**noise.time_step_exponent),
            dtype.type(strength),
            row(parameters),
            np.ascontiguousarray(diverged, np.bool_),
            watch,
        )
    return failed
