"""Unseen targets: features of forget images go where a network that never saw their classes puts them."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from unlearnbench.models.training import check_finite
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.distillation import Teacher
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.network_pass import features_and_logits, one_cycle, plain_features
from unlearnbench_lab.student import Student
from unlearnbench_lab.unseen import unseen_network

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


@declare(
    version=1,
    check_options={"unseen_epochs": 5},
    ranges={
        "epochs": Range(5, 40),
        "learning_rate": Range(1e-3, 1e-1, log=True),
        "pull": Range(0.1, 10.0, log=True),
        "ridge": Range(1e-3, 1.0, log=True),
        "output_push": Range(0.1, 2.0, log=True),
        "distillation": Range(0.5, 8.0, log=True),
        "trained": ("last_stage", "all"),
    },
)
def unseen_targets(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Annotated[int, Field(ge=0)] = 20,
    batch_size: Count = 32,
    learning_rate: Positive = 1e-2,
    pull: Weight = 1.0,
    ridge: Positive = 0.1,
    unseen_epochs: Count = 40,
    output_push: Weight = 1.0,
    distillation: Weight = 2.0,
    temperature: Positive = 4.0,
    trained: Literal["last_stage", "all"] = "last_stage",
) -> nn.Module:
    """Unseen targets: features of forget images go where a network that never saw their classes puts them.

        loss = pull * mean of |f - T(u)|^2 / s + output_push * mean of -log(1 - p) on forget images
               + distillation * L_KD on retain images

    u are the features that a fresh network gives to the image, which learned the limited retain images and Original's
    retain logits alone. T is the linear map from its features to Original's that fits the retain images best, and s the
    mean squared distance of Original's features from their mean, so that the pull ends by itself where an image would
    lie that nobody knew.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds, and a way to a fresh network.
        epochs: Passes over the limited data.
        batch_size: Images of both kinds in a step.
        learning_rate: Highest rate of SGD with momentum 0.9, which follows one cycle.
        pull: Weight of the pull to the targets.
        ridge: Weight of the map's squared entries, the fresh network's features being standardised.
        unseen_epochs: Passes of the fresh network over the retain images.
        output_push: Weight of the push off the network's own outputs.
        distillation: Weight of the distillation on retain images.
        temperature: Temperature of the distillation.
        trained: `last_stage` leaves all stages but the network's last one as they are; `all` trains every layer.

    Returns:
        The unlearned model, with the same input and output shapes.

    Raises:
        TrainingFailedError: If the loss is no longer finite.

    Reads: all limited images three times to begin with and once per epoch, the retain images once per epoch of the
    fresh network; the teacher sees the retain images too, and the fresh network the forget images.
    Changes: all parameters and batch-norm statistics of the last stage and the classifier, or of the whole network.

    Source: own.
    """
    task.expect((3 + epochs) * task.size() + unseen_epochs * task.size("retain"))
    features, labels = plain_features(model, task)
    retain = torch.nonzero(~task.is_forget(labels)).flatten()
    unseen = unseen_network(
        task, Teacher(model, task, 1.0, temperature, "batch_mean"), retain, unseen_epochs, batch_size
    )
    target = Target(unseen, plain_features(unseen, task)[0], features, retain, ridge, task)
    student = Student(
        model,
        task,
        Teacher(model, task, distillation, temperature, "batch_mean"),
        [target],
        one_cycle(task.recipe, epochs, learning_rate),
        batch_size=batch_size,
        refits=1,
        output_push=output_push,
        all_stages=trained == "all",
    )
    for epoch in range(epochs):
        check_finite(float(student.epoch([pull])), f"epoch {epoch + 1}")
        task.end_epoch(model)
    return model.requires_grad_(True)


class Target:
    """The pull of an image's features to where a network that never saw its class puts it, see `unseen_targets`.

    Args:
        network: The network.
        unseen: Features (N, E) that it gives to all limited images.
        original: Features (N, D) that Original gives to them.
        retain: (M,) int64, places of the images that the map is fitted on.
        ridge: Weight of the map's squared entries.
        task: The limited data.
    """

    def __init__(
        self, network: nn.Module, unseen: Tensor, original: Tensor, retain: Tensor, ridge: float, task: UnlearningTask
    ) -> None:
        self._network, self._task = network.eval(), task
        known, wanted = unseen[retain], original[retain]
        self._mean, self._scale = known.mean(dim=0), known.std(dim=0).clamp(min=1e-3)
        self._bias = wanted.mean(dim=0)
        self._spread = (wanted - self._bias).square().sum(dim=1).mean().clamp(min=1e-12)
        inputs = (known - self._mean) / self._scale
        moment = inputs.T @ inputs / len(inputs) + ridge * torch.eye(inputs.shape[1], device=inputs.device)
        self._map = torch.linalg.solve(moment, inputs.T @ (wanted - self._bias) / len(inputs))

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Do nothing: the target stays where it is."""

    def loss(self, images: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared distance from the target, as a share of the features' own spread."""
        with torch.no_grad():
            seen = features_and_logits(self._network, images, self._task)[0]
            place = (seen - self._mean) / self._scale @ self._map + self._bias
        distance: Tensor = (features - place).square().sum(dim=1).mean() / self._spread
        return distance
