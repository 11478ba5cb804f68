"""Running the cells of a plan: what a cell needs is made or found in the store, followed by its record."""

from __future__ import annotations

import contextlib
import json
import math
import time
import traceback
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from unlearnbench.engine.artifacts.maker import Maker
from unlearnbench.engine.artifacts.unlearned import log_file
from unlearnbench.engine.artifacts.workplace import MODEL_FILE, Workplace, device_name
from unlearnbench.engine.federated.order import FederationOrder
from unlearnbench.engine.processes.fork_server import ForkServer
from unlearnbench.engine.processes.method import NO_LIMITS, Limits, MethodFailedError
from unlearnbench.engine.processes.unlearning import reason_of
from unlearnbench.engine.progress import Told
from unlearnbench.engine.recording import Outcome, make_record
from unlearnbench.errors import NotApplicable, TrainingFailedError, UnlearnBenchError, UnwritableError
from unlearnbench.experiment.plan import Cell, Plan, ReferenceModel
from unlearnbench.files import file_hash, writing
from unlearnbench.machine import cores, environment
from unlearnbench.metrics.compute import Material, judge
from unlearnbench.metrics.features import FEATURE_FILE, FeatureFile, open_features
from unlearnbench.metrics.live_model import LiveModel
from unlearnbench.metrics.measurement import GIVEN_FDR, NO_FDR, NOT_RUN_HERE, Costs, Missing, References
from unlearnbench.models.federation.federation import Rounds
from unlearnbench.models.federation.training import FederatedTraining
from unlearnbench.models.random_state import own_random_state
from unlearnbench.models.training import resolve_precision
from unlearnbench.results.records.record import EpochRecord, FileRecord, Record, with_hash
from unlearnbench.seeds import derived_seed
from unlearnbench.store import Store
from unlearnbench.terms import JUDGED, REFERENCES

# Images with up to this many values leave a CPU's threads nothing to share, so that they only wait for each other, most
# of all on a busy machine. One thread is as fast, and makes the result independent of the number of cores.
SMALL_IMAGE = 256
# The user allows this many threads, through OMP_NUM_THREADS or by torch's choice for this machine.
ALLOWED_THREADS = torch.get_num_threads()


def work_shares(device: torch.device, shape: tuple[int, ...], jobs: int | None) -> tuple[int, int]:
    """Return how many cells run at a time, and the number of threads that each of them computes with.

    Args:
        device: Device of the computation.
        shape: Shape of the stored images.
        jobs: Number of cells that the user wants to run at a time; None takes as many as there are cores where one cell
            cannot use them, and one at a time elsewhere.
    """
    if device.type == "cpu" and math.prod(shape) <= SMALL_IMAGE:
        return jobs or cores(), 1
    return jobs or 1, ALLOWED_THREADS if jobs in (None, 1) else max(1, min(ALLOWED_THREADS, cores() // jobs))


class Runner:
    """Runs the cells of a plan.

    Args:
        plan: Plan to run.
        output: Output folder.
        store: Store of the output folder.
        device: Device to compute on.
        told: Listener that follows the progress of the work.
        server: Server that starts the processes of unlearners.
        jobs: Number of cells that run at the same time.
        threads: Number of threads that this process computes with.
        limits: What a run of an unlearner may use.
    """

    def __init__(
        self,
        plan: Plan,
        output: Path,
        store: Store,
        device: torch.device,
        told: Told,
        server: ForkServer,
        *,
        jobs: int = 1,
        threads: int = 1,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self.plan = plan
        self.output = output
        self.store = store
        self.device = device
        self.told = told
        self.jobs = jobs
        self.threads = threads
        self.limits = limits
        self._place = Workplace(plan, store, device, told, server)
        self._maker = Maker(self._place, limits, output)
        torch.set_num_threads(threads)

    def take_devices(self, devices: tuple[torch.device, ...]) -> None:
        """Let a training of several devices use these, of which the first is this process's own."""
        self._place.devices = devices

    @property
    def broken(self) -> dict[str, str]:
        """Reasons why reference models or their features could not be made, by their names in the store."""
        return self._maker.references.broken

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Description of the machine that this run uses."""
        precision = resolve_precision(self._place.recipe.precision, self.device)
        # The number of processes is recorded because they ran while seconds were measured.
        return {**environment(device_name(self.device), precision, torch.get_num_threads()), "jobs": self.jobs}

    def check_networks(self) -> None:
        """Build the manifest's networks and try the weights that it names on them, before anything is trained.

        Raises:
            InvalidFileError: If a network cannot process the data set's images, or weights do not fit.
        """
        self._maker.check()

    def federated_training(self, cell: Cell) -> FederatedTraining:
        """Return the training of a reference by a federation as it is before the first round, with its images."""
        return self.federation_order(cell).training(self._place.data)

    def federation_order(self, cell: Cell) -> FederationOrder:
        """Return what the federation of a reference's cell trains."""
        assert cell.reference is not None
        return self._maker.references.federation_order(cell, cell.reference)

    def run_cell(self, cell: Cell) -> Record:
        """Make everything that a cell needs and return its record; an error ends in a record too.

        Raises:
            UnwritableError: If a result cannot be written, since that of another cell could not be either.
        """
        try:
            return self._judge(cell, self._maker.features(cell))
        except UnwritableError:
            raise
        # Unlearners are foreign code, and whatever one raises must not stop the others.
        except (Exception, SystemExit) as error:
            return self._fault(cell, error)

    def make(self, cell: Cell) -> Record | None:
        """Make the model and features of a cell, and return its record only if that fails.

        Raises:
            UnwritableError: As for `run_cell`.
        """
        try:
            self._maker.features(cell)
        except UnwritableError:
            raise
        except (Exception, SystemExit) as error:
            return self._fault(cell, error)
        return None

    def _fault(self, cell: Cell, error: Exception | SystemExit) -> Record:
        """Return the record of a cell that raised an exception."""
        if isinstance(error, NotApplicable):
            return self._record(cell, Outcome("not_applicable", str(error)))
        reason, log = str(error), log_file(self.output / "logs", cell)
        if not isinstance(error, UnlearnBenchError):
            reason = reason_of(error)
            with writing(log):
                log.parent.mkdir(parents=True, exist_ok=True)
                text = "".join(traceback.format_exception(error))
                log.write_text(text, encoding="utf-8", errors="backslashreplace")
        if log.is_file() and (isinstance(error, MethodFailedError) or not isinstance(error, UnlearnBenchError)):
            self.told.say(f"{cell.method.label}, seed {cell.seed}: what it printed last is in {log}")
        details = {"log": list(error.log)} if isinstance(error, MethodFailedError) and error.log else {}
        return self.failed(cell, reason, self._maker.unlearned.epochs_of_failed.get(cell.id, ()), details)

    def failed(
        self, cell: Cell, reason: str, epochs: tuple[EpochRecord, ...] = (), details: dict[str, Any] | None = None
    ) -> Record:
        """Return the record of a cell without a result."""
        if cell.is_reference:
            why = reason.strip().partition("\n")[0]
            self.broken[cell.features_id] = why
            # If what made it died, nothing else has noted that the methods need not make it again.
            if not self.store.has("models", cell.model_id):
                name = REFERENCES.get(cell.method.name, cell.method.name)
                self.broken.setdefault(cell.model_id, f"{name} of seed {cell.seed} failed: {why}")
        return self._record(cell, Outcome("failed", reason, epochs=epochs, details=details or {}))

    def _record(self, cell: Cell, outcome: Outcome) -> Record:
        return make_record(self.plan, cell, outcome, self.environment)

    def _judge(self, cell: Cell, folder: Path) -> Record:
        """Compute the metrics of a cell from its features and return its record."""
        references = self._references(cell)
        facts = self.store.facts("models", cell.model_id)
        evaluation = self.store.facts("features", cell.features_id)
        model = self.store.entry("models", cell.model_id) / MODEL_FILE
        started = time.monotonic()
        with contextlib.ExitStack() as opened, own_random_state(derived_seed(cell.seed, "metrics")):
            features = opened.enter_context(open_features(folder / FEATURE_FILE))
            features.check_is_of(file_hash(model), cell.seed, cell.problem.id)
            metrics = judge(self.plan.metrics, self._material(cell, features, references, opened))
        seconds = {**facts["seconds"], **evaluation["seconds"], "metrics": time.monotonic() - started}
        files = {
            name: FileRecord(path=file.relative_to(self.output).as_posix(), sha256=file_hash(file))
            for name, file in {"model": model, "features": folder / FEATURE_FILE}.items()
        }
        outcome = Outcome(
            "done",
            metrics=metrics,
            details=facts["details"],
            image_passes=facts["image_passes"],
            networks=facts.get("networks"),
            epochs=tuple(EpochRecord(**epoch) for epoch in facts.get("epochs", ())),
            files=files,
            seconds=seconds,
            peak_memory_bytes=facts["peak_memory_bytes"],
            speed_up_seconds=self._speed_up(cell, references),
            rounds=Rounds.model_validate_json(json.dumps(facts["rounds"])) if "rounds" in facts else None,
        )
        # A model that another machine made keeps that machine's description, wherever its metrics are computed.
        record = make_record(self.plan, cell, outcome, {**self.environment, **facts.get("environment", {})})
        beside = record.beside_published
        if beside is None:
            return record
        return with_hash(record.model_copy(update={"details": {**record.details, "published": beside.as_json()}}))

    def _speed_up(self, cell: Cell, references: tuple[Path, ...] | Missing) -> float | None:
        """Return how many times as long the training of FDR took, or None if that is unknown."""
        if isinstance(references, Missing) or cell.fdr is None:
            return None
        own, fdr = (
            sum(self.store.facts("models", name)["seconds"].get(stage, 0.0) for stage in ("train", "unlearn"))
            for name in (cell.model_id, cell.fdr.id)
        )
        return fdr / own if own > 0 and fdr > 0 else None

    def _references(self, cell: Cell) -> tuple[Path, ...] | Missing:
        """Return the folders with the features of Original and, if there is one, FDR for a cell's problem and seed.

        They are made before anything is judged with them; what was removed or damaged meanwhile is made again.
        """
        folders = []
        for name in ("original", "fdr") if cell.fdr else ("original",):
            reference = self._reference_cells[cell.problem.id, cell.seed, name]
            if (reason := self.broken.get(reference.features_id)) is not None:
                return Missing(f"{name} of seed {cell.seed} failed: {reason}")
            try:
                folders.append(self._maker.features(reference))
            except TrainingFailedError as error:
                return Missing(f"{name} of seed {cell.seed} failed: {error}")
        return tuple(folders)

    @cached_property
    def _reference_cells(self) -> dict[tuple[str, int, str], Cell]:
        cells = (cell for cell in self.plan.cells if cell.is_reference)
        return {(cell.problem.id, cell.seed, cell.method.name): cell for cell in cells}

    def _material(
        self,
        cell: Cell,
        features: FeatureFile,
        references: tuple[Path, ...] | Missing,
        opened: contextlib.ExitStack,
    ) -> Material:
        """Return what the metrics of a cell can ask for."""
        network, problem = self._place.network(cell), cell.problem
        model = LiveModel(
            load=lambda: self._place.load(network, self.store.entry("models", cell.model_id) / MODEL_FILE),
            limited=lambda: self._place.data.limited(problem.limited(cell.seed), cell.seed),
            test=lambda: self._place.data.test,
            original=lambda: self._place.load(network, self._maker.references.folder(cell, cell.original) / MODEL_FILE),
        )
        if isinstance(references, Missing):
            return Material(features, references, references, model)
        files = [opened.enter_context(open_features(path / FEATURE_FILE)) for path in references]
        if cell.fdr is None:
            return Material(features, References(files[0], Missing(NO_FDR)), Missing(NO_FDR), model)
        return Material(features, References(*files), self._costs(cell, cell.fdr), model)

    def _costs(self, cell: Cell, fdr: ReferenceModel) -> Costs | Missing:
        """Return the image passes of a cell's model and of FDR."""
        if cell.method.name == JUDGED:
            return Missing(NOT_RUN_HERE)
        if fdr.weights is not None:
            return Missing(GIVEN_FDR)
        return Costs(*(self.store.facts("models", name)["image_passes"] for name in (cell.model_id, fdr.id)))
