"""The model and the features of each cell, made once because the store keeps them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from unlearnbench.engine.artifacts.features import extract
from unlearnbench.engine.artifacts.references import ReferenceMaker
from unlearnbench.engine.artifacts.unlearned import UnlearnedMaker
from unlearnbench.engine.artifacts.workplace import MODEL_FILE, Workplace, check_networks, title
from unlearnbench.engine.processes.method import Limits
from unlearnbench.experiment.components import JudgedMethod
from unlearnbench.experiment.plan import Cell
from unlearnbench.metrics.features import FEATURE_FILE


class Maker:
    """Makes the models and features of a plan's cells.

    Args:
        place: Where they are made.
        limits: What a run of an unlearner may use.
        output: Output folder, where `logs` holds what unlearners print.

    Attributes:
        references: Maker of Original and FDR.
        unlearned: Maker of the unlearned models.
    """

    def __init__(self, place: Workplace, limits: Limits, output: Path) -> None:
        self._place = place
        self.references = ReferenceMaker(place)
        self.unlearned = UnlearnedMaker(place, limits, output)

    def check(self) -> None:
        """Try what the manifest's networks and trainings need, before anything is trained.

        Raises:
            InvalidFileError: If a network cannot process the data set's images, weights do not fit, or several
                processes are to train and what joins them is missing.
        """
        self.references.check()
        check_networks(self._place)

    def features(self, cell: Cell) -> Path:
        """Return the folder in the store that holds the cell's feature file."""
        # The model has to be there and complete too, since the record is made from both.
        made = self._model_folder(cell)

        def build(folder: Path) -> dict[str, Any]:
            started = time.monotonic()
            extract(self._place, cell, made / MODEL_FILE, folder / FEATURE_FILE, f"features of {title(cell)}")
            return {"seconds": {"features": time.monotonic() - started}}

        return self._place.store.get("features", cell.features_id, build)

    def _model_folder(self, cell: Cell) -> Path:
        """Return the folder in the store that holds the model judged by a cell."""
        if cell.reference is not None:
            return self.references.folder(cell, cell.reference)
        store, unlearned, method = self._place.store, self.unlearned, cell.method
        if isinstance(method, JudgedMethod):
            return store.get("models", cell.model_id, lambda folder: unlearned.fill_judged(cell, method, folder))
        original = self.references.folder(cell, cell.original)
        return store.get("models", cell.model_id, lambda folder: unlearned.unlearn(cell, original, folder))
