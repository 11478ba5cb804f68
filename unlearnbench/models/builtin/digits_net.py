"""A small network for 8x8 digits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn


def digits_net(num_classes: int, shape: tuple[int, int, int], *, width: Annotated[int, Field(gt=0)] = 16) -> nn.Module:
    """Return a convolutional network with batch norm that trains on digits in about a second.

    Args:
        num_classes: K outputs.
        shape: Channels, height and width of the input.
        width: Channels of the first layer, doubled at each of two poolings.

    Source: own; three blocks of convolution, batch norm and ReLU, then the mean over positions and one
    linear layer. It is a small version of the paper's residual networks, without the shortcuts.
    """
    return nn.Sequential(
        *_block(shape[0], width),
        nn.MaxPool2d(2),
        *_block(width, 2 * width),
        nn.MaxPool2d(2),
        *_block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )


def _block(channels: int, filters: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
