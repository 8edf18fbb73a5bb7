"""`kpac ablate` and `kpac reproduce`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kpac.commands.arguments import Subcommands, add_command, add_group, positive, say
from kpac.errors import Stopped

if TYPE_CHECKING:
    from kpac.experiments.jobs import Job
    from kpac.experiments.sweep import Sweep
    from kpac.reporting.comparison import Table


def add(commands: Subcommands) -> None:
    """Adds the commands to the parser."""
    command = add_command(
        commands, "ablate", ablate, "train and evaluate every run of a sweep, and write a table and figures"
    )
    command.add_argument("sweep", type=Path, metavar="SWEEP", help="a YAML file, such as those in configs/ablation")
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings of all runs, such as data.root=DIR"
    )
    _execution_arguments(command)

    groups = add_group(commands, "reproduce", "reproduce published results")
    command = add_command(groups, "paper", paper, "the paper's networks on DPDD, beside the published numbers")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="settings of all trainings")
    command.add_argument("--dpdd", type=Path, required=True, metavar="DIR", help="DPDD's folder")
    command.add_argument(
        "--network",
        action="append",
        metavar="NAME",
        help="kpac_2level, kpac_3level or kpac_dual; repeatable (default: all three)",
    )
    command.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="evaluate these weights and do not train their network; repeatable",
    )
    command.add_argument(
        "--configs",
        type=Path,
        default=Path("configs/paper"),
        metavar="DIR",
        help="the paper's configurations (default: configs/paper)",
    )
    _execution_arguments(command)


def _execution_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments that say how to execute the runs."""
    command.add_argument("--dry-run", action="store_true", help="show the plan and its cost; start nothing")
    command.add_argument("--retry", action="store_true", help="repeat the runs that failed")
    command.add_argument(
        "--executor",
        choices=("here", "slurm", "local"),
        default="here",
        help="how to execute runs: one by one in this process, as SLURM jobs, or as local jobs of submitit "
        "(default: here)",
    )
    command.add_argument(
        "--processes", type=positive, default=1, metavar="N", help="processes per run, one per GPU (default: 1)"
    )
    command.add_argument(
        "--at-once", type=positive, metavar="N", help="jobs at the same time (default: local 1, slurm all)"
    )


def ablate(options: argparse.Namespace) -> int:
    from kpac.experiments.progress import check_data
    from kpac.experiments.report import write_report
    from kpac.experiments.sweep import load_sweep

    sweep = load_sweep(options.sweep, options.overrides)
    check_data(sweep.runs)
    return _carry_out(sweep, options, write_report)


def paper(options: argparse.Namespace) -> int:
    from kpac.experiments.paper import NETWORKS, check_dpdd, check_networks, needs, paper_sweep, write_paper_report
    from kpac.experiments.progress import state_of

    networks = list(dict.fromkeys(options.network or NETWORKS))
    check_networks(networks)
    sweep = paper_sweep(options.dpdd, networks, options.checkpoint, options.configs, options.overrides)
    for line in needs(sweep):
        say(f"needs: {line}")
    if not options.dry_run and any(state_of(run) != "finished" for run in sweep.runs):
        for verdict in check_dpdd(sweep):
            say(verdict)
    return _carry_out(sweep, options, write_paper_report)


def _carry_out(
    sweep: Sweep, options: argparse.Namespace, write_report: Callable[[Sweep], tuple[Table | None, list[Path]]]
) -> int:
    """Carries out the unfinished runs of a sweep and prints the results; returns the exit status."""
    from kpac.experiments.jobs import Job, run_here, run_submitted
    from kpac.experiments.progress import check_unchanged, state_of
    from kpac.experiments.report import failures, plan_table
    from kpac.reporting.formats import markdown

    for run in sweep.runs:
        check_unchanged(run)
    if options.dry_run:
        print(plan_table(sweep))
        return 0
    left = ("planned", "begun", "trained", *(["failed"] if options.retry else []))
    jobs = [Job(run, options.processes) for run in sweep.runs if state_of(run) in left]
    say(f"{sweep.folder}: {len(jobs)} of {len(sweep.runs)} runs to do, logs in {sweep.folder / 'logs'}")

    def after_each(job: Job) -> None:
        say(f"{job.run.folder}: {state_of(job.run)}")
        write_report(sweep)

    try:
        if options.executor == "here":
            run_here(jobs, after_each)
        else:
            at_once = options.at_once or (1 if options.executor == "local" else None)
            run_submitted(jobs, options.executor, sweep.slurm, sweep.folder / "jobs", after_each, at_once)
    except Stopped as stop:
        done = sum(state_of(run) == "finished" for run in sweep.runs)
        raise Stopped(
            f"{stop}; {done} of {len(sweep.runs)} runs are finished; repeat the command to continue", stop.status
        ) from None
    table, written = write_report(sweep)
    if table:
        print(markdown(table))
        print(f"{sweep.folder}: {', '.join(path.name for path in written)}")
    for run in sweep.runs:
        if state_of(run) == "running":
            say(f"{run.folder}: another process is training this run; repeat the command after it ends")
    failed = failures(sweep)
    for line in failed:
        say(f"kpac: {line}; --retry tries it again")
    return int(bool(failed))
