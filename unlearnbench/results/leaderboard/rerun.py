"""A new run of a leaderboard's row from its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unlearnbench.errors import InvalidFileError, WrongUseError, did_you_mean
from unlearnbench.experiment.plan import Plan
from unlearnbench.experiment.writer import manifest_toml
from unlearnbench.results.records.collection import read_collection
from unlearnbench.results.records.files import Entry, is_collection, read_record
from unlearnbench.results.records.load import read_entries
from unlearnbench.results.records.record import Record
from unlearnbench.terms import JUDGED


@dataclass(frozen=True)
class RecordedRow:
    """The records of one unlearner on one problem.

    Attributes:
        records: Records, ordered by seed.
    """

    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """One of the records, which all agree on everything that does not depend on the seed."""
        return self.records[0]

    @property
    def label(self) -> str:
        """Label of the unlearner."""
        return self.first.method.label

    def manifest(self) -> str:
        """Return the text of a manifest for these seeds, otherwise the same as that of the run."""
        values = {**self.first.manifest, "seeds": [record.seed for record in self.records]}
        return manifest_toml(values, f"{self.label} of {self.first.manifest_name}, to be run again")


def read_row(path: Path, label: str = "") -> RecordedRow:
    """Read the records of a row.

    Args:
        path: Record file, or a file or folder of many records.
        label: Label of the unlearner, needed if the file or folder holds others too. If several manifests have the
            row, it is run again from one of them: ranked manifests go first, then the one with the most seeds, then
            the one with the fewest methods, whose plugins a reader is most likely to have.

    Raises:
        InvalidFileError: If the records are of several rows or of none, or cannot be used.
    """
    if is_collection(path):
        entries = read_collection(path)
    elif path.is_dir():
        entries = read_entries([path])
    else:
        entries = [Entry(path, path.name, read_record(path))]
    labels = sorted({entry.record.method.label for entry in entries})
    if label and label not in labels:
        raise WrongUseError(f"{path}: holds no row of {label!r}{did_you_mean(label, labels)}")
    by_manifest: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        record = entry.record
        if not label or record.method.label == label:
            row = record.problem.id, record.method.id, record.manifest_name
            by_manifest.setdefault(row, []).append(entry)
    if len({row[:2] for row in by_manifest}) > 1 or (len(by_manifest) > 1 and not label):
        raise WrongUseError(
            f"{path}: holds {len(by_manifest)} rows, {', '.join(labels)}; one can be run again at a time\n"
            "  Say which: --only LABEL"
        )
    if any(record.method.name == JUDGED for record in (entries[0].record for entries in by_manifest.values())):
        raise WrongUseError(
            f"{path}: {label or labels[0]} was not run here: only its weights were judged, so that nothing can be run "
            "again\n  Judge the same weights again: unlearnbench judge CHECKPOINT MANIFEST"
        )
    best = min(by_manifest.values(), key=_preference)
    return RecordedRow(tuple(sorted((entry.record for entry in best), key=lambda record: record.seed)))


def _preference(entries: Sequence[Entry]) -> tuple[bool, int, int, str]:
    """Return a sort key for a row's entries of one manifest: the row is run again from the first."""
    first = entries[0]
    methods = len(first.record.manifest.get("unlearners", ()))
    return not first.ranked, -len(entries), methods, first.record.manifest_name


def plan_of_row(row: RecordedRow, plan: Plan, file: Path) -> Plan:
    """Return the part of a plan that runs the problem of a row.

    Raises:
        InvalidFileError: If the problem differs here, because of other data or another network.
    """
    problem = row.first.problem
    cells = tuple(cell for cell in plan.cells if cell.problem.id == problem.id)
    if not cells:
        here = plan.cells[0].problem
        raise InvalidFileError(
            f"{file}: the problem of the record, {problem.slug}, is another one here, {here.slug}\n"
            f"  Data set revision: {problem.dataset_revision} in the record, {here.info.revision} here\n"
            f"  unlearnbench: {row.first.environment.get('libraries', {}).get('unlearnbench')} in the record"
        )
    return replace(plan, cells=cells)


def of_row(row: RecordedRow, records: Sequence[Record]) -> list[Record]:
    """Return the records of a rerun that belong to the row's unlearner."""
    return [record for record in records if record.method.label == row.label]
