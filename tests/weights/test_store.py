"""Weights by name: found, checked, downloaded once, and never taken for others."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml

import kpac
from kpac.cli import main
from kpac.errors import UserError
from kpac.images import from_float, read_pixels, to_float, write_pixels
from kpac.models.weights import save_model
from kpac.weights.store import DEFAULTS, default_weights, find_weights, known_weights
from tests.conftest import texture


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return kpac.create_model("kpac_2level", width=4, blocks=1)


@pytest.fixture
def server(tmp_path):
    """The URL of a server on this machine, of the folder `served`."""
    (tmp_path / "served").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def manifest(tmp_path, server, network, monkeypatch):
    """A manifest with one entry, "tiny", which the server has."""
    monkeypatch.delenv("KPAC_OFFLINE")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    file = tmp_path / "served" / "tiny.safetensors"
    save_model(network, file, torch.float16)
    path = tmp_path / "manifest.yaml"
    entry = {
        "summary": "small",
        "url": f"{server}/tiny.safetensors",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    path.write_text(yaml.safe_dump({"tiny": entry}))
    return path


def test_downloaded_once_and_loaded(manifest, tmp_path, network):
    path = find_weights("tiny", manifest)
    (tmp_path / "served" / "tiny.safetensors").unlink()
    assert find_weights("tiny", manifest) == path
    loaded = kpac.load_model(path).state_dict()
    for name, tensor in network.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.half().float())


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: content[:-1] + b"!", lambda _: b""])
def test_truncated_or_other_download_is_refused_and_not_kept(manifest, tmp_path, damage):
    file = tmp_path / "served" / "tiny.safetensors"
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.raises(UserError, match="the download is incomplete or another file"):
        find_weights("tiny", manifest)
    file.write_bytes(whole)
    assert kpac.load_model(find_weights("tiny", manifest)).config["width"] == 4


def test_server_that_does_not_answer_is_one_line(manifest, tmp_path):
    (tmp_path / "served" / "tiny.safetensors").unlink()
    with pytest.raises(UserError, match=r"tiny.safetensors: cannot be downloaded \(.*\); save it by"):
        find_weights("tiny", manifest)


def test_download_is_forbidden_offline(manifest, monkeypatch):
    monkeypatch.setenv("KPAC_OFFLINE", "1")
    with pytest.raises(UserError, match="no such file, and KPAC_OFFLINE forbids"):
        find_weights("tiny", manifest)


def test_file_with_another_hash_is_refused(manifest):
    path = find_weights("tiny", manifest)
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"not the weights called 'tiny': expected SHA-256 \w{12}, found \w{12}; "):
        find_weights("tiny", manifest)


def test_unknown_name_names_the_nearest(manifest):
    with pytest.raises(UserError, match=r"tinny: no such .*, and no weights of this name; did you mean 'tiny'"):
        find_weights("tinny", manifest)


@pytest.mark.parametrize("name", known_weights())
def test_shipped_weights_load_and_have_a_card(name):
    entry = known_weights()[name]
    assert entry.url or entry.path.is_file()
    assert entry.path.stat().st_size < 6e6
    assert "not trained on DPDD" in " ".join(entry.card.read_text().split())
    assert kpac.load_model(name).config["name"] == name.partition("-")[0]


def test_no_default_for_views_without_weights():
    with pytest.raises(UserError, match="for a network that reads left, right; name a model"):
        default_weights(("left", "right"))


@pytest.mark.parametrize("views", DEFAULTS)
def test_default_weights_read_the_views_they_are_for(views):
    assert kpac.load_model(default_weights(views)).views == views


def test_command_lists_and_prints_cards(capsys):
    assert main(["weights"]) == 0
    listed = capsys.readouterr().out
    assert all(line.startswith(name) for line, name in zip(listed.splitlines(), known_weights(), strict=True))
    name = default_weights()
    assert main(["weights", name]) == 0
    assert capsys.readouterr().out == known_weights()[name].card.read_text()
    assert main(["weights", name[:-1]]) == 2
    assert f"did you mean '{name}'" in capsys.readouterr().err


def test_photograph_is_restored_inspected_and_scored_without_naming_a_model(tmp_path, data_root, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pixels(tmp_path / "photo.png", from_float(texture(40, 56, 0), 8))
    assert main(["restore", "photo.png", "-o", "restored.png", "--device", "cpu"]) == 0
    assert f"no model was given: using {default_weights()}" in capsys.readouterr().err
    expected = kpac.Restorer(kpac.load_model(default_weights()), device="cpu")(to_float(read_pixels("photo.png")))
    assert (read_pixels("restored.png") == from_float(expected, 8)).all()
    assert main(["inspect", "photo.png", "-o", "sheets", "--device", "cpu"]) == 0
    assert (tmp_path / "sheets" / "photo.png").is_file()
    assert main(["evaluate", "--data", str(data_root), "--device", "cpu"]) == 0
    assert list(tmp_path.glob(f"results/{default_weights()}/*/results.json"))


def test_dual_pixel_views_are_restored_and_inspected_without_naming_a_model(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    views = {name: texture(40, 56, seed) for seed, name in enumerate(("center", "left", "right"))}
    for name, image in views.items():
        write_pixels(tmp_path / f"{name}.png", from_float(image, 8))
    default = default_weights(("center", "left", "right"))
    others = ["--left", "left.png", "--right", "right.png", "--device", "cpu"]
    assert main(["restore", "center.png", "-o", "restored.png", *others]) == 0
    assert f"no model was given: using {default}" in capsys.readouterr().err
    arrays = [to_float(read_pixels(f"{name}.png")) for name in views]
    expected = kpac.Restorer(kpac.load_model(default), device="cpu")(*arrays)
    assert (read_pixels("restored.png") == from_float(expected, 8)).all()
    assert main(["inspect", "center.png", "-o", "sheets", *others]) == 0
    assert f"no model was given: using {default}" in capsys.readouterr().err
