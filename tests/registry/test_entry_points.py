"""Plugins found through entry points."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.commands import python
from support.plugins import fake_distribution

from unlearnbench.errors import PluginError
from unlearnbench.registry.entry_points import KINDS, find, installed, names
from unlearnbench.unlearners.builtin.erwp import erwp

BROKEN = {"broken_plugin": "raise RuntimeError('no luck')"}


@pytest.mark.parametrize(
    ("kind", "built_in"),
    [
        ("unlearners", {"wd", "folnrc", "erwp"}),
        ("datasets", {"digits"}),
        ("architectures", {"digits_net"}),
        ("metrics", {"forget_accuracy", "retain_accuracy", "forget_prototype_accuracy"}),
    ],
)
def test_built_ins_register_through_the_same_groups(kind: str, built_in: set[str]) -> None:
    assert kind in KINDS
    assert built_in <= set(names(kind))
    own = [plugin.name for plugin in installed(kind) if plugin.distribution == "unlearnbench"]
    assert built_in <= set(own)
    assert own == sorted(own)


def test_a_plugin_is_loaded_by_its_name() -> None:
    assert find("unlearners", "erwp").load() is erwp


def test_listing_imports_no_plugin() -> None:
    code = (
        "import json, sys; from unlearnbench.registry.entry_points import KINDS, installed; "
        "print(sum(len(installed(kind)) for kind in KINDS)); "
        "print(json.dumps([m for m in sys.modules if m.startswith(('torch', 'sklearn', 'h5py', 'unlearnbench.'))]))"
    )
    done = python("-c", code)
    number, modules = done.out.splitlines()
    assert int(number) >= 8
    assert [m for m in json.loads(modules) if not m.startswith("unlearnbench.")] == []


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PluginError) as caught:
        find("metrics", "forget_acuracy")
    assert str(caught.value) == (
        "no metric 'forget_acuracy' is installed\n"
        f"  Did you mean 'forget_accuracy'? Valid: {', '.join(names('metrics'))}"
    )


def test_a_broken_plugin_is_named_and_stops_no_other(search_path: Path) -> None:
    fake_distribution(search_path, "broken-dist", {"unlearners": {"broken": "broken_plugin:f"}}, BROKEN)
    plugin = find("unlearners", "broken")
    with pytest.raises(PluginError) as caught:
        plugin.load()
    assert str(caught.value) == (
        "unlearner 'broken' of broken-dist 1.0 cannot be loaded from broken_plugin:f: RuntimeError: no luck"
    )
    assert {"broken", "wd"} <= set(names("unlearners"))
    assert find("unlearners", "erwp").load() is erwp


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("missing_module:f", "ModuleNotFoundError: No module named 'missing_module'"),
        ("empty_module:f", "AttributeError: module 'empty_module' has no attribute 'f'"),
        ("exit_module:f", "SystemExit: 3"),
    ],
)
def test_a_target_that_cannot_be_had_is_named(search_path: Path, target: str, reason: str) -> None:
    modules = {"empty_module": "", "exit_module": "raise SystemExit(3)"}
    fake_distribution(search_path, "bad", {"metrics": {"bad": target}}, modules)
    for module in modules:
        sys.modules.pop(module, None)
    with pytest.raises(PluginError) as caught:
        find("metrics", "bad").load()
    assert str(caught.value) == f"metric 'bad' of bad 1.0 cannot be loaded from {target}: {reason}"


def test_one_name_in_two_distributions_is_an_error_that_names_both(search_path: Path) -> None:
    for name in ("first", "second"):
        fake_distribution(search_path, name, {"unlearners": {"twin": f"{name}_module:f"}})
    assert [plugin.distribution for plugin in installed("unlearners") if plugin.name == "twin"] == ["first", "second"]
    with pytest.raises(PluginError) as caught:
        find("unlearners", "twin")
    assert str(caught.value) == (
        "unlearner 'twin' is claimed by first 1.0 and second 1.0\n  Uninstall one of them, or rename its entry point"
    )


def test_a_built_in_cannot_be_replaced_in_silence(search_path: Path) -> None:
    fake_distribution(search_path, "sly", {"unlearners": {"wd": "sly:f"}})
    with pytest.raises(PluginError, match=r"^unlearner 'wd' is claimed by sly 1\.0 and unlearnbench "):
        find("unlearners", "wd")
