"""Each unlearner's update rule, written out a second time for a network of 16 features and 24 images.

Batches hold all images of a kind, so that their order does not matter.
"""

import copy
import itertools
from typing import Any

import pytest
import torch
from tiny import Adam, Sgd, assert_same, entropy, gradients, images_of, kl, network, student_of, task_of
from torch import Tensor, nn

from unlearnbench_zoo.descent import divergence
from unlearnbench_zoo.features import duck as duck_module
from unlearnbench_zoo.features.duck import duck, nearest_centroids, retain_centroids
from unlearnbench_zoo.labels import relabelling
from unlearnbench_zoo.labels import unsir as unsir_module
from unlearnbench_zoo.labels.ascent import neggrad_plus
from unlearnbench_zoo.labels.relabelling import MaskedDescent, random_labels, saliency_masks, salun
from unlearnbench_zoo.labels.unsir import learned_noise, unsir
from unlearnbench_zoo.teachers.bad_teacher import bad_teacher
from unlearnbench_zoo.teachers.delete import delete
from unlearnbench_zoo.teachers.scrub import scrub
from unlearnbench_zoo.weights.ssd import ssd


def test_divergence_is_the_sum_over_classes_and_ignores_impossible_ones() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]])
    target = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert torch.allclose(divergence(logits, target), kl(target, logits))


def test_neggrad_plus_goes_down_on_retain_and_up_on_forget_images() -> None:
    task, expected = task_of(), student_of(network())
    (forget, forget_labels), (retain, retain_labels) = images_of(task, "forget"), images_of(task, "retain")
    hand = Sgd(expected, 0.05, 0.9)
    for _ in range(2):
        up, down = entropy(expected(forget), forget_labels), entropy(expected(retain), retain_labels)
        hand.step(0.7 * down - 0.3 * up)
    assert_same(neggrad_plus(network(), task, alpha=0.7, epochs=2, learning_rate=0.05), expected)
    assert task.image_passes == {"forget": 24, "retain": 24}


def test_neggrad_plus_with_alpha_0_is_gradient_ascent_and_reads_no_retain_image() -> None:
    task, expected = task_of(), student_of(network())
    forget, labels = images_of(task, "forget")
    Sgd(expected, 0.05, 0.9).step(-entropy(expected(forget), labels))
    assert_same(neggrad_plus(network(), task, alpha=0.0, epochs=1, learning_rate=0.05), expected)
    assert task.image_passes == {"forget": 12, "retain": 0}


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    before, after = network(), neggrad_plus(network(), task_of(), epochs=3, batch_norm="frozen")
    for (name, kept), buffer in zip(before.named_buffers(), after.buffers(), strict=True):
        assert torch.equal(kept, buffer), name


def test_random_labels_come_from_the_retain_classes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    entropy_of = torch.nn.functional.cross_entropy

    def record(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append(targets)
        return entropy_of(logits, targets)

    monkeypatch.setattr(relabelling.F, "cross_entropy", record)
    random_labels(network(), task_of(), epochs=10)
    drawn = [targets.tolist() for targets in seen[::2]]
    assert set(itertools.chain(*drawn)) == {0, 2}
    assert drawn[0] != drawn[1]


def by_hand(masks: list[Tensor] | None) -> nn.Module:
    """Return two epochs of relabelling in which only class 2 is a retain class, so that every label is 2."""
    expected = student_of(network())
    task = task_of((0, 1, 3))
    (forget, _), (retain, labels) = images_of(task, "forget"), images_of(task, "retain")
    hand = Sgd(expected, 0.1, 0.9, 0.01)
    for _ in range(2):
        hand.step(entropy(expected(forget), torch.full((18,), 2)), masks)
        hand.step(entropy(expected(retain), labels), masks)
    return expected


OPTIONS: dict[str, Any] = {"epochs": 2, "learning_rate": 0.1, "weight_decay": 0.01}


def test_random_labels_descends_on_relabelled_images_then_on_retain_images() -> None:
    task = task_of((0, 1, 3))
    assert_same(random_labels(network(), task, **OPTIONS), by_hand(None))
    assert task.image_passes == {"forget": 36, "retain": 12}


def hand_masks(share: float) -> list[Tensor]:
    task, model = task_of((0, 1, 3)), network()
    images, labels = images_of(task, "forget")
    found = [gradient.abs() for gradient in gradients(model, len(labels) * entropy(model(images), labels))]
    every = sorted(value for gradient in found for value in gradient.flatten().tolist())
    border = every[len(every) - int(share * len(every))]
    return [gradient >= border for gradient in found]


def test_saliency_is_the_largest_half_of_the_forget_gradient_over_all_parameters() -> None:
    masks = saliency_masks(network(), task_of((0, 1, 3)), 0.5)
    assert all(torch.equal(mask, wanted) for mask, wanted in zip(masks, hand_masks(0.5), strict=True))
    assert sum(int(mask.sum()) for mask in masks) == sum(p.numel() for p in network().parameters()) // 2


def test_salun_moves_salient_weights_by_the_rule_and_no_other_by_a_bit() -> None:
    before, masks, task = network(), hand_masks(0.5), task_of((0, 1, 3))
    after = salun(network(), task, **OPTIONS)
    assert_same(after, by_hand(masks))
    for kept, parameter, mask in zip(before.parameters(), after.parameters(), masks, strict=True):
        assert torch.equal(kept[~mask], parameter[~mask])
        assert not mask.any() or not torch.equal(kept[mask], parameter[mask])
    assert task.image_passes == {"forget": 18 + 36, "retain": 12}


def test_momentum_of_frozen_weights_is_put_back() -> None:
    model, masks = network(), hand_masks(0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    descent = MaskedDescent(model, optimizer, "training", masks)
    descent.step(entropy(model(images_of(task_of(), "all")[0]), images_of(task_of(), "all")[1]))
    for parameter, mask in zip(model.parameters(), masks, strict=True):
        momentum = optimizer.state[parameter]["momentum_buffer"]
        assert not momentum[~mask].any()
        assert momentum[mask].any() or not mask.any()


def test_scrub_alternates_max_and_min_epochs_and_lowers_its_rate() -> None:
    task, teacher, expected = task_of(), network(), student_of(network())
    (forget, _), (retain, labels) = images_of(task, "forget"), images_of(task, "retain")
    # The decay is large because Adam would turn the rounding of a tiny gradient into a whole step.
    hand = Adam(expected, 0.01, decay=1.0)

    def distance(images: Tensor, logits: Tensor) -> Tensor:
        return 9.0 * kl((teacher(images) / 3.0).softmax(dim=1).detach(), logits / 3.0)

    def min_step() -> None:
        logits = expected(retain)
        hand.step(0.8 * entropy(logits, labels) + 0.4 * distance(retain, logits))

    hand.step(-distance(forget, expected(forget)))
    min_step()
    min_step()
    hand.rate = 0.005
    min_step()
    found = scrub(
        network(),
        task,
        epochs=3,
        max_epochs=1,
        gamma=0.8,
        alpha=0.4,
        temperature=3.0,
        learning_rate=0.01,
        weight_decay=1.0,
        decay_epochs=(2,),
        decay_factor=0.5,
    )
    assert_same(found, expected, 1e-4)
    assert task.image_passes == {"forget": 12, "retain": 36}


def test_bad_teacher_follows_a_random_network_on_forget_images_and_the_original_on_others() -> None:
    task, expected = task_of(), student_of(network())
    (forget, forget_labels), (retain, retain_labels) = images_of(task, "forget"), images_of(task, "retain")
    images, labels = torch.cat([forget, retain]), torch.cat([forget_labels, retain_labels])
    random, original = network(7)(images), network()(images)
    target = torch.stack([random[i] if labels[i] in (1, 3) else original[i] for i in range(24)])
    Adam(expected, 0.01).step(kl((target / 2.0).softmax(dim=1).detach(), expected(images) / 2.0))
    found = bad_teacher(network(), task, learning_rate=0.01, temperature=2.0, retain_share=1.0)
    assert_same(found, expected, 1e-4)
    assert task.image_passes == {"forget": 12, "retain": 12}


@pytest.mark.parametrize(("batch_size", "share", "retain"), [(256, 0.3, 4), (8, 0.3, 4), (256, 0.01, 1), (6, 1.0, 12)])
def test_bad_teacher_reads_a_share_of_the_retain_images(batch_size: int, share: float, retain: int) -> None:
    task = task_of()
    bad_teacher(network(), task, batch_size=batch_size, retain_share=share)
    assert task.image_passes == {"forget": 12, "retain": retain}


def test_ssd_dampens_by_the_ratio_of_importances() -> None:
    task, model = task_of(), network()

    def importance(kind: str) -> list[Tensor]:
        squares = [torch.zeros_like(p) for p in model.parameters()]
        for image, label in zip(*images_of(task, kind), strict=True):
            found = gradients(model, entropy(model(image[None]), label[None]))
            squares = [total + gradient**2 for total, gradient in zip(squares, found, strict=True)]
        return [total / len(images_of(task, kind)[0]) for total in squares]

    expected, to_forget, to_all = network(), importance("forget"), importance("all")
    damped = 0
    with torch.no_grad():
        for parameter, of_forget, of_all in zip(expected.parameters(), to_forget, to_all, strict=True):
            for index in range(parameter.numel()):
                f, a = of_forget.flatten()[index], of_all.flatten()[index]
                if f > 1.2 * a:
                    damped += 1
                    parameter.view(-1)[index] *= min(1.0, 0.9 * float(a / f))
    assert 0 < damped < sum(p.numel() for p in expected.parameters())
    assert_same(ssd(network(), task, alpha=1.2, dampening=0.9), expected)
    assert task.image_passes == {"forget": 12, "retain": 12}


def test_ssd_selects_nothing_where_alpha_is_above_the_ratio_of_the_images() -> None:
    before, after = network(), ssd(network(), task_of(), alpha=2.0)
    assert all(torch.equal(p, q) for p, q in zip(before.parameters(), after.parameters(), strict=True))


def test_unsir_noise_climbs_the_loss_of_its_own_class() -> None:
    task, model = task_of(), network()
    noise, labels = learned_noise(model, task, 3, 1, 0.1, 0.2)
    assert labels.tolist() == [1, 1, 1, 3, 3, 3]
    for label, found in ((1, noise[:3]), (3, noise[3:])):
        start = torch.randn(3, 1, 4, 4, generator=task.generator("noise", label)).requires_grad_()
        loss = 0.2 * (start**2).sum() / 3 - entropy(model(start), torch.full((3,), label))
        # Adam's first step moves each value by the learning rate in the direction of its gradient.
        expected = start - 0.1 * torch.autograd.grad(loss, start)[0].sign()
        assert torch.allclose(found, expected, atol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_unsir_impairs_with_noise_under_its_own_label_then_repairs_without_a_forget_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = task_of()
    steps: list[tuple[Tensor, Tensor]] = []
    inputs: list[Tensor] = []
    plain_forward, entropy_of = unsir_module.forward, torch.nn.functional.cross_entropy

    def record_inputs(model: nn.Module, images: Tensor, given: Any) -> Tensor:
        inputs.append(images)
        return plain_forward(model, images, given)

    def record(logits: Tensor, targets: Tensor) -> Tensor:
        steps.append((inputs[-1], targets))
        return entropy_of(logits, targets)

    noise, noise_labels = learned_noise(network(), task, 4, 2, 0.1, 0.1)
    monkeypatch.setattr(unsir_module, "forward", record_inputs)
    monkeypatch.setattr(unsir_module.F, "cross_entropy", record)
    unsir(network(), task, noise_images=4, noise_steps=2, noise_ratio=0.5)
    (mixed, mixed_labels), (_, repair_labels) = steps[-2:]
    assert len(mixed) == 12 + 6
    assert set(mixed_labels[:12].tolist()) == {0, 2} == set(repair_labels.tolist())
    for image, label in zip(mixed[12:], mixed_labels[12:], strict=True):
        (position,) = [i for i in range(8) if torch.equal(noise[i], image)]
        assert noise_labels[position] == label
    assert task.image_passes == {"forget": 0, "retain": 24}


def test_unsir_repairs_by_adam_on_the_retain_images() -> None:
    task, expected = task_of(), student_of(network())
    images, labels = images_of(task, "retain")
    Adam(expected, 0.01).step(entropy(expected(images), labels))
    assert_same(unsir(network(), task, noise_images=1, noise_steps=1, impair_epochs=0), expected, 1e-4)


def test_delete_distils_the_original_without_all_forget_classes() -> None:
    task, expected = task_of(), student_of(network())
    images, _ = images_of(task, "forget")
    kept = network()(images)[:, [0, 2]].softmax(dim=1).detach()
    target = torch.zeros(12, 4)
    target[:, 0], target[:, 2] = kept[:, 0], kept[:, 1]
    hand = Sgd(expected, 0.1, 0.9)
    for _ in range(3):
        hand.step(kl(target, expected(images)))
    assert_same(delete(network(), task, epochs=3, learning_rate=0.1), expected)
    assert task.image_passes == {"forget": 36, "retain": 0}


def test_duck_moves_features_to_the_nearest_retain_centroid() -> None:
    task, original, expected = task_of(), network(), student_of(network())
    (forget, _), (retain, labels) = images_of(task, "forget"), images_of(task, "retain")
    features = original[:4](retain)
    centroids = torch.stack([features[labels == label].mean(dim=0) for label in (0, 2)]).detach()
    assert torch.allclose(retain_centroids(original, task_of()), centroids, atol=1e-6)

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum() / (a.norm() * b.norm())

    targets = [max(centroids, key=lambda c: float(cosine(f, c).detach())) for f in original[:4](forget)]
    assert torch.allclose(nearest_centroids(original, forget, centroids, task), torch.stack(targets))
    hand = Adam(expected, 0.01)
    for _ in range(2):
        moved = expected[:4](forget)
        away = torch.stack([1 - cosine(f, target) for f, target in zip(moved, targets, strict=True)]).mean()
        hand.step(0.5 * away + 1.4 * entropy(expected(retain) / 2.0, labels))
    found = duck(network(), task, epochs=2, learning_rate=0.01, forget_weight=0.5, target_accuracy=0.0)
    assert_same(found, expected, 1e-4)
    # Each epoch reads 12 forget images to train and 12 to test; the centroids read the retain images once more.
    assert task.image_passes == {"forget": 2 * 24, "retain": 12 + 24}


def test_duck_counts_a_forget_batch_once_for_every_step_and_ends_when_it_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = task_of()
    duck(network(), task, epochs=1, batch_size=12, retain_batches=5, target_accuracy=0.0)
    assert task.image_passes["forget"] == 24
    task = task_of()
    duck(network(), task, epochs=1, batch_size=6, retain_batches=5, target_accuracy=0.0)
    # Two batches of 6 take part in two steps each, and the test reads all images once.
    assert task.image_passes["forget"] == 2 * 2 * 6 + 12
    monkeypatch.setattr(duck_module, "forget_accuracy", lambda model, task: 0.0)
    task = task_of()
    duck(network(), task, epochs=50)
    assert task.image_passes == {"forget": 12, "retain": 24}


def test_the_original_is_left_alone_by_what_copies_it() -> None:
    model = network()
    kept = copy.deepcopy(model.state_dict())
    learned_noise(model, task_of(), 2, 3, 0.1, 0.1)
    saliency_masks(model, task_of(), 0.5)
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
