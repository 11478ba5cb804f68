"""A file that holds the records of one problem, a line each, and says once what they share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unlearnbench.documents import check_size, parsed_json, read_text
from unlearnbench.errors import InvalidFileError
from unlearnbench.registry.component import label_slug
from unlearnbench.results.records.files import Entry
from unlearnbench.results.records.record import SCHEMA, ChangedRecordError, Record, checked_record

MOST_LINES = 20_000
# These facts of a metric's record are the same for all records of a method, so that a file of many stores them once.
METRIC_FACTS = ("name", "options", "version", "distribution", "distribution_version", "digest")
METRIC_DEFAULTS: dict[str, Any] = {"status": "done", "reason": None, "details": {}, "hits": None}
SHARED = ("manifest", "environment", "metric_facts")


def collection_text(entries: Iterable[Entry]) -> str:
    """Return the text of a file that holds the records of one problem, with a record in each line.

    The first line holds what the others share: the problem, and the different manifests, environments and facts of
    metrics, which a record refers to by number. The same records give the same text.

    Args:
        entries: Records of one problem, in any order.

    Raises:
        InvalidFileError: If they do not agree on the problem.
    """
    ordered = sorted(entries, key=lambda entry: (not entry.ranked, *_line_key(entry.record)))
    head: dict[str, Any] = {"schema_version": SCHEMA, "problem": None, **{name: [] for name in SHARED}}
    # By their texts, since 1, 1.0 and true are equal and yet not the same record.
    places: dict[str, dict[str, int]] = {name: {} for name in SHARED}
    lines = []
    for entry in ordered:
        values = entry.record.model_dump(mode="json")
        problem = values.pop("problem")
        if head["problem"] not in (None, problem):
            raise InvalidFileError(f"{entry.where}: problem: says otherwise than the other records of this problem")
        head["problem"] = problem
        facts = {label: {key: metric.pop(key) for key in METRIC_FACTS} for label, metric in values["metrics"].items()}
        for metric in values["metrics"].values():
            for key, default in METRIC_DEFAULTS.items():
                if metric[key] == default:
                    del metric[key]
        manifest = {"name": values.pop("manifest_name"), "ranked": entry.ranked, "values": values["manifest"]}
        for name, shared in zip(SHARED, (manifest, values["environment"], facts), strict=True):
            text = json.dumps(shared, sort_keys=True)
            if text not in places[name]:
                places[name][text] = len(places[name])
                head[name].append(shared)
            values[name] = places[name][text]
        lines.append(values)
    return "".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in (head, *lines))


def _line_key(record: Record) -> tuple[str, bool, str, int]:
    return record.manifest_name, record.method.role != "reference", record.method.label, record.seed


def read_collection(path: Path, submission: str = "") -> list[Entry]:
    """Return the records of a compressed file of what `collection_text` produced.

    Raises:
        InvalidFileError: If the file cannot be read, or a line is not a record or was changed.
    """
    try:
        head, *lines = _json_lines(read_text(path))
    except ValueError as error:
        raise InvalidFileError(f"{path}: not lines of JSON: {error}") from error
    entries, faults = [], []
    for number, line in enumerate(lines, start=2):
        try:
            values, ranked = _expanded(line, head)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            faults.append(f"{path}:{number}: does not fit the first line ({type(error).__name__}: {error})")
            continue
        try:
            record = checked_record(values, f"{path}:{number}")
        except ChangedRecordError as error:
            faults.append(f"{error}\n  Put the file back as it was published")
            continue
        except InvalidFileError as error:
            faults.append(str(error))
            continue
        row = f"{record.manifest_name}/{record.problem.slug}/{label_slug(record.method.label)}"
        entries.append(Entry(path, f"{row}/seed-{record.seed}.json", record, submission, number, ranked))
    if faults:
        raise InvalidFileError("\n".join(faults))
    return entries


def _json_lines(text: str) -> list[Any]:
    """Return the JSON values of each line.

    Raises:
        ValueError: If there is no line, one is not JSON, or all together exceed the bounds.
    """
    lines = text.splitlines() if text.count("\n") <= MOST_LINES else []
    if not lines:
        raise ValueError(f"it has {f'more than {MOST_LINES:,} lines' if text else 'no line'}")
    check_size(text)
    return [parsed_json(line) for line in lines]


def _expanded(line: dict[str, Any], head: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the complete values of the record in a line, and whether it is ranked."""
    manifest, environment, facts = (head[name][line[name]] for name in SHARED)
    metrics = {label: {**METRIC_DEFAULTS, **facts[label], **metric} for label, metric in line["metrics"].items()}
    rest = {key: value for key, value in line.items() if key not in SHARED}
    shared = {"problem": head["problem"], "manifest_name": manifest["name"], "manifest": manifest["values"]}
    return {**rest, **shared, "environment": environment, "metrics": metrics}, bool(manifest["ranked"])
