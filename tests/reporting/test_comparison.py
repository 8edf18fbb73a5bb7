"""Tables compare what compares, rank it right, and mark published numbers as such."""

import copy
import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import kpac
from kpac.cli import main
from kpac.data.pairing import published_pairs
from kpac.errors import UserError
from kpac.evaluation.protocols import find_protocol
from kpac.evaluation.results import FORMAT, read_results
from kpac.evaluation.statistics import confidence
from kpac.files import write_json
from kpac.reporting.comparison import Column, compare
from kpac.reporting.describe import describe
from kpac.reporting.formats import csv_text, escape, json_text, latex, markdown
from kpac.reporting.published import SIZES, published_rows


def results(label: str, psnr: float, ssim: float, protocol: str = "dpdd-8bit", names=("a", "b"), **changes) -> dict:
    """What results.json holds of two images; results of a network."""
    scores = {"psnr": psnr, "ssim": ssim, "mae": 0.02}
    images = [{"name": name, **scores, "input": scores} for name in names]
    group = {"images": 1, "mean": {**scores, "psnr": psnr + 1}, "input_mean": scores}
    return {
        "format": FORMAT,
        "label": label,
        "protocol": protocol,
        "protocol_settings": find_protocol(protocol).settings(),
        "data": "data/some_set",
        "split": "test",
        "layout": "auto",
        "data_set": "DPDD test" if names == DPDD else None,
        "scored": {"sizes": {"9x6": 2}, "bit_depths": {"8": 2}, "pixels": "p", "published": None},
        "model": {"name": "kpac_2level", "options": {}, "weights": "w", "sha256": label * 8},
        "cost": {"parameters": 1_500_000, "macs": 2_000_000_000, "height": 112, "width": 168},
        "seconds": 0.5,
        "memory_gb": 1.0,
        "device": "CPU, 2 threads",
        "mean": scores,
        "input_mean": scores,
        "groups": {"indoor": group},
        "images": images,
        **changes,
    }


def found(*items: dict) -> list[tuple[Path, dict]]:
    return [(Path(f"{index}/results.json"), item) for index, item in enumerate(items)]


DPDD = tuple(published_pairs()["test"])


def test_best_is_bold_and_second_underlined():
    table = compare(found(results("x", 25.004, 0.7), results("y", 25.001, 0.8), results("z_1", 24.0, 0.75)))
    text = markdown(table)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    # 25.004 and 25.001 are printed as 25.00 both: neither is better.
    assert "**25.00**" in lines["x"]
    assert "**25.00**" in lines["y"]
    assert "<u>24.00</u>" in lines["z_1"]
    assert "**0.8000**" in lines["y"]
    assert "<u>0.7500</u>" in lines["z_1"]
    assert "0.7000" in lines["x"]
    assert "dpdd-8bit" in text
    tex = latex(table)
    assert r"\textbf{25.00}" in tex
    assert r"\underline{0.7500}" in tex
    assert r"z\_1" in tex
    assert tex.index(r"\toprule") < tex.index(r"\midrule") < tex.index(r"\bottomrule")
    rows = [line for line in tex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len({line.count("&") for line in rows}) == 1


def test_lower_is_better_for_errors():
    first, second = results("x", 25, 0.7), results("y", 25, 0.7)
    first["mean"]["mae"], second["mean"]["mae"] = 0.03, 0.01
    table = compare(found(first, second))
    assert table.ranks()[(1, Column("some_set test", "mae"))] == 0


def test_different_protocols_are_refused_in_one_column_unless_asked():
    items = found(results("x", 25, 0.7), results("y", 26, 0.8, "half-resolution"))
    with pytest.raises(UserError, match=r"under protocol 'half-resolution', but 0/results.json under 'dpdd-8bit'"):
        compare(items)
    table = compare(items, mix_protocols=True)
    assert table.ranks() == {}
    text = markdown(table)
    assert "half-resolution" in text.splitlines()[3]
    assert "values are not comparable" in text


def test_a_protocol_of_the_same_name_with_other_settings_is_another_one():
    other = results("y", 26, 0.8)
    other["protocol_settings"] = {**other["protocol_settings"], "downsize": 2}
    with pytest.raises(UserError, match="are not comparable"):
        compare(found(results("x", 25, 0.7), other))


def test_other_images_are_refused():
    with pytest.raises(UserError, match=r"on 1 images, but 0/results\.json on 2; of these, 1 are in one list only"):
        compare(found(results("x", 25, 0.7), results("y", 26, 0.8, names=("a",))))


def test_other_pixels_under_the_same_names_are_refused():
    small = {"sizes": {"5x3": 2}, "bit_depths": {"8": 2}, "pixels": "q", "published": None}
    items = found(results("x", 25, 0.7), results("y", 26, 0.8, scored=small))
    with pytest.raises(UserError, match=r"on other pixels than 0/results.json, .*set: 5x3, 8 bits; .*set: 9x6, 8 bits"):
        compare(items)


def test_copies_of_dpdd_are_not_compared_with_published_numbers():
    scored = {**results("x", 25, 0.7)["scored"], "published": "DPDD: 2 of the test split's 76 scenes"}
    with pytest.raises(UserError, match=r"results are on some_set test \(DPDD: 2 of the test split's 76 scenes\)"):
        compare(found(results("mine", 25.5, 0.78, scored=scored)), published=True)


def test_one_method_on_two_sets_is_one_row():
    table = compare(found(results("x", 25, 0.7), results("x", 26, 0.8, data="data/other")))
    assert len(table.rows) == 1
    assert table.rows[0].values[Column("other test", "psnr")] == 26
    assert "other test: PSNR" in markdown(table)


def test_the_same_method_twice_is_refused_and_other_weights_are_told_apart():
    once = results("x", 25, 0.7)
    with pytest.raises(UserError, match=r"the same method on the same data as 0/results\.json"):
        compare(found(once, copy.deepcopy(once)))
    other = results("x", 26, 0.8, model={**once["model"], "sha256": "0123456789"})
    labels = [row.label for row in compare(found(once, other)).rows]
    assert labels == ["x (xxxxxxxx)", "x (01234567)"]


def test_groups_are_columns_of_their_own():
    table = compare(found(results("x", 25, 0.7)), groups=True)
    assert table.rows[0].values[Column("some_set test, indoor", "psnr")] == 26
    assert Column("some_set test, indoor", "psnr") not in compare(found(results("x", 25, 0.7))).columns


def row_of(table, label):
    return next(row for row in table.rows if row.label == label)


def test_published_rows_are_marked_and_the_difference_is_to_the_same_network():
    table = compare(found(results("mine", 25.5, 0.78, "saved-png-8bit", names=DPDD)), published=True)
    text = markdown(table)
    assert "KPAC, single image †" in text
    assert "† Published: KPAC, single image: arXiv 2108.09108" in text
    assert "its authors' scripts save rounded 8-bit PNG files" in text
    ours = next(line for line in text.splitlines() if line.startswith("| mine"))
    assert "+0.26" in ours  # to 25.24
    assert "†" not in ours
    theirs = row_of(table, "KPAC, dual pixel")
    assert theirs.values[Column("DPDD test", "psnr")] == 25.82
    assert Column("DPDD test", "difference") not in theirs.values
    assert r"KPAC, dual pixel$^\dagger$" in latex(table)


def test_published_rows_are_sorted_and_name_their_protocols():
    table = compare(found(results("mine", 25.5, 0.78, names=DPDD)), published=True)
    psnr = [row.values[Column("DPDD test", "psnr")] for row in table.rows if row.source]
    assert psnr == sorted(psnr)
    assert [row.label for row in table.rows if not row.source] == ["blurred input", "mine"]
    cells = {
        line.split("|")[1].strip(): line.split("|")[2].strip() for line in markdown(table).splitlines() if "|" in line
    }
    assert cells["Restormer, dual pixel †"] == "dpdd-16bit"
    assert cells["GRL-B, dual pixel †"] == "unknown"
    assert cells["mine"] == "dpdd-8bit"


def test_only_rows_under_the_same_protocol_are_ranked_and_compared():
    table = compare(found(results("mine", 25.5, 0.78, names=DPDD)), published=True)
    ranked = {row.label for row in table.rows if row.ranked}
    # IFAN's crop to multiples of 8 removes nothing of DPDD's images.
    assert ranked == {"mine", "Restormer, single image", "IFAN, single image", "DPDNet, dual pixel, of 8-bit images"}
    psnr = Column("DPDD test", "psnr")
    best = [table.rows[index].label for (index, column), place in table.ranks().items() if column == psnr and not place]
    assert best == ["Restormer, single image"]
    assert Column("DPDD test", "difference") not in row_of(table, "mine").values  # KPAC's protocol is another one
    assert "unknown protocol are not ranked" in markdown(table)


def test_blurred_input_has_a_row_of_its_own_to_check_a_copy_of_the_data_with():
    ours = results("mine", 25.5, 0.78, names=DPDD)
    ours["input_mean"] = {"psnr": 23.9, "ssim": 0.72, "mae": 0.05}
    values = row_of(compare(found(ours), published=True), "blurred input").values
    assert values[Column("DPDD test", "psnr")] == 23.9


def test_published_groups_and_parameters_are_in_their_columns():
    table = compare(found(results("mine", 25.5, 0.78, names=DPDD)), groups=True, published=True)
    assert row_of(table, "JNB").printed[Column("DPDD test, outdoor", "psnr")] == "21.10"
    assert row_of(table, "INIKNet").values[Column("", "parameters")] == pytest.approx(1.98e6)
    without = compare(found(results("mine", 25.5, 0.78, names=DPDD)), published=True)
    assert Column("DPDD test, outdoor", "psnr") not in without.columns


def test_published_numbers_stay_with_their_set():
    with pytest.raises(UserError, match="published numbers are for DPDD test; these results are on some_set test"):
        compare(found(results("mine", 25.5, 0.78)), published=True)


def test_every_published_row_has_its_source_and_a_known_protocol():
    rows = published_rows()
    assert len({row.label for row in rows}) == len(rows)
    for row in rows:
        assert row.source
        assert row.printed
        if row.protocol != "unknown":
            find_protocol(row.protocol)
        assert set(row.networks) - {"Restormer"} <= set(kpac.models.registry.model_names())
    assert all(side % 16 == 0 for size in SIZES for side in size)


def test_csv_and_json_hold_the_exact_numbers():
    table = compare(found(results("mine", 25.123456, 0.78, names=DPDD)), published=True)
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(csv_text(table)))}
    assert {row["published"] for row in rows.values()} == {"yes", "no"}
    assert float(rows["mine"]["DPDD test psnr"]) == 25.123456
    assert float(rows["mine"]["parameters"]) == 1_500_000
    loaded = {row["method"]: row for row in json.loads(json_text(table))["rows"]}
    assert loaded["mine"]["values"]["DPDD test"]["psnr"] == 25.123456
    assert loaded["KPAC, dual pixel"]["source"].startswith("arXiv 2108.09108")


def test_published_numbers_keep_their_digits():
    table = compare(found(results("mine", 25.5, 0.78, names=DPDD)), published=True)
    for text in (markdown(table), latex(table), csv_text(table)):
        assert "0.774" in text
        assert "0.7740" not in text
        assert "0.800" in text
        assert "0.8000" not in text
    assert "0.7800" in markdown(table)  # ours


def with_scores(label: str, values: list[float]) -> dict:
    """Results whose images have these PSNR values."""
    item = results(label, sum(values) / len(values), 0.7, names=tuple(f"s{index}" for index in range(len(values))))
    for image, value in zip(item["images"], values, strict=True):
        image["psnr"] = value
    item["confidence"] = confidence(item["images"])
    return item


def test_intervals_are_those_of_the_results():
    items = found(with_scores("a", [24.0, 25.0, 26.0, 27.0]))
    table = compare(items, intervals=True)
    low, high = items[0][1]["confidence"]["interval"]["psnr"]
    assert f"25.50 [{low:.2f}, {high:.2f}]" in markdown(table)
    assert f"[{low:.2f}, {high:.2f}]" in latex(table)
    assert json.loads(json_text(table))["rows"][0]["values"]["some_set test"]["psnr interval"] == [low, high]
    assert "95% confidence interval" in markdown(table)
    assert "25.50 [" not in markdown(compare(items))


def test_paired_test_finds_a_small_difference_that_images_hide():
    generator = np.random.default_rng(0)
    base = generator.normal(25, 3, 40)
    better = base + generator.normal(0.1, 0.05, 40).clip(0.01)
    better[:3] = base[:3] - 0.02
    table = compare(found(with_scores("base", [*base]), with_scores("better", [*better])), paired_with="base")
    test = next(test for test in table.tests if test.quantity == "psnr")
    difference = test.difference
    assert difference.mean == pytest.approx((better - base).mean())
    assert 0.05 < difference.low < difference.mean < difference.high < 0.15
    assert (difference.improved, difference.images) == (37, 40)
    assert difference.p < 0.001
    text = markdown(table)
    assert "better - base" in text
    assert "37 of 40" in text
    assert "not corrected for several comparisons" in latex(table)
    assert json.loads(json_text(table))["tests"][0]["difference"]["improved"] == 37


def test_paired_test_of_equal_methods_finds_nothing():
    values = [24.0, 25.0, 26.0, 27.0]
    table = compare(found(with_scores("a", values), with_scores("b", values)), paired_with="a")
    assert {(test.difference.mean, test.difference.p, test.difference.improved) for test in table.tests} == {(0, 1, 0)}


def test_paired_comparison_with_a_method_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="no method is called 'bse'; did you mean 'base'"):
        compare(found(with_scores("base", [24.0, 25.0])), paired_with="bse")


def test_paragraph_says_data_protocol_versions_precision_and_device():
    lpips = {"package": "lpips 0.1.4", "version": "0.1", "backbone": "alex", "sha256": "feedbeef" * 8}
    environment = {"python": "3.11.2", "packages": {"torch": "2.15.0", "kpac": None}, "git": None}
    more = {"metrics": {"lpips": lpips}, "precision": "float32", "environment": environment}
    text = describe(found(results("mine", 25.5, 0.78, "drbnet", **more), results("theirs", 25, 0.7, "drbnet", **more)))
    for words in (
        "2 images of some_set test",
        "protocol drbnet",
        "8 bits per channel and used at full size and cropped to multiples of 16 pixels",
        "outputs are not clamped and not rounded",
        "uniform 7x7",
        "lpips 0.1.4 with the backbone alex (SHA-256 of its weights feedbeeffeed)",
        "mine (kpac_2level, SHA-256 of its weights mineminemine)",
        "CPU, 2 threads (float32) with Python 3.11.2, torch 2.15.0",
    ):
        assert words in text, words
    assert text.count("\n") == 1
    assert text.count("protocol drbnet") == 1


def test_notes_of_latex_stand_below_the_tabular_and_do_not_widen_it():
    table = compare(found(results("mine", 25.5, 0.78, names=DPDD)), published=True)
    table.notes.append("Mean ± sample standard deviation over the seeds, 100 % of them.")
    inside, _, below = latex(table).partition(r"\end{tabular}")
    assert "arXiv" not in inside
    assert r"$^\dagger$ Published: KPAC, single image: arXiv 2108.09108, as the public leaderboard" in below
    assert r"Mean $\pm$ sample standard deviation over the seeds, 100 \% of them." in below
    assert not set("±†") & set(latex(table))
    assert below.count("{") == below.count("}")


def test_infinite_psnr_is_json_that_any_parser_takes_and_comes_back(tmp_path):
    infinite = results("equal", math.inf, 1.0)
    write_json(tmp_path / "results.json", infinite)
    assert read_results(tmp_path) == infinite
    table = compare(found(infinite, results("x", 25, 0.7)))
    for text in (json_text(table), (tmp_path / "results.json").read_text()):
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert json.loads(json_text(table))["rows"][0]["values"]["some_set test"]["psnr"] == "Infinity"
    assert "**inf**" in markdown(table)


def test_latex_escapes_what_it_would_read():
    assert escape(r"a_b & 50% {x} \y") == r"a\_b \& 50\% \{x\} \textbackslash{}y"


@pytest.fixture
def evaluated(data_root, tmp_path) -> Path:
    """A folder with the results of two networks, and their images."""
    for seed in range(2):
        torch.manual_seed(seed)
        weights = tmp_path / f"network{seed}.safetensors"
        kpac.save_model(kpac.create_model("kpac_2level", width=4 + 2 * seed, blocks=1), weights)
    arguments = [str(tmp_path / f"network{seed}.safetensors") for seed in range(2)]
    output = ["--output", str(tmp_path / "results"), "--save-images", "--device", "cpu"]
    assert main(["evaluate", *arguments, "--data", str(data_root), *output]) == 0
    return tmp_path / "results"


def test_several_models_are_evaluated_and_tabled_from_the_command_line(evaluated, tmp_path, capsys):
    assert sorted(path.name for path in evaluated.iterdir()) == ["network0-data set", "network1-data set"]
    capsys.readouterr()
    assert main(["table", str(evaluated)]) == 0
    printed = capsys.readouterr().out
    assert "| network0" in printed
    assert "| network1" in printed
    assert main(["table", str(evaluated), "--output", str(tmp_path / "table.tex")]) == 0
    assert (tmp_path / "table.tex").read_text().startswith("% needs")
    assert main(["table", str(tmp_path / "gone")]) == 2
    assert main(["table", str(evaluated), "--output", "table.docx"]) == 2
    assert "expected one of .md, .tex, .csv, .json" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["comparison"], ["errors", "--crops", "2"], ["scatter", "--cost", "parameters"]])
def test_figures_are_png_and_pdf(arguments, evaluated, tmp_path):
    crop = [] if arguments[0] == "scatter" else ["--crop", "24"]
    assert main(["figure", *arguments, *crop, str(evaluated), "--output", str(tmp_path / "figure")]) == 0
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_results_name_their_data_for_any_working_directory(data_root, tmp_path, monkeypatch):
    weights = tmp_path / "net.safetensors"
    kpac.save_model(kpac.create_model("kpac_2level", width=4, blocks=1), weights)
    kpac.save_model(kpac.create_model("kpac_2level", width=6, blocks=1), tmp_path / "other.safetensors")
    monkeypatch.chdir(data_root.parent)
    words = ["--save-images", "--device", "cpu", "--output"]
    assert main(["evaluate", str(weights), "--data", data_root.name, *words, str(tmp_path / "a")]) == 0
    other = str(tmp_path / "other.safetensors")
    assert main(["evaluate", other, "--data", str(data_root), *words, str(tmp_path / "b")]) == 0
    assert f"# net on {data_root.name}, test split" in (tmp_path / "a" / "report.md").read_text()
    monkeypatch.chdir(tmp_path)
    for folder in "ab":
        assert json.loads((tmp_path / folder / "results.json").read_text())["data"] == str(data_root.resolve())
    assert main(["figure", "comparison", "a", "b", "--output", "sheet.png", "--crop", "24"]) == 0


def test_mistakes_in_figures_are_one_line(evaluated, tmp_path, capsys):
    figure = ["figure", "comparison", str(evaluated), "--output", str(tmp_path / "figure.pdf")]
    for extra, words in (
        (["--scene", "gone"], "no scene is called 'gone'"),
        (["--box", "70,0,40,40"], "exceeds scene"),
    ):
        capsys.readouterr()
        assert main([*figure, *extra]) == 2
        assert words in capsys.readouterr().err
    path = evaluated / "network1-data set" / "results.json"
    whole = json.loads(path.read_text())
    for change, words in (
        ({"images": whole["images"][1:]}, f"scene '{whole['images'][0]['name']}' was not scored"),
        ({"data": str(tmp_path)}, f"network1-data set/results.json: scored on {tmp_path.name} test ("),
    ):
        path.write_text(json.dumps(whole | change))
        assert main(figure) == 2
        assert words in capsys.readouterr().err
    for key in ("data_set", "layout"):
        path.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        for command in (figure, ["table", str(evaluated)]):
            assert main(command) == 2
            assert f"results.json: has no '{key}'; expected a whole results.json" in capsys.readouterr().err
    path.write_text(json.dumps(whole))
    for image in (evaluated / "network1-data set" / "images").iterdir():
        image.unlink()
    assert main(figure) == 2
    assert "was not kept; evaluate again with --save-images" in capsys.readouterr().err
    assert not (tmp_path / "figure.pdf").exists()
