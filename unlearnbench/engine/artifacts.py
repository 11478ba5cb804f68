"""The models and features that a cell needs, made or found in the store: original, FDR, and the unlearned model."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unlearnbench.engine.epochs import Snapshot, Snapshots, judge_epochs
from unlearnbench.engine.progress import Told
from unlearnbench.errors import InvalidFileError, PluginError, TrainingFailedError, UnlearnBenchError
from unlearnbench.experiment.plan import Cell, Plan, ReferenceModel
from unlearnbench.machine import peak_memory, processor_name, reset_peak_memory
from unlearnbench.metrics.feature_writer import write_features
from unlearnbench.metrics.features import FEATURE_FILE
from unlearnbench.models.build import Network, input_shape
from unlearnbench.models.classifier import OUTPUT_CLASSES, classifier, load_network, output_classes, save_network
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.random_state import own_random_state
from unlearnbench.models.recipe import read_recipe
from unlearnbench.models.training import ReferenceTraining, resolve_precision
from unlearnbench.models.weights import Weights
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.identity import STORE_FORMAT, TASK_PROTOCOL
from unlearnbench.registry.options import call_arguments
from unlearnbench.results.record import EpochRecord
from unlearnbench.seeds import derived_seed
from unlearnbench.store import CHECKPOINT, Store, content_id, file_hash
from unlearnbench.terms import REFERENCES
from unlearnbench.unlearners.network_count import networks_that_run
from unlearnbench.unlearners.task import UnlearningTask

MODEL_FILE = "model.safetensors"
EPOCHS = "epochs"


class Maker:
    """Makes the models and features of a plan's cells, each of them once because the store keeps them.

    Args:
        plan: Plan to run.
        store: Store that keeps what is made.
        device: Device to compute on.
        told: Listener that follows the progress of the work.

    Attributes:
        recipe: Training recipe of the references.
        broken: Reasons why reference models could not be made, by their names in the store.
        epochs_of_failed: Epochs that unlearners completed before they failed, by the ids of their cells.
    """

    def __init__(self, plan: Plan, store: Store, device: torch.device, told: Told) -> None:
        self._plan = plan
        self._store = store
        self._device = device
        self._told = told
        recipe = plan.cells[0].problem.recipe
        self.recipe = read_recipe({**recipe, "precision": plan.precision})
        self.broken: dict[str, str] = {}
        self.epochs_of_failed: dict[str, tuple[EpochRecord, ...]] = {}

    @cached_property
    def data(self) -> LoadedData:
        """Images of the data set."""
        return LoadedData(self._plan.resolved.dataset, self.recipe, self._device)

    def check_networks(self) -> None:
        """Build the manifest's networks and try the weights that it names on them, before anything is trained.

        Raises:
            InvalidFileError: If a network cannot process the data set's images, or weights do not fit.
        """
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
        limited = self.data.limited_positions(cell.problem.limited_counts, cell.seed)
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
        model = self.network(cell).build(reference.seed, reference.role).to(self._device)
        labels = self.data.train.labels
        wanted = torch.isin(labels, torch.tensor(reference.classes, device=self._device))
        positions = torch.nonzero(wanted).flatten()
        self._start_measuring()
        name = f"training {REFERENCES[reference.role]}, seed {reference.seed}"
        with self._told.stage(name, reference.image_passes), own_random_state(0):
            training = ReferenceTraining(
                model,
                self.data.train,
                positions,
                self.recipe,
                reference.seed,
                reference.role,
                self._told.advance,
                self._store.say,
            )
            seconds = training.train(folder / CHECKPOINT)
        save_network(model, folder / MODEL_FILE)
        forget = int(
            torch.isin(labels[positions], torch.tensor(cell.problem.forget_classes, device=self._device)).sum()
        )
        epochs = self.recipe.epochs
        reads = {"forget": epochs * forget, "retain": epochs * (len(positions) - forget)}
        details = {"full_size_passes": reference.full_size_passes} if self.recipe.resolutions else {}
        return self._model_facts({"train": seconds}, reads, details)

    def _fill(self, cell: Cell, weights: Weights, folder: Path) -> dict[str, Any]:
        """Save a model that someone else has trained."""
        self._start_measuring()
        started = time.monotonic()
        save_network(self.network(cell).filled(weights), folder / MODEL_FILE)
        reads = {"forget": 0, "retain": 0}
        return self._model_facts({"load": time.monotonic() - started}, reads, {"weights": weights.label})

    def _unlearn(self, cell: Cell, original: Path, folder: Path) -> dict[str, Any]:
        """Let an unlearner work on a copy of the original, and save what it returns."""
        method = cell.method
        function: Callable[..., nn.Module] = find("unlearners", method.name).load()
        arguments = call_arguments(function, method.options)
        snapshots = self._snapshots(folder)
        network, problem = self.network(cell), cell.problem
        model = self.load(network, original / MODEL_FILE)
        task = UnlearningTask(
            self.data.limited(problem.limited_counts, cell.seed),
            problem.forget_classes,
            network.num_classes,
            self.recipe,
            cell.seed,
            lambda: network.build(cell.seed, "original"),
            keep=self._keeper(cell),
            advance=self._told.advance,
            watcher=snapshots,
        )
        self._start_measuring()
        try:
            with (
                self._told.stage(f"{method.label}, seed {cell.seed}", cell.image_passes),
                own_random_state(derived_seed(cell.seed, "unlearner")),
                networks_that_run(model) as networks,
            ):
                started = time.monotonic()
                unlearned = function(model, task, **arguments)
                reads = task.image_passes
                seconds = time.monotonic() - started + task.shared_seconds - (snapshots.seconds if snapshots else 0.0)
            check_unlearned(unlearned, method.name, network.num_classes)
        except (Exception, SystemExit):
            self.epochs_of_failed[cell.id] = self._epochs(cell, snapshots)
            raise
        save_network(unlearned, folder / MODEL_FILE)
        facts = {**self._model_facts({"unlearn": seconds}, reads, task.details), "networks": networks.number}
        epochs = self._epochs(cell, snapshots)
        if snapshots is not None and reads["forget"] + reads["retain"] > 0 and not snapshots.ended:
            facts["details"]["epochs"] = "the method does not say when an epoch ends; it should call task.end_epoch"
        return {**facts, "epochs": [epoch.model_dump() for epoch in epochs]}

    def _snapshots(self, folder: Path) -> Snapshots | None:
        """Return the snapshots of an unlearner's epochs below a folder, or None if the manifest asks for none."""
        every = self._plan.resolved.manifest.evaluate_every
        # An interrupted run may have left some snapshots behind.
        shutil.rmtree(folder / EPOCHS, ignore_errors=True)
        return Snapshots(folder / EPOCHS, every) if every else None

    def _epochs(self, cell: Cell, snapshots: Snapshots | None) -> tuple[EpochRecord, ...]:
        """Return the headline metrics after each epoch of a finished unlearner, and remove the snapshots."""
        if snapshots is None:
            return ()

        def extract(snapshot: Snapshot, path: Path) -> None:
            self._extract(cell, snapshot.path, path, f"epoch {snapshot.epoch} of {_name(cell)}")

        epochs = tuple(judge_epochs(snapshots, self._plan.metrics, extract))
        snapshots.remove()
        return epochs

    def _keeper(self, cell: Cell) -> Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]:
        """Return a function that keeps an unlearner's shareable results in the store."""
        store, problem = self._store, cell.problem
        method = [cell.method.distribution, cell.method.name, cell.method.version, TASK_PROTOCOL]
        base = [STORE_FORMAT, cell.original.id, problem.forget_classes, problem.limited_counts, cell.seed, method]

        def keep(
            name: str, settings: dict[str, Any], compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]
        ) -> tuple[dict[str, Tensor], dict[str, Any]]:
            identity = content_id(*base, name, settings)

            def build(folder: Path) -> dict[str, Any]:
                tensors, facts = compute()
                kept = {key: value.cpu().contiguous() for key, value in tensors.items()}
                save_file(kept, folder / "tensors.safetensors")
                return {**facts, "settings": settings, "id": identity}

            folder = store.get(name, identity, build)
            return load_file(folder / "tensors.safetensors"), store.facts(name, identity)

        return keep

    def network(self, cell: Cell) -> Network:
        """Return the description from which the network of a cell's problem is built."""
        problem = cell.problem
        architecture = problem.architecture
        shape = input_shape(problem.info.shape, self.recipe)
        return Network(architecture.name, architecture.options, len(problem.info.class_names), shape, problem.start)

    def load(self, network: Network, weights: Path) -> nn.Module:
        """Return a network with the weights of a file, on the device and in evaluation mode."""
        model = load_network(network.unfilled(), weights)
        return model.to(self._device).eval()

    def _start_measuring(self) -> None:
        reset_peak_memory()
        if self._device.type == "cuda":
            # Statistics can be reset only once CUDA is initialised, and this may be the first use of the GPU.
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats(self._device)

    def _model_facts(self, seconds: dict[str, float], reads: dict[str, int], details: dict[str, Any]) -> dict[str, Any]:
        peak = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else peak_memory()
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


def device_name(device: torch.device) -> str:
    """Return the name of a device in the form that records use."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor_name()} ({device.type})"


def check_unlearned(model: Any, name: str, num_classes: int) -> None:
    """Check what an unlearner returned.

    Raises:
        PluginError: If it is not a model, or its outputs do not stand for classes.
        TrainingFailedError: If a parameter is not finite.
    """
    if not isinstance(model, nn.Module):
        raise PluginError(f"{name} returned {type(model).__name__}, not the unlearned torch.nn.Module")
    outputs, classes = classifier(model).out_features, len(output_classes(model))
    if outputs != classes:
        raise PluginError(f"{name} returned a model with {outputs} outputs that stand for {classes} classes")
    if outputs != num_classes and not hasattr(model, OUTPUT_CLASSES):
        raise PluginError(
            f"{name} returned a model with {outputs} outputs for {num_classes} classes; "
            "keep_outputs and add_output of unlearnbench.models.classifier change them"
        )
    for key, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TrainingFailedError(f"{name} returned a model whose parameter {key} is not finite")


def _name(cell: Cell) -> str:
    return f"{cell.method.label}, seed {cell.seed}"
