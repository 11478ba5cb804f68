"""What a Slurm job computes: functions from a folder that all nodes see, one after the other, into the same folder."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

from unlearnbench.engine.engines.engine import DiedError
from unlearnbench.engine.engines.relay import computed

# A shared file system is not asked to take every small message.
TELL_SECONDS = 5.0
# Slurm's KillWait is 30 seconds if the site says nothing else.
KILL_SECONDS = 60.0


@dataclass(frozen=True)
class Shared:
    """A reference to a value in a file that all nodes see.

    Attributes:
        path: The file, which holds the pickled value.
    """

    path: Path


@dataclass(frozen=True)
class CallFiles:
    """The files of a function that jobs compute, by the name by which it is found again.

    Attributes:
        folder: Folder that all nodes see.
        name: Name of the function.
    """

    folder: Path
    name: str

    @property
    def call(self) -> Path:
        """The function and its arguments."""
        return self.folder / f"{self.name}.call"

    @property
    def result(self) -> Path:
        """Its result, which is there only once it is complete."""
        return self.folder / f"{self.name}.result"

    @property
    def job(self) -> Path:
        """The number of the job that it is given to."""
        return self.folder / f"{self.name}.job"

    @property
    def told(self) -> Path:
        """Its progress, a message in each line."""
        return self.folder / f"{self.name}.told"

    def remove(self) -> None:
        """Remove all of them."""
        for path in (self.call, self.job, self.told, self.result):
            path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that other nodes see either nothing or all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


class Teller:
    """Writes the progress of a function into its file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._images = 0
        self._spoke = monotonic()

    def tell(self, kind: str, *values: Any) -> None:
        """Take a message; images are counted until it is time to write."""
        if kind == "advance":
            self._images += values[0]
            if monotonic() - self._spoke > TELL_SECONDS:
                self._write()
            return
        self._write((kind, *values))

    def _write(self, *messages: tuple[Any, ...]) -> None:
        images, self._images = self._images, 0
        self._spoke = monotonic()
        lines = [*([("advance", images)] if images else []), *messages]
        with self._path.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)


@dataclass(frozen=True)
class Batch:
    """The functions of one job; those that have a result already are left out when the job begins again.

    Attributes:
        files: Files of each function, in the order of computing.
        threads: Number of threads of each.
    """

    files: tuple[CallFiles, ...]
    threads: int

    def __call__(self) -> None:
        """Compute all functions that have no result yet."""
        for files in self.files:
            if not files.result.exists() and files.call.exists():
                teller = Teller(files.told)
                teller.tell("begun")
                result = computed(_content(files.call), self.threads, teller.tell)
                if _was_terminated(result):
                    # Slurm ends a job process by process. If this one is still there later, the signal was another's.
                    time.sleep(KILL_SECONDS)
                write_whole(files.result, result)

    def checkpoint(self) -> Any:
        """Return how submitit begins the job again when its time is over or its node is wanted by others.

        A training that was cut off goes on from its own checkpoint in the store.
        """
        return import_module("submitit.helpers").DelayedSubmission(self)


def _was_terminated(result: bytes) -> bool:
    """Return whether a function's process got the signal by which Slurm ends jobs."""
    error = pickle.loads(result)[1]
    return isinstance(error, DiedError) and signal.SIGTERM.name in str(error)


def _content(path: Path) -> bytes:
    """Return the function and its arguments, with shared values in the place of what stands for them."""
    function, arguments = pickle.loads(path.read_bytes())
    given = [pickle.loads(each.path.read_bytes()) if isinstance(each, Shared) else each for each in arguments]
    return pickle.dumps((function, given))
