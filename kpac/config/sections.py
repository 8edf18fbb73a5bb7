"""The configuration's schema: every section, its keys, their types, ranges and defaults."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from kpac.config.checks import Section, Source
from kpac.files import from_home

Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, le=1, strict=True)]  # strict: otherwise "gray: true" would mean 1
Scale = Annotated[float, Field(gt=0, le=1)]
Deviation = Annotated[float, Field(gt=0)]
UserPath = Annotated[Path, AfterValidator(from_home)]  # "~" is the user's home


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("should have its smaller value first")
    return bounds


def _increasing(values: list[int]) -> list[int]:
    if sorted(set(values)) != values:
        raise ValueError("should increase")
    return values


RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _name_of_a_folder(name: str) -> str:
    if not re.fullmatch(RUN_NAME, name):
        raise ValueError("should start with a letter or a digit, and hold only these, '.', '_' and '-'")
    return name


class ModelConfig(Section):
    model_config = ConfigDict(extra="allow")

    name: str = "kpac_2level"
    """A registered network; the other keys of this section are its options. If a file names another network than the
    file that it extends, it does not inherit that network's options."""

    @property
    def options(self) -> dict[str, Any]:
        """The network's options: all keys besides `name`."""
        return dict(self.model_extra or {})


class ScaleConfig(Section):
    range: Annotated[tuple[Scale, Scale], AfterValidator(_ascending)]
    """Range of the scale factor, drawn uniformly. IFAN: [0.7, 1.0]."""
    probability: Probability
    """Share of the crops that are scaled. IFAN: 0.5."""


class NoiseConfig(Section):
    deviation: Annotated[tuple[Deviation, Deviation], AfterValidator(_ascending)]
    """Range of the standard deviation, where white is 1; drawn uniformly. IFAN: 0.001 to the square root of 0.005,
    about 0.0707."""
    probability: Probability
    """Share of the crops that get noise. IFAN: 0.05."""


class AugmentConfig(Section):
    """Random augmentation of training crops, the same for all views and the target of a scene; all off by default.

    "IFAN" refers to the published training code of Lee et al., CVPR 2021, by the same group as KPAC. "Ours" has no
    published source.
    """

    flip: bool = False
    """Mirror left-right and top-bottom, each with probability 0.5; dual-pixel views are swapped accordingly. Ours."""
    rotate: bool = False
    """Rotate by 0, 90, 180 or 270 degrees with equal probability; not for dual-pixel views. Ours."""
    scale: ScaleConfig | None = None
    """Reduce by area averaging. The crop keeps its size and shows more of the scene, if the image is large enough."""
    gray: Probability = 0.0
    """Share of the crops that are converted to gray (luma of ITU-R BT.709). IFAN: 0.3."""
    noise: NoiseConfig | None = None
    """Add Gaussian noise to the inputs, independently for each view, and not to the target."""


class DataConfig(Section):
    root: UserPath
    """Folder of the data set; relative to the working directory."""
    layout: str = "auto"
    """Layout of the data set on disk, a name from data/README.md; "auto" detects it."""
    pair_by_order: bool = False
    """Pair inputs with targets, and with other views, by the sorted order of their names. By default they are paired by
    matching names, and it is an error if the names do not show which images belong together."""
    skip_unreadable: bool = False
    """Leave out scenes with an unreadable image, with a warning for each, instead of stopping."""
    crop: Positive = 256
    """Side of the square training crops, in pixels."""
    augment: AugmentConfig = AugmentConfig()
    """Random augmentation of crops; see docs/augmentation.md."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Data workers per rank; 0 prepares batches in the training process. Null: on a GPU, one less than the cores that
    the rank may use, at most 14; on a CPU, two. The batches do not depend on this number."""
    cache: UserPath | None = None
    """Folder for decoded images; by default `.kpac-cache` inside `root`, or the user's cache if `root` is read-only."""


class ParameterGroupConfig(Section):
    """A parameter group with its own learning rate or weight decay."""

    parameters: Annotated[list[str], Field(min_length=1)]
    """Patterns of parameter names, such as "*scale_attention*"; `kpac info` prints the names of a network's parts."""
    learning_rate_scale: Annotated[float, Field(ge=0)] = 1.0
    """Learning rate of the group, as a fraction of `learning_rate`; 0 freezes the parameters."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Weight decay of the group, for adamw only; null: the weight decay of the optimizer."""


class OptimizerConfig(Section):
    name: Literal["adam", "adamw"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay, for adamw only: each step subtracts this share of every parameter, times the learning rate."""
    groups: dict[str, ParameterGroupConfig | None] = {}
    """Parameter groups with separate settings; you choose their names. Each parameter is in one group at most. Null
    removes a group of the extended file."""

    @model_validator(mode="after")
    def _check(self) -> "OptimizerConfig":
        decays = {"": self.weight_decay, **{f"groups.{name}.": g.weight_decay for name, g in self.groups.items() if g}}
        for prefix, decay in decays.items():
            if decay and self.name != "adamw":
                raise ValueError(f"'{{prefix}}{prefix}weight_decay' is for adamw, the optimizer is {self.name}")
        return self


SCHEDULE_KEYS = {
    "constant": [],
    "step": ["milestones", "factor"],
    "cosine": ["final"],
    "cyclic": ["periods", "finals"],
}


class ScheduleConfig(Section):
    """Learning-rate schedule. A file that names another schedule than the file it extends inherits none of its keys."""

    name: Literal["constant", "step", "cosine", "cyclic"] = "cosine"
    """constant; step: multiplied by `factor` at each milestone; cosine: falls from 1 to `final` over the training;
    cyclic: falls from 1 to `finals[i]` over `periods[i]` as a cosine, for each i (as in Restormer)."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Iterations of linear warm-up from zero, with any schedule."""
    milestones: Annotated[list[Positive], Field(min_length=1), AfterValidator(_increasing)] | None = None
    """For step: iterations after which the rate falls."""
    factor: Annotated[float, Field(gt=0, le=1)] | None = None
    """For step: factor of the rate at each milestone; 0.5 by default."""
    final: Annotated[float, Field(ge=0, le=1)] | None = None
    """For cosine: the last rate, as a fraction of the first; 0 by default."""
    periods: Annotated[list[Positive], Field(min_length=1)] | None = None
    """For cyclic: lengths of the periods in iterations; after the last period, the rate is constant."""
    finals: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    """For cyclic: the rate at the end of each period, as a fraction of the first; 1 keeps it constant."""

    @model_validator(mode="after")
    def _check(self) -> "ScheduleConfig":
        for name, keys in SCHEDULE_KEYS.items():
            strange = [key for key in keys if name != self.name and getattr(self, key) is not None]
            if strange:
                raise ValueError(f"'{{prefix}}{strange[0]}' belongs to the schedule {name}, found {self.name}")
        if self.name == "step" and self.milestones is None:
            raise ValueError("the schedule step needs '{prefix}milestones'")
        if self.name == "cyclic" and (not self.periods or len(self.periods) != len(self.finals or [])):
            raise ValueError("the schedule cyclic needs '{prefix}periods' and '{prefix}finals', of equal length")
        return self


class ComputeConfig(Section):
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the convolutions of training steps (autocast); weights, losses and validation stay float32.
    "auto" is bfloat16 on GPUs that have it, else float32."""
    tf32: bool = True
    """Uses TF32 on a GPU: it rounds the factors of float32 products to 10 bits of mantissa."""
    channels_last: bool | None = None
    """Uses the channels-last memory layout; null: on GPUs."""
    compile: bool = False
    """Compiles the network with torch.compile: the first steps with each crop size are slow, later ones are faster."""
    accelerate: bool | None = None
    """Computes KPAC's layers with loops compiled for the processor (`kpac.cpu`, the extra `cpu`); null: on CPUs."""
    threads: Positive | None = None
    """Number of CPU threads of a process; null: PyTorch's own choice. A small network trains faster with one."""
    cuda_graphs: bool = False
    """Replays the compiled network as CUDA graphs, which saves kernel launches; needs `compile` and a GPU."""
    cudnn_benchmark: bool | None = None
    """Lets cuDNN time its algorithms once for every crop size and use the fastest; null: on GPUs, unless
    `deterministic`."""
    deterministic: bool = False
    """Uses only deterministic algorithms, so that a resumed run on a GPU is bit-identical to an uninterrupted one.
    Slower; a CPU is deterministic without it."""
    fused_optimizer: bool = True
    """Computes the optimizer's step in one fused kernel, which also skips bad steps without a synchronisation."""
    prefetch: bool | None = None
    """Puts batches in pinned memory, and copies the next one to the GPU during a step; null: on GPUs."""

    @model_validator(mode="after")
    def _check(self) -> "ComputeConfig":
        if self.cuda_graphs and not self.compile:
            raise ValueError("'{prefix}cuda_graphs' replays the compiled network; set '{prefix}compile' to true, too")
        if self.deterministic and self.cudnn_benchmark:
            raise ValueError(
                "'{prefix}cudnn_benchmark' may choose another algorithm in each process; set it or "
                "'{prefix}deterministic' to false"
            )
        return self


class CheckpointConfig(Section):
    every: Positive = 1000
    """Iterations between two training checkpoints; one is also saved after every validation."""
    keep: Positive = 3
    """Number of newest checkpoints to keep, besides the best one by validation."""


class StageConfig(Section):
    until: Positive
    """Last iteration of the stage."""
    crop: Positive
    """Side of the stage's crops, in pixels."""
    batch_size: Positive
    """Crops per step, over all ranks."""


class TrainConfig(Section):
    iterations: Positive
    """Number of optimizer steps."""
    batch_size: Positive = 8
    """Crops per step, over all ranks."""
    losses: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)] = {"l1": 1.0}
    """Terms of the training loss and their weights: l1, mse, charbonnier, psnr, ssim, frequency, perceptual."""
    perceptual_weights: UserPath | None = None
    """File with torchvision's VGG-19 weights for the perceptual loss; by default in torchvision's cache, downloaded
    once."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    gradient_norm: Annotated[float, Field(gt=0)] = 0.5
    """Gradient clipping: gradients with a larger norm are scaled down to this norm."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keeps an exponential moving average of the weights, with this share of the old average at each step; the average
    is validated and saved. Null for none."""
    initial_weights: UserPath | None = None
    """Initial weights of the same network: a .safetensors file, or a run's folder."""
    accumulate: Positive = 1
    """Gradient-accumulation steps per rank: the same optimizer step in less memory."""
    progressive: list[StageConfig] = []
    """Progressive training as in Restormer: earlier stages with other sizes of crops and batches. After the last
    stage's `until`, `data.crop` and `train.batch_size` are used."""
    skip_limit: Positive = 20
    """Steps whose loss or gradient is not finite are skipped; this many in a row end the run."""
    compute: ComputeConfig = ComputeConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log_every: Positive = 100
    """Iterations between two lines of metrics.jsonl."""
    profile: bool = False
    """Writes a trace of a few steps to `profile/` in the run's folder, for Perfetto or chrome://tracing."""
    wandb: str | None = None
    """Weights & Biases project that also receives the metrics; needs the package `wandb`."""

    @field_validator("progressive")
    @classmethod
    def _in_order(cls, stages: list[StageConfig]) -> list[StageConfig]:
        ends = [stage.until for stage in stages]
        if sorted(set(ends)) != ends:
            raise ValueError("should have stages with increasing 'until'")
        return stages


class ValidationConfig(Section):
    every: Positive = 5000
    """Iterations between two validations; the last iteration always validates."""
    protocol: str = "dpdd-8bit"
    """Protocol of the validation scores; see `kpac.evaluation.protocols`."""
    samples: Annotated[int, Field(ge=0)] = 2
    """Number of validation scenes whose images are shown in TensorBoard."""


class Config(Section):
    name: Annotated[str, AfterValidator(_name_of_a_folder), Field(json_schema_extra={"pattern": RUN_NAME})]
    """Name of the run; its folder is `runs/NAME`."""
    runs: UserPath = Path("runs")
    """Folder of all runs; relative to the working directory."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the initial weights, the order of the scenes and all random draws."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """auto (a CUDA device when there is one), cpu, cuda, cuda:N or mps."""
    plugins: list[str] = []
    """Python files or modules to run first, which register networks of your own; see docs/your_network.md."""
    model: ModelConfig = ModelConfig()
    data: DataConfig
    train: TrainConfig
    validation: ValidationConfig = ValidationConfig()

    _sources: list[Source] = PrivateAttr(default_factory=list)

    @property
    def sources(self) -> list[Source]:
        """The files and overrides that this configuration was read from, those of highest precedence last."""
        return self._sources

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.runs / self.name

    @property
    def stages(self) -> list[StageConfig]:
        """All stages of the training: the progressive ones, then one with `data.crop` and `train.batch_size`."""
        train = self.train
        earlier = [stage for stage in train.progressive if stage.until < train.iterations]
        final = next((stage for stage in train.progressive if stage.until >= train.iterations), None)
        crop, batch_size = (final.crop, final.batch_size) if final else (self.data.crop, train.batch_size)
        return [*earlier, StageConfig(until=train.iterations, crop=crop, batch_size=batch_size)]
