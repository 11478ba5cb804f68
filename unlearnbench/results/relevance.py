"""Tables of the relevance search: the share found for each class and layer, and the accuracy before and after."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from unlearnbench.errors import InvalidFileError, StoreError, os_reason
from unlearnbench.mirror import ENTRY
from unlearnbench.paths import below
from unlearnbench.results.records.record import Record
from unlearnbench.store import Store, content_id

COLUMNS = ("seed", "class", "class_name", "layer", "share", "accuracy_before", "accuracy_after", "low")


@dataclass(frozen=True)
class SearchRecord:
    """One search: a seed of a problem with one set of options.

    Attributes:
        record: A record that used the search.
        facts: Options and findings of the search, and the share of all searched parameters in the union.
    """

    record: Record
    facts: dict[str, Any]

    @property
    def group(self) -> str:
        """Name shared by searches that differ only in the seed."""
        problem = self.record.problem
        return f"{problem.slug}-{content_id(self.facts['settings'])[:6]}"


def searches(records: Iterable[Record], folder: Path) -> list[SearchRecord]:
    """Return the relevance searches that records used, each once.

    Args:
        records: Records of finished runs.
        folder: Output folder whose store keeps the searches.

    Raises:
        InvalidFileError: If no record used a search, or the store lacks one.
    """
    found: dict[str, SearchRecord] = {}
    store = Store(folder / "store", create=False)
    for record in records:
        identity = record.details.get("kept", {}).get("relevance")
        if identity is None or identity in found:
            continue
        path = below(folder / "store", f"relevance/{identity}/{ENTRY}")
        store.entry("relevance", identity)
        if not path.is_file():
            raise InvalidFileError(
                f"{path}: the relevance search is not in the store; run the manifest again, or, for a leaderboard, "
                "give the output folder of its run"
            )
        try:
            found[identity] = SearchRecord(record, store.facts("relevance", identity))
        except InvalidFileError as error:
            raise InvalidFileError(
                f"{path}: the relevance search is damaged; run the manifest again, which makes it anew"
            ) from error
    if not found:
        raise InvalidFileError(f"{folder}: no finished method searched for relevant parameters; ERwP does")
    return sorted(found.values(), key=lambda search: (search.group, search.record.seed))


def grouped_searches(found: list[SearchRecord]) -> dict[str, list[SearchRecord]]:
    """Group searches that differ only in the seed."""
    groups: dict[str, list[SearchRecord]] = {}
    for search in found:
        groups.setdefault(search.group, []).append(search)
    return groups


def _rows(search: SearchRecord) -> list[dict[str, Any]]:
    problem = search.record.problem
    names = dict(zip(problem.forget_classes, problem.forget_class_names, strict=True))
    return [
        {
            "seed": search.record.seed,
            "class": finding["label"],
            "class_name": names[finding["label"]],
            **{key: finding[key] for key in COLUMNS[3:]},
        }
        for finding in search.facts["findings"]
    ]


def relevance_tables(found: list[SearchRecord]) -> list[Table]:
    """Return a table for each group of searches, with a row per layer and means over classes and seeds."""
    tables = []
    for members in grouped_searches(found).values():
        rows = [row for member in members for row in _rows(member)]
        union = statistics.fmean(member.facts["relevant_share"] for member in members)
        settings = ", ".join(f"{key} {value}" for key, value in members[0].facts["settings"].items())
        table = Table(
            title=f"{members[0].record.problem.title}\n{settings}",
            caption=f"Means over classes and {len(members)} seeds. The union over the forget classes covers "
            f"{100 * union:.1f} % of the searched parameters.",
            title_justify="left",
            caption_justify="left",
        )
        for name in ("layer", "share zeroed", "smallest", "largest", "accuracy before", "after, if low", "low"):
            table.add_column(name, justify="left" if name == "layer" else "right", no_wrap=True)
        for layer in dict.fromkeys(row["layer"] for row in rows):
            table.add_row(*_layer_cells(layer, [row for row in rows if row["layer"] == layer]))
        tables.append(table)
    return tables


def _layer_cells(layer: str, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    shares = [row["share"] for row in rows]
    before = statistics.fmean(row["accuracy_before"] for row in rows)
    low = [row["accuracy_after"] for row in rows if row["low"]]
    numbers = (statistics.fmean(shares), min(shares), max(shares), before)
    return (
        layer,
        *(f"{100 * number:.1f} %" for number in numbers),
        f"{100 * statistics.fmean(low):.1f} %" if low else "-",
        f"{len(low)} of {len(rows)}",
    )


def relevance_json(found: list[SearchRecord]) -> list[dict[str, Any]]:
    """Return the searches as JSON values."""
    return [
        {
            "problem": search.record.problem.slug,
            "seed": search.record.seed,
            "settings": search.facts["settings"],
            "relevant_share": search.facts["relevant_share"],
            "findings": _rows(search),
        }
        for search in found
    ]


def write_relevance(found: list[SearchRecord], folder: Path) -> list[Path]:
    """Write a CSV file for each group of searches, with a row for every seed, class and layer.

    Raises:
        StoreError: If a file cannot be written.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, members in grouped_searches(found).items():
            paths.append(below(folder, f"{name}.csv"))
            _write_table(members, paths[-1])
    except OSError as error:
        raise StoreError(f"{error.filename or folder}: cannot be written: {os_reason(error)}") from error
    return paths


def _write_table(members: list[SearchRecord], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for member in members for row in _rows(member))
