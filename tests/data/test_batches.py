"""Crops travel as integers and arrive as the floats that they stand for, to the bit."""

import numpy as np
import pytest
import torch

from kpac.data.batches import PackedBatch, PackedPixels
from kpac.data.dataset import Crop
from kpac.images import to_float

CPU = torch.device("cpu")


def unpacked(*images: np.ndarray, memory_format: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    return PackedPixels.pack([[image] for image in images]).unpack(CPU, memory_format)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_becomes_the_float_that_it_stands_for(dtype):
    values = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    image = np.stack([values, values[::-1], values], axis=-1).reshape(16, -1, 3)
    found = unpacked(image)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found[0].permute(1, 2, 0), to_float(image))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_images_of_several_types_keep_their_order(memory_format):
    generator = np.random.default_rng(0)
    eight, other = generator.integers(256, size=(2, 4, 4, 3)).astype(np.uint8)
    sixteen = generator.integers(65536, size=(4, 4, 3)).astype(np.uint16)
    floats = generator.random((4, 4, 3), np.float32)
    images = [floats, eight, sixteen, other[::-1, ::-1]]  # mirrored, as augmentation leaves them
    found = unpacked(*images, memory_format=memory_format)
    assert found.is_contiguous(memory_format=memory_format)
    for image, tensor in zip(images, found, strict=True):
        expected = image if image.dtype == np.float32 else to_float(image)
        np.testing.assert_array_equal(tensor.permute(1, 2, 0), expected)


def test_views_become_channels_also_when_their_files_differ_in_depth():
    views = (np.full((2, 2, 3), 255, np.uint8), np.full((2, 2, 3), 65535, np.uint16), np.zeros((2, 2, 3), np.uint8))
    batch = PackedBatch.pack([Crop("a", views, views[0])], start=5, size=2).unpack(CPU)
    assert batch.views[0, :, 0, 0].tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert (batch.target.shape, batch.start, batch.size) == ((1, 3, 2, 2), 5, 2)


@pytest.mark.parametrize(("dtype", "bytes_a_value"), [(np.uint8, 1), (np.uint16, 2), (np.float32, 4)])
def test_batch_takes_no_more_bytes_than_its_files_values(dtype, bytes_a_value):
    image = np.zeros((16, 16, 3), dtype)
    batch = PackedBatch.pack([Crop("a", (image,), image)] * 8, start=0, size=8)
    assert batch.nbytes == 2 * 8 * 16 * 16 * 3 * bytes_a_value
