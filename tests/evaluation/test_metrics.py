"""Our numbers are the numbers of the field's evaluation scripts."""

from functools import partial

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch.utils._python_dispatch import TorchDispatchMode

from kpac.evaluation.metrics import SSIMSettings, _ssim_at_once, mae, psnr, ssim
from kpac.evaluation.protocols import find_protocol
from tests.conftest import texture


def pair(bits: int, height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    """A target of a given bit depth and a noisy float output, H x W x 3 in [0, 1]."""
    top = 2**bits - 1
    target = np.rint(texture(height, width, bits) * top) / top
    noise = np.random.default_rng(0).normal(0, 0.05, target.shape)
    return np.clip(target + noise, 0, 1), target


def to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@pytest.mark.parametrize("bits", [8, 16])
def test_metrics_equal_the_fields_formulas(bits):
    output, target = pair(bits)
    expected = {
        "psnr": 10 * np.log10(1 / np.mean((output - target) ** 2)),
        "mae": np.mean(np.abs(output - target)),
        "ssim": structural_similarity(output, target, data_range=1, channel_axis=-1),
    }
    found = find_protocol("dpdd-8bit").score(to_tensor(output)[0], to_tensor(target)[0])
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
def test_metrics_of_saved_integers_equal_the_fields_formulas(bits):
    """Both images as integers of a file, flat and clipped places included."""
    output, target = (np.rint(np.clip(1.3 * image - 0.15, 0, 1) * (2**bits - 1)) for image in pair(bits, 90, 70))
    output[:20], target[10:30] = 0, 2**bits - 1
    output, target = (image / (2**bits - 1) for image in (output, target))
    found = find_protocol("dpdd-8bit").score(to_tensor(output)[0], to_tensor(target)[0])
    assert found["psnr"] == pytest.approx(10 * np.log10(1 / np.mean((output - target) ** 2)), abs=1e-6)
    assert found["mae"] == pytest.approx(np.mean(np.abs(output - target)), abs=1e-6)
    expected = structural_similarity(output, target, data_range=1, channel_axis=-1)
    assert found["ssim"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        (SSIMSettings(window=11), {"win_size": 11}),
        (SSIMSettings(window=5, sample_covariance=False), {"win_size": 5, "use_sample_covariance": False}),
        (SSIMSettings(gaussian_sigma=1.5), {"gaussian_weights": True}),
        (
            SSIMSettings(gaussian_sigma=1.5, sample_covariance=False),
            {"gaussian_weights": True, "use_sample_covariance": False},
        ),
    ],
)
def test_ssim_equals_scikit_image_with_other_windows(settings, theirs):
    output, target = pair(16)
    expected = structural_similarity(output, target, data_range=1, channel_axis=-1, **theirs)
    assert ssim(to_tensor(output), to_tensor(target), settings).item() == pytest.approx(expected, abs=1e-6)


def test_ssim_does_not_depend_on_the_bands_that_it_is_computed_in(monkeypatch):
    output, target = map(to_tensor, pair(16, 60, 31))
    whole = ssim(output, target).item()
    monkeypatch.setattr("kpac.evaluation.metrics.BAND", 31 * 20)
    assert ssim(output, target).item() == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("settings", [SSIMSettings(), SSIMSettings(gaussian_sigma=1.5)], ids=["uniform", "gaussian"])
def test_ssim_in_the_way_of_a_gpu_is_that_of_a_cpu(settings):
    first, second = (torch.rand(2, 3, 20, 31, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found, expected = _ssim_at_once(first, second, settings), ssim(first, second, settings)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    gradients = (torch.autograd.grad(value.sum(), first)[0] for value in (found, expected))
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_ssim_on_a_gpu_takes_a_ninth_of_the_operations_and_a_sixth_for_its_gradient():
    first, second = (torch.rand(2, 3, 20, 31, requires_grad=True) for _ in range(2))
    counts = []
    for compute in (partial(_ssim_at_once, settings=SSIMSettings()), ssim):
        with CountedOperations() as forward:
            value = compute(first, second)
        with CountedOperations() as backward:
            value.sum().backward()
        counts.append((forward.count, backward.count))
    (forward, backward), (forward_before, backward_before) = counts
    assert forward * 9 <= forward_before
    assert backward * 6 <= backward_before


class CountedOperations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_ssim_has_the_gradient_of_its_finite_differences():
    first, second = (torch.rand(1, 3, 9, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(ssim, (first, second))


@pytest.mark.gpu
@pytest.mark.parametrize("metric", [psnr, ssim, mae])
def test_metrics_are_the_same_on_a_gpu(metric):
    output, target = map(to_tensor, pair(16))
    found = metric(output.cuda(), target.cuda()).item()
    assert found == pytest.approx(metric(output, target).item(), abs=1e-9)


@pytest.mark.parametrize("size", [(7, 7), (7, 30), (33, 8)])
def test_ssim_equals_scikit_image_on_small_images(size):
    output, target = pair(8, *size)
    expected = structural_similarity(output, target, data_range=1, channel_axis=-1)
    assert ssim(to_tensor(output), to_tensor(target)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (0.5, 0.5), (0.2, 0.9), (0.0, 1.0)])
def test_ssim_equals_scikit_image_on_constant_images(a, b):
    output, target = np.full((9, 9, 3), a), np.full((9, 9, 3), b)
    expected = structural_similarity(output, target, data_range=1, channel_axis=-1)
    assert ssim(to_tensor(output), to_tensor(target)).item() == pytest.approx(expected, abs=1e-6)


def test_one_value_an_image():
    first, second = (torch.rand(2, 3, 16, 16) for _ in range(2))
    for metric in (psnr, ssim, mae):
        both = metric(first, second)
        assert both.shape == (2,)
        assert both[1].item() == pytest.approx(metric(first[1:], second[1:]).item())


def test_equal_images():
    image = torch.rand(1, 3, 8, 8)
    assert psnr(image, image).item() == float("inf")
    assert ssim(image, image).item() == pytest.approx(1)
    assert mae(image, image).item() == 0


def test_image_smaller_than_the_window_is_refused():
    with pytest.raises(ValueError, match=r"7x7 or more, found \(6, 20\)"):
        ssim(torch.rand(1, 3, 6, 20), torch.rand(1, 3, 6, 20))
