"""The commands that publish results. As in `cli`, functions import modules so that the command line starts fast."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unlearnbench.frontends.terminal import echo, echo_json, put, table_console, tell
from unlearnbench.mirror import at_hand

if TYPE_CHECKING:
    from unlearnbench.results.leaderboard.exports import Files
    from unlearnbench.results.leaderboard.view import Board
    from unlearnbench.results.records.record import Record
    from unlearnbench.results.report.compare import Comparison


leaderboard_app = typer.Typer(help="Build and check pages to publish.", no_args_is_help=True)


class RankOrder(StrEnum):
    """The choices of `--rank-by`, which are the keys of `ranking.ORDERS`; importing these would import numpy."""

    paper = "paper"
    prototype_gap = "prototype-gap"
    retain_accuracy = "retain-accuracy"
    image_passes = "image-passes"


RankBy = Annotated[
    RankOrder,
    typer.Option(help="How rows are listed; paper: by the largest |position|. The ranks stay."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def add_board_commands(app: typer.Typer) -> None:
    """Add the commands that are not below `leaderboard`."""
    for command in (submit, compare, export):
        app.command()(command)


@leaderboard_app.command("build")
def leaderboard_build(
    records: Annotated[
        list[Path],
        typer.Argument(
            parser=at_hand,
            help="Output folders of runs, leaderboards, submissions, folders of records.",
            metavar="DIR...",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pages.")] = Path("leaderboard"),
    rank_by: RankBy = RankOrder.paper,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            parser=at_hand, help="More records, published and not ranked: experiments (repeatable).", metavar="DIR"
        ),
    ] = None,
) -> None:
    """Write the leaderboard from the records in DIR: README.md, index.html, a page for each network, the records."""
    from unlearnbench.results.leaderboard.build import build_leaderboard

    for path in build_leaderboard(records, output, rank_by.value, tell, beside=tuple(beside or ())):
        echo(path)


@leaderboard_app.command("check")
def leaderboard_check(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(parser=at_hand, help="Leaderboards, submissions or folders of records.", metavar="[DIR]..."),
    ] = None,
    features: Annotated[
        list[Path] | None,
        typer.Option(
            parser=at_hand, help="Output folder of a run that holds the features (repeatable).", metavar="RUNS"
        ),
    ] = None,
    known: Annotated[
        Path | None, typer.Option("--against", help="Leaderboard that the problems must be on.", metavar="LEADERBOARD")
    ] = None,
    rank_by: RankBy = RankOrder.paper,
) -> None:
    """Check records, their hashes, metrics, problems and seeds, and that pages are what they give."""
    from unlearnbench.results.leaderboard.verify import verify

    bad = False
    for folder in folders or [Path("leaderboard")]:
        verdict = verify(folder, tuple(features or ()), known, rank_by.value, tell)
        for fault in verdict.faults:
            tell(fault)
        bad |= bool(verdict.faults)
        again = f"{verdict.recomputed} metrics computed again from features" if features else "features not given"
        faults = f"{len(verdict.faults)} faults" if verdict.faults else "no fault"
        echo(f"{folder}: {verdict.records} records, {again}, {faults}")
    if bad:
        raise typer.Exit(1)


def submit(
    runs: Annotated[Path, typer.Argument(parser=at_hand, help="Output folder of a run.", metavar="RUNS")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the submission.")] = Path("submission"),
    only: Annotated[
        list[str] | None,
        typer.Option(help="Submit only the unlearner with this label (repeatable).", metavar="METHOD"),
    ] = None,
) -> None:
    """Make a folder from RUNS that can be added to a leaderboard by pull request."""
    from unlearnbench.results.leaderboard.submission import missing_features, write_submission

    made = write_submission(runs, output, tuple(only or ()), tell)
    problems = "1 problem" if len(made.problems) == 1 else f"{len(made.problems)} problems"
    methods = "1 method" if len(made.methods) == 1 else f"{len(made.methods)} methods"
    echo(f"{output}: {len(made.records)} records of {methods} on {problems}")
    missing = missing_features(runs)
    if missing:
        tell(
            f"{missing} feature files are not in {runs} any more: nobody can check these metrics anew\n"
            "  Run the manifest again, which makes them"
        )


def compare(
    first: Annotated[
        Path,
        typer.Argument(parser=at_hand, help="Output folder of a run, leaderboard, folder of records.", metavar="A"),
    ],
    second: Annotated[Path, typer.Argument(parser=at_hand, help="Another one.", metavar="B")],
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Compare this metric, by label (repeatable).", metavar="NAME"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put the runs A and B side by side, with the paired interval of every difference."""
    from unlearnbench.results.records.load import load_records
    from unlearnbench.results.report.compare import compare as compare_records

    one, other = (load_records(folder, tell) for folder in (first, second))
    if not as_json:
        echo(f"A: {first}\nB: {second}")
    show_comparisons(compare_records(one, other, tuple(metrics or ())), ("A", "B"), as_json)


def _inspect_files(board: Board) -> Files:
    """Return Inspect's logs, with a file for each manifest and unlearner.

    Raises:
        UnlearnBenchError: If Inspect is not installed.
    """
    import tempfile

    from unlearnbench.errors import UnlearnBenchError
    from unlearnbench.results.leaderboard.exports import inspect_records

    try:
        from unlearnbench.frontends.hosts.inspect_logs import write_inspect_logs
    except ModuleNotFoundError as error:
        missing = (error.name or "inspect_ai").partition(".")[0]
        raise UnlearnBenchError(
            f"--to inspect: {missing} is not installed\n  pip install 'unlearnbench[inspect]'"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        return {path.name: path.read_bytes() for path in write_inspect_logs(inspect_records(board), Path(folder))}


def show_tables(records: list[Record], as_json: bool, order: str = "paper") -> None:
    """Print the table that records add up to."""
    from unlearnbench.results.ranking import rows_by_problem
    from unlearnbench.results.tables import print_tables

    problems = rows_by_problem(records, order)
    if as_json:
        echo_json([row.as_json() for rows in problems for row in rows])
    else:
        print_tables(problems, table_console(), order)


def show_comparisons(comparisons: list[Comparison], names: tuple[str, str], as_json: bool) -> None:
    """Print comparisons, with a table for each problem."""
    from unlearnbench.results.report.compare import comparison_json, comparison_table, meanings
    from unlearnbench.results.tables import show

    if as_json:
        echo_json([comparison_json(comparison) for comparison in comparisons])
        return
    console = table_console()
    for problem in dict.fromkeys(comparison.first.problem.id for comparison in comparisons):
        shown = [comparison for comparison in comparisons if comparison.first.problem.id == problem]
        show(comparison_table(shown, names), console)
        for comparison in shown:
            for note in comparison.notes:
                console.print(f"{comparison.name}: {note}", markup=False, highlight=False, soft_wrap=True)
    for line in meanings(comparisons):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def export(
    runs: Annotated[
        list[Path],
        typer.Argument(
            parser=at_hand, help="Output folders of runs, leaderboards, folders of records.", metavar="DIR..."
        ),
    ],
    form: Annotated[Literal["csv", "json", "latex", "hf", "inspect"], typer.Option("--to", help="The format.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the files; one text alone goes to stdout without it."),
    ] = None,
    rank_by: RankBy = RankOrder.paper,
) -> None:
    """Write the table of DIR in another format."""
    from unlearnbench.errors import UnlearnBenchError
    from unlearnbench.results.leaderboard.exports import export as export_board
    from unlearnbench.results.leaderboard.exports import write_files
    from unlearnbench.results.leaderboard.view import make_board
    from unlearnbench.results.records.load import check_entries, load_entries

    entries = load_entries(runs, tell)
    check_entries(entries)
    board = make_board([entry.record for entry in entries], rank_by.value)
    files = _inspect_files(board) if form == "inspect" else export_board(board, form)
    only = next(iter(files.values())) if len(files) == 1 else b""
    if output is None and isinstance(only, str):
        put(only)
        return
    if output is None:
        raise UnlearnBenchError(f"--to {form} writes files, not one text\n  say into which folder: --output {form}")
    for path in write_files(files, output):
        echo(path)
