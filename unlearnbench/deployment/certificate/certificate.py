"""The certificate of a finished cell as JSON values, from which its pages are made and by which it is verified."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearnbench import __version__
from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.deployment.certificate.findings import (
    Files,
    class_findings,
    destinations,
    headline,
    recoveries,
    stage_findings,
)
from unlearnbench.deployment.certificate.limits import judged, overall
from unlearnbench.deployment.certificate.signature import content_digest
from unlearnbench.deployment.deployable import deployable, state_digest
from unlearnbench.deployment.row import FinishedCell, finished_cell
from unlearnbench.documents import parsed_json, read_text
from unlearnbench.errors import DatasetError, InvalidFileError, PluginError
from unlearnbench.experiment.manifest import Bound
from unlearnbench.metrics.features import open_features
from unlearnbench.results.records.record import Record
from unlearnbench.terms import JUDGED

KIND, FORMAT = "unlearnbench certificate", 1


def certificate(
    cell: FinishedCell, limits: dict[str, Bound], issued_by: str, issued_on: str, told_names: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the content of a certificate.

    Args:
        cell: Cell whose model it is about.
        limits: Limits that the user states; empty if she states none.
        issued_by: Who issues it, as she says.
        issued_on: When, as she says.
        told_names: Names of all classes for a machine without the data set; empty gives them numbers there.

    Raises:
        InvalidFileError: If a file is not what its record was made from, or Original has no record.
    """
    if cell.original is None:
        raise InvalidFileError(f"{cell.folder}: no record of Original with seed {cell.record.seed} to compare with")
    names = class_names(cell.record, told_names)
    with contextlib.ExitStack() as opened:
        paths = [cell.file("features", record) for record in (cell.original, cell.record)]
        before, after = (opened.enter_context(open_features(path)) for path in paths)
        fdr = None if cell.fdr is None else opened.enter_context(open_features(cell.file("features", cell.fdr)))
        files = Files(before, after, fdr)
        values: dict[str, Any] = {
            "kind": KIND,
            "format": FORMAT,
            "made_by": f"unlearnbench {__version__}",
            "issued": {"by": issued_by, "on": issued_on},
            **_origin(cell, cell.original),
            "classes": class_findings(files, names, cell.record.limited_counts),
            "headline": headline(files),
            "recovery": recoveries(files),
            "destinations": destinations(files, names),
            "stages": stage_findings(files),
        }
    values["limits"] = judged(limits, values)
    values["verdict"] = overall(values["limits"])
    # A JSON file knows neither tuples nor numbers as keys, and what is signed is what is read again.
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return {**plain, "sha256": content_digest(plain)}


def class_names(record: Record, told: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of all classes; without the data set those that are told, or numbers in their place."""
    problem = record.problem
    known = dict(enumerate(told)) | dict(zip(problem.forget_classes, problem.forget_class_names, strict=True))
    try:
        info = open_dataset(problem.dataset, problem.dataset_options).info
    except (DatasetError, PluginError):
        info = None
    if info is not None and info.revision == problem.dataset_revision:
        return info.class_names
    return tuple(known.get(label, f"class {label}") for label in range(problem.num_classes))


def _origin(cell: FinishedCell, original: Record) -> dict[str, Any]:
    """Return what was removed from which model, how, and from which data the numbers are."""
    record, problem, method = cell.record, cell.record.problem, cell.record.method
    given = original.details.get("checkpoint", {}).get("sha256")
    return {
        "removed": list(problem.forget_class_names),
        "model": {
            "architecture": problem.architecture,
            "options": problem.architecture_options,
            "before": {
                "name": problem.weights or "trained by the manifest",
                "sha256": given or original.files["model"].sha256,
                "in_store": original.files["model"].sha256,
            },
            "after": {
                "sha256": record.files["model"].sha256,
                "tensors_sha256": state_digest(deployable(cell).state),
            },
        },
        "data": {
            "name": problem.dataset,
            "source": problem.dataset_options.get("source"),
            "revision": problem.dataset_revision,
            "train_images": problem.train_images,
            "test_images": problem.test_images,
            "limited": problem.limited,
        },
        "method": {
            "label": method.label,
            "name": method.name,
            "options": method.options,
            "version": method.version,
            "distribution": f"{method.distribution} {method.distribution_version}",
            "run_here": method.name != JUDGED,
            "seed": record.seed,
            "image_passes": sum(record.image_passes.values()),
            "seconds": record.measured.seconds.get("unlearn"),
            "device": record.environment.get("device"),
            "finished_at": record.measured.finished_at,
        },
        "record": {"sha256": record.hash, "manifest": record.manifest_name, "fdr": record.fdr},
    }


def read_certificate(path: Path) -> dict[str, Any]:
    """Return the content of a certificate's JSON file.

    Raises:
        InvalidFileError: If it cannot be read, is no certificate, or its content is not what its hash covers.
    """
    text = read_text(path)
    try:
        values = parsed_json(text)
    except ValueError as error:
        raise InvalidFileError(f"{path}: not a JSON file") from error
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise InvalidFileError(f"{path}: not a certificate\n  Give the file that ends in .json")
    if values.get("format") != FORMAT:
        raise InvalidFileError(f"{path}: certificate format {values.get('format')!r}, this version reads {FORMAT}")
    if values.get("sha256") != content_digest(values):
        raise InvalidFileError(f"{path}: its content was changed: its hash is another one")
    return values


def recomputed_faults(values: dict[str, Any], runs: Path) -> list[str]:
    """Return, one line each, what an output folder gives otherwise than a certificate says.

    Everything measured is computed anew from the folder's feature files, whose hashes stand in its records. Names of
    retain classes are known only where the data set is; elsewhere they are taken as the certificate has them.

    Raises:
        InvalidFileError: If the folder does not hold the cell.
    """
    method = values["method"]
    cell = finished_cell(runs, method["label"], method["seed"])
    limits = {row["name"]: Bound(min=row["min"], max=row["max"]) for row in values["limits"]}
    names = [row["name"] for row in values["classes"]]
    found = certificate(cell, limits, values["issued"]["by"], values["issued"]["on"], names)
    # The version is that of the program.
    ignored = {"sha256", "signature", "made_by"}
    return [f"{key}: otherwise in {runs}" for key in found if key not in ignored and found[key] != values.get(key)]
