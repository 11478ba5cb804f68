"""Whether a leaderboard or a submission can be believed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.errors import InvalidFileError, UnlearnBenchError
from unlearnbench.evaluation import evaluated, reference_records
from unlearnbench.leaderboard import outdated, rebuilt_manifests, rebuilt_pages
from unlearnbench.problem_titles import differences
from unlearnbench.ranking import PAPER
from unlearnbench.record import ProblemRecord, Record, read_record, record_paths
from unlearnbench.record_set import (
    SUBMISSIONS,
    Entry,
    Say,
    entry_faults,
    read_entries,
    record_roots,
    unheard,
    without_foreign_references,
)
from unlearnbench.submission import SUBMISSION_FILE, submission_faults
from unlearnbench.tampering import changed_fields, inconsistencies

# Values computed on another machine may differ in their last digits.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What came of checking a folder.

    Attributes:
        records: How many records it holds.
        recomputed: How many metric values were computed again from features.
        faults: What is wrong, empty if nothing is.
    """

    records: int
    recomputed: int
    faults: tuple[str, ...]


def verify(
    folder: Path,
    features: Sequence[Path] = (),
    known: Path | None = None,
    order: str = PAPER,
    say: Say = unheard,
) -> Verdict:
    """Check a leaderboard, a submission or a folder of records.

    Args:
        folder: What to check.
        features: Output folders of runs that hold the feature files; metrics are computed again from those found.
        known: The leaderboard that the problems must be on; None for the one that `folder` lies in, if any.
        order: How the leaderboard's pages rank.
        say: As in `without_foreign_references`; what is left out of the tables is checked by itself all the same.

    Raises:
        InvalidFileError: If the folder holds no records, or one with features is not there.
    """
    for place in features:
        if not place.is_dir():
            raise InvalidFileError(f"--features {place}: no such folder")
    faults = [fault for root in record_roots(folder) for fault in _file_faults(root)]
    if (folder / SUBMISSION_FILE).is_file():
        faults += submission_faults(folder)
    faults += [fault for path in sorted(folder.glob(f"{SUBMISSIONS}/*")) for fault in submission_faults(path)]
    total = sum(len(record_paths(root)) for root in record_roots(folder))
    if faults:
        # Without whole records nothing else can be looked at.
        return Verdict(total, 0, tuple(faults))
    every = read_entries([folder])
    entries = without_foreign_references(every, say)
    for entry in every:
        faults += [f"{entry.path}: {fault}" for fault in inconsistencies(entry.record)]
    faults += entry_faults(entries)
    board = known or _enclosing_leaderboard(folder)
    if board is not None and board.resolve() != folder.resolve():
        faults += _unknown_problems(entries, board, folder)
    recomputed, wrong = _recompute(every, features)
    faults += [*wrong, *_page_faults(folder, entries, order)]
    return Verdict(total, recomputed, tuple(dict.fromkeys(faults)))


def _file_faults(root: Path) -> Iterator[str]:
    """Yield which record files cannot be used, with the changed field where it can be known."""
    for path in record_paths(root):
        try:
            read_record(path)
        except InvalidFileError as error:
            fields = _changed_fields(path) if "content was changed" in str(error) else []
            if fields:
                yield from (f"{path}: {field}" for field in fields)
            else:
                yield str(error)


def _changed_fields(path: Path) -> list[str]:
    siblings = [_json(other) for other in sorted(path.parent.glob("*.json")) if other != path]
    return changed_fields(_json(path), [sibling for sibling in siblings if isinstance(sibling, dict)])


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


def _enclosing_leaderboard(folder: Path) -> Path | None:
    place = folder.resolve().parent
    return place.parent if place.name == SUBMISSIONS and (place.parent / "records").is_dir() else None


def _unknown_problems(entries: Sequence[Entry], board: Path, folder: Path) -> Iterator[str]:
    """Yield which records are of problems that are not on a leaderboard, and which lack seeds that it has."""
    own = {path.resolve() for root in record_roots(folder) for path in record_paths(root)}
    others = [entry.record for entry in read_entries([board]) if entry.path.resolve() not in own]
    problems = {record.problem.id: record.problem for record in others}
    for identity in dict.fromkeys(entry.record.problem.id for entry in entries):
        group = [entry for entry in entries if entry.record.problem.id == identity]
        first = group[0]
        if identity not in problems:
            difference = _nearest(first.record.problem, list(problems.values()))
            yield f"{first.path}: problem.id: {identity} is not on {board}{difference}"
            continue
        seeds = {record.seed for record in others if record.problem.id == identity}
        for label in dict.fromkeys(entry.record.method.label for entry in group):
            missing = seeds - {entry.record.seed for entry in group if entry.record.method.label == label}
            if missing:
                numbers = ", ".join(map(str, sorted(missing)))
                yield f"{folder}: {label} lacks seed {numbers}, which {board} has for {first.record.problem.slug}"


def _nearest(problem: ProblemRecord, known: Sequence[ProblemRecord]) -> str:
    """Return a line on how a problem differs from the one on the leaderboard that is most like it."""
    if not known:
        return ""
    compared = [(other.slug, differences(problem, other)) for other in known]
    slug, found = min(compared, key=lambda item: len(item[1]))
    told = "; ".join(f"{key}: {own!r} here, {other!r} there" for key, own, other in found[:5])
    return f"\n  The nearest problem there is {slug}; it differs in {told or 'its weights alone'}"


def _recompute(entries: Sequence[Entry], folders: Sequence[Path]) -> tuple[int, list[str]]:
    """Compute metrics again from the features in output folders; return how many, and which are others."""
    count, faults = 0, []
    groups: dict[str, list[Record]] = {}
    for entry in entries:
        groups.setdefault(entry.submission, []).append(entry.record)
    # A submission's metrics rest on the references that it was run with.
    references = {name: reference_records(records) for name, records in groups.items()}
    for entry in entries if folders else ():
        file = entry.record.files.get("features")
        place = next((folder for folder in folders if file and (folder / file.path).is_file()), None)
        if file is None:
            continue
        if place is None:
            faults.append(f"{entry.path}: files.features: {file.path} is in none of the folders given with --features")
            continue
        try:
            found, kept = evaluated(place, entry.record, references[entry.submission], (), lambda line: None)
        except UnlearnBenchError as error:
            faults.append(f"{entry.path}: files.features: {error}")
            continue
        faults += [f"{entry.path}: metrics.{labels[0]}: not computed: {reason}" for reason, labels in kept.items()]
        told = {label: metric.value for label, metric in entry.record.metrics.items() if label in found}
        count += len(told)
        faults += [
            f"{entry.path}: metrics.{label}.value: {value!r}, but its features give {found[label].value!r}"
            for label, value in told.items()
            if not _same(value, found[label].value)
        ]
    return count, faults


def _same(told: float | None, found: float | None) -> bool:
    if told is None or found is None:
        return told is found
    return math.isclose(told, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _page_faults(folder: Path, entries: Sequence[Entry], order: str) -> Iterator[str]:
    """Yield which pages and manifests of a leaderboard are not those that its records give."""
    if not (folder / "manifests").is_dir() and not (folder / "index.html").is_file():
        # Records or a submission, without pages.
        return
    mend = f"unlearnbench leaderboard build {folder} -o {folder}"
    texts = rebuilt_pages(entries, folder, order) | rebuilt_manifests(entries)
    for name, text in texts.items():
        path = folder / name
        if not path.is_file() or path.read_text(errors="replace") != text:
            yield f"{path}: not what the records give\n  {mend}"
    for path in outdated(folder, texts):
        yield f"{path}: the records give no such file\n  {mend}"
