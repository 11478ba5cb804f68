"""The order in which the cells of a plan are worked on."""

from __future__ import annotations

import heapq
from collections import Counter
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

    @property
    def trains(self) -> bool:
        """Whether a reference model is trained, unless the store has it."""
        reference = self.cell.reference
        return reference is not None and reference.weights is None and not self.makes_record


class Schedule:
    """Hands out the cells of a plan as soon as what they need has ended.

    The model of a reference can be made at once. Everything else waits until the models of both references of its
    problem and seed are made or have failed. Two tasks that need the same model to be made never run at the same time.

    Args:
        cells: All cells of a plan, in its order.
        finished: Ids of the cells that need no work.
    """

    def __init__(self, cells: Sequence[Cell], finished: Collection[str]) -> None:
        tasks = [Task(cell, not cell.is_reference) for cell in cells if cell.id not in finished]
        self._places = {task.cell.id: place for place, task in enumerate(tasks)}
        # The id of a problem is a hash that is recomputed on every access, and most cells share their problem.
        problems = {id(task.cell.problem): task.cell.problem for task in tasks}
        names = {key: problem.id for key, problem in problems.items()}
        self._group = {task.cell.id: (names[id(task.cell.problem)], task.cell.seed) for task in tasks}
        # All of these are kept up to date task by task, since a plan may have thousands of them.
        self._unmade = Counter(self._group[task.cell.id] for task in tasks if not task.makes_record)
        self._blocked: dict[tuple[str, int], list[Task]] = {}
        self._held: dict[str, list[Task]] = {}
        self._ready: list[tuple[bool, int, Task]] = []
        self._alike: dict[tuple[str, str, int], list[tuple[bool, int, Task]]] = {}
        self._models: Counter[str] = Counter()
        self._sources: Counter[tuple[str, str, int]] = Counter()
        self._left = len(tasks)
        for task in tasks:
            self._wait(task)

    @property
    def over(self) -> bool:
        """Whether every cell has ended."""
        return self._left == 0

    def take(self) -> Task | None:
        """Return a task that can be done now and counts as running from here, or None if there is none.

        Models of references come first, because others wait for them. Of the rest, those come first that will not have
        to wait for a result which they share with one that runs.
        """
        alone, alike = self._first_alone(), self._first_alike()
        takes_alike = alike is not None and (alone is None or alike[0] < alone[0])
        found, other = (alike, alone) if takes_alike else (alone, alike)
        if other is not None:
            heapq.heappush(self._ready, other)
        if found is None:
            return None
        task = found[2]
        self._models[task.cell.model_id] += 1
        self._sources[_sources(task.cell)] += 1
        return task

    def _first_alone(self) -> tuple[bool, int, Task] | None:
        """Return the first task that shares nothing with one that runs; those before it are put aside."""
        while self._ready:
            entry = heapq.heappop(self._ready)
            cell = entry[2].cell
            if self._models[cell.model_id]:
                self._held.setdefault(cell.model_id, []).append(entry[2])
            elif self._sources[_sources(cell)]:
                heapq.heappush(self._alike.setdefault(_sources(cell), []), entry)
            else:
                return entry
        return None

    def _first_alike(self) -> tuple[bool, int, Task] | None:
        """Return the first task that was put aside and whose model no other task makes at the moment."""
        while self._alike:
            sources, tasks = min(self._alike.items(), key=lambda item: item[1][0])
            entry = heapq.heappop(tasks)
            if not tasks:
                del self._alike[sources]
            model = entry[2].cell.model_id
            if not self._models[model]:
                return entry
            self._held.setdefault(model, []).append(entry[2])
        return None

    def end(self, task: Task, *, recorded: bool) -> None:
        """Note that a task has ended, and whether its cell has a record, of success or failure."""
        self._models[task.cell.model_id] -= 1
        self._sources[_sources(task.cell)] -= 1
        if not self._sources[_sources(task.cell)]:
            for entry in self._alike.pop(_sources(task.cell), []):
                heapq.heappush(self._ready, entry)
        if recorded:
            self._left -= 1
        else:
            self._wait(Task(task.cell, makes_record=True))
        group = self._group[task.cell.id]
        if not task.makes_record:
            self._unmade[group] -= 1
        released = self._held.pop(task.cell.model_id, [])
        if not self._unmade[group]:
            released += self._blocked.pop(group, [])
        for waiting in released:
            self._wait(waiting)

    def _wait(self, task: Task) -> None:
        """Let a task wait for the references of its problem and seed, or for its turn."""
        group = self._group[task.cell.id]
        if task.makes_record and self._unmade[group]:
            self._blocked.setdefault(group, []).append(task)
        else:
            heapq.heappush(self._ready, (task.makes_record, self._places[task.cell.id], task))


def _sources(cell: Cell) -> tuple[str, str, int]:
    return cell.method.name, cell.original.id, cell.seed
