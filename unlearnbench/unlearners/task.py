"""What an unlearner is given: the limited data and the problem, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from unlearnbench.models.batches import Batches, batch_sizes
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.training import autocast, resolve_precision
from unlearnbench.seeds import derived_seed

LimitedPart = Literal["all", "forget", "retain"]


class Keeper(Protocol):
    """Keeps tensors that depend only on the original model and the limited data."""

    def __call__(
        self,
        name: str,
        settings: dict[str, Any],
        compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]],
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what `compute` returns, or returned in an earlier call by the same unlearner with the same arguments.

        The facts also get an `id` that identifies them among the kept results.
        """


class Watcher(Protocol):
    """Is notified when an epoch ends."""

    def epoch_ended(self, model: nn.Module, image_passes: dict[str, int]) -> None:
        """Record the model at the end of an epoch, and the image passes by then."""


class UnlearningTask:
    """The limited data, the classes, the recipe, and a way to make a fresh model.

    It holds copies of the limited images alone, so that neither test images nor other training images can be
    reached through it. It counts the images that it gives out, by kind.

    Args:
        limited_data: Limited images of all classes.
        forget_classes: Indices of the forget classes, ascending.
        num_classes: K classes.
        recipe: Training recipe of the original.
        seed: Seed of the run.
        fresh_model: Function that returns the model as the original's training started.
        keep: Store for what can be shared between runs; None computes everything anew.
        advance: Callback that receives the number of images after each batch.
        expect: Callback that receives how many images will be read from here on; see `UnlearningTask.expect`.
        watcher: Watcher that is notified at the end of each epoch; None if there is none.

    Attributes:
        forget_classes: (F,) int64 on the device.
        retain_classes: (K - F,) int64 on the device.
        num_classes: K classes.
        recipe: Training recipe of the original.
        device: Device of the images and labels.
        seed: Seed of the run.
        limited_counts: (K,) int64, the number of limited images of each class; 0 for a class that the party of a
            federation does not hold.
        details: JSON values that an unlearner wants in its record; see `report`.
        shared_seconds: Seconds that kept results took when an earlier run computed them.
    """

    def __init__(
        self,
        limited_data: Batches,
        forget_classes: tuple[int, ...],
        num_classes: int,
        recipe: TrainingRecipe,
        seed: int,
        fresh_model: Callable[[], nn.Module],
        *,
        keep: Keeper | None = None,
        advance: Callable[[int], None] = lambda images: None,
        expect: Callable[[int], None] = lambda images: None,
        watcher: Watcher | None = None,
    ) -> None:
        self.device = limited_data.labels.device
        self.num_classes = num_classes
        self.recipe = recipe
        self.seed = seed
        self.forget_classes = torch.tensor(forget_classes, device=self.device)
        retain = [label for label in range(num_classes) if label not in forget_classes]
        self.retain_classes = torch.tensor(retain, device=self.device)
        self._data = limited_data
        self._fresh_model = fresh_model
        self._keep = keep
        self._advance = advance
        self._expect = expect
        self._watcher = watcher
        self._forgotten = torch.zeros(num_classes, dtype=torch.bool, device=self.device)
        self._forgotten[self.forget_classes] = True
        self.limited_counts = torch.bincount(limited_data.labels, minlength=num_classes)
        is_forget = self._forgotten[limited_data.labels]
        every = torch.arange(len(limited_data), device=self.device)
        self._positions = {"all": every, "forget": every[is_forget], "retain": every[~is_forget]}
        self._reads = torch.zeros(2, dtype=torch.int64, device=self.device)
        self._epochs_given = 0
        self.details: dict[str, Any] = {}
        self.shared_seconds = 0.0

    def is_forget(self, labels: Tensor) -> Tensor:
        """Return (B,) bool: which of the (B,) labels are forget classes."""
        return self._forgotten[labels]

    def size(self, kind: LimitedPart = "all") -> int:
        """Return the number of limited images of a kind."""
        return len(self._positions[kind])

    def steps(self, kind: LimitedPart = "all", batch_size: int | None = None) -> int:
        """Return the number of batches in an epoch."""
        return len(batch_sizes(self.size(kind), batch_size or self.recipe.batch_size))

    def batches(
        self,
        epochs: int,
        kind: LimitedPart = "all",
        *,
        batch_size: int | None = None,
        only: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shuffled batches with the training augmentation.

        Args:
            epochs: Passes over the limited images of the kind.
            kind: `all`, `forget` or `retain` images.
            batch_size: Images in a batch; None means those of the recipe. A single image that is left over joins the
                last batch, and the record then says so.
            only: (M,) int64, places of the images to take in the order in which `plain` yields those of the kind, so
                that a method can hold out the others; None takes all.

        Yields:
            Normalised images (B, C, H, W) float32 and their labels (B,) int64.
        """
        size = batch_size or self.recipe.batch_size
        positions = self._positions[kind] if only is None else self._positions[kind][only]
        largest = max(batch_sizes(len(positions), size), default=0)
        if epochs and largest > size:
            self.report("joined_batch", largest)
        for _ in range(epochs):
            generator = self.generator("batches", self._epochs_given)
            self._epochs_given += 1
            for images, labels in self._data.shuffled(size, generator, positions):
                self.count(labels)
                yield images, labels

    def plain(self, kind: LimitedPart = "all", *, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of the limited images in order, as evaluation shows them."""
        for images, labels in self._data.in_order(batch_size, self._positions[kind]):
            self.count(labels)
            yield images, labels

    def images_of(self, label: int) -> Tensor:
        """Return the limited images of one class, (M, C, H, W) float32, as evaluation shows them."""
        positions = torch.nonzero(self._data.labels == label).flatten()
        images = self._data.plain(positions)
        self.count(self._data.labels[positions])
        return images

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of the images as the network takes them."""
        return tuple(self._data.plain(self._positions["all"][:0]).shape[1:])

    def pixels(self, images: Tensor) -> Tensor:
        """Return normalised images as intensities in [0, 1]."""
        return self._data.denormalise(images)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return intensities in [0, 1] normalised as the network takes them."""
        return self._data.normalise(pixels * 255.0)

    def count(self, labels: Tensor) -> None:
        """Count images that go through the network; `batches`, `plain` and `images_of` do so by themselves.

        Args:
            labels: (B,) class indices of the images.
        """
        forget = self._forgotten[labels].sum()
        self._reads[0] += forget
        self._reads[1] += len(labels) - forget
        self._advance(len(labels))

    def expect(self, images: int) -> None:
        """Say how many images will be read from here to the end, as well as that is known; it may be said anew.

        The time that is left is estimated by it. A method that says nothing is expected to read its `epochs` times the
        limited data.
        """
        self._expect(images)

    @property
    def image_passes(self) -> dict[str, int]:
        """Number of images of each kind that were given out so far."""
        forget, retain = self._reads.tolist()
        return {"forget": forget, "retain": retain}

    def report(self, name: str, value: Any) -> None:
        """Put a JSON value into the record's `details` under a name."""
        self.details[name] = value

    def fresh_model(self) -> nn.Module:
        """Return the model as the original's own training started, random or, if the recipe says so, pre-trained."""
        return self._fresh_model().to(self.device)

    def end_epoch(self, model: nn.Module) -> None:
        """Declare an epoch of the unlearner over; with `evaluate_every` the model is judged in its present state.

        Args:
            model: Model that the unlearner will return.
        """
        if self._watcher is not None:
            self._watcher.epoch_ended(model, self.image_passes)

    def generator(self, *purpose: str | int) -> torch.Generator:
        """Return a random stream on the CPU for one purpose, the same for every unlearner with this seed."""
        return torch.Generator().manual_seed(derived_seed(self.seed, "task", *purpose))

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a forward pass computes in the recipe's precision."""
        return autocast(resolve_precision(self.recipe.precision, self.device), self.device)

    def keep(
        self,
        name: str,
        settings: dict[str, Any],
        compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]],
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and facts that depend only on the original model, the limited data and `settings`.

        They are computed once and shared by all runs on the same original and limited data. The images that were
        read to compute them are counted for each run.
        """

        def counted() -> tuple[dict[str, Tensor], dict[str, Any]]:
            before = self._reads.clone()
            started = monotonic()
            tensors, facts = compute()
            forget, retain = (self._reads - before).tolist()
            cost = {"image_passes": {"forget": forget, "retain": retain}, "seconds": monotonic() - started}
            return tensors, {**facts, **cost}

        if self._keep is None:
            return counted()
        before = self._reads.clone()
        started = monotonic()
        tensors, facts = self._keep(name, settings, counted)
        self.details.setdefault("kept", {})[name] = facts["id"]
        self.shared_seconds += max(0.0, facts["seconds"] - (monotonic() - started))
        reads = facts["image_passes"]
        self._reads = before + torch.tensor([reads["forget"], reads["retain"]], device=self.device)
        return {key: value.to(self.device) for key, value in tensors.items()}, facts
