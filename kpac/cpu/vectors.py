"""Steps of compiled loops that work on whole vector registers.

Left to itself, Numba's compiler keeps no sums in registers over a loop, which a matrix product lives on. So these few
steps are written as LLVM's instructions; everything around them is Numba's Python. They take addresses and distances in
bytes, as `Tensor.data_ptr` gives them: who calls keeps the tensors alive, and answers for every access being inside.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from kpac.cpu.compiled import compiled
from kpac.cpu.instructions import Matrix, Vectors, intrinsic, multiplies_bfloat16, registers


def in_pairs(matrix: Tensor) -> Tensor:
    """The order in which `product` reads B of bfloat16: (..., depth, width) -> (..., depth / 2, width, 2)."""
    return matrix.unflatten(-2, (-1, 2)).transpose(-1, -2)


@lru_cache
def linear(
    matrix: Matrix, source: torch.dtype, target: torch.dtype, ends: bool = False, adds: bool = False
) -> Callable:
    """Rows of values, times a matrix of constants: rows of the same length.

    A call takes: address of the first row that is read, and the distance to the next; address of the first row that is
    written, and the distance to the next; the length, a multiple of the lanes; and, if this `ends` a layer, the address
    of a bias for each value of a row, and the slope of the leaky ReLU. If it `adds`, what is there gains the results.
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
    """A (rows, depth) times B (depth, width) -> C (rows, width) float32, or what C gains.

    A call takes: address of A, its distance from row to row and from column to column; address of B, and its distance
    from row to row; address of C, and its distance from row to row; rows, depth, and width, a multiple of the lanes.

    Args:
        dtype: of A and B, float32 or bfloat16. For bfloat16 A and B are in pairs, two neighbouring columns of A and two
            rows of B, which count as one.
        adds: whether the product is added to C.
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
    """A product of any number of rows and so many vectors."""
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
    """A product of so many rows and vectors, whose sums stay in registers."""
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
