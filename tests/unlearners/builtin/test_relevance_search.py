"""Quick looks compared with literal ones, and the passes that start at a layer."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnbench.unlearners.builtin import prefix_cache, relevance, relevance_search
from unlearnbench.unlearners.builtin.prefix_cache import ReusedPrefix, Suffixes
from unlearnbench.unlearners.builtin.relevance import RelevanceOptions, search
from unlearnbench.unlearners.builtin.relevance_search import LiteralLooks, QuickLooks
from unlearnbench.unlearners.network_count import networks_that_run
from unlearnbench.unlearners.toy_problem import small_problem


class Residual(nn.Module):
    """A network with pitfalls: a module that works in place, a shortcut, and a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.body = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1) for _ in range(2)])
        self.activation = nn.ReLU(inplace=True)
        self.output = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        values = self.stem(images)
        for convolution in self.body:
            values = self.activation(values + convolution(values))
        logits: Tensor = self.output(values.mean(dim=(2, 3)))
        return logits


class Attending(nn.Module):
    """A network whose attention uses a linear layer's weights without calling it; two other layers share theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, stride=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mixing = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.mixing.weight
        self.position = nn.Parameter(torch.zeros(1, 16, 8))
        self.output = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.position
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        tokens = tokens + self.again(self.mixing(tokens).relu())
        logits: Tensor = self.output(tokens.mean(dim=1))
        return logits


NETWORKS = {"residual": Residual, "attending": Attending}


def network(name: str) -> nn.Module:
    """Return a network that has been trained for a while, in evaluation mode."""
    torch.manual_seed(0)
    return small_problem().original if name == "digits_net" else learned(NETWORKS[name]())


def learned(model: nn.Module) -> nn.Module:
    task = small_problem().task()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for images, labels in task.batches(25):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


def prefix_of(model: nn.Module, images: Tensor) -> ReusedPrefix:
    layers = [module for module in model.modules() if list(module.parameters(recurse=False))]
    return ReusedPrefix(model, images, Suffixes(model, torch.rand(3, *images.shape[1:]), layers))


@pytest.mark.parametrize("memory", ["all classes together", "one class at a time", "nothing kept"])
@pytest.mark.parametrize("threshold", [0.1, 0.5])
@pytest.mark.parametrize("layers", ["weights", "all"])
@pytest.mark.parametrize("name", ["digits_net", *NETWORKS])
def test_quick_looks_find_what_literal_ones_do(
    name: str, layers: Any, threshold: float, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(name)
    options = RelevanceOptions(augmentation="rotation", layers=layers, threshold=threshold, first_share=0.05)
    literal_task, quick_task = small_problem().task(), small_problem().task()
    literal, expected = search(copy.deepcopy(model), literal_task, options, LiteralLooks)
    if memory != "all classes together":
        monkeypatch.setattr(relevance, "MEMORY_LIMIT", 0)
    if memory == "nothing kept":
        monkeypatch.setattr(prefix_cache, "MEMORY_LIMIT", 0)
    quick, found = search(copy.deepcopy(model), quick_task, options, QuickLooks)
    assert found == expected
    assert all(torch.equal(mask, literal[layer]) for layer, mask in quick.items())
    assert len({finding.share for finding in found}) > 1
    assert quick_task.image_passes["forget"] <= literal_task.image_passes["forget"]


class Unusual(nn.Module):
    """Two convolutions and a classifier, between which a subclass puts something that a graph does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.output = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.ended(self.second(self.between(self.first(images))))

    def between(self, values: Tensor) -> Tensor:
        return values.relu()

    def ended(self, values: Tensor) -> Tensor:
        logits: Tensor = self.output(values.relu().mean(dim=(2, 3)))
        return logits


class MixesImages(Unusual):
    def between(self, values: Tensor) -> Tensor:
        return (values - values.mean(dim=0)).relu()


class ChangesInPlaceUnnoticed(Unusual):
    def between(self, values: Tensor) -> Tensor:
        values.clamp_(-0.1, 0.1)
        return F.avg_pool2d(values, 2)


class SmallLogits(ChangesInPlaceUnnoticed):
    def ended(self, values: Tensor) -> Tensor:
        return super().ended(values) * 1e-4


class CallsByName(Unusual):
    def forward(self, images: Tensor) -> Tensor:
        return self.ended(self.second(input=self.between(self.first(images))))


class UsesALayerTwiceUnnoticed(Unusual):
    def ended(self, values: Tensor) -> Tensor:
        return super().ended(values) + next(self.second.parameters()).mean(dim=(1, 2, 3)).sum()


class ComputesInBfloat16(Unusual):
    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(images)


class KeepsAValue(Unusual):
    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None

    def between(self, values: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = torch.zeros_like(values[:1]).detach()
        return (values + self.kept).relu()


class ComputesAWeight(Unusual):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6)
        torch.nn.utils.parametrizations.weight_norm(self.second)

    def ended(self, values: Tensor) -> Tensor:
        return super().ended(self.norm(values))


class WorksOnItsImages(Unusual):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.sub_(0.2))


@pytest.mark.parametrize("layers", ["weights", "all"])
@pytest.mark.parametrize("kind", [*Unusual.__subclasses__(), SmallLogits])
def test_networks_that_a_graph_does_not_tell_all_of(kind: type[Unusual], layers: Any) -> None:
    torch.manual_seed(0)
    model = kind()
    if kind is SmallLogits:
        model.load_state_dict(learned(ChangesInPlaceUnnoticed()).state_dict())
        model.eval()
    else:
        learned(model)
    if isinstance(model, KeepsAValue):
        model.kept = None
    options = RelevanceOptions(augmentation="rotation", layers=layers, threshold=0.5, first_share=0.05)
    literal, expected = search(copy.deepcopy(model), small_problem().task(), options, LiteralLooks)
    quick, found = search(model, small_problem().task(), options, QuickLooks)
    assert found == expected
    assert all(torch.equal(mask, literal[layer]) for layer, mask in quick.items())
    assert not any("forward" in vars(module) for module in model.modules())
    model(small_problem().task().images_of(8))


def test_a_forward_of_the_layer_s_own_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = learned(Unusual())
    assert isinstance(model.second, nn.Conv2d)
    plain = model.second.forward
    monkeypatch.setattr(model.second, "forward", lambda values: plain(values) * 2)
    own = model.second.forward
    _, expected = search(model, small_problem().task(), RelevanceOptions(threshold=0.5), LiteralLooks)
    _, found = search(model, small_problem().task(), RelevanceOptions(threshold=0.5), QuickLooks)
    assert found == expected
    assert model.second.forward is own


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
def test_a_weight_that_a_hook_computes_from_parameters_is_found_too() -> None:
    model = Unusual()
    torch.nn.utils.weight_norm(model.second)
    learned(model)
    options = RelevanceOptions(layers="all", threshold=0.5, first_share=0.05)
    (_, expected), (_, found) = (
        search(model, small_problem().task(), options, kind) for kind in (LiteralLooks, QuickLooks)
    )
    assert found == expected


@pytest.mark.parametrize("batch", [1, 40, 1000])
def test_looks_of_several_classes_go_through_together(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relevance_search, "inference_batch", lambda device, shape: batch)
    sizes: list[int] = []
    model = network("residual")
    model.output.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    _, expected = search(model, small_problem().task(), RelevanceOptions(), LiteralLooks)
    sizes.clear()
    _, found = search(model, small_problem().task(), RelevanceOptions(), QuickLooks)
    assert found == expected
    largest = small_problem().task().images_of(8).shape[0]
    looked = sizes[sizes.index(max(sizes)) + 1 :]
    assert max(looked) <= max(batch, largest)
    assert (max(looked) > relevance_search.FIRST_BATCH) == (batch > 1)


def test_what_was_recognised_before_goes_first_in_the_next_look() -> None:
    count = relevance_search.Count(relevance_search.Look(0, torch.zeros(1)), torch.tensor([5, 3, 9, 1]), torch.zeros(1))
    assert count.open(0.5)
    count.take(torch.tensor([False, True]))
    assert (count.accuracy, count.open(0.25), count.open(0.5)) == (0.25, False, True)
    assert count.next_part[0].tolist() == [9, 1]
    assert count.order_for_the_next.tolist() == [3, 9, 1, 5]


@pytest.mark.parametrize("name", NETWORKS)
def test_passes_that_start_at_a_layer_are_those_of_the_model(name: str) -> None:
    model = network(name)
    images = small_problem().task().images_of(8)
    prefix = prefix_of(model, images)
    before = copy.deepcopy(model.state_dict())

    def whole(parameter: nn.Parameter, value: Tensor, positions: Tensor) -> Tensor:
        with torch.no_grad(), relevance_search.zeros(parameter, torch.zeros_like(value, dtype=torch.bool)):
            parameter.copy_(value)
            logits: Tensor = model(images[positions])
            return logits

    for layer in model.modules():
        for parameter in layer.parameters(recurse=False):
            own, other = parameter.detach().clone(), parameter.detach().flip(0).clone()
            few, every = torch.tensor([3, 9, 4]), torch.arange(14)
            with prefix.varying(layer, parameter) as passes:
                (alone,) = passes([(few, other)])
                changed, same = passes([(few, other), (every, own)])
            # A part alone is the same to the bit; together with others, sums may be rounded differently.
            assert torch.equal(alone, whole(parameter, other, few))
            assert torch.allclose(changed, alone, atol=1e-5)
            assert torch.allclose(same, whole(parameter, own, every), atol=1e-5)
        assert "forward" not in vars(layer)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_search_runs_one_network() -> None:
    body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
    model = learned(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)))
    with networks_that_run(model) as networks:
        search(model, small_problem().task(), RelevanceOptions(), QuickLooks)
    assert networks.number == 1


def test_only_what_comes_after_the_layer_is_computed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    prefix = prefix_of(model, torch.rand(3, 4))
    expected = prefix.logits
    with prefix.varying(model[2], model[2].weight) as passes:
        with torch.no_grad():
            model[0].weight.fill_(torch.nan)
        (found,) = passes([(torch.arange(3), model[2].weight.detach().clone())])
        # Nothing remains of another value: rows that were asked for before may be asked for again.
        (zeroed,) = passes([(torch.arange(3), torch.zeros(4, 4))])
        (again,) = passes([(torch.arange(3), model[2].weight.detach().clone().fill_(0))])
    assert torch.equal(found, expected)
    assert torch.equal(zeroed, again)
    assert not torch.equal(found, zeroed)


class Offset(nn.Module):
    """A layer that gives one row for all images, and a size that later code uses."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Linear(1, 4)
        self.hidden = nn.Linear(4, 4)
        self.output = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        count = images.size(0)
        hidden = self.hidden(images) + self.offset(images.new_ones(1, 1))
        logits: Tensor = self.output(hidden.view(count, -1))
        return logits


def test_what_has_no_row_for_each_image_is_computed_each_time() -> None:
    model = Offset()
    images = torch.rand(5, 4)
    suffixes = Suffixes(model, torch.rand(3, 4), [model.offset, model.hidden, model.output])
    assert [layer in suffixes for layer in (model.offset, model.hidden, model.output)] == [False, True, True]
    prefix = ReusedPrefix(model, images, suffixes)
    for layer in (model.output, model.hidden, model.offset, model.output):
        with prefix.varying(layer, layer.weight) as passes:
            weight = layer.weight.detach().clone()
            few, all_but_one = passes([(torch.arange(2), weight), (torch.arange(1, 5), weight)])
        assert torch.allclose(few, model(images[:2]))
        assert torch.allclose(all_but_one, model(images[1:]))


class Hidden(nn.Module):
    """A model that does what a graph cannot show: it looks at its values, or changes in place what it does not use."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images)
        if self.how == "branch" and values.sum() > 0:
            values = values * 2
        if self.how == "in place":
            self.activation(values)
        logits: Tensor = self.second(values)
        return logits


@pytest.mark.parametrize("how", ["branch", "in place"])
def test_a_model_whose_graph_does_not_tell_all_is_computed_from_the_image_on(how: str) -> None:
    torch.manual_seed(0)
    model = Hidden(how)
    images = torch.randn(6, 4)
    suffixes = Suffixes(model, torch.randn(3, 4), [model.first, model.second])
    assert model.second not in suffixes
    prefix = ReusedPrefix(model, images, suffixes)
    for layer in (model.first, model.second):
        with prefix.varying(layer, layer.weight) as passes:
            (found,) = passes([(torch.arange(6), layer.weight.detach() * 2)])
        changed = copy.deepcopy(model)
        getattr(changed, "first" if layer is model.first else "second").weight.data.mul_(2)
        assert torch.allclose(found, changed(images))


def test_batch_norm_is_folded_after_the_layer_only() -> None:
    model = network("residual")
    convolution, norm = model.stem[0], model.stem[1]
    suffixes = Suffixes(model, small_problem().task().images_of(8)[:3], [convolution, norm, model.output])
    calls: list[nn.Module] = []
    norm.register_forward_hook(lambda module, inputs, output: calls.append(module))
    prefix = ReusedPrefix(model, small_problem().task().images_of(8), suffixes)
    for layer, times in ((convolution, 1), (norm, 1), (model.output, 0)):
        with prefix.varying(layer, layer.weight) as passes:
            calls.clear()
            passes([(torch.arange(3), layer.weight.detach().clone())])
        assert len(calls) == times


def test_a_pass_begins_with_no_more_than_it_needs() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 8), nn.Linear(8, 2))
    suffixes = Suffixes(model, torch.rand(3, 4), [model[1], model[2]])
    assert suffixes.bytes_per_image == 8 * 4


def test_activations_beyond_the_limit_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_cache, "MEMORY_LIMIT", 0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    images = torch.rand(3, 4)
    prefix = prefix_of(model, images)
    with prefix.varying(model[1], model[1].weight) as passes:
        (found,) = passes([(torch.arange(3), model[1].weight.detach().clone())])
    assert prefix._values == {}
    assert torch.equal(found, model(images))
