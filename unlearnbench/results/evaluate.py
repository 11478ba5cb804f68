"""Metrics recomputed from stored features, without a model, a GPU or an image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.errors import InvalidFileError, PluginError, did_you_mean
from unlearnbench.files import file_hash
from unlearnbench.metrics.compute import Material, metric_record, needs
from unlearnbench.metrics.features import open_features
from unlearnbench.metrics.measurement import GIVEN_FDR, NO_FDR, NOT_RUN_HERE, Costs, Missing, References
from unlearnbench.metrics.metric_record import MetricRecord
from unlearnbench.metrics.standard import metric, standard_metrics
from unlearnbench.registry.component import Metric
from unlearnbench.registry.entry_points import find, names
from unlearnbench.results.records.files import is_collection, read_record, record_paths, stored_file, write_record
from unlearnbench.results.records.load import Say, unheard
from unlearnbench.results.records.record import Record, with_hash
from unlearnbench.terms import JUDGED, REFERENCES


@dataclass(frozen=True)
class Evaluation:
    """The outcome of evaluating an output folder.

    Attributes:
        records: All records of the folder, in their present state.
        labels: Labels of the metrics that were computed.
        written: Number of records that were rewritten.
        faults: Number of records that could not be evaluated, or only in part.
    """

    records: tuple[Record, ...]
    labels: tuple[str, ...]
    written: int
    faults: int


def evaluate(folder: Path | str, wanted: Sequence[str] = (), say: Say = unheard) -> Evaluation:
    """Compute metrics of all finished records from their feature files and rewrite the records.

    Without names, every metric in a record is recomputed and missing standard metrics are added. Measured times are
    kept, and the hash is renewed. Records without a result, and metrics that need the model, stay as they are.

    Args:
        folder: Output folder of a run.
        wanted: Labels or names of metrics; empty means all. A metric that a record lacks is added with its defaults.
        say: Callback that receives a line for each record that cannot be evaluated.

    Raises:
        InvalidFileError: If there are no records, or one is damaged.
        PluginError: If a wanted metric is not installed.
    """
    folder, wanted = Path(folder), tuple(wanted)
    paths = record_paths(folder)
    published = next((path for path in paths if is_collection(path)), None)
    if published is not None:
        raise InvalidFileError(
            f"{published}: records of a leaderboard, which keep the values that were published\n"
            "  Give the output folder of a run"
        )
    records = {path: read_record(path) for path in paths}
    _check_wanted(wanted, records.values())
    references = reference_records(records.values())
    labels: dict[str, None] = {}
    written = faults = 0
    for path, record in records.items():
        if record.status != "done":
            continue
        try:
            found, kept = evaluated(folder, record, references, wanted, say)
        except InvalidFileError as error:
            say(f"{record.method.label}, seed {record.seed}: {error}")
            faults += 1
            continue
        for reason, names_kept in kept.items():
            say(f"{record.method.label}, seed {record.seed}: {reason}\n  As they were: {', '.join(names_kept)}")
        faults += bool(kept)
        if not found:
            continue
        for label, metric_found in found.items():
            if metric_found.reason:
                say(f"{record.method.label}, seed {record.seed}: {label}: {metric_found.reason}")
        labels |= dict.fromkeys(found)
        records[path] = with_hash(record.model_copy(update={"metrics": {**record.metrics, **found}}))
        write_record(records[path], path)
        written += 1
    return Evaluation(tuple(records.values()), tuple(labels), written, faults)


def _check_wanted(wanted: tuple[str, ...], records: Iterable[Record]) -> None:
    present = {label for record in records for label in record.metrics}
    present |= {found.name for record in records for found in record.metrics.values()}
    known = present | set(names("metrics"))
    for name in wanted:
        if name not in known:
            raise PluginError(f"--metric {name}: no metric of this name or label{did_you_mean(name, known)}")
        if name not in present and "model" in needs(find("metrics", name).load()):
            raise PluginError(
                f"--metric {name}: needs the model, which only a run has\n"
                "  Put it into the manifest under [[metrics]] and run that again; what is done stays"
            )


def reference_records(records: Iterable[Record]) -> dict[tuple[str, int, str], Record]:
    """Return the finished records of Original and FDR, by problem, seed and name."""
    return {
        (record.problem.id, record.seed, record.method.name): record
        for record in records
        if record.method.role == "reference" and record.status == "done"
    }


def metrics_to_compute(record: Record, wanted: tuple[str, ...]) -> tuple[Metric, ...]:
    """Return the metrics of a record that are to be computed, with the options that the record gives them.

    Raises:
        PluginError: If one is not installed or no longer accepts its options.
    """
    present = {label: (found.name, found.options) for label, found in record.metrics.items()}
    if not wanted:
        usual = {standard.label: (standard.name, standard.options) for standard in standard_metrics()}
        chosen = {**usual, **present}
    else:
        chosen = {label: found for label, found in present.items() if label in wanted or found[0] in wanted}
        covered = {name for name, _ in chosen.values()} | set(chosen)
        # A label that only other records have is no plugin.
        installed = names("metrics")
        chosen |= {name: (name, {}) for name in wanted if name not in covered and name in installed}
    return tuple(metric(name, options, label) for label, (name, options) in chosen.items())


def evaluated(
    folder: Path,
    record: Record,
    references: dict[tuple[str, int, str], Record],
    wanted: tuple[str, ...],
    say: Say,
) -> tuple[dict[str, MetricRecord], dict[str, list[str]]]:
    """Return the recomputed metrics of a record by label, and by reason the labels of those that stay as they are.

    A metric keeps its value, or the reason why it has none, if something that it needs besides the record's own
    features is missing: losing a file of FDR must not discard what was found while the file was there, nor may a run
    that has yet to write FDR's record.
    """
    found: dict[str, MetricRecord] = {}
    kept: dict[str, list[str]] = {}
    with contextlib.ExitStack() as opened:
        material = _material(folder, record, references, opened)
        for chosen in metrics_to_compute(record, wanted):
            asked = needs(find("metrics", chosen.name).load())
            before = record.metrics.get(chosen.label)
            if before is not None and "model" in asked:
                say(f"{chosen.label} needs the model, which only a run has; it stays as it is")
                continue
            missing = [lack for lack in (getattr(material, name) for name in asked) if isinstance(lack, Missing)]
            anew = metric_record(chosen, material)
            # What a manifest does without was not there before either, and gives the same reason again.
            if missing and before is not None and (before.status == "done" or before.reason != anew.reason):
                kept.setdefault(missing[0].reason, []).append(chosen.label)
            else:
                found[chosen.label] = anew
    return found, kept


def _material(
    folder: Path,
    record: Record,
    references: dict[tuple[str, int, str], Record],
    opened: contextlib.ExitStack,
) -> Material:
    """Open the feature files that a record's metrics need.

    Raises:
        InvalidFileError: If the record's own file is missing or is not the one that the record was made from.
    """
    features = opened.enter_context(open_features(feature_path(folder, record)))
    wanted = REFERENCES if record.fdr != "none" else ("original",)
    found = {name: references.get((record.problem.id, record.seed, name)) for name in wanted}
    costs = _costs(folder, record, found.get("fdr"))
    files = []
    for name, reference in found.items():
        if reference is None:
            return Material(features, _no_record(folder, record, name), costs)
        try:
            files.append(opened.enter_context(open_features(feature_path(folder, reference))))
        except InvalidFileError as error:
            return Material(features, Missing(str(error)), costs)
    fdr = files[1] if record.fdr != "none" else Missing(NO_FDR)
    return Material(features, References(files[0], fdr), costs)


def _costs(folder: Path, record: Record, fdr: Record | None) -> Costs | Missing:
    """Return the image passes of a record's model and of FDR, or why they are not compared."""
    if record.method.name == JUDGED:
        return Missing(NOT_RUN_HERE)
    if record.fdr != "train":
        return Missing(NO_FDR if record.fdr == "none" else GIVEN_FDR)
    return _no_record(folder, record, "fdr") if fdr is None else Costs(record.image_passes, fdr.image_passes)


def _no_record(folder: Path, record: Record, name: str) -> Missing:
    return Missing(f"{folder} holds no finished record of {name} with seed {record.seed}")


def feature_path(folder: Path, record: Record) -> Path:
    """Return the feature file that a record was made from.

    Raises:
        InvalidFileError: If the file is missing or its content differs.
    """
    file = record.files.get("features")
    if file is None:
        raise InvalidFileError("the record names no feature file")
    path = stored_file(folder, file)
    if not path.is_file():
        raise InvalidFileError(f"{path}: no such file; run the manifest again to make it")
    if file_hash(path) != file.sha256:
        raise InvalidFileError(f"{path}: its content is not what the record was made from; run the manifest again")
    return path
