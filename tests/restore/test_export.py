"""An exported file gives what the model gives, for any size, without this package."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import kpac
from kpac.cli import main
from kpac.errors import UserError
from kpac.restore import export
from tests.models import golden
from tests.test_cli import fails
from tests.test_docs import code_of_readme

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIZES = [(64, 64), (37, 50), (121, 83), (200, 9), (1, 1), (4, 4), (3, 40), (40, 2), (8, 8)]


def small(name: str = "kpac_2level", **options) -> torch.nn.Module:
    return golden.randomize(kpac.create_model(name, width=4, blocks=1, **options))


@pytest.mark.parametrize("name", ["kpac_2level", "kpac_3level", "kpac_dual"])
def test_onnx_file_takes_any_size(tmp_path, name):
    model = small(name)
    assert export.export_model(model, tmp_path / "m.onnx") < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for size in SIZES:
        views = torch.rand(1, 3 * len(model.views), *size)
        with torch.no_grad():
            expected = model(views).numpy()
        (restored,) = session.run(None, {"views": views.numpy()})
        np.testing.assert_allclose(restored, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["kpac_2level", "kpac_3level", "kpac_dual"])
def test_pt2_file_takes_any_size(tmp_path, name):
    model = small(name)
    assert export.export_model(model, tmp_path / "m.pt2") < 1e-5
    program = torch.export.load(tmp_path / "m.pt2").module()
    smallest = 1 if hasattr(export.size_settings, export.ANY_SIZE) else model.multiple + 1
    for size in SIZES:
        if min(size) < smallest:
            continue
        views = torch.rand(1, 3 * len(model.views), *size)
        with torch.no_grad():
            torch.testing.assert_close(program(views), model(views), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"block": "plain"}, {"scale_attention": False, "shape_attention": False}], ids=str)
def test_ablated_networks_export(tmp_path, options):
    assert export.export_model(small(**options), tmp_path / "m.onnx") < 1e-5


def test_extension_in_the_graph_is_the_networks(monkeypatch):
    model = small("kpac_3level")
    for size in [(1, 1), (2, 30), (7, 9), (8, 16), (13, 41)]:
        views = torch.rand(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(export.Exportable(model)(views), model(views))


def test_file_that_differs_is_not_written(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "_run_pt2", lambda path: lambda views: views[:, :3] + 0.5)
    with pytest.raises(UserError, match="differs from the model by"):
        export.export_model(small(), tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_file_that_refuses_a_size_is_not_written(monkeypatch, tmp_path):
    def refuse(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("Guard failed: a size")

    monkeypatch.setattr(export, "_run_pt2", lambda _: refuse)
    with pytest.raises(UserError, match=r"m.pt2: does not take every size \(Guard failed.*\); export .onnx"):
        export.export_model(small(), tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_exported_file_needs_onnxruntime_alone(capsys, tmp_path):
    kpac.save_model(small(), tmp_path / "m.safetensors")
    assert main(["export", str(tmp_path / "m.safetensors"), str(tmp_path / "kpac.onnx")]) == 0
    assert "differs from PyTorch by" in capsys.readouterr().err
    code = code_of_readme("import onnxruntime") + (
        "import sys\n"
        "print(restored.shape, restored.min() >= 0, restored.max() <= 1)\n"
        "print('torch' in sys.modules, 'kpac' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.stdout.splitlines() == ["(300, 451, 3) True True", "False False"], run.stderr


def test_mistakes_are_one_line(capsys, tmp_path):
    weights = tmp_path / "m.safetensors"
    kpac.save_model(small(), weights)
    assert "ends in .onnx or .pt2" in fails(capsys, "export", weights, tmp_path / "m.tflite")
    (tmp_path / "m.onnx").write_text("precious")
    assert "--overwrite replaces it" in fails(capsys, "export", weights, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "precious"
    assert "no such file or folder" in fails(capsys, "export", tmp_path / "gone", tmp_path / "n.onnx")


def test_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"'onnxscript': pip install 'kpac\[export\]'"):
        export.export_model(small(), tmp_path / "m.onnx")


def test_pt2_file_runs_on_the_device_that_its_input_is_on(tmp_path):
    """A device that is written into the graph fails on any other; tensors of the meta device stand for a GPU's here."""
    export.export_model(small(), tmp_path / "m.pt2")
    program = torch.export.load(tmp_path / "m.pt2")
    named = [node for node in program.graph.nodes if "device" in node.kwargs]
    assert named == []
    assert program.module().to("meta")(torch.empty(1, 3, 37, 50, device="meta")).shape == (1, 3, 37, 50)
