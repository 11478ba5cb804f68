"""The rules of what reads forget images alone and looks around them, written out for the tiny network."""

import torch
from tiny import Sgd, assert_same, entropy, images_of, network, student_of, task_of

from unlearnbench_zoo.jit import jit, noisy
from unlearnbench_zoo.relabelling import boundary_shrink, neighbours


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
