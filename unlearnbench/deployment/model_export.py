"""Files of unlearned weights for use elsewhere, which are loaded again and compared with the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from unlearnbench.datasets.dataset import Dataset, open_dataset
from unlearnbench.deployment.deployable import Deployable
from unlearnbench.deployment.row import FinishedCell
from unlearnbench.errors import InvalidFileError, UnlearnBenchError
from unlearnbench.metrics.features import open_features
from unlearnbench.models.batches import Batches, in_batches
from unlearnbench.models.build import Network, input_shape
from unlearnbench.models.checkpoints import misfits, read_state
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.recipe import TrainingRecipe, read_recipe
from unlearnbench.registry.plugin_file import is_file_name, located
from unlearnbench.results.records.record import Record

# What the name of a file ends in, by format; readers go by it too.
ENDINGS = {"safetensors": (".safetensors",), "state_dict": (".pt", ".pth", ".bin", ".ckpt"), "onnx": (".onnx",)}
# Sums come out a little different with other threads or on another processor, which can turn an image on the edge.
TURNED = 0.001


@dataclass(frozen=True)
class Check:
    """What a written file gives when it is loaded again.

    Attributes:
        images: Number of test images.
        turned: Number of them whose predicted class is not the recorded one.
        forget_accuracy: FAe.
        retain_accuracy: CAne.
    """

    images: int
    turned: int
    forget_accuracy: float
    retain_accuracy: float


def format_of(path: Path, form: str = "") -> str:
    """Return the format of a file to be written.

    Args:
        path: The file.
        form: Format that was asked for; "" takes the one that the name ends in.

    Raises:
        UnlearnBenchError: If the name does not end as those of the format do.
    """
    by_ending = {ending: name for name, endings in ENDINGS.items() for ending in endings}
    found = by_ending.get(path.suffix)
    if found is None or form not in ("", found):
        wanted = ", ".join(ENDINGS[form]) if form else ", ".join(by_ending)
        raise UnlearnBenchError(f"--output {path}: the name of the weights has to end in {wanted}")
    return found


def exported_network(cell: FinishedCell, shape: tuple[int, int, int], outputs: int) -> Network:
    """Return the user's own network with some number of outputs, as an architecture builds it.

    The path of a network in a file is that of the manifest, whose folder no record knows: it is taken from the working
    folder, or else the file of that name is looked for there and beside the output folder.

    Raises:
        InvalidFileError: If there is no such file.
    """
    problem = cell.record.problem
    told = cell.record.manifest.get("architecture", {}).get("name", "")
    name = problem.architecture
    if is_file_name(told):
        path, _, function = told.removeprefix("file:").rpartition(":")
        beside = (Path.cwd(), cell.folder.resolve().parent)
        places = [Path.cwd() / path, *(folder / Path(path).name for folder in beside)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            listed = "\n  ".join(str(place) for place in dict.fromkeys(places))
            raise InvalidFileError(
                f"{told}: the file of the network is not here; looked at\n  {listed}\n"
                "  Change to the manifest's folder, or put the file beside the output folder"
            )
        name = located(f"file:{found}:{function}", Path.cwd())
    return Network(name, problem.architecture_options, outputs, shape)


def recorded_dataset(record: Record) -> Dataset:
    """Return the data set of a record.

    Raises:
        InvalidFileError: If the images on this machine are not those of the record.
        DatasetError: If they are not here.
    """
    problem = record.problem
    dataset = open_dataset(problem.dataset, problem.dataset_options)
    if dataset.info.revision != problem.dataset_revision:
        raise InvalidFileError(
            f"{problem.dataset}: revision {dataset.info.revision} is here, {problem.dataset_revision} in the record\n"
            "  The written file cannot be checked with other images; --no-check leaves the check out"
        )
    return dataset


def write_weights(model: Deployable, path: Path, form: str, network: Callable[[], nn.Module], shape: list[int]) -> None:
    """Write weights to a file.

    Args:
        model: The weights.
        path: File to write.
        form: One of `ENDINGS`.
        network: Function that returns a fresh network with as many outputs as the weights have.
        shape: Channels, height and width of an image, for ONNX.

    Raises:
        UnlearnBenchError: If the format needs a library that is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "safetensors":
        state = {name: value.contiguous() for name, value in model.state.items()}
        path.touch()
        mode = path.stat().st_mode
        save_file(state, path, {"format": "pt", "output_classes": " ".join(map(str, model.classes))})
        # safetensors writes files that nobody else may read.
        path.chmod(mode)
    elif form == "state_dict":
        torch.save(dict(model.state), path)
    else:
        _write_onnx(filled(network(), model.state, model), path, shape)


def filled(network: nn.Module, state: dict[str, Tensor], model: Deployable) -> nn.Module:
    """Return a network that holds the tensors of a file, in evaluation mode.

    Raises:
        InvalidFileError: If a name or a shape differs.
    """
    own = {name.removeprefix(model.prefix): value for name, value in state.items()}
    expected = network.state_dict()
    faults = misfits({name: value for name, value in expected.items() if name not in model.left_out}, own)
    if faults:
        raise InvalidFileError("\n  ".join([f"the weights do not fit {type(network).__name__} any more", *faults]))
    network.load_state_dict(own, strict=False)
    return network.eval()


def _write_onnx(network: nn.Module, path: Path, shape: list[int]) -> None:
    try:
        torch.onnx.export(
            network.to(memory_format=torch.contiguous_format),
            (torch.zeros(2, *shape),),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except ImportError as error:
        missing = (error.name or "onnx").partition(".")[0]
        raise UnlearnBenchError(
            f"--format onnx: {missing} is not installed\n  pip install 'unlearnbench[onnx]'"
        ) from error


def check_file(
    path: Path, form: str, cell: FinishedCell, model: Deployable, dataset: Dataset, recipe: TrainingRecipe
) -> Check:
    """Load a written file into the user's own network and compare what it says of every test image with the record.

    Args:
        path: The file.
        form: Its format.
        cell: Cell that the weights are of.
        model: What was written.
        dataset: Data set of the record.
        recipe: Recipe of the record, which gives crop and normalisation.

    Raises:
        InvalidFileError: If more than one image in a thousand is classified otherwise than recorded.
    """
    test = LoadedData(dataset, recipe, torch.device("cpu")).test
    classes = np.asarray(model.classes)
    if form == "onnx":
        logits = _onnx_logits(path, test)
    else:
        shape = input_shape(dataset.info.shape, recipe)
        network = exported_network(cell, shape, len(classes)).unfilled()
        logits = _logits(filled(network, read_state(path)[0], model), test)
    predicted = classes[logits.argmax(axis=1)]
    with open_features(cell.file("features")) as features:
        recorded = features.output_classes[features.array("test/logits").argmax(axis=1)]
        labels = features.array("test/labels")
        forget = np.isin(labels, features.forget_classes)
    turned = int((predicted != recorded).sum())
    if turned > np.ceil(TURNED * len(labels)):
        raise InvalidFileError(
            f"{path}: {turned} of {len(labels)} test images are classified otherwise than recorded; do not use it"
        )
    right = predicted == labels
    return Check(len(labels), turned, float(right[forget].mean()), float(right[~forget].mean()))


def _logits(network: nn.Module, test: Batches) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = np.concatenate([network(images).float().numpy() for images, _ in in_batches(test)])
    return found


def _onnx_logits(path: Path, test: Batches) -> NDArray[np.float32]:
    try:
        import onnxruntime
    except ImportError as error:
        raise UnlearnBenchError(
            "--format onnx: the file is checked with onnxruntime, which is not installed"
        ) from error
    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = np.concatenate(
        [session.run(["logits"], {"images": images.contiguous().numpy()})[0] for images, _ in in_batches(test)]
    )
    return found


def recipe_of(record: Record) -> TrainingRecipe:
    """Return the recipe of a record's problem."""
    return read_recipe(record.problem.training)
