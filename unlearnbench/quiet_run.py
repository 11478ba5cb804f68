"""Runs for hosts that are no command line: no display, records as the answer, the same store."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from unlearnbench.executor import choose_devices, run_plan
from unlearnbench.plan import Plan
from unlearnbench.progress import Display
from unlearnbench.record import Record, kept_records
from unlearnbench.store import Store


def run_quietly(
    plan: Plan, output: Path, device: str = "auto", say: Callable[[str], None] = lambda message: None
) -> list[Record]:
    """Run what is left to do of a plan and return the records of all its cells, in the plan's order.

    Args:
        plan: What to run.
        output: The output folder.
        device: As `--device`.
        say: Called with a line when the user should know something: a wait, a damaged file.
    """
    store = Store(output / "store", say)
    finished = kept_records(plan, output, store)
    if len(finished) == len(plan.cells):
        return [finished[cell.id] for cell in plan.cells]
    with Display(Console(file=io.StringIO()), len(plan.cells), 1) as display:
        return run_plan(plan, output, store, choose_devices(device), display)
