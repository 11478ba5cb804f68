"""Which field of a record was changed by hand, as far as the record and its siblings tell."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from unlearnbench.intervals import unpacked
from unlearnbench.record import Hits, ProblemRecord, Record, content_hash, leaves


def changed_fields(values: Mapping[str, Any], siblings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return `key: found, but ...` for each field of a record that is known to have been changed.

    A metric that is a share of test images must be the share of those that the record counts. For the rest, a value
    is known to be changed if another one in its place, one that the same method has with another seed, gives the
    content that the hash is of.

    Args:
        values: The record's JSON, whose hash is wrong.
        siblings: That of records of the same folder.
    """
    found = [f"{key}: {told!r}, but its test images give {share!r}" for key, told, share in wrong_shares(values)]
    if found:
        return found
    restored = _restored(values, list(siblings))
    return [] if restored is None else [f"{restored[0]}: {restored[1]!r}, where the run wrote {restored[2]!r}"]


def wrong_shares(values: Mapping[str, Any]) -> Iterator[tuple[str, Any, float]]:
    """Yield key, value and true value of each metric whose value is not the share of the images that it counts."""
    metrics = values.get("metrics")
    for label, metric in metrics.items() if isinstance(metrics, dict) else ():
        hits = metric.get("hits") if isinstance(metric, dict) else None
        if hits:
            share = float(unpacked(Hits(**hits)).mean())
            if metric.get("value") != share:
                yield f"metrics.{label}.value", metric.get("value"), share


def inconsistencies(record: Record) -> Iterator[str]:
    """Yield what a record says in two ways that do not agree, each beginning with its key."""
    for key, told, share in wrong_shares(record.model_dump(mode="json")):
        yield f"{key}: {told!r}, but its test images give {share!r}"
    choice = record.manifest
    if not choice:
        yield "manifest: it is empty"
        return
    yield from _other_problem(record.problem, choice.get("problem", {}))
    problem = record.problem
    pairs = (
        ("problem.dataset", problem.dataset, _name(choice.get("dataset"))),
        ("problem.architecture", problem.architecture, _name(choice.get("architecture"))),
    )
    for key, told, wanted in pairs:
        if told != wanted:
            yield f"{key}: {told!r}, but the manifest in the record has {wanted!r}"
    training = choice.get("training", {})
    for key, value in problem.training.items():
        # What the manifest leaves open, the weights may fill in.
        if key in training and training[key] is not None and training[key] != value:
            yield f"problem.training.{key}: {value!r}, but the manifest in the record has {training[key]!r}"
    if record.seed not in choice.get("seeds", ()):
        yield f"seed: {record.seed} is not among the seeds of the manifest in the record"
    names = {entry.get("name") for entry in choice.get("unlearners", ())}
    if record.method.role == "unlearner" and record.method.name not in names:
        yield f"method.name: {record.method.name!r} is not among the unlearners of the manifest in the record"
    if len(problem.limited_counts) != problem.num_classes:
        yield f"problem.limited_counts: {len(problem.limited_counts)} numbers for {problem.num_classes} classes"


def _other_problem(problem: ProblemRecord, choice: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the forget classes or the limited data are not those that the manifest asks for."""
    forget = problem.forget_classes
    last, named = choice.get("forget_last"), choice.get("forget_classes")
    if last is not None and forget != tuple(range(problem.num_classes - last, problem.num_classes)):
        yield f"problem.forget_classes: {list(forget)}, but the manifest in the record has the last {last}"
    if named is not None:
        both = dict(zip(forget, problem.forget_class_names, strict=False))
        if {str(key) for key in named} - {str(key) for key in both} - set(both.values()) or len(named) != len(forget):
            yield f"problem.forget_classes: {list(forget)}, but the manifest in the record has {list(named)}"
    share, images = choice.get("limited_share"), choice.get("limited_images_per_class")
    wanted = f"{share * 100:.10g} %" if share is not None else f"{images} image{'s' if images != 1 else ''}"
    if (share is not None or images is not None) and problem.limited != wanted:
        yield f"problem.limited: {problem.limited!r}, but the manifest in the record has {wanted!r}"


def _name(choice: Any) -> Any:
    return choice.get("name") if isinstance(choice, dict) else None


def _restored(values: Mapping[str, Any], siblings: Sequence[Mapping[str, Any]]) -> tuple[str, Any, Any] | None:
    """Return key, found and true value of the one field whose change explains the hash, None if none does."""
    own = dict(leaves(values))
    changed: dict[str, Any] = copy.deepcopy(dict(values))
    candidates = [(key, value) for sibling in siblings for key, value in leaves(sibling)]
    candidates += [("status", status) for status in ("done", "failed", "not_applicable")]
    candidates += [("seed", seed) for seed in range(100)]
    tried: set[tuple[str, str]] = set()
    for key, value in candidates:
        if key == "hash" or key not in own or own[key] == value or (key, repr(value)) in tried:
            continue
        tried.add((key, repr(value)))
        _put(changed, key, own, value)
        if content_hash(changed) == values.get("hash"):
            return key, own[key], value
        _put(changed, key, own, own[key])
    return None


def _put(values: dict[str, Any], dotted: str, own: Mapping[str, Any], value: Any) -> None:
    """Set the leaf that `leaves` calls `dotted`; keys may hold dots themselves."""
    place: Any = values
    rest = dotted
    while True:
        if isinstance(place, list):
            head, _, rest = rest.partition(".")
            number = int(head)
            if not rest:
                place[number] = value
                return
            place = place[number]
            continue
        key = max((name for name in place if rest == name or rest.startswith(f"{name}.")), key=len)
        if rest == key:
            place[key] = value
            return
        place, rest = place[key], rest[len(key) + 1 :]
