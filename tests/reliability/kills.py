"""A run is ended at a random moment: the next run ends in the records of one that nothing disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from random import Random

from .bench import END_SECONDS, Bench, alive, traceback_in
from .trials import Trial

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# A terminal sends Ctrl-C to all processes; a machine that runs out of memory ends one of them.
TARGETS = ("parent", "child", "all")


def attempt(random: Random, bench: Bench) -> Trial:
    """End a run, or one of its processes, and run again."""
    kind, target, jobs = random.choice(SIGNALS), random.choice(TARGETS), random.choice((1, 2))
    moment = random.random() * bench.seconds
    mark = uuid.uuid4().hex
    named = f"{kind.name} to {target}, {jobs} job{'s' if jobs > 1 else ''}"
    with bench.place() as place:
        command = bench.command("run", bench.manifest, "-o", place / "runs", "--device", "cpu", "--jobs", str(jobs))
        process = bench.start(command, mark)
        time.sleep(moment)
        _send(random, process, mark, kind, target)
        fault = _ended(process, mark) or _again(bench, place / "runs", jobs)
    return Trial(named, f"after {moment:.2f} s: {fault}" if fault else "")


def _send(random: Random, process: subprocess.Popen[str], mark: str, kind: signal.Signals, target: str) -> None:
    children = sorted(set(alive(mark)) - {process.pid})
    with contextlib.suppress(ProcessLookupError):
        if target == "all":
            os.killpg(process.pid, kind)
        elif target == "child" and children:
            os.kill(random.choice(children), kind)
        else:
            process.send_signal(kind)


def _ended(process: subprocess.Popen[str], mark: str) -> str:
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


def _again(bench: Bench, output: os.PathLike[str], jobs: int) -> str:
    """Return how a second run differs from one that nothing disturbed."""
    done = bench.run(output, "--jobs", str(jobs))
    return traceback_in(done) or (done.err.strip()[-300:] if done.code else "") or bench.differs(output)
