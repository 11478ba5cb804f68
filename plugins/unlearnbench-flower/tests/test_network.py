"""A federation by Flower's own processes: the same weights as in process, and nothing is left behind.

Starting them takes half a minute on a free machine.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import torch

pytest.importorskip("flwr", reason="flwr is not installed; it has an environment of its own")

from unlearnbench.errors import TrainingFailedError
from unlearnbench.models.federation.training import in_process

from unlearnbench_flower.engine import flower

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


def test_real_clients_give_the_same_weights_and_a_killed_node_ends_the_round(order: Callable[..., Any]) -> None:
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
        os.kill(processes_of(folder, "flower-supernode")[0], signal.SIGKILL)
        with pytest.raises(TrainingFailedError) as caught:
            play(training, (0, 1))
    assert str(caught.value).startswith("flower: SuperNode ")
    assert "its process was killed by SIGKILL" in str(caught.value)
    deadline = monotonic() + 20
    while processes_of(folder) and monotonic() < deadline:
        sleep(0.2)
    assert processes_of(folder) == []
    assert not folder.exists()
