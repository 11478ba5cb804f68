"""What is left of the forget classes at each stage of the network."""

from __future__ import annotations

from typing import Any

import pytest
from support.records import STAGES, make_record, with_changes, with_stages

from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.records.record import Record
from unlearnbench.results.summaries.stages import STAGE_METRICS, StageMap, stage_map

GAP, PROBE, LIKE_ORIGINAL, LIKE_FDR = STAGE_METRICS


def board(*judged: Record) -> StageMap | None:
    references = [with_stages(make_record("fdr", seed), 0.0, 1.0) for seed in (0, 1)]
    (rows,) = rows_by_problem([*references, *judged])
    return stage_map(rows)


def test_a_map_holds_means_over_seeds_less_fdr_s_in_the_order_of_the_network() -> None:
    found = board(*(with_stages(make_record("m", seed), gap) for seed, gap in enumerate((0.1, 0.3))))
    assert found is not None
    assert found.stages == STAGES
    assert [row.label for row in found.rows] == ["fdr", "m"]
    assert found.values[GAP] == ((0.0, 0.0, 0.0), pytest.approx((0.0, 0.1, 0.2)))
    assert found.values[PROBE] == found.values[GAP]
    assert found.values[LIKE_FDR] == ((1.0, 1.0, 1.0), (0.5, 0.5, 0.5))
    assert found.largest_gap == pytest.approx(0.2)


def test_small_gaps_do_not_take_on_full_colour() -> None:
    found = board(with_stages(make_record("m", 0), -0.001))
    assert found is not None
    assert found.largest_gap == 0.05


def test_there_is_no_map_without_an_unlearner_that_was_judged_at_the_stages() -> None:
    assert board() is None
    assert board(make_record("m", 0)) is None


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"stages": "layer1", "by_stage": {}},
        {"stages": list(STAGES), "by_stage": [1, 2, 3]},
        {"stages": [{}, 1, None], "by_stage": {"layer1": 0.5}},
        {"stages": ["other"], "by_stage": {"other": 0.5}},
    ],
)
def test_details_of_another_form_leave_a_gap_and_no_error(details: dict[str, Any]) -> None:
    """Records come from anywhere, and nothing says what their details hold."""
    record = with_stages(make_record("m", 0), 0.1)
    changed = record.metrics[GAP.metric].model_copy(update={"details": details})
    found = board(with_changes(record, metrics={**record.metrics, GAP.metric: changed}))
    assert found is not None
    assert found.stages == STAGES
    assert found.values[GAP][1] == (None, None, None)
    assert found.values[PROBE][1] == pytest.approx((0.0, 0.05, 0.1))


@pytest.mark.parametrize("value", ["much", None, float("nan"), {"judged": 0.5}, {"judged": "x", "fdr": 0.5}])
def test_a_value_that_is_no_number_leaves_a_gap(value: Any) -> None:
    record = with_stages(make_record("m", 0), 0.1)
    details = record.metrics[GAP.metric].details
    details["by_stage"]["layer10"] = value
    found = board(record)
    assert found is not None
    assert found.values[GAP][1] == (0.0, None, pytest.approx(0.1))
    assert GAP.text(found.values[GAP][1][1]) == "-"


@pytest.mark.parametrize(
    ("value", "points", "similarity"),
    [(0.1234, "+12.3", "0.12"), (-0.05, "-5.0", "-0.05"), (0.0004, "0.0", "0.00"), (-0.0004, "0.0", "0.00")],
)
def test_gaps_are_points_with_a_sign_and_similarities_are_not(value: float, points: str, similarity: str) -> None:
    assert GAP.text(value) == points
    assert LIKE_ORIGINAL.text(value) == similarity
