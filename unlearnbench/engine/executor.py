"""The executor, which runs a plan by its dependencies, in one process or several, and keeps the records."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from unlearnbench.engine.dry_run import known_passes, planned_work
from unlearnbench.engine.engines.crew import Crew, check_devices, device_precision, muster
from unlearnbench.engine.engines.engine import DiedError, Future
from unlearnbench.engine.engines.place import Place
from unlearnbench.engine.parties.apart import THINKING_SECONDS, PartiesApart
from unlearnbench.engine.processes.fork_server import fork_server
from unlearnbench.engine.processes.method import Limits, manifest_limits
from unlearnbench.engine.progress import Display
from unlearnbench.engine.recording import kept_records, plan_for, stage_names
from unlearnbench.engine.runner import Runner
from unlearnbench.engine.schedule import Schedule, Task
from unlearnbench.engine.worker import Post, named_dataset, run_stage
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.experiment.plan import Cell, Plan
from unlearnbench.experiment.resolve import Resolved, resolve
from unlearnbench.mirror import origin, shown
from unlearnbench.results.records.files import write_record
from unlearnbench.results.records.record import Record
from unlearnbench.store import Store
from unlearnbench.terms import SHORT

# The loop over the cells looks at least this often whether there is something else to do.
LOOK_SECONDS = 1.0


def run(
    manifest: Resolved | Path | str,
    output: Path | str = "runs",
    *,
    device: str = "auto",
    only: Sequence[str] = (),
    jobs: int | None = None,
    limits: Limits | None = None,
    console: Console | None = None,
) -> list[Record]:
    """Run a manifest and return the records of all its cells; what is done already is not done again.

    Args:
        manifest: Manifest, loaded or by its path.
        output: Output folder.
        device: Device to compute on: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        only: Labels of the unlearners to run; empty means all. References always run.
        jobs: Number of cells that run at the same time; None leaves it to the size of the images.
        limits: What a run of an unlearner may use; None takes what the manifest says.
        console: Console that shows progress; None shows nothing.

    Returns:
        The records in the plan's order. A cell that failed has one too, with its reason.

    Raises:
        ManifestError: If the manifest has faults.
        InvalidFileError: If a network cannot process the data set's images, or weights do not fit.
        StoreError: If a record cannot be written.
        UnlearnBenchError: If torch cannot use the device.
    """
    resolved = manifest if isinstance(manifest, Resolved) else resolve(Path(manifest))
    folder, say = Path(output), _teller(console)
    plan = plan_for(resolved, folder, device_precision(device), tuple(only), say)
    return finish(plan, folder, device, jobs=jobs, limits=limits, console=console, say=say)


def _teller(console: Console | None) -> Callable[[str], None]:
    def say(line: str) -> None:
        if console is not None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return say


def finish(
    plan: Plan,
    output: Path,
    device: str = "auto",
    *,
    jobs: int | None = None,
    limits: Limits | None = None,
    console: Console | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> list[Record]:
    """Run what is left to do of a plan and return the records of all its cells, in the plan's order.

    Args:
        plan: Plan to run.
        output: Output folder.
        device: Device to compute on, as in `run`.
        jobs: Number of cells that run at the same time; None leaves it to the size of the images.
        limits: What a run of an unlearner may use; None takes what the manifest says.
        console: Console that shows progress; None shows nothing.
        say: Callback that receives a line when the user should know something, such as a wait or a damaged file.

    Raises:
        InvalidFileError: If a network cannot process the data set's images, or weights do not fit.
        StoreError: If a record cannot be written.
        UnlearnBenchError: If torch cannot use the device.
    """
    store = Store(output / "store", say)
    finished = kept_records(plan, output, store)
    if len(finished) == len(plan.cells):
        return [finished[cell.id] for cell in plan.cells]
    return run_plan(plan, output, store, finished, Place(device, jobs), limits, console)


def run_plan(
    plan: Plan,
    output: Path,
    store: Store,
    finished: dict[str, Record],
    place: Place,
    limits: Limits | None = None,
    console: Console | None = None,
) -> list[Record]:
    """Run the unfinished cells of a plan and return the records of all cells, in the plan's order.

    Args:
        plan: Plan to run.
        output: Output folder.
        store: Store of the output folder.
        finished: Records that count already, by cell.
        place: Where to compute.
        limits: What a run of an unlearner may use; None takes what the manifest says.
        console: Console that shows progress; None shows nothing.

    Raises:
        EngineError: If a cluster does not answer.
        InvalidFileError: If a network cannot process the data set's images, or weights do not fit.
        StoreError: If a record cannot be written.
        UnlearnBenchError: If torch cannot use the device.
    """
    tell = _teller(console)
    if place.parties_apart:
        _check_parties(plan, output, tell)
    # There are no more workers than there is work for; what records say is the same for the last cell as for the first.
    left = len(plan.cells) - len(finished)
    crew = muster(place, plan.cells[0].problem.info.shape, left, output, tell)
    if place.at_hand:
        check_devices(plan.resolved.manifest.devices_per_training, crew.devices)
    at_a_time = f", {crew.lanes} at a time" if crew.lanes > 1 else ""
    tell(
        f"{plan.resolved.manifest.name}: {len(plan.cells)} cells, {len(finished)} done before, "
        f"on {crew.title}{at_a_time}"
    )
    passes = known_passes(planned_work(plan, finished, store))
    with Display(console or Console(file=io.StringIO()), len(plan.cells), passes, crew.lanes) as display:
        runner = Runner(
            plan,
            output,
            store,
            crew.here,
            display.lanes[0],
            fork_server(crew.threads),
            jobs=crew.jobs,
            threads=crew.threads,
            limits=limits or manifest_limits(plan.resolved.manifest),
        )
        federations = crew.jobs if place.parties_apart else 0
        return _run_cells(runner, crew, finished, display, federations)


def _check_parties(plan: Plan, output: Path, tell: Callable[[str], None]) -> None:
    """Say whether the parties of a plan can train apart, and whether there are any that do.

    Raises:
        UnlearnBenchError: If the output folder is at an address.
    """
    if origin(output) is not None:
        raise UnlearnBenchError(
            f"--parties-apart: nodes go on from a checkpoint in the output folder, and {shown(output)} is an address\n"
            "  Give a folder that all nodes share"
        )
    federation = plan.cells[0].problem.federation
    if federation is None or federation.engine:
        why = "it has no federation" if federation is None else f"{federation.engine} plays its rounds"
        tell(f"{plan.resolved.manifest.name}: --parties-apart changes nothing, since {why}")


def _run_cells(
    runner: Runner,
    crew: Crew,
    finished: dict[str, Record],
    display: Display,
    federations: int,
) -> list[Record]:
    """Run all cells, with so many federations at a time whose parties train in workers of their own."""
    plan, output = runner.plan, runner.output
    runner.check_networks()
    records = {}
    walk = _walk(runner, crew, finished, display, federations)
    # The walk is closed at once, whatever happens here, since workers must not go on without the user's knowledge.
    with contextlib.closing(walk):
        for cell, record in walk:
            records[cell.id] = record
            if cell.id in finished:
                # The number of these cells was reported at the start, but a missing result is explained again.
                display.cell_done(None if record.status == "done" else f"{_outcome(record)} (done before)")
            else:
                write_record(record, output / "records" / cell.path)
                display.cell_done(_outcome(record))
    return [records[cell.id] for cell in plan.cells]


Walk = Generator[tuple[Cell, Record], None, None]


def _walk(runner: Runner, crew: Crew, finished: dict[str, Record], display: Display, federations: int) -> Walk:
    """Yield every cell with its record as it arrives: those done before, followed by those that workers run."""
    plan = runner.plan
    yield from ((cell, finished[cell.id]) for cell in plan.cells if cell.id in finished)
    schedule = Schedule(plan.cells, finished)
    plan.resolved.read_sources()
    sent = replace(plan, resolved=replace(plan.resolved, dataset=named_dataset(plan)))
    running: dict[Future, Task] = {}
    # Two workers may find the same damaged file, and the store reports each thing only once.
    with contextlib.ExitStack() as opened:
        engine = opened.enter_context(crew.engage(display.lanes, runner.store.say))
        # A process elsewhere may have another working folder.
        output = shown(runner.output.absolute())
        post = engine.share(Post(sent, output, crew.devices, runner.jobs, runner.threads, runner.limits))

        def submit(task: Task) -> None:
            need = replace(
                crew.need,
                devices=plan.resolved.manifest.devices_per_training if task.trains else 1,
                priority=int(task.cell.is_reference),
                name=stage_names(task.cell)[task.makes_record],
            )
            stage = (post, task.cell.id, task.makes_record, dict(runner.broken))
            running[engine.submit(need, run_stage, *stage)] = task

        apart = opened.enter_context(PartiesApart(runner, post, replace(crew.need, priority=1), engine, federations))
        while not schedule.over:
            while engine.free and not apart.full and (task := schedule.take()):
                if not apart.begin(task):
                    submit(task)
            for task in apart.pass_on():
                submit(task)
            engine.wait([*running, *apart.futures], THINKING_SECONDS if apart.thinking else LOOK_SECONDS)
            for future in [future for future in running if future.done]:
                task = running.pop(future)
                record = _record(runner, task, future)
                schedule.end(task, recorded=record is not None)
                if record is not None:
                    yield task.cell, record


def _record(runner: Runner, task: Task, future: Future) -> Record | None:
    """Return the record that a stage ended with, if it has one."""
    try:
        record, broken = future.result()
    except DiedError as error:
        return runner.failed(task.cell, str(error))
    runner.broken.update(broken)
    made: Record | None = record
    return made


def _outcome(record: Record) -> str:
    """Return a line about how a cell ended."""
    name = f"{record.method.label}, seed {record.seed}"
    if record.status != "done":
        return f"{name}: {record.status.replace('_', ' ')}: {record.reason}"
    values = {short: record.value(metric) for short, metric in SHORT.items()}
    parts = [f"{short} {'failed' if value is None else f'{100 * value:.2f}'}" for short, value in values.items()]
    reasons = [f"{short}: {record.metrics[SHORT[short]].reason}" for short, value in values.items() if value is None]
    return "\n  ".join([f"{name}: {', '.join(parts)}", *reasons])
