"""Forward passes without gradients: how many images at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unlearnbench.pipeline import Batches

# As many images as a device handles well, but on a CPU no more pixels than keep a layer's values at a few MiB: larger
# ones leave the caches, and above 32 MiB the allocator takes each anew from the system. A ResNet-20 went through
# CIFAR-100 twice as fast with 64 images at a time as with 512.
MOST_IMAGES, FEWEST_IMAGES = 512, 16
CPU_PIXELS = 64 * 32 * 32


def inference_batch(device: torch.device, shape: Sequence[int]) -> int:
    """Return how many images a forward pass without gradients should take at a time.

    Args:
        device: Where it computes.
        shape: Of the images as the network takes them, height and width last.
    """
    if device.type != "cpu":
        return MOST_IMAGES
    return min(MOST_IMAGES, max(FEWEST_IMAGES, CPU_PIXELS // (shape[-2] * shape[-1])))


def in_batches(images: Batches, positions: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield plain batches and labels for a forward pass without gradients, of the images at `positions` in order.

    Args:
        images: The images.
        positions: (M,) int64; all if None.
    """
    device = images.labels.device
    shape = images.plain(torch.arange(0, device=device)).shape
    return images.in_order(inference_batch(device, shape), positions)
