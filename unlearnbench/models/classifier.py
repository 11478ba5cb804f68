"""What the benchmark needs to know about any network: its classifier layer and the meaning of its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from unlearnbench.errors import PluginError
from unlearnbench.files import regular_bytes, writing

OUTPUT_CLASSES = "output_classes"
# A network whose architecture declares its stages holds their names under this name.
STAGE_NAMES = "stage_names"
# A network may name its classifier itself, as a name or, if its output is the mean of several layers, as a tuple.
CLASSIFIER_NAME = "classifier_name"


@dataclass(frozen=True)
class Head:
    """The classifier of a network: one linear layer, or several whose mean is the output.

    Attributes:
        names: Name of each layer in the network.
        layers: The layers. Several stand for one layer whose input is all of theirs side by side.
    """

    names: tuple[str, ...]
    layers: tuple[nn.Linear, ...]

    @property
    def in_features(self) -> int:
        """D, the length of a feature."""
        return sum(layer.in_features for layer in self.layers)

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return self.layers[0].out_features

    @property
    def weight(self) -> Tensor:
        """(outputs, D) weights; those of a single layer are its own parameter."""
        if len(self.layers) == 1:
            return self.layers[0].weight
        return torch.cat([layer.weight for layer in self.layers], dim=1) / len(self.layers)

    @property
    def bias(self) -> Tensor | None:
        """(outputs,) biases, or None if there are none."""
        biases: list[Tensor] = [layer.bias for layer in self.layers if layer.bias is not None]
        if len(self.layers) == 1 or not biases:
            return biases[0] if biases else None
        return torch.stack(biases).sum(dim=0) / len(self.layers)

    def __call__(self, features: Tensor) -> Tensor:
        """Return the logits (N, outputs) of features (N, D)."""
        return nn.functional.linear(features, self.weight, self.bias)


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the classifier's layers: the model's own `classifier_name`, or its last linear layer.

    Raises:
        PluginError: If the model has no linear layer, or a name it gives is not that of one.
    """
    named: Any = getattr(model, CLASSIFIER_NAME, None)
    if isinstance(named, str | tuple):
        names: tuple[str, ...] = (named,) if isinstance(named, str) else named
        modules = dict(model.named_modules())
        for name in names:
            if not isinstance(modules.get(name), nn.Linear):
                raise PluginError(f"{type(model).__name__}.{CLASSIFIER_NAME} {name!r} is not a linear layer")
        return names
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise PluginError(
            f"{type(model).__name__} has no linear layer to be its classifier\n"
            f"  Give it one, or name it in an attribute `{CLASSIFIER_NAME}`"
        )
    return (linear[-1],)


def classifier_name(model: nn.Module) -> str:
    """Return the names of the classifier's layers as one text; see `classifier_names`."""
    return " and ".join(classifier_names(model))


def classifier(model: nn.Module) -> Head:
    """Return the classifier.

    Raises:
        PluginError: If the model has no linear layer.
    """
    names = classifier_names(model)
    layers = [model.get_submodule(name) for name in names]
    return Head(names, tuple(_up_to_date(layer) for layer in layers if isinstance(layer, nn.Linear)))


def _up_to_date(layer: nn.Linear) -> nn.Linear:
    """Return a layer whose weight is that of its parameters.

    The older forms of weight and spectral norm compute the weight in a hook before each call, so that after loading
    parameters it is still the weight of the former ones.
    """
    training = layer.training
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm):
            with torch.no_grad():
                hook(layer.eval(), ())
            layer.train(training)
    return layer


def logits_of(output: Any) -> Tensor:
    """Return the logits in what a network returned: a tensor, an object or a table with `logits`, or a tuple.

    Raises:
        PluginError: If there is no tensor where the logits should be.
    """
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits", next(iter(output.values()), None))
    if found is None and isinstance(output, Sequence) and not isinstance(output, str) and output:
        found = output[0]
    if isinstance(found, Tensor):
        return found
    inside = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) and output else ""
    raise PluginError(
        f"the network returned {type(output).__name__}{inside}, in which there are no logits\n"
        "  Return a tensor (N, K), an object or a dict with `logits`, or a tuple that begins with them"
    )


def take_logits(_: nn.Module, __: Any, output: Any) -> Tensor:
    """Replace what a network returns by its logits, as a forward hook."""
    return logits_of(output)


def output_classes(model: nn.Module) -> Tensor:
    """Return the class that each output stands for, (outputs,) int64, ascending; K and above are new classes."""
    kept = getattr(model, OUTPUT_CLASSES, None)
    if isinstance(kept, Tensor):
        return kept
    layer = classifier(model)
    return torch.arange(layer.out_features, device=layer.weight.device)


def replace_classifier(model: nn.Module, weight: Tensor, bias: Tensor | None, classes: Tensor) -> None:
    """Replace the classifier of a model by one with the given rows.

    Args:
        model: Model to change in place.
        weight: (outputs, D) weights.
        bias: (outputs,) biases, or None.
        classes: (outputs,) int64, the class of each output, ascending.
    """
    head = classifier(model)
    parts = weight.split([layer.in_features for layer in head.layers], dim=1)
    for name, part in zip(head.names, parts, strict=True):
        # Their mean is the output.
        _replace_layer(model, name, part * len(parts), bias)
    model.register_buffer(OUTPUT_CLASSES, classes.to(weight.device))


def _replace_layer(model: nn.Module, name: str, weight: Tensor, bias: Tensor | None) -> None:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)


def keep_outputs(model: nn.Module, classes: Tensor) -> None:
    """Remove all outputs of a model except those of `classes`, (M,) int64, ascending."""
    layer = classifier(model)
    rows = classes.to(layer.weight.device)
    bias = None if layer.bias is None else layer.bias.detach()[rows]
    replace_classifier(model, layer.weight.detach()[rows], bias, rows)


def add_output(model: nn.Module, new_class: int) -> None:
    """Add an output for a new class, with random weights drawn as torch initialises a linear layer."""
    layer = classifier(model)
    grown = nn.Linear(layer.in_features, 1, bias=layer.bias is not None, device=layer.weight.device)
    bias = None if layer.bias is None else torch.cat([layer.bias.detach(), grown.bias.detach()])
    weight = torch.cat([layer.weight.detach(), grown.weight.detach()])
    classes = torch.cat([output_classes(model), torch.tensor([new_class], device=weight.device)])
    replace_classifier(model, weight, bias, classes)


@contextmanager
def captured_features(model: nn.Module, *, with_gradient: bool = False) -> Iterator[list[Tensor]]:
    """Collect the input of the classifier, (B, D), from each forward pass within the context.

    Args:
        model: Model whose passes are followed.
        with_gradient: Whether the features stay part of the graph that gradients are computed in.
    """
    captured: list[Tensor] = []
    layers = classifier(model).layers
    waiting: dict[nn.Module, Tensor] = {}

    def capture(layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        # A network may call its layer by keyword.
        features = inputs[0] if inputs else named["input"]
        waiting[layer] = (features if with_gradient else features.detach()).flatten(1)
        if len(waiting) == len(layers):
            parts = [waiting.pop(layer) for layer in layers]
            captured.append(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])

    handles = [layer.register_forward_pre_hook(capture, with_kwargs=True) for layer in layers]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def save_network(model: nn.Module, path: Path) -> None:
    """Write the weights of a model to a safetensors file.

    Raises:
        UnwritableError: If the file cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    with writing(path):
        path.write_bytes(save(tensors))


def load_network(model: nn.Module, path: Path) -> nn.Module:
    """Fill a freshly built model with weights that `save_network` wrote, even if outputs were removed or added.

    Raises:
        OSError: If the path is no regular file, but a link or a pipe, or the file is far larger than the model.
    """
    held = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    state = load(regular_bytes(path, 2 * held + 2**24))
    if OUTPUT_CLASSES in state:
        for name in classifier_names(model):
            _replace_layer(model, name, state[f"{name}.weight"], state.get(f"{name}.bias"))
        model.register_buffer(OUTPUT_CLASSES, state[OUTPUT_CLASSES])
    model.load_state_dict(state)
    return model
