"""SSD: dampens the parameters that matter more to the forget images than to all images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import Positive

# This many gradient values are held at once, which takes 256 MiB in float32.
GRADIENT_VALUES = 2**26

Importance = dict[str, Tensor]


WEAK_IMPORTANCE = "a few limited images do not show which weights the retain classes need"


# The default of 10 selects nothing if a fifth of the images is to be forgotten.
@declare(
    exempt={"retains": WEAK_IMPORTANCE},
    check_options={"alpha": 4.0},
    ranges={"alpha": Range(1.0, 100.0, log=True), "dampening": Range(0.1, 5.0, log=True)},
)
def ssd(model: nn.Module, task: UnlearningTask, *, alpha: Positive = 10.0, dampening: Positive = 1.0) -> nn.Module:
    """SSD, selective synaptic dampening: shrink weights by how much more they matter to the forget images.

    Importance is the mean squared gradient of single images' cross-entropy. If a parameter's importance to the forget
    images is above alpha times that to all limited images, the parameter is multiplied by dampening times the ratio of
    the second to the first, or by 1 if that is less. Nothing is trained.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        alpha: Ratio of a parameter's importance to the forget images to that to all images above which it is dampened.
        dampening: The paper's lambda: the larger it is, the less is dampened.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: all limited images, once.
    Changes: the selected parameters; batch-norm statistics stay the same.

    Source: "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening" (Foster, Schoepf,
    Brintrup; AAAI 2024; arXiv 2308.07707), defaults of its code. Gradients are those of single images, as in the
    paper, where the code squares those of batches. Images are plain and the model is in evaluation mode, so that
    the result is the same every time. Importance to all images comes from the limited data, which include the forget
    images. No parameter's ratio can therefore exceed (all images) / (forget images), which is 5 with a fifth of the
    data to forget, so that the default alpha selects nothing there.
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
        model: Model, left in evaluation mode.
        task: Task that gives the images.
        forget: Whether the images are those of the forget classes or of the retain classes.
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
