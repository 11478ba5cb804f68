"""Networks of torchvision, timm and the Hugging Face hub by the names that they have there."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from unlearnbench.datasets.parquet.hub_cache import HUB
from unlearnbench.errors import PluginError
from unlearnbench.models.libraries.hub import TIMM, cached_model, how_to_fetch
from unlearnbench.models.libraries.members import check_member
from unlearnbench.models.libraries.torchvision_models import FAMILY as TORCHVISION

Arguments = dict[str, Any] | None


def torchvision_network(
    network: str, num_classes: int, shape: tuple[int, int, int], *, arguments: Arguments = None
) -> nn.Module:
    """Return a classifier of torchvision: `torchvision:resnet18`, `torchvision:convnext_tiny`, ...

    Vision transformers and MaxViT are built for the size of the images. The auxiliary outputs of GoogLeNet and
    Inception, which only the recipe of their papers trains, are left out unless `arguments` has `aux_logits = true`.

    Args:
        network: Name of a classifier in `torchvision.models`.
        num_classes: K outputs.
        shape: Channels, height and width of the input; 3 channels.
        arguments: Further keyword arguments of torchvision's function.

    Source: `torchvision.models`, whose pages name each paper. Published weights go by torchvision's own names, such as
    IMAGENET1K_V1 or DEFAULT. SqueezeNet ends in a convolution and is refused.
    """
    from torchvision import models

    check_member(f"{TORCHVISION}{network}")
    if shape[0] != 3:
        raise PluginError(f"{network} takes images of 3 channels, not {shape[0]}")
    given: dict[str, Any] = {"num_classes": num_classes}
    if network.startswith("vit_"):
        given["image_size"] = _side(network, shape)
    elif network.startswith("maxvit_"):
        given["input_size"] = shape[1:]
    elif network in ("googlenet", "inception_v3"):
        given |= {"aux_logits": False, "init_weights": True}
    return _called(models.get_model_builder(network), {**given, **(arguments or {})})


def timm_network(
    network: str, num_classes: int, shape: tuple[int, int, int], *, arguments: Arguments = None
) -> nn.Module:
    """Return a network of timm: `timm:vit_tiny_patch16_224`, `timm:resnet50d`, ... (extra `timm`).

    Networks for images of a fixed size, such as vision transformers, are built for the size of the images.

    Args:
        network: Name of a network in timm.
        num_classes: K outputs.
        shape: Channels, height and width of the input.
        arguments: Further keyword arguments of `timm.create_model`.

    Source: timm ("PyTorch Image Models", Wightman), whose pages name each paper. Published weights go by timm's tags,
    such as `augreg_in21k_ft_in1k`, and are taken from the cache of the Hugging Face hub.
    """
    check_member(f"{TIMM}{network}")
    import timm

    given: dict[str, Any] = {"num_classes": num_classes, "in_chans": shape[0]}
    configuration = timm.models.get_pretrained_cfg(network)
    if configuration is not None and configuration.fixed_input_size:
        given["img_size"] = shape[1:]
    return _called(timm.create_model, {"model_name": network, **given, **(arguments or {})})


def hub_network(repository: str, num_classes: int, shape: tuple[int, int, int], *, revision: str = "main") -> nn.Module:
    """Return an image classifier of the Hugging Face hub: `hub:google/vit-base-patch16-224`, ... (extra `hub`).

    The network is built from its configuration in the hub's cache on this machine, for the size of the images and with
    random weights; no code of the repository is run.

    Args:
        repository: Name on the hub, ORGANISATION/NAME.
        num_classes: K outputs.
        shape: Channels, height and width of the input.
        revision: Branch, tag or commit of the configuration.

    Source: `transformers.AutoModelForImageClassification`. Published weights go by the revision, such as `main`.
    """
    found = cached_model(repository, revision)
    if found is None:
        name = f"{HUB}{repository}"
        raise PluginError(f"{name} is not on this machine{how_to_fetch(name, revision)}")
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError as error:
        raise PluginError("transformers is not installed\n  pip install 'unlearnbench[hub]'") from error
    configuration = AutoConfig.from_pretrained(found.folder, local_files_only=True, trust_remote_code=False)
    configuration.num_labels = num_classes
    configuration.problem_type = "single_label_classification"
    for key, value in (("num_channels", shape[0]), ("image_size", _side(repository, shape))):
        if hasattr(configuration, key):
            setattr(configuration, key, value)
    return _called(AutoModelForImageClassification.from_config, {"config": configuration})


def _side(network: str, shape: tuple[int, int, int]) -> int:
    if shape[1] != shape[2]:
        raise PluginError(f"{network} takes square images, not {shape[1]}x{shape[2]}; set `crop` in [training]")
    return shape[1]


def _called(build: Any, arguments: dict[str, Any]) -> nn.Module:
    """Return what a library builds, or say why it does not."""
    try:
        network: nn.Module = build(**arguments)
    # A library checks what it is given in any way.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if key != "config")
        where = inspect.getmodule(build)
        name = where.__name__.partition(".")[0] if where else "the library"
        raise PluginError(f"{name} does not build it with {given}: {type(error).__name__}: {reason}") from error
    return network
