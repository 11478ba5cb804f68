"""Networks that learn retain images alone, from the limited data and what Original says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unlearnbench.models.batches import batch_sizes
from unlearnbench.models.training import check_finite, learning_rate, recipe_optimizer, set_learning_rate
from unlearnbench.unlearners.distillation import Teacher
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.last_stage import train_mode
from unlearnbench_lab.network_pass import features_and_logits, mixed, one_cycle


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
    # Nothing is asked of the outputs of classes that it does not learn.
    learn_retain(network, task, teacher, images, epochs, batch_size, ignored=task.forget_classes)
    return network


def learn_retain(
    network: nn.Module,
    task: UnlearningTask,
    teacher: Teacher,
    images: Tensor | None,
    epochs: int,
    batch_size: int,
    *,
    ignored: Tensor,
    frozen: Sequence[nn.Module] = (),
    mixing: float = 0.0,
    epoch_ended: Callable[[], None] = lambda: None,
) -> None:
    """Train a network on retain images, their labels and what the teacher says of retain classes.

    Args:
        network: Network, trained in place as far as its parameters have gradients.
        task: The limited data.
        teacher: Original as a teacher of its retain logits.
        images: (M,) int64, places of retain images among the limited ones; None takes all retain images.
        epochs: Passes over the images.
        batch_size: Images in a step.
        ignored: Classes that the cross-entropy leaves out, any number of them.
        frozen: Modules that stay in evaluation mode.
        mixing: Weight of the distillation of mixed images, of that of the images themselves.
        epoch_ended: Called after each epoch.

    Raises:
        TrainingFailedError: If the loss is no longer finite.
    """
    recipe = one_cycle(task.recipe, epochs, task.recipe.learning_rate * batch_size / task.recipe.batch_size)
    optimizer = recipe_optimizer(network, recipe)
    mixer = task.generator("mixing")
    steps = len(batch_sizes(task.size("retain") if images is None else len(images), batch_size))
    for epoch in range(epochs):
        train_mode(network, frozen)
        total = torch.zeros((), device=task.device)
        batches = task.batches(1, "retain" if images is None else "all", batch_size=batch_size, only=images)
        for step, (batch, labels) in enumerate(batches, start=epoch * steps):
            set_learning_rate(optimizer, learning_rate(recipe, step, steps))
            with task.autocast():
                logits = network(batch).float()
            known = logits.index_fill(1, ignored, -torch.inf)
            loss = F.cross_entropy(known, labels) + teacher.loss(batch, logits)
            if mixing:
                task.count(labels)
                batch = mixed(batch, mixer)
                loss = loss + mixing * teacher.loss(batch, features_and_logits(network, batch, task)[1])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        check_finite(float(total), f"epoch {epoch + 1} on retain images alone")
        epoch_ended()
