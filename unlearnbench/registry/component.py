"""Components as they are used: a plugin with all its options, its version and where it comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from unlearnbench.registry.entry_points import Plugin


def used(plugin: Plugin, options: dict[str, Any]) -> Component:
    """Return a plugin as it is used with all its options.

    Raises:
        PluginError: If only an import can tell its version and it cannot be imported.
    """
    return Component(
        plugin.name, options, plugin.version, plugin.distribution, plugin.distribution_version, plugin.digest
    )


def label_slug(label: str) -> str:
    """Return a label as it stands in file names."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", label)


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
