"""The training loop, and nothing but the loop."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kpac.config import Config
from kpac.data.loading import LoadingError
from kpac.distributed import Processes, last_part, processes
from kpac.environment import device_name
from kpac.errors import UserError
from kpac.models.registry import create_model, resolve_model
from kpac.models.weights import load_weights, save_model, weights_file
from kpac.training.checkpoint import resume_command
from kpac.training.compute import Compute
from kpac.training.datasets import TrainingData
from kpac.training.ema import ExponentialMovingAverage
from kpac.training.guard import DivergenceGuard
from kpac.training.logging import RunLog, open_log, require_wandb
from kpac.training.losses import WeightedLoss
from kpac.training.meter import Meter
from kpac.training.optim import make_optimizer, make_schedule
from kpac.training.profiling import profiler
from kpac.training.random_state import seed_all
from kpac.training.run_folder import RunFolder
from kpac.training.signals import StopSignals, stopped
from kpac.training.state import capture, restore
from kpac.training.validation import validate


def train(config: Config, overwrite: bool = False, resume: bool = False, allow_changes: bool = False) -> Path:
    """Trains a network as a configuration says, and leaves a folder that explains itself.

    `runs/NAME` gets config.yaml (resolved), run.json (versions, revision, device, data), metrics.jsonl, TensorBoard
    events, checkpoints/last.safetensors and best.safetensors (the weights, by validation PSNR), and training
    checkpoints beside them. After torchrun has restarted its processes, a run continues by itself.

    Args:
        config: from `kpac.load_config`.
        overwrite: replaces an earlier run of this name.
        resume: continues the run of this name from its newest checkpoint.
        allow_changes: continues it although the configuration or the data changed.

    Returns:
        The run's folder.

    Raises:
        UserError: something in the configuration, the data or the folder is not as expected. Everything, the content
            of the images included, is checked before the folder is touched.
        Stopped: Ctrl-C or SIGTERM; the run is saved.
    """
    config = resolve_model(config)
    with processes(config.device) as here, RunFolder(config, overwrite, resume, allow_changes) as folder:
        state = here.first(folder.open)
        trainer = here.together(lambda: Trainer(config, here))
        here.first(lambda: folder.prepare(trainer.data.facts))
        trainer.fit(folder, state)
        here.first(folder.finish)
    return config.folder


class Trainer:
    """Everything that one training needs, checked and made; `fit` runs it.

    Args:
        config: resolved.
        here: this process among all.
    """

    def __init__(self, config: Config, here: Processes):
        self.config, self.here = config, here
        if config.train.wandb:
            require_wandb()
        torch.manual_seed(config.seed)
        model = create_model(config.model.name, **config.model.options)
        if config.train.initial_weights:
            load_weights(model, weights_file(config.train.initial_weights))
        self.loss = WeightedLoss(config.train.losses, config.train.perceptual_weights).to(here.device)
        self.data = TrainingData(config, here, model.views)
        self.compute = Compute(config.train.compute, here.device)
        self.model = self.parallel = self.network = self.compute.place(model)
        self.optimizer = make_optimizer(self.model, config.train.optimizer, self.compute.fused)
        self.schedule = make_schedule(self.optimizer, config.train.schedule, config.train.iterations)
        decay = config.train.ema_decay
        self.average = ExponentialMovingAverage(self.model, decay) if decay else None
        self.guard = DivergenceGuard(here.device)
        self.meter = Meter(here)
        self.iteration = self.position = 0  # steps done; crops of the stream used
        self.rate = 0.0  # of the last step
        self.best: dict[str, float] = {"psnr": -math.inf, "iteration": 0}
        seed_all(config.seed, here.rank)

    def fit(self, folder: RunFolder, state: dict[str, Any] | None = None) -> None:
        """Trains to the last iteration.

        Args:
            folder: of the run, prepared.
            state: of the checkpoint to continue from; None for the beginning.
        """
        config, here, train = self.config, self.here, self.config.train
        if state:
            restore(self, state)
        self.parallel = here.parallel(self.model)
        self.network = self.compute.compile(self.parallel)
        trace = folder.path / "profile" if train.profile and here.is_first else None
        facts = {"device": device_name(here.device), "compute": self.compute.describe(), "data": self.data.facts}
        with (
            StopSignals(here) as signals,  # first: Python drops a KeyboardInterrupt that comes while workers are forked
            self.batches(folder) as batches,
            open_log(config, here, self.iteration, facts) as log,
            profiler(trace) as after_step,
        ):
            save = False
            while self.iteration < train.iterations:
                with self.meter.waiting():
                    views, target = next(batches)
                self.step(views, target)
                after_step()
                log.advance()
                last = self.iteration == train.iterations
                report = last or self.iteration % train.log_every == 0
                if report or here.device.type == "cpu":  # where reading the counts stops no GPU
                    self.check_divergence(folder)
                if report:
                    self.report(log)
                if last or self.iteration % config.validation.every == 0:
                    with self.meter.pause():
                        self.validate(folder, log)
                    save = True
                number = signals.agreed()
                save |= bool(number) or self.iteration % train.checkpoint.every == 0
                if save and (last or not self.guard.read().streak):  # after skipped steps the weights are in doubt
                    with self.meter.pause():
                        self.save(folder)
                    save = False
                if number and not last:
                    here.leave(stopped(number, self.iteration, folder.path, saved=not save))

    @contextmanager
    def batches(self, folder: RunFolder) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """This process's share of the batches that are left, on the device; their workers end with the context.

        Raises:
            UserError: an image cannot be read any more, or a worker was killed; says how to continue.
        """
        try:
            with self.data.batches(self.iteration, self.position, self.compute.pinned) as loaded:
                yield self.compute.batches(loaded)
        except LoadingError as error:
            kept = folder.checkpoints.newest_path()
            again = f"continue from {kept.name} with: {resume_command(folder.path)}" if kept else "start again"
            raise UserError(f"{error}; {again}") from None

    def step(self, views: Tensor, target: Tensor) -> None:
        """One optimizer step.

        Args:
            views: (n, 3V, crop, crop) in [0, 1], this process's share of the batch, on the device.
            target: (n, 3, crop, crop) in [0, 1].
        """
        train = self.config.train
        self.iteration += 1
        values: dict[str, Tensor] = {}
        for part, (some_views, some_target) in enumerate(
            zip(views.chunk(train.accumulate), target.chunk(train.accumulate), strict=True), start=1
        ):
            with last_part(self.parallel, part == train.accumulate):
                with self.compute.autocast():
                    output = self.network(some_views)
                loss, terms = self.loss(output.float(), some_target)
                self.compute.backward(loss / train.accumulate)
            for name, value in {"loss": loss, **terms}.items():
                values[name] = values.get(name, 0) + value.detach() / train.accumulate
        values["gradient_norm"] = self.compute.update(self.optimizer, train.gradient_norm)
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.schedule.step()
        if self.average:
            self.average.update(self.model)
        finite = values["gradient_norm"].isfinite()
        self.guard.count(finite, self.iteration)
        batch_size = self.data.stage(self.iteration).batch_size
        self.meter.add(values, finite, batch_size)
        self.position += batch_size

    def report(self, log: RunLog) -> None:
        """Logs what the steps since the last report gave."""
        numbers = self.meter.take()
        numbers["learning_rate"] = self.rate
        numbers["skipped"] = self.guard.read().total
        if self.here.device.type == "cuda":
            numbers["gpu_memory_gb"] = torch.cuda.max_memory_allocated(self.here.device) / 1e9
        log.steps(self.iteration, numbers, self.data.stage(self.iteration).batch_size)

    def validate(self, folder: RunFolder, log: RunLog) -> None:
        """Scores the validation split with the averaged weights, if there are such, and saves them as safetensors."""
        with self.average.applied_to(self.model) if self.average else nullcontext():
            found = validate(self.model, self.data.val, self.data.protocol, self.here, self.config.validation.samples)
            if math.isnan(found.scores["psnr"]):
                self.diverged(folder, f"iteration {self.iteration}: the network's output is not a number")
            log.validation(self.iteration, found.scores, found.pictures)
            better = found.scores["psnr"] > self.best["psnr"]
            if better:
                self.best = {"psnr": found.scores["psnr"], "iteration": self.iteration}
            facts = {"iteration": self.iteration, "validation": found.scores, "protocol": self.data.protocol.name}
            for name in ("last", "best") if better else ("last",):
                self.here.first(
                    partial(save_model, self.model, folder.checkpoints.folder / f"{name}.safetensors", **facts)
                )

    def save(self, folder: RunFolder) -> None:
        """Writes a training checkpoint."""
        state = capture(self)
        self.here.first(lambda: folder.checkpoints.save(state, best=self.best["iteration"]))

    def check_divergence(self, folder: RunFolder) -> None:
        """Ends a run whose last steps were all skipped."""
        skipped, limit = self.guard.read(), self.config.train.skip_limit
        if skipped.longest >= limit:
            scenes = self.data.scenes_of(skipped.latest, self.iteration, self.position)
            self.diverged(
                folder,
                f"iteration {skipped.latest}: the loss or its gradient was not finite in {limit} steps in a row; the "
                f"last batch shows {scenes}",
            )

    def diverged(self, folder: RunFolder, what: str) -> None:
        """Ends the run, saves nothing, and says what to try."""
        kept = folder.checkpoints.newest_path()
        again = f"{resume_command(folder.path)} train.optimizer.learning_rate=... --allow-changes" if kept else ""
        advice = (
            f"continue from {kept.name} with a lower learning rate: {again}" if kept else "try a lower learning rate"
        )
        self.here.leave(UserError(f"{what}. The training has diverged, {advice}"))
