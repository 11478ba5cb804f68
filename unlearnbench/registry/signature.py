"""Signatures read from source text, so that a plugin's arguments are known without an import that may take seconds."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unlearnbench.registry.syntax import SourceModule, find_definition

# Annotations and defaults are built from these packages, which are imported as usual since they are loaded already.
PLAIN_PACKAGES = frozenset(sys.stdlib_module_names) | {"pydantic", "annotated_types"}


class UnreadableError(Exception):
    """The source text is not enough, and the plugin has to be imported."""


@dataclass(frozen=True)
class Argument:
    """A keyword-only argument.

    Attributes:
        name: Name of the argument.
        annotation: Type of the argument; `inspect.Parameter.empty` if it has none.
        default: Value if it is not given; `inspect.Parameter.empty` if it has to be.
    """

    name: str
    annotation: Any
    default: Any


@dataclass(frozen=True)
class Signature:
    """What the definition of a function says.

    Attributes:
        positional: Names of its positional arguments.
        keywords: Its keyword-only arguments.
        docstring: Its docstring; "" if it has none.
    """

    positional: tuple[str, ...]
    keywords: tuple[Argument, ...]
    docstring: str


@functools.cache
def read_signature(module: str, name: str, missing: Any) -> Signature | None:
    """Return the signature of a module's function, read from source, or None if only an import can tell.

    Args:
        module: Dotted name of the module.
        name: Name of the function in the module.
        missing: Value that stands for a missing type or default.
    """
    found = find_definition(module, name)
    if found is None or not isinstance(found[1][-1], ast.FunctionDef):
        return None
    source, function = found[0], found[1][-1]
    arguments = function.args
    if arguments.vararg or arguments.kwarg:
        return None
    try:
        keywords = tuple(
            Argument(
                argument.arg,
                missing if argument.annotation is None else _value(argument.annotation, source),
                missing if default is None else _value(default, source),
            )
            for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        )
    # Evaluating an expression may raise anything, and importing the module then gives the better message.
    except Exception:
        return None
    positional = tuple(argument.arg for argument in (*arguments.posonlyargs, *arguments.args))
    return Signature(positional, keywords, ast.get_docstring(function) or "")


class _Names(dict[str, Any]):
    """The names that an expression of a module can use, looked up in the source on demand."""

    def __init__(self, source: SourceModule) -> None:
        super().__init__()
        self._source = source

    def __missing__(self, name: str) -> Any:
        self[name] = _named(self._source, name)
        return self[name]


def _named(source: SourceModule, name: str) -> Any:
    found = find_definition(source.name, name)
    if found is not None:
        return _defined(found[0], found[1][-1])
    base, inner = source.imports.get(name, ("", None))
    if base.partition(".")[0] in PLAIN_PACKAGES:
        module = importlib.import_module(base)
        return module if inner is None else getattr(module, inner)
    if base:
        elsewhere = find_definition(base, inner or "")
        if elsewhere is None:
            raise UnreadableError(name)
        return _defined(elsewhere[0], elsewhere[1][-1])
    return getattr(builtins, name)


def _defined(source: SourceModule, statement: ast.stmt) -> Any:
    """Return what a definition stands for: the value of an assignment, or a dataclass with the fields of a class."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return _value(statement.value, source)
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return _value(statement.value, source)
    if isinstance(statement, ast.ClassDef):
        return _dataclass(source, statement)
    raise UnreadableError(ast.dump(statement)[:80])


def _dataclass(source: SourceModule, statement: ast.ClassDef) -> type[Any]:
    """Return a dataclass with the fields, bases and docstring of a class, and without its methods."""
    decorators: list[Callable[..., Any]] = [
        _value(decorator.func if isinstance(decorator, ast.Call) else decorator, source)
        for decorator in statement.decorator_list
    ]
    if decorators != [dataclasses.dataclass]:
        raise UnreadableError(statement.name)
    fields: list[tuple[str, Any, Any]] = []
    for part in statement.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            default = dataclasses.MISSING if part.value is None else _value(part.value, source)
            fields.append((part.target.id, _value(part.annotation, source), dataclasses.field(default=default)))
    bases = tuple(_value(base, source) for base in statement.bases)
    docstring = ast.get_docstring(statement)
    return dataclasses.make_dataclass(
        statement.name, fields, bases=bases, frozen=True, namespace={"__doc__": docstring}
    )


def _value(expression: ast.expr, source: SourceModule) -> Any:
    code = compile(ast.Expression(expression), f"<{source.name}>", "eval")
    return eval(code, {"__builtins__": {}}, _Names(source))
