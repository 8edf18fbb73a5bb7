"""Detects the format of an image file from its first bytes, not from its name.

A name can only cause a refusal: a file with the suffix of a camera's raw format is never read as a photograph.
"""

from importlib.util import find_spec
from pathlib import Path

from kpac.errors import UserError

READ = {
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
}
HEIF_SUFFIXES = (".heic", ".heif")
HAS_HEIF = find_spec("pillow_heif") is not None
if HAS_HEIF:
    READ["HEIF"] = HEIF_SUFFIXES
SUFFIXES = tuple(suffix for suffixes in READ.values() for suffix in suffixes)
NAMES = ", ".join(READ)

_RAW = (
    ".3fr .ari .arw .bay .braw .cap .cr2 .cr3 .crw .dcr .dcs .dng .drf .eip .erf .fff .gpr .iiq .k25 .kdc .mdc .mef "
    ".mos .mrw .nef .nrw .orf .pef .ptx .pxn .r3d .raf .raw .rw2 .rwl .rwz .sr2 .srf .srw .x3f"
)
RAW_SUFFIXES = frozenset(_RAW.split())
WHAT_TO_DO_WITH_RAW = "develop it first (darktable, RawTherapee, dcraw) and save it as 16-bit TIFF"
HEIF_EXTRA = "reading HEIC needs an extra: pip install 'kpac[heic]'"

NOT_READ = frozenset((".gif", ".avif", ".jp2", ".j2k", ".jxl", ".psd", ".exr", ".hdr", ".ppm", ".pgm", ".pdf", ".svg"))

HEAD = 64  # bytes that identify the format
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}
_MAGIC = (  # first bytes of formats that are refused
    (b"GIF8", "GIF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"%PDF", "PDF"),
    (b"qoif", "QOI"),
    (b"II\xbc\x01", "JPEG XR"),
    *((b"P" + digit, "PNM") for digit in (b"1", b"2", b"3", b"4", b"5", b"6", b"7")),
)
_RAW_MAGIC = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")


def format_of(path: Path) -> str:
    """Detects the format of a file: a key of `READ`, or "HEIF".

    Raises:
        UserError: there is no such file, or it has another format; the message names the format.
    """
    try:
        if not (path.is_file() or path.is_dir()) and path.exists():  # opening a pipe would wait for its other end
            raise UserError(f"{path}: is a pipe or a device; expected a file")
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix.lower() in RAW_SUFFIXES or _is_raw(head):
        raise raw_error(path)
    found = _format(head)
    if found == "HEIF" and not HAS_HEIF:
        raise UserError(f"{path}: is HEIC; {HEIF_EXTRA}")
    if found in READ:
        return found
    if found:
        raise UserError(f"{path}: is {found}, which is not read; expected {NAMES}. Convert it first")
    raise UserError(
        f"{path}: not a whole image file: no image that can be read ({path.stat().st_size:,} bytes); expected {NAMES}"
    )


def format_for(suffix: str) -> str | None:
    """The format to write for a suffix; None if the format is unknown or cannot be written."""
    return next((name for name, suffixes in READ.items() if suffix.lower() in suffixes), None)


def can_write(path: Path) -> bool:
    """Whether the suffix stands for a format that can be written."""
    return format_for(path.suffix) is not None


def is_of_a_photograph(suffix: str) -> bool:
    """Whether a suffix stands for photographs, read or not."""
    return suffix.lower() in {*SUFFIXES, *HEIF_SUFFIXES, *RAW_SUFFIXES, *NOT_READ}


def raw_error(path: Path) -> UserError:
    """The error for a raw file."""
    return UserError(f"{path}: is a camera's RAW file, whose preview is not the photograph; {WHAT_TO_DO_WITH_RAW}")


def _format(head: bytes) -> str | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM":
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in (8, *range(16, min(len(head), int.from_bytes(head[:4], "big")), 4))}
        if head[8:12] in (b"avif", b"avis") or (b"avif" in brands and not brands & (_HEIF_BRANDS - {b"mif1", b"msf1"})):
            return "AVIF"
        return "HEIF" if brands & _HEIF_BRANDS else "a video or an unknown HEIF file"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def _is_raw(head: bytes) -> bool:
    is_cr2 = head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR"
    return is_cr2 or head[4:12] == b"ftypcrx " or head.startswith(_RAW_MAGIC)
