"""What a figure is made from, and what it is: a drawing with the numbers in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearnbench.errors import UnlearnBenchError
from unlearnbench.results.experiments import Experiment, experiments
from unlearnbench.results.figures.style import DOTS_PER_INCH
from unlearnbench.results.record import FileRecord, Record
from unlearnbench.store import file_hash

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unlearnbench.results.ranking import Row


class NotDrawnError(UnlearnBenchError):
    """A figure needs what is not there, such as the features or models of a run; the user is told, the rest is drawn.

    Raised by a figure's `drawings`; what it yielded before stands.
    """


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: File stem of its pictures and its CSV.
        title: Caption, one sentence.
        figure: The picture.
        rows: What it shows, as rows of the CSV; all have the keys of the first one.
    """

    name: str
    title: str
    figure: Figure
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """What figures are drawn from.

    Attributes:
        records: All that were found.
        folder: The output folder of the run; its `store` is missing where there are only records.
    """

    records: tuple[Record, ...]
    folder: Path

    @cached_property
    def experiments(self) -> tuple[Experiment, ...]:
        """The records by manifest, each with its problems and rows."""
        return tuple(experiments(self.records))

    def file(self, record: Record, kind: str) -> Path:
        """Return the path of a record's file in the store.

        Args:
            record: One with a result.
            kind: `model` or `features`.

        Raises:
            NotDrawnError: If the store does not hold it, or another in its place.
        """
        named = record.files.get(kind)
        path = self.folder / named.path if named else self.folder
        what = f"{path}: the {kind} of {record.method.label}, seed {record.seed}, {'is' if kind == 'model' else 'are'}"
        if not path.is_file():
            raise NotDrawnError(f"{what} not in the store")
        if named and not self._holds(named):
            raise NotDrawnError(f"{what} not what the record was made from: damaged, or computed elsewhere")
        return path

    def first_seed(self, rows: Sequence[Row], kind: str) -> int | None:
        """Return the first of the seeds that all rows have, if possible one of which the store holds all files.

        Records of one table may come from several machines, each with a store of its own.

        Args:
            rows: Of one problem.
            kind: As for `file`.
        """
        shared = sorted(set.intersection(*({record.seed for record in row.done} for row in rows)))
        for seed in shared:
            files = [record.files.get(kind) for record in of_seed(rows, seed)]
            if all(named is not None and self._holds(named) for named in files):
                return seed
        return next(iter(shared), None)

    def _holds(self, named: FileRecord) -> bool:
        """Return whether the store holds a record's file, and not one of the same place that another machine made."""
        path = self.folder / named.path
        return path.is_file() and _hash(path, path.stat().st_mtime_ns) == named.sha256


def each_drawn(problems: Iterable[Callable[[], Iterator[Drawing]]]) -> Iterator[Drawing]:
    """Yield the drawings of each problem; what one lacks does not cost another its own.

    Raises:
        NotDrawnError: After all others, if one was raised for a problem.
    """
    missing: dict[str, None] = {}
    for draw in problems:
        try:
            yield from draw()
        except NotDrawnError as error:
            missing[str(error)] = None
    if missing:
        raise NotDrawnError("; ".join(missing))


@cache
def _hash(path: Path, modified: int) -> str:
    """Return the hash of a file as it was at a time: several figures ask for the same files."""
    return file_hash(path)


def of_seed(rows: Sequence[Row], seed: int) -> list[Record]:
    """Return the record with a seed of each row."""
    return [next(record for record in row.done if record.seed == seed) for row in rows]


# A figure module's function `drawings`: yields nothing if the records do not hold what it draws.
Draw = Callable[[Source], Iterator[Drawing]]


def save(drawing: Drawing, folder: Path, *, brief: bool = False) -> list[Path]:
    """Write a drawing as PNG, SVG and CSV below a folder and return the files. To be called within `styled`.

    Args:
        drawing: The drawing.
        folder: Made if missing.
        brief: Write the PNG alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{drawing.name}.{suffix}" for suffix in ("png", "svg", "csv")]
    # The program's version and the date would make every file another.
    drawing.figure.savefig(paths[0], dpi=DOTS_PER_INCH, metadata={"Software": None})
    if brief:
        return paths[:1]
    drawing.figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    paths[2].write_text(csv_text(drawing.rows))
    return paths


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV with a header, what is missing left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
