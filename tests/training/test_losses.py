"""Each loss is what its paper says, can be differentiated, and knows where its weights come from."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torchvision.models import VGG19_Weights, vgg19

from kpac.errors import UserError
from kpac.evaluation.metrics import psnr
from kpac.training.losses import LOSSES, CharbonnierLoss, FrequencyLoss, PSNRLoss, SSIMLoss, WeightedLoss
from kpac.training.perceptual import LAYERS, PerceptualLoss

NAME = Path(VGG19_Weights.IMAGENET1K_V1.url).name


def pair(size: int = 8, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    output, target = torch.rand(2, 2, 3, size, size, generator=generator, dtype=dtype)
    return output.requires_grad_(), target


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory) -> Path:
    """Random weights under torchvision's name, the features alone."""
    torch.manual_seed(0)
    state = {f"features.{key}": value for key, value in vgg19(weights=None).features[:LAYERS].state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / NAME
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"perceptual"}))
def test_gradients_are_right(name):
    output, target = pair()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name]()(x, target), output)


def test_perceptual_gradient_is_right_along_a_direction(vgg_file):
    loss = PerceptualLoss(vgg_file).double()
    output, target = pair(16)
    loss(output, target).backward()
    direction = torch.rand_like(output.detach()) - 0.5
    step = 1e-6
    with torch.no_grad():
        change = loss(output + step * direction, target) - loss(output - step * direction, target)
    assert (change / (2 * step)).item() == pytest.approx((output.grad * direction).sum().item(), rel=1e-4)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_equal_images_have_no_loss(name, vgg_file):
    options = {"weights": vgg_file} if name == "perceptual" else {}
    image = torch.rand(1, 3, 16, 16)
    smallest = {"charbonnier": 1e-3, "psnr": -50}.get(name, 0)
    assert LOSSES[name](**options)(image, image.clone()).item() == pytest.approx(smallest, abs=1e-6)


def test_charbonnier_is_the_root_of_the_square_and_epsilon():
    loss = CharbonnierLoss(epsilon=0.3)
    assert loss(torch.full((1, 3, 2, 2), 0.4), torch.zeros(1, 3, 2, 2)).item() == pytest.approx(0.5)


def test_psnr_loss_is_the_mean_over_images_of_the_metric():
    """Not the PSNR of the batch's mean error, which the image with the largest error would decide."""
    output, target = torch.rand(2, 3, 3, 16, 16)
    target[0] = output[0] + 0.01 * torch.rand(3, 16, 16)
    expected = -psnr(output, target).mean()
    assert PSNRLoss(epsilon=0)(output, target).item() == pytest.approx(expected.item(), abs=1e-4)


def test_frequency_loss_of_one_differing_pixel_is_its_difference():
    """A point's spectrum has its value everywhere, and at the origin it is real: half of the parts are zero."""
    output, target = torch.zeros(2, 1, 3, 6, 10, dtype=torch.float64)
    output[:, :, 0, 0] = 0.5
    assert FrequencyLoss()(output, target).item() == pytest.approx(0.25)
    moved = output.roll((2, 3), dims=(2, 3))
    angles = [2 * math.pi * (2 * row / 6 + 3 * column / 10) for row in range(6) for column in range(10)]
    expected = 0.5 * np.mean([(abs(math.cos(angle)) + abs(math.sin(angle))) / 2 for angle in angles])
    assert FrequencyLoss()(moved, target).item() == pytest.approx(expected)


def test_ssim_loss_is_one_minus_the_fields_ssim():
    output, target = (image.detach() for image in pair(16))
    images = (image.permute(0, 2, 3, 1).numpy() for image in (output, target))
    values = [structural_similarity(*both, data_range=1, channel_axis=-1) for both in zip(*images, strict=True)]
    assert SSIMLoss()(output, target).item() == pytest.approx(1 - np.mean(values), abs=1e-9)


def test_perceptual_loss_is_the_distance_of_torchvisions_features(vgg_file):
    loss = PerceptualLoss(vgg_file)
    state = torch.load(vgg_file, weights_only=True)
    reference = vgg19(weights=None).features[:LAYERS].eval()
    reference.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    output, target = (image.detach() for image in pair(32, torch.float32))
    preset = VGG19_Weights.IMAGENET1K_V1.transforms()
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    with torch.no_grad():
        features = [reference((image - mean) / deviation) for image in (output, target)]
        torch.testing.assert_close(loss(output, target), (features[0] - features[1]).square().mean())
    assert features[0].shape == (2, 512, 4, 4)


def test_target_features_and_the_feature_network_get_no_gradient(vgg_file):
    loss = PerceptualLoss(vgg_file)
    output, target = pair(16, torch.float32)
    target.requires_grad_()
    loss(output, target).backward()
    assert output.grad.abs().sum() > 0
    assert target.grad is None
    assert all(parameter.grad is None for parameter in loss.parameters())
    assert not loss.train().features.training


def test_absent_weights_are_named_with_the_place_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    needed = "the perceptual loss needs VGG-19's weights, or train.perceptual_weights: "
    with pytest.raises(UserError, match=f"{needed}.*{NAME}: no such file, and KPAC_OFFLINE forbids"):
        PerceptualLoss()
    monkeypatch.delenv("KPAC_OFFLINE")
    with pytest.raises(UserError, match=rf"{needed}.*save it by hand as {tmp_path}/checkpoints/{NAME}$"):
        PerceptualLoss()


def test_torchvisions_own_copy_is_found(tmp_path, monkeypatch, vgg_file):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / NAME).write_bytes(vgg_file.read_bytes())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    state = torch.load(vgg_file, weights_only=True)
    assert torch.equal(PerceptualLoss().features[0].weight, state["features.0.weight"])


@pytest.mark.parametrize("content", [b"", b"no weights", "another network", "missing"])
def test_wrong_file_of_weights_is_one_line(tmp_path, content):
    path = tmp_path / "vgg.pth"
    if content == "another network":
        torch.save({"features.0.weight": torch.zeros(1)}, path)
    elif content != "missing":
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"vgg.pth: (not a weights file|not VGG-19|cannot be read)"):
        PerceptualLoss(path)


def test_weighted_loss_is_the_sum_of_its_terms():
    output, target = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    total, terms = WeightedLoss({"l1": 0.5, "mse": 2.0})(output, target)
    torch.testing.assert_close(terms["l1"], (output - target).abs().mean())
    torch.testing.assert_close(total, 0.5 * terms["l1"] + 2 * (output - target).square().mean())


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"perceptual"}))
def test_losses_are_float32_under_autocast(name):
    output, target = pair(16, torch.float32)
    loss = WeightedLoss({name: 1.0})
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(output.bfloat16(), target)[0]
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, loss(output.bfloat16().float(), target)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_perceptual_loss_computes_in_the_precision_of_the_network(vgg_file, dtype):
    loss = WeightedLoss({"perceptual": 1.0}, vgg_file, dtype).to(memory_format=torch.channels_last)
    exact = WeightedLoss({"perceptual": 1.0}, vgg_file)
    output, target = pair(32, torch.float32)
    features = loss.terms["perceptual"].features
    seen = []
    features[0].register_forward_hook(lambda _, __, result: seen.append(result))
    value, _ = loss(output, target)
    value.backward()
    assert {result.dtype for result in seen} == {dtype}
    assert all(result.is_contiguous(memory_format=torch.channels_last) for result in seen)
    assert value.dtype is output.grad.dtype is torch.float32
    assert value.item() == pytest.approx(exact(output, target)[0].item(), rel=1e-5 if dtype is torch.float32 else 2e-2)
