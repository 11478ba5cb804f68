"""The work that a run would do: cells, what the store has already, and image passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from unlearnbench.experiment.plan import Cell, Plan
from unlearnbench.results.records.record import Record
from unlearnbench.store import Store
from unlearnbench.terms import REFERENCES

# ERwP's search on ResNet-50 reads more images than its removal.
MORE = (
    "Of a method, its epochs over the limited data are counted. What it reads beside them, such as the search of erwp, "
    "only a run tells."
)


@dataclass
class Work:
    """One kind of work in a plan.

    Attributes:
        what: Name of the work, such as "train original" or an unlearner's label.
        total: Number of times that it occurs.
        cached: Number of those that are done already.
        image_passes: Number of images that the others will read; None if only a run tells.
        full_size_passes: Number of images of full size that have as many pixels; fewer where the resolution grows.
    """

    what: str
    total: int = 0
    cached: int = 0
    image_passes: int | None = 0
    full_size_passes: int | None = 0

    def add(self, there: bool, passes: int | None, full_size: int | None = None) -> None:
        """Count one occurrence; None for `full_size` if all images have their full size."""
        self.total += 1
        if there:
            self.cached += 1
        elif passes is None or self.image_passes is None or self.full_size_passes is None:
            self.image_passes = self.full_size_passes = None
        else:
            self.image_passes += passes
            self.full_size_passes += passes if full_size is None else full_size


def planned_work(plan: Plan, finished: Mapping[str, Record], store: Store) -> list[Work]:
    """Return the work of a plan, by kind, in the order of running.

    Args:
        plan: Plan to look at.
        finished: Records that need no work, by cell; see `finished_records`.
        store: Store of the output folder.
    """
    works: dict[str, Work] = {}
    seen: set[str] = set()
    for cell in plan.cells:
        # An unlearner that cannot run here has a record and no model, so that nothing will be made for it.
        skipped = cell.id in finished and finished[cell.id].status != "done"
        for reference in (cell.original, cell.fdr):
            if reference is not None and reference.id not in seen:
                seen.add(reference.id)
                does = "train" if reference.weights is None else "load"
                work = works.setdefault(reference.role, Work(f"{does} {REFERENCES[reference.role]}"))
                there = store.has("models", reference.id)
                work.add(there, reference.image_passes, reference.full_size_passes)
        if not cell.is_reference:
            work = works.setdefault(f"unlearner {cell.method.label}", Work(f"unlearn with {cell.method.label}"))
            work.add(skipped or store.has("models", cell.model_id), cell.image_passes)
            if plan.resolved.manifest.evaluate_every:
                work = works.setdefault("epochs", Work("judge epochs"))
                work.add(skipped or store.has("models", cell.model_id), _epoch_passes(plan, cell))
        if cell.features_id not in seen:
            seen.add(cell.features_id)
            images = sum(cell.problem.info.train_counts) + sum(cell.problem.info.test_counts)
            there = skipped or store.has("features", cell.features_id)
            works.setdefault("features", Work("extract features")).add(there, images)
        works.setdefault("record", Work("metrics and record")).add(cell.id in finished, 0)
    order = [
        *(key for key in REFERENCES if key in works),
        *(key for key in works if key.startswith("unlearner")),
        *(key for key in works if key == "epochs"),
        "features",
        "record",
    ]
    return [works[key] for key in order]


def _epoch_passes(plan: Plan, cell: Cell) -> int | None:
    """Return how many images judging the epochs of an unlearner reads, or None if only a run tells their number."""
    if cell.image_passes is None:
        return None
    epochs = cell.image_passes // sum(cell.problem.limited(cell.seed))
    images = sum(cell.problem.info.train_counts) + sum(cell.problem.info.test_counts)
    return epochs // plan.resolved.manifest.evaluate_every * images


def known_passes(works: list[Work]) -> int:
    """Return the number of full-size image passes that is known before a run, by which its progress is told."""
    return sum(work.full_size_passes or 0 for work in works)


def _by_epochs(work: Work) -> bool:
    """Return whether passes are counted that an unlearner makes beside others."""
    return work.what.startswith("unlearn with ") and bool(work.image_passes)


def work_table(works: list[Work]) -> Table:
    """Return the work as a table for a terminal."""
    table = Table(caption=MORE if any(_by_epochs(work) for work in works) else None, caption_justify="left")
    for name in ("work", "cells", "cached", "to do", "image passes"):
        table.add_column(name, justify="left" if name == "work" else "right", no_wrap=name != "work")
    for work in works:
        passes = "as the method needs" if work.image_passes is None else f"{work.image_passes:,}"
        if work.full_size_passes != work.image_passes:
            passes += f" ({work.full_size_passes:,} at full size)"
        table.add_row(work.what, str(work.total), str(work.cached), str(work.total - work.cached), passes)
    table.add_section()
    table.add_row("known in all", "", "", "", f"{known_passes(works):,}")
    return table


def work_json(works: list[Work]) -> list[dict[str, Any]]:
    """Return the work as JSON values."""
    return [vars(work) for work in works]
