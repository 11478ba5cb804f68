"""Inspect logs of finished runs, as `inspect eval` would have written them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import ModelOutput

from unlearnbench.frontends.hosts.inspect_task import outcome, sample_facts, sample_id, scored
from unlearnbench.registry.component import label_slug
from unlearnbench.results.records.record import Record
from unlearnbench.store import content_id


def write_inspect_logs(records: Iterable[Record], folder: Path) -> list[Path]:
    """Write a log for each manifest and unlearner and return the files, whose names depend only on the records.

    References and unlearners that never gave a result are left out.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.method.role == "unlearner":
            groups.setdefault((record.manifest_name, record.method.label), []).append(record)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for (manifest, label), found in sorted(groups.items()):
        if any(record.status == "done" for record in found):
            path = folder / f"{label_slug(manifest)}_{label_slug(label)}.eval"
            write_eval_log(inspect_log(found), str(path))
            written.append(path)
    return written


def inspect_log(records: Sequence[Record]) -> EvalLog:
    """Return the log of one unlearner's records for one manifest."""
    first = records[0]
    done = [record for record in records if record.status == "done"]
    ids = [sample_id(record.problem.slug, record.seed) for record in records]
    finished = max(record.measured.finished_at for record in records)
    identity = content_id(*(record.cell for record in records))
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=identity,
            run_id=identity,
            created=finished,
            task="unlearnbench/unlearn",
            task_id=content_id(first.manifest_name),
            task_args={"manifest": first.manifest_name},
            solver=f"unlearnbench/{first.method.name}",
            solver_args=first.method.options,
            dataset=EvalDataset(name=first.manifest_name, samples=len(records), sample_ids=ids),
            model="none/none",
            config=EvalConfig(fail_on_error=False),
            packages={first.method.distribution: first.method.distribution_version},
            metadata={"label": first.method.label, "manifest": first.manifest},
        ),
        results=EvalResults(total_samples=len(records), completed_samples=len(done), scores=_scores(done)),
        stats=EvalStats(started_at=finished, completed_at=finished),
        samples=[_sample(record, name) for record, name in zip(records, ids, strict=True)],
    )


def _scores(done: Sequence[Record]) -> list[EvalScore]:
    """Return the mean and standard error of each metric over the records that have it."""
    metrics = dict.fromkeys(name for record in done for name in sample_facts(record)["values"])
    found = []
    for name in metrics:
        values = [value for record in done if (value := record.value(name)) is not None]
        if not values:
            continue
        center = sum(values) / len(values)
        squares = sum((value - center) ** 2 for value in values)
        error = (squares / max(1, len(values) - 1) / len(values)) ** 0.5
        statistics = {
            "mean": EvalMetric(name="mean", value=center),
            "stderr": EvalMetric(name="stderr", value=error),
        }
        found.append(EvalScore(name=name, scorer="fractions", scored_samples=len(values), metrics=statistics))
    return found


def _sample(record: Record, name: str) -> EvalSample:
    given = f"{record.problem.title}, seed {record.seed}"
    if record.status != "done":
        return EvalSample(
            id=name,
            epoch=1,
            input=given,
            target="",
            metadata={"seed": record.seed, "status": record.status, "reason": record.reason},
        )
    facts = sample_facts(record)
    return EvalSample(
        id=name,
        epoch=1,
        input=given,
        target="",
        output=ModelOutput.from_content(model="none", content=outcome(record)),
        scores={"fractions": scored(facts["values"], outcome(record))},
        metadata={"seed": record.seed, "problem": record.problem.slug, **facts},
        total_time=sum(record.measured.seconds.values()),
    )
