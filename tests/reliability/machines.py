"""Machines that refuse something: room, writing, locks, an encoding, a stream, a home, a clock that goes forward."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from support.commands import Done

from .bench import Bench, traceback_in
from .trials import Trial

# A trial on a machine that refuses something, which returns what went wrong.
Case = Callable[[Random, Bench, Path], str]
# The command, after some statements that make this machine a worse one.
WORSE = "{}\nimport sys\nfrom unlearnbench.frontends.command import main\nsys.argv[0] = 'unlearnbench'\nmain()"
# The most bytes that a file of a small run may have are drawn up to a little more than its largest file has.
LARGEST = 140_000


def attempt(random: Random, bench: Bench, number: int) -> Trial:
    """Run on a worse machine, and on a good one afterwards."""
    kind, case = CASES[number % len(CASES)]
    with bench.place() as place:
        fault = case(random, bench, place)
    return Trial(kind, fault)


def _worse(bench: Bench, output: Path, statements: str, *arguments: str) -> Done:
    """Run after some statements, which hold in the processes of the run too."""
    return bench.ended(bench.warm(*bench.arguments(output, *arguments), statements=statements))


def _worse_from_the_start(bench: Bench, output: Path, statements: str) -> Done:
    """Run after some statements that come before everything is imported."""
    return bench.done([sys.executable, "-c", WORSE.format(statements), *bench.arguments(output)])


def _then_good(bench: Bench, output: Path, bad: Done, codes: tuple[int, ...], said: str) -> str:
    """Return what is wrong with a run on a bad machine, or with the run that follows on a good one."""
    fault = traceback_in(bad)
    if not fault and bad.code not in codes:
        fault = f"exit code {bad.code}: {bad.err.strip()[-300:]}"
    if not fault and bad.code and said not in bad.err:
        fault = f"does not say {said!r}: {bad.err.strip()[-300:]}"
    if fault:
        return fault
    good = bench.run(output)
    return traceback_in(good) or (good.err.strip()[-300:] if good.code else "") or bench.differs(output)


def _full_disk(random: Random, bench: Bench, place: Path) -> str:
    """Let no file grow beyond a size, which needs no rights."""
    size, jobs = random.randrange(100, LARGEST), random.choice("12")
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    bad = _worse(bench, place / "runs", limit, "--jobs", jobs)
    fault = _then_good(bench, place / "runs", bad, (0, 1), "cannot be written: File too large")
    return f"{size} bytes a file, {jobs} jobs: {fault}" if fault else ""


def _small_disk(random: Random, bench: Bench, place: Path) -> str:
    """Run on a file system of some kilobytes, where this process may mount one, and give it more room."""
    size, jobs = random.randrange(4, 1100), random.choice("12")
    disk = place / "disk"
    disk.mkdir()
    if not _mounted(disk, f"size={size}k"):
        return _full_disk(random, bench, place)
    try:
        bad = bench.run(disk / "runs", "--jobs", jobs)
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        fault = _then_good(bench, disk / "runs", bad, (0, 1, 2), "No space left on device")
    finally:
        subprocess.run(["umount", "-l", disk], check=False)
    return f"{size} kB, {jobs} jobs: {fault}" if fault else ""


def _mounted(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _read_only(random: Random, bench: Bench, place: Path) -> str:
    """Let every attempt to write below the output folder fail, as a disk does that the system made read-only."""
    refuse = (
        "import os, sys\n"
        "def refuse(event, arguments, output=sys.argv[4]):\n"
        "    writes = event == 'os.mkdir' or event == 'open' and arguments[2] & (os.O_WRONLY | os.O_RDWR)\n"
        "    if writes and str(arguments[0]).startswith(output): raise OSError(30, 'Read-only file system')\n"
        "sys.addaudithook(refuse)"
    )
    return _then_good(bench, place / "runs", _worse(bench, place / "runs", refuse), (1, 2), "Read-only file system")


def _no_locks(number: int) -> Case:
    refuse = f"import fcntl, os\ndef refuse(*_): raise OSError({number}, os.strerror({number}))\nfcntl.flock = refuse"

    def run(random: Random, bench: Bench, place: Path) -> str:
        bad = _worse(bench, place / "runs", refuse)
        return _then_good(bench, place / "runs", bad, (0, 2) if number == 38 else (2,), "has no locks")

    return run


def _ascii(random: Random, bench: Bench, place: Path) -> str:
    old = bench.environment
    bench.environment = {**old, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    try:
        bad = bench.done(bench.command(*bench.arguments(place / "runs")))
    finally:
        bench.environment = old
    return _then_good(bench, place / "runs", bad, (0,), "")


def _no_home(random: Random, bench: Bench, place: Path) -> str:
    remove = "import os\nfor name in ('HOME', 'XDG_CACHE_HOME', 'UNLEARNBENCH_DATA', 'USER'): os.environ.pop(name, 0)"
    return _then_good(bench, place / "runs", _worse_from_the_start(bench, place / "runs", remove), (0,), "")


def _clock_set_back(random: Random, bench: Bench, place: Path) -> str:
    """Begin a run, go on a year earlier, and find the store's files made in the future."""
    half = bench.run(place / "runs", "--only", "wd")
    for path in (place / "runs").rglob("*"):
        os.utime(path, (time.time() + 1e8, time.time() + 1e8))
    back = "import time\nreal = time.time\ntime.time = lambda: real() - 3e7"
    bad = _worse(bench, place / "runs", back)
    return traceback_in(half) or _then_good(bench, place / "runs", bad, (0,), "")


def _stream(redirection: str, codes: tuple[int, ...]) -> Case:
    def run(random: Random, bench: Bench, place: Path) -> str:
        command = bench.command(*bench.arguments(place / "runs"))
        bad = bench.done(["sh", "-c", f'"$@" {redirection}', "sh", *command])
        return _then_good(bench, place / "runs", bad, codes, "" if "2>" in redirection else "the output")

    return run


# Room runs out at another size in each of twenty trials.
CASES: list[tuple[str, Case]] = [
    *[("full disk", _full_disk), ("small disk", _small_disk)] * 10,
    ("read-only", _read_only),
    *((f"no locks, errno {number}", _no_locks(number)) for number in (37, 38, 95, 5)),
    ("ASCII locale", _ascii),
    ("no HOME", _no_home),
    ("clock set back", _clock_set_back),
    ("stdout full", _stream(">/dev/full", (1,))),
    ("stdout closed", _stream(">&-", (1,))),
    ("stderr full", _stream("2>/dev/full", (0, 1))),
    ("stderr closed", _stream("2>&-", (0, 1))),
]
