"""The rules of what learns from a changed original, written out a second time for the tiny network."""

import math

import pytest
import torch
from tiny import Adam, assert_same, entropy, images_of, kl, network, student_of, task_of
from torch import Tensor

from unlearnbench_zoo.features.pour import forgetting_projection, pour
from unlearnbench_zoo.teachers.bad_teacher import lotus, mixed
from unlearnbench_zoo.teachers.delete import head_distillation


def test_head_distillation_moves_the_classifier_alone() -> None:
    task, expected, before = task_of(), network(), network()
    images, _ = images_of(task, "all")
    kept = before(images)[:, [0, 2]].softmax(dim=1).detach()
    target = torch.zeros(24, 4)
    target[:, 0], target[:, 2] = kept[:, 0], kept[:, 1]
    features = before[:4](images).detach()
    hand = Adam(expected[4], 0.05)
    for _ in range(3):
        hand.step(kl(target, expected[4](features)))
    after = head_distillation(network(), task, epochs=3, learning_rate=0.05)
    assert_same(after, expected, 1e-4)
    for name, value in before[:4].state_dict().items():
        assert torch.equal(value, after[:4].state_dict()[name]), name
    assert task.image_passes == {"forget": 36, "retain": 36}


def test_lotus_softens_forget_targets_by_the_accuracy_and_samples_retain_targets() -> None:
    task, original, expected = task_of(), network(), student_of(network())
    (forget, forget_labels), (retain, _) = images_of(task, "forget"), images_of(task, "retain")
    accuracy = float((original(forget).argmax(dim=1) == forget_labels).float().mean())
    assert 0 < accuracy < 1
    heat = math.exp(2.0 * accuracy)
    logits = original(torch.cat([forget, retain])).detach()
    # The batches are shuffled, so that noise meets images in their order: with noise of one value per row it would not
    # matter. Here the noise is what the task's stream gives, put in the order of the batch.
    order = batch_order(task)
    noise = torch.empty(24, 4).exponential_(generator=task_of().generator("gumbel")).log().neg()
    noisy = logits[order] + noise
    target = torch.zeros(24, 4)
    target[:12] = (noisy[:12] / heat).softmax(dim=1)
    target[range(12, 24), noisy[12:].argmax(dim=1)] = 1.0
    images = torch.cat([forget, retain])[order]
    hand = Adam(expected, 0.01)
    log = expected(images) - expected(images).exp().sum(dim=1, keepdim=True).log()
    hand.step(-(target * log).sum(dim=1).mean())
    found = lotus(
        network(), task, epochs=1, batch_size=24, learning_rate=0.01, weight_decay=0.0, alpha=2.0, retain_share=1.0
    )
    assert_same(found, expected, 1e-4)
    # The accuracy takes another pass over the forget images.
    assert task.image_passes == {"forget": 24, "retain": 12}


def batch_order(task: object) -> list[int]:
    """Return which of the forget images, then the retain images, stand where in a mixed batch of all."""
    other, given = task_of(), torch.cat([images_of(task, "forget")[0], images_of(task, "retain")[0]])
    drawn = torch.cat([next(other.batches(1, kind, batch_size=12))[0] for kind in ("forget", "retain")])
    return [next(i for i in range(24) if torch.equal(given[i], image)) for image in drawn]


@pytest.mark.parametrize(
    ("forget", "batch_size", "share", "retain"),
    [((1, 3), 12, 1.0, 12), ((1, 3), 12, 0.5, 6), ((1,), 100, 1.0, 18), ((1,), 8, 1.0, 18), ((1,), 5, 1.0, 12)],
)
def test_an_epoch_of_mixed_batches_ends_with_the_forget_images(
    forget: tuple[int, ...], batch_size: int, share: float, retain: int
) -> None:
    task = task_of(forget)
    sizes = [len(labels) for _, labels in mixed(task, batch_size, share)]
    assert task.image_passes == {"forget": 6 * len(forget), "retain": retain}
    assert sum(sizes) == sum(task.image_passes.values())


def test_pour_projects_features_off_the_forget_classes_means() -> None:
    task, original, expected = task_of(), network(), student_of(network())
    images, labels = images_of(task, "all")
    features = original[:4](images).detach()
    means = [features[labels == label].mean(dim=0) for label in range(4)]
    centre = sum(means) / 4
    first = means[1] - centre
    first = first / first.norm()
    second = means[3] - centre
    second = second - (second @ first) * first
    second = second / second.norm()

    def left(feature: Tensor) -> Tensor:
        moved = feature - centre
        return centre + moved - (moved @ first) * first - (moved @ second) * second

    found_centre, projection = forgetting_projection(network(), task_of())
    target = torch.stack([left(feature) for feature in features])
    assert torch.allclose(found_centre + (features - found_centre) @ projection, target, atol=1e-5)
    for label in (1, 3):
        assert torch.allclose(left(means[label]), centre, atol=1e-5)
    hand = Adam(expected[:4], 0.01)
    for _ in range(2):
        hand.step(((expected[:4](images) - target) ** 2).sum(dim=1).mean() / 2)
    after = pour(network(), task, epochs=2, learning_rate=0.01)
    assert_same(after, expected, 1e-4)
    assert torch.equal(after[4].weight, original[4].weight)
    assert task.image_passes == {"forget": 36, "retain": 36}
    assert entropy(after(images), labels) > 0
