"""Manifests for tests: small ones to write, and a check of what a given one lacks on this machine."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

from unlearnbench.registry.entry_points import PluginKind, names

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
    """Return a small manifest: two epochs of a narrow network, with WD alone if no unlearner is given."""
    return "\n".join([head, dataset, architecture, problem, training, *(unlearners or (WD,))]) + "\n"


def write_manifest(folder: Path, text: str, name: str = "small.toml") -> Path:
    """Write a manifest and return its path."""
    path = folder / name
    path.write_text(text)
    return path


def missing_plugins(manifest: Path) -> str:
    """Return which plugins and distributions that a manifest needs are not installed; "" if all are."""
    raw = tomllib.loads(manifest.read_text())
    wanted: list[tuple[PluginKind, str]] = [("unlearners", entry["name"]) for entry in raw.get("unlearners", ())]
    wanted += [("datasets", raw["dataset"]["name"]), ("architectures", raw["architecture"]["name"])]
    lacking = [name for kind, name in wanted if name not in names(kind)]
    return ", ".join([*lacking, *(text for text in raw.get("requires", ()) if not is_installed(text))])


def is_installed(requirement: str) -> bool:
    """Return whether a distribution is installed, in any version."""
    try:
        version(Requirement(requirement).name)
    except PackageNotFoundError:
        return False
    return True
