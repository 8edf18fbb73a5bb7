"""Protocols are data, and a mistake in them is one line."""

import pytest
import torch

from kpac.cli import main
from kpac.errors import UserError
from kpac.evaluation.protocols import find_protocol, our_protocols


def test_shipped_protocols_have_the_names_that_results_carry():
    names = ["dpdd-8bit", "dpdd-16bit", "ifan", "lakdnet-single", "lakdnet-dual", "drbnet", "gkmnet", "nrknet"]
    names += ["saved-png-8bit", "basicsr-rgb", "basicsr-y", "nafnet", "half-resolution"]
    assert list(our_protocols()) == names
    for name in ("dpdd-8bit", "dpdd-16bit"):
        protocol = find_protocol(name)
        assert protocol.bit_depth == int(name.removeprefix("dpdd-").removesuffix("bit"))
        assert (protocol.clamp, protocol.rounding, protocol.crop_multiple, protocol.channel) == (True, None, 1, "rgb")
        assert (protocol.ssim.window, protocol.ssim.gaussian_sigma, protocol.ssim.sample_covariance) == (7, None, True)
        assert (protocol.lpips.backbone, protocol.data_range) == ("alex", 1)


def test_scripts_names_find_their_protocol():
    for name, expected in (
        ("restormer-single", "dpdd-8bit"),
        ("k3dn-single", "dpdd-8bit"),
        ("p2ikt", "dpdd-8bit"),
        ("dpdnet", "dpdd-16bit"),
        ("restormer-dual", "dpdd-16bit"),
    ):
        assert find_protocol(name).name == expected
    aliases = [alias for protocol in our_protocols().values() for alias in protocol.aliases]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(our_protocols())


def test_crop_that_removes_nothing_makes_no_difference():
    plain, ifan, drbnet = (find_protocol(name) for name in ("dpdd-8bit", "ifan", "drbnet"))
    assert ifan.gives_the_numbers_of(plain, [(1120, 1680), (1680, 1120)])
    assert not ifan.gives_the_numbers_of(plain, [(1120, 1680), (1120, 683)])
    assert not ifan.gives_the_numbers_of(plain)
    assert not drbnet.gives_the_numbers_of(plain, [(1120, 1680)])  # not clamped
    assert plain.gives_the_numbers_of(plain.model_copy(update={"name": "mine"}))


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("dpdd-8bit", (6, 20), "is 20x6 pixels; SSIM needs 7x7"),
        ("ifan", (15, 14), "is 14x15 pixels, of which protocol 'ifan' scores 8x8; LPIPS needs 32x32"),
        ("drbnet", (15, 200), "is 200x15 pixels, of which protocol 'drbnet' scores 192x0; SSIM needs 7x7"),
        ("basicsr-y", (10, 12), "SSIM needs 11x11"),
        ("half-resolution", (13, 200), "scores 100x6; SSIM needs 7x7"),
    ],
)
def test_images_too_small_for_a_protocol_are_refused(name, size, words):
    with pytest.raises(ValueError, match=words):
        find_protocol(name).check_size(*size, lpips="LPIPS" in words)


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
        ("mine: {source: us, bit_depth: 8, channel: luma}", "mine.channel"),
        ("mine: {source: us, bit_depth: 8, crop_multiple: 0}", "mine.crop_multiple"),
        ("mine: {source: us, bit_depth: 8, crop_border: -1}", "mine.crop_border"),
        ("mine: {source: us, bit_depth: 8, clamp: maybe}", "mine.clamp"),
        ("restormer-dual: {source: us, bit_depth: 8}", "the name of a protocol with other settings"),
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


def test_every_key_of_a_users_protocol_is_kept(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    text = (
        "mine: {source: us, bit_depth: 16, crop_multiple: 4, crop_border: 3, channel: y, clamp: false, rounding: 8, "
        "ssim: {gaussian_sigma: 1.5, across_channels: true, sample_covariance: false}, lpips: vgg}"
    )
    path.write_text(text)
    protocol = find_protocol(str(path))
    assert (protocol.crop_multiple, protocol.crop_border, protocol.channel, protocol.rounding) == (4, 3, "y", 8)
    assert (protocol.ssim.across_channels, protocol.lpips.backbone) == (True, "vgg")
    assert main(["protocols", str(path)]) == 0
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out)
    assert find_protocol(str(tmp_path / "again.yaml")) == protocol


def test_command_lists_protocols_and_who_uses_them(capsys):
    assert main(["protocols"]) == 0
    printed = capsys.readouterr().out
    for name, protocol in our_protocols().items():
        assert f"| {name} " in printed
        assert protocol.source in printed
        assert all(alias in printed for alias in protocol.aliases)
    assert main(["protocols", "nafnets"]) == 2
    assert "did you mean 'nafnet'" in capsys.readouterr().err
