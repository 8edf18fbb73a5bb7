"""`kpac env`: prints versions and devices, for bug reports."""

import argparse
import json

from kpac.commands.arguments import Subcommands, add_command


def add(commands: Subcommands) -> None:
    """Adds the command to the parser."""
    command = add_command(commands, "env", env, "print versions, devices and the code's revision, for a bug report")
    command.add_argument("--json", action="store_true", help="print JSON instead of text")


def env(options: argparse.Namespace) -> None:
    from kpac.cpu import missing
    from kpac.environment import report

    facts = {**report(), "kpac.cpu": f"off: {missing()}" if missing() else "on"}
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    print("\n".join(f"{name:<{width}}  {'-' if value is None else value}" for name, value in facts.items()))
