"""A federation by Flower's own processes: the same weights as in process, and nothing is left behind.

Starting them takes half a minute on a free machine.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest
import torch

pytest.importorskip("flwr", reason="flwr is not installed; it has an environment of its own")

from unlearnbench.errors import TrainingFailedError
from unlearnbench.models.federation.training import in_process

from unlearnbench_flower import network
from unlearnbench_flower.engine import flower
from unlearnbench_flower.messages import GO_ON
from unlearnbench_flower.signs import sign_file

pytestmark = pytest.mark.slow


def processes_of(folder: Path, command: str = "") -> list[int]:
    """Return the processes that have a folder as Flower's home, and run a command."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            ours = f"FLWR_HOME={folder}".encode() in (entry / "environ").read_bytes().split(b"\0")
            if ours and command.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def kill(processes: list[int]) -> None:
    assert processes
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def kill_the_client_of(folder: Path, sign: Path) -> None:
    """Kill the processes that train as soon as a party gives its first sign of life."""
    while folder.exists() and not sign.exists():
        sleep(0.01)
    kill(processes_of(folder, "flwr-clientapp"))


def test_real_clients_give_the_same_weights_and_whoever_is_killed_ends_the_round(
    order: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = order(parties=2, rounds=2, engine="flower", strategy="FedAvg")
    training, other = (one.training(one.data(torch.device("cpu"))) for _ in range(2))
    read: list[int] = []
    with flower("FedAvg").playing(one, torch.device("cpu"), 1, read.append) as play:
        folder = play.network.folder
        found, expected = play(training, (0, 1)), in_process(other, (0, 1))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].numpy() == pytest.approx(value.numpy(), abs=1e-6), name
        assert sum(read) == sum(len(images) for images in training.parties)
        assert len(processes_of(folder)) > 4
        training.epoch = 1
        killer = Thread(target=kill_the_client_of, args=(folder, sign_file(folder, 1, 0)))
        killer.start()
        with pytest.raises(TrainingFailedError) as caught:
            play(training, (0, 1))
        killer.join()
        assert str(caught.value) == f"flower: round 2: party 0: ClientApp stopped responding; {GO_ON}"
        # What Flower does not notice is a limit: without these nobody starts a party's process.
        training.epoch = 2
        kill(processes_of(folder, "flower-superexec"))
        monkeypatch.setattr(network, "SILENT_SECONDS", 5.0)
        with pytest.raises(TrainingFailedError) as caught:
            play(training, (0, 1))
        assert str(caught.value) == f"flower: nothing heard of parties 0, 1 for 5 s; {GO_ON}"
        kill(processes_of(folder, "flower-supernode")[:1])
        with pytest.raises(TrainingFailedError) as caught:
            play(training, (0, 1))
    assert str(caught.value).startswith("flower: SuperNode ")
    assert "its process was killed by SIGKILL" in str(caught.value)
    deadline = monotonic() + 20
    while processes_of(folder) and monotonic() < deadline:
        sleep(0.2)
    assert processes_of(folder) == []
    assert not folder.exists()
