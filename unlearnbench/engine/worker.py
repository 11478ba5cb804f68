"""A worker: a process that does tasks of a plan and reports its progress to the process that started it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

import torch

from unlearnbench.datasets.dataset import Dataset, Part, open_dataset
from unlearnbench.datasets.held_out import without_test_images
from unlearnbench.engine.processes.fork_server import fork_server
from unlearnbench.engine.processes.method import Limits
from unlearnbench.engine.runner import Runner
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.experiment.plan import Plan
from unlearnbench.store import Store

# Progress is reported at this interval, since a message for every batch would cost more than it is worth.
TELL_SECONDS = 0.2


@dataclass(frozen=True)
class Post:
    """What a worker has to know.

    Attributes:
        plan: The plan, whose data set is opened anew by each process that reads it.
        output: Output folder.
        device: Device to compute on.
        jobs: Number of workers.
        threads: Number of threads that each computes with.
        limits: What a run of an unlearner may use.
    """

    plan: Plan
    output: Path
    device: torch.device
    jobs: int
    threads: int
    limits: Limits


def named_dataset(plan: Plan) -> Dataset:
    """Return the plan's data set in a form that can be sent to another process."""
    component, dataset = plan.cells[0].problem.dataset, plan.resolved.dataset
    every = dataset.held_out_every
    train, test = (partial(_part, component.name, component.options, every, test) for test in (False, True))
    return Dataset(dataset.info, train, test, every)


def _part(name: str, options: dict[str, Any], held_out_every: int | None, test: bool) -> Part:
    dataset = open_dataset(name, options)
    if held_out_every is not None:
        dataset = without_test_images(dataset, held_out_every)
    return dataset.test() if test else dataset.train()


def work(told: Connection, post: Post) -> None:
    """Do the tasks that arrive and send back their outcomes, for the whole life of a worker."""
    teller = Teller(told)
    store = Store(post.output / "store", teller.say, create=False)
    server = fork_server(post.threads)
    runner = Runner(
        post.plan,
        post.output,
        store,
        post.device,
        teller,
        server,
        jobs=post.jobs,
        threads=post.threads,
        limits=post.limits,
    )
    cells = {cell.id: cell for cell in post.plan.cells}
    # The loop ends when the parent closes its end, because nothing is left to do then.
    with contextlib.suppress(EOFError):
        while True:
            identity, makes_record, broken = told.recv()
            runner.broken.update(broken)
            does = runner.run_cell if makes_record else runner.make
            try:
                record = does(cells[identity])
            except UnlearnBenchError as error:
                teller.tell("stop", error)
            else:
                teller.tell("done", record, runner.broken)


class Teller:
    """Reports the progress of the work to the parent process.

    Args:
        told: Connection that the parent listens to.
    """

    def __init__(self, told: Connection) -> None:
        self._told = told
        self._lock = Lock()
        self._unsaid = 0
        self._spoke = monotonic()

    def tell(self, *message: Any) -> None:
        """Send a message."""
        try:
            # A metric may have threads.
            with self._lock:
                self._told.send(message)
        except OSError:
            # Nobody listens, and an exception here would be mistaken for a failure of the cell.
            os._exit(1)

    def say(self, message: str) -> None:
        """Send a line for the user."""
        self.tell("say", message)

    @contextlib.contextmanager
    def stage(self, what: str, passes: int | None) -> Iterator[None]:
        """Report a stage while it lasts."""
        self.tell("begin", what, passes)
        try:
            yield
        finally:
            self._tell_images()
            self.tell("end")

    def advance(self, images: int) -> None:
        """Count image passes in the current stage."""
        self._unsaid += images
        if monotonic() - self._spoke > TELL_SECONDS:
            self._tell_images()

    def _tell_images(self) -> None:
        self._spoke = monotonic()
        images, self._unsaid = self._unsaid, 0
        self.tell("advance", images)
