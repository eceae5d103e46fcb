"""Products of small float32 matrices, held in vector registers.

Libraries of linear algebra reach half of the machine's rate, or less, on matrices of 25 rows, and they want chosen samples
copied together first. Here the rows of one factor are named by their addresses, so that a minibatch is multiplied where it
lies. Compare Goto & van de Geijn, *Anatomy of high-performance matrix multiplication* (2008, doi
10.1145/1356052.1356053): a tile of the result stays in registers while the inner dimension passes by.

The order of additions depends on the shapes alone.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from langevin_nn.kernels.cache import cached

__all__ = ["LANES", "add_combinations", "dot_products", "row_addresses"]


def _registers() -> tuple[int, int]:
    """Return how many float32 numbers a vector register holds, and how many registers there are."""
    features = getattr(config, "CPU_FEATURES", None) or ""
    if not features:
        features = ",".join(f"+{name}" for name, here in get_host_cpu_features().items() if here)
    if "+avx512f" in features:
        return 16, 32
    if "+avx2" in features:
        return 8, 16
    return 4, 32 if "+neon" in features else 16


LANES, _REGISTERS = _registers()
# A tile of dot products has so many rows and columns; its sums, one factor's vectors and one of the other's fill the
# registers. A tile of combinations has five rows, some vectors wide.
_TILE = 5 if _REGISTERS == 32 else 3
_HEIGHT = 5
_VECTORS = 4 if _REGISTERS == 32 else 2

_FLOAT, _LONG, _WORD = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR, _MASK = ir.VectorType(_FLOAT, LANES), ir.VectorType(ir.IntType(1), LANES)


class _Emitter:
    """Writes instructions on vectors."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def _intrinsic(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        kind = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(self.builder.module, kind, name)

    def address(self, base: ir.Value, index: ir.Value, bytes_each: ir.Value | int) -> ir.Value:
        """Return base + index × bytes."""
        scale = ir.Constant(_LONG, bytes_each) if isinstance(bytes_each, int) else bytes_each
        return self.builder.add(base, self.builder.mul(index, scale))

    def pointer(self, address: ir.Value, kind: ir.Type) -> ir.Value:
        """Return an address as a pointer."""
        return self.builder.inttoptr(address, kind.as_pointer())

    def load(self, address: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """Return the vector at an address; zeros where the mask has none."""
        if mask is None:
            return self.builder.load(self.pointer(address, _VECTOR), align=4)
        function = self._intrinsic(
            f"llvm.masked.load.v{LANES}f32.p0v{LANES}f32", _VECTOR, [_VECTOR.as_pointer(), _WORD, _MASK, _VECTOR]
        )
        arguments = [self.pointer(address, _VECTOR), ir.Constant(_WORD, 4), mask, ir.Constant(_VECTOR, None)]
        return self.builder.call(function, arguments)

    def store(self, value: ir.Value, address: ir.Value, mask: ir.Value | None = None) -> None:
        """Put a vector to an address."""
        if mask is None:
            self.builder.store(value, self.pointer(address, _VECTOR), align=4)
            return
        function = self._intrinsic(
            f"llvm.masked.store.v{LANES}f32.p0v{LANES}f32", ir.VoidType(), [_VECTOR, _VECTOR.as_pointer(), _WORD, _MASK]
        )
        self.builder.call(function, [value, self.pointer(address, _VECTOR), ir.Constant(_WORD, 4), mask])

    def scalar(self, address: ir.Value) -> ir.Value:
        """Return the number at an address."""
        return self.builder.load(self.pointer(address, _FLOAT))

    def spread(self, number: ir.Value) -> ir.Value:
        """Return a vector of one number."""
        one = self.builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.Constant(_WORD, 0))
        lanes = ir.Constant(ir.VectorType(_WORD, LANES), [0] * LANES)
        return self.builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), lanes)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return a b + c."""
        function = self._intrinsic(f"llvm.fmuladd.v{LANES}f32", _VECTOR, [_VECTOR] * 3)
        return self.builder.call(function, [a, b, c])

    def total(self, vector: ir.Value) -> ir.Value:
        """Return the sum of a vector's numbers, by halves."""
        width = LANES
        while width > 1:
            width //= 2
            low, high = (
                ir.Constant(ir.VectorType(_WORD, width), list(range(start, start + width))) for start in (0, width)
            )
            undefined = ir.Constant(vector.type, ir.Undefined)
            halves = [self.builder.shuffle_vector(vector, undefined, each) for each in (low, high)]
            vector = self.builder.fadd(*halves)
        return self.builder.extract_element(vector, ir.Constant(_WORD, 0))

    def first_lanes(self, count: ir.Value) -> ir.Value:
        """Return the mask of so many lanes."""
        lanes = ir.Constant(ir.VectorType(_LONG, LANES), list(range(LANES)))
        one = self.builder.insert_element(ir.Constant(lanes.type, ir.Undefined), count, ir.Constant(_WORD, 0))
        zeros = ir.Constant(ir.VectorType(_WORD, LANES), [0] * LANES)
        return self.builder.icmp_signed(
            "<", lanes, self.builder.shuffle_vector(one, ir.Constant(lanes.type, ir.Undefined), zeros)
        )


def _accumulated(builder, count, n_accumulators, add):
    """Emit a loop over `count` in which vectors are added up; return them afterwards."""
    before = builder.basic_block
    body, after = builder.append_basic_block("body"), builder.append_basic_block("after")
    zero = ir.Constant(_LONG, 0)
    builder.cbranch(builder.icmp_signed(">", count, zero), body, after)
    builder.position_at_end(body)
    index = builder.phi(_LONG)
    index.add_incoming(zero, before)
    sums = [builder.phi(_VECTOR) for _ in range(n_accumulators)]
    for each in sums:
        each.add_incoming(ir.Constant(_VECTOR, None), before)
    added = add(index, sums)
    following = builder.add(index, ir.Constant(_LONG, 1))
    index.add_incoming(following, builder.basic_block)
    for each, value in zip(sums, added, strict=True):
        each.add_incoming(value, builder.basic_block)
    end = builder.basic_block
    builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    builder.position_at_end(after)
    results = [builder.phi(_VECTOR) for _ in range(n_accumulators)]
    for each, value in zip(results, added, strict=True):
        each.add_incoming(ir.Constant(_VECTOR, None), before)
        each.add_incoming(value, end)
    return results


@cache
def _dots(n_rows: int, n_columns: int):
    """Return the tile of dot products of so many rows with so many others."""

    @intrinsic
    def tile(_context, rows, columns, column_bytes, length, out, out_bytes):
        """Write Σ_k a_ik b_jk to out[i, j]: addresses of the a_i at `rows`, of b_0 and of out[0, 0]."""

        def write(_, builder, __, values):
            rows, columns, column_bytes, length, out, out_bytes = values
            emit = _Emitter(builder)
            a = [builder.load(emit.pointer(emit.address(rows, ir.Constant(_LONG, i), 8), _LONG)) for i in range(n_rows)]
            b = [emit.address(columns, ir.Constant(_LONG, j), column_bytes) for j in range(n_columns)]

            def add(index, sums, mask=None):
                left = [emit.load(emit.address(each, index, 4 * LANES), mask) for each in a]
                found = list(sums)
                for j, each in enumerate(b):
                    right = emit.load(emit.address(each, index, 4 * LANES), mask)
                    for i in range(n_rows):
                        found[i * n_columns + j] = emit.multiply_add(left[i], right, found[i * n_columns + j])
                return found

            whole = builder.sdiv(length, ir.Constant(_LONG, LANES))
            sums = _accumulated(builder, whole, n_rows * n_columns, add)
            rest = builder.sub(length, builder.mul(whole, ir.Constant(_LONG, LANES)))
            before = builder.basic_block
            with builder.if_then(builder.icmp_signed(">", rest, ir.Constant(_LONG, 0))):
                partial = add(whole, sums, emit.first_lanes(rest))
                inside = builder.basic_block
            for position, (one, other) in enumerate(zip(sums, partial, strict=True)):
                joined = builder.phi(_VECTOR)
                joined.add_incoming(one, before)
                joined.add_incoming(other, inside)
                sums[position] = joined
            for i in range(n_rows):
                row = emit.address(out, ir.Constant(_LONG, i), out_bytes)
                for j in range(n_columns):
                    place = emit.pointer(emit.address(row, ir.Constant(_LONG, j), 4), _FLOAT)
                    builder.store(emit.total(sums[i * n_columns + j]), place)
            return ir.Constant(_LONG, 0)

        return types.int64(*[types.int64] * 6), write

    return tile


@cache
def _combinations(n_rows: int, n_vectors: int, masked: bool):
    """Return the tile of so many rows of linear combinations, so many vectors wide."""

    @intrinsic
    def tile(_context, coefficients, row_bytes, term_bytes, terms, n_terms, offset, lanes, out, out_bytes):
        """Add Σ_t c_it b_t to out[i]: address of c_00, of those of the b_t; `lanes` numbers from `offset` bytes on."""

        def write(_, builder, __, values):
            coefficients, row_bytes, term_bytes, terms, n_terms, offset, lanes, out, out_bytes = values
            emit = _Emitter(builder)
            mask = emit.first_lanes(lanes) if masked else None
            factors = [emit.address(coefficients, ir.Constant(_LONG, i), row_bytes) for i in range(n_rows)]

            def add(index, sums):
                start = builder.add(builder.load(emit.pointer(emit.address(terms, index, 8), _LONG)), offset)
                term = [
                    emit.load(emit.address(start, ir.Constant(_LONG, v), 4 * LANES), mask) for v in range(n_vectors)
                ]
                found = list(sums)
                for i, each in enumerate(factors):
                    factor = emit.spread(emit.scalar(emit.address(each, index, term_bytes)))
                    for v in range(n_vectors):
                        found[i * n_vectors + v] = emit.multiply_add(factor, term[v], found[i * n_vectors + v])
                return found

            sums = _accumulated(builder, n_terms, n_rows * n_vectors, add)
            for i in range(n_rows):
                row = builder.add(emit.address(out, ir.Constant(_LONG, i), out_bytes), offset)
                for v in range(n_vectors):
                    place = emit.address(row, ir.Constant(_LONG, v), 4 * LANES)
                    emit.store(builder.fadd(emit.load(place, mask), sums[i * n_vectors + v]), place, mask)
            return ir.Constant(_LONG, 0)

        return types.int64(*[types.int64] * 9), write

    return tile


_square, _column, _row, _one = (_dots(i, j) for i in (_TILE, 1) for j in (_TILE, 1))
_wide, _wide_row = (_combinations(i, _VECTORS, False) for i in (_HEIGHT, 1))
_narrow, _narrow_row = (_combinations(i, 1, True) for i in (_HEIGHT, 1))


@cached()
def row_addresses(matrix, out):
    """Write the addresses of the rows of a contiguous matrix."""
    start = np.int64(matrix.ctypes.data)
    for i in range(matrix.shape[0]):
        out[i] = start + i * matrix.shape[1] * 4


@cached()
def dot_products(rows, n_rows, matrix, out):
    """Write the dot products of rows, given by their addresses, with those of a contiguous matrix: out = A Bᵀ."""
    n_columns, length = matrix.shape
    a, b, c = np.int64(rows.ctypes.data), np.int64(matrix.ctypes.data), np.int64(out.ctypes.data)
    b_bytes, c_bytes = length * 4, n_columns * 4
    i = 0
    while i < n_rows:
        high = i + _TILE <= n_rows
        j = 0
        while j < n_columns:
            wide = j + _TILE <= n_columns
            own_a, own_b, own_c = a + 8 * i, b + j * b_bytes, c + i * c_bytes + 4 * j
            if high and wide:
                _square(own_a, own_b, b_bytes, length, own_c, c_bytes)
            elif high:
                _column(own_a, own_b, b_bytes, length, own_c, c_bytes)
            elif wide:
                _row(own_a, own_b, b_bytes, length, own_c, c_bytes)
            else:
                _one(own_a, own_b, b_bytes, length, own_c, c_bytes)
            j += _TILE if wide else 1
        i += _TILE if high else 1


@cached()
def add_combinations(coefficients, terms, transposed, out):
    """Add linear combinations of rows, given by their addresses, to a contiguous matrix: out += A B, or Aᵀ B."""
    n_rows, length = out.shape
    n_terms = coefficients.shape[0] if transposed else coefficients.shape[1]
    a, b, c = np.int64(coefficients.ctypes.data), np.int64(terms.ctypes.data), np.int64(out.ctypes.data)
    a_bytes = 4 if transposed else 4 * coefficients.shape[1]
    term_bytes = 4 * coefficients.shape[1] if transposed else 4
    c_bytes = length * 4
    k = 0
    while k < length:
        wide = k + _VECTORS * LANES <= length
        i = 0
        while i < n_rows:
            high = i + _HEIGHT <= n_rows
            own_a, own_c, offset, rest = a + i * a_bytes, c + i * c_bytes, 4 * k, min(LANES, length - k)
            if wide and high:
                _wide(own_a, a_bytes, term_bytes, b, n_terms, offset, rest, own_c, c_bytes)
            elif wide:
                _wide_row(own_a, a_bytes, term_bytes, b, n_terms, offset, rest, own_c, c_bytes)
            elif high:
                _narrow(own_a, a_bytes, term_bytes, b, n_terms, offset, rest, own_c, c_bytes)
            else:
                _narrow_row(own_a, a_bytes, term_bytes, b, n_terms, offset, rest, own_c, c_bytes)
            i += _HEIGHT if high else 1
        k += _VECTORS * LANES if wide else LANES
