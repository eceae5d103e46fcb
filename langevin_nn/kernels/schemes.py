"""One step of each integrator over a tile of replicas; the formulas are those of `langevin_nn.update.schemes`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from langevin_nn.formulas import CONSTANT_DENSE, CONSTANT_DIAGONAL, DIAGONAL, FULL, LANES, NOTHING, POINT, SILENT, TILE
from langevin_nn.kernels.bits import flat
from langevin_nn.kernels.fields import write_field

__all__ = [
    "BAOAB",
    "EULER_MARUYAMA",
    "HEUN",
    "LEIMKUHLER_MATTHEWS",
    "MILSTEIN",
    "STRONG_ADDITIVE",
    "WEAK_SECOND_ORDER",
    "Dynamics",
    "Work",
    "step",
    "write_gradient",
    "write_kick",
]

EULER_MARUYAMA, HEUN, MILSTEIN, WEAK_SECOND_ORDER, STRONG_ADDITIVE, LEIMKUHLER_MATTHEWS, BAOAB = range(7)

# No fused multiplications: where a sum has two products, which of them is fused may differ between vectors and remainders.
_OPTIONS: dict[str, Any] = {"error_model": "numpy"}
# A call copies a hundred words of `Dynamics`, more than a step of few dimensions takes: the scheme that is run most, with
# the noise that is met most, is inlined. To inline all would make compiling take minutes.
_INLINE: dict[str, Any] = {**_OPTIONS, "forceinline": True}


class Dynamics(NamedTuple):
    """What moves a tile: drift terms, noise, time step."""

    kinds: Any
    tiles: Any
    points: Any
    potentials: Any
    constants: Any
    noise: Any
    amplitude_kind: Any
    amplitude_tile: Any
    amplitude_point: Any
    amplitude_matrix: Any
    amplitude_constants: Any
    factor: Any
    time_step: Any
    root: Any
    strength: Any
    parameters: Any
    count: Any


class Work(NamedTuple):
    """Scratch tiles, shape (parameter, lane); `amplitude` and `further` may have (parameter · rank, lane)."""

    slope: Any
    other: Any
    kick: Any
    trial: Any
    amplitude: Any
    further: Any


@njit(**_OPTIONS)
def _add(out, scale, term):
    """Add scale · term to a tile."""
    total, added = flat(out), flat(term)
    for i in range(total.shape[0]):
        total[i] += scale * added[i]


@njit(**_OPTIONS)
def _copy(out, source):
    target, copied = flat(out), flat(source)
    for i in range(target.shape[0]):
        target[i] = copied[i]


@njit(**_OPTIONS)
def write_gradient(dynamics, x, out, scratch):
    """Write the sum of all drift terms."""
    for term in range(len(dynamics.tiles)):
        kind = dynamics.kinds[term]
        if kind == NOTHING:
            continue
        target = out if term == 0 else scratch
        write_field(
            kind,
            dynamics.tiles[term],
            dynamics.points[term],
            dynamics.potentials[term],
            dynamics.constants[term],
            x,
            dynamics.count,
            target,
        )
        if term > 0:
            _add(out, x.dtype.type(1), scratch)


@njit(**_OPTIONS)
def _write_point_amplitude(kind, point, matrix_of, x, count, out):
    n = x.shape[0]
    here = np.empty(n, x.dtype)
    vector, matrix = np.empty(n, x.dtype), np.empty((n, out.shape[0] // n), x.dtype)
    entries = flat(matrix)
    for lane in range(count):
        for i in range(n):
            here[i] = x[i, lane]
        if kind == POINT:
            vector[:] = np.nan
            point(here, vector)
            for i in range(n):
                out[i, lane] = vector[i]
        else:
            matrix[:] = np.nan
            matrix_of(here, matrix)
            for i in range(entries.shape[0]):
                out[i, lane] = entries[i]


@njit(**_OPTIONS)
def _write_amplitude(dynamics, x, out):
    """Write F(x): one row a coordinate, or (parameter · rank) of them."""
    if dynamics.amplitude_kind == TILE:
        dynamics.amplitude_tile(x, dynamics.amplitude_constants, out)
    else:
        _write_point_amplitude(
            dynamics.amplitude_kind, dynamics.amplitude_point, dynamics.amplitude_matrix, x, dynamics.count, out
        )


@njit(**_OPTIONS)
def _multiply(factor, z, out):
    np.dot(factor, z, out)


@njit(**_OPTIONS)
def _multiply_lanes(matrices, z, out):
    rank = z.shape[0]
    for i in range(out.shape[0]):
        for lane in range(LANES):
            out[i, lane] = matrices[i * rank, lane] * z[0, lane]
        for j in range(1, rank):
            for lane in range(LANES):
                out[i, lane] += matrices[i * rank + j, lane] * z[j, lane]


@njit(**_OPTIONS)
def write_kick(dynamics, x, z, out, amplitude):
    """Write F(x) z."""
    if dynamics.noise == CONSTANT_DIAGONAL:
        for i in range(out.shape[0]):
            scale = dynamics.factor[i, 0]
            for lane in range(LANES):
                out[i, lane] = scale * z[i, lane]
    elif dynamics.noise == CONSTANT_DENSE:
        _multiply(dynamics.factor, z, out)
    elif dynamics.noise == DIAGONAL:
        _write_amplitude(dynamics, x, amplitude)
        product, left, right = flat(out), flat(amplitude), flat(z)
        for i in range(product.shape[0]):
            product[i] = left[i] * right[i]
    elif dynamics.noise == FULL:
        _write_amplitude(dynamics, x, amplitude)
        _multiply_lanes(amplitude, z, out)
    else:
        out[:] = 0


@njit(inline="always")
def _is_constant(dynamics):
    return dynamics.noise == SILENT or dynamics.noise == CONSTANT_DIAGONAL or dynamics.noise == CONSTANT_DENSE


@njit(**_INLINE)
def _euler_maruyama(x, z, dynamics, work):
    if dynamics.kinds[0] == TILE and dynamics.kinds[1] == NOTHING:
        dynamics.tiles[0](x, dynamics.constants[0], work.slope)
    else:
        write_gradient(dynamics, x, work.slope, work.other)
    scale = dynamics.strength * dynamics.root
    if dynamics.noise == CONSTANT_DIAGONAL:
        for i in range(x.shape[0]):
            factor = scale * dynamics.factor[i, 0]
            for lane in range(LANES):
                x[i, lane] += factor * z[i, lane] - dynamics.time_step * work.slope[i, lane]
        return
    if dynamics.noise == DIAGONAL and dynamics.amplitude_kind == TILE:
        dynamics.amplitude_tile(x, dynamics.amplitude_constants, work.kick)
        for i in range(x.shape[0]):
            for lane in range(LANES):
                kick = scale * work.kick[i, lane] * z[i, lane]
                x[i, lane] += kick - dynamics.time_step * work.slope[i, lane]
        return
    write_kick(dynamics, x, z, work.kick, work.amplitude)
    for i in range(x.shape[0]):
        for lane in range(LANES):
            x[i, lane] += scale * work.kick[i, lane] - dynamics.time_step * work.slope[i, lane]


@njit(**_OPTIONS)
def _heun(x, z, dynamics, work):
    half, scale = x.dtype.type(0.5), dynamics.strength * dynamics.root
    write_gradient(dynamics, x, work.slope, work.other)
    write_kick(dynamics, x, z, work.kick, work.amplitude)
    _copy(work.trial, x)
    _add(work.trial, -dynamics.time_step, work.slope)
    _add(work.trial, scale, work.kick)
    _add(x, -half * dynamics.time_step, work.slope)
    _add(x, half * scale, work.kick)
    write_gradient(dynamics, work.trial, work.slope, work.other)
    write_kick(dynamics, work.trial, z, work.kick, work.amplitude)
    _add(x, -half * dynamics.time_step, work.slope)
    _add(x, half * scale, work.kick)


@njit(**_OPTIONS)
def _milstein(x, z, dynamics, work):
    half, one, root = x.dtype.type(0.5), x.dtype.type(1), dynamics.root
    if _is_constant(dynamics):
        _euler_maruyama(x, z, dynamics, work)
        return
    write_gradient(dynamics, x, work.slope, work.other)
    _write_amplitude(dynamics, x, work.amplitude)
    _add(x, -dynamics.time_step, work.slope)
    _copy(work.trial, x)
    _add(work.trial, dynamics.strength * root, work.amplitude)
    _write_amplitude(dynamics, work.trial, work.further)
    for i in range(x.shape[0]):
        for lane in range(LANES):
            here, there, kick = work.amplitude[i, lane], work.further[i, lane], z[i, lane]
            x[i, lane] += dynamics.strength * root * (here * kick + half * (there - here) * (kick * kick - one))


@njit(**_OPTIONS)
def _weak_second_order(x, z, dynamics, work):
    one, half, quarter = x.dtype.type(1), x.dtype.type(0.5), x.dtype.type(0.25)
    scale = dynamics.strength * dynamics.root
    write_gradient(dynamics, x, work.slope, work.other)
    # The kick sums what x gains by noise; x stays where it was until all amplitudes are known.
    write_kick(dynamics, x, z, work.kick, work.amplitude)
    if not _is_constant(dynamics):
        for side in (one, -one):
            _copy(work.trial, x)
            _add(work.trial, -dynamics.time_step, work.slope)
            _add(work.trial, side * scale, work.amplitude)
            _write_amplitude(dynamics, work.trial, work.further)
            for i in range(x.shape[0]):
                for lane in range(LANES):
                    kick, there, here = z[i, lane], work.further[i, lane], work.amplitude[i, lane]
                    gain = (there - here) * kick + side * there * (kick * kick - one)
                    work.kick[i, lane] += quarter * gain
    _copy(work.trial, x)
    _add(work.trial, -dynamics.time_step, work.slope)
    if _is_constant(dynamics):
        _add(work.trial, scale, work.kick)
    else:
        for i in range(x.shape[0]):
            for lane in range(LANES):
                work.trial[i, lane] += scale * work.amplitude[i, lane] * z[i, lane]
    _add(x, -half * dynamics.time_step, work.slope)
    write_gradient(dynamics, work.trial, work.slope, work.other)
    _add(x, -half * dynamics.time_step, work.slope)
    _add(x, scale, work.kick)


@njit(**_OPTIONS)
def _strong_additive(x, z, dynamics, work):
    """SRA1: the first half of z makes ΔW, both halves ΔZ = ∫ W dt."""
    rank = z.shape[0] // 2
    half, third = x.dtype.type(0.5), x.dtype.type(1 / 3)
    scale = dynamics.strength * dynamics.root
    write_kick(dynamics, x, z[:rank], work.kick, work.amplitude)
    write_kick(dynamics, x, z[rank:], work.further, work.amplitude)
    write_gradient(dynamics, x, work.slope, work.other)
    _copy(work.trial, x)
    _add(work.trial, -x.dtype.type(0.75) * dynamics.time_step, work.slope)
    _add(work.trial, x.dtype.type(1.5) * half * scale, work.kick)
    _add(work.trial, x.dtype.type(1.5) * half * scale * x.dtype.type(1 / math.sqrt(3)), work.further)
    _add(x, -third * dynamics.time_step, work.slope)
    write_gradient(dynamics, work.trial, work.slope, work.other)
    _add(x, -x.dtype.type(2) * third * dynamics.time_step, work.slope)
    _add(x, scale, work.kick)


@njit(**_OPTIONS)
def _leimkuhler_matthews(x, z, memory, dynamics, work):
    half = x.dtype.type(0.5) * dynamics.strength * dynamics.root
    write_gradient(dynamics, x, work.slope, work.other)
    _add(x, -dynamics.time_step, work.slope)
    _add(x, half, memory)
    write_kick(dynamics, x, z, memory, work.amplitude)
    _add(x, half, memory)


@njit(**_OPTIONS)
def _baoab(x, z, velocity, dynamics, work):
    """Keep the slope at x in `work.slope`, from one step to the next."""
    half = x.dtype.type(0.5) * dynamics.time_step
    decay, gain = dynamics.parameters[0], dynamics.parameters[1]
    _add(velocity, -half, work.slope)
    _add(x, half, velocity)
    write_kick(dynamics, x, z, work.kick, work.amplitude)
    moving, kicks = flat(velocity), flat(work.kick)
    for i in range(moving.shape[0]):
        moving[i] = decay * moving[i] + gain * dynamics.strength * kicks[i]
    _add(x, half, velocity)
    write_gradient(dynamics, x, work.slope, work.other)
    _add(velocity, -half, work.slope)


@njit(**_INLINE)
def step(scheme, x, z, memory, dynamics, work):
    """Make one step of a scheme: `x` and what it remembers change in place, `z` is what the noise multiplies."""
    if scheme == EULER_MARUYAMA:
        _euler_maruyama(x, z, dynamics, work)
    elif scheme == HEUN:
        _heun(x, z, dynamics, work)
    elif scheme == MILSTEIN:
        _milstein(x, z, dynamics, work)
    elif scheme == WEAK_SECOND_ORDER:
        _weak_second_order(x, z, dynamics, work)
    elif scheme == STRONG_ADDITIVE:
        _strong_additive(x, z, dynamics, work)
    elif scheme == LEIMKUHLER_MATTHEWS:
        _leimkuhler_matthews(x, z, memory, dynamics, work)
    else:
        _baoab(x, z, memory, dynamics, work)
