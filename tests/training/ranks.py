"""What tests run under torchrun: several trainings in one launch, since starting Python and PyTorch takes longest.

torchrun ... tests/training/ranks.py resume CONFIG    a whole run, and one that is resumed in the middle
torchrun ... tests/training/ranks.py fail CONFIG      a run whose rank 1 fails alone
"""

import sys
import time
from pathlib import Path

from kpac.cli import main
from kpac.config import load_config
from kpac.training.run_folder import resumed_config
from kpac.training.trainer import Trainer, train


def resume(config: str) -> None:
    whole = train(load_config(Path(config), ["name=whole"]))
    train(load_config(Path(config), ["name=whole-5", "train.iterations=5"]))
    folder = whole.with_name("whole-5")
    train(resumed_config(folder, None, ["train.iterations=10"]), resume=True, allow_changes=True)


def fail(config: str) -> None:
    step = Trainer.step

    def failing(self: Trainer, batch: object) -> None:
        if self.ranks.rank == 1 and self.iteration == 3:
            print(f"rank 1 fails at {time.time()}", file=sys.stderr, flush=True)
            raise RuntimeError("only this rank")
        step(self, batch)

    Trainer.step = failing
    sys.exit(main(["train", config]))


if __name__ == "__main__":
    {"resume": resume, "fail": fail}[sys.argv[1]](sys.argv[2])
