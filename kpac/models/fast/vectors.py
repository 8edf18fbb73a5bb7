"""Steps of compiled loops that work on whole vector registers.

Left to itself, Numba's compiler keeps no sums in registers over a loop, which a matrix product lives on. So these few
steps are written as LLVM's instructions; everything around them is Numba's Python. They take addresses and distances in
bytes, as `Tensor.data_ptr` gives them: who calls keeps the tensors alive, and answers for every access being inside.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kpac.models.fast.compiled import compiled

Matrix = tuple[tuple[float, ...], ...]


class Registers(NamedTuple):
    """What fits into a processor's vector registers: a product keeps the sums of `rows` times `vectors` of them."""

    lanes: int  # float32 values in one
    rows: int
    vectors: int


@lru_cache
def registers() -> Registers:
    import llvmlite.binding as llvm

    has = llvm.get_host_cpu_features()
    if has.get("avx512f"):
        return Registers(16, 8, 3)
    if has.get("fma"):
        return Registers(8, 6, 2)
    return Registers(4, 8, 2) if has.get("neon") else Registers(4, 4, 2)


@lru_cache
def multiplies_bfloat16() -> bool:
    """Whether `product` takes bfloat16."""
    import llvmlite.binding as llvm

    llvm.initialize_native_asmparser()
    has = llvm.get_host_cpu_features()
    return bool(has.get("avx512f") and has.get("avx512bf16"))


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
            here = _Vectors(builder)
            reads, writes = here.places(a, a_step, len(matrix[0])), here.places(b, b_step, len(matrix))

            def go(step, moving):
                *places, bias = moving
                sources, targets = places[: len(reads)], places[len(reads) :]
                values = [here.load(place, source) for place in here.near(sources, a_step, len(matrix[0]))]
                results = here.linear(matrix, values)
                for place, value in zip(here.near(targets, b_step, len(matrix)), results, strict=True):
                    if ends:
                        value = here.activation(builder.fadd(value, here.load(bias, torch.float32)), slope)
                    if adds:
                        value = builder.fadd(here.load(place, target), value)
                    here.store(value, place, target)
                sizes = [source.itemsize] * len(sources) + [target.itemsize] * len(targets) + [4]
                return [builder.add(p, here.integer(here.lanes * n)) for p, n in zip(moving, sizes, strict=True)]

            here.loop(builder.udiv(length, here.integer(here.lanes)), [*reads, *writes, bias], go)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6, types.float32), emit

    return _intrinsic(make, matrix, source, target, ends, adds)


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
    in_ones, in_twos, in_most = columns[0], columns[min(1, wide - 1)], columns[-1]

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
            here = _Vectors(builder)
            lefts = [builder.add(a, builder.mul(a_row, here.integer(row))) for row in range(rows)]
            places = [
                builder.add(c, builder.add(builder.mul(c_row, here.integer(row)), here.integer(vector * here.bytes)))
                for row in range(rows)
                for vector in range(vectors)
            ]
            begin = [here.load(place, torch.float32) if adds else here.zero for place in places]

            def add(step, sums):
                below = builder.add(b, builder.mul(step, b_row))
                across = builder.mul(step, a_column)
                rights = [
                    here.load_pairs(builder.add(below, here.integer(v * here.bytes)), dtype) for v in range(vectors)
                ]
                found = []
                for row, left in enumerate(lefts):
                    value = here.spread(builder.add(left, across), dtype)
                    for vector, right in enumerate(rights):
                        found.append(here.multiply_add(value, right, sums[row * vectors + vector], dtype))
                return found

            for place, value in zip(places, here.loop(depth, begin, add), strict=True):
                here.store(value, place, torch.float32)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), emit

    return _intrinsic(make, rows, vectors, dtype, adds)


class _Vectors:
    """What a builder of LLVM's instructions needs for registers of `registers().lanes` float32 values."""

    def __init__(self, builder):
        from llvmlite import ir

        self.builder, self.ir = builder, ir
        lanes = registers().lanes
        self.lanes, self.bytes = lanes, lanes * 4
        self.integer, self.float = ir.IntType(64), ir.FloatType()
        self.floats = ir.VectorType(self.float, lanes)
        self.words, self.halves = (ir.VectorType(ir.IntType(bits), lanes) for bits in (32, 16))
        self.zero = self.constant(0.0)

    def constant(self, value: float):
        return self.ir.Constant(self.floats, [self.ir.Constant(self.float, value)] * self.lanes)

    def load(self, place, dtype: torch.dtype):
        """A vector as float32."""
        if dtype == torch.float32:
            return self._load(place, self.floats)
        words = self.builder.zext(self._load(place, self.halves), self.words)
        bits = self.ir.Constant(self.words, [16] * self.lanes)
        return self.builder.bitcast(self.builder.shl(words, bits), self.floats)

    def store(self, value, place, dtype: torch.dtype) -> None:
        if dtype == torch.bfloat16:
            convert = self.ir.InlineAsm(
                self.ir.FunctionType(self.halves, [self.floats]), "vcvtneps2bf16 $1, $0", "=v,v"
            )
            value = self.builder.call(convert, [value])
        self.builder.store(value, self.builder.inttoptr(place, value.type.as_pointer()), align=dtype.itemsize)

    def places(self, first, step, count: int) -> list:
        """Every third of so many places: an instruction reaches the two that follow without a register of their own."""
        return [self.builder.add(first, self.builder.mul(step, self.integer(i))) for i in range(0, count, 3)]

    def near(self, places: Sequence, step, count: int) -> list:
        """All of the places."""
        add, twice = self.builder.add, self.builder.add(step, step)
        return [near for place in places for near in (place, add(place, step), add(place, twice))][:count]

    def load_pairs(self, place, dtype: torch.dtype):
        """A vector of float32 values, or of pairs of bfloat16."""
        return self._load(place, self.floats if dtype == torch.float32 else self.words)

    def spread(self, place, dtype: torch.dtype):
        """One value, or pair of bfloat16, in all lanes."""
        vectors = self.floats if dtype == torch.float32 else self.words
        return self._spread(self._load(place, vectors.element), vectors)

    def multiply_add(self, a, b, c, dtype: torch.dtype):
        if dtype == torch.float32:
            return self._fused(a, b, c)
        kind = self.ir.FunctionType(self.floats, [self.words, self.words, self.floats])
        return self.builder.call(self.ir.InlineAsm(kind, "vdpbf16ps $2, $1, $0", "=v,v,v,0"), [a, b, c])

    def linear(self, matrix: Matrix, values: Sequence) -> list:
        """The products of constants with the values. Rows that differ in signs alone share their sums."""
        found = [None] * len(matrix)
        for here, row in enumerate(matrix):
            if found[here] is not None:
                continue
            twin = next(
                (i for i in range(here + 1, len(matrix)) if found[i] is None and _mirrored(row, matrix[i])), None
            )
            if twin is None:
                found[here] = self._sum(row, values)
                continue
            pairs = list(zip(row, matrix[twin], strict=True))
            even = self._sum([a if a == b else 0 for a, b in pairs], values)
            odd = self._sum([a if a != b else 0 for a, b in pairs], values)
            found[here], found[twin] = self.builder.fadd(even, odd), self.builder.fsub(even, odd)
        return found

    def activation(self, value, slope):
        """The leaky ReLU, whose slope is at most 1."""
        lower = self.builder.fmul(value, self._spread(slope, self.floats))
        return self.builder.select(self.builder.fcmp_ordered(">", value, lower), value, lower)

    def loop(self, count, values: list, body: Callable) -> list:
        """The values after `body` (step, values) was called for every step, at least once."""
        builder = self.builder
        before = builder.block
        inside, after = builder.append_basic_block("step"), builder.append_basic_block("after")
        builder.branch(inside)
        builder.position_at_end(inside)
        step, *current = (builder.phi(kind) for kind in (self.integer, *(value.type for value in values)))
        changed = body(step, current)
        following = builder.add(step, self.integer(1))
        begin = (self.integer(0), *values)
        for phi, first, later in zip((step, *current), begin, (following, *changed), strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
        builder.position_at_end(after)
        return changed

    def _sum(self, factors: Sequence[float], values: Sequence):
        total = None
        for factor, value in sorted(zip(factors, values, strict=True), key=lambda pair: abs(pair[0]) != 1):
            if factor == 0:
                continue
            if total is None:
                total = value if factor == 1 else self.builder.fmul(value, self.constant(factor))
            elif abs(factor) == 1:
                total = (self.builder.fadd if factor == 1 else self.builder.fsub)(total, value)
            else:
                total = self._fused(value, self.constant(factor), total)
        return self.zero if total is None else total

    def _fused(self, a, b, c):
        from numba.core import cgutils

        kind = self.ir.FunctionType(self.floats, [self.floats] * 3)
        fma = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.fma.v{self.lanes}f32")
        return self.builder.call(fma, [a, b, c])

    def _spread(self, value, vectors):
        undefined = self.ir.Constant(vectors, self.ir.Undefined)
        zeros = self.ir.Constant(self.words, [0] * self.lanes)
        return self.builder.shuffle_vector(
            self.builder.insert_element(undefined, value, self.ir.IntType(32)(0)), undefined, zeros
        )

    def _load(self, address, kind):
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=2)


def _mirrored(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two rows have the same magnitudes, and share some values and differ in the signs of others."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x or y]
    return all(abs(x) == abs(y) for x, y in pairs) and 0 < sum(x == y for x, y in pairs) < len(pairs)


def _intrinsic(make: Callable, *facts: object) -> Callable:
    """A function for compiled loops, with an identity that another process finds again; see `compiled`."""
    from numba.extending import intrinsic

    made = intrinsic(make)
    facts = (Path(__file__).read_bytes(), make.__qualname__, facts, registers())
    made._set_uuid(sha256(repr(facts).encode()).hexdigest())
    return made
