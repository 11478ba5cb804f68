import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as transforms
from support import networks
from torch import nn

from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.builtin.erwp import ErwpOptions, erwp
from unlearnbench.unlearners.builtin.relevance import (
    RelevanceOptions,
    augmented,
    find_share,
    most_looks,
    relevant_parameters,
    search,
    zeroed_count,
)
from unlearnbench.unlearners.builtin.relevance_search import LiteralLooks, QuickLooks
from unlearnbench.unlearners.builtin.searched_layers import searched_layers, searched_parameters
from unlearnbench.unlearners.task import UnlearningTask

RECIPE = TrainingRecipe(epochs=1, batch_size=4, learning_rate=0.1)


def task_of(images: torch.Tensor, labels: torch.Tensor, forget: tuple[int, ...], classes: int) -> UnlearningTask:
    """Return a task whose normalised images equal the uint8 images divided by 255."""
    channels = images.shape[1]
    data = Batches(images, labels, [0.0] * channels, [1.0] * channels, Augmentation())
    return UnlearningTask(data, forget, classes, RECIPE, 0, lambda: nn.Identity())


def found_share(accuracy_without: Callable[[float], float]) -> tuple[float, float | None]:
    """Return what the search finds if each share that it asks for is answered; it starts at 20 %, low is below 10 %."""
    shares = find_share(0.2, 0.1)
    wanted = next(shares)
    while True:
        try:
            wanted = shares.send(accuracy_without(wanted))
        except StopIteration as end:
            found: tuple[float, float | None] = end.value
            return found


@pytest.mark.parametrize(
    ("low_from", "looks", "share"),
    [
        (0.10, [0.2, 0.1], 0.1),
        (0.15, [0.2, 0.1], 0.2),
        (0.25, [0.2, 0.4, 0.3], 0.3),
        (0.35, [0.2, 0.4, 0.3], 0.4),
        (0.55, [0.2, 0.4, 0.8, 0.6], 0.6),
        (0.75, [0.2, 0.4, 0.8, 0.6], 0.8),
        (0.85, [0.2, 0.4, 0.8, 1.0, 0.9], 0.9),
        (0.95, [0.2, 0.4, 0.8, 1.0, 0.9], 1.0),
        (9.99, [0.2, 0.4, 0.8, 1.0], 1.0),
    ],
    ids=["20->10", "20 stays", "40->30", "40 stays", "80->60", "80 stays", "100->90", "100 stays", "never low"],
)
def test_shares_are_looked_at_in_the_order_of_the_paper(low_from: float, looks: list[float], share: float) -> None:
    seen: list[float] = []

    def accuracy_without(zeroed: float) -> float:
        seen.append(zeroed)
        return 0.05 if zeroed >= low_from - 1e-9 else 0.5

    found, accuracy = found_share(accuracy_without)
    assert seen == pytest.approx(looks)
    assert found == pytest.approx(share)
    assert accuracy == (None if low_from > 1 else 0.05)


def test_an_accuracy_at_the_threshold_is_not_low() -> None:
    assert found_share(lambda share: 0.1) == (1.0, None)


def test_a_share_is_rounded_up_to_whole_parameters() -> None:
    assert [zeroed_count(size, 0.2) for size in (1, 5, 6, 10, 27)] == [1, 1, 2, 2, 6]
    assert zeroed_count(1000, 0.3) == 300
    assert zeroed_count(7, 1.0) == 7


class TwoLayers(nn.Module):
    """Five pixels, five hidden units that copy them, and three classes, of which class 1 lives in the units 3 and 4.

    Images of class 1 have light in the pixels 3 (strong) and 4 (weak); 0.2 * 0.9 of it alone loses to class 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(5, 5, bias=False)
        self.output = nn.Linear(5, 3)
        rows = [[0.1, 0.28, 0.35, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.9], [0.0, 0.0, 0.0, 0.0, 0.0]]
        with torch.no_grad():
            self.hidden.weight.copy_(torch.eye(5))
            self.output.weight.copy_(torch.tensor(rows))
            self.output.bias.copy_(torch.tensor([0.3, 0.0, -2.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.hidden(images.flatten(1)))
        return logits


def two_layer_task() -> UnlearningTask:
    pixels = torch.tensor([[0, 0, 0, 255, 51], [0, 0, 0, 204, 51], [255, 0, 0, 0, 0]], dtype=torch.uint8)
    return task_of(pixels.view(3, 1, 1, 5), torch.tensor([1, 1, 0]), (1,), 3)


def test_the_search_finds_the_known_parameters_of_a_two_layer_net() -> None:
    # By hand: d loss / d hidden[i, j] = g_i x_j with |g| = (1 - p1) (0.09, 0.25, 0.32, 1, 0.9), roughly, and mean
    # light 0.9 in pixel 3, 0.2 in pixel 4. The order is [3, 3], [4, 3], [2, 3], [1, 3], [3, 4], ... 20 % of 25 are
    # five; they darken unit 3, and 0.9 * 0.2 < 0.3 is low. 10 % round up to three, [3, 3] among them, which is low too.
    # d loss / d output[k, i] = (p_k - y_k) h_i gives the order [1, 3], [0, 3], [1, 4], ... 20 % of 15 are three, which
    # is low; 10 % round up to two and leave 0.9 * 0.2 for class 1, which is low too.
    masks, findings = search(TwoLayers(), two_layer_task(), RelevanceOptions(augmentation="none"))
    assert masks["hidden.weight"].nonzero().tolist() == [[2, 3], [3, 3], [4, 3]]
    assert masks["output.weight"].nonzero().tolist() == [[0, 3], [1, 3]]
    assert [(f.label, f.layer, f.share, f.accuracy_before, f.accuracy_after, f.low) for f in findings] == [
        (1, "hidden.weight", 0.1, 1.0, 0.0, True),
        (1, "output.weight", 0.1, 1.0, 0.0, True),
    ]


def test_a_larger_first_share_is_kept_if_half_of_it_is_not_low() -> None:
    # Without the lead of class 0, only removing all light of class 1 is enough: 40 % are ten parameters, with [3, 3],
    # [3, 4] and [4, 4] among them, whereas 20 % leave [4, 4].
    model = TwoLayers()
    with torch.no_grad():
        model.output.bias.copy_(torch.tensor([0.05, 0.0, -2.0]))
    masks, findings = search(model, two_layer_task(), RelevanceOptions(augmentation="none", first_share=0.4))
    assert findings[0].share == 0.4
    assert masks["hidden.weight"].sum() == 10


def test_keep_share_keeps_the_most_relevant_parameters() -> None:
    masks, _ = search(TwoLayers(), two_layer_task(), RelevanceOptions(augmentation="none", keep_share=0.5))
    assert masks["hidden.weight"].nonzero().tolist() == [[3, 3], [4, 3]]
    assert masks["output.weight"].nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_keep_share_is_a_share_of_the_union_by_the_largest_gradient_of_any_class(share: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    images = torch.randint(256, (12, 1, 4, 4), dtype=torch.uint8)
    labels = torch.arange(12) % 3
    task = task_of(images, labels, (1, 2), 3)
    whole, _ = search(model, task, RelevanceOptions(augmentation="none"))
    part, _ = search(model, task, RelevanceOptions(augmentation="none", keep_share=share))

    gradients = []
    for label in (1, 2):
        model.zero_grad()
        F.cross_entropy(model(task.images_of(label)), torch.full((4,), label)).backward()
        gradients.append({name: value.grad.abs() for name, value in model.named_parameters() if value.grad is not None})
    for name, mask in whole.items():
        largest = torch.maximum(gradients[0][name], gradients[1][name])
        assert part[name].sum() == math.ceil(share * int(mask.sum()))
        assert not (part[name] & ~mask).any()
        assert largest[part[name]].min() >= largest[mask & ~part[name]].max()


def test_all_layers_take_biases_in() -> None:
    assert list(searched_layers(TwoLayers(), "weights")) == ["hidden.weight", "output.weight"]
    assert list(searched_layers(TwoLayers(), "all")) == ["hidden.weight", "output.weight", "output.bias"]
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    assert list(searched_layers(network, "weights")) == ["0.weight", "3.weight"]


def test_weights_and_buffers_are_the_same_to_the_bit_after_a_search() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    before = copy.deepcopy(model.state_dict())
    images = torch.randint(256, (12, 1, 4, 4), dtype=torch.uint8)
    search(model, task_of(images, torch.arange(12) % 3, (1, 2), 3), RelevanceOptions(augmentation="rotation"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_relevant_parameters_are_the_union_over_the_forget_classes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    images = torch.randint(256, (12, 1, 4, 4), dtype=torch.uint8)
    labels = torch.arange(12) % 3
    options = RelevanceOptions(augmentation="vertical_flip")
    alone = [search(model, task_of(images, labels, (label,), 3), options)[0] for label in (1, 2)]
    both, _ = search(model, task_of(images, labels, (1, 2), 3), options)
    assert all(torch.equal(mask, alone[0][name] | alone[1][name]) for name, mask in both.items())


def test_every_look_is_counted_as_a_pass_over_the_class() -> None:
    task = two_layer_task()
    search(TwoLayers(), task, RelevanceOptions(augmentation="none"), LiteralLooks)
    # Two images go through a backward pass, a pass with all weights in place, and two looks in each of two layers.
    assert task.image_passes == {"forget": 2 * (1 + 1 + 2 * 2), "retain": 0}


def test_what_is_left_to_read_is_told_by_the_search_s_bound_and_then_by_what_it_saw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []
    task = two_layer_task()
    monkeypatch.setattr(task, "expect", told.append)
    search(TwoLayers(), task, RelevanceOptions(augmentation="none"), LiteralLooks, later=7)
    # Two images go through backward, whole, and five times at most with each of two layers zeroed. Two looks at the
    # first layer did, so that as much is expected of the second.
    assert told == [2 * (2 + 2 * 5) + 7, 2 * (2 + 2) + 7, 7]
    assert task.image_passes == {"forget": 12, "retain": 0}


def looks_by(first_share: float, low_from: float) -> int:
    shares, looks = find_share(first_share, 0.1), 1
    wanted = next(shares)
    while True:
        try:
            wanted = shares.send(0.0 if wanted >= low_from else 1.0)
            looks += 1
        except StopIteration:
            return looks


@pytest.mark.parametrize("first_share", [0.01, 0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 1.0])
def test_no_search_takes_more_looks_than_its_bound(first_share: float) -> None:
    taken = [looks_by(first_share, low_from / 1000) for low_from in range(1, 1002)]
    assert max(taken) == most_looks(first_share)


def test_facts_say_which_share_of_the_searched_parameters_is_relevant() -> None:
    _, facts = relevant_parameters(TwoLayers(), two_layer_task(), RelevanceOptions(augmentation="none"))
    assert facts["relevant_share"] == (3 + 2) / (25 + 15)
    assert len(facts["findings"]) == 2
    assert facts["image_passes"] == {"forget": 12, "retain": 0}


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_a_weight_that_is_not_contiguous_is_searched_in_its_own_order(layout: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2)).eval()
    images = torch.randint(256, (6, 2, 4, 4), dtype=torch.uint8)
    expected, _ = search(model, task_of(images, torch.arange(6) % 2, (1,), 2), RelevanceOptions())
    if layout == "channels last":
        model = model.to(memory_format=torch.channels_last)
    found, _ = search(model, task_of(images, torch.arange(6) % 2, (1,), 2), RelevanceOptions())
    assert all(torch.equal(found[name], mask) for name, mask in expected.items())


def test_grayscale_is_that_of_torchvision() -> None:
    pixels = torch.rand(4, 3, 5, 5)
    grey = augmented(pixels, "grayscale", torch.Generator())
    assert torch.allclose(grey, transforms.rgb_to_grayscale(pixels, 3), atol=2e-4)
    single = torch.rand(4, 1, 5, 5)
    assert augmented(single, "grayscale", torch.Generator()) is single


def test_vertical_flip_turns_images_upside_down() -> None:
    pixels = torch.rand(2, 3, 4, 4)
    assert torch.equal(augmented(pixels, "vertical_flip", torch.Generator()), transforms.vertical_flip(pixels))


@pytest.mark.parametrize("name", ["rotation", "affine"])
def test_random_augmentations_differ_from_image_to_image_and_repeat_with_the_seed(name: str) -> None:
    pixels = torch.rand(1, 1, 8, 8).expand(5, 1, 8, 8)
    first = augmented(pixels, name, torch.Generator().manual_seed(3))
    again = augmented(pixels, name, torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 5
    assert first.min() >= 0
    assert first.max() <= 1


def test_rotation_turns_by_the_drawn_angle() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = 2 * torch.rand(1, 5, generator=torch.Generator().manual_seed(0)) - 1
    pixels = torch.rand(1, 1, 9, 9)
    turned = augmented(pixels, "rotation", generator)
    # Both are exact in the middle, where no corner of the image is missing.
    expected = transforms.rotate(pixels, float(45 * drawn[0, 0]), interpolation=transforms.InterpolationMode.BILINEAR)
    assert torch.allclose(turned[..., 2:7, 2:7], expected[..., 2:7, 2:7], atol=1e-4)


def attention_and_task() -> tuple[nn.Module, UnlearningTask]:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8)
    return networks.vision_transformer(3, (3, 16, 16)), task_of(images, torch.arange(12) % 3, (1,), 3)


def test_queries_keys_and_values_are_layers_of_their_own() -> None:
    model, task = attention_and_task()
    attention = "encoder.layers.encoder_layer_0.self_attention"
    names = [f"{attention}.in_proj_weight[{what}]" for what in ("queries", "keys", "values")]
    names.append(f"{attention}.out_proj.weight")
    assert [name for name in searched_layers(model, "weights") if name.startswith(attention)] == names

    masks, findings = search(model, task, RelevanceOptions(augmentation="none"))

    found = {finding.layer: finding.share for finding in findings}
    parts = masks[f"{attention}.in_proj_weight"].chunk(3)
    for name, part in zip(names, parts, strict=False):
        assert int(part.sum()) == zeroed_count(part.numel(), found[name])
    # The gradient of each third orders that third alone.
    loss = nn.functional.cross_entropy(model(task.images_of(1)), torch.ones(4, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(loss, [model.get_parameter(f"{attention}.in_proj_weight")])
    for part, sizes in zip(parts, gradient.abs().chunk(3), strict=True):
        assert sizes[part].min() >= sizes[~part].max() if not part.all() else True


def test_both_orders_of_looks_agree_on_attention() -> None:
    model, task = attention_and_task()
    quick, literal = (
        search(model, task, RelevanceOptions(augmentation="none"), looks)[0] for looks in (QuickLooks, LiteralLooks)
    )
    assert all(torch.equal(quick[name], literal[name]) for name in quick)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (networks.weight_normed, "head.parametrizations.weight.original1"),
        (networks.old_weight_normed, "head.weight_v"),
        (networks.spectral_normed, "head.parametrizations.weight.original"),
        (networks.cosine, "head.parametrizations.weight.original"),
    ],
)
def test_a_computed_weight_is_searched_through_the_parameter_that_it_is_computed_from(
    make: Callable[[int, tuple[int, int, int]], nn.Module], name: str
) -> None:
    assert list(searched_layers(make(3, (3, 8, 8)), "weights")) == ["body.0.weight", "body.3.weight", name]


def test_what_the_search_cannot_reach_is_in_the_record() -> None:
    model, task = attention_and_task()
    erwp(model, task, options=ErwpOptions(augmentation="none", epochs=0))
    reached = sum(value.numel() for value in searched_parameters(model, "weights").values())
    assert task.details["searched_share"] == reached / sum(value.numel() for value in model.parameters())
    assert task.details["searched_share"] > 0.9
