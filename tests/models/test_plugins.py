"""A network from outside trains and evaluates here: the example of docs/your_network.md, as it is printed there."""

import json
import re
import sys
from pathlib import Path

import pytest

from kpac import UserError
from kpac.cli import main
from kpac.models import registry

DOCUMENT = Path(__file__).parents[2] / "docs" / "your_network.md"


@pytest.fixture
def forget_plugins():
    yield
    registry._networks.pop("residual_cnn", None)
    for name in [name for name in sys.modules if name.startswith("kpac_plugin_")]:
        del sys.modules[name]


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1]


def test_documented_example_trains_and_evaluates(tmp_path, config_file, data_root, capsys, monkeypatch, forget_plugins):
    monkeypatch.chdir(tmp_path)
    Path("my_network.py").write_text(block("python"))
    Path("my_network.yaml").write_text(block("yaml").replace("configs/quickstart.yaml", str(config_file)))
    assert len(block("python").splitlines()) <= 22
    assert main(["train", "my_network.yaml", "train.iterations=2"]) == 0
    run = str(tmp_path / "runs" / "residual_cnn")
    assert main(["evaluate", run, "--plugin", "my_network.py", "--data", str(data_root), "--output", "results"]) == 0
    assert json.loads(Path("results/results.json").read_text())["model"]["options"] == {"channels": 24, "depth": 3}
    capsys.readouterr()
    assert main(["info", "my_network.yaml", "--size", "8x8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["macs"] == 64 * 9 * (3 * 24 + 24 * 24 + 24 * 3)


def test_missing_plugin_is_named():
    with pytest.raises(UserError, match=r"plugins: gone.py: no such file"):
        registry.load_plugins(["gone.py"])
    with pytest.raises(UserError, match="no module 'kpac_gone'"):
        registry.load_plugins(["kpac_gone"])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import torch\nclass Network(\n", r"SyntaxError: .*\(mine.py, line 2\)"),
        ("import torch\nimport kpac_gone\n", r"no module 'kpac_gone', which '.*mine.py' needs"),
        ("from kpac.models import nothing\n", "mine.py: line 1: ImportError: cannot import name 'nothing'"),
        ("import kpac\n\nundefined(3)\n", "mine.py: line 3: NameError: name 'undefined' is not defined"),
    ],
)
def test_error_in_a_plugin_is_one_line_with_its_place(tmp_path, capsys, code, words):
    path = tmp_path / "mine.py"
    path.write_text(code)
    assert main(["info", str(DOCUMENT.parents[1] / "configs" / "quickstart.yaml"), "--plugin", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kpac: plugins: ")
    assert re.search(words, line)


def test_entry_point_is_found_by_its_name(monkeypatch, tmp_path, forget_plugins):
    (tmp_path / "outside.py").write_text(block("python"))
    metadata = tmp_path / "outside-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[kpac.networks]\nresidual_cnn = outside\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.create_model("residual_cnn").views == ("center",)
    del sys.modules["outside"]
