"""What prevents records from making tables that can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from unlearnbench.results.records.files import Entry
from unlearnbench.results.records.record import Record
from unlearnbench.terms import HEADLINE, JUDGED, REFERENCES

_OWN_PAIR = (
    "A problem has one pair for each seed. Hand in the methods that started from the other as a submission, which is "
    "judged by its own: unlearnbench submit"
)


def entry_faults(entries: Sequence[Entry]) -> list[str]:
    """Return what prevents records from making tables that can be trusted.

    These are two records of one cell, conflicting descriptions of one problem, missing seeds or references, and
    impossible values.
    """
    checks = (_value_faults, _problem_faults, _double_faults, _seed_faults, _reference_faults)
    return list(dict.fromkeys(fault for check in checks for fault in check(entries)))


def _value_faults(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        record = entry.record
        for label, metric in record.metrics.items():
            key = f"{entry.where}: metrics.{label}.value"
            if metric.status == "done" and metric.value is None:
                yield f"{key}: there is none, though the metric is done"
            elif metric.value is not None and metric.name in HEADLINE and not 0 <= metric.value <= 1:
                yield f"{key}: {metric.value!r} is not a share between 0 and 1"
        missing = [label for label in HEADLINE if label not in record.metrics]
        if record.status == "done" and missing:
            yield f"{entry.where}: metrics: {', '.join(missing)} missing, though the cell is done"


def _problem_faults(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield each contradiction between records of one problem."""
    first: dict[str, Entry] = {}
    for entry in entries:
        known = first.setdefault(entry.record.problem.id, entry)
        mine, other = entry.record.problem.model_dump(), known.record.problem.model_dump()
        for key in mine:
            if mine[key] != other.get(key):
                yield (
                    f"{entry.where}: problem.{key}: two problems are mixed under the id {known.record.problem.id}: "
                    f"{mine[key]!r} here, {other.get(key)!r} in {known.where}"
                )
        # The folders of a run are named after the problem.
        parts = entry.place.split("/")
        if len(parts) == 4 and parts[1] != entry.record.problem.slug:
            yield f"{entry.where}: problem.slug: the record is of {entry.record.problem.slug}, its folder of {parts[1]}"


def _double_faults(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield each record that is there twice; two manifests may share one if both copies say the same."""
    first: dict[tuple[str, str, int], Entry] = {}
    for entry in entries:
        record = entry.record
        known = first.setdefault((record.problem.id, record.method.id, record.seed), entry)
        if known is not entry and _result(known.record) != _result(record):
            yield (
                f"{entry.where}: {record.method.label} with seed {record.seed} is there twice, with other results in "
                f"{known.where}\n  {_OWN_PAIR if record.method.role == 'reference' else 'Keep one of the two'}"
            )


def _result(record: Record) -> tuple[object, ...]:
    return record.status, *(record.value(label) for label in HEADLINE)


def _seed_faults(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the seeds of their own manifest that unlearners lack."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        record = entry.record
        key = (record.problem.id, record.method.id, record.manifest_name)
        groups.setdefault(key, []).append(entry)
    for (_, _, manifest), group in groups.items():
        record = group[0].record
        if record.method.name == JUDGED:
            # Weights from elsewhere are one model, made from the Original of one seed.
            continue
        there = {entry.record.seed for entry in group}
        missing = [seed for seed in record.manifest.get("seeds", ()) if seed not in there]
        if missing:
            first = group[0]
            yield (
                f"{first.path.parent if first.line is None else first.path}: {record.method.label} lacks seed "
                f"{', '.join(map(str, missing))} of the manifest {manifest}\n"
                "  The same run command goes on where it stopped"
            )


def _reference_faults(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield the seeds of unlearners for which Original or FDR has no record."""
    wanted: dict[str, tuple[str, set[int]]] = {}
    there: dict[tuple[str, str], set[int]] = {}
    for entry in entries:
        record = entry.record
        wanted.setdefault(record.problem.id, (record.problem.slug, set()))[1].add(record.seed)
        if record.method.role == "reference":
            there.setdefault((record.problem.id, record.method.name), set()).add(record.seed)
    does_without = {entry.record.problem.id for entry in entries if entry.record.fdr == "none"}
    for problem, (slug, seeds) in wanted.items():
        for name, shown in REFERENCES.items():
            missing = sorted(seeds - there.get((problem, name), set()))
            if missing:
                ways = "add the records of the references"
                if name == "fdr" and problem in does_without:
                    ways = 'its manifest says fdr = "none" in [references]: run it with "train"'
                yield (
                    f"{slug}: no record of {shown} with seed {', '.join(map(str, missing))}\n"
                    f"  Its methods cannot be judged; {ways}"
                )
