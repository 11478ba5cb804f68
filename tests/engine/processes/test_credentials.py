"""Credentials of the user stay away from foreign code: variables, and the files that hold some."""

from __future__ import annotations

import json
import os
import socket
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from unlearnbench.engine.processes.credentials import credential_places, harmless
from unlearnbench.engine.processes.fence import Fence, landlock
from unlearnbench.engine.processes.fork_server import ForkServer, Process, Setting, fork_server

SECRETS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SESSION_TOKEN": "token",
    "AWS_PROFILE": "prod",
    "AZURE_STORAGE_CONNECTION_STRING": "x",
    "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/key.json",
    "HF_TOKEN": "hf_x",
    "WANDB_API_KEY": "x",
    "MY_SECRET": "x",
    "DB_PASSWORD": "x",
    "RAY_AUTH_TOKEN_PATH": "/nowhere/token",
    "GITHUB_TOKEN": "x",
    "KUBECONFIG": "/nowhere",
    "SSH_AUTH_SOCK": "/nowhere",
    "DATABASE": "postgres://me:word@host/data",
}
PLAIN = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "OMP_NUM_THREADS": "1",
    "KEYBOARD": "us",
    "TOKENIZERS_PARALLELISM": "false",
    "AWSOME": "yes",
    "MONKEY": "x",
    "HTTP_PROXY": "http://proxy:3128",
    "UNLEARNBENCH_DATA": "/data",
    "CUDA_VISIBLE_DEVICES": "0",
}


def test_variables_are_credentials_by_their_names_or_by_a_password_within() -> None:
    assert harmless({**SECRETS, **PLAIN}) == PLAIN


def test_files_that_hold_credentials_are_found_at_home_and_by_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (".aws/credentials", ".netrc", "elsewhere/key.json", "code.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("secret")
    named = {
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "elsewhere/key.json"),
        "AWS_CONFIG_FILE": str(tmp_path / "missing"),
        # A key that only looks like a path.
        "SIGNING_KEY": f"/{'a' * 5000}",
        # It says nothing of where credentials lie, and must not close the user's whole home.
        "SSH_HOME": str(tmp_path),
    }
    found = [place for place in credential_places(named) if place.is_relative_to(tmp_path)]
    assert found == [tmp_path / "elsewhere/key.json", tmp_path / ".aws", tmp_path / ".netrc"]


def _tells(connection: Connection, paths: list[Path]) -> None:
    """Send the names of the variables that it has or began with, and of the files that it can read."""
    began = Path("/proc/self/environ")
    names = {entry.partition("=")[0] for entry in began.read_text().split("\0")} if began.exists() else set()
    read = []
    for path in paths:
        try:
            path.read_text()
            read.append(path.name)
        except OSError:
            pass
    connection.send_bytes(json.dumps([sorted(os.environ), sorted(names), read]).encode())


def _told(process: Process) -> tuple[list[str], list[str], list[str]]:
    with process:
        assert process.wait(60)
        has, began, read = json.loads(process.message() or b"null")
    return has, began, read


@pytest.mark.slow
def test_only_a_trusted_process_has_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, "MONKEY": "x"}.items():
        monkeypatch.setenv(name, value)
    server = ForkServer(1)
    try:
        trusted = _told(server.start(_tells, []))
        foreign = _told(server.start(_tells, [], setting=Setting(trusted=False)))
    finally:
        server.close()
    assert set(SECRETS) <= set(trusted[0])
    assert not set(SECRETS) & {*foreign[0], *foreign[1]}
    assert "MONKEY" in foreign[0]


@pytest.mark.skipif(not landlock(), reason="this system has no Landlock")
def test_a_fence_closes_single_files_too(tmp_path: Path) -> None:
    secret, plain, own = (tmp_path / name for name in ("secret", "plain", "own"))
    secret.write_text("secret")
    plain.write_text("plain")
    own.mkdir()
    setting = Setting(fence=Fence((secret,), own), trusted=False)
    assert _told(fork_server(1).start(_tells, [secret, plain], setting=setting))[2] == ["plain"]


def test_the_server_of_which_methods_are_copies_is_not_told_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-methods")
    ours, theirs = socket.socketpair()
    process = ForkServer(1, ours).start(_tells, [])
    told, descriptors, _, _ = socket.recv_fds(theirs, 2**20, 3)
    ours.close()
    while part := theirs.recv(2**20):
        told += part
    talk, leash, hidden = descriptors
    with os.fdopen(hidden, "rb") as file:
        assert json.load(file)["AWS_SECRET_ACCESS_KEY"] == "not-for-methods"
    for number in (talk, leash):
        os.close(number)
    theirs.close()
    process.end()
    assert b"_tells" in told
    assert b"not-for-methods" not in told
