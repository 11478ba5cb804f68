"""Which cells of a plan can run now, where several run at a time. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from unlearnbench.plan import Cell


class Schedule:
    """Hands out cells as what they need comes to its end.

    The cells of reference models are ready at once, that of an unlearner when both references of its problem and
    seed are done or have failed. Two cells that need the same model made never run at the same time.

    Args:
        cells: All cells of a plan, in its order.
        finished: Ids of those that need no work.
    """

    def __init__(self, cells: Sequence[Cell], finished: Collection[str]) -> None:
        self._waiting = [cell for cell in cells if cell.id not in finished]
        self._running: list[Cell] = []
        # A problem's id is a hash, made anew each time it is asked for.
        self._group = {cell.id: (cell.problem.id, cell.seed) for cell in self._waiting}

    @property
    def over(self) -> bool:
        """Whether every cell has come to its end."""
        return not self._waiting and not self._running

    def take(self) -> Cell | None:
        """Return a cell that can run now, which counts as running from here; None if there is none."""
        ready = [cell for cell in self._waiting if self._is_ready(cell)]
        if not ready:
            return None
        # min takes the first of equals: the order of the plan.
        cell = min(ready, key=self._may_have_to_wait)
        self._waiting.remove(cell)
        self._running.append(cell)
        return cell

    def end(self, cell: Cell) -> None:
        """Note that a cell has come to its end, whatever that was."""
        self._running.remove(cell)

    def _is_ready(self, cell: Cell) -> bool:
        if any(other.model_id == cell.model_id for other in self._running):
            return False
        return cell.is_reference or not any(
            other.is_reference and self._group[other.id] == self._group[cell.id]
            for other in (*self._waiting, *self._running)
        )

    def _may_have_to_wait(self, cell: Cell) -> bool:
        """Return whether the same method runs on the same original: the two may share a result, as ERwP's search is."""
        return any(
            (other.method.name, other.original.id, other.seed) == (cell.method.name, cell.original.id, cell.seed)
            for other in self._running
        )
