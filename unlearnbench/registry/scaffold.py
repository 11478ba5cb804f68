"""A new plugin: an installable distribution with one unlearner, its test and its entry point."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from unlearnbench.errors import UnlearnBenchError, os_reason
from unlearnbench.registry.entry_points import names


@dataclass(frozen=True)
class PluginNames:
    """The names of a new plugin.

    Attributes:
        method: Name in manifests, and of the function and its module: `my_method`.
        distribution: Name for pip: `unlearnbench-my-method`.
        package: Name for imports: `unlearnbench_my_method`.
    """

    method: str
    distribution: str
    package: str


def plugin_names(name: str) -> PluginNames:
    """Return the names of a plugin that the user calls `my-method`, `my_method` or `unlearnbench-my-method`.

    Raises:
        UnlearnBenchError: If no function can have this name, or an installed unlearner has it.
    """
    method = re.sub(r"[-_.]+", "_", name.lower()).removeprefix("unlearnbench_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]|[a-z]", method) or keyword.iskeyword(method):
        raise UnlearnBenchError(
            f"new-plugin {name}: not a name for a method\n"
            "  A letter, then letters, digits and hyphens are allowed, for example my-method"
        )
    return PluginNames(method, f"unlearnbench-{method.replace('_', '-')}", f"unlearnbench_{method}")


def plugin_files(chosen: PluginNames) -> dict[str, str]:
    """Return the texts of a new plugin's files, by path."""
    place = files("unlearnbench.registry") / "templates"
    paths = {
        "pyproject.toml": "pyproject.toml.template",
        "README.md": "README.md.template",
        f"{chosen.package}/__init__.py": "package/__init__.py.template",
        f"{chosen.package}/{chosen.method}.py": "package/unlearner.py.template",
        f"tests/test_{chosen.method}.py": "tests/test_unlearner.py.template",
    }
    return {
        path: Template((place / template).read_text(encoding="utf-8")).substitute(vars(chosen))
        for path, template in paths.items()
    }


def write_plugin(name: str, folder: Path) -> Path:
    """Write a new plugin into a folder of its own below `folder`.

    Returns:
        The folder of the plugin.

    Raises:
        UnlearnBenchError: If the name cannot be used, or the folder already exists or cannot be written.
    """
    chosen = plugin_names(name)
    if chosen.method in names("unlearners"):
        raise UnlearnBenchError(f"new-plugin {name}: an unlearner {chosen.method!r} is installed; choose another name")
    place = folder / chosen.distribution
    try:
        place.mkdir(parents=True)
        for path, text in plugin_files(chosen).items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise UnlearnBenchError(f"{place}: is there already; nothing was written") from error
    except OSError as error:
        raise UnlearnBenchError(f"{place}: cannot be written: {os_reason(error)}") from error
    return place
