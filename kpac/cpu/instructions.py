"""Builds LLVM instructions on whole vector registers; `vectors` makes functions for compiled loops from them."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch

from kpac.cpu.compiled import code_hash

Matrix = tuple[tuple[float, ...], ...]

_SOURCE = Path(__file__).read_bytes()  # read at import: the file may change before something is compiled


class Registers(NamedTuple):
    """The processor's vector registers; a matrix product accumulates its sums in `rows` times `vectors` of them."""

    lanes: int  # float32 values per register
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
def fill_registers(*channels: int) -> bool:
    """Whether the channel counts are multiples of the SIMD width, on a processor with fused multiply-add."""
    import llvmlite.binding as llvm

    has = llvm.get_host_cpu_features()
    fused = has.get("avx512f") or has.get("fma") or has.get("neon")
    return bool(fused) and all(count % registers().lanes == 0 for count in channels)


@lru_cache
def multiplies_bfloat16() -> bool:
    """Whether `product` supports bfloat16 on this processor."""
    import llvmlite.binding as llvm

    llvm.initialize_native_asmparser()
    has = llvm.get_host_cpu_features()
    return bool(has.get("avx512f") and has.get("avx512bf16"))


def intrinsic(make: Callable, *facts: object) -> Callable:
    """Makes an intrinsic for compiled loops, with an identity that is the same in every process; see `compiled`."""
    from numba.extending import intrinsic

    made = intrinsic(make)
    made._set_uuid(sha256(repr((_SOURCE, code_hash(make.__code__), facts, registers())).encode()).hexdigest())
    return made


class Vectors:
    """Emits LLVM instructions for vector registers of `registers().lanes` float32 values."""

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
        """Loads a vector, converted to float32."""
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
        """Addresses of every third of `count` places; `near` derives the others, which saves registers."""
        return [self.builder.add(first, self.builder.mul(step, self.integer(i))) for i in range(0, count, 3)]

    def near(self, places: Sequence, step, count: int) -> list:
        """Addresses of all `count` places, from those of every third."""
        add, twice = self.builder.add, self.builder.add(step, step)
        return [near for place in places for near in (place, add(place, step), add(place, twice))][:count]

    def load_pairs(self, place, dtype: torch.dtype):
        """Loads a vector of float32 values, or of pairs of bfloat16."""
        return self._load(place, self.floats if dtype == torch.float32 else self.words)

    def spread(self, place, dtype: torch.dtype):
        """Loads one float32 value, or one pair of bfloat16, into all lanes."""
        vectors = self.floats if dtype == torch.float32 else self.words
        return self._spread(self._load(place, vectors.element), vectors)

    def multiply_add(self, a, b, c, dtype: torch.dtype):
        if dtype == torch.float32:
            return self._fused(a, b, c)
        kind = self.ir.FunctionType(self.floats, [self.words, self.words, self.floats])
        return self.builder.call(self.ir.InlineAsm(kind, "vdpbf16ps $2, $1, $0", "=v,v,v,0"), [a, b, c])

    def linear(self, matrix: Matrix, values: Sequence) -> list:
        """Multiplies a constant matrix with the values; rows that differ only in signs share their sums."""
        found = [None] * len(matrix)
        for index, row in enumerate(matrix):
            if found[index] is not None:
                continue
            twin = next(
                (i for i in range(index + 1, len(matrix)) if found[i] is None and _mirrored(row, matrix[i])), None
            )
            if twin is None:
                found[index] = self._sum(row, values)
                continue
            pairs = list(zip(row, matrix[twin], strict=True))
            even = self._sum([a if a == b else 0 for a, b in pairs], values)
            odd = self._sum([a if a != b else 0 for a, b in pairs], values)
            found[index], found[twin] = self.builder.fadd(even, odd), self.builder.fsub(even, odd)
        return found

    def activation(self, value, slope):
        """Computes the leaky ReLU; the slope must be at most 1."""
        lower = self.builder.fmul(value, self._spread(slope, self.floats))
        return self.builder.select(self.builder.fcmp_ordered(">", value, lower), value, lower)

    def loop(self, count, values: list, body: Callable) -> list:
        """Emits a loop of `count` steps, at least one, that updates values by `body(step, values)`; returns them."""
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
    """Whether two rows have equal magnitudes, with some signs equal and others different."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x or y]
    return all(abs(x) == abs(y) for x, y in pairs) and 0 < sum(x == y for x, y in pairs) < len(pairs)
