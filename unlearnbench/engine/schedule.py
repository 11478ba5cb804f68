"""The order in which the cells of a plan are worked on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from unlearnbench.experiment.plan import Cell


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
        # Models of references come first, because others wait for them. Among equals, min returns the first.
        task = min(ready, key=lambda ready: (ready.makes_record, self._may_have_to_wait(ready)))
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
