"""Probe push: moves forget features to where a probe that is fitted anew all the while finds no class in them."""

from __future__ import annotations

from typing import Annotated

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

from unlearnbench_lab.probes import DiscriminantProbe, FeatureMemory, LogisticProbe, Probe, ProbeName, unlikely

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]

PROBES: dict[ProbeName, type[LogisticProbe] | type[DiscriminantProbe]] = {
    "logistic": LogisticProbe,
    "discriminant": DiscriminantProbe,
}


@declare(
    ranges={
        "epochs": Range(5, 40),
        "learning_rate": Range(1e-3, 1e-1, log=True),
        "push": Range(0.1, 4.0, log=True),
        "distillation": Range(0.5, 8.0, log=True),
        "probe": ("logistic", "discriminant"),
    },
)
def probe_push(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Annotated[int, Field(ge=0)] = 20,
    batch_size: Count = 128,
    learning_rate: Positive = 1e-2,
    push: Weight = 2.0,
    output_push: Weight = 1.0,
    distillation: Weight = 2.0,
    temperature: Positive = 4.0,
    refits: Count = 8,
    probe: ProbeName = "logistic",
) -> nn.Module:
    """Probe push: the features of forget images lose their class to a probe that is fitted anew many times an epoch.

        loss = push * U(probe(f)) + output_push * U(logits) on forget images + distillation * L_KD on retain images
        U(z) = mean of -log(1 - softmax(z)_y), which ends by itself where class y is not found any more

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        epochs: Passes over the limited data.
        batch_size: Images of both kinds in a step.
        learning_rate: Highest rate of SGD with momentum 0.9, which follows one cycle.
        push: Weight of the push off the probe.
        output_push: Weight of the same push off the network's own outputs.
        distillation: Weight of the distillation on retain images.
        temperature: Temperature of the distillation.
        refits: Number of times in each epoch that the probe is fitted to the features of the last epoch.
        probe: `logistic` regression or linear `discriminant` analysis, over all K classes.

    Returns:
        The unlearned model, with the same input and output shapes.

    Raises:
        TrainingFailedError: If the loss is no longer finite.

    Reads: all limited images once to begin with and once per epoch; the teacher sees the retain images too.
    Changes: all parameters and the batch-norm statistics.

    Source: own. A push off something that is learned all the while is that of domain-adversarial training (Ganin et
    al., 2016), whose gradient reversal has no lower bound; this loss has one.
    """
    teacher = Teacher(model, task, distillation, temperature, "batch_mean")
    memory = FeatureMemory(*plain_features(model, task))
    reader: Probe = PROBES[probe](task.num_classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    steps = task.steps(batch_size=batch_size)
    cycle = one_cycle(task.recipe, epochs, learning_rate)
    wait = max(1, steps // refits)
    for epoch in range(epochs):
        model.train()
        total = torch.zeros((), device=task.device)
        for step, (images, labels) in enumerate(task.batches(1, batch_size=batch_size)):
            if step % wait == 0:
                reader.fit(memory.features, memory.labels)
            set_learning_rate(optimizer, rate_of_step(cycle, epoch * steps + step, steps))
            features, logits = features_and_logits(model, images, task)
            memory.add(features, labels)
            forget = task.is_forget(labels)
            loss = logits.sum() * 0.0
            if forget.any():
                truth = labels[forget]
                loss = push * unlikely(reader(features[forget]), truth) + output_push * unlikely(logits[forget], truth)
            if not forget.all():
                loss = loss + teacher.loss(images[~forget], logits[~forget])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        check_finite(float(total), f"epoch {epoch + 1}")
        task.end_epoch(model)
    return model


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
