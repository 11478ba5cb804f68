"""Identity and provenance: the versions that decide whether a stored result still counts, and digests of source code.

A stored result is named by what determines it, and the code counts by the version that it declares: code may be moved,
reformatted and documented freely. Who changes a result raises the version. A digest of the syntax tree stands in
every record, where it decides nothing; `tests/versions.lock` holds version and digest of everything, so that a change
of the code without a change of its version is noticed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator

from unlearnbench.registry.syntax import SourceModule, find_definition, imported_module

# Raised with any change of what a training, a task, a feature file or the metrics of a record come to, for the same
# settings: seeds, copies and what is loaded among them.
TRAINING_PROTOCOL = 1
TASK_PROTOCOL = 1
FEATURES_FORMAT = 2
METRICS_PROTOCOL = 1
# Raised when what lies in the store changes its form, so that older entries are made anew.
STORE_FORMAT = 2

DECLARE = "declare"
Place = tuple[str, str]


def declared_version(module: str, attribute: str) -> int | None:
    """Return the version that a function or class declares, read from its source alone.

    Args:
        module: The dotted name of its module.
        attribute: Its name there.

    Returns:
        The version, 1 where it declares none; None where its source does not say and it has to be imported.
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

    It is the same wherever the definitions stand, however they are laid out, and whatever comments, docstrings and
    error messages say.

    Args:
        roots: Pairs of a module's dotted name and a name in it; a dotted name there means what its first part is.

    Returns:
        16 hexadecimal digits; those of the names alone where no source can be found.
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
            dumps.add(_dump(statement))
            waiting.extend(_used(statement, source))
    return hashlib.sha256("\n".join(sorted(dumps)).encode()).hexdigest()[:16]


def _used(statement: ast.stmt, source: SourceModule) -> Iterator[Place]:
    """Yield what a statement may use of its own module and of those that it imports, under the names it has there."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            yield source.name, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = imported_module(source, node.value.id)
            if module is not None:
                yield module, node.attr


def _dump(node: ast.AST, *, told: bool = False) -> str:
    """Return what a syntax tree says, in a form that does not change from one Python to the next.

    Args:
        node: The tree.
        told: Whether it belongs to a message, whose words have no effect.
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
