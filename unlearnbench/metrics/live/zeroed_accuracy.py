"""Accuracy of a forget class with a share of the parameters zeroed: does the relevance search find what matters?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.live_model import LiveModel, outputs_of
from unlearnbench.metrics.measurement import Measurement
from unlearnbench.models.batches import Batches, in_batches
from unlearnbench.models.classifier import output_classes
from unlearnbench.seeds import derived_seed
from unlearnbench.unlearners.builtin.relevance import AugmentationName, augmented, first_of, zeroed_count
from unlearnbench.unlearners.builtin.relevance_search import zeros
from unlearnbench.unlearners.builtin.searched_layers import searched_parameters

# Larger gradients than these, 1 GiB in float32, are not kept, so that each value computes its own.
KEPT_VALUES = 2**28
Order = Literal["high", "low", "random"]


def zeroed_accuracy(
    features: FeatureFile,
    model: LiveModel,
    *,
    share: Annotated[float, Field(ge=0, le=1)] = 0.1,
    order: Order = "high",
    augmentation: AugmentationName = "grayscale",
    layers: Literal["weights", "all"] = "weights",
    sorted_in: Literal["layer", "model"] = "layer",
    images: Literal["test", "limited"] = "test",
) -> Measurement:
    """Zeroed accuracy: a forget class's accuracy with a share of the parameters at 0, mean over the forget classes.

        relevance = |d/dw mean_i CE(logits(f(x_i)), c)|, over the limited images x_i of class c, f the augmentation
        accuracy = share of the images of c that the model without the first `share` of its parameters calls c

    Each forget class is treated by itself: its relevances sort the parameters, the share is zeroed in all layers
    together, the accuracy is computed, and the weights are restored. All outputs compete. With share 0 the value is the
    class's plain accuracy.

    Args:
        features: Feature file that gives the forget classes and the seed.
        model: The judged model.
        share: Fraction of the parameters that is zeroed, rounded up to whole parameters.
        order: Which relevance goes first: `high`, `low`, or `random`, which is the control, with another order for each
            class and seed and the same for all shares.
        augmentation: Augmentation of the relevance search, which images go through before the backward pass.
        layers: Parameters that can be zeroed: `weights` of convolutions and linear layers, or `all`.
        sorted_in: Where the share is taken: from each `layer` by itself, or from the whole `model`, sorted as one.
        images: Images that the accuracy is computed on: `test` or `limited`.

    Returns:
        A fraction in [0, 1]. The faster it falls with the share for `high`, and the slower for `low`, the better
        relevance is found; `random` shows what knowing nothing would give. The details hold the value for each class.

    Raises:
        MetricError: If a class has no output or no image, or a gradient is not finite.

    Source: ERwP (ECCV 2022), supplement 5.1 and 5.6, figures 1 and 3. The paper zeroes "a set of high relevance and
    low relevance parameters" of "the parameters in the model", sorted by absolute gradient, for one random class. It
    does not say whether one sorted list covers the whole model; the default sorts each layer by itself, as its
    section 2 does, since gradients differ in size from layer to layer. Nor does it say which parameters take part (we
    take those of the relevance search) or what the unit of the axis is (we take the share of the parameters). The
    control and the mean over all forget classes are ours. Known weakness: with many parameters at 0 a network predicts
    one class whatever it sees, and if that is the forget class, its accuracy is 1. Needs the model, so that
    `unlearnbench evaluate` cannot compute it.
    """
    judged, limited = model.load(), model.limited()
    shown = limited if images == "limited" else model.test()
    parameters = list(searched_parameters(judged, layers).values())
    classes = features.forget_classes.tolist()
    affordable = len(classes) * sum(parameter.numel() for parameter in parameters) <= KEPT_VALUES

    def relevances(label: int) -> list[Tensor]:
        def compute() -> list[Tensor]:
            return _relevances(judged, parameters, limited, label, augmentation, features.seed)

        # All shares and orders need the same gradients, which are more than half of the work.
        key = ("zeroed_accuracy", layers, augmentation, label)
        found: list[Tensor] = model.once(key, compute) if affordable else compute()
        return found

    found = {}
    for label in classes:
        scores = _random_scores(parameters, features.seed, label) if order == "random" else relevances(label)
        masks = _masks(scores, share, sorted_in, largest=order != "low")
        with ExitStack() as zeroed:
            for parameter, mask in zip(parameters, masks, strict=True):
                zeroed.enter_context(zeros(parameter, mask))
            found[str(label)] = _accuracy(judged, shown, label)
    return Measurement(sum(found.values()) / len(found), {"by_class": found})


def _random_scores(parameters: Sequence[nn.Parameter], seed: int, label: int) -> list[Tensor]:
    """Return random numbers in the shape of each parameter."""
    stream = torch.Generator().manual_seed(derived_seed(seed, "zeroed", label))
    return [torch.rand(parameter.shape, generator=stream).to(parameter.device) for parameter in parameters]


def _relevances(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    limited: Batches,
    label: int,
    augmentation: AugmentationName,
    seed: int,
) -> list[Tensor]:
    """Return the absolute gradients of a class's loss, in the shape of each parameter."""
    positions = torch.nonzero(limited.labels == label).flatten()
    plain = limited.plain(positions)
    # The relevance search seeds its stream in the same way, so that random augmentations draw the same numbers here.
    stream = torch.Generator().manual_seed(derived_seed(seed, "task", "augmentation", label))
    changed = limited.normalise(255.0 * augmented(limited.denormalise(plain), augmentation, stream))
    loss = F.cross_entropy(model(changed), outputs_of(model, limited.labels[positions]))
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    if not all(torch.isfinite(gradient).all() for gradient in gradients):
        raise MetricError(f"the gradient of class {label} is not finite")
    return [gradient.abs() for gradient in gradients]


def _masks(scores: list[Tensor], share: float, sorted_in: Literal["layer", "model"], *, largest: bool) -> list[Tensor]:
    """Return bool masks, shaped like `scores`, that mark the share with the largest scores, or else the smallest."""
    if sorted_in == "model":
        every = torch.cat([score.flatten() for score in scores])
        parts = _masks([every], share, "layer", largest=largest)[0].split([score.numel() for score in scores])
        return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]
    orders = (score.flatten().sort(descending=largest, stable=True).indices for score in scores)
    return [
        first_of(order, zeroed_count(len(order), share), score) for order, score in zip(orders, scores, strict=True)
    ]


def _accuracy(model: nn.Module, images: Batches, label: int) -> float:
    """Return the share of a class's images that a model classifies as that class."""
    positions = torch.nonzero(images.labels == label).flatten()
    if len(positions) == 0:
        raise MetricError(f"there is no image of class {label} to read its accuracy on")
    with torch.inference_mode():
        hits = [
            output_classes(model)[model(batch).argmax(dim=1)] == label for batch, _ in in_batches(images, positions)
        ]
    return int(torch.cat(hits).sum()) / len(positions)
