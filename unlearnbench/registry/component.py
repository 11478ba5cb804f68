"""Components in use: a plugin with all its options, its version and its origin."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

from unlearnbench.names import LONGEST_NAME
from unlearnbench.registry.entry_points import Plugin
from unlearnbench.registry.identity import Place, source_digest
from unlearnbench.registry.options import decisive_options
from unlearnbench.registry.plugin_file import is_file_name, short_name


def used(plugin: Plugin, options: dict[str, Any]) -> Component:
    """Return a plugin together with the options that it is used with.

    Raises:
        PluginError: If only an import can tell its version or its options and it cannot be imported.
    """
    options = decisive_options(plugin, options)
    facts = plugin.version, plugin.distribution, plugin.distribution_version, plugin.source
    if is_file_name(plugin.name):
        return FileComponent(short_name(plugin.name), options, *facts, place=plugin.name)
    return Component(plugin.name, options, *facts)


def label_slug(label: str) -> str:
    """Return the name of a file or folder that stands for a label: at most 120 safe characters, no dot in front."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", label).lstrip(".")[:LONGEST_NAME] or "-"


Role = Literal["reference", "unlearner"]


@dataclass(frozen=True)
class Component:
    """A plugin in use.

    Attributes:
        name: Name of the plugin.
        options: Its options as JSON values: all, but for those that were added later and have their default.
        version: Version of its results, as the plugin declares it.
        distribution: Distribution that ships it.
        distribution_version: Version of that distribution; it is provenance and decides nothing.
        source: Where its source begins, as pairs of a module and a name in it.
    """

    name: str
    options: dict[str, Any]
    version: int
    distribution: str
    distribution_version: str
    source: tuple[Place, ...]

    @cached_property
    def digest(self) -> str:
        """Digest of the syntax of its source, which is provenance too; reading it takes a while."""
        return source_digest(*self.source)

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of it, as JSON values."""
        facts = {name: value for name, value in self.unlabelled.items() if name != "source"}
        return {**facts, "digest": self.digest}

    @property
    def unlabelled(self) -> dict[str, Any]:
        """The fields that every component has."""
        return {field.name: getattr(self, field.name) for field in fields(Component)}

    @property
    def address(self) -> str:
        """Name under which this machine finds it."""
        return self.name

    @property
    def identity(self) -> list[Any]:
        """Everything about it that determines a result, as JSON values."""
        return [self.distribution, self.name, self.options, self.version]


@dataclass(frozen=True)
class FileComponent(Component):
    """A plugin in a file of the user's own.

    Attributes:
        place: Its name with the folder of the file, which is no part of its identity.
    """

    place: str

    @property
    def address(self) -> str:
        """Name under which this machine finds it."""
        return self.place


@dataclass(frozen=True)
class Method(Component):
    """An unlearner or a reference model.

    Attributes:
        label: Name in tables, unique in a manifest.
        role: `reference` for Original and FDR, `unlearner` for all others.
    """

    label: str
    role: Role


@dataclass(frozen=True)
class Metric(Component):
    """A metric with its protocol.

    Attributes:
        label: Key in records, unique in a manifest.
    """

    label: str
