"""What the benchmark needs to know about any network: its classifier layer and the meaning of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from unlearnbench.errors import PluginError
from unlearnbench.registry.entry_points import find
from unlearnbench.store import writing

OUTPUT_CLASSES = "output_classes"


def build_network(name: str, options: dict[str, Any], num_classes: int, shape: Sequence[int]) -> nn.Module:
    """Return a network with weights drawn from torch's global random state, in its fastest memory layout.

    Args:
        name: Name of an installed architecture.
        options: Options of the architecture.
        num_classes: K outputs.
        shape: Channels, height and width of the input.

    Raises:
        PluginError: If the architecture does not return a network with a linear classifier of K outputs.
    """
    build: Callable[..., nn.Module] = find("architectures", name).load()
    network = build(num_classes, tuple(shape), **options)
    if not isinstance(network, nn.Module):
        raise PluginError(f"architecture {name!r} returned {type(network).__name__}, not a torch.nn.Module")
    outputs = classifier(network).out_features
    if outputs != num_classes:
        raise PluginError(f"architecture {name!r} has {outputs} outputs where {num_classes} were asked for")
    return in_fast_layout(network, shape)


def in_fast_layout(model: nn.Module, shape: Sequence[int]) -> nn.Module:
    """Return a model with its convolution weights in channels-last order, if it can compute with them.

    Channels-last convolutions are up to a quarter faster, on a CPU as well as on tensor cores, and activations follow
    the order of the weights. A model that calls `view` on activations cannot run this way and stays as it is.

    Args:
        model: Model to convert, changed in place.
        shape: Channels, height and width of the input.
    """
    training = model.training
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            # In evaluation mode the trial leaves no trace: it changes neither statistics nor random states.
            model.eval()(torch.zeros(2, *shape, device=device))
    except RuntimeError:
        model.to(memory_format=torch.contiguous_format)
    return model.train(training)


def classifier_name(model: nn.Module) -> str:
    """Return the name of the classifier layer: the model's own `classifier_name`, or its last linear layer.

    Raises:
        PluginError: If the model has no linear layer, or the name it gives is not that of one.
    """
    named = getattr(model, "classifier_name", None)
    if isinstance(named, str):
        if not isinstance(model.get_submodule(named), nn.Linear):
            raise PluginError(f"{type(model).__name__}.classifier_name {named!r} is not a linear layer")
        return named
    linear: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise PluginError(
            f"{type(model).__name__} has no linear layer to be its classifier\n"
            "  Give it one, or name it in an attribute `classifier_name`"
        )
    return linear[-1]


def classifier(model: nn.Module) -> nn.Linear:
    """Return the classifier layer.

    Raises:
        PluginError: If the model has no linear layer.
    """
    layer = model.get_submodule(classifier_name(model))
    assert isinstance(layer, nn.Linear)
    return layer


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
    name = classifier_name(model)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
    model.register_buffer(OUTPUT_CLASSES, classes.to(weight.device))


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
def captured_features(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the input of the classifier layer, (B, D), from each forward pass within the context."""
    captured: list[Tensor] = []

    def capture(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        captured.append(inputs[0].detach().flatten(1))

    handle = classifier(model).register_forward_pre_hook(capture)
    try:
        yield captured
    finally:
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
    """Fill a freshly built model with weights that `save_network` wrote, even if outputs were removed or added."""
    state = load(path.read_bytes())
    if OUTPUT_CLASSES in state:
        name = classifier_name(model)
        weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
        replace_classifier(model, weight, bias, state[OUTPUT_CLASSES])
    model.load_state_dict(state)
    return model
