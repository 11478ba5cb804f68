"""A stage of a plan as a worker computes it, in a process that runs no method's code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from unlearnbench.datasets.dataset import Dataset, Part, open_dataset
from unlearnbench.engine.engines.engine import Listener
from unlearnbench.engine.processes.fork_server import fork_server
from unlearnbench.engine.processes.method import Limits
from unlearnbench.engine.runner import Runner
from unlearnbench.experiment.plan import Cell, Plan
from unlearnbench.mirror import local_folder
from unlearnbench.results.records.record import Record
from unlearnbench.store import Store


@dataclass(frozen=True)
class Post:
    """What a worker has to know.

    Attributes:
        plan: The plan, whose data set is opened anew by each process that reads it.
        output: Path or address of the output folder.
        devices: Devices to compute on, in turn.
        jobs: Number of workers.
        threads: Number of threads that each computes with.
        limits: What a run of an unlearner may use.
    """

    plan: Plan
    output: str
    devices: tuple[torch.device, ...]
    jobs: int
    threads: int
    limits: Limits


def named_dataset(plan: Plan) -> Dataset:
    """Return the plan's data set in a form that can be sent to another process."""
    component, dataset = plan.cells[0].problem.dataset, plan.resolved.dataset
    train, test = (partial(_part, component.name, component.options, dataset.made_by, test) for test in (False, True))
    return Dataset(dataset.info, train, test, dataset.made_by)


def _part(name: str, options: dict[str, Any], made_by: Callable[[Dataset], Dataset] | None, test: bool) -> Part:
    dataset = open_dataset(name, options)
    if made_by is not None:
        dataset = made_by(dataset)
    return dataset.test() if test else dataset.train()


def run_stage(
    told: Listener, post: Post, identity: str, makes_record: bool, broken: dict[str, str]
) -> tuple[Record | None, dict[str, str]]:
    """Make the model and features of a cell, and its record.

    Args:
        told: Listener that follows the progress.
        post: What the worker has to know, the same for all stages of a run.
        identity: Id of the cell.
        makes_record: Whether its record is made too; if not, there is one only if the rest fails.
        broken: Reasons why references could not be made, by their names in the store.

    Returns:
        The record, or None, and the reasons that are known now.

    Raises:
        UnwritableError: If a result cannot be written.
    """
    runner, cells = runner_of(post, told)
    runner.take_devices(tuple(post.devices[place % len(post.devices)] for place in told.places))
    runner.broken.update(broken)
    does = runner.run_cell if makes_record else runner.make
    return does(cells[identity]), runner.broken


# A worker serves one run at a time, whose images it keeps in memory from one stage to the next.
_kept: list[tuple[Post, Runner, dict[str, Cell]]] = []


def runner_of(post: Post, told: Listener) -> tuple[Runner, dict[str, Cell]]:
    """Return what runs the stages of a plan in this worker, and the plan's cells by their ids."""
    if not _kept or _kept[0][0] is not post:
        output = local_folder(post.output)
        store = Store(output / "store", told.say, create=False)
        runner = Runner(
            post.plan,
            output,
            store,
            post.devices[told.places[0] % len(post.devices)],
            told,
            fork_server(post.threads),
            jobs=post.jobs,
            threads=post.threads,
            limits=post.limits,
        )
        _kept[:] = [(post, runner, {cell.id: cell for cell in post.plan.cells})]
    return _kept[0][1:]
