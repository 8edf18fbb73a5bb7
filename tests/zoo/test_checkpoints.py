"""Published checkpoints of other networks are recognized, equal a direct call, and are refused in one line."""

import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import kpac
from kpac.cli import main
from kpac.errors import UserError
from kpac.evaluation.results import read_results
from kpac.zoo import checkpoints
from kpac.zoo.checkpoints import load_zoo_model

spandrel = pytest.importorskip("spandrel")


def nafnet(seed: int = 0) -> nn.Module:
    from spandrel.architectures.NAFNet import NAFNet

    torch.manual_seed(seed)
    network = NAFNet(img_channel=3, width=4, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])
    for parameter in network.parameters():  # its residual weights start at zero
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


def restormer(inp_channels: int = 3, dual_pixel_task: bool = False) -> nn.Module:
    pytest.importorskip("spandrel_extra_arches")
    from spandrel_extra_arches.architectures.Restormer import Restormer

    heads = {"num_blocks": [1, 1, 1, 1], "heads": [1, 1, 2, 2], "num_refinement_blocks": 1}
    return Restormer(dim=8, inp_channels=inp_channels, dual_pixel_task=dual_pixel_task, **heads).eval()


def swinir() -> nn.Module:
    from spandrel.architectures.SwinIR import SwinIR

    return SwinIR(img_size=16, embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=8).eval()


def retinexformer() -> nn.Module:
    from spandrel.architectures.RetinexFormer import RetinexFormer

    return RetinexFormer(n_feat=8, stage=1, num_blocks=[1, 1, 1]).eval()


NETWORKS = {  # and what their sides are multiples of inside
    "NAFNet": (nafnet, 4),
    "Restormer": (restormer, 8),
    "SwinIR": (swinir, 8),
    "RetinexFormer": (retinexformer, 8),
}


@pytest.fixture(params=NETWORKS)
def named(request, tmp_path):
    """A small network with random weights: its architecture's name, itself, and a file as projects publish them."""
    torch.manual_seed(0)
    make, multiple = NETWORKS[request.param]
    network = make()
    path = tmp_path / "published.pth"
    torch.save({"params": network.state_dict()}, path)
    return request.param, network, multiple, path


def test_architecture_is_detected_and_equals_a_direct_call(named):
    name, network, multiple, path = named
    model = kpac.load_model(path)
    assert (model.config["name"], model.views) == (name, ("center",))
    assert not model.training
    image = torch.rand(1, 3, 4 * multiple, 5 * multiple)
    with torch.no_grad():
        torch.testing.assert_close(model(image), network(image), atol=1e-6, rtol=0)


def test_any_size_is_extended_as_the_network_needs_it(named):
    name, network, multiple, path = named
    model = kpac.load_model(path)
    height, width = 3 * multiple - 3, 4 * multiple - 1
    image = torch.rand(1, 3, height, width)
    with torch.no_grad():
        found = model(image)
        assert found.shape == image.shape
        assert model(torch.rand(1, 3, 5, 3)).shape == (1, 3, 5, 3)
        if name == "Restormer":  # the others extend images themselves
            mirrored = np.pad(image.numpy(), ((0, 0), (0, 0), (0, 3), (0, 1)), mode="reflect")
            expected = network(torch.from_numpy(mirrored))[..., :height, :width]
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", ["alone", "safetensors", "module prefix", "params_ema"])
def test_forms_in_which_checkpoints_are_published(form, tmp_path):
    tensors = nafnet().state_dict()
    path = tmp_path / ("network.safetensors" if form == "safetensors" else "network.pt")
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(tensors, path)
    else:
        tree = {"module prefix": {f"module.{key}": value for key, value in tensors.items()}}.get(form, tensors)
        torch.save({"params_ema": tree, "epoch": 3} if form == "params_ema" else tree, path)
    assert kpac.load_model(path).config["name"] == "NAFNet"


def compact(scale: int) -> dict:
    from spandrel.architectures.Compact import Compact

    return Compact(num_in_ch=3, num_out_ch=3, num_feat=4, num_conv=2, upscale=scale).state_dict()


def gray() -> dict:
    from spandrel.architectures.DnCNN import DnCNN

    return DnCNN(in_nc=1, out_nc=1, nc=4, nb=17, act_mode="R").state_dict()


class Harmful:
    """Leaves a file behind when it is unpickled by a loader that executes code."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: {"layer.weight": torch.zeros(3)}, r"its tensors fit no architecture of spandrel 0\.\d"),
        (lambda: compact(4), "enlarges images 4 times; expected an output of the input's size"),
        (gray, "has 1 input and 1 output channels; expected 3 and 3"),
        (lambda: restormer(inp_channels=6).state_dict(), "has 6 input and 3 output channels; expected 3 and 3"),
        (lambda: [1, 2], "holds a list; expected a state dict"),
        (lambda: {**nafnet().state_dict(), "intro.weight": torch.zeros(7, 3, 3, 3)}, r"its tensors do not fit \("),
    ],
)
def test_what_is_no_network_from_image_to_image_is_refused(content, words, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(content(), path)
    with pytest.raises(UserError, match=words) as refusal:
        kpac.load_model(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_network_that_needs_a_mask_is_refused(tmp_path):
    network = nn.Conv2d(3, 3, 1)
    architecture = type("Arch", (), {"id": "Filler", "name": "Filler"})()
    descriptor = spandrel.MaskedImageModelDescriptor(
        network, network.state_dict(), architecture, "Inpainting", [], False, False, 3, 3
    )
    with pytest.raises(UserError, match="Filler fills holes and needs a mask"):
        checkpoints._check(tmp_path / "filler.pth", descriptor)


def test_nothing_in_a_file_is_executed(tmp_path):
    path, trace = tmp_path / "harmful.pth", tmp_path / "trace"
    torch.save({"params": Harmful(trace)}, path)
    with pytest.raises(UserError, match="Nothing in it was executed"):
        kpac.load_model(path)
    path.write_bytes(pickle.dumps(Harmful(trace)))
    with pytest.raises(UserError):
        kpac.load_model(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_damaged_files_are_one_line(content, tmp_path):
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.pth") as refusal:
        kpac.load_model(path)
    assert "\n" not in str(refusal.value)


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "network.pth"
    torch.save(nafnet().state_dict(), path)
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with pytest.raises(UserError, match=r"needs the package 'spandrel': pip install 'kpac\[zoo\]'"):
        load_zoo_model(path)


def test_own_licences_of_extra_architectures_are_named(tmp_path, caplog):
    path = tmp_path / "network.pth"
    torch.save(restormer().state_dict(), path)
    load_zoo_model(path)
    assert "Restormer comes from spandrel_extra_arches; its code is under the Academic Public License" in caplog.text
    from spandrel_extra_arches import EXTRA_REGISTRY

    assert {support.architecture.id for support in EXTRA_REGISTRY} == set(checkpoints.LICENCES)
    caplog.clear()
    torch.save(nafnet().state_dict(), path)
    load_zoo_model(path)
    assert caplog.text == ""


def test_network_of_six_channels_reads_left_and_right_views(tmp_path, data_root, capsys):
    core = restormer(inp_channels=6, dual_pixel_task=True)
    path = tmp_path / "dual.pth"
    torch.save(core.state_dict(), path)
    network = load_zoo_model(path)
    assert network.views == ("center", "left", "right")
    views = torch.rand(1, 9, 16, 24)
    with torch.no_grad():
        expected = core(torch.cat([views[:, 3:6], views[:, 6:]], dim=1))
        assert torch.allclose(network(views), expected, atol=1e-6)
        assert torch.equal(network(torch.cat([torch.zeros(1, 3, 16, 24), views[:, 3:]], dim=1)), network(views))
    output = tmp_path / "results"
    assert main(["evaluate", str(path), "--data", str(data_root), "--output", str(output), "--device", "cpu"]) == 0
    assert "six channels: the left, then the right dual-pixel view" in capsys.readouterr().err
    results = read_results(output)
    assert results["model"]["name"] == "Restormer"
    assert all({"psnr", "input"} <= record.keys() for record in results["images"])


def test_outputs_are_not_clamped(tmp_path):
    network = nafnet()
    network.ending.bias.data += 3
    torch.save(network.state_dict(), tmp_path / "network.pth")
    with torch.no_grad():
        assert load_zoo_model(tmp_path / "network.pth")(torch.rand(1, 3, 8, 8)).max() > 1.5


def test_commands_take_a_checkpoint_as_they_take_our_own(data_root, tmp_path, capsys):
    path = tmp_path / "nafnet.pth"
    torch.save({"params": nafnet().state_dict()}, path)
    words = ["--data", str(data_root), "--output", str(tmp_path / "results"), "--device", "cpu", "--save-images"]
    assert main(["evaluate", str(path), *words]) == 0
    results = read_results(tmp_path / "results")
    assert (results["label"], results["model"]["name"]) == ("nafnet", "NAFNet")
    assert results["cost"]["parameters"] == sum(parameter.numel() for parameter in nafnet().parameters())
    assert results["cost"]["macs"] > 0
    assert main(["table", str(tmp_path / "results")]) == 0
    assert "| nafnet" in capsys.readouterr().out
    figure = [
        "figure",
        "comparison",
        str(tmp_path / "results"),
        "--crop",
        "24",
        "--output",
        str(tmp_path / "sheet.png"),
    ]
    assert main(figure) == 0
    photo = next((data_root / "test_c" / "source").iterdir())
    assert main(["restore", str(photo), "-m", str(path), "-o", str(tmp_path / "restored.png"), "--device", "cpu"]) == 0
    assert (tmp_path / "restored.png").is_file()
    assert main(["info", str(path), "--size", "32x48"]) == 0
    assert "total" in capsys.readouterr().out
    assert main(["inspect", str(path), "-o", str(tmp_path / "inspected"), "--device", "cpu"]) == 0
    assert (tmp_path / "inspected" / "model.png").is_file()
    assert "receptive field" in capsys.readouterr().out


@pytest.mark.slow
def test_checkpoint_is_exported_for_any_size(tmp_path, capsys):
    path = tmp_path / "retinexformer.pth"
    torch.save(retinexformer().state_dict(), path)
    assert main(["export", str(path), str(tmp_path / "retinexformer.onnx")]) == 0
    assert "differs from PyTorch by" in capsys.readouterr().err
