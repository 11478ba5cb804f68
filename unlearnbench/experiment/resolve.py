"""From a manifest to its meaning on this machine: every name is looked up and every fault noted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from unlearnbench.datasets.dataset import Dataset, DatasetInfo, open_dataset
from unlearnbench.errors import DatasetError, NotHereError, PluginError, did_you_mean
from unlearnbench.experiment.components import find_component, find_methods, find_metrics
from unlearnbench.experiment.manifest import (
    ArchitectureChoice,
    Bound,
    Manifest,
    ProblemChoice,
    ReferencesChoice,
    Tuning,
    WeightKey,
    named_weights,
)
from unlearnbench.experiment.problem import Problem, class_order, problem_choices, split_sides
from unlearnbench.experiment.reader import ManifestFile, read_manifest
from unlearnbench.experiment.scenarios.federation import check_federation, check_shares, find_engine
from unlearnbench.experiment.toml_positions import KeyPath
from unlearnbench.machine import source_folder
from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.weights import Weights, find_weights
from unlearnbench.registry.component import Component, Method, Metric
from unlearnbench.terms import DIFFERENCES, SHARES


def load_manifest(path: Path | str) -> Resolved:
    """Return a manifest with everything that it names looked up, ready to be run.

    Args:
        path: Path of the manifest, a TOML file.

    Raises:
        InvalidFileError: If the file cannot be read.
        ManifestError: If the manifest has faults, all of which are named.
    """
    return resolve(Path(path))


def resolve(path: Path, *, to_run: bool = True) -> Resolved:
    """Read a manifest and look up everything that it names.

    Args:
        path: Path of the manifest.
        to_run: Whether a data set or weights that are not on this machine count as a fault. If not, what is known of
            their size stands in for them.

    Raises:
        InvalidFileError: If the file cannot be read.
        ManifestError: If the manifest has faults of form or names, all of which are named.
    """
    file = read_manifest(path)
    check_requires(file)
    dataset = _dataset(file)
    architecture = find_component(file, "architectures", ("architecture",))
    methods = find_methods(file)
    metrics = find_metrics(file)
    _check_expectations(file, methods, metrics)
    _check_tuning(file)
    choices = problem_choices(file)
    weights = {key: _weights(file, key, *named, path.parent, dataset) for key, named in _named_weights(file).items()}
    network: ArchitectureChoice | None = file.sections.get("architecture")
    if network is not None and network.class_order is not None and not weights.keys() - {"start"}:
        file.fault(("architecture", "class_order"), "orders the outputs of `weights`, which are not given")
    problems = []
    engine = find_engine(file)
    if dataset is not None:
        _check_recipe(file, dataset[1].info, weights)
        _check_processes(file)
        federation = check_federation(file, dataset[1].info)
        for choice in choices:
            sides = split_sides(file, choice, dataset[1].info)
            if sides is not None and federation is not None:
                check_shares(file, federation, dataset[1].info, sides[0])
            if sides is not None and architecture is not None and "training" in file.sections:
                problem = _problem(file, dataset, architecture, weights, choice, *sides)
                problems.append(replace(problem, engine=engine))
    if len({problem.id for problem in problems}) < len(problems):
        file.fault(("problem", "matrix"), "two combinations are the same problem; remove one")
    if to_run:
        file.faults |= file.missing
    manifest = file.manifest()
    assert dataset is not None  # A fault would have been raised otherwise.
    missing = tuple(fault.describe(str(path)) for fault in file.missing)
    return Resolved(manifest, str(path), dataset[1], tuple(problems), methods, metrics, missing)


def _check_expectations(file: ManifestFile, methods: Sequence[Method], metrics: Sequence[Metric]) -> None:
    """Note faults in `expect`: unknown names, and bounds that limit nothing or exclude everything."""
    # If an entry is faulty itself, not all labels are known.
    whole = not any(fault.key.startswith(("unlearners", "metrics")) for fault in file.faults)
    labels, known = [method.label for method in methods], [metric.label for metric in metrics]
    for label, bounds in file.sections.get("expect", {}).items():
        if whole and label not in labels:
            file.fault(("expect", label), f"no method has this label{did_you_mean(label, labels)}")
        for metric, bound in bounds.items():
            path = ("expect", label, metric)
            if whole and metric not in known:
                file.fault(path, f"no metric has this label{did_you_mean(metric, known)}")
            if bound.min is None and bound.max is None:
                file.fault(path, "bounds nothing; give min or max")
            elif bound.min is not None and bound.max is not None and bound.min > bound.max:
                file.fault(path, f"min {bound.min:g} is above max {bound.max:g}")
            _check_shares(file, path, bound, next((known.name for known in metrics if known.label == metric), ""))


def _check_shares(file: ManifestFile, path: KeyPath, bound: Bound, metric: str) -> None:
    """Note bounds that a share of images, or a difference of two, keeps whatever it is, or never keeps."""
    lowest = -1 if metric in DIFFERENCES else 0
    for key, value in (("min", bound.min), ("max", bound.max)):
        if metric in SHARES and value is not None and not lowest <= value <= 1:
            file.fault((*path, key), f"{value:g} is outside [{lowest}, 1]; bounds are fractions, not percent")


def _check_tuning(file: ManifestFile) -> None:
    """Note a fault if options were searched on a seed that they are judged on."""
    tuning: Tuning | None = file.sections.get("tuning")
    shared = sorted(set(file.sections.get("seeds", ())) & set(tuning.seeds if tuning else ()))
    if shared:
        file.fault(("tuning", "seeds"), f"{shared[0]} is a seed of the manifest; options are searched on other seeds")


def _dataset(file: ManifestFile) -> tuple[Component, Dataset] | None:
    component = find_component(file, "datasets", ("dataset",))
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


def _named_weights(file: ManifestFile) -> dict[WeightKey, tuple[tuple[str, str], str]]:
    """Return the weights that a manifest names, each with its key; note a fault where there can be no original."""
    architecture: ArchitectureChoice | None = file.sections.get("architecture")
    references: ReferencesChoice = file.sections.get("references", ReferencesChoice())
    if references.original == "none":
        file.fault(("references", "original"), 'every method starts from the original: "train", or a checkpoint')
    elif references.original != "train" and architecture is not None and architecture.weights is not None:
        file.fault(("references", "original"), "architecture.weights is the original too; keep one of the two")
    return named_weights(architecture, references)


def _weights(
    file: ManifestFile,
    key: WeightKey,
    path: KeyPath,
    label: str,
    folder: Path,
    dataset: tuple[Component, Dataset] | None,
) -> Weights | None:
    """Look up the weights that a key of the manifest names, and note a fault if they are missing."""
    choice: ArchitectureChoice | None = file.sections.get("architecture")
    if choice is None:
        return None
    try:
        weights = find_weights(choice.name, label, folder)
    except NotHereError as error:
        file.not_here(path, str(error))
        weights = error.stand_in
    except DatasetError as error:
        file.fault(path, str(error))
        return None
    outputs = weights.num_classes
    classes = len(dataset[1].info.class_names) if dataset else outputs
    if key != "start" and dataset is not None and outputs is not None and outputs != classes:
        role = {"weights": "the original", "fdr": "FDR"}[key]
        hint = f'\n  To train from it: start = "{label}"' if key == "weights" else ""
        file.fault(path, f"{label!r} has {outputs} classes, {dataset[0].name} has {classes}: it cannot be {role}{hint}")
        return None
    if key != "start" and dataset is not None and choice.class_order is not None:
        order = class_order(file, choice.class_order, dataset[1].info)
        return weights.in_order(order) if order is not None else None
    return weights


def _check_recipe(file: ManifestFile, info: DatasetInfo, weights: dict[WeightKey, Weights | None]) -> None:
    """Note what a training recipe asks of images that they cannot provide."""
    recipe: TrainingRecipe | None = file.sections.get("training")
    if recipe is None:
        return
    channels, height, width = info.shape
    if recipe.crop is not None and recipe.crop > min(height, width):
        file.fault(("training", "crop"), f"{recipe.crop} is more than the {height}x{width} images of {info.name} have")
    for published in weights.values():
        if recipe.crop is None and published is not None and (published.side or 0) > min(height, width):
            file.fault(
                ("training",),
                f"{published.label!r} takes {published.side} pixels a side, {info.name} has {height}x{width}\n"
                "  Add the images with that side, or set `crop` in [training] to the size that the network is to see",
            )
    side = recipe.crop or min(height, width)
    if recipe.padding > side:
        file.fault(("training", "padding"), f"{recipe.padding} is more than the {side} pixels of the shorter side")
    if recipe.resolutions and recipe.resolutions[-1][1] >= side:
        file.fault(
            ("training", "resolutions"),
            f"{recipe.resolutions[-1][1]} is no less than the {side} pixels at full size; give smaller sides",
        )
    for key in ("mean", "std"):
        values = getattr(recipe, key)
        if values is not None and len(values) != channels:
            file.fault(("training", key), f"{len(values)} numbers where {info.name} has {channels} channels")
    if (recipe.mean is None) != (recipe.std is None):
        given, other = ("mean", "std") if recipe.std is None else ("std", "mean")
        file.fault(("training", given), f"{given} is given without {other}; give both or none")


def _check_processes(file: ManifestFile) -> None:
    """Note that batches are too small to be shared out among the processes of a training."""
    recipe: TrainingRecipe | None = file.sections.get("training")
    processes = file.sections.get("devices_per_training") or 1
    if processes > 1 and "federation" in file.sections:
        file.fault(("devices_per_training",), "the parties of a federation train on one device each; remove it")
    if recipe is not None and processes > 1 and recipe.batch_size < 2 * processes:
        file.fault(
            ("devices_per_training",),
            f"{processes} devices share the {recipe.batch_size} images of a batch, and each needs two at least\n"
            f"  Give {recipe.batch_size // 2 or 1} devices, or a batch_size of {2 * processes}",
        )


def _recipe(file: ManifestFile, weights: dict[WeightKey, Weights | None]) -> dict[str, Any]:
    """Return the recipe, with the normalisation and size of the published weights' images unless it has its own."""
    recipe: dict[str, Any] = file.sections["training"].model_dump(mode="json")
    for given in (weights.get("weights"), weights.get("start")):
        if recipe["crop"] is None and given is not None:
            recipe["crop"] = given.side
        if recipe["mean"] is None and given is not None and given.mean is not None and given.std is not None:
            recipe.update(mean=list(given.mean), std=list(given.std))
    return recipe


def _problem(
    file: ManifestFile,
    dataset: tuple[Component, Dataset],
    architecture: Component,
    weights: dict[WeightKey, Weights | None],
    choice: ProblemChoice,
    forget: tuple[int, ...],
    counts: tuple[int, ...],
) -> Problem:
    federation: Federation | None = file.sections.get("federation")
    if federation is not None and federation.party is not None:
        limited = f"party {federation.party}"
    elif choice.limited_share is not None:
        limited = f"{choice.limited_share * 100:.10g} %"
    else:
        limited = f"{choice.limited_images_per_class} image{'s' if choice.limited_images_per_class != 1 else ''}"
    return Problem(
        dataset=dataset[0],
        info=dataset[1].info,
        architecture=architecture,
        weights=weights.get("weights"),
        start=weights.get("start"),
        fdr=weights.get("fdr"),
        has_fdr=file.sections.get("references", ReferencesChoice()).fdr != "none",
        recipe=_recipe(file, weights),
        forget_classes=forget,
        limited_counts=counts,
        limited_text=limited,
        federation=federation,
    )


def check_requires(file: ManifestFile) -> None:
    """Note which distributions in `requires` are not installed, or in another version."""
    for index, text in enumerate(file.sections.get("requires", ())):
        if message := _unmet(text):
            file.fault(("requires", index), message)


def _unmet(text: str) -> str:
    """Return what is wrong with one requirement, or "" if it is met."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        return f'{text!r} is not a requirement as pip takes it, such as "unlearnbench-zoo>=0.1": {reason}'
    if requirement.marker is not None and not requirement.marker.evaluate():
        return ""
    own = source_folder(requirement.name)
    install = f"-e {own}   (in the repository of unlearnbench; it is on no index)" if own else shlex.quote(text)
    install = f"\n  pip install {install}"
    try:
        here = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed{install}"
    # A user who installed a pre-release wants it to count.
    if not requirement.specifier.contains(here, prereleases=True):
        return f"{requirement.name} {here} is installed, {requirement.specifier} is required{install}"
    return ""


@dataclass(frozen=True)
class Resolved:
    """A manifest with nothing left to look up.

    Attributes:
        manifest: The manifest.
        file: Path of the manifest as the user gave it.
        dataset: The opened data set.
        problems: One problem or, with a matrix, several.
        methods: References, followed by the unlearners in the manifest's order.
        metrics: Metrics, headline metrics first.
        missing: What has to be fetched before the manifest can run, as `file:line: key: message`.
    """

    manifest: Manifest
    file: str
    dataset: Dataset
    problems: tuple[Problem, ...]
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    missing: tuple[str, ...] = ()

    def read_sources(self) -> None:
        """Compute the digests of all methods and metrics, which processes that it is sent to then need not."""
        for component in (*self.methods, *self.metrics):
            _ = component.digest

    @property
    def number_of_cells(self) -> int:
        """Number of cells of its plan, which need not be made to count them."""
        return len(self.problems) * len(self.manifest.seeds) * len(self.methods)
