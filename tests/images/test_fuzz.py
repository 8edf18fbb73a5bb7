"""Damaged files of every format: a whole result, or one line and status 1; never an exception."""

import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import kpac
from kpac.cli import main
from kpac.images import read_photograph
from kpac.restore.record import FILE as RECORD
from tests.images.test_formats import channels, every_format
from tests.models import golden

COUNT, BATCH = 12_000, 500


class Unchanged:
    """In place of a Restorer: what is tried here is everything around it."""

    approximate, dtype = False, torch.float32

    def __init__(self, *_: object, **__: object):
        pass

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return image

    def check_views(self, _: object) -> None:
        pass


def sources(folder: Path) -> list[Path]:
    """Small whole files of every kind, with metadata."""
    folder.mkdir()
    files = every_format(folder)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 3
    exif.get_ifd(0x8769).update({33434: 0.01})
    image = Image.fromarray(channels(3, "uint8"))
    for suffix in ("png", "jpg", "webp", "tif"):
        image.save(folder / f"with tags.{suffix}", exif=exif.tobytes(), dpi=(300, 300))
    for compression in ("lzw", "packbits", "jpeg", "zstd"):
        pixels = channels(3, "uint8")
        tifffile.imwrite(
            folder / f"{compression}.tif", pixels, photometric="rgb", compression=compression, rowsperstrip=8
        )
    return sorted({*files, *folder.iterdir()})


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """Changed, removed, repeated or inserted bytes, mostly near the start, where formats say what they are."""
    changed = bytearray(content)
    for _ in range(int(generator.integers(1, 4))):
        near = generator.random() < 0.6
        at = int(generator.integers(0, min(len(changed), 400) if near else len(changed)))
        match generator.integers(0, 7):
            case 0:
                changed[at] = int(generator.integers(0, 256))
            case 1:
                changed[at] ^= 1 << int(generator.integers(0, 8))
            case 2:
                del changed[at : at + int(generator.integers(1, 9))]
            case 3:
                del changed[max(at, 1) :]
            case 4:
                changed[at:at] = generator.bytes(int(generator.integers(1, 9)))
            case 5:
                length = int(generator.integers(1, 5))
                changed[at : at + length] = generator.choice([b"\xff", b"\0", b"\x80", b"\x7f"]) * length
            case 6:
                end = at + int(generator.integers(1, 65))
                changed[at:at] = changed[at:end]
        if not changed:
            return b"\0"
    return _with_checksums(bytes(changed)) if generator.random() < 0.7 else bytes(changed)


def _with_checksums(content: bytes) -> bytes:
    """A PNG with checksums that fit, so that damage gets past them; other files as they are."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    stream, result = io.BytesIO(content[8:]), content[:8]
    while len(head := stream.read(8)) == 8:
        body = stream.read(int.from_bytes(head[:4], "big"))
        stream.read(4)
        result += len(body).to_bytes(4, "big") + head[4:] + body + zlib.crc32(head[4:] + body).to_bytes(4, "big")
    return result


def batches(files: list[Path], count: int) -> Iterator[list[tuple[str, bytes]]]:
    """Names and contents, in batches; the same ones at each call."""
    contents = {path: path.read_bytes() for path in files}
    for first in range(0, count, BATCH):
        batch = []
        for index in range(first, min(first + BATCH, count)):
            path = files[index % len(files)]
            content = mutated(contents[path], np.random.default_rng([18, index]))
            batch.append((f"{index:05d}{path.suffix}", content))
        yield batch


def survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, count: int) -> int:
    """Restores mutated files as the command does; gives how many were refused."""
    monkeypatch.setattr("kpac.restore.restorer.Restorer", Unchanged)
    weights = tmp_path / "m.safetensors"
    kpac.save_model(golden.randomize(kpac.create_model("kpac_2level", width=4, blocks=1)), weights)
    refused = 0
    for number, batch in enumerate(batches(sources(tmp_path / "whole"), count)):
        folder, output = tmp_path / f"in {number}", tmp_path / f"out {number}"
        folder.mkdir()
        for name, content in batch:
            (folder / name).write_bytes(content)
        status = main(["restore", str(folder), "-m", str(weights), "-o", str(output)])
        lines = capsys.readouterr().err.splitlines()
        failed = {
            match[1] for line in lines if (match := re.match(rf"kpac: {re.escape(str(folder))}/(\d+\.\w+): ", line))
        }
        written = {path.name for path in output.iterdir() if path.name != RECORD}
        assert written | failed == {name for name, _ in batch}
        assert not written & failed
        assert status == (1 if failed else 0)
        assert len([line for line in lines if line.startswith("kpac:") and "left out" not in line]) == len(failed)
        assert f"restored {len(written)} of {len(batch)}" in lines[-1]
        assert not [line for line in lines if "Error:" in line], "an exception reached the last resort"
        for name in sorted(written)[::25]:
            assert read_photograph(output / name).pixels.shape == read_photograph(folder / name).pixels.shape
        refused += len(failed)
        for path in (*folder.iterdir(), *output.iterdir()):
            path.unlink()
    return refused


def test_a_hundred_damaged_files(tmp_path, monkeypatch, capsys):
    assert 20 < survive(tmp_path, monkeypatch, capsys, 100) < 100


@pytest.mark.slow
def test_twelve_thousand_damaged_files(tmp_path, monkeypatch, capsys):
    assert COUNT / 4 < survive(tmp_path, monkeypatch, capsys, COUNT) < COUNT
