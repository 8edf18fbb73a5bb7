"""Random depth maps fill their range, and objects and regions have edges."""

import numpy as np
import pytest

from kpac.data.synthesis.depth import fill_holes, random_depth
from tests.conftest import texture


@pytest.mark.parametrize("kind", ["waves", "planes", "objects", "segments"])
def test_random_depth_fills_its_range(kind):
    photo = texture(64, 96, 0)
    first, again, other = (random_depth(photo, kind, 1.0, 10.0, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (64, 96)
    assert first.min() == pytest.approx(1.0, rel=1e-4)
    assert first.max() == pytest.approx(10.0, rel=1e-4)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(("kind", "has_edges"), [("waves", False), ("planes", False), ("objects", True)])
def test_only_objects_have_edges(kind, has_edges):
    steps = []
    for seed in range(5):
        closeness = 1 / random_depth(texture(128, 128, 0), kind, 1.0, 10.0, np.random.default_rng(seed))
        steps.append(np.abs(np.diff(closeness, axis=1)).max() / np.ptp(closeness))
    assert (np.median(steps) > 0.1) == has_edges


def test_segments_follow_the_regions_of_the_photograph():
    photo = np.full((96, 128, 3), 0.2, np.float32)
    photo[20:70, 30:90] = 0.9
    closeness = 1 / random_depth(photo, "segments", 1.0, 10.0, np.random.default_rng(3))
    across = np.abs(np.diff(closeness, axis=1))[25:65]
    at_the_edges = np.minimum(across[:, 26:34].max(axis=1), across[:, 86:94].max(axis=1))
    inside_regions = across[:, [*range(5, 20), *range(45, 75), *range(105, 120)]]
    assert at_the_edges.min() > 5 * inside_regions.max()


def test_holes_take_the_nearest_known_depth():
    depth = np.array([[1.0, np.nan, np.inf, 5.0]])
    np.testing.assert_array_equal(fill_holes(depth), [[1, 1, 5, 5]])
