"""What `create_model` makes is plain PyTorch: whatever works on modules works on it, and nothing else is needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.func import functional_call, grad, vmap

import kpac
from kpac import create_model, load_model, save_model
from kpac.errors import UserError
from tests.models import golden

ROOT = Path(kpac.__file__).parent

WITHOUT_NUMBA = """
import pkgutil, sys
from importlib import import_module

sys.modules["numba"] = sys.modules["llvmlite"] = None  # importing either raises ImportError

import torch
import kpac, kpac.models
for module in pkgutil.walk_packages(kpac.models.__path__, "kpac.models."):
    import_module(module.name)
assert not any(name.startswith("kpac.cpu") for name in sys.modules)
for name in ("kpac_2level", "kpac_3level", "kpac_dual"):
    model = kpac.create_model(name, width=4)
    model(torch.rand(1, 3 * len(model.views), 9, 10)).sum().backward()
    kpac.save_model(model, "model.safetensors")
    kpac.load_model("model.safetensors")

import numpy as np
restored = kpac.Restorer(model, device="cpu")(*np.random.rand(3, 9, 10, 3).astype(np.float32))
kpac.Restorer(model, device="cpu")
print(restored.shape)
"""


@pytest.fixture
def model() -> torch.nn.Module:
    return golden.randomize(create_model("kpac_2level", width=4, blocks=1)).double()


@pytest.fixture
def views() -> torch.Tensor:
    return torch.rand(2, 3, 8, 8, dtype=torch.float64)


def test_numba_is_not_needed(tmp_path):
    command = [sys.executable, "-c", WITHOUT_NUMBA]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "(9, 10, 3)\n"
    (line,) = done.stderr.splitlines()  # said once, for two restorers
    assert "pip install 'kpac[cpu]'" in line


def test_models_know_nothing_of_the_acceleration_and_three_places_call_it():
    callers = {
        path.relative_to(ROOT).parts[0]
        for path in ROOT.rglob("*.py")
        if re.search(r"^ *(from|import) kpac\.cpu", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert callers - {"cpu", "commands"} == {"restore", "training", "evaluation"}


def test_gradients_of_each_image_by_torch_func(model, views):
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        return functional_call(model, parameters, (image[None],)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, views)
    total = torch.autograd.grad(model(views).square().sum(), list(parameters.values()))
    for one, expected in zip(each.values(), total, strict=True):
        torch.testing.assert_close(one.sum(dim=0), expected)


def test_second_derivatives(model, views):
    x = views[:1].requires_grad_()
    (first,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    direction = torch.randn_like(x)
    (second,) = torch.autograd.grad((first * direction).sum(), x)
    step = 1e-6

    def gradient(at: torch.Tensor) -> torch.Tensor:
        at = at.detach().requires_grad_()
        return torch.autograd.grad(model(at).square().sum(), at)[0]

    expected = (gradient(x + step * direction) - gradient(x - step * direction)) / (2 * step)
    torch.testing.assert_close(second, expected, atol=1e-3, rtol=1e-4)


def test_hooks_of_every_layer_are_called(model, views):
    called = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    model(views)
    containers = (torch.nn.ModuleList, torch.nn.ParameterList)
    assert called == {name for name, module in model.named_modules() if not isinstance(module, containers)}


def test_compiling_and_exporting(model, views):
    with torch.no_grad():
        expected = model(views)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(views), expected)
        exported = torch.export.export(model, (views,))
        torch.testing.assert_close(exported.module()(views), expected)


def test_option_of_earlier_versions_is_ignored_in_weights_and_explained_elsewhere(tmp_path):
    model = create_model("kpac_2level", width=4)
    model.config["fast"] = False
    save_model(model, tmp_path / "old.safetensors")
    assert "fast" not in load_model(tmp_path / "old.safetensors").config
    with pytest.raises(UserError, match=r"unknown key 'model.fast'.*train\.compute\.accelerate"):
        create_model("kpac_2level", fast=True)
