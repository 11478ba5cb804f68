"""Ctrl-C while a library is imported."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interrupts_end_at_once() -> Iterator[None]:
    """End the process at once on Ctrl-C, with exit code 130 and one line.

    This is for imports: a library that is interrupted while it is imported may lose the interrupt, or say something
    else instead, and nothing is lost by ending there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(*_: object) -> None:
    # A progress display may have hidden the cursor.
    shown = "\x1b[?25h" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{shown}interrupted\n".encode())
    os._exit(130)
