"""A new plugin: an installable distribution with one function, its test and its entry point."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal

from unlearnbench.errors import UnlearnBenchError, os_reason
from unlearnbench.registry.entry_points import PluginKind, names

Kind = Literal["unlearner", "architecture", "dataset", "metric"]
GROUPS: dict[Kind, PluginKind] = {
    "unlearner": "unlearners",
    "architecture": "architectures",
    "dataset": "datasets",
    "metric": "metrics",
}
# What each is called in a sentence: its kind, and the thing itself.
TITLES = {"dataset": "data set"}
THINGS = {"unlearner": "method", "architecture": "network", "dataset": "data set", "metric": "metric"}


@dataclass(frozen=True)
class PluginNames:
    """The names of a new plugin.

    Attributes:
        name: Name in manifests, and of the function and its module: `my_method`.
        distribution: Name for pip: `unlearnbench-my-method`.
        package: Name for imports: `unlearnbench_my_method`.
    """

    name: str
    distribution: str
    package: str


def plugin_names(name: str, kind: Kind = "unlearner") -> PluginNames:
    """Return the names of a plugin that the user calls `my-method`, `my_method` or `unlearnbench-my-method`.

    Raises:
        UnlearnBenchError: If no function can have this name.
    """
    own = re.sub(r"[-_.]+", "_", name.lower()).removeprefix("unlearnbench_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]|[a-z]", own) or keyword.iskeyword(own):
        raise UnlearnBenchError(
            f"new-plugin {name}: not a name for a {THINGS[kind]}\n"
            "  A letter, then letters, digits and hyphens are allowed, for example my-method"
        )
    return PluginNames(own, f"unlearnbench-{own.replace('_', '-')}", f"unlearnbench_{own}")


def plugin_files(chosen: PluginNames, kind: Kind = "unlearner") -> dict[str, str]:
    """Return the texts of a new plugin's files, by path."""
    place = files("unlearnbench.registry") / "templates"
    paths = {
        "pyproject.toml": "pyproject.toml.template",
        "README.md": f"{kind}/README.md.template",
        f"{chosen.package}/__init__.py": "__init__.py.template",
        f"{chosen.package}/{chosen.name}.py": f"{kind}/plugin.py.template",
        f"tests/test_{chosen.name}.py": f"{kind}/test_plugin.py.template",
    }
    words = {**vars(chosen), "title": TITLES.get(kind, kind), "thing": THINGS[kind], "group": GROUPS[kind]}
    return {
        path: Template((place / template).read_text(encoding="utf-8")).substitute(words)
        for path, template in paths.items()
    }


def write_plugin(name: str, folder: Path, kind: Kind = "unlearner") -> Path:
    """Write a new plugin into a folder of its own below `folder`.

    Returns:
        The folder of the plugin.

    Raises:
        UnlearnBenchError: If the name cannot be used, or the folder already exists or cannot be written.
    """
    chosen = plugin_names(name, kind)
    if chosen.name in names(GROUPS[kind]):
        title = TITLES.get(kind, kind)
        article = "an" if title[0] in "aeiou" else "a"
        raise UnlearnBenchError(
            f"new-plugin {name}: {article} {title} {chosen.name!r} is installed; choose another name"
        )
    place = folder / chosen.distribution
    try:
        place.mkdir(parents=True)
        for path, text in plugin_files(chosen, kind).items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise UnlearnBenchError(f"{place}: is there already; nothing was written") from error
    except OSError as error:
        raise UnlearnBenchError(f"{place}: cannot be written: {os_reason(error)}") from error
    return place
