"""The bits of a number as a number of another kind, which Numba does not offer by itself."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["double_from_bits", "double_to_bits", "single_from_bits", "single_to_bits"]


@intrinsic
def double_from_bits(_context, _bits):
    """Return the float64 of 64 bits."""
    return types.float64(types.uint64), lambda _, builder, __, values: builder.bitcast(values[0], ir.DoubleType())


@intrinsic
def double_to_bits(_context, _number):
    """Return the 64 bits of a float64."""
    return types.uint64(types.float64), lambda _, builder, __, values: builder.bitcast(values[0], ir.IntType(64))


@intrinsic
def single_from_bits(_context, _bits):
    """Return the float32 of 32 bits."""
    return types.float32(types.uint32), lambda _, builder, __, values: builder.bitcast(values[0], ir.FloatType())


@intrinsic
def single_to_bits(_context, _number):
    """Return the 32 bits of a float32."""
    return types.uint32(types.float32), lambda _, builder, __, values: builder.bitcast(values[0], ir.IntType(32))
