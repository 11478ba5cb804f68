"""Bars for downloads and for images that are read; on anything but a terminal a line now and then."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from unlearnbench.disk_space import size_text
from unlearnbench.progress import LINE_SECONDS


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
