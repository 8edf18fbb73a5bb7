"""The training loop."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kpac.config import Config
from kpac.data.batches import Batch
from kpac.data.loading import LoadingError
from kpac.distributed import Ranks, join_ranks
from kpac.environment import device_name, out_of_memory_explained
from kpac.errors import UserError
from kpac.models.registry import create_model, resolve_model
from kpac.models.weights import load_weights, save_model, weights_file
from kpac.training.compute import Compute
from kpac.training.datasets import TrainingData
from kpac.training.ema import ExponentialMovingAverage
from kpac.training.logging import NoLog, RunLog, open_log, require_wandb
from kpac.training.losses import WeightedLoss
from kpac.training.meter import Meter
from kpac.training.optim import load_optimizer, load_schedule, make_optimizer, make_schedule
from kpac.training.profiling import profiler
from kpac.training.random_state import random_state, seed_all, set_random_state
from kpac.training.run_folder import RunFolder, differences
from kpac.training.signals import AgreedStop, training_stopped
from kpac.training.skipped_steps import SkippedSteps
from kpac.training.validation import validate

log = logging.getLogger(__name__)


def train(config: Config, overwrite: bool = False, resume: bool = False, allow_changes: bool = False) -> Path:
    """Trains a network from a configuration, and writes everything about the run into its folder.

    `runs/NAME` gets config.yaml (resolved), run.json (versions, revision, device, data), metrics.jsonl, TensorBoard
    events, checkpoints/last.safetensors and best.safetensors (last weights, and best by validation PSNR), and training
    checkpoints beside them. When torchrun restarts its processes, the run resumes automatically.

    Args:
        config: from `kpac.load_config`.
        overwrite: replaces an earlier run of this name.
        resume: continues the run of this name from its newest checkpoint.
        allow_changes: continues it even if the configuration or the data changed.

    Returns:
        The run's folder.

    Raises:
        UserError: a problem with the configuration, the data or the folder, or too little GPU memory. Everything,
            including the content of the images, is checked before the folder is changed.
        Stopped: Ctrl-C or SIGTERM; the run is saved.
    """
    config = resolve_model(config)
    with (
        join_ranks(config.device) as ranks,
        RunFolder(config, overwrite, resume, allow_changes) as folder,
        out_of_memory_explained(ranks.device),
    ):
        state = ranks.on_first(folder.open)
        trainer = ranks.on_all(lambda: Trainer(config, ranks))
        ranks.on_first(lambda: folder.prepare(trainer.data.facts))
        trainer.fit(folder, state)
        ranks.on_first(folder.finish)
    return config.folder


class Trainer:
    """The state of one training run: network, data, optimizer and counters. `fit` runs the loop.

    Args:
        config: resolved configuration.
        ranks: this rank, and communication with the others.
    """

    def __init__(self, config: Config, ranks: Ranks):
        self.config, self.ranks = config, ranks
        if config.train.wandb:
            require_wandb()
        torch.manual_seed(config.seed)
        model = create_model(config.model.name, **config.model.options)
        if config.train.initial_weights:
            load_weights(model, weights_file(config.train.initial_weights))
        self.compute = Compute(config.train.compute, ranks.device)
        self.compute.check_losses(config.train.losses)
        loss = WeightedLoss(config.train.losses, config.train.perceptual_weights, self.compute.dtype)
        self.loss = self.compute.move(loss)
        self.data = TrainingData(config, ranks, model.views)
        self.model = self.compute.place(model)
        self.network: nn.Module = self.model
        self.optimizer = make_optimizer(self.model, config.train.optimizer, self.compute.fused)
        self.schedule = make_schedule(self.optimizer, config.train.schedule, config.train.iterations)
        decay = config.train.ema_decay
        self.average = ExponentialMovingAverage(self.model, decay) if decay else None
        self.skipped_steps = SkippedSteps(ranks.device)
        self.meter = Meter(ranks)
        self.iteration = self.position = 0  # finished steps; crops used so far
        self.rate = 0.0  # learning rate of the last step
        self.best: dict[str, Any] = {"psnr": -math.inf, "iteration": 0}
        seed_all(config.seed, ranks.rank)

    def fit(self, folder: RunFolder, state: dict[str, Any] | None = None) -> None:
        """Trains to the last iteration.

        Args:
            folder: folder of the run, prepared.
            state: state of the checkpoint to resume from; None to start from the beginning.
        """
        config, ranks, train = self.config, self.ranks, self.config.train
        if state:
            self.load_state_dict(state)
        ranks.broadcast_weights(self.model)
        self.network = self.compute.compile(self.model)
        trace = folder.path / "profile" if train.profile and ranks.is_first else None
        facts: dict[str, Any] = {
            "device": device_name(ranks.device),
            "compute": self.compute.describe(),
            "data": self.data.facts,
        }
        facts["data_workers"] = self.data.workers
        with (
            AgreedStop(ranks) as stop,  # first: Python drops a KeyboardInterrupt that comes while workers are forked
            self.batches(folder) as batches,
            open_log(config, ranks, self.iteration, facts) as log,
            profiler(trace) as after_step,
        ):
            save = False
            while self.iteration < train.iterations:
                with self.meter.waiting():
                    batch = next(batches)
                self.step(batch)
                after_step()
                log.advance()
                last = self.iteration == train.iterations
                report = last or self.iteration % train.log_every == 0
                if report or ranks.device.type == "cpu":  # reading the counts would synchronise a GPU
                    self.check_divergence(folder)
                if report:
                    self.report(log, batch.size)
                if last or self.iteration % config.validation.every == 0:
                    with self.meter.pause():
                        self.validate(folder, log)
                    save = True
                number = stop.agreed()
                save |= bool(number) or self.iteration % train.checkpoint.every == 0
                if save and (last or not self.skipped_steps.read().streak):  # in a streak, weights may be bad
                    with self.meter.pause():
                        self.save(folder)
                    save = False
                if number and not last:
                    ranks.exit(training_stopped(number, self.iteration, folder.path, saved=not save))

    @contextmanager
    def batches(self, folder: RunFolder) -> Iterator[Iterator[Batch]]:
        """This rank's share of the remaining batches, on the device; the data workers end with the context.

        Raises:
            UserError: an image can no longer be read, or a worker was killed; the message says how to resume.
        """
        try:
            with self.data.batches(self.iteration, self.position, self.compute.pinned) as loaded:
                yield self.compute.batches(loaded)
        except LoadingError as error:
            kept = folder.checkpoints.newest_path()
            if not kept:
                raise UserError(f"{error}; start again") from None
            raise UserError(str(error), "resume_from", folder=folder.path, checkpoint=kept.name) from None

    def step(self, batch: Batch) -> None:
        """One optimizer step on this rank's share of a batch."""
        train = self.config.train
        self.iteration += 1
        values: dict[str, Tensor] = {}
        for views, target in zip(
            batch.views.chunk(train.accumulate), batch.target.chunk(train.accumulate), strict=True
        ):
            with self.compute.autocast():
                output = self.network(views)
            loss, terms = self.loss(output.float(), target)
            self.compute.backward(loss / train.accumulate)
            for name, value in {"loss": loss, **terms}.items():
                values[name] = values.get(name, 0) + value.detach() / train.accumulate
        self.ranks.average_gradients(self.model)
        values["gradient_norm"] = self.compute.update(self.optimizer, train.gradient_norm)
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.schedule.step()
        if self.average:
            self.average.update(self.model)
        finite = values["gradient_norm"].isfinite()
        self.skipped_steps.count(finite, self.iteration, batch.start)
        self.meter.add(values, finite, batch.size)
        self.position = batch.start + batch.size

    def report(self, log: RunLog | NoLog, batch_size: int) -> None:
        """Logs the means over the steps since the last report."""
        numbers = self.meter.take()
        numbers["learning_rate"] = self.rate
        numbers["skipped"] = self.skipped_steps.read().total
        if self.ranks.device.type == "cuda":
            numbers["gpu_memory_gb"] = torch.cuda.max_memory_allocated(self.ranks.device) / 1e9
        log.steps(self.iteration, numbers, batch_size)

    def validate(self, folder: RunFolder, log: RunLog | NoLog) -> None:
        """Scores the validation split with the averaged weights, if there are any, and saves the weights."""
        with self.average.applied_to(self.model) if self.average else nullcontext():
            validated = validate(
                self.model, self.data.val, self.data.protocol, self.ranks, self.config.validation.samples
            )
            if math.isnan(validated.scores["psnr"]):
                self.diverged(folder, f"iteration {self.iteration}: the network's output is not a number")
            log.validation(self.iteration, validated.scores, validated.pictures)
            log.blocks(self.iteration, validated.blocks)
            better = validated.scores["psnr"] > self.best["psnr"]
            if better:
                self.best = {"psnr": validated.scores["psnr"], "iteration": self.iteration}
            facts: dict[str, Any] = {
                "iteration": self.iteration,
                "validation": validated.scores,
                "protocol": self.data.protocol.name,
            }
            for name in ("last", "best") if better else ("last",):
                self.ranks.on_first(
                    partial(save_model, self.model, folder.checkpoints.folder / f"{name}.safetensors", **facts)
                )

    def save(self, folder: RunFolder) -> None:
        """Writes a training checkpoint."""
        state = self.state_dict()
        self.ranks.on_first(lambda: folder.checkpoints.save(state, best=self.best["iteration"]))

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on. Collective: gathers the random states of all ranks.

        It holds no batches: they follow from the configuration's seed and the number of crops used so far.
        """
        return {
            "iteration": self.iteration,
            "position": self.position,
            "best": self.best,
            "config": self.config_json,
            "data": self.data.facts,
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.compute.scaler.state_dict(),
            "skipped": self.skipped_steps.read().total,
            "meter": self.meter.state_dict(),
            "random": self.ranks.all_gather(random_state(self.ranks.device)),
        }

    @property
    def config_json(self) -> dict[str, Any]:
        """The configuration in the form that checkpoints hold."""
        return self.config.model_dump(mode="json")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads what `state_dict` returned, on any device and in any memory layout.

        Learning rate, betas and other hyperparameters are taken from the current configuration, so changes by the user
        take effect. If there are more ranks than before, the additional ones keep their fresh random states.
        """
        self.iteration, self.position, self.best = state["iteration"], state["position"], state["best"]
        changes = differences(criterion(state["config"], state["data"]), criterion(self.config_json, self.data.facts))
        if changes:
            self.best = {"psnr": -math.inf, "iteration": 0}
            log.warning(
                "best.safetensors starts over: scores are not comparable after a change (%s)", ", ".join(changes)
            )
        self.model.load_state_dict(state["model"])
        if self.average and state["average"]:
            self.average.load_state_dict(state["average"])
        elif self.average:  # switched on since the checkpoint
            self.average = ExponentialMovingAverage(self.model, self.average.decay)
        load_optimizer(self.optimizer, state["optimizer"])
        load_schedule(self.schedule, state["schedule"])
        if state["scaler"]:
            self.compute.scaler.load_state_dict(state["scaler"])
        self.skipped_steps.resume(state["skipped"])
        self.meter.load_state_dict(state["meter"])
        if self.ranks.rank < len(state["random"]):
            set_random_state(state["random"][self.ranks.rank], self.ranks.device)

    def check_divergence(self, folder: RunFolder) -> None:
        """Ends a run that has skipped `train.skip_limit` steps in a row."""
        skipped, limit = self.skipped_steps.read(), self.config.train.skip_limit
        if skipped.longest >= limit:
            scenes = self.data.scenes_of(skipped.start, self.data.stage(skipped.latest).batch_size)
            self.diverged(
                folder,
                f"iteration {skipped.latest}: the loss or its gradient was not finite in {limit} steps in a row; the "
                f"last batch shows {scenes}",
            )

    def diverged(self, folder: RunFolder, what: str) -> None:
        """Ends the run without saving; the message advises a lower learning rate."""
        kept = folder.checkpoints.newest_path()
        diverged = f"{what}. The training has diverged"
        if not kept:
            self.ranks.exit(UserError(f"{diverged}; try a lower learning rate"))
        self.ranks.exit(UserError(diverged, "resume_slower", folder=folder.path, checkpoint=kept.name))


def criterion(config: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Settings that validation PSNR depends on: two scores are comparable only if all of these are equal.

    Args:
        config: configuration of the run, as JSON.
        data: facts about its data; see `kpac.training.datasets`.
    """
    protocol = {"validation": {"protocol": config["validation"]["protocol"]}}
    return {**protocol, "train": {"losses": config["train"]["losses"]}, "data": data}
