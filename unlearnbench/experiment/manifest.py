"""The manifest: one TOML file that says what is run. Only its form is checked here; `resolve` checks its names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from unlearnbench.models.recipe import PositiveInt, Section, TrainingRecipe

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+, -]*$", max_length=100)]
# What HDF5 and safetensors can hold.
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Choice(Section):
    """A plugin by its name, with options.

    Attributes:
        name: The plugin's name.
        options: Its options; what is left out keeps its default.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class LabelledChoice(Choice):
    """A plugin that can stand in a manifest more than once.

    Attributes:
        label: The name in tables; the plugin's name where left out.
        matrix: Option names, each with a list of values: one entry for every combination.
    """

    label: Name | None = None
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)


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
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)


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
        seeds: Each is an pair of Original and FDR and a limited subset of its own.
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
    expect: dict[str, dict[str, Bound]] = Field(default_factory=dict)
    tuning: Tuning | None = None
