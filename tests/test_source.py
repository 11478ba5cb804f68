"""Hashes of source code."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import python

from unlearnbench.source import _imports, module_file, source_hash

FILES = {
    "__init__.py": "",
    "top.py": "from pack_a.middle import f\nimport json\n\ndef g():\n    from . import late\n",
    "middle.py": "from .deep import leaf\n",
    "deep/__init__.py": "",
    "deep/leaf.py": "from ..other import x\n",
    "other.py": "x = 1\n",
    "late.py": "",
    "apart.py": "",
}


def forget() -> None:
    for function in (module_file, _imports, source_hash):
        function.cache_clear()


@pytest.fixture
def package(search_path: Path) -> Path:
    folder = search_path / "pack_a"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    forget()
    return folder


@pytest.mark.parametrize("name", ["top.py", "middle.py", "deep/leaf.py", "deep/__init__.py", "other.py", "late.py"])
def test_the_hash_changes_with_a_module_and_all_it_imports(package: Path, name: str) -> None:
    before = source_hash("pack_a.top")
    (package / name).write_text(f"{FILES[name]}# changed\n")
    forget()
    assert source_hash("pack_a.top") != before


@pytest.mark.parametrize("name", ["apart.py"])
def test_the_hash_does_not_change_with_other_modules(package: Path, name: str) -> None:
    before = source_hash("pack_a.top")
    (package / name).write_text("changed = True\n")
    (package / "new.py").write_text("")
    forget()
    assert source_hash("pack_a.top") == before


def test_the_hash_is_that_of_content_and_names_not_of_the_place(package: Path) -> None:
    before = source_hash("pack_a.top")
    forget()
    assert source_hash("pack_a.top") == before
    assert len(before) == 16
    assert source_hash("pack_a.middle") != before


@pytest.mark.parametrize("text", ["def broken(:\n", "\x00"])
def test_a_module_that_does_not_parse_has_a_hash(package: Path, text: str) -> None:
    (package / "apart.py").write_text(text)
    forget()
    assert source_hash("pack_a.apart") != source_hash("pack_a.other")


def test_a_module_without_source_has_the_hash_of_its_name() -> None:
    assert module_file("no_such_module.at.all") is None
    assert source_hash("no_such_module.at.all") != source_hash("no_such_module.at.home")


@pytest.mark.parametrize(
    ("module", "needs", "does_without"),
    [
        ("unlearnbench.unlearners.erwp", "unlearnbench.unlearners.relevance", "unlearnbench.cli"),
        ("unlearnbench.unlearners.weight_deletion", "unlearnbench.networks", "unlearnbench.table"),
        ("unlearnbench.training", "unlearnbench.pipeline", "unlearnbench.table"),
        ("unlearnbench.extraction", "unlearnbench.networks", "unlearnbench.ranking"),
    ],
)
def test_a_method_does_not_depend_on_the_command_line(module: str, needs: str, does_without: str) -> None:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += _imports(name)
    assert does_without not in seen
    assert needs in seen


def test_hashing_imports_nothing() -> None:
    code = (
        "import sys; from unlearnbench.source import source_hash; source_hash('unlearnbench.unlearners.erwp'); "
        "print([m for m in sys.modules if m.startswith(('torch', 'unlearnbench.'))])"
    )
    assert python("-c", code).out == "['unlearnbench.source']\n"
