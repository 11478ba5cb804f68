"""Looks at a class's accuracy with parts of a layer zeroed, in the literal order or in a fraction of the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from unlearnbench.models.batches import inference_batch
from unlearnbench.unlearners.builtin.prefix_cache import Inputs, ReusedPrefix, Suffixes
from unlearnbench.unlearners.task import UnlearningTask

# The first batch of a quick look has this many images, and each further one brings this many times as many in total.
# They are few because most looks recognise nearly all of the first images, but enough to keep the layers busy.
FIRST_BATCH, GROWTH = 6, 2


@dataclass(frozen=True)
class Look:
    """A question about the accuracy of a class with parts of a layer zeroed.

    Attributes:
        label: The class.
        zeroed: Bool mask in the shape of the layer.
    """

    label: int
    zeroed: Tensor


class Looks(Protocol):
    """Gives the accuracies that looks at some classes ask for."""

    intact: dict[int, float]

    def __init__(
        self,
        model: nn.Module,
        suffixes: Suffixes,
        images: dict[int, Tensor],
        task: UnlearningTask,
        threshold: float,
    ) -> None:
        """Take in the images of the classes.

        Args:
            model: Model in evaluation mode.
            suffixes: Suffixes of the model for the layers that will be looked at.
            images: (N, C, H, W) images of each class, by label.
            task: Task that counts the images.
            threshold: Accuracy below which an accuracy is low.
        """

    def accuracies(self, layer: nn.Module, parameter: nn.Parameter, looks: Sequence[Look]) -> list[float]:
        """Return the accuracy of each look, with its positions of a layer's parameter at 0; the parameter is restored.

        An accuracy that is not low may be replaced by any other number that is not low.
        """


class LiteralLooks:
    """Looks that each send all images of a class through the whole model, in exactly the order of the paper.

    See `Looks`.

    Attributes:
        intact: Accuracy of each class with nothing zeroed.
    """

    def __init__(
        self,
        model: nn.Module,
        suffixes: Suffixes,
        images: dict[int, Tensor],
        task: UnlearningTask,
        threshold: float,
    ) -> None:
        self._model, self._images, self._task = model, images, task
        self.intact = {label: self._accuracy(label) for label in images}

    def _accuracy(self, label: int) -> float:
        images = self._images[label]
        self._task.count(torch.full((len(images),), label, device=images.device))
        with torch.inference_mode():
            return int((self._model(images.clone()).argmax(dim=1) == label).sum()) / len(images)

    def accuracies(self, layer: nn.Module, parameter: nn.Parameter, looks: Sequence[Look]) -> list[float]:
        """Return the accuracy of each look; see `Looks`."""
        found = []
        for look in looks:
            with zeros(parameter, look.zeroed):
                found.append(self._accuracy(look.label))
        return found


class QuickLooks:
    """Looks with the same answers in a fraction of the time.

    What runs before the zeroed layer is computed once, and what runs after it is computed for several looks together.
    The images of a class go through in batches, so that a look ends as soon as enough of them are recognised for the
    accuracy not to be low. Those that the previous look recognised come first, followed by those of which the whole
    model is surest.

    See `Looks`.

    Attributes:
        intact: Accuracy of each class with nothing zeroed.
    """

    def __init__(
        self,
        model: nn.Module,
        suffixes: Suffixes,
        images: dict[int, Tensor],
        task: UnlearningTask,
        threshold: float,
    ) -> None:
        self._task, self._threshold = task, threshold
        every = torch.cat(list(images.values()))
        labels = torch.cat([torch.full((len(part),), label, device=every.device) for label, part in images.items()])
        self._batch = inference_batch(every.device, every.shape)
        self._prefix = ReusedPrefix(model, every, suffixes)
        task.count(labels)
        hits = self._prefix.logits.argmax(dim=1) == labels
        sureness = self._prefix.logits.log_softmax(dim=1).gather(1, labels[:, None]).flatten()
        self.intact, self._surest = {}, {}
        for label, part in images.items():
            positions = torch.nonzero(labels == label).flatten()
            self.intact[label] = int(hits[positions].sum()) / len(part)
            self._surest[label] = positions[sureness[positions].argsort(descending=True, stable=True)]
        self._layer: nn.Parameter | None = None
        self._orders: dict[int, Tensor] = {}

    def accuracies(self, layer: nn.Module, parameter: nn.Parameter, looks: Sequence[Look]) -> list[float]:
        """Return the accuracy of each look; see `Looks`."""
        if self._layer is not parameter:
            self._layer, self._orders = parameter, dict(self._surest)
        counts = [Count(look, self._orders[look.label], parameter.masked_fill(look.zeroed, 0)) for look in looks]
        with self._prefix.varying(layer, parameter) as passes:
            while waiting := [count for count in counts if count.open(self._threshold)]:
                for together in _packed(waiting, self._batch):
                    for count, logits in zip(together, passes([count.next_part for count in together]), strict=True):
                        self._task.count(torch.full((len(logits),), count.look.label, device=logits.device))
                        count.take(logits.argmax(dim=1) == count.look.label)
        self._orders |= {count.look.label: count.order_for_the_next for count in counts}
        return [count.accuracy for count in counts]


class Count:
    """A look in progress, with the number of the class's images that are recognised so far.

    Args:
        look: Look to answer.
        order: (N,) positions of the images, in the order in which they go through.
        value: Value of the parameter, with the positions of the look at 0.

    Attributes:
        look: Look to answer.
    """

    def __init__(self, look: Look, order: Tensor, value: Tensor) -> None:
        self.look = look
        self._order = order
        self._value = value
        self._seen: list[Tensor] = []
        self._start = 0
        self._hits = 0

    @property
    def accuracy(self) -> float:
        """Share of recognised images among all, which is too low until all images have been seen."""
        return self._hits / len(self._order)

    def open(self, threshold: float) -> bool:
        """Return whether unseen images could still change the answer: whether it is low, and if so how low."""
        return self._start < len(self._order) and self.accuracy < threshold

    @property
    def next_part(self) -> Inputs:
        """Images that go through next, with the parameter's value; batches grow as most looks need only the first."""
        return self._order[self._start : max(FIRST_BATCH, GROWTH * self._start)], self._value

    def take(self, hits: Tensor) -> None:
        """Record which of the next images were recognised, (n,) bool."""
        self._seen.append(hits)
        self._start += len(hits)
        self._hits += int(hits.sum())

    @property
    def order_for_the_next(self) -> Tensor:
        """(N,) positions: the recognised images first, then the unseen ones, then the others."""
        seen = torch.cat(self._seen)
        tried, rest = self._order[: self._start], self._order[self._start :]
        return torch.cat([tried[seen], rest, tried[~seen]])


def _packed(counts: Sequence[Count], batch: int) -> Iterator[list[Count]]:
    """Yield the looks in groups whose next parts make up one batch; a part of at least half a batch goes alone.

    Joining parts copies them, which costs more than it gains if a part keeps the layers busy by itself.
    """
    group: list[Count] = []
    size = 0
    for count in counts:
        images = len(count.next_part[0])
        if 2 * images >= batch:
            yield [count]
            continue
        if group and size + images > batch:
            yield group
            group, size = [], 0
        group.append(count)
        size += images
    if group:
        yield group


@contextmanager
def zeros(parameter: nn.Parameter, zeroed: Tensor) -> Iterator[None]:
    """Set positions of a parameter to 0 for the context, and restore them to the bit."""
    kept = parameter.data.clone()
    parameter.data.masked_fill_(zeroed, 0)
    try:
        yield
    finally:
        parameter.data.copy_(kept)
