"""What identifies a stored result: versions, settings and data, but never the text of the code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import python
from support.manifests import manifest_text, write_manifest

from unlearnbench.experiment import plan
from unlearnbench.experiment.plan import Plan, make_plan
from unlearnbench.experiment.resolve import resolve
from unlearnbench.registry import identity
from unlearnbench.registry.declare import VERSION, declare
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.identity import declared_version, source_digest
from unlearnbench.registry.syntax import find_definition, module_file, source_module

FILES = {
    "__init__.py": "",
    "top.py": "from pack_a.middle import f\nimport json\n\ndef g():\n    return f(json)\n",
    "middle.py": "from .deep import leaf\n\ndef f(x):\n    return leaf.h(x)\n\ndef unused():\n    return 1\n",
    "deep/__init__.py": "",
    "deep/leaf.py": (
        "from ..other import X\n\ndef h(y):\n    '''Say it.'''\n    if y:\n        raise ValueError(f'not {y}')\n"
        "    return X\n"
    ),
    "other.py": "X = 1\nY = 2\n",
}


@pytest.fixture
def package(search_path: Path) -> Path:
    folder = search_path / "pack_a"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def forget() -> None:
    for function in (module_file, source_module, source_digest):
        function.cache_clear()


def digest_after(package: Path, changes: dict[str, str], root: tuple[str, str] = ("pack_a.top", "g")) -> str:
    for name, text in changes.items():
        (package / name).write_text(text)
    forget()
    return source_digest(root)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("top.py", "f(json)", "f(json, 1)"),
        ("middle.py", "leaf.h(x)", "leaf.h(x + 1)"),
        ("deep/leaf.py", "return X", "return X + 1"),
        ("other.py", "X = 1", "X = 3"),
    ],
)
def test_a_digest_moves_with_all_that_a_definition_uses(package: Path, name: str, old: str, new: str) -> None:
    before = source_digest(("pack_a.top", "g"))
    assert digest_after(package, {name: FILES[name].replace(old, new)}) != before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("middle.py", FILES["middle.py"].replace("return 1", "return 2")),
        ("other.py", "# Another comment.\nX = 1\nY = 7\n"),
        ("deep/leaf.py", FILES["deep/leaf.py"].replace("Say it.", "Say it better.")),
        ("deep/leaf.py", FILES["deep/leaf.py"].replace("not {y}", "{y} is not it")),
        ("top.py", "import json\n\nfrom pack_a.middle import f\n\n\ndef g():\n    return f(\n        json,\n    )\n"),
    ],
)
def test_a_digest_holds_for_other_layout_comments_messages_and_what_is_not_used(
    package: Path, name: str, text: str
) -> None:
    before = source_digest(("pack_a.top", "g"))
    assert digest_after(package, {name: text}) == before


def test_a_digest_holds_when_definitions_move_to_other_modules(package: Path) -> None:
    before = source_digest(("pack_a.top", "g"))
    moved = {
        "moved.py": "X = 1\n\n" + FILES["deep/leaf.py"].partition("\n\n")[2],
        "middle.py": "from . import moved as leaf\n\ndef f(x):\n    return leaf.h(x)\n",
        "renamed.py": FILES["top.py"],
    }
    assert digest_after(package, moved, ("pack_a.renamed", "g")) == before


@pytest.mark.parametrize("text", ["def broken(:\n", "\x00"])
def test_a_module_that_does_not_parse_has_the_digest_of_its_name(package: Path, text: str) -> None:
    (package / "apart.py").write_text(text)
    forget()
    assert source_digest(("pack_a.apart", "f")) == source_digest(("pack_a.apart", "f"))
    assert source_digest(("pack_a.apart", "f")) != source_digest(("pack_a.missing", "f"))


def test_a_definition_is_found_where_it_is_imported_from(package: Path) -> None:
    found = find_definition("pack_a.top", "f")
    assert found is not None
    assert found[0].name == "pack_a.middle"
    assert find_definition("pack_a.top", "json") is None


def test_digests_import_nothing() -> None:
    code = (
        "import sys; from unlearnbench.registry.identity import source_digest; "
        f"source_digest(({find('unlearners', 'erwp').module!r}, 'erwp')); "
        "print([m for m in sys.modules if m.startswith('torch')])"
    )
    assert python("-c", code).out == "[]\n"


@pytest.mark.parametrize(
    ("decorator", "version"),
    [
        ("", 1),
        ("@declare(version=3)\n", 3),
        ("@unlearnbench.declare(exempt={}, version=4)\n", 4),
        ("@declare(version=V)\n", None),
        ("@declare(**more)\n", None),
    ],
)
def test_a_declared_version_is_read_from_source(search_path: Path, decorator: str, version: int | None) -> None:
    (search_path / "declaring.py").write_text(f"{decorator}def method(model, task):\n    return model\n")
    assert declared_version("declaring", "method") == version


def test_declare_keeps_the_version_on_the_function_and_refuses_what_is_none() -> None:
    @declare(version=2)
    def method() -> None: ...

    assert getattr(method, VERSION) == 2
    wrongs: list[Any] = [0, True, "1"]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"version: .* is not a whole number from 1 on"):
            declare(version=wrong)


@pytest.fixture
def small(tmp_path: Path) -> Plan:
    text = manifest_text('[[unlearners]]\nname = "folnrc"\noptions = { epochs = 1 }')
    return make_plan(resolve(write_manifest(tmp_path, text)), precision="float32")


def ids(found: Plan) -> tuple[set[str], set[str], set[str], set[str]]:
    """Return the ids of the references, of the unlearned models, of features and of records."""
    references = {cell.original.id for cell in found.cells} | {cell.fdr.id for cell in found.cells}
    models = {cell.model_id for cell in found.cells if not cell.is_reference}
    return references, models, {cell.features_id for cell in found.cells}, {cell.id for cell in found.cells}


def test_provenance_decides_nothing(small: Plan) -> None:
    resolved = small.resolved
    other: dict[str, Any] = {"distribution_version": "9.9", "source": ()}
    elsewhere = replace(
        resolved,
        methods=tuple(replace(method, **other) for method in resolved.methods),
        metrics=tuple(replace(metric, **other) for metric in resolved.metrics),
        problems=tuple(
            replace(p, dataset=replace(p.dataset, **other), architecture=replace(p.architecture, **other))
            for p in resolved.problems
        ),
    )
    assert ids(make_plan(elsewhere, precision="float32")) == ids(small)


def test_a_version_of_a_method_makes_its_models_anew_and_no_reference(small: Plan) -> None:
    methods = tuple(replace(m, version=m.version + (m.role == "unlearner")) for m in small.resolved.methods)
    after = ids(make_plan(replace(small.resolved, methods=methods), precision="float32"))
    assert after[0] == ids(small)[0]
    assert not after[1] & ids(small)[1]


def test_a_version_of_a_metric_computes_records_anew_and_nothing_else(small: Plan) -> None:
    metrics = tuple(replace(metric, version=metric.version + 1) for metric in small.resolved.metrics)
    after = ids(make_plan(replace(small.resolved, metrics=metrics), precision="float32"))
    assert after[:3] == ids(small)[:3]
    assert not after[3] & ids(small)[3]


@pytest.mark.parametrize("what", ["recipe", "revision", "dataset", "architecture", "precision"])
def test_recipe_data_network_and_precision_make_everything_anew(small: Plan, what: str) -> None:
    problem = small.resolved.problems[0]
    changed = {
        "recipe": replace(problem, recipe={**problem.recipe, "momentum": 0.8}),
        "revision": replace(problem, info=replace(problem.info, revision="other")),
        "dataset": replace(problem, dataset=replace(problem.dataset, version=2)),
        "architecture": replace(problem, architecture=replace(problem.architecture, version=2)),
        "precision": problem,
    }[what]
    precision = "bfloat16" if what == "precision" else "float32"
    after = ids(make_plan(replace(small.resolved, problems=(changed,)), precision=precision))
    for one, other in zip(after, ids(small), strict=True):
        assert not one & other


def test_a_recipe_field_that_is_off_decides_nothing(small: Plan) -> None:
    problem = small.resolved.problems[0]
    off = {key for key, value in problem.recipe.items() if value is None or value is False or value == []}
    assert off >= {"crop", "nesterov", "resolutions"}
    older = replace(problem, recipe={key: value for key, value in problem.recipe.items() if key not in off})
    assert ids(make_plan(replace(small.resolved, problems=(older,)), precision="float32")) == ids(small)


def test_a_default_option_decides(small: Plan) -> None:
    methods = tuple(replace(m, options={**m.options, "batch_size": 7}) for m in small.resolved.methods)
    assert not ids(make_plan(replace(small.resolved, methods=methods), precision="float32"))[1] & ids(small)[1]


@pytest.mark.parametrize(
    ("protocol", "first_changed"),
    [
        ("TRAINING_PROTOCOL", 0),
        ("TASK_PROTOCOL", 1),
        ("FEATURES_FORMAT", 2),
        ("METRICS_PROTOCOL", 3),
    ],
)
def test_a_protocol_makes_its_own_stage_and_those_behind_it_anew(
    small: Plan, monkeypatch: pytest.MonkeyPatch, protocol: str, first_changed: int
) -> None:
    monkeypatch.setattr(plan, protocol, getattr(plan, protocol) + 1)
    after = ids(make_plan(small.resolved, precision="float32"))
    for stage, (one, other) in enumerate(zip(after, ids(small), strict=True)):
        assert (one == other) == (stage < first_changed)
    assert hasattr(identity, protocol)


def test_the_number_of_processes_of_a_training_makes_everything_anew(small: Plan) -> None:
    manifest = small.resolved.manifest.model_copy(update={"devices_per_training": 2})
    after = ids(make_plan(replace(small.resolved, manifest=manifest), precision="float32"))
    assert all(not one & other for one, other in zip(after, ids(small), strict=True))
