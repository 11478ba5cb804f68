"""Steered push: the push off probes, steered by forget images that are not pushed and by a network that saw none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from unlearnbench.models.training import check_finite
from unlearnbench.registry.declare import ADDED_LATER, Range, declare
from unlearnbench.unlearners.distillation import Teacher
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.held_out import HeldOut
from unlearnbench_lab.network_pass import earlier_stages, feature_parts, one_cycle
from unlearnbench_lab.probes import KernelProbe, LogisticProbe, PrototypeProbe, Push
from unlearnbench_lab.student import Student
from unlearnbench_lab.unseen import unseen_network

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]

FIRST, LOWEST, HIGHEST = 0.1, 0.01, 1.0
# A reading counts for a few epochs, because few images say little; a weight changes by a third at most in one.
MEMORY, GAIN = 0.7, 0.3


@declare(
    version=1,
    check_options={"epochs": 20, "batch_size": 16, "unseen_epochs": 5},
    ranges={
        "epochs": Range(5, 40),
        "learning_rate": Range(1e-3, 1e-1, log=True),
        "held_out": Range(0.2, 0.6),
        "unseen_epochs": Range(10, 80),
        "distillation": Range(0.5, 8.0, log=True),
    },
)
def steered_push(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Annotated[int, Field(ge=0)] = 10,
    batch_size: Count = 128,
    learning_rate: Positive = 1e-2,
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    unseen_epochs: Count = 40,
    output_push: Weight = 1.0,
    distillation: Weight = 2.0,
    temperature: Positive = 4.0,
    refits: Count = 4,
    mixing: Annotated[Weight, ADDED_LATER] = 0.0,
    trained: Annotated[Literal["last_stage", "all"], ADDED_LATER] = "last_stage",
    pushed: Annotated[Literal["last_stage", "every_stage"], ADDED_LATER] = "last_stage",
) -> nn.Module:
    """Steered push: probe push whose weights follow what is found of forget images that are not pushed.

        weight <- weight * exp(0.3 * (e + min(0, least e of the three))), e = (share - goal) / (1 - goal) in [-1, 1]

    The share is what a reader finds of held-out forget images, of what it finds in Original. The goal is the same
    share in a fresh network that learned the limited retain images and Original's retain logits, and never saw a
    forget class. A view is pushed harder only while it is further above its goal than any view is below its own.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds, and a way to a fresh network.
        epochs: Passes over the limited data.
        batch_size: Images of both kinds in a step.
        learning_rate: Highest rate of SGD with momentum 0.9, which follows one cycle.
        held_out: Share of each forget class's images that are read and not pushed.
        unseen_epochs: Passes of the fresh network over four fifths of the retain images.
        output_push: Weight of the push off the network's own outputs.
        distillation: Weight of the distillation on retain images.
        temperature: Temperature of the distillation.
        refits: Number of times in each epoch that the probes are fitted.
        mixing: Weight of the distillation of mixed retain images, of that of the images themselves.
        trained: `last_stage` leaves all stages but the network's last one as they are; `all` trains every layer.
        pushed: Whether the features alone are pushed, `last_stage`, or the pooled outputs of `every_stage`, by probes
            of their own with the same weights. What is found is read from the features.

    Returns:
        The unlearned model, with the same input and output shapes.

    Raises:
        NotApplicable: If no forget class has 3 images.
        TrainingFailedError: If the loss is no longer finite.

    Reads: all limited images twice to begin with, those not held out once per epoch and all of them after it, and four
    fifths of the retain images once per epoch of the fresh network; retain images a second time in each epoch where
    they are mixed; the teacher sees the retain images too.
    Changes: all parameters and batch-norm statistics of the last stage and the classifier, or of the whole network.

    Source: own; see `probe_push`. The record's details hold the goal, and the shares and weights of every epoch.
    """
    images = HeldOut(model, task, held_out)
    learned, retain = len(images.learned), len(images.most_retain)
    again = epochs * task.size("retain") if mixing else 0
    task.expect((2 + epochs) * task.size() + epochs * learned + again + unseen_epochs * retain)
    # The fresh network's distillation has the weight of its cross-entropy.
    goal = images.unseen_shares(
        unseen_network(
            task, Teacher(model, task, 1.0, temperature, "batch_mean"), images.most_retain, unseen_epochs, batch_size
        )
    )
    stages = earlier_stages(model, task) if pushed == "every_stage" else ()
    parts, probes = feature_parts(stages), (LogisticProbe, PrototypeProbe, KernelProbe)
    student = Student(
        model,
        task,
        Teacher(model, task, distillation, temperature, "batch_mean"),
        [Push(probe(task.num_classes), part) for part in parts for probe in probes],
        one_cycle(task.recipe, epochs, learning_rate),
        batch_size=batch_size,
        refits=refits,
        output_push=output_push,
        all_stages=trained == "all",
        images=images.learned,
        stages=stages,
        mixing=mixing,
    )
    pushes, share = [FIRST] * 3, torch.ones(3, device=task.device)
    curve = []
    for epoch in range(epochs):
        check_finite(float(student.epoch(pushes * len(parts))), f"epoch {epoch + 1}")
        share = MEMORY * share + (1 - MEMORY) * images.shares(model)
        curve.append({"share": rounded(share), "pushes": pushes})
        pushes = steered(pushes, share, goal)
        task.end_epoch(model)
    task.report("steering", {"views": ["probe", "prototype", "neighbours"], "goal": rounded(goal), "epochs": curve})
    return model.requires_grad_(True)


def steered(pushes: Sequence[float], share: Tensor, goal: Tensor) -> list[float]:
    """Return the weights of the next epoch.

    Args:
        pushes: The three weights of this epoch.
        share: (3,) what is found of held-out images, of what was found in Original.
        goal: (3,) what should be found, below 1.
    """
    errors = ((share - goal) / (1.0 - goal)).clamp(-1.0, 1.0)
    steps = (errors + errors.min().clamp(max=0.0)).tolist()
    moved = [weight * math.exp(GAIN * step) for weight, step in zip(pushes, steps, strict=True)]
    return [round(min(max(weight, LOWEST), HIGHEST), 4) for weight in moved]


def rounded(values: Tensor) -> list[float]:
    """Return a tensor's values for a record."""
    return [round(value, 4) for value in values.tolist()]
