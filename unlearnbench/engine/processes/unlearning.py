"""One run of an unlearner, inside the process that it has for itself.

The process is handed the original model and the limited data in files and holds nothing else. It is foreign code from
here on: what it sends to the process that judges is JSON text and tensors, never pickled objects.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from unlearnbench.documents import parsed_json
from unlearnbench.errors import NotApplicable, PluginError, TrainingFailedError, UnlearnBenchError
from unlearnbench.machine import peak_memory, reset_peak_memory
from unlearnbench.models.build import Network
from unlearnbench.models.classifier import OUTPUT_CLASSES, classifier, load_network, output_classes, save_network
from unlearnbench.models.device_data import limited_batches
from unlearnbench.models.random_state import own_random_state
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.options import call_arguments
from unlearnbench.seeds import derived_seed
from unlearnbench.unlearners.network_count import networks_that_run
from unlearnbench.unlearners.task import UnlearningTask

ORIGINAL, UNLEARNED = "original.safetensors", "unlearned.safetensors"
# Progress is reported at this interval, since a message for every batch would cost more than it is worth.
TELL_SECONDS = 0.2
# A reason stands in tables and on pages; the log has all of it.
LONGEST_REASON = 1000


@dataclass(frozen=True)
class Assignment:
    """What a process needs to run an unlearner once.

    Attributes:
        unlearner: Name of the unlearner.
        options: Its checked options.
        network: Network of the problem.
        folder: Folder with the original model and the limited images, where the unlearned model goes.
        forget_classes: Indices of the forget classes, ascending.
        recipe: Training recipe of the original, with its precision resolved.
        mean: Value subtracted from each channel.
        std: Value that each channel is divided by.
        seed: Seed of the run.
        device: Device to compute on.
        threads: Number of threads to compute with.
        evaluate_every: Number of epochs after which the model is saved; 0 saves it only at the end.
    """

    unlearner: str
    options: dict[str, Any]
    network: Network
    folder: Path
    forget_classes: tuple[int, ...]
    recipe: TrainingRecipe
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int
    device: torch.device
    threads: int
    evaluate_every: int


def epoch_file(folder: Path, epoch: int) -> Path:
    """Return the file for the weights after an epoch."""
    return folder / f"epoch-{epoch}.safetensors"


def unlearn(connection: Connection, assignment: Assignment) -> None:
    """Run an unlearner, write the unlearned weights, and send how it went."""
    link = _Link(connection, assignment)
    try:
        outcome = _run(link, assignment)
        _check_is_kept(outcome)
    except NotApplicable as error:
        outcome = {"not_applicable": _text(error)}
    except UnlearnBenchError as error:
        outcome = {"failed": _text(error)}
    # An unlearner is foreign code and may raise anything, the end of the interpreter included.
    except BaseException as error:
        traceback.print_exc()
        outcome = {"failed": reason_of(error)}
    link.send(outcome)


def _check_is_kept(outcome: dict[str, Any]) -> None:
    """Check that the store and the record can hold what a method reported, and be read again."""
    try:
        parsed_json(json.dumps(outcome))
    except (TypeError, ValueError) as error:
        raise PluginError(f"what it gave to task.report cannot be kept: {error}") from error


def _run(link: _Link, assignment: Assignment) -> dict[str, Any]:
    torch.set_num_threads(assignment.threads)
    device, name = assignment.device, assignment.unlearner
    function: Callable[..., nn.Module] = find("unlearners", name).load()
    arguments = call_arguments(function, assignment.options)
    network = assignment.network
    model = load_network(network.unfilled(), assignment.folder / ORIGINAL).to(device).eval()
    task = UnlearningTask(
        limited_batches(assignment.folder, assignment.mean, assignment.std, assignment.recipe, device),
        assignment.forget_classes,
        network.num_classes,
        assignment.recipe,
        assignment.seed,
        lambda: network.build(assignment.seed, "original"),
        keep=link.keep,
        advance=link.advance,
        expect=link.expect,
        watcher=link if assignment.evaluate_every else None,
    )
    start_measuring(device)
    with own_random_state(derived_seed(assignment.seed, "unlearner")), networks_that_run(model) as networks:
        started = monotonic()
        unlearned = function(model, task, **arguments)
        reads = task.image_passes
        seconds = monotonic() - started + task.shared_seconds - link.saving_seconds
    check_unlearned(unlearned, name, network.num_classes)
    save_network(unlearned, assignment.folder / UNLEARNED)
    return {
        "done": {
            "seconds": seconds,
            "image_passes": reads,
            "details": task.details,
            "networks": networks.number,
            "epochs_ended": link.epochs_ended,
            "peak_memory_bytes": peak_memory_bytes(device),
        }
    }


class _Link:
    """What the process of an unlearner asks of the one that judges it."""

    def __init__(self, connection: Connection, assignment: Assignment) -> None:
        self.saving_seconds = 0.0
        self.epochs_ended = 0
        self._connection = connection
        self._folder = assignment.folder
        self._every = assignment.evaluate_every
        self._untold = 0
        self._told = monotonic()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, after the images that were counted before it."""
        if self._untold:
            images, self._untold = self._untold, 0
            self._connection.send_bytes(json.dumps({"advance": images}).encode())
        self._connection.send_bytes(json.dumps(message).encode())

    def advance(self, images: int) -> None:
        """Count images that go through the network."""
        self._untold += images
        if monotonic() - self._told > TELL_SECONDS:
            self._told = monotonic()
            images, self._untold = self._untold, 0
            self._connection.send_bytes(json.dumps({"advance": images}).encode())

    def expect(self, images: int) -> None:
        """Say how many images will be read from here on."""
        self.send({"expect": images})

    def epoch_ended(self, model: nn.Module, image_passes: dict[str, int]) -> None:
        """Save the model at the end of an epoch, if it is one that is saved."""
        self.epochs_ended += 1
        if self.epochs_ended % self._every:
            return
        started = monotonic()
        save_network(model, epoch_file(self._folder, self.epochs_ended))
        self.send({"epoch": self.epochs_ended, "image_passes": image_passes})
        self.saving_seconds += monotonic() - started

    def keep(
        self, name: str, settings: dict[str, Any], compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and facts that are kept in the store, computed now if they are not there."""
        self.send({"keep": name, "settings": settings})
        found = json.loads(self._connection.recv_bytes())
        if found is False:
            tensors, facts = compute()
            self.send({"kept": facts})
            self._connection.send_bytes(save({key: value.cpu().contiguous() for key, value in tensors.items()}))
            found = json.loads(self._connection.recv_bytes())
        return load(self._connection.recv_bytes()), found


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


def reason_of(error: BaseException) -> str:
    """Return why a cell failed, for an exception of foreign code."""
    # Python's own error has no text, and that of torch is a page about allocators.
    told = "out of memory: " if isinstance(error, MemoryError | torch.OutOfMemoryError) else ""
    first = _text(error).strip().partition("\n")[0]
    if len(first) > LONGEST_REASON:
        first = f"{first[:LONGEST_REASON]} ..."
    return f"{told}{type(error).__name__}: {first}".removesuffix(": ")


def _text(error: BaseException) -> str:
    """Return the text of an exception, whatever its class makes of that, without what UTF-8 cannot hold."""
    try:
        return str(error).encode(errors="backslashreplace").decode()
    except BaseException:
        return ""


def start_measuring(device: torch.device) -> None:
    """Let the peak memory of this process count from here."""
    reset_peak_memory()
    if device.type == "cuda":
        # Statistics can be reset only once CUDA is initialised, and this may be the first use of the GPU.
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the most memory that this process has held on a device since `start_measuring`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
