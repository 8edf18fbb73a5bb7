"""`kpac data check` says what is wrong, by name, and knows the published set when it sees it."""

import json
import shutil

import cv2
import numpy as np
import pytest

from kpac.cli import main
from kpac.data import published as published_module
from kpac.data.check import check
from kpac.data.check_report import check_json, check_text
from kpac.data.layouts import find_scenes
from kpac.data.published import published_pairs
from kpac.images import from_float, write_pixels
from tests.conftest import texture

HEIGHT, WIDTH = 16, 24
VIEWS = ("c", "l", "r")


def write_scene(root, split, name, target, seed, portrait=False, views=VIEWS):
    """A sharp target, and blurred views that differ from one another."""
    sharp = texture(HEIGHT, WIDTH, seed)
    if portrait:
        sharp = np.rot90(sharp)
    write_pixels(root / f"{split}_c" / "target" / f"{target}.png", from_float(sharp, 16))
    for index, view in enumerate(views):
        blurred = cv2.GaussianBlur(np.ascontiguousarray(sharp), (0, 0), 2 + index / 10)
        write_pixels(root / f"{split}_{view}" / "source" / f"{name}.png", from_float(blurred, 16))


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The published test split by name, with thumbnails for images."""
    monkeypatch.setattr(published_module, "SIZES", {f"{WIDTH}x{HEIGHT}", f"{HEIGHT}x{WIDTH}"})
    for seed, (name, target) in enumerate(published_pairs()["test"].items()):
        write_scene(tmp_path / "DPDD", "test", name, target, seed, portrait=seed % 5 == 0)
    return tmp_path / "DPDD"


@pytest.fixture
def pairs(tmp_path):
    """Six training scenes and two test scenes with all their views."""
    root = tmp_path / "my set"
    for seed in range(8):
        write_scene(root, "train" if seed < 6 else "test", f"s{seed}", f"s{seed}", seed)
    return root


def kinds(root) -> list[str]:
    return [fault.kind for report in check(root) for fault in report.faults]


def test_published_split_is_recognised_as_complete(published, capsys):
    assert main(["data", "check", str(published)]) == 0
    text = capsys.readouterr().out
    assert "test: this is the published DPDD test split, complete (76 scenes)" in text
    assert f"{WIDTH}x{HEIGHT}: 240, {HEIGHT}x{WIDTH}: 64" in text


def test_published_split_without_dual_views_says_so(published):
    for view in "lr":
        for path in (published / f"test_{view}" / "source").iterdir():
            path.unlink()
        (published / f"test_{view}" / "source").rmdir()
    (report,) = check(published)
    assert report.verdict().endswith("complete (76 scenes), without its left and right views")


def test_published_split_without_its_targets_is_not_complete(published):
    shutil.rmtree(published / "test_c" / "target")
    (report,) = check(published)
    assert [fault.kind for fault in report.faults] == ["missing targets"]


def test_split_that_lacks_a_published_scene_is_not_complete(published):
    name, target = next(iter(published_pairs()["test"].items()))
    for path in [*published.glob(f"*/source/{name}.png"), *published.glob(f"*/target/{target}.png")]:
        path.unlink()
    train_name = next(iter(published_pairs()["train"]))
    write_scene(published, "test", train_name, published_pairs()["train"][train_name], seed=99)
    (report,) = check(published)
    assert [fault.kind for fault in report.faults] == ["extra scene"]
    assert report.faults[0].text.startswith(f"{train_name}: is in the train list of DPDD")
    assert f"75 of the test split's 76 scenes (not {name}) and 1 other" in report.verdict()
    assert "complete" not in report.verdict()


@pytest.mark.parametrize("change", ["bits", "size"])
def test_published_names_with_other_pixels_are_not_the_published_split(published, change):
    for folder, name in zip(("source", "target"), next(iter(published_pairs()["test"].items())), strict=True):
        for path in published.glob(f"*/{folder}/{name}.png"):
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(path), pixels[:-2] if change == "size" else (pixels >> 8).astype(np.uint8))
    (report,) = check(published)
    assert {fault.kind for fault in report.faults} <= {"size"}
    bits, sizes = ("8 and 16", "16x24 and 24x16") if change == "bits" else ("16", "3 sizes")
    assert report.verdict().endswith(
        f"DPDD: 76 of the test split's 76 scenes, {sizes}, {bits} bits: not the published set"
    )


def test_whole_set_has_no_faults(pairs):
    assert kinds(pairs) == []
    assert "train: 6 scenes, nothing wrong" in check_text(check(pairs))


def test_one_of_each_fault_is_named(pairs, capsys):
    train, target = pairs / "train_c" / "source", pairs / "train_c" / "target"
    broken = train / "s0.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    (pairs / "train_l" / "source" / "s1.png").unlink()
    write_pixels(target / "s2.png", from_float(texture(HEIGHT, WIDTH + 2, 2), 16))
    write_pixels(target / "s3.png", from_float(texture(HEIGHT, WIDTH, 3), 8))
    source, sharp = train / "s4.png", target / "s4.png"
    blurred = source.read_bytes()
    source.write_bytes(sharp.read_bytes())
    sharp.write_bytes(blurred)
    (train / "s5.png").write_bytes((pairs / "test_c" / "source" / "s6.png").read_bytes())
    write_pixels(target / "left over.png", from_float(texture(HEIGHT, WIDTH, 50), 16))
    (pairs / "test_c" / "target" / "s7.png").unlink()

    assert main(["data", "check", str(pairs), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    faults = {(fault["kind"], fault["text"]) for split in report["splits"] for fault in split["faults"]}
    by_kind = dict(faults)
    assert len(faults) == len(by_kind) == 8
    assert f"{broken}: not a whole image" in by_kind["unreadable"]
    assert by_kind["missing view"] == f"{train / 's1.png'}: has no left view"
    assert by_kind["size"].startswith(f"{target / 's2.png'}: is 26x16")
    assert by_kind["bit depth"].startswith(f"{target / 's3.png'}: has 8 bits")
    assert by_kind["swapped"].startswith(f"{sharp}: is blurrier than its input")
    assert (
        by_kind["duplicate"] == f"{pairs / 'test_c' / 'source' / 's6.png'}: has the same pixels as {train / 's5.png'}"
    )
    assert by_kind["extra target"].startswith(str(target / "left over.png"))
    assert by_kind["missing target"].startswith(str(pairs / "test_c" / "source" / "s7.png"))

    assert main(["data", "check", str(pairs)]) == 1
    text = capsys.readouterr().out
    assert all(fault in text for _, fault in faults)
    assert "train: 6 scenes, 6 faults" in text


def test_two_images_of_one_name_are_a_fault(pairs):
    images = pairs / "train_c" / "source"
    write_pixels(images / "s0.tif", from_float(texture(HEIGHT, WIDTH, 50), 16))
    (fault,) = [fault for report in check(pairs) for fault in report.faults if fault.kind == "same name"]
    assert fault.text == f"{images / 's0.tif'}: has the same name as {images / 's0.png'}"


def test_several_inputs_of_one_target_are_a_note_and_no_fault(pairs):
    target = pairs / "train_c" / "target"
    (target / "s1.png").write_bytes((target / "s0.png").read_bytes())
    reports = check(pairs)
    assert [report.shared_targets for report in reports] == [1, 0]
    assert not any(report.faults for report in reports)
    assert "train: 1 targets equal the target of another input" in check_text(reports)


def test_gray_and_alpha_are_counted(tmp_path):
    cv2.imwrite(str(tmp_path / "gray.png"), np.zeros((4, 5), np.uint8))
    cv2.imwrite(str(tmp_path / "alpha.png"), np.ones((4, 5, 4), np.uint8))
    (split,) = check_json(check(tmp_path))["splits"]
    assert (split["gray"], split["alpha"]) == (1, 1)


def test_folder_without_images_is_a_fault(tmp_path):
    for folder in ("source", "target"):
        (tmp_path / "test_c" / folder).mkdir(parents=True)
    assert kinds(tmp_path) == ["no images", "no images"]


def test_folder_of_something_else_is_one_line(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 2
    assert main(["data", "check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_long_lists_of_faults_are_cut_in_the_text_alone(pairs):
    for number in range(30):
        write_pixels(
            pairs / "train_c" / "target" / f"extra{number}.png", from_float(texture(HEIGHT, WIDTH, 100 + number), 16)
        )
    reports = check(pairs)
    assert "and 10 more; the rest" in check_text(reports, "the rest")
    assert len(check_json(reports)["splits"][0]["faults"]) == 30


@pytest.mark.parametrize("change", ["count", "size", "depth", "split"])
def test_copies_of_dpdd_are_one_line_and_no_fault(tmp_path, capsys, change):
    split, count = ("val", 76) if change == "split" else ("test", 5 if change == "count" else 76)
    depth, size = (16 if change == "size" else 8), (HEIGHT, WIDTH)
    for seed, name in enumerate(list(published_pairs()["test"])[:count]):
        sharp = texture(*size, seed)
        blurred = cv2.GaussianBlur(sharp, (0, 0), 2)
        for folder, image in (("input", blurred), ("target", sharp)):
            write_pixels(tmp_path / split / folder / f"{name}.png", from_float(image, depth))
    assert main(["data", "check", str(tmp_path)]) == 0
    line = f"DPDD: {count} of the test split's 76 scenes, 24x16, {depth} bits: not the published set"
    assert capsys.readouterr().out.endswith(f"{split}: {count} scenes, nothing wrong; {line}\n")


def test_test_scenes_to_train_on_are_a_fault(tmp_path):
    for name in list(published_pairs()["test"])[:3]:
        write_scene(tmp_path, "train", name, published_pairs()["test"][name], seed=int(name[-3:]))
    assert kinds(tmp_path) == ["published split"]


def test_swapped_folders_are_named(pairs, tmp_path):
    swapped = tmp_path / "swapped"
    for folder, other in (("source", "target"), ("target", "source")):
        shutil.copytree(pairs / "train_c" / folder, swapped / "train_c" / other)
    (report,) = check(swapped)
    assert [fault.kind for fault in report.faults] == ["swapped"] * 6
    assert "the folders of inputs and targets look swapped" in report.verdict()


def test_pairs_are_those_of_training(tmp_path, capsys):
    for number in range(1, 12):
        sharp = texture(HEIGHT, WIDTH, number)
        write_pixels(
            tmp_path / "test" / "input" / f"{number}_blur.png", from_float(cv2.GaussianBlur(sharp, (0, 0), 2), 8)
        )
        write_pixels(tmp_path / "test" / "target" / f"{number}.png", from_float(sharp, 8))
    assert main(["data", "check", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "test: inputs and target images: names pair as 10_blur and 10" in text
    (report,) = check(tmp_path)
    expected = {scene.views["center"]: scene.target for scene in find_scenes(tmp_path, "test")}
    pairs = report.pairs["target"]
    assert dict(zip(pairs.images, pairs.partners, strict=True)) == expected


def test_files_that_nobody_reads_are_counted(pairs, capsys):
    for number, suffix in enumerate((".heic2", ".nef", ".nef")):
        (pairs / "train_c" / "source" / f"more{number}{suffix}").write_bytes(b"x")
    assert main(["data", "check", str(pairs)]) == 0
    assert f"{pairs / 'train_c' / 'source'}: left out: 2 .nef, 1 .heic2" in capsys.readouterr().out
    find_scenes(pairs, "train")
    assert "left out: 2 .nef, 1 .heic2" in capsys.readouterr().err


def test_names_that_do_not_pair_are_a_fault_unless_order_is_asked_for(tmp_path, capsys):
    for name, other in (("dawn", "p"), ("dusk", "q")):
        sharp = texture(HEIGHT, WIDTH, len(name) + ord(other))
        write_pixels(tmp_path / "blur" / f"{name}.png", from_float(cv2.GaussianBlur(sharp, (0, 0), 2), 8))
        write_pixels(tmp_path / "sharp" / f"{other}.png", from_float(sharp, 8))
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "dawn.png, dusk.png" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path), "--pair-by-order"]) == 0
    assert "names pair by sorted order" in capsys.readouterr().out


def test_cache_command_takes_the_splits_that_are_there(pairs, capsys, tmp_path):
    undivided = tmp_path / "undivided"
    for folder in ("source", "target"):
        shutil.copytree(pairs / "test_c" / folder, undivided / folder)
    for root, count in ((undivided, 4), (pairs, 12)):
        assert main(["data", "cache", str(root), "--cache", str(tmp_path / "store")]) == 0
        assert f"holds the {count} images" in capsys.readouterr().err


def test_cache_command_builds_verifies_and_repairs(pairs, capsys, tmp_path):
    store = tmp_path / "store"
    order = ["data", "cache", str(pairs), "--split", "train", "--views", "center", "left", "--cache", str(store)]
    assert main(order) == 0
    assert "18 images" in capsys.readouterr().err
    assert len(list(store.glob("*.npy"))) == 18
    assert main([*order, "--verify"]) == 0
    rotten = next(store.glob("s3-*.npy"))
    with rotten.open("r+b") as file:
        file.seek(200)
        file.write(b"rot!")
    assert main([*order, "--verify"]) == 1
    assert "s3.png: differed from the stored copy" in capsys.readouterr().err
    assert main([*order, "--verify"]) == 0
    assert main([*order, "--split", "trian"]) == 2
