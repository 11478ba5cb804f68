"""Networks that never saw the forget classes, made from the limited data alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unlearnbench.models.batches import batch_sizes
from unlearnbench.models.training import check_finite, learning_rate, recipe_optimizer, set_learning_rate
from unlearnbench.unlearners.distillation import Teacher
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.network_pass import one_cycle


def unseen_network(task: UnlearningTask, teacher: Teacher, images: Tensor, epochs: int, batch_size: int) -> nn.Module:
    """Return a fresh network that learned retain images, their labels and what the teacher says of retain classes.

    Args:
        task: The limited data, and a way to a fresh network.
        teacher: Original as a teacher of its retain logits.
        images: (M,) int64, places of retain images among the limited ones.
        epochs: Passes over the images.
        batch_size: Images in a step; the recipe's rate is that of its own batches, and falls with their size.

    Raises:
        TrainingFailedError: If the loss is no longer finite.
    """
    network = task.fresh_model()
    recipe = one_cycle(task.recipe, epochs, task.recipe.learning_rate * batch_size / task.recipe.batch_size)
    optimizer = recipe_optimizer(network, recipe)
    network.train()
    steps = len(batch_sizes(len(images), batch_size))
    for epoch in range(epochs):
        total = torch.zeros((), device=task.device)
        batches = task.batches(1, batch_size=batch_size, only=images)
        for step, (batch, labels) in enumerate(batches, start=epoch * steps):
            set_learning_rate(optimizer, learning_rate(recipe, step, steps))
            with task.autocast():
                logits = network(batch).float()
            known = logits.index_fill(1, task.forget_classes, -torch.inf)
            loss = F.cross_entropy(known, labels) + teacher.loss(batch, logits)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        check_finite(float(total), f"epoch {epoch + 1} of a network that never saw the forget classes")
    return network
