"""A sweep file says which runs there are, and a mistake in it is one line before anything starts."""

from pathlib import Path

import pytest

from kpac.config import load_config
from kpac.errors import UserError
from kpac.experiments.sweep import load_sweep
from kpac.models.registry import create_model
from kpac.training.optim import parameter_groups

CONFIGS = Path(__file__).parents[2] / "configs" / "ablation"


def test_grid_has_every_combination_with_every_seed(config_file, tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        f"name: grid\nbase: {config_file.name}\nseeds: [3, 4]\n"
        "axes: {model.blocks: [1, 2], model.share_kernel: [true, false]}\n"
    )
    sweep = load_sweep(path, ["train.batch_size=4"])
    assert sweep.labels == [
        f"blocks {blocks}, share_kernel {shared}" for blocks in (1, 2) for shared in ("true", "false")
    ]
    found = [
        (run.config.model.options["blocks"], run.config.model.options["share_kernel"], run.config.seed)
        for run in sweep.runs
    ]
    assert found == [(blocks, shared, seed) for blocks in (1, 2) for shared in (True, False) for seed in (3, 4)]
    assert {run.config.train.batch_size for run in sweep.runs} == {4}
    assert len({run.folder for run in sweep.runs}) == 8
    assert {run.folder.parent for run in sweep.runs} == {load_config(config_file).runs / "grid"}


def test_words_of_a_run_give_its_configuration(sweep_file):
    for run in load_sweep(sweep_file).runs:
        file, *overrides = run.words
        found = load_config(file, overrides)
        assert (found.folder, found.seed, found.model.options["blocks"]) == (
            run.folder,
            run.config.seed,
            run.config.model.options["blocks"],
        )


def test_points_have_names_of_their_own(config_file, tmp_path):
    path = tmp_path / "points.yaml"
    path.write_text(
        f"name: points\nbase: {config_file}\npoints: {{all of it: {{}}, no sharing: {{model.share_kernel: false}}}}\n"
    )
    sweep = load_sweep(path)
    assert sweep.labels == ["all of it", "no sharing"]
    assert [run.folder.name for run in sweep.runs] == ["all-of-it", "no-sharing"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("axes: {model.blokcs: [1]}", "unknown key 'model.blokcs'; did you mean 'model.blocks'"),
        ("axes: {model.blocks: [1, -1]}", "model.blocks"),
        ("axis: {model.blocks: [1]}", "unknown key 'axis'; did you mean 'axes'"),
        ("seeds: [1]", "expected either 'axes' or 'points'"),
        ("axes: {model.blocks: [1]}\npoints: {a: {}}", "expected either 'axes' or 'points'"),
        ("axes: {model.blocks: []}", "axes.model.blocks"),
        ("axes: {model.blocks: [1]}\nseeds: [0, 0]", "each seed once"),
        ("points: {a b: {}, a-b: {}}", "two runs would have the name 'a-b'"),
        ("axes: {model.blocks: [1]}\nevaluation: {protocol: dpdd-8bits}", "did you mean 'dpdd-8bit'"),
    ],
)
def test_mistakes_are_one_line(text, words, config_file, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(f"name: bad\nbase: {config_file}\n{text}\n")
    with pytest.raises(UserError) as caught:
        load_sweep(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


SWEEPS = [path for path in sorted(CONFIGS.glob("*.yaml")) if not path.stem.endswith("_base")]


def test_every_kind_of_sweep_exists_for_dpdd_and_for_the_quickstart():
    kinds = {"blocks", "kernel_sharing", "attention", "dilations", "kernel_size"}
    assert {path.stem for path in SWEEPS} == kinds | {f"quickstart_{kind}" for kind in kinds} | {"synthetic", "recipe"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweeps_are_valid_and_their_groups_match(path):
    sweep = load_sweep(path)
    assert len(sweep.labels) >= 3
    roots = {"quickstart": ["quickstart"], "synthetic": ["synthetic_waves"]}
    roots["recipe"] = ["waves", "objects", "lens", "aperture", "camera", "jpeg"]
    found = {run.config.data.root.name for run in sweep.runs}
    assert found == set(roots.get(path.stem.partition("_")[0], ["dd_dp_dataset_canon"]))
    for run in {run.label: run for run in sweep.runs}.values():
        network = create_model(run.config.model.name, **{**run.config.model.options, "width": 4})
        assert parameter_groups(network, run.config.train.optimizer)
