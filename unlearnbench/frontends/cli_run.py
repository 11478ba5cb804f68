"""The commands that run manifests, which import what they need so that the command line starts fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlearnbench.errors import StoreError, UnlearnBenchError, WrongUseError, os_reason
from unlearnbench.frontends.cli_data import telling
from unlearnbench.frontends.cli_results import JsonOption, show_tables
from unlearnbench.frontends.terminal import echo, echo_json, messages, table_console, tell
from unlearnbench.mirror import at_hand, shown

if TYPE_CHECKING:
    from unlearnbench.engine.engines.place import Place
    from unlearnbench.experiment.plan import Plan
    from unlearnbench.machine import Precision
    from unlearnbench.results.records.record import Record

OutputOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", parser=at_hand, help="Output folder, shared by manifests: a path, or s3://...", metavar="DIR"
    ),
]
Manifests = Annotated[list[Path], typer.Argument(help="Manifest files (TOML).", metavar="MANIFEST...")]


def _at_least_one(number: int | None) -> int | None:
    if number is not None and number < 1:
        raise typer.BadParameter(f"{number} is not 1 or more")
    return number


def _above_zero(number: float | None) -> float | None:
    if number is not None and not number > 0:
        raise typer.BadParameter(f"{number} is not above 0")
    return number


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
        _check_places(plans)
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


def _check_places(plans: list[Plan]) -> None:
    """Raise if two manifests would write other records to the same place, since one would replace the other's."""
    places: dict[str, tuple[str, str]] = {}
    for plan in plans:
        for cell in plan.cells:
            identity, other = places.setdefault(cell.path, (cell.id, plan.resolved.file))
            if identity != cell.id:
                raise WrongUseError(
                    f"{other} and {plan.resolved.file}: both would write records/{cell.path}, which differ\n"
                    f'  Give one of them a name of its own: name = "..."'
                )


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

    store = Store(output / "store", tell, create=False)
    works = {plan.resolved.file: planned_work(plan, finished_records(plan, output, store), store) for plan in plans}
    if as_json:
        echo_json([{"manifest": file, "work": work_json(work)} for file, work in works.items()])
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
        echo_json([{"manifest": file, "cells": cells} for file, cells in found.items()])
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
    from unlearnbench.files import write_json
    from unlearnbench.results.audit.attestation import ATTESTATIONS, attested

    made = attested(recorded, here, by)
    path = output / made.file_name
    write_json(path, made.model_dump(mode="json"))
    tell(f"written: {path}\n  To publish it, copy it into the leaderboard's folder {ATTESTATIONS}, and build the pages")
