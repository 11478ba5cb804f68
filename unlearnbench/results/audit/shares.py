"""The record of a federation against itself: shares, rounds, image passes and bytes have to fit together."""

from __future__ import annotations

from collections.abc import Iterator

from unlearnbench.models.federation.federation import Federation, Rounds
from unlearnbench.results.records.record import Record


def contradictions(record: Record) -> Iterator[str]:
    """Yield what cannot be true of a record of a federation, each beginning with its key."""
    told = record.manifest.get("federation") or {}
    wanted = {key: value for key, value in told.items() if value is not None} or None
    if record.problem.federation != wanted:
        yield f"problem.federation: {record.problem.federation!r}, but the manifest in the record has {wanted!r}"
        return
    if wanted is None:
        if record.share or record.rounds is not None:
            yield "share: the images of a problem without a federation lie in one place"
        return
    federation = Federation(**wanted)
    if bool(record.share) != (federation.party is not None):
        yield f"share: {len(record.share)} numbers, but the party that unlearns is {federation.party}"
    if sum(record.share) > record.problem.train_images:
        yield f"share: {sum(record.share):,} images of {record.problem.train_images:,}"
    trained = {"original": record.problem.weights is None, "fdr": record.fdr == "train"}.get(record.method.name, False)
    if record.status == "done" and trained and record.method.role == "reference":
        if record.rounds is None:
            yield "rounds: missing, so that nobody knows who trained the model"
        else:
            yield from _impossible(record, record.rounds, federation)


def _impossible(record: Record, rounds: Rounds, federation: Federation) -> Iterator[str]:
    """Yield how the rounds contradict the problem, the share and the image passes."""
    problem, held = record.problem, rounds.images_per_class
    if len(held) != federation.parties or any(len(row) != problem.num_classes for row in held):
        yield f"rounds.images_per_class: not {federation.parties} parties with {problem.num_classes} classes each"
        return
    images = sum(map(sum, held))
    if images != problem.train_images:
        yield f"rounds.images_per_class: {images:,} images, but the problem has {problem.train_images:,}"
    if federation.party is not None and federation.party < len(held) and held[federation.party] != record.share:
        yield f"share: not what rounds.images_per_class says of party {federation.party}"
    for key, values in (("trained_in_round", rounds.trained_in_round), ("accuracy_by_round", rounds.accuracy_by_round)):
        if len(values) != federation.rounds:
            yield f"rounds.{key}: {len(values)} rounds, but the federation has {federation.rounds}"
    if any(party >= len(held) for drawn in rounds.trained_in_round for party in drawn):
        yield f"rounds.trained_in_round: a party beyond the last, {federation.parties - 1}"
        return
    unseen = set(problem.forget_classes) if record.method.name == "fdr" else set()
    read = [sum(number for label, number in enumerate(row) if label not in unseen) for row in held]
    passes = federation.local_epochs * sum(read[party] for drawn in rounds.trained_in_round for party in drawn)
    if passes != sum(record.image_passes.values()):
        yield f"image_passes: {sum(record.image_passes.values()):,}, but the rounds make {passes:,}"
