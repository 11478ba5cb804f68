"""The manifest: one TOML file that says what is run. Only its form is checked here; `resolve` checks its names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.recipe import PositiveInt, Section, TrainingRecipe

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+, -]*$", max_length=100)]
# This is the range that HDF5 and safetensors can hold.
Seed = Annotated[int, Field(ge=0, lt=2**63)]
# What given weights are for: the original model, the start of training, or FDR.
WeightKey = Literal["weights", "start", "fdr"]


class Choice(Section):
    """A plugin by its name, with options.

    Attributes:
        name: Name of the plugin.
        options: Options of the plugin; those left out keep their defaults.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class LabelledChoice(Choice):
    """A plugin that may occur in a manifest more than once.

    Attributes:
        label: Name in tables; None means the plugin's name.
        matrix: List of values for each of some options; each combination becomes an entry.
    """

    label: Label | None = None
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)


class UnlearnerChoice(LabelledChoice):
    """An unlearner.

    Attributes:
        keep: Options that `tune` leaves as they are, because they define which unlearner this is.
    """

    keep: tuple[str, ...] = ()


class ArchitectureChoice(Choice):
    """The network.

    Weights are given as the name of published ones ("pytorchcv", "IMAGENET1K_V1") or the path of a checkpoint,
    relative to the manifest's folder.

    Attributes:
        weights: Weights that are the original model, which then is not trained and is the same for every seed. FDR is
            trained all the same, unless `references` says otherwise.
        start: Weights that training starts from, for the original (unless `weights` gives it), for FDR and for
            unlearners that begin where the original began; None means random ones. A classifier with another number
            of classes is replaced by a random one.
        class_order: Classes that the outputs of `weights` stand for, in the order of the outputs, as names or indices;
            None means the order of the data set.
    """

    weights: str | None = None
    start: str | None = None
    class_order: tuple[int | str, ...] | None = None


class ReferencesChoice(Section):
    """Where the two reference models come from.

    Each is "train", the name of published weights, or the path of a checkpoint, relative to the manifest's folder,
    which is used as it is.

    Attributes:
        original: Model that must forget; a checkpoint here is the same as `weights` of the architecture.
        fdr: Model retrained without the forget classes, the yardstick; "none" does without it, and then whatever
            compares with it has no value, and nothing is ranked.
    """

    original: str = "train"
    fdr: str = "train"


def named_weights(
    architecture: ArchitectureChoice | None, references: ReferencesChoice
) -> dict[WeightKey, tuple[tuple[str, str], str]]:
    """Return what a manifest says of the weights that it names: the key that names them, and how it calls them."""
    named: dict[WeightKey, tuple[tuple[str, str], str]] = {}
    if architecture is not None and architecture.weights is not None:
        named["weights"] = ("architecture", "weights"), architecture.weights
    if architecture is not None and architecture.start is not None:
        named["start"] = ("architecture", "start"), architecture.start
    if references.original not in ("train", "none"):
        named["weights"] = ("references", "original"), references.original
    if references.fdr not in ("train", "none"):
        named["fdr"] = ("references", "fdr"), references.fdr
    return named


class ProblemChoice(Section):
    """What is to be forgotten, and which data are left.

    Attributes:
        forget_classes: Class indices or names.
        forget_last: Number of last classes to forget, in place of `forget_classes`.
        limited_share: Share of each class's training images that is left, in (0, 1], rounded up.
        limited_images_per_class: Number of training images of each class that is left, in place of a share. In a
            federation neither is given, since the share of the party that unlearns is what is left.
        matrix: List of values for each of some keys of this table; each combination becomes a problem.
    """

    forget_classes: tuple[int | str, ...] | None = None
    forget_last: int | None = None
    limited_share: float | None = None
    limited_images_per_class: int | None = None
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)


class Tuning(Section):
    """The budget under which the options of a manifest were searched.

    Attributes:
        trials: Number of settings tried for each unlearner, including the manifest's own.
        seeds: Seeds of these trials, none of which is a seed of the manifest.
        held_out_share: Share of each class's images that the trials were judged on: of the limited ones if
            `self-tuned`, else of all training images.
        division: `self-tuned` if the trials were judged by limited images alone, `oracle-tuned` if by FDR or more.
        not_searched: Labels of the unlearners without ranges, which kept their options.
    """

    trials: PositiveInt
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    held_out_share: Annotated[float, Field(gt=0, lt=1)]
    not_searched: tuple[str, ...] = ()
    division: Literal["self-tuned", "oracle-tuned"] = "oracle-tuned"


class Bound(Section):
    """The limits that a metric's mean over the seeds has to keep.

    Attributes:
        min: Smallest value allowed.
        max: Largest value allowed.
    """

    min: float | None = None
    max: float | None = None


class Manifest(Section):
    """A whole manifest.

    Attributes:
        name: Name of the records; the file's name if left out.
        description: Description for readers.
        requires: Distributions that its plugins come from, in pip's form: "unlearnbench-zoo>=0.1".
        seeds: Seeds, each of which gives its own pair of Original and FDR and its own limited data.
        dataset: The data set.
        architecture: The network.
        references: Where Original and FDR come from.
        problem: Forget classes and limited data.
        federation: Parties that train the reference models together, of which one unlearns with its own images;
            None if all images lie in one place.
        training: Training recipe of the reference models.
        devices_per_training: Number of devices, each with a process of its own, that train one reference model
            together. Batches keep their size and are shared out.
        unlearners: The unlearners; Original and FDR are included without being listed.
        metrics: Metrics beside those that every record holds, or those metrics with other options.
        feature_dtype: Precision in which features are stored. Half precision takes half the space; logits and
            prototypes stay as they are.
        expect: Bounds by unlearner and metric, which pytest checks when it is given the manifest.
        tuning: Budget under which the options were searched, as `tune` writes it.
        evaluate_every: Number of epochs after which FAe, FPAe and CAne are computed during unlearning; 0 means only
            at the end.
        cell_time_limit: Seconds that an unlearner may take for one cell; None sets no limit.
        cell_memory: GiB of memory that its process may hold; None sets no limit.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    description: str = ""
    requires: tuple[str, ...] = ()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    dataset: Choice
    architecture: ArchitectureChoice
    references: ReferencesChoice = ReferencesChoice()
    problem: ProblemChoice
    federation: Federation | None = None
    training: TrainingRecipe
    devices_per_training: Annotated[int, Field(ge=1, le=1024)] = 1
    unlearners: tuple[UnlearnerChoice, ...] = ()
    metrics: tuple[LabelledChoice, ...] = ()
    feature_dtype: Literal["float32", "float16"] = "float32"
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    cell_time_limit: Annotated[float, Field(gt=0)] | None = None
    cell_memory: Annotated[float, Field(gt=0)] | None = None
    expect: dict[str, dict[str, Bound]] = Field(default_factory=dict)
    tuning: Tuning | None = None
