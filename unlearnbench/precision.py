"""The precision that a run's trainings compute in: the device's own, unless the output folder has another already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unlearnbench.environment import Precision
from unlearnbench.plan import Plan, make_plan
from unlearnbench.resolved import Resolved
from unlearnbench.store import Store


def plan_for(
    resolved: Resolved,
    output: Path,
    precision: Precision,
    only: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda message: None,
) -> Plan:
    """Return the plan with which a run of a manifest begins in an output folder, or goes on.

    What a recipe's `auto` stands for is part of every model's identity. A folder that was begun on another machine goes
    on in the precision of its models: nothing that is finished is made again.

    Args:
        resolved: The manifest.
        output: The output folder.
        precision: What `auto` stands for on the device.
        only: As in `make_plan`.
        say: Called with a line if the folder's precision is not the device's.
    """
    store = Store(output / "store", create=False)
    other: Precision = "float32" if precision == "bfloat16" else "bfloat16"
    plan, begun = (make_plan(resolved, only, each) for each in (precision, other))
    if _trained(plan, store) or not _trained(begun, store):
        return plan
    say(
        f"{resolved.file}: the models in {output} were made in {other}, and the run goes on in it; "
        f"this machine would choose {precision}, which takes a new output folder"
    )
    return begun


def _trained(plan: Plan, store: Store) -> int:
    return sum(store.has("models", cell.original.id) or store.has("models", cell.retrained.id) for cell in plan.cells)
