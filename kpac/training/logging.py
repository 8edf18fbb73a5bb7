"""What a run tells: a progress bar, metrics.jsonl, TensorBoard events, run.json."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from kpac.environment import describe
from kpac.files import write_json


class RunLog:
    """Writes one run's numbers and pictures into its folder.

    Args:
        folder: of the run, there already.
        iterations: length of the progress bar.
        device: in words, for run.json.
    """

    def __init__(self, folder: Path, iterations: int, device: str):
        write_json(folder / "run.json", {"device": device, **describe()})
        self._metrics = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / "tensorboard"))
        self._bar = tqdm(total=iterations, desc=folder.name, unit="step", disable=None)

    def advance(self) -> None:
        """Moves the bar by one step."""
        self._bar.update()

    def scalars(self, iteration: int, kind: str, values: dict[str, float]) -> None:
        """Records numbers.

        Args:
            iteration: steps done.
            kind: "train" or "val": the group in TensorBoard and the "kind" of the JSON line.
            values: name -> value.
        """
        entry: dict[str, Any] = {"kind": kind, "iteration": iteration, **values}
        self._metrics.write(json.dumps(entry) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, iteration)
        if kind == "train":
            self._bar.set_postfix_str(f"loss {values['loss']:.4f}, {values['images_per_second']:.1f} images/s")
        if kind == "val":
            text = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            self.message(f"iteration {iteration}: validation {text}")
        elif self._bar.disable:
            self.message(f"iteration {iteration}: {self._bar.postfix}")

    def images(self, iteration: int, name: str, panels: list[Tensor]) -> None:
        """Shows images of one size, (3, H, W) in [0, 1], side by side in TensorBoard."""
        self._events.add_image(name, torch.cat([panel.clamp(0, 1) for panel in panels], dim=2), iteration)

    def message(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        self._bar.write(text)

    def close(self) -> None:
        self._bar.close()
        self._events.close()
        self._metrics.close()
