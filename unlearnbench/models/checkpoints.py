"""Checkpoints from elsewhere: read without running code, and compared with the network before they fill it."""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from unlearnbench.errors import InvalidFileError, unreadable
from unlearnbench.models.classifier import classifier, classifier_names
from unlearnbench.models.weights import Weights

# Training scripts keep the weights under one of these names, beside the optimizer and the epoch; averages come last.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights", "student"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema", "teacher"),
)
# torch.optim.swa_utils.AveragedModel counts beside the weights how many models it averaged.
COUNT_OF_AVERAGED = "n_averaged"
# GoogLeNet's and Inception's auxiliary outputs serve only training; published weights have them, most networks do not.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
SHOWN_NAMES = 5


def load_weights(
    model: nn.Module, weights: Weights, *, new_classifier: bool, say: Callable[[str], None] = lambda message: None
) -> None:
    """Fill a freshly built network with the weights of a checkpoint.

    Args:
        model: Network to fill, changed in place.
        weights: Checkpoint to read.
        new_classifier: Whether the fresh classifier is kept if the checkpoint's has another number of classes, as
            for weights to start from. If False, such a checkpoint is refused, as for weights of the original model.
        say: Callback that receives a line if the weights stand below a name or behind a prefix in the file.

    Raises:
        InvalidFileError: If the file is not a checkpoint, is not the one that was published, or does not fit. The
            message names the missing and unexpected keys and the shapes that differ. Or if a value is not finite.
    """
    _check_published(weights)
    expected = model.state_dict()
    state, notes = read_state(weights.path)
    state, prefix_note = _unprefixed(state, expected)
    if notes + prefix_note:
        say(f"{weights.path}: took the weights {', '.join(notes + prefix_note)}")
    if new_classifier:
        heads = tuple(f"{name}." for name in classifier_names(model))
        other = any(k in state and state[k].shape != v.shape for k, v in expected.items() if k.startswith(heads))
        if other:
            state = {**state, **{k: v for k, v in expected.items() if k.startswith(heads)}}
    faults = misfits(expected, state)
    if weights.class_order is not None and not faults:
        state = reordered(state, classifier_names(model), torch.argsort(torch.tensor(weights.class_order)))
    if faults:
        head, classes = state.get(f"{classifier_names(model)[0]}.weight"), classifier(model).out_features
        if head is not None and len(head) != classes:
            faults.append(f"It has {len(head)} outputs, and the images have {classes} classes")
        raise InvalidFileError("\n  ".join([f"{weights.path}: does not fit {type(model).__name__}", *faults]))
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        rest = f", nor are others ({len(broken) - 1})" if len(broken) > 1 else ""
        raise InvalidFileError(f"{weights.path}: {broken[0]} is not finite{rest}")
    # Older versions of torch do not store the count of batches; every other key was compared above.
    model.load_state_dict(state, strict=False)


def reordered(state: dict[str, Tensor], heads: Sequence[str], outputs: Tensor) -> dict[str, Tensor]:
    """Return the tensors of a model with its outputs in another order.

    Args:
        state: Tensors of a model.
        heads: Names of the layers of its classifier.
        outputs: (O,) int64, the output that comes first, second, ...
    """

    def by_output(key: str, value: Tensor) -> bool:
        # Spectral norm keeps a vector for the outputs, `_u`, and one for the inputs.
        rows = value.dim() > 1 or key.endswith(("bias", "_u"))
        return key.startswith(tuple(f"{name}." for name in heads)) and rows and len(value) == len(outputs)

    return {key: value[outputs] if by_output(key, value) else value for key, value in state.items()}


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


def read_state(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a safetensors file or of a `state_dict` that torch saved, and where in the file they were.

    Raises:
        InvalidFileError: If the file is neither.
    """
    try:
        if path.suffix == ".safetensors":
            return load(path.read_bytes()), []
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise unreadable(path, error) from error
    # A damaged pickle may raise almost any exception.
    except Exception as error:
        # torch refuses what it does not know and, in other words, what belongs to a module that it has blocked.
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).casefold():
            raise InvalidFileError(
                f"{path}: holds more than tensors, which could run code\n"
                "  Save only the weights: torch.save(model.state_dict(), path), or safetensors"
            ) from error
        raise InvalidFileError(f"{path}: neither a safetensors file nor one that torch.save wrote") from error
    notes = []
    while inner := [key for key in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]:
        others = f" (not {', '.join(map(repr, inner[1:]))})" if len(inner) > 1 else ""
        notes.append(f"in {inner[0]!r}{others}")
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InvalidFileError(f"{path}: not a state_dict: it holds no table of tensors")
    return dict(content), notes


def _unprefixed(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Strip the prefix that a wrapper puts before every name: DataParallel, Lightning, averaging, compiling, ...

    Returns:
        The tensors under the names of the network, as far as one prefix gives these, and a note about the prefix.
    """
    notes: list[str] = []
    if not any(key in expected for key in state):
        found = Counter(prefix for key in state for prefix in _prefixes(key, expected))
        if found:
            prefix = found.most_common(1)[0][0]
            notes.append(f"behind {prefix!r}")
            state = {key.removeprefix(prefix): value for key, value in state.items() if key != COUNT_OF_AVERAGED}
    unused = [key for key in state if key.startswith(AUXILIARY) and key not in expected]
    return {key: value for key, value in state.items() if key not in unused}, notes


def _prefixes(key: str, expected: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield what stands before a name of the network at the end of a key."""
    parts = key.split(".")
    for start in range(1, len(parts)):
        if ".".join(parts[start:]) in expected:
            yield ".".join(parts[:start]) + "."


def outputs_in(path: Path, model: nn.Module) -> int:
    """Return how many outputs the classifier of a checkpoint has; the network's own number if that cannot be told.

    Raises:
        InvalidFileError: If the file is not a checkpoint.
    """
    expected = model.state_dict()
    state = _unprefixed(read_state(path)[0], expected)[0]
    found = state.get(f"{classifier_names(model)[0]}.weight")
    return classifier(model).out_features if found is None else len(found)


def naming(path: Path, model: nn.Module) -> dict[str, Any]:
    """Return how a checkpoint names its tensors, so that others can be written in the same form.

    Args:
        path: Checkpoint that fits the network.
        model: The network.

    Returns:
        The SHA-256 of the file (`sha256`), what stands before each of the network's names (`prefix`), which of them the
        checkpoint does not hold (`left_out`), and which are the layers of the classifier (`classifier`).
    """
    held, expected = list(read_state(path)[0]), list(model.state_dict())
    own = next((name for name in expected if any(key.endswith(name) for key in held)), "")
    prefix = min((key.removesuffix(own) for key in held if key.endswith(own)), key=len, default="")
    left_out = [name for name in expected if f"{prefix}{name}" not in set(held)]
    if not all(name.endswith("num_batches_tracked") for name in left_out):
        # Its names are others altogether, and the network's own are as good.
        prefix, left_out = "", []
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "prefix": prefix, "left_out": left_out, "classifier": list(classifier_names(model))}


def _check_published(weights: Weights) -> None:
    with weights.path.open("rb") as file:
        found = hashlib.file_digest(file, weights.algorithm).hexdigest()
    if not found.startswith(weights.checksum):
        raise InvalidFileError(
            f"{weights.path}: damaged, or changed since it was looked at: {weights.algorithm} {found}, not "
            f"{weights.checksum}\n  Remove it and fetch it again; if it is your own, give the command again"
        )
