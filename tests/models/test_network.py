"""Properties of KPACNet beyond the golden cases."""

import pytest
import torch

from kpac import KPACBlock, create_model


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (3, 8), (7, 7), (16, 12), (37, 53)])
@pytest.mark.parametrize("name", ["kpac_2level", "kpac_3level", "kpac_dual"])
def test_any_size_comes_back(name, size):
    model = create_model(name, width=4)
    output = model(torch.rand(2, 3 * len(model.views), *size))
    assert output.shape == (2, 3, *size)
    assert output.isfinite().all()


def test_size_that_is_a_multiple_is_not_padded():
    model = create_model("kpac_2level", width=4).eval()
    views = torch.rand(1, 3, 16, 24)
    expected = (views * 2 - 1 + model.residual(views * 2 - 1) + 1) / 2
    torch.testing.assert_close(model(views), expected, atol=1e-6, rtol=0)


def test_other_sizes_are_extended_by_reflection():
    model = create_model("kpac_2level", width=4).eval()
    views = torch.rand(1, 3, 14, 21)
    extended = torch.cat([views, views[:, :, 11:13].flip(2)], dim=2)
    extended = torch.cat([extended, extended[:, :, :, 17:20].flip(3)], dim=3)
    assert torch.equal(model(views), model(extended)[:, :, :14, :21])


@pytest.mark.parametrize("blocks", [0, 1, 4])
def test_any_number_of_blocks_takes_a_gradient(blocks):
    model = create_model("kpac_2level", width=4, blocks=blocks)
    model(torch.rand(1, 3, 8, 8)).square().mean().backward()
    assert len(model.blocks) == blocks
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_he_initialisation_starts_from_the_identity():
    views = torch.rand(1, 3, 12, 12)
    model = create_model("kpac_2level", width=8, init="he")
    torch.testing.assert_close(model(views), views)


def test_authors_initialisation_has_the_published_deviation():
    torch.manual_seed(0)
    model = create_model("kpac_2level", init="authors")
    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.dim() == 4])
    biases = torch.cat([p.detach() for p in model.parameters() if p.dim() == 1])
    assert abs(weights.std() - 0.04) < 1e-4
    assert biases.abs().max() == 0


def test_wrong_number_of_channels_is_named():
    with pytest.raises(ValueError, match=r"\(N, 9, H, W\) for center, left, right, found \(1, 3, 8, 8\)"):
        create_model("kpac_dual", width=4)(torch.rand(1, 3, 8, 8))


def test_branches_share_one_kernel():
    block = KPACBlock(8, 4, kernel_size=3, dilations=(1, 2, 5))
    assert [name for name, _ in block.named_parameters() if name.startswith("kernel")] == ["kernels.0"]
    point = torch.zeros(1, 8, 21, 21)
    point[0, 3, 10, 10] = 1
    for dilation, response in zip(block.dilations, block.branches(point), strict=True):
        taps = response[0, :, 10 - dilation : 11 + dilation : dilation, 10 - dilation : 11 + dilation : dilation]
        kernel = block.kernels[0][:, 3].flip(1, 2)  # a convolution layer correlates: a point shows its kernel turned
        torch.testing.assert_close(taps, torch.where(kernel > 0, kernel, 0.2 * kernel))
        assert response.count_nonzero() == taps.count_nonzero()
