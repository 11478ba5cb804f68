"""Reading a manifest section by section, so that all faults are reported at once."""

from __future__ import annotations

import codecs
import itertools
import json
import math
import re
from collections import Counter
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any

import tomli
from pydantic import TypeAdapter, ValidationError

from unlearnbench.errors import Fault, InvalidFileError, ManifestError, WrongUseError, did_you_mean, unreadable
from unlearnbench.experiment.manifest import Manifest
from unlearnbench.experiment.messages import LISTS, fault_of, toml_hint
from unlearnbench.experiment.toml_positions import MOST_LEVELS, KeyPath, key_lines, leaves, line_of
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.terms import REFERENCES

# A manifest that nobody could run, or that nobody wrote by hand, is refused at once.
MOST_BYTES = 2**21
MOST_CELLS = 100_000
MOST_METRICS = 1_000

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
        # A dictionary keeps the order, and finds out about a second fault of thousands as fast as about the first.
        self.faults: dict[Fault, None] = {}
        self.missing: dict[Fault, None] = {}

    def fault(self, path: KeyPath, message: str) -> None:
        """Note a fault at a key, but only once, since the combinations of a matrix share their faults."""
        self._note(self.faults, path, message)

    def not_here(self, path: KeyPath, message: str) -> None:
        """Note that what a key names is not on this machine."""
        self._note(self.missing, path, message)

    def _note(self, notes: dict[Fault, None], path: KeyPath, message: str) -> None:
        notes[Fault(line_of(path, self.lines), ".".join(str(part) for part in path), message)] = None

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
        ManifestError: If it is not TOML, or too large to be run.
    """
    text = _text(path)
    raw = _parsed(path, text)
    raw.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-")[:100] or "manifest")
    file = ManifestFile(str(path), text, raw)
    _check_values(file)
    _check_size(file)
    for key in raw.keys() - Manifest.model_fields.keys():
        file.fault((key,), _unknown_key(key))
    for key, field in Manifest.model_fields.items():
        if key in raw:
            _check_section(file, key, field.annotation, field.metadata)
        elif field.is_required():
            file.fault((key,), "missing")
    _check_schedule(file)
    _check_momentum(file)
    _check_resolutions(file)
    for seed, times in sorted(Counter(file.sections.get("seeds", ())).items()):
        if times > 1:
            file.fault(("seeds",), f"{seed} stands there {times} times; every seed is run once")
    return file


def _text(path: Path) -> str:
    """Return the text of a file, which may begin with a mark that says it is UTF-8."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise WrongUseError(f"{path}: cannot be read: {error}") from error
    if len(content) > MOST_BYTES:
        raise InvalidFileError(f"{path}: more than {MOST_BYTES // 2**20} MiB; no manifest is that long")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidFileError(f"{path}: UTF-16 text\n  Save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidFileError(f"{path}: not UTF-8 text (byte {error.start})\n  Save it as UTF-8") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    """Return the values of a TOML text."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message = f"not valid TOML at column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        fault = Fault(error.lineno, "", f"{message}{toml_hint(text, error, LISTS)}")
    except RecursionError:
        fault = Fault(1, "", _too_deep())
    except ValueError:
        # Python does not read numbers of thousands of digits, because that would take long.
        number = re.search(r"\d[\d_]{4000,}", text)
        line = 1 + text.count("\n", 0, number.start() if number else 0)
        fault = Fault(line, "", "a number has thousands of digits")
    raise ManifestError(str(path), [fault])


def _too_deep() -> str:
    return f"tables and arrays lie in each other more than {MOST_LEVELS} levels deep"


def _check_values(file: ManifestFile) -> None:
    """Note values that no key takes.

    Raises:
        ManifestError: If some lie too deep, which is the only fault named then.
    """
    for path, value in leaves(file.raw):
        if len(path) > MOST_LEVELS:
            raise ManifestError(file.file, [Fault(line_of(path, file.lines), str(path[0]), _too_deep())])
        if isinstance(value, date | time):
            file.fault(path, f"{value.isoformat()} is a date or time, which no key takes; text stands in quotes")


def _check_size(file: ManifestFile) -> None:
    """Check that the plan is one that can be run, before any part of it is made.

    Raises:
        ManifestError: If it is too large, which is the only fault named then.
    """
    numbers = {
        "unlearners": len(REFERENCES) + sum(map(_combinations, _entries(file, "unlearners"))),
        "seeds": len(_entries(file, "seeds")),
        "problem": _combinations(file.raw.get("problem")),
    }
    cells = math.prod(numbers.values())
    if cells > MOST_CELLS:
        key = max(numbers, key=lambda name: numbers[name])
        message = (
            f"a plan of {cells:,} cells, and {MOST_CELLS:,} are the most: {numbers['problem']:,} problems, "
            f"{numbers['seeds']:,} seeds, {numbers['unlearners']:,} methods with the references\n"
            "  Make several manifests of it"
        )
        raise ManifestError(file.file, [Fault(line_of((key,), file.lines), key, message)])
    metrics = sum(map(_combinations, _entries(file, "metrics")))
    if metrics > MOST_METRICS:
        message = f"{metrics:,} metrics, and {MOST_METRICS:,} are the most"
        raise ManifestError(file.file, [Fault(line_of(("metrics",), file.lines), "metrics", message)])


def _entries(file: ManifestFile, key: str) -> list[Any]:
    value = file.raw.get(key)
    return value if isinstance(value, list) else []


def _combinations(entry: Any) -> int:
    """Return how many combinations an entry's matrix has, 1 if it has none."""
    matrix = entry.get("matrix") if isinstance(entry, dict) else None
    values = matrix.values() if isinstance(matrix, dict) else ()
    return math.prod(len(found) for found in values if isinstance(found, list))


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
