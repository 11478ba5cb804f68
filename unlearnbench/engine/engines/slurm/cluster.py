"""The engine on Slurm: functions lie in a folder that all nodes see, and jobs compute them."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Self

from unlearnbench.engine.engines.engine import DiedError, EngineError, Follower, Future, Need, Settled
from unlearnbench.engine.engines.place import Profile
from unlearnbench.engine.engines.slurm.job import Batch, CallFiles, Shared, write_whole
from unlearnbench.engine.engines.slurm.queue import SlurmQueue
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.files import writing
from unlearnbench.store import Say

LOOK_SECONDS = 1.0
QUEUE_SECONDS = 5.0
# A file system may show the result of a job that has ended a little later.
GRACE_SECONDS = 10.0
# A controller that restarts is away for a while.
SILENT_SECONDS = 300.0


class DetachedError(UnlearnBenchError):
    """The run leaves its jobs alone, as the user wanted it to."""

    exit_code = 0


@dataclass(eq=False)
class Call(Settled):
    """A function that a job computes; the future of this engine."""

    need: Need
    files: CallFiles
    job: str = ""
    ended: float | None = None
    losses: int = 0
    read: int = 0


class SlurmEngine:
    """Computes functions in Slurm jobs, as a context manager that cancels them.

    Args:
        folder: Folder that all nodes see, for functions, results and logs.
        profile: What each job asks for.
        lanes: Lanes that show the progress; of more functions than lanes the first are shown.
        say: Receives what the functions say to the user.
        threads: Number of threads of each function.
        detach: Whether to submit what can be submitted and leave it running.
    """

    def __init__(
        self, folder: Path, profile: Profile, lanes: Sequence[Follower], say: Say, *, threads: int, detach: bool
    ) -> None:
        self._folder = folder.absolute()
        self._profile = profile
        self._queue = SlurmQueue(self._folder / "jobs", profile)
        self._say = say
        self._threads = threads
        self._detach = detach
        self._free_lanes = list(reversed(lanes))
        self._lanes: dict[str, Follower] = {}
        self._calls: list[Call] = []
        self._pending: list[Call] = []
        self._states: dict[str, str] = {}
        self._asked = 0.0
        self._answered = monotonic()

    def __enter__(self) -> Self:
        """Return the engine, which has submitted nothing yet."""
        with writing(self._folder):
            (self._folder / "calls").mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Cancel what was submitted, unless the user leaves it running."""
        jobs = {call.job for call in self._calls if call.job}
        if self._detach or not jobs:
            return
        if kind is KeyboardInterrupt and not _agrees(f"cancel {_jobs(jobs)}? [Y/n] "):
            self._say(f"slurm: {_jobs(jobs)} left alone; the same command picks up their results")
            return
        self._queue.cancel(jobs)
        for call in self._calls:
            call.files.remove()
        self._say(f"slurm: {_jobs(jobs)} cancelled")

    @property
    def free(self) -> bool:
        """Whether a function that is submitted now is handed to Slurm at once."""
        return self._detach or len(self._calls) < self._profile.jobs_at_once * self._profile.stages_per_job

    def share(self, value: Any) -> Shared:
        """Return a reference to a value that is written only once."""
        content = pickle.dumps(value)
        path = self._folder / "shared" / f"{hashlib.sha256(content).hexdigest()[:16]}.pkl"
        with writing(path):
            write_whole(path, content)
        return Shared(path)

    def submit(self, need: Need, function: Callable[..., Any], *arguments: Any) -> Call:
        """Let a function be computed; one of the same name that an earlier run has submitted is taken for it."""
        call = Call(need, CallFiles(self._folder / "calls", need.name or uuid.uuid4().hex))
        self._calls.append(call)
        if call.files.result.exists() or call.files.job.exists():
            call.job = call.files.job.read_text(encoding="utf-8") if call.files.job.exists() else ""
            return call
        with writing(call.files.call):
            write_whole(call.files.call, pickle.dumps((function, arguments)))
        self._pending.append(call)
        return call

    def wait(self, futures: Collection[Future], seconds: float) -> None:
        """Wait until a future is done, and for so many seconds at most.

        Raises:
            DetachedError: If the user leaves the jobs alone, and none has a result now.
            EngineError: If Slurm refuses jobs, or does not answer for long.
        """
        self._hand_out()
        deadline = monotonic() + seconds
        while True:
            self._look()
            if any(future.done for future in futures):
                return
            if self._detach:
                jobs = {call.job for call in self._calls}
                raise DetachedError(
                    f"slurm: {len(self._calls)} stages in {_jobs(jobs)} go on alone\n"
                    "  The same command with --status tells how far they are, and without it goes on from their results"
                )
            if monotonic() >= deadline:
                return
            time.sleep(min(LOOK_SECONDS, seconds))

    def _hand_out(self) -> None:
        """Submit what waits, as arrays of jobs of several functions each; those of higher priority come first.

        Jobs of one array get the same, so that functions on several devices have arrays of their own.
        """
        if not self._pending:
            return
        for devices in sorted({call.need.devices for call in self._pending}, reverse=True):
            alike = [call for call in self._pending if call.need.devices == devices]
            self._submit(sorted(alike, key=lambda call: -call.need.priority), devices)
        self._pending = []
        self._asked = 0.0

    def _submit(self, calls: Sequence[Call], devices: int) -> None:
        size = self._profile.stages_per_job
        groups = [calls[start : start + size] for start in range(0, len(calls), size)]
        batches = [Batch(tuple(call.files for call in group), self._threads) for group in groups]
        for group, job in zip(groups, self._queue.submit(batches, devices), strict=True):
            for call in group:
                call.job, call.ended = job, None
                with writing(call.files.job):
                    write_whole(call.files.job, job.encode())

    def _look(self) -> None:
        """Show the news, take the results that are there, and submit again what was lost."""
        self._ask()
        for call in list(self._calls):
            self._hear(call)
            if call.files.result.exists():
                self._end(call)
            elif call not in self._pending and call.job not in self._states:
                self._lose(call)
        self._hand_out()

    def _ask(self) -> None:
        """Ask Slurm which jobs there are; its silence is borne for a while."""
        if monotonic() - self._asked < QUEUE_SECONDS:
            return
        try:
            self._states = self._queue.states()
            self._answered = monotonic()
        except EngineError:
            if monotonic() - self._answered > SILENT_SECONDS:
                raise
        self._asked = monotonic()

    def _hear(self, call: Call) -> None:
        """Pass on the messages that a function has written since the last time."""
        try:
            with call.files.told.open("rb") as stream:
                stream.seek(call.read)
                whole, end, _ = stream.read().rpartition(b"\n")
        except OSError:
            return
        call.read += len(whole) + len(end)
        name = call.files.name
        for line in whole.splitlines():
            kind, *values = json.loads(line)
            if kind == "say":
                self._say(*values)
            elif kind == "begun":
                if name not in self._lanes and self._free_lanes:
                    self._lanes[name] = self._free_lanes.pop()
            elif lane := self._lanes.get(name):
                getattr(lane, kind)(*values)

    def _end(self, call: Call) -> None:
        """Take the result of a function; a process that died is another attempt, as often as its need says."""
        try:
            call.value, call.error = pickle.loads(call.files.result.read_bytes())
        # Another version of the package may have written it.
        except Exception as error:
            call.value, call.error = None, DiedError(f"its result cannot be read: {type(error).__name__}")
        if isinstance(call.error, DiedError) and call.losses < call.need.retries and call.files.call.exists():
            call.files.result.unlink()
            self._again(call, str(call.error))
            return
        self._finish(call)

    def _lose(self, call: Call) -> None:
        """Submit a function again whose job has ended without its result, after a moment of grace."""
        now = monotonic()
        call.ended = call.ended or now
        if now - call.ended < GRACE_SECONDS or self._asked < call.ended:
            return
        reason = f"job {call.job}: {self._queue.ending(call.job)}"
        if call.losses >= self._profile.resubmit or not call.files.call.exists():
            call.error = DiedError(f"its job ended without a result {call.losses + 1} times, last {reason}")
            self._finish(call)
            return
        self._again(call, reason)

    def _again(self, call: Call, reason: str) -> None:
        call.losses += 1
        self._say(f"slurm: {reason}; submitted again, {call.losses} of {self._profile.resubmit}")
        call.files.job.unlink(missing_ok=True)
        self._pending.append(call)

    def _finish(self, call: Call) -> None:
        self._calls.remove(call)
        if lane := self._lanes.pop(call.files.name, None):
            lane.end()
            self._free_lanes.append(lane)
        call.done = True
        call.files.remove()


def _jobs(jobs: Collection[str]) -> str:
    return "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"


def _agrees(question: str) -> bool:
    """Ask the user, who agrees unless there is a terminal and the answer is no."""
    if not (sys.stdin and sys.stdin.isatty()):
        return True
    print(f"\n{question}", end="", file=sys.stderr, flush=True)
    try:
        return not sys.stdin.readline().strip().casefold().startswith("n")
    except KeyboardInterrupt:
        return True


def job_states(folder: Path, profile: Profile) -> dict[str, str]:
    """Return `queued`, `running`, `ended` or `lost` for each function that was handed to Slurm, by its name.

    Args:
        folder: Folder of the engine.
        profile: Profile of the cluster.
    """
    calls = folder / "calls"
    known = SlurmQueue(folder / "jobs", profile).states() if calls.is_dir() else {}
    found = {}
    for path in sorted(calls.glob("*.job")):
        files = CallFiles(calls, path.stem)
        state = known.get(path.read_text(encoding="utf-8"))
        found[path.stem] = (
            "ended"
            if files.result.exists()
            else "lost"
            if state is None
            else "queued"
            if state == "PENDING"
            else "running"
        )
    return found
