"""Records from strangers: no string of theirs reaches a path, a page or a terminal as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import cli
from support.records import small_board

from unlearnbench.results.records.record import Record, content_hash

Values = dict[str, Any]
PAYLOAD = (
    "<script>x</script> ![y](http://e.x/y) [z](javascript:z) | a\n# b\n\n| cell | \x1b[2J\x9b31m\u202e `d` $e$ [red]f"
)
# What a page or a terminal must not hold.
MARKDOWN = ("<script", "![y]", "[z](", "http://e.x", "\n# b", "\n| cell", "\x1b", "\x9b", "\u202e", " `d`")
TERMINAL = ("\x1b", "\x9b", "\u202e")


def hostile(record: Record, edit: Callable[[Values], None]) -> Values:
    """Return a record's values with changes and the right hash."""
    values: Values = json.loads(record.model_dump_json())
    edit(values)
    values["hash"] = content_hash(values)
    return values


def write(folder: Path, edit: Callable[[Values], None]) -> Path:
    """Write a small leaderboard's records, each of them with a change, and return their folder."""
    for number, record in enumerate(small_board(seeds=3)):
        path = folder / "records" / "small" / "problem" / str(number // 3) / f"seed-{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(hostile(record, edit)))
    return folder


def every_string(values: Values) -> None:
    """Put the payload wherever a reader will see it."""
    problem, method = values["problem"], values["method"]
    problem.update(title=PAYLOAD, forget_class_names=[PAYLOAD], dataset_revision=PAYLOAD, limited=PAYLOAD)
    problem["training"][PAYLOAD] = PAYLOAD
    method.update(distribution=PAYLOAD, distribution_version=PAYLOAD, options={PAYLOAD: PAYLOAD})
    if method["role"] == "unlearner":
        method["label"] = f"{method['label']} {PAYLOAD}"
    values["environment"] = dict.fromkeys(("device", "precision", "commit"), PAYLOAD) | {
        "libraries": {PAYLOAD: PAYLOAD}
    }
    values["manifest"] = {"name": "small", "seeds": [0, 1, 2], "description": PAYLOAD}
    if values["reason"]:
        values["reason"] = PAYLOAD


def test_no_payload_reaches_a_page(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", every_string)
    board = tmp_path / "board"
    assert cli("leaderboard", "build", runs, "-o", board).code == 0
    pytest.importorskip("matplotlib", reason="matplotlib is missing: pip install .[report]")
    assert cli("report", runs, "--paper", "-o", tmp_path / "report").code == 0
    assert cli("submit", runs, "-o", tmp_path / "submission").code == 0
    pages = [path for folder in ("board", "report", "submission") for path in (tmp_path / folder).rglob("*.md")]
    assert len(pages) == 7
    for page in pages:
        text = page.read_text()
        assert [raw for raw in MARKDOWN if raw in text] == [], page
        # A cell more or less than the head has would be another table.
        for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, page
    web = (board / "index.html").read_text()
    assert [raw for raw in ("<script>x", *TERMINAL) if raw in web] == []
    assert web.count("<script>") == 1
    assert "&lt;script&gt;x" in web


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "command",
    [["table", "R"], ["compare", "R", "R"], ["leaderboard", "check", "R"], ["export", "R", "--to", "latex"]],
    ids=lambda command: command[0],
)
def test_no_payload_reaches_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], terminal: bool
) -> None:
    if terminal:
        monkeypatch.setattr("rich.console.Console.is_terminal", True)
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
    runs = write(tmp_path / "runs", every_string)
    done = cli(*(str(runs) if word == "R" else word for word in command))
    shown = done.out + done.err
    steering = [] if command[0] == "export" else [raw for raw in TERMINAL if raw in shown]
    assert steering == []
    # A terminal's own codes for bold or dim are not the records'.
    assert "[red]" in shown or command[0] in ("export", "leaderboard")
    assert "Traceback" not in shown


OUTSIDE = ["../../outside", "/tmp/outside", "..", ".hidden", "a/b", "a\x00b", "a\nb", "x" * 121]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("key", ["manifest_name", "problem.slug", "problem.id"])
def test_a_name_that_leads_elsewhere_is_refused_by_every_command(tmp_path: Path, key: str, name: str) -> None:
    place = tmp_path / "deep" / "down"
    (tmp_path / "deep").mkdir()
    for kept in (tmp_path / "outside.toml", tmp_path / "outside.md", tmp_path / "deep" / "outside.md"):
        kept.write_text("mine")

    def edit(values: Values) -> None:
        table = values["problem"] if key.startswith("problem.") else values
        table[key.rpartition(".")[2]] = name

    runs = write(place / "runs", edit)
    one = str(next((runs / "records").rglob("*.json")))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for command in (
        ["leaderboard", "check", str(runs)],
        ["leaderboard", "build", str(runs), "-o", str(place / "board")],
        ["submit", str(runs), "-o", str(place / "submission")],
        ["reproduce", one, "-o", str(place / "again")],
        ["table", str(runs)],
        ["report", str(runs)],
        ["export", str(runs), "--to", "hf", "-o", str(place / "hub")],
    ):
        done = cli(*command)
        assert done.code == 1, command
        assert f": {key}: string should " in done.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["/etc/passwd", "../x", "store/../../x", "records/x", "store"])
def test_a_file_elsewhere_is_never_read(tmp_path: Path, place: str) -> None:
    def edit(values: Values) -> None:
        values["files"] = {"features": {"path": place, "sha256": "0" * 64}}

    runs = write(tmp_path / "runs", edit)
    for command in (["leaderboard", "check", runs, "--features", runs], ["evaluate", runs], ["submit", runs]):
        done = cli(*command)
        assert done.code == 1
        assert "files.features.path: string should match pattern" in done.err


def test_a_link_within_the_store_is_not_followed_out_of_it(tmp_path: Path) -> None:
    def edit(values: Values) -> None:
        values["files"] = {"features": {"path": "store/features/out/secret", "sha256": "0" * 64}}

    runs = write(tmp_path / "runs", edit)
    (tmp_path / "secret").write_text("mine")
    (runs / "store" / "features").mkdir(parents=True)
    (runs / "store" / "features" / "out").symlink_to(tmp_path)
    done = cli("leaderboard", "check", runs, "--features", runs)
    assert done.code == 1
    assert f"{runs}/store: 'features/out/secret' leads out of this folder" in done.err


def test_a_leaderboards_file_that_is_a_link_elsewhere_is_not_written_through(tmp_path: Path) -> None:
    board, mine = tmp_path / "board", tmp_path / "mine"
    mine.write_text("mine")
    board.mkdir()
    (board / "digits-digits_net.md").symlink_to(mine)
    done = cli("leaderboard", "build", write(tmp_path / "runs", lambda values: None), "-o", board)
    assert (done.code, mine.read_text()) == (1, "mine")
    assert done.err == f"{board}: 'digits-digits_net.md' leads out of this folder\n"


def deep(values: Values) -> None:
    inner: Any = 1
    for _ in range(900):
        inner = [inner]
    values["details"] = {"a": inner}


def endless_seed(values: Values) -> None:
    values["seed"] = 10**30


def many_classes(values: Values) -> None:
    values["problem"]["num_classes"] = 10**12


def listed_manifest(values: Values) -> None:
    values["manifest"] = {"problem": ["x"], "seeds": "all"}


def listed_libraries(values: Values) -> None:
    values["environment"] = {"libraries": ["x"]}


def hidden_search(values: Values) -> None:
    values["details"] = {"kept": {"relevance": "../../x"}}


def negative_passes(values: Values) -> None:
    values["image_passes"] = {"forget": -1}


@pytest.mark.parametrize(
    "edit",
    [deep, endless_seed, many_classes, listed_manifest, listed_libraries, hidden_search, negative_passes],
)
@pytest.mark.parametrize("command", [["table"], ["leaderboard", "check"], ["relevance"]], ids=" ".join)
def test_a_record_of_another_form_is_named_in_a_line_for_each(
    tmp_path: Path, command: list[str], edit: Callable[[Values], None]
) -> None:
    runs = write(tmp_path / "runs", edit)
    done = cli(*command, runs)
    assert done.code == 1
    assert "Traceback" not in done.err
    named = [line for line in done.err.splitlines() if not line.startswith("  ")]
    assert len(named) == 21
    assert all(len(line) < 500 for line in named)
