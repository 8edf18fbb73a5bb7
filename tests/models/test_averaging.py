"""`scripts/average_weights.py`: the weighted mean of two networks' weights."""

import pytest
import torch

import kpac
from kpac.errors import UserError
from kpac.models.weights import read_weights_header
from scripts.average_weights import average, main


def saved(path, seed, **options):
    torch.manual_seed(seed)
    model = kpac.create_model("kpac_2level", **{"width": 8, **options})
    kpac.save_model(model, path)
    return model


def test_mean_of_the_weights_by_share(tmp_path):
    first, second = (saved(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2))
    main([str(tmp_path / name) for name in ("mean.safetensors", "1.safetensors:1", "2.safetensors:3")])
    mean = kpac.load_model(tmp_path / "mean.safetensors").state_dict()
    for key, value in mean.items():
        expected = 0.25 * first.state_dict()[key] + 0.75 * second.state_dict()[key]
        torch.testing.assert_close(value, expected)
    header = read_weights_header(tmp_path / "mean.safetensors")
    assert list(header["averaged"].values()) == [0.25, 0.75]


def test_networks_of_different_options_are_refused(tmp_path):
    saved(tmp_path / "wide.safetensors", 1)
    saved(tmp_path / "other.safetensors", 1, dilations=[1, 2])
    sources = [(str(tmp_path / "wide.safetensors"), 1.0), (str(tmp_path / "other.safetensors"), 1.0)]
    with pytest.raises(UserError, match=r"other\.safetensors: expected the same network and options as in .*wide"):
        average(tmp_path / "mean.safetensors", sources)
    assert not (tmp_path / "mean.safetensors").exists()


@pytest.mark.parametrize("source", ["runs/a", "runs/a:", "runs/a:0", "runs/a:-1", "runs/a:nan", ":2"])
def test_source_without_a_share_is_a_usage_error(tmp_path, capsys, source):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "mean.safetensors"), source])
    assert stopped.value.code == 2
    assert f"{source}: expected a model and its share above 0" in capsys.readouterr().err
