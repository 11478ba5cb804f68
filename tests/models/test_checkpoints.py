from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unlearnbench.errors import InvalidFileError
from unlearnbench.models.build import Network
from unlearnbench.models.checkpoints import load_weights, misfits, read_state
from unlearnbench.models.weights import Weights, find_weights


def network(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, outputs))


def weights(path: Path) -> Weights:
    return Weights("mine", "id", path)


def whole(message: str) -> str:
    return f"^{re.escape(message)}$"


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


State = dict[str, torch.Tensor]


def behind(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def averaged(state: State) -> State:
    return {"n_averaged": torch.tensor(3), **behind("module.", state)}


FORMS: dict[str, tuple[Callable[[State], object], str]] = {
    "state_dict": (lambda s: s, ""),
    "old torch": (lambda s: {key: value for key, value in s.items() if "tracked" not in key}, ""),
    "wrapped": (lambda s: {"epoch": 3, "state_dict": s, "best": 0.5}, "in 'state_dict'"),
    "nested": (lambda s: {"model": {"state_dict": s}, "epoch": 3}, "in 'model', in 'state_dict'"),
    "of the average alone": (lambda s: {"state_dict_ema": s}, "in 'state_dict_ema'"),
    "beside its average": (
        lambda s: {"state_dict_ema": behind("x.", s), "state_dict": s},
        "in 'state_dict' (not 'state_dict_ema')",
    ),
    "params": (lambda s: {"params": s}, "in 'params'"),
    "student": (
        lambda s: {"teacher": behind("x.", s), "student": behind("module.backbone.", s)},
        "in 'student' (not 'teacher'), behind 'module.backbone.'",
    ),
    "data parallel": (lambda s: behind("module.", s), "behind 'module.'"),
    "compiled data parallel": (lambda s: behind("_orig_mod.module.", s), "behind '_orig_mod.module.'"),
    "averaged": (averaged, "behind 'module.'"),
    "Lightning": (
        lambda s: {"state_dict": behind("model.", s), "pytorch-lightning_version": "2.4", "loops": {}},
        "in 'state_dict', behind 'model.'",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_of_any_usual_form_fills_the_network_and_the_way_to_it_is_said(tmp_path: Path, form: str) -> None:
    trained, model = network(), network()
    make, told = FORMS[form]
    torch.save(make(trained.state_dict()), tmp_path / "x.pth")
    lines: list[str] = []
    load_weights(model, weights(tmp_path / "x.pth"), new_classifier=False, say=lines.append)
    assert same(model, trained)
    assert lines == ([f"{tmp_path}/x.pth: took the weights {told}"] if told else [])


def test_a_checkpoint_in_safetensors_fills_the_network(tmp_path: Path) -> None:
    trained, model = network(), network()
    save_file(dict(trained.state_dict()), tmp_path / "x.safetensors")
    load_weights(model, weights(tmp_path / "x.safetensors"), new_classifier=False)
    assert same(model, trained)


def test_what_stands_beside_the_prefix_is_named(tmp_path: Path) -> None:
    state = {**behind("model.", network().state_dict()), "loss.weight": torch.ones(1)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(InvalidFileError, match=r"x\.pth: does not fit Sequential\n  unexpected: loss\.weight$"):
        load_weights(network(), weights(tmp_path / "x.pth"), new_classifier=False)


def test_auxiliary_outputs_of_a_checkpoint_are_left_out_where_the_network_has_none(tmp_path: Path) -> None:
    trained, model = network(), network()
    torch.save({**trained.state_dict(), "aux1.fc1.weight": torch.ones(1)}, tmp_path / "x.pth")
    load_weights(model, weights(tmp_path / "x.pth"), new_classifier=False)
    assert same(model, trained)


def test_missing_unexpected_and_misshapen_tensors_are_named_at_once(tmp_path: Path) -> None:
    state = network().state_dict()
    state["9.weight"] = torch.zeros(1)
    del state["1.bias"]
    state["0.weight"] = torch.zeros(2, 3, 3, 3)
    torch.save(state, tmp_path / "x.pth")
    expected = (
        f"{tmp_path}/x.pth: does not fit Sequential\n  missing: 1.bias\n  unexpected: 9.weight\n"
        "  another shape: 0.weight is (2, 3, 3, 3), not (2, 1, 3, 3)"
    )
    with pytest.raises(InvalidFileError, match=whole(expected)):
        load_weights(network(), weights(tmp_path / "x.pth"), new_classifier=False)


def test_long_lists_of_names_are_cut() -> None:
    expected = {f"layer{number}": torch.zeros(1) for number in range(8)}
    assert misfits(expected, {}) == ["missing: layer0, layer1, layer2, layer3, layer4 and 3 more"]


def test_a_classifier_of_other_classes_is_replaced_in_a_start_and_refused_in_an_original(tmp_path: Path) -> None:
    trained, model = network(outputs=7), network(outputs=3)
    fresh = model[3].weight.clone()
    torch.save(trained.state_dict(), tmp_path / "x.pth")
    load_weights(model, weights(tmp_path / "x.pth"), new_classifier=True)
    assert torch.equal(model[0].weight, trained[0].weight)
    assert torch.equal(model[3].weight, fresh)
    expected = (
        f"{tmp_path}/x.pth: does not fit Sequential\n"
        "  another shape: 3.weight is (7, 8), not (3, 8), 3.bias is (7,), not (3,)\n"
        "  It has 7 outputs, and the images have 3 classes"
    )
    with pytest.raises(InvalidFileError, match=whole(expected)):
        load_weights(model, weights(tmp_path / "x.pth"), new_classifier=False)


def test_a_start_with_the_same_classes_keeps_its_classifier(tmp_path: Path) -> None:
    trained, model = network(), network()
    torch.save(trained.state_dict(), tmp_path / "x.pth")
    load_weights(model, weights(tmp_path / "x.pth"), new_classifier=True)
    assert same(model, trained)


class Command:
    """An object whose pickle runs a command when it is read."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.words,)


def test_a_pickle_that_runs_a_command_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": Command(f"touch {tmp_path / 'ran'}")}, tmp_path / "x.pth")
    with pytest.raises(InvalidFileError, match=r"/x\.pth: holds more than tensors, which could run code\n"):
        read_state(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "x.pth")
    expected = (
        f"{tmp_path}/x.pth: holds more than tensors, which could run code\n"
        "  Save only the weights: torch.save(model.state_dict(), path), or safetensors"
    )
    with pytest.raises(InvalidFileError, match=whole(expected)):
        read_state(tmp_path / "x.pth")


@pytest.mark.parametrize(("name", "content"), [("x.pth", b"hello"), ("x.safetensors", b"hello"), ("x.pth", b"")])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    expected = f"{tmp_path / name}: neither a safetensors file nor one that torch.save wrote"
    with pytest.raises(InvalidFileError, match=whole(expected)):
        read_state(tmp_path / name)


def test_a_checkpoint_without_a_table_of_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(
        InvalidFileError, match=whole(f"{tmp_path}/x.pth: not a state_dict: it holds no table of tensors")
    ):
        read_state(tmp_path / "x.pth")


def test_a_published_checkpoint_with_another_hash_is_refused(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "x.pth")
    published = Weights("mine", "id", tmp_path / "x.pth", "sha256", "0123")
    with pytest.raises(
        InvalidFileError, match=r"x\.pth: damaged, or changed .*: sha256 [0-9a-f]{64}, not 0123\n  Remove it and fetch"
    ):
        load_weights(network(), published, new_classifier=False)


def test_a_network_starts_from_weights_with_a_classifier_of_its_seed(tmp_path: Path) -> None:
    shape = (1, 8, 8)
    trained = Network("digits_net", {"width": 4}, 5, shape).build(3, "original")
    torch.save(trained.state_dict(), tmp_path / "x.pth")
    start = Network("digits_net", {"width": 4}, 10, shape, weights(tmp_path / "x.pth"))
    first, second = start.build(0, "original"), start.build(1, "original")
    assert torch.equal(first.get_parameter("0.weight"), trained.get_parameter("0.weight"))
    assert torch.equal(second.get_parameter("0.weight"), trained.get_parameter("0.weight"))
    assert not torch.equal(first.get_parameter("13.weight"), second.get_parameter("13.weight"))


def test_outputs_in_another_order_are_put_into_that_of_the_classes(tmp_path: Path) -> None:
    trained, model = network(), network()
    torch.save(trained.state_dict(), tmp_path / "x.pth")
    given = weights(tmp_path / "x.pth")
    # The checkpoint's outputs stand for the classes 2, 0 and 1.
    ordered = given.in_order((2, 0, 1))
    load_weights(model, ordered, new_classifier=False)
    images = torch.linspace(-1, 1, 2 * 16).view(2, 1, 4, 4)
    assert torch.equal(model.eval()(images)[:, [2, 0, 1]], trained.eval()(images))
    assert ordered.identity != given.identity
    assert given.in_order((0, 1, 2)) is given


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    state = network().state_dict()
    state["3.weight"][1] = float("nan")
    state["3.bias"][0] = float("inf")
    save_file(state, tmp_path / "w.safetensors")
    told = r"/w\.safetensors: 3\.(weight|bias) is not finite, nor are others \(1\)$"
    with pytest.raises(InvalidFileError, match=told):
        load_weights(network(), weights(tmp_path / "w.safetensors"), new_classifier=False)


def test_a_checkpoint_that_changed_after_it_was_looked_at_is_named(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "w.safetensors")
    looked_at = find_weights("digits_net", "w.safetensors", tmp_path)
    load_weights(network(), looked_at, new_classifier=False)
    torch.manual_seed(5)
    save_file(network().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InvalidFileError, match=r"w\.safetensors: damaged, or changed since it was looked at: sha256 "):
        load_weights(network(), looked_at, new_classifier=False)
