"""Each named protocol gives the numbers of its script, at sizes that are no multiple of 8 or 16."""

import numpy as np
import pytest
import torch

from kpac.evaluation.protocols import find_protocol, our_protocols
from tests.evaluation.formulas import SCRIPTS, differences, main, scenes_of


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.protocol)
def test_protocol_equals_its_script(script, bits, tmp_path):
    for found in differences(script, scenes_of(tmp_path, bits)):
        assert max(found.values()) < 1e-5, found


def test_every_shipped_protocol_but_half_resolution_has_a_script():
    written = {find_protocol(script.protocol).name for script in SCRIPTS}
    assert set(our_protocols()) - written == {"half-resolution"}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("lakdnet-single", "clamp", True),
        ("ifan", "crop_multiple", 1),
        ("drbnet", "crop_multiple", 8),
        ("gkmnet", "rounding", None),
        ("basicsr-y", "channel", "rgb"),
        ("basicsr-rgb", "crop_border", 2),
        ("gkmnet", "ssim.clamped", True),
        ("gkmnet", "ssim.sample_covariance", True),
        ("nafnet", "ssim.across_channels", False),
        ("basicsr-rgb", "ssim.gaussian_sigma", None),
    ],
)
def test_each_key_changes_the_numbers(name, key, value):
    generator = np.random.default_rng(0)
    target = torch.from_numpy(generator.uniform(0, 1, (3, 37, 61))).float()
    output = target + torch.from_numpy(generator.normal(0, 0.2, target.shape)).float()
    protocol = find_protocol(name)
    head, _, last = key.partition(".")
    inner = protocol.ssim.model_copy(update={last: value}) if last else value
    changed = protocol.model_copy(update={head: inner})
    ours, theirs = (each.score(each.prepare(output), each.prepare(target)) for each in (protocol, changed))
    assert max(abs(ours[metric] - theirs[metric]) for metric in ours) > 1e-7


def test_table_of_differences_names_every_script(capsys):
    main(None)
    printed = capsys.readouterr().out
    for script in SCRIPTS:
        assert f"| {script.name} " in printed
