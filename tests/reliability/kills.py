"""A run is ended at a random moment: the next run ends in the records of one that nothing disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from pathlib import Path
from random import Random

from .bench import END_SECONDS, Bench, Running, alive, traceback_in
from .trials import Trial

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# A terminal sends Ctrl-C to all processes; a machine that runs out of memory ends one of them.
TARGETS = ("parent", "child", "all")
# A copy of a warm process spends no time on imports, in which Ctrl-C is another matter.
COLD_SHARE = 0.1


def attempt(random: Random, bench: Bench, number: int) -> Trial:
    """End a run, or one of its processes, and run again."""
    kind, target, jobs = random.choice(SIGNALS), random.choice(TARGETS), random.choice((1, 2))
    cold, moment = random.random() < COLD_SHARE, random.random()
    named = f"{kind.name} to {target}, {jobs} job{'s' if jobs > 1 else ''}"
    with bench.place() as place:
        # A run that is faster than the one that was timed has ended before its moment, which then was too late.
        for number in range(10):
            output, after = place / f"runs-{number}", moment * bench.seconds[jobs] * 0.7**number
            process, mark = _started(bench, output, jobs, cold)
            time.sleep(after)
            if _send(random, process, mark, kind, target):
                break
            process.communicate()
        else:
            return Trial(named, "each run ended before it could be killed")
        fault = _ended(process, mark) or _again(bench, output, jobs)
    return Trial(named, f"after {after:.2f} s{' of a cold start' if cold else ''}: {fault}" if fault else "")


def _started(bench: Bench, output: Path, jobs: int, cold: bool) -> tuple[Running, str]:
    mark, arguments = uuid.uuid4().hex, bench.arguments(output, "--jobs", str(jobs))
    return bench.start(bench.command(*arguments), mark) if cold else bench.warm(*arguments, mark=mark), mark


def _send(random: Random, process: Running, mark: str, kind: signal.Signals, target: str) -> bool:
    """Send the signal, and return whether the run had not ended before."""
    if process.poll() is not None:
        return False
    children = sorted(set(alive(mark)) - {process.pid})
    with contextlib.suppress(ProcessLookupError):
        if target == "all":
            os.killpg(process.pid, kind)
        elif target == "child" and children:
            os.kill(random.choice(children), kind)
        else:
            process.send_signal(kind)
        return True
    return False


def _ended(process: Running, mark: str) -> str:
    """Return what is wrong with the end of the disturbed run, or "" if nothing is."""
    out, err = process.communicate(timeout=300)
    if "Traceback (most recent call last)" in out + err:
        return f"exit code {process.returncode} with a traceback: {err.strip().splitlines()[-1][:200]}"
    end = time.monotonic() + END_SECONDS
    while (left := alive(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    for number in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    return f"{len(left)} processes live on" if left else ""


def _again(bench: Bench, output: Path, jobs: int) -> str:
    """Return how a second run differs from one that nothing disturbed."""
    done = bench.run(output, "--jobs", str(jobs))
    return traceback_in(done) or (done.err.strip()[-300:] if done.code else "") or bench.differs(output)
