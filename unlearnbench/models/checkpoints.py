"""Checkpoints from elsewhere: read without running code, and compared with the network before they fill it."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from unlearnbench.errors import InvalidFileError, os_reason
from unlearnbench.models.classifier import classifier_names
from unlearnbench.models.weights import Weights

# Training scripts keep the weights under one of these names, beside the optimizer and the epoch.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
SHOWN_NAMES = 5


def load_weights(model: nn.Module, weights: Weights, *, new_classifier: bool) -> None:
    """Fill a freshly built network with the weights of a checkpoint.

    Args:
        model: Network to fill, changed in place.
        weights: Checkpoint to read.
        new_classifier: Whether the fresh classifier is kept if the checkpoint's has another number of classes, as
            for weights to start from. If False, such a checkpoint is refused, as for weights of the original model.

    Raises:
        InvalidFileError: If the file is not a checkpoint, is not the one that was published, or does not fit. The
            message names the missing and unexpected keys and the shapes that differ.
    """
    _check_published(weights)
    state = _unprefixed(read_state(weights.path), model)
    expected = model.state_dict()
    if new_classifier:
        prefix = tuple(f"{name}." for name in classifier_names(model))
        other = any(k in state and state[k].shape != v.shape for k, v in expected.items() if k.startswith(prefix))
        if other:
            state = {**state, **{k: v for k, v in expected.items() if k.startswith(prefix)}}
    faults = misfits(expected, state)
    if faults:
        raise InvalidFileError("\n  ".join([f"{weights.path}: does not fit {type(model).__name__}", *faults]))
    # Older versions of torch do not store the count of batches; every other key was compared above.
    model.load_state_dict(state, strict=False)


def misfits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Describe, one line each, how the tensors of a checkpoint differ from those of a network."""
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    named = {"missing": missing, "unexpected": unexpected, "another shape": shapes}
    return [f"{what}: {_listed(names)}" for what, names in named.items() if names]


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or of a `state_dict` that torch saved.

    Raises:
        InvalidFileError: If the file is neither.
    """
    try:
        if path.suffix == ".safetensors":
            return load(path.read_bytes())
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be read: {os_reason(error)}") from error
    # A damaged pickle may raise almost any exception.
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in str(error):
            raise InvalidFileError(
                f"{path}: holds more than tensors, which could run code\n"
                "  Save only the weights: torch.save(model.state_dict(), path), or safetensors"
            ) from error
        raise InvalidFileError(f"{path}: neither a safetensors file nor one that torch.save wrote") from error
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InvalidFileError(f"{path}: not a state_dict: it holds no table of tensors")
    return dict(content)


def _unprefixed(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Strip the prefix that DataParallel and compiled modules put before every name."""
    prefix = re.compile(r"^(module\.|_orig_mod\.)+")
    expected = model.state_dict()
    if state and all(prefix.match(key) for key in state) and not any(key in expected for key in state):
        return {prefix.sub("", key): value for key, value in state.items()}
    return state


def naming(path: Path, model: nn.Module) -> dict[str, Any]:
    """Return how a checkpoint names its tensors, so that others can be written in the same form.

    Args:
        path: Checkpoint that fits the network.
        model: The network.

    Returns:
        The SHA-256 of the file (`sha256`), what stands before each of the network's names (`prefix`), and which of
        them the checkpoint does not hold (`left_out`).
    """
    held, expected = list(read_state(path)), list(model.state_dict())
    own = next((name for name in expected if any(key.endswith(name) for key in held)), "")
    prefix = min((key.removesuffix(own) for key in held if key.endswith(own)), key=len, default="")
    left_out = [name for name in expected if f"{prefix}{name}" not in set(held)]
    if not all(name.endswith("num_batches_tracked") for name in left_out):
        # Its names are others altogether, and the network's own are as good.
        prefix, left_out = "", []
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "prefix": prefix, "left_out": left_out}


def _check_published(weights: Weights) -> None:
    with weights.path.open("rb") as file:
        found = hashlib.file_digest(file, weights.algorithm).hexdigest()
    if not found.startswith(weights.checksum):
        raise InvalidFileError(
            f"{weights.path}: damaged: {weights.algorithm} {found}, not {weights.checksum}\n"
            "  Remove it and fetch it again"
        )
