"""A first look at given weights and a user's images: whether they belong together, how normalised, in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import nn

from unlearnbench.datasets.dataset import Dataset, DatasetInfo
from unlearnbench.deployment.class_names import class_list
from unlearnbench.errors import InvalidFileError
from unlearnbench.experiment.resolve import Resolved
from unlearnbench.models.batches import in_batches
from unlearnbench.models.build import Network, input_shape
from unlearnbench.models.classifier import classifier
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.libraries.published import IMAGENET_MEAN, IMAGENET_STD
from unlearnbench.models.recipe import TrainingRecipe, read_recipe

# So many test images of each class are looked at.
LOOKED_AT = 50
# Another order of the outputs is suspected where it would make so much more of the images right.
BETTER = 0.1
# Weights are refused below so many times the accuracy of guessing.
TIMES_CHANCE = 1.5

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """What weights make of some test images.

    Attributes:
        normalisation: Mean and deviation with which they do best.
        tried: Accuracy with each normalisation that was tried, by name, under the best order of the outputs.
        counts: (K, K) number of images of each class (row) that each output (column) claims.
        accuracy: Share of images whose output is that of their class.
        order: Class that each output stands for, in the order that makes most images right.
        best_accuracy: Share of images that are right in that order.
    """

    normalisation: Normalisation
    tried: dict[str, float]
    counts: NDArray[np.int64]
    accuracy: float
    order: tuple[int, ...]
    best_accuracy: float

    @property
    def by_class(self) -> list[float]:
        """Share of the looked-at images of each class that are recognised."""
        return [float(row[label] / max(1, row.sum())) for label, row in enumerate(self.counts)]


def normalisations(info: DatasetInfo, given: Normalisation | None) -> dict[str, Normalisation]:
    """Return the normalisations to try, by name: the one that is given, or else the usual ones."""
    if given is not None:
        return {"as given": given}
    channels = len(info.mean)
    usual = {
        "of these images": (info.mean, info.std),
        "of ImageNet": (IMAGENET_MEAN, IMAGENET_STD),
        "of CIFAR": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "from -1 to 1": ((0.5,) * channels, (0.5,) * channels),
        "from 0 to 1": ((0.0,) * channels, (1.0,) * channels),
    }
    return {name: pair for name, pair in usual.items() if len(pair[0]) == channels}


def look(resolved: Resolved, given: Normalisation | None, say: Callable[[str], None] = lambda message: None) -> Look:
    """Let the weights of a manifest classify some test images.

    Args:
        resolved: The manifest, with weights.
        given: Mean and deviation that the user knows; None tries the usual ones.
        say: Callback that receives a line if the weights had to be looked for in their file.

    Raises:
        InvalidFileError: If the weights do not fit the network.
        PluginError: If the network cannot take the images.
    """
    problem, info = resolved.problems[0], resolved.dataset.info
    assert problem.weights is not None
    recipe = read_recipe(problem.recipe)
    shape = input_shape(info.shape, recipe)
    name = problem.architecture.address
    unfilled = Network(name, problem.architecture.options, len(info.class_names), shape)
    network = unfilled.filled(problem.weights, say).eval()
    tried: dict[str, tuple[Normalisation, NDArray[np.int64], NDArray[np.int64], float]] = {}
    for title, (mean, std) in normalisations(info, given).items():
        counts = counted(network, resolved.dataset, recipe.model_copy(update={"mean": mean, "std": std}))
        rows, columns = linear_sum_assignment(-counts)
        tried[title] = ((mean, std), counts, columns, float(counts[rows, columns].sum() / counts.sum()))
    best = max(tried, key=lambda title: tried[title][3])
    normalisation, counts, columns, best_accuracy = tried[best]
    order = tuple(int(label) for label in np.argsort(columns))
    accuracy = float(np.trace(counts) / counts.sum())
    return Look(
        normalisation, {title: found[3] for title, found in tried.items()}, counts, accuracy, order, best_accuracy
    )


def counted(model: nn.Module, dataset: Dataset, recipe: TrainingRecipe) -> NDArray[np.int64]:
    """Return (K, O) how many of some test images of each class (row) each output of a model (column) claims.

    Args:
        model: Model in evaluation mode.
        dataset: Data set with K classes.
        recipe: Recipe that gives crop and normalisation.
    """
    test = LoadedData(dataset, recipe, torch.device("cpu")).test
    chosen = torch.from_numpy(_some(test.labels.numpy()))
    with torch.inference_mode():
        found = [(labels, model(images).argmax(dim=1)) for images, labels in in_batches(test, chosen)]
    counts = np.zeros((len(dataset.info.class_names), classifier(model).out_features), dtype=np.int64)
    labels, outputs = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    np.add.at(counts, (labels, outputs), 1)
    return counts


def _some(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the first images of each class, ascending."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:LOOKED_AT] for label in np.unique(labels)]))


def check(found: Look, names: tuple[str, ...], weights: str, class_order: tuple[int, ...] | None) -> None:
    """Check that weights know the classes of the images, in their order.

    Args:
        found: What they made of some test images.
        names: K names of the classes.
        weights: The weights, for messages.
        class_order: Class of each output as the user said it; None for the order of the classes.

    Raises:
        InvalidFileError: If the outputs stand in another order than the classes, or the weights only guess.
    """
    chance = TIMES_CHANCE / len(names)
    if found.best_accuracy >= found.accuracy + BETTER and found.best_accuracy >= chance:
        said = class_order or tuple(range(len(names)))
        order = [found.order[label] for label in said]
        shown = class_list(order, names)
        wrong = next(output for output, label in enumerate(order) if label != said[output])
        right = (
            f"{100 * found.accuracy:.1f} % of {found.counts.sum()} test images are right in the order that is assumed"
        )
        raise InvalidFileError(
            f"{weights}: its outputs seem to stand in another order than the classes of the images: {right}, "
            f"{100 * found.best_accuracy:.1f} % in another; output {wrong} answers to "
            f"{names[order[wrong]]!r}, not {names[said[wrong]]!r}\n"
            "  Look the order up where the model was trained, and say it; what the images suggest:\n"
            f"  --class-order {shown}"
        )
    if found.accuracy < chance:
        tried = ", ".join(f"{title} {100 * value:.1f} %" for title, value in found.tried.items())
        share = f"{100 * found.accuracy:.1f} % of {found.counts.sum()} test images"
        raise InvalidFileError(
            f"{weights}: recognises {share}, where guessing gives {100 / len(names):.1f} %: it does not belong to "
            f"these images\n  Normalisations tried: {tried}; say another with --mean and --std"
        )
