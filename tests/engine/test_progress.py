"""What a run with several workers displays."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from unlearnbench.engine import progress
from unlearnbench.engine.progress import Display


def test_a_plain_line_names_what_every_worker_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    text = io.StringIO()
    with Display(Console(file=text), cells=4, passes=1000, lanes=3) as display:
        first, second, _ = display.lanes
        with first.stage("training Original, seed 0", 400), second.stage("wd, seed 1", None):
            second.advance(7)
            first.advance(100)
    lines = text.getvalue().splitlines()
    assert lines[0] == "training Original, seed 0: 0 %; wd, seed 1: 7 images, too early to say how long in all"
    assert re.fullmatch(r"training Original, seed 0: 25 %; wd, seed 1: 7 images, about \d+:\d\d left in all", lines[1])


@pytest.mark.parametrize(
    ("after", "left"), [(119, "too early to say how long in all"), (200, "about 6:07:02 left in all")]
)
def test_a_run_of_days_says_how_long_it_takes_before_a_hundredth_is_done(
    monkeypatch: pytest.MonkeyPatch, after: int, left: str
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    clock = [1000.0]
    monkeypatch.setattr(progress, "monotonic", lambda: clock[0])
    text = io.StringIO()
    with Display(Console(file=text), cells=4, passes=1000) as display, display.lanes[0].stage("training", 1000):
        clock[0] += 15
        display.lanes[0].advance(0)
        clock[0] += after - 15
        display.lanes[0].advance(9)
    first, second = text.getvalue().splitlines()
    assert first == "training: 0 %, too early to say how long in all"
    assert second == f"training: 1 %, {left}"


def test_what_an_earlier_run_has_read_does_not_make_this_one_seem_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    clock = [1000.0]
    monkeypatch.setattr(progress, "monotonic", lambda: clock[0])
    text = io.StringIO()
    with Display(Console(file=text), cells=2, passes=1000) as display, display.lanes[0].stage("training", 800):
        display.lanes[0].expect(300)
        clock[0] += 100
        display.lanes[0].advance(100)
    # Of 500 images that are left, 100 took 100 seconds.
    assert text.getvalue().splitlines()[-1] == "training: 33 %, about 6:40 left in all"


def test_nothing_is_said_soon_after_something_was_said() -> None:
    text = io.StringIO()
    with Display(Console(file=text), cells=2, passes=100) as display:
        display.cell_done("wd, seed 0: done")
        with display.lanes[0].stage("wd, seed 1", 100):
            display.lanes[0].advance(100)
    assert text.getvalue() == "[1/2] wd, seed 0: done\n"


def test_the_bar_of_a_worker_keeps_its_place() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120, color_system=None)
    display = Display(console, cells=4, passes=1000, lanes=2)
    first, second = display.lanes
    first.begin("training Original", 400)
    second.begin("training FDR", 400)
    first.advance(400)
    first.end()
    first.begin("features of original", 100)
    console.print(display.bars.get_renderable())
    assert re.findall(r"^(all cells|\w+ \w+(?: original)?)", shown.getvalue(), re.M) == [
        "all cells",
        "features of original",
        "training FDR",
    ]


def test_a_stage_cut_short_counts_as_done_and_only_once() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    display = Display(console, cells=1, passes=400)
    lane = display.lanes[0]
    lane.begin("training", 400)
    lane.advance(100)
    lane.end()
    lane.end()
    assert [task.completed for task in display.bars.tasks] == [400]


def test_a_stage_that_reads_more_than_was_expected_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    text = io.StringIO()
    with Display(Console(file=text), cells=2, passes=1000) as display, display.lanes[0].stage("erwp, seed 0", 100):
        display.lanes[0].advance(100)
        display.lanes[0].advance(1500)
    first, second, *_ = text.getvalue().splitlines()
    assert re.fullmatch(r"erwp, seed 0: 100 %, about \d+:\d\d left in all", first)
    assert re.fullmatch(r"erwp, seed 0: 1,600 images, 100 expected, at least \d+:\d\d left in all", second)


def test_what_a_stage_expects_counts_for_the_whole_run() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    display = Display(console, cells=2, passes=1000)
    lane = display.lanes[0]

    def whole() -> tuple[float, float | None]:
        return display.bars.tasks[0].completed, display.bars.tasks[0].total

    lane.begin("erwp, seed 0", 100)
    lane.expect(900)
    lane.advance(450)
    assert whole() == (450, 1800)
    # Less is left than was thought, after more had been read than was thought.
    lane.advance(600)
    lane.expect(50)
    assert whole() == (1050, 2000)
    assert not lane.longer
    lane.end()
    assert whole() == (1100, 2000)
    lane.begin("of which nothing was known", None)
    lane.expect(10)
    lane.end()
    assert whole() == (1110, 2010)


def test_what_was_read_before_an_interruption_is_a_part_of_the_stage_and_took_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    text = io.StringIO()
    with Display(Console(file=text), cells=1, passes=1000) as display, display.lanes[0].stage("training", 1000):
        display.lanes[0].expect(500, 500)
        monkeypatch.setattr(progress, "monotonic", lambda: display._started + 10.0)
        display.lanes[0].advance(100)
    assert text.getvalue().splitlines()[-1] == "training: 60 %, about 0:40 left in all"


def test_the_bar_of_a_resumed_stage_begins_where_it_was() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    display = Display(console, cells=1, passes=1000)
    lane = display.lanes[0]
    lane.begin("training", 1000)
    lane.expect(750, 250)
    assert [(task.completed, task.total) for task in display.bars.tasks] == [(0, 750), (250, 1000)]
    lane.advance(250)
    assert [(task.completed, task.total) for task in display.bars.tasks] == [(250, 750), (500, 1000)]
    lane.end()
    lane.begin("features", 100)
    lane.advance(50)
    assert lane.share == "features: 50 %"
