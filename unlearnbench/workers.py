"""Workers: processes of this machine that run cells and tell the one that started them what they do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection, resource_tracker
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Any

import torch

from unlearnbench.dataset import Dataset, Part, open_dataset
from unlearnbench.plan import Cell, Plan
from unlearnbench.progress import Lane
from unlearnbench.record import Record
from unlearnbench.runner import Runner, thread_count
from unlearnbench.store import Store

# How often a worker tells how many images it has read: a message for every batch would cost more than it tells.
TELL_SECONDS = 0.2
# How often the parent looks whether its workers live, beside what it hears.
LOOK_SECONDS = 1.0
# How long a worker may take to end by itself.
END_SECONDS = 10.0


@dataclass(frozen=True)
class Post:
    """What a worker has to know.

    Attributes:
        plan: The plan; its data set is opened anew by each process that reads it.
        output: The output folder.
        device: Where to compute.
        jobs: How many workers there are.
        working_folder: What relative paths start from.
    """

    plan: Plan
    output: Path
    device: torch.device
    jobs: int
    working_folder: Path


class Workers:
    """Processes that run cells; a context manager that ends them.

    One is started when it has something to do, and another in its place when it died.

    Args:
        runner: Runs cells in this process: what it knows, the workers are told.
        devices: Where they compute, in turn.
        lanes: What shows each worker's progress; there are as many workers.
    """

    def __init__(self, runner: Runner, devices: Sequence[torch.device], lanes: Sequence[Lane]) -> None:
        self._runner = runner
        self._lanes = lanes
        self._workers: list[Worker | None] = [None] * len(lanes)
        resolved = runner.plan.resolved
        plan = replace(runner.plan, resolved=replace(resolved, dataset=_named_dataset(runner.plan)))
        self._posts = [
            Post(plan, runner.output, devices[number % len(devices)], len(lanes), Path.cwd())
            for number in range(len(lanes))
        ]

    def __enter__(self) -> Workers:
        """Start nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers, at once if something went wrong: what they have in hand is lost, the store is whole."""
        workers = [worker for worker in self._workers if worker is not None]
        for worker in workers:
            worker.dismiss(at_once=kind is not None)
        for worker in workers:
            worker.wait_for_end()

    @property
    def free(self) -> bool:
        """Whether a worker has nothing to do."""
        return any(worker is None or worker.cell is None for worker in self._workers)

    def give(self, cell: Cell) -> None:
        """Let a free worker run a cell: one that has run others if there is one."""
        idle = [number for number, worker in enumerate(self._workers) if worker and worker.cell is None]
        number = idle[0] if idle else self._workers.index(None)
        worker = self._workers[number]
        if worker is None or not worker.process.is_alive():
            worker = self._workers[number] = Worker(self._posts[number], self._lanes[number], self._runner)
        worker.give(cell)

    def wait(self) -> Iterator[tuple[Cell, Record]]:
        """Wait until something is heard of the workers and yield the cells that came to their end meanwhile."""
        busy = [worker for worker in self._workers if worker and worker.cell]
        heard = [source for worker in busy for source in (worker.connection, worker.process.sentinel)]
        connection.wait(heard, LOOK_SECONDS)
        for worker in busy:
            cell, record = worker.cell, worker.news()
            if not worker.process.is_alive():
                self._workers[self._workers.index(worker)] = None
            if cell and record:
                yield cell, record


class Worker:
    """A worker as the process that started it sees it.

    Args:
        post: What it has to know.
        lane: Shows what it does.
        runner: Makes the record of a cell that the worker cannot make, and knows which reference models failed.

    Attributes:
        cell: What it runs, None if it is free.
        connection: What it tells comes here.
        process: The process.
    """

    def __init__(self, post: Post, lane: Lane, runner: Runner) -> None:
        self._lane = lane
        self._runner = runner
        self.cell: Cell | None = None
        context = multiprocessing.get_context("spawn")
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=work, args=(post, other_end))
        try:
            with _inherited(thread_count(post.device, post.plan.cells[0].problem.info.shape, post.jobs)):
                self.process.start()
        except KeyboardInterrupt:
            self.process.kill()
            raise
        # Only so is the connection at its end when the worker is.
        other_end.close()

    def give(self, cell: Cell) -> None:
        """Let it run a cell."""
        self.cell = cell
        # If it has just died, that is found when it is listened to.
        with contextlib.suppress(OSError):
            self.connection.send((cell.id, self._runner.broken))

    def news(self) -> Record | None:
        """Pass on what it told and return its cell's record if that has come to an end; it is free then."""
        while (message := self._message()) is not None:
            told, *values = message
            if told == "record":
                record, broken = values
                self._runner.broken.update(broken)
                return self._end(record)
            self._pass_on(told, values)
        if self.cell is None or self.process.is_alive():
            return None
        return self._end(self._runner.failed(self.cell, _death(self.process.exitcode or 0)))

    def _message(self) -> tuple[Any, ...] | None:
        """Return what it told next, None if there is nothing, or nothing any more."""
        try:
            if self.connection.poll():
                message: tuple[Any, ...] = self.connection.recv()
                return message
        except (EOFError, OSError):
            # The connection ends a moment before the process does.
            self.process.join(END_SECONDS)
        return None

    def _pass_on(self, told: str, values: list[Any]) -> None:
        if told == "say":
            # Two workers may find the same damaged file; the store says each thing once.
            self._runner.store.say(*values)
        elif told == "begin":
            self._lane.begin(*values)
        elif told == "advance":
            self._lane.advance(*values)
        elif told == "end":
            self._lane.end()

    def _end(self, record: Record) -> Record:
        self._lane.end()
        self.cell = None
        return record

    def dismiss(self, *, at_once: bool) -> None:
        """Let it end."""
        if at_once:
            self.process.kill()
        self.connection.close()

    def wait_for_end(self) -> None:
        """Return when it has ended."""
        self.process.join(END_SECONDS)
        self.process.kill()
        self.process.join()


def _death(code: int) -> str:
    """Return why a process with an exit code left no record."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = "; the system does that when memory runs out" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


@contextlib.contextmanager
def _inherited(threads: int) -> Iterator[None]:
    """Let a process that is started meanwhile be deaf to Ctrl-C, and its libraries use some threads at most.

    Ctrl-C goes to all processes of a terminal, at any moment of their start; only the parent is to answer it.
    """
    kept = os.environ.get("OMP_NUM_THREADS")
    # The libraries that metrics compute with read it once, when they are imported.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    blocked = None
    if hasattr(signal, "pthread_sigmask"):
        # It lets Ctrl-C through when it starts, so it has to start before.
        resource_tracker.ensure_running()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if kept is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = kept
        if blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _named_dataset(plan: Plan) -> Dataset:
    """Return the plan's data set in a form that can be sent to another process."""
    component, info = plan.cells[0].problem.dataset, plan.resolved.dataset.info
    parts = (partial(_part, component.name, component.options, test) for test in (False, True))
    return Dataset(info, *parts)


def _part(name: str, options: dict[str, Any], test: bool) -> Part:
    dataset = open_dataset(name, options)
    return dataset.test() if test else dataset.train()


def work(post: Post, told: connection.Connection) -> None:
    """Run the cells whose ids come in and send back their records: the life of a worker."""
    Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(post.working_folder)
    teller = Teller(told)
    store = Store(post.output / "store", teller.say, create=False)
    runner = Runner(post.plan, post.output, store, post.device, teller, post.jobs)
    cells = {cell.id: cell for cell in post.plan.cells}
    # Ends when the parent closes its end: nothing is left to do.
    with contextlib.suppress(EOFError):
        while True:
            identity, broken = told.recv()
            runner.broken.update(broken)
            record = runner.run_cell(cells[identity])
            teller.tell("record", record, runner.broken)


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone, in the middle of whatever it does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Teller:
    """Tells the parent process how the work goes on.

    Args:
        told: Where the parent listens.
    """

    def __init__(self, told: connection.Connection) -> None:
        self._told = told
        self._lock = Lock()
        self._unsaid = 0
        self._spoke = monotonic()

    def tell(self, *message: Any) -> None:
        """Send a message."""
        try:
            # A method may have threads.
            with self._lock:
                self._told.send(message)
        except OSError:
            # Nobody listens: an exception here would be taken for the method's failure.
            os._exit(1)

    def say(self, message: str) -> None:
        """Send a line for the user."""
        self.tell("say", message)

    @contextlib.contextmanager
    def stage(self, what: str, passes: int | None) -> Iterator[None]:
        """Tell of a stage."""
        self.tell("begin", what, passes)
        try:
            yield
        finally:
            self._tell_images()
            self.tell("end")

    def advance(self, images: int) -> None:
        """Count images read in the current stage."""
        self._unsaid += images
        if monotonic() - self._spoke > TELL_SECONDS:
            self._tell_images()

    def _tell_images(self) -> None:
        self._spoke = monotonic()
        images, self._unsaid = self._unsaid, 0
        self.tell("advance", images)
