"""The models and features that a cell needs, made or found in the store: original, FDR, and the unlearned model."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from unlearnbench.datasets.dataset import data_folder
from unlearnbench.engine.epochs import Snapshot, judge_epochs
from unlearnbench.engine.federated.order import FederationOrder, named_engine
from unlearnbench.engine.processes.fork_server import ForkServer
from unlearnbench.engine.processes.method import Limits, MethodRun, run_method
from unlearnbench.engine.processes.reference_training import TrainingOrder, missing_library, train
from unlearnbench.engine.processes.team import Team, train_together
from unlearnbench.engine.processes.unlearning import LIMITED, ORIGINAL, Assignment, peak_memory_bytes, start_measuring
from unlearnbench.engine.progress import Told
from unlearnbench.errors import InvalidFileError, PluginError, TrainingFailedError, UnlearnBenchError
from unlearnbench.experiment.components import JudgedMethod
from unlearnbench.experiment.plan import Cell, Plan, ReferenceModel
from unlearnbench.machine import processor_name
from unlearnbench.metrics.feature_writer import write_features
from unlearnbench.metrics.features import FEATURE_FILE
from unlearnbench.models.batches import Share
from unlearnbench.models.build import Network, input_shape
from unlearnbench.models.checkpoints import naming
from unlearnbench.models.classifier import OUTPUT_CLASSES, load_network, save_network
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.federation.federation import Federation, Rounds
from unlearnbench.models.federation.shares import party_counts
from unlearnbench.models.random_state import own_random_state
from unlearnbench.models.recipe import read_recipe
from unlearnbench.models.training import resolve_precision
from unlearnbench.models.weights import Weights, weights_folder
from unlearnbench.registry.identity import STORE_FORMAT, TASK_PROTOCOL
from unlearnbench.results.record import EpochRecord
from unlearnbench.store import CHECKPOINT, Store, content_id, file_hash, writing
from unlearnbench.terms import REFERENCES

MODEL_FILE = "model.safetensors"
HANDED = "handed"
TENSORS = "tensors.safetensors"


class Maker:
    """Makes the models and features of a plan's cells, each of them once because the store keeps them.

    Args:
        plan: Plan to run.
        store: Store that keeps what is made.
        device: Device to compute on.
        told: Listener that follows the progress of the work.
        server: Server that starts the processes of unlearners.
        limits: What a run of an unlearner may use.
        output: Output folder, where `logs` holds what unlearners print.

    Attributes:
        recipe: Training recipe of the references.
        devices: Devices that a training may use at the moment, this process's own first.
        broken: Reasons why reference models could not be made, by their names in the store.
        epochs_of_failed: Epochs that unlearners completed before they failed, by the ids of their cells.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        device: torch.device,
        told: Told,
        server: ForkServer,
        limits: Limits,
        output: Path,
    ) -> None:
        self._plan = plan
        self._store = store
        self._device = device
        self._told = told
        self._server = server
        self._limits = limits
        self._log_folder = output / "logs"
        # An unlearner reaches neither what others have made nor images beyond those that it is handed. It may start
        # from published weights.
        made = (output / name for name in ("store", "records", "logs"))
        self._closed = (*made, *(entry for entry in data_folder().glob("*") if entry != weights_folder()))
        recipe = plan.cells[0].problem.recipe
        self.recipe = read_recipe({**recipe, "precision": plan.precision})
        self.devices: tuple[torch.device, ...] = (device,)
        self.broken: dict[str, str] = {}
        self.epochs_of_failed: dict[str, tuple[EpochRecord, ...]] = {}

    @cached_property
    def data(self) -> LoadedData:
        """Images of the data set."""
        return LoadedData(
            self._plan.resolved.dataset, self.recipe, self._device, self._plan.resolved.manifest.federation
        )

    def check_networks(self) -> None:
        """Build the manifest's networks and try the weights that it names on them, before anything is trained.

        Raises:
            InvalidFileError: If a network cannot process the data set's images, weights do not fit, or several
                processes are to train and what joins them is missing.
        """
        processes = self._plan.resolved.manifest.devices_per_training
        if processes > 1 and (missing := missing_library()):
            raise InvalidFileError(
                f"{self._plan.resolved.file}: devices_per_training: {processes} processes: {missing}"
            )
        for cell in {cell.problem.id: cell for cell in self._plan.cells}.values():
            network = self.network(cell)
            with self._faults_of("architecture.name"):
                self._try_building(network)
            if cell.problem.weights is not None:
                named = self._plan.resolved.manifest.architecture.weights is not None
                with self._faults_of("architecture.weights" if named else "references.original"):
                    network.filled(cell.problem.weights)
            if cell.problem.fdr is not None:
                with self._faults_of("references.fdr"):
                    network.filled(cell.problem.fdr)
            if network.start is not None:
                with self._faults_of("architecture.start"):
                    network.build(0, "original")

    @staticmethod
    def _try_building(network: Network) -> None:
        try:
            network.unfilled()
        except UnlearnBenchError:
            raise
        # Any other exception of foreign code is left to the cells, which record it.
        except Exception:
            return

    @contextlib.contextmanager
    def _faults_of(self, key: str) -> Iterator[None]:
        """Name the key of the manifest that a fault comes from."""
        try:
            yield
        except (InvalidFileError, PluginError) as error:
            raise InvalidFileError(f"{self._plan.resolved.file}: {key}: {error}") from error

    def features(self, cell: Cell) -> Path:
        """Return the folder in the store that holds the cell's feature file."""
        # The model has to be there and complete too, since the record is made from both.
        trained = self._model_folder(cell)

        def build(folder: Path) -> dict[str, Any]:
            weights = trained / MODEL_FILE
            started = time.monotonic()
            self._extract(cell, weights, folder / FEATURE_FILE, f"features of {_name(cell)}")
            return {"seconds": {"features": time.monotonic() - started}}

        return self._store.get("features", cell.features_id, build)

    def _extract(self, cell: Cell, weights: Path, path: Path, stage: str) -> None:
        """Write the features of the model whose weights are in a file."""
        model = self.load(self.network(cell), weights)
        limited = self.data.limited_positions(cell.problem.limited(cell.seed), cell.seed)
        with self._told.stage(stage, len(self.data.test) + len(self.data.train)):
            write_features(
                path,
                model,
                (self.data.test, self.data.test_part.ids),
                (self.data.train, self.data.train_part.ids),
                limited,
                self._attributes(cell, weights),
                self._told.advance,
            )

    def _attributes(self, cell: Cell, weights: Path) -> dict[str, Any]:
        """Return the attributes of a cell's feature file."""
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
            "feature_dtype": self._plan.resolved.manifest.feature_dtype,
        }

    def _model_folder(self, cell: Cell) -> Path:
        """Return the folder in the store that holds the model judged by a cell."""
        if cell.reference is not None:
            return self.reference_folder(cell, cell.reference)
        if isinstance(cell.method, JudgedMethod):
            method = cell.method
            return self._store.get("models", cell.model_id, lambda folder: self._fill_judged(cell, method, folder))
        original = self.reference_folder(cell, cell.original)
        return self._store.get("models", cell.model_id, lambda folder: self._unlearn(cell, original, folder))

    def reference_folder(self, cell: Cell, reference: ReferenceModel) -> Path:
        """Return the folder in the store that holds a reference model of a cell's problem.

        Raises:
            TrainingFailedError: If it cannot be made, which is tried only once.
        """
        if reference.id in self.broken:
            raise TrainingFailedError(self.broken[reference.id])
        try:
            return self._store.get("models", reference.id, lambda folder: self._train(cell, reference, folder))
        except TrainingFailedError as error:
            # The other unlearners of the problem need not train it again only to fail in the same way.
            self.broken[reference.id] = f"{REFERENCES[reference.role]} of seed {reference.seed} failed: {error}"
            raise

    def _train(self, cell: Cell, reference: ReferenceModel, folder: Path) -> dict[str, Any]:
        """Train a reference model and save it."""
        if reference.weights is not None:
            return self._fill(cell, reference.weights, folder)
        if cell.problem.federation is not None:
            return self._train_federation(cell, reference, cell.problem.federation, folder)
        order = TrainingOrder(
            self.network(cell),
            reference.role,
            reference.seed,
            reference.classes,
            self.recipe,
            folder / CHECKPOINT,
            folder / MODEL_FILE,
        )
        processes = self._plan.resolved.manifest.devices_per_training
        with self._training_stage(reference):
            if processes > 1:
                team = Team(processes, self.devices, torch.get_num_threads())
                cost = train_together(self._server, order, self._plan.resolved.dataset, team, self._told)
            else:
                cost = train(order, self.data, self._told.advance, self._store.say)
        positions = self.data.train.positions_of(reference.classes)
        reads = {kind: self.recipe.epochs * images for kind, images in self._by_kind(cell, positions).items()}
        details = {"full_size_passes": reference.full_size_passes} if self.recipe.resolutions else {}
        largest = max(Share(processes=processes).batch_sizes(len(positions), self.recipe.batch_size))
        if largest > self.recipe.batch_size:
            details["joined_batch"] = largest
        if processes > 1:
            details["devices_per_training"] = processes
        return self._model_facts({"train": cost.seconds}, reads, details, cost.memory)

    def _train_federation(
        self, cell: Cell, reference: ReferenceModel, federation: Federation, folder: Path
    ) -> dict[str, Any]:
        """Train a reference model by a federation and save it."""
        order = self.federation_order(cell, reference)
        engine, threads = named_engine(federation), torch.get_num_threads()
        start_measuring(self._device)
        with self._training_stage(reference), contextlib.ExitStack() as played:
            training = order.training(self.data, self._told.advance, self._store.say)
            if engine is not None:
                training.average = played.enter_context(
                    engine.playing(order, self._device, threads, self._told.advance)
                )
            seconds = training.train(folder / CHECKPOINT)
        save_network(training.model, folder / MODEL_FILE)
        reads = {"forget": 0, "retain": 0}
        for party in itertools.chain.from_iterable(training.rounds):
            for kind, images in self._by_kind(cell, training.parties[party]).items():
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
        facts = self._model_facts({"train": seconds}, reads, details, peak_memory_bytes(self._device))
        return {**facts, "rounds": rounds.model_dump(mode="json")}

    def federation_order(self, cell: Cell, reference: ReferenceModel) -> FederationOrder:
        """Return what the federation of a cell's problem trains to make a reference."""
        federation, dataset = cell.problem.federation, self._plan.resolved.dataset
        assert federation is not None
        return FederationOrder(
            self.network(cell),
            reference.role,
            reference.seed,
            reference.classes,
            self.recipe,
            federation,
            dataset,
        )

    def _by_kind(self, cell: Cell, positions: Tensor) -> dict[str, int]:
        """Return how many of the training images at some positions are of forget and of retain classes."""
        labels = self.data.train.labels[positions]
        forget = int(torch.isin(labels, torch.tensor(cell.problem.forget_classes, device=self._device)).sum())
        return {"forget": forget, "retain": len(positions) - forget}

    @contextlib.contextmanager
    def _training_stage(self, reference: ReferenceModel) -> Iterator[None]:
        """Tell of the training of a reference, and leave the random states as they were."""
        name = f"training {REFERENCES[reference.role]}, seed {reference.seed}"
        with self._told.stage(name, reference.image_passes), own_random_state(0):
            yield

    def _fill(self, cell: Cell, weights: Weights, folder: Path) -> dict[str, Any]:
        """Save a model that someone else has trained."""
        start_measuring(self._device)
        started = time.monotonic()
        model = self.network(cell).filled(weights, self._store.say)
        save_network(model, folder / MODEL_FILE)
        reads = {"forget": 0, "retain": 0}
        details: dict[str, Any] = {"weights": weights.label, "checkpoint": naming(weights.path, model)}
        if weights.class_order is not None:
            details["checkpoint"]["class_order"] = list(weights.class_order)
        return self._model_facts({"load": time.monotonic() - started}, reads, details, peak_memory_bytes(self._device))

    def _fill_judged(self, cell: Cell, method: JudgedMethod, folder: Path) -> dict[str, Any]:
        """Save a model that a method elsewhere made; what it read is not known."""
        start_measuring(self._device)
        started = time.monotonic()
        model = filled_judged(self.network(cell), method, self._store.say)
        save_network(model, folder / MODEL_FILE)
        details = {"weights": method.weights.label, "checkpoint": naming(method.weights.path, model)}
        return self._model_facts({"load": time.monotonic() - started}, {}, details, peak_memory_bytes(self._device))

    def _unlearn(self, cell: Cell, original: Path, folder: Path) -> dict[str, Any]:
        """Let an unlearner work on a copy of the original in a process of its own, and save what it gives back."""
        handed, manifest = folder / HANDED, self._plan.resolved.manifest
        assignment = self._assignment(cell, original, handed)
        run = MethodRun()
        try:
            with self._told.stage(_name(cell), cell.image_passes):
                unlearned = run_method(
                    self._server,
                    assignment,
                    run,
                    limits=self._limits,
                    closed=self._closed,
                    log=log_file(self._log_folder, cell),
                    keep=self._keeper(cell),
                    told=self._told,
                )
        except UnlearnBenchError:
            # What it did before counts, if that can be judged at all.
            with contextlib.suppress(PluginError, TrainingFailedError):
                self.epochs_of_failed[cell.id] = self._epochs(cell, run)
            shutil.rmtree(handed, ignore_errors=True)
            raise
        save_network(unlearned, folder / MODEL_FILE)
        report = run.report
        facts = self._model_facts(
            {"unlearn": float(report["seconds"])},
            {kind: int(report["image_passes"][kind]) for kind in ("forget", "retain")},
            dict(report["details"]),
            report["peak_memory_bytes"],
        )
        facts["networks"] = int(report["networks"])
        epochs = self._epochs(cell, run)
        shutil.rmtree(handed, ignore_errors=True)
        if manifest.evaluate_every and sum(facts["image_passes"].values()) > 0 and not report["epochs_ended"]:
            facts["details"]["epochs"] = "the method does not say when an epoch ends; it should call task.end_epoch"
        return {**facts, "epochs": [epoch.model_dump() for epoch in epochs]}

    def _assignment(self, cell: Cell, original: Path, handed: Path) -> Assignment:
        """Put what an unlearner is given into a folder, and return what its process has to know."""
        # An interrupted run may have left some of it behind.
        shutil.rmtree(handed, ignore_errors=True)
        with writing(handed):
            handed.mkdir()
            shutil.copyfile(original / MODEL_FILE, handed / ORIGINAL)
            limited = self.data.limited_tensors(cell.problem.limited(cell.seed), cell.seed)
            (handed / LIMITED).write_bytes(save(limited))
        return Assignment(
            unlearner=cell.method.name,
            options=cell.method.options,
            network=self.network(cell),
            folder=handed.resolve(),
            forget_classes=cell.problem.forget_classes,
            recipe=self.recipe,
            mean=self.data.mean,
            std=self.data.std,
            seed=cell.seed,
            device=self._device,
            threads=torch.get_num_threads(),
            evaluate_every=self._plan.resolved.manifest.evaluate_every,
        )

    def _epochs(self, cell: Cell, run: MethodRun) -> tuple[EpochRecord, ...]:
        """Return the headline metrics after each saved epoch of an unlearner, whose weights are then removed."""

        def extract(snapshot: Snapshot, path: Path) -> None:
            self._extract(cell, snapshot.path, path, f"epoch {snapshot.epoch} of {_name(cell)}")

        return tuple(judge_epochs(run.snapshots, self._plan.metrics, extract))

    def _keeper(self, cell: Cell) -> Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]:
        """Return a function that keeps an unlearner's shareable results in the store."""
        store, problem = self._store, cell.problem
        method = [cell.method.distribution, cell.method.name, cell.method.version, TASK_PROTOCOL]
        base = [STORE_FORMAT, cell.original.id, problem.forget_classes, problem.limited_identity, cell.seed, method]

        def keep(
            name: str, settings: dict[str, Any], compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]
        ) -> tuple[dict[str, Tensor], dict[str, Any]]:
            identity = content_id(*base, name, settings)

            def build(folder: Path) -> dict[str, Any]:
                tensors, facts = compute()
                kept = {key: value.cpu().contiguous() for key, value in tensors.items()}
                with writing(folder / TENSORS):
                    (folder / TENSORS).write_bytes(save(kept))
                return {**facts, "settings": settings, "id": identity}

            folder = store.get(name, identity, build)
            return load((folder / TENSORS).read_bytes()), store.facts(name, identity)

        return keep

    def network(self, cell: Cell) -> Network:
        """Return the description from which the network of a cell's problem is built."""
        problem = cell.problem
        architecture = problem.architecture
        shape = input_shape(problem.info.shape, self.recipe)
        return Network(architecture.address, architecture.options, len(problem.info.class_names), shape, problem.start)

    def load(self, network: Network, weights: Path) -> nn.Module:
        """Return a network with the weights of a file, on the device and in evaluation mode."""
        model = load_network(network.unfilled(), weights)
        return model.to(self._device).eval()

    def _model_facts(
        self, seconds: dict[str, float], reads: dict[str, int], details: dict[str, Any], peak: int | None
    ) -> dict[str, Any]:
        made_on = {
            "device": device_name(self._device),
            "precision": resolve_precision(self.recipe.precision, self._device),
        }
        return {
            "seconds": seconds,
            "image_passes": reads,
            "details": details,
            "peak_memory_bytes": peak,
            "environment": made_on,
        }


def filled_judged(network: Network, method: JudgedMethod, say: Callable[[str], None]) -> nn.Module:
    """Return the network of a problem with weights that were unlearned elsewhere, whichever outputs these have.

    Args:
        network: The network of the problem's original model.
        method: The weights.
        say: Callback that receives a line if the weights had to be looked for in their file.

    Raises:
        InvalidFileError: If the weights do not fit.
    """
    classes = sorted(method.outputs)
    own = replace(network, num_classes=len(classes), start=None)
    model = own.filled(method.weights.in_order(method.outputs), say)
    if classes != list(range(network.num_classes)):
        model.register_buffer(OUTPUT_CLASSES, torch.tensor(classes))
    return model


def log_file(folder: Path, cell: Cell) -> Path:
    """Return the file below a folder for what the unlearner of a cell prints."""
    return folder / f"{cell.path.replace('/', '-').removesuffix('.json')}.txt"


def device_name(device: torch.device) -> str:
    """Return the name of a device in the form that records use."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor_name()} ({device.type})"


def _name(cell: Cell) -> str:
    return f"{cell.method.label}, seed {cell.seed}"
