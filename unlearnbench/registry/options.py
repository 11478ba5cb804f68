"""Options of plugins, read from a function's signature and checked before anything is trained."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import docstring_parser
from pydantic import ConfigDict, TypeAdapter, ValidationError

from unlearnbench.errors import PluginError, did_you_mean
from unlearnbench.registry.declare import ADDED_LATER
from unlearnbench.registry.entry_points import SINGULAR, Plugin
from unlearnbench.registry.signature import Argument, read_signature

EMPTY = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a plugin.

    Attributes:
        name: Key in a manifest.
        annotation: Type of the value.
        default: Value if a manifest does not set the option.
        meaning: Description in one line.
        group: What the option controls; "" if the plugin has no groups.
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

    @property
    def added_later(self) -> bool:
        """Whether results without this option are those with its default."""
        return typing.get_origin(self.annotation) is typing.Annotated and ADDED_LATER in typing.get_args(
            self.annotation
        )

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        # JSON rules are strict about types, but accept a list for a tuple and a whole number for a float.
        config = None if dataclasses.is_dataclass(self.annotation) else ConfigDict(strict=True, allow_inf_nan=False)
        return TypeAdapter(self.annotation, config=config)

    def check(self, value: Any) -> Any:
        """Return `value` converted to this option's type.

        Raises:
            ValueError: If it is of another type or not among the allowed values.
        """
        try:
            return self._adapter.validate_json(json.dumps(value))
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
    """Return what the `Args:` or `Attributes:` section of a Google docstring says about each name."""
    try:
        parsed = docstring_parser.parse(docstring or "", docstring_parser.DocstringStyle.GOOGLE)
    except docstring_parser.ParseError:
        return {}  # Foreign docstrings need not be in this style.
    return {found.arg_name: " ".join((found.description or "").split()) for found in parsed.params}


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
    keywords = tuple(
        Argument(name, hints.get(name, EMPTY), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    )
    return _options(keywords, function.__doc__, f"{function.__module__}:{function.__qualname__}")


def _options(keywords: tuple[Argument, ...], docstring: str | None, place: str) -> tuple[Option, ...]:
    meanings = argument_meanings(docstring)
    for argument in keywords:
        if argument.annotation is EMPTY or argument.default is EMPTY:
            raise PluginError(f"option {argument.name!r} of {place} needs a type and a default")
    return tuple(Option(a.name, a.annotation, a.default, meanings.get(a.name, "")) for a in keywords)


def _field_options(bundle: type[Any]) -> typing.Iterator[Option]:
    """Yield the fields of an options dataclass; the class that defines a field gives it its group."""
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
        name: Name of the plugin, for messages.
        available: Schema of the plugin.
        given: Values from a manifest.

    Returns:
        All options with defaults filled in, as JSON values, and what is wrong with each faulty key.
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
    """Return the keyword arguments for a plugin with checked option values; those added later may be missing."""
    typed = {
        option.name: option.check(values[option.name])
        for option in schema(function)
        if option.name in values or not option.added_later
    }
    bundle = options_class(function)
    return typed if bundle is None else {"options": bundle(**typed)}


def resolve_options(plugin: Plugin, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Check options of a plugin; see `check_options`.

    Raises:
        PluginError: If the plugin cannot be imported or one of its options has no type or default.
    """
    return check_options(plugin.name, plugin_schema(plugin), given)


def decisive_options(plugin: Plugin, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options but those that were added later and have their default, with which results are the same.

    Raises:
        PluginError: If the plugin cannot be imported or one of its options has no type or default.
    """
    available = plugin_schema(plugin)
    later = {option.name for option in available if option.added_later}
    defaults = check_options(plugin.name, available, {})[0]
    return {name: value for name, value in options.items() if name not in later or value != defaults[name]}


def check_positional(positional: Sequence[str]) -> None:
    """Check that an unlearner is called with a model and a task.

    Args:
        positional: Names of its positional arguments.

    Raises:
        ValueError: If there are more or fewer arguments than two.
    """
    if len(positional) != 2:
        raise ValueError(f"takes {len(positional)} positional arguments, not 2 (model, task)")


def positional_arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's positional arguments.

    Raises:
        ValueError: If it cannot be called.
    """
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))


@functools.cache
def plugin_schema(plugin: Plugin) -> tuple[Option, ...]:
    """Return the options of an installed plugin, from its source text if that is enough, else by importing it.

    Raises:
        PluginError: If it cannot be imported or one of its options has no type or default.
    """
    try:
        read = read_signature(plugin.module, plugin.attribute, EMPTY)
        if read is None:
            function = plugin.load()
            if plugin.kind == "unlearners":
                check_positional(positional_arguments(function))
            return schema(function)
        if plugin.kind == "unlearners":
            check_positional(read.positional)
        bundle = next((a.annotation for a in read.keywords if a.name == "options"), None)
        if dataclasses.is_dataclass(bundle) and isinstance(bundle, type):
            return tuple(_field_options(bundle))
        return _options(read.keywords, read.docstring, plugin.target)
    except PluginError:
        raise
    except (TypeError, NameError, ValueError) as error:
        raise PluginError(
            f"{SINGULAR[plugin.kind]} {plugin.name!r} of {plugin.distribution} has no readable signature: {error}"
        ) from error


def plugin_docstring(plugin: Plugin) -> str:
    """Return an installed plugin's docstring, or "" if it has none.

    Raises:
        PluginError: If its source text is not enough and it cannot be imported.
    """
    read = read_signature(plugin.module, plugin.attribute, EMPTY)
    return read.docstring if read is not None else inspect.cleandoc(plugin.load().__doc__ or "")
