"""Configurations: YAML files with `extends` and overrides from the command line; every key is checked.

A file states only what it changes. The rest comes from the file that it extends, or from the defaults:

    extends: paper/kpac_2level.yaml
    name: two_blocks_wide
    model: {width: 64}

The keys of the `model` section, besides `name`, are options of the network. `kpac.models.registry.resolve_model` checks
them against its signature.
"""

from kpac.config.checks import Section as Section
from kpac.config.checks import Source as Source
from kpac.config.checks import nearest as nearest
from kpac.config.checks import place as place
from kpac.config.checks import validate as validate
from kpac.config.reading import dump_config as dump_config
from kpac.config.reading import load_config as load_config
from kpac.config.reading import read_yaml as read_yaml
from kpac.config.sections import AugmentConfig as AugmentConfig
from kpac.config.sections import ComputeConfig as ComputeConfig
from kpac.config.sections import Config as Config
from kpac.config.sections import DataConfig as DataConfig
from kpac.config.sections import ModelConfig as ModelConfig
from kpac.config.sections import OptimizerConfig as OptimizerConfig
from kpac.config.sections import ScheduleConfig as ScheduleConfig
from kpac.config.sections import StageConfig as StageConfig
