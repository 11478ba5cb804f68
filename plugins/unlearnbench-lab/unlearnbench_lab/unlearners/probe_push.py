"""Probe push: moves forget features to where a probe that is fitted anew all the while finds no class in them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn
from unlearnbench.models.training import check_finite
from unlearnbench.registry.declare import ADDED_LATER, Range, declare
from unlearnbench.unlearners.distillation import Teacher
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.network_pass import earlier_stages, feature_parts, one_cycle
from unlearnbench_lab.probes import (
    DiscriminantProbe,
    KernelProbe,
    LogisticProbe,
    NetworkProbe,
    Probe,
    PrototypeProbe,
    Push,
)
from unlearnbench_lab.student import Student

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]

LINEAR: dict[str, type[LogisticProbe] | type[DiscriminantProbe]] = {
    "logistic": LogisticProbe,
    "discriminant": DiscriminantProbe,
}


@declare(
    version=1,
    ranges={
        "epochs": Range(5, 40),
        "learning_rate": Range(1e-3, 1e-1, log=True),
        "linear_push": Range(0.01, 2.0, log=True),
        "prototype_push": Range(0.01, 2.0, log=True),
        "neighbour_push": Range(0.01, 2.0, log=True),
        "output_push": Range(0.1, 2.0, log=True),
        "distillation": Range(0.5, 8.0, log=True),
        "trained": ("last_stage", "all"),
    },
)
def probe_push(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Annotated[int, Field(ge=0)] = 10,
    batch_size: Count = 128,
    learning_rate: Positive = 1e-2,
    linear_push: Weight = 0.1,
    prototype_push: Weight = 0.1,
    neighbour_push: Weight = 0.1,
    network_push: Annotated[Weight, ADDED_LATER] = 0.0,
    output_push: Weight = 1.0,
    distillation: Weight = 2.0,
    mixing: Annotated[Weight, ADDED_LATER] = 0.0,
    temperature: Positive = 4.0,
    refits: Count = 4,
    remembered: Annotated[Count, ADDED_LATER] = 1,
    sharpness: Annotated[Count, ADDED_LATER] = 1,
    linear: Literal["logistic", "discriminant"] = "logistic",
    trained: Literal["last_stage", "all"] = "last_stage",
    pushed: Annotated[Literal["last_stage", "every_stage"], ADDED_LATER] = "last_stage",
    augmentation: Annotated[Literal["training", "strong"], ADDED_LATER] = "training",
) -> nn.Module:
    """Probe push: the features of forget images lose their class to probes that are fitted anew many times an epoch.

        loss = sum over probes of push * U(probe(f)) + output_push * U(logits) on forget images
               + distillation * L_KD on retain images
        U(z) = mean of -log(1 - softmax(z)_y), which ends by itself where class y is not found any more
        With a sharpness s > 1 a probe's U lacks the first s - 1 terms of its series, and pushes with p^s in place of p

    A probe learns from all classes' features f, those that training computed in the last `remembered` epochs.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        epochs: Passes over the limited data.
        batch_size: Images of both kinds in a step.
        learning_rate: Highest rate of SGD with momentum 0.9, which follows one cycle.
        linear_push: Weight of the push off the linear probe.
        prototype_push: Weight of the push off the class means.
        neighbour_push: Weight of the push off the neighbours of the same class.
        network_push: Weight of the push off a network with a hidden layer.
        output_push: Weight of the push off the network's own outputs.
        distillation: Weight of the distillation on retain images.
        mixing: Weight of the distillation of mixed retain images, of that of the images themselves.
        temperature: Temperature of the distillation.
        refits: Number of times in each epoch that the probes are fitted.
        remembered: Epochs whose augmented features the probes learn from.
        sharpness: Power s with which the push off the probes ends.
        linear: The linear probe: `logistic` regression or linear `discriminant` analysis.
        trained: `last_stage` leaves all stages but the network's last one as they are; `all` trains every layer.
        pushed: Whether the features alone are pushed, `last_stage`, or the pooled outputs of `every_stage`, by probes
            of their own.
        augmentation: `training`, as Original was trained, or `strong`: one more operation of colour or shape for each
            image.

    Returns:
        The unlearned model, with the same input and output shapes.

    Raises:
        TrainingFailedError: If the loss is no longer finite.

    Reads: all limited images once to begin with and once per epoch, retain images a second time where they are mixed;
    the teacher sees the retain images too.
    Changes: all parameters and batch-norm statistics of the last stage and the classifier, or of the whole network.

    Source: own. A push off something that is learned all the while is that of domain-adversarial training (Ganin et
    al., 2016), whose gradient reversal has no lower bound; this loss has one.
    """
    task.expect((1 + epochs) * task.size() + (epochs * task.size("retain") if mixing else 0))
    stages = earlier_stages(model, task) if pushed == "every_stage" else ()

    def probes() -> tuple[Probe, ...]:
        classes = task.num_classes
        return LINEAR[linear](classes), PrototypeProbe(classes), KernelProbe(classes), NetworkProbe(classes)

    parts = feature_parts(stages)
    forces = [Push(probe, part, sharpness) for part in parts for probe in probes()]
    student = Student(
        model,
        task,
        Teacher(model, task, distillation, temperature, "batch_mean"),
        forces,
        one_cycle(task.recipe, epochs, learning_rate),
        batch_size=batch_size,
        refits=refits,
        output_push=output_push,
        all_stages=trained == "all",
        stages=stages,
        remembered=remembered,
        mixing=mixing,
        strong=augmentation == "strong",
    )
    weights = [linear_push, prototype_push, neighbour_push, network_push] * len(parts)
    for epoch in range(epochs):
        loss = student.epoch(weights)
        check_finite(float(loss), f"epoch {epoch + 1}")
        task.end_epoch(model)
    return model.requires_grad_(True)
