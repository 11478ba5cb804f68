"""The leaderboard: its pages, its records, and the one in this repository."""

from __future__ import annotations

import lzma
import random
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.commands import cli
from support.paths import REPOSITORY
from support.records import make_record, small_board, with_changes, with_relative_verdict, write_records

from unlearnbench.errors import InvalidFileError, StoreError
from unlearnbench.results.leaderboard.build import build_leaderboard, rebuilt_pages
from unlearnbench.results.leaderboard.markdown import COLUMNS, GENERATED
from unlearnbench.results.ranking import PAPER
from unlearnbench.results.records.collection import collection_text, read_collection
from unlearnbench.results.records.files import Entry
from unlearnbench.results.records.load import read_entries
from unlearnbench.results.records.record import Record

COMMITTED = REPOSITORY / "leaderboard"
PAGE = "digits-digits_net.md"


def files(folder: Path) -> dict[str, bytes]:
    """Return what each file of a folder holds, decompressed, since another compressor gives other bytes."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: lzma.decompress(content) if name.endswith(".xz") else content for name, content in found.items()}


def built(folder: Path, *problems: str, seeds: int = 2) -> Path:
    """Build the pages of some problems and return their folder."""
    records = [record for problem in problems or ("problem",) for record in small_board(problem, seeds)]
    build_leaderboard([write_records(folder / "runs", records)], folder / "board")
    return folder / "board"


def table_lines(page: str) -> list[list[str]]:
    """Return the cells of the page's only ranking, without its header."""
    (table,) = (part for part in page.split("\n\n") if part.startswith("| rank |"))
    lines = table.split("\n")
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def on_network(records: Iterable[Record], architecture: str) -> list[Record]:
    """Return records as of another network."""
    changes = {"architecture": architecture}
    return [with_changes(record, problem=record.problem.model_copy(update=changes)) for record in records]


def test_there_is_an_overview_a_web_page_and_a_page_for_each_network(tmp_path: Path) -> None:
    runs = write_records(
        tmp_path / "runs", [*small_board("b"), *small_board("a"), *on_network(small_board("c"), "x/y")]
    )
    written = build_leaderboard([runs], tmp_path / "board")
    names = ("README.md", "SUMMARY.md", "index.html", "REPORTED.md", PAGE, "digits-x-y.md")
    assert [re.sub("-[0-9a-f]{6}(?=.md)", "", path.name) for path in written] == list(names)
    overview, page = ((tmp_path / "board" / name).read_text() for name in ("README.md", PAGE))
    assert re.findall(r"^\d\. \[(.*)\]\((.*)\): 5 methods, 2 seeds each$", overview, re.M) == [
        ("a: forget 1 of 10 classes", f"{PAGE}#a"),
        ("b: forget 1 of 10 classes", f"{PAGE}#b"),
        ("c: forget 1 of 10 classes", f"{written[-1].name}#c"),
    ]
    assert "- [a: forget 1 of 10 classes](#a)\n- [b: forget 1 of 10 classes](#b)\n" in page
    assert re.findall(r'^<a id="(.)"></a>\n\n## (.):', page, re.M) == [("a", "a"), ("b", "b")]
    assert overview.startswith("# Leaderboard\n\nGenerated from run records by `unlearnbench leaderboard build`")


def test_a_leaderboard_of_ranked_records_alone_speaks_of_no_others(tmp_path: Path) -> None:
    assert "Not ranked" not in (built(tmp_path) / "README.md").read_text()


def test_the_overview_links_the_pages_that_a_person_wrote(tmp_path: Path) -> None:
    runs, board = write_records(tmp_path / "runs", small_board("a")), tmp_path / "board"
    board.mkdir()
    (board / "FINDINGS.md").write_text("# What the  results show\n\nMuch.\n")
    (board / "notes.md").write_text("No heading.\n")
    for _ in range(2):
        build_leaderboard([runs], board)
        overview = (board / "README.md").read_text()
        assert "\n\nWritten by hand: [What the results show](FINDINGS.md), [notes](notes.md).\n\n" in overview
        assert (board / "notes.md").read_text() == "No heading.\n"
    assert rebuilt_pages(read_entries([board]), board, PAPER)["README.md"] == overview


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_records_in_any_folders_give_the_same_bytes(tmp_path: Path, seed: int) -> None:
    every = [*small_board("a"), *small_board("b")]
    build_leaderboard([write_records(tmp_path / "runs", every)], tmp_path / "first")
    random.Random(seed).shuffle(every)
    folders = [write_records(tmp_path / "one", every[::2]), write_records(tmp_path / "two", every[1::2])]
    build_leaderboard(folders, tmp_path / "second")
    assert files(tmp_path / "first") == files(tmp_path / "second")


@pytest.mark.slow
def test_the_committed_leaderboard_is_what_its_records_give(tmp_path: Path) -> None:
    shutil.copytree(COMMITTED, tmp_path / "board")
    pages = (page for page in (tmp_path / "board").glob("*.md") if GENERATED in page.read_text())
    for page in [*pages, tmp_path / "board" / "index.html"]:
        page.unlink()
    build_leaderboard([tmp_path / "board"], tmp_path / "board")
    # A file of records is written only where its text has changed, so that these come back as they were written.
    assert files(tmp_path / "board") == files(COMMITTED)


def test_every_link_of_the_committed_pages_leads_to_a_file() -> None:
    for page in COMMITTED.glob("*.md"):
        targets = [target.partition("#")[0] or page.name for target in re.findall(r"\]\(([^)]+)\)", page.read_text())]
        assert targets
        assert [target for target in targets if not (COMMITTED / target.partition("#")[0]).is_file()] == []
    links = re.findall(r'href="([^"#][^"]*)"', (COMMITTED / "index.html").read_text())
    assert [
        link for link in links if not link.startswith("https:") and not (COMMITTED / link.partition("#")[0]).is_file()
    ] == []


def test_the_table_has_references_ranked_methods_and_those_below_the_line(tmp_path: Path) -> None:
    lines = table_lines((built(tmp_path, seeds=3) / PAGE).read_text())
    assert [(cells[0], cells[1]) for cells in lines] == [
        ("", "**Original**<br>made-up 1.0, self-reported"),
        ("", "**FDR**<br>made-up 1.0, self-reported"),
        ("1", "◆ **good**<br>made-up 1.0, self-reported"),
        ("2", "**weak**<br>made-up 1.0, self-reported"),
        ("", "**without a rank**"),
        ("", "**lossy**<br>made-up 1.0, self-reported"),
        ("", "**absent**<br>made-up 1.0, self-reported"),
        ("", "**broken**<br>made-up 1.0, self-reported"),
    ]


def test_subsets_of_a_data_set_stand_on_its_page(tmp_path: Path) -> None:
    def of_subset(record: Record) -> Record:
        subset = {"dataset": "class_subset", "dataset_options": {"of": "digits", "classes": ["1", "4"]}}
        return with_changes(record, problem=record.problem.model_copy(update=subset), manifest_name="subset")

    runs = write_records(tmp_path / "runs", [*small_board("whole"), *map(of_subset, small_board("part"))])
    build_leaderboard([runs], tmp_path / "board")
    assert [page.name for page in (tmp_path / "board").glob("digits*.md")] == [PAGE]
    page = (tmp_path / "board" / PAGE).read_text()
    assert page.startswith("# digits / digits_net\n")
    assert re.findall(r'<a id="(\w+)">', page) == ["part", "whole"]


def test_a_line_has_the_figures_and_seeds_of_its_records(tmp_path: Path) -> None:
    board = built(tmp_path)
    (good,) = [cells for cells in table_lines((board / PAGE).read_text()) if "good" in cells[1]]
    # The gaps to FDR are 0.05 and 0.04, and the image passes are as many as those of FDR.
    assert good[:5] == ["provisional", "**good**<br>made-up 1.0, self-reported", "passed", "passed", "+0.30 probe"]
    assert good[5:11] == ["0.00 ± 0.00", "55.50 ± 0.71", "+4.50", "90.00 ± 0.00", "1.0\N{MULTIPLICATION SIGN}", "1,100"]
    assert good[11:] == ["0 1", "small"]
    assert "Records: [records/problem.jsonl.xz](records/problem.jsonl.xz).\n" in (board / PAGE).read_text()
    records = [entry.record for entry in read_collection(board / "records/problem.jsonl.xz")]
    assert [(record.method.label, record.seed) for record in records][8:10] == [("good", 0), ("good", 1)]


def test_each_page_says_what_the_features_are_closer_to(tmp_path: Path) -> None:
    records = [
        with_relative_verdict(record, 0.25, {"interval": [0.125, 0.375]}) if record.status == "done" else record
        for record in small_board(seeds=3)
    ]
    build_leaderboard([write_records(tmp_path / "runs", records)], tmp_path / "board")
    page, web = ((tmp_path / "board" / name).read_text() for name in (PAGE, "index.html"))
    assert "\n- weak: residual (all views); closer to FDR (+25.0, +12.5 to +37.5)\n" in page
    assert "- **closer to**: the relative verdict" in page
    assert web.count("closer to FDR (+25.0, +12.5 to +37.5). Positions: prototype") == 3
    exported = {row["method"]: row["closer_to"] for row in cli("export", tmp_path / "board", "--to", "json").json}
    assert exported == {
        "original": None,
        "fdr": None,
        "good": "FDR",
        "weak": "FDR",
        "lossy": "FDR",
        "absent": None,
        "broken": None,
    }


def test_failed_and_skipped_cells_are_shown_with_their_reason(tmp_path: Path) -> None:
    text = (built(tmp_path) / PAGE).read_text()
    assert "- lossy: provisional: 2 seeds, 3 are needed for a rank\n" in text
    assert "- good: residual (all views)\n" in text
    assert "- broken: failed with seed 0, 1: ValueError: no &lt;b>way\n" in text
    assert "- absent: not applicable with seed 0, 1: needs batch norm\n" in text
    assert "| 0 failed 1 failed | small |\n" in text
    assert "| 0 not applicable 1 not applicable | small |\n" in text


def test_a_method_that_lost_the_retain_classes_is_told_so(tmp_path: Path) -> None:
    text = (built(tmp_path, seeds=3) / PAGE).read_text()
    assert re.search(r"- lossy: it lost 39.00 points of the retain classes \(36.\d\d to 41.\d\d\), more than 2\n", text)


def test_the_problem_and_the_columns_are_told(tmp_path: Path) -> None:
    text = (built(tmp_path) / PAGE).read_text()
    assert "- Forget classes: nine\n" in text
    assert "- Limited data: 10 % of each class; 140 images in all\n" in text
    assert "- Images: 1,352 for training, 445 for testing\n" in text
    assert "- Training of the references: epochs = 2\n" in text
    assert "- Computed on: a machine\n" in text
    assert COLUMNS in text


def test_data_card_and_options_are_told_without_breaking_the_table(tmp_path: Path) -> None:
    text = (built(tmp_path) / PAGE).read_text()
    card = "forget image passes | retain image passes | test image passes | networks run"
    assert f"| method | from | {card} | searched | computed on | options |\n" in text
    assert r"| good | made-up 1.0 | 100 | 1,000 | 0 | 2 | - | a machine | epochs = 3, mode = a\|b |" in text


def test_which_machine_made_which_seed_is_told(tmp_path: Path) -> None:
    places = ({"device": "old CPU", "precision": "float32"}, {"device": "GPU", "precision": "bfloat16"})
    records = [
        with_changes(record, environment=places[1 if record.method.label == "good" and record.seed else 0])
        for record in small_board()
    ]
    build_leaderboard([write_records(tmp_path / "runs", records)], tmp_path / "board")
    text = (tmp_path / "board" / PAGE).read_text()
    assert "| 2 | - | old CPU, float32 (seed 0); GPU, bfloat16 (seed 1) | epochs = 3" in text
    assert "| 2 | - | old CPU, float32 | rate = 0.1 |" in text
    assert "- Computed on: old CPU, float32 (seed 0, 1); GPU, bfloat16 (seed 1)\n" in text
    assert "old CPU, float32 (seed 0); GPU, bfloat16 (seed 1)" in (tmp_path / "board" / "index.html").read_text()


def test_the_budget_of_searched_options_is_told_and_not_for_methods_that_were_not_searched(tmp_path: Path) -> None:
    budget = {"trials": 20, "seeds": [1000, 1001], "held_out_share": 0.2, "not_searched": ["weak"]}
    records = [with_changes(record, manifest={"tuning": budget}) for record in small_board()]
    build_leaderboard([write_records(tmp_path / "runs", records)], tmp_path / "board")
    text = (tmp_path / "board" / PAGE).read_text()
    assert "| good | made-up 1.0 | 100 | 1,000 | 0 | 2 | 20 trials on 2 seeds |" in text
    assert "| weak | made-up 1.0 | 100 | 1,000 | 0 | 2 | - |" in text
    page = (tmp_path / "board" / "index.html").read_text()
    assert page.count("<h3>Options, searched with 20 trials on 2 seeds</h3>") == text.count("20 trials on 2 seeds")


def test_problems_without_published_figures_have_no_such_column(tmp_path: Path) -> None:
    page = (built(tmp_path) / PAGE).read_text(encoding="utf-8")
    assert "reported" not in page.replace("self-reported", "")


def test_published_figures_stand_beside_the_measured_ones(tmp_path: Path) -> None:
    changes = {
        "dataset": "cub200",
        "architecture": "resnet50",
        "num_classes": 200,
        "forget_classes": tuple(range(180, 200)),
        "limited": "3 images",
    }
    records = [*small_board(), *(make_record("wd", seed) for seed in (0, 1))]
    records = [with_changes(record, problem=record.problem.model_copy(update=changes)) for record in records]
    build_leaderboard([write_records(tmp_path / "runs", records)], tmp_path / "board")
    text = (tmp_path / "board" / "cub200-resnet50.md").read_text()
    assert "| FAe *measured* | FAe *reported* | FPAe *measured* | FPAe *reported* | gap to FDR | CAne *meas" in text
    (wd,) = [cells for cells in table_lines(text) if "wd" in cells[1]]
    assert wd[0] == "control"
    assert wd[5:11] == ["0.00 ± 0.00", "0.00", "50.00 ± 0.00", "84.69", "-1.00", "90.00 ± 0.00"]
    assert "means of 5 runs: Singh, Mazumder, Karim" in text
    assert "84.69" in (tmp_path / "board" / "index.html").read_text()


def test_methods_are_listed_over_all_problems(tmp_path: Path) -> None:
    text = (built(tmp_path, "a", "b", seeds=3) / "README.md").read_text()
    assert f"| method | score | 95 % interval | passed on | [1]({PAGE}#a) | [2]({PAGE}#b) |" in text
    assert "| good | - | - | 2 of 2 | 1 | 1 |" in text
    assert "| lossy | - | - | 0 of 2 | none | none |" in text


def test_five_problems_give_a_score(tmp_path: Path) -> None:
    text = (built(tmp_path, *"abcde", seeds=3) / "README.md").read_text()
    # It passes on all problems and lies 0.3 from FDR, whereas the outputs of `weak` remember.
    assert "| good | 0.70 | 0.70 to 0.70 | 5 of 5 | 1 |" in text
    assert "| weak | 0.00 | 0.00 to 0.00 | 0 of 5 | 2 |" in text


def test_another_order_is_told_on_the_page(tmp_path: Path) -> None:
    runs = write_records(tmp_path / "runs", small_board())
    done = cli("leaderboard", "build", runs, "-o", tmp_path / "board", "--rank-by", "prototype-gap")
    assert done.code == 0, done.err
    assert "rows are listed by |position| of the nearest prototype" in (tmp_path / "board" / PAGE).read_text()


def test_building_again_leaves_other_files_alone(tmp_path: Path) -> None:
    board = built(tmp_path)
    (board / "notes.txt").write_text("mine")
    before = files(board)
    build_leaderboard([board], board)
    assert files(board) == before


def test_pages_of_networks_that_are_gone_are_removed(tmp_path: Path) -> None:
    records = [*small_board("a"), *on_network(small_board("b"), "another")]
    build_leaderboard([write_records(tmp_path / "runs", records)], board := tmp_path / "board")
    (board / "mine.md").write_text("# Mine\n")
    assert (board / "digits-another.md").is_file()
    (board / "records" / "b.jsonl.xz").unlink()
    build_leaderboard([board], board)
    names = sorted(name for name in files(board) if not name.startswith("records/"))
    assert names == ["README.md", "REPORTED.md", "SUMMARY.md", PAGE, "index.html", "mine.md"]


def test_records_that_the_pages_would_not_show_are_not_left_behind(tmp_path: Path) -> None:
    board = built(tmp_path, "a", "b")
    runs = write_records(tmp_path / "other", small_board("a"))
    with pytest.raises(InvalidFileError) as caught:
        build_leaderboard([runs], board)
    assert str(caught.value) == (
        f"{board}/records: 14 of its records are not among those given, {board}/records/b.jsonl.xz:10 "
        f"for one\n  To keep them: unlearnbench leaderboard build {runs} {board} -o {board}\n"
        f"  To start anew, remove {board}/records first"
    )


def test_two_records_for_one_place_are_named(tmp_path: Path) -> None:
    runs = write_records(tmp_path / "runs", small_board())
    others = [make_record("good", seed, options={"epochs": 4}) for seed in (0, 1)]
    more = write_records(tmp_path / "more", others)
    with pytest.raises(InvalidFileError) as caught:
        build_leaderboard([runs, more], tmp_path / "board")
    place = "records/small/problem/good/seed-0.json"
    assert str(caught.value) == (
        f"{more}/{place}: {runs}/{place} is of the same cell, small/problem/good/seed-0\n"
        "  Give one of the two manifests another name, or one of the methods another label"
    )


def test_submissions_are_part_of_the_leaderboard_and_stay_where_they_are(tmp_path: Path) -> None:
    board = built(tmp_path)
    write_records(board / "submissions" / "me", [make_record("mine", seed) for seed in (0, 1)])
    build_leaderboard([board], board)
    text = (board / PAGE).read_text()
    assert "[0](submissions/me/records/small/problem/mine/seed-0.json)" in text
    assert len(read_entries([board])) == 16


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    runs = write_records(tmp_path / "runs", small_board())
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        build_leaderboard([runs], tmp_path / "file" / "board")
    assert str(caught.value) == f"{tmp_path}/file/board: cannot be written: Not a directory"


def test_a_leaderboard_built_from_its_own_records_is_the_same_to_the_byte(tmp_path: Path) -> None:
    board = built(tmp_path)
    before = {path: path.read_bytes() for path in sorted(board.rglob("*")) if path.is_file()}
    build_leaderboard([board], board)
    assert {path: path.read_bytes() for path in sorted(board.rglob("*")) if path.is_file()} == before


def test_records_beside_the_board_are_published_and_not_ranked(tmp_path: Path) -> None:
    runs = write_records(tmp_path / "runs", small_board())
    extra = [make_record(method, 0) for method in ("original", "fdr", "varied")]
    beside = write_records(tmp_path / "beside", [with_changes(record, manifest_name="experiment") for record in extra])
    board = tmp_path / "board"
    build_leaderboard([runs], board, beside=[beside])
    assert "varied" not in (board / PAGE).read_text()
    assert {entry.record.method.label: entry.ranked for entry in read_entries([board])}["varied"] is False
    assert "## Not ranked\n\nThe files of records also hold" in (board / "README.md").read_text()
    assert "which are not ranked: `experiment`. `" in (board / "README.md").read_text()
    build_leaderboard([board], board)
    assert "varied" not in (board / PAGE).read_text()
    assert [row["method"] for row in cli("table", board, "--json").json if row["method"] == "varied"] == []
    assert len(read_entries([board])) == 17


def test_the_committed_leaderboard_stays_small() -> None:
    files = [path for path in COMMITTED.rglob("*") if path.is_file()]
    assert len(files) <= 40
    assert sum(path.stat().st_size for path in files) <= 5_000_000


def test_records_that_are_there_already_are_not_compressed_again(tmp_path: Path) -> None:
    path = built(tmp_path) / "records" / "problem.jsonl.xz"
    # As another machine's compressor has it.
    path.write_bytes(other := lzma.compress(lzma.decompress(path.read_bytes()), preset=0))
    build_leaderboard([tmp_path / "board"], tmp_path / "board")
    assert path.read_bytes() == other
    more = write_records(tmp_path / "more", [make_record("more", 0), make_record("more", 1)])
    build_leaderboard([tmp_path / "board", more], tmp_path / "board")
    assert b'"more"' in lzma.decompress(path.read_bytes())


def test_records_that_disagree_on_their_problem_are_refused_before_anything_is_written() -> None:
    first, second, *_ = small_board()
    other = with_changes(second, problem=second.problem.model_copy(update={"title": "another title"}))
    entries = [Entry(Path(f"{name}.json"), f"{name}.json", record) for name, record in ((0, first), (1, other))]
    with pytest.raises(InvalidFileError, match=r"^1\.json: problem: says otherwise than the other records"):
        collection_text(entries)
