"""ERwP's search for the parameters that matter to a class, layer by layer (supplement, section 2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unlearnbench.unlearners.builtin.prefix_cache import COMPARED_IMAGES, MEMORY_LIMIT, Suffixes
from unlearnbench.unlearners.builtin.relevance_search import LiteralLooks, Look, Looks, QuickLooks
from unlearnbench.unlearners.builtin.searched_layers import SearchedLayer, searched_layers, searched_parameters
from unlearnbench.unlearners.task import UnlearningTask

AugmentationName = Literal["grayscale", "vertical_flip", "rotation", "affine", "none"]


@dataclass(frozen=True)
class RelevanceOptions:
    """Relevance: which parameters may move.

    Attributes:
        augmentation: Change to a class's images before the backward pass; one that training did not use.
        first_share: Share of a layer's parameters that is zeroed first, and doubled from there.
        threshold: Accuracy below which a class's accuracy counts as low.
        judged_on: Limited images that this accuracy is computed on: `plain` or `augmented`.
        layers: Layers that are searched: `weights` takes each convolution and linear weight as a layer, and in
            attention each of those for queries, keys and values; `all` takes each parameter tensor, biases and batch
            norm included.
        keep_share: Share of the relevant parameters of each layer that is kept (supplement 5.7): of the union over the
            forget classes, those first whose gradient is the largest for any of these classes.
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
        layer: Name of the parameter tensor, with the part in brackets where the layer is a part of one.
        share: Share of the layer that is relevant.
        accuracy_before: The class's accuracy with the layer intact.
        accuracy_after: The class's accuracy with that share zeroed, if it is low; otherwise None, because the search
            then stops counting.
        low: Whether the accuracy is below the threshold; if not, the whole layer counts as relevant.
    """

    label: int
    layer: str
    share: float
    accuracy_before: float
    accuracy_after: float | None
    low: bool


def augmented(pixels: Tensor, name: AugmentationName, generator: torch.Generator) -> Tensor:
    """Return images under one augmentation, with random parameters drawn for each image.

    Args:
        pixels: (N, C, H, W) float32 in [0, 1].
        name: `grayscale`; `vertical_flip`; `rotation` by -45..45 degrees; `affine`: rotation by -30..30
            degrees, shift by up to 10 % of the side, scale 0.8..1.2, shear by -10..10 degrees; `none`.
        generator: CPU generator.
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
    # These are the rows of the map from output to input coordinates, both in [-1, 1], for the whole batch at once.
    first = torch.stack([angle.cos(), -angle.sin() + shear.tan(), 2 * drawn[:, 1] * reach[1]], dim=1)
    second = torch.stack([angle.sin(), angle.cos(), 2 * drawn[:, 2] * reach[1]], dim=1)
    matrix = torch.stack([first, second], dim=1)
    matrix[:, :, :2] /= scale[:, None, None]
    grid = F.affine_grid(matrix.to(pixels.device), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", align_corners=False)


def _luma(pixels: Tensor) -> Tensor:
    """Return (N, 1, H, W) grey values weighted as in ITU-R BT.601, without torchvision, whose import takes 2 s."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=pixels.device)
    return (pixels * weights[:, None, None]).sum(dim=1, keepdim=True)


def zeroed_count(size: int, share: float) -> int:
    """Return how many parameters a share of a layer is, rounded up."""
    return min(size, math.ceil(round(size * share, 6)))


def first_of(order: Tensor, count: int, like: Tensor) -> Tensor:
    """Return a bool mask of the shape of `like` that marks the first `count` positions of a flat order."""
    chosen = torch.zeros(like.numel(), dtype=torch.bool, device=order.device)
    chosen[order[:count]] = True
    return chosen.view(like.shape)


def find_share(first_share: float, threshold: float) -> Generator[float, float, tuple[float, float | None]]:
    """Search for the share of a layer that has to be zeroed for a class's accuracy to be low.

    The order of looks is that of the paper: double the share until the accuracy is low; then add only half of the last
    increase, once, and keep that share if it is low too.

    Args:
        first_share: First share to try, in (0, 1].
        threshold: Accuracy below which an accuracy is low.

    Yields:
        A share to zero; the caller sends the class's accuracy without it, or, if that is not low, any number that is
        not low.

    Returns:
        The share and the accuracy there, or the whole layer and None if no share makes the accuracy low.
    """
    before, share = 0.0, first_share
    while (accuracy := (yield share)) >= threshold:
        if share >= 1.0:
            return share, None
        before, share = share, min(1.0, 2 * share)
    fewer = share - (share - before) / 2
    accuracy_at_fewer = yield fewer
    return (fewer, accuracy_at_fewer) if accuracy_at_fewer < threshold else (share, accuracy)


def search(
    model: nn.Module,
    task: UnlearningTask,
    options: RelevanceOptions,
    look: type[Looks] = QuickLooks,
    *,
    later: int = 0,
) -> tuple[dict[str, Tensor], list[LayerFinding]]:
    """Find the parameters relevant to the forget classes by zeroing shares of each layer.

    Weights are restored after each look, so that the model is the same afterwards, bit for bit.

    Args:
        model: The original model.
        task: Task that gives the limited images of each forget class.
        options: Options of the search.
        look: `QuickLooks`, or `LiteralLooks`, which keeps to the paper's order; both find the same.
        later: Number of images that will be read after the search.

    Returns:
        For each layer a bool mask of the parameters relevant to any forget class, and the findings for
        each class and layer.

    Source: ERwP (ECCV 2022), supplement section 2. The model is in evaluation mode, the loss is the class's
    mean cross-entropy, and a share of a layer is rounded up to whole parameters. Among equal gradients the
    first in memory counts as larger.
    """
    model.eval()
    layers = searched_layers(model, options.layers)
    parameters = searched_parameters(model, options.layers)
    owners = {layer.parameter: model.get_submodule(layer.owner) for layer in layers.values()}
    masks = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in parameters.items()}
    # For each parameter the largest gradient of any forget class, where a part of the union is asked for.
    largest: dict[str, Tensor] = {}
    findings: dict[tuple[int, str], LayerFinding] = {}
    outlook = Outlook(task, len(layers), options.first_share, later)
    suffixes = Suffixes(model, _some_images(task), owners.values())
    if suffixes.mixes_images:
        # Each class then has to go through the model alone and in one batch.
        look = LiteralLooks
    for group in _groups(model, task, options, parameters, suffixes.bytes_per_image):
        # The backward passes are counted by now; each look from here on is a pass of its own.
        looks = look(model, suffixes, {label: images for label, (_, images) in group.items()}, task, options.threshold)
        # Layers are taken in the order of a pass, so that the values at each follow from those at the layer before.
        for name, layer in sorted(layers.items(), key=lambda item: suffixes.place(owners[item[1].parameter])):
            parameter, owner = layer.value, owners[layer.parameter]
            index = tuple(parameters).index(layer.parameter)
            orders = {label: layer.order(gradients[index]) for label, (gradients, _) in group.items()}
            for label, (share, after) in _shares(looks, owner, parameter, orders, options).items():
                findings[label, name] = LayerFinding(label, name, share, looks.intact[label], after, after is not None)
                masks[layer.parameter] |= first_of(orders[label], zeroed_count(len(orders[label]), share), parameter)
            if options.keep_share < 1:
                sizes = torch.stack([gradients[index].abs() for gradients, _ in group.values()]).amax(dim=0)
                largest[layer.parameter] = torch.maximum(sizes, largest.get(layer.parameter, sizes))
            outlook.layer_done(sum(len(images) for _, images in group.values()))
        # Both are freed because the next group's gradients are computed before its looks and would lie beside them.
        del looks, group
    if options.keep_share < 1:
        masks = _strongest(masks, largest, layers, options.keep_share)
    return masks, [findings[label, name] for label in searched_classes(task) for name in layers]


def most_looks(first_share: float) -> int:
    """Return how many looks `find_share` takes at most: doublings up to the whole layer, and one for a finer share."""
    return math.ceil(round(math.log2(1 / first_share), 9)) + 2


class Outlook:
    """What a search expects to read: at first its own bound, and then what it has seen, layer by layer.

    Args:
        task: Task that is told.
        layers: Number of layers.
        first_share: First share of a layer that is tried.
        later: Number of images that will be read after the search.
    """

    def __init__(self, task: UnlearningTask, layers: int, first_share: float, later: int) -> None:
        self._task = task
        self._later = later
        self._begun = sum(task.image_passes.values())
        self._done = 0
        # Each image goes through the model backward, whole, and with each layer zeroed as often as there are looks.
        images = task.size("forget")
        self._all = images * layers
        task.expect(images * (2 + layers * most_looks(first_share)) + later)

    def layer_done(self, images: int) -> None:
        """Take note that a layer was searched for classes that have so many images."""
        self._done += images
        read = sum(self._task.image_passes.values()) - self._begun
        self._task.expect(round(read * (self._all / self._done - 1)) + self._later)


def _strongest(
    masks: Mapping[str, Tensor], largest: Mapping[str, Tensor], layers: Mapping[str, SearchedLayer], share: float
) -> dict[str, Tensor]:
    """Return masks of a share of the marked parameters of each layer, those with the largest gradients."""
    kept = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for layer in layers.values():
        order = layer.order(largest[layer.parameter])
        marked = order[masks[layer.parameter].flatten()[order]]
        kept[layer.parameter] |= first_of(marked, zeroed_count(len(marked), share), layer.value)
    return kept


def _some_images(task: UnlearningTask) -> Tensor:
    """Return a few synthetic images (n, C, H, W) that get brighter from corner to corner and from image to image."""
    shape = (COMPARED_IMAGES, *task.image_shape)
    return torch.linspace(-2, 2, math.prod(shape), device=task.device).view(shape)


def searched_classes(task: UnlearningTask) -> list[int]:
    """Return the forget classes of which there are limited images; the party of a federation need not hold all."""
    labels: list[int] = task.forget_classes[task.limited_counts[task.forget_classes] > 0].tolist()
    return labels


def _groups(
    model: nn.Module,
    task: UnlearningTask,
    options: RelevanceOptions,
    parameters: dict[str, nn.Parameter],
    bytes_per_image: int,
) -> Iterator[dict[int, tuple[tuple[Tensor, ...], Tensor]]]:
    """Yield the forget classes' gradients and images in groups that fit in memory, or one class at a time."""
    group: dict[int, tuple[tuple[Tensor, ...], Tensor]] = {}
    size = 0
    for label in searched_classes(task):
        gradients, images = _gradients(model, task, options, parameters, label)
        own = len(images) * bytes_per_image + sum(gradient.nbytes for gradient in gradients)
        if group and size + own > MEMORY_LIMIT:
            yield group
            group, size = {}, 0
        group[label] = gradients, images
        size += own
    yield group


def _gradients(
    model: nn.Module,
    task: UnlearningTask,
    options: RelevanceOptions,
    parameters: dict[str, nn.Parameter],
    label: int,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the gradients of a class's loss, and the images on which its accuracy is computed."""
    plain = task.images_of(label)
    labels = torch.full((len(plain),), label, device=task.device)
    changed = augmented(task.pixels(plain), options.augmentation, task.generator("augmentation", label))
    loss_images = task.normalise(changed)
    loss = F.cross_entropy(model(loss_images.clone()), labels)
    # A parameter that the loss does not depend on, such as that of an output used only in training, gets gradient 0.
    gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return gradients, plain if options.judged_on == "plain" else loss_images


def _shares(
    looks: Looks,
    layer: nn.Module,
    parameter: nn.Parameter,
    orders: dict[int, Tensor],
    options: RelevanceOptions,
) -> dict[int, tuple[float, float | None]]:
    """Return the share of a layer found for each class, and the accuracy there; all classes are searched together.

    The accuracy is None if no share makes it low.

    Args:
        looks: Looks that give the accuracies of the classes.
        layer: Layer that holds the parameter.
        parameter: Parameter of which shares are zeroed.
        orders: Flat positions of the parameter by class, the most relevant first.
        options: Options of the search.
    """
    searches = {label: find_share(options.first_share, options.threshold) for label in orders}
    wanted = {label: next(search) for label, search in searches.items()}
    found = {}
    while wanted:
        asked = [
            Look(label, first_of(orders[label], zeroed_count(len(orders[label]), share), parameter))
            for label, share in wanted.items()
        ]
        for label, accuracy in zip(tuple(wanted), looks.accuracies(layer, parameter, asked), strict=True):
            try:
                wanted[label] = searches[label].send(accuracy)
            except StopIteration as end:
                del wanted[label]
                found[label] = end.value
    return found


def relevant_parameters(
    model: nn.Module, task: UnlearningTask, options: RelevanceOptions, later: int = 0
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the masks of `search` and its findings as JSON values, computed once for the same settings.

    Args:
        model: The original model.
        task: Task that gives the limited images of each forget class.
        options: Options of the search.
        later: Number of images that will be read after the search.
    """
    settings = {field.name: getattr(options, field.name) for field in dataclasses.fields(RelevanceOptions)}

    def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
        masks, findings = search(model, task, options, later=later)
        marked = sum(int(mask.sum()) for mask in masks.values())
        total = sum(mask.numel() for mask in masks.values())
        return masks, {"relevant_share": marked / total, "findings": [vars(finding) for finding in findings]}

    found = task.keep("relevance", settings, compute)
    # An earlier run may have computed it.
    task.expect(later)
    return found
