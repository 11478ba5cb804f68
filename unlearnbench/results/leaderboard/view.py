"""What a leaderboard shows of ranked rows: one set of numbers for markdown, the web page and exports."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unlearnbench.results.audit.attestation import SELF_REPORTED, Attestation, standing
from unlearnbench.results.ranking import PAPER, rows_by_problem
from unlearnbench.results.records.record import ProblemRecord, Record
from unlearnbench.results.report.published import PublishedTable, published_table
from unlearnbench.results.rows import Row
from unlearnbench.results.summaries.profile import Overall, overall
from unlearnbench.results.summaries.stages import StageMap, stage_map
from unlearnbench.results.tables import method_name, rank_text
from unlearnbench.store import content_id
from unlearnbench.terms import JUDGED

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Link:
    """A link to a record of a row.

    Attributes:
        seed: Seed of the record.
        status: How the cell ended.
        target: Path of the file of its own below the leaderboard's folder; "" if it has none there.
    """

    seed: int
    status: str
    target: str


@dataclass(frozen=True)
class Line:
    """A row with what pages show besides its metrics.

    Attributes:
        row: The row.
        name: Name of the unlearner.
        place: Its range of ranks as text, or in a word why it has none.
        gap: Mean difference of FPAe to FDR's over common seeds.
        speed_up: Mean of FDR's image passes / the unlearner's; infinite if it reads no image.
        speed_up_seconds: The same ratio in measured seconds.
        image_passes: Mean image passes over the seeds.
        reported: A paper's fractions by metric.
        links: Links to its records.
        manifests: Names of its manifests.
        standing: Who verified it, or that it is self-reported.
    """

    row: Row
    name: str
    place: str
    gap: float | None
    speed_up: float | None
    speed_up_seconds: float | None
    image_passes: float | None
    reported: Mapping[str, float]
    links: tuple[Link, ...]
    manifests: tuple[str, ...]
    standing: str

    @property
    def verified(self) -> bool:
        """Whether somebody has run it again."""
        return self.standing != SELF_REPORTED

    @property
    def data_card(self) -> dict[str, float | None]:
        """What the unlearner read and ran, as means over the seeds; a task holds no test image to read."""
        done = self.row.done
        kinds = {kind: _mean(record.image_passes.get(kind) for record in done) for kind in ("forget", "retain")}
        reads = {f"{kind} image passes": count for kind, count in kinds.items()}
        return {
            **reads,
            "test image passes": 0 if self.row.run_here else None,
            "networks run": _mean(record.networks for record in done),
        }

    @property
    def search(self) -> str:
        """Budget under which its options were searched, according to its records; "-" if a person chose them."""
        if self.row.is_reference:
            return "-"
        return ", ".join(sorted({_search(record) for record in self.row.records}))

    @property
    def kind(self) -> str:
        """Kind of the line: `reference`, `ranked` or `below`."""
        return "reference" if self.row.is_reference else "below" if self.row.rank is None else "ranked"


def _search(record: Record) -> str:
    budget = record.manifest.get("tuning")
    if not budget or record.method.label in budget["not_searched"]:
        return "-"
    return f"{budget['trials']} trials on {len(budget['seeds'])} seeds"


@dataclass(frozen=True)
class ProblemBoard:
    """One problem with its lines: first the references, then the ranked ones, then those below the gate."""

    problem: ProblemRecord
    lines: tuple[Line, ...]
    published: PublishedTable | None

    @cached_property
    def stages(self) -> StageMap | None:
        """What is left at each stage of the network, or None if the records do not say."""
        return stage_map(self.rows)

    @property
    def rows(self) -> list[Row]:
        """The rows, in the order of the lines."""
        return [line.row for line in self.lines]

    @property
    def limited_images(self) -> str:
        """How many limited images there are: with each seed so many or, of a party's share, from so many to so many."""
        found = sorted({sum(record.limited_counts) for row in self.rows for record in row.records})
        numbers = [found[0], found[-1]] if len(found) > 1 else found or [sum(self.problem.limited_counts)]
        return " to ".join(f"{number:,}" for number in numbers)

    def of_kind(self, kind: str) -> list[Line]:
        """Return the lines that are `reference`, `ranked` or `below`."""
        return [line for line in self.lines if line.kind == kind]

    def reference(self, name: str) -> Line | None:
        """Return the line of `original` or `fdr`."""
        return next((line for line in self.of_kind("reference") if line.row.method.name == name), None)


@dataclass(frozen=True)
class Board:
    """All problems, and unlearners over all of them.

    Attributes:
        order: How unlearners are ranked, a key of `ranking.ORDERS`.
        records: All records of the leaderboard. If several manifests share a cell, each has its record here, whereas a
            row has only one.
        unranked: Names of the manifests whose records lie beside these and are not ranked.
    """

    problems: tuple[ProblemBoard, ...]
    overall: tuple[Overall, ...]
    order: str
    records: tuple[Record, ...]
    unranked: tuple[str, ...] = ()


def make_board(
    records: Iterable[Record],
    order: str = PAPER,
    record_files: Mapping[str, str] | None = None,
    unranked: Iterable[str] = (),
    attestations: Sequence[Attestation] = (),
) -> Board:
    """Return what a leaderboard shows of records.

    Args:
        records: All records.
        order: Order of the ranking, a key of `ranking.ORDERS`.
        record_files: Files below the leaderboard's folder that hold one record each, by the record's hash.
        unranked: Names of the manifests whose records lie beside these and are not ranked.
        attestations: What others found who ran rows again.
    """
    records = tuple(records)
    problems = rows_by_problem(records, order)
    boards = [_problem_board(rows, record_files or {}, attestations) for rows in problems]
    return Board(tuple(boards), tuple(overall(problems)), order, records, tuple(sorted(unranked)))


def manifest_id(record: Record) -> str:
    """Return the hash that identifies the manifest of a record."""
    return content_id(record.manifest_name, record.manifest)


def _problem_board(
    rows: Sequence[Row],
    record_files: Mapping[str, str],
    attestations: Sequence[Attestation],
) -> ProblemBoard:
    problem = rows[0].problem
    published = published_table(problem)
    fdr = next((row for row in rows if row.is_reference and row.method.name == "fdr"), None)
    lines = [
        Line(
            row=row,
            name=method_name(row),
            place=rank_text(row),
            gap=None if row is fdr else _mean(row.gaps(fdr).values()),
            speed_up=_mean(_speed_up(record) for record in row.done),
            speed_up_seconds=_mean(record.measured.speed_up_seconds for record in row.done),
            image_passes=_mean(_passes(record) for record in row.done),
            reported=published.figures(row.method) if published else {},
            links=tuple(Link(r.seed, r.status, record_files.get(r.hash, "")) for r in row.records),
            manifests=tuple(dict.fromkeys(record.manifest_name for record in row.records)),
            standing=standing(row.records, attestations),
        )
        for row in rows
    ]
    return ProblemBoard(problem, tuple(lines), published)


def _passes(record: Record) -> int | None:
    return None if record.method.name == JUDGED else sum(record.image_passes.values())


def _speed_up(record: Record) -> float | None:
    # A method that reads no image has no ratio of its own: it is infinitely fast.
    return math.inf if record.image_passes and _passes(record) == 0 else record.value("speed_up")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def options_text(options: Mapping[str, Any]) -> str:
    """Return options as "key = value" separated by commas, or "none" if there are none."""
    return ", ".join(f"{key} = {value}" for key, value in sorted(options.items())) or "none"


def count(value: float | None) -> str:
    """Return a mean number of things with thousands separators, or "-" if there is none."""
    return "-" if value is None else f"{value:,.0f}"


def factor(value: float | None) -> str:
    """Return a speed-up such as 6.8 with a multiplication sign, or "-" if there is none."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "∞"
    return f"{value:.0f}{TIMES}" if value >= 99.5 else f"{value:.1f}{TIMES}"
