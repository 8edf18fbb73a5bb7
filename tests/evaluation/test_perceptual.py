"""LPIPS is the package's own number on the same weights, and is never downloaded."""

import shlex

import lpips
import pytest
import torch
import torchvision

from kpac.errors import UserError
from kpac.evaluation.perceptual import LPIPS, cached_weights

NETWORKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


@pytest.fixture(params=NETWORKS)
def backbone(request, tmp_path):
    """A backbone's name, torchvision's network of it with random weights, and a file that holds them."""
    torch.manual_seed(0)
    network = getattr(torchvision.models, NETWORKS[request.param])(weights=None)
    path = tmp_path / "backbone.pth"
    # As torchvision's files; the classifiers are large, and LPIPS does not read them.
    torch.save({key: value for key, value in network.state_dict().items() if key.startswith("features")}, path)
    return request.param, network, path


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained':UserWarning")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning")
def test_lpips_equals_the_packages_own_call(backbone, monkeypatch):
    name, network, path = backbone
    output, target = torch.rand(2, 3, 64, 80), torch.rand(2, 3, 64, 80)
    monkeypatch.setattr(torchvision.models, NETWORKS[name], lambda **_: network)
    theirs = lpips.LPIPS(net=name, verbose=False)(output, target, normalize=True).flatten()
    monkeypatch.undo()
    ours = LPIPS(name, path)(output, target)
    assert ours.shape == (2,)
    torch.testing.assert_close(ours, theirs.double(), atol=1e-7, rtol=0)
    assert ours.min() > 0
    torch.testing.assert_close(LPIPS(name, path)(output[1:], target[1:])[0], ours[1], atol=1e-6, rtol=0)


def test_lpips_weights_are_looked_up_in_torchvisions_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cached_weights("alex") == tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    with pytest.raises(UserError, match=r"alexnet-owt-7be5be79.pth: no such file .* --lpips-weights"):
        LPIPS()
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("backbone", NETWORKS)
def test_advice_to_download_can_be_pasted_into_a_shell(backbone, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []
    monkeypatch.setattr(torchvision.models, NETWORKS[backbone], lambda weights: asked.append(weights))
    with pytest.raises(UserError) as refusal:
        LPIPS(backbone)
    python, flag, code = shlex.split(str(refusal.value).split("`")[1])
    assert (python, flag) == ("python", "-c")
    exec(code, {})
    assert asked == ["DEFAULT"]


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"other.pth: not the weights of the LPIPS backbone 'alex'"):
        LPIPS("alex", path)
    path.write_bytes(b"no such thing")
    with pytest.raises(UserError, match=r"other.pth: not a file of torchvision's weights"):
        LPIPS("alex", path)
