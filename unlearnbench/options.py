"""Options of plugins: read from a function's signature, checked before anything is trained."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import ConfigDict, TypeAdapter, ValidationError

from unlearnbench.errors import PluginError
from unlearnbench.naming import content_id, did_you_mean
from unlearnbench.registry import SINGULAR, Plugin


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a plugin.

    Attributes:
        name: Its key in a manifest.
        annotation: Its type.
        default: Its value when a manifest does not set it.
        meaning: One line.
        group: What it governs, "" where a plugin has no groups.
    """

    name: str
    annotation: Any
    default: Any
    meaning: str
    group: str = ""

    @property
    def type_name(self) -> str:
        """The type as a reader would write it."""
        return _type_name(self.annotation)

    def check(self, value: Any) -> Any:
        """Return `value` as this option's type.

        Raises:
            ValueError: If it is of another type or not among the allowed values.
        """
        config = None if dataclasses.is_dataclass(self.annotation) else ConfigDict(strict=True, allow_inf_nan=False)
        try:
            # JSON rules are strict on types, yet let a list be a tuple and a whole number a float.
            return TypeAdapter(self.annotation, config=config).validate_json(json.dumps(value))
        except (ValidationError, TypeError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise ValueError(
                f"{value!r} does not fit option {self.name!r} ({self.type_name}, default {self.default!r}): "
                f"{reason[:1].lower()}{reason[1:]}"
            ) from error


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(repr(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(part) for part in arguments)
    if origin is not None:
        inner = ", ".join("..." if part is Ellipsis else _type_name(part) for part in arguments)
        return f"{origin.__name__}[{inner}]"
    return "None" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def argument_meanings(docstring: str | None) -> dict[str, str]:
    """Return what the `Args:` or `Attributes:` section of a Google docstring says of each name."""
    match = re.search(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n|\n)+)", inspect.cleandoc(docstring or "") + "\n", re.M)
    meanings: dict[str, str] = {}
    current = ""
    for line in match.group(1).splitlines() if match else []:
        found = re.match(r" {4}(\w+)(?: \(.*?\))?: (.*)", line)
        if found:
            current = found.group(1)
            meanings[current] = found.group(2).strip()
        elif current and line.strip():
            meanings[current] += f" {line.strip()}"
    return meanings


def options_class(function: Callable[..., Any]) -> type[Any] | None:
    """Return the dataclass of a function that takes one keyword argument `options`, or None."""
    hint = typing.get_type_hints(function).get("options") if inspect.isfunction(function) else None
    return hint if dataclasses.is_dataclass(hint) and isinstance(hint, type) else None


def schema(function: Callable[..., Any]) -> tuple[Option, ...]:
    """Return the options of a plugin: its keyword-only arguments, or the fields of its `options` dataclass.

    Raises:
        PluginError: If an option lacks a type or a default.
    """
    bundle = options_class(function)
    if bundle is not None:
        return tuple(_field_options(bundle))
    hints = typing.get_type_hints(function, include_extras=True)
    meanings = argument_meanings(function.__doc__)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if name not in hints or parameter.default is inspect.Parameter.empty:
            raise PluginError(
                f"option {name!r} of {function.__module__}:{function.__qualname__} needs a type and a default"
            )
        found.append(Option(name, hints[name], parameter.default, meanings.get(name, "")))
    return tuple(found)


def _field_options(bundle: type[Any]) -> typing.Iterator[Option]:
    """Yield the fields of an options dataclass; the class that defines a field is its group."""
    hints = typing.get_type_hints(bundle, include_extras=True)
    for base in reversed(bundle.__mro__):
        meanings = argument_meanings(base.__doc__)
        group = (base.__doc__ or "").partition("\n")[0].rstrip(".") if base is not bundle else ""
        for field in dataclasses.fields(bundle):
            if field.name not in inspect.get_annotations(base):
                continue
            if field.default is dataclasses.MISSING:
                raise PluginError(f"option {field.name!r} of {bundle.__qualname__} needs a default")
            yield Option(field.name, hints[field.name], field.default, meanings.get(field.name, ""), group)


def check_options(
    name: str, available: tuple[Option, ...], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Check given option values.

    Args:
        name: The plugin's name, for messages.
        available: Its schema.
        given: Values as a manifest has them.

    Returns:
        All options with defaults filled in, as JSON values; and for each fault the key and what is wrong.
    """
    by_name = {option.name: option for option in available}
    faults: dict[str, str] = {}
    values: dict[str, Any] = {option.name: option.default for option in available}
    for key, value in given.items():
        if key not in by_name:
            described = ", ".join(f"{o.name} ({o.type_name}, {o.default!r})" for o in available)
            nearest = did_you_mean(key, by_name).partition("Valid:")[0].rstrip()
            question = f"{nearest} Its" if nearest else "\n  Its"
            faults[key] = f"{name} has no option {key!r}{question} options: {described or 'none'}"
            continue
        try:
            values[key] = by_name[key].check(value)
        except ValueError as error:
            faults[key] = str(error)
    return json.loads(json.dumps(values)), faults


def call_arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments with which to call a plugin for checked option values."""
    typed = {option.name: option.check(values[option.name]) for option in schema(function)}
    bundle = options_class(function)
    return typed if bundle is None else {"options": bundle(**typed)}


def _memory_file() -> Path:
    return platformdirs.user_cache_path("unlearnbench") / "options.json"


@functools.cache
def _memory() -> dict[str, Any]:
    try:
        remembered = json.loads(_memory_file().read_text())
    except (OSError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}


def _remember(key: str, value: Any) -> None:
    """Keep a checked set of options; a cache folder that cannot be written costs only time."""
    _memory()[key] = value
    file = _memory_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{id(value)}.tmp")
        temporary.write_text(json.dumps(_memory()))
        temporary.replace(file)
    except OSError:
        return


def resolve_options(plugin: Plugin, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Check options of a plugin; see `check_options`.

    Reading a schema imports the plugin and with it torch, which takes seconds. Values that passed once for
    the same source are remembered in the user's cache folder, so that a finished benchmark answers at once.

    Raises:
        PluginError: If the plugin cannot be imported or one of its options has no type or default.
    """
    key = content_id(plugin.kind, plugin.target, plugin.distribution, plugin.version, plugin.source, given)
    if key in _memory():
        return dict(_memory()[key]), {}
    values, faults = check_options(plugin.name, plugin_schema(plugin), given)
    if not faults:
        _remember(key, values)
    return values, faults


def plugin_schema(plugin: Plugin) -> tuple[Option, ...]:
    """Return the options of an installed plugin.

    Raises:
        PluginError: If it cannot be imported or one of its options has no type or default.
    """
    try:
        return schema(plugin.load())
    except PluginError:
        raise
    except (TypeError, NameError, ValueError) as error:
        raise PluginError(
            f"{SINGULAR[plugin.kind]} {plugin.name!r} of {plugin.distribution} has no readable signature: {error}"
        ) from error
