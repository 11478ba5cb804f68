"""The executor, which runs a plan by its dependencies, in one process or several, and keeps the records."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from unlearnbench.engine.dry_run import known_passes, planned_work
from unlearnbench.engine.engines.engine import DiedError, Future, Need
from unlearnbench.engine.engines.local import LocalEngine
from unlearnbench.engine.processes.fork_server import ForkServer, fork_server
from unlearnbench.engine.processes.method import Limits, manifest_limits
from unlearnbench.engine.progress import Display
from unlearnbench.engine.recording import kept_records, plan_for
from unlearnbench.engine.runner import Runner, work_shares
from unlearnbench.engine.schedule import Schedule, Task
from unlearnbench.engine.worker import Post, named_dataset, run_stage
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.experiment.plan import Cell, Plan
from unlearnbench.experiment.resolve import Resolved, resolve
from unlearnbench.machine import Precision
from unlearnbench.models.training import resolve_precision
from unlearnbench.results.record import Record, write_record
from unlearnbench.store import Store
from unlearnbench.terms import SHORT

# The loop over the cells looks at least this often whether there is something else to do.
LOOK_SECONDS = 1.0
# A stage whose worker dies is begun again so often. A method can kill workers of other cells, each time that it runs.
RETRIES = 3


def choose_devices(name: str, jobs: int = 1) -> tuple[torch.device, ...]:
    """Return the devices that a `--device` value stands for, which processes use in turn.

    Args:
        name: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto`: the first GPU, or the CPU if there is none. Several processes
            use all GPUs unless the name has a number.
        jobs: Number of processes.

    Raises:
        UnlearnBenchError: If there is no such device or torch cannot use it.
    """
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    elif not re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", name):
        raise UnlearnBenchError(f"--device {name}: no such device\n  Valid: auto, cpu, cuda, cuda:N, mps")
    else:
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        # torch raises RuntimeError, AssertionError or others, depending on the kind of device and on its own build.
        except Exception as error:
            raise UnlearnBenchError(
                f"--device {name}: torch cannot use it: {str(error).splitlines()[0]}\n"
                "  Use --device cpu; unlearnbench doctor says which GPU torch finds"
            ) from error
    if jobs > 1 and device.type == "cuda" and device.index is None:
        return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    return (device,)


def device_precision(name: str) -> Precision:
    """Return what a recipe's `auto` precision stands for on the device of a `--device` value.

    Raises:
        UnlearnBenchError: If `choose_devices` fails.
    """
    return resolve_precision("auto", choose_devices(name)[0])


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
    return run_plan(plan, output, store, finished, device, jobs, limits, console)


def run_plan(
    plan: Plan,
    output: Path,
    store: Store,
    finished: dict[str, Record],
    device: str,
    jobs: int | None = None,
    limits: Limits | None = None,
    console: Console | None = None,
) -> list[Record]:
    """Run the unfinished cells of a plan and return the records of all cells, in the plan's order.

    Args:
        plan: Plan to run.
        output: Output folder.
        store: Store of the output folder.
        finished: Records that count already, by cell.
        device: Device to compute on, as in `run`.
        jobs: Number of cells that run at the same time; None leaves it to the size of the images.
        limits: What a run of an unlearner may use; None takes what the manifest says.
        console: Console that shows progress; None shows nothing.

    Raises:
        InvalidFileError: If a network cannot process the data set's images, or weights do not fit.
        StoreError: If a record cannot be written.
        UnlearnBenchError: If torch cannot use the device.
    """
    devices = choose_devices(device, jobs or 1)
    jobs, threads = work_shares(devices[0], plan.cells[0].problem.info.shape, jobs)
    # There are no more workers than there is work for; what records say is the same for the last cell as for the first.
    lanes = min(jobs, len(plan.cells) - len(finished))
    at_a_time = f", {lanes} at a time" if lanes > 1 else ""
    _teller(console)(
        f"{plan.resolved.manifest.name}: {len(plan.cells)} cells, {len(finished)} done before, "
        f"on {devices[0].type}{at_a_time}"
    )
    passes = known_passes(planned_work(plan, finished, store))
    server = fork_server(threads)
    with Display(console or Console(file=io.StringIO()), len(plan.cells), passes, lanes) as display:
        runner = Runner(
            plan,
            output,
            store,
            devices[0],
            display.lanes[0],
            server,
            jobs=jobs,
            threads=threads,
            limits=limits or manifest_limits(plan.resolved.manifest),
        )
        return _run_cells(runner, server, finished, devices, display)


def _run_cells(
    runner: Runner,
    server: ForkServer,
    finished: dict[str, Record],
    devices: Sequence[torch.device],
    display: Display,
) -> list[Record]:
    plan, output = runner.plan, runner.output
    runner.check_networks()
    records = {}
    walk = _walk(runner, server, finished, devices, display)
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


def _walk(
    runner: Runner, server: ForkServer, finished: dict[str, Record], devices: Sequence[torch.device], display: Display
) -> Walk:
    """Yield every cell with its record as it arrives: those done before, followed by those that workers run."""
    plan = runner.plan
    yield from ((cell, finished[cell.id]) for cell in plan.cells if cell.id in finished)
    schedule = Schedule(plan.cells, finished)
    sent = replace(plan, resolved=replace(plan.resolved, dataset=named_dataset(plan)))
    running: dict[Future, Task] = {}
    # Two workers may find the same damaged file, and the store reports each thing only once.
    with LocalEngine(server, display.lanes, runner.store.say) as engine:
        post = engine.share(Post(sent, runner.output, tuple(devices), runner.jobs, runner.threads, runner.limits))
        while not schedule.over:
            while engine.free and (task := schedule.take()):
                need = Need(priority=int(task.cell.is_reference), retries=RETRIES)
                stage = (post, task.cell.id, task.makes_record, dict(runner.broken))
                running[engine.submit(need, run_stage, *stage)] = task
            engine.wait(running, LOOK_SECONDS)
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
