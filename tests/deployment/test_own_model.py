"""The whole way of a user with a model in use: a first look, a run without FDR, new weights, a certificate."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commands import cli
from support.deployed import CLASSES, NETWORK, accuracy, class_folders, has_images, own_network, read_part, trained
from torch import nn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_images(), reason="no real images beside the repository"),
]

FORGET = ("sea", "wolf")
KEPT = tuple(name for name in CLASSES if name not in FORGET)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("own") / "my-photos")


@pytest.fixture(scope="module")
def deployed(photos: Path) -> nn.Module:
    return trained(photos)


@pytest.fixture
def home(photos: Path, deployed: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the user's network and weights the working folder."""
    monkeypatch.setenv("UNLEARNBENCH_DATA", str(photos.parent / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text(NETWORK)
    save_file(
        {f"module.{name}": value for name, value in deployed.state_dict().items()}, tmp_path / "deployed.safetensors"
    )
    return tmp_path


def init(photos: Path, *more: str, weights: str = "deployed.safetensors", forget: str = "sea,wolf") -> list[str | Path]:
    given = ["--data", photos, "--architecture", "file:my_net.py:make", "--weights", weights, "--forget", forget]
    return ["init", "my.toml", *given, *more]


def permuted(state: dict[str, torch.Tensor], order: list[int]) -> dict[str, torch.Tensor]:
    """Return weights whose output `o` is what output `order[o]` was."""
    return {name: value[order].contiguous() if ".head." in name else value for name, value in state.items()}


def test_from_deployed_weights_to_a_verified_certificate(photos: Path, deployed: nn.Module, home: Path) -> None:
    done = cli(*init(photos))
    assert done.code == 0, done.err
    assert "8 classes, 2,000 training and 480 test images of 32x32 pixels" in done.err
    manifest = (home / "my.toml").read_text()
    assert "mean = [0.5, 0.5, 0.5]" in manifest
    assert re.search(r"^#     5 sea: 250 training images, \d+ % recognised$", manifest, re.M)
    done = cli("run", "my.toml", "--device", "cpu")
    assert done.code == 0, done.err
    assert "the manifest does without FDR" in " ".join(done.out.split())
    done = cli("export-model", "runs", "--only", "erwp", "-o", "new.safetensors")
    assert done.code == 0, done.err

    record = json.loads(next(Path("runs/records").rglob("erwp/seed-0.json")).read_text())
    own = own_network()
    own.load_state_dict({name.removeprefix("module."): value for name, value in load_file("new.safetensors").items()})
    images, labels = read_part(photos / "test")
    gone = torch.isin(labels, torch.tensor([CLASSES.index(name) for name in FORGET]))
    own.eval()
    assert accuracy(own, images[gone], labels[gone]) == pytest.approx(record["metrics"]["forget_accuracy"]["value"])
    assert accuracy(own, images[~gone], labels[~gone]) == pytest.approx(record["metrics"]["retain_accuracy"]["value"])
    assert accuracy(deployed, images[gone], labels[gone]) > 0.6
    assert accuracy(own, images[gone], labels[gone]) < 0.2
    assert accuracy(own, images[~gone], labels[~gone]) > accuracy(deployed, images[~gone], labels[~gone]) - 0.1

    (home / "limits.toml").write_text("forget_accuracy = { max = 0.3 }\n")
    done = cli("certificate", "runs", "--only", "erwp", "--limits", "limits.toml", "--by", "Jane Roe", "-o", "page")
    assert (done.code, done.err) == (0, "limits: passed\n")
    values = json.loads((home / "page.json").read_text())
    assert values["removed"] == list(FORGET)
    assert [row["name"] for row in values["classes"]] == list(CLASSES)
    before = {row["name"]: row["before"]["value"] for row in values["classes"]}
    for label, name in enumerate(CLASSES):
        assert before[name] == pytest.approx(accuracy(deployed, images[labels == label], labels[labels == label]))
    done = cli("certificate", "--verify", "page.json", "--runs", "runs")
    assert done.code == 0, done.err
    assert "every number comes out the same from runs" in done.out


def test_outputs_in_another_order_are_caught_at_the_first_look(photos: Path, deployed: nn.Module, home: Path) -> None:
    order = [3, 0, 1, 2, 7, 4, 5, 6]
    save_file(permuted(load_file("deployed.safetensors"), order), "permuted.safetensors")
    done = cli(*init(photos, weights="permuted.safetensors"))
    assert done.code == 1
    assert not (home / "my.toml").exists()
    assert "permuted.safetensors: its outputs seem to stand in another order than the classes of the images" in done.err
    told = ",".join(CLASSES[label] for label in order)
    assert done.err.endswith(f"  --class-order {told}\n")
    done = cli(*init(photos, "--class-order", told, weights="permuted.safetensors"))
    assert done.code == 0, done.err
    images, labels = read_part(photos / "test")
    looked = torch.cat([torch.nonzero(labels == label).flatten()[:50] for label in range(len(CLASSES))])
    share = 100 * accuracy(deployed, images[looked], labels[looked])
    assert abs(float(re.findall(r"([\d.]+) % of 400 test images are recognised", done.err)[0]) - share) <= 0.3
    assert 'class_order = ["cloud", "bicycle"' in (home / "my.toml").read_text()


def test_what_does_not_fit_is_said_before_anything_runs(photos: Path, deployed: nn.Module, home: Path) -> None:
    done = cli(*init(photos, forget="sea,wlf"))
    assert (done.code, "Did you mean 'wolf'?" in done.err) == (2, True)
    torch.manual_seed(1)
    save_file(own_network().state_dict(), "random.safetensors")
    done = cli(*init(photos, weights="random.safetensors"))
    assert done.code == 1
    assert "random.safetensors: " in done.err
    save_file(own_network(7).state_dict(), "seven.safetensors")
    done = cli(*init(photos, weights="seven.safetensors"))
    assert (done.code, "does not fit" in done.err) == (1, True)
    done = cli(*init(photos / "nowhere"))
    assert (done.code, "no folder, no data set" in done.err) == (2, True)
    assert list(home.glob("*.toml")) == []
    (home / "my.toml").write_text("mine")
    assert cli(*init(photos)).err == "my.toml: is there already\n  Remove it, or name another\n"
    assert (home / "my.toml").read_text() == "mine"
