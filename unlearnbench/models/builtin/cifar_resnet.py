"""Residual networks for 32x32 images, from pytorchcv."""

from __future__ import annotations

from pytorchcv.models.resnet_cifar import CIFARResNet
from torch import nn

CHANNELS = (16, 32, 64)


def resnet20(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-20 for CIFAR: three stages of three basic blocks.

    Args:
        num_classes: K outputs.
        shape: Channels, height and width of the input.

    Source: "Deep Residual Learning for Image Recognition" (He et al., 2015), section 4.2, in pytorchcv's form
    `resnet20_cifar100`, whose shortcuts are 1x1 convolutions where the paper pads with zeros (278,324 parameters).
    """
    return _cifar_resnet(num_classes, shape, blocks=3, bottleneck=False)


def resnet56(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-56 for CIFAR: three stages of nine basic blocks.

    Args:
        num_classes: K outputs.
        shape: Channels, height and width of the input.

    Source: as resnet20; pytorchcv's `resnet56_cifar100` (861,620 parameters).
    """
    return _cifar_resnet(num_classes, shape, blocks=9, bottleneck=False)


def resnet164(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-164 for CIFAR: three stages of 18 bottleneck blocks.

    Args:
        num_classes: K outputs.
        shape: Channels, height and width of the input.

    Source: pytorchcv's `resnet164bn_cifar100` (1,727,284 parameters): (164 - 2) / 9 = 18 bottlenecks of three
    convolutions in each stage, activations after the sum. The depth comes from "Identity Mappings in Deep Residual
    Networks" (He et al., 2016), which compares this form with the pre-activation one. ERwP's supplement 4.2 cites
    the first residual network paper for all three depths, which is why the form of that paper is used here.
    """
    return _cifar_resnet(num_classes, shape, blocks=18, bottleneck=True)


def resnet18_cifar(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-18 with the stem for small images: one 3x3 convolution of stride 1, and no pooling after it.

    Args:
        num_classes: K outputs.
        shape: Channels, height and width of the input.

    Source: "Deep Residual Learning for Image Recognition" (He et al., 2015), ResNet-18 with the first convolution and
    pooling replaced as most papers on CIFAR do (11,173,962 parameters for 10 classes); built from torchvision's blocks.
    """
    from torchvision.models.resnet import resnet18

    network: nn.Module = resnet18(num_classes=num_classes)
    stem = nn.Conv2d(shape[0], 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    network.conv1, network.maxpool = stem, nn.Identity()
    return network


def _cifar_resnet(num_classes: int, shape: tuple[int, int, int], *, blocks: int, bottleneck: bool) -> nn.Module:
    """Return pytorchcv's network, built from its class because its functions allow only 10 and 100 classes."""
    widths = [channels * 4 if bottleneck else channels for channels in CHANNELS]
    network: nn.Module = CIFARResNet(
        channels=[[width] * blocks for width in widths],
        init_block_channels=CHANNELS[0],
        bottleneck=bottleneck,
        in_channels=shape[0],
        in_size=shape[1:],
        num_classes=num_classes,
    )
    # pytorchcv pools an 8x8 window, which covers the whole feature map only for 32x32 images.
    network.get_submodule("features").final_pool = nn.AdaptiveAvgPool2d(1)
    return network
