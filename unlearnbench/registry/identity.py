"""Identity and provenance: the versions that decide whether a stored result still counts, and digests of source code.

A stored result is identified by what determines it, and code counts by the version that it declares. It may therefore
be moved, reformatted and documented freely, and whoever changes a result raises the version. Every record also holds a
digest of the syntax tree, which decides nothing. `tests/versions.lock` holds the version and digest of everything, so
that a change of the code without a change of its version is noticed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator

from unlearnbench.registry.syntax import SourceModule, find_definition, imported_module

# These are raised with any change that gives another training, task, feature file or metrics of a record for the same
# settings. Seeds, copies and what is loaded are part of this.
TRAINING_PROTOCOL = 1
TASK_PROTOCOL = 1
FEATURES_FORMAT = 3
METRICS_PROTOCOL = 1
# This is raised with any change that deals the images to other parties, or averages another network of what they send.
FEDERATION_PROTOCOL = 1
# This is raised when the contents of the store change their form, so that older entries are made anew.
STORE_FORMAT = 2

DECLARE = "declare"
Place = tuple[str, str]


def declared_version(module: str, attribute: str) -> int | None:
    """Return the version that a function or class declares, read from its source alone.

    Args:
        module: Dotted name of the module.
        attribute: Name of the function or class in the module.

    Returns:
        The version, which is 1 if none is declared, or None if the source does not tell and has to be imported.
    """
    found = find_definition(module, attribute)
    if found is None:
        return None
    statement = found[1][-1]
    if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return None
    version = 1
    for decorator in statement.decorator_list:
        if not (isinstance(decorator, ast.Call) and _last_name(decorator.func) == DECLARE):
            continue
        for keyword in decorator.keywords:
            if keyword.arg == "version":
                if not (isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, int)):
                    return None
                version = keyword.value.value
            elif keyword.arg is None:
                return None
    return version


def _last_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@functools.cache
def source_digest(*roots: Place) -> str:
    """Return the digest of the syntax of definitions and of all that they use from their own top-level packages.

    It does not depend on where the definitions are, how they are laid out, or what their comments, docstrings and
    error messages say.

    Args:
        roots: Pairs of a module's dotted name and a name in it, of which only the part before the first dot counts.

    Returns:
        16 hexadecimal digits, which depend on the names alone if no source can be found.
    """
    waiting = [(module, name.partition(".")[0]) for module, name in roots]
    seen: set[Place] = set()
    dumps: set[str] = set()
    for place in waiting:
        if find_definition(*place) is None:
            dumps.add(".".join(place))
    while waiting:
        found = find_definition(*waiting.pop())
        if found is None:
            continue
        source, statements = found
        for statement in statements:
            if (source.name, f"{statement.lineno}") in seen:
                continue
            seen.add((source.name, f"{statement.lineno}"))
            dumps.add(_content(statement))
            waiting.extend(_used(statement, source))
    return hashlib.sha256("\n".join(sorted(dumps)).encode()).hexdigest()[:16]


def _used(statement: ast.stmt, source: SourceModule) -> Iterator[Place]:
    """Yield what a statement may use of its own module and of imported ones, under the names it has there."""
    for owner, name in _names(statement):
        module = source.name if owner is None else imported_module(source, owner)
        if module is not None:
            yield module, name


@functools.cache
def _names(statement: ast.stmt) -> frozenset[tuple[str | None, str]]:
    """Return the names in a statement: attributes with the name they stand behind, and all others with None."""
    found: set[tuple[str | None, str]] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            found.add((None, node.id))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add((node.value.id, node.attr))
    return frozenset(found)


@functools.cache
def _content(statement: ast.stmt) -> str:
    """Return the content of a statement, which most components have in common."""
    return _dump(statement)


def _dump(node: ast.AST, *, told: bool = False) -> str:
    """Return the content of a syntax tree in a form that does not change from one Python version to the next.

    Args:
        node: Tree to dump.
        told: Whether it is part of a message, whose words have no effect.
    """
    if told and isinstance(node, ast.Constant | ast.JoinedStr):
        return "message"
    parts = []
    for name, value in ast.iter_fields(node):
        if name in {"type_comment", "kind", "ctx"}:
            continue
        values = value if isinstance(value, list) else [value]
        if name == "body" and values and _is_docstring(node, values[0]):
            values = values[1:]
        inner = [
            _dump(item, told=told or isinstance(node, ast.Raise)) if isinstance(item, ast.AST) else repr(item)
            for item in values
            if item is not None or isinstance(node, ast.Constant)
        ]
        if inner:
            parts.append(f"{name}=[{','.join(inner)}]")
    return f"{type(node).__name__}({','.join(parts)})"


def _is_docstring(owner: ast.AST, first: object) -> bool:
    return (
        isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
