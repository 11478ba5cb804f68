"""Records made up by hand, and those of a finished run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unlearnbench.results.records.files import write_record
from unlearnbench.results.records.record import Record, content_hash, with_hash
from unlearnbench.terms import POSITIONS, VIEW_METRICS


def record_files(output: Path) -> dict[str, Path]:
    """Return the record files of an output folder by `method/seed-N.json`."""
    return {"/".join(path.parts[-2:]): path for path in sorted((output / "records").rglob("*.json"))}


def comparable_records(output: Path) -> dict[str, dict[str, Any]]:
    """Return all records of an output folder without times, memory, commit and the hash that covers them."""
    records = {}
    for name, path in record_files(output).items():
        values = json.loads(path.read_text())
        del values["environment"]["commit"]
        records[name] = {key: value for key, value in values.items() if key not in {"measured", "hash"}}
    return records


HEADLINE = ("forget_accuracy", "forget_prototype_accuracy", "retain_accuracy")


def make_record(
    method: str,
    seed: int,
    *,
    metrics: Sequence[float | None] | None = (0.0, 0.5, 0.9),
    status: str = "done",
    reason: str | None = None,
    options: dict[str, Any] | None = None,
    problem: str = "problem",
    finished_at: str = "2026-01-01T10:00:00+00:00",
    positions: tuple[float, float, float] | None = None,
) -> Record:
    """Return a record made up by hand; `metrics` holds FAe, FPAe and CAne, or is None for one that failed.

    With `positions`, one for each view, the record has all that the ranking reads: the retain accuracy among retain
    outputs is CAne, and the views find 0.5 of the forget images in FDR (position 0) and 0.8 in Original (1).
    """
    source = {"version": 1, "distribution": "made-up", "distribution_version": "1.0", "digest": "0" * 16}
    values: dict[str, Any] = {
        "schema_version": 2,
        "cell": f"{method}-{seed}",
        "status": status,
        "reason": reason,
        "manifest_name": "small",
        "manifest": {},
        "problem": {
            "id": problem,
            "slug": problem,
            "title": f"{problem}: forget 1 of 10 classes",
            "dataset": "digits",
            "dataset_options": {},
            "dataset_version": 1,
            "dataset_revision": "1",
            "architecture": "digits_net",
            "architecture_options": {},
            "architecture_version": 1,
            "weights": None,
            "start": None,
            "training": {"epochs": 2, "crop": None, "milestones": []},
            "num_classes": 10,
            "forget_classes": [9],
            "forget_class_names": ["nine"],
            "limited": "10 %",
            "limited_counts": [14] * 10,
            "train_images": 1352,
            "test_images": 445,
        },
        "method": {
            "label": method,
            "name": method,
            "role": "reference" if method in {"original", "fdr"} else "unlearner",
            "options": options or {},
            **source,
        },
        "seed": seed,
        "metrics": {
            name: {
                "name": name.partition(" ")[0],
                "status": "failed" if value is None else "done",
                "value": value,
                "reason": "no image" if value is None else None,
                "options": {},
                **source,
            }
            for name, value in _values(metrics, positions).items()
        },
        "details": {},
        "image_passes": {"forget": 100, "retain": 1000},
        "networks": 2,
        "files": {},
        "environment": {"device": "a machine"},
        "measured": {
            "finished_at": finished_at,
            "seconds": {"unlearn": 1.5, "features": 9.0},
            "peak_memory_bytes": None,
        },
        "hash": "",
    }
    record = Record.model_validate_json(json.dumps(values))
    return record.model_copy(update={"hash": content_hash(record.model_dump(mode="json"))})


def _values(
    metrics: Sequence[float | None] | None, positions: tuple[float, float, float] | None
) -> dict[str, float | None]:
    if metrics is None:
        return {}
    found = dict(zip((*HEADLINE, "speed_up"), (*metrics, 1.0), strict=True))
    if positions is not None:
        found["masked_retain_accuracy"] = metrics[2]
        found |= dict(zip(POSITIONS.values(), positions, strict=True))
        found |= {
            label: 0.5 + 0.3 * value
            for label, value in zip(VIEW_METRICS.values(), positions, strict=True)
            if label not in HEADLINE
        }
    return found


def with_changes(record: Record, **changes: Any) -> Record:
    """Return a record with other fields and a matching hash."""
    return with_hash(record.model_copy(update=changes))


STAGES = ("layer1", "layer10", "layer2")


def with_stages(record: Record, gap: float, similarity: float = 0.5) -> Record:
    """Return a record that was judged at three stages; the gap to FDR's grows from stage to stage."""
    like = record.metrics["forget_accuracy"]
    found = {}
    for label in ("layer_prototype_gap", "layer_probe_recovery"):
        by_stage: dict[str, Any] = {
            name: {"judged": 0.4 + gap * share, "original": 0.9, "fdr": 0.4}
            for name, share in zip(STAGES, (0.0, 0.5, 1.0), strict=True)
        }
        found[label] = by_stage
    for model in ("original", "fdr"):
        found[f"layer_cka reference={model} images=forget"] = dict.fromkeys(STAGES, similarity)
    metrics = {
        label: like.model_copy(
            update={
                "name": label.partition(" ")[0],
                "value": gap,
                # As a file has it: the keys of details are sorted there.
                "details": {"by_stage": dict(sorted(by_stage.items())), "stage": "layer2", "stages": list(STAGES)},
            }
        )
        for label, by_stage in found.items()
    }
    return with_changes(record, metrics={**record.metrics, **metrics})


def with_relative_verdict(record: Record, value: float, details: dict[str, Any]) -> Record:
    """Return a record that holds a relative verdict."""
    like = record.metrics["forget_accuracy"]
    found = like.model_copy(update={"name": "relative_verdict", "value": value, "details": details})
    return with_changes(record, metrics={**record.metrics, "relative_verdict": found})


def write_records(folder: Path, records: Iterable[Record]) -> Path:
    """Write records into a folder as a run does, and return the folder."""
    for record in records:
        place = f"{record.manifest_name}/{record.problem.slug}/{record.method.label.replace(' ', '-')}"
        write_record(record, folder / "records" / place / f"seed-{record.seed}.json")
    return folder


def small_board(problem: str = "problem", seeds: int = 2) -> list[Record]:
    """Return records of a leaderboard: references, two methods, one that lost CAne, one failed, one skipped.

    With two seeds no method has a rank yet; there are at most three.
    """
    values = {
        "original": ((0.9, 0.8, 0.90), (0.92, 0.82, 0.90), (0.91, 0.81, 0.90)),
        "fdr": ((0.0, 0.5, 0.91), (0.0, 0.52, 0.91), (0.0, 0.51, 0.91)),
        "good": ((0.0, 0.55, 0.90), (0.0, 0.56, 0.90), (0.0, 0.555, 0.90)),
        "weak": ((0.5, 0.7, 0.90), (0.52, 0.7, 0.90), (0.51, 0.7, 0.90)),
        "lossy": ((0.0, 0.3, 0.50), (0.0, 0.3, 0.52), (0.0, 0.3, 0.51)),
    }
    positions = {
        "original": (1.0, 1.0, 1.0),
        "fdr": (0.0, 0.0, 0.0),
        "good": (0.1, 0.2, 0.3),
        "weak": (0.6, 0.7, 0.8),
        "lossy": (-0.7, -0.5, -0.2),
    }
    options = {"good": {"epochs": 3, "mode": "a|b"}, "weak": {"rate": 0.1}}
    made = [
        make_record(
            method, seed, metrics=metrics, options=options.get(method), problem=problem, positions=positions[method]
        )
        for method, by_seed in values.items()
        for seed, metrics in enumerate(by_seed[:seeds])
    ]
    made += [
        make_record("broken", seed, status="failed", reason="ValueError: no\n  <b>way", metrics=None, problem=problem)
        for seed in range(seeds)
    ]
    made += [
        make_record("absent", seed, status="not_applicable", reason="needs batch norm", metrics=None, problem=problem)
        for seed in range(seeds)
    ]
    return made
