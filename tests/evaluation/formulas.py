"""What the field's evaluation scripts compute, written down once more on NumPy, beside our protocols.

python -m tests.evaluation.formulas [DATA]    # the largest differences, on made images or on a DPDD folder
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from kpac.data.dataset import Scene, SceneDataset
from kpac.data.layouts import SceneFiles, find_scenes
from kpac.evaluation.evaluator import Restored, score_scene
from kpac.evaluation.protocols import find_protocol, our_protocols
from kpac.evaluation.scorer import Scorer
from kpac.text import markdown_table
from tests.conftest import texture

Array = np.ndarray
SIZES = ((37, 53), (48, 61))  # no multiple of 8, and one whose rows are a multiple of 16


@dataclass(frozen=True)
class Script:
    """One script: its protocol, how it reads files, and PSNR, SSIM and MAE of an output in about [0, 1]."""

    name: str
    protocol: str
    bits: int
    scores: Callable[[Array, Array], dict[str, float]]
    multiple: int = 1


def read(path: Path, bits: int) -> Array:
    """RGB as the scripts read it, in [0, 1]: with OpenCV, at 8 bits or as the file is."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR if bits == 8 else cv2.IMREAD_UNCHANGED)[..., ::-1]
    return pixels / np.iinfo(pixels.dtype).max


def uniform(image: Array) -> Array:
    """Mean over 7 x 7 pixels of one channel, where they fit."""
    return np.lib.stride_tricks.sliding_window_view(image, (7, 7)).mean(axis=(2, 3))


def gaussian_weights() -> Array:
    weights = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    return weights / weights.sum()


def gaussian(image: Array) -> Array:
    """Weighted mean over 11 x 11 pixels of one channel, where they fit."""
    for axis in range(2):
        image = np.lib.stride_tricks.sliding_window_view(image, 11, axis=axis) @ gaussian_weights()
    return image


def gaussian_3d(image: Array) -> Array:
    """Weighted mean over 11 x 11 x 11 values of H x W x 3, with repeated edges."""
    image = np.pad(image, 5, mode="edge")
    for axis in range(3):
        image = np.lib.stride_tricks.sliding_window_view(image, 11, axis=axis) @ gaussian_weights()
    return image


def similarity(x: Array, y: Array, mean: Callable[[Array], Array], factor: float = 1.0, top: float = 1.0) -> float:
    """SSIM of Wang et al., 2004; `factor` makes sample covariances."""
    mx, my = mean(x), mean(y)
    vx, vy = (factor * (mean(image * image) - m * m) for image, m in ((x, mx), (y, my)))
    vxy = factor * (mean(x * y) - mx * my)
    c1, c2 = (0.01 * top) ** 2, (0.03 * top) ** 2
    values = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(values.mean())


def by_channel(x: Array, y: Array, *rest) -> float:
    return float(np.mean([similarity(x[..., c], y[..., c], *rest) for c in range(x.shape[2])]))


def peak_ratio(x: Array, y: Array, top: float = 1.0) -> float:
    return float(10 * np.log10(top**2 / np.mean((x - y) ** 2)))


def floats(output: Array, target: Array) -> dict[str, float]:
    """scikit-image's metrics on floats: LaKDNet and DRBNet give the output as it is."""
    return {
        "psnr": peak_ratio(output, target),
        "ssim": by_channel(output, target, uniform, 49 / 48),
        "mae": float(np.abs(output - target).mean()),
    }


def clamped(output: Array, target: Array) -> dict[str, float]:
    return floats(np.clip(output, 0, 1), target)


def saved(output: Array, target: Array) -> dict[str, float]:
    return floats(np.rint(255 * np.clip(output, 0, 1)) / 255, target)


def rounded(output: Array, target: Array) -> dict[str, float]:
    """GKMNet and NRKNet: whole numbers up to 255, clamped for PSNR but not for the SSIM of `pytorch_msssim`."""
    output, target = np.rint(255 * output), np.rint(255 * target)
    return {
        "psnr": peak_ratio(np.clip(output, 0, 255), target, 255),
        "ssim": by_channel(output, target, gaussian, 1.0, 255),
    }


def basicsr(output: Array, target: Array) -> dict[str, float]:
    output, target = (np.rint(255 * np.clip(image, 0, 1)) for image in (output, target))
    return {"psnr": peak_ratio(output, target, 255), "ssim": by_channel(output, target, gaussian, 1.0, 255)}


def basicsr_y(output: Array, target: Array) -> dict[str, float]:
    to_y = np.array([65.481, 128.553, 24.966]) / 255
    output, target = (16 + np.rint(255 * np.clip(image, 0, 1)) @ to_y for image in (output, target))
    return {"psnr": peak_ratio(output, target, 255), "ssim": similarity(output, target, gaussian, 1.0, 255)}


def nafnet(output: Array, target: Array) -> dict[str, float]:
    output, target = (np.rint(255 * np.clip(image, 0, 1)) for image in (output, target))
    return {"psnr": peak_ratio(output, target, 255), "ssim": similarity(output, target, gaussian_3d, 1.0, 255)}


SCRIPTS = (
    Script("Restormer, single image", "restormer-single", 8, clamped),
    Script("K3DN, single image", "k3dn-single", 8, clamped),
    Script("P2IKT", "p2ikt", 8, clamped),
    Script("IFAN", "ifan", 8, clamped, multiple=8),
    Script("DPDNet", "dpdnet", 16, clamped),
    Script("RDPD", "rdpd", 16, clamped),
    Script("Restormer, dual pixel", "restormer-dual", 16, clamped),
    Script("K3DN, dual pixel", "k3dn-dual", 16, clamped),
    Script("LaKDNet, single image", "lakdnet-single", 8, floats),
    Script("LaKDNet, dual pixel", "lakdnet-dual", 16, floats),
    Script("DRBNet", "drbnet", 8, floats, multiple=16),
    Script("GKMNet", "gkmnet", 8, rounded),
    Script("NRKNet", "nrknet", 8, rounded, multiple=16),
    Script("saved PNG files, scikit-image", "saved-png-8bit", 8, saved),
    Script("BasicSR, RGB", "basicsr-rgb", 8, basicsr),
    Script("BasicSR, Y channel", "basicsr-y", 8, basicsr_y),
    Script("NAFNet", "nafnet", 8, nafnet),
)


def output_for(files: SceneFiles) -> Array:
    """What a network might give for a scene: float32, beyond [0, 1] in places, H x W x 3."""
    target = read(files.target, 16)
    noise = np.random.default_rng(target.shape[1]).normal(0, 0.03, target.shape)
    return (1.2 * target - 0.1 + noise).astype(np.float32)


def scenes_of(folder: Path, bits: int) -> list[SceneFiles]:
    """Made scenes, whose files have so many bits."""
    made = []
    for number, (height, width) in enumerate(SIZES):
        paths = [folder / f"{bits}-{number}-{role}.png" for role in ("input", "target")]
        for path, shift in zip(paths, (0.1, 0), strict=True):
            pixels = np.rint(np.clip(texture(height, width, number) + shift, 0, 1) * (2**bits - 1))
            cv2.imwrite(str(path), pixels[..., ::-1].astype(np.uint8 if bits == 8 else np.uint16))
        made.append(SceneFiles(paths[0].stem, {"center": paths[0]}, paths[1]))
    return made


def differences(script: Script, scenes: Sequence[SceneFiles]) -> Iterator[dict[str, float]]:
    """Metric -> absolute difference between a script's number and ours, for each scene."""
    protocol = find_protocol(script.protocol)
    dataset = SceneDataset(list(scenes), protocol.bit_depth)
    for index, files in enumerate(scenes):
        output = output_for(files)
        height, width = (side - side % script.multiple for side in output.shape[:2])
        cropped = output[:height, :width]

        def restore(scene: Scene, image: Array = cropped) -> Restored:
            assert scene.views.shape[-2:] == image.shape[:2]
            return Restored(torch.from_numpy(image.transpose(2, 0, 1).copy()))

        ours = score_scene(dataset[index], restore, Scorer(protocol)).scores
        theirs = script.scores(cropped.astype(np.float64), read(files.target, script.bits)[:height, :width])
        yield {name: abs(ours[name] - value) for name, value in theirs.items()}


def main(data: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if data:
            scenes = find_scenes(data, "test", ("center",))
        else:
            scenes = [scene for bits in (8, 16) for scene in scenes_of(Path(folder), bits)]
        rows = []
        for script in SCRIPTS:
            found = list(differences(script, scenes))
            names = ("psnr", "ssim", "mae")
            cells = [f"{max(each[name] for each in found):.1e}" if name in found[0] else "-" for name in names]
            rows.append([script.name, find_protocol(script.protocol).name, *cells])
    print(markdown_table(["script", "protocol", "PSNR [dB]", "SSIM", "MAE"], rows))
    left = set(our_protocols()) - {find_protocol(script.protocol).name for script in SCRIPTS}
    print(f"\n{len(scenes)} images; without a script: {', '.join(sorted(left))}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
