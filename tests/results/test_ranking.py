"""The ranking rule."""

from __future__ import annotations

import pytest
from support.records import make_record, with_changes

from unlearnbench.results.ranking import Row, rows_by_problem
from unlearnbench.results.record import Record


def records(method: str, *values: tuple[float, float, float], **settings: object) -> list[Record]:
    """Return records of one unlearner, with FAe, FPAe and CAne for each seed."""
    return [make_record(method, seed, metrics=metrics, **settings) for seed, metrics in enumerate(values)]


ORIGINAL = records("original", (0.9, 0.8, 0.90), (0.9, 0.8, 0.92))
FDR = records("fdr", (0.0, 0.5, 0.91), (0.0, 0.6, 0.93))


def ranked(*methods: list[Record], references: list[Record] | None = None) -> list[Row]:
    every = [
        *(ORIGINAL + FDR if references is None else references),
        *(record for found in methods for record in found),
    ]
    (rows,) = rows_by_problem(every)
    return rows


def ranks(rows: list[Row]) -> list[tuple[str, int | None]]:
    return [(row.label, row.rank) for row in rows if not row.is_reference]


def note(rows: list[Row], label: str) -> str:
    (found,) = [row.note for row in rows if row.label == label]
    return found


def test_references_stand_first_without_a_rank() -> None:
    rows = ranked(records("good", (0.0, 0.5, 0.9), (0.0, 0.6, 0.92)), references=FDR + ORIGINAL)
    assert [(row.label, row.rank, row.note) for row in rows] == [
        ("original", None, ""),
        ("fdr", None, ""),
        ("good", 1, ""),
    ]


def test_forgetting_counts_first_and_the_gap_to_fdr_second() -> None:
    rows = ranked(
        records("remembers", (0.1, 0.5, 0.9), (0.1, 0.6, 0.92)),
        records("above", (0.0, 0.85, 0.9), (0.0, 0.95, 0.92)),
        records("below", (0.0, 0.4, 0.9), (0.0, 0.5, 0.92)),
        records("near", (0.0, 0.55, 0.9), (0.0, 0.65, 0.92)),
    )
    # FPAe of FDR is 0.55, so that 0.6 is 0.05 above, 0.45 is 0.10 below and 0.9 is 0.35 above.
    assert ranks(rows) == [("near", 1), ("below", 2), ("above", 3), ("remembers", 4)]


def test_less_than_fdr_is_as_far_as_more() -> None:
    rows = ranked(
        records("more", (0.0, 0.6, 0.9), (0.0, 0.7, 0.92)),
        records("less", (0.0, 0.4, 0.9), (0.0, 0.5, 0.92)),
    )
    assert ranks(rows) == [("less", 1), ("more", 1)]


def test_ties_share_a_rank_and_the_next_one_is_left_out() -> None:
    same = [(0.0, 0.5, 0.9), (0.0, 0.6, 0.92)]
    rows = ranked(
        records("c", *same), records("a", *same), records("b", *same), records("z", (0.2, 0.5, 0.9), (0.2, 0.6, 0.92))
    )
    assert ranks(rows) == [("a", 1), ("b", 1), ("c", 1), ("z", 4)]


@pytest.mark.parametrize(
    ("retain", "rank"),
    [((0.90, 0.92), 1), ((0.88, 0.90), 1), ((0.85, 0.93), 1), ((0.8799, 0.8999), None), ((0.95, 0.95), 1)],
)
def test_a_method_must_keep_the_retain_classes_within_two_points(retain: tuple[float, float], rank: int | None) -> None:
    rows = ranked(records("m", (0.0, 0.5, retain[0]), (0.0, 0.6, retain[1])))
    assert ranks(rows) == [("m", rank)]
    assert note(rows, "m") == ("" if rank else "CAne is 2.01 points below Original, more than 2")


def test_methods_below_the_gate_stand_last_by_their_retain_accuracy() -> None:
    rows = ranked(
        records("bad", (0.0, 0.5, 0.3), (0.0, 0.6, 0.3)),
        records("worse", (0.0, 0.5, 0.1), (0.0, 0.6, 0.1)),
        records("good", (0.9, 0.8, 0.9), (0.9, 0.8, 0.9)),
        records("less bad", (0.5, 0.5, 0.5), (0.5, 0.6, 0.5)),
    )
    assert ranks(rows) == [("good", 1), ("less bad", None), ("bad", None), ("worse", None)]


def test_a_method_is_compared_with_the_references_over_its_own_seeds() -> None:
    # With seed 1 alone Original has 0.92, so that 0.905 passes the gate; 0.895 does not, though it is near 0.91.
    (good,) = records("good", (0.0, 0.6, 0.905))
    (bad,) = records("bad", (0.0, 0.6, 0.895))
    second = [
        make_record(record.method.label, 1, metrics=(0.0, 0.6, record.value("retain_accuracy") or 0))
        for record in (good, bad)
    ]
    rows = ranked(second)
    assert ranks(rows) == [("good", 1), ("bad", None)]
    assert note(rows, "bad") == "CAne is 2.50 points below Original, more than 2"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("failed", "failed with seed 1: the loss blew up"),
        ("not_applicable", "not applicable with seed 1: the loss blew up"),
    ],
)
def test_a_method_with_a_failed_cell_has_no_rank_and_the_reason(status: str, text: str) -> None:
    broken = [
        *records("m", (0.0, 0.5, 0.9)),
        make_record("m", 1, status=status, reason="the loss blew up", metrics=None),
    ]
    rows = ranked(broken)
    assert ranks(rows) == [("m", None)]
    assert note(rows, "m") == text
    (row,) = [row for row in rows if row.label == "m"]
    assert row.mean("forget_accuracy") == 0.0
    assert [record.seed for record in row.done] == [0]


def test_a_method_that_failed_everywhere_has_no_values() -> None:
    rows = ranked([make_record("m", seed, status="failed", reason="no", metrics=None) for seed in (0, 1)])
    (row,) = [row for row in rows if row.label == "m"]
    assert (row.mean("forget_accuracy"), row.std("forget_accuracy"), row.values("forget_accuracy")) == (None, None, {})
    assert row.note == "failed with seed 0, 1: no"


@pytest.mark.parametrize(
    ("references", "text"),
    [
        (FDR, "Original is missing with these seeds"),
        (ORIGINAL, "FDR is missing with these seeds"),
        ([], "Original is missing with these seeds"),
        (ORIGINAL[:1] + FDR, "Original is missing with these seeds"),
        (ORIGINAL + FDR[1:], "FDR is missing with these seeds"),
    ],
)
def test_without_the_references_of_its_seeds_a_method_has_no_rank(references: list[Record], text: str) -> None:
    rows = ranked(records("m", (0.0, 0.5, 0.9), (0.0, 0.6, 0.92)), references=references)
    assert note(rows, "m") == text
    assert ranks(rows) == [("m", None)]


def test_problems_stand_in_the_order_of_their_numbers() -> None:
    found = []
    for count in (10, 40, 5):
        record = make_record("original", 0)
        changes = {"id": str(count), "slug": f"digits-forget{count}-10pct"}
        found.append(with_changes(record, problem=record.problem.model_copy(update=changes)))
    assert [rows[0].problem.id for rows in rows_by_problem(found)] == ["5", "10", "40"]


def test_references_alone_are_a_table() -> None:
    assert [row.label for row in ranked()] == ["original", "fdr"]


def test_a_metric_that_failed_is_named() -> None:
    found = records("m", (0.0, 0.5, 0.9))
    broken = make_record("m", 1, metrics=(0.0, None, 0.92))
    assert note(ranked([*found, broken]), "m") == "forget_prototype_accuracy is missing with seed 1: no image"
    fdr = [make_record("fdr", seed, metrics=(0.0, None, 0.9)) for seed in (0, 1)]
    told = note(ranked(records("m", (0.0, 0.5, 0.9)), references=[*ORIGINAL, *fdr]), "m")
    assert told == "FDR's forget_prototype_accuracy is missing with seed 0, 1: no image"


def test_mean_and_deviation_are_those_of_the_seeds() -> None:
    (row,) = [row for row in ranked(records("m", (0.1, 0.5, 0.9), (0.3, 0.6, 0.92))) if row.label == "m"]
    assert row.mean("forget_accuracy") == pytest.approx(0.2)
    # sqrt(((0.1 - 0.2)^2 + (0.3 - 0.2)^2) / 1)
    assert row.std("forget_accuracy") == pytest.approx(0.02**0.5)
    assert row.values("forget_accuracy") == {0: 0.1, 1: 0.3}


def test_one_seed_has_no_deviation() -> None:
    (row,) = [row for row in ranked(records("m", (0.1, 0.5, 0.9))) if row.label == "m"]
    assert row.std("forget_accuracy") is None


def test_one_label_with_other_options_gives_two_rows() -> None:
    rows = ranked(
        records("m", (0.0, 0.5, 0.9), (0.0, 0.6, 0.92), options={"epochs": 1}),
        records("m", (0.1, 0.5, 0.9), (0.1, 0.6, 0.92), options={"epochs": 2}),
    )
    labels = [label for label, _ in ranks(rows)]
    assert len(set(labels)) == 2
    assert all(label.startswith("m [") and len(label) == len("m [0123]") for label in labels)
    assert [rank for _, rank in ranks(rows)] == [1, 2]


def test_the_order_of_options_tells_no_methods_apart() -> None:
    # Options are in the order of the function's arguments in a run, and in alphabetical order in a file.
    made = [make_record("m", 0, options={"b": 1, "a": 2}), make_record("m", 1, options={"a": 2, "b": 1})]
    (row,) = [row for row in ranked(made) if not row.is_reference]
    assert [record.seed for record in row.records] == [0, 1]


def test_of_two_records_of_one_cell_the_later_one_counts() -> None:
    early = make_record("m", 0, metrics=(0.5, 0.5, 0.9), finished_at="2026-01-01T10:00:00+00:00")
    late = make_record("m", 0, metrics=(0.1, 0.5, 0.9), finished_at="2026-01-01T11:00:00+00:00")
    for order in ([early, late], [late, early]):
        (row,) = [row for row in ranked(order) if row.label == "m"]
        assert row.values("forget_accuracy") == {0: 0.1}


def test_problems_are_kept_apart_and_in_the_order_of_their_names() -> None:
    other = [make_record(record.method.label, record.seed, problem="another") for record in ORIGINAL]
    problems = rows_by_problem([*ORIGINAL, *other])
    assert [[row.label for row in rows] for rows in problems] == [["original"], ["original"]]
    assert [rows[0].problem.slug for rows in problems] == ["another", "problem"]


def test_the_order_of_the_records_does_not_matter() -> None:
    every = [
        *ORIGINAL,
        *FDR,
        *records("a", (0.0, 0.5, 0.9), (0.0, 0.6, 0.92)),
        *records("m", (0.0, 0.5, 0.9), (0.0, 0.6, 0.92), options={"epochs": 1}),
        *records("m", (0.1, 0.5, 0.9), (0.1, 0.6, 0.92), options={"epochs": 2}),
        *records("bad", (0.0, 0.5, 0.3), (0.0, 0.6, 0.3)),
    ]
    assert rows_by_problem(every) == rows_by_problem(every[::-1])


ORDERED = [
    records("forgets", (0.0, 0.7, 0.89), (0.0, 0.8, 0.91)),
    records("near", (0.3, 0.5, 0.90), (0.3, 0.6, 0.92)),
    records("keeps", (0.6, 0.7, 0.95), (0.6, 0.8, 0.97)),
]


@pytest.mark.parametrize(
    ("order", "labels"),
    [
        ("paper", ["forgets", "near", "keeps"]),
        ("prototype-gap", ["near", "forgets", "keeps"]),
        ("retain-accuracy", ["keeps", "near", "forgets"]),
        ("image-passes", ["forgets", "near", "keeps"]),
    ],
)
def test_other_orders_have_other_criteria_and_the_same_gate(order: str, labels: list[str]) -> None:
    lossy = records("lossy", (0.0, 0.5, 0.3), (0.0, 0.6, 0.3))
    every = [*ORIGINAL, *FDR, *lossy, *(record for found in ORDERED for record in found)]
    (rows,) = rows_by_problem(every, order)
    assert [row.label for row in rows if not row.is_reference] == [*labels, "lossy"]
    assert rows[-1].rank is None


def test_the_pareto_set_holds_what_no_other_ranked_method_beats() -> None:
    beaten = records("beaten", (0.4, 0.6, 0.89), (0.4, 0.7, 0.91))
    lossy = records("lossy", (0.0, 0.5, 0.3), (0.0, 0.6, 0.3))
    rows = ranked(*ORDERED, beaten, lossy)
    assert {row.label: row.pareto for row in rows if not row.is_reference} == {
        "forgets": True,
        "near": True,
        "keeps": True,
        "beaten": False,
        "lossy": False,
    }


def test_two_equal_methods_do_not_push_each_other_out_of_the_pareto_set() -> None:
    same = [(0.0, 0.5, 0.9), (0.0, 0.6, 0.92)]
    assert [row.pareto for row in ranked(records("a", *same), records("b", *same)) if row.rank] == [True, True]
