"""Batches of images: cropped, flipped and normalised as a whole, with random parameters drawn for each image."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unlearnbench.datasets.dataset import Images
from unlearnbench.models.recipe import resized_shape

BATCHES_AHEAD = 3
# Images that are brought somewhere as a whole are read by so many bytes, lest they lie in memory twice.
CHUNK_BYTES = 2**26


@dataclass(frozen=True)
class Augmentation:
    """Training augmentation.

    Attributes:
        crop: Side of the square that is cut out; None keeps the size.
        padding: Zero pixels added on each side before the cut.
        horizontal_flip: Whether each image is mirrored with probability 1/2.
    """

    crop: int | None = None
    padding: int = 0
    horizontal_flip: bool = False


@dataclass(frozen=True)
class Share:
    """What one of several processes that train a network together takes of each batch: every so manieth image.

    Attributes:
        number: Number of the process, counted from 0.
        processes: Number of processes.
    """

    number: int = 0
    processes: int = 1

    def batch_sizes(self, images: int, batch_size: int) -> list[int]:
        """Return the sizes of an epoch's whole batches, of which each process has two images at least."""
        return batch_sizes(images, batch_size, 2 * self.processes)

    def size(self, batch: int) -> int:
        """Return how many images of a batch of that size are this process's."""
        return len(range(self.number, batch, self.processes))

    def places(self, sizes: Sequence[int]) -> Tensor:
        """Return where its images of all batches stand in the order of an epoch, (M,) int64."""
        ends = accumulate(sizes)
        parts = (
            torch.arange(end - size + self.number, end, self.processes) for end, size in zip(ends, sizes, strict=True)
        )
        return torch.cat([torch.empty(0, dtype=torch.int64), *parts])


ALONE = Share()


def batch_sizes(images: int, batch_size: int, fewest: int = 2) -> list[int]:
    """Return the sizes of an epoch's batches, in order.

    A single image that is left over joins the batch before, because batch normalisation cannot learn from one image
    where the network has reduced it to one place.

    Args:
        images: Images of the epoch.
        batch_size: Images in each batch but the last.
        fewest: Fewest images that may be left over for a batch of their own.
    """
    whole, rest = divmod(images, batch_size)
    sizes = [batch_size] * whole
    if rest < fewest and whole:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    return sizes


class Batches:
    """Labelled images ready for a network.

    Images that fit are kept as one uint8 tensor on the device, or else in the machine's memory. All others stay on
    disk and are read a few batches ahead by a thread of their own. No code here loops over single images, and no
    result depends on where the images are kept.

    Args:
        images: (N, C, H, W) uint8 on any device, or images that are read when they are needed.
        labels: (N,) int64, on the device that batches are to be on.
        mean: C means in [0, 1].
        std: C standard deviations, on the same scale.
        augmentation: What training does to the images.
    """

    def __init__(
        self,
        images: Tensor | Images,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation,
    ) -> None:
        self.labels = labels
        self.augmentation = augmentation
        self._images = images
        scale = 255.0 * torch.tensor(std, dtype=torch.float32, device=labels.device)
        self._scale = (1.0 / scale)[:, None, None]
        self._shift = (-255.0 * torch.tensor(mean, dtype=torch.float32, device=labels.device) / scale)[:, None, None]
        self._windows: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def positions_of(self, classes: Sequence[int]) -> Tensor:
        """Return the positions, (M,) int64 on the labels' device, of all images of some classes."""
        return torch.nonzero(torch.isin(self.labels, torch.tensor(classes, device=self.labels.device))).flatten()

    def normalise(self, images: Tensor) -> Tensor:
        """Return uint8 images (B, C, H, W) as float32, shifted by the mean and divided by the standard deviation."""
        return torch.addcmul(self._shift, images.to(torch.float32), self._scale)

    def denormalise(self, images: Tensor) -> Tensor:
        """Return normalised images (B, C, H, W) as float32 intensities in [0, 1]."""
        return (images - self._shift) / (255.0 * self._scale)

    def plain(self, positions: Tensor) -> Tensor:
        """Return the images at `positions` as evaluation sees them: cut from the centre and normalised."""
        return next(self._plain([positions]))

    def in_order(self, batch_size: int, positions: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield plain batches and labels of the images at `positions`, or of all images if it is None."""
        chosen = torch.arange(len(self), device=self.labels.device) if positions is None else positions
        parts = chosen.split(batch_size)
        for part, images in zip(parts, self._plain(parts), strict=True):
            yield images, self.labels[part]

    def _plain(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        crop = self.augmentation.crop
        for images in self._stored(parts):
            if crop is not None:
                top, left = (images.shape[-2] - crop) // 2, (images.shape[-1] - crop) // 2
                images = images[..., top : top + crop, left : left + crop]
            yield self.normalise(images.to(self.labels.device))

    def _stored(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the stored images (B, C, H, W) uint8 at each entry of `parts`."""
        images = self._images
        if isinstance(images, Tensor):
            for part in parts:
                yield images[part.to(images.device)]
        else:
            yield from read_ahead(images, parts)

    def shuffled(
        self,
        batch_size: int,
        generator: torch.Generator,
        positions: Tensor | None = None,
        share: Share = ALONE,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented batches and labels of one epoch in random order.

        Args:
            batch_size: Images in a batch; the last one may be smaller, or larger by one: see `batch_sizes`.
            generator: CPU generator; the order, the crops and the flips depend on nothing else.
            positions: (M,) int64, the images of the epoch; None means all.
            share: What of each batch is yielded; the order, the crops and the flips are those of the whole.
        """
        chosen = torch.arange(len(self)) if positions is None else positions.cpu()
        order = chosen[torch.randperm(len(chosen), generator=generator)]
        height, width = self._images.shape[-2:]
        side, padding = self.augmentation.crop, 2 * self.augmentation.padding
        # Drawing all random numbers of the epoch at once costs a single transfer to the device.
        rows = torch.randint(height + padding - (side or height) + 1, order.shape, generator=generator)
        columns = torch.randint(width + padding - (side or width) + 1, order.shape, generator=generator)
        device = self.labels.device
        flips = torch.rand(order.shape, generator=generator) < 0.5
        sizes = share.batch_sizes(len(order), batch_size)
        if share.processes > 1:
            places = share.places(sizes)
            order, rows, columns, flips = (values[places] for values in (order, rows, columns, flips))
            sizes = [share.size(size) for size in sizes]
        flips, labels = flips.to(device), self.labels[order.to(device)]
        turned = zip(flips.split(sizes), labels.split(sizes), strict=True)
        for images, (flipped, truth) in zip(self._cut(order, rows, columns, sizes), turned, strict=True):
            if self.augmentation.horizontal_flip:
                images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
            yield self.normalise(images), truth

    def _cut(self, order: Tensor, rows: Tensor, columns: Tensor, sizes: list[int]) -> Iterator[Tensor]:
        """Yield batches (B, C, side, side) uint8 on the device, each image cut at its own position."""
        device = self.labels.device
        if not isinstance(self._images, Tensor):
            parts = zip(rows.split(sizes), columns.split(sizes), strict=True)
            for images, (top, left) in zip(read_ahead(self._images, order.split(sizes)), parts, strict=True):
                here = torch.arange(len(images), device=device)
                yield self._places(images.to(device))[here, :, top.to(device), left.to(device)]
            return
        if self._windows is None:
            self._windows = self._places(self._images)
        home = self._images.device
        cuts = (values.to(home).split(sizes) for values in (order, rows, columns))
        for part, top, left in zip(*cuts, strict=True):
            yield self._windows[part, :, top, left].to(device)

    def _places(self, images: Tensor) -> Tensor:
        """Return a view (N, C, rows, columns, side, side) of every square that can be cut from the padded images."""
        padding = self.augmentation.padding
        height, width = images.shape[-2:]
        padded = F.pad(images, (padding,) * 4) if padding else images
        side = self.augmentation.crop
        return padded.unfold(2, side or height, 1).unfold(3, side or width, 1)


def resized(images: Tensor, side: int) -> Tensor:
    """Return images (B, C, H, W) float32 whose shorter side has `side` pixels, smoothed before they are thinned out."""
    height, width = images.shape[-2:]
    return F.interpolate(images, resized_shape(height, width, side), mode="bilinear", antialias=True)


def read_ahead(images: Images, parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the images (B, C, H, W) uint8 at each entry of `parts`, read on a thread while earlier ones are used."""

    def read(part: Tensor) -> Tensor:
        return torch.from_numpy(images.read(part.cpu().numpy()))

    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        waiting = deque(thread.submit(read, part) for part in parts[:BATCHES_AHEAD])
        try:
            for position in range(len(parts)):
                ready = waiting.popleft().result()
                if position + BATCHES_AHEAD < len(parts):
                    waiting.append(thread.submit(read, parts[position + BATCHES_AHEAD]))
                yield ready
        finally:
            for future in waiting:
                future.cancel()


def image_tensor(images: Images, positions: NDArray[np.int64], device: torch.device) -> Tensor:
    """Return a copy of the images at `positions` as one uint8 tensor (N, C, H, W) on the device.

    The copy makes sure that no other image of the data set can be reached through the tensor.
    """
    tensor = torch.empty((len(positions), *images.shape), dtype=torch.uint8, device=device)
    filled = 0
    for part in read_by_parts(images, positions):
        # torch warns of arrays that may not be written to, as a reader may return them.
        tensor[filled : filled + len(part)] = torch.from_numpy(np.array(part))
        filled += len(part)
    return tensor


def read_by_parts(images: Images, positions: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Yield the images at `positions` in order, (n, C, H, W), as many at a time as take no room to speak of."""
    most = max(1, CHUNK_BYTES // math.prod(images.shape))
    for start in range(0, len(positions), most):
        yield images.read(positions[start : start + most])


# The batch is as large as the device handles well. On a CPU it has no more pixels than keep a layer's activations at a
# few MiB: larger activations fall out of the caches, and the allocator requests every block above 32 MiB from the
# system anew. A ResNet-20 took half the time over CIFAR-100 with 64 images in a batch that it took with 512.
MOST_IMAGES, FEWEST_IMAGES = 512, 16
CPU_PIXELS = 64 * 32 * 32


def inference_batch(device: torch.device, shape: Sequence[int]) -> int:
    """Return how many images a forward pass without gradients should take at a time.

    Args:
        device: Device that the pass runs on.
        shape: Shape of the images as the network takes them, height and width last.
    """
    if device.type != "cpu":
        return MOST_IMAGES
    return min(MOST_IMAGES, max(FEWEST_IMAGES, CPU_PIXELS // (shape[-2] * shape[-1])))


def in_batches(images: Batches, positions: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield plain batches and labels, in order and sized for a forward pass without gradients.

    Args:
        images: Images to take the batches from.
        positions: (M,) int64, the images to yield; None means all.
    """
    device = images.labels.device
    shape = images.plain(torch.arange(0, device=device)).shape
    return images.in_order(inference_batch(device, shape), positions)
