"""What is forgotten and what is left: the problem of a manifest, or the problems of its matrix."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from unlearnbench.datasets.dataset import NOT_HERE, DatasetInfo
from unlearnbench.datasets.split import limited_count
from unlearnbench.errors import did_you_mean
from unlearnbench.experiment.manifest import ProblemChoice
from unlearnbench.experiment.reader import ManifestFile
from unlearnbench.experiment.scenarios.federation import leaves_a_share
from unlearnbench.experiment.toml_positions import KeyPath
from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.federation.shares import party_counts
from unlearnbench.models.recipe import recipe_identity
from unlearnbench.models.weights import Weights
from unlearnbench.names import LONGEST_NAME
from unlearnbench.registry.component import Component
from unlearnbench.store import content_id

# A title names this many forget classes.
NAMED_CLASSES = 4


def problem_choices(file: ManifestFile) -> tuple[ProblemChoice, ...]:
    """Return the problem of every combination in the problem's matrix."""
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


def split_sides(
    file: ManifestFile, choice: ProblemChoice, info: DatasetInfo
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return forget classes and limited counts, which are empty in a federation, or None after noting faults."""
    forget = _forget_classes(file, choice, info)
    share = leaves_a_share(file, choice)
    counts = () if share else None if share is None else _limited_counts(file, choice, info)
    return None if forget is None or counts is None else (forget, counts)


def _one_of(file: ManifestFile, choice: ProblemChoice, first: str, second: str) -> str | None:
    """Return which of two keys is set, and note a fault unless exactly one is."""
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
            # Names cannot be looked up without the data, and any class will do for counting images.
            chosen.append(total - 1 - position)
            continue
        index = _class_index(file, path, given, info)
        if index is None:
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


def _class_index(file: ManifestFile, path: KeyPath, given: int | str, info: DatasetInfo) -> int | None:
    """Return the index of a class that is given by index or name, or None after noting a fault."""
    names, total = info.class_names, len(info.class_names)
    index = names.index(given) if given in names else given
    if not isinstance(index, int) or not 0 <= index < total:
        hint = did_you_mean(given, names) if isinstance(given, str) else ""
        file.fault(path, f"{info.name} has no class {given!r}: its classes are 0 to {total - 1}{hint}")
        return None
    if str(given) in names and names.index(str(given)) != index:
        # Folders 0 to 11 sort as text, so that class 10 of the list is the folder 8.
        file.fault(
            path,
            f'{given} is the index of class "{names[index]}", and another class is called "{given}"\n'
            f'  Write the name of the one that you mean, in quotes: "{names[index]}" or "{given}"',
        )
        return None
    return index


def class_order(file: ManifestFile, given: Sequence[int | str], info: DatasetInfo) -> tuple[int, ...] | None:
    """Return the class of each output of given weights, or None after noting a fault."""
    path = ("architecture", "class_order")
    if info.revision == NOT_HERE:
        return tuple(range(len(info.class_names)))
    found = [_class_index(file, path, name, info) for name in given]
    missing = [name for index, name in enumerate(info.class_names) if index not in found]
    if None in found:
        return None
    if missing or len(found) != len(info.class_names):
        lacking = f"; {missing[0]!r} is missing" if missing else ""
        file.fault(path, f"{len(found)} entries for the {len(info.class_names)} classes of {info.name}{lacking}")
        return None
    return tuple(index for index in found if index is not None)


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


@dataclass(frozen=True)
class Problem:
    """What is to be forgotten by which network.

    Attributes:
        dataset: Data set with the options in use.
        info: Facts about the data set.
        architecture: The network.
        weights: Weights that are the original model; None if it is trained.
        start: Weights that training starts from; None means random ones.
        fdr: Weights that are FDR; None if it is trained, or if there is none.
        has_fdr: Whether there is an FDR, given or trained.
        recipe: Training recipe as JSON values.
        forget_classes: Indices of the forget classes, ascending.
        limited_counts: K numbers of limited images; empty where a party's share is left, which depends on the seed.
        limited_text: Limited data in the manifest's terms: "10 %", "3 images" or "party 0".
        federation: Parties that share the images; None if these lie in one place.
        engine: What plays the rounds of the federation; None if the parties train in one process.
    """

    dataset: Component
    info: DatasetInfo
    architecture: Component
    weights: Weights | None
    start: Weights | None
    fdr: Weights | None
    has_fdr: bool
    recipe: dict[str, Any]
    forget_classes: tuple[int, ...]
    limited_counts: tuple[int, ...]
    limited_text: str
    federation: Federation | None = None
    engine: Component | None = None

    @property
    def federation_identity(self) -> list[Any]:
        """What the training by the federation depends on, whichever party is to unlearn; [] without one."""
        told = [self.federation.training_identity] if self.federation else []
        return [*told, *([self.engine.identity] if self.engine else [])]

    @property
    def party(self) -> int | None:
        """Party of the federation that unlearns with its own share; None if the limited data are drawn from all."""
        return self.federation.party if self.federation else None

    def limited(self, seed: int) -> tuple[int, ...]:
        """Return K numbers of images that are left with a seed."""
        if self.federation is None or self.party is None:
            return self.limited_counts
        return party_counts(self.federation, self.info.train_counts, seed)[self.party]

    @property
    def limited_identity(self) -> tuple[int | str, ...]:
        """What decides which images are left, beside the seed, the data set and the federation."""
        return self.limited_counts if self.party is None else ("party", self.party)

    @property
    def retain_classes(self) -> tuple[int, ...]:
        """Indices of the retain classes, ascending."""
        return tuple(k for k in range(len(self.info.class_names)) if k not in self.forget_classes)

    @cached_property
    def id(self) -> str:
        """Hash that identifies the problem everywhere; results with the same id can be compared.

        Without FDR it is the same problem, of which less is known; a given FDR is another yardstick.
        """
        return content_id(
            [self.dataset.identity, self.info.revision],
            self.architecture.identity,
            [weights and weights.identity for weights in (self.weights, self.start)],
            recipe_identity(self.recipe),
            self.forget_classes,
            self.limited_identity,
            *([self.fdr.identity] if self.fdr else []),
            *self.federation_identity,
        )

    @property
    def data_name(self) -> str:
        """Name of the data in titles and paths: that of the reader, and for a subset what it is a subset of."""
        return self.info.name if self.dataset.name == "class_subset" else self.dataset.name

    @cached_property
    def slug(self) -> str:
        """Name of the problem in paths."""
        limited = self.limited_text.replace(" ", "").replace("%", "pct")
        way = f"-{self.federation.strategy}-{self.federation.alike.replace(' ', '')}" if self.federation else ""
        text = f"{self.data_name}-{self.architecture.name}{way}-forget{len(self.forget_classes)}-{limited}"
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".")
        return f"{name[: LONGEST_NAME - 7]}-{self.id[:6]}"

    @property
    def title(self) -> str:
        """The problem in one line, with the names of the first forget classes."""
        names = [self.info.class_names[label] for label in self.forget_classes]
        rest = len(names) - NAMED_CLASSES
        named = ", ".join(names[:NAMED_CLASSES]) + (f" and {rest} more" if rest > 0 else "")
        way = f", federated ({self.federation.title})" if self.federation else ""
        limited = f"{self.limited_text} per class" if self.party is None else f"the share of {self.limited_text}"
        return (
            f"{self.data_name} / {self.architecture.name}{way}: forget {len(self.forget_classes)} of "
            f"{len(self.info.class_names)} classes ({named}), limited data {limited}"
        )
