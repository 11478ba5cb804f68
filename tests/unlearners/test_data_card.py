"""Data cards: what a method reads and how many networks it runs, measured."""

import copy
from pathlib import Path

import pytest
import torch
from support.commands import cli
from torch import nn

from unlearnbench.registry.entry_points import find
from unlearnbench.unlearners import data_card as module
from unlearnbench.unlearners.data_card import DataCard, data_card, measured_card
from unlearnbench.unlearners.network_count import networks_that_run
from unlearnbench.unlearners.task import UnlearningTask


def teacher_and_fresh(model: nn.Module, task: UnlearningTask) -> nn.Module:
    teacher, fresh = copy.deepcopy(model), task.fresh_model()
    for images, _ in task.plain("forget", batch_size=5):
        for network in (model, teacher, model, fresh):
            network(images)
        model[:3](images)
    return model


def one_after_another(model: nn.Module, task: UnlearningTask) -> nn.Module:
    images = task.images_of(0)
    for _ in range(4):
        copy.deepcopy(model)(images)
    return model


def part_by_part(model: nn.Module, task: UnlearningTask) -> nn.Module:
    assert isinstance(model, nn.Sequential)
    images = task.images_of(0)
    for layers in (model, copy.deepcopy(model)):
        for layer in layers:
            images = layer(images)
        images = task.images_of(0)
        layers(images)
        nn.Sequential.forward(layers, images)
    return model


def breaks(model: nn.Module, task: UnlearningTask) -> nn.Module:
    model(torch.zeros(1))
    return model


def test_a_card_counts_images_and_networks() -> None:
    assert measured_card(teacher_and_fresh) == DataCard(28, 112, forget_reads=28, retain_reads=0, networks=3)
    assert measured_card(one_after_another).networks == 4


def test_a_part_that_is_called_by_itself_is_no_network_of_its_own() -> None:
    with networks_that_run(nn.Linear(1, 1)) as networks:
        model = nn.Sequential(nn.Linear(4, 9), nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9)))
        model[1](model[0](torch.rand(2, 4)))
        assert networks.number == 2
        model(torch.rand(2, 4))
        assert networks.number == 1
        model[1][0](torch.rand(2, 9))
        copy.deepcopy(model)[1](torch.rand(2, 9))
        assert networks.number == 2
    assert measured_card(part_by_part).networks == 2


def test_a_method_that_fails_has_a_card_with_the_reason() -> None:
    card = measured_card(breaks)
    assert card.reason.startswith("RuntimeError: ")
    assert card.lines()[1].startswith("  not measured: RuntimeError: ")
    # The hooks are gone, and what was left open by the failure is not taken over.
    assert measured_card(teacher_and_fresh).networks == 3


@pytest.mark.parametrize(
    ("name", "forget", "retain", "networks"),
    [("wd", 0, 0, 0), ("folnrc", 0, 1120, 1), ("folnrc_kd", 0, 1120, 2), ("tslnrc", 0, 896, 1)],
)
def test_cards_of_built_ins(name: str, forget: int, retain: int, networks: int) -> None:
    assert data_card(find("unlearners", name)) == DataCard(28, 112, forget, retain, 0, networks)


def test_the_relevance_search_runs_no_network_beside_the_original_and_the_teacher() -> None:
    erwp = find("unlearners", "erwp").load()
    assert measured_card(erwp).networks == 2


def test_a_card_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_memory_file", lambda: tmp_path / "cards.json")
    calls = []
    monkeypatch.setattr(module, "measured_card", lambda function: calls.append(function) or DataCard(1, 2))
    plugin = find("unlearners", "wd")
    assert data_card(plugin) == data_card(plugin) == DataCard(1, 2)
    assert len(calls) == 1
    (tmp_path / "cards.json").write_text("{")
    assert data_card(plugin) == DataCard(1, 2)
    assert len(calls) == 2


def test_show_ends_with_the_card() -> None:
    assert cli("show", "wd").out.splitlines()[-5:] == [
        "Data card, measured with the defaults on digits (28 forget and 112 retain images)",
        "  forget images read  0",
        "  retain images read  0",
        "  test images read    0",
        "  networks run        0",
    ]
    (described,) = cli("show", "wd", "--json").json
    assert described["data_card"]["test_reads"] == 0
    (metric,) = cli("show", "retain_accuracy", "--json").json
    assert "data_card" not in metric
