"""The checks of `doctor`, which show whether this installation is able to run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import tomli

from unlearnbench.datasets.dataset import data_folder
from unlearnbench.engine.processes.fence import landlock
from unlearnbench.errors import PluginError, first_line, os_reason
from unlearnbench.machine import cores, library_versions, processor_name
from unlearnbench.registry.entry_points import KINDS, find, names
from unlearnbench.store import lock_fault


@dataclass(frozen=True)
class Diagnosis:
    """The outcome of one check.

    Attributes:
        what: Name of what was checked.
        text: What was found, and how to correct it.
        good: Whether it is as it should be.
    """

    what: str
    text: str
    good: bool


def diagnoses(output: Path) -> Iterator[Diagnosis]:
    """Yield the diagnoses of all checks, one after another.

    Args:
        output: Output folder that a run is to have; it need not exist yet.
    """
    for name, version in library_versions().items():
        mend = f"missing\n           pip install {name}"
        yield Diagnosis(name, version or mend, version is not None)
    yield _torch_pair()
    yield _device()
    yield Diagnosis("data folder", *_folder(data_folder()))
    yield Diagnosis("output folder", *_output(output))
    yield _fence()
    yield from _stale_installation(Path(__file__).parents[2] / "pyproject.toml")
    yield from _plugins()


def _torch_pair() -> Diagnosis:
    """Import torchvision, which fails if it was built for another version of torch."""
    try:
        torch = import_module("torch")
        import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        reason = first_line(error)
        return Diagnosis(
            "torch and torchvision",
            f"do not work together: {reason}\n"
            "           install both together: pip install --force-reinstall torch torchvision",
            False,
        )
    return Diagnosis("torch and torchvision", f"work together (torch {torch.__version__})", True)


def _device() -> Diagnosis:
    try:
        torch = import_module("torch")
    except (ImportError, OSError):
        return Diagnosis("device", "not known without torch", False)
    if torch.cuda.is_available():
        return Diagnosis("device", f"{torch.cuda.get_device_name()} (cuda)", True)
    return Diagnosis("device", f"{processor_name()}, {cores()} cores (cpu); no GPU that torch can use", True)


def _nearest(folder: Path) -> Path:
    """Return a folder if it exists, or else the nearest one above it."""
    # Unlike `exists`, `access` also answers for files in a folder that cannot be read.
    return next((parent for parent in (folder, *folder.parents) if os.access(parent, os.F_OK)), folder)


def _output(folder: Path) -> tuple[str, bool]:
    place = _nearest(folder.absolute())
    if not place.is_dir():
        return f"{place} is not a folder; name another with --output", False
    try:
        fault = lock_fault(place)
    except OSError as error:
        return f"{folder} cannot be written: {os_reason(error)}; name another with --output", False
    if fault:
        return f"the file system of {folder} has no locks: {fault}; name a folder on another with --output", False
    return f"{folder} can be written, and locks work there", True


def _folder(folder: Path) -> tuple[str, bool]:
    place = _nearest(folder)
    if not place.is_dir():
        return f"{place} is not a folder; set UNLEARNBENCH_DATA to another", False
    if not os.access(place, os.R_OK | os.X_OK):
        return f"{place} cannot be read; set UNLEARNBENCH_DATA to another", False
    if not os.access(place, os.W_OK):
        return f"{folder} cannot be written; set UNLEARNBENCH_DATA to another", False
    return f"{folder}{'' if place == folder else ' (made when a data set is added)'}", True


def _fence() -> Diagnosis:
    if version := landlock():
        text = f"run behind a fence (Landlock {version}), which closes results and data to them"
    else:
        text = "run without a fence, since this system has no Landlock; run only methods that you trust"
    return Diagnosis("methods", text, True)


def _stale_installation(project: Path) -> Iterator[Diagnosis]:
    """Yield what an editable installation lacks of its source tree, since new plugins count only once installed."""
    if not project.is_file():
        return
    groups = tomli.loads(project.read_text(encoding="utf-8"))["project"].get("entry-points", {})
    try:
        installed = distribution("unlearnbench").entry_points
    except PackageNotFoundError:
        return  # The check of the plugins reports this, since there are none then.
    declared = {(group, *entry) for group, entries in groups.items() for entry in entries.items()}
    known = {(entry.group, entry.name, entry.value) for entry in installed if entry.group != "console_scripts"}
    changed = sorted({name for _, name, _ in declared ^ known})
    if changed:
        text = f"older than {project}: {', '.join(changed)}\n           in {project.parent}: pip install -e ."
        yield Diagnosis("installation", text, False)


def _try_loading(unlearner: str) -> None:
    from unlearnbench.engine.processes.isolated import try_loading

    try_loading("unlearners", unlearner)


def _plugins() -> Iterator[Diagnosis]:
    for kind in KINDS:
        broken = []
        for name in names(kind):
            try:
                if kind == "unlearners" and library_versions()["torch"] is not None:
                    _try_loading(name)
                else:
                    find(kind, name).load()
            except PluginError as error:
                broken.append(str(error))
        count = f"{len(names(kind))} installed"
        # The package itself has no federation engine, since it plays rounds without one.
        if not names(kind) and kind != "federations":
            broken.append("none; install the package itself: pip install -e .")
        yield Diagnosis(kind, "; ".join(broken) if broken else count, not broken)
