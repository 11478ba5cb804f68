"""`new-plugin`: its files can be installed, are listed and pass their own tests, without any edit in our tree."""

import os
import tomllib
from pathlib import Path

import pytest
from support.commands import cli, python
from support.paths import REPOSITORY
from support.plugins import fake_distribution

from unlearnbench.registry.scaffold import PluginNames, plugin_files, plugin_names

EXAMPLE = REPOSITORY / "plugins" / "unlearnbench-example"


def texts(folder: Path) -> dict[str, bytes]:
    # Folders that tools leave behind were not written by the command.
    found = (path for path in folder.rglob("*") if path.is_file() and "cache" not in str(path.relative_to(folder)))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if ".egg" not in str(path)}


def install(plugin: Path, site: Path) -> Path:
    """Write what pip would write for a plugin into a folder; the plugin's modules stay where they are."""
    project = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    groups = {kind.removeprefix("unlearnbench."): targets for kind, targets in project["entry-points"].items()}
    return fake_distribution(site, project["name"], groups)


def test_the_example_is_what_new_plugin_writes() -> None:
    written = {path: text.encode() for path, text in plugin_files(plugin_names("example")).items()}
    assert written == texts(EXAMPLE)


@pytest.mark.slow
def test_a_new_plugin_is_listed_and_passes_its_own_tests(tmp_path: Path) -> None:
    done = cli("new-plugin", "my-method", "--output", tmp_path)
    assert done.code == 0, done.err
    plugin = tmp_path / "unlearnbench-my-method"
    assert done.out == f"{plugin}\n"
    site = install(plugin, tmp_path / "site")
    root = REPOSITORY
    path = Path(os.pathsep.join(map(str, (site, plugin, root))))
    listed = python("-m", "unlearnbench", "list", "unlearners", path=path)
    assert ["my_method", "unlearnbench-my-method", "1.0"] in [line.split() for line in listed.out.splitlines()]
    tested = python("-m", "pytest", "-p", "no:cacheprovider", "-q", plugin, path=path)
    assert tested.code == 0, tested.out + tested.err
    assert "2 passed" in tested.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "tests"), [("architecture", "3 passed"), ("dataset", "3 passed"), ("metric", "4 passed")]
)
def test_every_other_kind_passes_its_own_tests_too(tmp_path: Path, kind: str, tests: str) -> None:
    done = cli("new-plugin", "my-own", "--kind", kind, "--output", tmp_path)
    assert done.code == 0, done.err
    plugin = tmp_path / "unlearnbench-my-own"
    site = install(plugin, tmp_path / "site")
    path = Path(os.pathsep.join(map(str, (site, plugin, REPOSITORY))))
    tested = python("-m", "pytest", "-p", "no:cacheprovider", "-q", plugin, path=path)
    assert tested.code == 0, tested.out + tested.err
    assert tests in tested.out
    project = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    title = "data set" if kind == "dataset" else kind
    assert project["description"] == f"The {title} my_own, for unlearnbench"


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("architecture", "resnet18", "an architecture"),
        ("dataset", "cifar10", "a data set"),
        ("metric", "speed_up", "a metric"),
    ],
)
def test_the_names_of_each_kind_are_its_own(tmp_path: Path, kind: str, name: str, told: str) -> None:
    done = cli("new-plugin", name, "--kind", kind, "-o", tmp_path)
    assert (done.code, done.err) == (
        2,
        f"new-plugin {name}: {told} {name!r} is installed; choose another name\n",
    )


@pytest.mark.parametrize("name", ["my-method", "My_Method", "unlearnbench-my-method", "my.method"])
def test_all_ways_to_write_a_name_give_the_same(name: str) -> None:
    assert plugin_names(name) == PluginNames("my_method", "unlearnbench-my-method", "unlearnbench_my_method")


@pytest.mark.parametrize("name", ["2nd", "", "a/b", "../up", "class", "méthode", "unlearnbench-", "-o"])
def test_a_name_that_no_function_can_have_is_refused(tmp_path: Path, name: str) -> None:
    done = cli("new-plugin", "-o", tmp_path, "--", name)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"new-plugin {name}: not a name for a method\n"
        "  A letter, then letters, digits and hyphens are allowed, for example my-method\n"
    )
    assert not list(tmp_path.iterdir())


def test_the_name_of_an_installed_method_is_refused(tmp_path: Path) -> None:
    done = cli("new-plugin", "erwp", "-o", tmp_path)
    assert (done.code, done.err) == (
        2,
        "new-plugin erwp: an unlearner 'erwp' is installed; choose another name\n",
    )


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "unlearnbench-mine"
    place.mkdir()
    done = cli("new-plugin", "mine", "-o", tmp_path)
    assert (done.code, done.err) == (2, f"{place}: is there already; nothing was written\n")
    assert not list(place.iterdir())
