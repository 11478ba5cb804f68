"""What a process inside a fence reaches."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from unlearnbench.engine.processes.fence import Fence, landlock
from unlearnbench.engine.processes.fork_server import Setting, fork_server

pytestmark = pytest.mark.skipif(not landlock(), reason="this system has no Landlock")


def _tries(connection: Connection, folder: Path, process: int) -> None:
    """Try what a method might, and send what came of each attempt."""
    attempts = {
        "reads its own": lambda: (folder / "closed/own/in.txt").read_text(),
        "writes its own": lambda: (folder / "closed/own/out.txt").write_text("x"),
        "reads elsewhere": lambda: (folder / "open/in.txt").read_text(),
        "writes elsewhere": lambda: (folder / "open/new.txt").write_text("x"),
        "makes a temporary file": lambda: tempfile.NamedTemporaryFile().close(),
        "starts a program": lambda: subprocess.run(["true"], check=True),
        "reads": lambda: (folder / "closed/in.txt").read_text(),
        "reads by a link": lambda: (folder / "open/link/in.txt").read_text(),
        "writes": lambda: (folder / "closed/in.txt").write_text("x"),
        "makes": lambda: (folder / "closed/new.txt").write_text("x"),
        "removes": lambda: (folder / "closed/in.txt").unlink(),
        "moves": lambda: (folder / "closed").rename(folder / "open/closed"),
        "starts one that reads": lambda: subprocess.run(
            ["cat", folder / "closed/in.txt"], check=True, stderr=subprocess.DEVNULL
        ),
        "kills": lambda: os.kill(process, 9),
    }
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            found[name] = True
        except (OSError, subprocess.CalledProcessError):
            found[name] = False
    connection.send_bytes(json.dumps(found).encode())


def test_only_what_is_its_own_is_open_below_a_closed_folder(tmp_path: Path) -> None:
    for name in ("closed/own/in.txt", "closed/in.txt", "open/in.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    (tmp_path / "open/link").symlink_to(tmp_path / "closed")
    victim = subprocess.Popen(["sleep", "60"])
    fence = Fence((tmp_path / "closed", tmp_path / "missing"), tmp_path / "closed/own")
    with fork_server(1).start(_tries, tmp_path, victim.pid, setting=Setting(fence=fence)) as process:
        assert process.wait(60)
        found = json.loads(process.message() or b"null")
    time.sleep(0.05)
    lives = victim.poll() is None
    victim.kill()
    victim.wait()
    opened = {
        "reads its own",
        "writes its own",
        "reads elsewhere",
        "writes elsewhere",
        "makes a temporary file",
        "starts a program",
    }
    killed = set() if landlock() >= 6 else {"kills"}
    assert {name for name, succeeded in found.items() if succeeded} == opened | killed
    assert lives == (not killed)
    assert (tmp_path / "closed/in.txt").read_text() == "text"


def _reads(connection: Connection, paths: list[Path]) -> None:
    """Send the names of the files that can be read."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            path.read_text()
            found.append(path.name)
    connection.send_bytes(json.dumps(found).encode())


def test_a_place_within_a_closed_folder_does_not_open_the_rest_of_it(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("keys/first", "keys/second", "own/third", "fourth")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("text")
    fence = Fence((tmp_path / "keys", tmp_path / "keys/first"), tmp_path / "own")
    with fork_server(1).start(_reads, paths, setting=Setting(fence=fence)) as process:
        assert process.wait(60)
        assert json.loads(process.message() or b"null") == ["third", "fourth"]
