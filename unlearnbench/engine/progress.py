"""What a run shows while it runs: one live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from unlearnbench.machine import size_text

LINE_SECONDS = 15.0
# Before this share of the images is read, the seconds of the start make an estimate of days.
TOO_EARLY = 0.01


class TimeLeft(ProgressColumn):
    """The time left, estimated from what is done since the start."""

    def render(self, task: Task) -> Text:
        """Return "1:23 left", or nothing before there is an estimate."""
        if not task.total or not task.completed or task.elapsed is None or task.finished:
            return Text("")
        return Text(f"{duration(task.elapsed * (task.total / task.completed - 1))} left")


def duration(seconds: float) -> str:
    """Return seconds as "1:23" or "2:03:04"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Told(Protocol):
    """Whoever is told how the work goes on."""

    def say(self, message: str) -> None:
        """Take a line for the user."""

    def stage(self, what: str, passes: int | None) -> AbstractContextManager[None]:
        """Return a context that lasts as long as a stage.

        Args:
            what: For example "training original model, seed 0".
            passes: Images it will read, None if not known.
        """

    def advance(self, images: int) -> None:
        """Count image passes in the current stage."""


class _Bars(Progress):
    """Bars that keep their order: a worker's next stage stands where its last one stood."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Return the bars, the whole run first."""
        return super().make_tasks_table(sorted(tasks, key=lambda task: int(task.fields["lane"])))


class Display:
    """The display of a run; a context manager.

    Args:
        console: On stderr.
        cells: Number of cells.
        passes: Image passes of the whole run, as far as they are known.
        lanes: How many cells are worked on at a time.

    Attributes:
        bars: The bars on a terminal.
        lanes: One for each cell that is worked on.
    """

    def __init__(self, console: Console, cells: int, passes: int, lanes: int = 1) -> None:
        self.console = console
        self.live = console.is_terminal
        self._cells, self._passes = cells, max(1, passes)
        self._done_cells = 0
        self._done_passes = 0.0
        self._started = self._spoke = monotonic()
        self.bars = _Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TimeLeft(),
            console=console,
            transient=True,
        )
        self._whole = self.bars.add_task("all cells", total=self._passes, count=f"0/{cells}", lane=-1)
        self.lanes = tuple(Lane(self, number) for number in range(lanes))

    def __enter__(self) -> Display:
        """Start showing."""
        if self.live:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars away."""
        if self.live:
            self.bars.stop()

    def say(self, message: str) -> None:
        """Print a line."""
        self._spoke = monotonic()
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def count(self, images: int) -> None:
        """Count images towards the whole run, and say where it stands if nothing was said for a while."""
        self._done_passes += images
        if self.live:
            self.bars.update(self._whole, completed=self._done_passes)
        elif monotonic() - self._spoke > LINE_SECONDS:
            self.say(f"{'; '.join(lane.share for lane in self.lanes if lane.share)}, {self._left()}")

    def _left(self) -> str:
        share = self._done_passes / self._passes
        if share < TOO_EARLY:
            return "too early to say how long in all"
        # While a stage reads more than was thought, the whole stands still and the estimate grows.
        bound = "at least" if any(lane.longer for lane in self.lanes) else "about"
        return f"{bound} {duration((monotonic() - self._started) * (1 / share - 1))} left in all"

    def cell_done(self, line: str | None) -> None:
        """Count a cell and say how it ended, unless that is None."""
        self._done_cells += 1
        self.bars.update(self._whole, count=f"{self._done_cells}/{self._cells}")
        if line is not None:
            self.say(f"[{self._done_cells}/{self._cells}] {line}")


class Lane:
    """The part of a display that shows the cell of one worker.

    Args:
        display: The display.
        number: Its place, counted from 0.
    """

    def __init__(self, display: Display, number: int) -> None:
        self._display = display
        self._number = number
        self._bar: TaskID | None = None
        self._what = ""
        self._total: int | None = None
        self._done = 0

    def say(self, message: str) -> None:
        """Print a line."""
        self._display.say(message)

    @contextmanager
    def stage(self, what: str, passes: int | None) -> Iterator[None]:
        """Show a stage while it runs."""
        self.begin(what, passes)
        try:
            yield
        finally:
            self.end()

    def begin(self, what: str, passes: int | None) -> None:
        """Show that a stage begins; `passes` are the images it will read, None if not known."""
        self._bar = self._display.bars.add_task(what, total=passes, count="", lane=self._number)
        self._what, self._total, self._done = what, passes, 0

    def advance(self, images: int) -> None:
        """Count image passes in the current stage."""
        if self._bar is None:
            return
        self._done += images
        if self._display.live:
            self._display.bars.update(self._bar, completed=self._done, count=self._count if self._total else "")
        # What a method reads more or less than was thought does not move the whole bar.
        self._display.count(images if self._total is not None and self._done <= self._total else 0)

    def end(self) -> None:
        """Show that the stage is over; nothing if there is none."""
        if self._bar is None:
            return
        if self._total is not None:
            self._display.count(self._total - min(self._done, self._total))
        self._display.bars.remove_task(self._bar)
        self._bar = None

    @property
    def longer(self) -> bool:
        """Whether the stage has read more images than were expected, as ERwP's search may."""
        return self._bar is not None and self._total is not None and self._done > self._total > 0

    @property
    def share(self) -> str:
        """The stage with what of it is done, "" between two stages."""
        return "" if self._bar is None else f"{self._what}: {self._count}"

    @property
    def _count(self) -> str:
        if not self._total:
            return f"{self._done:,} images"
        if self.longer:
            return f"{self._done:,} images, {self._total:,} expected"
        return f"{100 * self._done / self._total:.0f} %"


class Counting:
    """Shows how far something is; a context manager.

    Args:
        console: On stderr.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._images: TaskID | None = None
        self._spoke = monotonic()

    def __enter__(self) -> Counting:
        """Start showing."""
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars away."""
        if self.console.is_terminal:
            self._bars.stop()

    def say(self, message: str) -> None:
        """Print a line."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def download(self, what: str) -> Callable[[int, int | None], None]:
        """Return what is to be called with the bytes that are there and their number in all."""
        task = self._bars.add_task(what, total=None, text="", visible=False)

        def advance(done: int, total: int | None) -> None:
            text = size_text(done) + (f" of {size_text(total)}" if total else "")
            self._bars.update(task, completed=done, total=total, text=text, visible=done != total)
            self._line(f"{what}: {text}")

        return advance

    def start_images(self, images: int) -> None:
        """Show a bar for a number of images that will be read."""
        self._images = self._bars.add_task("reading images", total=images, text=f"{images:,}")

    def advance_images(self, images: int) -> None:
        """Count images that were read."""
        if self._images is not None:
            self._bars.advance(self._images, images)
            task = self._bars.tasks[-1]
            self._line(f"reading images: {task.completed:,.0f} of {task.total or 0:,.0f}")

    def _line(self, text: str) -> None:
        if not self.console.is_terminal and monotonic() - self._spoke > LINE_SECONDS:
            self._spoke = monotonic()
            self.say(text)
