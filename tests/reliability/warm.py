"""Commands that begin at once: copies of a process that has imported all that they use.

A command of its own spends nearly all of its time on imports. A copy runs the same code, with a session, signals and
streams of its own; the server that it starts processes from is a copy too, made before the command has threads.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NoReturn
from unittest import mock

from support.paths import REPOSITORY

MARK = "UNLEARNBENCH_TRIAL"
NO_MARK = "0" * 32
PRELOADED = [
    "unlearnbench.frontends.command",
    "unlearnbench.frontends.cli",
    "unlearnbench.engine.executor",
    "unlearnbench.engine.processes.unlearning",
    "unlearnbench.models.builtin.digits_net",
    "unlearnbench.datasets.builtin.array_sets",
    "unlearnbench.unlearners.builtin.baselines",
    "unlearnbench.unlearners.builtin.erwp",
    "sklearn.datasets",
    "torch._dynamo",
    "reliability.warm",
]


class WarmProcess:
    """A command that is a copy of the warm process, with what `subprocess.Popen` offers of a process.

    Args:
        arguments: Arguments of `unlearnbench`.
        folder: Folder for what it prints.
        environment: Variables that differ from this process's own.
        mark: Mark of 32 letters by which its processes are found.
        statements: Python statements that it runs first, and that make this machine a worse one.
    """

    def __init__(
        self, arguments: list[str], folder: Path, environment: Mapping[str, str], mark: str, statements: str = ""
    ) -> None:
        self._streams = folder / f"{mark}.out", folder / f"{mark}.err"
        # It may be killed before it has opened them.
        for path in self._streams:
            path.touch()
        _begin_warming()
        self._process: ForkServerProcess = multiprocessing.get_context("forkserver").Process(
            target=_command, args=(arguments, dict(environment), mark, statements, self._streams)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return its exit code, as `returncode` says it."""
        return self.returncode

    def send_signal(self, kind: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, kind)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what it printed on both streams.

        Raises:
            subprocess.TimeoutExpired: If it has not ended in time.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("unlearnbench", timeout or 0)
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self._streams)
        return out, err


def _begin_warming() -> None:
    """Start the warm process, unless it runs."""
    from multiprocessing.forkserver import ensure_running

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    paths = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
    variables = {MARK: NO_MARK, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with mock.patch.dict(os.environ, variables):
        ensure_running()


def _command(
    arguments: list[str], environment: dict[str, str], mark: str, statements: str, streams: tuple[Path, Path]
) -> NoReturn:
    """Do in this copy what a new process would do."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _take_mark(mark)
    os.environ.update(environment)
    for number, path in enumerate(streams, 1):
        with path.open("wb") as stream:
            os.dup2(stream.fileno(), number)
    sys.argv = ["unlearnbench", *arguments]
    if statements:
        exec(statements, {})

    from unlearnbench.engine.processes import fork_server
    from unlearnbench.frontends.command import main

    # It has what is used of a process, and is none.
    fork_server.launched = WarmServer().launched  # type: ignore[assignment]
    try:
        main()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
    sys.exit(0)


def _take_mark(mark: str) -> None:
    """Write the mark where the system reads the variables that the warm process began with."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    place = getenv(MARK.encode())
    assert len(mark) == len(NO_MARK) == len(ctypes.string_at(place))
    ctypes.memmove(place, mark.encode(), len(mark))


class WarmServer:
    """The server of a command's processes, a copy that is made at once and waits until the command asks for one."""

    def __init__(self) -> None:
        self._asks, asked = socket.socketpair()
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._asks.close()
            _serve(asked)
        asked.close()

    def launched(self, descriptor: int, threads: int) -> WarmServer:
        """Take the place of the function that starts a server."""
        assert threads == 1
        if self.poll() is None:
            told = {"variables": dict(os.environ), "path": sys.path, "folder": str(Path.cwd())}
            socket.send_fds(self._asks, [json.dumps(told).encode()], [descriptor])
        return self

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        return self._look(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end, which the harness sees to."""
        return self._look(0)

    def kill(self) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)

    def _look(self, option: int) -> int | None:
        if self._code is None:
            with contextlib.suppress(ChildProcessError):
                found, status = os.waitpid(self.pid, option)
                self._code = os.waitstatus_to_exitcode(status) if found else None
        return self._code


def _serve(asked: socket.socket) -> NoReturn:
    """Wait until the command wants a server, and be that."""
    from unlearnbench.engine.processes.credentials import harmless
    from unlearnbench.engine.processes.fork_server import serve

    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    text, descriptors, _, _ = socket.recv_fds(asked, 2**20, 1)
    if not text:
        os._exit(0)
    told = json.loads(text)
    os.environ.clear()
    os.environ.update(harmless(told["variables"]))
    sys.path[:] = told["path"]
    os.chdir(told["folder"])
    serve(descriptors[0])
    os._exit(0)
