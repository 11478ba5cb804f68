"""What a guarded process may hold: its memory is limited, and what copies of it share is counted once."""

from __future__ import annotations

import os
import sys
import time
from multiprocessing.connection import Connection

import pytest

from unlearnbench.engine.processes.fork_server import Ended, Process, Setting, fork_server

MIB = 2**20
LIMIT = 900 * MIB


def copy_itself(connection: Connection, copies: int, own: int) -> None:
    """Hold 200 MiB, start copies of this process that fill so many bytes each, and tell when all of them are there."""
    held = bytearray(os.urandom(MIB)) * 200
    for _ in range(copies):
        if os.fork() == 0:
            more = bytearray(os.urandom(1) * own)
            time.sleep(60)
            os._exit(len(held) + len(more) == 0)
    time.sleep(1)
    connection.send("all there")


def ended(process: Process) -> tuple[bytes | None, Ended | None]:
    """Wait for a message or the end of a process, and return both."""
    process.wait(60)
    message = process.message()
    end = time.monotonic() + 60
    while process.ended is None and time.monotonic() < end:
        time.sleep(0.05)
    return message, process.ended


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
@pytest.mark.parametrize(("own", "survives"), [(MIB, True), (200 * MIB, False)])
def test_what_copies_share_is_counted_once(own: int, survives: bool) -> None:
    with fork_server(1).start(copy_itself, 6, own, setting=Setting(memory=LIMIT)) as process:
        message, end = ended(process)
    assert end is not None
    if survives:
        assert message is not None
        assert end == Ended(0)
    else:
        assert end.memory is not None
        assert LIMIT < end.memory < 3 * LIMIT


def orphan_itself(connection: Connection, own: int) -> None:
    """Leave a process whose parent has ended, and which fills so many bytes."""
    if os.fork() == 0:
        if os.fork() == 0:
            more = bytearray(os.urandom(1) * own)
            time.sleep(60)
            os._exit(len(more) == 0)
        os._exit(0)
    os.wait()
    time.sleep(3)
    connection.send("all there")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_what_an_orphan_holds_counts_too() -> None:
    with fork_server(1).start(orphan_itself, 400 * MIB, setting=Setting(memory=350 * MIB)) as process:
        _, end = ended(process)
    assert end is not None
    assert end.memory is not None
