"""A warden: the parent of a process that runs foreign code, which ends it and everything that it has started.

The warden holds one end of a leash. When the process that asked for it closes the other end, or dies, the warden kills
what it guards. When what it guards has ended, it writes how to the leash.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

LOOK_SECONDS = 0.1
# A log keeps this many bytes of its beginning and of its end.
LOG_BYTES = 8 * 2**20
LOG_END_BYTES = 2**16
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36


def guard(run: Callable[[], None], leash: int, log: Path | None, memory: int | None) -> NoReturn:
    """Run a function in a new process, watch over it until it has ended, and end this process.

    Args:
        run: Function to run, in a process whose output goes to the log and whose input is empty.
        leash: Descriptor of the leash, a stream socket.
        log: File for what the process prints, created if it prints anything; None drops it.
        memory: Bytes that the process and everything that it starts may hold; None sets no limit.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Nothing that is typed on the terminal reaches these processes: the one that runs the show ends them.
    os.setsid()
    _prctl(_SET_CHILD_SUBREAPER, 1)
    output, printed = os.pipe()
    warden = os.getpid()
    process = os.fork()
    if process == 0:
        os.close(leash)
        os.close(output)
        _become(run, printed, warden)
    os.close(printed)
    # Descriptors of the process itself, such as its connection, must not be kept open here.
    for number in _open_descriptors():
        if number > 2 and number not in (leash, output):
            with contextlib.suppress(OSError):
                os.close(number)
    with _Log(log) as kept:
        ended = _watch(process, leash, output, kept, memory)
    _end_children()
    with contextlib.suppress(OSError):
        os.write(leash, json.dumps(ended).encode())
    os._exit(0)


def _become(run: Callable[[], None], printed: int, warden: int) -> NoReturn:
    """Turn this process into the guarded one."""
    code = 1
    try:
        os.setsid()
        _prctl(_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != warden:
            os._exit(1)
        # Where memory runs out, this process is to be killed and no other.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("900", encoding="utf-8")
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (printed, 1), (printed, 2)):
            os.dup2(source, target)
        os.close(nothing)
        os.close(printed)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open for the life of the process
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = open(number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        # No handler that foreign code has registered runs at the end.
        os._exit(code)


def _watch(process: int, leash: int, output: int, log: _Log, memory: int | None) -> dict[str, object]:
    """Wait for the end of a process, which comes early if the leash is cut or the memory is exceeded."""
    ended: dict[str, object] | None = None
    sources = [leash, output]
    while ended is None:
        with _child_events(process) as event:
            readable, _, _ = select.select([*sources, *event], [], [], LOOK_SECONDS)
        if output in readable and not log.take(output):
            sources.remove(output)
        if leash in readable:
            # Nothing is ever sent this way, so that it must have been closed.
            _kill(process)
            _end_children()
            os._exit(0)
        if memory is not None and (held := _memory_of_tree(os.getpid(), memory)) > memory:
            _kill(process)
            os.waitpid(process, 0)
            ended = {"memory": held}
            break
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            ended = {"code": os.waitstatus_to_exitcode(status)}
    # What was printed last may still be in the pipe, which grandchildren may hold open.
    while output in sources and select.select([output], [], [], 0)[0] and log.take(output):
        pass
    return ended


@contextlib.contextmanager
def _child_events(process: int) -> Iterator[list[int]]:
    """Give a descriptor that can be read once a process has ended, where the system has such."""
    try:
        event = os.pidfd_open(process)
    except (AttributeError, OSError):
        yield []
        return
    try:
        yield [event]
    finally:
        os.close(event)


class _Log:
    """The beginning and the end of what a process prints."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written = 0
        self._end: deque[bytes] = deque()
        self._dropped = 0

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._end and self._path is not None:
            end = b"".join(self._end)[-LOG_END_BYTES:]
            dropped = self._dropped - len(end)
            self._append(f"\n[{dropped:,} bytes are left out here]\n".encode() + end)

    def take(self, descriptor: int) -> bool:
        """Take what can be read, and return whether more may come."""
        content = os.read(descriptor, 2**16)
        if self._path is None or not content:
            return bool(content)
        if self._written < LOG_BYTES:
            self._append(content)
        else:
            self._dropped += len(content)
            self._end.append(content)
            while len(self._end) > 2 and sum(map(len, self._end)) - len(self._end[0]) > LOG_END_BYTES:
                self._end.popleft()
        return True

    def _append(self, content: bytes) -> None:
        assert self._path is not None
        # A full disk must not end the process that prints.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as stream:
                stream.write(content)
        self._written += len(content)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _open_descriptors() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return [int(name) for name in os.listdir(folder)]  # noqa: PTH208 - names, not paths
    return list(range(3, 256))


def _children(process: int) -> list[int]:
    """Return the children of a process, where the system lists them."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text(encoding="utf-8").split())
    return found


def _tree(process: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [process]
    for member in found:
        found += [child for child in _children(member) if child not in found]
    return found


def _memory_of_tree(warden: int, limit: int) -> int:
    """Return the bytes that a warden's descendants hold, orphans among them, without what is read from files.

    Copies of a process share what neither has changed. Only where the plain sum, which counts that once for each, is
    above the limit are the pages looked at one by one, which takes milliseconds.
    """
    members = _tree(warden)[1:]
    plain = sum(_counted(member, "status", ("RssAnon", "RssShmem", "VmSwap")) for member in members)
    if plain <= limit:
        return plain
    shared_out = sum(_counted(member, "smaps_rollup", ("Pss_Anon", "Pss_Shmem", "SwapPss")) for member in members)
    # Where the system has not this file, the plain sum has to do.
    return shared_out or plain


def _counted(process: int, file: str, names: tuple[str, ...]) -> int:
    """Return the sum, in bytes, of entries of one of a process's files; 0 if it has ended or there is no such file."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/{file}").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name in names:
                total += 1024 * int(value.split()[0])
    return total


def _kill(process: int) -> None:
    """Kill a process and its descendants."""
    for member in _tree(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def _end_children() -> None:
    """Kill all children that are left, orphans of the guarded process among them, and wait for their end."""
    while True:
        for child in _children(os.getpid()):
            _kill(child)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return
