"""Workers as seen by the process that started them, which hands out tasks, listens, and replaces dead workers."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection
from types import TracebackType
from typing import Any

import torch

from unlearnbench.engine.processes.fork_server import ForkServer, Process, Setting
from unlearnbench.engine.progress import Lane
from unlearnbench.engine.runner import Runner
from unlearnbench.engine.worker import Post, named_dataset, work
from unlearnbench.experiment.plan import Cell
from unlearnbench.results.record import Record

# The parent checks at this interval whether its workers are alive, in addition to listening to them.
LOOK_SECONDS = 1.0


class Workers:
    """Processes that run cells, as a context manager that ends them.

    A worker is started when there is something for it to do, and replaced by another if it dies.

    Args:
        runner: Runner of this process, whose settings the workers receive.
        server: Server that starts the workers.
        devices: Devices to compute on, in turn.
        lanes: Lanes that show the workers' progress, one for each worker.
    """

    def __init__(
        self, runner: Runner, server: ForkServer, devices: Sequence[torch.device], lanes: Sequence[Lane]
    ) -> None:
        self._runner = runner
        self._server = server
        self._lanes = lanes
        self._workers: list[Worker | None] = [None] * len(lanes)
        resolved = runner.plan.resolved
        plan = replace(runner.plan, resolved=replace(resolved, dataset=named_dataset(runner.plan)))
        self._posts = [
            Post(plan, runner.output, devices[number % len(devices)], len(lanes), runner.threads, runner.limits)
            for number in range(len(lanes))
        ]

    def __enter__(self) -> Workers:
        """Return the workers, none of which is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers, at once after an error; their current work is then lost, but the store stays intact."""
        for worker in self._workers:
            if worker is not None:
                worker.process.end()

    @property
    def free(self) -> bool:
        """Whether a worker has nothing to do."""
        return any(worker is None or worker.task is None for worker in self._workers)

    def give(self, task: Task) -> None:
        """Give a task to a free worker, preferably to one that is running already."""
        idle = [number for number, worker in enumerate(self._workers) if worker and worker.task is None]
        number = idle[0] if idle else self._workers.index(None)
        worker = self._workers[number]
        if worker is None or worker.process.ended:
            worker = self._workers[number] = Worker(
                self._server.start(work, self._posts[number], setting=Setting(serves=True)),
                self._lanes[number],
                self._runner,
            )
        worker.give(task)

    def wait(self) -> Iterator[tuple[Task, Record | None]]:
        """Wait for news from the workers and yield the tasks that ended meanwhile.

        Each task comes with the record of its cell, or None if the record has yet to be made.
        """
        busy = [worker for worker in self._workers if worker and worker.task]
        heard = [source for worker in busy for source in worker.process.sources]
        connection.wait(heard, LOOK_SECONDS)
        for worker in busy:
            task, record = worker.task, worker.news()
            # A dead worker counts as free too; giving it a task shows that it is dead, and another is started.
            if task and not worker.task:
                yield task, record


class Worker:
    """A worker as seen by the process that started it.

    Args:
        process: Its process.
        lane: Lane that shows its progress.
        runner: Runner that records cells which the worker cannot, and knows which reference models failed.

    Attributes:
        task: Task in progress; None if the worker is free.
        process: Its process.
    """

    def __init__(self, process: Process, lane: Lane, runner: Runner) -> None:
        self.process = process
        self.task: Task | None = None
        self._lane = lane
        self._runner = runner

    def give(self, task: Task) -> None:
        """Give the worker a task."""
        self.task = task
        # If the worker has just died, listening to it will show that.
        with contextlib.suppress(OSError):
            self.process.connection.send((task.cell.id, task.makes_record, self._runner.broken))

    def news(self) -> Record | None:
        """Pass on the worker's messages; it is free once its task has ended.

        Returns:
            The record of the task's cell, if it has one.
        """
        # How it ended is looked at first, so that messages which it sent before are still read.
        ended = self.process.ended
        while (message := self.process.message()) is not None:
            # A worker runs no foreign methods, so that its words are those of the benchmark itself.
            told, *values = pickle.loads(message)
            if told == "stop":
                # Another cell could not be written either.
                raise values[0]
            if told == "done":
                record, broken = values
                self._runner.broken.update(broken)
                self._free()
                made: Record | None = record
                return made
            self._pass_on(told, values)
        if ended is None or self.task is None:
            return None
        cell = self.task.cell
        self._free()
        return self._runner.failed(cell, str(ended))

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
