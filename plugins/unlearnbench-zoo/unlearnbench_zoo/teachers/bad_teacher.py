"""Teachers who know less about the forget images: a random network (Bad Teacher), or the original at a heat (LoTUS)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import (
    SEARCH,
    BatchNorm,
    Count,
    Descent,
    Epochs,
    Positive,
    Share,
    Weight,
    divergence,
    forget_accuracy,
    forward,
    training_mode,
)


@declare(
    check_options={"epochs": 30, "batch_size": 32, "learning_rate": 3e-3, "retain_share": 1.0},
    ranges={**SEARCH, "learning_rate": Range(1e-5, 1e-2, log=True), "retain_share": Range(0.3, 1.0)},
)
def bad_teacher(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 1,
    batch_size: Count = 256,
    learning_rate: Positive = 1e-4,
    temperature: Positive = 1.0,
    retain_share: Share = 0.3,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """Bad Teacher: distil a random network on the forget images and the original on some retain images.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        epochs: Passes over the forget images.
        batch_size: Images in a step, of both kinds together.
        learning_rate: Learning rate of Adam.
        temperature: Temperature of the softmax of both teachers and the student.
        retain_share: Share of the retain images that is read in an epoch.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited forget images and up to a share of the retain images, once per epoch; both teachers see them too.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: "Can Bad Teaching Induce Forgetting?" (Chundawat, Tarun, Mandal, Kankanhalli; AAAI 2023; arXiv
    2205.08096), defaults of its code. The divergence is summed over classes and averaged over images; the code
    averages over classes too, which makes its loss smaller by the number of classes. Every batch has both kinds in
    about the same proportion, and each epoch draws a share of its own, of which it reads what goes with its forget
    images. The incompetent teacher is the network as the
    original's training started: random, or pre-trained if the recipe starts from published weights.
    """
    competent = copy.deepcopy(model).eval().requires_grad_(False)
    incompetent = task.fresh_model().eval().requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    descent = Descent(model, optimizer, batch_norm)
    for _ in descent.epochs(epochs):
        for images, labels in mixed(task, batch_size, retain_share):
            with torch.no_grad():
                good, bad = forward(competent, images, task), forward(incompetent, images, task)
            target = torch.where(task.is_forget(labels)[:, None], bad, good)
            student = forward(model, images, task)
            descent.step(divergence(student / temperature, (target / temperature).softmax(dim=1)))
        task.end_epoch(model)
    return model


@declare(
    check_options={"epochs": 60, "batch_size": 16, "learning_rate": 3e-3, "retain_share": 1.0, "alpha": 8.0},
    ranges={
        **SEARCH,
        "learning_rate": Range(1e-5, 1e-2, log=True),
        "retain_share": Range(0.3, 1.0),
        "alpha": Range(1.0, 32.0, log=True),
    },
)
def lotus(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 3,
    batch_size: Count = 256,
    learning_rate: Positive = 1e-4,
    weight_decay: Weight = 1e-2,
    alpha: Weight = 32.0,
    retain_share: Share = 0.3,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """LoTUS: distil the original's softened outputs on forget images, its hard ones on some retain images.

    The temperature of an epoch is exp(alpha * a), a being the accuracy on the limited forget images before it: the
    better the classes are still known, the closer the targets are to chance. With a = 0 it is 1.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        epochs: Passes over the forget images.
        batch_size: Images in a step, of both kinds together.
        learning_rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        alpha: How fast the temperature rises with the accuracy on the forget images.
        retain_share: Share of the retain images that is read in an epoch.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited forget images twice per epoch, to test and to train, and up to a share of the retain images once;
        the original sees what is trained on too.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: "LoTUS: Large-Scale Machine Unlearning with a Taste of Uncertainty" (Spartalis, Semertzidis, Gavves, Daras;
    CVPR 2025; arXiv 2503.18314), rule, alpha, share and optimizer of its code for classes. Targets are Gumbel-softmax
    samples of the original's logits: at the temperature for forget images, and one-hot for retain images, where the
    code too draws a sample and not the largest logit. Epochs and decay are ours; the share is drawn anew for each
    epoch, where the code draws it once, and read as far as the forget images reach.
    """
    original = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    descent, generator = Descent(model, optimizer, batch_norm), task.generator("gumbel")
    for _ in descent.epochs(epochs):
        temperature = math.exp(alpha * forget_accuracy(model, task))
        training_mode(model, batch_norm)
        for images, labels in mixed(task, batch_size, retain_share):
            with torch.no_grad():
                logits = forward(original, images, task)
            noise = -torch.empty(logits.shape).exponential_(generator=generator).log().to(logits.device)
            soft = ((logits + noise) / temperature).softmax(dim=1)
            hard = F.one_hot((logits + noise).argmax(dim=1), logits.shape[1]).float()
            target = torch.where(task.is_forget(labels)[:, None], soft, hard)
            descent.step(F.cross_entropy(forward(model, images, task), target))
        task.end_epoch(model)
    return model


def mixed(task: UnlearningTask, batch_size: int, retain_share: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch: all forget images and a share of the retain images.

    An epoch ends with its forget images, so that it reads less than the share where they are too few to be in each of
    its batches.
    """
    forget, retain = task.size("forget"), math.ceil(retain_share * task.size("retain"))
    steps = math.ceil((forget + retain) / batch_size)
    parts = (
        task.batches(1, "forget", batch_size=math.ceil(forget / steps)),
        task.batches(1, "retain", batch_size=math.ceil(retain / steps)),
    )
    for (images, labels), (others, other_labels) in zip(*parts, strict=False):
        yield torch.cat([images, others]), torch.cat([labels, other_labels])
