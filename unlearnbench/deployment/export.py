"""Exporting a model: its weights, their card, and the check of the written file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.deployment.deployable import deployable
from unlearnbench.deployment.model_card import model_card, this_file
from unlearnbench.deployment.model_export import (
    Check,
    check_file,
    exported_network,
    format_of,
    recipe_of,
    recorded_dataset,
    write_weights,
)
from unlearnbench.deployment.row import finished_cell
from unlearnbench.errors import StoreError, UnlearnBenchError, os_reason
from unlearnbench.models.build import input_shape


@dataclass(frozen=True)
class Exported:
    """The files of an exported model.

    Attributes:
        weights: File of the weights.
        card: File of the card.
        check: What the file gave when it was loaded again; None if that was not done.
        still_recognised: That the outputs have not forgotten, in words; "" if they have.
    """

    weights: Path
    card: Path
    check: Check | None
    still_recognised: str


def export(place: Path, output: Path, form: str, label: str = "", seed: int | None = None, *, check: bool) -> Exported:
    """Write the weights of a finished cell and their card, and check the written file.

    The file gets its name only when it has passed the check.

    Args:
        place: Output folder of a run, a folder of its records, or a record.
        output: File to write; the card gets the same name with `.md`.
        form: One of `model_export.ENDINGS`; "" takes the one that the file's name ends in.
        label: Label of the method, if there are several.
        seed: Seed, if there are several.
        check: Whether the file is loaded again and compared with the record, which takes the data set.

    Raises:
        InvalidFileError: If no cell, or more than one, is meant, or the file does not give what was recorded.
        DatasetError: If the data set is not on this machine.
        StoreError: If the file cannot be written.
        UnlearnBenchError: If the format needs a library that is not installed, or a file would be replaced that no
            export has written.
    """
    form, card = format_of(output, form), output.with_suffix(".md")
    _check_free(output, card)
    cell = finished_cell(place, label, seed)
    model = deployable(cell)
    recipe = recipe_of(cell.record)
    # Only ONNX needs the images' size for writing.
    dataset = recorded_dataset(cell.record) if check or form == "onnx" else None
    shape = input_shape(dataset.info.shape, recipe) if dataset else (0, 0, 0)
    # The name ends as that of the finished file does, because readers look at the end.
    temporary = output.with_name(f".{os.getpid()}-{output.name}")
    try:
        write_weights(
            model,
            temporary,
            form,
            lambda: exported_network(cell, shape, len(model.classes)).unfilled(),
            list(shape),
        )
        checked = check_file(temporary, form, cell, model, dataset, recipe) if dataset and check else None
        temporary.replace(output)
        info = dataset.info if dataset else None
        card.write_text(model_card(cell, model, output, form, checked, info), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{output}: cannot be written: {os_reason(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(output, card, checked, cell.still_recognised)


def _check_free(output: Path, card: Path) -> None:
    """Raise unless the files are not there, or are those of an earlier export, as the card says."""
    try:
        told = card.read_text(encoding="utf-8") if card.exists() else ""
    except (OSError, ValueError):
        told = ""
    if output.exists() and this_file(output) not in told:
        what = f"{output}: is there already, and no card beside it says that it was exported"
    elif card.exists() and "- This file: `" not in told:
        what = f"{card}: is there already, and is not the card of an export"
    else:
        return
    raise UnlearnBenchError(f"{what}\n  Remove it, or name another: --output FILE")
