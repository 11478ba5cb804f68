"""The plugins that a manifest names, with all their options: unlearners, metrics, data set and network."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unlearnbench import __version__
from unlearnbench.datasets.parquet.hub_cache import check_is_copied
from unlearnbench.errors import NotHereError, PluginError, did_you_mean
from unlearnbench.experiment.manifest import LabelledChoice, ReferencesChoice, UnlearnerChoice
from unlearnbench.experiment.reader import ManifestFile
from unlearnbench.experiment.toml_positions import KeyPath
from unlearnbench.metrics.standard import STANDARD, variant_label
from unlearnbench.models.libraries.members import check_member
from unlearnbench.models.weights import Weights
from unlearnbench.registry.component import Component, Method, Metric, label_slug, used
from unlearnbench.registry.entry_points import PluginKind, find, knows
from unlearnbench.registry.identity import TRAINING_PROTOCOL
from unlearnbench.registry.options import resolve_options
from unlearnbench.registry.plugin_file import located
from unlearnbench.terms import HEADLINE, JUDGED, REFERENCES, SHORT

TRAINING_SOURCE = (
    ("unlearnbench.models.training", "ReferenceTraining"),
    ("unlearnbench.models.device_data", "LoadedData"),
)


@dataclass(frozen=True)
class JudgedMethod(Method):
    """A method that was run elsewhere, of which only the weights are known.

    Attributes:
        weights: The weights.
        outputs: Class that each output stands for, in the order of the file; numbers from K on are new classes.
    """

    weights: Weights
    outputs: tuple[int, ...]

    @property
    def identity(self) -> list[Any]:
        """Everything about it that determines a result, as JSON values."""
        return [*super().identity, self.weights.identity, self.outputs]


def judged_method(weights: Weights, outputs: tuple[int, ...], label: str) -> JudgedMethod:
    """Return the method that stands for given weights."""
    return JudgedMethod(
        JUDGED, {}, 1, "unlearnbench", __version__, (), label=label, role="unlearner", weights=weights, outputs=outputs
    )


def find_component(file: ManifestFile, kind: PluginKind, path: KeyPath) -> Component | None:
    """Look up a plugin and fill in its options; note faults in `file`."""
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
    file: ManifestFile, kind: PluginKind, path: KeyPath, name: str, given: dict[str, Any], matrix: Collection[str] = ()
) -> Component | None:
    try:
        if kind == "datasets" and not knows(kind, name):
            check_is_copied(name)
        plugin = find(kind, located(name, Path(file.file).parent))
        if kind == "architectures":
            check_member(name)
        options, faults = resolve_options(plugin, given)
    except NotHereError as error:
        file.not_here((*path, "name"), str(error))
        options, faults = resolve_options(plugin, given)
    except PluginError as error:
        file.fault((*path, "name"), str(error))
        return None
    for key, message in faults.items():
        file.fault((*path, "matrix" if key in matrix else "options", key), message)
    if faults:
        return None
    return used(plugin, options)


def variants(choice: LabelledChoice) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the label and options of every combination of a choice's matrix."""
    label = choice.label or choice.name
    for values in itertools.product(*choice.matrix.values()):
        setting = dict(zip(choice.matrix, values, strict=True))
        yield variant_label(label, setting), {**choice.options, **setting}


def _labelled(
    file: ManifestFile, key: Literal["unlearners", "metrics"], reserved: tuple[str, ...]
) -> Iterator[tuple[str, Component]]:
    """Yield the label and component of every entry of a list; note faults, including repeated labels.

    Labels that differ only in case are the same to a reader, and to the file systems of some machines.
    """
    taken: dict[str, int | None] = dict.fromkeys(name.casefold() for name in reserved)
    entries = file.raw.get(key)
    if key not in file.sections and isinstance(entries, list):
        # An entry is not well formed, but the names and options of the others are looked up all the same.
        for index in range(len(entries)):
            find_component(file, key, (key, index))
    for index, choice in enumerate(file.sections.get(key, ())):
        for name in choice.matrix.keys() & choice.options.keys():
            file.fault((key, index, "matrix", name), f"{name!r} stands among the options too; keep one")
        for label, options in variants(choice):
            component = _lookup(file, key, (key, index), choice.name, options, choice.matrix)
            if component is not None and isinstance(choice, UnlearnerChoice):
                for name in sorted(set(choice.keep) - component.options.keys()):
                    hint = did_you_mean(name, component.options)
                    file.fault((key, index, "keep"), f"{choice.name} has no option {name!r}{hint}")
            slug = label_slug(label).casefold()
            if slug not in taken:
                taken[slug] = index
                if component is not None:
                    yield label, component
            elif component is not None or choice.label:
                file.fault((key, index, "label" if choice.label else "name"), _doubled(label, key, taken[slug], index))


def _check_likeness(file: ManifestFile, usual: Mapping[str, tuple[str, dict[str, Any]]]) -> None:
    """Note labels that a reader would take for those of other metrics, which every record holds."""
    meant = {label.casefold(): (label, name) for label, (name, _) in usual.items()}
    meant |= {short.casefold(): (short, "") for short in SHORT}
    for index, choice in enumerate(file.sections.get("metrics", ())):
        label = choice.label or ""
        other = meant.get(label.casefold())
        if other is not None and other != (label, choice.name):
            message = f"{label!r} reads like {other[0]}, which every record holds\n  Give this entry another label"
            file.fault(("metrics", index, "label"), message)


def _doubled(label: str, key: str, owner: int | None, index: int) -> str:
    """Return the fault of an entry whose label is taken by the entry `owner`, or by a reference if that is None."""
    if owner == index:
        return f"two combinations of the matrix have the label {label!r}; remove one"
    claimed = f"the label {label!r} is taken by {key}.{owner}"
    reference = f"{label!r} is the name of a reference, which is always there"
    return f"{reference if owner is None else claimed}\n  Give this entry a label of its own: label = ..."


def references(*, with_fdr: bool = True) -> tuple[Method, ...]:
    """Return the reference methods: Original and, unless the manifest does without, FDR (full data retraining)."""
    return tuple(
        Method(name, {}, TRAINING_PROTOCOL, "unlearnbench", __version__, TRAINING_SOURCE, label=name, role="reference")
        for name in REFERENCES
        if with_fdr or name != "fdr"
    )


def find_methods(file: ManifestFile) -> tuple[Method, ...]:
    """Return the references and the manifest's unlearners; note faults in `file`."""
    chosen: ReferencesChoice = file.sections.get("references", ReferencesChoice())
    found = tuple(
        Method(**component.unlabelled, label=label, role="unlearner")
        for label, component in _labelled(file, "unlearners", tuple(REFERENCES))
    )
    return (*references(with_fdr=chosen.fdr != "none"), *found)


def find_metrics(file: ManifestFile) -> tuple[Metric, ...]:
    """Return the headline metrics, the standard ones and the manifest's own, which replace those of equal labels."""
    named = {label: Metric(**component.unlabelled, label=label) for label, component in _labelled(file, "metrics", ())}
    usual = {label: (label, dict[str, Any]()) for label in HEADLINE}
    usual |= {variant_label(name, options): (name, options) for name, options in STANDARD}
    _check_likeness(file, usual)
    for label, (name, options) in usual.items():
        if label not in named:
            component = _lookup(file, "metrics", ("metrics",), name, options)
            if component is not None:
                named[label] = Metric(**component.unlabelled, label=label)
    ordered = [*usual, *(label for label in named if label not in usual)]
    return tuple(named[label] for label in ordered if label in named)
