"""Flower's processes on this machine: a SuperLink, SuperNodes, and what these start for each message."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from unlearnbench.engine.processes.fork_server import ForkServer, Process, Setting
from unlearnbench.errors import TrainingFailedError

from unlearnbench_flower.messages import ADDRESS, GO_ON, KEY, Round
from unlearnbench_flower.signs import Silence, sign_file

# Starting takes some seconds on a machine that is free, and more on one that is not.
START_SECONDS = 300.0
# A round takes as long as it takes, but whoever trains gives a sign every few seconds.
SILENT_SECONDS = 600.0
LOOK_SECONDS = 0.2
SAID_LINES = 2


@dataclass
class FlowerNetwork:
    """The processes, each with a warden that ends what it has started, and the connection to the server's app.

    Attributes:
        folder: Folder for Flower's own files and logs.
        server: Server that starts the processes.
        opened: What is closed when the network ends.
        processes: The processes by name.
        connection: Connection to the server's app, which the SuperLink starts.
    """

    folder: Path
    server: ForkServer
    opened: ExitStack
    processes: dict[str, Process] = field(default_factory=dict)
    connection: Connection | None = None

    def start(self, name: str, *command: str, directory: Path | None = None) -> None:
        """Start one of Flower's commands."""
        scripts = sysconfig.get_path("scripts")
        variables = {
            "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path),
            "FLWR_HOME": str(self.folder),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        }
        setting = Setting(log=self._log(name), variables=variables, trusted=False)
        process = self.server.start(become, command, str(directory or self.folder), setting=setting)
        self.processes[name] = self.opened.enter_context(process)

    def check(self) -> None:
        """Check that every process lives.

        Raises:
            TrainingFailedError: If one has ended.
        """
        for name, process in self.processes.items():
            if process.ended is not None:
                raise TrainingFailedError(f"flower: {name}: {process.ended}{self.said(name)}")

    def said(self, name: str) -> str:
        """Return the last lines that a process has written, in one."""
        log = self._log(name)
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return "; it said last: " + " / ".join(lines[-SAID_LINES:]) if lines else ""

    def _log(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.log"

    def ask(self, question: Any) -> Any:
        """Send something to the server's app and return its answer.

        Raises:
            TrainingFailedError: If one of the processes ends before there is one, or none gives a sign for long.
        """
        assert self.connection is not None
        drawn = question.drawn if isinstance(question, Round) else ()
        silence = Silence({party: sign_file(self.folder, question.index, party) for party in drawn})
        try:
            self.connection.send(question)
            while not self.connection.poll(LOOK_SECONDS):
                self.check()
                if silence.seconds() > SILENT_SECONDS:
                    raise TrainingFailedError(
                        f"flower: nothing heard of {silence.awaited()} for {SILENT_SECONDS:.0f} s; {GO_ON}"
                    )
            return self.connection.recv()
        except (EOFError, OSError):
            self.check()
            raise TrainingFailedError(f"flower: the server's app ended{self.said('SuperLink')}") from None


def become(connection: Connection, command: tuple[str, ...], directory: str) -> None:
    """Become another program, in a process that a warden watches over."""
    connection.close()
    os.chdir(directory)
    os.execvp(command[0], command)


@contextmanager
def flower_network(server: ForkServer, nodes: int) -> Iterator[FlowerNetwork]:
    """Start a SuperLink, SuperNodes and the server's app; end them with the context.

    Args:
        server: Server that starts processes.
        nodes: Number of SuperNodes.

    Raises:
        TrainingFailedError: If one of them does not start.
    """
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="flower-", ignore_cleanup_errors=True)))
        key = secrets.token_bytes(32)
        listener = opened.enter_context(closing(Listener(str(folder / "socket"), "AF_UNIX", authkey=key)))
        (folder / ADDRESS).write_text(str(listener.address), encoding="utf-8")
        (folder / KEY).touch(mode=0o600)
        (folder / KEY).write_bytes(key)
        network = FlowerNetwork(folder, server, opened)
        link, *ports = free_ports(1 + nodes)
        _start_link(network, link)
        for number, port in enumerate(ports):
            where = ("--insecure", "--superlink", f"127.0.0.1:{link}", "--port", str(port))
            network.start(f"SuperNode {number + 1}", "flower-supernode", *where)
        _hand_over_app(network, link)
        network.connection = opened.enter_context(closing(_met(network, listener)))
        yield network


def free_ports(number: int) -> list[int]:
    """Return ports of this machine that nobody listens on at the moment."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _waiting(network: FlowerNetwork, what: str) -> Iterator[None]:
    """Yield again and again until it takes too long, as long as every process lives."""
    deadline = monotonic() + START_SECONDS
    while monotonic() < deadline:
        network.check()
        yield
        sleep(LOOK_SECONDS)
    raise TrainingFailedError(f"flower: no {what} after {START_SECONDS:.0f} s{network.said('SuperLink')}")


def _start_link(network: FlowerNetwork, port: int) -> None:
    where = ("--insecure", "--host", "127.0.0.1", "--port", str(port))
    network.start("SuperLink", "flower-superlink", *where, "--disable-runtime-dependency-installation")
    for _ in _waiting(network, "SuperLink"):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return


def _hand_over_app(network: FlowerNetwork, port: int) -> None:
    """Hand the app to the SuperLink, which starts its server's side."""
    (network.folder / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
        encoding="utf-8",
    )
    app, name = network.folder / "app", "flwr run"
    shutil.copytree(Path(__file__).parent / "app", app)
    network.start(name, "flwr", "run", ".", "here", "--run-config", f'meeting="{network.folder}"', directory=app)
    process = network.processes.pop(name)
    for _ in _waiting(network, "run"):
        if process.ended is not None:
            if process.ended.code != 0:
                raise TrainingFailedError(f"flower: the SuperLink takes no app: {process.ended}{network.said(name)}")
            return


def _met(network: FlowerNetwork, listener: Listener) -> Connection:
    """Return the connection to the server's app, once it is there."""
    # A listener waits for ever and takes no limit, but its socket does.
    waiting: Any = listener._listener._socket  # type: ignore[attr-defined]
    waiting.settimeout(LOOK_SECONDS)
    for _ in _waiting(network, "server's app"):
        try:
            return listener.accept()
        except TimeoutError:
            continue
    raise AssertionError
