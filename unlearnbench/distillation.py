"""Knowledge distillation on the retain classes' logits."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["batch_mean", "element_mean"]


def distillation_loss(
    student: Tensor, teacher: Tensor, kappa: float = 2.0, reduction: Reduction = "batch_mean"
) -> Tensor:
    """Return kappa^2 * KL(softmax(teacher / kappa) || softmax(student / kappa)).

    Args:
        student: (B, R) logits of the retain classes.
        teacher: (B, R) logits of the same classes from the original model in evaluation mode.
        kappa: Temperature, > 0.
        reduction: `batch_mean` sums over classes and averages over images; `element_mean` averages over
            classes too, so it is smaller by the factor R.

    Returns:
        A scalar, 0 where both agree.

    Source: Hinton, Vinyals, Dean (2015) as ERwP (ECCV 2022) uses it. `element_mean` is what the
    implementation named there computes: its `KLDivLoss()` averages over every element by default.
    """
    p = F.log_softmax(teacher.float() / kappa, dim=1)
    q = F.log_softmax(student.float() / kappa, dim=1)
    divergence = F.kl_div(q, p, reduction="batchmean" if reduction == "batch_mean" else "mean", log_target=True)
    return kappa**2 * divergence
