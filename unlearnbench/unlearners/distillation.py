"""Knowledge distillation on the retain classes' logits."""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnbench.unlearners.task import UnlearningTask

Reduction = Literal["batch_mean", "element_mean"]


def distillation_loss(
    student: Tensor, teacher: Tensor, kappa: float = 2.0, reduction: Reduction = "batch_mean"
) -> Tensor:
    """Return kappa^2 * KL(softmax(teacher / kappa) || softmax(student / kappa)).

    Args:
        student: (B, R) logits of the retain classes.
        teacher: (B, R) logits of the same classes from the original model in evaluation mode.
        kappa: Temperature of the softmax, > 0.
        reduction: `batch_mean` sums over classes and averages over images; `element_mean` averages over
            classes too, so that it is smaller by the factor R.

    Returns:
        A scalar, which is 0 where both agree.

    Source: Hinton, Vinyals, Dean (2015) as ERwP (ECCV 2022) uses it. `element_mean` is what the
    implementation named there computes: its `KLDivLoss()` averages over every element by default.
    """
    p = F.log_softmax(teacher.float() / kappa, dim=1)
    q = F.log_softmax(student.float() / kappa, dim=1)
    divergence = F.kl_div(q, p, reduction="sum", log_target=True)
    return kappa**2 * divergence / (len(student) if reduction == "batch_mean" else student.numel())


class Teacher:
    """The untouched original model in evaluation mode, and the loss that keeps a student close to it.

    Args:
        original: Original model, of which a copy is kept, so that it may be trained afterwards.
        task: Task that knows the retain classes, the only ones whose logits take part.
        beta: Weight of the loss.
        kappa: Temperature of the softmax.
        reduction: Reduction of the loss; see `distillation_loss`.
    """

    def __init__(
        self, original: nn.Module, task: UnlearningTask, beta: float, kappa: float, reduction: Reduction
    ) -> None:
        self._model = copy.deepcopy(original).eval().requires_grad_(False)
        self._task = task
        self._beta, self._kappa, self._reduction = beta, kappa, reduction

    def loss(self, images: Tensor, logits: Tensor) -> Tensor:
        """Return beta times the distillation loss of a batch.

        Args:
            images: (B, C, H, W), the same as the student saw.
            logits: (B, K or more) logits of the student.
        """
        with torch.no_grad(), self._task.autocast():
            target = self._model(images)
        retain = self._task.retain_classes
        return self._beta * distillation_loss(logits[:, retain], target[:, retain], self._kappa, self._reduction)
