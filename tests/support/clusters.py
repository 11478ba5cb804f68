"""Clusters on this machine for tests: how long one may take, and functions that its nodes compute."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import save
from torch import nn

from support.commands import RUN, cli, start
from support.federations import THREE, federated_text
from support.manifests import WD, manifest_text, write_manifest
from support.records import comparable_records
from unlearnbench.engine.engines.engine import Engine, Future, Listener
from unlearnbench.mirror import at_hand
from unlearnbench.models import training
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.build import Network
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.store import CHECKPOINT

# Three cells: Original, FDR and weight deletion.
SMALL = manifest_text(WD)
# The same of a federation of three parties, who are not alike.
FEDERATED = federated_text(WD, federation=THREE)
# A cluster that starts on a busy machine takes its time.
LIMIT_SECONDS = 240.0


@contextlib.contextmanager
def alone(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Wait until no other worker of the tests has a cluster, since two would want the same ports and cores."""
    place = factory.getbasetemp()
    with FileLock((place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "cluster.lock"):
        yield


def add(told: Listener, first: int, second: int) -> tuple[int, int]:
    with told.stage("adding", 2):
        told.advance(2)
        told.say(f"{first} + {second}")
    return first + second, os.getpid()


def divide(told: Listener, number: int) -> float:
    return 1 / number


def first_of(told: Listener, numbers: list[int]) -> int:
    return numbers[0]


def niceness(told: Listener) -> int:
    return os.nice(0)


def die_first(told: Listener, folder: Path, deaths: int) -> int:
    """Kill the process so many times, which is counted in files."""
    before = len(list(folder.iterdir()))
    if before < deaths:
        (folder / str(before)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return before


def take_long_first(told: Listener, folder: Path) -> str:
    """Take very long the first time, until there is a file `end`, and say which process does in another file."""
    if list(folder.iterdir()):
        return "again"
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + LIMIT_SECONDS
    while not (folder / "end").exists() and time.monotonic() < end:
        time.sleep(0.2)
    return "first"


def compare_with_a_local_run(folder: Path, output: str | Path, *options: str | Path, text: str = SMALL) -> Path:
    """Run a small manifest with some options and on this machine, compare the records, and return the manifest."""
    manifest = write_manifest(folder, text)
    local = cli("run", manifest, "-o", folder / "local", "--device", "cpu")
    done = cli("run", manifest, "-o", output, "--device", "cpu", *options)
    assert (local.code, done.code) == (0, 0), local.err + done.err
    own, found = (comparable_records(at_hand(str(place))) for place in (folder / "local", output))
    assert len(found) == 3
    for name, values in found.items():
        assert values["files"] == own[name]["files"]
        assert values["metrics"] == own[name]["metrics"]
        assert values.get("rounds") == own[name].get("rounds")
    return manifest


def end_all(engine: Engine, futures: Collection[Future]) -> None:
    """Wait until all futures are done."""
    wait_until(lambda: all(future.done for future in futures), engine, futures)


def wait_until(moment: Callable[[], bool], engine: Engine, futures: Collection[Future]) -> None:
    """Let an engine work until a moment."""
    end = time.monotonic() + LIMIT_SECONDS
    while not moment():
        assert time.monotonic() < end
        engine.wait([future for future in futures if not future.done], 1.0)


RECIPE = TrainingRecipe(epochs=8, batch_size=16, learning_rate=0.1, schedule="one_cycle", precision="float32")


def train_slowly_first(told: Listener, folder: Path) -> tuple[int, str]:
    """Train a network slowly, or go on fast from a checkpoint; return the epoch of that, and a hash of the weights."""
    training.CHECKPOINT_SECONDS = 0.0
    torch.set_num_threads(1)
    checkpoint = folder / "checkpoint.pt"
    first = not checkpoint.exists()
    own = _training(lambda images: time.sleep(2.0) if first else None)
    resumed: list[int] = []
    load = own._load

    def noted(path: Path) -> None:
        load(path)
        resumed.append(own.epoch)

    # What it loads is to be seen, and nothing tells of it.
    own._load = noted  # type: ignore[method-assign]
    own.train(checkpoint)
    return next(iter(resumed), 0), model_sha256(own.model)


def trained_at_once() -> str:
    """Return the hash of the weights of the same training, never interrupted."""
    own = _training(lambda images: None)
    own.train()
    return model_sha256(own.model)


def _training(advance: Callable[[int], None]) -> training.ReferenceTraining:
    images = torch.randint(256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = Batches(images, torch.arange(40) % 10, (0.5,), (0.3,), Augmentation(padding=1))
    network = Network("digits_net", {"width": 4}, 10, (1, 8, 8)).build(0, "original")
    return training.ReferenceTraining(network, data, torch.arange(40), RECIPE, 0, "original", advance)


def model_sha256(model: nn.Module) -> str:
    return hashlib.sha256(save({name: value.contiguous() for name, value in model.state_dict().items()})).hexdigest()


def entry_times(output: Path) -> dict[str, int]:
    """Return when each complete entry of a store was written, by its path."""
    return {str(path.relative_to(output)): path.stat().st_mtime_ns for path in (output / "store").rglob("entry.json")}


def checkpoints(output: Path) -> list[Path]:
    """Return the checkpoints of trainings that are under way."""
    return list(output.glob(f"store/models/*.partial/{CHECKPOINT}"))


def kill_a_run(
    folder: Path, *options: str | Path, text: str = SMALL, moment: Callable[[Path], object] = entry_times
) -> None:
    """Begin a run of a small manifest in a process of its own, and kill that once there is a model in the store.

    Args:
        folder: Folder for the manifest and the output folder `runs`.
        options: Options of the run.
        text: The manifest.
        moment: Another moment to kill it at, from the output folder.
    """
    manifest = write_manifest(folder, text)
    command = ("-c", RUN, "run", manifest, "-o", folder / "runs", "--device", "cpu", *options)
    process = start(*command, own_group=True)
    end = time.monotonic() + LIMIT_SECONDS
    while not moment(folder / "runs"):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def resume(folder: Path, *options: str | Path, text: str = SMALL) -> None:
    """Run the same command again: what was finished stays as it is, and the records are those of a local run."""
    before = entry_times(folder / "runs")
    compare_with_a_local_run(folder, folder / "runs", *options, text=text)
    after = entry_times(folder / "runs")
    assert {name: after[name] for name in before} == before
