"""Building the leaderboard, whose pages are made from records alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unlearnbench.documents import compressed, read_text
from unlearnbench.errors import InvalidFileError, StoreError, os_reason
from unlearnbench.paths import below, refuse_foreign
from unlearnbench.results.audit.attestation import read_attestations
from unlearnbench.results.audit.forgery import missing_seeds
from unlearnbench.results.leaderboard.markdown import (
    GENERATED,
    hurry_page,
    network_page,
    overview_page,
    pages_of,
    reported_page,
)
from unlearnbench.results.leaderboard.view import Board, make_board
from unlearnbench.results.leaderboard.web_page import web_page
from unlearnbench.results.ranking import PAPER
from unlearnbench.results.records.collection import collection_text
from unlearnbench.results.records.files import COLLECTION, Entry
from unlearnbench.results.records.load import Say, check_entries, load_entries, read_entries, unheard

OVERVIEW, HURRY, REPORTED = "README.md", "SUMMARY.md", "REPORTED.md"
# The web page's own title; its text is HTML.
WEB_MARK = "<title>unlearnbench leaderboard</title>"


def build_leaderboard(
    sources: Sequence[Path],
    folder: Path,
    order: str = PAPER,
    say: Say = unheard,
    *,
    beside: Sequence[Path] = (),
) -> list[Path]:
    """Write the overview, the web page, a page for each network on each data set, and the records of each problem.

    The same records give the same bytes, so that a leaderboard can be rebuilt from its own records. Submissions
    below `folder` stay as they are.

    Args:
        sources: Output folders, leaderboards, submissions or folders of records.
        folder: Folder to write the pages to.
        order: Order of the ranking, a key of `ranking.ORDERS`.
        say: Callback as in `load_entries`.
        beside: More such sources, whose records are published but not ranked: experiments that vary one unlearner.

    Returns:
        The pages that were written.

    Raises:
        InvalidFileError: If records cannot be used or do not make up a table together, or a row lacks seeds.
        StoreError: If the folder cannot be written.
    """
    every = [*load_entries(sources, say, unranked=True), *_beside(beside, say)]
    entries = [entry for entry in every if entry.ranked]
    check_entries(entries)
    lacking = list(missing_seeds(entries))
    if lacking:
        raise InvalidFileError("\n".join(lacking))
    files = _collections(every, folder)
    refuse_foreign(folder, (OVERVIEW, "index.html"), (GENERATED, WEB_MARK))
    _check_leftovers(every, sources, folder)
    pages = rebuilt_pages(every, folder, order)
    own = (folder / "records").resolve()
    merged = [entry.path for entry in every if entry.line is None and entry.path.resolve().is_relative_to(own)]
    try:
        for place, text in pages.items():
            path = below(folder, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for place, text in files.items():
            _write_compressed(below(folder, place), text)
        for path in (*outdated(folder, pages), *merged):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {os_reason(error)}") from error
    return [folder / name for name in pages]


def _write_compressed(path: Path, text: str) -> None:
    """Write a compressed file, unless it is there and holds the text: other compressors give other bytes."""
    if path.is_file() and read_text(path) == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compressed(text))


def _beside(sources: Sequence[Path], say: Say) -> list[Entry]:
    entries = load_entries(sources, say, unranked=True) if sources else []
    return [replace(entry, ranked=False) for entry in entries]


def _collections(entries: Sequence[Entry], folder: Path) -> dict[str, str]:
    """Return the text of each of a leaderboard's files of records, by its path below the leaderboard's folder.

    Raises:
        InvalidFileError: If two different records are of the same cell of the same manifest.
    """
    by_problem: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        if entry.submission and entry.path.resolve().is_relative_to(folder.resolve()):
            continue
        cells = by_problem.setdefault(entry.record.problem.slug, {})
        known = cells.setdefault(entry.place, entry)
        if known.record.hash != entry.record.hash:
            raise InvalidFileError(
                f"{entry.where}: {known.where} is of the same cell, {entry.place.removesuffix('.json')}\n"
                "  Give one of the two manifests another name, or one of the methods another label"
            )
    return {
        f"records/{slug}{COLLECTION}": collection_text(cells.values()) for slug, cells in sorted(by_problem.items())
    }


def rebuilt_pages(entries: Sequence[Entry], folder: Path, order: str) -> dict[str, str]:
    """Return the text of every page that records, ranked and not, give in a leaderboard's folder, by file name."""
    ranked = [entry for entry in entries if entry.ranked]
    board = make_board(
        [entry.record for entry in ranked],
        order,
        _links(entries, folder),
        {entry.record.manifest_name for entry in entries if not entry.ranked},
        [attestation for _, attestation in read_attestations(folder)],
    )
    return board_pages(board, hand_written(folder))


def hand_written(folder: Path) -> dict[str, str]:
    """Return the titles of the pages in a leaderboard's folder that no build wrote, by file name."""
    pages = (path for path in sorted(folder.glob("*.md")) if path.name != OVERVIEW and not _is_generated(path))
    return {path.name: _title(path) for path in pages}


def _title(path: Path) -> str:
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return first.removeprefix("# ").strip() if first.startswith("# ") else path.stem


def board_pages(board: Board, others: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the text of every page, by file name.

    Args:
        board: Leaderboard to show.
        others: Titles of hand-written pages beside them, by file name.
    """
    networks = {name: network_page(problems, board.order) for name, problems in pages_of(board).items()}
    links = {name: title for name, title in (others or {}).items() if name not in networks}
    own = {
        OVERVIEW: overview_page(board, links),
        HURRY: hurry_page(board),
        "index.html": web_page(board),
        REPORTED: reported_page(board),
    }
    return own | networks


def outdated(folder: Path, written: Collection[str]) -> list[Path]:
    """Return the pages of an earlier build that this one does not write; hand-written ones are kept."""
    return sorted(path for path in folder.glob("*.md") if path.name not in written and _is_generated(path))


def _is_generated(path: Path) -> bool:
    return GENERATED in path.read_text(encoding="utf-8", errors="replace")


def _links(entries: Sequence[Entry], folder: Path) -> dict[str, str]:
    """Return the place of each record that has a file of its own below the leaderboard's folder, by its hash."""
    root = folder.resolve()
    own = ((entry, entry.path.resolve()) for entry in entries if entry.submission)
    return {entry.record.hash: path.relative_to(root).as_posix() for entry, path in own if path.is_relative_to(root)}


def _check_leftovers(entries: Sequence[Entry], sources: Sequence[Path], folder: Path) -> None:
    """Check that the leaderboard's folder of records holds none that its pages would not show.

    Raises:
        InvalidFileError: If it holds such a record.
    """
    records = folder / "records"
    given = {entry.record.hash for entry in entries}
    there = read_entries([records]) if records.is_dir() and any(records.rglob("*.json*")) else []
    left = sorted(entry.where for entry in there if entry.record.hash not in given)
    if left:
        named = " ".join(map(str, sources))
        raise InvalidFileError(
            f"{records}: {len(left)} of its records are not among those given, {left[0]} for one\n"
            f"  To keep them: unlearnbench leaderboard build {named} {folder} -o {folder}\n"
            f"  To start anew, remove {records} first"
        )
