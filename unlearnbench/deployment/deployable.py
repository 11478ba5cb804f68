"""Unlearned weights in the names, and with the outputs in the order, of the user's own checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from safetensors.torch import load_file
from torch import Tensor

from unlearnbench.deployment.row import FinishedCell
from unlearnbench.models.checkpoints import reordered
from unlearnbench.models.classifier import OUTPUT_CLASSES


@dataclass(frozen=True)
class Deployable:
    """An unlearned model in the form in which it leaves the store.

    Attributes:
        state: Tensors by their names in the user's own checkpoint.
        classes: Class that each output stands for; numbers from K on are new classes.
        prefix: What stands before the network's own names.
        left_out: The network's names that the user's checkpoint does not hold.
    """

    state: dict[str, Tensor]
    classes: tuple[int, ...]
    prefix: str
    left_out: tuple[str, ...]


def deployable(cell: FinishedCell) -> Deployable:
    """Return the weights of a cell's model in the names of the checkpoint that the run was given.

    Raises:
        InvalidFileError: If the model is not in the store as its record says.
    """
    held = load_file(cell.file("model"))
    classes = held.pop(OUTPUT_CLASSES, torch.arange(cell.record.problem.num_classes))
    names = (cell.original.details if cell.original else {}).get("checkpoint", {})
    if "class_order" in names:
        outputs = _outputs_of_checkpoint(classes, names["class_order"])
        held, classes = reordered(held, names["classifier"], outputs), classes[outputs]
    prefix, left_out = str(names.get("prefix", "")), tuple(names.get("left_out", ()))
    state = {f"{prefix}{name}": value for name, value in held.items() if name not in left_out}
    return Deployable(state, tuple(classes.tolist()), prefix, left_out)


def _outputs_of_checkpoint(classes: Tensor, class_order: list[int]) -> Tensor:
    """Return the outputs in the order of the user's checkpoint, those of new classes at the end.

    Args:
        classes: (O,) int64, the class of each output as the store keeps them.
        class_order: Class of each output of the checkpoint.
    """
    places = {label: place for place, label in enumerate(class_order)}
    order = [places.get(label, len(class_order)) for label in classes.tolist()]
    return torch.argsort(torch.tensor(order), stable=True)


def state_digest(state: dict[str, Tensor]) -> str:
    """Return a SHA-256 over names, types, shapes and values, which is the same in whatever format a file holds them."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
