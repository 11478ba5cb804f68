"""Attention in numbers: how far the mass of class activation maps is scattered, and how far it has moved."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.gradcam import BATCH, class_activation_maps, entropy, map_layer, shift
from unlearnbench.metrics.live_model import LiveModel, outputs_of
from unlearnbench.metrics.measurement import Measurement
from unlearnbench.models.batches import Batches

Explained = Literal["label", "predicted"]


def attention_entropy(
    features: FeatureFile,
    model: LiveModel,
    *,
    images: Literal["forget", "retain"] = "forget",
    explained: Explained = "label",
) -> Measurement:
    """Attention entropy: how far the mass of the test images' class activation maps is scattered, mean over images.

        H = - sum_i p_i ln p_i / ln(places),  p the Grad-CAM map of the image divided by its sum

    Args:
        features: Feature file that gives the forget classes.
        model: The judged model.
        images: Test images of the `forget` or of the `retain` classes.
        explained: Class whose logit the map explains: the image's own `label`, or the `predicted` one, which every
            model has.

    Returns:
        A fraction in [0, 1]: 0 if all mass lies in one place of the feature map, 1 if it is spread evenly. An empty
        map, where nothing speaks for the class, is left out; the details count such maps.

    Raises:
        MetricError: If the model has no output for a class to be explained (as WD has none for the forget classes; use
            `predicted`), it has no feature map, all maps are empty, or one is not finite.

    Source: figure 4 of ERwP's supplement shows that attention "gets scattered" on forget images, in pictures that do
    not say which class their maps explain; the number is ours. Known weakness: the places are those of the last
    feature map, few in small networks (8x8 in a CIFAR ResNet). Needs the model.
    """
    maps = _maps(model, "judged", features.classes(images).tolist(), explained)
    return _mean(entropy(maps), {"empty_maps": _empty(maps)})


def attention_shift(
    features: FeatureFile,
    model: LiveModel,
    *,
    images: Literal["forget", "retain"] = "forget",
    explained: Explained = "label",
) -> Measurement:
    """Attention shift: share of the mass of Original's class activation maps that has moved, mean over test images.

        shift = 1 - sum_i min(p_i, q_i),  p and q the Grad-CAM maps of Original and of the judged model, by their sums

    Args:
        features: Feature file that gives the forget classes.
        model: The judged model, and Original of the same problem and seed.
        images: Test images of the `forget` or of the `retain` classes.
        explained: Class whose logit each model's map explains: the image's own `label`, or the one that the
            model itself `predicted`.

    Returns:
        A fraction in [0, 1], the total variation distance: 0 if both models look at the same places, 1 if they have
        none in common or the judged model's map is empty. Images whose map was empty before are left out. The details
        count both kinds of empty maps. Original's own value is 0.

    Raises:
        MetricError: If a model has no output for a class to be explained (as WD has none for the forget classes; use
            `predicted`), it has no feature map, all of Original's maps are empty, a map is not finite, or the maps
            differ in size.

    Source: as for `attention_entropy`; the measure is ours. Needs the model.
    """
    classes = features.classes(images).tolist()
    before, after = _maps(model, "original", classes, explained), _maps(model, "judged", classes, explained)
    if before.shape != after.shape:
        raise MetricError(f"Original's maps are {_size(before)}, the model's {_size(after)}; they cannot be compared")
    counts = {"empty_maps": _empty(after), "empty_maps_of_original": _empty(before)}
    return _mean(shift(before, after), counts)


def _maps(model: LiveModel, whose: Literal["judged", "original"], classes: list[int], explained: Explained) -> Tensor:
    """Return a model's maps (N, h, w) of the test images of some classes, on the CPU."""

    def compute() -> Tensor:
        explaining = model.load() if whose == "judged" else model.original()
        return maps_of_classes(explaining, model.test(), classes, explained)

    found: Tensor = model.once(("attention", whose, tuple(classes), explained), compute)
    return found


def maps_of_classes(model: nn.Module, test: Batches, classes: list[int], explained: Explained) -> Tensor:
    """Return the class activation maps (N, h, w) of all images of some classes, on the CPU."""
    wanted = torch.tensor(classes, device=test.labels.device)
    missing = wanted[~torch.isin(wanted, test.labels)].tolist()
    if missing:
        raise MetricError(f"no test image of classes {missing}")
    if explained == "label":
        # A class without an output is to be reported before the first image is computed.
        outputs_of(model, wanted)
    positions = torch.nonzero(torch.isin(test.labels, wanted)).flatten()
    layer = map_layer(model, test.plain(positions[:1]))
    maps = torch.cat(
        [
            class_activation_maps(model, images, labels if explained == "label" else None, layer=layer).cpu()
            for images, labels in test.in_order(BATCH, positions)
        ]
    )
    if not torch.isfinite(maps).all():
        raise MetricError("a class activation map is not finite")
    return maps


def _empty(maps: Tensor) -> int:
    return int((maps.amax(dim=(1, 2)) == 0).sum())


def _size(maps: Tensor) -> str:
    return "x".join(str(side) for side in maps.shape[1:])


def _mean(values: Tensor, counts: dict[str, Any]) -> Measurement:
    kept = values[~values.isnan()]
    if len(kept) == 0:
        raise MetricError(f"all {len(values)} maps are empty: nothing in them speaks for the class")
    return Measurement(float(kept.mean()), {"images": len(values), **counts})
