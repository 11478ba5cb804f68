"""Run the benchmarks named on the command line, or all of them, and print a table."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks import evaluation_speed, input_speed, metric_speed, relevance_speed, seam, training_speed
from tests.benchmarks.problem import device
from tests.benchmarks.ratio import REPEATS, Ratio
from unlearnbench.machine import processor_name

BENCHMARKS: dict[str, Callable[[], Ratio]] = {
    "bare": training_speed.bare,
    "textbook": training_speed.textbook,
    "input": input_speed.pipeline,
    "evaluation": evaluation_speed.inference,
    "stages": evaluation_speed.stages,
    "relevance": relevance_speed.looks,
}


def main() -> None:
    """Print one row for each benchmark."""
    known = [*BENCHMARKS, "memory", "metrics", "seam"]
    chosen = sys.argv[1:] or known
    known += [f"seam-{name}" for name in seam.ENGINES if name != "local"]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}: {', '.join(known)}")
    console = Console(width=140)
    name = torch.cuda.get_device_name() if device().type == "cuda" else processor_name()
    table = Table(title=f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}", title_justify="left")
    for heading in ("what", "first, images/s", "second, images/s", f"ratio, median of {REPEATS}", "range", "wanted"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for benchmark in [BENCHMARKS[name] for name in chosen if name in BENCHMARKS]:
        found = benchmark()
        spread = f"{min(found.ratios):.2f} to {max(found.ratios):.2f}"
        wanted = f">= {found.target:g}" if found.target else "-"
        table.add_row(found.what, f"{found.ours:,.0f}", f"{found.theirs:,.0f}", f"{found.median:.2f}", spread, wanted)
    if table.row_count:
        console.print(table)
    if "memory" in chosen:
        small, large = evaluation_speed.memory()
        console.print(
            f"peak memory of extraction: {small / 2**20:,.0f} MiB more for 10,000 images, "
            f"{large / 2**20:,.0f} MiB more for 100,000"
        )
    if "metrics" in chosen:
        for cell in (metric_speed.DIGITS, metric_speed.CIFAR):
            needed = metric_speed.seconds(cell)
            console.print(
                f"all metrics of a cell of {cell.dataset}: {needed:.2f} s of one core, wanted < {cell.most:g} s"
            )
    for name, open_engine in seam.ENGINES.items():
        if ("seam" if name == "local" else f"seam-{name}") in chosen:
            each = seam.stage_milliseconds(open_engine, seam.STAGES[name])
            console.print(
                f"a stage of nothing on {name}: {each:.1f} ms (of {seam.STAGES[name]}), "
                f"{f'wanted < {seam.MOST:g}' if name == 'local' else 'its own process included'}; "
                f"a process by itself: {seam.process_milliseconds():.0f} ms"
            )


if __name__ == "__main__":
    main()
