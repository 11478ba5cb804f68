"""What the parts of a manifest's run take on this machine, on a few of its images each, and what the whole comes to.

python -m tests.benchmarks.stand_ins cub200 FOLDER
unlearnbench data add cub200 FOLDER
python -m tests.benchmarks.rehearsal manifests/cub200.toml

Networks have random weights, because published ones take as long. On a CPU the seconds are those of a core, since other
work on the machine would change all others. Each part has a process of its own, whose peak of memory is that part's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from tests.benchmarks.problem import device, wait
from unlearnbench.datasets.dataset import Images
from unlearnbench.engine.dry_run import known_passes, planned_work
from unlearnbench.experiment.plan import Plan, make_plan
from unlearnbench.experiment.resolve import resolve
from unlearnbench.machine import cpu_precision, peak_memory, processor_name, reset_peak_memory
from unlearnbench.metrics.feature_writer import write_features
from unlearnbench.models.batches import Batches
from unlearnbench.models.build import Network, input_shape
from unlearnbench.models.classifier import captured_features, classifier
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.recipe import read_recipe
from unlearnbench.models.training import ReferenceTraining, augmentation
from unlearnbench.store import Store
from unlearnbench.unlearners.builtin.relevance import RelevanceOptions, search
from unlearnbench.unlearners.task import UnlearningTask

PARTS = ("load", "input", "train", "features", "search")
# The search goes through the limited images of so many forget classes, of each at most so many.
CLASSES, OF_EACH = 4, 45


@dataclass(frozen=True)
class Part:
    """What a part of a run took.

    Attributes:
        images: Image passes.
        seconds: Seconds of a core, or of the clock on a GPU.
        memory: Peak of the memory of its process in bytes, with all libraries.
        note: What else there is to know.
    """

    images: int
    seconds: float
    memory: int
    note: str = ""


class Chosen:
    """Some of a data set's images, read on request."""

    def __init__(self, images: Images, positions: NDArray[np.int64]) -> None:
        self.images, self.positions = images, positions
        self.shape = images.shape

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.positions)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images at `indices`."""
        return self.images.read(self.positions[indices])


class Rehearsal:
    """The first problem of a manifest, on this machine.

    Args:
        plan: Plan of the manifest.
        images: Number of images that each part reads.
    """

    def __init__(self, plan: Plan, images: int) -> None:
        problem = plan.cells[0].problem
        self.problem, self.images = problem, images
        self.recipe = read_recipe({**problem.recipe, "precision": plan.precision})
        shape = input_shape(problem.info.shape, self.recipe)
        architecture = problem.architecture
        self.network = Network(architecture.address, architecture.options, len(problem.info.class_names), shape)
        self.data = LoadedData(plan.resolved.dataset, self.recipe, device())

    def measure(self, name: str) -> Part:
        """Return what a part takes."""
        does = getattr(self, name)
        ready = getattr(self, f"{name}_ready", lambda: None)()
        reset_peak_memory()
        clock = perf_counter if device().type == "cuda" else process_time
        started = clock()
        images, note = does(ready)
        wait()
        return Part(images, clock() - started, peak_memory() or 0, note)

    def load(self, _: None) -> tuple[int, str]:
        """Bring the training images to where a training takes them from."""
        kept = self.data.train._images
        return len(self.data.train), "" if isinstance(kept, torch.Tensor) else "they stay on disk"

    def input_ready(self) -> Batches:
        """Return the training images."""
        return self.data.train

    def input(self, train: Batches) -> tuple[int, str]:
        """Read, cut, turn and normalise images for a training."""
        chosen = torch.arange(self.images)
        sizes = [len(labels) for _, labels in train.shuffled(self.recipe.batch_size, torch.Generator(), chosen)]
        return sum(sizes), ""

    def train_ready(self) -> ReferenceTraining:
        """Return a training on the first images."""
        model = self.network.build(0, "original").to(device())
        positions = torch.arange(self.images, device=device())
        return ReferenceTraining(model, self.data.train, positions, self.recipe, 0, "original")

    def train(self, training: ReferenceTraining) -> tuple[int, str]:
        """Train for an epoch of a few batches."""
        training._train_epoch()
        return self.images, f"batches of {self.recipe.batch_size}, {training.precision}"

    def features_ready(self) -> nn.Module:
        """Return a network; the images of both parts are read, as a worker has them."""
        assert len(self.data.train)
        assert len(self.data.test)
        return self.network.build(0, "original").to(device()).eval()

    def features(self, model: nn.Module) -> tuple[int, str]:
        """Write the features of as many test as training images."""
        each = self.images // 2
        attributes = {
            "model": "rehearsal",
            "dataset": self.problem.dataset.name,
            "dataset_revision": "-",
            "num_classes": self.network.num_classes,
            "forget_classes": list(self.problem.forget_classes),
            "seed": 0,
        }
        with tempfile.TemporaryDirectory() as folder:
            test, train = self._few(each, test=True), self._few(each, test=False)
            limited = np.arange(min(each, 10))
            write_features(Path(folder) / "features.h5", model, test, train, limited, attributes)
        return 2 * each, ""

    def _few(self, number: int, *, test: bool) -> tuple[Batches, NDArray[np.int64]]:
        part = self.data.test_part if test else self.data.train_part
        positions = np.linspace(0, len(part.labels) - 1, number).astype(np.int64)
        labels = torch.from_numpy(part.labels[positions]).to(device())
        normal = (self.data.mean, self.data.std, augmentation(self.recipe))
        return Batches(Chosen(part.images, positions), labels, *normal), part.ids[positions]

    def search_ready(self) -> tuple[nn.Module, UnlearningTask]:
        """Return a task with the limited images of some forget classes, and a network that recognises them."""
        classes = self.problem.forget_classes[-CLASSES:]
        limited = enumerate(self.problem.limited(0))
        counts = tuple(min(number, OF_EACH) if label in classes else 0 for label, number in limited)
        batches = self.data.limited(counts, 0)
        task = UnlearningTask(batches, classes, self.network.num_classes, self.recipe, 0, nn.Identity)
        model = self.network.build(0, "original").to(device()).eval()
        fit_classifier(model, batches)
        return model, task

    def search(self, given: tuple[nn.Module, UnlearningTask]) -> tuple[int, str]:
        """Search the parameters that are relevant to some forget classes."""
        model, task = given
        _, findings = search(model, task, RelevanceOptions())
        images = sum(task.image_passes.values())
        looks = (images / task.size() - 2) * len(task.forget_classes) / len(findings)
        known = np.mean([finding.accuracy_before for finding in findings])
        each = f"{len(task.forget_classes)} classes of {task.size() // len(task.forget_classes)} images"
        return images, f"{each}, {100 * known:.0f} % recognised, {looks:.1f} looks at a layer"


def fit_classifier(model: nn.Module, batches: Batches) -> None:
    """Give a network the classifier that is nearest to right on some images, by least squares."""
    with torch.inference_mode(), captured_features(model) as captured:
        for images, _ in batches.in_order(16):
            model(images)
        features = torch.cat([rows.double().cpu() for rows in captured])
    layer = classifier(model)
    truth = F.one_hot(batches.labels.cpu(), layer.out_features).double()
    middle = features.mean(dim=0)
    weight = torch.linalg.lstsq(features - middle, truth - 0.5, driver="gelsd").solution.T
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(-weight @ middle)


def part_of(manifest: Path, images: int, name: str) -> Part:
    """Return what a part of a manifest's run takes, in the process that this is called in."""
    return Rehearsal(planned(manifest), images).measure(name)


def planned(manifest: Path) -> Plan:
    """Return the plan of a manifest, whether or not its weights are here."""
    precision = "bfloat16" if device().type == "cuda" else cpu_precision()
    return make_plan(resolve(manifest, to_run=False), precision=precision)


def whole(plan: Plan, parts: dict[str, Part], folder: Path) -> dict[str, float]:
    """Return the seconds of a whole run by what they go to, from its dry run and the parts.

    The passes of a teacher are not counted, which add a part's `features` to those of methods that distil.
    """
    work = planned_work(plan, {}, Store(folder))
    extracted = [one for one in work if one.what == "extract features"]
    each = {name: parts[name].seconds / parts[name].images for name in ("train", "features")}
    searches = sum(cell.method.name == "erwp" for cell in plan.cells)
    classes = len(plan.cells[0].problem.forget_classes)
    return {
        "Original and FDR": each["train"] * known_passes([one for one in work if one.what.startswith("train ")]),
        "methods": each["train"] * known_passes([one for one in work if one.what.startswith("unlearn ")]),
        "features": each["features"] * known_passes(extracted),
        "ERwP's search": searches * classes / min(CLASSES, classes) * parts["search"].seconds,
    }


def main() -> None:
    """Print a row for each part, and the hours of the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="only these parts, and not the whole")
    parser.add_argument("--images", type=int, default=192, help="number of images that each part reads")
    given = parser.parse_args()
    name = torch.cuda.get_device_name() if device().type == "cuda" else f"{processor_name()}, seconds of a core"
    table = Table(title=f"{given.manifest}: {name}", title_justify="left")
    for heading in ("part", "images", "seconds", "images/s", "peak memory", ""):
        table.add_column(heading, justify="right" if heading not in ("part", "") else "left")
    parts = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for part in given.parts or PARTS:
            found = parts[part] = pool.apply(part_of, (given.manifest, given.images, part))
            rate, memory = found.images / found.seconds, f"{found.memory / 2**30:.2f} GiB"
            table.add_row(part, f"{found.images:,}", f"{found.seconds:.1f}", f"{rate:,.1f}", memory, found.note)
    Console(width=140).print(table)
    if not given.parts:
        with tempfile.TemporaryDirectory() as folder:
            seconds = whole(planned(given.manifest), parts, Path(folder))
        told = ", ".join(f"{what} {took / 3600:.1f}" for what, took in seconds.items())
        print(f"the whole: {sum(seconds.values()) / 3600:.1f} hours ({told})")


if __name__ == "__main__":
    main()
