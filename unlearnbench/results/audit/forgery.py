"""Records against each other and against their feature files: what copies, exchanged files and dropped seeds leave."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from unlearnbench.files import file_hash
from unlearnbench.metrics.features import open_features
from unlearnbench.results.evaluate import feature_path
from unlearnbench.results.records.files import Entry, stored_file
from unlearnbench.results.records.record import Record
from unlearnbench.store import content_id
from unlearnbench.terms import JUDGED


def copied(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield each record that names the features, or the model, of a cell that cannot have the same."""
    yield from _shared(entries, "files.features", lambda record: _file_hash(record, "features"), _same_cell)
    yield from _shared(entries, "files.model", lambda record: _file_hash(record, "model"), _may_be_equal)


def _file_hash(record: Record, kind: str) -> str | None:
    file = record.files.get(kind)
    return file.sha256 if file else None


def _shared(
    entries: Iterable[Entry],
    key: str,
    content: Callable[[Record], str | None],
    may_share: Callable[[Record, Record], bool],
) -> Iterator[str]:
    """Yield each record whose content is that of another one of its problem that may not have it."""
    first: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        found = content(entry.record)
        if found is None:
            continue
        known = first.setdefault((entry.record.problem.id, found), [])
        other = next((one for one in known if not may_share(one.record, entry.record)), None)
        if other is not None:
            yield (
                f"{entry.where}: {key}: the same as those of {other.record.method.label} with seed "
                f"{other.record.seed} in {other.where}"
            )
        known.append(entry)


def _same_cell(one: Record, other: Record) -> bool:
    return _cell(one) == _cell(other)


def _cell(record: Record) -> tuple[str, int]:
    """Return what a result depends on, which a label does not change."""
    method = record.method
    return content_id(method.name, method.role, method.options, method.version, method.distribution), record.seed


def _may_be_equal(one: Record, other: Record) -> bool:
    """Return whether two cells of a problem can have the same weights.

    A method may hand back the original as it is, which is the same for all seeds if it was given. FDR is like no other.
    """
    if _same_cell(one, other):
        return True
    fdr = "fdr" in (one.method.name, other.method.name)
    return not fdr and (one.seed == other.seed or one.problem.weights is not None)


def exchanged(record: Record, folder: Path) -> Iterator[str]:
    """Yield how the files of a record in an output folder are another's.

    Raises:
        InvalidFileError: If the feature file is missing, or its content is not what the record was made from.
    """
    problem = record.problem
    model = record.files.get("model")
    expected = {
        "model_sha256": model.sha256 if model else "",
        "seed": record.seed,
        "problem": problem.id,
        "dataset_revision": problem.dataset_revision,
        "num_classes": problem.num_classes,
    }
    with open_features(feature_path(folder, record)) as features:
        for key, value in expected.items():
            found = features.attributes.get(key)
            if found != value:
                yield f"files.features: its {key} is {found!s:.64}, but the record has {value!s:.64}"
        if tuple(features.forget_classes.tolist()) != problem.forget_classes:
            yield f"files.features: it is of the forget classes {features.forget_classes.tolist()}"
    if model and (path := stored_file(folder, model)).is_file() and file_hash(path) != model.sha256:
        yield f"files.model: {path}: its content is not what the record was made from"


def same_outputs(entries: Sequence[Entry], place: Callable[[Record], Path]) -> Iterator[str]:
    """Yield each record whose test outputs are those of a cell that cannot have the same.

    Args:
        entries: Records.
        place: Function that returns the output folder that holds a record's features.
    """

    def outputs(record: Record) -> str:
        with open_features(feature_path(place(record), record)) as features:
            return hashlib.sha256(features.array("test/logits").tobytes()).hexdigest()

    yield from _shared(entries, "files.features", outputs, _may_be_equal)


def missing_seeds(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield each ranked row that lacks seeds for which the leaderboard itself has references of the problem."""
    ranked = [entry for entry in entries if entry.ranked]
    asked: dict[str, set[int]] = {}
    for entry in ranked:
        if entry.record.method.role == "reference" and not entry.submission:
            asked.setdefault(entry.record.problem.id, set()).add(entry.record.seed)
    rows: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in ranked:
        # Weights from elsewhere are one model, made from the Original of one seed, and have no rank.
        if entry.record.method.role == "unlearner" and entry.record.method.name != JUDGED:
            rows.setdefault((entry.record.problem.id, entry.record.method.id, entry.submission), []).append(entry)
    for (problem, _, _), group in rows.items():
        missing = sorted(asked.get(problem, set()) - {entry.record.seed for entry in group})
        if missing:
            first = group[0]
            yield (
                f"{first.path.parent if first.line is None else first.path}: {first.record.method.label} lacks seed "
                f"{', '.join(map(str, missing))}, which the leaderboard has for {first.record.problem.slug}\n"
                "  Run these seeds too, or publish the row without a rank: leaderboard build --beside"
            )
