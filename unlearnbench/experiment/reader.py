"""Reading a manifest section by section, so that all faults are reported at once."""

from __future__ import annotations

import itertools
import json
import re
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any

import tomli
from pydantic import TypeAdapter, ValidationError

from unlearnbench.documents import read_text
from unlearnbench.errors import Fault, ManifestError, did_you_mean
from unlearnbench.experiment.manifest import Manifest
from unlearnbench.experiment.messages import LISTS, fault_of, toml_hint
from unlearnbench.experiment.toml_positions import MOST_LEVELS, KeyPath, key_lines, line_of, nested_too_deep
from unlearnbench.models.recipe import TrainingRecipe

LARGEST_BYTES = 2**20
# A manifest does not say these things, because the command line does.
_COMMAND_LINE = {"device": "--device", "jobs": "--jobs", "output": "--output", "only": "--only"}


class ManifestFile:
    """A manifest as it was read: its well-formed sections, and the faults of the others.

    Attributes:
        file: Path as the user gave it.
        sections: Checked values by top-level key; those with a fault are missing.
        faults: Faults found so far.
        missing: Things that are correct, but not on this machine.
    """

    def __init__(self, file: str, text: str, raw: dict[str, Any]) -> None:
        self.file = file
        self.raw = raw
        self.lines = key_lines(text)
        self.sections: dict[str, Any] = {}
        self.faults: list[Fault] = []
        self.missing: list[Fault] = []

    def fault(self, path: KeyPath, message: str) -> None:
        """Note a fault at a key, but only once, since the combinations of a matrix share their faults."""
        self._note(self.faults, path, message)

    def not_here(self, path: KeyPath, message: str) -> None:
        """Note that what a key names is not on this machine."""
        self._note(self.missing, path, message)

    def _note(self, notes: list[Fault], path: KeyPath, message: str) -> None:
        fault = Fault(line_of(path, self.lines), ".".join(str(part) for part in path), message)
        if fault not in notes:
            notes.append(fault)

    def raise_faults(self) -> None:
        """Raise all faults noted so far.

        Raises:
            ManifestError: If there is any fault.
        """
        if self.faults:
            raise ManifestError(self.file, self.faults)

    def manifest(self) -> Manifest:
        """Return the whole manifest.

        Raises:
            ManifestError: If the manifest has faults.
        """
        self.raise_faults()
        return Manifest(**self.sections)


def read_manifest(path: Path) -> ManifestFile:
    """Read a manifest and check its form, section by section, so that all faults are found at once.

    Raises:
        InvalidFileError: If the file cannot be read.
        ManifestError: If it is not TOML.
    """
    text = read_text(path, LARGEST_BYTES)
    deep = nested_too_deep(text)
    if deep is not None:
        raise ManifestError(str(path), [Fault(deep, "", f"nested more than {MOST_LEVELS} levels deep")])
    try:
        raw = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message = f"not valid TOML at column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        fault = Fault(error.lineno, "", f"{message}{toml_hint(text, error, LISTS)}")
        raise ManifestError(str(path), [fault]) from error
    # Python refuses to read an integer of thousands of digits.
    except ValueError as error:
        line = text.count("\n", 0, re.search(r"[0-9_]{4000}|$", text).start()) + 1  # type: ignore[union-attr]
        raise ManifestError(str(path), [Fault(line, "", "holds a number of too many digits")]) from error
    raw.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-")[:100] or "manifest")
    file = ManifestFile(str(path), text, raw)
    for key in raw.keys() - Manifest.model_fields.keys():
        file.fault((key,), _unknown_key(key))
    times = {path[0] for path in _note_times(file)}
    for key, field in Manifest.model_fields.items():
        if key in times:
            continue
        if key in raw:
            _check_section(file, key, field.annotation, field.metadata)
        elif field.is_required():
            file.fault((key,), "missing")
    _check_schedule(file)
    _check_momentum(file)
    _check_resolutions(file)
    seeds = file.sections.get("seeds", ())
    for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        file.fault(("seeds",), f"{seed} stands there {seeds.count(seed)} times; every seed is run once")
    return file


def _note_times(file: ManifestFile) -> list[KeyPath]:
    """Note every date or time, which no key takes, and return where they stand."""
    found: list[tuple[KeyPath, Any]] = [((key,), value) for key, value in file.raw.items()]
    times = []
    for path, value in found:
        if isinstance(value, dict | list):
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            found += [((*path, key), item) for key, item in inner]
        elif isinstance(value, date | time):
            times.append(path)
            file.fault(path, f'{value} is a date or a time for TOML\n  Text stands in quotes: "{value}"')
    return times


def _unknown_key(key: str) -> str:
    if key in _COMMAND_LINE:
        return f"stands on the command line\n  unlearnbench run MANIFEST {_COMMAND_LINE[key]} ..."
    return f"unknown key{did_you_mean(key, Manifest.model_fields)}"


def _check_schedule(file: ManifestFile) -> None:
    """Note what a recipe lacks for its schedule, or gives to a schedule that does not use it.

    The rule is applied only to manifests and not to every recipe, since stored recipes are read as they are.
    """
    recipe: TrainingRecipe | None = file.sections.get("training")
    if recipe is None:
        return
    if recipe.schedule == "steps":
        if not recipe.milestones:
            file.fault(
                ("training", "milestones"),
                'missing; schedule = "steps" lowers the rate after these epochs (schedule = "constant" keeps it)',
            )
        return
    for key in ("milestones", "factor"):
        # A manifest taken from a record states everything, including defaults.
        if getattr(recipe, key) != TrainingRecipe.model_fields[key].default:
            file.fault(("training", key), f'schedule = "{recipe.schedule}" has none; remove it')


def _check_momentum(file: ManifestFile) -> None:
    recipe: TrainingRecipe | None = file.sections.get("training")
    if recipe is not None and recipe.nesterov and not recipe.momentum:
        file.fault(("training", "nesterov"), "there is no momentum; give a momentum above 0 or remove nesterov")


def _check_resolutions(file: ManifestFile) -> None:
    """Note resolutions that do not grow from epoch to epoch, or leave no epoch to the full size."""
    recipe: TrainingRecipe | None = file.sections.get("training")
    if recipe is None:
        return
    pairs = [list(pair) for pair in recipe.resolutions]
    for before, after in itertools.pairwise(pairs):
        if before[0] >= after[0] or before[1] >= after[1]:
            file.fault(("training", "resolutions"), f"{after} after {before}: epochs and sides have to grow")
    if pairs and pairs[-1][0] >= recipe.epochs:
        file.fault(
            ("training", "resolutions"),
            f"{pairs[-1]} is no less than {recipe.epochs} epochs; the last epochs have the full size",
        )


def _check_section(file: ManifestFile, key: str, annotation: Any, metadata: list[Any]) -> None:
    """Put one checked section into `file`, or note its faults."""
    adapter = TypeAdapter[Any](Annotated[annotation, *metadata] if metadata else annotation)
    try:
        # JSON rules keep types strict, yet accept a TOML array for a tuple.
        file.sections[key] = adapter.validate_json(json.dumps(file.raw[key], default=str), strict=True)
    except ValidationError as error:
        messages: dict[KeyPath, list[str]] = {}
        for detail in error.errors():
            # An array whose items are wrong counts as empty too, but the faults of the items are clearer.
            if detail["type"] != "too_short" or not detail["input"]:
                path, message = fault_of(file.raw, annotation, (key, *detail["loc"]), dict(detail))
                messages.setdefault(path, []).append(message)
        for path, found in messages.items():
            file.fault(path, " and ".join(dict.fromkeys(found)))
