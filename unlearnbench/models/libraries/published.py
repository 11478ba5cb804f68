"""Weights that someone trained and published: where they are, what they are of, and how their images were prepared."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PublishedWeights:
    """Weights of a network that someone trained and published.

    Attributes:
        url: Address of the file, or of a zip archive that holds it.
        file_name: Name of the checkpoint.
        algorithm: Hash algorithm of `checksum`.
        checksum: Hexadecimal digits of the checkpoint's hash, or the first of them.
        size: Approximate size in bytes.
        num_classes: K outputs.
        mean: Channel means that images were normalised with in training.
        std: Channel standard deviations that they were normalised with.
        side: Side of the square that their evaluation cuts from an image; None if it takes images as they are.
    """

    url: str
    file_name: str
    algorithm: str
    checksum: str
    size: int
    num_classes: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    side: int | None = None
