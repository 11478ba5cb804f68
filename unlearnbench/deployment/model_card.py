"""The card that goes with exported weights: what they are, what was measured, and how they are loaded."""

from __future__ import annotations

import json
from pathlib import Path

from unlearnbench import __version__
from unlearnbench.datasets.dataset import DatasetInfo
from unlearnbench.deployment.deployable import Deployable, state_digest
from unlearnbench.deployment.model_export import Check, recipe_of
from unlearnbench.deployment.row import FinishedCell
from unlearnbench.escape import markdown
from unlearnbench.files import file_hash
from unlearnbench.models.build import input_shape
from unlearnbench.registry.plugin_file import is_file_name
from unlearnbench.results.records.record import Record
from unlearnbench.results.tables import markdown_line, percent
from unlearnbench.terms import JUDGED, SHORT

SHOWN_CLASSES = 40


def this_file(weights: Path) -> str:
    """Return how a card begins the line that names its file of weights."""
    return f"- This file: `{weights.name}`"


def model_card(
    cell: FinishedCell, model: Deployable, path: Path, form: str, check: Check | None, info: DatasetInfo | None
) -> str:
    """Return the markdown text of the card.

    Args:
        cell: Cell that the weights are of.
        model: The weights.
        path: File that they were written to.
        form: Its format.
        check: What the file gave when it was loaded again; None if that was not done.
        info: Facts about the data set; None if it is not here.
    """
    record = cell.record
    shape = input_shape(info.shape, recipe_of(record)) if info else ()
    removed, known = markdown(", ".join(record.problem.forget_class_names)), cell.still_recognised
    parts = [
        f"---\nlibrary_name: {'onnx' if form == 'onnx' else 'pytorch'}\ntags: [image-classification, "
        "machine-unlearning]\n# license: yours to add; the weights are derived from your own\n---",
        f"# {path.stem}\n\nAn image classifier ({record.problem.architecture}) from which these classes were "
        + (f"to be removed: **{removed}**. They are {known}." if known else f"removed: **{removed}**."),
        "## What was done\n\n" + "\n".join(_facts(cell, model, path)),
        "## What was measured\n\n" + "\n".join(_numbers(cell, check)),
        "## Outputs\n\n" + _outputs(record, model, info.class_names if info else ()),
        f"## Loading\n\n```python\n{_loading(record, model, path, form, shape)}\n```\n\n{_images(record, info)}",
        f"## Limits\n\n{_limits(cell)}",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(cell: FinishedCell, model: Deployable, path: Path) -> list[str]:
    record, problem = cell.record, cell.record.problem
    checkpoint = (cell.original.details if cell.original else {}).get("checkpoint", {}).get("sha256")
    before = f"`{problem.weights}`, SHA-256 `{checkpoint}`" if checkpoint else "trained by the manifest"
    method = record.method
    options = f" with {json.dumps(method.options, sort_keys=True)}" if method.options else ""
    per_class = sorted(set(record.limited_counts))
    counts = f"{per_class[0]}" if len(per_class) == 1 else f"{per_class[0]} to {per_class[-1]}"
    return [
        f"- Original model: {before}",
        f"- Method: `{method.name}` {method.version} of {method.distribution} {method.distribution_version}{options}, "
        f"seed {record.seed}",
        f"- Data: `{problem.dataset}`{_source(record)}, revision `{problem.dataset_revision}`; the method was given "
        f"{counts} training images of each class",
        f"- Made {record.measured.finished_at} on {record.environment.get('device')} by unlearnbench {__version__}",
        f"- Record: SHA-256 `{record.hash}`",
        f"{this_file(path)}, SHA-256 `{file_hash(path)}`",
        f"- Its tensors: SHA-256 `{state_digest(model.state)}`, by which a certificate names them",
    ]


def _source(record: Record) -> str:
    source = record.problem.dataset_options.get("source")
    return f" ({source})" if source else ""


def _numbers(cell: FinishedCell, check: Check | None) -> list[str]:
    """Return the table of the headline metrics, before and after."""
    meaning = {
        "FAe": "accuracy on test images of the removed classes",
        "FPAe": "the same by the nearest class mean in feature space",
        "CAne": "accuracy on test images of the classes that stay",
    }
    rows = [markdown_line(("", "before", "after", "FDR")), "| --- | ---: | ---: | ---: |"]
    for short, metric in SHORT.items():
        values = [record.value(metric) if record else None for record in (cell.original, cell.record, cell.fdr)]
        rows.append(markdown_line((f"{short}: {meaning[short]}", *(percent(value, None) for value in values))))
    if cell.fdr is None:
        rows.append("\nThere is no FDR, a model retrained without these classes, to compare FPAe with.")
    if check is None:
        rows.append("\nThis file was not loaded again to be checked.")
    else:
        shares = [percent(share, None) for share in (check.forget_accuracy, check.retain_accuracy)]
        turned = "none of them is" if check.turned == 0 else f"{check.turned} of them"
        rows.append(
            f"\nThis file, loaded again into a fresh network, gives FAe {shares[0]} and CAne {shares[1]} on "
            f"{check.images:,} test images; {turned} classified otherwise than when it was measured."
        )
    return rows


def _outputs(record: Record, model: Deployable, names: tuple[str, ...]) -> str:
    """Return what each output stands for."""
    total = record.problem.num_classes
    text = f"{len(model.classes)} outputs"
    if model.classes == tuple(range(total)):
        text += ", in the order of the original model; those of the removed classes are still there."
    elif sorted(model.classes) == list(range(total)):
        text += ", in the order of your checkpoint; those of the removed classes are still there."
    else:
        text += f", where the original model has {total}: build the network with {len(model.classes)}."
    if names and len(model.classes) <= SHOWN_CLASSES:
        shown = (
            names[label] if label < total else "a class of its own for all removed ones" for label in model.classes
        )
        text += "\n\n" + "\n".join(f"{number}. {markdown(name)}" for number, name in enumerate(shown))
    return text


def _loading(record: Record, model: Deployable, path: Path, form: str, shape: tuple[int, ...]) -> str:
    """Return the lines of code that load a file.

    Args:
        record: Record of the cell.
        model: The weights.
        path: The file.
        form: Its format.
        shape: Channels, height and width of what the network sees; empty if that is not known.
    """
    if form == "onnx":
        return (
            f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{path.name}")\n'
            '(logits,) = session.run(["logits"], {"images": images})  # (N, C, H, W) float32, normalised'
        )
    read = (
        ("from safetensors.torch import load_file", f'load_file("{path.name}")')
        if form == "safetensors"
        else ("import torch", f'torch.load("{path.name}", weights_only=True)')
    )
    line = f"state = {read[1]}"
    if model.prefix:
        line = f'state = {{name.removeprefix("{model.prefix}"): value for name, value in {read[1]}.items()}}'
    strict = ", strict=False" if model.left_out else ""
    build = f"model = ...  # your own class, {record.problem.architecture}, with {len(model.classes)} outputs"
    if is_file_name(record.problem.architecture):
        file, _, function = record.problem.architecture.removeprefix("file:").rpartition(":")
        options = "".join(f", {key}={value!r}" for key, value in sorted(record.problem.architecture_options.items()))
        given = f"{len(model.classes)}, {tuple(shape) if shape else '(C, H, W)'}{options}"
        read = (f"import runpy\n{read[0]}", read[1])
        build = f'model = runpy.run_path("{file}")["{function}"]({given})  # with the path of your file'
    return f"{read[0]}\n\n{build}\n{line}\nmodel.load_state_dict(state{strict})\nmodel.eval()"


def _images(record: Record, info: DatasetInfo | None) -> str:
    """Return how images have to be prepared, as far as that is known."""
    training = record.problem.training
    crop = f" the centre of {training['crop']}x{training['crop']} pixels," if training.get("crop") else ""
    mean = training.get("mean") or (info and list(info.mean))
    if mean is None:
        return (
            f"Images are RGB in [0, 1],{crop} normalised with the mean and deviation of the data set's training images."
        )
    std = training.get("std") or (info and list(info.std))
    return f"Images are RGB in [0, 1],{crop} normalised with mean {mean} and deviation {std}."


def _limits(cell: FinishedCell) -> str:
    """Return what must not be concluded from the card."""
    lines = [
        "The numbers hold for these test images and this seed. They are measurements and no guarantee that nothing of",
        "the removed classes can be recovered from the weights.",
    ]
    if cell.record.method.name == JUDGED:
        lines.append("The method was not run here, and what it read is not known.")
    return " ".join(lines)
