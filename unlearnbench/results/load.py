"""Loading the records that make up one table: where they are, and what prevents them from making one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.documents import check_size, parsed_json, read_text
from unlearnbench.errors import InvalidFileError, WrongUseError
from unlearnbench.registry.component import label_slug
from unlearnbench.results.record import (
    SCHEMA,
    ChangedRecordError,
    Record,
    checked_record,
    is_collection,
    read_record,
    record_paths,
)
from unlearnbench.terms import HEADLINE, JUDGED, REFERENCES

Say = Callable[[str], None]

SUBMISSIONS = "submissions"
MOST_LINES = 20_000


@dataclass(frozen=True)
class Entry:
    """A record together with its file.

    Attributes:
        path: Path of the file.
        place: Path relative to the folder of records that it was found in.
        record: Content of the file.
        submission: Name of the submission on a leaderboard that it belongs to; "" if it belongs to none.
        line: Number of its line in a file of many records; None if it has a file of its own.
        ranked: Whether it takes part in a leaderboard's ranking; an experiment published beside the board does not.
    """

    path: Path
    place: str
    record: Record
    submission: str = ""
    line: int | None = None
    ranked: bool = True

    @property
    def where(self) -> str:
        """Path and, in a file of many records, line of the record, for messages."""
        return str(self.path) if self.line is None else f"{self.path}:{self.line}"

    @property
    def folder(self) -> Path:
        """Folder of records that the record was found in."""
        return self.path.parent if self.line is not None else self.path.parents[self.place.count("/")]


def unheard(line: str) -> None:
    """Discard a message."""


def load_records(folder: Path, say: Say = unheard, *, unranked: bool = False) -> list[Record]:
    """Return the records of a folder that tables are made of, in the order of their paths; see `load_entries`."""
    return [entry.record for entry in load_entries([folder], say, unranked=unranked)]


def load_entries(folders: Sequence[Path], say: Say = unheard, *, unranked: bool = False) -> list[Entry]:
    """Read the records of some folders that tables are made of, which are all but foreign references.

    Args:
        folders: Output folders, leaderboards with their submissions, or folders of records.
        say: Callback that receives a line for each folder of which some records are left out.
        unranked: Whether to include those that a leaderboard publishes without ranking them.

    Raises:
        InvalidFileError: If records cannot be used, with the faults of all of them, or if a folder holds none.
    """
    found = [entry for entry in read_entries(folders) if entry.ranked or unranked]
    return without_foreign_references(found, say)


def read_entries(folders: Sequence[Path]) -> list[Entry]:
    """Read all records of some folders: output folders, leaderboards with their submissions, folders of records.

    Raises:
        InvalidFileError: If records cannot be used, with the faults of all of them, or if a folder holds none.
    """
    found: list[Entry] = []
    faults = []
    for root in dict.fromkeys(root for folder in folders for root in record_roots(folder)):
        submission = root.name if root.parent.name == SUBMISSIONS else ""
        for path in record_paths(root):
            try:
                if is_collection(path):
                    found += read_collection(path, submission)
                    continue
                place = path.relative_to(root / "records" if (root / "records").is_dir() else root)
                found.append(Entry(path, place.as_posix(), read_record(path), submission))
            except ChangedRecordError as error:
                faults.append(
                    f"{error}\n  Put the run's own record back, or run the manifest again, which writes it anew"
                )
            except InvalidFileError as error:
                faults.append(str(error))
    if faults:
        raise InvalidFileError("\n".join(faults))
    return found


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
    """
    ordered = sorted(entries, key=lambda entry: (not entry.ranked, *_line_key(entry.record)))
    head: dict[str, Any] = {"schema_version": SCHEMA, "problem": None, **{name: [] for name in SHARED}}
    lines = []
    for entry in ordered:
        values = entry.record.model_dump(mode="json")
        head["problem"] = values.pop("problem")
        facts = {label: {key: metric.pop(key) for key in METRIC_FACTS} for label, metric in values["metrics"].items()}
        for metric in values["metrics"].values():
            for key, default in METRIC_DEFAULTS.items():
                if metric[key] == default:
                    del metric[key]
        manifest = {"name": values.pop("manifest_name"), "ranked": entry.ranked, "values": values["manifest"]}
        for name, shared in zip(SHARED, (manifest, values["environment"], facts), strict=True):
            if shared not in head[name]:
                head[name].append(shared)
            values[name] = head[name].index(shared)
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


def record_roots(folder: Path) -> list[Path]:
    """Return the folders that hold records: a folder itself and the submissions in it.

    Raises:
        InvalidFileError: If the folder holds output folders and no records of its own, or is part of one.
    """
    for place in (folder.absolute(), *folder.absolute().parents):
        if place.name == "store" and (place.parent / "records").is_dir():
            raise WrongUseError(f"{folder} is part of an output folder\n  Name that: {place.parent}")
    if not (folder / "records").is_dir():
        inside = sorted(path.parent for path in folder.glob("*/store") if (path.parent / "records").is_dir())
        if inside:
            raise WrongUseError(
                f"{folder} holds {'an output folder' if len(inside) == 1 else 'output folders'} and is none itself\n"
                f"  Name one: {', '.join(map(str, inside))}"
            )
    submissions = sorted(path for path in (folder / SUBMISSIONS).glob("*") if (path / "records").is_dir())
    alone = bool(submissions) and not (folder / "records").is_dir()
    return submissions if alone else [folder, *submissions]


def check_entries(entries: Sequence[Entry]) -> None:
    """Check that records make tables that can be trusted.

    Raises:
        InvalidFileError: If they do not, with all faults of `entry_faults`.
    """
    faults = entry_faults(entries)
    if faults:
        raise InvalidFileError("\n".join(faults))


def entry_faults(entries: Sequence[Entry]) -> list[str]:
    """Return what prevents records from making tables that can be trusted.

    These are two records of one cell, conflicting descriptions of one problem, missing seeds or references, and
    impossible values.
    """
    checks = (_value_faults, _problem_faults, _double_faults, _seed_faults, _reference_faults)
    return list(dict.fromkeys(fault for check in checks for fault in check(entries)))


def without_foreign_references(entries: Sequence[Entry], say: Say = unheard) -> list[Entry]:
    """Leave out the references of submissions where the leaderboard has its own for the same seed.

    A reference model comes out slightly different on other hardware, and a problem has one pair for each seed.

    Args:
        entries: Entries of a leaderboard and its submissions.
        say: Callback that receives a line for each submission of which some are left out.
    """
    own = {_reference_key(entry.record) for entry in entries if not entry.submission} - {None}
    foreign = [entry for entry in entries if entry.submission and _reference_key(entry.record) in own]
    for folder in dict.fromkeys(entry.folder for entry in foreign):
        say(_left_out(folder, [entry.record for entry in foreign if entry.folder == folder]))
    places = {entry.where for entry in foreign}
    return [entry for entry in entries if entry.where not in places]


def _left_out(folder: Path, records: Sequence[Record]) -> str:
    there = {record.method.name for record in records}
    names = " and ".join(shown for name, shown in REFERENCES.items() if name in there)
    seeds = ", ".join(map(str, sorted({record.seed for record in records})))
    return f"{folder}: {names} with seed {seeds} left out, of which the leaderboard has its own"


def _reference_key(record: Record) -> tuple[str, str, int] | None:
    return (record.problem.id, record.method.name, record.seed) if record.method.role == "reference" else None


def _value_faults(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        record = entry.record
        for label, metric in record.metrics.items():
            key = f"{entry.where}: metrics.{label}.value"
            if metric.status == "done" and metric.value is None:
                yield f"{key}: there is none, though the metric is done"
            elif metric.value is not None and metric.name in HEADLINE and not 0 <= metric.value <= 1:
                yield f"{key}: {metric.value!r} is not a share between 0 and 1"
        missing = [label for label in HEADLINE if label not in record.metrics]
        if record.status == "done" and missing:
            yield f"{entry.where}: metrics: {', '.join(missing)} missing, though the cell is done"


def _problem_faults(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield each contradiction between records of one problem."""
    first: dict[str, Entry] = {}
    for entry in entries:
        known = first.setdefault(entry.record.problem.id, entry)
        mine, other = entry.record.problem.model_dump(), known.record.problem.model_dump()
        for key in mine:
            if mine[key] != other.get(key):
                yield (
                    f"{entry.where}: problem.{key}: two problems are mixed under the id {known.record.problem.id}: "
                    f"{mine[key]!r} here, {other.get(key)!r} in {known.where}"
                )
        # The folders of a run are named after the problem.
        parts = entry.place.split("/")
        if len(parts) == 4 and parts[1] != entry.record.problem.slug:
            yield f"{entry.where}: problem.slug: the record is of {entry.record.problem.slug}, its folder of {parts[1]}"


def _double_faults(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield each record that is there twice; two manifests may share one if both copies say the same."""
    first: dict[tuple[str, str, int], Entry] = {}
    for entry in entries:
        record = entry.record
        known = first.setdefault((record.problem.id, record.method.id, record.seed), entry)
        if known is not entry and _result(known.record) != _result(record):
            yield (
                f"{entry.where}: {record.method.label} with seed {record.seed} is there twice, with other results in "
                f"{known.where}\n  Keep one of the two"
            )


def _result(record: Record) -> tuple[object, ...]:
    return record.status, *(record.value(label) for label in HEADLINE)


def _seed_faults(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the seeds of their own manifest that unlearners lack."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        record = entry.record
        key = (record.problem.id, record.method.id, record.manifest_name)
        groups.setdefault(key, []).append(entry)
    for (_, _, manifest), group in groups.items():
        record = group[0].record
        if record.method.name == JUDGED:
            # Weights from elsewhere are one model, made from the Original of one seed.
            continue
        there = {entry.record.seed for entry in group}
        missing = [seed for seed in record.manifest.get("seeds", ()) if seed not in there]
        if missing:
            first = group[0]
            yield (
                f"{first.path.parent if first.line is None else first.path}: {record.method.label} lacks seed "
                f"{', '.join(map(str, missing))} of the manifest {manifest}\n"
                "  The same run command goes on where it stopped"
            )


def _reference_faults(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield the seeds of unlearners for which Original or FDR has no record."""
    wanted: dict[str, tuple[str, set[int]]] = {}
    there: dict[tuple[str, str], set[int]] = {}
    for entry in entries:
        record = entry.record
        wanted.setdefault(record.problem.id, (record.problem.slug, set()))[1].add(record.seed)
        if record.method.role == "reference":
            there.setdefault((record.problem.id, record.method.name), set()).add(record.seed)
    does_without = {entry.record.problem.id for entry in entries if entry.record.fdr == "none"}
    for problem, (slug, seeds) in wanted.items():
        for name, shown in REFERENCES.items():
            missing = sorted(seeds - there.get((problem, name), set()))
            if missing:
                ways = "add the records of the references"
                if name == "fdr" and problem in does_without:
                    ways = 'its manifest says fdr = "none" in [references]: run it with "train"'
                yield (
                    f"{slug}: no record of {shown} with seed {', '.join(map(str, missing))}\n"
                    f"  Its methods cannot be judged; {ways}"
                )
