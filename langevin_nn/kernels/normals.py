"""Addressed normal numbers: Philox4x32-10 and Box–Muller, many replicas at a time in vector registers.

Number n of a replica is a function of key, replica and n alone, so it can be had without those before it, by any thread
and beside any other replicas. Philox (Salmon et al. 2011, doi 10.1145/2063384.2063405) passes BigCrush; one block of its
128 bits gives two normal numbers in float64 or four in float32, by the transform of Box & Muller (1958, doi
10.1214/aoms/1177706645). All 52 bits of a float64 are drawn, so its tail reaches 8.5 standard deviations; float32 radii
have 31 bits, and reach 6.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from langevin_nn.formulas import LANES
from langevin_nn.kernels.bits import double_from_bits, double_to_bits, single_from_bits, single_to_bits
from langevin_nn.kernels.cache import cached

__all__ = ["draw_normals", "fill_normals", "philox", "steps_per_fill"]

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_MANTISSA, _ONE = np.uint64(12), np.uint64(0x3FF0000000000000)
_ROOT_HALF = np.uint64(0x3FE6A09E667F3BCD)  # the bits of √½
_TO_DOUBLE = np.int64(0x4338000000000000)  # the bits of 1.5·2⁵², to which an integer is added to read it as a float
_ONE_SINGLE, _ROOT_HALF_SINGLE = np.uint32(0x3F800000), np.uint32(0x3F3504F3)

# Taylor series suffice: their arguments stay within ±π/4, and within ±0.172 for the logarithm.
_ATANH = tuple(1 / n for n in range(21, 1, -2))
_SIN = tuple((-1) ** (n // 2) / math.factorial(n) for n in range(17, 1, -2))
_COS = tuple((-1) ** (n // 2) / math.factorial(n) for n in range(16, 1, -2))
_ATANH_SINGLE = tuple(np.float32(each) for each in _ATANH[-4:])
_SIN_SINGLE = tuple(np.float32(each) for each in _SIN[-4:])
_COS_SINGLE = tuple(np.float32(each) for each in _COS[-4:])
_LOG_2 = math.log(2)

# Every sum has one product, or one beside a power of two: what is fused is fused alike in every lane.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}


@njit(inline="always")
def philox(c0, c1, c2, c3, k0, k1):
    """Return the block of a counter under a key, 32 bits in each word."""
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@njit(inline="always")
def _polynomial(coefficients, z):
    total = coefficients[0]
    for each in coefficients[1:]:
        total = total * z + each
    return total


@njit(inline="always", **_OPTIONS)
def _log(u):
    """Return log u for normal u > 0: mantissa within √½ … √2, exponent from the bits."""
    bits = double_to_bits(u)
    exponent = np.int64(bits - _ROOT_HALF) >> np.int64(52)
    mantissa = double_from_bits(bits - (np.uint64(exponent) << np.uint64(52)))
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    power = double_from_bits(np.uint64(_TO_DOUBLE + exponent)) - 6755399441055744.0
    return power * _LOG_2 + (2 * s + 2 * s * z * _polynomial(_ATANH, z))


@njit(inline="always", **_OPTIONS)
def _circle(word):
    """Return cosine and sine of a uniform angle: two bits choose the quarter, the rest an angle within ±π/4."""
    quarter = word >> np.uint64(62)
    x = (double_from_bits(((word << np.uint64(2)) >> _MANTISSA) | _ONE) - 1.5) * (math.pi / 2)
    z = x * x
    sine = x + x * z * _polynomial(_SIN, z)
    cosine = 1.0 + z * _polynomial(_COS, z)
    odd = (quarter & np.uint64(1)) != 0
    across, up = (sine, cosine) if odd else (cosine, sine)
    across = double_from_bits(double_to_bits(across) ^ (((quarter + np.uint64(1)) & np.uint64(2)) << np.uint64(62)))
    up = double_from_bits(double_to_bits(up) ^ ((quarter & np.uint64(2)) << np.uint64(62)))
    return across, up


@njit(inline="always", **_OPTIONS)
def _log_single(u):
    bits = single_to_bits(u)
    exponent = np.int32(np.uint32(bits - _ROOT_HALF_SINGLE)) >> np.int32(23)
    mantissa = single_from_bits(np.uint32(bits - np.uint32(np.uint32(exponent) << np.uint32(23))))
    one, two = np.float32(1), np.float32(2)
    s = (mantissa - one) / (mantissa + one)
    z = s * s
    return np.float32(exponent) * np.float32(_LOG_2) + (two * s + two * s * z * _polynomial(_ATANH_SINGLE, z))


@njit(inline="always", **_OPTIONS)
def _circle_single(word):
    quarter = word >> np.uint32(30)
    bits = np.uint32((np.uint32(word << np.uint32(2)) >> np.uint32(9)) | _ONE_SINGLE)
    x = (single_from_bits(bits) - np.float32(1.5)) * np.float32(math.pi / 2)
    z = x * x
    sine = x + x * z * _polynomial(_SIN_SINGLE, z)
    cosine = np.float32(1) + z * _polynomial(_COS_SINGLE, z)
    odd = (quarter & np.uint32(1)) != 0
    across, up = (sine, cosine) if odd else (cosine, sine)
    flip = np.uint32(((quarter + np.uint32(1)) & np.uint32(2)) << np.uint32(30))
    across = single_from_bits(np.uint32(single_to_bits(across) ^ flip))
    up = single_from_bits(np.uint32(single_to_bits(up) ^ np.uint32((quarter & np.uint32(2)) << np.uint32(30))))
    return across, up


@njit(**_OPTIONS)
def _fill_double(out, replicas, key, first):
    low, high = key & _LOW, key >> _HALF
    for pair in range(out.shape[0] // 2):
        block = first + np.uint64(pair)
        across, up = out[2 * pair], out[2 * pair + 1]
        for lane in range(LANES):
            replica = replicas[lane]
            c0, c1, c2, c3 = philox(block & _LOW, block >> _HALF, replica & _LOW, replica >> _HALF, low, high)
            u = 2.0 - double_from_bits((((c1 << _HALF) | c0) >> _MANTISSA) | _ONE)  # within (0, 1]
            radius = math.sqrt(-2.0 * _log(u))
            x, y = _circle((c3 << _HALF) | c2)
            across[lane], up[lane] = radius * x, radius * y


@njit(**_OPTIONS)
def _fill_single(out, replicas, key, first, words):
    low, high = key & _LOW, key >> _HALF
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]
    for four in range(out.shape[0] // 4):
        block = first + np.uint64(four)
        for lane in range(LANES):
            replica = replicas[lane]
            c0, c1, c2, c3 = philox(block & _LOW, block >> _HALF, replica & _LOW, replica >> _HALF, low, high)
            w0[lane], w1[lane], w2[lane], w3[lane] = c0, c1, c2, c3
        for pair in range(2):
            across, up = out[4 * four + 2 * pair], out[4 * four + 2 * pair + 1]
            radial, angular = words[2 * pair], words[2 * pair + 1]
            for lane in range(LANES):
                # 31 bits and a half: signed integers are what every processor converts.
                number = np.float32(np.int32(radial[lane] >> np.uint32(1))) + np.float32(0.5)
                radius = math.sqrt(np.float32(-2) * _log_single(number * np.float32(2**-31)))
                x, y = _circle_single(angular[lane])
                across[lane], up[lane] = radius * x, radius * y


@njit
def steps_per_fill(per_step):
    """Return after how many steps the numbers of a replica end with a block, in either precision."""
    if per_step % 4 == 0:
        return 1
    return 2 if per_step % 2 == 0 else 4


@njit
def fill_normals(out, replicas, key, first, words):
    """Write the numbers of `LANES` replicas from `first` on, a multiple of 4, into rows for `steps_per_fill` steps."""
    if out.itemsize == 8:
        _fill_double(out, replicas, key, first // np.uint64(2))
    else:
        _fill_single(out, replicas, key, first // np.uint64(4), words)


@cached([f"void({real}[:, :, ::1], uint64[::1], uint64, uint64)" for real in ("float64", "float32")])
def _draw(out, replicas, key, first_step):
    n_replicas, n_steps, per_step = out.shape
    together = steps_per_fill(per_step)
    rows = np.empty((together * per_step, LANES), out.dtype)
    chosen, words = np.empty(LANES, np.uint64), np.empty((4, LANES), np.uint32)
    for start in range(0, n_replicas, LANES):
        count = min(LANES, n_replicas - start)
        for lane in range(LANES):
            chosen[lane] = replicas[start + min(lane, count - 1)]
        for step in range(n_steps):
            place = (first_step + np.uint64(step)) % np.uint64(together)
            if step == 0 or place == 0:
                fill_normals(rows, chosen, key, (first_step + np.uint64(step) - place) * np.uint64(per_step), words)
            for number in range(per_step):
                for lane in range(count):
                    out[start + lane, step, number] = rows[np.int64(place) * per_step + number, lane]


def draw_normals(
    replicas: Sequence[int], key: int, first_step: int, n_steps: int, per_step: int, dtype: Any = np.float64
) -> NDArray[Any]:
    """Return the normal numbers of some steps, as the kernels draw them.

    Parameters
    ----------
    replicas : sequence of int
        Indices of the replicas.
    key : int
        Of seed and purpose, see `langevin_nn.seeds.Seeds.key`.
    first_step, n_steps : int
        Which steps.
    per_step : int
        Numbers a step.
    dtype : type, optional
        ``numpy.float64`` or ``numpy.float32``: different numbers, not the same ones rounded.

    Returns
    -------
    ndarray, shape (replica, step, number)
        Independent N(0, 1).

    Examples
    --------
    >>> some = draw_normals([3, 8], key=1, first_step=0, n_steps=10, per_step=3)
    >>> alone = draw_normals([8], key=1, first_step=7, n_steps=1, per_step=3)
    >>> bool((some[1, 7] == alone[0, 0]).all())
    True
    """
    out = np.empty((len(replicas), n_steps, per_step), dtype)
    _draw(out, np.array(replicas, np.uint64), np.uint64(key), np.uint64(first_step))
    return out
