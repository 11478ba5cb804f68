"""What papers and repositories report of unlearning a class: a page of its own, in which nothing is ranked."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from unlearnbench.escape import markdown, markdown_link
from unlearnbench.results.leaderboard.view import Board
from unlearnbench.results.tables import markdown_line, points
from unlearnbench.terms import SHORT

TITLE = "What papers report"
INTRODUCTION = """\
Numbers of others, *reported* and not run here, in percent. None is ranked: each has a protocol of its own, is taken \
on training or on test images, for one class or another, and the same method is printed with accuracies far apart. \
*Grade* P was read in the authors' own file, C is a mean over the authors' own rows. *Measured here* is CAne on this \
leaderboard's problems with the same data, whatever their forget set and limited data, each with its page."""
HEADER = (
    "method",
    "called",
    "retain accuracy *reported*",
    "forget accuracy *reported*",
    "images",
    "protocol",
    "source",
)


@dataclass(frozen=True)
class Reported:
    """What somebody reports of one method on one problem; accuracies are text in percent, "" where there is none.

    Attributes:
        data: Name of the data set.
        network: Name of the network.
        method: Label of the method in our tables; "" if we have none like it.
        called: Its name in the source.
        forget: Accuracy on forget classes.
        retain: Accuracy on retain classes: a number, or the lowest and the highest as "12.53 to 95.26".
        images: Which images they were taken on: `training`, `test`, or `not said`.
        protocol: What was forgotten, with which data and how often.
        paper: Short name of the source.
        source: Where in it the numbers stand.
        grade: P or C.
    """

    data: str
    network: str
    method: str
    called: str
    forget: str
    retain: str
    images: str
    protocol: str
    paper: str
    source: str
    grade: str

    @property
    def retains(self) -> list[float]:
        """Its accuracies on retain classes in percent: one, or the lowest and the highest."""
        return [float(value) for value in self.retain.split(" to ")]


@functools.cache
def reported() -> tuple[Reported, ...]:
    """Return all reported values, by data set and network."""
    text = files("unlearnbench.results.report").joinpath("reported.csv").read_text(encoding="utf-8")
    return tuple(Reported(**row) for row in csv.DictReader(text.splitlines()))


def reported_sections(board: Board) -> list[str]:
    """Return the parts of the page of reported values below its title."""
    problems = sorted({(one.data, one.network) for one in reported()})
    parts = [INTRODUCTION, "## How far apart they are", _ranges(board)]
    for data, network in problems:
        rows = [one for one in reported() if (one.data, one.network) == (data, network)]
        parts += [f"## {markdown(data)} / {markdown(network)}", _table(rows)]
    return parts


def _ranges(board: Board) -> str:
    """Return the table of methods with several values on the same data and network, with what was measured here."""
    header = ("data", "network", "method", "retain accuracy *reported*", "sources", "*measured here*")
    lines = [markdown_line(header), markdown_line(["---"] * len(header))]
    for key in sorted({(one.data, one.network, one.method) for one in reported() if one.method}):
        rows = [one for one in reported() if (one.data, one.network, one.method) == key]
        values = [value for one in rows for value in one.retains]
        if len(values) > 1:
            here = ", ".join(_measured(board, rows[0].data, rows[0].method)) or "-"
            span, papers = f"{min(values):.2f} to {max(values):.2f}", len({one.paper for one in rows})
            lines.append(markdown_line([*map(markdown, key), span, str(papers), here]))
    return "\n".join(lines)


def _measured(board: Board, data: str, method: str) -> Iterator[str]:
    """Yield CAne of a method on each problem of the leaderboard with these data."""
    for problem in board.problems:
        if problem.problem.dataset == data:
            for line in problem.lines:
                if line.row.label == method:
                    found = points(line.row.mean(SHORT["CAne"]))
                    yield f"{found} ({markdown_link(problem.problem.architecture, f'{problem.problem.slug}.md')})"


def _table(rows: Sequence[Reported]) -> str:
    lines = [markdown_line([*HEADER, "grade"]), markdown_line(["---"] * (len(HEADER) + 1))]
    for one in rows:
        source = f"{one.paper}, {one.source}"
        cells = (one.method, one.called, one.retain, one.forget, one.images, one.protocol, source, one.grade)
        lines.append(markdown_line([markdown(cell) or "-" for cell in cells]))
    return "\n".join(lines)
