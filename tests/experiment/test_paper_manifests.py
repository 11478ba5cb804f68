"""The manifests of the paper's problems, run on tiny data of the same formats."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli
import torch
from support.commands import cli
from support.paths import REPOSITORY
from support.records import record_files
from support.tiny_data import cifar_folders, cub_folder, imagenet_tree, small_imagenet, small_side

from unlearnbench.datasets.add import add
from unlearnbench.datasets.builtin import cifar100, cub200
from unlearnbench.experiment.resolve import resolve
from unlearnbench.models import weights as weights_module
from unlearnbench.models.build import Network

pytest_plugins = ["support.data_fixtures"]

MANIFESTS = REPOSITORY / "manifests"
METHODS = ["wd", "tslnrc", "tslnrc_kd", "tolnrc", "tolnrc_kd", "folmrcsc", "folmrcsc_kd", "folnrc", "folnrc_kd", "erwp"]
CIFAR = ("cifar100-resnet20", "cifar100-resnet56", "cifar100-resnet164", "cifar100-resnet20-fast")
IMAGENET = ("imagenet1k-resnet18", "imagenet1k-resnet50", "imagenet1k-mobilenetv2")
EVERY = (*CIFAR, "cub200", *IMAGENET)
# There are enough classes for the numbers of forget classes in the manifests.
CLASSES = {"cifar100": 24, "cub200": 24, "imagenet1k": 104}
# Each data set has its number of forget classes, and the share or number of training images that is left.
SETTINGS = {"cifar100": (20, 0.1), "cub200": (20, 3), "imagenet1k": (100, 0.05)}
FEW = 3
# The batch statistics of these networks need more steps than others before an evaluation gives finite numbers.
DEEP = ("cifar100-resnet164", "imagenet1k-resnet50")


def tiny_data(name: str, folder: Path, classes: int, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write and add a data set with a few images per class."""
    if name == "cifar100":
        names = tuple(f"class_{label:02}" for label in range(classes))
        small = functools.partial(cifar100.find, classes=classes, train_per_class=2, test_per_class=1)
        monkeypatch.setattr(cifar100, "find", small)
        add(name, [cifar_folders(folder / "given", 2, 1, names)])
    elif name == "cub200":
        small = functools.partial(cub200.find, classes=classes, train=3 * classes, test=classes)
        monkeypatch.setattr(cub200, "find", small)
        small_side(cub200.cub200, side, monkeypatch)
        add(name, [cub_folder(folder / "CUB_200_2011", classes)])
    else:
        small_imagenet(monkeypatch, classes, 1, 1, side)
        add(name, [imagenet_tree(folder / "given", classes, 1, 1)])


def tiny_weights(raw: dict[str, Any], classes: int, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put random weights where the published ones that a manifest names would be."""
    architecture = raw["architecture"]
    for key in architecture.keys() & {"weights", "start"}:
        publish(architecture["name"], architecture[key], classes if key == "weights" else 1000, data, monkeypatch)


@functools.cache
def random_weights(architecture: str, classes: int) -> dict[str, torch.Tensor]:
    """Return weights of a network that has seen noise, so that its batch statistics are plausible."""
    network = Network(architecture, {}, classes, (3, 32, 32)).unfilled().train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(torch.randn(8, 3, 32, 32))
    return network.state_dict()


def publish(architecture: str, label: str, classes: int, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put random weights where published ones would be."""
    published = weights_module.WEIGHTS[(architecture, label)]
    state = random_weights(architecture, classes)
    (data / "weights").mkdir(parents=True)
    torch.save(state, data / "weights" / published.file_name)
    changed = replace(published, num_classes=classes, checksum="")
    monkeypatch.setitem(weights_module.WEIGHTS, (architecture, label), changed)


def shortened(path: Path, folder: Path, epochs: int) -> Path:
    """Return a manifest with one seed, few epochs, one forget class, 32x32 crops and float32, otherwise unchanged.

    In bfloat16, where the hardware has it, the two or three images of a batch no longer differ in any digit. Batch norm
    then divides by zero, and deep networks do not stay finite.
    """
    text = path.read_text()
    replacements = [
        (r"seeds = .*", "seeds = [0]"),
        (r"epochs = \d+", f"epochs = {epochs}"),
        (r'schedule = "steps"\nmilestones = .*\nfactor = .*', 'schedule = "constant"'),
        (r"resolutions = .*", "resolutions = [[1, 20]]"),
        (r"forget_last = \d+", "forget_last = 1"),
        (r"crop = \d+", 'crop = 32\nprecision = "float32"'),
        (r"(?m)^learning_rate = \S+", "learning_rate = 0.01"),
        (r"kappa = 2.0 }", "kappa = 2.0, first_share = 1.0 }"),
    ]
    for pattern, replacement in replacements:
        text, count = re.subn(pattern, replacement, text)
        assert count or "milestones" in pattern or "resolutions" in pattern
    short = folder / path.name
    short.write_text(text)
    return short


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_manifest_is_valid_and_its_dry_run_shows_the_cost(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = MANIFESTS / f"{name}.toml"
    raw = tomli.loads(path.read_text())
    classes, seeds = CLASSES[raw["dataset"]["name"]], len(raw["seeds"])
    tiny_data(raw["dataset"]["name"], tmp_path, classes, 256, monkeypatch)
    tiny_weights(raw, classes, data, monkeypatch)
    done = cli("validate", path)
    assert (done.code, done.out) == (0, f"{path}: valid: 1 problem, 12 methods, {seeds} seeds, {12 * seeds} cells\n")
    resolved = resolve(path)
    assert [method.label for method in resolved.methods] == ["original", "fdr", *METHODS]
    problem = resolved.problems[0]
    last, left = SETTINGS[problem.dataset.name]
    assert problem.forget_classes == tuple(range(classes))[-last:]
    assert set(problem.limited_counts) == {left if isinstance(left, int) else 1}
    work = {
        row["what"]: row for row in cli("run", path, "-o", tmp_path / "runs", "--dry-run", "--json").json[0]["work"]
    }
    recipe = problem.recipe
    kept = sum(problem.info.train_counts[: -last or None])
    assert work["train FDR"]["image_passes"] == seeds * recipe["epochs"] * kept
    assert work["unlearn with tslnrc"]["image_passes"] == seeds * recipe["epochs"] * sum(problem.limited_counts)
    assert work["unlearn with erwp"]["image_passes"] == seeds * 10 * sum(problem.limited_counts)
    given = problem.weights is not None
    assert ("load Original" in work, "train Original" in work) == (given, not given)


@pytest.mark.parametrize(
    "name", ["cifar100-resnet20-fast-choices", "cifar100-resnet20-fast-zoo", "cifar100-resnet20-lab"]
)
def test_a_manifest_beside_the_fast_one_shares_its_reference_models(name: str) -> None:
    ours, fast = (tomli.loads((MANIFESTS / f"{each}.toml").read_text()) for each in (name, "cifar100-resnet20-fast"))
    for section in ("seeds", "dataset", "architecture", "problem", "training"):
        assert ours[section] == fast[section]
    # The lab's takes another reading of ERwP.
    assert (fast["unlearners"][-1] in ours["unlearners"]) == (name != "cifar100-resnet20-lab")


@pytest.mark.slow
# One manifest runs all unlearners. The others show that their network and data fit together, and where the network is
# small enough to be searched in a few seconds, ERwP. Training a deep network from scratch on one image per class
# does not stay finite, because batch norm has nothing to average.
@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("cifar100-resnet20", ["wd"]),
        ("cifar100-resnet20-fast", METHODS),
        ("cifar100-resnet56", ["wd", "erwp"]),
        ("cifar100-resnet164", ["wd"]),
        ("cub200", ["wd", "tslnrc"]),
        ("imagenet1k-resnet18", ["wd", "erwp"]),
        ("imagenet1k-resnet50", ["wd"]),
        ("imagenet1k-mobilenetv2", ["wd"]),
    ],
)
def test_a_shortened_manifest_runs_to_a_table(
    name: str, methods: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tomli.loads((MANIFESTS / f"{name}.toml").read_text())
    tiny_data(raw["dataset"]["name"], tmp_path, FEW, 36, monkeypatch)
    tiny_weights(raw, FEW, data, monkeypatch)
    only = [word for method in methods for word in ("--only", method)]
    path = shortened(MANIFESTS / f"{name}.toml", tmp_path, epochs=6 if name in DEEP else 2)
    done = cli("run", path, "-o", tmp_path / "runs", "--device", "cpu", "--json", *only)
    assert done.code == 0, done.err
    assert all(row["forget_accuracy"]["values"]["0"] is not None for row in done.json)
    assert {row["method"] for row in done.json} == {"original", "fdr", *methods}
    assert set(record_files(tmp_path / "runs")) == {f"{label}/seed-0.json" for label in ("original", "fdr", *methods)}


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "rate", "steps", "factor", "decay"),
    [
        *((name, 300, 64, 0.1, [90, 150, 210, 240, 270], 0.2, 1e-4) for name in CIFAR[:3]),
        ("cub200", 50, 64, 0.01, [30, 40], 0.1, 1e-3),
        *((name, 100, 256, 0.1, [30, 60, 90], 0.1, 1e-4) for name in IMAGENET),
    ],
)
def test_training_follows_the_paper(
    name: str, epochs: int, batch: int, rate: float, steps: list[int], factor: float, decay: float
) -> None:
    raw = tomli.loads((MANIFESTS / f"{name}.toml").read_text())
    training = raw["training"]
    assert raw["seeds"] == [0, 1, 2, 3, 4]
    assert (training["epochs"], training["batch_size"], training["learning_rate"]) == (epochs, batch, rate)
    assert (training["schedule"], training["milestones"], training["factor"]) == ("steps", steps, factor)
    assert (training["momentum"], training["weight_decay"]) == (0.9, decay)


@pytest.mark.parametrize(
    ("name", "rate", "steps", "beta"),
    [
        *((name, 1e-4, None, 10) for name in (*CIFAR, "cub200")),
        ("imagenet1k-resnet50", 9e-5, None, 200),
        ("imagenet1k-resnet18", 1.1e-4, [[3, 1.1e-5]], 200),
        ("imagenet1k-mobilenetv2", 1.5e-4, [[3, 1.5e-5]], 400),
    ],
)
def test_erwp_and_distillation_follow_the_paper(name: str, rate: float, steps: object, beta: float) -> None:
    unlearners = tomli.loads((MANIFESTS / f"{name}.toml").read_text())["unlearners"]
    options = {entry["name"]: entry.get("options", {}) for entry in unlearners}
    assert list(options) == METHODS
    erwp = options["erwp"]
    assert (erwp["learning_rate"], erwp["epochs"], erwp["beta"], erwp["kappa"]) == (rate, 10, beta, 2)
    assert erwp.get("learning_rate_steps") == steps
    assert {options[method]["beta"] for method in METHODS if method.endswith("_kd")} == {beta}
    for method in ("folmrcsc", "folmrcsc_kd", "folnrc", "folnrc_kd"):
        assert (options[method]["learning_rate"], options[method]["epochs"]) == (rate, 10)
