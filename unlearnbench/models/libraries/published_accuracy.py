"""The accuracy that a network is published with, and how far a model is from it."""

from __future__ import annotations

from dataclasses import dataclass

# A model that is further below the published accuracy has not been trained to its end.
UNDER_TRAINED = 0.05
# Top-1 accuracy on the whole test part, by data set and architecture. pytorchcv: 1 - `error_value` in the
# `model_metainfos.csv` of its version 0.0.74, whose `resnet164bn` is our `resnet164`; torchvision: the metrics of its
# `IMAGENET1K_V1` weights.
_ACCURACIES = {
    ("cifar100", "resnet20"): (0.7036, "pytorchcv"),
    ("cifar100", "resnet56"): (0.7512, "pytorchcv"),
    ("cifar100", "resnet164"): (0.7956, "pytorchcv"),
    ("cub200", "resnet18"): (0.7667, "pytorchcv"),
    ("imagenet1k", "resnet18"): (0.69758, "torchvision"),
    ("imagenet1k", "resnet50"): (0.7613, "torchvision"),
    ("imagenet1k", "mobilenet_v2"): (0.71878, "torchvision"),
}


@dataclass(frozen=True)
class PublishedAccuracy:
    """A published accuracy beside that of a model.

    Attributes:
        accuracy: The model's accuracy on all classes.
        published: The published accuracy.
        source: Library that publishes it.
    """

    accuracy: float
    published: float
    source: str

    @property
    def shortfall(self) -> float:
        """How far the model is below the published accuracy; negative if it is above."""
        return self.published - self.accuracy

    @property
    def under_trained(self) -> bool:
        """Whether the model is so far below that it counts as not trained to its end."""
        return self.shortfall > UNDER_TRAINED

    def as_json(self) -> dict[str, float | str | bool]:
        """Return what a record says of it."""
        return {**vars(self), "shortfall": self.shortfall, "under_trained": self.under_trained}


def beside_published(
    dataset: str, architecture: str, forget: tuple[float, int], retain: tuple[float, int]
) -> PublishedAccuracy | None:
    """Return the accuracy of a model beside the published one, or None if there is none for its network.

    Args:
        dataset: Name of the data set.
        architecture: Name of the architecture.
        forget: Accuracy on the test images of the forget classes, and their number.
        retain: The same for the retain classes.
    """
    found = _ACCURACIES.get((dataset, architecture))
    if found is None:
        return None
    right = forget[0] * forget[1] + retain[0] * retain[1]
    return PublishedAccuracy(right / (forget[1] + retain[1]), *found)
