"""The manifests of the suite: the same methods on many problems, planned around what they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli
from support.commands import cli
from support.manifests import missing_plugins
from support.paths import REPOSITORY

SUITE = REPOSITORY / "manifests" / "suite"
TIERS = ("mini", "cifar", "full")
OTHERS = [REPOSITORY / "plugins" / f"unlearnbench-{name}" / "pyproject.toml" for name in ("zoo", "lab")]


def manifests(tier: str) -> list[Path]:
    # Federated problems are their tier's own business: a party's share is what it is.
    return sorted(path for path in (SUITE / tier).glob("*.toml") if "federated" not in path.stem)


def content(path: Path) -> dict[str, Any]:
    return tomli.loads(path.read_text())


def methods_of(project: Path) -> set[str]:
    return set(content(project)["project"]["entry-points"]["unlearnbench.unlearners"])


def number_of_problems(raw: dict[str, Any]) -> int:
    number = 1
    for values in raw["problem"].get("matrix", {}).values():
        number *= len(values)
    return number


@pytest.mark.parametrize("tier", TIERS)
def test_every_problem_has_every_method_of_the_package_the_zoo_and_the_lab(tier: str) -> None:
    every = methods_of(REPOSITORY / "pyproject.toml").union(*map(methods_of, OTHERS))
    for path in manifests(tier):
        assert {entry["name"] for entry in content(path)["unlearners"]} == every, path.name


@pytest.mark.parametrize("tier", ["mini", "cifar"])
def test_options_are_the_same_in_every_problem_of_a_tier(tier: str) -> None:
    first, *others = [content(path)["unlearners"] for path in manifests(tier)]
    assert all(other == first for other in others)


@pytest.mark.parametrize(("tier", "at_least", "seeds"), [("mini", 8, 5), ("cifar", 6, 3), ("full", 4, 3)])
def test_a_tier_has_problems_and_seeds_enough(tier: str, at_least: int, seeds: int) -> None:
    raws = [content(path) for path in manifests(tier)]
    assert sum(number_of_problems(raw) for raw in raws) >= at_least
    assert all(raw["seeds"][:seeds] == list(range(seeds)) for raw in raws)


def test_mini_varies_data_network_forget_set_and_limited_data() -> None:
    raws = [content(path) for path in manifests("mini")]
    assert {raw["dataset"]["name"] for raw in raws} == {"digits", "mnist5k"}
    assert {raw["architecture"]["name"] for raw in raws} == {"digits_net", "resnet20"}
    assert {len(raw["problem"]["forget_classes"]) for raw in raws} == {1, 2}
    limited: set[Any] = set()
    for raw in raws:
        problem = raw["problem"]
        limited |= set(problem.get("matrix", {}).get("limited_share", ())) | {problem.get("limited_share")}
        limited |= {f"{problem['limited_images_per_class']} images"} if "limited_images_per_class" in problem else set()
    assert limited - {None} == {0.05, 0.1, 1.0, "5 images"}


def test_problems_on_the_whole_of_cifar100_share_originals_with_the_fast_manifest() -> None:
    fast = content(REPOSITORY / "manifests" / "cifar100-resnet20-fast.toml")
    whole = [raw for raw in map(content, manifests("cifar")) if raw["dataset"]["name"] == "cifar100"]
    assert len(whole) >= 3
    for raw in whole:
        assert all(raw[section] == fast[section] for section in ("dataset", "architecture", "training"))


def test_a_tier_is_one_command(tmp_path: Path) -> None:
    paths = [path for path in manifests("mini") if not missing_plugins(path)]
    if not paths:
        pytest.skip("the zoo or the lab is not installed (pip install -e plugins/unlearnbench-zoo, -lab)")
    done = cli("run", *paths, "-o", tmp_path / "runs", "--dry-run", "--json")
    assert done.code == 0
    assert [row["manifest"] for row in done.json] == [str(path) for path in paths]
    assert not (tmp_path / "runs").exists()
