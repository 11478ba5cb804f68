"""Verification: whether a leaderboard or a submission can be trusted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.errors import InvalidFileError, UnlearnBenchError, WrongUseError
from unlearnbench.results.audit.attestation import attestation_faults
from unlearnbench.results.audit.consistency import inconsistencies
from unlearnbench.results.audit.forgery import copied, exchanged, missing_seeds, same_outputs
from unlearnbench.results.evaluate import evaluated, reference_records
from unlearnbench.results.leaderboard.build import outdated, rebuilt_pages
from unlearnbench.results.leaderboard.submission import SUBMISSION_FILE, submission_faults
from unlearnbench.results.ranking import PAPER
from unlearnbench.results.records.faults import entry_faults
from unlearnbench.results.records.files import Entry, record_paths, stored_file
from unlearnbench.results.records.load import (
    SUBMISSIONS,
    Say,
    read_entries,
    record_roots,
    unheard,
    without_foreign_references,
)
from unlearnbench.results.records.problems import differences
from unlearnbench.results.records.record import ProblemRecord, Record
from unlearnbench.terms import JUDGED

# Values computed on another machine may differ in their last digits.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class FolderCheck:
    """The outcome of checking a folder.

    Attributes:
        records: Number of records that it holds.
        recomputed: Number of metric values that were recomputed from features.
        faults: What is wrong; empty if nothing is.
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
) -> FolderCheck:
    """Check a leaderboard, a submission or a folder of records.

    Args:
        folder: Folder to check.
        features: Output folders of runs with feature files; metrics are recomputed from those that are found.
        known: Leaderboard that the problems must be on; None means the one that `folder` lies in, if any.
        order: Order in which the leaderboard's pages rank.
        say: Callback as in `without_foreign_references`; what is left out of the tables is still checked by itself.

    Raises:
        InvalidFileError: If the folder holds no records, or a folder of features does not exist.
    """
    for place in features:
        if not place.is_dir():
            raise WrongUseError(f"--features {place}: no such folder")
    faults: list[str] = []
    try:
        every = read_entries([folder])
    except WrongUseError:
        raise
    except InvalidFileError as error:
        # Lines that say how to correct a fault are indented and belong to the line before.
        faults += re.split(r"\n(?! )", str(error))
    if (folder / SUBMISSION_FILE).is_file():
        faults += submission_faults(folder)
    submitted = sorted(path for path in folder.glob(f"{SUBMISSIONS}/*") if path.is_dir())
    faults += [fault for path in submitted for fault in submission_faults(path)]
    if faults:
        # Without complete records nothing else can be checked.
        return FolderCheck(0, 0, tuple(faults))
    shown = without_foreign_references(every, say)
    entries = [entry for entry in shown if entry.ranked]
    for entry in every:
        faults += [f"{entry.where}: {fault}" for fault in inconsistencies(entry.record)]
    faults += [*entry_faults(entries), *copied(every)]
    if _is_board(folder):
        faults += [*missing_seeds(entries), *attestation_faults(folder, [entry.record for entry in every])]
    board = known or _enclosing_leaderboard(folder)
    if board is not None and board.resolve() != folder.resolve():
        faults += _unknown_problems(entries, board, folder)
    recomputed, wrong = _recompute(every, features)
    faults += [*wrong, *_page_faults(folder, shown, order)]
    return FolderCheck(len(every), recomputed, tuple(dict.fromkeys(faults)))


def _enclosing_leaderboard(folder: Path) -> Path | None:
    place = folder.resolve().parent
    return place.parent if place.name == SUBMISSIONS and (place.parent / "records").is_dir() else None


def _unknown_problems(entries: Sequence[Entry], board: Path, folder: Path) -> Iterator[str]:
    """Yield the records of problems that are not on a leaderboard, and those that lack seeds which it has."""
    own = {path.resolve() for root in record_roots(folder) for path in record_paths(root)}
    others = [entry for entry in read_entries([board]) if entry.path.resolve() not in own]
    problems = {entry.record.problem.id: entry.record.problem for entry in others}
    # As in `missing_seeds`: what is not ranked, and what others have submitted, asks for nothing.
    asked = [
        entry.record
        for entry in others
        if entry.ranked and not entry.submission and entry.record.method.role == "reference"
    ]
    for identity in dict.fromkeys(entry.record.problem.id for entry in entries):
        group = [entry for entry in entries if entry.record.problem.id == identity]
        first = group[0]
        if identity not in problems:
            difference = _nearest(first.record.problem, list(problems.values()))
            yield f"{first.where}: problem.id: {identity} is not on {board}{difference}"
            continue
        seeds = {record.seed for record in asked if record.problem.id == identity}
        for label in dict.fromkeys(entry.record.method.label for entry in group if entry.record.method.name != JUDGED):
            missing = seeds - {entry.record.seed for entry in group if entry.record.method.label == label}
            if missing:
                numbers = ", ".join(map(str, sorted(missing)))
                yield f"{folder}: {label} lacks seed {numbers}, which {board} has for {first.record.problem.slug}"


def _nearest(problem: ProblemRecord, known: Sequence[ProblemRecord]) -> str:
    """Return a line on how a problem differs from the most similar one on the leaderboard."""
    if not known:
        return ""
    compared = [(other.slug, differences(problem, other)) for other in known]
    slug, found = min(compared, key=lambda item: len(item[1]))
    told = "; ".join(f"{key}: {own!r} here, {other!r} there" for key, own, other in found[:5])
    return f"\n  The nearest problem there is {slug}; it differs in {told or 'its weights alone'}"


def _recompute(entries: Sequence[Entry], folders: Sequence[Path]) -> tuple[int, list[str]]:
    """Recompute metrics from the features in output folders, and return their number and those that differ."""
    count, faults = 0, []
    groups: dict[str, list[Record]] = {}
    for entry in entries:
        groups.setdefault(entry.submission, []).append(entry.record)
    # The metrics of a submission were computed with the references that it was run with.
    references = {name: reference_records(records) for name, records in groups.items()}
    places: dict[str, Path] = {}
    for entry in entries if folders else ():
        file = entry.record.files.get("features")
        if file is None:
            # That a cell which is done names none is told already.
            continue
        try:
            place = next((folder for folder in folders if stored_file(folder, file).is_file()), None)
            if place is None:
                faults.append(
                    f"{entry.where}: files.features: {file.path} is in none of the folders given with --features"
                )
                continue
            faults += [f"{entry.where}: {fault}" for fault in exchanged(entry.record, place)]
            places[entry.record.hash] = place
            found, kept = evaluated(place, entry.record, references[entry.submission], (), lambda line: None)
        except UnlearnBenchError as error:
            faults.append(f"{entry.where}: files.features: {error}")
            continue
        faults += [f"{entry.where}: metrics.{labels[0]}: not computed: {reason}" for reason, labels in kept.items()]
        told = {label: metric.value for label, metric in entry.record.metrics.items() if label in found}
        count += len(told)
        faults += [
            f"{entry.where}: metrics.{label}.value: {value!r}, but its features give {found[label].value!r}"
            for label, value in told.items()
            if not _same(value, found[label].value)
        ]
    held = [entry for entry in entries if entry.record.hash in places]
    return count, [*faults, *same_outputs(held, lambda record: places[record.hash])]


def _same(told: float | None, found: float | None) -> bool:
    if told is None or found is None:
        return told is found
    return math.isclose(told, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _is_board(folder: Path) -> bool:
    """Return whether a folder has pages, which a folder of records or a submission has not."""
    return (folder / "index.html").is_file()


def _page_faults(folder: Path, entries: Sequence[Entry], order: str) -> Iterator[str]:
    """Yield the pages of a leaderboard that differ from those that its records give."""
    if not _is_board(folder):
        return
    mend = f"unlearnbench leaderboard build {folder} -o {folder}"
    texts = rebuilt_pages(entries, folder, order)
    for name, text in texts.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
            yield f"{path}: not what the records give\n  {mend}"
    for path in outdated(folder, texts):
        yield f"{path}: the records give no such file\n  {mend}"
