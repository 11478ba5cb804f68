"""What comes back of the forget classes when a model is compressed, or fine-tuned on a few of their images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.cost import share_found, with_outputs_for
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.live_model import LiveModel
from unlearnbench.metrics.measurement import Measurement
from unlearnbench.models.batches import Batches
from unlearnbench.models.classifier import output_classes
from unlearnbench.seeds import derived_seed
from unlearnbench.unlearners.builtin.searched_layers import searched_parameters

Share = Annotated[float, Field(gt=0, lt=1)]
Bits = Annotated[int, Field(ge=2, le=16)]
Shots = Annotated[int, Field(gt=0)]


def rounding_recovery(
    features: FeatureFile, model: LiveModel, *, bits: Annotated[tuple[Bits, ...], Field(min_length=1)] = (8, 6, 5, 4, 3)
) -> Measurement:
    """Rounding recovery: how much FAe rises when the weights are rounded to few bits, such as int8 and int4.

        w' = s * round(w / s),  s = max |w| / (2^(bits - 1) - 1), for each output channel by itself

    The weights of convolutions and linear layers are rounded, the classifier's included; biases, batch norm and
    activations stay as they are. No image is used to calibrate.

    Args:
        features: Feature file that gives the forget classes.
        model: The judged model, of which copies are rounded.
        bits: Numbers of bits, each of which is tried on the model as it was.

    Returns:
        A difference of fractions, in [-1, 1]: the largest FAe over `bits` less that of the model as it is; at most 0
        if nothing comes back. The details hold the curve: FAe and CAne for each number of bits.

    Raises:
        MetricError: If a kind of classes has no test image, or a weight is not finite.

    Source: Zhang et al., ICLR 2025, "Catastrophic failure of LLM unlearning via quantization": small changes that
    unlearning made are undone by rounding. Known weakness: outputs that were deleted cannot come back. Needs the model.
    """
    steps = [(float(number), {"bits": number}) for number in bits]
    return _largest_rise(
        features, model, _curve(features, model, steps, lambda weight, number: rounded(weight, int(number)))
    )


def pruning_recovery(
    features: FeatureFile,
    model: LiveModel,
    *,
    shares: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.1, 0.3, 0.5, 0.7, 0.9),
) -> Measurement:
    """Pruning recovery: how much FAe rises when the smallest weights of each layer are set to 0.

    The weights of convolutions and linear layers are pruned by magnitude, each layer by itself.

    Args:
        features: Feature file that gives the forget classes.
        model: The judged model, of which copies are pruned.
        shares: Shares of each layer's weights, each of which is tried on the model as it was.

    Returns:
        A difference of fractions, in [-1, 1]: the largest FAe over `shares` less that of the model as it is; at most 0
        if nothing comes back. The details hold the curve: FAe and CAne for each share.

    Raises:
        MetricError: If a kind of classes has no test image, or a weight is not finite.

    Source: magnitude pruning (Han et al., NeurIPS 2015), as a test of unlearning (Jia et al., NeurIPS 2023, look at
    pruning before it). Known weakness: outputs that were deleted cannot come back. Needs the model.
    """
    steps = [(share, {"share": share}) for share in shares]
    return _largest_rise(features, model, _curve(features, model, steps, pruned))


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Return a weight in which each output channel has 2^bits - 1 values, multiples of a part of its largest one."""
    channels = weight.reshape(len(weight), -1)
    scale = channels.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / (2 ** (bits - 1) - 1)
    found: Tensor = (channels / scale).round() * scale
    return found.reshape(weight.shape)


def pruned(weight: Tensor, share: float) -> Tensor:
    """Return a weight with a share of its entries, the smallest by magnitude, at 0; of equal ones the first."""
    order = weight.abs().flatten().sort(stable=True).indices
    kept = weight.flatten().clone()
    kept[order[: round(share * len(order))]] = 0
    return kept.reshape(weight.shape)


Step = tuple[float, dict[str, Any]]


def _curve(
    features: FeatureFile, model: LiveModel, steps: Sequence[Step], change: Callable[[Tensor, float], Tensor]
) -> Iterator[dict[str, Any]]:
    """Yield what a model with changed weights finds, for each step of the change."""
    for amount, named in steps:
        copy = model.load()
        with torch.no_grad():
            for name, parameter in searched_parameters(copy, "weights").items():
                if not torch.isfinite(parameter).all():
                    raise MetricError(f"{name} is not finite")
                parameter.copy_(change(parameter, amount))
        yield {**named, **_accuracies(features, copy, model.test())}


def _accuracies(features: FeatureFile, model: nn.Module, test: Batches) -> dict[str, float]:
    """Return FAe and CAne."""
    return {
        "forget_accuracy": share_found(model, test, _positions(test, features.forget_classes)),
        "retain_accuracy": share_found(model, test, _positions(test, features.retain_classes)),
    }


def _positions(images: Batches, classes: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
    wanted = torch.from_numpy(classes).to(images.labels.device)
    return torch.nonzero(torch.isin(images.labels, wanted)).flatten()


def _largest_rise(features: FeatureFile, model: LiveModel, curve: Iterator[dict[str, Any]]) -> Measurement:
    before = _accuracies(features, model.load(), model.test())
    points = list(curve)
    largest = max(point["forget_accuracy"] for point in points)
    return Measurement(largest - before["forget_accuracy"], {"before": before, "curve": points})


def fine_tuning_recovery(
    features: FeatureFile,
    model: LiveModel,
    *,
    shots: Annotated[tuple[Shots, ...], Field(min_length=1)] = (1, 2, 5, 10),
    epochs: Annotated[int, Field(gt=0)] = 20,
    learning_rate: Annotated[float, Field(gt=0)] = 0.01,
    batch_size: Annotated[int, Field(gt=0)] = 32,
) -> Measurement:
    """Fine-tuning recovery: FAe after fine-tuning on a few images of every class.

    A copy of the model learns from `shots` limited images of each class, the retain classes included, so that nothing
    is gained by calling everything a forget class: SGD with momentum 0.9, cross-entropy, training augmentation, frozen
    batch-norm statistics. A forget class without an output first gets one with weights of 0.

    Args:
        features: Feature file that gives the forget classes and the seed.
        model: The judged model, of which copies are trained.
        shots: Limited images of each class; where a class has fewer, all of them. Each number begins with
            the model as it was, and the images of a smaller number are among those of a larger one.
        epochs: Passes over these images.
        learning_rate: Step size.
        batch_size: Images in a step.

    Returns:
        FAe for the largest number of shots, a fraction in [0, 1]; FDR's own value is the yardstick. The details hold
        the curve: FAe and CAne for each number of shots.

    Raises:
        MetricError: If a kind of classes has no test image, or the loss is no longer finite.

    Source: few-shot relearning attacks, as in Tarun et al. (2023) and Hu et al. (2024). Known weakness: it depends on
    the learning rate, and limited forget images are those that the method was given. Needs the model.
    """
    limited = model.limited()
    labels = limited.labels.cpu().numpy()
    streams = {
        label: np.random.default_rng(derived_seed(features.seed, "tuning shots", label))
        for label in np.unique(labels).tolist()
    }
    drawn = [stream.permutation(np.flatnonzero(labels == label)) for label, stream in streams.items()]
    points = []
    for number in shots:
        chosen = torch.from_numpy(np.sort(np.concatenate([found[:number] for found in drawn]))).to(
            limited.labels.device
        )
        student = with_outputs_for(model.load(), features.forget_classes.tolist())
        _fine_tune(student, limited, chosen, features.seed, epochs, learning_rate, batch_size)
        points.append({"shots": number, **_accuracies(features, student, model.test())})
    before = _accuracies(features, model.load(), model.test())
    most = max(points, key=lambda point: point["shots"])
    return Measurement(most["forget_accuracy"], {"before": before, "curve": points})


def _fine_tune(
    student: nn.Module, limited: Batches, chosen: Tensor, seed: int, epochs: int, rate: float, batch_size: int
) -> None:
    student.eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=rate, momentum=0.9)
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(derived_seed(seed, "fine-tuning recovery", epoch))
        for images, labels in limited.shuffled(batch_size, generator, chosen):
            places = torch.searchsorted(output_classes(student), labels)
            loss = F.cross_entropy(student(images).float(), places)
            if not torch.isfinite(loss):
                raise MetricError("the loss of fine-tuning is not finite")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
