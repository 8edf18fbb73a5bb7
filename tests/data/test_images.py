"""Images keep their bits."""

import cv2
import numpy as np
import pytest

from kpac.data.images import bits, from_float, read_pixels, to_float, write_pixels
from kpac.errors import UserError


def every_value() -> np.ndarray:
    """All 65,536 values in red, the same backwards in green, and shuffled in blue."""
    values = np.arange(65536, dtype=np.uint16)
    shuffled = np.random.default_rng(0).permutation(values)
    return np.stack([values, values[::-1], shuffled], axis=-1).reshape(256, 256, 3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_survive_reading_float_and_writing(tmp_path, suffix):
    pixels = every_value()
    write_pixels(tmp_path / f"a{suffix}", pixels)
    read = read_pixels(tmp_path / f"a{suffix}")
    assert bits(read) == 16
    np.testing.assert_array_equal(read, pixels)
    np.testing.assert_array_equal(from_float(to_float(read), 16), pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_8_bit_reading_is_opencvs_own(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_pixels(path, every_value())
    expected = cv2.imread(str(path))[..., ::-1]
    read = read_pixels(path, bit_depth=8)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, expected)
    assert read[0, 0, 0] == 0
    assert read[-1, -1, 0] == 255


def test_channels_are_red_green_blue(tmp_path):
    write_pixels(tmp_path / "a.png", np.full((2, 2, 3), (200, 100, 50), np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((2, 2, 3), (50, 100, 200), np.uint8))
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), read_pixels(tmp_path / "b.png"))
    assert read_pixels(tmp_path / "a.png")[0, 0].tolist() == [200, 100, 50]


def test_gray_becomes_three_channels_and_alpha_goes(tmp_path):
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((2, 3), 300, np.uint16))
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((2, 3, 4), (1, 2, 3, 0), np.uint8))
    assert read_pixels(tmp_path / "gray.png")[0, 0].tolist() == [300, 300, 300]
    assert read_pixels(tmp_path / "alpha.png")[0, 0].tolist() == [3, 2, 1]


def test_path_with_spaces_and_other_letters_reads_and_writes(tmp_path):
    path = tmp_path / "Ünschärfe 写真 1.png"
    write_pixels(path, np.zeros((1, 1, 3), np.uint8))
    assert read_pixels(path).shape == (1, 1, 3)


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(UserError, match=r"broken.png: not a whole image file"):
        read_pixels(tmp_path / "broken.png")


def test_truncated_png_is_refused(tmp_path):
    path = tmp_path / "cut.png"
    write_pixels(path, every_value())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cut.png: not a whole image file"):
        read_pixels(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone.png: cannot be read \(No such file"):
        read_pixels(tmp_path / "gone.png")
