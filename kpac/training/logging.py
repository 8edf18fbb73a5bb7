"""Log of a run: a progress bar or lines, metrics.jsonl, TensorBoard events, run.json, Weights & Biases."""

import importlib.util
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from kpac.config import Config
from kpac.distributed import Ranks
from kpac.environment import describe
from kpac.errors import UserError
from kpac.files import read_json_lines, write_json, write_text
from kpac.models.health import DEAD_BELOW, BlockHealth


@contextmanager
def open_log(config: Config, ranks: Ranks, start: int, facts: dict[str, Any]) -> Iterator["RunLog | NoLog"]:
    """Opens a `RunLog` on rank 0, and a `NoLog` on all other ranks."""
    if not ranks.is_first:
        yield NoLog()
        return
    log = RunLog(config, start, facts)
    try:
        yield log
    finally:
        log.close()


class RunLog:
    """Writes one run's numbers and pictures into its folder.

    Args:
        config: configuration of the run; the run's folder must exist.
        start: number of finished iterations. Lines of an interrupted run about later iterations are removed.
        facts: content of run.json, such as the device and the data.
    """

    def __init__(self, config: Config, start: int, facts: dict[str, Any]):
        folder = config.folder
        self.name = folder.name
        self.iterations = config.train.iterations
        _write_run(folder / "run.json", start, facts)
        metrics = folder / "metrics.jsonl"
        if start:
            _drop_after(metrics, start)
        self._metrics = metrics.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
        self._wandb = _open_wandb(config) if config.train.wandb else None
        self._bar = tqdm(total=self.iterations, initial=start, desc=self.name, unit="step", disable=None)

    def advance(self) -> None:
        """Moves the bar by one step."""
        self._bar.update()

    def steps(self, iteration: int, values: dict[str, float], batch_size: int) -> None:
        """Records means over the steps since the last report; shows them in the bar on a terminal, else as a line.

        Args:
            iteration: number of finished steps.
            values: from `kpac.training.meter.Meter`, "learning_rate", and "gpu_memory_gb" on a GPU.
            batch_size: crops per step from now on, to estimate the remaining time.
        """
        self._record("train", iteration, values)
        text = (
            f"loss {values['loss']:.4f}, rate {values['learning_rate']:.2g}, {values['images_per_second']:.1f} images/s"
        )
        text += f", data {values['data_wait']:.0%}"
        if "gpu_memory_gb" in values:
            text += f", {values['gpu_memory_gb']:.1f} GB"
        if values["skipped"]:
            text += f", {values['skipped']} skipped"
        self._bar.set_postfix_str(text)
        if self._bar.disable:
            left = timedelta(seconds=round((self.iterations - iteration) * batch_size / values["images_per_second"]))
            self.message(f"{iteration}/{self.iterations}: {text}, {left} left")

    def validation(self, iteration: int, scores: dict[str, float], pictures: dict[str, Tensor]) -> None:
        """Records the scores of a validation, and pictures (1 or 3, H, W) in [0, 1] by name."""
        self._record("val", iteration, scores)
        self.message(
            f"{iteration}/{self.iterations}: validation {', '.join(f'{k} {v:.4f}' for k, v in scores.items())}"
        )
        for name, picture in pictures.items():
            self._events.add_image(name, picture, iteration)

    def blocks(self, iteration: int, blocks: Sequence[BlockHealth]) -> None:
        """Records the health of each block, and warns of blocks that contribute nothing."""
        if not blocks:
            return
        numbers = {f"{n}/{name}": value for n, b in enumerate(blocks, 1) for name, value in b.numbers().items()}
        self._record("blocks", iteration, numbers)
        parts = [f"{n}: {b.contribution:.3f}" + _attention_text(b) for n, b in enumerate(blocks, 1)]
        self.message(f"{iteration}/{self.iterations}: contribution of block {'; '.join(parts)}")
        for number, block in enumerate(blocks, 1):
            if block.dead:
                self.message(
                    f"warning: block {number} contributes nothing (less than {DEAD_BELOW:.1%} of the residual). Start "
                    "again with a lower learning rate, or with a lower one for the attentions alone "
                    "(train.optimizer.groups; docs/training.md)"
                )

    def message(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        self._bar.write(f"{self.name}: {text}" if self._bar.disable else text, file=sys.stderr)

    def close(self) -> None:
        """Flushes and closes everything."""
        self._bar.close()
        self._events.close()
        self._metrics.close()
        if self._wandb:
            self._wandb.finish()

    def _record(self, kind: str, iteration: int, values: dict[str, float]) -> None:
        entry: dict[str, Any] = {"kind": kind, "iteration": iteration}
        entry |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            self._metrics.write(json.dumps(entry) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise UserError(f"{self._metrics.name}: cannot be written ({error.strerror})") from None
        named = {f"{kind}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self._events.add_scalar(name, value, iteration)
        if self._wandb:
            self._wandb.log(named, step=iteration)


class NoLog:
    """Stands in for `RunLog` on all ranks but rank 0; writes nothing."""

    def advance(self) -> None: ...

    def steps(self, *_: Any) -> None: ...

    def validation(self, *_: Any) -> None: ...

    def blocks(self, *_: Any) -> None: ...


def _attention_text(block: BlockHealth) -> str:
    if block.mean_weight is None or block.saturated is None:
        return ""
    return f" (mean weight {block.mean_weight:.2f}, {block.saturated:.0%} saturated)"


def require_wandb() -> None:
    """Checks that the optional package wandb is installed.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("wandb") is None:
        raise UserError("train.wandb: the package wandb is not installed; pip install 'kpac[wandb]', or remove the key")


def _open_wandb(config: Config) -> Any:
    import wandb

    settings = config.model_dump(mode="json")
    return wandb.init(
        project=config.train.wandb, name=config.name, group=config.name, dir=config.folder, config=settings
    )


def _write_run(path: Path, start: int, facts: dict[str, Any]) -> None:
    """Writes run.json: facts about the first start, and about each resumption under "resumed"."""
    now = {**facts, **describe()}
    if start:
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            run = {}
        run.setdefault("resumed", []).append({"iteration": start, **now})
    else:
        run = now
    write_json(path, run)


def _drop_after(metrics: Path, iteration: int) -> None:
    """Removes the lines of later iterations, and a truncated last line."""
    kept = [json.dumps(entry) + "\n" for entry in read_json_lines(metrics) if entry["iteration"] <= iteration]
    write_text(metrics, "".join(kept))
