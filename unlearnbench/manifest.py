"""The manifest: one TOML file that says what is run. Only its form is checked here; `resolve` checks its names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from unlearnbench.errors import Fault, InvalidFileError, ManifestError
from unlearnbench.manifest_faults import LISTS, fault_of
from unlearnbench.naming import did_you_mean
from unlearnbench.toml_hints import toml_hint
from unlearnbench.toml_lines import KeyPath, key_lines, line_of

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+, -]*$", max_length=100)]
PositiveInt = Annotated[int, Field(gt=0)]
# What HDF5 and safetensors can hold.
Seed = Annotated[int, Field(ge=0, lt=2**63)]

# What a manifest does not say, because the command line does.
_COMMAND_LINE = {"device": "--device", "jobs": "--jobs", "output": "--output", "only": "--only"}


class Section(BaseModel):
    """A table of a manifest: frozen, strict on types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Choice(Section):
    """A plugin by its name, with options.

    Attributes:
        name: The plugin's name.
        options: Its options; what is left out keeps its default.
    """

    name: str
    options: dict[str, Any] = {}


class LabelledChoice(Choice):
    """A plugin that can stand in a manifest more than once.

    Attributes:
        label: The name in tables; the plugin's name where left out.
        matrix: Option names, each with a list of values: one entry for every combination.
    """

    label: Name | None = None
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}


class UnlearnerChoice(LabelledChoice):
    """A method.

    Attributes:
        keep: Options that `tune` leaves as they are, because they say which method this is.
    """

    keep: tuple[str, ...] = ()


class ArchitectureChoice(Choice):
    """The network.

    Weights are the name of published ones ("pytorchcv", "IMAGENET1K_V1") or the path of a checkpoint, relative
    to the manifest's folder.

    Attributes:
        weights: Weights that are the original model: nobody trains it, and it is the same for every seed. FDR is
            trained all the same.
        start: Weights from which training starts, of the original (unless `weights` is it), of FDR and of methods that
            begin where the original began; None for random ones. A classifier of another number of classes is
            replaced by a random one.
    """

    weights: str | None = None
    start: str | None = None


class TrainingRecipe(Section):
    """How original and retrained models are trained; methods with a full schedule follow it too.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images in a step.
        learning_rate: Of SGD; the highest one of a one-cycle schedule.
        momentum: Of SGD.
        weight_decay: Of SGD, on all parameters.
        schedule: `steps` multiplies the rate by `factor` after each of `milestones`; `one_cycle` raises it
            linearly from 1/25 over the first 30 % of the steps, then lowers it by a cosine to 1/10,000;
            `constant` keeps it.
        milestones: Epochs after which `steps` lowers the rate; a manifest with `steps` has to name them.
        factor: What `steps` multiplies the rate by.
        crop: Side of the square that training crops at random and testing from the centre; None keeps the size.
        padding: Zero pixels added on each side before a random crop.
        horizontal_flip: Mirror every second training image, at random.
        mean: What is subtracted from each channel, in [0, 1]; None takes the weights' own where they are published,
            else the data set's.
        std: What each channel is divided by, likewise.
        precision: Of the forward and backward pass in training: `auto` is bfloat16 where the hardware
            computes in it, else float32. Master weights and evaluation are float32.
    """

    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["steps", "one_cycle", "constant"] = "steps"
    milestones: tuple[PositiveInt, ...] = ()
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    crop: PositiveInt | None = None
    padding: Annotated[int, Field(ge=0)] = 0
    horizontal_flip: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


def recipe_identity(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what of a recipe's JSON values determines a result: all fields that are not off.

    A field that is None, false or empty is as good as absent, so that a recipe keeps its identity when later versions
    know more fields.
    """
    return {key: value for key, value in recipe.items() if value is not None and value is not False and value != []}


class ProblemChoice(Section):
    """What is forgotten, and which data are left.

    Attributes:
        forget_classes: Class indices or names.
        forget_last: The last so many classes, in place of `forget_classes`.
        limited_share: Share of each class's training images that is left, in (0, 1], rounded up.
        limited_images_per_class: Number of training images of each class that is left, in place of a share.
        matrix: Keys of this table, each with a list of values: one problem for every combination.
    """

    forget_classes: tuple[int | str, ...] | None = None
    forget_last: int | None = None
    limited_share: float | None = None
    limited_images_per_class: int | None = None
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}


class Tuning(Section):
    """The budget under which the options of a manifest were searched.

    Attributes:
        trials: Settings that were tried of each method, the manifest's own among them.
        seeds: The seeds of these trials; none of them is a seed of the manifest.
        held_out_share: Share of each class's training images that the trials were judged on.
        not_searched: Labels of the methods without ranges; they kept their options.
    """

    trials: PositiveInt
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    held_out_share: Annotated[float, Field(gt=0, lt=1)]
    not_searched: tuple[str, ...] = ()


class Bound(Section):
    """What a metric's mean over the seeds must keep to.

    Attributes:
        min: At least this.
        max: At most this.
    """

    min: float | None = None
    max: float | None = None


class Manifest(Section):
    """A whole manifest.

    Attributes:
        name: Names the records; the file's name where left out.
        description: For readers.
        requires: Distributions that its plugins come from, as pip takes them: "unlearnbench-zoo>=0.1".
        seeds: Each is an original/retrained pair and a limited subset of its own.
        dataset: The data set.
        architecture: The network.
        problem: Forget classes and limited data.
        training: The recipe of the reference models.
        unlearners: The methods; Original and FDR are always there.
        metrics: Metrics beside those that stand in every record, or those with other options.
        feature_dtype: In which features are stored. Half precision takes half the room; logits and prototypes stay
            as they are.
        expect: Bounds by method and metric, which pytest checks when it is given the manifest.
        tuning: The budget under which the options were searched; written by `tune`.
        evaluate_every: Judge FAe, FPAe and CAne after every so many epochs of each method; 0 only at the end.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    description: str = ""
    requires: tuple[str, ...] = ()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    dataset: Choice
    architecture: ArchitectureChoice
    problem: ProblemChoice
    training: TrainingRecipe
    unlearners: tuple[UnlearnerChoice, ...] = ()
    metrics: tuple[LabelledChoice, ...] = ()
    feature_dtype: Literal["float32", "float16"] = "float32"
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    expect: dict[str, dict[str, Bound]] = {}
    tuning: Tuning | None = None


class ManifestFile:
    """A manifest as it was read: the sections that are well formed, and the faults of the others.

    Attributes:
        file: The path as the user gave it.
        sections: Checked values by top-level key; those with a fault are missing.
        faults: What is wrong so far.
        missing: What is right, but not on this machine.
    """

    def __init__(self, file: str, text: str, raw: dict[str, Any]) -> None:
        self.file = file
        self.raw = raw
        self.lines = key_lines(text)
        self.sections: dict[str, Any] = {}
        self.faults: list[Fault] = []
        self.missing: list[Fault] = []

    def fault(self, path: KeyPath, message: str) -> None:
        """Note a fault at a key, once: the combinations of a matrix share their faults."""
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
            ManifestError: If there is any.
        """
        if self.faults:
            raise ManifestError(self.file, self.faults)

    def manifest(self) -> Manifest:
        """Return the whole manifest.

        Raises:
            ManifestError: If it has faults.
        """
        self.raise_faults()
        return Manifest(**self.sections)


def read_manifest(path: Path) -> ManifestFile:
    """Read a manifest and check its form, section by section, so that all faults are found at once.

    Raises:
        InvalidFileError: If the file cannot be read.
        ManifestError: If it is not TOML.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidFileError(f"{path}: not UTF-8 text (byte {error.start})") from error
    try:
        raw = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message = f"not valid TOML at column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        fault = Fault(error.lineno, "", f"{message}{toml_hint(text, error, LISTS)}")
        raise ManifestError(str(path), [fault]) from error
    raw.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-")[:100] or "manifest")
    file = ManifestFile(str(path), text, raw)
    for key in raw.keys() - Manifest.model_fields.keys():
        file.fault((key,), _unknown_key(key))
    for key, field in Manifest.model_fields.items():
        if key in raw:
            _check_section(file, key, field.annotation, field.metadata)
        elif field.is_required():
            file.fault((key,), "missing")
    _check_schedule(file)
    seeds = file.sections.get("seeds", ())
    for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        file.fault(("seeds",), f"{seed} stands there {seeds.count(seed)} times; every seed is run once")
    return file


def _unknown_key(key: str) -> str:
    if key in _COMMAND_LINE:
        return f"stands on the command line\n  unlearnbench run MANIFEST {_COMMAND_LINE[key]} ..."
    return f"unknown key{did_you_mean(key, Manifest.model_fields)}"


def _check_schedule(file: ManifestFile) -> None:
    """Note what a recipe leaves out of its schedule, or gives to one that has no use for it.

    Only a manifest is held to it, not every recipe: stored ones are read as they were.
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
        # A manifest out of a record says all, the defaults too.
        if getattr(recipe, key) != TrainingRecipe.model_fields[key].default:
            file.fault(("training", key), f'schedule = "{recipe.schedule}" has none; remove it')


def _check_section(file: ManifestFile, key: str, annotation: Any, metadata: list[Any]) -> None:
    """Put one checked section into `file`, or its faults."""
    adapter = TypeAdapter[Any](Annotated[annotation, *metadata] if metadata else annotation)
    try:
        # JSON rules keep types strict and yet let a TOML array be a tuple.
        file.sections[key] = adapter.validate_json(json.dumps(file.raw[key], default=str), strict=True)
    except ValidationError as error:
        messages: dict[KeyPath, list[str]] = {}
        for detail in error.errors():
            # An array whose items are wrong counts as empty too; the items' faults say it better.
            if detail["type"] != "too_short" or not detail["input"]:
                path, message = fault_of(file.raw, annotation, (key, *detail["loc"]), dict(detail))
                messages.setdefault(path, []).append(message)
        for path, found in messages.items():
            file.fault(path, " and ".join(dict.fromkeys(found)))
