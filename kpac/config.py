"""The schema of a YAML file: every section, `extends`, overrides from the command line, checks.

A file states what it means to vary and takes the rest from the file it extends, or from the defaults below:

    extends: paper/kpac_2level.yaml
    name: two_blocks_wide
    model: {width: 64}

The `model` section is open: its keys besides `name` are the options of the network of that name, which
`kpac.models.registry.resolve_model` checks against the network's own signature.
"""

import copy
import difflib
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from pydantic_core import ErrorDetails

from kpac.errors import UserError

Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, le=1, strict=True)]  # strict: "gray: true" would mean always
Scale = Annotated[float, Field(gt=0, le=1)]
Deviation = Annotated[float, Field(gt=0)]


SectionType = TypeVar("SectionType", bound=BaseModel)
Source = tuple[str, dict[str, Any]]  # where values were written, and the values


class Section(BaseModel):
    """A part of the configuration: typed, closed (a key that is not declared is an error), with documented keys."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True)


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("should have its smaller value first")
    return bounds


class ModelConfig(Section):
    model_config = ConfigDict(extra="allow")

    name: str = "kpac_2level"
    """A registered network; the other keys of this section are its options. A file that names another network than the
    one it extends drops that one's options."""

    @property
    def options(self) -> dict[str, Any]:
        """The keys besides `name`."""
        return dict(self.model_extra or {})


class ScaleConfig(Section):
    range: Annotated[tuple[Scale, Scale], AfterValidator(_ascending)]
    """Smallest and largest factor of the size, drawn evenly between them. IFAN: [0.7, 1.0]."""
    probability: Probability
    """Share of the crops that are scaled. IFAN: 0.5."""


class NoiseConfig(Section):
    deviation: Annotated[tuple[Deviation, Deviation], AfterValidator(_ascending)]
    """Smallest and largest standard deviation, where white is 1, drawn evenly between them. IFAN: 0.001 and the root of
    0.005, about 0.0707."""
    probability: Probability
    """Share of the crops that get noise. IFAN: 0.05."""


class AugmentConfig(Section):
    """Random changes of training crops, all off unless asked for, the same for all views and the target of a scene.

    "IFAN" is the published training code of Lee et al., CVPR 2021, by the same group. "Ours" has no published source.
    """

    flip: bool = False
    """Mirror left-right and top-bottom, each with probability one half; dual-pixel views then change places. Ours."""
    rotate: bool = False
    """Turn by 0, 90, 180 or 270 degrees, each as likely; not for dual-pixel views. Ours."""
    scale: ScaleConfig | None = None
    """Reduce by area averaging. The crop keeps its size and shows more of the scene, as far as the image reaches."""
    gray: Probability = 0.0
    """Share of the crops that lose their colour (luma of ITU-R BT.709). IFAN: 0.3."""
    noise: NoiseConfig | None = None
    """Add Gaussian noise to the inputs, to each view its own, and not to the target."""


class DataConfig(Section):
    root: Path
    """Folder of the data set; relative to the working directory."""
    layout: str = "auto"
    """How the data set lies on disk, a name from data/README.md; "auto" looks."""
    skip_unreadable: bool = False
    """Go on without the scenes that have an unreadable image, naming each, instead of stopping."""
    crop: Positive = 256
    """Side of the square training crops, in pixels."""
    augment: AugmentConfig = AugmentConfig()
    """How crops are changed at random; see docs/augmentation.md."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that prepare batches; 0 prepares them in the training process."""
    cache: Path | None = None
    """Folder for decoded images; by default `.kpac-cache` inside `root`, or the user's cache when that is read-only."""


class OptimizerConfig(Section):
    name: Literal["adam"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)


class ScheduleConfig(Section):
    name: Literal["constant", "cosine"] = "cosine"
    """How the learning rate goes from its start to the end of the training."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Iterations of linear growth from zero."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last learning rate of the cosine, as a fraction of the first."""


class ComputeConfig(Section):
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the convolutions of training steps (autocast); weights, losses and validation stay float32.
    "auto" is bfloat16 on GPUs that have it, else float32."""
    tf32: bool = True
    """Lets a GPU round the factors of float32 products to TF32's 10 bits."""
    channels_last: bool | None = None
    """Keeps the channels of a pixel together in memory; null: on GPUs."""
    compile: bool = False
    """Compiles the network with torch.compile: slow first steps, once for every crop size, faster later ones."""
    fused_optimizer: bool | None = None
    """One kernel for the optimizer's step, which also skips a step on the device itself; null: on GPUs."""
    prefetch: bool | None = None
    """Pins batches in memory and copies the next one to the GPU during a step; null: on GPUs."""


class CheckpointConfig(Section):
    every: Positive = 1000
    """Iterations between two training checkpoints; every validation is followed by one."""
    keep: Positive = 3
    """The newest checkpoints that stay, besides that of the best validation."""


class StageConfig(Section):
    until: Positive
    """Last iteration of the stage."""
    crop: Positive
    """Side of its crops, in pixels."""
    batch_size: Positive
    """Crops a step, over all devices together."""


class TrainConfig(Section):
    iterations: Positive
    """Optimizer steps."""
    batch_size: Positive = 8
    """Crops a step, over all devices together."""
    losses: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)] = {"l1": 1.0}
    """Terms of the training loss and their weights; see `kpac.training.losses`."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    gradient_norm: Annotated[float, Field(gt=0)] = 0.5
    """Longer gradients are scaled down to this norm."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Averages the weights over the iterations, with this share of the old average kept; the average is validated and
    saved as the weights. Null for none."""
    initial_weights: Path | None = None
    """A .safetensors file, or a run's folder, of the same network to start from."""
    accumulate: Positive = 1
    """Parts that each process computes its share of a batch in, one after the other: the same step in less memory."""
    progressive: list[StageConfig] = []
    """Earlier stages with crops and batches of other sizes, as Restormer trains; after the last one's `until`,
    `data.crop` and `train.batch_size` hold."""
    skip_limit: Positive = 20
    """A step whose loss or gradient is not finite is skipped; so many in a row end the run."""
    compute: ComputeConfig = ComputeConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log_every: Positive = 100
    """Iterations between two lines of metrics.jsonl."""
    profile: bool = False
    """Writes a trace of a few steps to `profile/` in the run's folder, for Perfetto or chrome://tracing."""
    wandb: str | None = None
    """A Weights & Biases project that gets the numbers too; needs the package `wandb`."""

    @field_validator("progressive")
    @classmethod
    def _in_order(cls, stages: list[StageConfig]) -> list[StageConfig]:
        ends = [stage.until for stage in stages]
        if sorted(set(ends)) != ends:
            raise ValueError("must have stages in the order of their 'until', each later than the one before")
        return stages


class ValidationConfig(Section):
    every: Positive = 5000
    """Iterations between two validations; the last iteration always validates."""
    protocol: str = "dpdd-8bit"
    """How the validation numbers are computed; see `kpac.evaluation.protocols`."""
    samples: Annotated[int, Field(ge=0)] = 2
    """Validation scenes whose images are shown in TensorBoard."""


class Config(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run; its folder is `runs/NAME`."""
    runs: Path = Path("runs")
    """Folder of all runs; relative to the working directory."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the initial weights, the order of the scenes and every random draw."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto" takes a CUDA device when there is one."""
    plugins: list[str] = []
    """Python files or modules to run first, which register networks of your own; see docs/your_network.md."""
    model: ModelConfig = ModelConfig()
    data: DataConfig
    train: TrainConfig
    validation: ValidationConfig = ValidationConfig()

    _sources: list[Source] = PrivateAttr(default_factory=list)

    @property
    def sources(self) -> list[Source]:
        """The files and overrides that this configuration was read from, the strongest last; for messages."""
        return self._sources

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.runs / self.name

    @property
    def stages(self) -> list[StageConfig]:
        """The crops of the whole training: the progressive stages, and what holds after them."""
        train = self.train
        earlier = [stage for stage in train.progressive if stage.until < train.iterations]
        final = next((stage for stage in train.progressive if stage.until >= train.iterations), None)
        crop, batch_size = (final.crop, final.batch_size) if final else (self.data.crop, train.batch_size)
        return [*earlier, StageConfig(until=train.iterations, crop=crop, batch_size=batch_size)]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file, what it extends, and overrides, and checks the whole.

    Args:
        path: the YAML file. `extends: other.yaml` inside is relative to the file that says it.
        overrides: dotted assignments, `train.iterations=500`; values are YAML. Each sets its key and nothing beside it.

    Raises:
        UserError: a file is missing or not YAML, a key is unknown (the nearest valid one is named), a value has
            the wrong type or range. The message names the file, or the override, that said it.
    """
    files = list(_read_chain(Path(path)))
    assignments = [_parse_override(text) for text in overrides]
    merged: dict[str, Any] = {"model": {"name": ModelConfig.model_fields["name"].default}}
    for _, tree in files:
        _merge(merged, copy.deepcopy(tree))
    for keys, value in assignments:
        _assign(merged, keys, value)
    sources = files + [
        (f"override '{text}'", _nest(keys, value)) for text, (keys, value) in zip(overrides, assignments, strict=True)
    ]
    config = validate(Config, merged, sources)
    config._sources = sources
    return config


def dump_config(config: Config) -> str:
    """The configuration, defaults included, as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def validate(
    schema: type[SectionType], values: dict[str, Any], sources: Iterable[Source] = (), under: str = ""
) -> SectionType:
    """Checks values against a schema and turns what pydantic finds into one line.

    Args:
        schema: the section's class.
        values: what was read.
        sources: every place that contributed, the strongest last; errors name the place.
        under: dotted prefix of the section, for messages.

    Raises:
        UserError: the first problem, and how many there are besides.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        # The mistyped key before the missing one that it should have been.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    location, problem = _sentence(schema, problems[0])
    key = ".".join([*([under] if under else []), *map(str, location)])
    prefix = key[: -len(str(location[-1]))] if location else ""
    where = next((f"{name}: " for name, tree in reversed(list(sources)) if _has(tree, key)), "")
    keys = [list(other["loc"]) for other in problems]
    others = {".".join(map(str, other)) for other in keys if other != location[: len(other)]}
    more = f" (and {len(others)} more)" if others else ""
    raise UserError(where + problem.replace("{key}", key).replace("{prefix}", prefix) + more)


def nearest(word: str, choices: Iterable[str], prefix: str = "") -> str:
    """What to say after a mistyped word: "; did you mean 'x'?" for the nearest choice, else the list of them.

    Args:
        word: what was found.
        choices: what is valid.
        prefix: put before the nearest choice.
    """
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"; did you mean '{prefix}{close[0]}'?" if close else f"; expected one of: {', '.join(choices)}"


def _sentence(schema: type[BaseModel], problem: ErrorDetails) -> tuple[list[str | int], str]:
    """A pydantic problem: its location, and a sentence with places for the dotted key and its siblings' prefix."""
    location = list(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return (
            location,
            f"unknown key '{{key}}'{nearest(str(location[-1]), _fields(schema, location[:-1]), '{prefix}')}",
        )
    if problem["type"] == "missing":
        return location, "the key '{key}' is missing, and has no default"
    if problem["type"] == "value_error" and not location:
        return location, problem["msg"].removeprefix("Value error, ")
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    found = "nothing" if problem["input"] is None else repr(problem["input"])
    return location, f"'{{key}}' {expected}, found {found}"


def _fields(schema: Any, location: Sequence[str | int]) -> Iterable[str]:
    """The valid keys of the section at a location; a section may be a pydantic model or a typed dictionary."""
    for part in location:
        annotation = get_type_hints(schema)[str(part)]
        schema = next(choice for choice in (*get_args(annotation), annotation) if hasattr(choice, "__annotations__"))
    return schema.model_fields if issubclass(schema, BaseModel) else get_type_hints(schema)


def _has(tree: Any, key: str) -> bool:
    """Whether a tree says something about a dotted key."""
    for part in key.split("."):
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        else:
            return isinstance(tree, list)
    return True


def _read_chain(path: Path) -> Iterator[Source]:
    """The files that a file extends, farthest first, and the file itself."""
    chain: list[Source] = []
    seen: set[Path] = set()
    while True:
        if path.resolve() in seen:
            raise UserError(f"{path}: 'extends' leads back to a file that extends this one; remove one of the two")
        seen.add(path.resolve())
        tree = _read_yaml(path)
        parent = tree.pop("extends", None)
        chain.append((str(path), tree))
        if parent is None:
            return reversed(chain)
        path = path.parent / str(parent)


def _parse_override(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise UserError(f"override '{text}': expected key=value, such as train.iterations=500")
    try:
        return key.split("."), yaml.load(value, Loader=_Loader)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"override '{text}': the value is not YAML") from None


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    """Sets one dotted key, and nothing beside it."""
    for key in keys[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[keys[-1]] = value


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _merge(base: dict[str, Any], update: dict[str, Any], at: tuple[str, ...] = ()) -> None:
    """Puts a child's tree into its parent's: sections merge, anything else replaces."""
    for key, value in update.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and not _replaces((*at, key), old, value):
            _merge(old, value, (*at, key))
        else:
            base[key] = value


def _replaces(at: tuple[str, ...], old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a child's mapping is another thing than its parent's: other losses, or another network."""
    return at == ("train", "losses") or (at == ("model",) and new.get("name", old["name"]) != old["name"])


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 as a number, as YAML 1.2 does, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused below
            if key in seen:
                problem = f"the key '{key}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        siblings = [str(other) for other in path.parent.glob("*.yaml")]
        hint = nearest(str(path), siblings) if siblings else ""
        raise UserError(f"{path}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a YAML file ({error})") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected sections such as 'model:' and 'train:', found {type(tree).__name__}")
    return tree
