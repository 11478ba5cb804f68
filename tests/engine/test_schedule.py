"""Which cells of a plan run at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.growth import lines_run
from support.manifests import ERWP, FOLNRC, WD, manifest_text, write_manifest

from unlearnbench.engine.schedule import Schedule, Task
from unlearnbench.experiment.plan import Plan, make_plan
from unlearnbench.experiment.resolve import resolve

SECOND_ERWP = ERWP.replace('name = "erwp"', 'name = "erwp"\nlabel = "erwp-longer"').replace("epochs = 2", "epochs = 3")


def plan_of(folder: Path, *unlearners: str, head: str = "seeds = [0]", problem: str | None = None) -> Plan:
    text = manifest_text(*unlearners, head=head, **({"problem": problem} if problem else {}))
    return make_plan(resolve(write_manifest(folder, text)))


def take_all(schedule: Schedule) -> list[Task]:
    taken = []
    while task := schedule.take():
        taken.append(task)
    return taken


def names(tasks: list[Task]) -> list[str]:
    return [
        f"{'' if task.makes_record else 'make '}{task.cell.method.label} {task.cell.seed}"
        for task in sorted(tasks, key=lambda task: task.cell.seed)
    ]


def test_reference_models_of_all_seeds_can_be_made_at_once(tmp_path: Path) -> None:
    schedule = Schedule(plan_of(tmp_path, head="seeds = [0, 1]").cells, ())
    assert names(take_all(schedule)) == ["make original 0", "make fdr 0", "make original 1", "make fdr 1"]
    assert not schedule.over


def test_what_reads_both_references_waits_for_both_of_its_seed(tmp_path: Path) -> None:
    schedule = Schedule(plan_of(tmp_path, WD, FOLNRC, head="seeds = [0, 1]").cells, ())
    original, fdr, other, _ = take_all(schedule)
    schedule.end(original, recorded=False)
    assert take_all(schedule) == []
    schedule.end(other, recorded=False)
    assert take_all(schedule) == []
    schedule.end(fdr, recorded=False)
    assert sorted(names(take_all(schedule))) == ["fdr 0", "folnrc 0", "original 0", "wd 0"]


def test_a_reference_that_failed_holds_nobody_up(tmp_path: Path) -> None:
    schedule = Schedule(plan_of(tmp_path).cells, ())
    original, fdr = take_all(schedule)
    schedule.end(original, recorded=True)
    schedule.end(fdr, recorded=False)
    tasks = take_all(schedule)
    assert names(tasks) == ["fdr 0", "wd 0"]
    for task in tasks:
        schedule.end(task, recorded=True)
    assert schedule.over


def test_finished_cells_are_neither_handed_out_nor_waited_for(tmp_path: Path) -> None:
    cells = plan_of(tmp_path, WD, FOLNRC).cells
    schedule = Schedule(cells, {cell.id for cell in cells if cell.method.label != "folnrc"})
    assert names(take_all(schedule)) == ["folnrc 0"]
    assert Schedule(cells, {cell.id for cell in cells}).over


def test_a_model_that_two_problems_share_is_made_once(tmp_path: Path) -> None:
    problem = "[problem]\nlimited_share = 0.1\nmatrix.forget_last = [1, 2]"
    schedule = Schedule(plan_of(tmp_path, problem=problem).cells, ())
    first, *others = take_all(schedule)
    assert names([first, *others]) == ["make original 0", "make fdr 0", "make fdr 0"]
    schedule.end(first, recorded=False)
    (second,) = take_all(schedule)
    assert second.cell.model_id == first.cell.model_id
    assert second.cell.problem.id != first.cell.problem.id


def test_methods_that_may_share_a_search_run_one_after_another_where_others_can_run(tmp_path: Path) -> None:
    schedule = Schedule(plan_of(tmp_path, ERWP, SECOND_ERWP, WD).cells, ())
    for task in take_all(schedule):
        schedule.end(task, recorded=True)
    assert names(take_all(schedule)) == ["erwp 0", "wd 0", "erwp-longer 0"]


def plan_and_hand_out(folder: Path, seeds: int, entries: int) -> int:
    """Plan a manifest's cells, hand them out to 64 workers and return how many ended."""
    text = manifest_text(head=f"seeds = {list(range(seeds))}") + '[[unlearners]]\nname = "folnrc"\n'
    plan = make_plan(resolve(write_manifest(folder, text + f"matrix = {{ epochs = {list(range(1, entries + 1))} }}\n")))
    schedule, running, ended = Schedule(plan.cells, ()), [], 0
    while not schedule.over:
        while len(running) < 64 and (task := schedule.take()):
            running.append(task)
        task = running.pop(0)
        schedule.end(task, recorded=task.makes_record)
        ended += task.makes_record
    return ended


@pytest.mark.slow
def test_ten_thousand_cells_are_planned_and_handed_out(tmp_path: Path) -> None:
    assert plan_and_hand_out(tmp_path, seeds=250, entries=37) == 10_000


@pytest.mark.parametrize(("seeds", "entries"), [(80, 7), (20, 37)])
def test_planning_and_handing_out_grow_with_the_number_of_cells(tmp_path: Path, seeds: int, entries: int) -> None:
    plan_and_hand_out(tmp_path, 1, 1)
    small = lines_run(lambda: plan_and_hand_out(tmp_path, seeds // 4, entries))
    large = lines_run(lambda: plan_and_hand_out(tmp_path, seeds, entries))
    # Four times the cells: what grows with the square of their number would take sixteen times the lines.
    assert large < 5 * small
