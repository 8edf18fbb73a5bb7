"""Numbers as tables print them."""

import pytest

from kpac.evaluation.metrics import METRIC_NAMES
from kpac.reporting.units import METRICS, cell, signed


def test_every_metric_is_shown():
    assert tuple(METRICS) == METRIC_NAMES


@pytest.mark.parametrize(
    ("value", "text"), [(-0.001, "0.00"), (0.001, "0.00"), (0, "0.00"), (-0.006, "-0.01"), (2, "+2.00")]
)
def test_gains_that_round_to_zero_have_no_sign(value, text):
    assert cell("psnr", value, sign="+") == text


def test_differences_and_scores():
    assert (signed("psnr", -0.0001), signed("psnr", -0.002)) == ("0.000", "-0.002")
    assert (cell("psnr", -0.004), cell("psnr", float("inf")), cell("psnr", None)) == ("0.00", "inf", "-")
