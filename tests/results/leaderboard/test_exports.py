"""Tables in other formats."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.commands import cli
from support.paths import REPOSITORY
from support.records import small_board, with_changes, write_records

from unlearnbench.results.leaderboard.exports import WRITERS, _latex, export, inspect_records
from unlearnbench.results.leaderboard.view import make_board
from unlearnbench.results.records.collection import read_collection
from unlearnbench.results.records.record import Record
from unlearnbench.results.tables import LEGEND

LEADERBOARD = REPOSITORY / "leaderboard"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write_records(tmp_path / "runs", small_board())


def test_csv_has_a_line_for_each_method_and_an_empty_cell_for_what_is_missing(runs: Path) -> None:
    done = cli("export", runs, "--to", "csv")
    assert done.code == 0, done.err
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(done.out))}
    assert list(rows) == ["original", "fdr", "good", "weak", "lossy", "absent", "broken"]
    good = rows["good"]
    assert (good["rank"], good["pareto"], good["seeds"], good["failed_seeds"]) == ("", "False", "0 1", "")
    assert (good["role"], good["keep"], good["provisional"]) == ("unlearner", "passed", "True")
    assert float(good["position_probe"]) == float(good["position"]) == pytest.approx(0.3)
    assert float(good["forget_prototype_accuracy mean"]) == pytest.approx(0.555)
    assert float(good["gap_to_fdr"]) == pytest.approx(0.045)
    assert (rows["broken"]["rank"], rows["broken"]["forget_accuracy mean"]) == ("", "")
    assert rows["broken"]["note"] == "failed with seed 0, 1: ValueError: no\n  <b>way"


def test_json_has_the_values_of_every_seed(runs: Path) -> None:
    rows = {row["method"]: row for row in cli("export", runs, "--to", "json").json}
    assert rows["weak"]["metrics"]["forget_accuracy"]["values"] == {"0": 0.5, "1": 0.52}
    assert rows["weak"]["options"] == {"rate": 0.1}
    assert rows["broken"]["metrics"] == {}


def test_latex_has_a_table_with_escaped_names(runs: Path) -> None:
    text = cli("export", runs, "--to", "latex").out
    assert r"provisional & good & passed & passed & +0.30 probe & 0.00 $\pm$ 0.00 & 55.50 $\pm$ 0.71" in text
    assert r"55.50 $\pm$ 0.71 & $+4.50$ & 90.00 $\pm$ 0.00 \\" in text
    assert r" & broken & - & - & - & -- & -- & -- & -- \\" in text
    assert text.count(r"\midrule") == 2
    assert text.count("{table}") == 2
    assert text.count(r"\item[") == len(LEGEND)
    assert r"\item[kept] whether the accuracy" in text
    assert r"largest \textbar{}position\textbar{}" in text
    assert _latex(r"a_b 10 % & \x {y} #1 ~ ^") == (
        r"a\_b 10 \% \& \textbackslash{}x \{y\} \#1 \textasciitilde{} \textasciicircum{}"
    )


def test_the_hub_gets_a_file_for_each_method_with_a_result(runs: Path, tmp_path: Path) -> None:
    done = cli("export", runs, "--to", "hf", "-o", tmp_path / "hub")
    assert done.code == 0, done.err
    names = [path.name for path in sorted((tmp_path / "hub" / ".eval_results").iterdir())]
    assert names == [f"problem-{method}.yaml" for method in ("fdr", "good", "lossy", "original", "weak")]
    text = (tmp_path / "hub" / ".eval_results" / "problem-good.yaml").read_text()
    assert text.split("\n")[:7] == [
        "- dataset:",
        "    id: unlearnbench/unlearnbench",
        '    task_id: "problem/forget_accuracy"',
        '    revision: "1"',
        "  value: 0.0000",
        '  date: "2026-01-01"',
        '  notes: "good on problem: forget 1 of 10 classes: FAe, mean of 2 seeds, standard deviation 0.00"',
    ]
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    assert [entry["value"] for entry in yaml.safe_load(text)] == [0.0, 55.5, 90.0]


def test_a_format_whose_library_is_missing_says_what_to_install(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "unlearnbench.frontends.hosts.inspect_logs", raising=False)
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    done = cli("export", runs, "--to", "inspect")
    assert (done.code, done.out) == (2, "")
    assert done.err == "--to inspect: inspect_ai is not installed\n  pip install 'unlearnbench[inspect]'\n"


def test_inspects_logs_are_written_by_the_module_that_knows_them(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_inspect_logs(records: list[Record], folder: Path) -> list[Path]:
        (folder / "small_good.eval").write_bytes(b"\x00" + bytes(str(len(records)), "ascii"))
        return [folder / "small_good.eval"]

    module = SimpleNamespace(write_inspect_logs=write_inspect_logs)
    monkeypatch.setitem(sys.modules, "unlearnbench.frontends.hosts.inspect_logs", module)
    done = cli("export", runs, "--to", "inspect", "-o", tmp_path / "logs")
    assert (done.code, done.out) == (0, f"{tmp_path}/logs/small_good.eval\n")
    assert (tmp_path / "logs" / "small_good.eval").read_bytes() == b"\x0014"


def test_inspects_logs_have_the_cells_that_several_manifests_share() -> None:
    def of_second(record: Record) -> Record:
        return with_changes(
            record,
            manifest_name="second",
            measured=record.measured.model_copy(update={"finished_at": "2026-01-02T10:00:00+00:00"}),
        )

    first = small_board()
    second = [of_second(record) for record in first if record.seed == 1 or record.method.label == "weak"]
    board = make_board([*second, *first, *second])
    assert [len(line.row.records) for line in board.problems[0].lines] == [2] * 7
    found = inspect_records(board)
    assert len(found) == len(first) + len(second)
    cells = [(record.manifest_name, record.method.label, record.seed) for record in found]
    assert [cell for cell in cells if cell[1] == "good"] == [
        ("small", "good", 0),
        ("small", "good", 1),
        ("second", "good", 1),
    ]
    assert [seed for name, label, seed in cells if (name, label) == ("second", "weak")] == [0, 1]


@pytest.mark.slow
def test_every_seed_of_the_committed_digits_manifests_is_there_for_inspects_logs() -> None:
    paths = (LEADERBOARD / "records").glob("digits-digits_net-forget2-10pct-*.jsonl.xz")
    entries = [entry for path in paths for entry in read_collection(path) if entry.ranked]
    assert len({entry.record.manifest_name for entry in entries}) > 1
    found = inspect_records(make_board([entry.record for entry in entries]))
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for record in found:
        seeds.setdefault((record.manifest_name, record.problem.id, record.method.label), []).append(record.seed)
    for name, manifest in {record.manifest_name: record.manifest for record in found}.items():
        assert {tuple(own) for key, own in seeds.items() if key[0] == name} == {tuple(manifest["seeds"])}


@pytest.mark.parametrize("form", list(WRITERS))
def test_the_same_records_give_the_same_files(form: str) -> None:
    records = small_board()
    assert export(make_board(records), form) == export(make_board(records[::-1]), form)


def test_records_that_do_not_fit_together_are_not_exported(tmp_path: Path) -> None:
    records = [record for record in small_board() if record.method.name != "fdr"]
    done = cli("export", write_records(tmp_path, records), "--to", "csv")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("problem: no record of FDR with seed 0, 1\n")


def test_json_can_be_written_to_a_folder(runs: Path, tmp_path: Path) -> None:
    done = cli("export", runs, "--to", "json", "-o", tmp_path / "out")
    assert done.out == f"{tmp_path}/out/leaderboard.json\n"
    assert len(json.loads((tmp_path / "out" / "leaderboard.json").read_text())) == 7


def test_files_are_not_written_where_nobody_said(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("export", runs, "--to", "hf")
    assert (done.code, done.out) == (2, "")
    assert done.err == "--to hf writes files, not one text\n  say into which folder: --output hf\n"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
