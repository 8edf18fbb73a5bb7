"""A configuration is what its file says, or an error that names the mistake."""

import json
import re
from pathlib import Path

import pytest
import yaml

from kpac.config import Config, dump_config, load_config
from kpac.errors import UserError
from kpac.models.registry import config_schema, resolve_model

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
SWEEPS_AND_COMPARISONS = {"base", "methods"}
SHIPPED = [path for path in CONFIGS if not SWEEPS_AND_COMPARISONS & yaml.safe_load(path.read_text()).keys()]
MINIMAL = "name: x\ndata: {root: d}\ntrain: {iterations: 10}\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def load(path: Path, *overrides: str) -> Config:
    return resolve_model(load_config(path, overrides))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configuration_is_valid(path):
    assert load(path).name


def test_child_changes_what_it_states_and_keeps_the_rest(tmp_path):
    write(tmp_path / "parent.yaml", MINIMAL + "model: {width: 8, blocks: 3}\nseed: 5\n")
    (tmp_path / "sub").mkdir()
    child = write(tmp_path / "sub" / "child.yaml", "extends: ../parent.yaml\nmodel: {width: 12}\n")
    config = load(child)
    assert (config.seed, config.model.options["width"], config.model.options["blocks"]) == (5, 12, 3)


def test_tilde_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "parent.yaml", "name: x\ndata: {root: ~/photos, cache: ~/cache}\ntrain: {iterations: 10}\n")
    child = write(tmp_path / "child.yaml", "extends: ~/parent.yaml\nruns: ~/runs\n")
    config = load(child, "train.initial_weights=~/a.safetensors")
    assert (config.data.root, config.data.cache) == (tmp_path / "photos", tmp_path / "cache")
    assert (config.runs, config.train.initial_weights) == (tmp_path / "runs", tmp_path / "a.safetensors")


def test_naming_another_network_drops_the_parents_options(tmp_path):
    write(tmp_path / "parent.yaml", MINIMAL + "model: {width: 8}\n")
    child = write(tmp_path / "child.yaml", "extends: parent.yaml\nmodel: {name: kpac_3level}\n")
    assert load(child).model.options["width"] == 48


def test_override_changes_its_key_and_nothing_beside_it(tmp_path):
    path = write(tmp_path / "a.yaml", MINIMAL + "model: {width: 8}\n")
    for overrides in (["model.width=12", "model.name=kpac_dual"], ["model.name=kpac_dual", "model.width=12"]):
        assert load(path, *overrides).model.options["width"] == 12
    assert load(path, "model.name=kpac_dual").model.options["width"] == 8
    losses = write(tmp_path / "b.yaml", MINIMAL.replace("10}", "10, losses: {l1: 1.0, other: 2.0}}"))
    assert load(losses, "train.losses.l1=0.5").train.losses == {"l1": 0.5, "other": 2.0}
    assert load(losses, "train.losses={l1: 3}").train.losses == {"l1": 3.0}


def test_child_states_its_own_losses(tmp_path):
    write(tmp_path / "parent.yaml", MINIMAL.replace("10}", "10, losses: {other: 2.0}}"))
    child = write(tmp_path / "child.yaml", "extends: parent.yaml\ntrain: {losses: {l1: 1.0}}\n")
    assert load(child).train.losses == {"l1": 1.0}


def test_override_wins_over_files(tmp_path):
    config = load(write(tmp_path / "a.yaml", MINIMAL), "train.iterations=500", "model.dilations=[1, 3]")
    assert config.train.iterations == 500
    assert config.model.options["dilations"] == (1, 3)


def test_dumped_configuration_reads_back_as_it_was(tmp_path):
    config = load(write(tmp_path / "a.yaml", MINIMAL), "train.optimizer.learning_rate=3e-4")
    again = load(write(tmp_path / "b.yaml", dump_config(config)))
    assert again.model_dump() == config.model_dump()


def test_exponent_without_a_point_is_a_number(tmp_path):
    path = write(tmp_path / "a.yaml", MINIMAL.replace("10}", "10, optimizer: {learning_rate: 2e-3}}"))
    assert load(path).train.optimizer.learning_rate == 0.002


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("", ["train.itertions=5"], ["train.itertions", "did you mean 'train.iterations'"]),
        ("", ["model.widht=5"], ["model.widht", "did you mean 'model.width'"]),
        ("modle: {}\n", [], ["modle", "did you mean 'model'", "a.yaml"]),
        ("model: {dilations: [0]}\n", [], ["a.yaml", "model.dilations.0", "greater than or equal to 1", "found 0"]),
        ("model: {dilations: []}\n", [], ["model.dilations", "at least 1"]),
        ("model: {kernel_size: 4}\n", [], ["model.kernel_size", "odd", "found 4"]),
        ("model: {blocks: -1}\n", [], ["model.blocks", "found -1"]),
        ("model: {name: kpac_2levels}\n", [], ["model.name", "did you mean 'kpac_2level'"]),
        ("seed: many\n", [], ["seed", "integer", "found 'many'"]),
        ("", ["train.optimizer.learning_rate=-1"], ["train.optimizer.learning_rate", "greater than 0", "found -1"]),
        ("", ["data.augment.flpi=true"], ["data.augment.flpi", "did you mean 'data.augment.flip'"]),
        ("", ["data.augment.scale.rang=[1, 1]"], ["did you mean 'data.augment.scale.range'"]),
        ("", ["data={rot: d}"], ["unknown key 'data.rot'", "did you mean 'data.root'"]),
        ("", ["data.augment.scale.probability=0.5"], ["'data.augment.scale.range' is missing"]),
        (
            "",
            ["data.augment.scale={range: [1, 0.7], probability: 1}"],
            ["data.augment.scale.range", "smaller value first"],
        ),
        ("", ["data.augment.scale={range: [0.7, 1.2], probability: 1}"], ["data.augment.scale.range.1", "found 1.2"]),
        ("", ["data.augment.gray=true"], ["data.augment.gray", "number", "found True"]),
        ("", ["data.augment.gray=30"], ["data.augment.gray", "less than or equal to 1", "found 30"]),
        (
            "",
            ["train.progressive=[{until: 5, crops: 5, batch_size: 2}]"],
            ["unknown key 'train.progressive.0.crops'", "did you mean 'train.progressive.0.crop'"],
        ),
        ("", ["train.iterations"], ["train.iterations", "key=value"]),
        ("seed: 1\nseed: 2\n", [], ["a.yaml:5", "'seed' is given twice"]),
        ("Model: {}\n", [], ["a.yaml", "Model", "did you mean 'model'"]),
        ("[1, 2]: 3\n", [], ["a.yaml", "unhashable key"]),
        ("model: {shape_pooling: {windo: [8, 8]}}\n", [], ["model.shape_pooling"]),
        ("model: {shape_pooling: {window: [8, 0]}}\n", [], ["model.shape_pooling.window.1", "found 0"]),
        ("model: {shape_pooling: {window: [8, 8], size: 1}}\n", [], ["model.shape_pooling.size", "window"]),
        ("runs: 2024-13-45\n", [], ["a.yaml", "not valid YAML"]),
        ("model: 5\n", [], ["'model'", "found 5"]),
        ("", ["seed.x=1"], ["'seed'", "integer"]),
        ("extends: gone.yaml\n", [], ["gone.yaml", "no such file"]),
        ("extends: b.yaml\n", [], ["a.yaml: extends ", "b.yaml: no such file"]),
        ("extends: [1, 2]\n", [], ["a.yaml: 'extends' should be the path of one YAML file, found [1, 2]"]),
        ("", ["train.iterations=true"], ["'train.iterations' should be a number, found True"]),
        ("", ["model.dilations=[1, true]"], ["'model.dilations' should be a number, found [1, True]"]),
        ("", ["train=5"], ["'train' should be a section of keys and values, found 5"]),
        ("", ["train.losses=l1"], ["'train.losses' should be a section of keys and values, found 'l1'"]),
        ("", ["train.losses={}"], ["'train.losses' should have at least 1 item, found {}"]),
        ("", ["name=-x"], ["'name' should start with a letter or a digit", "found '-x'"]),
        ("", ["data.root=5"], ["'data.root' should be a path, found 5"]),
        ("extends: a.yaml\n", [], ["a.yaml", "leads back"]),
        ("a: [\n", [], ["a.yaml", "not valid YAML"]),
    ],
)
def test_mistake_is_named_in_one_line(tmp_path, text, overrides, words):
    path = write(tmp_path / "a.yaml", MINIMAL + text)
    with pytest.raises(UserError) as error:
        load(path, *overrides)
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_nearest_file_is_not_the_one_that_extends(tmp_path):
    write(tmp_path / "quickstart.yaml", MINIMAL)
    path = write(tmp_path / "quickstarts.yaml", "extends: quickstart2.yaml\n")
    with pytest.raises(UserError, match=r"quickstarts.yaml: extends .*did you mean '.*/quickstart.yaml'"):
        load(path)


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_empty_file_is_said_to_be_empty(tmp_path, text):
    with pytest.raises(UserError, match=r"a.yaml: expected sections such as .*, found nothing"):
        load(write(tmp_path / "a.yaml", text))


@pytest.mark.parametrize(
    ("text", "overrides", "place"),
    [
        ("name: x\ntrain: {iterations: 5}\n", ["train.batch_size=2"], "a.yaml: the key 'data' is missing"),
        ("name: x\ntrain: {iterations: 5}\ndata: {}\n", [], "a.yaml: the key 'data.root' is missing"),
        (
            MINIMAL,
            ["data.augment.noise.probability=1"],
            "override '.*': the key 'data.augment.noise.deviation' is missing",
        ),
    ],
)
def test_missing_key_names_the_place_that_lacks_it(tmp_path, text, overrides, place):
    with pytest.raises(UserError, match=place):
        load(write(tmp_path / "a.yaml", text), *overrides)


def test_missing_key_is_named(tmp_path):
    with pytest.raises(UserError, match=r"'data' is missing|'data.root' is missing"):
        load(write(tmp_path / "a.yaml", "name: x\ntrain: {iterations: 10}\n"))


def test_json_schema_knows_every_section_and_the_networks_options():
    schema = config_schema()
    assert {"extends", "name", "model", "data", "train", "validation"} <= set(schema["properties"])
    networks = {choice["properties"]["name"]["const"]: choice for choice in schema["$defs"]["ModelConfig"]["anyOf"]}
    assert "dilations" in networks["kpac_2level"]["properties"]
    assert schema["$defs"]["DataConfig"]["additionalProperties"] is False
    assert not re.search(r'"required"', json.dumps(schema))
    for reference in re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)):
        assert reference in schema["$defs"]
    assert yaml.safe_load(yaml.safe_dump(schema)) == schema
