"""The `unlearnbench` command: one line and an exit code, whatever happens to its streams or while it starts."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
import unicodedata

from unlearnbench.errors import os_reason
from unlearnbench.interrupts import interrupts_end_at_once

# Characters of the tables that Unicode knows no likeness of in ASCII.
LIKENESS = {"±": "+-"}


class _Closed(io.TextIOBase):
    """The standard output of a process that was started without one."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Refuse the text, as a file that was closed does."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def nearest_characters(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks by what looks most like it; this is a handler of encoding errors."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = []
    for character in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", LIKENESS.get(character, character)).encode("ascii", "ignore")
        found.append(plain.decode() or "?")
    return "".join(found), error.end


def _prepare_streams() -> None:
    """Make both streams writable in any encoding, and see that no file of ours is opened in the place of one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or _Closed()
    sys.stderr = sys.stderr or io.StringIO()
    codecs.register_error("nearest", nearest_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="nearest")


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _run() -> int:
    """Run the command line and return its exit code."""
    with interrupts_end_at_once():
        from unlearnbench.frontends.cli import main as run
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def main() -> None:
    """Run the command line as a process of its own.

    An output that is closed or full ends in one line and exit code 1, Ctrl-C in exit code 130.
    """
    _prepare_streams()
    try:
        code = _run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
        _say("interrupted")
    except OSError as error:
        code = 1
        place = f"{error.filename}" if error.filename else "the output"
        # Nobody is left to read a line where the reader of a pipe has gone.
        if error.errno != errno.EPIPE:
            _say(f"{place}: cannot be written: {os_reason(error)}")
    try:
        sys.stdout.flush()
    except OSError:
        # Python flushes once more at its end, where another failure would be a traceback.
        sys.stdout = io.StringIO()
    sys.exit(code)
