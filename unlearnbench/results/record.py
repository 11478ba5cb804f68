"""The record of a cell: one JSON file with all that a table, or a sceptical reader, needs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from unlearnbench.errors import InvalidFileError, StoreError, os_reason
from unlearnbench.metrics.metric_record import MetricRecord, Part
from unlearnbench.store import content_id, write_json

SCHEMA = 2

Status = Literal["done", "failed", "not_applicable"]
# How the reason begins for which a metric that compares with Original or FDR has no value while one of them failed.
NO_REFERENCES = "no references: "
_AGAIN = "\n  Run the manifest again, which writes it anew"


class ChangedRecordError(InvalidFileError):
    """A record's content is not what the run wrote."""


class ProblemRecord(Part):
    """The problem: what was forgotten by which network."""

    id: str
    slug: str
    title: str
    dataset: str
    dataset_options: dict[str, Any]
    dataset_version: int = Field(ge=1)
    dataset_revision: str
    architecture: str
    architecture_options: dict[str, Any]
    architecture_version: int = Field(ge=1)
    weights: str | None
    start: str | None
    training: dict[str, Any]
    num_classes: int
    forget_classes: tuple[int, ...]
    forget_class_names: tuple[str, ...]
    limited: str
    limited_counts: tuple[int, ...]
    train_images: int
    test_images: int


class MethodRecord(Part):
    """The method: what its result depends on, and as provenance who shipped it and its source's digest."""

    label: str
    name: str
    role: Literal["reference", "unlearner"]
    options: dict[str, Any]
    version: int = Field(ge=1)
    distribution: str
    distribution_version: str
    digest: str

    @property
    def id(self) -> str:
        """A hash of what decides its result, in whatever order the options stand: in a file it is not the run's."""
        return content_id(self.label, self.name, self.role, self.options, self.version, self.distribution)


class EpochRecord(Part):
    """The headline metrics after an epoch of a method, counted from 1; `image_passes` up to its end, by kind."""

    epoch: int
    image_passes: dict[str, int]
    metrics: dict[str, float | None]


class FileRecord(Part):
    """A file of the store that the record rests on, by its path below the output folder."""

    path: str
    sha256: str


class Measured(Part):
    """What differs from run to run on the same machine: times and memory.

    `seconds` holds the seconds of each stage; `peak_memory_bytes` the process's peak while the method ran;
    `speed_up_seconds` how many times longer the training of FDR took than the method, None where one took no time.
    """

    finished_at: str
    seconds: dict[str, float]
    peak_memory_bytes: int | None
    speed_up_seconds: float | None = None


class Record(Part):
    """One cell: a method on a problem with a seed.

    Fractions are in [0, 1]. `image_passes` counts the images that the method read, by kind; `networks` the different
    networks that it ran, None where no method ran. `hash` is that of everything else in the file.
    """

    schema_version: Literal[2]
    cell: str
    status: Status
    reason: str | None
    manifest_name: str
    manifest: dict[str, Any]
    problem: ProblemRecord
    method: MethodRecord
    seed: int
    metrics: dict[str, MetricRecord]
    details: dict[str, Any]
    image_passes: dict[str, int]
    files: dict[str, FileRecord]
    environment: dict[str, Any]
    measured: Measured
    hash: str
    epochs: tuple[EpochRecord, ...] = ()
    networks: int | None = None

    @property
    def lacks_references(self) -> bool:
        """Whether it was judged while Original or FDR had failed; they may be there by now."""
        return any((metric.reason or "").startswith(NO_REFERENCES) for metric in self.metrics.values())

    def value(self, metric: str) -> float | None:
        """Return a metric's value, None if it has none."""
        found = self.metrics.get(metric)
        return found.value if found else None


def with_hash(record: Record) -> Record:
    """Return a record with the hash of its content."""
    return record.model_copy(update={"hash": content_hash(record.model_dump(mode="json"))})


def content_hash(values: dict[str, Any]) -> str:
    """Return the hash of a record's values without its own `hash`."""
    rest = {key: value for key, value in values.items() if key != "hash"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_record(record: Record, path: Path) -> None:
    """Write a record so that a reader finds the old file or the whole new one.

    Raises:
        StoreError: If it cannot be written.
    """
    try:
        write_json(path, record.model_dump(mode="json"))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {os_reason(error)}") from error


def read_record(path: Path) -> Record:
    """Return the record in a file.

    Raises:
        InvalidFileError: If it is missing, truncated, of another schema, or changed after it was written.
    """
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be read: {os_reason(error)}") from error
    except ValueError as error:
        raise InvalidFileError(f"{path}: not a whole JSON file: {error}{_AGAIN}") from error
    return checked_record(values, str(path), f"not a run record\n  Move it out of {path.parent}")


def checked_record(values: Any, where: str, foreign: str = "not a run record") -> Record:
    """Return the record that JSON values are.

    Args:
        values: The values.
        where: Where they stand, for messages.
        foreign: What to say of values that are no record at all.

    Raises:
        InvalidFileError: If they are of another schema, or were changed after they were written.
    """
    version = values.get("schema_version") if isinstance(values, dict) else None
    # JSON has no such number, but Python reads and writes it.
    unreal = next(_not_finite(values), None)
    if unreal is not None:
        raise InvalidFileError(f"{where}: {unreal[0]}: {unreal[1]} is not a number that a record can hold")
    if version != SCHEMA:
        what = foreign if version is None else f"record schema {version!r}, this version reads {SCHEMA}"
        raise InvalidFileError(f"{where}: {what}")
    try:
        record = Record.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidFileError(f"{where}: {key}: {first['msg'][:1].lower()}{first['msg'][1:]}{_AGAIN}") from error
    if record.hash != content_hash(values):
        raise ChangedRecordError(
            f"{where}: the content was changed after the run: its hash is not {record.hash[:16]}..."
        )
    return record


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested JSON tables and lists that holds no others, with its dotted key."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            yield from leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _not_finite(values: Any) -> Iterator[tuple[str, float]]:
    return ((key, value) for key, value in leaves(values) if isinstance(value, float) and not math.isfinite(value))


def record_paths(folder: Path) -> list[Path]:
    """Return the files below a folder that hold run records, by path: of one record (.json) or of many (.jsonl).

    Raises:
        InvalidFileError: If there is none, or no such folder.
    """
    if not folder.is_dir():
        raise InvalidFileError(f"{folder}: {'is not a folder' if folder.exists() else 'no such folder'}")
    place = folder / "records" if (folder / "records").is_dir() else folder
    found = [*place.rglob("*.json"), *place.rglob("*.jsonl")]
    paths = sorted(path for path in found if not path.name.startswith("."))
    if not paths:
        raise InvalidFileError(f"{folder}: holds no run records\n  unlearnbench run MANIFEST -o {folder}")
    return paths


# What follows from other settings, or says the same in numbers.
DERIVED = frozenset({"forget_classes", "limited_counts", "num_classes", "train_images", "test_images"})
SHOWN_SETTINGS = 3
SHOWN_VALUES = 4


def settings(problem: ProblemRecord) -> dict[str, Any]:
    """Return what makes a problem the one it is, by dotted key."""
    values = problem.model_dump(exclude={"id", "slug", "title", "training"})
    return values | {f"training.{key}": value for key, value in problem.training.items()}


def differences(one: ProblemRecord, other: ProblemRecord) -> list[tuple[str, Any, Any]]:
    """Return key and both values of each setting in which two problems differ."""
    own, theirs = settings(one), settings(other)
    return [(key, own.get(key), theirs.get(key)) for key in sorted(own | theirs) if own.get(key) != theirs.get(key)]


def distinct_titles(problems: Iterable[ProblemRecord]) -> dict[str, str]:
    """Return a title for each problem's id; those that would have the same one say in what they differ."""
    by_title: dict[str, list[ProblemRecord]] = {}
    for problem in problems:
        by_title.setdefault(problem.title, []).append(problem)
    return {
        problem.id: title if len(same) == 1 else f"{title}; {_peculiar(problem, same)}"
        for title, same in by_title.items()
        for problem in same
    }


def _peculiar(problem: ProblemRecord, same: Sequence[ProblemRecord]) -> str:
    """Return what tells a problem from others of its title; the start of its id where no setting does."""
    keys = sorted({key for other in same for key, _, _ in differences(problem, other)} - DERIVED)
    own = settings(problem)
    return ", ".join(f"{key} = {_shown(own.get(key))}" for key in keys[:SHOWN_SETTINGS]) or problem.id[:6]


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{' '.join(map(str, value[:SHOWN_VALUES]))}{' ...' if len(value) > SHOWN_VALUES else ''}"
    return str(value)
