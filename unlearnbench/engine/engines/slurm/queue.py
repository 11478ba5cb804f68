"""The queue of Slurm: submitting jobs through submitit, which of them live, how one ended, and cancelling."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unlearnbench.engine.engines.engine import EngineError, Need
from unlearnbench.engine.engines.place import Profile
from unlearnbench.engine.engines.slurm.job import Batch
from unlearnbench.errors import UnlearnBenchError

# Slurm's own commands wait for a controller that is away; they are not waited for longer than this.
ANSWER_SECONDS = 60.0
# A job is told so long before its time is over.
WARN_SECONDS = 60
INSTALL = "--on slurm needs submitit\n  pip install 'unlearnbench[slurm]'"


class SlurmQueue:
    """The jobs of one user.

    Args:
        folder: Folder for scripts and logs, which all nodes see.
        profile: What each job asks for.

    Raises:
        UnlearnBenchError: If submitit or Slurm's commands are missing.
    """

    def __init__(self, folder: Path, profile: Profile) -> None:
        self._folder = folder
        self._profile = profile
        try:
            self._submitit = import_module("submitit")
        except ImportError as error:
            raise UnlearnBenchError(INSTALL) from error
        for command in ("sbatch", "squeue", "scancel"):
            if shutil.which(command) is None:
                raise UnlearnBenchError(
                    f"--on slurm: there is no {command} here\n  Run the command on a machine that submits jobs"
                )

    def submit(self, batches: Sequence[Batch], devices: int = 1) -> list[str]:
        """Submit jobs as one array, and return the number of each.

        Args:
            batches: What each job computes.
            devices: Number of devices that a function computes on, each of which takes what the profile says.

        Raises:
            EngineError: If Slurm refuses them.
        """
        executor = self._submitit.SlurmExecutor(self._folder, max_num_timeout=self._profile.resubmit)
        executor.update_parameters(**self._parameters(devices))
        try:
            with executor.batch():
                jobs = [executor.submit(batch) for batch in batches]
        # submitit passes on whatever sbatch makes subprocess raise.
        except Exception as error:
            said = getattr(error, "stderr", None) or str(error)
            text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
            last = next(reversed(text.strip().splitlines()), type(error).__name__)
            raise EngineError(
                f"--on slurm: the jobs were refused: {last}\n"
                "  Mend the profile; unlearnbench doctor --on slurm tries it"
            ) from error
        return [str(job.job_id) for job in jobs]

    def states(self) -> dict[str, str]:
        """Return the state of each job of the user that waits or runs, by its number.

        Raises:
            EngineError: If Slurm does not answer.
        """
        text = self._answer(["squeue", "--me", "--noheader", "--array", "--format=%i|%T"])
        return dict(line.split("|", 1) for line in text.splitlines() if "|" in line)

    def ending(self, job: str) -> str:
        """Return how a job ended, in Slurm's words, or that nobody knows; only accounting does."""
        try:
            lines = self._answer(["sacct", "-X", "-n", "-P", "-o", "State", "-j", job]).split("\n")
        except EngineError:
            lines = []
        return lines[0].strip().lower().replace("_", " ") or "lost" if lines else "lost"

    def cancel(self, jobs: Collection[str]) -> None:
        """Cancel jobs; those that have ended are passed over."""
        if jobs:
            self._answer(["scancel", *sorted(jobs)])

    def _parameters(self, devices: int) -> dict[str, Any]:
        profile = self._profile
        need = Need(profile.cpus, profile.gpus, profile.memory_gib, devices).together
        wanted: dict[str, Any] = {
            "job_name": "unlearnbench",
            "time": profile.minutes,
            "cpus_per_task": max(1, round(need.cpus)),
            "nodes": 1,
            "partition": profile.partition,
            "account": profile.account,
            "mem": f"{round(need.memory_gib * 1024)}MB" if need.memory_gib else None,
            "gpus_per_node": round(need.gpus) if need.gpus else None,
            "setup": list(profile.setup) or None,
            "signal_delay_s": WARN_SECONDS,
            "array_parallelism": profile.jobs_at_once,
            "additional_parameters": dict(profile.options) or None,
        }
        return {key: value for key, value in wanted.items() if value is not None}

    def _answer(self, command: list[str]) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(
                f"slurm: {command[0]} has not answered for {ANSWER_SECONDS:.0f} s\n"
                "  sinfo tells how the cluster is; the same command goes on from what is done"
            ) from error
        if done.returncode and command[0] == "squeue":
            raise EngineError(f"slurm: squeue failed: {done.stderr.strip() or done.returncode}")
        return done.stdout
