"""Files of records: of one, and of all those of a problem."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.documents import parsed_json, read_text
from unlearnbench.errors import InvalidFileError, WrongUseError
from unlearnbench.files import write_json, writing
from unlearnbench.mirror import origin, publish
from unlearnbench.paths import below
from unlearnbench.results.records.record import AGAIN, FileRecord, Record, checked_record
from unlearnbench.store import Store


def write_record(record: Record, path: Path) -> None:
    """Write a record so that a reader finds either the old file or the complete new one.

    A folder in its place is removed, since only records belong there.

    Raises:
        UnwritableError: If the file cannot be written.
    """
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        write_json(path, record.model_dump(mode="json"))
    publish(path)


def stored_file(folder: Path, file: FileRecord) -> Path:
    """Return the path of a record's file in an output folder.

    Raises:
        InvalidFileError: If the path leads out of the store.
    """
    # The store itself may be a link to a larger disk.
    place = file.path.removeprefix("store/")
    path = below(folder / "store", place)
    if not path.exists() and origin(folder) is not None:
        kind, identity, *_ = place.split("/")
        Store(folder / "store", create=False).entry(kind, identity)
    return path


def read_record(path: Path) -> Record:
    """Return the record in a file.

    Raises:
        InvalidFileError: If the file is missing, truncated, of another schema, or was changed after it was written.
    """
    text = read_text(path)
    try:
        values = parsed_json(text)
    except ValueError as error:
        raise InvalidFileError(f"{path}: not a whole JSON file: {error}{AGAIN}") from error
    return checked_record(values, str(path), f"not a run record\n  Move it out of {path.parent}")


# Ending of a file that holds the records of one problem, a line each.
COLLECTION = ".jsonl.xz"


def is_collection(path: Path) -> bool:
    """Return whether a file holds many records, according to its name."""
    return path.name.endswith(COLLECTION)


def record_paths(folder: Path) -> list[Path]:
    """Return the files below a folder that hold run records, of one (.json) or of many (.jsonl.xz), sorted by path.

    Raises:
        InvalidFileError: If there is none, or no such folder.
    """
    if not folder.is_dir():
        raise WrongUseError(f"{folder}: {'is not a folder' if folder.exists() else 'no such folder'}")
    place = folder / "records" if (folder / "records").is_dir() else folder
    found = [*place.rglob("*.json"), *place.rglob(f"*{COLLECTION}")]
    paths = sorted(path for path in found if not path.name.startswith("."))
    if not paths:
        raise InvalidFileError(f"{folder}: holds no run records\n  unlearnbench run MANIFEST -o {folder}")
    return paths


@dataclass(frozen=True)
class Entry:
    """A record together with its file.

    Attributes:
        path: Path of the file.
        place: Path relative to the folder of records that it was found in.
        record: Content of the file.
        submission: Name of the submission on a leaderboard that it belongs to; "" if it belongs to none.
        line: Number of its line in a file of many records; None if it has a file of its own.
        ranked: Whether it takes part in a leaderboard's ranking; an experiment published beside the board does not.
    """

    path: Path
    place: str
    record: Record
    submission: str = ""
    line: int | None = None
    ranked: bool = True

    @property
    def where(self) -> str:
        """Path and, in a file of many records, line of the record, for messages."""
        return str(self.path) if self.line is None else f"{self.path}:{self.line}"

    @property
    def folder(self) -> Path:
        """Folder of records that the record was found in."""
        return self.path.parent if self.line is not None else self.path.parents[self.place.count("/")]
