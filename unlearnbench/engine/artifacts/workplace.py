"""What the makers of models and features share: the plan, the store, a device, and the data set's images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlearnbench.engine.processes.fork_server import ForkServer
from unlearnbench.engine.progress import Told
from unlearnbench.errors import InvalidFileError, PluginError, UnlearnBenchError
from unlearnbench.experiment.plan import Cell, Plan
from unlearnbench.machine import processor_name
from unlearnbench.models.build import Network, input_shape
from unlearnbench.models.classifier import load_network
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.recipe import read_recipe
from unlearnbench.models.training import resolve_precision
from unlearnbench.store import Store

MODEL_FILE = "model.safetensors"


class Workplace:
    """Where the artifacts of a plan are made.

    Args:
        plan: Plan to run.
        store: Store that keeps what is made.
        device: Device to compute on.
        told: Listener that follows the progress of the work.
        server: Server that starts the processes of unlearners and of trainings.

    Attributes:
        recipe: Training recipe of the references.
        devices: Devices that a training may use at the moment, this process's own first.
    """

    def __init__(self, plan: Plan, store: Store, device: torch.device, told: Told, server: ForkServer) -> None:
        self.plan = plan
        self.store = store
        self.device = device
        self.told = told
        self.server = server
        recipe = plan.cells[0].problem.recipe
        self.recipe = read_recipe({**recipe, "precision": plan.precision})
        self.devices: tuple[torch.device, ...] = (device,)

    @cached_property
    def data(self) -> LoadedData:
        """Images of the data set."""
        federation = self.plan.resolved.manifest.federation
        return LoadedData(self.plan.resolved.dataset, self.recipe, self.device, federation)

    def network(self, cell: Cell) -> Network:
        """Return the description from which the network of a cell's problem is built."""
        problem = cell.problem
        architecture = problem.architecture
        shape = input_shape(problem.info.shape, self.recipe)
        return Network(architecture.address, architecture.options, len(problem.info.class_names), shape, problem.start)

    def load(self, network: Network, weights: Path) -> nn.Module:
        """Return a network with the weights of a file, on the device and in evaluation mode."""
        model = load_network(network.unfilled(), weights)
        return model.to(self.device).eval()

    def count_by_kind(self, cell: Cell, positions: Tensor) -> dict[str, int]:
        """Return how many of the training images at some positions are of forget and of retain classes."""
        labels = self.data.train.labels[positions]
        forget = int(torch.isin(labels, torch.tensor(cell.problem.forget_classes, device=self.device)).sum())
        return {"forget": forget, "retain": len(positions) - forget}

    def model_facts(
        self, seconds: dict[str, float], reads: dict[str, int], details: dict[str, Any], peak: int | None
    ) -> dict[str, Any]:
        """Return what the store keeps of the making of a model.

        Args:
            seconds: Seconds by stage.
            reads: Image passes over forget and retain images.
            details: Whatever else is to stand in the record.
            peak: Most bytes that were held on the device; None if that is unknown.
        """
        made_on = {
            "device": device_name(self.device),
            "precision": resolve_precision(self.recipe.precision, self.device),
        }
        return {
            "seconds": seconds,
            "image_passes": reads,
            "details": details,
            "peak_memory_bytes": peak,
            "environment": made_on,
        }


def check_networks(place: Workplace) -> None:
    """Build a plan's networks and try the weights that its manifest names on them, before anything is trained.

    Raises:
        InvalidFileError: If a network cannot process the data set's images, or weights do not fit.
    """
    resolved = place.plan.resolved
    for cell in {cell.problem.id: cell for cell in place.plan.cells}.values():
        network = place.network(cell)
        with _faults_of("architecture.name", resolved.file):
            _try_building(network)
        if cell.problem.weights is not None:
            named = resolved.manifest.architecture.weights is not None
            with _faults_of("architecture.weights" if named else "references.original", resolved.file):
                network.filled(cell.problem.weights)
        if cell.problem.fdr is not None:
            with _faults_of("references.fdr", resolved.file):
                network.filled(cell.problem.fdr)
        if network.start is not None:
            with _faults_of("architecture.start", resolved.file):
                network.build(0, "original")


def _try_building(network: Network) -> None:
    try:
        network.unfilled()
    except UnlearnBenchError:
        raise
    # Any other exception of foreign code is left to the cells, which record it.
    except Exception:
        return


@contextlib.contextmanager
def _faults_of(key: str, file: str) -> Iterator[None]:
    """Name the key of the manifest that a fault comes from."""
    try:
        yield
    except (InvalidFileError, PluginError) as error:
        raise InvalidFileError(f"{file}: {key}: {error}") from error


def device_name(device: torch.device) -> str:
    """Return the name of a device in the form that records use."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor_name()} ({device.type})"


def title(cell: Cell) -> str:
    """Return what the progress display and messages call a cell."""
    return f"{cell.method.label}, seed {cell.seed}"
