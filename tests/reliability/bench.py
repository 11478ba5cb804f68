"""What trials work with: a small finished run, the command as a process, and a look at what it leaves behind."""

from __future__ import annotations

import os
import shutil
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
from support.manifests import FOLNRC, WD, manifest_text, write_manifest
from support.records import comparable_records

MARK = "UNLEARNBENCH_TRIAL"
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
        """A small manifest: the digits, a narrow network, one seed, two methods."""
        return write_manifest(self.folder, manifest_text(WD, FOLNRC))

    @cached_property
    def finished(self) -> Path:
        """The output folder of a run of the manifest that nothing disturbed."""
        done = self.run(self.folder / "finished")
        assert done.code == 0, done.err
        return self.folder / "finished"

    @cached_property
    def seconds(self) -> float:
        """Seconds that an undisturbed run takes at this moment."""
        with self.place() as place:
            started = time.monotonic()
            assert self.run(place / "runs").code == 0
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
        )

    def done(self, command: Sequence[str], path: Path | None = None) -> Done:
        """Run a command to its end; see `start`."""
        process = self.start(command, path=path)
        try:
            out, err = process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += f"\nkilled after {RUN_SECONDS:g} seconds"
        return Done(process.returncode, out, err)

    def run(self, output: Path, *arguments: str) -> Done:
        """Run the manifest into a folder."""
        return self.done(self.command("run", self.manifest, "-o", output, "--device", "cpu", *arguments))

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
