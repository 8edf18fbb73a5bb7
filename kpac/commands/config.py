"""`kpac config`: shows configurations and their schema."""

import argparse
import json

from kpac.commands.arguments import Subcommands, add_command, add_config_arguments, add_group, add_plugin_argument


def add(commands: Subcommands) -> None:
    """Adds the commands to the parser."""
    groups = add_group(commands, "config", "show configurations and their schema")
    add_config_arguments(
        add_command(
            groups, "show", config_show, "check a configuration, and print it with all inherited and default values"
        )
    )
    command = add_command(groups, "schema", config_schema, "print the JSON schema of configurations, for editors")
    add_plugin_argument(command)


def config_show(options: argparse.Namespace) -> None:
    from kpac.config import dump_config, load_config
    from kpac.evaluation.protocols import find_protocol
    from kpac.models.registry import resolve_model
    from kpac.training.losses import check_losses

    config = resolve_model(load_config(options.config, options.overrides))
    check_losses(config.train.losses)
    find_protocol(config.validation.protocol)
    print(dump_config(config), end="")


def config_schema(options: argparse.Namespace) -> None:
    from kpac.models.registry import config_schema, load_plugins

    load_plugins(options.plugin)
    print(json.dumps(config_schema(), indent=2))
