"""Equal budgets: as many trials for every unlearner, on seeds and images that the final run does not judge."""

import importlib.util
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import cli
from support.manifests import FOLNRC, WD, manifest_text, write_manifest
from support.records import make_record, record_files, with_changes

from unlearnbench.datasets.dataset import Dataset, open_dataset
from unlearnbench.datasets.held_out import on_limited_images, without_test_images
from unlearnbench.datasets.split import limited_indices
from unlearnbench.engine.tuning.score import FAILED, LIMITED_VIEWS, limited_score, oracle_score
from unlearnbench.engine.tuning.search import suggested
from unlearnbench.engine.tuning.trials import limited_trials
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.experiment.resolve import resolve
from unlearnbench.registry.declare import RANGES, Range
from unlearnbench.registry.entry_points import find, names
from unlearnbench.registry.options import schema
from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.records.files import read_record
from unlearnbench.results.records.load import load_records

pytestmark = pytest.mark.slow

# These are the options that folmrcsc lets `tune` search.
DECLARED = getattr(find("unlearners", "folmrcsc").load(), RANGES)

needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")


def records(method: tuple[float, float, float], position: float, **more: Any) -> list[Any]:
    """Return records of one seed with FAe, FPAe and CAne, and one position in all views."""
    found: list[Any] = [
        make_record("original", 0, metrics=(0.95, 0.8, 0.98), positions=(1.0, 1.0, 1.0)),
        make_record("fdr", 0, metrics=(0.0, 0.5, 0.99), positions=(0.0, 0.0, 0.0)),
    ]
    if more:
        return [*found, make_record("mine", 0, metrics=None, **more)]
    return [*found, make_record("mine", 0, metrics=method, positions=(position, 0.0, 0.0))]


def test_with_fdr_the_score_follows_the_ranking_rule() -> None:
    assert oracle_score(records((0.09, 0.6, 0.97), 0.5), "mine") == pytest.approx(0.5 / 1.5), "a tenth of 95 %"
    assert oracle_score(records((0.09, 0.3, 0.96), -0.5), "mine") == pytest.approx(0.5 / 1.5), "damage is as far"
    assert oracle_score(records((0.2, 0.5, 0.98), 0.0), "mine") == pytest.approx(1.2)
    assert oracle_score(records((0.0, 0.5, 0.9), 0.0), "mine") == pytest.approx(2.08)
    assert oracle_score(records((0.0, 0.5, 0.9), 0.0, status="failed", reason="diverged"), "mine") == FAILED


def limited_records(forget: float, retain: float, views: tuple[float, float]) -> list[Any]:
    """Return records of one seed as trials on limited images have them, without FDR."""
    found = []
    for name, values in (("original", (0.95, 0.98, (0.8, 0.5))), ("mine", (forget, retain, views))):
        record = make_record(name, 0, metrics=(values[0], 0.8, values[1]), positions=(1.0, 1.0, 1.0))
        some = record.metrics["retain_accuracy"]
        metrics = {
            label: some.model_copy(update={"value": value})
            for label, value in zip(LIMITED_VIEWS, values[2], strict=True)
        }
        found.append(with_changes(record, metrics={**record.metrics, **metrics}))
    return found


@pytest.mark.parametrize(
    ("forget", "retain", "views", "expected"),
    [
        (0.09, 0.98, (0.4, 0.4), (0 + 0.8) / 2),
        (0.0, 0.97, (0.4, 0.1), (0.5 + 0.5) / 2),
        (0.0, 0.99, (0.8, 0.1), (0 + 1.0) / 2),
        (0.2, 0.98, (0.0, 0.0), 1.2),
        (0.0, 0.9, (0.0, 0.0), 2.08),
    ],
)
def test_without_fdr_the_score_weighs_what_is_left_against_what_it_costs(
    forget: float, retain: float, views: tuple[float, float], expected: float
) -> None:
    assert limited_score([limited_records(forget, retain, views)], "mine") == pytest.approx(expected)


def test_a_trial_that_failed_has_the_worst_score() -> None:
    failed = make_record("mine", 0, metrics=None, status="failed", reason="diverged")
    assert limited_score([[limited_records(0.0, 0.9, (0.4, 0.4))[0], failed]], "mine") == FAILED
    assert limited_score([[failed]], "mine") == FAILED


def test_limited_images_that_the_method_does_not_get_judge_it() -> None:
    digits = open_dataset("digits")

    def never() -> Any:
        raise AssertionError("the test part was read")

    counts, given = (14,) * 10, (12,) * 10
    moved = on_limited_images(Dataset(digits.info, digits.train, never), counts, given, 3)
    labels = digits.train().labels
    limited, first = (set(limited_indices(labels, wanted, 3)) for wanted in (counts, given))
    assert first < limited
    assert set(moved.test().ids) == {digits.train().ids[position] for position in limited - first}
    assert moved.train() is not None
    assert len(moved.train().labels) == len(labels), "the original has learned from all of them"
    assert tuple(np.bincount(moved.test().labels)) == moved.info.test_counts == (2,) * 10
    other = on_limited_images(Dataset(digits.info, digits.train, never), counts, given, 4)
    assert len({digits.info.revision, moved.info.revision, other.info.revision}) == 3


def test_the_held_out_images_are_training_images_and_the_test_part_is_never_read() -> None:
    digits = open_dataset("digits")

    def never() -> Any:
        raise AssertionError("the test part was read")

    moved = without_test_images(Dataset(digits.info, digits.train, never), 5)
    train, test, whole = moved.train(), moved.test(), digits.train()
    assert sorted([*train.ids, *test.ids]) == sorted(whole.ids)
    assert tuple(np.bincount(train.labels)) == moved.info.train_counts
    assert tuple(np.bincount(test.labels)) == moved.info.test_counts == tuple(n // 5 for n in digits.info.train_counts)
    assert moved.info.revision != digits.info.revision
    chosen = np.flatnonzero(whole.ids == test.ids[3])
    assert np.array_equal(test.images.read(np.array([3])), whole.images.read(chosen))
    assert len(test.images) == len(test.labels)
    assert test.images.shape == (1, 8, 8)


@pytest.mark.parametrize("name", names("unlearners"))
def test_ranges_fit_the_options(name: str) -> None:
    function = find("unlearners", name).load()
    options = {option.name: option for option in schema(function)}
    for key, search in getattr(function, RANGES, {}).items():
        values = (search.lowest, search.highest) if isinstance(search, Range) else search
        for value in values:
            options[key].check(value)


class FirstValues:
    """A trial that suggests the lower end of each range, or the first choice."""

    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any:
        return choices[0]

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        return low

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return low * 1.23456


def test_a_trial_gets_a_value_of_each_range() -> None:
    ranges = {"epochs": Range(2, 8), "rate": Range(1e-3, 1.0, log=True), "mode": ("a", "b")}
    found = suggested(FirstValues(), ranges)
    assert found == {"epochs": 2, "rate": 0.001235, "mode": "a"}


@needs_optuna
def test_every_method_gets_the_same_number_of_trials_and_the_record_says_so(tmp_path: Path) -> None:
    path = write_manifest(
        tmp_path, manifest_text(WD, FOLNRC, '[[unlearners]]\nname = "folmrcsc"', head="seeds = [1000]")
    )
    done = cli("tune", path, "--trials", "2", "--seeds", "1", "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    tuned = tmp_path / "small-tuned.toml"
    assert done.out == f"{tuned}\n"
    meaning, *lines = done.err.splitlines()
    assert meaning.endswith("lower is better")
    assert [line.partition(": score")[0] for line in lines if not line.endswith("is the best")] == [
        "wd: declares no ranges; its options stay",
        "folnrc: trial 1 of 2",
        "folnrc: trial 2 of 2",
        "folmrcsc: trial 1 of 2",
        "folmrcsc: trial 2 of 2",
    ]
    scores = [float(line.partition(": score ")[2].split()[0]) for line in lines[1:3]]
    assert f"folnrc: trial {1 + scores.index(min(scores))} is the best" in lines
    budget = {
        "division": "oracle-tuned",
        "trials": 2,
        "seeds": [1001],
        "held_out_share": 0.2,
        "not_searched": ["wd"],
    }
    assert tomllib.loads(tuned.read_text())["tuning"] == budget
    tried = [read_record(file) for file in record_files(tmp_path / "runs" / "trials").values()]
    assert {record.seed for record in tried} == {1001}
    assert cli("table", tmp_path / "runs").code != 0, "trials are no results"
    assert {record.problem.test_images for record in tried} == {267}
    assert cli("run", tuned, "-o", tmp_path / "runs", "--only", "wd", "--device", "cpu").code == 0
    record = read_record(record_files(tmp_path / "runs")["wd/seed-1000.json"])
    assert record.manifest["tuning"] == budget


@needs_optuna
def test_limited_data_alone_can_judge_the_trials(tmp_path: Path) -> None:
    text = manifest_text(FOLNRC, head="seeds = [0]") + '[references]\nfdr = "none"\n'
    path, runs = write_manifest(tmp_path, text), tmp_path / "runs"
    refused = cli("tune", path, "--trials", "2", "-o", runs)
    assert refused.code == 2
    assert "references.fdr: trials are judged by the distance to FDR" in refused.err
    done = cli("tune", path, "--trials", "2", "--seeds", "2", "--division", "self-tuned", "-o", runs, "--device", "cpu")
    assert done.code == 0, done.err
    tuned = tmp_path / "small-tuned.toml"
    assert tomllib.loads(tuned.read_text())["tuning"]["division"] == "self-tuned"
    tried = [read_record(file) for file in sorted((runs / "trials" / "records").rglob("*.json"))]
    assert {record.method.name for record in tried} == {"original", "folnrc"}
    assert {record.seed for record in tried} == {1000, 1001}
    # Each class has 14 limited images, of which a tenth is one.
    assert {record.problem.test_images for record in tried} == {10}
    assert cli("run", tuned, "-o", runs, "--device", "cpu").code == 0
    (rows,) = rows_by_problem(load_records(runs))
    assert {row.division for row in rows if not row.is_reference} == {"self-tuned"}


def test_one_limited_image_of_a_class_cannot_be_held_out(tmp_path: Path) -> None:
    problem = '[problem]\nforget_classes = ["8", "9"]\nlimited_images_per_class = 1'
    resolved = resolve(write_manifest(tmp_path, manifest_text(problem=problem)))
    with pytest.raises(UnlearnBenchError, match="a class has a single limited image, so none can be held out\n"):
        limited_trials(resolved, [1000])


@needs_optuna
def test_what_an_entry_keeps_is_not_searched(tmp_path: Path) -> None:
    kept = f'[[unlearners]]\nname = "folmrcsc"\nlabel = "all kept"\nkeep = {list(DECLARED)}\noptions = {{ epochs = 1 }}'
    once = '[[unlearners]]\nname = "folmrcsc"\nkeep = ["epochs"]\noptions = { epochs = 1 }'
    path = write_manifest(tmp_path, manifest_text(kept, once))
    done = cli("tune", path, "--trials", "3", "--seeds", "1", "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    assert done.err.splitlines()[1].startswith("all kept: keeps all that could be searched; its options stay")
    tuned = tomllib.loads((tmp_path / "small-tuned.toml").read_text())
    assert tuned["tuning"]["not_searched"] == ["all kept"]
    assert [entry["keep"] for entry in tuned["unlearners"]] == [list(DECLARED), ["epochs"]]
    tried = [read_record(file) for file in record_files(tmp_path / "runs" / "trials").values()]
    options = [record.method.options for record in tried if record.method.name == "folmrcsc"]
    assert {option["epochs"] for option in options} == {1}
    assert len({option["learning_rate"] for option in options}) == 3


def test_an_option_to_keep_must_be_one(tmp_path: Path) -> None:
    done = cli("validate", write_manifest(tmp_path, manifest_text('[[unlearners]]\nname = "wd"\nkeep = ["alfa"]')))
    assert done.code == 1
    assert "unlearners.0.keep: wd has no option 'alfa'\n  Valid: " in done.err


@pytest.mark.parametrize("target", ["small.toml", "nowhere/tuned.toml"])
def test_where_the_tuned_manifest_cannot_go_is_said_before_the_first_trial(tmp_path: Path, target: str) -> None:
    path = write_manifest(tmp_path, manifest_text())
    before = path.read_bytes()
    done = cli("tune", path, "--to", tmp_path / target, "-o", tmp_path / "runs")
    assert done.code == 2
    assert f"{tmp_path / target}: " in done.err
    assert (path.read_bytes(), (tmp_path / "runs").exists()) == (before, False)


@needs_optuna
def test_a_matrix_is_not_searched(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text('[[unlearners]]\nname = "folnrc"\nmatrix = { epochs = [1, 2] }'))
    done = cli("tune", path)
    assert done.code == 2
    assert done.err == f"{path}: folnrc has a matrix; tune searches one setting for each entry\n"


def test_without_optuna_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = cli("tune", write_manifest(tmp_path, manifest_text()))
    assert (done.code, done.err) == (2, "tune needs optuna\n  pip install 'unlearnbench[tune]'\n")


def test_a_seed_of_the_search_is_no_seed_of_the_manifest(tmp_path: Path) -> None:
    text = f"{manifest_text()}[tuning]\ntrials = 3\nseeds = [5, 0]\nheld_out_share = 0.2\n"
    path = write_manifest(tmp_path, text)
    done = cli("validate", path)
    assert done.err == f"{path}:20: tuning.seeds: 0 is a seed of the manifest; options are searched on other seeds\n"
