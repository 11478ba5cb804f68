"""The models that methods make of Original, each in a process of its own, and those that were unlearned elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from unlearnbench.datasets.dataset import data_folder
from unlearnbench.datasets.storage import images_elsewhere
from unlearnbench.engine.artifacts.features import extract
from unlearnbench.engine.artifacts.workplace import MODEL_FILE, Workplace, title
from unlearnbench.engine.epochs import Snapshot, judge_epochs
from unlearnbench.engine.processes.method import Limits, MethodRun, run_method
from unlearnbench.engine.processes.unlearning import ORIGINAL, Assignment, peak_memory_bytes, start_measuring
from unlearnbench.errors import PluginError, TrainingFailedError, UnlearnBenchError
from unlearnbench.experiment.components import JudgedMethod
from unlearnbench.experiment.plan import Cell, unlearned_from
from unlearnbench.files import writing
from unlearnbench.models.build import Network
from unlearnbench.models.checkpoints import naming
from unlearnbench.models.classifier import OUTPUT_CLASSES, save_network
from unlearnbench.models.weights import weights_folder
from unlearnbench.registry.identity import STORE_FORMAT, TASK_PROTOCOL
from unlearnbench.results.records.record import EpochRecord
from unlearnbench.store import content_id

HANDED = "handed"
TENSORS = "tensors.safetensors"


class UnlearnedMaker:
    """Makes the unlearned models of a plan.

    Args:
        place: Where they are made.
        limits: What a run of an unlearner may use.
        output: Output folder, where `logs` holds what unlearners print.

    Attributes:
        epochs_of_failed: Epochs that unlearners completed before they failed, by the ids of their cells.
    """

    def __init__(self, place: Workplace, limits: Limits, output: Path) -> None:
        self._place = place
        self._limits = limits
        self._log_folder = output / "logs"
        # An unlearner reaches neither what others have made nor images beyond those that it is handed. It may start
        # from published weights.
        made = (output / name for name in ("store", "records", "logs", "slurm", "trials"))
        images = (entry for entry in data_folder().glob("*") if entry != weights_folder())
        self._closed = (*made, *images, *images_elsewhere())
        self.epochs_of_failed: dict[str, tuple[EpochRecord, ...]] = {}

    def unlearn(self, cell: Cell, original: Path, folder: Path) -> dict[str, Any]:
        """Let an unlearner work on a copy of the original in a process of its own, and save what it gives back."""
        handed, place = folder / HANDED, self._place
        assignment = self._assignment(cell, original, handed)
        run = MethodRun()
        try:
            with place.told.stage(title(cell), cell.image_passes):
                unlearned = run_method(
                    place.server,
                    assignment,
                    run,
                    limits=self._limits,
                    closed=self._closed,
                    log=log_file(self._log_folder, cell),
                    keep=self._keeper(cell),
                    told=place.told,
                )
        except UnlearnBenchError:
            # What it did before counts, if that can be judged at all.
            with contextlib.suppress(PluginError, TrainingFailedError):
                self.epochs_of_failed[cell.id] = self._epochs(cell, run)
            shutil.rmtree(handed, ignore_errors=True)
            raise
        save_network(unlearned, folder / MODEL_FILE)
        report = run.report
        facts = place.model_facts(
            {"unlearn": float(report["seconds"])},
            {kind: int(report["image_passes"][kind]) for kind in ("forget", "retain")},
            dict(report["details"]),
            report["peak_memory_bytes"],
        )
        facts["networks"] = int(report["networks"])
        epochs = self._epochs(cell, run)
        shutil.rmtree(handed, ignore_errors=True)
        evaluated = place.plan.resolved.manifest.evaluate_every
        if evaluated and sum(facts["image_passes"].values()) > 0 and not report["epochs_ended"]:
            facts["details"]["epochs"] = "the method does not say when an epoch ends; it should call task.end_epoch"
        return {**facts, "epochs": [epoch.model_dump() for epoch in epochs]}

    def fill_judged(self, cell: Cell, method: JudgedMethod, folder: Path) -> dict[str, Any]:
        """Save a model that a method elsewhere made; what it read is not known."""
        place = self._place
        start_measuring(place.device)
        started = time.monotonic()
        model = filled_judged(place.network(cell), method, place.store.say)
        save_network(model, folder / MODEL_FILE)
        details = {"weights": method.weights.label, "checkpoint": naming(method.weights.path, model)}
        seconds = {"load": time.monotonic() - started}
        return place.model_facts(seconds, {}, details, peak_memory_bytes(place.device))

    def _assignment(self, cell: Cell, original: Path, handed: Path) -> Assignment:
        """Put what an unlearner is given into a folder, and return what its process has to know."""
        place, data = self._place, self._place.data
        # An interrupted run may have left some of it behind.
        shutil.rmtree(handed, ignore_errors=True)
        with writing(handed):
            handed.mkdir()
            shutil.copyfile(original / MODEL_FILE, handed / ORIGINAL)
            data.write_limited(handed, cell.problem.limited(cell.seed), cell.seed)
        return Assignment(
            unlearner=cell.method.name,
            options=cell.method.options,
            network=place.network(cell),
            folder=handed.resolve(),
            forget_classes=cell.problem.forget_classes,
            recipe=place.recipe,
            mean=data.mean,
            std=data.std,
            seed=cell.seed,
            device=place.device,
            threads=torch.get_num_threads(),
            evaluate_every=place.plan.resolved.manifest.evaluate_every,
        )

    def _epochs(self, cell: Cell, run: MethodRun) -> tuple[EpochRecord, ...]:
        """Return the headline metrics after each saved epoch of an unlearner, whose weights are then removed."""

        def judged(snapshot: Snapshot, path: Path) -> None:
            extract(self._place, cell, snapshot.path, path, f"epoch {snapshot.epoch} of {title(cell)}")

        return tuple(judge_epochs(run.snapshots, self._place.plan.metrics, judged))

    def _keeper(self, cell: Cell) -> Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]:
        """Return a function that keeps an unlearner's shareable results in the store."""
        store, problem = self._place.store, cell.problem
        method = [cell.method.distribution, cell.method.name, cell.method.version, TASK_PROTOCOL]
        start = unlearned_from(problem, cell.original)
        base = [STORE_FORMAT, *start, problem.forget_classes, problem.limited_identity, cell.seed, method]

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
