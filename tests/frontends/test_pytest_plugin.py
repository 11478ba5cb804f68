"""Runs hosted by pytest: the conformance suite of plugin authors, and manifests with expectations as tests."""

import os
import re
from pathlib import Path

import pytest
from support.commands import Done, cli, python
from support.manifests import FOLNRC, WD, manifest_text, write_manifest
from support.paths import REPOSITORY
from support.plugins import fake_distribution
from support.records import make_record

from unlearnbench.experiment.manifest import Bound
from unlearnbench.frontends.hosts.expectations import Expectation

pytestmark = pytest.mark.slow

ROOT = REPOSITORY
EXPECT = """
[expect.wd]
forget_accuracy = { max = 0.0 }
retain_accuracy = { min = 0.999999, max = 1.0 }

[expect."folnrc"]
retain_accuracy = { min = 0.0 }
"""


def run_pytest(*arguments: str | Path, path: Path | None = None) -> Done:
    """Run pytest in a process of its own, where the plugin is loaded like an installed one."""
    search = os.pathsep.join(map(str, (*([path] if path else []), ROOT)))
    plugins = (
        ("-p", "no:cacheprovider")
        if _registered()
        else ("-p", "no:cacheprovider", "-p", "unlearnbench.frontends.pytest_plugin")
    )
    return python("-m", "pytest", *plugins, "--color=no", *arguments, path=Path(search))


def _registered() -> bool:
    from importlib.metadata import entry_points

    return any(entry.value == "unlearnbench.frontends.pytest_plugin" for entry in entry_points(group="pytest11"))


def test_the_plugin_costs_nothing_at_the_start() -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import unlearnbench.frontends.pytest_plugin; "
        "print(sorted(m for m in set(sys.modules) - before))"
    )
    done = python("-c", code, path=ROOT)
    assert eval(done.out) == ["unlearnbench", "unlearnbench.frontends", "unlearnbench.frontends.pytest_plugin"]


def test_the_suite_checks_the_methods_that_are_named(tmp_path: Path) -> None:
    source = "def idle(model, task):\n    return model\n"
    site = fake_distribution(
        tmp_path / "site", "idle", {"unlearners": {"idle": "idle_method:idle"}}, {"idle_method": source}
    )
    done = run_pytest(
        "--pyargs", "unlearnbench.conformance", "--unlearner", "wd", "--unlearner", "idle", "-rA", path=site
    )
    assert done.code == 1
    assert re.search(r"^PASSED .*test_it_keeps_to_the_contract\[wd\]", done.out, re.M), done.out
    assert re.search(r"^FAILED .*test_it_keeps_to_the_contract\[idle\]", done.out, re.M)
    assert "idle fails 1 of 11 checks" in done.out


def test_a_method_that_is_not_installed_is_told_with_the_nearest_name() -> None:
    done = run_pytest("--pyargs", "unlearnbench.conformance", "--unlearner", "erwpp")
    assert done.code == pytest.ExitCode.INTERRUPTED
    assert "--unlearner erwpp: no such unlearner is installed\n  Did you mean 'erwp'?" in done.out + done.err
    assert "Traceback" not in done.out + done.err


def test_a_manifest_with_expectations_is_a_test_for_each(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text(WD, FOLNRC) + EXPECT)
    done = run_pytest(path, "-v", "--unlearnbench-output", tmp_path / "runs")
    assert done.code == 1, done.out + done.err
    assert "small.toml::wd.forget_accuracy <= 0 PASSED" in done.out
    assert "small.toml::0.999999 <= wd.retain_accuracy <= 1 FAILED" in done.out
    assert "small.toml::0 <= folnrc.retain_accuracy PASSED" in done.out
    assert "wd.retain_accuracy <= 1: the mean is 0." in done.out
    assert "1 failed, 2 passed" in done.out
    # The run is the same as that of the command line, so that nothing is left to do.
    again = cli("run", path, "-o", tmp_path / "runs", "--device", "cpu")
    assert "all 4 cells are done already" in again.err


def test_a_manifest_is_collected_only_when_it_is_named(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest_text(WD) + EXPECT)
    assert "no tests ran" in run_pytest(tmp_path).out
    plain = write_manifest(tmp_path, manifest_text(WD), "plain.toml")
    done = run_pytest(plain, "--unlearnbench-output", tmp_path / "runs")
    assert done.code != 0
    assert "plain.toml: has no [expect] table, so that there is nothing to test" in done.out
    assert not (tmp_path / "runs").exists()


def test_faults_of_a_manifest_are_told_as_pytest_collects(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text(WD) + "[expect.wdd]\n")
    done = run_pytest(path)
    assert done.code != 0
    assert "small.toml:18: expect.wdd: no method has this label" in done.out


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "[expect.wd]\nforget_acuracy = { max = 0.1 }",
            "19: expect.wd.forget_acuracy: no metric has this label\n  Did you mean 'forget_accuracy'?",
        ),
        ("[expect.wd]\nforget_accuracy = {}", "19: expect.wd.forget_accuracy: bounds nothing; give min or max"),
        (
            "[expect.wd]\nforget_accuracy = { min = 0.2, max = 0.1 }",
            "19: expect.wd.forget_accuracy: min 0.2 is above max 0.1",
        ),
        (
            "[expect.wd]\nforget_accuracy = { max = 5 }",
            "19: expect.wd.forget_accuracy.max: 5 is outside [0, 1]; bounds are fractions, not percent",
        ),
        (
            "[expect.wd]\nretain_accuracy = { min = -0.1 }",
            "19: expect.wd.retain_accuracy.min: -0.1 is outside [0, 1]; bounds are fractions, not percent",
        ),
        (
            "[expect.wd]\nprobe_recovery = { min = -0.1, max = 10 }",
            "19: expect.wd.probe_recovery.max: 10 is outside [-1, 1]; bounds are fractions, not percent",
        ),
        (
            "[expect.wd]\nforget_accuracy = { most = 0.1 }",
            "19: expect.wd.forget_accuracy.most: unknown key\n  Valid: max, min",
        ),
        ("[expect.wd]\nforget_accuracy = 0.1", "19: expect.wd.forget_accuracy: 0.1 is not a table"),
        ('[expect.wd]\nforget_accuracy = { max = "0.1" }', '19: expect.wd.forget_accuracy.max: "0.1" is not a number'),
        ("expect = 3", "19: expect: 3 is not a table"),
    ],
)
def test_expectations_are_checked_like_the_rest(tmp_path: Path, lines: str, message: str) -> None:
    text = manifest_text(WD)
    if lines.startswith("expect ="):
        text, lines, message = f"{lines}\n{text}", "", message.replace("19:", "1:")
    path = write_manifest(tmp_path, f"{text}{lines}\n")
    done = cli("validate", path)
    assert done.code == 1
    assert done.err.startswith(f"{path}:{message}"), done.err


def test_a_fault_of_a_method_hides_no_fault_of_a_bound_and_makes_none(tmp_path: Path) -> None:
    path = write_manifest(
        tmp_path, manifest_text('[[unlearners]]\nname = "wdd"') + "[expect.wd]\nforget_accuracy = {}\n"
    )
    lines = [line for line in cli("validate", path).err.splitlines() if not line.startswith(" ")]
    assert [line.split(": ")[1] for line in lines] == ["unlearners.0.name", "expect.wd.forget_accuracy"]


def test_a_bound_holds_for_the_mean_over_the_seeds() -> None:
    records = [make_record("erwp", seed, metrics=(value, 0.5, 0.9)) for seed, value in ((0, 0.0), (1, 0.1))]
    assert not Expectation("erwp", "forget_accuracy", Bound(max=0.05)).faults(records)
    assert Expectation("erwp", "forget_accuracy", Bound(max=0.04)).faults(records) == [
        "problem: erwp.forget_accuracy <= 0.04: the mean is 0.0500 (by seed 0: 0.0000, 1: 0.1000)"
    ]
    assert Expectation("erwp", "forget_accuracy", Bound(min=0.06)).faults(records)


def test_a_failed_cell_misses_every_expectation_with_its_reason() -> None:
    records = [
        make_record("erwp", 0),
        make_record("erwp", 1, status="failed", reason="the loss is not finite", metrics=None),
    ]
    found = Expectation("erwp", "retain_accuracy", Bound(min=0.0)).faults(records)
    assert found == ["problem: 0 <= erwp.retain_accuracy: no value with seed 1: the loss is not finite"]
    assert Expectation("wd", "retain_accuracy", Bound(min=0.0)).faults(records) == [
        "0 <= wd.retain_accuracy: there is no record of wd"
    ]
