"""A record against itself: its values, its problem, its method and its counts against the manifest that it holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from unlearnbench.errors import PluginError
from unlearnbench.experiment.components import variants
from unlearnbench.experiment.manifest import UnlearnerChoice
from unlearnbench.metrics.metric_record import Hits, unpacked
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.options import decisive_options, resolve_options
from unlearnbench.results.audit.shares import contradictions
from unlearnbench.results.records.record import ProblemRecord, Record
from unlearnbench.terms import JUDGED

MOST_ENTRIES = 10_000


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
    """Yield the contradictions in a record, each beginning with its key."""
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
        # Weights may fill in what the manifest leaves open.
        if key in training and training[key] is not None and training[key] != value:
            yield f"problem.training.{key}: {value!r}, but the manifest in the record has {training[key]!r}"
    if record.seed not in choice.get("seeds", ()):
        yield f"seed: {record.seed} is not among the seeds of the manifest in the record"
    yield from _other_method(record)
    key = "share" if record.share else "problem.limited_counts"
    if len(record.limited_counts) != problem.num_classes:
        yield f"{key}: {len(record.limited_counts)} numbers for {problem.num_classes} classes"
    yield from contradictions(record)
    yield from _impossible_work(record)
    for kind in ("model", "features"):
        if record.status == "done" and kind not in record.files:
            yield f"files.{kind}: the record names no such file, though the cell is done"


def _other_problem(problem: ProblemRecord, choice: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the forget classes or the limited data differ from those that the manifest asks for."""
    forget = problem.forget_classes
    last, named = choice.get("forget_last"), choice.get("forget_classes")
    if last is not None and forget != tuple(range(max(0, problem.num_classes - last), problem.num_classes)):
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


def _other_method(record: Record) -> Iterator[str]:
    """Yield how the method differs from the manifest's entry of its label."""
    method = record.method
    if method.role == "reference":
        if method.options:
            yield "method.options: a reference has none"
        return
    if method.name == JUDGED:
        yield from _other_weights(record)
        return
    choices = [UnlearnerChoice.model_validate_json(json.dumps(one)) for one in record.manifest.get("unlearners", ())]
    if method.name not in {choice.name for choice in choices}:
        yield f"method.name: {method.name!r} is not among the unlearners of the manifest in the record"
        return
    choices = [choice for choice in choices if choice.name == method.name]
    if sum(math.prod(map(len, choice.matrix.values())) for choice in choices) > MOST_ENTRIES:
        yield f"manifest.unlearners: more than {MOST_ENTRIES:,} combinations"
        return
    entries = dict(variant for choice in choices for variant in variants(choice))
    if method.label not in entries:
        yield f"method.label: {method.label!r} is not the label of an entry of the manifest in the record"
        return
    given = _as_stored(entries[method.label])
    known = _with_defaults(method.name, method.version, json.dumps(given))
    wanted, decisive = known or (given, {})
    for key in sorted(wanted.keys() | (method.options.keys() if known else set())):
        if key not in method.options and (key not in given or key not in decisive):
            # The method has gained this option since, or a record leaves it out where it has this value. Which options
            # those are is not known of a method that is not installed.
            continue
        told, value = method.options.get(key), wanted.get(key)
        if told != value:
            yield f"method.options.{key}: {told!r}, but the manifest in the record has {value!r}"


def _other_weights(record: Record) -> Iterator[str]:
    """Yield what a record of weights from elsewhere cannot say, or lacks."""
    if record.method.options:
        yield "method.options: weights that were unlearned elsewhere have none"
    if sum(record.image_passes.values()):
        yield "image_passes: what a method read that was not run here is not known"
    if record.status == "done" and "sha256" not in (record.details.get("checkpoint") or {}):
        yield "details.checkpoint.sha256: missing, so that nobody knows which weights were judged"


def _as_stored(options: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(options))
    return values


@cache
def _with_defaults(name: str, version: int, given: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return all options of an unlearner and those that a record has, if the version that made it is installed here."""
    try:
        plugin = find("unlearners", name)
        options, faults = resolve_options(plugin, json.loads(given))
        if faults or plugin.version != version:
            return None
        return _as_stored(options), _as_stored(decisive_options(plugin, options))
    except PluginError:
        return None


def _impossible_work(record: Record) -> Iterator[str]:
    """Yield counts and versions in a record that contradict each other."""
    done = record.status == "done"
    epochs, reads = record.problem.training.get("epochs"), sum(record.image_passes.values())
    trained = done and record.problem.weights is None and record.problem.federation is None
    if record.method.name == "original" and trained and isinstance(epochs, int):
        expected = epochs * record.problem.train_images
        if reads != expected:
            yield f"image_passes: {reads:,}, but {epochs} epochs of all training images are {expected:,}"
    if record.method.name == "fdr" and record.image_passes.get("forget"):
        yield f"image_passes.forget: {record.image_passes['forget']:,}, but FDR sees no image of these classes"
    # What a failed cell had read is unknown; it may have failed after an epoch that it was judged at.
    if done and record.epochs and any(count > record.image_passes.get(kind, 0) for kind, count in _last_epoch(record)):
        yield "image_passes: fewer than after the last of the epochs in the record"
    told = record.environment.get("libraries", {}).get(record.method.distribution)
    if told is not None and told != record.method.distribution_version:
        yield (
            f"method.distribution_version: {record.method.distribution_version!r}, but the libraries in the record "
            f"have {told!r}"
        )
    shared = set(record.manifest.get("seeds") or ()) & set((record.manifest.get("tuning") or {}).get("seeds", ()))
    if shared:
        yield f"manifest.tuning.seeds: {min(shared)} is a seed of the manifest; options are searched on other seeds"


def _last_epoch(record: Record) -> list[tuple[str, int]]:
    return list(record.epochs[-1].image_passes.items())
