"""Images keep their bits."""

import resource
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kpac.errors import UserError
from kpac.images import bits, from_float, read_pixels, to_float, write_pixels
from tests.conftest import texture


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


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_truncated_file_is_refused(tmp_path, suffix, kept):
    path = tmp_path / f"cut{suffix}"
    write_pixels(path, np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(UserError, match=rf"cut{suffix}: not a whole image file"):
        read_pixels(path)


def test_truncated_photograph_with_a_whole_preview_inside_is_refused(tmp_path, monkeypatch):
    """The preview ends like a JPEG, and OpenCV 4 fills what is missing of the photograph with gray."""
    exif = Image.Exif()
    exif[0x010E] = b"\xff\xd8 preview \xff\xd9".decode("latin-1")
    path = tmp_path / "cut.jpg"
    Image.new("RGB", (64, 64), "red").save(path, exif=exif)
    assert read_pixels(path).shape == (64, 64, 3)
    path.write_bytes(path.read_bytes()[:-10])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(UserError, match="not a whole image file"):
        read_pixels(path)


READ = """
import sys, cv2  # before our own modules, as a user's script may
from kpac.images import read_pixels
from kpac.errors import UserError
try:
    read_pixels(sys.argv[1])
except UserError as error:
    print("kpac:", error, file=sys.stderr)
"""


@pytest.mark.parametrize(("suffix", "damage"), [(".png", "cut"), (".png", "flipped"), (".tif", "cut")])
def test_damaged_image_is_one_line_on_the_terminal(tmp_path, suffix, damage):
    path = tmp_path / f"broken{suffix}"
    write_pixels(path, np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 255
    path.write_bytes(content[:middle] if damage == "cut" else content)
    errors = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True).stderr
    assert errors.count("\n") == 1
    assert errors.startswith(f"kpac: {path}: not a whole image file")


def test_png_with_a_damaged_note_is_read(tmp_path):
    path = tmp_path / "a.png"
    note = PngInfo()
    note.add_text("note", "what a camera says")
    Image.new("RGB", (4, 4), "red").save(path, pnginfo=note)
    path.write_bytes(path.read_bytes().replace(b"camera", b"c4mera"))
    assert read_pixels(path)[0, 0].tolist() == [255, 0, 0]


def test_orientation_of_photographs_is_honoured(tmp_path):
    stored = texture(16, 24, seed=0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(from_float(stored, 8)).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    shown = read_pixels(tmp_path / "a.jpg")
    assert shown.shape == (24, 16, 3)
    assert np.abs(to_float(shown) - np.rot90(stored, -1)).mean() < 0.02


def test_dropped_alpha_is_said_once_a_folder(tmp_path, caplog):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.full((2, 3, 4), (1, 2, 3, 0), np.uint8))
        read_pixels(tmp_path / name)
    assert caplog.text.count("images with an alpha channel, which is dropped") == 1


def test_disk_that_is_full_is_named_with_its_reason(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"a.png: cannot be written \(File too large\)"):
            write_pixels(tmp_path / "a.png", every_value())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone.png: cannot be read \(No such file"):
        read_pixels(tmp_path / "gone.png")
