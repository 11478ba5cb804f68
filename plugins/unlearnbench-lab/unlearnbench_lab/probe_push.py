"""Probe push: moves forget features to where a probe that is fitted anew all the while finds no class in them."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from unlearnbench.models.classifier import captured_features
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.training import check_finite, set_learning_rate
from unlearnbench.models.training import learning_rate as rate_of_step
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.distillation import Teacher
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.last_stage import freeze_below_last_stage, train_mode
from unlearnbench_lab.probes import (
    DiscriminantProbe,
    FeatureMemory,
    KernelProbe,
    LogisticProbe,
    Probe,
    PrototypeProbe,
    unlikely,
)

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
    output_push: Weight = 1.0,
    distillation: Weight = 2.0,
    temperature: Positive = 4.0,
    refits: Count = 4,
    linear: Literal["logistic", "discriminant"] = "logistic",
    trained: Literal["last_stage", "all"] = "last_stage",
) -> nn.Module:
    """Probe push: the features of forget images lose their class to probes that are fitted anew many times an epoch.

        loss = sum over probes of push * U(probe(f)) + output_push * U(logits) on forget images
               + distillation * L_KD on retain images
        U(z) = mean of -log(1 - softmax(z)_y), which ends by itself where class y is not found any more

    A probe learns from all classes' features f, those that training computed in the last epoch.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        epochs: Passes over the limited data.
        batch_size: Images of both kinds in a step.
        learning_rate: Highest rate of SGD with momentum 0.9, which follows one cycle.
        linear_push: Weight of the push off the linear probe.
        prototype_push: Weight of the push off the class means.
        neighbour_push: Weight of the push off the neighbours of the same class.
        output_push: Weight of the push off the network's own outputs.
        distillation: Weight of the distillation on retain images.
        temperature: Temperature of the distillation.
        refits: Number of times in each epoch that the probes are fitted.
        linear: The linear probe: `logistic` regression or linear `discriminant` analysis.
        trained: `last_stage` leaves all stages but the network's last one as they are; `all` trains every layer.

    Returns:
        The unlearned model, with the same input and output shapes.

    Raises:
        TrainingFailedError: If the loss is no longer finite.

    Reads: all limited images once to begin with and once per epoch; the teacher sees the retain images too.
    Changes: all parameters and batch-norm statistics of the last stage and the classifier, or of the whole network.

    Source: own. A push off something that is learned all the while is that of domain-adversarial training (Ganin et
    al., 2016), whose gradient reversal has no lower bound; this loss has one.
    """
    teacher = Teacher(model, task, distillation, temperature, "batch_mean")
    memory = FeatureMemory(*plain_features(model, task))
    weighted: list[tuple[float, Probe]] = [
        (linear_push, LINEAR[linear](task.num_classes)),
        (prototype_push, PrototypeProbe(task.num_classes)),
        (neighbour_push, KernelProbe(task.num_classes)),
    ]
    probes = [(weight, probe) for weight, probe in weighted if weight > 0]
    frozen = freeze_below_last_stage(model, task) if trained == "last_stage" else []
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=learning_rate, momentum=0.9)
    steps = task.steps(batch_size=batch_size)
    cycle = one_cycle(task.recipe, epochs, learning_rate)
    for epoch in range(epochs):
        train_mode(model, frozen)
        total = torch.zeros((), device=task.device)
        for step, (images, labels) in enumerate(task.batches(1, batch_size=batch_size)):
            if step % max(1, steps // refits) == 0:
                for _, probe in probes:
                    probe.fit(memory.features, memory.labels)
            set_learning_rate(optimizer, rate_of_step(cycle, epoch * steps + step, steps))
            features, logits = features_and_logits(model, images, task)
            memory.add(features, labels)
            forget = task.is_forget(labels)
            # Either kind may be missing in a batch.
            loss = 0.0 * logits.sum()
            if forget.any():
                truth = labels[forget]
                loss = output_push * unlikely(logits[forget], truth)
                for weight, probe in probes:
                    loss = loss + weight * unlikely(probe(features[forget]), truth)
            if not forget.all():
                loss = loss + teacher.loss(images[~forget], logits[~forget])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        check_finite(float(total), f"epoch {epoch + 1}")
        task.end_epoch(model)
    return model.requires_grad_(True)


def features_and_logits(model: nn.Module, images: Tensor, task: UnlearningTask) -> tuple[Tensor, Tensor]:
    """Return the features (B, D) and logits (B, K) of a batch in float32, computed in the recipe's precision."""
    with captured_features(model, with_gradient=True) as captured, task.autocast():
        logits = model(images)
    return captured[0].float(), logits.float()


def plain_features(model: nn.Module, task: UnlearningTask) -> tuple[Tensor, Tensor]:
    """Return the features (N, D) of all limited images in evaluation mode, and their labels (N,)."""
    model.eval()
    with torch.no_grad():
        parts = [(features_and_logits(model, images, task)[0], labels) for images, labels in task.plain()]
    return torch.cat([features for features, _ in parts]), torch.cat([labels for _, labels in parts])


def one_cycle(recipe: TrainingRecipe, epochs: int, highest: float) -> TrainingRecipe:
    """Return a recipe whose learning rate rises to its highest value and falls again within the epochs."""
    return recipe.model_copy(update={"schedule": "one_cycle", "epochs": epochs, "learning_rate": highest})
