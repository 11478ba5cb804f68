"""Messages of a process that runs foreign code: whole ones arrive, and nothing is waited for."""

from __future__ import annotations

import os
import struct
import time
from multiprocessing.connection import Connection

import pytest

from unlearnbench.engine.processes.fork_server import Process, fork_server

LARGE = 5 * 2**20


def _say_and_sleep(connection: Connection, content: bytes) -> None:
    """Write bytes as they are, which need not be a message, and stay."""
    os.write(connection.fileno(), content)
    time.sleep(60)


def _echo(connection: Connection) -> None:
    """Send back what is received."""
    connection.send_bytes(b"ready")
    connection.send_bytes(connection.recv_bytes())
    connection.send_bytes(b"")


def first(process: Process, seconds: float = 60.0) -> bytes | None:
    """Wait for a message, at most for some seconds."""
    end = time.monotonic() + seconds
    while (found := process.message()) is None and time.monotonic() < end:
        process.wait(0.05)
    return found


@pytest.mark.parametrize(
    "begun", [b"\0", struct.pack("!i", 100), struct.pack("!i", 100) + b"half", struct.pack("!i", -1)]
)
def test_half_a_message_is_not_waited_for(begun: bytes) -> None:
    with fork_server(1).start(_say_and_sleep, begun) as process:
        assert process.wait(60)
        started = time.monotonic()
        assert process.message() is None
        assert time.monotonic() - started < 5
        assert first(process, 0.2) is None


@pytest.mark.parametrize("size", [struct.pack("!i", -5), struct.pack("!iQ", -1, 2**60)])
def test_a_message_that_can_be_none_is_empty(size: bytes) -> None:
    with fork_server(1).start(_say_and_sleep, size) as process:
        assert first(process) == b""


def test_large_messages_go_both_ways() -> None:
    content = os.urandom(LARGE)
    with fork_server(1).start(_echo) as process:
        assert first(process) == b"ready"
        left = memoryview(struct.pack("!iQ", -1, LARGE) + content)
        while left:
            left = left[process.write(left, 1.0) :]
        assert first(process) == content
        assert first(process) == b""


def test_a_process_that_does_not_listen_is_not_waited_for() -> None:
    with fork_server(1).start(_say_and_sleep, struct.pack("!i", 0)) as process:
        assert first(process) == b""
        left, written = memoryview(bytes(LARGE)), 1
        while written:
            written = process.write(left, 0.2)
            left = left[written:]
        assert 0 < len(left) < LARGE
