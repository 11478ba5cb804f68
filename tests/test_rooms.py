"""The rooms of the package: their size, the tests' own tree, and what import-linter cannot see of their order."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import REPOSITORY

PACKAGE, TESTS = REPOSITORY / "unlearnbench", REPOSITORY / "tests"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted({module.parent for module in MODULES} - {PACKAGE})


def place(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield each import from the package below a node, as `module.name` or as the module alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == "unlearnbench")


def imported_inside_functions(tree: ast.AST) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {name for node in ast.walk(tree) if isinstance(node, functions) for name in imported(node)}


def imported_by_name(tree: ast.AST) -> set[str]:
    """Return the modules of the package that are imported by a string, which import-linter does not see."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    named = [
        ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func).endswith(("import_module", "import__"))
    ]
    return {name for name in named if "unlearnbench" in name}


def taken_from_the_interface(tree: ast.AST) -> set[str]:
    """Return the imported names of the package's own interface, which stand for rooms of any level."""
    here = {path.stem for path in PACKAGE.iterdir()} | {"__version__"}
    return {name for name in imported(tree) if "." not in name or name.split(".")[1] not in here}


def in_the_locale_s_encoding(tree: ast.AST) -> Iterator[str]:
    """Yield each call that reads or writes text in whatever encoding the user's locale has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not any(keyword.arg == "encoding" for keyword in node.keywords):
            called = ast.unparse(node.func).rpartition(".")[2]
            mode = [value.value for value in (*node.args[:2], *(k.value for k in node.keywords)) if is_mode(value)]
            method = isinstance(node.func, ast.Attribute) and called in {"read_text", "write_text"}
            if method or (called in {"open", "fdopen"} and mode and "b" not in mode[0]):
                yield ast.unparse(node)


def is_mode(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 4


@pytest.mark.parametrize("module", MODULES, ids=place)
def test_text_is_read_and_written_as_utf_8(module: Path) -> None:
    assert list(in_the_locale_s_encoding(ast.parse(module.read_text("utf-8")))) == []


def test_text_in_the_locale_s_encoding_is_found() -> None:
    code = "path.read_text(); path.write_text('a', errors='x'); path.open('w'); open('a', mode='a'); path.open('rb')"
    assert len(list(in_the_locale_s_encoding(ast.parse(code)))) == 4


@pytest.mark.parametrize("room", ROOMS, ids=place)
def test_a_room_holds_at_most_ten_modules_and_says_what_it_knows(room: Path) -> None:
    assert len(list(room.glob("*.py"))) <= 11
    tree = ast.parse((room / "__init__.py").read_text("utf-8"))
    assert len(tree.body) == 1
    assert ast.get_docstring(tree)


@pytest.mark.parametrize("module", MODULES, ids=place)
def test_no_module_climbs_where_import_linter_does_not_look(module: Path) -> None:
    tree = ast.parse(module.read_text("utf-8"))
    assert imported_by_name(tree) == set()
    assert taken_from_the_interface(tree) == set()
    if not place(module).startswith("frontends/"):
        assert imported_inside_functions(tree) == set()


def test_each_way_to_climb_is_found() -> None:
    code = """
import importlib
import unlearnbench
from unlearnbench import __version__, run
from unlearnbench.store import entry
def climb():
    from unlearnbench.engine.runner import Runner
    return importlib.import_module("unlearnbench.frontends.cli"), importlib.import_module("torch")
"""
    tree = ast.parse(code)
    assert imported_by_name(tree) == {"'unlearnbench.frontends.cli'"}
    assert imported_inside_functions(tree) == {"unlearnbench.engine.runner.Runner"}
    assert taken_from_the_interface(tree) == {"unlearnbench", "unlearnbench.run"}


def test_the_tests_lie_in_the_rooms_of_the_package() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    assert {folder for folder in folders if not (PACKAGE / folder).is_dir()} == set()
    missing = {room.name for room in ROOMS if room.parent == PACKAGE} - {
        folder.parts[0] for folder in folders if folder.parts
    }
    assert missing == set()
