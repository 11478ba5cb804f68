"""Attestations: what somebody found who ran a recorded row again."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from unlearnbench.documents import read_json
from unlearnbench.errors import InvalidFileError
from unlearnbench.experiment.manifest import Seed
from unlearnbench.metrics.metric_record import RecordPart
from unlearnbench.names import Label, Name
from unlearnbench.registry.component import label_slug
from unlearnbench.results.records.record import Record
from unlearnbench.results.rows import computed_on
from unlearnbench.terms import SHORT

ATTESTATIONS = "attestations"
SELF_REPORTED = "self-reported"
# Another machine gives other networks; so far apart may the means of a row be that was run again.
AGREEMENT = 0.02


class SeedFound(RecordPart):
    """The headline metrics of one seed, as fractions by label: as recorded, and as found by the one who attests."""

    seed: Seed
    recorded: dict[Label, float]
    found: dict[Label, float]


class Attestation(RecordPart):
    """The content of an attestation's file.

    Attributes:
        schema_version: Version of the file's schema.
        by: Name of the one who ran the row again.
        where: Machine that it was run on.
        at: Day on which it was run.
        problem: Id of the problem.
        method: Id of the method with its options, `MethodRecord.id`.
        label: Label of the method.
        seeds: What was found, seed by seed.
    """

    schema_version: Literal[1] = 1
    by: str = Field(min_length=1, max_length=100)
    where: str = Field(min_length=1, max_length=300)
    at: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    problem: Name
    method: Name
    label: Label
    seeds: tuple[SeedFound, ...] = Field(min_length=1)

    @property
    def file_name(self) -> str:
        """Name of its file."""
        return f"{label_slug(self.label)[:80]}-{self.problem[:6]}-{self.method[:6]}-{label_slug(self.by)[:20]}.json"

    @property
    def text(self) -> str:
        """Who verified the row, where and when."""
        return (
            f"verified by {self.by} on {self.where}, {self.at}, seed {', '.join(str(one.seed) for one in self.seeds)}"
        )

    def disagreements(self) -> list[str]:
        """Return the headline metrics whose mean is another than the recorded one by more than `AGREEMENT`."""
        found = []
        for short, metric in SHORT.items():
            pairs = [(one.recorded.get(metric), one.found.get(metric)) for one in self.seeds]
            known = [(told, here) for told, here in pairs if told is not None and here is not None]
            if len(known) < len(pairs):
                found.append(f"{short} has no value for each seed")
                continue
            told, here = (statistics.fmean(values) for values in zip(*known, strict=True))
            if abs(told - here) > AGREEMENT:
                found.append(f"{short} is {100 * here:.2f} here and {100 * told:.2f} in the record")
        return found

    def is_of(self, record: Record) -> SeedFound | None:
        """Return what was found for a record, or None if the attestation says nothing about it."""
        if (record.problem.id, record.method.id) != (self.problem, self.method):
            return None
        return next((one for one in self.seeds if one.seed == record.seed and one.recorded == _headline(record)), None)


def _headline(record: Record) -> dict[str, float]:
    values = {metric: record.value(metric) for metric in SHORT.values()}
    return {metric: value for metric, value in values.items() if value is not None}


def attested(recorded: Sequence[Record], here: Iterable[Record], by: str) -> Attestation:
    """Return the attestation of a row that was run again.

    Args:
        recorded: Records of the row.
        here: Records of the new run, one for each.
        by: Name of the one who ran it.

    Raises:
        InvalidFileError: If a seed has no result, or the means are another's by more than `AGREEMENT`.
    """
    again = {record.seed: record for record in here if record.status == "done"}
    missing = [record.seed for record in recorded if record.status != "done" or record.seed not in again]
    if missing:
        raise InvalidFileError(f"not attested: no result for seed {', '.join(map(str, missing))}")
    first = recorded[0]
    other = next((record.method for record in again.values() if record.method.id != first.method.id), None)
    if other is not None:
        told = [f"{m.name} {m.version} of {m.distribution}" for m in (first.method, other)]
        what = f"{told[0]}, run was {told[1]}" if told[0] != told[1] else f"{told[0]}, with other options"
        raise InvalidFileError(f"not attested: the row is of {what}")
    made = Attestation(
        by=by,
        where=computed_on(again.values()) or "an unknown machine",
        at=datetime.now(UTC).date().isoformat(),
        problem=first.problem.id,
        method=first.method.id,
        label=first.method.label,
        seeds=tuple(
            SeedFound(seed=record.seed, recorded=_headline(record), found=_headline(again[record.seed]))
            for record in recorded
        ),
    )
    apart = made.disagreements()
    if apart:
        raise InvalidFileError(f"not attested: {'; '.join(apart)}")
    return made


def read_attestations(folder: Path) -> list[tuple[Path, Attestation]]:
    """Return the attestations of a leaderboard with their files.

    Raises:
        InvalidFileError: If a file is not one.
    """
    found = []
    for path in sorted((folder / ATTESTATIONS).glob("*.json")):
        values = read_json(path)
        try:
            found.append((path, Attestation.model_validate(values)))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InvalidFileError(f"{path}: {key}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error
    return found


def attestation_faults(folder: Path, records: Sequence[Record]) -> Iterator[str]:
    """Yield what is wrong with the attestations of a leaderboard that has these records."""
    try:
        found = read_attestations(folder)
    except InvalidFileError as error:
        yield str(error)
        return
    for path, one in found:
        seeds = {record.seed for record in records if one.is_of(record)}
        unknown = [str(seed.seed) for seed in one.seeds if seed.seed not in seeds]
        if unknown:
            yield f"{path}: seeds: the leaderboard has no record of {one.label} with seed {', '.join(unknown)} as told"
        yield from (f"{path}: it does not agree: {fault}" for fault in one.disagreements())


def standing(records: Iterable[Record], attestations: Sequence[Attestation]) -> str:
    """Return who verified a row of a leaderboard, or that it is self-reported."""
    done = [record for record in records if record.status == "done"]
    agreeing = [one for one in attestations if not one.disagreements()]
    used = [[one for one in agreeing if one.is_of(record)] for record in done]
    if not done or not all(used):
        return SELF_REPORTED
    return "; ".join(dict.fromkeys(one.text for each in used for one in each))
