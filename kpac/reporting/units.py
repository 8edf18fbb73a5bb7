"""Display of metrics and costs: titles with units, digits, and which way is better."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """How one metric or cost is shown."""

    title: str  # title with the unit
    digits: int  # digits after the decimal point
    better: str  # "higher" or "lower"


METRICS = {
    "psnr": Quantity("PSNR [dB]", 2, "higher"),
    "ssim": Quantity("SSIM", 4, "higher"),
    "mae": Quantity("MAE", 4, "lower"),
    "lpips": Quantity("LPIPS", 4, "lower"),
    "niqe": Quantity("NIQE", 3, "lower"),
    "musiq": Quantity("MUSIQ", 2, "higher"),
}
COSTS = {
    "parameters": Quantity("parameters [M]", 2, "lower"),
    "macs": Quantity("MACs [G]", 1, "lower"),
    "seconds": Quantity("time [s]", 3, "lower"),
}
QUANTITIES = {**METRICS, **COSTS}
SCALES = {"parameters": 1e-6, "macs": 1e-9}  # factors from the units of results.json to those of the titles


def signed(name: str, value: float) -> str:
    """Formats a difference, with its sign and one digit more than the quantity itself."""
    return unsigned_zero(f"{value * SCALES.get(name, 1):+.{QUANTITIES[name].digits + 1}f}")


def cell(name: str, value: float | None, sign: str = "") -> str:
    """Formats a number for tables; "-" for None and NaN."""
    if value is None or math.isnan(value):  # NaN: for example, the gain from an infinite PSNR to another
        return "-"
    return unsigned_zero(f"{value * SCALES.get(name, 1):{sign},.{QUANTITIES[name].digits}f}")


def unsigned_zero(text: str) -> str:
    """Removes the sign of a formatted number that is zero: "-0.00" becomes "0.00"."""
    return text.lstrip("+-") if not text.strip("+-0.") else text
