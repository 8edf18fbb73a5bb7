"""The training loop, and nothing but the loop."""

import math
import shutil
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from kpac.config import Config, dump_config
from kpac.data.cache import DecodedCache, default_folder
from kpac.data.dataset import CropDataset, SceneDataset, training_loader
from kpac.data.layouts import find_scenes
from kpac.data.preparation import prepare_scenes
from kpac.environment import device_name
from kpac.errors import UserError
from kpac.evaluation.evaluator import evaluate, mean_scores
from kpac.evaluation.protocols import find_protocol
from kpac.files import whole_file
from kpac.models.registry import create_model, resolve_model
from kpac.models.weights import load_weights, save_model, weights_file
from kpac.training.distributed import Processes, processes
from kpac.training.logging import RunLog
from kpac.training.losses import WeightedLoss
from kpac.training.optim import make_optimizer, make_schedule


def train(config: Config, overwrite: bool = False) -> Path:
    """Trains a network as a configuration says, and leaves a folder that explains itself.

    `runs/NAME` gets config.yaml (resolved), run.json (versions, revision, device), metrics.jsonl, TensorBoard events,
    and checkpoints/last.safetensors and best.safetensors (by validation PSNR).

    Args:
        config: from `kpac.load_config`.
        overwrite: replaces an earlier run of this name.

    Returns:
        The run's folder.

    Raises:
        UserError: something in the configuration, the data or the folder is not as expected. Everything, the content
            of the images included, is checked before the folder is touched.
    """
    config = resolve_model(config)
    with processes(config.device) as here:
        trainer = Trainer(config, here)
        if here.is_first:
            _prepare_folder(config.folder, overwrite)
            with whole_file(config.folder / "config.yaml") as partial:
                partial.write_text(dump_config(config), encoding="utf-8")
        here.barrier()
        trainer.fit()
    return config.folder


class Trainer:
    """Everything that one training needs, checked and made; `fit` runs it.

    Args:
        config: resolved.
        here: this process among all.
    """

    def __init__(self, config: Config, here: Processes):
        self.config = config
        self.here = here
        here.check_batch(config.train.batch_size)
        self.protocol = find_protocol(config.validation.protocol)
        torch.manual_seed(config.seed)
        self.model = create_model(config.model.name, **config.model.options)
        if config.train.initial_weights:
            load_weights(self.model, weights_file(config.train.initial_weights))
        self.loss = WeightedLoss(config.train.losses).to(here.device)
        data = config.data
        splits = {split: find_scenes(data.root, split, self.model.views, data.layout) for split in ("train", "val")}
        cache = DecodedCache(data.cache or default_folder(data.root))
        train_scenes, val_scenes = (prepare_scenes(splits[name], cache, data.skip_unreadable) for name in splits)
        self.train_data = CropDataset(train_scenes, cache, data.crop, data.augment, config.seed)
        self.val_data = SceneDataset(val_scenes, self.protocol.bit_depth, cache)
        self.model.to(here.device)
        self.parallel = here.parallel(self.model)
        self.optimizer = make_optimizer(self.model, config.train.optimizer)
        self.schedule = make_schedule(self.optimizer, config.train.schedule, config.train.iterations)
        self.best_psnr = float("-inf")

    def fit(self) -> None:
        """Trains from the first iteration to the last."""
        config, here = self.config, self.here
        log = RunLog(config.folder, config.train.iterations, device_name(here.device)) if here.is_first else None
        loader = training_loader(
            self.train_data,
            config.train.batch_size,
            steps=(0, config.train.iterations),
            workers=config.data.workers,
            rank=here.rank,
            world_size=here.world_size,
            pin_memory=here.device.type == "cuda",
        )
        try:
            since_log = _Means()
            for iteration, batch in enumerate(loader, start=1):
                since_log.add(self.step(batch["views"], batch["target"]))
                last = iteration == config.train.iterations
                if log:
                    log.advance()
                if iteration % config.train.log_every == 0 or last:
                    numbers = since_log.take(config.train.batch_size, here)
                    if not math.isfinite(numbers["loss"]):
                        raise UserError(
                            f"iteration {iteration}: the loss is {numbers['loss']}; the training has diverged. "
                            "Try a lower train.optimizer.learning_rate"
                        )
                    numbers["learning_rate"] = self.schedule.get_last_lr()[0]
                    if log:
                        log.scalars(iteration, "train", numbers)
                if iteration % config.validation.every == 0 or last:
                    if log:
                        self.validate(iteration, log)
                    here.barrier()
                    since_log.restart_clock()
        finally:
            if log:
                log.close()

    def step(self, views: Tensor, target: Tensor) -> dict[str, Tensor]:
        """One optimizer step.

        Args:
            views: (n, 3V, crop, crop) in [0, 1], this process's share of the batch.
            target: (n, 3, crop, crop) in [0, 1].

        Returns:
            The "loss" and its terms by name, still on the device.
        """
        device = self.here.device
        output = self.parallel(views.to(device, non_blocking=True))
        loss, terms = self.loss(output, target.to(device, non_blocking=True))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.gradient_norm)
        self.optimizer.step()
        self.schedule.step()
        return {"loss": loss.detach(), **terms}

    def validate(self, iteration: int, log: RunLog) -> None:
        """Scores the validation split, shows a few of its images, and saves the last and the best weights."""
        scenes = (self.val_data[index] for index in range(len(self.val_data)))
        records = []
        for index, evaluated in enumerate(evaluate(self.model, scenes, self.here.device)):
            records.append(evaluated.record())
            if index < self.config.validation.samples:
                panels = [evaluated.input, evaluated.output, evaluated.scene.target]
                log.images(iteration, f"val/{evaluated.scene.name}", panels)
        scores = mean_scores(records)
        log.scalars(iteration, "val", scores)
        checkpoints = self.config.folder / "checkpoints"
        facts = {"iteration": iteration, "validation": scores, "protocol": self.protocol.name}
        save_model(self.model, checkpoints / "last.safetensors", **facts)
        if scores["psnr"] > self.best_psnr:
            self.best_psnr = scores["psnr"]
            save_model(self.model, checkpoints / "best.safetensors", **facts)


class _Means:
    """Means of what the steps since the last log line gave, read from the device only when they are taken."""

    def __init__(self):
        self._start()

    def _start(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.seconds = 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out the time of something that is no step."""
        self.started = time.perf_counter()

    def add(self, values: dict[str, Tensor]) -> None:
        """Adds one step's values, on the device."""
        self.sums = {name: value + self.sums.get(name, 0) for name, value in values.items()}
        self.steps += 1
        self.seconds += time.perf_counter() - self.started
        self.restart_clock()

    def take(self, batch_size: int, here: Processes) -> dict[str, float]:
        """The means over steps and processes, and images per second; starts anew."""
        means = {name: here.mean(value).item() / self.steps for name, value in self.sums.items()}
        self.seconds += time.perf_counter() - self.started  # the device catches up while it is read
        means["images_per_second"] = self.steps * batch_size / self.seconds
        self._start()
        return means


def _prepare_folder(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; expected a folder, or nothing")
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise UserError(
                f"{folder}: a run of this name is there; choose another with name=..., or replace it with --overwrite"
            )
        if not (folder / "config.yaml").is_file():
            raise UserError(f"{folder}: --overwrite replaces runs only, and this folder holds no config.yaml")
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from None
