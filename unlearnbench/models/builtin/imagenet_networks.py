"""Networks for 224x224 images, from torchvision."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models.mobilenetv2 import mobilenet_v2 as torchvision_mobilenet_v2
from torchvision.models.resnet import resnet18 as torchvision_resnet18
from torchvision.models.resnet import resnet50 as torchvision_resnet50

from unlearnbench.errors import PluginError


def resnet18(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-18: four stages of two basic blocks.

    Args:
        num_classes: K outputs.
        shape: Channels, height and width of the input; 3 channels, 32 pixels or more on each side.

    Source: "Deep Residual Learning for Image Recognition" (He et al., 2015), as in torchvision.
    """
    return _torchvision(torchvision_resnet18, num_classes, shape)


def resnet50(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-50: four stages of 3, 4, 6 and 3 bottleneck blocks.

    Args:
        num_classes: K outputs.
        shape: Channels, height and width of the input; 3 channels, 32 pixels or more on each side.

    Source: "Deep Residual Learning for Image Recognition" (He et al., 2015), as in torchvision, which puts the
    stride of a bottleneck on its 3x3 convolution (ResNet v1.5).
    """
    return _torchvision(torchvision_resnet50, num_classes, shape)


def mobilenet_v2(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Return MobileNet-V2 of width 1: inverted residuals with linear bottlenecks.

    Args:
        num_classes: K outputs.
        shape: Channels, height and width of the input; 3 channels, 32 pixels or more on each side.

    Source: "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (Sandler et al., 2018), as in torchvision.
    """
    return _torchvision(torchvision_mobilenet_v2, num_classes, shape)


def _torchvision(build: Callable[..., nn.Module], num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    if shape[0] != 3:
        raise PluginError(f"{build.__name__} takes images of 3 channels, not {shape[0]}")
    return build(num_classes=num_classes)
