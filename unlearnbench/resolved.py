"""What a manifest means here: the problems, methods and metrics of a run, with nothing left to look up."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from unlearnbench.dataset import Dataset, DatasetInfo
from unlearnbench.manifest import Manifest, recipe_identity
from unlearnbench.naming import content_id
from unlearnbench.weights import Weights

Role = Literal["reference", "unlearner"]


@dataclass(frozen=True)
class Component:
    """A plugin as it is used.

    Attributes:
        name: The plugin's name.
        options: All its options, as JSON values.
        version: The version of its results that it declares.
        distribution: Who ships it.
        distribution_version: That distribution's version; provenance, which decides nothing.
        digest: Digest of the syntax of its source; provenance too.
    """

    name: str
    options: dict[str, Any]
    version: int
    distribution: str
    distribution_version: str
    digest: str

    @property
    def identity(self) -> list[Any]:
        """All of it that determines a result, as JSON values."""
        return [self.distribution, self.name, self.options, self.version]


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
            [self.dataset.identity, self.info.revision],
            self.architecture.identity,
            [weights and weights.identity for weights in (self.weights, self.start)],
            recipe_identity(self.recipe),
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
