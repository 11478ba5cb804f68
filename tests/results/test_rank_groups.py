"""Ranks of groups: unlearners that a paired interval cannot tell apart share a rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from unlearnbench.metrics.metric_record import MetricRecord, packed
from unlearnbench.results.ranking import Row, rank, rows_by_problem
from unlearnbench.results.record import Measured, MethodRecord, ProblemRecord, Record

SEEDS = (0, 1, 2, 3, 4)
IMAGES = 400


def problem() -> ProblemRecord:
    return ProblemRecord.model_construct(id="p", slug="p", title="p")


def metric(name: str, value: float, hits: NDArray[np.bool_] | None) -> MetricRecord:
    return MetricRecord(
        name=name, status="done", value=value, reason=None, options={},
        version=1, distribution="d", distribution_version="1", digest="s",
        hits=None if hits is None else packed(hits),
    )  # fmt: skip


def row(
    label: str,
    forget: Sequence[NDArray[np.bool_]] | Sequence[float],
    prototype: Sequence[NDArray[np.bool_]] | Sequence[float],
    retain: float = 0.95,
    *,
    role: str = "unlearner",
) -> Row:
    """Return a row with one record per seed; outcomes are arrays of hits or plain shares."""
    method = MethodRecord.model_construct(
        label=label, name=label, role=role, options={}, version=1, distribution="d", distribution_version="1"
    )
    records = []
    for seed, outcomes in enumerate(zip(forget, prototype, strict=True)):
        values = dict(zip(("forget_accuracy", "forget_prototype_accuracy"), outcomes, strict=True))
        metrics = {
            name: metric(name, float(np.mean(found)), found if isinstance(found, np.ndarray) else None)
            for name, found in values.items()
        }
        metrics["retain_accuracy"] = metric("retain_accuracy", retain, None)
        records.append(
            Record.model_construct(
                status="done",
                problem=problem(),
                method=method,
                seed=seed,
                metrics=metrics,
                reason=None,
                measured=Measured(finished_at="", seconds={}, peak_memory_bytes=None),
                image_passes={},
                manifest={},
            )
        )
    return Row(problem(), method, label, tuple(records))


def hits(share: float, stream: int, images: int = IMAGES) -> list[NDArray[np.bool_]]:
    generator = np.random.default_rng(stream)
    return [generator.random(images) < share for _ in SEEDS]


def references() -> list[Row]:
    return [
        row("original", hits(0.95, 1), hits(0.95, 2), role="reference"),
        row("fdr", hits(0.0, 3), hits(0.5, 4), role="reference"),
    ]


def ranks(*rows: Row) -> dict[str, int | None]:
    return {found.label: found.rank for found in rank([*references(), *rows]) if not found.is_reference}


def test_methods_that_differ_by_noise_share_a_rank() -> None:
    found = ranks(
        row("a", hits(0.0, 5), hits(0.6, 6)),
        row("b", hits(0.0, 7), hits(0.61, 8)),
        row("c", hits(0.0, 9), hits(0.9, 10)),
    )

    assert found == {"a": 1, "b": 1, "c": 3}


def test_forget_accuracy_decides_before_the_gap() -> None:
    found = ranks(row("near", hits(0.3, 5), hits(0.5, 6)), row("gone", hits(0.0, 7), hits(0.9, 8)))

    assert found == {"gone": 1, "near": 2}


def test_tied_forget_accuracy_leaves_the_gap_to_decide() -> None:
    found = ranks(row("far", hits(0.10, 5), hits(0.9, 6)), row("near", hits(0.11, 7), hits(0.55, 8)))

    assert found == {"near": 1, "far": 2}


def test_a_gap_below_fdr_counts_like_one_above() -> None:
    found = ranks(row("damaged", hits(0.0, 5), hits(0.1, 6)), row("close", hits(0.0, 7), hits(0.6, 8)))

    assert found == {"close": 1, "damaged": 2}


def test_pairing_by_image_tells_methods_apart_that_only_one_image_in_twenty_parts() -> None:
    base = hits(0.5, 5)
    better = [found.copy() for found in base]
    for found in better:
        found[:20] = False

    assert ranks(row("base", base, hits(0.6, 6)), row("better", better, hits(0.6, 6))) == {"better": 1, "base": 2}


def test_a_group_ends_where_its_leader_is_told_apart() -> None:
    # b cannot be told from a or c, but a and c differ, so that a leads and c opens the next group.
    a, b, c = (
        row(name, [np.arange(IMAGES) < count] * 5, hits(0.6, 6)) for name, count in zip("abc", (2, 5, 9), strict=True)
    )

    assert ranks(a, b, c) == {"a": 1, "b": 1, "c": 3}


def test_a_method_of_wide_spread_is_with_the_leader_it_cannot_be_told_from() -> None:
    steady, wide = row("steady", [0.1] * 5, [0.6] * 5), row("wide", [0.0, 0.0, 0.0, 0.0, 0.6], [0.6] * 5)

    assert ranks(row("best", [0.0] * 5, [0.6] * 5), steady, wide) == {"best": 1, "wide": 1, "steady": 3}


def test_without_outcomes_by_image_the_seeds_alone_are_drawn() -> None:
    close = ranks(row("a", [0.1, 0.2, 0.3, 0.2, 0.1], [0.6] * 5), row("b", [0.2, 0.1, 0.3, 0.1, 0.2], [0.6] * 5))
    apart = ranks(row("a", [0.1, 0.2, 0.3, 0.2, 0.1], [0.6] * 5), row("b", [0.2, 0.3, 0.4, 0.3, 0.2], [0.6] * 5))

    assert close == {"a": 1, "b": 1}
    assert apart == {"a": 1, "b": 2}


def test_the_order_of_the_records_changes_nothing() -> None:
    rows = [row(name, hits(0.1, 20 + n), hits(0.6, 30 + n)) for n, name in enumerate("abcd")]

    assert ranks(*rows) == ranks(*reversed(rows))


def test_a_method_below_the_gate_has_no_rank_however_much_it_forgot() -> None:
    found = rank([*references(), row("lost", hits(0.0, 5), hits(0.5, 6), retain=0.9)])

    assert found[-1].rank is None
    assert found[-1].note == "CAne is 5.00 points below Original, more than 2"


def test_the_interval_of_a_row_is_the_t_interval_over_seeds() -> None:
    found = row("a", [0.1, 0.2, 0.3, 0.4, 0.5], [0.6] * 5)

    assert found.interval("forget_accuracy") == pytest.approx((0.3 - 0.19632, 0.3 + 0.19632), abs=1e-4)
    assert found.as_json()["forget_accuracy"]["values"] == {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.5}


def test_rows_come_from_records() -> None:
    records = [record for found in [*references(), row("a", hits(0.0, 5), hits(0.6, 6))] for record in found.records]

    assert [found.label for found in rows_by_problem(records)[0]] == ["original", "fdr", "a"]
