"""Functions for compiled loops that work on whole vector registers.

A fast matrix product has to keep its sums in registers over a loop, and Numba's compiler does not do that by itself. So
these few functions are written as LLVM instructions; the code around them is compiled from Python by Numba. They take
addresses (`Tensor.data_ptr`) and strides in bytes. The caller must keep the tensors alive and every access in bounds.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from kpac.cpu.compiled import compiled
from kpac.cpu.instructions import Matrix, Vectors, intrinsic, multiplies_bfloat16, registers


def in_pairs(matrix: Tensor) -> Tensor:
    """Reorders a bfloat16 matrix B for `product`: (..., depth, width) -> (..., depth / 2, width, 2)."""
    return matrix.unflatten(-2, (-1, 2)).transpose(-1, -2)


@lru_cache
def linear(
    matrix: Matrix, source: torch.dtype, target: torch.dtype, ends: bool = False, adds: bool = False
) -> Callable:
    """Makes a function that multiplies a constant matrix with rows of values.

    Arguments of a call: address and stride of the source rows; address and stride of the target rows; length of a row,
    a multiple of the lanes; address of the biases, one per value of a row; slope of the leaky ReLU. The last two are
    used only with `ends`.

    Args:
        matrix: (target rows, source rows).
        source, target: dtypes of the rows.
        ends: adds the biases and applies the leaky ReLU, for the last step of a layer.
        adds: adds the results to the target rows.
    """
    from numba.core import types

    def make(typing, a, a_step, b, b_step, length, bias, slope):
        def emit(context, builder, signature, values):
            a, a_step, b, b_step, length, bias, slope = values
            simd = Vectors(builder)
            reads, writes = simd.places(a, a_step, len(matrix[0])), simd.places(b, b_step, len(matrix))

            def go(step, moving):
                *places, bias = moving
                sources, targets = places[: len(reads)], places[len(reads) :]
                values = [simd.load(place, source) for place in simd.near(sources, a_step, len(matrix[0]))]
                results = simd.linear(matrix, values)
                for place, value in zip(simd.near(targets, b_step, len(matrix)), results, strict=True):
                    if ends:
                        value = simd.activation(builder.fadd(value, simd.load(bias, torch.float32)), slope)
                    if adds:
                        value = builder.fadd(simd.load(place, target), value)
                    simd.store(value, place, target)
                sizes = [source.itemsize] * len(sources) + [target.itemsize] * len(targets) + [4]
                return [builder.add(p, simd.integer(simd.lanes * n)) for p, n in zip(moving, sizes, strict=True)]

            simd.loop(builder.udiv(length, simd.integer(simd.lanes)), [*reads, *writes, bias], go)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6, types.float32), emit

    return intrinsic(make, matrix, source, target, ends, adds)


@lru_cache
def product(dtype: torch.dtype, adds: bool = False) -> Callable:
    """Makes a matrix product: A (rows, depth) times B (depth, width) -> C (rows, width) float32.

    Arguments of a call: address of A, its row stride and column stride; address of B and its row stride; address of C
    and its row stride; rows; depth; width, a multiple of the lanes.

    Args:
        dtype: type of A and B, float32 or bfloat16. For bfloat16, two neighbouring columns of A, and two rows of B,
            form pairs, each of which counts as one.
        adds: adds the product to C.
    """
    if dtype == torch.bfloat16 and not multiplies_bfloat16():
        raise ValueError("this processor has no products of bfloat16")
    lanes, _, wide = registers()
    vector = lanes * 4
    columns = tuple(_rows(count, dtype, adds) for count in range(1, wide + 1))
    in_ones, in_twos, in_most = columns[0], columns[1], columns[-1]

    @compiled
    def multiply(a, a_row, a_column, b, b_row, c, c_row, rows, depth, width):
        vectors = width // lanes
        whole = vectors // wide * wide
        for left in range(0, whole, wide):
            in_most(a, a_row, a_column, b + left * vector, b_row, c + left * vector, c_row, rows, depth)
        b, c = b + whole * vector, c + whole * vector
        if vectors - whole == 1:
            in_ones(a, a_row, a_column, b, b_row, c, c_row, rows, depth)
        elif vectors - whole == 2:
            in_twos(a, a_row, a_column, b, b_row, c, c_row, rows, depth)

    return multiply


@lru_cache
def _rows(vectors: int, dtype: torch.dtype, adds: bool) -> Callable:
    """Makes a product of any number of rows with `vectors` vectors of columns."""
    tall = registers().rows
    many, one = _block(tall, vectors, dtype, adds), _block(1, vectors, dtype, adds)

    @compiled
    def multiply(a, a_row, a_column, b, b_row, c, c_row, rows, depth):
        row = 0
        while row + tall <= rows:
            many(a + row * a_row, a_row, a_column, b, b_row, c + row * c_row, c_row, depth)
            row += tall
        while row < rows:
            one(a + row * a_row, a_row, a_column, b, b_row, c + row * c_row, c_row, depth)
            row += 1

    return multiply


@lru_cache
def _block(rows: int, vectors: int, dtype: torch.dtype, adds: bool) -> Callable:
    """Makes a product of `rows` rows with `vectors` vectors of columns, whose sums stay in registers."""
    from numba.core import types

    def make(typing, a, a_row, a_column, b, b_row, c, c_row, depth):
        def emit(context, builder, signature, values):
            a, a_row, a_column, b, b_row, c, c_row, depth = values
            simd = Vectors(builder)
            lefts = [builder.add(a, builder.mul(a_row, simd.integer(row))) for row in range(rows)]
            places = [
                builder.add(c, builder.add(builder.mul(c_row, simd.integer(row)), simd.integer(vector * simd.bytes)))
                for row in range(rows)
                for vector in range(vectors)
            ]
            begin = [simd.load(place, torch.float32) if adds else simd.zero for place in places]

            def add(step, sums):
                below = builder.add(b, builder.mul(step, b_row))
                across = builder.mul(step, a_column)
                rights = [
                    simd.load_pairs(builder.add(below, simd.integer(v * simd.bytes)), dtype) for v in range(vectors)
                ]
                found = []
                for row, left in enumerate(lefts):
                    value = simd.spread(builder.add(left, across), dtype)
                    for vector, right in enumerate(rights):
                        found.append(simd.multiply_add(value, right, sums[row * vectors + vector], dtype))
                return found

            for place, value in zip(places, simd.loop(depth, begin, add), strict=True):
                simd.store(value, place, torch.float32)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), emit

    return intrinsic(make, rows, vectors, dtype, adds)
