"""The rules of what reads forget images alone and looks around them, written out for the tiny network."""

import pytest
import torch
from tiny import Sgd, assert_same, entropy, images_of, network, student_of, task_of
from torch import nn
from unlearnbench.errors import TrainingFailedError

from unlearnbench_zoo.labels.relabelling import boundary_shrink, neighbours
from unlearnbench_zoo.weights.jit import jit, noisy
from unlearnbench_zoo.weights.mu_mis import contribution, mu_mis, other_classes


def hand_neighbours(bound: float) -> list[int]:
    """Return the nearest retain class of each forget image, image by image."""
    task, model = task_of(), network()
    nearest = []
    for image, label in zip(*images_of(task, "forget"), strict=True):
        given = image[None].clone().requires_grad_()
        entropy(model(given), label[None]).backward()
        # The tiny task normalises with mean 0.5 and standard deviation 0.3.
        pixels = image * 0.3 + 0.5 + bound * given.grad[0].sign()
        pixels = (pixels.clamp(0, 1) * 255).round() / 255
        logits = model(((pixels - 0.5) / 0.3)[None])[0]
        nearest.append(0 if logits[0] >= logits[2] else 2)
    return nearest


def test_the_neighbour_is_the_retain_class_across_the_boundary() -> None:
    task = task_of()
    images, labels = images_of(task, "forget")
    found = neighbours(network(), images, labels, 0.3, task)
    assert found.tolist() == hand_neighbours(0.3)
    assert set(found.tolist()) == {0, 2}


def test_boundary_shrink_descends_towards_the_neighbours_of_the_original() -> None:
    task, expected = task_of(), student_of(network())
    images, _ = images_of(task, "forget")
    nearest = torch.tensor(hand_neighbours(0.3))
    hand = Sgd(expected, 0.05, 0.9)
    for _ in range(3):
        hand.step(entropy(expected(images), nearest))
    assert_same(boundary_shrink(network(), task, epochs=3, learning_rate=0.05, bound=0.3), expected)
    assert task.image_passes == {"forget": 36, "retain": 0}


def test_jit_shrinks_the_ratio_of_outputs_to_inputs_around_forget_images() -> None:
    task, model = task_of(), network()
    images, _ = next(task_of().batches(1, "forget", batch_size=12))
    generator, expected = task_of().generator("noise"), student_of(network())
    hand = Sgd(expected, 0.01, 0.0)
    total = torch.zeros(())
    outputs = expected(images)
    for _ in range(2):
        copies = noisy(images, 0.4, generator)
        others = expected(copies).detach()
        for before, after, image, copied in zip(outputs, others, images, copies, strict=True):
            total = total + ((before - after) ** 2).sum().sqrt() / ((image - copied) ** 2).sum().sqrt()
    hand.step(total / 2)
    found = jit(model, task, batch_size=12, learning_rate=0.01, noise=0.4, samples=2)
    assert_same(found, expected)
    assert task.image_passes == {"forget": 36, "retain": 0}


def test_noise_stays_within_the_range_of_the_batch() -> None:
    images = torch.rand(4, 1, 4, 4)
    copies = noisy(images, 5.0, torch.Generator().manual_seed(0))
    assert copies.min() == images.min()
    assert copies.max() == images.max()


def test_mu_mis_descends_the_own_logit_s_sensitivity_less_another_s() -> None:
    task, again, expected = task_of(), task_of(), network()
    hand, generator = Sgd(expected, 0.02, 0.5), again.generator("other classes")
    for images, labels in again.batches(3, "forget", batch_size=12):
        losses = []
        for image, own, other in zip(images, labels, other_classes(labels, 4, generator), strict=True):
            given = image[None].clone().requires_grad_()
            slopes = [torch.autograd.grad(expected(given)[0, k], given, create_graph=True)[0] for k in (own, other)]
            losses.append((slopes[0] ** 2).sum() - (slopes[1] ** 2).sum())
        hand.step(torch.stack(losses).mean())
    found = mu_mis(network(), task, epochs=3, batch_size=12, learning_rate=0.02, momentum=0.5)
    assert_same(found, expected)
    assert task.image_passes == {"forget": 36, "retain": 0}


def test_the_sensitivity_of_a_linear_network_is_that_of_its_rows() -> None:
    """The logits are W x, so that the gradient of logit k to the image is row k."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 0.5]]))
    images = torch.randn(3, 1, 1, 2)
    found = contribution(model, images, torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0]), task_of())
    assert found.tolist() == [5.0 - 9.0, 9.0 - 0.25, 0.25 - 5.0]
    found[1].backward()
    # The gradient of |row 1|^2 - |row 2|^2.
    assert model[1].weight.grad.tolist() == [[0.0, 0.0], [6.0, 0.0], [0.0, -1.0]]


def test_the_other_class_is_never_the_own_one_and_any_other() -> None:
    labels = torch.arange(4).repeat(100)
    found = other_classes(labels, 4, torch.Generator().manual_seed(0))
    assert [sorted(set(found[labels == k].tolist())) for k in range(4)] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_attention_has_the_second_derivative_that_mu_mis_needs() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.last = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            tokens = images.flatten(1)[:, None].expand(-1, 3, -1)
            return self.last(self.heads(tokens, tokens, tokens, need_weights=False)[0].mean(dim=1))

    torch.manual_seed(0)
    model = Attention().eval()
    before = model.heads.in_proj_weight.detach().clone()
    mu_mis(model, task_of(), epochs=1, learning_rate=0.1)
    assert not torch.equal(model.heads.in_proj_weight, before)


def test_a_loss_without_a_bound_ends_with_its_epoch() -> None:
    with pytest.raises(TrainingFailedError, match="the loss is not finite"):
        mu_mis(network(), task_of(), epochs=50, learning_rate=10.0)
