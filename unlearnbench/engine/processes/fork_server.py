"""Processes that hold nothing of the one that starts them.

The server is a process of its own that has torch and the libraries of networks loaded and nothing else. Each process
that it starts is a copy of it: it begins within a few hundredths of a second, and what its caller holds in memory, such
as test images, is not there.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any, Self

from unlearnbench.engine.processes.credentials import harmless
from unlearnbench.engine.processes.fence import Fence, close_in
from unlearnbench.engine.processes.warden import guard
from unlearnbench.errors import UnlearnBenchError

# What most of these processes need; each would import it anew. The first optimizer of a process imports torch._dynamo,
# which takes seconds, and the first metric scipy.special.
PRELOADED = ("torch", "torch._dynamo", "scipy.special", "unlearnbench.engine.worker")
# What the server loads once its caller has: networks come from these libraries, whose import takes up to three seconds.
LIBRARIES = ("timm", "torchvision", "transformers")
# A process has this long to end after its leash was cut.
END_SECONDS = 10.0
# What is read or written at a time, and the largest message that is taken: a method's own word on its size is nothing.
PART_BYTES, MOST_BYTES = 2**20, 2**32
_HEADER = struct.Struct("<Q")
_STARTING = Lock()


@dataclass(frozen=True)
class Setting:
    """The surroundings of a process.

    Attributes:
        log: File for what it prints; None drops that.
        memory: Bytes that it and everything that it starts may hold; None sets no limit.
        serves: Whether it may start processes of its own.
        fence: What is closed to it; None closes nothing.
        variables: Environment variables that it has beside those of the process that starts it.
        trusted: Whether it has the credentials among these too.
    """

    log: Path | None = None
    memory: int | None = None
    serves: bool = False
    fence: Fence | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    trusted: bool = True


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Exit code, negative for the signal that killed it; None if its end was not reported.
        memory: Bytes that it held when it was ended because of its limit; None if it was not.
    """

    code: int | None
    memory: int | None = None

    def __str__(self) -> str:
        """Say how the process ended, as the reason of a failed cell."""
        if self.memory is not None:
            return f"its process was ended when it held {self.memory / 2**30:.2f} GiB, more than cell_memory allows"
        if self.code is None:
            return "its process was killed with the one that watches it"
        if self.code >= 0:
            return f"its process ended with exit code {self.code}"
        name = signal.Signals(-self.code).name if -self.code in set(signal.Signals) else f"signal {-self.code}"
        hint = "; the system does that when memory runs out" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"


class Process:
    """A process that the server has started, as its caller sees it; a context manager that ends it.

    Attributes:
        connection: Connection to the function that runs in it.
    """

    def __init__(self, talk: Connection, leash: Connection) -> None:
        self.connection = talk
        self._leash = leash
        self._ended: Ended | None = None
        self._received = bytearray()

    def __enter__(self) -> Self:
        """Return the process."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process at once, with everything that it has started."""
        self.end()

    @property
    def sources(self) -> tuple[Connection, Connection]:
        """Connections that can be read when the process has sent something or has ended."""
        return self.connection, self._leash

    def wait(self, seconds: float | None) -> bool:
        """Wait until there is a message or the process has ended, and return whether that is so."""
        return self._ended is not None or bool(connection.wait(self.sources, seconds))

    def message(self) -> bytes | None:
        """Return the next message that has arrived, or None if there is none.

        A message may come from foreign code, so that it is handed on as bytes, and what has arrived of one is never
        waited for. One that claims to be longer than any can be is empty.
        """
        with contextlib.suppress(EOFError, OSError):
            while (whole := self._whole()) is None and self.connection.poll():
                part = os.read(self.connection.fileno(), PART_BYTES)
                if not part:
                    return None
                self._received += part
            return whole
        return None

    def _whole(self) -> bytes | None:
        """Take the first message from what was received, in the form that `Connection.send_bytes` gives it."""
        start, size = 4, -1
        if len(self._received) >= start:
            (size,) = struct.unpack("!i", self._received[:start])
            if size == -1 and len(self._received) >= (start := 12):
                (size,) = struct.unpack("!Q", self._received[4:start])
        if size > MOST_BYTES or size < -1:
            return b""
        if size == -1 or len(self._received) < start + size:
            return None
        content = bytes(self._received[start : start + size])
        del self._received[: start + size]
        return content

    def write(self, content: memoryview, seconds: float) -> int:
        """Write as much as the process takes within some seconds, and return how many bytes that are.

        Raises:
            OSError: If it takes no more.
        """
        _, ready, _ = select.select([], [self.connection.fileno()], [], seconds)
        if not ready:
            return 0
        with socket.socket(fileno=os.dup(self.connection.fileno())) as talk:
            return talk.send(content[:PART_BYTES], socket.MSG_DONTWAIT)

    @property
    def ended(self) -> Ended | None:
        """How the process ended; None while it runs."""
        if self._ended is None and self._leash.poll():
            try:
                told = os.read(self._leash.fileno(), 4096)
                self._ended = Ended(**{"code": None, **json.loads(told)}) if told else Ended(None)
            except (OSError, ValueError):
                self._ended = Ended(None)
        return self._ended

    def end(self) -> None:
        """End the process, if it still runs, with everything that it has started, and wait until it is gone."""
        with contextlib.suppress(OSError):
            talk = socket.socket(fileno=os.dup(self._leash.fileno()))
            with talk:
                talk.shutdown(socket.SHUT_WR)
                # The warden closes its end last.
                talk.settimeout(END_SECONDS)
                while talk.recv(4096):
                    pass
        with contextlib.suppress(OSError):
            self._leash.close()
        with contextlib.suppress(OSError):
            self.connection.close()


class ForkServer:
    """The server as its callers see it.

    Args:
        threads: Number of threads that the libraries of its processes may use.
        service: Connection to a server that runs already; None starts one.
    """

    inherited: ForkServer | None = None

    def __init__(self, threads: int, service: socket.socket | None = None) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        if service is not None:
            self._service = service
            return
        self._service, theirs = socket.socketpair()
        with theirs:
            self._server = launched(theirs.fileno(), threads)

    @property
    def lives(self) -> bool:
        """Whether the server can start processes."""
        return self._server is None or self._server.poll() is None

    def close(self) -> None:
        """End the server and everything that it has started."""
        self._service.close()
        if self._server is not None:
            try:
                self._server.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()

    def start(self, function: Callable[..., None], *arguments: Any, setting: Setting = Setting()) -> Process:
        """Start a process that calls a function of a module with a connection to this process and the arguments.

        Raises:
            UnlearnBenchError: If the server is gone.
        """
        talk, theirs = socket.socketpair()
        leash, their_leash = socket.socketpair()
        with theirs, their_leash:
            variables = {**(os.environ if setting.trusted else harmless(os.environ)), **setting.variables}
            surroundings = {"folder": str(Path.cwd()), "path": list(sys.path)}
            loaded = [name for name in sys.modules if name.partition(".")[0] in LIBRARIES]
            request = pickle.dumps((setting, surroundings, loaded, pickle.dumps((function, arguments))))
            # The server must not read what may hold credentials: the processes of methods are copies of it.
            hidden = _hidden(json.dumps(variables).encode())
            try:
                descriptors = [theirs.fileno(), their_leash.fileno(), hidden]
                socket.send_fds(self._service, [_HEADER.pack(len(request))], descriptors)
                self._service.sendall(request)
            except OSError as error:
                talk.close()
                leash.close()
                raise UnlearnBenchError(
                    "the process that starts others is gone; the same command goes on from here"
                ) from error
            finally:
                os.close(hidden)
        return Process(Connection(talk.detach()), Connection(leash.detach()))


def _hidden(content: bytes) -> int:
    """Return a descriptor of a file without a name that holds some bytes and is read from its beginning."""
    in_memory = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create("hidden"), "w+b") if in_memory else tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        return os.dup(file.fileno())


_servers: dict[int, ForkServer] = {}


def launched(descriptor: int, threads: int) -> subprocess.Popen[bytes]:
    """Start a server that takes its first caller's requests from a descriptor, as a process of its own."""
    # Libraries read this variable once, when they are imported. Credentials reach only those processes that are given
    # them later, past the server, since each of them can read what that began with and holds.
    surroundings = {**harmless(os.environ), "OMP_NUM_THREADS": str(threads)}
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({descriptor})"],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**surroundings, "PYTHONPATH": path},
        start_new_session=True,
    )


def serve(descriptor: int) -> None:
    """Start processes as they are asked for, until the first caller has closed its connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The system forgets each child as soon as it has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name in PRELOADED:
        importlib.import_module(name)
    first = socket.socket(fileno=descriptor)
    callers = [first]
    while first in callers:
        for caller in select.select(callers, [], [])[0]:
            request = _request(caller)
            if request is None:
                callers.remove(caller)
                caller.close()
                continue
            (setting, surroundings, loaded, call), descriptors = request
            for name in loaded:
                # The process itself will say what it lacks.
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
            own, theirs = socket.socketpair() if setting.serves else (None, None)
            if os.fork() == 0:
                for other in (*callers, *([own] if own else [])):
                    other.close()
                _start(setting, surroundings, call, descriptors, theirs)
            for number in descriptors:
                os.close(number)
            if own is not None and theirs is not None:
                theirs.close()
                callers.append(own)
    os._exit(0)


def _request(caller: socket.socket) -> tuple[Any, list[int]] | None:
    """Return what a caller asks for and the descriptors that came with it, or None if it is gone."""
    try:
        header, descriptors, _, _ = socket.recv_fds(caller, _HEADER.size, 3)
        if not header:
            return None
        content = bytearray()
        (length,) = _HEADER.unpack(header)
        while len(content) < length:
            part = caller.recv(min(2**20, length - len(content)))
            if not part:
                return None
            content += part
    except OSError:
        return None
    return pickle.loads(content), descriptors


def _start(
    setting: Setting, surroundings: dict[str, Any], call: bytes, descriptors: list[int], service: socket.socket | None
) -> None:
    talk, leash, hidden = descriptors

    def run() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        ForkServer.inherited = ForkServer(1, service) if service is not None else None
        sys.path[:] = surroundings["path"]
        with os.fdopen(hidden, "rb") as file:
            variables = json.load(file)
        os.environ.clear()
        os.environ.update(variables)
        with contextlib.suppress(OSError):
            os.chdir(surroundings["folder"])
        if setting.fence is not None:
            close_in(setting.fence)
        function, arguments = pickle.loads(call)
        function(Connection(talk), *arguments)

    guard(run, leash, setting.log, setting.memory)


def fork_server(threads: int) -> ForkServer:
    """Return the server that this process has, which is started now if it has none, and ends with this process.

    Args:
        threads: Number of threads that the libraries of its processes may use.
    """
    if ForkServer.inherited is not None:
        return ForkServer.inherited
    with _STARTING:
        server = _servers.get(threads)
        if server is None or not server.lives:
            server = _servers[threads] = ForkServer(threads)
            atexit.register(server.close)
    return server
