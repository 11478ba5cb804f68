"""Comparison of two runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import FinishedRun
from support.commands import cli
from support.records import make_record, small_board, with_changes, write_records

from unlearnbench.errors import InvalidFileError, UnlearnBenchError
from unlearnbench.metrics.metric_record import packed
from unlearnbench.results.records.record import Record
from unlearnbench.results.report.compare import Comparison, compare


def by_name(comparisons: list[Comparison]) -> dict[str, Comparison]:
    return {comparison.name: comparison for comparison in comparisons}


def with_hits(record: Record, hits: list[bool]) -> Record:
    metric = record.metrics["forget_accuracy"]
    counted = metric.model_copy(update={"value": float(np.mean(hits)), "hits": packed(np.array(hits))})
    return with_changes(record, metrics={**record.metrics, "forget_accuracy": counted})


def test_a_run_compared_with_itself_differs_in_nothing() -> None:
    found = by_name(compare(small_board(), small_board()))
    assert list(found) == ["Original", "FDR", "absent", "broken", "good", "lossy", "weak"]
    for difference in found["good"].differences:
        assert (difference.value, difference.interval, difference.equal) == (0.0, (0.0, 0.0), 2)
    assert found["broken"].differences == ()
    assert found["good"].notes == ()


def test_the_difference_is_the_second_minus_the_first_over_common_seeds() -> None:
    first = [make_record("m", seed, metrics=(value, 0.5, 0.9)) for seed, value in enumerate((0.1, 0.2, 0.9))]
    second = [
        make_record("m", seed, metrics=(value, 0.5, 0.9), options={"b": 1}) for seed, value in enumerate((0.2, 0.4))
    ]
    (found,) = compare(first, second)
    forget = found.differences[0]
    assert found.seeds == (0, 1)
    assert (forget.metric, forget.first, forget.second, forget.value) == pytest.approx(
        ("forget_accuracy", 0.15, 0.3, 0.15)
    )
    # The differences are 0.1 and 0.2, and t for one degree of freedom is 12.706, times 0.05.
    assert forget.interval == pytest.approx((0.15 - 0.635, 0.15 + 0.635), abs=0.04)
    assert found.notes == ("seed 2 of the first has no result in both", "option b: None | 1")


def test_another_device_or_precision_is_noted() -> None:
    first = make_record("m", 0)
    second = with_changes(first, environment={**first.environment, "precision": "bfloat16"})
    (found,) = compare([first], [second])
    assert found.notes == (f"precision: {first.environment.get('precision')} | bfloat16",)


def test_images_are_paired_where_both_records_have_them() -> None:
    first, second = (make_record("m", 0) for _ in range(2))
    hits = [True] * 50 + [False] * 50
    shifted = hits[1:] + hits[:1]
    (same,) = compare([with_hits(first, hits)], [with_hits(second, hits)])
    assert same.differences[0].interval == (0.0, 0.0)
    (other,) = compare([with_hits(first, hits)], [with_hits(second, shifted)])
    low, high = other.differences[0].interval
    assert low < 0 < high


def test_seeds_are_paired_where_only_one_record_has_images() -> None:
    first, second = (make_record("m", 0, metrics=(0.5, 0.5, 0.9)) for _ in range(2))
    (found,) = compare([with_hits(first, [True, False])], [second])
    assert found.differences[0].interval == (0.0, 0.0)


def test_two_single_methods_are_compared_whatever_their_labels() -> None:
    (found,) = compare([make_record("a", 0)], [make_record("b", 0)])
    assert found.name == "a | b"


def test_runs_without_a_common_seed_are_told_so(tmp_path: Path) -> None:
    first = write_records(tmp_path / "a", [make_record("m", 0)])
    second = write_records(tmp_path / "b", [make_record("m", 1)])
    done = cli("compare", first, second)
    assert done.code == 0
    assert "no common seed with a result" in done.out


def test_runs_on_different_problems_are_refused_with_what_differs() -> None:
    other = make_record("m", 0, problem="other")
    other = with_changes(other, problem=other.problem.model_copy(update={"test_images": 9}))
    with pytest.raises(InvalidFileError) as caught:
        compare([make_record("m", 0)], [other])
    assert str(caught.value) == (
        "the two runs have no problem in common, so that nothing can be compared\n"
        "  the first: problem: forget 1 of 10 classes (problem)\n"
        "  the second: other: forget 1 of 10 classes (other)\n"
        "  They differ in test_images: 445 and 9"
    )


def test_a_metric_that_no_record_has_is_refused_and_the_papers_names_are_known() -> None:
    with pytest.raises(UnlearnBenchError, match=r"--metric forget_acuracy: no metric .*\n  Did you mean 'forget_acc"):
        compare(small_board(), small_board(), ["forget_acuracy"])
    found = by_name(compare(small_board(), small_board(), ["FPAe"]))
    assert [difference.metric for difference in found["good"].differences] == ["forget_prototype_accuracy"]


def test_runs_without_a_common_method_are_refused() -> None:
    with pytest.raises(InvalidFileError) as caught:
        compare([make_record("a", 0), make_record("b", 0)], [make_record("c", 0)])
    assert str(caught.value) == "no method is in both runs\n  The first has a, b; the second c"


def test_the_command_prints_a_table_and_json(finished: FinishedRun) -> None:
    done = cli("compare", finished.output, finished.output)
    assert done.code == 0, done.err
    assert done.out.startswith(f"A: {finished.output}\nB: {finished.output}\n")
    assert "+0.00 to +0.00" in done.out
    # What the rule reads is said in words, and each word once.
    for start in ("kept, by masked_retain_accuracy: whether", "position: how much", "FAe: share", "CAne: accuracy"):
        assert sum(line.startswith(start) for line in done.out.splitlines()) == 1, start
    assert "closer to:" not in done.out
    (erwp,) = [
        found for found in cli("compare", finished.output, finished.output, "--json").json if found["first"] == "erwp"
    ]
    assert erwp["seeds"] == [0, 1]
    assert erwp["metrics"]["retain_accuracy"]["equal_seeds"] == 2
    done = cli(
        "compare", finished.output, finished.output, "--json", "--metric", "linear_cka reference=original images=forget"
    )
    assert done.code == 0, done.err


def with_metric(record: Record, name: str, value: float, hits: list[bool] | None = None) -> Record:
    metric = record.metrics["forget_accuracy"].model_copy(update={"name": name, "value": value})
    if hits is not None:
        metric = metric.model_copy(update={"hits": packed(np.array(hits))})
    return with_changes(record, metrics={**record.metrics, name: metric})


def table_of(folder: Path, name: str, values: tuple[float, float], *more: str, hits: list[bool] | None = None) -> str:
    """Return, as one line, what `compare` prints for two runs of one unlearner that differ in a metric."""
    runs = [
        write_records(folder / run, [with_metric(make_record("m", 0), name, value, hits)])
        for run, value in zip("ab", values, strict=True)
    ]
    done = cli("compare", *runs, "--metric", name, *more)
    assert done.code == 0, done.err
    return " ".join(done.out.split())


def test_what_is_no_share_is_shown_as_the_number_that_it_is(tmp_path: Path) -> None:
    text = table_of(tmp_path, "speed_up", (4.3337, 5.0))
    assert "speed_up │ 4.3337 │ 5.0000 │ +0.6663 │ +0.6663 to +0.6663 * │" in text
    assert "Means over common seeds; difference: the second column less the first" in text
    assert "FAe:" not in text


def test_the_caption_names_what_is_not_in_percent(tmp_path: Path) -> None:
    text = table_of(tmp_path, "relearn_cost", (1200.0, 1100.0), "--metric", "FAe")
    assert "relearn_cost │ 1200.0000 │ 1100.0000 │ -100.0000 │ -100.0000 to -100.0000 * │" in text
    assert "FAe │ 0.00 │ 0.00 │ +0.00 │ +0.00 to +0.00 │" in text
    assert "Means over common seeds in percent, except relearn_cost; difference" in text


def test_shares_are_shown_in_percent(tmp_path: Path) -> None:
    text = table_of(tmp_path, "near_class_gap", (0.1, 0.3))
    assert "near_class_gap │ 10.00 │ 30.00 │ +20.00 │" in text
    assert "Means over common seeds in percent; difference" in text


def test_a_foreign_metric_is_a_share_if_it_says_which_images_count(tmp_path: Path) -> None:
    assert "ours │ 0.5000 │ 0.5000 │" in table_of(tmp_path / "plain", "ours", (0.5, 0.5))
    assert "ours │ 50.00 │ 50.00 │" in table_of(tmp_path / "counted", "ours", (0.5, 0.5), hits=[True, False])
