"""What Numba does not offer by itself: the bits of a number as another number, and arrays without an owner."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["borrowed", "double_from_bits", "double_to_bits", "flat", "single_from_bits", "single_to_bits"]


def _reinterpreted(given, wanted, kind):
    """Return a function that reads the bits of one type as another."""

    @intrinsic
    def read(_context, _number):
        return wanted(given), lambda _, builder, __, values: builder.bitcast(values[0], kind)

    return read


double_from_bits = _reinterpreted(types.uint64, types.float64, ir.DoubleType())
double_to_bits = _reinterpreted(types.float64, types.uint64, ir.IntType(64))
single_from_bits = _reinterpreted(types.uint32, types.float32, ir.FloatType())
single_to_bits = _reinterpreted(types.float32, types.uint32, ir.IntType(32))


@intrinsic
def borrowed(_context, array):
    """Return an array that counts no references: its owner must live on. Counting costs more than small loops."""

    def view(context, builder, signature, values):
        made = context.make_array(signature.return_type)(context, builder, value=values[0])
        made.meminfo = made.meminfo.type(None)
        made.parent = made.parent.type(None)
        return made._getvalue()

    return array(array), view


@intrinsic
def flat(_context, array):
    """Return the numbers of a contiguous matrix in one row, without a call and without counting a reference."""
    row = types.Array(array.dtype, 1, "C")

    def view(context, builder, signature, values):
        matrix = context.make_array(signature.args[0])(context, builder, value=values[0])
        made = context.make_array(row)(context, builder)
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array.dtype)))
        made.data, made.itemsize, made.nitems = matrix.data, matrix.itemsize, matrix.nitems
        made.shape, made.strides = cgutils.pack_array(builder, [matrix.nitems]), cgutils.pack_array(builder, [size])
        made.meminfo, made.parent = matrix.meminfo.type(None), matrix.parent.type(None)
        return made._getvalue()

    return row(array), view
