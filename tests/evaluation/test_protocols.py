"""Protocols are data, and a mistake in them is one line."""

import pytest
import torch

from kpac.errors import UserError
from kpac.evaluation.protocols import find_protocol, our_protocols


def test_shipped_protocols_are_those_of_the_field():
    assert set(our_protocols()) == {"dpdd-8bit", "dpdd-16bit", "saved-png-8bit", "half-resolution"}
    for protocol in our_protocols().values():
        assert protocol.clamp
        assert protocol.data_range == 1
        assert (protocol.ssim.window, protocol.ssim.gaussian_sigma, protocol.ssim.sample_covariance) == (7, None, True)
        assert protocol.lpips == "alex"
    assert [our_protocols()[name].bit_depth for name in ("dpdd-8bit", "dpdd-16bit")] == [8, 16]


def test_output_is_clamped_and_rounded_as_the_protocol_says():
    output = torch.tensor([-0.1, 0.5, 1.2, 0.25])
    assert find_protocol("dpdd-8bit").finish(output).tolist() == pytest.approx([0, 0.5, 1, 0.25])
    assert find_protocol("saved-png-8bit").finish(output).tolist() == pytest.approx([0, 128 / 255, 1, 64 / 255])


def test_half_resolution_is_the_mean_of_squares_and_drops_what_fills_none():
    image = torch.arange(2 * 3 * 5, dtype=torch.float32).view(2, 3, 5)
    half = find_protocol("half-resolution").prepare(image)
    assert half.shape == (2, 1, 2)
    assert half[0, 0, 0] == image[0, :2, :2].mean()


def test_user_writes_a_protocol_of_their_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "gauss: {source: us, bit_depth: 16, ssim: {gaussian_sigma: 1.5}}\n"
        "raw: {source: us, bit_depth: 8, clamp: false}\n"
    )
    protocol = find_protocol(f"{path}:gauss")
    assert protocol.name == "gauss"
    assert protocol.ssim_settings.side == 11
    assert "Gaussian" in protocol.summary()
    assert not find_protocol(f"{path}:raw").clamp
    assert find_protocol(f"{path}:raw").finish(torch.tensor([1.5])).item() == 1.5
    with pytest.raises(UserError, match=r"holds several protocols; name one: .*mine\.yaml:gauss"):
        find_protocol(str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mine: {source: us, bit_dept: 8}", "unknown key 'mine.bit_dept'; did you mean 'mine.bit_depth'"),
        ("mine: {source: us, bit_depth: 12}", "mine.bit_depth"),
        ("mine: {source: us, bit_depth: 8, ssim: {window: 6}}", "should be odd"),
        ("- 1", "expected names of protocols"),
        ("mine: {", "not valid YAML"),
        ("dpdd-8bit: {source: us, bit_depth: 8, downsize: 2}", "the name of a protocol with other settings"),
    ],
)
def test_mistakes_in_a_protocol_file_are_one_line(text, words, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as refusal:
        find_protocol(str(path))
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_unknown_protocol_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'dpdd-16bit'"):
        find_protocol("dpdd-16bits")
    with pytest.raises(UserError, match=r"gone\.yaml: cannot be read"):
        find_protocol("gone.yaml:x")
