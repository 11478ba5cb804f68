"""A row of a leaderboard, run again from its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unlearnbench.errors import InvalidFileError
from unlearnbench.experiment.plan import Plan
from unlearnbench.experiment.writer import manifest_toml
from unlearnbench.results.load import read_entries
from unlearnbench.results.record import Record, read_record


@dataclass(frozen=True)
class RecordedRow:
    """The records of one method on one problem.

    Attributes:
        records: By seed.
    """

    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """Any of them: what is not of the seed is the same in all."""
        return self.records[0]

    @property
    def label(self) -> str:
        """The method's label."""
        return self.first.method.label

    def manifest(self) -> str:
        """Return the text of a manifest for these seeds, as the run had it otherwise."""
        values = {**self.first.manifest, "seeds": [record.seed for record in self.records]}
        return manifest_toml(values, f"{self.label} of {self.first.manifest_name}, to be run again")


def read_row(path: Path) -> RecordedRow:
    """Read a record file, or the folder of a row's records.

    Raises:
        InvalidFileError: If the records are of several rows, or cannot be used.
    """
    records = [entry.record for entry in read_entries([path])] if path.is_dir() else [read_record(path)]
    rows = {(record.problem.id, record.method.id, record.manifest_name) for record in records}
    if len(rows) > 1:
        labels = sorted({record.method.label for record in records})
        raise InvalidFileError(
            f"{path}: holds {len(rows)} rows, {', '.join(labels)}; one can be run again at a time\n"
            "  Give the folder of one row, for example leaderboard/records/MANIFEST/PROBLEM/METHOD, or one record file"
        )
    return RecordedRow(tuple(sorted(records, key=lambda record: record.seed)))


def plan_of_row(row: RecordedRow, plan: Plan, file: Path) -> Plan:
    """Return the part of a plan that runs a row's problem.

    Raises:
        InvalidFileError: If the problem is another one here: other data, another network.
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
    """Return the records of a rerun that are of the row's method."""
    return [record for record in records if record.method.label == row.label]
