"""Forward passes that start at a layer, so that what runs before it is computed once for many looks at the layer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from unlearnbench.models.batches import inference_batch
from unlearnbench.unlearners.builtin.network_graph import Calls, Graph, Step, Values, first_argument, graph_of, steps_of

# Larger values than these are not kept, and passes then start at the image.
MEMORY_LIMIT = 2 * 2**30
# A pass that starts at a layer is compared with the model's own on this many images, and the logits may differ by this
# much, because folding rounds differently whereas a mistake would be far larger. The number is seven because a layer is
# unlikely to have as many channels.
COMPARED_IMAGES, TOLERANCE = 7, 1e-3

# A part is the positions (n,) of some images, and the value that a parameter has for them.
Inputs = tuple[Tensor, Tensor]
Passes = Callable[[Sequence[Inputs]], Sequence[Tensor]]


class Suffixes:
    """What a model computes from a layer on, for each of some layers.

    The model is read as a graph (torch.fx), which tells which values from before a layer are used after it. A layer has
    no suffix if it is not called exactly once, if it shares a parameter with another module, or if a pass that starts
    at it does not give what the model gives. No layer has one if the model cannot be read as a graph.

    After the layer, batch norm is folded into the convolution before it.

    Args:
        model: Model in evaluation mode.
        images: (n, C, H, W), a few images of any content.
        layers: Modules at which passes will start.

    Attributes:
        bytes_per_image: Size of the values that passes begin with, at the layer where it is largest.
        mixes_images: Whether the model's output for an image depends on the others in its batch.
    """

    def __init__(self, model: nn.Module, images: Tensor, layers: Iterable[nn.Module]) -> None:
        self.bytes_per_image = 0
        self.mixes_images = _mixes_images(model, images)
        self._starts: dict[nn.Module, fx.Node] = {}
        self._needed: dict[nn.Module, set[fx.Node]] = {}
        self._steps: dict[nn.Module, list[Step]] = {}
        graph = None if self.mixes_images else graph_of(model)
        if graph is None:
            return
        try:
            self._read(model, graph, images, layers)
        # The graph calls the model's own code, perhaps in a way that the code does not support.
        except Exception:
            self._starts.clear()
            self.bytes_per_image = 0

    def _read(self, model: nn.Module, graph: Graph, images: Tensor, layers: Iterable[nn.Module]) -> None:
        """Find the suffixes of those layers that have one."""
        self._nodes = graph.nodes
        self._order = {node: position for position, node in enumerate(self._nodes)}
        self._calls = Calls(model, graph)
        with torch.no_grad():
            values = self._all_values(images.clone())
        self._by_image = {node for node, value in values.items() if _has_rows(value, len(images))}
        found = [(start, layer) for layer in dict.fromkeys(layers) if (start := self._calls.only(layer)) is not None]
        prefix = ReusedPrefix(model, images, self)
        for start, layer in sorted(found, key=lambda pair: self._order[pair[0]]):
            if start not in self._by_image:
                continue
            nodes, needed = self._back(self._nodes[-1:], start)
            self._starts[layer], self._needed[layer], self._steps[layer] = start, needed, self._folded(nodes, start)
            if self._agrees(prefix, layer):
                size = sum(values[node].nbytes for node in needed) // len(images)
                self.bytes_per_image = max(self.bytes_per_image, size)
            else:
                del self._starts[layer]
                prefix = ReusedPrefix(model, images, self)

    def _all_values(self, images: Tensor) -> Values:
        """Return copies of the values of all nodes.

        Raises:
            ValueError: If a value is used after it was changed in place, since the graph does not tell what changed it.
        """
        values: Values = {self._nodes[0]: images}
        found: Values = {}
        versions: dict[fx.Node, int] = {}
        for node in self._nodes:
            if any(values[used]._version != versions[used] for used in node.all_input_nodes if used in versions):
                raise ValueError("a value is used that was changed in place")
            if found:
                values[node] = self._calls.of(node)(values)
            value = found[node] = values[node]
            if isinstance(value, Tensor):
                found[node], versions[node] = value.clone(), value._version
        return found

    @staticmethod
    def _agrees(prefix: ReusedPrefix, layer: nn.Module) -> bool:
        """Return whether passes that start at a layer, in the way looks make them, give what the model gives."""
        parameter = next(layer.parameters(recurse=False))
        own = parameter.data.clone()
        other = own * (torch.arange(own.numel(), device=own.device) % 2).view(own.shape)
        rows = torch.arange(len(prefix.logits), device=own.device)
        parts = (rows[-1:], other), (rows[:2].flip(0), own)
        try:
            with prefix.varying(layer, parameter) as passes:
                found = passes(parts)
        except Exception:
            return False
        with prefix.varying(None, parameter) as passes:
            expected = passes(parts)
        return all(_alike(*pair) for pair in zip(found, expected, strict=True))

    def __contains__(self, layer: nn.Module) -> bool:
        """Return whether a pass can start at a layer."""
        return layer in self._starts

    def place(self, layer: nn.Module) -> int:
        """Return a number that grows along a pass from layer to layer, or 0 if no pass can start at the layer."""
        return self._order[self._starts[layer]] if layer in self else 0

    def _back(self, wanted: Iterable[fx.Node], start: fx.Node) -> tuple[list[fx.Node], set[fx.Node]]:
        """Return the nodes to compute for the wanted ones, in order, and the nodes before `start` that these read."""
        computed: set[fx.Node] = set()
        needed: set[fx.Node] = set()
        waiting = list(wanted)
        while waiting:
            node = waiting.pop()
            # A value without one row for each image, such as a size, cannot be cut like the images and is recomputed.
            if self._order[node] < self._order[start] and node in self._by_image:
                needed.add(node)
            elif node not in computed:
                computed.add(node)
                waiting.extend(node.all_input_nodes)
        return sorted(computed, key=self._order.__getitem__), needed

    def _plain(self, nodes: Sequence[fx.Node]) -> list[Step]:
        """Return the steps of a pass over the nodes."""
        return steps_of({node: self._calls.of(node) for node in nodes})

    def _folded(self, nodes: Sequence[fx.Node], start: fx.Node) -> list[Step]:
        """Return the steps of a pass over the nodes, with batch norms folded away except at `start`."""
        calls = {node: self._calls.of(node) for node in nodes}
        for norm, (convolution, call) in self._calls.folded.items():
            if convolution in calls and norm in calls and start not in (convolution, norm):
                calls[convolution], calls[norm] = call, first_argument(norm)
        return steps_of(calls)

    @staticmethod
    def _execute(steps: Sequence[Step], values: Values) -> Iterator[tuple[fx.Node, Any]]:
        """Yield the nodes of the steps with their values; `values` holds those from before the steps.

        A caller that keeps a value has to copy it before asking for the next, since a module may change it in place.
        """
        for step in steps:
            values[step.node] = step.call(values)
            yield step.node, values[step.node]
            for node in step.last_uses:
                del values[node]

    def advance(self, values: Values, layer: nn.Module | None, following: nn.Module, images: Tensor) -> Values:
        """Return the values that passes begin with at a layer, computed from those at another layer.

        Args:
            values: Values at `layer`, with a row for each image.
            layer: Layer at which passes began before; None if there was none.
            following: Layer at which passes will begin.
            images: (N, C, H, W) images.
        """
        start = self._nodes[1] if layer is None else self._starts[layer]
        if layer is None or self._order[start] > self._order[self._starts[following]]:
            values, start = {self._nodes[0]: images}, self._nodes[1]
        found = {node: values[node] for node in self._needed[following] if node in values}
        wanted = self._needed[following] - found.keys()
        nodes, needed = self._back(wanted, start)
        steps = self._plain(nodes)
        for rows in torch.arange(len(images), device=images.device).split(inference_batch(images.device, images.shape)):
            for node, value in self._execute(steps, {node: values[node][rows] for node in needed}):
                if node in wanted:
                    if node not in found:
                        found[node] = _room(value, len(images))
                    found[node][rows] = value
        return found

    def finish(self, layer: nn.Module, values: Values, positions: Tensor) -> Tensor:
        """Return the logits (n, K) of a pass that starts at a layer, for the images at (n,) positions.

        Args:
            layer: Layer at which the pass starts.
            values: Values that passes begin with there.
            positions: Positions of the images.
        """
        # Selecting rows copies them, so that a module that works in place cannot reach the values that are kept.
        chosen = {node: values[node][positions] for node in self._needed[layer]}
        return self._logits(self._steps[layer], chosen)

    def _logits(self, steps: Sequence[Step], values: Values) -> Tensor:
        """Return what the last of the steps computes."""
        ((_, logits),) = deque(self._execute(steps, values), maxlen=1)
        found: Tensor = logits
        return found


def _mixes_images(model: nn.Module, images: Tensor) -> bool:
    """Return whether the model's output for an image depends on the others in the batch."""
    with torch.no_grad():
        try:
            return not _alike(model(images[:1].clone()), model(images.clone())[:1])
        # A model that does not accept a single image mixes images too.
        except Exception:
            return True


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Return whether logits differ only by rounding, measured against the spread of those of the classes."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    spread = (expected - expected.mean(dim=-1, keepdim=True)).abs().max()
    return bool(((found - expected).abs() <= TOLERANCE * spread).all())


def _room(value: Tensor, rows: int) -> Tensor:
    """Return an empty tensor like a value but with other rows, in the same memory format."""
    last = value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    return value.new_empty((rows, *value.shape[1:])).to(memory_format=order)


def _has_rows(value: Any, rows: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == rows


class ReusedPrefix:
    """A model's passes over fixed images that start at a layer.

    Several passes with different values of one of the layer's parameters share the rest of the model.

    Args:
        model: Model in evaluation mode.
        images: (N, C, H, W) images.
        suffixes: Suffixes of this model.

    Attributes:
        logits: (N, K) logits of the unchanged model.
    """

    def __init__(self, model: nn.Module, images: Tensor, suffixes: Suffixes) -> None:
        self._model = model
        self._images = images
        self._suffixes = suffixes
        self._affordable = suffixes.bytes_per_image * len(images) <= MEMORY_LIMIT
        self._layer: nn.Module | None = None
        self._values: Values = {}
        with torch.no_grad():
            batches = images.split(inference_batch(images.device, images.shape))
            # The model gets copies because it may work on its images in place.
            self.logits = torch.cat([model(batch.clone()) for batch in batches])

    @contextmanager
    def varying(self, layer: nn.Module | None, parameter: nn.Parameter) -> Iterator[Passes]:
        """Give a function that runs parts of the images through the model, each with its own value of a parameter.

        The function takes parts and returns the logits (n, K) of each, which are valid until the next pass. The
        parameter is restored to the bit.

        Args:
            layer: Layer that holds the parameter and at which passes start; None makes passes start at the image.
            parameter: Parameter to vary.
        """
        kept = parameter.data.clone()
        try:
            with torch.no_grad():
                if layer is not None and self._affordable and layer in self._suffixes:
                    if layer is not self._layer:
                        self._values = self._suffixes.advance(self._values, self._layer, layer, self._images)
                        self._layer = layer
                    with self._in_parts(layer, parameter) as passes:
                        yield passes
                else:
                    yield lambda parts: [self._alone(parameter, part) for part in parts]
        finally:
            parameter.data.copy_(kept)

    def _alone(self, parameter: nn.Parameter, part: Inputs) -> Tensor:
        """Return the logits of a pass from the image on."""
        positions, value = part
        parameter.data.copy_(value)
        logits: Tensor = self._model(self._images[positions])
        return logits

    @contextmanager
    def _in_parts(self, layer: nn.Module, parameter: nn.Parameter) -> Iterator[Passes]:
        """Let the layer compute each part of its input with that part's own value of the parameter."""
        now: Sequence[Inputs] = ()
        room = torch.empty(0)
        forward, own = layer.forward, vars(layer).get("forward")

        def in_parts(inputs: Tensor) -> Tensor:
            # All passes share one piece of memory, because fresh memory costs more than the copy.
            nonlocal room
            start = 0
            for rows, (_, value) in zip(inputs.split([len(part) for part, _ in now]), now, strict=True):
                parameter.data.copy_(value)
                found: Tensor = forward(rows)
                if len(now) == 1:
                    return found
                if len(room) < len(inputs):
                    room = _room(found, len(inputs))
                room[start : start + len(rows)] = found
                start += len(rows)
            return room[:start]

        def passes(parts: Sequence[Inputs]) -> Sequence[Tensor]:
            nonlocal now
            now = parts
            logits = self._suffixes.finish(layer, self._values, torch.cat([part for part, _ in parts]))
            return torch.split(logits, [len(part) for part, _ in parts])

        layer.forward = in_parts
        try:
            yield passes
        finally:
            if own is None:
                del layer.forward
            else:
                layer.forward = own
