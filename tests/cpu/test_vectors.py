"""Products and sums on whole vector registers, and the transforms made of them, are what they say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kpac.cpu.compiled import compiled
from kpac.cpu.conditions import has_bfloat16
from kpac.cpu.filtering import doubling, halving, minimal, same_size
from kpac.cpu.instructions import registers
from kpac.cpu.vectors import in_pairs, linear, product

LANES = registers().lanes
UNTOUCHED = 7.0


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("turned", [False, True])  # whether A lies in memory column by column
@pytest.mark.parametrize("rows", [1, 7, 8, 21])
@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 5, 12])
def test_product_is_that_of_the_matrices_and_writes_nothing_else(vectors, rows, turned, adds):
    depth, width = 10, vectors * LANES
    torch.manual_seed(0)
    a, b = torch.randn(rows, depth), torch.randn(depth, width)
    c = torch.full((rows + 2, width + LANES), UNTOUCHED)
    c[1:-1, :width] = before = torch.randn(rows, width)
    stored = a.T.contiguous() if turned else a
    steps = (4, 4 * rows) if turned else (4 * depth, 4)
    row = 4 * c.stride(0)
    product(torch.float32, adds)(
        stored.data_ptr(), *steps, b.data_ptr(), 4 * width, c[1].data_ptr(), row, rows, depth, width
    )
    torch.testing.assert_close(c[1:-1, :width], a @ b + (before if adds else 0), atol=1e-5, rtol=0)
    c[1:-1, :width] = UNTOUCHED
    assert (c == UNTOUCHED).all()


@pytest.mark.skipif(not has_bfloat16(), reason="needs a processor with bfloat16")
@pytest.mark.parametrize("rows", [1, 19])
def test_product_of_bfloat16_sums_in_float32(rows):
    torch.manual_seed(0)
    a, b = torch.randn(rows, 32).bfloat16(), torch.randn(32, 5 * LANES).bfloat16()
    pairs, c = in_pairs(b).contiguous(), torch.empty(rows, 5 * LANES)
    row = 4 * 5 * LANES
    product(torch.bfloat16)(a.data_ptr(), 64, 4, pairs.data_ptr(), row, c.data_ptr(), row, rows, 16, 5 * LANES)
    torch.testing.assert_close(c, a.float() @ b.float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize(
    "kinds", [(torch.float32,) * 2, (torch.float32, torch.bfloat16), (torch.bfloat16,) * 2], ids=str
)
@pytest.mark.parametrize(
    "matrix",
    [minimal(4, 3)[0], minimal(4, 3)[2], halving(3).spread, ((1.0, 1.0, 1.0, 1.0, 1.0),), ((0.0,),)],
    ids=["inputs", "outputs", "strided inputs", "sum", "zero"],
)
def test_linear_multiplies_rows_by_the_matrix(matrix, kinds, ends, adds):
    source, target = kinds
    if torch.bfloat16 in kinds and not has_bfloat16():
        pytest.skip("needs a processor with bfloat16")
    torch.manual_seed(0)
    length = 3 * LANES
    values = torch.randn(len(matrix[0]), length + 5).to(source)[:, :length]
    results = torch.full((len(matrix), length + LANES), UNTOUCHED).to(target)
    bias, multiply = torch.randn(length), linear(matrix, source, target, ends, adds)

    @compiled
    def call(a, a_step, b, b_step, length, bias, slope):
        multiply(a, a_step, b, b_step, length, bias, slope)

    steps = (tensor.stride(0) * tensor.element_size() for tensor in (values, results))
    places = zip((values.data_ptr(), results.data_ptr()), steps, strict=True)
    call(*(number for pair in places for number in pair), length, bias.data_ptr(), np.float32(0.2))
    expected = torch.tensor(matrix) @ values.float()
    if ends:
        expected = F.leaky_relu(expected + bias, 0.2)
    if adds:
        expected = expected + UNTOUCHED
    assert (results[:, length:] == UNTOUCHED).all()
    tolerance = 1e-5 if target == torch.float32 else 1e-2 * expected.abs().max().item() + 1e-6
    torch.testing.assert_close(results[:, :length].float(), expected, atol=tolerance, rtol=0)


def convolved(filtering, taps: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """One tile, in float64: outputs beside their parts."""
    values = np.array(filtering.spread) @ inputs
    found = []
    for kernel in filtering.kernels:
        products = values * (np.array(kernel) @ taps)[list(filtering.chosen)]
        found.append(np.array(filtering.gather) @ products)
    return np.stack(found, axis=1)


@pytest.mark.parametrize(("outputs", "taps"), [(4, 3), (2, 5), (4, 2), (2, 3)])
def test_minimal_filtering_is_exact(outputs, taps):
    inputs, kernel = np.random.default_rng(0).standard_normal((2, outputs + taps - 1))
    kernel = kernel[:taps]
    expected = np.correlate(inputs, kernel, mode="valid")
    np.testing.assert_allclose(convolved(same_size(outputs, taps), kernel, inputs)[:, 0], expected, atol=1e-13)


@pytest.mark.parametrize("taps", [3, 4])
def test_halving_is_every_second_output(taps):
    filtering, random = halving(taps), np.random.default_rng(0)
    inputs, kernel = random.standard_normal(len(filtering.spread[0])), random.standard_normal(taps)
    expected = np.correlate(inputs, kernel, mode="valid")[::2]
    np.testing.assert_allclose(convolved(filtering, kernel, inputs)[:, 0], expected[:4], atol=1e-13)


def test_doubling_is_a_transposed_convolution():
    random = np.random.default_rng(0)
    inputs, kernel = random.standard_normal(5), random.standard_normal(4)
    spread = np.zeros(9)
    spread[::2] = inputs
    everywhere = np.convolve(spread, kernel)  # what input i gives begins at 2 * i
    found = convolved(doubling(), kernel, inputs)
    # The first output has its place at the second input: one tap of that lies before it.
    np.testing.assert_allclose(found[:, 0], everywhere[3:11:2], atol=1e-13)
    np.testing.assert_allclose(found[:, 1], everywhere[2:10:2], atol=1e-13)


def test_products_of_bfloat16_are_refused_where_there_are_none(monkeypatch):
    monkeypatch.setattr("kpac.cpu.vectors.multiplies_bfloat16", lambda: False)
    product.cache_clear()
    with pytest.raises(ValueError, match="bfloat16"):
        product(torch.bfloat16)
