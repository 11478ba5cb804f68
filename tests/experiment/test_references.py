"""The table `references` of a manifest: Original and FDR trained, given as a checkpoint, or, for FDR, left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.commands import Done, cli
from support.manifests import FOLNRC, WD, manifest_text, write_manifest
from support.records import record_files

from unlearnbench.experiment.resolve import resolve
from unlearnbench.models.build import Network
from unlearnbench.results.tables import NO_YARDSTICK

pytestmark = pytest.mark.slow


def checkpoint(path: Path, seed: int = 7, width: int = 4) -> Path:
    torch.save(Network("digits_net", {"width": width}, 10, (1, 8, 8)).build(seed, "original").state_dict(), path)
    return path


def manifest(folder: Path, *lines: str, name: str = "small.toml") -> Path:
    return write_manifest(folder, manifest_text(WD, FOLNRC, head="\n".join(["seeds = [0]", *lines])), name)


def run(path: Path, folder: Path, *more: str) -> Done:
    done = cli("run", path, "-o", folder / "runs", "--device", "cpu", *more)
    assert done.code == 0, done.err
    return done


def records(folder: Path) -> dict[str, dict]:
    return {name: json.loads(file.read_text()) for name, file in record_files(folder / "runs").items()}


@pytest.fixture(scope="module")
def without_fdr(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """Run a manifest that does without FDR and return its folder and what was printed."""
    folder = tmp_path_factory.mktemp("without")
    return folder, run(manifest(folder, 'references.fdr = "none"'), folder)


def test_without_fdr_none_is_trained_and_all_that_needs_none_is_computed(without_fdr: tuple[Path, Done]) -> None:
    folder, _ = without_fdr
    found = records(folder)
    assert set(found) == {"original/seed-0.json", "wd/seed-0.json", "folnrc/seed-0.json"}
    assert len([path for path in (folder / "runs/store/models").iterdir() if path.is_dir()]) == 3
    metrics = found["folnrc/seed-0.json"]["metrics"]
    failed = {label for label, metric in metrics.items() if metric["status"] == "failed"}
    assert {"normalised_gap", "probe_recovery", "membership_inference", "speed_up"} <= failed
    assert {metrics[label]["reason"].removeprefix("no costs: ") for label in failed} == {
        'no FDR: the manifest says fdr = "none" in [references]'
    }
    assert {"near_class_gap", "few_shot_relearning", "linear_cka reference=original images=forget"} <= (
        metrics.keys() - failed
    )
    assert found["folnrc/seed-0.json"]["measured"]["speed_up_seconds"] is None


def test_without_fdr_nothing_has_a_rank_and_the_table_says_why(without_fdr: tuple[Path, Done]) -> None:
    folder, done = without_fdr
    assert "rank" not in done.out.splitlines()[2]
    assert "gap to FDR" not in done.out.partition("┡")[0]
    assert " ".join(done.out.split()).count(NO_YARDSTICK) == 1
    rows = cli("table", folder / "runs", "--json").json
    assert {row["rank"] for row in rows} == {None}
    notes = {row["method"]: row["note"] for row in rows}
    assert notes["folnrc"] == 'no rank without FDR (fdr = "none" in [references])'
    assert notes["original"] == ""


def test_without_fdr_a_second_run_finds_everything_done_and_the_plan_has_none(without_fdr: tuple[Path, Done]) -> None:
    folder, _ = without_fdr
    again = run(folder / "small.toml", folder)
    assert "all 3 cells are done already" in again.err
    work = run(folder / "small.toml", folder, "--dry-run", "--json").json[0]["work"]
    assert [row["what"] for row in work][:2] == ["train Original", "unlearn with wd"]


def test_evaluating_anew_without_fdr_changes_nothing(without_fdr: tuple[Path, Done]) -> None:
    folder, _ = without_fdr
    before = records(folder)["folnrc/seed-0.json"]["metrics"]
    assert cli("evaluate", folder / "runs").code == 0
    assert records(folder)["folnrc/seed-0.json"]["metrics"] == before


def test_a_leaderboard_refuses_methods_without_a_yardstick(without_fdr: tuple[Path, Done]) -> None:
    folder, _ = without_fdr
    done = cli("leaderboard", "build", folder / "runs", "-o", folder / "board")
    assert done.code == 1
    assert "no record of FDR with seed 0\n  Its methods cannot be judged; its manifest says" in done.err


def test_fdr_can_be_trained_later_and_no_method_runs_again(tmp_path: Path) -> None:
    run(manifest(tmp_path, 'references.fdr = "none"'), tmp_path)
    before = {name: values["measured"]["seconds"] for name, values in records(tmp_path).items()}
    rows = run(manifest(tmp_path), tmp_path, "--json").json
    after = records(tmp_path)
    assert after.keys() - before.keys() == {"fdr/seed-0.json"}
    assert after["folnrc/seed-0.json"]["measured"]["seconds"]["unlearn"] == before["folnrc/seed-0.json"]["unlearn"]
    assert after["folnrc/seed-0.json"]["metrics"]["speed_up"]["status"] == "done"
    assert not any("without FDR" in row["note"] for row in rows)


def test_a_given_fdr_is_used_as_it_is_and_marked(tmp_path: Path) -> None:
    checkpoint(tmp_path / "retrained.pth")
    path = manifest(tmp_path, 'references.fdr = "retrained.pth"')
    done = run(path, tmp_path)
    assert "FDR (given)" in done.out
    found = records(tmp_path)
    fdr = found["fdr/seed-0.json"]
    weights = load_file(tmp_path / "runs" / fdr["files"]["model"]["path"])
    assert all(torch.equal(weights[key], value) for key, value in torch.load(tmp_path / "retrained.pth").items())
    assert fdr["manifest"]["references"]["fdr"] == fdr["details"]["weights"] == "retrained.pth"
    metrics = found["folnrc/seed-0.json"]["metrics"]
    assert metrics["probe_recovery"]["status"] == "done"
    assert metrics["speed_up"]["reason"].endswith("how many images its training read is not known")
    assert cli("evaluate", tmp_path / "runs").code == 0
    assert records(tmp_path)["folnrc/seed-0.json"]["metrics"] == metrics


def test_another_given_fdr_is_another_problem(tmp_path: Path) -> None:
    trained = resolve(manifest(tmp_path)).problems[0].id
    assert resolve(manifest(tmp_path, 'references.fdr = "none"')).problems[0].id == trained
    ids = set()
    for seed in (1, 2):
        checkpoint(tmp_path / f"{seed}.pth", seed)
        ids.add(resolve(manifest(tmp_path, f'references.fdr = "{seed}.pth"')).problems[0].id)
    assert len(ids | {trained}) == 3


def test_an_original_among_the_references_is_the_one_of_the_architecture(tmp_path: Path) -> None:
    checkpoint(tmp_path / "mine.pth")
    one = resolve(manifest(tmp_path, 'references.original = "mine.pth"')).problems[0]
    assert one.weights is not None
    text = manifest_text(WD, FOLNRC).replace('name = "digits_net"', 'name = "digits_net"\nweights = "mine.pth"')
    assert resolve(write_manifest(tmp_path, text)).problems[0].id == one.id


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'original = "none"',
            '3: references.original: every method starts from the original: "train", or a checkpoint',
        ),
        (
            'fdr = "gone.pth"',
            "3: references.fdr: 'gone.pth': no such file (looked at {folder}/gone.pth)\n"
            "  Published for digits_net: none",
        ),
        ("fdr = false", "3: references.fdr: false is not a string"),
        ('frd = "none"', "3: references.frd: unknown key\n  Did you mean 'fdr'? Valid: fdr, original"),
    ],
)
def test_faults_of_references_are_named_with_their_line(tmp_path: Path, line: str, message: str) -> None:
    path = manifest(tmp_path, "[references]", line)
    done = cli("run", path, "-o", tmp_path / "runs")
    assert (done.code, done.err) == (1, f"{path}:{message.format(folder=tmp_path)}\n")


def test_an_original_that_is_named_twice_is_a_fault(tmp_path: Path) -> None:
    checkpoint(tmp_path / "mine.pth")
    text = manifest_text(WD, head='seeds = [0]\nreferences.original = "mine.pth"')
    path = write_manifest(tmp_path, text.replace('name = "digits_net"', 'name = "digits_net"\nweights = "mine.pth"'))
    done = cli("validate", path)
    assert done.err == f"{path}:2: references.original: architecture.weights is the original too; keep one of the two\n"


@pytest.mark.parametrize("role", ["original", "fdr"])
def test_a_reference_that_does_not_fit_ends_the_run_before_anything_is_made(tmp_path: Path, role: str) -> None:
    checkpoint(tmp_path / "wide.pth", width=8)
    path = manifest(tmp_path, f'references.{role} = "wide.pth"')
    done = cli("run", path, "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 1
    assert f"{path}: references.{role}: {tmp_path}/wide.pth: does not fit Sequential\n" in done.err
    assert record_files(tmp_path / "runs") == {}


def test_tuning_needs_a_yardstick(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'unlearnbench[tune]'")
    done = cli("tune", manifest(tmp_path, 'references.fdr = "none"'), "-o", tmp_path / "tuned.toml")
    assert done.code == 2
    assert 'references.fdr: trials are judged by the distance to FDR, and the manifest says "none"' in done.err
