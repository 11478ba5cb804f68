"""Loading the records that make up one table: where they are, and what prevents them from making one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from unlearnbench.errors import InvalidFileError, WrongUseError
from unlearnbench.results.records.collection import read_collection
from unlearnbench.results.records.faults import entry_faults
from unlearnbench.results.records.files import Entry, is_collection, read_record, record_paths
from unlearnbench.results.records.record import ChangedRecordError, Record
from unlearnbench.terms import REFERENCES

Say = Callable[[str], None]

SUBMISSIONS = "submissions"


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


def without_foreign_references(entries: Sequence[Entry], say: Say = unheard) -> list[Entry]:
    """Leave out the references of submissions where the leaderboard has its own for the same seed.

    A reference model comes out slightly different on other hardware, and a problem's table has one pair for each seed.
    A submission's method started from its own Original all the same, and its record is judged by its own pair.

    Args:
        entries: Entries of a leaderboard and its submissions.
        say: Callback that receives a line for each submission of which some are left out.
    """
    own = {_reference_key(entry.record) for entry in entries if not entry.submission} - {None}
    foreign = [entry for entry in entries if entry.submission and _reference_key(entry.record) in own]
    for folder in dict.fromkeys(entry.folder for entry in foreign):
        say(_left_out(folder, [entry.record for entry in foreign if entry.folder == folder]))
    pairs: dict[tuple[Path, str, int], tuple[Record, ...]] = {}
    for entry in foreign:
        pairs[_cell_key(entry)] = (*pairs.get(_cell_key(entry), ()), entry.record)
    places = {entry.where for entry in foreign}
    kept = [entry for entry in entries if entry.where not in places]
    return [
        replace(entry, record=entry.record.with_references(pairs[_cell_key(entry)]))
        if entry.submission and _cell_key(entry) in pairs
        else entry
        for entry in kept
    ]


def _cell_key(entry: Entry) -> tuple[Path, str, int]:
    return entry.folder, entry.record.problem.id, entry.record.seed


def _left_out(folder: Path, records: Sequence[Record]) -> str:
    there = {record.method.name for record in records}
    names = " and ".join(shown for name, shown in REFERENCES.items() if name in there)
    seeds = ", ".join(map(str, sorted({record.seed for record in records})))
    return (
        f"{folder}: {names} with seed {seeds} have no row, since the leaderboard has its own; "
        "they judge the methods of this submission"
    )


def _reference_key(record: Record) -> tuple[str, str, int] | None:
    return (record.problem.id, record.method.name, record.seed) if record.method.role == "reference" else None
