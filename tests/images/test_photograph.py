"""A photograph leaves with all that it came with."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from kpac.errors import UserError
from kpac.images import Photograph, read_photograph, to_float
from kpac.images.directories import read_exif
from kpac.images.photograph import Metadata
from tests.conftest import texture

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF = {33434: 0.01, 36867: "2020:01:02 03:04:05"}  # exposure time, date
GPS = {1: "N", 2: (1.0, 2.0, 3.5)}
COLOURS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def metadata(orientation: int) -> dict:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update(EXIF)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(GPS)
    return {"exif": exif.tobytes(), "icc_profile": PROFILE, "dpi": (300, 300)}


def channels(count: int, bits: int) -> np.ndarray:
    """24 x 40 x count."""
    image = texture(24, 40, 0)
    image = np.dstack([image, image[::-1, :, :1]])[..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[count]]
    return (image * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def make(path: Path, count: int, bits: int, orientation: int = 1) -> np.ndarray:
    """Writes a photograph and returns its pixels as they are stored."""
    pixels = channels(count, bits)
    if path.suffix == ".tif" or bits == 16:
        tags = read_exif(metadata(orientation)["exif"].removeprefix(b"Exif\0\0"))
        kind = "TIFF" if path.suffix == ".tif" else "PNG"
        Photograph.from_channels(pixels, kind, orientation, Metadata(tags, PROFILE, dpi=(300, 300))).save(path)
    else:
        image = Image.fromarray(pixels[..., 0] if count == 1 else pixels)
        image.save(path, **metadata(orientation), **({"quality": 95} if path.suffix in (".jpg", ".webp") else {}))
    return pixels


def facts(path: Path) -> dict:
    """What another program finds in a file."""
    with Image.open(path) as file:
        exif = file.getexif()
        return {
            "format": file.format,
            "mode": file.mode,
            "size": file.size,
            "profile": file.info.get("icc_profile"),
            "resolution": [round(float(value)) for value in file.info.get("dpi", ())],
            "make": exif.get(ExifTags.Base.Make),
            "orientation": exif.get(ExifTags.Base.Orientation),
            "exif": dict(exif.get_ifd(ExifTags.IFD.Exif)),
            "gps": dict(exif.get_ifd(ExifTags.IFD.GPSInfo)),
        }


KINDS = [
    *((suffix, count, 8) for suffix in (".png", ".tif") for count in (1, 2, 3, 4)),
    *((suffix, count, 16) for suffix in (".png", ".tif") for count in (1, 3, 4)),
    (".jpg", 1, 8),
    (".jpg", 3, 8),
    (".webp", 3, 8),
    (".webp", 4, 8),
]


@pytest.mark.parametrize(("suffix", "count", "bits"), KINDS)
def test_file_keeps_format_bit_depth_and_metadata(tmp_path, suffix, count, bits):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    stored = make(source, count, bits, orientation=6)
    photograph = read_photograph(source)
    assert photograph.pixels.dtype == stored.dtype
    assert photograph.gray == (count < 3)
    assert (photograph.alpha is not None) == (count in (2, 4))
    photograph.with_image(photograph.image).save(target)
    found = facts(target)
    assert found == facts(source)
    assert found["profile"] == PROFILE
    assert (found["make"], found["orientation"], found["exif"], found["gps"]) == ("Maker", 6, EXIF, GPS)
    again = read_photograph(target)
    if suffix in (".png", ".tif"):
        assert np.array_equal(again.pixels, photograph.pixels)
        colours = stored[..., :1] if count < 3 else stored[..., :3]
        assert np.array_equal(photograph.pixels, np.rot90(colours, -1) + np.zeros(3, stored.dtype))
    if photograph.alpha is not None:
        assert np.array_equal(again.alpha, photograph.alpha)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_network_sees_the_photograph_upright_and_the_file_stays_as_it_was(tmp_path, suffix, orientation):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    make(source, 3, 8, orientation)
    photograph = read_photograph(source)
    if suffix == ".jpg":  # Pillow's own reading is the reference
        with Image.open(source) as file:
            from PIL import ImageOps

            assert np.array_equal(photograph.pixels, np.asarray(ImageOps.exif_transpose(file)))
    photograph.save(target)
    assert facts(target)["orientation"] == orientation
    if suffix == ".tif":
        assert np.array_equal(tifffile.imread(target), tifffile.imread(source))
    elif suffix == ".png":
        assert np.array_equal(np.asarray(Image.open(target)), np.asarray(Image.open(source)))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_tags_of_a_tiff_come_along_byte_for_byte(tmp_path, byteorder, bigtiff):
    copyright_line = "© 2024 José Müller".encode()
    extra = [(33432, 2, 0, copyright_line, True), (65000, 4, 3, (1, 2, 70_000), True), (700, 1, 9, b"<x:xmp/>\n", True)]
    pixels = channels(3, 16)
    options = {"byteorder": byteorder, "bigtiff": bigtiff, "resolution": (240, 240), "iccprofile": PROFILE}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=extra, metadata=None, **options)
    read_photograph(tmp_path / "a.tif").save(tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as old, tifffile.TiffFile(tmp_path / "b.tif") as new:
        assert (new.byteorder, new.is_bigtiff) == (byteorder, bigtiff)
        for tag in (33432, 65000, 700, 282, 283, 296, 34675):
            before, after = (file.pages.first.tags[tag] for file in (old, new))
            assert (after.dtype, after.count, after.value) == (before.dtype, before.count, before.value)
        assert np.array_equal(new.asarray(), pixels)
    assert copyright_line in (tmp_path / "b.tif").read_bytes()


def test_what_a_tiff_cannot_keep_is_said(tmp_path, caplog):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(channels(3, 8), photometric="rgb", subifds=1, metadata=None)
        file.write(channels(3, 8)[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    read_photograph(tmp_path / "a.tif").save(tmp_path / "b.tif")
    assert "left out, since the format cannot store it: further images inside the TIFF (SubIFDs)" in caplog.text


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("target", [".png", ".tif", ".jpg", ".webp", ".heic"])
def test_metadata_comes_along_into_another_format(tmp_path, suffix, target):
    if target == ".heic":
        pytest.importorskip("pillow_heif")
    make(tmp_path / f"a{suffix}", 3, 8, orientation=6)
    photograph = read_photograph(tmp_path / f"a{suffix}")
    photograph.save(tmp_path / f"b{target}")
    again = read_photograph(tmp_path / f"b{target}")
    assert again.pixels.shape == photograph.pixels.shape
    assert again.metadata.icc_profile == PROFILE
    tags = again.metadata.tags
    assert tags.value(271).rstrip(b"\0") == b"Maker"
    assert {entry.tag for entry in tags.directories[ExifTags.IFD.Exif]} == set(EXIF)
    assert {entry.tag for entry in tags.directories[ExifTags.IFD.GPSInfo]} == set(GPS)
    assert again.orientation == (6 if target == suffix else 1)


def test_sixteen_bits_never_pass_through_eight(tmp_path):
    make(tmp_path / "a.png", 3, 16)
    photograph = read_photograph(tmp_path / "a.png")
    image = photograph.image
    image[0, 0] = 12345.4 / 65535
    photograph.with_image(image).save(tmp_path / "b.png")
    assert read_photograph(tmp_path / "b.png").pixels[0, 0].tolist() == [12345] * 3
    assert image.dtype == np.float32
    assert np.array_equal(image[1:], to_float(photograph.pixels)[1:])


def test_palette_becomes_colour_and_bilevel_gray(tmp_path):
    image = Image.fromarray(channels(3, 8))
    image.quantize(16).save(tmp_path / "palette.png")
    image.convert("1").save(tmp_path / "bilevel.png")
    assert not read_photograph(tmp_path / "palette.png").gray
    bilevel = read_photograph(tmp_path / "bilevel.png")
    assert bilevel.gray
    assert set(np.unique(bilevel.pixels)) == {0, 255}


@pytest.mark.parametrize("size", [(1, 1), (1, 65_500), (65_500, 1)])  # 65,500 is the JPEG library's limit
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_smallest_and_longest_photographs(tmp_path, suffix, size):
    Image.new("RGB", (size[1], size[0]), (10, 200, 30)).save(tmp_path / f"a{suffix}")
    photograph = read_photograph(tmp_path / f"a{suffix}")
    assert photograph.pixels.shape == (*size, 3)
    photograph.with_image(photograph.image).save(tmp_path / f"b{suffix}")
    assert read_photograph(tmp_path / f"b{suffix}").pixels.shape == (*size, 3)


def test_what_cannot_be_read_is_one_line_that_says_why(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    expect(path, "no image that can be read (0 bytes)")
    path.write_text("a shopping list")
    expect(path, "no image that can be read (15 bytes)")
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")
    expect(tmp_path / "a.jpg", "expected RGB or gray of 8 or 16 bits, found CMYK")
    expect(tmp_path, "cannot be read")
    expect(tmp_path / "gone.png", "cannot be read (No such file or directory)")
    pages = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 200)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    expect(tmp_path / "pages.tif", "holds 2 images")


def test_limit_of_a_photograph_is_memory_and_is_said_in_bytes(tmp_path, monkeypatch):
    Image.new("RGB", (2000, 1000)).save(tmp_path / "a.png")
    assert read_photograph(tmp_path / "a.png").pixels.shape == (1000, 2000, 3)
    monkeypatch.setattr("kpac.images.reading.available_bytes", lambda: 6_000_000)
    expect(tmp_path / "a.png", "is 2000x1000; reading it takes 24.0 MB of memory, 6.0 MB is free")


def test_pixels_that_a_header_promises_and_the_file_lacks_are_refused(tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + checked + b"\0\0\0\0IDAT")
    with pytest.raises(UserError, match=r"not a whole image file|of memory"):
        read_photograph(tmp_path / "bomb.png")


@pytest.mark.parametrize(("suffix", "count", "bits"), KINDS)
def test_truncated_files_are_refused_in_one_line(tmp_path, suffix, count, bits):
    source, cut = tmp_path / f"a{suffix}", tmp_path / f"cut{suffix}"
    make(source, count, bits)
    content = source.read_bytes()
    refusals = []
    for share in np.linspace(0.02, 0.98, 25):
        cut.write_bytes(content[: int(share * len(content))])
        try:  # a cut behind the pixels loses nothing
            read_photograph(cut)
        except UserError as error:
            refusals.append(str(error))
    assert len(refusals) > 15
    assert all(line.startswith(f"{cut}: ") and "\n" not in line for line in refusals)


def test_format_without_room_is_refused_and_nothing_is_left(tmp_path):
    make(tmp_path / "a.webp", 3, 8)
    photograph = read_photograph(tmp_path / "a.webp")
    import dataclasses

    wide = dataclasses.replace(photograph, pixels=np.zeros((2, 20_000, 3), np.uint8))
    with pytest.raises(UserError, match="cannot be written as WEBP"):
        wide.save(tmp_path / "out" / "b.webp")
    assert list((tmp_path / "out").iterdir()) == []


def expect(path: Path, words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_photograph(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message
