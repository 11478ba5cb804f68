"""The leaderboard: pages made from records alone."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from unlearnbench.errors import InvalidFileError, StoreError
from unlearnbench.experiment.writer import manifest_toml
from unlearnbench.results.leaderboard.markdown import GENERATED, overview_page, page_name, problem_page
from unlearnbench.results.leaderboard.view import Board, make_board, manifest_id
from unlearnbench.results.leaderboard.web_page import web_page
from unlearnbench.results.load import Entry, Say, check_entries, load_entries, unheard
from unlearnbench.results.ranking import PAPER

RESOLVED = "As resolved by the run; options left out have their defaults."


def build_leaderboard(sources: Sequence[Path], folder: Path, order: str = PAPER, say: Say = unheard) -> list[Path]:
    """Write overview, web page, a page for each problem, and copies of records and manifests.

    The same records give the same bytes. Records that lie below `folder` already stay where they are, so that a
    leaderboard can be built anew from its own records.

    Args:
        sources: Output folders, leaderboards, submissions or folders of records.
        folder: Where the pages go.
        order: How to rank, a key of `ranking.ORDERS`.
        say: As in `load_entries`.

    Returns:
        The written pages.

    Raises:
        InvalidFileError: If records cannot be used, or do not make a table together.
        StoreError: If the folder cannot be written.
    """
    entries = load_entries(sources, say)
    check_entries(entries)
    places = _places(entries, folder)
    _check_leftovers(places, sources, folder)
    pages = rebuilt_pages(entries, folder, order)
    try:
        _copy_records(places, folder)
        texts = rebuilt_manifests(entries) | pages
        for place, text in texts.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text(text)
        for path in outdated(folder, texts):
            path.unlink()
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return [folder / name for name in pages]


def rebuilt_pages(entries: Sequence[Entry], folder: Path, order: str) -> dict[str, str]:
    """Return the text of every page that records give in a leaderboard's folder, by file name."""
    board = make_board(
        [entry.record for entry in entries],
        order,
        {entry.record.hash: place for place, entry in reversed(_places(entries, folder).items())},
        {identity: place for identity, (place, _) in _manifests(entries).items()},
    )
    return board_pages(board)


def rebuilt_manifests(entries: Sequence[Entry]) -> dict[str, str]:
    """Return the text of every manifest that records give, by its path below a leaderboard's folder."""
    return dict(_manifests(entries).values())


def board_pages(board: Board) -> dict[str, str]:
    """Return the text of every page by file name."""
    return {
        "README.md": overview_page(board),
        "index.html": web_page(board),
        **{page_name(problem): problem_page(problem, board.order) for problem in board.problems},
    }


def outdated(folder: Path, written: Collection[str]) -> list[Path]:
    """Return the pages and manifests that a build wrote and the present one does not; what others wrote is not ours."""
    found = [*folder.glob("*.md"), *folder.glob("manifests/*.toml")]
    return sorted(path for path in found if path.relative_to(folder).as_posix() not in written and _is_generated(path))


def _is_generated(path: Path) -> bool:
    text = path.read_text(errors="replace")
    return GENERATED in text or text.startswith(f"# {RESOLVED}\n")


def _places(entries: Sequence[Entry], folder: Path) -> dict[str, Entry]:
    """Return the entries by their paths below the leaderboard folder.

    Raises:
        InvalidFileError: If two different records would get the same path.
    """
    root = folder.resolve()
    places: dict[str, Entry] = {}
    for entry in entries:
        path = entry.path.resolve()
        inside = path.is_relative_to(root)
        place = path.relative_to(root).as_posix() if inside else f"records/{entry.place}"
        known = places.setdefault(place, entry)
        if known.record.hash != entry.record.hash:
            raise InvalidFileError(
                f"{entry.path}: {known.path} would be copied to the same {place}\n"
                "  Give one of the two manifests another name, or one of the methods another label"
            )
    return dict(sorted(places.items()))


def _check_leftovers(places: Mapping[str, Entry], sources: Sequence[Path], folder: Path) -> None:
    """Check that the leaderboard's folder of records holds none that its pages would not show.

    Raises:
        InvalidFileError: If it does.
    """
    records = folder / "records"
    left = [path for path in records.rglob("*.json") if path.relative_to(folder).as_posix() not in places]
    if left:
        given = " ".join(map(str, sources))
        raise InvalidFileError(
            f"{records}: {len(left)} of its records are not among those given, {min(left)} for one\n"
            f"  To keep them: unlearnbench leaderboard build {given} {folder} -o {folder}\n"
            f"  To start anew, remove {records} first"
        )


def _copy_records(places: Mapping[str, Entry], folder: Path) -> None:
    for place, entry in places.items():
        target = folder / place
        if target.resolve() != entry.path.resolve():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(entry.path, target)


def _manifests(entries: Sequence[Entry]) -> dict[str, tuple[str, str]]:
    """Return path below the leaderboard folder and text of every manifest, by `manifest_id`."""
    found = {manifest_id(entry.record): entry.record for entry in entries}
    names = [record.manifest_name for record in found.values()]
    manifests = {}
    for identity, record in sorted(found.items()):
        # Different manifests may have one name; some digits of what they say tell them apart.
        digits = f"-{identity[:6]}" if names.count(record.manifest_name) > 1 else ""
        text = manifest_toml(record.manifest, RESOLVED)
        manifests[identity] = f"manifests/{record.manifest_name}{digits}.toml", text
    return manifests
