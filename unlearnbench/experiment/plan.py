"""The plan: every model to train and every cell to run, each identified by the hash of what determines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unlearnbench.experiment.problem import Problem
from unlearnbench.experiment.resolve import Resolved
from unlearnbench.machine import Precision, cpu_precision
from unlearnbench.models.federation.shares import party_counts, planned_passes, sizes
from unlearnbench.models.recipe import full_size_epochs, read_recipe, recipe_identity
from unlearnbench.models.weights import Weights
from unlearnbench.registry.component import Method, Metric, label_slug
from unlearnbench.registry.identity import (
    FEATURES_FORMAT,
    FEDERATION_PROTOCOL,
    METRICS_PROTOCOL,
    STORE_FORMAT,
    TASK_PROTOCOL,
    TRAINING_PROTOCOL,
)
from unlearnbench.store import content_id
from unlearnbench.terms import HEADLINE


@dataclass(frozen=True)
class ReferenceModel:
    """A reference model, Original or FDR.

    Attributes:
        id: Name in the store.
        role: `original` for the model trained on all classes, `fdr` for the one trained on the retain classes only.
        seed: Seed of its weights and batches.
        classes: Classes that it is trained on.
        image_passes: Number of training images that it reads, over all epochs.
        full_size_passes: Number of training images of full size that have as many pixels as those that it reads.
        weights: Weights that the model is given by; None if it is trained.
    """

    id: str
    role: Literal["original", "fdr"]
    seed: int
    classes: tuple[int, ...]
    image_passes: int
    full_size_passes: int
    weights: Weights | None = None


@dataclass(frozen=True)
class Cell:
    """One unlearner or reference on one problem with one seed, which a record describes.

    Attributes:
        id: Hash of everything that determines the record.
        problem: The problem.
        method: The unlearner or reference.
        seed: The seed.
        original: Original model that it starts from.
        fdr: FDR of the same seed; None if the manifest does without.
        model_id: Name of the judged model in the store.
        features_id: Name of its features in the store.
        path: Path of the record below `records`.
        image_passes: Number of images that a run reads; None if only the run tells.
    """

    id: str
    problem: Problem
    method: Method
    seed: int
    original: ReferenceModel
    fdr: ReferenceModel | None
    model_id: str
    features_id: str
    path: str
    image_passes: int | None

    @property
    def reference(self) -> ReferenceModel | None:
        """Reference model that this cell judges, or None if it judges an unlearner's model."""
        return {"original": self.original, "fdr": self.fdr}.get(self.method.name) if self.is_reference else None

    @property
    def is_reference(self) -> bool:
        """Whether the cell judges Original or FDR."""
        return self.method.role == "reference"


@dataclass(frozen=True)
class Plan:
    """The work that a manifest stands for.

    Attributes:
        resolved: The resolved manifest.
        cells: Cells in the order of running: by problem, by seed, references first.
        precision: Precision of the training.
    """

    resolved: Resolved
    cells: tuple[Cell, ...]
    precision: Precision

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of every cell."""
        return self.resolved.metrics


def make_plan(resolved: Resolved, only: tuple[str, ...] = (), precision: Precision | None = None) -> Plan:
    """Return the plan of a resolved manifest.

    Args:
        resolved: The resolved manifest.
        only: Labels of the unlearners to run; empty means all. References always run.
        precision: What a recipe's `auto` stands for where the plan is run; None means this machine's CPU.
    """
    told = resolved.manifest.training.precision
    chosen = (precision or cpu_precision()) if told == "auto" else told
    processes = resolved.manifest.devices_per_training
    cells = []
    for problem in resolved.problems:
        for seed in resolved.manifest.seeds:
            original = _reference(problem, "original", seed, chosen, processes)
            fdr = _reference(problem, "fdr", seed, chosen, processes) if problem.has_fdr else None
            cells += [
                _cell(resolved, problem, method, seed, original, fdr, chosen)
                for method in resolved.methods
                if not only or method.role == "reference" or method.label in only
            ]
    return Plan(resolved, tuple(cells), chosen)


def _reference(
    problem: Problem, role: Literal["original", "fdr"], seed: int, precision: Precision, processes: int
) -> ReferenceModel:
    every = tuple(range(len(problem.info.class_names)))
    given = problem.weights if role == "original" else problem.fdr
    if given is not None:
        return _given_reference(problem, role, given, seed, every)
    classes = every if role == "original" else problem.retain_classes
    identity = content_id(
        STORE_FORMAT,
        role,
        [problem.dataset.identity, problem.info.revision],
        [problem.architecture.identity, problem.start and problem.start.identity],
        {**recipe_identity(problem.recipe), "precision": precision},
        classes,
        seed,
        TRAINING_PROTOCOL,
        processes,
        *([*problem.federation_identity, FEDERATION_PROTOCOL] if problem.federation else []),
    )
    if problem.federation is not None:
        passes = planned_passes(problem.federation, party_sizes(problem, classes, seed), seed)
        return ReferenceModel(identity, role, seed, classes, passes, passes)
    recipe, images = read_recipe(problem.recipe), sum(problem.info.train_counts[label] for label in classes)
    height, width = (recipe.crop, recipe.crop) if recipe.crop else problem.info.shape[1:]
    full_size = round(full_size_epochs(recipe, height, width) * images)
    return ReferenceModel(identity, role, seed, classes, recipe.epochs * images, full_size)


def party_sizes(problem: Problem, classes: Sequence[int], seed: int) -> list[int]:
    """Return how many images of some classes each party of a problem's federation trains on; [] without one."""
    if problem.federation is None:
        return []
    return sizes(party_counts(problem.federation, problem.info.train_counts, seed), classes)


def _given_reference(
    problem: Problem, role: Literal["original", "fdr"], weights: Weights, seed: int, classes: tuple[int, ...]
) -> ReferenceModel:
    """Return a reference that is not trained, so that no seed, recipe or image makes it another model."""
    identity = content_id(
        STORE_FORMAT,
        "given",
        problem.architecture.identity,
        weights.identity,
        [len(classes), problem.info.shape, problem.recipe["crop"]],
        TRAINING_PROTOCOL,
    )
    return ReferenceModel(identity, role, seed, classes, 0, 0, weights)


def unlearned_from(problem: Problem, original: ReferenceModel) -> list[Any]:
    """Return what names Original, the images and the start of `task.fresh_model` in the ID of what a method makes.

    The ID of an Original that is trained depends on all of them, that of one that is given on its weights alone.
    """
    if original.weights is None:
        return [original.id]
    images = [problem.dataset.identity, problem.info.revision, recipe_identity(problem.recipe)]
    return [original.id, images, problem.start and problem.start.identity]


def _cell(
    resolved: Resolved,
    problem: Problem,
    method: Method,
    seed: int,
    original: ReferenceModel,
    fdr: ReferenceModel | None,
    precision: Precision,
) -> Cell:
    passes: int | None
    if method.role == "reference":
        reference = fdr if method.name == "fdr" and fdr is not None else original
        model_id, passes = reference.id, reference.image_passes
    else:
        model_id = content_id(
            STORE_FORMAT,
            *unlearned_from(problem, original),
            problem.forget_classes,
            problem.limited_identity,
            seed,
            [precision, recipe_identity(problem.recipe)],
            method.identity,
            TASK_PROTOCOL,
            *_epochs_identity(resolved),
        )
        passes = method_passes(method, problem, seed)
    features_id = content_id(
        STORE_FORMAT,
        model_id,
        problem.id,
        seed,
        resolved.manifest.feature_dtype,
        FEATURES_FORMAT,
    )
    metrics = [[metric.label, metric.identity] for metric in resolved.metrics]
    # Without FDR some metrics have no value, so that the record is another one than with it.
    without = ["without FDR"] if fdr is None else []
    record_id = content_id(features_id, metrics, method.label, METRICS_PROTOCOL, *without)
    path = f"{resolved.manifest.name}/{problem.slug}/{label_slug(method.label)}/seed-{seed}.json"
    return Cell(record_id, problem, method, seed, original, fdr, model_id, features_id, path, passes)


def _epochs_identity(resolved: Resolved) -> list[object]:
    """Return what the values after each epoch depend on; these values are kept with the model."""
    if not resolved.manifest.evaluate_every:
        return []
    headline = [metric.identity for metric in resolved.metrics if metric.label in HEADLINE]
    return [resolved.manifest.evaluate_every, headline, FEATURES_FORMAT, METRICS_PROTOCOL]


def method_passes(method: Method, problem: Problem, seed: int) -> int | None:
    """Return about how many images an unlearner reads: its epochs, or the recipe's, times the limited data.

    Only an unlearner with an option `epochs` tells before it runs; if that option is None, the recipe's epochs count.
    """
    if "epochs" not in method.options:
        return None
    epochs = method.options["epochs"]
    return int(epochs if epochs is not None else problem.recipe["epochs"]) * sum(problem.limited(seed))
