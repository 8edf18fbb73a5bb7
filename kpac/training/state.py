"""What a checkpoint holds, taken from a training and put back into one."""

from typing import TYPE_CHECKING, Any

from kpac.training.ema import ExponentialMovingAverage
from kpac.training.random_state import random_state, set_random_state

if TYPE_CHECKING:
    from kpac.training.trainer import Trainer


def capture(trainer: "Trainer") -> dict[str, Any]:
    """Everything that the coming steps depend on; all processes must ask, for each has random states of its own.

    The rest is in the configuration, which comes along: a step's batch follows from the seed and the position.
    """
    return {
        "iteration": trainer.iteration,
        "position": trainer.position,
        "best": trainer.best,
        "config": trainer.config.model_dump(mode="json"),
        "data": trainer.data.facts,
        "model": trainer.model.state_dict(),
        "average": trainer.average.state_dict() if trainer.average else None,
        "optimizer": trainer.optimizer.state_dict(),
        "schedule": trainer.schedule.state_dict(),
        "scaler": trainer.compute.scaler.state_dict(),
        "skipped": trainer.guard.read().total,
        "meter": trainer.meter.state(),
        "random": trainer.here.gather(random_state(trainer.here.device)),
    }


def restore(trainer: "Trainer", state: dict[str, Any]) -> None:
    """Puts a training where it was when its state was captured.

    Learning rate, betas and the like come from the configuration: where the user changed them, the changed ones hold.
    Processes that the earlier training did not have keep their fresh random states.
    """
    trainer.iteration, trainer.position, trainer.best = state["iteration"], state["position"], state["best"]
    trainer.model.load_state_dict(state["model"])
    if trainer.average and state["average"]:
        trainer.average.load_state_dict(state["average"])
    elif trainer.average:  # switched on since
        trainer.average = ExponentialMovingAverage(trainer.model, trainer.config.train.ema_decay)
    groups = trainer.optimizer.state_dict()["param_groups"]
    trainer.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
    trainer.schedule.load_state_dict({**state["schedule"], "base_lrs": trainer.schedule.base_lrs})
    for group, rate, factor in zip(
        trainer.optimizer.param_groups, trainer.schedule.base_lrs, trainer.schedule.lr_lambdas, strict=True
    ):
        group["lr"] = rate * factor(trainer.iteration)
    if state["scaler"]:
        trainer.compute.scaler.load_state_dict(state["scaler"])
    trainer.guard.resume(state["skipped"])
    trainer.meter.resume(state["meter"])
    if trainer.here.rank < len(state["random"]):
        set_random_state(state["random"][trainer.here.rank], trainer.here.device)
