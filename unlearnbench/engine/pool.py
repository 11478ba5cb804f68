"""Workers as seen by the process that started them, which hands out tasks, listens, and replaces dead workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection, resource_tracker
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from unlearnbench.engine.progress import Lane
from unlearnbench.engine.runner import Runner, thread_count
from unlearnbench.engine.worker import Post, named_dataset, work
from unlearnbench.experiment.plan import Cell
from unlearnbench.results.record import Record

# The parent checks at this interval whether its workers are alive, in addition to listening to them.
LOOK_SECONDS = 1.0
# A worker may take this long to end by itself.
END_SECONDS = 10.0


class Workers:
    """Processes that run cells, as a context manager that ends them.

    A worker is started when there is something for it to do, and replaced by another if it dies.

    Args:
        runner: Runner of this process, whose settings the workers receive.
        devices: Devices to compute on, in turn.
        lanes: Lanes that show the workers' progress, one for each worker.
    """

    def __init__(self, runner: Runner, devices: Sequence[torch.device], lanes: Sequence[Lane]) -> None:
        self._runner = runner
        self._lanes = lanes
        self._workers: list[Worker | None] = [None] * len(lanes)
        resolved = runner.plan.resolved
        plan = replace(runner.plan, resolved=replace(resolved, dataset=named_dataset(runner.plan)))
        self._posts = [
            Post(plan, runner.output, devices[number % len(devices)], len(lanes), Path.cwd())
            for number in range(len(lanes))
        ]

    def __enter__(self) -> Workers:
        """Return the workers, none of which is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers, at once after an error; their current work is then lost, but the store stays intact."""
        workers = [worker for worker in self._workers if worker is not None]
        for worker in workers:
            worker.dismiss(at_once=kind is not None)
        for worker in workers:
            worker.wait_for_end()

    @property
    def free(self) -> bool:
        """Whether a worker has nothing to do."""
        return any(worker is None or worker.task is None for worker in self._workers)

    def give(self, task: Task) -> None:
        """Give a task to a free worker, preferably to one that is running already."""
        idle = [number for number, worker in enumerate(self._workers) if worker and worker.task is None]
        number = idle[0] if idle else self._workers.index(None)
        worker = self._workers[number]
        if worker is None or not worker.process.is_alive():
            worker = self._workers[number] = Worker(self._posts[number], self._lanes[number], self._runner)
        worker.give(task)

    def wait(self) -> Iterator[tuple[Task, Record | None]]:
        """Wait for news from the workers and yield the tasks that ended meanwhile.

        Each task comes with the record of its cell, or None if the record has yet to be made.
        """
        busy = [worker for worker in self._workers if worker and worker.task]
        heard = [source for worker in busy for source in (worker.connection, worker.process.sentinel)]
        connection.wait(heard, LOOK_SECONDS)
        for worker in busy:
            task, record = worker.task, worker.news()
            # A dead worker counts as free too; giving it a task shows that it is dead, and another is started.
            if task and not worker.task:
                yield task, record


class Worker:
    """A worker as seen by the process that started it.

    Args:
        post: What the worker has to know.
        lane: Lane that shows its progress.
        runner: Runner that records cells which the worker cannot, and knows which reference models failed.

    Attributes:
        task: Task in progress; None if the worker is free.
        connection: Connection on which its messages arrive.
        process: Its process.
    """

    def __init__(self, post: Post, lane: Lane, runner: Runner) -> None:
        self._lane = lane
        self._runner = runner
        self.task: Task | None = None
        context = multiprocessing.get_context("spawn")
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=work, args=(post, other_end))
        try:
            with _inherited(thread_count(post.device, post.plan.cells[0].problem.info.shape, post.jobs)):
                self.process.start()
        except KeyboardInterrupt:
            self.process.kill()
            raise
        # The connection reports its end when the worker ends only if this process closes its copy of the worker's end.
        other_end.close()

    def give(self, task: Task) -> None:
        """Give the worker a task."""
        self.task = task
        # If the worker has just died, listening to it will show that.
        with contextlib.suppress(OSError):
            self.connection.send((task.cell.id, task.makes_record, self._runner.broken))

    def news(self) -> Record | None:
        """Pass on the worker's messages; it is free once its task has ended.

        Returns:
            The record of the task's cell, if it has one.
        """
        # The process is checked first, so that messages which it sent before it died are still read.
        lives = self.process.is_alive()
        while (message := self._message()) is not None:
            told, *values = message
            if told == "done":
                record, broken = values
                self._runner.broken.update(broken)
                self._free()
                made: Record | None = record
                return made
            self._pass_on(told, values)
        if lives or self.task is None:
            return None
        cell = self.task.cell
        self._free()
        return self._runner.failed(cell, _death(self.process.exitcode or 0))

    def _message(self) -> tuple[Any, ...] | None:
        """Return the next message, or None if there is none or the connection has ended."""
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
            # Two workers may find the same damaged file, and the store reports each thing only once.
            self._runner.store.say(*values)
        elif told == "begin":
            self._lane.begin(*values)
        elif told == "advance":
            self._lane.advance(*values)
        elif told == "end":
            self._lane.end()

    def _free(self) -> None:
        self._lane.end()
        self.task = None

    def dismiss(self, *, at_once: bool) -> None:
        """Let the worker end."""
        if at_once:
            self.process.kill()
        self.connection.close()

    def wait_for_end(self) -> None:
        """Wait until the worker has ended."""
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
    """Make a process that is started meanwhile ignore Ctrl-C, and limit its libraries to some threads.

    Ctrl-C goes to all processes of a terminal at any moment of their start, and only the parent is to respond to it.
    """
    kept = os.environ.get("OMP_NUM_THREADS")
    # The libraries that metrics compute with read this variable once, when they are imported.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    blocked = None
    if hasattr(signal, "pthread_sigmask"):
        # The resource tracker unblocks Ctrl-C when it starts, so that it has to start before.
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


@dataclass(frozen=True)
class Task:
    """A unit of work on a cell.

    Attributes:
        cell: Cell to work on.
        makes_record: Whether the record is made. If not, only the model and features are, because Original and FDR
            are each judged by both.
    """

    cell: Cell
    makes_record: bool


class Schedule:
    """Hands out the cells of a plan as soon as what they need has ended.

    The model of a reference can be made at once. Everything else waits until the models of both references of its
    problem and seed are made or have failed. Two tasks that need the same model to be made never run at the same time.

    Args:
        cells: All cells of a plan, in its order.
        finished: Ids of the cells that need no work.
    """

    def __init__(self, cells: Sequence[Cell], finished: Collection[str]) -> None:
        self._waiting = [Task(cell, not cell.is_reference) for cell in cells if cell.id not in finished]
        self._places = {task.cell.id: place for place, task in enumerate(self._waiting)}
        self._running: list[Task] = []
        # The id of a problem is a hash that is recomputed on every access.
        self._group = {task.cell.id: (task.cell.problem.id, task.cell.seed) for task in self._waiting}

    @property
    def over(self) -> bool:
        """Whether every cell has ended."""
        return not self._waiting and not self._running

    def take(self) -> Task | None:
        """Return a task that can be done now and counts as running from here, or None if there is none."""
        ready = [task for task in self._waiting if self._is_ready(task)]
        if not ready:
            return None
        # Among equals, min returns the first.
        task = min(ready, key=self._may_have_to_wait)
        self._waiting.remove(task)
        self._running.append(task)
        return task

    def end(self, task: Task, *, recorded: bool) -> None:
        """Note that a task has ended, and whether its cell has a record, of success or failure."""
        self._running.remove(task)
        if not recorded:
            self._waiting.append(Task(task.cell, makes_record=True))
            self._waiting.sort(key=lambda waiting: self._places[waiting.cell.id])

    def _is_ready(self, task: Task) -> bool:
        if any(other.cell.model_id == task.cell.model_id for other in self._running):
            return False
        group = self._group[task.cell.id]
        return not task.makes_record or not any(
            not other.makes_record and self._group[other.cell.id] == group for other in (*self._waiting, *self._running)
        )

    def _may_have_to_wait(self, task: Task) -> bool:
        """Return whether the same unlearner runs on the same original, as they may then share a result."""
        return any(_sources(other.cell) == _sources(task.cell) for other in self._running)


def _sources(cell: Cell) -> tuple[str, str, int]:
    return cell.method.name, cell.original.id, cell.seed
