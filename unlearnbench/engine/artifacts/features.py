"""The feature file of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlearnbench.engine.artifacts.workplace import Workplace
from unlearnbench.experiment.plan import Cell
from unlearnbench.files import file_hash
from unlearnbench.metrics.feature_writer import write_features


def extract(place: Workplace, cell: Cell, weights: Path, path: Path, stage: str) -> None:
    """Write the features of the model whose weights are in a file.

    Args:
        place: Where the model was made.
        cell: Cell that is judged by the features.
        weights: File with the weights.
        path: File for the features.
        stage: What the progress display calls the work.
    """
    data = place.data
    model = place.load(place.network(cell), weights)
    limited = data.limited_positions(cell.problem.limited(cell.seed), cell.seed)
    with place.told.stage(stage, len(data.test) + len(data.train)):
        write_features(
            path,
            model,
            (data.test, data.test_part.ids),
            (data.train, data.train_part.ids),
            limited,
            _attributes(place, cell, weights),
            place.told.advance,
        )


def _attributes(place: Workplace, cell: Cell, weights: Path) -> dict[str, Any]:
    problem = cell.problem
    return {
        "model": cell.model_id,
        "model_sha256": file_hash(weights),
        "dataset": problem.dataset.name,
        "dataset_revision": problem.info.revision,
        "problem": problem.id,
        "num_classes": len(problem.info.class_names),
        "forget_classes": list(problem.forget_classes),
        "superclasses": list(problem.info.superclasses),
        "seed": cell.seed,
        "feature_dtype": place.plan.resolved.manifest.feature_dtype,
    }
