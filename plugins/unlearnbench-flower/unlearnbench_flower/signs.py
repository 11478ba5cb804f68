"""Signs of life: a party's process shows by a file that it lives, as long as it trains, and that it has trained."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

BEAT_SECONDS = 5.0


def sign_file(folder: Path, index: int, party: int) -> Path:
    """Return the file of a party that trains in a round."""
    return folder / f"round-{index}-party-{party}.trains"


@contextlib.contextmanager
def giving_signs(file: Path) -> Iterator[None]:
    """Touch a party's file now and every few seconds while it trains, and rename it when it has trained."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            # The benchmark may have ended meanwhile, and its folder with it.
            with contextlib.suppress(OSError):
                file.touch()

    file.touch()
    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()
    file.touch()
    file.rename(_trained(file))


def _trained(file: Path) -> Path:
    return file.with_suffix(".trained")


@dataclass
class Silence:
    """How long nothing has been heard of what somebody waits for.

    Attributes:
        files: For each party that is waited for, its file.
        clock: Clock, in seconds.
    """

    files: dict[int, Path]
    clock: Callable[[], float] = monotonic
    _seen: list[int | None] = field(default_factory=list)
    _heard: float | None = None

    def seconds(self) -> float:
        """Return for how many seconds there has been no sign, not even that a party has begun or has trained."""
        # Times of files are compared with one another and not with the clock, which somebody may set.
        seen = [_time(file) or _time(_trained(file)) for file in self.files.values()]
        now = self.clock()
        if self._heard is None or seen != self._seen:
            self._seen, self._heard = seen, now
        return now - self._heard

    def awaited(self) -> str:
        """Return in words who has not answered."""
        missing = [str(party) for party, file in self.files.items() if not _trained(file).exists()]
        if not missing:
            return "the server's app"
        return f"{'party' if len(missing) == 1 else 'parties'} {', '.join(missing)}"


def _time(file: Path) -> int | None:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime_ns
    return None
