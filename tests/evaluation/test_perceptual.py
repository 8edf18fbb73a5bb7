"""LPIPS is the package's own number on the same weights, which are downloaded once and checked."""

import hashlib
import urllib.error

import lpips
import pytest
import torch
import torchvision

from kpac.commands.remedies import explain
from kpac.errors import UserError
from kpac.evaluation import perceptual
from kpac.evaluation.perceptual import LPIPS, cached_weights

NETWORKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


@pytest.fixture
def any_weights(monkeypatch) -> None:
    """Torchvision's own weights are large; random ones do here."""
    monkeypatch.setattr(perceptual, "expected_hash", lambda _: "")


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
def test_lpips_equals_the_packages_own_call(backbone, monkeypatch, any_weights):
    name, network, path = backbone
    output, target = torch.rand(2, 3, 64, 80), torch.rand(2, 3, 64, 80)
    monkeypatch.setattr(torchvision.models, NETWORKS[name], lambda **_: network)
    theirs = lpips.LPIPS(net=name, verbose=False)(output, target, normalize=True).flatten()
    monkeypatch.undo()
    monkeypatch.setattr(perceptual, "expected_hash", lambda _: "")
    ours = LPIPS(name, path)(output, target)
    assert ours.shape == (2,)
    torch.testing.assert_close(ours, theirs.double(), atol=1e-7, rtol=0)
    assert ours.min() > 0
    torch.testing.assert_close(LPIPS(name, path)(output[1:], target[1:])[0], ours[1], atol=1e-6, rtol=0)


def test_backbone_is_downloaded_once_and_checked(backbone, monkeypatch, tmp_path):
    name, _, path = backbone
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("KPAC_OFFLINE")
    expected = cached_weights(name)
    asked = []
    real = torch.hub.download_url_to_file

    def local(url, *details, **options):
        asked.append(url)
        real(path.as_uri(), *details, **options)

    monkeypatch.setattr(torch.hub, "download_url_to_file", local)
    with pytest.raises(UserError, match="the download is incomplete or another file"):  # these are random weights
        LPIPS(name)
    assert not expected.exists()
    monkeypatch.setattr(perceptual, "expected_hash", lambda _: hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    for _ in range(2):
        LPIPS(name)
    assert len(asked) == 2
    assert asked[0].endswith(expected.name)
    assert expected.read_bytes() == path.read_bytes()


def test_without_network_one_line_says_how_to_get_the_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert cached_weights("alex") == path
    with pytest.raises(UserError, match=rf"{path}: no such file, and KPAC_OFFLINE forbids ") as error:
        LPIPS()
    assert explain(error.value).endswith("; or name a copy of it with --lpips-weights")
    monkeypatch.delenv("KPAC_OFFLINE")

    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(UserError, match=rf"cannot be downloaded \(Name or .*save it by hand as {path}"):
        LPIPS()
    assert not path.exists()


def test_weights_of_other_content_are_refused(backbone):
    name, _, path = backbone
    with pytest.raises(UserError, match=r"backbone.pth: not torchvision's .*SHA-256 should begin with"):
        LPIPS(name, path)


def test_weights_of_another_network_are_refused(tmp_path, any_weights):
    path = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"other.pth: not the weights of the LPIPS backbone 'alex'"):
        LPIPS("alex", path)
    path.write_bytes(b"no such thing")
    with pytest.raises(UserError, match=r"other.pth: not a file of torchvision's weights"):
        LPIPS("alex", path)
