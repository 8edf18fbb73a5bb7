"""Every kind of file gives the array that its pixels mean, and what would be a guess is refused by name."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from kpac.data.cache import DecodedCache
from kpac.errors import UserError
from kpac.images import kinds, list_images, read_header, read_photograph, read_pixels, write_pixels
from tests.conftest import texture

LOSSLESS = (None, "lzw", "zlib", "packbits", "zstd", "lzma", "deflate")


def channels(count: int, kind: str) -> np.ndarray:
    """37 x 53 x count, smooth, over the whole range of the type."""
    image = texture(37, 53, 0)
    chosen = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[count]
    image = np.dstack([image, 0.2 + 0.8 * image[::-1, :, :1]])[..., chosen]
    image = (image - image.min()) / (image.max() - image.min())
    return image.astype(kind) if kind[0] == "f" else np.rint(image * np.iinfo(kind).max).astype(kind)


def write_tiff(path: Path, pixels: np.ndarray, photometric: str = "rgb", **options: object) -> None:
    """H x W x C as tifffile writes them."""
    if options.get("planarconfig") == "separate":
        pixels = np.moveaxis(pixels, 2, 0)
    tifffile.imwrite(path, pixels, photometric=photometric, metadata=None, **options)


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("parts", [{"rowsperstrip": 7}, {"tile": (16, 32)}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_of_every_layout_gives_its_pixels(tmp_path, compression, planarconfig, parts, byteorder):
    for kind in ("uint8", "uint16"):
        for bigtiff in (False, True):
            pixels = channels(3, kind)
            options = {"planarconfig": planarconfig, "compression": compression, "byteorder": byteorder}
            write_tiff(tmp_path / "a.tif", pixels, **options, **parts, bigtiff=bigtiff)
            assert np.array_equal(read_pixels(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("compression", ["jpeg", "webp", "jpegxl", "png", "jpeg2000"])
def test_tiff_with_a_picture_format_inside(tmp_path, compression):
    pixels = channels(3, "uint8")
    write_tiff(tmp_path / "a.tif", pixels, compression=compression, tile=(32, 32))
    found = read_pixels(tmp_path / "a.tif").astype(int)
    if compression == "jpeg":  # of what coarse colours leave, libtiff is the reference
        assert np.array_equal(found, cv2.imread(str(tmp_path / "a.tif"))[..., ::-1])
    else:
        assert np.abs(found - pixels).mean() < (6 if compression in ("webp", "jpegxl") else 1e-9)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_white_is_zero_is_inverted(tmp_path, kind, byteorder):
    pixels = channels(2, kind)
    negative = np.dstack([np.iinfo(kind).max - pixels[..., 0], pixels[..., 1]])
    write_tiff(tmp_path / "a.tif", negative[..., 0], "miniswhite", byteorder=byteorder)
    write_tiff(tmp_path / "b.tif", negative, "miniswhite", planarconfig="contig", extrasamples=["unassalpha"])
    assert np.array_equal(read_pixels(tmp_path / "a.tif")[..., 1], pixels[..., 0])
    photograph = read_photograph(tmp_path / "b.tif")
    assert np.array_equal(photograph.pixels[..., 2], pixels[..., 0])
    assert np.array_equal(photograph.alpha, pixels[..., 1])


def packed(values: np.ndarray, depth: int) -> bytes:
    """Rows of integers, each row to whole bytes, most significant bit first."""
    rows = values.reshape(len(values), -1)
    bits = ((rows[..., None] >> np.arange(depth)[::-1]) & 1).astype(np.uint8).reshape(len(rows), -1)
    return np.packbits(bits, axis=1).tobytes()


def tiff_by_hand(values: np.ndarray, depth: int, order: str = "<", photometric: int | None = None) -> bytes:
    """An uncompressed TIFF of one strip, as the specification says it."""
    height, width, count = values.shape
    content = packed(values, depth)
    photometric = photometric if photometric is not None else {1: 1, 3: 2}[count]
    entries = [(256, 3, width), (257, 3, height), (258, 3, depth), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    entries += [(277, 3, count), (278, 3, height), (279, 4, len(content)), (284, 3, 1)]
    start = 8 + len(content) + len(content) % 2
    behind = start + 2 + 12 * len(entries) + 4
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, value in entries:
        if tag == 258 and count == 3:
            directory += struct.pack(order + "HHII", tag, kind, 3, behind)
        else:
            directory += struct.pack(order + "HHI", tag, kind, 1) + struct.pack(order + "IH"[kind == 3], value).ljust(
                4, b"\0"
            )
    directory += bytes(4) + struct.pack(order + "HHH", depth, depth, depth)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return (head + content).ljust(start, b"\0") + directory


@pytest.mark.parametrize("depth", [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_packed_bits_use_the_full_range(tmp_path, depth, count, order):
    top, most = (1 << depth) - 1, 255 if depth <= 8 else 65535
    values = np.random.default_rng(depth).integers(0, top + 1, (11, 13, count), dtype=np.uint16)
    values[0, 0], values[0, 1] = 0, top
    (tmp_path / "a.tif").write_bytes(tiff_by_hand(values, depth, order))
    found = read_pixels(tmp_path / "a.tif")
    assert found.dtype == (np.uint8 if depth <= 8 else np.uint16)
    assert np.array_equal(found, np.rint(values * (most / top)) + np.zeros(3))
    assert found.min() == 0
    assert found.max() == most


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_colours_are_those_of_the_png_whatever_alpha_does(tmp_path, photometric, kind, planarconfig):
    pixels = channels(4 if photometric == "rgb" else 2, kind)
    colour, alpha, top = pixels[..., :-1], pixels[..., -1:], np.iinfo(kind).max
    multiplied = np.rint(colour.astype(float) * alpha / top).astype(kind)
    options = {"planarconfig": planarconfig}
    write_tiff(tmp_path / "a.tif", pixels, photometric, extrasamples=["unassalpha"], **options)
    write_tiff(tmp_path / "b.tif", np.dstack([multiplied, alpha]), photometric, extrasamples=["assocalpha"], **options)
    write_tiff(tmp_path / "c.tif", pixels, photometric, extrasamples=["unspecified"], **options)
    bgra = pixels[..., [2, 1, 0, 3]] if photometric == "rgb" else pixels[..., [0, 0, 0, 1]]
    cv2.imwrite(str(tmp_path / "a.png"), bgra)
    expected = read_pixels(tmp_path / "a.png")
    assert np.array_equal(expected, colour + np.zeros(3, kind))
    assert np.array_equal(read_pixels(tmp_path / "a.tif"), expected)
    assert np.array_equal(read_pixels(tmp_path / "c.tif"), expected)
    visible = alpha[..., 0] > top // 8
    difference = np.abs(read_pixels(tmp_path / "b.tif").astype(int) - expected)[visible]
    assert visible.mean() > 0.5
    assert difference.max() <= 4  # what rounding the products loses


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_floats_in_the_unit_range_are_sixteen_bits_and_come_back_as_floats(tmp_path, kind):
    pixels = channels(3, kind)
    write_tiff(tmp_path / "a.tif", pixels)
    photograph = read_photograph(tmp_path / "a.tif")
    assert np.array_equal(photograph.pixels, np.rint(pixels.astype(float) * 65535))
    photograph.save(tmp_path / "b.tif")
    again = tifffile.imread(tmp_path / "b.tif")
    assert again.dtype == kind
    assert np.abs(again.astype(float) - pixels).max() < (1e-3 if kind == "float16" else 1 / 65535)


@pytest.mark.parametrize("value", [1.01, -0.01, 255.0, float("nan"), float("inf")])
def test_floats_that_need_a_guess_are_refused_with_their_range(tmp_path, value):
    pixels = channels(3, "float32")
    pixels[3, 4, 1] = value
    write_tiff(tmp_path / "a.tif", pixels)
    with pytest.raises(UserError, match=r"a.tif: holds floats from .* to .*; expected values in \[0, 1\]"):
        read_pixels(tmp_path / "a.tif")


@pytest.mark.parametrize("place", ["behind", "before", "inside"])
def test_reduced_images_beside_the_photograph_are_ignored(tmp_path, place):
    pixels, small = channels(3, "uint8"), channels(3, "uint8")[::3, ::3]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        if place == "before":
            file.write(small, photometric="rgb", subfiletype=1, metadata=None)
        file.write(pixels, photometric="rgb", metadata=None, subifds=1 if place == "inside" else None)
        if place != "before":
            file.write(small, photometric="rgb", subfiletype=1, metadata=None)
    assert np.array_equal(read_pixels(tmp_path / "a.tif"), pixels)
    assert read_header(tmp_path / "a.tif").width == 53


def test_tiff_palette_is_looked_up(tmp_path):
    image = Image.fromarray(channels(3, "uint8")).quantize(32)
    image.save(tmp_path / "a.tif")
    assert np.array_equal(read_pixels(tmp_path / "a.tif"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"photometric": "separated"}, "found CMYK"),
        ({"photometric": "cielab"}, "found CIE Lab"),
        ({"photometric": "ycbcr"}, "found YCbCr"),
        ({"photometric": "cfa"}, "RAW"),
        ({"photometric": "rgb", "extrasamples": ["unspecified"] * 2}, "has 5 channels"),
    ],
)
def test_tiff_that_is_not_supported_is_refused_by_name(tmp_path, options, name):
    count = 5 if "extrasamples" in options else {"separated": 4, "cfa": 1}.get(options["photometric"], 3)
    pixels = np.zeros((16, 16, count), np.uint8)
    options = {"planarconfig": "contig" if count > 1 else None, **options}
    tifffile.imwrite(tmp_path / "a.tif", pixels[..., 0] if count == 1 else pixels, metadata=None, **options)
    with pytest.raises(UserError, match=name):
        read_pixels(tmp_path / "a.tif")


@pytest.mark.parametrize(("kind", "name"), [("int16", "signed integers of 16"), ("uint32", "integers of 32")])
def test_numbers_that_are_not_supported_are_refused_by_name(tmp_path, kind, name):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16), kind), photometric="minisblack")
    with pytest.raises(UserError, match=f"a.tif: holds {name} bits"):
        read_pixels(tmp_path / "a.tif")


def test_pages_are_refused_with_their_number(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 16, 16), np.uint8), photometric="minisblack")
    with pytest.raises(UserError, match=r"a.tif: holds 3 images; expected one"):
        read_pixels(tmp_path / "a.tif")


def test_missing_strips_are_damage_and_not_black(tmp_path):
    write_tiff(tmp_path / "a.tif", channels(3, "uint8"), rowsperstrip=8, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        counts = list(file.pages.first.tags[279].value)
        file.pages.first.tags[279].overwrite([*counts[:2], 0, *counts[3:]])
    with pytest.raises(UserError, match="not a whole image file"):
        read_pixels(tmp_path / "a.tif")


RAW_HEADS = {
    "cr2": b"II*\0\x10\0\0\0CR\x02\0",
    "cr3": b"\0\0\0\x18ftypcrx \0\0\0\x01",
    "orf": b"IIRO\x08\0\0\0",
    "rw2": b"IIU\0\x18\0\0\0",
    "raf": b"FUJIFILMCCD-RAW 0201",
    "x3f": b"FOVb\0\0\0\0",
    "mrw": b"\0MRM\0\0\0\0",
}


@pytest.mark.parametrize("suffix", ["dng", "NEF", "cr2", "arw", "raf"])
def test_raw_file_is_refused_by_its_name_whatever_opens_in_it(tmp_path, suffix):
    write_tiff(tmp_path / "a.tif", channels(3, "uint8"))
    (tmp_path / "a.tif").rename(tmp_path / f"a.{suffix}")
    with pytest.raises(UserError, match=r"RAW file, whose preview is not the photograph; develop it first"):
        read_photograph(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("head", RAW_HEADS.values(), ids=RAW_HEADS)
def test_raw_file_under_another_name_is_refused(tmp_path, head):
    (tmp_path / "a.tif").write_bytes(head.ljust(200, b"\0"))
    with pytest.raises(UserError, match="RAW file"):
        read_photograph(tmp_path / "a.tif")


@pytest.mark.parametrize("colours", ["cfa", "linear_raw"])
@pytest.mark.parametrize("preview", ["reduced", "full"])
def test_raw_data_behind_a_preview_is_found(tmp_path, colours, preview):
    small = channels(3, "uint8")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        reduced = {"subfiletype": 1} if preview == "reduced" else {}
        file.write(small, photometric="rgb", subifds=1, metadata=None, **reduced)
        if colours == "cfa":
            file.write(np.zeros((64, 64), np.uint16), photometric="cfa", metadata=None)
        else:
            file.write(np.zeros((64, 64, 3), np.uint16), photometric=34892, planarconfig="contig", metadata=None)
    with pytest.raises(UserError, match="RAW file"):
        read_photograph(tmp_path / "a.tif")


def test_lone_preview_is_not_the_photograph(tmp_path):
    write_tiff(tmp_path / "a.tif", channels(3, "uint8"), subfiletype=1)
    with pytest.raises(UserError, match="reduced previews, as in a camera's RAW file"):
        read_photograph(tmp_path / "a.tif")


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG from its chunks."""
    encoded = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        encoded += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return encoded


def png_of(values: np.ndarray, depth: int, colour: int, *beside: tuple[bytes, bytes]) -> bytes:
    """H x W x C integers as a PNG, with chunks beside the pixels."""
    rows = packed(values, depth)
    step = len(rows) // len(values)
    lines = b"".join(b"\0" + rows[at : at + step] for at in range(0, len(rows), step))
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), depth, colour, 0, 0, 0)
    return png((b"IHDR", header), *beside, (b"IDAT", zlib.compress(lines)), (b"IEND", b""))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_gray_png_of_every_depth_uses_the_full_range(tmp_path, depth):
    top, most = (1 << depth) - 1, 65535 if depth == 16 else 255
    values = np.random.default_rng(0).integers(0, top + 1, (9, 11, 1))
    (tmp_path / "a.png").write_bytes(png_of(values, depth, 0))
    assert np.array_equal(read_pixels(tmp_path / "a.png"), values * (most // top) + np.zeros(3))
    assert read_header(tmp_path / "a.png").bit_depth == depth


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_palette_png_gives_its_colours(tmp_path, depth, transparent):
    count = 1 << depth
    palette = np.random.default_rng(0).integers(0, 256, (count, 3), dtype=np.uint8)
    values = np.random.default_rng(1).integers(0, count, (9, 11, 1))
    beside = [(b"PLTE", palette.tobytes())] + [(b"tRNS", b"\0\x80")] * transparent
    (tmp_path / "a.png").write_bytes(png_of(values, depth, 3, *beside))
    photograph = read_photograph(tmp_path / "a.png")
    assert np.array_equal(photograph.pixels, palette[values[..., 0]])
    assert (photograph.alpha is not None) == transparent
    if transparent:
        assert np.array_equal(photograph.alpha, np.array([0, 128, *[255] * 254])[values[..., 0]])


@pytest.mark.parametrize(("depth", "colour"), [(8, 2), (16, 2), (8, 0), (16, 0)])
def test_colour_that_is_named_transparent_is_alpha_and_keeps_its_colour(tmp_path, depth, colour):
    values = np.random.default_rng(0).integers(0, 1 << depth, (9, 11, 3 if colour else 1))
    key = values[2, 3]
    (tmp_path / "a.png").write_bytes(
        png_of(values, depth, colour, (b"tRNS", b"".join(struct.pack(">H", v) for v in key)))
    )
    photograph = read_photograph(tmp_path / "a.png")
    assert np.array_equal(photograph.pixels, values + np.zeros(3))
    assert np.array_equal(photograph.alpha == 0, (values == key).all(axis=2))


BESIDE = [
    (b"gAMA", struct.pack(">I", 100_000)),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    (b"cICP", bytes((9, 16, 0, 1))),
    (b"iCCP", b"odd\0\0" + zlib.compress(b"no profile that anyone knows" * 90_000)),
    (b"zTXt", b"large\0\0" + zlib.compress(bytes(3_000_000))),
    (b"tEXt", b"Comment\0" + b"x" * 2_000_000),
    (b"vpAg", bytes(9)),
]


@pytest.mark.parametrize("depth", [8, 16])
def test_png_with_large_texts_and_profiles_is_read_and_keeps_how_to_show_it(tmp_path, caplog, depth):
    values = np.random.default_rng(0).integers(0, 1 << depth, (9, 11, 3))
    (tmp_path / "a.png").write_bytes(png_of(values, depth, 2, *BESIDE, (b"bKGD", bytes(6)), (b"tIME", bytes(7))))
    photograph = read_photograph(tmp_path / "a.png")
    assert np.array_equal(photograph.pixels, values)
    photograph.save(tmp_path / "b.png")
    written = (tmp_path / "b.png").read_bytes()
    for chunk in BESIDE:
        assert png(chunk)[8:] in written
    assert written.index(b"cICP") < written.index(b"IDAT")
    assert b"bKGD" not in written
    assert f"{tmp_path}: left out, since the format cannot store it: PNG chunk bKGD" in caplog.text
    assert np.array_equal(read_pixels(tmp_path / "b.png"), values)


def test_animations_are_refused(tmp_path):
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 100, 200)]
    for suffix in ("png", "webp"):
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
        with pytest.raises(UserError, match="is an animation of 3 images; expected one image"):
            read_photograph(tmp_path / f"a.{suffix}")


def test_interlaced_png(tmp_path):
    pixels = channels(3, "uint8")
    Image.fromarray(pixels).save(tmp_path / "b.png")
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    assert np.array_equal(read_pixels(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_what_opencv_and_pillow_read(tmp_path, progressive):
    path = tmp_path / "a.jpg"
    Image.fromarray(channels(3, "uint8")).save(path, quality=80, progressive=progressive)
    assert np.array_equal(read_pixels(path), cv2.imread(str(path))[..., ::-1])
    assert np.array_equal(read_pixels(path), np.asarray(Image.open(path)))


def test_jpeg_that_is_not_supported_is_refused_by_name(tmp_path):
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="found CMYK; convert it to RGB first"):
        read_pixels(tmp_path / "a.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg")
    encoded = bytearray((tmp_path / "b.jpg").read_bytes())
    frame = encoded.index(b"\xff\xc0")
    encoded[frame + 4] = 12
    (tmp_path / "b.jpg").write_bytes(encoded)
    with pytest.raises(UserError, match="is JPEG of 12 bits, which is not read"):
        read_pixels(tmp_path / "b.jpg")
    encoded[frame + 1], encoded[frame + 4] = 0xC3, 8
    (tmp_path / "b.jpg").write_bytes(encoded)
    with pytest.raises(UserError, match="is lossless JPEG, which is not read"):
        read_pixels(tmp_path / "b.jpg")


def test_phone_jpeg_with_further_pictures_gives_the_first_and_says_what_is_left(tmp_path, caplog):
    images = [Image.fromarray(channels(3, "uint8")), Image.new("RGB", (8, 8))]
    images[0].save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=images[1:], quality=95)
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    photograph = read_photograph(tmp_path / "a.jpg")
    assert photograph.pixels.shape == (37, 53, 3)
    photograph.save(tmp_path / "b.jpg")
    assert "the JPEG's further pictures" in caplog.text
    assert Image.open(tmp_path / "b.jpg").format == "JPEG"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_bmp_and_webp_are_read(tmp_path, mode):
    image = Image.fromarray(channels(3, "uint8")).convert(mode)
    image.save(tmp_path / "a.bmp")
    assert np.array_equal(read_pixels(tmp_path / "a.bmp"), np.asarray(image.convert("RGB")))
    image.convert("RGB").save(tmp_path / "a.webp", lossless=True)
    assert np.array_equal(read_pixels(tmp_path / "a.webp"), np.asarray(image.convert("RGB")))
    for name in ("a.bmp", "a.webp"):
        photograph = read_photograph(tmp_path / name)
        photograph.save(tmp_path / f"again {name}")
        assert np.array_equal(read_pixels(tmp_path / f"again {name}"), photograph.pixels)


def test_alpha_of_bmp_and_webp_leaves_the_colours(tmp_path):
    pixels = channels(4, "uint8")
    pixels[0, 0, 3] = 0
    cv2.imwrite(str(tmp_path / "a.bmp"), pixels[..., [2, 1, 0, 3]])
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, exact=True)
    for name in ("a.bmp", "a.webp"):
        assert np.array_equal(read_pixels(tmp_path / name), pixels[..., :3])


def heic(path: Path, pixels: np.ndarray, **options: object) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    mode = "RGB;16" if pixels.dtype == np.uint16 else "RGB"
    image = pillow_heif.from_bytes(mode=mode, size=(pixels.shape[1], pixels.shape[0]), data=pixels.tobytes())
    image.save(path, quality=-1, chroma=444, matrix_coefficients=0, **options)  # lossless


def test_heic_is_read_upright_at_its_depth(tmp_path):
    pixels = channels(3, "uint8")
    exif = Image.Exif()
    exif[0x0112] = 6
    heic(tmp_path / "a.heic", pixels, exif=exif.tobytes())
    photograph = read_photograph(tmp_path / "a.heic")
    assert photograph.orientation == 1
    assert np.abs(photograph.pixels.astype(int) - np.rot90(pixels, -1)).max() <= 1
    photograph.save(tmp_path / "b.heic")
    assert read_pixels(tmp_path / "b.heic").shape == photograph.pixels.shape
    ten = (np.linspace(0, 1023, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint16)) << 6
    heic(tmp_path / "c.heic", ten)
    found = read_photograph(tmp_path / "c.heic")
    assert np.array_equal(found.pixels, np.rint((ten >> 6) * (65535 / 1023)))
    assert found.pixels.max() == 65535
    assert read_header(tmp_path / "c.heic").bit_depth == 10


def test_heic_without_the_extra_names_it(tmp_path, monkeypatch):
    heic(tmp_path / "a.heic", channels(3, "uint8"))
    monkeypatch.setattr(kinds, "HAS_HEIF", False)
    with pytest.raises(UserError, match=r"a.heic: is HEIC; reading HEIC needs an extra: pip install 'kpac\[heic\]'"):
        read_photograph(tmp_path / "a.heic")


def test_kinds_that_are_not_read_are_named(tmp_path):
    for kind in ("gif", "jp2", "avif"):
        stream = io.BytesIO()
        Image.new("RGB", (16, 16)).save(stream, {"jp2": "JPEG2000"}.get(kind, kind))
        (tmp_path / "a.png").write_bytes(stream.getvalue())
        with pytest.raises(UserError, match=f"is {'JPEG 2000' if kind == 'jp2' else kind.upper()}, which is not read"):
            read_photograph(tmp_path / "a.png")


def every_format(folder: Path) -> list[Path]:
    """One file of each format, layout and kind of pixels, and a rotated one."""
    rgb8, rgb16, gray16 = channels(3, "uint8"), channels(3, "uint16"), channels(1, "uint16")
    for name, pixels in (("a8.png", rgb8), ("a16.png", rgb16), ("a.jpg", rgb8), ("a.bmp", rgb8), ("a.webp", rgb8)):
        write_pixels(folder / name, pixels)
    write_tiff(folder / "planes.tif", rgb16, planarconfig="separate", compression="lzw", byteorder=">")
    write_tiff(folder / "tiles.tif", channels(4, "uint8"), tile=(16, 16), extrasamples=["assocalpha"])
    write_tiff(folder / "float.tif", channels(3, "float32"))
    write_tiff(folder / "white.tif", gray16[..., 0], "miniswhite")
    (folder / "packed.tif").write_bytes(tiff_by_hand(gray16 >> 4, 12))
    Image.fromarray(rgb8).quantize(32).save(folder / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb8).save(folder / "turned.jpg", exif=exif)
    if kinds.HAS_HEIF:
        heic(folder / "a.heic", rgb8)
    return sorted(folder.iterdir())


def test_the_same_file_gives_the_same_array_everywhere(tmp_path):
    """Restoring, training's store, and evaluation's reading."""
    (tmp_path / "files").mkdir()
    cache = DecodedCache(tmp_path / "cache")
    for path in every_format(tmp_path / "files"):
        photograph = read_photograph(path)
        assert np.array_equal(read_pixels(path), photograph.pixels)
        assert np.array_equal(cache.open(path), photograph.pixels)
        assert cache.open(path).dtype == photograph.pixels.dtype
        assert cache.size([path]) == cache.stored(path).stat().st_size
        for depth in (8, 16):
            expected = photograph.pixels
            if depth == 16 and expected.dtype == np.uint8:
                expected = expected.astype(int) * 257
            elif depth == 8 and expected.dtype == np.uint16:
                rounded = np.rint(expected / 257)
                expected = expected >> 8 if path.suffix == ".png" else rounded
            assert np.array_equal(read_pixels(path, depth), expected)


def test_critical_chunk_that_nobody_knows_is_refused_by_name(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of(np.zeros((4, 5, 3), int), 8, 2, (b"CgBI", bytes(4))))
    with pytest.raises(UserError, match=r"a\.png: PNG with the critical chunk CgBI"):
        read_photograph(tmp_path / "a.png")


def test_pipe_is_left_out_and_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    assert list_images(tmp_path) == [tmp_path / "gone.png"]
    with pytest.raises(UserError, match=r"pipe\.png: is a pipe or a device; expected a file"):
        read_photograph(tmp_path / "pipe.png")


def test_what_another_format_cannot_carry_is_said(tmp_path, caplog):
    beside = [*((name, content) for name, content in BESIDE if name in (b"gAMA", b"cHRM", b"cICP")), (b"sRGB", b"\0")]
    (tmp_path / "a.png").write_bytes(png_of(np.zeros((4, 5, 3), int), 8, 2, *beside))
    read_photograph(tmp_path / "a.png").save(tmp_path / "from png" / "a.tif")
    names = "; ".join(f"PNG chunk {name}" for name in ("cHRM", "cICP", "gAMA"))
    assert f"from png: left out, since the format cannot store it: {names}\n" in caplog.text
    private = [(65000, 3, 1, 7, True), (33432, 2, 0, "© Ünï".encode(), True)]
    write_tiff(tmp_path / "a.tif", channels(3, "uint8"), extratags=private)
    read_photograph(tmp_path / "a.tif").save(tmp_path / "from tiff" / "a.png")
    assert "from tiff: left out, since the format cannot store it: TIFF tag 65000\n" in caplog.text
    Image.fromarray(channels(3, "uint8")).save(tmp_path / "a.jpg", comment="said", dpi=(72, 72))
    read_photograph(tmp_path / "a.jpg").save(tmp_path / "from jpeg" / "a.png")
    assert "from jpeg: left out, since the format cannot store it: the JPEG's comment\n" in caplog.text
