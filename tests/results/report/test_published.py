"""The numbers that papers report."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.paths import REPOSITORY
from support.records import make_record

from unlearnbench.results.records.record import MethodRecord, ProblemRecord
from unlearnbench.results.report.published import _tables, published_table

CIFAR = {
    "dataset": "cifar100",
    "architecture": "resnet56",
    "num_classes": 100,
    "forget_classes": tuple(range(80, 100)),
    "limited": "10 %",
}


def problem(**changes: Any) -> ProblemRecord:
    return make_record("wd", 0).problem.model_copy(update={**CIFAR, **changes})


def method(name: str, **options: Any) -> MethodRecord:
    return make_record(name, 0, options=options).method


def test_a_problem_that_matches_has_the_papers_figures() -> None:
    table = published_table(problem())
    assert table is not None
    assert table.figures(method("erwp", beta=10.0, kappa=2.0)) == pytest.approx(
        {
            "forget_accuracy": 0.0,
            "forget_prototype_accuracy": 0.4784,
            "retain_accuracy": 0.6932,
            "prototype_gap": 0.0244,
        }
    )
    assert table.figures(method("fdr")) == pytest.approx({"forget_prototype_accuracy": 0.454})
    assert table.figures(method("mine")) == {}


@pytest.mark.parametrize(
    ("options", "figures"),
    [
        ({"l_kd": False}, (0.0, 0.244, 0.0645)),
        ({"l_kd": False, "l_e": False}, (0.665, 0.6819, 0.6979)),
        ({"keep_share": 0.25}, (0.6035,)),
        ({"keep_share": 0.3}, ()),
        ({"stop_when_forgotten": True}, ()),
        ({"learning_rate": 1e-3}, ()),
        ({"threshold": 0.05}, ()),
        ({"l_kd": False, "keep_share": 0.25}, ()),
    ],
)
def test_other_options_are_another_row_of_the_paper_or_none(
    options: dict[str, Any], figures: tuple[float, ...]
) -> None:
    table = published_table(problem())
    assert table is not None
    assert tuple(table.figures(method("erwp", **options)).values()) == pytest.approx(figures)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "cifar10"},
        {"architecture": "resnet164"},
        {"forget_classes": tuple(range(20))},
        {"forget_classes": tuple(range(85, 100))},
        {"limited": "20 %"},
        {"limited": "50 images"},
    ],
)
def test_another_problem_has_none(changes: dict[str, Any]) -> None:
    assert published_table(problem(**changes)) is None


def test_every_number_is_a_percentage_with_its_source() -> None:
    tables = _tables()
    assert len(tables) == 13
    for table in tables:
        assert re.search(r"ECCV 2022, supplement, (table|tables|section) \d", table["source"])
        rows = [*table["figures"].values(), *(variant["figures"] for variant in table.get("variants", ()))]
        assert all(0 <= value <= 100 for row in rows for value in row.values())


def test_problems_of_the_tables_are_those_of_the_manifests() -> None:
    folder = REPOSITORY / "manifests"
    names = {re.sub(r"[^a-z0-9]", "", path.stem) for path in folder.glob("*.toml")}
    assert {"cifar100resnet20", "cifar100resnet56", "cub200"} <= names
