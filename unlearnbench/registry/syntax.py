"""Source files as syntax: where a name is defined, found without importing anything."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SourceModule:
    """The top level of a source file.

    Attributes:
        name: Dotted name of the module.
        definitions: Statements that bind each name: functions, classes, assignments.
        imports: Module that each imported name comes from, and its name there, or None for a module itself.
    """

    name: str
    definitions: dict[str, tuple[ast.stmt, ...]]
    imports: dict[str, tuple[str, str | None]]

    @property
    def top(self) -> str:
        """Name of the top-level package."""
        return self.name.partition(".")[0]


@functools.cache
def module_file(module: str) -> Path | None:
    """Return the source file of `module` without importing anything, or None if it has none.

    Args:
        module: Dotted name of a module, or the path of a Python file.
    """
    if module.endswith(".py"):
        return Path(module) if Path(module).is_file() else None
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for location in spec.submodule_search_locations or ():
        base = Path(location).joinpath(*rest)
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None


@functools.cache
def source_module(module: str) -> SourceModule | None:
    """Return the top level of a module's source, or None if there is none or it does not parse."""
    file = module_file(module)
    if file is None:
        return None
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    definitions: dict[str, tuple[ast.stmt, ...]] = {}
    imports: dict[str, tuple[str, str | None]] = {}
    for statement in _top_level(tree.body):
        imports.update(_imported(statement, package))
        for name in _bound(statement):
            definitions[name] = (*definitions.get(name, ()), statement)
    return SourceModule(module, definitions, imports)


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, including those inside `if`, `try` and `with`."""
    for statement in body:
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", ()):
                yield from _top_level(handler.body)
        else:
            yield statement


def _imported(statement: ast.stmt, package: str) -> Iterator[tuple[str, tuple[str, str | None]]]:
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            yield alias.asname or whole, (whole, None)
    elif isinstance(statement, ast.ImportFrom):
        base = statement.module or ""
        if statement.level:
            parent = package.rsplit(".", statement.level - 1)[0] if statement.level > 1 else package
            base = f"{parent}.{base}" if base else parent
        for alias in statement.names:
            yield alias.asname or alias.name, (base, alias.name)


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def find_definition(module: str, name: str) -> tuple[SourceModule, tuple[ast.stmt, ...]] | None:
    """Return where a module's name is defined: in the module, or where it imports the name from.

    Args:
        module: Dotted name of the module that uses the name.
        name: Name to look up.

    Returns:
        The module with the definition, and the statements that bind the name there; None if the name comes from
        another top-level package, is a module itself, or is not defined anywhere.
    """
    seen: set[tuple[str, str]] = set()
    while (module, name) not in seen:
        seen.add((module, name))
        source = source_module(module)
        if source is None:
            return None
        if name in source.definitions:
            return source, source.definitions[name]
        origin = source.imports.get(name)
        if origin is None or origin[1] is None or origin[0].partition(".")[0] != source.top:
            return None
        module, name = origin[0], origin[1]
    return None


def imported_module(source: SourceModule, name: str) -> str | None:
    """Return the module of its own package that a module refers to by a name, or None if the name is no such module."""
    base, inner = source.imports.get(name, ("", None))
    module = base if inner is None else f"{base}.{inner}"
    return module if base and module.partition(".")[0] == source.top and module_file(module) else None
