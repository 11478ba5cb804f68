"""Which parameters matter to a class: ERwP's search, layer by layer (supplement, section 2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unlearnbench.task import UnlearningTask
from unlearnbench.unlearners.reuse import ReusedPrefix

AugmentationName = Literal["grayscale", "vertical_flip", "rotation", "affine", "none"]


@dataclass(frozen=True)
class RelevanceOptions:
    """Relevance: which parameters may move.

    Attributes:
        augmentation: Applied to a class's images before the backward pass; one that training did not use.
        first_share: Share of a layer's parameters that is zeroed first, then doubled.
        threshold: A class's accuracy below this is low.
        judged_on: Whether that accuracy is read on the `plain` or the `augmented` limited images.
        layers: What is searched: `weights` takes each convolution and linear weight as a layer,
            `all` each parameter tensor, biases and batch norm included.
        keep_share: Share of the relevant parameters of each layer and class that is kept, the most
            relevant first (supplement 5.7).
    """

    augmentation: AugmentationName = "grayscale"
    first_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.1
    judged_on: Literal["plain", "augmented"] = "plain"
    layers: Literal["weights", "all"] = "weights"
    keep_share: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True)
class LayerFinding:
    """What the search found for one class in one layer.

    Attributes:
        label: The class.
        layer: Name of the parameter tensor.
        share: Share of the layer that is relevant.
        accuracy_before: The class's accuracy with the layer intact.
        accuracy_after: The same with that share zeroed.
        low: Whether that is below the threshold; if not, all of the layer counts as relevant.
    """

    label: int
    layer: str
    share: float
    accuracy_before: float
    accuracy_after: float
    low: bool


def augmented(pixels: Tensor, name: AugmentationName, generator: torch.Generator) -> Tensor:
    """Return images under one augmentation, each with random parameters of its own.

    Args:
        pixels: (N, C, H, W) float32 in [0, 1].
        name: `grayscale`; `vertical_flip`; `rotation` by -45..45 degrees; `affine`: rotation by -30..30
            degrees, shift by up to 10 % of the side, scale 0.8..1.2, shear by -10..10 degrees; `none`.
        generator: On the CPU.
    """
    if name == "none":
        return pixels
    if name == "grayscale":
        return _luma(pixels).expand_as(pixels) if pixels.shape[1] == 3 else pixels
    if name == "vertical_flip":
        return pixels.flip(-2)
    reach = (45.0, 0.0, 0.0, 0.0) if name == "rotation" else (30.0, 0.1, 0.2, 10.0)
    drawn = 2 * torch.rand(len(pixels), 5, generator=generator) - 1
    angle, shear = torch.deg2rad(drawn[:, 0] * reach[0]), torch.deg2rad(drawn[:, 4] * reach[3])
    scale = 1 + drawn[:, 3] * reach[2]
    # Rows of the map from output to input coordinates, both in [-1, 1], for the whole batch at once.
    first = torch.stack([angle.cos(), -angle.sin() + shear.tan(), 2 * drawn[:, 1] * reach[1]], dim=1)
    second = torch.stack([angle.sin(), angle.cos(), 2 * drawn[:, 2] * reach[1]], dim=1)
    matrix = torch.stack([first, second], dim=1)
    matrix[:, :, :2] /= scale[:, None, None]
    grid = F.affine_grid(matrix.to(pixels.device), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", align_corners=False)


def _luma(pixels: Tensor) -> Tensor:
    """Return (N, 1, H, W) grey values, weighted as in ITU-R BT.601; importing torchvision for it takes 2 s."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=pixels.device)
    return (pixels * weights[:, None, None]).sum(dim=1, keepdim=True)


def searched_layers(model: nn.Module, layers: Literal["weights", "all"]) -> dict[str, nn.Parameter]:
    """Return the parameter tensors that count as layers, by name."""
    if layers == "all":
        return dict(model.named_parameters())
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and isinstance(model.get_submodule(name.rpartition(".")[0]), kinds)
    }


def zeroed_count(size: int, share: float) -> int:
    """Return how many parameters of a layer a share is, rounded up."""
    return min(size, math.ceil(round(size * share, 6)))


def first_of(order: Tensor, count: int, like: Tensor) -> Tensor:
    """Return a bool mask of the shape of `like` that marks the first `count` positions of a flat order."""
    chosen = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    chosen[order[:count]] = True
    return chosen.view(like.shape)


def find_share(accuracy_without: Callable[[float], float], first_share: float, threshold: float) -> tuple[float, float]:
    """Look for the share of a layer that must be zeroed for a class's accuracy to be low.

    The order of looks is that of the paper: double from the first share on until the accuracy is low; then
    try once with half the difference to the share before taken away, and keep that if it is low too.

    Args:
        accuracy_without: The class's accuracy with a share of the layer zeroed.
        first_share: In (0, 1].
        threshold: An accuracy below this is low.

    Returns:
        The share and the accuracy there; the whole layer if no share makes it low.
    """
    before, share = 0.0, first_share
    while (accuracy := accuracy_without(share)) >= threshold:
        if share >= 1.0:
            return share, accuracy
        before, share = share, min(1.0, 2 * share)
    fewer = share - (share - before) / 2
    accuracy_at_fewer = accuracy_without(fewer)
    return (fewer, accuracy_at_fewer) if accuracy_at_fewer < threshold else (share, accuracy)


class Looks(Protocol):
    """Looks at a class's accuracy with parts of a layer zeroed."""

    intact: float

    def accuracy_without(self, parameter: nn.Parameter, zeroed: Tensor, *, whole: bool) -> float:
        """Return the accuracy with the `zeroed` positions of a parameter at 0; it is restored.

        Args:
            parameter: One of the model's.
            zeroed: Bool mask of its shape.
            whole: Whether the number is wanted where the accuracy is not low; else any that is not low will do.
        """


class LiteralLooks:
    """Each look is a pass of all images through the whole model: the order of the paper, to the letter.

    Args:
        model: In evaluation mode.
        images: (N, C, H, W) of one class.
        label: The class.
        task: Counts the images.
        options: Gives the threshold.

    Attributes:
        intact: The accuracy with nothing zeroed.
    """

    def __init__(
        self, model: nn.Module, images: Tensor, label: int, task: UnlearningTask, options: RelevanceOptions
    ) -> None:
        self._model, self._images, self._label, self._task = model, images, label, task
        self.intact = self._accuracy()

    def _accuracy(self) -> float:
        self._task.count(torch.full((len(self._images),), self._label, device=self._images.device))
        with torch.inference_mode():
            return int((self._model(self._images).argmax(dim=1) == self._label).sum()) / len(self._images)

    def accuracy_without(self, parameter: nn.Parameter, zeroed: Tensor, *, whole: bool) -> float:
        """See `Looks`."""
        with zeros(parameter, zeroed):
            return self._accuracy()


class QuickLooks:
    """The same answers in a fraction of the time.

    What runs before the zeroed layer is computed once; and the images go through in batches, those of which the
    model is surest first, so that a look ends as soon as enough of them are recognised for the accuracy not to be
    low.

    Args:
        model: In evaluation mode.
        images: (N, C, H, W) of one class.
        label: The class.
        task: Counts the images.
        options: Gives the threshold.

    Attributes:
        intact: The accuracy with nothing zeroed.
    """

    def __init__(
        self, model: nn.Module, images: Tensor, label: int, task: UnlearningTask, options: RelevanceOptions
    ) -> None:
        self._label, self._task, self._threshold = label, task, options.threshold
        self._owners = {value: module for module in model.modules() for value in module.parameters(recurse=False)}
        self._labels = torch.full((len(images),), label, device=images.device)
        self._prefix = ReusedPrefix(model, images)
        task.count(self._labels)
        self.intact = int((self._prefix.logits.argmax(dim=1) == label).sum()) / len(images)
        sureness = self._prefix.logits.log_softmax(dim=1)[:, label]
        self._order = sureness.argsort(descending=True, stable=True)

    def accuracy_without(self, parameter: nn.Parameter, zeroed: Tensor, *, whole: bool) -> float:
        """See `Looks`."""
        total, start, hits = len(self._labels), 0, 0
        with zeros(parameter, zeroed), self._prefix.before(self._owners[parameter]) as logits:
            while start < total and (whole or hits / total < self._threshold):
                # Batches grow: most looks that do not find the accuracy low need only the first.
                part = self._order[start : max(FIRST_BATCH, 2 * start)]
                hits += int((logits(part).argmax(dim=1) == self._label).sum())
                self._task.count(self._labels[part])
                start += len(part)
        return hits / total


# Images in the first batch of a quick look.
FIRST_BATCH = 8


@contextmanager
def zeros(parameter: nn.Parameter, zeroed: Tensor) -> Iterator[None]:
    """Set positions of a parameter to 0 for the context, and restore them to the bit."""
    kept = parameter.data.clone()
    parameter.data.masked_fill_(zeroed, 0)
    try:
        yield
    finally:
        parameter.data.copy_(kept)


def search(
    model: nn.Module,
    task: UnlearningTask,
    options: RelevanceOptions,
    look: Callable[..., Looks] = QuickLooks,
) -> tuple[dict[str, Tensor], list[LayerFinding]]:
    """Find the parameters relevant to the forget classes, by zeroing shares of each layer.

    Weights are restored after each look; the model is the same, bit for bit, afterwards.

    Args:
        model: The original model.
        task: Gives the limited images of each forget class.
        options: How to search.
        look: `QuickLooks`, or `LiteralLooks` for the paper's order to the letter; both find the same.

    Returns:
        For each layer a bool mask of the parameters relevant to any forget class, and the findings for
        each class and layer.

    Source: ERwP (ECCV 2022), supplement section 2. The model is in evaluation mode, the loss is the class's
    mean cross-entropy, and a share of a layer is rounded up to whole parameters; of equal gradients the
    first in memory counts as larger.
    """
    model.eval()
    parameters = searched_layers(model, options.layers)
    masks = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in parameters.items()}
    findings = []
    for label in task.forget_classes.tolist():
        for finding, relevant in _search_class(model, task, options, parameters, label, look):
            masks[finding.layer] |= relevant
            findings.append(finding)
    return masks, findings


def _search_class(
    model: nn.Module,
    task: UnlearningTask,
    options: RelevanceOptions,
    parameters: dict[str, nn.Parameter],
    label: int,
    look: Callable[..., Looks],
) -> Iterator[tuple[LayerFinding, Tensor]]:
    """Yield for each layer what was found and a mask of the relevant parameters."""
    plain = task.images_of(label)
    labels = torch.full((len(plain),), label, device=task.device)
    changed = augmented(task.pixels(plain), options.augmentation, task.generator("augmentation", label))
    loss_images = task.normalise(changed)
    gradients = torch.autograd.grad(F.cross_entropy(model(loss_images), labels), list(parameters.values()))
    # images_of counted the backward pass's images; each look from here on is a pass of its own.
    looks = look(model, plain if options.judged_on == "plain" else loss_images, label, task, options)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        order = gradient.flatten().abs().sort(descending=True, stable=True).indices

        def accuracy_without(share: float, parameter: nn.Parameter = parameter, order: Tensor = order) -> float:
            zeroed = first_of(order, zeroed_count(len(order), share), parameter)
            return looks.accuracy_without(parameter, zeroed, whole=share >= 1.0)

        share, after = find_share(accuracy_without, options.first_share, options.threshold)
        finding = LayerFinding(label, name, share, looks.intact, after, after < options.threshold)
        kept_count = zeroed_count(zeroed_count(len(order), share), options.keep_share)
        yield finding, first_of(order, kept_count, parameter)


def relevant_parameters(
    model: nn.Module, task: UnlearningTask, options: RelevanceOptions
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the masks of `search` and its findings as JSON values, searched once for the same settings."""
    settings = {field.name: getattr(options, field.name) for field in dataclasses.fields(RelevanceOptions)}

    def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
        masks, findings = search(model, task, options)
        marked = sum(int(mask.sum()) for mask in masks.values())
        total = sum(mask.numel() for mask in masks.values())
        return masks, {"relevant_share": marked / total, "findings": [vars(finding) for finding in findings]}

    return task.keep("relevance", settings, compute)
