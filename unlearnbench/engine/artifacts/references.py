"""The reference models of a plan: trained here, by a federation, or filled with weights that someone else made."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from unlearnbench.engine.artifacts.workplace import MODEL_FILE, Workplace
from unlearnbench.engine.federated.order import FederationOrder, named_engine
from unlearnbench.engine.processes.reference_training import TrainingOrder, missing_library, train
from unlearnbench.engine.processes.team import Team, train_together
from unlearnbench.engine.processes.unlearning import peak_memory_bytes, start_measuring
from unlearnbench.errors import InvalidFileError, TrainingFailedError
from unlearnbench.experiment.plan import Cell, ReferenceModel
from unlearnbench.models.batches import Share
from unlearnbench.models.checkpoints import naming
from unlearnbench.models.classifier import save_network
from unlearnbench.models.federation.federation import Federation, Rounds
from unlearnbench.models.federation.shares import party_counts
from unlearnbench.models.random_state import own_random_state
from unlearnbench.models.weights import Weights
from unlearnbench.store import CHECKPOINT
from unlearnbench.terms import REFERENCES


class ReferenceMaker:
    """Makes Original and FDR.

    Args:
        place: Where they are made.

    Attributes:
        broken: Reasons why reference models could not be made, by their names in the store.
    """

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self.broken: dict[str, str] = {}

    @property
    def _processes(self) -> int:
        """How many processes train a model together."""
        return self._place.plan.resolved.manifest.devices_per_training

    def check(self) -> None:
        """Look for what the manifest's way of training needs.

        Raises:
            InvalidFileError: If several processes are to train and what joins them is missing.
        """
        if self._processes > 1 and (missing := missing_library()):
            raise InvalidFileError(
                f"{self._place.plan.resolved.file}: devices_per_training: {self._processes} processes: {missing}"
            )

    def folder(self, cell: Cell, reference: ReferenceModel) -> Path:
        """Return the folder in the store that holds a reference model of a cell's problem.

        Raises:
            TrainingFailedError: If it cannot be made, which is tried only once.
        """
        if reference.id in self.broken:
            raise TrainingFailedError(self.broken[reference.id])
        try:
            return self._place.store.get("models", reference.id, lambda folder: self._make(cell, reference, folder))
        except TrainingFailedError as error:
            # The other unlearners of the problem need not train it again only to fail in the same way.
            self.broken[reference.id] = f"{REFERENCES[reference.role]} of seed {reference.seed} failed: {error}"
            raise

    def _make(self, cell: Cell, reference: ReferenceModel, folder: Path) -> dict[str, Any]:
        """Make a reference model and save it."""
        if reference.weights is not None:
            return self._fill(cell, reference.weights, folder)
        if cell.problem.federation is not None:
            return self._train_federation(cell, reference, cell.problem.federation, folder)
        return self._train(cell, reference, folder)

    def _train(self, cell: Cell, reference: ReferenceModel, folder: Path) -> dict[str, Any]:
        place, recipe, processes = self._place, self._place.recipe, self._processes
        order = TrainingOrder(
            place.network(cell),
            reference.role,
            reference.seed,
            reference.classes,
            recipe,
            folder / CHECKPOINT,
            folder / MODEL_FILE,
        )
        with self._stage(reference):
            if processes > 1:
                team = Team(processes, place.devices, torch.get_num_threads())
                cost = train_together(place.server, order, place.plan.resolved.dataset, team, place.told)
            else:
                cost = train(order, place.data, place.told)
        positions = place.data.train.positions_of(reference.classes)
        reads = {kind: recipe.epochs * images for kind, images in place.count_by_kind(cell, positions).items()}
        details = {"full_size_passes": reference.full_size_passes} if recipe.resolutions else {}
        largest = max(Share(processes=processes).batch_sizes(len(positions), recipe.batch_size))
        if largest > recipe.batch_size:
            details["joined_batch"] = largest
        if processes > 1:
            details["devices_per_training"] = processes
        return place.model_facts({"train": cost.seconds}, reads, details, cost.memory)

    def _train_federation(
        self, cell: Cell, reference: ReferenceModel, federation: Federation, folder: Path
    ) -> dict[str, Any]:
        place = self._place
        order = self.federation_order(cell, reference)
        engine, threads = named_engine(federation), torch.get_num_threads()
        start_measuring(place.device)
        with self._stage(reference), contextlib.ExitStack() as played:
            training = order.training(
                place.data,
                place.told.advance,
                place.store.say,
                resumed=lambda images: place.told.expect(reference.image_passes - images, images),
            )
            if engine is not None:
                playing = engine.playing(order, place.device, threads, place.told.advance)
                training.average = played.enter_context(playing)
            seconds = training.train(folder / CHECKPOINT)
        save_network(training.model, folder / MODEL_FILE)
        reads = {"forget": 0, "retain": 0}
        for party in itertools.chain.from_iterable(training.rounds):
            for kind, images in place.count_by_kind(cell, training.parties[party]).items():
                reads[kind] += federation.local_epochs * images
        rounds = Rounds(
            images_per_class=party_counts(federation, cell.problem.info.train_counts, reference.seed),
            trained_in_round=tuple(training.rounds),
            bytes_sent=training.bytes_sent,
            accuracy_by_round=tuple(training.accuracies),
        )
        details = {}
        if engine is not None and cell.problem.engine is not None:
            details["federation_engine"] = {**cell.problem.engine.facts, **engine.provenance}
        facts = place.model_facts({"train": seconds}, reads, details, peak_memory_bytes(place.device))
        return {**facts, "rounds": rounds.model_dump(mode="json")}

    def federation_order(self, cell: Cell, reference: ReferenceModel) -> FederationOrder:
        """Return what the federation of a cell's problem trains to make a reference."""
        federation = cell.problem.federation
        assert federation is not None
        return FederationOrder(
            self._place.network(cell),
            reference.role,
            reference.seed,
            reference.classes,
            self._place.recipe,
            federation,
            self._place.plan.resolved.dataset,
        )

    @contextlib.contextmanager
    def _stage(self, reference: ReferenceModel) -> Iterator[None]:
        """Tell of the training of a reference, and leave the random states as they were."""
        name = f"training {REFERENCES[reference.role]}, seed {reference.seed}"
        with self._place.told.stage(name, reference.full_size_passes), own_random_state(0):
            yield

    def _fill(self, cell: Cell, weights: Weights, folder: Path) -> dict[str, Any]:
        """Save a model that someone else has trained."""
        place = self._place
        start_measuring(place.device)
        started = time.monotonic()
        model = place.network(cell).filled(weights, place.store.say)
        save_network(model, folder / MODEL_FILE)
        details: dict[str, Any] = {"weights": weights.label, "checkpoint": naming(weights.path, model)}
        if weights.class_order is not None:
            details["checkpoint"]["class_order"] = list(weights.class_order)
        seconds = {"load": time.monotonic() - started}
        return place.model_facts(seconds, {"forget": 0, "retain": 0}, details, peak_memory_bytes(place.device))
