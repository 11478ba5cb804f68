"""SSD: dampen the parameters that matter more to the forget images than to all."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import Positive

# Gradient values held at once: 256 MiB in float32.
GRADIENT_VALUES = 2**26

Importance = dict[str, Tensor]


WEAK_IMPORTANCE = "a few limited images do not show which weights the retain classes need"


# The default of 10 selects nothing where a fifth of the images is to be forgotten.
@declare(
    exempt={"retains": WEAK_IMPORTANCE},
    check_options={"alpha": 4.0},
    ranges={"alpha": Range(1.0, 100.0, log=True), "dampening": Range(0.1, 5.0, log=True)},
)
def ssd(model: nn.Module, task: UnlearningTask, *, alpha: Positive = 10.0, dampening: Positive = 1.0) -> nn.Module:
    """SSD, selective synaptic dampening: shrink weights by how much more they matter to the forget images.

    Importance is the mean squared gradient of single images' cross-entropy. Where a parameter's importance to the
    forget images is above alpha times that to all limited images, it is multiplied by dampening times the second
    over the first, or by 1 if that is less. Nothing is trained.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        alpha: How many times as important to the forget images as to all a parameter must be.
        dampening: The paper's lambda: the larger, the less is dampened.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: all limited images, once.
    Changes: the selected parameters; batch-norm statistics stay.

    Source: "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening" (Foster, Schoepf,
    Brintrup; AAAI 2024; arXiv 2308.07707), defaults of its code. Gradients are those of single images, as the
    paper has it, where the code squares those of batches; images are plain and the model is in evaluation mode, so
    the result is the same every time. Importance to all images comes from the limited data. It holds the forget
    images too, so no parameter can be more important by more than (all images) / (forget images): with a fifth of
    the data to forget, 5, and the default alpha selects nothing.
    """
    sums = {kind: squared_gradients(model, task, kind == "forget") for kind in ("forget", "retain")}
    forget, every = task.size("forget"), task.size()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            to_forget = sums["forget"][name] / forget
            to_all = (sums["forget"][name] + sums["retain"][name]) / every
            factor = (dampening * to_all / to_forget).clamp(max=1.0)
            parameter.mul_(torch.where(to_forget > alpha * to_all, factor, 1.0))
    return model


def squared_gradients(model: nn.Module, task: UnlearningTask, forget: bool) -> Importance:
    """Return for each parameter the sum of squared gradients of single images' cross-entropy.

    Args:
        model: In evaluation mode afterwards.
        task: Gives the images.
        forget: Whether those of forget or of retain classes.
    """
    model.eval()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(values: Importance, image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, (values, buffers), (image[None],))
        return F.cross_entropy(logits, label[None])

    gradients: Callable[..., Importance] = vmap(grad(loss), in_dims=(None, 0, 0))
    size = max(1, min(64, GRADIENT_VALUES // sum(value.numel() for value in parameters.values())))
    sums = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for images, labels in task.plain("forget" if forget else "retain", batch_size=size):
        for name, gradient in gradients(parameters, images, labels).items():
            sums[name] += gradient.square().sum(dim=0)
    return sums
