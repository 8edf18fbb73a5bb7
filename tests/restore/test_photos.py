"""`kpac restore`: photographs on disk, many at a time."""

from pathlib import Path

import numpy as np
import pytest

import kpac
from kpac.cli import main
from kpac.images import from_float, read_photograph, read_pixels, to_float, write_pixels
from kpac.restore import record
from tests.conftest import texture, write_photos
from tests.models import golden
from tests.test_cli import fails
from tests.test_docs import code_of_readme


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    kpac.save_model(golden.randomize(kpac.create_model("kpac_2level", width=4, blocks=1)), path)
    return path


def restore(*arguments: object) -> int:
    return main(["restore", *map(str, arguments), "--device", "cpu"])


def names(folder: Path) -> list[str]:
    """The names of a folder's files, without the hidden record of what they were made from."""
    return sorted(path.name for path in folder.iterdir() if path.name != record.FILE)


def test_folder_is_restored_as_the_array_is(tmp_path, weights):
    photos, output = write_photos(tmp_path / "photos", 3, 40, 50), tmp_path / "out"
    assert restore(photos, "-m", weights, "-o", output) == 0
    assert names(output) == names(photos)
    restorer = kpac.Restorer(kpac.load_model(weights), device="cpu")
    for path in photos.iterdir():
        expected = from_float(restorer(to_float(read_pixels(path))), 8)
        assert np.array_equal(read_pixels(output / path.name), expected)


@pytest.mark.parametrize("options", [["--tile", "32"], ["--tile", "whole"], ["--precision", "bfloat16"]])
def test_options_change_the_result_by_rounding_alone(tmp_path, weights, options):
    photos = write_photos(tmp_path / "photos", 1, 70, 90)
    assert restore(photos, "-m", weights, "-o", tmp_path / "a") == 0
    assert restore(photos, "-m", weights, "-o", tmp_path / "b", *options) == 0
    first, second = (read_pixels(next((tmp_path / name).glob("*.png"))).astype(int) for name in "ab")
    assert np.abs(first - second).max() <= (1 if "--tile" in options else 12)


def test_broken_file_is_named_and_the_rest_goes_on(capsys, tmp_path, weights):
    photos = write_photos(tmp_path / "photos", 2, 24, 24)
    (photos / "a broken one.png").write_bytes(b"")
    (photos / "notes.txt").write_text("not an image, and not looked at")
    assert restore(photos, "-m", weights, "-o", tmp_path / "out") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kpac:")]
    assert len(lines) == 1
    assert str(photos / "a broken one.png") in lines[0]
    assert names(tmp_path / "out") == ["photo 0.png", "photo 1.png"]


def test_file_that_is_named_twice_is_restored_once(tmp_path, weights):
    photos = write_photos(tmp_path / "photos", 2, 24, 24)
    assert restore(photos / "photo 0.png", photos, photos / "*.png", "-m", weights, "-o", tmp_path / "out") == 0
    assert names(tmp_path / "out") == ["photo 0.png", "photo 1.png"]


def test_whatever_one_photograph_raises_the_rest_is_done(capsys, monkeypatch, tmp_path, weights):
    photos = write_photos(tmp_path / "photos", 3, 24, 24)

    def read(path: Path):
        if path.name == "photo 1.png":
            raise ZeroDivisionError("of a kind that\nnobody thought of")
        return read_photograph(path)

    monkeypatch.setattr("kpac.restore.photos.read_photograph", read)
    assert restore(photos, "-m", weights, "-o", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert f"kpac: {photos / 'photo 1.png'}: ZeroDivisionError: of a kind that nobody thought of\n" in error
    assert f"restored 2 of 3, 1 failed: {tmp_path / 'out'}" in error
    assert names(tmp_path / "out") == ["photo 0.png", "photo 2.png"]


def test_interrupted_folder_continues_with_the_same_command(capsys, monkeypatch, tmp_path, weights):
    photos, output = write_photos(tmp_path / "photos", 3, 24, 24), tmp_path / "out"

    def interrupted(path: Path):
        if path.name == "photo 2.png":
            raise KeyboardInterrupt
        return read_photograph(path)

    monkeypatch.setattr("kpac.restore.photos.read_photograph", interrupted)
    assert restore(photos, "-m", weights, "-o", output) == 130
    assert "interrupted; repeat the command to restore the rest" in capsys.readouterr().err
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.png")}
    assert sorted(before) == ["photo 0.png", "photo 1.png"]
    monkeypatch.undo()
    assert restore(photos, "-m", weights, "-o", output) == 0
    assert "restored 1 of 3, skipped 2 restored before (--overwrite replaces them)" in capsys.readouterr().err
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("*.png")}
    assert sorted(after) == ["photo 0.png", "photo 1.png", "photo 2.png"]
    assert {name: after[name] for name in before} == before


def test_only_a_result_of_this_photograph_and_these_weights_and_settings_is_skipped(capsys, tmp_path, weights):
    photos, output = write_photos(tmp_path / "photos", 2, 24, 24), tmp_path / "out"
    first, command = output / "photo 0.png", ("restore", photos, "-o", output, "-m")
    assert restore(*command[1:], weights) == 0
    assert restore(*command[1:], weights, "--tile", "16") == 0  # exact tiles are no other result
    assert "restored 0 of 2, skipped 2 restored before" in capsys.readouterr().err

    kept = first.read_bytes()
    other = tmp_path / "other.safetensors"
    kpac.save_model(golden.randomize(kpac.create_model("kpac_2level", width=4, blocks=2)), other)
    line = fails(capsys, *command, other)
    assert f"{first}: exists already (made with other weights; and 1 more); --overwrite replaces it, or" in line
    line = fails(capsys, *command, weights, "--precision", "bfloat16")
    assert "made with precision float32, now bfloat16" in line
    assert "made with approximate tiles None, now 16" in fails(
        capsys, *command, weights, "--tile", "16", "--approximate"
    )
    assert first.read_bytes() == kept

    write_pixels(photos / "photo 0.png", from_float(texture(24, 24, 7), 8))  # of the same size
    assert "photo 0.png: exists already" in fails(capsys, *command, weights)
    first.unlink()  # the result that was asked for anew
    assert restore(*command[1:], weights) == 0
    assert "restored 1 of 2, skipped 1" in capsys.readouterr().err

    write_pixels(first, from_float(texture(24, 24, 8), 8))
    assert "(changed since it was restored)" in fails(capsys, *command, weights)
    write_pixels(output / "photo 2.png", from_float(texture(24, 24, 9), 8))
    write_photos(photos, 3, 24, 24)
    assert restore(*command[1:], other, "--overwrite") == 0
    assert restore(*command[1:], other) == 0
    (output / record.FILE).unlink()
    assert "(no record of how it was made; and 2 more)" in fails(capsys, *command, other)


def test_damaged_record_costs_one_photograph_and_no_record_stops_a_restoring(capsys, monkeypatch, tmp_path, weights):
    photos, output = write_photos(tmp_path / "photos", 2, 24, 24), tmp_path / "out"
    assert restore(photos, "-m", weights, "-o", output) == 0
    file = output / record.FILE
    file.write_bytes(file.read_bytes()[:-20])  # as a power failure leaves it
    (output / "photo 1.png").unlink()
    assert restore(photos, "-m", weights, "-o", output) == 0
    assert restore(photos, "-m", weights, "-o", output) == 0
    assert "skipped 2 restored before" in capsys.readouterr().err
    file.unlink()
    file.mkdir()
    assert restore(photos, "-m", weights, "-o", output, "--overwrite") == 0
    assert f"{file}: cannot be written (Is a directory)" in capsys.readouterr().err


def test_files_that_nobody_reads_are_counted(capsys, monkeypatch, tmp_path, weights):
    monkeypatch.setattr("kpac.images.folder.HAS_HEIF", False)
    monkeypatch.setattr("kpac.images.folder.SUFFIXES", (".png",))
    photos = write_photos(tmp_path / "photos", 1, 24, 24)
    for name in ("a.heic", "b.HEIC", "c.nef", "notes.txt", ".hidden.nef"):
        (photos / name).write_bytes(b"")
    (photos / "folder.nef").mkdir()
    assert restore(photos, "-m", weights, "-o", tmp_path / "out") == 0
    error = capsys.readouterr().err
    assert f"kpac: {photos}: left out: 2 .heic, 1 .nef (reading HEIC needs an extra: pip install 'kpac[heic]'" in error
    assert f"restored 1 of 1; left out: 2 .heic, 1 .nef: {tmp_path / 'out'}" in error
    (photos / "photo 0.png").unlink()
    line = fails(capsys, "restore", photos, "-m", weights, "-o", tmp_path / "out")
    assert "holds no image" in line
    assert "left out: 2 .heic, 1 .nef" in line


def test_one_photograph_becomes_the_file_that_is_named(capsys, tmp_path, weights):
    photos = write_photos(tmp_path / "photos", 2, 24, 30)
    one = photos / "photo 0.png"
    formats = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP"}
    for name in (f"restored.{suffix}" for suffix in formats):
        assert restore(one, "-m", weights, "-o", tmp_path / name) == 0
        assert (tmp_path / name).is_file()
        assert read_photograph(tmp_path / name).format == {"jpg": "JPEG", "tif": "TIFF"}.get(
            name[-3:], name[9:].upper()
        )
    assert np.array_equal(read_pixels(tmp_path / "restored.tif"), read_pixels(tmp_path / "restored.png"))
    line = fails(capsys, "restore", one, "-m", weights, "-o", tmp_path / "restored.png")
    assert "restored.png: exists already; --overwrite replaces it" in line
    assert restore(one, "-m", weights, "-o", tmp_path / "restored.png", "--overwrite") == 0
    line = fails(capsys, "restore", photos, "-m", weights, "-o", tmp_path / "all.png")
    assert "all.png: names a single file for 2 photographs; name a folder" in line
    line = fails(capsys, "restore", one, "-m", weights, "-o", tmp_path / "restored.gif")
    assert "restored.gif: cannot write this format; use one of .png" in line
    assert restore(one, "-m", weights, "-o", tmp_path / "version 2.1") == 0
    assert names(tmp_path / "version 2.1") == ["photo 0.png"]


def test_home_and_names_of_255_bytes(monkeypatch, tmp_path, weights):
    monkeypatch.setenv("HOME", str(tmp_path))
    photos = write_photos(tmp_path / "photos", 1, 24, 30)
    long = "ü" * 125 + "x.png"
    assert len(long.encode()) == 255
    (photos / "photo 0.png").rename(photos / long)
    assert restore("~/photos", "-m", f"~/{weights.name}", "-o", "~/out") == 0
    assert names(tmp_path / "out") == [long]
    assert restore("~/photos/*", "-m", f"~/{weights.name}", "-o", "~/out", "--overwrite") == 0


def test_photograph_that_fits_in_no_tiles_is_refused_in_bytes(capsys, monkeypatch, tmp_path, weights):
    photos = write_photos(tmp_path / "photos", 1, 24, 30)
    monkeypatch.setattr("kpac.restore.restorer.available_bytes", lambda _: 1000)
    assert restore(photos, "-m", weights, "-o", tmp_path / "out") == 1
    assert "of memory in tiles of 128, 1.0 kB is free; close other programs" in capsys.readouterr().err


def test_network_that_gives_nan_writes_no_black_photograph(capsys, tmp_path, weights):
    model = kpac.load_model(weights)
    next(model.parameters()).data.fill_(float("nan"))
    kpac.save_model(model, weights)
    photos = write_photos(tmp_path / "photos", 1, 24, 24)
    assert restore(photos, "-m", weights, "-o", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "photo 0.png: 1,728 of 1,728 values of the output are NaN or infinite" in error
    assert "restored 0 of 1" in error
    assert list((tmp_path / "out").iterdir()) == []
    line = fails(capsys, "inspect", weights, photos / "photo 0.png", "-o", tmp_path / "sheets", "--device", "cpu")
    assert "photo 0: 1,728 of 1,728 values" in line
    assert not (tmp_path / "sheets").exists()


def test_photograph_that_does_not_fit_in_memory_is_named(capsys, monkeypatch, tmp_path, weights):
    photos = write_photos(tmp_path / "photos", 2, 24, 24)

    def read(path: Path):
        if path.name == "photo 0.png":
            raise MemoryError
        return read_photograph(path)

    monkeypatch.setattr("kpac.restore.photos.read_photograph", read)
    assert restore(photos, "-m", weights, "-o", tmp_path / "out") == 1
    assert f"{photos / 'photo 0.png'}: out of memory; close other programs" in capsys.readouterr().err
    assert names(tmp_path / "out") == ["photo 1.png"]


def test_readme_restores_a_photograph(monkeypatch, tmp_path, weights):
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    weights.rename(tmp_path / "runs" / "quickstart" / "model.safetensors")
    write_pixels(tmp_path / "photo.jpg", from_float(texture(30, 44, 0), 8))
    monkeypatch.chdir(tmp_path)
    code = code_of_readme("import kpac")
    assert len([line for line in code.splitlines() if line and not line.startswith("import")]) == 4
    exec(code, {})
    assert read_pixels(tmp_path / "restored.jpg").shape == (30, 44, 3)


def test_patterns_are_followed(monkeypatch, tmp_path, weights):
    write_photos(tmp_path / "trip" / "day 1", 1, 16, 16)
    write_pixels(tmp_path / "trip" / "day 2" / "other.png", from_float(texture(16, 16, 9), 16))
    monkeypatch.chdir(tmp_path)
    assert restore("trip/**/*.png", "-m", weights, "-o", "out") == 0
    assert names(tmp_path / "out") == ["other.png", "photo 0.png"]
    assert read_pixels(tmp_path / "out" / "other.png").dtype == np.uint16


def test_nothing_is_overwritten_unless_asked(capsys, tmp_path, weights):
    photos, output = write_photos(tmp_path / "photos", 2, 16, 16), tmp_path / "out"
    output.mkdir()
    (output / "photo 0.png").write_text("precious")
    line = fails(capsys, "restore", photos, "-m", weights, "-o", output)
    assert f"{output / 'photo 0.png'}: exists already (no record of how it was made); --overwrite replaces it" in line
    assert [path.name for path in output.iterdir()] == ["photo 0.png"]
    assert restore(photos, "-m", weights, "-o", output, "--overwrite") == 0
    assert read_pixels(output / "photo 0.png").shape == (16, 16, 3)
    before = (photos / "photo 0.png").read_bytes()
    line = fails(capsys, "restore", photos, "-m", weights, "-o", photos, "--overwrite")
    assert "is the photograph itself" in line
    assert (photos / "photo 0.png").read_bytes() == before


def test_mistakes_are_one_line(capsys, tmp_path, weights):
    photos = write_photos(tmp_path / "photos", 1, 16, 16)
    one = photos / "photo 0.png"
    output = tmp_path / "out"
    assert "no such file" in fails(capsys, "restore", tmp_path / "gone.jpg", "-m", weights, "-o", output)
    assert "matches no file" in fails(capsys, "restore", tmp_path / "*.jpg", "-m", weights, "-o", output)
    assert "no such file or folder" in fails(capsys, "restore", one, "-m", tmp_path / "gone", "-o", output)
    (tmp_path / "empty").mkdir()
    assert "holds no image" in fails(capsys, "restore", tmp_path / "empty", "-m", weights, "-o", output)
    assert f"{one}: cannot be written" in fails(capsys, "restore", one, "-m", weights, "-o", one)
    line = fails(capsys, "restore", one, "-m", weights, "-o", one / "below")
    assert f"below: cannot be written, because {one} is a file, not a folder; name another folder" in line
    assert "found 'big'" in fails(capsys, "restore", one, "-m", weights, "-o", output, "--tile", "big")
    assert "expected 1 to 100" in fails(capsys, "restore", one, "-m", weights, "-o", output, "--quality", "0")
    assert "leave out --left" in fails(capsys, "restore", one, "-m", weights, "-o", output, "--left", one)
    write_pixels(tmp_path / "photo 0.png", from_float(texture(16, 16, 9), 8))
    line = fails(capsys, "restore", one, tmp_path / "photo 0.png", "-m", weights, "-o", output)
    assert "both would become" in line
    assert not output.exists()


def test_dual_pixel_photographs(capsys, tmp_path):
    weights = tmp_path / "dual.safetensors"
    model = golden.randomize(kpac.create_model("kpac_dual", width=4, blocks=1))
    kpac.save_model(model, weights)
    for seed, view in enumerate(("center", "left", "right")):
        for index in range(2):
            write_pixels(tmp_path / view / f"{index}.png", from_float(texture(20, 28, 10 * seed + index), 16))
    center, left, right = (tmp_path / view for view in ("center", "left", "right"))
    line = fails(capsys, "restore", center, "-m", weights, "-o", tmp_path / "out")
    assert "name them with --left and --right" in line
    views = ("--left", left, "--right", right)
    assert restore(center, "-m", weights, "-o", tmp_path / "out", *views) == 0
    arrays = [to_float(read_pixels(tmp_path / view / "1.png")) for view in ("center", "left", "right")]
    expected = from_float(kpac.Restorer(model, device="cpu")(*arrays), 16)
    assert np.array_equal(read_pixels(tmp_path / "out" / "1.png"), expected)
    (right / "1.png").unlink()
    line = fails(capsys, "restore", center, "-m", weights, "-o", tmp_path / "other", *views)
    assert f"{right / '1.png'}: no such file; expected the other view of" in line
    write_pixels(right / "1.png", np.zeros((5, 5, 3), np.uint16))
    assert restore(center, "-m", weights, "-o", tmp_path / "other", *views) == 1
    assert f"{center / '1.png'}: the right view is 5x5 pixels" in capsys.readouterr().err
    assert names(tmp_path / "other") == ["0.png"]


def test_networks_from_outside_are_tiled_approximately(capsys, tmp_path):
    plugin = tmp_path / "my_network.py"
    plugin.write_text(
        "import kpac\nfrom torch import nn\n"
        "@kpac.register('restorable_cnn')\n"
        "class CNN(nn.Module):\n"
        "    views = ('center',)\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Conv2d(3, 3, 3, padding=1)\n"
        "    def forward(self, views):\n"
        "        return self.layer(views)\n"
    )
    from kpac.models.registry import load_plugins

    load_plugins([str(plugin)])
    kpac.save_model(kpac.create_model("restorable_cnn"), tmp_path / "m.safetensors")
    photos = write_photos(tmp_path / "photos", 1, 70, 90)
    common = [photos, "-m", tmp_path / "m.safetensors", "--plugin", plugin, "-o"]
    assert "--approximate" in fails(capsys, "restore", *common, tmp_path / "a", "--tile", "32")
    assert restore(*common, tmp_path / "b", "--tile", "32", "--approximate") == 0
    assert restore(*common, tmp_path / "c") == 0
    first, second = (read_pixels(next((tmp_path / name).glob("*.png"))).astype(int) for name in "bc")
    assert np.abs(first - second).max() <= 1
