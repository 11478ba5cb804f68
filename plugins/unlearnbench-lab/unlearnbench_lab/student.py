"""A student: a copy of Original that is pushed off probes of its own features, and distilled on retain images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from unlearnbench.models.batches import batch_sizes
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.stages import Stage
from unlearnbench.models.training import learning_rate, set_learning_rate
from unlearnbench.unlearners.distillation import Teacher
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.last_stage import freeze_below_last_stage, train_mode
from unlearnbench_lab.network_pass import features_and_logits, mixed, plain_features, strongly_augmented
from unlearnbench_lab.probes import FeatureMemory, Force, unlikely


class Student:
    """One network in training.

    Args:
        model: Copy of Original, trained in place.
        task: The limited data.
        teacher: Teacher of the retain images.
        forces: What moves the features of forget images, fitted again and again.
        cycle: Recipe with the epochs and the rate of the training.
        batch_size: Images of both kinds in a step.
        refits: Number of times in each epoch that the forces are fitted.
        output_push: Weight of the push off the network's own outputs.
        all_stages: Whether all stages are trained, not the last one alone.
        images: (M,) int64, places of the images to learn from among the limited ones; None takes all.
        stages: Earlier stages whose pooled outputs the forces get too, before the features.
        remembered: Passes over the images whose features the forces are fitted on.
        mixing: Weight of the distillation of mixed retain images, of that of the images themselves.
        strong: Whether every image is strongly augmented.
    """

    def __init__(
        self,
        model: nn.Module,
        task: UnlearningTask,
        teacher: Teacher,
        forces: Sequence[Force],
        cycle: TrainingRecipe,
        *,
        batch_size: int,
        refits: int,
        output_push: float,
        all_stages: bool,
        images: Tensor | None = None,
        stages: Sequence[Stage] = (),
        remembered: int = 1,
        mixing: float = 0.0,
        strong: bool = False,
    ) -> None:
        self.model = model
        self._task, self._teacher, self._forces, self._cycle = task, teacher, forces, cycle
        self._batch_size, self._refits, self._output_push, self._images = batch_size, refits, output_push, images
        self._stages, self._mixing, self._strong = stages, mixing, strong
        self._mixer, self._changes = task.generator("mixing"), task.generator("strong augmentation")
        features, labels = plain_features(model, task, stages)
        if images is not None:
            features, labels = features[images], labels[images]
        self._size = len(labels)
        self._memory = FeatureMemory(features, labels, remembered)
        self._frozen = [] if all_stages else freeze_below_last_stage(model, task)
        moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.SGD(moving, lr=cycle.learning_rate, momentum=0.9)
        self._epoch = 0

    def epoch(self, weights: Sequence[float]) -> Tensor:
        """Pass over the images once, with a weight for each force, and return the sum of the losses."""
        train_mode(self.model, self._frozen)
        total = torch.zeros((), device=self._task.device)
        batches = self._task.batches(1, batch_size=self._batch_size, only=self._images)
        steps = len(batch_sizes(self._size, self._batch_size))
        acting = [(weight, force) for weight, force in zip(weights, self._forces, strict=True) if weight > 0]
        for step, (images, labels) in enumerate(batches):
            if step % max(1, steps // self._refits) == 0:
                for _, force in acting:
                    force.fit(self._memory.features, self._memory.labels)
            set_learning_rate(self._optimizer, learning_rate(self._cycle, self._epoch * steps + step, steps))
            if self._strong:
                images = strongly_augmented(images, self._task, self._changes)
            loss = self._loss(images, labels, acting)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            total += loss.detach()
        self._epoch += 1
        return total

    def _loss(self, images: Tensor, labels: Tensor, acting: Sequence[tuple[float, Force]]) -> Tensor:
        features, logits = features_and_logits(self.model, images, self._task, self._stages)
        self._memory.add(features, labels)
        forget = self._task.is_forget(labels)
        # Either kind may be missing in a batch.
        loss = 0.0 * logits.sum()
        if forget.any():
            truth = labels[forget]
            loss = self._output_push * unlikely(logits[forget], truth)
            for weight, force in acting:
                loss = loss + weight * force.loss(images[forget], features[forget], truth)
        if not forget.all():
            loss = loss + self._teacher.loss(images[~forget], logits[~forget])
            if self._mixing:
                loss = loss + self._mixing * self._mixed_loss(images[~forget], labels[~forget])
        return loss

    def _mixed_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the distillation of mixed retain images, which are read once more for it."""
        images = mixed(images, self._mixer)
        self._task.count(labels)
        with self._task.autocast():
            logits = self.model(images).float()
        return self._teacher.loss(images, logits)
