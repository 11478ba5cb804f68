"""Batches: whole-batch crop, flip and normalisation with random parameters of their own for every image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unlearnbench.dataset import Images


@dataclass(frozen=True)
class Augmentation:
    """Training augmentation.

    Attributes:
        crop: Side of the square that is cut out, None keeps the size.
        padding: Zero pixels added on each side before the cut.
        horizontal_flip: Mirror each image with probability 1/2.
    """

    crop: int | None = None
    padding: int = 0
    horizontal_flip: bool = False


class Batches:
    """Labelled images ready for a network.

    Images that fit are one uint8 tensor on the device. Nothing here loops over images.

    Args:
        images: (N, C, H, W) uint8, on the device already.
        labels: (N,) int64.
        mean: C means in [0, 1].
        std: C standard deviations in [0, 1].
        augmentation: What training does to the images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation,
    ) -> None:
        self.labels = labels
        self.augmentation = augmentation
        self._images = images
        scale = 255.0 * torch.tensor(std, dtype=torch.float32, device=images.device)
        self._scale = (1.0 / scale)[:, None, None]
        self._shift = (-255.0 * torch.tensor(mean, dtype=torch.float32, device=images.device) / scale)[:, None, None]
        self._windows: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def normalise(self, images: Tensor) -> Tensor:
        """Return uint8 images (B, C, H, W) as float32 with mean 0 and standard deviation 1."""
        return torch.addcmul(self._shift, images.to(torch.float32), self._scale)

    def denormalise(self, images: Tensor) -> Tensor:
        """Return normalised images (B, C, H, W) as float32 intensities in [0, 1]."""
        return (images - self._shift) / (255.0 * self._scale)

    def plain(self, positions: Tensor) -> Tensor:
        """Return the images at `positions` as a test shows them: cut from the centre, normalised."""
        images = self._images[positions]
        crop = self.augmentation.crop
        if crop is not None:
            top, left = (images.shape[-2] - crop) // 2, (images.shape[-1] - crop) // 2
            images = images[..., top : top + crop, left : left + crop]
        return self.normalise(images)

    def in_order(self, batch_size: int, positions: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield plain batches and labels of the images at `positions`, of all if None."""
        chosen = torch.arange(len(self), device=self.labels.device) if positions is None else positions
        for batch in chosen.split(batch_size):
            yield self.plain(batch), self.labels[batch]

    def shuffled(
        self, batch_size: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented batches and labels of one epoch in random order.

        Args:
            batch_size: Images in a batch; the last one may be smaller.
            generator: On the CPU; the epoch depends on it alone.
            positions: (M,) int64, the images of the epoch; all if None.
        """
        device = self.labels.device
        chosen = torch.arange(len(self)) if positions is None else positions.cpu()
        order = chosen[torch.randperm(len(chosen), generator=generator)].to(device)
        windows = self._crop_windows()
        # All random numbers of an epoch are drawn at once and go to the device in one transfer.
        rows = torch.randint(windows.shape[2], order.shape, generator=generator).to(device)
        columns = torch.randint(windows.shape[3], order.shape, generator=generator).to(device)
        flips = (torch.rand(order.shape, generator=generator) < 0.5).to(device)
        for start in range(0, len(order), batch_size):
            part = slice(start, start + batch_size)
            positions_here = order[part]
            images = windows[positions_here, :, rows[part], columns[part]]
            if self.augmentation.horizontal_flip:
                images = torch.where(flips[part, None, None, None], images.flip(-1), images)
            yield self.normalise(images), self.labels[positions_here]

    def _crop_windows(self) -> Tensor:
        """Return a view (N, C, rows, columns, side, side) of all places where a crop can be."""
        if self._windows is None:
            padding = self.augmentation.padding
            padded = F.pad(self._images, (padding,) * 4) if padding else self._images
            height = self.augmentation.crop or self._images.shape[-2]
            width = self.augmentation.crop or self._images.shape[-1]
            self._windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        return self._windows


def image_tensor(images: Images, positions: np.ndarray[tuple[int], np.dtype[np.int64]], device: torch.device) -> Tensor:
    """Return a copy of the images at `positions` as one uint8 tensor (N, C, H, W) on the device.

    A copy, so that nothing beyond these images can be reached through it.
    """
    return torch.from_numpy(np.array(images.read(positions), copy=True)).to(device)
