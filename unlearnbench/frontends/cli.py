"""The command line, whose functions import what they need so that it starts fast."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unlearnbench import __version__
from unlearnbench.errors import StoreError, UnlearnBenchError, os_reason
from unlearnbench.frontends.cli_data import data_app, telling
from unlearnbench.frontends.cli_plugins import plugin_app
from unlearnbench.frontends.cli_results import (
    JsonOption,
    RankBy,
    RankOrder,
    add_board_commands,
    leaderboard_app,
    show_tables,
)
from unlearnbench.frontends.deployment.commands import add_deployment_commands
from unlearnbench.frontends.terminal import echo, messages, table_console, tell
from unlearnbench.mirror import at_hand, origin, shown

if TYPE_CHECKING:
    from unlearnbench.engine.engines.place import Place
    from unlearnbench.experiment.plan import Plan
    from unlearnbench.machine import Precision
    from unlearnbench.results.record import Record


app = typer.Typer(
    help="Benchmark of class unlearning with limited data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(leaderboard_app, name="leaderboard")
app.add_typer(data_app, name="data")
app.add_typer(plugin_app)

OutputOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", parser=at_hand, help="Output folder, shared by manifests: a path, or s3://...", metavar="DIR"
    ),
]
Manifests = Annotated[list[Path], typer.Argument(help="Manifest files (TOML).", metavar="MANIFEST...")]
Runs = Annotated[
    Path,
    typer.Argument(parser=at_hand, help="Output folder of a run, leaderboard, folder of records.", metavar="DIR"),
]


def _print_json(value: Any) -> None:
    echo(json.dumps(value, indent=1))


def _version(wanted: bool) -> None:
    if wanted:
        echo(f"unlearnbench {__version__}")
        raise typer.Exit


def _at_least_one(number: int | None) -> int | None:
    if number is not None and number < 1:
        raise typer.BadParameter(f"{number} is not 1 or more")
    return number


def _above_zero(number: float | None) -> float | None:
    if number is not None and not number > 0:
        raise typer.BadParameter(f"{number} is not above 0")
    return number


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Benchmark of class unlearning with limited data."""


@app.command()
def run(
    manifests: Manifests,
    output: OutputOption = Path("runs"),
    device: Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, ...")] = "auto",
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run only the unlearner with this label (repeatable).", metavar="METHOD"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            callback=_at_least_one,
            help="Cells to run at a time; for small images as many as there are cores.",
        ),
    ] = None,
    on: Annotated[
        str, typer.Option("--on", help="Engine: local, ray, the address of a Ray cluster, ...", metavar="ENGINE")
    ] = "local",
    profile: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="What a stage needs on a cluster (TOML).")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the jobs of Slurm running; the same command picks them up.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say what is done, runs and waits on Slurm, and do nothing.")
    ] = False,
    parties_apart: Annotated[
        bool, typer.Option("--parties-apart", help="Let each party of a federation train in a worker of its own.")
    ] = False,
    cell_time_limit: Annotated[
        float | None, typer.Option(callback=_above_zero, help="Seconds that a method may take for one cell.")
    ] = None,
    cell_memory: Annotated[
        float | None, typer.Option(callback=_above_zero, help="GiB of memory that a method may hold.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch missing data sets and weights first.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run every method of each MANIFEST and print the table; what is done already is not done again."""
    from unlearnbench.engine.engines.place import place

    try:
        if download:
            _fetch_missing(manifests)
        where = place(device, jobs, on, profile, detach, parties_apart)
        plans = [_plan(path, tuple(only or ()), output, where, to_run=not (dry_run or status)) for path in manifests]
        if dry_run:
            _show_work(plans, output, as_json)
            return
        if status:
            _show_status(plans, output, where, as_json)
            return
        limits = (cell_time_limit, cell_memory)
        records = [record for plan in plans for record in _run_plan(plan, output, where, limits)]
    except KeyboardInterrupt:
        messages().print("interrupted; the same command goes on from here", highlight=False)
        raise typer.Exit(130) from None
    show_tables(records, as_json)
    _tell_left_over(plans, output)
    messages().print(
        f"records: {shown(output)}/records\nmodels and features: {shown(output)}/store",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if any(record.status == "failed" for record in records):
        raise typer.Exit(1)


def _tell_left_over(plans: list[Plan], output: Path) -> None:
    from unlearnbench.engine.recording import left_over

    for plan in plans:
        paths = left_over(plan, output)
        if paths:
            number = "1 record is" if len(paths) == 1 else f"{len(paths)} records are"
            messages().print(
                f"{number} not of {plan.resolved.file} as it stands, and yet in tables of {output}: {paths[0]}"
                f"{', ...' if len(paths) > 1 else ''}; remove what is not wanted",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _fetch_missing(manifests: list[Path]) -> None:
    from unlearnbench.experiment.assets import fetch_missing

    with telling() as (counting, listener):
        for path in manifests:
            fetch_missing(path, listener, counting.download)


def _plan(path: Path, only: tuple[str, ...], output: Path, place: Place, *, to_run: bool) -> Plan:
    from unlearnbench.engine.recording import plan_for
    from unlearnbench.errors import did_you_mean
    from unlearnbench.experiment.resolve import resolve

    resolved = resolve(path, to_run=to_run)
    for missing in resolved.missing:
        echo(missing, err=True)
    labels = [method.label for method in resolved.methods]
    for label in only:
        if label not in labels:
            raise UnlearnBenchError(f"--only {label}: {path} has no method of this label{did_you_mean(label, labels)}")
    return plan_for(resolved, output, _precision(place, output), only, tell)


def _precision(place: Place, output: Path) -> Precision:
    """Return the precision that a device would choose; torch is imported only if the device may be a GPU."""
    from unlearnbench.machine import cpu_precision, may_have_gpu

    if place.at_hand and (place.device == "cpu" or (place.device == "auto" and not may_have_gpu())):
        return cpu_precision()
    from unlearnbench.engine.engines.crew import device_precision, place_precision

    return device_precision(place.device) if place.at_hand else place_precision(place, output, tell)


def _show_work(plans: list[Plan], output: Path, as_json: bool) -> None:
    from unlearnbench.engine.dry_run import planned_work, work_json, work_table
    from unlearnbench.engine.recording import finished_records
    from unlearnbench.results.tables import show
    from unlearnbench.store import Store

    store = Store(output / "store", create=False)
    works = {plan.resolved.file: planned_work(plan, finished_records(plan, output, store), store) for plan in plans}
    if as_json:
        _print_json([{"manifest": file, "work": work_json(work)} for file, work in works.items()])
        return
    for plan in plans:
        work = works[plan.resolved.file]
        echo(f"{plan.resolved.file}: {len(plan.cells)} cells")
        show(work_table(work), table_console())


def _show_status(plans: list[Plan], output: Path, where: Place, as_json: bool) -> None:
    from unlearnbench.engine.engines.slurm.cluster import job_states
    from unlearnbench.engine.recording import cell_states

    jobs = job_states(output / "slurm", where.profile)
    found = {plan.resolved.file: cell_states(plan, output, jobs) for plan in plans}
    if as_json:
        _print_json([{"manifest": file, "cells": cells} for file, cells in found.items()])
        return
    for file, cells in found.items():
        states = list(cells.values())
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        echo(f"{file}: {len(cells)} cells: {counts}")
        for name, state in cells.items():
            if state not in ("done", "waiting"):
                echo(f"  {name}: {state}")


def _run_plan(
    plan: Plan,
    output: Path,
    place: Place,
    limits: tuple[float | None, float | None] = (None, None),
) -> list[Record]:
    """Run a plan; torch is imported only if something is left to do.

    Args:
        plan: Plan to run.
        output: Output folder.
        place: Where to compute.
        limits: Seconds and GiB that a method may use for one cell; None takes what the manifest says.
    """
    from unlearnbench.engine.recording import kept_records
    from unlearnbench.interrupts import interrupts_end_at_once
    from unlearnbench.store import Store

    console = messages()
    spoken: set[str] = set()

    def say(message: str) -> None:
        if message not in spoken:
            spoken.add(message)
            console.print(message, markup=False, highlight=False, soft_wrap=True)

    store = Store(output / "store", say)
    finished = kept_records(plan, output, store)
    if len(finished) == len(plan.cells):
        console.print(f"{plan.resolved.manifest.name}: all {len(plan.cells)} cells are done already", highlight=False)
        return [finished[cell.id] for cell in plan.cells]
    with console.status("starting", spinner="line"), interrupts_end_at_once():
        from unlearnbench.engine.executor import run_plan
        from unlearnbench.engine.processes.method import Limits

    manifest, (seconds, memory) = plan.resolved.manifest, limits
    allowed = Limits(seconds or manifest.cell_time_limit, memory or manifest.cell_memory)
    return run_plan(plan, output, store, finished, place, allowed, console)


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
    from unlearnbench.results.load import load_records

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
    from unlearnbench.results.load import load_records
    from unlearnbench.results.relevance import relevance_json, relevance_tables, searches, write_relevance
    from unlearnbench.results.tables import show

    found = searches(load_records(folder, tell), folder)
    if as_json:
        _print_json(relevance_json(found))
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


@app.command()
def reproduce(
    row: Annotated[
        Path, typer.Argument(exists=True, help="A file or a folder of records, or one record.", metavar="RECORDS")
    ],
    label: Annotated[
        str, typer.Option("--only", help="The method to run again, where RECORDS holds several.", metavar="METHOD")
    ] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder of the new run.")] = Path("reproduced"),
    device: Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, ...")] = "auto",
    by: Annotated[
        str | None, typer.Option(help="Write an attestation that you ran it, for a leaderboard.", metavar="NAME")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a method again from its records and print both results with their paired difference."""
    from unlearnbench.engine.engines.place import Place
    from unlearnbench.frontends.cli_results import show_comparisons
    from unlearnbench.paths import below
    from unlearnbench.results.leaderboard.rerun import of_row, plan_of_row, read_row
    from unlearnbench.results.report.compare import compare

    recorded = read_row(row, label)
    manifest = below(output, f"{recorded.first.manifest_name}.toml")
    try:
        output.mkdir(parents=True, exist_ok=True)
        manifest.write_text(recorded.manifest(), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{output}: cannot be written: {os_reason(error)}\n  Name another with -o") from error
    only = () if recorded.first.method.role == "reference" else (recorded.label,)
    where = Place(device)
    try:
        plan = plan_of_row(recorded, _plan(manifest, only, output, where, to_run=True), manifest)
        records = of_row(recorded, _run_plan(plan, output, where))
    except KeyboardInterrupt:
        messages().print("interrupted; the same command goes on from here", highlight=False)
        raise typer.Exit(130) from None
    show_comparisons(compare(recorded.records, records), ("recorded", "here"), as_json)
    if any(record.status == "failed" for record in records):
        raise typer.Exit(1)
    if by is not None:
        _attest(recorded.records, records, by, output)


def _attest(recorded: Sequence[Record], here: Sequence[Record], by: str, output: Path) -> None:
    """Write the attestation of a row that was run again."""
    from unlearnbench.results.audit.attestation import ATTESTATIONS, attested
    from unlearnbench.store import write_json

    made = attested(recorded, here, by)
    path = output / made.file_name
    write_json(path, made.model_dump(mode="json"))
    tell(f"written: {path}\n  To publish it, copy it into the leaderboard's folder {ATTESTATIONS}, and build the pages")


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
