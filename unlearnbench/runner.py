"""Runs the cells of a plan: what a cell needs is made or found in the store, then its record."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unlearnbench.environment import cores, environment, peak_memory, processor_name, reset_peak_memory
from unlearnbench.epochs import judge_epochs
from unlearnbench.errors import NotApplicable, PluginError, TrainingFailedError, UnlearnBenchError
from unlearnbench.extraction import write_features
from unlearnbench.features import FEATURE_FILE, FeatureFile, open_features
from unlearnbench.judging import Material, judge
from unlearnbench.live_model import LiveModel
from unlearnbench.loading import LoadedData
from unlearnbench.manifest import TrainingRecipe
from unlearnbench.measurement import Costs, References
from unlearnbench.naming import content_id
from unlearnbench.network_count import networks_that_run
from unlearnbench.networks import OUTPUT_CLASSES, classifier, load_network, output_classes, save_network
from unlearnbench.options import call_arguments
from unlearnbench.plan import Cell, Plan, ReferenceModel
from unlearnbench.progress import Told
from unlearnbench.randomness import own_random_state
from unlearnbench.record import (
    EpochRecord,
    FileRecord,
    Measured,
    MetricRecord,
    Record,
    Status,
    make_record,
)
from unlearnbench.registry import find
from unlearnbench.snapshots import Snapshots
from unlearnbench.split import derived_seed
from unlearnbench.store import CHECKPOINT, Store, file_hash
from unlearnbench.task import UnlearningTask
from unlearnbench.training import Network, ReferenceTraining, input_shape, resolve_precision
from unlearnbench.weights import Weights

MODEL_FILE = "model.safetensors"
# Images up to this many values give a CPU's threads nothing to share: they only wait for each other, the more so on a
# busy machine. One thread is as fast, and makes the result the same whatever the number of cores.
SMALL_IMAGE = 256
EPOCHS = "epochs"


# What the user allows: OMP_NUM_THREADS, or as many as torch finds right for this machine.
ALLOWED_THREADS = torch.get_num_threads()


def thread_count(device: torch.device, shape: tuple[int, ...], jobs: int) -> int:
    """Return how many threads a process computes with.

    Args:
        device: Where it computes.
        shape: Shape of the stored images.
        jobs: How many such processes share the cores.
    """
    if device.type == "cpu" and math.prod(shape) <= SMALL_IMAGE:
        return 1
    return ALLOWED_THREADS if jobs == 1 else max(1, min(ALLOWED_THREADS, cores() // jobs))


class Runner:
    """Runs the cells of a plan.

    Args:
        plan: What to run.
        output: The output folder.
        store: Its store.
        device: Where to compute.
        told: Is told how the work goes on.
        jobs: How many processes the run has; this is one of them.

    Attributes:
        broken: Why reference models that cannot be made failed, by their names in the store.
    """

    def __init__(self, plan: Plan, output: Path, store: Store, device: torch.device, told: Told, jobs: int = 1) -> None:
        self.plan = plan
        self.output = output
        self.store = store
        self.device = device
        self.told = told
        self.jobs = jobs
        self.recipe = TrainingRecipe(**{**plan.cells[0].problem.recipe, **_tuples(plan.cells[0].problem.recipe)})
        self.broken: dict[str, str] = {}
        torch.set_num_threads(thread_count(device, plan.cells[0].problem.info.shape, jobs))
        self._epochs_of_failed: dict[str, tuple[EpochRecord, ...]] = {}

    @cached_property
    def data(self) -> LoadedData:
        """The data set's images."""
        return LoadedData(self.plan.resolved.dataset, self.recipe, self.device)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What this run runs on."""
        cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if cuda else f"{processor_name()} ({self.device.type})"
        precision = resolve_precision(self.recipe.precision, self.device)
        # Seconds were measured beside the other processes.
        return {**environment(name, precision, torch.get_num_threads()), "jobs": self.jobs}

    def check_weights(self) -> None:
        """Try all weights that the manifest names on their networks, before anything is trained.

        Raises:
            InvalidFileError: If some do not fit.
        """
        for cell in {cell.problem.id: cell for cell in self.plan.cells}.values():
            network = self._network(cell)
            if cell.problem.weights is not None:
                network.filled(cell.problem.weights)
            if network.start is not None:
                network.build(0, "original")

    def run_cell(self, cell: Cell) -> Record:
        """Make everything a cell needs and return its record; a fault ends in a record too."""
        try:
            return self._judge(cell, self._features(cell))
        # Unlearners are foreign code: whatever one raises must not stop the others.
        except (Exception, SystemExit) as error:
            return self._fault(cell, error)

    def make(self, cell: Cell) -> Record | None:
        """Make a cell's model and features; return its record only if that fails."""
        try:
            self._features(cell)
        except (Exception, SystemExit) as error:
            return self._fault(cell, error)
        return None

    def _fault(self, cell: Cell, error: Exception | SystemExit) -> Record:
        """Return the record of a cell that raised an exception."""
        if isinstance(error, NotApplicable):
            return self._record(cell, "not_applicable", str(error))
        reason = str(error)
        if not isinstance(error, UnlearnBenchError):
            reason = _reason(error)
            log = self.output / "logs" / f"{cell.path.replace('/', '-').removesuffix('.json')}.txt"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("".join(traceback.format_exception(error)))
            self.told.say(f"{cell.method.label}, seed {cell.seed}: the traceback is in {log}")
        return self._record(cell, "failed", reason, epochs=self._epochs_of_failed.get(cell.id, ()))

    def failed(self, cell: Cell, reason: str) -> Record:
        """Return the record of a cell that ended without one of its own."""
        return self._record(cell, "failed", reason)

    def _judge(self, cell: Cell, folder: Path) -> Record:
        """Compute the metrics from the features alone."""
        references = self._references(cell)
        facts = self.store.facts("models", cell.model_id)
        evaluation = self.store.facts("features", cell.features_id)
        started = time.monotonic()
        with contextlib.ExitStack() as opened, own_random_state(derived_seed(cell.seed, "metrics")):
            features = opened.enter_context(open_features(folder / FEATURE_FILE))
            metrics = judge(self.plan.metrics, self._material(cell, features, references, opened))
        seconds = {**facts["seconds"], **evaluation["seconds"], "metrics": time.monotonic() - started}
        model = self.store.entry("models", cell.model_id) / MODEL_FILE
        files = {
            name: FileRecord(path=file.relative_to(self.output).as_posix(), sha256=file_hash(file))
            for name, file in {"model": model, "features": folder / FEATURE_FILE}.items()
        }
        return self._record(
            cell,
            "done",
            None,
            metrics=metrics,
            details=facts["details"],
            image_reads=facts["image_reads"],
            files=files,
            seconds=seconds,
            peak=facts["peak_memory_bytes"],
            speed_up=self._speed_up(cell, references),
            epochs=tuple(EpochRecord(**epoch) for epoch in facts.get("epochs", ())),
            networks=facts.get("networks"),
        )

    def _speed_up(self, cell: Cell, references: tuple[Path, Path] | str) -> float | None:
        """Return how many times longer the training of FDR took, None where that cannot be said."""
        if isinstance(references, str):
            return None
        own, retrained = (
            sum(self.store.facts("models", name)["seconds"].get(stage, 0.0) for stage in ("train", "unlearn"))
            for name in (cell.model_id, cell.retrained.id)
        )
        return retrained / own if own > 0 and retrained > 0 else None

    def _references(self, cell: Cell) -> tuple[Path, Path] | str:
        """Return the folders with Original's and FDR's features of a cell's problem and seed, or why one is missing."""
        folders = []
        for name in ("original", "fdr"):
            reference = self._reference_cells[cell.problem.id, cell.seed, name]
            try:
                folders.append(self._features(reference))
            # Whatever it is, the reference's own cell says so; the metrics without a reference stand.
            except (Exception, SystemExit) as error:
                return f"{name} of seed {cell.seed} failed: {_first_line(str(error))}"
        return folders[0], folders[1]

    @cached_property
    def _reference_cells(self) -> dict[tuple[str, int, str], Cell]:
        cells = (cell for cell in self.plan.cells if cell.is_reference)
        return {(cell.problem.id, cell.seed, cell.method.name): cell for cell in cells}

    def _material(
        self,
        cell: Cell,
        features: FeatureFile,
        references: tuple[Path, Path] | str,
        opened: contextlib.ExitStack,
    ) -> Material:
        """Return what the metrics of a cell can ask for."""
        network, problem = self._network(cell), cell.problem
        model = LiveModel(
            load=lambda: self._load(network, self.store.entry("models", cell.model_id) / MODEL_FILE),
            limited=lambda: self.data.limited(problem.limited_counts, cell.seed),
            test=lambda: self.data.test,
            original=lambda: self._load(network, self._reference_folder(cell, cell.original) / MODEL_FILE),
        )
        if isinstance(references, str):
            return Material(features, references, references, model)
        original, retrained = (opened.enter_context(open_features(path / FEATURE_FILE)) for path in references)
        reads = [self.store.facts("models", name)["image_reads"] for name in (cell.model_id, cell.retrained.id)]
        return Material(features, References(original, retrained), Costs(*reads), model)

    def _record(
        self,
        cell: Cell,
        status: Status,
        reason: str | None,
        *,
        metrics: dict[str, MetricRecord] | None = None,
        details: dict[str, Any] | None = None,
        image_reads: dict[str, int] | None = None,
        files: dict[str, FileRecord] | None = None,
        seconds: dict[str, float] | None = None,
        peak: int | None = None,
        speed_up: float | None = None,
        epochs: tuple[EpochRecord, ...] = (),
        networks: int | None = None,
    ) -> Record:
        finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        return make_record(
            self.plan,
            cell,
            status=status,
            reason=reason,
            metrics=metrics or {},
            details=details or {},
            image_reads=image_reads or {},
            files=files or {},
            environment=self.environment,
            measured=Measured(
                finished_at=finished_at, seconds=seconds or {}, peak_memory_bytes=peak, speed_up_seconds=speed_up
            ),
            epochs=epochs,
            networks=networks,
        )

    def _features(self, cell: Cell) -> Path:
        """Return the store's folder with the cell's feature file."""
        # The model too must be there and whole: the record rests on both.
        trained = self._model_folder(cell)

        def build(folder: Path) -> dict[str, Any]:
            weights = trained / MODEL_FILE
            started = time.monotonic()
            self._extract(cell, weights, folder / FEATURE_FILE, f"features of {_name(cell)}")
            return {"seconds": {"features": time.monotonic() - started}}

        return self.store.get("features", cell.features_id, build)

    def _extract(self, cell: Cell, weights: Path, path: Path, stage: str) -> None:
        """Write the features of the weights in a file."""
        model = self._load(self._network(cell), weights)
        limited = self.data.limited_positions(cell.problem.limited_counts, cell.seed)
        with self.told.stage(stage, len(self.data.test) + len(self.data.train)):
            write_features(
                path,
                model,
                (self.data.test, self.data.test_part.ids),
                (self.data.train, self.data.train_part.ids),
                limited,
                self._attributes(cell, weights),
                self.told.advance,
            )

    def _attributes(self, cell: Cell, weights: Path) -> dict[str, Any]:
        """Return what a feature file says about itself."""
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
            "feature_dtype": self.plan.resolved.manifest.feature_dtype,
        }

    def _model_folder(self, cell: Cell) -> Path:
        """Return the store's folder with the model that a cell judges."""
        if cell.reference is not None:
            return self._reference_folder(cell, cell.reference)
        original = self._reference_folder(cell, cell.original)
        return self.store.get("models", cell.model_id, lambda folder: self._unlearn(cell, original, folder))

    def _reference_folder(self, cell: Cell, reference: ReferenceModel) -> Path:
        if reference.id in self.broken:
            raise TrainingFailedError(self.broken[reference.id])
        try:
            return self.store.get("models", reference.id, lambda folder: self._train(cell, reference, folder))
        except TrainingFailedError as error:
            # Its other methods need not train it again to fail the same way.
            self.broken[reference.id] = f"the {reference.role} model of seed {reference.seed} failed: {error}"
            raise

    def _train(self, cell: Cell, reference: ReferenceModel, folder: Path) -> dict[str, Any]:
        """Train a reference model and save it."""
        if reference.weights is not None:
            return self._fill(cell, reference.weights, folder)
        model = self._network(cell).build(reference.seed, reference.role).to(self.device)
        labels = self.data.train.labels
        wanted = torch.isin(labels, torch.tensor(reference.classes, device=self.device))
        positions = torch.nonzero(wanted).flatten()
        self._start_measuring()
        name = f"training {reference.role} model, seed {reference.seed}"
        with self.told.stage(name, reference.image_passes), own_random_state(0):
            training = ReferenceTraining(
                model,
                self.data.train,
                positions,
                self.recipe,
                reference.seed,
                reference.role,
                self.told.advance,
                self.store.say,
            )
            seconds = training.train(folder / CHECKPOINT)
        save_network(model, folder / MODEL_FILE)
        forget = int(torch.isin(labels[positions], torch.tensor(cell.problem.forget_classes, device=self.device)).sum())
        epochs = self.recipe.epochs
        reads = {"forget": epochs * forget, "retain": epochs * (len(positions) - forget)}
        return self._model_facts({"train": seconds}, reads, {})

    def _fill(self, cell: Cell, weights: Weights, folder: Path) -> dict[str, Any]:
        """Save a model that someone else has trained."""
        self._start_measuring()
        started = time.monotonic()
        save_network(self._network(cell).filled(weights), folder / MODEL_FILE)
        reads = {"forget": 0, "retain": 0}
        return self._model_facts({"load": time.monotonic() - started}, reads, {"weights": weights.label})

    def _unlearn(self, cell: Cell, original: Path, folder: Path) -> dict[str, Any]:
        """Let a method work on a copy of the original and save what it returns."""
        method = cell.method
        function: Callable[..., nn.Module] = find("unlearners", method.name).load()
        arguments = call_arguments(function, method.options)
        snapshots = self._snapshots(folder)
        network, problem = self._network(cell), cell.problem
        model = self._load(network, original / MODEL_FILE)
        task = UnlearningTask(
            self.data.limited(problem.limited_counts, cell.seed),
            problem.forget_classes,
            network.num_classes,
            self.recipe,
            cell.seed,
            lambda: network.build(cell.seed, "original"),
            keep=self._keeper(cell),
            advance=self.told.advance,
            watcher=snapshots,
        )
        task.watch(model)
        self._start_measuring()
        try:
            with (
                self.told.stage(f"{method.label}, seed {cell.seed}", cell.image_passes),
                own_random_state(derived_seed(cell.seed, "unlearner")),
                networks_that_run(model) as networks,
            ):
                started = time.monotonic()
                unlearned = function(model, task, **arguments)
                reads = task.image_reads
                seconds = time.monotonic() - started + task.shared_seconds - (snapshots.seconds if snapshots else 0.0)
            check_unlearned(unlearned, method.name, network.num_classes)
        except (Exception, SystemExit):
            self._epochs_of_failed[cell.id] = self._epochs(cell, snapshots, None)
            raise
        save_network(unlearned, folder / MODEL_FILE)
        facts = {**self._model_facts({"unlearn": seconds}, reads, task.details), "networks": networks.number}
        epochs = self._epochs(cell, snapshots, unlearned)
        if snapshots is not None and snapshots.taken and not epochs:
            facts["details"]["epochs"] = "the task does not know the returned model; the method should call task.watch"
        return {**facts, "epochs": [epoch.model_dump() for epoch in epochs]}

    def _snapshots(self, folder: Path) -> Snapshots | None:
        """Return what keeps a method's epochs below a folder, None if the manifest does not ask for them."""
        every = self.plan.resolved.manifest.evaluate_every
        # An interrupted run may have left some.
        shutil.rmtree(folder / EPOCHS, ignore_errors=True)
        return Snapshots(folder / EPOCHS, every) if every else None

    def _epochs(self, cell: Cell, snapshots: Snapshots | None, model: nn.Module | None) -> tuple[EpochRecord, ...]:
        """Return the headline metrics after each epoch of a method that is done, and remove the snapshots."""
        if snapshots is None:
            return ()

        def extract(weights: Path, path: Path) -> None:
            self._extract(cell, weights, path, f"epochs of {_name(cell)}")

        epochs = tuple(judge_epochs(snapshots.of(model), self.plan.metrics, extract))
        snapshots.remove()
        return epochs

    def _keeper(self, cell: Cell) -> Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]:
        """Return what keeps a method's shareable results in the store."""
        store, problem = self.store, cell.problem
        base = [cell.original.id, problem.forget_classes, problem.limited_counts, cell.seed]

        def keep(
            name: str,
            settings: dict[str, Any],
            compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]],
            source: str,
        ) -> tuple[dict[str, Tensor], dict[str, Any]]:
            identity = content_id(*base, name, settings, source)

            def build(folder: Path) -> dict[str, Any]:
                tensors, facts = compute()
                kept = {key: value.cpu().contiguous() for key, value in tensors.items()}
                save_file(kept, folder / "tensors.safetensors")
                return {**facts, "settings": settings, "id": identity}

            folder = store.get(name, identity, build)
            return load_file(folder / "tensors.safetensors"), store.facts(name, identity)

        return keep

    def _network(self, cell: Cell) -> Network:
        """Return how to build the network of a cell's problem."""
        problem = cell.problem
        architecture = problem.architecture
        shape = input_shape(problem.info.shape, self.recipe)
        return Network(architecture.name, architecture.options, len(problem.info.class_names), shape, problem.start)

    def _load(self, network: Network, weights: Path) -> nn.Module:
        model = load_network(network.unfilled(), weights)
        return model.to(self.device).eval()

    def _start_measuring(self) -> None:
        reset_peak_memory()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def _model_facts(self, seconds: dict[str, float], reads: dict[str, int], details: dict[str, Any]) -> dict[str, Any]:
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else peak_memory()
        return {"seconds": seconds, "image_reads": reads, "details": details, "peak_memory_bytes": peak}


def check_unlearned(model: Any, name: str, num_classes: int) -> None:
    """Check what an unlearner returned.

    Raises:
        PluginError: If it is no model, or one whose outputs do not stand for classes.
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
            "keep_outputs and add_output of unlearnbench.networks change them"
        )
    for key, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TrainingFailedError(f"{name} returned a model whose parameter {key} is not finite")


def _tuples(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) for key, value in recipe.items() if isinstance(value, list)}


def _reason(error: BaseException) -> str:
    """Return why a cell failed, for an exception of foreign code."""
    # Python's own error has no text, torch's is a page on allocators.
    told = "out of memory: " if isinstance(error, MemoryError | torch.OutOfMemoryError) else ""
    return f"{told}{type(error).__name__}: {_first_line(str(error))}".removesuffix(": ")


def _first_line(text: str) -> str:
    return re.split(r"\n", text.strip(), maxsplit=1)[0]


def _name(cell: Cell) -> str:
    return f"{cell.method.label}, seed {cell.seed}"
