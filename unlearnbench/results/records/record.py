"""The record of a cell: one JSON file with everything that a table, or a sceptical reader, needs."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    create_model,
    model_serializer,
)

from unlearnbench.errors import InvalidFileError
from unlearnbench.experiment.manifest import Manifest, Seed
from unlearnbench.metrics.metric_record import MetricRecord, RecordPart
from unlearnbench.models.federation.federation import Federation, Rounds
from unlearnbench.models.libraries.published_accuracy import PublishedAccuracy, beside_published
from unlearnbench.models.recipe import Section
from unlearnbench.names import Label, Name, StorePlace
from unlearnbench.registry.component import label_slug
from unlearnbench.store import content_id

SCHEMA = 2
MOST_CLASSES = 1_000_000

Status = Literal["done", "failed", "not_applicable"]
# A metric that compares with Original or FDR has no value if one of them failed, and its reason begins with this.
NO_REFERENCES = "no references: "
AGAIN = "\n  Run the manifest again, which writes it anew"


def _without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return values without those that say nothing, so that records from before these keys keep their hash."""
    return {name: value for name, value in values.items() if value or name not in keys}


def _federated(values: dict[str, Any]) -> dict[str, Any]:
    Federation.model_validate_json(json.dumps(values))
    return values


class ChangedRecordError(InvalidFileError):
    """The content of a record is not what the run wrote."""


class ProblemRecord(RecordPart):
    """The problem: what was to be forgotten, by which network."""

    id: Name
    slug: Name
    title: str
    dataset: Label
    dataset_options: dict[str, Any]
    dataset_version: int = Field(ge=1)
    dataset_revision: str
    architecture: Label
    architecture_options: dict[str, Any]
    architecture_version: int = Field(ge=1)
    weights: str | None
    start: str | None
    training: dict[str, Any]
    num_classes: int = Field(ge=1, le=MOST_CLASSES)
    forget_classes: tuple[int, ...]
    forget_class_names: tuple[str, ...]
    limited: str
    limited_counts: tuple[NonNegativeInt, ...]
    train_images: NonNegativeInt
    test_images: NonNegativeInt
    federation: Annotated[dict[str, Any], AfterValidator(_federated)] | None = None

    @property
    def source(self) -> str:
        """Data set that the images come from: for a subset of classes the one that it is a subset of."""
        return str(self.dataset_options.get("of") or self.dataset) if self.dataset == "class_subset" else self.dataset

    @property
    def data_name(self) -> str:
        """Name of the data, as titles have it."""
        return self.dataset if self.source == self.dataset else f"{self.source}-{self.num_classes}-classes"

    @property
    def network_slug(self) -> str:
        """Name for files about all problems of one network on one data set and its subsets."""
        return label_slug(f"{self.source}-{self.architecture}")

    @model_serializer(mode="wrap")
    def _said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(dump(self), "federation")


class MethodRecord(RecordPart):
    """The unlearner or reference: what its result depends on, and as provenance its distribution and digest."""

    label: Label
    name: Label
    role: Literal["reference", "unlearner"]
    options: dict[str, Any]
    version: int = Field(ge=1)
    distribution: str
    distribution_version: str
    digest: str

    @property
    def id(self) -> str:
        """Hash of what determines the result; it ignores the order of options, which a file does not keep."""
        return content_id(self.label, self.name, self.role, self.options, self.version, self.distribution)


class EpochRecord(RecordPart):
    """The headline metrics after an epoch, counted from 1; `image_passes` counts by kind up to the end of the epoch."""

    epoch: int
    image_passes: dict[str, NonNegativeInt]
    metrics: dict[str, float | None]


class FileRecord(RecordPart):
    """A file of the store that the record was made from, by its path below the output folder."""

    path: StorePlace
    sha256: str


class Measured(RecordPart):
    """What differs from run to run on the same machine: times and memory.

    `seconds` holds the seconds of each stage; `peak_memory_bytes` is the peak of the process while the unlearner ran;
    `speed_up_seconds` is how many times as long the training of FDR took, None if either took no time.
    """

    finished_at: str
    seconds: dict[str, float]
    peak_memory_bytes: int | None
    speed_up_seconds: float | None = None


# These parts of a record stay plain JSON values, but pages and paths rest on them all the same.
_SECTIONS: dict[str, Any] = {
    key: (Annotated[field.annotation, *field.metadata, None] | None, None)
    for key, field in Manifest.model_fields.items()
}
_MANIFEST = TypeAdapter[Any](create_model("RecordedManifest", __base__=Section, **_SECTIONS))
_LIBRARIES, _KEPT = TypeAdapter[Any](dict[str, str]), TypeAdapter[Any](dict[str, Name])


def _fits(form: TypeAdapter[Any], values: Any) -> None:
    """Check that JSON values have a form.

    Raises:
        ValueError: If they do not; the message is one line.
    """
    _check_form(form, json.dumps(values))


# The records of a manifest, of which one file may hold hundreds, repeat it.
@functools.lru_cache(maxsize=256)
def _check_form(form: TypeAdapter[Any], text: str) -> None:
    try:
        form.validate_json(text)
    except ValidationError as error:
        raise ValueError(_first_fault(error)) from None


def _first_fault(error: ValidationError) -> str:
    """Return the first fault that pydantic found, as `key: message`."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{f'{key}: ' if key else ''}{message[:1].lower()}{message[1:]}"


def _resolved(values: dict[str, Any]) -> dict[str, Any]:
    """Return the sections of a manifest, which have the form that a manifest's have; any of them may be missing."""
    _fits(_MANIFEST, values)
    return values


def _described(values: dict[str, Any]) -> dict[str, Any]:
    _fits(_LIBRARIES, values.get("libraries", {}))
    return values


def _named(values: dict[str, Any]) -> dict[str, Any]:
    _fits(_KEPT, values.get("kept", {}))
    return values


class Record(RecordPart):
    """One cell: an unlearner or reference on a problem with a seed.

    Fractions are in [0, 1]. `image_passes` counts the images that the unlearner read, by kind; `networks` counts the
    different networks that it ran, None if none ran. `share` is the number of images of each class
    that the party of a federation unlearned with; the problem's `limited_counts` are empty then. `rounds` is what a
    federation did to train a reference. `hash` covers everything else in the file.
    """

    schema_version: Literal[2]
    cell: Label
    status: Status
    reason: str | None
    manifest_name: Name
    manifest: Annotated[dict[str, Any], AfterValidator(_resolved)]
    problem: ProblemRecord
    method: MethodRecord
    seed: Seed
    metrics: dict[Label, MetricRecord]
    details: Annotated[dict[str, Any], AfterValidator(_named)]
    image_passes: dict[str, NonNegativeInt]
    files: dict[str, FileRecord]
    environment: Annotated[dict[str, Any], AfterValidator(_described)]
    measured: Measured
    hash: str
    epochs: tuple[EpochRecord, ...] = ()
    networks: int | None = None
    share: tuple[NonNegativeInt, ...] = ()
    rounds: Rounds | None = None
    # Not part of the content: a submission's own references, which no table has a row for.
    _judged_by: tuple[Record, ...] = PrivateAttr(())

    @model_serializer(mode="wrap")
    def _said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(dump(self), "share", "rounds")

    @property
    def judged_by(self) -> tuple[Record, ...]:
        """Records of Original and FDR that it is judged by in place of the table's; () if it is judged by those."""
        return self._judged_by

    def with_references(self, references: tuple[Record, ...]) -> Record:
        """Return the same record, judged by references of its own."""
        found = self.model_copy()
        found._judged_by = references
        return found

    @property
    def limited_counts(self) -> tuple[int, ...]:
        """Numbers of limited images of each class with this seed."""
        return self.share or self.problem.limited_counts

    @property
    def fdr(self) -> str:
        """Where FDR comes from: "train", "none", or the weights that its manifest gives."""
        return str(self.manifest.get("references", {}).get("fdr", "train"))

    @property
    def lacks_references(self) -> bool:
        """Whether metrics lack a reference because Original or FDR had failed; it may exist by now."""
        return any((metric.reason or "").startswith(NO_REFERENCES) for metric in self.metrics.values())

    def value(self, metric: str) -> float | None:
        """Return a metric's value, or None if it has none."""
        found = self.metrics.get(metric)
        return found.value if found else None

    @property
    def beside_published(self) -> PublishedAccuracy | None:
        """The accuracy on all classes beside the published one of the network; None for any model but an original."""
        parts = []
        for name in ("forget_accuracy", "retain_accuracy"):
            metric = self.metrics.get(name)
            if self.method.name != "original" or metric is None or metric.value is None or metric.hits is None:
                return None
            parts.append((metric.value, metric.hits.images))
        return beside_published(self.problem.dataset, self.problem.architecture, *parts)


def with_hash(record: Record) -> Record:
    """Return a record that carries the hash of its content."""
    return record.model_copy(update={"hash": content_hash(record.model_dump(mode="json"))})


def content_hash(values: dict[str, Any]) -> str:
    """Return the hash of a record's values, leaving out `hash` itself."""
    return _hash(_content(values, allow_nan=True))


def _content(values: dict[str, Any], *, allow_nan: bool) -> str:
    """Return what a record's hash covers.

    Raises:
        ValueError: If a number is not finite, which JSON has not, unless that is allowed.
    """
    rest = {key: value for key, value in values.items() if key != "hash"}
    return json.dumps(rest, sort_keys=True, allow_nan=allow_nan)


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def checked_record(values: Any, where: str, foreign: str = "not a run record") -> Record:
    """Return the record that JSON values describe.

    Args:
        values: JSON values of the record.
        where: Their place, for messages.
        foreign: Message for values that are not a record at all.

    Raises:
        InvalidFileError: If the values are of another schema, or were changed after they were written.
    """
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA:
        what = foreign if version is None else f"record schema {version!r}, this version reads {SCHEMA}"
        raise InvalidFileError(f"{where}: {what}")
    try:
        content, known = _content(values, allow_nan=False), json.dumps(values.get("hash"), allow_nan=False)
    except ValueError:
        key, value = next(_not_finite(values))
        raise InvalidFileError(f"{where}: {key}: {value} is not a number that a record can hold") from None
    try:
        record = Record.model_validate_json(f'{{"hash": {known}, {content[1:]}')
    except ValidationError as error:
        raise InvalidFileError(f"{where}: {_first_fault(error)}{AGAIN}") from error
    if record.hash != _hash(content):
        raise ChangedRecordError(
            f"{where}: the content was changed after the run: its hash is not {record.hash[:16]}..."
        )
    return record


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested JSON tables and lists, with its dotted key; an empty table or list is a leaf."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            yield from leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _not_finite(values: Any) -> Iterator[tuple[str, float]]:
    return ((key, value) for key, value in leaves(values) if isinstance(value, float) and not math.isfinite(value))
