"""Several commands work on one output folder at a time: all succeed, and the records are those of one alone."""

from __future__ import annotations

from pathlib import Path
from random import Random

from support.commands import Done

from .bench import Bench, traceback_in
from .trials import Trial


def attempt(random: Random, bench: Bench, number: int) -> Trial:
    """Start two or three runs on one folder, perhaps with readers beside them."""
    runs = random.choice((2, 3))
    jobs = [random.choice((1, 2)) for _ in range(runs)]
    reader = random.choice(("", "table", "evaluate", "leaderboard"))
    kind = f"{runs} runs{f' and {reader}' if reader else ''}"
    with bench.copied() if reader else bench.place() as place:
        output = place if reader else place / "runs"
        if reader:
            _take_away(random, bench, output)
        commands = [bench.arguments(output, "--jobs", str(one), "--json") for one in jobs]
        commands += [_reader(reader, output)] if reader else []
        done = [bench.ended(process) for process in [bench.warm(*command) for command in commands]]
        fault = next(filter(None, map(traceback_in, done)), "") or _unequal(done[:runs]) or bench.differs(output)
    return Trial(kind, fault)


def _take_away(random: Random, bench: Bench, output: Path) -> None:
    """Remove some records, so that there is something to run while others read."""
    paths = sorted(output.glob("records/**/*.json"))
    for path in random.sample(paths, len(paths) // 2):
        path.unlink()


def _reader(reader: str, output: Path) -> list[str]:
    if reader == "leaderboard":
        return ["leaderboard", "build", str(output), "-o", f"{output}-board"]
    return [reader, str(output)]


def _unequal(runs: list[Done]) -> str:
    failed = [run for run in runs if run.code]
    if failed:
        return f"exit code {failed[0].code}: {failed[0].err.strip()[-300:]}"
    return "" if len({run.out for run in runs}) == 1 else "the runs print different tables"
