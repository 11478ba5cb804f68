"""What a run displays: one live display on a terminal, and plain lines elsewhere."""

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
# Before this share of the images is read, the seconds of the start would make an estimate of days. After this many
# seconds they no longer count for much, even if a run of days has read next to nothing by then.
TOO_EARLY, EARLY_SECONDS = 0.01, 120.0


class TimeLeft(ProgressColumn):
    """The time left, estimated from what has been done since the start."""

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
    """Receives news about the progress of the work."""

    def say(self, message: str) -> None:
        """Show a line to the user."""

    def stage(self, what: str, passes: int | None) -> AbstractContextManager[None]:
        """Return a context that lasts as long as a stage.

        Args:
            what: Name of the stage, such as "training original model, seed 0".
            passes: Number of images that it will read; None if unknown.
        """

    def advance(self, images: int) -> None:
        """Count image passes in the current stage."""

    def expect(self, images: int, before: int = 0) -> None:
        """Take note that the current stage will read so many images from here on, and that so many were read before.

        Those were read by an earlier attempt that was interrupted: they are a part of the stage, and took no time.
        """


class _Bars(Progress):
    """Bars that keep their order: each stage of a worker takes the place of its previous one."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Return the bars, the whole run first."""
        return super().make_tasks_table(sorted(tasks, key=lambda task: int(task.fields["lane"])))


class Display:
    """The display of a run, as a context manager.

    Args:
        console: Console on stderr.
        cells: Number of cells.
        passes: Number of image passes in the whole run, as far as it is known.
        lanes: Number of cells that are worked on at the same time.

    Attributes:
        bars: Bars on a terminal.
        lanes: Lanes of the display, one for each cell that is worked on.
    """

    def __init__(self, console: Console, cells: int, passes: int, lanes: int = 1) -> None:
        self.console = console
        self.live = console.is_terminal
        self._cells, self._passes = cells, max(1, passes)
        self._done_cells = 0
        self._done_passes = 0.0
        self._started = self._spoke = monotonic()
        self.bars = _Bars(
            TextColumn("{task.description}", markup=False),
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
        """Start the display."""
        if self.live:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bars."""
        if self.live:
            self.bars.stop()

    def say(self, message: str) -> None:
        """Print a line."""
        self._spoke = monotonic()
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def count(self, images: int) -> None:
        """Count images towards the whole run, and report progress if nothing was printed for a while."""
        self._done_passes += images
        if self.live:
            self.bars.update(self._whole, completed=self._done_passes, total=self._passes)
        elif monotonic() - self._spoke > LINE_SECONDS:
            self.say(f"{'; '.join(lane.share for lane in self.lanes if lane.share)}, {self._left()}")

    def expect(self, images: int) -> None:
        """Add to what the whole run reads; less is expected if it is negative."""
        self._passes = max(1, self._passes + images)

    def _left(self) -> str:
        # A cluster may have done some of it before this run looked.
        share = min(1.0, self._done_passes / self._passes)
        seconds = monotonic() - self._started
        if share == 0 or (share < TOO_EARLY and seconds < EARLY_SECONDS):
            return "too early to say how long in all"
        # While a stage reads more than expected, the whole run makes no progress and the estimate grows.
        bound = "at least" if any(lane.longer for lane in self.lanes) else "about"
        return f"{bound} {duration(seconds * (1 / share - 1))} left in all"

    def cell_done(self, line: str | None) -> None:
        """Count a cell and print how it ended, unless `line` is None."""
        self._done_cells += 1
        self.bars.update(self._whole, count=f"{self._done_cells}/{self._cells}")
        if line is not None:
            self.say(f"[{self._done_cells}/{self._cells}] {line}")


class Lane:
    """The part of a display that shows the cell of one worker.

    Args:
        display: Display that the lane belongs to.
        number: Position of the lane, counted from 0.
    """

    def __init__(self, display: Display, number: int) -> None:
        self._display = display
        self._number = number
        self._bar: TaskID | None = None
        self._what = ""
        self._total: int | None = None
        self._done = 0
        self._before = 0
        self._counted = 0

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
        """Show that a stage begins; `passes` is the number of images it will read, or None if unknown."""
        self._bar = self._display.bars.add_task(what, total=passes, count="", lane=self._number)
        self._what, self._total, self._done, self._before, self._counted = what, passes, 0, 0, 0

    def advance(self, images: int) -> None:
        """Count image passes in the current stage."""
        if self._bar is None:
            return
        self._done += images
        if self._display.live:
            done = self._before + self._done
            self._display.bars.update(self._bar, completed=done, count=self._count if self._total else "")
        self._count_towards_the_run(self._done)

    def expect(self, images: int, before: int = 0) -> None:
        """Show that the stage will read so many images from here on, which the whole run then reads too."""
        if self._bar is None:
            return
        self._before += before
        total = self._done + images
        self._display.expect(total - (self._total or 0))
        self._total = total
        if self._display.live:
            self._display.bars.update(self._bar, total=self._before + total, completed=self._before + self._done)
        self._count_towards_the_run(self._done)

    def _count_towards_the_run(self, images: int) -> None:
        """Count so many images of the stage; reading more than expected does not move the bar of the whole run."""
        reached = max(self._counted, min(images, self._total or 0))
        self._display.count(reached - self._counted)
        self._counted = reached

    def end(self) -> None:
        """Show that the stage has ended; without a stage, do nothing."""
        if self._bar is None:
            return
        if self._total is not None:
            self._count_towards_the_run(self._total)
        self._display.bars.remove_task(self._bar)
        self._bar = None

    @property
    def longer(self) -> bool:
        """Whether the stage has read more images than expected, as a method may that does not say what it reads."""
        return self._bar is not None and self._total is not None and self._done > self._total > 0

    @property
    def share(self) -> str:
        """The stage and the part of it that is done, or "" between two stages."""
        return "" if self._bar is None else f"{self._what}: {self._count}"

    @property
    def _count(self) -> str:
        if not self._total:
            return f"{self._done:,} images"
        if self.longer:
            return f"{self._done:,} images, {self._total:,} expected"
        return f"{100 * (self._before + self._done) / (self._before + self._total):.0f} %"


class Counting:
    """Shows the progress of downloads and of reading images, as a context manager.

    Args:
        console: Console on stderr.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._images: TaskID | None = None
        self._spoke = monotonic()

    def __enter__(self) -> Counting:
        """Start the display."""
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bars."""
        if self.console.is_terminal:
            self._bars.stop()

    def say(self, message: str) -> None:
        """Print a line."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def download(self, what: str) -> Callable[[int, int | None], None]:
        """Return a callback that receives the bytes downloaded so far and their total."""
        task = self._bars.add_task(what, total=None, text="", visible=False)

        def advance(done: int, total: int | None) -> None:
            text = size_text(done) + (f" of {size_text(total)}" if total else "")
            self._bars.update(task, completed=done, total=total, text=text, visible=done != total)
            self._line(f"{what}: {text}")

        return advance

    def start_images(self, images: int) -> None:
        """Show a bar for the number of images that will be read."""
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
