"""Carries out runs: one by one in this process, or as SLURM jobs."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from kpac.errors import UserError
from kpac.evaluation.results import FILE
from kpac.experiments.progress import can_resume, failure_file, is_evaluated, is_trained, job_file, log_file, state_of
from kpac.experiments.sweep import Run
from kpac.signals import StopRequest

POLL = 2.0  # seconds between two checks of submitted jobs
SIGNAL_POLL = 0.2  # seconds between two checks for a signal


@dataclass(frozen=True, eq=False)
class Job:
    """Trains and evaluates one run in subprocesses, so that a crash does not affect the sweep.

    A second call after an interruption resumes the run. Skips a run that another job is training.
    """

    run: Run
    processes: int = 1  # number of processes, one per GPU; more than one are started with torchrun

    def __call__(self, stop: StopRequest | None = None) -> None:
        if state_of(self.run) == "running":
            return
        log = log_file(self.run)
        log.parent.mkdir(parents=True, exist_ok=True)
        failure_file(self.run).unlink(missing_ok=True)
        with log.open("a", encoding="utf-8") as file:
            for command in self.commands():
                file.write(f"$ kpac {' '.join(command)}\n")
                file.flush()
                status = _finish([*self._launcher(), *command], file, stop)
                if stop and stop.number:
                    raise stop.stopped()
                if status:
                    failure_file(self.run).write_text(f"{_last_line(log)}\n", encoding="utf-8")
                    return

    def checkpoint(self) -> Any:
        """Used by submitit to resubmit the job after SLURM preempts it or its time runs out."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def commands(self) -> Iterator[list[str]]:
        """Yields the remaining commands, as arguments of `kpac`; each depends on the state after the one before."""
        run = self.run
        if not is_trained(run):
            again = ["--overwrite"] if run.folder.is_dir() else []
            yield ["train", *(["--resume", str(run.folder)] if can_resume(run) else [*run.words, *again])]
        for one in run.evaluations:
            if not is_evaluated(run, one):
                # Existing results come from other weights, such as a checkpoint of an earlier command: replace them.
                again = ["--overwrite"] if (one.results / FILE).is_file() else []
                yield ["evaluate", str(run.weights or run.folder), *one.flags, "--output", str(one.results), *again]

    def _launcher(self) -> list[str]:
        several = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes), "-m"]
        return [sys.executable, "-m", *(several if self.processes > 1 else []), "kpac"]


def run_here(jobs: Sequence[Job], after_each: Callable[[Job], None]) -> None:
    """Carries out jobs one by one in this process.

    Raises:
        Stopped: Ctrl-C or SIGTERM; the running job has saved its state.
    """
    with StopRequest() as stop:
        for job in jobs:
            job(stop)
            after_each(job)


def run_submitted(
    jobs: Sequence[Job],
    cluster: Literal["slurm", "local"],
    parameters: dict[str, Any],
    folder: Path,
    after_each: Callable[[Job], None],
    at_once: int | None = None,
) -> None:
    """Carries out jobs with submitit, as SLURM jobs or as processes on this machine.

    Args:
        jobs: jobs to submit.
        cluster: "slurm", or "local" for this machine.
        parameters: parameters of submitit.
        folder: folder for submitit's files.
        after_each: called when a job has ended.
        at_once: number of jobs that are submitted at the same time; None for all.

    Raises:
        UserError: submitit is not installed, or refuses its parameters.
        Stopped: Ctrl-C or SIGTERM; SLURM jobs continue, local ones are cancelled.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise UserError(f"jobs need the package '{error.name}': pip install 'kpac[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**parameters)
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"slurm: {str(error).splitlines()[0]}") from None
    handles = {job: job_of(job, executor, folder) for job in jobs if cluster == "slurm"}
    submitted = {job: handle for job, handle in handles.items() if handle}
    waiting = [job for job in jobs if job not in submitted]
    with StopRequest() as stop:
        while (waiting or submitted) and not stop.number:
            room = len(waiting) if at_once is None else min(len(waiting), at_once - len(submitted))
            if room:
                with executor.batch():
                    started = [(job, executor.submit(job)) for job in waiting[:room]]
                submitted.update(started)
                del waiting[:room]
                for job, handle in started:
                    job_file(job.run).parent.mkdir(parents=True, exist_ok=True)
                    job_file(job.run).write_text(handle.job_id, encoding="utf-8")
            ended = [job for job, handle in submitted.items() if handle.done()]
            for job in ended:
                note_crash(job, submitted.pop(job))
                job_file(job.run).unlink(missing_ok=True)
                after_each(job)
            if not ended:
                time.sleep(POLL)
    if stop.number:
        if cluster == "slurm":
            numbers = ", ".join(handle.job_id for handle in submitted.values())
            raise stop.stopped(f"; the jobs {numbers} continue")
        for job, handle in submitted.items():
            handle.cancel()
            job_file(job.run).unlink(missing_ok=True)
        raise stop.stopped()


def job_of(job: Job, executor: Any, folder: Path) -> Any:
    """Handle of a job that an earlier command submitted and that has not ended; None if there is none.

    Args:
        job: the job to look for.
        executor: submitit's executor.
        folder: folder of submitit's files.
    """
    if not job_file(job.run).is_file():
        return None
    handle = executor.job_class(folder, job_file(job.run).read_text(encoding="utf-8").strip())
    return None if handle.done() else handle


def note_crash(job: Job, handle: Any) -> None:
    """Records the failure of a job that was killed, or ran out of memory or time."""
    error = handle.exception()
    if error is not None and not failure_file(job.run).is_file():
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        failure_file(job.run).parent.mkdir(parents=True, exist_ok=True)
        failure_file(job.run).write_text(f"job {handle.job_id}: {last}\n", encoding="utf-8")


def _finish(command: list[str], log: TextIO, stop: StopRequest | None) -> int:
    """Runs a command to its end; on a stop request, sends it SIGTERM once and waits until it has saved.

    The command runs in a new session, so that Ctrl-C on the terminal reaches only this process. A training run that
    received two signals would end without saving.
    """
    with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True) as process:
        while True:
            try:
                return process.wait(timeout=SIGNAL_POLL)
            except subprocess.TimeoutExpired:
                if stop and stop.number:
                    process.terminate()
                    return process.wait()
            except (SystemExit, KeyboardInterrupt):  # submitit raises these to end a job early
                process.terminate()
                process.wait()
                raise


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("kpac: ")]
    return (own or lines or ["no output"])[-1].removeprefix("kpac: ")
