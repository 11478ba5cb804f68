"""A student: a copy of Original that is pushed off probes of its own features, and distilled on retain images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from unlearnbench.models.batches import batch_sizes
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.training import learning_rate, set_learning_rate
from unlearnbench.unlearners.distillation import Teacher
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.last_stage import freeze_below_last_stage, train_mode
from unlearnbench_lab.network_pass import features_and_logits, plain_features
from unlearnbench_lab.probes import FeatureMemory, Probe, unlikely


class Student:
    """One network in training.

    Args:
        model: Copy of Original, trained in place.
        task: The limited data.
        teacher: Teacher of the retain images.
        probes: Probes to push off, which are fitted again and again.
        cycle: Recipe with the epochs and the rate of the training.
        batch_size: Images of both kinds in a step.
        refits: Number of times in each epoch that the probes are fitted.
        output_push: Weight of the push off the network's own outputs.
        all_stages: Whether all stages are trained, not the last one alone.
        images: (M,) int64, places of the images to learn from among the limited ones; None takes all.
    """

    def __init__(
        self,
        model: nn.Module,
        task: UnlearningTask,
        teacher: Teacher,
        probes: Sequence[Probe],
        cycle: TrainingRecipe,
        *,
        batch_size: int,
        refits: int,
        output_push: float,
        all_stages: bool,
        images: Tensor | None = None,
    ) -> None:
        self.model = model
        self._task, self._teacher, self._probes, self._cycle = task, teacher, probes, cycle
        self._batch_size, self._refits, self._output_push, self._images = batch_size, refits, output_push, images
        features, labels = plain_features(model, task)
        if images is not None:
            features, labels = features[images], labels[images]
        self._memory = FeatureMemory(features, labels)
        self._frozen = [] if all_stages else freeze_below_last_stage(model, task)
        moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.SGD(moving, lr=cycle.learning_rate, momentum=0.9)
        self._epoch = 0

    def epoch(self, pushes: Sequence[float]) -> Tensor:
        """Pass over the images once, with a weight for the push off each probe, and return the sum of the losses."""
        train_mode(self.model, self._frozen)
        total = torch.zeros((), device=self._task.device)
        batches = self._task.batches(1, batch_size=self._batch_size, only=self._images)
        steps = len(batch_sizes(len(self._memory.labels), self._batch_size))
        pushing = [(weight, probe) for weight, probe in zip(pushes, self._probes, strict=True) if weight > 0]
        for step, (images, labels) in enumerate(batches):
            if step % max(1, steps // self._refits) == 0:
                for _, probe in pushing:
                    probe.fit(self._memory.features, self._memory.labels)
            set_learning_rate(self._optimizer, learning_rate(self._cycle, self._epoch * steps + step, steps))
            loss = self._loss(images, labels, pushing)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            total += loss.detach()
        self._epoch += 1
        return total

    def _loss(self, images: Tensor, labels: Tensor, pushing: Sequence[tuple[float, Probe]]) -> Tensor:
        features, logits = features_and_logits(self.model, images, self._task)
        self._memory.add(features, labels)
        forget = self._task.is_forget(labels)
        # Either kind may be missing in a batch.
        loss = 0.0 * logits.sum()
        if forget.any():
            truth = labels[forget]
            loss = self._output_push * unlikely(logits[forget], truth)
            for weight, probe in pushing:
                loss = loss + weight * unlikely(probe(features[forget]), truth)
        if not forget.all():
            loss = loss + self._teacher.loss(images[~forget], logits[~forget])
        return loss
