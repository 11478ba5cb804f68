"""Tables of ranked rows."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from rich.console import Console
from support.plugins import built_in
from support.records import make_record, small_board, with_relative_verdict

from unlearnbench.metrics.metric_record import Hits
from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.rows import Row
from unlearnbench.results.tables import (
    DISPENSABLE,
    HEADER,
    LEGEND,
    cautions,
    cells,
    features_text,
    gap_to_fdr,
    markdown_line,
    percent,
    print_tables,
    show,
    terminal_table,
)
from unlearnbench.terms import SHARES

RECORDS = [
    *(make_record("original", seed, metrics=(0.9, 0.8, 0.9)) for seed in (0, 1)),
    *(make_record("fdr", seed, metrics=(0.0, 0.5 + seed / 10, 0.91)) for seed in (0, 1)),
    make_record("good", 0, metrics=(0.0, 0.5, 0.9)),
    make_record("good", 1, metrics=(0.01, 0.62, 0.9)),
    make_record("half", 0, metrics=(0.0, 0.5, 0.9)),
    make_record("half", 1, status="failed", reason="the loss | blew up", metrics=None),
    make_record("none", 0, status="not_applicable", reason="needs batch norm", metrics=None),
    make_record("bad", 0, metrics=(0.0, 0.5, 0.5)),
]


def rows() -> list[Row]:
    (found,) = rows_by_problem(RECORDS)
    return found


def row(label: str) -> Row:
    return next(found for found in rows() if found.label == label)


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (0.12345, 0.006789, "12.35 ± 0.68"),
        (0.5, None, "50.00"),
        (1.0, 0.0, "100.00 ± 0.00"),
        (None, None, "-"),
    ],
)
def test_fractions_are_printed_in_percent(mean: float | None, std: float | None, text: str) -> None:
    assert percent(mean, std) == text


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (
            "original",
            (
                "",
                "Original",
                "-",
                "-",
                "-",
                "90.00 ± 0.00",
                "80.00 ± 0.00",
                "+25.00",
                "90.00 ± 0.00",
                "1,100",
                "1.50",
                "2",
            ),
        ),
        ("fdr", ("", "FDR", "-", "-", "-", "0.00 ± 0.00", "55.00 ± 7.07", "-", "91.00 ± 0.00", "1,100", "1.50", "2")),
        (
            "good",
            (
                "provisional",
                "good",
                "-",
                "passed",
                "-",
                "0.50 ± 0.71",
                "56.00 ± 8.49",
                "+1.00",
                "90.00 ± 0.00",
                "1,100",
                "1.50",
                "2",
            ),
        ),
        ("half", ("", "half", "-", "-", "-", "0.00", "50.00", "+0.00", "90.00", "1,100", "1.50", "1 of 2")),
        ("none", ("", "none", "-", "-", "-", "-", "-", "-", "-", "-", "-", "0 of 1")),
        ("bad", ("provisional", "bad", "-", "passed", "-", "0.00", "50.00", "+0.00", "50.00", "1,100", "1.50", "1")),
    ],
)
def test_the_cells_of_a_row(label: str, expected: tuple[str, ...]) -> None:
    assert len(HEADER) == len(expected)
    found = rows()
    assert [cells(row, found) for row in found if row.label == label] == [expected]


def test_without_fdr_there_is_no_gap() -> None:
    others = [found for found in rows() if found.label != "fdr"]
    assert gap_to_fdr(row("good"), others) == "-"


def test_a_bar_or_a_line_break_in_a_cell_does_not_break_the_markdown() -> None:
    assert markdown_line(("a|b", "c\n  d")) == r"| a\|b | c d |"


def test_the_terminal_shows_the_table_and_why_methods_have_no_rank() -> None:
    out = io.StringIO()
    print_tables([rows()], Console(file=out, width=200))
    text = out.getvalue()
    assert text.startswith("problem: forget 1 of 10 classes")
    lines = text.splitlines()
    lacking = "masked_retain_accuracy is missing with seed 0, 1: the records were made before this metric"
    assert f"good: provisional: {lacking}" in lines
    assert "half: failed with seed 1: the loss | blew up" in lines
    assert "none: not applicable with seed 0: needs batch norm" in lines
    assert lines[-len(LEGEND) :] == [f"{term}: {told.replace('*', '')}" for term, told in LEGEND]


def test_the_terminal_says_of_each_row_where_its_features_lie_and_what_they_are_closer_to() -> None:
    records = [
        with_relative_verdict(record, -0.25, {"interval": [-0.375, -0.125]}) if record.status == "done" else record
        for record in small_board(seeds=3)
    ]
    out = io.StringIO()
    print_tables(rows_by_problem(records), Console(file=out, width=200))
    lines = out.getvalue().splitlines()
    assert "good: features residual (all views); closer to Original (-25.0, -37.5 to -12.5)" in lines
    # One that lost the retain classes too.
    assert "lossy: features damaged (all views); closer to Original (-25.0, -37.5 to -12.5)" in lines
    assert not [line for line in lines if line.startswith(("Original: features", "broken: features"))]


def test_a_row_of_records_before_other_metrics_is_told_what_is_known() -> None:
    """Where it lies between FDR and Original is not known, but the relative verdict is."""
    records = [with_relative_verdict(record, 0.0, {"interval": [-0.1, 0.1]}) for record in RECORDS if record.metrics]
    (found,) = rows_by_problem(records)
    (good,) = (row for row in found if row.label == "good")
    assert features_text(good) == "undecided (+0.0, -10.0 to +10.0)"


def test_a_long_reason_stays_in_one_line() -> None:
    reason = "word " * 100 + "end"
    (found,) = rows_by_problem([make_record("m", 0, status="failed", reason=reason, metrics=None)])
    out = io.StringIO()
    print_tables([found], Console(file=out, width=80))
    assert out.getvalue().splitlines()[-1 - len(LEGEND)] == f"m: failed with seed 0: {reason}"


def test_json_holds_fractions_by_seed() -> None:
    assert row("good").as_json() == {
        "problem": "problem",
        "method": "good",
        "role": "unlearner",
        "rank": None,
        "keep": None,
        "forget": "passed",
        "provisional": True,
        "position": None,
        "views": {},
        "distance": None,
        "said": "",
        "loss": None,
        "closer_to": None,
        "relative": None,
        "division": "default",
        "run_here": True,
        "note": "provisional: masked_retain_accuracy is missing with seed 0, 1: "
        "the records were made before this metric",
        "pareto": False,
        "seeds": [0, 1],
        "failed_seeds": [],
        "forget_accuracy": {
            "mean": 0.005,
            "std": pytest.approx(0.005 * 2**0.5),
            # t for one degree of freedom is 12.7062.
            "interval": pytest.approx((0.0, 0.005 + 12.7062 * 0.005), abs=1e-6),
            "values": {0: 0.0, 1: 0.01},
        },
        "forget_prototype_accuracy": {
            "mean": 0.56,
            "std": pytest.approx(0.06 * 2**0.5),
            "interval": (0.0, 1.0),
            "values": {0: 0.5, 1: 0.62},
        },
        "retain_accuracy": {"mean": 0.9, "std": 0.0, "interval": (0.9, 0.9), "values": {0: 0.9, 1: 0.9}},
        "speed_up": {"mean": 1.0, "std": 0.0, "interval": (1.0, 1.0), "values": {0: 1.0, 1: 1.0}},
    }


def test_json_of_a_method_that_failed_names_its_seeds() -> None:
    half = row("half").as_json()
    assert (half["rank"], half["seeds"], half["failed_seeds"]) == (None, [0, 1], [1])
    assert half["forget_accuracy"] == {"mean": 0.0, "std": None, "interval": None, "values": {0: 0.0}}
    none = row("none").as_json()
    assert (none["rank"], none["failed_seeds"], none["note"]) == (
        None,
        [],
        "not applicable with seed 0: needs batch norm",
    )


@pytest.mark.parametrize(
    ("width", "missing"),
    [(200, set()), (90, {"image passes", "seconds", "gap to FDR", "seeds", "FPAe"}), (40, set(DISPENSABLE))],
)
def test_a_narrow_terminal_gets_fewer_columns_and_none_is_cut(width: int, missing: set[str]) -> None:
    console = Console(width=width, file=io.StringIO())
    table = terminal_table(rows())
    show(table, console, DISPENSABLE)
    shown = {str(column.header) for column in table.columns}
    assert set(HEADER) - shown == missing
    printed = console.file.getvalue()
    # Too narrow for what has to be there, the lines are longer than the terminal, which wraps them.
    assert "…" not in printed
    assert "96.00 ± 5.66" in printed or "90.00 ± 0.00" in printed
    told = printed.splitlines()[-1]
    if missing:
        assert told.startswith("Left out for lack of room: ")
        assert set(told.partition(": ")[2].partition(". ")[0].split(", ")) == missing
    else:
        assert "Left out" not in printed


def test_it_is_decided_of_each_metric_whether_it_is_a_share() -> None:
    assert set(built_in("metrics")) - SHARES == {
        "adaptive_unlearning_score",
        "attention_entropy",
        "attention_shift",
        "js_divergence",
        "layer_cka",
        "linear_cka",
        "normalised_gap",
        "position",
        "prediction_entropy",
        "prediction_matrix",
        "relearn_cost",
        "representation_unlearning_score",
        "retain_output_entropy",
        "retain_output_scatter",
        "speed_up",
        "tug_of_war",
    }
    assert set(built_in("metrics")) >= SHARES


def cautions_of(original: tuple[float, float, float], fdr_forget_accuracy: float, near: float = 0.9) -> list[str]:
    record = make_record("original", 0, metrics=original)
    known = record.metrics["retain_accuracy"].model_copy(update={"name": "retain_prototype_accuracy", "value": near})
    record = record.model_copy(update={"metrics": {**record.metrics, "retain_prototype_accuracy": known}})
    (found,) = rows_by_problem([record, make_record("fdr", 0, metrics=(fdr_forget_accuracy, 0.5, 0.9))])
    return cautions(found)


def test_good_references_need_no_caution() -> None:
    assert cautions_of((0.9, 0.8, 0.9), 0.1) == []


def test_an_fdr_that_recognises_forget_classes_is_no_yardstick() -> None:
    (line,) = cautions_of((0.9, 0.8, 0.9), 0.73)
    assert line.startswith("Caution: FDR recognises 73.00 % of the forget images, where chance is 10.00 %: what its")


def test_a_classifier_far_below_its_prototypes_points_to_the_order_of_the_classes() -> None:
    (line,) = cautions_of((0.1, 0.8, 0.12), 0.0)
    assert line.startswith("Caution: Original's CAne is 12.00 %, while 90.00 % of the same images lie nearest to the")
    assert "`class_order`" in line


def test_methods_that_average_distillation_in_different_ways_are_told() -> None:
    ways = {"tolnrc_kd": "element_mean", "folnrc_kd": "batch_mean", "erwp": "batch_mean"}

    def told(**changes: dict[str, Any]) -> list[str]:
        options = {name: {"reduction": way, "beta": 1.0} for name, way in ways.items()} | changes
        made = [make_record(name, 0, options=chosen) for name, chosen in options.items()]
        (rows,) = rows_by_problem([*made, make_record("original", 0, metrics=(0.9, 0.8, 0.9)), make_record("fdr", 0)])
        return cautions(rows)

    (line,) = told()
    assert "(batch_mean: erwp, folnrc_kd; element_mean: tolnrc_kd). Of 10 classes" in line
    assert told(tolnrc_kd={"reduction": "batch_mean", "beta": 1.0}) == []
    # Without distillation there is nothing to average.
    assert told(tolnrc_kd={"reduction": "element_mean", "beta": 0}) == []


def test_an_original_at_chance_is_told() -> None:
    (line,) = cautions_of((0.1, 0.1, 0.1), 0.0, near=0.15)
    assert line.startswith("Caution: Original's CAne is 10.00 %, where chance is 10.00 %: there is nothing to forget.")


def beside_published_figures(forget_accuracy: float, retain_accuracy: float) -> list[str]:
    """Return the cautions about an original on CIFAR-100, where 80 of 100 test images are of retain classes."""
    record = make_record("original", 0, metrics=(forget_accuracy, 0.5, retain_accuracy))
    images = {"forget_accuracy": 20, "retain_accuracy": 80}
    metrics = {
        name: metric.model_copy(
            update={"hits": Hits(images=images[name], bits=base64.b64encode(bytes(-(-images[name] // 8))).decode())}
        )
        if name in images
        else metric
        for name, metric in record.metrics.items()
    }
    problem = record.problem.model_copy(update={"dataset": "cifar100", "architecture": "resnet20"})
    (rows,) = rows_by_problem([record.model_copy(update={"metrics": metrics, "problem": problem})])
    return cautions(rows)


def test_an_original_is_set_beside_the_published_accuracy_of_its_network() -> None:
    (line,) = beside_published_figures(0.6825, 0.6595)
    assert line == (
        "Original's accuracy on all classes is 66.41 %, 3.95 points below the 70.36 % with which pytorchcv publishes "
        "this network."
    )
    (line,) = beside_published_figures(0.57, 0.55)
    assert line.startswith("Caution: under-trained. Original's accuracy on all classes is 55.40 %, 14.96 points below")
