"""Several processes that train one model together give what one gives, and fail as one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import networks
from support.commands import cli
from support.manifests import SEEDS, WD, manifest_text, write_manifest

from unlearnbench.datasets.dataset import Dataset, Part, open_dataset
from unlearnbench.engine.engines.crew import check_devices
from unlearnbench.engine.processes import reference_training
from unlearnbench.engine.processes.fork_server import fork_server
from unlearnbench.engine.processes.reference_training import Cost, TrainingOrder, train
from unlearnbench.engine.processes.team import Team, train_together
from unlearnbench.errors import TrainingFailedError, UnlearnBenchError
from unlearnbench.models.build import Network
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.training import ReferenceTraining
from unlearnbench.results.records.load import load_records

CPU = torch.device("cpu")
# 1438 images of 10 classes: the last batch has 30, of which each of two processes takes 15.
RECIPE = TrainingRecipe(
    epochs=2, batch_size=64, learning_rate=0.1, schedule="one_cycle", padding=1, precision="float32", momentum=0.9
)
CLASSES = tuple(range(8))

needs_accelerate = pytest.mark.skipif(
    find_spec("accelerate") is None, reason="needs pip install 'unlearnbench[distributed]'"
)


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.images = 0
        self.expected: list[tuple[int, int]] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def stage(self, what: str, passes: int | None) -> AbstractContextManager[None]:
        return nullcontext()

    def advance(self, images: int) -> None:
        self.images += images

    def expect(self, images: int, before: int = 0) -> None:
        self.expected.append((images, before))


def order_in(folder: Path, network: str = "without_norm", **settings: object) -> TrainingOrder:
    """Return an order for digits 0 to 7 in a folder of its own."""
    folder.mkdir(exist_ok=True)
    recipe = RECIPE.model_copy(update=settings)
    net = Network(f"file:{networks.__file__}:{network}", {}, 10, (1, 8, 8))
    return TrainingOrder(net, "fdr", 3, CLASSES, recipe, folder / "checkpoint.pt", folder / "model.safetensors")


def read_digits(test: bool) -> Part:
    digits = open_dataset("digits", {})
    return digits.test() if test else digits.train()


def digits() -> Dataset:
    """Return the digits in a form that can be sent to another process."""
    return Dataset(open_dataset("digits", {}).info, partial(read_digits, False), partial(read_digits, True), None)


def alone(order: TrainingOrder) -> Cost:
    return train(order, LoadedData(digits(), order.recipe, CPU), Heard())


def together(order: TrainingOrder, heard: Heard, processes: int = 2) -> Cost:
    return train_together(fork_server(1), order, digits(), Team(processes, (CPU,), 2), heard)


def distance(first: Path, second: Path) -> float:
    """Return the largest difference between two models' weights."""
    one, other = (load_file(path) for path in (first, second))
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@needs_accelerate
@pytest.mark.slow
def test_two_processes_take_the_steps_that_one_takes_with_the_whole_batch(tmp_path: Path) -> None:
    one, two, heard = order_in(tmp_path / "one"), order_in(tmp_path / "two"), Heard()
    alone(one)
    cost = together(two, heard)
    # Sums over halves of a batch are rounded differently.
    assert distance(one.result, two.result) < 1e-5
    untrained = one.network.build(3, "fdr").state_dict()
    assert max(float((untrained[name] - value).abs().max()) for name, value in load_file(two.result).items()) > 0.01
    assert cost.seconds > 0
    assert heard.lines == []


@needs_accelerate
@pytest.mark.slow
def test_two_processes_go_on_from_a_checkpoint_and_drop_one_that_is_damaged(tmp_path: Path) -> None:
    whole, cut, damaged = (order_in(tmp_path / name) for name in ("whole", "cut", "damaged"))
    alone(whole)
    data = LoadedData(digits(), RECIPE, CPU)
    model, positions = cut.network.build(3, "fdr"), data.train.positions_of(CLASSES)
    begun = ReferenceTraining(model, data.train, positions, RECIPE, 3, "fdr")
    begun._train_epoch()
    begun.epoch, begun.seconds = 1, 1000.0
    begun.save(cut.checkpoint)
    kept = cut.checkpoint.read_bytes()
    heard = Heard()
    cost = together(cut, heard)
    assert distance(whole.result, cut.result) < 1e-5
    # One epoch of two is left.
    assert heard.expected == [(len(positions), len(positions))]
    # The first epoch counts, and was not trained again.
    assert cost.seconds > 1000
    damaged.checkpoint.write_bytes(kept[:-100])
    heard = Heard()
    together(damaged, heard)
    assert distance(whole.result, damaged.result) < 1e-5
    assert heard.lines == [f"{damaged.checkpoint} is damaged; the training starts anew"]


@needs_accelerate
@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (
            "second_dies",
            "process 2 of 2 that train together: its process was killed by SIGKILL; "
            "the system does that when memory runs out",
        ),
        ("second_raises", "process 2 of 2 that train together: ValueError: it does not like these images"),
    ],
)
def test_one_that_fails_ends_all_with_its_reason(tmp_path: Path, network: str, reason: str) -> None:
    with pytest.raises(TrainingFailedError) as caught:
        together(order_in(tmp_path, network), Heard())
    assert str(caught.value) == reason


@needs_accelerate
@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_told_as_by_one(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailedError, match=r"^the loss is not finite \(nan\) in epoch 1 of FDR$"):
        together(order_in(tmp_path, learning_rate=1e6, schedule="constant"), Heard())


@needs_accelerate
@pytest.mark.slow
def test_a_run_trains_its_references_by_several_devices(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, manifest_text(WD, head=f"{SEEDS}\ndevices_per_training = 2"))
    done = cli("run", manifest, "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    records = {record.method.name: record for record in load_records(tmp_path / "runs")}
    assert records["original"].details["devices_per_training"] == 2
    assert records["fdr"].image_passes["forget"] == 0
    assert records["original"].image_passes["retain"] == records["fdr"].image_passes["retain"] > 2000
    assert all(record.status == "done" for record in records.values())


def test_accelerate_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_training, "find_spec", lambda name: None)
    manifest = write_manifest(tmp_path, manifest_text(WD, head=f"{SEEDS}\ndevices_per_training = 2"))
    done = cli("run", manifest, "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 1
    assert done.err.endswith(
        f"{manifest}: devices_per_training: 2 processes: accelerate joins the processes, and is not installed\n"
        "  pip install 'unlearnbench[distributed]'\n"
    )


def test_devices_that_are_not_there_are_refused() -> None:
    check_devices(1, (torch.device("mps"),))
    check_devices(64, (CPU,))
    with pytest.raises(UnlearnBenchError, match=r"^devices_per_training = 2: here mps has one device\n"):
        check_devices(2, (torch.device("mps"),))
    if torch.cuda.device_count() < 64:
        with pytest.raises(UnlearnBenchError, match=r"^devices_per_training = 64: here there are \d+ GPUs\n"):
            check_devices(64, (torch.device("cuda"),))


def test_free_gpus_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert Team(2, (torch.device("cuda", 3), torch.device("cuda", 1)), 1).gpus == (3, 1)
    assert Team(3, (torch.device("cuda"),), 1).gpus == (0, 1, 2)
    assert Team(4, (torch.device("cuda", 2),), 1).gpus == (2, 0, 1, 3)
