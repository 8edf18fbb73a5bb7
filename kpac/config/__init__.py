"""Configurations: YAML files with `extends` and overrides from the command line; every key is checked.

A file states only what it changes. The rest comes from the file that it extends, or from the defaults:

    extends: paper/kpac_2level.yaml
    name: two_blocks_wide
    model: {width: 64}

The keys of the `model` section, besides `name`, are options of the network. `kpac.models.registry.resolve_model` checks
them against its signature.
"""

from kpac.config.checks import Section, Source, nearest, place, validate
from kpac.config.reading import dump_config, load_config, read_yaml
from kpac.config.sections import (
    AugmentConfig,
    CheckpointConfig,
    ComputeConfig,
    Config,
    DataConfig,
    ModelConfig,
    NoiseConfig,
    OptimizerConfig,
    ParameterGroupConfig,
    ScaleConfig,
    ScheduleConfig,
    StageConfig,
    TrainConfig,
    ValidationConfig,
)

__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "ModelConfig",
    "NoiseConfig",
    "OptimizerConfig",
    "ParameterGroupConfig",
    "ScaleConfig",
    "ScheduleConfig",
    "Section",
    "Source",
    "StageConfig",
    "TrainConfig",
    "ValidationConfig",
    "dump_config",
    "load_config",
    "nearest",
    "place",
    "read_yaml",
    "validate",
]
