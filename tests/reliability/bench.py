"""What trials work with: a small finished run, the command as a process, and a look at what it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from support.commands import Done
from support.manifests import ERWP, FOLNRC, WD, manifest_text, write_manifest
from support.records import comparable_records

from .warm import MARK, WarmProcess

# A command that has been started, whether as a process of its own or as a copy of a warm one.
Running = subprocess.Popen[str] | WarmProcess
# A process of a run may live this long after the run has ended.
END_SECONDS = 5.0
RUN_SECONDS = 300.0


class Bench:
    """The place of the trials.

    Args:
        folder: Folder for everything that trials write.
        environment: Variables that differ from this process's own in every command.
    """

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.environment = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", **(environment or {})}

    @cached_property
    def manifest(self) -> Path:
        """A small manifest: the digits, a narrow network, one seed, three methods, one of which keeps a search."""
        return write_manifest(self.folder, manifest_text(WD, FOLNRC, ERWP))

    @cached_property
    def finished(self) -> Path:
        """The output folder of a run of the manifest that nothing disturbed."""
        done = self.run(self.folder / "finished")
        assert done.code == 0, done.err
        return self.folder / "finished"

    @cached_property
    def seconds(self) -> dict[int, float]:
        """Seconds that an undisturbed run takes at this moment, by its number of jobs."""
        return {jobs: self._timed(jobs) for jobs in (1, 2)}

    def _timed(self, jobs: int) -> float:
        with self.place() as place:
            started = time.monotonic()
            assert self.run(place / "runs", "--jobs", str(jobs)).code == 0
            return time.monotonic() - started

    @contextmanager
    def place(self) -> Iterator[Path]:
        """Make a folder for one trial, which is removed afterwards."""
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def copied(self) -> Iterator[Path]:
        """Copy the finished run for one trial, with the times of its files."""
        with self.place() as place:
            shutil.copytree(self.finished, place / "runs")
            yield place / "runs"

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line of `unlearnbench ARGUMENTS`."""
        return [sys.executable, "-m", "unlearnbench", *map(str, arguments)]

    def start(self, command: Sequence[str], mark: str = "", path: Path | None = None) -> subprocess.Popen[str]:
        """Start a command as the leader of a group of processes, as a terminal does.

        Args:
            command: Command line.
            mark: Mark by which its processes are found; see `alive`.
            path: Folder that is put first on Python's search path.
        """
        paths = [str(folder) for folder in (path, os.environ.get("PYTHONPATH")) if folder]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **self.environment, MARK: mark, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
            # A shell starts what it puts in the background without Ctrl-C, and every process of that inherits this.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def warm(self, *arguments: str | Path, mark: str = "", statements: str = "") -> WarmProcess:
        """Start `unlearnbench ARGUMENTS` as a copy of a process that has imported all that it uses.

        Args:
            arguments: Arguments of the command.
            mark: Mark by which its processes are found; see `alive`.
            statements: Python statements that it runs first.
        """
        told = self.folder / "told"
        told.mkdir(exist_ok=True)
        return WarmProcess([*map(str, arguments)], told, self.environment, mark or uuid.uuid4().hex, statements)

    def ended(self, process: Running) -> Done:
        """Wait for the end of a command; one that takes too long is killed, and says so."""
        try:
            out, err = process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += f"\nkilled after {RUN_SECONDS:g} seconds"
        assert process.returncode is not None
        return Done(process.returncode, out, err)

    def done(self, command: Sequence[str], path: Path | None = None) -> Done:
        """Run a command to its end as a process of its own; see `start`."""
        return self.ended(self.start(command, path=path))

    def arguments(self, output: Path, *others: str) -> list[str]:
        """Return the arguments that run the manifest into a folder."""
        return ["run", str(self.manifest), "-o", str(output), "--device", "cpu", *others]

    def run(self, output: Path, *others: str) -> Done:
        """Run the manifest into a folder."""
        return self.ended(self.warm(*self.arguments(output, *others)))

    def differs(self, output: Path) -> str:
        """Return in what an output folder differs from the undisturbed run, or "" if it does not."""
        expected, found = records_of(self.finished), records_of(output)
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        left = sorted(str(path.relative_to(output)) for path in output.rglob("*") if is_left_over(path))
        parts = [f"other records: {', '.join(wrong)}"] if wrong else []
        return "; ".join([*parts, *([f"left behind: {', '.join(left)}"] if left else [])])


def records_of(output: Path) -> dict[str, dict[str, Any]]:
    """Return what records must have in common, however many cells ran at a time when they were made."""
    records = comparable_records(output)
    for record in records.values():
        record["environment"].pop("jobs", None)
    return records


def is_left_over(path: Path) -> bool:
    """Return whether a path below an output folder is something that a finished run does not leave."""
    return path.name.endswith((".partial", ".tmp", ".writing")) or path.name.startswith(".")


def traceback_in(done: Done) -> str:
    """Return how a command shows that it did not expect what happened, or "" if it does not."""
    if done.code < 0:
        return f"ended by signal {-done.code}"
    said = done.out + done.err
    for word in ("Traceback (most recent call last)", "Exception ignored", "Fatal Python error", "killed after"):
        if word in said:
            return f"{word}: {said.strip().splitlines()[-1][:200]}"
    return ""


def alive(mark: str) -> list[int]:
    """Return the processes that were started with a mark, or by a process that was."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}\0".encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found
