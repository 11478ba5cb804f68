"""Records of cells: how one is made, which ones in a folder still count, and which are no longer made."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unlearnbench.errors import InvalidFileError
from unlearnbench.experiment.plan import Cell, Plan, make_plan
from unlearnbench.experiment.resolve import Resolved
from unlearnbench.machine import Precision
from unlearnbench.metrics.metric_record import MetricRecord
from unlearnbench.mirror import publish_unseen
from unlearnbench.models.federation.federation import Rounds
from unlearnbench.registry.component import label_slug
from unlearnbench.results.records.files import read_record, write_record
from unlearnbench.results.records.record import (
    SCHEMA,
    EpochRecord,
    FileRecord,
    Measured,
    MethodRecord,
    ProblemRecord,
    Record,
    Status,
    with_hash,
)
from unlearnbench.store import Store
from unlearnbench.terms import JUDGED

# What parts the name of a stage from that of a part of it.
PART = "."


def left_over(plan: Plan, output: Path) -> list[Path]:
    """Return the record files that a plan's manifest no longer makes, of unlearners, seeds or problems it once had.

    Records of weights that were judged beside it are none of its own, and stay.
    """
    made = {output / "records" / cell.path for cell in make_plan(plan.resolved).cells}
    others = set((output / "records" / plan.resolved.manifest.name).rglob("*.json")) - made
    return sorted(path for path in others if not _is_judged(path))


def _is_judged(path: Path) -> bool:
    try:
        return read_record(path).method.name == JUDGED
    except InvalidFileError:
        return False


def problem_record(cell: Cell) -> ProblemRecord:
    """Return the problem of a cell in the form that its record holds."""
    problem = cell.problem
    names = problem.info.class_names
    return ProblemRecord(
        id=problem.id,
        slug=problem.slug,
        title=problem.title,
        dataset=problem.dataset.name,
        dataset_options=problem.dataset.options,
        dataset_version=problem.dataset.version,
        dataset_revision=problem.info.revision,
        architecture=problem.architecture.name,
        architecture_options=problem.architecture.options,
        architecture_version=problem.architecture.version,
        weights=problem.weights.label if problem.weights else None,
        start=problem.start.label if problem.start else None,
        training=problem.recipe,
        num_classes=len(names),
        forget_classes=problem.forget_classes,
        forget_class_names=tuple(names[label] for label in problem.forget_classes),
        limited=problem.limited_text,
        limited_counts=problem.limited_counts,
        train_images=sum(problem.info.train_counts),
        test_images=sum(problem.info.test_counts),
        federation=problem.federation and problem.federation.model_dump(mode="json", exclude_none=True),
    )


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cell, with the fields of `Record` and `Measured`, which are empty if there is no result."""

    status: Status
    reason: str | None = None
    metrics: dict[str, MetricRecord] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    image_passes: dict[str, int] = field(default_factory=dict)
    networks: int | None = None
    epochs: tuple[EpochRecord, ...] = ()
    files: dict[str, FileRecord] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    speed_up_seconds: float | None = None
    rounds: Rounds | None = None


def make_record(plan: Plan, cell: Cell, outcome: Outcome, environment: dict[str, Any]) -> Record:
    """Return the record of a cell that has just ended, with its hash."""
    measured = Measured(
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=outcome.seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
        speed_up_seconds=outcome.speed_up_seconds,
    )
    record = Record(
        schema_version=SCHEMA,
        cell=cell.id,
        status=outcome.status,
        reason=outcome.reason,
        manifest_name=plan.resolved.manifest.name,
        manifest=plan.resolved.manifest.model_dump(mode="json"),
        problem=problem_record(cell),
        method=MethodRecord(**cell.method.facts, label=cell.method.label, role=cell.method.role),
        seed=cell.seed,
        metrics=outcome.metrics,
        details=outcome.details,
        image_passes=outcome.image_passes,
        files=outcome.files,
        environment=environment,
        measured=measured,
        hash="",
        epochs=outcome.epochs,
        networks=outcome.networks,
        rounds=outcome.rounds,
        share=() if cell.problem.party is None else cell.problem.limited(cell.seed),
    )
    return with_hash(record)


def finished_records(plan: Plan, output: Path, store: Store) -> dict[str, Record]:
    """Return the records of a plan's cells that need no work, by cell id.

    A record counts if it is complete, belongs to the cell as now planned, did not fail, was judged with its
    references, and the store holds the files that it was made from. Damaged records are reported, those that lie in
    the place of another one, and those of the manifest with other options, data or versions.
    """
    found, outdated = {}, []
    for cell in plan.cells:
        path = output / "records" / cell.path
        # What is there and cannot be read, such as a folder or a link to nowhere, is reported too.
        if not os.path.lexists(path):
            continue
        try:
            record = read_record(path)
        except InvalidFileError as error:
            # The other lines of the message say how to correct the fault, which happens here.
            fault = str(error).partition("\n")[0]
            store.say(f"{fault}; it is made again")
            continue
        if record.cell != cell.id and (owner := _other_owner(record, cell)):
            store.say(f"{path} is the record of {owner}; it is made again")
        elif record.cell != cell.id and record.status == "done":
            outdated.append(path)
        if record.cell != cell.id or record.status == "failed" or record.lacks_references:
            continue
        if record.status == "not_applicable" or (
            store.has("models", cell.model_id) and store.has("features", cell.features_id)
        ):
            found[cell.id] = record
    if outdated:
        number = "1 finished record is" if len(outdated) == 1 else f"{len(outdated)} finished records are"
        store.say(
            f"{number} not of {plan.resolved.file} as it stands; a run makes them anew in the same place: {outdated[0]}"
            f"{', ...' if len(outdated) > 1 else ''}"
        )
    return found


def _other_owner(record: Record, cell: Cell) -> str:
    """Return whose record lies in a cell's place, or "" if it is the cell's own, perhaps with other options."""
    own = (record.problem.slug, label_slug(record.method.label), record.seed)
    if own == (cell.problem.slug, label_slug(cell.method.label), cell.seed):
        return ""
    elsewhere = "" if own[0] == cell.problem.slug else f"{record.problem.slug}: "
    return f"{elsewhere}{record.method.label}, seed {record.seed}"


def kept_records(plan: Plan, output: Path, store: Store) -> dict[str, Record]:
    """Return what `finished_records` does, after updating each record and its file to the plan's manifest.

    The manifest may have other seeds or unlearners than when a record was made, but what its cell depends on is the
    same.

    Raises:
        StoreError: If a record cannot be written.
    """
    manifest = plan.resolved.manifest.model_dump(mode="json")
    found = finished_records(plan, output, store)
    for cell in plan.cells:
        if cell.id in found and found[cell.id].manifest != manifest:
            found[cell.id] = with_hash(found[cell.id].model_copy(update={"manifest": manifest}))
            write_record(found[cell.id], output / "records" / cell.path)
    publish_unseen(output, [output / "records" / cell.path for cell in plan.cells if cell.id in found])
    return found


def cell_states(plan: Plan, output: Path, jobs: Mapping[str, str]) -> dict[str, str]:
    """Return how far each cell is, by its label and seed: `done`, `waiting`, or the state of its job.

    Args:
        plan: The plan.
        output: Output folder.
        jobs: States of the stages that were handed to a cluster, by their names, and of parts of stages.
    """
    # Of the parts of a stage, those that run say how far it is.
    ordered = sorted(jobs.items(), key=lambda job: job[1] == "running")
    by_stage = {name.partition(PART)[0]: state for name, state in ordered}
    finished = finished_records(plan, output, Store(output / "store", create=False))
    found = {}
    for cell in plan.cells:
        stages = [by_stage[name] for name in stage_names(cell) if name in by_stage]
        state = "done" if cell.id in finished else stages[0] if stages else "waiting"
        found[f"{cell.problem.slug}, {cell.method.label}, seed {cell.seed}"] = state
    return found


def stage_names(cell: Cell) -> tuple[str, str]:
    """Return the names of the stages of a cell on a cluster: making the model and features, and the record."""
    return f"{cell.id}-make", f"{cell.id}-record"


def plan_for(
    resolved: Resolved,
    output: Path,
    precision: Precision,
    only: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda message: None,
) -> Plan:
    """Return the plan with which a run of a manifest starts or continues in an output folder.

    What a recipe's `auto` stands for is part of every model's identity. A folder that was started on another machine is
    therefore continued in the precision of its models, so that nothing finished is made again.

    Args:
        resolved: The resolved manifest.
        output: Output folder.
        precision: What `auto` stands for on the device.
        only: Labels of the unlearners to run; empty means all.
        say: Callback that receives a line if the folder's precision is not the device's.
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
    pairs = ((cell.original, cell.fdr) for cell in plan.cells)
    return sum(any(model is not None and store.has("models", model.id) for model in pair) for pair in pairs)
