"""The source that figures are drawn from, and the drawing that they become, with the numbers in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from unlearnbench.errors import UnlearnBenchError
from unlearnbench.files import file_hash
from unlearnbench.paths import below
from unlearnbench.results.experiments import Experiment, experiments
from unlearnbench.results.figures.style import DOTS_PER_INCH
from unlearnbench.results.records.files import stored_file
from unlearnbench.results.records.record import FileRecord, Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unlearnbench.results.rows import Row

# These pictures lie in a repository.
BRIEF_DOTS_PER_INCH, BRIEF_COLOURS = 140, 128
# Without the output folder of their runs, the records of a leaderboard lack the same thing for every problem.
REASONS_TOLD = 2


class NotDrawnError(UnlearnBenchError):
    """A figure needs something that is missing, such as features or models; the user is told, and the rest is drawn.

    A figure's `drawings` raises it; what that function yielded before remains valid.
    """


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: Stem of the names of its pictures and its CSV file.
        title: Caption of one sentence.
        figure: The picture.
        rows: Rows of the CSV file with what it shows; all have the keys of the first one.
    """

    name: str
    title: str
    figure: Figure
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class FigureData:
    """What figures are drawn from.

    Attributes:
        records: All records that were found.
        folder: Output folder of the run; its `store` is missing if there are only records.
    """

    records: tuple[Record, ...]
    folder: Path

    @cached_property
    def experiments(self) -> tuple[Experiment, ...]:
        """Records by manifest, each with its problems and rows."""
        return tuple(experiments(self.records))

    def file(self, record: Record, kind: str) -> Path:
        """Return the path of a record's file in the store.

        Args:
            record: Record with a result.
            kind: `model` or `features`.

        Raises:
            NotDrawnError: If the store does not hold the file, or holds another one in its place.
        """
        named = record.files.get(kind)
        path = stored_file(self.folder, named) if named else self.folder
        what = f"{path}: the {kind} of {record.method.label}, seed {record.seed}, {'is' if kind == 'model' else 'are'}"
        if not path.is_file():
            raise NotDrawnError(f"{what} not in the store")
        if named and not self._holds(named):
            raise NotDrawnError(f"{what} not what the record was made from: damaged, or computed elsewhere")
        return path

    def first_seed(self, rows: Sequence[Row], kind: str) -> int | None:
        """Return the first seed that all rows have, preferably one for which the store holds all files.

        The records of a table may come from several machines, each with a store of its own.

        Args:
            rows: Rows of one problem.
            kind: `model` or `features`, as for `file`.
        """
        shared = sorted(set.intersection(*({record.seed for record in row.done} for row in rows)))
        for seed in shared:
            files = [record.files.get(kind) for record in of_seed(rows, seed)]
            if all(named is not None and self._holds(named) for named in files):
                return seed
        return next(iter(shared), None)

    def _holds(self, named: FileRecord) -> bool:
        """Return whether the store holds a record's own file, and not one that another machine made in its place."""
        path = stored_file(self.folder, named)
        return path.is_file() and _hash(path, path.stat().st_mtime_ns) == named.sha256


def each_drawn(problems: Iterable[Callable[[], Iterator[Drawing]]]) -> Iterator[Drawing]:
    """Yield the drawings of each problem; what is missing for one does not cost another its drawings.

    Raises:
        NotDrawnError: After all others, if it was raised for a problem.
    """
    missing: dict[str, None] = {}
    for draw in problems:
        try:
            yield from draw()
        except NotDrawnError as error:
            missing[str(error)] = None
    if missing:
        more = len(missing) - REASONS_TOLD
        rest = (f"and {more:,} more for such reasons",) if more > 0 else ()
        raise NotDrawnError("; ".join((*list(missing)[:REASONS_TOLD], *rest)))


@cache
def _hash(path: Path, modified: int) -> str:
    """Return the hash of a file, cached by modification time because several figures ask for the same files."""
    return file_hash(path)


def of_seed(rows: Sequence[Row], seed: int) -> list[Record]:
    """Return each row's record for a seed."""
    return [next(record for record in row.done if record.seed == seed) for row in rows]


# This is the type of a figure module's `drawings`, which yields nothing if the records do not hold what it draws.
Draw = Callable[[FigureData], Iterator[Drawing]]


def save(drawing: Drawing, folder: Path, *, brief: bool = False) -> list[Path]:
    """Write a drawing as PNG, SVG and CSV into a folder and return the files; to be called within `styled`.

    Args:
        drawing: Drawing to write.
        folder: Folder to write into, created if missing.
        brief: Whether to write only the PNG, and for the screen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [below(folder, f"{drawing.name}.{suffix}") for suffix in ("png", "svg", "csv")]
    # The program's version and the date are left out because they would change the file each time.
    metadata = {"Software": None}
    if brief:
        picture = io.BytesIO()
        drawing.figure.savefig(picture, dpi=BRIEF_DOTS_PER_INCH, metadata=metadata)
        # Lines and markers in a palette look the same and take a third of the bytes.
        few = Image.open(picture).convert("RGB").quantize(BRIEF_COLOURS, dither=Image.Dither.NONE)
        few.save(paths[0], optimize=True)
        return paths[:1]
    drawing.figure.savefig(paths[0], dpi=DOTS_PER_INCH, metadata=metadata)
    drawing.figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    paths[2].write_text(csv_text(drawing.rows), encoding="utf-8")
    return paths


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV with a header; missing values are left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
