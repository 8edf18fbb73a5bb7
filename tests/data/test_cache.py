"""The cache gives what the files hold now, survives kills, and lets several processes share the work."""

import errno
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kpac.data import cache as cache_module
from kpac.data.cache import DecodedCache, default_folder
from kpac.errors import UserError
from kpac.images import read_pixels, write_pixels
from kpac.text import bytes_text

BUILD = """
import sys, time
from pathlib import Path
from kpac.data import cache
folder, images, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
read = cache.read_pixels
def slow_and_counted(path):
    with log.open("a") as file:
        file.write(path.name + "\\n")
    time.sleep(pause)
    return read(path)
cache.read_pixels = slow_and_counted
cache.DecodedCache(folder).prepare(sorted(images.glob("*.png")))
"""


@pytest.fixture
def images(tmp_path) -> list[Path]:
    """Twelve 16-bit photographs, in a folder whose name has a space and an accent."""
    folder = tmp_path / "défocus images"
    generator = np.random.default_rng(0)
    for index in range(12):
        write_pixels(folder / f"{index:02}.png", generator.integers(0, 65536, (20, 30, 3), dtype=np.uint16))
    return sorted(folder.iterdir())


@pytest.fixture
def cache(tmp_path) -> DecodedCache:
    return DecodedCache(tmp_path / "cache")


def build(cache: DecodedCache, images: list[Path], log: Path, pause: float = 0.05) -> subprocess.Popen:
    """Another process that fills the cache, slowly, and writes down what it decodes."""
    command = [sys.executable, "-c", BUILD, cache.folder, images[0].parent, log, str(pause)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)


def stored(cache: DecodedCache) -> list[Path]:
    return sorted(cache.folder.glob("[!.]*.npy"))


def wait_until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened for a minute"
        time.sleep(0.01)


def decoded_by(monkeypatch) -> list[Path]:
    """The images that this process decodes from now on."""
    decoded = []
    monkeypatch.setattr(cache_module, "read_pixels", lambda path: decoded.append(path) or read_pixels(path))
    return decoded


def test_prepared_images_are_the_files_at_their_own_bit_depth(cache, images):
    write_pixels(images[1], np.full((5, 6, 3), 7, np.uint8))
    assert cache.prepare([*images, images[0]]) == []
    assert len(stored(cache)) == len(images)
    for path in images:
        np.testing.assert_array_equal(cache.open(path), read_pixels(path), strict=True)
    assert not cache.open(images[0]).flags.writeable


def test_more_images_stay_open_than_a_process_may_open_files(cache, images):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = [images[0].with_name(f"copy {number}.png") for number in range(200)]
    for path in many:
        shutil.copy(images[0], path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        opened = [cache.open(path) for path in many]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(opened) == 200


def test_killed_build_leaves_whole_images_and_resumes(cache, images, tmp_path, monkeypatch):
    process = build(cache, images, tmp_path / "log")
    wait_until(lambda: len(stored(cache)) >= 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = len(stored(cache))
    assert there < len(images)
    (cache.folder / ".00.1.partial.npy").write_bytes(b"cut short")
    assert all(np.load(file).shape == (20, 30, 3) for file in stored(cache))
    decoded = decoded_by(monkeypatch)
    cache.prepare(images)
    assert len(decoded) == len(images) - there
    assert {path.name for path in cache.folder.iterdir()} == {path.name for path in stored(cache)} | {".lock"}


def test_two_builds_at_once_decode_each_image_once(cache, images, tmp_path):
    processes = [build(cache, images, tmp_path / "log") for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert sorted((tmp_path / "log").read_text().split()) == [path.name for path in images]
    assert len(stored(cache)) == len(images)


def test_waiting_build_says_so_and_takes_over_from_a_killed_one(cache, images, tmp_path):
    first = build(cache, images, tmp_path / "first", pause=60)
    wait_until((tmp_path / "first").exists)
    second = build(cache, images, tmp_path / "second", pause=0)
    assert f"another process is filling {cache.folder}; waiting" in second.stderr.readline()
    assert not (tmp_path / "second").exists()
    first.kill()
    first.communicate()
    second.communicate(timeout=120)
    assert second.returncode == 0
    assert len(stored(cache)) == len(images)


def test_changed_source_is_decoded_again_and_its_old_image_removed(cache, images):
    cache.prepare(images)
    before = {path.name for path in stored(cache)}
    assert cache.open(images[0]).max() > 1
    for path in images[:2]:
        write_pixels(path, np.full((20, 30, 3), 1, np.uint16))
    assert cache.missing(images) == images[:2]
    assert cache.open(images[0]).max() == 1
    cache.prepare(images)
    assert cache.open(images[1]).max() == 1
    assert len(before & {path.name for path in stored(cache)}) == len(images) - 2
    assert len(stored(cache)) == len(images)


def test_images_of_one_name_in_two_folders_are_kept_apart(cache, tmp_path):
    paths = [tmp_path / folder / f"{'n' * 200}.png" for folder in ("source", "target")]
    for value, path in enumerate(paths):
        write_pixels(path, np.full((4, 4, 3), value, np.uint8))
    cache.prepare(paths)
    assert [cache.open(path).max() for path in paths] == [0, 1]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 alone")
def test_name_that_is_not_utf_8_is_a_name_like_any_other(cache, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    write_pixels(path, np.full((4, 4, 3), 7, np.uint8))
    cache.prepare([path])
    assert cache.open(path).max() == 7
    assert [name.name[:5] for name in stored(cache)] == ["caf_-"]


def test_verification_finds_what_date_and_size_hide(cache, images):
    """A source replaced under its old date and size, and a stored image that rotted."""

    def write_flat(value: int) -> None:
        write_pixels(images[0], np.full((20, 30, 3), value, np.uint8))
        os.truncate(images[0], 200)  # decoders ignore what follows the image
        os.utime(images[0], ns=(0, 0))

    write_flat(1)
    cache.prepare(images)
    assert cache.verify(images) == []
    write_flat(2)
    assert cache.missing(images) == []
    (rotten,) = cache.folder.glob("05-*.npy")
    with rotten.open("r+b") as file:
        file.seek(200)
        file.write(b"rot!")
    assert cache.verify(images) == [images[0], images[5]]
    cache.forget(cache.verify(images))
    cache.prepare(images)
    assert cache.verify(images) == []
    assert cache.open(images[0]).max() == 2


@pytest.mark.parametrize("length", [0, 100, 500])
def test_stored_image_that_was_cut_short_is_decoded_again(cache, images, length):
    cache.prepare(images)
    os.truncate(stored(cache)[3], length)
    np.testing.assert_array_equal(cache.open(images[3]), read_pixels(images[3]))


FORMS = [
    *itertools.product([".png", ".tif"], [(9, 13), (9, 13, 3), (9, 13, 4)], [np.uint8, np.uint16]),
    *itertools.product([".jpg"], [(9, 13), (9, 13, 3)], [np.uint8]),
]


@pytest.mark.parametrize(("suffix", "shape", "dtype"), FORMS)
def test_size_from_the_headers_is_the_size_on_disk(cache, tmp_path, suffix, shape, dtype):
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), np.full(shape, 3, dtype))
    need = cache.size([path, path])
    cache.prepare([path])
    assert need == stored(cache)[0].stat().st_size


@pytest.mark.parametrize("mode", ["1", "P", "L"])
def test_size_of_palettes_and_bits_is_the_size_on_disk(cache, tmp_path, mode):
    Image.new("RGB", (13, 9), (255, 9, 0)).convert(mode).save(tmp_path / "a.png")
    cache.prepare([tmp_path / "a.png"])
    assert cache.size([tmp_path / "a.png"]) == stored(cache)[0].stat().st_size


def test_disk_too_small_is_refused_before_decoding(cache, images, monkeypatch):
    usage = shutil.disk_usage(images[0].parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=cache.size(images) - 1))
    with pytest.raises(UserError, match=r"12 decoded images need .* the disk has .* set data\.cache") as refusal:
        cache.prepare(images)
    assert "\n" not in str(refusal.value)
    assert stored(cache) == []


def test_size_is_said_before_decoding_and_only_when_there_is_something_to_decode(cache, images, capsys):
    cache.prepare(images)
    cache.prepare(images)
    said = capsys.readouterr().err
    assert said.count("kpac: ") == 1
    assert said.startswith(f"kpac: decoding 12 images into {cache.folder}: 44.7 kB\n")


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 bytes"), (1000, "1.0 kB"), (11_300_000, "11.3 MB"), (7.9e12, "7900.0 GB")]
)
def test_sizes_have_the_unit_that_suits_them(count, text):
    assert bytes_text(count) == text


def test_small_disk_does_not_matter_when_everything_is_there(cache, images, monkeypatch):
    cache.prepare(images)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: pytest.fail("nothing is to be written"))
    cache.prepare(images)


def test_unreadable_image_is_named_after_all_others_are_decoded(cache, images):
    images[2].write_bytes(b"")
    images[7].write_bytes(images[7].read_bytes()[:20])
    message = rf"{re.escape(str(images[2]))}: not a whole image.* \(1 more .*; kpac data check DIR lists them"
    with pytest.raises(UserError, match=message):
        cache.prepare(images)
    assert len(stored(cache)) == len(images) - 2
    assert cache.prepare(images, keep_going=True) == [images[2], images[7]]


def test_missing_source_is_named(cache, images):
    with pytest.raises(UserError, match=r"gone\.png: cannot be read \(No such file"):
        cache.prepare([*images, images[0].with_name("gone.png")])


def test_folder_that_cannot_be_made_is_named_with_the_way_out(images, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/cache: .*Not a directory.* set data\.cache"):
        DecodedCache(tmp_path / "file" / "cache").prepare(images)


def test_cache_lies_in_the_data_set_unless_that_is_read_only(tmp_path, monkeypatch):
    root = tmp_path / "data"
    root.mkdir()
    assert default_folder(root) == root / ".kpac-cache"
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(root))  # tests may run as root
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    elsewhere = default_folder(root)
    assert elsewhere.parent == tmp_path / "user" / "kpac"
    assert default_folder(tmp_path / "other data") != elsewhere
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder(root) == tmp_path / "home" / ".cache" / "kpac" / elsewhere.name


def test_file_system_without_locks_still_gets_its_cache(cache, images, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    cache.prepare(images)
    assert cache.missing(images) == []
