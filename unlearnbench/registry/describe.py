"""The page of a plugin, which `show` prints."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from unlearnbench.errors import PluginError, did_you_mean
from unlearnbench.registry.entry_points import KINDS, SINGULAR, Plugin, find, knows, names
from unlearnbench.registry.options import Option, plugin_docstring, plugin_schema


def plugins_named(name: str) -> list[Plugin]:
    """Return the plugins of this name, of every kind.

    Raises:
        PluginError: If there is none, or two distributions claim the name.
    """
    found = [find(kind, name) for kind in KINDS if knows(kind, name)]
    if not found:
        every = {known for kind in KINDS for known in names(kind)}
        raise PluginError(f"nothing named {name!r} is installed{did_you_mean(name, every)}")
    return found


def plugin_json(plugin: Plugin) -> dict[str, Any]:
    """Return the facts about a plugin as JSON values."""
    options = [
        {"name": o.name, "type": o.type_name, "default": o.default, "meaning": o.meaning, "group": o.group}
        for o in plugin_schema(plugin)
    ]
    described = plugin_docstring(plugin)
    return {
        **vars(plugin),
        "version": plugin.version,
        "digest": plugin.digest,
        "description": described,
        "options": options,
    }


def plugin_page(plugin: Plugin) -> str:
    """Return the page of a plugin: heading, docstring without its arguments, and options."""
    text = plugin_docstring(plugin) or "no description"
    # Those arguments that are options are listed in the table below.
    text = re.sub(r"^Args:\n(?:[ \t]+.*\n?|\n(?=[ \t]))+\n?", "", text, flags=re.M).strip()
    heading = f"{plugin.name} ({SINGULAR[plugin.kind]}, {plugin.distribution} {plugin.distribution_version})"
    return "\n".join([heading, "=" * len(heading), "", text, "", *_option_lines(plugin_schema(plugin))])


def _option_lines(options: tuple[Option, ...]) -> list[str]:
    if not options:
        return ["Options: none"]
    lines: list[str] = []
    group = None
    width = max(len(option.name) for option in options)
    for option in options:
        if option.group != group:
            group = option.group
            lines += [
                *([""] if lines else []),
                f"Options, {group[:1].lower()}{group[1:]}" if group else "Options",
            ]
        default = f'"{option.default}"' if isinstance(option.default, str) else str(option.default)
        lines.append(
            f"  {option.name:<{width}}  {option.type_name}, {default.replace('True', 'true').replace('False', 'false')}"
        )
        indent = " " * (width + 4)
        lines += textwrap.wrap(option.meaning, 110, initial_indent=indent, subsequent_indent=indent)
    return lines
