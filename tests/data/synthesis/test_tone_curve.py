"""`scripts/tone_curve.py` finds the tone curve that pairs of photographs were made with."""

import cv2
import numpy as np
import pytest

from kpac.data.synthesis import camera
from kpac.data.synthesis.optics import Aperture, aperture_kernel
from kpac.images import from_float, write_pixels
from scripts.tone_curve import CONTRASTS, main
from tests.conftest import texture


@pytest.mark.parametrize("contrast", [0.0, 0.5, 1.0])
def test_curve_of_the_camera_predicts_its_defocus_best(tmp_path, capsys, contrast):
    target = texture(140, 150, seed=3)
    light = cv2.filter2D(camera.undevelop(target, contrast), -1, aperture_kernel(3.0, Aperture(), "whole"))
    for folder, image in (("source", camera.develop(light, contrast)), ("target", target)):
        write_pixels(tmp_path / "val_c" / folder / "a.png", from_float(image, 16))
    main([str(tmp_path)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines[1:]] == ["scene", "a", "mean"]
    found = [float(value) for value in lines[2][1:]]
    assert CONTRASTS[np.argmax(found)] == contrast
    assert max(found) - np.median(found) > 10
