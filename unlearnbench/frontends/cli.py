"""The command line, whose functions import what they need so that it starts fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from unlearnbench import __version__
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.frontends.cli_data import data_app
from unlearnbench.frontends.cli_plugins import plugin_app
from unlearnbench.frontends.cli_results import (
    JsonOption,
    RankBy,
    RankOrder,
    add_board_commands,
    leaderboard_app,
    show_tables,
)
from unlearnbench.frontends.cli_run import Manifests, reproduce, run
from unlearnbench.frontends.deployment.commands import add_deployment_commands
from unlearnbench.frontends.terminal import echo, echo_json, messages, table_console, tell
from unlearnbench.mirror import at_hand, origin

app = typer.Typer(
    help="Benchmark of class unlearning with limited data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(leaderboard_app, name="leaderboard")
app.add_typer(data_app, name="data")
app.add_typer(plugin_app)

Runs = Annotated[
    Path,
    typer.Argument(parser=at_hand, help="Output folder of a run, leaderboard, folder of records.", metavar="DIR"),
]


def _version(wanted: bool) -> None:
    if wanted:
        echo(f"unlearnbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Benchmark of class unlearning with limited data."""


app.command()(run)


@app.command()
def validate(manifests: Manifests) -> None:
    """Check each MANIFEST and say what it amounts to; nothing is run."""
    from unlearnbench.errors import InvalidFileError
    from unlearnbench.experiment.resolve import resolve

    code = 0
    for path in manifests:
        try:
            resolved = resolve(path, to_run=False)
        except InvalidFileError as error:
            code = max(code, error.exit_code)
            echo(str(error), err=True)
            continue
        problems = "1 problem" if len(resolved.problems) == 1 else f"{len(resolved.problems)} problems"
        echo(
            f"{path}: valid: {problems}, {len(resolved.methods)} methods, "
            f"{len(resolved.manifest.seeds)} {'seed' if len(resolved.manifest.seeds) == 1 else 'seeds'}, "
            f"{resolved.number_of_cells} cells"
        )
        for missing in resolved.missing:
            echo(missing, err=True)
    if code:
        raise typer.Exit(code)


@app.command()
def table(folder: Runs, rank_by: RankBy = RankOrder.paper, as_json: JsonOption = False) -> None:
    """Print the table that the records in DIR add up to."""
    from unlearnbench.results.records.load import load_records

    show_tables(load_records(folder, tell), as_json, rank_by.value)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(parser=at_hand, help="Output folder of a run.", metavar="DIR")],
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Compute only this metric, by label or name (repeatable).", metavar="NAME"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compute metrics anew from the features stored in DIR and rewrite its records; no model is run."""
    from unlearnbench.results.evaluate import evaluate as evaluate_folder
    from unlearnbench.results.ranking import rows_by_problem
    from unlearnbench.results.tables import metric_table, show

    spoken: dict[str, None] = {}
    done = evaluate_folder(folder, tuple(metrics or ()), lambda line: spoken.setdefault(line))
    if metrics and not as_json:
        for rows in rows_by_problem(done.records):
            show(metric_table(rows, done.labels), table_console())
    else:
        show_tables(list(done.records), as_json)
    for line in spoken:
        messages().print(line, markup=False, highlight=False, soft_wrap=True)
    messages().print(f"{done.written} records rewritten, {len(done.labels)} metrics", highlight=False)
    if done.faults:
        raise typer.Exit(1)


@app.command()
def relevance(folder: Runs, as_json: JsonOption = False) -> None:
    """Show which share of each layer ERwP found relevant in the runs of DIR, and save it as CSV."""
    from unlearnbench.results.records.load import load_records
    from unlearnbench.results.relevance import relevance_json, relevance_tables, searches, write_relevance
    from unlearnbench.results.tables import show

    found = searches(load_records(folder, tell), folder)
    if as_json:
        echo_json(relevance_json(found))
    else:
        for shown in relevance_tables(found):
            show(shown, table_console())
    for path in write_relevance(found, folder / "relevance"):
        messages().print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def report(
    folder: Runs,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the report; DIR/report if not given.")
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Put the paper's numbers and claims beside what was measured.")
    ] = False,
    brief: Annotated[
        bool, typer.Option("--brief", help="Pages and one picture for each network, without what stands elsewhere.")
    ] = False,
) -> None:
    """Write tables, figures and their numbers from the records in DIR; needs the extra `report`."""
    from unlearnbench.results.report.report import write_report

    output = output or (Path("report") if origin(folder) else folder / "report")
    written = write_report(folder, output, paper=paper, brief=brief, say=tell)
    for path in written.paths:
        echo(path)
    for line in written.not_drawn:
        messages().print(line, markup=False, highlight=False, soft_wrap=True)


app.command()(reproduce)

# These commands come last because `--help` should begin with what a user begins with.
add_deployment_commands(app)
add_board_commands(app)


def main() -> None:
    """Run the command line; a user's mistake ends in a message and an exit code, never in a traceback."""
    try:
        app()
    except UnlearnBenchError as error:
        echo(str(error), err=True)
        sys.exit(error.exit_code)
