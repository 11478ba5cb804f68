"""The stages of a network: where its resolution or width changes, found by one forward pass of two images.

The last stage is always the input of the classifier. Earlier ones are outputs of modules that every path from the image
to the logits runs through, so that no stage lies inside a residual block or in one of several branches.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from unlearnbench.errors import PluginError
from unlearnbench.models.classifier import STAGE_NAMES, captured_features, classifier_names
from unlearnbench.registry.declare import MOST_STAGES

CLASSIFIER_INPUT = "classifier input"
# This stands for the mean in the place of a position.
MEAN = -1


@dataclass(frozen=True)
class Stage:
    """An output of a network that is pooled to one vector for each image.

    Attributes:
        name: Name of the module whose output it is.
        width: D, the length of the pooled vector.
        axes: Axes of the output that are averaged over; none for a vector, or where `token` says what is taken.
        token: Position of the class token of a transformer, or `MEAN`.
    """

    name: str
    width: int
    axes: tuple[int, ...] = ()
    token: int = MEAN

    def pooled(self, output: Any) -> Tensor:
        """Return the pooled output, (B, D) float32."""
        found = _first_tensor(output)
        assert found is not None
        if self.token != MEAN:
            return found[:, self.token].float()
        return (found.mean(self.axes) if self.axes else found).float()


def find_stages(model: nn.Module, image: Tensor) -> tuple[tuple[Stage, ...], str]:
    """Return the stages of a network before its last one, and the name of the last one.

    Args:
        model: Network, which is left as it is.
        image: (1, C, H, W), an image of the kind that the network takes, on its device.

    Returns:
        At most `MOST_STAGES` - 1 stages in the order in which an image passes them, and the name of the last stage,
        which is the input of the classifier: the module that it is the pooled output of, or `CLASSIFIER_INPUT`.

    Raises:
        PluginError: If a declared stage does not give one output for each image in a forward pass.
    """
    trace = _traced(model, image)
    declared = getattr(model, STAGE_NAMES, None)
    if declared is not None:
        found, last = _declared(model, tuple(declared), trace)
        return _pooled_stages(found, last, trace)
    on_path = [event for event in trace.events if event.on_path]
    found, last = _blocks(on_path) or _changes(on_path, trace)
    return _pooled_stages(found, last, trace)


@contextmanager
def captured_stages(model: nn.Module, stages: Sequence[Stage]) -> Iterator[list[Tensor]]:
    """Collect the pooled output of each stage, (B, D) float32, from a forward pass within the context.

    The list holds one entry for each stage after a pass; whoever takes them empties it.
    """
    captured: list[Tensor] = []
    handles = [
        model.get_submodule(stage.name).register_forward_hook(
            lambda _module, _inputs, output, stage=stage: captured.append(stage.pooled(output))
        )
        for stage in stages
    ]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Event:
    """The output of a module, in a pass in which the module ran once.

    Attributes:
        name: Name of the module.
        module: The module.
        output: Its output, whose first axis is that of the images.
        on_path: Whether every path from the image to the logits runs through it.
    """

    name: str
    module: nn.Module
    output: Tensor
    on_path: bool

    @property
    def depth(self) -> int:
        return self.name.count(".")

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes over which the output is averaged; a square map tells on which side its channels are."""
        shape = self.output.shape
        if len(shape) == 4:
            channels_last = shape[1] == shape[2] != shape[3]
            return (1, 2) if channels_last else (2, 3)
        return (1,) if len(shape) == 3 else ()

    @property
    def shape(self) -> tuple[tuple[int, ...], int]:
        """Resolution and width."""
        sizes = dict(enumerate(self.output.shape))
        resolution = tuple(sizes.pop(axis) for axis in self.axes)
        return resolution, sizes[max(sizes)]


@dataclass(frozen=True)
class _Trace:
    """The outputs of modules, in the order in which they were made, and the classifier's input, with their graph."""

    events: tuple[_Event, ...]
    features: Tensor


FoundStages = tuple[Sequence[_Event], str]


def _traced(model: nn.Module, image: Tensor) -> _Trace:
    """Run two images through a copy of the network and return what its modules put out, down to the classifier.

    Modules that run more than once are left out, and so are outputs that do not have a row for each image.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    head = classifier_names(copied)
    seen: list[tuple[str, nn.Module, Tensor, Any]] = []

    def note(name: str, module: nn.Module, output: Any) -> None:
        found = _first_tensor(output)
        if found is not None and found.dim() in (2, 3, 4) and len(found) == 2:
            # The node is kept beside the tensor, which has another one as soon as a layer works on it in place.
            seen.append((name, module, found, found.grad_fn))

    for name, module in copied.named_modules():
        if name and not any(f"{layer}.".startswith(f"{name}.") for layer in head):
            module.register_forward_hook(lambda module, _, output, name=name: note(name, module, output))
    with torch.inference_mode(mode=False), torch.enable_grad(), captured_features(copied, with_gradient=True) as inputs:
        images = image.detach().repeat(2, 1, 1, 1).requires_grad_()
        # A leaf of the graph must not be changed in place, as a network may do that shifts its input.
        copied(images.clone())
    if not inputs:
        return _Trace((), torch.empty(0, 0))
    calls = Counter(name for name, *_ in seen)
    on_path = _nodes_on_every_path(inputs[-1])
    events = [_Event(name, module, found, node in on_path) for name, module, found, node in seen if calls[name] == 1]
    return _Trace(tuple(events), inputs[-1])


def _first_tensor(output: Any) -> Tensor | None:
    """Return a module's output, or the first part of it, if that is a tensor."""
    while isinstance(output, tuple | list | dict) and output:
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output if isinstance(output, Tensor) else None


def _nodes_on_every_path(end: Tensor) -> set[Any]:
    """Return the nodes of autograd's graph that every path from the image to a tensor runs through.

    In an order in which every node stands before those that it was computed from, a node is on every path exactly if no
    edge leaps over it.
    """
    order = _ordered(end.grad_fn)
    place = {node: number for number, node in enumerate(order)}
    found, furthest = set(), 0
    for number, node in enumerate(order):
        if furthest <= number:
            found.add(node)
        furthest = max(furthest, *(place[below] for below in _below(node)), 0)
    return found


def _below(node: Any) -> list[Any]:
    return [below for below, _ in node.next_functions if below is not None]


def _ordered(root: Any) -> list[Any]:
    """Return a node and all that it was computed from, each before those that it was computed from itself.

    The graph has a single leaf, the image, because no parameter requires a gradient.
    """
    if root is None:
        return []
    order: list[Any] = []
    seen, waiting = {root}, [(root, iter(_below(root)))]
    while waiting:
        _, rest = waiting[-1]
        below = next((found for found in rest if found not in seen), None)
        if below is None:
            order.append(waiting.pop()[0])
        else:
            seen.add(below)
            waiting.append((below, iter(_below(below))))
    return order[::-1]


def _blocks(events: Sequence[_Event]) -> FoundStages | None:
    """Return the blocks of a transformer: the most modules of one kind in one place that put out tokens."""
    groups: dict[tuple[str, type], list[_Event]] = {}
    for event in events:
        if event.output.dim() == 3:
            groups.setdefault((event.name.rpartition(".")[0], type(event.module)), []).append(event)
    # Of two equally large groups the outer one is that of the blocks.
    found = max(groups.values(), key=lambda group: (len(group), -group[0].depth), default=[])
    if len(found) < 2:
        return None
    *earlier, last = _spread(found, MOST_STAGES)
    return earlier, last.name


def _changes(events: Sequence[_Event], trace: _Trace) -> FoundStages:
    """Return the last outputs before the resolution or the width changes."""
    outermost: dict[tuple[int, ...], int] = {}
    for event in events:
        resolution, _ = event.shape
        outermost[resolution] = min(event.depth, outermost.get(resolution, event.depth))
    trunk = [event for event in events if event.depth == outermost[event.shape[0]]]
    known: set[nn.Parameter] = set()
    ends = []
    for _, run in groupby(trunk, key=lambda event: event.shape):
        *_, end = outputs = list(run)
        parameters = {parameter for event in outputs for parameter in event.module.parameters()}
        # Layers that learn nothing, such as pooling, only show the stage before them in another shape.
        if parameters - known:
            ends.append(end)
        known |= parameters
    if ends and ends[-1].shape[1] == trace.features.shape[-1]:
        return _fewer(ends[:-1], MOST_STAGES - 1), ends[-1].name
    return _fewer(ends, MOST_STAGES - 1), CLASSIFIER_INPUT


def _fewer(events: Sequence[_Event], most: int) -> list[_Event]:
    """Return all outputs, or if they are too many the last of each resolution, or some of these."""
    if len(events) > most:
        last = {event.shape[0]: event for event in events}
        events = [event for event in events if last[event.shape[0]] is event]
    return _spread(events, most)


def _spread(events: Sequence[_Event], most: int) -> list[_Event]:
    """Return at most `most` outputs, evenly spread, the last one among them."""
    count = min(most, len(events))
    return [events[(number + 1) * len(events) // count - 1] for number in range(count)]


def _declared(model: nn.Module, names: tuple[str, ...], trace: _Trace) -> FoundStages:
    """Return the stages that an architecture declares; the classifier's input follows if the last one is another.

    Raises:
        PluginError: If one is not the name of a module that runs once and gives an output for each image.
    """
    events = {event.name: event for event in trace.events}
    for name in names:
        if name not in events:
            raise PluginError(
                f"{type(model).__name__} declares the stage {name!r}, which is no module that runs once "
                "and puts out a row for each image\n"
                f"  Those before its classifier: {', '.join(events) or 'none'}"
            )
    last = events[names[-1]]
    after = [*events.values()][[*events].index(last.name) + 1 :]
    learned = {parameter for event in after for parameter in event.module.parameters()}
    before = {parameter for event in trace.events if event not in after for parameter in event.module.parameters()}
    if learned <= before and last.shape[1] == trace.features.shape[-1]:
        return [events[name] for name in names[:-1]], last.name
    return [events[name] for name in names[-(MOST_STAGES - 1) :]], CLASSIFIER_INPUT


def _pooled_stages(events: Sequence[_Event], last: str, trace: _Trace) -> tuple[tuple[Stage, ...], str]:
    """Return outputs as stages, and the name of the last stage."""
    tokens = [event for event in trace.events if event.output.dim() == 3 and event.name == last]
    token = _class_token(tokens[-1].output, trace.features) if tokens else MEAN
    stages = []
    for event in events:
        taken = token if event.output.dim() == 3 else MEAN
        stages.append(Stage(event.name, event.shape[1], event.axes if taken == MEAN else (), taken))
    return tuple(stages), last


def _class_token(tokens: Tensor, features: Tensor) -> int:
    """Return the position of the only token of the last block that the classifier reads, or `MEAN` if it reads more."""
    # The sum after a layer norm is constant, so that only a sum with weights has a gradient.
    weights = torch.linspace(-1.0, 2.0, features.shape[-1], device=features.device, dtype=features.dtype)
    (gradient,) = torch.autograd.grad((features * weights**3).sum(), tokens, allow_unused=True)
    if gradient is None:
        return MEAN
    read = torch.nonzero(gradient.abs().sum(dim=(0, 2))).flatten().tolist()
    return int(read[0]) if len(read) == 1 else MEAN
