"""What a run shows while it runs: one live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

LINE_SECONDS = 15.0


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


class Display:
    """The display of a run; a context manager.

    Args:
        console: On stderr.
        cells: Number of cells.
        passes: Image passes of the whole run, as far as they are known.
    """

    def __init__(self, console: Console, cells: int, passes: int) -> None:
        self.console = console
        self.live = console.is_terminal
        self._cells, self._passes = cells, max(1, passes)
        self._done_cells = 0
        self._done_passes = 0.0
        self._started = self._spoke = monotonic()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TimeLeft(),
            console=console,
            transient=True,
        )
        self._whole = self._bars.add_task("all cells", total=self._passes, count=f"0/{cells}")
        self._stage: TaskID | None = None
        self._stage_total: int | None = None
        self._stage_done = 0

    def __enter__(self) -> Display:
        """Start showing."""
        if self.live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars away."""
        if self.live:
            self._bars.stop()

    def say(self, message: str) -> None:
        """Print a line."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def stage(self, what: str, passes: int | None) -> Iterator[None]:
        """Show a stage while it runs.

        Args:
            what: For example "training original model, seed 0".
            passes: Images it will read, None if not known.
        """
        self._stage = self._bars.add_task(what, total=passes, count="")
        self._stage_total, self._stage_done = passes, 0
        self._what = what
        self._spoke = monotonic()
        try:
            yield
        finally:
            self._bars.remove_task(self._stage)
            self._stage = None
            if passes is not None:
                # What a method read more or less than was thought does not move the whole bar.
                self._done_passes += passes - min(self._stage_done, passes)
                self._bars.update(self._whole, completed=self._done_passes)

    def advance(self, images: int) -> None:
        """Count images read in the current stage."""
        if self._stage is None:
            return
        self._stage_done += images
        if self._stage_total is not None and self._stage_done <= self._stage_total:
            self._done_passes += images
        if self.live:
            share = f"{100 * self._stage_done / self._stage_total:.0f} %" if self._stage_total else ""
            self._bars.update(self._stage, completed=self._stage_done, count=share)
            self._bars.update(self._whole, completed=self._done_passes)
        elif monotonic() - self._spoke > LINE_SECONDS:
            self._spoke = monotonic()
            self.say(f"{self._what}: {self._share()}, {self._left()}")

    def _share(self) -> str:
        if not self._stage_total:
            return f"{self._stage_done:,} images"
        return f"{min(100.0, 100 * self._stage_done / self._stage_total):.0f} %"

    def _left(self) -> str:
        share = self._done_passes / self._passes
        left = (monotonic() - self._started) * (1 / share - 1) if share > 0 else 0.0
        return f"about {duration(left)} left in all"

    def cell_done(self, line: str) -> None:
        """Count a cell and say how it ended."""
        self._done_cells += 1
        self._bars.update(self._whole, count=f"{self._done_cells}/{self._cells}")
        self.say(f"[{self._done_cells}/{self._cells}] {line}")
