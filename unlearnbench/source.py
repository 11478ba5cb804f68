"""Hashes of source code: what a stored result depends on besides its settings."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

# Messages, names and forms: what they decide stands in the settings of a cell, which are hashed as well. A better
# error message must not cost anybody a training of 300 epochs.
WITHOUT_EFFECT = frozenset(
    f"unlearnbench.{name}"
    for name in ("errors", "naming", "toml_lines", "manifest", "registry", "options", "declaration", "source")
)


@functools.cache
def module_file(module: str) -> Path | None:
    """Return the source file of `module` without importing anything, or None if it has none."""
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
def _imports(module: str) -> frozenset[str]:
    """Return the modules of the same top-level package that `module` imports, functions included."""
    file = module_file(module)
    if file is None:
        return frozenset()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    top = module.partition(".")[0]
    found: set[str] = set()
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return frozenset()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                base = f"{parent}.{base}" if base else parent
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    inside = {name for name in found if name == top or name.startswith(f"{top}.")}
    return frozenset(name for name in inside if module_file(name) is not None)


@functools.cache
def source_hash(module: str) -> str:
    """Return the hash of a module's source and of all it imports from its own top-level package.

    A change anywhere in that code gives another hash, so that a stored result is never taken for that of
    newer code; a change elsewhere (the command line, a table, a message) does not.

    Args:
        module: Dotted name.

    Returns:
        16 hexadecimal digits; those of the name alone where no source can be found.
    """
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in WITHOUT_EFFECT:
            seen.add(name)
            waiting.extend(_imports(name))
    digest = hashlib.sha256()
    for name in sorted(seen):
        file = module_file(name)
        content = file.read_bytes() if file is not None else b""
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]
