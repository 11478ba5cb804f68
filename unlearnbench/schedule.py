"""Which cells of a plan can run now, where several run at a time. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from unlearnbench.plan import Cell


@dataclass(frozen=True)
class Task:
    """What can be done of a cell at once.

    Attributes:
        cell: The cell.
        makes_record: False if only its model and features are made: Original and FDR are each judged by both.
    """

    cell: Cell
    makes_record: bool


class Schedule:
    """Hands out the cells of a plan as what they need comes to its end.

    The model of a reference can be made at once. Everything else waits until those of both references of its problem
    and seed are made or have failed. Two tasks that need the same model made never run at the same time.

    Args:
        cells: All cells of a plan, in its order.
        finished: Ids of those that need no work.
    """

    def __init__(self, cells: Sequence[Cell], finished: Collection[str]) -> None:
        self._waiting = [Task(cell, not cell.is_reference) for cell in cells if cell.id not in finished]
        self._running: list[Task] = []
        # A problem's id is a hash, made anew each time it is asked for.
        self._group = {task.cell.id: (task.cell.problem.id, task.cell.seed) for task in self._waiting}

    @property
    def over(self) -> bool:
        """Whether every cell has come to its end."""
        return not self._waiting and not self._running

    def take(self) -> Task | None:
        """Return what can be done now, which counts as running from here; None if there is nothing."""
        ready = [task for task in self._waiting if self._is_ready(task)]
        if not ready:
            return None
        # min takes the first of equals.
        task = min(ready, key=self._may_have_to_wait)
        self._waiting.remove(task)
        self._running.append(task)
        return task

    def end(self, task: Task, *, recorded: bool) -> None:
        """Note that a task has come to its end, and whether its cell has a record, of success or failure."""
        self._running.remove(task)
        if not recorded:
            self._waiting.insert(0, Task(task.cell, makes_record=True))

    def _is_ready(self, task: Task) -> bool:
        if any(other.cell.model_id == task.cell.model_id for other in self._running):
            return False
        group = self._group[task.cell.id]
        return not task.makes_record or not any(
            not other.makes_record and self._group[other.cell.id] == group for other in (*self._waiting, *self._running)
        )

    def _may_have_to_wait(self, task: Task) -> bool:
        """Return whether the same method runs on the same original: they may share a result, as ERwP's search is."""
        return any(_sources(other.cell) == _sources(task.cell) for other in self._running)


def _sources(cell: Cell) -> tuple[str, str, int]:
    return cell.method.name, cell.original.id, cell.seed
