"""A network before training: how it is built and tried on two images, and which weights its training starts from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unlearnbench.errors import PluginError
from unlearnbench.models.checkpoints import load_weights
from unlearnbench.models.classifier import CLASSIFIER_NAME, STAGE_NAMES, classifier_names, logits_of, take_logits
from unlearnbench.models.random_state import own_random_state
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.weights import Weights
from unlearnbench.registry.declare import STAGES
from unlearnbench.registry.entry_points import find
from unlearnbench.seeds import derived_seed

# Random streams that are not called as their role is: FDR keeps the one that its published models were trained with.
STREAMS = {"fdr": "retrained"}
# Two ways of computing the same logits differ by rounding, here measured against the largest logit.
ROUNDING = 1e-3
# Parameters are moved by this share of their mean size when a network is tried.
MOVED = 0.05


@dataclass(frozen=True)
class Network:
    """How to build a network, and which weights its training starts from.

    Attributes:
        name: Name of the architecture.
        options: Options of the architecture.
        num_classes: K outputs.
        shape: Channels, height and width of the input.
        start: Weights that training starts from; None means random ones.
    """

    name: str
    options: dict[str, Any]
    num_classes: int
    shape: tuple[int, int, int]
    start: Weights | None = None

    def build(self, seed: int, role: str) -> nn.Module:
        """Return the network as it is when the training of a role ("original" or "fdr") starts.

        The global random states are left as they were.

        Raises:
            InvalidFileError: If the weights to start from do not fit the network.
        """
        network = self.unfilled(derived_seed(seed, STREAMS.get(role, role), "weights"))
        if self.start is not None:
            load_weights(network, self.start, new_classifier=True)
        return network

    def unfilled(self, seed: int = 0) -> nn.Module:
        """Return the network with random weights, whichever weights training starts from."""
        with own_random_state(seed):
            return build_network(self.name, self.options, self.num_classes, self.shape)

    def filled(self, weights: Weights, say: Callable[[str], None] = lambda message: None) -> nn.Module:
        """Return the network filled with the weights of a whole model.

        Args:
            weights: Weights of the model.
            say: Callback that receives a line if the weights had to be looked for in their file.

        Raises:
            InvalidFileError: If the weights do not fit the network.
        """
        network = self.unfilled()
        load_weights(network, weights, new_classifier=False, say=say)
        return network


def input_shape(shape: Sequence[int], recipe: TrainingRecipe) -> tuple[int, int, int]:
    """Return channels, height and width of what the network sees of images of the given shape."""
    channels, height, width = shape
    return (channels, recipe.crop, recipe.crop) if recipe.crop else (channels, height, width)


def build_network(name: str, options: dict[str, Any], num_classes: int, shape: Sequence[int]) -> nn.Module:
    """Return a network with weights drawn from torch's global random state, in its fastest memory layout.

    The network is shown two images, and its classifier is the linear layer whose W f + b is what it returns. The next
    one that this process builds in the same way, of the same modules, is taken to be like it. A network that returns
    more than logits is made to return these alone.

    Args:
        name: Name of an installed architecture.
        options: Options of the architecture.
        num_classes: K outputs.
        shape: Channels, height and width of the input.

    Raises:
        PluginError: If the architecture does not return a network, the network cannot take such images, or its K
            outputs are not those of a linear layer.
    """
    plugin = find("architectures", name)
    build: Callable[..., nn.Module] = plugin.load()
    member = (plugin.member,) if plugin.member else ()
    network = build(*member, num_classes, tuple(shape), **options)
    if not isinstance(network, nn.Module):
        raise PluginError(f"architecture {name!r} returned {type(network).__name__}, not a torch.nn.Module")
    given = json.dumps(options, sort_keys=True, default=repr)
    key = (build, member, given, num_classes, tuple(shape), tuple(map(type, network.modules())))
    form = _forms.get(key)
    try:
        if form is None:
            form = _forms[key] = _find_form(network, num_classes, shape)
        else:
            # Some layers take their last form when they are first used: lazy ones, and those of the old weight_norm.
            _shown(network.to(memory_format=form.layout), _two_images(shape))
    except PluginError as error:
        raise PluginError(f"architecture {name!r}: {error}") from error
    if form.classifier is not None:
        setattr(network, CLASSIFIER_NAME, form.classifier)
    network.register_forward_hook(take_logits)
    declared = getattr(build, STAGES, None)
    if declared is not None:
        setattr(network, STAGE_NAMES, declared)
    return network


@dataclass(frozen=True)
class Form:
    """What is found out about a network when it is shown images for the first time.

    Attributes:
        layout: Memory layout of its convolution weights.
        classifier: Names of the linear layers whose W f + b it returns; None if they are known without a trial.
    """

    layout: torch.memory_format
    classifier: str | tuple[str, ...] | None


# To move all parameters and show images takes longer than to build a network, and a run builds the same one many times.
_forms: dict[Hashable, Form] = {}


def _find_form(network: nn.Module, num_classes: int, shape: Sequence[int]) -> Form:
    """Show a network images, and put it in its fastest memory layout.

    Raises:
        PluginError: If it cannot take such images, or its K outputs are not those of a linear layer.
    """
    layout, trial = _tried_in_fast_layout(network, shape)
    found = tuple(trial.logits.shape)
    if found != (2, num_classes):
        raise PluginError(f"it returns {found} numbers for 2 images and {num_classes} classes")
    return Form(layout, _classifier_of(network, trial))


@dataclass(frozen=True)
class Trial:
    """What a network made of two images.

    Attributes:
        logits: (2, K) logits.
        values: W f + b of each linear layer for the input that it had, by its name, in the order of the calls.
    """

    logits: Tensor
    values: dict[str, Tensor]


def _tried_in_fast_layout(network: nn.Module, shape: Sequence[int]) -> tuple[torch.memory_format, Trial]:
    """Put a network's convolution weights in channels-last order if it can compute with them, and try it.

    Channels-last convolutions are up to a quarter faster, on a CPU as well as on tensor cores, and activations follow
    the order of the weights. A network that calls `view` on activations cannot run this way and stays as it is.

    Args:
        network: Network to convert, changed in place.
        shape: Channels, height and width of the input.

    Raises:
        PluginError: If the network cannot take such images.
    """
    network.to(memory_format=torch.channels_last)
    try:
        return torch.channels_last, _tried(network, shape)
    # Some networks check what they are given by assertions.
    except Exception:
        network.to(memory_format=torch.contiguous_format)
    try:
        return torch.contiguous_format, _tried(network, shape)
    except PluginError:
        raise
    # A network is foreign code and may refuse images in any way.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise PluginError(f"it cannot take images of shape {tuple(shape)}: {type(error).__name__}: {reason}") from error


def _tried(network: nn.Module, shape: Sequence[int]) -> Trial:
    """Show a network two images with all its parameters moved a little, and put these back to the bit.

    Moved, because what starts at zero (an adapter beside the classifier, the weights of a new classifier) would not
    show in what a fresh network returns.
    """
    values: dict[str, Tensor] = {}

    def note(layer: nn.Linear, given: Tensor, name: str) -> None:
        features = given.flatten(1)
        if features.shape[1] == layer.in_features:
            # Taken anew, so that the layer called last is the last.
            values.pop(name, None)
            values[name] = F.linear(features, layer.weight, layer.bias)

    handles = [
        module.register_forward_hook(
            # A network may call its layer by keyword.
            lambda layer, given, named, _, name=name: note(layer, given[0] if given else named["input"], name),
            with_kwargs=True,
        )
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad(), _moved(network):
            return Trial(logits_of(_shown(network, _two_images(shape))), values)
    finally:
        for handle in handles:
            handle.remove()


def _two_images(shape: Sequence[int]) -> Tensor:
    return torch.linspace(-2, 2, 2 * math.prod(shape)).view(2, *shape)


def _shown(network: nn.Module, images: Tensor) -> Any:
    """Return what a network makes of images, in evaluation mode, which changes neither statistics nor random states."""
    training = network.training
    try:
        with torch.no_grad():
            return network.eval()(images)
    finally:
        network.train(training)


@contextmanager
def _moved(network: nn.Module) -> Iterator[None]:
    """Move all parameters of a network by some percent of their mean size for the context."""
    parameters = [value for value in network.parameters() if not is_lazy(value)]
    kept = [value.detach().clone() for value in parameters]
    generator = torch.Generator().manual_seed(0)
    for value in parameters:
        size = float(value.abs().mean()) or 1.0
        value.add_(torch.empty_like(value).normal_(std=MOVED * size, generator=generator))
    try:
        yield
    finally:
        for value, before in zip(parameters, kept, strict=True):
            value.copy_(before)


def _classifier_of(network: nn.Module, trial: Trial) -> str | tuple[str, ...] | None:
    """Return the names of the linear layers whose W f + b the network returned, or None if they are known without.

    Raises:
        PluginError: If there are none.
    """
    own = hasattr(network, CLASSIFIER_NAME)
    names = classifier_names(network) if own else tuple(trial.values)
    values = {name: trial.values[name] for name in names if name in trial.values}
    values = {name: value for name, value in values.items() if value.shape == trial.logits.shape}
    # The layer that is called last comes first, as layers beside it, of earlier stages for example, may agree too.
    choices = [tuple(values)] if own else [*((name,) for name in reversed(values)), tuple(values)]
    for chosen in choices:
        if chosen and _off(torch.stack([values[name] for name in chosen]).mean(dim=0), trial.logits) < ROUNDING:
            if own or chosen == classifier_names(network):
                return None
            return chosen if len(chosen) > 1 else chosen[0]
    raise PluginError(_not_linear(names if own else (), values, trial.logits))


def _off(value: Tensor, logits: Tensor) -> float:
    """Return the largest difference between two sets of logits, as a share of the largest logit."""
    return float((value - logits).abs().max() / logits.abs().max().clamp(min=1e-12))


def _not_linear(own: tuple[str, ...], values: dict[str, Tensor], logits: Tensor) -> str:
    """Say in which way the outputs of a network are not W f + b."""
    told = "its outputs are not W f + b of a linear layer, which removing and adding outputs rests on"
    if own:
        told = f"its outputs are not W f + b of {' and '.join(map(repr, own))}, which its `{CLASSIFIER_NAME}` names"
    seen = ""
    for name, value in values.items():
        for what, changed in {"log-softmax": value.log_softmax(dim=1), "softmax": value.softmax(dim=1)}.items():
            if _off(changed, logits) < ROUNDING:
                return f"{told}: they are the {what} of {name!r}\n  Return the logits, without the {what}"
    if values:
        nearest = min(values, key=lambda name: _off(values[name], logits))
        seen = f": the nearest, {nearest!r}, is off by {100 * _off(values[nearest], logits):.3g} % of the largest logit"
    return (
        f"{told}{seen}\n"
        "  Merge what stands beside the last layer (an adapter) into it, or write a cosine head as a linear layer\n"
        f"  with a parametrized weight; an attribute `{CLASSIFIER_NAME}` of the network names the layer to take"
    )
