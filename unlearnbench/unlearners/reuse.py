"""Forward passes that start at a layer: what runs before it is computed once for many looks at the layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Activations beyond this are not kept: the pass then starts at the image.
MEMORY_LIMIT = 2 * 2**30


@dataclass
class Call:
    """One module's part in a forward pass.

    Attributes:
        started: Position among all starts and ends.
        ended: The same, of its end.
        times: How often it was called.
        output: What it returned last, if that is a tensor.
    """

    started: int
    ended: int = -1
    times: int = 0
    output: Tensor | None = None


class ReusedPrefix:
    """A model's passes over fixed images, with all modules that are done before a layer starts answered from memory.

    Works for any model whose modules are called in the same order each time; a module that is called twice, or
    returns something else than a tensor, is computed each time. The values are the same to the bit.

    Args:
        model: In evaluation mode.
        images: (N, C, H, W).
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self._model = model
        self._images = images
        self._calls: dict[nn.Module, Call] = {}
        self._bytes = 0
        with torch.no_grad(), self._watched():
            self.logits: Tensor = model(images)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Note the order, the number and the outputs of all calls."""
        clock = 0

        def begin(module: nn.Module, inputs: Any) -> None:
            nonlocal clock
            clock += 1
            self._calls.setdefault(module, Call(clock)).times += 1

        def end(module: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal clock
            clock += 1
            self._calls[module].ended = clock
            if isinstance(output, Tensor):
                self._keep(module, output)

        handles = [module.register_forward_pre_hook(begin) for module in self._model.modules()]
        handles += [module.register_forward_hook(end) for module in self._model.modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, module: nn.Module, output: Tensor) -> None:
        """Keep what a module returned, or nothing of any module as soon as all would take more than the limit."""
        self._bytes += output.nbytes
        if self._affordable:
            # A copy: a module that works in place would change what came before it.
            self._calls[module].output = output.clone()
        else:
            for call in self._calls.values():
                call.output = None

    @property
    def _affordable(self) -> bool:
        return self._bytes <= MEMORY_LIMIT

    @contextmanager
    def before(self, layer: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
        """Give a function that returns the logits (n, K) of the images at (n,) positions, starting at `layer`.

        Within the context the modules that were done before the layer answer from memory; the layer's weights may
        be changed there.
        """
        positions = torch.arange(len(self._images), device=self._images.device)

        def answer(output: Tensor) -> Callable[..., Tensor]:
            # Taking rows copies them, so that a module that works in place does not reach what is kept.
            return lambda *_, **__: output[positions]

        def logits(wanted: Tensor) -> Tensor:
            nonlocal positions
            positions = wanted
            found: Tensor = self._model(self._images[wanted])
            return found

        replaced = list(self._done_before(layer))
        for module, output in replaced:
            module.forward = answer(output)
        try:
            with torch.no_grad():
                yield logits
        finally:
            for module, _ in replaced:
                del module.forward

    def _done_before(self, layer: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
        """Yield the outermost modules that end before a layer starts, with what they returned."""
        start = self._calls[layer].started
        waiting = [self._model] if self._affordable else []
        while waiting:
            module = waiting.pop()
            call = self._calls.get(module)
            if call is not None and call.ended < start and call.times == 1 and self._by_image(call.output):
                assert call.output is not None
                yield module, call.output
            else:
                waiting.extend(module.children())

    def _by_image(self, output: Tensor | None) -> bool:
        """Return whether an output has one row for each image, so that it can be cut like the images."""
        return output is not None and output.dim() > 0 and len(output) == len(self._images)
