"""The ranking rule."""

from __future__ import annotations

import numpy as np
import pytest
from support.records import make_record, with_changes, with_relative_verdict

from unlearnbench.metrics.metric_record import packed
from unlearnbench.results.judgement import noise_floor, word
from unlearnbench.results.ranking import ORDERS, rows_by_problem
from unlearnbench.results.records.record import Record
from unlearnbench.results.rows import Judgement, Row
from unlearnbench.terms import POSITIONS, VIEW_METRICS

SEEDS = range(5)
Values = tuple[float, float, float]


def records(
    method: str,
    *values: Values,
    positions: list[Values] | None = None,
    **settings: object,
) -> list[Record]:
    """Return records of one unlearner, with FAe, FPAe and CAne for each seed, and positions where they are given."""
    return [
        make_record(method, seed, metrics=metrics, positions=positions[seed] if positions else None, **settings)
        for seed, metrics in enumerate(values)
    ]


def steady(
    method: str,
    position: float | Values,
    *,
    forget: float = 0.0,
    retain: float = 0.9,
    seeds: int = 5,
    **settings: object,
) -> list[Record]:
    """Return records whose positions vary by a hundredth over the seeds, differently for each method."""
    stream = np.random.default_rng(sum(map(ord, method)))
    middle = position if isinstance(position, tuple) else (position,) * 3
    noise = stream.normal(scale=0.01, size=(seeds, 3))
    found = [tuple(float(value + moved) for value, moved in zip(middle, one, strict=True)) for one in noise]
    return records(method, *[(forget, 0.5 + 0.3 * middle[0], retain)] * seeds, positions=found, **settings)


ORIGINAL = records("original", *[(0.9, 0.8, 0.90)] * 5, positions=[(1.0, 1.0, 1.0)] * 5)
FDR = records("fdr", *[(0.0, 0.5, 0.91)] * 5, positions=[(0.0, 0.0, 0.0)] * 5)


def ranked(*methods: list[Record], references: list[Record] | None = None, order: str = "paper") -> list[Row]:
    every = [
        *(ORIGINAL + FDR if references is None else references),
        *(record for found in methods for record in found),
    ]
    (rows,) = rows_by_problem(every, order)
    return rows


def ranks(rows: list[Row]) -> dict[str, tuple[int, int] | None]:
    return {row.label: row.rank for row in rows if not row.is_reference}


def named(rows: list[Row], label: str) -> Row:
    (found,) = [row for row in rows if row.label == label]
    return found


def note(rows: list[Row], label: str) -> str:
    return named(rows, label).note


def test_references_stand_first_without_a_rank() -> None:
    rows = ranked(steady("good", 0.1), references=FDR + ORIGINAL)
    assert [(row.label, row.role, row.rank) for row in rows] == [
        ("original", "reference", None),
        ("fdr", "reference", None),
        ("good", "unlearner", (1, 1)),
    ]


def test_who_lies_nearer_to_fdr_stands_first() -> None:
    assert ranks(ranked(steady("far", 0.9), steady("near", 0.1), steady("middle", 0.5))) == {
        "near": (1, 1),
        "middle": (2, 2),
        "far": (3, 3),
    }


def test_less_than_fdr_is_as_far_as_more() -> None:
    rows = ranked(steady("damaged", -0.5), steady("near", 0.2))
    assert ranks(rows) == {"near": (1, 1), "damaged": (2, 2)}


def test_gaps_of_both_signs_do_not_cancel_out() -> None:
    swinging = [(value, 0.0, 0.0) for value in (0.8, 0.9, -0.1, 0.6, -1.3)]
    rows = ranked(records("swings", *[(0.0, 0.5, 0.9)] * 5, positions=swinging))
    found = named(rows, "swings").judgement
    assert found is not None
    assert found.positions["prototype"] == pytest.approx(0.18)
    assert found.distance == pytest.approx((0.8 + 0.9 + 0.1 + 0.6 + 1.3) / 5)


def test_the_view_that_still_knows_decides() -> None:
    rows = ranked(steady("pushed", (0.0, 0.3, 0.65)), steady("even", (0.3, 0.3, 0.3)))
    assert ranks(rows) == {"even": (1, 1), "pushed": (2, 2)}
    found = named(rows, "pushed").judgement
    assert found is not None
    assert found.farthest == "probe"
    assert found.position == pytest.approx(0.65, abs=0.03)
    assert found.said.startswith("residual (")


def test_methods_that_the_data_do_not_tell_apart_share_a_range() -> None:
    rows = ranked(steady("a", 0.30), steady("b", 0.305), steady("c", 0.9))
    assert ranks(rows) == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}


def test_a_method_whose_outputs_remember_stands_behind_all_that_forgot() -> None:
    rows = ranked(steady("remembers", 0.0, forget=0.5), steady("forgets", 0.9))
    assert ranks(rows) == {"forgets": (1, 1), "remembers": (2, 2)}
    judgements = [row.judgement for row in rows if row.judgement]
    assert [found.forget for found in judgements] == ["passed", "failed"]


@pytest.mark.parametrize(
    ("before", "forget", "expected"),
    [
        (0.9, 0.05, "passed"),
        (0.9, 0.09, "passed"),
        (0.9, 0.1, "failed"),
        (0.3, 0.05, "passed"),
        (0.3, 0.06, "failed"),
    ],
)
def test_outputs_forget_below_five_points_or_a_tenth_of_original_s(before: float, forget: float, expected: str) -> None:
    original = records("original", *[(before, 0.8, 0.90)] * 5, positions=[(1.0, 1.0, 1.0)] * 5)
    found = named(ranked(steady("m", 0.1, forget=forget), references=original + FDR), "m").judgement
    assert found is not None
    assert found.forget == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 0.02, "passed"), (-0.5, 0.0199, "passed"), (0.0199, 0.0201, "undecided"), (0.02, 0.03, "undecided"),
     (0.0201, 0.03, "failed")],
)  # fmt: skip
def test_three_words_say_where_an_interval_lies(low: float, high: float, expected: str) -> None:
    assert word(low, high, 0.02) == expected


@pytest.mark.parametrize(
    ("retain", "keep", "rank"),
    [((0.90,) * 5, "passed", (1, 1)), ((0.88,) * 5, "passed", (1, 1)), ((0.879,) * 5, "failed", None),
     ((0.86, 0.91, 0.9, 0.86, 0.86), "undecided", (1, 1)), ((0.95,) * 5, "passed", (1, 1))],
)  # fmt: skip
def test_a_method_may_lose_two_points_of_the_retain_classes(
    retain: tuple[float, ...], keep: str, rank: tuple[int, int] | None
) -> None:
    rows = ranked(records("m", *[(0.0, 0.5, value) for value in retain], positions=[(0.1, 0.1, 0.1)] * 5))
    found = named(rows, "m").judgement
    assert found is not None
    assert found.keep == keep
    assert ranks(rows) == {"m": rank}
    expected = "it lost 2.10 points of the retain classes (2.10 to 2.10), more than 2"
    assert note(rows, "m") == ("" if rank else expected)


def test_the_loss_is_that_among_retain_outputs() -> None:
    """Deleting outputs lifts CAne: a method that lost 3 points and gained as many by that has lost 3 points."""
    found = [
        with_changes(
            record,
            metrics={
                **record.metrics,
                "masked_retain_accuracy": record.metrics["masked_retain_accuracy"].model_copy(update={"value": 0.87}),
            },
        )
        for record in steady("m", 0.1, retain=0.9)
    ]
    judgement = named(ranked(found), "m").judgement
    assert judgement is not None
    assert judgement.keep == "failed"
    assert judgement.loss == pytest.approx((0.03, 0.03, 0.03))


def test_hits_give_the_loss_an_interval_over_images() -> None:
    def with_hits(method: str, share: float, stream: int) -> list[Record]:
        found = []
        for record in steady(method, 1.0 if method == "original" else 0.1):
            hits = np.random.default_rng([stream, record.seed]).random(300) < share
            masked = record.metrics["masked_retain_accuracy"]
            changed = masked.model_copy(update={"value": float(hits.mean()), "hits": packed(hits)})
            found.append(with_changes(record, metrics={**record.metrics, "masked_retain_accuracy": changed}))
        return found

    judgement = named(ranked(with_hits("m", 0.88, 1), references=with_hits("original", 0.9, 2) + FDR), "m").judgement
    assert judgement is not None
    assert judgement.loss is not None
    mean, low, high = judgement.loss
    assert low < mean < high
    assert high - low > 0.02
    assert judgement.keep == "undecided"


def test_controls_have_no_rank_and_come_behind_whoever_changed_the_features() -> None:
    rows = ranked(steady("wd", 1.0), steady("head_distillation", 1.0), steady("weak", 0.8))
    assert ranks(rows) == {"weak": (1, 1), "head_distillation": None, "wd": None}
    assert {row.role for row in rows if row.rank is None and not row.is_reference} == {"control"}
    distance = {row.label: row.judgement.distance for row in rows if row.judgement and row.judgement.distance}
    assert distance["wd"] > distance["weak"]
    assert distance["head_distillation"] > distance["weak"]


def test_fewer_than_three_seeds_are_provisional() -> None:
    rows = ranked(steady("m", 0.1, seeds=2), steady("n", 0.5))
    assert ranks(rows) == {"n": (1, 1), "m": None}
    assert note(rows, "m") == "provisional: 2 seeds, 3 are needed for a rank"
    assert named(rows, "m").as_json()["provisional"]


def test_records_of_before_the_metrics_are_provisional_with_the_reason() -> None:
    rows = ranked(records("m", *[(0.0, 0.5, 0.9)] * 5), steady("n", 0.5))
    assert ranks(rows) == {"n": (1, 1), "m": None}
    expected = "masked_retain_accuracy is missing with seed 0, 1, 2, 3, 4: the records were made before this metric"
    assert note(rows, "m") == f"provisional: {expected}"


def test_no_statistic_of_two_methods_depends_on_a_third() -> None:
    first, second = steady("a", 0.2), steady("b", 0.6)
    alone = ranked(first, second)
    among = ranked(first, second, *(steady(name, 0.1 * number) for number, name in enumerate("cdefgh")))
    for label in "ab":
        assert named(alone, label).judgement == named(among, label).judgement
    # Others can only widen the intervals: who was told apart by chance alone may no longer be.
    assert named(alone, "a").rank == (1, 1)
    assert named(among, "a").rank is not None


PROBE, AT_PROBE = VIEW_METRICS["probe"], POSITIONS["probe"]


def with_metrics(made: list[Record], seed: int, values: dict[str, float | None]) -> list[Record]:
    """Return records of which that of a seed has other values; with None a metric has none."""
    changed = []
    for record in made:
        metrics = dict(record.metrics)
        for label, value in values.items() if record.seed == seed else ():
            ended = {"status": "failed", "reason": "no scale"} if value is None else {}
            metrics[label] = metrics[label].model_copy(update={"value": value, **ended})
        changed.append(with_changes(record, metrics=metrics))
    return changed


def test_a_view_that_finds_as_much_in_fdr_as_in_original_judges_nothing_with_this_seed() -> None:
    references = [record for made in (ORIGINAL, FDR) for record in with_metrics(made, 2, {PROBE: 0.5, AT_PROBE: None})]
    method = with_metrics(steady("m", (0.1, 0.2, 0.6)), 2, {AT_PROBE: None})
    found = named(ranked(method, steady("n", 0.9), references=references), "m")
    assert found.rank == (1, 1)
    assert found.judgement is not None
    assert found.judgement.positions["probe"] == pytest.approx(0.6, abs=0.02)
    # Four seeds have 0.6 as their largest |position|, and the fifth 0.2.
    assert found.judgement.distance == pytest.approx((4 * 0.6 + 0.2) / 5, abs=0.02)


def test_a_position_on_a_scale_turned_round_does_not_count() -> None:
    references = with_metrics(ORIGINAL, 2, {PROBE: 0.4}) + with_metrics(FDR, 2, {PROBE: 0.5})
    method = with_metrics(steady("m", (0.1, 0.2, 0.3)), 2, {AT_PROBE: -9.0})
    found = named(ranked(method, references=references), "m").judgement
    assert found is not None
    assert found.distance == pytest.approx((4 * 0.3 + 0.2) / 5, abs=0.02)


def test_a_seed_without_any_view_is_named() -> None:
    gone: dict[str, float | None] = dict.fromkeys(POSITIONS.values())
    same: dict[str, float | None] = dict.fromkeys(VIEW_METRICS.values(), 0.5)
    references = with_metrics(ORIGINAL, 1, same | gone) + with_metrics(FDR, 1, same | gone)
    rows = ranked(with_metrics(steady("m", 0.1), 1, gone), references=references)
    assert note(rows, "m") == (
        "provisional: with seed 1 no view finds more of the forget images in Original than in FDR"
    )


def test_divisions_are_ranked_apart() -> None:
    tuned = [
        with_changes(record, manifest={"tuning": {"trials": 9, "seeds": [100], "not_searched": []}})
        for record in steady("tuned", 0.1)
    ]
    rows = ranked(tuned, steady("plain", 0.5))
    assert {row.label: (row.division, row.rank) for row in rows if not row.is_reference} == {
        "plain": ("default", (1, 1)),
        "tuned": ("oracle-tuned", (1, 1)),
    }


def test_a_search_that_ends_where_it_began_changes_no_row() -> None:
    plain = steady("m", 0.1)
    tuned = [
        with_changes(record, manifest={"tuning": {"trials": 9, "seeds": [100], "not_searched": []}})
        for record in steady("m", 0.1)
    ]
    for records in ((plain, tuned), (tuned, plain)):
        assert named(ranked(*records), "m").division == "default"


def test_a_row_counts_by_the_seed_for_which_most_was_looked_at() -> None:
    first, second, *rest = steady("m", 0.1)
    looked = [
        with_changes(record, manifest={"tuning": {"trials": 9, "division": division, "not_searched": []}})
        for record, division in ((first, "oracle-tuned"), (second, "self-tuned"))
    ]
    assert named(ranked([*looked, *rest]), "m").division == "oracle-tuned"


def test_a_row_with_references_of_its_own_is_judged_by_them() -> None:
    """Its Original kept 1 point less than the table's, so that it lost 1 and not 2; the other rows stay as they are."""
    own = [with_changes(record, metrics=make_record("original", record.seed, metrics=(0.9, 0.8, 0.89),
        positions=(1.0, 1.0, 1.0)).metrics) for record in ORIGINAL]  # fmt: skip
    plain = steady("mine", 0.3, retain=0.88)
    brought = [record.with_references((own[record.seed], FDR[record.seed])) for record in plain]
    losses = []
    for mine in (plain, brought):
        rows = {row.label: row.judgement for row in ranked(mine, steady("other", 0.3, retain=0.88)) if row.judgement}
        losses.append([round(rows[label].loss[0], 6) for label in ("mine", "other")])
    assert losses == [[0.02, 0.02], [0.01, 0.02]]


def test_references_are_a_rows_own_seed_by_seed() -> None:
    mine = steady("mine", 0.3)
    mixed = [mine[0].with_references((with_changes(FDR[0], seed=0, cell="another"),)), *mine[1:]]
    rows = ranked(mixed)
    fdr = named(rows, "fdr")
    assert [record.cell for record in named(rows, "mine").yardstick(fdr).records] == [
        "another", "fdr-1", "fdr-2", "fdr-3", "fdr-4",
    ]  # fmt: skip
    assert named(rows, "mine").yardstick(named(rows, "original")) is named(rows, "original")


def test_words_say_where_the_features_lie() -> None:
    spread = [-0.03, 0.03, 0.0, -0.02, 0.02]
    fdr = []
    for record, moved in zip(FDR, spread, strict=True):
        metrics = {
            **record.metrics,
            **{
                label: record.metrics[label].model_copy(update={"value": 0.5 + moved})
                for label in VIEW_METRICS.values()
            },
        }
        fdr.append(with_changes(record, metrics=metrics))
    rows = ranked(
        steady("there", 0.05), steady("knows", (0.05, 0.05, 0.6)), steady("hurt", -0.6), references=ORIGINAL + fdr
    )
    said = {row.label: row.judgement.said for row in rows if row.judgement}
    assert said == {
        "there": "at FDR",
        "knows": "residual (probe)",
        "hurt": "damaged (all views)",
    }
    # The root of the mean squared difference of two of these five is 0.0361; Original lies 0.3 above their mean.
    floor = noise_floor(rows[0], rows[1])
    assert floor["probe"] == pytest.approx(1.96 * 2**0.5 * np.std(spread, ddof=1) / 0.3)


def judged_relative(values: list[float], details: object, seeds: int = 5) -> Judgement:
    """Return the judgement of a row with the relative verdict's values of its first seeds."""
    found = steady("moved", 0.5, seeds=seeds)
    held = [
        with_relative_verdict(record, value, {"interval": details} if details else {})
        for record, value in zip(found, values, strict=False)
    ]
    judgement = named(ranked([*held, *found[len(held) :]]), "moved").judgement
    assert judgement is not None
    return judgement


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.2, "FDR"), (-0.2, "Original"), (0.09, "undecided"), (-0.09, "undecided")]
)
def test_the_relative_verdict_of_equal_seeds_has_the_interval_over_the_images(value: float, verdict: str) -> None:
    found = judged_relative([value] * 5, [value - 0.1, value + 0.1])
    assert found.relative == pytest.approx((value, value - 0.1, value + 0.1))
    assert found.closer_to == verdict


def test_the_relative_verdict_counts_seeds_and_images() -> None:
    values = [-0.3, -0.2, -0.25, -0.15, -0.1]
    found = judged_relative(values, [-0.3, -0.1])
    # t for four degrees of freedom is 2.7764, and the half width over the images is 0.1.
    half = np.hypot(2.7764 * np.std(values, ddof=1) / 5**0.5, 0.1)
    assert found.relative == pytest.approx((-0.2, -0.2 - half, -0.2 + half), abs=1e-5)
    assert found.as_json()["relative"] == {
        "mean": pytest.approx(-0.2),
        "low": found.relative[1],
        "high": found.relative[2],
    }
    assert found.as_json()["closer_to"] == "Original"


def test_no_bound_of_the_relative_verdict_lies_beyond_what_a_difference_of_shares_can_be() -> None:
    assert judged_relative([-0.95] * 5, [-1.15, -0.75]).relative == pytest.approx((-0.95, -1.0, -0.75))


@pytest.mark.parametrize(
    "details", [None, "-0.1 to 0.1", [0.1], [None, 0.1], [float("nan"), 0.1], [0.3, 0.1]], ids=repr
)
def test_without_an_interval_over_the_images_there_is_no_relative_verdict(details: object) -> None:
    found = judged_relative([0.0] * 5, details)
    assert (found.relative, found.closer_to) == (None, None)


def test_a_seed_without_the_relative_verdict_leaves_the_row_without_it() -> None:
    assert judged_relative([0.0] * 4, [-0.1, 0.1]).relative is None


@pytest.mark.parametrize(
    ("order", "labels"),
    [
        ("paper", ["even", "pushed"]),
        ("prototype-gap", ["pushed", "even"]),
        ("retain-accuracy", ["pushed", "even"]),
        ("image-passes", ["even", "pushed"]),
    ],
)
def test_other_orders_list_the_same_ranks(order: str, labels: list[str]) -> None:
    found = ranked(steady("pushed", (0.0, 0.3, 0.65), retain=0.95), steady("even", (0.3, 0.3, 0.3)), order=order)
    assert [row.label for row in found if row.rank] == labels
    assert ranks(found) == {"even": (1, 1), "pushed": (2, 2)}
    assert order in ORDERS


def test_json_says_what_the_rule_says() -> None:
    found = named(ranked(steady("m", (0.1, 0.2, 0.6))), "m").as_json()
    assert {key: found[key] for key in ("role", "rank", "keep", "forget", "provisional", "division")} == {
        "role": "unlearner",
        "rank": (1, 1),
        "keep": "passed",
        "forget": "passed",
        "provisional": False,
        "division": "default",
    }
    assert found["position"] == found["views"]["probe"]
    assert set(found["views"]) == set(POSITIONS)
    assert found["masked_retain_accuracy"]["mean"] == pytest.approx(0.9)


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
    assert ranks(rows) == {"m": None}
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
    assert ranks(rows) == {"m": None}


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
    labels = list(ranks(rows))
    assert len(set(labels)) == 2
    assert all(label.startswith("m [") and len(label) == len("m [0123]") for label in labels)


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
