"""An evaluation is complete, goes on where it stopped, and refuses what cannot be scored, in one line."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import kpac
from kpac.cli import main
from kpac.distributed import join_ranks
from kpac.errors import UserError
from kpac.evaluation import methods, perceptual, run, scorer
from kpac.evaluation.evaluator import score_scene
from kpac.evaluation.folders import ResultFolders
from kpac.evaluation.methods import Network, SavedImages
from kpac.evaluation.request import Evaluation
from kpac.evaluation.results import read_results
from kpac.evaluation.run import evaluate_method
from kpac.images import bits, read_pixels, write_pixels
from kpac.reporting.report import write_report

CPU = torch.device("cpu")


def evaluate_weights(
    weights: Path, evaluation: Evaluation, output: Path, device: str, overwrite: bool = False
) -> tuple[dict, Path]:
    """What `kpac evaluate` does with one network and one data set: the results, and their folder."""
    with join_ranks(device) as ranks:
        network = Network(weights, ranks.device)
        folder = ResultFolders(output, overwrite=overwrite).take(network, evaluation)
        return evaluate_method(network, evaluation, folder, ranks, write_report), folder


@pytest.fixture
def weights(tmp_path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    kpac.save_model(kpac.create_model("kpac_2level", width=4, blocks=1), path)
    return path


@pytest.fixture
def labelled(data_root, tmp_path) -> Path:
    """Three scenes, two of them indoors, in the redistributed layout."""
    root = tmp_path / "labelled"
    scenes = sorted((data_root / "test_c" / "source").iterdir()) + sorted((data_root / "val_c" / "source").iterdir())
    for folder, role in (("inputC", "source"), ("target", "target")):
        (root / "test" / folder).mkdir(parents=True)
        for scene in scenes[:3]:
            shutil.copy(scene.parents[1] / role / scene.name, root / "test" / folder)
    np.save(root / "test" / "indoor_labels.npy", np.array([1, 3]))
    np.save(root / "test" / "outdoor_labels.npy", np.array([2]))
    return root


def counted(monkeypatch, dies_after: int | None = None) -> list[str]:
    """Names of the scenes that are restored from now on; optionally Ctrl-C after some."""
    names: list[str] = []

    def count(scene, *rest):
        if len(names) == dies_after:
            raise KeyboardInterrupt
        names.append(scene.name)
        return score_scene(scene, *rest)

    monkeypatch.setattr(run, "score_scene", count)
    return names


def score_images(folder: Path, data: Path, output: Path, protocol: str = "dpdd-8bit") -> dict:
    evaluation = Evaluation(data, protocol=protocol)
    with join_ranks("cpu") as ranks:
        return evaluate_method(SavedImages(folder, CPU, "theirs"), evaluation, output, ranks, write_report)


def test_groups_and_their_means(labelled, weights, tmp_path):
    results, _ = evaluate_weights(weights, Evaluation(labelled), tmp_path / "results", "cpu")
    images = results["images"]
    assert [image["group"] for image in images] == ["indoor", "outdoor", "indoor"]
    assert results["groups"]["indoor"]["images"] == 2
    assert results["groups"]["indoor"]["mean"]["psnr"] == pytest.approx((images[0]["psnr"] + images[2]["psnr"]) / 2)
    assert results["groups"]["outdoor"]["mean"]["ssim"] == images[1]["ssim"]
    report = (tmp_path / "results" / "report.md").read_text()
    assert "indoor (2): restored" in report
    assert "95% intervals" in report


def test_labels_that_do_not_fit_the_list_are_refused(labelled, weights, tmp_path):
    np.save(labelled / "test" / "outdoor_labels.npy", np.array([4]))
    with pytest.raises(UserError, match=r"outdoor_labels.npy: position 4 does not fit a list of 3 scenes"):
        evaluate_weights(weights, Evaluation(labelled), tmp_path / "results", "cpu")


def test_confidence_interval_has_a_fixed_seed_and_holds_the_mean(labelled, weights, tmp_path):
    first, second = (evaluate_weights(weights, Evaluation(labelled), tmp_path / name, "cpu")[0] for name in ("a", "b"))
    assert first["confidence"] == second["confidence"]
    for name, (low, high) in first["confidence"]["interval"].items():
        assert low <= first["mean"][name] <= high
        assert low < high


def test_interrupted_evaluation_goes_on_and_recomputes_nothing(labelled, weights, tmp_path, monkeypatch):
    output = tmp_path / "results"
    with monkeypatch.context() as patch:
        done = counted(patch, dies_after=2)
        with pytest.raises(kpac.errors.Stopped, match="2 of 3 images are finished; repeat the command to continue"):
            evaluate_weights(weights, Evaluation(labelled), output, "cpu")
    assert not (output / "results.json").exists()
    journal = output / "records" / "rank0.jsonl"
    journal.write_text(journal.read_text()[:-20])  # the machine died while the second line was written
    rest = counted(monkeypatch)
    results, _ = evaluate_weights(weights, Evaluation(labelled), output, "cpu")
    assert rest == [done[1], results["images"][2]["name"]]
    whole, _ = evaluate_weights(weights, Evaluation(labelled), tmp_path / "at once", "cpu")
    for record, other in zip(results["images"], whole["images"], strict=True):
        assert {key: record[key] for key in ("name", "psnr", "ssim", "mae", "input")} == {
            key: other[key] for key in ("name", "psnr", "ssim", "mae", "input")
        }
    rest.clear()
    evaluate_weights(weights, Evaluation(labelled), output, "cpu")
    assert rest == []


@pytest.mark.parametrize("change", ["weights", "protocol", "arithmetic", "input", "image is gone"])
def test_what_a_record_depends_on_makes_it_new(change, labelled, weights, tmp_path, monkeypatch):
    output = tmp_path / "results"
    evaluation = Evaluation(labelled, save_images=True)
    evaluate_weights(weights, evaluation, output, "cpu")
    again = counted(monkeypatch)
    if change == "weights":
        torch.manual_seed(1)
        kpac.save_model(kpac.create_model("kpac_2level", width=4, blocks=1), weights)
    if change == "protocol":
        evaluation = Evaluation(labelled, protocol="saved-png-8bit", save_images=True)
    if change == "arithmetic":
        monkeypatch.setattr(run, "PRECISION", "with TF32, as an earlier version computed")
    if change == "input":
        source = sorted((labelled / "test" / "inputC").iterdir())[1]
        write_pixels(source, 65535 - read_pixels(source))
    if change == "image is gone":
        sorted((output / "images").iterdir())[1].unlink()
    results, _ = evaluate_weights(weights, evaluation, output, "cpu", overwrite=change == "protocol")
    names = [image["name"] for image in results["images"]]
    assert again == (names if change in ("weights", "protocol", "arithmetic") else [names[1]])


def test_saved_images_have_the_files_bit_depth_and_score_the_same(data_root, weights, tmp_path):
    output = tmp_path / "results"
    own, _ = evaluate_weights(weights, Evaluation(data_root, save_images=True), output, "cpu")
    images = sorted((output / "images").iterdir())
    assert [image.stem for image in images] == [record["name"] for record in own["images"]]
    assert bits(read_pixels(images[0])) == 16
    theirs = score_images(output / "images", data_root, tmp_path / "theirs")
    assert theirs["label"] == "theirs"
    assert theirs["mean"]["psnr"] == pytest.approx(own["mean"]["psnr"], abs=1e-3)
    assert theirs["mean"]["psnr"] != own["mean"]["psnr"]  # 16 bits are not floats
    assert theirs["seconds"] is None


def test_saved_png_protocol_equals_the_numbers_of_saved_8_bit_files(data_root, weights, tmp_path):
    own, _ = evaluate_weights(weights, Evaluation(data_root, protocol="saved-png-8bit"), tmp_path / "own", "cpu")
    plain, _ = evaluate_weights(weights, Evaluation(data_root, save_images=True), tmp_path / "plain", "cpu")
    for image in (tmp_path / "plain" / "images").iterdir():
        pixels = read_pixels(image).astype(np.float64) / 65535
        write_pixels(image, np.rint(pixels * 255).astype(np.uint8))
    theirs = score_images(tmp_path / "plain" / "images", data_root, tmp_path / "theirs")
    assert theirs["mean"]["psnr"] == pytest.approx(own["mean"]["psnr"], abs=1e-6)
    assert theirs["mean"]["psnr"] != plain["mean"]["psnr"]


def test_half_resolution_halves_inputs_and_targets_by_area(data_root, weights, tmp_path):
    results, _ = evaluate_weights(
        weights, Evaluation(data_root, protocol="half-resolution", save_images=True), tmp_path / "half", "cpu"
    )
    whole = read_pixels(sorted((data_root / "test_c" / "source").iterdir())[0], 8)
    saved = read_pixels(sorted((tmp_path / "half" / "images").iterdir())[0])
    assert saved.shape[:2] == (whole.shape[0] // 2, whole.shape[1] // 2)
    assert (results["cost"]["height"], results["cost"]["width"]) == saved.shape[:2]
    target = sorted((data_root / "test_c" / "target").iterdir())[0]
    halves = [
        read_pixels(path, 8).astype(np.float64).reshape(saved.shape[0], 2, saved.shape[1], 2, 3).mean(axis=(1, 3)) / 255
        for path in (sorted((data_root / "test_c" / "source").iterdir())[0], target)
    ]
    expected = 10 * np.log10(1 / np.mean((halves[0] - halves[1]) ** 2))
    assert results["images"][0]["input"]["psnr"] == pytest.approx(expected, abs=1e-5)


def test_set_without_targets_gives_images_and_no_scores(data_root, weights, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(data_root / "test_c" / "source", photos)
    results, _ = evaluate_weights(weights, Evaluation(photos), tmp_path / "results", "cpu")
    assert results["mean"] == {}
    assert len(list((tmp_path / "results" / "images").iterdir())) == len(results["images"]) == 2
    assert (tmp_path / "results" / "comparison.png").is_file()
    report = (tmp_path / "results" / "report.md").read_text()
    assert "without targets" in report
    for words in ("SSIM", "data range", "mean over", "sharp", "targets read", "Every image"):
        assert words not in report


def test_outputs_for_a_set_without_targets_get_metrics_that_need_none(data_root, tmp_path, monkeypatch):
    class Brightness(torch.nn.Module):
        def forward(self, image):
            return image.mean()

    monkeypatch.setattr(scorer, "_pyiqa", lambda name, device: Brightness())
    photos, outputs = tmp_path / "photos", tmp_path / "outputs"
    for folder in (photos, outputs):
        shutil.copytree(data_root / "test_c" / "source", folder)
    for path in outputs.iterdir():
        path.rename(path.with_stem(f"{path.stem}_restored"))
    words = ["evaluate", "--images", f"mine={outputs}", "--data", str(photos), "--output", str(tmp_path / "results")]
    assert main(words) == 2
    assert main([*words, "--no-reference", "niqe"]) == 0
    results = read_results(tmp_path / "results")
    assert set(results["mean"]) == {"niqe"}
    assert 0 < results["mean"]["niqe"] < 1


def test_results_say_which_images_were_scored(labelled, weights, tmp_path):
    results, _ = evaluate_weights(weights, Evaluation(labelled), tmp_path / "one", "cpu")
    scored = results["scored"]
    assert (scored["count"], scored["bit_depths"], scored["published"]) == (3, {"16": 3}, None)
    assert sum(scored["sizes"].values()) == 3
    path = next((labelled / "test" / "target").iterdir())
    changed = read_pixels(path).copy()
    changed[0, 0] ^= 1 << 8
    write_pixels(path, changed)
    other, _ = evaluate_weights(weights, Evaluation(labelled), tmp_path / "two", "cpu")
    assert other["scored"]["pixels"] != scored["pixels"]
    assert other["scored"]["names"] == scored["names"]


def test_tiles_give_the_same_numbers(labelled, weights, tmp_path, capsys):
    whole, _ = evaluate_weights(weights, Evaluation(labelled), tmp_path / "whole", "cpu")
    words = ["evaluate", str(weights), "--data", str(labelled), "--output", str(tmp_path / "tiled"), "--tile", "32"]
    assert main(words) == 0
    assert read_results(tmp_path / "tiled")["mean"]["psnr"] == pytest.approx(whole["mean"]["psnr"], abs=1e-4)


def test_exhausted_memory_is_one_line_that_names_tiles(labelled, weights, tmp_path, monkeypatch, capsys):
    def exhausted(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(kpac.models.network.KPACNet, "forward", exhausted)
    monkeypatch.setattr(methods, "accelerate", lambda model: model)
    assert main(["evaluate", str(weights), "--data", str(labelled), "--output", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "out of memory for" in error
    assert "--tile 512" in error


def test_run_is_evaluated_on_its_own_data_and_protocol(config_file, data_root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # results go to results/ there
    words = ["train.iterations=1", "validation.every=1", "validation.protocol=dpdd-16bit"]
    assert main(["train", str(config_file), *words]) == 0
    folder = tmp_path / "runs" / "small"
    assert main(["evaluate", str(folder)]) == 0
    (path,) = folder.glob("results/*/results.json")
    results = read_results(path)
    assert (Path(results["data"]), results["split"], results["protocol"]) == (data_root, "test", "dpdd-16bit")
    assert main(["evaluate", str(folder / "checkpoints" / "iteration_0000001.pt"), "--protocol", "dpdd-8bit"]) == 0
    (folder / "config.yaml").unlink()
    capsys.readouterr()
    assert main(["evaluate", str(folder / "checkpoints" / "last.safetensors")]) == 2
    assert "expected --data with the folder of a data set" in capsys.readouterr().err


@pytest.mark.parametrize("mistake", ["size", "missing", "nan", "array"])
def test_bad_outputs_of_another_method_are_named(mistake, data_root, tmp_path):
    outputs = tmp_path / "outputs"
    shutil.copytree(data_root / "test_c" / "target", outputs)
    first = sorted(outputs.iterdir())[0]
    pixels = read_pixels(first)
    if mistake == "size":
        write_pixels(first, pixels[:-2])
        words = rf"{first.name}: is 112x78, the target of scene '{first.stem}' is 112x80"
    if mistake == "missing":
        first.unlink()
        words = f"no image {first.name}; 1 of 2 scenes have no output there"
    if mistake == "nan":
        array = (pixels / 65535).astype(np.float32)
        array[3, 4, 1] = np.nan
        first.unlink()
        np.save(first.with_suffix(".npy"), array)
        words = "1 values are NaN or infinite"
    if mistake == "array":
        first.unlink()
        np.save(first.with_suffix(".npy"), pixels)
        words = "holds uint16 of shape"
    with pytest.raises(UserError, match=words) as refusal:
        score_images(outputs, data_root, tmp_path / "results")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "results" / "results.json").exists()


def test_outputs_equal_to_the_targets_are_infinitely_good(data_root, tmp_path):
    targets = shutil.copytree(data_root / "test_c" / "target", tmp_path / "targets")
    first = score_images(targets, data_root, tmp_path / "results", "dpdd-16bit")
    assert first["mean"]["psnr"] == math.inf
    assert "Infinity" in (tmp_path / "results" / "records" / "rank0.jsonl").read_text()
    again = score_images(targets, data_root, tmp_path / "results", "dpdd-16bit")  # from the records
    assert again == first == read_results(tmp_path / "results")
    assert "nan" not in (tmp_path / "results" / "report.md").read_text()


def test_network_whose_output_is_not_a_number_is_named(data_root, weights, tmp_path):
    model = kpac.load_model(weights)
    next(model.parameters()).data.fill_(float("nan"))
    kpac.save_model(model, weights)
    with pytest.raises(UserError, match=r"values of the output of .*model.safetensors are NaN or infinite"):
        evaluate_weights(weights, Evaluation(data_root), tmp_path / "results", "cpu")


def test_lpips_is_in_the_results_when_its_weights_are_there(data_root, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(perceptual, "expected_hash", lambda _: "")  # random weights do here
    backbone = tmp_path / "backbone.pth"
    torch.save(torchvision.models.alexnet(weights=None).features.state_dict(prefix="features."), backbone)
    with_lpips, _ = evaluate_weights(
        weights, Evaluation(data_root, lpips_weights=backbone, required=("lpips",)), tmp_path / "a", "cpu"
    )
    assert with_lpips["mean"]["lpips"] > 0
    assert with_lpips["input_mean"]["lpips"] > 0
    assert "LPIPS" in (tmp_path / "a" / "report.md").read_text()


def test_lpips_without_weights_is_skipped_in_one_line_or_refused(data_root, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    results, _ = evaluate_weights(weights, Evaluation(data_root), tmp_path / "b", "cpu")
    assert "lpips" not in results["mean"]
    assert "alexnet-owt-7be5be79.pth: no such file" in results["skipped"]["lpips"]
    assert "\n" not in results["skipped"]["lpips"]
    reason = results["skipped"]["lpips"]
    line = f"- Not computed: LPIPS, {reason}; evaluate again once the file is there.\n"
    assert line in (tmp_path / "b" / "report.md").read_text()
    with pytest.raises(UserError, match=r"alexnet-owt-7be5be79.pth: no such file"):
        evaluate_weights(weights, Evaluation(data_root, required=("lpips",)), tmp_path / "c", "cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda results: results.pop("format"), "written by an older kpac"),
        (lambda results: results.update(format=99), "has format 99, this version of kpac reads 1; update kpac"),
    ],
)
def test_results_of_another_version_are_refused(change, words, data_root, weights, tmp_path):
    _, folder = evaluate_weights(weights, Evaluation(data_root), tmp_path / "results", "cpu")
    results = read_results(folder)
    change(results)
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=words):
        read_results(folder)


def test_two_processes_share_the_images(labelled, weights, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "kpac"]
    command += ["evaluate", str(weights), "--data", str(labelled), "--output", str(tmp_path / "two"), "--device", "cpu"]
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2], check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("| restored") == 1
    lines = [len((tmp_path / "two" / "records" / f"rank{rank}.jsonl").read_text().splitlines()) for rank in (0, 1)]
    assert lines == [2, 1]
    one, _ = evaluate_weights(weights, Evaluation(labelled), tmp_path / "one", "cpu")
    two = read_results(tmp_path / "two")
    assert [record["name"] for record in two["images"]] == [record["name"] for record in one["images"]]
    assert two["mean"]["psnr"] == pytest.approx(one["mean"]["psnr"], abs=1e-4)


def test_full_size_outputs_are_brought_to_the_protocols_size(data_root, weights, tmp_path):
    folder = tmp_path / "outputs"
    for path in (data_root / "test_c" / "source").iterdir():
        write_pixels(folder / path.name, read_pixels(path, 8))
    for protocol in ("half-resolution", "drbnet"):
        theirs = score_images(folder, data_root, tmp_path / protocol, protocol)
        for image in theirs["images"]:
            assert image["psnr"] == pytest.approx(image["input"]["psnr"], abs=1e-6)


def test_protocol_that_crops_more_than_there_is_is_refused_before_anything_is_restored(
    data_root, weights, tmp_path, monkeypatch
):
    path = tmp_path / "mine.yaml"
    path.write_text("border: {source: us, bit_depth: 8, crop_border: 40}")
    names = counted(monkeypatch)
    with pytest.raises(UserError, match=r"is 112x80 pixels, of which protocol 'border' scores 32x0; SSIM needs 7x7"):
        evaluate_weights(weights, Evaluation(data_root, protocol=str(path)), tmp_path / "results", "cpu")
    assert names == []
