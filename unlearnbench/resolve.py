"""From a manifest to what it means here: plugins found, options complete, problems and methods spelled out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from unlearnbench import __version__
from unlearnbench.catalogue import find_weights
from unlearnbench.dataset import NOT_HERE, Dataset, DatasetInfo, open_dataset
from unlearnbench.errors import DatasetError, NotHereError, PluginError
from unlearnbench.manifest import (
    ArchitectureChoice,
    LabelledChoice,
    Manifest,
    ManifestFile,
    ProblemChoice,
    TrainingRecipe,
    read_manifest,
)
from unlearnbench.naming import content_id, did_you_mean
from unlearnbench.options import resolve_options
from unlearnbench.registry import Kind, find
from unlearnbench.source import source_hash
from unlearnbench.split import limited_count
from unlearnbench.toml_lines import KeyPath
from unlearnbench.weights import Weights

Role = Literal["reference", "unlearner"]
WeightKey = Literal["weights", "start"]
_WEIGHT_KEYS: tuple[WeightKey, ...] = ("weights", "start")
HEADLINE = ("forget_accuracy", "forget_prototype_accuracy", "retain_accuracy")
# Beside them in every record: name and the options that differ from the defaults. All come from features alone.
STANDARD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("forget_prototype_accuracy", {"prototypes": "limited"}),
    ("forget_prototype_accuracy", {"distance": "cosine"}),
    ("retain_prototype_accuracy", {}),
    ("normalised_gap", {}),
    ("probe_recovery", {"shots": 1}),
    ("probe_recovery", {"shots": 5}),
    ("probe_recovery", {"shots": 10}),
    ("probe_recovery", {}),
    ("forget_neighbour_accuracy", {}),
    ("forget_neighbour_accuracy", {"neighbours": 20, "distance": "cosine"}),
    ("few_shot_relearning", {}),
    ("linear_cka", {"reference": "original", "images": "forget"}),
    ("linear_cka", {"reference": "original", "images": "retain"}),
    ("linear_cka", {"reference": "retrained", "images": "forget"}),
    ("linear_cka", {"reference": "retrained", "images": "retain"}),
    ("prediction_matrix", {}),
    ("prediction_entropy", {}),
    ("near_class_gap", {}),
    ("membership_inference", {}),
    ("js_divergence", {"images": "forget"}),
    ("js_divergence", {"images": "retain"}),
    ("speed_up", {}),
)


@dataclass(frozen=True)
class Component:
    """A plugin as it is used: everything about it that determines a result.

    Attributes:
        name: The plugin's name.
        options: All its options, as JSON values.
        distribution: Who ships it.
        version: That distribution's version.
        source: Hash of its source.
    """

    name: str
    options: dict[str, Any]
    distribution: str
    version: str
    source: str


@dataclass(frozen=True)
class Method(Component):
    """An unlearner or a reference model.

    Attributes:
        label: The name in tables, unique in a manifest.
        role: `reference` for Original and FDR.
    """

    label: str
    role: Role


@dataclass(frozen=True)
class Metric(Component):
    """A metric with its protocol.

    Attributes:
        label: The key in records, unique in a manifest.
    """

    label: str


@dataclass(frozen=True)
class Problem:
    """What is to be forgotten by which network.

    Attributes:
        dataset: The data set, as it is used.
        info: Its facts.
        architecture: The network.
        weights: Weights that are the original, None if it is trained.
        start: Weights from which training starts, None for random ones.
        recipe: The training recipe, as JSON values.
        forget_classes: Ascending class indices.
        limited_counts: K numbers of limited images.
        limited_text: How the manifest says it: "10 %" or "3 images".
    """

    dataset: Component
    info: DatasetInfo
    architecture: Component
    weights: Weights | None
    start: Weights | None
    recipe: dict[str, Any]
    forget_classes: tuple[int, ...]
    limited_counts: tuple[int, ...]
    limited_text: str

    @property
    def retain_classes(self) -> tuple[int, ...]:
        """The classes that stay, ascending."""
        return tuple(k for k in range(len(self.info.class_names)) if k not in self.forget_classes)

    @property
    def id(self) -> str:
        """Names the problem everywhere: results of one id can be compared."""
        return content_id(
            [self.dataset.name, self.dataset.options, self.info.revision],
            [self.architecture.name, self.architecture.options],
            [weights and weights.identity for weights in (self.weights, self.start)],
            self.recipe,
            self.forget_classes,
            self.limited_counts,
        )

    @property
    def slug(self) -> str:
        """The problem's name in paths."""
        limited = self.limited_text.replace(" ", "").replace("%", "pct")
        text = f"{self.dataset.name}-{self.architecture.name}-forget{len(self.forget_classes)}-{limited}-{self.id[:6]}"
        return re.sub(r"[^A-Za-z0-9._-]+", "-", text)

    @property
    def title(self) -> str:
        """The problem in one line."""
        return (
            f"{self.dataset.name} / {self.architecture.name}: forget {len(self.forget_classes)} of "
            f"{len(self.info.class_names)} classes, limited data {self.limited_text} per class"
        )


@dataclass(frozen=True)
class Resolved:
    """A manifest with nothing left to look up.

    Attributes:
        manifest: The manifest.
        file: Its path, as the user gave it.
        dataset: The data set, open.
        problems: One or, with a matrix, several.
        methods: References first, then unlearners in the manifest's order.
        metrics: Headline metrics first.
        missing: What would have to be fetched before it can run, as `file:line: key: message`.
    """

    manifest: Manifest
    file: str
    dataset: Dataset
    problems: tuple[Problem, ...]
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    missing: tuple[str, ...] = ()


def resolve(path: Path, *, to_run: bool = True) -> Resolved:
    """Read a manifest and look up all it names.

    Args:
        path: The manifest.
        to_run: Whether a data set or weights that are not on this machine are a fault. If not, what is known of
            their size stands in for them.

    Raises:
        InvalidFileError: If the file cannot be read.
        ManifestError: With all faults, form and names, at once.
    """
    file = read_manifest(path)
    dataset = _dataset(file)
    architecture = _component(file, "architectures", ("architecture",))
    methods = _methods(file)
    metrics = _metrics(file)
    choices = _problem_choices(file)
    weights = {key: _weights(file, key, path.parent, dataset) for key in _WEIGHT_KEYS}
    problems = []
    if dataset is not None:
        _check_recipe(file, dataset[1].info)
        for choice in choices:
            sides = _split_sides(file, choice, dataset[1].info)
            if sides is not None and architecture is not None and "training" in file.sections:
                problems.append(_problem(file, dataset, architecture, weights, choice, *sides))
    if len({problem.id for problem in problems}) < len(problems):
        file.fault(("problem", "matrix"), "two combinations are the same problem; remove one")
    if to_run:
        file.faults += file.missing
    manifest = file.manifest()
    assert dataset is not None  # its fault would have been raised
    missing = tuple(fault.describe(str(path)) for fault in file.missing)
    return Resolved(manifest, str(path), dataset[1], tuple(problems), methods, metrics, missing)


def _component(file: ManifestFile, kind: Kind, path: KeyPath) -> Component | None:
    """Look up a plugin and complete its options; note faults in `file`."""
    section: Any = file.raw
    for part in path:
        section = section.get(part) if isinstance(section, dict) else section[int(part)]
        if section is None:
            return None
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        return None
    given = section.get("options", {})
    return _lookup(file, kind, path, section["name"], given if isinstance(given, dict) else {})


def _lookup(
    file: ManifestFile, kind: Kind, path: KeyPath, name: str, given: dict[str, Any], matrix: Collection[str] = ()
) -> Component | None:
    try:
        plugin = find(kind, name)
        options, faults = resolve_options(plugin, given)
    except PluginError as error:
        file.fault((*path, "name"), str(error))
        return None
    for key, message in faults.items():
        file.fault((*path, "matrix" if key in matrix else "options", key), message)
    if faults:
        return None
    return Component(name, options, plugin.distribution, plugin.version, plugin.source)


def _dataset(file: ManifestFile) -> tuple[Component, Dataset] | None:
    component = _component(file, "datasets", ("dataset",))
    if component is None:
        return None
    try:
        return component, open_dataset(component.name, component.options)
    except NotHereError as error:
        file.not_here(("dataset", "name"), str(error))
        return component, error.stand_in
    except (DatasetError, PluginError) as error:
        file.fault(("dataset", "name"), str(error))
        return None


def _weights(
    file: ManifestFile, key: WeightKey, folder: Path, dataset: tuple[Component, Dataset] | None
) -> Weights | None:
    """Look up the weights of a key of the architecture; note a fault."""
    choice: ArchitectureChoice | None = file.sections.get("architecture")
    label = getattr(choice, key, None)
    if choice is None or label is None:
        return None
    try:
        weights = find_weights(choice.name, label, folder)
    except NotHereError as error:
        file.not_here(("architecture", key), str(error))
        weights = error.stand_in
    except DatasetError as error:
        file.fault(("architecture", key), str(error))
        return None
    outputs = weights.num_classes
    classes = len(dataset[1].info.class_names) if dataset else outputs
    if key == "weights" and dataset is not None and outputs is not None and outputs != classes:
        file.fault(
            ("architecture", key),
            f"{label!r} has {outputs} classes, {dataset[0].name} has {classes}: it cannot be the original\n"
            f'  To train from it: start = "{label}"',
        )
        return None
    return weights


def _check_recipe(file: ManifestFile, info: DatasetInfo) -> None:
    """Note what a training recipe asks of images that they cannot give."""
    recipe: TrainingRecipe | None = file.sections.get("training")
    if recipe is None:
        return
    channels, height, width = info.shape
    if recipe.crop is not None and recipe.crop > min(height, width):
        file.fault(("training", "crop"), f"{recipe.crop} is more than the {height}x{width} images of {info.name} have")
    for key in ("mean", "std"):
        values = getattr(recipe, key)
        if values is not None and len(values) != channels:
            file.fault(("training", key), f"{len(values)} numbers where {info.name} has {channels} channels")
    if (recipe.mean is None) != (recipe.std is None):
        given, other = ("mean", "std") if recipe.std is None else ("std", "mean")
        file.fault(("training", given), f"{given} is given without {other}; give both or none")


def _recipe(file: ManifestFile, weights: dict[WeightKey, Weights | None]) -> dict[str, Any]:
    """Return the recipe, with the normalisation that published weights were trained with unless it has its own."""
    recipe: dict[str, Any] = file.sections["training"].model_dump(mode="json")
    for given in (weights["weights"], weights["start"]):
        if recipe["mean"] is None and given is not None and given.mean is not None and given.std is not None:
            recipe.update(mean=list(given.mean), std=list(given.std))
    return recipe


def _variants(choice: LabelledChoice) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield label and options for every combination of a choice's matrix."""
    label = choice.label or choice.name
    for values in itertools.product(*choice.matrix.values()):
        setting = dict(zip(choice.matrix, values, strict=True))
        yield variant_label(label, setting), {**choice.options, **setting}


def variant_label(label: str, setting: dict[str, Any]) -> str:
    """Return a label with the options that tell it from others: "probe_recovery shots=5"."""
    return " ".join([label, *(f"{key}={_plain(value)}" for key, value in setting.items())])


def _plain(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[^A-Za-z0-9._+-]+", ",", text).strip(",")


def _labelled(
    file: ManifestFile, key: Literal["unlearners", "metrics"], reserved: tuple[str, ...]
) -> Iterator[tuple[str, Component]]:
    """Yield label and component of every entry of a list; note faults, doubled labels among them."""
    taken: dict[str, int | None] = dict.fromkeys(reserved)
    entries = file.raw.get(key)
    if key not in file.sections and isinstance(entries, list):
        # One entry is not well formed; the names and options of the others are looked up all the same.
        for index in range(len(entries)):
            _component(file, key, (key, index))
    for index, choice in enumerate(file.sections.get(key, ())):
        for name in choice.matrix.keys() & choice.options.keys():
            file.fault((key, index, "matrix", name), f"{name!r} stands among the options too; keep one")
        for label, options in _variants(choice):
            component = _lookup(file, key, (key, index), choice.name, options, choice.matrix)
            slug = label_slug(label)
            if slug not in taken:
                taken[slug] = index
                if component is not None:
                    yield label, component
            elif component is not None or choice.label:
                file.fault((key, index, "label" if choice.label else "name"), _doubled(label, key, taken[slug], index))


def _doubled(label: str, key: str, owner: int | None, index: int) -> str:
    """Return the fault of an entry whose label is taken, by the entry `owner` or by a reference (None)."""
    if owner == index:
        return f"two combinations of the matrix have the label {label!r}; remove one"
    claimed = f"the label {label!r} is taken by {key}.{owner}"
    reference = f"{label!r} is the name of a reference, which is always there"
    return f"{reference if owner is None else claimed}\n  Give this entry a label of its own: label = ..."


def label_slug(label: str) -> str:
    """Return a label as it stands in file names."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", label)


def references() -> tuple[Method, Method]:
    """Return the reference methods: Original and FDR (full data retraining)."""
    source = source_hash("unlearnbench.training")
    return (
        Method("original", {}, "unlearnbench", __version__, source, label="original", role="reference"),
        Method("fdr", {}, "unlearnbench", __version__, source, label="fdr", role="reference"),
    )


def _methods(file: ManifestFile) -> tuple[Method, ...]:
    reserved = references()
    found = tuple(
        Method(**vars(component), label=label, role="unlearner")
        for label, component in _labelled(file, "unlearners", tuple(method.label for method in reserved))
    )
    return (*reserved, *found)


def _metrics(file: ManifestFile) -> tuple[Metric, ...]:
    """Return the headline metrics, the standard ones and the manifest's own; those take the place of equal labels."""
    named = {label: Metric(**vars(component), label=label) for label, component in _labelled(file, "metrics", ())}
    usual = {label: (label, dict[str, Any]()) for label in HEADLINE}
    usual |= {variant_label(name, options): (name, options) for name, options in STANDARD}
    for label, (name, options) in usual.items():
        if label not in named:
            component = _lookup(file, "metrics", ("metrics",), name, options)
            if component is not None:
                named[label] = Metric(**vars(component), label=label)
    ordered = [*usual, *(label for label in named if label not in usual)]
    return tuple(named[label] for label in ordered if label in named)


def standard_metrics() -> tuple[Metric, ...]:
    """Return the metrics that stand in every record, headline metrics first.

    Raises:
        PluginError: If one is not installed.
    """
    found = []
    for name, given in [*((label, dict[str, Any]()) for label in HEADLINE), *STANDARD]:
        found.append(metric(name, given, variant_label(name, given)))
    return tuple(found)


def metric(name: str, given: dict[str, Any], label: str) -> Metric:
    """Return an installed metric with options.

    Raises:
        PluginError: If it is not installed or does not take the options.
    """
    plugin = find("metrics", name)
    options, faults = resolve_options(plugin, given)
    if faults:
        raise PluginError("\n".join(faults.values()))
    return Metric(name, options, plugin.distribution, plugin.version, plugin.source, label)


def _problem_choices(file: ManifestFile) -> tuple[ProblemChoice, ...]:
    """Return the problem of every combination of the problem's matrix."""
    choice: ProblemChoice | None = file.sections.get("problem")
    if choice is None:
        return ()
    valid = ProblemChoice.model_fields.keys() - {"matrix"}
    for key in choice.matrix.keys() - valid:
        file.fault(("problem", "matrix", key), f"unknown key{did_you_mean(key, valid)}")
    for key in sorted(choice.matrix.keys() & choice.model_fields_set):
        file.fault(("problem", "matrix", key), f"{key!r} stands in [problem] too; keep one")
    if choice.matrix.keys() - valid:
        return ()
    base = choice.model_dump(exclude={"matrix"})
    found = []
    for values in itertools.product(*choice.matrix.values()):
        setting = dict(zip(choice.matrix, values, strict=True))
        try:
            found.append(ProblemChoice.model_validate({**base, **_tuples(setting)}))
        except ValidationError as error:
            key = str(error.errors()[0]["loc"][0])
            file.fault(("problem", "matrix", key), f"{setting[key]!r} is not a value of {key}")
    return tuple(found)


def _tuples(setting: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in setting.items()}


def _split_sides(
    file: ManifestFile, choice: ProblemChoice, info: DatasetInfo
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return forget classes and limited counts, or None with the faults noted."""
    forget = _forget_classes(file, choice, info)
    counts = _limited_counts(file, choice, info)
    return None if forget is None or counts is None else (forget, counts)


def _one_of(file: ManifestFile, choice: ProblemChoice, first: str, second: str) -> str | None:
    """Return which of two keys is set; note a fault unless it is exactly one."""
    given = [key for key in (first, second) if getattr(choice, key) is not None]
    if len(given) == 1:
        return given[0]
    message = f"both {first} and {second} are given; keep one" if given else f"{first} or {second} is missing"
    file.fault(_place(file, second) if given else ("problem",), message)
    return None


def _place(file: ManifestFile, key: str) -> KeyPath:
    """Return where a key of the problem is set: in its table or in its matrix."""
    return ("problem", key) if getattr(file.sections["problem"], key) is not None else ("problem", "matrix", key)


def _forget_classes(file: ManifestFile, choice: ProblemChoice, info: DatasetInfo) -> tuple[int, ...] | None:
    key = _one_of(file, choice, "forget_classes", "forget_last")
    if key is None:
        return None
    path = _place(file, key)
    total = len(info.class_names)
    if key == "forget_last":
        last = choice.forget_last or 0
        if not 0 < last < total:
            file.fault(path, f"{last} is not possible: {info.name} has {total} classes; 1 to {total - 1} can go")
            return None
        return tuple(range(total - last, total))
    chosen = []
    for position, given in enumerate(choice.forget_classes or ()):
        if isinstance(given, str) and info.revision == NOT_HERE:
            # The names are not known without the data; any class will do to count images.
            chosen.append(total - 1 - position)
            continue
        index = info.class_names.index(given) if given in info.class_names else given
        if not isinstance(index, int) or not 0 <= index < total:
            names = did_you_mean(given, info.class_names) if isinstance(given, str) else ""
            file.fault(path, f"{info.name} has no class {given!r}: its classes are 0 to {total - 1}{names}")
            return None
        chosen.append(index)
    forget = tuple(sorted(set(chosen)))
    if len(forget) != len(chosen):
        file.fault(path, "a class is named twice")
    elif not forget:
        file.fault(path, f"no class is forgotten; name 1 to {total - 1} of the {total} classes of {info.name}")
    elif len(forget) == total:
        file.fault(path, f"all {total} classes of {info.name} are forgotten; at least one must stay")
    else:
        return forget
    return None


def _limited_counts(file: ManifestFile, choice: ProblemChoice, info: DatasetInfo) -> tuple[int, ...] | None:
    key = _one_of(file, choice, "limited_share", "limited_images_per_class")
    if key is None:
        return None
    path = _place(file, key)
    share, per_class = choice.limited_share, choice.limited_images_per_class
    if share is not None and not 0 < share <= 1:
        file.fault(path, f"{share:g} is not a share of the training images; above 0, at most 1")
        return None
    counts = tuple(limited_count(available, share, per_class) for available in info.train_counts)
    for name, count, available in zip(info.class_names, counts, info.train_counts, strict=True):
        if not 0 < count <= available:
            file.fault(path, f"{count} images of class {name!r} cannot be left: 1 to {available} are there")
            return None
    return counts


def _problem(
    file: ManifestFile,
    dataset: tuple[Component, Dataset],
    architecture: Component,
    weights: dict[WeightKey, Weights | None],
    choice: ProblemChoice,
    forget: tuple[int, ...],
    counts: tuple[int, ...],
) -> Problem:
    if choice.limited_share is not None:
        limited = f"{choice.limited_share * 100:.10g} %"
    else:
        limited = f"{choice.limited_images_per_class} image{'s' if choice.limited_images_per_class != 1 else ''}"
    return Problem(
        dataset=dataset[0],
        info=dataset[1].info,
        architecture=architecture,
        weights=weights["weights"],
        start=weights["start"],
        recipe=_recipe(file, weights),
        forget_classes=forget,
        limited_counts=counts,
        limited_text=limited,
    )
