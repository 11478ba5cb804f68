"""What several test files need: manifests, the command line in this process and in another, fake distributions."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np

from unlearnbench.cli import main
from unlearnbench.features import FORMAT
from unlearnbench.record import Record, content_hash, with_hash, write_record
from unlearnbench.registry import Kind, installed, names

SEEDS = "seeds = [0]"
DATASET = '[dataset]\nname = "digits"'
ARCHITECTURE = '[architecture]\nname = "digits_net"\noptions = { width = 4 }'
PROBLEM = '[problem]\nforget_classes = ["8", "9"]\nlimited_share = 0.1'
TRAINING = '[training]\nepochs = 2\nbatch_size = 128\nlearning_rate = 0.1\nschedule = "one_cycle"\npadding = 1'
WD = '[[unlearners]]\nname = "wd"'
FOLNRC = '[[unlearners]]\nname = "folnrc"\noptions = { epochs = 1 }'
ERWP = (
    '[[unlearners]]\nname = "erwp"\noptions = { augmentation = "rotation", batch_size = 16, learning_rate = 1e-3, '
    "epochs = 2 }"
)


def manifest_text(
    *unlearners: str,
    head: str = SEEDS,
    dataset: str = DATASET,
    architecture: str = ARCHITECTURE,
    problem: str = PROBLEM,
    training: str = TRAINING,
) -> str:
    """Return a small manifest: two epochs of a narrow network, WD alone if no unlearner is given."""
    return "\n".join([head, dataset, architecture, problem, training, *(unlearners or (WD,))]) + "\n"


def write_manifest(folder: Path, text: str, name: str = "small.toml") -> Path:
    """Write a manifest and return its path."""
    path = folder / name
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Done:
    """A command that came to its end."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def cli(*arguments: str | Path) -> Done:
    """Run the command line in this process, as the `unlearnbench` command does."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["unlearnbench", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, path: Path | None = None, own_group: bool = False) -> subprocess.Popen[str]:
    """Start `python ARGUMENTS` as a process of its own.

    Args:
        arguments: Of Python.
        path: Put in front of its module search path.
        own_group: Whether it leads a process group, as a command does that a terminal started.
    """
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=own_group,
    )


def python(*arguments: str | Path, path: Path | None = None) -> Done:
    """Run `python ARGUMENTS` in a process of its own to its end."""
    process = start(*arguments, path=path)
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)


def fake_distribution(
    folder: Path, name: str, entries: dict[str, dict[str, str]], modules: dict[str, str] | None = None
) -> Path:
    """Lay an installed distribution into a folder of the module search path.

    Args:
        folder: The folder, made if missing.
        name: The distribution; its version is 1.0.
        entries: For each kind of plugin the targets by name.
        modules: Source texts by module name.
    """
    information = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for kind, targets in entries.items():
        lines += [f"[unlearnbench.{kind}]", *(f"{key} = {target}" for key, target in targets.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, text in (modules or {}).items():
        (folder / f"{module}.py").write_text(text)
    return folder


def built_in(kind: Kind) -> list[str]:
    """Return the names of the plugins that our own distribution brings along; others have tests of their own."""
    return [plugin.name for plugin in installed(kind) if plugin.distribution == "unlearnbench"]


def missing_plugins(manifest: Path) -> str:
    """Return what a manifest names and nothing installed here provides, "" if all is there."""
    raw = tomllib.loads(manifest.read_text())
    wanted: list[tuple[Kind, str]] = [("unlearners", entry["name"]) for entry in raw.get("unlearners", ())]
    wanted += [("datasets", raw["dataset"]["name"]), ("architectures", raw["architecture"]["name"])]
    return ", ".join(name for kind, name in wanted if name not in names(kind))


def record_files(output: Path) -> dict[str, Path]:
    """Return the record files of an output folder by `method/seed-N.json`."""
    return {"/".join(path.parts[-2:]): path for path in sorted((output / "records").rglob("*.json"))}


def comparable_records(output: Path) -> dict[str, dict[str, Any]]:
    """Return all records of an output folder without times, memory, the hash over them, and the commit at the time."""
    records = {}
    for name, path in record_files(output).items():
        values = json.loads(path.read_text())
        del values["environment"]["commit"]
        records[name] = {key: value for key, value in values.items() if key not in {"measured", "hash"}}
    return records


def write_features_file(
    path: Path,
    *,
    labels: list[int],
    forget_classes: list[int],
    num_classes: int,
    logits: list[list[float]] | None = None,
    features: list[list[float]] | None = None,
    prototypes: list[list[float]] | None = None,
    limited_prototypes: list[list[float]] | None = None,
    counts: list[int] | None = None,
) -> Path:
    """Write a feature file with these test images by hand; what is left out is zero.

    The outputs stand for the classes 0, 1, 2 and so on.
    """
    rows, outputs = len(labels), len(logits[0]) if logits else num_classes
    width = len(features[0]) if features else 2
    numbers = np.array(counts or [2] * num_classes)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": FORMAT, "num_classes": num_classes, "forget_classes": forget_classes, "seed": 0})
        file.attrs.update({"model": "by-hand", "dataset": "by-hand", "dataset_revision": "1"})
        file["output_classes"], file["superclasses"] = np.arange(outputs), np.zeros(0, dtype=np.int64)
        file["classifier/weight"], file["classifier/bias"] = np.zeros((outputs, width)), np.zeros(outputs)
        for part in ("test", "limited"):
            file[f"{part}/labels"], file[f"{part}/ids"] = np.array(labels), np.arange(rows)
            file[f"{part}/logits"] = np.array(logits or np.zeros((rows, outputs)), dtype=np.float32)
            file[f"{part}/features"] = np.array(features or np.zeros((rows, width)), dtype=np.float32)
        for source, means in (("full", prototypes), ("limited", limited_prototypes or prototypes)):
            file[f"prototypes/{source}/counts"] = numbers
            file[f"prototypes/{source}/sums"] = np.array(means or np.zeros((num_classes, width))) * numbers[:, None]
    return path


HEADLINE = ("forget_accuracy", "forget_prototype_accuracy", "retain_accuracy")


def make_record(
    method: str,
    seed: int,
    *,
    metrics: Sequence[float | None] | None = (0.0, 0.5, 0.9),
    status: str = "done",
    reason: str | None = None,
    options: dict[str, Any] | None = None,
    problem: str = "problem",
    finished_at: str = "2026-01-01T10:00:00+00:00",
) -> Record:
    """Return a record made up by hand: FAe, FPAe and CAne in `metrics`, None for one that failed."""
    source = {"version": 1, "distribution": "made-up", "distribution_version": "1.0", "digest": "0" * 16}
    values: dict[str, Any] = {
        "schema_version": 2,
        "cell": f"{method}-{seed}",
        "status": status,
        "reason": reason,
        "manifest_name": "small",
        "manifest": {},
        "problem": {
            "id": problem,
            "slug": problem,
            "title": f"{problem}: forget 1 of 10 classes",
            "dataset": "digits",
            "dataset_options": {},
            "dataset_version": 1,
            "dataset_revision": "1",
            "architecture": "digits_net",
            "architecture_options": {},
            "architecture_version": 1,
            "weights": None,
            "start": None,
            "training": {"epochs": 2, "crop": None, "milestones": []},
            "num_classes": 10,
            "forget_classes": [9],
            "forget_class_names": ["nine"],
            "limited": "10 %",
            "limited_counts": [14] * 10,
            "train_images": 1352,
            "test_images": 445,
        },
        "method": {
            "label": method,
            "name": method,
            "role": "reference" if method in {"original", "fdr"} else "unlearner",
            "options": options or {},
            **source,
        },
        "seed": seed,
        "metrics": {
            name: {
                "name": name,
                "status": "failed" if value is None else "done",
                "value": value,
                "reason": "no image" if value is None else None,
                "options": {},
                **source,
            }
            for name, value in zip(HEADLINE, metrics or (), strict=metrics is not None)
        },
        "details": {},
        "image_reads": {"forget": 100, "retain": 1000},
        "networks": 2,
        "files": {},
        "environment": {"device": "a machine"},
        "measured": {
            "finished_at": finished_at,
            "seconds": {"unlearn": 1.5, "features": 9.0},
            "peak_memory_bytes": None,
        },
        "hash": "",
    }
    record = Record.model_validate_json(json.dumps(values))
    return record.model_copy(update={"hash": content_hash(record.model_dump(mode="json"))})


def with_changes(record: Record, **changes: Any) -> Record:
    """Return a record with other fields and the hash that goes with them."""
    return with_hash(record.model_copy(update=changes))


def write_records(folder: Path, records: Iterable[Record]) -> Path:
    """Lay records into a folder as a run does, and return the folder."""
    for record in records:
        place = f"{record.manifest_name}/{record.problem.slug}/{record.method.label.replace(' ', '-')}"
        write_record(record, folder / "records" / place / f"seed-{record.seed}.json")
    return folder


def small_board(problem: str = "problem") -> list[Record]:
    """Return records of a leaderboard: references, two ranked methods, one that lost CAne, one failed, one skipped."""
    values = {
        "original": ((0.9, 0.8, 0.90), (0.92, 0.82, 0.90)),
        "fdr": ((0.0, 0.5, 0.91), (0.0, 0.52, 0.91)),
        "good": ((0.0, 0.55, 0.90), (0.0, 0.56, 0.90)),
        "weak": ((0.5, 0.7, 0.90), (0.52, 0.7, 0.90)),
        "lossy": ((0.0, 0.3, 0.50), (0.0, 0.3, 0.52)),
    }
    options = {"good": {"epochs": 3, "mode": "a|b"}, "weak": {"rate": 0.1}}
    made = [
        make_record(method, seed, metrics=metrics, options=options.get(method), problem=problem)
        for method, by_seed in values.items()
        for seed, metrics in enumerate(by_seed)
    ]
    made += [
        make_record("broken", seed, status="failed", reason="ValueError: no\n  <b>way", metrics=None, problem=problem)
        for seed in (0, 1)
    ]
    made += [
        make_record("absent", seed, status="not_applicable", reason="needs batch norm", metrics=None, problem=problem)
        for seed in (0, 1)
    ]
    return made
