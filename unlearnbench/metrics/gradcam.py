"""Class activation maps (Grad-CAM), which show where a network looks, and the mass that lies in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unlearnbench.errors import MetricError
from unlearnbench.metrics.live_model import outputs_of
from unlearnbench.models.classifier import classifier

BATCH = 256


def class_activation_maps(
    model: nn.Module, images: Tensor, labels: Tensor | None = None, *, layer: str | None = None
) -> Tensor:
    """Return for each image how much each place of the last feature map speaks for a class (Grad-CAM).

        map = ReLU(sum_k a_k A_k),  a_k = mean over places of d logit / d A_k,  A the feature map

    Args:
        model: Model in evaluation mode, left as it was.
        images: (N, C, H, W) images.
        labels: (N,) class to explain for each image; None takes that of the largest logit.
        layer: Name of the module whose output is the feature map; None leaves the choice to `map_layer`.

    Returns:
        (N, h, w) float32, at least 0; h and w are the sides of the feature map.

    Raises:
        MetricError: If there is no feature map, or a class has no output.

    Source: Grad-CAM (Selvaraju et al., ICCV 2017), equations 1 and 2.
    """
    name = layer if layer is not None else map_layer(model, images[:1])
    with torch.no_grad(), _map_as_leaf(model, name) as found:
        logits = model(images)
        outputs = logits.argmax(dim=1) if labels is None else outputs_of(model, labels)
        if not found:
            raise MetricError(f"{name} returned no feature map (N, channels, h, w) with more than one place")
        explained = logits.gather(1, outputs[:, None]).sum()
        (gradient,) = torch.autograd.grad(explained, found[-1])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * found[-1].detach()).sum(dim=1).relu().float()


def map_layer(model: nn.Module, image: Tensor) -> str:
    """Return the name of the last module before the classifier that returns a feature map.

    A feature map is (N, channels, h, w) with more than one place, so that pooling to one place gives none. Of modules
    that end together, such as a block and its last activation, the outermost is taken, since their output is the same.

    Args:
        model: Model in evaluation mode with at least one convolution.
        image: (1, C, H, W), shown to the model once.

    Raises:
        MetricError: If no module returns a feature map.
    """
    names = {module: name for name, module in model.named_modules() if module is not model}
    layers = classifier(model).layers
    last: list[str] = []
    ended = False

    def note(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal ended
        ended = ended or module in layers
        if not ended and _is_map(output):
            last[:] = [names[module]]

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with torch.inference_mode():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    if not last:
        raise MetricError(f"{type(model).__name__} has no feature map with more than one place before its classifier")
    return last[0]


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.dim() == 4 and output[0, 0].numel() > 1


@contextmanager
def _map_as_leaf(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Collect a module's feature maps as leaves, so that the graph starts there and earlier layers cost no memory."""
    found: list[Tensor] = []

    def start(_: nn.Module, __: Any, output: Any) -> Tensor | None:
        if not _is_map(output):
            return None
        torch.set_grad_enabled(True)
        found.append(output.detach().clone().requires_grad_())
        # The next module gets a copy, since it may work in place, which autograd does not allow on a leaf.
        return found[-1].clone()

    handle = model.get_submodule(layer).register_forward_hook(start)
    try:
        yield found
    finally:
        handle.remove()


def mass(maps: Tensor) -> Tensor:
    """Return (N, h, w) maps as float64 shares that sum to 1 for each image; an empty map stays 0 everywhere."""
    wide = maps.double()
    total = wide.sum(dim=(1, 2), keepdim=True)
    return torch.where(total > 0, wide / total, 0.0)


def entropy(maps: Tensor) -> Tensor:
    """Return how far the mass of each of (N, h, w) maps is scattered, (N,) in [0, 1].

        H = - sum_i p_i ln p_i / ln(h w),  p the map's mass

    The value is 0 if all mass is in one place, 1 if it is the same everywhere, and NaN for an empty map.
    """
    shares = mass(maps).flatten(1)
    found = -torch.special.xlogy(shares, shares).sum(dim=1) / torch.log(torch.tensor(float(shares.shape[1])))
    # Adding 0 turns -0.0, which the sum may be, into 0.0.
    return torch.where(shares.sum(dim=1) > 0, found.clamp(0, 1) + 0.0, torch.nan)


def shift(before: Tensor, after: Tensor) -> Tensor:
    """Return the share of each map's mass that is no longer where it was, (N,) in [0, 1].

        shift = 1 - sum_i min(p_i, q_i),  p the mass before, q that after

    This is the total variation distance of p and q. It is 1 if the map after is empty, because all mass is gone, and
    NaN if the map before is, because there was nothing to move.

    Args:
        before: (N, h, w) maps.
        after: (N, h, w) maps.
    """
    old, new = mass(before).flatten(1), mass(after).flatten(1)
    # This equals the formula, but is exactly 0 where nothing moved.
    lost = (old - new).clamp(min=0).sum(dim=1).clamp(max=1)
    return torch.where(old.sum(dim=1) > 0, lost, torch.nan)
