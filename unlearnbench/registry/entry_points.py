"""Plugins, found through entry points or in a file and named without importing anything.

An entry point whose name ends with a colon stands for a family: `torchvision:` for `torchvision:resnet18` and all
others of the library. A plugin of a family is given the rest of its name as its first argument.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import Distribution, entry_points
from typing import Any, Literal

from unlearnbench.errors import PluginError, did_you_mean
from unlearnbench.registry.declare import VERSION
from unlearnbench.registry.identity import Place, declared_version, source_digest
from unlearnbench.registry.plugin_file import FILE, check_place, file_module, is_file_name

PluginKind = Literal["unlearners", "datasets", "architectures", "metrics", "federations"]
KINDS: tuple[PluginKind, ...] = ("unlearners", "datasets", "architectures", "metrics", "federations")
SINGULAR: dict[PluginKind, str] = {
    "unlearners": "unlearner",
    "datasets": "dataset",
    "architectures": "architecture",
    "metrics": "metric",
    "federations": "federation engine",
}


@dataclass(frozen=True)
class Plugin:
    """One entry point.

    Attributes:
        kind: PluginKind of the plugin.
        name: Name that manifests use.
        target: Its place in source, as `module:attribute`, where the module may be the path of a file.
        distribution: Installed distribution that declares it; for a file `file` and the digest of its source.
        distribution_version: Version of that distribution.
    """

    kind: PluginKind
    name: str
    target: str
    distribution: str
    distribution_version: str

    @property
    def module(self) -> str:
        """Dotted name of the module that holds the plugin, or the path of a file."""
        return self.target.rpartition(":")[0]

    @property
    def attribute(self) -> str:
        """Name of the plugin in its module."""
        return self.target.rpartition(":")[2]

    @property
    def member(self) -> str:
        """The plugin's name within its family; "" if it belongs to none."""
        return "" if is_file_name(self.name) else self.name.partition(":")[2]

    @functools.cached_property
    def version(self) -> int:
        """Version of its results that it declares, or 1 if it declares none.

        Raises:
            PluginError: If only an import can tell and it cannot be imported.
        """
        declared = declared_version(self.module, self.attribute)
        return declared if declared is not None else int(getattr(self.load(), VERSION, 1))

    @property
    def source(self) -> tuple[Place, ...]:
        """Where its source begins."""
        return ((self.module, self.attribute),)

    @property
    def digest(self) -> str:
        """Digest of the syntax of its source and of everything that this uses of its own package."""
        return source_digest(*self.source)

    def load(self) -> Any:
        """Import the plugin and return its object.

        Raises:
            PluginError: If the plugin cannot be imported or the attribute is missing.
        """
        try:
            found: Any = file_module(self.module) if is_file_name(self.name) else import_module(self.module)
            for part in self.attribute.split("."):
                found = getattr(found, part)
        # The module of a plugin is foreign code and may raise anything when it is imported.
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{SINGULAR[self.kind]} {self.name!r} of {self.distribution} {self.distribution_version} cannot be "
                f"loaded from {self.target}: {type(error).__name__}: {error}"
            ) from error
        return found


@functools.cache
def _found() -> dict[PluginKind, dict[str, tuple[Plugin, ...]]]:
    """Return all entry points by kind and name."""
    every = entry_points()
    # Name and version are read from the file of a distribution each time that it is asked for them.
    facts: dict[int, tuple[str, str]] = {}
    found: dict[PluginKind, dict[str, tuple[Plugin, ...]]] = {}
    for kind in KINDS:
        groups: dict[str, dict[Plugin, None]] = {}
        for entry in every.select(group=f"unlearnbench.{kind}"):
            if id(entry.dist) not in facts:
                facts[id(entry.dist)] = _title(entry.dist)
            plugin = Plugin(kind, entry.name, entry.value.replace(" ", ""), *facts[id(entry.dist)])
            groups.setdefault(entry.name, {})[plugin] = None
        found[kind] = {name: tuple(sorted(plugins, key=str)) for name, plugins in sorted(groups.items())}
    return found


def _title(distribution: Distribution | None) -> tuple[str, str]:
    return (distribution.name, distribution.version) if distribution else ("unknown distribution", "unknown")


def names(kind: PluginKind) -> tuple[str, ...]:
    """Return the names of all installed plugins of a kind, sorted, without importing any."""
    return tuple(_found()[kind])


def installed(kind: PluginKind) -> tuple[Plugin, ...]:
    """Return all installed plugins of a kind, by name, without importing any; a name may occur twice."""
    return tuple(plugin for plugins in _found()[kind].values() for plugin in plugins)


def knows(kind: PluginKind, name: str) -> bool:
    """Return whether `find` would look further: the name is installed, or is one of a family or of a file."""
    family, colon, _ = name.partition(":")
    return name in _found()[kind] or (colon != "" and f"{family}:" in _found()[kind]) or _in_file(kind, name)


def _in_file(kind: PluginKind, name: str) -> bool:
    return kind == "architectures" and is_file_name(name)


def find(kind: PluginKind, name: str) -> Plugin:
    """Return the plugin with this name, which may be one of a family or, for an architecture, one in a file.

    Raises:
        PluginError: If there is none (the message gives the nearest name), or more than one distribution
            claims the name.
    """
    if _in_file(kind, name):
        place = check_place(name)
        module, _, attribute = place.rpartition(":")
        return Plugin(kind, name, place, f"{FILE} {source_digest((module, attribute))}", "")
    plugins = _found()[kind].get(name, ())
    family, _, member = name.partition(":")
    if member:
        plugins = plugins or tuple(replace(plugin, name=name) for plugin in _found()[kind].get(f"{family}:", ()))
    elif f"{name}:" in _found()[kind]:
        raise PluginError(f"{name!r} is a family of {kind}\n  Put the name of one behind it: {name}:NAME")
    if not plugins:
        raise PluginError(f"no {SINGULAR[kind]} {name!r} is installed{did_you_mean(name, names(kind))}")
    if len(plugins) > 1:
        claims = " and ".join(sorted(f"{plugin.distribution} {plugin.distribution_version}" for plugin in plugins))
        raise PluginError(
            f"{SINGULAR[kind]} {name!r} is claimed by {claims}\n  Uninstall one of them, or rename its entry point"
        )
    return plugins[0]
