"""The record of a cell: one JSON file with all that a table, or a sceptical reader, needs."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from unlearnbench.errors import InvalidFileError, StoreError
from unlearnbench.naming import content_id
from unlearnbench.plan import Cell, Plan
from unlearnbench.store import Store, write_json

SCHEMA = 2

Status = Literal["done", "failed", "not_applicable"]
# How the reason begins for which a metric that compares with Original or FDR has no value while one of them failed.
NO_REFERENCES = "no references: "
_AGAIN = "\n  Run the manifest again, which writes it anew"


class ChangedRecordError(InvalidFileError):
    """A record's content is not what the run wrote."""


class Part(BaseModel):
    """A table of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class Hits(Part):
    """Which test images count for a metric that is a share of them: one bit for each, in the feature file's order.

    `bits` is base64 of bytes of eight images each, the first image in the highest bit, the last byte filled with 0.
    """

    images: int = Field(gt=0)
    bits: str

    @field_validator("bits")
    @classmethod
    def _one_for_each_image(cls, bits: str, info: ValidationInfo) -> str:
        try:
            found = len(base64.b64decode(bits, validate=True))
        except ValueError as error:
            length = {"length": len(bits)}
            raise PydanticCustomError("bits", "its {length} characters are not base64", length) from error
        images = info.data.get("images")
        # Where the number of images is at fault itself, that is told.
        if images is not None and found != -(-images // 8):
            facts = {"found": found, "images": images, "needed": -(-images // 8)}
            raise PydanticCustomError("bits", "{found} bytes, where {images} images need {needed}", facts)
        return bits


class MetricRecord(Part):
    """One metric: its value with the fields of its protocol, or the reason why there is none."""

    name: str
    status: Literal["done", "failed"]
    value: float | None
    reason: str | None
    options: dict[str, Any]
    version: int = Field(ge=1)
    distribution: str
    distribution_version: str
    digest: str
    details: dict[str, Any] = {}
    hits: Hits | None = None


class EpochRecord(Part):
    """The headline metrics after an epoch of a method, counted from 1; `image_reads` up to its end, by kind."""

    epoch: int
    image_reads: dict[str, int]
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

    Fractions are in [0, 1]. `image_reads` counts the images that the method read, by kind; `networks` the different
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
    image_reads: dict[str, int]
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


def problem_record(cell: Cell) -> ProblemRecord:
    """Return the problem of a cell as it stands in its record."""
    problem = cell.problem
    names = problem.info.class_names
    return ProblemRecord(
        id=problem.id,
        slug=problem.slug,
        title=problem.title,
        dataset=problem.dataset.name,
        dataset_options=problem.dataset.options,
        dataset_version=problem.dataset.version,
        dataset_revision=problem.info.revision,
        architecture=problem.architecture.name,
        architecture_options=problem.architecture.options,
        architecture_version=problem.architecture.version,
        weights=problem.weights.label if problem.weights else None,
        start=problem.start.label if problem.start else None,
        training=problem.recipe,
        num_classes=len(names),
        forget_classes=problem.forget_classes,
        forget_class_names=tuple(names[label] for label in problem.forget_classes),
        limited=problem.limited_text,
        limited_counts=problem.limited_counts,
        train_images=sum(problem.info.train_counts),
        test_images=sum(problem.info.test_counts),
    )


@dataclass(frozen=True)
class Outcome:
    """What a cell came to; the fields are those of `Record` and `Measured`, empty where it came to nothing."""

    status: Status
    reason: str | None = None
    metrics: dict[str, MetricRecord] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    image_reads: dict[str, int] = field(default_factory=dict)
    networks: int | None = None
    epochs: tuple[EpochRecord, ...] = ()
    files: dict[str, FileRecord] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    speed_up_seconds: float | None = None


def make_record(plan: Plan, cell: Cell, outcome: Outcome, environment: dict[str, Any]) -> Record:
    """Return the record of a cell that has just ended, with its hash."""
    measured = Measured(
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=outcome.seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
        speed_up_seconds=outcome.speed_up_seconds,
    )
    record = Record(
        schema_version=SCHEMA,
        cell=cell.id,
        status=outcome.status,
        reason=outcome.reason,
        manifest_name=plan.resolved.manifest.name,
        manifest=plan.resolved.manifest.model_dump(mode="json"),
        problem=problem_record(cell),
        method=MethodRecord(**vars(cell.method)),
        seed=cell.seed,
        metrics=outcome.metrics,
        details=outcome.details,
        image_reads=outcome.image_reads,
        files=outcome.files,
        environment=environment,
        measured=measured,
        hash="",
        epochs=outcome.epochs,
        networks=outcome.networks,
    )
    return with_hash(record)


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
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_record(path: Path) -> Record:
    """Return the record in a file.

    Raises:
        InvalidFileError: If it is missing, truncated, of another schema, or changed after it was written.
    """
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidFileError(f"{path}: not a whole JSON file: {error}{_AGAIN}") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    # JSON has no such number, but Python reads and writes it.
    unreal = next(_not_finite(values), None)
    if unreal is not None:
        raise InvalidFileError(f"{path}: {unreal[0]}: {unreal[1]} is not a number that a record can hold")
    if version != SCHEMA:
        foreign = f"not a run record\n  Move it out of {path.parent}"
        what = foreign if version is None else f"record schema {version!r}, this version reads {SCHEMA}"
        raise InvalidFileError(f"{path}: {what}")
    try:
        record = Record.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidFileError(f"{path}: {key}: {first['msg'][:1].lower()}{first['msg'][1:]}{_AGAIN}") from error
    if record.hash != content_hash(values):
        raise ChangedRecordError(
            f"{path}: the content was changed after the run: its hash is not {record.hash[:16]}..."
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


def finished_records(plan: Plan, output: Path, store: Store) -> dict[str, Record]:
    """Return the records of a plan's cells that need no work, by cell id.

    A record counts if it is whole, belongs to the cell as planned now, did not fail, was not judged without its
    references, and the files that it rests on are in the store. What is damaged is named.
    """
    found = {}
    for cell in plan.cells:
        path = output / "records" / cell.path
        if not path.is_file():
            continue
        try:
            record = read_record(path)
        except InvalidFileError as error:
            # Its other lines say how to mend it, which is done here.
            fault = str(error).partition("\n")[0]
            store.say(f"{fault}; it is made again")
            continue
        if record.cell != cell.id or record.status == "failed" or record.lacks_references:
            continue
        if record.status == "not_applicable" or (
            store.has("models", cell.model_id) and store.has("features", cell.features_id)
        ):
            found[cell.id] = record
    return found


def kept_records(plan: Plan, output: Path, store: Store) -> dict[str, Record]:
    """Return what `finished_records` does, each record with the plan's manifest, in its file too.

    The manifest may have got other seeds or methods since a record was made; what its cell depends on is the same.

    Raises:
        StoreError: If a record cannot be written.
    """
    manifest = plan.resolved.manifest.model_dump(mode="json")
    found = finished_records(plan, output, store)
    for cell in plan.cells:
        if cell.id in found and found[cell.id].manifest != manifest:
            found[cell.id] = with_hash(found[cell.id].model_copy(update={"manifest": manifest}))
            write_record(found[cell.id], output / "records" / cell.path)
    return found


def record_paths(folder: Path) -> list[Path]:
    """Return the record files below a folder, by path.

    Raises:
        InvalidFileError: If there is none, or no such folder.
    """
    if not folder.is_dir():
        raise InvalidFileError(f"{folder}: {'is not a folder' if folder.exists() else 'no such folder'}")
    place = folder / "records" if (folder / "records").is_dir() else folder
    paths = sorted(path for path in place.rglob("*.json") if not path.name.startswith("."))
    if not paths:
        raise InvalidFileError(f"{folder}: holds no run records\n  unlearnbench run MANIFEST -o {folder}")
    return paths
