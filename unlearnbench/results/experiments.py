"""An experiment: the records of one manifest, together with what it varies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.records.record import ProblemRecord, Record
from unlearnbench.results.rows import Row

# These are the names in tables of what a problem's matrix can vary.
FORGET, LIMITED = "forget classes", "limited data"


@dataclass(frozen=True)
class Experiment:
    """The records of one manifest.

    Attributes:
        name: Name of the manifest.
        manifest: The resolved manifest, with its `description`, `unlearners` and `problem`.
        problems: Ranked rows of each problem.
    """

    name: str
    manifest: Mapping[str, Any]
    problems: tuple[tuple[Row, ...], ...]

    @property
    def rows(self) -> list[Row]:
        """Rows of all problems."""
        return [row for rows in self.problems for row in rows]

    @cached_property
    def varied_options(self) -> tuple[str, ...]:
        """Names of the options that differ between rows of one unlearner on one problem."""
        found: dict[str, None] = {}
        for rows in self.problems:
            for name in {row.method.name for row in rows}:
                same = [row.method.options for row in rows if row.method.name == name]
                keys = dict.fromkeys(key for options in same for key in options)
                found |= {key: None for key in keys if any(one.get(key) != same[0].get(key) for one in same)}
        return tuple(sorted(found))

    @cached_property
    def varied_problem(self) -> tuple[str, ...]:
        """What differs between the problems, as keys of `settings`."""
        problems = [rows[0].problem for rows in self.problems]
        return tuple(
            key for key in (FORGET, LIMITED) if len({problem_settings(problem)[key] for problem in problems}) > 1
        )

    @property
    def has_matrix(self) -> bool:
        """Whether the manifest varies anything; if so, its table has a column for each thing that it varies."""
        return bool(self.varied_options or self.varied_problem)

    def stem(self, rows: Sequence[Row]) -> str:
        """Return the stem of file names for one problem: the manifest's name and what its matrix sets there."""
        stems = [self._stem(one[0].problem) for one in self.problems]
        stem = self._stem(rows[0].problem)
        # Two forget sets of the same size, or two recipes, set the same there.
        return stem if stems.count(stem) == 1 else f"{stem}-{rows[0].problem.id[:6]}"

    def _stem(self, problem: ProblemRecord) -> str:
        settings = problem_settings(problem)
        words = [f"{'forget' if key == FORGET else ''}{settings[key]}" for key in self.varied_problem]
        return re.sub(r"[^A-Za-z0-9._-]+", "", "-".join([self.name, *words]).replace("%", "pct"))

    def caption(self, rows: Sequence[Row]) -> str:
        """Return what a caption says about one of the problems."""
        return f"{self.name}, {rows[0].problem.title}"

    def position(self, row: Row) -> int:
        """Return the position of a row's unlearner in the manifest, or the last one if it is no longer listed there."""
        entries = self.manifest.get("unlearners", ())
        labels = [entry.get("label") or entry["name"] for entry in entries]
        # A matrix adds its setting to the label, so that of two entries that fit, the longer one is the row's own.
        found = [(len(label), at) for at, label in enumerate(labels) if row.method.label.startswith(label)]
        return max(found)[1] if found else len(labels)

    def order(self, row: Row) -> tuple[Any, ...]:
        """Return a sort key: references first, then the manifest's entries, each by the values of its matrix."""
        values = [row.method.options.get(key) for key in self.varied_options]
        # Numbers sort among themselves, and everything else follows as text.
        keys = [(0, value, "") if isinstance(value, int | float) else (1, 0, str(value)) for value in values]
        return not row.is_reference, row.method.name != "original", self.position(row), *keys

    def settings(self, row: Row) -> dict[str, Any]:
        """Return what the experiment varies, with a row's values; None if the unlearner has no such option."""
        of_problem = problem_settings(row.problem)
        return {key: of_problem[key] for key in self.varied_problem} | {
            key: row.method.options.get(key) for key in self.varied_options
        }


def problem_settings(problem: ProblemRecord) -> dict[str, Any]:
    """Return what a problem's matrix can vary."""
    return {FORGET: len(problem.forget_classes), LIMITED: problem.limited}


def experiments(records: Iterable[Record]) -> list[Experiment]:
    """Group records into experiments, sorted by name."""
    by_manifest: dict[str, list[Record]] = {}
    for record in records:
        by_manifest.setdefault(record.manifest_name, []).append(record)
    return [_experiment(name, by_manifest[name]) for name in sorted(by_manifest)]


def _experiment(name: str, records: Sequence[Record]) -> Experiment:
    # An earlier version of the manifest may have left records behind, and the latest record holds the present one.
    latest = max(records, key=lambda record: record.measured.finished_at)
    problems = sorted(
        rows_by_problem(records), key=lambda rows: (len(rows[0].problem.forget_classes), rows[0].problem.slug)
    )
    return Experiment(name, latest.manifest, tuple(tuple(rows) for rows in problems))
